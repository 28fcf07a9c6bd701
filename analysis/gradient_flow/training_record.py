"""What a training tracker has recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf, nan
from typing import Any

import torch
from torch import Tensor

from ..curvature.text_table import text_table
from ..errors import ArgumentError
from ..spectra.results import _axes, _to_error, _two_digits


@dataclass(frozen=True)
class Series:
    """One quantity at n records: values and intervals, (n,), float64; nan where it was not measured."""

    values: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True, repr=False)
class Track:
    """What a training tracker has recorded, n times; ``track[name]`` is the series of a quantity.

    Attributes:
        steps: (n,), integers.
        series: by name.
        calls: training steps counted.
        seconds: spent on recording. training: spent otherwise, from the first call or ``with`` on.
        cadence: when records were made, in words.

    """

    steps: Tensor
    series: Mapping[str, Series]
    calls: int
    seconds: float
    training: float
    cadence: str

    @property
    def overhead(self) -> float:
        """The time spent on recording over that of training without it."""
        return self.seconds / self.training if self.training > 0 else inf

    def __getitem__(self, name: str) -> Series:
        if name not in self.series:
            raise ArgumentError("name", f"one of {list(self.series)}", repr(name), "Name a quantity that was recorded.")
        return self.series[name]

    def __repr__(self) -> str:
        head = f"Track: {len(self.steps)} records in {self.calls} steps, {self.cadence}"
        spent = f"overhead {self.overhead:.1%}: {self.seconds:.3g} s beside {self.training:.3g} s of training"
        rows = [(name, _told(one, 0), _told(one, -1), _range(one.values)) for name, one in self.series.items()]
        return f"{head}; {spent}" + ("\n" + text_table(("quantity", "first", "last", "range"), rows) if rows else "")

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold; nan is null."""
        series = {
            name: {part: [None if x != x else x for x in tensor.tolist()] for part, tensor in vars(one).items()}
            for name, one in self.series.items()
        }
        return {**vars(self), "steps": self.steps.tolist(), "series": series}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Track:
        """The inverse of :meth:`to_dict`."""

        def tensor(values: Sequence[float | None]) -> Tensor:
            return torch.tensor([nan if x is None else x for x in values], dtype=torch.float64)

        parts = {n: Series(**{part: tensor(v) for part, v in one.items()}) for n, one in record["series"].items()}
        return cls(**{**record, "steps": torch.tensor(record["steps"], dtype=torch.int64), "series": parts})

    def plot(self, ax: Any = None, names: Sequence[str] | None = None) -> Any:
        """Quantities with their intervals against the step, on matplotlib axes.

        Without ``ax`` each quantity has axes of its own, that of all layers together, and a list of them is returned.
        """
        chosen = {name: self[name] for name in (self.series if names is None else names)}
        if ax is not None:
            return self._draw(ax, chosen)
        groups: dict[str, dict[str, Series]] = {}
        for name, one in chosen.items():
            groups.setdefault(name.partition(":")[0], {})[name] = one
        if not groups:
            return [_axes(None)]
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 2.2 * len(groups)), layout="constrained")
        panels = figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0]
        return [self._draw(panel, group, name) for panel, (name, group) in zip(panels, groups.items(), strict=True)]

    def _draw(self, ax: Any, series: Mapping[str, Series], label: str = "value") -> Any:
        for name, one in series.items():
            seen = one.values.isfinite()
            (line,) = ax.plot(self.steps[seen], one.values[seen], ".-", label=name.partition(": ")[2] or name)
            ax.fill_between(self.steps[seen], one.low[seen], one.high[seen], color=line.get_color(), alpha=0.25, lw=0)
        seen = torch.cat([one.values[one.values.isfinite()] for one in series.values()] or [torch.zeros(0)])
        if len(seen) and 0 < 10 * float(seen.min()) < float(seen.max()):
            ax.set_yscale("log")
        ax.set(xlabel="step", ylabel=label)
        ax.label_outer()
        if len(series) > 1:
            ax.legend(fontsize="x-small")
        return ax


def _told(one: Series, place: int) -> str:
    seen = one.values.isfinite().nonzero().flatten()
    if not len(seen):
        return ""
    value, low, high = (float(part[seen[place]]) for part in (one.values, one.low, one.high))
    half = (high - low) / 2
    if half == 0:
        return f"{value:.4g}"
    if isinf(low) != isinf(high) or (half < inf and abs(high + low - 2 * value) > 1e-3 * (high - low)):
        return f"{value:.4g} [{low:.3g}, {high:.3g}]"  # not in the middle
    return f"{_to_error(value, half) if half < inf else f'{value:.4g}'} ± {_two_digits(half)}"


def _range(values: Tensor) -> str:
    seen = values[values.isfinite()]
    return f"{float(seen.min()):.3g} – {float(seen.max()):.3g}" if len(seen) else ""
