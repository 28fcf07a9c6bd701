r"""What N buys on an interval: the classical rates.

How fast the error of a best approximation falls is decided by the smoothness of the target and by what may be chosen. Affine
pieces with free knots reach $N^(-2)$ where equal ones are held up by the roughest place @devore1998nonlinear; polynomials gain a
factor with each degree on analytic functions @trefethen2019approximation, and crawl like $1\/n$ at a corner @varga1987conjecture. The best
approximations are computed, with both ends of their error, not trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import e, log2, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.studies.claim import Equals, Grid, claim, script

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
POINTS = 4096


class Curve(NamedTuple):
    """A convex or concave function on [0, 1], its E_N, and the power of a uniform grid that resolves it."""

    f: Callable[[Tensor], Tensor]
    error: Callable[[int], float]
    grading: int = 1


CURVES = {
    "the square": Curve(torch.square, lambda n: 1 / (8 * n**2)),
    "the exponential": Curve(torch.exp, lambda n: (sqrt(e) - 1) ** 2 / (4 * n**2)),
    "the root": Curve(torch.sqrt, lambda n: 1 / (4 * n * (n + 1)), 4),
    "a step": Curve(lambda x: (x > 1 / 3).to(x), lambda n: 0.0),
}


def graded(power: int) -> Tensor:
    """Points of [0, 1], denser at zero."""
    return (torch.arange(POINTS + 1, device="cpu", dtype=torch.float64) / POINTS) ** power


def chords(x: Tensor, y: Tensor, pieces: int, f: Callable[[Tensor], Tensor]) -> float:
    """The error of the best function with equal pieces: of each chord, of a convex or concave f, half its height."""
    knots = torch.arange(pieces + 1, device="cpu", dtype=torch.float64) / pieces
    heights = f(knots)
    at = torch.searchsorted(knots[1:-1].contiguous(), x)
    line = heights[at] + (x - knots[at]) * pieces * (heights[at + 1] - heights[at])
    return float((y - line).abs().max()) / 2


def draw_pieces(ax: Any, rows: Rows) -> Columns:
    """The error of N affine pieces with free knots against N: the root is no harder than the square.

    Three solid lines of slope minus two, both axes logarithmic, each ending on its theoretical dashes; with equal pieces the root's error falls
    with slope minus one half alone.
    """
    columns: dict[str, Any] = {}
    shown = (("the square", "", "o-"), ("the exponential", "", "s-"), ("the root", "", "^-"))
    equal = "free knots: equal pieces"
    for place, (target, arm, style) in enumerate((*shown, ("the root", equal, "^:"))):
        chosen = sorted(
            (r.point["pieces"], r.values["error"]) for r in rows if r.arm == arm and r.point["target"] == target
        )
        columns["pieces"] = [n for n, _ in chosen]
        name = target + (", equal pieces" if arm else "")
        columns[name] = [error for _, error in chosen]
        ax.loglog(columns["pieces"], columns[name], style, color=f"C{place}", label=name)
    for target, _, _ in shown:
        line = [CURVES[target].error(n) for n in columns["pieces"]]
        ax.loglog(columns["pieces"], line, "k--", linewidth=1)
    ax.set(xlabel="pieces N", ylabel="largest error")
    ax.legend()
    return columns


@claim(
    source="devore1998nonlinear",
    predicts=Equals(1, within=0.02, of="each"),
    quick=Grid(target=["the square", "the exponential", "the root"], pieces=[8, 16, 32], seeds=1),
    full=Grid(target=["the square", "the exponential", "the root"], pieces=[8, 16, 32, 64], seeds=1),
    controls={
        "free knots: equal pieces": dict(knots="equal"),
        "two derivatives between finitely many points: a step": dict(other="a step"),
    },
    figures=(draw_pieces,),
)
def free_knots_square_law(
    target: str, pieces: int, seed: int, knots: str = "free", other: str = ""
) -> dict[str, float]:
    r"""N affine pieces with free knots err like one over N squared, even at a root.

    For $f$ with two derivatives, the least largest error of a function of $N$ affine pieces is
    $ E_N (f) approx frac(1, 16 N^2) (integral_0^1 sqrt(abs(f'' (x))) dif x)^2, $
    with knots of density $sqrt(abs(f''))$: a piece of width $h$ errs by $h^2 abs(f'')\/16$, and the best choice makes all equal. So
    $E_N = 1\/(8 N^2)$ for $x^2$ and $E_N approx (sqrt(e) - 1)^2\/(4 N^2)$ for $e^x$. For $sqrt(x)$, whose derivative is infinite at zero,
    the best knots are $(k (k + 1))^2 \/ (N (N + 1))^2$ and $E_N = 1\/(4 N (N + 1))$: free knots give it the rate of a smooth
    function @devore1998nonlinear. $E_N$ is found by bisection, with a certificate from below; the value is the upper end of its
    interval over the formula. Controls: equal pieces, with which the square alone obeys; and a jump.
    """
    chosen = CURVES[other or target]
    x = graded(chosen.grading)
    y = chosen.f(x)
    if knots == "equal":
        lower = upper = chords(x, y, pieces, chosen.f)
    else:
        found = la.best_pieces(x, y, pieces)
        lower, upper = found.lower, found.upper
    scale = 1 / CURVES[target].error(pieces)
    return {"value": upper * scale, "certified": lower * scale, "error": upper}


def rough(name: str, alpha: float) -> Callable[[Tensor], Tensor]:
    """A function of Hölder exponent α: at one point, everywhere, or nowhere."""
    if name == "a cusp":
        return lambda x: x**alpha
    if name == "Weierstrass":
        octaves = range(25)
        return lambda x: sum(
            (2.0 ** (-alpha * k) * torch.cos(2 * pi * 2.0**k * x) for k in octaves), torch.zeros_like(x)
        )
    return torch.exp


def interpolation_error(f: Callable[[Tensor], Tensor], pieces: int) -> float:
    """The largest error of the chords of equal pieces, 64 points in each."""
    x = torch.arange(64 * pieces + 1, device="cpu", dtype=torch.float64) / (64 * pieces)
    y = f(x)
    shares = torch.arange(64, device="cpu", dtype=torch.float64) / 64
    knots = y[::64]
    line = knots[:-1, None] + shares * knots.diff()[:, None]
    return float((y[:-1].reshape(pieces, 64) - line).abs().max())


@claim(
    source="devore1998nonlinear",
    predicts=Equals("alpha", within=0.02, of="each"),
    quick=Grid(target=["a cusp", "Weierstrass"], alpha=[0.25, 0.5, 0.75], pieces=[64, 256], seeds=1),
    full=Grid(target=["a cusp", "Weierstrass"], alpha=[0.1, 0.25, 0.5, 0.75, 0.9], pieces=[64, 256, 1024], seeds=1),
    controls={
        "no smoother than its exponent: the exponential": dict(other="smooth"),
        "equal pieces: knots drawn to the cusp": dict(knots="graded"),
    },
)
def hoelder_rate(target: str, alpha: float, pieces: int, seed: int, other: str = "", knots: str = "equal") -> float:
    r"""Equal pieces follow a function of Hölder exponent alpha at the rate N to the minus alpha.

    If $abs(f(x) - f(y)) <= abs(x - y)^alpha$, $0 < alpha < 1$, the interpolant with $N$ equal pieces errs by at most $C N^(-alpha)$, and for the
    worst functions no less @devore1998nonlinear: for $x^alpha$, rough at one point, and for Weierstrass'
    $sum_k 2^(-alpha k) cos(2 pi 2^k x)$, rough at all of them. The value is $-log_2$ of the ratio of the errors at $2 N$ and $N$ pieces. Controls: a
    smooth function, with exponent 2; and knots at $(i\/N)^(2\/alpha)$, which give the cusp its $N^(-2)$ back, but are of no help to
    Weierstrass.
    """
    f = rough(other or target, alpha)
    if knots == "graded":
        power = 2 / alpha
        errors = [graded_error(f, n, power) for n in (pieces, 2 * pieces)]
    else:
        errors = [interpolation_error(f, n) for n in (pieces, 2 * pieces)]
    return log2(errors[0] / errors[1])


def graded_error(f: Callable[[Tensor], Tensor], pieces: int, power: float) -> float:
    """The largest error of the chords between f at (i/N)^power."""
    knots = (torch.arange(pieces + 1, device="cpu", dtype=torch.float64) / pieces) ** power
    shares = torch.arange(64, device="cpu", dtype=torch.float64) / 64
    heights = f(knots)
    x = knots[:-1, None] + shares**4 * knots.diff()[:, None]  # dense at the left end, where the cusp bends most
    return float((f(x) - heights[:-1, None] - shares**4 * heights.diff()[:, None]).abs().max())


BERNSTEIN = 0.28016949902386913


def draw_polynomials(ax: Any, rows: Rows) -> Columns:
    """The error of the best polynomial for |x| swings between two levels.

    The error of the best polynomial of degree sixteen on the interval from minus one to one: it touches the two dashed levels in turn, most
    densely at the ends, and has its sharp point at the corner.
    """
    row = next(row for row in rows if row.arm == "" and row.point["degree"] == 16)
    x, error = row.values["x"], row.values["errors"]
    ax.plot(x, error)
    for level in (-row.values["error"], row.values["error"]):
        ax.axhline(level, color="0.5", linestyle="--", linewidth=1)
    ax.set(xlabel="x", ylabel="|x| − p(x), degree 16")
    return {"x": x, "error": error}


@claim(
    source="varga1987conjecture",
    predicts=Equals(BERNSTEIN, within=0.001, of="each"),
    quick=Grid(degree=[16, 32, 64], seeds=1),
    full=Grid(degree=[16, 32, 64, 128, 256], seeds=1),
    controls={
        "a corner in the middle: at one half": dict(corner=0.5),
        "the best polynomial: interpolation at Chebyshev points": dict(polynomial="interpolant"),
    },
    figures=(draw_polynomials,),
)
def bernstein_constant(degree: int, seed: int, corner: float = 0.0, polynomial: str = "best") -> dict[str, Any]:
    r"""Polynomials meet the absolute value at the rate of Bernstein's constant over the degree.

    Let $E_n$ be the least largest error of a polynomial of degree $n$ on $[-1, 1]$. For $abs(x)$, $n E_n$ tends along even $n$ to a
    constant that Bernstein took for $1\/(2 sqrt(pi)) = 0.28209$; Varga and Carpenter computed $0.28016949902dots$, to 50 digits, and refuted
    him @varga1987conjecture. Here $E_n$ is the upper end of the interval that Remez' algorithm gives; the value is $n E_n$, and the band excludes
    $0.28209$. Controls: a corner at $1\/2$, where the constant shrinks by $sqrt(3)\/2$; and an interpolant, which is not the best.
    """
    f = lambda x: (x - corner).abs()  # noqa: E731
    x = torch.linspace(-1, 1, 1601, dtype=torch.float64, device="cpu")
    if polynomial == "best":
        best = la.remez(f, degree)
        error, errors = best.upper, f(x) - best(x)
    else:
        p = np.polynomial.chebyshev.Chebyshev.interpolate(lambda t: np.abs(t - corner), degree)
        errors = f(x) - torch.from_numpy(p(x.numpy()))
        error = float(errors.abs().max())
    return {"value": degree * error, "error": error, "x": x, "errors": errors}


def draw_geometric(ax: Any, rows: Rows) -> Columns:
    """Poles make the error of the best polynomial fall geometrically, the nearer the slower; a corner makes it crawl.

    Error divided by that of degree two on a logarithmic axis against the degree. Straight lines for three poles, the steeper the farther the pole, with
    dots on them; the dots of a corner lie on a flat curve above.
    """
    corner = "analytic on the interval: a corner"
    columns: dict[str, Any] = {}
    curves = [("", pole, f"pole at {pole:g}") for pole in sorted({row.point["pole"] for row in rows})]
    for place, (arm, pole, label) in enumerate([*curves, (corner, curves[0][1], "a corner")]):
        chosen = sorted(
            (r.point["degree"], r.values["error"]) for r in rows if r.arm == arm and r.point["pole"] == pole
        )
        columns["degree"] = [n for n, _ in chosen]
        columns[label] = [error / chosen[0][1] for _, error in chosen]
        ax.semilogy(columns["degree"], columns[label], "o", color=f"C{place}", label=label)
        if not arm:
            ax.semilogy(
                columns["degree"],
                [(pole - sqrt(pole**2 - 1)) ** (n - 2) for n in columns["degree"]],
                color=f"C{place}",
                linewidth=1,
            )
    ax.set(xlabel="degree n", ylabel="$E_n$ ÷ $E_2$", xticks=columns["degree"])
    ax.legend()
    return columns


@claim(
    source="trefethen2019approximation",
    predicts=Equals(1, within=1e-6, of="each"),
    quick=Grid(pole=[1.25, 2.0, 4.0], degree=[2, 4, 6, 8], seeds=1),
    full=Grid(pole=[1.1, 1.25, 2.0, 4.0], degree=[2, 3, 4, 5, 6, 7, 8], seeds=1),
    controls={
        "the best polynomial: Taylor's": dict(polynomial="Taylor"),
        "analytic on the interval: a corner": dict(target="corner"),
    },
    figures=(draw_geometric,),
)
def analytic_geometric_rate(
    pole: float, degree: int, seed: int, polynomial: str = "best", target: str = "pole"
) -> dict[str, float]:
    r"""A pole at a costs polynomials the same factor with every degree.

    For $a > 1$ the best polynomials for $1\/(x - a)$ on $[-1, 1]$ err by exactly
    $ E_n = frac((a - sqrt(a^2 - 1))^n, a^2 - 1), $
    as Chebyshev found: geometrically, by the size of the largest ellipse with foci $plus.minus 1$ in which the function is analytic
    @trefethen2019approximation. The value is the upper end of the interval from Remez' algorithm over the formula. Controls: Taylor's polynomial about
    zero, whose factor is $1\/a$; and a function with a corner, scaled to the same error at degree 0.
    """
    f = (lambda x: 1 / (x - pole)) if target == "pole" else (lambda x: 2 / (pole**2 - 1) * x.abs())
    if polynomial == "Taylor":
        x = torch.linspace(-1, 1, 4001, dtype=torch.float64, device="cpu")
        taylor = -sum((x**k / pole ** (k + 1) for k in range(degree + 1)), torch.zeros_like(x))
        lower = upper = float((f(x) - taylor).abs().max())
    else:
        best = la.remez(f, degree)
        lower, upper = best.lower, best.upper
    scale = (pole**2 - 1) / (pole - sqrt(pole**2 - 1)) ** degree
    return {"value": upper * scale, "certified": lower * scale, "error": upper}


if __name__ == "__main__":
    script(__file__)
