"""Quadrature rules of a Jacobi matrix, and how far a measure with the same moments can be from them."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.special import logsumexp

_PARTS = 16  # of an interval between nodes, finer towards its ends


def gauss(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Nodes, weights and residuals of the Gauss rule: m nodes, exact for polynomials of degree 2m − 1.

    Args:
        alpha: (m,), the diagonal of T. beta: (m,), its off-diagonal; the last entry couples T to what is unknown.

    Source: Golub & Welsch 1969, Calculation of Gauss quadrature rules.
    """
    nodes, vectors = eigh_tridiagonal(alpha, beta[:-1])
    weights = vectors[0] ** 2
    return nodes, weights / weights.sum(), beta[-1] * np.abs(vectors[-1])


def radau(alpha: np.ndarray, beta: np.ndarray, node: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss–Radau rule: m + 1 nodes, one of them given, exact up to degree 2m.

    Source: Golub 1973, Some modified matrix eigenvalue problems.
    """
    nodes, _, residuals = gauss(alpha, beta)
    last = node + np.sum(residuals**2 / (nodes - node))
    return gauss(np.append(alpha, last), np.append(beta, 0.0))[:2]


def christoffel(nodes: np.ndarray, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    r"""The Christoffel function of a Gauss rule with m nodes,

    .. math:: \lambda(x) = \Big( \sum_{k<m} p_k(x)^2 \Big)^{-1} = \Big( \sum_j \ell_j(x)^2 / \omega_j \Big)^{-1},

    p the orthonormal and ℓ the Lagrange polynomials. By the inequalities of Chebyshev, Markov and Stieltjes the
    distribution functions of any two measures that agree on degrees up to 2m − 2 differ by at most λ(x) at x.

    Source: Akhiezer 1965, The classical moment problem, §2.5.
    """
    spread = max(float(np.ptp(nodes)), 1e-300)
    gaps = np.maximum(np.abs(nodes[:, None] - nodes), 1e-16 * spread)
    np.fill_diagonal(gaps, 1.0)
    barycentric = -2 * np.log(gaps).sum(1) - np.log(np.maximum(weights, 1e-300))
    apart = np.abs(np.asarray(x, dtype=float)[:, None] - nodes)
    nearest = apart.argmin(1)
    hit = apart[np.arange(len(nearest)), nearest] == 0
    logs = 2 * np.log(np.where(hit[:, None], 1.0, apart))
    kernel = logs.sum(1) + logsumexp(barycentric - logs, axis=1)
    return np.minimum(np.where(hit, weights[nearest], np.exp(-kernel)), 1.0)


def christoffel_integral(nodes: np.ndarray, weights: np.ndarray, low: float, high: float) -> float:
    """The integral of the Christoffel function, by trapezia: it bounds the Wasserstein-1 distance to the rule."""
    ends = np.unique(np.clip(np.concatenate([[low, high], nodes]), low, high))
    parts = (1 - np.cos(np.pi * np.arange(_PARTS) / _PARTS)) / 2
    grid = np.append((ends[:-1, None] + np.diff(ends)[:, None] * parts).ravel(), ends[-1])
    return float(np.trapezoid(christoffel(nodes, weights, grid), grid))
