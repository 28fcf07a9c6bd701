r"""Exact laws of random networks at finite width.

In a network without biases the squared norm of the signal is multiplied, layer by layer, by independent random factors whose
law is known exactly. For independent Gaussian weights of variance $sigma_w^2 \/ n$ the factor is $sigma_w^2 chi_n^2 \/ n$ in a
linear network; in a ReLU network only the $K$ units whose sign is right count, a binomial number, and it is
$sigma_w^2 chi_K^2 \/ n$ @hanin2018which. Averages stay where He's initialisation @he2015delving puts them, at every width, while
the logarithm, which is what one network shows, walks away from them by a random walk whose length is the sum of the
inverse widths @hanin2020products. Nothing here needs a width to be large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.special import digamma, polygamma
from scipy.stats import binom
from torch import Tensor, nn

from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Activation = Callable[[Tensor], Tensor]
UNITS: dict[str, Activation] = {"linear": lambda z: z, "relu": torch.relu, "tanh": torch.tanh}
GAIN = {"linear": 1.0, "relu": 2.0, "tanh": 1.0}


def layer(nets: int, outputs: int, inputs: int, gain: float, draws: torch.Generator) -> Tensor:
    """Independent Gaussian matrices (nets, outputs, inputs) of variance gain / inputs."""
    return gaussian(draws, nets, outputs, inputs) * (gain / inputs) ** 0.5


def signals(widths: Sequence[int], units: str, gain: float, nets: int, draws: torch.Generator) -> list[Tensor]:
    """The signals x_0, …, x_L of independent networks, (nets, width) each; x_0 is a unit vector."""
    x = [torch.zeros(nets, widths[0]).index_fill(1, torch.tensor([0]), 1.0)]
    for inputs, outputs in pairwise(widths):
        weights = layer(nets, outputs, inputs, gain, draws)
        x.append(UNITS[units](torch.einsum("moi,mi->mo", weights, x[-1])))
    return x


def draw_factors(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """The mean factor per layer on the squared signal is half the gain, at every width.

    Mean factor against width, one line of dots for each gain; each line is level, at the dashed line of half its gain.
    """
    chosen = [row for row in rows if not row.arm]
    columns: dict[str, Sequence[Any]] = {"width": sorted({row.point["width"] for row in chosen})}
    for place, gain in enumerate(sorted({row.point["gain"] for row in chosen})):
        means = [
            gain / 2 * np.mean([r.values["value"] for r in chosen if (r.point["gain"], r.point["width"]) == (gain, w)])
            for w in columns["width"]
        ]
        columns[f"gain {gain}"] = means
        ax.loglog(columns["width"], means, "o", color=f"C{place}", label=f"variance {gain}/n")
        ax.axhline(gain / 2, color=f"C{place}", linestyle="--", linewidth=1)
    ax.set(xlabel="width n", ylabel="factor per layer")
    ax.legend()
    return columns


@claim(
    source=("he2015delving", "glorot2010understanding"),
    predicts=Equals(1, within=0.03),
    quick=Grid(gain=[1.0, 2.0, 4.0], width=[4, 64], depth=[6], units=[24000], seeds=12),
    full=Grid(gain=[1.0, 2.0, 4.0], width=[4, 16, 64, 256], depth=[20], units=[64000], seeds=20),
    controls={
        "rectifiers: tanh": dict(activation="tanh"),
        "weights of mean zero: a mean of one standard deviation": dict(shift=1.0),
    },
    figures=(draw_factors,),
)
def he_variance_preservation(
    gain: float, width: int, depth: int, units: int, seed: int, activation: str = "relu", shift: float = 0.0
) -> float:
    r"""Weights of variance 2/n keep the mean squared signal of a ReLU network, at any width.

    Let $x_(l+1) = (W x_l)_+$ with independent symmetric weights of variance $c\/n$. As $w$ and $-w$ are alike in law,
    $EE norm(x_(l+1))^2 = c/2 norm(x_l)^2$ for every $x_l$, whatever the width @he2015delving. With the $c = 1$ of Glorot and
    Bengio @glorot2010understanding the signal halves in each layer. The value is the mean factor over layers and networks,
    as long as their signal is not zero, divided by $c\/2$. There are as many networks as give the same number of units in a
    layer of all of them together.

    Controls: tanh, for which the factor depends on the signal's size; weights with a mean, whose law is not symmetric.
    """
    draws = torch.Generator().manual_seed(seed)
    nets, factors = units // width, []
    x = torch.ones(nets, width) / width**0.5
    for _ in range(depth):
        weights = layer(nets, width, width, gain, draws) + shift * (gain / width) ** 0.5
        following = UNITS[activation](torch.einsum("moi,mi->mo", weights, x))
        before, after = x.square().sum(1), following.square().sum(1)
        factors.append(after[before > 0] / before[before > 0])
        x = following
    return float(torch.cat(factors).mean()) / (gain / 2)


@claim(
    source="he2015delving",
    predicts=Equals(1 / 6, within=0.006),
    quick=Grid(width=[64, 256], depth=[8], nets=[60], seeds=12),
    full=Grid(width=[64, 256, 1024], depth=[20], nets=[40], seeds=12),
    controls={
        "the default of nn.Linear: He's initialisation": dict(default=False),
        "no biases: the default ones": dict(bias=True),
    },
)
def default_linear_one_sixth(
    width: int, depth: int, nets: int, seed: int, default: bool = True, bias: bool = False
) -> float:
    r"""The default initialisation of PyTorch's linear layers shrinks ReLU signals to a sixth in each layer.

    `nn.Linear` draws its weights uniformly between $plus.minus 1\/sqrt(n)$, of variance $1\/(3 n)$. By the theorem above, with
    $c = 1\/3$, the mean squared signal of a ReLU network without biases falls by a factor of $6$ in each layer: by
    sixty million in ten. The value is the mean factor. He's initialisation @he2015delving, the first control, keeps it at
    one. In the second the default biases stay: soon they are all that is left of the signal, and it falls no further.
    """
    factors = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(nets):
            x = torch.randn(1, width)
            for _ in range(depth):
                linear = nn.Linear(width, width, bias=bias)
                if not default:
                    nn.init.kaiming_normal_(linear.weight)
                following = linear(x).relu().detach()
                factors.append(float(following.square().sum() / x.square().sum()))
                x = following
    return float(np.mean(factors))


def log_moments(width: int, units: str) -> tuple[float, float]:
    r"""Mean and variance of the logarithm of a layer's factor: $gain chi_K^2\/n$, K = n or binomial and not 0."""
    counts = np.arange(1, width + 1)
    chances = np.zeros(width)
    chances[-1] = 1.0
    if units == "relu":
        chances = binom.pmf(counts, width, 0.5)
        chances /= chances.sum()
    means = digamma(counts / 2) + np.log(2 * GAIN[units] / width)
    mean = float(chances @ means)
    return mean, float(chances @ (polygamma(1, counts / 2) + (means - mean) ** 2))


