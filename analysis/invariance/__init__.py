"""What a model must not notice: group actions, equivariance, Lie derivatives, Lipschitz constants, isomorphism."""

from . import actions, frames
from .equivariance import equivariance
from .equivariance_results import Equivariance, LayerEquivariance
from .equivariant_maps import (
    EquivariantMaps,
    equivariant_maps,
)
from .frames import (
    Canonicalised,
    Frame,
    canonicalise,
)
from .generators import (
    Generator,
    image_generator,
)
from .invariance_split import (
    InvarianceSplit,
    invariance_split,
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
from .similarity import Similarity, SimilarityIndex, similarity
from .symmetrise import (
    Averaged,
    Symmetrised,
    orbit,
    symmetrise,
)

__all__ = [
    "Averaged",
    "Canonicalised",
    "Equivariance",
    "EquivariantMaps",
    "Frame",
    "Generator",
    "InvarianceReport",
    "InvarianceSplit",
    "LayerDefect",
    "LayerEquivariance",
    "LieDerivative",
    "Separation",
    "Similarity",
    "SimilarityIndex",
    "Symmetrised",
    "WLClasses",
    "actions",
    "canonicalise",
    "equivariance",
    "equivariant_maps",
    "frames",
    "image_generator",
    "invariance_report",
    "invariance_split",
    "lie_derivative",
    "lie_difference",
    "orbit",
    "separation",
    "similarity",
    "symmetrise",
    "wl_classes",
]
