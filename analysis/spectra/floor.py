"""Lower bounds on the spectrum of an operator that follow from how it was made."""

from __future__ import annotations

from math import inf

from ..errors import ArgumentError
from ..operators.base import BlockDiagonal, Operator, Restricted, Scaled, Shifted, Sum
from ..operators.fisher import EmpiricalFisher, Fisher


def floor(operator: Operator, at_least: float | None = None) -> float:
    """A number that no eigenvalue is below: the caller's, else what sums of Fisher matrices and shifts are known for.

    Blocks on the diagonal have no eigenvalue below the whole matrix's (Cauchy's interlacing).

    Example:
        >>> from lemmata.analysis import Dense
        >>> import torch
        >>> floor(Dense(torch.eye(2)).shift(3.0)), floor(Dense(torch.eye(2)), 1.0)
        (-inf, 1.0)

    """
    if at_least is not None:
        if not -inf < at_least < inf:
            remedy = "Pass a number that no eigenvalue is below, such as the damping, or leave it out."
            raise ArgumentError("at_least", "a finite number", repr(at_least), remedy)
        return float(at_least)
    match operator:
        case Fisher() | EmpiricalFisher():
            return 0.0
        case Shifted():
            return floor(operator.operator) + operator.by
        case Scaled():
            return operator.factor * floor(operator.operator) if operator.factor > 0 else -inf
        case Sum():
            return floor(operator.first) + floor(operator.second)
        case Restricted() | BlockDiagonal():
            return floor(operator.operator)
    return -inf
