"""Floors of spans and of affine pieces against closed forms, brute force and members that must not be refused."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from math import e, inf, sqrt

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.optimize import linprog

from lemmata.analysis import BestPieces, Floor, best_in_span, best_pieces, remez
from lemmata.analysis.errors import ArgumentError, DataError

FLOAT = torch.float64
X = torch.linspace(-1, 1, 801, dtype=FLOAT)
POWERS = torch.stack([X**k for k in range(5)], 1)


# Spans


def test_the_largest_error_is_that_of_the_best_polynomial() -> None:
    floor = best_in_span(POWERS, X.abs())
    assert floor.converged and floor.dimension == 5
    best = remez(torch.abs, 4)
    assert floor.lower <= best.upper and floor.upper == pytest.approx(best.upper, rel=1e-4)


def test_the_mean_error() -> None:
    """The best constant in the mean is the median: |x| misses ½ by ¼ on average."""
    x = (2 * torch.arange(1000, dtype=FLOAT) - 999) / 1000
    floor = best_in_span(torch.ones(1000, 1), x.abs(), order=1)
    assert floor.converged and floor.lower == pytest.approx(0.25, rel=1e-6)


def test_the_root_of_the_mean_square() -> None:
    design, y = POWERS.numpy(), X.abs().numpy()
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    floor = best_in_span(POWERS, X.abs(), order=2)
    assert floor.converged and floor.upper == pytest.approx(sqrt(np.mean(residual**2)), rel=1e-10)
    assert floor.upper == pytest.approx(1 / sqrt(768), rel=0.01)  # the Legendre tail


@pytest.mark.parametrize("order", [1, 2, inf])
def test_the_certificate_alone_proves_the_floor(order: float) -> None:
    y = (5 * X).sin()
    floor = best_in_span(POWERS, y, order)
    dual = {1: inf, 2: 2, inf: 1}[order]
    norm = float(torch.linalg.norm(floor.certificate, dual)) * (1 if order == inf else len(X) ** (1 / order))
    assert float((POWERS.T @ floor.certificate).abs().max()) < 1e-12 and norm <= 1 + 1e-12
    assert float(floor.certificate @ y) == pytest.approx(floor.lower, abs=1e-11)
    residual = y - POWERS @ floor.coefficients
    size = float(torch.linalg.norm(residual, order)) * (1 if order == inf else len(X) ** (-1 / order))
    assert size == pytest.approx(floor.upper, rel=1e-8)


@pytest.mark.parametrize("order", [1, 2, inf])
def test_members_keep_to_it_and_others_are_refused(order: float) -> None:
    y = X.abs()
    floor = best_in_span(POWERS, y, order)
    draws = torch.Generator().manual_seed(0)
    near = floor.coefficients + 1e-3 * torch.randn(200, 5, generator=draws, dtype=FLOAT)
    assert all(floor.holds(y - POWERS @ c) for c in near)
    assert not floor.holds(y - (y + 0.001))


def test_more_points_raise_the_largest_error() -> None:
    coarse = best_in_span(POWERS[::8], X[::8].abs())
    assert coarse.lower <= best_in_span(POWERS, X.abs()).upper


def test_a_target_in_the_span_has_no_floor() -> None:
    floor = best_in_span(torch.cat([POWERS, POWERS], 1), POWERS @ torch.ones(5, dtype=FLOAT))
    assert floor.converged and floor.lower == 0 and floor.upper < 1e-10 and floor.dimension == 5


def test_a_span_of_nothing() -> None:
    floor = best_in_span(torch.zeros(3, 2, dtype=FLOAT), torch.tensor([1.0, -2.0, 0.5], dtype=FLOAT))
    assert floor.dimension == 0 and floor.lower == pytest.approx(2.0) and floor.upper == pytest.approx(2.0)


def test_records() -> None:
    floor = best_in_span(POWERS[::100], X[::100].abs())
    back = Floor.from_dict(json.loads(json.dumps(floor.to_dict())))
    assert back.order == inf and torch.equal(back.certificate, floor.certificate) and repr(back) == repr(floor)


@pytest.mark.parametrize(
    ("error", "name", "call", "remedy"),
    [
        (DataError, "span", lambda: best_in_span(X, X), "one column for each function"),
        (DataError, "span", lambda: best_in_span(POWERS[:, :0], X), "one column for each function"),
        (DataError, "target", lambda: best_in_span(POWERS, X[:-1]), "the same points"),
        (DataError, "target", lambda: best_in_span(POWERS, X.log()), "Leave out the points"),
        (ArgumentError, "order", lambda: best_in_span(POWERS, X, 3), "inf"),
        (ArgumentError, "tol", lambda: best_in_span(POWERS, X, tol=2.0), "tol=1e-6"),
        (DataError, "residual", lambda: best_in_span(POWERS, X).holds(X[:3]), "in their order"),
        (DataError, "x", lambda: best_pieces(X.flip(0), X, 2), "Sort"),
        (DataError, "y", lambda: best_pieces(X, X[1:], 2), "values there"),
        (DataError, "y", lambda: best_pieces(X, X.log(), 2), "Leave those points out"),
        (ArgumentError, "pieces", lambda: best_pieces(X, X, 0), "n + 1"),
        (ArgumentError, "tol", lambda: best_pieces(X, X, 1, tol=0.0), "tol=0.01"),
    ],
)
def test_bad_input(error: type, name: str, call, remedy: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.name == name and remedy in str(caught.value)


# Affine pieces


def line_error(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) <= 2:
        return 0.0
    A, ones = np.stack([x, np.ones_like(x)], 1), np.ones((len(x), 1))
    program = linprog([0, 0, 1], np.block([[A, -ones], [-A, -ones]]), np.concatenate([y, -y]), bounds=(None, None))
    return program.fun


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_by_brute_force(seed: int, pieces: int) -> None:
    """Every way to cut ten random points into groups, a linear program for each group."""
    draws = np.random.default_rng(seed)
    x, y = np.sort(draws.random(10)), draws.standard_normal(10)
    errors = {(i, j): line_error(x[i:j], y[i:j]) for i in range(10) for j in range(i + 1, 11)}
    cuts = combinations(range(1, 10), pieces - 1)
    truth = min(max(errors[pair] for pair in pairwise((0, *cut, 10))) for cut in cuts)
    found = best_pieces(torch.from_numpy(x), torch.from_numpy(y), pieces, tol=1e-4)
    assert found.lower <= truth * (1 + 1e-9) and found.lower == pytest.approx(truth, rel=1e-5)
    assert found.upper >= truth * (1 - 1e-9)


@pytest.mark.parametrize("pieces", [1, 2, 5, 16])
def test_parabola(pieces: int) -> None:
    x = torch.linspace(0, 1, 2001, dtype=FLOAT)
    found = best_pieces(x, x**2, pieces)
    assert found.converged and found.lower <= 1 / (8 * pieces**2)
    assert found.upper == pytest.approx(1 / (8 * pieces**2), rel=5e-3)
    assert float((found(x) - x**2).abs().max()) == pytest.approx(found.upper, rel=1e-6)
    assert len(found.knots) == pieces + 1


def test_exponential() -> None:
    x = torch.linspace(0, 1, 4001, dtype=FLOAT)
    found = best_pieces(x, x.exp(), 8)
    assert found.upper == pytest.approx(4 * (sqrt(e) - 1) ** 2 / (16 * 64), rel=5e-3)


def test_a_function_of_two_pieces_needs_two() -> None:
    y = (X - 0.3).abs()
    assert best_pieces(X, y, 1).lower > 0.3
    two = best_pieces(X, y, 2)
    assert two.upper < 1e-10 and float(two.knots[1]) == pytest.approx(0.3, abs=1e-9)
    assert two(torch.tensor([0.3], dtype=FLOAT)).item() == pytest.approx(0.0, abs=1e-9)


def test_continuity_can_cost_and_is_said() -> None:
    """A jump: two pieces are exact if they may be apart, and half the jump if not."""
    found = best_pieces(X, (X > 0).double(), 2)
    assert found.lower == pytest.approx(0, abs=1e-9) and found.upper > 0.1 and not found.converged


def test_no_network_of_one_layer_is_below() -> None:
    """Eight ReLUs with least-squares output weights, at random knots and at the best ones."""
    y = (3 * X).exp()
    floor = best_pieces(X, y, 9)
    draws = torch.Generator().manual_seed(0)
    for knots in [*(2 * torch.rand(20, 8, generator=draws, dtype=FLOAT) - 1), floor.knots[1:-1]]:
        span = torch.cat([torch.ones(len(X), 1), X[:, None], (X[:, None] - knots).relu()], 1)
        assert best_in_span(span, y).upper >= floor.lower
    assert best_in_span(span, y).upper <= 1.02 * floor.lower


def test_pieces_as_a_record_and_a_picture() -> None:
    found = best_pieces(X, X**2, 3)
    back = BestPieces.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(back.knots, found.knots) and repr(back) == repr(found) and float(found) == found.lower
    assert found.plot(Figure().subplots()).lines and found.plot().lines


@pytest.mark.parametrize("order", [1, 2, inf])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_floors_have_no_scale(order: float, size: float) -> None:
    """The span is the same whatever its columns are multiplied by, and the floor grows with the target."""
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)
    span = torch.stack([x**0, x], 1)
    plain, scaled = best_in_span(span, x**3, order), best_in_span(span * torch.tensor([1.0, 1e-13]), size * x**3, order)
    assert scaled.dimension == 2 and scaled.converged
    assert (scaled.lower / size, scaled.upper / size) == pytest.approx((plain.lower, plain.upper), rel=1e-9)
    assert scaled.coefficients[1].item() == pytest.approx(plain.coefficients[1].item() * size * 1e13, rel=1e-6)


def test_pieces_have_no_scale_and_exact_ones_converge() -> None:
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    plain, small = best_pieces(x, x**2, 2), best_pieces(x, 1e-30 * x**2, 2)
    assert small.converged and small.upper == pytest.approx(1e-30 * plain.upper, rel=1e-6)
    assert best_pieces(x, torch.relu(x), 2).converged and best_pieces(x, 3 + 0 * x, 2).converged


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(DataError, match=r"target.*real and imaginary"):
        best_in_span(torch.ones(3, 1), torch.ones(3) * 1j)
