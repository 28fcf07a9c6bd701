r"""The floor that no training crosses.

A network that errs may be unable to do better, or only badly trained. On a line the two can be told apart: a layer of $n$ rectifiers makes at
most $n + 1$ affine pieces, and the least error of so many pieces is computed, with a certificate, without training anything
@devore1998nonlinear. Between the floor and what training reaches lies all that optimisation is to blame for. With hidden units drawn
at random and a last layer by least squares nothing is left to chance but the places of the kinks, and the rate survives
@rahimi2008uniform.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import AtLeast, Grid, Scales, claim, script

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
NODES, WEIGHTS = (torch.tensor(part, device="cpu") for part in np.polynomial.legendre.leggauss(8))


def curve(x: Tensor) -> Tensor:
    """The target: smooth, convex, twenty times as bent at its right end as at its left."""
    return (3 * x).exp() / 10


def step(x: Tensor) -> Tensor:
    """A target with a jump."""
    return (x > 1 / 3).to(x)


def spline_error(knots: Tensor, f: Any) -> Tensor:
    """The squared L² distance on [0, 1] of f from the continuous functions with kinks at knots (nets, n): Gauss' rule on each gap."""
    ends = torch.zeros_like(knots[:, :1])
    t = torch.cat([ends, knots.sort(-1).values, ends + 1], -1)
    h, share = t.diff(dim=-1), ((NODES + 1) / 2).to(t)
    w = h[..., None] * (WEIGHTS / 2).to(t)
    y = f(t[:, :-1, None] + h[..., None] * share)
    moments = (w * y) @ torch.stack([1 - share, share], -1)
    heights = torch.stack([_heights(*pair) for pair in zip(h, moments, strict=True)])
    line = heights[:, :-1, None] * (1 - share) + heights[:, 1:, None] * share
    return (w * (y - line).square()).sum((-2, -1))


def _heights(h: Tensor, moments: Tensor) -> Tensor:
    """Least squares over hat functions: their inner products make a matrix of three diagonals, with h/3 and h/6 of each gap."""
    padded = np.concatenate([[0.0], h.numpy(), [0.0]])
    bands = np.stack([padded[:-1] / 6, (padded[:-1] + padded[1:]) / 3])
    left, right = moments.numpy().T
    return torch.from_numpy(solveh_banded(bands, np.append(left, 0) + np.append(0, right))).to(h)


def averaged_error(knots: Tensor) -> Tensor:
    """The same of the average of n units, f(0) + f'(0) x + n⁻¹ Σ f''(t_i) relu(x − t_i), whose mean is f."""
    x = (torch.arange(128, device="cpu").to(knots) + 0.5) / 128
    units = 9 * curve(knots)[..., None, :] * (x[:, None] - knots[..., None, :]).relu()
    return (curve(x) - 0.1 - 0.3 * x - units.mean(-1)).square().mean(-1)


def draw_kinks(ax: Any, rows: Rows) -> Columns:
    """Squared errors of random kinks: fitted they fall with slope minus four, averaged with slope minus one.

    Mean squared error against the number of units, both axes logarithmic, dots with lines of the predicted slopes. The fitted units
    fall steeply; the averaged ones, and the fitted ones on a step, slowly.
    """
    columns: dict[str, Any] = {}
    arms = (
        ("", "fitted", -4),
        ("a fitted last layer: an average of units", "averaged", -1),
        ("a smooth target: a step", "fitted, a step", -1),
    )
    for place, (arm, name, power) in enumerate(arms):
        chosen = [row for row in rows if row.arm == arm]
        n = np.array(sorted({row.point["units"] for row in chosen}))
        mean = np.array([np.mean([row.values["value"] for row in chosen if row.point["units"] == m]) for m in n])
        columns["units"], columns[name] = n, mean
        ax.loglog(n, mean, "o", color=f"C{place}", label=name)
        ax.loglog(
            n,
            mean[-1] * (n / n[-1]) ** float(power),
            "--",
            color=f"C{place}",
            linewidth=1,
            label=f"slope {power}".replace("-", "−"),
        )
    ax.set(xlabel="hidden units n", ylabel="mean squared error")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("rahimi2008uniform", "devore1998nonlinear"),
    predicts=Scales("units", power=-4, within=0.3),
    quick=Grid(units=[128, 256, 512, 1024], nets=[30], seeds=30),
    full=Grid(units=[128, 256, 512, 1024, 2048], nets=[100], seeds=60),
    controls={
        "a smooth target: a step": dict(target="step"),
        "a fitted last layer: an average of units": dict(last="averaged"),
    },
    figures=(draw_kinks,),
)
def random_kinks_rate(units: int, nets: int, seed: int, target: str = "curve", last: str = "fitted") -> float:
    r"""Rectifiers at random places, with a fitted last layer, keep the rate of chosen ones.

    Let $f_n (x) = c + b x + sum_(i=1)^n a_i "relu"(x - t_i)$ with $t_i$ uniform on $[0, 1]$, drawn once and for all, and $a, b, c$ of least
    squares. Between two kinks at distance $h$ a smooth $f$ is missed by order $h^5 (f'')^2$ in square, and the $n + 1$ gaps of random points
    have $EE sum h^5 = 120 \/ ((n + 2)(n + 3)(n + 4)(n + 5))$. Hence $EE norm(f - f_n)^2 prop n^(-4)$ in $L^2 (0, 1)$ for large $n$, the rate of the
    best knots, if with a constant two orders larger @rahimi2008uniform @devore1998nonlinear. Averaging random units, as in Maurey's
    argument, would give $n^(-1)$. The value is the mean over networks of the squared error, exact but for quadrature. Controls: a step, of
    which the gap that holds the jump keeps $1\/n$; and the average.
    """
    draws = torch.Generator().manual_seed(seed)
    knots = torch.rand(nets, units, generator=draws, device="cpu")
    errors = averaged_error(knots) if last == "averaged" else spline_error(knots, step if target == "step" else curve)
    return float(errors.mean())


