"""Lanczos runs from several starting vectors, advanced together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import NumericsError
from ..operators.base import Operator

#: How many rounding errors of ‖A‖ a residual may be to count as one: products and orthogonalisation make several.
ROUNDINGS = 30
_CHECK = 8  # steps between looks at the coefficients, each of which waits for an accelerator


class Krylov:
    r"""An orthonormal basis :math:`A Q_i = Q_i T_i + \beta_i\, q_i e^\top`, T tridiagonal, for each starting vector.

    Each step takes one block product for all runs. A new direction is cleared of its two neighbours and then of all
    earlier ones; a run whose residual is only rounding has exhausted its Krylov space and stands still. Coefficients
    stay on the device between looks. The runs can be advanced further at any time.
    """

    def __init__(self, operator: Operator, starts: Tensor) -> None:
        self.operator = operator
        self.basis = (starts / starts.norm(dim=1, keepdim=True))[:, None]
        self.alpha: list[Tensor] = []
        self.beta: list[Tensor] = []
        self.scale = starts.new_zeros(len(starts))
        self.exhausted = False

    def __len__(self) -> int:
        return len(self.basis)

    @property
    def steps(self) -> int:
        """Steps taken, each of them a product for every run."""
        return len(self.alpha)

    def advance(self, steps: int) -> None:
        """Go on to this number of steps in all, or until every run is exhausted."""
        steps = min(steps, self.operator.shape[0])
        if self.steps < steps and not self.exhausted:
            self._reserve(steps + 1)
        while self.steps < steps and not self.exhausted:
            self._step()
            if self.steps % _CHECK == 0 or self.steps == steps:
                self._look()

    def keep(self, places: list[int]) -> None:
        """Drop all runs but these."""
        index = torch.tensor(places, device=self.basis.device)
        self.basis, self.scale = self.basis[index], self.scale[index]
        self.alpha, self.beta = [a[index] for a in self.alpha], [b[index] for b in self.beta]

    def coefficients(self, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Diagonal and off-diagonal of each run's T after at most this number of steps.

        The last entry of the off-diagonal couples T to what the run has not seen; it is 0 if the run is exhausted.
        """
        alpha, beta = (torch.stack(part[:steps], 1).double().cpu().numpy() for part in (self.alpha, self.beta))
        ends = [np.flatnonzero(row == 0) for row in beta]
        counts = [int(end[0]) + 1 if len(end) else beta.shape[1] for end in ends]
        return [(a[:count], b[:count]) for a, b, count in zip(alpha, beta, counts, strict=True)]

    def _step(self) -> None:
        now = self.steps
        current = self.basis[:, now]
        product = (self.operator @ current.T).T
        alpha = torch.linalg.vecdot(product, current)
        product = product - alpha[:, None] * current
        if now:
            product -= self.beta[-1][:, None] * self.basis[:, now - 1]
        for row, basis in zip(product, self.basis[:, : now + 1], strict=True):
            row -= (basis @ row) @ basis  # on one device core 4 × as fast as a batched product
        beta = product.norm(dim=1)
        self.scale = torch.maximum(self.scale, alpha.abs() + beta)
        rounding = ROUNDINGS * torch.finfo(beta.dtype).eps * self.scale
        dead = (beta <= rounding) | (now + 1 == self.operator.shape[0])
        beta = torch.where(dead, 0, beta)
        self.basis[:, now + 1] = torch.where(dead, 0, 1 / torch.where(dead, 1, beta))[:, None] * product
        self.alpha.append(alpha)
        self.beta.append(beta)

    def _look(self) -> None:
        recent = torch.stack(self.alpha[-_CHECK:] + self.beta[-_CHECK:])
        finite, exhausted = torch.stack([recent.isfinite().all(), (self.beta[-1] == 0).all()]).tolist()
        if not finite:
            remedy = "Look for overflow in the model, or take dtype=torch.float64."
            given = f"inf or nan within {self.steps} steps"
            raise NumericsError(repr(self.operator), "finite products", given, remedy)
        self.exhausted = exhausted

    def _reserve(self, room: int) -> None:
        runs, held, size = self.basis.shape
        if held < room:
            basis = self.basis.new_empty(runs, room, size)
            basis[:, :held] = self.basis
            self.basis = basis
