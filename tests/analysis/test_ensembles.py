"""Measures over networks against one network after another, in plain calls, and against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from lemmata.analysis.errors import ArgumentError
from lemmata.analysis.gradient_flow import Ensemble

FLOAT = torch.float64
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=FLOAT)


def network(seed: int, width: int = 6) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 2)).double().eval()


def networks(count: int, width: int = 6) -> list[nn.Module]:
    with torch.random.fork_rng():
        made = [network(seed, width) for seed in range(count)]
        for net in made:
            for module in net.modules():
                if isinstance(module, nn.BatchNorm1d):
                    nn.init.normal_(module.running_mean)
    return made


def size(call: Any, theta: dict[str, Tensor]) -> Tensor:
    return call(theta, X).square().mean()


def slopes(call: Any, theta: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part.square().sum() for name, part in grad(lambda given: size(call, given))(theta).items()}


@pytest.mark.parametrize(("width", "route"), [(6, "side by side"), (9000, "one by one")])
def test_measures_are_those_of_each_network(width: int, route: str) -> None:
    nets = networks(3, width)
    ensemble = Ensemble(nets)
    found, gradients = ensemble.each(size), ensemble.each(slopes)
    assert ensemble.route == route and len(ensemble) == 3
    for place, net in enumerate(nets):
        value = net(X).square().mean()
        assert float(found[place]) == pytest.approx(value.item(), rel=1e-12)
        for (name, parameter), part in zip(
            net.named_parameters(), torch.autograd.grad(value, list(net.parameters())), strict=True
        ):
            assert float(gradients[name][place]) == pytest.approx(float(part.square().sum()), rel=1e-10)
            assert parameter.grad is None
    assert float(found[0]) != pytest.approx(float(found[1]), rel=1e-3)


def test_it_is_bound_at_construction() -> None:
    nets = networks(2)
    ensemble = Ensemble(nets)
    before = ensemble.each(size)
    with torch.no_grad():
        for parameter in [part for net in nets for part in net.parameters()]:
            parameter.zero_()
    assert torch.equal(ensemble.each(size), before)


def test_what_vmap_cannot_take_goes_one_by_one() -> None:
    def branching(call: Any, theta: dict[str, Tensor]) -> Tensor:
        value = size(call, theta)
        return value if value.item() > 0 else -value

    ensemble = Ensemble(networks(3))
    assert torch.allclose(ensemble.each(branching), ensemble.each(size)) and ensemble.route == "side by side"
    ensemble.each(branching)
    assert ensemble.route == "one by one"


def test_a_pass_that_mixes_networks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first network, measured by itself, is the judge of the pass over all."""
    ensemble = Ensemble(networks(3))
    right = ensemble.each(size)
    wrong = lambda function, **options: lambda state: 1.01 * right  # noqa: E731
    monkeypatch.setattr("lemmata.analysis.gradient_flow.ensembles.vmap", wrong)
    assert torch.allclose(ensemble.each(size), right, rtol=1e-12) and ensemble.route == "one by one"


def test_convolutions_go_one_by_one() -> None:
    nets = [nn.Conv1d(1, 2, 3) for _ in range(3)]
    ensemble, x = Ensemble(nets), torch.randn(2, 1, 7)
    found = ensemble.each(lambda call, theta: call(theta, x))
    assert ensemble.route == "one by one" and torch.allclose(found, torch.stack([net(x) for net in nets]))


def test_other_architectures_are_refused() -> None:
    remedy = "Build every network with the same arguments"
    with pytest.raises(ArgumentError, match=rf"networks\[1\]: .*differs in 0.weight.*{remedy}"):
        Ensemble([network(0), network(0, 7)])
    with pytest.raises(ArgumentError, match=rf"networks\[1\]: expected a Sequential.*given a Linear.*{remedy}"):
        Ensemble([network(0), nn.Linear(4, 2).double()])
    with pytest.raises(ArgumentError, match=f"networks: expected one network with parameters.*{remedy}"):
        Ensemble([])
    with pytest.raises(ArgumentError, match=r"networks\[0\]: expected a torch.nn.Module.*Pass a list of networks"):
        Ensemble(["net"])  # type: ignore[list-item]


class Counting(nn.Module):
    """Adds up how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2, dtype=FLOAT))
        self.register_buffer("calls", torch.zeros((), dtype=FLOAT))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (x * self.w).sum() + self.calls


@pytest.mark.parametrize("size", [2, 2**14], ids=["side by side", "one by one"])
def test_buffers_that_a_call_changes_are_those_of_construction(size: int) -> None:
    ensemble, x = Ensemble([Counting() for _ in range(3)]), torch.ones(size // 2, 2, dtype=FLOAT)
    for _ in range(2):
        assert ensemble.each(lambda call, theta: call(theta, x)).tolist() == [size + 1.0] * 3
    assert ensemble.stacked["calls"].tolist() == [0.0] * 3
    trained = Ensemble([network(seed).train() for seed in range(2)])
    before = trained.stacked["1.running_mean"].clone()
    trained.each(size_of)
    assert torch.equal(trained.stacked["1.running_mean"], before)


def size_of(call: Any, theta: dict[str, Tensor]) -> Tensor:
    return size(call, theta)


@pytest.mark.parametrize(
    "measure", [lambda call, theta: size(call, theta).item(), lambda call, theta: {"a": size(call, theta), "b": 1}]
)
def test_measures_that_are_no_tensors_are_refused(measure: Any) -> None:
    with pytest.raises(ArgumentError, match=r"measure: expected .*tensors, given (float|int).*torch\.as_tensor"):
        Ensemble(networks(2)).each(measure)
