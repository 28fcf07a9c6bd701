"""The ledger: every trial ever run, in one SQLite file with one writer.

A row's identity is (claim, arm, point, k, salt, device, dtype, generation). Beside it stand the hash of the code that made
it and the versions of Python and torch; a run recomputes where those differ. Arrays are ``.npy`` blobs, never pickle.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from .claim import Task
from .errors import LedgerBusy, LedgerFull, StudyError
from .rows import Row

FILE = "ledger.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, environment TEXT NOT NULL, seconds REAL);
CREATE TABLE IF NOT EXISTS studies (name TEXT PRIMARY KEY, origin TEXT NOT NULL, claims TEXT NOT NULL, profile TEXT NOT NULL,
    salt TEXT NOT NULL, device TEXT NOT NULL, generations TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (id INTEGER PRIMARY KEY, claim TEXT NOT NULL, arm TEXT NOT NULL, point TEXT NOT NULL,
    k INTEGER NOT NULL, salt TEXT NOT NULL, device TEXT NOT NULL, dtype TEXT NOT NULL, generation INTEGER NOT NULL,
    seed INTEGER NOT NULL, code TEXT NOT NULL, torch TEXT NOT NULL, python TEXT NOT NULL, numbers TEXT NOT NULL,
    error TEXT NOT NULL, lost INTEGER NOT NULL, seconds REAL NOT NULL, peak_bytes INTEGER NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (id),
    UNIQUE (claim, arm, point, k, salt, device, dtype, generation));
CREATE TABLE IF NOT EXISTS arrays (trial INTEGER NOT NULL REFERENCES trials (id) ON DELETE CASCADE, name TEXT NOT NULL,
    npy BLOB NOT NULL, PRIMARY KEY (trial, name));
"""
_IDENTITY = "claim = ? AND arm = ? AND point = ? AND k = ? AND salt = ? AND device = ? AND dtype = ?"


@final
@dataclass(frozen=True)
class Stamp:
    """What made a row: the code's hash and the versions. A row with another stamp is recomputed."""

    code: str
    torch: str
    python: str


@final
@dataclass(frozen=True)
class Reply:
    """What a worker returns of a trial. ``lost``: the worker died or ran out of time, so the trial is tried again next run."""

    values: Mapping[str, Any]
    error: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    lost: bool = False


@final
@dataclass(frozen=True)
class Entry:
    """A study as last run: what a report must render."""

    name: str
    origin: str
    claims: tuple[str, ...]
    profile: str
    salt: str
    device: str
    generations: Mapping[str, int]  # after --fresh, the least generation of a claim's rows that counts as done


