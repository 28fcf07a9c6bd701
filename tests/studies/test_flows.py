"""Flows: volumes by differences, the trace by its quadratic form, and controls that fail."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lemmata.architectures import ContinuousFlow, HutchinsonFlow
from lemmata.studies.data import gaussian
from lemmata.studies.invariance import flows

pytestmark = pytest.mark.usefixtures("double")


def test_volume_and_mean_jacobian_by_differences() -> None:
    """The determinant of the flow's map by central differences, and the trace of the mean Jacobian by the flow itself."""
    flow = flows.contracting(ContinuousFlow, 3, 0)
    x, h = gaussian(torch.Generator().manual_seed(1), 3), 1e-5
    J = torch.stack([(flow.encode(x + h * e)[0] - flow.encode(x - h * e)[0]) / (2 * h) for e in torch.eye(3)], 1)
    fine = ContinuousFlow(3, flows.HIDDEN, steps=50).requires_grad_(False)
    fine.load_state_dict(flow.state_dict())
    assert float(fine.encode(x)[1]) == pytest.approx(float(torch.linalg.slogdet(J)[1]), abs=2e-3)
    A = flows.mean_jacobian(flow, x)
    assert float(A.trace()) == pytest.approx(float(flow.encode(x)[1]), rel=1e-12)
    probe = torch.tensor([1.0, -1.0, 1.0])
    estimate = flows.contracting(HutchinsonFlow, 3, 0).encode(x, probe)[1]
    assert float(estimate) == pytest.approx(float(probe @ A @ probe), rel=1e-12)


def test_flows_part_from_their_controls() -> None:
    assert flows.neural_ode_inverse_and_volume(dimension=2, seed=0)["value"] == pytest.approx(-4, abs=0.1)
    assert flows.neural_ode_inverse_and_volume(dimension=2, seed=0, solver="midpoint")["value"] > -2.5
    trip = flows.neural_ode_inverse_and_volume_round_trip
    assert trip(dimension=3, seed=0)["value"] == pytest.approx(-5, abs=0.1)
    assert trip(dimension=3, seed=0)["errors"][-1] < 1e-12
    assert trip(dimension=3, seed=0, solver="euler")["value"] == pytest.approx(-1, abs=0.2)
    assert trip(dimension=3, seed=0, activation="relu")["value"] > -4
    draw = dict(dimension=4, probes=4000, seed=0)
    assert flows.ffjord_trace(**draw)["value"] == pytest.approx(1, abs=0.1)
    for control in (dict(symmetric=False), dict(law="gaussian"), dict(fresh=True)):
        assert abs(flows.ffjord_trace(**draw, **control)["value"] - 1) > 0.15
    assert flows.ffjord_trace_unbiased(**draw) == pytest.approx(1, abs=0.05)
    assert flows.ffjord_trace_unbiased(**draw, law="uniform") == pytest.approx(1 / 3, abs=0.05)


def test_the_orders_are_those_of_a_known_power() -> None:
    errors = torch.tensor(flows.STEPS, dtype=torch.float64) ** -3.0
    assert flows.order(errors.numpy()) == pytest.approx(-3)
    import matplotlib.pyplot as plt

    row = SimpleNamespace(
        error=None, arm="", point={"dimension": flows.DIMENSIONS[0]}, values={"errors": errors.numpy()}
    )
    columns = flows.draw_orders(plt.subplots()[1], [row])
    assert np.allclose(columns["smooth field, classical method"], errors)
    plt.close("all")
