r"""Which graphs a network can tell apart, and which no network of its kind can.

A message-passing network with the same number at every node sees of a graph what the Weisfeiler-Leman test sees, at most:
two graphs that the test cannot split get the same output, whatever the weights @xu2019how @morris2019weisfeiler. Sums over
neighbours are enough to see as much: a graph isomorphism network with random weights tells apart all that the test does
@amir2023neural. Averages, maxima and attention forget how many neighbours there are and see less. The test is run exactly,
over every connected graph of up to seven nodes @read1998atlas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import GAT, GCN, GIN
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.invariance.graph_pairs import PAIRS, atlas_pairs, connected, path_and_star, places
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

EPSILON = math.sqrt(2) - 1  # of GIN: with a rational one a node may be taken for one of its neighbours


class Reader(nn.Module):
    """A graph network read out: the sums over nodes of its states after every layer, (b, n, d), (b, n, n) → (b, m)."""

    def __init__(self, network: nn.Module, gather: str = "sum") -> None:
        super().__init__()
        self.network, self.gather = network, gather

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        """Return the sums; the graph's rows are divided by their number of terms where neighbours are averaged."""
        if self.gather == "mean":
            A = A / A.sum(-1, keepdim=True).clamp(min=1)
        if isinstance(self.network, GIN):
            return self.network.embedding(x, A)
        states = [self.network.activation(z) for z in self.network.preactivations(x, A)]  # type: ignore[operator]
        return torch.cat([x.sum(-2), *(state.sum(-2) for state in states)], -1)


class Largest(nn.Module):
    """A GIN whose neighbours meet in an entrywise maximum instead of a sum; the same weights."""

    def __init__(self, network: GIN) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        """Return the sums over nodes after every layer."""
        states = [x]
        for layer in self.network.layers:
            h = states[-1]
            arrived = torch.where(A.unsqueeze(-1) > 0, h.unsqueeze(-3), -math.inf).amax(-2)  # (b n d)
            arrived = torch.where(A.sum(-1, keepdim=True) > 0, arrived, 0)
            states.append(self.network.activation(layer.mlp((1 + layer.epsilon) * h + arrived)))  # type: ignore[operator]
        return torch.cat([state.sum(-2) for state in states], -1)


def reader(
    kind: str, layers: int, draws: torch.Generator, n_in: int = 1, width: int = 16, activation: str = "tanh"
) -> nn.Module:
    """A network with random weights: GIN, GCN or GAT, or GIN with the mean or the maximum of the neighbours."""
    widths = [n_in, *[width] * layers]
    if kind in ("GCN", "GAT"):
        return Reader({"GCN": GCN, "GAT": GAT}[kind](widths, activation=activation, init="lecun", generator=draws))
    net = GIN(widths, 1, activation, epsilon=EPSILON, init="lecun", generator=draws)
    return Largest(net) if kind == "GIN of maxima" else Reader(net, "mean" if kind == "GIN of means" else "sum")


def closed_walks(A: Tensor) -> Tensor:
    """Closed walks of length 3 to 6 from each node, divided by those of the first node's degree: (b, n, n) → (b, n, 4)."""
    powers = [torch.linalg.matrix_power(A, k).diagonal(dim1=-2, dim2=-1) for k in range(3, 7)]
    return torch.stack(powers, -1) / A.sum(-1).max() ** torch.arange(2.0, 6.0)


def inputs(A: Tensor, features: str, draws: torch.Generator) -> Tensor:
    """What the nodes carry: ones, numbers drawn for each node of each graph, or the closed walks that pass it."""
    if features == "walks":
        return closed_walks(A)
    return gaussian(draws, *A.shape[:-1], 1) if features == "random" else torch.ones(*A.shape[:-1], 1)


def draw_pairs(ax: Any, rows: Rows) -> Columns:
    """Four pairs of graphs that the test cannot tell apart; nodes of one colour look alike to every message.

    Eight small drawings of graphs in two rows, each graph above its partner. Within a pair the same colours occur equally
    often: one colour in the regular graphs, three in the two carbon skeletons.
    """
    import networkx

    columns: dict[str, list[Any]] = {name: [] for name in ("graph", "node", "x", "y", "colour")}
    for place, (name, pair) in enumerate(PAIRS.items()):
        colours = la.wl_classes(pair).colours
        for line, (A, colour) in enumerate(zip(pair, colours, strict=True)):
            net = networkx.from_numpy_array(A)
            layout = places(net)
            at = np.array([layout[k] for k in range(len(A))]) * 0.42 + [place * 1.1, -line * 1.1]
            for a, b in net.edges:
                ax.plot(*at[[a, b]].T, color="0.6", linewidth=1, zorder=1)
            ax.scatter(*at.T, c=[f"C{k}" for k in colour.tolist()], s=36, zorder=2)
            found = {"graph": [f"{name}: {'ab'[line]}"] * len(A), "node": range(len(A)), "colour": colour.tolist()}
            for key, values in {**found, "x": at[:, 0], "y": at[:, 1]}.items():
                columns[key] += list(values)
        ax.text(place * 1.1, 0.56, name.replace(", ", ",\n"), ha="center", va="bottom", fontsize="small")
    ax.set(aspect="equal", xlim=(-0.6, 3.9), ylim=(-1.65, 0.95))
    ax.axis("off")
    return columns


