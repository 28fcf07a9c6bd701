"""How signals, gradients and kernels travel through depth, width and time."""

from . import infinite_width
from .conservation import Balance, Conserved, Drift, conserved
from .deep_linear import mode_strength, mode_time
from .descent import Discretisation, discretisation, penalised
from .empirical_kernels import EmpiricalKernel, empirical_nngp, empirical_ntk
from .ensembles import Ensemble
from .escape import Escape, escape_time, saddle_escape
from .flow import Flow, flow, integrate
from .gradient_norms import GradientNorms, gradient_norms
from .health import GradientHealth, ParameterHealth, gradient_health
from .jacobians import Isometry, JacobianSpectrum, jacobian_spectrum
from .lazy import LazyRich, lazy_rich
from .linearised_training import LinearisedTraining
from .lyapunov import LyapunovSpectrum, TangentMap, lyapunov_exponents, tangent_maps
from .mean_field import DepthScales, MeanField, Propagation, critical_weight_variance
from .noise_scale import NoiseScale, noise_scale
from .propagated import Depth, LayerPropagation, SignalPropagation
from .propagation import signal_propagation
from .tracker import Tracker, track
from .training_curve import TrainingCurve
from .training_record import Track
from .verdicts import LayerHealth

__all__ = [
    "Balance",
    "Conserved",
    "Depth",
    "DepthScales",
    "Discretisation",
    "Drift",
    "EmpiricalKernel",
    "Ensemble",
    "Escape",
    "Flow",
    "GradientHealth",
    "GradientNorms",
    "Isometry",
    "JacobianSpectrum",
    "LayerHealth",
    "LayerPropagation",
    "LazyRich",
    "LinearisedTraining",
    "LyapunovSpectrum",
    "MeanField",
    "NoiseScale",
    "ParameterHealth",
    "Propagation",
    "SignalPropagation",
    "TangentMap",
    "Track",
    "Tracker",
    "TrainingCurve",
    "conserved",
    "critical_weight_variance",
    "discretisation",
    "empirical_nngp",
    "empirical_ntk",
    "escape_time",
    "flow",
    "gradient_health",
    "gradient_norms",
    "infinite_width",
    "integrate",
    "jacobian_spectrum",
    "lazy_rich",
    "lyapunov_exponents",
    "mode_strength",
    "mode_time",
    "noise_scale",
    "penalised",
    "saddle_escape",
    "signal_propagation",
    "tangent_maps",
    "track",
]
