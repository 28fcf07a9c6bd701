"""Rates, floors and Barron's networks against Monte Carlo, quadrature, scipy and brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from math import pi, sqrt

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import integrate

from lemmata.analysis import best_in_span, best_pieces, rate
from lemmata.studies.approximation import barron, floors, rates
from lemmata.studies.claim import Grid

pytestmark = pytest.mark.usefixtures("double")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Random units


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("inputs", [barron.Gaussians, barron.Box])
def test_inner_products_by_sampling(d: int, inputs) -> None:
    """Closed forms against averages over 400 000 inputs."""
    w = torch.randn(5, d, generator=draws())
    x = torch.randn(400_000, d, generator=draws(1)) / 2
    if inputs is barron.Box:
        x = 2 * torch.rand(400_000, d, generator=draws(1)) - 1
    units, bump = torch.cos(x @ w.T), torch.exp(-x.square().sum(1) / 2)
    assert torch.allclose(inputs.pairs(w), units.T @ units / len(x), atol=5e-3)
    assert torch.allclose(inputs.with_bump(w), bump @ units / len(x), atol=5e-3)
    assert inputs.bump(d, 2.0) == pytest.approx(float(bump.square().mean()), abs=5e-3)
    error = (bump - units.mean(1)).square().mean()
    assert float(barron.sampled_error(w, inputs)) == pytest.approx(float(error), abs=5e-3)


def test_the_variance_of_the_catalogue() -> None:
    """d = 8: (1 + 2⁻⁴)/2 − (3/2)⁻⁴, and the measured n·error beside it."""
    assert barron.variance(8, barron.Gaussians) == pytest.approx((1 + 2**-4) / 2 - 1.5**-4)
    found = [barron.maurey_barron_rate(d=8, n=16, nets=500, seed=k)["n·error"] for k in range(4)]
    assert np.mean(found) == pytest.approx(0.3337, abs=0.012)
    assert barron.maurey_barron_rate(d=8, n=16, nets=500, seed=0, copies=2)["value"] > 1.8


@pytest.mark.parametrize(("d", "n"), [(2, 20), (3, 40), (5, 7)])
def test_first_modes_by_sorting(d: int, n: int) -> None:
    found = barron.first_modes(d, n)
    as_tuples = [tuple(k.get(j, 0) for j in range(d)) for k in found]
    sizes = [sum(v * v for v in k) for k in as_tuples]
    every = sorted(sum(v * v for v in k) for k in product(range(8), repeat=d))
    assert len(set(as_tuples)) == n and sizes == every[:n]


def test_the_fixed_basis_by_least_squares() -> None:
    """In two dimensions: tensor cosines fitted to the bump on a Gauss grid."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    x, y = (part.ravel() for part in np.meshgrid(nodes, nodes))
    root = np.sqrt(np.outer(weights, weights).ravel() / 4)
    modes = [(k.get(0, 0), k.get(1, 0)) for k in barron.first_modes(2, 12)]
    span = np.stack([np.cos(pi * a * x) * np.cos(pi * b * y) for a, b in modes], 1) * root[:, None]
    bump = np.exp(-(x**2 + y**2) / 2) * root
    residual = bump - span @ np.linalg.lstsq(span, bump, rcond=None)[0]
    assert barron.cosine_error(2, 12) == pytest.approx(float(residual @ residual), rel=1e-9)


def test_the_slope_of_fixed_cosines_dies_with_the_dimension() -> None:
    slopes = [
        rate([16, 32, 64, 128], torch.tensor([barron.cosine_error(d, n) for n in (16, 32, 64, 128)])).slope
        for d in (2, 32)
    ]
    assert slopes[0] < -1.3 and slopes[1] > -0.7


def test_steps_average_to_the_bump() -> None:
    """Barron's representation: the mean over units is f − f(0), each within 2 C of zero."""
    x = barron.ball(draws(1), 50, 3)
    assert float(x.norm(dim=1).max()) <= 1
    units = barron.steps(x, 200_000, draws())
    assert float(units.abs().max()) <= 2 * barron.first_moment(3)
    assert torch.allclose(units.mean(1), torch.exp(-x.square().sum(1) / 2) - 1, atol=0.02)
    assert not torch.allclose(barron.steps(x, 200_000, draws(), 3.0).mean(1), units.mean(1), atol=0.1)


@pytest.mark.parametrize("d", [1, 2, 8])
def test_first_moment(d: int) -> None:
    norms = torch.randn(400_000, d, generator=draws()).norm(dim=1)
    assert barron.first_moment(d) == pytest.approx(float(norms.mean()), rel=5e-3)


