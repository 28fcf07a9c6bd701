"""Silence before the input: the step against the network, and controls that fail."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.invariance import time_shift

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("cell", list(time_shift.CELLS))
def test_the_silent_step_is_the_network_and_its_rate_that_of_its_states(cell: str) -> None:
    draws = torch.Generator().manual_seed(1)
    net = time_shift.network(cell, 6, 0.5, 0.8, draws)
    states = net.states(torch.zeros(1, 5, time_shift.INPUTS))[0]
    state = torch.zeros(12 if cell == "lstm" else 6)
    for truth in states:
        state = time_shift.silent_step(net, state)
        assert torch.allclose(state[:6], truth, atol=1e-14)
    rate = dict(cell=cell, width=6, seed=3)
    assert time_shift.rnn_time_shift_rate(**rate)["value"] < 0.05
    assert time_shift.rnn_time_shift_rate(**rate, norm=True)["value"] > 0.05
    exact = dict(cell=cell, wait=4, width=6, seed=0)
    assert time_shift.rnn_time_shift(**exact)["value"] < 1e-14
    assert time_shift.rnn_time_shift(**exact, bias=0.5)["value"] > 1e-3
    assert time_shift.rnn_time_shift(**exact, level=1.0)["value"] > 1e-3
