"""What a network can represent, at what cost, and what it cannot: targets, constructions, floors, rates, regions, frequency."""

from .bounded_state import StateBound, state_bound
from .collisions import Collision, latent_collision
from .fourier import FourierContent, data_lines, fourier_content
from .integers import UNBOUNDED, Piece, affine_pieces, crossings
from .lines import LineRegions, PathRegions, regions_on_line, regions_on_path
from .monotone import MonotoneFloor, monotone_floor
from .permutations import PermutationFloor, exchangeable_floor, permutation_floor
from .separability import Separability, separability
from .tracing import piecewise_linear
from .written_out import PiecewiseLinear

__all__ = [
    "UNBOUNDED",
    "Collision",
    "FourierContent",
    "LineRegions",
    "MonotoneFloor",
    "PathRegions",
    "PermutationFloor",
    "Piece",
    "PiecewiseLinear",
    "Separability",
    "StateBound",
    "affine_pieces",
    "crossings",
    "data_lines",
    "exchangeable_floor",
    "fourier_content",
    "latent_collision",
    "monotone_floor",
    "permutation_floor",
    "piecewise_linear",
    "regions_on_line",
    "regions_on_path",
    "separability",
    "state_bound",
]
