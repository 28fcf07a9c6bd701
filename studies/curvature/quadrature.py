r"""Spectra and traces from matrix–vector products.

The Hessian of a network is known through its products with vectors. From $m$ of them, the method of Lanczos makes a quadrature
rule for the spectrum as the start vector sees it, the best there is with $m$ nodes @golub2009matrices; averaged over random
start vectors it gives the spectral density that plots of a network's curvature show @ubaru2017fast. For the trace alone,
spending a third of the products on the large eigenvalues turns an error of $m^(-1\/2)$ into $m^(-1)$ or better
@meyer2021hutchpp. The matrices are those of a network that has begun to learn scikit-learn's digits
@alpaydin1998digits and others with a known spectrum, formed once, so that the truth comes from dense linear algebra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.curvature.hutchinson_variance import network_matrix
from lemmata.studies.curvature.random_matrices import layer
from lemmata.studies.data import gaussian

SIZE = 160  # parameters of the network, and inputs of the layer
PRODUCTS = (12, 24, 48, 96)
ORDER = 300  # of the matrices with a prescribed spectrum
Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def matrix_of(operator: str, seed: int) -> Tensor:
    """A symmetric matrix of norm one: a network's Hessian, or WᵀW of a random layer."""
    if operator == "Hessian":
        matrix = network_matrix(la.Hessian, seed)
    else:
        weight = layer(SIZE, 2 * SIZE, "he", torch.Generator().manual_seed(seed))
        matrix = weight.T @ weight
    return matrix / torch.linalg.matrix_norm(matrix, 2)


def lanczos(matrix: Tensor, start: Tensor, steps: int, orthogonal: bool = True) -> Tensor:
    """The tridiagonal matrix of m steps, with or without orthogonalisation of every direction against all before it."""
    basis = [start / start.norm()]
    alpha: list[Tensor] = []
    beta: list[Tensor] = []
    for step in range(steps):
        residual = matrix @ basis[-1]
        alpha.append(basis[-1] @ residual)
        residual = residual - alpha[-1] * basis[-1] - (beta[-1] * basis[-2] if step else 0.0)
        if orthogonal:
            earlier = torch.stack(basis)
            for _ in range(2):
                residual = residual - (earlier @ residual) @ earlier
        beta.append(residual.norm())
        basis.append(residual / beta[-1])
    off = torch.stack(beta[:-1]) if steps > 1 else matrix.new_zeros(0)
    return torch.diag(torch.stack(alpha)) + torch.diag(off, 1) + torch.diag(off, -1)


def moment_errors(matrix: Tensor, start: Tensor, m: int, highest: int, measure: str) -> Tensor:
    """Errors of the quadrature rule on the powers 0, …, highest, relative to the moments of the absolute values."""
    nodes, vectors = torch.linalg.eigh(lanczos(matrix, start, m))
    values, frame = torch.linalg.eigh(matrix)
    seen = (frame.T @ start).square() / (start @ start)
    if measure == "trace":
        seen = torch.full_like(seen, 1 / len(seen))
    powers = torch.arange(highest + 1, device=matrix.device)[:, None]
    rule = (nodes**powers) @ vectors[0].square()
    return (rule - values**powers @ seen).abs() / (values.abs() ** powers @ seen)


def draw_moments(ax: Any, rows: Rows) -> Columns:
    """With m nodes the powers up to 2m − 1 are integrated to rounding, the next one is not.

    Relative error on a logarithmic axis against the power, for the Hessian of a network. Each line, one for a number of
    nodes, lies near ten to the minus fifteen and jumps up by many orders of magnitude at twice that number.
    """
    shown = [row for row in rows if row.arm == "" and row.k == 0 and row.point["operator"] == "Hessian"]
    last = max(len(row.values["errors"]) for row in shown)
    columns: dict[str, Sequence[float]] = {"power": list(range(last))}
    for colour, row in enumerate(shown):
        m, errors = row.point["m"], np.maximum(row.values["errors"], 1e-17)
        columns[f"m = {m}"] = [*errors, *[np.nan] * (last - len(errors))]
        ax.semilogy(range(len(errors)), errors, "o-", color=f"C{colour}", markersize=4, label=f"m = {m}")
    ax.set(xlabel="power k", ylabel="relative error", xticks=range(0, last, 2))
    ax.legend()
    return columns


