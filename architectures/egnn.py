r"""The E(n)-equivariant graph network: nodes with features and positions in space."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._entry import Architecture, Symmetry, mean_square, normal, sampled, seeded
from ._pieces import Activation, ArchitectureError, Law, checked_size, checked_sizes, resolve_activation
from .mlp import MLP


class EGNNLayer(nn.Module):
    r"""One step of messages between all pairs of nodes.

    $$m_{ij} = φ(φ_e(h_i, h_j, \|x_i - x_j\|^2)), \qquad
    x_i' = x_i + \frac1{n-1} \sum_{j ≠ i} a_{ij} (x_i - x_j) \, φ_x(m_{ij}), \qquad
    h_i' = φ_h\Bigl(h_i, \sum_{j ≠ i} a_{ij} m_{ij}\Bigr),$$

    where $φ_e, φ_x, φ_h$ are `MLP`s of two layers with activation φ, and $a_{ij}$ the edges (all 1 if none are given).
    Distances and differences are all that the layer sees of the positions: $h'$ is invariant and $x'$ moves along when
    a rotation, reflection or translation moves $x$, in any dimension; and both commute with the order of the nodes.

    Shapes: $h$: (b, n, c), $x$: (b, n, d), $a$: (b, n, n) → $h'$: (b, n, c'), $x'$: (b, n, d);
    $φ_e$: 2c + 1 → m → m, $φ_x$: m → m → 1, $φ_h$: c + m → m → c'. Parameters are named
    `edge.layers.0.weight`, …, `position.layers.0.weight`, …, `feature.layers.0.weight`, …, those of `MLP`.
    Initialisation: `init` for every layer (the table of `MLP`).

    Args:
        c_in: c.
        c_out: c'.
        message: m, the size of a message and of the hidden layers.
        activation: φ, as in `MLP`; the paper's is silu.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or an input's shape is not what it must be.

    Cost: about $4 n^2 (c + m) m$ operations and $O(n^2 m)$ memory an example: pairs are dense, also with few edges.
    Left out: attributes of edges beyond $a_{ij}$, velocities, the skip connection and the attention of later versions.
    Source: satorras2021en.

    >>> layer = EGNNLayer(1, 1, message=2)
    >>> h, x = torch.ones(1, 2, 1), torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
    >>> _, moved = layer(h, x)
    >>> centre = moved.mean(1)                       # two equal nodes move on their line, by opposite steps
    >>> torch.allclose(centre, torch.tensor([[1.5, 2.0]]), atol=1e-6)
    True

    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        message: int,
        activation: str | Activation = "silu",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.c_in, c_out, m = checked_size("c_in", c_in), checked_size("c_out", c_out), checked_size("message", message)
        self.activation = resolve_activation(activation)
        own: dict[str, Any] = {"activation": activation, "init": init}
        own |= {"dtype": dtype, "device": device, "generator": generator}
        self.edge = MLP([2 * c_in + 1, m, m], **own)
        self.position = MLP([m, m, 1], **own)
        self.feature = MLP([c_in + m, m, c_out], **own)

    def forward(self, h: Tensor, x: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return $h'$ (b, n, c') and $x'$ (b, n, d)."""
        _check_nodes(h, x, edges, self.c_in)
        n = x.shape[1]
        apart = x.unsqueeze(2) - x.unsqueeze(1)  # x_i − x_j: (b i j d)
        squared = apart.square().sum(-1, keepdim=True)  # (b i j 1)
        own = h.unsqueeze(2).expand(-1, -1, n, -1)  # h_i: (b i j c)
        pairs = torch.cat([own, own.transpose(1, 2), squared], dim=-1)  # (b i j 2c+1)
        others = 1 - torch.eye(n, dtype=x.dtype, device=x.device)  # no message to oneself: (i j)
        weight = (others if edges is None else others * edges).unsqueeze(-1)  # ((b) i j 1)
        messages = self.activation(self.edge(pairs))  # m_ij: (b i j m)
        steps = (weight * apart * self.position(messages)).sum(2) / max(n - 1, 1)  # (b i d)
        return self.feature(torch.cat([h, (weight * messages).sum(2)], dim=-1)), x + steps


