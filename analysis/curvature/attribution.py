"""Which part of the Gauss–Newton matrix its outliers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, OperandError
from ..spectra.eigenpairs import eigenpairs
from ..spectra.results import Eigenpairs, _axes
from .class_structure import PARTS, ClassStructure
from .low_rank import LowRank
from .text_table import text_table


@dataclass(frozen=True, repr=False)
class Attribution:
    r"""The leading eigenvalues of a Gauss–Newton matrix, taken apart by classes.

    Attributes:
        values: λ, (k,), descending, with ``residuals``, (k,).
        shares: for each part A, :math:`u^\top A u / u^\top G u` of each eigenvector, (k,); over the parts they add up to 1.
        errors: bounds on the error of each share for the exact eigenvector, (k,); 1, which says nothing, where an
            eigenvalue is not separated from its neighbours.
        overlaps: ‖P u‖², (k,), with P the projector on the range of the class part.
        knockouts: for each part A, the k leading eigenvalues of G − A, (k,), descending, found to the same tolerance.
        matvecs: products spent on all of them.
        converged: whether all eigenpairs have converged.

    """

    values: Tensor
    residuals: Tensor
    shares: dict[str, Tensor]
    errors: Tensor
    overlaps: Tensor
    knockouts: dict[str, Tensor]
    matvecs: int
    converged: bool

    def rows(self) -> list[tuple[str, ...]]:
        """A table: eigenvalue, shares of the parts, their error, overlap with the class part, knockouts."""
        table = []
        for i, value in enumerate(self.values.tolist()):
            shares = [f"{float(self.shares[part][i]):.3f}" for part in PARTS]
            knockouts = [f"{float(self.knockouts[part][i]):.4g}" for part in PARTS]
            error = f"{float(self.errors[i]):.1g}"
            table.append((f"{value:.5g}", *shares, error, f"{float(self.overlaps[i]):.3f}", *knockouts))
        return table

    def __repr__(self) -> str:
        header = ("λ", *PARTS, "±", "overlap", *(f"− {part}" for part in PARTS))
        state = "" if self.converged else "; not converged"
        title = f"Attribution({len(self.values)} eigenvalues, {self.matvecs} products{state})"
        return f"{title}\n{text_table(header, self.rows())}"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {key: _plain(item) for key, item in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Attribution:
        """The inverse of :meth:`to_dict`."""
        return cls(**{key: _tensor(item) for key, item in record.items()})

    def plot(self, ax: Any = None) -> Any:
        """The eigenvalues as bars stacked from the parts' shares, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        places, floor = range(1, len(self.values) + 1), torch.zeros(len(self.values))
        for part in PARTS:
            height = self.shares[part] * self.values
            ax.bar(places, height.tolist(), bottom=floor.tolist(), label=part)
            floor = floor + height
        ax.set_xlabel("index")
        ax.set_ylabel("eigenvalue of the Gauss–Newton matrix")
        ax.legend()
        return ax


def attribute(
    structure: ClassStructure, k: int | None = None, tol: float = 1e-3, max_steps: int | None = None, seed: int = 0
) -> Attribution:
    r"""Which part of the Gauss–Newton matrix each of its k leading eigenvalues comes from, and what is left without it.

    Three answers: the shares of each eigenvalue, :math:`\lambda = u^\top G u = \sum_A u^\top A u`; the overlap of the
    eigenvector with the range of the class part; and the knockouts, the spectrum of G − A. By Weyl's inequality a
    knockout lowers every eigenvalue or leaves it; outliers that come from a part vanish with it.

    Args:
        structure: the result of :func:`class_structure`.
        k: number of eigenvalues; that of the classes if None.
        tol, max_steps, seed: as for :func:`~lemmata.analysis.eigenpairs`.

    Cost: five sets of eigenpairs.

    Assumptions: those of :func:`~lemmata.analysis.eigenpairs`. A share is off by at most
    :math:`(\lambda_1 \sin\vartheta + r) / (\lambda - r)`, with :math:`\sin\vartheta \le r / \text{gap}` the angle of its
    eigenvector (sin Θ theorem). Within a cluster of eigenvalues only the sum of their shares has a meaning.

    Errors: ``OperandError`` for anything but a class structure; those of the eigenpairs.

    Source: Papyan 2020, Traces of class/cross-class structure pervade deep learning spectra.

    Example:
        Two data x = 1 and 3 of one class, both chances 1/2: λ = (1/8) Σ x² for each of the two classes, and the mean
        x = 2 gives the class part.

        >>> from lemmata.analysis.curvature.class_structure import class_structure
        >>> model = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> data = (torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.tensor([0, 0]))
        >>> found = attribute(class_structure(model, torch.nn.CrossEntropyLoss(), data), k=1)
        >>> round(float(found.values[0]), 6)
        2.5
        >>> [round(float(found.shares[part][0]), 6) for part in ("class", "within", "same")]
        [0.4, 0.1, 0.5]

    """
    if not isinstance(structure, ClassStructure):
        remedy = "Pass class_structure(model, nn.CrossEntropyLoss(), data)."
        raise OperandError("structure", "a ClassStructure", type(structure).__name__, remedy)
    size = structure.ggn.shape[0]
    count = min(len(structure.weights), size) if k is None else k
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= size:
        raise ArgumentError("k", f"an integer from 1 to P = {size}, or None", repr(k), "Pass the number of classes.")
    pairs = eigenpairs(structure.ggn, min(count + 1, size), "largest", tol, max_steps, seed)
    vectors = pairs.vectors[:, :count]
    forms = {part: _forms(operator @ vectors, vectors) for part, operator in structure.parts.items()}
    total = torch.stack(list(forms.values())).sum(0)
    knocked = {part: eigenpairs(structure.without(part), count, "largest", tol, max_steps, seed) for part in PARTS}
    between = structure.parts["class"]
    assert isinstance(between, LowRank)
    overlaps = (between.basis().double().T @ vectors.double()).square().sum(0).cpu()
    return Attribution(
        pairs.values[:count],
        pairs.residuals[:count],
        {part: form / total for part, form in forms.items()},
        _errors(pairs, count),
        overlaps,
        {part: found.values for part, found in knocked.items()},
        pairs.matvecs + count * len(PARTS) + sum(found.matvecs for found in knocked.values()),
        pairs.converged and all(found.converged for found in knocked.values()),
    )


def _forms(products: Tensor, vectors: Tensor) -> Tensor:
    return (products.double() * vectors.double()).sum(0).cpu()


def _errors(pairs: Eigenpairs, count: int) -> Tensor:
    """Bounds on the errors of the shares, from each eigenvalue's distance to the intervals of the others."""
    values, residuals = pairs.values, pairs.residuals
    distances = (values[:, None] - values[None]).abs() - residuals[None]
    gaps = distances.fill_diagonal_(torch.inf).amin(1)
    sines = torch.where(gaps > residuals, residuals / gaps.clamp(min=1e-300), torch.inf)
    floor = (values - residuals).clamp(min=0)
    bounds = torch.where(residuals > 0, values[0].abs() * sines + residuals, 0) / floor
    return bounds.nan_to_num(nan=1.0).clamp(max=1.0)[:count]


def _plain(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    return item.tolist() if isinstance(item, Tensor) else item


def _tensor(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _tensor(value) for key, value in item.items()}
    return torch.tensor(item, dtype=torch.float64) if isinstance(item, list) else item
