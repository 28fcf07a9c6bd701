"""Pictures of cells, from what a ledger keeps of them, and numbers as exact as a picture shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lemmata.analysis import PlaneRegions

_KEPT = ("vertices", "edges", "edge_layers", "corners", "offsets", "slopes")


@dataclass(frozen=True)
class Picture:
    """The arrays that a picture of cells takes, in single precision."""

    arrays: Mapping[str, np.ndarray]

    @staticmethod
    def of(found: PlaneRegions) -> Picture:
        """What :func:`draw_cells` takes."""
        arrays = {name: getattr(found, name).numpy() for name in _KEPT}
        kinds = {"f": np.float32, "i": np.int32}
        return Picture({name: array.astype(kinds[array.dtype.kind]) for name, array in arrays.items()})


def as_seen(values: Sequence[float] | np.ndarray) -> list[float]:
    """Numbers to four digits, finer than a screen tells them apart.

    >>> as_seen([1 / 3, -2e-7 / 3, 12345.6])
    [0.3333, -6.667e-08, 12350.0]
    """
    return [float(f"{value:.4g}") for value in values]


def dots(ax: Any, x: np.ndarray, colour: str, size: float, label: str) -> None:
    """Points (n, 2) as strokes without length of one round pen: half the bytes of as many marks."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    strokes = Path(np.repeat(x, 2, 0), [Path.MOVETO, Path.LINETO] * len(x))
    strokes.should_simplify = False
    ax.add_patch(PathPatch(strokes, fill=False, edgecolor=colour, linewidth=size, capstyle="round"))
    ax.autoscale_view()
    ax.plot([], [], ".", color=colour, markersize=8, label=label)


def draw_cells(ax: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Cells coloured by the slope of the function, borders by layer; returns the borders drawn."""
    import torch

    arrays = {name: torch.from_numpy(np.asarray(values[name])) for name in _KEPT}
    empty = torch.zeros(0, dtype=torch.long)
    ax.figure.set_size_inches(6.4, 6.0)  # a picture to look into
    PlaneRegions(**arrays, neighbours=empty, patterns=empty, undecided=0).plot(ax)
    inner = arrays["edge_layers"] >= 0
    ends = arrays["vertices"][arrays["edges"][inner].long()].numpy()
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    layer = arrays["edge_layers"][inner].numpy() + 1
    return {
        "x_1": as_seen(ends[:, 0, 0]),
        "x_2": as_seen(ends[:, 0, 1]),
        "to x_1": as_seen(ends[:, 1, 0]),
        "to x_2": as_seen(ends[:, 1, 1]),
        "layer": layer,
    }
