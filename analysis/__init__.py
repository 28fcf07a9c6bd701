"""Analyzers for any PyTorch model: estimators with error bars.

Use: ``import lemmata.analysis as la``.
"""

from .errors import LemmataError
from .operators import Dense, Hessian, Layout, Operator, Plan
from .spectra import Eigenpairs, Estimate, eigenpairs

__all__ = ["Dense", "Eigenpairs", "Estimate", "Hessian", "Layout", "LemmataError", "Operator", "Plan", "eigenpairs"]
