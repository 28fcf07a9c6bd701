"""The benchmark of errors over groups: both ways compute the same, and a way that does not is refused."""

import pytest
import torch

from lemmata.studies.benchmarks import orbits

pytestmark = pytest.mark.filterwarnings("error")
CASES = list(orbits.cases("cpu"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_both_ways_agree_on_64_elements(case):
    _, model, x, action = case
    assert len(orbits.by_loop(model, x, action)) == 64
    assert orbits.disagreement(model, x, action) < 1e-13


def test_a_way_that_is_wrong_is_refused(monkeypatch):
    monkeypatch.setattr(orbits, "by_passes", lambda model, x, action: [0.0] * 64)
    monkeypatch.setattr(orbits, "cases", lambda device: iter(CASES[1:2]))
    with pytest.raises(ArithmeticError, match="CNN with zeros around: the errors differ"):
        next(orbits.rows("cpu", 7))


def test_a_row_states_the_ratio(monkeypatch):
    monkeypatch.setattr(orbits, "cases", lambda device: iter(CASES[4:5]))
    (row,) = orbits.rows("cpu", 7)
    assert row.rounds == 7 and row.ratio > 0 and row.low <= row.ratio <= row.high and row.target == "≥ 2"
    assert torch.tensor(row.error) < 1e-13
