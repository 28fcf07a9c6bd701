"""Norms of the targets against adaptive quadrature, differences and least squares; functions that cannot be targets."""

from __future__ import annotations

from math import cos, exp, inf, nan, pi, sqrt

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import eval_gegenbauer

import lemmata.analysis as la
from lemmata.analysis.approximation.target_spectra import Bell, Lines
from lemmata.analysis.errors import ArgumentError, DataError

f64 = torch.float64
T = la.targets

LINE = [
    T.square(),
    T.absolute(),
    T.hoelder(0.3),
    T.hoelder(0.75),
    T.weierstrass(0.5, 3, 4),
    T.weierstrass(0.6, 5, 3),
    T.sawtooth(3),
    T.radial_bump(1, 0.4),
    T.cone(1),
    T.korobov(1),
    T.takagi(),
]
PLANE = [T.radial_bump(2, 0.7), T.cone(2), T.cone(3), T.korobov(2), T.maximum(2), T.maximum(3), T.product(3)]


def at(target: la.Target, x: np.ndarray) -> np.ndarray:
    return target.function(torch.tensor(x, dtype=f64)).numpy()


@pytest.mark.parametrize("target", LINE, ids=lambda t: t.name)
def test_norms_on_the_line(target: la.Target) -> None:
    """On dyadic panels of 12 Gauss–Legendre nodes; slopes by differences within panels."""
    low, high = (target.domain.low[0], target.domain.high[0]) if isinstance(target.domain, la.Box) else (-1.0, 1.0)
    edges = np.linspace(low, high, 2**13 + 1)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    x = (edges[:-1, None] + edges[1:, None]) / 2 + np.diff(edges)[:, None] / 2 * nodes
    values = at(target, x.reshape(-1, 1)).reshape(x.shape)
    norms = target.norms
    assert sqrt((values**2 @ weights / 2).mean()) == pytest.approx(norms.l2, rel=1e-5)
    ends = at(target, edges[:, None])
    assert np.abs(ends).max() == pytest.approx(norms.sup, rel=1e-4) and np.abs(ends).max() <= norms.sup + 1e-12
    slopes = np.diff(ends) / np.diff(edges)
    if norms.lipschitz is not None:
        if norms.lipschitz < inf:
            assert np.abs(slopes).max() == pytest.approx(norms.lipschitz, rel=1e-3)
            assert np.abs(slopes).max() <= norms.lipschitz * (1 + 1e-12)
        else:
            coarse = np.abs(np.diff(ends[::64]) / np.diff(edges[::64])).max()
            assert np.abs(slopes).max() > 1.5 * coarse  # grows without end
    if norms.sobolev is not None and norms.sobolev < inf:
        rel = 0.05 if target.norms.lipschitz == inf else 1e-3
        assert sqrt((slopes**2).mean()) == pytest.approx(norms.sobolev, rel=rel)


@pytest.mark.parametrize("target", PLANE, ids=lambda t: t.name)
def test_norms_in_space(target: la.Target) -> None:
    """Averages over random points, gradients by differences."""
    x, step = target.domain.sample(50_000), 1e-6
    eye = torch.eye(x.shape[1], dtype=f64)
    gradient = torch.stack(
        [(target.function(x + step * e) - target.function(x - step * e)) / (2 * step) for e in eye], 1
    )
    for squares, norm in ((target(x) ** 2, target.norms.l2), (gradient.square().sum(1), target.norms.sobolev)):
        assert float(squares.mean()) == pytest.approx(norm**2, abs=4.5 * float(squares.std()) / 50_000**0.5 + 1e-4)
        assert float(squares.mean()) != pytest.approx(1.1 * norm**2, rel=0.03)
    sup = float(target(target.domain.grid(33)).abs().max())
    steepest = float(gradient.norm(dim=1).max())
    assert sup == pytest.approx(target.norms.sup, rel=1e-9)
    assert 0.9 * target.norms.lipschitz < steepest <= target.norms.lipschitz * (1 + 1e-6)


