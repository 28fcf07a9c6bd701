r"""Networks that do not notice the order of nodes, tokens and elements, and what makes them notice.

A graph's numbering is arbitrary. Message passing, attention without positions, and networks on sets commute with every
renumbering, layer by layer and whatever their weights @zaheer2017deep @maron2019invariant: sums, means, maxima and softmax
averages do not depend on an order. A vector added for each position, a causal mask, or an aggregation that reads its
arguments one after the other @hamilton2017inductive ends this. In floating point a sum depends on its order by its rounding,
so the law holds to rounding and seldom bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lemmata.architectures import (
    LSTM,
    MLP,
    DeepSets,
    Encoder,
    EquivariantDeepSets,
    GATLayer,
    GATv2Layer,
    GCNLayer,
    GINLayer,
    MessagePassing,
    SetTransformer,
)
from lemmata.architectures.positions import sinusoidal
from lemmata.studies.claim import AtMost, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.invariance.orders import draw_errors, draw_orders, in_both_precisions, some_orders

WIDTH, LAYERS = 8, 3


# Graphs


class Sender(nn.Module):
    """The message of a node to another, of both ends: [h_i ‖ h_j], (…, 2d) → (…, d)."""

    def __init__(self, width: int, draws: torch.Generator) -> None:
        super().__init__()
        self.map = MLP([2 * width, width], generator=draws)

    def forward(self, pair: Tensor) -> Tensor:
        """Return the message."""
        return torch.tanh(self.map(pair))


def messages(aggregation: str, draws: torch.Generator) -> MessagePassing:
    """A layer of messages that depend on both ends."""
    return MessagePassing(Sender(WIDTH, draws), MLP([2 * WIDTH, WIDTH, WIDTH], generator=draws), aggregation)


GRAPH_LAYERS: Mapping[str, Callable[[torch.Generator], nn.Module]] = {
    "GCN": lambda draws: GCNLayer(WIDTH, WIDTH, generator=draws),
    "GIN": lambda draws: GINLayer([WIDTH] * 3, generator=draws),
    "GAT": lambda draws: GATLayer(WIDTH, WIDTH, heads=2, generator=draws),
    "GATv2": lambda draws: GATv2Layer(WIDTH, WIDTH, heads=2, generator=draws),
    "messages, summed": lambda draws: messages("sum", draws),
    "messages, averaged": lambda draws: messages("mean", draws),
    "messages, largest": lambda draws: messages("max", draws),
}


class InOrder(nn.Module):
    """An LSTM that reads a node's neighbours in the order of their numbers, as GraphSAGE may: (b, n, d), (b, n, n) → (b, n, d)."""

    def __init__(self, width: int, draws: torch.Generator) -> None:
        super().__init__()
        self.lstm = LSTM(width, width, generator=draws)

    def forward(self, h: Tensor, A: Tensor) -> Tensor:
        """Return each node's last state."""
        state = cell = torch.zeros_like(h)
        arriving = nn.functional.linear(h, self.lstm.W, self.lstm.b)  # (b n 4d)
        for j in range(h.shape[1]):
            i, f, g, o = (arriving[:, j, None] + state @ self.lstm.U.T).chunk(4, dim=-1)
            new = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            edge = A[:, :, j, None] > 0
            cell = torch.where(edge, new, cell)
            state = torch.where(edge, o.sigmoid() * new.tanh(), state)
        return state


class GraphStack(nn.Module):
    """Layers on a graph, and beside each an LSTM over the neighbours if asked for."""

    def __init__(self, kind: str, in_order: bool, draws: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GRAPH_LAYERS[kind](draws) for _ in range(LAYERS))
        self.readers = nn.ModuleList(InOrder(WIDTH, draws) for _ in range(LAYERS if in_order else 0))

    def states(self, x: Tensor, A: Tensor) -> list[Tensor]:
        """Return what follows each layer: (b, n, d)."""
        found = [x]
        for place, layer in enumerate(self.layers):
            h = layer(found[-1], A)
            found.append(torch.tanh(h + self.readers[place](found[-1], A) if len(self.readers) else h))
        return found[1:]


@claim(
    source=("maron2019invariant", "gilmer2017neural"),
    predicts=AtMost("rounding(24*nodes)"),
    quick=Grid(network=list(GRAPH_LAYERS), nodes=[8, 32], seeds=3),
    full=Grid(network=list(GRAPH_LAYERS), nodes=[8, 32, 128], seeds=20),
    controls={
        "no numbers: positions added to the nodes": dict(positions=True),
        "nothing in order: an LSTM reads the neighbours": dict(in_order=True),
    },
    figures=(draw_errors, draw_orders),
)
def permutation_equivariance(
    network: str, nodes: int, seed: int, positions: bool = False, in_order: bool = False
) -> dict[str, Any]:
    r"""A graph network commutes with every renumbering of the nodes.

    Let every layer give node $i$ a function of $h_i$ and of $⊕_(j tilde i) phi (h_i, h_j)$, where $⊕$
    is a sum, a mean, a maximum or an average by softmax. Then
    $ f(P A P^top, P X) = P f(A, X) $
    for every permutation matrix $P$ and all weights, after each layer; and a sum over nodes does not change
    @gilmer2017neural @maron2019invariant.

    Measured is the largest $norm(f(P A P^top, P X) - P f(A, X)) \/ norm(f(A, X))$ over 50 permutations of a random
    directed graph with loops, over three layers and the sum over nodes; single precision, and how often the bits agree, are
    recorded beside it. The controls add the position's sinusoids @vaswani2017attention to the features, or the last state
    of an LSTM that reads the neighbours by number @hamilton2017inductive.
    """
    draws = torch.Generator().manual_seed(seed)
    device = torch.get_default_device()
    net = GraphStack(network, in_order, draws).to(device).requires_grad_(False)
    x, orders = gaussian(draws, nodes, WIDTH), some_orders(nodes, draws)
    A = (torch.rand(nodes, nodes, generator=draws, device="cpu") < 4 / nodes).to(x)

    def through(stack: Any, h: Tensor, graphs: Tensor) -> list[Tensor]:
        return stack.states(h + sinusoidal(nodes, WIDTH, h) if positions else h, graphs)

    return in_both_precisions(net, through, x, A, orders)


