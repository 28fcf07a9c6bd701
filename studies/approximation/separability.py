r"""What one hyperplane cannot do, and two rectifiers can.

The corners of a cube, labelled by the parity of their coordinates, are the oldest certificate of impossibility in the field
@minsky1969perceptrons: no affine function has the sign of the label everywhere. How near one can come is known exactly, for
the share of corners that are right @aspnes1994expressive and for the logistic loss @albert1984existence. That training
fails proves nothing; here half-spaces are enumerated, a linear program gives weights under which both classes have one mean,
and the loss is bounded from below by duality. Then networks are trained, with a hidden layer and without.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.approximation.pictures import as_seen
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
CEILING = "1/2 + comb(d - 1, (d - 1)//2)/2**d"
HIDDEN = "affine functions: a hidden layer of rectifiers"
CONJUNCTION = "parity: the conjunction"
WIDTH, NETWORKS, RATE = 16, 16, 0.05


def corners(d: int, labels: str) -> tuple[Tensor, Tensor]:
    """The corners of the unit cube, (2^d, d), and their labels 0 and 1: parity, or the conjunction."""
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=d)), dtype=torch.get_default_dtype())
    return x, (x.sum(1) % 2 if labels == "parity" else x.prod(1))


def counter(d: int) -> MLP:
    """One hidden layer with the parity of d bits: relu(s) − 2 relu(s − 1) + 2 relu(s − 2) − … of their sum s."""
    net = MLP([d, d, 1], activation="relu")
    slopes = torch.tensor([[(2.0 if k else 1.0) * (-1) ** k for k in range(d)]])
    values = torch.ones(d, d), -torch.arange(d), slopes, torch.zeros(1)
    net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
    return net


@claim(
    source=("minsky1969perceptrons", "aspnes1994expressive"),
    predicts=Equals(CEILING, within=0, of="each"),
    quick=Grid(d=[2, 3, 4], seeds=1),
    full=Grid(d=[2, 3, 4], seeds=1),
    controls={CONJUNCTION: dict(labels="conjunction"), HIDDEN: dict(hidden=True)},
)
def hyperplane_xor(d: int, seed: int, labels: str = "parity", hidden: bool = False) -> dict[str, Any]:
    r"""No hyperplane has more than three quarters of the exclusive or right.

    Label $x in {0, 1}^d$ by the parity of $sum_i x_i$. Both classes have the mean $(1\/2, dots, 1\/2)$, so that an affine
    function has the same mean over either and cannot be positive on one and negative on the other
    @minsky1969perceptrons. The largest share of corners that the sign of an affine function has right is
    $ 1/2 + 2^(-d) binom(d - 1, floor((d - 1)\/2)), $
    that is $3\/4$ for $d = 2$, and is attained between two layers in the middle of the cube @aspnes1994expressive. The value
    is that share from an enumeration of all half-spaces in exact arithmetic. Beside it the weights of a Farkas certificate are
    recorded, under which both classes have one mean, with their exact residual, zero. Controls: the conjunction of
    the bits, which one hyperplane cuts off; and the same corners behind one hidden layer of $d$ rectifiers.
    """
    x, y = corners(d, labels)
    with torch.no_grad():
        points = counter(d).preactivations(x)[0].relu() if hidden else x
    found = la.separability(points, y)
    witness = {"witness": found.witness, "residual": found.residual, "floor": found.cross_entropy[0]}
    return {"value": found.accuracy[1], "least": found.accuracy[0], **witness, "proved": found.converged}


def trained(d: int, steps: int, seed: int, labels: str, hidden: bool) -> tuple[list[MLP], Tensor]:
    """Networks trained on all corners side by side, and their logistic losses before each step, (steps, networks)."""
    x, y = corners(d, labels)
    draws = torch.Generator().manual_seed(seed)
    nets = [MLP([d, WIDTH, 1] if hidden else [d, 1], activation="relu", generator=draws) for _ in range(NETWORKS)]
    batch = x.expand(NETWORKS, -1, -1), (2 * y - 1).expand(NETWORKS, -1)

    def loss(output: Tensor, sign: Tensor) -> Tensor:
        return softplus(-sign * output[:, 0]).mean()

    return nets, train(nets, loss, lambda step: batch, steps, partial(torch.optim.Adam, lr=RATE))


def draw_corners(ax: Any, rows: Rows) -> Columns:
    """No line has more than three corners of the square right; two rectifiers bend the plane.

    The four corners of the unit square, two opposite ones dark and two light. A dashed line has one corner on its wrong
    side. Shading and two solid lines show the network of two rectifiers, which is above one half in a band along the
    diagonal through the light corners and below on either side of it.
    """
    row = next(row for row in rows if not row.arm and row.point["d"] == 2)
    ticks = np.linspace(-0.3, 1.3, 161)
    grid = torch.tensor([[a, b] for b in ticks for a in ticks], dtype=torch.float64)
    with torch.no_grad():
        heights = counter(2).double()(grid).reshape(len(ticks), -1).numpy()
    ax.contourf(ticks, ticks, heights, levels=np.linspace(-2, 1, 13), cmap="Greys_r", alpha=0.5)
    ax.contour(ticks, ticks, heights, levels=[0.5], colors="C1")
    normal, offset = row.values["normal"], row.values["offset"]
    along, foot = np.array([-normal[1], normal[0]]), -offset * normal / (normal @ normal)
    ax.plot(
        *(foot + np.outer([-4, 4], along / np.linalg.norm(along))).T, "--", color="C0", label="a best line: three right"
    )
    x, labels = corners(2, "parity")
    for label, mark, colour in ((0, "o", "black"), (1, "s", "white")):
        chosen = x[labels == label]
        ax.plot(
            *chosen.T, mark, color=colour, markeredgecolor="black", markersize=10, linestyle="", label=f"parity {label}"
        )
    ax.plot([], [], color="C1", label="two rectifiers = 1/2")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-0.3, 1.3), ylim=(-0.3, 1.3), aspect="equal")
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return {"x_1": x[:, 0].tolist(), "x_2": x[:, 1].tolist(), "parity": labels.tolist()}


@claim(
    source=("minsky1969perceptrons", "aspnes1994expressive"),
    predicts=AtMost(CEILING),
    quick=Grid(d=[2, 3, 4], steps=[100], seeds=2),
    full=Grid(d=[2, 3, 4, 6], steps=[1000], seeds=10),
    controls={CONJUNCTION: dict(labels="conjunction"), HIDDEN: dict(hidden=True)},
    figures=(draw_corners,),
)
def hyperplane_xor_training(
    d: int, steps: int, seed: int, labels: str = "parity", hidden: bool = False
) -> dict[str, Any]:
    r"""No affine function that is drawn or trained crosses the ceiling.

    The value is the largest share of corners of ${0, 1}^d$ whose parity is the sign of an affine function, over 5000 with
    random weights and thresholds and 16 trained by Adam @kingma2015adam on the logistic loss. It is at most
    $1\/2 + 2^(-d) binom(d - 1, floor((d - 1)\/2))$ @aspnes1994expressive. In the plane the ceiling is attained at once; with
    the dimension the half-spaces that attain it become rare. The controls are trained the same way.
    """
    x, y = corners(d, labels)
    nets, _ = trained(d, steps, seed, labels, hidden)
    with torch.no_grad():
        logits = torch.stack([net(x)[:, 0] for net in nets], 1)
        draws = torch.Generator().manual_seed(seed)
        weights = gaussian(draws, d + 1, 5000)
        weights[d] -= weights[:d].sum(0) / 2  # about the centre of the cube
        drawn = x @ weights[:d] + weights[d]
        right = ((torch.cat([logits, drawn], 1) > 0) == y.bool()[:, None]).to(x).mean(0)
    best = int(right[NETWORKS:].argmax())
    line = {"normal": weights[:d, best], "offset": weights[d, best]}
    return {"value": right.max(), "trained": right[:NETWORKS].max(), **line}


def draw_floor(ax: Any, rows: Rows) -> Columns:
    """Affine logits cannot get below ln 2 on the exclusive or; a hidden layer learns it.

    Logistic loss against the step of training, sixteen networks in each of two groups. The affine ones fall quickly to a
    dashed line at 0.693 and stay on it. Those with a hidden layer go on down by several powers of ten.
    """
    columns: dict[str, Any] = {}
    for arm, colour, label in (("", "C0", "affine"), (HIDDEN, "C1", "hidden layer")):
        losses = next(r for r in rows if r.arm == arm and r.k == 0 and r.point["d"] == 2).values["losses"]
        columns["step"] = np.arange(len(losses))[::4]
        for k, curve in enumerate(losses[::4].T):
            columns[f"{label} {k + 1}"] = as_seen(curve)
            ax.semilogy(columns["step"], curve, color=colour, linewidth=0.8, label=None if k else label)
    ax.axhline(np.log(2), color="0.3", linestyle="--", linewidth=1, label="ln 2")
    ax.set(xlabel="step", ylabel="logistic loss (nats)")
    ax.legend()
    return columns


@claim(
    source=("minsky1969perceptrons", "albert1984existence"),
    predicts=Equals("log(2)", within=1e-9, of="each"),
    quick=Grid(d=[2, 4], steps=[500], seeds=2),
    full=Grid(d=[2, 3, 4, 6], steps=[2000], seeds=10),
    controls={CONJUNCTION: dict(labels="conjunction"), HIDDEN: dict(hidden=True)},
    figures=(draw_floor,),
)
def hyperplane_xor_logistic(
    d: int, steps: int, seed: int, labels: str = "parity", hidden: bool = False
) -> dict[str, Any]:
    r"""On the exclusive or the logistic loss of affine logits has the floor of a coin, and reaches it.

    For affine $f$ and parities $y in {-1, 1}$ both classes have one mean of $f$, so that $sum_i y_i f (x_i) = 0$, and by
    convexity
    $ 1/2^d sum_i ln (1 + e^(-y_i f (x_i))) >= ln (1 + e^0) = ln 2, $
    with equality for $f = 0$ alone. Duality gives the same: one half at every corner is a solution of
    $sum_i alpha_i y_i (x_i, 1) = 0$, and the loss is at least the mean entropy of $alpha$ @albert1984existence. The value is
    the least loss of 16 networks over training by Adam, which cannot be below and comes to within $10^(-9)$. The controls go
    to zero, as any separable problem does.
    """
    _, losses = trained(d, steps, seed, labels, hidden)
    return {"value": losses.min(), "losses": losses}


@claim(
    source="minsky1969perceptrons",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(d=[2, 3, 4, 8], seeds=1),
    full=Grid(d=[2, 3, 4, 8, 12], seeds=1),
    controls={"rectifiers: the identity": dict(activation="identity"), "d rectifiers: one less": dict(less=1)},
)
def hyperplane_xor_rectifiers(d: int, seed: int, activation: str = "relu", less: int = 0) -> Any:
    r"""Two rectifiers are the exclusive or, d of them the parity of d bits.

    On ${0, 1}^d$ with $s = sum_i x_i$ the parity of $s$ is
    $ "relu"(s) - 2 "relu"(s - 1) + 2 "relu"(s - 2) - dots.c plus.minus 2 "relu"(s - d + 1), $
    whose slope turns at every whole number. For $d = 2$ it equals
    $abs(x_1 - x_2) = "relu"(x_1 - x_2) + "relu"(x_2 - x_1)$ at the corners, as few units as can be: with one the network
    is monotone along every direction. The value is the largest error at the corners, zero to the last bit.
    """
    net = counter(d)
    if activation == "identity":
        net.activation = torch.nn.Identity()
    x, y = corners(d, "parity")
    with torch.no_grad():
        list(net.parameters())[2][:, d - less :] = 0
        return (net(x)[:, 0] - y).abs().max()


if __name__ == "__main__":
    script(__file__)
