"""Grids with their modes: Fourier on the interval and the circle, spherical harmonics on the sphere."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln, lpmv
from torch import Tensor

from ..errors import ArgumentError, OperandError


@dataclass(frozen=True, repr=False)
class Modes:
    r"""Functions on N weighted points, orthonormal there: :math:`\sum_n w_n b_i(x_n) b_j(x_n) = \delta_{ij}`.

    Attributes:
        points: (N, d). weights: w, (N,), which sum to 1.
        basis: (N, M). frequencies: of each of the M functions, (M,), ascending integers; several may share one.

    All are float64, on the CPU. Made by :func:`interval_modes`, :func:`circle_modes` and :func:`sphere_modes`.
    """

    points: Tensor
    weights: Tensor
    basis: Tensor
    frequencies: Tensor

    def coefficients(self, values: Tensor) -> Tensor:
        r"""What a function has of each mode, :math:`\sum_n w_n b_m(x_n) f(x_n)`: (…, N) to (…, M)."""
        if values.ndim < 1 or values.shape[-1] != len(self.points):
            remedy = "Evaluate the function at modes.points."
            raise OperandError("values", f"shape (…, {len(self.points)})", str(tuple(values.shape)), remedy)
        return (values * self.weights.to(values)) @ self.basis.to(values)

    def amplitudes(self, values: Tensor) -> Tensor:
        """The root mean square of a function's part at each frequency, (…, N) to (…, F), frequencies ascending."""
        squares = self.coefficients(values).square()
        index = torch.unique(self.frequencies, return_inverse=True)[1].to(squares.device)
        found = squares.new_zeros(*squares.shape[:-1], int(index.max()) + 1)
        return found.index_add(-1, index, squares).sqrt()

    def __repr__(self) -> str:
        n, d = self.points.shape
        last = int(self.frequencies[-1])
        return f"Modes({self.basis.shape[1]} functions of frequency 0 to {last} on {n} points in dimension {d})"


def interval_modes(points: int, highest: int) -> Modes:
    r"""The interval [0, 1) with 1, :math:`\sqrt2 \cos 2\pi k x` and :math:`\sqrt2 \sin 2\pi k x`, k up to ``highest``.

    Args: ``points``, N, at k/N; ``highest`` frequency, below N/2.

    Errors: ``ArgumentError`` for a frequency that the points cannot tell from a lower one.

    Example:
        >>> modes = interval_modes(8, 2)
        >>> modes.points[1].item(), modes.frequencies.tolist(), round(modes.basis[0, 1].item(), 6)
        (0.125, [0, 1, 1, 2, 2], 1.414214)

    """
    _check(points, highest)
    x = torch.arange(points, dtype=torch.float64, device="cpu") / points
    angle = 2 * pi * x[:, None] * torch.arange(1, highest + 1, dtype=torch.float64, device="cpu")
    waves = torch.stack([angle.cos(), angle.sin()], 2).flatten(1) * 2**0.5
    frequencies = torch.arange(1, highest + 1, device="cpu").repeat_interleave(2)
    basis = torch.cat([torch.ones_like(x)[:, None], waves], 1)
    return Modes(
        x[:, None], torch.full_like(x, 1 / points), basis, torch.cat([torch.zeros_like(frequencies[:1]), frequencies])
    )


def circle_modes(points: int, highest: int) -> Modes:
    r"""The unit circle in the plane, N points at equal distances, with the modes of :func:`interval_modes`.

    Example:
        >>> modes = circle_modes(8, 3)
        >>> [round(x, 6) for x in modes.amplitudes(1 + 2**0.5 * modes.points[:, 0]).tolist()]  # 1 + √2 cos θ
        [1.0, 1.0, 0.0, 0.0]

    """
    flat = interval_modes(points, highest)
    angle = 2 * pi * flat.points[:, 0]
    return Modes(torch.stack([angle.cos(), angle.sin()], 1), flat.weights, flat.basis, flat.frequencies)


def sphere_modes(rings: int, highest: int) -> Modes:
    r"""The unit sphere in space with real spherical harmonics of degree up to ``highest``, of mean square 1.

    The points are a product of Gauss–Legendre heights and 2 ``rings`` longitudes; their weights integrate polynomials of
    degree below 2 ``rings`` exactly. The frequency of a harmonic is its degree l, which 2 l + 1 of them share.

    Args: ``rings``, of points; ``highest`` degree, below their number.

    Errors: ``ArgumentError`` for a degree that the points cannot tell from a lower one.

    Example:
        >>> modes = sphere_modes(6, 3)
        >>> z = modes.points[:, 2]
        >>> [round(x, 6) for x in modes.amplitudes(5**0.5 * (3 * z**2 - 1) / 2).tolist()]  # √5 P_2(z)
        [0.0, 0.0, 1.0, 0.0]

    """
    _check_highest(highest)
    if not isinstance(rings, int) or rings <= highest:
        expected = f"more than {highest}, to tell degree {highest} from lower ones"
        raise ArgumentError("rings", expected, repr(rings), "Take more rings, or a lower highest degree.")
    heights, masses = np.polynomial.legendre.leggauss(rings)
    longitude = np.arange(2 * rings) * pi / rings
    z, phi = (part.ravel() for part in np.meshgrid(heights, longitude, indexing="ij"))
    across = np.sqrt(1 - z**2)
    points = np.stack([across * np.cos(phi), across * np.sin(phi), z], 1)
    columns, frequencies = [], []
    for degree in range(highest + 1):
        for order in range(-degree, degree + 1):
            m = abs(order)
            size = np.sqrt((2 * degree + 1) * np.exp(gammaln(degree - m + 1) - gammaln(degree + m + 1)))
            around = np.sqrt(2) * (np.sin if order < 0 else np.cos)(m * phi) if order else 1.0
            columns.append(size * lpmv(m, degree, z) * around)
            frequencies.append(degree)
    weights = np.repeat(masses, 2 * rings) / (4 * rings)
    parts = (torch.from_numpy(part) for part in (points, weights, np.stack(columns, 1), np.array(frequencies)))
    return Modes(*parts)


def _check_highest(highest: Any) -> None:
    if not isinstance(highest, int) or highest < 0:
        raise ArgumentError("highest", "a whole number ≥ 0", repr(highest), "Pass the highest frequency wanted.")


def _check(points: Any, highest: Any) -> None:
    _check_highest(highest)
    if not isinstance(points, int) or points <= 2 * highest:
        expected = f"more than {2 * highest} on a circle, to tell frequency {highest} from lower ones"
        raise ArgumentError("points", expected, repr(points), "Take more points, or a lower highest frequency.")
