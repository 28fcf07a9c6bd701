"""The loss on a line or a plane through a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ArgumentError, OperandError
from ..operators.layout import Layout, Selection
from ..operators.objective import of_model
from ..spectra.results import _axes
from .evaluation import evaluate, not_finite

Directions = Tensor | Mapping[str, Tensor] | Sequence[Tensor | Mapping[str, Tensor]]


@dataclass(frozen=True, repr=False)
class LossSlice:
    r"""The loss on a grid, :math:`L_{ij} = L(\theta + x_i d_1 + x_j d_2)`, or on a line.

    Attributes:
        coordinates: x, (n,), n odd and the middle entry 0, the same along both directions.
        losses: (n,) or (n, n); the first axis belongs to the first direction. A loss that overflows away from the
            centre stays inf or nan, and ``repr`` says how many do.
        stderr: standard error of each loss over ``unit``, shaped like the losses; None if there is one unit only.
        unit: ``"examples"``, or ``"batches"`` for a loss that cannot be taken apart.
        dtype: in which the losses were computed.

    """

    coordinates: Tensor
    losses: Tensor
    stderr: Tensor | None
    unit: str
    dtype: str

    @property
    def centre(self) -> float:
        """The loss at the model's own parameters."""
        middle = len(self.coordinates) // 2
        return float(self.losses[(middle,) * self.losses.ndim])

    def curvature(self) -> tuple[Tensor, Tensor]:
        r"""The matrix :math:`d_i^\top H d_j` by a quadratic through the grid's centre, and an error of each entry.

        The quadratic interpolates central differences; with five points or more, those at one and at two steps h are
        extrapolated (Richardson) to O(h⁴), and the error is what the extrapolation changed, plus rounding. With three
        points there is nothing to compare, and the error is infinite. A slice too coarse for its curvature, or across
        a kink, has a large error.

        Shapes: (k, k) and (k, k), k the number of directions.

        Example:
            >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)
            >>> LossSlice(x, 3 * x**2 + x, None, "examples", "float64").curvature()[0]
            tensor([[6.]], dtype=torch.float64)

        """
        near = self._differences(1)
        if len(self.coordinates) < 5:
            return near, torch.full_like(near, torch.inf)
        best = (4 * near - self._differences(2)) / 3
        middle = len(self.coordinates) // 2
        size = self.losses[(slice(middle - 2, middle + 3),) * self.losses.ndim].abs().max()
        rounding = 8 * torch.finfo(getattr(torch, self.dtype)).eps * size / self._step**2
        return best, (best - near).abs() + rounding

    @property
    def _step(self) -> float:
        return float(self.coordinates[-1]) / (len(self.coordinates) // 2)

    def _differences(self, steps: int) -> Tensor:
        middle, squared = len(self.coordinates) // 2, (steps * self._step) ** 2
        low, high = middle - steps, middle + steps
        L, axes = self.losses, self.losses.ndim
        matrix = torch.empty(axes, axes, dtype=torch.float64)
        for axis in range(axes):
            line = L if axes == 1 else L.select(1 - axis, middle)
            matrix[axis, axis] = (line[low] - 2 * line[middle] + line[high]) / squared
        if axes == 2:
            mixed = (L[high, high] - L[high, low] - L[low, high] + L[low, low]) / (4 * squared)
            matrix[0, 1] = matrix[1, 0] = mixed
        return matrix

    def __repr__(self) -> str:
        finite = self.losses[self.losses.isfinite()]
        grid = " × ".join(map(str, self.losses.shape))
        reach = float(self.coordinates[-1])
        span = f"{float(finite.min()):.6g} … {float(finite.max()):.6g}"
        return f"LossSlice({grid} on ±{reach:g}, centre {self.centre:.6g}, {span}{not_finite(self.losses)})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        stderr = None if self.stderr is None else self.stderr.tolist()
        return {
            "coordinates": self.coordinates.tolist(),
            "losses": self.losses.tolist(),
            "stderr": stderr,
            "unit": self.unit,
            "dtype": self.dtype,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LossSlice:
        """The inverse of :meth:`to_dict`."""
        coordinates, losses, stderr = (
            None if record[key] is None else torch.tensor(record[key], dtype=torch.float64)
            for key in ("coordinates", "losses", "stderr")
        )
        assert coordinates is not None and losses is not None
        return cls(coordinates, losses, stderr, record["unit"], record["dtype"])

    def plot(self, ax: Any = None) -> Any:
        """A curve with a band of two standard errors, or contours, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        x, losses = self.coordinates.numpy(), self.losses.numpy()
        ax.set_xlabel("along the first direction")
        if losses.ndim == 2:
            lines = ax.contour(x, x, np.ma.masked_invalid(losses.T), levels=20)
            ax.clabel(lines, fontsize="x-small")
            ax.plot([0], [0], "k+")
            ax.set_ylabel("along the second direction")
            return ax
        ax.plot(x, losses)
        if self.stderr is not None:
            half = 1.96 * self.stderr.numpy()
            ax.fill_between(x, losses - half, losses + half, alpha=0.3, linewidth=0)
        ax.set_ylabel("loss")
        return ax


def loss_slice(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    directions: Directions,
    extent: float = 1.0,
    points: int = 51,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> LossSlice:
    r"""The loss over all data on a line or a square around a model's parameters.

    .. math:: (\alpha, \beta) \mapsto L(\theta + \alpha d_1 + \beta d_2), \qquad |\alpha|, |\beta| \le \text{extent}

    Args:
        model, loss, data: as for :class:`~lemmata.analysis.Hessian`: ragged batches, ignored targets and class weights
            are weighted right, and the model is never touched.
        directions: one direction or two, each a flat tensor (P,) or a dictionary by parameter name; or the columns of
            a matrix (P, 1) or (P, 2), such as ``eigenpairs(H, k=2).vectors`` or :func:`random_directions`. They are
            taken as they are, not normalised.
        extent: how far to go, in multiples of the directions.
        points: along each direction; odd, so that the model itself is a point.
        params, dtype, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`; P counts the chosen entries.

    Cost: one forward pass over the data for each point, and one more. Where a pass over a batch is small, many points
    are evaluated at a time over stacked parameters: where it makes at most 2¹⁴ numbers and convolves nothing. The rule
    is never one on time, and both ways agree to rounding. The data are walked once.

    Errors: ``ArgumentError`` for an option outside its domain, ``OperandError`` for a direction that is zero, not
    finite or does not fit, ``LossError`` for a loss that is not finite at the model itself; those of the Hessian for
    model, loss and data.

    Source: Goodfellow, Vinyals & Saxe 2015, Qualitatively characterizing neural network optimization problems; Li et
    al. 2018, Visualizing the loss landscape of neural nets.

    Example:
        Linear regression on one example, L = (1 + α)²:

        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = model.weight.data.fill_(1.0)
        >>> data = (torch.ones(1, 1), torch.zeros(1, 1))
        >>> loss_slice(model, torch.nn.MSELoss(), data, torch.ones(1), points=3).losses
        tensor([0., 1., 4.], dtype=torch.float64)

    """
    if isinstance(extent, bool) or not isinstance(extent, float | int) or not 0 < extent or not isfinite(extent):
        raise ArgumentError("extent", "a finite number > 0", repr(extent), "Pass extent=1.0.")
    if isinstance(points, bool) or not isinstance(points, int) or points < 3 or points % 2 == 0:
        raise ArgumentError("points", "an odd integer ≥ 3", repr(points), "Pass points=51.")
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, dtype, batch_stats, reduction)
    rows = [_flat(direction, name, objective.layout) for name, direction in _listed(directions)]
    moved = [objective.layout.flatten(objective.leaves).detach(), *(_fit(row, objective) for row in rows)]
    half = points // 2
    x = extent * torch.arange(-half, half + 1, dtype=torch.float64) / half
    grid = torch.cartesian_prod(*[x] * len(rows)).reshape(-1, len(rows))
    profile = evaluate(objective, torch.stack(moved), torch.cat([torch.ones(len(grid), 1).to(grid), grid], 1))
    shape = (points,) * len(rows)
    stderr = None if profile.stderr is None else profile.stderr.reshape(shape)
    kind = str(objective.dtype).removeprefix("torch.")
    return LossSlice(x, profile.losses.reshape(shape), stderr, profile.unit, kind)


def _listed(directions: Any) -> list[tuple[str, Any]]:
    """The directions one by one, with their names for messages."""
    remedy = "Pass one direction or two: tensors (P,), dictionaries by name, or a matrix such as pairs.vectors[:, :2]."
    if isinstance(directions, Mapping) or (isinstance(directions, Tensor) and directions.ndim == 1):
        return [("directions", directions)]
    if isinstance(directions, Tensor) and directions.ndim == 2:
        listed = list(directions.T)
    elif isinstance(directions, Sequence) and not isinstance(directions, str):
        listed = list(directions)
    else:
        given = f"shape {tuple(directions.shape)}" if isinstance(directions, Tensor) else type(directions).__name__
        raise OperandError("directions", "one direction or two", given, remedy)
    if not 1 <= len(listed) <= 2:
        raise OperandError("directions", "one direction or two", f"{len(listed)} directions", remedy)
    return [(f"directions[{index}]", direction) for index, direction in enumerate(listed)]


def _flat(direction: Any, name: str, layout: Layout) -> Tensor:
    if isinstance(direction, Mapping):
        direction = layout.flatten(direction)
    remedy = f"Pass a finite non-zero floating-point tensor of shape ({layout.size},), flat in the parameters' order."
    if not isinstance(direction, Tensor) or direction.shape != (layout.size,) or not direction.is_floating_point():
        given = f"{direction.dtype}, shape {tuple(direction.shape)}" if isinstance(direction, Tensor) else ""
        raise OperandError(name, f"shape ({layout.size},)", given or type(direction).__name__, remedy)
    norm = float(direction.detach().norm())
    if not 0 < norm < torch.inf:
        raise OperandError(name, "a finite non-zero direction", f"one of norm {norm}", remedy)
    return direction.detach()


def _fit(row: Tensor, objective: Any) -> Tensor:
    return row.to(objective.device, objective.dtype)
