"""Trace and Frobenius norm against planted spectra: coverage, stopping, and reproducibility."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, NumericsError, OperandError
from lemmata.analysis.spectra import adaptive
from lemmata.analysis.spectra.frobenius import frobenius_norm
from lemmata.analysis.spectra.trace import trace

SIZE = 200
SPECTRA = {
    "flat": np.linspace(0.5, 1.5, SIZE),
    "geometric": 0.9 ** np.arange(SIZE),
    "spiked": np.r_[100, 50, 30, np.ones(SIZE - 3)],
    "indefinite": np.linspace(-1, 2, SIZE),
    "harmonic": 1 / np.arange(1, SIZE + 1),
}
TOL = {"flat": 0.02, "geometric": 0.05, "spiked": 0.05, "indefinite": 0.1, "harmonic": 0.05}
SEEDS = 400
Estimator = Callable[..., la.Estimate]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def planted(values: np.ndarray) -> la.Dense:
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((len(values), len(values))))[0]
    matrix = torch.from_numpy(basis * values @ basis.T)
    return la.Dense((matrix + matrix.T) / 2)


def coverage(estimates: list[la.Estimate], truth: float) -> float:
    inside = [e.interval()[0] <= truth <= e.interval()[1] for e in estimates]
    return sum(inside) / len(inside)


def half_width(estimate: la.Estimate) -> float:
    return (estimate.interval()[1] - estimate.interval()[0]) / 2


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("estimator", [trace, frobenius_norm])
def test_intervals_cover_the_truth_and_meet_the_tolerance(estimator: Estimator, name: str) -> None:
    values = SPECTRA[name]
    truth = float(values.sum() if estimator is trace else np.sqrt((values**2).sum()))
    found = [estimator(planted_once(name), TOL[name], seed=seed) for seed in range(SEEDS)]
    assert all(e.converged and half_width(e) <= TOL[name] * abs(e.value) * (1 + 1e-9) for e in found)
    # 93 – 98 % less or more two standard errors of a share of 400
    assert 0.93 - 0.025 <= coverage(found, truth) <= 0.98 + 0.014
    assert all(e.matvecs >= 10 and (e.dof >= 9 or e.method == "unit vectors") for e in found)
    halved = [replace(e, stderr=e.stderr / 2) for e in found]
    assert coverage(halved, truth) < 0.88


CACHE: dict[str, la.Dense] = {}


def planted_once(name: str) -> la.Dense:
    if name not in CACHE:
        CACHE[name] = planted(SPECTRA[name])
    return CACHE[name]


def test_routes_follow_from_the_spectrum() -> None:
    assert trace(planted_once("flat"), 0.03).method == "Hutchinson"
    spiked = trace(planted_once("spiked"), 0.02)
    assert spiked.method == "Hutch++" and spiked.matvecs <= 60
    exact = trace(planted_once("flat"), 1e-6)
    assert exact.method == "unit vectors" and exact.stderr == 0 and exact.matvecs <= SIZE + 30
    assert exact.value == pytest.approx(SPECTRA["flat"].sum(), rel=1e-12)
    norm = frobenius_norm(planted_once("flat"), 1e-6)
    assert norm.value == pytest.approx(np.linalg.norm(SPECTRA["flat"]), rel=1e-12) and norm.stderr == 0


def test_deflation_beats_plain_probes_on_a_spiked_spectrum() -> None:
    errors = [trace(planted_once("spiked"), 0.02, seed=s).value / SPECTRA["spiked"].sum() - 1 for s in range(50)]
    spent = trace(planted_once("spiked"), 0.02).matvecs
    plain = np.sqrt(2 / spent) * np.linalg.norm(SPECTRA["spiked"]) / SPECTRA["spiked"].sum()
    assert np.sqrt(np.mean(np.square(errors))) < plain / 5


def test_what_leaks_into_the_basis_is_known_and_not_probed() -> None:
    values = np.r_[100, 50, 30, np.linspace(0.5, 1.5, SIZE - 3)]
    operator, truth = planted(values), float(np.linalg.norm(values))
    found = [frobenius_norm(operator, 1e-3, seed=seed) for seed in range(200)]
    assert np.mean([e.matvecs for e in found]) < 35  # else some seventy, and intervals that cover 88 %
    assert 0.93 - 0.036 <= coverage(found, truth)


@pytest.mark.parametrize("rank", [0, 1, 7])
def test_low_rank_is_exhausted_without_harm(rank: int) -> None:
    values = np.r_[np.arange(rank, 0, -1.0), np.zeros(SIZE - rank)]
    for estimator, truth in ((trace, values.sum()), (frobenius_norm, np.linalg.norm(values))):
        found = estimator(planted(values), 1e-4)
        assert found.converged and found.matvecs <= 40
        assert found.value == pytest.approx(truth, abs=1e-7)


def test_random_signs_are_exact_on_a_diagonal() -> None:
    found = trace(la.Dense(torch.diag(torch.linspace(-1, 2, 64, dtype=torch.float64))))
    assert found.value == pytest.approx(32) and found.matvecs == 10 and found.converged
    assert trace(la.Dense(torch.zeros(5, 5))).value == 0
    assert trace(la.Dense(torch.diag(torch.tensor([1.0, -1.0])))).converged


def test_too_few_products_and_a_trace_near_zero_are_owned_up_to() -> None:
    found = trace(planted_once("indefinite"), 1e-3, max_matvecs=25)
    assert not found.converged and found.matvecs == 25
    assert repr(found).endswith("25 products; not converged)")
    traceless = trace(planted(np.linspace(-1, 1, SIZE)), max_matvecs=150)
    assert not traceless.converged and traceless.matvecs <= 150
    assert traceless.interval()[0] <= 0 <= traceless.interval()[1]


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("estimator", [trace, frobenius_norm])
def test_same_seed_same_result_whatever_the_block_and_the_global_generator(estimator: Estimator, name: str) -> None:
    torch.manual_seed(0)
    first = estimator(planted_once(name), TOL[name], seed=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for block in (1, 7, 64):
        other = estimator(planted_once(name), TOL[name], seed=3, block=block)
        assert other.value == pytest.approx(first.value, rel=1e-12) and other.matvecs == first.matvecs
        assert other.stderr == pytest.approx(first.stderr, rel=1e-8)
    assert torch.equal(before, torch.get_rng_state())
    assert estimator(planted_once(name), TOL[name], seed=4).value != first.value


def test_float32() -> None:
    A = la.Dense(planted_once("spiked").matrix.float())
    assert trace(A, 0.02).value == pytest.approx(SPECTRA["spiked"].sum(), rel=0.02)
    assert frobenius_norm(A, 0.02).value == pytest.approx(np.linalg.norm(SPECTRA["spiked"]), rel=0.02)


@pytest.mark.parametrize("estimator", [trace, frobenius_norm])
@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"tol": 0}, ["tol", "0", "0.01"]),
        ({"tol": float("nan")}, ["tol", "nan"]),
        ({"max_matvecs": 9}, ["max_matvecs", "10", "9"]),
        ({"block": 0}, ["block", "0", "16"]),
    ],
)
def test_bad_options_are_named(estimator: Estimator, options: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        estimator(la.Dense(torch.eye(4)), **options)
    assert [part for part in fragments if part not in str(caught.value)] == []


def test_a_bare_matrix_and_an_overflow_are_named() -> None:
    with pytest.raises(OperandError, match=r"operator.*Tensor.*la.Dense"):
        trace(torch.eye(3))  # type: ignore[arg-type]
    with pytest.raises(NumericsError, match=r"product.*inf or nan.*float64"):
        trace(1e30 * la.Dense(1e30 * torch.eye(3)))


def test_the_basis_takes_no_more_than_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = planted_once("spiked")
    assert trace(operator, 0.02).method == "Hutch++"
    monkeypatch.setattr(adaptive, "device_memory", lambda device: 16 * 9 * 8 * operator.shape[0])
    assert trace(operator, 0.02).method != "Hutch++"  # nine vectors are no growth
