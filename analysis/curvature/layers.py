"""Curvature layer by layer and head by head: traces and largest eigenvalues of diagonal blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..operators.base import Operator, as_operator
from ..operators.hessian import Hessian
from ..spectra.eigenpairs import eigenpairs
from ..spectra.probes import Probes, check_options, looks, moments
from ..spectra.results import Estimate, _axes, _quantile
from ..spectra.structured import PerExample, diagonal_is_gauss_newton, exactly
from .blocks import Block, Entries, blocks_of


@dataclass(frozen=True)
class BlockCurvature:
    """One block: its number of parameters, its trace, and its largest eigenvalue with its residual."""

    name: str
    kind: str
    parameters: int
    trace: Estimate
    eigenvalue: float
    residual: float
    converged: bool

    @property
    def interval(self) -> tuple[float, float]:
        """[θ − r, θ + r]: it holds an eigenvalue of the block, to rounding; the largest one is at least θ."""
        return self.eigenvalue - self.residual, self.eigenvalue + self.residual


@dataclass(frozen=True, repr=False)
class LayerCurvature:
    """What :func:`per_layer` found: a row for each block, in the model's order; heads follow the layers.

    Attributes:
        rows: layers, which share no parameter; then heads, which are made of entries of layers.
        matvecs: products of the whole operator, all blocks together.

    """

    rows: tuple[BlockCurvature, ...]
    matvecs: int

    def __getitem__(self, name: str) -> BlockCurvature:
        return {row.name: row for row in self.rows}[name]

    @property
    def converged(self) -> bool:
        """Whether every trace and every eigenvalue met the tolerance."""
        return all(row.converged and row.trace.converged for row in self.rows)

    def __repr__(self) -> str:
        cells: list[tuple[str, ...]] = [("block", "kind", "entries", "trace", "largest eigenvalue")]
        for row in self.rows:
            half = (row.trace.interval()[1] - row.trace.interval()[0]) / 2
            marks = ("" if done else " (not converged)" for done in (row.trace.converged, row.converged))
            numbers = (f"{a:.4g} ± {b:.2g}" for a, b in ((row.trace.value, half), (row.eigenvalue, row.residual)))
            cells.append((row.name, row.kind, str(row.parameters), *map(str.__add__, numbers, marks)))
        widths = [max(len(line[column]) for line in cells) for column in range(5)]
        table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        return "\n".join([f"LayerCurvature({len(self.rows)} blocks, {self.matvecs} products)", *table])

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {"rows": [asdict(row) for row in self.rows], "matvecs": self.matvecs}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LayerCurvature:
        """The inverse of :meth:`to_dict`."""
        rows = (BlockCurvature(**{**row, "trace": Estimate.from_dict(row["trace"])}) for row in record["rows"])
        return cls(tuple(rows), record["matvecs"])

    def plot(self, ax: Any = None) -> Any:
        """Trace and largest eigenvalue of each block with their intervals, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        places = range(len(self.rows))
        half = [row.trace.interval()[1] - row.trace.value for row in self.rows]
        ax.errorbar([row.trace.value for row in self.rows], places, xerr=half, fmt="s", capsize=3, label="trace")
        bars = [row.residual for row in self.rows]
        ax.errorbar(
            [row.eigenvalue for row in self.rows], places, xerr=bars, fmt="o", capsize=3, label="largest eigenvalue"
        )
        ax.set_yticks(places, [row.name for row in self.rows], parse_math=False)
        ax.invert_yaxis()
        sizes = [abs(x) for row in self.rows for x in (row.trace.value, row.eigenvalue) if x]
        ax.set_xscale("symlog", linthresh=min(sizes, default=1.0))
        ax.set_xlabel("curvature")
        ax.legend()
        return ax


