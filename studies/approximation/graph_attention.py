r"""Static attention: all nodes of a GAT look at the same neighbour.

The score of a graph attention network is a monotone function of a sum, one part from the node that looks and one from the
node looked at @velickovic2018graph. So every node ranks its neighbours in the same order, whatever the parameters; to look
up one's own key in a dictionary needs as many rankings as keys. Changing the order of two operations, as in GATv2, is
enough @brody2022how. That the attention is static does not say that the labels cannot be told: what a network can make of
static averages depends on its size, and is shown beside the theorem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu

from lemmata.architectures import MLP, GATLayer, GATv2Layer
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

SLOPE = 0.2  # of both layers' LeakyReLU
LAYERS: Mapping[str, type[GATLayer] | type[GATv2Layer]] = {"GAT": GATLayer, "GATv2": GATv2Layer}
DYNAMIC = "a score of a sum: GATv2's, a sum of scores"


def raw_scores(layer: GATLayer | GATv2Layer, x: Tensor) -> Tensor:
    """Scores before the softmax on the complete graph, (receivers, senders, heads), for nodes x (n, d)."""
    u = leaky_relu(layer.before_kinks(x, torch.ones(len(x), len(x))), SLOPE)
    return u if isinstance(layer, GATLayer) else (u * layer.a).sum(-1)


def least_agreement(scores: Tensor) -> float:
    """The least of Kendall's τ between the rankings of any two receivers, over heads."""
    tables = scores.detach().cpu().numpy().transpose(2, 0, 1)
    return min(kendalltau(a, b).statistic for table in tables for a, b in combinations(table, 2))


# Looking up


class Lookup(nn.Module):
    """Queries that attend to keys, then a small network: features (…, 2k, 2k) to scores of k values at k queries."""

    graph: Tensor
    layer: GATLayer | GATv2Layer

    def __init__(self, kind: str, keys: int, width: int, heads: int, draws: torch.Generator):
        super().__init__()
        self.keys = keys
        self.layer = LAYERS[kind](2 * keys, width, heads, generator=draws)
        self.readout = MLP([width, keys], generator=draws)
        graph = torch.zeros(2 * keys, 2 * keys)
        graph[:keys, keys:] = 1.0  # queries see the keys
        self.register_buffer("graph", graph)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores: (…, 2k, 2k) → (…, k, k)."""
        return self.readout(self.layer(x, self.graph)[..., : self.keys, :].relu())

    def attended(self, x: Tensor) -> Tensor:
        """The weights that queries give to keys: (…, k, k, heads)."""
        return self.layer.attention(x, self.graph)[..., : self.keys, self.keys :, :]


def dictionaries(shape: tuple[int, ...], keys: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Nodes (…, 2k, 2k), queries with a key each, then keys with a value each, and the values (…, k) to be found."""
    values = torch.rand(*shape, keys, generator=draws, device="cpu").argsort(-1).to(torch.get_default_device())
    eye = torch.eye(keys)
    key, none = eye.expand(*shape, -1, -1), torch.zeros(*shape, keys, keys)
    return torch.cat([torch.cat([key, none], -1), torch.cat([key, eye[values]], -1)], -2), values


def entropy(output: Tensor, values: Tensor) -> Tensor:
    """Cross entropy, the mean over queries."""
    return cross_entropy(output.flatten(0, 1), values.flatten())


def lookups(kind: str, keys: int, heads: int, nets: int, steps: int, draws: torch.Generator) -> list[Lookup]:
    """Networks trained side by side on new dictionaries at every step."""
    made = [Lookup(kind, keys, 32, heads, draws).to(torch.get_default_device()) for _ in range(nets)]
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.03, total_steps=steps)
    adam = partial(torch.optim.Adam, lr=0.03)
    train(made, entropy, lambda step: dictionaries((nets, 32), keys, draws), steps, adam, cycle)
    return [net.requires_grad_(False) for net in made]


