"""Making a model symmetric by averaging over a group, and data by adding what the group makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..errors import ArgumentError, CapacityError, OperandError
from ..operators.data import call
from ..operators.snapshot import _refuse_randomness
from ..spectra.results import _check_level, _quantile
from .action import Action, distance, invariant
from .nestings import coarsest, noise_like, over_floats

_BLOCK = 16  # elements between two looks at the interval


@dataclass(frozen=True)
class Averaged:
    """An average over a group, at given inputs.

    Attributes:
        value: Qf(x), a tensor as the model's output.
        stderr: of each of its entries over the draws; 0 where all elements were walked through.
        elements: how many were; exact: whether that is all.
        converged: whether the interval met the tolerance.

    """

    value: Tensor
    stderr: Tensor
    elements: int
    exact: bool
    converged: bool

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Of each entry, covering its average over the whole group with probability ``level``; a point where it is exact."""
        _check_level(level)
        half = 0.0 if self.exact else _quantile(level, self.elements - 1)
        return self.value - half * self.stderr, self.value + half * self.stderr


class Symmetrised(nn.Module):
    r"""A model averaged over elements of a group; made by :func:`symmetrise`. It shares the model's parameters."""

    def __init__(self, model: nn.Module | Callable[..., Any], action: Action, draws: int | None, seed: int) -> None:
        super().__init__()
        self.model, self.action, self.draws, self.seed = model, action, draws, seed
        self.elements = action.elements if draws is None else action.sample(draws, seed)

    def forward(self, *inputs: Any) -> Any:
        """Qf(x), the mean over the elements chosen at the start."""
        parts = list(self._turned(self.elements, _whole(inputs)))
        return tree_map(_mean, *parts)

    @torch.no_grad()
    def average(self, *inputs: Any, tol: float = 0.01, most: int = 1024) -> Averaged:
        r"""Qf(x) with an interval: all elements where the model has them all, else draws until the interval is short.

        Draws end when the norm of the half-widths of the 95 % intervals is at most ``tol`` times that of the value, after at
        least 16 and at most ``most`` elements. The model must put out one tensor. What 16 draws do not show, an interval from
        their scatter cannot know: an output that differs for one element in a hundred needs draws by the hundred.

        Errors: ``ArgumentError`` for tol or most outside their domain, ``OperandError`` for outputs that have no average.
        """
        if not tol > 0 or most < _BLOCK:
            remedy = "Pass tol=0.01, most=1024."
            raise ArgumentError("tol, most", f"tol > 0 and most ≥ {_BLOCK}", f"{tol}, {most}", remedy)
        x = _whole(inputs)
        if self.draws is None:
            value = self.forward(*inputs)
            return Averaged(value, torch.zeros_like(value), len(self.elements), True, True)
        mean: Any = 0.0
        scatter: Any = 0.0
        done, enough, generator = 0, False, torch.Generator().manual_seed(self.seed)
        while not enough and done + _BLOCK <= most:
            for y in self._turned([self.action.draw(generator) for _ in range(_BLOCK)], x):
                one_tensor(y)
                if y.is_complex():
                    remedy = "Return torch.view_as_real(y)."
                    raise OperandError("model", "real numbers, each with an interval", str(y.dtype), remedy)
                done += 1  # Welford
                step = y - mean
                mean = mean + step / done
                scatter = scatter + step * (y - mean)
            stderr = (scatter / (done * (done - 1))).sqrt()
            enough = _quantile(0.95, done - 1) * float(stderr.norm()) <= tol * float(mean.norm())
        return Averaged(mean, stderr, done, False, enough)

    def _turned(self, elements: Sequence[Any], x: Any) -> Iterator[Any]:
        self.action.check(x)
        for g in elements:
            y = call(self.model, self.action.on_inputs(g, x))
            yield y if self.action.on_outputs is invariant else self.action.on_outputs(inverse(self.action, g, x), y)

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.action.name}, {len(self.elements)} elements" + ("" if self.draws is None else " drawn")


