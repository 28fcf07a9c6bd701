"""Functions to approximate, with their exact norms: ``targets.takagi()``, ``targets.radial_bump(8)`` or one of your own."""

from __future__ import annotations

from math import comb, erf, exp, inf, isfinite, log, log2, pi, sqrt
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from .domains import Box, Finite, whole
from .round_domains import Ball, Sphere
from .target import Norms, Target
from .target_spectra import Bell, Lines

__all__ = [
    "Norms",
    "Target",
    "absolute",
    "cone",
    "hoelder",
    "korobov",
    "maximum",
    "parity",
    "product",
    "radial_bump",
    "sawtooth",
    "sphere_harmonic",
    "square",
    "takagi",
    "weierstrass",
]


def _inside(name: str, value: Any, low: float, high: float) -> float:
    if not isinstance(value, int | float) or not low < value <= high or not isfinite(value):
        remedy = f"Pass a number in ({low:g}, {high:g}]."
        raise ArgumentError(name, f"a finite number in ({low:g}, {high:g}]", repr(value), remedy)
    return float(value)


def square() -> Target:
    r""":math:`x^2` on [0, 1]: what depth approximates exponentially fast.

    >>> square().norms.sup
    1.0
    """
    norms = Norms(1.0, 1 / sqrt(5), 2.0, sqrt(4 / 3), (1.0, 2.0))
    return Target("x²", lambda x: x[:, 0] ** 2, Box.cube(1, 0.0), norms, inf)


def absolute() -> Target:
    r""":math:`|x|` on [−1, 1]: two rectifiers, but no polynomial.

    >>> absolute().smoothness
    1.0
    """
    norms = Norms(1.0, 1 / sqrt(3), 1.0, 1.0, (1.0, 1.0), inf)
    return Target("|x|", lambda x: x[:, 0].abs(), Box.cube(1), norms, 1.0, "two rectifiers")


def radial_bump(dimension: int, scale: float = 1.0) -> Target:
    r""":math:`e^{-\|x\|^2 / 2s^2}` on [−1, 1]^d, whose spectrum is a normal law of standard deviation 1/s.

    Its Barron norm :math:`C_f = \sqrt2\, \Gamma(\tfrac{d+1}2) / (s\, \Gamma(\tfrac d2)) \approx \sqrt d / s` hardly
    depends on the dimension. Source: barron1993universal.

    >>> round(radial_bump(1).norms.barron ** 2, 6) == round(2 / pi, 6)
    True
    """
    s = _inside("scale", scale, 1e-6, 1e6)
    bell = Bell(whole("dimension", dimension, 1, 10**4), 1 / s)
    reach = min(s, sqrt(dimension))  # where the slope r/s² exp(−r²/2s²) is largest
    slope = reach / s**2 * exp(-(reach**2) / (2 * s**2))
    axis = s * sqrt(pi) / 2 * erf(1 / s)  # E exp(−x²/s²)
    moment = s**2 / 2 * (axis - exp(-1 / s**2))  # E x² exp(−x²/s²)
    if s > 100:  # its series, of which that would leave no digits
        moment = 1 / 3 - 1 / (5 * s**2) + 1 / (14 * s**4)
    sobolev = sqrt(dimension * moment * axis ** (dimension - 1)) / s**2
    norms = Norms(1.0, axis ** (dimension / 2), slope, sobolev, (1.0, slope), bell.barron)
    name = f"Gaussian bump, d = {dimension}"
    return Target(
        name,
        lambda x: torch.exp(-x.square().sum(1) / (2 * s**2)),
        Box.cube(dimension),
        norms,
        inf,
        "a function of ‖x‖²",
        bell,
    )


def cone(dimension: int) -> Target:
    r""":math:`1 - \|x\|` on the unit ball: its level sets are spheres, which no network of width d closes.

    >>> cone(2)(torch.zeros(1, 2, dtype=torch.float64)).item()
    1.0
    """
    d = whole("dimension", dimension, 1, 10**4)
    norms = Norms(1.0, sqrt(1 - 2 * d / (d + 1) + d / (d + 2)), 1.0, 1.0, (1.0, 1.0))
    return Target(f"cone, d = {d}", lambda x: 1 - x.norm(dim=1), Ball(d), norms, 1.0, "a function of ‖x‖")


