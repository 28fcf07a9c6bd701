"""Mean-field theory against closed forms, published values, differences and sampled networks."""

from __future__ import annotations

from math import acos, asin, inf, pi, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from lemmata.analysis.errors import ArgumentError
from lemmata.analysis.gradient_flow import MeanField, critical_weight_variance
from lemmata.analysis.gradient_flow.quadrature import average, pair_average

CORRELATIONS = [-0.999999, 0.0, 0.5, 1 - 1e-10, 1.0]


def leaky(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope)


@pytest.mark.parametrize("c", CORRELATIONS)
def test_pair_averages_equal_their_closed_forms(c: float) -> None:
    """Cho and Saul's arc-cosine kernels of order 1 and 0, and Williams' kernel of the error function."""
    erf = lambda z: torch.erf(torch.from_numpy(z)).numpy()  # noqa: E731
    relu, step = (lambda z: np.maximum(z, 0)), (lambda z: (z > 0) * 1.0)
    angle = acos(c)
    assert abs(pair_average(relu, relu, 3.0, c, [0.0]) - 9 * (sqrt(1 - c * c) + c * (pi - angle)) / (2 * pi)) < 1e-13
    assert abs(pair_average(step, step, 3.0, c, [0.0]) - (pi - angle) / (2 * pi)) < 1e-13
    for s in (0.1, 1.0, 10.0):
        assert abs(pair_average(erf, erf, s, c, []) - 2 / pi * asin(2 * s * s * c / (1 + 2 * s * s))) < 1e-12
    if abs(c) < 0.9:  # a kink that is not told is seen: the same average without its cut is off
        assert abs(pair_average(step, step, 3.0, c, [0.3]) - (pi - angle) / (2 * pi)) > 1e-6


def test_averages_of_a_function_with_two_kinks() -> None:
    clipped = lambda z: np.clip(z, -1, 1)  # noqa: E731
    truth = quad(
        lambda z: clipped(1.5 * z) ** 2 * np.exp(-z * z / 2) / sqrt(2 * pi), -12, 12, points=[-1 / 1.5, 1 / 1.5]
    )
    assert abs(average(lambda z: clipped(z) ** 2, 1.5, [-1, 1]) - truth[0]) < 1e-12


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_the_map_of_leaky_rectifiers(slope: float) -> None:
    """C(c) = c + k (√(1 − c²) − c arccos c), and its derivative 1 − k arccos c."""
    field = MeanField(leaky(slope), 2 / (1 + slope**2))
    k = (1 - slope) ** 2 / (pi * (1 + slope**2))
    for c in (0.0, 0.4, 0.9999, 1.0):
        assert abs(field.correlation(c, 2.0) - (c + k * (sqrt(1 - c * c) - c * acos(c)))) < 1e-13
        assert abs(field.correlation_slope(c, 2.0) - (1 - k * acos(c))) < 1e-13
    assert field.fixed_variance(5.0) == 5.0 and field.fixed_correlation(5.0) == 1.0
    assert field.depth_scales() == field.depth_scales(7.0) and abs(field.depth_scales().gradient) == inf


def test_published_values_of_tanh() -> None:
    """Points of the critical line and depth scales of Schoenholz et al., computed elsewhere with Gauss–Hermite rules."""
    assert abs(critical_weight_variance(torch.tanh, 0.05) - 1.76095) < 1e-5
    assert abs(critical_weight_variance(torch.tanh, 0.10) - 1.98607) < 1e-5
    chaos = MeanField(torch.tanh, 3.0, 0.05)
    assert abs(chaos.gradient_factor(chaos.fixed_variance()) - 1.209) < 5e-4
    assert 0 < chaos.fixed_correlation(chaos.fixed_variance()) < 0.5 < chaos.depth_scales().gradient
    order = MeanField(torch.tanh, 1.0, 0.05).depth_scales()
    assert abs(order.correlation - 3.627) < 5e-4 and order.gradient == pytest.approx(-order.correlation)


