"""Distances along a cloud of points: steps in the graph of nearest neighbours, from landmarks that cover it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from ..errors import ArgumentError
from .betti import Array, distinct


@dataclass(frozen=True, eq=False)
class Geodesics:
    """Steps between landmarks of a cloud.

    Attributes:
        distances: steps between landmarks, (m, m); infinite between components.
        landmarks: the landmarks, (m, d).
        cover: the most steps from a point to the landmark nearest to it.
        components: how many the whole graph has.
        points: how many distinct points the cloud has.
        neighbours: how many each point was joined to.

    """

    distances: Tensor
    landmarks: Tensor
    cover: int
    components: int
    points: int
    neighbours: int


def geodesic_distances(points: Tensor | Array, neighbours: int = 14, landmarks: int = 300) -> Geodesics:
    r"""The number of steps between points along the graph that joins each to its nearest neighbours.

    .. math:: d(i, j) = \min \{\, s : i = i_0 \sim i_1 \sim \dots \sim i_s = j \,\}, \qquad
        i \sim j \text{ if one is among the $k$ nearest of the other}

    The measure has no unit: it is the same however a layer stretches the cloud as a whole, and so can be compared between
    layers. It depends on the density: fewer neighbours tear a cloud, more of them close its gaps.

    Args:
        points: (n, d), in any dimension. Copies of a point count once.
        neighbours: k, at least 1.
        landmarks: the most points to keep; each is as many steps as possible from those before (maxmin). All are kept if
            they are no more.

    Cost: a search tree, and one breadth-first pass over n k edges a landmark.

    Errors: ``ArgumentError`` for a number below 1; ``DataError`` for points that are none, or not finite.

    Source: Naitzat, Zhitnikov & Lim 2020, Topology of deep neural networks, for k and the steps; de Silva & Carlsson
    2004, Topological estimation using witness complexes, for maxmin.

    Example:
        Two pairs, apart with one neighbour each and joined with two:

        >>> pairs = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
        >>> [geodesic_distances(pairs, neighbours).components for neighbours in (1, 2)]
        [2, 1]

    """
    for name, value in (("neighbours", neighbours), ("landmarks", landmarks)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(name, "an integer of at least 1", repr(value), f"Pass {name}=14.")
    cloud = distinct(points)
    n, k = len(cloud), min(neighbours, len(cloud) - 1)
    nearest = cKDTree(cloud).query(cloud, k + 1)[1].reshape(n, k + 1)
    rows = np.repeat(np.arange(n), k + 1)
    graph = csr_array((np.ones(rows.size), (rows, nearest.ravel())), shape=(n, n))
    graph = csr_array(graph + graph.T)  # both ways, once: otherwise every search would transpose it
    steps = np.full(n, np.inf)
    chosen: list[int] = []
    found: list[Array] = []
    while len(chosen) < min(landmarks, n):
        chosen.append(int(np.argmax(steps)))
        found.append(_steps(graph, chosen[-1]))
        steps = np.minimum(steps, found[-1])
    between = np.stack(found)[:, chosen]
    components = connected_components(graph, directed=False)[0]
    cover = int(steps[np.isfinite(steps)].max())
    return Geodesics(torch.from_numpy(between), torch.from_numpy(cloud[chosen]), cover, components, n, k)


def _steps(graph: csr_array, start: int) -> Array:
    """The steps from a point to each, (n,). A breadth-first order lists points by their steps, and parents in this order."""
    order, parent = breadth_first_order(graph, start)
    place = np.empty(graph.shape[0], dtype=np.int64)
    place[order] = np.arange(len(order))
    above, ends = place[parent[order[1:]]], [0, 1]
    while ends[-1] < len(order):
        ends.append(1 + int(np.searchsorted(above, ends[-1])))
    steps = np.full(graph.shape[0], np.inf)
    steps[order] = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    return steps
