"""What a user's model can represent on its data: ranks, random labels, linear regions and frequencies, in one report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ..curvature.text_table import text_table
from ..errors import DataError, LemmataError
from ..operators.data import count
from ..operators.layout import Selection
from ..operators.snapshot import snapshot
from ..spectra.results import Estimate, _axes, _quantile
from .fourier import FourierContent, data_lines, fourier_content
from .lines import PathRegions, regions_on_path
from .random_labels import RandomLabels, check_budget, random_labels
from .representation_ranks import LayerRank, representation_ranks

_SHOWN = 24  # layers in the table
_SEGMENTS = 64  # of the path through the data


@dataclass(frozen=True, repr=False)
class CapacityReport:
    """What :func:`capacity_report` found; its repr is one table.

    Attributes:
        layers: the effective rank of every representation, in the order of the forward pass.
        labels: random labels that a copy learned. regions: linear regions along a path through the inputs. content: the
            spectrum along lines between them. Each is None where ``notes`` says why.
        parameters: entries of all the model's parameters. examples: inputs.
        level: of the intervals that ``repr`` shows.

    """

    layers: tuple[LayerRank, ...]
    labels: RandomLabels | None
    regions: PathRegions | None
    content: FourierContent | None
    parameters: int
    examples: int
    level: float
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> LayerRank:
        return {layer.name: layer for layer in self.layers}[name]

    @property
    def converged(self) -> bool:
        """Whether every interval met the tolerance that was asked for."""
        return all(row[1].converged for row in self._rows())

    def _rows(self) -> list[tuple[str, Estimate, float, str]]:
        """What was measured, its estimate, what it cannot exceed, and a remark."""
        rows = []
        if self.labels is not None:
            of = f"{self.labels.labels} labels in {self.labels.classes} classes, {self.labels.steps} steps"
            rows.append(("random labels fitted", self.labels.fitted, 1.0, f"{of}; ceiling {self.labels.ceiling:.3g}"))
        if self.regions is not None:
            of = f"{int(self.regions.regions.sum())} regions on {len(self.regions.regions)} segments"
            rows.append(("region borders per unit of length", self.regions.per_length, inf, of))
        if self.content is not None:
            what = f"energy above {self.content.cut:g} cycles a line"
            rows.append((what, self.content.above, 1.0, f"{len(self.content.energies)} lines"))
        for layer in self.layers:
            if layer.rank is not None:
                rows.append(
                    (f"effective rank, {_name(layer)}", layer.rank, float(layer.entries), f"{layer.entries} entries")
                )
        return rows

    def __repr__(self) -> str:
        cells = [_cells(*row, self.level) for row in self._rows()]
        if len(cells) > _SHOWN:
            half = _SHOWN // 2
            cells = [*cells[:half], ("…", "", "", "", ""), *cells[-half:]]
        head = f"CapacityReport: {self.parameters} parameters on {self.examples} inputs"
        table = text_table(("quantity", "value", f"{100 * self.level:g} %", "of", ""), cells)
        return "\n".join([head, table, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        parts = {name: getattr(self, name) for name in _PARTS}
        record = {name: part.to_dict() if part is not None else None for name, part in parts.items()}
        return {**vars(self), **record, "layers": [asdict(layer) for layer in self.layers]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CapacityReport:
        """The inverse of :meth:`to_dict`."""
        parts = {name: record[name] and kind.from_dict(record[name]) for name, kind in _PARTS.items()}
        ranks = ({**row, "rank": row["rank"] and Estimate.from_dict(row["rank"])} for row in record["layers"])
        layers = tuple(LayerRank(**row) for row in ranks)
        return cls(**{**record, **parts, "layers": layers, "notes": tuple(record["notes"])})

    def plot(self, ax: Any = None) -> Any:
        """Effective rank by layer with its intervals, and the entries that bound it, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        seen = [layer for layer in self.layers if layer.rank is not None]
        places, values = range(len(seen)), [float(layer.rank) for layer in seen if layer.rank is not None]
        ends = [layer.rank.interval(self.level) for layer in seen if layer.rank is not None]
        lower = [value - max(low, 0.1 * value) for value, (low, _) in zip(values, ends, strict=True)]
        upper = [high - value for value, (_, high) in zip(values, ends, strict=True)]
        ax.errorbar(places, values, [lower, upper], fmt="o", capsize=3, label="effective rank")
        ax.plot(places, [layer.entries for layer in seen], "_", color="0.3", markersize=12, label="entries")
        ax.set_xticks(places, [layer.name for layer in seen], rotation=30, ha="right", parse_math=False)
        ax.set(ylabel="directions", yscale="log", xlabel="representation")
        ax.legend()
        return ax


