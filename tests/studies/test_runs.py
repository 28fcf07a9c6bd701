"""Real runs in real workers: deaths, hangs, kills and orphans."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lemmata.studies.errors import StudyError
from lemmata.studies.runner import Runner
from lemmata.studies.study import load

TROUBLE = '''
@claim(predicts=AtMost(1), controls={"c\\n“d”": dict(big=True)}, timeout=3, **SMALL)
def troubled(n: int, seed: int, big: bool = False) -> float:
    """One point kills or hangs its worker."""
    if n == 2 and big:
        if WHAT == "die":
            os.kill(os.getpid(), 9)
        time.sleep(60)
    return 5.0 if big else 0.5
'''
SLOW = '''
@claim(predicts=AtMost(1), controls={"c": dict(big=True)}, source="me2026",
       quick=Grid(n=list(range(6)), seeds=5), full=Grid(n=list(range(6)), seeds=5))
def slow(n: int, seed: int, big: bool = False) -> dict:
    """Sixty trials of a twentieth of a second."""
    time.sleep(0.05)
    return {"value": 5.0 if big else (seed % 1000) / 1000, "curve": np.random.default_rng(seed).normal(size=50)}
'''


def command(file: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "lemmata.studies.cli",
        "run",
        str(file),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--workers",
        "2",
        *more,
    ]


def run(file: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(file, out, *more), capture_output=True, text=True, timeout=120, check=False)


def values(out: Path) -> list[tuple[object, ...]]:
    """The ledger's results, without what differs from run to run (times)."""
    if not (out / "ledger.db").is_file():
        return []
    with sqlite3.connect(out / "ledger.db") as db:
        if not db.execute("SELECT name FROM sqlite_master WHERE name = 'arrays'").fetchone():
            return []
        query = """SELECT claim, arm, point, k, salt, device, dtype, generation, seed, code, torch, python, numbers, error, npy
            FROM trials LEFT JOIN arrays ON arrays.trial = trials.id ORDER BY claim, arm, point, k"""
        return db.execute(query).fetchall()


