"""What a network can represent, at what cost, and what it cannot: targets, constructions, floors, rates, regions, frequency."""

from . import constructions, targets
from .arrangements import Arrangement, arrangement
from .bounded_state import StateBound, state_bound
from .capacity import CapacityReport, capacity_report
from .collisions import Collision, latent_collision
from .construction import Construction, Witness
from .domains import Box, Domain, Finite
from .fit_results import FitGrid
from .fits import fit_grid
from .floors import Floor, best_in_span
from .fourier import FourierContent, data_lines, fourier_content
from .free_knots import BestPieces, best_pieces
from .frequency import frequency_learning
from .frequency_results import FrequencyLearning
from .integers import UNBOUNDED, Piece, affine_pieces, crossings
from .lines import LineRegions, PathRegions, regions_on_line, regions_on_path
from .modes import Modes, circle_modes, interval_modes, sphere_modes
from .monotone import MonotoneFloor, monotone_floor
from .permutation_results import PermutationFloor
from .permutations import exchangeable_floor, permutation_floor
from .planes import PlaneRegions, regions_in_plane
from .polynomial_floor import polynomial_floor
from .random_labels import RandomLabels, random_labels
from .rates import Rate, geometric_rate, rate
from .remez import Minimax, remez
from .representation_ranks import LayerRank, representation_ranks
from .round_domains import Ball, Sphere
from .separability import Separability, separability
from .target import Norms, Target
from .tracing import piecewise_linear
from .written_out import PiecewiseLinear

__all__ = [
    "UNBOUNDED",
    "Arrangement",
    "Ball",
    "BestPieces",
    "Box",
    "CapacityReport",
    "Collision",
    "Construction",
    "Domain",
    "Finite",
    "FitGrid",
    "Floor",
    "FourierContent",
    "FrequencyLearning",
    "LayerRank",
    "LineRegions",
    "Minimax",
    "Modes",
    "MonotoneFloor",
    "Norms",
    "PathRegions",
    "PermutationFloor",
    "Piece",
    "PiecewiseLinear",
    "PlaneRegions",
    "RandomLabels",
    "Rate",
    "Separability",
    "Sphere",
    "StateBound",
    "Target",
    "Witness",
    "affine_pieces",
    "arrangement",
    "best_in_span",
    "best_pieces",
    "capacity_report",
    "circle_modes",
    "constructions",
    "crossings",
    "data_lines",
    "exchangeable_floor",
    "fit_grid",
    "fourier_content",
    "frequency_learning",
    "geometric_rate",
    "interval_modes",
    "latent_collision",
    "monotone_floor",
    "permutation_floor",
    "piecewise_linear",
    "polynomial_floor",
    "random_labels",
    "rate",
    "regions_in_plane",
    "regions_on_line",
    "regions_on_path",
    "remez",
    "representation_ranks",
    "separability",
    "sphere_modes",
    "state_bound",
    "targets",
]
