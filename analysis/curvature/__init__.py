"""Curvature of a loss: how sharp it is, where its large eigenvalues come from, and what the gradient sees of them."""

from .attribution import Attribution, attribute
from .class_structure import ClassStructure, class_structure
from .eigenspace import Eigenspace, EigenspaceOverlap, eigenspace, eigenspace_overlap
from .overlap import GradientOverlap, gradient_overlap
from .rescaling import RescalingTable, rescaled, rescaling_behaviour
from .sharpness import Measure, SharpnessPanel, sharpness

__all__ = [
    "Attribution",
    "ClassStructure",
    "Eigenspace",
    "EigenspaceOverlap",
    "GradientOverlap",
    "Measure",
    "RescalingTable",
    "SharpnessPanel",
    "attribute",
    "class_structure",
    "eigenspace",
    "eigenspace_overlap",
    "gradient_overlap",
    "rescaled",
    "rescaling_behaviour",
    "sharpness",
]
