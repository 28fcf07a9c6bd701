"""Graph networks: equal to PyTorch Geometric's layers, the same for both forms of a graph, blind to nodes' names.

Truth: torch_geometric's GCNConv, GINConv, GATConv, GATv2Conv and its MessagePassing with a message written here, given
the same weights; closed forms on complete graphs, stars and rings; permutations of the nodes.
"""

from __future__ import annotations

import doctest
import functools
import importlib

import pytest
import torch
from scipy import stats
from torch import nn

from lemmata.architectures._graphs import adjacency, checked_graph
from lemmata.architectures._pieces import ArchitectureError, Law
from lemmata.architectures.graph import GCN, GCNLayer
from lemmata.architectures.graph_attention import GAT, GATLayer
from lemmata.architectures.graph_attention_v2 import GATv2, GATv2Layer
from lemmata.architectures.graph_isomorphism import GIN, GINLayer
from lemmata.architectures.message_passing import MessagePassing
from lemmata.architectures.mlp import MLP

TOLERANCE = 1e-10  # relative, float64: a thousand times the rounding, a ten-thousandth of the planted 1e-6
DRAWS = 20
NODES = 7
LAW = Law("biased", lambda n, m: 1 / n, lambda n, m: 0.5)  # no bias is 0


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def simple_graph(seed, nodes=NODES):
    """A directed graph without loops or repeated edges, as PyG and the papers have it; some nodes may hear nothing."""
    A = (randn(seed, nodes, nodes) > 0.3).double()
    return A - torch.diag(A.diagonal())


def edges_of(A):
    """The list of edges of an adjacency, written apart from the lab's: A[i, j] is an edge from j to i."""
    return A.nonzero().T.flip(0)


def message_mlps(seed):
    g = seeded(seed)
    return tuple(MLP(widths, dtype=torch.float64, generator=g) for widths in ([6, 5, 4], [7, 2]))


def own(kind, seed):
    settings = {"init": LAW, "dtype": torch.float64, "generator": seeded(seed)}
    builders = {
        "GCN layer": lambda: GCNLayer(3, 4, **settings),
        "GCN": lambda: GCN([3, 5, 2], **settings),
        "GIN layer": lambda: GINLayer([3, 5, 4], epsilon=0.3, **settings),
        "GIN": lambda: GIN([3, 5, 4], 2, epsilon=0.3, **settings),
        "GIN mean": lambda: GIN([3, 5, 4], 2, readout="mean", epsilon=0.3, **settings),
        "GIN nodes": lambda: GIN([3, 5, 4], 2, readout="none", epsilon=0.3, **settings),
        "GAT layer, concat": lambda: GATLayer(3, 4, heads=2, **settings),
        "GAT layer, mean": lambda: GATLayer(3, 4, heads=2, merge="mean", **settings),
        "GAT": lambda: GAT([3, 4, 2], heads=2, **settings),
        "GATv2 layer, concat": lambda: GATv2Layer(3, 4, heads=2, **settings),
        "GATv2 layer, mean": lambda: GATv2Layer(3, 4, heads=2, merge="mean", **settings),
        "GATv2": lambda: GATv2([3, 4, 2], heads=2, **settings),
        **{
            f"message passing {a}": (lambda a=a: MessagePassing(*message_mlps(seed), a)) for a in ("sum", "mean", "max")
        },
    }
    return builders[kind]()


KINDS = [
    *("GCN layer", "GCN", "GIN layer", "GIN", "GIN mean", "GIN nodes"),
    *("GAT layer, concat", "GAT layer, mean", "GAT", "GATv2 layer, concat", "GATv2 layer, mean", "GATv2"),
    *(f"message passing {a}" for a in ("sum", "mean", "max")),
]
EQUIVARIANT = [kind for kind in KINDS if kind not in ("GIN", "GIN mean")]


class Biased(nn.Module):
    """GATv2Conv puts biases into its linear maps too, which the paper has not: leave them out, add the last again."""

    def __init__(self, conv, size):
        super().__init__()
        self.conv, self.bias = conv, nn.Parameter(torch.empty(size))

    def forward(self, x, edges):
        return self.conv(x, edges) + self.bias


class Chain(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x, edges):
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else x.tanh(), edges)
        return x


