"""What depth multiplies: sawteeth, and from them squares, products and polynomials at an exponential rate."""

from __future__ import annotations

from collections.abc import Sequence
from math import frexp, isfinite

import torch
from torch import Tensor

from ..errors import ArgumentError
from .construction import Construction, Layers, affine, beside, hidden, network_of, passing, then
from .domains import Box, whole
from .targets import sawtooth as folded

_KNOTS = [0.0, -0.5, -1.0]
_TENT = [2.0, -4.0, 2.0]  # T(x) = 2 relu(x) − 4 relu(x − 1/2) + 2 relu(x − 1)
_EPS = 2.0**-52


def sawtooth(k: int) -> Construction:
    r"""Telgarsky's sawtooth: the tent of three rectifiers composed k times, 2^k edges from 3k neurons; exact.

    Equal to the last bit on dyadic points; elsewhere each fold doubles the rounding of the one before. Cost: 12k weights or so.

    Errors: ``ArgumentError`` for k outside 1 … 40.

    Source: telgarsky2015representation.

    Example:
        >>> sawtooth(3).check().error
        0.0

    """
    whole("k", k, 1, 40)
    fold = hidden(([[1.0]] * 3, _KNOTS), ([_TENT], 0.0))
    domain = Box.cube(1, 0.0)
    statement = f"A tent of three rectifiers composed {k} times is a sawtooth of 2^{k} edges."
    count, elsewhere = 2 ** min(k + 2, 16) + 1, 2.0**k * 8 * _EPS
    net = network_of(then(*[fold] * k))
    return Construction(net, folded(k), 0.0, domain, statement, count, elsewhere=elsewhere)


def _square(m: int) -> Layers:
    r"""f_m(t) = t − Σ_s T^s(t)/4^s on [0, 1], m hidden layers of four."""
    first = ([[1.0]] * 4, [*_KNOTS, 0.0])
    inner = [([[*_TENT, 0.0]] * 3 + [[-c / 4**s for c in _TENT] + [1.0]], [*_KNOTS, 0.0]) for s in range(1, m)]
    return hidden(first, *inner, ([[-c / 4**m for c in _TENT] + [1.0]], 0.0))


def square(m: int) -> Construction:
    r"""Yarotsky's square: m hidden layers of four rectifiers with :math:`\sup_{[0, 1]} |f_m - x^2| = 2^{-2m-2}`, exactly.

    .. math:: f_m(x) = x - \sum_{s=1}^m 4^{-s}\, T^{\circ s}(x), \qquad T(x) = 1 - |2x - 1|

    f_m interpolates x² at the multiples of 2^(−m) and lies above it between them. All numbers are dyadic: float64 makes no
    error on dyadic grids for m ≤ 12.

    Errors: ``ArgumentError`` for m outside 1 … 24.

    Source: yarotsky2017error.

    Example:
        >>> witness = square(4).check()
        >>> witness.error == witness.bound == 2.0**-10
        True

    """
    whole("m", m, 1, 24)
    statement = f"{m} hidden layers of four rectifiers make x² with an error of 2^−{2 * m + 2}."
    count, rounding = 2 ** min(m + 2, 16) + 1, 0.0 if m <= 12 else 50 * _EPS
    net, bound, domain = network_of(_square(m)), 2.0 ** (-2 * m - 2), Box.cube(1, 0.0)
    return Construction(net, lambda x: x[:, 0] ** 2, bound, domain, statement, count, rounding, elsewhere=50 * _EPS)


def _product(m: int) -> Layers:
    """≈ x y on [−1, 1]²: the square of |x + y|/2 less that of |x − y|/2, zero where a factor is."""
    halves = hidden(([[0.5, 0.5], [-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]], 0.0), ([[1.0, 1, 0, 0], [0, 0, 1, 1]], 0.0))
    return then(halves, beside(_square(m), _square(m)), affine([[1.0, -1.0]]))


