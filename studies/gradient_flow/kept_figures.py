"""The figures of the study of families: what of the gradient is kept, by layer and by lag, and the factors with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, sqrt
from typing import Any

import numpy as np
from scipy.stats import t as student

from lemmata.studies.gradient_flow.depth_and_lag import halves

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
COLOURS = (*(f"C{place}" for place in range(7)), "0.55")


def _by_family(rows: Rows, arm: str = "") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        if row.arm == arm and not row.error:
            found.setdefault(row.point["family"], []).append(row)
    return found


def _draw_curves(ax: Any, groups: Mapping[str, Rows], place: str) -> Columns:
    """Dots, means over networks, and the theory as a line for each family; later dots are smaller, lest they hide others."""
    columns: dict[str, list[Any]] = {"family": [], place: [], "kept": [], "theory": []}
    for colour, (family, own) in zip(COLOURS, groups.items(), strict=False):
        places, theory = own[0].values["places"], np.exp(own[0].values["theory curve"])
        kept = np.exp(np.mean([row.values["curve"] for row in own], 0))
        size = 4.5 - 2.5 * COLOURS.index(colour) / len(COLOURS)
        ax.semilogy(places, kept, "o", color=colour, markersize=size, label=family)
        ax.semilogy(places, theory, color=colour, linewidth=1)
        for column, cells in zip(columns.values(), ([family] * len(kept), places, kept, theory), strict=True):
            column.extend(cells)
    ax.set(xlabel=place, ylabel="squared gradient kept")
    ax.legend(fontsize="small", ncols=2)
    return columns


def _draw_rates(ax: Any, rows: Rows, unit: str) -> Columns:
    """The factor of each family with its 95 % interval, the theory as a bar, and the half-life in words."""
    names = ("family", "factor", "low", "high", "theory", f"halves in ({unit})", "at least", "at most")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for place, (colour, (family, own)) in enumerate(zip(COLOURS, _by_family(rows).items(), strict=False)):
        rates = np.array([row.values["rate"] for row in own])
        half = student.ppf(0.975, len(rates) - 1) * rates.std(ddof=1) / sqrt(len(rates))
        mean, low, high, theory = rates.mean(), rates.mean() - half, rates.mean() + half, own[0].values["theory"]
        ends = [[exp(mean) - exp(low)], [exp(high) - exp(mean)]]
        ax.errorbar([exp(mean)], [-place], xerr=ends, fmt="o", color=colour, markersize=5, capsize=3)
        ax.plot([exp(theory)], [-place], "|", color="0.2", markersize=16)
        said = (
            f"{'halves' if mean < 0 else 'doubles'} in {halves(-abs(mean)):.2g} {unit}" if low * high > 0 else "keeps"
        )
        ax.annotate(said, (1.01, -place), xycoords=("axes fraction", "data"), va="center", fontsize="small")
        cells = (family, exp(mean), exp(low), exp(high), exp(theory), halves(mean), halves(low), halves(high))
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    ax.axvline(1, color="0.6", linewidth=1)
    ax.set_yticks([-place for place in range(len(columns["family"]))], columns["family"])
    ax.set(xlabel=f"squared gradient, factor per {unit.removesuffix('s')}", xscale="log")
    low, high = ax.get_xlim()
    ticks = [tick for tick in (0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4) if low < tick < high]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    return columns


def draw_depth(ax: Any, rows: Rows) -> Columns:
    """How much of the gradient arrives, by layer, in eight deep networks that see digits; lines are theory.

    Squared gradient at a layer's output over that at the last layer, on a logarithmic axis, against the layers between.
    Chaotic tanh networks and He's ResNet rise along straight lines; critical ones, He's ReLU and the ResNet with default
    weights stay level; the ordered tanh network falls, and ReLU networks with default weights leave the picture at once.
    """
    columns = _draw_curves(ax, _by_family(rows), "layers before the last")
    ax.set(ylim=(1e-9, 1e5))
    return columns


def draw_depth_rates(ax: Any, rows: Rows) -> Columns:
    """By what factor a layer multiplies the squared gradient on its way back: measured, and predicted (bars).

    A dot for each of eight families on a logarithmic axis with a line at one. Each lies on the bar of its prediction.
    """
    return _draw_rates(ax, rows, "layers")


def draw_lag(ax: Any, rows: Rows) -> Columns:
    """How much of the gradient comes back, by lag, from the last character that networks predict; lines are theory.

    Squared gradient by the vector of a character against how many steps it lies back, on a logarithmic axis, over that at
    lag three. The transformer stays level; an LSTM of forget bias two does, too; all others but the chaotic RNN fall along
    straight lines, the GRU and the LSTM of forget bias zero fastest, as one.
    """
    columns = _draw_curves(ax, _by_family(rows), "steps back")
    ax.set(ylim=(1e-14, 1e3))
    return columns


def draw_lag_rates(ax: Any, rows: Rows) -> Columns:
    """By what factor a step multiplies the squared gradient on its way back: measured, and predicted (bars).

    A dot for each of eight families on a logarithmic axis with a line at one. Each lies on the bar of its prediction.
    """
    return _draw_rates(ax, rows, "steps")


def draw_reach(ax: Any, rows: Rows) -> Columns:
    """How deep tanh networks can be and still learn digits: about six depth scales (line).

    Both axes logarithmic: the depth at which half of the digits are learned in fifty steps, against the depth scale of
    the weights. Dots rise along the line of slope one; crosses, critical networks, stay at the upper edge.
    """
    columns: dict[str, list[Any]] = {"scale": sorted({row.point["scale"] for row in rows})}
    ax.loglog(columns["scale"], [6 * scale for scale in columns["scale"]], color="0.4", label="6 ξ")
    for arm, mark, label in (("", "o", "ordered"), ("order: critical weights", "x", "critical")):
        own = [row for row in rows if row.arm == arm and not row.error]
        ax.loglog(
            [row.point["scale"] for row in own], [row.values["value"] for row in own], mark, alpha=0.6, label=label
        )
        columns[label] = [
            np.mean([row.values["value"] for row in own if row.point["scale"] == scale]) for scale in columns["scale"]
        ]
    ticks = list(columns["scale"])
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([6, 10, 16, 24], ["6", "10", "16", "24"])
    ax.minorticks_off()
    ax.set(xlabel="depth scale ξ of the weights", ylabel="layers that still learn")
    ax.legend()
    return columns


def draw_trained(ax: Any, rows: Rows) -> Columns:
    """After a short training (dots; lines: before) the transformer's gradient stays level, and none of the others does.

    Squared gradient against steps back, on a logarithmic axis, over that at lag three, for four families. Dots of the RNN and the LSTM fall faster than their lines, those of the GRU slower; the
    transformer's stay at one.
    """
    columns: dict[str, list[Any]] = {}
    arms = dict.fromkeys(row.arm for row in rows)
    for colour, arm in enumerate(arms):
        label = arm.removeprefix("attention: ") or "transformer"
        for steps in sorted({row.point["steps"] for row in rows}):
            own = [
                row.values["curve"] for row in rows if (row.arm, row.point["steps"]) == (arm, steps) and not row.error
            ]
            columns[f"{label}, {steps} steps"] = list(np.exp(np.mean(own, 0)))
            style = dict(marker="o", markersize=3, linestyle="", label=label) if steps else dict(linewidth=1)
            ax.semilogy(columns[f"{label}, {steps} steps"], color=f"C{colour}", **style)
    ax.set(xlabel="steps back", ylabel="squared gradient kept", ylim=(1e-12, 1e3))
    ax.legend(fontsize="small")
    return {"steps back": list(range(len(next(iter(columns.values()))))), **columns}
