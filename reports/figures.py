"""Figures as SVG whose bytes depend on the data alone: one style, no global state, no clock, no machine's fonts."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .markup import clean
from .record import Arm, Figure, ReportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Okabe & Ito's palette, told apart by every common kind of colour vision.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#222222",
)
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
GREY = "#6b6b6b"
WIDTH = 6.6

STYLE: dict[str, Any] = {
    "svg.hashsalt": "lemmata",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.labelcolor": BLACK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """The lab's drawing style over matplotlib's own defaults, whatever the user's settings say."""
    import matplotlib.style
    from cycler import cycler

    settings = STYLE | {"axes.prop_cycle": cycler(color=PALETTE)}
    with warnings.catch_warnings(), matplotlib.style.context(["default", settings]):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def render(
    draw: Callable[[Axes], Mapping[str, Sequence[Any]]],
    name: str,
    caption: str,
    alt: str,
    size: tuple[float, float] = (WIDTH, 3.3),
) -> Figure:
    """Draw on fresh axes and keep what `draw` says it drew.

    `draw(ax)` returns the data columns, all of one length; they become the figure's download. `size` is in inches.
    Text between dollars is mathematics, as in matplotlib: pass text that comes from data through `literal`.

    Raises
    ------
    ReportError : `draw` returned no columns, or columns of different lengths; alt text is missing.
    """
    from matplotlib.figure import Figure as Canvas

    with style():
        canvas = Canvas(figsize=size, layout="constrained")
        columns = draw(canvas.add_subplot())
        check_columns(name, columns)
        if not alt.strip():
            raise ReportError(f"figure {name!r} has no alternative text: say in words what it shows.")
        return Figure(name, to_svg(canvas), caption, alt, {str(key): list(column) for key, column in columns.items()})


def literal(text: str) -> str:
    r"""Text from data, for matplotlib: no dollar begins mathematics, no character breaks the file.

    >>> literal("cost $x$")
    'cost \\$x\\$'
    """
    return clean(text).replace("$", r"\$")


def check_columns(name: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Refuse data that cannot be a table."""
    if not isinstance(columns, Mapping) or not columns:
        raise ReportError(
            f"figure {name!r}: draw(ax) must return the columns it drew, as a dict of equal-length sequences; got {columns!r}."
        )
    lengths = {str(key): len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ReportError(f"figure {name!r}: columns must have one length, got {lengths}.")


def to_svg(canvas: Canvas) -> bytes:
    """The canvas as SVG without a date, in hundredths of a point."""
    stream = io.BytesIO()
    canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _thinned(stream.getvalue())


_PLACE = re.compile(rb' (?:d|x|y)="[-\d.\sMLHVQCZz]*"')
_DECIMALS = re.compile(rb"-?\d+\.\d{3,}")
_LINES = re.compile(rb"(M [-\d. ]+\n)((?:L [-\d. ]+\n)+)")
_CLIPPED = re.compile(rb'(<g id="[^"]*")>((?:\s*<path [^>]*( clip-path="[^"]*")[^>]*/>)+)(?=\s*</g>)')
_STYLED = re.compile(rb'(<g[^>]*)>((?:\s*<use [^>]*( style="[^"]*")/>)+)(?=\s*</g>)')


def _thinned(svg: bytes) -> bytes:
    """The same picture: places to a hundredth of a point, what marks of a group share said once, no indentation."""
    svg = _PLACE.sub(lambda place: _DECIMALS.sub(_hundredths, place[0]), svg)
    svg = _LINES.sub(lambda line: line[1] + line[2].replace(b"L ", b""), svg)  # pairs after a move are lines
    for shared in (_CLIPPED, _STYLED):
        svg = shared.sub(_said_once, svg)
    return re.sub(rb"\n[ \n]+", b"\n", svg.replace(b" \n", b"\n"))


def _hundredths(number: re.Match[bytes]) -> bytes:
    return repr(round(float(number[0]), 2) + 0.0).removesuffix(".0").encode()


def _said_once(group: re.Match[bytes]) -> bytes:
    """A group with an attribute that all of its children have alike."""
    start, children, own = group.groups()
    name = own.partition(b"=")[0] + b"="
    if name in start or children.count(name) != children.count(own):
        return group[0]
    return start + own + b">" + children.replace(own, b"")


def evidence(claim_id: str, arm: Arm, controls: Sequence[Arm], prediction: str = "") -> Figure:
    """A claim's default figure: every measured point with its interval against its band, the controls beside it.

    Up to 16 points are drawn as rows with their outcomes; more are drawn along an axis. The value axis is logarithmic
    where values are positive and span more than two decades. Values off every scale are drawn at the edge and named.
    """
    from . import bands as drawing

    arms = (arm, *controls)
    rows = sum(len(one.points) for one in arms)
    columns = _columns(arms)
    as_rows = rows <= drawing.MOST_ROWS
    height = 1.25 + 0.3 * (rows + 0.6 * len(arms)) if as_rows else 3.9

    def draw(ax: Axes) -> Mapping[str, Sequence[Any]]:
        (drawing.rows if as_rows else drawing.along)(ax, arms)
        return columns

    band = f" Shaded: {clean(prediction).rstrip('.')}." if prediction else " Shaded: the predicted band."
    return render(
        draw, f"{claim_id}-evidence", f"What was measured, with its interval.{band}", describe(arms), (WIDTH, height)
    )


def describe(arms: Sequence[Arm]) -> str:
    """Alternative text: each arm's outcome and the range of what was measured."""
    from .numerals import number

    sentences = []
    for arm in arms:
        values = [point.measured for point in arm.points if math.isfinite(point.measured)]
        span = f" between {number(min(values))} and {number(max(values))}" if values else " with no finite value"
        who = f"Control “{arm.name}”" if arm.name else "The claim"
        sentences.append(f"{who} {arm.outcome}: {len(arm.points)} point{'s' * (len(arm.points) != 1)} measured{span}.")
    return clean(" ".join(sentences))


def _columns(arms: Sequence[Arm]) -> dict[str, list[Any]]:
    fields = ("label", "n", "predicted", "measured", "low", "high", "band_low", "band_high", "outcome")
    columns: dict[str, list[Any]] = {"arm": [arm.name or "claim" for arm in arms for _ in arm.points]}
    return columns | {field: [getattr(point, field) for arm in arms for point in arm.points] for field in fields}