def per_layer(
    operator: Operator,
    model: nn.Module,
    tol: float = 0.05,
    max_matvecs: int = 1000,
    seed: int = 0,
    block: int | None = None,
) -> LayerCurvature:
    r"""Trace and largest eigenvalue of each layer's diagonal block, and of each attention head's, with intervals.

    .. math:: \mathrm{tr}(A_{bb}) = E \sum_{i \in b} z_i (Az)_i, \quad z_i = \pm 1, \qquad
        \mathrm{Var} = 2 \sum_{i \ne j \in b} A_{ij}^2 + \sum_{i \in b,\, j \notin b} A_{ij}^2

    A layer is the parameters that a module owns itself. A head of ``nn.MultiheadAttention``, of the lab's attention, and of
    modules that have a number of heads and linear maps with the usual names (``q_proj``, ``query``, …) is its rows of the
    query, key and value maps and its columns of the output map.

    One product serves the traces of all blocks. They come from single examples' gradients, exactly, where
    :func:`~lemmata.analysis.trace` would take those; from unit vectors, exactly, where those are fewer than the probes that
    are missing. The eigenvalue of a block takes Lanczos steps of its own, from its part of a product that was taken for
    the traces.

    Args:
        operator: on parameters of the model: a Hessian, GGN, Fisher matrix, or any other with their layout.
        model: tells which parameters belong together; it is not run, and not changed.
        tol: relative, of both numbers: half-width of the 95 % interval of each trace, residual of each eigenvalue.
        max_matvecs: the most products for the traces; where they do not suffice, rows say so.
        seed: of the probes, drawn on the CPU whatever the global generator does.
        block: vectors multiplied at a time, by default as many as the operator multiplies together.

    Assumptions: the intervals of traces take the mean of the probes for normal, each block alone.

    Cost: the probes, their number ruled by the block with the largest relative variance, and about ten Lanczos steps for
    each block.

    Errors: ``ParameterError`` for parameters that the model does not have, ``ArgumentError`` for an option outside its
    domain.

    Source: Bekas, Kokiopoulou & Saad 2007, An estimator for the diagonal of a matrix; Zhang et al. 2024, Why
    transformers need Adam: a Hessian perspective, for the use of blocks.

    Example:
        >>> from lemmata.analysis import GGN
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> data = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.zeros(2, 1)
        >>> float(per_layer(GGN(model, nn.MSELoss(), data), model)["0"].trace)  # (2/N) XᵀX
        6.0

    """
    operator = as_operator(operator)
    check_options(tol, max_matvecs, block, seed)
    block = block or operator.block
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", "the torch.nn.Module of the operator", type(model).__name__, "Pass the model.")
    blocks = blocks_of(operator.layout, model)
    traces, images, spent = _traces(operator, blocks, tol, max_matvecs, seed, block)
    rows = []
    for item, estimate in zip(blocks, traces, strict=True):
        part = Entries(operator, item.positions)
        start = None if images is None else images[item.positions.to(images.device)]
        start = start if start is not None and 0 < float(start.norm()) < inf else None
        pairs = eigenpairs(part, 1, tol=tol, seed=seed, start=start)
        spent += pairs.matvecs
        values = float(pairs.values[0]), float(pairs.residuals[0]), pairs.converged
        rows.append(BlockCurvature(item.name, item.kind, len(item.positions), estimate, *values))
    return LayerCurvature(tuple(rows), spent)


def _traces(
    operator: Operator, blocks: list[Block], tol: float, budget: int, seed: int, block: int
) -> tuple[list[Estimate], Tensor | None, int]:
    """The trace of every block, an image of a probe, and the products spent."""
    if not isinstance(operator, Hessian) or diagonal_is_gauss_newton(operator):
        exact = exactly(operator, PerExample.diagonal)
        if exact:
            return _summed(exact[0], blocks, exact[1], seed, "per-example gradients"), None, exact[1]
    probes = Probes(operator, seed)
    places = [item.positions.to(operator.device) for item in blocks]
    samples = torch.empty(0, len(blocks), dtype=torch.float64, device=operator.device)
    image, ranks = torch.empty(0), [1.0] * len(blocks)
    for target in looks(budget):
        while len(samples) < target:
            rows = probes.draw(min(block, target - len(samples)))
            images = (operator @ rows.T).T
            if not len(samples):
                image, ranks = images[0].clone(), [_effective_rank(images[:, place]) for place in places]
            products = (rows * images).double()
            samples = torch.cat([samples, torch.stack([products[:, place].sum(1) for place in places], 1)])
        estimates, missing = _estimates(samples, ranks, tol, seed, float(torch.finfo(operator.dtype).eps))
        if missing <= 0:
            break
        if operator.shape[0] <= min(missing, budget - len(samples)):
            spent = len(samples) + operator.shape[0]
            return _summed(_diagonal(operator, block), blocks, spent, seed, "unit vectors"), image, spent
    return estimates, image, len(samples)


def _estimates(samples: Tensor, ranks: list[float], tol: float, seed: int, eps: float) -> tuple[list[Estimate], float]:
    """The estimate of each block, and how many probes the neediest is short of."""
    count, found, most = len(samples), [], 0.0
    for column, rank in zip(samples.T, ranks, strict=True):
        mean, stderr = moments(column, rank)
        half = _quantile(0.95, count - 1) * stderr
        aim = max(tol * abs(mean), 10 * eps * float(column.abs().mean()))
        need = 0.0 if half <= aim else (count * (half / aim) ** 2 - count if aim else inf)
        most = max(most, need)
        found.append(Estimate(mean, stderr, count - 1, None, count, seed, "Hutchinson", half <= aim))
    return found, most


def _effective_rank(images: Tensor) -> float:
    """The participation ratio of the eigenvalues that rule a block's quadratic form, at least 1."""
    rows = images.double()
    gram = rows @ rows.T / rows.square().sum().clamp(min=1e-300)
    return max(1.0, float(gram.trace() ** 2 / gram.square().sum().clamp(min=1e-300)))


def _diagonal(operator: Operator, block: int) -> Tensor:
    values = torch.empty(operator.shape[0], dtype=torch.float64, device=operator.device)
    for places in torch.arange(len(values), device=operator.device).split(block):
        units = torch.zeros(len(values), len(places), dtype=operator.dtype, device=operator.device)
        columns = torch.arange(len(places), device=operator.device)
        units[places, columns] = 1
        values[places] = (operator @ units)[places, columns].double()
    return values


def _summed(diagonal: Tensor, blocks: list[Block], spent: int, seed: int, method: str) -> list[Estimate]:
    sums = [float(diagonal[item.positions.to(diagonal.device)].sum()) for item in blocks]
    return [Estimate(total, 0.0, 0, None, spent, seed, method) for total in sums]
