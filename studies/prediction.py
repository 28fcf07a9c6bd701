"""What every prediction is: judged by an interval against a stated band.

An interval inside the band *holds*, outside *fails*, across it is *undecided*: never a failure to reject. Intervals are
simultaneous over a claim's points (Bonferroni), 95 % for the whole claim. Numbers in a prediction may be formulas in the
grid's coordinates, for example ``Equals("2**(-2*m - 2)", within=0)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from .errors import ClaimError
from .intervals import SAMPLED, Array, Interval
from .judgement import Finding, Judgement, Point, Sample, evaluate

LEVEL = 0.95
NEAR_MISS = 1.5

Reducer = Literal["each", "mean", "median", "var", "min", "max"]


@dataclass(frozen=True)
class Prediction(ABC):
    """What a claim predicts of its trials' values; frozen, and every subclass is final."""

    minimum_seeds: ClassVar[int] = 5

    def judge(self, samples: Sequence[Sample]) -> Judgement:
        """Judge all points at once, simultaneous 95 % intervals."""
        groups = self.groups(samples)
        level = 1 - (1 - LEVEL) / len(groups)
        return Judgement(tuple(self.finding(group, level) for group in groups))

    def finding(self, group: Sequence[Sample], level: float) -> Finding:
        """Judge one group of samples."""
        values = np.stack([sample.values for sample in group]) if len(group) > 1 else group[0].values[None]
        measured, low, high = (float(v) for v in self.interval(values, group, level))
        shared = {k: v for k, v in group[0].point.items() if all(s.point[k] == v for s in group)}
        point = shared if len(group) > 1 else group[0].point
        n = values.shape[-1]
        band = self.band(group[0].point)
        if getattr(self, "of", "") == "each" and not (band[0] <= low and high <= band[1]):
            # Every instance counts by itself, without sampling error: the one furthest out decides.
            measured = low = high = low if band[0] - low > high - band[1] else high
        return Finding(point, n, self.predicted(group[0].point), measured, low, high, band)

    def chance_to_refute(self, samples: Sequence[Sample], draws: int = 400, seed: int = 0) -> float:
        """Chance that a truth 1.5 × the band away is found to fail, at these sizes and with this noise (the least over points).

        NaN where no point has a near miss: its band is a single value, or ends at zero.
        """
        rng = np.random.default_rng(seed)
        groups = self.groups(samples)
        level = 1 - (1 - LEVEL) / len(groups)
        chances = [self._chance(group, level, rng, draws) for group in groups]
        return min((chance for chance in chances if not math.isnan(chance)), default=math.nan)

    def _chance(self, group: Sequence[Sample], level: float, rng: np.random.Generator, draws: int) -> float:
        low, high = self.band(group[0].point)
        values = self.near_miss(np.stack([sample.values for sample in group]), group, rng, draws)
        if values is None:
            return math.nan
        _, lower, upper = self.interval(values, group, level)
        return float(np.mean((lower > high) | (upper < low)))

    def groups(self, samples: Sequence[Sample]) -> list[list[Sample]]:
        """The samples that are judged together; one point each unless a subclass fits across points."""
        return [[sample] for sample in samples]

    def check_grid(self, coordinates: Mapping[str, Sequence[Any]], seeds: int) -> None:
        """Raise ClaimError if the grid cannot carry this prediction."""
        reducer = getattr(self, "of", "each")
        if reducer in SAMPLED and seeds < self.minimum_seeds:
            raise ClaimError(
                f"of={reducer!r} needs at least {self.minimum_seeds} seeds for its interval, the grid has {seeds}."
            )
        for name in self.formulas():
            evaluate(getattr(self, name), {key: values[0] for key, values in coordinates.items()})

    def formulas(self) -> tuple[str, ...]:
        """Names of the fields that may be formulas."""
        return ()

    @property
    def sampled(self) -> bool:
        """Whether the judgement has a sampling error (exact statements have none)."""
        return getattr(self, "of", "mean") in SAMPLED

    @abstractmethod
    def words(self) -> str:
        """The rule in words, rendered from this object and written nowhere else."""

    @abstractmethod
    def predicted(self, point: Point) -> str:
        """The predicted value at a point, for a table."""

    @abstractmethod
    def band(self, point: Point) -> tuple[float, float]:
        """The band at a point."""

    @abstractmethod
    def interval(self, values: Array, group: Sequence[Sample], level: float) -> Interval:
        """Interval of the judged quantity from values ``(points, n)`` or ``(draws, points, n)``."""

    @abstractmethod
    def near_miss(self, values: Array, group: Sequence[Sample], rng: np.random.Generator, draws: int) -> Array | None:
        """Synthetic values ``(draws, points, n)`` whose truth misses by 1.5 × the band; None where the band is a single value."""


def resample(values: Array, rng: np.random.Generator, draws: int) -> Array:
    """Bootstrap the seeds' deviations from their mean, ``(points, n)`` to ``(draws, points, n)``, at unbiased variance."""
    points, n = values.shape
    centred = (values - values.mean(-1, keepdims=True)) * math.sqrt(n / max(n - 1, 1))
    picks = rng.integers(n, size=(draws, points, n))
    return np.take_along_axis(np.broadcast_to(centred, (draws, points, n)), picks, axis=-1)
