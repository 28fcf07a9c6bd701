"""Figures of the study of infinitely wide networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch

from lemmata.analysis import infinite_width as iw

from .wide_networks import ANGLES, READOUTS, RELU, shifts

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
POOLED = "a read-out of every position by itself: the mean over positions"


def draw_convergence(ax: Any, rows: Rows) -> Columns:
    """The kernels of random networks approach their limits like one over the root of the width, whatever the layers.

    Root mean square of the relative distance against the width, both axes logarithmic, one line of dots for each kind of
    network. All lines fall in parallel to a dashed line of slope one half.
    """
    chosen = [row for row in rows if not row.arm]
    columns: dict[str, Any] = {"width": sorted({row.point["width"] for row in chosen})}
    for name in dict.fromkeys(row.point["name"] for row in chosen):
        found = [
            [r.values["value"] for r in chosen if (r.point["name"], r.point["width"]) == (name, w)]
            for w in columns["width"]
        ]
        columns[name] = [sqrt(np.mean(one)) for one in found]
        ax.loglog(columns["width"], columns[name], "o-", markersize=4, linewidth=1, label=name)
    start = 0.8 * min(values[0] for key, values in columns.items() if key != "width")
    guide = start * np.sqrt(columns["width"][0] / np.array(columns["width"]))
    ax.loglog(columns["width"], guide, "k--", linewidth=1, label="slope −1/2")
    ax.set(xlabel="width", ylabel="relative distance from the limit")
    ax.set_xticks(columns["width"], [str(w) for w in columns["width"]])
    low, high = ax.get_ylim()
    shares = [share for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0) if low < share < high]
    ax.set_yticks(shares, [f"{share:g}" for share in shares])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return columns


def draw_angles(ax: Any, rows: Rows) -> Columns:
    """The tangent kernel of ReLU networks against the angle between inputs: depth makes it a peak on a plateau.

    Kernel over its value at equal inputs, against the angle from zero to π, for several numbers of hidden layers. Curves
    start at one; the deeper the network, the faster they fall, to a level near a quarter; that of one hidden layer crosses zero. Dots, measured in networks of
    two hidden layers, lie on their curve.
    """
    angles = np.linspace(0, np.pi, 121)
    x = torch.from_numpy(sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], 1))
    columns: dict[str, Any] = {"angle": angles}
    for depth in (1, 2, 4, 16, 64):
        kernel = iw.Serial(*[iw.Dense(2.0), RELU] * depth, iw.Dense(1.0))(x[:1], x).ntk[0].numpy()
        columns[f"{depth} hidden"] = kernel / kernel[0]
        ax.plot(
            angles,
            columns[f"{depth} hidden"],
            linewidth=1,
            label=f"{depth} hidden " + ("layers" if depth > 1 else "layer"),
        )
    chosen = [row for row in rows if not row.arm and row.point["name"] == "dense"]
    widest = max(row.point["width"] for row in chosen)
    found = np.mean([row.values["row"] for row in chosen if row.point["width"] == widest], 0)
    ax.plot(ANGLES * np.pi, found / found[0], "o", color="C1", label=f"measured, width {widest}")
    columns["measured at"] = [*(ANGLES * np.pi), *[np.nan] * (len(angles) - len(ANGLES))]
    columns["measured"] = [*(found / found[0]), *[np.nan] * (len(angles) - len(ANGLES))]
    ax.set(xlabel="angle between the inputs", ylabel="tangent kernel / at angle 0")
    ax.axhline(0, color="0.3", linewidth=0.5)
    ax.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
    ax.legend(fontsize=8)
    return columns


def draw_shifts(ax: Any, rows: Rows) -> Columns:
    """What a convolutional network's covariance sees of a shift, by read-out, with shared weights and without.

    Covariance of a sequence and itself shifted, over that without a shift, against the shift around the circle. Read out
    by flattening it falls at once and both kinds of network are alike; pooled it stays one with shared weights, and falls without.
    """
    columns: dict[str, Any] = {}
    for readout, arm in (("flatten", ""), ("pool", POOLED)):
        for shared in (True, False):
            chosen = [r for r in rows if r.arm == arm and r.point["shared"] == shared]
            row = np.mean([r.values["row"] for r in chosen], 0)
            columns.setdefault("shift", np.arange(len(row)))
            label = f"{readout}, " + ("shared" if shared else "a matrix for each position")
            columns[label] = row / row[0]
            marker, colour = ("o", "s")[not shared], ("C0", "C1")[readout == "pool"]
            ax.plot(
                columns["shift"],
                columns[label],
                marker,
                color=colour,
                fillstyle="full" if shared else "none",
                label=label,
                markersize=5 + 4 * (not shared),
            )
        x = shifts()
        exact = iw.Serial(READOUTS[readout], iw.Dense(1.0))(x).nngp[0].cpu().numpy()
        columns[f"{readout}, limit with shared weights"] = exact / exact[0]
        ax.plot(columns["shift"], exact / exact[0], color="C1" if readout == "pool" else "C0", linewidth=1)
    ax.set(xlabel="shift", ylabel="covariance / without a shift", ylim=(0, 1.1))
    ax.set_xticks(columns["shift"])
    ax.legend(fontsize=8, loc="lower center")
    return columns
