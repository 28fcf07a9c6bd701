"""The figures of the study of narrow networks: what fits, the floor, the cone by directions, its rate, a zigzag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi
from typing import Any

import numpy as np
import torch

from lemmata.analysis import constructions
from lemmata.studies.approximation.pictures import as_seen

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

WIDER = "width d: one neuron more"
RANDOM = "equally spaced directions: random ones"


def draw_line(ax: Any, rows: Rows) -> Columns:
    """One neuron a layer is monotone and cannot follow the absolute value; two neurons are the absolute value.

    Value against x between minus one and one. Grey, the V of the absolute value. The best trained network with one neuron a
    layer is level or falls only or rises only; the best one with two lies on the V.
    """
    columns: dict[str, Any] = {}
    for arm, label in (("", "width 1"), (WIDER, "width 2")):
        row = min((r for r in rows if r.arm == arm), key=lambda r: r.values["value"])
        columns["x"], columns[label] = row.values["x"], row.values["f"]
        ax.plot(columns["x"], columns[label], label=f"best of {label}")
    columns["|x|"] = np.abs(columns["x"])
    ax.plot(columns["x"], columns["|x|"], color="0.7", linewidth=4, zorder=0, label="|x|")
    ax.set(xlabel="x", ylabel="f(x)")
    ax.legend()
    return columns


def draw_floor(ax: Any, rows: Rows) -> Columns:
    """No network of width two comes below one half; of width three about every other one does.

    Largest error on the disc of every trained network, sorted. The curves of width two begin on a dotted line at one
    half and rise; those of width three begin below one tenth, and cross the line where neurons have died in training.
    """
    columns: dict[str, Any] = {}
    for arm, width, style in (("", 2, "-"), (WIDER, 3, "--")):
        for color, depth in enumerate(sorted({row.point["depth"] for row in rows})):
            chosen = [row.values["errors"] for row in rows if row.arm == arm and row.point["depth"] == depth]
            errors = np.sort(np.concatenate(chosen))
            columns["network"] = np.arange(1, len(errors) + 1)
            columns[f"width {width}, {depth} layers"] = errors
            ax.plot(columns["network"], errors, style, color=f"C{color}", label=f"width {width}, {depth} layers")
    ax.axhline(0.5, color="0.2", linestyle=":", linewidth=1.5, label="floor of width 2")
    ax.set(xlabel="network, from the best", ylabel="largest error on the disc", ylim=(0, 1.1))
    ax.legend(fontsize="small")
    return columns


def draw_cone(ax: Any, rows: Rows) -> Columns:
    """The network of width three: a pyramid that closes its level sets, here with twelve sides.

    Level sets of the explicit network over the square around the unit disc: nested regular polygons with twelve corners,
    the outermost close to the dashed unit circle.
    """
    side = np.linspace(-1.0, 1.0, 51)
    x, y = (part.ravel() for part in np.meshgrid(side, side))
    net = constructions.narrow_cone(12).network.cpu()
    with torch.no_grad():
        height = net(torch.tensor(np.column_stack([x, y]), device="cpu"))[:, 0].numpy()
    shown = ax.tricontourf(x, y, height, levels=np.linspace(-0.4, 1.0, 15))
    ax.tricontour(x, y, height, levels=np.linspace(0.0, 0.8, 5), colors="k", linewidths=0.6)
    turn = np.linspace(0, 2 * pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), "k--", linewidth=1)
    ax.figure.colorbar(shown, ax=ax, label="f(x)")
    ax.set(aspect="equal", xlabel="x₁", ylabel="x₂")
    return {"x1": as_seen(x), "x2": as_seen(y), "f": as_seen(height)}


def draw_rate(ax: Any, rows: Rows) -> Columns:
    """One layer for each direction: the error of width three falls with the square of the depth.

    Largest error against the number of directions, both logarithmic. Dots on the curve of one minus the cosine, well below
    the dashed floor of width two at one half; those of random directions lie above.
    """
    columns: dict[str, Any] = {"K": sorted({row.point["K"] for row in rows})}
    for arm, label in (("", "equally spaced"), (RANDOM, "random")):
        columns[label] = [
            float(np.median([r.values["error"] for r in rows if r.arm == arm and r.point["K"] == K]))
            for K in columns["K"]
        ]
        ax.loglog(columns["K"], columns[label], "o", label=f"{label} directions")
    columns["1 − cos(π/K)"] = [1 - cos(pi / K) for K in columns["K"]]
    ax.loglog(columns["K"], columns["1 − cos(π/K)"], color="C0", linewidth=1)
    ax.axhline(0.5, color="0.2", linestyle="--", linewidth=1, label="floor of width 2")
    ax.set(xlabel="directions K", ylabel="largest error on the disc")
    ax.legend()
    return columns


def draw_zigzag(ax: Any, rows: Rows) -> Columns:
    """Width two follows any Lipschitz function on the line by a zigzag.

    A smooth wave on the unit interval and a zigzag through its values at the ends of eight cells, which in each of them
    rises, then falls.
    """
    row = next(row for row in rows if not row.arm and row.point["cells"] == 8 and row.point["target"] == "waves")
    columns = {"x": row.values["x"], "target": row.values["y"], "network": row.values["f"]}
    ax.plot(columns["x"], columns["target"], color="0.7", linewidth=4, label="target")
    ax.plot(columns["x"], columns["network"], linewidth=1, label="15 layers of two neurons")
    ax.set(xlabel="x")
    ax.legend()
    return columns
