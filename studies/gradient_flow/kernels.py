r"""Lazy or rich: does a network leave the tangent space of its start?

Gradient descent moves the outputs of a network by its tangent kernel $Theta = J J^top$. If the kernel stays what it was at the
start, training is kernel regression @jacot2018ntk; if not, features are learned. Width alone does not decide. What does is how the
parts of a network are scaled against each other, and its output as a whole @chizat2019lazy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import AtMost, Grid, Scales, claim, script
from lemmata.studies.data import digits, gaussian
from lemmata.studies.training import squared_error, train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
INPUTS, POINTS = 4, 8  # of the toy problem: size of an input; points to train on, and as many held out


class Scheme(NamedTuple):
    """f(x) = m Σ a tanh(c w·x) with a, w of these standard deviations, trained at this rate."""

    m: float
    a: float
    w: float
    c: float
    rate: float


def scheme(name: str, width: int) -> Scheme:
    """How a two-layer network is scaled; with the standard scheme one rate, the largest that is stable at 2048, serves all."""
    if name == "standard":
        return Scheme(1.0, width**-0.5, INPUTS**-0.5, 1.0, 1 / 1024)
    m = {"tangent": width**-0.5, "mean field": 1 / width}[name]
    return Scheme(m, 1.0, 1.0, INPUTS**-0.5, 1 / (width * m * m))


class TwoLayer(nn.Module):
    """Independent networks side by side: a (nets, n), w (nets, n, d), inputs (N, d) → outputs (nets, N)."""

    def __init__(self, s: Scheme, nets: int, width: int, draws: torch.Generator, heavy: bool = False) -> None:
        super().__init__()
        a = gaussian(draws, nets, width)
        self.s, self.a = s, nn.Parameter(s.a * (a / gaussian(draws, nets, width) if heavy else a))
        self.w = nn.Parameter(s.w * gaussian(draws, nets, width, INPUTS))

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden layer, (nets, n, N)."""
        return (self.s.c * self.w @ x.T).tanh()

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, (nets, N)."""
        return self.s.m * (self.a[:, None] @ self.hidden(x))[:, 0]

    def slopes(self, h: Tensor) -> Tensor:
        """The slope of the sum over units in the hidden preactivations, (nets, n, N)."""
        return self.a[..., None] * (1 - h * h)

    def kernel(self, x: Tensor) -> Tensor:
        """The tangent kernel in closed form, (nets, N, N)."""
        h = self.hidden(x)
        b = self.slopes(h)
        return self.s.m**2 * (h.mT @ h + self.s.c**2 * (b.mT @ b) * (x @ x.T))

    def step(self, x: Tensor, residual: Tensor, time: float) -> None:
        """A step of gradient descent on half the mean squared error, from its residuals (nets, N)."""
        h = self.hidden(x)
        r, b = time * self.s.rate * self.s.m / len(x) * residual[..., None], self.slopes(h)
        self.a.sub_((h @ r)[..., 0])
        self.w.sub_(self.s.c * (b * r.mT) @ x)


def points() -> tuple[Tensor, Tensor]:
    """Twice POINTS inputs on a sphere, and targets for the first half: one problem for all trials."""
    draws = torch.Generator().manual_seed(3)
    x = gaussian(draws, 2 * POINTS, INPUTS)
    return x * INPUTS**0.5 / x.norm(dim=1, keepdim=True), gaussian(draws, POINTS)


def relative(found: Tensor, truth: Tensor) -> Tensor:
    """The mean over networks of the norm of a difference, relative to the mean norm of the truth."""
    return (found - truth).flatten(1).norm(dim=1).mean() / truth.flatten(1).norm(dim=1).mean()


@torch.no_grad()
def race(name: str, width: int, nets: int, steps: int, seed: int) -> dict[str, float]:
    """Train networks beside their linearisations: how far kernel, held-out outputs and parameters come apart or along."""
    x, y = points()
    net = TwoLayer(scheme(name, width), nets, width, torch.Generator().manual_seed(seed))
    start, kernel, first = deepcopy(net), net.kernel(x), net(x)
    q = torch.zeros(nets, POINTS)  # the linearised outputs are f_0 − Θ_0 q
    for _ in range(steps):
        linear = first - (kernel[..., :POINTS] @ q[..., None])[..., 0]
        q = q + net.s.rate / POINTS * (linear[:, :POINTS] - y)
        net.step(x[:POINTS], net(x[:POINTS]) - y, 1.0)
    linear = first - (kernel[..., :POINTS] @ q[..., None])[..., 0]
    gap = (net(x) - linear)[:, POINTS:].norm(dim=1).mean() / (linear - first)[:, POINTS:].norm(dim=1).mean()
    flat, origin = (torch.cat([n.a, n.w.flatten(1)], 1) for n in (net, start))
    return {"kernel": float(relative(net.kernel(x), kernel)), "gap": float(gap), "path": float(relative(flat, origin))}


MEAN_FIELD = "outputs over the root of the width: over the width"
ONE_RATE = "one training time for all widths: standard parametrisation, one rate"
WIDTHS, MORE = [32, 128, 512, 2048], [32, 64, 128, 256, 512, 1024, 2048]


def draw_drift(ax: Any, rows: Rows) -> Columns:
    """How far the kernel moves in training, against width: it freezes with outputs over the root of the width alone.

    Relative change of the kernel, both axes logarithmic. In the tangent parametrisation the dots fall along a line of slope
    minus one; with outputs over the width they stay level, near one.
    """
    columns: dict[str, Any] = {"width": sorted({row.point["width"] for row in rows})}
    for arm, name in (("", "tangent: outputs over √n"), (MEAN_FIELD, "mean field: outputs over n")):
        columns[name] = [
            np.mean([r.values["value"] for r in rows if r.arm == arm and r.point["width"] == n])
            for n in columns["width"]
        ]
        ax.loglog(columns["width"], columns[name], "o-", label=name)
    line = columns["tangent: outputs over √n"][0] * columns["width"][0] / np.array(columns["width"])
    ax.loglog(columns["width"], line, color="0.3", linestyle="--", linewidth=1, label="slope −1")
    ax.set(xlabel="width n", ylabel="relative change of the kernel")
    ax.legend()
    return columns


@claim(
    source=("jacot2018ntk", "huang2020dynamics"),
    predicts=Scales("width", power=-1, within=0.15),
    quick=Grid(width=WIDTHS, nets=[16], steps=[8], seeds=12),
    full=Grid(width=MORE, nets=[64], steps=[8], seeds=20),
    controls={MEAN_FIELD: dict(name="mean field"), ONE_RATE: dict(name="standard")},
    figures=(draw_drift,),
)
def ntk_lazy_scaling(width: int, nets: int, steps: int, seed: int, name: str = "tangent") -> float:
    r"""In the tangent parametrisation the kernel moves like one over the width.

    Let $f(x) = n^(-1\/2) sum_i a_i tanh(d^(-1\/2) w_i dot x)$ with standard normal $a, w$, trained by gradient descent on squared error
    for a fixed time. The kernel's movement $norm(Theta_t - Theta_0) \/ norm(Theta_0)$ vanishes as $n -> oo$ @jacot2018ntk, and does so
    like $1\/n$ for smooth units: the derivatives of the kernel along training form a hierarchy in powers of $1\/n$
    @huang2020dynamics. The value is the movement on training and held-out points, as a mean over networks.

    Controls: outputs over $n$ instead of $sqrt(n)$, at a rate times $n$ for the same time, where the movement keeps its size; and the
    standard parametrisation at one rate for all widths, which are then trained for different times.
    """
    return race(name, width, nets, steps, seed)["kernel"]


@claim(
    source=("lee2019wide", "dyer2020asymptotics"),
    predicts=Scales("width", power=-1, within=0.15),
    quick=Grid(width=WIDTHS, nets=[16], steps=[8], seeds=12),
    full=Grid(width=MORE, nets=[64], steps=[8], seeds=20),
    controls={MEAN_FIELD: dict(name="mean field"), ONE_RATE: dict(name="standard")},
)
def ntk_lazy_scaling_outputs(width: int, nets: int, steps: int, seed: int, name: str = "tangent") -> float:
    r"""Wide networks train like their linearisation, up to one over the width.

    The linearised model $f_0 + J_0 (theta - theta_0)$ is trained beside the network, from the same start for the same time. The proven
    bound on the distance of their outputs is $O(n^(-1\/2))$ @lee2019wide; counting powers of the width gives $O(n^(-1))$
    @dyer2020asymptotics. The value is that distance on held-out points, over how far the linearised outputs moved. Network,
    time and controls are those of the claim above.
    """
    return race(name, width, nets, steps, seed)["gap"]


@claim(
    source=("lee2019wide", "chizat2019lazy"),
    predicts=Scales("width", power=-0.5, within=0.1),
    quick=Grid(width=WIDTHS, nets=[8], steps=[8], seeds=8),
    full=Grid(width=MORE, nets=[64], steps=[8], seeds=20),
    controls={MEAN_FIELD: dict(name="mean field")},
)
def ntk_lazy_scaling_parameters(width: int, nets: int, steps: int, seed: int, name: str = "tangent") -> float:
    r"""The wider a network, the less of its parameters' length it has to move.

    The outputs move by an amount that does not depend on the width, by way of $n$ units that add up: in the tangent
    parametrisation $norm(theta_t - theta_0)$ is of the order of one, while $norm(theta_0)$ grows like $sqrt(n)$, so that the relative
    change falls like $n^(-1\/2)$ @lee2019wide. Network, time and first control are those of the claims above.
    """
    return race(name, width, nets, steps, seed)["path"]


@claim(
    source="jacot2018ntk",
    predicts=Scales("width", power=-0.5, within=0.1),
    quick=Grid(width=WIDTHS, nets=[40], seeds=8),
    full=Grid(width=MORE, nets=[100], seeds=20),
    controls={"read-out weights with a fourth moment: Cauchy": dict(heavy=True)},
)
def ntk_lazy_scaling_start(width: int, nets: int, seed: int, heavy: bool = False) -> float:
    r"""At the start the kernel fluctuates like one over the root of the width.

    The kernel of the network above is an average over $n$ independent units, so that it converges to a deterministic one
    @jacot2018ntk, with deviations of $n^(-1\/2)$ if $a_i^2$ has a variance. The value is the root of the summed variance of the
    kernel's entries over networks, relative to the norm of their mean. Control: Cauchy weights, under which no average
    over units settles.
    """
    net = TwoLayer(scheme("tangent", width), nets, width, torch.Generator().manual_seed(seed), heavy)
    with torch.no_grad():
        kernel = net.kernel(points()[0])
    return float((kernel.var(0).sum() / kernel.mean(0).square().sum()).sqrt())


class Scaled(nn.Module):
    """A network with a number before its output."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        """The output times the scale."""
        return self.scale * self.net(x)


def parity(images: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits to train on and 500 others, with 1 for even and −1 for odd numerals."""
    x, labels = digits()
    order = torch.randperm(len(x), generator=draws, device="cpu").to(x.device)
    x, y = x[order], (1.0 - 2.0 * (labels[order] % 2)).to(x)[:, None]
    return x[:images], y[:images], x[images : images + 500], y[images : images + 500]


