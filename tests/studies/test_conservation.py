"""What training keeps: the measured quantities against loops and closed forms, and the trials' controls."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lemmata.architectures import CNN, MLP, DeepLinear
from lemmata.studies.gradient_flow import conservation
from lemmata.studies.training import flat_parameters

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("kind", conservation.KINDS)
def test_flows_are_sums_over_the_weights_of_each_unit(kind: str) -> None:
    model = conservation.network(kind, 0).requires_grad_(False)
    into, out = conservation.flows(model, flat_parameters(model), whole=False)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    expected = [[], []]
    for before, after in pairwise(layers):
        for unit in range(len(before.weight)):
            bias = 0.0 if before.bias is None else float(before.bias[unit]) ** 2
            expected[0].append(sum(float(w) ** 2 for w in before.weight[unit].flatten()) + bias)
            expected[1].append(sum(float(w) ** 2 for w in after.weight[:, unit].flatten()))
    assert np.allclose(into, expected[0], rtol=1e-12) and np.allclose(out, expected[1], rtol=1e-12)


def test_whole_flows_are_the_matrices_of_the_theorem() -> None:
    model = DeepLinear([3, 4, 2], generator=torch.Generator().manual_seed(0))
    first, second = (p.detach().numpy() for p in model.parameters())
    into, out = conservation.flows(model, flat_parameters(model), whole=True)
    assert np.allclose(into.view(4, 4), first @ first.T) and np.allclose(out.view(4, 4), second.T @ second)


def test_one_step_changes_the_balance_in_the_second_order() -> None:
    """Halving one step of descent quarters the change of in minus out; with tanh units it halves it."""
    for units, order in (("", 4.0), ("tanh", 2.0)):
        model = conservation.network("ReLU MLP", 1, units)
        start = flat_parameters(model)
        gradient = conservation.on_digits(model)(start)[1]
        change = []
        for step in (1e-4, 5e-5):
            into, out = conservation.flows(model, start - step * gradient, False) - conservation.flows(
                model, start, False
            )
            change.append(float((into - out).norm()))
        assert change[0] / change[1] == pytest.approx(order, rel=1e-3)


def test_decay_is_part_of_the_loss() -> None:
    model = MLP([64, 3, 10], generator=torch.Generator().manual_seed(0))
    flat = flat_parameters(model)
    rates = torch.linspace(0, 1, len(flat))
    plain, decayed = (conservation.on_digits(model, rate) for rate in (0.0, rates))
    direction = torch.ones_like(flat)
    difference = (decayed(flat + 1e-5 * direction)[0] - decayed(flat - 1e-5 * direction)[0]) / 2e-5
    assert float(decayed(flat)[1] @ direction) == pytest.approx(float(difference), rel=1e-7)
    assert float(decayed(flat)[0] - plain(flat)[0]) == pytest.approx(float((rates * flat**2).sum() / 2), rel=1e-12)


def test_an_optimisers_path_is_that_of_torch() -> None:
    def quadratic(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 0.5 * x @ x, x.clone()

    rule = conservation.RULES["heavy ball"]
    start = torch.tensor([1.0])
    found = conservation.after(conservation.optimised(quadratic, start, rule), 2)
    assert found.item() == pytest.approx(1 - 0.2 - 0.2 * (0.9 + 0.8)) and start.item() == 1.0


def test_the_trials_part_from_their_controls() -> None:
    flow = dict(kind="ReLU MLP", steps=20, seed=1)
    assert conservation.balancedness_conservation(**flow) < 1e-3
    assert conservation.balancedness_conservation(**flow, units="tanh") > 0.05
    steps = dict(kind="deep linear", coarsest=20, seed=2)
    assert abs(conservation.balancedness_conservation_steps(**steps)["value"] - 1) < 0.1
    assert conservation.balancedness_conservation_steps(**steps, adaptive=True)["value"] < 0.5
    decay = dict(kind="deep linear", decay=0.5, steps=20, seed=1)
    assert conservation.balancedness_weight_decay(**decay)["value"] < 1e-4
    assert conservation.balancedness_weight_decay(**decay, everywhere=False)["value"] > 0.1
    for kind in ("ReLU MLP", "ReLU CNN"):
        assert conservation.homogeneous_euler_identity(kind, seed=1) < 1e-14
        assert conservation.homogeneous_euler_identity(kind, seed=1, bias=True) > 1e-3
        assert conservation.homogeneous_euler_identity(kind, seed=1, units="tanh") > 1e-3
    trap = dict(kind="MLP", rule="Adam", steps=100, seed=1)
    assert conservation.symmetry_trap(**trap)["value"] < 1e-12
    assert conservation.symmetry_trap(**trap, apart=1e-10)["value"] > 1e-8


def test_the_kinds_are_those_named() -> None:
    made = [type(conservation.network(kind, 0)) for kind in conservation.KINDS]
    assert made == [DeepLinear, MLP, CNN]
