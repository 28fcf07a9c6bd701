"""One Lanczos sweep in the orthogonal complement of known vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from ..errors import NumericsError
from ..operators.base import Operator

Key = Callable[[np.ndarray], np.ndarray]


def leading(values: np.ndarray, keys: Sequence[Key], k: int) -> list[int]:
    """Positions of k values for each key, ranked by it, no position twice; of equal values the earlier."""
    chosen: list[int] = []
    for key in keys:
        ranked = np.argsort(-key(values), kind="stable").tolist()
        chosen += [index for index in ranked if index not in chosen][:k]
    return sorted(chosen)


class Sweep:
    r"""Builds an orthonormal q₁, q₂, … with A Q = Q T + β qᵀ, T tridiagonal, all orthogonal to ``known``.

    Every new direction is orthogonalised twice against all earlier ones (classical Gram–Schmidt). ``steps`` counts
    products; ``complete`` says that the vectors, known ones included, span the whole space.
    """

    def __init__(
        self, operator: Operator, known: list[Tensor], direction: Tensor, budget: int, scale: float = 0.0
    ) -> None:
        self.operator, self.offset, self.budget, self.earlier = operator, len(known), budget, scale
        self.size = operator.shape[0]
        room = len(known) + min(budget, 32)
        self.rows = torch.empty(room, self.size, dtype=operator.dtype, device=operator.device)
        for row, vector in enumerate(known):
            self.rows[row] = vector
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.filled = len(known)
        direction = self._orthogonal(direction)[0]
        self._store(direction / direction.norm())

    @property
    def steps(self) -> int:
        """Products taken."""
        return len(self.alpha)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to search."""
        return self.offset + self.steps == self.size

    def run(
        self, keys: Sequence[Key], k: int, tol: float, bars: list[float] | None, least: int
    ) -> tuple[np.ndarray, list[Tensor]]:
        """Iterate until, for each key, the leading k pairs have converged; return their values and vectors.

        With ``bars``, a sweep of at least ``least`` steps also stops once its leading value cannot reach the bar.
        """
        check = 1
        while True:
            exhausted = self._step() or self.steps == self.budget
            if exhausted or self.steps >= check:
                check = self.steps + 1 + self.steps // 10
                values, vectors = eigh_tridiagonal(np.array(self.alpha), np.array(self.beta[:-1]))
                residuals = self.beta[-1] * np.abs(vectors[-1])
                hopeless = bars if bars is not None and self.steps >= least else None
                if exhausted or _settled(values, residuals, keys, k, tol, self._rounding(), hopeless):
                    break
        chosen = leading(values, keys, k)
        return values[chosen], self._lift(vectors[:, chosen])

    def _step(self) -> bool:
        """One product. True if the Krylov space is exhausted."""
        last = self.offset + self.steps
        product, coefficients = self._orthogonal(self.operator @ self.rows[last])
        alpha, beta = torch.stack([coefficients[last], product.norm()]).tolist()
        if not (isfinite(alpha) and isfinite(beta)):
            remedy = "Look for overflow in the model, or take dtype=torch.float64."
            raise NumericsError(repr(self.operator), "finite products", f"inf or nan at step {self.steps + 1}", remedy)
        self.alpha.append(alpha)
        self.beta.append(beta)
        if beta <= self._rounding():
            self.beta[-1] = 0.0
            return True
        if self.steps < self.budget:
            self._store(product / beta)
        return False

    @property
    def scale(self) -> float:
        """The size of the operator's spectrum, as seen by this sweep and those before it.

        In what they left of the space the operator may be all rounding, which only their scale tells.
        """
        return max(self.earlier, max(map(abs, self.alpha)) + max(self.beta))

    def _rounding(self) -> float:
        """The size of a residual that is only rounding."""
        return 4 * torch.finfo(self.rows.dtype).eps * self.scale

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """A vector less its parts along all earlier ones, and the coefficients of those parts."""
        basis = self.rows[: self.filled]
        coefficients = basis @ vector
        vector = vector - coefficients @ basis
        return vector - (basis @ vector) @ basis, coefficients

    def _store(self, vector: Tensor) -> None:
        if self.filled == len(self.rows):
            rows = self.rows.new_empty(2 * self.filled, self.size)
            rows[: self.filled] = self.rows
            self.rows = rows
        self.rows[self.filled] = vector
        self.filled += 1

    def _lift(self, coordinates: np.ndarray) -> list[Tensor]:
        basis = self.rows[self.offset : self.offset + self.steps]
        weights = torch.from_numpy(np.ascontiguousarray(coordinates.T)).to(basis)
        return list(weights @ basis)


def _settled(
    values: np.ndarray,
    residuals: np.ndarray,
    keys: Sequence[Key],
    k: int,
    tol: float,
    rounding: float,
    bars: list[float] | None,
) -> bool:
    """Has each leading pair converged, or no hope to pass the bar of its key?"""
    if len(values) < k:
        return False
    for position, key in enumerate(keys):
        for index in leading(values, [key], k):
            converged = residuals[index] <= max(tol * abs(values[index]), rounding)
            hopeless = bars is not None and key(values)[index] + residuals[index] < bars[position]
            if not (converged or hopeless):
                return False
    return True
