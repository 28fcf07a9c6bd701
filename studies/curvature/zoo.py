r"""Seven small networks, one of each family, trained on real data: what the studies of trained networks share.

Sixty images of digits go into a perceptron, a convolutional and a residual network, their rows one after another into an
LSTM and a transformer; a graph network assigns the members of the karate club to four communities; a neural ODE tells three
sorts of wine apart. Networks, data and training are functions of the family's name and a number, and are made once a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.functional import cross_entropy

import lemmata.analysis as la
from lemmata.architectures import CNN, GCN, LSTM, MLP, NeuralODE, ResNet, SequenceEncoder
from lemmata.studies.data import digits, karate, wine
from lemmata.studies.training import train

MODELS = ("MLP", "CNN", "ResNet", "LSTM", "transformer", "GNN", "neural ODE")
#: Those of rectifiers, sums and weights that a path from input to output uses once; every other is smooth.
PIECEWISE_LINEAR = ("MLP", "CNN", "ResNet", "GNN")
EXAMPLES = 60  # digits, or wines, to learn; the club has 34 members
CURVED = 25  # of the examples, over which matrices are formed in full
NETWORKS = 2  # of each family, from different starts; a trial takes one of them
#: Steps of Adam at 0.01 on all examples, until the loss is some hundredths.
STEPS = {"MLP": 70, "CNN": 120, "ResNet": 70, "LSTM": 180, "transformer": 100, "GNN": 150, "neural ODE": 25}
Named = dict[str, Tensor]


class LastState(nn.Module):
    """A sequence network read out at the end."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(b, T, d) to (b, m)."""
        output: Tensor = self.network(x)[:, -1]
        return output


def build(model: str, draws: torch.Generator, activation: Any = "relu", width: int = 1) -> nn.Module:
    """An untrained network; ``activation`` is that of the piecewise linear families, ``width`` multiplies hidden sizes."""
    w = width
    made: dict[str, Callable[[], nn.Module]] = {
        "MLP": lambda: MLP([64, 10 * w, 10], activation, "he", generator=draws),
        "CNN": lambda: CNN([1, 6 * w, 8 * w], 10, stride=2, activation=activation, init="he", generator=draws),
        "ResNet": lambda: ResNet(
            [1, 3 * w, 5 * w], 10, norm="none", activation=activation, init="default", generator=draws
        ),
        "LSTM": lambda: LastState(LSTM(8, 7 * w, 10, generator=draws)),
        "transformer": lambda: SequenceEncoder(8, 8, 8 * w, 2, 1, 10, hidden=8 * w, generator=draws),
        "GNN": lambda: GCN([34, 8 * w, 4], activation, generator=draws),
        "neural ODE": lambda: NeuralODE(13, 12 * w, 3, steps=2, generator=draws),
    }
    return made[model]()


class Nodes(nn.Module):
    """A graph network's outputs at some of the nodes."""

    def __init__(self, network: nn.Module, places: Tensor) -> None:
        super().__init__()
        self.network, self.places = network, places

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """(n, d) and (n, n) to (chosen, m)."""
        output: Tensor = self.network(x, graph)[self.places]
        return output


