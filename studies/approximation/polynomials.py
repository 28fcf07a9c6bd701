r"""Width cannot rescue a polynomial activation.

Networks with one hidden layer approximate every continuous function if and only if their activation is not a polynomial
@leshno1993multilayer; the classical theorems for sigmoids are @cybenko1989approximation and @hornik1991approximation. The
exception is exact and finite: with an activation of degree $p$ all networks of all widths live in one space of polynomials,
whose dimension and whose distance from a given target are known in closed form. Both are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lemmata.architectures import MLP, Law
from lemmata.studies.claim import Equals, Grid, claim, script

UNIT = Law("unit weights and biases", lambda n, m: 1.0, lambda n, m: 1.0)
CUT = 1e-10  # singular values below CUT times the largest count as zero


def polynomial(degree: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activations z, z², z³ + z, z⁴ + z², …: sums of powers of one parity with the given degree."""
    return lambda z: sum((z**power for power in range(degree, 0, -2)), torch.zeros_like(z))


def hidden_units(x: torch.Tensor, width: int, activation: Any, depth: int, seed: int) -> torch.Tensor:
    """The last hidden layer of a random network at the rows of x, divided by the largest entry of each unit."""
    draws = torch.Generator().manual_seed(seed)
    widths = [x.shape[1], *[width] * depth, 1]
    net = MLP(widths, activation=activation, init=UNIT, generator=draws, device=x.device)
    with torch.no_grad():
        units = net.activation(net.preactivations(x)[-2])
    return units / units.abs().amax(0).clamp_min(1e-300)


def _row(rows: Sequence[Any], arm: str, degree: int) -> Any:
    point = {"degree": degree, "width": 500}
    return next(row for row in rows if row.arm == arm and row.k == 0 and dict(row.point) == point)


