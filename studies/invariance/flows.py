r"""Flows: backwards, by volume, and with a random trace.

The flow of a vector field is undone by following it backwards, and it changes volumes by the integral of the divergence: the
density of a continuous flow @chen2018neural. Both hold exactly for the flow, and for its solver to an order in the step that
theory gives @hairer1993solving. Along one random probe the divergence costs one product instead of one a dimension; the price is
a variance, known from the Jacobian @grathwohl2019ffjord @hutchinson1989stochastic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lemmata.architectures import ContinuousFlow, HutchinsonFlow, NeuralODE
from lemmata.architectures.continuous_flow import probes
from lemmata.architectures.ode import integrate
from lemmata.architectures.vector_field import VectorField
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
HIDDEN, POINTS = 16, 32
STEPS = 5, 10, 20, 40
DIMENSIONS = [3, 8]


def draw_orders(ax: Any, rows: Rows) -> Columns:
    """Errors of flows against the number of steps, both logarithmic, with the line of the order that theory gives.

    Dots of the smooth field fall along a straight line; the controls' errors lie above it and fall less steeply.
    """
    chosen = [row for row in rows if not row.error and row.point["dimension"] == DIMENSIONS[0]]
    columns: dict[str, Any] = {"steps": STEPS}
    for arm in dict.fromkeys(row.arm for row in chosen):
        label = arm.partition(": ")[2] or "smooth field, classical method"
        errors = np.array([row.values["errors"] for row in chosen if row.arm == arm])
        columns[label] = np.exp(np.log(errors).mean(0))
        ax.loglog(STEPS, columns[label], "x" if arm else "o", label=label)
    own = columns["smooth field, classical method"]
    power = round(order(own))
    line = own[0] * (np.array(STEPS) / STEPS[0]) ** float(power)
    ax.loglog(STEPS, line, color="0.6", linewidth=1, label=f"slope −{-power}")
    ax.minorticks_off()
    ax.set(xlabel="steps", ylabel="root mean square error", xticks=STEPS, xticklabels=[str(s) for s in STEPS])
    ax.legend(fontsize="small")
    return columns


def order(errors: Sequence[float]) -> float:
    """Slope of the logarithm of the error against that of the number of steps."""
    return float(np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


@claim(
    source=("chen2018neural", "hairer1993solving"),
    predicts=Equals(-4, within=0.1),
    quick=Grid(dimension=DIMENSIONS[:1], seeds=5),
    full=Grid(dimension=[*DIMENSIONS, 16], seeds=20),
    controls={
        "a smooth field: rectifiers": dict(activation="relu"),
        "a method of order four: of order two": dict(solver="midpoint"),
    },
    figures=(draw_orders,),
)
def neural_ode_inverse_and_volume(
    dimension: int, seed: int, activation: str = "tanh", solver: str = "rk4"
) -> dict[str, Any]:
    r"""A flow changes volumes by the integral of its divergence, and its solver does to the fourth order.

    Let $Phi$ be the flow of $dot(z) = f (t, z)$ over a time of one. By Liouville's formula
    $ ln abs(det (partial Phi)/(partial z)) = integral_0^1 "tr" (partial f)/(partial z) (t, z (t)) thin d t, $
    from which a continuous flow takes its density @chen2018neural. A Runge–Kutta method of order four, in $N$ steps, computes a map
    that has a determinant, and the integral of the trace along its own path; it errs in both by $O(N^(-4))$ if $f$ is smooth
    @hairer1993solving. The value is the slope, over $N = 5$ to $40$ on logarithmic axes, of the root mean square difference of the two
    sides over 32 points, the left from the Jacobian of all steps together. Controls: rectifiers, whose kinks the path crosses; the
    midpoint rule.
    """
    errors = []
    for steps in STEPS:
        draws = torch.Generator().manual_seed(seed)
        flow = ContinuousFlow(dimension, HIDDEN, solver, steps, activation, generator=draws)
        x = gaussian(draws, POINTS, dimension)
        back = integrate(flow.field, x.requires_grad_(), 1.0, 0.0, solver, steps)
        rows = [torch.autograd.grad(entry.sum(), x, retain_graph=True)[0] for entry in back.T]  # points do not meet
        with torch.no_grad():
            change, volume = flow.encode(x)[1], torch.linalg.slogdet(torch.stack(rows, 1))[1]
        errors.append(float((change - volume).square().mean().sqrt()))
    return {"value": order(errors), "errors": np.array(errors)}


@claim(
    source=("chen2018neural", "hairer1993solving"),
    predicts=Equals(-5, within=0.1),
    quick=Grid(dimension=DIMENSIONS, seeds=5),
    full=Grid(dimension=[*DIMENSIONS, 16], seeds=20),
    controls={
        "a smooth field: rectifiers": dict(activation="relu"),
        "a method of even order: Euler's": dict(solver="euler"),
    },
    figures=(draw_orders,),
)
def neural_ode_inverse_and_volume_round_trip(
    dimension: int, seed: int, activation: str = "tanh", solver: str = "rk4"
) -> dict[str, Any]:
    r"""There and back again, a flow returns to one order of the step better than its solver's.

    The flow of a Lipschitz field has an inverse, the flow backwards @chen2018neural. A step $h$ of a method of order $p$ errs by
    $C h^(p + 1)$, the step $-h$ that undoes it by $C (-h)^(p + 1)$, up to higher terms: for even $p$ the two cancel, and $N$ steps
    there and back miss the start by $O(N^(-p - 1))$, here $N^(-5)$; for odd $p$ they add up, to $O(N^(-p))$ @hairer1993solving. The value
    is the slope of the root mean square distance of 32 points from their start over $N = 5$ to $40$. Controls: rectifiers,
    with which the error of a step is no power of it; Euler's method, of odd order.
    """
    errors = []
    for steps in STEPS:
        draws = torch.Generator().manual_seed(seed)
        there = NeuralODE(dimension, HIDDEN, solver=solver, steps=steps, activation=activation, generator=draws)
        x = gaussian(draws, POINTS, dimension)
        with torch.no_grad():
            back = integrate(there.field, there(x), there.time, 0.0, solver, steps)
        errors.append(float((back - x).square().sum(1).mean().sqrt()))
    return {"value": order(errors), "errors": np.array(errors)}


# The trace along a random probe


def linear_maps(field: VectorField) -> list[nn.Linear]:
    """The field's layers."""
    return [layer for layer in field.layers if isinstance(layer, nn.Linear)]


