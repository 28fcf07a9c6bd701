"""Block Lanczos with thick restarts in the orthogonal complement of known vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import NumericsError
from ..operators.base import Operator
from .krylov import ROUNDINGS

Key = Callable[[np.ndarray], np.ndarray]
_PAUSE = {"cpu": 1}  # block steps between looks at the coefficients, each of which waits for an accelerator
_OTHERS_PAUSE = 4
_UNSEEN = 1e-2  # a share of a random start in an eigenvector that is as small, relative to its size, is missed
_CHUNK = 2**16  # columns of the basis turned together at a restart


def leading(values: np.ndarray, keys: Sequence[Key], k: int) -> list[int]:
    """Positions of k values for each key, ranked by it, no position twice; of equal values the earlier."""
    chosen: list[int] = []
    for key in keys:
        ranked = np.argsort(-key(values), kind="stable").tolist()
        chosen += [index for index in ranked if index not in chosen][:k]
    return sorted(chosen)


@dataclass(frozen=True)
class Found:
    r"""Ritz pairs of a sweep: :math:`A u_i = \theta_i u_i + \sum_j C_{ji} x_j + \sum_j R_{ji} t_j`.

    x are the vectors known to the sweep and t its tail, orthonormal and orthogonal to u. Vectors are rows.
    """

    values: np.ndarray  # θ, (n,)
    vectors: Tensor  # u, (n, P)
    known: np.ndarray  # C, (vectors known, n)
    rest: np.ndarray  # R, (width of the tail, n)
    tail: Tensor  # t, (width, P)
    settled: bool  # whether the sweep ended of itself, not for want of products


class Sweep:
    r"""Builds orthonormal blocks Q₁, Q₂, … with A Q = Q T + W, W = R V in the span of the next block V.

    All are orthogonal to ``known``. A product is cleared of the block before it, made an orthonormal block, and cleared of
    all other vectors; directions that are only rounding are dropped, so that the width of the block is the number of
    directions that are left to explore. Once ``room`` vectors are held, the leading Ritz vectors are kept with the next
    block: the relation holds for them too, and they couple to that block alone. Coefficients stay on the device between
    looks. The sweep can be run further at any time.
    """

    def __init__(self, operator: Operator, known: Tensor, starts: Tensor, room: int, scale: float = 0.0) -> None:
        self.operator, self.first = operator, len(known)
        self.rows, self.live = known, starts.new_ones(self.first)
        self.table = starts.new_zeros(self.first, self.first)
        self.begun = self.done = self.first  # where the last block multiplied and the next one begin
        self.filled = self.first
        self.near = self.first  # where the vectors begin to which the next block may couple
        self.products = self.degree = 0
        self.scale = starts.new_tensor(scale)
        self.rest = starts.new_zeros(0, len(starts))
        self.reserve(room + len(starts))
        self._start(starts)

    @property
    def width(self) -> int:
        """Vectors of the next block."""
        return self.filled - self.done

    @property
    def full(self) -> bool:
        """Whether there is no place for one more block, though the space has more directions."""
        return self.filled + self.width > len(self.rows) < self.operator.shape[0]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to search."""
        return int(self.live[self.first : self.done].sum()) + self.first == self.operator.shape[0]

    def reserve(self, room: int) -> None:
        """Make place for so many vectors besides those known."""
        held, size = self.rows.shape
        room = self.first + min(room, size - self.first)
        if held < room:
            rows, table, live = (
                self.rows.new_empty(room, size),
                self.table.new_zeros(room, room),
                self.live.new_ones(room),
            )
            rows[: self.filled], table[:held, :held], live[:held] = self.rows[: self.filled], self.table, self.live
            self.rows, self.table, self.live = rows, table, live

    def run(self, keys: Sequence[Key], k: int, tol: float, budget: int, bars: list[float] | None = None) -> Found:
        """Iterate until, for each key, the leading k pairs have converged, or the budget of products is spent.

        With ``bars``, it also stops once its leading value cannot reach the bar: see :func:`_hopeless`.
        """
        due = 0
        pause = _PAUSE.get(self.rows.device.type, _OTHERS_PAUSE)
        while True:
            if self.full or not self.width or self.degree >= due or self.products + self.width > budget:
                due = self.degree + max(pause, self.degree // 20)
                values, vectors, residuals = self._look()
                done = _converged(values, residuals, keys, k, tol, self.rounding)
                done = done or _hopeless(values, residuals, keys, bars, self.degree, self.rows.shape[1])
                settled = done or not self.width
                if settled or self.products + self.width > budget:
                    return self._found(values, vectors, leading(values, keys, k), settled)
                if self.full:
                    room = len(self.rows) - self.first - self.width
                    kept = leading(values, keys, (k + room // len(keys)) // 2)
                    self._restart(values[kept], vectors[:, kept])
            self._step()

    @property
    def rounding(self) -> float:
        """The size of a residual that is only rounding."""
        return float(self._rounding())

    def _rounding(self) -> Tensor:
        return ROUNDINGS * torch.finfo(self.rows.dtype).eps * self.scale

    def _start(self, starts: Tensor) -> None:
        """The first block: the starts, cleared of the known vectors and made orthonormal."""
        floor = starts.new_tensor(torch.finfo(starts.dtype).eps ** 0.5)
        known, norms = self.rows[: self.first], floor
        for _ in range(2):
            triangle, starts = _orthonormal(torch.addmm(starts, starts @ known.T, known, alpha=-1), floor)
            norms = triangle.diagonal()
        self._append(starts, norms > 0)
        self._drop(self.live[self.done : self.filled].tolist())
        self.random = self.width  # starts that are

    def _step(self) -> None:
        """Multiply the next block, and make another of what is new in the product."""
        block = self.rows[self.done : self.filled]
        product = (self.operator @ block.T).T
        self.scale = torch.maximum(self.scale, product.norm(dim=1).max())
        near, basis = self.rows[self.near : self.filled], self.rows[: self.filled]
        floor = self._rounding().clamp(min=torch.finfo(block.dtype).tiny)
        local = product @ near.T
        outer, new = _orthonormal(torch.addmm(product, local, near, alpha=-1), floor)
        others = new @ basis.T
        new = torch.addmm(new, others, basis, alpha=-1)
        norms = new.norm(dim=1)
        norms = norms.where(norms * outer.diagonal() > floor, 0)  # what was no more than a share of others is rounding
        coefficients = outer @ others
        coefficients[:, self.near :] += local
        self.table[self.done : self.filled, : self.filled] = coefficients
        self.table[: self.filled, self.done : self.filled] = coefficients.T
        self.rest = outer * norms
        self.products, self.degree = self.products + len(block), self.degree + 1
        self.begun = self.near = self.done
        self.done = self.filled
        self._append(_reciprocal(norms)[:, None] * new, norms > 0)

    def _append(self, block: Tensor, live: Tensor) -> None:
        self.reserve(self.filled - self.first + len(block))
        block = block[: len(self.rows) - self.filled]  # what does not fit in the space is rounding
        self.rest = self.rest[:, : len(block)]
        self.rows[self.filled : self.filled + len(block)] = block
        self.live[self.filled : self.filled + len(block)] = live[: len(block)]
        self.filled += len(block)

    def _look(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The Ritz values, their vectors in the basis, and their residuals within what this sweep explores."""
        inner = self.table[self.first : self.done, self.first : self.done]
        parts = [inner, self.rest, self.live[self.first : self.filled]]
        packed = torch.cat([part.reshape(-1) for part in parts]).double().cpu()
        if not bool(packed.isfinite().all()):
            remedy = "Look for overflow in the model, or take dtype=torch.float64."
            given = f"inf or nan within {self.products} products"
            raise NumericsError(repr(self.operator), "finite products", given, remedy)
        T, rest, live = (part.numpy() for part in packed.split([part.numel() for part in parts]))
        count = self.done - self.first
        kept = np.flatnonzero(live[:count])
        rest = rest.reshape(tuple(self.rest.shape))[:, live[count:] > 0]
        self._drop(live[count:].tolist())
        T = T.reshape(count, count)[np.ix_(kept, kept)]
        values, inner_vectors = np.linalg.eigh((T + T.T) / 2)
        vectors = np.zeros((count, len(kept)))
        vectors[kept] = inner_vectors
        return values, vectors, np.linalg.norm(rest.T @ vectors[self.begun - self.first :], axis=0)

    def _drop(self, live: list[float]) -> None:
        """Leave out of the next block what is only rounding."""
        places = [i for i, alive in enumerate(live) if alive]
        if len(places) < len(live):
            index = torch.tensor(places, dtype=torch.long, device=self.rows.device)
            block = self.rows[self.done : self.filled][index]
            self.filled, self.rest = self.done, self.rest[:, index]
            self._append(block, self.live.new_ones(len(block)))

    def _restart(self, values: np.ndarray, vectors: np.ndarray) -> None:
        """Keep some Ritz vectors and the next block."""
        first, done, count = self.first, self.done, len(values)
        block = self.rows[done : self.filled].clone()
        weights = torch.from_numpy(np.ascontiguousarray(vectors)).to(self.rows)
        for columns in range(0, self.rows.shape[1], _CHUNK):
            part = self.rows[first:done, columns : columns + _CHUNK]
            part[:count] = weights.T @ part
        couplings = self.table[:first, first:done] @ weights
        self.table[first:], self.table[:, first:] = 0, 0
        self.table[:first, first : first + count] = couplings
        diagonal = torch.from_numpy(values).to(self.rows)
        self.table.diagonal()[first : first + count] = diagonal
        self.rest = weights[self.begun - first :].T @ self.rest
        self.live[first:] = 1
        self.begun = self.near = first
        self.done = self.filled = first + count
        self._append(block, self.live.new_ones(len(block)))

    def _found(self, values: np.ndarray, vectors: np.ndarray, chosen: list[int], settled: bool) -> Found:
        weights = torch.from_numpy(np.ascontiguousarray(vectors[:, chosen])).to(self.rows)
        known = (self.table[: self.first, self.first : self.done] @ weights).double().cpu().numpy()
        rest = (self.rest.T @ weights[self.begun - self.first :]).double().cpu().numpy()
        lifted = weights.T @ self.rows[self.first : self.done]
        return Found(values[chosen], lifted, known, rest, self.rows[self.done : self.filled].clone(), settled)


def _orthonormal(rows: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """R, lower triangular, and V with rows = R V: orthonormal rows, or zero where no more than the floor is new."""
    triangle, found = rows.new_zeros(len(rows), len(rows)), torch.empty_like(rows)
    for i, row in enumerate(rows):
        for _ in range(2 if i else 0):
            shares = found[:i] @ row
            row = torch.addmv(row, found[:i].T, shares, alpha=-1)
            triangle[i, :i] += shares
        norm = row.norm()
        norm = norm.where(norm > floor, 0)
        triangle[i, i] = norm
        torch.mul(row, _reciprocal(norm), out=found[i])
    return triangle, found


def _reciprocal(norms: Tensor) -> Tensor:
    """1 / norm, and 0 for 0."""
    return torch.where(norms == 0, 0, 1 / norms)


def _converged(
    values: np.ndarray, residuals: np.ndarray, keys: Sequence[Key], k: int, tol: float, rounding: float
) -> bool:
    """Whether, for each key, there are k leading pairs and all have converged."""
    if len(values) < k:
        return False
    places = [index for key in keys for index in leading(values, [key], k)]
    return bool(np.all(residuals[places] <= np.maximum(tol * np.abs(values[places]), rounding)))


def _hopeless(
    values: np.ndarray, residuals: np.ndarray, keys: Sequence[Key], bars: list[float] | None, degree: int, size: int
) -> bool:
    r"""Whether no value can reach the bar of its key, unless the start had almost no share in its eigenvector.

    The Chebyshev polynomial of the steps taken is at most 1 over the Ritz values and :math:`T` at the bar. A share of the
    start as small as ``_UNSEEN`` times that of a random vector, :math:`P^{-1/2}`, would stand out if T is its inverse.
    """
    if bars is None or degree < 2:
        return False
    span = max(float(np.ptp(values)), 1e-12 * float(np.abs(values).max()), np.finfo(float).tiny)
    for key, bar in zip(keys, bars, strict=True):
        gap = bar - float((key(values) + residuals).max())
        if gap <= 0 or (degree - 1) * np.arccosh(1 + 2 * gap / span) < np.log(2 * size**0.5 / _UNSEEN):
            return False
    return True
