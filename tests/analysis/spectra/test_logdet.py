"""Log-determinants against numpy.linalg.slogdet and planted spectra: brackets, coverage, routes and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, NumericsError, OperandError
from lemmata.analysis.spectra.floor import floor
from lemmata.analysis.spectra.krylov import Krylov
from lemmata.analysis.spectra.logarithm import Logarithm
from lemmata.analysis.spectra.probes import Probes

SIZE = 300
SPECTRA = {
    "flat": np.linspace(0.5, 1.5, SIZE),
    "geometric": 0.98 ** np.arange(SIZE) + 1e-2,
    "spiked": np.r_[1000, 300, 100, np.linspace(0.9, 1.1, SIZE - 3)],
    "low rank": np.r_[np.geomspace(100, 0.01, 30), np.zeros(SIZE - 30)] + 1e-2,
    "units": 1e-6 * np.linspace(0.5, 1.5, SIZE),
}
TOL = {"flat": 0.02, "geometric": 0.2, "spiked": 0.05, "low rank": 0.2, "units": 0.02}
CACHE: dict[str, la.Dense] = {}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def planted(name: str, values: np.ndarray | None = None) -> la.Dense:
    if name not in CACHE:
        values = SPECTRA[name] if values is None else values
        basis = np.linalg.qr(np.random.default_rng(1).standard_normal((len(values), len(values))))[0]
        matrix = torch.from_numpy(basis * values @ basis.T)
        CACHE[name] = la.Dense((matrix + matrix.T) / 2)
    return CACHE[name]


def half(found: la.Estimate) -> float:
    return found.interval()[1] - found.value


@pytest.mark.parametrize("steps", [2, 5, 12])
@pytest.mark.parametrize("name", SPECTRA)
def test_every_form_lies_in_its_bracket(name: str, steps: int) -> None:
    operator, least = planted(name), float(SPECTRA[name].min()) * (1 - 1e-9)
    probes = Probes(operator, 0).draw(8)
    values, vectors = np.linalg.eigh(operator.matrix.numpy())
    truth = (probes.numpy() @ vectors / np.sqrt(SIZE)) ** 2 @ np.log(values)
    run = Krylov(operator, probes)
    run.advance(steps)
    logarithm = Logarithm(operator, steps, least)
    found = [logarithm.bracket(*pair) for pair in run.coefficients(steps)]
    slack = max(one.rounding for one in found)
    assert all(one.low - slack <= form <= one.high + slack for one, form in zip(found, truth, strict=True))
    if found[0].high - found[0].low > 100 * slack:  # the ends are told apart: neither rule alone is the truth
        assert all(one.low < form < one.high for one, form in zip(found, truth, strict=True))
    too_high = Logarithm(operator, steps, 1.01 * float(found[0].nodes[0]))
    with pytest.raises(ArgumentError, match=r"at_least.*expected at most.*leave it out"):
        too_high.bracket(*run.coefficients(steps)[0])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", SPECTRA)
def test_values_tolerances_and_records(name: str, known: bool) -> None:
    least = float(SPECTRA[name].min()) * (1 - 1e-9) if known else None
    truth = np.linalg.slogdet(planted(name).matrix.numpy())[1]
    for tol in (TOL[name], 1e-3):
        found = la.logdet(planted(name), tol, at_least=least)
        assert found.converged and half(found) <= tol * SIZE
        assert abs(found.value - truth) <= 2 * half(found) + 1e-6
        assert la.Estimate.from_dict(found.to_dict()) == found


def test_coverage_stopping_included() -> None:
    truth = float(np.log(SPECTRA["flat"]).sum())
    found = [la.logdet(planted("flat"), 0.018, seed=seed, at_least=0.4) for seed in range(80)]
    random = [one for one in found if one.stderr]
    assert len(random) >= 60 and len({one.matvecs for one in random}) > 1
    share = np.mean([abs(one.value - truth) <= half(one) for one in random])
    assert share >= 0.89  # 95 % less two and a half standard errors of a share of 80
    halved = [replace(one, stderr=one.stderr / 2) for one in random]
    assert np.mean([abs(one.value - truth) <= half(one) for one in halved]) < 0.87


def test_too_few_steps_show_in_the_interval() -> None:
    truth = np.log(SPECTRA["low rank"]).sum()
    found = la.logdet(planted("low rank"), 0.01, max_matvecs=66, at_least=0.01 * (1 - 1e-9))
    assert not found.converged and found.matvecs <= 66
    assert found.bias > 0.01 * SIZE and abs(found.value - truth) <= half(found)
    unknown = la.logdet(planted("low rank"), 0.01, max_matvecs=44)
    assert not unknown.converged and half(unknown) == np.inf


def test_deflation_makes_outliers_exact() -> None:
    spiked = np.r_[1000, 300, 100, np.ones(3 * SIZE)]
    found = la.logdet(planted("outliers", spiked), 1e-3)
    assert found.method == "Hutch++" and found.matvecs <= SIZE
    assert found.value == pytest.approx(np.log(spiked).sum(), abs=1e-5)
    geometric = la.logdet(planted("geometric"), 1e-3)
    assert geometric.method == "dense matrix" and geometric.stderr == 0
    assert geometric.matvecs <= 3 * SIZE


def test_a_unit_of_the_operator_is_no_accuracy() -> None:
    one, other = la.logdet(planted("flat"), seed=3), la.logdet(planted("units"), seed=3)
    assert other.matvecs == one.matvecs and half(other) == pytest.approx(half(one), rel=1e-6)
    assert other.value - one.value == pytest.approx(SIZE * np.log(1e-6), rel=1e-9)


@pytest.mark.parametrize("name", SPECTRA)
def test_same_seed_same_result_whatever_the_block(name: str) -> None:
    first = la.logdet(planted(name), TOL[name], seed=3, at_least=1e-9)
    for block in (1, 7, 64):
        other = la.logdet(planted(name), TOL[name], seed=3, block=block, at_least=1e-9)
        assert other.value == pytest.approx(first.value, rel=1e-10) and other.matvecs == first.matvecs
    if first.stderr:
        assert la.logdet(planted(name), TOL[name], seed=4).value != first.value


def test_float32() -> None:
    A = la.Dense(planted("flat").matrix.float())
    found = la.logdet(A, 0.02)
    assert found.converged and abs(found.value - np.log(SPECTRA["flat"]).sum()) <= 1.5 * half(found)
    near = la.Dense((planted("low rank").matrix - 9.9e-3 * torch.eye(SIZE)).float())
    with pytest.raises(OperandError, match=r"positive definite.*rounding is 0.000.*Add damping"):
        la.logdet(near)
    rough = la.logdet(near, 0.01, at_least=9.9e-5)
    assert not rough.converged  # the damping of 10⁻⁴ is a few roundings of the largest eigenvalue
    assert abs(rough.value - np.log(SPECTRA["low rank"] - 9.9e-3).sum()) <= half(rough)


def perceptron() -> tuple[nn.Module, Tensor, Tensor]:
    net = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    return net, torch.randn(20, 5).double(), torch.randint(0, 3, (20,))


@pytest.mark.parametrize("kind", [la.GGN, la.Fisher, la.EmpiricalFisher])
def test_gram_route_against_slogdet(kind: Any) -> None:
    net, x, y = perceptron()
    G = kind(net, nn.CrossEntropyLoss(), (x, y))
    for damping in (1.0, 1e-3):
        found = la.logdet(G.shift(damping), 1e-6)
        truth = np.linalg.slogdet(G.dense().numpy() + damping * np.eye(len(G.gradient)))[1]
        assert found.method == "per-example gradients" and found.converged and found.stderr == 0
        assert abs(found.value - truth) <= found.bias + 1e-8 < 1e-4
    with pytest.raises(OperandError, match=r"positive definite.*at most 0.*Add damping"):
        la.logdet(G)


def test_regression_in_closed_form() -> None:
    X = torch.randn(30, 6).double()
    G = la.GGN(nn.Linear(6, 1, bias=False).double(), nn.MSELoss(), (X, torch.zeros(30, 1).double()))
    truth = torch.logdet(2 / 30 * X.T @ X + 0.1 * torch.eye(6).double())
    found = la.logdet(G.shift(0.1))  # more rows than parameters: six products are fewer than ten probes
    assert found.method == "dense matrix" and found.value == pytest.approx(float(truth), rel=1e-10)
    batches = [(X[:15], torch.zeros(15, 1).double()), (X[15:], torch.zeros(15, 1).double())]
    parts = la.GGN(nn.Linear(6, 1, bias=False).double(), nn.MSELoss(), batches)
    assert la.logdet(parts.shift(0.1)).value == pytest.approx(float(truth), rel=1e-10)


def test_floor_follows_from_how_an_operator_was_made() -> None:
    net, x, y = perceptron()
    F, E = (kind(net, nn.CrossEntropyLoss(), (x, y)) for kind in (la.Fisher, la.EmpiricalFisher))
    assert floor((2 * F).shift(0.5)) == 0.5 and floor(E.shift(1.0) + F) == 1.0
    assert floor(F.shift(0.5).restrict("0.*")) == floor(F.shift(0.5).block_diagonal()) == 0.5
    assert floor(-F) == floor(F - E) == floor(planted("flat").shift(3)) == -np.inf
    for made in ((2 * F).shift(0.5), E.shift(1.0) + F, F.shift(0.5).block_diagonal()):
        assert float(torch.linalg.eigvalsh(made.dense())[0]) >= floor(made) - 1e-12


@pytest.mark.parametrize("least", [-0.5, -1e-3, 0.0])
def test_indefinite_and_singular_operators_are_refused(least: float) -> None:
    operator = planted(f"indefinite {least}", np.r_[np.linspace(1, 2, SIZE - 1), least])
    with pytest.raises(OperandError) as caught:
        la.logdet(operator, 0.01)
    remedy = ["Dense", "positive definite", "an eigenvalue of at most", "Add damping", "operator.shift(c) with c >"]
    assert [part for part in remedy if part not in str(caught.value)] == []
    damped = la.logdet(operator.shift(0.6), 0.02)
    assert damped.value == pytest.approx(np.log(np.r_[np.linspace(1, 2, SIZE - 1), least] + 0.6).sum(), abs=0.04 * SIZE)


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"tol": 0}, ["tol", "0", "0.01"]),
        ({"max_matvecs": 19}, ["max_matvecs", "20", "19"]),
        ({"block": 0}, ["block", "0", "16"]),
        ({"at_least": float("inf")}, ["at_least", "inf", "damping"]),
        ({"at_least": 0.6}, ["at_least", "0.6", "damping"]),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        la.logdet(la.Dense(0.5 * torch.eye(4)), **options)
    assert [part for part in fragments if part not in str(caught.value)] == []


def test_an_overflow_is_named() -> None:
    with pytest.raises(NumericsError, match=r"finite products.*inf or nan"):
        la.logdet(1e30 * la.Dense(1e30 * torch.eye(3)))
