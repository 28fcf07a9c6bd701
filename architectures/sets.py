r"""Networks on sets: Deep Sets, invariant and equivariant."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._entry import Architecture, Symmetry, mean_square, normal, sampled, seeded, trivially
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_sizes,
    resolve_activation,
    resolve_law,
)
from .mlp import MLP

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda h: h.sum(-2),
    "mean": lambda h: h.mean(-2),
    "max": lambda h: h.amax(-2),
}


def check_set(x: Tensor, width: int, name: str, leading: str = "...") -> None:
    """Raise unless x is (..., n, width) with n ≥ 1: a maximum and a mean over no elements are not defined.

    `leading` says which axes may come before: "..." for any, "batch" for one.

    >>> check_set(torch.zeros(5, 3), 3, "widths[0]")
    """
    rank_fits = x.dim() >= 2 if leading == "..." else x.dim() == 3
    if not rank_fits or x.shape[-1] != width or x.shape[-2] == 0:
        raise ArchitectureError(
            f"the set has shape {tuple(x.shape)}, but {name}={width} asks for ({leading}, elements, {width}), at least "
            "one element; sets of different sizes cannot be in one batch."
        )


class DeepSets(nn.Module):
    r"""A function of a set: elements one by one through $φ$, a pool, then $ρ$.

    $$f(\{x_1, …, x_n\}) = ρ\Bigl(\bigoplus_{i=1}^n φ(x_i)\Bigr),$$

    where $⊕$ is the sum, the mean or the entrywise maximum. With a sum, every continuous function of sets of $n$
    numbers has this form for some continuous $φ$ with $n + 1$ numbers and $ρ$; the mean cannot count, the maximum cannot
    see repetition.

    Shapes: $x$: (..., n, d) → (..., d'); $φ$ has the widths $[d, …, m]$, $ρ$ the widths $[m, …, d']$. Parameters
    `phi.layers.0.weight`, …, `rho.layers.0.weight`, …. Initialisation: `MLP`'s table for both.

    Args:
        phi: widths of $φ$, at least two positive integers.
        rho: widths of $ρ$; the first is the last of $φ$.
        pool: `"sum"`, `"mean"` or `"max"`.
        activation: within both MLPs, a name of `ACTIVATIONS` or a function.
        init: as `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: $φ$ for each element and $ρ$ once; memory as much.
    Left out: sets of different sizes in one batch.
    Source: zaheer2017deep.

    >>> net = DeepSets([1, 1], [1, 1])
    >>> _ = net.load_state_dict({f"{part}.layers.0.{kind}": torch.tensor(value) for part, kind, value in
    ...     (("phi", "weight", [[3.0]]), ("phi", "bias", [1.0]), ("rho", "weight", [[2.0]]), ("rho", "bias", [0.0]))})
    >>> net(torch.tensor([[1.0], [2.0], [4.0]])).tolist()           # 2 Σ (3 x + 1)
    [48.0]

    """

    def __init__(
        self,
        phi: Sequence[int],
        rho: Sequence[int],
        pool: str = "sum",
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        phi, rho = checked_sizes("phi", phi, least=2), checked_sizes("rho", rho, least=2)
        if phi[-1] != rho[0]:
            raise ArchitectureError(
                f"phi={list(phi)} ends with {phi[-1]} numbers and rho={list(rho)} begins with {rho[0]}: rho acts on "
                "what phi gives, make them equal."
            )
        self.pool = checked_name("pool", pool, POOLS)
        self.phi = MLP(phi, activation, init, dtype=dtype, device=device, generator=generator)
        self.rho = MLP(rho, activation, init, dtype=dtype, device=device, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (..., n, d) → (..., d')."""
        check_set(x, self.phi.widths[0], "phi[0]")
        return self.rho(POOLS[self.pool](self.phi(x)))

    def extra_repr(self) -> str:
        """Name the pool in the printed network."""
        return f"pool={self.pool}"


class EquivariantDeepSets(nn.Module):
    r"""A function from sets to sets: each element meets the others through their pool only.

    $$h_i^{(l)} = φ\Bigl(W_l h_i^{(l-1)} + U_l \bigoplus_j h_j^{(l-1)} + b_l\Bigr), \qquad h^{(0)} = x, \qquad f(x) = h^{(L)},$$

    without $φ$ in the last layer. With the sum (or the mean) these are all the affine maps that commute with
    permutations of the elements.

    Shapes: $x$: (..., n, $n_0$) → (..., n, $n_L$). Parameters `own.0.weight` $W_1$, `own.0.bias` $b_1$,
    `pooled.0.weight` $U_1$, …: ($n_l$, $n_{l-1}$). Initialisation: `MLP`'s table for $W_l$, $b_l$ and $U_l$, each
    with fan-in $n_{l-1}$.

    Args:
        widths: $n_0, …, n_L$, at least two positive integers.
        pool: `"sum"`, `"mean"` or `"max"`.
        activation: $φ$, a name of `ACTIVATIONS` or a function.
        init: as `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: twice that of an `MLP` of the same widths at most, for each element.
    Left out: sets of different sizes in one batch.
    Source: zaheer2017deep.

    >>> net = EquivariantDeepSets([1, 1])
    >>> _ = net.load_state_dict({name: torch.full(p.shape, v) for (name, p), v in zip(net.named_parameters(), (1.0, 0.5, -1.0))})
    >>> net(torch.tensor([[1.0], [2.0], [6.0]])).tolist()           # x_i + 1/2 less the mean
    [[-1.5], [-0.5], [3.5]]

    """

    def __init__(
        self,
        widths: Sequence[int],
        pool: str = "mean",
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        self.pool = checked_name("pool", pool, POOLS)
        self.activation = resolve_activation(activation)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        sizes = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        self.own = nn.ModuleList(make.linear(n, m, law) for n, m in sizes)
        self.pooled = nn.ModuleList(make.linear(n, m, law, bias=False) for n, m in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (..., n, $n_0$) → (..., n, $n_L$)."""
        check_set(x, self.widths[0], "widths[0]")
        pool, z = POOLS[self.pool], x
        for depth, (own, pooled) in enumerate(zip(self.own, self.pooled, strict=True)):
            h = self.activation(z) if depth else x
            z = own(h) + pooled(pool(h)).unsqueeze(-2)  # (... n nl)
        return z

    def extra_repr(self) -> str:
        """Name the pool and the activation in the printed network."""
        return f"pool={self.pool}, activation={getattr(self.activation, '__name__', self.activation)}"


