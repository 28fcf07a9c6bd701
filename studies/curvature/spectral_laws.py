"""Limit laws of large random matrices: Marchenko–Pastur, Baik–Ben Arous–Péché and Fuss–Catalan, in closed form.

Everything is a plain function on NumPy arrays. Each density comes with its cumulative distribution function, which is exact
too: no law is integrated numerically.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb, pi, sqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def kolmogorov_distance(values: Array, cdf: Callable[[Array], Array]) -> float:
    """The largest difference between the distribution function of a finite set and a continuous one.

    >>> float(kolmogorov_distance(np.array([0.25, 0.75]), lambda x: x))
    0.25
    """
    theory = cdf(np.sort(values))
    steps = np.arange(len(values) + 1) / len(values)
    return float(max((steps[1:] - theory).max(), (theory - steps[:-1]).max()))


def marchenko_pastur_edges(gamma: float) -> tuple[float, float]:
    """The ends (1 ± √γ)² of the support, for 0 < γ ≤ 1.

    >>> marchenko_pastur_edges(0.25)
    (0.25, 2.25)
    """
    return (1 - sqrt(gamma)) ** 2, (1 + sqrt(gamma)) ** 2


def marchenko_pastur_density(x: Array, gamma: float) -> Array:
    """√((b − x)(x − a)) / (2πγx) on [a, b], zero elsewhere."""
    a, b = marchenko_pastur_edges(gamma)
    inside = np.clip((b - x) * (x - a), 0, None)
    return np.sqrt(inside) / (2 * pi * gamma * np.where(inside > 0, x, 1.0))


def marchenko_pastur_cdf(x: Array, gamma: float) -> Array:
    """The integral of the density from a to x, for 0 < γ ≤ 1.

    >>> marchenko_pastur_cdf(np.array([0.0, 0.25, 2.25, 3.0]), 0.25).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    a, b = marchenko_pastur_edges(gamma)
    x = np.clip(x, a, b)
    height = np.sqrt((b - x) * (x - a))
    angle = np.arctan2(sqrt(a) * np.sqrt(b - x), sqrt(b) * np.sqrt(x - a))
    turn = np.arccos(np.clip((2 * x - a - b) / (b - a), -1, 1))
    return np.clip((height - (1 + gamma) * turn + 2 * (1 - gamma) * angle) / (2 * pi * gamma) + 1, 0, 1)


def spike_location(theta: Array | float, gamma: float) -> Array:
    """The limit of the top eigenvalue for the covariance I + θvvᵀ: (1 + s)(1 + γ/s) with s = max(θ, √γ)."""
    s = np.maximum(theta, sqrt(gamma))
    return (1 + s) * (1 + gamma / s)


def spike_overlap(theta: Array | float, gamma: float) -> Array:
    """The limit of ⟨v̂, v⟩² for the top eigenvector v̂: (1 − γ/s²)/(1 + γ/s) with s = max(θ, √γ)."""
    s = np.maximum(theta, sqrt(gamma))
    return (1 - gamma / s**2) / (1 + gamma / s)


def fuss_catalan_number(depth: int, k: int) -> int:
    """The k-th moment of the Fuss–Catalan law of order L, binom((L + 1)k, k)/(Lk + 1).

    >>> [fuss_catalan_number(1, k) for k in range(6)]              # Catalan numbers
    [1, 1, 2, 5, 14, 42]
    """
    return comb((depth + 1) * k, k) // (depth * k + 1)


def fuss_catalan_edge(depth: int) -> float:
    """The upper end of the support, (L + 1)^(L + 1)/L^L.

    >>> fuss_catalan_edge(1), fuss_catalan_edge(2)
    (4.0, 6.75)
    """
    return (depth + 1) ** (depth + 1) / depth**depth


def _eigenvalue(phi: Array, depth: int) -> Array:
    """x(φ) = sin^(L+1)((L+1)φ) / (sin φ sin^L(Lφ)), falling from the edge at φ = 0 to 0 at π/(L + 1)."""
    return np.sin((depth + 1) * phi) ** (depth + 1) / (np.sin(phi) * np.sin(depth * phi) ** depth)


def _angle(x: Array, depth: int) -> Array:
    """The φ with x(φ) = x, by bisection."""
    low, high = np.zeros_like(x), np.full_like(x, pi / (depth + 1))
    for _ in range(60):
        middle = (low + high) / 2
        above = _eigenvalue(middle, depth) > x
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def fuss_catalan_density(x: Array, depth: int) -> Array:
    """sin²φ sin^(L−1)(Lφ) / (π sin^L((L+1)φ)) at x = x(φ), zero outside the support."""
    x = np.asarray(x, dtype=float)
    inside = (x > 0) & (x < fuss_catalan_edge(depth))
    phi = _angle(np.where(inside, x, 1.0), depth)
    height = np.sin(phi) ** 2 * np.sin(depth * phi) ** (depth - 1) / (pi * np.sin((depth + 1) * phi) ** depth)
    return np.where(inside, height, 0.0)


def fuss_catalan_cdf(x: Array, depth: int) -> Array:
    """1 − ((L + 1)φ − L sin φ sin((L+1)φ)/sin(Lφ))/π at x = x(φ).

    With w = x G(x), G the Stieltjes transform, x = w^(L+1)/(w − 1) and G dx = L dw − dw/(w − 1): the law's primitive is
    the imaginary part of L w − log(w − 1), where w − 1 has the argument (L + 1)φ.

    >>> fuss_catalan_cdf(np.array([0.0, 6.75]), 2).round(12).tolist()
    [0.0, 1.0]
    """
    x = np.asarray(x, dtype=float)
    inside = (x > 0) & (x < fuss_catalan_edge(depth))
    phi = _angle(np.where(inside, x, 1.0), depth)
    wave = depth * np.sin(phi) * np.sin((depth + 1) * phi) / np.sin(depth * phi)
    return np.where(inside, 1 - ((depth + 1) * phi - wave) / pi, (x > 0).astype(float))
