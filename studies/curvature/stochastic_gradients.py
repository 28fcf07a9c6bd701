r"""Step sizes that a quadratic form with exact gradients does not explain.

Two small models whose behaviour at large steps is known exactly. Noise of the gradients keeps the iterates moving, and
their covariance around the minimum depends on the step size. The usual account takes the steps to be small, an
Ornstein–Uhlenbeck process @mandt2017stochastic; the exact covariance has one term more @liu2021noise. And a product of
two layers, trained without noise by steps above the classical threshold of two over the curvature, need not diverge:
its loss shoots up and its curvature falls until the step fits, as long as the step is below four over the curvature
@lewkowycz2020large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import Objective, descent

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

# Stationary covariance

DIMENSION = 3
BATCHES, EXAMPLES = 256, 20
SPREAD = (1.0, 0.6, 0.3)  # variances of the inputs along their axes: the curvatures, before sampling


class Regression(NamedTuple):
    """A least-squares problem in batches, around its minimum: the loss of batch k has gradient A_k θ + r_k there."""

    curvatures: Tensor  # (batches d d), A_k
    noise: Tensor  # (batches d), r_k, of mean zero

    @property
    def hessian(self) -> Tensor:
        """H, the mean of the batches' curvatures."""
        return self.curvatures.mean(0)

    @property
    def covariance(self) -> Tensor:
        """C, the covariance of the gradient at the minimum."""
        return self.noise.T @ self.noise / len(self.noise)


def regression(draws: torch.Generator) -> Regression:
    """Inputs of unequal variances; labels whose noise depends on the input, so that C is no multiple of H."""
    device = torch.get_default_device()
    frame = torch.linalg.qr(gaussian(draws, DIMENSION, DIMENSION))[0]
    latent = gaussian(draws, BATCHES, EXAMPLES, DIMENSION)
    inputs = latent * torch.tensor(SPREAD, device=device).sqrt() @ frame  # (batches examples d)
    labels = gaussian(draws, BATCHES, EXAMPLES) * (0.5 + latent[..., -1].abs())
    curvatures = inputs.mT @ inputs / EXAMPLES
    pull = (inputs * labels[..., None]).mean(1)
    minimum = torch.linalg.solve(curvatures.mean(0), pull.mean(0))
    return Regression(curvatures, curvatures @ minimum - pull)


def stationary_covariance(hessian: Tensor, covariance: Tensor, step: float, formula: str = "exact") -> Tensor:
    """Σ with ΣH + HΣ − ηHΣH = ηC, entry by entry in the eigenbasis of H; "Ornstein–Uhlenbeck" leaves out −ηHΣH."""
    values, frame = torch.linalg.eigh(hessian)
    rates = values[:, None] + values
    if formula == "exact":
        rates = rates - step * values[:, None] * values
    return frame @ (step * (frame.T @ covariance @ frame) / rates) @ frame.T


def sample_chains(problem: Regression, step: float, chains: int, curvature: str, draws: torch.Generator) -> Tensor:
    """Independent runs of stochastic gradient descent from the minimum, until what is left of the start is 10⁻⁴."""
    hessian = problem.hessian
    slowest = (1 - step * torch.linalg.eigvalsh(hessian)).abs().max().item()
    theta = torch.zeros(chains, DIMENSION)
    for _ in range(math.ceil(math.log(1e-4) / math.log(slowest))):
        batch = torch.randint(BATCHES, (chains,), generator=draws, device="cpu").to(theta.device)
        if curvature == "mean":
            gradient = theta @ hessian
        else:
            gradient = (problem.curvatures[batch] @ theta[..., None])[..., 0]
        theta = theta - step * (gradient + problem.noise[batch])
    return theta


def draw_variances(ax: Any, rows: Rows) -> Columns:
    """Variance of the iterates along each eigenvector of H, in units of the noise, against the step size.

    Circles lie on a solid curve that rises ever more steeply towards the right end, where the step size times the
    curvature is two. A dashed horizontal line, the small-step formula, meets the curve at the left end only. Crosses,
    the runs in which every batch has its own curvature, lie above the curve.
    """
    a = np.linspace(0, 1.95, 100)
    ax.plot(a, 1 / (2 - a), color="0.3", label="exact")
    ax.axhline(0.5, color="0.3", linestyle="--", label="Ornstein–Uhlenbeck")
    columns: dict[str, Any] = {}
    arms = {
        "": ("o", "noise alone"),
        "noise that does not depend on θ: batches with their own curvature": ("x", "batches"),
    }
    for colour, (arm, (mark, name)) in enumerate(arms.items()):
        own = [row for row in rows if row.arm == arm and row.k == 0]
        x, y = (np.concatenate([row.values[entry] for row in own]) for entry in ("eta_lambda", "variance"))
        columns |= {f"η λ, {name}": x, f"variance, {name}": y}
        ax.plot(x, y, mark, color=f"C{colour}", markerfacecolor="none", label=name)
    ax.set(xlabel="step size times curvature, η λ", ylabel="variance times λ / (η c)", ylim=(0, 4))
    ax.legend(loc="upper left")
    return columns


