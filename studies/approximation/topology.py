r"""What layers do to the topology of their data.

Betti numbers count the components of a set, $beta_0$, and its loops, $beta_1$. No homeomorphism changes them, so an
invertible layer cannot; a network that separates two classes has to bring each together, and one can watch it do so
layer by layer @naitzat2020topology. In the plane the numbers come from the alpha complex of the sample, exactly and at
every scale @edelsbrunner1994alpha; what remains to be trusted is the sample, and the range of scales over which
the numbers hold says how far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from lemmata.analysis.topology import Betti, betti
from lemmata.architectures import MLP
from lemmata.studies.approximation.topology_figures import (
    RADII,
    RECTIFIERS,
    UNTRAINED,
    draw_classes,
    draw_fall,
    draw_images,
    draw_plateau,
)
from lemmata.studies.approximation.topology_networks import DEPTH, features, learnt
from lemmata.studies.claim import AtLeast, Equals, Grid, claim, script
from lemmata.studies.data import gaussian, nine_discs

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


def fewer(these: np.ndarray, those: np.ndarray) -> float:
    """The share of pairs of one of these and one of those in which the first is less, a tie counting one half."""
    return float((0.5 + 0.5 * np.sign(those[None] - these[:, None])).mean())


HALF_WAY, LAYERS = DEPTH // 2 + 1, [2, 4, 6, 8, 10]


def compared(ones: tuple[list[MLP], Tensor], others: tuple[list[MLP], Tensor]) -> dict[str, Any]:
    """How often the first have fewer features half-way, from the numbers at two scales, the less clear one."""
    scales = {}
    for neighbours in (14, 28):
        counts = (features(nets, discs, neighbours, [HALF_WAY])[:, 0] for nets, discs in (ones, others))
        scales[f"{neighbours} neighbours"] = fewer(*counts)
    return {"value": min(scales.values()), **scales}


@claim(
    source="naitzat2020topology",
    predicts=AtLeast("3/4", of="mean"),
    quick=Grid(activation=["relu"], nets=[4], steps=[800], seeds=5),
    full=Grid(activation=["relu", "leaky"], nets=[8], steps=[1600], seeds=12),
    controls={UNTRAINED: dict(trained=False)},
)
def betti_falls_through_layers(
    activation: str, nets: int, steps: int, seed: int, trained: bool = True
) -> dict[str, Any]:
    r"""Half-way, trained rectifier networks have simplified their data, networks as drawn have not.

    A network that tells the nine discs of D-I from what is around them maps them to one interval of its output, one
    component. In the experiments of @naitzat2020topology the Betti numbers fall along the way, layer by layer, to the lowest
    possible. Networks have ten hidden layers of 15 neurons and are trained until at least 99.9 % of the data are right
    (the others are left out). With $B = beta_0 + beta_1$ the numbers of the discs half-way, before the activation of the sixth
    hidden layer, the value is
    $ P(B_"trained" < B_"drawn") + 1/2 P(B_"trained" = B_"drawn") $
    over pairs of a trained network and another one as drawn: one half if training does nothing, one if it always simplifies.
    The bound is the mean of the two. Control: both are as drawn.

    Ten random layers also crowd a sample, so that its numbers fall without training, often to half at the last: hence a
    comparison with networks as drawn, and not with the inputs. This is an observation, not a theorem: up to the last layer
    these networks are homeomorphisms onto their image, if the activation is, and what falls are not the numbers of the
    image, which cannot, but those that a sample of it shows. They are read from the paths through each point's 14 nearest
    neighbours, as in the paper, and again from 28, a coarser look; the value is the smaller of the two.
    """
    draws = torch.Generator().manual_seed(seed)
    ones = learnt(activation, nets if trained else 2 * nets, steps * trained, draws)
    return compared(ones, learnt(activation, 2 * nets, 0, draws))


@claim(
    source="naitzat2020topology",
    predicts=AtLeast("1/2", of="mean"),
    quick=Grid(slower=["tanh"], nets=[4], steps=[800], seeds=5),
    full=Grid(slower=["tanh"], nets=[12], steps=[1600], seeds=12),
    controls={UNTRAINED: dict(trained=False)},
    figures=(draw_fall,),
)
def betti_falls_through_layers_activation(
    slower: str, nets: int, steps: int, seed: int, trained: bool = True
) -> dict[str, Any]:
    r"""Half-way, rectifiers have simplified their data further than hyperbolic tangents.

    A rectifier is not injective and may glue, what a hyperbolic tangent can only squeeze: the Betti numbers fall
    faster with rectifiers than with hyperbolic tangents @naitzat2020topology. The networks are trained on D-I, and their
    numbers read half-way and at two scales, as before; the value is
    $ P(B_"rectifier" < B_"tangent") + 1/2 P(B_"rectifier" = B_"tangent") $
    over pairs of networks, one half if the activation makes no difference, one if rectifiers always come first: faster means
    more often than not. At the last layer the two are alike. Twice as many networks have hyperbolic tangents, since about
    half of these do not learn the data. Control: networks as they were drawn, of which, seen from 28 neighbours, those with
    hyperbolic tangents come first.
    """
    draws = torch.Generator().manual_seed(seed)
    counts = {"relu": nets if trained else 2 * nets, slower: 2 * nets}
    ones, others = (learnt(activation, count, steps * trained, draws) for activation, count in counts.items())
    profiles = {name: features(*found, 14, LAYERS) for name, found in zip(counts, (ones, others), strict=True)}
    return {**compared(ones, others), **profiles}


if __name__ == "__main__":
    script(__file__)
