"""Gradient flow of any model, integrated by adaptive steps, with its error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from ..curvature.evaluation import undisturbed
from ..curvature.gradients import loss_and_gradient
from ..errors import ArgumentError, NumericsError
from ..operators.layout import Layout, Selection
from ..operators.objective import Objective, of_model
from ..operators.snapshot import Watch, scalar
from ..spectra.results import _axes

#: Flat parameters (P,) to their loss and its gradient (P,).
Field = Callable[[Tensor], tuple[Any, Tensor]]

_METHODS = ("DOP853", "LSODA")
_POINTS = 33  # times kept where only the last is given
_FINER = 100.0  # from one tolerance of the solver to the next
_COARSEST, _FINEST = 1e-4, 1e-13


@dataclass(frozen=True, repr=False)
class Flow:
    r"""Gradient flow at n times; tensors in float64, the times on the CPU, all else where the parameters are.

    Attributes:
        times: (n,).
        parameters: θ(t), (n, P), laid out as ``layout`` tells.
        losses, gradient_norms: (n,).
        errors: (n,), the estimated distance of ``parameters`` from the flow: how far they moved when the solver's tolerance
            was made 100 times smaller; infinite if that was not done.
        gradients: evaluations of the gradient. method: the solver. tol: what was asked for.
        converged: whether every error is at most ``tol`` times the largest distance from the start.

    """

    times: Tensor
    parameters: Tensor
    losses: Tensor
    gradient_norms: Tensor
    errors: Tensor
    layout: Layout
    gradients: int
    method: str
    tol: float
    converged: bool

    @property
    def loss_errors(self) -> Tensor:
        """To first order: the gradient's norm times the distance, (n,)."""
        return self.gradient_norms * self.errors

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The parameters by name at each time: a run, as ``la.conserved(…).drift`` takes it."""
        return (self.layout.split(row) for row in self.parameters)

    def __repr__(self) -> str:
        ends = " → ".join(f"{float(loss):.4g}" for loss in self.losses[[0, -1]].unique_consecutive())
        state = "" if self.converged else "; not converged"
        return (
            f"Flow({len(self.times)} time{'s' * (len(self.times) > 1)} to {float(self.times[-1]):.4g}, loss {ends}, "
            f"θ ± {float(self.errors.max()):.1e}, {self.gradients} gradients, {self.method}{state})"
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        tensors = {name: item.tolist() for name, item in vars(self).items() if isinstance(item, Tensor)}
        return {**vars(self), **tensors, "layout": {"names": self.layout.names, "shapes": self.layout.shapes}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Flow:
        """The inverse of :meth:`to_dict`, on the CPU."""
        names = ("times", "parameters", "losses", "gradient_norms", "errors")
        tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in names}
        shapes = tuple(tuple(shape) for shape in record["layout"]["shapes"])
        return cls(**{**record, **tensors, "layout": Layout(tuple(record["layout"]["names"]), shapes)})

    def plot(self, ax: Any = None) -> Any:
        """The loss over time with its error, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        losses, bars = self.losses.cpu(), self.loss_errors.nan_to_num(posinf=0.0).cpu()
        ax.plot(self.times, losses)
        ax.fill_between(self.times, losses - bars, losses + bars, alpha=0.3)
        ax.set(xlabel="time", ylabel="loss")
        return ax


