r"""How many linear regions a network has, and how many it could have.

A rectifier is an inequality, so a layer cuts its input space into cells on which the network is affine. For one hidden
layer the number of cells is a theorem about hyperplane arrangements @zaslavsky1975facing @pascanu2014number: it depends on
the weights only through their coincidences. For deep networks the *largest* number grows exponentially with depth
@montufar2014number, while at random weights it grows like the number of neurons @hanin2019complexity; which of the two one
quotes decides whether "depth gives exponentially many regions". Every count is exact: in integer arithmetic, or in floating
point with a bound of the rounding errors for every sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lemmata.analysis import regions_in_plane, regions_on_line
from lemmata.analysis.approximation import UNBOUNDED, affine_pieces, arrangement
from lemmata.analysis.approximation.construction import hidden, network_of
from lemmata.analysis.approximation.integers import to_integers
from lemmata.architectures import MLP, Law
from lemmata.studies.approximation.folds import MARGIN, cuts, folded_arrangement, zigzag
from lemmata.studies.approximation.pictures import Picture, draw_cells
from lemmata.studies.claim import AtLeast, Equals, Grid, claim, script

UNIT = Law("unit weights and biases", lambda n, m: 1.0, lambda n, m: 1.0)
PLANE = torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
BIASED_HE = Law("He weights, unit biases", lambda n, m: 2 / n, lambda n, m: 1.0)


def vertices_of(lines: np.ndarray) -> np.ndarray:
    """Where each pair of lines crosses, for drawing."""
    crossing = np.array([np.cross(p, q) for i, p in enumerate(lines) for q in lines[:i]])
    return crossing[:, :2] / crossing[:, 2:]


def draw_lines(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The cells of one hidden layer with six neurons in the plane; each line is where one neuron switches.

    Six lines in general position cut the plane into twenty-two cells, shaded by the parity of the number of active
    neurons: cells that share an edge differ, like the squares of a chessboard. The fifteen crossing points are marked.
    """
    shown = [row for row in rows if row.arm == ""]
    row = min(shown, key=lambda row: (abs(row.point["n"] - 6), np.ptp(vertices_of(row.values["lines"]))))
    lines = np.asarray(row.values["lines"])
    points = vertices_of(lines)
    centre, reach = points.mean(axis=0), 0.6 * np.ptp(points, axis=0).max()
    x = np.linspace(centre[0] - reach, centre[0] + reach, 500)
    y = np.linspace(centre[1] - reach, centre[1] + reach, 500)
    active = sum((a * x[None, :] + b * y[:, None] + c > 0).astype(int) for a, b, c in lines)
    ax.imshow(active % 2, extent=(x[0], x[-1], y[0], y[-1]), origin="lower", cmap="Blues", vmin=-0.3, vmax=2)
    for a, b, c in lines:
        ends = (x[[0, -1]], -(a * x[[0, -1]] + c) / b) if abs(b) > abs(a) else (-(b * y[[0, -1]] + c) / a, y[[0, -1]])
        ax.plot(*ends, color="C0")
    ax.plot(*points.T, "k.")
    ax.set(xlim=x[[0, -1]], ylim=y[[0, -1]], xlabel="$x_1$", ylabel="$x_2$", title=f"{int(row.values['value'])} cells")
    return {"w_1": list(lines[:, 0]), "w_2": list(lines[:, 1]), "b": list(lines[:, 2])}


