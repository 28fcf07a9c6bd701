"""How noisy the gradient of one example is beside the gradient of all: the batch size from which averaging stops to pay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import tolerance_of
from ..curvature.evaluation import undisturbed
from ..curvature.gradients import batch_gradients, loss_and_gradient
from ..errors import ArgumentError, DataError
from ..jackknife import jackknife
from ..operators.data import Batches, count, take
from ..operators.layout import Selection
from ..operators.objective import Objective, of_model
from ..spectra.results import Estimate, _quantile

_LEAST = 3  # groups that a jackknife of a variance takes


@dataclass(frozen=True, repr=False)
class NoiseScale:
    r"""B = tr Σ / |G|², in examples, with its interval.

    Attributes:
        value: the estimate; inf where the unbiased estimate of \|G\|² is not positive.
        low, high: the interval at ``level``; ``high`` is inf where the data do not tell the mean gradient from zero.
        trace: tr Σ, the summed variance of one example's gradient. square: \|G\|², unbiased: it may be negative.
        examples, groups: N and K. unit: what was resampled, groups of examples or the batches as they came.
        converged: whether the half-width of the interval is at most the tolerance times the value.

    """

    value: float
    low: float
    high: float
    level: float
    trace: Estimate
    square: Estimate
    examples: int
    groups: int
    unit: str
    converged: bool

    @property
    def interval(self) -> tuple[float, float]:
        """It covers tr Σ / |G|² with probability ``level``."""
        return self.low, self.high

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged"
        bounds = f"[{self.low:.3g}, {self.high:.3g}] at {100 * self.level:g} %"
        return f"NoiseScale({self.value:.4g} examples, {bounds}, {self.groups} {self.unit}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> NoiseScale:
        """The inverse of :meth:`to_dict`."""
        parts = {name: Estimate.from_dict(record[name]) for name in ("trace", "square")}
        return cls(**{**record, **parts})


@dataclass(frozen=True)
class GroupGradients:
    r"""Gradients of K groups of examples, parameter by parameter.

    Attributes:
        names: of the p parameters.
        shares: v, (K,), each group's share in the loss. examples: N.
        squares, products: \|G_k\|² and G_k · G, (K, p). whole: \|G\|², (p,). All float64 on the CPU.
        unit: what a group is.

    """

    names: tuple[str, ...]
    shares: Tensor
    examples: int
    squares: Tensor
    products: Tensor
    whole: Tensor
    unit: str

    def left_out(self) -> Tensor:
        """The squared norms of the gradient without each group, (K, p)."""
        v = self.shares[:, None]
        return ((self.whole - 2 * v * self.products + v**2 * self.squares) / (1 - v) ** 2).clamp(min=0)

    def norm(self, name: str) -> Estimate:
        """The norm of a parameter's gradient, its error from leaving out one group at a time."""
        place = self.names.index(name)
        value = sqrt(float(self.whole[place]))
        stderr = jackknife(value, self.left_out()[:, place].sqrt(), self.shares)
        return Estimate(value, stderr, len(self.shares) - 1, None, 0, 0, f"jackknife over {self.unit}")


