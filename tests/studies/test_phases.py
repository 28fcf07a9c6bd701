"""Order and chaos: the study's maps against other routes, and its trials' controls."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch

from lemmata.analysis.gradient_flow import MeanField
from lemmata.studies.gradient_flow import phases

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_the_closed_map_is_that_of_quadrature(slope: float) -> None:
    field = MeanField(torch.nn.LeakyReLU(slope), 2 / (1 + slope**2))
    for c in (0.0, 0.5, 0.99):
        assert abs(phases.leaky_map(c, slope) - field.correlation(c, 1.0)) < 1e-13
        assert abs(phases.leaky_map(c, slope + 0.1) - field.correlation(c, 1.0)) > 1e-5


def test_the_kernel_is_a_product_of_slopes() -> None:
    field, c, product = MeanField(torch.relu, 2.0), 0.2, 1.0
    for _ in range(5):
        product *= field.correlation_slope(c, 1.0)
        c = field.correlation(c, 1.0)
    assert abs(phases.kernel(5, 0.2) - product) < 1e-13
    assert np.allclose(phases.kernel(5, np.array([0.2, 0.2])), product)
    assert phases.kernel(1, 0.0) == 0.5 and abs(phases.leaky_map(0.0, 0.0) - 1 / pi) < 1e-15


def test_gradients_are_those_of_autograd() -> None:
    draws = torch.Generator().manual_seed(0)
    z, matrices = phases.Sample(7, 1.5, 0.1, 1.0, 0.3, draws).run(4, "tanh")
    state = draws.get_state()
    found = phases.gradients(z, matrices, [1 - one.tanh() ** 2 for one in z], draws)
    readout = torch.randn(7, generator=torch.Generator().set_state(state), dtype=torch.float64)
    start = z[0].clone().requires_grad_()
    end = start
    for after, matrix in zip(z[1:], matrices, strict=True):
        product = end.tanh() @ matrix.T
        end = product + (after - product).detach()  # the same biases
    slope = torch.autograd.grad((end @ readout).sum(), start)[0]
    assert torch.allclose(found[0], slope, atol=1e-12) and found.shape == (5, 2, 7)


def test_the_trials_part_from_their_controls() -> None:
    edge = dict(weights=3.0, bias=0.05, width=100, depth=10, nets=5, seed=1)
    assert abs(phases.edge_of_chaos_tanh(**edge)["value"]) < 0.1
    assert abs(phases.edge_of_chaos_tanh(**edge, theory="relu")["value"]) > 0.15
    scale = dict(weights=1.0, width=100, depth=8, nets=20, seed=1)
    assert abs(phases.correlation_depth_scale(**scale)["value"]) < 0.3
    assert abs(phases.correlation_depth_scale(**scale, more=3.0)["value"]) > 0.3
    shared = dict(depth=4, width=100, nets=30)
    own, independent = (phases.shared(masks=m, linear=False, seed=1, **shared) for m in ("own", "independent"))
    assert abs(own - phases.kernel(4, 0.0)) < 0.05 and abs(independent - 2**-4) < 0.05 < own - independent
    assert phases.shared(masks="own", linear=True, seed=1, **shared) == pytest.approx(1.0)
    sampled = dict(slope=0.0, correlation=0.0, width=16000, seed=1)
    assert abs(phases.arccos_and_leaky_c_map_sampled(**sampled)) < 0.03
    assert phases.arccos_and_leaky_c_map_sampled(**sampled, signs=True) > 0.1
