"""Gaussian averages in one and two variables by panels that end at the kinks of the integrand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from math import ceil

import numpy as np

#: Beyond this many standard deviations the Gaussian density is below 1e-31.
REACH = 12.0
_ORDER = 20  # nodes of a panel
#: The narrowest panels: functions that bend on the scale 1 are resolved up to a standard deviation of 20.
_FINEST = 1 / 20

Function = Callable[[np.ndarray], np.ndarray]


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_ORDER)


def nodes(cuts: Sequence[float] | np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Nodes and weights of :math:`E\,f(sz)`, z standard normal, exact to rounding for f smooth between the cuts (of z)."""
    width = max(_FINEST, 1 / max(1.0, scale))
    inside = [cut for cut in np.ravel(cuts) if -REACH < cut < REACH]
    ends = np.unique([-REACH, *inside, REACH])
    pieces = itertools.pairwise(ends)
    edges = np.unique(np.concatenate([np.linspace(a, b, ceil((b - a) / width) + 1) for a, b in pieces]))
    return _panels(edges[:-1], edges[1:])


def _panels(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre panels from ``low`` to ``high``, (..., n) each, with the normal density in the weights."""
    x, w = _legendre()
    places = (high + low)[..., None] / 2 + (high - low)[..., None] / 2 * x
    weights = (high - low)[..., None] / 2 * w * np.exp(-(places**2) / 2) / np.sqrt(2 * np.pi)
    return places.reshape(*low.shape[:-1], -1), weights.reshape(*low.shape[:-1], -1)


def average(f: Function, scale: float, kinks: Sequence[float]) -> float:
    r""":math:`E\,f(sz)` for z standard normal and f smooth between its kinks."""
    places, weights = nodes(np.asarray(kinks) / scale if scale else [], scale)
    return float(weights @ f(scale * places))


def pair_average(f: Function, g: Function, scale: float, correlation: float, kinks: Sequence[float]) -> float:
    r""":math:`E\,f(u)\,g(v)` for centred normal u, v of standard deviation s and correlation c.

    With :math:`v = s\,(c z_1 + \sqrt{1 - c^2}\, z_2)` the inner average over z₂ has its cuts where v meets a kink, which
    depends on z₁: every outer node has an inner rule of its own.
    """
    spread = np.sqrt(max(0.0, (1.0 - correlation) * (1.0 + correlation)))
    places = np.asarray(kinks, dtype=float) / scale
    # The inner average turns from one branch of g to the next within a few spreads of where v's centre meets a kink.
    turns = (places / correlation)[:, None] + spread * np.array([-REACH, -1.0, 0.0, 1.0, REACH]) if correlation else []
    outer, outer_weights = nodes([*places, *np.ravel(turns)], scale)
    centre = correlation * outer
    if spread < 1e-8:  # v = ± u to rounding
        return float(outer_weights @ (f(scale * outer) * g(scale * centre)))
    cuts = np.clip((places - centre[:, None]) / spread, -REACH, REACH)
    ends = np.sort(np.concatenate([cuts, np.broadcast_to([-REACH, REACH], (len(cuts), 2))], 1), 1)
    share = np.linspace(0, 1, 1 + ceil(16 * min(1 / _FINEST, max(1.0, scale * spread))))
    edges = ends[:, :-1, None] + (ends[:, 1:] - ends[:, :-1])[..., None] * share
    flat = edges.shape[0], -1
    inner, inner_weights = _panels(edges[..., :-1].reshape(flat), edges[..., 1:].reshape(flat))
    means = (inner_weights * g(scale * (centre[:, None] + spread * inner))).sum(1)
    return float(outer_weights @ (f(scale * outer) * means))
