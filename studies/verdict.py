"""From rows to a verdict. Pure functions: the same rows always give the same verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from .claim import Claim, Profile, canonical, numerics
from .errors import ClaimError
from .judgement import Finding, Judgement, Sample, number
from .rows import Row, as_values


@final
@dataclass(frozen=True)
class Verdict:
    """What the evidence says of a claim, and why."""

    name: str
    reason: str
    claim: Judgement
    controls: Mapping[str, Judgement]
    by_switch: Mapping[str, str]
    failed: tuple[str, ...]

    def __str__(self) -> str:
        """Verdict and reason on one line."""
        return f"{self.name}: {self.reason}"


@final
@dataclass(frozen=True)
class Result:
    """A claim, the rows of a run and the verdict on them."""

    claim: Claim
    profile: Profile
    rows: tuple[Row, ...]
    verdict: Verdict

    def __str__(self) -> str:
        """A few lines a person can read."""
        arms = [("claim", self.verdict.claim), *((f"control: {name}", j) for name, j in self.verdict.controls.items())]
        lines = [f"{self.claim.id} · {self.verdict}", f"  predicted: {self.claim.predicts.words()}"]
        return "\n".join(lines + [f"  {name}: {judgement.outcome} ({headline(judgement)})" for name, judgement in arms])


def headline(judgement: Judgement) -> str:
    """The measured value nearest to leaving its band, with its interval."""
    worst = worst_of(judgement)
    if worst is None:
        return judgement.reason or "nothing measured"
    where = label(worst.point, varying(judgement))
    shown = [number(value) for value in (worst.measured, worst.low, worst.high)]
    interval = f" [{shown[1]}, {shown[2]}]" if len(set(shown)) > 1 else ""
    return f"{shown[0]}{interval}" + (f" at {where}" if where else "")


def varying(judgement: Judgement) -> list[str]:
    """The coordinates that tell an arm's findings apart."""
    points = [finding.point for finding in judgement.findings]
    return [
        name for name in (points[0] if points else {}) if any(point.get(name) != points[0][name] for point in points)
    ]


def label(point: Mapping[str, Any], names: Sequence[str]) -> str:
    """A point in words, by some of its coordinates: numbers as a person writes them, Greek names as letters."""
    shown = {name: number(point[name]) if isinstance(point[name], float) else str(point[name]) for name in names}
    return ", ".join(f"{_GREEK.get(name, name)} = {value}" for name, value in shown.items())


_GREEK = dict(alpha="α", beta="β", gamma="γ", epsilon="ε", eta="η", sigma="σ")


def worst_of(judgement: Judgement) -> Finding | None:
    """The finding nearest to leaving its band, or furthest outside."""
    return max(judgement.findings, key=_strain, default=None)


def _strain(finding: Finding) -> float:
    low, high = finding.band
    scale = (high - low) / 2 if np.isfinite(high - low) and high > low else max(abs(finding.measured), 1e-300)
    return max((low - finding.low) / scale, (finding.high - high) / scale)


def judge(claim: Claim, rows: Sequence[Row], profile: Profile) -> Verdict:
    """Verdict of a claim on the rows of one run.

    In this order: a control holds → INVALID; the claim fails → REFUTED; anything undecided, missing or failed →
    INCONCLUSIVE; the declared switch decides → DEPENDS; else SUPPORTED.
    """
    points = list(claim.grid(profile).points())
    own = _judge_arm(claim, rows, "", points, profile)
    by_switch = _by_switch(claim.switch, own)
    # Where the claim itself fails on a switch value, a control has nothing to lose there.
    kept = [p for p in points if by_switch.get(str(p.get(claim.switch))) == "holds"] or points
    controls = {arm: _judge_arm(claim, rows, arm, kept, profile) for arm in claim.controls}
    failed = tuple(f"{_where(row)}: {row.error}" for row in rows if row.error)
    name, reason = _decide(own, controls, by_switch, failed)
    return Verdict(name, reason, own, controls, by_switch, failed)