def draw_floor(ax: Any, rows: Rows) -> Columns:
    """The floor that no training crosses: every trained network against the least error that its pieces allow.

    Largest error against the number of hidden units, both axes logarithmic. Dots, one for each trained network of rectifiers, all lie above a line
    that falls with slope minus two, and on it a cross for the best weights there are; dots of networks with another activation lie below it.
    """
    columns: dict[str, list[Any]] = {"activation": [], "units": [], "floor": [], "error": []}
    control = "rectifiers: tanh"
    for place, (arm, name) in enumerate((("", "rectifiers"), (control, "tanh"))):
        for row in rows:
            if row.arm == arm:
                count = len(row.values["errors"])
                columns["activation"] += [name] * count
                columns["units"] += [row.point["units"]] * count
                columns["floor"] += [float(row.values["floor"])] * count
                columns["error"] += list(row.values["errors"])
        at = [i for i, one in enumerate(columns["activation"]) if one == name]
        across = [columns["units"][i] * (1.06 if place else 1 / 1.06) for i in at]
        ax.loglog(across, [columns["error"][i] for i in at], ".", color=f"C{place}", markersize=4, label=name)
    floors = sorted(set(zip(columns["units"], columns["floor"], strict=True)))
    ax.loglog(*zip(*floors, strict=True), "k-", label="floor of rectifiers")
    reached = {row.point["units"]: row.values["floor"] * row.values["best weights"] for row in rows if row.arm == ""}
    ax.loglog(list(reached), list(reached.values()), "kx", label="best weights")
    ax.set(
        xlabel="hidden units",
        ylabel="largest error",
        xticks=[n for n, _ in floors],
        xticklabels=[str(n) for n, _ in floors],
    )
    ax.minorticks_off()
    ax.legend()
    return columns


@claim(
    source="devore1998nonlinear",
    predicts=AtLeast(1, of="min"),
    quick=Grid(units=[3, 6, 12], fits=[20], seeds=2),
    full=Grid(units=[3, 6, 12, 24], fits=[50], seeds=10),
    controls={"rectifiers: tanh": dict(activation="tanh")},
    figures=(draw_floor,),
)
def free_knots_floor(units: int, fits: int, seed: int, activation: str = "relu") -> dict[str, Any]:
    r"""No training takes a layer of rectifiers below the error of its best pieces.

    A network of one hidden layer of $n$ rectifiers is affine on at most $n + 1$ pieces of a line, so that its largest error is at least
    $E_(n + 1) approx (integral sqrt(abs(f'')))^2 \/ (16 (n + 1)^2)$, whatever its weights @devore1998nonlinear: an error that training leaves
    above that is the training's, the rest is the network's. For $e^(3 x)\/10$ on $[0, 1]$ the floor is computed with its certificate at the very
    points on which networks are measured, and some weights come within a percent of it. The value is the least error of 20 networks, trained by Adam on $[-1, 1]$, the interval stretched, and ended with a last layer of least
    squares, over the floor. The control takes hyperbolic tangents, whose floor this is not.
    """
    x = torch.linspace(0, 1, 257, dtype=torch.float64, device="cpu")
    y = curve(x)
    best = la.best_pieces(x, y, units + 1)
    floor = best.lower
    here = torch.get_default_device()
    some, dense = slice(None, None, 4), ((2 * x - 1)[:, None].to(here), y[:, None].to(here))
    found = la.fit_grid(
        lambda width, depth: MLP([1, width, 1], activation=activation),
        (dense[0][some], dense[1][some]),
        [units],
        seeds=fits,
        steps=800,
        lr=0.03,
        grid=dense,
        last_layer="least squares",
        floor=lambda width, depth: floor,
        seed=seed,
    )
    return {
        "value": float(found.best()) / floor,
        "floor": floor,
        "best weights": best.upper / floor,
        "errors": found.sup.flatten(),
    }


if __name__ == "__main__":
    script(__file__)
