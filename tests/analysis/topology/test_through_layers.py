"""Betti numbers through layers whose effect is known, against the alpha complex, and bad input."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from lemmata.analysis import betti, betti_through_layers
from lemmata.analysis.errors import ArgumentError, DataError, ModelStateError, NumericsError
from lemmata.analysis.topology import LayerBetti


def rings(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A ring around a disc, on a grid that is not quite regular."""
    draws = torch.Generator().manual_seed(seed)
    line = torch.arange(-1, 1, 0.07)
    x = torch.cartesian_prod(line, line)
    x = x + 0.01 * torch.randn(x.shape, generator=draws)
    size = x.norm(dim=1)
    kept = (size < 0.3) | ((size > 0.6) & (size < 1))
    return x[kept], (size[kept] > 0.5).long()


class Folding(nn.Module):
    """The upper half plane stays, the lower one is mirrored; then the first coordinate alone."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.fold, self.project = nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 1)
        with torch.no_grad():
            self.turn.weight.copy_(torch.tensor([[0.6, -0.8], [0.8, 0.6]]))
            self.turn.bias.copy_(torch.tensor([5.0, 0.0]))
            self.project.weight.copy_(torch.tensor([[1.0, 0.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.turn(x)
        return self.project(self.fold(torch.stack([z[:, 0], z[:, 1].abs()], 1)))


def test_a_fold_closes_a_ring_and_a_turn_does_not() -> None:
    """The alpha complex says the same of each layer's own output, and of ten times as large an input."""
    x, label = rings()
    model = Folding()
    before = copy.deepcopy(model.state_dict())
    found = betti_through_layers(model, x, label, landmarks=100)
    assert found.layers == ("inputs", "turn", "fold", "project") and found.classes == (0, 1)
    assert [[one.numbers for one in row] for row in found.found[:3]] == [[(1, 0), (1, 1)]] * 2 + [[(1, 0), (1, 0)]]
    assert found.totals[:3].tolist() == [[1, 2], [1, 2], [1, 1]] and found["turn"][1].numbers == (1, 1)
    ring = x[label == 1]
    z = model.turn(ring).detach()
    assert betti(z).numbers == (1, 1) and betti(torch.stack([z[:, 0], z[:, 1].abs()], 1)).numbers == (1, 0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    larger = betti_through_layers(nn.Sequential(nn.Identity()), 10 * x, label, landmarks=100)
    assert larger["0"][1].numbers == (1, 1)


def test_too_few_neighbours_tear_and_too_many_close() -> None:
    x, label = rings()
    ring = x[label == 1]
    identity = nn.Sequential(nn.Identity())
    torn, right, closed = (
        betti_through_layers(identity, ring, neighbours=k, landmarks=100)["0"][0] for k in (1, 14, 200)
    )
    assert torn.numbers[0] > 20
    assert right.numbers == (1, 1) and right.converged and right.plateau[1] == 4.5
    assert closed.numbers == (1, 0)


def test_a_result_can_be_kept_and_drawn() -> None:
    x, label = rings()
    found = betti_through_layers(Folding(), x, label, layers="t*", landmarks=100)
    again = LayerBetti.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.layers == ("inputs", "turn") and torch.equal(again.totals, found.totals) and repr(again) == repr(found)
    assert "turn: (1, 0), (1, 1)" in repr(found) and again.converged == found.converged
    assert len(found.plot().get_legend().get_texts()) == 2


def test_bad_input() -> None:
    x, label = rings()
    model = Folding()
    with pytest.raises(ArgumentError, match=r"layers='conv\*': .*turn.*Pass layers='\*'"):
        betti_through_layers(model, x, layers="conv*")
    with pytest.raises(ArgumentError, match=r"scale: .*Pass scale=3\.5"):
        betti_through_layers(model, x, scale=0.0)
    with pytest.raises(DataError, match=r"labels: .*argmax"):
        betti_through_layers(model, x, label[:-1])
    with pytest.raises(DataError, match=r"labels: .*argmax"):
        betti_through_layers(model, x, label.float())
    with pytest.raises(ModelStateError, match=r"1 \(Dropout\).*eval"):
        betti_through_layers(nn.Sequential(model, nn.Dropout()), x)
    with torch.no_grad():
        model.turn.weight.fill_(torch.inf)
    with pytest.raises(NumericsError, match=r"turn: .*weights"):
        betti_through_layers(model, x)
