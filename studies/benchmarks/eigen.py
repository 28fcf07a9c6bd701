"""The ten eigenvalues of largest magnitude, set-up counted, at a true relative error of 1e-3."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import lemmata.analysis as la

from .peers import PEERS, Ladder
from .problems import Problem, spectral, true_eigenvalues
from .search import contest
from .table import Row, Target

WORK, K, WITHIN, TRIES = "eigen", 10, 1e-3, 3
TARGETS = {"PyHessian": Target("≥", 5), "curvlinops": Target("≥", 2), "hessian-eigenthings": Target("≥", 2)}


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for problem in spectral(device):
        yield from measure(problem, device, repeats)


def ours(problem: Problem) -> dict[str, Ladder]:
    """At the largest tolerance that suffices, and at the default one."""

    def at(tol: float) -> Ladder:
        return [(f"tol={tol:g}", lambda seed: _eigenvalues(problem, tol, seed))]

    loosest = [rung for tol in (0.4, 0.2, 0.1, 0.05, 0.025, 0.01, 1e-3) for rung in at(tol)]
    return {"lemmata": loosest, "lemmata, default tolerance": at(1e-3)}


def _eigenvalues(problem: Problem, tol: float, seed: int) -> Tensor:
    H = la.Hessian(problem.model, problem.loss, problem.batch)
    return la.eigenpairs(H, k=K, which="magnitude", tol=tol, seed=seed).values


def measure(problem: Problem, device: str, repeats: int) -> list[Row]:
    """One network."""
    truth = true_eigenvalues(problem, K)

    def error(found: Tensor) -> float:
        return float((found.cpu().double() / truth - 1).abs().max()) if bool(torch.isfinite(found).all()) else torch.inf

    theirs = {peer.name: lambda peer=peer: peer.eigenvalues(problem, K) for peer in PEERS}
    return contest((WORK, problem.name), ours(problem), theirs, TARGETS, error, WITHIN, TRIES, device, repeats)
