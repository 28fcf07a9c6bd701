"""The benchmark of fits, small: three ways that end at the same weights, and one that does not."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.benchmarks import fits


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SEEDS", 3), ("BATCH", 4), ("STEPS", 2), ("WIDTHS", (4, 700))):
        monkeypatch.setattr(fits, name, value)


def test_rows() -> None:
    rows = list(fits.rows("cpu", 7))
    assert [row.contender for row in rows] == [fits.LOOP, fits.SIDE, fits.RULE] * 2
    assert [row.note for row in rows if row.contender == fits.RULE] == [fits.SIDE, "one by one"]
    assert [row.target for row in rows] == ["", "", "≥ 2", "", "", "≥ 0.9"]
    assert all(row.ratio > 0 and row.milliseconds > 0 for row in rows)
    assert all(row.ratio == 1 for row in rows if row.contender == fits.LOOP)


def test_a_speed_is_the_loop_over_its_own_time() -> None:
    rounds = [{fits.LOOP: 4.0, fits.SIDE: 1.0}] * 3
    inverse = [{fits.LOOP: 1.0, fits.SIDE: 4.0}] * 3
    row = fits.speed_row(("fit", "width"), fits.SIDE, rounds, inverse, fits.Target("≥", 5), "")
    assert row.ratio == 4 and row.milliseconds == 1000 and row.met is False


def test_ways_that_end_elsewhere_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shorter(nets: list, data: tuple) -> None:
        fits.by_hand(nets[:1], data)

    x = torch.ones(2, 3, 4, 2)
    fits.agree(4, "cpu", (x, x.sum(-1, keepdim=True)))
    monkeypatch.setattr(fits, "together", shorter)
    with pytest.raises(RuntimeError, match="width 4: the ways end"):
        fits.agree(4, "cpu", (x, x.sum(-1, keepdim=True)))
