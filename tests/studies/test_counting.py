"""Recurrent networks that count, against their own classes and a geometric series, and controls that fail."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from lemmata.architectures import GRU, LSTM, RNN
from lemmata.studies.approximation import counting

pytestmark = pytest.mark.usefixtures("double")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_traces_are_the_networks_states(kind: type[nn.Module]) -> None:
    net, x = kind(2, 5, generator=seeded(0)), torch.randn(3, 7, 2, generator=seeded(1))
    states, cells = counting.trace(net, x)
    assert torch.allclose(states, net.states(x), rtol=0, atol=1e-14)
    if kind is LSTM:
        torch_net = nn.LSTM(2, 5, batch_first=True)
        torch_net.load_state_dict(
            {"weight_ih_l0": net.W, "weight_hh_l0": net.U, "bias_ih_l0": net.b, "bias_hh_l0": 0 * net.b}
        )
        assert torch.allclose(cells[:, -1], torch_net(x)[1][1][0], rtol=0, atol=1e-14)


def test_the_adder_adds_and_a_leaky_one_saturates() -> None:
    found = counting.lstm_counts_gru_saturates(steps=300, word="ones", seed=0)
    assert found["value"] == 0 and found["last"] == 300
    assert counting.lstm_counts_gru_saturates(steps=300, word="random", seed=0)["value"] == 0
    leaky = counting.lstm_counts_gru_saturates(steps=300, word="ones", seed=0, forget=0.9)
    by_hand = [10 * (1 - 0.9**t) for t in range(1, 301)]
    assert np.allclose(leaky["cells"], by_hand, rtol=1e-12) and leaky["value"] > 0.9


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_bounds_hold_and_a_rectified_candidate_breaks_them(kind: str) -> None:
    settings = dict(kind=kind, start=0.0, width=8, steps=40, seed=0)
    assert 0.99 < counting.lstm_counts_gru_saturates_bound(**settings)["value"] <= 1 + 1e-14
    assert counting.lstm_counts_gru_saturates_bound(**settings, candidate="relu")["value"] > 2


def test_a_trained_gru_stops_and_a_cell_goes_on() -> None:
    found = counting.lstm_counts_gru_saturates_floor(length=100, steps=40, seed=0)
    assert found["value"] >= 1 and (found["floors"] > 20).all()
    assert counting.lstm_counts_gru_saturates_floor(length=100, steps=100, seed=0, state="cell")["value"] < 0.9


def test_figures(row_of: Callable[..., SimpleNamespace]) -> None:
    claim = counting.lstm_counts_gru_saturates
    rows = [row_of(claim, arm, steps=100, word="ones") for arm in ("", *claim.controls)]
    columns = counting.draw_cells(Figure().subplots(), rows)
    assert columns["keeps all"][-1] == 100 and columns["forgets a tenth"][-1] < 10
    floor = counting.lstm_counts_gru_saturates_floor
    drawn = counting.draw_counts(
        Figure().subplots(), [row_of(floor, arm, length=30, steps=2) for arm in ("", counting.CELL)]
    )
    assert {len(column) for column in drawn.values()} == {30}
