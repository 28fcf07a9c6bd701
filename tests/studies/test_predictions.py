"""Predictions: known bands, and error rates calibrated on synthetic rows with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lemmata.studies.benchmarks.calibration import MEDIAN, NOISE, rates
from lemmata.studies.errors import ClaimError
from lemmata.studies.intervals import REDUCERS
from lemmata.studies.judgement import Finding, Sample, evaluate, number
from lemmata.studies.prediction import LEVEL, Prediction
from lemmata.studies.predictions import AtLeast, AtMost, Distributed, Equals, Scales

DRAWS = 4000
#: Three binomial standard errors of a rate near 5 %, at DRAWS draws.
SLACK = 3 * math.sqrt(0.05 * 0.95 / DRAWS)
#: One-sided error rate at the very edge of the band. Student t states 2.5 %; for noise as skewed as an exponential the tail
#: on the side of the short tail is larger, 11 % at five seeds (Monte Carlo of the definition), and the other tail smaller.
STATED = {"Gaussian": 0.025, "t3": 0.025, "skewed": 0.115}
SEEDS = 5
WIDTHS = [64, 128, 256, 512]


ONE_POINT = [{"x": 1.0}]


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize(
    ("prediction", "edges"),
    [(Equals(0, within=4), (-4, 4)), (AtMost(4, of="mean"), (4,)), (AtLeast(-4, of="mean"), (-4,))],
)
def test_mean_error_rates(noise: str, prediction: Prediction, edges: tuple[float, ...]) -> None:
    draws = NOISE[noise](np.random.default_rng(1), (DRAWS, 1, SEEDS))
    inside, outside = draws, draws + 9 * edges[0] / 4
    assert rates(prediction, inside, ONE_POINT)[0] > 0.9
    assert rates(prediction, inside, ONE_POINT)[1] < SLACK
    assert rates(prediction, outside, ONE_POINT)[0] < SLACK
    assert rates(prediction, outside, ONE_POINT)[1] > 0.9
    for edge in edges:
        support, refute = rates(prediction, draws + edge, ONE_POINT)
        assert support < STATED[noise] + SLACK
        assert refute < STATED[noise] + SLACK


@pytest.mark.parametrize("noise", NOISE)
def test_median_error_rates_are_exact_for_every_law(noise: str) -> None:
    draws = NOISE[noise](np.random.default_rng(2), (DRAWS, 1, 12)) - MEDIAN[noise]
    prediction = Equals(0, within=4, of="median")
    for edge in (-4, 4):
        support, refute = rates(prediction, draws + edge, ONE_POINT)
        assert support < 0.025 + SLACK
        assert refute < 0.025 + SLACK
    assert rates(prediction, draws, ONE_POINT)[0] > 0.9


def test_median_of_five_can_decide_nothing() -> None:
    """Five order statistics reach 93.75 %, not 95 %: the interval is infinite and says so."""
    _, low, high = REDUCERS["median"](np.arange(5.0)[None], LEVEL)
    assert low[0] == -math.inf
    assert high[0] == math.inf


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("exponent", [-0.85, -1.15])
@pytest.mark.parametrize("of", ["mean", "var"])
def test_scales_error_rates(noise: str, exponent: float, of: str) -> None:
    draws = NOISE[noise](np.random.default_rng(3), (DRAWS, len(WIDTHS), 12))
    points = [{"width": float(width)} for width in WIDTHS]
    x = np.array(WIDTHS, dtype=float)[:, None]
    values = draws * x ** (exponent / 2) if of == "var" else (40 + draws).clip(1) * x**exponent
    support, refute = rates(Scales("width", power=-1, within=0.15, of=of), values, points)
    stated = 0.025 if of == "mean" or noise == "Gaussian" else 0.06  # the jackknifed log-variance under heavy tails
    assert support < stated + SLACK
    assert refute < stated + SLACK


@pytest.mark.parametrize("edge", [0.7, 1.3])
def test_variance_error_rates_for_gaussian_noise(edge: float) -> None:
    draws = np.random.default_rng(4).normal(size=(DRAWS, 1, 40)) * math.sqrt(edge)
    support, refute = rates(Equals(1, within=0.3, of="var"), draws, ONE_POINT)
    assert support < 0.05 + SLACK
    assert refute < 0.05 + SLACK


def test_distributed_error_rates() -> None:
    """A sample whose law is exactly `within` away is neither supported nor refuted more often than stated."""
    rng = np.random.default_rng(5)
    uniform = rng.random((DRAWS, 1, 200))
    prediction = Distributed("stats.uniform()", within=0.2)
    moved = np.where(rng.random(uniform.shape) < 0.2, -1.0, uniform)  # Kolmogorov distance 0.2 exactly
    support, refute = rates(prediction, moved, ONE_POINT)
    assert support < 0.025 + SLACK
    assert refute < 0.025 + SLACK
    assert rates(prediction, uniform, ONE_POINT)[0] > 0.9
    far = np.where(rng.random(uniform.shape) < 0.5, -1.0, uniform)
    assert rates(prediction, far, ONE_POINT)[1] > 0.9


def test_exact_reducers_judge_every_instance() -> None:
    samples = [Sample({"m": m}, np.full(3, 2.0**-m)) for m in (1, 6)]
    assert Equals("2.0**-m", within=0, of="each").judge(samples).outcome == "holds"
    spoilt = [samples[0], Sample({"m": 6}, np.array([2.0**-6, 2.0**-6, 2.0**-6 * (1 + 1e-15)]))]
    assert Equals("2.0**-m", within=0, of="each").judge(spoilt).outcome == "fails"  # one instance of three is off
    assert Equals("2.0**-m", within=0, of="max").judge(spoilt).outcome == "fails"
    assert AtMost("2.0**-m").judge(spoilt).outcome == "fails"
    assert AtLeast("2.0**-m").judge(spoilt).outcome == "holds"


def test_bonferroni_widens_with_points() -> None:
    rng = np.random.default_rng(6)
    samples = [Sample({"x": x}, rng.normal(size=6)) for x in range(10)]
    one, ten = Equals(0, 1).judge(samples[:1]).findings[0], Equals(0, 1).judge(samples).findings[0]
    ratio = stats.t.ppf(1 - 0.025 / 10, 5) / stats.t.ppf(0.975, 5)
    assert (ten.high - ten.low) / (one.high - one.low) == pytest.approx(ratio)


def test_chance_to_refute_tells_strong_from_weak() -> None:
    rng = np.random.default_rng(7)
    strong = [Sample({"x": 1}, rng.normal(size=8) * 0.01)]
    weak = [Sample({"x": 1}, rng.normal(size=8))]
    assert Equals(0, within=0.1).chance_to_refute(strong) > 0.99
    assert Equals(0, within=0.1).chance_to_refute(weak) < 0.2


def test_power_is_not_defined_for_a_band_without_width() -> None:
    samples = [Sample({"x": 1}, np.arange(8.0))]
    assert math.isnan(AtMost(0, of="mean").chance_to_refute(samples))


def test_scales_judges_each_group_of_the_other_coordinates() -> None:
    rng = np.random.default_rng(8)
    samples = [
        Sample({"net": net, "n": n}, n**power * (1 + 0.01 * rng.normal(size=6)))
        for net, power in (("a", -1.0), ("b", -2.0))
        for n in (8, 16, 32, 64)
    ]
    outcomes = {f.point["net"]: f.outcome for f in Scales("n", power=-1, within=0.1).judge(samples).findings}
    assert outcomes == {"a": "holds", "b": "fails"}


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.1, 0.2, "holds"),
        (1.1, 1.2, "fails"),
        (-3, -2, "fails"),
        (0.9, 1.1, "undecided"),
        (-9, 9, "undecided"),
        (0, 1, "holds"),
    ],
)
def test_outcome_is_where_the_interval_lies(low: float, high: float, outcome: str) -> None:
    assert Finding({}, 5, "", (low + high) / 2, low, high, (0, 1)).outcome == outcome


def test_formula_errors_name_the_formula_and_what_it_may_use() -> None:
    with pytest.raises(ClaimError, match=r"'2\*\*-q'.*m"):
        evaluate("2**-q", {"m": 1})


def test_logarithm_of_a_negative_value_is_refused() -> None:
    samples = [Sample({"n": n}, np.array([1.0, 2, 3, 4, -5])) for n in (1, 2, 4, 8)]
    with pytest.raises(ClaimError, match="positive"):
        Scales("n", power=1, within=0.1).judge(samples)


def test_numbers_read_well() -> None:
    assert [number(x) for x in (0.0, -1.5, 1e-12, 123456.0)] == ["0", "−1.5", "10⁻¹²", "123456"]


def test_a_median_that_can_decide_nothing_is_refused() -> None:
    prediction = Equals(0, within=1, of="median")
    for points, enough in ((1, 6), (4, 8)):
        prediction.check_grid({"x": range(points)}, enough)
        level = 1 - (1 - LEVEL) / points
        assert np.isfinite(REDUCERS["median"](np.arange(float(enough))[None], level)[1])
        assert not np.isfinite(REDUCERS["median"](np.arange(float(enough - 1))[None], level)[1])
        with pytest.raises(ClaimError, match=f"at least {enough} seeds"):
            prediction.check_grid({"x": range(points)}, enough - 1)
