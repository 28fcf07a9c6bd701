"""Flows against closed forms and matrix exponentials, gradient descent beside them, deep linear modes, and escapes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, ModelStateError, NumericsError
from lemmata.analysis.gradient_flow import (
    Discretisation,
    Escape,
    Flow,
    discretisation,
    escape_time,
    integrate,
    mode_strength,
    mode_time,
    penalised,
    saddle_escape,
)


def regression(seed: int = 0) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(seed)
    return nn.Linear(4, 2, bias=False), torch.randn(20, 4), torch.randn(20, 2)


def curved(seed: int = 0) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(seed)
    x = torch.randn(20, 3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)), (x, x.sum(1, keepdim=True).sin())


def quadratic(matrix: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda theta: (0.5 * theta @ matrix @ theta, matrix @ theta)


@pytest.mark.parametrize("method", ["DOP853", "LSODA"])
def test_linear_regression_follows_the_matrix_exponential(method: str) -> None:
    model, x, y = regression()
    found = la.flow(model, nn.MSELoss(), (x, y), [0.0, 0.5, 3.0], tol=1e-7, method=method)
    X, Y, W = x.double().numpy(), y.double().numpy(), model.weight.detach().double().numpy()
    H = X.T @ X / 20  # MSELoss averages over both outputs: L = |XWᵀ − Y|²/40
    best = np.linalg.solve(X.T @ X, X.T @ Y).T
    for t, row, error in zip(found.times.tolist(), found.parameters, found.errors.tolist(), strict=True):
        truth = best + (W - best) @ expm(-t * H)
        gap = np.linalg.norm(row.numpy().reshape(2, 4) - truth)
        assert gap <= max(error, 1e-12)
    assert found.converged and float(found.errors.max()) < 1e-6
    assert np.linalg.norm(found.parameters[2].numpy().reshape(2, 4) - best - (W - best) @ expm(-3.1 * H)) > 1e-3
    value = float(((X @ found.parameters[2].numpy().reshape(2, 4).T - Y) ** 2).mean())
    assert found.losses[2].item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("alpha", [1e-2, 1e-6, 1e-10])
def test_errors_cover_a_long_escape_from_a_saddle(alpha: float) -> None:
    """Two equal scalar layers: w² follows the sigmoid; from 1e-10 the plateau is 23 time units long."""
    time = math.log(1 / alpha)
    found = integrate(lambda w: ((1 - w**2).square() / 4, -w * (1 - w**2)), torch.tensor([alpha]).double(), [time])
    gap = abs(float(found.parameters[0]) - mode_strength([time], 1.0, alpha**2)[0] ** 0.5)
    assert found.converged and gap <= float(found.errors[0]) < 1e-6 and gap > 0


def test_what_is_not_reached_is_said() -> None:
    stiff = quadratic(torch.diag(torch.tensor([1.0, 1e4])).double())
    start = torch.ones(2).double()
    with pytest.raises(NumericsError, match="LSODA") as caught:
        integrate(stiff, start, 5.0, most=2000)
    assert caught.value.name == "most" and "2000 gradients" in caught.value.given
    found = integrate(stiff, start, 5.0, method="LSODA", most=2000)
    assert found.converged and found.gradients < 2000
    assert abs(float(found.parameters[-1, 0]) - math.exp(-5)) <= float(found.errors[-1]) + 1e-12
    short = integrate(stiff, start, 5.0, method="LSODA", most=found.gradients * 6 // 10)
    assert not short.converged and bool(short.errors.isinf().all()) and "not converged" in repr(short)
    exact = integrate(
        lambda w: ((1 - w**2).square() / 4, -w * (1 - w**2)), torch.tensor([0.1]).double(), 3.0, tol=1e-16
    )
    assert not exact.converged and 1e-16 < float(exact.errors.max()) < 1e-8  # beyond what the solver gives in float64


def test_a_model_is_not_changed_and_bad_input_is_named() -> None:
    model, data = curved()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.train()
    with torch.no_grad():
        found = la.flow(model, nn.MSELoss(), data, 1.0)
    assert (
        torch.equal(state, torch.get_rng_state()) and model.training and all(p.grad is None for p in model.parameters())
    )
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert found.parameters.dtype == torch.float64 and found.losses[-1] < found.losses[0]
    noisy = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5))
    with pytest.raises(ModelStateError, match=r"eval\(\)"):
        la.flow(noisy, nn.MSELoss(), data, 1.0)
    options: list[tuple[str, dict[str, Any]]] = [
        ("time", {"time": -1.0}),
        ("time", {"time": [0.0, 0.0]}),
        ("time", {"time": math.inf}),
        ("time", {"time": math.nan}),
        ("tol", {"time": 1.0, "tol": 2.0}),
        ("method", {"time": 1.0, "method": "Euler"}),
        ("most", {"time": 1.0, "most": 0}),
    ]
    for name, option in options:
        with pytest.raises(ArgumentError, match="Pass|Choose") as caught:
            la.flow(model, nn.MSELoss(), data, **option)
        assert caught.value.name == name
    with pytest.raises(ArgumentError, match="double"):
        integrate(quadratic(torch.eye(2)), torch.ones(2), 1.0)
    with pytest.raises(NumericsError, match="shorter time") as failed:
        integrate(lambda w: (w.log().sum(), 1 / w.clamp(min=0)), torch.tensor([1e-3]).double(), 1.0)
    assert "gradient at time" in failed.value.name


def test_a_flow_is_a_run_for_conserved_quantities() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    data = torch.randn(15, 3), torch.randn(15, 2)
    kept = la.conserved(net, data[0]).drift(la.flow(net, nn.MSELoss(), data, 2.0, tol=1e-9))
    assert kept.values[-1].max() < 1e-6
    broken = la.flow(net, lambda o, t: (o - t).square().mean() + 0.1 * o.norm(), data, 2.0, params="1.weight")
    assert la.conserved(net, data[0]).balances and "0.weight" not in next(iter(broken))


def test_descent_is_beside_its_two_flows() -> None:
    """On a quadratic all three are powers and exponentials; on a network the orders are one and two."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    data = torch.ones(1, 1), torch.zeros(1, 1)
    found = discretisation(model, nn.MSELoss(), data, 1 / 16, 16)
    k = (found.times * 16).numpy()
    assert np.allclose(found.to_flow, np.exp(-2 * k / 16) - (7 / 8) ** k, atol=1e-8)
    assert np.allclose(found.to_modified, np.abs(np.exp(-(2 + 1 / 8) * k / 16) - (7 / 8) ** k), atol=1e-8)
    net, data = curved()
    gaps = [discretisation(net, nn.MSELoss(), data, step, round(0.4 / step)) for step in (0.08, 0.04)]
    first = [float(gap.to_flow[-1]) for gap in gaps]
    second = [float(gap.to_modified[-1]) for gap in gaps]
    assert abs(math.log2(first[0] / first[1]) - 1) < 0.15 and abs(math.log2(second[0] / second[1]) - 2) < 0.2
    assert all(float(gap.modified_errors.max()) < 0.01 * float(gap.to_modified[-1]) for gap in gaps)
    assert "η/4" in repr(gaps[0]) and gaps[0].converged
    with pytest.raises(NumericsError, match="Pass a step below 100"):
        discretisation(net, lambda o, t: (o - t).square().mean().square(), data, 100.0, 200)
    with pytest.raises(ArgumentError, match="learning rate"):
        discretisation(net, nn.MSELoss(), data, 0.0, 5)


