r"""A graph as the pairs of nodes between which messages go, in two forms that give the same numbers.

A graph on $n$ nodes is a matrix $A ∈ ℝ_{≥0}^{n×n}$, where $A_{ij}$ says how many edges go from $j$ to $i$, so that node
$i$ receives $\sum_j A_{ij} m_{ij}$. It is given either densely, as floating-point numbers (..., n, n), or as a list of
edges, integers (..., 2, E) whose first row is where an edge starts and whose second is where it ends; an edge that
stands in the list twice counts twice. An undirected edge sends both ways: list it both ways.

`Dense` and `Edges` carry a batch of b graphs. Both read numbers at nodes, (b, n, *), into numbers at pairs, which have
two axes (b, n, n, *) or one (bE, *), and gather them again at the receiving node.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor


def _like(weight: Tensor, m: Tensor) -> Tensor:
    """Append axes to `weight` until it has as many as `m`."""
    return weight.reshape(weight.shape + (1,) * (m.dim() - weight.dim()))


class Dense:
    """All n² pairs (i, j) of b graphs, weighted by the adjacency A: (b, n, n).

    >>> pairs = Dense(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))           # one edge, from node 1 to node 0
    >>> h = torch.tensor([[[3.0], [5.0]]])
    >>> pairs.propagate(h).tolist(), pairs.degree().tolist()
    ([[[5.0], [0.0]]], [[1.0, 0.0]])
    """

    def __init__(self, adjacency: Tensor):
        self.weight = adjacency

    def receivers(self, h: Tensor) -> Tensor:
        """Return $h_i$ at every pair: (b n *) → (b n 1 *)."""
        return h.unsqueeze(2)

    def senders(self, h: Tensor) -> Tensor:
        """Return $h_j$ at every pair: (b n *) → (b 1 n *)."""
        return h.unsqueeze(1)

    def joined(self, h: Tensor) -> Tensor:
        """Return $[h_i ‖ h_j]$ at every pair: (b n d) → (b n n 2d)."""
        shape = (h.shape[0], h.shape[1], h.shape[1], h.shape[2])
        return torch.cat([self.receivers(h).expand(shape), self.senders(h).expand(shape)], -1)

    def degree(self) -> Tensor:
        r"""Return $\sum_j A_{ij}$: (b n)."""
        return self.weight.sum(2)

    def total(self, m: Tensor) -> Tensor:
        r"""Return $\sum_j A_{ij} m_{ij}$: (b n n *) → (b n *)."""
        return (_like(self.weight, m) * m).sum(2)

    def propagate(self, h: Tensor) -> Tensor:
        r"""Return $\sum_j A_{ij} h_j$: (b n d) → (b n d)."""
        return self.weight @ h

    def attend(self, attention: Tensor, h: Tensor) -> Tensor:
        r"""Return $\sum_j A_{ij} α_{ij} h_j$ for each head: (b n n k), (b n k c) → (b n k c)."""
        return torch.einsum("bijk,bjkc->bikc", self.weighted(attention), h)

    def weighted(self, m: Tensor) -> Tensor:
        """Return $A_{ij} m_{ij}$."""
        return _like(self.weight, m) * m

    def zeroed(self, m: Tensor) -> Tensor:
        """Return $m_{ij}$ where there is an edge, else 0."""
        return torch.where(_like(self.weight, m) != 0, m, torch.zeros_like(m))

    def largest(self, m: Tensor) -> Tensor:
        r"""Return $\max_{j: A_{ij} ≠ 0} m_{ij}$, or 0 where nothing arrives: (b n n *) → (b n *)."""
        edge = _like(self.weight, m) != 0
        absent = m.new_full((), -math.inf).where(edge.any(2, keepdim=True), m.new_zeros(()))
        return torch.where(edge, m, absent).amax(2)

    def with_loops(self) -> Dense:
        """Return the graph in which every node sends to itself once, whatever it did before."""
        eye = torch.eye(self.weight.shape[-1], dtype=self.weight.dtype, device=self.weight.device)
        return Dense(self.weight * (1 - eye) + eye)

    def unflattened(self, m: Tensor) -> Tensor:
        """Return numbers at pairs with the batch as first axis: (b n n *)."""
        return m


class Edges:
    """The edges of b graphs of n nodes, (b, 2, E), as positions among the bn nodes of all graphs together.

    >>> pairs = Edges(torch.tensor([[[1], [0]]]), nodes=2, dtype=torch.float32)   # from node 1 to node 0
    >>> h = torch.tensor([[[3.0], [5.0]]])
    >>> pairs.propagate(h).tolist(), pairs.degree().tolist()
    ([[[5.0], [0.0]]], [[1.0, 0.0]])
    """

    def __init__(self, edges: Tensor, nodes: int, dtype: torch.dtype):
        self.batch, self.nodes, self.dtype = edges.shape[0], nodes, dtype
        if self.batch > 1:  # a node that does not exist must not be found in the next graph: it is sent beyond the last
            offset = nodes * torch.arange(self.batch, device=edges.device).reshape(-1, 1, 1)
            exists = (edges >= 0) & (edges < nodes)
            edges = torch.where(exists, edges + offset, self.batch * nodes)
        self.source, self.target = edges[:, 0].flatten().long(), edges[:, 1].flatten().long()  # (bE)
        self.listed = self.source.shape[0]
        self.weight: Tensor | None = None  # (bE), None for ones

    def receivers(self, h: Tensor) -> Tensor:
        """Return $h_i$ at every edge: (b n *) → (bE *)."""
        return h.flatten(0, 1).index_select(0, self.target)

    def senders(self, h: Tensor) -> Tensor:
        """Return $h_j$ at every edge: (b n *) → (bE *)."""
        return h.flatten(0, 1).index_select(0, self.source)

    def joined(self, h: Tensor) -> Tensor:
        """Return $[h_i ‖ h_j]$ at every edge: (b n d) → (bE 2d)."""
        return torch.cat([self.receivers(h), self.senders(h)], -1)

    def degree(self) -> Tensor:
        r"""Return $\sum_j A_{ij}$: (b n)."""
        return self.total(torch.ones(self.target.shape, dtype=self.dtype, device=self.target.device))

    def total(self, m: Tensor) -> Tensor:
        r"""Return $\sum_j A_{ij} m_{ij}$: (bE *) → (b n *)."""
        return self._gathered(self.weighted(m))

    def propagate(self, h: Tensor) -> Tensor:
        r"""Return $\sum_j A_{ij} h_j$: (b n d) → (b n d)."""
        return self.total(self.senders(h))

    def attend(self, attention: Tensor, h: Tensor) -> Tensor:
        r"""Return $\sum_j A_{ij} α_{ij} h_j$ for each head: (bE k), (b n k c) → (b n k c)."""
        return self._gathered(self.weighted(attention).unsqueeze(-1) * self.senders(h))

    def weighted(self, m: Tensor) -> Tensor:
        """Return $A_{ij} m_{ij}$."""
        return m if self.weight is None else _like(self.weight, m) * m

    def zeroed(self, m: Tensor) -> Tensor:
        """Return $m_{ij}$ where there is an edge, else 0."""
        return self._where_weighted(m, 0.0)

    def largest(self, m: Tensor) -> Tensor:
        r"""Return $\max_{j: A_{ij} ≠ 0} m_{ij}$, or 0 where nothing arrives: (bE *) → (b n *)."""
        m = self._where_weighted(m, -math.inf)
        index = _like(self.target, m).expand_as(m)
        return self._zeros(m).scatter_reduce(0, index, m, "amax", include_self=False).unflatten(0, self._shape)

    def with_loops(self) -> Edges:
        """Return the graph in which every node sends to itself once, whatever it did before; the loops come last."""
        looped = copy.copy(self)
        every = torch.arange(self.batch * self.nodes, device=self.source.device)
        looped.source, looped.target = torch.cat([self.source, every]), torch.cat([self.target, every])
        others = (self.source != self.target).to(self.dtype)  # loops of the list itself count no more
        looped.weight = torch.cat([others, torch.ones(every.shape, dtype=self.dtype, device=every.device)])
        return looped

    def unflattened(self, m: Tensor) -> Tensor:
        """Return numbers at edges with the batch as first axis: (b E *), and (b n *) more after them if loops came."""
        listed = m[: self.listed].unflatten(0, (self.batch, self.listed // self.batch))
        if self.source.shape[0] == self.listed:
            return listed
        return torch.cat([listed, m[self.listed :].unflatten(0, self._shape)], 1)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.batch, self.nodes

    def _zeros(self, m: Tensor) -> Tensor:
        return m.new_zeros((self.batch * self.nodes, *m.shape[1:]))

    def _gathered(self, m: Tensor) -> Tensor:
        return self._zeros(m).index_add(0, self.target, m).unflatten(0, self._shape)

    def _where_weighted(self, m: Tensor, absent: float) -> Tensor:
        return m if self.weight is None else torch.where(_like(self.weight, m) != 0, m, absent)


Pairs = Dense | Edges


def softmax(pairs: Pairs, e: Tensor) -> Tensor:
    r"""Return $α_{ij} = e^{e_{ij}} / \sum_k A_{ik} e^{e_{ik}}$ at every pair with an edge; each node must receive one.

    The largest $e_{ij}$ is subtracted first: a constant for each $i$, which the quotient does not see, held fixed.

    >>> softmax(Dense(torch.ones(1, 2, 2)), torch.tensor([[[0.0, 1000.0], [5.0, 5.0]]])).tolist()
    [[[0.0, 1.0], [0.5, 0.5]]]
    """
    shift = pairs.receivers(pairs.largest(e.detach()))
    p = pairs.zeroed(e - shift).exp()
    return p / pairs.receivers(pairs.total(p))
