"""Increasing functions, states, set encoders and polynomials: floors against quadratic programs, brute force and closed forms."""

from __future__ import annotations

import itertools
import json
from math import comb, inf, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError, LemmataError

FLOAT = torch.float64


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def maximum(x: Tensor) -> Tensor:
    return x[..., 0].amax(-1)


def powers(m: int) -> Any:
    return lambda x: torch.cat([x**k for k in range(1, m + 1)], -1).sum(-2)


# Increasing functions


def by_programming(y: np.ndarray, w: np.ndarray) -> float:
    """min Σ w (y − f)² with f = a + Σ steps, steps ≥ 0, as bounded least squares."""
    steps = np.tril(np.ones((len(y), len(y))))
    low = np.r_[-np.inf, np.zeros(len(y) - 1)]
    found = lsq_linear(np.sqrt(w)[:, None] * steps, np.sqrt(w) * y, bounds=(low, np.inf), tol=1e-14)
    return 2 * found.cost


@pytest.mark.parametrize("seed", range(5))
def test_the_floor_by_another_program(seed: int) -> None:
    x, y, w = drawn(12, seed=seed), drawn(12, seed=seed + 20), drawn(12, seed=seed + 40).abs() + 0.1
    found = la.monotone_floor(x, y, w)
    order = x.argsort()
    truth = by_programming(y[order].numpy(), (w / w.sum())[order].numpy())
    assert found.lower == pytest.approx(truth, rel=1e-6) and found.upper - found.lower < 1e-14
    assert (found.fit.diff() >= 0).all() and (found.pressure >= 0).all() and found.pressure[-1] == 0


def test_closed_forms() -> None:
    x = torch.linspace(-1, 1, 9, dtype=FLOAT)
    assert float(la.monotone_floor(x, -x)) == pytest.approx(x.square().mean().item())  # the best is zero
    assert la.monotone_floor(x, x**3).upper == 0
    square = la.monotone_floor(x, x.square())
    assert square.lower == pytest.approx(by_programming(x.square().numpy(), np.full(9, 1 / 9)), rel=1e-6)
    assert not square.check(x.square()).passed and square.check(square.fit).passed


def test_equal_places_have_one_value() -> None:
    found = la.monotone_floor(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 2.0, 3.0]))
    assert found.fit.tolist() == [1.0, 1.0, 3.0] and float(found) == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_no_increasing_network_is_below_and_another_one_is(seed: int) -> None:
    x, y = drawn(40, seed=seed), drawn(40, seed=seed + 7)
    found = la.monotone_floor(x, y)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(200):  # sums of increasing sigmoids
        w, b, a = (torch.rand(10, generator=draws, dtype=FLOAT) for _ in range(3))
        f = (a * torch.tanh(5 * w * (found.x[:, None] - 6 * b + 3))).sum(1)
        f = (f - f.mean()) * torch.rand((), generator=draws, dtype=FLOAT) + y.mean()
        assert found.check(f).passed
    audit = found.check(found.y)
    assert [row.verdict for row in audit.checks] == ["failed", "failed"] and "floor" in repr(audit)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_the_check_of_increasing_functions_has_no_scale(size: float) -> None:
    found = la.monotone_floor(torch.tensor([0.0, 1.0]), size * torch.tensor([1.0, 0.0], dtype=FLOAT))
    audit = found.check(size * torch.tensor([1.0, 0.0], dtype=FLOAT))
    assert [check.verdict for check in audit.checks] == ["failed", "failed"]
    level = size * torch.tensor([0.5 + 1e-7, 0.5])  # float32: less than its rounding apart
    assert found.check(level).passed and not found.check(level.double() * torch.tensor([1.01, 1.0])).passed


def test_increasing_functions_refuse_bad_input_and_come_back() -> None:
    x = torch.arange(3.0)
    for arguments, name, remedy in (
        ((x[:, None], x), "x", "squeeze"),
        ((x, x[:2]), "y", "one number for each point"),
        ((x, x * torch.nan), "y", "Leave out"),
        ((x, x, x), "weights", "Leave it out"),
        ((x[:0], x[:0]), "x", "Leave it out"),
    ):
        with pytest.raises(DataError) as caught:
            la.monotone_floor(*arguments)
        assert caught.value.name == name and remedy in str(caught.value)
    found = la.monotone_floor(x, -x)
    again = la.MonotoneFloor.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) and torch.equal(again.fit, found.fit) and "level" not in repr(found)
    assert "flat" in found.argument and len(found.plot().lines) == 2