def test_a_penalty_is_that_of_the_loss_it_names() -> None:
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    theta = torch.tensor([1.0, -2.0]).double()
    value, slope = penalised(quadratic(matrix), 0.3)(theta)
    assert float(value) == pytest.approx(float(0.5 * theta @ matrix @ theta + 0.3 * (matrix @ theta).square().sum()))
    assert torch.allclose(slope, matrix @ theta + 0.6 * matrix @ matrix @ theta, rtol=1e-8)
    flat = penalised(quadratic(matrix), 0.3)(torch.zeros(2).double())[1]
    assert torch.equal(flat, torch.zeros(2).double())  # at a minimum, without a division by zero


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_modes_solve_their_equation(depth: int) -> None:
    times, s, a = np.array([0.0, 2.0, 7.0, 1.0, 30.0]), 1.3, 0.01
    found = mode_strength(times, s, a, depth)
    solved = solve_ivp(
        lambda t, x: depth * x ** (2 - 2 / depth) * (s - x), (0, 30), [a], t_eval=np.sort(times), rtol=1e-11, atol=1e-14
    )
    assert np.allclose(np.sort(found), solved.y[0], rtol=1e-8) and np.array_equal(np.argsort(found), np.argsort(times))
    twice = mode_strength([[7.0, 2.0], [7.0, 0.0]], s, a, depth)  # in any order, shape and number
    assert np.allclose(twice, found[[[2, 1], [2, 0]]], rtol=1e-9)
    assert float(mode_strength(2.0, s, a, depth)) == pytest.approx(found[1], rel=1e-9)
    assert mode_strength([mode_time(s, a, 0.8, depth)], s, a, depth)[0] == pytest.approx(0.8, rel=1e-9)
    assert abs(mode_strength([1.0], s, a, depth)[0] / mode_strength([1.0], s, a, depth + 1)[0] - 1) > 1e-3


