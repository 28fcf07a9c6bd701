"""What a network can represent, at what cost, and what it cannot: targets, constructions, floors, rates, regions, frequency."""

from .fourier import FourierContent, data_lines, fourier_content
from .permutations import PermutationFloor, exchangeable_floor, permutation_floor

__all__ = [
    "FourierContent",
    "PermutationFloor",
    "data_lines",
    "exchangeable_floor",
    "fourier_content",
    "permutation_floor",
]
