"""Linear regions of piecewise linear models along segments and polylines in input space."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DataError, NumericsError
from ..jackknife import jackknife
from ..spectra.results import Estimate, _axes
from .integers import cells_on_line
from .sweep import Sweep
from .tracing import piecewise_linear
from .written_out import Array, PiecewiseLinear

FLOATS, INTEGERS = "float64, certified", "integers"
_RUNS, _LONG = 32, 4  # runs for the standard error, and their least length: neighbouring segments share a point


@dataclass(frozen=True, repr=False)
class LineRegions:
    r"""What :func:`regions_on_line` found on x(t) = start + t (end − start), 0 ≤ t ≤ 1.

    Attributes:
        breakpoints: t where some unit switches, ascending, (regions − 1,), float64.
        layers: the layer of units that switches there, counted from 0, (regions − 1,); the first of them if several do.
        patterns: which units are active in each region, (regions, units), bool.
        length: ‖end − start‖.
        method: by which arithmetic the count was decided.

    """

    breakpoints: Tensor
    layers: Tensor
    patterns: Tensor
    length: float
    method: str

    @property
    def regions(self) -> int:
        """How many linear regions the segment passes through."""
        return len(self.patterns)

    def __repr__(self) -> str:
        return f"LineRegions({self.regions} regions on a length of {self.length:.4g}; {self.method})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), **{name: getattr(self, name).tolist() for name in ("breakpoints", "layers", "patterns")}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LineRegions:
        """The inverse of :meth:`to_dict`."""
        types = {"breakpoints": torch.float64, "layers": torch.long, "patterns": torch.bool}
        patterns = torch.tensor(record["patterns"], dtype=torch.bool).reshape(len(record["patterns"]), -1)
        return cls(
            **{
                **record,
                **{name: torch.tensor(record[name], dtype=kind) for name, kind in types.items()},
                "patterns": patterns,
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """A mark where a unit switches, a row for each layer, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        depth = int(self.layers.max()) + 1 if len(self.layers) else 1
        for layer in range(depth):
            t = self.breakpoints[self.layers == layer]
            ax.plot(t, torch.full_like(t, layer + 1), "|", markersize=14, color=f"C{layer % 10}")
        ax.set(xlabel="t, from start to end", ylabel="layer whose unit switches", xlim=(0, 1), ylim=(0.5, depth + 0.5))
        ax.set_yticks(range(1, depth + 1))
        return ax


