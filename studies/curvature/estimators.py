r"""Do the error bars of the laboratory hold?

Every number that the analyzers print has an interval. An interval that is said to hold the truth with probability 0.95 must
do so, the rule that decided when to stop included. Stopping as soon as the spread looks small favours samples whose spread
is small by chance, and with few probes a normal quantile is too short @student1908probable. Here the estimators are run many times
on matrices whose truth is known, in the way a user runs them: with a tolerance, until it is met. An interval must also be no
longer than it needs to be, and a bound must hold always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import t, wasserstein_distance
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian

SIZE = 200
SPECTRA: dict[str, Callable[[int], Tensor]] = {
    "flat": lambda n: torch.linspace(0.5, 1.5, n),
    "geometric": lambda n: 0.9 ** torch.arange(n),
    "spiked": lambda n: torch.cat([torch.tensor([100.0, 50.0, 30.0]), torch.ones(n - 3)]),
    "indefinite": lambda n: torch.linspace(-1, 2, n),
}
MATRICES = tuple(SPECTRA)
#: Relative tolerances that take some tens of products, and fewer than would give the exact value.
TOLERANCE = {"flat": 0.02, "geometric": 0.05, "spiked": 0.05, "indefinite": 0.1}
#: The same for log-determinants, and the damping that makes each spectrum positive.
TOLERANCE_LOGDET = {"flat": 0.01, "geometric": 0.055, "spiked": 0.009, "indefinite": 0.035}
DAMPING = {"flat": 0.0, "geometric": 0.01, "spiked": 0.0, "indefinite": 1.1}


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
        found = basis * SPECTRA[name](SIZE).to(basis) @ basis.T
    return (found + found.T) / 2


class Rotated(la.Operator):
    """A planted spectrum in the basis U ⊗ V of two random rotations: products of a large matrix at little cost."""

    def __init__(self, values: Tensor) -> None:
        generator, side = torch.Generator().manual_seed(0), 32
        self.left, self.right = (
            torch.linalg.qr(gaussian(generator, n, n))[0].to(values) for n in (side, len(values) // side)
        )
        self.values = values[torch.randperm(len(values), generator=generator, device="cpu")].reshape(side, -1)
        self.layout = la.Layout(("vector",), ((len(values),),))
        self.dtype, self.device = values.dtype, values.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        x = self.left.T @ vectors.reshape(len(vectors), *self.values.shape) @ self.right
        return (self.left @ (x * self.values) @ self.right.T).reshape(vectors.shape)

    def plan(self, k: int = 1) -> la.Plan:
        """Products at an assumed 10 Gflop/s."""
        return la.Plan(repr(self), k, 4e-10 * k * self.values.numel() * sum(self.values.shape), 0)


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
    quick=Grid(estimator=["trace", "norm"], matrix=MATRICES, runs=[45], seeds=40),
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
    source=("ubaru2017fast", "golub2009matrices"),
    predicts=Equals(0.955, within="0.025 + (8 * runs) ** -0.5", of="mean"),
    quick=Grid(matrix=MATRICES, runs=[4], seeds=40),
    full=Grid(matrix=MATRICES, runs=[40], seeds=40),
    controls={"the whole interval: a third as long": dict(shrink=3.0)},
    timeout=1200,
)
def interval_coverage_logdet(matrix: str, runs: int, seed: int, shrink: float = 1.0) -> float:
    r"""The 95 % intervals of log-determinants hold the truth in 93 to 98 of 100 runs.

    The log-determinant of a positive definite matrix is the trace of its logarithm, whose quadratic forms Lanczos quadrature
    gives from few products @ubaru2017fast. Here quadrature adds an error that is not random, and the interval holds it too: a Gauss
    rule bounds each form from above, a Gauss–Radau rule with a node at the lower end of the spectrum from below @golub2009matrices.
    The matrices have 1024 rows, the four spectra, and as much damping as makes them positive; the run stops when the geometric mean of
    the eigenvalues is known to the tolerance asked for. The value is the share of runs whose interval holds
    the truth; at least half must not be exact. The band is wider by $sqrt(5 \/ n)$ for the $n$ runs of all seeds, so that so
    few can tell a near miss from the truth. The control takes a third of each interval.
    """
    spectrum = SPECTRA[matrix](1024) + DAMPING[matrix]
    operator, truth, lowest = Rotated(spectrum), float(spectrum.log().sum()), 0.999 * float(spectrum.min())
    found = [
        la.logdet(operator, TOLERANCE_LOGDET[matrix], seed=seed % 10**9 + run, at_least=lowest) for run in range(runs)
    ]
    if sum(one.stderr > one.bias for one in found) < 0.5 * runs:
        return 0.0
    return float(np.mean([abs(one.value - truth) <= (one.interval()[1] - one.value) / shrink for one in found]))


@cache
def spreads(estimator: str, matrix: str) -> dict[int, float]:
    """The standard deviation of one probe of the trace, or of the norm, on what a basis of k images leaves."""
    A, found = planted(matrix), {}
    for rank in (0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40):
        draws = []
        for draw in range(5 if rank else 1):
            Z = gaussian(torch.Generator().manual_seed(draw), SIZE, rank).to(A)
            Q = torch.linalg.qr(A @ Z.sign())[0]
            B = A - Q @ (Q.T @ A)
            B = B - (B @ Q) @ Q.T
            B = B @ B if estimator == "norm" else B
            draws.append(float((2 * (B.square().sum() - B.diagonal().square().sum()).clamp(min=0)).sqrt()))
        found[rank] = float(np.median(draws)) / (2 * float(A.norm()) if estimator == "norm" else 1.0)
    return found


def best_half_width(estimator: str, matrix: str, products: int) -> float:
    """Half the length of the best interval from a fixed number of products; see the claim."""
    counts = {rank: products - 2 * rank for rank in spreads(estimator, matrix) if products - 2 * rank >= 2}
    return min(t.ppf(0.975, n - 1) * spreads(estimator, matrix)[k] / n**0.5 for k, n in counts.items())


def plain_half_width(estimator: str, operator: la.Operator, products: int, seed: int) -> float:
    """Half the length of Student's interval from random signs alone."""
    signs = gaussian(torch.Generator().manual_seed(seed), operator.shape[0], products).sign()
    images = operator @ signs.to(operator.device, operator.dtype)
    forms = images.square().sum(0) if estimator == "norm" else (signs.to(images) * images).sum(0)
    half = float(t.ppf(0.975, products - 1) * forms.std() / products**0.5)
    return half / (2 * float(forms.mean().sqrt())) if estimator == "norm" else half


