"""The logarithm of the determinant of a positive definite operator."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import torch

from ..errors import ArgumentError, OperandError
from ..operators.base import Operator, Shifted, as_operator
from ..operators.fisher import EmpiricalFisher, Fisher
from ..operators.gauss_newton import GGN
from .adaptive import Adaptive, Mean, quadratic
from .floor import floor
from .krylov import ROUNDINGS, Krylov
from .logarithm import Logarithm, indefinite, log_error
from .probes import FIRST, Probes, check_options
from .results import Estimate
from .structured import gram_cost, gram_spectrum

_SHARE = 0.05  # of the tolerance that a quadrature may take
_STRIDE = 4  # steps between looks at a quadrature
_ROWS = 4096  # of a Gram matrix


def logdet(
    operator: Operator,
    tol: float = 0.01,
    max_matvecs: int = 5000,
    seed: int = 0,
    block: int | None = None,
    at_least: float | None = None,
) -> Estimate:
    r"""The log-determinant of a positive definite operator, exactly where that is cheap, else with an interval.

    .. math:: \log\det A = \mathrm{tr} \log A = P \log s + E\,z^\top \log(A/s)\, z, \qquad z_i = \pm 1

    The route follows from the operator; ``method`` names it:

    - *per-example gradients*, exact to rounding: G + cI with G a GGN or Fisher matrix as in
      :func:`~lemmata.analysis.gram_spectrum` and fewer Gram rows than P: :math:`\sum_i \log(c + \mu_i) + (P - r) \log c`.
    - *Lanczos quadrature*: Hutchinson's or Hutch++ estimator as in :func:`~lemmata.analysis.trace`, on log(A/s), s the
      median eigenvalue as one pilot probe sees it. Each form :math:`z^\top \log(A/s)\, z` is held from above by a
      Gauss and from below by a Gauss–Radau rule, as many steps as make that bracket small against ``tol``.
    - *dense matrix*, exact to rounding, where P products are fewer than the probes would take.

    Args:
        operator: symmetric positive definite, P × P: a GGN or Fisher matrix with damping, ``G.shift(1e-3)``.
        tol: of the geometric mean of the eigenvalues: stop when the half-width of the 95 % interval is at most
            ``tol`` · P, so that det(A)^(1/P) is known to the relative error ``tol``. (The log-determinant has no scale
            of its own: it is near 0 for some units of A.) ``tol=1/P`` asks for one nat.
        max_matvecs: the most products; where they do not suffice, ``converged`` is False.
        seed: of the probes, drawn on the CPU one after another, whatever the global generator does.
        block: vectors advanced together, by default as many as the operator multiplies together. It changes the result by
            rounding alone.
        at_least: a positive number that no eigenvalue is below, such as the damping of a convex loss's GGN. Shifted
            Fisher matrices need none.

    Cost: at least 11 probes of some ten steps, a product each; steps grow like the root of the condition number,
    times log(1/tol). Memory: (steps + 1) × ``block`` vectors; a dense matrix only where P < ``max_matvecs``.

    Assumptions: as for :func:`~lemmata.analysis.trace`; the interval is Student's plus ``bias``, which bounds what
    quadrature and rounding contribute. Without a positive lower bound, it takes no eigenvalue for lower than the
    lowest Ritz value of the pilot less its residual.

    Errors: ``OperandError`` for an operator that is not positive definite, ``ArgumentError`` for an option outside its
    domain or an ``at_least`` that an eigenvalue is below, ``NumericsError`` for a product that is not finite.

    Source: Ubaru, Chen & Saad 2017, Fast estimation of tr(f(A)) via stochastic Lanczos quadrature; Golub & Meurant
    2009, Matrices, moments and quadrature.

    Example:
        >>> from lemmata.analysis import Dense
        >>> found = logdet(Dense(torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))))
        >>> round(float(found), 6)  # log 6
        1.791759

    """
    operator = as_operator(operator)
    check_options(tol, max_matvecs, block, seed)
    block = block or operator.block
    if max_matvecs < 2 * FIRST:
        remedy = f"Allow at least {2 * FIRST} products."
        raise ArgumentError("max_matvecs", f"an integer ≥ {2 * FIRST}", repr(max_matvecs), remedy)
    bound = floor(operator, at_least)
    exact = _by_gram(operator, seed, tol)
    if exact:
        return exact
    logarithm = _pilot(operator, bound, tol, max_matvecs // (FIRST + 1), seed)
    return _Spectral(logarithm, tol, max_matvecs, seed, block).estimate()


def _by_gram(operator: Operator, seed: int, tol: float) -> Estimate | None:
    """From the Gram matrix of the examples' gradients, where there is one that is smaller than A."""
    inner, by = (operator.operator, operator.by) if isinstance(operator, Shifted) else (operator, 0.0)
    cost, size = gram_cost(inner) if isinstance(inner, GGN | Fisher | EmpiricalFisher) else None, operator.shape[0]
    if cost is None or cost[0] > min(_ROWS, size - 1):
        return None
    try:
        values = gram_spectrum(inner).clamp(min=0).numpy()
    except OperandError:  # a loss that is not convex
        return None
    if by <= 0:
        raise indefinite(operator, by, 0.0)
    rounding = ROUNDINGS * torch.finfo(operator.dtype).eps * float(values[0])
    value = float(np.log(values + by).sum()) + (size - len(values)) * log(by)
    bias = float(log_error(values + by, rounding, by).sum())
    return Estimate(value, 0.0, 0, None, cost[1], seed, "per-example gradients", bias <= tol * size, bias)


