"""Operators for SciPy's solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator


def as_linear_operator(matrix: Any, transpose: Any) -> LinearOperator:
    """A ``scipy.sparse.linalg.LinearOperator`` of two things that multiply tensors, one the transpose of the other."""

    def on_arrays(factor: Any) -> Callable[[np.ndarray], np.ndarray]:
        def product(array: np.ndarray) -> np.ndarray:
            operand = torch.as_tensor(np.ascontiguousarray(array), dtype=matrix.dtype, device=matrix.device)
            return (factor @ operand).cpu().numpy()

        return product

    left, right = on_arrays(matrix), on_arrays(transpose)
    dtype = torch.empty(0, dtype=matrix.dtype).numpy().dtype
    return LinearOperator(matrix.shape, matvec=left, matmat=left, rmatvec=right, rmatmat=right, dtype=dtype)
