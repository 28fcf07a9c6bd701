r"""Identities and maxima from rectifiers.

A rectifier throws half of its input away; two of them keep all of it, $x = "relu"(x) - "relu"(-x)$, so that anything can be passed
on to deeper layers unchanged. From the same two comes the larger of two numbers, and from a tree of those every continuous
piecewise linear function @arora2018understanding. Depth is needed for it: one hidden layer bends along whole lines,
and $max(0, x_1, x_2)$ bends along three half-lines @mukherjee2017lower. How much depth the largest of many numbers needs was
long thought to be what the tree takes; it is less @bakaev2025better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.analysis import constructions
from lemmata.analysis.approximation.construction import hidden, network_of
from lemmata.studies.approximation.pictures import as_seen
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
Function = Callable[[Tensor], Tensor]  # (n, 2) → (n,)

WIDE = 400  # rectifiers of the one hidden layer that is fitted
STEP = 2.0**-10  # across a line, to see the bend there


@claim(
    source="arora2018understanding",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(layers=[1, 3, 10, 50], d=[4], seeds=3),
    full=Grid(layers=[1, 3, 10, 50, 200], d=[1, 4, 32], seeds=10),
    controls={"two rectifiers a number: one": dict(rectifiers=1)},
)
def two_relu_identity(layers: int, d: int, seed: int, rectifiers: int = 2) -> float:
    r"""Two rectifiers a number pass it through any depth without a change in the last bit.

    $x = "relu"(x) - "relu"(-x)$, one of the two being zero: subtraction makes no rounding error. A ReLU network of $2 d$ neurons a
    layer is therefore the identity of $RR^d$ at any depth @arora2018understanding, for every number that a computer holds. The
    value is the largest error on a thousand Gaussian vectors times powers of ten from $10^(-300)$ to $10^300$, divided by the
    vector's size. The control has the positive part alone.
    """
    x = gaussian(torch.Generator().manual_seed(seed), 1000, d) * 10.0 ** torch.linspace(-300, 300, 1000)[:, None]
    net = constructions.identity(d, layers).network
    if rectifiers == 1:
        eye = torch.eye(d)
        net = network_of(hidden(*[(eye, 0.0)] * (layers + 1)))
    with torch.no_grad():
        return float(((net(x) - x).abs().amax(1) / x.abs().amax(1)).max())


def one_layer_maximum(d: int, x: Tensor, seed: int) -> Function:
    """The best fit of max x_i by one hidden layer at some points: all ± (x_i − x_j), ± x_i, and rectifiers drawn at random."""
    eye = torch.eye(d)
    pairs = (eye[:, None] - eye).reshape(-1, d)
    draws = torch.Generator().manual_seed(seed)
    rows = torch.cat([pairs[pairs.abs().sum(1) > 0], eye, -eye, gaussian(draws, WIDE, d)])
    shifts = torch.cat([torch.zeros(len(rows) - WIDE), 8 * gaussian(draws, WIDE)])

    def units(points: Tensor) -> Tensor:
        return torch.cat([torch.relu(points @ rows.T + shifts), torch.ones(len(points), 1)], 1)

    weights = torch.linalg.lstsq(units(x).cpu(), x.amax(1, keepdim=True).cpu(), driver="gelsd").solution.to(x)
    return lambda points: (units(points) @ weights)[:, 0]


def draw_tree(ax: Any, rows: Rows) -> Columns:
    """The tree is right to the last bit; one hidden layer of more rectifiers is off by one and more.

    Largest error on integers up to twenty against how many numbers there are: a line at zero for the tree, and a rising
    line, from one to about ten, for one hidden layer with the weights of least squares.
    """
    columns: dict[str, Any] = {"numbers": sorted({row.point["d"] for row in rows})}
    for arm, label in (("", "tree"), (ONE_LAYER, "one hidden layer")):
        columns[label] = [
            max(row.values["value"] for row in rows if row.arm == arm and row.point["d"] == d)
            for d in columns["numbers"]
        ]
        ax.plot(columns["numbers"], columns[label], marker="o", label=label)
    ax.set(xlabel="numbers d", ylabel="largest error", xscale="log", xticks=columns["numbers"])
    ax.set_xticks(columns["numbers"], [str(d) for d in columns["numbers"]])
    ax.minorticks_off()
    ax.legend()
    return columns


ONE_LAYER = "⌈log₂ d⌉ hidden layers: one"


@claim(
    source=("arora2018understanding", "bakaev2025better"),
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(d=[3, 5, 8, 13], seeds=3),
    full=Grid(d=[3, 4, 5, 8, 13, 16], seeds=10),
    controls={ONE_LAYER: dict(layers="one")},
    figures=(draw_tree,),
)
def two_relu_identity_max(d: int, seed: int, layers: str = "tree") -> dict[str, Any]:
    r"""A tree of rectifiers finds the largest of d numbers in the logarithm of d hidden layers.

    $ max(a, b) = "relu"(b - a) + "relu"(a) - "relu"(-a), $
    three rectifiers for two numbers; level by level the largest of $d$ takes $ceil(log_2 d)$ hidden layers
    @arora2018understanding. On integers no operation rounds, and the tree is exact.

    That is what suffices. The largest of five numbers can be had from two hidden layers, and of $d$ from
    $ceil(log_3 (d - 2)) + 1$ for $d >= 4$ @bakaev2025better; what is certain is that one will not do for three. The value is the largest error on
    4000 vectors of integers between $-20$ and $20$. The control is one hidden layer of 400 random rectifiers and all
    those of $plus.minus x_i$ and $x_i - x_j$, fitted by least squares on as many vectors; it can come near, as every
    continuous function allows, but not equal.
    """
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(-20, 21, (8000, d), generator=draws, device="cpu").to(torch.get_default_device()).double()
    tree = constructions.max_tree(d).network
    depth = sum(isinstance(module, torch.nn.ReLU) for module in tree.modules())
    assert depth == ceil(log2(d))
    with torch.no_grad():
        if layers == "one":
            found = one_layer_maximum(d, x[:4000], seed)(x[4000:])
        else:
            found = tree(x[4000:])[:, 0]
    return {"value": (found - x[4000:].amax(1)).abs().max(), "layers": depth}


def bends(function: Function, points: Tensor, normal: Tensor) -> Tensor:
    """How sharply a piecewise linear function bends across a line at some of its points: the jump of its slope, (n,)."""
    h = STEP * normal / normal.norm()
    return (function(points + h) + function(points - h) - 2 * function(points)) / STEP


def along_line(weight: Tensor, bias: Tensor, count: int) -> Tensor:
    """Points of the line w · x + b = 0, equally spaced over ten to both sides of its point nearest to 0."""
    direction = torch.stack([-weight[1], weight[0]]) / weight.norm()
    places = torch.linspace(-10, 10, count)
    return -bias * weight / weight.square().sum() + places[:, None] * direction


def largest_of_three(x: Tensor) -> Tensor:
    """max(0, x₁, x₂) by the tree of rectifiers, which has two hidden layers."""
    return constructions.max_tree(3).network(torch.cat([torch.zeros_like(x[:, :1]), x], 1))[:, 0]


def draw_bends(ax: Any, rows: Rows) -> Columns:
    """One hidden layer bends along whole lines, the largest of three numbers along three half-lines.

    Two pictures of the plane side by side. On the left five lines cross the whole square, each of one colour, the
    sharpness of the bend. On the right three half-lines meet in the middle, at angles like those of a star.
    """
    columns: dict[str, list[Any]] = {"network": [], "x1": [], "x2": [], "bend": []}
    for arm, label, shift in (("", "one hidden layer", 0.0), (TWO_LAYERS, "max(0, x₁, x₂)", 26.0)):
        values = next(row.values for row in rows if row.arm == arm and row.point["n"] == 5)
        x, bend = np.asarray(values["points"]), np.abs(np.asarray(values["bends"]))
        kept = np.flatnonzero((np.abs(x).max(1) < 10) & (bend > 1e-6))[::4]  # closer than a mark is wide
        shown = ax.scatter(x[kept, 0] + shift, x[kept, 1], c=bend[kept], s=3, vmin=0, vmax=3)
        ax.text(shift, 11, label, ha="center")
        columns["network"] += [label] * len(kept)
        columns["x1"] += as_seen(x[kept, 0])
        columns["x2"] += as_seen(x[kept, 1])
        columns["bend"] += as_seen(bend[kept])
    ax.figure.colorbar(shown, ax=ax, label="jump of the slope", shrink=0.7)
    ax.set(aspect="equal", ylim=(-11, 13.5))
    ax.axis("off")
    return columns


TWO_LAYERS = "one hidden layer: two, as max(0, x₁, x₂) takes"


@claim(
    source=("arora2018understanding", "mukherjee2017lower"),
    predicts=Equals(0, within="rounding(n, 10**5)", of="each"),
    quick=Grid(n=[3, 5, 20], seeds=3),
    full=Grid(n=[3, 5, 20, 100], seeds=10),
    controls={TWO_LAYERS: dict(layers=2)},
    figures=(draw_bends,),
)
def two_relu_identity_depth(n: int, seed: int, layers: int = 1) -> dict[str, Any]:
    r"""One hidden layer cannot be the larger of two numbers and zero: its bends go on for ever.

    A function $f(x) = c + sum_i a_i "relu"(w_i dot x + b_i)$ on the plane is piecewise linear, and the jump of its slope across the line
    $w_i dot x + b_i = 0$ is $a_i norm(w_i)$ wherever on the line one looks, so that it bends along whole lines or not at all.
    $max(0, x_1, x_2)$ bends across $x_1 = 0$ where $x_2 < 0$, and not where $x_2 > 0$: no network with one hidden layer, of
    whatever width, is equal to it @mukherjee2017lower, though some come as near as one likes on bounded sets. Two hidden
    layers are @arora2018understanding.

    The value is how much the jump varies along a line, at 401 points each with those left out at which lines cross, the
    largest over the lines of a network with $n$ random rectifiers. It is the certificate by which one recognises what one
    layer can do. The control looks at $max(0, x_1, x_2)$, made with two, along the lines $x_1 = 0$, $x_2 = 0$ and $x_1 = x_2$.
    """
    draws = torch.Generator().manual_seed(seed)
    rows, shifts, heights = gaussian(draws, n, 2), gaussian(draws, n) * 3, gaussian(draws, n)
    function: Function = lambda x: torch.relu(x @ rows.T + shifts) @ heights  # noqa: E731
    if layers == 2:
        rows, shifts, function = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]), torch.zeros(3), largest_of_three
    spread = 0.0
    points: list[Tensor] = []
    found: list[Tensor] = []
    with torch.no_grad():
        for i in range(len(rows)):
            line = along_line(rows[i], shifts[i], 401)
            others = torch.arange(len(rows), device=rows.device) != i
            apart = (line @ rows[others].T + shifts[others]).abs() > 2 * STEP * rows[others].norm(dim=1)
            line = line[apart.all(1)]
            jumps = bends(function, line, rows[i])
            spread = max(spread, float(jumps.max() - jumps.min()))
            points.append(line)
            found.append(jumps)
    return {"value": spread, "points": torch.cat(points), "bends": torch.cat(found)}


if __name__ == "__main__":
    script(__file__)
