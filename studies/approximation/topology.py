r"""What layers do to the topology of their data.

Betti numbers count the components of a set, $beta_0$, and its loops, $beta_1$. No homeomorphism changes them, so an
invertible layer cannot; a network that separates two classes has to bring each together, and one can watch it do so
layer by layer @naitzat2020topology. In the plane the numbers come from the alpha complex of the sample, exactly and at
every scale @edelsbrunner1994alpha; what remains to be trusted is the sample, and the range of scales over which
the numbers hold says how far.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from lemmata.analysis.topology import Betti, betti, betti_through_layers
from lemmata.architectures import MLP, Law
from lemmata.studies.approximation.topology_figures import (
    RADII,
    RECTIFIERS,
    UNTRAINED,
    draw_classes,
    draw_fall,
    draw_images,
    draw_plateau,
)
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian, nine_discs
from lemmata.studies.training import train

SQUARE = 10.0  # half the side of the square that the discs lie in


CONTROLS: dict[str, dict[str, Any]] = {
    "nine discs: six": dict(discs=6),
    "empty margins: one point in ten is noise": dict(noise=0.1),
    "a dense sample: a grid as coarse as the discs": dict(step=2.6),
}


def count_features(
    part: int, order: int, seed: int, discs: int, noise: float, step: float
) -> tuple[Betti, Tensor, Tensor]:
    """The Betti numbers of one class of D-I, with a share of noise, uniform on the square; and the whole data set."""
    draws = torch.Generator().manual_seed(seed)
    x, label = nine_discs(draws, step=step, discs=discs)
    chosen = x[label == part]
    scattered = 2 * torch.rand(int(noise * len(chosen)), 2, generator=draws, device="cpu") - 1
    return betti(torch.cat([chosen, SQUARE * scattered.to(x)])), x, label


def holds_over(found: Betti) -> float:
    """The ratio of the largest and the smallest radius at which the numbers hold, a thousand where there is no largest."""
    low, high = found.plateau
    return min(high / max(low, 1e-12), 1e3)


def curves(found: Betti) -> dict[str, Any]:
    """What the figures show of a result."""
    components, loops = zip(*(found.at(radius) for radius in RADII), strict=True)
    return {"components": components, "loops": loops, "holds over": holds_over(found)}


@claim(
    source=("naitzat2020topology", "edelsbrunner1994alpha"),
    predicts=Equals("9*(1 - order)", within=0, of="each"),
    quick=Grid(order=[0, 1], seeds=2),
    full=Grid(order=[0, 1], seeds=20),
    controls=CONTROLS,
    figures=(draw_classes, draw_plateau),
)
def naitzat_d1_betti_discs(
    order: int, seed: int, discs: int = 9, noise: float = 0.0, step: float = 0.19
) -> dict[str, Any]:
    r"""Nine discs, sampled, have nine components and no loop.

    Data set D-I of @naitzat2020topology has two classes in $[-10, 10]^2$: nine discs of radius 1.3, one in the centre and
    eight around it at distance 7, and all points at least 0.5 away from them. The first has
    $ (beta_0, beta_1) = (9, 0). $
    The square is sampled on a grid of step 0.19 with some jitter, about $10^4$ points in all. The numbers are those of the
    union of balls around the points @edelsbrunner1994alpha, read in the first range of radii, from the spacing of the
    points on, over which all of them hold while the radius doubles. Controls: three discs fewer; noise in the margins; too
    coarse a grid.
    """
    found, x, label = count_features(1, order, seed, discs, noise, step)
    return {"value": found.numbers[order], **curves(found), "x": x[::2], "label": label[::2]}


@claim(
    source=("naitzat2020topology", "edelsbrunner1994alpha"),
    predicts=Equals("1 + 8*order", within=0, of="each"),
    quick=Grid(order=[0, 1], seeds=2),
    full=Grid(order=[0, 1], seeds=20),
    controls=CONTROLS,
    figures=(draw_plateau,),
)
def naitzat_d1_betti_around(
    order: int, seed: int, discs: int = 9, noise: float = 0.0, step: float = 0.19
) -> dict[str, Any]:
    r"""What lies around nine discs, sampled, is one component with nine loops.

    The other class of D-I @naitzat2020topology, a square without nine larger discs, has
    $ (beta_0, beta_1) = (1, 9): $
    one component, and a loop around each disc, by Alexander duality the components of what is missing. Sample, reading
    and controls as before.
    """
    found = count_features(0, order, seed, discs, noise, step)[0]
    return {"value": found.numbers[order], **curves(found)}


def random_layers(
    x: Tensor, layers: int, draws: torch.Generator, condition: float, slope: float, shift: float, narrow: float
) -> Tensor:
    """Layers of two neurons: turn, stretch by the root of the condition number, turn, move, leaky rectifier."""
    stretch = torch.tensor([condition**0.5, narrow * condition**-0.5]).to(x)
    for _ in range(layers):
        U, _, V = torch.linalg.svd(gaussian(draws, 2, 2))
        x = leaky_relu(x @ (U * stretch @ V).T + SQUARE / 2 * gaussian(draws, 2) + shift, slope)
        x = x - x.mean(0)
    return x


@claim(
    source="naitzat2020topology",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(layers=[1, 2], step=[0.12], seeds=3),
    full=Grid(layers=[1, 2, 3], step=[0.06], seeds=10),
    controls={
        RECTIFIERS: dict(slope=0.0, shift=-5.0),
        "an invertible matrix: a projection to a line": dict(narrow=0.0),
    },
    figures=(draw_images,),
)
def homeomorphic_layers_preserve_betti(
    layers: int, step: float, seed: int, slope: float = 0.5, shift: float = 0.0, narrow: float = 1.0
) -> dict[str, Any]:
    r"""Invertible leaky layers leave all Betti numbers as they are.

    Let $W$ be invertible and $phi(z) = max(z, z\/2)$. The layer $x |-> phi(W x + b)$ is a homeomorphism of the plane, and
    homeomorphic sets have the same Betti numbers: $beta_k (f(M)) = beta_k (M)$ for every $k$ and $M$, through any
    number of layers @naitzat2020topology. The value counts by how much the four numbers of the two classes of D-I differ
    from $(9, 0)$ and $(1, 9)$ after random layers; the theorem says 0.

    What a layer can spoil is the sample. Its stretch varies by up to $2 kappa(W)$, and the numbers of a sample hold over
    a range of radii only: hence $kappa = 1.2$, a finer grid, and numbers that need hold over a factor of 1.3. Controls: a
    rectifier in place of $phi$, with lower biases; a matrix of rank one.
    """
    draws = torch.Generator().manual_seed(seed)
    x, label = nine_discs(draws, step=step)
    y = random_layers(x, layers, draws, 1.2, slope, shift, narrow)
    found = [betti(y[label == part], factor=1.3) for part in (1, 0)]
    counted = [number for one in found for number in one.numbers]
    lasts = min(map(holds_over, found))
    changed = sum(abs(number - true) for number, true in zip(counted, (9, 0, 1, 9), strict=True))
    return {"value": changed, "numbers": counted, "holds over": lasts, "y": y[::6], "label": label[::6]}


DEPTH, WIDTH, BATCH, RATE = 10, 15, 512, 1e-2
INIT = Law("three halves over n", lambda n, m: 1.5 / n, lambda n, m: 0.0)
ACTIVATIONS: dict[str, Any] = {"relu": "relu", "leaky": leaky_relu, "tanh": "tanh"}


def classifiers(activation: str, nets: int, steps: int, draws: torch.Generator) -> tuple[list[MLP], Tensor, Tensor]:
    """Networks that tell the discs from what is around them, the points in the discs, and each network's accuracy.

    Zero steps leave them as they were drawn.
    """
    x, label = nine_discs(draws)
    x = (2 * x / SQUARE).float()
    target = label.to(x)[:, None]
    made = [
        MLP(
            [2, *[WIDTH] * DEPTH, 1],
            activation=ACTIVATIONS[activation],
            init=INIT,
            generator=draws,
            dtype=x.dtype,
            device=x.device,
        )
        for _ in range(nets)
    ]
    if steps:
        schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=RATE, total_steps=steps, pct_start=0.1)
        adam = partial(torch.optim.Adam, lr=RATE, fused=True)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(x), (nets, BATCH), generator=draws, device="cpu").to(x.device)
            return x[chosen], target[chosen]

        train(made, binary_cross_entropy_with_logits, batch, steps, adam, schedule)
    with torch.no_grad():
        accuracy = torch.stack([((net(x) > 0) == (target > 0)).double().mean() for net in made])
    return made, x[label == 1], accuracy


def features(nets: Sequence[nn.Module], discs: Tensor, neighbours: int, layers: str) -> np.ndarray:
    """β₀ + β₁ of the discs, at the inputs and before the activations of some layers, (nets, layers)."""
    found = [betti_through_layers(net, discs, None, layers, neighbours, landmarks=150) for net in nets]
    return np.stack([one.totals[:, 0].numpy() for one in found])


def half_layer(totals: np.ndarray) -> np.ndarray:
    """The first layer at which no more than half of the inputs' features are left, one more than there are if none is."""
    few = np.concatenate([2 * totals <= totals[:, :1], np.ones((len(totals), 1), dtype=bool)], 1)
    return few.argmax(1)


