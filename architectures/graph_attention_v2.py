r"""Graph attention networks with dynamic attention (GATv2): each node can rank its neighbours in its own way."""

from __future__ import annotations

import torch
from torch import Tensor

from ._entry import Architecture, mean_square, seeded
from ._graphs import EQUIVARIANT, NODES, tiny_graphs
from ._pairs import Pairs
from ._pieces import Law, Maker, draw, resolve_law
from .graph_attention import LARGE, AttentionLayer, AttentionNetwork, nearest_kink


class GATv2Layer(AttentionLayer):
    r"""Attention over the neighbours and oneself, by a score that is no sum: each node can rank them in its own way.

    $$e_{ij} = a · \mathrm{LeakyReLU}(W_r h_i + W_s h_j), \qquad h_i' = \sum_j α_{ij} W_s h_j + b,$$

    $α$, $k$, LeakyReLU and the heads as in `GATLayer`: its $a$ and LeakyReLU have changed places.

    Shapes: as `GATLayer`; parameters `W_receiver`, `W_sender` (kc, d), `a` (k, c), `bias` (d',).
    Initialisation: `"glorot"`, Var $W_{ij} = 2/(d + kc)$, $a$ with variance $2/(c + 1)$, $b = 0$; or a law of `MLP`'s
    table, with fan-in $d$ for $W_r$, $W_s$ and $b$, and $c$ for $a$.

    Args:
        n_in: $d$.
        n_out: $d'$.
        heads: $k$.
        merge: `"concat"` or `"mean"`.
        init: a name of `MLP`'s table or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: $4 n d k c + 5 E k c$ operations (dense: n² for E), 2kc numbers an edge in memory.
    Left out: dropout of weights, vectors on edges, $W_r = W_s$.
    Source: brody2022how.

    >>> layer, x = GATv2Layer(2, 2), torch.eye(2)
    >>> with torch.no_grad():                                       # node i looks for the j ≠ i
    ...     _ = layer.W_receiver.copy_(-9 * torch.eye(2)), layer.W_sender.copy_(9 * torch.eye(2)), layer.a.fill_(1.0)
    >>> layer.attention(x, torch.ones(2, 2))[..., 0].argmax(1).tolist()
    [1, 0]

    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        heads: int = 1,
        merge: str = "concat",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__(n_in, n_out, heads, merge)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        self.W_receiver = make.parameter(draw(law, (heads * self.c, n_in), generator)[0])
        W, b = draw(law, (heads * self.c, n_in), generator)
        self.W_sender = make.parameter(W)
        self.a = make.parameter(torch.cat([draw(law, (1, self.c), generator)[0] for _ in range(heads)]))  # (k c)
        self.bias = make.parameter(b[:n_out])

    def _inner(self, h: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        receiver = (h @ self.W_receiver.T).unflatten(-1, (self.heads, self.c))  # (b n k c)
        values = (h @ self.W_sender.T).unflatten(-1, (self.heads, self.c))
        return values, pairs.receivers(receiver) + pairs.senders(values)

    def _scores(self, u: Tensor) -> Tensor:
        return (u * self.a).sum(-1)


class GATv2(AttentionNetwork):
    r"""A graph attention network with dynamic attention and an output at every node.

    $$z_1 = \mathrm{GATv2Layer}_1(x, A), \qquad z_l = \mathrm{GATv2Layer}_l(φ(z_{l-1}), A), \qquad f(x, A) = z_L.$$

    All else as in `GAT`; parameters `layers.0.W_receiver`, ….

    Args:
        widths: $n_0, …, n_L$, at least two positive integers; $k$ divides those between.
        heads: $k$, of every layer.
        activation: $φ$, a name of `ACTIVATIONS` or a function.
        init: as `GATv2Layer`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: the sum of its layers'.
    Left out: as `GAT`.
    Source: brody2022how.

    >>> net, x = GATv2([2, 8, 3], heads=4), torch.ones(5, 2)
    >>> torch.allclose(net(x, torch.zeros(5, 5)), net(x, torch.ones(5, 5)), atol=1e-6)
    True

    """

    layer = GATv2Layer


def _gatv2() -> GATv2:
    return GATv2([2, 2, 2], heads=2, init=LARGE, dtype=torch.float64, generator=seeded(68))


ENTRIES = (
    Architecture(
        name="gatv2",
        family="GATv2",
        build=_gatv2,
        sample=tiny_graphs(2, NODES, 2, keep=lambda x, A: nearest_kink(_gatv2(), x, A)),
        loss=mean_square,
        symmetry=EQUIVARIANT,
        source="brody2022how",
        smooth=False,
    ),
)
