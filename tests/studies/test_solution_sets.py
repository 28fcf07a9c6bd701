"""Subspaces, linear VAEs and PAC-Bayes bounds: against least squares, eigenvalues and plain Monte Carlo."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import optimize

from lemmata.studies.curvature import solution_sets as study
from lemmata.studies.rows import as_values

pytestmark = pytest.mark.usefixtures("double")

CHEAP = [
    (study.intrinsic_dimension_objective, dict(codimension=10, excess=0, subspaces=5)),
    (study.linear_vae_collapse, dict(noise=1.6, latents=2)),
    (study.linear_vae_collapse_divergence, dict(noise=1.6, latents=2)),
    (study.pac_bayes_coverage, dict(dimension=80, n=100, delta=0.05, sets=20)),
    (study.pac_bayes_coverage_nonvacuous, dict(dimension=5, n=100, delta=0.05, sets=40)),
]


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def values(claim, point, control="", seed=1):
    override = claim.controls.get(control, {})
    return as_values(claim(**{**point, **override}, seed=seed))


def inside(claim, point, value):
    low, high = claim.predicts.band(point)
    return low <= value <= high


def rows_of(claim, points):
    return [
        SimpleNamespace(arm=arm, point=point, k=0, values=values(claim, point, arm))
        for arm in ("", *claim.controls)
        for point in points
    ]


@pytest.mark.parametrize(("claim", "point"), CHEAP, ids=[claim.id for claim, _ in CHEAP])
def test_the_claim_holds_and_its_controls_fail(claim, point):
    assert inside(claim, point, values(claim, point)["value"])
    for control in claim.controls:
        assert not inside(claim, point, values(claim, point, control)["value"]), control


# Intrinsic dimension


@pytest.mark.parametrize(("dimension", "solved"), [(3, False), (4, False), (5, True), (6, True)])
def test_least_losses_are_those_of_least_squares(dimension, solved):
    g = draws(dimension)
    rows, sums = study.block_sums(5, g)
    residual = sums - rows @ torch.randn(study.PARAMETERS, generator=g)
    directions = study.random_directions(3, dimension, False, g)
    ours = study.least_losses(rows, residual, directions)
    for basis, loss in zip(directions.numpy(), ours.tolist(), strict=True):
        moved = rows.numpy() @ basis
        left = moved @ np.linalg.lstsq(moved, residual.numpy())[0] - residual.numpy()
        assert loss == pytest.approx(left @ left / (residual @ residual).item(), rel=1e-8, abs=1e-20)
        assert (loss < study.SOLVED) == solved


def test_block_sums_and_further_constraints():
    rows, sums = study.block_sums(10, draws(), further=1)
    theta = torch.arange(1000.0)
    assert (rows[:10] @ theta).tolist() == [sum(range(100 * i, 100 * i + 100)) for i in range(10)]
    assert sums.tolist() == list(range(1, 12)) and np.linalg.matrix_rank(rows.numpy()) == 11


def test_axis_directions_are_distinct_coordinates():
    directions = study.random_directions(4, 9, True, draws())
    assert directions.shape == (4, study.PARAMETERS, 9)
    assert torch.equal(directions.mT @ directions, torch.eye(9).expand(4, 9, 9))
    assert set(directions.unique().tolist()) == {0.0, 1.0}


def test_least_losses_are_drawn():
    points = [dict(codimension=m, excess=e, subspaces=3) for m in (2, 5) for e in (-1, 0)]
    columns = study.draw_least_losses(Figure().subplots(), rows_of(study.intrinsic_dimension_objective, points))
    assert {len(column) for column in columns.values()} == {2}
    assert columns["Gaussian, codimension 5"][0] > 1e-3 and columns["Gaussian, codimension 5"][1] < 1e-20


# Posterior collapse


def test_the_data_have_the_spectrum_exactly():
    points = study.data_of_spectrum(draws(2)).numpy()
    assert np.abs(points.mean(0)).max() < 1e-14
    assert np.linalg.eigvalsh(np.cov(points.T, bias=True)) == pytest.approx(sorted(study.SPECTRUM), rel=1e-12)


def test_a_fit_is_probabilistic_pca():
    found = study.fit(study.data_of_spectrum(draws(1)), 3, 2.5, 1.0, False, draws(2))
    assert found.singular_values.numpy() == pytest.approx([2.5**0.5, 0.5**0.5, 0], abs=1e-5)
    assert found.divergences.numpy() == pytest.approx([np.log(2) / 2, np.log(1.2) / 2, 0], abs=1e-6)


def test_a_doubled_divergence_doubles_the_threshold():
    found = study.fit(study.data_of_spectrum(draws(1)), 3, 1.25, 2.0, False, draws(2))
    assert found.singular_values.numpy() == pytest.approx([2.5**0.5, 0.5**0.5, 0], abs=1e-5)


def test_learned_noise_is_the_mean_of_the_eigenvalues_left_out():
    found = study.fit(study.data_of_spectrum(draws(1)), 3, 2.5, 1.0, True, draws(2))
    left = np.mean(study.SPECTRUM[3:])
    assert found.singular_values.numpy() == pytest.approx(np.sqrt(np.array(study.SPECTRUM[:3]) - left), abs=1e-5)


def test_singular_values_are_drawn():
    rows = rows_of(study.linear_vae_collapse, [dict(noise=noise, latents=2) for noise in (1.6, 4.0)])
    columns = study.draw_singular_values(Figure().subplots(), rows)
    assert {len(column) for column in columns.values()} == {2}
    assert columns["trained, 2"] == pytest.approx([1.4**0.5, 0], abs=1e-5)
    assert columns["β = 2, 2"] == pytest.approx([0, 0], abs=1e-5)


# PAC-Bayes bounds


@pytest.mark.parametrize("dimension", [3, 5, 80])
def test_true_risks_are_those_of_drawn_classifiers_on_drawn_examples(dimension):
    rng, count = np.random.default_rng(0), 200_000
    mean = np.zeros(dimension)
    mean[:2] = 1.5, -2.0
    x = rng.standard_normal((count, dimension), dtype=np.float32)
    w = rng.standard_normal((count, dimension), dtype=np.float32) + mean.astype(np.float32)
    y = np.sign(x[:, 0]) * np.where(rng.random(count) < study.FLIPPED, -1, 1)
    rate = np.mean(y * (w * x).sum(1) < 0)
    exact = study.true_risks(torch.from_numpy(mean)[None]).item()
    assert exact == pytest.approx(rate, abs=4 * (rate * (1 - rate) / count) ** 0.5)


def test_true_risks_of_simple_posteriors():
    assert study.true_risks(torch.zeros(1, 7)).item() == pytest.approx(0.5, abs=1e-12)
    far = torch.zeros(2, 7)
    far[0, 0], far[1, 3] = 1e6, 1e6  # the teacher itself, and a classifier at a right angle to it
    assert study.true_risks(far).numpy() == pytest.approx([study.FLIPPED, 0.5], abs=1e-6)


def test_empirical_risks_are_those_of_drawn_classifiers():
    x, y = study.label_noise_data(1, 20, 5, 1, draws())
    mean = 2 * study.least_squares_directions(x, y)[:, None]
    w = np.random.default_rng(0).standard_normal((50_000, 5)) + mean[0].numpy()
    rate = np.mean(y[0].numpy() * (w @ x[0].numpy().T) < 0)
    assert study.empirical_risks(x, y, mean).item() == pytest.approx(rate, abs=0.005)


def test_copies_are_copies():
    x, y = study.label_noise_data(2, 100, 5, 10, draws())
    assert x.shape == (2, 100, 5) and torch.equal(x[:, :10], x[:, 90:]) and torch.equal(y[:, :10], y[:, 90:])
    assert len(x[0].unique(dim=0)) == 10


@pytest.mark.parametrize("q", [0.0, 0.02, 0.3])
def test_the_inverse_of_the_divergence(q):
    def gap(p):
        return (q * np.log(q / p) if q else 0) + (1 - q) * np.log((1 - q) / (1 - p)) - 0.1

    theirs = optimize.brentq(gap, max(q, 1e-12), 1 - 1e-12, xtol=1e-14)
    ours = study.invert_kl(torch.tensor(q), torch.tensor(0.1)).item()
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_a_bound_is_broken_exactly_where_the_error_lies_above_it():
    x, y = study.label_noise_data(40, 100, 5, 10, draws(3))
    found = study.certificates(x, y, 0.05)
    broken = found.violated & (found.true > found.empirical)
    assert torch.equal(broken, found.true > found.bound) and 0 < broken.sum() < 40


def test_certificates_are_drawn():
    points = [dict(dimension=d, n=100, delta=0.05, sets=100) for d in (5, 80)]
    columns = study.draw_certificates(Figure().subplots(), rows_of(study.pac_bayes_coverage, points))
    assert {len(column) for column in columns.values()} == {100} and len(columns) == 6
    assert (columns["bound, d = 5"] > columns["error, d = 5"]).all()
    assert (columns["bound, d = 80, prior = posterior"] < columns["error, d = 80, prior = posterior"]).all()
