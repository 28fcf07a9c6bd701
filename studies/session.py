"""One run: find what is missing in the ledger, compute it, judge everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from .claim import Claim, Profile, Task, canonical
from .code import code_hash
from .environment import capture, python_version, version
from .errors import ClaimError
from .ledger import Entry, Ledger, Reply, Stamp
from .runner import Runner
from .study import Study, load
from .verdict import Result, judge

Progress = Callable[[int, int, Task, Reply], None]


@final
@dataclass(frozen=True)
class Request:
    """What a run was asked for."""

    studies: tuple[Study, ...]
    claims: frozenset[str]  # empty: all
    profile: Profile
    device: str
    workers: int
    salt: str = ""
    fresh: bool = False

    def chosen(self, study: Study) -> tuple[Claim, ...]:
        """The claims of a study that this run computes."""
        return tuple(claim for claim in study.claims if not self.claims or claim.id in self.claims)


def run(request: Request, folder: Path, progress: Progress) -> int:
    """Compute every missing trial into the folder's ledger; returns how many were computed."""
    _check_distinct(request)
    with Ledger(folder, write=True) as ledger:
        least: dict[str, int] = {}
        for study in request.studies:
            least |= _enter(ledger, study, request)
        claims = {claim.id: claim for study in request.studies for claim in request.chosen(study)}
        stamps = {claim.id: stamps_of(claim) for claim in claims.values()}
        generation = {id_: max(ledger.generation(id_), least[id_]) for id_ in claims}
        tasks = [
            task
            for claim in claims.values()
            for task in claim.tasks(request.profile, request.device, request.salt)
            if not ledger.has(task, least[task.claim], stamps[task.claim][task.arm])
        ]
        if not tasks:
            return 0
        started = time.perf_counter()
        record = ledger.begin_run(
            datetime.now(UTC).isoformat(timespec="seconds"), capture(request.workers, request.device)
        )
        with closing(Runner(request.workers, claims).run(_longest_first(tasks, claims))) as finished:
            for done, (task, reply) in enumerate(finished, 1):
                ledger.write(task, generation[task.claim], stamps[task.claim][task.arm], reply, record)
                progress(done, len(tasks), task, reply)
        ledger.end_run(record, time.perf_counter() - started)
        return len(tasks)


def _longest_first(tasks: Sequence[Task], claims: dict[str, Claim]) -> list[Task]:
    """Claims with the fewest trials first: their trials are the long ones, and a long trial last would run alone."""
    count = {id_: sum(task.claim == id_ for task in tasks) for id_ in claims}
    return sorted(tasks, key=lambda task: count[task.claim])


def _check_distinct(request: Request) -> None:
    """Rows go by the claim's id and pages by the study's name: two of one name would overwrite each other."""
    studies: dict[str, Study] = {}
    claims: dict[str, Study] = {}
    for study in request.studies:
        other = studies.setdefault(study.name, study)
        if other is not study:
            raise ClaimError(f"{other.origin} and {study.origin} are both called {study.name!r}: rename one file.")
        for claim in study.claims:
            other = claims.setdefault(claim.id, study)
            if other is not study:
                raise ClaimError(f"{other.origin} and {study.origin} both hold a claim {claim.id!r}: rename one.")


def _enter(ledger: Ledger, study: Study, request: Request) -> dict[str, int]:
    """Record the request for a study; returns the least generation of each claim's rows that counts as done."""
    ids = [claim.id for claim in request.chosen(study)]
    entries = ledger.entries()
    for other in entries.values():
        if other.name != study.name and set(other.claims) & set(ids):
            shared = min(set(other.claims) & set(ids))
            raise ClaimError(
                f"{ledger.folder} already holds a claim {shared!r} of {other.name}: rename one, or choose another folder with --out."
            )
    generations = {id_: ledger.generation(id_) + 1 for id_ in ids} if request.fresh else {}
    before = entries.get(study.name)
    if before and (before.profile, before.salt, before.device) == (request.profile, request.salt, request.device):
        ids = [claim.id for claim in study.claims if claim.id in {*ids, *before.claims}]
        generations = {**before.generations, **generations}
    entry = Entry(study.name, study.origin, tuple(ids), request.profile, request.salt, request.device, generations)
    ledger.enter(entry)
    return {id_: generations.get(id_, 0) for id_ in ids}


def stamps_of(claim: Claim) -> dict[str, Stamp]:
    """What a row of each arm must have been made by, to count as done."""
    return {arm: Stamp(code_hash(claim, arm), version("torch"), python_version()) for arm in ("", *claim.controls)}


@final
@dataclass(frozen=True)
class Judged:
    """A study with its results and the run they came from: all that a report needs."""

    study: Study
    entry: Entry
    results: tuple[Result, ...]
    date: str
    environment: dict[str, Any]


def judged(folder: Path, current: bool = True) -> list[Judged]:
    """Judge every study of a folder's ledger; ``current=False`` takes a published ledger as it stands."""
    with Ledger(folder) as ledger:
        made = [_judged(ledger, entry, current) for entry in ledger.entries().values()]
    return [study for study in made if study.date]  # a run stopped before its first row has nothing to judge


def _judged(ledger: Ledger, entry: Entry, current: bool) -> Judged:
    study = load(entry.origin)
    results = []
    for claim in study.claims:
        if claim.id in entry.claims:
            stamps = stamps_of(claim) if current else {}
            rows = _of_profile(claim, entry.profile, ledger.rows(claim.id, entry.salt, entry.device, stamps))  # type: ignore[arg-type]
            results.append(Result(claim, entry.profile, tuple(rows), judge(claim, rows, entry.profile)))  # type: ignore[arg-type]
    date, environment = ledger.environment(entry.claims)
    return Judged(study, entry, tuple(results), date, environment)


def _of_profile(claim: Claim, profile: Profile, rows: Iterable[Any]) -> list[Any]:
    """The rows of a profile's grid, in its order: a ledger may hold both profiles and arms since renamed."""
    order = {(task.arm, task.point, task.k): n for n, task in enumerate(claim.tasks(profile))}
    keyed = [(order.get((row.arm, canonical(row.point), row.k)), row) for row in rows]
    return [row for _, row in sorted(((n, row) for n, row in keyed if n is not None), key=lambda pair: pair[0])]
