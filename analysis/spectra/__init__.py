"""Matrix-free numerics on any symmetric operator."""

from .density import spectral_density
from .diagonal import diagonal
from .eigenpairs import eigenpairs
from .frobenius import frobenius_norm
from .logdet import logdet
from .measure import SpectralDensity
from .results import Diagonal, Eigenpairs, Estimate
from .solution import Solution
from .solve import solve
from .structured import gram_spectrum
from .trace import trace

__all__ = [
    "Diagonal",
    "Eigenpairs",
    "Estimate",
    "Solution",
    "SpectralDensity",
    "diagonal",
    "eigenpairs",
    "frobenius_norm",
    "gram_spectrum",
    "logdet",
    "solve",
    "spectral_density",
    "trace",
]
