"""The trace, set-up counted, at a true relative error of 1 %."""

from __future__ import annotations

from collections.abc import Iterator

import lemmata.analysis as la

from .peers import PEERS, Ladder
from .problems import Problem, spectral, true_trace
from .search import contest
from .table import Row, Target

WORK, WITHIN, TRIES = "trace", 0.01, 9


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for problem in spectral(device):
        yield from measure(problem, device, repeats)


def ours(problem: Problem) -> dict[str, Ladder]:
    """At the largest tolerance that suffices, and at the default one, whose interval is 1 % wide.

    A rung asks for twice the products of the one before, as the peers' rungs do.
    """

    def at(tol: float) -> Ladder:
        return [(f"tol={tol:.2g}", lambda seed: _trace(problem, tol, seed))]

    loosest = [rung for tol in (0.5 * 2 ** (-step / 2) for step in range(12)) for rung in at(tol)]
    return {"lemmata": loosest, "lemmata, default tolerance": at(0.01)}


def _trace(problem: Problem, tol: float, seed: int) -> float:
    return float(la.trace(la.Hessian(problem.model, problem.loss, problem.batch), tol=tol, seed=seed))


def measure(problem: Problem, device: str, repeats: int) -> list[Row]:
    """One network; where it is piecewise affine in each parameter, ten times faster is asked for, else three."""
    truth, stderr = true_trace(problem)
    bound = Target("≥", 10 if problem.straight else 3)
    theirs = {peer.name: lambda peer=peer: peer.traces(problem) for peer in PEERS}
    if stderr > WITHIN * abs(truth) / 4:
        raise RuntimeError(f"the reference trace of {problem.name} is {truth:.6g} ± {stderr:.2g}: draw more probes")
    return contest(
        (WORK, problem.name),
        ours(problem),
        theirs,
        {peer.name: bound for peer in PEERS},
        lambda found: abs(found / truth - 1),
        WITHIN,
        TRIES,
        device,
        repeats,
    )
