"""Networks that tell nine discs from what is around them, and the features of the discs in their layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from lemmata.analysis.errors import NumericsError
from lemmata.analysis.topology import geodesic_distances, rips_betti
from lemmata.architectures import MLP, Law
from lemmata.studies.data import nine_discs
from lemmata.studies.training import train

DEPTH, WIDTH, BATCH, RATE, ENOUGH = 10, 15, 512, 1e-2, 0.999
INIT = Law("three halves over n", lambda n, m: 1.5 / n, lambda n, m: 0.0)
ACTIVATIONS: dict[str, Any] = {"relu": "relu", "leaky": leaky_relu, "tanh": "tanh"}


def classifiers(activation: str, nets: int, steps: int, draws: torch.Generator) -> tuple[list[MLP], Tensor, Tensor]:
    """Networks that tell the discs from what is around them, the points in the discs, and each network's accuracy.

    Zero steps leave them as they were drawn.
    """
    x, label = nine_discs(draws)
    x = (x / 5).float()  # between −2 and 2
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


@torch.no_grad()
def features(nets: Sequence[MLP], discs: Tensor, neighbours: int, layers: Sequence[int]) -> np.ndarray:
    """β₀ + β₁ of the discs before the activations of some hidden layers, (nets, layers), as `betti_through_layers` has them."""
    found = []
    for net in nets:
        places = net.preactivations(discs)
        steps = [geodesic_distances(places[layer - 1], neighbours, landmarks=150).distances for layer in layers]
        found.append([rips_betti(distances, 3.5, longest=4.5).total for distances in steps])
    return np.array(found)


def learnt(activation: str, nets: int, steps: int, draws: torch.Generator) -> tuple[list[MLP], Tensor]:
    """Networks that have all but one point in a thousand right, or, after no step, all as drawn; and the discs' points."""
    made, discs, accuracy = classifiers(activation, nets, steps, draws)
    good = [net for net, right in zip(made, accuracy, strict=True) if right >= ENOUGH or not steps]
    if not good:
        remedy = "Raise steps or nets."
        raise NumericsError(f"steps={steps}", f"one of {nets} networks that learns the data", "none", remedy)
    return good, discs
