"""What a network can represent, at what cost, and what it cannot: targets, constructions, floors, rates, regions, frequency."""

from .fourier import FourierContent, data_lines, fourier_content

__all__ = [
    "FourierContent",
    "data_lines",
    "fourier_content",
]
