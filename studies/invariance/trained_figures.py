"""What the study of trained symmetries draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GROUPS = {
    "convolution or linear": ("Conv2d", "Linear", "LiftingConv", "GroupConv", "Positions"),
    "normalisation": ("GroupNorm", "LayerNorm"),
    "activation": ("relu", "erf", "tanh"),
}


def draw_layers(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Which layers break the invariance to shifts: contributions to the Lie derivative, for five trained networks.

    A group of bars for each network on a logarithmic axis, pale for training without and full for training with shifted
    images: convolutions and linear maps, normalisations, activations. The perceptron's are all in its linear maps; those of
    the network on the torus are all in its activations.
    """
    kinds = list(dict.fromkeys(row.point["model"] for row in rows))
    columns: dict[str, list[Any]] = {"network": kinds}
    places, width = np.arange(len(kinds)), 0.13
    for at, name in enumerate(GROUPS):
        for late, part in enumerate(("plain", "augmented")):
            values = [
                float(np.mean([r.values[f"{part}: {name}"] for r in rows if not r.arm and r.point["model"] == kind]))
                for kind in kinds
            ]
            columns[f"{name}, {part}"] = values
            label = name if late else None
            x = places + (2 * at + late - 2.5) * width
            shown = [max(value, 1e-4) for value in values]
            ax.bar(x, shown, width, bottom=0, color=f"C{at}", alpha=1.0 if late else 0.4, label=label)
    ax.set(yscale="log", ylim=(1e-3, 10), ylabel="relative change of the outputs per pixel")
    ax.set_xticks(places, kinds)
    ax.legend(fontsize="small", title="pale: without, full: with shifted images", title_fontsize="small", ncols=3)
    return columns


def draw_depth(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """The error of equivariance that has gathered at each place from the input to the output, of one network of each family.

    Lines against the share of the way through the network, interpolated between its places, on a logarithmic axis. All are of
    order one at the end; the line of the network on the torus begins at rounding, drawn at the bottom, with its first convolution.
    """
    way = np.linspace(0, 1, 21)
    columns: dict[str, Any] = {"way": way}
    for row in rows:
        kind = row.point["model"]
        if not row.arm and kind not in columns:
            gathered = np.asarray(row.values["gathered"])
            columns[kind] = np.interp(way, np.linspace(0, 1, len(gathered)), gathered)
            ax.semilogy(way, np.maximum(columns[kind], 1e-4), marker=".", label=kind)
    ax.set(xlabel="way from the first layer to the output", ylabel="relative Lie derivative per pixel")
    ax.legend(fontsize="small")
    return columns


def draw_designs(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Change of the class scores against the shift, for five designs of a convolutional network.

    Logarithmic vertical axis. On the torus the change is at rounding for every shift. Strides and pooling in twos are exact
    for shifts that their stride divides and not in between; zero padding and a flattened map change for all.
    """
    columns: dict[str, Any] = {}
    for design in dict.fromkeys(row.point["design"] for row in rows):
        own = [row.values["by shift"] for row in rows if not row.arm and row.point["design"] == design]
        columns["shift"] = list(range(len(own[0])))
        columns[design] = [max(value, 1e-17) for value in np.mean(own, 0)]
        ax.semilogy(columns["shift"][1:], columns[design][1:], marker=".", label=design)
    ax.set(xlabel="horizontal shift in pixels", ylabel="change of the scores ÷ their spread")
    ax.legend(fontsize="small")
    return columns


def draw_built_in(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Change of the outputs of trained networks under a symmetry that is built in, and under one that is learned.

    Two bars for each of four symmetries, on a logarithmic axis: at rounding where it is built in, and about one, fifteen orders of
    magnitude above, for a perceptron that has seen transformed data.
    """
    names = list(dict.fromkeys(row.point["symmetry"] for row in rows))
    columns: dict[str, Any] = {"symmetry": names}
    for at, (arm, label) in enumerate((("", "built in"), ("learned", "learned from transformed data"))):
        values = [
            float(
                np.mean([r.values["value"] for r in rows if bool(r.arm) == bool(arm) and r.point["symmetry"] == name])
            )
            for name in names
        ]
        columns[label] = values
        ax.bar(np.arange(len(names)) + 0.4 * at - 0.2, np.maximum(values, 1e-17), 0.4, bottom=0, label=label)
    ax.set(yscale="log", ylim=(1e-17, 1e2), ylabel="change of the outputs ÷ their spread")
    ax.set_xticks(range(len(names)), names)
    ax.legend(fontsize="small", loc="upper center", ncols=2)
    return columns