def korobov(dimension: int) -> Target:
    r""":math:`\prod_i 4 x_i (1 - x_i)` on [0, 1]^d: mixed derivatives bounded by 8^d, zero on the boundary.

    >>> korobov(2).norms.lipschitz
    4.0
    """
    d = whole("dimension", dimension, 1, 10**4)
    sobolev = sqrt(d * 16 / 3 * (8 / 15) ** (d - 1))
    norms = Norms(1.0, (8 / 15) ** (d / 2), 4.0, sobolev, (1.0, 4.0))
    return Target(f"Korobov, d = {d}", lambda x: (4 * x * (1 - x)).prod(1), Box.cube(d, 0.0), norms, inf, "a product")


def hoelder(exponent: float) -> Target:
    r""":math:`|x|^\alpha` on [−1, 1], 0 < α ≤ 1: Hölder with exponent α and constant 1, and no better.

    >>> hoelder(0.5).norms.lipschitz
    inf
    """
    alpha = _inside("exponent", exponent, 0.0, 1.0)
    sobolev = alpha / sqrt(2 * alpha - 1) if alpha > 0.5 else inf
    norms = Norms(1.0, 1 / sqrt(2 * alpha + 1), 1.0 if alpha == 1 else inf, sobolev, (alpha, 1.0), inf)
    return Target(f"|x|^{alpha:g}", lambda x: x[:, 0].abs() ** alpha, Box.cube(1), norms, alpha)


def takagi(terms: int = 40) -> Target:
    r"""Takagi's function :math:`\sum_{n \ge 0} 2^{-n} \phi(2^n x)` on [0, 1], φ the distance to the nearest integer.

    Nowhere differentiable, Hölder with every exponent below 1; and a sum of sawteeth, which depth makes one by one. The
    norms are those of the whole series, whose terms have disjoint frequencies; what is left out is below 2^(−terms).

    >>> round(takagi()(torch.tensor([[1 / 3]], dtype=torch.float64)).item(), 9)          # its maximum
    0.666666667
    """
    count = whole("terms", terms, 1, 50)

    def values(x: Tensor) -> Tensor:
        tooth, total = x[:, 0], torch.zeros_like(x[:, 0])
        for n in range(count):
            tooth = 1 - (2 * tooth - 1).abs()  # φ(2^n x) is half of it; exact on dyadic numbers
            total = total + tooth * 2.0 ** (-n - 1)
        return total

    norms = Norms(2 / 3, sqrt(5 / 18), inf, inf, (1.0, inf), inf)
    return Target("Takagi", values, Box.cube(1, 0.0), norms, 1.0, "a sum of compositions of one tent")


def weierstrass(decay: float = 0.5, base: int = 5, terms: int = 8) -> Target:
    r""":math:`\sum_{k < K} a^k \cos(b^k \pi x)` on [−1, 1], 0 < a < 1, b ≥ 2 an integer.

    The series is Hölder with exponent :math:`\ln(1/a) / \ln b` where ab > 1, and nowhere differentiable. The norms are
    those of the K terms; sup |f'| is attained at 1/2 where b leaves 1 modulo 4, else it has no closed form here.

    >>> weierstrass(0.5, 5, 2).norms.barron / pi
    3.5
    """
    a, b = _inside("decay", decay, 0.0, 1.0 - 1e-9), whole("base", base, 2, 1000)
    count = whole("terms", terms, 1, max(1, int(45 / log2(b))))  # beyond, b^k π x has no digits left
    frequencies = torch.tensor([[pi * b**k] for k in range(count)], dtype=torch.float64)
    lines = Lines(frequencies, torch.tensor([a**k for k in range(count)], dtype=torch.float64))
    l2 = sqrt(sum(a ** (2 * k) for k in range(count)) / 2)
    sobolev = pi * sqrt(sum((a * b) ** (2 * k) for k in range(count)) / 2)
    slope = lines.barron if b % 4 == 1 else None
    norms = Norms(lines.mass, l2, slope, sobolev, (1.0, slope), lines.barron)
    smoothness = min(1.0, -log(a) / log(b))
    return Target(f"Weierstrass, a = {a:g}, b = {b}", lines, Box.cube(1), norms, smoothness, "", lines)


