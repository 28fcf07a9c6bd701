"""Figures of width against depth: gains at equal parameters, learning rates, and maps over width and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def draw_rates(ax: Any, rows: Rows) -> Columns:
    """Which depth is better on MNIST-1D is a matter of the learning rate, at equal parameters.

    Test accuracy against Adam's learning rate, logarithmic, for one and two hidden layers of together the same number of
    parameters; a dot for each run. At the smallest rate two layers are ahead; the single layer gains with the rate, the two
    layers lose, and the best of the one is above the best of the other.
    """
    columns: dict[str, list[Any]] = {"rate": [], "one layer": [], "two layers": []}
    shown = [row for row in rows if not row.arm and len(row.values["rates"]) > 1]
    for place, name in enumerate(("one layer", "two layers")):
        curves = np.array([row.values[name] for row in shown])
        rates = shown[0].values["rates"]
        for curve in curves:
            ax.semilogx(rates, curve, "o", color=f"C{place}", markersize=4, alpha=0.6)
        width = int(shown[0].values["widths"][place])
        ax.semilogx(rates, curves.mean(0), color=f"C{place}", label=f"{name} of {width} units")
        columns[name] = curves.ravel().tolist()
        columns["rate"] = np.tile(rates, len(curves)).tolist()
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
    ax.set(xlabel="learning rate", ylabel="test accuracy")
    ax.legend()
    return columns


def draw_gains(ax: Any, rows: Rows) -> Columns:
    """What a second hidden layer gains at equal parameters, with rectifiers and without.

    Gain in test accuracy, a dot for each run: filled with rectifiers, hollow without any activation. Only on MNIST-1D, with
    one learning rate for both depths, do the filled dots stand above the dashed line at two points; on digits they are at
    zero, and where each depth has its best rate they are below.
    """
    names = list(dict.fromkeys(row.point["comparison"] for row in rows))
    columns: dict[str, list[Any]] = {"comparison": [], "activation": [], "gain": []}
    for row in rows:
        x = names.index(row.point["comparison"]) + (0.12 if row.arm else -0.12)
        ax.plot([x], [row.values["value"]], "o", color="C0", markerfacecolor="none" if row.arm else "C0")
        cells = (row.point["comparison"], "none" if row.arm else "relu", row.values["value"])
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    ax.axhline(0.02, color="0.3", linestyle="--", linewidth=1)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.plot([], [], "o", color="C0", label="rectifiers")
    ax.plot([], [], "o", color="C0", markerfacecolor="none", label="no activation")
    ax.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    ax.set(ylabel="accuracy of two layers minus one", xlim=(-0.5, len(names) - 0.5))
    ax.legend()
    return columns


def _map(ax: Any, rows: Rows, data: str, name: str, label: str, style: str) -> Columns:
    """A heat map over width and depth of a mean over runs, with its numbers and those of the parameters."""
    shown = [row for row in rows if not row.arm and row.point["data"] == data]
    widths, depths = (sorted({row.point[key] for row in shown}) for key in ("width", "depth"))
    columns: dict[str, list[Any]] = {"width": [], "depth": [], "parameters": [], name: []}
    table = np.empty((len(depths), len(widths)))
    for i, depth in enumerate(depths):
        for j, width in enumerate(widths):
            chosen = [row for row in shown if (row.point["width"], row.point["depth"]) == (width, depth)]
            table[i, j] = np.mean([row.values[name] for row in chosen])
            cells = (width, depth, int(chosen[0].values["parameters"]), table[i, j])
            for column, cell in zip(columns.values(), cells, strict=True):
                column.append(cell)
            ax.text(j, i, f"{table[i, j]:{style}}\n({cells[2]})", ha="center", va="center", fontsize="small")
    ax.imshow(
        table, cmap="Blues", vmin=table.min(), vmax=table.max() + 0.8 * np.ptp(table), origin="lower", aspect="auto"
    )
    counts = np.reshape(columns["parameters"], table.shape)
    if min(counts.shape) > 1:
        ax.contour(np.log(counts), levels=np.log(counts[0, 1:]), colors="C1", linestyles="--", linewidths=1, alpha=0.5)
    ax.grid(visible=False)
    ax.set_xticks(range(len(widths)), [str(width) for width in widths])
    ax.set_yticks(range(len(depths)), [str(depth) for depth in depths])
    ax.set(xlabel="width", ylabel="hidden layers", title=label)
    return columns


def draw_signals(ax: Any, rows: Rows) -> Columns:
    """Test accuracy by width and depth on MNIST-1D; in brackets the parameters, of equal number along dashed lines.

    Heat map at one learning rate, width to the right, depth upwards. Accuracy rises with the width in every row, and much
    less with the depth.
    """
    return _map(ax, rows, "MNIST-1D", "accuracy", "test accuracy, MNIST-1D", ".3f")


def draw_digits(ax: Any, rows: Rows) -> Columns:
    """Test accuracy by width and depth on digits; in brackets the parameters, of equal number along dashed lines.

    Heat map at one learning rate, width to the right, depth upwards. Accuracy rises with the width and falls a little
    with the depth.
    """
    return _map(ax, rows, "digits", "accuracy", "test accuracy, digits", ".3f")


def draw_borders(ax: Any, rows: Rows) -> Columns:
    """Borders between linear regions on a segment between two examples against the number of neurons.

    Both axes logarithmic, colours for the depth. Filled dots, trained networks, lie in one band below the dashed line of as
    many borders as neurons, whatever the depth; small crosses, the same networks before training, lie among them. Hollow
    dots, layers that fold, rise above the line with the depth, by a factor of nearly six for each layer.
    """
    columns: dict[str, list[Any]] = {"depth": [], "neurons": [], "weights": [], "borders": []}
    for place, depth in enumerate(sorted({row.point["depth"] for row in rows})):
        shown = [row for row in rows if row.point["depth"] == depth]
        for weights in ("trained", "at the start", "folded"):
            chosen = [row for row in shown if bool(row.arm) == (weights == "folded")]
            neurons = [row.point["width"] * depth for row in chosen]
            key = "at the start" if weights == "at the start" else "value"
            counts = [row.values[key] * n for row, n in zip(chosen, neurons, strict=True)]
            how: dict[str, Any] = {"color": f"C{place}", "markersize": 5}
            if weights == "folded":
                how["markerfacecolor"] = "none"
            label = f"depth {depth}" if weights == "trained" else None
            ax.loglog(neurons, counts, "x" if weights == "at the start" else "o", label=label, **how)
            for column, cells in zip(
                columns.values(), ([depth] * len(counts), neurons, [weights] * len(counts), counts), strict=True
            ):
                column.extend(cells)
    reach = [min(columns["neurons"]), max(columns["neurons"])]
    ax.plot(reach, reach, color="0.3", linestyle="--", linewidth=1, label="as many as neurons")
    ax.plot([], [], "x", color="0.3", label="before training")
    ax.plot([], [], "o", color="0.3", markerfacecolor="none", label="layers that fold")
    ax.set(xlabel="neurons", ylabel="borders on a segment")
    ax.legend()
    return columns
