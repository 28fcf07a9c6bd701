"""The ledger: identities, staleness, arrays, locks, full disks."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemmata.studies.claim import Task
from lemmata.studies.errors import LedgerBusy, LedgerFull, StudyError
from lemmata.studies.ledger import Entry, Ledger, Reply, Stamp

STAMP = Stamp("code", "2.13", "3.11.7")
TASK = Task("m", "c", "", '{"n":1}', 0, "", "cpu")


def test_a_row_comes_back_with_its_arrays(tmp_path: Path) -> None:
    curve = np.linspace(0, 1, 5)
    with Ledger(tmp_path, write=True) as ledger:
        run = ledger.begin_run("2026-01-01T00:00:00+00:00", {"python": "3.11"})
        ledger.write(TASK, 0, STAMP, Reply({"value": 0.1, "curve": curve}, seconds=1.5), run)
    with Ledger(tmp_path) as ledger:
        (row,) = ledger.rows("c", "", "cpu", {"": STAMP})
        assert ledger.environment(["c"]) == ("2026-01-01T00:00:00+00:00", {"python": "3.11"})
    assert row.value == 0.1
    assert row.values["curve"].tolist() == curve.tolist()
    assert (row.point, row.k, row.seconds, row.stale) == ({"n": 1}, 0, 1.5, False)


def test_other_code_or_versions_are_recomputed_and_marked_stale(tmp_path: Path) -> None:
    with Ledger(tmp_path, write=True) as ledger:
        ledger.write(TASK, 0, STAMP, Reply({"value": 1.0}), ledger.begin_run("", {}))
        assert ledger.has(TASK, 0, STAMP)
        for other in (Stamp("new", "2.13", "3.11.7"), Stamp("code", "2.14", "3.11.7"), Stamp("code", "2.13", "3.12.0")):
            assert not ledger.has(TASK, 0, other)
            assert ledger.rows("c", "", "cpu", {"": other})[0].stale
        assert not ledger.has(TASK, 1, STAMP)


def test_lost_trials_are_tried_again_and_failed_ones_are_not(tmp_path: Path) -> None:
    with Ledger(tmp_path, write=True) as ledger:
        run = ledger.begin_run("", {})
        ledger.write(TASK, 0, STAMP, Reply({}, "the worker died", lost=True), run)
        assert not ledger.has(TASK, 0, STAMP)
        ledger.write(TASK, 0, STAMP, Reply({}, "ValueError: nan"), run)
        assert ledger.has(TASK, 0, STAMP)
        assert len(ledger.rows("c", "", "cpu", {})) == 1


def test_the_newest_generation_wins_and_the_old_stays(tmp_path: Path) -> None:
    with Ledger(tmp_path, write=True) as ledger:
        run = ledger.begin_run("", {})
        for generation in (0, 1):
            ledger.write(TASK, generation, STAMP, Reply({"value": float(generation)}), run)
        assert [row.value for row in ledger.rows("c", "", "cpu", {})] == [1.0]
        assert ledger.generation("c") == 1
    assert sqlite3.connect(tmp_path / "ledger.db").execute("SELECT COUNT(*) FROM trials").fetchone() == (2,)


def _try(folder: Path, answer: Any) -> None:
    try:
        Ledger(folder, write=True).close()
        answer.put("free")
    except LedgerBusy as error:
        answer.put(str(error))


def test_a_held_folder_is_refused_at_once_with_its_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with Ledger(tmp_path, write=True):
        other = context.Process(target=_try, args=(tmp_path, answer))
        other.start()
        message = answer.get(timeout=60)
        other.join()
    import os

    assert f"process {os.getpid()}" in message
    assert "--out" in message
    Ledger(tmp_path, write=True).close()


def test_a_full_disk_is_a_typed_error_and_keeps_what_was_finished(tmp_path: Path) -> None:
    with Ledger(tmp_path, write=True) as ledger:
        run = ledger.begin_run("", {})
        ledger.write(TASK, 0, STAMP, Reply({"value": 1.0}), run)
        pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
        ledger._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to a full disk
        with pytest.raises(LedgerFull, match="free some space"):
            ledger.write(
                Task("m", "c", "", '{"n":2}', 0, "", "cpu"),
                0,
                STAMP,
                Reply({"value": 1.0, "big": np.zeros(10**5)}),
                run,
            )
    with Ledger(tmp_path) as ledger:
        assert len(ledger.rows("c", "", "cpu", {})) == 1


def test_a_folder_without_a_ledger_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="run a study there first"):
        Ledger(tmp_path)


def test_it_opens_read_only(tmp_path: Path) -> None:
    with Ledger(tmp_path, write=True) as ledger:
        ledger.enter(Entry("a/b", "lemmata.studies.a.b", ("c",), "quick", "", "cpu", {}))
    (tmp_path / "ledger.db").chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with Ledger(tmp_path) as ledger:
            assert list(ledger.entries()) == ["a/b"]
    finally:
        tmp_path.chmod(0o755)


def test_a_file_that_is_no_ledger_is_a_typed_error(tmp_path: Path) -> None:
    for content in (b"", b"no database at all, whatever its name may be" * 9):
        (tmp_path / "ledger.db").write_bytes(content)
        with pytest.raises(StudyError, match="cannot be opened as a ledger"):
            Ledger(tmp_path)
