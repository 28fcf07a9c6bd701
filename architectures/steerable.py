r"""Steerable convolutions: fields of any type on the torus, with kernels counted by characters and built by averaging."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, Symmetry, mean_square, normal, sampled, seeded
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_size,
    draw,
    resolve_activation,
    resolve_law,
)
from .point_groups import IRREPS, Element, elements, kernel_basis, odd, representation, transform, wrapped

Fields = Mapping[str, int]


def transform_field(h: Element, x: Tensor, fields: Fields, group: str) -> Tensor:
    """Return $(h·x)(p) = ρ(h) x(h^{-1} p)$ of a field (b, c, n, n); of (b, c), a field without positions, $ρ(h) x$.

    >>> transform_field((0, 1), torch.tensor([[1.0, 0.0]]), {"E": 1}, "C4").tolist()
    [[0.0, 1.0]]
    """
    rho = torch.block_diag(*(representation(group, name, h) for name, copies in fields.items() for _ in range(copies)))
    if x.dim() == 2:
        return x @ rho.to(x).T
    return torch.einsum("ij,bj...->bi...", rho.to(x), transform(h, x))


class SteerableConv(nn.Module):
    r"""A convolution on the torus between fields, with a coefficient for every steerable kernel.

    $$(κ ⋆ x)(p) = \sum_q κ(q) x(p + q) + β, \qquad κ = \sum_n w_n K_n, \quad
    κ(hq) = ρ_{out}(h) \, κ(q) \, ρ_{in}(h)^{-1}.$$

    The $K_n$ are `kernel_basis` for every pair of an output and an input field, so the layer is the most general
    linear map with $κ ⋆ (g·x) = g·(κ ⋆ x)$ for shifts of the torus and $h ∈ H$ (`transform_field`). β is a constant
    on each field that has an invariant vector: trivial (A, A1) and regular fields.

    Fields: `{"A1": 2, "E": 1}` is two trivial fields, then one of vectors: 4 channels. Names are those of the
    character tables: C2: A, B; C4: A, B, E; D2: A1, A2, B1, B2; D4: A1, A2, B1, B2, E; and `"regular"`, |H| channels
    that the group permutes. E are the vectors of the plane (first to the right, then up).

    Shapes: $x$: (b, $c_{in}$, n, n) → (b, $c_{out}$, n, n); $w$: (dim,), named `weight`; β: one for each trivial or
    regular field, named `bias`.
    Initialisation: independent, Var $w_n = v\, d_{out} d_{in} k^2 / \dim$ for the dim kernels of a pair of fields, so
    that the entries of $κ$ between them have mean variance $v$, that of `init` with fan_in $c_{in} k^2$ and fan_out
    $c_{out} k^2$ (the table of `MLP`); β has the law's bias variance.

    Args:
        fields_in: name → copies.
        fields_out: name → copies.
        kernel: $k$, odd: the centre of the kernel must be a position.
        group: `"C2"`, `"C4"`, `"D2"` or `"D4"`: those that map the square grid to itself.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"` or a `Law` with independent entries.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of a plain convolution, and one look-up of $w$ for every entry of $κ$ ($K_n$ have no entry in common).
    Left out: rotations that do not map the grid to itself, which need sampled and hence inexact kernels; strides.
    Source: cohen2017steerable, weiler2019general.

    >>> SteerableConv({"A1": 1}, {"A1": 1, "E": 2}, group="D4").weight.shape[0]     # 3 + 2 · 2 of 45 entries
    7

    """

    index: Tensor
    factor: Tensor
    bias_index: Tensor
    bias_factor: Tensor

    def __init__(
        self,
        fields_in: Fields,
        fields_out: Fields,
        kernel: int = 3,
        group: str = "C4",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.group, self.kernel = checked_name("group", group, IRREPS), odd(kernel)
        self.fields_in, self.c_in = checked_fields("fields_in", fields_in, group)
        self.fields_out, self.c_out = checked_fields("fields_out", fields_out, group)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        if law.shape == "orthogonal":
            raise ArchitectureError(
                f"init={law.name!r} draws dependent weights, steerable ones are independent; "
                "take default, lecun, he or glorot."
            )
        fans = (self.c_in * kernel**2, self.c_out * kernel**2)
        index, factor, spread = self._layout(fields_in, fields_out)
        if not len(spread):
            raise ArchitectureError(
                f"no {kernel}×{kernel} kernel maps {dict(fields_in)} to {dict(fields_out)} and commutes with {group}; "
                "take a larger kernel."
            )
        unit = Law("", lambda n, m: 1.0, shape=law.shape)
        weights, _ = draw(unit, (len(spread), 1), generator)
        self.weight = make.parameter(weights[:, 0] * (law.weight_variance(*fans) * spread).sqrt())
        bias_index, bias_factor, constants = self._bias_layout(fields_out)
        biases, _ = draw(unit, (constants, 1), generator)
        self.bias = make.parameter(biases[:, 0] * law.bias_variance(*fans) ** 0.5)
        for name, value in (("index", index), ("bias_index", bias_index)):
            self.register_buffer(name, value.to(self.weight.device), persistent=False)
        for name, value in (("factor", factor), ("bias_factor", bias_factor)):
            self.register_buffer(name, value.to(self.weight), persistent=False)

    def kernel_of_weights(self) -> Tensor:
        """Return $κ$, (c_out, c_in, k, k).

        >>> SteerableConv({"A": 2}, {"E": 1}, kernel=5).kernel_of_weights().shape
        torch.Size([2, 2, 5, 5])
        """
        entries = self.factor * self.weight.index_select(0, self.index)
        return entries.view(self.c_out, self.c_in, self.kernel, self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Return $κ ⋆ x$: (b, c_in, n, n) → (b, c_out, n, n)."""
        if x.dim() != 4 or x.shape[1] != self.c_in or x.shape[2] != x.shape[3]:
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but fields_in={dict(self.fields_in)} asks for "
                f"(batch, {self.c_in}, n, n): a rotation must map the image to itself; crop or pad it."
            )
        bias = self.bias_factor * self.bias.index_select(0, self.bias_index) if self.bias.numel() else None
        return F.conv2d(wrapped(x, self.kernel), self.kernel_of_weights(), bias)

    def _layout(self, fields_in: Fields, fields_out: Fields) -> tuple[Tensor, Tensor, Tensor]:
        """Return which weight stands at each entry of κ and by which factor, and each weight's d_out d_in k²/dim."""
        index = torch.zeros(self.c_out, self.c_in, self.kernel, self.kernel, dtype=torch.int64, device="cpu")
        factor = torch.zeros(index.shape, dtype=torch.float64, device="cpu")
        spread: list[float] = []
        for out, rows in _slices(fields_out, self.group):
            for into, columns in _slices(fields_in, self.group):
                basis = kernel_basis(self.group, out, into, self.kernel)  # (n d_out d_in k k)
                if len(basis):
                    index[rows, columns] = basis.abs().argmax(0) + len(spread)
                    factor[rows, columns] = basis.sum(0)
                    spread += [basis[0].numel() / len(basis)] * len(basis)
        return index.flatten(), factor.flatten(), torch.tensor(spread, dtype=torch.float64, device="cpu")

    def _bias_layout(self, fields_out: Fields) -> tuple[Tensor, Tensor, int]:
        index, factor, constants = [], [], 0
        for name, rows in _slices(fields_out, self.group):
            constant = name in ("A", "A1", "regular")
            index += [constants if constant else 0] * (rows.stop - rows.start)
            factor += [float(constant)] * (rows.stop - rows.start)
            constants += constant
        return (
            torch.tensor(index, dtype=torch.int64, device="cpu"),
            torch.tensor(factor, dtype=torch.float64, device="cpu"),
            constants,
        )


