"""Analyzers for any PyTorch model: estimators with error bars.

Use: ``import lemmata.analysis as la``.
"""

from .errors import LemmataError
from .operators import GGN, NTK, Dense, EmpiricalFisher, Fisher, Hessian, Jacobian, Layout, Operator, Plan
from .spectra import Eigenpairs, Estimate, eigenpairs

__all__ = [
    "GGN",
    "NTK",
    "Dense",
    "Eigenpairs",
    "EmpiricalFisher",
    "Estimate",
    "Fisher",
    "Hessian",
    "Jacobian",
    "Layout",
    "LemmataError",
    "Operator",
    "Plan",
    "eigenpairs",
]
