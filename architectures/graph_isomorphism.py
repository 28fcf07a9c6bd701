r"""Graph isomorphism networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._entry import Architecture, mean_square, seeded
from ._graphs import EQUIVARIANT, INVARIANT, NODES, read, tiny_graphs
from ._pairs import Pairs
from ._pieces import Activation, Law, Maker, checked_name, checked_size, checked_sizes, resolve_activation, resolve_law
from .mlp import MLP

READOUTS = ("sum", "mean", "none")


class GINLayer(nn.Module):
    r"""One layer of a graph isomorphism network: a sum over the neighbours, which forgets no multiplicity.

    $$h_i' = \mathrm{MLP}\Bigl((1 + ε) h_i + \sum_j A_{ij} h_j\Bigr).$$

    Shapes: $x$: (..., n, $n_0$), graph: (..., n, n) or (..., 2, E) → (..., n, $n_L$). Parameters: `epsilon` (), learnt,
    and the MLP's `mlp.layers.0.weight`, ….
    Initialisation: $ε$ as given, the MLP's weights by `MLP`'s table.

    Args:
        widths: of the MLP, at least two positive integers.
        activation: of the MLP.
        epsilon: $ε$ at the start.
        init: as `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: the MLP at every node and $2 E n_0$ operations (dense: $2 n^2 n_0$).
    Left out: batch normalisation within the MLP.
    Source: xu2019how.

    >>> layer = GINLayer([1, 1], epsilon=0.5)
    >>> _ = layer.mlp.load_state_dict({"layers.0.weight": torch.tensor([[1.0]]), "layers.0.bias": torch.zeros(1)})
    >>> layer(torch.tensor([[2.0], [4.0]]), torch.tensor([[0, 0], [1, 1]])).tolist()   # 2 reaches 4 twice
    [[3.0], [10.0]]

    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation = "tanh",
        epsilon: float = 0.0,
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.mlp = MLP(widths, activation, init, dtype=dtype, device=device, generator=generator)
        self.epsilon = Maker(dtype, device, generator).full((), epsilon)

    def forward(self, x: Tensor, graph: Tensor | Pairs) -> Tensor:
        """Return $h'$: (..., n, $n_0$), graph → (..., n, $n_L$)."""
        h, pairs, leading = read(x, graph, self.mlp.widths[0])  # (b n d)
        h = self.mlp((1 + self.epsilon) * h + pairs.propagate(h))
        return h.reshape(leading + h.shape[1:])


class GIN(nn.Module):
    r"""A graph isomorphism network: as good at telling graphs apart as the Weisfeiler-Leman test can be.

    $$h^{(l)} = φ\bigl(\mathrm{GINLayer}_l(h^{(l-1)}, A)\bigr), \quad h^{(0)} = x, \qquad
    g = \Bigl[\sum_i h_i^{(0)} ‖ … ‖ \sum_i h_i^{(L)}\Bigr], \qquad f(x, A) = V g + c,$$

    the sums over nodes, or means, or none: then $g_i = [h_i^{(0)} ‖ … ‖ h_i^{(L)}]$ and there is an output at every node.

    Shapes: $x$: (..., n, $n_0$), graph: (..., n, n) or (..., 2, E) → (..., n_out), or (..., n, n_out) with
    `readout="none"`. The MLP of layer $l$ has the widths $[n_{l-1}, n_l, n_l]$. Parameters
    `layers.0.epsilon`, `layers.0.mlp.layers.0.weight`, …, `readout.weight` $V$: (n_out, $\sum_l n_l$), `readout.bias`.
    Initialisation: as `GINLayer`, and `MLP`'s table for $V$. Renaming the nodes changes nothing (or renames the outputs).

    Args:
        widths: $n_0, …, n_L$, at least two positive integers.
        n_out: the size of the output.
        activation: $φ$, within and after the MLPs: a name of `ACTIVATIONS` or a function; the paper's is relu.
        readout: `"sum"`, `"mean"` or `"none"`. A mean cannot count nodes.
        epsilon: $ε$ of every layer at the start.
        init: as `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: the sum of its layers'.
    Left out: batch normalisation, dropout, graphs of different sizes in one batch.
    Source: xu2019how.

    >>> net, x = GIN([1, 4, 4], n_out=2), torch.ones(6, 1)
    >>> ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    >>> triangles = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])
    >>> torch.allclose(net(x, ring), net(x, triangles), atol=1e-5)  # no message passing can tell these apart
    True

    """

    def __init__(
        self,
        widths: Sequence[int],
        n_out: int,
        activation: str | Activation = "tanh",
        readout: str = "sum",
        epsilon: float = 0.0,
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        self.activation = resolve_activation(activation)
        self.pooling = checked_name("readout", readout, READOUTS)
        self.layers = nn.ModuleList(
            GINLayer([n, m, m], activation, epsilon, init, dtype, device, generator)
            for n, m in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        make = Maker(dtype, device, generator)
        self.readout = make.linear(sum(self.widths), checked_size("n_out", n_out), resolve_law(init))

    def embedding(self, x: Tensor, graph: Tensor) -> Tensor:
        """Return $g$: (..., $n_0 + … + n_L$), or (..., n, $n_0 + … + n_L$) with `readout="none"`.

        >>> GIN([1, 2], n_out=1).embedding(torch.ones(3, 1), torch.zeros(3, 3))[0].item()   # the number of nodes
        3.0
        """
        h, pairs, leading = read(x, graph, self.widths[0])
        layers = [h]  # (b n n0)
        for layer in self.layers:
            layers.append(self.activation(layer(layers[-1], pairs)))
        g = torch.cat(layers, -1)  # (b n Σ n_l)
        if self.pooling != "none":
            g = g.sum(1) if self.pooling == "sum" else g.mean(1)
        return g.reshape(leading + g.shape[1:])

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """Return $f(x, A)$: (..., n, $n_0$), graph → (..., n_out), or (..., n, n_out) with `readout="none"`."""
        return self.readout(self.embedding(x, graph))

    def extra_repr(self) -> str:
        """Name the activation and the read-out in the printed network."""
        return f"activation={getattr(self.activation, '__name__', self.activation)}, readout={self.pooling}"


ENTRIES = (
    Architecture(
        name="gin",
        family="GIN",
        build=lambda: GIN([3, 4, 3], 2, epsilon=0.1, dtype=torch.float64, generator=seeded(62)),
        sample=tiny_graphs(3, 2),
        loss=mean_square,
        symmetry=INVARIANT,
        source="xu2019how",
    ),
    Architecture(
        name="gin-nodes",
        family="GIN",
        build=lambda: GIN([3, 4], 2, readout="none", epsilon=0.1, dtype=torch.float64, generator=seeded(63)),
        sample=tiny_graphs(3, NODES, 2),
        loss=mean_square,
        symmetry=EQUIVARIANT,
        source="xu2019how",
    ),
)