# Pieces


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_best_knots_of_the_root(pieces: int) -> None:
    """The knots of the statement, each piece's chord lowered by half its height: every piece errs by 1/(4 N (N + 1))."""
    knots = np.array([(k * (k + 1)) ** 2 for k in range(pieces + 1)]) / (pieces * (pieces + 1)) ** 2
    for a, b in pairwise(knots):
        x = np.linspace(a, b, 20001)
        chord = sqrt(a) + (x - a) * (sqrt(b) - sqrt(a)) / (b - a)
        assert np.max(np.sqrt(x) - chord) / 2 == pytest.approx(1 / (4 * pieces * (pieces + 1)), rel=1e-5)


def test_pieces_of_a_study() -> None:
    found = rates.free_knots_square_law(target="the root", pieces=4, seed=0)
    assert found["certified"] <= 1 and found["value"] == pytest.approx(1, abs=0.01)
    assert rates.free_knots_square_law(target="the root", pieces=4, seed=0, knots="equal")["value"] > 2


@pytest.mark.parametrize("pieces", [3, 8])
def test_equal_pieces_of_a_parabola_are_the_best(pieces: int) -> None:
    assert rates.chords(rates.graded(1), rates.graded(1) ** 2, pieces, torch.square) == pytest.approx(
        1 / (8 * pieces**2), rel=1e-3
    )


def test_interpolation_by_numpy() -> None:
    f = rates.rough("Weierstrass", 0.5)
    x = np.linspace(0, 1, 64 * 8 + 1)
    y = f(torch.from_numpy(x)).numpy()
    assert rates.interpolation_error(f, 8) == pytest.approx(np.abs(y - np.interp(x, x[::64], y[::64])).max(), rel=1e-12)
    assert rates.hoelder_rate(target="a cusp", alpha=0.5, pieces=64, seed=0) == pytest.approx(0.5, abs=1e-3)
    assert rates.hoelder_rate(target="a cusp", alpha=0.5, pieces=64, seed=0, knots="graded") > 1.9


# Kinks


def test_splines_by_dense_least_squares() -> None:
    knots = torch.rand(2, 6, generator=draws())
    x = (torch.arange(20_000) + 0.5) / 20_000
    for f in (floors.curve, torch.cos):
        found = floors.spline_error(knots, f)
        for row, error in zip(knots, found, strict=True):
            span = torch.cat([torch.ones(len(x), 1), x[:, None], (x[:, None] - row).relu()], 1)
            assert float(error) == pytest.approx(best_in_span(span, f(x), order=2).upper ** 2, rel=1e-3)


def test_averaged_units_have_the_target_as_their_mean() -> None:
    truth, _ = integrate.quad(lambda t: 0.9 * np.exp(3 * t) * max(0.7 - t, 0.0), 0, 1)
    assert 0.1 + 0.3 * 0.7 + truth == pytest.approx(float(floors.curve(torch.tensor(0.7))), rel=1e-6)
    knots = torch.rand(8, 4000, generator=draws())
    assert float(floors.averaged_error(knots).mean()) < 1e-3 < float(floors.averaged_error(knots[:, :40]).mean())


def test_the_gaps_of_the_statement() -> None:
    """E Σ h⁵ over the n + 1 gaps of n uniform points."""
    t = torch.rand(40_000, 8, generator=draws()).sort(1).values
    ends = torch.zeros(len(t), 1)
    gaps = torch.cat([ends, t, ends + 1], 1).diff(dim=1)
    assert float((gaps**5).sum(1).mean()) == pytest.approx(120 / (10 * 11 * 12 * 13), rel=0.03)


def test_training_stays_above_and_another_activation_does_not() -> None:
    found = floors.free_knots_floor(units=3, fits=4, seed=0)
    x = torch.linspace(0, 1, 257)
    assert found["value"] >= 1 and found["floor"] == best_pieces(x, floors.curve(x), 4).lower
    assert 1 <= found["best weights"] < 1.02
    assert floors.free_knots_floor(units=6, fits=4, seed=0, activation="tanh")["value"] < 0.5


# Verdicts


CLAIMS = [
    replace(rates.free_knots_square_law, quick=Grid(target=list(rates.CURVES)[:3], pieces=[8], seeds=1)),
    rates.hoelder_rate,
    rates.bernstein_constant,
    rates.analytic_geometric_rate,
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_verdict_and_figures(claim) -> None:
    result = claim.run("quick")
    assert result.verdict.name == claim.expects, str(result)
    for draw in claim.figures:
        columns = draw(Figure().subplots(), result.rows)
        assert len({len(column) for column in columns.values()}) == 1
