r"""Graph convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._entry import Architecture, mean_square, seeded
from ._graphs import EQUIVARIANT, NODES, GraphNetwork, read, tiny_graphs
from ._pairs import Pairs
from ._pieces import Activation, Law, Maker, checked_size, checked_sizes, draw, resolve_activation, resolve_law


class GCNLayer(nn.Module):
    r"""One graph convolution: average over the neighbours and oneself, with the weights of a random walk made symmetric.

    $$H' = \hat A H W^⊤ + 1 b^⊤, \qquad \hat A = D^{-1/2} (A + I) D^{-1/2}, \quad D_{ii} = 1 + \sum_j A_{ij}.$$

    Shapes: $x$: (..., n, d), graph: (..., n, n) or (..., 2, E) → (..., n, d'). Parameters `weight` (d', d), `bias` (d',).
    Initialisation: `"glorot"`, Var $W_{ij} = 2/(d + d')$, $b = 0$, or as `MLP` has it.

    Args:
        n_in: $d$.
        n_out: $d'$.
        init: a name of `MLP`'s table or a `Law`.
        bias: False leaves $b$ out.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: $2 n d d' + 2 E d'$ operations (dense: $2 n^2 d'$ instead of the second term).
    Left out: negative weights (their $D$ may vanish; `checked_graph` refuses them).
    Source: kipf2017semi.

    >>> layer = GCNLayer(1, 1, bias=False)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[1.0]])})
    >>> edges = torch.tensor([[0, 1], [1, 0]])                      # two nodes, joined: both average
    >>> layer(torch.tensor([[2.0], [4.0]]), edges).round(decimals=6).tolist()
    [[3.0], [3.0]]

    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        init: str | Law = "glorot",
        bias: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_in, self.n_out = checked_size("n_in", n_in), checked_size("n_out", n_out)
        make = Maker(dtype, device, generator)
        W, b = draw(resolve_law(init), (n_out, n_in), generator)
        self.weight = make.parameter(W)
        self.bias = make.parameter(b) if bias else None

    def forward(self, x: Tensor, graph: Tensor | Pairs) -> Tensor:
        r"""Return $H'$: (..., n, d), graph → (..., n, d')."""
        h, pairs, leading = read(x, graph, self.n_in)  # (b n d)
        scale = (1 + pairs.degree()).rsqrt().unsqueeze(-1)  # (b n 1)
        h = scale * (h @ self.weight.T)
        h = scale * (pairs.propagate(h) + h)
        if self.bias is not None:
            h = h + self.bias
        return h.reshape(leading + h.shape[1:])

    def extra_repr(self) -> str:
        """Name the sizes in the printed layer."""
        return f"{self.n_in}, {self.n_out}"


class GCN(GraphNetwork):
    r"""A graph convolutional network with an output at every node.

    $$Z_1 = \hat A X W_1^⊤ + b_1, \qquad Z_l = \hat A φ(Z_{l-1}) W_l^⊤ + b_l, \qquad f(X, A) = Z_L,$$

    with $\hat A$ of `GCNLayer`. Shapes: $x$: (..., n, $n_0$), graph: (..., n, n) or (..., 2, E) → (..., n, $n_L$).
    Parameters `layers.0.weight`, `layers.0.bias`, …. Initialisation: as `GCNLayer`. Renaming the nodes renames the
    outputs: $f(PX, PAP^⊤) = P f(X, A)$.

    Args:
        widths: $n_0, …, n_L$, at least two positive integers.
        activation: a name of `ACTIVATIONS` or a function; the paper's is relu.
        init: as `GCNLayer`.
        bias: False leaves every $b_l$ out, as the paper's equation does.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: the sum of its layers'.
    Left out: dropout, weight decay, the softmax of the paper's classifier.
    Source: kipf2017semi.

    >>> net = GCN([2, 8, 3])
    >>> tuple(net(torch.zeros(4, 2), torch.zeros(4, 4)).shape)
    (4, 3)
    >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    >>> torch.allclose(net(x, path)[0], net(x, path)[2], atol=1e-6)   # the path read backwards
    True

    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation = "tanh",
        init: str | Law = "glorot",
        bias: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        self.activation = resolve_activation(activation)
        self.layers = nn.ModuleList(
            GCNLayer(n, m, init, bias, dtype, device, generator)
            for n, m in zip(self.widths[:-1], self.widths[1:], strict=True)
        )


def _gcn() -> GCN:
    return GCN([3, 4, 2], init="default", dtype=torch.float64, generator=seeded(61))


ENTRIES = (
    Architecture(
        name="gcn",
        family="GCN",
        build=_gcn,
        sample=tiny_graphs(3, NODES, 2),
        loss=mean_square,
        symmetry=EQUIVARIANT,
        source="kipf2017semi",
    ),
    Architecture(
        name="gcn-edges",
        family="GCN",
        build=_gcn,
        sample=tiny_graphs(3, NODES, 2, dense=False),
        loss=mean_square,
        symmetry=EQUIVARIANT,
        source="kipf2017semi",
    ),
)
