"""Explicit networks that witness theorems: ``constructions.square(6).check()`` measures one against its bound.

One hidden layer: :func:`memoriser`, :func:`sigmoid_steps`, :func:`ridge_sum`, :func:`maurey_barron`. Depth: :func:`sawtooth`,
:func:`square`, :func:`product`, :func:`polynomial`. Few neurons a layer: :func:`identity`, :func:`max_tree`, :func:`narrow_cone`,
:func:`narrow_line`. Sets and sequences: :func:`power_sums`, :func:`equivariant_table`, :func:`automaton`, :func:`copy_head`,
:func:`average_head`. Flows: :func:`reflection_flow`.
"""

from .construction import Construction, Witness
from .constructions_deep import polynomial, product, sawtooth, square
from .constructions_narrow import identity, max_tree, narrow_cone, narrow_line
from .constructions_sequences import automaton, average_head, copy_head, reflection_flow
from .constructions_sets import equivariant_table, power_sums
from .constructions_shallow import maurey_barron, memoriser, ridge_sum, sigmoid_steps

__all__ = [
    "Construction",
    "Witness",
    "automaton",
    "average_head",
    "copy_head",
    "equivariant_table",
    "identity",
    "maurey_barron",
    "max_tree",
    "memoriser",
    "narrow_cone",
    "narrow_line",
    "polynomial",
    "power_sums",
    "product",
    "reflection_flow",
    "ridge_sum",
    "sawtooth",
    "sigmoid_steps",
    "square",
]
