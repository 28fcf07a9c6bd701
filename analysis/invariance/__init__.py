"""What a model must not notice: group actions, equivariance, Lie derivatives, Lipschitz constants, isomorphism."""

from . import actions
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
from .separation import Separation, separation

__all__ = [
    "EquivariantMaps",
    "Generator",
    "LayerDefect",
    "LieDerivative",
    "Separation",
    "WLClasses",
    "actions",
    "equivariant_maps",
    "image_generator",
    "lie_derivative",
    "lie_difference",
    "separation",
    "wl_classes",
]
