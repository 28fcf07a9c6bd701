"""Predicted training curves, against training the linearised model itself, matrix exponentials and exact fractions."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from math import exp, inf
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError, LemmataError, LossError, NumericsError
from lemmata.analysis.gradient_flow import TrainingCurve, linearised_training

from .test_lazy import FLOAT, differences, drawn, network


class Tangent(nn.Module):
    """f_0 + J δ on training and held-out inputs together; δ is trained."""

    def __init__(self, model: nn.Module, *inputs: Tensor) -> None:
        super().__init__()
        whole = torch.cat(inputs)
        self.start, self.J = model(whole).detach(), la.Jacobian(model, whole).dense()
        self.delta = nn.Parameter(torch.zeros(self.J.shape[1], dtype=self.J.dtype))

    def forward(self, rows: slice) -> Tensor:
        return (self.start + (self.J @ self.delta).view_as(self.start))[rows]


def classes(n: int) -> Tensor:
    return torch.arange(n) % 2


SQUARED = (nn.MSELoss(), drawn(8, 2, 11))
LOSSES: dict[str, tuple[Any, Any]] = {
    "mean of squares": SQUARED,
    "sum of squares": (nn.MSELoss(reduction="sum"), drawn(8, 2, 11) / 8),
    "cross-entropy": (nn.CrossEntropyLoss(), classes(8)),
    "Huber": (nn.HuberLoss(delta=0.5), drawn(8, 2, 11)),
    "weighted squares": (lambda f, y: (torch.tensor([1.0, 3.0]) * (f - y) ** 2).mean(), drawn(8, 2, 11)),
}


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("name", LOSSES)
def test_descent_is_that_of_the_linearised_model(name: str, momentum: float) -> None:
    loss, target = LOSSES[name]
    model, x, held = network(), drawn(8, 3, 8), drawn(19, 3, 9)
    rate = 0.02 if "sum" in name else 0.1
    explicit = Tangent(model, x, held)
    optimizer = torch.optim.SGD(explicit.parameters(), rate, momentum)
    training = la.LinearisedTraining(model, loss, (x, target), held)
    assert (training.curvature is not None) == ("of squares" in name)
    curve = training.descent([0, 1, 2, 30, 100], rate, momentum)
    for step in range(101):
        if step in (0, 1, 2, 30, 100):
            place = (0, 1, 2, 30, 100).index(step)
            value = loss(explicit(slice(8)), target)
            assert torch.allclose(curve.outputs[place], explicit(slice(8)).detach(), rtol=0, atol=1e-12)
            assert torch.allclose(curve.held_out[place], explicit(slice(8, None)).detach(), rtol=0, atol=1e-11)
            assert float(curve.losses[place]) == pytest.approx(float(value.detach()), rel=1e-12)
            assert float(curve.travel[place]) == pytest.approx(float(explicit.delta.detach().norm()), rel=1e-9)
        optimizer.zero_grad()
        loss(explicit(slice(8)), target).backward()
        optimizer.step()
    assert torch.equal(training.descent(np.array([0, 1, 2, 30, 100]), rate, momentum).outputs, curve.outputs)
    other = training.descent([30], 1.1 * rate, momentum)
    assert not torch.allclose(other.outputs[0], curve.outputs[3], rtol=0, atol=1e-6)


def test_flow_of_squares_against_differences_and_a_matrix_exponential() -> None:
    model, x, held = network(), drawn(8, 3, 8), drawn(5, 3, 9)
    y = SQUARED[1].flatten()
    A, B = differences(model, x), differences(model, held)
    f, g = model(x).detach().flatten(), model(held).detach().flatten()
    K = A @ A.T
    training = la.LinearisedTraining(model, *SQUARED[:1], (x, SQUARED[1]), held)
    assert training.curvature == pytest.approx(2 / 16)
    times = [0.0, 0.5, 4.0]
    curve = training.flow(times)
    for place, t in enumerate(times):
        left = torch.linalg.matrix_exp(-t * K / 8)
        assert torch.allclose(curve.outputs[place].flatten(), y + left @ (f - y), rtol=0, atol=1e-7)
        held_out = g - B @ A.T @ torch.linalg.pinv(K, hermitian=True, rtol=1e-10) @ (f - y - left @ (f - y))
        assert torch.allclose(curve.held_out[place].flatten(), held_out, rtol=0, atol=1e-5)
    assert curve.converged and curve.error < 1e-13


def test_null_modes_stay_and_infinite_time_is_least_squares() -> None:
    torch.manual_seed(3)
    model, x, held = nn.Linear(4, 1, bias=False).to(FLOAT), drawn(12, 4, 1), drawn(5, 4, 2)
    y = drawn(12, 1, 3)
    training = la.LinearisedTraining(model, nn.MSELoss(), (x, y), held)
    assert int((training.eigenvalues > 0).sum()) == 4 and "rank 4" in repr(training)
    curve = training.flow([inf])
    best = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    assert np.allclose(curve.outputs[0].numpy(), x.numpy() @ best, atol=1e-12)
    assert np.allclose(curve.held_out[0].numpy(), held.numpy() @ best, atol=1e-12)
    wide = nn.Linear(9, 1, bias=False).to(FLOAT)  # more weights than data: the solution nearest to the start
    x, held, y = drawn(5, 9, 4), drawn(3, 9, 5), drawn(5, 1, 6)
    w = wide.weight.detach().numpy()[0]
    nearest = w + np.linalg.pinv(x.numpy()) @ (y.numpy()[:, 0] - x.numpy() @ w)
    curve = la.LinearisedTraining(wide, nn.MSELoss(), (x, y), held).flow([inf])
    assert np.allclose(curve.held_out[0].numpy()[:, 0], held.numpy() @ nearest, atol=1e-12)
    assert float(curve.travel[0]) == pytest.approx(np.linalg.norm(nearest - w))


def test_logistic_flow_by_its_implicit_solution() -> None:
    """One example: f' = Θ/(1 + e^f), so that f + e^f grows like Θ t."""
    model = nn.Linear(1, 1, bias=False).to(FLOAT)
    nn.init.zeros_(model.weight)
    x = torch.full((1, 1), 2.0, dtype=FLOAT)
    training = la.LinearisedTraining(model, lambda f, y: F.softplus(-f).mean(), (x, x), x / 2)
    times = [0.0, 1.0, 100.0, 1e5]
    curve = training.flow(times, tol=1e-8)
    assert training.curvature is None and curve.converged and 0 < curve.error < 1e-8
    for t, f in zip(times, curve.outputs.flatten().tolist(), strict=True):
        assert f + exp(f) == pytest.approx(1 + 4 * t, rel=1e-6)
    assert torch.allclose(curve.held_out * 2, curve.outputs)
    with pytest.raises(ArgumentError, match=r"times.*closed forms alone take inf"):
        training.flow([1.0, inf])


