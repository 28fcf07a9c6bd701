"""Benchmarks' JSON files become a page of the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lemmata.studies.benchmarks.timing import environment, write
from lemmata.studies.errors import StudyError
from lemmata.studies.measurements import measured

ROWS = [
    {"work": "product", "model": "MLP", "milliseconds": 2.0, "ratio": 1.5, "low": 1.4, "high": 1.6, "met": False},
    {"work": "trace", "model": "MLP", "milliseconds": None, "ratio": None, "low": None, "high": None, "note": "never"},
]


def test_a_benchmark_file_becomes_a_table_for_each_work(tmp_path: Path) -> None:
    assert measured(tmp_path) == []
    write(tmp_path / "curvature-cpu.json", environment("cpu", 7), rows=ROWS)
    (page,) = measured(tmp_path)
    first, second = page.tables
    assert (first.title, second.title) == ("product (curvature cpu)", "trace (curvature cpu)")
    assert first.columns == ("model", "ms", "ratio", "range", "met")
    assert first.rows == (("MLP", 2.0, 1.5, "[1.4, 1.6]", "missed"),)
    assert second.columns == ("model", "note") and second.rows == (("MLP", "never"),)
    assert f"date {page.date}" in first.note and "rounds 7" in first.note and not page.claims


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"rows": ROWS})], ids=["broken", "a list", "undated"])
def test_what_no_benchmark_wrote_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(StudyError, match="odd.json.*--json"):
        measured(tmp_path)
