"""How long gradient flow stays near a saddle, beside what the most negative curvature there predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, log, log1p
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..curvature.gradients import bound, loss_and_gradient
from ..errors import ArgumentError, ModelStateError
from ..operators.hessian import Hessian
from ..operators.layout import Selection
from ..operators.objective import of_model
from ..spectra.eigenpairs import eigenpairs
from ..spectra.results import _axes
from .flow import checked, integrate

_PATIENCE = 2.0  # times the predicted time, then the flow counts as not escaped
_POINTS = 129
_STILL = 0.05  # of the pull |λ| ε that a gradient at the saddle itself may be


def escape_time(curvature: float, start: float, end: float, step: float = 0.0) -> float:
    r"""The time in which the linearised descent goes from one distance from a saddle to another.

    .. math:: t = \frac{\ln(r / \varepsilon)}{|\lambda|} \quad \text{(flow)}, \qquad
        t = \eta\, \frac{\ln(r / \varepsilon)}{\ln(1 + \eta |\lambda|)} \quad \text{(steps of size } \eta \text{)}

    along the eigenvector of the curvature λ < 0; divide by η for the number of steps.

    Errors: ``ArgumentError`` for a number outside its domain.

    Source: Lee et al. 2016, Gradient descent only converges to minimizers; Du et al. 2017, Gradient descent can take
    exponential time to escape saddle points.

    Example:
        >>> round(escape_time(curvature=-2.0, start=1e-6, end=1.0), 4)
        6.9078

    """
    domains = (
        ("curvature", curvature, -inf < curvature < 0, "a negative number"),
        ("start", start, 0 < start <= end, "a positive number, at most the end"),
        ("step", step, 0 <= step < inf, "a number ≥ 0"),
    )
    for name, number, right, expected in domains:
        if not right:
            remedy = "Pass the smallest eigenvalue at a strict saddle, and distances start ≤ end."
            raise ArgumentError(name, expected, repr(number), remedy)
    rate = log1p(step * -curvature) / step if step else -curvature
    return log(end / start) / rate


@dataclass(frozen=True, repr=False)
class Escape:
    r"""How long the flow took from near a saddle to a distance from it.

    Attributes:
        curvature: λ, the smallest eigenvalue of the Hessian at the saddle; ``residual``: [λ − r, λ + r] holds an eigenvalue.
        offset, radius: ε and r, the distances from the saddle at the start and at the end.
        predicted: ln(r/ε)/|λ|, from both ends of the interval of λ.
        time: the measured time, inf where the flow had not left after twice the predicted one. error: of the time.
        times, distances: (n,), the path, float64 on the CPU.
        converged: whether eigenvalue and flow met their tolerances, and the flow has left.

    """

    curvature: float
    residual: float
    offset: float
    radius: float
    predicted: tuple[float, float]
    time: float
    error: float
    times: Tensor
    distances: Tensor
    converged: bool

    def __repr__(self) -> str:
        low, high = self.predicted
        state = "" if self.converged else "; not converged"
        return (
            f"Escape(λ = {self.curvature:.6g} ± {self.residual:.1e}, {self.offset:.1e} → {self.radius:.1e}: "
            f"time {self.time:.5g} ± {self.error:.1e}, predicted [{low:.5g}, {high:.5g}]{state})"
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        tensors = {"times": self.times.tolist(), "distances": self.distances.tolist()}
        return {**vars(self), **tensors, "predicted": list(self.predicted)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Escape:
        """The inverse of :meth:`to_dict`."""
        tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in ("times", "distances")}
        return cls(**{**record, **tensors, "predicted": tuple(record["predicted"])})

    def plot(self, ax: Any = None) -> Any:
        """The distance over time, logarithmic, beside ε e^(|λ| t), on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.semilogy(self.times, self.distances, label="gradient flow")
        ax.semilogy(self.times, self.offset * (-self.curvature * self.times).exp(), "--", label=r"ε $e^{|λ| t}$")
        ax.axhline(self.radius, color="0.3", linewidth=1)
        ax.set(xlabel="time", ylabel="distance from the saddle")
        ax.legend()
        return ax


