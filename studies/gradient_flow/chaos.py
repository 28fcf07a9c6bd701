r"""Typical growth: Lyapunov exponents of random products and of recurrent networks.

The gradient through many steps typically grows or vanishes like $e^(lambda T)$, where $lambda$ is the largest Lyapunov exponent
of the product of Jacobians @benettin1980lyapunov. For products of independent Gaussian matrices all exponents are known in
closed form at every width @newman1986distribution; for random recurrent networks the sign of the largest one tells
order from chaos @sompolinsky1988chaos. Between the two, where a single unit loses the stability of its rest, gradients
follow power laws @doya1992bifurcations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import tanh
from typing import Any

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor

from lemmata.analysis.gradient_flow import TangentMap, lyapunov_exponents, tangent_maps
from lemmata.architectures import RNN
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow.recurrence import rnn_step

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def spectrum(products: Iterable[TangentMap], n: int, steps: int, k: int, warmup: int = 100) -> Tensor:
    """The k largest exponents from all of the steps, where the trial computes."""
    return lyapunov_exponents(products, n, steps, k, warmup, tol=0.0, device=torch.get_default_device()).values


# Products of random matrices


def newman(width: int) -> np.ndarray:
    """The Lyapunov exponents of products of Gaussian matrices of variance 1/n, the largest first."""
    return 0.5 * (np.log(2 / width) + digamma((width - np.arange(width)) / 2))


def layers(law: str, width: int, draws: torch.Generator) -> Iterator[Tensor]:
    """Independent random matrices whose entries have variance 1/n."""
    while True:
        matrix = gaussian(draws, width, width)
        if law == "orthogonal":
            yield torch.linalg.qr(matrix)[0]
        elif law == "log-normal":  # sizes e^(z − 1) have mean square 1, and typically are e times smaller
            yield matrix.sign() * (gaussian(draws, width, width) - 1).exp() / width**0.5
        else:
            yield matrix / width**0.5


def draw_spectrum(ax: Any, rows: Rows) -> Columns:
    """All directions of a random deep linear network shrink, each at its own rate; those of an orthogonal one keep.

    Lyapunov exponent against its index for one width. Dots, measured, lie on a falling curve below zero, slowly at
    first and steeply at the end; the orthogonal network's lie on zero.
    """
    width = max(row.point["width"] for row in rows)
    chosen = [r for r in rows if r.point["width"] == width and r.point["index"] == width and not r.error]
    index, truth = np.arange(1, width + 1), newman(width)
    columns: dict[str, Any] = {"index": index, "Newman": truth}
    for arm, label in (("", "Gaussian"), ("Gaussian entries: orthogonal matrices", "orthogonal")):
        columns[label] = np.mean([r.values["spectrum"] for r in chosen if r.arm == arm], 0)
        ax.plot(index, columns[label], "o", markersize=4, label=label)
    ax.plot(index, truth, color="0.3", linewidth=1, label="closed form")
    ax.set(xlabel="index k", ylabel="Lyapunov exponent (nats a layer)", title=f"{width} units")
    ax.legend()
    return columns


@claim(
    source="newman1986distribution",
    predicts=Equals(0, within="0.02*index"),
    quick=Grid(width=[10], index=[1, 10], steps=[2000], seeds=12),
    full=Grid(width=[10, 30], index=[1, 5, 10], steps=[20000], seeds=20),
    controls={
        "Gaussian entries: orthogonal matrices": dict(law="orthogonal"),
        "Gaussian entries: log-normal ones of the same variance": dict(law="log-normal"),
    },
    figures=(draw_spectrum,),
)
def lyapunov_gaussian_product(width: int, index: int, steps: int, seed: int, law: str = "gaussian") -> dict[str, Any]:
    r"""In a random deep linear network every direction shrinks, at a rate known at every width.

    For independent matrices with independent entries of law $cal(N)(0, 1\/n)$ the Lyapunov exponents of the product are
    $ lambda_k = 1/2 (ln 2/n + psi((n - k + 1) / 2)), quad k = 1, dots, n, $
    with $psi$ the digamma function @newman1986distribution. All are negative, though the mean square of the signal is kept: of
    $1\/n$ times a $chi^2$ the mean is one and the mean logarithm is not. The value is the $k$-th exponent by repeated QR
    factorisation, minus the formula. Controls: orthogonal matrices, whose exponents are zero; and entries with heavy tails,
    of which few large ones make up the variance.
    """
    draws = torch.Generator().manual_seed(seed)
    found = spectrum(layers(law, width, draws), width, steps, index)
    return {"value": float(found[-1] - newman(width)[index - 1]), "spectrum": found}


# Recurrent networks


def at_rest(width: int, gain: float, symmetric: bool, seed: int) -> tuple[RNN, Tensor, Tensor]:
    """A tanh network of the lab without bias, its input, zero, and a random state."""
    draws = torch.Generator().manual_seed(seed)
    net = RNN(1, width, generator=draws).requires_grad_(False)
    U = gaussian(draws, width, width)
    # A symmetric matrix of these entries has twice the spectral radius of one without symmetry.
    net.U.copy_((U + U.T) / 8**0.5 if symmetric else U).mul_(gain / width**0.5)
    net.b.zero_()
    return net, torch.zeros(1), gaussian(draws, width)


def largest_exponent(width: int, gain: float, steps: int, symmetric: bool, seed: int) -> tuple[float, float]:
    """The largest Lyapunov exponent of the network, and the logarithm of the spectral radius of its weights."""
    net, zero, start = at_rest(width, gain, symmetric, seed)
    maps = tangent_maps(lambda h: rnn_step(net, zero, h), start)
    found = spectrum(maps, width, steps, 1, warmup=200)[0]
    return float(found), float(torch.linalg.eigvals(net.U).abs().max().log())


def draw_transition(ax: Any, rows: Rows) -> Columns:
    """The largest Lyapunov exponent of random recurrent networks crosses zero near a gain of one.

    Exponent against gain. Below one the dots lie on the curve of the logarithm of the gain, above it they lie far below
    that curve but are positive; crosses, of symmetric weights, stay at zero or below.
    """
    columns: dict[str, Any] = {"gain": sorted({row.point["gain"] for row in rows})}
    for arm, label, mark in (("", "independent weights", "o"), (SYMMETRIC, "symmetric weights", "x")):
        columns[label] = [
            np.mean([r.values["exponent"] for r in rows if (r.arm, r.point["gain"]) == (arm, gain) and not r.error])
            for gain in columns["gain"]
        ]
        ax.plot(columns["gain"], columns[label], mark, label=label)
    gains = np.linspace(min(columns["gain"]), 1.4, 50)
    ax.plot(gains, np.log(gains), color="0.3", linewidth=1, label="ln g")
    ax.axhline(0, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="gain g", ylabel="largest Lyapunov exponent")
    ax.legend()
    return columns


SYMMETRIC = "independent weights: symmetric ones"


@claim(
    source="sompolinsky1988chaos",
    predicts=AtLeast(0.05, of="each"),
    quick=Grid(gain=[0.5, 0.8, 2.0, 3.0], width=[150], steps=[480], seeds=3),
    full=Grid(gain=[0.5, 0.8, 2.0, 3.0], width=[500], steps=[4000], seeds=10),
    controls={SYMMETRIC: dict(symmetric=True)},
    figures=(draw_transition,),
)
def rnn_chaos_transition(gain: float, width: int, steps: int, seed: int, symmetric: bool = False) -> dict[str, float]:
    r"""A random recurrent network turns chaotic where its gain passes one.

    Let $h_(t+1) = tanh(U h_t)$ with independent Gaussian entries of variance $g^2\/n$. As $n -> infinity$ its largest Lyapunov
    exponent is negative for $g < 1$, where the network comes to rest, and positive for $g > 1$: nearby states part and
    gradients explode @sompolinsky1988chaos. The value is the measured exponent times the sign of $g - 1$. At a few hundred
    units the motion is often periodic for $g$ between $1$ and $1.4$; these gains are left out. In the control $U$
    is symmetric, of the same spectral radius: the network settles to a fixed point or a cycle of two at every gain.
    """
    found, _ = largest_exponent(width, gain, steps, symmetric, seed)
    return {"value": found if gain > 1 else -found, "exponent": found}


@claim(
    source="sompolinsky1988chaos",
    predicts=Equals(0, within=0.003, of="each"),
    quick=Grid(gain=[0.5, 0.9], width=[100], steps=[640], seeds=2),
    full=Grid(gain=[0.5, 0.8, 0.9], width=[100, 500], steps=[4000], seeds=10),
    controls={"a gain below one: three times as much": dict(more=3.0)},
)
def rnn_chaos_transition_order(gain: float, width: int, steps: int, seed: int, more: float = 1.0) -> float:
    r"""At rest the Lyapunov exponent of a recurrent network is the logarithm of its spectral radius.

    For $rho(U) < 1$ the state of $h_(t+1) = tanh(U h_t)$ tends to zero, where the slope of tanh is one: the Jacobian is $U$ itself
    and the largest exponent $ln rho(U)$, for each matrix and not on average. The value is the measured exponent minus $ln rho(U)$.
    The control lets the gain pass one, where units saturate.
    """
    found, radius = largest_exponent(width, gain * more, steps, False, seed)
    return found - radius


@claim(
    source="benettin1980lyapunov",
    predicts=AtMost(1e-11),
    quick=Grid(gain=[0.8, 2.0], width=[5, 20], steps=[320], seeds=3),
    full=Grid(gain=[0.8, 2.0], width=[5, 20, 50], steps=[2000], seeds=10),
    controls={"all exponents: all but the last": dict(left_out=1)},
)
def lyapunov_sum_rule(gain: float, width: int, steps: int, seed: int, left_out: int = 0) -> float:
    r"""The Lyapunov exponents add up to the mean logarithm of the determinant.

    Volumes grow by $abs(det J_t)$ in a step, so that $sum_i lambda_i = lim 1/T sum_t ln abs(det J_t)$ @benettin1980lyapunov; by QR
    factorisation the identity holds for every finite run. The Jacobian of $h_(t+1) = tanh(U h_t)$ has
    $ln abs(det J_t) = ln abs(det U) + sum_i ln (1 - h_(t+1,i)^2)$. The value is the distance of the two sides, the left from forward
    derivatives, the right from the states alone. The control leaves out the smallest exponent.
    """
    net, zero, h = at_rest(width, gain, False, seed)
    maps = tangent_maps(lambda h: rnn_step(net, zero, h), h)
    exponents = spectrum(maps, width, steps, width - left_out, warmup=0)
    volume = float(torch.linalg.slogdet(net.U)[1])
    for _ in range(steps):
        h = rnn_step(net, zero, h)
        volume += float((1 - h.square()).log().sum()) / steps
    return abs(float(exponents.sum()) - volume)


# One unit, where rest loses its stability


def unit(weight: float, bias: float, steps: int, start: float) -> tuple[float, float]:
    """h_T and dh_T/dh_0 of h ↦ tanh(w h + b) by the chain rule, in plain numbers."""
    h, slope = start, 1.0
    for _ in range(steps):
        h = tanh(weight * h + bias)
        slope *= weight * (1 - h * h)
    return h, slope


@claim(
    source="doya1992bifurcations",
    predicts=Scales("excess", power=0.5, within=0.02, of="each"),
    quick=Grid(excess=[0.0005, 0.001, 0.002, 0.005, 0.01], start=[0.3, 1.0], seeds=1),
    full=Grid(excess=[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01], start=[0.3, 0.6, 1.0], seeds=1),
    controls={"no bias: one of a thousandth": dict(bias=0.001)},
)
def pitchfork_rnn(excess: float, start: float, seed: int, bias: float = 0.0) -> float:
    r"""Two new states branch off where the weight of a recurrent unit passes one.

    $h |-> tanh(w h)$ rests at zero for $w <= 1$; for $w = 1 + epsilon$ zero is unstable and states move to
    $plus.minus h^*$ with $h^* approx sqrt(3 epsilon)$: a bit of memory is born with a square root @doya1992bifurcations. The value is the state after
    $30\/epsilon$ steps, when what is left of the start has fallen by a factor of $e^60$. A bias, the control, spoils the fork.
    """
    return unit(1 + excess, bias, round(30 / excess), start)[0]


CRITICAL = Grid(steps=[1000, 3000, 10000, 30000, 100000], start=[0.3, 1.0], seeds=1)
LONGER = Grid(steps=[1000, 3000, 10000, 30000, 100000, 300000, 1000000], start=[0.3, 0.6, 1.0], seeds=1)


@claim(
    source="doya1992bifurcations",
    predicts=Scales("steps", power=-0.5, within=0.02, of="each"),
    quick=CRITICAL,
    full=LONGER,
    controls={"the critical weight: a thousandth more": dict(weight=1.001), "no bias: one of 0.001": dict(bias=0.001)},
)
def pitchfork_rnn_slowing(steps: int, start: float, seed: int, weight: float = 1.0, bias: float = 0.0) -> float:
    r"""At the critical weight a recurrent unit forgets its start as a power of time.

    For $w = 1$ the state obeys $h_(t+1) approx h_t - h_t^3\/3$ and falls like $sqrt(3\/(2 t))$, whatever it was, instead of exponentially.
    The value is the state after the steps. Controls: a weight past the critical one, where it stays at $h^*$; a bias.
    """
    return unit(weight, bias, steps, start)[0]


@claim(
    source="doya1992bifurcations",
    predicts=Scales("steps", power=-1.5, within=0.02, of="each"),
    quick=CRITICAL,
    full=LONGER,
    controls={"the critical weight: a thousandth less": dict(weight=0.999)},
)
def pitchfork_rnn_gradient(steps: int, start: float, seed: int, weight: float = 1.0) -> float:
    r"""At the critical weight the gradient vanishes as a power of time, not exponentially.

    With $h_t approx sqrt(3\/(2 t))$ the slopes are $1 - h_t^2 approx 1 - 3\/(2 t)$, and their product $partial h_T \/ partial h_0$ falls like
    $T^(-3\/2)$. Below the critical weight, the control, it falls like $w^T$. The value is the product; where it is below
    the smallest positive number it is taken to be that.
    """
    return max(unit(weight, 0.0, steps, start)[1], 5e-324)


if __name__ == "__main__":
    script(__file__)