@final
class Ledger:
    """Open a folder's ledger; ``write=True`` holds the folder's lock until closed or killed."""

    def __init__(self, folder: Path, write: bool = False) -> None:
        self.folder = folder
        self._lock: sqlite3.Connection | None = None
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(folder)
        elif not (folder / FILE).is_file():
            raise StudyError(f"{folder} holds no {FILE}: give the folder of a run, or run a study there first.")
        try:
            self._db = _connect(folder / FILE, write)
            self._db.execute("PRAGMA foreign_keys = ON")
            if write:
                self._db.executescript(_SCHEMA)
            else:
                self._db.execute("SELECT name FROM studies LIMIT 1")
        except sqlite3.Error as error:
            if self._lock is not None:
                self._lock.close()
            raise StudyError(
                f"{folder / FILE} cannot be opened as a ledger ({error}): choose another folder, or run a study there first."
            ) from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the folder."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def _safely(self) -> _Transaction:
        return _Transaction(self._db, self.folder)

    def begin_run(self, started: str, environment: Mapping[str, Any]) -> int:
        """Record the machine and the time of a run; rows refer to it."""
        with self._safely():
            cursor = self._db.execute(
                "INSERT INTO runs (started, environment) VALUES (?, ?)", (started, json.dumps(environment))
            )
        return int(cursor.lastrowid or 0)

    def end_run(self, run: int, seconds: float) -> None:
        """Record how long a run took."""
        with self._safely():
            self._db.execute("UPDATE runs SET seconds = ? WHERE id = ?", (seconds, run))

    def enter(self, entry: Entry) -> None:
        """Record which study was asked for, and how."""
        values = asdict(entry) | {"claims": json.dumps(entry.claims), "generations": json.dumps(entry.generations)}
        if self.entries().get(entry.name) == entry:
            return
        with self._safely():
            self._db.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?, ?, ?, ?)", tuple(values.values()))

    def entries(self) -> dict[str, Entry]:
        """The studies of this folder by name."""
        rows = self._db.execute("SELECT * FROM studies ORDER BY name").fetchall()
        return {
            name: Entry(name, origin, tuple(json.loads(claims)), profile, salt, device, json.loads(generations))
            for name, origin, claims, profile, salt, device, generations in rows
        }

    def generation(self, claim: str) -> int:
        """The newest generation of a claim's rows."""
        found = self._db.execute("SELECT MAX(generation) FROM trials WHERE claim = ?", (claim,)).fetchone()[0]
        return found or 0

    def has(self, task: Task, least: int, stamp: Stamp) -> bool:
        """Whether a trial's newest row is of at least this generation, by this code, and not lost."""
        query = f"SELECT generation, lost, code, torch, python FROM trials WHERE {_IDENTITY} ORDER BY generation DESC"
        generation, lost, *made = self._db.execute(query, task.identity).fetchone() or (-1, 1, "", "", "")
        return generation >= least and not lost and Stamp(*made) == stamp

    def write(self, task: Task, generation: int, stamp: Stamp, reply: Reply, run: int) -> None:
        """Write one trial in one transaction."""
        numbers = {name: value for name, value in reply.values.items() if not isinstance(value, np.ndarray)}
        arrays = {name: value for name, value in reply.values.items() if isinstance(value, np.ndarray)}
        row = (*task.identity, generation, task.seed, stamp.code, stamp.torch, stamp.python, json.dumps(numbers, allow_nan=False),
               reply.error, reply.lost, reply.seconds, reply.peak_bytes, run)  # fmt: skip
        with self._safely():
            self._db.execute(f"DELETE FROM trials WHERE {_IDENTITY} AND generation = ?", (*task.identity, generation))
            columns = "claim, arm, point, k, salt, device, dtype, generation, seed, code, torch, python, numbers, error, lost, seconds, peak_bytes, run"
            cursor = self._db.execute(f"INSERT INTO trials ({columns}) VALUES ({', '.join('?' * len(row))})", row)
            blobs = [(cursor.lastrowid, name, _npy(array)) for name, array in arrays.items()]
            self._db.executemany("INSERT INTO arrays VALUES (?, ?, ?)", blobs)

    def rows(self, claim: str, salt: str, device: str, stamps: Mapping[str, Stamp]) -> list[Row]:
        """The newest row of every trial of a claim; rows not made by ``stamps[arm]`` are marked stale."""
        query = """SELECT id, arm, point, k, numbers, error, seconds, peak_bytes, code, torch, python, MAX(generation)
            FROM trials WHERE claim = ? AND salt = ? AND device = ? GROUP BY arm, point, k, dtype ORDER BY arm, point, k"""
        rows = []
        for id_, arm, point, k, numbers, error, seconds, peak, *made, _ in self._db.execute(
            query, (claim, salt, device)
        ):
            blobs = self._db.execute("SELECT name, npy FROM arrays WHERE trial = ?", (id_,))
            values = json.loads(numbers) | {name: np.load(io.BytesIO(npy), allow_pickle=False) for name, npy in blobs}
            stale = arm in stamps and Stamp(*made) != stamps[arm]
            rows.append(Row(claim, arm, json.loads(point), k, values, error, seconds, peak, stale))
        return rows

    def environment(self, claims: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Date and environment of the newest run that made a row of these claims."""
        marks = ", ".join("?" * len(claims))
        query = (
            f"SELECT started, environment FROM runs WHERE id = (SELECT MAX(run) FROM trials WHERE claim IN ({marks}))"
        )
        found = self._db.execute(query, tuple(claims)).fetchone()
        return (found[0], json.loads(found[1])) if found else ("", {})


class _Transaction:
    """One transaction; a full disk becomes a typed error, and what was finished stays."""

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self.db, self.folder = db, folder

    def __enter__(self) -> None:
        self.db.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.db.__exit__(kind, error, trace)
        except sqlite3.OperationalError as failed:
            error = failed
        if isinstance(error, sqlite3.OperationalError):
            raise LedgerFull(
                f"the ledger in {self.folder} cannot be written ({error}); free some space and run again: finished trials are kept."
            ) from error


def _connect(path: Path, write: bool) -> sqlite3.Connection:
    # A killed writer may leave a journal to roll back, which a read-only connection cannot do: read-only only where it must be.
    mode = "rwc" if write else "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=30)


def _hold(folder: Path) -> sqlite3.Connection:
    """Lock a folder with SQLite's own exclusive lock: portable, and freed by the system when the holder dies."""
    lock, note = folder / "ledger.lock", folder / "ledger.holder"
    connection = sqlite3.connect(lock, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorname != "SQLITE_BUSY":
            raise StudyError(f"{folder} cannot be written ({error}); choose another folder with --out.") from error
        holder = note.read_text() if note.is_file() else "another process"
        raise LedgerBusy(
            f"{folder} is in use by {holder}; wait for it, stop it, or choose another folder with --out."
        ) from None
    note.write_text(f"process {os.getpid()} on {os.uname().nodename if hasattr(os, 'uname') else 'this machine'}")
    return connection


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
