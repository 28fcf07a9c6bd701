"""The trace of an operator."""

from __future__ import annotations

from ..operators.base import Operator, as_operator
from ..operators.hessian import Hessian
from .adaptive import Adaptive, quadratic
from .probes import FIRST, Probes, check_options
from .results import Estimate
from .structured import PerExample, diagonal_is_gauss_newton, exactly, gauss_newton_of

_PILOTS = 3  # probes that compare the norms of H and H − GGN
_PAYS = 4.0  # the ratio of their squares from which the second is the cheaper to probe


def trace(operator: Operator, tol: float = 0.01, max_matvecs: int = 2000, seed: int = 0, block: int = 16) -> Estimate:
    r"""The trace of a symmetric operator, exactly where its structure allows, else with an interval.

    .. math:: \mathrm{tr}(A) = \mathrm{tr}(Q^\top A Q) + E\,z^\top (I - QQ^\top) A (I - QQ^\top) z, \qquad z_i = \pm 1

    The route follows from the operator; ``method`` names it:

    - *per-example gradients*, exact: a GGN or Fisher matrix of linear and 2-d convolutional layers that use each
      parameter once, :math:`\mathrm{tr}(G) = \sum_n \|J_n^\top B_n\|_F^2` with B Bᵀ the loss Hessian; and the Hessian
      where the model is proved piecewise affine in each single parameter (ReLU), for then the two diagonals agree.
    - *control variate*: any other Hessian of such layers, where ‖H − G‖_F < ‖H‖_F / 2, judged from three probes:
      tr(G) exactly, and probes for H − G.
    - *Hutchinson*: random signs; *Hutch++*: the same on what a basis Q of images of earlier probes leaves, where that
      spares products; *unit vectors*, exact, where the probes that are still missing are more than P.

    Args:
        operator: symmetric, P × P.
        tol: relative; stop when the half-width of the 95 % interval is at most ``tol`` times the absolute trace.
        max_matvecs: the most products; where they do not suffice, ``converged`` is False.
        seed: of the probes, drawn on the CPU one after another, whatever the global generator does.
        block: vectors held and multiplied at a time. It changes the result by rounding alone.

    Cost: per-example gradients take a backward pass for each entry of one example's output. Else at least 10 products;
    n probes have a variance of 2(‖A‖_F² − Σ A_ii²)/n. Memory: ``block`` or 16 vectors, and up to 100 in the basis.

    Assumptions: the interval takes the mean of the probes for normal. Its standard error is widened by (0.7 + 8/r)/n,
    r the number of eigenvalues that rule, to make up for stopping early and for skewed samples: coverage is 93 – 98 %.
    That examples do not see each other is checked on a random half of them.

    Errors: ``ArgumentError`` for an option outside its domain, ``NumericsError`` for a product that is not finite.

    Source: Meyer, Musco, Musco & Woodruff 2021, Hutch++: optimal stochastic trace estimation; Persson, Cortinovis &
    Kressner 2022, Improved variants of the Hutch++ algorithm for trace estimation.

    Example:
        >>> import torch
        >>> from lemmata.analysis import Dense
        >>> trace(Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0]))))  # random signs are exact on a diagonal
        6 ± 0 (95 %, 10 products)

    """
    operator = as_operator(operator)
    check_options(tol, max_matvecs, block)
    exact = exactly(operator, PerExample.trace)
    if exact and (not isinstance(operator, Hessian) or diagonal_is_gauss_newton(operator)):
        return Estimate(exact[0], 0.0, 0, None, exact[1], seed, "per-example gradients")
    estimate = Adaptive(operator, quadratic, tol, max_matvecs, seed, block)
    spent, each, method = 0, 1, ""
    if exact and isinstance(operator, Hessian) and max_matvecs >= exact[1] + 2 * (_PILOTS + FIRST):
        spent, rest = exact[1] + 2 * _PILOTS, operator - gauss_newton_of(operator)
        if _small(rest, operator, seed):
            each, method = 2, "control variate, "
            estimate = Adaptive(rest, quadratic, tol, (max_matvecs - spent) // 2, seed, block, exact[0])
        else:
            estimate = Adaptive(operator, quadratic, tol, max_matvecs - spent, seed, block)
    found = estimate.run()
    products = spent + each * found.matvecs
    return Estimate(found.value, found.stderr, found.dof, None, products, seed, method + found.method, found.converged)


def _small(rest: Operator, whole: Operator, seed: int) -> bool:
    """Has the rest so small a norm that it needs fewer products, though each of its products takes two?"""
    probes = Probes(whole, -1 - seed).draw(_PILOTS).T
    return bool(_PAYS * (rest @ probes).square().sum() < (whole @ probes).square().sum())