#: The elements of every tiny set, and their 24 orders.
ELEMENTS = 4


def reordered(p: tuple[int, ...], x: Any) -> Any:
    """Return $Px$: element i is the old element p[i], (b n d).

    >>> reordered((1, 0), torch.tensor([[[3.0], [5.0]]])).tolist()
    [[[5.0], [3.0]]]
    """
    return x[:, list(p)]


_ORDERS = tuple(itertools.permutations(range(ELEMENTS)))
EQUIVARIANT = Symmetry(elements=_ORDERS, act_on_inputs=reordered, act_on_outputs=reordered)
INVARIANT = Symmetry(elements=_ORDERS, act_on_inputs=reordered, act_on_outputs=trivially)


def _tiny(pool: str, seed: int) -> DeepSets:
    return DeepSets([2, 4, 3], [3, 4, 2], pool, dtype=torch.float64, generator=seeded(seed))


def _gaps(x: Tensor) -> Tensor:
    """Return for each set the smallest gap between the two largest numbers that the maximum compares."""
    first, second = _tiny("max", 72).phi(x).topk(2, dim=1).values.unbind(1)  # (b m)
    return (first - second).amin(1)


def _away_from_ties(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep sets of which no second largest number is within 0.05 of the largest."""
    candidates, target = normal(g, 400, ELEMENTS, 2), normal(g, 3, 2)
    with torch.no_grad():
        return candidates[_gaps(candidates) > 0.05][:3], target


ENTRIES = (
    Architecture(
        name="deepsets",
        family="DeepSets",
        build=lambda: _tiny("sum", 71),
        sample=sampled(lambda g: (normal(g, 3, ELEMENTS, 2), normal(g, 3, 2))),
        loss=mean_square,
        symmetry=INVARIANT,
        source="zaheer2017deep",
    ),
    Architecture(
        name="deepsets-max",
        family="DeepSets",
        build=lambda: _tiny("max", 72),
        sample=sampled(_away_from_ties),
        loss=mean_square,
        symmetry=INVARIANT,
        source="zaheer2017deep",
        smooth=False,
    ),
    Architecture(
        name="deepsets-equivariant",
        family="EquivariantDeepSets",
        build=lambda: EquivariantDeepSets([2, 4, 2], dtype=torch.float64, generator=seeded(73)),
        sample=sampled(lambda g: (normal(g, 3, ELEMENTS, 2), normal(g, 3, ELEMENTS, 2))),
        loss=mean_square,
        symmetry=EQUIVARIANT,
        source="zaheer2017deep",
    ),
)