class ReadOut(nn.Module):
    def __init__(self, layers, size, pool):
        super().__init__()
        self.layers, self.readout, self.pool = nn.ModuleList(layers), nn.Linear(size, 2), pool

    def forward(self, x, edges):
        seen = [x]
        for layer in self.layers:
            seen.append(layer(seen[-1], edges).tanh())
        return self.readout(self.pool(torch.cat(seen, -1)))


def two_linear(n, m):
    return nn.Sequential(nn.Linear(n, m), nn.Tanh(), nn.Linear(m, m))


def peer_of(kind):
    """Return PyG's net and, for each of its parameters, the names of ours that fill it."""
    pyg = pytest.importorskip("torch_geometric.nn")
    conv = {
        "GCN": lambda n, m, **k: pyg.GCNConv(n, m),
        "GAT": lambda n, m, concat: pyg.GATConv(n, m // 2 if concat else m, heads=2, concat=concat),
        "GATv2": lambda n, m, concat: Biased(
            pyg.GATv2Conv(n, m // 2 if concat else m, heads=2, concat=concat, bias=False), m
        ),
    }
    names = {
        "GCN": {"lin.weight": "weight", "bias": "bias"},
        "GAT": {"lin.weight": "weight", "att_src": "a_sender", "att_dst": "a_receiver", "bias": "bias"},
        "GATv2": {"conv.lin_l.weight": "W_sender", "conv.lin_r.weight": "W_receiver", "conv.att": "a", "bias": "bias"},
    }
    mlp = {f"nn.{2 * i}.{part}": f"mlp.layers.{i}.{part}" for i in range(2) for part in ("weight", "bias")}
    gin = {"eps": "epsilon", **mlp}

    def both(one):
        return {f"layers.{i}.{theirs}": f"layers.{i}.{ours}" for i in range(2) for theirs, ours in one.items()}

    family, _, rest = kind.partition(" ")
    if kind.startswith("message passing"):
        return general_peer(kind.split()[-1])
    if kind == "GIN layer":
        return pyg.GINConv(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)), train_eps=True), gin
    if family == "GIN":
        pools = {"": lambda h: h.sum(0), "mean": lambda h: h.mean(0), "nodes": lambda h: h}
        layers = [pyg.GINConv(two_linear(n, m), train_eps=True) for n, m in ((3, 5), (5, 4))]
        own_names = {name: name for name in ("readout.weight", "readout.bias")}
        return ReadOut(layers, 12, pools[rest]), both(gin) | own_names
    if rest:
        return conv[family](3, 4, concat="mean" not in rest), names[family]
    hidden = 5 if family == "GCN" else 4
    return Chain(conv[family](3, hidden, concat=True), conv[family](hidden, 2, concat=False)), both(names[family])


@functools.cache  # PyG writes code for each class of messages
def general_class(aggregation):
    pyg = pytest.importorskip("torch_geometric.nn")

    class General(pyg.MessagePassing):
        def __init__(self):
            super().__init__(aggr=aggregation)
            self.phi = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
            self.psi = nn.Linear(7, 2)

        def forward(self, x, edge_index):
            return self.psi(torch.cat([x, self.propagate(edge_index, x=x)], -1))

        def message(self, x_i, x_j):
            return self.phi(torch.cat([x_i, x_j], -1))

    return General


def general_peer(aggregation):
    kinds = ("weight", "bias")
    names = {f"phi.{2 * i}.{kind}": f"phi.layers.{i}.{kind}" for i in range(2) for kind in kinds}
    return general_class(aggregation)(), names | {f"psi.{kind}": f"psi.layers.0.{kind}" for kind in kinds}


def copied(ours, kind):
    """Return the peer with our weights, and the names."""
    peer, names = peer_of(kind)
    peer = peer.double()
    mine, theirs = dict(ours.named_parameters()), dict(peer.named_parameters())
    assert set(names) == set(theirs) and sorted(names.values()) == sorted(mine)
    with torch.no_grad():
        for their, my in names.items():
            assert mine[my].abs().min() > 0
            theirs[their].copy_(mine[my].reshape(theirs[their].shape))
    return peer, names


def parts(net, names, x, graph):
    """Return the output, and the gradients of a random linear function of it, in the order of `names`."""
    x = x.clone().requires_grad_()
    out, named = net(x, graph), dict(net.named_parameters())
    wanted = [x, *(named[name] for name in names)]
    return [out, *torch.autograd.grad((out * randn(5, *out.shape)).sum(), wanted)]


