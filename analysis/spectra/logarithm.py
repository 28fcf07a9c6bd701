"""The logarithm of a positive definite operator, by Lanczos iteration, with brackets on its quadratic forms."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from ..errors import ArgumentError, OperandError
from ..operators.base import Derived, Operator, Plan
from .krylov import ROUNDINGS, Krylov
from .quadrature import radau


@dataclass(frozen=True)
class Bracket:
    """Eigenvalues and eigenvectors of a Jacobi matrix, the ends between which the form of log A lies, and rounding.

    ``least`` is what no eigenvalue is taken to be below.
    """

    nodes: np.ndarray
    rotation: np.ndarray
    low: float
    high: float
    rounding: float
    least: float

    @property
    def half(self) -> float:
        """Half the width, rounding included."""
        return (self.high - self.low) / 2 + self.rounding


class Logarithm(Derived):
    r"""log(A/s), applied by ``steps`` of Lanczos iteration from each vector v with its Jacobi matrix T,

    .. math:: \log(A)\,v \approx \|v\|\, Q \log(T)\, e_1, \qquad
        \int\!\log d\mu_R \;\le\; \frac{v^\top \log(A)\, v}{v^\top v} \;\le\; e_1^\top \log(T)\, e_1.

    All derivatives of the logarithm have a constant sign, so the Gauss rule of T lies above, and the Gauss–Radau rule
    with a node at the lower bound on the spectrum below. A product is shifted along v, so that its form vᵀ log(A/s) v
    is the middle of the bracket.

    Attributes:
        least: what no eigenvalue is taken to be below: ``at_least`` where that is positive, else a guess.
        half: half the width of the widest bracket so far, of unit vectors, with what rounding adds.
        matvecs: products of A.

    """

    def __init__(self, operator: Operator, steps: int, at_least: float, scale: float = 1.0) -> None:
        self.operator, self.steps, self.at_least, self.scale = operator, steps, at_least, scale
        self.layout, self.dtype, self.device = operator.layout, operator.dtype, operator.device
        self.least, self.half, self.matvecs = at_least, 0.0, 0

    def _multiply(self, vectors: Tensor) -> Tensor:
        run = Krylov(self.operator, vectors)
        run.advance(self.steps)
        self.matvecs += len(run) * run.steps
        products = torch.empty_like(vectors)
        lengths = vectors.norm(dim=1)
        for place, coefficients in enumerate(run.coefficients(self.steps)):
            found = self.bracket(*coefficients)
            self.half = max(self.half, found.half)
            values = found.rotation @ (np.log(found.nodes / self.scale) * found.rotation[0])
            if found.low > -inf:
                values[0] -= (found.high - found.low) / 2  # the coordinate along v
            coordinates = torch.from_numpy(values).to(vectors)
            products[place] = lengths[place] * (coordinates @ run.basis[place, : len(values)])
        return products

    def bracket(self, alpha: np.ndarray, beta: np.ndarray) -> Bracket:
        """The form of log A at a unit vector, from its Jacobi matrix."""
        nodes, rotation = eigh_tridiagonal(alpha, beta[:-1])
        rounding = ROUNDINGS * torch.finfo(self.dtype).eps * float(np.abs(nodes).max() + beta.max())
        nodes = self.positive(nodes, rounding)
        weights = rotation[0] ** 2
        high = low = float(weights @ np.log(nodes))
        least = self.least
        if least <= 0 or nodes[0] < least:
            least = float(nodes[0] - beta[-1] * abs(rotation[-1, 0])) - rounding
        if least <= 0:
            return Bracket(nodes, rotation, -inf, high, 0.0, least)
        if beta[-1]:
            lower, shares = radau(alpha, beta, least - 2 * rounding)  # apart from every node of T
            low = min(high, float(shares @ np.log(np.maximum(lower, least))))
        return Bracket(nodes, rotation, low, high, float(weights @ log_error(nodes, rounding, least)), least)

    def positive(self, values: np.ndarray, rounding: float) -> np.ndarray:
        """Ascending eigenvalues or bounds on them from above, not below what is known; refuses what is not positive."""
        lowest = float(values[0])
        if lowest < self.at_least - rounding:
            remedy = "Pass a number that no eigenvalue is below, such as the damping, or leave it out."
            raise ArgumentError(
                "at_least", f"at most {lowest:.3g}, an eigenvalue's bound", f"{self.at_least:.3g}", remedy
            )
        if self.at_least <= 0 and lowest <= rounding:
            raise indefinite(self.operator, lowest, rounding)
        return np.maximum(values, self.at_least)

    def plan(self, k: int = 1) -> Plan:
        """The plan of ``steps`` products of A for each."""
        return self.operator.plan(k * self.steps)


def log_error(values: np.ndarray, rounding: float, least: float) -> np.ndarray:
    """How far the logarithms of values can be off that are rounded by so much, and truly not below ``least`` > 0."""
    return np.log(np.maximum(1 + rounding / values, values / np.maximum(values - rounding, least)))


def indefinite(operator: Operator, lowest: float, rounding: float) -> OperandError:
    """The error for an operator with an eigenvalue of at most ``lowest``."""
    remedy = (
        f"Add damping, operator.shift(c) with c > {max(-lowest, 0.0) + rounding:.2g}; of a Hessian take the GGN or "
        "Fisher matrix, damped, or see la.eigenpairs(operator, which='smallest')."
    )
    given = f"an eigenvalue of at most {lowest:.3g}, where rounding is {rounding:.1g}"
    return OperandError(repr(operator), "a positive definite operator", given, remedy)
