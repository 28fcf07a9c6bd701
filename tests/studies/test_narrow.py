"""Narrow networks: where the argument puts the error, the floors by hand, trials and controls."""

from __future__ import annotations

from dataclasses import replace
from math import cos, pi

import pytest
import torch
from torch import nn

from lemmata.architectures import MLP
from lemmata.studies.approximation import narrow
from lemmata.studies.claim import Grid

pytestmark = pytest.mark.usefixtures("double")


class Of(nn.Module):
    """A function as a module, (n, 2) → (n, 1)."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)[:, None]


def test_meeting_points_are_found_and_exact() -> None:
    """x₂ + x₁²/2 has its value at the centre where x₂ = −x₁²/2 on the rim: x₂ = 1 − √2."""
    found = narrow.meeting_points(Of(lambda x: x[:, 1] + x[:, 0] ** 2 / 2), 64)
    assert len(found) == 4  # two, each from both sides
    assert torch.allclose(found.norm(dim=1), torch.ones(4))
    assert torch.allclose(found[:, 1], torch.full((4,), 1 - 2**0.5))
    assert len(narrow.meeting_points(Of(lambda x: -x.norm(dim=1)), 64)) == 0  # a hill has none


@pytest.mark.parametrize("seed", range(20))
def test_networks_of_width_two_meet_their_centre_on_the_rim(seed: int) -> None:
    """The theorem itself, on random networks: a component of a level set that leaves the disc crosses the rim."""
    draws = torch.Generator().manual_seed(seed)
    net = MLP([2, 2, 2, 2, 1], "relu", init="he", generator=draws)
    with torch.no_grad():
        for layer in net.layers:
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=draws) * 0.3)
        met = narrow.meeting_points(net, 512)
        assert len(met) > 0
        assert (net(met) - net(torch.zeros(1, 2))).abs().max() < 1e-9


def test_floor_of_the_line_and_its_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "NETS", 8)
    trial = narrow.narrow_width_floor_line
    found = trial(depth=2, seed=0)
    assert found["value"] >= 0.5 and found["errors"].min() == found["value"]
    falls = found["f"].diff()
    assert bool((falls <= 0).all() or (falls >= 0).all())
    assert trial(depth=2, seed=0, width=2)["value"] < 0.1


def test_floor_of_the_disc_and_its_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "NETS", 6)
    trial = narrow.narrow_width_floor
    assert trial(depth=2, seed=0)["value"] >= 0.5 - 1e-12
    assert trial(depth=2, seed=0, width=3)["value"] < 0.4


def test_the_pyramid_and_its_controls() -> None:
    trial = narrow.narrow_width_floor_construction
    found = trial(K=12, seed=0)
    assert found["error"] == pytest.approx(1 - cos(pi / 12), rel=1e-12) and found["layers"] == 11
    assert trial(K=12, seed=0, spaced=False)["value"] > 2
    assert trial(K=12, seed=0, lift=0.0)["value"] > 5


def test_two_neurons_and_their_control() -> None:
    trial = narrow.narrow_width_floor_two_neurons
    assert trial(target="waves", cells=8, seed=0)["value"] <= 1
    assert trial(target="waves", cells=8, seed=0, share=1 / 3)["value"] > 1


CLAIMS = [
    replace(narrow.narrow_width_floor_construction, quick=Grid(K=[4, 12, 36], seeds=1)),
    narrow.narrow_width_floor_two_neurons,
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_verdicts_and_figures(claim) -> None:
    from matplotlib.figure import Figure

    result = claim.run("quick")
    assert result.verdict.name == claim.expects, str(result)
    for draw in claim.figures:
        columns = draw(Figure().subplots(), result.rows)
        assert len({len(column) for column in columns.values()}) == 1
