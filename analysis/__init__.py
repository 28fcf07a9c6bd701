"""Analyzers for any PyTorch model: estimators with error bars.

Use: ``import lemmata.analysis as la``.
"""

from .audit import Audit, Check, audit
from .errors import LemmataError
from .gradient_flow import GradientHealth, NoiseScale, conserved, gradient_health, noise_scale
from .operators import GGN, NTK, Dense, EmpiricalFisher, Fisher, Hessian, Jacobian, Layout, Operator, Plan
from .spectra import (
    Diagonal,
    Eigenpairs,
    Estimate,
    Solution,
    SpectralDensity,
    diagonal,
    eigenpairs,
    frobenius_norm,
    gram_spectrum,
    logdet,
    solve,
    spectral_density,
    trace,
)

__all__ = [
    "GGN",
    "NTK",
    "Audit",
    "Check",
    "Dense",
    "Diagonal",
    "Eigenpairs",
    "EmpiricalFisher",
    "Estimate",
    "Fisher",
    "GradientHealth",
    "Hessian",
    "Jacobian",
    "Layout",
    "LemmataError",
    "NoiseScale",
    "Operator",
    "Plan",
    "Solution",
    "SpectralDensity",
    "audit",
    "conserved",
    "diagonal",
    "eigenpairs",
    "frobenius_norm",
    "gradient_health",
    "gram_spectrum",
    "logdet",
    "noise_scale",
    "solve",
    "spectral_density",
    "trace",
]
