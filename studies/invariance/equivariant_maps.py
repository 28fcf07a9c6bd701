r"""How many linear maps commute with a group: the weights that a symmetric layer can have.

The maps between two representations that commute with a group form a linear space. Weight sharing is a basis of it, and
its dimension is the number of free weights of the layer: circulants for shifts @kondor2018generalization, steerable filters
for rotations @cohen2017steerable @weiler2019general, one weight for each pattern of equal indices for permutations
@zaheer2017deep @maron2019invariant. Here the spaces are null spaces, found by singular values from the generators of a group
@finzi2021practical, in a basis drawn at random, so that nothing in the matrices shows the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import comb, factorial, gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.analysis import EquivariantMaps, actions, equivariant_maps
from lemmata.architectures.point_groups import IRREPS, elements, kernel_dimension, representation
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.invariance.equivariant_maps_figures import draw_commutants, draw_filters, draw_points
from lemmata.studies.invariance.representations import (
    averaged,
    cycle,
    cycle_lengths,
    grid_matrix,
    orbit_filters,
    permutation_matrix,
    power,
)

Matrices = Mapping[str, Tensor]


def hidden(matrices: Matrices, draws: torch.Generator) -> tuple[Matrices, Tensor]:
    """The same representation in an orthonormal basis drawn at random, and the basis."""
    Q = actions.haar(len(next(iter(matrices.values()))), draws, reflections=True)
    return {g: Q @ m @ Q.T for g, m in matrices.items()}, Q


def commutant(matrix: Tensor, draws: torch.Generator) -> tuple[EquivariantMaps, Tensor]:
    """The maps that commute with one matrix, found in a random basis and brought back from it: (dim, n, n)."""
    turned, Q = hidden({"g": matrix}, draws)
    maps = equivariant_maps(turned, turned)
    return maps, Q.T @ maps.basis @ Q


@claim(
    source=("kondor2018generalization", "cohen2016group"),
    predicts=Equals("n", within=0, of="each"),
    quick=Grid(n=[6, 9, 12], seeds=5),
    full=Grid(n=[6, 9, 12, 24], seeds=20),
    controls={"a cyclic shift: a random permutation": dict(permutation="random")},
    figures=(draw_commutants,),
)
def shift_commutant(n: int, seed: int, permutation: str = "shift") -> dict[str, Any]:
    r"""The matrices that commute with the cyclic shift form a space of dimension n.

    Let $S$ be the cyclic shift of $RR^n$. The solutions $W$ of $W S = S W$ form a space of dimension $n$: the circulants, that is,
    convolutions on the circle @cohen2016group @kondor2018generalization. A layer that commutes with shifts has one weight for
    each offset.

    Measured is the nullity of $1 times.o S - S^T times.o 1$, in a random basis. The control takes a permutation with more than one
    cycle in place of $S$.
    """
    draws = torch.Generator().manual_seed(seed)
    images = [(i + 1) % n for i in range(n)]
    while permutation == "random" and (len(cycle_lengths(images)) == 1):
        images = torch.randperm(n, generator=draws, device="cpu").tolist()
    maps, basis = commutant(permutation_matrix(images), draws)
    drawn = torch.randn(n, n, generator=draws, dtype=torch.float64, device="cpu")
    nearest = torch.einsum("kab,kcd,cd->ab", basis, basis, drawn)
    return {"value": maps.dimension, "gap": maps.gap[0], "drawn": drawn.numpy(), "nearest": nearest.numpy()}


@claim(
    source=("kondor2018generalization", "cohen2016group"),
    predicts=AtMost("rounding(n*n)", of="max"),
    quick=Grid(n=[6, 8, 12], seeds=5),
    full=Grid(n=[6, 8, 12, 24], seeds=20),
    controls={"all shifts: those by an even number": dict(step=2)},
)
def shift_commutant_circulant(n: int, seed: int, step: int = 1) -> float:
    r"""What commutes with the cyclic shift is a convolution.

    If $W S = S W$, then $W_(i j) = w_(i - j mod n)$ @cohen2016group: the entries are constant along the diagonals, wrapped round.

    The value is the largest distance of a matrix of the commutant from the circulant with its first column, over an orthonormal
    basis of it. The control asks for shifts by two only.
    """
    draws = torch.Generator().manual_seed(seed)
    _, basis = commutant(cycle(n, step), draws)
    circulants = torch.stack([basis[:, :, 0].roll(j, 1) for j in range(n)], 2)
    return float((basis - circulants).norm(dim=(1, 2)).max())


@claim(
    source=("finzi2021practical", "kondor2018generalization"),
    predicts=Equals(1, within=0, of="each"),
    quick=Grid(n=[6, 8, 10], seeds=6),
    full=Grid(n=[6, 8, 10, 20], seeds=20),
    controls={"entries of one: random signs": dict(signs=True)},
)
def shift_commutant_cycles(n: int, seed: int, signs: bool = False) -> dict[str, Any]:
    r"""A permutation commutes with as many matrices as its cycles have common divisors.

    Let a permutation of $n$ points have cycles of lengths $c_1, dots, c_m$. The matrices that commute with it form a space of
    dimension $ sum_(i, j) gcd(c_i, c_j), $ for its orbits on pairs of points from the cycles $i$ and $j$ are $gcd(c_i, c_j)$ in number.
    For the cyclic shift, of one cycle, this is $n$.

    The value is the nullity divided by the sum, for permutations drawn at random. The control gives their entries random signs:
    the pairs of cycles whose signs multiply to different numbers lose common eigenvalues.
    """
    draws = torch.Generator().manual_seed(seed)
    images = torch.randperm(n, generator=draws, device="cpu").tolist()
    matrix = permutation_matrix(images)
    if signs:
        matrix = matrix * (2.0 * torch.randint(2, (n,), generator=draws, device="cpu") - 1)
    lengths = cycle_lengths(images)
    count = sum(gcd(a, b) for a in lengths for b in lengths)
    maps, _ = commutant(matrix, draws)
    return {"value": maps.dimension / count, "dimension": maps.dimension, "cycles": np.array(sorted(lengths))}


def tensor_maps(n: int, k: int, l: int, group: str, draws: torch.Generator) -> EquivariantMaps:  # noqa: E741
    """Maps from tensors of order k to order l on n points that commute with the group, in random bases."""
    generators = {"cycle": cycle(n)}
    if group == "symmetric":
        generators["swap"] = permutation_matrix([1, 0, *range(2, n)] if n > 1 else [0])
    into, out = (hidden({g: power(m, order) for g, m in generators.items()}, draws)[0] for order in (k, l))
    return equivariant_maps(into, out, group=generators)


def patterns(indices: int, n: int) -> int:
    """Partitions of so many indices into at most n blocks: the ways in which they can be equal among n values.

    >>> [patterns(4, n) for n in (1, 2, 3, 4, 9)]
    [1, 8, 14, 15, 15]
    """
    blocks = range(min(indices, n) + 1)
    return sum(sum((-1) ** i * comb(j, i) * (j - i) ** indices for i in range(j + 1)) // factorial(j) for j in blocks)


@claim(
    source=("maron2019invariant", "zaheer2017deep"),
    predicts=Equals("stats.poisson(1).moment(k + l)", within=0.01, of="each"),
    quick=Grid(k=[1, 2], l=[1, 2], spare=[0, 1], seeds=2),
    full=Grid(k=[1, 2], l=[1, 2], spare=[0, 1, 2], seeds=3),
    controls={
        "as many points as indices: one point fewer": dict(spare=-1),
        "all permutations: cyclic shifts": dict(group="cyclic"),
    },
)
def bell_number_equivariant_maps(k: int, l: int, spare: int, seed: int, group: str = "symmetric") -> float:  # noqa: E741
    r"""Layers between tensors on n points that do not mind their order have a Bell number of weights.

    Let $S_n$ permute the indices of tensors of order $k$ and $l$ on $n >= k + l$ points. The linear maps
    $(RR^n)^(times.o k) -> (RR^n)^(times.o l)$ that commute with it form a space whose dimension is the Bell number $B(k + l)$, whatever $n$
    @maron2019invariant: a weight for each pattern of equal indices. It is $2$ for sets ($k = l = 1$: $lambda I + gamma 1 1^T$
    @zaheer2017deep), $5$ between nodes and edges, $15$ for graphs ($k = l = 2$).

    Measured is the nullity for two generators of $S_n$, $n = k + l$ or one more. By Dobiński's formula $B(m)$ is the $m$-th moment of a
    Poisson variable of mean one. With one point fewer than indices the pattern of all different indices is missing: $14$.
    """
    return tensor_maps(k + l + spare, k, l, group, torch.Generator().manual_seed(seed)).dimension


@claim(
    source="maron2019invariant",
    predicts=Equals("stats.poisson(1).moment(k)", within=0.01, of="each"),
    quick=Grid(k=[2, 3, 4], spare=[0], seeds=2),
    full=Grid(k=[2, 3, 4], spare=[0, 1], seeds=3),
    controls={
        "as many points as indices: one point fewer": dict(spare=-1),
        "all permutations: cyclic shifts": dict(group="cyclic"),
    },
)
def bell_number_equivariant_maps_invariants(k: int, spare: int, seed: int, group: str = "symmetric") -> float:
    r"""A read-out of a tensor that does not mind the order of the points has a Bell number of weights.

    The linear functions of tensors of order $k$ on $n >= k$ points that $S_n$ leaves as they are form a space of dimension $B(k)$
    @maron2019invariant: for the adjacency matrix of a graph two, the sum of the diagonal and the sum of the rest.
    """
    return tensor_maps(k + spare, k, 0, group, torch.Generator().manual_seed(seed)).dimension


@claim(
    source="maron2019invariant",
    predicts=Equals(1, within=0.01, of="each"),
    quick=Grid(n=[1, 2, 3, 4, 5], seeds=1),
    full=Grid(n=[1, 2, 3, 4, 5, 6], seeds=3),
    controls={"all permutations: cyclic shifts": dict(group="cyclic")},
    figures=(draw_points,),
)
def bell_number_equivariant_maps_boundary(n: int, seed: int, group: str = "symmetric") -> dict[str, Any]:
    r"""On few points a layer has a weight for each pattern of equal indices that they allow.

    On $n$ points the maps from $n times n$ matrices to themselves that commute with $S_n$ form a space of dimension
    $ sum_(j <= n) S(4, j), $ $S(4, j)$ a Stirling number of the second kind: the partitions of four indices into at most $n$ blocks,
    $1, 8, 14$, and from $n = 4$ on the Bell number $15$ @maron2019invariant.

    The value is the nullity divided by this sum. Under cyclic shifts alone, which move any point to any other but no pair to
    any pair, it is $n^3$, the number of orbits on four indices.
    """
    maps = tensor_maps(n, 2, 2, group, torch.Generator().manual_seed(seed))
    return {"value": maps.dimension / patterns(4, n), "dimension": maps.dimension}


@claim(
    source=("cohen2017steerable", "weiler2019general"),
    predicts=Equals("(k**2 + 3 + 4*k*flips)/(4 + 4*flips)", within=0.01, of="each"),
    quick=Grid(k=[3, 5, 7], flips=[0, 1], seeds=1),
    full=Grid(k=[3, 5, 7, 9, 11], flips=[0, 1], seeds=1),
    controls={
        "a pixel in the centre: one row and column more": dict(more=1),
        "a group: one element left out": dict(left_out=1),
    },
    figures=(draw_filters,),
)
def steerable_basis_dimension(k: int, flips: int, seed: int, more: int = 0, left_out: int = 0) -> dict[str, Any]:
    r"""Quarter turns leave (k² + 3)/4 filters of k by k pixels to choose, with reflections (k² + 4k + 3)/8.

    Let $k$ be odd and $C_4$, or $D_4$ (`flips` = 1), move the pixels of a $k times k$ filter. The filters that are left as they are form a
    space of dimension $1\/abs(G) sum_g chi(g)$, with $chi(g)$ the number of pixels that $g$ fixes: $k^2$ for the identity, $1$ for a
    rotation, $k$ for a reflection @cohen2017steerable @weiler2019general. For $k = 3, 5$: $3, 7$ for $C_4$ and $3, 6$ for $D_4$.

    Measured is the rank of the average of the moves over the group. Controls: a filter of even side, whose centre is no pixel
    (which $D_4$ makes up for on its diagonals, $C_4$ does not); and an average over all elements but one, which is no projector.
    """
    group, side = elements("D4" if flips else "C4"), k + more
    group = group[: len(group) - left_out]
    trivial = {h: torch.ones(1, 1, dtype=torch.float64, device="cpu") for h in group}
    average = averaged(group, trivial, trivial, side)
    return {
        "value": int(torch.linalg.matrix_rank(average, rtol=1e-9)),
        "not idempotent": float((average @ average - average).norm()),
        "filters": orbit_filters(average, side),
    }


@claim(
    source=("cohen2017steerable", "weiler2019general"),
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(group=["C2", "C4", "D2", "D4"], k=[3, 5], seeds=1),
    full=Grid(group=["C2", "C4", "D2", "D4"], k=[3, 5, 7], seeds=1),
    controls={
        "a pixel in the centre: one row and column more": dict(more=1),
        "a group: one element left out": dict(left_out=1),
    },
)
def steerable_basis_dimension_irreps(group: str, k: int, seed: int, more: int = 0, left_out: int = 0) -> dict[str, Any]:
    r"""Between all irreducible fields the steerable filters are as many as the characters say.

    Let $rho_"in", rho_"out"$ be irreducible representations of $C_2, C_4, D_2$ or $D_4$. The filters with
    $kappa(h q) = rho_"out" (h) kappa(q) rho_"in" (h)^(-1)$ form a space of dimension
    $ 1/abs(G) sum_(h in G) chi_"in" (h) chi_"out" (h) chi_"grid" (h), $ with $chi_"grid" (h)$ the number of pixels that $h$ fixes
    @cohen2017steerable @weiler2019general. From a scalar to the sign of quarter turns, for one, there are $2$ of $3 times 3$ pixels.

    The value is the number of pairs of irreducible representations for which the rank of the Reynolds projector, or the nullity
    for two generators, is another number. The controls are those of the claim before.
    """
    whole, side = elements(group), k + more
    chosen = whole[: len(whole) - left_out]
    rhos = {name: {h: representation(group, name, h).contiguous() for h in whole} for name in IRREPS[group]}
    differ, dimensions = 0, []
    for out, into in product(rhos, rhos):
        average = averaged(chosen, rhos[out], rhos[into], side)
        fields = {h: torch.kron(rhos[out][h], grid_matrix(h, side)) for h in whole}
        maps = equivariant_maps(rhos[into], fields, group=fields)
        found = (int(torch.linalg.matrix_rank(average, rtol=1e-9)), maps.dimension)
        differ += found != (kernel_dimension(group, out, into, k),) * 2
        dimensions.append(found[0])
    return {"value": differ, "dimensions": np.array(dimensions)}


if __name__ == "__main__":
    script(__file__)
