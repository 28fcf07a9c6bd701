r"""What passes along an edge.

Two networks on graphs, and what each needs. A graph convolutional network averages over neighbours @kipf2017semi, so a few
labels spread along the edges: on Zachary's karate club @zachary1977information two labelled members are enough to place
nearly all others. But an average forgets how many were averaged. On graphs in which all nodes have equally many neighbours
and carry the same number, it computes the same number everywhere and for every such graph, whatever its weights; a graph
isomorphism network, which sums over neighbours, does not @xu2019how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lemmata.architectures import GCN, GIN
from lemmata.studies.claim import AtLeast, AtMost, Grid, claim, script
from lemmata.studies.data import atlas, karate
from lemmata.studies.training import train

HIDDEN = 16
LEADERS = 0, 33  # Mr. Hi and the officer


def rewired(adjacency: Tensor, draws: torch.Generator, swaps: int = 2000) -> Tensor:
    """A random graph in which every node keeps its degree: edges ab, cd become ad, cb where that is a simple graph."""
    edges = torch.triu(adjacency).nonzero().tolist()
    present = {frozenset(edge) for edge in edges}
    picks = torch.randint(len(edges), (swaps, 2), generator=draws, device="cpu").tolist()
    turns = torch.randint(2, (swaps,), generator=draws, device="cpu").tolist()
    for (i, j), turned in zip(picks, turns, strict=True):
        (a, b), (c, d) = edges[i], edges[j][::-1] if turned else edges[j]
        made = {frozenset((a, d)), frozenset((c, b))}
        if len({a, b, c, d}) == 4 and not made & present:
            present = present - {frozenset((a, b)), frozenset((c, d))} | made
            edges[i], edges[j] = [a, d], [c, b]
    found = torch.zeros_like(adjacency)
    for a, b in edges:
        found[a, b] = found[b, a] = 1
    return found


def draw_club(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The club as a trained network sees it: members placed by its hidden layer, coloured by their community.

    Thirty-four dots in four colours, joined by thin lines that are the friendships; the four labelled members are larger.
    Dots of one colour lie together, and the few that are predicted wrongly, marked by a cross, lie between the groups or
    beside another one. Horizontal and vertical axis are the two main directions of the hidden layer.
    """
    row = next(row for row in rows if row.arm == "" and row.k == 0 and row.point["labels"] == "communities")
    x, y = row.values["place"].T
    label, wrong, known = (row.values[name] for name in ("label", "wrong", "known"))
    for a, b in row.values["edges"]:
        ax.plot(x[[a, b]], y[[a, b]], color="0.8", linewidth=0.5, zorder=1)
    for k in range(4):
        for shown, size in ((label == k) & ~known, 30), ((label == k) & known, 110):
            name = f"community {k + 1}" if size == 30 else None
            ax.scatter(x[shown], y[shown], s=size, color=f"C{k}", zorder=2, label=name)
    ax.plot(x[wrong], y[wrong], "x", color="black", label="predicted wrongly", zorder=3)
    ax.set(xlabel="first direction", ylabel="second direction")
    ax.legend(fontsize="small")
    return {"first": x, "second": y, "community": label + 1, "wrong": wrong, "labelled": known}


