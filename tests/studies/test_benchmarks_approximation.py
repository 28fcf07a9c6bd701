"""The benchmark of cells on tiny sizes: the count is checked before it is timed. No time is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lemmata.studies.benchmarks import approximation, cells

pytestmark = pytest.mark.usefixtures("settings_are_kept")


def test_cells_are_counted_and_sampling_misses_some() -> None:
    rows, count = cells.measure([2, 6, 6, 1], 2)
    assert [row.contender for row in rows] == [cells.OURS, cells.SAMPLED]
    assert rows[0].error == 0 < rows[1].error < 1 and rows[0].note == f"{count} cells, exact"


def test_a_wrong_enumeration_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cells.exactly(cells.network([2, 6, 6, 1]))
    for broken in (replace(whole, patterns=whole.patterns[1:]), replace(whole, offsets=whole.offsets[:-1])):
        monkeypatch.setattr(cells, "exactly", lambda model, broken=broken: broken)
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            cells.measure([2, 6, 6, 1], 2)


def test_a_grid_never_sees_more_than_there_is() -> None:
    model = cells.network([2, 5, 5, 1])
    count = cells.exactly(model).regions
    assert cells.on_a_grid(model, 16) <= 16 and cells.on_a_grid(model, 100_000) <= count


def test_cost_a_cell_and_targets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("WIDTH", 4), ("DEPTHS", (1, 2)), ("WIDE", 5)):
        monkeypatch.setattr(cells, name, value)
    approximation.main(["--only", "cells", "--repeats", "7", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["target"] for row in rows if row["target"]] == ["≤ 2", "≤ 60"]
    assert rows[4]["note"].startswith("microseconds a cell: ") and len(rows) == 8