def _decide(
    own: Judgement, controls: Mapping[str, Judgement], by_switch: Mapping[str, str], failed: Sequence[str]
) -> tuple[str, str]:
    passing = [name for name, judgement in controls.items() if judgement.outcome == "holds"]
    outcomes = set(by_switch.values())
    depends = outcomes == {"holds", "fails"}
    if passing:
        return "INVALID", f"the control “{passing[0]}” holds too, so the test has no power."
    if own.outcome == "fails" and "holds" not in outcomes and "undecided" not in outcomes:
        return "REFUTED", f"measured {headline(own)}, outside the predicted band."
    if own.outcome == "undecided" or "undecided" in outcomes:
        open_ = Judgement(tuple(finding for finding in own.findings if finding.outcome == "undecided"))
        return "INCONCLUSIVE", own.reason or f"the interval of {headline(open_)} lies across the edge of the band."
    for name, judgement in controls.items():
        if judgement.outcome == "undecided":
            return "INCONCLUSIVE", f"the control “{name}” is undecided: {judgement.reason or headline(judgement)}."
    if failed:
        return "INCONCLUSIVE", f"{len(failed)} trial(s) failed: {failed[0]}"
    if depends:
        return "DEPENDS", "; ".join(f"{value}: {outcome}" for value, outcome in by_switch.items()) + "."
    return "SUPPORTED", "every interval lies inside its band, and every control fails, as it must."


def _by_switch(switch: str, own: Judgement) -> dict[str, str]:
    """The outcome at each value of the switch, on the claim's own simultaneous intervals."""
    found: dict[str, list[Finding]] = {}
    for finding in own.findings if switch else ():
        found.setdefault(str(finding.point.get(switch)), []).append(finding)
    return {value: Judgement(tuple(findings), own.reason).outcome for value, findings in found.items()}


def _judge_arm(
    claim: Claim, rows: Sequence[Row], arm: str, points: Sequence[Mapping[str, Any]], profile: Profile
) -> Judgement:
    seeds = claim.grid(profile).seeds
    found: dict[str, dict[int, float]] = {canonical(point): {} for point in points}
    for row in rows:
        key = canonical(row.point)
        if row.arm == arm and key in found and row.k < seeds and not row.error:
            found[key][row.k] = row.value
    shared = sorted(set.intersection(*(set(values) for values in found.values())))
    missing = len(points) * seeds - sum(len(values) for values in found.values())
    reason = f"{missing} of {len(points) * seeds} trials failed or are missing" if missing else ""
    if not shared or (missing and len(shared) < claim.predicts.minimum_seeds):
        return Judgement((), reason)
    samples = [Sample(point, np.array([found[canonical(point)][k] for k in shared], dtype=float)) for point in points]
    try:
        return Judgement(claim.predicts.judge(samples).findings, reason)
    except ClaimError as error:
        return Judgement((), str(error))


def samples_of(claim: Claim, rows: Sequence[Row], profile: Profile) -> list[Sample]:
    """The claim's own values by point; empty unless every trial is there."""
    values: dict[str, list[float]] = {canonical(point): [] for point in claim.grid(profile).points()}
    for row in sorted(rows, key=lambda row: row.k):
        if row.arm == "" and not row.error and canonical(row.point) in values and row.k < claim.grid(profile).seeds:
            values[canonical(row.point)].append(row.value)
    if any(len(v) < claim.grid(profile).seeds for v in values.values()):
        return []
    return [Sample(point, np.array(values[canonical(point)], dtype=float)) for point in claim.grid(profile).points()]


def _where(row: Row) -> str:
    arm = f" [control: {row.arm}]" if row.arm else ""
    return f"{row.claim}{arm} at {canonical(row.point)} seed {row.k}"


def run_here(claim: Claim, profile: Profile, salt: str = "") -> Result:
    """Run every trial of a claim in this process and judge."""
    import json

    rows = []
    for task in claim.tasks(profile, salt=salt):
        point = json.loads(task.point)
        values, error = attempt(claim, task.arm, point, task.seed)
        rows.append(Row(claim.id, task.arm, point, task.k, values, error))
    return Result(claim, profile, tuple(rows), judge(claim, rows, profile))


def attempt(
    claim: Claim, arm: str, point: Mapping[str, Any], seed: int, device: str = "cpu", dtype: str = "float64"
) -> tuple[Any, str]:
    """Run one trial: its values and "", or {} and the error in words."""
    keywords = {**point, **claim.controls.get(arm, {}), "seed": seed}
    try:
        with numerics(device, dtype):
            return as_values(claim.trial(**keywords)), ""
    except (Exception, SystemExit) as error:
        words = f"{type(error).__name__}: {error}"
        return {}, words.encode("utf-8", "backslashreplace").decode()  # a ledger holds no lone surrogates
