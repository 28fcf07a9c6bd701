r"""What deep networks on graphs forget.

A graph convolution averages over neighbours @kipf2017semi. Averaged again and again, all nodes come to say the same,
up to their degrees: distances to that limit fall exponentially in the depth @li2018deeper @oono2020graph. And the
influence of a far node is a sum over walks between the two, each divided by the degrees that it passes: it is squashed
where many nodes share few paths @alon2021bottleneck @topping2022understanding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev

from lemmata.architectures import GCN, adjacency
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import atlas, gaussian, karate

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def joined(pairs: Sequence[tuple[int, int]]) -> Tensor:
    """The adjacency matrix of an undirected graph, from its edges, each listed once."""
    edges = torch.tensor(pairs).T
    return adjacency(torch.cat([edges, edges.flip(0)], 1), int(edges.max()) + 1, torch.get_default_dtype())


def tree(depth: int) -> Tensor:
    """A binary tree, its root first and its leaves last."""
    return joined([((child - 1) // 2, child) for child in range(1, 2 ** (depth + 1) - 1)])


def grid(rows: int, columns: int) -> Tensor:
    """A rectangular grid."""
    places = [(i, j) for i in range(rows) for j in range(columns)]
    down = [(i * columns + j, (i + 1) * columns + j) for i, j in places if i + 1 < rows]
    return joined([*down, *((i * columns + j, i * columns + j + 1) for i, j in places if j + 1 < columns)])


def cliques(size: int, path: int, both: bool) -> Tensor:
    """A complete graph with a path that starts at one of its nodes and, if both, ends at one of another complete graph."""
    first = [(i, j) for j in range(size) for i in range(j)]
    way = [(size - 1 + k, size + k) for k in range(path)]
    last = [(size + path - 1 + i, size + path - 1 + j) for i, j in first] if both else []
    return joined([*first, *way, *last])


GRAPHS: Mapping[str, Callable[[], Tensor]] = {
    "karate club": lambda: karate().adjacency,
    "binary tree": lambda: tree(4),
    "grid": lambda: grid(4, 7),
    "barbell": lambda: cliques(6, 3, both=True),
    "lollipop": lambda: cliques(6, 6, both=False),
}


def walk(A: Tensor) -> tuple[Tensor, Tensor]:
    r"""$hat(A)$ and the square roots of the degrees, of graphs (..., n, n), every node a neighbour of itself."""
    looped = A + torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    root = looped.sum(-1).sqrt()
    return looped / (root[..., :, None] * root[..., None, :]), root


def modulus(A: Tensor, place: int = 1) -> Tensor:
    """The modulus of an eigenvalue of a connected graph's walk, by size; the first, at place 0, is one."""
    return torch.linalg.eigvalsh(walk(A)[0]).abs().sort(descending=True).values[..., place]


def off(h: Tensor, direction: Tensor) -> Tensor:
    """The distance of features (..., n, d) from those that are multiples of one vector (..., n) in every column."""
    unit = (direction / direction.norm(dim=-1, keepdim=True)).unsqueeze(-1)
    return torch.linalg.matrix_norm(h - unit @ (unit.mT @ h))


# How fast nodes become alike


def draw_distances(ax: Any, rows: Rows) -> Columns:
    """Features of a graph convolutional network approach the roots of the degrees; with an initial residual they do not.

    Distance over size of the features against the layer, on a logarithmic axis, for the karate club. One curve falls
    along a dashed straight line; two others turn level after a few layers.
    """
    own = [
        row for row in rows if row.k == 0 and row.point["graph"] == "karate club" and row.point["walk"] == "symmetric"
    ]
    wanted = ("", "no residual", "own limit")
    columns: dict[str, Any] = {}
    for place, part in enumerate(wanted):
        row = next(row for row in own if (part in row.arm if part else not row.arm))
        columns.setdefault("layer", np.arange(len(row.values["curve"])))
        name = ("plain", "initial residual", "plain, from constants")[place]
        columns[name] = row.values["curve"]
        ax.semilogy(columns["layer"], columns[name], color=f"C{place}", label=name)
        if not part:
            columns["rate"] = columns[name][0] * np.exp(row.values["rate"] * columns["layer"])
            ax.semilogy(columns["layer"], columns["rate"], "--", color="0.3", linewidth=1, label="$|\\lambda_2|^l$")
    ax.set(xlabel="layer", ylabel="distance ÷ size")
    ax.legend()
    return columns


