"""How far the steps of gradient descent are from gradient flow, and from the flow that they follow more closely."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..curvature.gradients import loss_and_gradient
from ..curvature.text_table import text_table
from ..errors import ArgumentError, NumericsError
from ..operators.layout import Selection
from ..operators.objective import of_model
from ..spectra.results import _axes
from .flow import Field, checked, integrate

_POINTS = 33  # times at which the paths are compared
_SIZE = 1e-5  # of the difference for H∇L: truncation 1e-10, rounding 1e-11


def penalised(field: Field, weight: float) -> Field:
    r"""A loss plus a weight times the squared norm of its gradient.

    .. math:: L + w \|\nabla L\|^2, \qquad \nabla = \nabla L + 2 w\, \nabla^2 L\, \nabla L

    with :math:`\nabla^2 L \nabla L` a central difference of gradients, right to about 10⁻¹⁰ of its size where the loss varies
    on scales of order one. Three gradients.

    Source: Barrett & Dherin 2021, Implicit gradient regularization.

    Example:
        >>> value, slope = penalised(lambda x: (0.5 * x @ x, x), 0.25)(torch.tensor([2.0]).double())
        >>> float(value), round(float(slope), 9)  # 2 + 4/4, and 2 + 2/2
        (3.0, 3.0)

    """

    def value_and_gradient(flat: Tensor) -> tuple[Any, Tensor]:
        value, slope = field(flat)
        norm = slope.norm()
        size = _SIZE / torch.where(norm > 0, norm, 1.0)
        curved = (field(flat + size * slope)[1] - field(flat - size * slope)[1]) / (2 * size)
        return value + weight * slope.square().sum(), slope + 2 * weight * curved

    return value_and_gradient


@dataclass(frozen=True, repr=False)
class Discretisation:
    r"""Gradient descent beside gradient flow at n times; tensors (n,) in float64 on the CPU.

    Attributes:
        step: η.
        times: η times the number of steps. losses: of gradient descent.
        travelled: ‖θ − θ(0)‖ of gradient descent.
        to_flow: its distance from gradient flow on L. to_modified: from that on :math:`L + \frac{\eta}{4} \|\nabla L\|^2`.
        flow_errors, modified_errors: of the two flows, and so of the two distances.
        gradients: evaluations in all. converged: whether both flows were integrated to the tolerance.

    """

    step: float
    times: Tensor
    losses: Tensor
    travelled: Tensor
    to_flow: Tensor
    to_modified: Tensor
    flow_errors: Tensor
    modified_errors: Tensor
    gradients: int
    converged: bool

    def __repr__(self) -> str:
        rows = [
            (name, f"{float(gap[-1]):.3e} ± {float(bar[-1]):.0e}", f"{float(gap.max()):.3e}")
            for name, gap, bar in (
                ("L", self.to_flow, self.flow_errors),
                ("L + η/4 ‖∇L‖²", self.to_modified, self.modified_errors),
            )
        ]
        steps = round(float(self.times[-1]) / self.step)
        state = "" if self.converged else "; not converged"
        head = f"Gradient descent after {steps} steps of {self.step:g}, {float(self.travelled[-1]):.3g} from its start"
        table = text_table(("distance from the flow of", "at the end", "largest"), rows)
        return f"{head}; {self.gradients} gradients{state}\n{table}"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: item.tolist() if isinstance(item, Tensor) else item for name, item in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Discretisation:
        """The inverse of :meth:`to_dict`."""
        lists = {n: torch.tensor(item, dtype=torch.float64) for n, item in record.items() if isinstance(item, list)}
        return cls(**{**record, **lists})

    def plot(self, ax: Any = None) -> Any:
        """Both distances over time, the second axis logarithmic, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        for name, gap, bar in (
            ("flow of L", self.to_flow, self.flow_errors),
            ("flow of L + η/4 ‖∇L‖²", self.to_modified, self.modified_errors),
        ):
            ax.errorbar(self.times[1:], gap[1:], yerr=bar[1:].nan_to_num(posinf=0.0), fmt=".-", label=name)
        ax.set_yscale("log")
        ax.set(xlabel="time", ylabel="distance of gradient descent")
        ax.legend()
        return ax