def test_cross_entropy_flow_is_the_limit_of_small_steps() -> None:
    model, x = network(), drawn(8, 3, 8)
    training = la.LinearisedTraining(model, nn.CrossEntropyLoss(), (x, classes(8)), drawn(3, 3, 9))
    curve = training.flow([2.0])
    coarse, fine = (training.descent([round(2 / h)], h).outputs[0] for h in (0.02, 0.01))
    assert torch.allclose(curve.outputs[0], 2 * fine - coarse, rtol=0, atol=2e-6)  # Richardson
    assert not torch.allclose(curve.outputs[0], coarse, rtol=0, atol=2e-6)


def test_a_wide_network_follows_and_a_narrow_one_does_not() -> None:
    x, held = drawn(12, 3, 1), drawn(20, 3, 2)
    y = torch.sin(2 * x[:, :1])
    gaps = {}
    for width in (4, 2000):
        model = network(width, 1)
        with torch.no_grad():
            model[2].weight.mul_(3**0.5)
        rate = 0.5 / float(la.LinearisedTraining(model, nn.MSELoss(), (x, y)).eigenvalues[0])
        curve = la.LinearisedTraining(model, nn.MSELoss(), (x, y), held).descent([200], 12 * rate)
        trained = deepcopy(model)
        optimizer = torch.optim.SGD(trained.parameters(), 12 * rate)
        for _ in range(200):
            optimizer.zero_grad()
            nn.MSELoss()(trained(x), y).backward()
            optimizer.step()
        moves = trained(held) - model(held)
        gaps[width] = float(((trained(held) - curve.held_out[0]).norm() / moves.norm()).detach())
    assert gaps[2000] < 0.05 < 0.1 < gaps[4]


def test_curves_are_records_and_single_precision_is_close() -> None:
    model, x, held = network(), drawn(8, 3, 8), drawn(5, 3, 9)
    curve = la.LinearisedTraining(model, SQUARED[0], (x, SQUARED[1]), held).flow([0.0, 1.0, 10.0])
    again = TrainingCurve.from_dict(curve.to_dict())
    assert torch.equal(again.outputs, curve.outputs) and torch.equal(again.held_out, curve.held_out)
    assert "closed form" in repr(curve) and len(curve.plot().lines) == 1
    alone = la.LinearisedTraining(model, SQUARED[0], (x, SQUARED[1])).flow([0.0, 1.0])
    assert alone.held_out is None and TrainingCurve.from_dict(alone.to_dict()).held_out is None
    pair = (x.float(), SQUARED[1].float())
    small = la.LinearisedTraining(deepcopy(model).float(), SQUARED[0], pair, held.float(), dtype=None)
    assert small.curvature == pytest.approx(2 / 16, rel=1e-4)
    assert torch.allclose(small.flow([0.0, 1.0, 10.0]).outputs, curve.outputs, rtol=0, atol=1e-4)


