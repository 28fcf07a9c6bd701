"""Directions: filter norms by hand, and principal components against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lemmata.analysis.curvature import Trajectory, random_directions, trajectory_directions
from lemmata.analysis.errors import ArgumentError, DataError, OperandError


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3, 4)
    return nn.Sequential(*layers).double()


def test_every_filter_has_the_norm_of_its_weights_and_the_rest_stands_still() -> None:
    net = model()
    found = random_directions(net, 2, seed=3)
    for column in found.T:
        pieces = dict(
            zip(
                (n for n, _ in net.named_parameters()), column.split([p.numel() for p in net.parameters()]), strict=True
            )
        )
        for name, parameter in net.named_parameters():
            piece = pieces[name].reshape(parameter.shape)
            if parameter.ndim == 1:
                assert not piece.any()
            else:
                torch.testing.assert_close(
                    piece.flatten(1).norm(dim=1), parameter.detach().flatten(1).norm(dim=1), rtol=1e-12, atol=0
                )
    assert not torch.allclose(found[:, 0], found[:, 1])
    assert torch.equal(found, random_directions(net, 2, seed=3))
    assert not torch.equal(found, random_directions(net, 2, seed=4))


def test_directions_are_gaussian_and_do_not_touch_the_global_generator() -> None:
    net = nn.Linear(400, 1, bias=False)
    before = torch.get_rng_state()
    draws = random_directions(net, 50)[:, :].double() / net.weight.detach().norm() * 20
    assert torch.equal(before, torch.get_rng_state())
    assert abs(float(draws.mean())) < 4 / 20000**0.5 and abs(float(draws.pow(4).mean()) - 3) < 0.15


def test_a_zero_filter_does_not_move() -> None:
    net = nn.Linear(3, 2, bias=False)
    net.weight.data[0] = 0
    assert not random_directions(net, 1)[:3].any() and random_directions(net, 1)[3:].all()


def test_principal_components_of_a_path() -> None:
    net = nn.Linear(5, 2, bias=False).double()
    rng = np.random.default_rng(0)
    path = rng.standard_normal((30, 10)).cumsum(0) * np.r_[5, 3, np.ones(8)]
    found = trajectory_directions(net, [torch.from_numpy(row) for row in path])
    values, vectors = np.linalg.eigh(np.cov(path.T))
    np.testing.assert_allclose(found.explained, values[::-1][:2] / values.sum(), rtol=1e-10)
    np.testing.assert_allclose(np.abs(found.directions.numpy().T @ vectors[:, ::-1][:, :2]), np.eye(2), atol=1e-10)
    np.testing.assert_allclose(found.coordinates, (path - path[-1]) @ found.directions.numpy(), atol=1e-10)
    named = [{"weight": torch.from_numpy(row).reshape(2, 5)} for row in path]
    assert torch.equal(trajectory_directions(net, named).directions, found.directions)
    again = Trajectory.from_dict(found.to_dict())
    assert torch.equal(again.directions, found.directions) and "%" in repr(again)


def test_bad_input_is_named_with_a_remedy() -> None:
    net, zeros = nn.Linear(2, 1), torch.zeros(3)
    with pytest.raises(ArgumentError, match=r"count.*given 0"):
        random_directions(net, 0)
    with pytest.raises(ArgumentError, match=r"params.*two axes"):
        random_directions(net, params="bias")
    with pytest.raises(DataError, match="at least three"):
        trajectory_directions(net, [zeros, zeros])
    with pytest.raises(DataError, match="does not move"):
        trajectory_directions(net, [zeros, zeros, zeros])
    with pytest.raises(OperandError, match=r"checkpoints\[1\].*\(4,\)"):
        trajectory_directions(net, [zeros, torch.zeros(4), zeros])
    with pytest.raises(OperandError, match=r"checkpoints\[2\].*finite"):
        trajectory_directions(net, [zeros, zeros + 1, zeros * torch.nan])
