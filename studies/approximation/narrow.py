r"""Networks that are too narrow, at any depth.

Depth does not make up for every lack of width. A ReLU network whose layers are no wider than its input cannot close a level set:
each of its components runs off to infinity, and a hill in the middle of a plain is out of reach @hanin2017approximating
@johnson2019deep. One neuron more a layer is enough for every continuous function with one output @hanin2017approximating, and for
approximation in the mean the width that is needed is known exactly @park2021minimum. The floors here follow from the argument; that
training stays above them proves nothing by itself, since training may fail for other reasons, but a single network below
would refute it. The networks of one neuron more are written down.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from lemmata.analysis import targets
from lemmata.analysis.approximation.construction import network_of
from lemmata.analysis.approximation.constructions_narrow import Kind, string
from lemmata.architectures import MLP
from lemmata.studies.approximation.narrow_figures import (
    RANDOM,
    WIDER,
    draw_cone,
    draw_floor,
    draw_line,
    draw_rate,
    draw_zigzag,
)
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

NETS = 24  # trained side by side in one trial
POWER = 8  # of the error that is trained on: near to its largest value, and smooth
ANGLES = 512


def trained(x: Tensor, y: Tensor, width: int, depth: int, steps: int, seed: int) -> list[nn.Module]:
    """Networks of one width, He's weights and random biases, trained side by side on the mean of a high power of the error."""
    draws = torch.Generator().manual_seed(seed)
    nets: list[nn.Module] = []
    for _ in range(NETS):
        net = MLP([x.shape[1], *[width] * depth, 1], "relu", init="he", generator=draws, device=x.device)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name.endswith("bias"):
                    parameter.copy_(0.3 * gaussian(draws, *parameter.shape))
        nets.append(net)
    inputs, wanted = x.expand(NETS, -1, -1), y[:, None].expand(NETS, -1, -1)
    loss = lambda output, target: (output - target).abs().pow(POWER).mean().pow(1 / POWER)  # noqa: E731
    schedule = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)
    train(nets, loss, lambda step: (inputs, wanted), steps, partial(torch.optim.Adam, lr=0.02), schedule)
    return nets


def disc(rings: int, angles: int) -> Tensor:
    """The centre of the unit disc and points on circles about it, the rim among them."""
    turn = 2 * pi * torch.arange(angles) / angles
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    return torch.cat([torch.zeros(1, 2), *[circle * (r / rings) for r in range(1, rings + 1)]])


def meeting_points(net: nn.Module, angles: int) -> Tensor:
    """Points of the unit circle at which the network has the value that it has at the centre, found by bisection, (n, 2)."""
    on_circle = lambda t: torch.stack([t.cos(), t.sin()], 1)  # noqa: E731
    left = 2 * pi * torch.arange(angles) / angles
    right = left.roll(-1).clone()
    right[-1] = 2 * pi
    height = lambda t: (net(on_circle(t)) - net(torch.zeros(1, 2)))[:, 0]  # noqa: E731
    turns = height(left) * height(right) <= 0
    left, right = left[turns], right[turns]
    start = height(left)
    for _ in range(50):
        middle = (left + right) / 2
        same = height(middle) * start > 0
        left, right = torch.where(same, middle, left), torch.where(same, right, middle)
    return on_circle(torch.cat([left, right]))


