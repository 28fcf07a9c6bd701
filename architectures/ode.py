r"""Solvers of $\dot y = f(t, y)$: Runge–Kutta with fixed steps, Dormand–Prince with its own steps, and the adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from ._pieces import ArchitectureError, checked_name, checked_size

Field = Callable[[float, Tensor], Tensor]


@dataclass(frozen=True)
class Tableau:
    r"""An explicit Runge–Kutta method: $k_i = f(t + c_i h, y + h \sum_{j<i} a_{ij} k_j)$, $y ← y + h \sum_i b_i k_i$.

    Attributes:
        order: $p$: one step errs by $O(h^{p+1})$, the solution by $O(h^p)$.
        nodes: $c_i$.
        stages: the rows $a_{i1}, …, a_{i,i-1}$.
        weights: $b_i$.

    """

    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


#: The methods known by name. `"rk4"` is the classical method, `"three-eighths"` Kutta's 3/8 rule (torchdiffeq's "rk4").
SOLVERS: MappingProxyType[str, Tableau] = MappingProxyType(
    {
        "euler": Tableau(1, (0,), ((),), (1,)),
        "midpoint": Tableau(2, (0, 1 / 2), ((), (1 / 2,)), (0, 1)),
        "rk4": Tableau(4, (0, 1 / 2, 1 / 2, 1), ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
        "three-eighths": Tableau(
            4, (0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
        ),
    }
)

#: Dormand and Prince's pair: the seventh stage is the first of the next step.
_DORMAND_PRINCE = Tableau(
    5,
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
#: Weights of the fifth-order solution less those of the fourth-order one: the estimate of a step's error.
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def _combine(y: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = torch.add(y, slope, alpha=h * weight)
    return y


def _slopes(f: Field, t: float, y: Tensor, h: float, tableau: Tableau, first: Tensor | None = None) -> list[Tensor]:
    slopes = [f(t, y) if first is None else first]
    for node, row in zip(tableau.nodes[1:], tableau.stages[1:], strict=True):
        slopes.append(f(t + node * h, _combine(y, h, row, slopes)))
    return slopes


def trajectory(
    f: Field, y: Tensor, start: float = 0.0, end: float = 1.0, solver: str = "rk4", steps: int = 10
) -> list[Tensor]:
    r"""Return $y(t_0), …, y(t_N)$ at $t_i = start + i h$, $h = (end - start)/N$, by $N$ steps of a Runge–Kutta method.

    The number of operations does not depend on the data, and each is differentiable: derivatives of every order are
    those of the computed values. Time runs backwards where `end` < `start`.

    Args:
        f: $(t, y) ↦ f(t, y)$ of $y$'s shape, $t$ a Python number.
        y: the initial value, of any shape.
        start: the time of `y`.
        end: the last time.
        solver: `"euler"` (order 1), `"midpoint"` (2), `"rk4"` (4, classical) or `"three-eighths"` (4).
        steps: $N$, at least 1.

    Raises:
        ArchitectureError: the solver is not known, or `steps` is not a positive integer.

    Cost: steps × (1, 2, 4, 4) evaluations of $f$, all kept for a gradient.
    Source: hairer1993solving.

    >>> [y.item() for y in trajectory(lambda t, y: -y, torch.tensor(1.0), solver="euler", steps=2)]
    [1.0, 0.5, 0.25]
    """
    tableau, steps = SOLVERS[checked_name("solver", solver, SOLVERS)], checked_size("steps", steps)
    h = (end - start) / steps
    path = [y]
    for i in range(steps):
        slopes = _slopes(f, start + i * h, path[-1], h, tableau)
        path.append(_combine(path[-1], h, tableau.weights, slopes))
    return path


def integrate(
    f: Field, y: Tensor, start: float = 0.0, end: float = 1.0, solver: str = "rk4", steps: int = 10
) -> Tensor:
    r"""Return $y(end)$, the last value of `trajectory`.

    >>> y = integrate(lambda t, y: t * y, torch.ones((), dtype=torch.float64), steps=40)
    >>> abs(y.item() - math.exp(0.5)) < 1e-8
    True
    """
    return trajectory(f, y, start, end, solver, steps)[-1]


def adaptive(
    f: Field,
    y: Tensor,
    start: float = 0.0,
    end: float = 1.0,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_steps: int = 1000,
) -> Tensor:
    r"""Return $y(end)$ by Dormand and Prince's pair of orders 5(4), which chooses its steps.

    A step is accepted when $\max_i |e_i| / (atol + rtol \max(|y_i|, |y_i^{new}|)) ≤ 1$, with $e$ the difference of the
    two solutions and the maximum over every entry of every example; the fifth-order solution goes on. The next step is
    $0.9 \, (\text{that ratio})^{-1/5}$ times the last, within [0.2, 5].

    The steps are numbers, not tensors: derivatives are those of the accepted steps with their sizes held. They equal
    the derivatives of the exact flow up to the tolerance, but not those of the computed values, whose steps move with
    the data. An example's result depends on its batch, also up to the tolerance. vmap cannot run a loop that reads
    values. For every mode of differentiation use `integrate`.

    Args:
        f: $(t, y) ↦ f(t, y)$, as in `trajectory`.
        y: the initial value, of any shape.
        start: the time of `y`.
        end: the last time, before or after `start`.
        rtol: relative tolerance of a step; below 100 machine precisions of `y`'s dtype, these are taken instead.
        atol: absolute tolerance of a step.
        max_steps: tried steps, accepted or not, before giving up.

    Raises:
        ArchitectureError: a tolerance is not positive, or the solution cannot be followed to `end`: a step too small
            to change $t$, or too many steps.

    Cost: six evaluations of $f$ a tried step.
    Source: dormand1980family; hairer1993solving for the first step.

    >>> y = adaptive(lambda t, y: -y, torch.ones(2, dtype=torch.float64), rtol=1e-10)
    >>> torch.allclose(y, torch.full_like(y, math.exp(-1)), rtol=1e-9)
    True
    """
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not 0 < tolerance < math.inf:
            raise ArchitectureError(f"{name} must be a positive number, got {tolerance!r}.")
    rtol, max_steps = max(rtol, 100 * torch.finfo(y.dtype).eps), checked_size("max_steps", max_steps)

    def size(change: Tensor, *around: Tensor) -> float:
        scale = atol + rtol * torch.stack([value.detach().abs() for value in around]).amax(0)
        return (change.detach().abs() / scale).max().item()

    t, slope, direction = start, f(start, y), math.copysign(1.0, end - start)
    h = _first_step(f, t, y, slope, direction, abs(end - start), size)
    for _ in range(max_steps):
        if t == end:
            return y
        last = h >= abs(end - t)
        signed = end - t if last else direction * h
        if t + signed == t:
            break
        slopes = _slopes(f, t, y, signed, _DORMAND_PRINCE, slope)
        proposed = _combine(y, signed, _DORMAND_PRINCE.weights, slopes)
        slopes.append(f(t + signed, proposed))
        error = size(_combine(torch.zeros_like(y), signed, _ERROR, slopes), y, proposed)
        if error <= 1:
            t, y, slope = end if last else t + signed, proposed, slopes[-1]
        h = abs(signed) * (min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2)) if math.isfinite(error) else 0.2)
    if t == end:
        return y
    raise ArchitectureError(
        f"the adaptive solver stopped at t={t:.6g} of {end:g} with a step of {h:.2g} (max_steps={max_steps}, "
        f"rtol={rtol:g}, atol={atol:g}): the field is stiff, not smooth or grows without bound. Loosen the tolerances, "
        "raise max_steps, or bound the field."
    )


def _first_step(
    f: Field, t: float, y: Tensor, slope: Tensor, direction: float, span: float, size: Callable[..., float]
) -> float:
    """Return a step whose Euler error is about a hundredth of the tolerance (Hairer, Nørsett and Wanner, II.4)."""
    value, speed = size(y, y), size(slope, y)
    trial = min(span, 0.01 * value / speed if min(value, speed) > 1e-5 else 1e-6)
    with torch.no_grad():
        bend = size(f(t + direction * trial, torch.add(y, slope, alpha=direction * trial)) - slope, y) / max(
            trial, 1e-300
        )
    steepest = max(speed, bend)
    return min(span, 100 * trial, (0.01 / steepest) ** 0.2 if steepest > 1e-15 else max(1e-6, 1e-3 * trial))


def adjoint(
    field: nn.Module,
    y: Tensor,
    cotangent: Tensor,
    start: float = 0.0,
    end: float = 1.0,
    solve: Callable[..., Tensor] = integrate,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    r"""Return $y(start)$ and the gradients of a loss of $y(end)$ by the continuous adjoint, in constant memory.

    With $a(t) = ∂L/∂y(t)$ and $G(t)$ what the times after $t$ add to $∂L/∂θ$, solve from `end` back to `start`

    $$\dot y = f_θ(t, y), \qquad \dot a = -a^⊤ \frac{∂f_θ}{∂y}, \qquad \dot G = -a^⊤ \frac{∂f_θ}{∂θ}, \qquad G(end) = 0.$$

    These are the gradients of the exact flow solved anew, not those of the computed solution: they differ from
    backpropagation through `integrate` by $O(h^p)$, and where the flow contracts, solving it backwards is unstable
    [gholami2019anode]. No second derivatives: use backpropagation for them.

    Args:
        field: the module $f_θ$, called `field(t, y)`.
        y: $y(end)$.
        cotangent: $∂L/∂y(end)$, of $y$'s shape.
        start: the earlier time.
        end: the time of `y`.
        solve: `integrate`, `adaptive`, or one of them with its options bound by `functools.partial`.

    Returns:
        $y(start)$, $∂L/∂y(start)$ and the gradient of each parameter by name.

    Cost: an evaluation and a vector–Jacobian product of $f$ for each evaluation of the solver; memory of one of them.
    Source: chen2018neural.

    >>> field = lambda t, y: -y                                     # dL/dy(0) = e^{-1} dL/dy(1)
    >>> class Decay(nn.Module):
    ...     forward = staticmethod(field)
    >>> y0, a0, _ = adjoint(Decay(), torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    >>> abs(a0.item() - math.exp(-1)) < 1e-6, abs(y0.item() - math.exp(1)) < 1e-5
    (True, True)
    """
    parameters = {name: p.detach() for name, p in field.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]

    def augmented(t: float, state: Tensor) -> Tensor:
        now, a = state[: y.numel()].view_as(y), state[y.numel() : 2 * y.numel()].view_as(y)
        slope, pull = vjp(lambda p, point: functional_call(field, p, (t, point)), parameters, now)[:2]
        by_parameter, by_state = pull(a)
        return torch.cat(
            [slope.reshape(-1), -by_state.reshape(-1), *(-by_parameter[name].reshape(-1) for name in parameters)]
        )

    with torch.no_grad():
        state = torch.cat([y.reshape(-1), cotangent.reshape(-1), y.new_zeros(sum(sizes))])
        state = solve(augmented, state, end, start)
    before, a, *gradients = state.split([y.numel(), y.numel(), *sizes])
    named = zip(parameters.items(), gradients, strict=True)
    return before.view_as(y), a.view_as(y), {name: g.view_as(p) for (name, p), g in named}