def parity_error(ours, peer):
    """Return the largest relative difference of outputs and gradients, given as `parts` gives them.

    A gradient that all but vanishes (a score's, where LeakyReLU is linear for all neighbours, which a softmax does not
    see) is compared with a thousandth of the largest.
    """
    floor = 1e-3 * max(q.norm() for q in peer)
    errors = [(p.flatten() - q.flatten()).norm() / max(q.norm(), floor) for p, q in zip(ours, peer, strict=True)]
    return torch.stack(errors).max().item()  # NaN if one is, which Python's max would pass over


@pytest.mark.parametrize("kind", KINDS)
def test_parity(kind):
    for seed in range(DRAWS):
        A = simple_graph(seed)
        ours, edges, x = own(kind, seed), edges_of(A), randn(seed + 1000, NODES, 3)
        peer, names = copied(ours, kind)
        truth = parts(peer, names, x, edges)
        for graph in (A, edges):
            found = parts(ours, names.values(), x, graph)
            assert parity_error(found, truth) <= TOLERANCE
        seen = [(name, g.abs().argmax()) for name, g in zip(names.values(), found[2:], strict=True) if g.norm() > 1e-3]
        name, entry = seen[seed % len(seen)]
        with torch.no_grad():
            dict(ours.named_parameters())[name].view(-1)[entry] += 1e-6
        assert parity_error(parts(ours, names.values(), x, A if seed % 2 else edges), truth) > TOLERANCE


def relative(a, b):
    return ((a - b).norm() / b.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


def gradient(net, out):
    return torch.cat([g.flatten() for g in torch.autograd.grad((out * randn(5, *out.shape)).sum(), net.parameters())])


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_give_the_same_numbers(kind):
    """Batches of any leading axes, with repeated edges, loops, and nodes that hear nothing; the truth counts edges."""
    for seed in range(DRAWS):
        net, leading = own(kind, seed), ((), (3,), (2, 2))[seed % 3]
        edges = torch.randint(NODES - 1, (*leading, 2, 9), generator=seeded(seed))  # the last node is alone
        edges[..., 1] = edges[..., 0]  # twice the same edge
        A = torch.zeros(*leading, NODES, NODES, dtype=torch.float64)
        for where in (
            torch.cartesian_prod(*(torch.arange(n) for n in (*leading, 9))).reshape(-1, len(leading) + 1).tolist()
        ):
            j, i = edges[(*where[:-1], slice(None), where[-1])].tolist()
            A[(*where[:-1], i, j)] += 1
        assert torch.equal(A, adjacency(edges, NODES, torch.float64))
        x = randn(seed, *leading, NODES, 3)
        dense, listed = net(x, A), net(x, edges)
        assert dense.shape == listed.shape and dense.shape[: len(leading)] == leading
        assert relative(listed, dense) <= 1e-13
        assert relative(gradient(net, listed), gradient(net, dense)) <= 1e-12
        assert relative(net(x, edges.flip(-2)), dense) > 1e-4  # edges read the wrong way round


@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_for_all(kind):
    """A graph without leading axes serves every example of a batch; one by one they give the same."""
    net, A, x = own(kind, 0), simple_graph(0), randn(1, 2, 3, NODES, 3)
    alone = torch.stack([net(one, A) for one in x.flatten(0, 1)]).unflatten(0, (2, 3))
    for graph in (A, edges_of(A), edges_of(A).int()):
        assert relative(net(x, graph), alone) <= 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_no_edges(kind):
    """Nodes that hear nothing give finite numbers, in both forms, and the same as in the empty graph of one node each."""
    net, x = own(kind, 0), randn(1, NODES, 3)
    listed = net(x, torch.zeros(2, 0, dtype=torch.int64))
    assert relative(listed, net(x, torch.zeros(NODES, NODES, dtype=torch.float64))) <= 1e-14
    assert torch.isfinite(listed).all() and torch.isfinite(gradient(net, listed)).all()
    if kind in EQUIVARIANT:
        alone = torch.cat([net(x[i : i + 1], torch.zeros(1, 1, dtype=torch.float64)) for i in range(NODES)])
        assert relative(listed, alone) <= 1e-14


class Placed(nn.Module):
    """Weights that belong to a position in the list of nodes: not a function of the graph."""

    def __init__(self, net):
        super().__init__()
        self.net, self.place = net, randn(9, NODES, 3)

    def forward(self, x, graph):
        return self.net(x * self.place, graph)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_nodes_do_not_matter(kind):
    """f(Px, PAPᵀ) = P f(x, A), or = f(x, A) after a read-out; weights that belong to places break it."""
    for seed in range(DRAWS):
        net, A, x = own(kind, seed), simple_graph(seed), randn(seed, NODES, 3)
        p = torch.randperm(NODES, generator=seeded(seed))
        p = p.roll(1) if torch.equal(p, torch.arange(NODES)) else p
        for f, keeps in ((net, True), (Placed(net), False)):
            expected = f(x, A)[p] if kind in EQUIVARIANT else f(x, A)
            renamed = A[p][:, p]
            errors = [relative(f(x[p], graph), expected) for graph in (renamed, edges_of(renamed))]
            assert all(error <= 1e-13 if keeps else error > 1e-3 for error in errors)


def ring(*sizes):
    """Rings of the given sizes side by side, undirected."""
    A, start = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64), 0
    for size in sizes:
        for i in range(size):
            a, b = start + i, start + (i + 1) % size
            A[a, b] = A[b, a] = 1
        start += size
    return A


