r"""Which families keep their gradients.

Deep networks and long sequences pose one question: how much of the gradient arrives. Mean-field theory answers it for
wide networks at initialisation by one number for each family, the factor by which a layer or a step multiplies the squared
gradient @schoenholz2017deep @xiao2018dynamical @chen2018dynamical @can2020gating. Here the networks of the laboratory read real
data, handwritten digits @alpaydin1998digits and English letters @python2023topics, and the factor is measured beside the
prediction: perceptrons, convolutional and residual networks by depth; ordinary and gated recurrent networks and a transformer
by lag. Then they are trained: how deep a perceptron can be depends on the same number, and what a network hands back after it
has learned is another matter than what it handed back before.
"""

from __future__ import annotations

from functools import cache, partial
from math import exp
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.nn.functional import cross_entropy

from lemmata.analysis.gradient_flow import MeanField
from lemmata.architectures import MLP, Law
from lemmata.studies.claim import Equals, Grid, Scales, Table, claim, script
from lemmata.studies.gradient_flow.depth_and_lag import (
    BIAS,
    CRITICAL,
    DEEP,
    LONG,
    SETTLED,
    Reader,
    by_lag,
    by_layer,
    deep,
    halves,
    numerals,
    rate,
    theory_by_lag,
    theory_by_layer,
    windows,
)
from lemmata.studies.gradient_flow.kept_figures import (
    draw_depth,
    draw_depth_rates,
    draw_lag,
    draw_lag_rates,
    draw_reach,
    draw_trained,
)
from lemmata.studies.training import batches, train

LAGS = np.arange(3, 31)  # where rates by lag are fitted: past the read-out, and far from the first character
DEPTHS = (3, 4, 6, 8, 11, 15, 20, 27)  # layers to train


def tables() -> tuple[Table, ...]:
    """What theory predicts for each family."""
    rows: list[tuple[str | float | None, ...]] = []
    for family, made in DEEP.items():
        places, curve = theory_by_layer(family, 24, 200)
        found = rate(places, curve)
        rows.append(
            (family, "digits, by layer", exp(found), halves(found), f"σ_w² = {made.weights:.3g}, σ_b² = {made.bias:g}")
        )
    for family, own in LONG.items():
        found = rate(LAGS, theory_by_lag(family)[LAGS])
        of = (
            f"σ_w = {own.gain:g}" if own.gain else f"f = {own.keep:.3f}, r = {own.mix:.3f}" if own.keep else "attention"
        )
        rows.append((family, "text, by step", exp(found), halves(found), of))
    note = (
        "The factor by which a layer or a step multiplies the squared gradient of a wide network at initialisation, and in how "
        "many it halves (∞: never). Left out by the theory: fluctuations from network to network, of the order of depth over "
        "width in the logarithm; the first layers, until variances settle; zeros around the maps of a ResNet; and all that "
        "training does. Measured factors with their intervals are the data of the figures."
    )
    return (Table("What theory predicts", note, ("family", "data", "factor", "halves in", "from"), tuple(rows)),)


@claim(
    source=("schoenholz2017deep", "xiao2018dynamical", "veit2016residual"),
    predicts=Equals(0, within=0.1),
    quick=Grid(family=list(DEEP), depth=[24], width=[200], seeds=15),
    full=Grid(family=list(DEEP), depth=[24, 48], width=[400], seeds=30),
    controls={"the ways that a family has: shortcuts added to chains, taken from ResNets": dict(swapped=True)},
    figures=(draw_depth, draw_depth_rates),
)
def keeps_gradients_depth(family: str, depth: int, width: int, seed: int, swapped: bool = False) -> dict[str, Any]:
    r"""On digits, the gradient of every deep family changes from layer to layer at the rate of its mean-field theory.

    In a chain of layers the squared gradient is multiplied by $chi_1 = sigma_w^2 EE phi'(sqrt(q^*) z)^2$ a layer
    @schoenholz2017deep, in a convolutional network on a torus by the same number, summed over positions
    @xiao2018dynamical. In a ResNet it comes back through the branch and past it @veit2016residual. There a wide layer is a
    crowd of independent units, $x' = (x + sqrt(v) z)_+$ with $v = sigma_w^4 EE[x^2]\/2$: what returns to a unit passes its own
    rectifier, and the branch adds $sigma_w^4\/2$ times the mean over all units of what has passed theirs. The value is the
    slope by layer of the logarithm of the mean squared gradient of the cross-entropy of digits, from the fifth layer on,
    minus that of the theory. The theory does not know the data: it takes for granted that variances have settled. The
    control gives every chain a way past each layer and cuts those of the ResNets.
    """
    draws = torch.Generator().manual_seed(seed)
    net, modules = deep(family, depth, width, draws, swapped)
    places, theory = theory_by_layer(family, depth, width)
    curve = by_layer(net, modules, 10, draws)
    kept = places <= depth - SETTLED
    found, predicted = rate(places[kept], curve[kept]), rate(places[kept], theory[kept])
    return {
        "value": found - predicted,
        "rate": found,
        "theory": predicted,
        "places": places,
        "curve": curve - curve[0],
        "theory curve": theory,
    }


