"""Rates against exact laws, ordinary least squares of scipy, and curves that follow no one law."""

from __future__ import annotations

import json
from math import exp, log

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from lemmata.analysis import LemmataError, Rate, geometric_rate, rate
from lemmata.analysis.errors import ArgumentError, DataError

SIZES = [4, 8, 16, 32, 64, 128]


def noisy(power: float, seeds: int, seed: int = 0, tails: float = 0.3) -> torch.Tensor:
    """Errors with log-Cauchy-like noise: they have no mean, their logarithms a heavy-tailed law."""
    draws = np.random.default_rng(seed)
    noise = tails * draws.standard_t(3, (len(SIZES), seeds))
    return torch.from_numpy(np.array(SIZES, float)[:, None] ** power * np.exp(noise))


def test_without_seeds_it_is_least_squares() -> None:
    errors = noisy(-1.5, 1)[:, 0]
    truth = stats.linregress(np.log(SIZES), np.log(errors.numpy()))
    found = rate(SIZES, errors)
    assert found.slope == pytest.approx(truth.slope, rel=1e-12)
    assert found.stderr == pytest.approx(truth.stderr, rel=1e-10) and found.dof == 4
    half = stats.t.ppf(0.975, 4) * truth.stderr
    assert found.interval() == pytest.approx((truth.slope - half, truth.slope + half))
    assert found(10.0) == pytest.approx(exp(truth.intercept + truth.slope * log(10)))


def test_with_seeds_it_is_a_t_interval_of_slopes() -> None:
    errors = noisy(-1.0, 12)
    slopes = [stats.linregress(np.log(SIZES), np.log(errors[:, s].numpy())).slope for s in range(12)]
    found = rate(SIZES, errors)
    assert found.slope == pytest.approx(np.mean(slopes)) and found.stderr == pytest.approx(stats.sem(slopes))
    assert found.dof == 11 and found.replicates == 12 and found.method == "slopes of seeds"


@pytest.mark.parametrize("seeds", [1, 8])
def test_the_interval_covers(seeds: int) -> None:
    """95 %, over 400 data sets: binomial limits at four standard errors. One error a size takes Gaussian noise."""
    hits = 0
    for k in range(400):
        errors = noisy(-0.5, seeds, seed=k)
        if seeds == 1:
            draws = np.random.default_rng(k)
            errors = torch.from_numpy(np.array(SIZES) ** -0.5 * np.exp(0.3 * draws.standard_normal(len(SIZES))))
        low, high = rate(SIZES, errors).interval()
        hits += low <= -0.5 <= high
    assert 0.95 - 4 * 0.011 <= hits / 400 <= 0.95 + 4 * 0.011


def test_equivalence_is_no_failure_to_reject() -> None:
    errors = noisy(-1.0, 30, tails=0.1)
    assert rate(SIZES, errors).equivalent(-1, within=0.1) == "holds"
    assert rate(SIZES, errors).equivalent(-0.7, within=0.1) == "fails"
    assert rate(SIZES, noisy(-1.0, 3, tails=0.5)).equivalent(-1, within=0.05) == "undecided"


def test_a_curve_that_bends_is_said_to_drift() -> None:
    """n⁻² + n⁻¹ᐟ²: the exponent falls from two to a half, and the line between is neither."""
    x = np.array(SIZES, float)
    draws = np.random.default_rng(0)
    errors = torch.from_numpy((10 * x**-2 + x**-0.5)[:, None] * np.exp(0.02 * draws.standard_normal((6, 8))))
    found = rate(SIZES, errors)
    assert found.drifts and found.drift > 0.3 and "it drifts" in repr(found)
    assert list(found.local) == sorted(found.local) and found.local[0] < -1 and found.local[-1] > -0.7
    assert not rate(SIZES, noisy(-1.0, 8)).drifts


def test_geometric() -> None:
    depths = [1, 2, 3, 5, 8]
    found = geometric_rate(depths, torch.tensor([3 * 0.25**m for m in depths], dtype=torch.float64))
    assert found.factor == pytest.approx(0.25) and not found.drifts and found.law == "geometric"
    assert found(4) == pytest.approx(3 * 0.25**4) and "exp" in repr(found)
    assert rate(SIZES, torch.tensor([n**-2.0 for n in SIZES], dtype=torch.float64)).factor == pytest.approx(0.25)
    assert rate(depths, torch.tensor([0.25**m for m in depths], dtype=torch.float64)).local[0] > -2.1  # no power law
    assert rate(depths, torch.tensor([0.25**m for m in depths], dtype=torch.float64)).drift < -3


def test_the_order_of_sizes_does_not_matter() -> None:
    errors = noisy(-1.0, 4)
    order = [3, 0, 5, 1, 4, 2]
    assert rate([SIZES[i] for i in order], errors[order]) == rate(SIZES, errors)


def test_three_sizes_have_no_drift() -> None:
    found = rate([1, 2, 4], torch.tensor([1.0, 0.5, 0.26]))
    assert found.drift is None and found.drift_interval() is None and not found.drifts


def test_record_and_picture() -> None:
    found = rate(SIZES, noisy(-1.0, 4))
    assert Rate.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    ax = found.plot(Figure().subplots(), predicted=-1.0)
    assert ax.get_xscale() == "log" and len(ax.lines) == 3 and found.plot().lines
    assert geometric_rate([1, 2, 3], torch.tensor([1.0, 0.5, 0.2])).plot().get_xscale() == "linear"


@pytest.mark.parametrize(
    ("name", "call", "remedy"),
    [
        ("x", lambda: rate([1, 2], torch.ones(2)), "p ≥ 3"),
        ("x", lambda: rate([1, 2, 2], torch.ones(3)), "p ≥ 3"),
        ("x", lambda: rate([0, 1, 2], torch.ones(3)), "geometric_rate"),
        ("errors", lambda: rate([1, 2, 3], torch.ones(4)), "p ≥ 3"),
        ("errors", lambda: rate([1, 2, 3], [1.0, 1.0, 1.0]), "p ≥ 3"),
        ("errors", lambda: rate([1, 2, 3], torch.tensor([1.0, 0.0, 1.0])), "leave out"),
        ("errors", lambda: rate([1, 2, 3], torch.tensor([1.0, float("nan"), 1.0])), "diverged"),
    ],
)
def test_bad_input(name: str, call, remedy: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    assert caught.value.name == name and remedy in str(caught.value)


def test_bad_options() -> None:
    found = rate(SIZES, noisy(-1.0, 4))
    with pytest.raises(ArgumentError, match="within.*how far off"):
        found.equivalent(-1, within=0.0)
    with pytest.raises(LemmataError, match="level"):
        found.interval(1.0)


@pytest.mark.parametrize("power", [-0.37, -1.7, -6.0])
def test_an_exact_law_does_not_drift_by_rounding(power: float) -> None:
    for sizes in ([3, 5, 7, 11, 13, 17], [2, 3, 5, 9, 100, 1000], [1, 10, 20, 30]):
        found = rate(sizes, 0.3 * torch.tensor(sizes, dtype=torch.float64) ** power)
        assert not found.drifts and found.slope == pytest.approx(power, abs=1e-12)
