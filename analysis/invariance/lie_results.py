"""What a Lie derivative has found: a table, a figure, a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import log
from typing import Any

import numpy as np

from ..curvature.text_table import text_table
from ..spectra.results import Estimate, _axes

_ESTIMATES = ("own", "gathered", "contribution")


@dataclass(frozen=True)
class LayerDefect:
    """One place: its name and kind, how the group acts there, and three sizes for one unit of t.

    ``own`` is the defect that arose since the places before, ``gathered`` all that is in its output, both relative to that
    output; ``contribution`` what the own defect does to the model's output, relative to this.
    """

    name: str
    kind: str
    acts: str
    own: Estimate
    gathered: Estimate
    contribution: Estimate

    @property
    def exact(self) -> bool:
        """Whether the own defect is no larger than rounding."""
        return self.own.value <= self.own.bias


@dataclass(frozen=True, repr=False)
class LieDerivative:
    """The Lie derivative of a model along a generator.

    Attributes:
        generator, unit: the group's name, and the unit of t that all sizes are for.
        layers: in the order of the forward pass.
        output: the size of the whole Lie derivative, relative to the output.
        differences: (step, distance of central differences to it, relative to the output).
        chain: relative distance between the sum of all contributions and the whole.
        resampling: how far the derivatives of two interpolations of the inputs differ; None for a generator of the user's.
        examples: their number. without_probes: whether contributions are free of probes. converged: whether they met the tolerance.

    """

    generator: str
    unit: str
    layers: tuple[LayerDefect, ...]
    output: Estimate
    differences: tuple[tuple[float, float], ...]
    chain: float
    resampling: float | None
    examples: int
    without_probes: bool
    converged: bool

    def __getitem__(self, name: str) -> LayerDefect:
        return {layer.name: layer for layer in self.layers}[name]

    @property
    def exact(self) -> bool:
        """Whether the whole is no larger than rounding."""
        return self.output.value <= self.output.bias

    @property
    def culprit(self) -> LayerDefect | None:
        """The layer that contributes most to the output's error; None where there is none beyond rounding."""
        worst = max(self.layers, key=lambda layer: layer.contribution.value)
        return None if self.exact else worst

    @property
    def order(self) -> float | None:
        """The power of the step in the distance of central differences: 2 for a smooth model; None for less than two."""
        if len(self.differences) < 2 or not all(gap for _, gap in self.differences):
            return None
        (a, first), (b, last) = self.differences[0], self.differences[-1]
        return log(first / last) / log(a / b)

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged: more examples or probes"
        worst = self.culprit
        verdict = "equivariant to rounding" if worst is None else f"{worst.name} contributes most"
        head = f"LieDerivative along {self.generator}: {_shown(self.output)} per {self.unit}; {verdict}{state}"
        rows = [
            [layer.name, layer.kind, layer.acts, *(_shown(getattr(layer, part)) for part in _ESTIMATES)]
            for layer in self.layers
        ]
        table = text_table(("layer", "kind", "the group acts", "own", "gathered", "to the output"), rows)
        gaps = ", ".join(f"{gap:.1e} at {step:g}" for step, gap in self.differences)
        notes = [f"central differences: {gaps}"] * bool(gaps)
        if self.resampling is not None:
            notes.append(f"band-limited and cubic interpolation of the inputs differ by {self.resampling:.2g}")
        notes.append("discrete symmetries do not show here")
        return "\n".join([head, table, *notes])

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LieDerivative:
        """The inverse of :meth:`to_dict`."""
        layers = tuple(
            LayerDefect(**{**row, **{part: Estimate(**row[part]) for part in _ESTIMATES}}) for row in record["layers"]
        )
        differences = tuple((step, gap) for step, gap in record["differences"])
        return cls(**{**record, "layers": layers, "output": Estimate(**record["output"]), "differences": differences})

    def plot(self, ax: Any = None) -> Any:
        """What each layer contributes to the output's error, with its interval, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        places = np.arange(len(self.layers))
        ends = np.array([layer.contribution.interval() for layer in self.layers])
        middle = np.array([layer.contribution.value for layer in self.layers])
        bars = np.nan_to_num(np.abs(np.clip(ends, 0, None).T - middle), posinf=0.0)
        ax.barh(places, middle, color="C0", xerr=bars, ecolor="0.4")
        ax.set_yticks(places, [layer.name for layer in self.layers], parse_math=False)
        ax.invert_yaxis()
        ax.set_xlabel(f"contribution to the relative error per {self.unit}")
        ax.set_title(self.generator, parse_math=False)
        return ax


def _shown(estimate: Estimate) -> str:
    low, high = estimate.interval()
    return f"{estimate.value:.2g} ± {(high - low) / 2:.1g}"
