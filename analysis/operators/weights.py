"""What a batch weighs, so that means over ragged batches add up to the mean over all data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, LossError
from .data import count

_PER_CLASS = {F.cross_entropy: nn.CrossEntropyLoss, F.nll_loss: nn.NLLLoss}
_ELEMENTWISE_FUNCTIONS = {
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
}
_ELEMENTWISE = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.SoftMarginLoss,
    nn.PoissonNLLLoss,
    nn.GaussianNLLLoss,
    nn.KLDivLoss,
)
_REDUCTIONS = ("mean", "sum")


class Weighting:
    """Reads from a loss what its mean divides by; :meth:`weigh` states that number for each batch.

    A ``sum`` divides by nothing, and is told what its mean would. A mean of ``nn.CrossEntropyLoss`` or ``nn.NLLLoss`` divides by the
    sum of the target classes' weights, ignored ones left out; an elementwise loss by its number of elements; any other
    callable is taken at its word as a mean over the first axis of the target.
    """

    def __init__(self, loss: Callable, reduction: str | None) -> None:
        options = _options(loss)
        read = options.get("reduction")
        if reduction is not None and reduction not in _REDUCTIONS:
            raise ArgumentError("reduction", "'mean', 'sum' or None", repr(reduction), "Leave it out for a mean.")
        if read not in (None, *_REDUCTIONS, "batchmean") or (read and reduction not in (None, read)):
            given = f"{read!r} on the loss and reduction={reduction!r}"
            raise LossError(_name(loss), "reduction 'mean' or 'sum'", given, "Build it with reduction='mean'.")
        self.loss, self.name = loss, _name(loss)
        self.total = (reduction or read) == "sum"
        function = loss.func if isinstance(loss, partial) else loss
        self.per_class = isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or function in _PER_CLASS
        self.elementwise = isinstance(loss, _ELEMENTWISE) or function in _ELEMENTWISE_FUNCTIONS
        self.elementwise = self.elementwise and read != "batchmean"
        self.class_weight: Tensor | None = options.get("weight") if self.per_class else None
        self.ignored: int = options.get("ignore_index", -100)

    def weigh(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[float, Any, Any]]:
        """(divisor of the mean, inputs, target) for each batch; where it is zero, all targets are ignored."""
        shapes: set[tuple[int, ...]] = set()
        doubt = None
        for index, (inputs, target) in enumerate(batches):
            examples = count(inputs, target, f"batch {index}")
            divisor = self._divisor(target, examples)
            if isinstance(target, Tensor) and not (self.total or self.per_class or self.elementwise):
                shapes.add(tuple(target.shape[1:]))
                doubt = doubt or _doubt(target, shapes)
            if doubt and index > 0:
                raise LossError(self.name, "a mean whose divisor is known in every batch", doubt, _REMEDY)
            yield divisor, inputs, target

    def _divisor(self, target: Any, examples: int) -> float:
        if isinstance(target, Tensor) and self.per_class:
            return self._class_weight(target)
        return float(target.numel() if isinstance(target, Tensor) and self.elementwise else examples)

    def _class_weight(self, target: Tensor) -> float:
        if target.is_floating_point():  # class probabilities: the mean divides by the number of positions
            return float(target.numel() // target.shape[1] if target.ndim > 1 else 1)
        kept = target[target != self.ignored]
        if self.class_weight is None:
            return float(kept.numel())
        return float(self.class_weight.to(kept.device)[kept].sum(dtype=torch.float64))


def _doubt(target: Tensor, shapes: set[tuple[int, ...]]) -> str | None:
    if len(shapes) > 1:
        return "targets of shapes " + " and ".join(f"(n, {', '.join(map(str, s))})" for s in sorted(shapes))
    if not target.is_floating_point() and target.dtype != torch.bool and bool((target < 0).any()):
        return "negative class indices, which look like ignored targets"
    return None


_REMEDY = (
    "Pass the loss as a module, e.g. nn.CrossEntropyLoss(ignore_index=…), return sums and say reduction='sum', "
    "or write the whole objective and use la.Hessian.of(objective, parameters)."
)


def _options(loss: Callable) -> Mapping[str, Any]:
    if isinstance(loss, nn.Module):
        names = ("reduction", "weight", "ignore_index")
        return {name: getattr(loss, name) for name in names if hasattr(loss, name)}
    return loss.keywords if isinstance(loss, partial) else {}


def _name(loss: Callable) -> str:
    if isinstance(loss, partial):
        loss = loss.func
    return f"loss {type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, '__name__', repr(loss))}"