def product(m: int, radius: float = 1.0) -> Construction:
    r"""Products from squares, :math:`xy = \tfrac14 (x + y)^2 - \tfrac14 (x - y)^2`, with m + 1 hidden layers of at most eight.

    On :math:`[-R, R]^2` the error is at most :math:`R^2\, 2^{-2m-2}`: both squares err upwards, and by no more. It is zero
    where a factor is zero.

    Args: ``m`` – the depth of the squares; ``radius`` – R.

    Errors: ``ArgumentError`` for m outside 1 … 24 or a radius that is not positive.

    Source: yarotsky2017error.

    Example:
        >>> product(3, radius=2.0).check()
        sup error 0.015625 ≤ 0.015625 + 1.8e-13: holds (16641 points, largest at (-1.875, -1.875))

    """
    whole("m", m, 1, 24)
    if not isinstance(radius, int | float) or not 1e-100 <= radius <= 1e100:
        raise ArgumentError("radius", "a number from 1e-100 to 1e100", repr(radius), "Pass radius=1.0.")
    layers = then(affine(torch.eye(2, dtype=torch.float64) / radius), _product(m), affine([[radius**2]]))
    statement = f"Two squares of depth {m} make the product of two numbers."
    domain, rounding = Box.cube(2, -radius, radius), 50 * 4 * _EPS * radius**2
    bound = radius**2 * 2.0 ** (-2 * m - 2)
    return Construction(network_of(layers), lambda x: x[:, 0] * x[:, 1], bound, domain, statement, 129, rounding)


def polynomial(coefficients: Sequence[float], m: int) -> Construction:
    r"""A polynomial :math:`\sum_k c_k x^k` on [−1, 1] by Horner's rule, :math:`y \leftarrow c_k + x y` with products of depth m.

    Step k multiplies by a number of at most :math:`Y_k = \sum_{j > k} |c_j|` and the errors so far; rounded up to a power of
    two it is the scale of the product, whose error is :math:`Y_k 2^{-2m-2}`. Errors add up, since |x| ≤ 1: logarithmic depth
    in 1/ε for every polynomial, and then for every analytic function. For the monomial x^n the bound is
    :math:`(n - 1) 2^{-2m-2}` or, with the rounded scales, at most twice that.

    Args: ``coefficients`` – c_0, c_1, …; ``m`` – the depth of the squares. (n − 1)(m + 1) hidden layers of at most ten.

    Errors: ``ArgumentError`` for fewer than two coefficients, one that is not finite, a last one of zero, or m outside 1 … 24.

    Source: yarotsky2017error.

    Example:
        >>> cubic = polynomial([0.0, -0.75, 0.0, 1.0], 6)               # Chebyshev's, over four
        >>> cubic.check().holds, cubic.error_bound <= 4 * 2.0**-14
        (True, True)

    """
    whole("m", m, 1, 24)
    c = [float(one) for one in coefficients]
    if len(c) < 2 or not all(map(isfinite, c)) or not c[-1]:
        remedy = "Pass finite c_0, c_1, …, the last one not zero."
        raise ArgumentError("coefficients", "two finite numbers or more", repr(list(coefficients)), remedy)
    degree, bound, size = len(c) - 1, 0.0, abs(c[-1])
    layers: Layers = affine([[1.0], [c[-1]]], [0.0, c[-2]])  # (x, c_n x + c_{n−1})
    size += abs(c[-2])
    for k in range(degree - 2, -1, -1):
        scale = _power_of_two(size + bound)
        fork = affine([[1.0, 0.0], [1.0, 0.0], [0.0, 1 / scale]])  # (x, x, y/Y)
        multiply = beside(passing(1, 0), _product(m))
        join = affine([[1.0, 0.0], [0.0, scale]], [0.0, c[k]])
        layers = then(layers, fork, multiply, join)
        bound += scale * 2.0 ** (-2 * m - 2)
        size += abs(c[k])
    layers = then(layers, affine([[0.0, 1.0]]))

    def exact(x: Tensor) -> Tensor:
        value = torch.full_like(x[:, 0], c[-1])
        for one in c[-2::-1]:
            value = value * x[:, 0] + one
        return value

    statement = f"Products of depth {m} make a polynomial of degree {degree}."
    rounding = 50 * _EPS * size * (degree * (m + 1)) ** 0.5
    return Construction(network_of(layers), exact, bound, Box.cube(1), statement, 2**12 + 1, rounding)


def _power_of_two(value: float) -> float:
    """The smallest power of two that is no less."""
    mantissa, exponent = frexp(value)
    return 2.0 ** (exponent - (mantissa == 0.5))
