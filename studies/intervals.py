"""Confidence intervals for one sample statistic, vectorised over leading axes.

Every function takes values of shape ``(..., n)`` (``n`` seeds last) and a two-sided confidence level, and returns
``(estimate, low, high)``, each of shape ``(...)``. Student t throughout (a bootstrap over five seeds covers 89 %).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

Array = np.ndarray
Interval = tuple[Array, Array, Array]


def mean(x: Array, level: float) -> Interval:
    r"""Student's interval $\bar x \pm t_{n-1} s / \sqrt n$.

    >>> [round(float(v), 3) for v in mean(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 0.95)]
    [3.0, 1.037, 4.963]
    """
    n = x.shape[-1]
    centre = x.mean(-1)
    half = stats.t.ppf((1 + level) / 2, n - 1) * x.std(-1, ddof=1) / np.sqrt(n)
    return centre, centre - half, centre + half


def jackknife(statistic: Callable[[Array], Array], x: Array, level: float) -> Interval:
    r"""Jackknife interval $\hat\theta \pm t_{n-1}\,\sqrt{\tfrac{n-1}{n}\sum_i(\theta_{(i)}-\bar\theta)^2}$.

    ``statistic`` maps ``(..., n)`` to ``(...)`` and must be smooth (a mean, a log-variance, a fitted slope; not a median).
    """
    n = x.shape[-1]
    estimate = statistic(x)
    left_out = np.stack([statistic(np.delete(x, i, axis=-1)) for i in range(n)])
    stderr = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
    half = stats.t.ppf((1 + level) / 2, n - 1) * stderr
    return estimate, estimate - half, estimate + half


def log_variance(x: Array) -> Array:
    """Logarithm of the unbiased variance (−inf for identical values)."""
    with np.errstate(divide="ignore"):
        return np.log(x.var(-1, ddof=1))


def variance(x: Array, level: float) -> Interval:
    """Jackknife interval of the log-variance, mapped back: positive.

    Keeps its level for nearly Gaussian values; for heavy tails no variance can be judged from few seeds (at 40 seeds the
    error at an edge is 12 % for exponential and 21 % for t3 values, 2.5 % stated): judge a logarithm instead.
    """
    if np.all(np.ptp(x, axis=-1) == 0):
        zero = np.zeros(x.shape[:-1])
        return zero, zero, zero
    estimate, low, high = jackknife(log_variance, x, level)
    return np.exp(estimate), np.exp(low), np.exp(high)


def median(x: Array, level: float) -> Interval:
    """Order-statistic interval, exact for every continuous law; infinite when ``n`` is too small for the level."""
    n = x.shape[-1]
    ordered = np.sort(x, axis=-1)
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5))  # P(B < rank) <= (1 - level) / 2
    if rank == 0:
        infinite = np.full(x.shape[:-1], np.inf)
        return np.median(x, axis=-1), -infinite, infinite
    return np.median(x, axis=-1), ordered[..., rank - 1], ordered[..., n - rank]


def smallest(x: Array, level: float) -> Interval:
    """The smallest instance seen: a statement about the run's own instances, without sampling error."""
    worst = x.min(-1)
    return worst, worst, worst


def largest(x: Array, level: float) -> Interval:
    """The largest instance seen: a statement about the run's own instances, without sampling error."""
    worst = x.max(-1)
    return worst, worst, worst


def each(x: Array, level: float) -> Interval:
    """Every instance by itself: the interval is the range of the values."""
    return np.median(x, axis=-1), x.min(-1), x.max(-1)


REDUCERS: dict[str, Callable[[Array, float], Interval]] = {
    "each": each,
    "mean": mean,
    "median": median,
    "var": variance,
    "min": smallest,
    "max": largest,
}
#: Reducers that carry a sampling error, hence a chance of a false verdict.
SAMPLED = frozenset({"mean", "median", "var"})
