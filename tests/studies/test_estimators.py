"""The matrices with known truth, and coverage with its controls at small sizes."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.curvature import estimators as study

pytestmark = pytest.mark.usefixtures("double")


def test_matrices_have_the_planted_spectra() -> None:
    for name, spectrum in study.SPECTRA.items():
        values = torch.linalg.eigvalsh(study.planted(name))
        torch.testing.assert_close(values, spectrum().double().sort().values, atol=1e-12, rtol=1e-10)
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
