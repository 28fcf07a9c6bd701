"""Linear systems against numpy.linalg.solve and pinv, scipy's minres and cg, and a regression in closed form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, NumericsError, OperandError

SIZE = 80
DEFINITE = {
    "flat": np.linspace(0.5, 1.5, SIZE),
    "geometric": 0.9 ** np.arange(SIZE) + 1e-3,
    "spiked": np.r_[1000, 300, 100, np.ones(SIZE - 3)],
}
INDEFINITE = {"indefinite": np.linspace(-1, 2, SIZE) + 1e-3, "pair": np.tile([1.0, -1.0], SIZE // 2)}
SINGULAR = {
    "rank 20": np.r_[np.linspace(-1, 3, 20), np.zeros(SIZE - 20)],
    "semidefinite": np.r_[np.geomspace(0.1, 10, 20), np.zeros(SIZE - 20)],
    "one zero": np.r_[np.linspace(1, 2, SIZE - 1), 0],
    "zero": np.zeros(SIZE),
}
B = torch.from_numpy(np.random.default_rng(0).standard_normal((SIZE, 3)))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def planted(values: np.ndarray, dtype: torch.dtype = torch.float64) -> la.Dense:
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((len(values), len(values))))[0]
    matrix = torch.from_numpy(basis * values @ basis.T)
    return la.Dense(((matrix + matrix.T) / 2).to(dtype))


def measured(operator: la.Dense, found: la.Solution, b: Tensor) -> np.ndarray:
    """Relative residuals by numpy."""
    gap = b.double().numpy() - operator.matrix.double().numpy() @ found.x.double().numpy()
    return np.linalg.norm(gap, axis=0) / np.linalg.norm(b.double().numpy(), axis=0)


@pytest.mark.parametrize("tol", [1e-4, 1e-10])
@pytest.mark.parametrize("name", [*DEFINITE, *INDEFINITE])
def test_residual_and_error_against_numpy(name: str, tol: float) -> None:
    values = {**DEFINITE, **INDEFINITE}[name]
    A = planted(values)
    found = la.solve(A, B, tol)
    truth = np.linalg.solve(A.matrix.numpy(), B.numpy())
    assert found.converged and np.all(measured(A, found, B) <= tol)
    np.testing.assert_allclose(found.relative, measured(A, found, B), rtol=1e-3, atol=1e-14)
    away = np.linalg.norm(found.x.numpy() - truth, axis=0)
    assert np.all(away <= tol * np.linalg.norm(B, axis=0) / np.abs(values).min())
    assert torch.isinf(found.errors).all()


@pytest.mark.parametrize("name", DEFINITE)
def test_error_bound_holds_and_a_thousandth_does_not(name: str) -> None:
    values, A = DEFINITE[name], planted(DEFINITE[name])
    found = la.solve(A, B, 1e-3, at_least=float(values.min()))
    away = np.linalg.norm(found.x.numpy() - np.linalg.solve(A.matrix.numpy(), B.numpy()), axis=0)
    assert np.all(away <= found.errors.numpy() + 1e-12)
    if name != "spiked":  # solved to rounding in four steps
        assert np.all(away > found.errors.numpy() / 1000)


@pytest.mark.parametrize("name", [*DEFINITE, *INDEFINITE])
def test_no_more_steps_than_scipy_needs(name: str) -> None:
    A = planted({**DEFINITE, **INDEFINITE}[name])
    spent, tol, norm = [0], 1e-8, float(B[:, 0].norm())

    def count(x: np.ndarray) -> None:
        if np.linalg.norm(B[:, 0].numpy() - A.matrix.numpy() @ x) > tol * norm:
            spent[0] += 1

    peer = scipy.sparse.linalg.cg if name in DEFINITE else scipy.sparse.linalg.minres
    peer(A.to_scipy(), B[:, 0].numpy(), rtol=1e-12, maxiter=2000, callback=count)
    found = la.solve(A, B[:, 0], tol)
    assert found.converged and found.matvecs <= spent[0] + 2 + 8 + 1  # a look in eight steps, a measurement


def test_regression_in_closed_form() -> None:
    X = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = X @ torch.arange(6.0, dtype=torch.float64)[:, None] + 1
    net = nn.Linear(6, 1, bias=False).double()
    G = la.GGN(net, nn.MSELoss(), (X, y))
    found = la.solve(G.shift(0.1), G.gradient, 1e-12, at_least=0.1)
    step = net.weight.detach()[0] - found.x
    ridge = torch.linalg.solve(
        2 / 30 * X.T @ X + 0.1 * torch.eye(6), 2 / 30 * X.T @ y[:, 0] + 0.1 * net.weight.detach()[0]
    )
    torch.testing.assert_close(step, ridge)  # one damped Newton step minimises loss + damping
    fisher = la.Fisher(net, nn.MSELoss(), (X, y)).shift(0.1)
    known = la.solve(fisher, G.gradient)
    assert known.at_least == 0.1 and "‖x − A⁻¹b‖ ≤" in repr(known)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_systems_have_the_pseudo_inverse(name: str, dtype: torch.dtype) -> None:
    A, exact = planted(SINGULAR[name], dtype), planted(SINGULAR[name]).matrix.numpy()
    inverse, root = np.linalg.pinv(exact, rcond=1e-10), torch.finfo(dtype).eps ** 0.5
    outside = la.solve(A, B.to(dtype), 1e-5)
    best = B.numpy() - exact @ inverse @ B.numpy()
    assert not outside.converged and "not converged" in repr(outside)
    np.testing.assert_allclose(outside.residuals, np.linalg.norm(best, axis=0), rtol=10 * root)
    truth = inverse @ B.numpy()
    slack = 100 * root * np.linalg.norm(truth) + 1e-12
    assert np.linalg.norm(outside.x.double().numpy() - truth) <= slack * 10
    inside = torch.from_numpy(exact @ B.numpy())
    found = la.solve(A, inside.to(dtype), 1e-5)
    assert found.converged
    assert np.linalg.norm(found.x.double().numpy() - inverse @ inside.numpy()) <= 1e-2 * np.linalg.norm(inside) + 1e-12


def test_float32_says_what_it_cannot_reach() -> None:
    values = np.r_[np.geomspace(1e-2, 10, 30), np.zeros(SIZE - 30)] + 1e-3
    A, b = planted(values, torch.float32), B.float()
    assert la.solve(A, b, 1e-3).converged  # a condition number of 10⁴, most of b at its low end
    hard = la.solve(A, b, 1e-7)
    assert not hard.converged and np.all(measured(A, hard, b) < 1e-3)
    rounding = 1e-7 * 10 * hard.x.norm(dim=0) / b.norm(dim=0)  # of Ax, in which the residual is measured
    assert np.all(np.abs(hard.relative.numpy() - measured(A, hard, b)) <= rounding.numpy())
    assert la.solve(la.Dense(A.matrix.double()), B, 1e-7).converged


@pytest.mark.parametrize("name", [*DEFINITE, *INDEFINITE, "rank 20"])
def test_a_block_equals_its_columns(name: str) -> None:
    A, mixed = planted({**DEFINITE, **INDEFINITE, **SINGULAR}[name]), B * torch.tensor([1.0, 1e-6, 0.0]).double()
    together = la.solve(A, mixed, 1e-8)
    for column in range(3):
        alone = la.solve(A, mixed[:, column], 1e-8)
        assert alone.x.shape == (SIZE,) and alone.residuals.shape == ()
        gap = (alone.x - together.x[:, column]).norm()
        assert gap <= 1e-12 * max(float(alone.x.norm()), 1e-300) * (1e4 if name == "rank 20" else 1)
    assert not together.x[:, 2].any()


def test_trivial_sizes_records_and_plots() -> None:
    one = la.solve(la.Dense(torch.tensor([[-2.0]])), torch.tensor([3.0]))
    assert one.converged and float(one.x) == pytest.approx(-1.5)
    assert la.solve(planted(DEFINITE["flat"]), 0 * B).matvecs == 0
    found = la.solve(planted(DEFINITE["flat"]), B, at_least=0.5)
    back = la.Solution.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(back.x, found.x) and torch.equal(back.errors, found.errors) and back.matvecs == found.matvecs
    assert "80 × 3 entries" in repr(found) and found.plot().get_yscale() == "log"


def test_too_few_steps_are_owned_up_to() -> None:
    found = la.solve(planted(DEFINITE["geometric"]), B, 1e-10, max_steps=5)
    assert not found.converged and found.matvecs == 18 and (found.relative > 1e-10).all()


@pytest.mark.parametrize(
    ("rhs", "options", "kind", "fragments"),
    [
        (B[:5], {}, OperandError, ["right operand", "80", "(5, 3)", "shape (P,)"]),
        (B.float(), {}, OperandError, ["float64", "float32"]),
        (B * torch.nan, {}, OperandError, ["rhs", "finite", "overflow"]),
        (B, {"tol": 0}, ArgumentError, ["tol", "0", "1e-6"]),
        (B, {"tol": -1.0}, ArgumentError, ["tol", "-1.0"]),
        (B, {"max_steps": 0}, ArgumentError, ["max_steps", "0", "1000"]),
        (B, {"at_least": float("nan")}, ArgumentError, ["at_least", "nan", "damping"]),
    ],
)
def test_bad_input_is_named(rhs: Tensor, options: dict[str, Any], kind: type[Exception], fragments: list[str]) -> None:
    with pytest.raises(kind) as caught:
        la.solve(planted(DEFINITE["flat"]), rhs, **options)
    assert [part for part in fragments if part not in str(caught.value)] == []


def test_an_overflow_is_named() -> None:
    with pytest.raises(NumericsError, match=r"Scaled.*inf or nan.*float64"):
        la.solve(1e30 * la.Dense(1e30 * torch.eye(3)), torch.ones(3))
