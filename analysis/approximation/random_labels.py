"""How many random labels a copy of a model can learn within a budget."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import ArgumentError, DataError, NumericsError
from ..operators.data import call, count, fit
from ..operators.layout import Selection
from ..operators.snapshot import Watch, choose, leaves, snapshot
from ..spectra.results import Estimate, _axes, _quantile

_LEAST = 10  # draws before it may stop


@dataclass(frozen=True, repr=False)
class RandomLabels:
    """What a copy of a model learned of random labels.

    Attributes:
        fitted: the share of the labels that a copy gets right after training, the mean over draws of the labels.
        ceiling: the share that a function could get right: below 1 where inputs are equal and their labels are not.
        chance: one over the number of classes.
        shares: of each draw, (draws,), float64 on the CPU.
        labels, classes: of one draw. steps: of training. parameters: entries that were trained.
        level: of the interval that ``repr`` shows.

    """

    fitted: Estimate
    ceiling: float
    chance: float
    shares: Tensor
    labels: int
    classes: int
    steps: int
    parameters: int
    level: float

    @property
    def converged(self) -> bool:
        """Whether the interval met the tolerance that was asked for."""
        return self.fitted.converged

    @property
    def interval(self) -> tuple[float, float]:
        """Of ``fitted``, at ``level``, within 0 and 1."""
        low, high = self.fitted.interval(self.level)
        return max(low, 0.0), min(high, 1.0)

    def __repr__(self) -> str:
        low, high = self.interval
        words = f"{len(self.shares)} draws of {self.labels} labels in {self.classes} classes, {self.steps} steps"
        state = "" if self.converged else "; not converged"
        return f"RandomLabels({self.fitted.value:.3g} fitted [{low:.3g}, {high:.3g}], chance {self.chance:.2g}; {words}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "fitted": self.fitted.to_dict(), "shares": self.shares.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RandomLabels:
        """The inverse of :meth:`to_dict`."""
        shares = torch.tensor(record["shares"], dtype=torch.float64, device="cpu")
        return cls(**{**record, "fitted": Estimate.from_dict(record["fitted"]), "shares": shares})

    def plot(self, ax: Any = None) -> Any:
        """The share of every draw, with chance and ceiling, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.plot(range(1, len(self.shares) + 1), self.shares, "o", label="one draw of the labels")
        ax.axhline(self.ceiling, color="0.3", linestyle="--", label="ceiling")
        ax.axhline(self.chance, color="0.3", linestyle=":", label="chance")
        ax.set(xlabel="draw", ylabel="share of the labels fitted", ylim=(0, 1.05))
        ax.legend()
        return ax


def random_labels(
    model: nn.Module,
    inputs: Any,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    steps: int = 500,
    rate: float = 1e-2,
    tol: float = 0.05,
    level: float = 0.95,
    max_draws: int = 30,
    seed: int = 0,
) -> RandomLabels:
    r"""How many random labels a copy of a model can learn within a budget of steps.

    Labels are drawn independently and evenly from C classes, and a copy of the model, from its present parameters on, is
    trained on all inputs at once by Adam, its rate falling to zero along a line. A label is fitted where it is the class of
    the largest output:

    .. math:: \text{share} = \frac1N \#\{n : \arg\max_c f(x_n)_c = y_n\}

    The last axis of the output are the classes, the others count labels; an output of one number tells two classes by its
    sign. There is nothing to learn in such labels, they can only be kept in memory: where the share is near 1, a small
    training error says nothing of the error elsewhere. A share below 1 is what this training found, not a bound.

    Args:
        model, params, dtype, batch_stats: as for :class:`~lemmata.analysis.Jacobian`; the chosen parameters are trained.
        inputs: one batch: a tensor, a tuple of positional arguments or a mapping of named ones.
        steps, rate: the budget.
        tol: half width of the interval asked for, relative to the mean. level: its confidence.
        max_draws: of the labels, at most; 10 at least. seed: of the labels.

    The interval is Student's over draws; where all draws agree, it allows for 3/(N · draws) failures of a kind not seen.

    Cost: ``steps`` gradients on all inputs for each draw; memory for one copy of the model beside one gradient.

    Errors: ``ArgumentError`` for an option outside its domain, ``DataError`` for an output that is not a tensor of numbers
    for every input, ``NumericsError`` for training that diverges; ``ParameterError`` and ``ModelStateError`` as for the
    Jacobian.

    Source: Zhang et al. 2017, Understanding deep learning requires rethinking generalization.

    Example:
        An affine function fits any labels of points in general position that are no more than its weights:

        >>> model = nn.Linear(4, 1, dtype=torch.float64)
        >>> found = random_labels(model, torch.eye(4, dtype=torch.float64), rate=0.1)
        >>> found.fitted.value, found.ceiling, found.chance
        (1.0, 1.0, 0.5)

    """
    check_budget(steps, rate, tol, level, max_draws)
    with torch.inference_mode(False), torch.enable_grad():
        private = snapshot(model, dtype, batch_stats)[0]
        theta = leaves(choose(private, params))
        reference = next(iter(theta.values()))
        given = fit(inputs, "inputs", reference.dtype, reference.device, cast=dtype is not None)
        shape, classes = _labelled(private, given)
        same, draws = _alike(given, shape), torch.Generator().manual_seed(seed)
        shares, tops, found = list[float](), list[float](), None
        while len(shares) < _LEAST or (len(shares) < max_draws and not (found and found.converged)):
            labels = torch.randint(classes, shape, generator=draws, device="cpu")
            shares.append(_share(private, list(theta), given, labels.to(reference.device), steps, rate))
            tops.append(_most(labels, same))
            found = _estimate(shares, labels.numel(), tol, level, seed)
    assert found is not None
    own, top = torch.tensor(shares, dtype=torch.float64, device="cpu"), sum(tops) / len(tops)
    entries = sum(part.numel() for part in theta.values())
    return RandomLabels(found, top, 1 / classes, own, labels.numel(), classes, steps, entries, level)


