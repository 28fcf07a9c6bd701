"""Static attention: scores and rankings by hand, trials and controls."""

from __future__ import annotations

import pytest
import torch

from lemmata.architectures import GATLayer, GATv2Layer
from lemmata.studies.approximation import graph_attention as study
from lemmata.studies.data import gaussian

pytestmark = pytest.mark.usefixtures("double")


def leaky(z: torch.Tensor) -> torch.Tensor:
    return torch.where(z > 0, z, 0.2 * z)


@pytest.mark.parametrize("layer", [GATLayer, GATv2Layer])
def test_scores_are_those_of_the_papers_and_their_softmax_the_attention(layer: type) -> None:
    draws = torch.Generator().manual_seed(0)
    net, x = layer(3, 4, 2, generator=draws).requires_grad_(False), gaussian(draws, 5, 3)
    found = study.raw_scores(net, x)
    assert torch.allclose(found.softmax(1), net.attention(x, torch.ones(5, 5)), rtol=1e-12)
    for head in range(2):
        rows = slice(2 * head, 2 * head + 2)
        for i in range(5):
            for j in range(5):
                if layer is GATLayer:
                    W = net.weight[rows]
                    truth = leaky(net.a_receiver[head] @ W @ x[i] + net.a_sender[head] @ W @ x[j])
                else:
                    truth = net.a[head] @ leaky(net.W_receiver[rows] @ x[i] + net.W_sender[rows] @ x[j])
                assert float(found[i, j, head]) == pytest.approx(float(truth), rel=1e-12)


def test_agreement_counts_the_pairs_in_one_order() -> None:
    tables = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 9.0], [1.0, 3.0, 2.0]])[..., None]
    assert study.least_agreement(tables[:2]) == pytest.approx(1)
    assert study.least_agreement(tables) == pytest.approx(1 / 3)  # one of three pairs is turned: (2 − 1)/3


def test_a_dictionary_holds_what_is_asked() -> None:
    x, values = study.dictionaries((4,), 5, torch.Generator().manual_seed(1))
    assert torch.equal(x[:, 5:, 5:].argmax(-1), values) and torch.equal(x[:, :5, :5], x[:, 5:, :5])
    assert float(x[:, :5, 5:].abs().max()) == 0 and all(sorted(row) == list(range(5)) for row in values.tolist())
    net = study.Lookup("GAT", 5, 8, 2, torch.Generator().manual_seed(2))
    moved = x.clone()
    moved[:, 1, :5] = 0.3  # another query
    assert torch.allclose(net(x)[:, 0], net(moved)[:, 0]) and not torch.allclose(net(x)[:, 1], net(moved)[:, 1])


def test_the_trials_part_from_their_controls() -> None:
    for weights in ("random", "trained"):
        ranking = dict(weights=weights, nodes=8, heads=2, seed=0)
        found = study.gat_static_attention(**ranking)
        assert found["value"] == pytest.approx(1) and found["favourites"] == 1
        assert study.gat_static_attention(**ranking, kind="GATv2")["value"] < 0.9
    small = dict(keys=4, nets=1, steps=100, seed=0)
    assert study.gat_static_attention_lookup(**small)["value"] <= 0.25
    found = study.gat_static_attention_lookup(**small, kind="GATv2")
    assert found["value"] > 0.7 and found["accuracy"] > 0.9 and found["attention"].shape == (4, 4)