# How deep a network can be trained


def learned(depth: int, weights: float, width: int, steps: int, seed: int) -> float:
    """The share of its training digits that a tanh network tells after so many steps of gradient descent, of 5 in all."""
    draws = torch.Generator().manual_seed(seed)
    images, labels = numerals(500)
    inputs = images.flatten(1).float()
    law = Law("mean field", lambda n, m: weights / n, lambda n, m: BIAS)
    net = MLP([64, *[width] * depth, 10], "tanh", law, dtype=torch.float32, generator=draws)
    train([net], cross_entropy, batches((inputs, labels), 50, [draws]), steps, partial(torch.optim.SGD, lr=5 / steps))
    with torch.no_grad():
        return float((net(inputs).argmax(1) == labels).double().mean())


def reach(weights: float, width: int, steps: int, seed: int) -> float:
    """The depth at which half of the digits are learned: bisection of DEPTHS, then a line in the depth's logarithm."""

    @cache
    def share(place: int) -> float:
        return learned(DEPTHS[place], weights, width, steps, seed)

    low, high = 0, len(DEPTHS) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if share(middle) >= 0.5 else (low, middle)
    above, below = share(low) - 0.5, share(high) - 0.5
    part = 1.0 if below >= 0 else 0.0 if above <= 0 else above / (above - below)
    return float(DEPTHS[low] * (DEPTHS[high] / DEPTHS[low]) ** part)


@claim(
    source="schoenholz2017deep",
    predicts=Scales("scale", power=1, within=0.2),
    quick=Grid(scale=[1.0, 1.6, 2.5, 4.0], width=[64], steps=[50], seeds=8),
    full=Grid(scale=[1.0, 1.6, 2.5, 4.0], width=[64, 128], steps=[50, 200], seeds=20),
    controls={"order: critical weights": dict(critical=True)},
    figures=(draw_reach,),
)
def trainable_depth(scale: float, width: int, steps: int, seed: int, critical: bool = False) -> float:
    r"""The depth up to which a network learns digits is proportional to its depth scale.

    In the ordered phase squared gradients and differences of inputs shrink by $e^(-1\/xi)$ a layer, $xi = -1\/ln chi_1$, and a
    fixed time of gradient descent suffices up to a multiple of $xi$, found to be about six @schoenholz2017deep. The multiple
    grows with the time; that it is the same for all $xi$ is the claim. Weights have the variance at which $xi$ is the value
    wanted, biases $0.05$; steps times step size are five. The value is the depth at which half of 500 digits are
    learned. Critical networks, the control, learn at every depth tried, up to 27 layers: there only the width sets a limit.
    """

    def excess(weights: float) -> float:
        return MeanField(torch.tanh, weights, BIAS, kinks=()).depth_scales().correlation - scale

    return reach(CRITICAL if critical else float(brentq(excess, 0.05, CRITICAL - 1e-3)), width, steps, seed)


# By lag


