"""Transformers at depth: gradients against differences and loops, distances by least squares, trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lemmata.architectures import Encoder, MultiHeadAttention
from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow import attention

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_sizes_in_the_last_layer_are_those_of_each_positions_loss(norm: str) -> None:
    """The gradient of every single position's loss by the matrix, from central differences of the loss."""
    draws = torch.Generator().manual_seed(0)
    net = Encoder(3, 1, 2, hidden=3, norm=norm, activation="gelu", generator=draws).requires_grad_(False)
    x, labels = gaussian(draws, 2, 2, 3), torch.tensor([[0, 2], [1, 1]])
    read = gaussian(draws, 3, 3)
    W, squares, step = net.layers[-1].feed_forward.W_2.weight, torch.zeros(4, 3, 3), 1e-6

    def losses() -> torch.Tensor:
        return cross_entropy((net(x) @ read).flatten(0, 1), labels.flatten(), reduction="none")

    for i in range(3):
        for j in range(3):
            ends = []
            for move in (step, -2 * step):
                W[i, j] += move
                ends.append(losses())
            W[i, j] += step
            squares[:, i, j] = ((ends[0] - ends[1]) / (2 * step)).square()
    W.requires_grad_(), net.layers[0].feed_forward.W_2.weight.requires_grad_()
    found = attention.sizes(net, read, x, labels)
    assert found.shape == (2,)
    assert float(found[-1]) == pytest.approx(float(squares.sum((1, 2)).mean().sqrt()), rel=1e-7)
    assert not net.layers[0].feed_forward.W_2._forward_hooks


def test_the_setting_is_that_of_the_paper() -> None:
    """Without queries and keys attention is the mean over tokens: equal outputs up to what each token keeps of itself."""
    found = attention.initialised("pre", 3, 8, 2, 4, seed=0, last=True, normed=True)
    assert found["layers"].shape == (3,) and found["value"] == float(found["layers"][-1])
    net = attention.without_norms(Encoder(8, 1, 2, norm="pre"), all_of_them=True)
    assert not any(
        isinstance(module, torch.nn.Module) and "LayerNorm" in type(module).__name__ for module in net.modules()
    )
    net = attention.without_norms(Encoder(8, 1, 2, norm="pre"), all_of_them=False)
    assert sum("LayerNorm" in type(module).__name__ for module in net.modules()) == 4


def test_the_spread_is_that_of_least_squares() -> None:
    x = gaussian(torch.Generator().manual_seed(0), 2, 6, 3)
    for k in range(2):
        rest = np.linalg.lstsq(np.ones((6, 1)), x[k].numpy())[1]
        assert float(attention.spread(x)[k]) == pytest.approx(np.sqrt(rest.sum()))


def test_scores_as_they_are() -> None:
    """One head in plain sums over tokens."""
    net = MultiHeadAttention(4, 1, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    x = gaussian(torch.Generator().manual_seed(1), 1, 3, 4)
    q, k, v = (layer(x)[0].numpy() for layer in (net.W_q, net.W_k, net.W_v))
    rows = [sum(q[i] @ k[j] / 2 * v[j] for j in range(3)) for i in range(3)]
    assert np.allclose(attention.plainly(net, x)[0].numpy(), np.array(rows) @ net.W_o.weight.numpy().T)


def test_tokens_become_equal_down_to_the_rounding() -> None:
    draws = torch.Generator().manual_seed(0)
    curve = attention.collapsing("softmax", 1, 16, 16, 7, 0.0, draws)
    assert len(curve) == 8 and curve[0] > 0.9 and curve[-1] < 1e-15
    steps = curve.log().diff()
    assert steps[3] < 2 * steps[2] < 0  # faster than exponentially
    assert attention.collapsing("softmax", 1, 16, 16, 7, 1.0, draws)[-1] > 0.05


def test_the_trials_part_from_their_controls() -> None:
    def ratio(trial: attention.Any, **keywords: attention.Any) -> float:
        small, large = (
            np.mean(
                [trial(layers=layers, width=32, sequences=8, tokens=4, seed=s, **keywords)["value"] for s in range(4)]
            )
            for layers in (4, 16)
        )
        return float(np.log(large / small) / np.log(4))

    assert abs(ratio(attention.preln_postln_gradients) + 0.5) < 0.2
    assert ratio(attention.preln_postln_gradients, last=False) > -0.1
    assert ratio(attention.preln_postln_gradients, normed=False) > 2
    assert abs(ratio(attention.preln_postln_gradients_post)) < 0.2
    assert ratio(attention.preln_postln_gradients_post, norm="pre") < -0.3
    for kind in attention.KINDS:
        collapse = dict(epsilon=0.01, kind=kind, heads=2, width=8, tokens=8, seed=0)
        assert abs(attention.rank_collapse_cubic(**collapse)["value"] - 3) < 0.05
        assert abs(attention.rank_collapse_cubic(**collapse, skip=1.0)["value"] - 1) < 0.01
        assert abs(attention.rank_collapse_cubic(**collapse, normalised=False)["value"] - 1) < 0.1
