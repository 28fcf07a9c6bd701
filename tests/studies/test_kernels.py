"""Lazy training: closed-form kernels, steps and races against the analyzers and SGD; trials and controls on small sizes."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.studies.gradient_flow import kernels as study

pytestmark = pytest.mark.usefixtures("double")


class ByInput(nn.Module):
    """One of the stacked networks, with inputs along the output's first axis."""

    def __init__(self, net: study.TwoLayer) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).T


def drawn(name: str, nets: int = 1, width: int = 24) -> study.TwoLayer:
    return study.TwoLayer(study.scheme(name, width), nets, width, torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ["tangent", "mean field", "standard"])
def test_the_closed_forms_are_those_of_autograd(name: str) -> None:
    x, y = study.points()
    kernel = drawn(name).kernel(x)[0].detach()
    assert torch.allclose(kernel, la.NTK(ByInput(drawn(name)), x).dense(), rtol=1e-10)
    assert not torch.allclose(kernel, drawn("tangent").kernel(1.01 * x)[0].detach(), rtol=1e-3)
    net, twin = drawn(name, nets=3), drawn(name, nets=3)
    optimizer = torch.optim.SGD(twin.parameters(), 0.7 * twin.s.rate)
    for _ in range(4):
        with torch.no_grad():
            net.step(x[:8], net(x[:8]) - y, 0.7)
        optimizer.zero_grad()
        (0.5 * (twin(x[:8]) - y).square().mean(1)).sum().backward()
        optimizer.step()
    assert all(torch.allclose(p, q, rtol=1e-10) for p, q in zip(net.parameters(), twin.parameters(), strict=True))


def test_a_race_measures_what_the_analyzers_do() -> None:
    found = study.race("tangent", 24, 1, 6, seed=5)
    x, y = study.points()
    net = ByInput(drawn("tangent"))
    start = deepcopy(net)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return 0.5 * (output - target).square().mean()

    curve = la.LinearisedTraining(net, loss, (x[:8], y[:, None]), x[8:]).descent([6], rate=1.0)
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    for _ in range(6):
        optimizer.zero_grad()
        loss(net(x[:8]), y[:, None]).backward()
        optimizer.step()
    lazy = la.lazy_rich(start, net, x)
    assert found["kernel"] == pytest.approx(float(lazy.kernel_change), rel=1e-9)
    assert found["path"] == pytest.approx(lazy.parameter_change, rel=1e-9)
    moved = curve.held_out[0] - start(x[8:]).detach()
    gap = (net(x[8:]).detach() - curve.held_out[0]).norm() / moved.norm()
    assert found["gap"] == pytest.approx(float(gap), rel=1e-9)


def test_width_freezes_the_tangent_parametrisation_and_not_the_mean_field() -> None:
    for key, factor in (("kernel", 16), ("gap", 16), ("path", 4)):
        narrow, wide = (study.race("tangent", n, 32, 8, seed=1)[key] for n in (64, 1024))
        assert factor / 1.6 < narrow / wide < factor * 1.6
        narrow, wide = (study.race("mean field", n, 32, 8, seed=1)[key] for n in (64, 1024))
        assert 0.7 < narrow / wide < 1.4
    light, heavy = (
        [study.ntk_lazy_scaling_start(width=n, nets=60, seed=2, heavy=cauchy) for n in (64, 1024)]
        for cauchy in (False, True)
    )
    assert 2.5 < light[0] / light[1] < 6 and heavy[0] / heavy[1] < 2


def test_the_kernel_explains_the_large_scale_and_not_the_small_one() -> None:
    sizes = dict(images=60, width=48, steps=100, seed=0)
    lazy = study.ntk_explains_training(scale=100.0, **sizes)
    rich = study.ntk_explains_training(scale=0.03, **sizes)
    assert lazy["value"] < 0.02 and rich["value"] > 0.15
    assert abs(lazy["loss"] / lazy["predicted loss"] - 1).max() < 0.05
    assert lazy["loss"][0] == pytest.approx(0.5) and rich["loss"][0] == pytest.approx(0.5)
    assert abs(rich["loss"] / rich["predicted loss"] - 1).max() > 0.5
    assert study.ntk_explains_training(scale=100.0, **sizes, another=True)["value"] > 0.15
    assert study.ntk_explains_training(scale=100.0, **sizes, params="net.layers.1.*")["value"] > 0.15
