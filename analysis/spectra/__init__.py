"""Matrix-free numerics on any symmetric operator."""

from .eigenpairs import eigenpairs
from .results import Eigenpairs, Estimate

__all__ = ["Eigenpairs", "Estimate", "eigenpairs"]
