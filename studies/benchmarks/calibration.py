"""How often the five predictions err: synthetic rows with known truth, false-support and false-refute rates.

``python -m lemmata.studies.benchmarks.calibration`` prints, for each prediction, noise and place of the truth (inside the
band, on its edge, outside), the share of draws that support and that refute, beside the stated level. One-sided 2.5 % at
the edge is what a 95 % interval promises. A mean over five seeds keeps it for symmetric noise; for noise as skewed as an
exponential, Student's t errs more often on the side of the short tail and less on the other, and no interval from five
values can do otherwise without knowing the law.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lemmata.studies.judgement import Sample
from lemmata.studies.prediction import LEVEL, Prediction
from lemmata.studies.predictions import AtLeast, AtMost, Distributed, Equals, Scales

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
#: Noise of mean 0 and variance 1.
NOISE: dict[str, Noise] = {
    "Gaussian": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.exponential(size=size) - 1,
    "t3": lambda rng, size: rng.standard_t(3, size=size) / np.sqrt(3),
}
#: The medians of that noise.
MEDIAN = {"Gaussian": 0.0, "skewed": np.log(2) - 1, "t3": 0.0}
_WIDTHS = (64, 128, 256, 512)
_STATED = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Rates:
    """Shares of draws that support and refute, for a truth inside the band, on its edge, or outside."""

    prediction: str
    seeds: int
    noise: str
    truth: str
    support: float
    refute: float

    @property
    def wrong(self) -> float:
        """The rate that is an error: refuting what is true, supporting what is not, either one on the edge."""
        return {"inside": self.refute, "outside": self.support}.get(self.truth, max(self.support, self.refute))


def rates(prediction: Prediction, values: np.ndarray, points: list[dict[str, float]]) -> tuple[float, float]:
    """Shares of draws, ``values (draws, points, seeds)``, that support and that refute a prediction."""
    group = [Sample(point, np.zeros(values.shape[-1])) for point in points]
    low, high = prediction.band(points[0])
    _, lower, upper = prediction.interval(values, group, LEVEL)
    return float(np.mean((lower >= low) & (upper <= high))), float(np.mean((lower > high) | (upper < low)))


def table(draws: int = 4000, seed: int = 0) -> Iterator[Rates]:
    """All rows: every prediction × noise × place of the truth, at the smallest number of seeds that each may use."""
    for name, noise in NOISE.items():
        rng = np.random.default_rng([seed, len(name)])
        yield from _means(name, noise(rng, (draws, 1, 5)))
        yield from _medians(name, noise(rng, (draws, 1, 12)) - MEDIAN[name])
        yield from _variances(name, noise(rng, (draws, 1, 40)))
        yield from _slopes(name, noise(rng, (draws, len(_WIDTHS), 12)))
    yield from _laws(np.random.default_rng(seed), draws)


def _placed(prediction: Prediction, name: str, at: dict[str, np.ndarray]) -> Iterator[Rates]:
    for truth, values in at.items():
        support, refute = rates(prediction, values, [{"x": 1.0}])
        of = getattr(prediction, "of", "")
        label = f"{type(prediction).__name__} {of}".strip()
        yield Rates(label, values.shape[-1], name, truth, support, refute)


def _means(name: str, z: np.ndarray) -> Iterator[Rates]:
    both = {"inside": z, "upper edge": z + 4, "lower edge": z - 4, "outside": z + 9}
    yield from _placed(Equals(0, within=4), name, both)
    yield from _placed(AtMost(4, of="mean"), name, {"inside": z, "upper edge": z + 4, "outside": z + 9})
    yield from _placed(AtLeast(-4, of="mean"), name, {"inside": z, "lower edge": z - 4, "outside": z - 9})


def _medians(name: str, z: np.ndarray) -> Iterator[Rates]:
    both = {"inside": z, "upper edge": z + 4, "lower edge": z - 4, "outside": z + 9}
    yield from _placed(Equals(0, within=4, of="median"), name, both)


def _variances(name: str, z: np.ndarray) -> Iterator[Rates]:
    scaled = {"inside": 1.0, "upper edge": 1.9, "lower edge": 0.1, "outside": 9.0}
    yield from _placed(Equals(1, within=0.9, of="var"), name, {truth: z * np.sqrt(v) for truth, v in scaled.items()})


def _slopes(name: str, z: np.ndarray) -> Iterator[Rates]:
    x = np.array(_WIDTHS, dtype=float)[:, None]
    points = [{"x": float(width)} for width in _WIDTHS]
    places = {"inside": -1.0, "upper edge": -0.5, "lower edge": -1.5, "outside": 0.5}
    for truth, power in places.items():
        for of in ("mean", "var"):
            values = z * x ** (power / 2) if of == "var" else (40 + z).clip(1) * x**power
            support, refute = rates(Scales("x", power=-1, within=0.5, of=of), values, points)
            yield Rates(f"Scales {of}", z.shape[-1], name, truth, support, refute)


def _laws(rng: np.random.Generator, draws: int) -> Iterator[Rates]:
    uniform = rng.random((draws, 1, 200))
    prediction = Distributed("stats.uniform()", within=0.2)
    # A share s of the mass moved below the support: the Kolmogorov distance is s exactly.
    moved = {truth: np.where(rng.random(uniform.shape) < share, -1.0, uniform) for truth, share in _SHARES.items()}
    yield from _placed(prediction, "any law", moved)


_SHARES = {"inside": 0.0, "upper edge": 0.2, "outside": 0.5}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Error rates of the predictions on synthetic rows with known truth.")
    parser.add_argument("--draws", type=int, default=4000)
    arguments = parser.parse_args()
    print(f"{arguments.draws} draws; stated error at an edge: {_STATED:.1%} on each side")
    print(f"{'prediction':<16} {'seeds':>5}  {'noise':<9} {'truth':<11} {'supports':>8} {'refutes':>8} {'wrong':>7}")
    for row in table(arguments.draws):
        cells = f"{row.support:>8.1%} {row.refute:>8.1%} {row.wrong:>7.1%}"
        print(f"{row.prediction:<16} {row.seeds:>5}  {row.noise:<9} {row.truth:<11} {cells}")


if __name__ == "__main__":
    main()