_PARTS: dict[str, Any] = {"labels": RandomLabels, "regions": PathRegions, "content": FourierContent}


def _name(layer: LayerRank) -> str:
    return layer.name if layer.kind in layer.name else f"{layer.name} ({layer.kind})"


def _cells(what: str, found: Estimate, most: float, of: str, level: float) -> tuple[str, str, str, str, str]:
    low, high = (min(max(end, 0.0), most) for end in found.interval(level))
    return what, f"{found.value:.3g}", f"[{low:.3g}, {high:.3g}]", of, "" if found.converged else "not converged"


def capacity_report(
    model: nn.Module,
    inputs: Any,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    steps: int = 500,
    rate: float = 1e-2,
    tol: float = 0.1,
    level: float = 0.95,
    seed: int = 0,
) -> CapacityReport:
    r"""What a model can represent on its data: effective ranks, random labels, linear regions, frequencies.

    Four measures of how much a model does with its inputs, none of which needs a target: the effective rank of every
    representation (:func:`representation_ranks`), the share of random labels that a copy learns within a budget
    (:func:`random_labels`), the linear regions that a path through the inputs crosses, of a piecewise linear
    model (:func:`regions_on_path`), and the spectrum of the outputs along lines between inputs (:func:`fourier_content`).
    What a model or its inputs do not allow is left out, and ``notes`` says why.

    Args:
        model, dtype, batch_stats: as for :class:`~lemmata.analysis.Jacobian`. params: those trained on random labels.
        inputs: one batch: a tensor, a tuple of positional arguments or a mapping of named ones; lines and paths need a
            tensor (N, …) of numbers between which there are others.
        steps, rate: the budget for random labels.
        tol: half widths asked for, relative to each number; of the spectrum's share :func:`fourier_content` has its own.
        level: confidence of the intervals. seed: of labels, pairs and path.

    Intervals are over what was drawn: labels, pairs of inputs, segments, lines.

    Cost: ``steps`` gradients on all inputs for each of 10 to 30 draws of the labels, which is nearly all; forward passes for
    the rest. The model is copied and never changed.

    Errors: ``ArgumentError``, ``DataError``, ``ModelStateError`` and ``NumericsError`` as for
    :func:`representation_ranks`; ``ArgumentError`` for a budget outside its domain.

    Source: Zhang et al. 2017, Understanding deep learning requires rethinking generalization; Hanin & Rolnick 2019,
    Complexity of linear regions in deep networks; Rahaman et al. 2019, On the spectral bias of neural networks.

    Example:
        An affine model has one linear region on every segment, and no more than three directions of three inputs:

        >>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> report = capacity_report(nn.Linear(3, 5), x, steps=50)
        >>> set(report.regions.regions.tolist()), bool(report["model"].rank.value < 3)
        ({1}, True)

    """
    check_budget(steps, rate, tol, level)
    layers = representation_ranks(model, inputs, dtype, batch_stats, tol=tol, level=level, seed=seed)
    notes: list[str] = []

    def attempt(what: str, measure: Callable[[], Any]) -> Any:
        try:
            return measure()
        except LemmataError as error:
            notes.append(f"no {what}: {error}")
            return None

    options: dict[str, Any] = dict(dtype=dtype, batch_stats=batch_stats)
    budget: dict[str, Any] = dict(steps=steps, rate=rate, tol=tol, level=level, seed=seed)
    labels = attempt("random labels", lambda: random_labels(model, inputs, params, **options, **budget))
    regions = attempt("linear regions", lambda: _regions(snapshot(model, **options)[0], inputs, tol, level, seed))
    content = attempt("spectrum", lambda: fourier_content(model, data_lines(inputs, seed), **options))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    examples = count(inputs, None, "inputs")
    return CapacityReport(layers, labels, regions, content, parameters, examples, level, tuple(notes))


def _regions(private: nn.Module, inputs: Any, tol: float, level: float, seed: int) -> PathRegions:
    found = regions_on_path(private, _path(inputs, seed))
    own = found.per_length
    half = own.bias + (_quantile(level, own.dof) * own.stderr if own.stderr else 0.0)
    met = half <= tol * own.value
    return replace(found, per_length=replace(own, converged=met))


def _path(inputs: Any, seed: int) -> Tensor:
    """Inputs in random order, no two equal ones in a row."""
    lines = data_lines(inputs, seed)[: _SEGMENTS // 2 + 1].flatten(0, 1)[: _SEGMENTS + 1]
    moved = (lines[1:] != lines[:-1]).flatten(1).any(1)
    path = torch.cat([lines[:1], lines[1:][moved]])
    if len(path) < 2:
        remedy = "Pass inputs that are not all the same."
        raise DataError("inputs", "at least two that differ", "equal ones", remedy)
    return path