def flow(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    time: float | Sequence[float],
    tol: float = 1e-6,
    method: str = "DOP853",
    most: int = 100_000,
    params: Selection = "*",
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> Flow:
    r"""Gradient flow of the loss over all data, from where the model is.

    .. math:: \frac{d\theta}{dt} = -\nabla L(\theta)

    Args:
        model, loss, data, params, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`; copies are cast to
            float64. The model is not changed.
        time, tol, method, most: as for :func:`integrate`.

    Cost: as for :func:`integrate`. Memory: n + 20 vectors of parameters.

    Assumptions: the loss is smooth along the path; at the kinks of ReLU the solver takes small steps.

    Errors: those of the Hessian for model, loss and data, and those of :func:`integrate`.

    Source: Hairer, Nørsett & Wanner 1993, Solving ordinary differential equations I, II.4 and II.5.

    Example:
        L = w²: w(t) = w(0) e^(−2t).

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> path = flow(model, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)), time=[0.0, 1.0])
        >>> [round(float(w), 6) for w in path.parameters], path.converged
        ([1.0, 0.135335], True)

    """
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, torch.float64, batch_stats, reduction)
        start = checked(objective)
        return integrate(partial(loss_and_gradient, objective), start, time, tol, method, most, objective.layout)


def checked(objective: Objective) -> Tensor:
    """Where a model's objective starts, (P,), after one pass that must draw nothing, change nothing and give a scalar."""
    with undisturbed(objective):
        for term in objective.terms():
            watch = Watch(objective.name, objective.buffers, objective.fixed, objective.device)
            scalar(term.loss(objective.leaves), term.name, objective.name)
            watch.check(partial(term.loss, objective.leaves))
    return objective.layout.flatten(objective.leaves).detach()


def integrate(
    field: Field,
    start: Tensor,
    time: float | Sequence[float],
    tol: float = 1e-6,
    method: str = "DOP853",
    most: int = 100_000,
    layout: Layout | None = None,
) -> Flow:
    r"""Gradient flow of a function of flat parameters that returns its value and its gradient.

    .. math:: \dot\theta = -\nabla L(\theta), \qquad \theta(0) = \theta_0

    A Runge–Kutta method of order 8 with adaptive steps integrates at two tolerances, a factor of 100 apart, and at smaller
    ones until the last two solutions agree to within ``tol`` times the distance travelled; the finer is returned. Tolerances
    are relative, the absolute part scales with the largest entry of the start: slow escapes from near a saddle come out right.

    Args:
        field: (P,) → (loss, gradient (P,)).
        start: (P,), float64.
        time: the last of 33 equally spaced times from 0; or the times themselves, increasing, none negative.
        tol: of ``parameters``, relative to the largest distance from the start.
        method: ``"DOP853"``, or ``"LSODA"`` for stiff problems, whose Jacobians by differences take P gradients each.
        most: evaluations of the gradient; after them the finest finished solution is returned, not converged.
        layout: names and shapes of the parts of θ; one part ``"theta"`` if None.

    Cost: at least 24 gradients for each step of DOP853, which is at most about 6 over the largest curvature.

    Assumptions: the field is smooth. The error is an estimate, an upper one as the finer solution is returned; it
    misleads where both solutions miss the same.

    Errors: ``ArgumentError`` for an option outside its domain; ``NumericsError`` for a gradient that is not finite, or if
    not even the first solution was finished.

    Source: Hairer, Nørsett & Wanner 1993, Solving ordinary differential equations I, II.4 and II.5.

    Example:
        A logistic, as the product of two scalar layers learns it:

        >>> half = integrate(lambda w: ((1 - w**2).square() / 4, -w * (1 - w**2)), torch.tensor([0.1]).double(), [2.2975])
        >>> round(float(half.parameters[0] ** 2), 3)  # half-time ln(1/a − 1)/2 at a = 0.01
        0.5

    """
    times = _times(time)
    _check(start, tol, method, most)
    counted = _Counted(field, start.device, most)
    solutions: list[np.ndarray] = []
    rtol, errors, within = min(_COARSEST, max(tol / 10, _FINEST * _FINER)), np.full(len(times), inf), False
    while not within:
        try:
            solutions.append(_solve(counted, start, times, rtol, method))
        except _Spent as spent:
            if not solutions:
                given = f"{most} gradients up to time {spent.time:.3g} of {times[-1]:.3g}"
                remedy = (
                    f"Pass a larger most={10 * most}, a shorter time, a larger tol, or method='LSODA' if it is stiff."
                )
                raise NumericsError("most", "the flow to its last time", given, remedy) from None
            break
        if len(solutions) > 1:
            errors = np.linalg.norm(solutions[-1] - solutions[-2], axis=1)
            travelled = np.linalg.norm(solutions[-1] - start.cpu().numpy(), axis=1).max()
            within = bool(errors.max() <= tol * travelled)
        if rtol < 2 * _FINEST:
            break
        rtol = max(rtol / _FINER, _FINEST)
    found = torch.from_numpy(solutions[-1]).to(start.device)
    ends = [field(row) for row in found]
    losses = torch.tensor([float(value) for value, _ in ends], dtype=torch.float64, device=start.device)
    norms = torch.stack([slope.norm() for _, slope in ends])
    bars = torch.from_numpy(errors).to(start.device)
    layout = layout or Layout(("theta",), (tuple(start.shape),))
    return Flow(
        torch.from_numpy(times), found, losses, norms, bars, layout, counted.calls + len(ends), method, tol, within
    )


