"""The predictions' error rates on synthetic rows with known truth are what their documentation states."""

from __future__ import annotations

import math

import pytest

from lemmata.studies.benchmarks.calibration import Rates, table

DRAWS = 4000
STATED = 0.025
#: Where five (mean) or forty (variance) values of a skewed or heavy-tailed law cannot keep the level: measured and documented.
LARGER = {("mean", "skewed"): 0.115, ("var", "skewed"): 0.12, ("var", "t3"): 0.22}


def allowed(row: Rates) -> float:
    kind = row.prediction.split()[-1]
    if row.prediction.startswith("Scales"):
        return 0.045 if kind == "var" and row.noise != "Gaussian" else STATED
    if kind == "var" and row.noise == "Gaussian":
        return 0.04
    return LARGER.get((kind, row.noise), STATED)


@pytest.fixture(scope="module")
def rows() -> list[Rates]:
    return list(table(DRAWS))


def test_every_prediction_noise_and_place_is_there(rows: list[Rates]) -> None:
    assert {row.prediction.split()[0] for row in rows} == {"Equals", "AtMost", "AtLeast", "Scales", "Distributed"}
    assert {row.noise for row in rows} == {"Gaussian", "skewed", "t3", "any law"}
    assert {row.truth for row in rows} == {"inside", "upper edge", "lower edge", "outside"}


def test_wrong_verdicts_are_as_rare_as_stated(rows: list[Rates]) -> None:
    for row in rows:
        slack = 3 * math.sqrt(max(row.wrong, STATED) * (1 - row.wrong) / DRAWS)
        assert row.wrong < allowed(row) + slack, row


def test_right_verdicts_are_found(rows: list[Rates]) -> None:
    """A rule that never decided would pass the test above."""
    for row in rows:
        if not row.prediction.endswith("var"):
            assert row.truth != "inside" or row.support > 0.9, row
            assert row.truth != "outside" or row.refute > 0.9, row


def test_the_rates_would_show_an_interval_that_is_too_narrow(
    rows: list[Rates], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lemmata.studies.benchmarks.calibration as calibration

    monkeypatch.setattr(calibration, "LEVEL", 0.8)
    narrow = [
        row
        for row in table(DRAWS)
        if row.truth.endswith("edge") and row.prediction == "Equals mean" and row.noise == "Gaussian"
    ]
    assert all(row.wrong > allowed(row) + 0.05 for row in narrow)
