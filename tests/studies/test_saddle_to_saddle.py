"""From saddle to saddle: jumps by hand and by their conditions, gradients by differences, modes by their closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from lemmata.analysis.gradient_flow import mode_time
from lemmata.studies.gradient_flow import saddle_to_saddle as study

pytestmark = pytest.mark.usefixtures("double")


def test_jumps_of_features_that_do_not_see_each_other() -> None:
    """Each jumps when its own slope has summed to one, to its own solution."""
    found = study.jumps_of(np.diag([2.0, 1.0, 0.5]), np.array([-0.5, 4.0, 1.0]))
    assert [one.feature for one in found] == [1, 2, 0]
    assert np.allclose([one.time for one in found], [1 / 4, 1.0, 2.0])
    assert np.allclose(found[-1].saddle, [-0.25, 4.0, 2.0]) and np.allclose(found[0].saddle, [0, 4.0, 0])


@pytest.mark.parametrize("seed", [0, 4])
def test_saddles_are_stationary_on_their_features_and_end_at_least_squares(seed: int) -> None:
    problem = study.Diagonal(seed)
    C, m = problem.C.numpy(), problem.m.numpy()
    found = study.jumps_of(C, m)
    assert np.allclose(found[-1].saddle, np.linalg.solve(C, m))
    assert all(a.time < b.time for a, b in pairwise(found))
    charges, before = np.zeros(study.FEATURES), (0.0, np.zeros(study.FEATURES))
    for one in found:  # summed by hand, the slope of the new feature is ±1 when it jumps, and none is beyond
        charges = charges + (one.time - before[0]) * (m - C @ before[1])
        assert abs(abs(charges[one.feature]) - 1) < 1e-9 and np.abs(charges).max() < 1 + 1e-9
        on = one.saddle != 0
        assert np.allclose((C @ one.saddle - m)[on], 0, atol=1e-9) and np.all(
            np.sign(one.saddle[on]) == np.sign(charges[on])
        )
        before = one.time, one.saddle


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_gradient_is_that_of_the_loss(depth: int) -> None:
    objective = study.Diagonal(1).objective(depth)
    w = 0.5 + torch.rand(2 * study.FEATURES, generator=torch.Generator().manual_seed(0))
    slope = objective(w)[1]
    steps = 1e-6 * torch.eye(len(w))
    differences = torch.stack([(objective(w + h)[0] - objective(w - h)[0]) / 2e-6 for h in steps])
    assert torch.allclose(slope, differences, atol=1e-7) and not torch.allclose(slope.roll(1), differences, atol=1e-2)


def test_first_passages_lie_on_the_line() -> None:
    times = np.array([0.0, 1.0, 2.0, 3.0])
    assert study.first_passage(times, np.array([0.0, 0.0, 1.0, 0.0]), 0.25) == 1.25
    assert study.first_passage(times, np.zeros(4), 0.5) == 3.0 and study.first_passage(times, np.ones(4), 0.5) == 0.0


def test_a_single_feature_follows_the_sigmoid() -> None:
    """β = (u² − v²)/2 with one feature: u² grows as a mode of two layers, v² dies; half-times to the order of α²."""
    problem = study.Diagonal(0)
    problem.C, problem.m = torch.eye(study.FEATURES), torch.zeros(study.FEATURES)
    problem.m[0] = 2.0
    size = math.log(1e4)
    truth = mode_time(2.0, 0.5e-8, 1.0)  # u²/2 is a mode of strength 2 from α²/2
    times = np.linspace(0, 2 * truth, 400)
    beta = problem.path(math.exp(-size), 2, times)[:, 0].numpy()
    assert study.first_passage(times, beta, 1.0) == pytest.approx(truth, rel=2e-3)


def test_the_trials_part_from_their_controls() -> None:
    found = study.saddle_to_saddle(seed=0)
    assert abs(found["value"] - 1) < 0.05
    gaps = np.abs(found["losses"] - found["limit"]).mean(1)
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]  # nearer and nearer to the staircase
    for control in (dict(shrunk=0.02), dict(depth=1), dict(depth=3)):
        assert abs(study.saddle_to_saddle(seed=0, **control)["value"] - 1) > 0.2
    assert abs(study.saddle_to_saddle_modes(seed=1) - 1) < 0.05
    for layers in (1, 3):
        assert abs(study.saddle_to_saddle_modes(seed=1, layers=layers) - 1) > 0.5
