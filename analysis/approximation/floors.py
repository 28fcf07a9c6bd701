"""Floors: errors that no member of a span, and no function of N affine pieces, can be below, with their certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Literal

import numpy as np
import torch
from scipy import linalg, optimize, sparse
from torch import Tensor

from ..errors import ArgumentError, DataError, NumericsError

Array = np.ndarray
_CUT = 1e-12  # singular directions of a span below it, relative to the largest, count as none
_FIRST = 8  # times n + 1 points are in a linear program at first, and as many are added
_SLACK = 1e-9  # by which a point may break the bound, relative
_DUAL = {1: inf, 2: 2, inf: 1}


@dataclass(frozen=True, repr=False)
class Floor:
    r"""The least error of any member of a span at m points, from below and from above.

    Attributes:
        lower, upper: the interval of the least error; ``upper`` is that of the member found.
        order: p of the norm, 1, 2 or inf; for 1 and 2 a mean over points.
        coefficients: of the member found, (n,), float64 on the CPU.
        certificate: λ, (m,), float64 on the CPU; λᵀ(y − A c) is the same for every c and at most ‖y − A c‖.
        dimension: of the span.
        converged: whether upper − lower is at most the tolerance times ``upper``, or rounding.

    """

    lower: float
    upper: float
    order: float
    coefficients: Tensor
    certificate: Tensor
    dimension: int
    converged: bool

    def __float__(self) -> float:
        return self.lower

    def holds(self, residual: Tensor) -> bool:
        r"""Whether a residual y − g(x) at the m points is at least ``lower``: False proves that g is not in the span.

        Errors: ``DataError`` for another number of points.
        """
        flat = residual.detach().cpu().double().flatten()
        if len(flat) != len(self.certificate):
            remedy = "Pass y − g(x) at the points of the floor, in their order."
            raise DataError("residual", f"{len(self.certificate)} numbers", str(len(flat)), remedy)
        return _norm(flat.numpy(), self.order) >= self.lower

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged"
        name = {1: "L1", 2: "L2", inf: "largest"}[self.order]
        span = f"a span of dimension {self.dimension} at {len(self.certificate)} points"
        return f"Floor({name} error in [{self.lower:.9g}, {self.upper:.9g}], {span}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        tensors = {name: vars(self)[name].tolist() for name in ("coefficients", "certificate")}
        return {**vars(self), **tensors, "order": "inf" if self.order == inf else self.order}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Floor:
        """The inverse of :meth:`to_dict`."""
        tensors = {
            n: torch.tensor(record[n], dtype=torch.float64, device="cpu") for n in ("coefficients", "certificate")
        }
        return cls(**{**record, **tensors, "order": float(record["order"])})


def best_in_span(span: Tensor, target: Tensor, order: Literal[1, 2] | float = inf, tol: float = 1e-6) -> Floor:
    r"""The least error of any combination of given functions, certified from both sides.

    .. math:: \min_c \|y - A c\| \ge \lambda^\top y \quad\text{for every } \lambda \text{ with } A^\top \lambda = 0,\
        \|\lambda\|_* \le 1

    with the largest error (order inf), the mean error (1) or the root of the mean square (2), and \|λ\|_* the dual norm. A
    linear program, or a QR factorisation for order 2, finds c and λ; λ is then made orthogonal to the span once more and
    divided by its norm, so that ``lower`` does not rest on the solver. It is what networks of fixed hidden features cannot get below,
    however their last layer is trained, and for order inf it is a floor on the whole domain: a largest error over more points
    is no smaller.

    Args:
        span: A, (m, n), column j holds function j at the m points. target: y, (m,).
        order: of the norm. tol: the width of the interval, relative to its upper end, from which the result counts as converged.

    Assumptions: with columns scaled to one size, directions of the span below 1e-12 of the largest are left out of it, as
    rounding would take them for functions.

    Cost: m n² for order 2; a few linear programs of n + 1 unknowns and some tens of n constraints for order inf,
    one of n + m unknowns for order 1.

    Errors: ``DataError`` for shapes, an empty span or values that are not finite; ``ArgumentError`` for another order;
    ``NumericsError`` where the linear program was not solved.

    Source: duality of best approximation, Cheney 1966, Introduction to approximation theory, ch. 1.

    Example:
        No line is closer to x² on −1, 0, 1 than 1/2:

        >>> x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        >>> best_in_span(torch.stack([x**0, x], 1), x**2)
        Floor(largest error in [0.5, 0.5], a span of dimension 2 at 3 points)

    """
    A, y = _checked(span, target)
    if order not in _DUAL:
        raise ArgumentError("order", "1, 2 or inf", repr(order), "Pass order=float('inf') for the largest error.")
    if not 0 < tol < 1:
        raise ArgumentError("tol", "a number between 0 and 1", repr(tol), "Pass tol=1e-6.")
    size = float(np.abs(y).max()) or 1.0  # columns and target of like sizes: solvers have absolute tolerances
    y, lengths = y / size, np.abs(A).max(0)
    lengths[lengths == 0] = 1.0
    left, singular, right = linalg.svd(A / lengths, full_matrices=False)
    rank = int((singular > _CUT * singular[0]).sum()) if singular[0] > 0 else 0
    Q = left[:, :rank]
    inner, dual = _solvers[float(order)](Q, y)
    dual = dual - Q @ (Q.T @ dual)
    dual = dual - Q @ (Q.T @ dual)
    scale = float(np.linalg.norm(dual, _DUAL[order])) * _share(len(y), order)
    rounding = 64 * float(np.finfo(float).eps) * sqrt(len(y)) * float(np.abs(y).max())
    dual = dual / scale if scale > 0 else dual
    lower = size * max(0.0, float(dual @ y) - rounding)
    upper = size * (_norm(y - Q @ inner, order) + rounding)
    coefficients = size * (right[:rank].T @ (inner / singular[:rank])) / lengths
    rounding *= size
    converged = upper - lower <= max(tol * upper, 4 * rounding)
    return Floor(lower, upper, float(order), torch.from_numpy(coefficients), torch.from_numpy(dual), rank, converged)


def _checked(span: Any, target: Any) -> tuple[Array, Array]:
    for name, part, ndim in (("span", span, 2), ("target", target, 1)):
        if not isinstance(part, Tensor) or part.ndim != ndim or 0 in part.shape:
            given = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
            expected = f"a tensor of shape {'(m, n)' if ndim == 2 else '(m,)'}, not empty"
            raise DataError(name, expected, given, "Pass one row for each point, one column for each function.")
        if part.is_complex():
            raise DataError(
                name, "real numbers", str(part.dtype), "Pass real and imaginary parts as rows of their own."
            )
        if not bool(part.isfinite().all()):
            count = int((~part.isfinite()).sum())
            remedy = "Leave out the points at which it is not finite."
            raise DataError(name, "finite numbers", f"{count} that are not", remedy)
    if len(span) != len(target):
        given = f"{len(span)} rows of span and {len(target)} of target"
        raise DataError("target", "one value for each row of span", given, "Evaluate both at the same points.")
    return (part.detach().cpu().double().numpy() for part in (span, target))  # type: ignore[return-value]


def _norm(residual: Array, order: float) -> float:
    size = np.linalg.norm(residual, order)
    return float(size * (1 if order == inf else len(residual) ** (-1 / order)))


def _share(m: int, order: float) -> float:
    """The dual norm of a mean over m points is m^{1/p} times the plain one."""
    return 1.0 if order == inf else m ** (1 / order)


def _least_squares(Q: Array, y: Array) -> tuple[Array, Array]:
    inner = Q.T @ y
    return inner, y - Q @ inner


def _largest(Q: Array, y: Array) -> tuple[Array, Array]:
    """Min t with |y − Q c| ≤ t, on points that are added where the bound is broken; the others have no part in λ."""
    m, n = Q.shape
    cost = np.append(np.zeros(n), 1.0)
    limits = [(None, None)] * n + [(0, None)]
    chosen = np.unique(np.linspace(0, m - 1, min(m, _FIRST * (n + 1))).astype(int))
    while True:
        ones = np.ones((len(chosen), 1))
        A = np.block([[Q[chosen], -ones], [-Q[chosen], -ones]])
        found = _solve(cost, A, np.concatenate([y[chosen], -y[chosen]]), limits)
        size = np.abs(y - Q @ found.x[:-1])
        beyond = np.setdiff1d(np.flatnonzero(size > found.x[-1] * (1 + _SLACK)), chosen)
        if not len(beyond):
            break
        worst = beyond[np.argsort(size[beyond])[-_FIRST * (n + 1) :]]
        chosen = np.union1d(chosen, worst)
    above, below = np.split(found.ineqlin.marginals, 2)
    dual = np.zeros(m)
    dual[chosen] = above - below
    return found.x[:-1], dual


def _mean_error(Q: Array, y: Array) -> tuple[Array, Array]:
    """Min Σ s with |y − Q c| ≤ s."""
    m, n = Q.shape
    eye = sparse.eye_array(m)
    cost = np.concatenate([np.zeros(n), np.ones(m)])
    limits = [(None, None)] * n + [(0, None)] * m
    A = sparse.block_array([[sparse.csr_array(Q), -eye], [sparse.csr_array(-Q), -eye]])
    found = _solve(cost, A, np.concatenate([y, -y]), limits)
    above, below = np.split(found.ineqlin.marginals, 2)
    return found.x[:n], above - below


_solvers = {1.0: _mean_error, 2.0: _least_squares, inf: _largest}


def _solve(cost: Array, A: Any, b: Array, limits: list) -> Any:
    found = optimize.linprog(cost, A_ub=A, b_ub=b, bounds=limits, method="highs")
    if found.status != 0:
        remedy = "Scale the columns of span and the target to the order of one."
        raise NumericsError("span", "a linear program that can be solved", found.message, remedy)
    return found
