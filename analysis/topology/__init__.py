"""Topological features of data and of what the layers of a network make of them."""

from .alpha import Filtration, alpha_complex
from .betti import Betti, betti
from .geodesics import Geodesics, geodesic_distances
from .rips import Bars, rips_betti, rips_persistence
from .through_layers import LayerBetti, betti_through_layers

__all__ = [
    "Bars",
    "Betti",
    "Filtration",
    "Geodesics",
    "LayerBetti",
    "alpha_complex",
    "betti",
    "betti_through_layers",
    "geodesic_distances",
    "rips_betti",
    "rips_persistence",
]
