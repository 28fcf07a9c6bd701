r"""What a flow cannot do, and one more dimension can.

A neural ODE moves its input along the trajectories of a learned vector field @chen2018neural. Trajectories do not cross,
so the flow is a homeomorphism of its space, whatever was learned: on a line it keeps the order of points, and in any
dimension it keeps a ball inside the sphere around it @dupont2019augmented. Both make errors that no training can go below
and that are known exactly. Appending zeros to the input lets trajectories pass around each other. Here vector fields with
one hidden layer of 16 tanh units are trained by Adam @kingma2015adam, the learning rate falling from 0.03 to zero along a
cosine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from lemmata.architectures import AugmentedNeuralODE, NeuralODE
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

HIDDEN, RATE = 16, 0.03
RADII = 0.5, 1.0, 1.5  # of the ball, and of the shell from inside and from outside
BATCH = 128
ADAM = partial(torch.optim.Adam, lr=RATE)


def flow(n: int, augment: int, seed: int, **options: Any) -> NeuralODE:
    """A neural ODE of n dimensions, or of n + augment."""
    options["generator"] = torch.Generator().manual_seed(seed)
    return AugmentedNeuralODE(n, augment, HIDDEN, **options) if augment else NeuralODE(n, HIDDEN, **options)


def cosine(steps: int) -> Any:
    """The schedule of every training here: from RATE to zero in so many steps."""
    return partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)


def steepness(network: NeuralODE, x: Tensor) -> float:
    """Step size times the largest Lipschitz constant of the field along the trajectories of x: small for a true flow."""
    h = network.time / network.steps
    with torch.no_grad():
        path = network.trajectory(x)
        slopes = [vmap(jacrev(partial(network.field, i * h)))(state) for i, state in enumerate(path[:-1])]
    return h * torch.linalg.matrix_norm(torch.stack(slopes), 2).max().item()


def cross(points: int, steps: int, seed: int, augment: int, solver: str, solver_steps: int) -> dict[str, Any]:
    """Train x ↦ −x on equally spaced points of [−1, 1]; the losses, and how often the outputs left their order."""
    network = flow(1, augment, seed, solver=solver, steps=solver_steps)
    x = torch.linspace(-1, 1, points)[:, None]
    inputs = torch.cat([x, torch.linspace(-2, 2, 64)[:, None]])  # more points, to watch their order
    order, inversions = inputs[:, 0].argsort(), []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        inversions.append((output[order, 0].detach().diff() <= 0).sum())
        return (output[:points, :1] - target).square().mean()

    losses = train([network], loss, lambda step: (inputs[None], -x[None]), steps, ADAM, cosine(steps))[:, 0]
    with torch.no_grad():
        path = network.trajectory(x)[..., 0]
    counts = {"least loss": losses.min(), "inversions": torch.stack(inversions).sum()}
    return {**counts, "losses": losses, "path": path, "step times slope": steepness(network, x)}


def draw_paths(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """On a line two trajectories squeeze together and cannot cross; with one more dimension, or one large step, they do.

    Position against time for the two points minus one and one, whose targets are each other's place. The two solid lines
    of the neural ODE run together near zero. The dashed lines, the first coordinate of the augmented one, cross and end
    at the targets, as do the two dotted straight lines of a single Euler step.
    """
    columns: dict[str, list[Any]] = {"network": [], "start": [], "time": [], "position": []}
    styles = {"": ("-", "neural ODE"), "dimension": ("--", "one dimension more"), "steps": (":", "one Euler step")}
    for row in [row for row in rows if row.k == 0 and row.point["points"] == 2]:
        style, label = next(styles[word] for word in reversed(styles) if word in row.arm)
        path = row.values["path"]
        time = [i / (len(path) - 1) for i in range(len(path))]
        ax.plot(time, path, style, color=f"C{list(styles.values()).index((style, label))}", label=[label, None])
        for k, start in enumerate((-1, 1)):
            cells = [label] * len(path), [start] * len(path), time, path[:, k].tolist()
            for column, cell in zip(columns.values(), cells, strict=True):
                column.extend(cell)
    ax.plot([1, 1], [-1, 1], "o", color="0.5", label="targets")
    ax.set(xlabel="time", ylabel="position", ylim=(-1.6, 1.2))
    ax.legend(ncols=2, fontsize="small", loc="lower center")
    return columns


CROSSING_CONTROLS: dict[str, dict[str, Any]] = {
    "the line: one more dimension": dict(augment=1),
    "small steps: one Euler step": dict(solver="euler", solver_steps=1),
}


@claim(
    source=("dupont2019augmented", "chen2018neural"),
    predicts=AtLeast("(points + 1) / (3 * (points - 1))"),
    quick=Grid(points=[2, 5], steps=[200], seeds=3),
    full=Grid(points=[2, 3, 5, 9], steps=[600], seeds=10),
    controls=CROSSING_CONTROLS,
    figures=(draw_paths,),
)
def node_1d_no_crossing(
    points: int, steps: int, seed: int, augment: int = 0, solver: str = "rk4", solver_steps: int = 10
) -> dict[str, Any]:
    r"""A neural ODE on the line cannot turn it round: its squared error has a floor.

    Let $x_1 < dots.c < x_m$ be equally spaced on $[-1, 1]$ and let the targets be $-x_i$. The flow of
    $dot(h) = f (t, h)$ on $RR$, $f$ Lipschitz in $h$, sends them to $a_1 < dots.c < a_m$ @dupont2019augmented. Two
    increasing sequences, one with mean zero, have $sum_i a_i x_i >= 0$, hence
    $ frac(1, m) sum_i (a_i + x_i)^2 >= frac(1, m) sum_i x_i^2 = frac(m + 1, 3 (m - 1)), $
    which is 1 for two points; it is approached as all outputs go to zero. The value is the least loss at any step of
    training.

    Training that fails proves little, so the controls train the same way: with one dimension more the loss goes to zero.
    The theorem is one of flows: it also goes to zero when the flow is followed by a single Euler step, a residual block,
    which may jump over what it cannot cross once step size times Lipschitz constant passes one. (That product is recorded
    with every trial.)
    """
    found = cross(points, steps, seed, augment, solver, solver_steps)
    return {"value": found["least loss"], **found}


@claim(
    source="dupont2019augmented",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(points=[5], steps=[200], seeds=3),
    full=Grid(points=[2, 3, 5, 9], steps=[600], seeds=10),
    controls=CROSSING_CONTROLS,
)
def node_1d_no_crossing_order(
    points: int, steps: int, seed: int, augment: int = 0, solver: str = "rk4", solver_steps: int = 10
) -> dict[str, Any]:
    r"""On the line the outputs of a neural ODE stay in order at every step of training.

    The flow of a Lipschitz vector field on $RR$ is strictly increasing, with whatever parameters. While the network of
    the floor above is trained to turn the line round, its outputs at 64 points of $[-2, 2]$ and at the training points
    are recorded before every update. The value is the number of neighbours out of order, over all updates; it is exactly
    zero. The order is what training pushes against: the slope of the flow falls to about a thousandth. The controls,
    one dimension more (the first coordinate is recorded) and a single Euler step, leave the order early in training.
    """
    found = cross(points, steps, seed, augment, solver, solver_steps)
    return {"value": found["inversions"]}


@claim(
    source="dupont2019augmented",
    predicts=AtMost(1e-6),
    quick=Grid(points=[2], steps=[200], seeds=3),
    full=Grid(points=[2], steps=[200, 600], seeds=20),
    controls={"an extra dimension: none": dict(augment=0)},
)
def node_1d_no_crossing_augmented(points: int, steps: int, seed: int, augment: int = 1) -> dict[str, Any]:
    r"""One extra dimension is enough to turn the line round.

    Append a zero to $x in RR$ and follow a flow of the plane: a rotation by half a turn about the origin sends
    $(x, 0)$ to $(-x, 0)$. So an augmented neural ODE fits the targets $-x_i$ exactly @dupont2019augmented, and training
    finds such a flow: on the two points $minus.plus 1$, where a flow of the line errs by 1, the squared error on the first
    coordinate falls below $10^(-6)$. The value is the least during training.
    """
    found = cross(points, steps, seed, augment, "rk4", 10)
    return {"value": found["least loss"], "loss": found["losses"]}


def concentric(dimension: int, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half of n points uniform in the ball, labelled −1, the others in the shell, labelled 1."""
    inner, low, high = (radius**dimension for radius in RADII)
    directions = gaussian(draws, n, dimension)
    share = torch.rand(n, 1, generator=draws, dtype=torch.float64, device="cpu").to(directions)
    volume = torch.cat([inner * share[: n // 2], low + (high - low) * share[n // 2 :]])
    x = directions / directions.norm(dim=1, keepdim=True) * volume ** (1 / dimension)
    return x, torch.where(volume > (inner + low) / 2, 1.0, -1.0)


def sphere(dimension: int) -> Tensor:
    """Unit vectors: both, 720 around the circle, or as many at random."""
    if dimension == 1:
        return torch.tensor([[-1.0], [1.0]])
    if dimension == 2:
        angle = 2 * math.pi * torch.arange(720) / 720
        return torch.stack([angle.cos(), angle.sin()], dim=1)
    drawn = gaussian(torch.Generator().manual_seed(0), 720, dimension)
    return drawn / drawn.norm(dim=1, keepdim=True)


def separate(dimension: int, power: int, steps: int, seed: int, augment: int) -> dict[str, Any]:
    """Train on the ball and the shell; the largest error over both, of the trained field's flow to rounding."""
    network = flow(dimension, augment, seed, n_out=1, steps=5)
    draws = torch.Generator().manual_seed(seed)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x, labels = concentric(dimension, BATCH, draws)
        return x[None], labels[None]

    train([network], lambda f, g: (f - g).abs().pow(power).mean(), batch, steps, ADAM, cosine(steps))
    exact = flow(dimension, augment, seed, n_out=1, steps=32)
    exact.load_state_dict(network.state_dict())
    inner, low, high = RADII
    radii = torch.cat([torch.linspace(0, inner, 6), torch.linspace(low, high, 6)])
    x = sphere(dimension) * radii[:, None, None]  # (r directions n)
    shown = concentric(dimension, 400, draws)
    with torch.no_grad():
        f = exact(x)[..., 0]
        end = exact.trajectory(shown[0])[-1]
    error = (f - torch.where(radii < (inner + low) / 2, -1.0, 1.0)[:, None]).abs().max()
    found = {"value": error, "centre": f[0, 0], "sphere": f[6], "end": end, "label": shown[1][:, 0]}
    return {**found, "step times slope": steepness(exact, shown[0])}


def draw_circle(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """On the circle around the ball a flow of the plane dips below its value at the centre; one of space need not.

    Output of two trained networks against the angle on the shell's inner circle, and as horizontal lines of the same
    colours at the centre of the ball. Targets are one on the circle and minus one at the centre. The neural ODE is near
    one on most of the circle and falls in a narrow range of angles below its own value at the centre. The augmented
    network stays near one all round.
    """
    columns: dict[str, Sequence[float]] = {}
    shown = [row for row in rows if row.k == 0 and row.point["dimension"] == 2 and row.point.get("power", 2) == 2]
    for colour, row in enumerate(sorted(shown, key=lambda row: row.arm)):
        label = "one dimension more" if row.arm else "neural ODE"
        columns["angle"] = [360 * i / len(row.values["sphere"]) for i in range(len(row.values["sphere"]))]
        columns[f"{label}, circle"] = row.values["sphere"]
        columns[f"{label}, centre"] = [row.values["centre"]] * len(columns["angle"])
        ax.plot(columns["angle"], row.values["sphere"], color=f"C{colour}", label=f"{label}, on the circle")
        ax.axhline(row.values["centre"], color=f"C{colour}", linestyle="--", label=f"{label}, at the centre")
    ax.set(xlabel="angle (degrees)", ylabel="output", xticks=range(0, 361, 60))
    ax.legend(fontsize="small")
    return columns


def draw_ends(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Where the flow of the plane carries the ball and the shell: the shell still surrounds the ball.

    Scatter of final states in the plane. Most points of the ball are pressed together on one side. Most points of the
    shell are spread over the other side, and a few lie beyond the ball, in a thin band that could not be taken around.
    """
    row = next(
        row
        for row in rows
        if row.arm == "" and row.k == 0 and row.point["dimension"] == 2 and row.point.get("power", 2) == 2
    )
    end, label = row.values["end"], row.values["label"]
    for value, name, marker in ((-1, "ball", "o"), (1, "shell", "x")):
        ax.plot(*end[label == value].T, marker, markersize=3, label=name)
    ax.set(xlabel="first coordinate", ylabel="second coordinate")
    ax.legend()
    return {"first": end[:, 0], "second": end[:, 1], "label": label}


@claim(
    source="dupont2019augmented",
    predicts=AtLeast(1),
    quick=Grid(dimension=[1, 2], power=[2, 6], steps=[300], seeds=3),
    full=Grid(dimension=[1, 2, 3], power=[2, 6], steps=[1000], seeds=10),
    controls={"a flow of the same space: one more dimension": dict(augment=1)},
    figures=(draw_circle, draw_ends),
)
def concentric_floor(dimension: int, power: int, steps: int, seed: int, augment: int = 0) -> dict[str, Any]:
    r"""No neural ODE tells a ball from the shell around it better than a constant does.

    Let $g = -1$ on the ball $norm(x) <= r_1$ in $RR^d$ and $g = 1$ on the shell $r_2 <= norm(x) <= r_3$, $r_1 < r_2$, and
    let $f (x) = v dot phi (x) + c$ with $phi$ the flow of a vector field on $RR^d$. Then $sup abs(f - g) >= 1$, which
    $f = 0$ attains @dupont2019augmented. For $phi$ is a homeomorphism of $RR^d$ and maps the boundary of the ball
    $norm(x) <= r_2$ onto that of its image; a linear function on that image is smallest on the boundary; so some $x$ with
    $norm(x) = r_2$ has $f (x) <= f (0)$, and $(f (0) + 1) + (1 - f (x)) >= 2$. In particular the two sets are not linearly
    separated.

    Networks are trained on the mean of $abs(f - g)^p$ over fresh points, $(r_1, r_2, r_3) = (1\/2, 1, 3\/2)$, and then the
    trained field's flow is followed with 32 Runge–Kutta steps. The value is the largest error found on a grid of both
    sets, which can only be less than the supremum. With $p = 2$ networks of the plane cut a thin channel through the
    shell, at the price of a large error in it; with $p = 6$, nearer to the supremum, it is smaller on average. The
    control trains in one dimension more.
    """
    return separate(dimension, power, steps, seed, augment)


@claim(
    source="dupont2019augmented",
    predicts=AtMost(1),
    quick=Grid(dimension=[1, 2], steps=[300], seeds=3),
    full=Grid(dimension=[1, 2, 3], steps=[1000], seeds=10),
    controls={"an extra dimension: none": dict(augment=0)},
)
def concentric_augmentation(dimension: int, steps: int, seed: int, augment: int = 1) -> dict[str, Any]:
    r"""With one extra dimension a neural ODE separates a ball from the shell around it.

    Append a zero to $x in RR^d$ and follow a flow of $RR^(d + 1)$: it may lift the ball out of the plane of the shell, and
    a linear function tells them apart @dupont2019augmented. The value is the largest error $abs(f - g)$ found on a grid of
    both sets, as in the floor above; below 1 every point is on its side. The control takes the dimension away again.
    """
    found = separate(dimension, 2, steps, seed, augment)
    return {name: found[name] for name in ("value", "centre", "sphere")}


if __name__ == "__main__":
    script(__file__)
