"""The parts of a Hessian: the study's own pieces against differences, and each control at one cheap point."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lemmata.studies.curvature import gauss_newton as study
from lemmata.studies.training import flat_parameters

pytestmark = pytest.mark.usefixtures("double")


def test_the_two_parts_add_up_to_differences_of_gradients() -> None:
    problem = study.Classifier("mlp", 0)
    G, R = problem.parts()
    theta, h = flat_parameters(problem.module), 1e-5

    def slope(flat: torch.Tensor) -> torch.Tensor:
        leaf = flat.clone().requires_grad_()
        return torch.autograd.grad(nn.functional.cross_entropy(problem.logits(leaf), problem.labels), leaf)[0]

    columns = [(slope(theta + h * e) - slope(theta - h * e)) / (2 * h) for e in torch.eye(len(theta))]
    H = torch.stack(columns, 1)
    assert float((H - G - R).norm() / H.norm()) < 1e-8
    assert float(torch.linalg.eigvalsh(G)[0]) > -1e-15 and float(R.norm()) > 1e-3 * float(G.norm())


@pytest.mark.parametrize("architecture", study.CHOSEN)
def test_identities_hold_and_their_controls_fail(architecture: str) -> None:
    assert study.ggn_plus_residual(architecture, 0) < 1e-12 < study.ggn_plus_residual(architecture, 0, residual=False)
    assert study.fisher_is_ggn(architecture, 0) < 1e-12 < 0.01 < study.fisher_is_ggn(architecture, 0, empirical=True)


@pytest.mark.parametrize("model", ["MLP", "CNN"])
def test_residual_traces(model: str) -> None:
    assert study.relu_residual_traceless(model, 0) < 1e-12
    assert study.relu_residual_traceless(model, 0, activation="tanh") > 1e-4
    assert study.relu_residual_traceless(model, 0, shared=True) > 1e-4


def test_ranks_and_traces() -> None:
    assert study.ggn_rank_count(3, 4, 0)["value"] == 0
    assert study.ggn_rank_count(3, 4, 0, twice=True)["value"] == -2
    assert study.ggn_rank_count(3, 4, 0, squared=True)["value"] == 4
    assert study.linear_hessian_trace(4, 0) < 1e-12 < 1e-3 < study.linear_hessian_trace(4, 0, bent=True)
    assert study.relu_trace_at_initialisation(2000, 0) == pytest.approx(1, abs=0.1)
    assert study.relu_trace_at_initialisation(2000, 0, double=True) == pytest.approx(1.5, abs=0.1)


def test_the_mean_trace_formula_by_integration_for_one_unit() -> None:
    """One unit, one input x: tr H = a² x² 1[wx > 0] + (wx)₊², whose mean over standard normal a, w is x²."""
    a, w = torch.randn(2, 400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = 1.7
    trace = a**2 * x**2 * (w * x > 0) + (w * x).clamp(min=0) ** 2
    assert float(trace.mean()) == pytest.approx(x**2, rel=0.02)
