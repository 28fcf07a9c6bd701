"""The state of an infinitely wide network: covariances and tangent kernel of a signal, and what every layer shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, prod, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ArgumentError, CapacityError, DataError

_MOST = 2**27  # numbers held for a block of pairs of inputs
_HELD = 10  # tensors of a block's size that live at once


@dataclass(frozen=True)
class Kernel:
    r"""Covariance and tangent kernel of one channel of an infinitely wide network's signal, for pairs of inputs.

    Attributes:
        nngp: K, (N, M); for a signal with positions S (N, M, \*S), of one and the same position; in a network that pools
            (N, M, \*S, \*S), of every two positions.
        ntk: Θ, the tangent kernel of all weights and biases before, shaped like K.
        first, second: K of each of the N inputs, and of each of the M, with itself.
        positions: S.
        pairs: whether every two positions are kept.
        law: ``"input"`` before the first weights, ``"normal"`` where channels are independent and normal, else ``"other"``.

    All are float64 and exact to rounding, where activations do not say otherwise.
    """

    nngp: Tensor
    ntk: Tensor
    first: Tensor
    second: Tensor
    positions: tuple[int, ...] = ()
    pairs: bool = False
    law: Literal["input", "normal", "other"] = "input"

    def variances(self) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """Nngp, first and second, each beside the variances of its two signals, in shapes that broadcast."""
        fill = (1,) * len(self.positions) if self.pairs else ()
        one, two = self._variance(self.first), self._variance(self.second)

        def left(v: Tensor) -> Tensor:
            return v.reshape(*v.shape, *fill)

        def right(v: Tensor) -> Tensor:
            return v.reshape(v.shape[0], *fill, *v.shape[1:])

        cross = (self.nngp, left(one)[:, None], right(two)[None])
        return cross, (self.first, left(one), right(one)), (self.second, left(two), right(two))

    def _variance(self, own: Tensor) -> Tensor:
        if not self.pairs:
            return own
        places = prod(self.positions)
        return own.reshape(-1, places, places).diagonal(dim1=1, dim2=2).reshape(-1, *self.positions)

    def linear(self, f: Callable[[Tensor, int], Tensor], **changes: Any) -> Kernel:
        """The four tensors through a linear map, which is told how many axes lie before the positions."""
        ends = dict(nngp=f(self.nngp, 2), ntk=f(self.ntk, 2), first=f(self.first, 1), second=f(self.second, 1))
        return replace(self, **{**ends, **changes})

    def weighted(self, weight_variance: float, bias_variance: float) -> Kernel:
        """After independent weights and biases, whose own gradients are what K becomes."""
        w, b = weight_variance, bias_variance
        nngp, first, second = (w * one + b for one in (self.nngp, self.first, self.second))
        return replace(self, nngp=nngp, ntk=nngp + w * self.ntk, first=first, second=second, law="normal")


class Layer(ABC):
    r"""A layer of infinite width; called on inputs it is a network, and gives their :class:`Kernel`.

    ``layer(x, x2)`` takes x (N, d), (N, C, L) or (N, C, H, W) and x2 (M, …), x itself if left out. Inputs have as kernel
    their inner product over the d or C features, divided by the number of these. The result is on their device.

    Cost: N M numbers; times the number P of positions where there are some; times :math:`P^2` in a network that pools:
    8 MiB for a pair of images of 32 × 32, and ten times that at work. Pairs of inputs are taken in blocks of 1 GiB.

    Errors: ``ArgumentError`` for a layer that cannot follow the one before; ``DataError`` for inputs that do not fit;
    ``CapacityError`` where a single pair of inputs does not fit in a block.
    """

    @property
    def pools(self) -> bool:
        """Whether covariances of every two positions are needed."""
        return False

    @abstractmethod
    def propagate(self, kernel: Kernel) -> Kernel:
        """The kernel after the layer."""

    def signed(self, before: bool) -> bool:
        """Whether the output changes its sign with weights that nothing else shares; ``before``, whether the input does."""
        return before

    def __call__(self, x: Tensor, x2: Tensor | None = None) -> Kernel:
        """The kernel of the inputs x against x2."""
        x2 = x if x2 is None else x2
        _check_inputs(x, x2)
        side = self._side(prod(x.shape[2:]))
        with torch.no_grad():
            rows = [[self.propagate(inputs(a, b, self.pools)) for b in x2.split(side)] for a in x.split(side)]
        nngp, ntk = (
            torch.cat([torch.cat([getattr(one, name) for one in row], 1) for row in rows]) for name in ("nngp", "ntk")
        )
        first, second = torch.cat([row[0].first for row in rows]), torch.cat([one.second for one in rows[0]])
        return replace(rows[0][0], nngp=nngp, ntk=ntk, first=first, second=second)

    def _side(self, places: int) -> int:
        """How many inputs a block has on each side."""
        power = 2 if self.pools else 1
        pair = _HELD * places**power
        if pair > _MOST:
            expected = (
                f"at most {int((_MOST / _HELD) ** (1 / power))} positions" + " where they are pooled" * self.pools
            )
            given = f"{places}, of which one pair of inputs takes {8 * pair / 2**30:.1f} GiB"
            raise CapacityError("inputs", expected, given, "Shrink the images, or read out with Flatten().")
        return int(sqrt(_MOST / pair))

    def misplaced(self, expected: str, kernel: Kernel, remedy: str) -> ArgumentError:
        """The error of a layer that cannot follow what is before it."""
        where = f" at positions {kernel.positions}" if kernel.positions else " without positions"
        law = {"input": "the inputs", "normal": "normal channels", "other": "channels that are not normal"}[kernel.law]
        return ArgumentError(type(self).__name__, expected, law + where, remedy)


def inputs(x: Tensor, x2: Tensor, pairs: bool) -> Kernel:
    """The kernel of raw inputs: inner products over their features."""
    a, b = (one.double().reshape(*one.shape[:2], -1).mT for one in (x, x2))  # (N, positions, features)
    positions = tuple(x.shape[2:])
    pairs = pairs and bool(positions)
    cross, own = ("npc,mqc->nmpq", "npc,nqc->npq") if pairs else ("npc,mpc->nmp", "npc,npc->np")
    shape = positions * (2 if pairs else 1)
    nngp, first, second = (
        torch.einsum(letters, *two).div(x.shape[1]) for letters, two in ((cross, (a, b)), (own, (a, a)), (own, (b, b)))
    )
    nngp = nngp.reshape(len(x), len(x2), *shape)
    ends = first.reshape(len(x), *shape), second.reshape(len(x2), *shape)
    return Kernel(nngp, torch.zeros_like(nngp), *ends, positions, pairs)


def check_variances(weight_variance: float, bias_variance: float) -> None:
    """Refuse variances that are none."""
    for name, one in (("weight_variance", weight_variance), ("bias_variance", bias_variance)):
        if not isinstance(one, int | float) or not 0 <= one < inf:
            raise ArgumentError(name, "a finite number ≥ 0", repr(one), "Pass a variance, such as 2.0.")


def _check_inputs(x: Tensor, x2: Tensor) -> None:
    for name, one in (("x", x), ("x2", x2)):
        if not isinstance(one, Tensor):
            raise DataError(name, "a tensor", type(one).__name__, "Pass torch.tensor(…), (N, d).")
        if one.ndim < 2 or 0 in one.shape or not one.is_floating_point() or not one.isfinite().all():
            remedy = "Pass real floating-point inputs, (N, d) or (N, channels, *positions), without nan."
            raise DataError(name, "finite inputs with features", f"{tuple(one.shape)}, {one.dtype}", remedy)
    if x.shape[1:] != x2.shape[1:] or x.device != x2.device:
        given = f"{tuple(x2.shape)} on {x2.device} beside {tuple(x.shape)} on {x.device}"
        raise DataError("x2", "inputs of the form and on the device of x", given, "Give both the same form.")