def log_norms(widths: Sequence[int], units: str, orthogonal: bool, nets: int, draws: torch.Generator) -> Tensor:
    """log ‖x_L‖² of independent networks, (nets,); those whose signal died are left out."""
    if orthogonal:
        x = torch.zeros(nets, widths[0]).index_fill(1, torch.tensor([0]), 1.0)
        for _ in widths[1:]:  # a uniformly random orthogonal matrix turns any vector into a uniformly random direction
            turned = gaussian(draws, nets, widths[0])
            turned *= x.norm(dim=1, keepdim=True) / turned.norm(dim=1, keepdim=True)
            x = UNITS[units](turned) * GAIN[units] ** 0.5
    else:
        x = signals(widths, units, GAIN[units], nets, draws)[-1]
    squared = x.square().sum(1)
    return squared[squared > 0].log()


def draw_walk(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """Logarithms of the squared signal of single networks: their mean lies below zero, their spread is wide.

    Two histograms over the logarithm of the squared norm of the last layer, for linear and for ReLU networks of one width
    and depth. A vertical line at zero marks the logarithm of the mean; most of both histograms lies left of it.
    """
    edges = np.linspace(-10, 6, 65)
    columns: dict[str, Any] = {"log of the squared signal": (edges[1:] + edges[:-1]) / 2}
    for place, units in enumerate(["linear", "relu"]):
        chosen = [r for r in rows if not r.arm and r.point["units"] == units and r.point["depth"] >= 8]
        pooled = np.concatenate([r.values["logs"] for r in chosen])
        columns[units] = np.histogram(pooled, edges, density=True)[0]
        ax.stairs(columns[units], edges, color=f"C{place}", label=units, fill=True, alpha=0.4)
    ax.axvline(0, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="log of the squared signal of one network", ylabel="density")
    ax.legend()
    return columns


LAYERS: dict[str, dict[str, Any]] = {
    "independent Gaussian weights: orthogonal": dict(orthogonal=True),
    "layers of one width: one of a quarter": dict(narrow=4),
}


@claim(
    source=("hanin2018which", "hanin2020products"),
    predicts=Equals(0, within="0.25*depth/width"),
    quick=Grid(units=["linear", "relu"], width=[8, 16], depth=[8], nets=[4000], seeds=12),
    full=Grid(units=["linear", "relu"], width=[16, 32, 64], depth=[8, 20], nets=[2000], seeds=20),
    controls=LAYERS,
    figures=(draw_walk,),
)
def relu_norm_law(
    units: str, width: int, depth: int, nets: int, seed: int, orthogonal: bool = False, narrow: int = 1
) -> dict[str, Any]:
    r"""One network's signal shrinks, though the mean over networks does not.

    With weights that keep $EE norm(x_L)^2 = 1$, the factors of the layers are independent, $chi_n^2\/n$ in linear and
    $2 chi_K^2\/n$ in ReLU networks, $K$ binomial. So
    $EE ln norm(x_L)^2 = L (EE psi(K\/2) + ln (2 c\/n))$ with $psi$ the digamma function: about $-L\/n$ for linear and
    $-5 L\/(2 n)$ for ReLU networks. The value is the mean over networks minus this. The deviations that the theorem
    speaks of are of the order $L\/n$, of which the band is a quarter.

    Controls: orthogonal layers, which in a linear network change no norm at all; and one hidden layer of a quarter of the
    width, which adds more to the sum than three others.
    """
    draws = torch.Generator().manual_seed(seed)
    widths = [width] * (depth + 1)
    widths[depth // 2] //= narrow
    logs = log_norms(widths, units, orthogonal, nets, draws)
    return {"value": float(logs.mean()) - depth * log_moments(width, units)[0], "logs": logs[:500]}


@claim(
    source=("hanin2018which", "hanin2020products"),
    predicts=Equals(1, within=0.1),
    quick=Grid(units=["linear", "relu"], width=[8, 16], depth=[8], nets=[4000], seeds=12),
    full=Grid(units=["linear", "relu"], width=[16, 32, 64], depth=[8, 20], nets=[2000], seeds=20),
    controls=LAYERS,
)
def relu_norm_law_variance(
    units: str, width: int, depth: int, nets: int, seed: int, orthogonal: bool = False, narrow: int = 1
) -> float:
    r"""The spread of the logarithm of the signal grows with the sum of the inverse widths.

    As the factors are independent, $"Var" ln norm(x_L)^2 = L "Var" ln chi_K^2$, which is $L psi'(n\/2) approx 2 L\/n$ in linear
    networks, and in ReLU networks about $5 L\/n$ from both the number $K$ of active units and their $chi^2$
    @hanin2020products. The value is the variance over networks divided by the exact sum over $K$. Controls as above.
    """
    draws = torch.Generator().manual_seed(seed)
    widths = [width] * (depth + 1)
    widths[depth // 2] //= narrow
    logs = log_norms(widths, units, orthogonal, nets, draws)
    return float(logs.var()) / (depth * log_moments(width, units)[1])


def draw_kurtosis(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """The output of a ReLU network of finite width is not normal, by as much as predicted.

    Excess kurtosis against depth, both for two widths: dots with the standard error over seeds on the curves of the
    formula. It grows with depth and is twice as large, and more, for half the width.
    """
    chosen = [row for row in rows if not row.arm]
    columns: dict[str, Any] = {"depth": sorted({row.point["depth"] for row in chosen})}
    for place, width in enumerate(sorted({row.point["width"] for row in chosen})):
        found = {
            d: [r.values["kurtosis"] for r in chosen if (r.point["depth"], r.point["width"]) == (d, width)]
            for d in columns["depth"]
        }
        columns[f"n = {width}"] = [np.mean(values) for values in found.values()]
        errors = [np.std(values, ddof=1) / len(values) ** 0.5 for values in found.values()]
        ax.errorbar(columns["depth"], columns[f"n = {width}"], errors, fmt="o", color=f"C{place}", label=f"n = {width}")
        depth = np.linspace(0, max(columns["depth"]), 50)
        ax.plot(depth, 3 * ((1 + 5 / width) ** depth - 1), color=f"C{place}", linewidth=1)
    ax.set(xlabel="hidden layers", ylabel="excess kurtosis of the output")
    ax.legend()
    return columns


@claim(
    source=("neal1996priors", "hanin2020products"),
    predicts=Equals(1, within=0.15),
    quick=Grid(width=[20, 40], depth=[1, 3], nets=[6000], seeds=8),
    full=Grid(width=[20, 40, 80], depth=[1, 2, 3], nets=[50000], seeds=20),
    controls={"rectifiers: linear units": dict(units="linear"), "independent layers: one for all": dict(tied=True)},
    figures=(draw_kurtosis,),
)
def nngp_kurtosis(
    width: int, depth: int, nets: int, seed: int, units: str = "relu", tied: bool = False
) -> dict[str, float]:
    r"""The output of a random network approaches a Gaussian like one over its width.

    For independent Gaussian weights the output is normal given the last hidden layer, of a variance proportional to its
    squared norm. With He's initialisation $EE norm(x_L)^4 = (1 + 5\/n)^L$, so that over networks the output has an
    excess kurtosis of exactly $ 3 ((1 + 5/n)^L - 1), $ which vanishes like $15 L\/n$: the limit is a Gaussian process
    @neal1996priors. The value is the kurtosis divided by this, with the average over the weights of the read-out taken in
    closed form. Controls: linear units, whose fourth moment is $(1 + 2\/n)^L$; and one matrix for all layers, which are then
    not independent (with a single layer this control is the claim itself).
    """
    draws = torch.Generator().manual_seed(seed)
    x = torch.zeros(nets, width).index_fill(1, torch.tensor([0]), 1.0)
    weights = layer(nets, width, width, GAIN[units], draws)
    for place in range(depth):
        if place and not tied:
            weights = layer(nets, width, width, GAIN[units], draws)
        x = UNITS[units](torch.einsum("moi,mi->mo", weights, x))
    squared = x.square().sum(1)
    kurtosis = 3 * float(squared.square().mean() / squared.mean() ** 2 - 1)
    return {"value": kurtosis / (3 * ((1 + 5 / width) ** depth - 1)), "kurtosis": kurtosis}


if __name__ == "__main__":
    script(__file__)