@claim(
    source=("liu2021noise", "mandt2017stochastic"),
    predicts=Equals(1, within="(1 + (sqrt(3) + 5)/sqrt(chains))**2 - 1", of="each"),
    quick=Grid(eta_lambda=[0.05, 0.5, 1.0, 1.5], chains=[40000], seeds=3),
    full=Grid(eta_lambda=[0.02, 0.05, 0.1, 0.5, 1.0, 1.5, 1.75], chains=[100000], seeds=5),
    controls={
        "discrete steps: the formula of Ornstein and Uhlenbeck": dict(formula="Ornstein–Uhlenbeck"),
        "noise that does not depend on θ: batches with their own curvature": dict(curvature="of the batch"),
    },
    figures=(draw_variances,),
)
def sgd_stationary_covariance(
    eta_lambda: float, chains: int, seed: int, formula: str = "exact", curvature: str = "mean"
) -> dict[str, Any]:
    r"""The stationary covariance of stochastic gradient descent is known exactly at every step size.

    Let $theta <- theta - eta (H theta + xi)$ with $H$ symmetric positive definite and independent $xi$ of mean zero and
    covariance $C$. If $eta lambda_max (H) < 2$, the covariance of $theta$ converges to the solution of
    $ Sigma H + H Sigma - eta H Sigma H = eta C $
    @liu2021noise. In one dimension that is $eta c \/ (lambda (2 - eta lambda))$. The Ornstein–Uhlenbeck process of
    small steps @mandt2017stochastic has $Sigma H + H Sigma = eta C$, a variance too small by the share $eta lambda\/2$.
    The equation holds whatever the law of the noise.

    Here $H$ is that of a least-squares problem of 5120 examples in three dimensions and $xi$ the deviation of the
    gradient of a random batch of 20, both taken at the minimum; $C$ does not commute with $H$. Independent runs give
    the sample covariance $S$. The value is the eigenvalue of $Sigma^(-1) S$ that is furthest from one, so that all
    entries count; for Gaussian $theta$ and $N$ runs a deviation above $(1 + (sqrt(3) + 5)\/sqrt(N))^2 - 1$ has a
    probability below $10^(-5)$.

    Controls: the small-step formula fails where $eta lambda_max >= 0.5$ and cannot be told from the exact one at
    $eta lambda_max = 0.05$. In true stochastic gradient descent a batch has its own curvature too, and not only its own
    gradient at the minimum; the noise then depends on $theta$, and the variance is larger.
    """
    draws = torch.Generator().manual_seed(seed)
    problem = regression(draws)
    values, frame = torch.linalg.eigh(problem.hessian)
    step = eta_lambda / values[-1].item()
    theta = sample_chains(problem, step, chains, curvature, draws)
    sample = theta.T @ theta / chains
    root = torch.linalg.cholesky(stationary_covariance(problem.hessian, problem.covariance, step, formula))
    whitened = torch.linalg.solve_triangular(root, sample, upper=False)
    ratios = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, whitened.mT, upper=False))
    noise = (frame.T @ problem.covariance @ frame).diagonal()
    return {
        "value": ratios[(ratios - 1).abs().argmax()].item(),
        "eta_lambda": step * values,
        "variance": (frame.T @ sample @ frame).diagonal() * values / (step * noise),
    }


# Catapult

CANDIDATES = 64  # step sizes tried side by side in each round
ROUNDS = 4  # the bracket shrinks by a factor of 63 in each
STEPS = 150  # near a threshold the distance to it grows by a factor of about 2.6 a step
GRID = np.linspace(0.05, 3.95, 79)


def two_layers(draws: torch.Generator, width: int, equal: bool = False) -> Tensor:
    """(u, v), all entries standard normal; equal layers have v = u."""
    u, v = gaussian(draws, 2, width)
    return torch.cat([u, u if equal else v])


