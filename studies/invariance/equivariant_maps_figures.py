"""What the study of equivariant maps draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def draw_commutants(ax: Any, rows: Rows) -> Columns:
    """A matrix drawn at random, and the nearest ones to it that commute with the shift and with another permutation.

    Three squares of red and blue cells. The first is noise, the second has constant stripes along its diagonals, each wrapping
    round: a circulant. The third repeats blocks of the first in an order that the eye does not find.
    """
    first = [row for row in rows if not row.arm][-1]
    chosen = [row for row in rows if row.point == first.point and row.k == first.k]
    pictures = [first.values["drawn"], *(row.values["nearest"] for row in chosen[:2])]
    n = len(pictures[0])
    sheet = np.full((n, 3 * n + 2), np.nan)
    for i, picture in enumerate(pictures):
        sheet[:, i * (n + 1) : i * (n + 1) + n] = picture / np.abs(picture).max()
    ax.imshow(sheet, cmap="RdBu", vmin=-1, vmax=1)
    ax.set_xticks(
        [i * (n + 1) + (n - 1) / 2 for i in range(3)],
        ["drawn", "commutes with\nthe shift", "with a random\npermutation"],
    )
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    names = ("drawn", "commutes with the shift", "commutes with a permutation")
    return {name: picture.ravel() for name, picture in zip(names, pictures, strict=True)}


def draw_points(ax: Any, rows: Rows) -> Columns:
    """Weights of a layer from edges to edges: permutations stop at fifteen, cyclic shifts grow with the cube of the points.

    Logarithmic vertical axis. Dots for the symmetric group rise from one to fourteen at three points and fifteen at four, and
    stay there; those of the cyclic group lie on n³.
    """
    points = sorted({row.point["n"] for row in rows})
    columns: dict[str, Any] = {"points": points}
    for arm, label in (("", "all permutations"), ("all permutations: cyclic shifts", "cyclic shifts")):
        columns[label] = [
            next(r.values["dimension"] for r in rows if r.arm == arm and r.point["n"] == n) for n in points
        ]
        ax.semilogy(points, columns[label], "o", label=label)
    ax.axhline(15, color="0.6", linewidth=1, label="Bell number 15")
    ax.semilogy(points, np.array(points) ** 3.0, color="0.6", linestyle="--", linewidth=1, label="n³")
    ax.set(xlabel="points", ylabel="dimension", xticks=points)
    ax.legend(fontsize="small")
    return columns


def draw_filters(ax: Any, rows: Rows) -> Columns:
    """The six filters of five by five pixels that quarter turns and reflections leave as they are.

    Six small squares in a row, each one orbit of pixels: the centre, then sets of four or eight pixels around it, alike in all
    four directions.
    """
    chosen = next(row for row in rows if not row.arm and row.point["flips"] == 1 and row.point["k"] == 5)
    filters = chosen.values["filters"] > 0
    sheet = np.full((5, 6 * len(filters) - 1), np.nan)
    for i, one in enumerate(filters):
        sheet[:, 6 * i : 6 * i + 5] = one
    ax.imshow(sheet, cmap="Blues", vmin=-0.15, vmax=1.3)
    ax.set_xticks([6 * i + 2 for i in range(len(filters))], [str(i + 1) for i in range(len(filters))])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return {f"filter {i + 1}": one.ravel().astype(int) for i, one in enumerate(filters)}
