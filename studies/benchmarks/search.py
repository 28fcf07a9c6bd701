"""Contenders are compared at equal true accuracy: each gets the least budget at which its true error is small enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from .peers import Ladder
from .table import Rounds, Row, Target, failed, timed_row
from .timing import affordable, timed

Error = Callable[[Any], float]

BUDGET = 20.0  # seconds of interleaved rounds for one work on one model
_CAP = 1.5  # of the target's multiple of our time, from which a search is given up
_PATIENCE = 0.5  # seconds that a run may take in any case


@dataclass
class Entrant:
    """A contender at the setting that was found for it; a call takes the next seed and keeps its error."""

    setting: str
    work: Callable[[int], Any]
    error: Error
    accurate: bool = True
    errors: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        """Do the work once."""
        found = self.work(len(self.errors))
        self.errors.append(self.error(found))


def reach(ladder: Ladder, error: Error, within: float, tries: int, device: str, most: float) -> Entrant:
    """The first rung whose median error over the seeds is small enough; the last one tried if none is.

    A search ends when a run has taken more than ``most`` seconds.
    """
    for setting, work in ladder:
        entrant = Entrant(setting, work, error)
        good = bad = 0
        seconds = 0.0
        while max(good, bad) <= tries // 2:  # until the median is decided
            seconds = timed(entrant, device)
            accurate = entrant.errors[-1] <= within
            good, bad = good + accurate, bad + (not accurate)
        if good > bad:
            return entrant
        if seconds > most:
            break
    entrant.accurate = False
    return entrant


def contest(
    place: tuple[str, str],
    ours: Mapping[str, Ladder],
    theirs: Mapping[str, Callable[[], Mapping[str, Ladder]]],
    targets: Mapping[str, Target],
    error: Error,
    within: float,
    tries: int,
    device: str,
    repeats: int,
) -> list[Row]:
    """All contenders at equal accuracy, timed in turn.

    The first of ``ours`` is the unit of the ratios: theirs say how many times longer they take. A peer that was given up
    is timed at the last setting tried, so that its ratio is a lower bound, and says so.
    """
    entrants, most = {}, 0.0
    for name, ladder in ours.items():
        entrants[name] = reach(ladder, error, within, tries, device, float("inf"))
        most = most or _PATIENCE + timed(entrants[name], device)
    first, rows, bounds = next(iter(ours)), [], {}
    for peer, ways in theirs.items():
        try:
            for way, ladder in ways().items():
                name = f"{peer}, {way}" if way else peer
                bounds[name] = targets[peer]
                cap = _CAP * targets[peer].bound * (most - _PATIENCE) + _PATIENCE
                entrants[name] = reach(ladder, error, within, tries, device, cap)
        except Exception as fault:  # a peer's failure is a finding, not ours to repair
            rows.append(failed(place, peer, fault))
    rounds = affordable(entrants, device, repeats, BUDGET)
    return [_row(place, name, one, rounds, first, bounds.get(name)) for name, one in entrants.items()] + rows


def _row(place: tuple[str, str], name: str, entrant: Entrant, rounds: Rounds, first: str, target: Target | None) -> Row:
    row = timed_row(place, name, rounds, (first, "ours"), median(entrant.errors), target, entrant.setting)
    if entrant.accurate:
        return row
    # Its time is a lower bound on what the accuracy takes: a target that it does not reach is not missed by it.
    return replace(row, met=row.met or None, note=f"given up, not yet accurate, at {entrant.setting}")