@claim(
    source=("hanin2017approximating", "johnson2019deep"),
    predicts=AtLeast("1/2", of="min"),
    quick=Grid(depth=[1, 4], seeds=2),
    full=Grid(depth=[1, 2, 3, 6, 10], seeds=20),
    controls={WIDER: dict(width=2)},
    figures=(draw_line,),
)
def narrow_width_floor_line(depth: int, seed: int, width: int = 1) -> dict[str, Any]:
    r"""One neuron a layer misses the absolute value by a half, at any depth.

    A composition of monotone functions is monotone, so a network on the line with one neuron in each layer either rises or
    falls. If it rises, $f(-1) <= f(0)$; an error below $1\/2$ at both would need $f(-1) > 1\/2 > f(0)$. If it falls, the same holds for $0$ and
    $1$: $ norm(f - abs(dot))_(L^oo (-1, 1)) >= 1\/2, $
    attained by the constant $1\/2$. The value is the least error of 24 networks trained in a trial on the mean eighth power of
    their error, measured at 401 points, $-1, 0, 1$ among them, so that the floor holds for the measured error too. The
    control trains networks of two neurons a layer.
    """
    x = torch.linspace(-1, 1, 401)[:, None]
    x[200] = 0.0
    nets = trained(x[::8], x[::8, 0].abs(), width, depth, 300, seed)
    with torch.no_grad():
        values = torch.stack([net(x)[:, 0] for net in nets])
    errors = (values - x[:, 0].abs()).abs().amax(1)
    return {"value": errors.min(), "errors": errors, "x": x[:, 0], "f": values[int(errors.argmin())]}


@claim(
    source=("hanin2017approximating", "johnson2019deep"),
    predicts=AtLeast("1/2 - rounding(depth, 100)", of="min"),
    quick=Grid(depth=[2, 4], seeds=2),
    full=Grid(depth=[1, 2, 4, 8], seeds=20),
    controls={WIDER: dict(width=3)},
    figures=(draw_floor,),
)
def narrow_width_floor(depth: int, seed: int, width: int = 2) -> dict[str, Any]:
    r"""Two neurons a layer miss the cone over the disc by a half, at any depth.

    Let $f$ be a ReLU network on $RR^d$ whose layers have at most $d$ neurons. Every component of every level set of $f$ is unbounded
    @hanin2017approximating @johnson2019deep. So there is a point $x^*$ of the unit sphere with $f(x^*) = f(0)$, and against the
    cone $g(x) = 1 - norm(x)$, where $g(0) = 1$ and $g(x^*) = 0$,
    $ sup_(norm(x) <= 1) abs(f - g) >= max(abs(f(0) - 1), abs(f(0))) >= 1\/2. $

    Here $d = 2$. The value is the least error of 24 networks trained in a trial; the error is looked for on a grid of the
    disc and at the points $x^*$, found by bisection on the rim, where the argument puts it. No network may fall below, and
    the constant $1\/2$ has just that. The control has three neurons a layer, and the same training.
    """
    grid, coarse = disc(16, ANGLES), disc(8, 32)
    nets = trained(coarse, 1 - coarse.norm(dim=1), width, depth, 400, seed)
    errors = []
    with torch.no_grad():
        for net in nets:
            x = torch.cat([grid, meeting_points(net, ANGLES)])
            errors.append((net(x)[:, 0] - (1 - x.norm(dim=1))).abs().max())
    found = torch.stack(errors)
    return {"value": found.min(), "errors": found}


def cone_by_directions(count: int, directions: Tensor, lift: float) -> nn.Module:
    """1 − max_k u_k · x in width three, for unit vectors u_k, inputs lifted by a number so that rectifiers leave them alone."""
    return network_of(string((-directions).tolist(), [1.0] * count, ["min"] * (count - 1), lift))


