"""Lazy or rich, against kernels from central differences; predicted curves, against training the linearised model itself."""

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
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError, LemmataError, LossError, NumericsError, ParameterError
from lemmata.analysis.gradient_flow import LazyRich, TrainingCurve, linearised_training

FLOAT = torch.float64


def network(width: int = 4, outputs: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, outputs)).to(FLOAT)


def drawn(n: int, columns: int, seed: int) -> Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def moved(model: nn.Module, size: float, seed: int = 7) -> nn.Module:
    other, flat = deepcopy(model), parameters_to_vector(model.parameters()).detach()
    step = torch.randn(len(flat), generator=torch.Generator().manual_seed(seed), dtype=FLOAT)
    vector_to_parameters(flat + size * step.to(flat.dtype), other.parameters())
    return other


def differences(model: nn.Module, x: Tensor, h: float = 1e-5) -> Tensor:
    """J by central differences of the outputs, (M, P)."""
    probe, flat = deepcopy(model), parameters_to_vector(model.parameters()).detach()
    columns = []
    for unit in torch.eye(len(flat), dtype=FLOAT):
        ends = []
        for sign in (1, -1):
            vector_to_parameters(flat + sign * h * unit, probe.parameters())
            ends.append(probe(x).detach().flatten())
        columns.append((ends[0] - ends[1]) / (2 * h))
    return torch.stack(columns, 1)


def by_hand(before: nn.Module, after: nn.Module, x: Tensor) -> tuple[float, float, float]:
    """The three numbers from differences, without a jackknife."""
    (A, B), (f, g) = (differences(m, x) for m in (before, after)), (m(x).detach().flatten() for m in (before, after))
    start, end = (parameters_to_vector(m.parameters()).detach() for m in (before, after))
    K, L = A @ A.T, B @ B.T
    gap = (g - f - A @ (end - start)).norm() / (g - f).norm()
    return float((L - K).norm() / K.norm()), 1 - float((K * L).sum() / K.norm() / L.norm()), float(gap)


def test_numbers_and_jackknife_are_those_of_differences() -> None:
    before, x = network(), drawn(6, 3, 1)
    after = moved(before, 0.3)
    found = la.lazy_rich(before, after, x)
    values = [found.kernel_change, found.kernel_distance, found.linear_gap]
    truth = np.array(by_hand(before, after, x))
    assert np.allclose([float(v) for v in values], truth, rtol=1e-6)
    left = np.array([by_hand(before, after, torch.cat([x[:i], x[i + 1 :]])) for i in range(6)])
    stderr = np.sqrt(5 / 6 * ((left - left.mean(0)) ** 2).sum(0))
    assert np.allclose([v.stderr for v in values], stderr, rtol=1e-5)
    start, end = (parameters_to_vector(m.parameters()).detach() for m in (before, after))
    assert found.parameter_change == pytest.approx(float((end - start).norm() / start.norm()))
    assert not np.allclose(np.array(by_hand(before, moved(before, 0.31), x)), truth, rtol=1e-2)


def test_a_linear_model_is_lazy_and_a_trained_narrow_network_is_not() -> None:
    line = nn.Linear(3, 2).to(FLOAT)
    found = la.lazy_rich(line, moved(line, 5.0), drawn(20, 3, 2))
    assert float(found.kernel_change) == float(found.kernel_distance) == 0
    assert float(found.linear_gap) < 1e-14 and found.verdict == "lazy" and found.converged
    before, x = network(), drawn(40, 3, 3)
    found = la.lazy_rich(before, moved(before, 1.0), x)
    assert found.verdict == "rich" and float(found.linear_gap) > 0.3
    few = la.lazy_rich(before, moved(before, 0.12), x[:3], tol=0.01)
    assert few.verdict == "undecided" and not few.converged and "not converged" in repr(few)
    slight = [la.lazy_rich(before, moved(before, size), x) for size in (1e-4, 1e-5)]
    for name, power in (
        ("kernel_change", 1),
        ("kernel_distance", 2),
        ("linear_gap", 1),
    ):  # also where digits are scarce
        ratio = float(getattr(slight[0], name)) / float(getattr(slight[1], name))
        assert ratio == pytest.approx(10**power, rel=0.01)


