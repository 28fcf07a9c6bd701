r"""Do the error bars of the laboratory hold?

Every number that the analyzers print has an interval. An interval that is said to hold the truth with probability 0.95 must
do so, the rule that decided when to stop included. Stopping as soon as the spread looks small favours samples whose spread
is small by chance, and with few probes a normal quantile is too short @student1908probable. Here the estimators are run many times
on matrices whose truth is known, in the way a user runs them: with a tolerance, until it is met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import AtLeast, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian

SIZE = 200
SPECTRA: dict[str, Callable[[], Tensor]] = {
    "flat": lambda: torch.linspace(0.5, 1.5, SIZE),
    "geometric": lambda: 0.9 ** torch.arange(SIZE),
    "spiked": lambda: torch.cat([torch.tensor([100.0, 50.0, 30.0]), torch.ones(SIZE - 3)]),
    "indefinite": lambda: torch.linspace(-1, 2, SIZE),
}
MATRICES = tuple(SPECTRA)
#: Relative tolerances that take some tens of products, and fewer than would give the exact value.
TOLERANCE = {"flat": 0.02, "geometric": 0.05, "spiked": 0.05, "indefinite": 0.1}


@cache
def planted(name: str) -> Tensor:
    """A planted spectrum in a random basis, or the Hessian of a perceptron of 241 parameters on digits."""
    if name == "network":
        x, y = digits(100)
        compress = gaussian(torch.Generator().manual_seed(1), 64, 10) / 8
        net = MLP([10, 11, 10], activation="tanh", generator=torch.Generator().manual_seed(0))
        found = la.Hessian(net, nn.CrossEntropyLoss(), (x @ compress, y)).dense()
    else:
        basis = torch.linalg.qr(gaussian(torch.Generator().manual_seed(0), SIZE, SIZE))[0]
        found = basis * SPECTRA[name]().to(basis) @ basis.T
    return (found + found.T) / 2


def draw_coverage(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """How often the intervals of each estimator hold the truth, and how often intervals half as long do.

    Coverage over four matrices for two estimators; a band from 93 to 98 per cent. The filled marks lie in the band, the
    open ones of the halved intervals far below it.
    """
    columns: dict[str, list[Any]] = {"estimator": [], "matrix": [], "halved": [], "coverage": []}
    for row in [row for row in rows if row.k == 0]:
        alike = [r for r in rows if (r.arm, r.point) == (row.arm, row.point)]
        columns["estimator"].append(row.point["estimator"])
        columns["matrix"].append(row.point["matrix"])
        columns["halved"].append(bool(row.arm))
        columns["coverage"].append(float(np.mean([r.values["value"] for r in alike])))
    ax.axhspan(0.93, 0.98, color="#56B4E9", alpha=0.3)
    names = sorted(set(columns["estimator"]))
    for offset, (name, mark) in enumerate(zip(names, "os^", strict=False)):
        for halved in (False, True):
            chosen = [i for i, n in enumerate(columns["estimator"]) if n == name and columns["halved"][i] == halved]
            places = [MATRICES.index(columns["matrix"][i]) + 0.15 * (offset - 1) for i in chosen]
            found = [columns["coverage"][i] for i in chosen]
            style = dict(fillstyle="none") if halved else {}
            ax.plot(places, found, mark, color=f"C{offset}", label=None if halved else name, **style)
    ax.set_xticks(range(len(MATRICES)), MATRICES)
    ax.set(ylabel="share of intervals that hold the truth", ylim=(0.5, 1.0))
    ax.legend(loc="lower right")
    return columns


@claim(
    source=("student1908probable", "hutchinson1989stochastic"),
    predicts=Equals(0.955, within="0.025 + (40 * runs) ** -0.5", of="mean"),
    quick=Grid(estimator=["trace", "norm"], matrix=MATRICES, runs=[60], seeds=40),
    full=Grid(estimator=["trace", "norm"], matrix=MATRICES, runs=[250], seeds=40),
    controls={"the whole interval: half as long": dict(shrink=2.0)},
    figures=(draw_coverage,),
    timeout=1200,
)
def interval_coverage(estimator: str, matrix: str, runs: int, seed: int, shrink: float = 1.0) -> float:
    r"""The 95 % intervals of the estimators hold the truth in 93 to 98 of 100 runs.

    Trace and Frobenius norm are estimated from random signs @hutchinson1989stochastic, until the half-width of Student's
    interval @student1908probable is within the tolerance asked for, with at least ten probes, on matrices with a flat, a
    geometric, a spiked and an indefinite spectrum in a random basis. The value is the share of runs whose
    interval holds the truth. Random signs and a stopping rule do not keep the law of Student exactly; the interval is
    widened for both, and 93 to 98 per cent is what is promised. The band is wider by $1 \/ sqrt(n)$ for the $n$
    runs of all seeds together: somewhat more than four standard errors of such a share, two for its own error and two for its
    interval. Now and then an unlucky run
    ends with unit vectors and the exact value; at least four in five must not. The control halves the intervals.
    """
    A = planted(matrix)
    estimate, truth = (la.trace, A.trace()) if estimator == "trace" else (la.frobenius_norm, A.norm())
    operator = la.Dense(A)
    found = [estimate(operator, TOLERANCE[matrix], seed=seed % 10**9 + run) for run in range(runs)]
    if sum(one.stderr > 0 for one in found) < 0.8 * runs:
        return 0.0
    slack = 1e-10 * abs(float(truth))  # rounding, for the exact ones
    return float(
        np.mean([abs(one.value - float(truth)) <= (one.interval()[1] - one.value) / shrink + slack for one in found])
    )


@claim(
    source=("student1908probable", "bekas2007estimator"),
    predicts=Equals(0.955, within="0.025 + (8 * runs) ** -0.5", of="mean"),
    quick=Grid(matrix=["flat", "indefinite"], runs=[25], seeds=8),
    full=Grid(matrix=["flat", "indefinite"], runs=[200], seeds=8),
    controls={"the whole interval: half as long": dict(shrink=2.0)},
)
def interval_coverage_diagonal(matrix: str, runs: int, seed: int, shrink: float = 1.0) -> float:
    r"""The 95 % intervals of a diagonal's entries hold them in 93 to 98 of 100 cases.

    The diagonal is the mean of $z dot.o A z$ over random signs $z$ @bekas2007estimator, with an interval for each entry. The value is
    the share of entries, over all runs, that lie in theirs. The spectra with a few large eigenvalues are left out: to reach a
    tolerance there, the estimator takes unit vectors and is exact. The control halves the intervals.
    """
    A = planted(matrix)
    held = []
    for run in range(runs):
        found = la.diagonal(la.Dense(A), tol=0.2, seed=seed % 10**9 + run)
        half = (found.interval()[1] - found.values) / shrink
        held.append(float(((A.diagonal() - found.values).abs() <= half).double().mean()))
    return float(np.mean(held))


@claim(
    source="chen2021analysis",
    predicts=AtLeast(0.95, of="mean"),
    quick=Grid(matrix=["flat", "geometric", "indefinite", "network"], steps=[4, 12], runs=[50], seeds=8),
    full=Grid(matrix=["flat", "geometric", "indefinite", "network"], steps=[4, 12, 30], runs=[200], seeds=8),
    controls={"the whole bound: a fiftieth of it": dict(shrink=50.0)},
)
def density_bound(matrix: str, steps: int, runs: int, seed: int, shrink: float = 1.0) -> dict[str, float]:
    r"""The distance of an estimated spectral density from the true one is within its bound.

    Stochastic Lanczos quadrature replaces the density of eigenvalues by a few nodes. Its error in the Wasserstein distance
    $integral abs(F - hat(F)) dif x$ has a part from the finite number of steps, which the Christoffel function of the quadrature
    bounds, and one from the finite number of probes @chen2021analysis. The value is the share of runs in which the distance from
    the matrix's own spectrum is within the bound that is printed; it is a bound and not an interval, and may be wide. Beside it stands the
    median of bound over distance. The control divides the bound by fifty.
    """
    A = planted(matrix)
    truth = torch.linalg.eigvalsh(A).cpu().numpy()
    held, ratio = [], []
    for run in range(runs):
        found = la.spectral_density(la.Dense(A), steps, 5, seed=seed % 10**9 + run)
        away = wasserstein_distance(truth, found.nodes.flatten().numpy(), None, found.weights.flatten().numpy())
        held.append(away <= found.error / shrink)
        ratio.append(found.error / max(away, found.rounding))
    return {"value": float(np.mean(held)), "ratio": float(np.median(ratio))}


if __name__ == "__main__":
    script(__file__)
