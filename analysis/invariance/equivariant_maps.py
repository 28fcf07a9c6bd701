"""All linear maps between two representations that commute with a group: a basis, and how many there are, counted twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt
from typing import Any

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from ..errors import ArgumentError, CapacityError, OperandError
from ..spectra.results import _axes
from .closure import closure

_LARGEST = 4096  # entries of a map: the dense decomposition beyond takes minutes
_ORDER = 5040  # elements that are walked through for the characters
_CLEAR = 1e3  # factor over rounding from which on a singular value is certainly none of the null space
_EQUAL = 1e-8  # relative error of a commutator that passes for rounding

Matrices = Mapping[Any, Any]


@dataclass(frozen=True, repr=False)
class EquivariantMaps:
    r"""The space of W with W ρ_in(g) = ρ_out(g) W for every g.

    Attributes:
        basis: (dim, d_out, d_in), orthonormal in the Frobenius product, float64 on the CPU.
        singular: (d_in d_out,), singular values of the constraints, in ascending order, in units of the largest.
        tolerance: below which a singular value is rounding, 50 ε κ √(d_in d_out), κ the worst condition of a generator and ε
            that of the coarsest dtype in which matrices came that are not of whole numbers.
        order: of the group that the generators generate; None if it is infinite or was not walked through.
        characters: the dimension by characters, None without the order.

    """

    basis: Tensor
    singular: Tensor
    tolerance: float
    order: int | None
    characters: float | None

    @property
    def dimension(self) -> int:
        """The number of independent maps, by the null space."""
        return len(self.basis)

    @property
    def gap(self) -> tuple[float, float]:
        """The largest singular value taken for zero and the smallest that is not (0 and infinity where there is none)."""
        return (float(self.singular[self.dimension - 1]) if self.dimension else 0.0), (
            float(self.singular[self.dimension]) if self.dimension < len(self.singular) else inf
        )

    @property
    def interval(self) -> tuple[int, int]:
        """The least and the largest dimension that rounding allows."""
        return self.dimension, int((self.singular <= _CLEAR * self.tolerance).sum())

    @property
    def converged(self) -> bool:
        """Whether rounding leaves one dimension, and it is that by characters where that is known."""
        low, high = self.interval
        return low == high and (self.characters is None or abs(self.characters - low) < 0.1)

    def project(self, weight: Tensor) -> Tensor:
        """The equivariant map nearest to a matrix (d_out, d_in).

        Example:
            >>> cycle = {"shift": torch.eye(3).roll(1, 0)}
            >>> maps = equivariant_maps(cycle, cycle)
            >>> torch.round(maps.project(torch.diag(torch.tensor([0.0, 0.0, 3.0]).double())), decimals=9).diagonal().tolist()
            [1.0, 1.0, 1.0]

        """
        if tuple(weight.shape) != tuple(self.basis.shape[1:]):
            expected, given = f"a matrix {tuple(self.basis.shape[1:])}", f"shape {tuple(weight.shape)}"
            raise OperandError("weight", expected, given, "Pass W with a row for each output.")
        weight = weight if weight.is_floating_point() else weight.double()
        basis = self.basis.to(weight)
        return torch.einsum("kab,kcd,cd->ab", basis, basis, weight)

    def __repr__(self) -> str:
        low, high = self.gap
        size = "group not walked through" if self.order is None else f"{self.order} elements"
        count = "" if self.characters is None else f", by characters {self.characters:.6g}"
        state = "" if self.converged else "; not converged"
        rows, columns = self.basis.shape[1:]
        return (
            f"EquivariantMaps(dimension {self.dimension} of {rows * columns}{count}; {size}; "
            f"singular values ≤ {low:.1e} and ≥ {high:.1e}{state})"
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        arrays = {"basis": self.basis.tolist(), "singular": self.singular.tolist(), "shape": list(self.basis.shape)}
        return {**vars(self), **arrays}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> EquivariantMaps:
        """The inverse of :meth:`to_dict`."""
        parts = {name: torch.tensor(record[name], dtype=torch.float64, device="cpu") for name in ("basis", "singular")}
        parts["basis"] = parts["basis"].reshape(record["shape"])
        return cls(**{**{name: value for name, value in record.items() if name != "shape"}, **parts})

    def plot(self, ax: Any = None) -> Any:
        """The singular values with the tolerance, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.semilogy(np.arange(1, len(self.singular) + 1), self.singular.clamp(min=1e-18), "o", markersize=3)
        ax.axhline(self.tolerance, color="0.5", linestyle="--", linewidth=1, label="rounding")
        ax.axvline(self.dimension + 0.5, color="0.8", linewidth=1)
        ax.set(xlabel="number", ylabel="singular value over the largest")
        ax.legend()
        return ax


