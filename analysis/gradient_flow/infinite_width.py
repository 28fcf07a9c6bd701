"""Layers of infinitely wide networks: ``Serial(Dense(2.0), Activation(torch.relu), Dense(1.0))(x).ntk``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import final

import torch

from ..errors import ArgumentError
from .duals import Dual, Elementwise, dual
from .wide_kernel import Kernel, Layer, check_variances
from .wide_positions import Conv, Flatten, GlobalAveragePool

__all__ = [
    "Activation",
    "Conv",
    "Dense",
    "Flatten",
    "GlobalAveragePool",
    "Kernel",
    "Layer",
    "LayerNorm",
    "Residual",
    "Serial",
]

_FIRST_WEIGHTS = "Put a layer of weights, Dense or Conv, before it."


@final
@dataclass(frozen=True)
class Dense(Layer):
    r"""A fully connected layer in the tangent kernel's parametrisation, with ω and β standard normal.

    .. math:: z = \frac{\sigma_w}{\sqrt n} \omega x + \sigma_b \beta, \qquad
        K' = \sigma_w^2 K + \sigma_b^2, \qquad \Theta' = K' + \sigma_w^2 \Theta

    Args: ``weight_variance`` σ_w², ``bias_variance`` σ_b².

    Errors: ``ArgumentError`` for a variance that is negative or not finite, or a signal with positions.

    Source: Jacot, Gabriel & Hongler 2018, Neural tangent kernel; Lee et al. 2018, Deep neural networks as Gaussian
    processes.

    Example:
        The tangent kernel of a linear model is the inner product of its inputs:

        >>> x = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
        >>> Dense(2.0)(x).ntk
        tensor([[1., 1.],
                [1., 5.]], dtype=torch.float64)

    """

    weight_variance: float
    bias_variance: float = 0.0

    def __post_init__(self) -> None:
        check_variances(self.weight_variance, self.bias_variance)

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        if kernel.positions:
            raise self.misplaced(
                "a signal without positions", kernel, "Put Flatten() or GlobalAveragePool() before it."
            )
        return kernel.weighted(self.weight_variance, self.bias_variance)

    def signed(self, before: bool) -> bool:  # noqa: D102
        return True


@final
@dataclass(frozen=True)
class Activation(Layer):
    r"""An elementwise φ, through its dual: :math:`K' = E\,\phi(u)\phi(v)`, :math:`\Theta' = \Theta\, E\,\phi'(u)\phi'(v)`.

    Args:
        activation, kinks: as for :func:`~lemmata.analysis.gradient_flow.duals.dual`, which states the accuracy.

    Errors: those of ``dual``; ``ArgumentError`` where the channels before it are not normal.

    Example:
        Of the variance He's weights give, a rectifier leaves half:

        >>> Serial(Dense(2.0), Activation(torch.relu))(torch.ones(1, 3)).nngp
        tensor([[1.]], dtype=torch.float64)

    """

    activation: Elementwise
    kinks: Sequence[float] = (0.0,)
    dual: Dual = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dual", dual(self.activation, self.kinks))

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        if kernel.law != "normal":
            raise self.misplaced("independent normal channels", kernel, _FIRST_WEIGHTS)
        (cross, left, right), *own = kernel.variances()
        nngp = self.dual.value(left, right, cross)
        first, second = (self.dual.value(u, v, c) for c, u, v in own)
        ntk = kernel.ntk * self.dual.slope(left, right, cross)
        return replace(kernel, nngp=nngp, ntk=ntk, first=first, second=second, law="other")

    def signed(self, before: bool) -> bool:  # noqa: D102
        return False


@final
@dataclass(frozen=True)
class LayerNorm(Layer):
    r"""Layer normalisation over the features, at each position, without an affine map.

    .. math:: K' = K / \sqrt{(q + \varepsilon)(q' + \varepsilon)}, \qquad \Theta' = \Theta / \sqrt{(q + \varepsilon)(q' + \varepsilon)}

    with q, q' the variances of the two signals: the mean over infinitely many features is 0, and what the gradient loses
    along two directions is nothing in the limit.

    Errors: ``ArgumentError`` where the features before it are not normal, and their mean not 0.

    Source: Ba, Kiros & Hinton 2016, Layer normalization; Yang 2019, Wide feedforward or recurrent neural networks of any
    architecture are Gaussian processes.

    Example:
        >>> Serial(Dense(7.0), LayerNorm(0.0))(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).nngp
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)

    """

    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not isinstance(self.eps, int | float) or not 0 <= self.eps < inf:
            raise ArgumentError("eps", "a finite number ≥ 0", repr(self.eps), "Pass that of nn.LayerNorm, 1e-5.")

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        if kernel.law != "normal":
            raise self.misplaced("normal features, of mean 0", kernel, _FIRST_WEIGHTS)
        scales = []
        for _, left, right in kernel.variances():
            squared = (left + self.eps) * (right + self.eps)
            scales.append(torch.where(squared > 0, squared.rsqrt(), 0))
        cross, first, second = scales
        nngp, ntk = kernel.nngp * cross, kernel.ntk * cross
        return replace(kernel, nngp=nngp, ntk=ntk, first=kernel.first * first, second=kernel.second * second)


@final
@dataclass(frozen=True, init=False)
class Serial(Layer):
    """Layers one after the other; none is the identity.

    Example:
        The kernel of a deep ReLU network, of equal inputs, is its depth:

        >>> layers = [Dense(2.0), Activation(torch.relu)] * 3
        >>> Serial(*layers, Dense(1.0))(torch.ones(1, 1)).ntk
        tensor([[4.]], dtype=torch.float64)

    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                remedy = "Pass layers of this module, such as Dense(2.0)."
                raise ArgumentError("layers", "layers of infinite width", repr(layer), remedy)
        object.__setattr__(self, "layers", layers)

    @property
    def pools(self) -> bool:  # noqa: D102
        return any(layer.pools for layer in self.layers)

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        for layer in self.layers:
            kernel = layer.propagate(kernel)
        return kernel

    def signed(self, before: bool) -> bool:  # noqa: D102
        for layer in self.layers:
            before = layer.signed(before)
        return before


