"""Figures of shifts by fractions of a pixel and of Lie derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def draw_fractions(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Relative error against the shift: convolution alone stays at rounding, with a rectifier only whole pixels do.

    Logarithmic vertical axis, shifts from zero to three pixels. The convolution's curve is flat near the bottom; the curve
    with a rectifier is near one half in between and falls to rounding at 0, 1, 2 and 3; zero padding is high everywhere.
    """
    columns: dict[str, Sequence[float]] = {}
    for row in rows:
        if row.point == rows[0].point and row.k == 0:
            label = row.arm.partition(": ")[2] or "circular convolution"
            columns["shift"] = list(row.values["shifts"])
            columns[label] = [max(value, 1e-17) for value in row.values["by shift"]]
            ax.semilogy(columns["shift"], columns[label], marker=".", label=label)
    ax.set(xlabel="shift in pixels", ylabel="relative error")
    ax.legend(fontsize="small")
    return columns


def draw_oversampling(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Error of a shift by half a pixel against the oversampling: a rectifier's falls with the square of the factor.

    Doubly logarithmic axes. Dots of the rectifier lie on a line of slope minus two; without the low-pass filter the error
    stays; the smooth activation's falls much faster.
    """
    columns: dict[str, Any] = {"oversampling": sorted({row.point["oversampling"] for row in rows})}
    for arm in dict.fromkeys(row.arm for row in rows):
        label = arm.partition(": ")[2] or "relu"
        columns[label] = [
            float(np.mean([r.values["value"] for r in rows if (r.arm, r.point["oversampling"]) == (arm, m)]))
            for m in columns["oversampling"]
        ]
        ax.loglog(columns["oversampling"], np.maximum(columns[label], 1e-16), marker="o", label=label)
    first = columns["relu"][0] * columns["oversampling"][0] ** 2
    columns["slope −2"] = [first / m**2 for m in columns["oversampling"]]
    ax.loglog(columns["oversampling"], columns["slope −2"], color="0.6", linestyle="--", label="slope −2", zorder=0)
    ax.set(xlabel="oversampling", ylabel="relative error", xticks=columns["oversampling"])
    ax.set_xticklabels([f"{m}" for m in columns["oversampling"]])
    ax.minorticks_off()
    ax.legend(fontsize="small")
    return columns


def draw_layers(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Relative Lie derivative along horizontal translation of one network, and of the same with one thing changed.

    Horizontal bars on a logarithmic axis. The linear network on the torus is at rounding, thirteen orders of magnitude below
    the others: rectifier, zero padding, stride, and the linear network along rotations.
    """
    labels = list(dict.fromkeys(row.arm for row in rows))
    values = [float(np.mean([row.values["value"] for row in rows if row.arm == arm])) for arm in labels]
    names = [arm.partition(": ")[2] or "linear, on the torus" for arm in labels]
    ax.barh(names, np.maximum(values, 1e-17), left=1e-17, color=["C0"] + ["C3"] * (len(names) - 1))
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="relative Lie derivative", xlim=(1e-17, 1e2))
    return {"network": names, "relative Lie derivative": values}