@claim(
    source=("kipf2017semi", "zachary1977information"),
    predicts=AtLeast(0.75, of="mean"),
    quick=Grid(labels=["factions", "communities"], steps=[300], seeds=8),
    full=Grid(labels=["factions", "communities"], steps=[300, 1000], seeds=40),
    controls={
        "the graph: its edges removed": dict(graph="none"),
        "the graph: rewired, every member keeps the number of friends": dict(graph="rewired"),
    },
    figures=(draw_club,),
)
def karate_gcn(labels: str, steps: int, seed: int, graph: str = "friendships") -> dict[str, Any]:
    r"""One label a class places most members of the karate club.

    The club's 34 members split into two factions @zachary1977information. A graph convolutional network of two layers
    @kipf2017semi sees the friendships and no other feature (each member's input is a unit vector of its own), and learns
    from one label for each class only: those of the two leaders; or, with four communities found by modularity in place of
    the factions, as its authors had it, those of the first member of each. It is trained for 300 steps of Adam
    @kingma2015adam on them. Its authors show a picture and print no accuracy. The value is the accuracy on all other
    members; its mean over seeds must be three quarters or more, for two classes and for four, where guessing gives a half
    and about a quarter.

    Without the edges nothing is learned about unlabelled members, whose weights have no gradient: of two factions of equal
    size a half is right in expectation. On a random graph with the same degrees @maslov2002specificity labels spread too,
    but to no particular place.
    """
    club = karate()
    target, adjacency = getattr(club, labels), club.adjacency
    known = club.train
    if labels == "factions":
        known = torch.zeros_like(known).index_fill(0, torch.tensor(LEADERS, device=known.device), True)
    if graph != "friendships":
        draws = torch.Generator().manual_seed(seed)
        adjacency = rewired(adjacency, draws) if graph == "rewired" else torch.zeros_like(adjacency)
    network = GCN([len(target), HIDDEN, int(target.max()) + 1], generator=torch.Generator().manual_seed(seed))
    inputs = torch.eye(len(target)), adjacency

    def loss(output: Tensor, classes: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output[known], classes[known])

    train(
        [network],
        loss,
        lambda step: ((inputs[0][None], inputs[1][None]), target[None]),
        steps,
        partial(torch.optim.Adam, lr=0.01),
    )
    with torch.no_grad():
        hidden, output = network.preactivations(*inputs)
    wrong = output.argmax(-1) != target
    state = torch.tanh(hidden)
    place = torch.linalg.svd(state - state.mean(0), full_matrices=False)
    shown = {"place": place.U[:, :2] * place.S[:2], "edges": torch.triu(adjacency).nonzero()}
    return {"value": 1 - wrong[~known].double().mean(), "wrong": wrong, "label": target, "known": known, **shown}


class Averaged(nn.Module):
    """A network's outputs at the nodes, averaged over the graph: (b, n, d) → (b, n_out)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """Return the mean over nodes."""
        return self.network(x, graph).mean(-2)


def reader(network: str, layers: int, seed: int) -> nn.Module:
    """A network that reads a whole graph, into two outputs: the mean over nodes of a GCN, or a GIN with a mean read-out."""
    generator = torch.Generator().manual_seed(seed)
    if network == "gcn":
        return Averaged(GCN([1, *[HIDDEN] * layers, 2], init="default", generator=generator))
    return GIN([1, *[HIDDEN] * layers], 2, readout="mean", generator=generator)


def is_regular(adjacency: Tensor) -> bool:
    """Whether all nodes have equally many neighbours."""
    degrees = adjacency.sum(1)
    return bool((degrees == degrees[0]).all())


@claim(
    source=("xu2019how", "read1998atlas"),
    predicts=AtMost("rounding(17*layers)"),
    quick=Grid(layers=[1, 2, 4], seeds=5),
    full=Grid(layers=[1, 2, 4, 8], seeds=50),
    controls={
        "averages over neighbours: sums (GIN)": dict(network="gin"),
        "as many neighbours everywhere: all graphs of up to seven nodes": dict(graphs="all"),
    },
)
def regular_graphs_blindness(layers: int, seed: int, network: str = "gcn", graphs: str = "regular") -> float:
    r"""A graph convolutional network with a mean read-out gives every regular graph the same output.

    In a $k$-regular graph the weights of a graph convolution are $1\/(k + 1)$ for each neighbour and for the node itself:
    they sum to one. If every node's feature is 1, all nodes keep one common state through every layer, and it depends
    neither on $k$ nor on the number of nodes; a mean over nodes keeps it. So networks that average over neighbours, with
    any weights, cannot tell a square from a cube @xu2019how.

    The 26 regular graphs of up to seven nodes are all taken from the atlas @read1998atlas, those without edges among them,
    and read by networks with random weights. The value is the largest distance between two outputs over the largest norm
    of one. Sums over neighbours depend on $k$; and on graphs that are not regular averages do differ.
    """
    chosen = [graph for graph in atlas() if len(graph) and (graphs == "all" or is_regular(graph))]
    net = reader(network, layers, seed)
    with torch.no_grad():
        outputs = torch.stack([net(torch.ones(len(graph), 1), graph) for graph in chosen])
    spread = (outputs[:, None] - outputs).norm(dim=-1).max()
    return float(spread / outputs.norm(dim=-1).max())


def regular_graphs(nodes: int, degree: int, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random graphs, in turn of degree k and k + 1 everywhere: adjacencies (count, n, n) and classes (count,)."""
    import networkx

    seeds = torch.randint(2**31, (count,), generator=draws, device="cpu").tolist()
    classes = [i % 2 for i in range(count)]
    made = [networkx.random_regular_graph(degree + c, nodes, seed=s) for c, s in zip(classes, seeds, strict=True)]
    device = torch.get_default_device()
    adjacencies = [torch.tensor(networkx.to_numpy_array(g, nodelist=range(nodes)), device=device) for g in made]
    return torch.stack(adjacencies), torch.tensor(classes, device=device)


