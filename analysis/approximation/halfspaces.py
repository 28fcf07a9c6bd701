"""How many labelled points any half-space can have right: all of them are tried, in exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, islice
from math import comb

import numpy as np

from .exact import echelon, whole

WORK = 4_000_000  # signs of points beside hyperplanes: a few seconds
_BLOCK = 200_000


def work(points: int, dimension: int) -> int:
    """How many signs :func:`most_right` takes."""
    return points * comb(points, dimension)


def most_right(x: np.ndarray, y: np.ndarray) -> int:
    r"""The largest number of points that the sign of an affine function can have right, by enumeration.

    A half-space may be moved until its boundary is spanned by points, none of which it has wrong then, if those on the
    boundary are judged anew by an affine function on the boundary: adding a small multiple of it changes no other sign. So

    .. math:: m(X) = \max_H \big( \#\{i : y_i h(x_i) > 0\} + m(X \cap H) \big)

    over all hyperplanes H = {h = 0} that points of X span, and both signs of h; on a single place m is the majority.

    Args:
        x: points, (n, d). y: labels ±1, (n,).

    Cost: n · binomial(n, d) signs of determinants of order d + 1. They are exact: coordinates are made whole numbers, of
    which a determinant is zero or at least one; where rounding could exceed a half, fractions decide.

    Source: Cover 1965, Geometrical and statistical properties of systems of linear inequalities.

    Example:
        >>> most_right(np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([-1, 1, 1, -1]))
        3

    """
    majority = max(int((y > 0).sum()), int((y < 0).sum()))
    x = x[:, _coordinates(x)]
    n, d = x.shape
    if d == 0 or majority == n:
        return majority
    best, seen = majority, set()
    for chosen in _blocks(n, d):
        signs = _signs(x, chosen)
        signs = signs[signs.any(1)]  # d points in fewer dimensions span no hyperplane
        on = signs == 0
        right = np.maximum((signs == y).sum(1), (signs == -y).sum(1))
        plain = on.sum(1) == d  # as many points as span it: they can be given any labels
        best = max(best, int((right + d)[plain].max(initial=0)))
        for place in np.flatnonzero(~plain & (right + on.sum(1) > best)):
            key = on[place].tobytes()
            if key not in seen:
                seen.add(key)
                best = max(best, int(right[place]) + most_right(x[on[place]], y[on[place]]))
    return best


def _coordinates(x: np.ndarray) -> list[int]:
    """Coordinates, as few as there are dimensions between the points, that tell the points apart as all do together."""
    first, *others = [[Fraction(entry) for entry in row] for row in np.unique(x, axis=0).tolist()]
    return echelon([[a - b for a, b in zip(row, first, strict=True)] for row in others])[1]


def _blocks(n: int, d: int) -> Iterator[np.ndarray]:
    subsets = combinations(range(n), d)
    while block := list(islice(subsets, max(1, _BLOCK // n))):
        yield np.array(block)


def _signs(x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The side of every point beside the hyperplane through each choice of d points: −1, 0 or 1, (choices, n)."""
    exact = whole(x)
    n, d = exact.shape
    unit = max(1, int(abs(exact).max()))
    ones = np.ones((n, 1), dtype=int)
    lifted = np.concatenate([exact / unit, ones], 1).astype(
        float
    )  # entries of one size, right to half a unit in the last place
    spans = lifted[chosen]  # (choices, d, d + 1)
    minors = [np.linalg.det(np.delete(spans, k, 2)) * (-1) ** k for k in range(d + 1)]
    values = np.stack(minors, 1) @ lifted.T
    norms = np.linalg.norm(lifted, axis=1)
    error = 1e-14 * (d + 1) ** 2 * norms[chosen].prod(1)[:, None] * norms
    least = float(Fraction(1, 2 * unit**d))  # half of what a determinant of whole numbers is at least, in these units
    signs = np.where(np.abs(values) < least, 0, np.sign(values)).astype(int)
    doubtful = (error >= least) & (np.abs(values) <= error)
    np.put_along_axis(signs, chosen, 0, 1)
    np.put_along_axis(doubtful, chosen, False, 1)
    exact = np.concatenate([exact, ones], 1)
    for i, j in np.argwhere(doubtful):
        determinant = echelon([exact[j].tolist(), *exact[chosen[i]].tolist()])[2]
        signs[i, j] = (determinant > 0) - (determinant < 0)
    return signs