def test_modes_of_a_network_and_bad_strengths() -> None:
    """Three layers of width one from equal weights, L = (1.5 − w₁w₂w₃)²/2."""
    net = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(3)))
    for weight in net.parameters():
        nn.init.constant_(weight, 0.2)
    half = lambda o, t: 0.5 * (o - t).square().mean()  # noqa: E731
    path = la.flow(net, half, (torch.ones(1, 1), torch.full((1, 1), 1.5)), [0.0, 2.0, 4.0], tol=1e-8)
    found = path.parameters.prod(1).numpy()
    start = float(torch.tensor(0.2)) ** 3
    assert np.allclose(found, mode_strength([0.0, 2.0, 4.0], 1.5, start, depth=3), rtol=1e-6)
    for name, arguments in (("strength", (-1.0, 0.1, 0.5)), ("start", (1.0, 0.0, 0.5)), ("end", (1.0, 0.1, 1.0))):
        with pytest.raises(ArgumentError, match="Pass") as caught:
            mode_time(*arguments)
        assert caught.value.name == name
    with pytest.raises(ArgumentError, match="number of layers"):
        mode_strength([1.0], 1.0, 0.1, depth=0)


def saddle() -> tuple[nn.Module, tuple[Tensor, Tensor], float]:
    """A tanh network at zero: λ = −2σ/outputs, with σ the largest singular value of E[y xᵀ]."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 2, bias=False)).double()
    for weight in net.parameters():
        nn.init.zeros_(weight)
    x, y = torch.randn(30, 4).double(), torch.randn(30, 2).double()
    return net, (x, y), -float(torch.linalg.svdvals(y.T @ x / 30)[0])


@pytest.mark.parametrize("offset", [1e-4, 1e-8])
def test_saddles_are_left_when_the_curvature_says(offset: float) -> None:
    net, data, curvature = saddle()
    found = saddle_escape(net, nn.MSELoss(), data, radius=1e-2, offset=offset)
    assert found.converged and found.curvature == pytest.approx(curvature, rel=1e-6)
    assert found.time == pytest.approx(math.log(1e-2 / offset) / -curvature, abs=found.error + 1e-3)
    assert found.error < 1e-3 and found.predicted[0] <= found.predicted[1]
    assert abs(found.time / escape_time(1.1 * curvature, offset, 1e-2) - 1) > 0.05


def test_what_is_no_strict_saddle_is_refused() -> None:
    net, data, _ = saddle()
    with torch.no_grad():
        net[0].weight += 0.1
    with pytest.raises(ModelStateError, match="critical_point") as caught:
        saddle_escape(net, nn.MSELoss(), data)
    assert caught.value.name == "Sequential"
    model, x, y = regression()
    model.weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
    with pytest.raises(ModelStateError, match="morse_index"):
        saddle_escape(model, nn.MSELoss(), (x, y))
    with pytest.raises(ArgumentError, match="offset < radius"):
        saddle_escape(net, nn.MSELoss(), data, radius=1e-3, offset=1e-2)
    steps = escape_time(-2.0, 1e-6, 1.0, step=0.05) / 0.05
    x = torch.tensor(1e-6).double()
    for _ in range(math.floor(steps)):
        x = x + 0.05 * 2 * x
    assert x < 1 <= x * 1.1
    with pytest.raises(ArgumentError, match="strict saddle"):
        escape_time(0.5, 1e-3, 1.0)


def test_a_flow_that_does_not_leave_is_not_converged() -> None:
    """cos along the way out: the pull ends before the radius."""
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    found = saddle_escape(net, lambda o, t: (o * 1e3).cos().mean(), (torch.ones(1, 1), torch.ones(1, 1)), radius=1.0)
    assert found.time == math.inf and not found.converged and "not converged" in repr(found)


def test_records_and_plots() -> None:
    net, data = curved()
    path = la.flow(net, nn.MSELoss(), data, [0.0, 1.0])
    assert repr(Flow.from_dict(path.to_dict())) == repr(path) and path.plot().get_xlabel() == "time"
    beside = discretisation(net, nn.MSELoss(), data, 0.1, 5)
    again = Discretisation.from_dict(beside.to_dict())
    assert repr(again) == repr(beside) and torch.equal(again.to_flow, beside.to_flow)
    assert len(beside.plot().get_legend().get_texts()) == 2
    left = saddle_escape(saddle()[0], nn.MSELoss(), saddle()[1])
    assert repr(Escape.from_dict(left.to_dict())) == repr(left) and left.plot().get_yscale() == "log"
