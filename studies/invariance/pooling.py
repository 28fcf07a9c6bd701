r"""What pooling makes of equivariant features: invariance if it takes in all positions, and less if it does not.

Circular convolutions with entrywise activations commute with every shift of the torus @cohen2016group
@kondor2018generalization. A symmetric function of all positions then does not notice a shift at all; a dense layer on the
flattened map does, and maxima of windows that move by $s$ keep only the shifts by multiples of $s$ @azulay2019why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import CNN
from lemmata.studies.claim import AtMost, Grid, claim, script

SIDE = 6


class Pooled(nn.Module):
    """The features of a CNN; maxima of windows of s × s positions, or every s-th position (s = 1: all); and a head."""

    weight: Tensor

    def __init__(self, net: CNN, windows: int, every: int, head: str, generator: torch.Generator) -> None:
        super().__init__()
        self.net, self.windows, self.every, self.head = net, windows, every, head
        entries = net.channels[-1] * (SIDE // windows // every) ** 2
        weight = torch.randn(8, entries, generator=generator, device="cpu") / entries**0.5
        self.register_buffer("weight", weight.to(net.readout.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, 8)."""
        map_ = nn.functional.max_pool2d(self.net.features(x), self.windows)[..., :: self.every, :: self.every]
        if self.head == "dense":
            return map_.flatten(1) @ self.weight.T
        positions = map_.flatten(-2)
        if self.head == "max":
            return positions.amax(-1)
        return positions.mean(-1) if self.head == "mean" else positions.square().mean(-1).sqrt()


def shifted_errors(depth: int, seed: int, head: str, windows: int = 1, every: int = 1) -> la.Equivariance:
    """Of a random network on a random image, under all shifts of the torus."""
    draws = torch.Generator().manual_seed(seed)
    net = CNN([4] + [8] * depth, 1, activation="relu", device=torch.get_default_device(), generator=draws)
    x = torch.randn(1, 4, SIDE, SIDE, generator=draws, device="cpu").to(net.readout.weight)
    return la.equivariance(
        Pooled(net, windows, every, head, draws), x, la.actions.translations((SIDE, SIDE)), layers=""
    )


def by_shift(found: la.Equivariance) -> list[list[float]]:
    """The errors as a table, shift down × shift right."""
    table = np.zeros((SIDE, SIDE))
    errors = {name: error for name, error in found.errors}
    for down in range(SIDE):
        for right in range(SIDE):
            table[down, right] = errors[str((down, right))]
    return table.tolist()


def draw_shifts(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Three maps of the relative error over all shifts of a square torus, logarithmic colours from rounding to one.

    With a mean over all positions the whole map has the colour of rounding. With every second position alone the even
    shifts are dark points on a lattice, and the rest is bright. With a dense layer only the
    point of no shift at all is dark.
    """
    columns: dict[str, Sequence[float]] = {
        "down": [i for i in range(SIDE) for _ in range(SIDE)],
        "right": [*range(SIDE)] * SIDE,
    }
    first, tables = rows[0].point, []
    for row in rows:
        if row.point == first and row.k == 0:
            label = row.arm.partition(": ")[2] or f"{first['head']} over all positions"
            table = np.maximum(np.asarray(row.values["by shift"]), 1e-17)
            columns[label] = [float(v) for v in table.ravel()]
            tables.append((label, np.log10(table)))
    for i, (label, table) in enumerate(tables):
        start = i * (SIDE + 1)
        image = ax.imshow(table, extent=(start, start + SIDE, SIDE, 0), vmin=-17, vmax=0, cmap="viridis")
        ax.text(start + SIDE / 2, -0.3, label, ha="center", va="bottom", fontsize="x-small", parse_math=False)
    ax.set(xlim=(0, len(tables) * (SIDE + 1) - 1), ylim=(SIDE, -1), xticks=[], yticks=[])
    ax.set(xlabel="shift to the right, 0 … 5", ylabel="shift down, 0 … 5")
    for side in ax.spines.values():
        side.set_visible(False)
    ax.figure.colorbar(image, ax=ax, orientation="horizontal", shrink=0.6, label="log₁₀ relative error")
    return columns


@claim(
    source=("cohen2016group", "kondor2018generalization"),
    predicts=AtMost("rounding(72*depth)", of="max"),
    quick=Grid(head=["mean", "max", "rms"], depth=[1, 3], seeds=5),
    full=Grid(head=["mean", "max", "rms"], depth=[1, 2, 4, 8], seeds=20),
    controls={
        "pooling takes in all positions: every second alone": dict(every=2),
        "pooling treats all positions alike: a dense layer": dict(dense=True),
    },
    figures=(draw_shifts,),
)
def pooling_invariance(head: str, depth: int, seed: int, every: int = 1, dense: bool = False) -> dict[str, Any]:
    r"""Pooling over all positions makes a circular convolutional network exactly shift-invariant.

    Let $F$ be circular convolutions of stride one with entrywise activations, $F S_t = S_t F$ for every shift $t$ of the
    torus $ZZ_n^2$, and $P$ a function of a map that does not depend on the order of its positions: their mean, maximum, or
    root of the mean square. Then $P(F(S_t x)) = P(F(x))$ for all $n^2$ shifts $t$ @cohen2016group.

    Measured is the largest relative error $norm(P F S_t x - P F x) \/ norm(P F x)$ over all shifts. A $P$ of every
    second row and column alone notices the odd shifts, and a dense layer on the flattened map in its place notices all.
    """
    found = shifted_errors(depth, seed, "dense" if dense else head, every=every)
    return {"value": found.worst, "mean": found.mean.value, "by shift": by_shift(found)}


@claim(
    source=("azulay2019why", "zhang2019making", "scherer2010evaluation"),
    predicts=AtMost("rounding(72*depth)", of="max"),
    quick=Grid(windows=[2, 3], depth=[1, 2], seeds=5),
    full=Grid(windows=[2, 3], depth=[1, 2, 4], seeds=20),
    controls={"shifts by multiples of the window: one pixel more": dict(more=1)},
)
def pooling_invariance_windows(windows: int, depth: int, seed: int, more: int = 0) -> dict[str, Any]:
    r"""Behind maxima of windows, exactly the shifts by multiples of the window are not noticed.

    Let $M_s$ keep the largest entry of each of the $s times s$ windows that tile a map whose sides $s$ divides
    @scherer2010evaluation. Then
    $M_s S_(s j) = S_j M_s$, so that a network of circular convolutions, $M_s$ and a mean over all positions is invariant to
    shifts by multiples of $s$. For others the windows hold other entries, and no such law holds @azulay2019why
    @zhang2019making: "pooling makes a network shift-invariant" is true of a subgroup.

    Measured is the largest relative error over those shifts; the control moves each by one pixel more along the columns.
    """
    found = shifted_errors(depth, seed, "mean", windows)
    table = np.asarray(by_shift(found))
    return {"value": float(np.roll(table, -more, axis=1)[::windows, ::windows].max()), "mean": found.mean.value}


if __name__ == "__main__":
    script(__file__)
