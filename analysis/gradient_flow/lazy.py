"""Did training stay in the tangent space of its start? The kernel, the parameters and the linearised outputs, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, ParameterError
from ..jackknife import jackknife
from ..operators.data import call
from ..operators.jacobian import Jacobian
from ..operators.layout import Selection
from ..operators.ntk import NTK
from ..spectra.results import Estimate, _axes, _quantile

LAZY = 0.1  # the share of the outputs' movement that the linearised model may miss
_LEAST = 3  # inputs that a jackknife takes


@dataclass(frozen=True, repr=False)
class LazyRich:
    r"""How far training left the tangent space of its start, as seen on N inputs.

    Attributes:
        kernel_change: ‖Θ_t − Θ_0‖ / ‖Θ_0‖, Frobenius norms: what the kernel became, size and shape.
        kernel_distance: 1 − ⟨Θ_0, Θ_t⟩ / (‖Θ_0‖ ‖Θ_t‖), from 0 to 1: its shape alone.
        linear_gap: ‖f_t − f_lin‖ / ‖f_t − f_0‖ with f_lin = f_0 + J_0 (θ_t − θ_0): the share of the movement that the
            linearised model misses.
        parameter_change: ‖θ_t − θ_0‖ / ‖θ_0‖, of the chosen parameters; inf from zero.
        gaps, moves: ‖f_t − f_lin‖ and ‖f_t − f_0‖ of each input, (N,), float64 on the CPU.
        level: of the intervals that ``verdict`` and ``repr`` use.

    """

    kernel_change: Estimate
    kernel_distance: Estimate
    linear_gap: Estimate
    parameter_change: float
    gaps: Tensor
    moves: Tensor
    level: float

    @property
    def converged(self) -> bool:
        """Whether the intervals of the kernel's change and of the gap met the tolerance that was asked for."""
        return self.kernel_change.converged and self.linear_gap.converged

    @property
    def verdict(self) -> str:
        """``"lazy"`` where the interval of the linear gap lies below 0.1, ``"rich"`` above, else ``"undecided"``."""
        low, high = self.linear_gap.interval(self.level)
        return "lazy" if high <= LAZY else "rich" if low > LAZY else "undecided"

    def __repr__(self) -> str:
        named = {"kernel change": self.kernel_change, "distance": self.kernel_distance, "linear gap": self.linear_gap}
        parts = []
        for name, found in named.items():
            low, high = found.interval(self.level)
            parts.append(f"{name} {found.value:.3g} [{low:.3g}, {high:.3g}]")
        moved = f"parameter change {self.parameter_change:.3g}; {100 * self.level:g} %, {len(self.gaps)} inputs"
        return f"LazyRich({self.verdict}: {', '.join(parts)}; {moved}{'' if self.converged else '; not converged'})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        estimates = ("kernel_change", "kernel_distance", "linear_gap")
        parts: dict[str, Any] = {name: getattr(self, name).to_dict() for name in estimates}
        return {**vars(self), **parts, "gaps": self.gaps.tolist(), "moves": self.moves.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LazyRich:
        """The inverse of :meth:`to_dict`."""
        estimates = ("kernel_change", "kernel_distance", "linear_gap")
        parts: dict[str, Any] = {name: Estimate.from_dict(record[name]) for name in estimates}
        parts |= {name: torch.tensor(record[name], dtype=torch.float64, device="cpu") for name in ("gaps", "moves")}
        return cls(**{**record, **parts})

    def plot(self, ax: Any = None) -> Any:
        """Each input's gap against its movement, and the line below which a lazy network's lie, on matplotlib axes."""
        ax = _axes(ax)
        ax.loglog(self.moves, self.gaps, ".", label="one input each")
        ends = [float(self.moves.min()), float(self.moves.max())]
        ax.plot(ends, [LAZY * end for end in ends], color="0.3", linestyle="--", label=f"{LAZY:g} of the movement")
        ax.set_xlabel("movement of the output")
        ax.set_ylabel("missed by the linearised model")
        ax.legend()
        return ax


def lazy_rich(
    before: nn.Module,
    after: nn.Module,
    inputs: Any,
    params: Selection = "*",
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    tol: float = 0.25,
    level: float = 0.95,
) -> LazyRich:
    r"""Lazy or rich: how far the kernel, the parameters and the outputs left what the start's tangent space allows.

    .. math:: \frac{\|\Theta_t - \Theta_0\|}{\|\Theta_0\|}, \quad
        \frac{\|f_t - f_0 - J_0 (\theta_t - \theta_0)\|}{\|f_t - f_0\|}, \quad
        \frac{\|\theta_t - \theta_0\|}{\|\theta_0\|}, \qquad \Theta = J J^\top

    A network whose outputs are, to a tenth of their movement, those of its linearisation is *lazy*: it might as well have
    been a kernel machine with the kernel of its start. One whose outputs are not has learned features.

    Args:
        before, after: the network at its start (a deep copy will do) and after training; neither is touched. They must be
            the same function of their parameters: this is measured.
        inputs: N examples, at least 3: what a network is called with. The first axis of its output counts them.
        params, dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`; all that training moved must be among
            the chosen ones. Running statistics move in training, so that batch normalisation takes
            ``batch_stats="batch"``.
        tol: the half-width from which an interval counts as converged, relative to the value, or to 0.1 below that.
        level: of the intervals.

    The intervals say what N other inputs from the same source would have given: a jackknife over inputs, for the kernel
    over its rows and columns together. Under ``batch_stats="batch"`` inputs see each other, no error over them is known,
    and the intervals are infinite. They are widened by what rounding in the networks' dtype may do: a movement of the
    outputs that is small beside the outputs themselves needs ``dtype=torch.float64``.

    Cost: for each network the kernel on the inputs, with M outputs in all (see :class:`~lemmata.analysis.NTK`); memory
    for three (M, M) matrices.

    Errors: ``DataError`` for fewer than three inputs or a kernel that is zero, ``ParameterError`` for networks that
    differ in more than the chosen parameters or in none, ``ArgumentError`` for an option outside its domain; those of
    the Jacobian.

    Source: Chizat, Oyallon & Bach 2019, On lazy training in differentiable programming; Fort et al. 2020, Deep learning
    versus kernel learning (the distance of kernels).

    Example:
        Scaled to the double, f = a w x with a = w = 1 has four times the kernel, but J Δθ is two thirds of the movement:

        >>> from copy import deepcopy
        >>> start = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> for p in start.parameters():
        ...     _ = nn.init.ones_(p)
        >>> end = deepcopy(start)
        >>> for p in end.parameters():
        ...     _ = nn.init.constant_(p, 2.0)
        >>> found = lazy_rich(start, end, torch.tensor([[1.0], [2.0], [3.0]]))
        >>> [round(float(x), 4) for x in (found.kernel_change, found.linear_gap, found.parameter_change)]
        [3.0, 0.3333, 1.0]
        >>> found.verdict
        'rich'

    """
    for name, number, legal in (("tol", tol, tol > 0), ("level", level, 0 < level < 1)):
        if not legal:
            expected = "a number > 0" if name == "tol" else "a probability between 0 and 1"
            raise ArgumentError(name, expected, repr(number), f"Leave {name} out for its default.")
    first, last = (NTK(model, inputs, params, dtype, batch_stats) for model in (before, after))
    J = first.jacobian
    f_0, f_t = J.output, last.jacobian.output
    start, end = _parameters(J, last.jacobian)
    if f_0.ndim == 0 or len(f_0) < _LEAST:
        given = f"an output of shape {tuple(f_0.shape)}"
        raise DataError(
            "inputs", f"at least {_LEAST} examples, along the output's first axis", given, "Pass more inputs."
        )
    gaps, moves = (_by_input(part) for part in (f_t - f_0 - (J @ (end - start)).view_as(f_0), f_t - f_0))
    seen = J.batch_stats != "batch"
    change, distance = _kernels(first.dense(), last.dense(), len(f_0), seen, tol, level, f_0.dtype)
    squares = torch.stack([gaps, moves]).square()
    whole = squares.sum(1)
    rounding = torch.finfo(f_0.dtype).eps * float(torch.stack([f_0, f_t]).double().norm())  # of f_t − f_0
    bias = rounding / float(whole[1].sqrt()) if whole[1] > 0 else inf
    gap = _estimate(_share(*whole), _share(*(whole[:, None] - squares)), seen, tol, level, bias)
    size = float(start.double().norm())
    moved = float((end - start).double().norm())
    return LazyRich(change, distance, gap, moved / size if size else inf, gaps, moves, level)


def _parameters(first: Jacobian, last: Jacobian) -> tuple[Tensor, Tensor]:
    """The chosen parameters before and after, after a check that the two networks differ in nothing else."""
    one, other = (dict(zip(J.layout.names, J.layout.shapes, strict=True)) for J in (first, last))
    for name in [*one, *other]:
        if one.get(name) != other.get(name):
            expected, given = (f"shape {side[name]}" if name in side else "no parameter" for side in (one, other))
            remedy = "Pass the same network before and after training: before = copy.deepcopy(network)."
            raise ParameterError(name, f"{expected}, as before", f"{given} after", remedy)
    start, end = (first.layout.flatten(J._parameters).detach() for J in (first, last))
    if torch.equal(start, end):
        remedy = "Take before = copy.deepcopy(network) ahead of training; an alias moves with it."
        raise ParameterError("after", "parameters that training has moved", "those of before", remedy)
    with torch.no_grad():
        foreign = call(lambda *a, **k: first._call(first.layout.split(end), a, k), first._given)
    own = last.output
    if not float((foreign - own).norm()) <= 10 * torch.finfo(own.dtype).eps ** 0.5 * float(own.norm()):
        given = f"outputs of norm {float(own.norm()):.6g} by itself, {float(foreign.norm()):.6g} by before's code"
        remedy = "Give both the same modules and buffers, and choose every parameter that was trained; for batch "
        remedy += "normalisation batch_stats='batch'."
        raise ParameterError("after", "the same function of the chosen parameters as before", given, remedy)
    return start, end


def _kernels(
    first: Tensor, last: Tensor, inputs: int, seen: bool, tol: float, level: float, dtype: torch.dtype
) -> tuple[Estimate, Estimate]:
    """The kernel's relative change and its distance in shape, with their errors."""
    squares = torch.stack([_by_pair(part, inputs) for part in (last - first, first, last)])  # (3, N, N)
    whole = squares.sum((1, 2))
    if not float(whole[1]) > 0 or not float(whole[2]) > 0:
        remedy = "Look for dead units or outputs that do not depend on the chosen parameters."
        raise DataError("inputs", "a kernel that is not zero, before and after", "one that is", remedy)
    left = whole[:, None] - 2 * squares.sum(2) + squares.diagonal(dim1=1, dim2=2)
    ratio, bent = _share(*whole[:2]), _bent(*whole)
    off = 2 * torch.finfo(dtype).eps * (1 + float((whole[2] / whole[1]).sqrt()))  # what rounding makes of no change
    change = _estimate(ratio, _share(*left[:2]), seen, tol, level, off)
    off *= (2 * float(bent)) ** 0.5 + off / 2  # the distance is half the square of a change of direction
    return change, _estimate(bent, _bent(*left), seen, tol, level, off)


def _bent(moved: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """1 − ⟨A, B⟩ / (‖A‖ ‖B‖) from ‖B − A‖², ‖A‖² and ‖B‖², without the loss of digits."""
    a, b = first.clamp(min=0).sqrt(), last.clamp(min=0).sqrt()
    return ((moved - ((last - first) / (a + b)) ** 2) / (2 * a * b)).clamp(0, 1)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """The root of a ratio of sums of squares; 0 of nothing is 0."""
    return torch.where(part > 0, (part.clamp(min=0) / whole.clamp(min=0)).sqrt(), 0.0)


def _by_input(part: Tensor) -> Tensor:
    return part.flatten(1).double().norm(dim=1).cpu() if part.ndim > 1 else part.double().abs().cpu()


def _by_pair(kernel: Tensor, inputs: int) -> Tensor:
    """Squares summed over the outputs of each pair of inputs, (N, N)."""
    each = len(kernel) // inputs
    return kernel.view(inputs, each, inputs, each).double().square().sum((1, 3)).cpu()


def _estimate(whole: Tensor, left_out: Tensor, seen: bool, tol: float, level: float, bias: float) -> Estimate:
    value, n = float(whole), len(left_out)
    stderr = jackknife(value, left_out, torch.ones_like(left_out)) if seen else inf
    met = _quantile(level, n - 1) * stderr + bias <= tol * max(value, LAZY)
    return Estimate(value, stderr, n - 1, None, 0, 0, "jackknife over inputs", met, bias)