class _Spent(Exception):
    """The solver has used up its gradients."""

    def __init__(self, time: float) -> None:
        super().__init__(time)
        self.time = time


class _Counted:
    """−∇L for a solver in numpy, which may be called a number of times."""

    def __init__(self, field: Field, device: torch.device, most: int) -> None:
        self.field, self.device, self.most, self.calls = field, device, most, 0

    def __call__(self, time: float, y: np.ndarray) -> np.ndarray:
        if self.calls == self.most:
            raise _Spent(time)
        self.calls += 1
        slope = self.field(torch.from_numpy(y.copy()).to(self.device))[1].detach().cpu().numpy()
        if not np.isfinite(slope).all():
            remedy = "Look for overflow, division by zero or sqrt(0) in the loss, or integrate for a shorter time."
            raise NumericsError(f"gradient at time {time:.4g}", "finite numbers", "nan or infinity", remedy)
        return -slope


def _solve(counted: _Counted, start: Tensor, times: np.ndarray, rtol: float, method: str) -> np.ndarray:
    """θ at the times, (n, P)."""
    first = start.detach().cpu().numpy()
    if times[-1] == 0:
        return np.repeat(first[None], len(times), 0)
    floor = rtol * (float(np.abs(first).max()) or 1.0)
    solution = solve_ivp(counted, (0.0, times[-1]), first, method, t_eval=times, rtol=rtol, atol=floor)
    if solution.status != 0:
        remedy = "Look at the loss there, pass a larger tol, or method='LSODA' if it is stiff."
        raise NumericsError("flow", f"a solution to time {times[-1]:.4g}", solution.message, remedy)
    return solution.y.T


def _times(time: float | Sequence[float]) -> np.ndarray:
    single = isinstance(time, Real) and isfinite(time)
    times = np.linspace(0, time, _POINTS) if single else np.asarray(time, dtype=np.float64)
    if not times.ndim == 1 or not len(times) or not np.isfinite(times).all() or times[0] < 0 or times[-1] <= 0:
        times = np.zeros(2)
    if (np.diff(times) <= 0).any():
        remedy = "Pass a positive time, or for example time=[0, 0.5, 1]."
        raise ArgumentError(
            "time", "a positive number, or increasing ones of which none is negative", repr(time), remedy
        )
    return times


def _check(start: Tensor, tol: float, method: str, most: int) -> None:
    if not isinstance(start, Tensor) or start.ndim != 1 or start.dtype != torch.float64 or not start.isfinite().all():
        given = f"{start.dtype}, shape {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
        raise ArgumentError("start", "a finite flat tensor in float64", given, "Pass start.double().flatten().")
    if not isinstance(tol, Real) or not 0 < tol < 1:
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), "Pass tol=1e-6.")
    if method not in _METHODS:
        raise ArgumentError("method", f"one of {list(_METHODS)}", repr(method), "Choose one of them.")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ArgumentError("most", "an integer ≥ 1", repr(most), "Pass most=100_000.")
