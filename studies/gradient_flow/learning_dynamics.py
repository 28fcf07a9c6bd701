r"""How learning proceeds: at known rates, around in circles, and away from saddles.

On a quadratic, momentum turns the condition number into its square root @polyak1964methods. In a game between two players, plain
gradient steps run away from the equilibrium @gidel2019negative. And a saddle holds gradient descent for a time that grows with the
logarithm of how near it the start was @lee2016gradient @du2017gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.gradient_flow import escape_time, integrate
from lemmata.architectures import MLP, DeepLinear
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow.saddle_to_saddle import first_passage
from lemmata.studies.training import descent, flat_parameters, load_parameters, objective, squared_error

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

# Quadratics

METHODS = ["gradient descent", "heavy ball", "Nesterov"]


@dataclass(frozen=True)
class Tuning:
    """Step size, momentum and rate of a method on a quadratic with curvatures from 1 to κ."""

    step: float
    momentum: float
    rate: float

    @classmethod
    def of(cls, method: str, condition: float) -> Tuning:
        """The tuning of lowest rate; for Nesterov the usual one."""
        root = math.sqrt(condition)
        ratio = (root - 1) / (root + 1)
        if method == "gradient descent":
            return cls(2 / (1 + condition), 0.0, (condition - 1) / (condition + 1))
        if method == "heavy ball":
            return cls(4 / (root + 1) ** 2, ratio**2, ratio)
        return cls(1 / condition, ratio, 1 - 1 / root)


def errors_of(method: str, condition: float, steps: int, seed: int, step: float, momentum: float) -> np.ndarray:
    """Norms of two neighbouring iterates together, after each step from a random start."""
    curvatures = torch.linspace(1, condition, 20)
    start = gaussian(torch.Generator().manual_seed(seed), 20)
    walk = descent(
        lambda x: (0.5 * (curvatures * x * x).sum(), curvatures * x), start, step, momentum, method == "Nesterov"
    )
    path = torch.stack([flat for flat, _ in islice(walk, steps + 1)])
    return (path[1:].square().sum(1) + path[:-1].square().sum(1)).sqrt().cpu().numpy()


def draw_rates(ax: Any, rows: Rows) -> Columns:
    """The error of three methods on a quadratic of condition number 1000.

    Error against the number of steps, logarithmic. Three lines that become straight: gradient descent falls least, then
    Nesterov's method, heavy ball falls most, after it has first risen. Dashed, lines of the predicted slopes.
    """
    chosen = [row for row in rows if not row.arm and row.k == 0 and row.point["condition"] == 1000]
    columns: dict[str, Any] = {}
    for row in chosen:
        method, errors = row.point["method"], row.values["errors"][:1200]
        steps = np.arange(1, len(errors) + 1)
        rate = Tuning.of(method, 1000).rate
        columns |= {"step": steps, method: errors}
        (line,) = ax.semilogy(steps, errors, label=method)
        ax.semilogy(steps, errors[-1] * rate ** (steps - steps[-1]), "--", color=line.get_color(), linewidth=1)
    ax.set(xlabel="step", ylabel="error", ylim=(1e-18, 1e3))
    ax.legend()
    return columns


@claim(
    source=("polyak1964methods", "lessard2016analysis"),
    predicts=Equals(1, within=1e-3, of="each"),
    quick=Grid(method=METHODS, condition=[10, 100, 1000], seeds=3),
    full=Grid(method=METHODS, condition=[10, 100, 1000, 10000], seeds=10),
    controls={
        "momentum tuned to the curvatures: its square root": dict(power=0.5),
        "a step tuned to the curvatures: half of it": dict(step=0.5),
    },
    figures=(draw_rates,),
)
def gd_quadratic_rates(
    method: str, condition: float, seed: int, power: float = 1.0, step: float = 1.0
) -> dict[str, Any]:
    r"""On a quadratic, momentum replaces the condition number by its square root.

    For curvatures between $mu$ and $L = kappa mu$ the error falls by a factor per step that tends to
    - $(kappa - 1) \/ (kappa + 1)$ for gradient descent, $eta = 2 \/ (mu + L)$;
    - $(sqrt(kappa) - 1) \/ (sqrt(kappa) + 1)$ for heavy ball, $eta = 4 \/ (sqrt(mu) + sqrt(L))^2$ and
      $beta = ((sqrt(kappa) - 1) \/ (sqrt(kappa) + 1))^2$ @polyak1964methods;
    - $1 - 1 \/ sqrt(kappa)$ for Nesterov's method, $eta = 1 \/ L$ and $beta = (sqrt(kappa) - 1) \/ (sqrt(kappa) + 1)$ @lessard2016analysis.

    The last two have a double root: the error is $t rho^t$, and first rises. The value is $ln rho$ over its formula, with
    $ln rho$ from a fit of $c + t ln rho + m ln t$ to the logarithm of the error, over the second half of $100 sqrt(kappa)$ steps
    ($10 kappa$ for gradient descent if that is more). Controls: more momentum, the square root of it, which changes nothing for gradient descent; half the step.
    """
    tuned = Tuning.of(method, condition)
    steps = round(100 * math.sqrt(condition))
    if method == METHODS[0]:
        steps = max(steps, 10 * round(condition))
    errors = errors_of(method, condition, steps, seed, step * tuned.step, tuned.momentum**power)
    t = np.arange(steps // 2, steps)
    fit = np.linalg.lstsq(np.stack([np.ones(len(t)), t, np.log(t)], 1), np.log(errors[steps // 2 :]), rcond=None)[0]
    return {"value": float(fit[1] / math.log(tuned.rate)), "errors": errors[:: max(1, steps // 4000)][:4000]}


# A game

UPDATES = ["simultaneous", "extragradient", "alternating"]
PLAYERS = 3  # numbers that each of the two players moves


def play(
    update: str, field: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], z: Tensor, eta: float, steps: int
) -> Tensor:
    """The path (steps + 1, 2 n) of the two players: x descends and y ascends the payoff whose slopes the field gives."""
    x, y = z.chunk(2)
    path = [z]
    for _ in range(steps):
        if update == "alternating":
            x = x - eta * field(x, y)[0]
            y = y + eta * field(x, y)[1]
        else:
            p, q = field(x, y)
            if update == "extragradient":
                p, q = field(x - eta * p, y + eta * q)
            x, y = x - eta * p, y + eta * q
        path.append(torch.cat([x, y]))
    return torch.stack(path)


def draw_game(ax: Any, rows: Rows) -> Columns:
    """Three ways to play: away from the equilibrium, towards it, and around it.

    Distance from the equilibrium against the step, logarithmic. Simultaneous steps give a line that rises, extragradient
    steps one that falls, alternating steps a wave between two levels.
    """
    columns: dict[str, Any] = {}
    for row in [row for row in rows if not row.arm and row.k == 0 and row.point["eta"] == 0.1]:
        sizes = row.values["sizes"]
        columns |= {"step": np.arange(len(sizes)), row.point["update"]: sizes}
        ax.semilogy(columns["step"], sizes, label=row.point["update"])
    ax.set(xlabel="step", ylabel="distance from the equilibrium")
    ax.legend()
    return columns


@claim(
    source=("gidel2019negative", "mokhtari2020unified"),
    predicts=Equals(1, within=1e-12, of="each"),
    quick=Grid(update=UPDATES, eta=[0.1, 0.5], steps=[100], seeds=3),
    full=Grid(update=UPDATES, eta=[0.1, 0.5, 0.9], steps=[1000], seeds=20),
    controls={
        "no cost of its own for a player: a quadratic one": dict(cost=0.5),
        "a coupling of singular values one: any": dict(orthogonal=False),
    },
    figures=(draw_game,),
)
def bilinear_game(
    update: str, eta: float, steps: int, seed: int, cost: float = 0.0, orthogonal: bool = True
) -> dict[str, Any]:
    r"""In a bilinear game simultaneous steps run away, extragradient steps come in, alternating steps go around.

    Let $x$ minimise and $y$ maximise $x^top A y$, $A$ orthogonal, by steps of size $eta < 1$. For $z = (x, y)$, exactly:
    - both players at once: $norm(z_(t+1))^2 = (1 + eta^2) norm(z_t)^2$;
    - extragradient, each step with the slopes after a trial step: $norm(z_(t+1))^2 = (1 - eta^2 + eta^4) norm(z_t)^2$ @mokhtari2020unified;
    - $y$ after $x$: $norm(x)^2 - eta x^top A y + norm(y)^2$ is conserved, so that $norm(z_t)^2 <= (2 + eta)\/(2 - eta) norm(z_0)^2$ @gidel2019negative.

    The value is the size at the end (in the last case, of the conserved form) over its formula, slopes by automatic
    differentiation. Controls: a cost $1\/4 (norm(x)^2 - norm(y)^2)$, which pulls both players in; a Gaussian matrix.
    """
    draws = torch.Generator().manual_seed(seed)
    coupling = gaussian(draws, PLAYERS, PLAYERS)
    A = torch.linalg.qr(coupling)[0] if orthogonal else coupling

    def field(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        payoff = x @ A @ y + 0.5 * cost * (x @ x - y @ y)
        p, q = torch.autograd.grad(payoff, (x, y))
        return p, q

    path = play(update, field, gaussian(draws, 2 * PLAYERS), eta, steps)
    squares = path.square().sum(1)
    factor = {"simultaneous": 1 + eta**2, "extragradient": 1 - eta**2 + eta**4, "alternating": 1.0}[update]
    if update == "alternating":
        form = squares - eta * torch.einsum("ti,ij,tj->t", path[:, :PLAYERS], A, path[:, PLAYERS:])
    else:
        form = squares
    return {"value": float((form[-1] / form[0]).sqrt()) / factor ** (steps / 2), "sizes": squares.sqrt().cpu().numpy()}


# Leaving a saddle

SADDLES = ["two linear layers", "tanh network"]
RADIUS = 1e-3


class Saddle:
    """A network with all weights zero, its Hessian there, and the most negative curvature."""

    def __init__(self, kind: str, seed: int) -> None:
        draws = torch.Generator().manual_seed(seed)
        inputs = gaussian(draws, 30, 4)
        target = inputs @ gaussian(draws, 4, 2) + 0.3 * gaussian(draws, 30, 2)
        widths = [4, 3, 2]
        self.model: nn.Module = (
            DeepLinear(widths, generator=draws) if kind == SADDLES[0] else MLP(widths, bias=False, generator=draws)
        )
        self.point = torch.zeros_like(flat_parameters(self.model))
        load_parameters(self.model, self.point)
        self.loss = objective(self.model, squared_error, inputs, target)
        hessian = la.Hessian(self.model, squared_error, (inputs, target)).dense()
        self.values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.T))
        self.curvature = float(self.values[0])
        self.space = vectors[:, self.values < self.curvature * (1 - 1e-8)]
        direction = gaussian(draws, len(self.point))
        self.direction = direction / direction.norm()

    def next_curvature(self) -> float:
        """The second most negative curvature."""
        return float(self.values[self.values > self.curvature * (1 - 1e-8)][0])

    def start(self, distance: float, stable: bool) -> Tensor:
        """A random start at a distance from the saddle; on the stable side, without its part in the space of the curvature."""
        off = distance * self.direction
        return self.point + (off - self.space @ (self.space.T @ off) if stable else off)

    def inside(self, flats: Tensor) -> Tensor:
        """The length of the part of θ − θ* in the eigenspace of the most negative curvature, (…, P) → (…)."""
        return ((flats - self.point) @ self.space).norm(dim=-1)


@claim(
    source=("lee2016gradient", "du2017gradient"),
    predicts=AtMost(1),
    quick=Grid(saddle=SADDLES, distance=[1e-6, 1e-12], eta=[0.05], seeds=3),
    full=Grid(saddle=SADDLES, distance=[1e-6, 1e-9, 1e-12], eta=[0.01, 0.05], seeds=20),
    controls={
        "a start off the stable manifold: on it": dict(stable=True),
        "steps: the flow": dict(continuous=True),
    },
)
def saddle_escape_time_steps(
    saddle: str, distance: float, eta: float, seed: int, stable: bool = False, continuous: bool = False
) -> float:
    r"""Gradient descent leaves a strict saddle after a number of steps that grows with the logarithm of its nearness.

    If the smallest eigenvalue of the Hessian is $lambda < 0$, steps of size $eta$ multiply the part of $theta - theta_*$ in its eigenspace by
    $1 + eta abs(lambda)$: from length $epsilon$ it reaches $r$ after $ln(r \/ epsilon) \/ ln(1 + eta abs(lambda))$ steps
    @lee2016gradient @du2017gradient. Here for networks with all weights zero, starts in a random direction, and $r = 10^(-3)$, within which the
    loss is quadratic. The value is the distance of the measured number, an integer, from the formula.

    Controls: a start without a part in the eigenspace, which rounding alone moves out (for the formula its part is taken
    to be what was removed); and the formula of gradient flow, $ln(r \/ epsilon) \/ (eta abs(lambda))$.
    """
    place = Saddle(saddle, seed)
    begun = float(place.inside(place.start(distance, False)))
    predicted = escape_time(place.curvature, begun, RADIUS, 0.0 if continuous else eta) / eta
    walk = islice(descent(place.loss, place.start(distance, stable), eta), math.ceil(2 * predicted))
    count = next((k for k, (flat, _) in enumerate(walk) if place.inside(flat) >= RADIUS), 2 * predicted)
    return abs(count - predicted)


def draw_escape(ax: Any, rows: Rows) -> Columns:
    """The time to leave a saddle grows with the logarithm of the distance at the start.

    Time in units of the inverse curvature against the distance, which falls from left to right. Dots of all networks lie on lines of
    slope one; dots of starts on the stable side lie on a level, where the observation ended.
    """
    columns: dict[str, Any] = {"distance": DISTANCES}
    for row in rows:
        if row.k == 0 and "next" not in row.arm:
            label = row.point["saddle"] + (", on the stable manifold" if row.arm else "")
            columns[label] = row.values["times"]
            ax.semilogx(DISTANCES, columns[label], "x" if row.arm else "o-", label=label, linewidth=1)
    ax.set(xlabel="distance from the saddle at the start, ε", ylabel="time to leave · |λ|")
    ax.invert_xaxis()
    ax.legend()
    return columns


DISTANCES = np.array([1e-5, 1e-7, 1e-9])


@claim(
    source=("lee2016gradient", "du2017gradient"),
    predicts=Equals(1, within=0.01, of="each"),
    quick=Grid(saddle=SADDLES, seeds=3),
    full=Grid(saddle=SADDLES, seeds=20),
    controls={
        "the most negative curvature: the next one": dict(second=True),
        "a start off the stable manifold: on it": dict(stable=True),
    },
    figures=(draw_escape,),
)
def saddle_escape_time_flow(saddle: str, seed: int, second: bool = False, stable: bool = False) -> dict[str, Any]:
    r"""The time in which gradient flow leaves a saddle grows as the logarithm of the distance over the curvature.

    In the setting of the claim above, gradient flow takes $ln(r \/ epsilon) \/ abs(lambda)$ @lee2016gradient. The value is $abs(lambda)$ times
    the slope of the measured time against $ln(1 \/ epsilon)$, for three distances from $10^(-5)$ to $10^(-9)$. Controls: the second most negative
    curvature in place of $lambda$; starts without a part in the eigenspace, observed until 1.3 times the predicted time.
    """
    place = Saddle(saddle, seed)
    times = []
    for distance in DISTANCES:
        start = place.start(distance, stable)
        begun = float(place.inside(place.start(distance, False)))
        grid = np.linspace(0, 1.3 * escape_time(place.curvature, begun, RADIUS), 40)
        path = integrate(place.loss, start, grid.tolist(), tol=1e-3).parameters
        logs = place.inside(path).clamp(min=1e-300).log().cpu().numpy()
        times.append(first_passage(grid, logs, math.log(RADIUS)))
    rate = -(place.next_curvature() if second else place.curvature)
    slope = float(np.polyfit(np.log(1 / DISTANCES), times, 1)[0])
    return {"value": rate * slope, "times": -place.curvature * np.array(times)}


if __name__ == "__main__":
    script(__file__)