class EGNN(nn.Module):
    r"""Layers of messages between nodes with features $h$ and positions $x$.

    $$(h^{l}, x^{l}) = \mathrm{EGNNLayer}_l(h^{l-1}, x^{l-1}), \qquad f(h, x) = (h^L, x^L).$$

    $f(h, Qx + t) = (h^L, Qx^L + t)$ for every orthogonal $Q$ and every $t$, for every value of the parameters.

    Shapes: $h$: (b, n, $c_0$), $x$: (b, n, d), edges (b, n, n) → (b, n, $c_L$), (b, n, d); `widths` is $[c_0, …, c_L]$.
    Parameters are named `layers.0.edge.layers.0.weight`, …. Initialisation: that of `EGNNLayer`.

    Args:
        widths: $c_0, …, c_L$, at least two positive integers.
        message: m, the size of a message and of the hidden layers.
        activation: φ, as in `MLP`; the paper's is silu.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or an input's shape is not what it must be.

    Cost: that of its layers.
    Left out: an embedding before and a read-out after: $h^L$ is the invariant output; a mean over nodes makes it one
    of the whole graph.
    Source: satorras2021en.

    >>> net = EGNN([2, 4, 1], message=8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> g = torch.Generator().manual_seed(1)
    >>> h, x = (torch.randn(1, 5, c, dtype=torch.float64, generator=g) for c in (2, 3))
    >>> (a, y), (b, z) = net(h, x), net(h, x.flip(-1) + 7)
    >>> torch.allclose(a, b, rtol=0, atol=1e-12), torch.allclose(y.flip(-1) + 7, z, rtol=0, atol=1e-12)
    (True, True)

    """

    def __init__(
        self,
        widths: Sequence[int],
        message: int,
        activation: str | Activation = "silu",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        self.layers = nn.ModuleList(
            EGNNLayer(c_in, c_out, message, activation, init, dtype, device, generator)
            for c_in, c_out in itertools.pairwise(self.widths)
        )

    def forward(self, h: Tensor, x: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return $h^L$ (b, n, $c_L$) and $x^L$ (b, n, d)."""
        for layer in self.layers:
            h, x = layer(h, x, edges)
        return h, x


def _check_nodes(h: Tensor, x: Tensor, edges: Tensor | None, width: int) -> None:
    if h.dim() != 3 or h.shape[-1] != width:
        raise ArchitectureError(f"h has shape {tuple(h.shape)}, expected (batch, nodes, {width}).")
    if x.dim() != 3 or x.shape[:2] != h.shape[:2]:
        raise ArchitectureError(
            f"x has shape {tuple(x.shape)}, but h of shape {tuple(h.shape)} asks for "
            f"({h.shape[0]}, {h.shape[1]}, dimension): a position for every node."
        )
    if edges is not None and edges.shape != (*h.shape[:2], h.shape[1]):
        raise ArchitectureError(
            f"edges have shape {tuple(edges.shape)}, but h of shape {tuple(h.shape)} asks for "
            f"({h.shape[0]}, {h.shape[1]}, {h.shape[1]}): a number for every pair of nodes, 0 where there is no edge."
        )


def _placed(g: tuple[Any, Any], pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Reorder the nodes of (h, x), then exchange the axes of space and change their signs."""
    nodes, (axes, signs) = list(g[0]), g[1]
    h, x = pair
    return h[:, nodes], x[:, nodes][..., list(axes)] * x.new_tensor(signs)


#: The orders of three nodes with the symmetries of the square, a finite part of the motions of the plane.
_MOTIONS = Symmetry(
    elements=tuple(
        itertools.product(
            itertools.permutations(range(3)),
            itertools.product(itertools.permutations(range(2)), itertools.product((1.0, -1.0), repeat=2)),
        )
    ),
    act_on_inputs=_placed,
    act_on_outputs=_placed,
)


def _pair_error(output: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
    return mean_square(output[0], target[0]) + mean_square(output[1], target[1])


ENTRIES = (
    Architecture(
        name="egnn",
        family="EGNN",
        build=lambda: EGNN([2, 2, 2], message=3, dtype=torch.float64, generator=seeded(44)),
        sample=sampled(lambda g: ((normal(g, 3, 3, 2), normal(g, 3, 3, 2)), (normal(g, 3, 3, 2), normal(g, 3, 3, 2)))),
        loss=_pair_error,
        symmetry=_MOTIONS,
        source="satorras2021en",
    ),
)
