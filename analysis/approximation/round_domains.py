"""Spheres and balls, with their uniform laws, quadratures and grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.special import roots_gegenbauer, roots_jacobi
from torch import Tensor

from ..errors import CapacityError
from .domains import MOST, Box, Domain, generator_of, tensor_of, whole


@final
@dataclass(frozen=True)
class Sphere(Domain):
    r"""The unit sphere :math:`S^{d-1}` in :math:`R^d`, d ≥ 2.

    Quadrature: equally spaced angles on the circle, and Gauss–Gegenbauer rules for the latitudes above it.

    Errors: ``ArgumentError`` for a dimension below 2.

    Example:
        The mean of x₁² is 1/d:

        >>> x, w = Sphere(5).quadrature(3)
        >>> round(float(w @ x[:, 0] ** 2), 12)
        0.2

    """

    dimension: int

    def __post_init__(self) -> None:
        whole("dimension", self.dimension, 2)

    def sample(self, count: int, seed: int = 0) -> Tensor:  # noqa: D102
        shape = whole("count", count), self.dimension
        drawn = torch.randn(shape, generator=generator_of(seed), dtype=torch.float64, device="cpu")
        return (drawn / drawn.norm(dim=1, keepdim=True)).to(torch.get_default_device())

    def quadrature(self, order: int) -> tuple[Tensor, Tensor]:  # noqa: D102
        if 2 * whole("order", order) * order ** (self.dimension - 2) > MOST:
            given, remedy = f"order {order}, dimension {self.dimension}", "Take a lower order, or domain.sample(n)."
            raise CapacityError("order", f"at most {MOST} points", given, remedy)
        x = _circle(2 * order)
        weights = np.full(len(x), 1 / len(x))
        for d in range(3, self.dimension + 1):
            heights, masses = roots_gegenbauer(order, (d - 2) / 2)
            around = np.sqrt((1 - heights) * (1 + heights))
            rows = [np.column_stack([np.full(len(x), t), r * x]) for t, r in zip(heights, around, strict=True)]
            x, weights = np.concatenate(rows), np.concatenate([m * weights for m in masses / masses.sum()])
        return tensor_of(x), tensor_of(weights)

    def grid(self, count: int) -> Tensor:  # noqa: D102
        if whole("count", count, 2) * (count + 1) ** (self.dimension - 2) > MOST:
            given, remedy = f"{count} an angle, dimension {self.dimension}", "Take fewer, or domain.sample(n)."
            raise CapacityError("count", f"at most {MOST} points", given, remedy)
        x = _circle(count)
        for _ in range(3, self.dimension + 1):
            angles = np.pi * np.arange(count + 1) / count
            x = np.concatenate([np.column_stack([np.full(len(x), np.cos(a)), np.sin(a) * x]) for a in angles])
        return tensor_of(x)

    def contains(self, points: Tensor) -> Tensor:  # noqa: D102
        slack = 1e-5 if points.dtype == torch.float32 else 1e-10
        return (points.norm(dim=1) - 1).abs() <= slack


def _check_shells(directions: int, shells: int, name: str) -> None:
    if directions * shells > MOST:
        given = f"{directions} directions and {shells} shells"
        raise CapacityError(name, f"at most {MOST} points", given, "Take fewer, or domain.sample(n).")


def _circle(count: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    return np.column_stack([np.cos(angles), np.sin(angles)])


@final
@dataclass(frozen=True)
class Ball(Domain):
    r"""The closed unit ball of :math:`R^d`; the interval [−1, 1] for d = 1.

    Example:
        The mean of ‖x‖² is d/(d + 2):

        >>> x, w = Ball(3).quadrature(2)
        >>> round(float(w @ x.square().sum(1)), 12)
        0.6

    """

    dimension: int

    def __post_init__(self) -> None:
        whole("dimension", self.dimension)

    def sample(self, count: int, seed: int = 0) -> Tensor:  # noqa: D102
        if self.dimension == 1:
            return Box.cube(1).sample(count, seed)
        draws, shape = generator_of(seed), (whole("count", count), self.dimension)
        directions = torch.randn(shape, generator=draws, dtype=torch.float64, device="cpu")
        radii = torch.rand(count, 1, generator=draws, dtype=torch.float64, device="cpu") ** (1 / self.dimension)
        return (radii * directions / directions.norm(dim=1, keepdim=True)).to(torch.get_default_device())

    def quadrature(self, order: int) -> tuple[Tensor, Tensor]:  # noqa: D102
        if self.dimension == 1:
            return Box.cube(1).quadrature(order)
        directions, around = Sphere(self.dimension).quadrature(order)
        _check_shells(len(directions), order, "order")
        radii, masses = roots_jacobi(whole("order", order), 0.0, self.dimension - 1.0)  # r^(d−1) dr on [0, 1]
        points = [r * directions for r in ((radii + 1) / 2).tolist()]
        return torch.cat(points), torch.cat([m * around for m in (masses / masses.sum()).tolist()])

    def grid(self, count: int) -> Tensor:  # noqa: D102
        if self.dimension == 1:
            return Box.cube(1).grid(count)
        directions, rings = Sphere(self.dimension).grid(count), max(2, count // 4)
        _check_shells(len(directions), rings, "count")
        shells = [directions * (j / rings) for j in range(1, rings + 1)]
        return torch.cat([torch.zeros_like(directions[:1]), *shells])

    def contains(self, points: Tensor) -> Tensor:  # noqa: D102
        slack = 1e-5 if points.dtype == torch.float32 else 1e-10
        return points.norm(dim=1) <= 1 + slack
