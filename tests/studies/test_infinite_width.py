"""Random networks of the study of infinite width: against torch's own layers, the tangent kernel operator, and sampling."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis import infinite_width as iw
from lemmata.studies.gradient_flow import infinite_width, wide_networks
from lemmata.studies.gradient_flow.wide_networks import BODIES, READOUTS, Sample, corrections, covariances, shifts

pytestmark = pytest.mark.usefixtures("double")


class Told(nn.Module):
    """A network written by hand around the parameters that a sample drew for its second network."""

    def __init__(self, parameters: list[Tensor]) -> None:
        super().__init__()
        self.parts = nn.ParameterList([one[1].detach().clone() for one in parameters])


class Residual(Told):
    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, _ = self.parts
        x = F.linear(x, a / sqrt(2), sqrt(0.1) * b)
        x = x + F.linear(F.gelu(F.layer_norm(x, (6,))), c / sqrt(6), sqrt(0.1) * d)
        return F.linear(x.tanh(), e / sqrt(6))


class Convolutions(Told):
    padding, pooled = "constant", True

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, _ = self.parts
        for weight, bias in ((a, b), (c, d)):
            kernel = weight.reshape(6, -1, 3) * sqrt(2 / weight.shape[1])
            x = F.conv1d(F.pad(x, (1, 1), mode=self.padding), kernel, sqrt(0.1) * bias).relu()
        x = x.mean(2) if self.pooled else x.mT.flatten(1)
        return F.linear(x, e / sqrt(x.shape[1]))


class Flattened(Convolutions):
    padding, pooled = "circular", False


@pytest.mark.parametrize(
    ("body", "inputs", "written"),
    [
        (BODIES["residual, normalised"], "dense", Residual),
        (BODIES["convolutions, pooled"], "convolutions", Convolutions),
        (READOUTS["flatten"], "convolutions", Flattened),
    ],
    ids=["residual", "pooled", "flattened"],
)
def test_drawn_networks_are_torchs_layers(body: iw.Serial, inputs: str, written: type[Told]) -> None:
    """Outputs of torch's own layers, and their tangent kernel by ``la.NTK``, at the drawn parameters."""
    sample = Sample(3, 6, torch.Generator().manual_seed(0))
    x = wide_networks.inputs(inputs)
    start = x.movedim(1, -1).expand(3, *x.movedim(1, -1).shape)
    outputs = sample.weighted(sample.run(body, start), 1, 1.0, 0.0)
    kernel = wide_networks.tangent_kernels(outputs[..., 0], sample.parameters)[1]
    model = written(sample.parameters)
    assert torch.allclose(model(x), outputs[1], rtol=1e-12)
    assert not torch.allclose(model(x), outputs[0], rtol=1e-2)
    assert torch.allclose(la.NTK(model, x).dense(), kernel, rtol=1e-11)


def test_the_standard_parametrisation_is_the_same_network_with_other_gradients() -> None:
    def sampled(scheme: str) -> tuple[Tensor, Tensor]:
        sample = Sample(2, 8, torch.Generator().manual_seed(1), scheme)
        x = wide_networks.inputs("dense").expand(2, -1, -1)
        outputs = sample.weighted(sample.run(BODIES["dense"], x), 1, 1.0, 0.0)[..., 0]
        return outputs.detach(), wide_networks.tangent_kernels(outputs, sample.parameters)

    (one, tangent), (two, standard) = sampled("tangent"), sampled("standard")
    assert torch.allclose(one, two, rtol=1e-12) and (standard[:, 0, 0] > 2 * tangent[:, 0, 0]).all()
    default = Sample(1, 50, torch.Generator().manual_seed(0), "default")
    default.parameter((50, 40), 1.0, 40)
    drawn = default.parameters[0].detach()
    assert float(drawn.abs().max()) <= 40**-0.5 and float(drawn.var()) == pytest.approx(1 / 120, rel=0.1)


def test_corrections_are_those_of_sampled_networks() -> None:
    """Means over networks of width 6, all layers drawn, against those with two layers averaged in closed form."""
    c, nets = -0.5, 40_000
    x = sqrt(2) * torch.tensor([[1.0, 0.0], [c, sqrt(1 - c * c)]])
    sample = Sample(nets, 6, torch.Generator().manual_seed(5))
    features = sample.run(BODIES["dense"], x.expand(nets, 2, 2))
    outputs = sample.weighted(features, 1, 1.0, 0.0)[..., 0]
    direct = {"nngp": covariances(features), "ntk": wide_networks.tangent_kernels(outputs, sample.parameters)}
    limit = iw.Serial(BODIES["dense"], iw.Dense(1.0))(x)
    for name, (deviation, linear, limiting) in corrections(c, 6, nets, torch.Generator().manual_seed(1)).items():
        entry = direct[name][:, 0, 1].detach()
        truth = float(getattr(limit, name)[0, 1])
        assert float(limiting) == pytest.approx(truth, rel=1e-12)
        stderr = float(entry.std()) / sqrt(nets)
        assert abs(float((deviation - linear).mean()) - float(entry.mean()) + truth) < 4 * stderr
        assert abs(float(entry.mean()) - truth) > 10 * stderr  # the correction is seen
        assert abs(float(linear.mean())) < 4 * float(linear.std()) / sqrt(nets)


def test_unshared_weights_are_not_equivariant() -> None:
    x = shifts()
    for shared in (True, False):
        sample = Sample(1, 4, torch.Generator().manual_seed(0), shared=shared)
        pooled = sample.run(READOUTS["pool"], x.mT.expand(1, *x.mT.shape)).detach()
        assert torch.allclose(pooled[0, 0], pooled[0, 1], rtol=1e-12) == shared


@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
def test_limits_are_approached_and_controls_are_not(kernel: str) -> None:
    claim = infinite_width.nngp_limit if kernel == "nngp" else infinite_width.ntk_limit
    sizes = dict(name="dense", units=2000, seed=0)
    near, far = (claim(width=width, **sizes)["value"] for width in (200, 20))
    assert near < 0.5 * far
    for control in claim.controls.values():
        assert claim(width=200, **sizes, **control)["value"] > 2 * near


def test_the_other_trials_part_from_their_controls() -> None:
    mean = dict(kernel="ntk", correlation=-0.5, units=2**15, seed=0)
    two = [infinite_width.ntk_limit_mean(width=width, **mean) for width in (16, 64)]
    one = [infinite_width.ntk_limit_mean(width=width, **mean, single=True) for width in (16, 64)]
    assert 3 < two[0] / two[1] < 5 and 1.7 < one[0] / one[1] < 2.4
    sizes = dict(width=48, nets=40, seed=0)
    for shared in (True, False):
        assert abs(infinite_width.pooling_keeps_shared_weights(shared=shared, **sizes)["value"] - 1) < 0.2
    assert infinite_width.pooling_keeps_shared_weights(shared=False, readout="pool", **sizes)["value"] < 0.75
    trained = dict(width=512, units=2048, steps=50, seed=0)
    right = infinite_width.kernel_regression(**trained)
    assert right["value"] < 0.015
    assert infinite_width.kernel_regression(**trained, kernel="nngp")["value"] > 2 * right["value"]
    assert infinite_width.kernel_regression(**trained, readout=True)["value"] > 2 * right["value"]
    assert right["mean"].shape == (3,)
