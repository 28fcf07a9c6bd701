"""The best polynomial on an interval in the sense of the largest error, with both ends of that error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from ..errors import ArgumentError, NumericsError
from ..spectra.results import _axes

Array = np.ndarray
_GRID = 24  # points that the search for extrema takes between two of the reference
_SWEEPS = 5  # times it is refined, each by a factor of ten around every extremum


@dataclass(frozen=True, repr=False)
class Minimax:
    r"""The best polynomial of a degree, and an interval for E_n = min ‖f − p‖∞.

    Attributes:
        coefficients: of the polynomial in Chebyshev polynomials of the interval mapped to [−1, 1], (n + 1,).
        interval: (a, b).
        lower, upper: the interval of E_n. No polynomial of the degree errs less than ``lower`` (de la Vallée Poussin);
            ``upper`` is the largest error of this one that was found.
        reference: n + 2 points where its error takes turns in sign; (n + 2,).
        exchanges: how often the reference was changed.
        converged: whether (upper − lower) is at most the tolerance times ``upper``, or rounding.

    """

    coefficients: tuple[float, ...]
    interval: tuple[float, float]
    lower: float
    upper: float
    reference: tuple[float, ...]
    exchanges: int
    converged: bool

    @property
    def degree(self) -> int:
        """The degree n."""
        return len(self.coefficients) - 1

    def __float__(self) -> float:
        return self.upper

    def __call__(self, x: Tensor) -> Tensor:
        """The polynomial at x, of any shape."""
        value = chebyshev.chebval(_to_unit(x.detach().cpu().double().numpy(), self.interval), self.coefficients)
        return torch.from_numpy(np.asarray(value)).to(x)

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged"
        return f"Minimax(degree {self.degree}: error in [{self.lower:.9g}, {self.upper:.9g}]{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {
            **vars(self),
            **{name: list(vars(self)[name]) for name in ("coefficients", "interval", "reference")},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Minimax:
        """The inverse of :meth:`to_dict`."""
        tuples = {name: tuple(record[name]) for name in ("coefficients", "interval", "reference")}
        return cls(**{**record, **tuples})

    def plot(self, f: Callable[[Tensor], Tensor], ax: Any = None) -> Any:
        """The error f − p, its reference and the two levels between which it swings, on matplotlib axes."""
        ax = _axes(ax)
        angles = torch.linspace(torch.pi, 0.0, 64 * len(self.reference), dtype=torch.float64, device="cpu")
        x, reference = (
            _from_unit(angles.cos(), self.interval),
            torch.tensor(self.reference, dtype=torch.float64, device="cpu"),
        )
        ax.plot(x, f(x) - self(x))
        ax.plot(reference, f(reference) - self(reference), "o", markersize=4)
        for level in (-self.upper, self.upper):
            ax.axhline(level, color="0.6", linestyle="--", linewidth=1)
        ax.set(xlabel="x", ylabel="f − p")
        return ax


def remez(
    f: Callable[[Tensor], Tensor],
    degree: int,
    interval: Sequence[float] = (-1.0, 1.0),
    tol: float = 1e-9,
    exchanges: int = 100,
) -> Minimax:
    r"""The polynomial of a degree whose largest error on an interval is least.

    .. math:: E_n = \min_{p \in \mathcal P_n} \max_{a \le x \le b} |f(x) - p(x)|, \qquad
        \min_{0 \le i \le n + 1} |f(x_i) - p(x_i)| \le E_n \le \|f - p\|_\infty

    for every p whose error takes turns in sign at the points :math:`x_0 < \dots < x_{n+1}`; the best one makes both sides
    equal. Remez' second algorithm: level the error at a reference, exchange the reference for the extrema of the error.

    Args:
        f: takes points (m,), float64 on the CPU, to values (m,). degree: n ≥ 0. interval: (a, b).
        tol: the width of the interval of E_n, relative to its upper end, at which to stop.
        exchanges: after which to stop all the same; the result says so.

    Assumptions: f is continuous, and its features are wider than 1/24 of the distance between extrema of the error, which
    is how finely ``upper`` is searched for. ``lower`` takes n + 2 values of f and nothing else.

    Cost: a linear system of n + 2 unknowns and about 130 (n + 2) values of f an exchange; quadratic convergence for smooth f.
    Both ends allow for 8 units in the last place of f; a narrower interval is not asked for.

    Errors: ``ArgumentError`` for a degree, interval, tolerance or f outside its domain; ``NumericsError`` where f is not finite.

    Source: Remez 1934; de la Vallée Poussin 1910; Trefethen 2019, Approximation theory and approximation practice, ch. 10.

    Example:
        The best quadratic for |x| is x² + 1/8:

        >>> best = remez(torch.abs, 2)
        >>> round(best.lower, 9), round(best.upper, 9), best.converged
        (0.125, 0.125, True)

    """
    a, b = _checked(f, degree, interval, tol, exchanges)
    values = _Values(f, (a, b))
    t = np.cos(np.pi * np.arange(degree + 1, -1, -1) / (degree + 1))
    lower, upper, best = 0.0, np.inf, None
    for sweep in range(1, exchanges + 1):
        coefficients = _levelled(values, t, degree)
        x, errors = _extrema(partial(_error, values, coefficients), t)
        keep = _alternating(errors, degree + 2)
        if keep is None:  # a symmetric reference can leave the error at zero there: take one that is not
            t = np.sort(np.delete(np.cos(np.pi * np.arange(degree + 3) / (degree + 2)), sweep % (degree + 3)))
        else:
            t = x[keep]
            lower = max(lower, float(np.abs(errors[keep]).min()))
        if (largest := float(np.abs(errors).max())) < upper:
            upper, best = largest, (tuple(map(float, coefficients)), tuple(map(float, _from_unit(t, (a, b)))))
        if upper - lower <= max(tol * upper, values.rounding):
            break
    assert best is not None
    r = values.rounding
    converged = upper - lower <= max(tol * upper, r)
    return Minimax(best[0], (a, b), max(0.0, lower - r), upper + r, best[1], sweep, converged)


def _checked(f: Any, degree: Any, interval: Any, tol: Any, exchanges: Any) -> tuple[float, float]:
    if not callable(f):
        raise ArgumentError("f", "a function of points (m,)", type(f).__name__, "Pass for example torch.abs.")
    if not isinstance(degree, int) or isinstance(degree, bool) or degree < 0:
        raise ArgumentError("degree", "an integer ≥ 0", repr(degree), "Pass the degree of the polynomial.")
    if len(interval) != 2 or not -np.inf < interval[0] < interval[1] < np.inf:
        raise ArgumentError("interval", "two finite ends a < b", repr(interval), "Pass interval=(-1.0, 1.0).")
    if not 0 < tol < 1:
        raise ArgumentError("tol", "a number between 0 and 1", repr(tol), "Pass tol=1e-9.")
    if not isinstance(exchanges, int) or exchanges < 1:
        raise ArgumentError("exchanges", "an integer ≥ 1", repr(exchanges), "Leave it out for 100.")
    return float(interval[0]), float(interval[1])


class _Values:
    """f on the interval mapped to [−1, 1], checked."""

    def __init__(self, f: Callable[[Tensor], Tensor], interval: tuple[float, float]) -> None:
        self.f, self.interval, self.largest = f, interval, 0.0

    @property
    def rounding(self) -> float:
        """What the evaluation of f − p may be off, a few units in the last place of the largest value met."""
        return 8 * float(np.finfo(float).eps) * self.largest

    def __call__(self, t: Array) -> Array:
        x = torch.from_numpy(_from_unit(t, self.interval))
        with torch.no_grad():
            y = self.f(x)
        if not isinstance(y, Tensor) or y.shape != x.shape:
            given = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            remedy = "Let f take a tensor of points (m,) to a tensor of values (m,)."
            raise ArgumentError("f", f"values of shape {tuple(x.shape)}", given, remedy)
        if not bool(y.isfinite().all()):
            where = float(x[~y.isfinite()][0])
            remedy = "Choose an interval on which f is finite and continuous."
            raise NumericsError("f", "finite values on the interval", f"{float(f'{where:.6g}')} ↦ not finite", remedy)
        found = y.cpu().double().numpy()
        self.largest = max(self.largest, float(np.abs(found).max()))
        return found


def _levelled(values: _Values, t: Array, degree: int) -> Array:
    """The polynomial whose error at the reference is h, −h, h, …."""
    signs = (-1.0) ** np.arange(len(t))
    system = np.concatenate([chebyshev.chebvander(t, degree), signs[:, None]], 1)
    return np.linalg.solve(system, values(t))[:-1]


def _error(values: _Values, coefficients: Array, t: Array) -> Array:
    return values(t) - chebyshev.chebval(t, coefficients)


def _extrema(error: Callable[[Array], Array], t: Array) -> tuple[Array, Array]:
    """The extrema of the error, one for each stretch of one sign, and the error there."""
    angles = np.unique(np.concatenate([[0.0, np.pi], np.arccos(np.clip(t, -1, 1))]))[::-1]
    fine = np.append((angles[:-1, None] + np.diff(angles)[:, None] * np.arange(_GRID) / _GRID).ravel(), 0.0)
    x, e = np.cos(fine), error(np.cos(fine))
    stretches = np.split(np.arange(len(e)), np.flatnonzero(np.diff(np.sign(e)) != 0) + 1)
    peaks = np.array([part[np.argmax(np.abs(e[part]))] for part in stretches])
    left, right = x[np.maximum(peaks - 1, 0)], x[np.minimum(peaks + 1, len(x) - 1)]
    return _refined(error, left, x[peaks], right, e[peaks])


def _refined(error: Callable, left: Array, x: Array, right: Array, height: Array) -> tuple[Array, Array]:
    """Each extremum between its neighbours on the grid, by finer and finer grids."""
    offsets = np.linspace(0, 1, 21)[:, None]
    for _ in range(_SWEEPS):
        points = left + (right - left) * offsets
        points = np.concatenate([points, x[None]])
        values = error(points.ravel()).reshape(points.shape)
        best = np.argmax(values * np.sign(height), 0)
        x, height = (np.take_along_axis(part, best[None], 0)[0] for part in (points, values))
        width = (right - left) / 20
        left, right = np.maximum(left, x - width), np.minimum(right, x + width)
    return x, height


def _alternating(height: Array, count: int) -> Array | None:
    """``count`` neighbours of alternating sign, the largest kept: smallest ends go first, then smallest pairs."""
    keep: list[int] = []
    for i, h in enumerate(height):
        if keep and (h > 0) == (height[keep[-1]] > 0):
            keep[-1] = i if abs(h) > abs(height[keep[-1]]) else keep[-1]
        else:
            keep.append(i)
    if len(keep) < count:
        return None
    size = np.abs(height)
    while len(keep) > count:
        if len(keep) == count + 1:
            keep.pop(0 if size[keep[0]] < size[keep[-1]] else -1)
            continue
        pairs = [max(size[i], size[j]) for i, j in pairwise(keep)]
        at = int(np.argmin(pairs))
        ends = [size[keep[0]], size[keep[-1]]]
        if min(ends) <= pairs[at]:
            keep.pop(0 if ends[0] < ends[1] else -1)
        else:
            del keep[at : at + 2]
    return np.array(keep)


def _to_unit(x: Any, interval: tuple[float, float]) -> Any:
    a, b = interval
    return (2 * x - (a + b)) / (b - a)


def _from_unit(t: Any, interval: tuple[float, float]) -> Any:
    a, b = interval
    return (a + b) / 2 + (b - a) / 2 * t