@claim(
    source=("golub2009matrices", "ubaru2017fast"),
    predicts=AtMost(f"rounding({SIZE})", of="max"),
    quick=Grid(operator=["Hessian", "layer"], m=[1, 2, 3, 4, 6], seeds=5),
    full=Grid(operator=["Hessian", "layer"], m=[1, 2, 3, 4, 5, 6], seeds=50),
    controls={
        "powers up to 2m − 1: one more": dict(beyond=1),
        "the measure of the start vector: the mean over all": dict(measure="trace"),
    },
    figures=(draw_moments,),
)
def slq_gauss_exactness(operator: str, m: int, seed: int, beyond: int = 0, measure: str = "start") -> dict[str, Any]:
    r"""Lanczos with m steps integrates all powers up to 2m − 1 exactly.

    Let $A in RR^(n times n)$ be symmetric with eigenpairs $(lambda_i, u_i)$, $norm(v) = 1$, and $T_m$ the tridiagonal matrix of
    $m$ steps of Lanczos from $v$, with eigenvalues $theta_j$ and first components $tau_j$ of its eigenvectors. Then
    $ sum_(j=1)^m tau_j^2 theta_j^k = v^top A^k v = sum_(i=1)^n (u_i dot v)^2 lambda_i^k quad "for" k <= 2 m - 1: $
    Gauss quadrature for the spectral measure of $v$ @golub2009matrices. The value is the largest error over these $k$,
    relative to $sum_i (u_i dot v)^2 abs(lambda_i)^k$; the right-hand side is computed from a dense decomposition, a sum of
    160 terms.

    Controls: at $k = 2 m$ the error is $product_j beta_j^2$, far above rounding. And the measure is that of $v$, not the
    spectral density itself, which single start vectors give in the mean only @ubaru2017fast.
    """
    matrix = matrix_of(operator, seed)
    start = gaussian(torch.Generator().manual_seed(seed + 1), SIZE)
    errors = moment_errors(matrix, start, m, 2 * m, measure)
    return {"value": errors[: 2 * m + beyond].max(), "errors": errors}


def draw_ghosts(ax: Any, rows: Rows) -> Columns:
    """Without orthogonalisation the large eigenvalues are found again and again.

    The twenty largest values by rank: the circles of Lanczos with orthogonalisation lie on the line of the eigenvalues;
    the crosses without it form stairs above the line, each step a repeated eigenvalue.
    """
    shown = [row for row in rows if row.k == 0 and row.point["operator"] == "Hessian"]
    steps = max(row.point["steps"] for row in shown)
    ranks = list(range(1, 21))
    columns: dict[str, Sequence[float]] = {"rank": ranks}
    for row in [row for row in shown if row.point["steps"] == steps]:
        if row.arm == "":
            columns["eigenvalues"] = row.values["eigenvalues"][:20]
            ax.plot(ranks, columns["eigenvalues"], "-", color="0.5", label="eigenvalues")
        label = "without orthogonalisation" if row.arm else "with orthogonalisation"
        columns[label] = row.values["ritz"][:20]
        ax.plot(ranks, columns[label], "x" if row.arm else "o", color="C1" if row.arm else "C0", label=label)
    ax.set(xlabel="rank", ylabel=r"value ÷ $\Vert A\Vert$", xticks=[1, 5, 10, 15, 20])
    ax.legend()
    return columns


