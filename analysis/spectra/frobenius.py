"""The Frobenius norm of an operator."""

from __future__ import annotations

from math import sqrt

from ..operators.base import Operator, as_operator
from .adaptive import Adaptive, squared
from .probes import check_options
from .results import Estimate


def frobenius_norm(
    operator: Operator, tol: float = 0.01, max_matvecs: int = 2000, seed: int = 0, block: int | None = None
) -> Estimate:
    r"""The Frobenius norm of a symmetric operator, the root of the sum of its squared eigenvalues.

    .. math:: \|A\|_F^2 = \mathrm{tr}(A^2) = E\,\|Az\|^2, \qquad z_i = \pm 1

    Args:
        operator, max_matvecs, seed, block: as for :func:`~lemmata.analysis.trace`.
        tol: relative; stop when the half-width of the 95 % interval of the norm is at most ``tol`` times the norm.

    Cost: as :func:`~lemmata.analysis.trace`: probes, deflated where that spares products.

    Assumptions: the interval takes the mean for normal, and the root for linear over its width (delta method); ``bias``
    takes entries of products for right to the dtype's ε. ``data_stderr`` is None: the squares are no sum over batches, so
    that leaving one out takes products of its own, and chance in the data alone makes the norm larger.

    Errors: ``ArgumentError`` for an option outside its domain, ``NumericsError`` for a product that is not finite.

    Source: Meyer, Musco, Musco & Woodruff 2021, Hutch++: optimal stochastic trace estimation.

    Example:
        >>> import torch
        >>> from lemmata.analysis import Dense
        >>> round(float(frobenius_norm(Dense(torch.diag(torch.tensor([3.0, 4.0]))))), 6)
        5.0

    """
    operator = as_operator(operator)
    check_options(tol, max_matvecs, block, seed)
    block = block or operator.block
    found = Adaptive(operator, squared, min(2 * tol, 0.999), max_matvecs, seed, block).run()
    norm = sqrt(max(found.value, 0.0))
    slope = 1 / (2 * norm) if norm else 1.0
    stderr, bias = found.stderr * slope, found.bias * slope
    return Estimate(norm, stderr, found.dof, None, found.matvecs, seed, found.method, found.converged, bias)