def test_slopes_are_those_of_the_maps() -> None:
    """Price's and Stein's identities against differences of the maps themselves."""
    field, h = MeanField(torch.tanh, 2.5, 0.1), 1e-4
    q = field.fixed_variance()
    for c in (0.2, 0.8):
        moved = (field.correlation(c + h, q) - field.correlation(c - h, q)) / (2 * h)
        assert abs(field.correlation_slope(c, q) - moved) < 1e-7
    moved = (field.variance(q + h) - field.variance(q - h)) / (2 * h)
    assert abs(field.depth_scales().variance + 1 / np.log(moved)) < 1e-6
    assert abs(field.correlation_slope(0.2, q) - field.correlation_slope(0.25, q)) > 1e-3  # told apart


@pytest.mark.parametrize(
    ("weights", "variance", "gradient"),
    [(1.0, 0.0, -1 / np.log(2)), (3.0, inf, 1 / np.log(1.5))],
    ids=["dies", "grows"],
)
def test_rectifiers_away_from_criticality(weights: float, variance: float, gradient: float) -> None:
    field = MeanField(torch.relu, weights)
    assert field.fixed_variance() == variance
    assert field.depth_scales().gradient == pytest.approx(gradient) and field.depth_scales().correlation == inf


def test_propagation_is_that_of_wide_networks() -> None:
    """Means over draws of networks of width 200, five layers, against theory; the wrong φ is told apart."""
    n, depth, draws = 200, 5, 30
    generator = torch.Generator().manual_seed(0)
    field = MeanField(torch.tanh, 1.5, 0.1)
    q, c, g = [], [], []
    for _ in range(draws):
        first, second = torch.randn(2, n, generator=generator, dtype=torch.float64)
        z = torch.stack([first, 0.6 * first + 0.8 * second])
        back = []  # of each layer: what multiplies a gradient by z^{l+1} to that by z^l
        for _ in range(depth):
            weight = torch.randn(n, n, generator=generator, dtype=torch.float64) * (1.5 / n) ** 0.5
            back.append((1 - z.tanh().square())[:, :, None] * weight.T)
            z = z.tanh() @ weight.T + torch.randn(n, generator=generator, dtype=torch.float64) * 0.1**0.5
        q.append(float(z.square().mean()))
        c.append(float((z[0] @ z[1]) / (z[0].norm() * z[1].norm())))
        gradient = torch.randn(2, n, 8, generator=generator, dtype=torch.float64)
        for factor in reversed(back):
            gradient = factor @ gradient
        g.append(float(gradient.square().mean()))
    theory = field.propagate(depth, 1.0, 0.6)
    for found, expected in ((q, theory.variance[-1]), (c, theory.correlation[-1]), (g, theory.gradient[0])):
        assert abs(np.mean(found) - expected) < 4 * np.std(found, ddof=1) / sqrt(draws)
    wrong = MeanField(torch.tanh, 1.5, 0.0).propagate(depth, 1.0, 0.6)
    assert abs(np.mean(q) - wrong.variance[-1]) > 4 * np.std(q, ddof=1) / sqrt(draws)
    assert theory.gradient[-1] == 1
    assert abs(np.mean(g) - np.prod(theory.gradient_factor[1:])) > 4 * np.std(g, ddof=1) / sqrt(draws)


@pytest.mark.parametrize(
    ("arguments", "name", "remedy"),
    [
        ((torch.tanh, -1.0), "weight_variance", "such as 2.0"),
        ((torch.tanh, 1.0, inf), "bias_variance", "such as 2.0"),
        ((torch.sum, 1.0), "activation", "torch.tanh"),
        ((lambda z: z.softmax(0), 1.0), "activation", "torch.tanh"),
    ],
)
def test_bad_input(arguments: tuple, name: str, remedy: str) -> None:
    with pytest.raises(ArgumentError, match=remedy) as caught:
        MeanField(*arguments)
    assert caught.value.name == name


def test_a_critical_point_outside_the_interval_is_refused() -> None:
    with pytest.raises(ArgumentError, match="Widen it"):
        critical_weight_variance(torch.tanh, 0.05, between=(0.1, 0.2))