# Recurrent states


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("start", [0.0, 2.5])
def test_states_stay_in_the_box(kind: Any, start: float) -> None:
    torch.manual_seed(0)
    net = kind(3, 5, num_layers=2, bidirectional=True).double()
    bound = la.state_bound(net, start)
    for parameter in net.parameters():
        parameter.data *= 20
    h = start * torch.ones(4, 7, 5, dtype=FLOAT)
    states, _ = net(20 * drawn(30, 7, 3), (h, h) if kind is nn.LSTM else h)
    assert bound.state == max(1.0, start) and bound.check(states).passed
    assert states.abs().max() > 0.99  # the box is not too large


def test_cells_grow_by_one_a_step_and_a_projection_has_its_own_box() -> None:
    torch.manual_seed(0)
    cell = nn.LSTMCell(2, 4).double()
    cell.bias_ih.data += 30
    bound, h, c = la.state_bound(cell), torch.zeros(1, 4, dtype=FLOAT), torch.zeros(1, 4, dtype=FLOAT)
    states, cells = [], []
    for x in drawn(50, 1, 2):
        h, c = cell(x, (h, c))
        states.append(h)
        cells.append(c)
    assert bound.check(torch.stack(states), torch.stack(cells)).passed
    assert torch.stack(cells)[-1].max().item() == pytest.approx(50, abs=0.01)
    assert not bound.check(torch.stack(states), 1.1 * torch.stack(cells)).passed
    projected = nn.LSTM(2, 6, proj_size=3).double()
    projected.weight_hr_l0.data *= 10
    bound = la.state_bound(projected)
    states, _ = projected(10 * drawn(40, 2, 2))
    assert bound.state == projected.weight_hr_l0.abs().sum(1).max().item() > 1 and bound.check(states).passed


def test_the_counting_floor_by_brute_force() -> None:
    """The best states of the box at every time, one by one, for a read-out with a free offset."""
    bound, readout = la.state_bound(nn.GRU(1, 2)), nn.Linear(2, 1).double()
    with torch.no_grad():
        readout.weight.copy_(torch.tensor([[1.5, -0.5]]))
    reachable = np.array([1.5 * a - 0.5 * b for a, b in itertools.product((-1, 1), repeat=2)])
    low, high = reachable.min(), reachable.max()
    count = np.arange(1, 12)
    errors = [np.abs(np.clip(count, low + c, high + c) - count).max() for c in np.linspace(0, 12, 1201)]
    assert bound.counting_floor(readout, 11) == pytest.approx(min(errors), abs=1e-9) == 3.0
    assert bound.counting_floor(readout, 3) == 0


def test_states_refuse_bad_input() -> None:
    with pytest.raises(ArgumentError, match=r"module.*RNN.*ReLU state grows"):
        la.state_bound(nn.RNN(1, 1, nonlinearity="relu"))
    with pytest.raises(ArgumentError, match="pass the recurrent layer"):
        la.state_bound(nn.Linear(1, 1))
    with pytest.raises(ArgumentError, match="start"):
        la.state_bound(nn.GRU(1, 1), -1.0)
    bound = la.state_bound(nn.GRU(1, 1))
    with pytest.raises(DataError, match="states"):
        bound.check(torch.full((3, 1), torch.nan))
    assert not bound.check(torch.full((3, 1), 1.5)).passed
    assert la.StateBound.from_dict(json.loads(json.dumps(bound.to_dict()))) == bound


# Sets


@pytest.mark.parametrize("size", [2, 3])
def test_too_few_power_sums_collide_and_enough_do_not(size: int) -> None:
    short = la.latent_collision(powers(size - 1), maximum, size)
    a, b = short.first, short.second
    for k in range(1, size):
        assert (a**k).sum().item() == pytest.approx((b**k).sum().item(), abs=1e-11)
    assert short.found and abs(a.max() - b.max()).item() == pytest.approx(2 * short.floor) and short.floor >= 0.0249
    enough = la.latent_collision(powers(size), maximum, size)
    assert not enough.found and enough.floor == 0 and enough.latent_gap > 1e-5 and "No two sets" in enough.argument


def test_a_pair_of_equal_latents_in_closed_form() -> None:
    """φ = x²: {a, b} and {c, c} with c² = (a² + b²)/2 collide, and no read-out is right on both."""
    found = la.latent_collision(lambda x: x.square().sum(1), maximum, 2, domain=(-1.0, 2.0))
    assert found.found and found.first.square().sum().item() == pytest.approx(found.second.square().sum().item())
    latent = found.first.square().sum()
    assert found.check(torch.stack([latent, latent])).passed
    told_apart = found.check(torch.tensor(found.targets))
    assert not told_apart.passed and "floor" in repr(told_apart)


