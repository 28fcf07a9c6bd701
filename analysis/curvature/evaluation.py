"""The loss over all data at many points of parameter space, with the standard error of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import DataError
from ..operators.differentiable import Differentiable
from ..operators.engine import no_slow_vmap
from ..operators.objective import Objective, Parameters, Term
from ..operators.snapshot import Watch, scalar
from ..operators.weights import Weighting

# On the CPU points are stacked where one pass over a batch makes at most _SMALL numbers and convolves nothing: there the
# launching of operations is what costs. A stack works on about _BLOCK numbers at a time, which fit a cache, and on at
# most _MOST points. Elsewhere a stack only misses the caches, and a stacked convolution is a slow grouped one.
_SMALL, _BLOCK, _MOST = 2**14, 2**21, 256


@dataclass(frozen=True)
class Profile:
    """Losses at n points, their standard errors (None for a single unit), and what those are errors over."""

    losses: Tensor
    stderr: Tensor | None
    unit: str


def evaluate(objective: Objective, corners: Tensor, mixture: Tensor) -> Profile:
    r"""The loss over all data at the points Σ_j m_ij c_j, in one walk over the data.

    The standard error is that of a ratio of sums over units u drawn independently, to first order:

    .. math:: L = \frac{\sum_u s_u}{\sum_u w_u}, \qquad
        \widehat{\operatorname{se}}^2 = \frac{n}{n-1}\,\frac{\sum_u (s_u - L w_u)^2}{(\sum_u w_u)^2}

    Units are examples where the loss can be taken apart into theirs, else batches.

    Shapes: corners (m, P), mixture (n, m), results (n,) in float64 on the CPU.
    """
    # Under batch statistics an example's loss depends on the others, which are then not drawn independently.
    apart = None if objective.batch_stats == "batch" else _apart(objective.weighting)
    split, batches, examples = True, Moments(len(mixture)), Moments(len(mixture))
    with undisturbed(objective), torch.inference_mode(False), torch.no_grad():
        for term in objective._terms():
            parts = _parts(term, objective, apart)
            split = split and not parts.whole
            batches.open(parts.divisors.sum()[None] if objective.divide else torch.ones(1, dtype=torch.float64))
            examples.open(parts.divisors)
            for where, values in _sweep(parts, objective, corners, mixture):
                batches.add(where, values.sum(1, keepdim=True))
                examples.add(where, values)
    if not batches.units:
        raise DataError("data", "at least one example that counts", "none of non-zero weight", "Add examples.")
    kept, unit = (examples, "examples") if split else (batches, "batches")
    scale = 1.0 if objective.divide else kept.divisor
    stderr = kept.stderr()
    return Profile(scale * kept.mean(), None if stderr is None else scale * stderr, unit)


def not_finite(losses: Tensor) -> str:
    """A remark for a repr on the losses that are inf or nan, empty if there are none."""
    lost = int((~losses.isfinite()).sum())
    return f"; {lost} of {losses.numel()} losses not finite" if lost else ""


def undisturbed(objective: Objective) -> AbstractContextManager:
    """The global random generators are put back at the end, also after an error."""
    return torch.random.fork_rng([objective.device.index or 0] if objective.device.type == "cuda" else [])


class Moments:
    """Sums over units, centred at the mean of the first batch so that no digits cancel."""

    def __init__(self, points: int) -> None:
        zeros = (torch.zeros(points, dtype=torch.float64) for _ in range(4))
        self.sum, self.square, self.cross, self.shift = zeros
        self.divisor, self.divisor_square, self.units = 0.0, 0.0, 0

    def open(self, divisors: Tensor) -> None:
        """Begin a batch whose units have these divisors, (u,)."""
        self.first, self.current = self.units == 0, divisors
        self.divisor += float(divisors.sum())
        self.divisor_square += float(divisors.square().sum())
        self.units += int((divisors > 0).sum())

    def add(self, where: slice, values: Tensor) -> None:
        """The values (c, u) of the batch's units at c of the points."""
        total = values.sum(1)
        if self.first:
            self.shift[where] = total / self.current.sum()
        centred = torch.addr(values, self.shift[where], self.current, alpha=-1)
        self.sum[where] += total
        self.square[where] += torch.linalg.vecdot(centred, centred)
        self.cross[where] += centred @ self.current

    def mean(self) -> Tensor:
        """The ratio of the sums, (n,)."""
        return self.sum / self.divisor

    def stderr(self) -> Tensor | None:
        """Its standard error, (n,)."""
        if self.units < 2:
            return None
        drift = self.mean() - self.shift
        square = self.square - 2 * drift * self.cross + drift.square() * self.divisor_square
        return (self.units / (self.units - 1) * square.clamp(min=0)).sqrt() / self.divisor


@dataclass(frozen=True)
class Parts:
    """A batch as a function from parameters to its units' sums (u,), their divisors (u,), and its size."""

    values: Callable[[Parameters], Tensor]
    divisors: Tensor
    whole: bool  # the one unit is the batch
    numbers: int  # that operations make in one pass
    convolves: bool