def test_bad_requests_name_the_remedy() -> None:
    model, x, y = network(), drawn(8, 3, 8), SQUARED[1]
    training = la.LinearisedTraining(model, nn.MSELoss(), (x, y))
    norm = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(FLOAT)
    cases: list[tuple[Callable[[], Any], type[LemmataError], str, str]] = [
        (lambda: training.flow([1.0, 0.5]), ArgumentError, "times", "Sort them"),
        (lambda: training.flow([]), ArgumentError, "times", "Sort them"),
        (lambda: training.descent([1, inf], 0.1), ArgumentError, "steps", "Sort them"),
        (lambda: training.descent([0.5], 0.1), ArgumentError, "steps", "whole steps"),
        (lambda: training.descent([1], 0.0), ArgumentError, "rate", "learning rate"),
        (lambda: training.descent([1], 0.1, 1.0), ArgumentError, "momentum", "Leave momentum out"),
        (lambda: training.descent([10**5], 1e3), NumericsError, "rate", "Stay below 2"),
        (lambda: training.descent([400], 1e2), NumericsError, "rate", "Stay below 2"),  # its loss overflows first
        (lambda: la.LinearisedTraining(model, nn.MSELoss(), [(x, y)] * 3), DataError, "data", "one batch"),
        (lambda: la.LinearisedTraining(model, nn.MSELoss(), [(x, y)] * 2), DataError, "data", "one batch"),
        (lambda: la.LinearisedTraining(model, lambda f, y: y.sum(), (x, y)), LossError, "loss", "without detach"),
        (lambda: la.LinearisedTraining(model, nn.MSELoss(), (x, y), x[:0]), DataError, "held_out", "None"),
        (lambda: la.LinearisedTraining(model, nn.MSELoss(), (x, y), x[:, :2]), DataError, "held_out", "trailing"),
        (
            lambda: la.LinearisedTraining(norm, nn.MSELoss(), (x, y), x + 1, batch_stats="batch"),
            DataError,
            "held_out",
            "leave held_out out",
        ),
    ]
    for run, kind, name, remedy in cases:
        with pytest.raises(kind, match=remedy) as caught:
            run()
        assert name in str(caught.value)


def test_an_error_counts_what_rounding_makes_of_the_kernel() -> None:
    """Two inputs almost alike, whose difference is learned last, by their 2 × 2 problem in exact fractions; and a network."""
    half = lambda f, y: 0.5 * (f - y).square().sum()  # noqa: E731
    line, y = nn.Linear(2, 1, bias=False), torch.tensor([[1.0], [-1.0]])
    nn.init.zeros_(line.weight)
    for apart in (1e-3, 2e-3):
        x = torch.tensor([[1.0, 0.3], [1.0, 0.3 + apart]])
        single, double = (la.LinearisedTraining(line, half, (x, y), dtype=d) for d in (None, FLOAT))
        (a, b), (_, c) = [[Fraction(v) for v in row] for row in x.tolist()]
        K = [[a * a + b * b, a * a + b * c], [a * a + b * c, a * a + c * c]]
        trace, determinant = K[0][0] + K[1][1], K[0][0] * K[1][1] - K[0][1] ** 2
        slow = float(2 * determinant / (trace + Fraction((float(trace**2 - 4 * determinant)) ** 0.5)))
        time = 1 / slow
        for training, sharp in ((single, False), (double, True)):
            found = training.flow([time])
            u = np.linalg.eigh(np.array(K, dtype=float))[1][:, 0]
            truth = u * (u @ y.numpy()[:, 0]) * (1 - exp(-1)) + y.numpy()[:, 0] - u * (u @ y.numpy()[:, 0])
            off = np.linalg.norm(found.outputs[0, :, 0].numpy() - truth) / np.linalg.norm(truth)
            assert found.converged == sharp and off <= found.error + 1e-7
            assert sharp or off > 1e-3
        assert double.flow([inf]).converged and torch.allclose(double.flow([inf]).outputs[0], y.double(), atol=1e-6)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 3))
    data = (torch.randn(30, 3), torch.arange(30) % 3)
    for loss, target in ((nn.CrossEntropyLoss(), data[1]), (nn.MSELoss(), torch.randn(30, 3))):
        single, double = (la.LinearisedTraining(net, loss, (data[0], target), dtype=d) for d in (None, FLOAT))
        for run in (lambda t: t.flow([300.0]), lambda t: t.descent([300], 0.1)):
            one, other = run(single), run(double)
            moved = float((other.outputs - double.start).norm())
            assert float((one.outputs - other.outputs).norm()) / moved <= one.error and not one.converged
            assert other.converged


