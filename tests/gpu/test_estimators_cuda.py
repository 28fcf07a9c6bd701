"""Every estimator and analyzer of curvature on CUDA against the same on the CPU, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis import curvature

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no CUDA device")

FLOAT = torch.float64


def problem(hidden: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), hidden, nn.Linear(8, 3)).double()
    return model, torch.randn(20, 6, dtype=FLOAT), torch.arange(20) % 3


def both(hidden: nn.Module, measure: Callable[[nn.Module, Any], Any]) -> tuple[Any, Any]:
    """The same measurement on the CPU and on CUDA."""
    model, X, y = problem(hidden)
    here = measure(model, [(X[:7], y[:7]), (X[7:], y[7:])])
    X, y = X.cuda(), y.cuda()
    return here, measure(copy.deepcopy(model).cuda(), [(X[:7], y[:7]), (X[7:], y[7:])])


LOSS = nn.CrossEntropyLoss()
NUMBERS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "trace": lambda m, d: la.trace(la.Hessian(m, LOSS, d), 0.1).value,
    "trace of the GGN": lambda m, d: la.trace(la.GGN(m, LOSS, d)).value,
    "error of the data": lambda m, d: [la.trace(kind(m, LOSS, d), 0.1).data_stderr for kind in (la.Hessian, la.GGN)],
    "norm": lambda m, d: la.frobenius_norm(la.Hessian(m, LOSS, d), 0.1).value,
    "diagonal": lambda m, d: la.diagonal(la.Hessian(m, LOSS, d), 0.3).values,
    "diagonal of the GGN": lambda m, d: la.diagonal(la.GGN(m, LOSS, d)).values,
    "density": lambda m, d: la.spectral_density(la.Hessian(m, LOSS, d), 10, 4).evaluate(torch.linspace(-1, 2, 30), 0.1),
    "eigenpairs": lambda m, d: la.eigenpairs(la.Hessian(m, LOSS, d), 3, "both", tol=1e-7).values,
    "logdet": lambda m, d: la.logdet(la.Fisher(m, LOSS, d).shift(0.1), 0.1).value,
    "solve": lambda m, d: la.solve((H := la.Hessian(m, LOSS, d)).shift(2.0), H.gradient, tol=1e-11).x,
    "gram spectrum": lambda m, d: la.gram_spectrum(la.GGN(m, LOSS, d[1:]))[:10],
    "kernel": lambda m, d: la.NTK(m, d[0][0]).dense(),
    "jacobian": lambda m, d: la.Jacobian(m, d[0][0]).dense(),
    "empirical Fisher": lambda m, d: la.EmpiricalFisher(m, LOSS, d).dense(),
    "slice": lambda m, d: curvature.loss_slice(m, LOSS, d, curvature.random_directions(m, 2, seed=0), points=5).losses,
    "classes": lambda m, d: torch.cat(
        [curvature.class_structure(m, LOSS, d).eigenvalues(part)[:3].cpu() for part in ("class", "cross")]
    ),
    "sharpness": lambda m, d: [measure.value for measure in curvature.sharpness(m, LOSS, d).measures],
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("hidden", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
def test_cuda_equals_cpu(name: str, hidden: nn.Module) -> None:
    here, there = (torch.as_tensor(found, dtype=FLOAT).cpu() for found in both(hidden, NUMBERS[name]))
    tol = 1e-2 if name == "sharpness" else 1e-8  # the panel's eigenvalues are only as near as its tolerance
    assert here.shape == there.shape and float((here - there).norm()) <= tol * float(here.norm())
    assert float((1.1 * here - there).norm()) > tol * float(here.norm())


def test_the_audit_passes() -> None:
    assert all(found.passed for found in both(nn.Tanh(), lambda m, d: la.audit(la.Hessian(m, LOSS, d))))