def _parts(term: Term, objective: Objective, apart: Callable | None) -> Parts:
    """One checked pass at the objective's own parameters, which decides how the batch is taken."""
    output, criterion = term.output, term.criterion
    assert output is not None and criterion is not None  # of_model gives both
    watch = Watch(objective.name, objective.buffers, objective.fixed, objective.device)
    with _Count() as count:
        outcome = output(objective.leaves)
        mean = scalar(criterion(outcome), term.name, objective.name)
    watch.check(partial(term.loss, objective.leaves))
    if apart is not None and isinstance(term.target, Tensor) and objective.weighting is not None:
        divisors = _divisors(objective.weighting, term)
        values = partial(_examples, output, apart, term.target, len(divisors))
        found = apart(outcome, term.target)
        sums = float(found.sum(dtype=torch.float64))
        whole = sums / (term.weight if objective.divide else 1.0)
        # A loss that broadcasts, or a subclass with its own mean, is not the sum of these parts.
        rounding = torch.finfo(mean.dtype).eps ** 0.5 * float(found.abs().sum())
        if found.numel() % len(divisors) == 0 and abs(whole - float(mean)) <= rounding / max(term.weight, 1e-300):
            return Parts(values, divisors, False, count.numbers, count.convolves)

    def total(theta: Parameters) -> Tensor:
        return term.weight * criterion(output(theta))[None]

    return Parts(total, torch.tensor([term.weight], dtype=torch.float64), True, count.numbers, count.convolves)


def _examples(output: Callable, apart: Callable, target: Tensor, count: int, theta: Parameters) -> Tensor:
    return apart(output(theta), target).reshape(count, -1).sum(1)


def _apart(weighting: Weighting | None) -> Callable | None:
    """The loss before its reduction, for the losses of torch that have one."""
    if weighting is None or not (weighting.per_class or weighting.elementwise):
        return None
    if not isinstance(weighting.loss, nn.Module):
        return partial(weighting.loss, reduction="none")
    unreduced: Any = copy.copy(weighting.loss)
    unreduced.reduction = "none"
    return unreduced


def _divisors(weighting: Weighting, term: Term) -> Tensor:
    """What each example adds to the divisor of the mean, (n,) in float64."""
    target: Tensor = term.target
    count = target.shape[0] if target.ndim else 1
    if weighting.total:
        return torch.ones(count, dtype=torch.float64)
    if weighting.elementwise or target.is_floating_point():
        return torch.full((count,), term.weight / count, dtype=torch.float64)
    kept = target != weighting.ignored
    weight = kept.to(torch.float64)
    if weighting.class_weight is not None:
        weight = weight * weighting.class_weight.to(target.device, torch.float64)[torch.where(kept, target, 0)]
    return weight.reshape(count, -1).sum(1).cpu()


class _Count(TorchDispatchMode):
    """Counts the numbers that operations make, and sees convolutions."""

    numbers, convolves = 0, False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.convolves = self.convolves or "convolution" in func.__name__
        made = result if isinstance(result, tuple | list) else (result,)
        self.numbers += sum(part.numel() for part in made if isinstance(part, Tensor))
        return result


def _sweep(parts: Parts, objective: Objective, corners: Tensor, mixture: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The batch's units at every point: many points at a time over stacked parameters, or one after another."""
    stacked = parts.numbers <= _SMALL and not parts.convolves
    rows = max(1, min(_MOST, _BLOCK // parts.numbers if stacked else _SMALL // len(parts.divisors)))
    start = 0
    while start < len(mixture):
        where = slice(start, min(start + rows, len(mixture)))
        weights = mixture[where].to(corners)
        if stacked:
            try:
                values = _stack(parts, objective, weights @ corners)
            except (RuntimeError, TypeError, ValueError):  # vmap cannot take this model; a plain pass can, or says why
                stacked = False
                continue
        else:
            values = _loop(parts, objective, corners, weights)
        yield where, values.to("cpu", torch.float64)
        start = where.stop


def _stack(parts: Parts, objective: Objective, rows: Tensor) -> Tensor:
    layout = objective.layout
    with Differentiable(objective.switched), no_slow_vmap():  # fused kernels have no batching rule
        return vmap(parts.values)(dict(zip(layout.names, layout.pieces(rows), strict=True)))


def _loop(parts: Parts, objective: Objective, corners: Tensor, weights: Tensor) -> Tensor:
    """One pass after another, the private model's parameters made views of one buffer that moves from point to point.

    This saves swapping parameters in and out in every pass. The private model is put back at the end, also after an
    error; the user's own is not involved.
    """
    buffer, base, before = torch.empty_like(corners[0]), corners[0], None
    moving = [(objective.fixed[name], piece) for name, piece in objective.layout.split(buffer).items()]
    own = [parameter.data for parameter, _ in moving]
    results = torch.empty(len(weights), len(parts.divisors), dtype=torch.float64)
    try:
        for parameter, piece in moving:
            parameter.data = piece
        for result, weight in zip(results, weights, strict=True):
            *head, last = weight.tolist()
            if head != before:  # a grid's rows share all but the last coefficient
                base, before = weight[:-1] @ corners[:-1], head
            torch.add(base, corners[-1], alpha=last, out=buffer)
            result.copy_(parts.values({}))
    finally:
        for (parameter, _), data in zip(moving, own, strict=True):
            parameter.data = data
    return results