@claim(
    source=("paige1976error", "golub2009matrices"),
    predicts=AtMost("rounding(steps)", of="max"),
    quick=Grid(operator=["Hessian", "layer"], steps=[40, 80, 100], seeds=5),
    full=Grid(operator=["Hessian", "layer"], steps=[20, 40, 60, 80, 100, 120], seeds=20),
    controls={"orthogonal directions: the three-term recurrence alone": dict(orthogonal=False)},
    figures=(draw_ghosts,),
)
def slq_gauss_exactness_ghosts(operator: str, steps: int, seed: int, orthogonal: bool = True) -> dict[str, Any]:
    r"""Orthogonalised Lanczos finds no eigenvalue twice.

    Let $lambda_1 >= lambda_2 >= dots$ be the eigenvalues of $A$ and $theta_1 >= dots >= theta_m$ those of $T_m = Q^top A Q$. If
    $Q$ has orthonormal columns, then $theta_j <= lambda_j$ for every $j$ (Cauchy's interlacing theorem): a second copy of a
    simple eigenvalue is impossible. The value is $max_j (theta_j - lambda_j) \/ norm(A)$, at most rounding.

    In exact arithmetic the three-term recurrence makes $Q$ orthogonal by itself. In floating point it does so only until
    the first eigenvalue has been found to working accuracy @paige1976error; the control then finds it again, as a ghost, and
    a spectral density has too many outliers.
    """
    matrix = matrix_of(operator, seed)
    start = gaussian(torch.Generator().manual_seed(seed + 1), SIZE)
    ritz = torch.linalg.eigvalsh(lanczos(matrix, start, steps, orthogonal)).flip(0)
    values = torch.linalg.eigvalsh(matrix).flip(0)
    return {"value": (ritz - values[:steps]).max(), "ritz": ritz, "eigenvalues": values}


def hutchinson(matrix: Tensor, products: int, repetitions: int, draws: torch.Generator) -> Tensor:
    """Independent estimates of the trace, each the mean of vᵀAv over Gaussian v."""
    v = gaussian(draws, repetitions, len(matrix), products)
    return (v * (matrix @ v)).sum((1, 2)) / products


def hutchpp(matrix: Tensor, products: int, repetitions: int, draws: torch.Generator) -> Tensor:
    """Independent estimates: the trace on the range of A S exactly, Hutchinson's estimate on its complement."""
    third = products // 3
    basis = torch.linalg.qr(matrix @ gaussian(draws, repetitions, len(matrix), third))[0]
    rest = gaussian(draws, repetitions, len(matrix), third)
    rest = rest - basis @ (basis.mT @ rest)
    return (basis * (matrix @ basis)).sum((1, 2)) + (rest * (matrix @ rest)).sum((1, 2)) / third


def error_slope(matrix: Tensor, repetitions: int, seed: int, estimator: str) -> dict[str, Any]:
    """Log–log slope of the relative root-mean-square error against the number of products."""
    draws, estimate = torch.Generator().manual_seed(seed), hutchinson if estimator == "Hutchinson" else hutchpp
    trace = matrix.trace()
    errors = torch.stack(
        [(estimate(matrix, m, repetitions, draws) / trace - 1).square().mean().sqrt() for m in PRODUCTS]
    )
    slope = np.polyfit(np.log(PRODUCTS), errors.log().cpu().numpy(), 1)[0]
    return {"value": float(slope), "errors": errors}


def draw_errors(ax: Any, rows: Rows) -> Columns:
    """Error of the trace against the number of products: Hutch++ falls the faster the faster the eigenvalues decay.

    Both axes logarithmic. The solid lines of Hutch++, one for each decay of the spectrum, fall with growing steepness; the
    dotted lines of Hutchinson's estimator all fall with slope minus one half.
    """
    columns: dict[str, Sequence[float]] = {"products": PRODUCTS}
    for arm, name, style in (("", "Hutch++", "o-"), ("the sketch: Hutchinson's estimator alone", "Hutchinson", "s:")):
        for colour, decay in enumerate(sorted({row.point["decay"] for row in rows})):
            chosen = [row.values["errors"] for row in rows if row.arm == arm and row.point["decay"] == decay]
            label = f"{name}, i^−{decay:g}"
            columns[label] = np.sqrt(np.mean(np.square(chosen), axis=0))
            shown = f"{name}, $i^{{-{decay:g}}}$"
            ax.loglog(PRODUCTS, columns[label], style, color=f"C{colour}", label=shown)
    ax.set(xlabel="products m", ylabel="relative error of the trace", xticks=PRODUCTS, xticklabels=PRODUCTS)
    ax.minorticks_off()
    ax.legend(ncols=2, fontsize="small")
    return columns


