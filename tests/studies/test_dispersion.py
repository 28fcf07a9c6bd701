"""Dispersion of softmax: the worst scores by an optimiser, trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from lemmata.studies.approximation import dispersion

pytestmark = pytest.mark.usefixtures("double")


def test_the_worst_scores_are_those_an_optimiser_finds() -> None:
    start = np.random.default_rng(0).random(7)
    found = minimize(lambda s: -softmax(s)[0], start, bounds=[(0, 2)] * 7)
    assert -found.fun == pytest.approx(dispersion.bound(2.0, 7), rel=1e-6)
    assert dispersion.softmax_dispersion(n=7, spread=2, seed=0) == pytest.approx(-found.fun, rel=1e-6)
    least = minimize(lambda s: -(softmax(s) * np.log(softmax(s))).sum(), start, bounds=[(0, 2)] * 7)
    assert np.log(7) - 2 <= least.fun <= dispersion.softmax_dispersion_entropy(n=7, spread=2, seed=0) + 1e-6


def test_a_trained_head_keeps_to_the_bound_unless_its_scores_grow() -> None:
    small = dict(n=20000, nets=2, steps=100, seed=0)
    found = dispersion.softmax_dispersion_trained(**small)
    assert found["value"] == pytest.approx(1, abs=1e-9) and found["weight"] <= found["bound"] < 0.9
    assert dispersion.softmax_dispersion_trained(**small | dict(n=16))["weight"] > 0.95
    grown = dispersion.softmax_dispersion_trained(**small, tempered=True)
    assert grown["value"] > 1.1 and grown["weight"] > 0.99
    assert dispersion.softmax_dispersion(n=100, spread=5, seed=0, tempered=True) > 0.9
