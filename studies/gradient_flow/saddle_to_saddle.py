r"""From saddle to saddle.

From small weights, networks with two layers learn one thing after another. In between they pause at a saddle of the loss, where what has
been learned is learned and nothing else has begun, the longer the smaller the weights were @saxe2014exact @jacot2021saddle. For
diagonal networks the saddles and the times are known @pesme2023saddle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from lemmata.analysis.gradient_flow import integrate
from lemmata.architectures import DeepLinear
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import Objective, load_parameters, objective, squared_error

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

FEATURES, EXAMPLES = 5, 40


def first_passage(times: np.ndarray, values: np.ndarray, level: float) -> float:
    """When values first reach a level, linear between two times; the last time if they do not."""
    after = int(np.argmax(values >= level))
    if values[after] < level:
        return float(times[-1])
    around = slice(after - 1, after + 1)
    return float(np.interp(level, values[around], times[around])) if after else 0.0


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
        times = np.linspace(0, 1.5 * jumps[-1].time * size, 300)
        beta = self.path(math.exp(-size), depth, times).abs().cpu().numpy()
        return [first_passage(times, beta[:, j.feature], 0.5 * abs(float(j.saddle[j.feature]))) for j in jumps]


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
FAR = np.array([6.0, 12.0, 18.0])  # exponents of the sizes between which times are compared
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
    the slope of its time against $ln(1\/alpha)$, for $alpha$ from $10^(-6)$ to $10^(-18)$, over the time that the recursion of the theorem gives:
    of the first three jumps, that with the ratio farthest from 1.

    Controls: $alpha$ from 0.76 to 0.44; one layer, which learns all features at once; three, which wait for a time of order $1\/alpha$, so that
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
    scaled = np.linspace(0, 1.3 * found[JUMPS - 1].time, 200)
    paths = [problem.path(10.0**-e, 2, scaled * e * math.log(10)) for e in SHOWN]
    stairs = np.searchsorted([one.time for one in found], scaled, side="right")
    saddles = torch.tensor(np.stack([np.zeros(FEATURES), *(one.saddle for one in found)])).to(problem.C)
    limit = problem.losses(saddles).cpu().numpy()[stairs]
    losses = np.stack([problem.losses(path).cpu().numpy() for path in paths])
    return {"value": value, "times": scaled, "exponents": np.array(SHOWN), "losses": losses, "limit": limit}


STRENGTHS = (3.0, 2.0, 1.0)
SIZES = (5, 4, 3)
SMALL = np.array([1e-3, 1e-4, 1e-5])


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
    $ln(1\/alpha) \/ s_k + O(1)$. The value is $s_k$ times the slope of that time against $ln(1\/alpha)$, from $10^(-3)$ to $10^(-5)$: of
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
        times = np.linspace(0, 1.5 * math.log(1 / alpha) / min(STRENGTHS), 60)
        path = integrate(loss, alpha * drawn, times.tolist(), tol=1e-2).parameters
        products = torch.stack([load_parameters(network, row).product().detach() for row in path])  # type: ignore[operator]
        modes = torch.einsum("ak,tab,bk->tk", left, products, right).cpu().numpy()
        passages.append([first_passage(times, mode, s / 2) for mode, s in zip(modes.T, STRENGTHS, strict=True)])
    ratios = np.array(STRENGTHS) * np.polyfit(np.log(1 / SMALL), np.array(passages), 1)[0]
    return float(ratios[np.abs(ratios - 1).argmax()])


if __name__ == "__main__":
    script(__file__)