@claim(
    source=("student1908probable", "meyer2021hutchpp"),
    predicts=AtMost(1.5, of="mean"),
    quick=Grid(estimator=["trace", "norm"], matrix=MATRICES, runs=[30], seeds=9),
    full=Grid(estimator=["trace", "norm"], matrix=MATRICES, runs=[150], seeds=12),
    controls={
        "the length that coverage asks for: twice as long": dict(stretch=2.0),
        "deflation: random signs alone, as many": dict(deflated=False),
    },
)
def interval_width(
    estimator: str, matrix: str, runs: int, seed: int, stretch: float = 1.0, deflated: bool = True
) -> dict[str, float]:
    r"""An interval is at most 1.5 times as long as the best one from as many products.

    Coverage alone is cheap: a long interval has it. The rival knows in advance how many products $n$ the run will take, and the best
    rank $k$ of a deflation @meyer2021hutchpp: $k$ products for images, $k$ for their images, and Student's
    interval @student1908probable from the $n - 2 k$ probes that remain, with the standard deviation $sigma_k$ of one probe on what is left,
    computed from the matrix. Its half-length is $min_k t_(0.975, n - 2 k - 1) sigma_k \/ sqrt(n - 2 k)$. The estimator has to
    find out $n$, $k$ and $sigma$ while it runs, and to pay for looking. The value is the median over runs of the ratio of
    lengths; runs that end with the exact value are left out. One control doubles the intervals; the other spends the same products
    on random signs without deflation.
    """
    estimate, operator = la.trace if estimator == "trace" else la.frobenius_norm, la.Dense(planted(matrix))
    ratios, spent = [], []
    for run in range(runs):
        found = estimate(operator, TOLERANCE[matrix], seed=seed % 10**9 + run)
        if not found.stderr:
            continue
        half = found.interval()[1] - found.value
        if not deflated:
            half = plain_half_width(estimator, operator, found.matvecs, seed % 10**9 + run)
        ratios.append(stretch * half / best_half_width(estimator, matrix, found.matvecs))
        spent.append(found.matvecs)
    if len(ratios) < 0.8 * runs:
        return {"value": float("inf"), "products": float("nan")}
    return {"value": float(np.median(ratios)), "products": float(np.median(spent))}