def saddle_escape(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    radius: float = 1e-2,
    offset: float = 1e-6,
    tol: float = 1e-3,
    params: Selection = "*",
    batch_stats: str | None = None,
    reduction: str | None = None,
    seed: int = 0,
) -> Escape:
    r"""Start gradient flow beside a saddle, along its most negative curvature, and measure when it has left.

    .. math:: \theta(0) = \theta_* + \varepsilon u, \quad H u = \lambda_{\min} u \implies
        t_r \approx \frac{\ln(r / \varepsilon)}{|\lambda_{\min}|}

    as long as the loss is nearly quadratic out to r: the time grows with the logarithm of how near the start is.

    Args:
        model, loss, data, params, batch_stats, reduction: as for :func:`flow`, the model at the saddle, such as
            ``la.curvature.critical_point(…).model``; computed in float64, and the model is not changed.
        radius, offset: r and ε.
        tol: relative, of the eigenvalue's residual; the flow is integrated to a thousandth of it.
        seed: of the search for the eigenvector.

    Cost: a search for one eigenpair and an integration to at most twice the predicted time.

    Errors: ``ModelStateError`` where the gradient is not small beside |λ| ε, or no curvature is negative; those of
    :func:`flow`.

    Source: Lee et al. 2016, Gradient descent only converges to minimizers; Du et al. 2017, Gradient descent can take
    exponential time to escape saddle points.

    Example:
        Two scalar layers at zero, L = (1 − w₁w₂)²: λ = −2.

        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> for weight in net.parameters():
        ...     _ = nn.init.zeros_(weight)
        >>> found = saddle_escape(net, nn.MSELoss(), (torch.ones(1, 1), torch.ones(1, 1)))
        >>> round(found.time, 3), round(escape_time(-2.0, 1e-6, 1e-2), 3)
        (4.605, 4.605)

    """
    for name, number, low, high in (("radius", radius, 0.0, inf), ("offset", offset, 0.0, radius)):
        if not isinstance(number, Real) or not low < number < high:
            raise ArgumentError(
                name, f"a number strictly between {low:g} and {high:g}", repr(number), "Pass offset < radius."
            )
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, torch.float64, batch_stats, reduction)
        saddle = checked(objective)
        field = partial(loss_and_gradient, objective)
        hessian = bound(Hessian, objective)
        pairs = eigenpairs(hessian, 1, "smallest", tol=tol, seed=seed)
        value, residual = float(pairs.values[0]), float(pairs.residuals[0])
        _check_saddle(type(model).__name__, value, residual, float(hessian.gradient.norm()), offset)
        predicted = tuple(escape_time(value + side * residual, offset, radius) for side in (-1, 1))
        times = np.linspace(0, _PATIENCE * predicted[1], _POINTS)
        path = integrate(field, saddle + offset * pairs.vectors[:, 0], times.tolist(), tol * 1e-3)
    distances = (path.parameters - saddle).norm(dim=1).cpu()
    time, error = _crossing(times, distances.numpy(), path.errors.cpu().numpy(), radius)
    return Escape(
        value,
        residual,
        offset,
        radius,
        (predicted[0], predicted[1]),
        time,
        error,
        path.times,
        distances,
        pairs.converged and path.converged and time < inf,
    )


def _check_saddle(name: str, value: float, residual: float, norm: float, offset: float) -> None:
    if value + residual >= 0:
        remedy = (
            "Nothing escapes along it in a known time; see la.curvature.morse_index for the signs of all curvatures."
        )
        raise ModelStateError(name, "a strict saddle", f"a smallest eigenvalue {value:.3g} ± {residual:.1g}", remedy)
    if norm > _STILL * -value * offset:
        remedy = "Find the saddle by la.curvature.critical_point(model, loss, data).model, or start further off."
        given = f"a gradient of norm {norm:.2g}, where the pull at the start is {-value * offset:.2g}"
        raise ModelStateError(name, "a critical point", given, remedy)


def _crossing(times: np.ndarray, distances: np.ndarray, errors: np.ndarray, radius: float) -> tuple[float, float]:
    """When the distance first passes the radius, its logarithm taken as linear between two times, and the error of that."""
    after = int(np.argmax(distances >= radius))
    if distances[after] < radius:
        return inf, inf
    logs = np.log(distances)
    slope = (logs[after] - logs[after - 1]) / (times[after] - times[after - 1])
    time = times[after - 1] + (np.log(radius) - logs[after - 1]) / slope
    nearby = np.gradient(logs, times)[max(0, after - 2) : after + 2]
    bent = np.ptp(nearby) / slope * (times[1] - times[0])  # at most how far the chord is from the curve, in time
    return float(time), float(errors[after] / (radius * slope) + bent)
