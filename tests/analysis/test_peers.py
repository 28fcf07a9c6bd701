"""Matrices and their numbers against curvlinops, and a deep linear network in closed form."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la

FLOAT = torch.float64


def problem() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    X, y = torch.randn(8, 4, dtype=FLOAT), torch.randint(0, 3, (8,))
    return model, [(X[:3], y[:3]), (X[3:], y[3:])]


@pytest.mark.parametrize(
    ("kind", "peer"),
    [(la.Hessian, "HessianLinearOperator"), (la.GGN, "GGNLinearOperator"), (la.EmpiricalFisher, "EFLinearOperator")],
)
def test_agrees_with_curvlinops(kind: Any, peer: str) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    model, data = problem()
    ours = kind(model, nn.CrossEntropyLoss(), data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = getattr(curvlinops, peer)(model, nn.CrossEntropyLoss(), list(model.parameters()), data)
        truth = other @ torch.eye(other.shape[0], dtype=FLOAT)
    assert float((ours.dense() - truth).norm()) <= 1e-10 * float(truth.norm())
    assert float((1.0001 * ours.dense() - truth).norm()) > 1e-10 * float(truth.norm())
    values = np.linalg.eigvalsh(truth.numpy())
    assert la.eigenpairs(ours, 2, tol=1e-8).values.numpy() == pytest.approx(values[:-3:-1], rel=1e-7)


@pytest.mark.parametrize("cap", [2**30, 0], ids=["retained", "fresh"])
def test_a_deep_linear_network_in_closed_form(cap: int) -> None:
    """L = mean (a b x − y)², m = mean x², c = mean xy: H = [[2 b² m, 4 a b m − 2 c], [·, 2 a² m]], G without −2 (c − a b m)."""
    torch.manual_seed(0)
    x, y = torch.randn(9, 1, dtype=FLOAT), torch.randn(9, 1, dtype=FLOAT)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    a, b = (layer.weight.item() for layer in model)
    m, c = float((x * x).mean()), float((x * y).mean())
    H, G = (kind(model, nn.MSELoss(), (x, y), memory_cap=cap).dense().numpy() for kind in (la.Hessian, la.GGN))
    assert H == pytest.approx(
        np.array([[2 * b * b * m, 4 * a * b * m - 2 * c], [4 * a * b * m - 2 * c, 2 * a * a * m]]), rel=1e-12
    )
    assert G == pytest.approx(2 * m * np.outer([b, a], [b, a]), rel=1e-12)
    assert H != pytest.approx(G, rel=1e-3)