class Groups:
    """Batches cut into random groups of examples, at least ``groups`` of them where there are as many examples.

    ``sizes`` holds the number of examples of each group of the last walk.
    """

    def __init__(self, batches: Batches, groups: int, seed: int) -> None:
        self.batches, self.groups, self.seed = batches, groups, seed
        self.sizes: list[int] = []

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.sizes = []
        generator = torch.Generator().manual_seed(self.seed)
        share = -(-self.groups // max(1, len(self.batches)))
        for index, (inputs, target) in enumerate(self.batches):
            examples = count(inputs, target, f"batch {index}")
            order = torch.randperm(examples, generator=generator)
            for chosen in order.tensor_split(min(share, examples)):
                self.sizes.append(len(chosen))
                yield take(inputs, chosen, examples), take(target, chosen, examples)


def group_gradients(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    params: Selection,
    dtype: torch.dtype | None,
    batch_stats: str | None,
    reduction: str | None,
    groups: int,
    seed: int,
) -> GroupGradients:
    """Two walks over the data: the whole gradient, then that of each group, which must add up to it.

    Where they do not, examples depend on each other within a batch, and the batches as they come are the groups.
    """
    with torch.inference_mode(False), torch.enable_grad():
        options = (params, dtype, batch_stats, reduction)
        whole = of_model(model, loss, data, *options)
        gradient = loss_and_gradient(whole, whole.layout.flatten(whole.leaves).detach())[1]
        batches = Batches(data, whole.dtype, whole.device, cast=dtype is not None)
        for share, unit in ((groups, "groups of examples"), (1, "batches")):
            if unit == "groups of examples" and whole.batch_stats == "batch":
                continue
            pieces = Groups(batches, share, seed)
            found, gap = _gather(of_model(model, loss, pieces, *options), pieces, gradient, unit)
            if gap <= tolerance_of(whole.dtype) and len(found.shares) >= _LEAST:
                return found
    given = f"{len(found.shares)} batches, whose examples depend on each other or are fewer than {_LEAST}"
    raise DataError(
        "data", f"at least {_LEAST} groups of independent examples", given, "Pass more batches or examples."
    )


def _gather(objective: Objective, pieces: Groups, gradient: Tensor, unit: str) -> tuple[GroupGradients, float]:
    """The groups' gradients, and how far their mean is from the whole gradient, relative to their size."""
    weights, squares, products, mean = [], [], [], torch.zeros_like(gradient)
    total = objective.weighting is not None and objective.weighting.total
    split = objective.layout.split
    with undisturbed(objective):
        for weight, _, row in batch_gradients(objective, objective.layout.flatten(objective.leaves)):
            w = float(pieces.sizes[-1]) if total else weight
            row = row / w if total else row
            weights.append(w)
            mean.add_(row, alpha=w)
            parts = list(zip(split(row).values(), split(gradient).values(), strict=True))
            squares.append([float(part.double().square().sum()) for part, _ in parts])
            products.append([float((part.double() * other.double()).sum()) for part, other in parts])
    shares = torch.tensor(weights, dtype=torch.float64)
    scale = float(shares.sum()) if total else 1.0  # gradients of sums, as those of the means
    mean = mean / float(shares.sum())
    shares = shares / shares.sum()
    a, c = torch.tensor(squares, dtype=torch.float64), torch.tensor(products, dtype=torch.float64) / scale
    whole = torch.tensor(
        [float((part.double() / scale).square().sum()) for part in split(gradient).values()], dtype=torch.float64
    )
    size = sqrt(float((shares[:, None] * a).sum())) or 1.0
    gap = float((mean - gradient / scale).double().norm()) / size
    return GroupGradients(objective.layout.names, shares, sum(pieces.sizes), a, c, whole, unit), gap


def noise_scale(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    reduction: str | None = None,
    groups: int = 64,
    tol: float = 0.25,
    level: float = 0.95,
    seed: int = 0,
) -> NoiseScale:
    r"""The simple noise scale of the gradient: at a batch of B examples its noise is as large as the gradient itself.

    .. math:: B = \frac{\operatorname{tr} \Sigma}{|G|^2}, \quad
        \widehat{\operatorname{tr} \Sigma} = \frac{1}{K - 1} \sum_k b_k |G_k - \bar G|^2, \quad
        \widehat{|G|^2} = |\bar G|^2 - \widehat{\operatorname{tr} \Sigma} / N

    with Σ the covariance of the gradient of one example, :math:`G_k` the gradient of group k of :math:`b_k` examples and
    :math:`\bar G` that of all N. Both estimates are unbiased. Below B examples a batch twice as large is worth nearly twice
    the steps, above it hardly more.

    Args:
        model, loss, data, params, dtype, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`.
        groups: K, at least, where there are as many examples; K = N compares single examples.
        tol: the half-width of the interval, relative to the value, from which the result counts as converged.
        level: of the interval. seed: of the random groups.

    The interval is Fieller's, for the ratio of two means, with standard errors from leaving out one group at a time. It is
    unbounded where the mean gradient cannot be told from zero: near a minimum N examples do not suffice for that.

    Cost: two gradients of all data, the second in groups; memory for two gradients.

    Assumptions: examples are drawn independently, and batches alike (shuffled). Where examples of a batch depend on each
    other, which is seen, the batches themselves are the groups.

    Errors: ``DataError`` for fewer than three groups, ``ArgumentError`` for an option outside its domain; those of the
    Hessian for model, loss and data.

    Source: McCandlish et al. 2018, An empirical model of large-batch training, appendix A; Fieller 1954, Some problems in
    interval estimation.

    Example:
        Gradients −2 y of mean −2 and variance 4: the scale is near one, at a hundred examples.

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> labels = torch.cat([torch.zeros(50, 1), torch.full((50, 1), 2.0)])
        >>> scale = noise_scale(model, nn.MSELoss(), (torch.ones(100, 1), labels), groups=100)
        >>> round(scale.trace.value, 3), round(scale.square.value, 3)  # 4 · 100/99 and 4 − 4/99
        (4.04, 3.96)

    """
    for name, number, least in (("groups", groups, _LEAST), ("tol", tol, 0.0)):
        if not number >= least or (name == "groups" and not isinstance(number, int)):
            raise ArgumentError(name, f"a number ≥ {least}", repr(number), f"Leave {name} out for its default.")
    if not 0 < level < 1:
        raise ArgumentError("level", "a probability between 0 and 1", repr(level), "Pass level=0.95.")
    found = group_gradients(model, loss, data, params, dtype, batch_stats, reduction, groups, seed)
    return ratio(found, tol, level)


def ratio(found: GroupGradients, tol: float = 0.25, level: float = 0.95) -> NoiseScale:
    """The noise scale of all parameters together from their groups' gradients."""
    v, n, k = found.shares, found.examples, len(found.shares)
    squares, whole = found.squares.sum(1), float(found.whole.sum())
    weighed = float((v * squares).sum())
    sums = torch.tensor([weighed, whole, n], dtype=torch.float64)
    trace, square = _moments(sums[0], sums[1], sums[2], k)
    left = (weighed - v * squares) / (1 - v), found.left_out().sum(1), n * (1 - v)
    traces, squares_left = _moments(*left, k - 1)
    variance = [jackknife(float(trace), traces, v) ** 2, jackknife(float(square), squares_left, v) ** 2]
    both = jackknife(float(trace + square), traces + squares_left, v) ** 2
    covariance = (both - sum(variance)) / 2
    t = _quantile(level, k - 1)
    low, high = fieller(float(trace), float(square), variance[0], variance[1], covariance, t)
    value = float(trace / square) if float(square) > 0 else inf
    pairs = zip((trace, square), variance, strict=True)
    above, below = (Estimate(float(x), sqrt(s), k - 1, None, 0, 0, "jackknife") for x, s in pairs)
    met = (high - low) / 2 <= tol * value < inf
    return NoiseScale(value, low, high, level, above, below, n, k, found.unit, met)


def _moments(weighed: Tensor, whole: Tensor, n: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The unbiased tr Σ and |G|² of k groups from Σ v|G_k|² and |Ḡ|²."""
    trace = n * (weighed - whole).clamp(min=0) / (k - 1)
    return trace, whole - trace / n


def fieller(a: float, b: float, var_a: float, var_b: float, cov: float, t: float) -> tuple[float, float]:
    r"""The non-negative β for which a − βb is within t standard errors of zero, for b that may be near zero.

    Source: Fieller 1954, Some problems in interval estimation.

    Example:
        >>> fieller(4.0, 2.0, 0.0, 0.0, 0.0, 2.0)
        (2.0, 2.0)

    """
    lead, middle, last = b * b - t * t * var_b, a * b - t * t * cov, a * a - t * t * var_a
    root = sqrt(max(0.0, middle * middle - lead * last))
    if lead > 0 and b > 0:
        return max(0.0, (middle - root) / lead), max(0.0, (middle + root) / lead)
    if last <= 0 or lead == 0:
        return 0.0, inf
    return max(0.0, (middle - root) / lead), inf
