"""The exact laws of random networks, against sums and samples made another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from lemmata.studies.gradient_flow.finite_width import (
    default_linear_one_sixth,
    he_variance_preservation,
    log_moments,
    log_norms,
    nngp_kurtosis,
    relu_norm_law,
    relu_norm_law_variance,
)

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("n", [3, 16])
def test_moments_of_a_linear_layer_by_integration(n: int) -> None:
    """E ln(χ²/n) and its variance by numerical integration of the density."""
    mean = chi2(n).expect(lambda s: np.log(s / n))
    spread = chi2(n).expect(lambda s: (np.log(s / n) - mean) ** 2)
    assert np.allclose(log_moments(n, "linear"), [mean, spread], rtol=1e-6)


def test_moments_of_a_relu_layer_by_sampling() -> None:
    rng, n = np.random.default_rng(0), 6
    weights = rng.normal(size=(200_000, n)) * (2 / n) ** 0.5  # one row meets a unit vector
    squared = np.maximum(weights, 0)
    squared = (squared**2).sum(1)
    logs = np.log(squared[squared > 0])
    mean, spread = log_moments(n, "relu")
    assert abs(logs.mean() - mean) < 4 * logs.std() / len(logs) ** 0.5
    assert abs(logs.var() / spread - 1) < 0.03
    assert abs(logs.mean() - log_moments(n, "linear")[0]) > 0.1


def test_orthogonal_layers_keep_the_norm() -> None:
    draws = torch.Generator().manual_seed(0)
    assert float(log_norms([8] * 5, "linear", True, 50, draws).abs().max()) < 1e-13


def test_the_trials_are_pure_and_their_controls_part() -> None:
    he = dict(gain=2.0, width=8, depth=4, units=8000)
    value = he_variance_preservation(**he, seed=1)
    assert value == he_variance_preservation(**he, seed=1) != he_variance_preservation(**he, seed=2)
    assert abs(value - 1) < 0.1 < abs(he_variance_preservation(**he, seed=1, shift=1.0) - 1)
    sixth = dict(width=64, depth=4, nets=20, seed=1)
    state = torch.random.get_rng_state()
    assert abs(default_linear_one_sixth(**sixth) - 1 / 6) < 0.03
    assert default_linear_one_sixth(**sixth, bias=True) > 0.25
    assert torch.equal(state, torch.random.get_rng_state())
    law = dict(units="relu", width=16, depth=6, nets=2000, seed=1)
    assert abs(relu_norm_law(**law)["value"]) < 0.15 < abs(relu_norm_law(**law, narrow=4)["value"])
    assert abs(relu_norm_law_variance(**law) - 1) < 0.15 < abs(relu_norm_law_variance(**law, narrow=4) - 1)
    output = dict(width=20, depth=2, nets=20000, seed=1)
    assert abs(nngp_kurtosis(**output)["value"] - 1) < 0.15 < abs(nngp_kurtosis(**output, units="linear")["value"] - 1)