def test_the_scale_of_a_kernel_is_no_distance() -> None:
    before = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).to(FLOAT)
    vector_to_parameters(torch.tensor([1.0, 1.0], dtype=FLOAT), before.parameters())
    after = deepcopy(before)
    vector_to_parameters(torch.tensor([3.0, 3.0], dtype=FLOAT), after.parameters())
    found = la.lazy_rich(before, after, drawn(5, 1, 4))
    assert float(found.kernel_change) == pytest.approx(8) and float(found.kernel_distance) < 1e-15
    assert float(found.linear_gap) == pytest.approx(1 / 2)  # 9 − 1 of which J Δθ makes 4
    assert found.linear_gap.stderr < 1e-12


def test_intervals_cover_other_inputs_of_the_same_source() -> None:
    before = network()
    after = moved(before, 0.3)
    runs = [la.lazy_rich(before, after, drawn(30, 3, 100 + k)) for k in range(60)]
    for name in ("kernel_change", "linear_gap"):
        mean = np.mean([float(getattr(run, name)) for run in runs])
        inside = [low <= mean <= high for low, high in (getattr(run, name).interval() for run in runs)]
        assert sum(inside) >= 50  # 95 % of 60 is 57
        beside = [low <= 1.6 * mean <= high for low, high in (getattr(run, name).interval() for run in runs)]
        assert sum(beside) < 20


def test_what_it_refuses_and_what_it_leaves_alone() -> None:
    before, x = network(), drawn(5, 3, 5)
    after = moved(before, 0.2)
    kept = [deepcopy(m.state_dict()) for m in (before, after)]
    found = la.lazy_rich(before, after, x)
    for model, state in zip((before, after), kept, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
    again = LazyRich.from_dict(found.to_dict())
    assert again.linear_gap == found.linear_gap and torch.equal(again.gaps, found.gaps)
    assert len(found.plot().lines) == 2
    cases: list[tuple[Callable[[], Any], type[LemmataError], str, str]] = [
        (lambda: la.lazy_rich(before, before, x), ParameterError, "after", "copy.deepcopy"),
        (lambda: la.lazy_rich(before, network(5), x), ParameterError, "0.weight", "same network"),
        (lambda: la.lazy_rich(before, after, x, params="2.*"), ParameterError, "after", "choose every parameter"),
        (lambda: la.lazy_rich(before, after, x[:2]), DataError, "inputs", "more inputs"),
        (lambda: la.lazy_rich(before, after, x, tol=0), ArgumentError, "tol", "default"),
        (lambda: la.lazy_rich(before, after, x, level=2), ArgumentError, "level", "default"),
    ]
    for run, kind, name, remedy in cases:
        with pytest.raises(kind, match=remedy) as caught:
            run()
        assert name in str(caught.value)


def test_batch_statistics_leave_no_error_over_inputs() -> None:
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).to(FLOAT)
    after = moved(before, 0.1)
    after[1].running_mean.add_(1.0)
    found = la.lazy_rich(before, after, drawn(8, 3, 6), batch_stats="batch")
    assert found.linear_gap.stderr == inf and found.verdict == "undecided" and not found.converged
    with pytest.raises(ParameterError, match="batch_stats='batch'"):
        la.lazy_rich(before, after, drawn(8, 3, 6), batch_stats="frozen")


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


def test_rounding_makes_no_lazy_network_rich() -> None:
    torch.manual_seed(0)
    before, x = nn.Linear(20, 1), torch.randn(50, 20)
    nn.init.constant_(before.weight, 100.0)
    after = deepcopy(before)
    with torch.no_grad():
        after.weight.mul_(1 + 2e-7 * torch.randn(1, 20))
    found = la.lazy_rich(before, after, x)
    assert float(found.linear_gap) > 0.1 and found.verdict == "undecided" and not found.converged
    exact = la.lazy_rich(before, after, x, dtype=FLOAT)
    assert exact.verdict == "lazy" and exact.converged
    assert all(e.bias > 0 for e in (found.kernel_change, found.kernel_distance))


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