@claim(
    source=("zaslavsky1975facing", "pascanu2014number"),
    predicts=Equals("comb(n, 2) + n + 1", within=0, of="each"),
    quick=Grid(n=[3, 6, 12], seeds=5),
    full=Grid(n=[3, 6, 12, 24, 48], seeds=10),
    controls={
        "general position: zero biases": dict(position="central"),
        "general position: weights parallel in pairs": dict(position="parallel"),
    },
    figures=(draw_lines,),
)
def zaslavsky_shallow_regions(n: int, seed: int, position: str = "general") -> dict[str, Any]:
    r"""One hidden layer of n neurons cuts the plane into n over 0 plus n over 1 plus n over 2 cells.

    Let $n$ hyperplanes $w_i dot x + b_i = 0$ in $RR^d$ be in general position: any $d$ of them meet in one point and no
    $d + 1$ have a common point. Their complement has exactly $sum_(j=0)^d binom(n, j)$ cells @zaslavsky1975facing, which is
    the number of activation patterns of a hidden layer of $n$ rectifiers @pascanu2014number. Weights and biases with a
    density are in general position almost surely.

    Measured for $d = 2$: the float64 weights are taken as the dyadic rationals they are, and the cells are the distinct
    sign vectors in the sectors around all vertices, found in integer arithmetic. Vertices, edges and cells counted apart
    satisfy Euler's $V - E + F = 1$. Without biases all lines meet in the origin and there are $2 n$ cells; each pair of
    parallel lines costs one.
    """
    draws = torch.Generator().manual_seed(seed)
    net = MLP([2, n, 1], activation="relu", init=UNIT, generator=draws)
    weight, bias = (net.get_parameter(f"layers.0.{name}").detach() for name in ("weight", "bias"))
    if position == "parallel":
        weight = weight[[i // 2 * 2 for i in range(n)]]
    if position == "central":
        bias = torch.zeros_like(bias)
    lines = torch.cat([weight, bias[:, None]], dim=1)
    found = arrangement([(a, b, c) for a, b, c in to_integers(lines.cpu())[0].tolist()])
    euler = found.vertices - found.edges + found.cells
    return {"value": found.cells, "vertices": found.vertices, "edges": found.edges, "euler": euler, "lines": lines}


def draw_folds(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Two hidden layers of six neurons that make 198 cells: the first folds the square, the second cuts it.

    A square of three by three tiles, each the mirror image of its neighbours; in each of them six lines cross, tangents of a
    circle. The colour tells which way the function rises.
    """
    shown = [row for row in rows if row.arm == "" and row.point["inputs"] == 2 and row.k == 0]
    row = min(shown, key=lambda row: abs(row.values["value"] - 198))
    return draw_cells(ax, row.values)


@claim(
    source="montufar2014number",
    predicts=Equals("(n//inputs)**(inputs*(depth - 1)) * (1 + n + (inputs - 1)*comb(n, 2))", within=0, of="each"),
    quick=Grid(inputs=[1, 2], n=[4, 6], depth=[2, 3], seeds=2),
    full=Grid(inputs=[1, 2], n=[4, 6, 8], depth=[2, 3, 4], seeds=3),
    controls={
        "folding weights: He weights, unit biases": dict(weights="random"),
        "depth: the same neurons in one layer": dict(weights="one layer"),
    },
    figures=(draw_folds,),
)
def montufar_deep_regions(inputs: int, n: int, depth: int, seed: int, weights: str = "folds") -> dict[str, Any]:
    r"""Folding makes the number of linear regions a power of the width in the depth.

    Some ReLU network with $n_0$ inputs and $L$ hidden layers of $n >= n_0$ neurons has at least
    $ floor(n/n_0)^(n_0 (L - 1)) sum_(j=0)^(n_0) binom(n, j) $
    linear regions @montufar2014number. The witness: each hidden layer but the last maps a cube onto itself, every coordinate in
    zigzag through $floor(n\/n_0)$ pieces, so that the last layer, $n$ hyperplanes in general position, is seen once
    in each of the tiles. Counted in the cube alone, the number is met exactly.

    Measured for $n_0 = 1$ and $2$, as breakpoints on the line and as polygons in the plane, cut neuron by neuron; the position of the
    last layer's hyperplanes is drawn. Controls: random weights, and all $n L$ neurons in one layer in general position.
    """
    turn = float(torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu"))
    net: nn.Module
    if weights == "folds":
        net = folded_arrangement(inputs, n, depth, turn)
    elif weights == "one layer":
        net = network_of(hidden(cuts(inputs, n * depth, turn), ([[1.0] * (n * depth)], 0.0)))
    else:
        draws = torch.Generator().manual_seed(seed)
        net = MLP([inputs, *[n] * depth, 1], activation="relu", init=BIASED_HE, generator=draws)
    low, high = MARGIN, 1 - MARGIN
    if inputs == 1:
        return {"value": regions_on_line(net, torch.tensor([low]), torch.tensor([high])).regions, "neurons": n * depth}
    square = [[low, low], [high, low], [high, high], [low, high]]
    found = regions_in_plane(net, *PLANE, square)
    picture = Picture.of(found).arrays if found.regions < 1000 else {}
    return {"value": found.regions, "neurons": n * depth, "undecided": found.undecided, **picture}


def draw_power(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Affine pieces on a line against depth: constructed weights, random weights, and one layer with as many neurons.

    Logarithmic vertical axis. The constructed network rises on a straight line, a factor of four a layer; random weights
    and the shallow network stay close to the number of neurons.
    """
    columns: dict[str, Sequence[float]] = {}
    arms = [("", "constructed", "constructed"), ("", "random", "random (mean)")]
    arms.append(("depth: the same neurons in one layer", "constructed", "one layer"))
    for arm, weights, label in arms:
        shown = [row for row in rows if row.arm == arm and row.point["weights"] == weights]
        depths = sorted({row.point["depth"] for row in shown})
        columns["depth"] = depths
        columns[label] = [float(np.mean([r.values["value"] for r in shown if r.point["depth"] == d])) for d in depths]
        ax.semilogy(depths, columns[label], marker="o", label=label)
    ax.set(xlabel="hidden layers of four neurons", ylabel="affine pieces on the line", xticks=columns["depth"])
    ax.legend()
    return columns


@claim(
    source=("montufar2014number", "hanin2019complexity"),
    predicts=AtLeast("4**depth", of="median"),
    quick=Grid(weights=["constructed", "random"], depth=[3, 4, 5], seeds=12),
    full=Grid(weights=["constructed", "random"], depth=[2, 3, 4, 5, 6], seeds=30),
    controls={"depth: the same neurons in one layer": dict(shallow=True)},
    expects="DEPENDS",
    switch="weights",
    figures=(draw_power,),
)
def linear_region_power(depth: int, weights: str, seed: int, shallow: bool = False) -> dict[str, Any]:
    r"""Depth gives exponentially many linear regions.

    Contested. A ReLU network on $RR$ with $L$ hidden layers of $w$ neurons *can* have at least $w^L$ affine pieces
    @montufar2014number: let each layer zigzag $w$ times through $[0, 1]$. At initialisation, with weights and biases of
    bounded densities, the *expected* number of pieces on an interval is at most a constant times the number of neurons,
    $w L$, for every depth @hanin2019complexity.

    The switch is where the weights come from: constructed, or drawn (He weights, unit biases). Here $w = 4$, the pieces
    are counted on all of $RR$ by exact propagation of breakpoints. The control puts the $4 L$ neurons in one layer, where
    no weights give more than $4 L + 1$ pieces.
    """
    widths = [4 * depth] if shallow else [4] * depth
    net: nn.Module
    if weights == "random":
        draws = torch.Generator().manual_seed(seed)
        net = MLP([1, *widths, 1], activation="relu", init=BIASED_HE, generator=draws)
    else:
        net = zigzag(widths[0], layers=len(widths))
    pieces = len(affine_pieces(net, *UNBOUNDED))
    return {"value": pieces, "neurons": 4 * depth, "pieces per neuron": pieces / (4 * depth)}


if __name__ == "__main__":
    script(__file__)
