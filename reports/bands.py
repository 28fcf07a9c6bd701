"""The two forms of a claim's evidence figure: a row for each point, or the points along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, literal
from .numerals import number
from .record import Arm, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MOST_ROWS = 16
MOST_LABELS = 60
SMALLEST, LARGEST = 1e-290, 1e290
COLOURS = (BLUE, VERMILION, PURPLE, ORANGE, GREEN)
MARKERS = ("o", "s", "^", "D", "v")


def rows(ax: Axes, arms: Sequence[Arm]) -> None:
    """A row for each point: band, interval, value, and the outcome in words at the right."""
    from matplotlib.transforms import blended_transform_factory

    scale = scale_of(arms)
    at, ticks, labels = 0.0, [], []
    right = blended_transform_factory(ax.transAxes, ax.transData)
    for index, arm in enumerate(arms):
        colour, marker = _look(index)
        ax.text(
            0.008,
            at,
            _short((arm.name and f"control: {arm.name}") or "claim", 80),
            transform=right,
            color=colour,
            fontsize=8.5,
            weight="bold",
            va="center",
        )
        for point in arm.points:
            at += 1.0
            _band(ax, point, at, scale, sideways=True)
            _mark(ax, point, at, scale, colour, marker, index > 0, sideways=True)
            ax.text(1.015, at, literal(point.outcome), transform=right, color=GREY, fontsize=8, va="center")
            ticks.append(at)
            labels.append(_short(point.label))
        at += 1.25
    ax.set_yticks(ticks, labels)
    ax.set_ylim(max(at - 0.55, 1.0), -0.6)
    ax.tick_params(axis="y", length=0, pad=6)
    ax.grid(False, axis="y")
    _value_axis(ax, "x", scale)


def along(ax: Axes, arms: Sequence[Arm]) -> None:
    """Points along an axis in the order of the grid, arms side by side."""
    scale = scale_of(arms)
    places = list(dict.fromkeys(point.label for arm in arms for point in arm.points))
    position = {label: index for index, label in enumerate(places)}
    for index, arm in enumerate(arms):
        colour, marker = _look(index)
        shift = 0.5 * (index - (len(arms) - 1) / 2) / len(arms)
        for point in arm.points:
            if index == 0:
                _band(ax, point, position[point.label], scale, sideways=False)
            _mark(ax, point, position[point.label] + shift, scale, colour, marker, index > 0, sideways=False)
        label = f"control: {arm.name}" if arm.name else "claim"
        ax.plot(
            [],
            [],
            marker=marker,
            linestyle="",
            color=colour,
            markerfacecolor="white" if index else colour,
            label=_short(label, 60),
        )
    _place_labels(ax, places)
    ax.grid(False, axis="x")
    _value_axis(ax, "y", scale)
    fits = sum(len(arm.name) + 12 for arm in arms) < 80
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=min(len(arms), 3) if fits else 1,
        borderaxespad=0.2,
        handletextpad=0.3,
    )


def _place_labels(ax: Axes, places: Sequence[str]) -> None:
    name, values = _shared_name(places)
    if max(map(len, values), default=0) > 14:
        name, values = "point, in the order of the data", [str(index) for index in range(1, len(places) + 1)]
    step = math.ceil(len(places) / MOST_LABELS)
    shown = [(index, _short(values[index], 24)) for index in range(0, len(places), step)]
    longest = max((len(label) for _, label in shown), default=0)
    crowded = len(shown) * longest > 55
    ax.set_xticks(
        [index for index, _ in shown],
        [label for _, label in shown],
        rotation=90 if crowded else 0,
        fontsize=8.5 if len(shown) <= 30 else 6.5,
    )
    ax.set_xlim(-0.7, len(places) - 0.3)
    if name:
        ax.set_xlabel(literal(name))


def _shared_name(labels: Sequence[str]) -> tuple[str, list[str]]:
    """("m", ["6", "8"]) of ("m = 6", "m = 8"), also for several names; labels of another shape stay whole."""
    found = [[part.split(" = ") for part in label.split(", ")] for label in labels]
    names = {", ".join(pair[0] for pair in pairs) for pairs in found}
    if len(names) == 1 and all(len(pair) == 2 for pairs in found for pair in pairs):
        return names.pop(), [", ".join(pair[1] for pair in pairs) for pairs in found]
    return "", list(labels)


def _look(index: int) -> tuple[str, str]:
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _short(text: str, most: int = 34) -> str:
    text = " ".join(text.split())
    return literal(text if len(text) <= most else text[: most - 1] + "…")


@dataclass(frozen=True)
class Scale:
    """The value axis: kind "linear", "log" or "symlog" (linear within ±threshold), and its ends."""

    kind: str
    low: float
    high: float
    threshold: float = 0.0


def scale_of(arms: Sequence[Arm]) -> Scale:
    """Linear, or logarithmic where values span more than two decades (four, where some are zero or negative)."""
    points = [point for arm in arms for point in arm.points]
    every = (
        value for point in points for value in (point.measured, point.low, point.high, point.band_low, point.band_high)
    )
    values = sorted({value for value in map(float, every) if math.isfinite(value) and abs(value) < LARGEST})
    if not values:
        return Scale("linear", -1.0, 1.0)
    sizes = sorted(abs(value) for value in values if abs(value) > SMALLEST)
    span = sizes[-1] / sizes[0] if sizes else 1.0
    if span > 1e2 and values[0] > 0:
        room = span**0.06
        return Scale("log", max(values[0], SMALLEST) / room, values[-1] * room)
    if span > 1e4:
        return Scale(
            "symlog",
            values[0] * 3 if values[0] < 0 else -0.5 * sizes[0],
            max(values[-1], 0.0) * 3 + sizes[0] / 2,
            sizes[0],
        )
    room = 0.06 * (values[-1] - values[0]) or 0.1 * abs(values[0]) or 1.0
    return Scale("linear", values[0] - room, values[-1] + room)


def _value_axis(ax: Axes, axis: str, scale: Scale) -> None:
    options = {"linthresh": scale.threshold} if scale.kind == "symlog" else {}
    (ax.set_xscale if axis == "x" else ax.set_yscale)(scale.kind, **options)
    (ax.set_xlim if axis == "x" else ax.set_ylim)(scale.low, scale.high)
    if scale.kind == "symlog":
        _thin_ticks(ax.xaxis if axis == "x" else ax.yaxis, scale)
    elif scale.kind == "log" and scale.high > 1e4 * scale.low:
        _few_powers(ax.xaxis if axis == "x" else ax.yaxis)
    label = "measured" + {"log": ", log scale", "symlog": ", log scale away from zero"}.get(scale.kind, "")
    (ax.set_xlabel if axis == "x" else ax.set_ylabel)(label)


def _few_powers(axis: Axis) -> None:
    """At most seven powers of ten: their labels never touch."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())


