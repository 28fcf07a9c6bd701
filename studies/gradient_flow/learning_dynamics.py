r"""How learning proceeds: at known rates, around in circles, and from saddle to saddle.

On a quadratic, momentum turns the condition number into its square root @polyak1964methods. In a game between two players, plain
gradient steps run away from the equilibrium @gidel2019negative. From small weights, networks with two layers learn one thing
after another, and pause at a saddle in between, the longer the smaller the weights were @jacot2021saddle @pesme2023saddle: how long
a saddle holds gradient descent depends on the logarithm of how near it the start was @lee2016gradient @du2017gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.gradient_flow import escape_time, integrate
from lemmata.architectures import MLP, DeepLinear
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import Objective, descent, flat_parameters, load_parameters, objective, squared_error

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


# From saddle to saddle

FEATURES, EXAMPLES = 5, 40


@dataclass(frozen=True)
class Jump:
    """When the limit of small weights jumps, over ln(1/α), which weight becomes active, and the saddle it jumps to."""

    time: float
    feature: int
    saddle: np.ndarray


def jumps_of(covariance: np.ndarray, moment: np.ndarray) -> list[Jump]:
    """All jumps for the loss βᵀCβ/2 − mᵀβ, by the recursion of Pesme and Flammarion."""
    charges, beta, time, found = np.zeros(len(moment)), np.zeros(len(moment)), 0.0, list[Jump]()
    factor = np.linalg.cholesky(covariance).T
    target = np.linalg.solve(factor.T, moment)
    for _ in range(4 * len(moment)):
        push = moment - covariance @ beta  # minus the gradient
        moving = np.abs(push) > 1e-10
        if not moving.any():
            return found
        waits = np.full(len(moment), np.inf)
        waits[moving] = (np.sign(push[moving]) - charges[moving]) / push[moving]
        waits[waits < 1e-10] = np.inf
        feature = int(np.argmin(waits))
        time += waits[feature]
        charges = charges + waits[feature] * np.where(moving, push, 0.0)
        signs = np.where(np.abs(charges) > 1 - 1e-9, np.sign(charges), 0.0)
        active = signs != 0
        beta = np.zeros(len(moment))
        beta[active] = signs[active] * nnls(factor[:, active] * signs[active], target)[0]
        found.append(Jump(time, feature, beta))
    return found


class Diagonal:
    r"""β = (u^D − v^D)/D on data with correlated features, flow of half the mean squared error from u = v = α."""

    def __init__(self, seed: int) -> None:
        draws = torch.Generator().manual_seed(seed)
        inputs = gaussian(draws, EXAMPLES, FEATURES) + 0.5 * gaussian(draws, EXAMPLES, 1)
        target = inputs @ gaussian(draws, FEATURES)
        self.C, self.m = inputs.T @ inputs / EXAMPLES, inputs.T @ target / EXAMPLES
        self.offset = 0.5 * target.square().mean()

    def effective(self, w: Tensor, depth: int) -> Tensor:
        """β of parameters (…, 2 d)."""
        u, v = w.chunk(2, -1)
        return (u**depth - v**depth) / depth

    def losses(self, beta: Tensor) -> Tensor:
        """Half the mean squared error of β (…, d)."""
        return self.offset + (beta * (0.5 * beta @ self.C - self.m)).sum(-1)

    def objective(self, depth: int) -> Objective:
        """Loss and gradient at parameters (2 d,)."""

        sign = torch.ones(2 * FEATURES)
        sign[FEATURES:] = -1

        def value_and_gradient(w: Tensor) -> tuple[Tensor, Tensor]:
            beta = self.effective(w, depth)
            return self.losses(beta), sign * w ** (depth - 1) * (self.C @ beta - self.m).repeat(2)

        return value_and_gradient

    def path(self, alpha: float, depth: int, times: np.ndarray) -> Tensor:
        """β at some times, (n, d)."""
        start = torch.full((2 * FEATURES,), alpha)
        found = integrate(self.objective(depth), start, times.tolist(), tol=1e-3, method="LSODA")
        return self.effective(found.parameters, depth)

    def passages(self, size: float, depth: int, jumps: Sequence[Jump]) -> list[float]:
        """When the features of some jumps have half of their weight, from α = e^(−size); half again the last time if never."""
        times = np.linspace(0, 1.5 * jumps[-1].time * size, 500)
        beta = self.path(math.exp(-size), depth, times).abs().cpu().numpy()
        return [first_passage(times, beta[:, j.feature], 0.5 * abs(float(j.saddle[j.feature]))) for j in jumps]


def first_passage(times: np.ndarray, values: np.ndarray, level: float) -> float:
    """When values first reach a level, linear between two times; the last time if they do not."""
    after = int(np.argmax(values >= level))
    if values[after] < level:
        return float(times[-1])
    around = slice(after - 1, after + 1)
    return float(np.interp(level, values[around], times[around])) if after else 0.0


def draw_staircase(ax: Any, rows: Rows) -> Columns:
    """The smaller the weights at the start, the more the loss is a staircase.

    Loss against time over the logarithm of the inverse initial size. Lines for three sizes, each nearer to a staircase
    than the one before; dashed, the staircase of the limit.
    """
    row = next(row for row in rows if not row.arm and row.k == 0)
    values = row.values
    columns: dict[str, Any] = {"time ÷ ln(1/α)": values["times"]}
    for exponent, losses in zip(values["exponents"], values["losses"], strict=True):
        label = f"α = 1e-{exponent:g}"
        columns[label] = losses
        ax.plot(values["times"], losses, label=label)
    columns["limit"] = values["limit"]
    ax.plot(values["times"], values["limit"], "--", color="0.3", drawstyle="steps-post", label="limit")
    ax.set(xlabel="time ÷ ln(1/α)", ylabel="loss")
    ax.legend()
    return columns


SHOWN = (1, 4, 16)  # exponents of the sizes in the figure
FAR = np.array([6.0, 12.0, 18.0, 24.0])  # exponents of the sizes between which times are compared
JUMPS = 3


@claim(
    source="pesme2023saddle",
    predicts=Equals(1, within=0.05, of="each"),
    quick=Grid(seeds=3),
    full=Grid(seeds=20),
    controls={
        "weights that vanish: of the order of one": dict(shrunk=0.02),
        "two layers: one": dict(depth=1),
        "two layers: three": dict(depth=3),
    },
    figures=(draw_staircase,),
)
def saddle_to_saddle(seed: int, depth: int = 2, shrunk: float = 1.0) -> dict[str, Any]:
    r"""From small weights, a diagonal linear network jumps from saddle to saddle at times that can be computed.

    Let $f(x) = beta dot x$ with $beta = (u^2 - v^2) \/ 2$ entry by entry, under gradient flow from $u = v = alpha$. As
    $alpha -> 0$, the path in time over $ln(1\/alpha)$ becomes piecewise constant: it jumps between saddles of the loss, each the best
    $beta$ on a set of features and of given signs, at the times at which the integral of a slope,
    $integral partial_i L$, reaches $plus.minus 1$ @pesme2023saddle. A jump is when the new feature has half of its weight at the next saddle. The value is
    the slope of its time against $ln(1\/alpha)$, for $alpha$ from $10^(-6)$ to $10^(-24)$, over the time that the recursion of the theorem gives:
    of the first three jumps, that with the ratio farthest from 1.

    Controls: $alpha$ from 0.76 to 0.33; one layer, which learns all features at once; three, which wait for a time of order $1\/alpha$, so that
    none has moved when the observation ends.
    """
    problem = Diagonal(seed)
    found = jumps_of(problem.C.cpu().numpy(), problem.m.cpu().numpy())
    logs = FAR * shrunk * math.log(10)
    passages = np.array([problem.passages(size, depth, found[:JUMPS]) for size in logs])
    ratios = np.polyfit(logs, passages, 1)[0] / [one.time for one in found[:JUMPS]]
    value = float(ratios[np.abs(ratios - 1).argmax()])
    if depth != 2 or shrunk != 1:
        return {"value": value}
    scaled = np.linspace(0, 1.3 * found[JUMPS - 1].time, 300)
    paths = [problem.path(10.0**-e, 2, scaled * e * math.log(10)) for e in SHOWN]
    stairs = np.searchsorted([one.time for one in found], scaled, side="right")
    saddles = torch.tensor(np.stack([np.zeros(FEATURES), *(one.saddle for one in found)])).to(problem.C)
    limit = problem.losses(saddles).cpu().numpy()[stairs]
    losses = np.stack([problem.losses(path).cpu().numpy() for path in paths])
    return {"value": value, "times": scaled, "exponents": np.array(SHOWN), "losses": losses, "limit": limit}


STRENGTHS = (3.0, 2.0, 1.0)
SIZES = (5, 4, 3)
SMALL = np.array([1e-3, 1e-4, 1e-5, 1e-6])


@claim(
    source=("jacot2021saddle", "saxe2014exact"),
    predicts=Equals(1, within=0.05, of="each"),
    quick=Grid(seeds=3),
    full=Grid(seeds=20),
    controls={"two layers: one": dict(layers=1), "two layers: three": dict(layers=3)},
)
def saddle_to_saddle_modes(seed: int, layers: int = 2) -> float:
    r"""From small random weights, each mode of a deep linear network waits for the logarithm of their size.

    Let $W_1, W_2$ be Gaussian times $alpha$, inputs white, and the target a linear map of singular values $s_1 > s_2 > s_3$.
    Under gradient flow the network stays near saddles of rank 0, 1, 2 and learns one mode after the other
    @saxe2014exact @jacot2021saddle: near a saddle the mode grows as $alpha e^(s_k t)$, so that the time to half of its strength is
    $ln(1\/alpha) \/ s_k + O(1)$. The value is $s_k$ times the slope of that time against $ln(1\/alpha)$, from $10^(-3)$ to $10^(-6)$: of
    three modes, that farthest from 1. The weights are neither balanced nor aligned.

    Controls: one layer, which does not wait; three, which wait for a time of order $1\/alpha$: none has moved when the observation ends.
    """
    draws = torch.Generator().manual_seed(seed)
    n, hidden, m = SIZES
    left, right = (torch.linalg.qr(gaussian(draws, size, size))[0][:, :3] for size in (m, n))
    strengths = torch.tensor(STRENGTHS)
    inputs = math.sqrt(n) * torch.eye(n)  # the covariance is I
    widths = [n, *[hidden] * (layers - 1), m]
    network = DeepLinear(widths, generator=draws)
    drawn = gaussian(draws, sum(a * b for a, b in zip(widths[1:], widths[:-1], strict=True)))
    loss = objective(network, squared_error, inputs, inputs @ (left * strengths @ right.T).T)
    passages = []
    for alpha in SMALL:
        times = np.linspace(0, 1.5 * math.log(1 / alpha) / min(STRENGTHS), 80)
        path = integrate(loss, alpha * drawn, times.tolist(), tol=1e-3).parameters
        products = torch.stack([load_parameters(network, row).product().detach() for row in path])  # type: ignore[operator]
        modes = torch.einsum("ak,tab,bk->tk", left, products, right).cpu().numpy()
        passages.append([first_passage(times, mode, s / 2) for mode, s in zip(modes.T, STRENGTHS, strict=True)])
    ratios = np.array(STRENGTHS) * np.polyfit(np.log(1 / SMALL), np.array(passages), 1)[0]
    return float(ratios[np.abs(ratios - 1).argmax()])


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
def saddle_escape_time(
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
        grid = np.linspace(0, 1.3 * escape_time(place.curvature, begun, RADIUS), 60)
        path = integrate(place.loss, start, grid.tolist(), tol=1e-4).parameters
        logs = place.inside(path).clamp(min=1e-300).log().cpu().numpy()
        times.append(first_passage(grid, logs, math.log(RADIUS)))
    rate = -(place.next_curvature() if second else place.curvature)
    slope = float(np.polyfit(np.log(1 / DISTANCES), times, 1)[0])
    return {"value": rate * slope, "times": -place.curvature * np.array(times)}


if __name__ == "__main__":
    script(__file__)
