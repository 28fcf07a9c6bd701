"""Canonical forms: invariance to rounding from one pass, or a few, instead of an average over the whole group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, NumericsError, OperandError
from ..operators.snapshot import _refuse_randomness

_DISTINCT = 1e-4  # relative distance of two variances from which on their axes are told apart
#: One canonical form of a batch, and the map that takes an output for it back to the input's own frame.
View = tuple[Tensor, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Frame:
    r"""For every input x a set F(x) of group elements with F(g·x) = g F(x); ``views(x)`` are the g⁻¹·x, g ∈ F(x).

    Attributes:
        name: for messages. views: a batch → its canonical forms, each with the way back for an output that moves as inputs do.

    """

    name: str
    views: Callable[[Tensor], list[View]]


class Canonicalised(nn.Module):
    """A model averaged over a frame; made by :func:`canonicalise`. It shares the model's parameters."""

    def __init__(self, model: nn.Module | Callable[[Tensor], Tensor], frame: Frame, back: bool) -> None:
        super().__init__()
        self.model, self.frame, self.back = model, frame, back

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the model over the canonical forms of x."""
        seen = [(self.model(form), back) for form, back in self.frame.views(x)]
        for y, _ in seen if self.back else ():
            if not isinstance(y, Tensor) or y.dim() != 3 or y.shape[:2] != x.shape[:2]:
                expected = f"outputs ({x.shape[0]}, {x.shape[1]}, c), which move as inputs do"
                given = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
                raise OperandError("model", expected, given, "Pass outputs='invariant', or return one row an element.")
        return torch.stack([back(y) if self.back else y for y, back in seen]).mean(0)

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.frame.name}, outputs {'the same' if self.back else 'invariant'}"


def canonicalise(
    model: nn.Module | Callable[[Tensor], Tensor], frame: Frame, outputs: str = "invariant"
) -> Canonicalised:
    r"""A model made invariant, or equivariant, by canonical forms of its inputs: exactly, but for the frame's own rounding.

    .. math:: f_F(x) = \frac1{|F(x)|} \sum_{g \in F(x)} \rho_\text{out}(g)\, f(g^{-1} x)

    It equals f wherever f is symmetric already. Unlike the average over a group it jumps where the frame does: where two
    elements of a set, or two variances, change places.

    Args:
        model: a module or a function of a batch; not copied.
        frame: :func:`sorting` for sets, :func:`principal_axes` for point clouds.
        outputs: "invariant", or "same" if outputs move as inputs do.

    Cost: a pass for each element of the frame.

    Errors: ``ArgumentError`` for another ``outputs``, ``ModelStateError`` with the module's name for dropout that is on,
    ``OperandError`` for outputs that cannot move as inputs do; the frame's own.

    Source: puny2022frame.

    Example:
        >>> weigh = lambda x: (x[..., 0] * torch.tensor([1.0, 10.0])).sum(1)   # minds the order
        >>> either = canonicalise(weigh, sorting())
        >>> either(torch.tensor([[[3.0], [2.0]], [[2.0], [3.0]]])).tolist()
        [32.0, 32.0]

    """
    if outputs not in ("invariant", "same"):
        remedy = "Choose 'invariant' if outputs do not move, 'same' if they move as inputs do."
        raise ArgumentError("outputs", "'invariant' or 'same'", repr(outputs), remedy)
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            _refuse_randomness(name, module)
    return Canonicalised(model, frame, outputs == "same")


def sorting() -> Frame:
    r"""The frame of S_n on sets (b, n, c): elements in lexicographic order.

    Elements that are equal in all entries may stand in either order: all these orders are in F(x), so that on the way back
    they share the mean of their outputs.

    Errors: ``OperandError`` for another shape.

    Example:
        >>> (form, back), = sorting().views(torch.tensor([[[2, 0], [1, 5], [1, 4]]]))
        >>> form.tolist(), back(form.float()).tolist()
        ([[[1, 4], [1, 5], [2, 0]]], [[[2.0, 0.0], [1.0, 5.0], [1.0, 4.0]]])

    """

    def views(x: Tensor) -> list[View]:
        _shaped("sorting", x, "sets (b, n, c)")
        order = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        for column in reversed(range(x.shape[2])):  # stable sorts, the last key first
            key = x[..., column].gather(1, order)
            order = order.gather(1, key.argsort(dim=1, stable=True))
        places = order.argsort(dim=1)
        form = _picked(x, order)
        fresh = (form[:, 1:] != form[:, :-1]).any(2).long()
        block = torch.cat([torch.zeros_like(order[:, :1]), fresh.cumsum(1)], 1)  # the same for equal elements
        return [(form, lambda y: _picked(_shared(y, block), places))]

    return Frame("lexicographic order", views)


def principal_axes() -> Frame:
    r"""The frame of E(d) on point clouds (b, n, d): centred, turned onto the axes of their covariance, in all 2^d signs.

    The axes are known to rounding over the gap of the variances, up to 10⁴ ε: in float32 invariance may be no better than 10⁻³.

    Errors: ``OperandError`` for another shape or dtype, ``NumericsError`` for coordinates that are not finite, and where two
    variances of a cloud agree within 10⁻⁴ of the largest: its axes are then arbitrary.

    Example:
        >>> cloud = torch.tensor([[[0.0, 0.0], [0.0, 4.0], [1.0, 2.0], [-1.0, 2.0]]])
        >>> sorted(form[0, 1, 1].item() for form, _ in principal_axes().views(cloud))
        [-2.0, -2.0, 2.0, 2.0]

    """

    def views(x: Tensor) -> list[View]:
        _shaped("principal_axes", x, "point clouds (b, n, d)")
        if not x.is_floating_point():
            raise OperandError("principal_axes", "real coordinates", str(x.dtype), "Pass x.float().")
        if not bool(x.isfinite().all()):
            raise NumericsError("principal_axes", "finite coordinates", "nan or infinity", "Leave these clouds out.")
        centre = x.mean(1, keepdim=True)
        variances, axes = torch.linalg.eigh((x - centre).mT @ (x - centre) / x.shape[1])  # (b d), (b d d)
        gaps = (variances.diff(dim=1) / variances[:, -1:]).amin(1) if x.shape[2] > 1 else variances[:, 0] + 1
        if not bool((gaps > _DISTINCT).all()):
            given = f"a gap of {float(gaps.min()):.1e} of the largest in cloud {int(gaps.argmin())}"
            remedy = "Average over random motions instead: symmetrise(model, actions.motions(d), draws=64)."
            raise NumericsError("principal_axes", "variances that differ", given, remedy)
        found: list[View] = []
        for signs in product((1.0, -1.0), repeat=x.shape[2]):
            turn = axes * x.new_tensor(signs)
            found.append(((x - centre) @ turn, lambda y, turn=turn: y @ turn.mT + centre))  # type: ignore[misc]
        return found

    return Frame("principal axes", views)


def _picked(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))


def _shared(y: Tensor, block: Tensor) -> Tensor:
    """The mean of the rows of each block of equal elements, at all of them: (b, n, c), (b, n) → (b, n, c)."""
    size = torch.zeros_like(y[..., :1]).scatter_add(1, block[..., None], torch.ones_like(y[..., :1]))
    where = block[..., None].expand_as(y)
    return (torch.zeros_like(y).scatter_add(1, where, y) / size.clamp(min=1)).gather(1, where)


def _shaped(name: str, x: Any, expected: str) -> None:
    if not isinstance(x, Tensor) or x.dim() != 3:
        given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise OperandError(name, expected, given, "Give the batch its axis of elements: x[None] for a single one.")