def test_what_collides_differs_by_what_was_asked_for() -> None:
    for seed in (0, 12, 16):  # searches that end at equal latents of targets that are nearer
        found = la.latent_collision(powers(2), maximum, 3, apart=0.17, starts=4, seed=seed)
        assert not found.found or abs(found.targets[0] - found.targets[1]) > 0.17 * (1 - 1e-5)


def test_an_encoder_that_is_the_target_has_no_collision() -> None:
    found = la.latent_collision(lambda x: x[..., 0].amax(1, keepdim=True), maximum, 3)
    assert not found.found and 0.05 < found.latent_gap < 0.1  # 0.05 over the spread of the maximum of three


def test_sets_refuse_bad_input_and_come_back() -> None:
    good = dict(encoder=powers(1), target=maximum, size=2)
    for change, error, name, remedy in (
        (dict(size=1), ArgumentError, "size", "size="),
        (dict(starts=0), ArgumentError, "starts", "starts="),
        (dict(domain=(1.0, 0.0)), ArgumentError, "domain", "(0.0, 1.0)"),
        (dict(apart=0.0), ArgumentError, "apart", "difference of targets"),
        (dict(encoder=lambda x: x.sum()), DataError, "encoder", "first axis"),
        (dict(target=lambda x: x[..., 0]), DataError, "target", "first axis"),
        (dict(encoder=lambda x: x.sum(1) / 0.0), DataError, "encoder", "domain"),
    ):
        with pytest.raises(error) as caught:
            la.latent_collision(**good | change)
        assert isinstance(caught.value, LemmataError) and caught.value.name == name and remedy in str(caught.value)
    found = la.latent_collision(**good, starts=4)
    with pytest.raises(DataError, match="two numbers"):
        found.check(torch.zeros(3))
    again = la.Collision.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) and again.floor == found.floor


# Polynomials


@pytest.mark.parametrize(("d", "degree"), [(1, 3), (2, 2), (3, 3)])
def test_dimension_and_floor_of_polynomial_networks(d: int, degree: int) -> None:
    x = 3 * drawn(200, d) + 5
    target = x.abs().sin().sum(1)
    found = la.polynomial_floor(x, target, degree)
    assert found.dimension == comb(d + degree, degree)
    monomials = [
        ((x / 5) ** torch.tensor(e)).prod(1) for e in itertools.product(range(degree + 1), repeat=d) if sum(e) <= degree
    ]
    A = torch.stack(monomials, 1).numpy()
    residual = target.numpy() - A @ np.linalg.lstsq(A, target.numpy(), rcond=None)[0]
    assert found.lower == pytest.approx(sqrt((residual**2).mean()), rel=1e-6) and found.converged


def test_wide_networks_stay_above_and_another_activation_goes_below() -> None:
    x = torch.linspace(-1, 1, 101, dtype=FLOAT)[:, None]
    floor = la.polynomial_floor(x, x[:, 0].abs(), 4)
    for activation, degree in ((lambda z: z**2, 4), (torch.relu, None)):
        hidden = activation(x @ drawn(1, 300) + drawn(300, seed=1))
        if degree:
            hidden = activation(hidden @ drawn(300, 300, seed=2) / 300)  # two layers of degree two
        A = hidden.numpy()
        fit = torch.from_numpy(A @ np.linalg.lstsq(A, x[:, 0].abs().numpy(), rcond=1e-12)[0])
        error = (fit - x[:, 0].abs()).square().mean().sqrt().item()
        assert (error >= floor.lower - 1e-9) == (degree is not None)
    assert la.polynomial_floor(x, x[:, 0].abs(), 2, order=inf).lower == pytest.approx(1 / 8, abs=1e-3)


def test_polynomials_refuse_bad_input() -> None:
    x = torch.zeros(5, 2)
    for arguments, error, name, remedy in (
        ((x[:, 0], x[:, 0], 2), DataError, "points", "points.flatten(1)"),
        ((x * torch.nan, x[:, 0], 2), DataError, "points", "NaN"),
        ((x, x[:, 0], -1), ArgumentError, "degree", "power of the layers"),
        ((x, x[:, 0], 200), ArgumentError, "degree", "lower degree"),
    ):
        with pytest.raises(error) as caught:
            la.polynomial_floor(*arguments)
        assert caught.value.name == name and remedy in str(caught.value)
