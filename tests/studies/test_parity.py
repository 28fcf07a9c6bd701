"""Parities: sums over all inputs by plain loops, derivatives by differences, trials and controls."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from lemmata.architectures import MLP
from lemmata.studies.approximation import parity

pytestmark = pytest.mark.usefixtures("double")


def test_signals_are_those_of_differences_and_loops() -> None:
    """The derivative of E χ_v f along a random direction."""
    d, share, step = 3, 0.75, 1e-5
    found, square, orders = parity.signals(d, 4, share, 0)
    net = MLP([d, 4, 1], activation="tanh", generator=torch.Generator().manual_seed(0))
    start = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    direction = torch.randn(len(start), generator=torch.Generator().manual_seed(1))
    sides = []
    for sign in (1, -1):
        torch.nn.utils.vector_to_parameters(start + sign * step * direction, net.parameters())
        with torch.no_grad():
            sides.append({x: float(net(torch.tensor(x).to(start))) for x in product((0, 1), repeat=d)})
    for place, v in enumerate(parity.bits(d).tolist()):
        truth = 0.0
        for x in product((0, 1), repeat=d):
            chance = np.prod([share if bit else 1 - share for bit in x])
            truth += chance * (-1) ** sum(np.multiply(v, x)) * (sides[0][x] - sides[1][x]) / (2 * step)
        assert float(found[place] @ direction) == pytest.approx(truth, abs=1e-9) and int(orders[place]) == sum(v)
    assert float(square) > float(found.square().sum(1).max())


def test_parseval_holds_for_uniform_inputs_and_all_parities_alone() -> None:
    trial = dict(d=6, width=6, seed=0)
    found = parity.parity_gradient_parseval(**trial)
    assert float(found["value"]) == pytest.approx(1, abs=1e-13)
    assert float(found["shares"].sum()) == pytest.approx(1, abs=1e-13)
    assert parity.parity_gradient_parseval(**trial, dictators=True)["value"] > 1.2
    assert parity.parity_gradient_parseval(**trial, share=0.75)["value"] > 1.2


def test_the_variance_has_its_closed_form() -> None:
    trial = dict(d=6, width=6, seed=0)
    found = parity.parity_gradient_parseval_variance(**trial)
    assert abs(float(found["gap"])) < 1e-16 and 0.9 < float(found["times the bound"]) < 1
    _, square, _ = parity.signals(6, 6, 0.5, 0)
    net = MLP([6, 6, 1], activation="tanh", generator=torch.Generator().manual_seed(0))
    net(torch.zeros(1, 6)).sum().backward()
    origin = sum(float(p.grad.square().sum()) for p in net.parameters())
    assert float(found["value"]) == pytest.approx(2.0**-6 - 4.0**-6 * origin / float(square), rel=1e-12)
    assert parity.parity_gradient_parseval_variance(**trial, dictators=True)["value"] > 2 * 2.0**-6