@pytest.mark.parametrize("kind", KINDS)
def test_six_ring_and_two_triangles_look_alike(kind):
    """As the Weisfeiler-Leman test has it; features that differ between nodes tell them apart."""
    net, same = own(kind, 0), torch.ones(6, 3, dtype=torch.float64)
    assert relative(net(same, ring(3, 3)), net(same, ring(6))) <= 1e-13
    assert relative(net(randn(1, 6, 3), ring(3, 3)), net(randn(1, 6, 3), ring(6))) > 1e-2


def test_graph_convolution_on_a_star():
    """Hub of degree 4: Â = 1/5 at the hub, 1/√(5·2) between, 1/2 at a leaf."""
    A = torch.zeros(5, 5, dtype=torch.float64)
    A[0, 1:] = A[1:, 0] = 1
    layer = GCNLayer(5, 5, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(5))
    expected = torch.eye(5, dtype=torch.float64) / 2
    expected[0, 0] = 1 / 5
    expected[0, 1:] = expected[1:, 0] = 10**-0.5
    torch.testing.assert_close(layer(torch.eye(5, dtype=torch.float64), A), expected, rtol=0, atol=1e-15)


def test_adjacency_weights_count():
    """A weight of 3 is three edges: Σ_j A_ij h_j, and a softmax over three equal neighbours."""
    x, A = randn(0, 2, 3), torch.tensor([[0.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    thrice = torch.tensor([[1, 1, 1], [0, 0, 0]])
    for kind in KINDS:
        assert relative(own(kind, 0)(x, A), own(kind, 0)(x, thrice)) <= 1e-14


@pytest.mark.parametrize("layer", [GATLayer, GATv2Layer])
def test_attention_sums_to_one_where_there_is_an_edge(layer):
    net, A, x = layer(3, 4, heads=2, dtype=torch.float64, generator=seeded(0)), simple_graph(3), randn(3, NODES, 3)
    alpha = net.attention(x, A)  # (n n k)
    reached = (A + torch.eye(NODES)) > 0
    assert (alpha[~reached] == 0).all() and (alpha[reached] > 0).all()
    torch.testing.assert_close(alpha.sum(1), torch.ones(NODES, 2, dtype=torch.float64), rtol=0, atol=1e-14)
    edges = edges_of(A)
    listed = net.attention(x, edges)
    torch.testing.assert_close(listed[: edges.shape[1]], alpha[edges[1], edges[0]], rtol=0, atol=1e-14)
    torch.testing.assert_close(listed[edges.shape[1] :], alpha.diagonal().T, rtol=0, atol=1e-14)
    assert net.before_kinks(x, A).shape[:3] == (NODES, NODES, 2)


@pytest.mark.parametrize("layer", [GATLayer, GATv2Layer])
def test_attention_survives_large_scores(layer):
    """Scores of ± 10⁵ overflow no exponential: the largest has all the weight, and gradients are finite."""
    net = layer(3, 4, heads=2, dtype=torch.float64, generator=seeded(0))
    A, x = simple_graph(0), 1e5 * randn(0, NODES, 3)
    for graph in (A, edges_of(A)):
        assert torch.isfinite(net(x, graph)).all() and torch.isfinite(gradient(net, net(x, graph))).all()
        assert net.attention(x, A).amax(1).min() > 0.5


def test_only_gatv2_ranks_by_receiver():
    """On a complete graph all receivers of a GAT prefer the same sender; those of a GATv2 need not."""
    complete = torch.ones(NODES, NODES, dtype=torch.float64)
    favourites = {GATLayer: [], GATv2Layer: []}
    for layer, found in favourites.items():
        for seed in range(DRAWS):
            net = layer(3, 8, dtype=torch.float64, generator=seeded(seed))
            found.append(len(net.attention(3 * randn(seed, NODES, 3), complete)[..., 0].argmax(1).unique()))
    assert set(favourites[GATLayer]) == {1}
    assert sum(favourites[GATv2Layer]) > 1.5 * DRAWS


def follows(sample, variance):
    """Return whether Σx²/variance lies in the central 1 − 1e-6 interval of its χ² law."""
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], sample.numel())
    return low <= sample.double().square().sum().item() / variance <= high


def test_initial_variances():
    g = {"dtype": torch.float64}
    large = [
        (GCNLayer(100, 200, generator=seeded(0), **g).weight, 2 / 300),
        (GATLayer(100, 200, heads=4, generator=seeded(1), **g).weight, 2 / 300),
        (GATLayer(100, 200, heads=4, merge="mean", generator=seeded(2), **g).weight, 2 / 900),
        (GATLayer(2, 2000, heads=4, generator=seeded(3), **g).a_receiver, 2 / 1001),
        (GATLayer(2, 2000, heads=4, generator=seeded(3), **g).a_sender, 2 / 1001),
        (GATv2Layer(100, 200, heads=4, generator=seeded(4), **g).W_receiver, 2 / 300),
        (GATv2Layer(100, 200, heads=4, generator=seeded(4), **g).W_sender, 2 / 300),
        (GATv2Layer(2, 2000, heads=4, generator=seeded(5), **g).a, 2 / 501),
        (GINLayer([100, 200], init="he", generator=seeded(6), **g).mlp.layers[0].weight, 2 / 100),
        (GATLayer(100, 2000, init=LAW, generator=seeded(7), **g).bias, 0.5),
    ]
    for weight, variance in large:
        assert follows(weight, variance) and not follows(weight, 1.3 * variance)
    assert all((layer(3, 4).bias == 0).all() for layer in (GCNLayer, GATLayer, GATv2Layer))
    assert GCNLayer(3, 4, bias=False).bias is None and GINLayer([3, 4]).epsilon == 0


@pytest.mark.parametrize("build", [GCN, GAT, GATv2, lambda *a, **k: GIN(*a, 2, **k)])
def test_seed_decides_the_network(build):
    state = torch.get_rng_state()
    runs = ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    nets = [list(build([3, 4, 2], dtype=dtype, generator=seeded(seed)).parameters()) for dtype, seed in runs]
    first, again, other, single = nets
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        assert {p.device.type for p in build([3, 4, 2]).parameters()} == {"meta"}


def test_printed_networks_name_their_parts():
    assert "tanh" in repr(GCN([3, 4, 2])) and "readout=mean" in repr(GIN([3, 4], 2, readout="mean"))
    assert "heads=2" in repr(GAT([3, 4, 2], heads=2)) and "max" in repr(own("message passing max", 0))


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype)