def test_modes_that_rounding_hides_leave_infinite_time_open() -> None:
    x = torch.tensor([[1.0], [1.0], [2.0]], dtype=FLOAT)  # rank one, of one weight: nothing is hidden
    y = torch.tensor([[1.0], [0.0], [1.0]], dtype=FLOAT)
    line = nn.Linear(1, 1, bias=False).to(FLOAT)
    assert la.LinearisedTraining(line, nn.MSELoss(), (x, y)).flow([inf]).converged
    both = nn.Linear(2, 1, bias=False).to(FLOAT)
    near = torch.cat([x, x * torch.tensor([[1.0], [1.0 + 1e-9], [1.0]], dtype=FLOAT)], 1)  # its second mode is
    training = la.LinearisedTraining(both, nn.MSELoss(), (near, y))
    late = training.flow([inf])
    best = near.numpy() @ np.linalg.lstsq(near.numpy(), y.numpy(), rcond=None)[0]
    off = np.linalg.norm(late.outputs[0].numpy() - best) / np.linalg.norm(
        late.outputs[0].numpy() - training.start.numpy()
    )
    assert 0.1 < off <= late.error and not late.converged and training.flow([10.0]).converged


def test_squares_are_known_at_any_size_of_the_targets() -> None:
    model, x = network(), drawn(8, 3, 8)
    for size in (1e-3, 1.0, 1e4, 1e8):
        for dtype in (None, torch.float32):
            pair = (x, size * drawn(8, 2, 11))
            assert la.LinearisedTraining(model, nn.MSELoss(), pair, dtype=dtype).curvature == pytest.approx(2 / 16)
            for other in (nn.SmoothL1Loss(), nn.HuberLoss(delta=size), nn.L1Loss()):
                assert la.LinearisedTraining(model, other, pair, dtype=dtype).curvature is None


def test_losses_targets_and_times_as_they_come() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(8, 3)
    weighted = la.LinearisedTraining(model, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), (x, classes(8)))
    by_hand = F.cross_entropy(model.double()(x.double()), classes(8), torch.tensor([1.0, 3.0], dtype=FLOAT))
    curve = weighted.flow([0, 1, 1, 2])
    assert float(curve.losses[0]) == pytest.approx(float(by_hand.detach()), rel=1e-12)
    assert torch.equal(curve.outputs[1], curve.outputs[2])
    assert torch.allclose(curve.outputs, weighted.flow([0, 1, 1.5, 2]).outputs[[0, 1, 1, 3]], rtol=0, atol=1e-6)
    with torch.inference_mode():
        target = torch.randn(8, 2, dtype=FLOAT)
    squared = la.LinearisedTraining(model, nn.MSELoss(), (x, target))
    assert torch.equal(squared.flow(torch.tensor([0.0, 1.0])).outputs, squared.flow([0.0, 1.0]).outputs)


def test_integration_gives_up_on_a_loss_with_kinks(monkeypatch: pytest.MonkeyPatch) -> None:
    training = la.LinearisedTraining(network(), nn.L1Loss(), (drawn(8, 3, 8), SQUARED[1]))
    monkeypatch.setattr(linearised_training, "_MOST", 2000)
    with pytest.raises(NumericsError, match=r"times.*more than 2000 by t = .*smooth the loss"):
        training.flow([1e4])
    downhill = la.LinearisedTraining(network(), lambda f, y: -(f**4).sum(), (drawn(8, 3, 8), SQUARED[1]))
    with pytest.raises(NumericsError, match=r"times.*finite slopes"):
        downhill.flow([1e4])


class Gain(nn.Module):
    """A model whose inputs hold one tensor that all examples share."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1, dtype=FLOAT)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.line(x * scale)


def test_held_out_inputs_share_what_has_no_row_for_each() -> None:
    torch.manual_seed(0)
    model, scale = Gain(), drawn(4, 1, 1)[:, 0]
    x, held, y = drawn(6, 4, 2), drawn(9, 4, 3), drawn(6, 1, 4)
    found = la.LinearisedTraining(model, nn.MSELoss(), ((x, scale), y), (held, scale)).flow([0.0, 2.0])
    plain = la.LinearisedTraining(model.line, nn.MSELoss(), (x * scale, y), held * scale).flow([0.0, 2.0])
    assert torch.allclose(found.held_out, plain.held_out, rtol=0, atol=1e-12)
    for wrong in ((held, 2 * scale), (held,), (held, "scale")):
        with pytest.raises(DataError, match=r"held_out.*shared values"):
            la.LinearisedTraining(model, nn.MSELoss(), ((x, scale), y), wrong)
