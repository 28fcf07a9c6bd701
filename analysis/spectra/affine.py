"""Is a model piecewise affine in each of its parameters? Read off the graph of its output."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..operators.per_example import edges, nodes

#: Nodes of a graph that are piecewise linear in their only differentiable input, or in all of them together.
_LINEAR_NODES = {
    f"{name}Backward{i}"
    for i in range(3)
    for name in (
        "View UnsafeView Reshape ReshapeAlias Alias Clone Squeeze Unsqueeze Permute Transpose T Expand Slice Select Cat "
        "Stack Split Unbind Add Sub Neg Sum Mean Relu LeakyRelu MaxPool2DWithIndices AvgPool2D AdaptiveAvgPool2D "
        "AsStrided ConstantPadNd Flatten Hardtanh Index"
    ).split()
}
#: Nodes that multiply: the places of their factors, of which one at most may depend on anything but a parameter.
_PRODUCTS = {"AddmmBackward0": (1, 2), "MmBackward0": (0, 1), "ConvolutionBackward0": (0, 1)}


def affine_in_each(output: Tensor) -> bool:
    """Is a graph piecewise affine in each single parameter? Proved by its nodes, or not claimed."""
    for node in nodes(output):
        kind = type(node).__name__
        if kind in _PRODUCTS:
            factors = [node.next_functions[i][0] for i in _PRODUCTS[kind]]
            if sum(not _is_parameter(factor) for factor in factors) > 1:
                return False
        elif kind not in _LINEAR_NODES and kind != "AccumulateGrad":
            return False
    return all(count == 1 for count in edges(output).values())


def _is_parameter(node: Any) -> bool:
    while type(node).__name__ in ("TBackward0", "TransposeBackward0"):
        node = node.next_functions[0][0]
    return node is None or hasattr(node, "variable")
