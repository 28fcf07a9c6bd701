"""Groups that act on a model's inputs: ``actions.rotations(4).on_inputs(g, x)``.

Images: :func:`translations`, :func:`rotations` (C_n, and D_n with reflections). Points: :func:`motions` (SO, O, SE, E).
Sets, graphs and sequences: :func:`permutations`, :func:`relabellings`, :func:`cyclic_shifts`, :func:`reversal`. Numbers:
:func:`scalings`, :func:`signs`. Any other: :func:`finite`, or :class:`Action` itself. :func:`homomorphism` checks that it is
a group's, :func:`interpolation` how far interpolation keeps it from being one.
"""

from .action import LIMIT, Action, distance, finite, invariant
from .action_checks import homomorphism, interpolation
from .action_grids import rotations, translations
from .action_orders import cyclic_shifts, permutations, relabellings, reversal
from .action_points import haar, motions, scalings, signs

__all__ = [
    "LIMIT",
    "Action",
    "cyclic_shifts",
    "distance",
    "finite",
    "haar",
    "homomorphism",
    "interpolation",
    "invariant",
    "motions",
    "permutations",
    "relabellings",
    "reversal",
    "rotations",
    "scalings",
    "signs",
    "translations",
]
