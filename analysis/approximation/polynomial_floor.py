"""What networks with a polynomial activation cannot represent, however wide they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from ..errors import ArgumentError, DataError
from .floors import Floor, best_in_span

_MOST = 3000  # functions in a span


def polynomial_floor(points: Tensor, target: Tensor, degree: int, order: float = 2) -> Floor:
    r"""The least error on data of any network whose activations are polynomials, of any width.

    .. math:: \min_{\deg q \le p} \|y - q(x)\|, \qquad \dim \{q : \deg q \le p\} = \binom{d + p}{p}

    With one hidden layer of an activation of degree p a network is a polynomial of degree at most p of its d inputs, with L layers
    of degree at most :math:`p^L`: pass that as ``degree``. The widths do not matter, so that no training goes below.

    Args:
        points: (N, d), finite. target: (N,). degree: p ≥ 0. order: 2 for the root of the mean square, 1 for the mean
            error, inf for the largest.

    Cost: that of :func:`best_in_span` with as many functions as the dimension; the products of Legendre polynomials on the box
    of the points, which lose no digits.

    Errors: ``DataError`` for points of another shape or not finite; ``ArgumentError`` for a degree that is no integer ≥ 0 or
    whose span has more than 3000 functions.

    Source: Leshno, Lin, Pinkus & Schocken 1993, Multilayer feedforward networks with a nonpolynomial activation function can
    approximate any function.

    Example:
        >>> x = torch.linspace(-1, 1, 101, dtype=torch.float64)[:, None]
        >>> polynomial_floor(x, x[:, 0] ** 2, degree=2).upper < 1e-12
        True
        >>> polynomial_floor(x, x[:, 0] ** 3, degree=2).dimension
        3

    """
    if points.ndim != 2 or 0 in points.shape or not bool(points.isfinite().all()):
        given = (
            f"shape {tuple(points.shape)}" if points.ndim != 2 or 0 in points.shape else "NaN or infinity among them"
        )
        raise DataError("points", "shape (N, d), finite", given, "Flatten them: points.flatten(1).")
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ArgumentError(
            "degree", "an integer ≥ 0", repr(degree), "Pass the activation's degree to the power of the layers."
        )
    x = points.detach().to("cpu", torch.float64)
    middle, half = (x.amax(0) + x.amin(0)) / 2, (x.amax(0) - x.amin(0)).clamp_min(1e-300) / 2
    powers = _legendre((x - middle) / half, degree)  # (degree + 1, N, d)
    columns = []
    for exponents in _exponents(x.shape[1], degree):
        columns.append(torch.stack([powers[e, :, i] for i, e in enumerate(exponents)]).prod(0))
        if len(columns) > _MOST:
            raise ArgumentError("degree", f"a span of at most {_MOST} functions", repr(degree), "Take a lower degree.")
    return best_in_span(torch.stack(columns, 1), target, order)


def _legendre(x: Tensor, degree: int) -> Tensor:
    found = [torch.ones_like(x), x]
    for n in range(1, degree):
        found.append(((2 * n + 1) * x * found[n] - n * found[n - 1]) / (n + 1))
    return torch.stack(found[: degree + 1])


def _exponents(dimension: int, degree: int) -> Iterator[tuple[int, ...]]:
    """All exponents of d variables whose sum is at most the degree."""
    for chosen in combinations_with_replacement(range(dimension + 1), degree):  # the last stands for no variable
        yield tuple(chosen.count(i) for i in range(dimension))
