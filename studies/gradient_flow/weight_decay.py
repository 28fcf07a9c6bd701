r"""Weight decay against normalisation.

Weights before a batch normalisation act through their direction alone. Their gradient is orthogonal to them, so that
each step makes them longer, while weight decay makes them shorter. In the balance of the two the length no longer
matters, and the direction turns by an angle that depends on the learning rate and the decay, and on nothing else
@vanlaarhoven2017l2 @wan2021spherical @kosson2024rotational.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lemmata.architectures import MLP
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian
from lemmata.studies.gradient_flow.normalisation import over_batch
from lemmata.studies.training import Objective, descent, flat_parameters, layout_of, objective

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
WIDTHS, IMAGES = [64, 32, 32, 10], 64
CHAINS, DIMENSION = 20, 100

#: A stochastic objective, the parameters to start from, and the vectors in them that are watched, (vectors, size) each.
System = tuple[Objective, Tensor, Callable[[Tensor], list[Tensor]]]


def network(invariant: bool, draws: torch.Generator) -> System:
    """Random batches of digits, for a network whose hidden layers are normalised over the batch; those layers are watched."""
    units = (lambda z: over_batch(z).relu()) if invariant else torch.relu
    net, (x, labels) = MLP(WIDTHS, units, "he", bias=False, generator=draws), digits(600)
    layout = layout_of(net)

    def batch(flat: Tensor) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(x), generator=draws, device="cpu")[:IMAGES].to(x.device)
        return objective(net, cross_entropy, x[chosen], labels[chosen])(flat)

    return batch, flat_parameters(net), lambda flat: [w.view(1, -1) for w in list(layout.split(flat).values())[:-1]]


def random_slopes(invariant: bool, draws: torch.Generator) -> System:
    """Linear functions of unit vectors, or of the vectors themselves: a fixed slope and noise five times as large."""
    fixed = torch.zeros(CHAINS, DIMENSION)
    fixed[:, 0] = 0.2 * DIMENSION**0.5

    def slope(flat: Tensor) -> tuple[Tensor, Tensor]:
        w, a = flat.view(CHAINS, DIMENSION), fixed + gaussian(draws, CHAINS, DIMENSION)
        size = w.norm(dim=1, keepdim=True)
        unit = w / size
        g = -(a - (a * unit).sum(1, keepdim=True) * unit) / size if invariant else -a
        return -(a * unit).sum(), g.flatten()

    return slope, gaussian(draws, CHAINS * DIMENSION), lambda flat: [flat.view(CHAINS, DIMENSION)]


SYSTEMS = {"random slopes": random_slopes, "network": network}


def decayed(system: System, eta: float, decay: float, momentum: float) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The watched vectors and their gradients, decay left out, along gradient descent with weight decay."""
    loss, start, watched = system
    gradients: list[Tensor] = []

    def with_decay(flat: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = loss(flat)
        gradients.append(gradient)
        return value, gradient + decay * flat

    for flat, _ in descent(with_decay, start, eta, momentum):
        yield watched(flat), watched(gradients.pop())


def equilibrium(
    system: str, eta: float, decay: float, momentum: float, invariant: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Squared angles of steps, $norm(w)^4$, and what the theory says of the latter, (layers, steps) each.

    Means over the vectors of a layer. The first $3\/(eta lambda)$ steps
    are left out, and twice as many are taken.
    """
    draws, time = torch.Generator().manual_seed(seed), 1 / (eta * decay)
    path = decayed(SYSTEMS[system](invariant, draws), eta, decay, momentum)
    seen = list(islice(path, round(3 * time), round(9 * time)))
    angles, fourth, predicted = [], [], []
    for layer in range(len(seen[0][0])):
        w, g = (torch.stack([step[kind][layer] for step in seen]) for kind in (0, 1))  # (steps vectors size)
        unit = w / w.norm(dim=-1, keepdim=True)
        chord = (unit[1:] - unit[:-1]).norm(dim=-1)  # precise where the cosine is not
        angles.append((2 * (chord / 2).arcsin()).square().mean(1))
        fourth.append(w.norm(dim=-1).pow(4).mean(1))
        predicted.append((w.norm(dim=-1) * g.norm(dim=-1)).square().mean(1) * eta / (2 * decay))
    return stacked(angles), stacked(fourth), stacked(predicted)


def stacked(layers: list[Tensor]) -> np.ndarray:
    """Time series of all layers, (layers, steps)."""
    return torch.stack(layers).cpu().numpy()


def furthest(ratios: np.ndarray) -> float:
    """The ratio that is furthest from one."""
    return float(ratios[np.abs(np.log(ratios)).argmax()])


def draw_angles(ax: Any, rows: Rows) -> Columns:
    """Angle by which a step turns the first hidden layer of a network, beside the angle of the theory.

    Root mean square over thirty steps against time in units of 1/(ηλ), for one run each. With normalisation both
    curves lie at one, with momentum and without; without normalisation they lie far below.
    """
    columns: dict[str, Any] = {}
    rates = [(row.point["eta"], row.point["decay"]) for row in rows]
    for row, rate in zip(rows, rates, strict=True):
        if row.k == 0 and row.point["system"] == "network" and rate == rates[0]:
            name = "not normalised" if row.arm else "normalised"
            name += f", momentum {row.point['momentum']:g}"
            squares = row.values["angles"]
            blocks = squares[: len(squares) // 30 * 30].reshape(-1, 30).mean(1) ** 0.5
            columns.setdefault("time", 3 + 6 * (np.arange(len(blocks)) + 0.5) / len(blocks))
            columns[name] = blocks
            ax.plot(columns["time"], blocks, ".-", label=name)
    ax.axhline(1, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="steps · ηλ", ylabel="angle ÷ $\\sqrt{2\\eta\\lambda/(1+\\mu)}$", ylim=(0, 1.9))
    ax.legend(loc="upper center", ncols=2)
    return columns


@claim(
    source=("vanlaarhoven2017l2", "wan2021spherical", "kosson2024rotational"),
    predicts=Equals(1, within=0.02, of="each"),
    quick=Grid(system=list(SYSTEMS), momentum=[0.0, 0.9], eta=[0.2], decay=[0.05], seeds=3),
    full=Grid(system=list(SYSTEMS), momentum=[0.0, 0.9], eta=[0.1, 0.2], decay=[0.01, 0.05], seeds=10),
    controls={"a loss that sees directions alone: the lengths of weights too": dict(invariant=False)},
    figures=(draw_angles,),
)
def wd_equilibrium_angle(
    system: str, momentum: float, eta: float, decay: float, seed: int, invariant: bool = True
) -> dict[str, Any]:
    r"""Normalised weights turn by the same angle in every step, whatever the loss.

    Let $L(c w) = L(w)$ for $c > 0$, and $w <- w - eta (g + lambda w)$ with stochastic gradients $g$. As $g$ is
    orthogonal to $w$, a step makes $norm(w)^2$ longer by $eta^2 norm(g)^2$ and shorter by the factor $(1 - eta
    lambda)^2$. When the two balance, the angle between $w_t$ and $w_(t+1)$ is
    $ sqrt(2 eta lambda), quad "and" quad sqrt(2 eta lambda \/ (1 + mu)) $
    with heavy-ball momentum $mu$, to first order in $eta lambda$ @vanlaarhoven2017l2 @wan2021spherical
    @kosson2024rotational. Neither the loss nor the size of its gradients appears in it. The value is the root mean
    square of the angle over this, after $3\/(eta lambda)$ steps, for random linear functions of a direction, and for
    each hidden layer of a network that learns digits with batch normalisation. In the control the loss depends on the
    lengths too: on linear functions of the vector itself, and on a network without normalisation.
    """
    squares = equilibrium(system, eta, decay, momentum, invariant, seed)[0] * (1 + momentum) / (2 * eta * decay)
    return {"value": furthest(squares.mean(1) ** 0.5), "angles": squares[0]}


@claim(
    source=("vanlaarhoven2017l2", "wan2021spherical"),
    predicts=Equals(1, within=0.05, of="each"),
    quick=Grid(system=list(SYSTEMS), eta=[0.2], decay=[0.05], seeds=3),
    full=Grid(system=list(SYSTEMS), eta=[0.1, 0.2], decay=[0.01, 0.05], seeds=10),
    controls={
        "a loss that sees directions alone: the lengths of weights too": dict(invariant=False),
        "steps along the gradient: momentum": dict(momentum=0.9),
    },
)
def wd_equilibrium_angle_length(
    system: str, eta: float, decay: float, seed: int, momentum: float = 0.0, invariant: bool = True
) -> float:
    r"""The length of normalised weights goes like the fourth root of learning rate over decay.

    In the balance of the claim above, with $tilde(g) = norm(w) g$ the gradient at the direction of $w$,
    $ EE norm(w)^4 = eta / (2 lambda) EE norm(tilde(g))^2: $
    the length adapts itself to the size of gradients, and thereby takes it out of the angle @vanlaarhoven2017l2
    @wan2021spherical. The value is the ratio of the two sides, averages over time, in the same systems. Controls: a
    loss that depends on lengths; momentum, under which a step has a part along the weights.
    """
    _, fourth, predicted = equilibrium(system, eta, decay, momentum, invariant, seed)
    return furthest(fourth.mean(1) / predicted.mean(1))


if __name__ == "__main__":
    script(__file__)
