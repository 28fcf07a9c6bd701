r"""What a flow of the line cannot fit, for any data, and when a residual network can.

A neural ODE of one dimension keeps the order of its inputs @chen2018neural @dupont2019augmented. What it cannot go below on a
set of data is therefore the error of the best increasing function, and that is known exactly: isotonic regression
@deleeuw2009isotone. The certificate is compared with what training reaches. The theorem is one of flows; a chain of
residual blocks, Euler's steps of a flow, keeps the order as long as no step is longer than the inverse of the field's slope, and
not beyond. (The line turned round by more points, its order during training, and balls inside shells are in the study of
continuous depth.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.architectures import NeuralODE
from lemmata.studies.architectures.continuous_depth import ADAM, cosine, flow, steepness
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.training import descent, flat_parameters, load_parameters, objective, train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
AUGMENTED = "the line: one more dimension"
CONTROLS: dict[str, dict[str, Any]] = {AUGMENTED: dict(augment=1), "small steps: one Euler step": dict(solver="euler")}
NETWORKS, STEPS = 4, 10


def data(target: str, points: int, seed: int) -> tuple[Tensor, Tensor]:
    """Equally spaced points of [−1, 1] and what they are to be mapped to."""
    x = torch.linspace(-1, 1, points)
    drawn = torch.rand(points, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
    return x, {"turned": -x, "arch": torch.cos(torch.pi * x) + x / 2, "random": 2 * drawn.to(x) - 1}[target]


def fitted(x: Tensor, y: Tensor, steps: int, seed: int, augment: int, solver: str) -> tuple[list[NeuralODE], Tensor]:
    """Flows trained side by side on the squared error of the first coordinate, and their losses, (steps, networks)."""
    count = 1 if solver == "euler" else STEPS
    nets = [flow(1, augment, seed + k, solver=solver, steps=count) for k in range(NETWORKS)]
    batch = x.expand(NETWORKS, -1)[..., None], y.expand(NETWORKS, -1)
    losses = train(nets, lambda f, g: (f[:, 0] - g).square().mean(), lambda step: batch, steps, ADAM, cosine(steps))
    return nets, losses


def draw_fits(ax: Any, rows: Rows) -> Columns:
    """An arch, the best increasing function, and what flows make of it.

    Nine points that rise and fall. A dashed line, the best increasing function, rises with the first and is level from there
    on. The trained flow of the line runs along it. The flow with one more dimension falls with the points.
    """
    columns: dict[str, Any] = {}
    for row in (r for r in rows if r.k == 0 and r.point["target"] == "arch" and "Euler" not in r.arm):
        if not row.arm:
            ax.plot(row.values["x"], row.values["y"], "o", color="0.3", label="data")
            ax.plot(
                row.values["x"], row.values["best"], "--", color="0.3", linewidth=1, label="best increasing function"
            )
        columns["x"] = row.values["fine"]
        label = "one dimension more" if row.arm else "flow of the line"
        columns[label] = row.values["outputs"]
        ax.plot(columns["x"], columns[label], label=label)
    ax.set(xlabel="x", ylabel="output")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("dupont2019augmented", "deleeuw2009isotone"),
    predicts=AtLeast(1),
    quick=Grid(target=["turned", "arch", "random"], points=[9], steps=[300], seeds=1),
    full=Grid(target=["turned", "arch", "random"], points=[9, 17], steps=[1000], seeds=5),
    controls=CONTROLS,
    figures=(draw_fits,),
)
def node_1d_no_crossing_isotonic(
    target: str, points: int, steps: int, seed: int, augment: int = 0, solver: str = "midpoint"
) -> dict[str, Any]:
    r"""On the line no neural ODE fits data better than the best increasing function.

    Let $x_1 < dots.c < x_m$ and $y_i$ be any data. The flow of a Lipschitz vector field on $RR$ sends the points to
    $a_1 < dots.c < a_m$ @dupont2019augmented, so that
    $ 1/m sum_i (a_i - y_i)^2 >= min_(b_1 <= dots.c <= b_m) 1/m sum_i (b_i - y_i)^2, $
    which isotonic regression finds @deleeuw2009isotone. The sums of its residuals from the left, $S_i >= 0$ with $S_m = 0$, prove
    it: by Abel's summation $sum_i (y_i - b_i) a_i = - sum_i S_i (a_(i+1) - a_i) <= 0$ for every increasing $a$, and zero for
    $a = b$.

    Four networks are trained by Adam on the line turned round, on an arch, and on random heights; the value is the least error of
    any, at any step, over the floor. The controls, trained the same way, have one dimension more, or follow the field by one
    Euler step.
    """
    x, y = data(target, points, seed)
    floor = la.monotone_floor(x, y)
    nets, losses = fitted(x, y, steps, seed, augment, solver)
    best = nets[int(losses[-1].argmin())]
    fine = torch.linspace(-1, 1, 201)
    with torch.no_grad():
        outputs = best(fine[:, None])[:, 0]
    shown = {"x": x, "y": y, "best": floor.fit, "fine": fine, "outputs": outputs}
    steep = steepness(best, x[:, None])
    return {"value": losses.min() / floor.lower, "floor": floor.lower, "steps times slope": steep, **shown}


@claim(
    source="dupont2019augmented",
    predicts=Equals(1.005, within=0.005, of="each"),
    quick=Grid(steps=[400], seeds=2),
    full=Grid(steps=[400, 1000], seeds=10),
    controls=CONTROLS,
)
def node_1d_no_crossing_tight(steps: int, seed: int, augment: int = 0, solver: str = "midpoint") -> dict[str, Any]:
    r"""Asked to exchange two points, flows of the line put them together, at an error of one.

    For the data $-1 |-> 1$, $1 |-> -1$ the floor is $1$, which is approached as both outputs go to zero @dupont2019augmented.
    Training finds this: of four networks the one whose least error is furthest from $1.005$ is in $[1, 1.01]$. The two outputs are
    still in order. With one dimension more, or one Euler step, the controls, the error goes to zero.
    """
    x, y = data("turned", 2, seed)
    nets, losses = fitted(x, y, steps, seed, augment, solver)
    least = losses.amin(0)
    with torch.no_grad():
        outputs = torch.stack([net(x[:, None])[:, 0] for net in nets])
    return {"value": least[(least - 1.005).abs().argmax()], "outputs": outputs, "losses": losses}


def draw_steps(ax: Any, rows: Rows) -> Columns:
    """A chain of Euler steps leaves the order when one step passes the inverse of the slope, a flow of the plane before.

    Step size times slope of the field, at the update at which outputs first leave their order, against the number of steps.
    Circles of the line lie on or just above a dashed line at one, and there is none at eight steps, which kept the order. Crosses,
    of networks with one dimension more, fall below the dashed line as the steps get shorter.
    """
    columns: dict[str, list[Any]] = {"network": [], "Euler steps": [], "step size times slope": []}
    for arm, label, mark in (("", "the line", "o"), (AUGMENTED, "one dimension more", "x")):
        left = [
            (r.point["chain"], float(r.values["product"])) for r in rows if r.arm == arm and r.values["product"] > 0
        ]
        ax.loglog(*zip(*left, strict=True), mark, markersize=8, fillstyle="none", label=label)
        columns["network"] += [label] * len(left)
        columns["Euler steps"] += [chain for chain, _ in left]
        columns["step size times slope"] += [product for _, product in left]
    chains = sorted({row.point["chain"] for row in rows})
    ax.axhline(1, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="Euler steps", ylabel="step size × slope, order first left", xticks=chains, yticks=[0.5, 1.0])
    ax.set_xticklabels(chains)
    ax.set_yticklabels(["1/2", "1"])
    ax.minorticks_off()
    ax.legend()
    return columns


@claim(
    source=("dupont2019augmented", "chen2018neural"),
    predicts=AtMost(1.01),
    quick=Grid(chain=[1, 2, 4, 8], updates=[400], seeds=2),
    full=Grid(chain=[1, 2, 4, 8, 16], updates=[2000], seeds=10),
    controls={AUGMENTED: dict(augment=1)},
    figures=(draw_steps,),
)
def node_1d_no_crossing_euler(chain: int, updates: int, seed: int, augment: int = 0) -> dict[str, Any]:
    r"""Residual blocks on the line keep the order until one step is longer than the inverse of the slope.

    A block $x |-> x + h f (x)$ has the slope $1 + h f' (x)$, which is positive as long as $h sup abs(f') < 1$: order is kept,
    though nothing is solved exactly. That a chain of such blocks can turn the line round at all is an artefact of its step size.

    Networks are trained to do so by gradient descent with momentum. The value is $1 \/ (h sup abs(f'))$ at the update at which 257
    outputs first leave their order, with the slopes at the states of all blocks; zero if they never do. It is at most one, up to
    the spacing of the states, and close to one. With one dimension more, points pass each other by a detour and the value
    exceeds one.
    """
    net = flow(1, augment, seed, solver="euler", steps=chain)
    x = torch.linspace(-1, 1, 257)[:, None]
    turn = objective(net, lambda f, g: (f[:, :1] - g).square().mean(), x, -x)
    path = descent(turn, flat_parameters(net), step=0.05, momentum=0.9)
    for update, (flat, _) in enumerate(islice(path, updates)):
        with torch.no_grad():
            outputs = load_parameters(net, flat)(x)[:, 0]
        if (outputs.diff() <= 0).any():
            product = steepness(net, x)
            return {"value": 1 / product, "product": product, "update": update}
    return {"value": 0.0, "product": 0.0, "update": updates}


if __name__ == "__main__":
    script(__file__)
