"""Matrix-free numerics on any symmetric operator."""

from .diagonal import diagonal
from .eigenpairs import eigenpairs
from .frobenius import frobenius_norm
from .results import Diagonal, Eigenpairs, Estimate
from .structured import gram_spectrum
from .trace import trace

__all__ = ["Diagonal", "Eigenpairs", "Estimate", "diagonal", "eigenpairs", "frobenius_norm", "gram_spectrum", "trace"]
