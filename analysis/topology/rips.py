"""Persistent homology of Vietoris–Rips complexes over two elements: Betti numbers from distances alone, in any dimension."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush, heapreplace
from itertools import count
from math import comb, inf

import numpy as np
from torch import Tensor

from ..errors import ArgumentError, DataError
from .betti import Array, Betti, forest, read

_CHUNK = 2**21  # keys of cofaces that are formed at a time
_KEYS = 2**62
_NONE = np.iinfo(np.int64).max  # no coface


@dataclass(frozen=True)
class Bars:
    """Where the classes of each dimension are born and die, both (m_k,): death is infinite for those that stay."""

    births: tuple[Array, ...]
    deaths: tuple[Array, ...]


class _Rips:
    """The flag complex of a matrix of distances: simplices are keys, ordered by diameter, then by number."""

    def __init__(self, distances: Array, longest: float) -> None:
        self.n = n = len(distances)
        above = distances[np.triu_indices(n, 1)]
        self.values = np.unique(above[above <= longest])
        self.rank = np.searchsorted(self.values, distances)
        self.rank[~(distances <= longest)] = len(self.values)  # no such edge
        self.choose = np.array([[comb(v, k) for k in range(6)] for v in range(n + 1)], dtype=np.int64)

    def keys(self, vertices: Array, rank: Array) -> Array:
        """Keys of simplices, (…, k + 1) → (…): the diameter's rank, then the number in the combinatorial system."""
        size = vertices.shape[-1]
        number = self.choose[np.sort(vertices, -1), np.arange(1, size + 1)].sum(-1)
        return rank * comb(self.n, size) + number

    def cofaces(self, simplices: Array, rank: Array) -> Array:
        """Keys of all cofaces, (m, n), of simplices with vertices in order; those that are none have the largest number."""
        size, added = simplices.shape[1], np.arange(self.n)
        larger = np.maximum(self.rank[simplices].max(1), rank[:, None])
        keys, place = larger * comb(self.n, size + 1), np.zeros_like(larger)
        absent = larger == len(self.values)
        for k in range(size):  # a vertex beyond the added one moves up by a place
            own = simplices[:, k, None]
            before = own < added
            keys += np.where(before, self.choose[own, k + 1], self.choose[own, k + 2])
            place += before
            absent |= own == added
        keys += self.choose[added, place + 1]
        return np.where(absent, _NONE, keys)

    def chunks(self, simplices: Array) -> Iterator[slice]:
        """Pieces whose cofaces fit."""
        step = max(1, _CHUNK // self.n)
        return (slice(k, k + step) for k in range(0, len(simplices), step))

    def next(self, simplices: Array, rank: Array) -> tuple[Array, Array]:
        """The simplices of one dimension more, each once: vertices and rank."""
        found, ranks = [], []
        for part in self.chunks(simplices):
            larger = np.maximum(self.rank[simplices[part]].max(1), rank[part, None])
            later = np.arange(self.n) > simplices[part].max(1)[:, None]
            row, v = np.nonzero((larger < len(self.values)) & later)
            found.append(np.concatenate([simplices[part][row], v[:, None]], 1))
            ranks.append(larger[row, v])
        return np.concatenate(found), np.concatenate(ranks)


class _Sum:
    """A sum of columns over two elements, of which only the least key is ever known: a heap of sorted lists."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, int, list[int]]] = []
        self.tags = count()

    def add(self, column: list[int]) -> None:
        """Add a column, its keys in order."""
        if column:
            heappush(self.heap, (column[0], next(self.tags), 0, column))

    def least(self) -> int | None:
        """Take out the least key that occurs an odd number of times; None if the sum is zero."""
        while self.heap:
            key, odd = self.heap[0][0], False
            while self.heap and self.heap[0][0] == key:
                _, tag, place, column = self.heap[0]
                odd = not odd
                if place + 1 < len(column):
                    heapreplace(self.heap, (column[place + 1], tag, place + 1, column))
                else:
                    heappop(self.heap)
            if odd:
                return key
        return None


def _reduce(rips: _Rips, simplices: Array, rank: Array, cleared: set[int]) -> tuple[list[int], list[int], set[int]]:
    """Ranks of births and deaths (−1: never) of the classes of one dimension, and the cofaces that end them.

    Cohomology, latest simplex first; what ends a class one dimension below begins none here (clearing). A column is
    kept as the set of coboundaries that it is the sum of.
    """
    keys = rips.keys(simplices, rank)
    first = np.concatenate([rips.cofaces(simplices[p], rank[p]).min(1) for p in rips.chunks(simplices)] or [keys])
    size = comb(rips.n, simplices.shape[1] + 1)
    terms: dict[int, set[int]] = {}  # of the column whose least key is given
    births, deaths = [], []

    @cache
    def coboundary(place: int) -> list[int]:
        every = np.sort(rips.cofaces(simplices[place : place + 1], rank[place : place + 1])[0])
        return every[: np.searchsorted(every, _NONE)].tolist()

    for place in np.argsort(-keys).tolist():
        if int(keys[place]) in cleared:
            continue
        pivot: int | None = int(first[place]) if first[place] != _NONE else None
        own = {place}
        if pivot in terms:
            total = _Sum()
            total.add(coboundary(place))
            while (pivot := total.least()) is not None and pivot in terms:
                total.add([pivot])
                for other in terms[pivot]:
                    total.add(coboundary(other))
                own ^= terms[pivot]
        if pivot is not None:
            terms[pivot] = own
        births.append(int(rank[place]))
        deaths.append(-1 if pivot is None else pivot // size)
    return births, deaths, set(terms)


def rips_persistence(distances: Array, dimension: int = 1, longest: float = inf) -> Bars:
    """Persistent homology of the Vietoris–Rips filtration up to a dimension, by the edges not longer than ``longest``."""
    n = len(distances)
    rips = _Rips(distances, longest)
    edges = np.stack(np.triu_indices(n, 1), 1)
    rank = rips.rank[edges[:, 0], edges[:, 1]]
    edges, rank = edges[rank < len(rips.values)], rank[rank < len(rips.values)]
    tree = forest(edges, rips.keys(edges, rank), n)
    cleared = {int(key) for key in tree}
    merged = rips.values[np.sort(tree // comb(n, 2))] if n > 1 else np.zeros(0)
    births = [np.zeros(n)]
    deaths = [np.concatenate([merged, np.full(n - len(merged), inf)])]
    simplices = edges
    for k in range(1, dimension + 1):
        if k > 1:
            simplices, rank = rips.next(simplices, rank)
        born, died, cleared = _reduce(rips, simplices, rank, cleared)
        ends = np.append(rips.values, inf)  # place −1: never
        start, end = ends[np.array(born, dtype=np.int64)], ends[np.array(died, dtype=np.int64)]
        births.append(start[start < end])
        deaths.append(end[start < end])
    return Bars(tuple(births), tuple(deaths))


def rips_betti(
    distances: Tensor | Array,
    scale: float | None = None,
    dimension: int = 1,
    factor: float = 2.0,
    longest: float | None = None,
) -> Betti:
    r"""The Betti numbers of the Vietoris–Rips complex of a matrix of distances, over the field of two elements.

    .. math:: \beta_k(r) = \dim \ker \partial_k - \operatorname{rank} \partial_{k+1}, \qquad
        \text{simplices } \{i_0, \dots, i_k\} \text{ with } d(i_a, i_b) \le r

    at every scale r at once, from persistent cohomology with clearing.

    Args:
        distances: (n, n), symmetric, zero on the diagonal; infinite for what is not connected.
        scale: the length r to read at. If None, chosen as :func:`betti` does, from the median nearest distance on.
        dimension: of the highest number, 0 to 3.
        factor: how long numbers must hold, as a ratio of scales, for ``converged``.
        longest: the longest edge to look at; the plateau ends there. If None, the least radius of a ball around a point
            that holds all others: from there on the complex is a cone, and has the numbers (1, 0, …).

    Shapes: r in the units of the distances, twice the α of :func:`betti` for an isolated pair.

    Cost: for ``dimension`` 1, n²/2 columns of length n: 300 points take about a second, and memory for n³/6 numbers at
    the worst. Each dimension more costs n times as much: take 60 points for cavities.

    Errors: ``DataError`` for what is no matrix of distances; ``ArgumentError`` for an option outside its domain, or a
    complex too large to number.

    Source: Bauer 2021, Ripser: efficient computation of Vietoris–Rips persistence barcodes; de Silva, Morozov &
    Vejdemo-Johansson 2011, Dualities in persistent (co)homology.

    Example:
        Six points on a circle, each as far from the next as from the centre: a loop, until triangles fill it:

        >>> angles = np.arange(6) * np.pi / 3
        >>> circle = np.stack([np.cos(angles), np.sin(angles)], 1)
        >>> rips_betti(np.linalg.norm(circle[:, None] - circle, axis=-1), scale=1.2)
        Betti(1, 1; at scales 1 to 1.73, 6 points, Vietoris–Rips complex; not converged)

    """
    held = _distances(distances)
    n = len(held)
    if not 0 <= dimension <= 3:
        raise ArgumentError("dimension", "0, 1, 2 or 3", str(dimension), "Pass dimension=1 for components and loops.")
    if comb(n, 2) * comb(n, dimension + 2) > _KEYS:
        given = f"{n} points for dimension {dimension}"
        raise ArgumentError(
            "distances", "a complex that can be numbered", given, "Take landmarks, or a lower dimension."
        )
    cone = float(held.max(1).min())
    cut = cone if longest is None else min(float(longest), cone)
    bars = rips_persistence(held, dimension, cut)
    scales = np.unique(np.concatenate([*bars.births, *bars.deaths, [0.0]]))
    scales = scales[np.isfinite(scales)]
    curves = np.stack([_alive(b, d, scales) for b, d in zip(bars.births, bars.deaths, strict=True)], 1)
    nearest = float(np.median((held + np.diag(np.full(n, inf))).min(1)))
    end = inf if cut == cone else cut
    return read(scales, curves, scale, factor, nearest, n, "Vietoris–Rips complex", end)


def _alive(births: Array, deaths: Array, scales: Array) -> Array:
    """How many classes there are at each scale."""
    born, died = (np.searchsorted(np.sort(ends), scales, side="right") for ends in (births, deaths))
    return born - died


def _distances(distances: Tensor | Array) -> Array:
    held = distances.detach().cpu().numpy() if isinstance(distances, Tensor) else np.asarray(distances)
    remedy = "Pass torch.cdist(x, x), or geodesic_distances(x, neighbours).distances."
    if held.ndim != 2 or held.shape[0] != held.shape[1] or not len(held):
        raise DataError("distances", "a square matrix, (n, n)", f"shape {held.shape}", remedy)
    held = held.astype(np.float64)
    rough = 1e-6 * np.abs(held[np.isfinite(held)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):  # inf − inf
        gap = np.where(held == held.T, 0.0, np.abs(held - held.T))
    if np.isnan(held).any() or (held < 0).any() or not (gap <= rough).all() or (np.diag(held) > rough).any():
        given = "entries that are nan or negative, another half, or a diagonal other than zero"
        raise DataError("distances", "a symmetric matrix of distances with zero diagonal", given, remedy)
    made = np.minimum(held, held.T)
    np.fill_diagonal(made, 0.0)
    return made
