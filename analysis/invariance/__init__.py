"""What a model must not notice: group actions, equivariance, Lie derivatives, Lipschitz constants, isomorphism."""

from . import actions
from .equivariance import equivariance
from .equivariance_results import Equivariance, LayerEquivariance
from .equivariant_maps import (
    EquivariantMaps,
    equivariant_maps,
)
from .generators import (
    Generator,
    image_generator,
)
from .isomorphism import WLClasses, wl_classes
from .lie import (
    lie_derivative,
    lie_difference,
)
from .lie_results import (
    LayerDefect,
    LieDerivative,
)
from .report import InvarianceReport, invariance_report
from .separation import Separation, separation

__all__ = [
    "Equivariance",
    "EquivariantMaps",
    "Generator",
    "InvarianceReport",
    "LayerDefect",
    "LayerEquivariance",
    "LieDerivative",
    "Separation",
    "WLClasses",
    "actions",
    "equivariance",
    "equivariant_maps",
    "image_generator",
    "invariance_report",
    "lie_derivative",
    "lie_difference",
    "separation",
    "wl_classes",
]
