"""The landscape study: its networks, its rescaling, and controls at one cheap point."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lemmata.studies.curvature.landscape import MODELS, filter_normalised_slices, network, rescale, slice_curvature

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("model", MODELS)
def test_a_rescaled_network_computes_the_same_function_only_with_relu(model: str) -> None:
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    gaps = []
    for activation in (nn.ReLU, nn.Tanh):
        net = network(model, activation).double()
        before = net(x).detach()
        rescale(net, 10.0)
        gaps.append(float((net(x).detach() - before).abs().max()))
    assert gaps[0] < 1e-13 < 1e-3 < gaps[1]


@pytest.mark.parametrize("model", MODELS)
def test_slices_of_rescaled_networks(model: str) -> None:
    sizes = dict(model=model, factor=10.0, steps=5, images=20, points=5, seed=0)
    assert filter_normalised_slices(**sizes)["value"] < 1e-12
    assert filter_normalised_slices(**sizes, normalised=False)["value"] > 1


@pytest.mark.parametrize("model", MODELS)
def test_slices_bend_by_the_eigenvalues(model: str) -> None:
    sizes = dict(model=model, steps=10, images=50, seed=0)
    assert slice_curvature(**sizes)["value"] < 1e-5
    assert slice_curvature(**sizes, random=True)["value"] > 0.5
