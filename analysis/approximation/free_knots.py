"""The least error of a function of N affine pieces with free ends: a floor for ReLU networks on a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, DataError
from ..spectra.results import _axes
from .floors import best_in_span

Array = np.ndarray
Point = tuple[float, float]


@dataclass(frozen=True, repr=False)
class BestPieces:
    r"""The least largest error over m points of a function with N affine pieces.

    Attributes:
        pieces: N.
        lower: no function of N affine pieces, continuous or not, errs less at the points.
        upper: the error of the continuous one found.
        knots, heights: of that one, (K + 1,) with K ≤ N, ends included; float64 on the CPU.
        converged: whether upper − lower is at most the tolerance times ``upper``; it may fail where f is not convex and continuity costs.

    """

    pieces: int
    lower: float
    upper: float
    knots: Tensor
    heights: Tensor
    converged: bool

    def __float__(self) -> float:
        return self.lower

    def __call__(self, x: Tensor) -> Tensor:
        """The continuous function found, at x; its outer pieces go on outside."""
        at = torch.searchsorted(self.knots[1:-1].contiguous(), x.detach().cpu().double().contiguous())
        left, right = self.knots[at], self.knots[at + 1]
        share = (x.detach().cpu().double() - left) / (right - left)
        return torch.lerp(self.heights[at], self.heights[at + 1], share).to(x)

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged"
        return f"BestPieces({self.pieces} pieces: largest error in [{self.lower:.6g}, {self.upper:.6g}]{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "knots": self.knots.tolist(), "heights": self.heights.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> BestPieces:
        """The inverse of :meth:`to_dict`."""
        tensors = {name: torch.tensor(record[name], dtype=torch.float64, device="cpu") for name in ("knots", "heights")}
        return cls(**{**record, **tensors})

    def plot(self, ax: Any = None) -> Any:
        """The pieces with their knots, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.plot(self.knots, self.heights, "o-", markersize=4)
        ax.set(xlabel="x", ylabel=f"best {self.pieces} pieces")
        return ax


def best_pieces(x: Tensor, y: Tensor, pieces: int, tol: float = 0.01) -> BestPieces:
    r"""The least largest error of N affine pieces with free ends at given points.

    .. math:: E_N = \min_{g \text{ of } N \text{ affine pieces}} \max_i |y_i - g(x_i)|, \qquad
        E_N \approx \frac{1}{16 N^2} \Bigl(\int \sqrt{|f''|}\Bigr)^2

    for y = f(x), f twice differentiable, many points and large N. A network of one hidden layer of n ReLUs has at most n + 1
    pieces on a line, so that none, however trained, errs less than ``lower`` of n + 1 pieces.

    A line fits points to within ε where it stabs their bars [y − ε, y + ε]; taking as many points as one line stabs, again and
    again, needs the fewest lines; ε is bisected. The continuous function has its knots between the groups and its heights from
    a linear program. For convex f both errors are equal, up to the distance between points.

    Args:
        x: points in rising order, (m,). y: values there, (m,). pieces: N.
        tol: the width of the interval, relative to its upper end, from which the result counts as converged; ε is bisected to a twentieth of it.

    Cost: about 20 passes over the points, a microsecond or two a point; a few linear programs of N + 2 unknowns.

    Errors: ``DataError`` for points not in rising order, another number of values, or numbers that are not finite;
    ``ArgumentError`` for N < 1 or a tolerance outside its domain.

    Source: O'Rourke 1981, An on-line algorithm for fitting straight lines between data ranges; DeVore 1998, Nonlinear approximation.

    Example:
        Four pieces for x² on [0, 1]: 1/(8 · 4²)

        >>> x = torch.linspace(0, 1, 4001, dtype=torch.float64)
        >>> best_pieces(x, x**2, 4).converged
        True
        >>> 0.99 / 128 < best_pieces(x, x**2, 4).lower <= 1 / 128
        True

    """
    points, values = _checked(x, y, pieces, tol)
    bars = list(zip(points, values, strict=True))
    most = (max(values) - min(values)) / 2
    above, groups = most, _groups(bars, most, pieces) or []
    below, rounding = 0.0, 64 * float(np.finfo(float).eps) * len(values) ** 0.5 * max(map(abs, values))
    epsilon = most / 4
    while above > rounding and (below == 0 or above > (1 + tol / 20) * below):
        found = _groups(bars, epsilon, pieces)
        above, below, groups = (above, epsilon, groups) if found is None else (epsilon, below, found)
        epsilon = above / 16 if below == 0 else (above * below) ** 0.5
    ends = _knots(np.array(points), np.array(values), groups)
    heights, upper = _joined(np.array(points), np.array(values), ends)
    converged = upper - below <= max(tol * upper, 4 * rounding)
    return BestPieces(pieces, below, upper, torch.from_numpy(ends), heights, converged)