class SteerableCNN(nn.Module):
    r"""Steerable convolutions with equivariant nonlinearities between them, and a mean over positions.

    $$h_l = φ(κ_l ⋆ h_{l-1}), \quad h_0 = x, \quad l < L; \qquad f(x) = \frac1{n^2} \sum_p (κ_L ⋆ h_{L-1})(p),$$

    where φ acts entry by entry on trivial and regular fields, which $H$ only permutes, and as
    $v ↦ v/\sqrt{1 + \|v\|^2}$ on each field of another type. So $f(h·x) = ρ_L(h) f(x)$, and shifts do not change $f$:
    the last fields decide what $f$ is, numbers (`{"A1": classes}`), vectors (`{"E": 1}`) or both.

    Shapes: $x$: (b, $c_0$, n, n) → `features(x)`: (b, $c_L$, n, n) → $f(x)$: (b, $c_L$). Parameters are named
    `layers.0.weight`, `layers.0.bias`, …. Initialisation: that of `SteerableConv`.

    Args:
        fields: the fields of $x, h_1, …, f(x)$, each `name → copies`; at least two.
        kernel: $k$, odd.
        group: `"C2"`, `"C4"`, `"D2"` or `"D4"`.
        activation: φ on trivial and regular fields, as in `MLP`.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"` or a `Law` with independent entries.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of a `CNN` with as many channels.
    Left out: gated nonlinearities, normalisation, pooling between layers.
    Source: cohen2017steerable, weiler2019general.

    >>> net = SteerableCNN([{"A": 1}, {"A": 1, "E": 2}, {"E": 1}], group="C4", dtype=torch.float64)
    >>> x = torch.randn(2, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> turned = net(x.rot90(1, (-2, -1)))                    # the vector (u, v) turns to (−v, u)
    >>> torch.allclose(turned, net(x).flip(1) * torch.tensor([-1, 1]), rtol=0, atol=1e-14)
    True

    """

    def __init__(
        self,
        fields: Sequence[Fields],
        kernel: int = 3,
        group: str = "C4",
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if not isinstance(fields, Sequence) or len(fields) < 2:
            raise ArchitectureError(
                f"fields={fields!r} must be a list of at least two: the input's fields, then those of each layer."
            )
        self.fields, self.group, self.activation = tuple(fields), group, resolve_activation(activation)
        placed: dict[str, Any] = {"dtype": dtype, "device": device, "generator": generator}
        self.layers = nn.ModuleList(
            SteerableConv(into, out, kernel, group, init, **placed) for into, out in itertools.pairwise(fields)
        )

    def features(self, x: Tensor) -> Tensor:
        """Return the last field before the mean: (b, $c_0$, n, n) → (b, $c_L$, n, n)."""
        for layer, fields in zip(self.layers[:-1], self.fields[1:-1], strict=True):
            x = self._nonlinear(layer(x), fields)  # (b c n n)
        return self.layers[-1](x)

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (b, $c_0$, n, n) → (b, $c_L$)."""
        return self.features(x).mean((-2, -1))

    def _nonlinear(self, x: Tensor, fields: Fields) -> Tensor:
        sizes = [copies * len(representation(self.group, name, (0, 0))) for name, copies in fields.items()]
        parts = []
        for (name, copies), part in zip(fields.items(), x.split(sizes, dim=1), strict=True):
            if name in ("A", "A1", "regular"):
                parts.append(self.activation(part))
            else:
                v = part.unflatten(1, (copies, -1))  # (b copies d n n)
                parts.append((v * (1 + v.square().sum(2, keepdim=True)).rsqrt()).flatten(1, 2))
        return torch.cat(parts, dim=1)


def checked_fields(argument: str, fields: Fields, group: str) -> tuple[dict[str, int], int]:
    """Return the fields as a dict of known names and positive copies, and their number of channels.

    >>> checked_fields("fields_in", {"A": 2, "E": 1}, "C4")
    ({'A': 2, 'E': 1}, 4)
    """
    if not isinstance(fields, Mapping) or not fields:
        known = ", ".join([*IRREPS[group], "regular"])
        raise ArchitectureError(
            f"{argument} must be a mapping from a name of {group} ({known}) to copies, got {fields!r}."
        )
    for name, copies in fields.items():
        checked_name(f"{argument} of {group}", name, [*IRREPS[group], "regular"])
        checked_size(f"{argument}[{name!r}]", copies)
    return dict(fields), sum(n * len(representation(group, name, (0, 0))) for name, n in fields.items())


def _slices(fields: Fields, group: str) -> list[tuple[str, slice]]:
    """Return every single field, with its channels."""
    found, start = [], 0
    for name, copies in fields.items():
        for _ in range(copies):
            stop = start + len(representation(group, name, (0, 0)))
            found.append((name, slice(start, stop)))
            start = stop
    return found


_FIELDS: tuple[dict[str, int], ...] = (
    {"A1": 1, "E": 1},
    {"A1": 1, "B1": 1, "E": 1, "regular": 1},
    {"A1": 1, "E": 1},
)

ENTRIES = (
    Architecture(
        name="steerable",
        family="SteerableCNN",
        build=lambda: SteerableCNN(_FIELDS, group="D4", dtype=torch.float64, generator=seeded(43)),
        sample=sampled(lambda g: (normal(g, 3, 3, 3, 3), normal(g, 3, 3))),
        loss=mean_square,
        symmetry=Symmetry(
            elements=tuple((h, (i, j)) for h in elements("D4") for i in range(3) for j in range(3)),
            act_on_inputs=lambda g, x: transform_field(g[0], x, _FIELDS[0], "D4").roll(g[1], (-2, -1)),
            act_on_outputs=lambda g, y: transform_field(g[0], y, _FIELDS[-1], "D4"),
        ),
        source="weiler2019general",
    ),
)
