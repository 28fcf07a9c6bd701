"""The diagonal against planted matrices: coverage entry by entry, stopping, and reproducibility."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, NumericsError
from lemmata.analysis.spectra.diagonal import diagonal
from lemmata.analysis.spectra.results import Diagonal

SIZE = 300
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((SIZE, SIZE)) / SIZE
MATRIX = np.diag(np.linspace(1, 3, SIZE)) + NOISE + NOISE.T
TRUTH = torch.from_numpy(np.diag(MATRIX).copy())


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def covered(found: Diagonal) -> float:
    low, high = found.interval()
    return float(((low <= TRUTH) & (TRUTH <= high)).double().mean())


def test_intervals_cover_and_half_of_them_do_not() -> None:
    A = la.Dense(torch.from_numpy(MATRIX))
    found = [diagonal(A, 0.01, seed=seed) for seed in range(10)]
    assert all(d.converged and d.method == "random signs" and 10 <= d.matvecs < SIZE for d in found)
    assert 0.93 <= np.mean([covered(d) for d in found]) <= 0.97
    halved = [Diagonal(d.values, d.stderr / 2, d.dof, d.matvecs, d.seed, d.method) for d in found]
    assert np.mean([covered(d) for d in halved]) < 0.8
    errors = [float((d.values - TRUTH).norm() / TRUTH.norm()) for d in found]
    assert np.mean(errors) <= 0.011 and np.mean(errors) == pytest.approx(np.mean([d.error for d in found]), rel=0.2)


def test_a_hard_tolerance_takes_unit_vectors_and_a_small_budget_is_owned_up_to() -> None:
    A = la.Dense(torch.from_numpy(MATRIX))
    exact = diagonal(A, 1e-4)
    assert exact.method == "unit vectors" and torch.equal(exact.values, TRUTH) and exact.error == 0
    short = diagonal(A, 1e-4, max_matvecs=20)
    assert not short.converged and short.matvecs == 20 and repr(short).endswith("20 products; not converged)")
    assert diagonal(la.Dense(torch.zeros(3, 3))).converged


def test_same_seed_same_diagonal_whatever_the_block() -> None:
    A = la.Dense(torch.from_numpy(MATRIX))
    first = diagonal(A, 0.02, seed=1)
    for block in (1, 5, 100):
        other = diagonal(A, 0.02, seed=1, block=block)
        assert torch.allclose(other.values, first.values, rtol=1e-12, atol=1e-13)
        assert torch.allclose(other.stderr, first.stderr, rtol=1e-9, atol=1e-13)
    assert not torch.equal(diagonal(A, 0.02, seed=2).values, first.values)


def test_record_and_plot() -> None:
    found = diagonal(la.Dense(torch.from_numpy(MATRIX)), 0.05)
    back = Diagonal.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(back.values, found.values) and torch.equal(back.stderr, found.stderr)
    assert back.matvecs == found.matvecs and back.converged
    assert found.plot().get_ylabel() == "diagonal entry"
    with pytest.raises(ArgumentError, match=r"level.*2"):
        found.interval(2)


def test_bad_options_and_an_overflow_are_named() -> None:
    with pytest.raises(ArgumentError, match=r"tol.*0"):
        diagonal(la.Dense(torch.eye(3)), 0)
    with pytest.raises(NumericsError, match=r"inf or nan.*float64"):
        diagonal(1e30 * la.Dense(1e30 * torch.eye(3)))
