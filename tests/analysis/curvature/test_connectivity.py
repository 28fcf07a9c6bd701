"""Paths between networks: barriers in closed form, a circular valley, permuted copies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lemmata.analysis.curvature import LossPath, bezier_curve, linear_barrier, match_weights
from lemmata.analysis.errors import ArgumentError, LossError, ParameterError

EMPTY = torch.zeros(1, 1).double(), torch.zeros(1, 1).double()


class Point(nn.Module):
    """Two parameters, handed to the loss."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))

    def forward(self, _: Tensor) -> Tensor:
        return self.at


def valley(at: Tensor, _: Tensor) -> Tensor:
    """Zero on the unit circle."""
    return (at.square().sum() - 1) ** 2


def networks() -> tuple[nn.Sequential, nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double() for _ in range(2))
    return first, second, torch.randn(30, 4).double(), torch.arange(30) % 3


def test_the_line_across_a_circular_valley_has_barrier_one() -> None:
    found = linear_barrier(Point(-1, 0), Point(1, 0), valley, EMPTY, points=21)
    torch.testing.assert_close(found.losses, ((2 * found.positions - 1) ** 2 - 1) ** 2)
    assert found.barrier == pytest.approx(1.0) and float(found.lengths[-1]) == pytest.approx(2.0)
    assert found.control is None and "t = 0.5" in repr(found)


def test_a_trained_curve_goes_around() -> None:
    a, b = Point(1, 0), Point(0, 1)
    straight = linear_barrier(a, b, valley, EMPTY)
    curve = bezier_curve(a, b, valley, EMPTY, steps=800)
    assert straight.barrier == pytest.approx(0.25, rel=1e-2)
    # the best quadratic Bézier curve of a quarter circle has its control point near (0.9, 0.9)
    grid = torch.linspace(0, 1, 2001).double()

    def mean_loss(c: float) -> float:
        x, y = (1 - grid) ** 2 + 2 * grid * (1 - grid) * c, grid**2 + 2 * grid * (1 - grid) * c
        return float(((x**2 + y**2 - 1) ** 2).mean())

    best = min((k / 1000 for k in range(500, 1500)), key=mean_loss)
    assert curve.control is not None
    torch.testing.assert_close(curve.control, torch.full((2,), best).double(), atol=0.02, rtol=0)
    assert curve.barrier < 0.01 and 1.4142 < float(curve.lengths[-1]) < 1.6
    same = bezier_curve(a, b, valley, EMPTY, steps=800)
    assert torch.equal(same.losses, curve.losses)
    assert not torch.equal(bezier_curve(a, b, valley, EMPTY, steps=800, seed=1).losses, curve.losses)


def test_arc_length_of_a_curve_is_that_of_a_fine_polygon() -> None:
    curve = bezier_curve(Point(1, 0), Point(-1, 0.5), valley, EMPTY, steps=20)
    t = torch.linspace(0, 1, 200001).double()[:, None]
    a, b = torch.tensor([1.0, 0]).double(), torch.tensor([-1, 0.5]).double()
    assert curve.control is not None
    fine = (1 - t) ** 2 * a + 2 * t * (1 - t) * curve.control + t**2 * b
    assert float(curve.lengths[-1]) == pytest.approx(float((fine[1:] - fine[:-1]).norm(dim=1).sum()), rel=1e-8)


def test_a_permuted_copy_has_a_barrier_until_it_is_matched() -> None:
    a, _, x, _ = networks()
    for layer in a[::2]:
        layer.weight.data *= 4
    b, order = copy.deepcopy(a), torch.randperm(8)
    b[0].weight.data, b[0].bias.data, b[2].weight.data = (
        a[0].weight[order].data,
        a[0].bias[order].data,
        a[2].weight[:, order].data,
    )
    targets = a(x).argmax(1)
    apart = linear_barrier(a, b, nn.CrossEntropyLoss(), (x, targets))
    assert apart.barrier > 0.01
    matched = linear_barrier(a, match_weights(a, b).apply(b), nn.CrossEntropyLoss(), (x, targets))
    assert matched.barrier < 1e-12 and float(matched.lengths[-1]) < 1e-12


def test_losses_along_the_line_equal_a_loop_and_nothing_is_changed() -> None:
    a, b, x, y = networks()
    before = [copy.deepcopy(net.state_dict()) for net in (a, b)]
    found = linear_barrier(a, b, nn.CrossEntropyLoss(), [(x[:7], y[:7]), (x[7:], y[7:])], points=5)
    truth = []
    for t in found.positions.tolist():
        mixed = copy.deepcopy(a)
        for p, one, other in zip(mixed.parameters(), a.parameters(), b.parameters(), strict=True):
            p.data = (1 - t) * one.data + t * other.data
        truth.append(float(nn.functional.cross_entropy(mixed(x), y).detach()))
    torch.testing.assert_close(found.losses, torch.tensor(truth, dtype=torch.float64), rtol=1e-12, atol=0)
    for net, state in zip((a, b), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    again = LossPath.from_dict(found.to_dict())
    assert torch.equal(again.losses, found.losses) and again.barrier == found.barrier


def test_a_loss_that_is_lost_between_the_ends_is_kept_and_said() -> None:
    def half(at: Tensor, _: Tensor) -> Tensor:
        return torch.log(at[0].abs() - 0.5)

    found = linear_barrier(Point(-1, 0), Point(1, 0), half, EMPTY, points=5)
    assert not bool(found.losses.isfinite().all()) and "finite" in repr(found)
    with pytest.raises(LossError):
        linear_barrier(Point(0, 0), Point(1, 0), half, EMPTY)


def test_bad_input_is_named_with_a_remedy() -> None:
    a, b, x, y = networks()
    loss, data = nn.CrossEntropyLoss(), (x, y)
    cases: list[tuple[Any, Any, str]] = [
        (lambda: linear_barrier(a, b, loss, data, points=2), ArgumentError, "points"),
        (lambda: bezier_curve(a, b, loss, data, steps=0), ArgumentError, "steps"),
        (lambda: bezier_curve(a, b, loss, data, learning_rate=0), ArgumentError, "learning_rate"),
        (
            lambda: linear_barrier(a, nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double(), loss, data),
            ParameterError,
            "0.weight",
        ),
        (
            lambda: linear_barrier(a, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double(), loss, data),
            ParameterError,
            "same function",
        ),
        (lambda: linear_barrier(a, copy.deepcopy(b).float(), loss, (x, y)), Exception, "float"),
    ]
    for act, kind, fragment in cases:
        with pytest.raises(kind, match=fragment):
            act()