def draw_training(ax: Any, rows: Rows) -> Columns:
    """Training curves of a network at two scales of its output, and those that the kernel of its start predicts.

    Training loss against steps, logarithmic, one network at each of two scales of its output. The dots of the network whose
    outputs are multiplied by 100 lie on the predicted line; those of the other leave it downwards as its kernel grows.
    """
    columns: dict[str, Any] = {}
    chosen = [row for row in rows if not row.arm and row.k == 0]
    for place, row in enumerate(sorted(chosen, key=lambda r: -r.point["scale"])):
        name = f"outputs × {row.point['scale']:g}"
        columns["step"] = row.values["step"]
        columns[f"{name}: network"], columns[f"{name}: kernel"] = row.values["loss"], row.values["predicted loss"]
        ax.semilogy(columns["step"], columns[f"{name}: network"], "o", color=f"C{place}", markersize=4, label=name)
        ax.semilogy(columns["step"], columns[f"{name}: kernel"], color=f"C{place}", linewidth=1)
    ax.set(xlabel="steps", ylabel="training loss (lines: predicted)")
    ax.legend()
    return columns


def draw_outputs(ax: Any, rows: Rows) -> Columns:
    """Held-out outputs of trained networks against what the kernel of their start predicts for them.

    One dot an image, at two scales of the output. Those of the large scale lie on the diagonal, those of the small scale spread
    around it by a few tenths.
    """
    columns: dict[str, Any] = {}
    chosen = [row for row in rows if not row.arm and row.k == 0]
    for place, row in enumerate(sorted(chosen, key=lambda r: -r.point["scale"])):
        name = f"outputs × {row.point['scale']:g}"
        columns[f"{name}: kernel"], columns[f"{name}: network"] = row.values["predicted"], row.values["output"]
        ax.plot(
            columns[f"{name}: kernel"],
            columns[f"{name}: network"],
            ".",
            color=f"C{place}",
            label=name,
            zorder=2 - place,
        )
    ax.axline((0, 0), slope=1, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="predicted output", ylabel="output of the network")
    ax.legend()
    return columns