ERRORS = [
    (lambda: GCN([3, 2])(zeros(5, 4), zeros(5, 5)), ["(5, 4)", "(..., nodes, 3)"]),
    (lambda: GCN([3, 2])(zeros(3), zeros(5, 5)), ["(3,)", "(..., nodes, 3)"]),
    (lambda: GCN([3, 2])(zeros(5, 3), zeros(5, 4)), ["(5, 4)", "5 nodes", "(..., 5, 5)"]),
    (lambda: GIN([3, 2], 1)(zeros(5, 3), zeros(4, 4)), ["(4, 4)", "5 nodes"]),
    (lambda: GAT([3, 2])(zeros(5, 3), zeros(5)), ["(5,)", "(..., 5, 5)"]),
    (lambda: GCN([3, 2])(zeros(2, 5, 3), zeros(4, 5, 5)), ["(4, 5, 5)", "(2, 5, 3)", "leading"]),
    (lambda: GCN([3, 2])(zeros(5, 3), zeros(5, 5, dtype=torch.float64)), ["float64", "float32", "A.to(x.dtype)"]),
    (lambda: GCN([3, 2])(zeros(5, 3), zeros(5, 5, dtype=torch.bool)), ["bool", "A.to(x.dtype)", "edges"]),
    (lambda: GCN([3, 2])(zeros(2, 3), torch.tensor([[0.0, float("nan")], [0.0, 0.0]])), ["nan", "(0, 1)", "finite"]),
    (lambda: GIN([3, 2], 1)(zeros(2, 3), torch.tensor([[0.0, -1.0], [0.0, 0.0]])), ["-1.0", "at least 0"]),
    (lambda: GCN([3, 2])(zeros(5, 3), [[0, 1], [1, 0]]), ["list", "adjacency", "edges"]),
    (lambda: GATv2([3, 2])(zeros(5, 3), zeros(5, 5, dtype=torch.int64)), ["(5, 5)", "(..., 2, E)", "A.to(x.dtype)"]),
    (lambda: GCN([3, 2])(zeros(5, 3), zeros(2, dtype=torch.int64)), ["(2,)", "(..., 2, E)"]),
    (lambda: own("message passing sum", 0)(zeros(5, 4).double(), zeros(5, 5).double()), ["widths[0]=6"]),
    (lambda: GCN([3]), ["widths=[3]", "at least 2"]),
    (lambda: GCN([3, 2], activation="tahn"), ["'tahn'", "tanh"]),
    (lambda: GCN([3, 2], init="glorod"), ["'glorod'", "glorot"]),
    (lambda: GCNLayer(0, 2), ["n_in", "0"]),
    (lambda: GCNLayer(2, 0), ["n_out", "0"]),
    (lambda: GIN([3, 2], 0), ["n_out", "0"]),
    (lambda: GIN([3, 2], 1, readout="avg"), ["readout='avg'", "sum", "mean", "none"]),
    (lambda: GAT([3, 5, 2], heads=2), ["heads=2", "n_out=5", 'merge="mean"']),
    (lambda: GATLayer(3, 4, heads=0), ["heads", "0"]),
    (lambda: GATLayer(3, 4, merge="means"), ["'means'", "concat", "mean"]),
    (lambda: MessagePassing(nn.Identity(), nn.Identity(), "maximum"), ["'maximum'", "max"]),
    (lambda: checked_graph(torch.tensor([[0.0, float("nan")], [0.0, 0.0]])), ["nan", "(0, 1)", "finite"]),
    (lambda: checked_graph(torch.tensor([[0.0, 1.0], [-2.0, 0.0]])), ["-2.0", "(1, 0)", "at least 0"]),
    (lambda: checked_graph(zeros(2, 3)), ["(2, 3)", "(..., 3, 3)"]),
    (lambda: checked_graph(torch.tensor([[0, 1], [1, 3]]), nodes=3), ["3 at (1, 1)", "0 … 2", "isolated"]),
    (lambda: checked_graph(torch.tensor([[0, -1], [1, 2]]), nodes=3), ["-1 at (0, 1)", "count nodes from 0"]),
    (lambda: checked_graph(torch.tensor([[0, 1], [1, 0]])), ["nodes=n"]),
    (lambda: adjacency(zeros(3, 3), 3), ["float32", "(3, 3)", "edges"]),
    (lambda: adjacency(torch.tensor([[0, 5], [1, 0]]), 3), ["5 at (0, 1)", "0 … 2"]),
]


@pytest.mark.parametrize(("build", "told"), ERRORS)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)


def test_checked_graphs_pass():
    A, edges = simple_graph(0), edges_of(simple_graph(0))
    assert checked_graph(A) is A and checked_graph(edges, NODES) is edges


@pytest.mark.parametrize("node", [-1, NODES, NODES + 1, 10**6])
def test_a_missing_node_is_not_looked_for_in_the_next_graph(node):
    """Batches lie one after the other in memory: an edge out of range must raise, whatever the graph."""
    net = own("GCN", 0)
    for batch in (1, 3):
        for end in (0, 1):
            edges = torch.zeros(batch, 2, 4, dtype=torch.int64)
            edges[0, end, 2] = node
            with pytest.raises(ArchitectureError, match=f"holds {node} at"):
                net(randn(0, batch, NODES, 3), edges)
            with pytest.raises((IndexError, RuntimeError), match="out of"):  # where values cannot be read first
                torch.func.vmap(net)(randn(0, batch, NODES, 3), edges)


@pytest.mark.parametrize("name", ["_graphs", "_pairs"])
def test_examples_of_the_shared_files(name):
    result = doctest.testmod(importlib.import_module(f"lemmata.architectures.{name}"))
    assert result.attempted > 0 and result.failed == 0
