"""Betti numbers of a cloud of points, with the range of scales over which they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from ..errors import ArgumentError, DataError
from .alpha import Filtration, alpha_complex

Array = np.ndarray
_DIMENSIONS = 3
_BLINK = 1e-8  # of the extent: ten times what brings points into general position


@dataclass(frozen=True, repr=False, eq=False)
class Betti:
    """Betti numbers β₀, β₁, … at one scale: components, loops, cavities.

    Attributes:
        numbers: (β₀, β₁, …) at ``scale``.
        scale: where they were read.
        plateau: the scales [low, high) over which all of them hold; a number that noise makes holds over a short one.
        scales: every scale at which one of them changes, (m,), from 0.
        curves: the numbers from each of these scales on, (m, dimensions).
        points: how many distinct points the complex has.
        method: the complex.
        converged: whether the plateau's ends differ by the factor asked for.

    """

    numbers: tuple[int, ...]
    scale: float
    plateau: tuple[float, float]
    scales: Tensor
    curves: Tensor
    points: int
    method: str
    converged: bool

    @property
    def total(self) -> int:
        """The sum of the numbers, the size of the topology."""
        return sum(self.numbers)

    def at(self, scale: float) -> tuple[int, ...]:
        """The numbers at another scale."""
        place = int(torch.searchsorted(self.scales, torch.tensor(float(scale), dtype=self.scales.dtype), right=True))
        return tuple(self.curves[max(0, place - 1)].tolist())

    def __repr__(self) -> str:
        low, high = self.plateau
        note = "" if self.converged else "; not converged"
        numbers = ", ".join(map(str, self.numbers))
        return f"Betti({numbers}; at scales {low:.3g} to {high:.3g}, {self.points} points, {self.method}{note})"

    def plot(self, ax: Any = None) -> Any:
        """The numbers against the scale, their plateau shaded; returns the axes (new ones if None)."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        low, high = self.plateau
        last = float(self.scales[-1])
        ends = torch.cat([self.scales, torch.tensor([1.2 * max(last, low)])])
        for k, curve in enumerate(self.curves.T):
            ax.stairs(curve.numpy(), ends.numpy(), baseline=None, label=f"β{'₀₁₂₃'[k]}", linewidth=1.5)
        ax.axvspan(low, min(high, float(ends[-1])), color="0.5", alpha=0.15)
        ax.set(xlabel="scale", ylabel="Betti number", yscale="symlog")
        ax.legend()
        return ax

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold, if infinite ends are let through."""
        lists = {"numbers": list(self.numbers), "plateau": list(self.plateau)}
        return {**vars(self), **lists, "scales": self.scales.tolist(), "curves": self.curves.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Betti:
        """The inverse of :meth:`to_dict`."""
        tensors = {
            "scales": torch.tensor(record["scales"], dtype=torch.float64),
            "curves": torch.tensor(record["curves"], dtype=torch.int64),
        }
        return cls(**{**record, "numbers": tuple(record["numbers"]), "plateau": tuple(record["plateau"]), **tensors})


def betti(points: Tensor | Array, scale: float | None = None, factor: float = 2.0) -> Betti:
    r"""The Betti numbers of a cloud of points on a line, in a plane or in space, by its alpha complex.

    .. math:: \beta_k(\alpha) = \dim H_k\Bigl(\bigcup_i B(x_i, \alpha);\ \mathbb{F}_2\Bigr), \qquad
        \sum_k (-1)^k \beta_k = \sum_k (-1)^k \#\{\text{$k$-simplices}\}

    at every scale α at once: β₀ from the minimal spanning tree, the highest from the spanning tree of the gaps between
    the balls (Alexander duality), the one between from Euler's formula. In d dimensions there are d numbers.

    Args:
        points: (n, d) with d at most 3. Copies of a point count once.
        scale: the radius α to read at. If None: the first plateau whose ends differ by ``factor``, from half the median
            distance of nearest neighbours on, where the sample is no longer a set of single points.
        factor: how long numbers must hold, as a ratio of scales, for ``converged``.

    Shapes: α in the units of the points. The numbers at one scale are exact; the plateau says how far they can be trusted:
    a sample that has a point within r of each of a shape's points, and none further from it than r, has the shape's
    numbers for all α in a range around r, if r is small against its curvature, gaps and necks.

    Cost: O(n log n) in the plane: 10⁴ points in about half a second. In space up to O(n²), but about linear for surfaces.

    Errors: ``DataError`` for points that are not finite numbers, none, or in more than 3 dimensions (take
    :func:`rips_betti` there); ``ArgumentError`` for a scale or factor outside its domain; ``NumericsError`` where rounding
    cannot tell two points apart.

    Source: Edelsbrunner & Mücke 1994, Three-dimensional alpha shapes; Delfinado & Edelsbrunner 1995, An incremental
    algorithm for Betti numbers of simplicial complexes on the 3-sphere; Niyogi, Smale & Weinberger 2008, Finding the
    homology of submanifolds with high confidence from random samples.

    Example:
        A circle has one component and one loop, until the balls fill it at its radius:

        >>> angles = torch.arange(40) * (2 * torch.pi / 40)
        >>> betti(torch.stack([angles.cos(), angles.sin()], 1))
        Betti(1, 1; at scales 0.0785 to 1, 40 points, alpha complex)

    """
    cloud = distinct(points)
    if cloud.shape[1] > _DIMENSIONS:
        remedy = "Pass rips_betti(geodesic_distances(points, neighbours), scale)."
        raise DataError("points", f"points in at most {_DIMENSIONS} dimensions", f"{cloud.shape[1]} dimensions", remedy)
    filtration = alpha_complex(cloud)
    scales, curves = _curves(filtration, cloud.shape[1])
    reach = np.linalg.norm(cloud - cloud.mean(0), axis=1).max()
    # Balls that all hold one point make a contractible union; and what lasts no longer than general position can move a
    # scale is its doing.
    curves[scales >= reach] = [1] + [0] * (cloud.shape[1] - 1)
    lasting = np.append(np.diff(scales) > _BLINK * reach, True)
    scales, curves = scales[lasting], curves[lasting]
    scales[0] = 0.0
    nearest = np.full(len(cloud), np.inf)
    if filtration.dimension:
        for side in filtration.simplices[1].T:
            np.minimum.at(nearest, side, filtration.enters[1])
    return read(scales, curves, scale, factor, float(np.median(nearest)), len(cloud), "alpha complex")


def distinct(points: Tensor | Array) -> Array:
    """The points, each once, as float64."""
    held = points.detach().cpu().numpy() if isinstance(points, Tensor) else np.asarray(points)
    if held.ndim != 2 or not held.size or held.dtype.kind not in "fiu":
        given = f"shape {held.shape}, {held.dtype}"
        raise DataError("points", "real numbers, (points, coordinates), at least one", given, "Flatten each to a row.")
    if not np.isfinite(held).all():
        given = f"{int((~np.isfinite(held)).any(1).sum())} points with nan or inf"
        raise DataError("points", "finite coordinates", given, "Leave these points out.")
    return np.unique(held.astype(np.float64), axis=0)


def read(
    scales: Array,
    curves: Array,
    scale: float | None,
    factor: float,
    start: float,
    points: int,
    method: str,
    end: float = np.inf,
) -> Betti:
    """A result at the scale asked for, or on the first long plateau after ``start``; curves, (m, dimensions), are known to ``end``."""
    if scale is not None and not 0 <= scale < np.inf:
        raise ArgumentError("scale", "a finite number ≥ 0, or None", str(scale), "Pass None to have one chosen.")
    if not factor > 1:
        raise ArgumentError("factor", "a number above 1, a ratio of scales", str(factor), "Pass factor=2.")
    kept = np.concatenate([[True], (np.diff(curves, axis=0) != 0).any(1)])
    scales, curves = scales[kept], curves[kept]
    ends = np.concatenate([scales[1:], [end]])
    if scale is None:
        begins = np.maximum(scales, min(start, scales[-1]))
        place = int(np.argmax((ends > begins) & (ends > factor * begins)))  # the last one has no end
        scale = float(begins[place] * 1.5 if np.isinf(ends[place]) else (begins[place] * ends[place]) ** 0.5)
    place = int(np.searchsorted(scales, scale, side="right")) - 1
    low, high = float(scales[place]), float(ends[place])
    numbers, tensors = tuple(curves[place].tolist()), (torch.from_numpy(scales), torch.from_numpy(curves))
    return Betti(numbers, float(scale), (low, high), *tensors, points, method, high > factor * low)


def _curves(filtration: Filtration, dimensions: int) -> tuple[Array, Array]:
    """Every scale, and the numbers from it on."""
    enters = [np.sort(values) for values in filtration.enters]
    scales = np.unique(np.concatenate(enters))
    count = [np.searchsorted(values, scales, side="right") for values in enters]
    curves = np.zeros((len(scales), dimensions), dtype=np.int64)
    if not filtration.dimension:
        curves[:, 0] = 1
        return scales, curves
    merges = np.sort(forest(filtration.simplices[1], filtration.enters[1], count[0][-1]))
    curves[:, 0] = count[0] - np.searchsorted(merges, scales, side="right")
    euler = sum((-1) ** k * number for k, number in enumerate(count))
    if filtration.dimension == 2:
        curves[:, 1] = curves[:, 0] - euler
    if filtration.dimension == 3:
        curves[:, 2] = _gaps(filtration, scales)
        curves[:, 1] = curves[:, 0] + curves[:, 2] - euler
    return scales, curves


def forest(edges: Array, weights: Array, nodes: int) -> Array:
    """The weights of a minimal spanning forest's edges; ranks stand for weights, since a zero would be no edge."""
    order = np.argsort(weights, kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    graph = csr_array((ranks, tuple(edges.T)), shape=(nodes, nodes))
    return weights[order[minimum_spanning_tree(graph).data.astype(np.int64) - 1]]


def _gaps(filtration: Filtration, scales: Array) -> Array:
    """The bounded gaps between the balls at each scale: cells not yet filled, joined through facets not yet there."""
    cells, facets = filtration.simplices[-1], filtration.simplices[-2]
    size, n = cells.shape[1], int(cells.max()) + 1
    sides = np.concatenate([np.delete(cells, left_out, 1) for left_out in range(size)])
    keys = np.ravel_multi_index(tuple(sides.T), (n,) * (size - 1))
    own = np.ravel_multi_index(tuple(facets.T), (n,) * (size - 1))
    ordered = np.argsort(own)
    facet = ordered[np.searchsorted(own, keys, sorter=ordered)]
    by_facet = np.argsort(facet, kind="stable")
    owner, facet = np.tile(np.arange(len(cells)), size)[by_facet], facet[by_facet]
    second = np.concatenate([[False], facet[1:] == facet[:-1]])
    pairs = np.full((len(facets), 2), len(cells))  # the last node is the outside
    pairs[facet[~second], 0] = owner[~second]
    pairs[facet[second], 1] = owner[second]
    heights = filtration.enters[-2]
    joins = np.sort(-forest(*_widest(np.sort(pairs, 1), -heights), len(cells) + 1))
    empty = len(cells) - np.searchsorted(np.sort(filtration.enters[-1]), scales, side="right")
    return empty - (len(joins) - np.searchsorted(joins, scales, side="right"))


def _widest(pairs: Array, weights: Array) -> tuple[Array, Array]:
    """Each pair once, with its least weight: a cell at a corner has several facets on the outside."""
    order = np.lexsort((weights, pairs[:, 1], pairs[:, 0]))
    kept = np.concatenate([[True], (np.diff(pairs[order], axis=0) != 0).any(1)])
    return pairs[order][kept], weights[order][kept]