WALKS = ["symmetric", "random walk"]


@claim(
    source=("oono2020graph", "li2018deeper", "kipf2017semi"),
    predicts=Equals(0, within=1e-3, of="each"),
    quick=Grid(graph=list(GRAPHS), walk=WALKS, depth=[200], width=[8], seeds=3),
    full=Grid(graph=list(GRAPHS), walk=WALKS, depth=[200], width=[8, 64], seeds=20),
    controls={
        "no residual: a tenth of the input added to every layer": dict(initial=0.1),
        "each normalisation's own limit: the other's": dict(swapped=True),
        "weights of norm one: of norm two": dict(size=2.0),
    },
    figures=(draw_distances,),
)
def gcn_oversmoothing_rate(
    graph: str,
    walk: str,
    depth: int,
    width: int,
    seed: int,
    initial: float = 0.0,
    swapped: bool = False,
    size: float = 1.0,
) -> dict[str, Any]:
    r"""Deep linear graph convolutions forget all but the degrees, at the rate of an eigenvalue.

    Let $H_(l+1) = hat(A) H_l W_l$ with $hat(A) = tilde(D)^(-1\/2) tilde(A) tilde(D)^(-1\/2)$, $tilde(A) = A + I$ and
    $W_l$ orthogonal. The largest eigenvalue of $hat(A)$ on a connected graph is one, with eigenvector $tilde(D)^(1\/2)
    1$, and $H_l$ approaches multiples of it like $abs(lambda_2)^l$, with $lambda_2$ the eigenvalue next in modulus
    @oono2020graph @li2018deeper. The random walk $tilde(D)^(-1) tilde(A)$ has the same eigenvalues, but its limit is
    constant: the two normalisations forget different things. The value is the slope of the logarithm of the distance
    over the second half of the layers, minus $ln abs(lambda_2)$, on five graphs.

    Controls: $(1 - alpha) hat(A) H_l + alpha H_0$ in place of $hat(A) H_l$, as in @chen2020simple, keeps its distance;
    so does each normalisation from the limit of the other; and with weights of norm $2 > 1\/abs(lambda_2)$ distances
    grow.
    """
    draws, A = torch.Generator().manual_seed(seed), GRAPHS[graph]()
    rate = float(modulus(A).log())
    net = GCN([width] * (depth + 1), torch.nn.Identity(), "orthogonal", bias=False, generator=draws)
    root = (A.sum(1) + 1).sqrt()
    scale = torch.ones_like(root) if walk == "symmetric" else root
    limit = torch.ones_like(root) if (walk == "symmetric") == swapped else root
    h = start = gaussian(draws, len(A), width)
    distances, shares = [off(h, limit)], [off(h, limit) / h.norm()]
    with torch.no_grad():
        for layer in net.layers:
            h = (1 - initial) * layer(scale[:, None] * h, A) / scale[:, None] + initial * start @ layer.get_parameter(
                "weight"
            ).T
            h = size * h
            distances.append(off(h, limit))
            shares.append(distances[-1] / h.norm())
    slope = float((distances[-1] / distances[depth // 2]).log()) / (depth - depth // 2)
    return {"value": slope - rate, "rate": rate, "curve": torch.stack(shares)}


@claim(
    source=("oono2020graph", "kipf2017semi"),
    predicts=AtMost("1 + rounding(49)"),
    quick=Grid(common=[0.0, 3.0], width=[6], layers=[3], seeds=4),
    full=Grid(common=[0.0, 0.3, 3.0], width=[6, 32], layers=[3], seeds=40),
    controls={
        "rectifiers: tanh": dict(activation="tanh"),
        "no biases: random ones": dict(bias=1.0),
        "all eigenvalues but the first: all but the first two": dict(place=2),
    },
)
def gcn_oversmoothing_rate_bound(
    common: float, width: int, layers: int, seed: int, activation: str = "relu", bias: float = 0.0, place: int = 1
) -> dict[str, Any]:
    r"""No layer of a graph convolutional network keeps more than a share of what tells nodes apart.

    Let $d(H)$ be the distance of features from the multiples of $tilde(D)^(1\/2) 1$, $lambda$ the largest modulus of
    the other eigenvalues of $hat(A)$ and $s$ the norm of $W$. On every connected graph
    $ d("relu"(hat(A) H W)) <= s lambda d(H), $
    because $hat(A)$ contracts what is orthogonal to that vector, and rectifying keeps its multiples and brings nothing
    further from them @oono2020graph. Hence $d(H_L) <= (s lambda)^L d(H_0)$, and a network with $s < 1\/lambda$
    forgets. The value is the largest ratio of the two sides over three layers of random networks on every connected
    graph of seven nodes except the complete one, where $lambda = 0$, for inputs without and with a large part that the
    bound does not see; how near it comes to one tells how sharp the bound is.

    Controls: tanh and biases, under which multiples of $tilde(D)^(1\/2) 1$ do not stay such; the third eigenvalue in
    place of the second.
    """
    draws = torch.Generator().manual_seed(seed)
    A = torch.stack(atlas(7))
    kept = (modulus(A) > 1e-6) & (torch.linalg.eigvalsh(walk(A)[0])[:, -2] < 1 - 1e-6)  # connected, not complete
    A, root = A[kept], walk(A[kept])[1]
    net = GCN([width] * (layers + 1), activation, "lecun", generator=draws).requires_grad_(False)
    h = gaussian(draws, len(A), len(A[0]), width) + common * root.unsqueeze(-1) * gaussian(draws, len(A), 1, width)
    ratios = []
    for layer in net.layers:
        layer.get_parameter("bias").copy_(bias * gaussian(draws, width))
        before, h = off(h, root), net.activation(layer(h, A))
        s = torch.linalg.matrix_norm(layer.get_parameter("weight"), 2)
        seen = before > 1e-6 * torch.linalg.matrix_norm(h)  # where all units are silent, nothing is left to divide by
        ratios.append(torch.where(seen, off(h, root) / (s * modulus(A, place) * before), 0.0))
    return {"value": float(torch.stack(ratios).max()), "graphs": len(A)}


# What a far node is told


@claim(
    source=("topping2022understanding", "kipf2017semi"),
    predicts=AtMost("1 + rounding(34*depth)"),
    quick=Grid(graph=list(GRAPHS), depth=[2, 4, 6], width=[4], seeds=3),
    full=Grid(graph=list(GRAPHS), depth=[2, 4, 6, 10], width=[4, 16], seeds=20),
    controls={
        "slopes of at most one: units of slope two": dict(steep=2.0),
        "norms of the weights: the root mean square of their singular values": dict(typical=True),
    },
)
def oversquashing_jacobian(
    graph: str, depth: int, width: int, seed: int, steep: float = 1.0, typical: bool = False
) -> dict[str, Any]:
    r"""What a node hears of another is bounded by a sum over walks.

    In a graph convolutional network with units of slope at most one
    $ norm((partial h_i^((r))) / (partial x_s)) <= (product_(l=1)^r norm(W_l)) (hat(A)^r)_(i s) $
    for any two nodes: the influence of $x_s$ spreads like a random walk of $r$ steps, and is nothing where no walk
    leads @topping2022understanding. The value is the largest ratio of the two sides over all pairs of nodes, for
    random tanh networks with small inputs; where the right-hand side is zero so must the left be, exactly.

    Controls: units that are steeper; and weights measured by what they do to an average vector instead of by their
    norm.
    """
    draws, A = torch.Generator().manual_seed(seed), GRAPHS[graph]()
    net = GCN(
        [width] * (depth + 1), lambda z: torch.tanh(steep * z), "lecun", bias=False, generator=draws
    ).requires_grad_(False)
    J = jacrev(lambda x: net(x, A))(0.1 * gaussian(draws, len(A), width))  # (n d n d)
    found = torch.linalg.matrix_norm(J.transpose(1, 2), 2)
    weights = torch.stack([layer.get_parameter("weight") for layer in net.layers])
    norms = torch.linalg.matrix_norm(weights, "fro") / width**0.5 if typical else torch.linalg.matrix_norm(weights, 2)
    bound = norms.prod() * torch.linalg.matrix_power(walk(A)[0], depth)
    return {"value": float((found / bound.clamp(min=1e-300)).max()), "unreached": float((bound == 0).double().mean())}


def draw_squashing(ax: Any, rows: Rows) -> Columns:
    """What the root of a binary tree hears of one leaf.

    The derivative against the depth of the tree, on a logarithmic axis. Dots lie on a straight line that falls by four
    a level; crosses, with an edge between the two, lie on a curve far above that falls slowly.
    """
    columns: dict[str, Any] = {"depth": sorted({row.point["depth"] for row in rows})}
    for part, mark, name in (("", "o", "tree"), ("no edge", "x", "with an edge from root to leaf")):
        chosen = {r.point["depth"]: r for r in rows if r.k == 0 and (part in r.arm if part else not r.arm)}
        columns[name] = [chosen[depth].values["derivative"] for depth in columns["depth"]]
        ax.semilogy(columns["depth"], columns[name], mark, label=name)
    columns["formula"] = [4.0 ** (1 - depth) / 6**0.5 for depth in columns["depth"]]
    ax.semilogy(columns["depth"], columns["formula"], color="C0", linewidth=1, label="$4^{1-r}/\\sqrt{6}$")
    ax.set(xlabel="depth of the tree r", ylabel="derivative")
    ax.legend()
    return columns


@claim(
    source=("alon2021bottleneck", "topping2022understanding"),
    predicts=Equals("4/sqrt(6)", within="rounding(8*depth)", of="each"),
    quick=Grid(depth=[2, 3, 4, 5, 6, 7, 8], seeds=3),
    full=Grid(depth=[2, 3, 4, 5, 6, 7, 8, 9, 10], seeds=5),
    controls={
        "no edge from the root to the leaf: one": dict(shortcut=True),
        "linear units: tanh": dict(activation="tanh"),
    },
    figures=(draw_squashing,),
)
def oversquashing_jacobian_tree(
    depth: int, seed: int, shortcut: bool = False, activation: str = "linear"
) -> dict[str, float]:
    r"""With each level the root of a binary tree hears a quarter as much of a leaf.

    In a tree of depth $r$ one walk of $r$ steps leads from a leaf to the root. A step between two nodes is divided by
    the root of the product of their degrees, a node counted as its own neighbour: four inside, three at the root, two
    at a leaf. Linear message passing with weights of one therefore has
    $ (partial h_"root") / (partial x_"leaf") = (hat(A)^r)_("root", "leaf") = 4^(1 - r) \/ sqrt(6), $
    and meets the bound above with equality, while the root hears $2^r$ leaves @alon2021bottleneck
    @topping2022understanding. The value is the derivative, multiplied by $4^r$. Controls: an edge between that leaf
    and the root; tanh.
    """
    A = tree(depth)
    if shortcut:
        A[0, -1] = A[-1, 0] = 1
    units = torch.nn.Identity() if activation == "linear" else activation
    net = GCN([1] * (depth + 1), units, bias=False).requires_grad_(False)
    for layer in net.layers:
        layer.get_parameter("weight").fill_(1.0)
    x = gaussian(torch.Generator().manual_seed(seed), len(A), 1).requires_grad_()
    derivative = float(torch.autograd.grad(net(x, A)[0, 0], x)[0][-1])
    return {"value": derivative * 4**depth, "derivative": derivative}


if __name__ == "__main__":
    script(__file__)