def _thin_ticks(axis: Axis, scale: Scale) -> None:
    """Zero and at most about four powers of ten either side: matplotlib's own choice overlaps over many decades."""
    from matplotlib.ticker import NullLocator

    first = math.ceil(math.log10(scale.threshold) + 1)
    ticks = [0.0]
    for sign, end in ((1.0, scale.high), (-1.0, -scale.low)):
        last = math.floor(math.log10(end)) if end > scale.threshold else first - 1
        ticks += [sign * 10.0**power for power in range(last, first - 1, -max(1, math.ceil((last - first + 1) / 4)))]
    axis.set_ticks(sorted(ticks))
    axis.set_minor_locator(NullLocator())


def _inside(value: float, low: float, high: float, missing: float) -> float:
    return missing if math.isnan(value) else min(max(value, low), high)


def _band(ax: Axes, point: Point, at: float, scale: Scale, sideways: bool) -> None:
    """The band as a shaded stretch with its ends drawn, so that a band of no width is seen too."""
    if math.isnan(point.band_low) and math.isnan(point.band_high):
        return
    low, high = scale.low, scale.high
    start, end = _inside(point.band_low, low, high, low), _inside(point.band_high, low, high, high)
    fill = ax.barh if sideways else ax.bar
    place: dict[str, Any] = {"left": start, "height": 0.78} if sideways else {"bottom": start, "width": 0.98}
    fill(at, end - start, color=SKY, alpha=0.28, linewidth=0, zorder=1, **place)
    half = 0.39 if sideways else 0.49
    for edge, true in ((start, point.band_low), (end, point.band_high)):
        if low < true < high:
            (ax.vlines if sideways else ax.hlines)(edge, at - half, at + half, color=BLUE, linewidth=0.9, zorder=1.5)


def _mark(
    ax: Axes, point: Point, at: float, scale: Scale, colour: str, marker: str, hollow: bool, sideways: bool
) -> None:
    """The interval and the value; a value that no scale holds sits at the edge with its name."""
    low, high = scale.low, scale.high
    start, end = _inside(point.low, low, high, math.nan), _inside(point.high, low, high, math.nan)
    value = _inside(point.measured, low, high, low)
    if not (math.isnan(start) or math.isnan(end)):
        (ax.hlines if sideways else ax.vlines)(at, start, end, color=colour, linewidth=1.5, zorder=2)
    off = not math.isfinite(point.measured) or value != point.measured
    x, y = (value, at) if sideways else (at, value)
    size = 5.5 if sideways else 4.0
    symbol = _edge_symbol(point.measured, sideways) if off else marker
    ax.plot(
        [x],
        [y],
        marker=symbol,
        markersize=size,
        color=colour,
        markerfacecolor="white" if hollow else colour,
        zorder=3,
        clip_on=False,
    )
    if off:
        offset = (-8 if point.measured > 0 else 8, 0) if sideways else (0, -9 if point.measured > 0 else 9)
        side = "center" if not sideways else "right" if point.measured > 0 else "left"
        ax.annotate(
            number(point.measured),
            (x, y),
            offset,
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8,
            color=colour,
        )


def _edge_symbol(value: float, sideways: bool) -> str:
    """A cross for what is not a number, else an arrow to where the value lies."""
    if math.isnan(value):
        return "x"
    return (">" if value > 0 else "<") if sideways else ("^" if value > 0 else "v")