def draw_spectrum(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Singular values of 500 hidden units at 200 points: polynomial activations stop at a known number.

    Singular values on a logarithmic axis against their index. With the square they drop to rounding after the tenth, with
    the cubic after the twentieth; with the rectifier they decay slowly up to the two hundredth.
    """
    columns: dict[str, Sequence[float]] = {}
    wanted = [("", 2, "degree 2"), ("", 3, "degree 3"), ("a polynomial activation: ReLU", 2, "ReLU")]
    for arm, degree, label in wanted:
        row = _row(rows, arm, degree)
        values = np.maximum(row.values["spectrum"], 1e-18)
        columns["index"] = list(range(1, len(values) + 1))
        columns[label] = list(values)
        ax.semilogy(columns["index"], values, marker=".", markersize=3, label=label)
    ax.axhline(CUT, color="0.6", linestyle="--")
    ax.set(xlabel="index", ylabel="singular value ÷ the largest")
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.8))
    return columns


@claim(
    source="leshno1993multilayer",
    predicts=Equals("comb(degree + 3, 3)", within=0, of="each"),
    quick=Grid(degree=[2, 3], width=[500], seeds=5),
    full=Grid(degree=[1, 2, 3, 4], width=[300, 500, 1000], seeds=10),
    controls={
        "a polynomial activation: ReLU": dict(activation="relu"),
        "a polynomial activation: tanh": dict(activation="tanh"),
        "one hidden layer: a second one": dict(depth=2),
    },
    figures=(draw_spectrum,),
)
def leshno_polynomial_rank(
    degree: int, width: int, seed: int, activation: str = "polynomial", depth: int = 1
) -> dict[str, Any]:
    r"""Polynomial activations span only polynomials, at any width.

    Let $phi$ be a polynomial of degree $p$ and $h_i (x) = phi(w_i dot x + b_i)$, $i <= n$, hidden units on $RR^d$ with
    Gaussian weights and biases. For every width $n >= binom(d + p, p)$ they span, almost surely, the polynomials of
    degree at most $p$ in $d$ variables: a space of dimension $binom(d + p, p)$, which is dense in no $C(K)$ with $K$
    infinite. A locally bounded, almost everywhere continuous activation gives a dense span if and only if it is not a
    polynomial almost everywhere @leshno1993multilayer.

    Measured is the rank of the matrix of hidden units at 200 points of $[-1, 1]^3$ (singular values above $10^(-10)$ of
    the largest), for $z^2$ and $z^3 + z$: 10 and 20. With ReLU or tanh the rank is that of 200 free points, and a second
    hidden layer of the polynomial raises the degree to $p^2$.
    """
    draws = torch.Generator().manual_seed(seed + 1)
    x = (2 * torch.rand(200, 3, generator=draws, device="cpu") - 1).to(torch.get_default_device())
    units = hidden_units(x, width, polynomial(degree) if activation == "polynomial" else activation, depth, seed)
    spectrum = torch.linalg.svdvals(units)
    spectrum = spectrum / spectrum[0]
    rank = int((spectrum > CUT).sum())
    gap = spectrum[rank] if rank < len(spectrum) else 0.0
    return {"value": rank, "last kept": spectrum[rank - 1], "first cut": gap, "spectrum": spectrum}


def draw_fits(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The best fit of |x| by 500 hidden units: a parabola if the activation is quadratic, however wide the network.

    The absolute value on the interval from minus one to one, the best quadratic and quartic fit, which round off the
    corner, and the fit by rectifiers, which cannot be told from the target.
    """
    columns: dict[str, Sequence[float]] = {}
    wanted = [("", 2, "degree 2"), ("", 4, "degree 4"), ("a polynomial activation: ReLU", 2, "ReLU")]
    for arm, degree, label in wanted:
        row = _row(rows, arm, degree)
        columns["x"], columns["|x|"] = row.values["x"], np.abs(row.values["x"])
        columns[label] = row.values["fit"]
        ax.plot(columns["x"], columns[label], label=label, linestyle="--" if arm else "-")
    ax.plot(columns["x"], columns["|x|"], color="0.7", linewidth=4, zorder=0, label="|x|")
    ax.set(xlabel="x")
    ax.legend()
    return columns


@claim(
    source="leshno1993multilayer",
    predicts=Equals(
        "comb(2*(degree//2), degree//2) / ((degree//2 + 1) * 4**(degree//2) * sqrt(6))",
        within="rounding(128, 100)",
        of="each",
    ),
    quick=Grid(degree=[2, 3, 4], width=[500], seeds=5),
    full=Grid(degree=[1, 2, 3, 4, 5, 6], width=[300, 500, 1000], seeds=10),
    controls={
        "a polynomial activation: ReLU": dict(activation="relu"),
        "a polynomial activation: tanh": dict(activation="tanh"),
    },
    figures=(draw_fits,),
)
def leshno_polynomial_rank_floor(degree: int, width: int, seed: int, activation: str = "polynomial") -> dict[str, Any]:
    r"""The best fit of the absolute value by a polynomial network misses by a Catalan number.

    Let $phi$ be a polynomial of degree $p$, $j = floor(p\/2)$ and $C_j = binom(2 j, j) \/ (j + 1)$. For every width
    $n > p$ and almost all weights and biases,
    $ min_(a in RR^n) norm(thin abs(x) - sum_i a_i phi(w_i x + b_i))_(L^2 (-1, 1)) = frac(1, sqrt(6)) frac(C_j, 4^j), $
    the tail of the Legendre series of $abs(x)$: its squares are $1\/6, 1\/96, 1\/384, dots$ for $p = 0, 2, 4, dots$ and
    telescope with ratio $((2 j - 1)\/(2 j + 2))^2$. For an activation that is not a polynomial the minimum tends to zero
    with the width @leshno1993multilayer.

    The inner products are exact Gauss–Legendre sums on the two halves of the interval; the tolerance allows for the
    condition number of the span, about $10^2$. The controls have as many units, ReLU and tanh.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    half = (nodes + 1) / 2
    device = torch.get_default_device()
    x = torch.tensor(np.concatenate([-half[::-1], half]), device=device)
    root = torch.tensor(np.sqrt(np.concatenate([weights[::-1], weights]) / 2), device=device)
    units = hidden_units(x[:, None], width, polynomial(degree) if activation == "polynomial" else activation, 1, seed)
    u, s, _ = torch.linalg.svd(root[:, None] * units, full_matrices=False)
    span = u[:, s > CUT * s[0]]
    target = root * x.abs()
    fit = span @ (span.T @ target)
    condition = s[0] / s[span.shape[1] - 1]
    error = math.sqrt(((target - fit) ** 2).sum().item())
    return {"value": error, "dimension": span.shape[1], "condition": condition, "x": x, "fit": fit / root}


if __name__ == "__main__":
    script(__file__)