def discretisation(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    step: float,
    steps: int,
    tol: float = 1e-6,
    method: str = "DOP853",
    most: int = 100_000,
    params: Selection = "*",
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> Discretisation:
    r"""Gradient descent from where the model is, beside gradient flow and the flow of a modified loss.

    .. math:: \theta_{k+1} = \theta_k - \eta \nabla L(\theta_k), \qquad
        \|\theta_k - \theta(k\eta)\| = O(\eta), \qquad \|\theta_k - \tilde\theta(k\eta)\| = O(\eta^2)

    at a fixed time, with :math:`\theta(t)` the flow of L and :math:`\tilde\theta(t)` that of
    :math:`L + \frac{\eta}{4} \|\nabla L\|^2`: gradient descent behaves as if it penalised steep places. Where the second
    distance is not far below the first, the step is too large for this picture.

    Args:
        model, loss, data, params, batch_stats, reduction: as for :func:`flow`; float64, and the model is not changed.
        step: η. steps: of gradient descent.
        tol, method, most: of the two integrations.

    Cost: a gradient for each step, and two integrations, the second with three gradients an evaluation.

    Errors: those of :func:`flow`; ``NumericsError`` if gradient descent diverges.

    Source: Barrett & Dherin 2021, Implicit gradient regularization, theorem 3.1.

    Example:
        On λw²/2 with λ = 2 and η = 1/8, after 8 steps: (1 − 1/4)⁸, e⁻² and e^(−2 − 1/4).

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> found = discretisation(model, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)), 1 / 8, 8)
        >>> [round(float(gap[-1]), 6) for gap in (found.to_flow, found.to_modified)]
        [0.035222, 0.005286]

    """
    if not isinstance(step, Real) or not 0 < step < np.inf:
        raise ArgumentError("step", "a positive number", repr(step), "Pass the learning rate.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ArgumentError("steps", "an integer ≥ 1", repr(steps), "Pass how many steps to take.")
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, torch.float64, batch_stats, reduction)
        start = checked(objective)
        field = partial(loss_and_gradient, objective)
        kept = np.unique(np.linspace(0, steps, _POINTS).round().astype(int))
        losses, path = _descend(field, start, step, kept)
        flows = [
            integrate(each, start, (kept * step).tolist(), tol, method, most)
            for each in (field, penalised(field, step / 4))
        ]
    gaps = [(path - one.parameters).norm(dim=1).cpu() for one in flows]
    counted = steps + 1 + flows[0].gradients + 3 * flows[1].gradients
    return Discretisation(
        step,
        flows[0].times,
        losses,
        (path - start).norm(dim=1).cpu(),
        *gaps,
        *(one.errors.cpu() for one in flows),
        counted,
        all(one.converged for one in flows),
    )


def _descend(field: Field, start: Tensor, step: float, kept: np.ndarray) -> tuple[Tensor, Tensor]:
    """Losses and parameters of gradient descent after some numbers of steps, (n,) and (n, P)."""
    flat, losses, path, wanted = start, [], [], set(kept.tolist())
    for k in range(int(kept[-1]) + 1):
        value, slope = field(flat)
        if not np.isfinite(float(value)) or not bool(slope.isfinite().all()):
            remedy = f"Pass a step below {step:g}: beyond two over the largest curvature gradient descent diverges."
            raise NumericsError(
                f"gradient descent at step {k}", "a finite loss and gradient", "nan or infinity", remedy
            )
        if k in wanted:
            losses.append(float(value))
            path.append(flat)
        flat = flat - step * slope
    return torch.tensor(losses, dtype=torch.float64), torch.stack(path)