def draw_tightness(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """How much larger the bound is than the error that it bounds.

    The median of bound over error at each matrix, on a logarithmic axis; all are at least one.
    """
    columns: dict[str, list[Any]] = {"matrix": [], "bound over error": []}
    for row in [row for row in rows if not row.arm]:
        columns["matrix"].append(row.point["matrix"])
        columns["bound over error"].append(row.values["ratio"])
    ax.semilogy(columns["matrix"], columns["bound over error"], "o", fillstyle="none")
    ax.axhline(1.0, color="0.5")
    ax.set(ylabel="bound / error")
    return columns


@claim(
    source="parlett1998symmetric",
    predicts=AtLeast(1.0, of="min"),
    quick=Grid(matrix=[*MATRICES, "network"], runs=[3], seeds=5),
    full=Grid(matrix=[*MATRICES, "network"], runs=[150], seeds=8),
    controls={"the vector whose residual it is: it has moved since": dict(moved=0.3)},
    figures=(draw_tightness,),
)
def residual_intervals(matrix: str, runs: int, seed: int, moved: float = 0.0) -> dict[str, float]:
    r"""Each residual interval of an eigenpair holds an eigenvalue.

    For a symmetric $A$, a unit vector $u$ and $theta = u dot A u$, some eigenvalue lies within $norm(A u - theta u)$ of $theta$
    @parlett1998symmetric: always, and not in 95 of 100 cases. Three pairs from each end of the spectrum are taken by Lanczos iteration that stops
    early, at a tolerance of one tenth. The value is the share of intervals that hold an eigenvalue of the dense matrix, to rounding. Beside it
    stands the median of residual over error: the bound is safe and not sharp, for the error is of the order of the residual's
    square; where both are rounding, it is one. The control takes the residual of another vector: $u$ before a random part of norm 0.3 was added.
    """
    A = planted(matrix)
    truth, rounding = torch.linalg.eigvalsh(A), 1e-12 * float(A.norm())
    held, ratio = [], []
    for run in range(runs):
        start = seed % 10**9 + run
        pairs = la.eigenpairs(la.Dense(A), 3, "both", tol=0.1, seed=start)
        noise = gaussian(torch.Generator().manual_seed(start), *pairs.vectors.shape).to(A)
        u = pairs.vectors + moved * noise / noise.norm(dim=0)
        u = u / u.norm(dim=0)
        theta = (u * (A @ u)).sum(0)
        away = (truth[:, None] - theta).abs().min(0).values.cpu()
        held.append((away <= pairs.residuals + rounding).double().mean())
        ratio.append(((pairs.residuals + rounding) / away.clamp(min=rounding)).median())
    return {"value": float(torch.stack(held).mean()), "ratio": float(torch.stack(ratio).median())}


@claim(
    source="chen2021analysis",
    predicts=AtLeast(0.95, of="mean"),
    quick=Grid(matrix=["flat", "geometric", "indefinite", "network"], steps=[4, 12], runs=[20], seeds=6),
    full=Grid(matrix=["flat", "geometric", "indefinite", "network"], steps=[4, 12, 30], runs=[200], seeds=8),
    controls={"the whole bound: a fiftieth of it": dict(shrink=50.0)},
    figures=(draw_tightness,),
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
