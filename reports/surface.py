"""A loss surface: the still picture for the PDF and print, the numbers for the canvas, the table for the download."""

from __future__ import annotations

import json
import math
from typing import Any

from .figures import literal, style, to_svg
from .markup import clean
from .record import Figure, ReportError, Surface

FINEST = 41
STILL_AZIMUTH, STILL_ELEVATION = 40.0, 34.0


def check_surface(surface: Surface) -> None:
    """Refuse a grid whose sizes do not agree, or is too small to show."""
    rows, columns = len(surface.z), {len(row) for row in surface.z}
    if rows != len(surface.y) or columns != {len(surface.x)} or rows < 2 or len(surface.x) < 2:
        raise ReportError(
            f"surface {surface.name!r}: z must hold len(y) rows of len(x) values, at least 2 × 2; got len(x) = {len(surface.x)}, "
            f"len(y) = {len(surface.y)} and {rows} rows of length {sorted(columns)}."
        )


def still(surface: Surface) -> Figure:
    """The surface as a vector picture, thinned to at most 41 × 41 patches, with its whole grid as data."""
    import mpl_toolkits.mplot3d  # noqa: F401  (registers the projection)
    import numpy as np
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    check_surface(surface)
    across, along = _thin(len(surface.x)), _thin(len(surface.y))
    height = np.asarray(surface.z, dtype=float)[np.ix_(along, across)]
    x, y = np.meshgrid(np.asarray(surface.x, dtype=float)[across], np.asarray(surface.y, dtype=float)[along])
    height[~np.isfinite(height)] = np.nan
    with style():
        canvas = Canvas(figsize=(5.6, 4.1))
        ax: Any = canvas.add_axes((0.02, 0.08, 0.95, 0.94), projection="3d")
        if np.isfinite(height).any():
            ax.plot_surface(
                x,
                y,
                height,
                cmap="viridis",
                rstride=1,
                cstride=1,
                linewidth=0.15,
                edgecolor="#00000030",
                antialiased=True,
            )
        ax.view_init(elev=STILL_ELEVATION, azim=-STILL_AZIMUTH)
        ax.set_xlabel(literal(surface.x_label), labelpad=0)
        ax.set_ylabel(literal(surface.y_label), labelpad=0)
        ax.set_zlabel(literal(surface.z_label), labelpad=2)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_major_locator(MaxNLocator(5))
        ax.tick_params(labelsize=7.5, pad=0)
        return Figure(surface.name, to_svg(canvas), surface.caption, surface.alt, columns(surface))


def columns(surface: Surface) -> dict[str, list[float]]:
    """The grid in long form, a row for each node."""
    points = [
        (x, y, z) for y, row in zip(surface.y, surface.z, strict=True) for x, z in zip(surface.x, row, strict=True)
    ]
    return {name: [float(point[index]) for point in points] for index, name in enumerate(("x", "y", "z"))}


def for_canvas(surface: Surface) -> str:
    """What the script reads, as JSON: heights to five digits, null where the loss is not finite."""
    heights = [[_height(value) for value in row] for row in surface.z]
    labels = [clean(label) for label in (surface.x_label, surface.y_label, surface.z_label)]
    data: dict[str, Any] = {
        "labels": labels,
        "x": [float(surface.x[0]), float(surface.x[-1])],
        "y": [float(surface.y[0]), float(surface.y[-1])],
    }
    return json.dumps(data | {"z": heights, "alt": clean(surface.alt)}, ensure_ascii=False, separators=(",", ":"))


def _height(value: float) -> float | None:
    return float(f"{float(value):.5g}") if math.isfinite(value) else None


def _thin(length: int) -> list[int]:
    if length <= FINEST:
        return list(range(length))
    return [round(index * (length - 1) / (FINEST - 1)) for index in range(FINEST)]
