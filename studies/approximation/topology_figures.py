"""The figures of the study of topology: the data, the counts at every radius, their images, and what layers leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lemmata.studies.approximation.pictures import as_seen, dots

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

RADII = np.geomspace(0.03, 3, 120)
RECTIFIERS = "an invertible activation: rectifiers, biases lower by 5"
UNTRAINED = "training: none"


def draw_classes(ax: Any, rows: Rows) -> Columns:
    """The two classes of D-I, as sampled: discs, and what lies around them.

    A square full of points with nine round islands, eight on a circle and one in its middle, each behind an empty moat.
    """
    row = next(row for row in rows if not row.arm and row.k == 0)
    x, inside = row.values["x"][::3], row.values["label"][::3] > 0  # enough to see
    for colour, name, chosen in (("C0", "around the discs", ~inside), ("C1", "discs", inside)):
        dots(ax, x[chosen], colour, 1.6, name)
    ax.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return {"x1": as_seen(x[:, 0]), "x2": as_seen(x[:, 1]), "disc": inside.astype(int)}


def draw_plateau(ax: Any, rows: Rows) -> Columns:
    """The count is wrong while the balls are too small or too large, and the same over all radii in between.

    Components and loops against the radius of the balls, both axes logarithmic. Both begin with the noise of single points
    and small gaps; from the spacing of the points on they keep their values, one of them nine, while the radius grows by
    a factor of more than seven; then the shapes meet or their holes close, and at last there are one and none.
    """
    row = next(row for row in rows if not row.arm and row.k == 0)
    columns = {"radius": RADII, "components": row.values["components"], "loops": row.values["loops"]}
    for name in ("components", "loops"):
        ax.step(RADII, columns[name], where="post", label=name)
    ax.axhline(9, color="0.3", linestyle="--", linewidth=1)
    ax.set(xscale="log", xlabel="radius of the balls", ylabel="Betti number")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(0, None)
    ax.legend()
    return columns


def draw_images(ax: Any, rows: Rows) -> Columns:
    """Two random leaky layers bend the data and tear nothing; two rectifiers flatten them.

    Two panels side by side. The nine islands become slanted shapes with kinks, still apart, each still behind its
    moat; under rectifiers all of the square lies on one ray, islands and what is around them on top of each other.
    """
    columns: dict[str, list[Any]] = {"activation": [], "y1": [], "y2": [], "disc": []}
    arms, names = ("", RECTIFIERS), ("leaky", "rectifier")
    middles = []
    for place, arm in enumerate(arms):
        row = next(r for r in rows if r.arm == arm and r.k == 0 and r.point["layers"] == 2)
        y, inside = row.values["y"][:: 9 if arm else 3], row.values["label"][:: 9 if arm else 3] > 0
        y = (y - y.min(0)) / np.maximum(np.ptp(y, axis=0).max(), 1e-12) + np.array([1.15 * place, 0])
        for colour, name, chosen in (("C0", "around the discs", ~inside), ("C1", "discs", inside)):
            dots(ax, y[chosen], colour, 1.5, "" if place else name)
        middles.append((y[:, 0].min() + y[:, 0].max()) / 2)
        columns["activation"] += [names[place]] * len(y)
        columns["y1"] += as_seen(y[:, 0])
        columns["y2"] += as_seen(y[:, 1])
        columns["disc"] += list(inside.astype(int))
    ax.set(aspect="equal", xticks=middles, xticklabels=["leaky rectifiers", "rectifiers"], yticks=[])
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return columns


def draw_fall(ax: Any, rows: Rows) -> Columns:
    """Features of the discs that are left at each layer, of trained networks and of untrained ones.

    Mean of components and loops against the layer, with bars of two standard errors over networks. All curves begin at
    nine. That of trained rectifiers falls below half by the middle of the network, that of trained hyperbolic tangents some
    layers later; those of untrained networks stay above both, and end between four and six.
    """
    columns: dict[str, Any] = {}
    first = rows[0].point
    for arm, style in (("", "o-"), (UNTRAINED, "s--")):
        chosen = [row for row in rows if row.arm == arm and row.point == first and not row.error]
        for place, activation in enumerate(("relu", first["slower"])):
            label = f"{activation}, {'untrained' if arm else 'trained'}"
            totals = np.concatenate([row.values[activation] for row in chosen])
            columns["layer"] = 2 * np.arange(1, totals.shape[1] + 1)
            columns[label] = totals.mean(0)
            columns[f"{label}: standard error"] = error = totals.std(0, ddof=1) / len(totals) ** 0.5
            at = columns["layer"] + 0.1 * (place - 0.5)
            ax.errorbar(at, columns[label], 2 * error, fmt=style, color=f"C{place}", markersize=4, label=label)
    ax.set(xlabel="hidden layer", ylabel="components and loops", ylim=(0, None), xticks=columns["layer"])
    ax.legend(fontsize="small")
    return columns
