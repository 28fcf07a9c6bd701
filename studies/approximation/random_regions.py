r"""How many linear regions a network has at random weights.

A deep ReLU network *can* have exponentially many linear regions; at random weights it has, on average, no more than a constant
times the number of its neurons along a line @hanin2019complexity, and its square, halved, in the plane
@hanin2019surprisingly. Here the breakpoints on a line are found exactly and the cells in the plane are enumerated as
polygons @grigsby2022transversality, which Euler's formula checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import atan, pi
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lemmata.analysis import regions_in_plane, regions_on_line
from lemmata.architectures import MLP, Law
from lemmata.studies.approximation.folds import MARGIN, folded_arrangement, zigzag
from lemmata.studies.approximation.pictures import Picture, draw_cells
from lemmata.studies.claim import AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
PLANE = torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
BIAS, CHAOS, MOST = 0.1, 8.0, 2**12


def random_network(inputs: int, neurons: int, depth: int, seed: int, bias: float = BIAS, weight: float = 2.0) -> MLP:
    """Gaussian weights of variance weight/n and biases of a standard deviation; hard tanh where the variance is not He's."""
    law = Law("Gaussian", lambda n, m: weight / n, lambda n, m: bias**2)
    widths = [inputs, *[neurons // depth] * depth, 1]
    activation = "relu" if weight == 2.0 else F.hardtanh
    return MLP(widths, activation=activation, init=law, generator=torch.Generator().manual_seed(seed))


# Along a line


def breakpoints(neurons: int, depth: int, seed: int, bias: float, weights: str) -> float:
    """On [−1, 1], over what one hidden layer of as many neurons has on average; two kinks count as two neurons."""
    net: nn.Module
    if weights == "sawtooth":
        teeth = neurons // depth if depth <= 2 else min(neurons // depth, int(MOST ** (1 / depth)))
        net = zigzag(teeth, depth, MARGIN)
    else:
        net = random_network(1, neurons, depth, seed, bias, CHAOS if weights == "chaotic" else 2.0)
    found = regions_on_line(net, -torch.ones(1), torch.ones(1)).regions - 1
    kinks = 2 if weights == "chaotic" else 1
    return found / (kinks * neurons * 2 / pi * atan(2**0.5 / bias))


def draw_depth(ax: Any, rows: Rows) -> Columns:
    """Breakpoints of networks with 128 neurons against depth: random ReLU networks, and chaotic ones of hard tanh.

    Logarithmic vertical axis, in units of what one hidden layer has. Random ReLU networks stay on the dashed line at one at
    every depth; hard tanh with large weights rises with the depth and passes three at eight layers.
    """
    columns: dict[str, Any] = {"depth": sorted({row.point["depth"] for row in rows})}
    for arm, label in (("", "ReLU, He weights"), (CHAOTIC, "hard tanh, large weights")):
        of = [[r.values["value"] for r in rows if (r.arm, r.point["depth"]) == (arm, d)] for d in columns["depth"]]
        columns[label] = [float(np.mean(values)) for values in of]
        ax.semilogy(columns["depth"], columns[label], marker="o", label=label)
    ax.axhline(1, color="0.3", linestyle="--", linewidth=1)
    ax.set(
        xlabel="hidden layers that share 128 neurons", ylabel="breakpoints, one layer's = 1", xticks=columns["depth"]
    )
    ax.legend()
    return columns


SAWTOOTH = {"random weights: those of a sawtooth": dict(weights="sawtooth")}
CHAOTIC = "gradients that keep their size: chaotic hard tanh"
TYPICAL = {**SAWTOOTH, CHAOTIC: dict(weights="chaotic")}


@claim(
    source="hanin2019complexity",
    predicts=Equals(1, within=0.25),
    quick=Grid(depth=[1, 2, 4, 8], neurons=[128], seeds=30),
    full=Grid(depth=[1, 2, 4, 8], neurons=[128, 256, 512], seeds=100),
    controls=TYPICAL,
    figures=(draw_depth,),
)
def hanin_rolnick_linear_count(depth: int, neurons: int, seed: int, weights: str = "random") -> dict[str, float]:
    r"""On a wide interval a random ReLU network bends once a neuron, at any depth.

    Let $N$ neurons be split evenly over $L$ hidden layers, with Gaussian weights of variance $2\/n$ and biases of standard deviation
    $sigma$. On an interval $I$ the network has at most $C abs(I) N$ breakpoints in expectation, $C$ not depending on how
    the neurons are split @hanin2019complexity. One hidden layer has $2 N\/pi arctan(sqrt(2)\/sigma)$ of them on $[-1, 1]$, for the
    kinks $-b\/w$ have a Cauchy law. The value is the number of breakpoints over that; with $sigma = 0.1$, where the interval
    is wide against the scale of the biases, it stays near one.

    Controls: folding weights (a sawtooth, of three and more layers with no more than $2^12$ pieces); and hard tanh with weights of variance $8\/n$, whose gradients explode, counted
    as two kinks a neuron. Large weights alone are no control for ReLU, which they only rescale: it is chaos that matters.
    """
    return {"value": breakpoints(neurons, depth, seed, BIAS, weights)}


@claim(
    source="hanin2019complexity",
    predicts=AtMost(1.25, of="mean"),
    quick=Grid(bias=[0.1, 1.0], depth=[2, 8], neurons=[128], seeds=12),
    full=Grid(bias=[0.1, 0.3, 1.0], depth=[2, 4, 8, 16], neurons=[128, 512], seeds=100),
    controls=SAWTOOTH,
)
def hanin_rolnick_linear_count_bound(
    bias: float, depth: int, neurons: int, seed: int, weights: str = "random"
) -> dict[str, float]:
    r"""Depth adds no breakpoints to a random ReLU network, whatever its biases.

    The theorem @hanin2019complexity bounds the number of breakpoints from above. Where biases are large against the interval, depth
    *lowers* it: the sum of all biases so far moves the kinks away from the origin. The value is the number of breakpoints on $[-1, 1]$
    over what one hidden layer of as many neurons has; a quarter is allowed on top of one.
    """
    return {"value": breakpoints(neurons, depth, seed, bias, weights)}


@claim(
    source="hanin2019complexity",
    predicts=Scales("neurons", power=1, within=0.1, of="mean"),
    quick=Grid(neurons=[32, 64, 128, 256], depth=[1, 2], seeds=16),
    full=Grid(neurons=[64, 128, 256, 512, 1024], depth=[1, 2], seeds=60),
    controls=SAWTOOTH,
)
def hanin_rolnick_linear_count_slope(neurons: int, depth: int, seed: int, weights: str = "random") -> float:
    r"""Breakpoints of a random ReLU network grow in proportion to its neurons.

    At a fixed number of layers the number of breakpoints on $[-1, 1]$ is proportional to the number $N$ of neurons
    @hanin2019complexity, not to a power of the width as for folding weights, the control. Weights and biases as before,
    $sigma = 0.1$.
    """
    return neurons * breakpoints(neurons, depth, seed, BIAS, weights)


# In the plane


@claim(
    source="hanin2019surprisingly",
    predicts=AtMost(1.25, of="mean"),
    quick=Grid(neurons=[32, 64], depth=[1, 2, 4], seeds=8),
    full=Grid(neurons=[32, 64, 128, 256], depth=[1, 2, 4, 8], seeds=40),
    controls={"random weights: folds": dict(weights="folds")},
)
def hanin_rolnick_plane_count(neurons: int, depth: int, seed: int, weights: str = "random") -> dict[str, float]:
    r"""In the plane a random network of any depth has no more cells than one hidden layer can.

    With $d$ inputs and $N$ neurons at random weights, the expected number of linear regions in a cube is at most
    $(T N)^d\/d!$ with $T$ not depending on depth @hanin2019surprisingly. For $d = 2$ and one hidden layer it is at most
    $1 + N + binom(N, 2)$. The value is the number of cells in $[-1, 1]^2$ over that; a quarter is allowed on top of one.
    The cells are enumerated as polygons. The control folds the square.
    """
    net: nn.Module
    if weights == "folds":
        net = folded_arrangement(2, min(neurons // depth, {1: neurons, 2: 16}.get(depth, 6)), depth, 0.5)
    else:
        net = random_network(2, neurons, depth, seed)
    found = regions_in_plane(net, *PLANE)
    return {"value": found.regions / (1 + neurons + neurons * (neurons - 1) / 2), "undecided": found.undecided}


def ring(x: Tensor) -> Tensor:
    """A wave that runs out from the origin."""
    return torch.cos(3 * pi * x.norm(dim=-1, keepdim=True))


def trained(net: MLP, seed: int) -> MLP:
    """Fitted to the ring at 512 points of the square."""
    x = 2 * torch.rand(512, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu") - 1
    x = x.to(torch.get_default_device(), torch.get_default_dtype())[None]
    y = ring(x)
    train([net], nn.MSELoss(), lambda step: (x, y), 600, partial(torch.optim.Adam, lr=0.01))
    return net


def sampled_patterns(net: MLP, side: int) -> int:
    """How many activation patterns the points of a grid have."""
    line = torch.linspace(-1, 1, side)
    with torch.no_grad():
        signs = torch.cat([z > 0 for z in net.preactivations(torch.cartesian_prod(line, line))[:-1]], dim=1)
    return len(signs.unique(dim=0))


def _cells(ax: Any, rows: Rows, weights: str) -> Columns:
    shown = [r for r in rows if r.arm == "" and r.k == 0 and r.point["weights"] == weights and "slopes" in r.values]
    return draw_cells(ax, max(shown, key=lambda row: row.point["depth"]).values)


def draw_random(ax: Any, rows: Rows) -> Columns:
    """The cells of a random network with three hidden layers; colours tell which way the function rises.

    Straight lines of the first layer, lines of the second that bend where they cross them, and lines of the third that bend
    at both, cut the square into some hundred polygons; the colour changes a little at every border.
    """
    return _cells(ax, rows, "random")


def draw_trained(ax: Any, rows: Rows) -> Columns:
    """The cells of a network that has learned a wave around the origin: hue is the direction of its slope.

    Polygons form rings around the centre, in which colours go once round the circle of hues: the slope points to or away from
    the centre. Borders crowd where the wave turns.
    """
    return _cells(ax, rows, "trained")


@claim(
    source="grigsby2022transversality",
    predicts=Equals(1, within=0, of="each"),
    quick=Grid(weights=["random", "trained"], depth=[1, 2, 3], width=[12], seeds=2),
    full=Grid(weights=["random", "trained"], depth=[1, 2, 3, 4], width=[12, 24], seeds=5),
    controls={"every cell: those that a grid of points finds": dict(side=40)},
    figures=(draw_random, draw_trained),
)
def euler_characteristic_cells(weights: str, depth: int, width: int, seed: int, side: int = 0) -> dict[str, Any]:
    r"""Vertices less edges plus cells of a deep network make one.

    The kinks of a ReLU network subdivide a convex window of the plane into convex polygons, a polyhedral complex
    @grigsby2022transversality, for which $V - E + F = 1$. A cell that is missed, or a border cut off, breaks the equality: it
    certifies that an enumeration is complete. $V$ and $E$ are counted from the polygons' corners, $F$ as the number of activation
    patterns that a forward pass sees at their centres. In the control $F$ is what 40 by 40 points of a grid see, as is often done.
    """
    net = random_network(2, width * depth, depth, seed, bias=0.3)
    if weights == "trained":
        net = trained(net, seed)
    found = regions_in_plane(net, *PLANE)
    F = sampled_patterns(net, side) if side else found.activation_patterns
    picture = Picture.of(found).arrays if not side and found.regions < 1500 else {}
    return {"value": found.euler - found.regions + F, "cells": found.regions, "undecided": found.undecided, **picture}


if __name__ == "__main__":
    script(__file__)
