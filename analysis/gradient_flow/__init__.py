"""How signals, gradients and kernels travel through depth, width and time."""

from .mean_field import DepthScales, MeanField, Propagation, critical_weight_variance

__all__ = ["DepthScales", "MeanField", "Propagation", "critical_weight_variance"]
