r"""Graph attention networks (GAT), whose nodes all rank their neighbours alike, and what GATv2 shares with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, mean_square, seeded
from ._graphs import EQUIVARIANT, NODES, GraphNetwork, read, tiny_graphs
from ._pairs import Pairs, softmax
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_size,
    checked_sizes,
    draw,
    resolve_activation,
    resolve_law,
)

MERGES = ("concat", "mean")
SLOPE = 0.2  # of LeakyReLU below 0


class AttentionLayer(nn.Module):
    """What both layers do with their scores: a softmax over each node's neighbours and itself, an average, a merge."""

    bias: nn.Parameter

    def __init__(self, n_in: int, n_out: int, heads: int, merge: str):
        super().__init__()
        self.n_in, self.n_out = checked_size("n_in", n_in), checked_size("n_out", n_out)
        self.heads, self.merge = checked_size("heads", heads), checked_name("merge", merge, MERGES)
        if merge == "concat" and n_out % heads:
            raise ArchitectureError(
                f"heads={heads} does not divide n_out={n_out}: heads that are put one after the other have n_out/heads "
                'numbers each; change one, or take merge="mean".'
            )
        self.c = n_out // heads if merge == "concat" else n_out

    def _inner(self, h: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return the values $W h_j$, (b n k c), and what LeakyReLU acts on, (pairs k) or (pairs k c)."""
        raise NotImplementedError

    def _scores(self, u: Tensor) -> Tensor:
        """Return $e_{ij}$, (pairs k), of what LeakyReLU has acted on."""
        return u

    def attention(self, x: Tensor, graph: Tensor | Pairs) -> Tensor:
        """Return $α_{ij}$, the weight of j in the average at i; over j and the edges from it these sum to 1.

        Of shape (..., n, n, k) if the graph is an adjacency, else (..., E + n, k): the listed edges, in which a loop
        has 0, then each node's loop to itself.
        """
        h, pairs, leading = read(x, graph, self.n_in)
        pairs = pairs.with_loops()
        _, u = self._inner(h, pairs)
        alpha = softmax(pairs, self._scores(F.leaky_relu(u, SLOPE)))
        alpha = pairs.unflattened(pairs.weighted(alpha))
        return alpha.reshape(leading + alpha.shape[1:])

    def before_kinks(self, x: Tensor, graph: Tensor | Pairs) -> Tensor:
        """Return what LeakyReLU acts on, with its kink at 0; shapes as of `attention`, for GATv2 with c more."""
        h, pairs, leading = read(x, graph, self.n_in)
        pairs = pairs.with_loops()
        u = pairs.unflattened(self._inner(h, pairs)[1])
        return u.reshape(leading + u.shape[1:])

    def forward(self, x: Tensor, graph: Tensor | Pairs) -> Tensor:
        """Return $h'$: (..., n, d), graph → (..., n, d')."""
        h, pairs, leading = read(x, graph, self.n_in)  # (b n d)
        pairs = pairs.with_loops()
        values, u = self._inner(h, pairs)
        alpha = softmax(pairs, self._scores(F.leaky_relu(u, SLOPE)))  # (pairs k)
        new = pairs.attend(alpha, values)  # (b n k c)
        new = (new.flatten(2) if self.merge == "concat" else new.mean(2)) + self.bias
        return new.reshape(leading + new.shape[1:])

    def extra_repr(self) -> str:
        """Name the sizes in the printed layer."""
        return f"{self.n_in}, {self.n_out}, heads={self.heads}, merge={self.merge}"


class GATLayer(AttentionLayer):
    r"""Attention over the neighbours and oneself, by a score that is a sum over the two ends.

    $$e_{ij} = \mathrm{LeakyReLU}(a_r · W h_i + a_s · W h_j), \qquad
    α_{ij} = \frac{\tilde A_{ij} \exp e_{ij}}{\sum_k \tilde A_{ik} \exp e_{ik}}, \qquad
    h_i' = \sum_j α_{ij} W h_j + b,$$

    for each of $k$ heads with their own $W, a_r, a_s$, whose results are put one after the other, or averaged, before
    $b$ is added. $\tilde A$ is $A$ with ones on its diagonal, whatever was there; LeakyReLU has slope 0.2 below 0. As
    LeakyReLU is monotone, all receivers $i$ rank the senders $j$ alike (by $a_s · W h_j$).

    Shapes: $x$: (..., n, d), graph: (..., n, n) or (..., 2, E) → (..., n, d'); with c = d'/k numbers a head
    (`"concat"`) or c = d' (`"mean"`): `weight` (kc, d), `a_receiver` and `a_sender` (k, c), `bias` (d',).
    Initialisation: `"glorot"`, Var $W_{ij} = 2/(d + kc)$, $a = [a_r ‖ a_s]$ with variance $2/(2c + 1)$, $b = 0$; or a
    law of `MLP`'s table, with fan-in $d$ for $W$ and $b$, and $2c$ for $a$.

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

    Cost: $2 n d k c + 2 E k c$ operations (dense: n² for E), k scores an edge in memory and kc values.
    Left out: dropout of weights, vectors on edges.
    Source: velickovic2018graph.

    >>> layer, x = GATLayer(1, 1, heads=1), torch.tensor([[0.0], [3.0]])
    >>> with torch.no_grad():                                       # the score of j is h_j
    ...     _ = [p.fill_(v) for p, v in zip(layer.parameters(), (1.0, 0.0, 1.0, 0.0))]
    >>> weight = layer.attention(x, torch.ones(2, 2))[0, 1, 0]      # e³/(1 + e³)
    >>> torch.isclose(weight, torch.tensor(3.0).sigmoid()).item(), torch.isclose(layer(x, torch.ones(2, 2))[0], 3 * weight).item()
    (True, True)

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
        W, b = draw(law, (heads * self.c, n_in), generator)
        a = torch.stack([draw(law, (1, 2 * self.c), generator)[0].view(2, self.c) for _ in range(heads)], 1)  # (2 k c)
        self.weight = make.parameter(W)
        self.a_receiver, self.a_sender = make.parameter(a[0]), make.parameter(a[1])
        self.bias = make.parameter(b[:n_out])

    def _inner(self, h: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        values = (h @ self.weight.T).unflatten(-1, (self.heads, self.c))  # (b n k c)
        receiver, sender = (values * self.a_receiver).sum(-1), (values * self.a_sender).sum(-1)  # (b n k)
        return values, pairs.receivers(receiver) + pairs.senders(sender)


class AttentionNetwork(GraphNetwork):
    """Layers of one class: what `GAT` and `GATv2` share."""

    layer: Callable[..., AttentionLayer]

    def __init__(
        self,
        widths: Sequence[int],
        heads: int = 1,
        activation: str | Activation = "tanh",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        self.activation = resolve_activation(activation)
        merges = ["concat"] * (len(self.widths) - 2) + ["mean"]
        self.layers = nn.ModuleList(
            self.layer(n, m, heads, merge, init, dtype, device, generator)
            for n, m, merge in zip(self.widths[:-1], self.widths[1:], merges, strict=True)
        )


class GAT(AttentionNetwork):
    r"""A graph attention network with an output at every node.

    $$z_1 = \mathrm{GATLayer}_1(x, A), \qquad z_l = \mathrm{GATLayer}_l(φ(z_{l-1}), A), \qquad f(x, A) = z_L;$$

    hidden layers put their heads one after the other, the last averages them.

    Shapes: $x$: (..., n, $n_0$), graph: (..., n, n) or (..., 2, E) → (..., n, $n_L$). Parameters
    `layers.0.weight`, `layers.0.a_receiver`, …. Initialisation: as `GATLayer`. Renaming the nodes renames the outputs.

    Args:
        widths: $n_0, …, n_L$, at least two positive integers; $k$ divides those between.
        heads: $k$, of every layer.
        activation: $φ$, a name of `ACTIVATIONS` or a function; the paper's is elu.
        init: as `GATLayer`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: the sum of its layers'.
    Left out: dropout, another number of heads in the last layer.
    Source: velickovic2018graph.

    >>> net, x = GAT([2, 8, 3], heads=4), torch.ones(5, 2)
    >>> out = net(x, torch.zeros(5, 5))                             # equal nodes: an average of them changes nothing
    >>> tuple(out.shape), torch.allclose(out, net(x, torch.ones(5, 5)), atol=1e-6)
    ((5, 3), True)

    """

    layer = GATLayer


#: The law of the tiny networks: no bias is 0, and few scores lie near LeakyReLU's kink.
LARGE = Law("large", lambda n, m: 0.25, lambda n, m: 0.1)


def _gat() -> GAT:
    return GAT([2, 4, 2], heads=2, init=LARGE, dtype=torch.float64, generator=seeded(67))


def nearest_kink(net: AttentionNetwork, x: Tensor, A: Tensor) -> Tensor:
    """Return for each graph the smallest |u| that LeakyReLU meets in the network; all pairs are taken for edges."""
    inputs = [x, *(net.activation(z) for z in net.preactivations(x, A)[:-1])]
    u = [cast(AttentionLayer, layer).before_kinks(h, A) for layer, h in zip(net.layers, inputs, strict=True)]
    return torch.stack([part.abs().flatten(1).amin(1) for part in u]).amin(0)


ENTRIES = tuple(
    Architecture(
        name="gat" + ("" if dense else "-edges"),
        family="GAT",
        build=_gat,
        sample=tiny_graphs(2, NODES, 2, dense=dense, keep=lambda x, A: nearest_kink(_gat(), x, A)),
        loss=mean_square,
        symmetry=EQUIVARIANT,
        source="velickovic2018graph",
        smooth=False,
    )
    for dense in (True, False)
)