def draw_learning(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Cross-entropy during training: with sums it goes to zero, with averages it stops at ln 2.

    Training loss against the step, logarithmic vertical axis. The line of the network that sums over neighbours falls
    by orders of magnitude; the lines of the two that average reach the dotted line at the logarithm of two from above and
    stay on it, one upon the other.
    """
    import math

    columns: dict[str, Sequence[float]] = {}
    first = rows[0].point
    for row in [row for row in rows if row.k == 0 and row.point == first]:
        label = {"": "sums (GIN)"}.get(
            row.arm, "averages (GCN)" if "GCN" in row.arm else "averages, otherwise the same"
        )
        columns["step"] = list(range(len(row.values["losses"])))
        columns[label] = row.values["losses"]
        style = "--" if "GCN" in row.arm else "-"  # the averages coincide
        ax.semilogy(columns["step"], columns[label], style, label=label)
    ax.axhline(math.log(2), color="0.5", linestyle=":", label="ln 2")
    ax.set(xlabel="step", ylabel="cross-entropy (nats)")
    ax.legend()
    return columns


@claim(
    source="xu2019how",
    predicts=AtMost(0.1),
    quick=Grid(degree=[2, 3, 5], steps=[200], seeds=5),
    full=Grid(degree=[2, 3, 4, 5, 6, 7], steps=[1000], seeds=20),
    controls={
        "sums over neighbours: averages": dict(averages=True),
        "sums over neighbours: averages, and the node among them (GCN)": dict(network="gcn"),
    },
    figures=(draw_learning,),
)
def regular_graphs_learned(
    degree: int, steps: int, seed: int, network: str = "gin", averages: bool = False
) -> dict[str, Any]:
    r"""Sums over neighbours tell k-regular from (k + 1)-regular graphs; averages never do.

    Every node's feature is 1, half of the graphs are $k$-regular and the others $(k + 1)$-regular. Networks that average
    over neighbours give all of them one output, so on balanced classes their accuracy is one half and their cross-entropy
    $-1/2 ln p - 1/2 ln (1 - p) >= ln 2 = 0.693$, with any weights. A graph isomorphism network sums $k$ or $k + 1$ ones
    @xu2019how. Of a regular graph that is all that it can see, too: it cannot tell two $k$-regular graphs apart.

    A network of two layers is trained by Adam @kingma2015adam on 32 random graphs of 10 nodes; the value is the
    cross-entropy in nats on 64 random graphs of 20 nodes, which a mean read-out makes comparable. The first control
    divides every sum by the number of its terms and leaves the rest as it is; the second trains a graph convolutional
    network.
    """
    draws = torch.Generator().manual_seed(seed)
    net = reader(network, 2, seed)
    (graphs, classes), (larger, held_out) = (regular_graphs(n, degree, m, draws) for n, m in ((10, 32), (20, 64)))
    if averages:
        graphs, larger = (a / a.sum(-1, keepdim=True) for a in (graphs, larger))
    inputs = torch.ones(*graphs.shape[:2], 1)[None], graphs[None]
    rule = partial(torch.optim.Adam, lr=0.02)
    losses = train([net], nn.functional.cross_entropy, lambda step: (inputs, classes[None]), steps, rule)
    with torch.no_grad():
        output = net(torch.ones(*larger.shape[:2], 1), larger)
    correct = (output.argmax(-1) == held_out).double().mean()
    return {"value": nn.functional.cross_entropy(output, held_out), "losses": losses[:, 0], "accuracy": correct}


if __name__ == "__main__":
    script(__file__)
