"""Gradients through time: one-step maps against the lab's networks, Jacobians against differences, trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemmata.analysis.gradient_flow import lyapunov_exponents, tangent_maps
from lemmata.architectures import GRU, LSTM, RNN
from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow import gates, recurrence

pytestmark = pytest.mark.usefixtures("double")


def test_steps_are_those_of_the_networks() -> None:
    draws = torch.Generator().manual_seed(0)
    x = gaussian(draws, 6, 3)
    rnn, lstm, gru = (kind(3, 5, generator=draws).requires_grad_(False) for kind in (RNN, LSTM, GRU))
    states = {net: net.states(x[None])[0] for net in (rnn, lstm, gru)}
    a = b = c = cell = torch.zeros(5)
    for t in range(6):
        a, c = recurrence.rnn_step(rnn, x[t], a), gates.gru_step(gru, x[t], c)
        b, cell = gates.lstm_step(lstm, x[t], b, cell)
        for net, h in ((rnn, a), (lstm, b), (gru, c)):
            assert torch.allclose(h, states[net][t], atol=1e-14)
    assert not torch.allclose(c, states[lstm][-1], atol=1e-3)


@pytest.mark.parametrize("units", ["tanh", "sigmoid"])
def test_bounds_hold_for_differences(units: str) -> None:
    """The growth that the trial reports, with the Jacobian by central differences of the last state."""
    width, steps, step = 6, 3, 1e-6

    def scaled(draw: torch.Tensor) -> torch.Tensor:
        return draw * 1.2 / recurrence.SLOPES[units] / torch.linalg.matrix_norm(draw, 2)

    last, start, _ = recurrence.driven(units, steps, width, scaled, 1.0, seed=3)
    moved = [(last(start + step * e) - last(start - step * e)) / (2 * step) for e in torch.eye(width)]
    growth = float(torch.linalg.matrix_norm(torch.stack(moved, 1), 2).log()) / steps
    trial = recurrence.rnn_gradient_bound(units=units, size=1.2, steps=steps, width=width, seed=3)
    assert abs(trial["growth"] - growth) < 1e-7 and abs(trial["value"] - growth + np.log(1.2)) < 1e-7
    assert abs(trial["value"]) > 1e-3


def test_norms_of_powers_do_not_overflow() -> None:
    U = torch.tensor([[100.0, 1e3], [0.0, 50.0]])
    found = recurrence.log_norms(U, 400)
    dense = [float(torch.linalg.matrix_norm(torch.linalg.matrix_power(U, k), 2).log()) for k in (1, 2, 50)]
    assert np.allclose([found[1], found[2], found[50]], dense, rtol=1e-12)
    assert abs(found[-1] / 400 - np.log(100)) < 0.01 < found[1] - np.log(100)


def test_a_linear_network_remembers_as_many_inputs_as_it_has_units() -> None:
    found = recurrence.rnn_memory_capacity(width=5, steps=4000, seed=0)
    assert abs(found["value"] - 5) < 0.3 and found["shares"].shape == (60,)
    assert recurrence.rnn_memory_capacity(width=10, steps=4000, seed=0, units="tanh")["value"] < 8
    assert recurrence.rnn_memory_capacity(width=5, steps=4000, seed=0, mixing=False)["value"] < 1.5


def test_the_trials_part_from_their_controls() -> None:
    bound = dict(units="tanh", size=1.2, steps=1, width=10, seed=0)
    assert recurrence.rnn_gradient_bound(**bound)["value"] <= 1e-12
    assert recurrence.rnn_gradient_bound(**bound, radius=True)["value"] > 0.01
    assert recurrence.rnn_gradient_bound(**bound, steep=3.0)["value"] > 0.1
    kept = dict(steps=20, width=6, seed=0)
    assert recurrence.rnn_gradient_bound_orthogonal(**kept) < 1e-13
    assert recurrence.rnn_gradient_bound_orthogonal(**kept, orthogonal=False) > 0.5
    assert recurrence.rnn_gradient_bound_orthogonal(**kept, units="tanh") > 0.01
    power = dict(gain=0.9, width=30, steps=300, seed=0)
    assert abs(recurrence.gelfand_vs_norm(**power)["value"]) < 0.005
    assert recurrence.gelfand_vs_norm(**power, long=False)["value"] > 0.3
    assert recurrence.gelfand_vs_norm(**power, radius=False)["value"] < -0.3


def test_gates_carry_gradients() -> None:
    point = dict(bias=1.0, steps=10, width=4, seed=0)
    for trial in (gates.lstm_forget_transport, gates.gru_update_transport):
        assert trial(**point)["value"] < 1e-14 and trial(**point, recurrent=True)["value"] > 1e-3
    assert gates.lstm_forget_transport(**point, biases=2)["value"] > 0.1
    assert gates.gru_update_transport(**point, swapped=True)["value"] > 0.1
    times = [gates.lstm_forget_transport_chrono(t_max=50, seed=seed) for seed in range(40)]
    assert 2 <= min(times) < 15 and 35 < max(times) <= 50
    assert gates.lstm_forget_transport_chrono(t_max=50, seed=0, bias_init="forget") == pytest.approx(1 + np.e)
    halves = gates.transport(torch.eye(3) / 8, torch.full((3, 3), 0.5))
    assert halves == {"value": 0.0, "size": pytest.approx(1 / 8)}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_transport_is_that_of_differences_in_torch_s_own_cells(kind: str) -> None:
    """The same product of gates, read off torch.nn's cells by differences of their states."""
    draws = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    stock = (torch.nn.LSTMCell if kind == "lstm" else torch.nn.GRUCell)(3, 4).requires_grad_(False)
    stock.weight_hh.zero_()
    x, step = gaussian(draws, 5, 1, 3), 1e-6

    def last(start: torch.Tensor) -> torch.Tensor:
        h, c = (torch.zeros(1, 4), start) if kind == "lstm" else (start, start)
        for one in x:
            if kind == "lstm":
                h, c = stock(one, (h, c))
            else:
                c = stock(one, c)
        return c[0]

    start = gaussian(draws, 1, 4)
    found = torch.stack([(last(start + step * e) - last(start - step * e)) / (2 * step) for e in torch.eye(4)], 1)
    logits = x[:, 0] @ stock.weight_ih[4:8].T + (stock.bias_ih + stock.bias_hh)[4:8]
    assert gates.transport(found, logits.sigmoid())["value"] < 1e-8
    assert gates.transport(found, (logits - stock.bias_hh[4:8]).sigmoid())["value"] > 1e-2  # two biases, not one


def test_exponents_of_gates_are_the_mean_logarithms_of_the_gates() -> None:
    """Of the Jacobian of (h, c) without recurrent weights: ln f on average for each cell; h itself is forgotten at once."""
    draws = torch.Generator().manual_seed(0)
    net, n = LSTM(2, 3, generator=draws).requires_grad_(False), 3
    net.U.zero_()
    net.b[n : 2 * n] = torch.tensor([0.0, 1.0, 2.0])
    inputs = gaussian(draws, 640, 2)

    def step(state: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(gates.lstm_step(net, x, *state.chunk(2)))

    found = lyapunov_exponents(tangent_maps(step, torch.zeros(2 * n), inputs), 2 * n, steps=600, warmup=40, tol=0.0)
    truth = (inputs[40:] @ net.W[n : 2 * n].T + net.b[n : 2 * n]).sigmoid().log().mean(0)
    assert torch.allclose(found.values[:n], truth.sort(descending=True)[0], atol=0.01)
    assert bool((found.values[n:] < -10).all()) and not torch.allclose(found.values[:n], truth, atol=0.01)
