r"""What the graph networks share: how a graph is given, checked and read; tiny graphs and their relabellings.

Nodes carry vectors $h_i$, $x$: (..., n, d). The graph is given in one of two forms, which give the same numbers: an
adjacency $A$, floating-point numbers (..., n, n) with $A_{ij}$ the weight (the number) of the edges from $j$ to $i$, or
a list of edges, integers (..., 2, E) with a row of sources and a row of targets; an undirected edge is listed both ways.
Its leading axes are those of $x$, or none: one graph for all. A forward pass checks the graph's shape, and its numbers
too wherever it can read them: inside a `torch.func` transform of the graph itself, and in compiled code, it cannot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._entry import Sample, Symmetry, normal, sampled, trivially
from ._pairs import Dense, Edges, Pairs
from ._pieces import Activation, ArchitectureError


def read(x: Tensor, graph: Tensor | Pairs, width: int | None) -> tuple[Tensor, Pairs, torch.Size]:
    """Check nodes (..., n, width) and their graph; return them as one batch (b, n, width), and the leading axes.

    >>> x, pairs, leading = read(torch.zeros(2, 3, 5, 4), torch.zeros(5, 5), 4)
    >>> tuple(x.shape), type(pairs).__name__, tuple(leading)
    ((6, 5, 4), 'Dense', (2, 3))
    """
    expected = "(..., nodes, width)" if width is None else f"(..., nodes, {width})"
    if x.dim() < 2 or (width is not None and x.shape[-1] != width):
        raise ArchitectureError(f"the nodes' vectors have shape {tuple(x.shape)}, but must have {expected}.")
    if isinstance(graph, (Dense, Edges)):
        return x, graph, x.shape[:1]
    form = checked_form(graph, x.shape[-2])
    if _readable(graph):
        checked_graph(graph, x.shape[-2])
    leading = x.shape[:-2]
    if graph.shape[:-2] not in (leading, ()):
        raise ArchitectureError(
            f"the graph has shape {tuple(graph.shape)} and the nodes' vectors {tuple(x.shape)}: their leading axes "
            f"must agree, {tuple(leading)}, or the graph has none and is the same for all."
        )
    if form == "dense" and graph.dtype != x.dtype:
        raise ArchitectureError(f"the adjacency is {graph.dtype}, the nodes' vectors {x.dtype}: pass A.to(x.dtype).")
    batch = math.prod(leading)
    graph = graph.expand(leading + graph.shape[-2:]).reshape(batch, *graph.shape[-2:])
    x = x.reshape(batch, *x.shape[-2:])
    return x, Dense(graph) if form == "dense" else Edges(graph, x.shape[1], x.dtype), leading


def _readable(graph: Tensor) -> bool:
    """Whether a branch may depend on the graph's values."""
    hidden = torch._C._functorch.is_functorch_wrapped_tensor(graph)
    return not (hidden or graph.is_meta or torch.compiler.is_compiling())


def checked_form(graph: Tensor, nodes: int | None) -> str:
    """Return "dense" or "edges", whichever the dtype says, if the shape is right.

    >>> checked_form(torch.zeros(3, 3), 3), checked_form(torch.zeros(2, 7, dtype=torch.int64), 3)
    ('dense', 'edges')
    """
    if not isinstance(graph, Tensor) or graph.dtype == torch.bool or graph.is_complex():
        kind = f"a {graph.dtype} tensor" if isinstance(graph, Tensor) else type(graph).__name__
        raise ArchitectureError(
            f"the graph is {kind}, but must be an adjacency of floating-point numbers (..., n, n), A.to(x.dtype), or "
            "a list of edges of integers (..., 2, E)."
        )
    shape = tuple(graph.shape)
    if graph.is_floating_point():
        n = shape[-1] if nodes is None and shape else nodes
        if shape[-2:] != (n, n):
            raise ArchitectureError(f"the adjacency has shape {shape}, but {n} nodes ask for (..., {n}, {n}).")
        return "dense"
    if len(shape) < 2 or shape[-2] != 2:
        raise ArchitectureError(
            f"the graph holds integers of shape {shape}, but a list of edges is (..., 2, E): a row of sources, a row "
            "of targets. An adjacency is floating-point: A.to(x.dtype)."
        )
    return "edges"


def checked_graph(graph: Tensor, nodes: int | None = None) -> Tensor:
    """Return the graph if its numbers are those of a graph. One pass over them; on a GPU it waits for the answer.

    Args:
        graph: an adjacency (..., n, n) or a list of edges (..., 2, E).
        nodes: n; the adjacency's own if None, and needed for a list of edges.

    Raises:
        ArchitectureError: an entry of A is negative or not finite, or an edge ends at a node that is not there.

    >>> checked_graph(torch.tensor([[0, 1], [1, 2]]), nodes=3).tolist()
    [[0, 1], [1, 2]]

    """
    if checked_form(graph, nodes) == "dense":
        bad = ~(graph.isfinite() & (graph >= 0))
        if bad.any():
            where = tuple(bad.nonzero()[0].tolist())
            raise ArchitectureError(
                f"the adjacency holds {graph[where].item()} at {where}: weights count edges and must be finite and at "
                "least 0; take 0 for no edge, and a signed or missing weight out."
            )
        return graph
    if nodes is None:
        raise ArchitectureError("a list of edges does not say how many nodes there are: pass nodes=n.")
    bad = (graph < 0) | (graph >= nodes)
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ArchitectureError(
            f"the list of edges holds {graph[where].item()} at {where}, but the {nodes} nodes are 0 … {nodes - 1}; "
            "count nodes from 0, and pass the number of all of them, isolated ones too."
        )
    return graph


