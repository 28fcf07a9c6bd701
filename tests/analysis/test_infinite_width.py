"""Infinitely wide networks against integrals, published recursions and random networks that torch builds another way."""

from __future__ import annotations

from collections.abc import Callable
from math import acos, exp, inf, pi, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import dblquad
from scipy.special import erf
from scipy.stats import norm
from torch import Tensor, nn

from lemmata.analysis.errors import (
    ArgumentError,
    CapacityError,
    DataError,
    LemmataError,
    ModelStateError,
    NumericsError,
)
from lemmata.analysis.gradient_flow import infinite_width as iw
from lemmata.analysis.gradient_flow import wide_kernel
from lemmata.analysis.gradient_flow.duals import Rectifier, Series, dual

f64 = torch.float64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=f64)


def covariances(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Variances (4, 1), (1, 4) and covariances (4, 4), among them those of equal and of nearly equal signals."""
    u, v = 0.2 + 3 * normal(seed, 4, 1).abs(), 0.2 + 3 * normal(seed + 1, 1, 4).abs()
    rho = normal(seed + 2, 4, 4).tanh()
    v[0, 0], v[0, 1], v[0, 2] = u[0, 0], u[1, 0], u[2, 0]
    rho[0, 0], rho[1, 1], rho[2, 2], rho[3, 3] = 1.0, 1 - 1e-9, -1.0, 0.9997
    return u, v, rho * (u * v).sqrt()


def integral(f: Callable[[float], float], u: float, v: float, c: float, low: float) -> float:
    """E f f by adaptive integration of the density over all of the plane, or its first quadrant where ``low`` is 0."""
    det = u * v - c * c

    def density(y: float, x: float) -> float:
        return f(x) * f(y) * exp(-(v * x * x - 2 * c * x * y + u * y * y) / (2 * det)) / (2 * pi * sqrt(det))

    reach = [9 * sqrt(u), 9 * sqrt(v)]
    return dblquad(density, max(low, -reach[0]), reach[0], max(low, -reach[1]), reach[1], epsabs=1e-10, epsrel=1e-10)[0]


@pytest.mark.parametrize(
    ("activation", "f", "slope", "low"),
    [
        (torch.relu, lambda z: z, lambda z: 1.0, 0.0),
        (torch.erf, erf, lambda z: 2 / sqrt(pi) * exp(-z * z), -inf),
    ],
    ids=["relu", "erf"],
)
def test_two_layers_by_integration(activation: Callable, f: Callable, slope: Callable, low: float) -> None:
    """K and Θ of two hidden layers, each average by numerical integration of the normal density."""
    x = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]], dtype=f64)
    net = iw.Serial(iw.Dense(1.5, 0.1), iw.Activation(activation), iw.Dense(1.2, 0.2), iw.Activation(activation))
    found = iw.Serial(net, iw.Dense(0.8, 0.05))(x)
    K = (1.5 * x @ x.T / 3 + 0.1).numpy()
    theta = K.copy()
    for w, b in ((1.2, 0.2), (0.8, 0.05)):
        averages = [np.empty((2, 2)), np.empty((2, 2))]
        for average, g in zip(averages, (f, slope), strict=True):
            average[0, 1] = average[1, 0] = integral(g, K[0, 0], K[1, 1], K[0, 1], low)
            for i in (0, 1):  # equal signals: one variable
                average[i, i] = norm(0, sqrt(K[i, i])).expect(lambda z, g=g: g(z) ** 2, lb=low)
        K = w * averages[0] + b
        theta = K + w * theta * averages[1]
    assert np.allclose(found.nngp, K, rtol=1e-7) and np.allclose(found.ntk, theta, rtol=1e-7)
    assert not np.allclose(found.ntk, K + theta, rtol=1e-2)


@pytest.mark.parametrize(
    ("closed", "kinks"),
    [(torch.relu, (0.0,)), (torch.erf, ()), (torch.abs, (0.0,)), (nn.LeakyReLU(0.2), (0.0,))],
    ids=["relu", "erf", "abs", "leaky"],
)
def test_closed_forms_equal_series(closed: Callable, kinks: tuple) -> None:
    """Every closed form against Hermite series and panels, equal and nearly equal signals included."""
    u, v, c = covariances()
    exact, series = dual(closed), Series(closed, kinks)
    assert not isinstance(exact, Series)
    assert (exact.value(u, v, c) - series.value(u, v, c)).abs().max() < 1e-11
    assert (exact.slope(u, v, c) - series.slope(u, v, c)).abs().max() < 1e-11
    wrong = dual(torch.erf if closed is torch.abs else torch.abs)
    assert (wrong.value(u, v, c) - series.value(u, v, c)).abs().max() > 0.1


@pytest.mark.parametrize("activation", [torch.tanh, F.gelu, torch.sin], ids=["tanh", "gelu", "sin"])
def test_series_equal_a_product_rule(activation: Callable) -> None:
    """Gauss–Hermite in two variables, of NumPy; for the sine also its closed form; slopes by differences (Price)."""
    u, v, c = (x.expand(4, 4).clone() for x in covariances(3))
    found, z = Series(activation, ()), np.polynomial.hermite_e.hermegauss(180)
    weights = np.multiply.outer(z[1], z[1]) / (2 * pi)
    for i, j in ((0, 0), (1, 1), (0, 3), (2, 1)):
        s, t = sqrt(u[i, j]), sqrt(v[i, j])
        rho = float(c[i, j]) / (s * t)
        one, two = np.meshgrid(z[0], z[0], indexing="ij")
        other = rho * one + sqrt(max(0.0, 1 - rho * rho)) * two
        product = activation(torch.from_numpy(s * one)) * activation(torch.from_numpy(t * other))
        truth = float((product.numpy() * weights).sum())
        assert abs(float(found.value(u, v, c)[i, j]) - truth) < (1e-10 if activation is torch.sin else 1e-7)
    if activation is torch.sin:
        assert torch.allclose(found.value(u, v, c), (-(u + v) / 2).exp() * c.sinh(), rtol=1e-12, atol=1e-14)
    inner, h = 0.9 * c, 1e-5
    moved = (found.value(u, v, inner + h) - found.value(u, v, inner - h)) / (2 * h)
    assert (moved - found.slope(u, v, inner)).abs().max() < 1e-8
    assert (moved - found.slope(u, v, 0.8 * inner)).abs().max() > 1e-4


def test_large_and_vanishing_variances() -> None:
    """tanh at standard deviations of 20 and 2 by Gauss–Legendre rules; a vanishing signal has the average of a constant."""
    z, w = np.polynomial.legendre.leggauss(1500)
    z, w = 10 * z, 10 * w * np.exp(-((10 * z) ** 2) / 2) / sqrt(2 * pi)
    rho = torch.tensor([0.3, 0.99, 1 - 1e-12, 1.0], dtype=f64)
    found = Series(torch.tanh, ()).value(torch.full((4,), 400.0, dtype=f64), torch.full((4,), 4.0, dtype=f64), rho * 40)
    for one, r in zip(found.tolist(), rho.tolist(), strict=True):
        inner = np.tanh(2 * (r * z[:, None] + sqrt(1 - r * r) * z)) @ w if r < 0.999 else np.tanh(2 * z)
        assert abs(one - w @ (np.tanh(20 * z) * inner)) < 1e-11
    none = torch.zeros(1, dtype=f64)
    assert Series(torch.cos, ()).value(none, none + 2, none).item() == pytest.approx(exp(-1), abs=1e-13)
    assert dual(torch.relu).value(none, none + 2, none).item() == 0.0
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    kernel = iw.Serial(iw.Dense(2.0), iw.LayerNorm(0.0), iw.Activation(torch.relu), iw.Dense(2.0))(x)
    assert kernel.nngp.isfinite().all() and kernel.ntk.isfinite().all() and kernel.ntk[0].abs().max() == 0


@pytest.mark.parametrize(
    ("activation", "kinks", "name", "remedy"),
    [
        (nn.Hardtanh(), (0.0,), "kinks", "Name every place"),
        (lambda z: (z > 0).to(z), (0.0,), "activation", "steep continuous"),
        (lambda z: z.softmax(0), (0.0,), "activation", "torch.tanh"),
        (nn.PReLU(), (0.0,), "activation", "fixed numbers"),
    ],
    ids=["a kink not named", "a jump", "not elementwise", "parameters"],
)
def test_activations_that_are_refused(activation: Callable, kinks: tuple, name: str, remedy: str) -> None:
    with pytest.raises(ArgumentError, match=remedy) as caught:
        iw.Serial(iw.Dense(1.0), iw.Activation(activation, kinks))(torch.ones(1, 2))
    assert caught.value.name == name


def test_the_recursion_of_relu_networks() -> None:
    """Θ_{l+1} = Θ_l κ₀ + K_{l+1} with the arc-cosine kernels, on a circle, twenty layers deep (no biases)."""
    angles = torch.linspace(0, 3.1, 7, dtype=f64)
    x = torch.stack([angles.cos(), angles.sin()], 1) * sqrt(2)
    layers = [iw.Dense(2.0), iw.Activation(torch.relu)] * 20
    found = iw.Serial(*layers, iw.Dense(2.0))(x[:1], x)
    for place, angle in enumerate(angles.tolist()):
        c, theta = np.cos(angle), 2 * np.cos(angle)
        for _ in range(20):
            turn = acos(min(1.0, c))
            theta *= 1 - turn / pi
            c = (sqrt(max(0.0, 1 - c * c)) + (pi - turn) * c) / pi
            theta += 2 * c
        assert abs(float(found.ntk[0, place]) - theta) < 1e-7 * theta
        assert abs(float(found.nngp[0, place]) - 2 * c) < 1e-10
    assert found.ntk[0, 0] == pytest.approx(42, abs=1e-12)  # 2 (L + 1): equal inputs to the last digit


def test_equal_inputs_are_equal_in_high_dimension() -> None:
    """The angle between an input and its copy is lost to rounding: it must count as 0, also in two separate batches."""
    x = normal(0, 5, 3072)
    net = iw.Serial(*[iw.Dense(2.0), iw.Activation(torch.relu)] * 30, iw.Dense(1.0))
    own, beside = net(x), net(x[2:3].clone(), x.flip(0))
    exact = 31.0 * own.nngp.diagonal()
    assert torch.allclose(own.ntk.diagonal(), exact, rtol=1e-12)
    assert torch.allclose(beside.ntk[0], own.ntk[2].flip(0), rtol=1e-12)
    near = net(x, x * (1 + 1e-5 * normal(1, 5, 3072))).ntk.diagonal()
    assert ((near / own.ntk.diagonal() - 1).abs() > 1e-6).all()  # a real angle is not lost


class Linear(nn.Module):
    """Standard normal parameters; their scale is in the forward pass."""

    def __init__(self, inputs: int, outputs: int, w: float, b: float = 0.0, size: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *size, dtype=f64))
        self.bias = nn.Parameter(torch.randn(outputs, dtype=f64))
        self.scale, self.shift = sqrt(w / self.weight[0].numel()), sqrt(b)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scale * self.weight, self.shift * self.bias)


class Convolution(Linear):
    def __init__(
        self, inputs: int, outputs: int, w: float, b: float, size: tuple[int, ...], mode: str, stride: int = 1
    ) -> None:
        super().__init__(inputs, outputs, w, b, size)
        self.mode, self.stride, self.reach = mode, stride, [s for one in size for s in (one // 2, one // 2)]

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.reach, self.mode)
        conv = F.conv1d if x.ndim == 3 else F.conv2d
        return conv(x, self.scale * self.weight, self.shift * self.bias, stride=self.stride)


class Block(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


Built = Callable[[int, int], nn.Module]
NETWORKS: dict[str, tuple[iw.Layer, Built, tuple[int, ...]]] = {
    "tanh": (
        iw.Serial(iw.Dense(1.5, 0.2), iw.Activation(torch.tanh, ()), iw.Dense(2.0, 0.3), iw.Activation(torch.tanh, ()),
                  iw.Dense(1.0, 0.1)),
        lambda n, k: nn.Sequential(Linear(3, n, 1.5, 0.2), nn.Tanh(), Linear(n, n, 2.0, 0.3), nn.Tanh(),
                                   Linear(n, k, 1.0, 0.1)),
        (3, 3),
    ),
    "circular, flattened": (
        iw.Serial(iw.Conv(3, 2.0, 0.1), iw.Activation(torch.relu), iw.Conv(3, 2.0, 0.1), iw.Activation(torch.relu),
                  iw.Flatten(), iw.Dense(1.0)),
        lambda n, k: nn.Sequential(Convolution(2, n, 2.0, 0.1, (3,), "circular"), nn.ReLU(),
                                   Convolution(n, n, 2.0, 0.1, (3,), "circular"), nn.ReLU(),
                                   nn.Flatten(), Linear(5 * n, k, 1.0)),
        (3, 2, 5),
    ),
    "zeros, stride, pooled": (
        iw.Serial(iw.Conv(3, 2.0, 0.1, "zeros"), iw.Activation(torch.relu), iw.Conv(3, 2.0, 0.1, "zeros", 2),
                  iw.Activation(torch.relu), iw.GlobalAveragePool(), iw.Dense(1.0)),
        lambda n, k: nn.Sequential(Convolution(2, n, 2.0, 0.1, (3, 3), "constant"), nn.ReLU(),
                                   Convolution(n, n, 2.0, 0.1, (3, 3), "constant", 2), nn.ReLU(),
                                   Mean(), Linear(n, k, 1.0)),
        (3, 2, 4, 3),
    ),
    "residual, normalised": (
        iw.Serial(iw.Dense(1.0), iw.Residual(iw.Serial(iw.LayerNorm(), iw.Activation(F.gelu, ()), iw.Dense(3.0, 0.1))),
                  iw.LayerNorm(), iw.Dense(1.0)),
        lambda n, k: nn.Sequential(
            Linear(3, n, 1.0), Block(nn.Sequential(nn.LayerNorm(n, elementwise_affine=False), nn.GELU(),
                                                   Linear(n, n, 3.0, 0.1))),
            nn.LayerNorm(n, elementwise_affine=False), Linear(n, k, 1.0)),
        (3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_random_networks_have_the_kernels(name: str) -> None:
    """Means over wide random networks, of torch's own layers, within 4.5 standard errors of both kernels, entry by entry."""
    from lemmata.analysis.gradient_flow import empirical_nngp, empirical_ntk

    infinite, built, shape = NETWORKS[name]
    x = normal(7, *shape)
    x[1] = 0.6 * x[0] + 0.8 * x[1]
    truth = infinite(x)
    covariance = empirical_nngp(lambda: built(200, 400), x, tol=0.02)
    tangent = empirical_ntk(lambda: built(100, 1), x, tol=0.035)
    for found, right, wrong in ((covariance, truth.nngp, truth.ntk), (tangent, truth.ntk, truth.nngp)):
        assert found.converged, found
        assert ((found.values - right) / found.stderr).abs().max() < 4.5
        assert ((found.values - wrong) / found.stderr).abs().max() > 10
        low, high = found.interval(0.9999)
        assert bool(((low < right) & (right < high)).all())


def test_pooling_sees_shifts_that_flattening_does_not() -> None:
    """Circular layers and pooling make one input of all shifts; read out by flattening, a shift is another input."""
    x = normal(0, 1, 2, 6)
    shifts = torch.cat([x.roll(s, 2) for s in range(6)])
    layers = [iw.Conv(3, 2.0), iw.Activation(torch.relu)] * 2
    pooled = iw.Serial(*layers, iw.GlobalAveragePool(), iw.Dense(1.0))(shifts)
    assert torch.allclose(pooled.nngp, pooled.nngp[0, 0].expand(6, 6), rtol=1e-12)
    assert torch.allclose(pooled.ntk, pooled.ntk[0, 0].expand(6, 6), rtol=1e-7)
    flat = iw.Serial(*layers, iw.Flatten(), iw.Dense(1.0))(shifts)
    assert flat.nngp[0, 1] < 0.9 * flat.nngp[0, 0]
    zeros = iw.Serial(iw.Conv(3, 2.0, padding="zeros"), iw.Activation(torch.relu), iw.GlobalAveragePool())(shifts)
    assert float(zeros.nngp.max() - zeros.nngp.min()) > 1e-3


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    infinite, _, shape = NETWORKS["zeros, stride, pooled"]
    x, x2 = normal(1, *shape), normal(2, 5, *shape[1:])
    whole = infinite(x, x2)
    per_pair = wide_kernel._HELD * 12**2
    monkeypatch.setattr(wide_kernel, "_MOST", 4 * per_pair)
    parts = infinite(x, x2)
    for name in ("nngp", "ntk", "first", "second"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12), name
    assert parts.nngp.shape == (3, 5) and torch.allclose(infinite(x2, x).ntk, parts.ntk.T, rtol=1e-12)
    monkeypatch.setattr(wide_kernel, "_MOST", per_pair - 1)
    with pytest.raises(CapacityError, match=r"read out with Flatten") as caught:
        infinite(x)
    assert caught.value.name == "inputs" and "given 12" in str(caught.value)


def test_float32_inputs_are_taken_in_float64() -> None:
    infinite, _, shape = NETWORKS["tanh"]
    x = normal(0, *shape).float()
    assert infinite(x).ntk.dtype == f64 and torch.equal(infinite(x).ntk, infinite(x.double()).ntk)


vector, image = torch.ones(2, 3), torch.ones(2, 3, 4)
RELU = iw.Activation(torch.relu)


@pytest.mark.parametrize(
    ("make", "name", "remedy"),
    [
        (lambda: RELU(vector), "Activation", "Dense or Conv"),
        (lambda: iw.Serial(iw.Dense(1.0), RELU, RELU)(vector), "Activation", "Dense or Conv"),
        (lambda: iw.Serial(iw.Conv(1, 1.0), iw.Flatten(), RELU)(image), "Activation", "Dense or Conv"),
        (lambda: iw.Dense(1.0)(image), "Dense", r"Flatten\(\) or GlobalAveragePool\(\)"),
        (lambda: iw.Conv(3, 1.0)(vector), "Conv", "Take Dense"),
        (lambda: iw.Conv(11, 1.0)(image), "size", "smaller"),
        (lambda: iw.Flatten()(vector), "Flatten", "Leave"),
        (lambda: iw.GlobalAveragePool()(vector), "GlobalAveragePool", "Leave"),
        (lambda: iw.Serial(iw.Dense(1.0), RELU, iw.LayerNorm())(vector), "LayerNorm", "Dense or Conv"),
        (lambda: iw.Residual(iw.Serial(iw.Dense(1.0), RELU)), "branch", "End it with"),
        (lambda: iw.Residual(iw.Serial(iw.Dense(1.0), iw.Residual(iw.Dense(1.0), RELU))), "branch", "End it with"),
        (lambda: iw.Residual(iw.Residual(iw.Dense(1.0))), "branch", "End it with"),
        (lambda: iw.Residual("a"), "branch", "such as Dense"),  # type: ignore[arg-type]
        (lambda: iw.Residual(iw.Dense(1.0), torch.relu), "shortcut", "such as Dense"),
        (lambda: iw.Residual(iw.Dense(1.0))(vector), "Residual", "Dense or Conv"),
        (lambda: iw.Serial(iw.Conv(1, 1.0), iw.Residual(iw.Conv(1, 1.0, stride=2)))(image), "shortcut", "strides"),
        (lambda: iw.Dense(-1.0), "weight_variance", "such as 2.0"),
        (lambda: iw.Dense(1.0, inf), "bias_variance", "such as 2.0"),
        (lambda: iw.Conv(2, 1.0), "size", "such as 3"),
        (lambda: iw.Conv(3, 1.0, padding="reflect"), "padding", "Choose one"),
        (lambda: iw.Conv(3, 1.0, stride=0), "stride", "stride=1"),
        (lambda: iw.LayerNorm(-1.0), "eps", "1e-5"),
        (lambda: iw.Serial(nn.Linear(1, 1)), "layers", "Dense"),
        (lambda: iw.Dense(1.0)([[1.0, 2.0]]), "x", "torch.tensor"),  # type: ignore[arg-type]
        (lambda: iw.Dense(1.0)(torch.ones(3)), "x", r"\(N, d\)"),
        (lambda: iw.Dense(1.0)(vector, torch.full((2, 3), torch.nan)), "x2", "without nan"),
        (lambda: iw.Dense(1.0)(vector, torch.ones(2, 4)), "x2", "same form"),
    ],
)
def test_what_is_refused(make: Callable[[], object], name: str, remedy: str) -> None:
    with pytest.raises(LemmataError, match=remedy) as caught:
        make()
    assert caught.value.name == name and isinstance(caught.value, ArgumentError | DataError)


def test_shortcuts_with_weights_and_other_reads() -> None:
    """A strided block with a projection, pooled: the kernel of both ways is their sum, and a linear net's is closed form."""
    x = normal(5, 2, 3, 4)
    block = iw.Residual(iw.Conv(1, 2.0, stride=2), iw.Conv(1, 0.5, stride=2))
    found = iw.Serial(block, iw.GlobalAveragePool(), iw.Dense(1.0))(x)
    kept = x[:, :, ::2].mean(2)
    inner = kept @ kept.T / 3
    assert torch.allclose(found.nngp, 2.5 * inner) and torch.allclose(found.ntk, 2 * 2.5 * inner)
    assert Rectifier(1.0, 1.0).slope(*(torch.ones(1, dtype=f64),) * 3).item() == 1.0


def test_a_block_within_a_block() -> None:
    """Uncorrelated with the outer shortcut only if the inner one changes sign too: then variances add up to the truth."""
    from lemmata.analysis.gradient_flow import empirical_nngp

    x = normal(3, 2, 3)
    inner = iw.Residual(iw.Dense(0.5), iw.Dense(0.7))
    found = iw.Serial(iw.Dense(1.0), RELU, iw.Residual(inner, iw.Dense(0.4)))(x)

    class Both(nn.Module):
        def __init__(self, one: nn.Module, other: nn.Module) -> None:
            super().__init__()
            self.one, self.other = one, other

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.other(x)

    def draw(n: int = 100) -> nn.Module:
        within = Both(Linear(n, n, 0.5), Linear(n, n, 0.7))
        return nn.Sequential(Linear(3, n, 1.0), nn.ReLU(), Both(within, Linear(n, n, 0.4)))

    sampled = empirical_nngp(draw, x, tol=0.02)
    assert ((sampled.values - found.nngp) / sampled.stderr).abs().max() < 4.5
    assert ((sampled.values - 1.2 * found.nngp) / sampled.stderr).abs().max() > 6


def test_random_networks_that_are_refused() -> None:
    from lemmata.analysis.gradient_flow import empirical_nngp, empirical_ntk

    x, drawn = torch.ones(2, 3), list[int]()

    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x))

    for network, remedy in (
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), "eval"),
        (lambda: Noisy(3, 4), "eval"),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "batch_stats|eval"),
    ):
        for kernel in (empirical_nngp, empirical_ntk):
            with pytest.raises(ModelStateError, match=remedy):
                kernel(network, x)
    assert empirical_nngp(lambda: nn.Sequential(nn.Linear(3, 99), nn.Dropout(0.5)).eval(), x, tol=0.2).converged
    with pytest.raises(NumericsError, match="nan in the inputs") as caught:
        empirical_nngp(lambda: drawn.append(1) or nn.Linear(3, 1), x * torch.nan)
    assert caught.value.name == "nngp of draw 1" and len(drawn) == 1


def test_all_accelerators_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeding reaches the generators of all devices, so that all are named; fork_rng warns where several are not."""
    from lemmata.analysis.gradient_flow import empirical_nngp

    asked, fork = [], torch.random.fork_rng
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=None: asked.append(devices) or fork([]))
    state = torch.get_rng_state()
    empirical_nngp(lambda: nn.Linear(3, 99), torch.ones(1, 3), tol=0.2)
    assert {tuple(devices) for devices in asked} == {(0, 1, 2)} and torch.equal(state, torch.get_rng_state())
