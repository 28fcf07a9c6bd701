"""The diagonal of an operator."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from ..errors import NumericsError
from ..operators.base import Operator, as_operator
from ..operators.hessian import Hessian
from .probes import Probes, check_options, looks
from .results import Diagonal
from .structured import PerExample, diagonal_is_gauss_newton, exactly


def diagonal(
    operator: Operator, tol: float = 0.1, max_matvecs: int = 2000, seed: int = 0, block: int | None = None
) -> Diagonal:
    r"""The diagonal of a symmetric operator, exactly where its structure allows, else with an error bar on each entry.

    .. math:: A_{ii} = E\,z_i (Az)_i, \quad z_i = \pm 1, \qquad \mathrm{Var} = \sum_{j \ne i} A_{ij}^2

    The route follows from the operator; ``method`` names it: *per-example gradients* (exact) as for
    :func:`~lemmata.analysis.trace`; *random signs*; *unit vectors* (exact) where the probes that are still missing are
    more than P.

    Args:
        operator, max_matvecs, seed, block: as for :func:`~lemmata.analysis.trace`.
        tol: relative; stop when the norm of the standard errors is at most ``tol`` times that of the diagonal.

    Shapes: values and standard errors (P,).

    Cost: per-example gradients take a backward pass for each entry of one example's output. Else n products for a
    relative error near :math:`\sqrt{(\|A\|_F^2 - \|d\|^2) / n} / \|d\|`. Memory: ``block`` + 6 vectors.

    Assumptions: the interval of an entry takes the mean of its probes for normal.

    Errors: ``ArgumentError`` for an option outside its domain, ``NumericsError`` for a product that is not finite.

    Source: Bekas, Kokiopoulou & Saad 2007, An estimator for the diagonal of a matrix.

    Example:
        >>> from lemmata.analysis import Dense
        >>> diagonal(Dense(torch.tensor([[2.0, 1.0], [1.0, 3.0]])), tol=0.01).values
        tensor([2., 3.], dtype=torch.float64)

    """
    operator = as_operator(operator)
    check_options(tol, max_matvecs, block, seed)
    block = block or operator.block
    if not isinstance(operator, Hessian) or diagonal_is_gauss_newton(operator):
        exact = exactly(operator, PerExample.diagonal)
        if exact:
            values, passes = exact
            return Diagonal(values, torch.zeros_like(values), 0, passes, seed, "per-example gradients")
    probes, count, size = Probes(operator, seed), 0, operator.shape[0]
    mean = torch.zeros(size, dtype=torch.float64, device=operator.device)
    squares = torch.zeros_like(mean)
    for target in looks(max_matvecs):
        while count < target:
            rows = probes.draw(min(block, target - count))
            for sample in rows * (operator @ rows.T).T:
                count += 1
                gap = sample.double() - mean
                mean += gap / count
                squares += gap * (sample.double() - mean)
        stderr = (squares / (count - 1) / count).sqrt()
        missing = _missing(mean, stderr, count, tol)
        if missing <= 0:
            break
        if size <= min(missing, max_matvecs - count):
            return _units(operator, count, seed, block)
    return Diagonal(mean, stderr, count - 1, count, seed, "random signs", missing <= 0)


def _missing(mean: Tensor, stderr: Tensor, count: int, tol: float) -> float:
    """Probes that the tolerance still takes; the norm of the estimate is cleared of its errors."""
    power, error = torch.stack([mean.square().sum(), stderr.square().sum()]).tolist()
    if not power < inf:
        remedy = "Use dtype=torch.float64, or scale the operator down."
        raise NumericsError("a product of the operator", "finite entries", "inf or nan", remedy)
    aim = tol**2 * (power - error)
    return 0.0 if error <= max(aim, 0) else (count * (error / aim - 1) if aim > 0 else inf)


def _units(operator: Operator, spent: int, seed: int, block: int) -> Diagonal:
    values = torch.empty(operator.shape[0], dtype=torch.float64, device=operator.device)
    for places in torch.arange(len(values), device=operator.device).split(block):
        units = torch.zeros(len(values), len(places), dtype=operator.dtype, device=operator.device)
        columns = torch.arange(len(places), device=operator.device)
        units[places, columns] = 1
        values[places] = (operator @ units)[places, columns].double()
    return Diagonal(values, torch.zeros_like(values), 0, spent + len(values), seed, "unit vectors")