@pytest.mark.parametrize("target", [*LINE, *PLANE, T.parity(4)], ids=lambda t: t.name)
def test_hoelder_constants(target: la.Target) -> None:
    """No two points are further apart than the pair says, and a smaller constant is broken for powers."""
    if target.norms.hoelder is None or target.norms.hoelder[1] in (None, inf):
        return
    alpha, constant = target.norms.hoelder
    x, y = target.domain.sample(2000, 1), target.domain.sample(2000, 2)
    near = x + (y - x) * torch.rand(2000, 1, dtype=f64, generator=torch.Generator().manual_seed(0)) ** 6
    y = y if isinstance(target.domain, la.Finite) else near
    gap = (target(x) - target(y)).abs()
    assert bool((gap <= constant * (x - y).norm(dim=1) ** alpha * (1 + 1e-9) + 1e-12).all())
    if target.name.startswith("|x|^"):
        zero = torch.zeros(1, 1, dtype=f64)
        small = torch.full((1, 1), 1e-9, dtype=f64)
        assert float(target(small) - target(zero)) > 0.99 * 1e-9**alpha


def test_takagi_is_the_self_similar_one() -> None:
    """T(x) = φ(x) + T(2x)/2, and the integral of T is 1/2."""
    f = T.takagi()
    x = torch.arange(512, dtype=f64)[:, None] / 1024
    assert torch.allclose(f(x), x[:, 0] + f(2 * x) / 2, rtol=0, atol=1e-12)
    assert float(f(la.Box.cube(1, 0.0).grid(2**14 + 1)).mean()) == pytest.approx(0.5, abs=1e-3)


def test_barron_norm_of_a_bump_by_integration() -> None:
    """∫ |ω| f̂ in one dimension, and in three by the law of the length of a normal vector."""
    for s in (0.5, 2.0):
        law = stats.norm(0, 1 / s)
        found = 2 * quad(lambda w, law=law: w * law.pdf(w), 0, 60, limit=200)[0]
        assert found == pytest.approx(T.radial_bump(1, s).norms.barron, rel=1e-8)
    chi = quad(lambda r: r**3 * exp(-(r**2) / 2) * sqrt(2 / pi), 0, 40)[0]
    assert T.radial_bump(3, 1.0).norms.barron == pytest.approx(chi, rel=1e-9)
    assert T.radial_bump(3, 1.0).norms.barron != pytest.approx(sqrt(3), rel=0.05)


@pytest.mark.parametrize("target", [T.parity(4), T.weierstrass(0.5, 5, 4), T.radial_bump(2, 0.8)], ids=lambda t: t.name)
def test_spectra_are_those_of_the_functions(target: la.Target) -> None:
    """The mean of m s cos(ω · x) over draws is the function; the Barron norm is the mean length."""
    omega, signs = target.spectrum.draw(40_000, torch.Generator().manual_seed(0))
    x = target.domain.sample(5)
    waves = target.spectrum.mass * signs * torch.cos(x @ omega.T)
    error = waves.std(1) / 200
    assert bool(((waves.mean(1) - target(x)).abs() < 4.5 * error + 1e-9).all())
    lengths = target.spectrum.mass * omega.norm(dim=1)
    assert float(lengths.mean()) == pytest.approx(target.norms.barron, abs=4.5 * float(lengths.std()) / 200 + 1e-9)


@pytest.mark.parametrize(("degree", "dimension"), [(0, 3), (1, 2), (3, 2), (2, 3), (5, 3), (4, 5)])
def test_harmonics(degree: int, dimension: int) -> None:
    """Against cos kθ or Gegenbauer's polynomials, their norms by quadrature, and orthogonal to all of lower degree."""
    f, domain = T.sphere_harmonic(degree, dimension), la.Sphere(dimension)
    x, w = domain.quadrature(degree + 3)
    t = x[:, 0].clamp(-1, 1)
    if dimension == 2:
        truth = torch.cos(degree * t.acos())
    else:
        a = (dimension - 2) / 2
        truth = torch.tensor(eval_gegenbauer(degree, a, t.numpy()) / eval_gegenbauer(degree, a, 1.0))
    assert torch.allclose(f(x), truth, atol=1e-12)
    assert float(w @ f(x) ** 2) == pytest.approx(f.norms.l2**2, rel=1e-10)
    if degree:
        assert float(w @ (f(x) * T.sphere_harmonic(degree - 1, dimension)(x))) == pytest.approx(0, abs=1e-12)
    step = 1e-5
    tangent = torch.eye(dimension, dtype=f64) - x[:, :, None] * x[:, None, :]
    slopes = []
    for e in tangent.unbind(1):
        ahead, behind = (z / z.norm(dim=1, keepdim=True) for z in (x + step * e, x - step * e))
        slopes.append((f.function(ahead) - f.function(behind)) / (2 * step))
    assert float((w @ torch.stack(slopes, 1).square().sum(1)).sqrt()) == pytest.approx(
        f.norms.sobolev, rel=1e-6, abs=1e-9
    )


