"""Piecewise linear functions on a line in integer arithmetic: every float64 is a dyadic rational, so no sign is ever rounded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..errors import ArgumentError
from .tracing import piecewise_linear
from .written_out import Affine, Array, PiecewiseLinear

Integers = NDArray[np.object_]
UNBOUNDED = (Fraction(-(2**400)), Fraction(2**400))  # wider than any ratio of two float64 weights of ordinary size


def to_integers(values: Any) -> tuple[Integers, int]:
    """Integers N (an object array) and an exponent e with values = N / 2^e, exactly.

    >>> to_integers(np.array([0.5, 3.0]))
    (array([1, 6], dtype=object), 1)
    """
    values = np.asarray(values, dtype=np.float64)
    ratios = [value.as_integer_ratio() for value in values.flatten().tolist()]
    exponent = max((denominator.bit_length() - 1 for _, denominator in ratios), default=0)
    scaled = [numerator << (exponent - denominator.bit_length() + 1) for numerator, denominator in ratios]
    return np.array(scaled, dtype=object).reshape(values.shape), exponent


@dataclass(frozen=True)
class Forms:
    """slope · t + offset over 2^exponent for each unit, (units, 2)."""

    values: Integers
    exponent: int


@dataclass(frozen=True)
class Cell:
    """An interval on which all units so far are affine: the forms of each source, and which units are active."""

    left: Fraction
    right: Fraction
    sources: dict[int, Forms]
    pattern: tuple[bool, ...] = ()


def cells_on_line(net: PiecewiseLinear, origin: Array, end: Array, bounds: tuple[Fraction, Fraction]) -> list[Cell]:
    r"""The cells between two values of t on x = origin + t (end − origin), with the head's forms as the last source.

    Layer by layer, every cell carries each unit's affine form; a cell is cut where a form vanishes inside it.
    """
    ends, exponent = to_integers(np.stack([origin, end]))
    line = Forms(np.stack([ends[1] - ends[0], ends[0]], axis=1), exponent)
    cells = [Cell(*bounds, {0: line})]
    for k, layer in enumerate(net.layers, 1):
        affine, slopes = _whole(layer.affine), to_integers(np.stack([layer.negative, layer.positive]))
        cells = [part for cell in cells for part in _fold(cell, k, affine.of(cell.sources), slopes)]
    head = _whole(net.head)
    last = len(net.layers) + 1
    return [Cell(c.left, c.right, {last: head.of(c.sources)}, c.pattern) for c in cells]


@dataclass(frozen=True)
class _Whole:
    """An affine map's coefficients as integers, each block over its own power of two."""

    weights: dict[int, tuple[Integers, int]]
    bias: tuple[Integers, int]

    def of(self, sources: dict[int, Forms]) -> Forms:
        forms = [(W.dot(sources[j].values), e + sources[j].exponent) for j, (W, e) in self.weights.items()]
        exponent = max([e for _, e in forms] + [self.bias[1]])
        total = np.zeros((len(self.bias[0]), 2), dtype=object)
        for values, e in forms:
            total = total + values * (1 << (exponent - e))
        total[:, 1] += self.bias[0] * (1 << (exponent - self.bias[1]))
        return Forms(total, exponent)


def _whole(affine: Affine) -> _Whole:
    weights = {j: to_integers(W) for j, W in affine.weights.items() if W.any()}
    return _Whole(weights, to_integers(affine.bias))


def _fold(cell: Cell, k: int, forms: Forms, slopes: tuple[Integers, int]) -> list[Cell]:
    zeros = {Fraction(-offset, slope) for slope, offset in forms.values.tolist() if slope}
    cuts = [cell.left, *sorted(zero for zero in zeros if cell.left < zero < cell.right), cell.right]
    parts = []
    for a, b in itertools.pairwise(cuts):
        middle = a + b  # twice the midpoint
        p, q = middle.numerator, 2 * middle.denominator
        active = [slope * p + offset * q > 0 for slope, offset in forms.values.tolist()]
        steep = np.where(active, slopes[0][1], slopes[0][0])
        after = Forms(forms.values * steep[:, None], forms.exponent + slopes[1])
        parts.append(Cell(a, b, {**cell.sources, k: after}, (*cell.pattern, *active)))
    return parts


@dataclass(frozen=True)
class Piece:
    """One maximal affine piece, slope · x + offset for left ≤ x ≤ right."""

    left: Fraction
    right: Fraction
    slope: Fraction
    offset: Fraction

    def __call__(self, x: Fraction) -> Fraction:
        """The value at x."""
        return self.slope * x + self.offset


def affine_pieces(model: nn.Module, left: Fraction = Fraction(0), right: Fraction = Fraction(1)) -> list[Piece]:
    r"""The maximal affine pieces of a piecewise linear function of one variable, exactly.

    Neighbouring cells on which the function is the same are one piece, so that kinks which cancel do not count; that
    distinguishes pieces of the function from the linear regions of :func:`regions_on_line`.

    Args:
        model: maps (batch, 1) to (batch, 1). left, right: the interval; ``UNBOUNDED`` stands for the whole line.

    Cost: integer arithmetic with numbers whose length grows with depth, in all cells of all layers.

    Errors: those of :func:`piecewise_linear`, and ``ArgumentError`` for a model that is not scalar or an empty interval.

    Example:
        >>> vee = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> for p, v in zip(vee.parameters(), ([[1.0], [-1.0]], [-0.5, 0.5], [[1.0, 1.0]], [0.0])):
        ...     p.data = __import__("torch").tensor(v)
        >>> [(float(p.left), float(p.slope)) for p in affine_pieces(vee)]  # |x − 1/2|
        [(0.0, -1.0), (0.5, 1.0)]

    """
    if not left < right:
        remedy = "Pass the lower end first; the default is the unit interval, UNBOUNDED the whole line."
        raise ArgumentError("left, right", "an interval, left < right", f"{left}, {right}", remedy)
    net = piecewise_linear(model, (1,))
    if len(net.head.bias) != 1:
        remedy = "Choose one of the outputs, or count linear regions with regions_on_line."
        raise ArgumentError("model", "one output", f"{len(net.head.bias)} outputs", remedy)
    pieces = []
    for cell in cells_on_line(net, np.zeros(1), np.ones(1), (left, right)):
        forms = cell.sources[len(net.layers) + 1]
        slope, offset = (Fraction(v, 1 << forms.exponent) for v in forms.values[0])
        pieces.append(Piece(cell.left, cell.right, slope, offset))
    return _merge(pieces)


def _merge(pieces: Sequence[Piece]) -> list[Piece]:
    merged = [pieces[0]]
    for piece in pieces[1:]:
        last = merged[-1]
        if (last.slope, last.offset) == (piece.slope, piece.offset):
            merged[-1] = Piece(last.left, piece.right, last.slope, last.offset)
        else:
            merged.append(piece)
    return merged


def crossings(pieces: Sequence[Piece], level: Fraction = Fraction(1, 2)) -> int:
    """How often a continuous piecewise affine function changes sides of a level.

    >>> crossings([Piece(Fraction(0), Fraction(1), Fraction(1), Fraction(0))])
    1
    """
    heights = [pieces[0](pieces[0].left), *(piece(piece.right) for piece in pieces)]
    sides = [height > level for height in heights if height != level]
    return sum(a != b for a, b in itertools.pairwise(sides))