# Sequences


@claim(
    source=("vaswani2017attention", "lee2019set"),
    predicts=AtMost("rounding(24*tokens)"),
    quick=Grid(attention=["softmax", "linear"], norm=["pre", "post"], tokens=[8, 32], seeds=3),
    full=Grid(attention=["softmax", "linear"], norm=["pre", "post"], tokens=[8, 32, 128], seeds=20),
    controls={
        "no positions: learned ones": dict(positions="learned"),
        "no positions: sinusoids": dict(positions="sinusoidal"),
        "all tokens see all: a causal mask": dict(causal=True),
    },
    figures=(draw_errors, draw_orders),
)
def permutation_equivariance_attention(
    attention: str, norm: str, tokens: int, seed: int, positions: str = "none", causal: bool = False
) -> dict[str, Any]:
    r"""A transformer without positions and masks commutes with every permutation of the tokens.

    $"softmax"(P Q K^top P^top) P V = P "softmax"(Q K^top) V$, because a softmax over a row does not depend on the order in
    which its entries stand; linear attention sums over all tokens; everything else acts on each token by itself. So an
    encoder commutes with every permutation $P$, layer by layer @lee2019set, and word order reaches it through positions
    alone @vaswani2017attention: vectors that are added, or a causal mask, which shows each token how many came before.

    Measured as for graphs, over three layers of 8 units, a last normalisation and the sum over tokens.
    """
    draws = torch.Generator().manual_seed(seed)
    kind: dict[str, Any] = {"positions": positions, "length": tokens, "attention": attention, "causal": causal}
    net = Encoder(WIDTH, 2, LAYERS, 2 * WIDTH, norm, generator=draws, **kind).requires_grad_(False)
    x, orders = gaussian(draws, tokens, WIDTH), some_orders(tokens, draws)

    def through(encoder: Any, h: Tensor, _: Tensor) -> list[Tensor]:
        found = [encoder.positions(h)]
        for layer in encoder.layers:
            found.append(layer(found[-1]))
        return [*found[1:], encoder.last(found[-1])]

    return in_both_precisions(net.to(torch.get_default_device()), through, x, torch.ones(tokens, tokens), orders)


# Sets


SETS: Mapping[str, Callable[[torch.Generator], nn.Module]] = {
    "DeepSets, sum": lambda draws: DeepSets([WIDTH] * 3, [WIDTH] * 3, "sum", generator=draws),
    "DeepSets, mean": lambda draws: DeepSets([WIDTH] * 3, [WIDTH] * 3, "mean", generator=draws),
    "DeepSets, maximum": lambda draws: DeepSets([WIDTH] * 3, [WIDTH] * 3, "max", generator=draws),
    "equivariant DeepSets": lambda draws: EquivariantDeepSets([WIDTH] * 4, generator=draws),
    "set transformer": lambda draws: SetTransformer(WIDTH, WIDTH, WIDTH, heads=2, generator=draws),
}


@claim(
    source=("zaheer2017deep", "lee2019set"),
    predicts=AtMost("rounding(24*elements)"),
    quick=Grid(network=list(SETS), elements=[8, 32], seeds=3),
    full=Grid(network=list(SETS), elements=[8, 32, 128], seeds=20),
    controls={
        "no numbers: positions added to the elements": dict(positions=True),
        "elements one by one: an LSTM reads them": dict(in_order=True),
    },
    figures=(draw_errors,),
)
def permutation_equivariance_sets(
    network: str, elements: int, seed: int, positions: bool = False, in_order: bool = False
) -> dict[str, Any]:
    r"""Networks on sets do not depend on the order in which the elements stand.

    $rho(sum_i phi (x_i))$, with a mean or a maximum in place of the sum too, is the same for every order of its elements; a
    layer $x_i arrow.r.bar W x_i + U ⊕_j x_j + b$ commutes with every permutation @zaheer2017deep; so do attention
    among the elements and pooling by attention @lee2019set.

    Measured is the largest relative distance of the outputs over 50 orders, moved back where there is one for each element.
    The controls add sinusoids of the position to the elements, or hand over the states of an LSTM that has read them.
    """
    draws = torch.Generator().manual_seed(seed)
    device = torch.get_default_device()
    net = nn.ModuleDict({"set": SETS[network](draws), "reader": LSTM(WIDTH, WIDTH, generator=draws)}).to(device)
    x, orders = gaussian(draws, elements, WIDTH), some_orders(elements, draws)

    def through(parts: Any, h: Tensor, _: Tensor) -> list[Tensor]:
        h = h + sinusoidal(elements, WIDTH, h) if positions else h
        found = parts["set"](parts["reader"](h) if in_order else h)
        each = network.startswith("equivariant")
        return [found if each else found.reshape(len(h), 1, WIDTH).expand(-1, elements, -1)]

    return in_both_precisions(net.requires_grad_(False), through, x, torch.ones(elements, elements), orders)


if __name__ == "__main__":
    script(__file__)