def processes(mark: str) -> list[str]:
    """Command lines of live processes that hold a mark (a run's folder) in their environment: its workers inherit it."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("what", "message"), [("die", "the worker died 3 times"), ("hang", "no result after 3 s")])
def test_dead_and_hanging_workers_are_named_and_the_rest_goes_on(
    claims_file: Callable[..., Path], tmp_path: Path, what: str, message: str
) -> None:
    file = claims_file(TROUBLE.replace("WHAT", repr(what)).replace("seeds=5", "seeds=1"))
    file.write_text(file.read_text().replace("seeds=5", "seeds=1"))
    done = run(file, tmp_path / "out")
    assert done.returncode == 3, done.stderr
    assert re.search(rf'failed: troubled \[control: c\n“d”\] at {{"n":2}} seed 0: {message}', done.stderr)
    rows = values(tmp_path / "out")
    assert len(rows) == 4
    assert [row[1:4] for row in rows if row[13]] == [("c\n“d”", '{"n":2}', 0)]


def test_a_second_run_computes_nothing_and_writes_nothing(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    file, out = claims_file(SLOW), tmp_path / "out"
    first = run(file, out)
    assert first.returncode == 0, first.stderr
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in out.rglob("*")
        if path.is_file() and "ledger." not in path.name
    }
    ledger = (out / "ledger.db").read_bytes()
    again = run(file, out)
    assert "Nothing to compute" in again.stderr
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert (out / "ledger.db").read_bytes() == ledger


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="finds orphans through /proc; run it on Linux")
@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_lose_at_most_what_was_in_flight(
    claims_file: Callable[..., Path], tmp_path: Path, times: int
) -> None:
    """Kill the parent, or a worker's whole family, between the first and the last row; the next run finishes the rest."""
    file = claims_file(SLOW)
    run(file, tmp_path / "whole")
    expected = values(tmp_path / "whole")
    assert len(expected) == 60
    partial = 0
    for attempt in range(times):
        out = tmp_path / f"killed{attempt}"
        mark = f"LEMMATA_TEST_MARK={out}"
        victim = subprocess.Popen(
            command(file, out),
            env=os.environ | {"LEMMATA_TEST_MARK": str(out)},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wanted = 5 + attempt * 50 // times
        while len(values(out)) < wanted and victim.poll() is None:
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        partial += 0 < len(values(out)) < 60
        deadline = time.monotonic() + 20
        while (left := processes(mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, "a process survived its parent"
        assert run(file, out).returncode == 0
        assert values(out) == expected
    assert partial >= 0.75 * times


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="finds orphans through /proc; run it on Linux")
def test_interrupt_is_clean_and_resumable(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    file, out = claims_file(SLOW), tmp_path / "out"
    victim = subprocess.Popen(
        command(file, out), env=os.environ | {"LEMMATA_TEST_MARK": str(out)}, stderr=subprocess.PIPE, text=True
    )
    while not values(out) and victim.poll() is None:
        time.sleep(0.02)
    victim.send_signal(signal.SIGINT)
    _, stderr = victim.communicate(timeout=30)
    assert victim.returncode == 130
    assert "Interrupted" in stderr
    assert "Traceback" not in stderr
    deadline = time.monotonic() + 10
    while (left := processes(f"LEMMATA_TEST_MARK={out}")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert 0 < len(values(out)) < 60
    assert run(file, out).returncode == 0
    assert len(values(out)) == 60


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="finds workers through /proc; run it on Linux")
def test_interrupt_while_workers_start_prints_no_traceback(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the whole group, also to workers that have not yet learnt to ignore it."""
    out = tmp_path / "out"
    victim = subprocess.Popen(
        command(claims_file(SLOW), out),
        env=os.environ | {"LEMMATA_TEST_MARK": str(out)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while sum("spawn_main" in line for line in processes(f"LEMMATA_TEST_MARK={out}")) < 2 and victim.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)  # the workers now import torch
    os.killpg(victim.pid, signal.SIGINT)
    _, stderr = victim.communicate(timeout=30)
    assert victim.returncode == 130
    assert "Traceback" not in stderr
    assert "Interrupted" in stderr


def test_any_executor_will_do() -> None:
    """Also one in this process, which the default workers' watch on time would end."""
    made = replace(load("lemmata.studies.foundations.cross_entropy").claims[0], timeout=0.001)
    tasks = made.tasks("quick")[:4]
    replies = list(Runner(1, {made.id: made}, ThreadPoolExecutor).run(tasks))
    assert {task for task, _ in replies} == set(tasks)
    assert not any(reply.error for _, reply in replies)


def test_workers_that_cannot_start_end_the_run() -> None:
    made = load("lemmata.studies.foundations.cross_entropy").claims[0]
    with pytest.raises(StudyError, match="before their first trial"):
        list(Runner(2, {made.id: made}, Broken).run(made.tasks("quick")))


class Broken(ThreadPoolExecutor):
    """An executor whose workers never start."""

    def submit(self, *_: Any, **__: Any) -> Any:
        future: Future[Any] = Future()
        future.set_exception(BrokenExecutor())
        return future


def test_a_killed_worker_costs_nothing(claims_file: Callable[..., Path], tmp_path: Path) -> None:
    file, out = claims_file(SLOW), tmp_path / "out"
    parent = subprocess.Popen(
        command(file, out),
        env=os.environ | {"LEMMATA_TEST_MARK": str(out)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while len(values(out)) < 5 and parent.poll() is None:
        time.sleep(0.02)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    if not children.is_file():
        parent.kill()
        pytest.skip("no /proc children list on this system; run it on Linux")
    workers = [
        int(pid)
        for pid in children.read_text().split()
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(workers[0], signal.SIGKILL)
    assert parent.wait(timeout=60) == 0
    assert len(values(out)) == 60
