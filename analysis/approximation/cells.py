"""A polygon cut again and again: the half-edges of a planar complex, and the units' values at its vertices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NumericsError
from .written_out import Cut, Track, columns

Indices = NDArray[np.intp]
OUTSIDE = 0  # the cell around the window
_COINCIDENT = 2.0**-36  # what is taken for zero, of a unit's largest value: kinks that differ by this much are one


class Table:
    """Rows of numbers that grow along the last axis, in place while there is room."""

    def __init__(self, start: NDArray[Any]) -> None:
        self._all, self.count = start.copy(), start.shape[-1]

    @property
    def rows(self) -> NDArray[Any]:
        """What there is, as a view."""
        return self._all[..., : self.count]

    def append(self, new: NDArray[Any]) -> None:
        """Add columns; room that is not used yet takes no memory."""
        total = self.count + new.shape[-1]
        if total > self._all.shape[-1]:
            larger = np.empty((*self._all.shape[:-1], max(4 * self.count, total)), dtype=self._all.dtype)
            larger[..., : self.count] = self.rows
            self._all = larger
        self._all[..., self.count : total] = new
        self.count = total


class Points:
    """Tracks of several sources at the vertices, which are added together."""

    def __init__(self, tracks: dict[int, Track]) -> None:
        self.tables = {j: (Table(track.value), Table(track.error)) for j, track in tracks.items()}

    def track(self, j: int) -> Track:
        """Values and errors of one source, as views."""
        value, error = self.tables[j]
        return Track(value.rows, error.rows)

    def add(self, cut: Cut, start: Indices, end: Indices) -> None:
        """New points, between two vertices each."""
        for j, tables in self.tables.items():
            track = self.track(j)
            for table, new in zip(tables, cut.between(columns(track, start), columns(track, end)), strict=True):
                table.append(new)


@dataclass(frozen=True)
class Loops:
    """The cells as loops of vertices, one after the other: cell i has corners[offsets[i] : offsets[i + 1]], anticlockwise."""

    corners: Indices
    offsets: Indices
    half_edges: Indices


class Complex:
    r"""A subdivision of a convex polygon into convex cells, as half-edges, cut by the units of one layer after another.

    A half-edge runs from its origin along the border of its cell, which is to its left; its twin runs back along the
    neighbour's. Rows of ``half``: origin, twin, next, previous, cell. Rows of ``edges``: one of the two half-edges, the layer
    that drew it (−1 for the window's border), start and end in the direction of that half-edge, and the ends of a longer
    segment on the same line, on which the units of the present layer are affine: new vertices are placed between those, for
    on short segments rounding would grow from one to the next.
    """

    def __init__(self, corners: int) -> None:
        ring = np.arange(corners)
        after, before = np.roll(ring, -1), np.roll(ring, 1)
        inner = np.stack([ring, ring + corners, after, before, np.full(corners, 1)])
        outer = np.stack([after, ring, before + corners, after + corners, np.full(corners, OUTSIDE)])
        self.half = Table(np.concatenate([inner, outer], axis=1))
        self.edges = Table(np.stack([ring, np.full(corners, -1), ring, after, ring, after]))
        self.vertices, self.cells, self.layer = corners, 2, -1

    def begin(self, z: Track) -> None:
        """The units of the next layer, with their values at the vertices, are affine on the present cells."""
        self.layer += 1
        self.edges.rows[4:] = self.edges.rows[2:4]
        self.within = Table(np.arange(self.cells))  # for each cell the one before this layer that it is part of
        self.tolerance = _COINCIDENT * np.abs(z.value).max(axis=1)

    def cut(self, unit: int, track: int, points: Points) -> int:
        """Cut all cells in which a unit changes sign; returns how many signs are left open, by rounding or as nearly zero."""
        z = points.track(track)
        one = Track(z.value[unit], z.error[unit])
        signs = (np.sign(one.value) * (np.abs(one.value) > self.tolerance[unit])).astype(np.int8)
        known = (one.value == 0) & (one.error == 0)
        undecided = int((one.hidden | ((signs == 0) & ~known)).sum())
        if not signs.max() > 0 > signs.min():
            return undecided
        start, end = self.edges.rows[2:4]
        crossed = np.flatnonzero(signs[start] * signs[end] < 0)
        points.add(*self._places(crossed, one))
        for table in points.tables[track]:
            table.rows[unit, len(signs) :] = 0.0
        leaving = self._split(crossed)
        touched = bool((signs == 0).any())
        signs = np.append(signs, np.zeros(len(crossed), np.int8))
        self._divide(np.flatnonzero(signs[self.half.rows[0]] == 0) if touched else leaving, signs, crossed)
        return undecided

    def _places(self, crossed: Indices, z: Track) -> tuple[Cut, Indices, Indices]:
        """Where the unit vanishes on some edges: on their longer segments, if it changes sign on these."""
        start, end, far_start, far_end = self.edges.rows[2:, crossed]
        long = z.value[far_start] * z.value[far_end] < 0
        start, end = np.where(long, far_start, start), np.where(long, far_end, end)
        return Cut.of((z.value[start], z.error[start]), (z.value[end], z.error[end])), start, end

    def _split(self, crossed: Indices) -> Indices:
        """Put a new vertex on each of some edges; returns the half-edges that leave them."""
        half, count = self.half.rows, len(crossed)
        ahead, drawn, _, end, far_start, far_end = self.edges.rows[:, crossed]
        back, new = half[1, ahead], self.vertices + np.arange(count)
        on, home = half.shape[1] + np.arange(count), half.shape[1] + count + np.arange(count)
        # ahead: start → new, on: new → end; back: end → new, home: new → start
        following = np.concatenate([half[2, ahead], half[2, back]])
        pairs = ((new, new), (back, ahead), None, (ahead, back), (half[4, ahead], half[4, back]))
        rows = [following if pair is None else np.concatenate(pair) for pair in pairs]
        half[1, ahead], half[1, back] = home, on
        half[3, following] = np.concatenate([on, home])
        half[2, ahead], half[2, back] = on, home
        self.half.append(np.stack(rows))
        self.edges.rows[3, crossed] = new
        self.edges.append(np.stack([on, drawn, new, end, far_start, far_end]))
        self.vertices += count
        return np.concatenate([on, home])

    def _divide(self, leaving: Indices, signs: NDArray[np.int8], crossed: Indices) -> None:
        """An edge through each cell with both signs, from where + turns to 0 to where 0 turns to +."""
        half = self.half.rows
        leaving = leaving[half[4, leaving] != OUTSIDE]
        before, after = (signs[half[0, half[row, leaving]]] for row in (3, 2))
        falls = leaving[before > 0]  # the first vertex on the line, behind the positive part
        rises = leaving[after > 0]  # the last one, before it
        falls = falls[self._beyond(falls, 2, signs) < 0]
        rises = rises[self._beyond(rises, 3, signs) < 0]
        falls, rises = (some[np.argsort(half[4, some])] for some in (falls, rises))
        cells = half[4, falls]
        if not np.array_equal(cells, half[4, rises]) or (np.diff(cells) == 0).any():
            remedy = "Move or scale the window: kinks nearly coincide there, closer than float64 can tell."
            given = "one that it seems to cut more often"
            raise NumericsError("window", "cells that a line cuts in two", given, remedy)
        self._link(falls, rises, self._longer(half[0, rises], half[0, falls], cells, crossed))

    def _beyond(self, here: Indices, row: int, signs: NDArray[np.int8]) -> NDArray[np.int8]:
        """The first sign other than 0, from the origins of some half-edges on or back."""
        half, here = self.half.rows, self.half.rows[row, here]
        while (zero := signs[half[0, here]] == 0).any():
            here = np.where(zero, half[row, here], here)
        return signs[half[0, here]]

    def _longer(self, start: Indices, end: Indices, cells: Indices, crossed: Indices) -> tuple[Indices, Indices]:
        """The ends of the line through the cells before this layer, where it meets their borders at two new vertices."""
        new = self.vertices - len(crossed) + np.arange(len(crossed))
        border = self.edges.rows[1, crossed] < self.layer
        ahead = self.edges.rows[0, crossed[border]]
        sides = np.concatenate([ahead, self.half.rows[1, ahead]])
        old, met = self.within.rows[self.half.rows[4, sides]], np.concatenate([new[border]] * 2)
        order = np.argsort(old, kind="stable")
        old, met = old[order], met[order]
        twice = np.flatnonzero(np.bincount(old, minlength=self.cells)[old[:-1]] == 2) if len(old) else old
        twice = twice[old[twice] == old[twice + 1]]
        ends = np.full((2, self.cells), -1)
        ends[:, old[twice]] = met[twice], met[twice + 1]
        found = ends[:, self.within.rows[cells]]
        return np.where(found[0] < 0, start, found[0]), np.where(found[0] < 0, end, found[1])

    def _link(self, falls: Indices, rises: Indices, longer: tuple[Indices, Indices]) -> None:
        half, count = self.half.rows, len(falls)
        low, high = half.shape[1] + np.arange(count), half.shape[1] + count + np.arange(count)
        old, new = half[4, falls], self.cells + np.arange(count)
        start, end, last_low, last_high = half[0, rises], half[0, falls], half[3, rises], half[3, falls]
        half[2, last_low], half[3, falls] = low, low  # low: start → end, before the negative part
        half[2, last_high], half[3, rises] = high, high
        rows = ((start, end), (high, low), (falls, rises), (last_low, last_high), (old, new))
        self.half.append(np.stack([np.concatenate(pair) for pair in rows]))
        self.edges.append(np.stack([low, np.full(count, self.layer), start, end, *longer]))
        self.within.append(self.within.rows[old])
        self.cells += count
        half, here, names = self.half.rows, rises.copy(), new
        while len(here):  # round the positive parts, one step in all of them at a time
            half[4, here] = names
            here = half[2, here]
            left = half[4, here] != names
            here, names = here[left], names[left]

    def loops(self) -> Loops:
        """All cells, each a walk along its half-edges."""
        half = self.half.rows
        first = np.zeros(self.cells, dtype=np.intp)
        first[half[4]] = np.arange(half.shape[1])
        rank = np.full(half.shape[1], -1)
        here, step, left = first[1:], 0, np.arange(1, self.cells)
        while len(here):
            rank[here] = step
            here, step = half[2, here], step + 1
            going = here != first[left]
            here, left = here[going], left[going]
        inside = np.flatnonzero(half[4] != OUTSIDE)
        if (rank[inside] < 0).any():
            remedy = "Report the model and the window: this is a fault of the enumeration."
            raise NumericsError("cells", "one loop of edges round each", "an edge on none", remedy)
        order = inside[np.lexsort([rank[inside], half[4, inside]])]
        sizes = np.bincount(half[4, order], minlength=self.cells)[1:]
        return Loops(half[0, order], np.concatenate([[0], np.cumsum(sizes)]), order)