TRACE_CONTROLS: dict[str, dict[str, Any]] = {
    "the sketch: Hutchinson's estimator alone": dict(estimator="Hutchinson"),
    "decaying eigenvalues: a flat spectrum": dict(flat=True),
}


@claim(
    source="meyer2021hutchpp",
    predicts=Equals("-decay", within=0.15),
    quick=Grid(decay=[1.0, 1.5, 2.0], repetitions=[80], seeds=14),
    full=Grid(decay=[1.0, 1.25, 1.5, 2.0], repetitions=[200], seeds=20),
    controls=TRACE_CONTROLS,
    figures=(draw_errors,),
)
def hutchpp_rate(
    decay: float, repetitions: int, seed: int, estimator: str = "Hutch++", flat: bool = False
) -> dict[str, Any]:
    r"""The error of Hutch++ falls as fast as the eigenvalues.

    Let $A in RR^(n times n)$ be positive semidefinite. With $m$ products, take $Q$, an orthonormal basis of the range of $A S$
    for a matrix $S$ of $m\/3$ Gaussian columns, and estimate $"tr" A$ by
    $ "tr" Q^top A Q + 3/m "tr" G^top (I - Q Q^top) A (I - Q Q^top) G $
    with $m\/3$ more columns $G$. The relative error is $O(1\/m)$ for every $A$, where Hutchinson's estimator alone has $m^(-1\/2)$
    @meyer2021hutchpp. It is of the order of $m^(-1\/2) norm(A - A_(m\/3))_F \/ "tr" A$, with $A_k$ the best approximation of rank
    $k$: for eigenvalues $lambda_i = i^(-alpha)$ that is $m^(-alpha)$. The value is the slope of the logarithm of the
    root-mean-square error over $m = 12, dots, 96$, at $n = 300$; it must be $-alpha$. Gaussian
    probes see no basis, so $A$ is taken diagonal.

    Controls: without the sketch the slope is $-1\/2$ whatever the spectrum. And on a flat one, eigenvalues uniform on
    $[1\/2, 3\/2]$, there is nothing for the sketch to find.
    """
    draws = torch.Generator().manual_seed(seed)
    values = torch.arange(1, ORDER + 1) ** -decay
    if flat:
        values = 0.5 + torch.rand(ORDER, generator=draws, device="cpu").to(values.device)
    return error_slope(torch.diag(values), repetitions, seed + 1, estimator)


@claim(
    source="meyer2021hutchpp",
    predicts=AtMost(-0.85, of="mean"),
    quick=Grid(repetitions=[200], seeds=6),
    full=Grid(repetitions=[1000], seeds=30),
    controls=TRACE_CONTROLS,
)
def hutchpp_rate_network(repetitions: int, seed: int, estimator: str = "Hutch++", flat: bool = False) -> dict[str, Any]:
    r"""On the Gauss–Newton matrix of a network the error of Hutch++ falls at least like one over the number of products.

    The Gauss–Newton matrix of a convex loss is positive semidefinite, as the theorem asks (a Hessian need not be), and its
    spectrum decays: a few large eigenvalues hold most of the trace. The value is the slope as before, for the
    $160 times 160$ matrix of a network after fifty steps of training; its mean over networks must be at most $-1$, to within
    $0.15$. The second control is a flat spectrum as before.
    """
    matrix = network_matrix(la.GGN, seed)
    if flat:
        draws = torch.Generator().manual_seed(seed)
        values = 0.5 + torch.rand(SIZE, generator=draws, device="cpu").to(matrix.device)
        matrix = torch.diag(values)
    return error_slope(matrix, repetitions, seed + 1, estimator)


if __name__ == "__main__":
    script(__file__)
