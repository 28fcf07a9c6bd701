"""The abstract symmetric operator on flat vectors, and its algebra."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, final

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from ..errors import ArgumentError, OperandError
from .export import as_linear_operator
from .layout import Layout, Selection


@dataclass(frozen=True)
class Plan:
    """What ``products`` applications of an operator are expected to take, stated before the run."""

    operator: str
    products: int
    seconds: float
    bytes: int

    def __repr__(self) -> str:
        size = f"{self.bytes / 2**20:.1f} MiB"
        return f"Plan({self.operator}: {self.products} products, about {self.seconds:.3g} s, {size} held)"


class Operator(ABC):
    r"""A real symmetric linear operator on flat vectors, :math:`v \mapsto Av`, never formed as a matrix.

    Shapes: ``A @ v`` takes (P,) to (P,), ``A @ V`` takes (P, k) to (P, k), in the operator's dtype and device.
    Operators of equal shape, dtype and device add and subtract; real numbers scale and shift them.
    """

    layout: Layout
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def _multiply(self, vectors: Tensor) -> Tensor:
        """Products with the rows of a checked (k, P) tensor, as a (k, P) tensor."""

    @abstractmethod
    def plan(self, k: int = 1) -> Plan:
        """Products, seconds and bytes of k products, stated before the run."""

    @property
    def block(self) -> int:
        """How many vectors are best multiplied together: more at a time take memory and save nothing."""
        return 16

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return (self.layout.size, self.layout.size)

    @property
    def T(self) -> Operator:
        """The transpose: the operator itself, for it is symmetric."""
        return self

    def __matmul__(self, other: Tensor) -> Tensor:
        self._check(other)
        if not other.numel():
            return torch.zeros_like(other)
        if other.ndim == 1:
            return self._multiply(other.detach()[None])[0]
        return self._multiply(other.detach().T.contiguous()).T

    def _check(self, other: object) -> None:
        remedy = f"Pass a torch tensor of shape (P,) or (P, k), {self.dtype}, on {self.device}, P = {self.shape[0]}."
        if not isinstance(other, Tensor):
            raise OperandError("right operand", "a torch.Tensor", type(other).__name__, remedy)
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[0]:
            raise OperandError("right operand", f"P = {self.shape[0]} rows", f"shape {tuple(other.shape)}", remedy)
        if other.dtype != self.dtype or other.device != self.device:
            given = f"{other.dtype} on {other.device}"
            raise OperandError("right operand", f"{self.dtype} on {self.device}", given, remedy)

    def __add__(self, other: Operator) -> Operator:
        return Sum(self, other) if isinstance(other, Operator) else NotImplemented

    def __sub__(self, other: Operator) -> Operator:
        return Sum(self, -other) if isinstance(other, Operator) else NotImplemented

    def __mul__(self, factor: float) -> Operator:
        return Scaled(self, float(factor)) if isinstance(factor, Real) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Operator:
        return Scaled(self, -1.0)

    def shift(self, by: float) -> Operator:
        """A + c I: damping."""
        return Shifted(self, by)

    def restrict(self, params: Selection) -> Operator:
        """The diagonal block of the parameters that match a glob pattern, several, or a predicate."""
        return Restricted(self, params)

    def block_diagonal(self, blocks: Sequence[Selection] | None = None) -> Operator:
        """The operator without its couplings between blocks of parameters; by default each parameter is a block.

        Parameters that no block names are left out, as in :meth:`restrict`; none may be in two blocks.
        """
        return BlockDiagonal(self, self.layout.names if blocks is None else blocks)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A flat vector (P,) as a dictionary of tensors by parameter name."""
        return self.layout.split(vector)

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """A dictionary of tensors by parameter name as one flat vector (P,)."""
        return self.layout.flatten(tensors)

    def dense(self, block: int = 64) -> Tensor:
        """The matrix (P, P), from P products taken ``block`` at a time."""
        size = self.shape[0]
        matrix = torch.empty(size, size, dtype=self.dtype, device=self.device)
        for start in range(0, size, block):
            stop = min(start + block, size)
            rows = torch.zeros(stop - start, size, dtype=self.dtype, device=self.device)
            rows[torch.arange(stop - start), torch.arange(start, stop)] = 1
            matrix[:, start:stop] = self._multiply(rows).T
        return matrix

    def to_scipy(self) -> LinearOperator:
        """A ``scipy.sparse.linalg.LinearOperator`` on NumPy arrays (moved to the device and back)."""
        return as_linear_operator(self, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]} × {self.shape[1]}, {self.dtype}, {self.device})"


