"""Benchmarks' JSON files as a page of a report: what was measured, on which machine, every row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lemmata.reports import record
from lemmata.reports.numerals import interval

from .errors import StudyError

Rows = Sequence[dict[str, Any]]
_WORDS = {True: "met", False: "missed"}


def measured(folder: Path) -> list[record.Study]:
    """One page for the ``*.json`` files that the benchmarks wrote into a folder; none where there are none.

    A file holds what it depends on (``date``, ``torch``, ``name``, ``threads``, …) and lists of rows, one dictionary each;
    rows that differ in ``work`` come in tables of their own.

    Raises
    ------
    StudyError : a file is no such JSON.

    """
    files = sorted(folder.glob("*.json"))
    if not files:
        return []
    contents = [_read(file) for file in files]
    tables = tuple(table for file, found in zip(files, contents, strict=True) for table in _tables(file.stem, found))
    date = max(found["date"] for found in contents)
    about = (
        "Each benchmark measures its contenders side by side, in turn, in one run on one machine, and states ratios taken "
        "within a round. They are figures of that machine, not claims: nothing here is judged."
    )
    return [record.Study("measurements", "How fast", about, (), (), date, "", tables=tables)]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{file} is no JSON ({error}): write it with a benchmark's --json option.") from error
    if not isinstance(found, dict) or not isinstance(found.get("date"), str):
        raise StudyError(f"{file} has no date: write it with a benchmark's --json option.")
    return found


def _tables(stem: str, found: dict[str, Any]) -> Iterator[record.Table]:
    note = ", ".join(f"{key} {value}" for key, value in found.items() if not isinstance(value, list))
    for name, rows in found.items():
        if isinstance(rows, list) and rows:
            for work in dict.fromkeys(row.get("work", name) for row in rows):
                chosen = [_read_by_people(row) for row in rows if row.get("work", name) == work]
                yield _table(f"{work} ({stem.replace('-', ' ')})", f"{note}.", chosen)


def _read_by_people(row: dict[str, Any]) -> dict[str, Any]:
    """Short heads, and the two ends of a range in one cell, right after what it is the range of."""
    shown: dict[str, Any] = {}
    for key, value in row.items():
        if key == "low":
            shown["range"] = "" if value is None else interval(value, row["high"])
        elif key not in ("high", "work"):
            shown[key.replace("milliseconds", "ms").replace("_", " ")] = (
                _WORDS.get(value, value) if key == "met" else value
            )
    return shown


def _table(title: str, note: str, rows: Rows) -> record.Table:
    """Columns in the order of the rows' keys, those that are empty throughout left out."""
    keys = dict.fromkeys(key for row in rows for key in row)
    used = [key for key in keys if any(row.get(key) not in (None, "") for row in rows)]
    return record.Table(title, note, tuple(used), tuple(tuple(row.get(key) for key in used) for row in rows))
