r"""Group convolutions: a network on the torus that commutes with rotations by 90°, reflections and shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, Symmetry, cross_entropy, images, seeded, trivially
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_size,
    checked_sizes,
    draw,
    resolve_activation,
    resolve_law,
)
from .point_groups import Element, elements, odd, transform, wrapped

#: The point group of each lattice group.
POINT_GROUPS = {"p4": elements("C4"), "p4m": elements("D4")}


def transform_map(h: Element, f: Tensor, group: str) -> Tensor:
    r"""Return $h·f$ of a map on the group, $(h·f)(p, k) = f(h^{-1} p, h^{-1} k)$: (…, |H|, H, W) → the same.

    >>> f = torch.arange(4.0).view(4, 1, 1)
    >>> transform_map((0, 1), f, "p4").flatten().tolist()
    [3.0, 0.0, 1.0, 2.0]
    """
    by_flips = f.unflatten(-3, (len(POINT_GROUPS[checked_name("group", group, POINT_GROUPS)]) // 4, 4))  # (… s m n n)
    if h[0]:  # h⁻¹k = (1, m)(s', m') = (1 − s', m − m')
        by_flips = by_flips.flip((-4, -3))
    moved = by_flips.roll(h[1] + h[0], -3)
    return transform(h, moved.flatten(-4, -3))


class LiftingConv(nn.Module):
    r"""From an image to a map on the group: one kernel, correlated in each of its |H| poses.

    $$(ψ ⋆ x)_i(p, h) = \sum_{j, q} ψ_{ij}(h^{-1} q) \, x_j(p + q) + b_i.$$

    It commutes: $ψ ⋆ (g·x) = g·(ψ ⋆ x)$ for shifts of the torus and $g ∈ H$, where $g·f$ is `transform_map`.

    Shapes: $x$: (b, c, n, n) → (b, c', |H|, n, n); ψ: (c', c, k, k), named `weight`; $b$: (c',), named `bias`.
    Initialisation: `init`, with fan_in $c k^2$ and fan_out $c' k^2$ (the table of `MLP`).

    Args:
        c_in: c.
        c_out: c'.
        kernel: $k$, odd: the centre of the kernel must be a position.
        group: `"p4"` (|H| = 4 rotations) or `"p4m"` (|H| = 8: rotations and reflections).
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"` or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of a plain convolution to |H| c' channels, $2 |H| c' c k^2 n^2$ operations an example.
    Left out: strides, zero padding, hexagonal groups.
    Source: cohen2016group.

    >>> layer = LiftingConv(2, 3, group="p4m", dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(1, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> turned = transform_map((1, 3), layer(x), "p4m")
    >>> torch.allclose(layer(transform((1, 3), x)), turned, rtol=0, atol=1e-14)
    True

    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        group: str = "p4",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        make = Maker(dtype, device, generator)
        self.group, self.kernel, self.c_in = checked_name("group", group, POINT_GROUPS), odd(kernel), c_in
        weight, bias = draw(
            resolve_law(init), (checked_size("c_out", c_out), checked_size("c_in", c_in), kernel, kernel), generator
        )
        self.weight, self.bias = make.parameter(weight), make.parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return $ψ ⋆ x$: (b, c, n, n) → (b, c', |H|, n, n)."""
        _check_square(x, (self.c_in,), "(batch, c_in, n, n)")
        poses = torch.stack([transform(h, self.weight) for h in POINT_GROUPS[self.group]], 1)  # (c' h c k k)
        return _correlate(poses.flatten(0, 1), self.bias, x)


class GroupConv(nn.Module):
    r"""From a map on the group to another.

    $$(ψ ⋆ f)_i(p, h) = \sum_{j, k, q} ψ_{ij}(h^{-1} q, h^{-1} k) \, f_j(p + q, k) + b_i, \qquad k ∈ H.$$

    It commutes: $ψ ⋆ (g·f) = g·(ψ ⋆ f)$ for shifts of the torus and $g ∈ H$, where $g·f$ is `transform_map`.

    Shapes: $f$: (b, c, |H|, n, n) → (b, c', |H|, n, n); ψ: (c', c, |H|, k, k), named `weight`; $b$: (c',), named
    `bias`. Initialisation: `init`, with fan_in $c |H| k^2$ and fan_out $c' |H| k^2$ (the table of `MLP`).

    Args:
        c_in: c.
        c_out: c'.
        kernel: $k$, odd: the centre of the kernel must be a position.
        group: `"p4"` or `"p4m"`, that of $f$.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"` or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of a plain convolution from |H| c to |H| c' channels, with |H| times fewer parameters.
    Left out: strides, pooling over a subgroup.
    Source: cohen2016group.

    >>> layer = GroupConv(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> f = torch.randn(1, 2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> turned = transform_map((0, 1), layer(f), "p4")
    >>> torch.allclose(layer(transform_map((0, 1), f, "p4")), turned, rtol=0, atol=1e-14)
    True

    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        group: str = "p4",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        make = Maker(dtype, device, generator)
        self.group, self.kernel, self.c_in = checked_name("group", group, POINT_GROUPS), odd(kernel), c_in
        self.order = len(POINT_GROUPS[group])
        shape = (checked_size("c_out", c_out), checked_size("c_in", c_in), self.order, kernel, kernel)
        weight, bias = draw(resolve_law(init), shape, generator)
        self.weight, self.bias = make.parameter(weight), make.parameter(bias)

    def forward(self, f: Tensor) -> Tensor:
        """Return $ψ ⋆ f$: (b, c, |H|, n, n) → (b, c', |H|, n, n)."""
        _check_square(f, (self.c_in, self.order), "(batch, c_in, |H|, n, n)")
        poses = [transform_map(h, self.weight, self.group) for h in POINT_GROUPS[self.group]]
        weight = torch.stack(poses, 1)  # (c' h c k q q)
        return _correlate(weight.flatten(2, 3).flatten(0, 1), self.bias, f.flatten(1, 2))


class GroupCNN(nn.Module):
    r"""A lifting convolution, group convolutions, a mean over the group and a linear read-out.

    $$h_1 = φ(ψ_1 ⋆ x), \quad h_l = φ(ψ_l ⋆ h_{l-1}), \qquad
    f(x) = V \, \frac1{|H| n^2} \sum_{k ∈ H, p} h_L(p, k) + c.$$

    Every $h_l$ commutes with the shifts of the torus and with $H$, so $f$ is invariant to them, for every value of the
    parameters and exactly (up to rounding).

    Shapes: $x$: (b, $c_0$, n, n) → `features(x)`: (b, $c_L$, |H|, n, n) → $f(x)$: (b, classes); `channels` is
    $[c_0, …, c_L]$. Parameters are named `layers.0.weight`, `layers.0.bias`, …, `readout.weight`, `readout.bias`.
    Initialisation: that of `LiftingConv`, `GroupConv` and, for $V$ and $c$, `MLP`.

    Args:
        channels: $c_0, …, c_L$, at least two positive integers.
        classes: the size of the output.
        kernel: $k$, odd.
        group: `"p4"` or `"p4m"`.
        activation: as in `MLP`.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"` or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of a `CNN` with |H| times the channels after the first, for |H| times fewer parameters.
    Left out: normalisation, pooling between layers.
    Source: cohen2016group.

    >>> net = GroupCNN([1, 4, 4], classes=3, group="p4m", dtype=torch.float64)
    >>> x = torch.randn(2, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> torch.allclose(net(x.mT.roll(2, -1)), net(x), rtol=0, atol=1e-14)
    True

    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        kernel: int = 3,
        group: str = "p4",
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.channels = checked_sizes("channels", channels, least=2)
        self.activation = resolve_activation(activation)
        placed: dict[str, Any] = {"dtype": dtype, "device": device, "generator": generator}
        self.layers = nn.ModuleList([LiftingConv(self.channels[0], self.channels[1], kernel, group, init, **placed)])
        for c_in, c_out in zip(self.channels[1:-1], self.channels[2:], strict=True):
            self.layers.append(GroupConv(c_in, c_out, kernel, group, init, **placed))
        classes = checked_size("classes", classes)
        self.readout = Maker(**placed).linear(self.channels[-1], classes, resolve_law(init))

    def features(self, x: Tensor) -> Tensor:
        """Return $h_L$, the map on the group before pooling: (b, $c_0$, n, n) → (b, $c_L$, |H|, n, n).

        >>> tuple(GroupCNN([3, 4], classes=2).features(torch.zeros(1, 3, 8, 8)).shape)
        (1, 4, 4, 8, 8)
        """
        for layer in self.layers:
            x = self.activation(layer(x))  # (b c h n n)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (b, $c_0$, n, n) → (b, classes)."""
        return self.readout(self.features(x).mean((-3, -2, -1)))


def _correlate(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Correlate on the torus with (c'·h, c, k, k) and split the channels: (b, c, n, n) → (b, c', h, n, n)."""
    every = bias.unsqueeze(1).expand(-1, weight.shape[0] // bias.shape[0]).reshape(-1)  # (c'h)
    y = F.conv2d(wrapped(x, weight.shape[-1]), weight, every)
    return y.unflatten(1, (bias.shape[0], -1))


def _check_square(x: Tensor, channels: tuple[int, ...], expected: str) -> None:
    if x.dim() != 3 + len(channels) or tuple(x.shape[1:-2]) != channels or x.shape[-1] != x.shape[-2]:
        raise ArchitectureError(
            f"the input has shape {tuple(x.shape)}, expected {expected} with {' × '.join(map(str, channels))} channels "
            "and square images: a rotation by 90° must map the image to itself; crop or pad it."
        )


def _symmetry(group: str, side: int) -> Symmetry:
    """The point group with all cyclic shifts of a square torus, acting on images."""
    return Symmetry(
        elements=tuple((h, (i, j)) for h in POINT_GROUPS[group] for i in range(side) for j in range(side)),
        act_on_inputs=lambda g, x: transform(g[0], x).roll(g[1], (-2, -1)),
        act_on_outputs=trivially,
    )


ENTRIES = (
    Architecture(
        name="group-cnn-p4",
        family="GroupCNN",
        build=lambda: GroupCNN([2, 2, 2], 3, group="p4", dtype=torch.float64, generator=seeded(41)),
        sample=images(2, 4, 4, 3),
        loss=cross_entropy,
        symmetry=_symmetry("p4", 4),
        source="cohen2016group",
    ),
    Architecture(
        name="group-cnn-p4m",
        family="GroupCNN",
        build=lambda: GroupCNN([2, 1, 2], 3, group="p4m", dtype=torch.float64, generator=seeded(42)),
        sample=images(2, 3, 3, 3),
        loss=cross_entropy,
        symmetry=_symmetry("p4m", 3),
        source="cohen2016group",
    ),
)
