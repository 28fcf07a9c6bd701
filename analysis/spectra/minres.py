"""Minimal residual iteration for several right-hand sides, advanced together."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from ..errors import NumericsError
from ..operators.base import Operator

_CHECK = 8  # steps between looks, each of which waits for an accelerator
_GROWN, _LOST = 0.01, 0.5  # of the residual, the rounding of Ax: x has grown, x is rounding
_STILL = 0.9  # of the residual at the least slope: one that has hardly fallen since
_STATE = tuple("rest goal scale beta c s bar upper v before w earlier left ends x kept least stand".split())


class Minres:
    r"""MINRES from x = 0 for each row b of a block.

    Lanczos iteration gives :math:`A V_m = V_{m+1} T`, rotations keep T triangular, and x moves by a multiple of one
    new direction w a step. Columns are told apart by masks on the device; a row is frozen at the step that ends it.

    Where b is not in the range, ‖Ar‖ falls to a minimum near the root of rounding, and then x grows until Ax is
    rounding while ‖r‖ stands still: such a row ends with the x of the least ‖Ar‖ / ‖r‖. Where ‖r‖ has fallen, A is
    merely ill-conditioned, and the row ends with its last x.

    Attributes:
        solution: x, (k, P), when a row is done or out of steps.
        ended: rows that ended in the first of these ways.
        largest: the size of the spectrum that each row has seen.
        steps, matvecs: steps taken, and products: rows that are done take none after the next look.

    Source: Paige & Saunders 1975, Solution of sparse indefinite systems of linear equations.
    """

    def __init__(self, operator: Operator, rhs: Tensor, goal: Tensor, scale: Tensor) -> None:
        self.operator, self.goal, self.scale = operator, goal, scale
        self.solution, self.largest = torch.zeros_like(rhs), scale.clone()
        self.rows = torch.arange(len(rhs), device=rhs.device)
        self.rest = self.stand = rhs.norm(dim=1)  # of the residual: now, and at the least slope
        self.beta = self.rest  # of the next Lanczos vector before it is scaled
        self.v = _scaled(rhs, self.beta)
        self.x = self.kept = self.before = self.w = self.earlier = torch.zeros_like(rhs)
        self.s = self.bar = self.upper = torch.zeros_like(self.beta)
        self.c, self.least = self.s - 1, self.s + inf
        self.ends = torch.zeros(len(rhs), dtype=torch.bool, device=rhs.device)
        self.ended, self.left = self.ends.clone(), ~self.ends
        self.steps = self.matvecs = 0

    def advance(self, steps: int) -> None:
        """Iterate until every row is done, or for so many steps."""
        while len(self.rows) and self.steps < steps:
            self._step()
            if self.steps % _CHECK == 0 or self.steps == steps:
                self._look(self.steps == steps)

    def _step(self) -> None:
        self.steps, self.matvecs = self.steps + 1, self.matvecs + len(self.rows)
        product = (self.operator @ self.v.T).T - self.beta[:, None] * self.before
        alpha = torch.linalg.vecdot(product, self.v)
        product = product - alpha[:, None] * self.v
        beta = product.norm(dim=1)
        self.scale = torch.maximum(self.scale, alpha.abs() + beta)
        above, here, upper = self.c * self.bar + self.s * alpha, self.s * self.bar - self.c * alpha, self.s * beta
        self.bar = -self.c * beta
        slope = torch.hypot(here, self.bar)  # ‖Ar‖ / ‖r‖
        lower = self.left & (slope < self.least)
        self.kept = torch.where(lower[:, None], self.x, self.kept)
        self.least, self.stand = torch.where(lower, slope, self.least), torch.where(lower, self.rest, self.stand)
        pivot = torch.hypot(here, beta)
        self.c, self.s = torch.where(pivot > 0, here / pivot, 0), torch.where(pivot > 0, beta / pivot, 1)
        w = _scaled(self.v - self.upper[:, None] * self.earlier - above[:, None] * self.w, pivot)
        x = self.x + (self.c * self.rest)[:, None] * w
        rounding = torch.finfo(beta.dtype).eps * self.scale * x.norm(dim=1)
        still = self.rest > _STILL * self.stand
        lost = (rounding > torch.where(still, _GROWN, _LOST) * self.rest) | (pivot == 0)
        self.ends = self.ends | (self.left & lost & still)
        self.left = self.left & ~lost
        self.x = torch.where(self.left[:, None], x, self.x)
        self.rest = torch.where(self.left, self.s * self.rest, self.rest)
        self.left = self.left & (self.rest > self.goal)
        self.earlier, self.w, self.upper = self.w, w, upper
        self.before, self.v, self.beta = self.v, _scaled(product, beta), beta

    def _look(self, last: bool) -> None:
        """Put away what is done."""
        if not bool(self.scale.isfinite().all()):
            remedy = "Look for overflow in the model, or take dtype=torch.float64."
            given = f"inf or nan within {self.steps} steps"
            raise NumericsError(repr(self.operator), "finite products", given, remedy)
        done = torch.ones_like(self.left) if last else ~self.left
        rows = self.rows[done]
        self.ended[rows], self.largest[rows] = self.ends[done], self.scale[done]
        self.solution[rows] = torch.where(self.ends[:, None], self.kept, self.x)[done]
        self.rows = self.rows[~done]
        if bool(done.any()):
            for name in _STATE:
                setattr(self, name, getattr(self, name)[~done])


def _scaled(rows: Tensor, by: Tensor) -> Tensor:
    """Each row divided by its number; zero where that is zero."""
    return torch.where(by > 0, 1 / torch.where(by > 0, by, 1), 0)[:, None] * rows
