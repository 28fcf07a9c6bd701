"""The solution of a linear system, with its measured residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from .results import _axes, _two_digits


@dataclass(frozen=True, repr=False)
class Solution:
    r"""x with Ax ≈ b, one or several columns.

    Attributes:
        x: (P,) or (P, k), in the operator's dtype and on its device.
        residuals: ‖b − Ax‖, () or (k,), float64 on the CPU, measured with a product of A and x.
        sizes: ‖b‖, () or (k,), float64 on the CPU.
        at_least: what no eigenvalue is below, −∞ where nothing is known.
        matvecs: operator products spent, those of the residuals included.
        converged: whether every residual met the tolerance that was asked for.

    Example:
        >>> size = torch.tensor(2.0)
        >>> Solution(torch.ones(4), 1e-3 * size, size, 0.5, 9, True)
        Solution(4 entries, ‖b − Ax‖ / ‖b‖ = 0.0010, ‖x − A⁻¹b‖ ≤ 0.0040; converged, 9 products)

    """

    x: Tensor
    residuals: Tensor
    sizes: Tensor
    at_least: float
    matvecs: int
    converged: bool

    @property
    def errors(self) -> Tensor:
        r"""Bounds on :math:`\|x - A^{-1} b\| \le \|b - Ax\| / \lambda_{\min}`, ∞ where no positive bound on λ is known."""
        return self.residuals / self.at_least if self.at_least > 0 else torch.full_like(self.residuals, inf)

    @property
    def relative(self) -> Tensor:
        """‖b − Ax‖ / ‖b‖; 0 where both are."""
        return torch.where(self.residuals > 0, self.residuals / self.sizes, 0)

    def __repr__(self) -> str:
        worst = max(self.relative.reshape(-1).tolist(), default=0.0)
        error = max(self.errors.reshape(-1).tolist(), default=0.0)
        bound = f", ‖x − A⁻¹b‖ ≤ {_two_digits(error)}" if error < inf else ""
        shape = " × ".join(map(str, self.x.shape))
        state = "converged" if self.converged else "not converged"
        return (
            f"Solution({shape} entries, ‖b − Ax‖ / ‖b‖ = {_two_digits(worst)}{bound}; {state}, {self.matvecs} products)"
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        tensors = {name: getattr(self, name).tolist() for name in ("x", "residuals", "sizes")}
        return {**vars(self), **tensors, "dtype": str(self.x.dtype).removeprefix("torch.")}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Solution:
        """The inverse of :meth:`to_dict`, on the CPU."""
        x = torch.tensor(record["x"], dtype=getattr(torch, record["dtype"]))
        residuals, sizes = (torch.tensor(record[name], dtype=torch.float64) for name in ("residuals", "sizes"))
        return cls(x, residuals, sizes, record["at_least"], record["matvecs"], record["converged"])

    def plot(self, ax: Any = None) -> Any:
        """The relative residual of each column, on a logarithmic axis of matplotlib (new axes if None)."""
        ax = _axes(ax)
        relative = self.relative.reshape(-1).clamp(min=torch.finfo(torch.float64).tiny)
        ax.semilogy(range(1, len(relative) + 1), relative, "o")
        ax.set_xlabel("right-hand side")
        ax.set_ylabel("‖b − Ax‖ / ‖b‖")
        return ax
