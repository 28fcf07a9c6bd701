"""What a network can represent, at what cost, and what it cannot: targets, constructions, floors, rates, regions, frequency."""

from .bounded_state import StateBound, state_bound
from .collisions import Collision, latent_collision
from .floors import Floor, best_in_span
from .fourier import FourierContent, data_lines, fourier_content
from .free_knots import BestPieces, best_pieces
from .frequency import FrequencyLearning, frequency_learning
from .integers import UNBOUNDED, Piece, affine_pieces, crossings
from .lines import LineRegions, PathRegions, regions_on_line, regions_on_path
from .modes import Modes, circle_modes, interval_modes, sphere_modes
from .monotone import MonotoneFloor, monotone_floor
from .permutations import PermutationFloor, exchangeable_floor, permutation_floor
from .rates import Rate, geometric_rate, rate
from .remez import Minimax, remez
from .separability import Separability, separability
from .tracing import piecewise_linear
from .written_out import PiecewiseLinear

__all__ = [
    "UNBOUNDED",
    "BestPieces",
    "Collision",
    "Floor",
    "FourierContent",
    "FrequencyLearning",
    "LineRegions",
    "Minimax",
    "Modes",
    "MonotoneFloor",
    "PathRegions",
    "PermutationFloor",
    "Piece",
    "PiecewiseLinear",
    "Rate",
    "Separability",
    "StateBound",
    "affine_pieces",
    "best_in_span",
    "best_pieces",
    "circle_modes",
    "crossings",
    "data_lines",
    "exchangeable_floor",
    "fourier_content",
    "frequency_learning",
    "geometric_rate",
    "interval_modes",
    "latent_collision",
    "monotone_floor",
    "permutation_floor",
    "piecewise_linear",
    "rate",
    "regions_on_line",
    "regions_on_path",
    "remez",
    "separability",
    "sphere_modes",
    "state_bound",
]
