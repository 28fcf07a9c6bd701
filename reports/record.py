"""The plain records that a report is made of: frozen dataclasses of text, numbers and bytes, nothing to compute.

The engine fills them from the ledger; this package turns them into pages. Nothing here knows torch.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERDICTS = ("SUPPORTED", "REFUTED", "INCONCLUSIVE", "DEPENDS", "INVALID")
OUTCOMES = ("holds", "fails", "undecided")


class ReportError(ValueError):
    """A record that cannot be rendered; the message names what is wrong and what to do."""


class MissingSourceError(ReportError):
    """A claim cites a key that `references.bib` does not have."""


@dataclass(frozen=True)
class Figure:
    """A picture (SVG bytes) with the numbers it shows: `data` maps column names to columns of one length."""

    name: str
    svg: bytes
    caption: str
    alt: str
    data: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Surface:
    """A loss surface `z[i][j]` over `(x[j], y[i])`: turned by hand in HTML, a still picture in the PDF and in print."""

    name: str
    caption: str
    alt: str
    x_label: str
    y_label: str
    z_label: str
    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Point:
    """One point of a grid: `measured` with its interval [low, high] against the band [band_low, band_high]."""

    label: str
    n: int
    predicted: str
    measured: float
    low: float
    high: float
    band_low: float
    band_high: float
    outcome: str


@dataclass(frozen=True)
class Arm:
    """The claim's own trial (name "") or a control (one hypothesis removed by `override`)."""

    name: str
    override: str
    outcome: str
    reason: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Claim:
    """A published statement with what was predicted, measured and concluded. `statement` is Typst markup."""

    id: str
    title: str
    statement: str
    sources: tuple[str, ...]
    prediction: str
    verdict: str
    reason: str
    expected: str
    headline: str
    arm: Arm
    controls: tuple[Arm, ...]
    power: str
    figures: tuple[Figure | Surface, ...]
    command: str
    trials: int
    failed: tuple[str, ...]
    stale: bool
    seconds: float
    switch: str


@dataclass(frozen=True)
class Table:
    """A table beside the claims: heads, and rows of text, numbers or None; `note` says in plain words what it holds."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


@dataclass(frozen=True)
class Study:
    """One study: everything its report shows. `date` is the ISO date of the run, from the ledger, never from now.

    A page of measurements is a study without claims, whose `profile` is "".
    `bibliography` is BibTeX text of the study's own (a `references.bib` beside a user's file), added to the lab's.
    """

    name: str
    title: str
    abstract: str
    claims: tuple[Claim, ...]
    environment: tuple[tuple[str, str], ...]
    date: str
    profile: str
    bibliography: str = ""
    tables: tuple[Table, ...] = ()


def to_json(record: Any) -> Any:
    """A record as plain JSON values: floats that JSON lacks become "inf", "-inf", "nan"; bytes become base64."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, bytes):
        return base64.b64encode(record).decode("ascii")
    if hasattr(record, "tolist"):
        return to_json(record.tolist())
    if isinstance(record, Sequence) and not isinstance(record, str):
        return [to_json(value) for value in record]
    if isinstance(record, float) and (record != record or abs(record) == float("inf")):
        return str(record)
    return record