@claim(
    source=("xu2019how", "morris2019weisfeiler"),
    predicts=AtMost("rounding(208*layers)"),
    quick=Grid(network=["GCN", "GIN", "GAT"], pair=[*PAIRS, "all of the atlas"], layers=[4], seeds=5),
    full=Grid(network=["GCN", "GIN", "GAT"], pair=[*PAIRS, "all of the atlas"], layers=[1, 4, 8], seeds=50),
    controls={
        "pairs in one class: a path and a star": dict(compared="path and star"),
        "equal nodes: random numbers at each": dict(features="random"),
        "nothing but messages: closed walks are counted first": dict(features="walks"),
    },
    figures=(draw_pairs,),
)
def wl_indistinguishable_pairs(
    network: str, pair: str, layers: int, seed: int, compared: str = "pair", features: str = "equal"
) -> dict[str, Any]:
    r"""Graphs that the Weisfeiler-Leman test cannot tell apart get the same output from every message-passing network.

    Let all nodes carry the same number, and let each layer compute a node's state from its own and the multiset of its
    neighbours' states. By induction over layers, nodes of one colour of the test have one state; so two graphs in which every
    colour occurs equally often have the same sums over nodes, whatever the weights @xu2019how (Lemma 2) @morris2019weisfeiler
    (Theorem 1).

    The pairs: a ring of six and two triangles; the carbon skeletons of decalin and bicyclopentyl; the prism and $K_(3,3)$, of
    degree three; two rings of 13 with different skip links; and all 26 pairs among the graphs of up to seven nodes. The value
    is $norm(f(G) - f(H)) \/ norm(f(G))$, the largest over pairs, for networks of 16 units a layer with random weights.

    In place of the pair the first control reads a path and a star of as many nodes. The second draws numbers at the nodes,
    anew for each graph @sato2021random; the third starts from the closed walks of length three to six at each node, which
    no number of messages can count. A GAT tells not even a path from a star: its weights at a node sum to one, so equal nodes
    stay equal in every graph.
    """
    draws = torch.Generator().manual_seed(seed)
    groups = atlas_pairs() if pair == "all of the atlas" else (np.stack(PAIRS[pair])[None],)
    net = reader(network, layers, draws, n_in=4 if features == "walks" else 1).to(torch.get_default_device())
    gaps = []
    for group in groups:
        both = np.stack(path_and_star(group.shape[-1]))[None] if compared == "path and star" else group
        A = torch.as_tensor(both, device=torch.get_default_device())
        with torch.no_grad():
            first, second = net(inputs(A, features, draws), A).unbind(1)
        gaps.append((first - second).norm(dim=-1) / first.norm(dim=-1))
    gap = torch.cat(gaps)
    return {"value": gap.max(), "least": gap.min(), "pairs": len(gap)}


def draw_floor(ax: Any, rows: Rows) -> Columns:
    """Cross-entropy during training: at ln 2 where both graphs get one output, towards zero where something tells them apart.

    Loss against the step. The line of the pair falls to the dotted line at the logarithm of two and stays there; the lines
    with closed walks counted first, and of a path and a star, fall to zero.
    """
    columns: dict[str, Any] = {}
    first = rows[0].point
    for row in [row for row in rows if row.point == first and row.k == 0]:
        label = row.arm.partition(": ")[2] or first["pair"]
        columns["step"], columns[label] = list(range(len(row.values["losses"]))), list(row.values["losses"])
        ax.plot(columns["step"], columns[label], label=label)
    ax.axhline(math.log(2), color="0.5", linestyle=":", label="ln 2")
    ax.set(xlabel="step", ylabel="cross-entropy (nats)", ylim=(-0.03, 1.5))
    ax.legend()
    return columns


@claim(
    source=("xu2019how", "morris2019weisfeiler"),
    predicts=AtLeast("log(2) - rounding(100)"),
    quick=Grid(pair=list(PAIRS)[:2], steps=[100], seeds=1),
    full=Grid(pair=list(PAIRS), steps=[1000], seeds=10),
    controls={
        "pairs in one class: a path and a star": dict(compared="path and star"),
        "nothing but messages: closed walks are counted first": dict(features="walks"),
    },
    figures=(draw_floor,),
)
def wl_indistinguishable_pairs_floor(
    pair: str, steps: int, seed: int, compared: str = "pair", features: str = "equal"
) -> dict[str, Any]:
    r"""On two graphs in one class of the test no graph isomorphism network is better than a coin.

    Both graphs get one probability $p$, so with a label each the mean cross-entropy is
    $-1/2 ln p - 1/2 ln (1 - p) >= ln 2 = 0.693$: whether a graph has triangles, or a molecule rings of five, is not to be
    learned from messages between equal atoms. The bound is on all weights; the value is the loss after training by Adam
    @kingma2015adam, whose start is above it, in nats.
    """
    draws = torch.Generator().manual_seed(seed)
    both = path_and_star(len(PAIRS[pair][0])) if compared == "path and star" else PAIRS[pair]
    A = torch.as_tensor(np.stack(both), device=torch.get_default_device())
    x, labels = inputs(A, features, draws), torch.arange(2)
    net = GIN([x.shape[-1], 16, 16, 16], 2, epsilon=EPSILON, generator=draws)
    rule = partial(torch.optim.Adam, lr=0.02)
    losses = train([net], nn.functional.cross_entropy, lambda step: ((x[None], A[None]), labels[None]), steps, rule)
    with torch.no_grad():
        last = nn.functional.cross_entropy(net(x, A), labels)
    return {"value": last, "losses": losses[:, 0]}


