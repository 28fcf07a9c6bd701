"""Errors of trained networks over widths, depths and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..curvature.text_table import text_table
from ..errors import ArgumentError
from ..spectra.results import _axes, _check_level
from .rates import Rate, rate

Which = Literal["l2", "sup"]


@dataclass(frozen=True, repr=False)
class FitGrid:
    r"""Errors of trained networks over widths × depths × seeds, beside floors.

    Attributes:
        widths, depths: of the grid. parameters: of each cell's network, (W, D).
        l2, sup: root of the mean square and largest error over the dense grid, (W, D, S), float64 on the CPU; inf where a run diverged.
        floors: of the largest error, (W, D), if given: what no network of the cell can be below.
        routes: how each cell was trained, "side by side" or "one by one".
        converged: whether every median is known to within the tolerance.

    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    parameters: tuple[tuple[int, ...], ...]
    l2: Tensor
    sup: Tensor
    floors: Tensor | None
    routes: tuple[tuple[str, ...], ...]
    converged: bool

    def best(self, of: Which = "sup") -> Tensor:
        """The least error over seeds, (W, D): what training has reached, with no error bar; it falls as seeds are added."""
        return self._of(of).amin(2)

    def median(self, of: Which = "sup") -> Tensor:
        """The median over seeds, (W, D)."""
        return _median(self._of(of))

    def interval(self, of: Which = "sup", level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Order statistics that hold the median of each cell with at least this probability, whatever the law; (W, D) each."""
        return order_interval(self._of(of), level)

    @property
    def diverged(self) -> int:
        """How many runs ended in numbers that are not finite."""
        return int(self.sup.isinf().sum())

    @property
    def crossed(self) -> list[tuple[int, int]]:
        """Cells (width, depth) of which some network is below the floor: the floor, or the claim that it holds there, is wrong."""
        if self.floors is None:
            return []
        places = (self.best() < self.floors).nonzero().tolist()
        return [(self.widths[i], self.depths[j]) for i, j in places]

    def rate(self, of: Which = "sup", along: Literal["width", "depth", "parameters"] = "width", at: int = 0) -> Rate:
        """How the error falls along a row or column of the grid, the ``at``-th of the other axis; see :func:`rate`."""
        if along not in ("width", "depth", "parameters"):
            raise ArgumentError("along", "width, depth or parameters", repr(along), 'Pass along="width".')
        errors = self._of(of)[at] if along == "depth" else self._of(of)[:, at]
        sizes = {"width": self.widths, "depth": self.depths, "parameters": [row[at] for row in self.parameters]}
        return rate(sizes[along], errors)

    def _of(self, of: Which) -> Tensor:
        if of not in ("l2", "sup"):
            raise ArgumentError("of", '"l2" or "sup"', repr(of), 'Pass of="sup" for the largest error.')
        return self.l2 if of == "l2" else self.sup

    def __repr__(self) -> str:
        low, high = self.interval()
        rows = []
        for i, width in enumerate(self.widths):
            for j, depth in enumerate(self.depths):
                numbers = (self.best()[i, j], self.median()[i, j], low[i, j], high[i, j])
                cells = [f"{float(x):.3g}" for x in numbers]
                floor = [] if self.floors is None else [f"{float(self.floors[i, j]):.3g}"]
                rows.append((f"{width} × {depth}", str(self.parameters[i][j]), *cells, *floor))
        head = ("width × depth", "parameters", "best", "median", "95 % from", "to")
        table = text_table((*head, *([] if self.floors is None else ["floor"])), rows)
        state = "" if self.converged else "; medians not converged"
        return f"FitGrid: largest errors over {self.sup.shape[2]} seeds, {self.diverged} diverged{state}\n{table}"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        tensors = {name: _plain(vars(self)[name]) for name in ("l2", "sup", "floors")}
        nested = {name: [list(row) for row in vars(self)[name]] for name in ("parameters", "routes")}
        return {**vars(self), **tensors, **nested, "widths": list(self.widths), "depths": list(self.depths)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> FitGrid:
        """The inverse of :meth:`to_dict`."""
        tensors = {name: _tensor(record[name]) for name in ("l2", "sup", "floors")}
        nested = {name: tuple(map(tuple, record[name])) for name in ("parameters", "routes")}
        return cls(
            **{**record, **tensors, **nested, "widths": tuple(record["widths"]), "depths": tuple(record["depths"])}
        )

    def plot(self, of: Which = "sup", ax: Any = None) -> Any:
        """Every run, the medians and the floors against width, a colour for each depth; on matplotlib axes."""
        ax = _axes(ax)
        errors, median = self._of(of), self.median(of)
        for j, depth in enumerate(self.depths):
            colour = f"C{j}"
            for i, width in enumerate(self.widths):
                seeds = errors[i, j][errors[i, j].isfinite()]
                ax.plot([width] * len(seeds), seeds, ".", color=colour, markersize=3, alpha=0.5)
            ax.plot(self.widths, median[:, j], "-", color=colour, label=f"depth {depth}, median")
            if self.floors is not None and of == "sup":
                ax.plot(self.widths, self.floors[:, j], "--", color=colour, label=f"depth {depth}, floor")
        ax.set(xlabel="width", ylabel="largest error" if of == "sup" else "root mean square error")
        ax.set(xscale="log", yscale="log")
        ax.legend()
        return ax


def _median(errors: Tensor) -> Tensor:
    return torch.from_numpy(np.median(errors.numpy(), axis=2))


def order_interval(errors: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Order statistics about the median; (0, ∞) where the seeds are too few for the level."""
    _check_level(level)
    ordered, n = errors.sort(2).values, errors.shape[2]
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5))  # P(B < rank) ≤ (1 − level) / 2
    if rank == 0:
        return torch.zeros_like(ordered[..., 0]), torch.full_like(ordered[..., 0], float("inf"))
    return ordered[..., rank - 1], ordered[..., n - rank]


def _plain(part: Tensor | None) -> Any:
    """Nested lists, None for a number that is not finite, as JSON has no other."""
    if part is None or part.ndim == 0:
        return None if part is None or not part.isfinite() else float(part)
    return [_plain(row) for row in part]


def _tensor(record: Any) -> Tensor | None:
    if record is None:
        return None
    filled = np.array(record, dtype=object)
    filled[filled == None] = float("inf")  # noqa: E711
    return torch.from_numpy(filled.astype(float))
