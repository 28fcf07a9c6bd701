"""Figures show the data they carry, in every scale, with every value that is not a number."""

from __future__ import annotations

import io
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import typst
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.image import imread

from lemmata.reports import Arm, Point, ReportError, evidence, literal, render
from lemmata.reports.bands import along, rows, scale_of
from lemmata.reports.figures import to_svg
from lemmata.reports.surface import FINEST, columns, for_canvas, still

INF, NAN = math.inf, math.nan


def arm(values, name="", low=-INF, high=1.0, outcome="holds", label="m = {}"):
    return Arm(
        name,
        "",
        outcome,
        "",
        tuple(Point(label.format(k), 5, "", v, v * 0.9, v * 1.1, low, high, outcome) for k, v in enumerate(values)),
    )


def test_the_data_of_a_figure_is_what_was_plotted():
    kept = {}

    def draw(ax):
        kept["line"] = ax.plot([1, 2, 3], [4.0, 5.5, 6.25])[0]
        return {"x": [1, 2, 3], "y": kept["line"].get_ydata()}

    figure = render(draw, "name", "caption", "alternative")
    assert list(figure.data["y"]) == list(kept["line"].get_ydata()) == [4.0, 5.5, 6.25]
    assert ElementTree.fromstring(figure.svg).tag.endswith("svg")
    assert figure.svg == render(draw, "name", "caption", "alternative").svg
    assert b"<dc:date>" not in figure.svg and b"<text" not in figure.svg


def test_a_thinned_picture_is_the_same_picture():
    """Both as pixels, by typst's renderer: lines, curves, marks of one style and of several, cells, text."""

    def draw(ax):
        x = np.linspace(0, 1, 300)
        ax.plot(x, np.sin(9 * x) + 1e-9 * x, ".", label="marks")
        ax.scatter(x[::9], x[::9] ** 2, c=x[::9], s=20)
        ax.plot(np.where(np.arange(300) % 50, x, np.nan), -x, "--")
        ax.fill_between(x, x - 1, np.cos(40 * x) / 9 - 1, alpha=0.5)
        corners = np.random.default_rng(0).random((20, 4, 2)) - [0, 2.5]
        ax.add_collection(PolyCollection(corners, facecolors=[str(k / 20) for k in range(20)]))
        ax.legend(title="$x^2$")

    canvas = Canvas(figsize=(4, 3))
    draw(canvas.add_subplot())
    stream = io.BytesIO()
    canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    thick, thin = stream.getvalue(), to_svg(canvas)
    assert len(thin) < 0.75 * len(thick)
    pictures = [pixels(svg) for svg in (thick, thin, thick.replace(b"L 2", b"L 1"))]
    same, other = (float(np.abs(pictures[0] - picture).mean()) for picture in pictures[1:])
    assert same < 0.05 < 0.5 < other


def pixels(svg: bytes) -> np.ndarray:
    """An SVG drawn by typst, in levels of 256."""
    with tempfile.TemporaryDirectory() as root:
        Path(root, "picture.svg").write_bytes(svg)
        page = '#set page(width: 4in, height: 3in, margin: 0pt)\n#image("picture.svg", width: 100%)'
        Path(root, "page.typ").write_text(page)
        png = typst.compile(Path(root, "page.typ"), format="png", ppi=144)
    return imread(io.BytesIO(png))[..., :3] * 255


def test_render_refuses_what_is_no_table_or_has_no_words():
    for draw in (lambda ax: None, lambda ax: {}, lambda ax: {"a": [1], "b": [1, 2]}):
        with pytest.raises(ReportError, match="'thing'"):
            render(draw, "thing", "caption", "alternative")
    with pytest.raises(ReportError, match="alternative text"):
        render(lambda ax: {"a": [1]}, "thing", "caption", " ")


def test_every_measured_point_is_drawn_where_it_was_measured():
    """Read the marks back from the axes, in both forms."""
    claim, control = arm([0.1, 0.2, 0.3]), arm([2.0, 3.0, 4.0], "without", outcome="fails")
    for form, axis in ((rows, 0), (along, 1)):
        ax = Canvas().add_subplot()
        form(ax, (claim, control))
        drawn = [line.get_data()[axis][0] for line in ax.lines if len(line.get_xdata()) == 1]
        assert sorted(drawn) == [0.1, 0.2, 0.3, 2.0, 3.0, 4.0]
        assert {line.get_marker() for line in ax.lines if len(line.get_xdata()) == 1} == {"o", "s"}
    figure = evidence("c", claim, (control,), "at most 1")
    assert (
        figure.data["measured"] == [0.1, 0.2, 0.3, 2.0, 3.0, 4.0]
        and figure.data["arm"] == ["claim"] * 3 + ["without"] * 3
    )
    assert "between 2 and 4" in figure.alt and "at most 1" in figure.caption


def test_the_scale_follows_the_values():
    assert scale_of([arm([1.0, 5.0])]).kind == "linear"
    assert scale_of([arm([1e-6, 5.0])]).kind == "log"
    assert scale_of([arm([0.0, 1e-16, 5.0])]).kind == "symlog"
    assert scale_of([arm([-1e-9, 1e9])]).kind == "symlog"
    assert scale_of([arm([NAN, INF], high=INF)]).kind == "linear"
    assert scale_of([arm([])]).kind == "linear"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [0.0],
        [NAN, INF, -INF],
        [1e-300, 1e300],
        [5e-324, 1.7e308],
        [-1e-9, 0.0, 1e9],
        [0.0] * 3,
        [1e-16 * k for k in range(60)],
        [float(k) for k in range(200)],
    ],
    ids=["none", "zero", "not-finite", "wide", "widest", "both-signs", "zeros", "sixty", "two-hundred"],
)
def test_no_value_breaks_the_evidence(values):
    control = arm([INF, NAN], "$x_{$ \0 \u4e2d", outcome="fails", label="a very long label $\\frac$ = {}, depth = 3")
    figure = evidence("c", arm(values), (control,), "at most $1")
    ElementTree.fromstring(figure.svg)
    assert len(figure.data["measured"]) == len(values) + 2


def test_labels_from_data_are_literal():
    from lemmata.reports.figures import style

    with style():
        canvas = Canvas()
        text = canvas.text(0, 0, literal("$x^2$ and \\$5"))
        width = text.get_window_extent(canvas._get_renderer()).width
        maths = canvas.text(0, 0, "$x^2$ and \\$5").get_window_extent(canvas._get_renderer()).width
    assert width > maths


def test_surface(samples):
    bowl = samples.bowl(61)
    data = columns(bowl)
    assert (
        len(data["z"]) == 61 * 61
        and data["z"][61 + 1] == bowl.z[1][1]
        and data["x"][1] == bowl.x[1]
        and data["y"][1] == bowl.y[0]
    )
    assert ElementTree.fromstring(still(bowl).svg).tag.endswith("svg")
    assert still(bowl).svg.count(b"<path") < 2 * FINEST**2 + 500
    assert '"z":[[null,' in for_canvas(bowl)
    ElementTree.fromstring(still(replace(bowl, z=[[NAN] * 61] * 61)).svg)