def adjacency(edges: Tensor, nodes: int, dtype: torch.dtype | None = None) -> Tensor:
    r"""Return $A$ of a list of edges: (..., 2, E) → (..., n, n), $A_{ij}$ the number of edges from $j$ to $i$.

    Raises: ArchitectureError if `edges` is no list of edges between `nodes` nodes.

    >>> adjacency(torch.tensor([[1, 1, 0], [0, 0, 1]]), nodes=2).tolist()
    [[0.0, 2.0], [1.0, 0.0]]
    """
    edges = checked_graph(edges, nodes)
    if edges.is_floating_point():
        raise ArchitectureError(f"edges holds {edges.dtype} numbers of shape {tuple(edges.shape)}: it is no list.")
    cell = edges[..., 1, :].long() * nodes + edges[..., 0, :]  # (... E)
    flat = torch.zeros((*edges.shape[:-2], nodes * nodes), dtype=dtype, device=edges.device)
    return flat.scatter_add(-1, cell, torch.ones_like(cell, dtype=flat.dtype)).unflatten(-1, (nodes, nodes))


class GraphNetwork(nn.Module):
    """Layers `layers` on one graph with an entrywise `activation` between them: what `GCN`, `GAT` and `GATv2` share."""

    widths: tuple[int, ...]
    activation: Activation
    layers: nn.ModuleList

    def preactivations(self, x: Tensor, graph: Tensor) -> list[Tensor]:
        """Return what each layer gives before the activation, (..., n, $n_l$); the last is the output."""
        h, pairs, leading = read(x, graph, self.widths[0])
        z = [self.layers[0](h, pairs)]  # (b n n1)
        for layer in self.layers[1:]:
            z.append(layer(self.activation(z[-1]), pairs))
        return [z_l.reshape(leading + z_l.shape[1:]) for z_l in z]

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """Return $f(x)$ at every node: (..., n, $n_0$), graph → (..., n, $n_L$)."""
        return self.preactivations(x, graph)[-1]

    def extra_repr(self) -> str:
        """Name the activation in the printed network."""
        return f"activation={getattr(self.activation, '__name__', self.activation)}"


#: The nodes of every tiny graph, and their 24 orders.
NODES = 4
_ORDERS = tuple(itertools.permutations(range(NODES)))


def nodes_renamed(p: tuple[int, ...], x: Tensor) -> Tensor:
    """Return $Px$: node i is the old node p[i], (b n d).

    >>> nodes_renamed((1, 0), torch.tensor([[[3.0], [5.0]]])).tolist()
    [[[5.0], [3.0]]]
    """
    return x[:, list(p)]


def graph_renamed(p: tuple[int, ...], inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return $(Px, PAP^⊤)$, or the list of edges with its nodes renamed.

    >>> x, A = graph_renamed((1, 0), (torch.zeros(1, 2, 1), torch.tensor([[[0.0, 7.0], [0.0, 0.0]]])))
    >>> A.tolist()
    [[[0.0, 0.0], [7.0, 0.0]]]
    """
    x, graph = inputs
    if graph.is_floating_point():
        return nodes_renamed(p, x), graph[:, list(p)][:, :, list(p)]
    new_name = torch.tensor(p, device=graph.device).argsort()
    return nodes_renamed(p, x), new_name[graph]


def renaming(act_on_outputs: Callable[[Any, Any], Any]) -> Symmetry:
    """Return the group of all orders of the nodes."""
    return Symmetry(elements=_ORDERS, act_on_inputs=graph_renamed, act_on_outputs=act_on_outputs)


#: Renaming the nodes renames the outputs, or changes nothing.
EQUIVARIANT, INVARIANT = renaming(nodes_renamed), renaming(trivially)


def random_graphs(g: torch.Generator, count: int) -> Tensor:
    """Draw lists of 6 of the 12 possible edges between four nodes: (count, 2, 6)."""
    pairs = torch.tensor(list(itertools.permutations(range(NODES), 2)), device="cpu")  # (12 2)
    return torch.stack([pairs[torch.randperm(12, generator=g, device="cpu")[:6]].T for _ in range(count)])


def tiny_graphs(n_in: int, *n_out: int, dense: bool = True, keep: Callable[..., Tensor] | None = None) -> Sample:
    """Three directed graphs on four nodes, with targets of shape `n_out`.

    If `keep` is given, `keep(x, A)` says how far each of many candidates is from the next kink, and only such as are
    further than 0.03 are taken.

    >>> (x, A), target = tiny_graphs(3, NODES, 2)(0, torch.float64, "cpu")
    >>> tuple(x.shape), tuple(A.shape), tuple(target.shape)
    ((3, 4, 3), (3, 4, 4), (3, 4, 2))
    """

    def draw(g: torch.Generator) -> tuple[Any, Any]:
        candidates = 3 if keep is None else 600
        x, edges = normal(g, candidates, NODES, n_in), random_graphs(g, candidates)
        A = adjacency(edges, NODES, torch.float64)
        if keep is not None:
            with torch.no_grad():
                chosen = (keep(x, A) > 0.03).nonzero().flatten()[:3]
            x, edges, A = x[chosen], edges[chosen], A[chosen]
        return (x, A if dense else edges), normal(g, 3, *n_out)

    return sampled(draw)
