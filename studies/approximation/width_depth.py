r"""Width against depth on real data.

Theory says what depth can buy: there are functions that a deep network makes of few neurons and a shallow one of
exponentially many @telgarsky2016benefits. It does not say that data ask for such functions, nor that training finds them.
Here perceptrons of equal numbers of parameters, narrow and deep or wide and shallow, learn handwritten digits and MNIST-1D
@alpaydin1998digits @greydanus2024scaling: which of them is right more often, how much of that is owed to the learning rate,
and how many linear regions the trained networks really have along segments between data, counted exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lemmata.analysis import regions_on_line
from lemmata.architectures import MLP
from lemmata.studies.approximation.width_depth_figures import (
    draw_borders,
    draw_digits,
    draw_gains,
    draw_rates,
    draw_signals,
)
from lemmata.studies.claim import AtLeast, AtMost, Grid, claim, script
from lemmata.studies.data import digits, mnist1d
from lemmata.studies.training import batches, train

CLASSES, BATCH, TRAINED = 10, 100, 1297
TEETH = 6  # of a folding layer
#: Comparisons of depth at equal parameters: the data, and the learning rates of which the best is taken for each depth.
COMPARISONS = {
    "digits": ("digits", (0.01,)),
    "MNIST-1D": ("MNIST-1D", (0.01,)),
    "MNIST-1D, best rates": ("MNIST-1D", (0.01, 0.03, 0.1)),
}


def unchanged(x: Tensor) -> Tensor:
    """No activation."""
    return x


ACTIVATIONS: Mapping[str, str | Callable[[Tensor], Tensor]] = {"relu": "relu", "none": unchanged}


def split(data: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs and labels, test inputs and labels, in single precision."""
    if data == "digits":
        x, y, x_test, y_test = (*digits(TRAINED), *digits(TRAINED, held_out=True))
    else:
        x, y, x_test, y_test = mnist1d()
    return x.float(), y, x_test.float(), y_test


def parameters(inputs: int, width: int, depth: int) -> int:
    """Weights and biases of a perceptron with `depth` hidden layers of `width`.

    >>> parameters(40, 392, 1), parameters(40, 118, 2)
    (20002, 20070)
    """
    widths = [inputs, *[width] * depth, CLASSES]
    return sum((n + 1) * m for n, m in pairwise(widths))


def width_of(inputs: int, depth: int, budget: int) -> int:
    """The width with the number of parameters nearest to a budget."""
    return min(range(1, budget), key=lambda width: abs(parameters(inputs, width, depth) - budget))


def draw_networks(inputs: int, width: int, depth: int, nets: int, seed: int, activation: str) -> list[nn.Module]:
    """Networks with He's initialisation, in single precision."""
    draws = torch.Generator().manual_seed(seed)
    widths, how = [inputs, *[width] * depth, CLASSES], ACTIVATIONS[activation]
    return [MLP(widths, how, init="he", dtype=torch.float32, generator=draws) for _ in range(nets)]


def teach(networks: list[nn.Module], x: Tensor, y: Tensor, steps: int, rate: float, seed: int) -> None:
    """Adam on batches of 100, its rate falling along a cosine; the same batches for every architecture and rate."""
    draws = [torch.Generator().manual_seed(seed + 1 + k) for k in range(len(networks))]
    for network in networks:
        network.to(x)
    optimizer = partial(torch.optim.Adam, lr=rate, fused=True)
    schedule = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)
    train(networks, nn.functional.cross_entropy, batches((x, y), BATCH, draws), steps, optimizer, schedule)


@torch.no_grad()
def accuracy(networks: Sequence[nn.Module], x: Tensor, y: Tensor) -> float:
    """The share of labels that the networks get right, on average."""
    return float(torch.stack([(network(x).argmax(-1) == y).double().mean() for network in networks]).mean())


@claim(
    source=("telgarsky2016benefits", "ba2014deep", "greydanus2024scaling"),
    predicts=AtLeast(0.02),
    quick=Grid(comparison=list(COMPARISONS), budget=[20_000], nets=[2], steps=[400], seeds=1),
    full=Grid(comparison=list(COMPARISONS), budget=[20_000], nets=[4], steps=[2000], seeds=10),
    controls={"an activation: none": dict(activation="none")},
    expects="DEPENDS",
    switch="comparison",
    figures=(draw_gains, draw_rates),
)
def depth_at_equal_parameters(
    comparison: str, budget: int, nets: int, steps: int, seed: int, activation: str = "relu"
) -> dict[str, Any]:
    r"""A second hidden layer classifies better at equal parameters.

    Contested. Some functions need exponentially many neurons in one layer and few in several @telgarsky2016benefits, and
    deep networks are the more accurate ones in practice. But shallow networks can be taught to do what deep ones do with as
    many parameters @ba2014deep: then the advantage lies in how deep networks train, and no theorem on what networks can
    represent explains it.

    A perceptron of one hidden layer and one of two equal layers, with numbers of parameters as near to $20 thin 000$ as
    integers allow, learn by Adam from the same batches. On MNIST-1D they have 392 and $2 times 118$ hidden units,
    $20 thin 002$ and $20 thin 070$ parameters; on digits 267 and $2 times 108$ units, $20 thin 035$ and $19 thin 882$
    parameters. The value is the test accuracy of two layers minus that of one, means over networks; the statement is that
    it is at least two points in every run. The switch is what is compared: on digits, where both are right on 98 of 100; on
    MNIST-1D with the learning rate $0.01$ for both; and on MNIST-1D with the best of three rates for each, chosen on the
    same test set. With one rate for both, two layers are ahead; the single layer wants a rate ten times as large, and with
    it overtakes. At equal parameters depth has bought ease of training, not accuracy.

    The control removes the activation. Then every network is an affine map, and depth buys nothing.
    """
    data, rates = COMPARISONS[comparison]
    x, y, x_test, y_test = split(data)
    inputs = x.shape[1]
    widths = [width_of(inputs, depth, budget) for depth in (1, 2)]
    curves = []
    for depth, width in zip((1, 2), widths, strict=True):
        start = draw_networks(inputs, width, depth, nets, seed, activation)
        curve = []
        for rate in rates:
            networks = deepcopy(start)
            teach(networks, x, y, steps, rate, seed)
            curve.append(accuracy(networks, x_test, y_test))
        curves.append(np.array(curve))
    return {
        "value": curves[1].max() - curves[0].max(),
        "one layer": curves[0],
        "two layers": curves[1],
        "rates": np.array(rates),
        "widths": np.array(widths),
        "parameters": np.array([parameters(inputs, width, depth) for depth, width in zip((1, 2), widths, strict=True)]),
    }