def draw_power(ax: Any, rows: Rows) -> Columns:
    """Connected graphs of seven nodes told apart, against the number of layers: sums see what the test sees, others less.

    Number of distinct outputs, the most over seeds, against layers; logarithmic vertical axis. The marks of the network of
    sums lie on the line of the test, which rises from 236 to 836 of 853 graphs. A GCN is above it at one layer and two
    below it at four; four rectifiers stay below. Means, maxima and attention lie upon each other at one: to them all these
    graphs are the same.
    """
    nodes = max(row.point["nodes"] for row in rows)
    columns: dict[str, Any] = {"layers": sorted({row.point["layers"] for row in rows})}
    first = next(row.point["activation"] for row in rows)
    for row in rows:
        here = row.point["nodes"] == nodes and row.point["activation"] == first
        label = row.arm.partition(": ")[2] or "sums (GIN)"
        if here and not row.error:
            best, t = columns.setdefault(label, {}), row.point["layers"]
            best[t] = max(best.get(t, 0), int(row.values["distinct"]))
            if row.arm == "":
                columns.setdefault("the test", {})[t] = int(row.values["classes"])
    columns = {
        key: value if key == "layers" else [value[k] for k in columns["layers"]] for key, value in columns.items()
    }
    ax.semilogy(columns["layers"], columns["the test"], color="0.75", linewidth=6, label="the test")
    others = [label for label in columns if label not in ("layers", "the test")]
    for label, marker in zip(others, "osv^Dx", strict=False):
        line = "" if label == "sums (GIN)" else "--"
        ax.semilogy(columns["layers"], columns[label], line, marker=marker, markersize=5, fillstyle="none", label=label)
    ax.set(xlabel="layers (rounds of the test)", ylabel="graphs told apart", xticks=columns["layers"])
    ax.legend(fontsize="small", ncols=2)
    return columns


@claim(
    source=("xu2019how", "amir2023neural", "read1998atlas"),
    predicts=Equals(0, within=0.5, of="each"),
    quick=Grid(nodes=[5, 6, 7], layers=[1, 2, 3, 4], activation=["tanh"], seeds=1),
    full=Grid(nodes=[5, 6, 7], layers=[1, 2, 3, 4, 5], activation=["tanh", "silu", "sin"], seeds=20),
    controls={
        "sums over neighbours: means": dict(network="GIN of means"),
        "sums over neighbours: maxima": dict(network="GIN of maxima"),
        "sums over neighbours: convolutions (GCN)": dict(network="GCN"),
        "sums over neighbours: attention (GAT)": dict(network="GAT"),
        "an analytic activation: four rectifiers": dict(activation="relu", width=4),
    },
    figures=(draw_power,),
)
def gin_injectivity_random(
    nodes: int, layers: int, activation: str, seed: int, network: str = "GIN", width: int = 16
) -> dict[str, Any]:
    r"""A graph isomorphism network with random weights tells apart exactly what the Weisfeiler-Leman test does.

    Let $h'_i = "MLP"((1 + epsilon) h_i + sum_(j tilde i) h_j)$ with an analytic activation that is no polynomial, all nodes
    alike at the start, and sum the states over nodes. For almost all weights a sum over a multiset names it, so after $t$
    layers two graphs have the same output if and only if $t$ rounds of the test leave them in one class @xu2019how (Theorem
    3) @amir2023neural.

    All connected graphs of $n$ nodes are read (853 of seven, which fall into 836 classes). The value is the number of pairs of
    graphs on which network and test differ: of one class and told apart, or of two classes and taken for one, that is, within
    $10^(-12)$ of the largest output. The numbers of classes and of distinct outputs, the smallest distance of different
    classes and the largest in one are recorded beside it.

    Controls change how neighbours are gathered. Where all nodes are alike, means, maxima and attention keep them alike, and
    all graphs are one. A GCN weighs by $1\/sqrt(d_i d_j)$, so that its layers see degrees one round ahead of the test; but
    all regular graphs are one to it, however deep. The last control takes four rectifiers a layer, which map many states to
    zero.
    """
    draws = torch.Generator().manual_seed(seed)
    net = reader(network, layers, draws, width=width, activation=activation).to(torch.get_default_device())
    found = la.separation(net, connected(nodes), rounds=layers)
    return {
        "value": found.merged + found.split,
        "classes": found.classes,
        "distinct": found.distinct,
        "within": found.within,
        "between": found.between,
        "converged": found.converged,
    }


if __name__ == "__main__":
    script(__file__)
