"""A matrix given as a sum of outer products of a few vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators.base import Operator, Plan
from ..operators.layout import Layout


class LowRank(Operator):
    r"""The positive semidefinite matrix :math:`\sum_i s_i s_i^\top = S^\top S` of r vectors held as rows.

    Args:
        rows: S, (r, P).
        layout: names and shapes of the parts of a vector.

    Cost: r × P numbers held; a product takes 4 r P operations.

    Example:
        >>> A = LowRank(torch.tensor([[3.0, 4.0]]), Layout(("vector",), ((2,),)))
        >>> A @ torch.tensor([1.0, 0.0])
        tensor([ 9., 12.])
        >>> A.spectrum()
        tensor([25.], dtype=torch.float64)

    """

    def __init__(self, rows: Tensor, layout: Layout) -> None:
        self.rows, self.layout = rows, layout
        self.dtype, self.device = rows.dtype, rows.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return (vectors @ self.rows.T) @ self.rows

    def plan(self, k: int = 1) -> Plan:
        """Products at an assumed 10 Gflop/s."""
        return Plan(repr(self), k, 4e-10 * k * self.rows.numel(), self.rows.numel() * self.rows.element_size())

    def spectrum(self) -> Tensor:
        """Its r leading eigenvalues from the Gram matrix S Sᵀ, descending, float64 on the CPU; the others are zero."""
        return self._gram()[0]

    def basis(self) -> Tensor:
        """An orthonormal basis of its range, (P, rank), in the order of the eigenvalues; rounding is left out."""
        values, rotation = self._gram()
        largest = values.max() if len(values) else torch.zeros(())
        kept = values > 10 * len(values) * torch.finfo(self.dtype).eps * largest
        return torch.linalg.qr(self.rows.T @ (rotation[:, kept] / values[kept].sqrt()).to(self.rows))[0]

    def _gram(self) -> tuple[Tensor, Tensor]:
        rows = self.rows.double()
        values, rotation = torch.linalg.eigh((rows @ rows.T).cpu())
        return values.flip(0).clamp(min=0), rotation.flip(1)
