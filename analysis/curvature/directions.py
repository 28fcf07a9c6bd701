"""Directions in which to look at a loss: random ones on the scale of the weights, and those of a training path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import ArgumentError, DataError, OperandError
from ..operators.layout import Layout, Selection
from ..operators.snapshot import choose, leaves
from ..spectra.results import _axes

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def random_directions(model: nn.Module, count: int = 2, seed: int = 0, params: Selection = "*") -> Tensor:
    r"""Gaussian directions, filter by filter of the norm of the model's own weights.

    .. math:: d_f \leftarrow \frac{d_f}{\|d_f\|}\,\|\theta_f\|

    A filter f is a slice of a weight along its first axis: the weights into one neuron, or one output channel. Steps
    along such directions are relative to the weights, so networks that differ by a rescaling of whole ReLU layers have
    the same slice for the same seed. Parameters of one axis or none (biases, gains) and those of normalisation layers
    stay where they are, as in the source; so do filters that are zero.

    Args:
        model: any ``nn.Module``; only its parameters are read.
        count: number of directions.
        seed: of the draw, made in float64 on the CPU whatever the global generator does.
        params: as for :class:`~lemmata.analysis.Hessian`.

    Shapes: (P, count), in the dtype and on the device of the parameters; the columns go to :func:`loss_slice`.

    Errors: ``ArgumentError`` for a count below 1 or a model without filters.

    Source: Li, Xu, Taylor, Studer & Goldstein 2018, Visualizing the loss landscape of neural nets, §4.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> model.load_state_dict({"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([7.0])})
        <All keys matched successfully>
        >>> d = random_directions(model, 1)[:, 0]
        >>> round(float(d[:2].norm()), 5), float(d[2])
        (5.0, 0.0)

    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError("count", "an integer ≥ 1", repr(count), "Pass count=2 for a plane.")
    chosen = leaves(choose(model, params))
    still = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    owners = choose(model, params)
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for _ in range(count):
        pieces = []
        for name, tensor in chosen.items():
            draw = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            moves = tensor.ndim > 1 and id(owners[name]) not in still
            pieces.append(_filtered(draw, tensor) if moves else torch.zeros(tensor.numel(), dtype=torch.float64))
        columns.append(torch.cat(pieces))
    directions = torch.stack(columns, 1)
    if not bool(directions.any()):
        remedy = "Choose params that include a weight of two axes or more."
        raise ArgumentError("params", "a filter that is not zero", f"none in {list(chosen)}", remedy)
    reference = next(iter(chosen.values()))
    return directions.to(reference.device, reference.dtype)


def _filtered(draw: Tensor, weight: Tensor) -> Tensor:
    rows, truth = draw.flatten(1), weight.detach().to("cpu", torch.float64).flatten(1)
    return (rows / rows.norm(dim=1, keepdim=True) * truth.norm(dim=1, keepdim=True)).reshape(-1)


@dataclass(frozen=True, repr=False)
class Trajectory:
    r"""A training path in the plane of its first two principal components, through its last point θ_T.

    Attributes:
        directions: (P, 2), orthonormal.
        explained: share of the path's variance along each, (2,).
        coordinates: of θ_t − θ_T along the directions, (T + 1, 2); the last row is zero.

    """

    directions: Tensor
    explained: Tensor
    coordinates: Tensor

    def __repr__(self) -> str:
        first, second = self.explained.tolist()
        return f"Trajectory({len(self.coordinates)} checkpoints, {first:.1%} and {second:.1%} of the variance)"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        kind = str(self.directions.dtype).removeprefix("torch.")
        return {key: value.tolist() for key, value in vars(self).items()} | {"dtype": kind}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Trajectory:
        """The inverse of :meth:`to_dict`, on the CPU."""
        directions = torch.tensor(record["directions"], dtype=getattr(torch, record["dtype"]))
        rest = (torch.tensor(record[key], dtype=torch.float64) for key in ("explained", "coordinates"))
        return cls(directions, *rest)

    def plot(self, ax: Any = None) -> Any:
        """The path in its plane, on matplotlib axes (new ones if None), for example those of a slice."""
        ax = _axes(ax)
        ax.plot(*self.coordinates.T.numpy(), "o-", markersize=3)
        for axis, share, name in zip((ax.xaxis, ax.yaxis), self.explained.tolist(), ("first", "second"), strict=True):
            axis.set_label_text(f"{name} principal direction ({100 * share:.0f} %)")
        return ax


def trajectory_directions(
    model: nn.Module, checkpoints: Sequence[Tensor | Mapping[str, Tensor]], params: Selection = "*"
) -> Trajectory:
    r"""The plane in which a training path varies most: principal components of θ_0 − θ_T, …, θ_T − θ_T.

    Args:
        model: whose parameters the checkpoints are; it gives names and shapes.
        checkpoints: θ_0, …, θ_T, at least three, each a flat tensor (P,) or a dictionary by name, such as a state
            dictionary (buffers in it are left out).
        params: as for :class:`~lemmata.analysis.Hessian`.

    Cost: a singular value decomposition of a (T + 1) × P matrix, in float64 on the CPU.

    Assumptions: the differences are centred at their mean, as principal components are; the plane passes through θ_T,
    where a :func:`loss_slice` of the trained model along ``directions`` lies. Signs are fixed by making the entry of
    largest absolute value positive. A random walk too has a few components that explain most of its path (Antognini &
    Sohl-Dickstein 2018), so a large share is no sign of a low-dimensional optimum.

    Errors: ``DataError`` for fewer than three checkpoints or a path that does not move, ``OperandError`` for a
    checkpoint that does not fit.

    Source: Li et al. 2018, Visualizing the loss landscape of neural nets, §7.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> path = trajectory_directions(model, [torch.tensor(p) for p in ([4.0, 0.0], [2.0, 1.0], [0.0, 0.0])])
        >>> [round(share, 4) for share in path.explained.tolist()]
        [0.9231, 0.0769]

    """
    chosen = leaves(choose(model, params))
    layout = Layout(tuple(chosen), tuple(tuple(t.shape) for t in chosen.values()))
    if not isinstance(checkpoints, Sequence) or len(checkpoints) < 3:
        given = f"{len(checkpoints)}" if isinstance(checkpoints, Sequence) else type(checkpoints).__name__
        raise DataError("checkpoints", "a sequence of at least three", given, "Save the parameters more often.")
    path = torch.stack([_checkpoint(c, f"checkpoints[{t}]", layout) for t, c in enumerate(checkpoints)])
    path = path - path[-1].clone()
    _, scales, rows = torch.linalg.svd(path - path.mean(0), full_matrices=False)
    if len(rows) < 2 or not float(scales[0]) > 0:
        given = "one that does not move" if len(rows) > 1 else "one parameter"
        raise DataError("checkpoints", "a finite path that spans a plane", given, "Pass the path of a training run.")
    directions = rows[:2].T
    largest = directions.abs().argmax(0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()
    reference = next(iter(chosen.values()))
    explained = scales[:2].square() / scales.square().sum()
    return Trajectory(directions.to(reference.device, reference.dtype), explained, path @ directions)


def _checkpoint(checkpoint: Any, name: str, layout: Layout) -> Tensor:
    if isinstance(checkpoint, Mapping):
        checkpoint = layout.flatten(checkpoint)
    if not isinstance(checkpoint, Tensor) or checkpoint.shape != (layout.size,):
        given = f"shape {tuple(checkpoint.shape)}" if isinstance(checkpoint, Tensor) else type(checkpoint).__name__
        remedy = "Pass state dictionaries, or flat tensors in the parameters' order."
        raise OperandError(name, f"shape ({layout.size},)", given, remedy)
    if not bool(checkpoint.isfinite().all()):
        raise OperandError(name, "finite numbers", "inf or nan", "End the path before the training diverged.")
    return checkpoint.detach().to("cpu", torch.float64, copy=True)
