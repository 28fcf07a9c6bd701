r"""Which module breaks a symmetry: a row for each, and the first whose error reaches the output with no later one mending it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan

from .equivariance_results import BROKEN, KEPT, UNKNOWN, LayerEquivariance
from .nestings import floats
from .propagated_actions import Walk, gap


def rows_of(walk: Walk, tolerances: Sequence[float]) -> list[LayerEquivariance]:
    """A row for each module, its representation the one with the smallest error."""
    rows = []
    for (name, ways), tolerance in zip(walk.layers.items(), tolerances, strict=True):
        known = [way for way in ways if not isnan(way.worst)]
        if not known:
            acts = ways[0].name if ways else ""
            rows.append(LayerEquivariance(name, acts, float("nan"), float("nan"), tolerance, UNKNOWN))
            continue
        best = min(known, key=lambda way: way.worst)
        status = KEPT if best.worst <= tolerance else BROKEN
        average = sum(best.errors) / len(best.errors)
        rows.append(LayerEquivariance(name, best.name, best.worst, average, tolerance, status))
    return rows


def blame(
    walk: Walk, rows: Sequence[LayerEquivariance], kept: bool, end: str
) -> tuple[tuple[LayerEquivariance, ...], str | None]:
    """The rows, where a module that later ones mend is not called broken; and the module that breaks the output.

    A later module mends an earlier one if it keeps the symmetry though it depends on what the earlier one puts out: the
    earlier one's representation is then another than those that are known. Modules side by side, such as the branches of
    a residual block, do not mend each other. What depends on what, passes with one module's outputs replaced by noise tell.
    """
    if kept:
        return tuple(replace(row, status=UNKNOWN) if row.status == BROKEN else row for row in rows), None
    named, doubtful, first = list(rows), list[str](), None
    last = max((i for i, row in enumerate(rows) if row.status == KEPT), default=-1)
    for i, row in enumerate(rows):
        if row.status == KEPT or (first is not None and i > last):
            continue
        reached, output = _reached(walk, row.name, rows[i + 1 :])
        if any(later.status == KEPT for later in reached):
            named[i] = replace(row, status=UNKNOWN)
        elif output and first is None:
            if row.status == BROKEN:
                first = row.name
            else:
                doubtful.append(row.name)
    first = first or end
    return tuple(named), f"{first}, or before it from {doubtful[0]} on" if doubtful else first


def _reached(walk: Walk, name: str, later: Sequence[LayerEquivariance]) -> tuple[list[LayerEquivariance], bool]:
    """Which of some modules, and whether the output, depend on what a module puts out."""
    seen, base = walk.tapped(walk.inputs, replaced=name), walk.base

    def differs(found: list, wanted: list, tolerance: float) -> bool:
        return not gap(found, wanted) <= tolerance

    reached = [r for r in later if differs(seen.features.get(r.name, []), base.features[r.name], r.tolerance)]
    return reached, differs(floats(seen.output), floats(base.output), 0.0)