class Dense(Operator):
    r"""A symmetric matrix held in memory, as an operator.

    Args:
        matrix: (P, P), real floating point, symmetric to rounding.
        layout: names and shapes of the parts of a vector; one part named ``"vector"`` if not given.

    Cost: one matrix product each. Errors: :class:`OperandError` for a matrix that is not square, real and symmetric.

    Example:
        >>> A = Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> A @ torch.tensor([1.0, 1.0])
        tensor([3., 3.])

    """

    def __init__(self, matrix: Tensor, layout: Layout | None = None) -> None:
        remedy = "Pass a real symmetric torch matrix, for example (A + A.T) / 2."
        if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            given = tuple(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
            raise OperandError("matrix", "a square torch.Tensor", str(given), remedy)
        if not matrix.is_floating_point():
            raise OperandError("matrix", "a floating-point dtype", str(matrix.dtype), remedy)
        self.matrix = matrix.detach().clone()
        self.layout = layout or Layout(("vector",), ((matrix.shape[0],),))
        self.dtype, self.device = matrix.dtype, matrix.device
        if self.layout.size != matrix.shape[0]:
            raise OperandError("layout", f"{matrix.shape[0]} entries", str(self.layout.size), "Name every entry once.")
        gap = float((self.matrix - self.matrix.T).abs().max()) if matrix.numel() else 0.0
        scale = float(self.matrix.abs().max()) if matrix.numel() else 0.0
        if not gap <= 100 * torch.finfo(matrix.dtype).eps * scale:
            raise OperandError("matrix", "a finite symmetric matrix", f"max |A − Aᵀ| = {gap:.3g}", remedy)

    def _multiply(self, vectors: Tensor) -> Tensor:
        return vectors @ self.matrix

    def plan(self, k: int = 1) -> Plan:
        """Products at an assumed 10 Gflop/s."""
        size = self.shape[0]
        return Plan(repr(self), k, 2e-10 * k * size**2, self.matrix.numel() * self.matrix.element_size())


class Derived(Operator):
    """An operator made of another; a product costs one of that, if the class does not say otherwise (abstract)."""

    operator: Operator

    @property
    def block(self) -> int:
        """That of A."""
        return self.operator.block

    def plan(self, k: int = 1) -> Plan:
        """The plan of A."""
        return self.operator.plan(k)


class Sum(Operator):
    """A + B."""

    def __init__(self, first: Operator, second: Operator) -> None:
        for what in ("shape", "dtype", "device"):
            if getattr(first, what) != getattr(second, what):
                expected, given = (f"{what} {getattr(op, what)}" for op in (first, second))
                raise OperandError(repr(second), expected, given, "Build both operators on the same parameters.")
        self.first, self.second = first, second
        self.layout, self.dtype, self.device = first.layout, first.dtype, first.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return self.first._multiply(vectors) + self.second._multiply(vectors)

    @property
    def block(self) -> int:
        """The smaller of the two."""
        return min(self.first.block, self.second.block)

    def plan(self, k: int = 1) -> Plan:
        """The two plans together."""
        a, b = self.first.plan(k), self.second.plan(k)
        return Plan(repr(self), a.products + b.products, a.seconds + b.seconds, a.bytes + b.bytes)


class Scaled(Derived):
    """c A."""

    def __init__(self, operator: Operator, factor: float) -> None:
        if not np.isfinite(factor):
            raise ArgumentError("factor", "a finite number", str(factor), "Scale by a finite number.")
        self.operator, self.factor = operator, factor
        self.layout, self.dtype, self.device = operator.layout, operator.dtype, operator.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return self.operator._multiply(vectors) * self.factor


@final
class Shifted(Derived):
    """A + c I."""

    def __init__(self, operator: Operator, by: float) -> None:
        self.operator, self.by = operator, float(by) if isinstance(by, Real) else np.nan
        if not np.isfinite(self.by):
            raise ArgumentError("by", "a finite number", repr(by), "Shift by a finite number, such as 1e-3.")
        self.layout, self.dtype, self.device = operator.layout, operator.dtype, operator.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return self.operator._multiply(vectors) + self.by * vectors


class Restricted(Derived):
    """The diagonal block of some of the parameters: embed, apply, pick. A product costs one product of A."""

    def __init__(self, operator: Operator, params: Selection) -> None:
        self.operator = operator
        self.layout, positions = operator.layout.select(params)
        self.positions = positions.to(operator.device)
        self.dtype, self.device = operator.dtype, operator.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        full = vectors.new_zeros(vectors.shape[0], self.operator.shape[0])
        full[:, self.positions] = vectors
        return self.operator._multiply(full)[:, self.positions]


class BlockDiagonal(Derived):
    """The diagonal blocks of some groups of parameters side by side. A product costs one product of A for each block."""

    def __init__(self, operator: Operator, blocks: Sequence[Selection]) -> None:
        self.operator = operator
        chosen = [operator.layout.select(block) for block in blocks]
        names = [name for layout, _ in chosen for name in layout.names]
        twice = [name for name in names if names.count(name) > 1]
        if twice or not names:
            given = f"{twice[0]!r} in two of {list(blocks)!r}" if twice else "no block"
            raise OperandError("blocks", "patterns that name a parameter at most once", given, "Drop the overlap.")
        shapes = [shape for layout, _ in chosen for shape in layout.shapes]
        self.layout = Layout(tuple(names), tuple(shapes))
        self.positions = [positions.to(operator.device) for _, positions in chosen]
        self.dtype, self.device = operator.dtype, operator.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        results = []
        for positions, part in zip(self.positions, vectors.split([len(p) for p in self.positions], 1), strict=True):
            full = vectors.new_zeros(vectors.shape[0], self.operator.shape[0])
            full[:, positions] = part
            results.append(self.operator._multiply(full)[:, positions])
        return torch.cat(results, 1)

    def plan(self, k: int = 1) -> Plan:
        """A product of A for each block."""
        return self.operator.plan(k * len(self.positions))


def as_operator(candidate: Any) -> Operator:
    """The candidate itself if it is an operator; else an error that says how to make one."""
    if isinstance(candidate, Operator):
        return candidate
    remedy = (
        "Build one with la.Hessian(model, loss, data), or wrap a symmetric matrix with la.Dense(matrix); "
        "of a Jacobian J take la.NTK, which is J Jᵀ."
    )
    raise OperandError("operator", "a lemmata operator", type(candidate).__name__, remedy)