@final
@dataclass(frozen=True)
class Residual(Layer):
    r"""A block :math:`x \mapsto s(x) + f(x)` with branch f and shortcut s, the identity if left out: K and Θ add up.

    The branch changes its sign with weights of its own, so that it is uncorrelated with the shortcut.

    Errors: ``ArgumentError`` for a branch whose end is an activation, or a block whose shortcut is one; for an identity
    around the inputs themselves; and for branch and shortcut that end in different shapes.

    Source: Garriga-Alonso, Rasmussen & Aitchison 2019, Deep convolutional networks as shallow Gaussian processes.

    Example:
        A plain block doubles the variance:

        >>> Serial(Dense(1.0), Residual(Dense(1.0)))(torch.ones(1, 1)).nngp
        tensor([[2.]], dtype=torch.float64)

    """

    branch: Layer
    shortcut: Layer = field(default_factory=Serial)

    def __post_init__(self) -> None:
        for name, one in (("branch", self.branch), ("shortcut", self.shortcut)):
            if not isinstance(one, Layer):
                remedy = "Pass a layer of this module, such as Dense(2.0)."
                raise ArgumentError(name, "a layer of infinite width", repr(one), remedy)
        if not self.branch.signed(False):
            given, remedy = repr(self.branch), "End it with a layer of weights, Dense or Conv."
            raise ArgumentError("branch", "an end that changes sign with weights of its own", given, remedy)

    @property
    def pools(self) -> bool:  # noqa: D102
        return self.branch.pools or self.shortcut.pools

    def propagate(self, kernel: Kernel) -> Kernel:  # noqa: D102
        around, through = self.shortcut.propagate(kernel), self.branch.propagate(kernel)
        if around.law == "input":
            raise self.misplaced("a signal of infinite width", kernel, _FIRST_WEIGHTS)
        if around.positions != through.positions:
            given = f"positions {around.positions} around it and {through.positions} through it"
            raise ArgumentError("shortcut", "the positions of the branch", given, "Give both the same strides.")
        law = around.law if around.law == through.law else "other"
        nngp, ntk = around.nngp + through.nngp, around.ntk + through.ntk
        first, second = around.first + through.first, around.second + through.second
        return replace(around, nngp=nngp, ntk=ntk, first=first, second=second, law=law)

    def signed(self, before: bool) -> bool:  # noqa: D102
        return self.shortcut.signed(before)  # the branch always changes its sign
