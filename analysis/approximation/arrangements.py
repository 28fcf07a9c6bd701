"""Arrangements of lines in the plane, counted in integers: what one hidden layer of units cuts it into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ArgumentError

Line = tuple[int, int, int]  # a x + b y + c = 0


@dataclass(frozen=True)
class Arrangement:
    """Counts of a line arrangement in the plane; unbounded edges and cells included."""

    vertices: int
    edges: int
    cells: int


def arrangement(lines: Sequence[Line]) -> Arrangement:
    """Vertices, edges and cells of distinct lines that are not all parallel.

    Every cell then touches a vertex, so the cells are the distinct sign vectors found in the sectors around all vertices. No
    sign is rounded.

    Args:
        lines: integers (a, b, c) of a x + b y + c = 0; for float64 weights see :func:`to_integers`.

    Cost: n² vertices, n signs at each.

    Errors: ``ArgumentError`` for lines that are all parallel.

    Source: Zaslavsky 1975, Facing up to arrangements.

    Example:
        >>> arrangement([(1, 0, 0), (0, 1, 0), (1, 1, -1)])  # a triangle and six unbounded cells
        Arrangement(vertices=3, edges=9, cells=7)

    """
    vertices = {_vertex(p, q) for i, p in enumerate(lines) for q in lines[:i]} - {None}
    if not vertices:
        remedy = "n distinct parallel lines make n + 1 cells."
        raise ArgumentError("lines", "lines of which two meet", f"{len(lines)} without a common point", remedy)
    through = {v: [i for i, line in enumerate(lines) if _at(line, v) == 0] for v in vertices if v}
    cells = {signs for v, meeting in through.items() for signs in _sectors(lines, v, meeting)}
    edges = len(lines) + sum(len(meeting) for meeting in through.values())
    return Arrangement(len(through), edges, len(cells))


def _at(line: Line, point: Line) -> int:
    return sum(a * b for a, b in zip(line, point, strict=True))


def _vertex(p: Line, q: Line) -> Line | None:
    x, y, w = p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]
    if w == 0:
        return None
    divisor = math.gcd(x, y, w) * (1 if w > 0 else -1)
    return x // divisor, y // divisor, w // divisor  # homogeneous, weight positive: one name a point


def _sectors(lines: Sequence[Line], vertex: Line, meeting: Sequence[int]) -> set[bytes]:
    around = [_at(line, vertex) > 0 for line in lines]
    found = set()
    for i in meeting:
        for direction in (1, -1):
            along = (direction * lines[i][1], -direction * lines[i][0])
            for j in meeting:
                around[j] = lines[j][0] * along[0] + lines[j][1] * along[1] > 0
            for side in (False, True):
                around[i] = side
                found.add(bytes(around))
    return found
