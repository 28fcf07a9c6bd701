"""From records to what the template shows: every value a string, every file named, nothing left to decide."""

from __future__ import annotations

import base64
import datetime
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from .bibliography import merged
from .figures import check_columns, evidence
from .markup import citations, clean, looks_like_key, with_alternatives
from .numerals import digest, duration, interval, number, to_csv
from .record import (
    OUTCOMES,
    VERDICTS,
    Arm,
    Claim,
    Figure,
    MissingSourceError,
    Point,
    ReportError,
    Study,
    Surface,
    Table,
)
from .surface import for_canvas, still

SYMBOLS = {"SUPPORTED": "✓", "REFUTED": "✗", "INCONCLUSIVE": "?", "DEPENDS": "⇄", "INVALID": "!"}
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?"}
MOST_ROWS = 12
HEAD_ROWS = 8
WIDE = (16, 40)  # letters from which a column of a table gets a share of the width that is left, and a second one
PAGE_WIDTH_PT = 462.0


@dataclass
class View:
    """`data` goes to the template as JSON, `files` beside it; `prose` are the markup snippets, by where they stand."""

    data: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    prose: list[dict[str, str]] = field(default_factory=list)


def view_of(study: Study) -> View:
    """Everything the template needs.

    Raises
    ------
    MissingSourceError : a claim's source, or a key-like citation in its statement, is not in the bibliography.
    ReportError : the date is none, a verdict or outcome has no such name, or a figure's data is no table.
    """
    day = date_of(study)
    view = View({})
    known = merged(study.bibliography)
    cited = cited_keys(study, known)
    anchors = anchors_of([claim.id for claim in study.claims])
    when = f"{day.day} {day:%B} {day.year}"
    profile = f"profile {text(study.profile)}" if study.profile else ""
    view.data = {
        "title": text(study.title) or text(study.name) or "Untitled study",
        "name": text(study.name),
        "date": [day.year, day.month, day.day],
        "when": " · ".join(filter(None, [when, profile])),
        "byline": " · ".join(filter(None, [text(study.name), when, profile])),
        "description": f"Report of the study {text(study.name)}: claims, measured verdicts and controls.",
        "abstract": _prose(view, study.abstract, known),
        "counts": counts(study),
        "most_rows": MOST_ROWS,
        "environment": [[text(key), text(value)] for key, value in study.environment],
        "cites": bool(cited),
        "tables": [_shown(view, table, f"table-{place}") for place, table in enumerate(study.tables, 1)],
    }
    view.data["claims"] = [
        _claim(view, claim, index, anchor, known)
        for index, (claim, anchor) in enumerate(zip(study.claims, anchors, strict=True), 1)
    ]
    view.files["references.bib"] = "\n\n".join(known[key] for key in cited).encode()
    return view


def date_of(study: Study) -> datetime.date:
    """The day of the run."""
    try:
        return datetime.date.fromisoformat(study.date[:10])
    except ValueError as error:
        raise ReportError(
            f"study {study.name!r}: date {study.date!r} is no ISO date; give the run's date from the ledger, such as 2026-03-01."
        ) from error


def counts(study: Study) -> str:
    """“4 claims: 3 supported, 1 refuted; all as expected.”."""
    found = Counter(claim.verdict for claim in study.claims)
    if not found:
        return "This study holds no claim."
    listed = ", ".join(f"{found[verdict]} {verdict.lower()}" for verdict in VERDICTS if found[verdict])
    other = sum(claim.verdict != claim.expected for claim in study.claims)
    close = "all as the literature says" if not other else f"{other} not as the literature says"
    return f"{len(study.claims)} claim{'s' * (len(study.claims) != 1)}: {listed}; {close}."


def text(value: Any) -> str:
    """Text on one line that every format can hold."""
    return " ".join(clean(str(value)).split())


def cited_keys(study: Study, known: dict[str, str]) -> list[str]:
    """Keys to print in the references, each once."""
    keys = [key for key in citations(study.abstract) if key in known]
    for claim in study.claims:
        for key in claim.sources:
            if key not in known:
                raise MissingSourceError(
                    f"claim {claim.id!r} cites {key!r}, which is not in references.bib; add its BibTeX entry there."
                )
            keys.append(key)
        keys += [key for key in citations(claim.statement) if key in known]
    for where, markup in (
        ("the abstract", study.abstract),
        *((f"claim {claim.id!r}", claim.statement) for claim in study.claims),
    ):
        for key in citations(markup):
            if key not in known and looks_like_key(key):
                raise MissingSourceError(
                    f"{where} of study {study.name!r} cites {key!r}, which is not in references.bib; add its BibTeX entry there."
                )
    return list(dict.fromkeys(keys))


