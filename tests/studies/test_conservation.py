"""What training keeps: the measured quantities against loops and closed forms, and the trials' controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemmata.architectures import CNN, MLP, DeepLinear
from lemmata.studies.gradient_flow import conservation
from lemmata.studies.training import flat_parameters, layout_of

pytestmark = pytest.mark.usefixtures("double")


def test_the_drift_is_that_of_loops() -> None:
    """Each unit's squared weights and bias in, minus squared weights out, before and after a random move."""
    model = conservation.network("ReLU MLP", 0).requires_grad_(False)
    start = flat_parameters(model)
    end = start + 0.01 * torch.randn(len(start), generator=torch.Generator().manual_seed(0))

    def sides(flat: torch.Tensor) -> list[np.ndarray]:
        w = [value.numpy() for value in layout_of(model).split(flat).values()]
        pairs = [(w[2 * i], w[2 * i + 1], w[2 * i + 2]) for i in range(2)]
        return [
            np.array([[(a[k] ** 2).sum() + b[k] ** 2, (c[:, k] ** 2).sum()] for k in range(8)]) for a, b, c in pairs
        ]

    changes = [after - before for before, after in zip(sides(start), sides(end), strict=True)]
    norm = np.linalg.norm
    expected = max(norm(c[:, 0] - c[:, 1]) / (norm(c[:, 0]) + norm(c[:, 1])) for c in changes)
    assert conservation.drift("ReLU MLP", 0, model, end) == pytest.approx(expected, rel=1e-9) and expected > 0.1


def test_one_step_changes_the_balance_in_the_second_order() -> None:
    """Halving a step of descent halves the change relative to its sides; with tanh units it leaves it as it was."""
    for units, order in (("", 2.0), ("tanh", 1.0)):
        model = conservation.network("ReLU MLP", 1, units)
        start = flat_parameters(model)
        gradient = conservation.on_digits(model)(start)[1]
        far, near = (conservation.drift("ReLU MLP", 1, model, start - step * gradient) for step in (1e-3, 5e-4))
        assert far / near == pytest.approx(order, rel=2e-2)


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
