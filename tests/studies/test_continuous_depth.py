"""Continuous depth: the pieces against closed forms and other channels, and every control fails at one cheap point."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lemmata.studies.architectures.continuous_depth import (
    RADII,
    concentric,
    concentric_augmentation,
    concentric_floor,
    flow,
    node_1d_no_crossing,
    node_1d_no_crossing_augmented,
    node_1d_no_crossing_order,
    sphere,
    steepness,
)

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("points", [2, 3, 5])
def test_the_floor_is_the_least_error_of_increasing_sequences(points):
    """Brute force over increasing outputs on a grid: none comes below (m + 1)/(3 (m − 1)), and zero outputs attain it."""
    x = torch.linspace(-1, 1, points)
    floor = (points + 1) / (3 * (points - 1))
    grid = torch.linspace(-1.2, 1.2, 9).tolist()
    errors = [
        (torch.tensor(a) + x).square().mean().item() for a in itertools.combinations_with_replacement(grid, points)
    ]
    assert min(errors) == pytest.approx(floor, abs=1e-12)
    assert x.square().mean().item() == pytest.approx(floor)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_ball_and_the_shell_are_filled_evenly(dimension):
    x, labels = concentric(dimension, 20_000, torch.Generator().manual_seed(0))
    radius = x.norm(dim=1)
    inner, low, high = RADII
    ball, shell = radius[labels[:, 0] < 0], radius[labels[:, 0] > 0]
    assert len(ball) == len(shell) == 10_000
    assert ball.max() <= inner and shell.min() >= low - 1e-12 and shell.max() <= high + 1e-12
    half = 0.5 ** (1 / dimension)  # half of the volume lies within this share of the radius
    assert (ball < half * inner).double().mean().item() == pytest.approx(0.5, abs=0.02)
    middle = ((low**dimension + high**dimension) / 2) ** (1 / dimension)
    assert (shell < middle).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert x.mean(0).abs().max() < 0.03  # no direction is preferred
    assert (sphere(dimension).norm(dim=1) - 1).abs().max() < 1e-12


def test_steepness_equals_the_largest_slope_by_differences():
    net, eps = flow(1, 0, 0, steps=7), 1e-6
    x = torch.linspace(-1, 1, 5)[:, None]
    with torch.no_grad():
        path = net.trajectory(x)
        h = net.time / net.steps
        slopes = [(net.field(i * h, y + eps) - net.field(i * h, y - eps)) / (2 * eps) for i, y in enumerate(path[:-1])]
    assert steepness(net, x) == pytest.approx(h * torch.stack(slopes).abs().max().item(), rel=1e-6)


def test_a_flow_of_the_line_keeps_order_and_floor_and_the_controls_do_not():
    for arm, holds in (({}, True), ({"augment": 1}, False), ({"solver": "euler", "solver_steps": 1}, False)):
        least = node_1d_no_crossing.trial(points=2, steps=150, seed=0, **arm)["value"]
        crossed = node_1d_no_crossing_order.trial(points=2, steps=150, seed=0, **arm)["value"]
        assert (least >= 1) == holds and (crossed == 0) == holds
    assert node_1d_no_crossing_augmented.trial(points=2, steps=150, seed=0)["value"] < 1e-4
    assert node_1d_no_crossing_augmented.trial(points=2, steps=20, seed=0, augment=0)["value"] >= 1


def test_a_ball_and_its_shell_need_one_more_dimension():
    settings = {"dimension": 1, "steps": 150, "seed": 0}
    assert concentric_floor.trial(power=2, **settings)["value"] >= 1
    assert concentric_floor.trial(power=2, augment=1, **settings)["value"] < 1
    assert concentric_augmentation.trial(**settings)["value"] < 1
    assert concentric_augmentation.trial(augment=0, **settings)["value"] >= 1
    assert math.isfinite(concentric_augmentation.trial(**settings)["centre"])