def curvature(weights: Tensor) -> Tensor:
    """λ = (|u|² + |v|²)/n, the tangent kernel of f = u·v/√n: (..., 2n) → (...)."""
    return weights.square().sum(-1) / (weights.shape[-1] // 2)


def product_loss(weights: Tensor) -> tuple[Tensor, Tensor]:
    """½ f² of f = u·v/√n and its gradient; every row is a network of its own."""
    u, v = weights.chunk(2, dim=-1)
    f = (u * v).sum(-1, keepdim=True) / math.sqrt(u.shape[-1])
    return 0.5 * f[..., 0].square(), f * torch.cat([v, u], dim=-1) / math.sqrt(u.shape[-1])


def linearised_loss(start: Tensor) -> Objective:
    """The same for the linear model that touches the network at ``start``: its kernel does not move."""
    u, v = start.chunk(2)
    slope = torch.cat([v, u]) / math.sqrt(len(u))
    at_start = (u @ v) / math.sqrt(len(u))

    def value_and_gradient(weights: Tensor) -> tuple[Tensor, Tensor]:
        f = at_start + (weights - start) @ slope
        return 0.5 * f.square(), f[..., None] * slope

    return value_and_gradient


def first_step_that(happens: Callable[[Tensor], Tensor], low: float, high: float) -> float:
    """The smallest ηλ₀ at which something happens, to (high − low)/63⁴."""
    for _ in range(ROUNDS):
        steps = torch.linspace(low, high, CANDIDATES)
        first = int(happens(steps).int().argmax())
        low, high = steps[first - 1].item(), steps[first].item()
    return (low + high) / 2


def losses_of(loss: Objective, start: Tensor, eta_lambda: Tensor, steps: int = STEPS) -> Tensor:
    """Losses along training, (steps, runs), for several values of ηλ₀ side by side; infinite or NaN after divergence."""
    eta = eta_lambda / curvature(start)
    path = descent(loss, start.expand(len(eta), -1), eta[:, None])
    return torch.stack([value for _, value in islice(path, steps)])


@claim(
    source="lewkowycz2020large",
    predicts=Equals(4, within=1e-4, of="each"),
    quick=Grid(width=[1, 10, 1000], seeds=3),
    full=Grid(width=[1, 2, 10, 100, 1000, 3000], seeds=10),
    controls={"a product of layers: its linearisation at the start": dict(linear=True)},
)
def catapult_window(width: int, seed: int, linear: bool = False) -> float:
    r"""A product of two layers diverges from four over its curvature on, not from two.

    Let $f = u dot v \/ sqrt(n)$ with $u, v in RR^n$, and minimise $f^2\/2$ by gradient descent with step size $eta$.
    With the tangent kernel $lambda = (|u|^2 + |v|^2)\/n$, the Hessian's largest eigenvalue where $f = 0$, a step is
    $ f <- f (1 - eta lambda + eta^2 f^2\/n), quad lambda <- lambda + (eta f^2\/n)(eta lambda - 4) $
    @lewkowycz2020large. Hence $lambda$ never grows if $eta lambda_0 < 4$, and then $sum f^2 < oo$: the loss converges
    to zero from every start and at every width. If $eta lambda_0 > 4$, $lambda$ never falls and training diverges from
    almost every start. The paper derives the threshold for wide networks; in this model it is exact for every $n >= 1$.
    The value is $eta lambda_0$ where divergence sets in, bracketed by simulated runs from standard normal $u$ and $v$;
    a run has diverged if its loss after 150 steps is not below $10^6$.

    The control trains the linear model that agrees with $f$ to first order at the start. Its kernel is constant and it
    diverges from $2$ on; in 150 steps the loss passes $10^6$ from about $2.05$ on.
    """
    start = two_layers(torch.Generator().manual_seed(seed), width)
    loss = linearised_loss(start) if linear else product_loss

    def diverges(eta_lambda: Tensor) -> Tensor:
        return ~(losses_of(loss, start, eta_lambda)[-1] < 1e6)

    return first_step_that(diverges, 0.5, 8)


@claim(
    source="lewkowycz2020large",
    predicts=Equals(2, within="40/width", of="each"),
    quick=Grid(width=[100, 1000, 4000], seeds=3),
    full=Grid(width=[100, 300, 1000, 3000, 10000], seeds=10),
    controls={"independent layers: v = u": dict(equal=True)},
)
def catapult_window_monotone(width: int, seed: int, equal: bool = False) -> float:
    r"""Below two over the curvature the loss falls at every step, above it rises first.

    In the same model, while $eta lambda < 4$, the loss falls at a step if and only if $eta lambda < 2 + eta^2 f^2\/n$.
    For wide networks of independent layers the last term is $O(1\/n)$ at the start @lewkowycz2020large: the window of
    the catapult, in which the loss rises before it converges, is $2 < eta lambda_0 < 4$. The value is $eta lambda_0$
    from which on the loss exceeds its first value at some step.

    In the control both layers are drawn equal. Then $eta^2 f^2\/n = (eta lambda)^2\/4$ throughout, every step
    multiplies $f$ by $(1 - eta lambda\/2)^2$, and the loss falls up to $eta lambda_0 = 4$: there is no window.
    """
    start = two_layers(torch.Generator().manual_seed(seed), width, equal)

    def rises(eta_lambda: Tensor) -> Tensor:
        losses = losses_of(product_loss, start, eta_lambda, 30)
        return ~(losses[1:].amax(0) <= losses[0])

    return first_step_that(rises, 0.5, 8)


def draw_flattening(ax: Any, rows: Rows) -> Columns:
    """Curvature after training against curvature before, both times the step size.

    Up to two the points of wide networks lie on the diagonal. Between two and four all points lie below the horizontal
    dashed line at two. The dotted line of the linear model stays on the diagonal throughout.
    """
    columns: dict[str, Any] = {"η λ at the start": GRID}
    for colour, row in enumerate(row for row in rows if row.k == 0 and row.arm == ""):
        label = f"n = {row.point['width']}"
        columns[label] = row.values["final"]
        ax.plot(GRID, columns[label], ".", color=f"C{colour}", label=label)
    columns["linear model"] = next(row for row in rows if row.k == 0 and row.arm).values["final"]
    ax.plot(GRID, columns["linear model"], ":", color="0.3", label="linear model")
    ax.axhline(2, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="η λ at the start", ylabel="η λ at the end")
    ax.legend()
    return columns


def draw_catapult(ax: Any, rows: Rows) -> Columns:
    """The loss along training, in units of its first value, for several step sizes.

    Logarithmic axis. Where the step size times the curvature starts below two the loss falls at once. Above two it
    first rises by orders of magnitude, the higher and faster the larger the step, and then falls to zero.
    """
    row = max((row for row in rows if row.k == 0 and row.arm == ""), key=lambda row: row.point["width"])
    columns: dict[str, Any] = {"step": np.arange(len(row.values["losses"]))}
    for start in (1.0, 1.5, 2.5, 3.0, 3.5):
        losses = row.values["losses"][:, np.abs(GRID - start).argmin()]
        label = f"η λ = {start} at the start"
        columns[label] = losses / losses[0]
        ax.semilogy(columns["step"], np.maximum(columns[label], 1e-12), label=label)
    ax.set(xlabel="step", ylabel="loss over its first value", ylim=(1e-8, None))
    ax.legend()
    return columns


@claim(
    source="lewkowycz2020large",
    predicts=AtMost(2, of="each"),
    quick=Grid(width=[10, 1000], seeds=5),
    full=Grid(width=[1, 10, 100, 1000, 3000], seeds=20),
    controls={"a product of layers: its linearisation at the start": dict(linear=True)},
    figures=(draw_flattening, draw_catapult),
)
def catapult_window_flatness(width: int, seed: int, linear: bool = False) -> dict[str, Any]:
    r"""What survives a catapult is flat enough for the step.

    In the same model, where training converges to $f = 0$ its limit has $eta lambda <= 2$, from almost every start
    @lewkowycz2020large: the map of $f$ would repel from a limit of higher curvature. So the end of a catapult, from $2
    < eta lambda_0 < 4$, has a lower curvature than its start. The value is the largest $eta lambda$ after 600 steps
    among the runs of 79 step sizes with $0 < eta lambda_0 < 4$.

    The linear model of the control keeps its curvature.
    """
    start = two_layers(torch.Generator().manual_seed(seed), width)
    eta = torch.as_tensor(GRID, device=start.device, dtype=start.dtype) / curvature(start)
    loss = linearised_loss(start) if linear else product_loss
    losses, last = [], start
    for weights, value in islice(descent(loss, start.expand(len(eta), -1), eta[:, None]), 600):
        losses.append(value)
        last = weights
    final = eta * curvature(start if linear else last)
    return {"value": final.max().item(), "final": final, "losses": torch.stack(losses[:60])}


if __name__ == "__main__":
    script(__file__)
