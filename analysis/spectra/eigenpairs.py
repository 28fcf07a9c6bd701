"""Extreme eigenpairs by Lanczos iteration with full reorthogonalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, OperandError
from ..operators.base import Operator, as_operator
from .lanczos import Key, Sweep, leading
from .results import Eigenpairs

_KEYS: dict[str, tuple[Key, ...]] = {
    "largest": (np.positive,),
    "smallest": (np.negative,),
    "both": (np.positive, np.negative),
    "magnitude": (np.abs,),
}
_WARM_NOISE = 1e-2  # a random share in a warm start, so that no eigenvector is out of reach


def eigenpairs(
    operator: Operator,
    k: int = 1,
    which: str = "largest",
    tol: float = 1e-3,
    max_steps: int | None = None,
    seed: int = 0,
    start: Tensor | None = None,
) -> Eigenpairs:
    r"""The k eigenpairs at an end of the spectrum, each with an interval that holds an eigenvalue.

    .. math:: |\lambda - \theta| \le \|Hu - \theta u\|, \qquad u \in \mathrm{span}\{v, Hv, H^2v, \dots\}

    Lanczos iteration, fully reorthogonalised. One sweep sees one copy of each eigenvalue, so for k > 1 the pairs found
    are locked, and further sweeps start in random directions orthogonal to them until one finds nothing better:
    eigenvalues of any multiplicity and operators of any rank come out right.

    Args:
        operator: symmetric, P × P.
        k: number of pairs; ``which="both"`` gives k from each end (all P where 2k ≥ P).
        which: ``"largest"`` (descending), ``"smallest"`` (ascending), ``"both"`` (descending) or ``"magnitude"``
            (descending in absolute value).
        tol: a pair has converged when its residual is at most ``tol`` times its absolute eigenvalue, or is rounding.
        max_steps: the most Lanczos steps, 200 + 10 for each pair by default. Where they do not suffice, also for the
            search for further copies, ``converged`` is False.
        seed: of the random directions, drawn on the CPU whatever the global generator does.
        start: (P,), a guess of the wanted eigenvector, for example from a nearby operator.

    Cost: a product a step and one for each pair returned (its residual is measured, not inferred); (steps + k) × P
    numbers of memory; one transfer to the host a step.

    Assumptions: the operator is symmetric. The intervals are rigorous to rounding; that no better eigenvalue was missed
    is certain only with probability one over the random directions, as ``tol`` tends to 0.

    Errors: ``ArgumentError`` for an option outside its domain, ``OperandError`` for a start that does not fit,
    ``NumericsError`` for a product that is not finite.

    Source: Parlett 1998, The symmetric eigenvalue problem, ch. 13.

    Example:
        >>> from lemmata.analysis import Dense
        >>> pairs = eigenpairs(Dense(torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0]))), k=3)
        >>> [round(value, 4) for value in pairs.values.tolist()]
        [3.0, 2.0, 2.0]

    """
    operator = as_operator(operator)
    count, budget = _check(operator, k, which, tol, max_steps)
    keys, size = _KEYS[which], operator.shape[0]
    draw = _directions(operator, seed)
    direction = draw() if start is None else _warm(operator, start, draw())
    locked: list[Tensor] = []
    values, steps, longest, scale = np.empty(0), 0, 0, 0.0
    while steps < budget and len(locked) < size:
        missing = len(locked) < count
        bars = None if missing else [float(np.sort(key(values))[-min(k, size)]) for key in keys]
        sweep = Sweep(operator, locked, direction, min(budget - steps, size - len(locked)), scale)
        found, vectors = sweep.run(keys, k if missing else 1, tol / 2, bars, ceil(longest / 2))
        steps, longest = steps + sweep.steps, max(longest, sweep.steps)
        scale, known = sweep.scale, len(values)
        values = np.concatenate([values, found])
        locked.extend(vectors)
        nothing_new = not missing and max(leading(values, keys, k)) < known
        if nothing_new or (missing and sweep.complete) or (k == 1 and len(locked) >= count):
            break
        direction = draw()
    searched = k == 1 or steps < budget or sweep.complete
    chosen = torch.stack([locked[i] for i in leading(values, keys, k)], 1)
    pairs = _measured(operator, chosen, keys[0], tol, scale, steps)
    return pairs if searched else replace(pairs, converged=False)


def _measured(operator: Operator, vectors: Tensor, key: Key, tol: float, scale: float, steps: int) -> Eigenpairs:
    """Rayleigh–Ritz in the span of the locked vectors, with residuals from one product each."""
    products = operator @ vectors
    projected = (vectors.T @ products).to("cpu", torch.float64)
    values, rotation = torch.linalg.eigh((projected + projected.T) / 2)
    order = torch.from_numpy(np.argsort(-key(values.numpy()), kind="stable"))
    values, rotation = values[order], rotation[:, order].to(vectors)
    vectors = vectors @ rotation
    residuals = (products @ rotation - vectors * values.to(vectors)).norm(dim=0).to("cpu", torch.float64)
    floor = 100 * torch.finfo(vectors.dtype).eps * scale
    converged = bool((residuals <= (tol * values.abs()).clamp(min=floor)).all())
    return Eigenpairs(values, vectors, residuals, steps + vectors.shape[1], converged)


def _check(operator: Operator, k: int, which: str, tol: float, max_steps: int | None) -> tuple[int, int]:
    """The number of pairs to return, and the budget of steps."""
    size = operator.shape[0]
    if which not in _KEYS:
        raise ArgumentError("which", f"one of {list(_KEYS)}", repr(which), "Choose one of them.")
    if not isinstance(k, int) or not 1 <= k <= size:
        remedy = f"Ask for 1 to {size} pairs."
        raise ArgumentError("k", f"an integer from 1 to P = {size}", repr(k), remedy)
    if not 0 < tol < 1:
        remedy = "Pass a relative tolerance such as tol=1e-3."
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), remedy)
    count = min(size, k * len(_KEYS[which]))
    budget = 200 + 10 * count if max_steps is None else max_steps
    if budget < count:
        remedy = "Give at least one step to each pair."
        raise ArgumentError("max_steps", f"at least {count}, the number of pairs", repr(max_steps), remedy)
    return count, budget


def _directions(operator: Operator, seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        direction = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
        return (direction / direction.norm()).to(operator.device, operator.dtype)

    return draw


def _warm(operator: Operator, start: Tensor, noise: Tensor) -> Tensor:
    remedy = f"Pass a finite non-zero tensor of shape ({operator.shape[0]},), such as pairs.vectors[:, 0]."
    given = f"shape {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
    if not isinstance(start, Tensor) or start.shape != operator.shape[:1]:
        raise OperandError("start", f"shape ({operator.shape[0]},)", given, remedy)
    norm = float(start.norm())
    if not 0 < norm < float("inf"):
        raise OperandError("start", "a finite non-zero vector", f"one of norm {norm}", remedy)
    return (start.detach() / norm).to(noise) + _WARM_NOISE * noise