@claim(
    source="hanin2017approximating",
    predicts=Equals(1, within="rounding(K, K**2)", of="each"),
    quick=Grid(K=[4, 12, 36, 108], seeds=3),
    full=Grid(K=[4, 6, 12, 24, 36, 108, 324], seeds=10),
    controls={
        RANDOM: dict(spaced=False),
        "inputs lifted above zero: left where they are": dict(lift=0.0),
    },
    figures=(draw_cone, draw_rate),
)
def narrow_width_floor_construction(K: int, seed: int, spaced: bool = True, lift: float = 1.0) -> dict[str, Any]:
    r"""Three neurons a layer come as near to the cone as their depth allows.

    With one neuron more than inputs, two carry $x$, lifted into the positive by a bias, and the third a running maximum,
    $ m_k = max(m_(k-1), u_k dot x) = u_k dot x + "relu"(m_(k-1) - u_k dot x). $
    After $K - 1$ hidden layers $1 - m_K$ is a pyramid with $K$ sides @hanin2017approximating; with equally spaced unit
    vectors $u_k$ its distance from the cone over the unit disc is $1 - cos(pi\/K)$, between two of them on the rim. The same
    works for every continuous function of $d$ variables in width $d + 1$, with minima among the maxima. The value is the largest error,
    found where the theorem puts it, over $1 - cos(pi\/K)$; the tolerance is that of floating point. Controls: random directions; and inputs that are not lifted, of which rectifiers cut the negative half off.
    """
    start = float(gaussian(torch.Generator().manual_seed(seed), 1)) * 0.01
    angles = start + 2 * pi * torch.arange(K) / K
    if not spaced:
        draws = torch.Generator().manual_seed(seed)
        angles = 2 * pi * torch.rand(K, generator=draws, device="cpu").to(angles)
    net = cone_by_directions(K, torch.stack([angles.cos(), angles.sin()], 1), lift)
    turn = start + pi * torch.arange(16 * K) / (8 * K)  # half-way between directions, among others
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    x = torch.cat([circle * r for r in (0.0, 0.25, 0.5, 0.75, 1.0)])
    with torch.no_grad():
        error = (net(x)[:, 0] - (1 - x.norm(dim=1))).abs().max()
    return {"value": error / (1 - cos(pi / K)), "error": error, "layers": K - 1}


@claim(
    source="hanin2017approximating",
    predicts=AtMost(1, of="max"),
    quick=Grid(target=["waves", "square"], cells=[4, 8, 32], seeds=1),
    full=Grid(target=["waves", "square", "sawtooth"], cells=[4, 8, 32, 128], seeds=1),
    controls={"slopes of at least the Lipschitz constant: a third of it": dict(share=1 / 3)},
    figures=(draw_zigzag,),
)
def narrow_width_floor_two_neurons(target: str, cells: int, seed: int, share: float = 1.0) -> dict[str, Any]:
    r"""Two neurons a layer follow every Lipschitz function on an interval.

    Let $abs(f(x) - f(y)) <= L abs(x - y)$ on $[0, 1]$. The zigzag $g$ of slopes $plus.minus L$ that meets $f$ at the ends of $n$ cells is
    within $L\/n$ of it. A line of slope $L$ through a point of $g$ lies below $g$ to the left of that point, a line of slope $-L$
    above. So $g$ is a string $ g = dots max(min(ell_1, ell_2), ell_3) dots $ of $2 n$ lines from left to right, which $2 n - 1$
    layers of two neurons compute: one carries $x$, one the string @hanin2017approximating. The value is the largest error over
    $L\/n$. In the control the slopes are less than $f$ needs.
    """
    functions: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
        "waves": (lambda x: torch.sin(9 * x[:, 0]) / 9 + x[:, 0] / 2, 1.5),
        "square": (targets.square(), 2.0),
        "sawtooth": (targets.sawtooth(3), 8.0),
    }
    f, L = functions[target]
    knots = torch.arange(cells + 1) / cells
    values = f(knots[:, None])
    slope = share * L
    slopes = [[slope], [-slope]] * cells
    ends = torch.stack([values[:-1] - slope * knots[:-1], values[1:] + slope * knots[1:]], 1).flatten()
    kinds: list[Kind] = ["min" if k % 2 == 0 else "max" for k in range(2 * cells - 1)]
    net = network_of(string(slopes, ends.tolist(), kinds, 0.0))
    x = torch.arange(64 * cells + 1)[:, None] / (64 * cells)
    with torch.no_grad():
        g = net(x)[:, 0]
    error = (g - f(x)).abs().max()
    return {"value": error * cells / L, "x": x[:, 0], "y": f(x), "f": g}


if __name__ == "__main__":
    script(__file__)