@claim(
    source="naitzat2020topology",
    predicts=AtMost("4/5", of="max"),
    quick=Grid(activation=["relu", "leaky"], neighbours=[14, 28], nets=[4], steps=[800], seeds=1),
    full=Grid(activation=["relu", "leaky"], neighbours=[14, 28], nets=[8], steps=[1600], seeds=5),
    controls={UNTRAINED: dict(trained=False)},
    switch="neighbours",
)
def betti_falls_through_layers(
    activation: str, neighbours: int, nets: int, steps: int, seed: int, trained: bool = True
) -> dict[str, Any]:
    r"""Training makes rectifier layers simplify their data, beyond what the same layers do as drawn.

    A network that tells the nine discs of D-I from what is around them maps them to one interval of its output, one
    component. In the experiments of @naitzat2020topology the Betti numbers fall along the way, layer by layer, to the lowest
    possible. Networks have ten hidden layers of 15 neurons and are trained until at least 99.9 % of the data are right
    (the others are left out). With $beta_k$ the numbers of the discs before the activation of the last hidden layer, and
    $beta_k^0$ those in the same network as it was drawn, the value is
    $ frac("mean over networks of" beta_0 + beta_1, "mean over networks of" beta_0^0 + beta_1^0). $
    Ten random layers also crowd a sample, so that its numbers fall without training, often to half: hence a comparison
    of each network with itself, and not with the inputs. Rectifiers and leaky rectifiers are judged here. Hyperbolic
    tangents may do without: of those that learn the data, some separate it with most components left until the output.

    Up to the last layer these networks are homeomorphisms onto their image, if the activation is: what falls are not the
    numbers of the image, which cannot, but those that a sample of it shows. They are read from the paths through each
    point's 14 nearest neighbours, as in the paper, and again from 28, a coarser look on which the verdict may depend.
    The bound allows for four networks; it was set after a first run. Control: no training, which is the ratio one.
    """
    last = "layers.9"
    totals, accuracy = simplified(activation, neighbours, nets, steps * trained, seed, last)
    drawn, _ = simplified(activation, neighbours, nets, 0, seed, last)
    right = np.asarray(accuracy) >= 0.999 if trained else np.ones(nets, dtype=bool)
    return {
        "value": totals[:, -1].mean() / drawn[right, -1].mean(),
        "totals": totals,
        "drawn": drawn,
        "accuracy": accuracy,
    }


