"""A place in the convex hulls of two classes, which proves that no hyperplane separates them: found, and made exact."""

from __future__ import annotations

from math import inf

import numpy as np
from scipy.optimize import linprog

from .exact import kernel_near

_EXACT = 40  # points in a witness that fractions decide in less than a second


def meeting(signed: np.ndarray) -> np.ndarray | None:
    """Weights λ ≥ 0 of sum 2 with Σ λ_i a_i = 0, at most d + 2 of them positive; None if there are none."""
    n = len(signed)
    constraints = np.concatenate([signed.T, np.ones((1, n))])
    limits = np.append(np.zeros(signed.shape[1]), 2.0)
    found = linprog(np.zeros(n), A_eq=constraints, b_eq=limits, bounds=(0, None), method="highs-ds")
    return np.where(found.x > 1e-9, found.x, 0.0) if found.status == 0 else None


def shared_place(x: np.ndarray, y: np.ndarray, lifted: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, float]:
    """The witness, made exact where it is short, and its residual in the units of the points."""
    weights = np.zeros(len(x))
    if not among.any():
        return weights, 0.0
    found = meeting((lifted * y[:, None])[among])
    if found is None:
        return weights, inf
    weights[among] = found
    support = np.flatnonzero(weights)
    columns = _columns(x[support], y[support])
    if len(support) <= _EXACT:
        exact = kernel_near(columns, weights[support])
        if all(entry > 0 for entry in exact):
            total = sum(exact)
            weights[support] = [float(2 * entry / total) for entry in exact]
            return weights, 0.0
    return weights, float(np.abs(columns @ weights[support]).max())


def _columns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y_i (x_i, 1), (d + 1, n)."""
    return np.concatenate([x, np.ones((len(x), 1))], 1).T * y


def meet(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> bool:
    """Whether weights so near to these that all are positive solve Σ λ_i y_i (x_i, 1) = 0: fractions decide where that is close."""
    columns = _columns(x, y)
    sizes = np.linalg.svd(columns, compute_uv=False)
    rounding = 8 * columns.size * 2.0**-52 * sizes[0]
    off = np.linalg.norm(columns @ weights) + rounding * np.linalg.norm(weights)
    if columns.shape[0] <= columns.shape[1] and off < weights.min() / 2 * (sizes[-1] - rounding):
        return True  # the least correction, by the pseudo-inverse, is no longer than off over the least singular value
    if len(weights) > _EXACT:
        return proves(x, weights, float(np.abs(columns @ weights).max()))
    return all(entry > 0 for entry in kernel_near(columns, weights))


def proves(x: np.ndarray, weights: np.ndarray, residual: float) -> bool:
    """Whether a witness leaves no doubt: none in exact arithmetic, none to speak of where it is too long for that."""
    long = int((weights > 0).sum()) > _EXACT
    return residual <= (1e-9 * max(1.0, np.abs(x).max()) if long else 0.0)
