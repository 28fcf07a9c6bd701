"""Matrices by which permutations act on points and tensors, and the symmetries of a square on its pixels and on filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from lemmata.architectures.point_groups import Element, transform


def permutation_matrix(images: Sequence[int]) -> Tensor:
    """The matrix that sends e_i to e_images[i]."""
    matrix = torch.zeros(len(images), len(images), dtype=torch.float64, device="cpu")
    matrix[list(images), list(range(len(images)))] = 1.0
    return matrix


def cycle(n: int, step: int = 1) -> Tensor:
    """The cyclic shift of n positions."""
    return permutation_matrix([(i + step) % n for i in range(n)])


def cycle_lengths(images: Sequence[int]) -> list[int]:
    """The lengths of a permutation's cycles."""
    left, lengths = set(range(len(images))), []
    while left:
        start = place = left.pop()
        length = 1
        while (place := images[place]) != start:
            left.remove(place)
            length += 1
        lengths.append(length)
    return lengths


def power(matrix: Tensor, k: int) -> Tensor:
    """The k-th Kronecker power; of order 0 the trivial representation."""
    return reduce(torch.kron, [matrix] * k, torch.ones(1, 1, dtype=torch.float64, device="cpu"))


def grid_matrix(h: Element, side: int) -> Tensor:
    """How h moves the pixels of a square, as a matrix (side², side²)."""
    pixels = torch.eye(side**2, dtype=torch.float64, device="cpu").view(-1, side, side)
    return transform(h, pixels).flatten(1).T.contiguous()


def averaged(
    group: Sequence[Element], out: Mapping[Element, Tensor], into: Mapping[Element, Tensor], side: int
) -> Tensor:
    r"""The average of κ ↦ ρ_out(h) κ(h⁻¹·) ρ_in(h)⁻¹ over a set of elements, as a matrix on filters (d_out d_in side²)."""
    moves = [torch.kron(torch.kron(out[h], into[h]), grid_matrix(h, side)) for h in group]  # ρ orthogonal: ρ⁻ᵀ = ρ
    return torch.stack(moves).mean(0)


def orbit_filters(projection: Tensor, side: int) -> np.ndarray:
    """The columns of a projector on filters that differ: the orbits of single pixels, (orbits, side, side)."""
    distinct: list[Tensor] = []
    for column in projection.T:
        if all(float((column - other).abs().max()) > 1e-9 for other in distinct):
            distinct.append(column)
    return (
        torch.stack(sorted(distinct, key=lambda f: abs(float(f @ _squared_radius(side)) / float(f.sum()))))
        .view(-1, side, side)
        .numpy()
    )


def _squared_radius(side: int) -> Tensor:
    offsets = torch.arange(side, dtype=torch.float64, device="cpu") - (side - 1) / 2
    return (offsets[:, None] ** 2 + offsets**2).flatten()
