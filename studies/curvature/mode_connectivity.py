r"""Are minima islands?

Networks trained from different starts are different points of a loss landscape. On the straight line between them the loss
is high; along a simple curve it need not be @garipov2018loss @draxler2018essentially. Part of the barrier on the line is only a
matter of names: the units of the two networks are in another order, and putting them in a common one lowers it, the more
the wider the networks are @entezari2022role @ainsworth2023git. All networks here classify handwritten digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lemmata.analysis.curvature import LossPath, bezier_curve, linear_barrier, match_weights
from lemmata.architectures import MLP
from lemmata.studies.claim import AtMost, Grid, claim, script
from lemmata.studies.data import digits
from lemmata.studies.training import train


def pair(width: int, images: int, steps: int, seed: int) -> tuple[MLP, MLP, Tensor, Tensor]:
    """Two networks from different starts, trained side by side on the same images, and these with their labels."""
    draws = torch.Generator().manual_seed(seed)
    x, y = digits(images)
    nets = [MLP([64, width, 10], activation="relu", generator=draws) for _ in range(2)]
    batch = x.expand(2, *x.shape), y.expand(2, *y.shape)
    train(nets, cross_entropy, lambda step: batch, steps, partial(torch.optim.Adam, lr=0.01))
    return nets[0], nets[1], x, y


def recorded(path: LossPath, value: float) -> dict[str, Any]:
    """The value with the losses along the path."""
    return {"value": value, "position": path.positions.numpy(), "loss": path.losses.numpy()}


def draw_paths(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The loss along the curve and along the straight line between two trained networks, one pair.

    Training loss over the position along the path, logarithmic. The line has a high arch in the middle, the curve stays
    near the losses of its ends.
    """
    widest = max(row.point["width"] for row in rows)
    columns: dict[str, Sequence[float]] = {}
    for row in [row for row in rows if row.k == 0 and row.point["width"] == widest]:
        if row.arm == "" or "curve" in row.arm:
            name = "straight line" if row.arm else "trained curve"
            columns["position"] = row.values["position"].tolist()
            columns[name] = row.values["loss"].tolist()
            ax.semilogy(columns["position"], columns[name], ".-", label=name)
    ax.set(xlabel="position along the path", ylabel="training loss")
    ax.legend()
    return columns


@claim(
    source=("garipov2018loss", "draxler2018essentially"),
    predicts=AtMost(0.02),
    quick=Grid(width=[32, 64], images=[300], steps=[300], curve=[400], seeds=2),
    full=Grid(width=[32, 64, 128], images=[1000], steps=[1000], curve=[2000], seeds=10),
    controls={
        "a trained curve: the straight line": dict(straight=True),
        "more units than the task needs: three": dict(units=3),
    },
    figures=(draw_paths,),
)
def mode_connectivity(
    width: int, images: int, steps: int, curve: int, seed: int, straight: bool = False, units: int = 0
) -> dict[str, Any]:
    r"""Independently trained networks are joined by a curve of low loss.

    An observation about wide networks. Two perceptrons are trained from different starts until they fit the digits. A quadratic
    Bézier curve between them gets its one control point by minimising the mean loss along it @garipov2018loss. The value is
    the barrier: the largest excess of the loss on the path over the straight interpolation between the losses of its ends.

    Controls: the straight line has a barrier. With three hidden units, too few for the task, the curve keeps one.
    """
    a, b, x, y = pair(units or width, images, steps, seed)
    if straight:
        path = linear_barrier(a, b, nn.CrossEntropyLoss(), (x, y))
    else:
        path = bezier_curve(a, b, nn.CrossEntropyLoss(), (x, y), steps=curve, seed=seed)
    return recorded(path, path.barrier)


@claim(
    source=("entezari2022role", "ainsworth2023git"),
    predicts=AtMost(0.5),
    quick=Grid(width=[4, 256], images=[300], steps=[100], seeds=3),
    full=Grid(width=[4, 16, 64, 256, 1024], images=[1000], steps=[300], seeds=10),
    controls={"units matched: in random order": dict(matched=False)},
    expects="DEPENDS",
    switch="width",
)
def linear_connectivity_modulo_permutation(
    width: int, images: int, steps: int, seed: int, matched: bool = True
) -> dict[str, Any]:
    r"""After matching their units, networks are connected by a straight line.

    Contested. Permuting hidden units changes the weights and not the function. It is conjectured that, up to such
    permutations, trained networks lie in one linearly connected valley @entezari2022role, and observed that matching the
    weights removes the barrier of wide networks but not of narrow ones @ainsworth2023git. The second of two perceptrons is
    brought into the order of the first by solving a linear assignment problem for the hidden layer. The value is the
    barrier on the straight line to it, divided by the barrier before; the statement is that at most half is left. The
    switch is the width. The control puts the units in a random order instead.
    """
    a, b, x, y = pair(width, images, steps, seed)
    before = linear_barrier(a, b, nn.CrossEntropyLoss(), (x, y))
    matching = match_weights(a, b)
    if not matched:
        draws = torch.Generator().manual_seed(seed)
        orders = {name: torch.randperm(len(order), generator=draws) for name, order in matching.permutations.items()}
        matching = type(matching)(orders, matching.distances, True, seed)
    after = linear_barrier(a, matching.apply(b), nn.CrossEntropyLoss(), (x, y))
    return recorded(after, after.barrier / before.barrier)


if __name__ == "__main__":
    script(__file__)
