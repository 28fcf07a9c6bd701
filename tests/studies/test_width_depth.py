"""Width against depth: parameters counted by torch, regions by sampling and by hand, controls that fail at small sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lemmata.studies.approximation import width_depth as study

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize(("inputs", "width", "depth"), [(40, 7, 1), (64, 5, 3)])
def test_parameters_are_torchs(inputs: int, width: int, depth: int) -> None:
    network = study.draw_networks(inputs, width, depth, 1, 0, "relu")[0]
    assert study.parameters(inputs, width, depth) == sum(part.numel() for part in network.parameters())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_width_is_the_nearest(depth: int) -> None:
    width = study.width_of(40, depth, 5000)
    own = abs(study.parameters(40, width, depth) - 5000)
    assert all(own <= abs(study.parameters(40, other, depth) - 5000) for other in (width - 1, width + 1))


def patterns(network: nn.Module, start: Tensor, end: Tensor, samples: int) -> int:
    """Changes of the activation pattern, seen at samples of a segment: never more than there are."""
    t = torch.linspace(0, 1, samples)[:, None]
    z = torch.cat(network.preactivations(start + t * (end - start))[:-1], 1)
    active = z > 0
    return int((active[1:] != active[:-1]).any(1).sum())


@pytest.mark.parametrize("depth", [1, 3])
def test_borders_are_the_changes_that_samples_see(depth: int) -> None:
    network = study.draw_networks(5, 6, depth, 1, 3, "relu")[0].double()
    with torch.no_grad():
        for layer in network.layers:
            layer.bias.normal_(generator=torch.Generator().manual_seed(0))
    segments = study.draw_segments(torch.randn(20, 5, generator=torch.Generator().manual_seed(1)), 4, seed=0)
    seen = [patterns(network, *segment, samples=20_000) for segment in segments]
    assert study.borders(network, segments) == sum(seen) / 4 > 1


def test_one_layer_has_a_border_where_a_unit_changes_sign() -> None:
    network = study.draw_networks(5, 50, 1, 1, 3, "relu")[0]
    segments = study.draw_segments(torch.randn(20, 5, generator=torch.Generator().manual_seed(1)), 4, seed=0)
    signs = network.double().preactivations(segments)[0] > 0
    assert study.borders(network, segments) == float((signs[:, 0] != signs[:, 1]).sum()) / 4


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_folding_layers(depth: int) -> None:
    start, end = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    network = study.folded(start, end, width=8, depth=depth)
    found = study.borders(network, torch.stack([start, end])[None])
    assert found == patterns(network, start, end, samples=100_000)
    assert found + 1 - sum(6**layer for layer in range(1, depth + 1)) in (0, 1)  # an end may lie beyond a knot


def test_accuracy_by_hand() -> None:
    class Says(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x[:, 0].long(), 3).double()

    x = torch.tensor([[0.0], [1.0], [2.0], [1.0]])
    assert study.accuracy([Says()], x, torch.tensor([0, 1, 2, 0])) == 0.75


def test_without_activation_the_network_is_affine_and_depth_buys_nothing() -> None:
    network = study.draw_networks(40, 6, 3, 1, 0, "none")[0].double()
    a, b = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network((a + b) / 2), (network(a) + network(b)) / 2, rtol=0, atol=1e-12)
    point = dict(comparison="digits", budget=2000, nets=2, steps=30, seed=0)
    control = study.depth_at_equal_parameters(**point, activation="none")
    assert control["value"] < 0.02
    assert control["value"] == float(control["two layers"][0] - control["one layer"][0])
    assert [study.width_of(64, depth, 2000) for depth in (1, 2)] == control["widths"].tolist()


def test_a_trial_is_a_function_of_its_seed() -> None:
    point = dict(data="digits", width=8, depth=3, nets=2, steps=30)
    first, again, other = (study.trained_regions_per_neuron(**point, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first["accuracy"] > 0.3 and first["value"] <= 1
    control = study.trained_regions_per_neuron(**point, seed=0, weights="folded")
    assert control["value"] > 1
