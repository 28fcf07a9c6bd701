"""What the curvature benchmark prints: one row for each contender at each piece of work, and whether a target was met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

Rounds = Sequence[Mapping[str, float]]
_MEBI = 2**20


@dataclass(frozen=True)
class Target:
    """A bound on a ratio."""

    sense: str  # "≤" or "≥"
    bound: float

    def met(self, ratio: float) -> bool:
        """Is it kept by this ratio?

        >>> Target("≤", 1.5).met(1.4), Target("≥", 3).met(2.9)
        (True, False)
        """
        return ratio <= self.bound if self.sense == "≤" else ratio >= self.bound

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One contender at one piece of work on one model.

    ``ratio`` is the median over rounds of its time to the time of what ``unit`` names, with the range of the middle half;
    ``error`` is its true relative error against a reference in double precision, ``rounds`` how often it was timed.
    """

    work: str
    model: str
    contender: str
    unit: str = ""
    milliseconds: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    error: float | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""

    def __str__(self) -> str:
        head = f"{self.work:<8} {self.model:<22} {self.contender:<34}"
        if self.ratio is None:
            return f"{head} {self.note}"
        time = " " * 13 if self.milliseconds is None else f"{self.milliseconds:10.2f} ms"
        spread = "" if self.low is None else f"[{self.low:.2f}, {self.high:.2f}]"
        error = "" if self.error is None else f"error {self.error:.1e}"
        verdict = "" if self.met is None else f"{self.target} {'met' if self.met else 'MISSED'}"
        figures = f"{time} {self.ratio:7.2f} × {self.unit:<9} {spread:<16} {self.rounds:>2} rounds"
        return f"{head} {figures} {error:<14} {verdict:<14} {self.note}".rstrip()


def timed_row(
    place: tuple[str, str],
    name: str,
    rounds: Rounds,
    unit: tuple[str, str],
    error: float | None = None,
    target: Target | None = None,
    note: str = "",
    share: int = 1,
) -> Row:
    """The median over rounds, of a contender that does its work ``share`` times a call; ``unit`` is a contender's key and name."""
    times = [found[name] / share for found in rounds]
    ratios = [found[name] / share / found[unit[0]] for found in rounds]
    low, high = (quantiles(ratios, n=4)[::2]) if len(ratios) > 1 else (ratios[0], ratios[0])
    ratio = median(ratios)
    return Row(
        work=place[0],
        model=place[1],
        contender=name,
        unit=unit[1],
        milliseconds=1e3 * median(times),
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(times),
        error=error,
        target="" if target is None else str(target),
        met=None if target is None else target.met(ratio),
        note=note,
    )


def peak_row(place: tuple[str, str], name: str, size: int, unit: tuple[int, str], target: Target | None = None) -> Row:
    """A peak of memory in bytes, and its ratio to another; ``unit`` is that one's bytes and name."""
    ratio = size / unit[0]
    return Row(
        work=place[0],
        model=place[1],
        contender=name,
        unit=unit[1],
        ratio=ratio,
        rounds=1,
        target="" if target is None else str(target),
        met=None if target is None else target.met(ratio),
        note=f"{size / _MEBI:.2f} MiB",
    )


def failed(place: tuple[str, str], name: str, error: Exception) -> Row:
    """A contender that is not installed, or cannot do this work: its own words."""
    what = "not installed" if isinstance(error, ImportError) else type(error).__name__
    return Row(*place, name, note=f"{what}: {' '.join(str(error).split())[:160]}")
