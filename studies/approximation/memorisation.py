r"""Memorising finitely many points.

On finitely many points nothing limits what a network may say: with one hidden layer and two numbers a point it takes any
values there, random ones as well @zhang2017understanding. The proof writes the weights down. It is a statement about the
points alone, not about what lies between them, and it is why a network's fit to its training set explains so little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.analysis import constructions
from lemmata.analysis.approximation.constructions_shallow import SharedDirection
from lemmata.studies.claim import AtMost, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def best_weights(network: SharedDirection, inputs: Tensor, labels: Tensor, units: int) -> SharedDirection:
    """The same direction and the first ``units`` of its thresholds, with the output weights of least squares."""
    kept = slice(units)
    hinges = torch.relu((inputs @ network.direction)[:, None] - network.thresholds[kept])
    weights = torch.linalg.lstsq(hinges.cpu(), labels[:, None].cpu(), driver="gelsd").solution[:, 0]
    return SharedDirection(network.direction.detach(), network.thresholds.detach()[kept], weights.to(inputs))


def draw_function(ax: Any, rows: Rows) -> Columns:
    """Random labels of twenty points, and the network that has them all.

    Value against the coordinate along the network's direction. Dots at zero and one in no order; a polygon passes through
    every one of them and swings far above and below in between.
    """
    values = next(row.values for row in rows if not row.arm and row.point["n"] == 20)
    ax.plot(values["along"], values["between"], color="C0", linewidth=1, label="network")
    ax.plot(values["places"], values["labels"], "o", color="C1", markersize=4, label="random labels")
    ax.set(xlabel="a · x", ylabel="value")
    ax.legend()
    return {"a · x": values["along"], "network": values["between"]}


def draw_condition(ax: Any, rows: Rows) -> Columns:
    """What is left of the labels is rounding, and grows with the condition of the triangular matrix.

    Largest error against the number of points, both logarithmic. Dots below one in a hundred million rise with the number
    of points; a dashed line, the condition number times the precision of floating point, rises above them.
    """
    shown = sorted((row for row in rows if not row.arm), key=lambda row: row.point["n"])
    columns: dict[str, Any] = {"points": [row.point["n"] for row in shown]}
    n = np.array(columns["points"])
    error = np.array([row.values["value"] for row in shown]).clip(1e-17)
    condition = np.array([row.values["condition"] for row in shown])
    ax.loglog(n, error, "o", label="largest error")
    sizes = np.unique(n)
    medians = [np.median(condition[n == size]) * 2.2e-16 for size in sizes]
    ax.loglog(sizes, medians, "--", color="0.3", label="condition × precision")
    ax.axhline(1e-8, color="C3", linewidth=1, label="tolerance")
    ax.set(xlabel="points n", ylabel="largest error")
    ax.minorticks_off()
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.legend()
    return columns | {"largest error": error, "condition": condition}


@claim(
    source="zhang2017understanding",
    predicts=AtMost("1e-8", of="max"),
    quick=Grid(n=[20, 60, 200], d=[10], seeds=10),
    full=Grid(n=[20, 60, 200], d=[3, 10, 100], seeds=40),
    controls={
        "n thresholds: one fewer": dict(missing=1),
        "distinct points: one twice, with both labels": dict(repeated=True),
    },
    figures=(draw_function, draw_condition),
)
def finite_sample_memorisation(n: int, d: int, seed: int, missing: int = 0, repeated: bool = False) -> dict[str, Any]:
    r"""Two n plus d weights give n points any labels.

    For $n$ distinct points $x_i$ of $RR^d$ and any labels $y_i$ there is a network
    $ c(x) = sum_(j=1)^n w_j "relu"(a dot x - b_j), $
    of $2 n + d$ weights, with $c(x_i) = y_i$ @zhang2017understanding. Along almost every direction $a$ the points are distinct,
    $z_1 < dots < z_n$; with $b_1 < z_1 < b_2 < z_2 < dots$ the matrix $["relu"(z_i - b_j)]$ is triangular, its diagonal
    positive, and $w$ solves it.

    Points are Gaussian, labels zero or one at random. The value is the largest error on them, in exact arithmetic zero; its
    tolerance covers the matrix's condition, about $10^8$ for 200 points. Controls: the last threshold taken away, which
    leaves $n - 1$ columns and no solution for almost all labels; and two equal points with different labels, where the
    best is an error of one half. Both get the weights of least squares.
    """
    draws = torch.Generator().manual_seed(seed)
    inputs = gaussian(draws, n, d)
    labels = torch.randint(0, 2, (n,), generator=draws, device="cpu").to(inputs)
    network = constructions.memoriser(inputs, labels, seed).network
    assert isinstance(network, SharedDirection)
    with torch.no_grad():
        hinges = torch.relu((inputs @ network.direction)[:, None] - network.thresholds)
        if repeated:
            inputs, labels = torch.cat([inputs, inputs[:1]]), torch.cat([labels, 1 - labels[:1]])
        if missing or repeated:
            network = best_weights(network, inputs, labels, n - missing)
        places, order = (inputs @ network.direction).sort()
        along = torch.linspace(float(places[0]), float(places[-1]), 400)
        hat = torch.relu(along[:, None] - network.thresholds) @ network.weights
        error = (network(inputs) - labels).abs().max()
    return {
        "value": error,
        "condition": torch.linalg.cond(hinges),
        "along": along,
        "between": hat,
        "places": places,
        "labels": labels[order],
    }


if __name__ == "__main__":
    script(__file__)