def _checked(x: Any, y: Any, pieces: Any, tol: Any) -> tuple[list[float], list[float]]:
    for name, part in (("x", x), ("y", y)):
        if not isinstance(part, Tensor) or part.ndim != 1 or len(part) < 2 or len(part) != len(x):
            given = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
            remedy = "Pass points on a line and the values there."
            raise DataError(name, "a tensor of shape (m,) with m ≥ 2, as many in x as in y", given, remedy)
        if not bool(part.isfinite().all()):
            count = int((~part.isfinite()).sum())
            raise DataError(name, "finite numbers", f"{count} that are not", "Leave those points out.")
    if not bool((x.diff() > 0).all()):
        raise DataError(
            "x", "points in rising order", "an order that is not", "Sort: x, order = x.sort(); y = y[order]."
        )
    if not isinstance(pieces, int) or isinstance(pieces, bool) or pieces < 1:
        raise ArgumentError("pieces", "an integer ≥ 1", repr(pieces), "Pass n + 1 for a layer of n ReLUs.")
    if not 0 < tol < 1:
        raise ArgumentError("tol", "a number between 0 and 1", repr(tol), "Pass tol=0.01.")
    return x.detach().cpu().double().tolist(), y.detach().cpu().double().tolist()


def _groups(bars: list[Point], epsilon: float, most: int) -> list[int] | None:
    """Where each group of points on one line to within ε begins, as few as can be; None if more than ``most``."""
    begins = [0]
    for end in _ends(bars, epsilon):
        if end < len(bars):
            begins.append(end)
        if len(begins) > most:
            return None
    return begins


def _ends(bars: list[Point], epsilon: float) -> Iterator[int]:
    start = 0
    while start < len(bars):
        start = _stabbed(bars, start, epsilon)
        yield start


def _stabbed(bars: list[Point], start: int, epsilon: float) -> int:
    """The first point beyond those that one line from ``start`` on stabs (O'Rourke).

    ``steep`` and ``flat`` are the stabbing lines of largest and least slope, through a bar's end each on the left and right;
    ``tops`` and ``feet`` are the hulls on which their left ends move.
    """
    if start + 2 >= len(bars):
        return len(bars)
    (x0, y0), (x1, y1) = bars[start], bars[start + 1]
    tops, feet = [(x0, y0 + epsilon), (x1, y1 + epsilon)], [(x0, y0 - epsilon), (x1, y1 - epsilon)]
    flat, steep = (tops[0], feet[1]), (feet[0], tops[1])
    first_top = first_foot = 0
    for place in range(start + 2, len(bars)):
        x, y = bars[place]
        top, foot = (x, y + epsilon), (x, y - epsilon)
        if _turn(*flat, top) < 0 or _turn(*steep, foot) > 0:
            return place
        if _turn(*steep, top) < 0:
            first_foot = _tangent(feet, first_foot, top, -1)
            steep = (feet[first_foot], top)
            _push(tops, first_top, top, 1)
        if _turn(*flat, foot) > 0:
            first_top = _tangent(tops, first_top, foot, 1)
            flat = (tops[first_top], foot)
            _push(feet, first_foot, foot, -1)
    return len(bars)


def _turn(a: Point, b: Point, c: Point) -> float:
    """Positive where c lies above the line from a to b."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _tangent(hull: list[Point], place: int, end: Point, side: int) -> int:
    """The point of the hull from which the line to ``end`` is flattest (side −1) or steepest (side 1)."""
    while place + 1 < len(hull) and side * _turn(hull[place], end, hull[place + 1]) <= 0:
        place += 1
    return place


def _push(hull: list[Point], first: int, point: Point, side: int) -> None:
    while len(hull) >= first + 2 and side * _turn(hull[-2], hull[-1], point) <= 0:
        hull.pop()
    hull.append(point)


def _knots(x: Array, y: Array, groups: list[int]) -> Array:
    """Between two groups: where their lines of least squares meet, if that is between them, else halfway."""
    cuts = [*groups, len(x)]
    lines = [_line(x[i:j], y[i:j]) for i, j in pairwise(cuts)]
    inner = []
    for place, ((a, b), (c, d)) in zip(groups[1:], pairwise(lines), strict=True):
        left, right = x[place - 1], x[place]
        meet = (c - a) / (b - d) if b != d else left
        inner.append(meet if left < meet < right else (left + right) / 2)
    return np.array([x[0], *inner, x[-1]])


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Height at zero and slope of the line of least squares."""
    centre = x.mean()
    slope = float((x - centre) @ y / max(float((x - centre) @ (x - centre)), 1e-300))
    return float(y.mean()) - slope * float(centre), slope


def _joined(x: Array, y: Array, knots: Array) -> tuple[Tensor, float]:
    """The heights at the knots with the least largest error, and that error."""
    at = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    share = (x - knots[at]) / np.diff(knots)[at]
    hats = np.zeros((len(x), len(knots)))
    hats[np.arange(len(x)), at], hats[np.arange(len(x)), at + 1] = 1 - share, share
    found = best_in_span(torch.from_numpy(hats), torch.from_numpy(y))
    return found.coefficients, found.upper
