"""Where a target lives: a box or a finite set, with its uniform law, a quadrature and a grid; what all domains share."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, CapacityError, DataError

#: Points of a product rule.
MOST = 10**7
_PAIRS = 2**24  # of points whose distance is taken at a time


class Domain(ABC):
    """A compact set with its uniform law, of total mass 1 (abstract). Points are rows, float64, on torch's default device."""

    dimension: int

    @abstractmethod
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Independent uniform points, (count, d), drawn on the CPU: a seed means the same points on every device."""

    @abstractmethod
    def quadrature(self, order: int) -> tuple[Tensor, Tensor]:
        """Points (n, d) and weights (n,) of a rule for the uniform average, exact for polynomials of degree below 2·order."""

    @abstractmethod
    def grid(self, count: int) -> Tensor:
        """Regular points, (n, d), with ``count`` an axis or angle; the boundary is among them."""

    @abstractmethod
    def contains(self, points: Tensor) -> Tensor:
        """Which rows lie in the domain, to rounding, (n,) bool."""

    def checked(self, points: Any) -> Tensor:
        """The points, if they are finite rows of the domain.

        Errors: ``DataError`` for another shape or dtype, numbers that are not finite, or points outside.
        """
        remedy = f"Pass points of {self!r}, such as domain.sample(100)."
        if not isinstance(points, Tensor) or not points.is_floating_point():
            given = f"{points.dtype}" if isinstance(points, Tensor) else type(points).__name__
            raise DataError("points", "a tensor of real numbers", given, remedy)
        shape = self._shape()
        if points.shape[1:] != shape or points.ndim != len(shape) + 1:
            raise DataError("points", f"shape (n, {', '.join(map(str, shape))})", str(tuple(points.shape)), remedy)
        bad = (~(points.isfinite().flatten(1).all(1) & self.contains(points))).nonzero()
        if len(bad):
            row = int(bad[0])
            raise DataError("points", f"points of {self!r}", f"row {row}: {points[row].tolist()}", remedy)
        return points

    def _shape(self) -> tuple[int, ...]:
        return (self.dimension,)


def tensor_of(values: Any) -> Tensor:
    """Numbers in float64 on torch's default device."""
    return torch.as_tensor(np.asarray(values, dtype=float), dtype=torch.float64).to(torch.get_default_device())


