"""The order of learning: the networks' laws, and orders that come out or break at a small size."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.approximation import spectral_bias

pytestmark = pytest.mark.usefixtures("double")


def test_fast_sines_have_their_authors_law() -> None:
    whole = spectral_bias.network("sine, ω = 30", 64, torch.Generator().manual_seed(0)).requires_grad_(False)
    first, second, third = whole.net.layers
    assert 0.9 < float(first.weight.abs().max()) <= 1
    for layer in (second, third):
        assert 0.9 < float(layer.weight.abs().max()) / ((6 / 64) ** 0.5 / 30) <= 1
    x = torch.tensor([0.25], dtype=torch.float32)
    h = torch.sin(30 * (first.weight @ (2 * x - 1) + first.bias))
    h = torch.sin(30 * (second.weight @ h + second.bias))
    assert torch.allclose(third.weight @ h + third.bias, whole(x), atol=1e-5)


def test_waves_as_inputs_are_waves() -> None:
    whole = spectral_bias.network("relu", 8, torch.Generator().manual_seed(0), highest=2).requires_grad_(False)
    x = torch.tensor([[0.0], [0.25], [1 / 3]], dtype=torch.float32)
    turns = [[1, 1, 0, 0], [0, -1, 1, 0], [-0.5, -0.5, 3**0.5 / 2, -(3**0.5) / 2]]  # cos, cos 2, sin, sin 2
    assert torch.allclose(whole(x), whole.net(torch.tensor(turns, dtype=torch.float32)), atol=1e-6)


def test_orders_come_out_and_break() -> None:
    trial = dict(highest=4, width=128, steps=300)
    plain = [spectral_bias.spectral_bias_frequency_order(units="tanh", seed=seed, **trial) for seed in range(2)]
    assert min(float(one["value"]) for one in plain) > 0.7 and plain[0]["left"].shape == (61, 4)
    fast = spectral_bias.spectral_bias_frequency_order(units="sine, ω = 30", seed=0, **trial)
    waves = [spectral_bias.spectral_bias_frequency_order(units="tanh", seed=s, waves=True, **trial) for s in range(2)]
    for one in (fast, *waves):  # all learned in a tenth of the steps, at about one time
        assert float(one["times"].max()) < 30 and float(one["times"].max() / one["times"].min()) < 2
    assert sum(float(one["value"]) for one in waves) < sum(float(one["value"]) for one in plain)
