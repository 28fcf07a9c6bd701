"""Typical growth: closed forms against published numbers, slopes against differences, trials and controls."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from lemmata.studies.gradient_flow import chaos

pytestmark = pytest.mark.usefixtures("double")


def test_newman_s_exponents() -> None:
    """λ₁ and λ₁₀ of ten units as computed elsewhere; their sum is the mean logarithm of a Gaussian determinant."""
    found = chaos.newman(10)
    assert abs(found[0] + 0.05166) < 5e-6 and abs(found[9] + 1.78647) < 5e-6
    draws = torch.Generator().manual_seed(0)
    matrices = torch.randn(4000, 10, 10, generator=draws) / 10**0.5
    logs = torch.linalg.slogdet(matrices)[1]
    assert abs(float(logs.mean()) - found.sum()) < 4 * float(logs.std()) / 4000**0.5
    assert abs(float(logs.mean()) - found[:9].sum()) > 1


def test_laws_have_one_variance() -> None:
    draws = torch.Generator().manual_seed(0)
    for law, within in (("gaussian", 0.05), ("orthogonal", 1e-12), ("log-normal", 0.3)):
        matrix = next(chaos.layers(law, 200, draws))
        assert abs(float(matrix.square().mean()) * 200 - 1) < within
    assert abs(float(matrix.square().median()) * 200) < 0.3  # most entries are small


def test_the_slope_of_a_unit_is_that_of_differences() -> None:
    h, slope = chaos.unit(1.1, 0.05, 7, 0.4)
    up, down = (chaos.unit(1.1, 0.05, 7, 0.4 + step)[0] for step in (1e-6, -1e-6))
    assert abs(slope - (up - down) / 2e-6) < 1e-8 and down < h < up
    assert abs(chaos.unit(0.5, 0.0, 50, 0.4)[1] / 0.5**50 - 1) > 1e-3  # the first steps are not at rest


def test_the_largest_exponent_is_that_of_nearby_states() -> None:
    """How fast two states 1e-9 apart part over 100 steps, in a chaotic network of the same seed."""
    found, radius = chaos.largest_exponent(80, 3.0, 640, False, seed=1)
    net, zero, h = chaos.at_rest(80, 3.0, False, seed=1)
    for _ in range(200):
        h = chaos.rnn_step(net, zero, h)
    total, other = 0.0, h + 1e-9
    for _ in range(640):
        h, other = chaos.rnn_step(net, zero, h), chaos.rnn_step(net, zero, other)
        size = float((other - h).norm())
        total += log(size / (1e-9 * 80**0.5))
        other = h + (other - h) * 1e-9 * 80**0.5 / size
    assert abs(found - total / 640) < 0.02 < found and radius > found + 0.3


def test_symmetric_weights_have_the_same_radius() -> None:
    radii = [float(torch.linalg.eigvals(chaos.at_rest(300, 1.0, s, seed=0)[0].U).abs().max()) for s in (True, False)]
    assert np.allclose(radii, 1, atol=0.1)


def test_the_trials_part_from_their_controls() -> None:
    product = dict(width=6, index=6, steps=640, seed=0)
    assert abs(chaos.lyapunov_gaussian_product(**product)["value"]) < 0.2
    assert chaos.lyapunov_gaussian_product(**product, law="orthogonal")["value"] > 1
    assert chaos.lyapunov_gaussian_product(**product, law="log-normal")["value"] < -0.2
    turned = dict(gain=3.0, width=60, steps=320, seed=0)
    assert chaos.rnn_chaos_transition(**turned)["value"] > 0.05
    assert chaos.rnn_chaos_transition(**turned, symmetric=True)["value"] < 0.05
    rest = dict(gain=0.8, width=40, steps=320, seed=0)
    assert abs(chaos.rnn_chaos_transition_order(**rest)) < 0.005
    assert chaos.rnn_chaos_transition_order(**rest, more=3.0) < -0.2
    volume = dict(gain=2.0, width=5, steps=320, seed=0)
    assert chaos.lyapunov_sum_rule(**volume) < 1e-11
    assert chaos.lyapunov_sum_rule(**volume, left_out=1) > 0.1


def test_the_fork_and_its_controls() -> None:
    assert abs(chaos.pitchfork_rnn(excess=0.001, start=0.3, seed=0) - 0.054723) < 1e-6  # as computed elsewhere
    assert chaos.pitchfork_rnn(excess=0.001, start=0.3, seed=0, bias=0.001) > 0.1
    slow = chaos.pitchfork_rnn_slowing(steps=100_000, start=1.0, seed=0)
    assert abs(slow * (2 * 1e5 / 3) ** 0.5 - 1) < 1e-3
    ratio = [chaos.pitchfork_rnn_gradient(steps=n, start=1.0, seed=0) for n in (10_000, 40_000)]
    assert abs(log(ratio[0] / ratio[1]) / log(4) - 1.5) < 0.01
    assert chaos.pitchfork_rnn_gradient(steps=10_000, start=1.0, seed=0, weight=0.99) < 1e-40