def parity(dimension: int) -> Target:
    r""":math:`\prod_i (1 - 2 x_i)` on {0, 1}^d: one Walsh coefficient, of degree d.

    As a function on :math:`R^d` it is :math:`\prod_i \cos \pi x_i`, with the 2^d frequencies (±π, …, ±π).

    >>> parity(3)(torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)).item()
    1.0
    """
    d = whole("dimension", dimension, 1, 16)
    corners = 2 * Finite.hypercube(d).points[2 ** (d - 1) :] - 1  # one of each pair ±ω
    lines = Lines(pi * corners, torch.full((2 ** (d - 1),), 2.0 ** (1 - d), dtype=torch.float64))
    norms = Norms(1.0, 1.0, 2.0, None, (1.0, 2.0), lines.barron)
    domain = Finite.hypercube(d)
    return Target(f"parity, d = {d}", lambda x: (1 - 2 * x).prod(1), domain, norms, None, "a binary tree", lines)


def sawtooth(folds: int) -> Target:
    r"""The tent :math:`T(x) = 1 - |2x - 1|` on [0, 1], composed k times: 2^k edges of slope ±2^k.

    Source: telgarsky2015representation.

    >>> sawtooth(3)(torch.tensor([[0.125], [0.25]], dtype=torch.float64)).tolist()
    [1.0, 0.0]
    """
    k = whole("folds", folds, 1, 50)

    def values(x: Tensor) -> Tensor:
        for _ in range(k):
            x = 1 - (2 * x - 1).abs()
        return x[:, 0]

    norms = Norms(1.0, 1 / sqrt(3), 2.0**k, 2.0**k, (1.0, 2.0**k), inf)
    return Target(f"sawtooth, 2^{k} edges", values, Box.cube(1, 0.0), norms, 1.0, f"one tent, {k} times")


def maximum(dimension: int) -> Target:
    r""":math:`\max_i x_i` on [0, 1]^d.

    >>> maximum(2).norms.sobolev
    1.0
    """
    d = whole("dimension", dimension, 1, 10**4)
    norms = Norms(1.0, sqrt(d / (d + 2)), 1.0, 1.0, (1.0, 1.0))
    return Target(f"max, d = {d}", lambda x: x.amax(1), Box.cube(d, 0.0), norms, 1.0, "a binary tree of maxima")


def product(dimension: int) -> Target:
    r""":math:`\prod_i x_i` on [−1, 1]^d, a binary tree of products of two.

    >>> product(4).norms.lipschitz
    2.0
    """
    d = whole("dimension", dimension, 1, 1000)
    sobolev = sqrt(d / 3 ** (d - 1))
    norms = Norms(1.0, 3 ** (-d / 2), sqrt(d), sobolev, (1.0, sqrt(d)))
    return Target(f"product, d = {d}", lambda x: x.prod(1), Box.cube(d), norms, inf, "a binary tree of products")


def sphere_harmonic(degree: int, dimension: int = 3) -> Target:
    r"""The zonal harmonic of degree k on :math:`S^{d-1}`: a polynomial of :math:`t = x_1`, 1 at the pole.

    cos kθ on the circle, Legendre's polynomials on the sphere. :math:`E f^2 = 1/N`, with N the dimension of the harmonics of
    degree k, and :math:`E \|\nabla f\|^2 = k(k + d - 2)/N`.

    >>> round(sphere_harmonic(2).norms.l2 ** -2, 9)
    5.0
    """
    k, d = whole("degree", degree, 0, 200), whole("dimension", dimension, 2, 100)

    def values(x: Tensor) -> Tensor:
        t = x[:, 0]
        before, now = torch.ones_like(t), t
        for j in range(1, k):  # (j + d − 2) P_{j+1} = (2j + d − 2) t P_j − j P_{j−1}
            before, now = now, ((2 * j + d - 2) * t * now - j * before) / (j + d - 2)
        return now if k else before

    count = comb(k + d - 1, d - 1) - (comb(k + d - 3, d - 1) if k > 1 else 0)
    norms = Norms(1.0, count**-0.5, None, sqrt(k * (k + d - 2) / count))
    return Target(f"zonal harmonic, degree {k}, d = {d}", values, Sphere(d), norms, inf, "a ridge function of x₁")
