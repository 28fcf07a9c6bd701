"""Linear systems with a symmetric operator."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from ..errors import ArgumentError, OperandError
from ..operators.base import Operator, as_operator
from .floor import floor
from .minres import Minres
from .solution import Solution

_SAFETY = 0.9  # of the tolerance by recurrence, so that the measured residual meets it


def solve(
    operator: Operator,
    rhs: Tensor,
    tol: float = 1e-6,
    max_steps: int = 1000,
    at_least: float | None = None,
) -> Solution:
    r"""The solution of Ax = b for a symmetric operator, definite or not, with its measured residual.

    .. math:: x_m = \operatorname{argmin}_{x \in \mathcal K_m} \|b - Ax\|, \quad
        \mathcal K_m = \mathrm{span}\{b, Ab, \dots, A^{m-1} b\}, \qquad
        \|x - A^{-1} b\| \le \frac{\|b - Ax\|}{\lambda_{\min}(A)}

    MINRES, the one Krylov method that is right for every symmetric matrix. On a definite one it takes no more steps than
    conjugate gradients to the same residual, and its residual and error fall at each. Where the residual that is then
    measured has drifted from the one that the recurrence promised, it starts again from there.

    Args:
        operator: symmetric, P × P.
        rhs: b, (P,) or (P, k), in the operator's dtype and on its device. The columns advance together, one block
            product a step, and a column that is done leaves.
        tol: relative; a column has converged when ‖b − Ax‖ ≤ ``tol`` · ‖b‖.
        max_steps: the most steps. Where they do not suffice, ``converged`` is False.
        at_least: a positive number that no eigenvalue is below, such as the damping of a convex loss's GGN; it bounds the
            error. Shifted Fisher matrices need none.

    Shapes: x like b, ``residuals`` and ``errors`` () or (k,).

    Cost: a product a step for each column that is left, and one to measure the residual; steps grow like the root of
    the condition number of a definite operator, like that number of an indefinite one, times log(1/tol). Memory: eight
    tensors like b. The host waits for an accelerator once in eight steps. There is no preconditioner.

    Singular operators: where b is in the range, x is the solution of least norm. Where it is not, x is the least-squares
    solution of least norm, to about the root of rounding; its residual is the part of b outside of the range, and
    ``converged`` is False. For such b an eigenvalue below some ten times that root, relative to ‖A‖, may count as zero.

    Errors: ``OperandError`` for a right-hand side that does not fit or is not finite, ``ArgumentError`` for an option
    outside its domain, ``NumericsError`` for a product that is not finite.

    Source: Paige & Saunders 1975, Solution of sparse indefinite systems of linear equations; Fong & Saunders 2012, CG
    versus MINRES; Liu, Milzarek & Roosta 2023, Obtaining pseudo-inverse solutions with MINRES.

    Example:
        >>> from lemmata.analysis import Dense
        >>> found = solve(Dense(torch.diag(torch.tensor([2.0, -4.0]))), torch.tensor([2.0, 4.0]))
        >>> [round(number, 5) for number in found.x.tolist()]
        [1.0, -1.0]

    """
    operator = as_operator(operator)
    _check(operator, rhs, tol, max_steps)
    bound = floor(operator, at_least)
    b = rhs.detach().reshape(len(rhs), -1).T.contiguous()
    state = _Refined(operator, b, tol)
    state.iterate(max_steps)
    left = state.norms > state.goal
    state.lift(left)
    shape = rhs.shape[1:]
    sizes, norms = (n.double().cpu().reshape(shape) for n in (b.norm(dim=1), state.norms))
    return Solution(state.x.T.reshape(rhs.shape), norms, sizes, bound, state.matvecs, not bool(left.any()))


class _Refined:
    """x for each row b, its measured residual, and what is left to do."""

    def __init__(self, operator: Operator, b: Tensor, tol: float) -> None:
        self.operator, self.b = operator, b
        self.x, self.residual, self.norms = torch.zeros_like(b), b.clone(), b.norm(dim=1)
        self.goal, self.scale = tol * self.norms, torch.zeros_like(self.norms)
        self.ended = torch.zeros_like(self.norms, dtype=torch.bool)
        self.matvecs = 0

    def iterate(self, budget: int) -> None:
        """MINRES from the measured residual, again while that halves it."""
        going = (self.norms > self.goal).nonzero()[:, 0]
        while budget > 0 and len(going):
            run = Minres(self.operator, self.residual[going], _SAFETY * self.goal[going], self.scale[going])
            run.advance(budget)
            moved = self.x[going] + run.solution
            rest = self.b[going] - self._multiply(moved)
            budget, self.matvecs = budget - run.steps, self.matvecs + run.matvecs
            old, new = self.norms[going], rest.norm(dim=1)
            better = going[new < old]
            self.x[better], self.residual[better] = moved[new < old], rest[new < old]
            self.norms[going], self.scale[going] = torch.minimum(old, new), run.largest
            self.ended[going] |= run.ended
            going = going[(new > self.goal[going]) & (new < old / 2)]

    def lift(self, left: Tensor) -> None:
        """Take from x what it holds of the null space, where the residual lies in that."""
        places = (left & self.ended).nonzero()[:, 0]
        if not len(places):
            return
        x, rest = self.x[places], self.residual[places]
        image = self._multiply(rest)
        small = torch.finfo(x.dtype).eps ** 0.5 * self.scale[places] * self.norms[places]
        along = torch.linalg.vecdot(x, rest) / torch.linalg.vecdot(rest, rest)
        along = torch.where(image.norm(dim=1) <= small, along, 0)[:, None]
        self.x[places] = x - along * rest
        self.norms[places] = (rest + along * image).norm(dim=1)

    def _multiply(self, rows: Tensor) -> Tensor:
        self.matvecs += len(rows)
        return (self.operator @ rows.T).T


def _check(operator: Operator, rhs: Tensor, tol: float, max_steps: int) -> None:
    operator._check(rhs)
    if not bool(rhs.isfinite().all()):
        raise OperandError("rhs", "finite entries", "inf or nan", "Look for an overflow where b is made.")
    if not isinstance(tol, Real) or not 0 < tol < 1:
        remedy = "Pass a relative tolerance such as tol=1e-6."
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), remedy)
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ArgumentError("max_steps", "an integer ≥ 1", repr(max_steps), "Pass max_steps=1000, for example.")