def _pilot(operator: Operator, at_least: float, tol: float, limit: int, seed: int) -> Logarithm:
    """The logarithm with as many steps as one probe needs, and some more, in units of the median eigenvalue."""
    run, steps = Krylov(operator, Probes(operator, -1 - seed).draw(1)), 0
    logarithm = Logarithm(operator, 0, at_least)
    while True:
        steps = min(steps + _STRIDE, limit)
        run.advance(steps)
        found = logarithm.bracket(*run.coefficients(steps)[0])
        if found.high - found.low <= max(_SHARE * tol, found.rounding) or run.steps < steps or steps == limit:
            break
    middle = int(np.searchsorted(np.cumsum(found.rotation[0] ** 2), 0.5))
    logarithm = Logarithm(operator, min(run.steps + _STRIDE, limit), at_least, float(found.nodes[middle]))
    logarithm.least, logarithm.matvecs = found.least, run.steps
    return logarithm


class _Spectral(Adaptive):
    """The trace of log A by probes of log(A/s), or of the dense matrix where that takes fewer products of A."""

    operator: Logarithm

    def __init__(self, logarithm: Logarithm, tol: float, budget: int, seed: int, block: int) -> None:
        size = logarithm.shape[0]
        self.seed, self.bias, self.width = seed, 0.0, tol * size
        enough, offset = (1 - 2 * _SHARE) * self.width, size * log(logarithm.scale)
        probes = max(FIRST, (budget - logarithm.matvecs) // min(logarithm.steps, size))
        super().__init__(logarithm, quadratic, 0.0, probes, seed, block, offset, enough)

    def estimate(self) -> Estimate:
        """The logarithm of the determinant with its interval."""
        found = self._exact() if self._cost_of_exact() <= min(FIRST, self.budget) else self.run()
        if found.method != "dense matrix":
            self.bias = (self.size + len(self.basis)) * self.operator.half  # Σ ‖q‖² + ‖z‖² of the forms
        spent = self.operator.matvecs
        made = Estimate(found.value, found.stderr, found.dof, None, spent, self.seed, found.method, bias=self.bias)
        return replace(made, converged=made.interval()[1] - made.value <= self.width)

    def _cost_of_exact(self) -> float:
        return self.size / self.operator.steps

    def _exact(self) -> Mean:
        logarithm = self.operator
        logarithm.matvecs += self.size
        values = torch.linalg.eigvalsh(logarithm.operator.dense(self.block).double()).cpu().numpy()
        rounding = ROUNDINGS * torch.finfo(self.operator.dtype).eps * float(np.abs(values).max())
        values = logarithm.positive(values, rounding)
        self.bias = float(log_error(values, rounding, max(logarithm.at_least, values[0] - rounding)).sum())
        return Mean(float(np.log(values).sum()), 0.0, 0, logarithm.matvecs, "dense matrix", True)
