r"""Transformers that read: the encoder and its layer."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ._entry import Architecture, Symmetry, mean_square, normal, sampled, seeded
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_size,
    resolve_activation,
    resolve_law,
)
from .attention import MultiHeadAttention
from .norms import LayerNorm
from .positions import Positions

NORMS = ("pre", "post")


class FeedForward(nn.Module):
    r"""The same two-layer network at every position.

    $$f(x) = W_2 φ(W_1 x + b_1) + b_2.$$

    Shapes: (..., d) → (..., d); `W_1.weight`: (hidden, d), `W_2.weight`: (d, hidden). Initialisation: `init`, and `out_init` for
    $W_2$ if it is given; args as in `EncoderLayer`. Cost: 4 d hidden operations a position.
    Source: vaswani2017attention.

    >>> FeedForward(4, 8, "relu", "he")(torch.zeros(2, 4)).tolist()[0]
    [0.0, 0.0, 0.0, 0.0]

    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str | Activation,
        init: str | Law,
        out_init: str | Law | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.activation = resolve_activation(activation)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        width, hidden = checked_size("width", width), checked_size("hidden", hidden)
        self.W_1 = make.linear(width, hidden, law)
        self.W_2 = make.linear(hidden, width, law if out_init is None else resolve_law(out_init))

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (..., d) → (..., d)."""
        return self.W_2(self.activation(self.W_1(x)))

    def extra_repr(self) -> str:
        """Name the activation in the printed network."""
        return f"activation={getattr(self.activation, '__name__', self.activation)}"


class EncoderLayer(nn.Module):
    r"""Attention to one another, then a network at every position, each added to what it was given.

    $$\text{pre:} \quad y = x + A(N_1 x), \quad f(x) = y + F(N_2 y); \qquad
    \text{post:} \quad y = N_1(x + A(x)), \quad f(x) = N_2(y + F(y)),$$

    with $A$ = `MultiHeadAttention` of its argument to itself, $F$ = `FeedForward`, $N$ = `LayerNorm`.

    Shapes: (b, t, d) → (b, t, d). Parameters: those of `attention`, `feed_forward`, `norm_1`, `norm_2`.
    Initialisation: `init` for every matrix, `out_init` for $W_o$ and $W_2$ if given; norms 1 and 0.

    Args:
        width: $d$.
        heads: a divisor of $d$.
        hidden: the width inside $F$; 4 d if None.
        norm: `"pre"` or `"post"`.
        activation: of $F$, as in `MLP`.
        attention: `"softmax"` or `"linear"`.
        causal: position $t$ sees positions $s ≤ t$ only.
        rotary: rotate queries and keys.
        init: a law by name or a `Law`; `"glorot"` is Var $W_{ij} = 2/(n + m)$ with zero biases.
        out_init: the law of the matrices whose output is added, if it differs.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, the input's shape or the mask is not what it must be.

    Cost: $8 t d^2 + 4 t^2 d + 4 t d\,\mathrm{hidden}$ operations an example. Left out: dropout.
    Source: vaswani2017attention; xiong2020layer for pre and post.

    >>> layer = EncoderLayer(4, 2, norm="post", dtype=torch.float64)
    >>> y = layer(torch.randn(1, 3, 4, dtype=torch.float64))       # what N_2 puts out: mean 0
    >>> torch.allclose(y.mean(-1), torch.zeros(1, 3, dtype=torch.float64), atol=1e-12)
    True

    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int | None = None,
        norm: str = "pre",
        activation: str | Activation = "gelu",
        attention: str = "softmax",
        causal: bool = False,
        rotary: bool = False,
        init: str | Law = "glorot",
        out_init: str | Law | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.norm = checked_name("norm", norm, NORMS)
        self.attention = MultiHeadAttention(
            width, heads, attention, causal, rotary, init, out_init, dtype, device, generator
        )
        hidden = 4 * width if hidden is None else hidden
        self.feed_forward = FeedForward(width, hidden, activation, init, out_init, dtype, device, generator)
        self.norm_1, self.norm_2 = (LayerNorm(width, dtype=dtype, device=device) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return $f(x)$: (b, t, d) → (b, t, d); `mask` as in `MultiHeadAttention`."""
        if self.norm == "pre":
            z = self.norm_1(x)
            x = x + self.attention(z, z, z, mask)
            return x + self.feed_forward(self.norm_2(x))
        x = self.norm_1(x + self.attention(x, x, x, mask))
        return self.norm_2(x + self.feed_forward(x))

    def extra_repr(self) -> str:
        """Name the place of the norms in the printed network."""
        return f"norm={self.norm}"


class Encoder(nn.Module):
    r"""A stack of $L$ encoder layers on vectors that know their positions.

    $$x^0_p = x_p + e_p, \qquad x^l = \mathrm{layer}_l(x^{l-1}), \qquad f(x) = N(x^L),$$

    $e$ as in `Positions`, $N$ a last `LayerNorm` for `norm="pre"` and nothing for `"post"`. With `positions="none"`
    and no mask, $f$ commutes with every permutation of the tokens.

    Shapes: (b, t, d) → (b, t, d). Parameters: `positions.table`, `layers.0.…`, …, `last.gain`, `last.bias`.
    Initialisation: as `EncoderLayer`; learned positions $N(0, 0.02^2)$.

    Args:
        width: $d$.
        heads: a divisor of $d$.
        layers: $L$.
        hidden: the width inside each layer's network; 4 d if None.
        norm: `"pre"` or `"post"`.
        activation: as in `MLP`.
        positions: `"none"`, `"sinusoidal"`, `"learned"` or `"rotary"`.
        length: the longest sequence, for learned positions.
        attention: `"softmax"` or `"linear"`.
        causal: position $t$ sees positions $s ≤ t$ only.
        init: as in `EncoderLayer`.
        out_init: as in `EncoderLayer`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, the input's shape or length, or the mask is not what it must be.

    Cost: $L$ times `EncoderLayer`. Left out: dropout, a map of the inputs to width $d$ (see `SequenceEncoder`).
    Source: vaswani2017attention; xiong2020layer.

    >>> net = Encoder(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> torch.allclose(net(x[:, [2, 0, 1]]), net(x)[:, [2, 0, 1]], rtol=0, atol=1e-12)
    True

    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        hidden: int | None = None,
        norm: str = "pre",
        activation: str | Activation = "gelu",
        positions: str = "none",
        length: int | None = None,
        attention: str = "softmax",
        causal: bool = False,
        init: str | Law = "glorot",
        out_init: str | Law | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.width, rotary = checked_size("width", width), positions == "rotary"
        self.positions = Positions(positions, length, width, Maker(dtype, device, generator))
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                heads,
                hidden,
                norm,
                activation,
                attention,
                causal,
                rotary,
                init,
                out_init,
                dtype,
                device,
                generator,
            )
            for _ in range(checked_size("layers", layers))
        )
        self.last = LayerNorm(width, dtype=dtype, device=device) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return $f(x)$: (b, t, d) → (b, t, d); `mask` as in `MultiHeadAttention`."""
        if x.dim() != 3 or x.shape[-1] != self.width:
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but width={self.width} asks for (batch, length, {self.width})."
            )
        x = self.positions(x)
        for layer in self.layers:
            x = layer(x, mask)  # (b t d)
        return self.last(x)


def stirred(module: nn.Module, seed: int, loud: tuple[str, ...] = ()) -> nn.Module:
    """Add $N(0, 0.3^2)$ noise to every parameter, for the catalogue's entries: no gain is one and no bias zero.

    Then triple the parameters named in `loud`, which make the first vectors: a `LayerNorm` of four coordinates whose
    variance is small bends sharply, and differences of the test's step would not resolve it.

    >>> bool(stirred(LayerNorm(3), seed=0).bias.abs().min() > 0)
    True
    """
    g = seeded(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.3 * normal(g, *parameter.shape).to(parameter))
            parameter.mul_(3 if name in loud else 1)
    return module


#: The orders of four tokens.
_ORDERS = Symmetry(
    elements=tuple(itertools.permutations(range(4))),
    act_on_inputs=lambda g, x: x[:, g],
    act_on_outputs=lambda g, y: y[:, g],
)


def _entry(name: str, seed: int, norm: str, positions: str, width: int, scale: float, source: str) -> Architecture:
    def build() -> nn.Module:
        net = Encoder(
            width,
            2,
            1,
            hidden=4,
            norm=norm,
            positions=positions,
            length=4 if positions == "learned" else None,
            dtype=torch.float64,
            generator=seeded(seed),
        )
        return stirred(net, seed, loud=("positions.table",))

    return Architecture(
        name=name,
        family="Encoder",
        build=build,
        sample=sampled(lambda g: (scale * normal(g, 3, 4, width), normal(g, 3, 4, width))),
        loss=mean_square,
        symmetry=_ORDERS if positions == "none" else None,
        source=source,
    )


ENTRIES = (
    _entry("encoder", 61, "pre", "none", 4, 3.0, "vaswani2017attention"),
    _entry("encoder-pre-norm", 54, "pre", "learned", 4, 3.0, "xiong2020layer"),
    _entry("encoder-post-norm", 70, "post", "sinusoidal", 6, 1.0, "vaswani2017attention"),
)