@claim(
    source="brody2022how",
    predicts=Equals(1, within=1e-12, of="each"),
    quick=Grid(weights=["random", "trained"], nodes=[12], heads=[4], seeds=3),
    full=Grid(weights=["random", "trained"], nodes=[12, 24], heads=[1, 4], seeds=20),
    controls={DYNAMIC: dict(kind="GATv2")},
)
def gat_static_attention(weights: str, nodes: int, heads: int, seed: int, kind: str = "GAT") -> dict[str, float]:
    r"""In a GAT all nodes rank their neighbours alike.

    The score of node $j$ at node $i$ is $ e_(i j) = "LeakyReLU"(a_r dot W h_i + a_s dot W h_j), $
    increasing in $a_s dot W h_j$ because LeakyReLU is. So all nodes $i$ order the same neighbours in the same way, whatever
    $W$ and $a$ @brody2022how (Theorem 1). The value is the least of Kendall's $tau$ between the orders at any two nodes of a
    complete graph, over heads; one means that all agree. Weights are random, or trained to look up a dictionary.

    Control: $e_(i j) = a dot "LeakyReLU"(W_r h_i + W_s h_j)$, in which LeakyReLU bends before the sum.
    """
    draws = torch.Generator().manual_seed(seed)
    if weights == "trained":
        layer = lookups(kind, nodes // 2, heads, 1, 100, draws)[0].layer
        x = dictionaries((), nodes // 2, draws)[0]
    else:
        layer = LAYERS[kind](8, 8, heads, generator=draws).requires_grad_(False)
        x = gaussian(draws, nodes, 8)
    scores = raw_scores(layer, x)
    distinct = max(len(scores[..., head].argmax(1).unique()) for head in range(heads))
    return {"value": least_agreement(scores), "favourites": distinct}


def draw_attention(ax: Any, rows: Rows) -> Columns:
    """Where trained queries look: in a GAT all at the same key, in a GATv2 each at its own.

    Two tables of weights side by side, queries in rows and keys in columns, dark where a weight is large. On the left one
    column is dark; on the right the diagonal is.
    """
    keys = max(row.point["keys"] for row in rows)
    parts = {}
    for arm, kind in (("", "GAT"), (DYNAMIC, "GATv2")):
        found = [row for row in rows if row.arm == arm and row.point["keys"] == keys and not row.error]
        parts[kind] = max(found, key=lambda row: row.values["value"]).values["attention"]
    gap = np.full((keys, 1), np.nan)
    ax.imshow(np.hstack([parts["GAT"], gap, parts["GATv2"]]), cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks([*range(keys), *range(keys + 1, 2 * keys + 1)], [*range(1, keys + 1)] * 2)
    ax.set_yticks(range(keys), range(1, keys + 1))
    ax.set(xlabel="key", ylabel="query", title="GAT (left), GATv2 (right)")
    ax.grid(visible=False)
    query, key = (index.ravel() + 1 for index in np.indices((keys, keys)))
    return {"query": query, "key": key, **{kind: part.ravel() for kind, part in parts.items()}}


def draw_shares(ax: Any, rows: Rows) -> Columns:
    """How many queries look at their own key, and how many labels are right.

    Four bars for each number of keys. A GAT's share of queries that look most at their own key is one over the number of
    keys; its labels are right more often, fewer with more keys. Both of a GATv2 are near one.
    """
    columns: dict[str, Any] = {"keys": sorted({row.point["keys"] for row in rows})}
    place = np.arange(len(columns["keys"]))
    for arm, kind, shift in (("", "GAT", -0.3), (DYNAMIC, "GATv2", 0.1)):
        for key, label, hatch, step in (("value", "attention", "", 0.0), ("accuracy", "labels", "//", 0.2)):
            chosen = [[r.values[key] for r in rows if (r.arm, r.point["keys"]) == (arm, k)] for k in columns["keys"]]
            columns[f"{kind} {label}"] = height = [float(np.max(values)) for values in chosen]
            color = "C0" if kind == "GAT" else "C1"
            ax.bar(
                place + shift + step,
                height,
                0.2,
                color=color,
                alpha=0.5 if hatch else 1,
                hatch=hatch,
                label=f"{kind}: {label}",
            )
    ax.set_xticks(place, columns["keys"])
    ax.set(xlabel="keys", ylabel="share right", ylim=(0, 1.3))
    ax.legend(ncols=2, fontsize="small")
    return columns


@claim(
    source="brody2022how",
    predicts=AtMost("1/keys", of="max"),
    quick=Grid(keys=[4, 8], nets=[4], steps=[300], seeds=2),
    full=Grid(keys=[4, 8, 16], nets=[8], steps=[2000], seeds=5),
    controls={DYNAMIC: dict(kind="GATv2")},
    figures=(draw_attention, draw_shares),
    timeout=3600,
)
def gat_static_attention_lookup(keys: int, nets: int, steps: int, seed: int, kind: str = "GAT") -> dict[str, Any]:
    r"""In a dictionary of k keys, one query in k looks at its own key in a GAT.

    $k$ queries hold a key each, $k$ other nodes a key and a value, anew for every dictionary; each query sees all the keys and
    shall tell its value. As all queries rank the keys alike, one key is the favourite of all: at most $1\/k$ of them look most
    at their own @brody2022how. The value is the largest such share among trained networks with one head, over 200
    dictionaries each. Control: GATv2.

    The bound is on where the network looks. How many labels it tells is another matter, and is drawn too: a wide head can
    hand on an average from which a network behind it reads part of the dictionary, more of a small one.
    """
    draws = torch.Generator().manual_seed(seed)
    made = lookups(kind, keys, 1, nets, steps, draws)
    x, values = dictionaries((200,), keys, draws)
    weights = [net.attended(x)[..., 0] for net in made]
    own = torch.stack([(w.argmax(-1) == torch.arange(keys)).double().mean() for w in weights])
    right = torch.stack([(net(x).argmax(-1) == values).double().mean() for net in made])
    return {"value": float(own.max()), "accuracy": float(right.max()), "attention": weights[int(own.argmax())][0]}


if __name__ == "__main__":
    script(__file__)