def contracting(kind: type[ContinuousFlow | HutchinsonFlow], dimension: int, seed: int) -> Any:
    """A random flow of one hidden layer, with a part that contracts: its divergence is not near zero."""
    flow = kind(dimension, HIDDEN, steps=2, generator=torch.Generator().manual_seed(seed)).requires_grad_(False)
    first, last = linear_maps(flow.field)
    last.weight.sub_(first.weight[:, :dimension].T)
    return flow


def jacobian(field: VectorField, t: float, z: Tensor) -> Tensor:
    """∂f/∂z of a tanh field of one hidden layer by the chain rule, (n, n)."""
    first, last = linear_maps(field)
    slope = 1 - torch.tanh(first.weight @ torch.cat([z, z.new_tensor([t])]) + first.bias).square()
    return (last.weight * slope) @ first.weight[:, : len(z)]


def mean_jacobian(flow: ContinuousFlow, x: Tensor) -> Tensor:
    r"""$\int_1^0 \partial f/\partial z \, dt$ along the path from x at time 1 to time 0, (n, n), by the flow's own solver."""
    n = len(x)

    def rate(t: float, state: Tensor) -> Tensor:
        return torch.cat([flow.field(t, state[:n]), jacobian(flow.field, t, state[:n]).flatten()])

    start = torch.cat([x, x.new_zeros(n * n)])
    return integrate(rate, start, 1.0, 0.0, flow.solver, flow.steps)[n:].reshape(n, n)


def drawn_probes(law: str, x: Tensor, draws: torch.Generator) -> Tensor:
    """Probes of x's shape: signs, Gaussian entries, or uniform ones on [−1, 1], whose mean square is one third."""
    if law == "signs":
        return probes(x, draws)
    if law == "gaussian":
        return gaussian(draws, *x.shape)
    return 2 * torch.rand(x.shape, generator=draws, device="cpu").to(x) - 1