def equivariant_maps(
    rho_in: Matrices, rho_out: Matrices, group: Matrices | None = None, algebra: Collection[Any] = ()
) -> EquivariantMaps:
    r"""The linear maps that commute with a group, from matrices of its generators alone.

    .. math:: \operatorname{Hom}_G = \{W : \rho_\text{out}(g) W = W \rho_\text{in}(g)\}, \qquad
        \dim = \frac1{|G|} \sum_g \overline{\chi_\text{out}(g)}\,\chi_\text{in}(g).

    The left side is the null space of ρ_out ⊗ 1 − 1 ⊗ ρ_inᵀ, stacked over the generators, by a singular value decomposition;
    each scaled to matrices of norm one, so that the length of a derivative does not matter; the right one, over the finite group that they generate, is a second count that shares nothing with it.

    Args:
        rho_in: generator → its matrix (d_in, d_in) on inputs, as ``action.matrix(g, shape)`` gives them. For tensors of order k
            take Kronecker powers, for fields on a grid the product with the grid's permutations.
        rho_out: the same generators → (d_out, d_out).
        group: the same generators → matrices of a faithful representation. With it both others are held to be homomorphisms;
            without it the group is the one that the pairs (ρ_in, ρ_out) generate.
        algebra: the generators that are derivatives at the identity, A with ρ(e^{tA}) = e^{tρ(A)}, of a continuous group; the
            constraint reads the same. With ``group``, commutators are compared instead of words.

    Assumptions: real matrices; the count by characters needs a group of at most 5040 elements, else it is left out.

    Cost: a dense decomposition in d_in d_out unknowns, at most 4096; one product an element and generator.

    Errors: ``ArgumentError`` for names that do not match, ``OperandError`` for matrices that do not fit, are complex, singular
    or, with ``group``, no homomorphism; ``CapacityError`` beyond 4096 unknowns.

    Source: maron2019invariant, finzi2021practical.

    Example:
        What commutes with a cyclic shift is circulant; a layer on sets has two weights:

        >>> shift = {"shift": torch.eye(12).roll(1, 0)}
        >>> equivariant_maps(shift, shift).dimension
        12
        >>> swaps = {"cycle": torch.eye(4).roll(1, 0), "swap": torch.eye(4)[[1, 0, 2, 3]]}
        >>> maps = equivariant_maps(swaps, swaps)
        >>> maps.dimension, maps.order, round(maps.characters, 9)
        (2, 24, 2.0)

    """
    given = {"rho_in": rho_in, "rho_out": rho_out} | ({} if group is None else {"group": group})
    names = list(rho_in)
    if not names or any(set(matrices) != set(names) for matrices in given.values()) or not set(algebra) <= set(names):
        expected = "the same generators, at least one, in rho_in, rho_out and group, and those of algebra among them"
        listed = "; ".join(f"{name}: {list(matrices)}" for name, matrices in given.items())
        raise ArgumentError("generators", expected, listed, "Give each generator a matrix in every representation.")
    reps = {name: {g: _matrix(name, g, matrices[g]) for g in names} for name, matrices in given.items()}
    for name, matrices in reps.items():
        _check(name, matrices, algebra)
    order, characters = None, None
    if algebra:
        if group is not None:
            _commutators(reps, algebra)
    elif (walked := closure(reps, ["rho_in", "rho_out"] if group is None else ["group"], _ORDER)) is not None:
        order = walked.order
        characters = float((walked.traces["rho_in"] * walked.traces["rho_out"]).mean())  # real: no conjugate
    eps = max(_rounding(matrices[g]) for matrices in (rho_in, rho_out) for g in names)
    basis, singular, tolerance = _null_space(reps["rho_in"], reps["rho_out"], algebra, eps)
    return EquivariantMaps(basis, singular, tolerance, order, characters)