def check_budget(steps: int, rate: float, tol: float, level: float, max_draws: int = _LEAST) -> None:
    """Refuse an option outside its domain."""
    rules = {
        "steps": (steps, "an integer ≥ 1", isinstance(steps, int) and steps >= 1),
        "rate": (rate, "a finite number > 0", 0 < rate < float("inf")),
        "tol": (tol, "a number > 0", tol > 0),
        "level": (level, "a probability between 0 and 1", 0 < level < 1),
        "max_draws": (max_draws, f"an integer ≥ {_LEAST}", isinstance(max_draws, int) and max_draws >= _LEAST),
    }
    for name, (number, expected, legal) in rules.items():
        if not legal:
            raise ArgumentError(name, expected, repr(number), f"Leave {name} out for its default.")


def _labelled(private: nn.Module, given: Any) -> tuple[tuple[int, ...], int]:
    """The shape of the labels and the number of classes, from one pass that is checked to be pure."""
    n = count(given, None, "inputs")
    fixed = dict[str, Tensor](private.named_parameters())
    device = next(iter(fixed.values())).device
    with torch.no_grad():
        watch = Watch("model", dict(private.named_buffers()), fixed, device)
        output = call(private, given)
        watch.check(lambda: call(private, given))
    remedy = "Wrap the model in a module that returns its logits, one row for each input."
    if not isinstance(output, Tensor) or not output.is_floating_point():
        given_ = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
        raise DataError("the model's output", "a tensor of real numbers", given_, remedy)
    if not output.ndim or output.shape[0] != n:
        raise DataError("the model's output", f"{n} rows, one for each input", f"shape {tuple(output.shape)}", remedy)
    if not bool(output.isfinite().all()):
        remedy = "Clean the inputs, or look for the layer with la.gradient_health."
        raise NumericsError("the model's output", "finite numbers", "nan or infinity", remedy)
    if output.ndim == 1:
        return tuple(output.shape), 2
    return tuple(output.shape[:-1]), max(2, output.shape[-1])


def _share(private: nn.Module, names: list[str], given: Any, labels: Tensor, steps: int, rate: float) -> float:
    """The share of the labels that a copy fits after training."""
    pupil = copy.deepcopy(private)
    for name, parameter in pupil.named_parameters():
        parameter.requires_grad_(name in names)
    own = [parameter for parameter in pupil.parameters() if parameter.requires_grad]
    rule = torch.optim.Adam(own, lr=rate, fused=True)
    falls = torch.optim.lr_scheduler.LambdaLR(rule, lambda step: 1 - step / steps)
    for step in range(steps):
        value = _loss(call(pupil, given), labels)
        if step % 50 == 0 and not isfinite(float(value.detach())):
            raise _diverged(rate)
        rule.zero_grad()
        value.backward()
        rule.step()
        falls.step()
    with torch.no_grad():
        output = call(pupil, given)
    if not bool(output.isfinite().all()):
        raise _diverged(rate)
    said = output.argmax(-1) if _many(output, labels) else (output.reshape(labels.shape) > 0).long()
    return float((said == labels).double().mean())


def _diverged(rate: float) -> NumericsError:
    return NumericsError("the copy in training", "a finite loss", "nan or infinity", f"Lower rate={rate:g}.")


def _many(output: Tensor, labels: Tensor) -> bool:
    return output.ndim > labels.ndim and output.shape[-1] > 1


def _loss(output: Tensor, labels: Tensor) -> Tensor:
    if _many(output, labels):
        return F.cross_entropy(output.flatten(0, -2), labels.flatten())
    return F.binary_cross_entropy_with_logits(output.reshape(labels.shape), labels.to(output.dtype))


def _alike(given: Any, shape: tuple[int, ...]) -> Tensor | None:
    """For each input the number of the group of inputs that equal it; None where an input has many labels."""
    if len(shape) > 1:
        return None
    parts = [part for part in tree_leaves(given) if isinstance(part, Tensor) and part.ndim and len(part) == shape[0]]
    table = torch.cat([part.reshape(shape[0], -1).double().cpu() for part in parts], 1)
    return torch.unique(table, dim=0, return_inverse=True)[1]


def _most(labels: Tensor, same: Tensor | None) -> float:
    """The share of the labels that a function of the inputs can get right."""
    if same is None:
        return 1.0
    counts = torch.zeros(int(same.max()) + 1, int(labels.max()) + 1, dtype=torch.float64, device="cpu")
    counts.index_put_((same, labels), torch.ones(len(labels), dtype=torch.float64, device="cpu"), accumulate=True)
    return float(counts.amax(1).sum()) / len(labels)


def _estimate(shares: list[float], labels: int, tol: float, level: float, seed: int) -> Estimate:
    own = torch.tensor(shares, dtype=torch.float64, device="cpu")
    n, value = len(own), float(own.mean())
    error = float(own.std()) / sqrt(n) if n > 1 else float("inf")
    bias = 0.0 if error else 3 / (labels * n)
    met = _quantile(level, n - 1) * error + bias <= tol * value if n > 1 else False
    return Estimate(value, error, n - 1, None, 0, seed, "mean over draws of the labels", met, bias)
