"""Fourier transforms of targets: finitely many frequencies, or a normal law of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import exp, isfinite, lgamma, sqrt
from typing import final

import torch
from torch import Tensor

from ..errors import ArgumentError, DataError


class Spectrum(ABC):
    r"""A signed measure :math:`\hat f` with :math:`f(x) = \int \cos(\omega \cdot x)\, \hat f(d\omega)` (abstract).

    Attributes:
        mass: :math:`\int |\hat f|`.
        barron: :math:`C_f = \int \|\omega\| |\hat f|`.

    """

    @property
    @abstractmethod
    def mass(self) -> float:
        """The total variation of the measure."""

    @property
    @abstractmethod
    def barron(self) -> float:
        """The Barron norm."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        r"""Frequencies (n, d) from :math:`|\hat f| / \int |\hat f|` and the signs (n,) there, drawn on the CPU."""


@final
@dataclass(frozen=True, eq=False)
class Lines(Spectrum):
    r""":math:`f(x) = \sum_k a_k \cos(\omega_k \cdot x)`.

    Args: ``frequencies`` ω (K, d), ``amplitudes`` a (K,).

    Errors: ``DataError`` for shapes that do not fit, numbers that are not real and finite, or amplitudes all zero.

    Example:
        >>> Lines(torch.tensor([[3.0, 4.0]]), torch.tensor([-2.0])).barron
        10.0

    """

    frequencies: Tensor
    amplitudes: Tensor

    def __post_init__(self) -> None:
        omega, a = self.frequencies, self.amplitudes
        for name, value in (("frequencies", omega), ("amplitudes", a)):
            if not isinstance(value, Tensor):
                raise DataError(name, "a tensor", type(value).__name__, f"Pass torch.tensor({name}).")
        good = omega.ndim == 2 and omega.shape[:1] == a.shape and len(a)
        good = good and omega.is_floating_point() and a.is_floating_point()
        if not good or not bool(omega.isfinite().all() & a.isfinite().all() & (a != 0).any()):
            given = f"{omega.dtype} {tuple(omega.shape)} and {a.dtype} {tuple(a.shape)}"
            given += " with nan or inf, or all amplitudes 0" if good else ""
            remedy = "Pass one row of frequencies for each amplitude, real numbers; a constant has frequency 0."
            raise DataError("frequencies, amplitudes", "finite (K, d) and (K,), not all 0", given, remedy)

    @property
    def mass(self) -> float:  # noqa: D102
        return float(self.amplitudes.abs().sum())

    @property
    def barron(self) -> float:  # noqa: D102
        a = self.amplitudes.double()
        return float(a.abs() @ self.frequencies.to(a).norm(dim=1))

    def __call__(self, x: Tensor) -> Tensor:
        """The function, (n, d) → (n,)."""
        return torch.cos(x @ self.frequencies.to(x).T) @ self.amplitudes.to(x)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # noqa: D102
        weights = self.amplitudes.abs().double().cpu()
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        return self.frequencies.double().cpu()[chosen], self.amplitudes.double().cpu()[chosen].sign()


@final
@dataclass(frozen=True)
class Bell(Spectrum):
    r"""A normal law of d independent frequencies with standard deviation σ: :math:`f(x) = e^{-\sigma^2 \|x\|^2 / 2}`.

    Example:
        The mean length of a normal vector in three dimensions is √(8/π):

        >>> round(Bell(3, 2.0).barron / 2, 6)
        1.595769

    """

    dimension: int
    deviation: float

    def __post_init__(self) -> None:
        if not isinstance(self.dimension, int) or self.dimension < 1:
            raise ArgumentError("dimension", "a whole number ≥ 1", repr(self.dimension), "Pass that of the points.")
        if not isfinite(self.deviation) or self.deviation <= 0:
            raise ArgumentError("deviation", "a finite positive number", repr(self.deviation), "Pass deviation=1.0.")

    @property
    def mass(self) -> float:  # noqa: D102
        return 1.0

    @property
    def barron(self) -> float:  # noqa: D102
        return self.deviation * sqrt(2) * exp(lgamma((self.dimension + 1) / 2) - lgamma(self.dimension / 2))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # noqa: D102
        shape = count, self.dimension
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        return self.deviation * drawn, torch.ones(count, dtype=torch.float64, device="cpu")