@cache
def estimates(dimension: int, count: int, law: str, seed: int, fresh: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates of ln |det ∂z/∂x| at one point along many probes, the exact one, the mean Jacobian of the path; arms share them."""
    draws = torch.Generator().manual_seed(seed)
    exact, along = contracting(ContinuousFlow, dimension, seed), contracting(HutchinsonFlow, dimension, seed)
    x = gaussian(draws, dimension)
    many = x.expand(count, -1)
    if fresh:
        found, state = x.new_zeros(count), many
        for i in range(along.steps):  # a step at a time, each along probes of its own
            part = partial(one_step, along, 1 - i / along.steps, drawn_probes(law, many, draws))
            state, change = part(state)
            found = found + change
    else:
        found = along.encode(many, drawn_probes(law, many, draws))[1]
    return found, exact.encode(x)[1], mean_jacobian(exact, x)


def one_step(flow: HutchinsonFlow, start: float, probe: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """One backward step of the solver from time `start`, for the state and the estimated integral."""

    first, last = linear_maps(flow.field)
    twice = (probe @ first.weight[:, : z.shape[1]].T) * (probe @ last.weight)  # e·J e = Σ of this × slopes of tanh

    def rate(t: float, state: Tensor) -> Tensor:
        time = torch.full_like(state[:, :1], t)
        h = torch.tanh(first(torch.cat([state[:, :-1], time], 1)))
        return torch.cat([last(h), ((1 - h.square()) * twice).sum(1, keepdim=True)], 1)

    end = integrate(rate, torch.cat([z, torch.zeros_like(z[:, :1])], 1), start, start - 1 / flow.steps, flow.solver, 1)
    return end[:, :-1], end[:, -1]


def draw_estimates(ax: Any, rows: Rows) -> Columns:
    """Estimates of one log-density change: they scatter around the exact one, less when each step has probes of its own.

    Histogram of the estimates less the exact value, in units of the predicted standard deviation. One probe held through
    the solve makes a wide, lumpy distribution, new probes at each step a narrow one.
    """
    edges = np.linspace(-4, 4, 41)
    columns: dict[str, Any] = {"from": edges[:-1], "to": edges[1:]}
    for arm, label in (("", "one probe held"), (FRESH, "new probes each step")):
        row = next(row for row in rows if row.arm == arm and not row.error)
        columns[label] = np.histogram(row.values["scaled"], edges, density=True)[0]
        ax.stairs(columns[label], edges, label=label)
    ax.set(xlabel="(estimate − exact) / predicted standard deviation", ylabel="density")
    ax.legend()
    return columns


FRESH = "a probe held through the solve: a new one at each step"


@claim(
    source=("grathwohl2019ffjord", "hutchinson1989stochastic"),
    predicts=Equals(1, within=0.05),
    quick=Grid(dimension=[4, 12], probes=[10_000], seeds=13),
    full=Grid(dimension=[4, 12, 32], probes=[100_000], seeds=20),
    controls={
        "the symmetric part: the Jacobian itself": dict(symmetric=False),
        "signs: Gaussian entries": dict(law="gaussian"),
        FRESH: dict(fresh=True),
    },
    figures=(draw_estimates,),
)
def ffjord_trace(
    dimension: int, probes: int, seed: int, symmetric: bool = True, law: str = "signs", fresh: bool = False
) -> dict[str, Any]:
    r"""The random log-density of a flow has the variance of a stochastic trace of its mean Jacobian.

    Along a probe $epsilon$ of independent signs, held through the solve, the log-density changes by
    $epsilon^top macron(A) epsilon$ with $macron(A) = integral (partial f)/(partial z) thin d t$, since the path does not depend on
    $epsilon$ @grathwohl2019ffjord. Only the symmetric part $S = (macron(A) + macron(A)^top)\/2$ enters a quadratic form, hence
    $ "Var" = 2 (norm(S)_F^2 - sum_i s_(i i)^2) $
    @hutchinson1989stochastic. The value is the sample variance at one point over the formula, $macron(A)$ by the chain rule and the same
    quadrature. Controls: the formula with $macron(A)$ itself, which is not symmetric; Gaussian probes, which see the diagonal too; a
    new probe at each step, whose errors average out (an adaptive solver would see a field that jumps).
    """
    found, exact, A = estimates(dimension, probes, law, seed, fresh)
    S = (A + A.T) / 2 if symmetric else A
    formula = 2 * (S.square().sum() - S.diagonal().square().sum())
    scaled = (found - exact) / formula.sqrt()
    return {"value": float(found.var() / formula), "scaled": scaled[:2000]}


@claim(
    source=("grathwohl2019ffjord", "hutchinson1989stochastic"),
    predicts=Equals(1, within=0.02),
    quick=Grid(dimension=[4, 12], probes=[10_000], seeds=8),
    full=Grid(dimension=[4, 12, 32], probes=[100_000], seeds=20),
    controls={"entries of mean square one: uniform on ±1": dict(law="uniform")},
)
def ffjord_trace_unbiased(dimension: int, probes: int, seed: int, law: str = "signs") -> float:
    r"""The random log-density of a flow is right on average.

    For probes with $EE epsilon epsilon^top = I$, held or not, $EE epsilon^top macron(A) epsilon = "tr" macron(A)$: the mean of the estimates is
    the exact change of the log-density, that of $n$ products at every evaluation, for every solver and number of steps
    @grathwohl2019ffjord. The value is the mean over probes divided by the exact change; the field contracts, so that this is not
    near zero. The control's entries have a mean square of a third, and so does its answer.
    """
    found, exact, _ = estimates(dimension, probes, law, seed)
    return float(found.mean() / exact)


if __name__ == "__main__":
    script(__file__)