@claim(
    source=("lee2019wide", "chizat2019lazy", "fort2020deep"),
    predicts=AtMost(0.1),
    quick=Grid(scale=[0.1, 100.0], images=[120], width=[128], steps=[300], seeds=3),
    full=Grid(scale=[0.1, 100.0], images=[400], width=[128], steps=[300], seeds=10),
    controls={
        "the kernel of this network: of another draw": dict(another=True),
        "the kernel of all parameters: of the read-out alone": dict(params="net.layers.1.*"),
    },
    expects="DEPENDS",
    switch="scale",
    figures=(draw_training, draw_outputs),
)
def ntk_explains_training(
    scale: float, images: int, width: int, steps: int, seed: int, another: bool = False, params: str = "*"
) -> dict[str, Any]:
    r"""The kernel at the start explains what training makes of a network.

    Contested. Wide networks are said to train like kernel machines with the kernel of their start @lee2019wide; networks as they are
    used learn a kernel that fits the data far better @fort2020deep. The switch is the scale $alpha$ of
    $alpha (f(x) - f_0(x))$: as $alpha -> oo$ any model is lazy, whatever its width, and as $alpha -> 0$ it has to move far @chizat2019lazy. A perceptron
    learns to tell even from odd handwritten digits, by gradient descent at rates $prop alpha^(-2)$ on squared error, for the same time at
    each scale. The value is the distance of its outputs on 500 other images from those of the linearised model after the same
    steps, relative to these; the statement is that it is at most a tenth. Test errors of both are recorded.

    Controls: the kernel of another draw of the weights; the kernel of the read-out alone, which takes the hidden layer for fixed.
    """
    draws = torch.Generator().manual_seed(seed)
    net, other = (
        Scaled(MLP([64, width, 1], activation="tanh", init="lecun", generator=draws), scale) for _ in range(2)
    )
    x, y, held, truth = parity(images, draws)
    with torch.no_grad():  # a network that starts at f_0 and learns f_0 + y does what α (f − f_0) does for y
        start, target = net(held), net(x) + y
        model = other if another else net
        begin, goal = model(held), model(x) + y
    own = la.LinearisedTraining(net, squared_error, (x, target))
    rate = 0.2 / (float(own.curvature or 1.0) * float(own.eigenvalues[0]))
    at = np.unique(np.linspace(0, steps, 41).astype(int)).tolist()
    curve = la.LinearisedTraining(model, squared_error, (x, goal), held, params=params).descent(at, rate)
    losses = train(
        [net], squared_error, lambda k: (x[None], target[None]), steps + 1, partial(torch.optim.SGD, lr=rate)
    )
    with torch.no_grad():
        output = (net(held) - start).cpu()
    predicted = (curve.held_out - begin.cpu())[-1]
    return {
        "value": float((output - predicted).norm() / predicted.norm()),
        "error": float((output * truth.cpu() <= 0).double().mean()),
        "predicted error": float((predicted * truth.cpu() <= 0).double().mean()),
        "step": np.array(at),
        "loss": losses[at, 0].cpu().numpy(),
        "predicted loss": curve.losses.numpy(),
        "output": output[:150, 0].numpy(),
        "predicted": predicted[:150, 0].numpy(),
    }


if __name__ == "__main__":
    script(__file__)
