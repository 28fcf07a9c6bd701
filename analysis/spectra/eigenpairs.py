"""Extreme eigenpairs by block Lanczos iteration with thick restarts."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, OperandError
from ..operators.base import Operator, as_operator
from .lanczos import Found, Key, Sweep, leading
from .probes import check_seed
from .results import Eigenpairs
from .ritz import joined, may_hide_copies

_KEYS: dict[str, tuple[Key, ...]] = {
    "largest": (np.positive,),
    "smallest": (np.negative,),
    "both": (np.positive, np.negative),
    "magnitude": (np.abs,),
}
_WIDTH = 2  # vectors in the first block, and so the copies of an eigenvalue that it sees
_ROOM = 64  # vectors held besides two for each pair
_SHARE = 0.7  # of the tolerance for one sweep: where pairs of two mix, their residuals add
_WARM_NOISE = 1e-2  # a random share in a warm start, so that no eigenvector is out of reach


def eigenpairs(
    operator: Operator,
    k: int = 1,
    which: str = "largest",
    tol: float = 1e-3,
    max_steps: int | None = None,
    seed: int = 0,
    start: Tensor | Eigenpairs | None = None,
    keep: bool = False,
) -> Eigenpairs:
    r"""The k eigenpairs at an end of the spectrum, each with an interval that holds an eigenvalue.

    .. math:: |\lambda - \theta| \le \|Hu - \theta u\|, \qquad u \in \mathrm{span}\{V, HV, H^2V, \dots\}

    Block Lanczos iteration, reorthogonalised, with thick restarts: once 2k + 64 vectors are held, the leading Ritz
    vectors, the better half, are kept and the iteration goes on from them. The block V has two vectors (one for k = 1),
    so it sees two copies of each eigenvalue; where two pairs found may be equal, they are locked, and further sweeps
    start in random directions orthogonal to them until one finds nothing better: eigenvalues of any multiplicity and
    operators of any rank come out right.

    Args:
        operator: symmetric, P × P.
        k: number of pairs; ``which="both"`` gives k from each end (all P where 2k ≥ P).
        which: ``"largest"`` (descending), ``"smallest"`` (ascending), ``"both"`` (descending) or ``"magnitude"``
            (descending in absolute value).
        tol: a pair has converged when its residual is at most ``tol`` times its absolute eigenvalue, or is rounding. The
            eigenvalue itself is then much closer, by about the residual squared over its gap.
        max_steps: the most products for the iteration, 200 + 10 for each pair by default. Where they do not suffice, also
            for the search for further copies, ``converged`` is False.
        seed: of the random directions, drawn on the CPU whatever the global generator does.
        start: guesses of the wanted eigenvectors, (P,) or (P, j), or the pairs of a nearby operator. Pairs of this very
            operator that were made with ``keep=True`` are continued: no product is repeated, and ``matvecs`` and
            ``max_steps`` count those of both.
        keep: hold the iteration in the result, so that it can be continued to more pairs or a smaller tolerance.

    Cost: a product for each vector of each block, and one to check the residuals that the iteration implies: their
    common defect is added to each. Memory: 2k + 66 vectors (4k + 66 for both ends), and those that are returned. The host waits for an accelerator once in four blocks.

    Assumptions: the operator is symmetric. The intervals are rigorous to rounding; that no better eigenvalue was missed
    is certain only with probability one over the random directions, as ``tol`` tends to 0.

    Errors: ``ArgumentError`` for an option outside its domain, ``OperandError`` for a start that does not fit,
    ``NumericsError`` for a product that is not finite.

    Source: Wu & Simon 2000, Thick-restart Lanczos method for large symmetric eigenvalue problems; Parlett 1998, The
    symmetric eigenvalue problem, ch. 13.

    Example:
        >>> from lemmata.analysis import Dense
        >>> pairs = eigenpairs(Dense(torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0]))), k=3)
        >>> [round(value, 4) for value in pairs.values.tolist()]
        [3.0, 2.0, 2.0]

    """
    operator = as_operator(operator)
    count, budget = _check(operator, k, which, tol, max_steps)
    check_seed(seed)
    keys, room, draw = _KEYS[which], 2 * count + _ROOM, _directions(operator, seed)
    width = min(k, _WIDTH, budget // count)
    first = sweep = _first(operator, start, draw, width, count, budget, room)
    found: list[Found] = []
    values, spent, searched = np.empty(0), 0, False
    while not searched:
        known, missing = len(values), len(values) < count
        bars = None if missing else [float(np.sort(key(values))[-min(k, known)]) for key in keys]
        found.append(sweep.run(keys, k if missing else 1, _SHARE * tol, budget - spent, bars))
        values = np.concatenate([part.values for part in found])
        spent += sweep.products
        searched = sweep.complete or (not missing and found[-1].settled and max(leading(values, keys, k)) < known)
        if known == 0 and len(values) >= count and found[0].settled:
            searched = searched or not may_hide_copies(found[0], keys, k, first.random, sweep.rounding)
        missing = len(values) < count
        if spent + (width if missing else 1) > budget:
            break
        if not searched:
            locked = torch.cat([part.vectors for part in found])
            sweep = Sweep(operator, locked, draw(width if missing else 1), room, float(sweep.scale))
    pairs = joined(operator, found, keys, k, tol, float(sweep.scale), draw(1)[0])
    return Eigenpairs(*pairs[:3], spent + 1, searched and pairs[3], first if keep else None)


def _check(operator: Operator, k: int, which: str, tol: float, max_steps: int | None) -> tuple[int, int]:
    """The number of pairs to return, and the budget of steps."""
    size = operator.shape[0]
    if which not in _KEYS:
        raise ArgumentError("which", f"one of {list(_KEYS)}", repr(which), "Choose one of them.")
    if not isinstance(k, int) or not 1 <= k <= size:
        remedy = f"Ask for 1 to {size} pairs."
        raise ArgumentError("k", f"an integer from 1 to P = {size}", repr(k), remedy)
    if not isinstance(tol, Real) or not 0 < tol < 1:
        remedy = "Pass a relative tolerance such as tol=1e-3."
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), remedy)
    count = min(size, k * len(_KEYS[which]))
    budget = 200 + 10 * count if max_steps is None else max_steps
    if budget < count:
        remedy = "Give at least one step to each pair."
        raise ArgumentError("max_steps", f"at least {count}, the number of pairs", repr(max_steps), remedy)
    return count, budget


def _directions(operator: Operator, seed: int) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(number: int) -> Tensor:
        rows = torch.empty(number, operator.shape[0], dtype=torch.float64, device="cpu")
        for row in rows:
            row.copy_(torch.randn(operator.shape[0], generator=generator, dtype=torch.float64, device="cpu"))
        return (rows / rows.norm(dim=1, keepdim=True)).to(operator.device, operator.dtype)

    return draw


def _first(
    operator: Operator,
    start: Tensor | Eigenpairs | None,
    draw: Callable[[int], Tensor],
    width: int,
    count: int,
    budget: int,
    room: int,
) -> Sweep:
    """The sweep of earlier pairs, or a new one from the guesses, filled up with random directions."""
    if isinstance(start, Eigenpairs):
        if start.krylov is not None and start.krylov.operator is operator:
            start.krylov.reserve(room + width)
            return start.krylov
        start = start.vectors
    guesses = draw(0) if start is None else _warm(operator, start, draw)
    if len(guesses) * ceil(count / max(1, len(guesses))) > budget:
        guesses = guesses[: budget // count]
    fill = max(0, width - len(guesses))
    sweep = Sweep(operator, guesses[:0], torch.cat([guesses, draw(fill)]), room)
    if not fill:
        sweep.random = 1  # guesses alone: what they miss, another sweep must find
    return sweep


def _warm(operator: Operator, start: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
    size = operator.shape[0]
    remedy = f"Pass finite non-zero columns of {size} entries, such as pairs.vectors, or the pairs themselves."
    given = f"shape {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
    if not isinstance(start, Tensor) or start.ndim not in (1, 2) or start.shape[0] != size or not start.numel():
        raise OperandError("start", f"shape ({size},) or ({size}, j)", given, remedy)
    rows = start.detach().reshape(size, -1).T
    norms = rows.norm(dim=1, keepdim=True)
    if not bool(((norms > 0) & norms.isfinite()).all()):
        raise OperandError("start", "finite non-zero vectors", f"norms {norms.flatten().tolist()}", remedy)
    noise = draw(len(rows))
    mixed = (rows / norms).to(noise) + _WARM_NOISE * noise
    return mixed / mixed.norm(dim=1, keepdim=True)