def _prose(view: View, markup: str, known: dict[str, str]) -> dict[str, str] | None:
    """A snippet for the template, kept in `view.prose` so that the compiler can fall back to its plain text."""
    markup = clean(markup).strip()
    if not markup:
        return None
    snippet = {"markup": with_alternatives(markup), "plain": markup}
    view.prose.append(snippet)
    return snippet


def _claim(view: View, claim: Claim, index: int, anchor: str, known: dict[str, str]) -> dict[str, Any]:
    if claim.verdict not in VERDICTS:
        raise ReportError(
            f"claim {claim.id!r}: {claim.verdict!r} is no verdict; the verdicts are {', '.join(VERDICTS)}."
        )
    figures = claim.figures or (
        (evidence(claim.id, claim.arm, claim.controls, claim.prediction),) if claim.arm.points else ()
    )
    spent = duration(claim.seconds)
    return {
        "number": str(index),
        "anchor": anchor,
        "id": text(claim.id),
        "title": text(claim.title) or text(claim.id),
        "statement": _prose(view, claim.statement, known) or {"plain": "", "markup": ""},
        "sources": list(claim.sources),
        "prediction": text(claim.prediction),
        "verdict": claim.verdict,
        "symbol": SYMBOLS[claim.verdict],
        "reason": text(claim.reason),
        "expectation": "as the literature says"
        if claim.verdict == claim.expected
        else f"the literature says {text(claim.expected)}",
        "headline": text(claim.headline),
        "warnings": warnings_of(claim),
        "arm": _arm(claim.arm),
        "controls": [_arm(control) for control in claim.controls],
        "power": text(claim.power),
        "switch": text(claim.switch),
        "effort": f"{claim.trials}{f' in {spent} of computing' if spent else ''}",
        "command": clean(claim.command).strip(),
        "figures": [_figure(view, figure, f"fig-{anchor}-{place}") for place, figure in enumerate(figures, 1)],
        "file": _table(
            view, f"{anchor}-points", _points(claim), f"Every point of claim {text(claim.id)} and of its controls"
        ),
    }


def warnings_of(claim: Claim) -> list[str]:
    """What a reader must know before trusting the numbers."""
    found = []
    if claim.stale:
        found.append(
            "Stale: the code has changed since these trials ran. Run the command below to bring them up to date."
        )
    if claim.failed:
        shown = "; ".join(text(trial) for trial in claim.failed[:5])
        more = f"; and {len(claim.failed) - 5} more" if len(claim.failed) > 5 else ""
        found.append(f"{len(claim.failed)} failed trial{'s' * (len(claim.failed) != 1)}: {shown}{more}.")
    return found


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "name": text(arm.name),
        "override": text(arm.override),
        "reason": text(arm.reason),
        "points": [_point(point) for point in arm.points],
    } | _outcome(arm.outcome)


def _point(point: Point) -> dict[str, Any]:
    return {
        "label": text(point.label),
        "n": str(point.n),
        "predicted": text(point.predicted),
        "measured": number(point.measured),
        "interval": interval(point.low, point.high),
        "band": interval(point.band_low, point.band_high),
    } | _outcome(point.outcome)


def _outcome(outcome: str) -> dict[str, str]:
    if outcome not in OUTCOMES:
        raise ReportError(f"{outcome!r} is no outcome; the outcomes are {', '.join(OUTCOMES)}.")
    return {"outcome": outcome, "sign": SIGNS[outcome]}


def _points(claim: Claim) -> dict[str, list[Any]]:
    arms = (claim.arm, *claim.controls)
    columns: dict[str, list[Any]] = {"arm": [arm.name or "claim" for arm in arms for _ in arm.points]}
    for name in ("label", "n", "predicted", "measured", "low", "high", "band_low", "band_high", "outcome"):
        columns[name] = [getattr(point, name) for arm in arms for point in arm.points]
    return columns