@cache
def _data(model: str, device: str, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    if model == "GNN":
        club = karate()
        return (torch.eye(len(club.adjacency)), club.adjacency), club.communities
    if model == "neural ODE":
        inputs, labels, *_ = wine()
        return (inputs[:EXAMPLES],), labels[:EXAMPLES]
    images, labels = digits(EXAMPLES, images=True)
    return ({"MLP": images.flatten(1), "LSTM": images[:, 0], "transformer": images[:, 0]}.get(model, images),), labels


class Trained(NamedTuple):
    """A network, which nobody changes, with what it has learned."""

    model: str
    net: nn.Module
    inputs: tuple[Tensor, ...]
    labels: Tensor
    losses: Tensor

    @property
    def classes(self) -> int:
        """How many it tells apart."""
        return int(self.labels.max()) + 1

    @property
    def data(self) -> tuple[Any, Tensor]:
        """One batch as the analyzers take it."""
        return (self.inputs if len(self.inputs) > 1 else self.inputs[0]), self.labels

    @property
    def parameters(self) -> Named:
        """The parameters by name."""
        return {name: parameter.detach() for name, parameter in self.net.named_parameters()}

    def some(self, count: int, draws: torch.Generator) -> Trained:
        """The same network with so many of its examples, drawn at random."""
        places = torch.randperm(len(self.labels), generator=draws, device="cpu")[:count].to(self.labels.device)
        if self.model == "GNN":
            return self._replace(net=Nodes(self.net, places), labels=self.labels[places])
        return self._replace(inputs=tuple(x[places] for x in self.inputs), labels=self.labels[places])

    def operator(self, kind: Any, loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy) -> la.Operator:
        """One of the laboratory's operators on the mean cross-entropy, or on another mean loss."""
        found: la.Operator = kind(self.net, nn.CrossEntropyLoss() if loss is cross_entropy else loss, self.data)
        return found

    def jacobian(self, chosen: Sequence[str] = ()) -> Tensor:
        """The outputs' derivatives in all parameters or some, (examples, classes, P)."""
        at = {name: value for name, value in self.parameters.items() if not chosen or name in chosen}

        def row(*inputs: Tensor) -> Named:
            single = tuple(x[None] for x in inputs)
            found: Named = jacrev(lambda p: functional_call(self.net, p, single)[0])(at)
            return found

        if self.model == "GNN":  # one graph: its nodes are the examples
            parts = jacrev(lambda p: functional_call(self.net, p, self.inputs))(at)
        else:  # each example by itself, for a pass over all of them for every row would cost their number squared
            parts = vmap(row, chunk_size=100)(*self.inputs)
        return torch.cat([part.detach().flatten(2) for part in parts.values()], 2)


def network(
    model: str, seed: int, activation: Any = "relu", width: int = 1, steps: int | None = None, shuffled: bool = False
) -> Trained:
    """One of the family's trained networks: full-batch steps of Adam on the mean cross-entropy, labels shuffled or not."""
    device, dtype = str(torch.get_default_device()), torch.get_default_dtype()
    taken = STEPS[model] if steps is None else steps
    return _network(model, seed % NETWORKS, activation, width, taken, shuffled, device, dtype)


@cache
def _network(
    model: str, k: int, activation: Any, width: int, steps: int, shuffled: bool, device: str, dtype: torch.dtype
) -> Trained:
    inputs, labels = _data(model, device, dtype)
    if shuffled:
        labels = labels[
            torch.randperm(len(labels), generator=torch.Generator().manual_seed(k), device="cpu").to(device)
        ]
    net = build(model, torch.Generator().manual_seed(k), activation, width).to(device, dtype)
    batch = tuple(x[None] for x in inputs), labels[None]
    losses = (
        train([net], cross_entropy, lambda step: batch, steps, partial(torch.optim.Adam, lr=0.01)) if steps else None
    )
    return Trained(model, net, inputs, labels, labels.new_zeros(0) if losses is None else losses[:, 0])


def matrices(model: str, seed: int) -> tuple[Tensor, Tensor]:
    """The Hessian and the Gauss–Newton matrix of the cross-entropy over some of the examples, in full, symmetric to the bit."""
    return _matrices(model, seed % NETWORKS, str(torch.get_default_device()), torch.get_default_dtype())


@cache
def _matrices(model: str, k: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    chosen = network(model, k).some(CURVED, torch.Generator().manual_seed(k))
    dense = [chosen.operator(kind).dense() for kind in (la.Hessian, la.GGN)]
    hessian, ggn = ((matrix + matrix.T) / 2 for matrix in dense)
    return hessian, ggn


@dataclass(frozen=True)
class Units:
    """Hidden units that are interchangeable: a row of each inward tensor (in ``blocks``), a column of each outward one."""

    inward: tuple[str, ...]
    outward: tuple[str, ...]
    blocks: int = 1


def _layer(first: str, second: str) -> Units:
    return Units((f"{first}.weight", f"{first}.bias"), (f"{second}.weight",))


UNITS = {
    "MLP": _layer("layers.0", "layers.1"),
    "CNN": _layer("layers.0", "layers.1"),
    "ResNet": _layer("blocks.1.conv1", "blocks.1.conv2"),
    "LSTM": Units(("network.W", "network.U", "network.b"), ("network.U", "network.readout.weight"), blocks=4),
    "transformer": _layer("encoder.layers.0.feed_forward.W_1", "encoder.layers.0.feed_forward.W_2"),
    "GNN": _layer("layers.0", "layers.1"),
    "neural ODE": _layer("field.layers.0", "field.layers.1"),
}


def permuted(parameters: Named, units: Units, order: Tensor, whole: bool = True) -> Named:
    """The parameters with a layer's units in another order; with ``whole`` false only what goes into them moves."""
    moved = dict(parameters)
    for name in units.inward:
        rows = moved[name].unflatten(0, (units.blocks, -1))
        moved[name] = rows[:, order].flatten(0, 1)
    for name in units.outward if whole else ():
        moved[name] = moved[name][:, order]
    return moved


def rescaled(parameters: Named, units: Units, factors: Tensor) -> Named:
    """Each unit's inward weights times a factor, its outward ones divided by it."""
    moved = dict(parameters)
    for name in units.inward:
        moved[name] = moved[name] * factors.reshape(-1, *[1] * (moved[name].ndim - 1))
    for name in units.outward:
        moved[name] = moved[name] / factors.reshape(1, -1, *[1] * (moved[name].ndim - 2))
    return moved
