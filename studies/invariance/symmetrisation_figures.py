"""What the study of symmetrisation draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def draw_energies(ax: Any, rows: Rows) -> Columns:
    """The error of a network is that of its average over the group and what is not invariant, end to end.

    Two pairs of bars, for turned digits and for sets. In each pair a single bar stands beside one of two parts piled up; both
    are equally high.
    """
    chosen = {row.point["setting"]: row.values for row in rows if not row.arm and row.k == 0}
    columns: dict[str, Any] = {"setting": list(chosen)}
    for name in ("error", "error of the average", "not invariant"):
        columns[name] = [float(values[name]) / float(values["error"]) for values in chosen.values()]
    place = np.arange(len(chosen))
    ax.bar(place - 0.2, columns["error"], 0.36, color="0.7", label="error of f")
    ax.bar(place + 0.2, columns["error of the average"], 0.36, color="C0", label="error of its average")
    ax.bar(
        place + 0.2,
        columns["not invariant"],
        0.36,
        bottom=columns["error of the average"],
        color="C1",
        label="not invariant",
    )
    ax.set_xticks(place, columns["setting"])
    ax.set(ylabel="share of the squared error", ylim=(0, 1.45))
    ax.legend(fontsize="small", loc="upper center", ncols=3)
    return columns


def draw_gains(ax: Any, rows: Rows) -> Columns:
    """Averaging pays until the part of the target that is not invariant is as large as the noise it removes.

    Gain against the squared size of that part, both in units of the noise. Dots fall along a straight line from one to minus
    one, which crosses zero at one.
    """
    chosen = [row for row in rows if not row.arm and not row.error]
    parts = sorted({row.point["part"] for row in chosen})
    measured = [float(np.mean([row.values["value"] for row in chosen if row.point["part"] == p])) for p in parts]
    ax.axhline(0, color="0.7", linewidth=1)
    ax.plot(parts, [1 - p for p in parts], color="0.6", label="theory")
    ax.plot(parts, measured, "o", label="measured")
    ax.set(xlabel="non-invariant part of the target over the noise", ylabel="gain over the noise")
    ax.legend()
    return {"part": parts, "measured": measured, "theory": [1 - p for p in parts]}


def draw_paths(ax: Any, rows: Rows) -> Columns:
    """How far a network in training is from invariance: not at all with the whole group and a symmetric start.

    Logarithmic vertical axis against the step. The claim's curve stays at rounding; one rises from rounding to order one within
    the first steps, and one begins there and stays.
    """
    first = next(row for row in rows if not row.arm)
    columns: dict[str, Any] = {"step": first.values["steps"]}
    for row in rows:
        if row.point == first.point and row.k == first.k:
            label = row.arm.partition(": ")[2] or "whole group, symmetric start"
            columns[label] = np.maximum(row.values["path"], 1e-17)
            ax.semilogy(columns["step"], columns[label], "o-", markersize=3, label=label)
    ax.set(xlabel="step", ylabel="relative invariance error")
    ax.legend(fontsize="small")
    return columns