def _figure(view: View, figure: Figure | Surface, anchor: str) -> dict[str, Any]:
    picture = still(figure) if isinstance(figure, Surface) else figure
    check_columns(picture.name, picture.data)
    if not picture.alt.strip():
        raise ReportError(f"figure {picture.name!r} has no alternative text: say in words what it shows.")
    _check_svg(picture)
    path = f"{anchor}.svg"
    view.files[path] = picture.svg
    width, height = _size(picture.svg)
    return {
        "anchor": anchor,
        "name": text(picture.name),
        "path": path,
        "uri": "data:image/svg+xml;base64," + base64.b64encode(picture.svg).decode(),
        "width": str(round(width * 4 / 3)),
        "height": str(round(height * 4 / 3)),
        "share": 100 * width / PAGE_WIDTH_PT,
        "caption": text(picture.caption),
        "alt": text(picture.alt),
        "surface": for_canvas(figure) if isinstance(figure, Surface) else None,
        "file": _table(view, anchor, picture.data, f"Data behind the figure {text(picture.name)}"),
    }


def _check_svg(picture: Figure) -> None:
    try:
        tag = ElementTree.fromstring(picture.svg).tag
    except ElementTree.ParseError as error:
        raise ReportError(f"figure {picture.name!r} is no SVG: {error}.") from error
    if tag not in ("svg", "{http://www.w3.org/2000/svg}svg"):
        raise ReportError(f"figure {picture.name!r} is no SVG: its outermost element is {tag!r}.")


def _size(svg: bytes) -> tuple[float, float]:
    """Width and height in points, of an SVG as matplotlib writes it; a page's width by default."""
    found = re.search(rb'<svg[^>]*\bviewBox="[\d.eE+-]+ [\d.eE+-]+ ([\d.]+) ([\d.]+)"', svg)
    return (float(found[1]), float(found[2])) if found else (PAGE_WIDTH_PT, PAGE_WIDTH_PT * 0.6)


def _table(view: View, stem: str, columns: Any, what: str) -> dict[str, Any]:
    """A CSV download: a data URI in HTML, an attachment in the PDF."""
    csv = to_csv(columns)
    path = f"{stem}.csv"
    view.files[path] = csv
    names = list(columns)
    length = len(columns[names[0]]) if names else 0
    head = [[_cell(columns[name][row]) for name in names] for row in range(min(length, HEAD_ROWS))]
    size = f"{max(1, round(len(csv) / 1024))} KB"
    return {
        "name": path,
        "path": path,
        "what": what,
        "uri": "data:text/csv;charset=utf-8;base64," + base64.b64encode(csv).decode(),
        "size": size,
        "sha": digest(csv),
        "summary": f"{length} row{'s' * (length != 1)}, {size}",
        "columns": [text(name) for name in names],
        "head": head,
        "more": f"and {length - HEAD_ROWS} more rows in the download" if length > HEAD_ROWS else "",
    }


def _cell(value: Any, digits: int = 6) -> str:
    value = value.item() if hasattr(value, "item") else value
    return "" if value is None else number(value, digits) if isinstance(value, float) else text(value)


def _shown(view: View, table: Table, anchor: str) -> dict[str, Any]:
    """A table with its download; a column of numbers is set right, the first column names the rows."""
    if any(len(row) != len(table.columns) for row in table.rows):
        raise ReportError(f"table {table.title!r}: every row needs {len(table.columns)} cells, one for each column.")
    columns = {name: [row[place] for row in table.rows] for place, name in enumerate(table.columns)}
    kinds = [
        "k" if not place else "r" if all(isinstance(cell, int | float | None) for cell in column) else "l"
        for place, column in enumerate(columns.values())
    ]
    rows = [[_cell(cell, 3) for cell in row] for row in table.rows]
    longest = [max(map(len, column), default=0) for column in zip(*rows, strict=True)] or [0] * len(columns)
    shares = [sum(length > limit for limit in WIDE) for length in longest]
    return {
        "anchor": anchor,
        "title": text(table.title),
        "note": text(table.note),
        "columns": [[text(name), kind, share] for name, kind, share in zip(columns, kinds, shares, strict=True)],
        "rows": rows,
        "file": _table(view, anchor, columns, text(table.title)),
    }


def anchors_of(ids: list[str]) -> list[str]:
    """HTML ids and Typst labels of the claims: readable, safe, each different."""
    found: list[str] = []
    for index, id_ in enumerate(ids, 1):
        slug = re.sub(r"[^a-z0-9_-]+", "-", id_.lower()).strip("-")[:80] or str(index)
        anchor = f"claim-{slug}"
        found.append(anchor if anchor not in found else f"{anchor}-{index}")
    return found
