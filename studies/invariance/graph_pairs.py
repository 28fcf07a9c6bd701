"""Graphs that the Weisfeiler-Leman test cannot tell apart, by name and from the atlas, and where to draw their nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

import lemmata.analysis as la
from lemmata.studies.data import atlas

Array = np.ndarray


def graph(nodes: int, *edges: str) -> Array:
    """An adjacency of cycles and paths, each a string of nodes "0 1 2" with an edge between each two that follow.

    >>> graph(3, "0 1 2").tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    A = np.zeros((nodes, nodes))
    for walk in edges:
        stops = [int(stop) for stop in walk.split()]
        A[stops[:-1], stops[1:]] = A[stops[1:], stops[:-1]] = 1
    return A


def circulant(nodes: int, *steps: int) -> Array:
    """A ring with skip links: i is joined to i ± s for every step s."""
    i = np.arange(nodes)
    A = np.zeros((nodes, nodes))
    for step in steps:
        A[i, (i + step) % nodes] = A[(i + step) % nodes, i] = 1
    return A


#: Pairs that are not isomorphic and in one class of the test. The carbon skeletons are of two molecules, C₁₀H₁₈.
PAIRS: Mapping[str, tuple[Array, Array]] = {
    "ring of six, two triangles": (circulant(6, 1), graph(6, "0 1 2 0", "3 4 5 3")),
    "decalin, bicyclopentyl": (
        graph(10, "0 1 2 3 4 5 6 7 8 9 0", "0 5"),
        graph(10, "0 1 2 3 4 0", "5 6 7 8 9 5", "0 5"),
    ),
    "prism, utility graph": (graph(6, "0 1 2 0", "3 4 5 3", "0 3", "1 4", "2 5"), graph(6, "0 1 2 3 4 5 0", "0 3", "1 4", "2 5")),
    "rings with skip links": (circulant(13, 1, 2), circulant(13, 1, 3)),
}  # fmt: skip


def path_and_star(nodes: int) -> tuple[Array, Array]:
    """Two trees that one round of the test tells apart."""
    star = np.zeros((nodes, nodes))
    star[0, 1:] = star[1:, 0] = 1
    return graph(nodes, " ".join(map(str, range(nodes)))), star


@cache
def atlas_pairs() -> tuple[Array, ...]:
    """The pairs of graphs in one class of the test, (pairs, 2, n, n) for each number of nodes up to seven."""
    found = [A.cpu().numpy() for A in atlas()]
    pairs = [(found[i], found[j]) for i, j in la.wl_classes(found).pairs.tolist()]
    return tuple(np.array([both for both in pairs if len(both[0]) == n]) for n in sorted({len(A) for A, _ in pairs}))


@cache
def connected(nodes: int) -> tuple[Array, ...]:
    """The connected graphs of so many nodes."""
    found = [A.cpu().numpy() for A in atlas(nodes)]
    return tuple(A for A in found if (np.linalg.matrix_power(A + np.eye(nodes), nodes) > 0).all())


def places(net: Any) -> Any:
    """Where a drawing has its nodes: triangles side by side or one within the other, rings and pairs of rings as such."""
    import networkx

    if not networkx.is_connected(net):
        turn = 2 * math.pi / 3
        return {k: (math.cos(turn * k + 0.5) / 2 + (k // 3 - 0.5) * 1.2, math.sin(turn * k + 0.5) / 2) for k in net}
    if len(net) == 6 and networkx.transitivity(net):
        return networkx.shell_layout(net, [[3, 4, 5], [0, 1, 2]], rotate=0)
    return networkx.circular_layout(net) if len(net) != 10 else networkx.kamada_kawai_layout(net)
