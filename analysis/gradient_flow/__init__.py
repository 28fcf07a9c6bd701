"""How signals, gradients and kernels travel through depth, width and time."""

from .conservation import Balance, Conserved, Drift, conserved
from .health import GradientHealth, ParameterHealth, gradient_health
from .lyapunov import LyapunovSpectrum, TangentMap, lyapunov_exponents, tangent_maps
from .mean_field import DepthScales, MeanField, Propagation, critical_weight_variance
from .noise_scale import NoiseScale, noise_scale
from .verdicts import LayerHealth

__all__ = [
    "Balance",
    "Conserved",
    "DepthScales",
    "Drift",
    "GradientHealth",
    "LayerHealth",
    "LyapunovSpectrum",
    "MeanField",
    "NoiseScale",
    "ParameterHealth",
    "Propagation",
    "TangentMap",
    "conserved",
    "critical_weight_variance",
    "gradient_health",
    "lyapunov_exponents",
    "noise_scale",
    "tangent_maps",
]