def test_parity_is_orthogonal_to_every_smaller_product() -> None:
    f = T.parity(3)
    x = f.domain.points
    assert float(f(x).square().mean()) == 1 and float((f(x) * (1 - 2 * x[:, 0]) * (1 - 2 * x[:, 1])).mean()) == 0


def test_lines_and_bells_are_checked() -> None:
    with pytest.raises(DataError, match=r"frequencies, amplitudes.*one row of frequencies for each"):
        Lines(torch.zeros(2, 1), torch.zeros(3))
    with pytest.raises(DataError, match="nan"):
        Lines(torch.tensor([[nan]]), torch.ones(1))
    with pytest.raises(ArgumentError, match=r"deviation=1\.0"):
        Bell(2, 0.0)
    assert Lines(torch.tensor([[2.0]]), torch.tensor([3.0]))(torch.tensor([[0.5]])).item() == pytest.approx(3 * cos(1))


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (lambda x: x[:, 0].log(), "domain on which the target is finite"),
        (lambda x: torch.full_like(x[:, 0], nan), "domain on which the target is finite"),
        (lambda x: x, "rows (n, d) to values (n,)"),
        (lambda x: 1.0, "rows (n, d) to values (n,)"),
    ],
)
def test_functions_that_are_no_targets(function, remedy: str) -> None:
    with pytest.raises(DataError) as caught:
        la.Target("mine", function, la.Box.cube(1))
    assert caught.value.name == "mine" and remedy in str(caught.value)


def test_domains_that_are_none() -> None:
    with pytest.raises(ArgumentError, match=r"domain: expected a box, ball, sphere or finite set.*Sphere\(d\)"):
        la.Target("mine", lambda x: x[:, 0], (0.0, 1.0))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: T.hoelder(0.0), "exponent"),
        (lambda: T.hoelder(1.5), "exponent"),
        (lambda: T.radial_bump(0), "dimension"),
        (lambda: T.radial_bump(2, -1.0), "scale"),
        (lambda: T.weierstrass(1.5), "decay"),
        (lambda: T.weierstrass(0.5, 5, 60), "terms"),
        (lambda: T.parity(40), "dimension"),
        (lambda: T.sawtooth(0), "folds"),
        (lambda: T.sphere_harmonic(-1), "degree"),
        (lambda: T.maximum(2.0), "dimension"),
    ],
)
def test_arguments_outside_their_range(make, name: str) -> None:
    with pytest.raises(ArgumentError, match=r"Pass ") as caught:
        make()
    assert caught.value.name == name


@pytest.mark.parametrize("scale", [0.3, 90.0, 110.0, 1e6])
def test_the_seminorm_of_a_flat_bump_keeps_its_digits(scale: float) -> None:
    x, w = la.Box.cube(2).quadrature(40)
    truth = float(w @ (x.square().sum(1) / scale**4 * torch.exp(-x.square().sum(1) / scale**2))) ** 0.5
    assert la.targets.radial_bump(2, scale).norms.sobolev == pytest.approx(truth, rel=1e-9)


def test_waves_without_an_amplitude_are_refused() -> None:
    for omega, a in ((torch.ones(1, 1), torch.zeros(1)), (torch.ones(1, 1).long(), torch.ones(1))):
        with pytest.raises(DataError, match=r"amplitudes.*all 0"):
            Lines(omega, a)


def test_spectra_of_mixed_precision_and_of_no_dimension() -> None:
    """Five times two, and what is refused."""
    mixed = Lines(torch.tensor([[3.0, 4.0]]), torch.tensor([-2.0], dtype=torch.float64))
    assert mixed.barron == 10 and mixed.mass == 2
    for dimension in (0, -1, 2.5):
        with pytest.raises(ArgumentError, match="dimension.*Pass that of the points"):
            Bell(dimension, 1.0)
    with pytest.raises(DataError, match=r"amplitudes.*torch\.tensor"):
        Lines(torch.ones(1, 1), [1.0])
