"""The matrix of a quadratic form in other coordinates."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..operators.base import Derived, Operator
from ..operators.layout import Layout


class Congruence(Derived):
    r""":math:`B^\top A B` for a symmetric operator A and a linear map B.

    Args:
        operator: A, (P, P).
        layout: of the vectors that B takes, (Q,).
        push: B on the rows of a (k, Q) tensor, to (k, P).
        pull: Bᵀ on the rows of a (k, P) tensor, to (k, Q).

    Cost: a product takes one of A.

    Example:
        >>> import torch
        >>> from lemmata.analysis import Dense
        >>> double = lambda rows: 2 * rows
        >>> A = Dense(torch.eye(2))
        >>> Congruence(A, A.layout, double, double).dense()
        tensor([[4., 0.],
                [0., 4.]])

    """

    def __init__(
        self, operator: Operator, layout: Layout, push: Callable[[Tensor], Tensor], pull: Callable[[Tensor], Tensor]
    ) -> None:
        self.operator, self.layout, self.push, self.pull = operator, layout, push, pull
        self.dtype, self.device = operator.dtype, operator.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return self.pull(self.operator._multiply(self.push(vectors)))
