"""The matrices with known truth, and coverage with its controls at small sizes."""

from __future__ import annotations

import pytest
import torch

import lemmata.analysis as la
from lemmata.studies.curvature import estimators as study

pytestmark = pytest.mark.usefixtures("double")


def test_matrices_have_the_planted_spectra() -> None:
    for name, spectrum in study.SPECTRA.items():
        values = torch.linalg.eigvalsh(study.planted(name))
        torch.testing.assert_close(values, spectrum(study.SIZE).double().sort().values, atol=1e-12, rtol=1e-10)
    network = study.planted("network")
    assert torch.equal(network, network.T) and network.shape == (241, 241)
    assert float(torch.linalg.eigvalsh(network)[0]) < 0 < float(network.trace())


@pytest.mark.parametrize("estimator", ["trace", "norm"])
def test_intervals_cover_and_halved_ones_do_not(estimator: str) -> None:
    assert study.interval_coverage(estimator, "geometric", 100, 0) > 0.88
    assert study.interval_coverage(estimator, "geometric", 100, 0, shrink=2.0) < 0.88


def test_entries_and_densities() -> None:
    assert 0.9 < study.interval_coverage_diagonal("flat", 4, 0) < 0.99
    assert study.interval_coverage_diagonal("flat", 4, 0, shrink=2.0) < 0.8
    found = study.density_bound("indefinite", 4, 10, 0)
    assert found["value"] >= 0.9 and found["ratio"] > 1
    assert study.density_bound("indefinite", 4, 10, 0, shrink=50.0)["value"] < 0.5


def test_rotated_operator_has_its_spectrum() -> None:
    spectrum = study.SPECTRA["indefinite"](96).double()
    matrix = study.Rotated(spectrum).dense()
    torch.testing.assert_close(torch.linalg.eigvalsh(matrix), spectrum)
    assert float((matrix - matrix.T).abs().max()) < 1e-14 and float(matrix.diagonal().std()) < 0.5
    assert float((matrix - matrix.diagonal().diag()).norm()) > 0.5 * float(matrix.norm())


def test_logdet_covers_and_a_third_does_not() -> None:
    assert study.interval_coverage_logdet("indefinite", 25, 0) >= 0.84
    assert study.interval_coverage_logdet("indefinite", 25, 0, shrink=3.0) < 0.8


def test_widths_and_the_rival() -> None:
    """The rival's spread without deflation is that of Hutchinson's estimator in closed form."""
    A = study.planted("flat")
    truth = (2 * ((A**2).sum() - (A.diagonal() ** 2).sum())).sqrt()
    assert study.spreads("trace", "flat")[0] == pytest.approx(float(truth))
    assert study.spreads("trace", "spiked")[10] < 0.1 * study.spreads("trace", "spiked")[0]
    for estimator in ("trace", "norm"):
        found = study.interval_width(estimator, "spiked", 5, 0)
        assert 0.5 < found["value"] < 1.5 and found["products"] == 30
        assert study.interval_width(estimator, "spiked", 5, 0, stretch=2.0)["value"] == 2 * found["value"]
        assert study.interval_width(estimator, "spiked", 5, 0, deflated=False)["value"] > 3
    plain = study.plain_half_width("trace", la.Dense(A), 2000, 0)
    assert plain == pytest.approx(1.96 * float(truth) / 2000**0.5, rel=0.1)


def test_residual_intervals_hold_and_moved_ones_do_not() -> None:
    for matrix in ("spiked", "network"):
        found = study.residual_intervals(matrix, 3, 0)
        assert found["value"] == 1 and found["ratio"] > 1
        assert study.residual_intervals(matrix, 3, 0, moved=0.3)["value"] < 1
