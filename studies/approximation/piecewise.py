"""Exact counting of what ReLU networks cut space into: affine pieces on a line, cells of a line arrangement in the plane.

Every float64 is a dyadic rational, so a network's weights are integers over a common power of two and all signs, zeros and
coincidences below are decided in integer arithmetic. Nothing is read off a grid and no tolerance is involved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from lemmata.architectures import MLP

Line = tuple[int, int, int]  # a x + b y + c = 0
Layer = tuple[Sequence[Sequence[float]], Sequence[float]]  # weight rows and biases
UNBOUNDED = (Fraction(-(2**400)), Fraction(2**400))  # wider than any ratio of two float64 weights of ordinary size


def linear_layers(net: MLP) -> list[nn.Linear]:
    """The affine layers of a network, first to last."""
    return [layer for layer in net.layers if isinstance(layer, nn.Linear)]


def relu_network(layers: Sequence[Layer]) -> MLP:
    """A ReLU network with the weights and biases written out, layer by layer."""
    widths = [len(layers[0][0][0]), *(len(bias) for _, bias in layers)]
    net = MLP(widths, activation="relu", device=torch.get_default_device())
    with torch.no_grad():
        for layer, (weight, bias) in zip(linear_layers(net), layers, strict=True):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    return net


def sawtooth(teeth: int, layers: int = 1) -> MLP:
    """One hidden layer per fold: [0, 1] → [0, 1] zigzags through `teeth` monotone pieces, composed `layers` times.

    The zigzag is $w "relu"(x) - 2 w "relu"(x - 1/w) + 2 w "relu"(x - 2/w) - …$, one neuron a piece.
    """
    fold = [teeth * (1.0 if j == 0 else 2.0 * (-1) ** j) for j in range(teeth)]
    knots = [-j / teeth for j in range(teeth)]
    first: Layer = ([[1.0]] * teeth, knots)
    return relu_network([first, *[([fold] * teeth, knots)] * (layers - 1), ([fold], [0.0])])


def to_integers(values: torch.Tensor) -> tuple[np.ndarray, int]:
    """Integers N (an object array) and an exponent e with values = N / 2^e, exactly."""
    ratios = [value.as_integer_ratio() for value in values.detach().double().flatten().tolist()]
    exponent = max(denominator.bit_length() - 1 for _, denominator in ratios)
    scaled = [numerator << (exponent - denominator.bit_length() + 1) for numerator, denominator in ratios]
    return np.array(scaled, dtype=object).reshape(tuple(values.shape)), exponent


@dataclass(frozen=True)
class Piece:
    """One maximal affine piece, slope · x + offset for left ≤ x ≤ right."""

    left: Fraction
    right: Fraction
    slope: Fraction
    offset: Fraction

    def __call__(self, x: Fraction) -> Fraction:
        return self.slope * x + self.offset


def affine_pieces(net: MLP, left: Fraction = Fraction(0), right: Fraction = Fraction(1)) -> list[Piece]:
    """The maximal affine pieces of a scalar ReLU network on [left, right], by propagating its breakpoints.

    Layer by layer, every cell carries each neuron's affine form; a cell is cut where a form vanishes inside it.
    """
    cells = [(left, right, np.array([[1, 0]], dtype=object))]  # forms: (neurons, 2), slope and offset
    scale = 0  # the forms are over 2^scale
    for depth, layer in enumerate(linear_layers(net)):
        augmented, exponent = to_integers(torch.cat([layer.weight, layer.bias[:, None]], dim=1))
        weight, bias = augmented[:, :-1], augmented[:, -1] * (1 << scale)
        if depth > 0:
            cells = [part for cell in cells for part in _fold(*cell)]
        cells = [(a, b, _affine(weight, bias, forms)) for a, b, forms in cells]
        scale += exponent
    return _merge([Piece(a, b, *(Fraction(v, 1 << scale) for v in forms[0])) for a, b, forms in cells])


def _affine(weight: np.ndarray, bias: np.ndarray, forms: np.ndarray) -> np.ndarray:
    after = weight.dot(forms)
    after[:, 1] += bias
    return after


def _fold(left: Fraction, right: Fraction, forms: np.ndarray) -> list[tuple[Fraction, Fraction, np.ndarray]]:
    zeros = {Fraction(-offset, slope) for slope, offset in forms.tolist() if slope}
    cuts = [left, *sorted(zero for zero in zeros if left < zero < right), right]
    parts = []
    for a, b in itertools.pairwise(cuts):
        middle = a + b  # twice the midpoint
        p, q = middle.numerator, 2 * middle.denominator
        active = np.array([slope * p + offset * q > 0 for slope, offset in forms.tolist()])
        parts.append((a, b, np.where(active[:, None], forms, 0)))
    return parts


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
    """How often a continuous piecewise affine function changes sides of a level."""
    heights = [pieces[0](pieces[0].left), *(piece(piece.right) for piece in pieces)]
    sides = [height > level for height in heights if height != level]
    return sum(a != b for a, b in itertools.pairwise(sides))


@dataclass(frozen=True)
class Arrangement:
    """Counts of a line arrangement in the plane; unbounded edges and cells included."""

    vertices: int
    edges: int
    cells: int


def arrangement(lines: Sequence[Line]) -> Arrangement:
    """Vertices, edges and cells of distinct lines that are not all parallel.

    Every cell then touches a vertex, so the cells are the distinct sign vectors found in the sectors around all vertices.
    """
    vertices = {_vertex(p, q) for i, p in enumerate(lines) for q in lines[:i]} - {None}
    through = {v: [i for i, line in enumerate(lines) if _at(line, v) == 0] for v in vertices if v}
    cells = {signs for v, meeting in through.items() for signs in _sectors(lines, v, meeting)}
    edges = len(lines) + sum(len(meeting) for meeting in through.values())
    return Arrangement(len(through), edges, len(cells))


def _at(line: Line, point: Line) -> int:
    return sum(a * b for a, b in zip(line, point, strict=True))


def _vertex(p: Line, q: Line) -> Line | None:
    x, y, w = p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]
    if w == 0:
        return None
    divisor = math.gcd(x, y, w) * (1 if w > 0 else -1)
    return x // divisor, y // divisor, w // divisor  # homogeneous, weight positive: one name a point


def _sectors(lines: Sequence[Line], vertex: Line, meeting: Sequence[int]) -> set[bytes]:
    around = [_at(line, vertex) > 0 for line in lines]
    found = set()
    for i in meeting:
        for direction in (1, -1):
            along = (direction * lines[i][1], -direction * lines[i][0])
            for j in meeting:
                around[j] = lines[j][0] * along[0] + lines[j][1] * along[1] > 0
            for side in (False, True):
                around[i] = side
                found.add(bytes(around))
    return found
