"""How signals, gradients and kernels travel through depth, width and time."""

from .lyapunov import LyapunovSpectrum, TangentMap, lyapunov_exponents, tangent_maps
from .mean_field import DepthScales, MeanField, Propagation, critical_weight_variance

__all__ = [
    "DepthScales",
    "LyapunovSpectrum",
    "MeanField",
    "Propagation",
    "TangentMap",
    "critical_weight_variance",
    "lyapunov_exponents",
    "tangent_maps",
]
