"""What a network can represent, at what cost, and what it cannot: targets, constructions, floors, rates, regions, frequency."""

from .fourier import FourierContent, data_lines, fourier_content
from .integers import UNBOUNDED, Piece, affine_pieces, crossings
from .lines import LineRegions, PathRegions, regions_on_line, regions_on_path
from .permutations import PermutationFloor, exchangeable_floor, permutation_floor
from .tracing import piecewise_linear
from .written_out import PiecewiseLinear

__all__ = [
    "UNBOUNDED",
    "FourierContent",
    "LineRegions",
    "PathRegions",
    "PermutationFloor",
    "Piece",
    "PiecewiseLinear",
    "affine_pieces",
    "crossings",
    "data_lines",
    "exchangeable_floor",
    "fourier_content",
    "permutation_floor",
    "piecewise_linear",
    "regions_on_line",
    "regions_on_path",
]
