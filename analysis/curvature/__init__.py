"""Curvature of a loss: slices and paths, sharpness, classes, layers, saddles, and how it moves while a network trains."""

from .attribution import Attribution, attribute
from .class_structure import ClassStructure, class_structure
from .connectivity import LossPath, bezier_curve, linear_barrier
from .directions import Trajectory, random_directions, trajectory_directions
from .eigenspace import Eigenspace, EigenspaceOverlap, eigenspace, eigenspace_overlap
from .layers import BlockCurvature, LayerCurvature, per_layer
from .matching import Matching, match_weights
from .overlap import GradientOverlap, gradient_overlap
from .rescaling import RescalingTable, rescaled, rescaling_behaviour
from .saddles import CriticalPoint, MorseIndex, critical_point, morse_index
from .sharpness import Measure, SharpnessPanel, sharpness
from .slices import LossSlice, loss_slice
from .stability import (
    Preconditioned,
    adam_preconditioner,
    adam_threshold,
    gradient_descent_threshold,
    heavy_ball_threshold,
    nesterov_threshold,
)
from .tracking import CurvatureRecord, CurvatureTracker

__all__ = [
    "Attribution",
    "BlockCurvature",
    "ClassStructure",
    "CriticalPoint",
    "CurvatureRecord",
    "CurvatureTracker",
    "Eigenspace",
    "EigenspaceOverlap",
    "GradientOverlap",
    "LayerCurvature",
    "LossPath",
    "LossSlice",
    "Matching",
    "Measure",
    "MorseIndex",
    "Preconditioned",
    "RescalingTable",
    "SharpnessPanel",
    "Trajectory",
    "adam_preconditioner",
    "adam_threshold",
    "attribute",
    "bezier_curve",
    "class_structure",
    "critical_point",
    "eigenspace",
    "eigenspace_overlap",
    "gradient_descent_threshold",
    "gradient_overlap",
    "heavy_ball_threshold",
    "linear_barrier",
    "loss_slice",
    "match_weights",
    "morse_index",
    "nesterov_threshold",
    "per_layer",
    "random_directions",
    "rescaled",
    "rescaling_behaviour",
    "sharpness",
    "trajectory_directions",
]
