"""Graphs as users have them, read into one disjoint union of integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import DataError

Array = np.ndarray
_FORMS = "an adjacency (n, n), a pair (edges (2, E), number of nodes), or a networkx graph"
_MOST = 1e8  # edges, repeated ones counted


@dataclass(frozen=True, eq=False)
class Disjoint:
    """Several graphs side by side, their nodes numbered through.

    Attributes:
        sizes: nodes of each graph, (G,).
        source, target: the ends of every edge, (E,); an edge that counts twice stands there twice.
        edges: how many edges each graph has, (G,); they stand together.
        labels: what tells nodes apart before any message, (N,), from 0.

    """

    sizes: Array
    source: Array
    target: Array
    edges: Array
    labels: Array

    @cached_property
    def first(self) -> Array:
        """Where each graph's nodes begin, and the number of all, (G + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    @property
    def owner(self) -> Array:
        """The graph of each node, (N,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def adjacency(self, graph: int) -> Array:
        """A of one graph, (n, n): the number of edges to i from j."""
        n, begin, end = int(self.sizes[graph]), int(self.first[graph]), int(self._last[graph])
        own = slice(end - int(self.edges[graph]), end)
        counts = np.zeros((n, n), dtype=np.int64)
        np.add.at(counts, (self.target[own] - begin, self.source[own] - begin), 1)
        return counts

    @cached_property
    def _last(self) -> Array:
        return np.cumsum(self.edges)


def union(graphs: Sequence[Any], features: Sequence[Any] | None = None) -> Disjoint:
    r"""Read graphs, and what their nodes carry, into one disjoint union.

    Args:
        graphs: each an adjacency (n, n) whose entry :math:`A_{ij} \in \{0, 1, 2, \dots\}` is the number of edges to i from j;
            or a pair (edges, n), integers (2, E) with a row of sources and one of targets; or a networkx graph, whose
            attributes are not read. Isolated nodes and loops are nodes and edges like others; repeated edges count.
        features: for each graph an array (n,) or (n, d) of numbers; nodes are told apart where any of them differs at all.

    Errors: ``DataError`` that names the graph: not one of these forms, not square, entries that count nothing, an edge to
    no node, features that do not fit or are not finite.

    Example:
        >>> both = union([np.ones((2, 2)), (np.array([[0, 0], [1, 1]]), 3)])
        >>> both.sizes.tolist(), both.source.tolist(), both.target.tolist()
        ([2, 3], [0, 1, 0, 1, 2, 2], [0, 0, 1, 1, 3, 3])

    """
    if isinstance(graphs, Tensor | np.ndarray) or not isinstance(graphs, Sequence) or not graphs:
        given = type(graphs).__name__ if not isinstance(graphs, Sequence) else f"{len(graphs)} graphs"
        raise DataError("graphs", f"a list of graphs, each {_FORMS}", given, "Pass [graph].")
    read = [_read(graph, f"graphs[{place}]") for place, graph in enumerate(graphs)]
    sizes = np.array([n for n, _ in read], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    source, target = np.concatenate([edges + begin for (_, edges), begin in zip(read, first, strict=True)], 1)
    edges = np.array([found.shape[1] for _, found in read], dtype=np.int64)
    return Disjoint(sizes, source, target, edges, _labels(features, sizes))


def _read(graph: Any, name: str) -> tuple[int, Array]:
    """Number of nodes, and edges (2, E)."""
    if isinstance(graph, tuple | list) and len(graph) == 2 and isinstance(graph[1], int):
        return graph[1], _edges(_numbers(graph[0], name), graph[1], name)
    if hasattr(graph, "is_directed") and hasattr(graph, "edges"):
        index = {node: place for place, node in enumerate(graph)}
        ends = [(index[a], index[b]) for a, b in graph.edges()]
        if not graph.is_directed():
            ends += [(b, a) for a, b in ends if a != b]
        return len(index), np.array(ends, dtype=np.int64).reshape(-1, 2).T
    return _counts(_numbers(graph, name), name)


def _numbers(given: Any, name: str) -> Array:
    found = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if found.dtype.kind not in "biuf" or found.ndim != 2:
        what = f"{type(given).__name__} of shape {found.shape}, {found.dtype}"
        raise DataError(name, _FORMS, what, "Pass its adjacency.")
    return found


def _edges(edges: Array, n: int, name: str) -> Array:
    if edges.shape[0] != 2 or (edges.dtype.kind not in "iu" and edges.size):
        given = f"shape {edges.shape}, {edges.dtype}"
        raise DataError(name, "edges as integers (2, E)", given, "List sources in one row, targets in another.")
    if edges.size and not (edges.min() >= 0 and edges.max() < n):
        given = f"nodes {edges.min()} to {edges.max()}"
        raise DataError(name, f"edges between nodes 0 … {n - 1}", given, "Count all nodes, isolated ones too, from 0.")
    return edges.astype(np.int64)


def _counts(A: Array, name: str) -> tuple[int, Array]:
    if A.shape[0] == 2 != A.shape[1] and A.dtype.kind in "iu":
        remedy = "Pass (edges, n): edges do not tell how many nodes there are."
        raise DataError(name, _FORMS, f"a list of edges, shape {A.shape}, alone", remedy)
    if A.shape[0] != A.shape[1]:
        raise DataError(name, "a square adjacency (n, n)", f"shape {A.shape}", "Pass (edges, n) for a list of edges.")
    bad = ~(np.isfinite(A) & (A >= 0) & (A == np.floor(A)))
    if bad.any():
        given = f"{A[bad][0]} at {tuple(np.argwhere(bad)[0].tolist())}"
        raise DataError(
            name, "numbers of edges, 0, 1, 2, …", given, "Weights are no counts: round them or threshold them."
        )
    if A.sum() > _MOST:
        raise DataError(name, f"at most {_MOST:.0e} edges", f"{A.sum():.3g}", "Pass fewer, or smaller, counts.")
    target, source = np.nonzero(A)
    return len(A), np.repeat(np.stack([source, target]), A[target, source].astype(np.int64), axis=1)


def _labels(features: Sequence[Any] | None, sizes: Array) -> Array:
    if features is None:
        return np.zeros(int(sizes.sum()), dtype=np.int64)
    if len(features) != len(sizes):
        given = f"{len(features)} arrays"
        raise DataError("features", f"one array for each of {len(sizes)} graphs", given, "Pass None for equal nodes.")
    rows = []
    for place, (given, n) in enumerate(zip(features, sizes.tolist(), strict=True)):
        found = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        fits = found.ndim in (1, 2) and len(found) == n and found.dtype.kind in "biuf"
        if not fits or not np.isfinite(found).all():
            what = f"shape {found.shape}, {found.dtype}" + ("" if not fits else ", not all finite")
            raise DataError(
                f"features[{place}]", f"finite numbers (n,) or (n, d), n = {n}", what, "Give each node a row."
            )
        rows.append(found.reshape(n, -1).astype(np.float64) if n else None)
    widths = {row.shape[1] for row in rows if row is not None}
    if len(widths) > 1:
        raise DataError("features", "rows of one width", f"widths {sorted(widths)}", "Pad or cut them to one width.")
    kept = [row for row in rows if row is not None]
    return (
        np.unique(np.concatenate(kept), axis=0, return_inverse=True)[1].ravel() if kept else np.zeros(0, dtype=np.int64)
    )