@dataclass(frozen=True, repr=False)
class PathRegions:
    r"""What :func:`regions_on_path` found.

    Attributes:
        regions: how many linear regions each segment passes through, (segments,).
        lengths: of the segments, (segments,), float64.
        per_length: borders between regions crossed in a unit of length, Σ (regions − 1) / Σ lengths, with the error over runs
            of neighbouring segments.
        methods: by which arithmetic each count was decided.

    """

    regions: Tensor
    lengths: Tensor
    per_length: Estimate
    methods: tuple[str, ...]

    def __repr__(self) -> str:
        low, high = self.per_length.interval()
        density = f"{self.per_length.value:.4g} borders a unit of length, 95 % [{low:.4g}, {high:.4g}]"
        return f"PathRegions({int(self.regions.sum())} regions on {len(self.regions)} segments; {density})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {
            "regions": self.regions.tolist(),
            "lengths": self.lengths.tolist(),
            "per_length": self.per_length.to_dict(),
            "methods": list(self.methods),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PathRegions:
        """The inverse of :meth:`to_dict`."""
        regions, lengths = torch.tensor(record["regions"]), torch.tensor(record["lengths"], dtype=torch.float64)
        return cls(regions, lengths, Estimate.from_dict(record["per_length"]), tuple(record["methods"]))

    def plot(self, ax: Any = None) -> Any:
        """Regions against length, a dot for each segment, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.plot(self.lengths, self.regions, "o", markersize=4)
        reach = torch.tensor([0.0, float(self.lengths.max())])
        ax.plot(reach, 1 + self.per_length.value * reach, color="0.3", linewidth=1)
        ax.set(xlabel="length of the segment", ylabel="linear regions")
        return ax


def regions_on_line(model: nn.Module, start: Tensor, end: Tensor) -> LineRegions:
    r"""The linear regions of a piecewise linear model that the segment from ``start`` to ``end`` passes through, exactly.

    A region is a cell of the arrangement of all units' kinks: a maximal interval on which no unit switches. Layer by layer
    the pre-activations are affine between the breakpoints so far, and vanish at new ones. A region counts even where the
    output does not show the kink; :func:`affine_pieces` merges those of a function of one variable.

    Args:
        model: maps a batch (n, \*shape) to tensors; skip connections and convolutions are allowed.
        start, end: inputs, without the batch axis.

    The count is that of the traced network (:func:`piecewise_linear`) in exact arithmetic: in float64 every sign is decided
    against a bound of the rounding errors, those of the breakpoints' places among them; where one is hidden, as with
    coincident kinks, the segment is counted again in integers.

    Cost: one forward pass of the network at each breakpoint, in float64 on the CPU; in integers some thousand times that.

    Errors: ``ArgumentError`` that names a module which is not piecewise linear; ``DataError`` for points that do not fit;
    ``NumericsError`` for weights or points that are not finite.

    Source: Hanin & Rolnick 2019, Complexity of linear regions in deep networks.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> _ = model[0].weight.data.fill_(1.0), model[0].bias.data.copy_(torch.tensor([0.0, -0.5, -2.0]))
        >>> regions_on_line(model, torch.tensor([-1.0]), torch.tensor([1.0])).breakpoints  # x = 0 and x = 1/2
        tensor([0.5000, 0.7500], dtype=torch.float64)

    """
    first, last = finite_point("start", start).numpy(), finite_point("end", end).numpy()
    if first.shape != last.shape:
        remedy = "Pass two inputs of one shape, without the batch axis."
        raise DataError("end", f"the shape of start, {first.shape}", str(last.shape), remedy)
    return _on_segment(piecewise_linear(model, first.shape), first, last)


def regions_on_path(model: nn.Module, points: Tensor) -> PathRegions:
    r"""How many linear regions the polyline through some points passes through, segment by segment, and how densely they lie.

    Args:
        model: as for :func:`regions_on_line`, by which each segment is counted.
        points: (n, \*shape), n ≥ 2, such as data in random order.

    The standard error of the density is a jackknife over 3 to 32 runs of neighbouring segments, for these share points; with
    fewer than three segments it is infinite. Where none of them crosses a border of a model that has units, the interval
    allows for 3 in all their length, the most that leaves five chances in a hundred to see none.

    Cost, errors: those of :func:`regions_on_line`; the model is traced once.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> _ = model[0].weight.data.fill_(1.0), model[0].bias.data.fill_(-0.5)
        >>> found = regions_on_path(model, torch.tensor([[0.0], [1.0], [3.0]]))
        >>> found.regions.tolist(), found.lengths.tolist(), round(found.per_length.value, 6)
        ([2, 1], [1.0, 2.0], 0.333333)

    """
    if not isinstance(points, Tensor) or points.ndim < 2 or len(points) < 2:
        given = f"shape {tuple(points.shape)}" if isinstance(points, Tensor) else type(points).__name__
        raise DataError("points", "a batch of at least two inputs", given, "Pass points of shape (n, …), n ≥ 2.")
    flat = finite_point("points", points).reshape(len(points), -1).numpy()
    net = piecewise_linear(model, tuple(points.shape[1:]))
    found = [_on_segment(net, a, b) for a, b in itertools.pairwise(flat)]
    regions = torch.tensor([one.regions for one in found], device="cpu")
    lengths = torch.tensor([one.length for one in found], dtype=torch.float64, device="cpu")
    density = _density(regions - 1, lengths, unseen=3.0 if net.units else 0.0)
    return PathRegions(regions, lengths, density, tuple(one.method for one in found))


def finite_point(name: str, point: Tensor) -> Tensor:
    """The point in float64 on the CPU, or a refusal."""
    if not isinstance(point, Tensor) or not point.is_floating_point():
        given = str(point.dtype) if isinstance(point, Tensor) else type(point).__name__
        raise DataError(name, "a tensor of real floating-point numbers", given, "Convert it with .double().")
    point = point.detach().to("cpu", torch.float64)
    if not bool(point.isfinite().all()):
        raise NumericsError(name, "finite numbers", "nan or infinity", "Clean the data, or leave the point out.")
    return point


def _density(borders: Tensor, lengths: Tensor, unseen: float = 0.0) -> Estimate:
    """Borders over length; ``unseen`` of them may be there where none is seen."""
    total = float(lengths.sum())
    if not total:
        remedy = "Pass points that are not all the same."
        raise DataError("points", "a path of positive length", "length 0", remedy)
    groups = torch.arange(len(lengths), device=lengths.device) * _runs(len(lengths)) // len(lengths)
    sums = lengths.new_zeros(2, int(groups[-1]) + 1)
    sums.index_add_(1, groups, torch.stack([borders.double(), lengths]))
    sums = sums[:, sums[1] > 0]
    value, count = float(borders.sum()) / total, sums.shape[1]
    if count < 3:
        return Estimate(value, np.inf, 0, None, 0, 0, "jackknife over runs of segments", False)
    left_out = (sums[0].sum() - sums[0]) / (sums[1].sum() - sums[1])
    error = jackknife(value, left_out, sums[1])
    bias = 0.0 if value else unseen / total
    return Estimate(value, error, count - 1, None, 0, 0, "jackknife over runs of segments", bias=bias)


def _runs(segments: int) -> int:
    return min(_RUNS, max(segments // _LONG, min(segments, 3)))


def _on_segment(net: PiecewiseLinear, start: Array, end: Array) -> LineRegions:
    start, end = start.reshape(-1), end.reshape(-1)
    length = float(np.linalg.norm(end - start))
    sweep = Sweep.over(net.along(start, (end - start)[None]))
    if sweep is not None:
        places, born, patterns = sweep.sources[0].value[0, 1:-1], sweep.born[1:-1], sweep.patterns.T.copy()
        return _found(places, born, patterns, length, FLOATS)
    cells = cells_on_line(net, start, end, (Fraction(0), Fraction(1)))
    widths = np.cumsum([len(layer.negative) for layer in net.layers])
    switched = [np.flatnonzero(np.array(a.pattern) != np.array(b.pattern)) for a, b in itertools.pairwise(cells)]
    born = np.array([np.searchsorted(widths, units[0], side="right") for units in switched], dtype=np.int64)
    places = np.array([float(cell.right) for cell in cells[:-1]])
    return _found(places, born, np.array([cell.pattern for cell in cells], dtype=bool), length, INTEGERS)


def _found(
    places: Array, born: NDArray[np.int64], patterns: NDArray[np.bool_], length: float, method: str
) -> LineRegions:
    return LineRegions(torch.from_numpy(places), torch.from_numpy(born), torch.from_numpy(patterns), length, method)