def _null_space(
    rho_in: Matrices, rho_out: Matrices, algebra: Collection[Any], eps: float
) -> tuple[Tensor, Tensor, float]:
    d_in, d_out = len(next(iter(rho_in.values()))), len(next(iter(rho_out.values())))
    unknowns = d_in * d_out
    if unknowns > _LARGEST:
        given = f"{d_out} × {d_in} = {unknowns}"
        remedy = "Split the representations into direct summands and ask for each pair of them."
        raise CapacityError("rho_out ⊗ rho_in", f"at most {_LARGEST} entries of a map", given, remedy)
    units = [torch.eye(d, dtype=torch.float64, device="cpu") for d in (d_in, d_out)]
    size = {g: max(float(torch.linalg.matrix_norm(rho[g], 2)) for rho in (rho_in, rho_out)) or 1.0 for g in rho_in}
    rows = [
        torch.kron(rho_out[g] / size[g], units[0]) - torch.kron(units[1], (rho_in[g] / size[g]).T.contiguous())
        for g in rho_in
    ]
    _, values, vectors = linalg.svd(torch.cat(rows).numpy(), full_matrices=False)
    scale = max(float(values[0]), np.finfo(float).tiny)
    singular = torch.from_numpy(values[::-1] / scale)
    finite = [m for rho in (rho_in, rho_out) for g, m in rho.items() if g not in algebra]
    condition = max((float(torch.linalg.cond(m)) for m in finite), default=1.0)
    tolerance = 50 * sqrt(unknowns) * eps * condition
    dimension = unknowns if float(values[0]) <= tolerance else int((singular <= tolerance).sum())
    if dimension == unknowns:
        singular = torch.zeros_like(singular)
    basis = torch.from_numpy(vectors[unknowns - dimension :].copy()).reshape(dimension, d_out, d_in)
    return basis, singular, tolerance


def _matrix(name: str, g: Any, matrix: Any) -> Tensor:
    given = torch.as_tensor(matrix).detach()
    if given.is_complex():
        remedy = "Pass its real form, [[Re, −Im], [Im, Re]]."
        raise OperandError(f"{name}[{g!r}]", "a real matrix", str(given.dtype), remedy)
    found = given.to("cpu", torch.float64).contiguous()
    if found.dim() != 2 or found.shape[0] != found.shape[1] or not len(found):
        remedy = "Pass action.matrix(g, shape), or the matrix itself."
        raise OperandError(f"{name}[{g!r}]", "a square matrix", f"shape {tuple(found.shape)}", remedy)
    if not bool(found.isfinite().all()):
        raise OperandError(f"{name}[{g!r}]", "finite entries", "some that are not", "Correct the matrix.")
    return found


def _rounding(matrix: Any) -> float:
    """The rounding error of a matrix's entries, of the dtype in which it came; of float64 where they are whole numbers."""
    found = torch.as_tensor(matrix).detach()
    whole = not found.is_floating_point() or bool((found == found.round()).all())
    return float(np.finfo(float).eps) if whole else torch.finfo(found.dtype).eps


def _check(name: str, matrices: Mapping[Any, Tensor], algebra: Collection[Any]) -> None:
    sizes = {g: len(matrix) for g, matrix in matrices.items()}
    if len(set(sizes.values())) > 1:
        raise OperandError(
            name, "matrices of one size", f"{sizes}", "A representation acts on one space: correct them."
        )
    for g, matrix in matrices.items():
        if g not in algebra and float(torch.linalg.cond(matrix)) > 1e8:
            remedy = "The matrix of a group element has an inverse; name derivatives in `algebra`."
            raise OperandError(f"{name}[{g!r}]", "an invertible matrix", "one that is singular to rounding", remedy)


def _commutators(reps: Mapping[str, Mapping[Any, Tensor]], algebra: Collection[Any]) -> None:
    """Hold ρ_in and ρ_out to the commutators of the faithful matrices, as far as the generators span these."""
    faithful = reps["group"]
    span = torch.stack([faithful[g].flatten() for g in algebra], 1)
    for g, h in combinations(algebra, 2):
        bracket = _bracket(faithful, g, h).flatten()
        weights = torch.linalg.lstsq(span, bracket[:, None]).solution[:, 0]
        if float((span @ weights - bracket).norm()) > _EQUAL * (1 + float(bracket.norm())):
            continue  # the generators' brackets go on: a homomorphism for all that these two say
        for name in ("rho_in", "rho_out"):
            found = _bracket(reps[name], g, h)
            due = sum((float(w) * reps[name][k] for w, k in zip(weights, algebra, strict=True)), 0 * found)
            if float((found - due).norm()) > _EQUAL * (1 + float(found.norm())):
                remedy = "Correct the derivatives of these two, or leave `group` out."
                given = f"another commutator for [{g}, {h}]"
                raise OperandError(name, "a homomorphism, [ρ(A), ρ(B)] = ρ([A, B])", given, remedy)


def _bracket(matrices: Mapping[Any, Tensor], g: Any, h: Any) -> Tensor:
    return matrices[g] @ matrices[h] - matrices[h] @ matrices[g]
