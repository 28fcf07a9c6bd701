"""The largest increase of a loss in a ball around the parameters, from below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from ..errors import NumericsError
from ..operators.objective import Objective
from .gradients import loss_and_gradient

_LEAST_STEP, _LEAST_GAIN = 1e-4, 1e-8  # relative to the radius and to the increase: where an ascent ends


@dataclass(frozen=True)
class Increase:
    """The increase at the first-order point and at the best point found, their rounding, and the gradients spent."""

    one_step: float
    refined: float
    rounding: float
    gradients: int


class Ball:
    r"""The loss on :math:`\theta + s \odot \delta, \|\delta\|_2 \le \rho`, by its increase from the centre.

    Args:
        objective: the loss over all data.
        centre: θ, (P,).
        scale: s, (P,), not negative: ones for a ball, |θ| for the ellipsoid of adaptive sharpness.
        radius: ρ.

    """

    def __init__(self, objective: Objective, centre: Tensor, scale: Tensor, radius: float) -> None:
        self.objective, self.centre, self.scale, self.radius = objective, centre, scale, radius
        self.gradients = 0
        self.base, gradient = loss_and_gradient(objective, centre)
        self.slope = scale * gradient

    def largest(self, starts: Sequence[Tensor], steps: int) -> Increase:
        r"""Ascent from the first-order point :math:`\rho\, s \odot g / \|s \odot g\|` and from further directions.

        A step goes along the gradient and back into the ball; it is taken if the loss grows, and its length adapts.
        """
        norm, one_step, best = float(self.slope.norm()), 0.0, 0.0
        if norm > 0:
            first = self.radius * self.slope / norm
            one_step, gradient = self._at(first)
            best = max(best, one_step, self._ascend(first, one_step, gradient, steps))
        for start in starts:
            for sign in (1.0, -1.0):
                point = sign * self.radius * start / start.norm()
                increase, gradient = self._at(point)
                best = max(best, self._ascend(point, increase, gradient, steps))
        # A mean of n numbers by pairwise sums: a few roundings of the loss itself.
        rounding = 8 * torch.finfo(self.centre.dtype).eps * (2 * abs(self.base) + best)
        return Increase(one_step, best, rounding, self.gradients)

    def _at(self, point: Tensor) -> tuple[float, Tensor]:
        """The increase at a point, and its gradient in δ."""
        value, gradient = loss_and_gradient(self.objective, self.centre + self.scale * point)
        self.gradients += 1
        if not isfinite(value) or not bool(gradient.isfinite().all()):
            remedy = "Pass a smaller rho or adaptive_rho, or dtype=torch.float64."
            raise NumericsError(f"loss within a radius of {self.radius}", "finite losses", str(value), remedy)
        return value - self.base, self.scale * gradient

    def _ascend(self, point: Tensor, increase: float, gradient: Tensor, steps: int) -> float:
        """Projected ascent with steps that double when they succeed and shrink when they do not."""
        step, gain = 1.0, inf
        for _ in range(steps):
            norm = float(gradient.norm())
            if norm == 0 or step < _LEAST_STEP or gain <= _LEAST_GAIN * abs(increase):
                break
            trial = point + step * self.radius * gradient / norm
            length = float(trial.norm())
            if length > self.radius:
                trial = trial * (self.radius / length)
            found, slope = self._at(trial)
            if found > increase:
                gain, step = found - increase, 2 * step
                point, increase, gradient = trial, found, slope
            else:
                step /= 4
        return increase