def measured(family: str, width: int, steps: int, length: float, shared: bool, seed: int) -> dict[str, Any]:
    """The curve of a network by lag, after so many steps of Adam on windows of the text, beside the theory."""
    draws = torch.Generator().manual_seed(seed)
    net = Reader(LONG[family].build(width, draws), length)
    losses: Any = np.zeros(0)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        s = windows(8, draws)[None]
        return s[..., :-1], s[..., 1:]

    def price(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output.flatten(0, 1), target.flatten())

    if steps:
        losses = train([net], price, batch, steps, partial(torch.optim.Adam, lr=LONG[family].step))[:, 0]
    curve = by_lag(net.to(torch.get_default_dtype()), 40, draws)
    theory = theory_by_lag(family, shared)
    found, predicted = rate(LAGS, curve[LAGS]), rate(LAGS, theory[LAGS])
    return {
        "value": found - predicted,
        "rate": found,
        "theory": predicted,
        "places": np.arange(len(curve)),
        "curve": curve - curve[LAGS[0]],
        "theory curve": theory - theory[LAGS[0]],
        "losses": losses,
    }


@claim(
    source=("chen2018dynamical", "can2020gating"),
    predicts=Equals(0, within=0.1),
    quick=Grid(family=list(LONG), width=[256], seeds=10),
    full=Grid(family=list(LONG), width=[256, 512], seeds=20),
    controls={
        "the same weights in every step: the theory of independent ones": dict(shared=False),
        "inputs of length one: of length ten": dict(length=10.0),
    },
    figures=(draw_lag, draw_lag_rates),
)
def keeps_gradients_time(
    family: str, width: int, seed: int, shared: bool = True, length: float = 1.0
) -> dict[str, Any]:
    r"""On text, the gradient of every family changes from step to step at the rate of its mean-field theory.

    An ordinary network is multiplied by $chi_1$ a step, with the variance of its input in the place of biases
    @chen2018dynamical. The cell of an LSTM hands itself on by its forget gate $f$, and a further part through input gate,
    candidate, recurrent weights and output gate; the state of a GRU likewise. With torch's weights, of variance $1\/(3 n)$, and short
    inputs the gates hardly move, and the Jacobian of a step is $f I + r G$ with a random $G$ of spectral radius one and
    $r = i o\/sqrt(3)$, for a GRU $(1 - z) r_"reset"\/sqrt(3)$ @can2020gating. As $G$ is the same at all steps and $I$ commutes with it,
    ways through $G$ add up in phase,
    $ EE norm(g_(t-k))^2 prop sum_j binom(k, j)^2 f^(2 (k - j)) r^(2 j) tilde (f + r)^(2 k), $
    and not $(f^2 + r^2)^k$, as if each step had weights of its own: with an open forget gate, $f + r > 1$, gradients grow. In a
    transformer at initialisation attention looks everywhere alike, and the rate is zero. The value is the slope by lag of the
    logarithm of the mean squared gradient of the last character's cross-entropy, over lags 3 to 30, minus that of the
    theory. Controls: the formula of independent weights; inputs so long that they drive the gates.
    """
    return measured(family, width, 0, length, shared, seed)


@claim(
    source=("vaswani2017attention", "pascanu2013difficulty"),
    predicts=Equals(0, within=0.1),
    quick=Grid(steps=[0, 40], width=[128], seeds=6),
    full=Grid(steps=[0, 40, 1000], width=[128, 256], seeds=12),
    controls={
        "attention: an orthogonal RNN": dict(family="RNN, orthogonal"),
        "attention: an LSTM, forget bias 1": dict(family="LSTM, forget bias 1"),
        "attention: a GRU": dict(family="GRU"),
    },
    figures=(draw_trained,),
)
def keeps_gradients_attention(steps: int, width: int, seed: int, family: str = "transformer") -> dict[str, Any]:
    r"""Attention has no time constant: a transformer's gradient does not decay with the lag, before training or after.

    Every position is one step of attention away @vaswani2017attention, while a recurrent network multiplies by a
    Jacobian for every step between @pascanu2013difficulty. The value is the slope by lag of the logarithm of the mean squared
    gradient of the last character's cross-entropy, over lags 3 to 30: it changes by less than a tenth a step.
    Level it is not quite: the first characters count a little more, since more positions look at them. A short training,
    of 40 steps of Adam on English, teaches what stands close by. In recurrent networks, the controls, it changes the rate: an
    RNN and an LSTM come to hand back less than at initialisation, a GRU more, and none comes near the transformer.
    """
    found = measured(family, width, steps, 1.0, True, seed)
    return {**found, "value": found["rate"]}


if __name__ == "__main__":
    script(__file__)