def simplified(
    activation: str, neighbours: int, nets: int, steps: int, seed: int, layers: str
) -> tuple[np.ndarray, Tensor]:
    """The features of the discs in networks that were trained well enough, or not at all; and all networks' accuracy."""
    made, discs, accuracy = classifiers(activation, nets, steps, torch.Generator().manual_seed(seed))
    good = [net for net, right in zip(made, accuracy, strict=True) if right >= 0.999 or not steps]
    return features(good, discs, neighbours, layers), accuracy


@claim(
    source="naitzat2020topology",
    predicts=AtLeast("1/2", of="min"),
    quick=Grid(slower=["tanh"], neighbours=[14], nets=[8], steps=[800], seeds=2),
    full=Grid(slower=["tanh"], neighbours=[14, 28], nets=[16], steps=[1600], seeds=5),
    controls={UNTRAINED: dict(trained=False)},
    figures=(draw_fall,),
)
def betti_falls_through_layers_activation(
    slower: str, neighbours: int, nets: int, steps: int, seed: int, trained: bool = True
) -> dict[str, Any]:
    r"""Rectifiers simplify their data in fewer layers than hyperbolic tangents.

    A rectifier is not injective and may glue, what a hyperbolic tangent can only squeeze: the Betti numbers fall
    faster with rectifiers than with hyperbolic tangents @naitzat2020topology. The layer of half drop is the first with at
    most half of the inputs' components and loops, of ten hidden layers, one more if there is none. The value is its mean
    over networks with the slower activation minus that over networks with rectifiers, trained on D-I as before.

    Every experiment has to show at least half a layer. No interval for the mean of single differences is judged: networks
    with hyperbolic tangents differ among themselves by about two layers, so that an interval as narrow as half the margin
    would take hundreds of them. Control: the same networks as they were drawn.
    """
    found = {
        activation: simplified(activation, neighbours, nets, steps * trained, seed, "layers.?")[0]
        for activation in ("relu", slower)
    }
    layer = {activation: half_layer(totals).mean() for activation, totals in found.items()}
    return {"value": layer[slower] - layer["relu"], **found}


if __name__ == "__main__":
    script(__file__)