def symmetrise(
    model: nn.Module | Callable[..., Any], action: Action, draws: int | None = None, seed: int = 0
) -> Symmetrised:
    r"""The Reynolds operator: a model averaged over a group.

    .. math:: Qf(x) = \frac1{|G|} \sum_{g \in G} \rho_\text{out}(g)^{-1} f(\rho_\text{in}(g)\, x)

    Qf is the equivariant function nearest to f in the mean square, if the group keeps the law of the inputs and the norm of
    outputs. Exact where the group has at most 4096 elements and acts without interpolation: Qf commutes with it to rounding,
    and Qf = f where f does. ``draws`` takes that many random elements instead; the result is then equivariant on average
    only, and :meth:`Symmetrised.average` gives its interval.

    Args:
        model: a module or a function of a batch; not copied, so that training the result trains it.
        action: with the action on outputs that is wanted: invariance by default.
        draws: None for all elements.
        seed: of the draws.

    Cost: one pass of the model for each element, whose outputs are held until the last. Batch normalisation in train mode
    sees the batch of one element at a time.

    Errors: ``CapacityError`` for a group too large to walk through, ``ModelStateError`` with the module's name for dropout
    that is on, ``ArgumentError`` for draws below 2; when called, those of the action for inputs that it cannot move, and
    ``OperandError`` for outputs that have no average, such as classes.

    Source: elesedy2021provably.

    Example:
        >>> from lemmata.analysis.invariance import actions
        >>> first = symmetrise(lambda x: x[:, 0], actions.permutations(4))   # the average over orders is the mean
        >>> first(torch.tensor([[1.0, 2.0, 3.0, 6.0]])).tolist()
        [3.0]

    """
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            _refuse_randomness(name, module)
    if draws is not None and draws < 2:
        raise ArgumentError("draws", "at least 2, or None for all elements", str(draws), "Pass draws=64.")
    if draws is None and not action.enumerable:
        remedy = "Pass draws=64 to average over random elements, or canonicalise the inputs with a frame."
        raise CapacityError(action.name, "a group that can be walked through", repr(action), remedy)
    return Symmetrised(model, action, draws, seed)


def orbit(inputs: Any, action: Action, target: Any = None, draws: int | None = None, seed: int = 0) -> tuple[Any, Any]:
    r"""Full-orbit augmentation: the batch (g·x_i, ρ(g) y_i) of all examples under all elements, element by element.

    A mean loss over it is the loss averaged over the group, so that its gradient is the averaged gradient.

    Args:
        inputs: a batch, examples along the first axis, in any nesting.
        action: how inputs, and targets by the action on outputs, move.
        target: None if there is none.
        draws: that many random elements instead of all.
        seed: of the draws.

    Shapes: (b, …) → (b · elements, …), the first b of them those of the first element.

    Errors: ``CapacityError`` without ``draws`` for a group too large to walk through, ``ArgumentError`` for draws below 1;
    those of the action.

    Source: chen2020group.

    Example:
        >>> from lemmata.analysis.invariance import actions
        >>> orbit(torch.tensor([[1, 2, 3]]), actions.cyclic_shifts(3), torch.tensor([7]))
        (tensor([[1, 2, 3],
                [3, 1, 2],
                [2, 3, 1]]), tensor([7, 7, 7]))

    """
    if draws is not None and draws < 1:
        raise ArgumentError("draws", "at least 1, or None for all elements", str(draws), "Pass draws=64.")
    action.check(inputs)
    elements = action.elements if draws is None else action.sample(draws, seed)
    moved = [action.on_inputs(g, inputs) for g in elements]
    targets = [None if target is None else action.on_outputs(g, target) for g in elements]
    return _joined(moved), None if target is None else _joined(targets)


def inverse(action: Action, g: Any, inputs: Any) -> Any:
    """g⁻¹; where no inverse is known, the element that undoes g on random numbers in the place of the inputs' floats.

    The inputs themselves would not do: on a blank image every rotation undoes every other.

    Errors: ``OperandError`` if no element undoes g, or several do and no inverse can be told from inputs of this kind.

    Example:
        >>> from lemmata.analysis.invariance import actions
        >>> turns = actions.finite("turns", (0, 1, 2, 3), lambda g, x: x.rot90(g, (-2, -1)))
        >>> inverse(turns, 1, torch.zeros(1, 2, 2))
        3

    """
    if action.inverse is not None:
        return action.inverse(g)
    draws = torch.Generator().manual_seed(0)
    probe = over_floats(lambda x: noise_like(x, draws), inputs)
    moved = action.on_inputs(g, probe)
    gaps = [(distance(action.on_inputs(k, moved), probe), k) for k in action.elements]
    found = [k for gap, k in gaps if gap <= sqrt(coarsest(probe))]
    if not found:
        remedy = "Complete the group: with an element it must have the inverse."
        raise OperandError(action.name, "an inverse of every element", f"none of {action.show(g)}", remedy)
    if len(found) > 1:
        given = f"{action.show(g)}, undone by {action.show(found[0])} and {action.show(found[1])}"
        remedy = "Say the inverses: dataclasses.replace(action, inverse=lambda g: ...)."
        raise OperandError(action.name, "elements that inputs of this kind tell apart", given, remedy)
    return found[0]


def one_tensor(y: Any) -> None:
    """Refuse an output that has no average: more than one tensor, or whole numbers."""
    if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()):
        given = f"a tensor of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        remedy = "Return one tensor of scores or probabilities, no classes: lambda x: model(x)[0]."
        raise OperandError("model", "one output tensor of real or complex numbers", given, remedy)


def _mean(*items: Any) -> Any:
    one_tensor(items[0])
    return torch.stack(items).mean(0)


def _whole(inputs: tuple[Any, ...]) -> Any:
    return inputs[0] if len(inputs) == 1 else inputs


def _joined(batches: Sequence[Any]) -> Any:
    return tree_map(lambda *items: torch.cat(items) if isinstance(items[0], Tensor) else items[0], *batches)
