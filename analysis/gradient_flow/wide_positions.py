"""Layers of infinite width that know positions: convolutions, and the two ways to read out from them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal, final

import torch
from torch import Tensor

from ..errors import ArgumentError
from .wide_kernel import Kernel, Layer, check_variances


@final
@dataclass(frozen=True)
class Conv(Layer):
    r"""A convolution over all positions, ``size`` along each axis, of normal weights of variance σ_w² / (n size^d).

    .. math:: K'(p, p') = \frac{\sigma_w^2}{|\Delta|} \sum_{\delta \in \Delta} K(p + \delta, p' + \delta) + \sigma_b^2

    and for Θ as in :class:`Dense`. ``padding`` is ``"circular"``, or ``"zeros"``; the number of positions stays, but for
    ``stride``, which keeps every so-many-th.

    Errors: ``ArgumentError`` for an even or too large size, another padding, or a signal without positions.

    Source: Novak et al. 2019, Bayesian deep convolutional networks with many channels are Gaussian processes; Arora et
    al. 2019, On exact computation with an infinitely wide neural net.

    Example:
        A third of the variance falls off the end of a line of zeros:

        >>> x = torch.ones(1, 1, 4)
        >>> Conv(3, 3.0, padding="zeros")(x).nngp
        tensor([[[2., 3., 3., 2.]]], dtype=torch.float64)

    """

    size: int
    weight_variance: float
    bias_variance: float = 0.0
    padding: Literal["circular", "zeros"] = "circular"
    stride: int = 1

    def __post_init__(self) -> None:
        check_variances(self.weight_variance, self.bias_variance)
        if not isinstance(self.size, int) or self.size < 1 or self.size % 2 == 0:
            raise ArgumentError("size", "an odd number ≥ 1", repr(self.size), "Pass a size such as 3.")
        if self.padding not in ("circular", "zeros"):
            raise ArgumentError("padding", "'circular' or 'zeros'", repr(self.padding), "Choose one of them.")
        if not isinstance(self.stride, int) or self.stride < 1:
            raise ArgumentError(
                "stride", "a whole number ≥ 1", repr(self.stride), "Pass stride=1 to keep all positions."
            )

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        if not kernel.positions:
            raise self.misplaced(
                "inputs (N, channels, *positions)", kernel, "Take Dense for signals without positions."
            )
        if self.size // 2 > min(kernel.positions):
            given = f"{self.size} on positions {kernel.positions}"
            raise ArgumentError("size", "a kernel that wraps around at most once", given, "Take a smaller one.")

        def averaged(t: Tensor, lead: int) -> Tensor:
            return self._over_patches(t, lead, kernel.positions, kernel.pairs)

        positions = tuple(-(-n // self.stride) for n in kernel.positions)
        return kernel.linear(averaged, positions=positions).weighted(self.weight_variance, self.bias_variance)

    def _over_patches(self, t: Tensor, lead: int, positions: tuple[int, ...], pairs: bool) -> Tensor:
        """The mean over a patch, around the one position or around both at once."""
        axes = [(lead + d, lead + len(positions) + d)[: 1 + pairs] for d in range(len(positions))]
        for both in axes:
            for axis in both:
                t = self._padded(t, axis)
        total = torch.zeros((), dtype=t.dtype, device=t.device)
        for place in product(range(self.size), repeat=len(positions)):
            cut = [slice(None)] * t.ndim
            for start, length, both in zip(place, positions, axes, strict=True):
                for axis in both:
                    cut[axis] = slice(start, start + length, self.stride)
            total = total + t[tuple(cut)]
        return total / self.size ** len(positions)

    def _padded(self, t: Tensor, axis: int) -> Tensor:
        reach = self.size // 2
        before, after = t.narrow(axis, t.shape[axis] - reach, reach), t.narrow(axis, 0, reach)
        if self.padding == "zeros":
            before = after = torch.zeros_like(after)
        return torch.cat([before, t, after], axis)

    def signed(self, before: bool) -> bool:  # noqa: D102
        return True


@final
@dataclass(frozen=True)
class Flatten(Layer):
    r"""All positions as features of one signal: K and Θ become their means over positions, each with itself.

    Source: Novak et al. 2019, Bayesian deep convolutional networks with many channels are Gaussian processes.

    Example:
        >>> from lemmata.analysis.gradient_flow.infinite_width import Serial
        >>> x = torch.tensor([[[1.0, 3.0]], [[3.0, 1.0]]])  # two inputs, one the other's shift
        >>> Serial(Conv(1, 1.0), Flatten())(x).nngp
        tensor([[5., 3.],
                [3., 5.]], dtype=torch.float64)

    """

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        if not kernel.positions:
            raise self.misplaced("a signal with positions", kernel, "Leave Flatten() out.")
        places = prod(kernel.positions)

        def mean(t: Tensor, lead: int) -> Tensor:
            if kernel.pairs:
                t = t.reshape(*t.shape[:lead], places, places).diagonal(dim1=-2, dim2=-1)
            return t.reshape(*t.shape[:lead], places).mean(-1)

        law = kernel.law if kernel.law == "input" else "other"  # positions differ in variance, and are not independent
        return kernel.linear(mean, positions=(), pairs=False, law=law)


@final
@dataclass(frozen=True)
class GlobalAveragePool(Layer):
    r"""The mean over all positions: K and Θ become their means over every two positions.

    Source: Novak et al. 2019, Bayesian deep convolutional networks with many channels are Gaussian processes.

    Example:
        >>> from lemmata.analysis.gradient_flow.infinite_width import Serial
        >>> x = torch.tensor([[[1.0, 3.0]], [[3.0, 1.0]]])  # two inputs, one the other's shift
        >>> Serial(Conv(1, 1.0), GlobalAveragePool())(x).nngp
        tensor([[4., 4.],
                [4., 4.]], dtype=torch.float64)

    """

    @property
    def pools(self) -> bool:  # noqa: D102
        return True

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        if not kernel.positions:
            raise self.misplaced("a signal with positions", kernel, "Leave GlobalAveragePool() out.")
        return kernel.linear(lambda t, lead: t.flatten(lead).mean(-1), positions=(), pairs=False)
