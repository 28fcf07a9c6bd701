"""How signals, gradients and kernels travel through depth, width and time."""

from .conservation import Balance, Conserved, Drift, conserved
from .deep_linear import mode_strength, mode_time
from .descent import Discretisation, discretisation, penalised
from .escape import Escape, escape_time, saddle_escape
from .flow import Flow, flow, integrate
from .health import GradientHealth, ParameterHealth, gradient_health
from .lazy import LazyRich, lazy_rich
from .linearised_training import LinearisedTraining
from .lyapunov import LyapunovSpectrum, TangentMap, lyapunov_exponents, tangent_maps
from .mean_field import DepthScales, MeanField, Propagation, critical_weight_variance
from .noise_scale import NoiseScale, noise_scale
from .training_curve import TrainingCurve
from .verdicts import LayerHealth

__all__ = [
    "Balance",
    "Conserved",
    "DepthScales",
    "Discretisation",
    "Drift",
    "Escape",
    "Flow",
    "GradientHealth",
    "LayerHealth",
    "LazyRich",
    "LinearisedTraining",
    "LyapunovSpectrum",
    "MeanField",
    "NoiseScale",
    "ParameterHealth",
    "Propagation",
    "TangentMap",
    "TrainingCurve",
    "conserved",
    "critical_weight_variance",
    "discretisation",
    "escape_time",
    "flow",
    "gradient_health",
    "integrate",
    "lazy_rich",
    "lyapunov_exponents",
    "mode_strength",
    "mode_time",
    "noise_scale",
    "penalised",
    "saddle_escape",
    "tangent_maps",
]