def whole(name: str, value: Any, least: int = 1, most: int = 10**8) -> int:
    """The value, if it is an integer in a range; else an ``ArgumentError``."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        expected = f"an integer from {least} to {most}"
        raise ArgumentError(name, expected, repr(value), f"Pass {name}={least} or more, {most} at most.")
    return value


def _product(axes: Sequence[np.ndarray]) -> np.ndarray:
    """All combinations of the entries of some axes, the last one running fastest, (n, axes)."""
    size = prod(map(len, axes))
    if size > MOST:
        raise CapacityError("count", f"at most {MOST} points", str(size), "Take fewer an axis, or domain.sample(n).")
    return np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")], 1)


def generator_of(seed: int) -> torch.Generator:
    """A generator on the CPU: a seed means the same draws on every device."""
    return torch.Generator("cpu").manual_seed(seed)


@final
@dataclass(frozen=True)
class Box(Domain):
    r"""A product of intervals :math:`\prod_i [a_i, b_i]`.

    Args: ``low``, ``high`` – the corners a and b; ``Box.cube(d)`` is [−1, 1]^d.

    Errors: ``ArgumentError`` for corners that do not match, are not finite or leave no interior.

    Example:
        The mean of x² on [−1, 1] is 1/3:

        >>> x, w = Box.cube(1).quadrature(2)
        >>> round(float(w @ x[:, 0] ** 2), 12)
        0.333333333333

    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        good = len(self.low) == len(self.high) > 0
        good = good and all(isfinite(a) and isfinite(b) and a < b for a, b in zip(self.low, self.high, strict=True))
        if not good:
            remedy = "Pass as many lower as upper ends, finite and in order, such as Box((0.0,), (1.0,))."
            raise ArgumentError("low, high", "corners of a box", f"{self.low}, {self.high}", remedy)

    @classmethod
    def cube(cls, dimension: int, low: float = -1.0, high: float = 1.0) -> Box:
        """The cube [low, high]^d.

        >>> Box.cube(2, 0.0)
        Box(low=(0.0, 0.0), high=(1.0, 1.0))
        """
        return cls((low,) * whole("dimension", dimension), (high,) * dimension)

    @property
    def dimension(self) -> int:  # type: ignore[override]  # noqa: D102
        return len(self.low)

    def sample(self, count: int, seed: int = 0) -> Tensor:  # noqa: D102
        shape = whole("count", count), self.dimension
        low, high = tensor_of(self.low), tensor_of(self.high)
        drawn = torch.rand(shape, generator=generator_of(seed), dtype=torch.float64, device="cpu")
        return low + (high - low) * drawn.to(low.device)

    def quadrature(self, order: int) -> tuple[Tensor, Tensor]:  # noqa: D102
        x, w = np.polynomial.legendre.leggauss(whole("order", order))
        axes = [(a + b) / 2 + (b - a) / 2 * x for a, b in zip(self.low, self.high, strict=True)]
        return tensor_of(_product(axes)), tensor_of(_product([w / 2] * self.dimension).prod(1))

    def grid(self, count: int) -> Tensor:  # noqa: D102
        steps = np.arange(whole("count", count, 2)) / (count - 1)  # dyadic where count − 1 is a power of two
        return tensor_of(_product([a + (b - a) * steps for a, b in zip(self.low, self.high, strict=True)]))

    def contains(self, points: Tensor) -> Tensor:  # noqa: D102
        low, high = (tensor_of(end).to(points) for end in (self.low, self.high))
        slack = 1e-6 * (high - low) if points.dtype == torch.float32 else 1e-12 * (high - low)
        return ((points >= low - slack) & (points <= high + slack)).all(1)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Finite(Domain):
    """Finitely many points, each of the same mass; rows may be points of R^d, sets or sequences.

    Args: ``points`` – (n, …), finite numbers.

    Errors: ``DataError`` for points that are none or not finite.

    Example:
        >>> Finite.hypercube(3).points.shape
        torch.Size([8, 3])

    """

    points: Tensor

    def __post_init__(self) -> None:
        points = self.points
        good = isinstance(points, Tensor) and points.ndim > 1 and len(points) and points.is_floating_point()
        if not good or not bool(points.isfinite().all()):
            given = str(tuple(points.shape)) if isinstance(points, Tensor) else type(points).__name__
            if good:
                given += " with nan or inf"
            raise DataError("points", "finite numbers, one point a row", given, "Pass a float tensor (n, d).")

    @classmethod
    def hypercube(cls, dimension: int) -> Finite:
        """The corners of [0, 1]^d, in the order of binary counting."""
        if whole("dimension", dimension) > 20:
            raise CapacityError("dimension", "at most 20", str(dimension), "Take a smaller cube.")
        return cls(tensor_of(list(itertools.product((0.0, 1.0), repeat=dimension))))

    @property
    def dimension(self) -> int:  # type: ignore[override]  # noqa: D102
        return int(prod(self.points.shape[1:]))

    def sample(self, count: int, seed: int = 0) -> Tensor:  # noqa: D102
        shape = (whole("count", count),)
        chosen = torch.randint(len(self.points), shape, generator=generator_of(seed), device="cpu")
        return self.points[chosen.to(self.points.device)]

    def quadrature(self, order: int) -> tuple[Tensor, Tensor]:
        """All points with equal weights: exact for every function, whatever the order."""
        return self.points, self.points.new_full((len(self.points),), 1 / len(self.points))

    def grid(self, count: int) -> Tensor:
        """All points, whatever the count."""
        return self.points

    def contains(self, points: Tensor) -> Tensor:  # noqa: D102
        own, given = self.points.to(points).flatten(1) + 0.0, points.flatten(1) + 0.0  # −0 is 0
        _, name = torch.cat([own, given]).unique(dim=0, return_inverse=True)
        inside = torch.isin(name[len(own) :], name[: len(own)])
        size = own.abs().amax() if len(own) else 0.0
        slack = (1e-5 if points.dtype == torch.float32 else 1e-12) * size
        for rows in (~inside).nonzero()[:, 0].split(max(1, _PAIRS // len(own))):
            inside[rows] = distances(given[rows], own).amin(1) <= slack
        return inside

    def _shape(self) -> tuple[int, ...]:
        return tuple(self.points.shape[1:])

    def __repr__(self) -> str:
        return f"Finite({len(self.points)} points of shape {self._shape()})"


def distances(points: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances of all pairs of rows, without cancellation, (n, k)."""
    return torch.cdist(points.flatten(1), others.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


def domain_of(domain: Any) -> Domain:
    """The domain, or an ``ArgumentError`` that names those there are."""
    if not isinstance(domain, Domain):
        remedy = "Pass Box(low, high), Ball(d), Sphere(d) or Finite(points)."
        raise ArgumentError("domain", "a box, ball, sphere or finite set", repr(domain), remedy)
    return domain
