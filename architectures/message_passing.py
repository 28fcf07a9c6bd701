r"""Message passing in general: any function of two nodes, gathered over neighbours, and any update."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ._entry import Architecture, mean_square, seeded
from ._graphs import EQUIVARIANT, NODES, adjacency, read, tiny_graphs  # noqa: F401  (adjacency: the example below)
from ._pairs import Dense, Pairs
from ._pieces import checked_name
from .mlp import MLP

AGGREGATIONS = ("sum", "mean", "max")


class MessagePassing(nn.Module):
    r"""Every node gathers a message from each of its neighbours and updates its vector.

    $$h_i' = ψ\Bigl(h_i, \bigoplus_{j ∈ N_i} φ(h_i, h_j)\Bigr),$$

    where $N_i$ are the nodes with an edge to $i$ and $⊕$ is a sum (weighted by $A_{ij}$), the mean
    $\sum_j A_{ij} φ_{ij} / \sum_j A_{ij}$ or the entrywise maximum; a node without neighbours gathers 0.

    Shapes: $x$: (..., n, d), graph: (..., n, n) or (..., 2, E) → (..., n, d'). $φ$ takes $[h_i ‖ h_j]$, 2d numbers,
    to m; $ψ$ takes $[h_i ‖ \text{gathered}]$, d + m numbers, to d'. Parameters: `phi.…`, `psi.…`.
    Initialisation: whatever the two modules have.

    Args:
        phi: $φ$, a module of one argument (`MLP([2 * d, …, m])`, say).
        psi: $ψ$, a module of one argument (`MLP([d + m, …, d'])`).
        aggregation: `"sum"`, `"mean"` or `"max"`.

    Raises:
        ArchitectureError: the aggregation is not known or a shape does not fit.

    Cost: $φ$ for every edge (dense: for all n² pairs) and $ψ$ for every node.
    Left out: vectors on edges.
    Source: gilmer2017neural.

    >>> first = MLP([2, 1], bias=False)                             # φ(h_i, h_j) = h_j
    >>> _ = first.load_state_dict({"layers.0.weight": torch.tensor([[0.0, 1.0]])})
    >>> x, edges = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([[1, 2], [0, 0]])
    >>> MessagePassing(first, nn.Identity(), "max")(x, edges).tolist()   # [h_i, what i gathered]
    [[1.0, 5.0], [2.0, 0.0], [5.0, 0.0]]
    >>> MessagePassing(first, nn.Identity(), "mean")(x, adjacency(edges, nodes=3)).tolist()
    [[1.0, 3.5], [2.0, 0.0], [5.0, 0.0]]

    """

    def __init__(self, phi: nn.Module, psi: nn.Module, aggregation: str = "sum"):
        super().__init__()
        self.phi, self.psi = phi, psi
        self.aggregation = checked_name("aggregation", aggregation, AGGREGATIONS)

    def forward(self, x: Tensor, graph: Tensor | Pairs) -> Tensor:
        """Return $h'$: (..., n, d), graph → (..., n, d')."""
        h, pairs, leading = read(x, graph, None)  # (b n d)
        messages = self.phi(pairs.joined(h))  # (pairs m)
        if self.aggregation == "max":
            gathered = pairs.largest(messages)  # (b n m)
        else:
            gathered = pairs.total(messages)
        if self.aggregation == "mean":
            degree = pairs.degree().unsqueeze(-1)
            gathered = gathered / torch.where(degree > 0, degree, torch.ones_like(degree))
        new = self.psi(torch.cat([h, gathered], -1))
        return new.reshape(leading + new.shape[1:])

    def extra_repr(self) -> str:
        """Name the aggregation in the printed layer."""
        return f"aggregation={self.aggregation}"


def _tiny(aggregation: str, seed: int) -> MessagePassing:
    g = seeded(seed)
    return MessagePassing(
        MLP([4, 4, 3], dtype=torch.float64, generator=g), MLP([5, 2], dtype=torch.float64, generator=g), aggregation
    )


def _gaps(x: Tensor, A: Tensor) -> Tensor:
    """Return for each graph the smallest gap between the largest two messages that arrive together."""
    pairs = Dense(A)
    messages = _tiny("max", 66).phi(pairs.joined(x)).masked_fill(A.unsqueeze(-1) == 0, -1e9)  # (b n n m)
    first, second = messages.topk(2, dim=2).values.unbind(2)
    return (first - second).masked_fill(first < -1e8, 1e9).amin((1, 2))


ENTRIES = (
    *(
        Architecture(
            name=f"message-passing-{aggregation}",
            family="MessagePassing",
            build=partial(_tiny, aggregation, seed),
            sample=tiny_graphs(2, NODES, 2),
            loss=mean_square,
            symmetry=EQUIVARIANT,
            source="gilmer2017neural",
        )
        for aggregation, seed in (("sum", 64), ("mean", 65))
    ),
    *(
        Architecture(
            name="message-passing-max" + ("" if dense else "-edges"),
            family="MessagePassing",
            build=partial(_tiny, "max", 66),
            sample=tiny_graphs(2, NODES, 2, dense=dense, keep=_gaps),
            loss=mean_square,
            symmetry=EQUIVARIANT,
            source="gilmer2017neural",
            smooth=False,
        )
        for dense in (True, False)
    ),
)
