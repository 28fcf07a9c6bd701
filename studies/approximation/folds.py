"""Networks that fold: weights, written down, with which depth multiplies linear regions."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

import torch
from torch import nn

from lemmata.analysis.approximation.construction import Layers, hidden, network_of, then

MARGIN = 1 / 16  # folds of [1/16, 15/16] put no two kinks on one place


def fold(teeth: int, inputs: int = 1, margin: float = 0.0) -> Layers:
    r"""[m, 1 − m]^d onto itself, m the margin: each coordinate in zigzag through `teeth` monotone pieces, one unit a piece.

    For m = 0 it is $w "relu"(x) - 2 w "relu"(x - 1/w) + 2 w "relu"(x - 2/w) - …$.
    """
    steep = torch.tensor([[teeth * (1.0 if j == 0 else 2.0 * (-1) ** j) for j in range(teeth)]], dtype=torch.float64)
    inner = [margin + (1 - 2 * margin) * j / teeth for j in range(1, teeth)]
    knots = -torch.tensor([0.0, *inner], dtype=torch.float64)
    each = torch.eye(inputs, dtype=torch.float64)
    first = torch.kron(each, torch.ones(teeth, 1, dtype=torch.float64)), knots.repeat(inputs)
    return hidden(first, (torch.kron(each, steep), margin * (1 - teeth)))


def zigzag(teeth: int, layers: int = 1, margin: float = 0.0) -> nn.Sequential:
    """One hidden layer a fold, composed: `teeth`^`layers` affine pieces on [m, 1 − m]."""
    return network_of(then(*[fold(teeth, margin=margin)] * layers))


def folded_arrangement(inputs: int, width: int, depth: int, turn: float) -> nn.Sequential:
    """Folds of [m, 1 − m]^d, d = 1 or 2, by all hidden layers but the last, which cuts the image in general position."""
    weight, bias = cuts(inputs, width, turn)
    last = hidden((weight, bias), ([[1.0] * width], 0.0))
    return network_of(then(*[fold(width // inputs, inputs, MARGIN)] * (depth - 1), last))


def cuts(inputs: int, count: int, turn: float) -> tuple[Any, Any]:
    """Points, or tangents of a circle that meet each other, inside of [m, 1 − m]^d; turn in [0, 1)."""
    places = [(i + turn) / count for i in range(count)]
    if inputs == 1:
        return [[1.0]] * count, [-MARGIN - (1 - 2 * MARGIN) * place for place in places]
    radius = 0.43 * cos(pi * (count - 1) / (2 * count))  # neighbours meet near it, the first and the last at 0.43
    normals = [(cos(pi * place), sin(pi * place)) for place in places]
    return [list(normal) for normal in normals], [-(a + b) / 2 - radius for a, b in normals]
