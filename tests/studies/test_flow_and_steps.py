"""Flow and steps: curvatures by differences of the gradient, quadratics in closed form, modes where they start."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lemmata.analysis.gradient_flow import penalised
from lemmata.studies.gradient_flow import flow_and_steps
from lemmata.studies.training import descent

pytestmark = pytest.mark.usefixtures("double")


def test_the_time_is_two_over_the_largest_curvature() -> None:
    loss, start, time = flow_and_steps.problem("mlp", 1)
    steps = 1e-5 * torch.eye(len(start))
    hessian = torch.stack([(loss(start + h)[1] - loss(start - h)[1]) / 2e-5 for h in steps])
    assert time == pytest.approx(2 / float(torch.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]), rel=1e-3)


def test_the_modified_flow_of_a_quadratic_follows_the_powers() -> None:
    """(1 − ηλ)^k against e^(−(λ + ηλ²/2) kη): the distance is η²λ³/3 e^(−λ) at time one, to leading order."""
    curvature, count = 1.5, 64

    def quadratic(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.5 * curvature * x @ x, curvature * x

    start = torch.ones(1)
    steps = flow_and_steps.after(descent(quadratic, start, 1 / count), count)
    reference = flow_and_steps.at(penalised(quadratic, 0.25 / count), start, 1.0, 1e-8)
    assert steps.item() == pytest.approx((1 - curvature / count) ** count)
    assert reference.item() == pytest.approx(math.exp(-curvature - curvature**2 / (2 * count)), rel=1e-7)
    leading = curvature**3 / 3 / count**2 * math.exp(-curvature)
    assert (reference - steps).item() == pytest.approx(leading, rel=0.1)


@pytest.mark.parametrize("layers", [1, 2])
def test_modes_start_where_they_are_said_to(layers: int) -> None:
    times, found = flow_and_steps.Modes(1, 0.02, layers, aligned=True).path(0.05, descending=True)
    assert np.allclose(found[0], 0.02 * np.eye(3), atol=1e-14) and len(times) == len(found) == 101
    s = np.array(flow_and_steps.STRENGTHS)
    if layers == 1:
        assert np.allclose(found[1], np.diag(0.02 + 0.05 * (s - 0.02)), atol=1e-14)
    else:
        assert np.allclose(found[1], np.diag(0.02 * (1 + 0.05 * (s - 0.02)) ** 2), atol=1e-14)


def test_the_trials_part_from_their_controls() -> None:
    plain = dict(network="mlp", coarsest=8, seed=1)
    assert abs(flow_and_steps.gd_vs_gradient_flow(**plain)["value"] - 1) < 0.1
    assert flow_and_steps.gd_vs_gradient_flow(**plain, single=True)["value"] > 1.8
    assert abs(flow_and_steps.gd_vs_gradient_flow_modified(**plain)["value"] - 2) < 0.1
    for share in (0.5, -0.25):
        assert flow_and_steps.gd_vs_gradient_flow_modified(**plain, share=share)["value"] < 1.3
    modes = dict(start=0.1, seed=1)
    assert flow_and_steps.saxe_mode_learning(**modes, steps=200)["value"] < 1e-5
    halves = dict(strength=3.0, start=1e-3, steps=200, seed=1)
    assert abs(flow_and_steps.saxe_mode_learning_half_times(**halves) - math.log(2999) / 6) < 0.01
    steps = dict(**modes, coarsest=100)
    assert abs(flow_and_steps.saxe_mode_learning_steps(**steps) - 1) < 0.05
    for control in (dict(layers=1), dict(aligned=False)):
        assert flow_and_steps.saxe_mode_learning(**modes, steps=200, **control)["value"] > 0.1
        assert abs(flow_and_steps.saxe_mode_learning_half_times(**halves, **control) - math.log(2999) / 6) > 0.05
        assert flow_and_steps.saxe_mode_learning_steps(**steps, **control) < 0.5
    assert flow_and_steps.saxe_mode_learning_half_times(1.0, 1e-5, 100, seed=1) == flow_and_steps.HORIZON
