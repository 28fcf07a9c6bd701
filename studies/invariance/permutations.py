r"""Networks that do not notice in which order nodes, tokens and elements are numbered, and what makes them notice.

A graph's numbering is arbitrary. Message passing, attention without positions, and networks on sets commute with every
renumbering, layer by layer and whatever their weights @zaheer2017deep @maron2019invariant: sums, means, maxima and softmax
averages do not depend on an order. A vector added for each position, a causal mask, or an aggregation that reads its
arguments one after the other @hamilton2017inductive ends this. In floating point a sum depends on its order by its rounding,
so the law holds to rounding and seldom bit by bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
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

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
#: The representations of a batch, (b, n, d) each, after every layer.
States = Callable[[Tensor, Tensor], list[Tensor]]

WIDTH, LAYERS, ORDERS = 8, 3, 50


def renumbered(orders: Tensor, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers at nodes and between them in each of several orders: (p, n), (n, d), (n, n) → (p, n, d), (p, n, n).

    >>> x, A = renumbered(torch.tensor([[1, 0]]), torch.tensor([[3.0], [5.0]]), torch.tensor([[0.0, 7.0], [0.0, 0.0]]))
    >>> x.tolist(), A.tolist()
    ([[[5.0], [3.0]]], [[[0.0, 0.0], [7.0, 0.0]]])
    """
    return x[orders], A[orders[:, :, None], orders[:, None, :]]


def some_orders(nodes: int, draws: torch.Generator) -> Tensor:
    """The order of the numbers themselves, then random ones: (ORDERS + 1, n)."""
    first = torch.arange(nodes, device="cpu")[None]
    rest = torch.rand(ORDERS, nodes, generator=draws, device="cpu").argsort(-1)
    return torch.cat([first, rest]).to(torch.get_default_device())


def farthest(found: Tensor, truth: Tensor) -> float:
    """The largest relative distance over the batch: (b, …) against (b, …)."""
    return float(((found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).max())


def commuting(states: States, x: Tensor, A: Tensor, orders: Tensor) -> dict[str, Any]:
    """How far a network is from commuting with some orders, the first the given one, after each layer and summed over nodes."""
    with torch.no_grad():
        found = states(*renumbered(orders, x, A))
    by_layer = [farthest(h, h[0][orders]) for h in found]
    read_out = farthest(found[-1].sum(1), found[-1][:1].sum(1).expand(len(orders), -1))
    here, there = found[-1][0, :, 0][orders[1]], found[-1][1, :, 0]
    return {
        "value": max(*by_layer, read_out),
        "by layer": by_layer,
        "read-out": read_out,
        "the same bits": (found[-1] == found[-1][0][orders]).flatten(1).all(1)[1:].double().mean(),
        "here": here,
        "there": there,
    }


def in_both_precisions(net: nn.Module, through: Callable[..., list[Tensor]], *given: Tensor) -> dict[str, Any]:
    """`commuting` in double precision, and its value in single precision."""
    x, A, orders = given
    double = commuting(lambda *moved: through(net, *moved), x, A, orders)
    low = copy.deepcopy(net).float()
    single = commuting(lambda *moved: through(low, *moved), x.float(), A.float(), orders)
    return {**double, "single precision": single["value"]}


def draw_orders(ax: Any, rows: Rows) -> Columns:
    """The output of every node in two orders: on the diagonal where the order does not matter.

    Scatter of one output number at each node, computed with one numbering and, on the vertical axis, with another. Without
    positions all dots lie on the diagonal; those of the controls lie beside it.
    """
    columns: dict[str, list[Any]] = {"arm": [], "one order": [], "another": []}
    point = rows[-1].point
    for row in [row for row in rows if row.point == point and row.k == 0 and not row.error]:
        label = row.arm.partition(": ")[2] or "the claim"
        here, there = (np.asarray(row.values[key]) for key in ("here", "there"))
        ax.plot(here, there, "o" if row.arm == "" else "x", markersize=5, fillstyle="none", label=label)
        columns["arm"] += [label] * len(here)
        columns["one order"] += list(here)
        columns["another"] += list(there)
    ends = [min(columns["one order"] + columns["another"]), max(columns["one order"] + columns["another"])]
    ax.plot(ends, ends, color="0.7", linewidth=1, zorder=0)
    ax.set(xlabel="output, in one order", ylabel="in another order", aspect="equal")
    ax.legend(fontsize="small")
    return columns


def draw_errors(ax: Any, rows: Rows) -> Columns:
    """The largest error of each network: rounding in double and in single precision, and of order one in the controls.

    Logarithmic vertical axis, one place for each network. Dots near 10⁻¹⁶ for double and 10⁻⁷ for single precision, with
    maxima, which round nothing, at zero (drawn at the lower edge); crosses of the controls near one.
    """
    columns: dict[str, Any] = {"network": []}
    for row in rows:
        name = ", ".join(value for value in row.point.values() if isinstance(value, str))
        if name not in columns["network"]:
            columns["network"].append(name)
        label = row.arm.partition(": ")[2]
        series = {label: "value"} if label else {"double precision": "value", "single precision": "single precision"}
        for key, value in series.items() if not row.error else ():
            worst = columns.setdefault(key, {})
            worst[name] = max(worst.get(name, 0.0), float(row.values[value]))
    names = columns["network"]
    columns = {key: names if key == "network" else [worst[name] for name in names] for key, worst in columns.items()}
    for key, marker in zip([key for key in columns if key != "network"], "oDxv^", strict=False):
        ax.semilogy(range(len(names)), np.maximum(columns[key], 1e-17), marker, fillstyle="none", label=key)
    ax.set_xticks(range(len(names)), [name.replace(", ", ",\n").replace(" DeepSets", "\nDeepSets") for name in names])
    ax.tick_params(axis="x", labelsize="small")
    ax.set(ylabel="relative error", ylim=(5e-18, 1e3))
    ax.legend(fontsize="small", ncols=2, loc="center")
    return columns


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

    Let every layer give node $i$ a function of $h_i$ and of $plus.circle_(j tilde i) phi (h_i, h_j)$, where $plus.circle$
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
    kind = {"positions": positions, "length": tokens, "attention": attention, "causal": causal}
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
    figures=(draw_errors, draw_orders),
)
def permutation_equivariance_sets(
    network: str, elements: int, seed: int, positions: bool = False, in_order: bool = False
) -> dict[str, Any]:
    r"""Networks on sets do not depend on the order in which the elements stand.

    $rho(sum_i phi (x_i))$, with a mean or a maximum in place of the sum too, is the same for every order of its elements; a
    layer $x_i arrow.r.bar W x_i + U plus.circle_j x_j + b$ commutes with every permutation @zaheer2017deep; so do attention
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
