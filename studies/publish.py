"""From judged studies to report records, pages and ``verdicts.json``. Nothing here computes a trial."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lemmata.reports import compile as pages
from lemmata.reports import figures, record

from .claim import Claim, Draw, Profile
from .errors import StudyError
from .judgement import Finding, Judgement, number
from .measurements import measured
from .session import Judged
from .verdict import Result, headline, label, samples_of, varying, worst_of

_SEVERAL = 4  # studies; below, starting a process takes longer than it saves


def publish(studies: Sequence[Judged], folder: Path) -> list[Path]:
    """Write every study's HTML and PDF, the index and ``verdicts.json``; files whose bytes stay the same are left alone.

    Benchmarks that were written to ``measurements/`` in the folder get a page of their own.
    """
    records, written = _write(studies, folder)
    for made in measured(folder / "measurements"):
        records.append(made)
        written += pages.write_study(made, folder)
    index = pages.write_index(records, folder, note=chance_note(studies))
    _write_if_new(folder / "verdicts.json", json.dumps(verdicts(studies), indent=1, ensure_ascii=False) + "\n")
    return [index, *written]


def _write(studies: Sequence[Judged], folder: Path) -> tuple[list[record.Study], list[Path]]:
    """Draw every study's figures here; where there are several, another process sets their pages meanwhile."""
    if len(studies) < _SEVERAL:
        records = [study_record(judged) for judged in studies]
        return records, [path for made in records for path in pages.write_study(made, folder)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        records, jobs = [], []
        for judged in studies:
            records.append(study_record(judged))
            jobs.append(pool.submit(pages.write_study, records[-1], folder))
        return records, [path for job in jobs for path in job.result()]


def exit_status(studies: Sequence[Judged]) -> int:
    """0 as expected, 1 a verdict differs, 3 only INCONCLUSIVE stands between."""
    differing = {r.verdict.name for judged in studies for r in judged.results if r.verdict.name != r.claim.expects}
    return 0 if not differing else 3 if differing == {"INCONCLUSIVE"} else 1


def chance_note(studies: Sequence[Judged]) -> str:
    """How many verdicts may be false by chance alone."""
    results = [result for judged in studies for result in judged.results]
    sampled = sum(result.claim.predicts.sampled for result in results)
    return (
        f"{sampled} of {len(results)} claims are judged by sampled intervals, simultaneous at 95 % for each claim; the others are exact "
        f"statements about the instances that ran. Even if every true value lay on the edge of its band, at most {number(0.05 * sampled)} "
        f"of these verdicts would be expected to be false by chance."
    )


def verdicts(studies: Sequence[Judged]) -> dict[str, Any]:
    """Machine-readable verdicts: per claim id, what was expected, predicted, measured and concluded."""
    found = {}
    for judged in studies:
        for result in judged.results:
            worst = worst_of(result.verdict.claim)
            found[result.claim.id] = {
                "study": judged.study.name,
                "profile": result.profile,
                "verdict": result.verdict.name,
                "reason": result.verdict.reason,
                "expected": result.claim.expects,
                "predicted": result.claim.predicts.words(),
                "measured": worst and _finite(worst.measured),
                "interval": worst and [_finite(worst.low), _finite(worst.high)],
                "controls": {name: judgement.outcome for name, judgement in result.verdict.controls.items()},
            }
    return found


def _finite(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)


def study_record(judged: Judged) -> record.Study:
    """A study's record for the report."""
    claims = tuple(_claim_record(result, judged) for result in judged.results)
    rows = [row for result in judged.results for row in result.rows]
    environment = [(name, str(value)) for name, value in judged.environment.items()]
    environment.append(("trial time", f"{sum(row.seconds for row in rows):.1f} s over {len(rows)} trials"))
    environment.append(
        ("peak memory of a worker", f"{max((row.peak_bytes for row in rows), default=0) / 2**20:.0f} MiB")
    )
    study = judged.study
    return record.Study(
        name=study.name,
        title=study.title,
        abstract=study.abstract,
        claims=claims,
        environment=tuple(environment),
        date=judged.date[:10],
        profile=judged.entry.profile,
        bibliography=_own_bibliography(judged.entry.origin),
        tables=study.tables(),
    )


def _own_bibliography(origin: str) -> str:
    """The ``references.bib`` beside a user's file; the lab's own studies have the lab's."""
    beside = Path(origin).with_name("references.bib")
    return beside.read_text(encoding="utf-8") if origin.endswith(".py") and beside.is_file() else ""


def _claim_record(result: Result, judged: Judged) -> record.Claim:
    claim, verdict, rows = result.claim, result.verdict, result.rows
    arm = _arm("", "", verdict.claim)
    controls = tuple(_arm(name, _override(claim, name), judgement) for name, judgement in verdict.controls.items())
    return record.Claim(
        id=claim.id,
        title=claim.title,
        statement=claim.statement,
        sources=claim.sources,
        prediction=_prediction(claim, result.profile),
        verdict=verdict.name,
        reason=verdict.reason,
        expected=claim.expects,
        headline=headline(verdict.claim),
        arm=arm,
        controls=controls,
        power=_power(result),
        figures=_figures(result),
        command=_command(claim, judged),
        trials=len(rows),
        failed=verdict.failed,
        stale=any(row.stale for row in rows),
        seconds=sum(row.seconds for row in rows),
        switch=claim.switch,
    )


def _prediction(claim: Claim, profile: Profile) -> str:
    """The rule in words, and the coordinates that the grid holds fixed."""
    fixed = {name: values[0] for name, values in claim.grid(profile).coordinates.items() if len(set(values)) == 1}
    return claim.predicts.words() + (f", at {label(fixed, list(fixed))}" if fixed else "")


def _command(claim: Claim, judged: Judged) -> str:
    entry = judged.entry
    name = entry.name if entry.origin.startswith("lemmata.") else Path(entry.origin).name
    extra = (f" --salt {entry.salt}" if entry.salt else "") + (
        f" --device {entry.device}" if entry.device != "cpu" else ""
    )
    return f"lemmata run {name} --claim {claim.id} --profile {entry.profile}{extra}"


def _override(claim: Claim, name: str) -> str:
    """The keywords as they are written; functions and classes by name, for their repr may hold an address."""
    shown = {keyword: getattr(value, "__name__", repr(value)) for keyword, value in claim.controls[name].items()}
    return ", ".join(f"{keyword} = {value}" for keyword, value in shown.items())


def _arm(name: str, override: str, judgement: Judgement) -> record.Arm:
    names = varying(judgement)
    points = tuple(_point(finding, names) for finding in judgement.findings)
    return record.Arm(name, override, judgement.outcome, judgement.reason, points)


def _point(finding: Finding, names: Sequence[str]) -> record.Point:
    where = label(finding.point, names) or "the only point"
    return record.Point(
        where, finding.n, finding.predicted, finding.measured, finding.low, finding.high, *finding.band, finding.outcome
    )


def _power(result: Result) -> str:
    predicts = result.claim.predicts
    samples = samples_of(result.claim, result.rows, result.profile)
    if not samples:
        return "not measured: trials are missing"
    if not predicts.sampled:
        return "exact: a single instance outside the band refutes the claim"
    chance = predicts.chance_to_refute(samples)
    if math.isnan(chance):
        return "not defined: the band has no width, so nothing is 1.5 × as far away"
    return f"a truth 1.5 × the band away would be refuted with probability {chance:.2f} at these sizes"


def _figures(result: Result) -> tuple[record.Figure | record.Surface, ...]:
    """The figures, drawn from the trials that gave values; where some are missing, those that can be drawn."""
    claim = result.claim
    rows = [row for row in result.rows if not row.error]
    whole = len(rows) == len(claim.tasks(result.profile))
    drawn = []
    for draw in claim.figures if rows else ():
        try:
            drawn.append(_figure(claim, draw, rows))
        except Exception as error:
            if whole:
                raise StudyError(
                    f"claim {claim.id}: figure {draw.__name__}: {type(error).__name__}: {error}"
                ) from error
    return tuple(drawn)


def _figure(claim: Claim, draw: Draw, rows: Sequence[Any]) -> record.Figure | record.Surface:
    caption, _, alt = inspect.cleandoc(draw.__doc__ or claim.title).partition("\n")
    alt = " ".join(alt.split()) or caption
    name = f"{claim.id}-{draw.__name__}".replace("_", "-").lower()
    if getattr(draw, "surface", False):
        return record.Surface(name=name, caption=caption, alt=alt, **draw(rows))  # type: ignore[arg-type]
    return figures.render(lambda ax: draw(ax, rows), name, caption, alt)


def _write_if_new(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
