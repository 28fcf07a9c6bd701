"""The invariance studies against closed forms, quadrature and optimisers written out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from lemmata.architectures import MLP
from lemmata.studies.invariance import flat_minima, optimizers, translation

pytestmark = pytest.mark.usefixtures("double")


def wave(n, k, t=0.0):
    return torch.cos(2 * math.pi * k * (torch.arange(n) - t) / n)[None]


# Shifts and filters


@pytest.mark.parametrize("t", [1, 0.5, 0.37, -2.25])
@pytest.mark.parametrize("k", [0, 1, 7])
def test_shift_moves_a_wave(t, k):
    assert torch.allclose(translation.shift(wave(15, k), t), wave(15, k, t), rtol=0, atol=1e-14)


def test_half_shifts_compose_only_below_nyquist():
    x = torch.randn(1, 15, generator=torch.Generator().manual_seed(0))
    twice = translation.shift(translation.shift(x, 0.5), 0.5)
    assert torch.allclose(twice, x.roll(1, -1), rtol=0, atol=1e-14)
    highest = wave(16, 8)  # cannot be moved by half a position
    assert not torch.allclose(translation.shift(translation.shift(highest, 0.5), 0.5), highest.roll(1, -1), atol=0.1)


@pytest.mark.parametrize(("k", "kept"), [(0, True), (2, True), (3, False), (7, False)])
def test_ideal_filter(k, kept):
    expected = wave(15, k) if kept else torch.zeros(1, 15)  # five positions carry the frequencies 0, 1, 2
    assert torch.allclose(translation.ideal_low_pass(wave(15, k), 3), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("taps", [1, 3, 5, 7])
def test_binomial_filter_response(taps):
    response = math.cos(math.pi * 4 / 15) ** (taps - 1)
    assert torch.allclose(translation.binomial_low_pass(wave(15, 4), taps), response * wave(15, 4), atol=1e-14)


@pytest.mark.parametrize("taps", [1, 3, 5, 7, 9])
def test_folded_power_by_quadrature(taps):
    def power(a, b):
        return integrate.quad(lambda omega: math.cos(omega / 2) ** (2 * taps - 2), a, b)[0]

    low, high = translation.stride_aliasing_blur.predicts.band({"taps": taps})
    assert (low + high) / 2 == pytest.approx(4 * power(math.pi / 2, math.pi) / power(0, math.pi), rel=1e-10)


# Optimisers


def bowl(scale):
    return lambda theta: 0.5 * (scale * theta**2).sum()


def test_gradient_descent_on_a_quadratic():
    scale, start = torch.tensor([1.0, 3.0]), torch.tensor([2.0, -1.0])
    path = optimizers.iterates(bowl(scale), start, "SGD", lr=0.1)
    powers = (1 - 0.1 * scale) ** torch.arange(optimizers.STEPS + 1)[:, None]
    assert torch.allclose(path, powers * start, rtol=1e-13, atol=0)


def test_adam_by_hand():
    scale, theta = np.array([1.0, 3.0]), np.array([2.0, -1.0])
    path = optimizers.iterates(bowl(torch.tensor(scale)), torch.tensor(theta), "Adam", lr=0.05, eps=0.0)
    m = v = np.zeros(2)
    for t in range(1, optimizers.STEPS + 1):
        m, v = 0.9 * m + 0.1 * scale * theta, 0.999 * v + 0.001 * (scale * theta) ** 2
        theta = theta - 0.05 * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
        assert np.allclose(path[t].numpy(), theta, rtol=0, atol=1e-12)


def test_rotations_and_bent_axes_are_told_apart():
    kept = optimizers.optimizer_equivariance_rotations(momentum=0.9, seed=3)
    bent = optimizers.optimizer_equivariance_rotations(momentum=0.9, seed=3, coordinates="general")
    assert kept["value"] < 1e-14 and bent["value"] > 0.01
    assert kept["distance gone"] > 1


# Sharpness


def two_weights(a, b):
    net = MLP([1, 1, 1], activation="relu", bias=False)
    return net, {"layers.0.weight": torch.tensor([[a]]), "layers.1.weight": torch.tensor([[b]])}


@pytest.mark.parametrize("measure", flat_minima.MEASURES)
def test_sharpness_of_two_weights(measure):
    a, b, x, y = 0.7, 1.9, 1.3, 0.4  # the loss (a b x − y)²
    off = 2 * x * (2 * a * b * x - y)
    hessian = np.array([[2 * (b * x) ** 2, off], [off, 2 * (a * x) ** 2]])
    if measure.startswith("adaptive"):
        hessian *= np.outer([a, b], [a, b])
    truth = np.trace(hessian) if measure.endswith("trace") else np.linalg.eigvalsh(hessian)[-1]
    net, parameters = two_weights(a, b)
    found = flat_minima.sharpness(net, parameters, torch.tensor([[x]]), torch.tensor([[y]]), measure)
    assert found == pytest.approx(truth, rel=1e-12)


def test_rescaling_keeps_the_function_and_the_control_does_not():
    kept = flat_minima.flat_minima(measure="adaptive trace", alpha=100.0, seed=0)
    moved = flat_minima.flat_minima(measure="adaptive trace", alpha=100.0, seed=0, compensated=False)
    assert kept["function moved"] < 1e-13 and moved["function moved"] > 1
    assert kept["value"] == pytest.approx(1, abs=1e-12) and moved["value"] == pytest.approx(100**2, rel=1e-9)


# Verdicts


CLAIMS = [
    translation.conv_translation_equivariance,
    translation.stride_aliasing_multiples,
    translation.stride_aliasing_ideal,
    translation.stride_aliasing_blur,
    optimizers.optimizer_equivariance_rotations,
    optimizers.optimizer_equivariance_permutations,
    optimizers.optimizer_equivariance_scale,
    flat_minima.flat_minima,
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_verdict_and_figures(claim):
    from matplotlib.figure import Figure

    result = claim.run("quick")
    assert result.verdict.name == claim.expects, str(result)
    for draw in claim.figures:
        columns = draw(Figure().subplots(), result.rows)
        assert len({len(column) for column in columns.values()}) == 1
