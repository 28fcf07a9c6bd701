"""Normalisation: scale invariance by evaluating the loss, norms by loops, Jacobians by differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, cross_entropy

from lemmata.architectures import MLP
from lemmata.studies.data import digits, gaussian
from lemmata.studies.gradient_flow import normalisation
from lemmata.studies.training import flat_parameters

pytestmark = pytest.mark.usefixtures("double")


def test_the_loss_does_not_see_the_scale_of_a_convolution() -> None:
    x, labels = digits(20, images=True)
    for eps, unseen in ((0.0, True), (1e-2, False)):
        model = normalisation.residual(0, 1, eps).requires_grad_(False)
        before = float(cross_entropy(model(x), labels))
        model.blocks[0].conv1.weight[1].mul_(3.0)
        assert (abs(float(cross_entropy(model(x), labels)) - before) < 1e-13) == unseen


def test_channels_are_rows_of_the_convolutions() -> None:
    model = normalisation.residual(0, 1)
    found = normalisation.channels(model, flat_parameters(model))
    assert [tuple(w.shape) for w in found] == [(4, 9), (4, 36), (4, 36), (8, 36), (8, 72)]
    assert torch.equal(found[1][2], model.blocks[0].conv1.weight[2].detach().flatten())
    (readout,) = normalisation.channels(model, flat_parameters(model), "readout")
    assert torch.equal(readout, model.readout.weight.detach())


@pytest.mark.parametrize("norm", normalisation.NORMS)
def test_the_singular_values_are_those_of_differences(norm: str) -> None:
    seed, width = 3, 6
    found = normalisation.layernorm_jacobian(norm=norm, width=width, scale=1.0, seed=seed)["singular"]
    x = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    layer, steps = normalisation.normaliser(norm, width, 0.0), 1e-5 * torch.eye(width)
    with torch.no_grad():
        jacobian = (layer(x + steps) - layer(x - steps)) / 2e-5
    size = x.std(correction=0) if norm == "LayerNorm" else x.square().mean().sqrt()
    assert np.allclose(found, size * torch.linalg.svdvals(jacobian), atol=1e-8)


def test_the_trials_part_from_their_controls() -> None:
    gradient = dict(blocks=1, seed=1)
    assert normalisation.batchnorm_scale_invariance(**gradient) < 1e-12
    assert normalisation.batchnorm_scale_invariance(**gradient, layers="readout") > 1e-2
    assert normalisation.batchnorm_scale_invariance(**gradient, eps=1e-5) > 1e-7
    growth = dict(steps=10, eta=0.5, seed=1)
    found = normalisation.batchnorm_scale_invariance_growth(**growth)
    assert found["value"] < 1e-10 and float(found["square"][-1]) > 1
    assert np.allclose(found["square"], found["sum"], rtol=1e-12)
    assert normalisation.batchnorm_scale_invariance_growth(**growth, momentum=0.9)["value"] > 0.1
    assert normalisation.batchnorm_scale_invariance_growth(**growth, decay=0.05)["value"] > 0.1
    jacobian = dict(norm="LayerNorm", width=8, scale=0.01, seed=1)
    assert normalisation.layernorm_jacobian(**jacobian)["value"] < 1e-13
    assert normalisation.layernorm_jacobian(**jacobian, eps=1e-5)["value"] > 1e-3
    assert normalisation.layernorm_jacobian(**jacobian, gains=True)["value"] > 1e-2


def test_gradients_by_layer_are_those_of_differences() -> None:
    """The layers written out, with torch's own batch normalisation; each pre-activation moved by itself."""
    draws, step = torch.Generator().manual_seed(0), 1e-6
    net = MLP([4, 4, 4, 4], lambda z: normalisation.over_batch(z).relu(), "he", generator=draws).requires_grad_(False)
    x, weights = gaussian(draws, 6, 4), [layer.weight for layer in net.layers]
    direction = gaussian(torch.Generator().manual_seed(5), 6, 4)

    def value(z: torch.Tensor, after: int) -> float:
        for W in weights[after + 1 :]:
            z = batch_norm(z, None, None, training=True, eps=1e-14).relu() @ W.T
        return float((z * direction).sum())

    truth, z = [], x @ weights[0].T
    for layer in range(3):
        moves = step * torch.eye(24).view(24, 6, 4)
        truth.append(sum(((value(z + m, layer) - value(z - m, layer)) / (2 * step)) ** 2 for m in moves))
        z = batch_norm(z, None, None, training=True, eps=1e-14).relu() @ weights[layer + 1].T if layer < 2 else z
    net.requires_grad_()
    found = normalisation.backwards(net, x, torch.Generator().manual_seed(5))
    assert found.tolist() == pytest.approx(truth, rel=1e-6)


def test_explosion_parts_from_its_controls() -> None:
    explosion = dict(width=200, depth=12, batch=32, seed=0)
    found = normalisation.batchnorm_gradient_explosion(**explosion)
    assert abs(found["value"] - np.pi / (np.pi - 1)) < 0.05 and found["gradients"].shape == (12,)
    assert found["value"] == pytest.approx(found["large"] - (found["small"] - found["large"]) / 3)
    assert abs(normalisation.batchnorm_gradient_explosion(**explosion, units="linear")["value"] - 1) < 0.1
    assert abs(normalisation.batchnorm_gradient_explosion(**explosion, normalised=False)["value"] - 1) < 0.1