def folded(start: Tensor, end: Tensor, width: int, depth: int) -> MLP:
    """A network each layer of which folds the segment from `start` to `end` six times, by six of its units.

    The first layer sees t = ⟨x − start, d⟩/‖d‖² with d = end − start; a layer is a zigzag through [−0.02, 1.02], so that it
    crosses the knots of the next, j/6, inside. Other units are off.
    """
    d = (end - start) / (end - start).square().sum()
    knots = torch.arange(TEETH) / TEETH
    fold = 1.04 * TEETH * torch.tensor([1.0 if j == 0 else 2.0 * (-1) ** j for j in range(TEETH)])
    net = MLP([len(start), *[width] * depth, CLASSES], activation="relu", dtype=torch.float64).to(start)
    with torch.no_grad():
        for place, layer in enumerate(part for part in net.layers if isinstance(part, nn.Linear)):
            layer.weight.zero_()
            layer.bias.fill_(-1.0)
            own = d if place == 0 else torch.cat([fold, fold.new_zeros(width - TEETH)])
            units = slice(TEETH) if place < depth else slice(1)
            layer.weight[units] = own
            layer.bias[units] = (-(start @ d) if place == 0 else -0.02) - (knots if place < depth else 0.0)
    return net


def draw_segments(x: Tensor, count: int, seed: int) -> Tensor:
    """Segments between inputs drawn at random, (count, 2, n), in double precision."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed), device="cpu")[: 2 * count]
    return x[order.to(x.device)].double().unflatten(0, (count, 2))


def borders(network: nn.Module, segments: Tensor) -> float:
    """How many borders between linear regions a segment crosses, on average."""
    private = deepcopy(network).double()
    return float(np.mean([regions_on_line(private, *segment).regions - 1 for segment in segments]))


@claim(
    source=("hanin2019surprisingly", "hanin2019complexity", "montufar2014number"),
    predicts=AtMost(1.0),
    quick=Grid(data=["digits", "MNIST-1D"], width=[8, 24, 64], depth=[1, 2, 4], nets=[1], steps=[200], seeds=1),
    full=Grid(
        data=["digits", "MNIST-1D"], width=[8, 16, 32, 64], depth=[1, 2, 3, 4, 6], nets=[4], steps=[2000], seeds=5
    ),
    controls={"weights from training: folding layers": dict(weights="folded")},
    figures=(draw_signals, draw_digits, draw_borders),
)
def trained_regions_per_neuron(
    data: str, width: int, depth: int, nets: int, steps: int, seed: int, weights: str = "trained"
) -> dict[str, Any]:
    r"""Between two examples a trained network crosses no more borders of linear regions than it has neurons.

    $L$ layers of $w$ rectifiers can cut a segment into $w^L$ linear regions and more @montufar2014number. At random weights
    the mean number is bounded by the number of neurons, $w L$, times a constant that does not know the depth
    @hanin2019complexity, and experiments say that this is so throughout training, even on random labels
    @hanin2019surprisingly. What networks can express is then not what they do express.

    Networks are trained by Adam at a rate of $0.01$; the borders that segments between random pairs of test inputs cross are
    counted exactly, in the weights as they are. The value is their mean number, divided by $w L$; it must be at most one,
    which is what a single layer cannot exceed. The number at the start of training is recorded too. The control puts other
    weights into the same layers: for each segment, such that every layer folds it six times, by six of its units. It makes
    $6 + 6^2 + dots.c + 6^L$ regions, more than $w L$ from the third layer on.
    """
    x, y, x_test, y_test = split(data)
    segments = draw_segments(x_test, 6, seed)
    found = {"parameters": parameters(x.shape[1], width, depth)}
    if weights == "folded":
        counts = [borders(folded(a, b, width, depth), torch.stack([a, b])[None]) for a, b in segments]
        return {"value": float(np.mean(counts)) / (width * depth), "borders": float(np.mean(counts)), **found}
    networks = draw_networks(x.shape[1], width, depth, nets, seed, "relu")
    for network in networks:
        network.to(x)
    start = float(np.mean([borders(network, segments) for network in networks]))
    teach(networks, x, y, steps, 0.01, seed)
    end = float(np.mean([borders(network, segments) for network in networks]))
    return {
        "value": end / (width * depth),
        "borders": end,
        "at the start": start / (width * depth),
        "accuracy": accuracy(networks, x_test, y_test),
        **found,
    }


if __name__ == "__main__":
    script(__file__)
