"""The benchmark of cells on tiny sizes: the count is checked before it is timed. No time is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lemmata.studies.benchmarks import approximation, cells

pytestmark = pytest.mark.usefixtures("settings_are_kept")


def test_cells_are_counted_and_sampling_misses_some() -> None:
    found, seen = cells.count(cells.network([2, 6, 6, 1]), 3.0)
    assert 0 < seen < found == cells.exactly(cells.network([2, 6, 6, 1]), 3.0).regions


def test_a_wrong_enumeration_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cells.network([2, 6, 6, 1])
    whole = cells.exactly(model, 3.0)
    fewer, cut, open_ = (
        replace(whole, patterns=whole.patterns[1:]),
        replace(whole, offsets=whole.offsets[:-1]),
        replace(whole, undecided=1),
    )
    for broken in (fewer, cut, open_):
        monkeypatch.setattr(cells, "exactly", lambda model, reach, broken=broken: broken)
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            cells.count(model, 3.0)


def test_a_grid_never_sees_more_than_there_is() -> None:
    model = cells.network([2, 5, 5, 1])
    count = cells.exactly(model, 3.0).regions
    assert cells.on_a_grid(model, 3.0, 16) <= 16 and cells.on_a_grid(model, 3.0, 100_000) <= count


def test_the_growth_of_the_cost_is_that_between_the_dearest_and_the_cheapest_window() -> None:
    rounds = [{f"{cells.OURS} 1": 1.0, f"{cells.OURS} 2": 30.0, f"{cells.OURS} 4": 100.0}] * 7
    row = cells._growth(rounds, {1: 10, 2: 100, 4: 1000})
    assert row.ratio == pytest.approx(3.0) and row.met is False


def test_cost_a_cell_and_targets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("WIDTHS", [2, 5, 5, 1]), ("WINDOWS", (1.0, 4.0))):
        monkeypatch.setattr(cells, name, value)
    approximation.main(["--only", "cells", "--repeats", "7", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["target"] for row in rows if row["target"]] == ["≤ 2", "≤ 60"]
    assert [row["contender"] for row in rows[:4]] == [cells.OURS, cells.SAMPLED] * 2 and len(rows) == 6
    assert rows[0]["error"] == 0 < rows[1]["error"] < 1 and rows[4]["note"].startswith("microseconds a cell: ")
