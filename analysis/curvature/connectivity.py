"""The loss along a path between two networks: the straight line, and a Bézier curve trained to stay low."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ParameterError
from ..operators.layout import Selection
from ..operators.objective import Objective, Term, of_model
from ..operators.snapshot import scalar
from ..spectra.results import _axes
from .evaluation import evaluate, not_finite, undisturbed


@dataclass(frozen=True, repr=False)
class LossPath:
    r"""The loss along a path θ(t) from one network, t = 0, to another, t = 1.

    Attributes:
        positions: t, (n,), from 0 to 1 in equal steps.
        losses: L(θ(t)), (n,).
        stderr: standard error of each loss over ``unit``, (n,); None if there is one unit only.
        lengths: arc length from t = 0, (n,); the last is the path's length.
        unit: ``"examples"``, or ``"batches"`` for a loss that cannot be taken apart.
        control: the control point of a Bézier curve, (P,); None for a straight line.

    """

    positions: Tensor
    losses: Tensor
    stderr: Tensor | None
    lengths: Tensor
    unit: str
    control: Tensor | None

    @property
    def excess(self) -> Tensor:
        """L(θ(t)) − (1 − t) L(θ(0)) − t L(θ(1)), (n,)."""
        return self.losses - (1 - self.positions) * self.losses[0] - self.positions * self.losses[-1]

    @property
    def barrier(self) -> float:
        """The largest excess at the positions, at least 0; nan or inf where a loss on the way is not finite."""
        return float(self.excess.max())

    def __repr__(self) -> str:
        ends, peak = self.losses[[0, -1]].tolist(), float(self.positions[self.excess.argmax()])
        found = f"barrier {self.barrier:.6g} at t = {peak:.3g}"
        lost = not_finite(self.losses)
        return f"LossPath({found}; ends {ends[0]:.6g}, {ends[1]:.6g}; length {float(self.lengths[-1]):.6g}{lost})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        record = {key: value.tolist() if isinstance(value, Tensor) else value for key, value in vars(self).items()}
        kind = None if self.control is None else str(self.control.dtype).removeprefix("torch.")
        return record | {"dtype": kind}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LossPath:
        """The inverse of :meth:`to_dict`, on the CPU."""
        numbers = {
            key: None if record[key] is None else torch.tensor(record[key], dtype=torch.float64)
            for key in ("positions", "losses", "stderr", "lengths")
        }
        kind = record["dtype"]
        control = None if kind is None else torch.tensor(record["control"], dtype=getattr(torch, kind))
        return cls(**numbers, unit=record["unit"], control=control)  # type: ignore[arg-type]

    def plot(self, ax: Any = None) -> Any:
        """The losses with a band of two standard errors, and the line between the ends, on matplotlib axes."""
        ax = _axes(ax)
        t, losses = self.positions.numpy(), self.losses.numpy()
        ax.plot(t, losses, "o-", markersize=3)
        if self.stderr is not None:
            half = 1.96 * self.stderr.numpy()
            ax.fill_between(t, losses - half, losses + half, alpha=0.3, linewidth=0)
        ax.plot(t[[0, -1]], losses[[0, -1]], "--")
        ax.set_xlabel("position t along the path")
        ax.set_ylabel("loss")
        return ax


def linear_barrier(
    a: nn.Module,
    b: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    points: int = 25,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> LossPath:
    r"""The loss on the segment between two networks, and its barrier.

    .. math:: B = \max_t\; L\big((1-t)\,\theta_a + t\,\theta_b\big) - (1-t)\,L(\theta_a) - t\,L(\theta_b)

    Args:
        a, b: two networks that are the same function of their parameters; neither is touched.
        loss, data, params, dtype, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`. Batch
            normalisation needs ``batch_stats="batch"``, for running statistics belong to one end only.
        points: positions, equally spaced, the ends included; the maximum is taken over them.

    Cost: a forward pass over the data for each position, and two more.

    Errors: ``ArgumentError`` for fewer than 3 points; ``ParameterError`` for networks that differ in names, shapes, or
    in anything but the chosen parameters (this is measured: b's loss must come out of a's code with b's parameters);
    ``LossError`` for a loss that is not finite at an end. Between the ends such a loss is kept, and ``repr`` says so.

    Source: Frankle et al. 2020, Linear mode connectivity and the lottery ticket hypothesis; Entezari et al. 2022, The
    role of permutation invariance in linear mode connectivity of neural networks.

    Example:
        A convex loss has no barrier:

        >>> a, b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> linear_barrier(a, b, torch.nn.MSELoss(), (torch.ones(3, 1), torch.zeros(3, 1))).barrier
        0.0

    """
    objective, ends = _pair(a, b, points, loss, data, params, dtype, batch_stats, reduction)
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    profile = evaluate(objective, ends, torch.stack([1 - t, t], 1))
    lengths = t * float((ends[1] - ends[0]).norm())
    return LossPath(t, profile.losses, profile.stderr, lengths, profile.unit, None)


def bezier_curve(
    a: nn.Module,
    b: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    steps: int = 500,
    learning_rate: float = 1e-2,
    points: int = 25,
    seed: int = 0,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> LossPath:
    r"""A quadratic Bézier curve between two networks, its control point trained to keep the loss low along it.

    .. math:: \theta_c(t) = (1-t)^2\,\theta_a + 2t(1-t)\,c + t^2\,\theta_b, \qquad
        c = \arg\min_c\; \mathbb{E}_{t \sim U(0,1)}\, L(\theta_c(t))

    The control point starts at the midpoint and takes ``steps`` steps of Adam, each at a t drawn from ``seed`` and on
    the next batch.

    Args:
        a, b, loss, data, points, params, dtype, batch_stats, reduction: as for :func:`linear_barrier`.
        steps: of Adam.
        learning_rate: of Adam.
        seed: of the draws of t, whatever the global generator does.

    Cost: a gradient on one batch for each step, then a forward pass over the data for each position, and two more.

    Assumptions: the curve is what Adam found, an upper bound on the lowest barrier of such curves.

    Errors: those of :func:`linear_barrier`; ``ArgumentError`` for steps or learning rate outside their domain;
    ``LossError`` where the training leaves the finite numbers.

    Source: Garipov et al. 2018, Loss surfaces, mode connectivity, and fast ensembling of DNNs.

    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ArgumentError("steps", "an integer ≥ 1", repr(steps), "Pass steps=500.")
    if not isinstance(learning_rate, float | int) or not 0 < learning_rate < float("inf"):
        raise ArgumentError("learning_rate", "a finite number > 0", repr(learning_rate), "Pass learning_rate=1e-2.")
    objective, ends = _pair(a, b, points, loss, data, params, dtype, batch_stats, reduction)
    with undisturbed(objective), torch.inference_mode(False), torch.enable_grad():
        control = _train(objective, ends, steps, learning_rate, seed)
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    corners = torch.stack([ends[0], control, ends[1]])
    profile = evaluate(objective, corners, torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1))
    return LossPath(t, profile.losses, profile.stderr, _arc(corners, t), profile.unit, control)


def _pair(
    a: nn.Module, b: nn.Module, points: int, loss: Callable, data: Any, params: Selection, *options: Any
) -> tuple[Objective, Tensor]:
    """The objective of a, and both ends (2, P), after a check that b is the same function of its parameters."""
    if isinstance(points, bool) or not isinstance(points, int) or points < 3:
        raise ArgumentError("points", "an integer ≥ 3", repr(points), "Pass points=25.")
    with torch.inference_mode(False), torch.enable_grad():
        first, second = (of_model(model, loss, data, params, *options) for model in (a, b))
    _same_layout(first, second)
    ends = torch.stack([side.layout.flatten(side.leaves).detach().to(first.device) for side in (first, second)])
    one = torch.ones(1, 1, dtype=torch.float64)
    own, foreign = (float(evaluate(side, ends[1:].to(side.device), one).losses) for side in (second, first))
    if not abs(own - foreign) <= torch.finfo(first.dtype).eps ** 0.5 * max(abs(own), abs(foreign)):
        given = f"loss {own:.6g} of b itself, {foreign:.6g} of a with b's parameters"
        remedy = (
            "Give both the same modules, buffers and frozen parameters; for batch normalisation batch_stats='batch'."
        )
        raise ParameterError("b", "the same function of its parameters as a", given, remedy)
    return first, ends


def _same_layout(first: Objective, second: Objective) -> None:
    remedy = "Build both networks by the same code, with the same sizes and dtype."
    one, other = (dict(zip(side.layout.names, side.layout.shapes, strict=True)) for side in (first, second))
    for name in [*one, *other]:
        if one.get(name) != other.get(name):
            expected, given = (f"shape {side[name]}" if name in side else "no such parameter" for side in (one, other))
            raise ParameterError(name, f"{expected}, as in a", f"{given} in b", remedy)
    if list(one) != list(other) or first.dtype != second.dtype:
        expected, given = f"{first.dtype}, order {list(one)}", f"{second.dtype}, order {list(other)}"
        raise ParameterError("b", expected, given, remedy)


def _train(objective: Objective, ends: Tensor, steps: int, learning_rate: float, seed: int) -> Tensor:
    control = ends.mean(0).requires_grad_()
    optimizer = torch.optim.Adam([control], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for term in islice(_forever(objective), steps):
        t = float(torch.rand((), generator=generator, dtype=torch.float64))
        theta = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * control + t**2 * ends[1]
        value = scalar(term.loss(objective.layout.split(theta)), term.name, objective.name)
        (control.grad,) = torch.autograd.grad(value, control)
        optimizer.step()
    return control.detach()


def _forever(objective: Objective) -> Iterator[Term]:
    while True:
        yield from objective.terms()


def _arc(corners: Tensor, t: Tensor) -> Tensor:
    """Arc lengths of a quadratic Bézier curve from 0 to each t, by Gauss–Legendre quadrature of its speed."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(24))
    a, c, b = corners.to("cpu", torch.float64)
    out, back = c - a, b - c
    half = (t[1:] - t[:-1])[:, None] / 2
    s = t[:-1, None] + half * (1 + nodes)  # (n − 1, 24)
    square = (1 - s) ** 2 * (out @ out) + 2 * s * (1 - s) * (out @ back) + s**2 * (back @ back)
    pieces = (2 * square.clamp(min=0).sqrt() * weights * half).sum(1)
    return torch.cat([torch.zeros(1, dtype=torch.float64), pieces.cumsum(0)])
