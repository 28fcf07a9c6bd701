"""The five predictions a claim can make: Equals, AtMost, AtLeast, Scales, Distributed."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from .errors import ClaimError
from .intervals import REDUCERS, Array, Interval, jackknife, log_variance
from .judgement import Formula, Point, Sample, evaluate, number, text
from .prediction import LEVEL, NEAR_MISS, Prediction, Reducer, resample

_OVER = {
    "each": "in every trial, the value",
    "mean": "the mean over seeds",
    "median": "the median over seeds",
    "var": "the variance over seeds",
    "min": "the smallest value over seeds",
    "max": "the largest value over seeds",
}


@dataclass(frozen=True)
class Banded(Prediction):
    """A prediction on one statistic of each point (abstract)."""

    def interval(self, values: Array, group: Sequence[Sample], level: float) -> Interval:  # noqa: D102
        estimate, low, high = REDUCERS[self.of](values, level)  # type: ignore[attr-defined]
        return estimate[..., 0], low[..., 0], high[..., 0]

    def check_grid(self, coordinates: Mapping[str, Sequence[Any]], seeds: int) -> None:  # noqa: D102
        super().check_grid(coordinates, seeds)
        points = math.prod(len(values) for values in coordinates.values())
        needed = math.ceil(
            1 + math.log2(points / (1 - LEVEL))
        )  # the extremes miss the median with chance 2^(1 - seeds)
        if self.of == "median" and seeds < needed:  # type: ignore[attr-defined]
            raise ClaimError(
                f"of='median' can decide nothing from {seeds} seeds at {points} points: even the whole range covers too "
                f"rarely. Use at least {needed} seeds, or fewer points."
            )

    @abstractmethod
    def miss(self, point: Point) -> float | None:
        """A truth that misses the band by half of it; None where no near miss is defined."""

    def near_miss(self, values: Array, group: Sequence[Sample], rng: np.random.Generator, draws: int) -> Array | None:  # noqa: D102
        target = self.miss(group[0].point)
        if target is None:
            return None
        noise = resample(values, rng, draws)
        reducer = self.of  # type: ignore[attr-defined]
        if reducer == "var":
            scale = values.std(-1, ddof=1, keepdims=True)
            return noise * np.sqrt(target) / np.where(scale > 0, scale, 1.0)
        offset = {"min": values.min(-1), "max": values.max(-1), "median": np.median(values, -1)}.get(
            reducer, values.mean(-1)
        )
        return target + noise + (values.mean(-1) - offset)[:, None]


def _check_reducer(of: str) -> None:
    if of not in REDUCERS:
        raise ClaimError(f"of={of!r} is no reducer; choose one of {', '.join(REDUCERS)}.")


@final
@dataclass(frozen=True)
class Equals(Banded):
    r"""$|\mathrm{of}(x) - \mathrm{value}| \le \mathrm{within}$ at every point.

    >>> Equals("2**-m", within=0, of="each").words()
    'in every trial, the value equals 2^−m exactly'
    """

    value: Formula
    within: Formula
    of: Reducer = "mean"

    def __post_init__(self) -> None:
        _check_reducer(self.of)

    def formulas(self) -> tuple[str, ...]:  # noqa: D102
        return ("value", "within")

    def words(self) -> str:  # noqa: D102
        margin = "exactly" if self.within == 0 else f"within ±{text(self.within)}"
        return f"{_OVER[self.of]} equals {text(self.value)} {margin}"

    def predicted(self, point: Point) -> str:  # noqa: D102
        within = float(evaluate(self.within, point))
        return number(float(evaluate(self.value, point))) + (f" ± {number(within)}" if within else "")

    def band(self, point: Point) -> tuple[float, float]:  # noqa: D102
        value, within = float(evaluate(self.value, point)), float(evaluate(self.within, point))
        return value - within, value + within

    def miss(self, point: Point) -> float | None:  # noqa: D102
        value, within = float(evaluate(self.value, point)), float(evaluate(self.within, point))
        return value + NEAR_MISS * within if within else None


@final
@dataclass(frozen=True)
class AtMost(Banded):
    r"""$\mathrm{of}(x) \le \mathrm{bound}$ at every point; by default the worst instance.

    >>> AtMost("1/6").words()
    'the largest value over seeds is at most 1/6'
    """

    bound: Formula
    of: Reducer = "max"

    def __post_init__(self) -> None:
        _check_reducer(self.of)

    def formulas(self) -> tuple[str, ...]:  # noqa: D102
        return ("bound",)

    def words(self) -> str:  # noqa: D102
        return f"{_OVER[self.of]} is at most {text(self.bound)}"

    def predicted(self, point: Point) -> str:  # noqa: D102
        return "≤ " + number(float(evaluate(self.bound, point)))

    def band(self, point: Point) -> tuple[float, float]:  # noqa: D102
        return -math.inf, float(evaluate(self.bound, point))

    def miss(self, point: Point) -> float | None:  # noqa: D102
        bound = float(evaluate(self.bound, point))
        return bound + (NEAR_MISS - 1) * abs(bound) if bound else None


@final
@dataclass(frozen=True)
class AtLeast(Banded):
    r"""$\mathrm{of}(x) \ge \mathrm{bound}$ at every point; by default the worst instance.

    >>> AtLeast("1/6").words()
    'the smallest value over seeds is at least 1/6'
    """

    bound: Formula
    of: Reducer = "min"

    def __post_init__(self) -> None:
        _check_reducer(self.of)

    def formulas(self) -> tuple[str, ...]:  # noqa: D102
        return ("bound",)

    def words(self) -> str:  # noqa: D102
        return f"{_OVER[self.of]} is at least {text(self.bound)}"

    def predicted(self, point: Point) -> str:  # noqa: D102
        return "≥ " + number(float(evaluate(self.bound, point)))

    def band(self, point: Point) -> tuple[float, float]:  # noqa: D102
        return float(evaluate(self.bound, point)), math.inf

    def miss(self, point: Point) -> float | None:  # noqa: D102
        bound = float(evaluate(self.bound, point))
        return bound - (NEAR_MISS - 1) * abs(bound) if bound else None


@final
@dataclass(frozen=True)
class Scales(Prediction):
    r"""$\mathrm{of}(y) \propto x^{\mathrm{power}}$: the log–log slope over at least 4 values of the coordinate ``x``.

    ``mean`` and ``var`` fit the slope of that statistic and jackknife it over seeds; ``median`` and ``each`` take one slope
    per seed; ``min`` and ``max`` fit the extremes, without sampling error. Values must be positive.

    >>> Scales("width", power=-1, within=0.15, of="var").words()
    'the variance over seeds scales as width to the power −1 ± 0.15 (log–log slope)'
    """

    x: str
    power: float
    within: float
    of: Reducer = "mean"

    def __post_init__(self) -> None:
        _check_reducer(self.of)

    def check_grid(self, coordinates: Mapping[str, Sequence[Any]], seeds: int) -> None:  # noqa: D102
        values = coordinates.get(self.x, ())
        if len(set(values)) < 4 or min(values) <= 0:
            raise ClaimError(
                f"Scales({self.x!r}) needs at least 4 positive values of {self.x!r} in the grid, it has {list(values)}."
            )
        super().check_grid(coordinates, seeds)

    def groups(self, samples: Sequence[Sample]) -> list[list[Sample]]:  # noqa: D102
        found: dict[str, list[Sample]] = {}
        for sample in samples:
            rest = {key: value for key, value in sample.point.items() if key != self.x}
            found.setdefault(repr(rest), []).append(sample)
        return list(found.values())

    def words(self) -> str:  # noqa: D102
        margin = f"{number(self.power)} ± {number(self.within)}"
        return f"{_OVER[self.of]} scales as {self.x} to the power {margin} (log–log slope)"

    def predicted(self, point: Point) -> str:  # noqa: D102
        return f"slope {number(self.power)} ± {number(self.within)}"

    def band(self, point: Point) -> tuple[float, float]:  # noqa: D102
        return self.power - self.within, self.power + self.within

    def interval(self, values: Array, group: Sequence[Sample], level: float) -> Interval:  # noqa: D102
        if np.any(values <= 0) and self.of != "var":
            raise ClaimError(
                f"Scales({self.x!r}) takes logarithms: all values must be positive, the smallest is {values.min():.3g}."
            )
        log_x = np.log([float(sample.point[self.x]) for sample in group])
        weights = (log_x - log_x.mean()) / ((log_x - log_x.mean()) ** 2).sum()
        if self.of in ("median", "each"):
            return REDUCERS[self.of](np.einsum("...pn,p->...n", np.log(values), weights), level)
        if self.of in ("min", "max"):
            extreme = np.log(REDUCERS[self.of](values, level)[0]) @ weights
            return extreme, extreme, extreme
        log_statistic = log_variance if self.of == "var" else lambda x: np.log(x.mean(-1))
        return jackknife(lambda x: log_statistic(x) @ weights, values, level)

    def near_miss(self, values: Array, group: Sequence[Sample], rng: np.random.Generator, draws: int) -> Array | None:  # noqa: D102
        slope = self.interval(values, group, LEVEL)[0]
        x = np.array([float(sample.point[self.x]) for sample in group])
        factor = ((x / x[0]) ** (self.power + NEAR_MISS * self.within - slope))[:, None]
        picks = rng.integers(values.shape[-1], size=(draws, *values.shape))
        drawn = np.take_along_axis(np.broadcast_to(values, (draws, *values.shape)), picks, axis=-1)
        return drawn * (np.sqrt(factor) if self.of == "var" else factor)


@final
@dataclass(frozen=True)
class Distributed(Prediction):
    r"""$\sup_x |F(x) - \mathrm{cdf}(x)| \le \mathrm{within}$ for the law F of the trials' values at each point.

    ``cdf`` is an expression for a frozen scipy law, such as ``"stats.norm(0, sqrt(n))"``, or a callable. The interval is the
    Dvoretzky–Kiefer–Wolfowitz–Massart band, $D_n \pm \sqrt{\ln(2/\alpha)/2n}$: exact for every law, no p-value.

    >>> Distributed("stats.norm()", within=0.1).words()
    'the values over seeds follow stats.norm() to within 0.1 (Kolmogorov distance)'
    """

    cdf: str | Callable[[Array], Array]
    within: float

    def formulas(self) -> tuple[str, ...]:  # noqa: D102
        return ("cdf",)

    def law(self, point: Point) -> Callable[[Array], Array]:
        """The cumulative distribution function at a point."""
        return evaluate(self.cdf, point).cdf if isinstance(self.cdf, str) else self.cdf

    def words(self) -> str:  # noqa: D102
        name = self.cdf if isinstance(self.cdf, str) else self.cdf.__name__
        return f"the values over seeds follow {name} to within {number(self.within)} (Kolmogorov distance)"

    def predicted(self, point: Point) -> str:  # noqa: D102
        return f"distance ≤ {number(self.within)}"

    def band(self, point: Point) -> tuple[float, float]:  # noqa: D102
        return -math.inf, self.within

    def interval(self, values: Array, group: Sequence[Sample], level: float) -> Interval:  # noqa: D102
        ordered = np.sort(values[..., 0, :], axis=-1)
        n = ordered.shape[-1]
        theory = self.law(group[0].point)(ordered)
        above = np.arange(1, n + 1) / n - theory
        below = theory - np.arange(n) / n
        distance = np.maximum(above, below).max(-1)
        half = math.sqrt(math.log(2 / (1 - level)) / (2 * n))
        return distance, np.maximum(distance - half, 0.0), distance + half

    def near_miss(self, values: Array, group: Sequence[Sample], rng: np.random.Generator, draws: int) -> Array | None:  # noqa: D102
        # A share of 1.5 x within of the mass moved below the support: the distance is exactly that share.
        drawn = rng.choice(values[0], size=(draws, 1, values.shape[-1]))
        moved = rng.random(drawn.shape) < NEAR_MISS * self.within
        return np.where(moved, -np.inf, drawn)
