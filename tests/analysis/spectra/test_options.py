"""Options that no route takes, and what rounding leaves of an exact trace in low precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lemmata.analysis as la
from lemmata.analysis.curvature import per_layer
from lemmata.analysis.errors import ArgumentError, NumericsError

X, LABELS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def network(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 3))


MODEL = network()
OPERATORS: dict[str, Callable[[], la.Operator]] = {
    "exact": lambda: la.GGN(MODEL, F.cross_entropy, (X, LABELS)),
    "probes": lambda: la.Dense(torch.diag(torch.arange(1.0, 60.0))),
}
ESTIMATORS: dict[str, Callable[..., Any]] = {
    "trace": la.trace,
    "frobenius_norm": la.frobenius_norm,
    "diagonal": la.diagonal,
    "logdet": lambda operator, **options: la.logdet(operator.shift(1.0), **options),
    "eigenpairs": lambda operator, **options: la.eigenpairs(operator, 1, **options),
    "density": lambda operator, seed=0, tol=None: la.spectral_density(operator, 4, 2, seed=seed),
    "per_layer": lambda operator, **options: per_layer(operator, MODEL, **options),
}


@pytest.mark.parametrize("route", OPERATORS)
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("seed", ["x", 1.5, None, 2**64])
def test_a_seed_that_is_no_integer_is_refused(name: str, route: str, seed: Any) -> None:
    with pytest.raises(ArgumentError, match=r"seed.*integer of 64 bits.*Pass seed=0") as caught:
        ESTIMATORS[name](OPERATORS[route](), seed=seed)
    assert repr(seed) in str(caught.value)


@pytest.mark.parametrize("route", OPERATORS)
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "density"])
@pytest.mark.parametrize("tol", ["x", None, 1j, 2.0])
def test_a_tolerance_that_is_no_number_is_refused(name: str, route: str, tol: Any) -> None:
    with pytest.raises(ArgumentError, match=r"tol.*strictly between 0 and 1.*Pass a relative tolerance") as caught:
        ESTIMATORS[name](OPERATORS[route](), tol=tol)
    assert repr(tol) in str(caught.value)


def test_solve_refuses_a_tolerance_that_is_no_number() -> None:
    with pytest.raises(ArgumentError, match=r"tol.*'x'"):
        la.solve(la.Dense(torch.eye(3)), torch.ones(3), tol="x")  # type: ignore[arg-type]


def test_what_counts_as_a_number() -> None:
    A = OPERATORS["probes"]()
    assert la.trace(A, tol=np.float64(0.1)) == la.trace(A, tol=0.1)
    assert la.trace(A, seed=-(2**63)).converged


DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [la.GGN, la.Hessian])
def test_an_exact_trace_says_what_rounding_leaves(kind: Any, dtype: torch.dtype) -> None:
    eps, missed = torch.finfo(dtype).eps, 0
    for seed in range(5):
        torch.manual_seed(seed)
        model, x = network().to(dtype), torch.randn(60, 8).to(dtype)
        found = la.trace(kind(model, F.cross_entropy, (x, LABELS)), tol=0.5)
        dense = kind(copy.deepcopy(model).double(), F.cross_entropy, (x.double(), LABELS)).dense()
        truth, (low, high) = float(dense.trace()), found.interval()
        assert found.method == "per-example gradients" and found.stderr == 0 and found.converged
        assert low < truth < high and high - low < 20 * eps * truth
        assert "± 0 " not in repr(found)
        missed += abs(found.value - truth) > found.bias / 1000
        assert not la.trace(kind(model, F.cross_entropy, (x, LABELS)), tol=eps).converged
    assert missed >= 3  # an interval a thousand times as narrow would not do


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_probes_and_unit_vectors_in_low_precision(dtype: torch.dtype) -> None:
    values = torch.cat([torch.tensor([100.0, 50, 30]), torch.ones(197)])
    basis = torch.linalg.qr(torch.randn(200, 200, dtype=torch.float64))[0]
    matrix = (basis * values @ basis.T).to(dtype)
    A = la.Dense(torch.triu(matrix) + torch.triu(matrix, 1).T)
    truth = float(A.matrix.double().trace())
    for tol, method in ((0.1, "Hutch++"), (1e-3, "unit vectors")):
        found = la.trace(A, tol)
        low, high = found.interval(0.999)
        assert found.method == method and low < truth < high and found.bias > 0
        assert found.converged == (found.interval()[1] - found.value <= tol * found.value)
    norm = la.frobenius_norm(A, 0.1)
    low, high = norm.interval(0.999)
    assert low < float(A.matrix.double().norm()) < high and norm.bias > 0


def test_zero_to_rounding_has_converged_and_near_zero_has_not() -> None:
    whole = torch.diag(torch.tensor([1.0, -1.0]))
    assert la.trace(la.Dense(whole)).converged
    near = la.trace(la.Dense(torch.diag(torch.tensor([1.0, -1.0 + 1e-5]))))
    assert not near.converged and near.interval()[0] < 1e-5 < near.interval()[1]


def test_an_exact_trace_that_overflows_is_named() -> None:
    model = nn.Linear(8, 3, bias=False)
    nn.init.zeros_(model.weight)
    with pytest.raises(NumericsError, match=r"single example.*inf or nan.*float64"):
        la.trace(la.GGN(model, nn.MSELoss(), (X[:5] * 1e25, torch.zeros(5, 3))))
