"""Lyapunov exponents against closed forms, published values and runs repeated many times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, repeat
from math import exp, log

import numpy as np
import pytest
import torch
from scipy.special import digamma
from torch import Tensor

from lemmata.analysis.errors import ArgumentError, DataError, NumericsError, OperandError
from lemmata.analysis.gradient_flow import LyapunovSpectrum, lyapunov_exponents, tangent_maps

LYAPUNOV_HENON = 0.41922  # Sprott, Chaos and Time-Series Analysis, 2003, for a = 1.4, b = 0.3


def gaussians(n: int, seed: int) -> Iterator[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(n, n, generator=draws, dtype=torch.float64) / n**0.5


def newman(n: int) -> np.ndarray:
    return 0.5 * (np.log(2 / n) + digamma((n - np.arange(n)) / 2))


def henon(x: Tensor) -> Tensor:
    return torch.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


def henon_matrices() -> Iterator[Tensor]:
    x, y = 0.1, 0.1
    while True:
        yield torch.tensor([[-2.8 * x, 1.0], [0.3, 0.0]], dtype=torch.float64)
        x, y = 1 - 1.4 * x * x + y, 0.3 * x


def test_a_constant_matrix_has_the_logarithms_of_its_eigenvalues() -> None:
    """Not of its singular values: the matrix is far from normal, its eigenvalues 0.9 e^{±i}, 0.5 and −0.2."""
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    middle = np.block([[0.9 * turn, np.zeros((2, 2))], [np.zeros((2, 2)), np.diag([0.5, -0.2])]])
    frame = np.triu(np.full((4, 4), 2.0), 1) + np.eye(4)
    J = torch.from_numpy(frame @ middle @ np.linalg.inv(frame))
    found = lyapunov_exponents(repeat(J), 4, steps=2000, tol=0.0)
    truth = torch.tensor([log(0.9), log(0.9), log(0.5), log(0.2)])
    assert torch.allclose(found.values, truth.double(), atol=2e-3) and float(torch.linalg.matrix_norm(J, 2).log()) > 1
    assert torch.allclose(lyapunov_exponents(repeat(torch.diag(truth.exp()).double()), 4).values, truth.double())
    # The sum over all directions is exact: each step's is the logarithm of the determinant.
    assert float(found.values.sum()) == pytest.approx(float(J.det().abs().log()), abs=1e-12)


def test_products_of_gaussian_matrices_follow_newman() -> None:
    """And the intervals cover: of 3 exponents in 80 runs, 95 % to within chance, while those of one step do not."""
    truth, inside, naive = torch.from_numpy(newman(3)), 0, 0
    for seed in range(80):
        found = lyapunov_exponents(gaussians(3, seed), 3, steps=320, warmup=20, tol=0.0, seed=seed)
        low, high = found.interval()
        inside += int(((low <= truth) & (truth <= high)).sum())
        naive += int(((found.values - truth).abs() < (high - low) / 8).sum())
    assert not found.converged and found.steps == 320
    assert 0.9 * 240 <= inside <= 240 and naive < 0.6 * 240


def test_fewer_exponents_are_the_first_of_all() -> None:
    few = lyapunov_exponents(gaussians(6, 1), 6, k=2, tol=0.05)
    truth = torch.from_numpy(newman(6))
    assert few.converged and few.steps < 10_000 and few.values.shape == (2,)
    assert bool(((few.values - truth[:2]).abs() < 4 * few.stderr).all())
    assert not bool(((few.values - truth[2:4]).abs() < 4 * few.stderr).any())


def test_henon_by_matrices_and_by_forward_derivatives() -> None:
    found = lyapunov_exponents(henon_matrices(), 2, steps=12_000, tol=0.0)
    low, high = found.interval(0.999)
    assert low[0] < LYAPUNOV_HENON < high[0] and high[0] - low[0] < 0.04
    assert float(found.values.sum()) == pytest.approx(log(0.3), abs=1e-12)
    start = torch.tensor([0.1, 0.1], dtype=torch.float64)
    short = dict(n=2, steps=64, warmup=0, tol=0.0)  # before the two orbits part by rounding
    by_jvp = lyapunov_exponents(tangent_maps(henon, start), **short)
    assert torch.allclose(by_jvp.values, lyapunov_exponents(henon_matrices(), **short).values, atol=1e-4)
    assert not start.requires_grad


def test_a_driven_map_sees_its_inputs() -> None:
    """x ↦ u x stretches by u: the exponent is the mean of ln u."""
    u = [0.5, 4.0] * 320
    driven = tangent_maps(lambda x, u: u * x, torch.ones(1, dtype=torch.float64), u)
    assert float(lyapunov_exponents(driven, 1, steps=640, warmup=0).values) == pytest.approx(log(2) / 2)


def test_correlated_increments_widen_the_interval() -> None:
    """Factors e^{±1} that change sign once in 40 steps: the variance of the mean is (1/p − 1)/T, not 1/T."""
    draws, p, steps = np.random.default_rng(0), 1 / 40, 4000
    errors, sizes = [], []
    for _ in range(8):
        signs = np.cumprod(np.where(draws.random(steps) < p, -1, 1))
        found = lyapunov_exponents(
            (torch.full((1, 1), exp(s), dtype=torch.float64) for s in signs), 1, steps, warmup=0, tol=0.03
        )
        assert not found.converged
        errors.append(float(found.values))
        sizes.append(float(found.stderr))
    truth = ((1 / p - 1) / steps) ** 0.5
    assert 0.7 * truth < np.mean(sizes) < 1.5 * truth and 5 * steps**-0.5 < truth
    assert np.sqrt(np.mean(np.square(errors))) < 1.8 * truth


def test_a_singular_jacobian_has_an_exponent_of_minus_infinity() -> None:
    found = lyapunov_exponents(repeat(torch.diag(torch.tensor([2.0, 0.0]))), 2, dtype=torch.float32)
    assert found.values.tolist() == [pytest.approx(log(2)), -torch.inf] and found.converged


def test_results_can_be_kept_and_drawn() -> None:
    found = lyapunov_exponents(gaussians(10, 0), 10, steps=640)
    back = LyapunovSpectrum.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(back.values, found.values) and torch.equal(back.stderr, found.stderr)
    assert "±" in repr(found) and "… 2 more" in repr(found) and "640 steps; not converged" in repr(found)
    assert found.plot().get_ylabel() == "Lyapunov exponent (nats a step)"
    again = lyapunov_exponents(gaussians(10, 0), 10, steps=640)
    assert torch.equal(again.values, found.values)


@pytest.mark.parametrize(
    ("changes", "error", "name", "remedy"),
    [
        (dict(k=3), ArgumentError, "k", "k=None"),
        (dict(steps=10), ArgumentError, "steps", "pass more"),
        (dict(warmup=-1), ArgumentError, "warmup", "warmup=0"),
        (dict(tol=float("nan")), ArgumentError, "tol", "tol=0.01"),
        (dict(n=4), OperandError, "products", "n and dtype"),
        (dict(dtype=torch.float32), OperandError, "products", "n and dtype"),
        (dict(products=islice(gaussians(2, 0), 150)), DataError, "products", "smaller steps"),
        (dict(products=repeat(torch.full((2, 2), torch.nan).double())), NumericsError, "products", "bounded"),
        (dict(products=repeat(lambda V: V[:, :1])), OperandError, "products", "one column for each"),
        (dict(products=tangent_maps(lambda x: x.sum(), torch.ones(2).double())), OperandError, "f", "next state alone"),
        (dict(products=tangent_maps(henon, torch.full((2,), 9.0).double())), NumericsError, "products", "bounded"),
        (dict(products=tangent_maps(henon, torch.ones(2, 1).double())), OperandError, "x", "Flatten"),
    ],
)
def test_bad_input(changes: dict, error: type[Exception], name: str, remedy: str) -> None:
    with pytest.raises(error, match=remedy) as caught:
        lyapunov_exponents(**dict(products=gaussians(2, 0), n=2, steps=320) | changes)
    assert caught.value.name == name
