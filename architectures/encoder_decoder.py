r"""A transformer that translates: an encoder of the source, and a causal decoder that looks at it."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, cross_entropy, labels, sampled, seeded
from ._pieces import Activation, ArchitectureError, Law, Maker, checked_name, checked_size
from .attention import MultiHeadAttention
from .gpt import check_tokens
from .norms import LayerNorm
from .positions import Positions
from .transformer import NORMS, Encoder, FeedForward, stirred


class DecoderLayer(nn.Module):
    r"""Causal attention to one another, attention to a memory, a network at every position; each is added.

    With $A$ causal `MultiHeadAttention` to itself, $C$ = `MultiHeadAttention` from $y$ to the memory $m$, $F$ =
    `FeedForward`, $N$ = `LayerNorm`:

    $$\text{pre:} \quad y = x + A(N_1 x), \quad z = y + C(N_2 y, m), \quad f(x, m) = z + F(N_3 z);$$
    $$\text{post:} \quad y = N_1(x + A(x)), \quad z = N_2(y + C(y, m)), \quad f(x, m) = N_3(z + F(z)).$$

    Shapes: $x$: (b, t, d), $m$: (b, s, d) → (b, t, d). Parameters: those of `attention`, `cross`, `feed_forward`,
    `norm_1`, `norm_2`, `norm_3`. Initialisation and arguments: as `EncoderLayer`.
    Raises: ArchitectureError if an argument or a shape is not what it must be.
    Cost: $12 t d^2 + 4 s d^2 + 4 t (t + s) d + 4 t d\,\mathrm{hidden}$ operations an example. Left out: dropout.
    Source: vaswani2017attention; xiong2020layer for pre and post.

    >>> layer = DecoderLayer(4, 2)
    >>> tuple(layer(torch.zeros(1, 3, 4), torch.zeros(1, 5, 4)).shape)
    (1, 3, 4)

    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int | None = None,
        norm: str = "pre",
        activation: str | Activation = "gelu",
        rotary: bool = False,
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.norm = checked_name("norm", norm, NORMS)
        self.attention = MultiHeadAttention(
            width, heads, causal=True, rotary=rotary, init=init, dtype=dtype, device=device, generator=generator
        )
        self.cross = MultiHeadAttention(width, heads, init=init, dtype=dtype, device=device, generator=generator)
        self.feed_forward = FeedForward(
            width, 4 * width if hidden is None else hidden, activation, init, None, dtype, device, generator
        )
        self.norm_1, self.norm_2, self.norm_3 = (LayerNorm(width, dtype=dtype, device=device) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return $f(x, m)$: (b, t, d), (b, s, d) → (b, t, d); `mask`: (t, s) or (b, t, s), where `cross` may look."""
        if self.norm == "pre":
            z = self.norm_1(x)
            x = x + self.attention(z, z, z)
            x = x + self.cross(self.norm_2(x), memory, memory, mask)
            return x + self.feed_forward(self.norm_3(x))
        x = self.norm_1(x + self.attention(x, x, x))
        x = self.norm_2(x + self.cross(x, memory, memory, mask))
        return self.norm_3(x + self.feed_forward(x))

    def extra_repr(self) -> str:
        """Name the place of the norms in the printed network."""
        return f"norm={self.norm}"


class EncoderDecoder(nn.Module):
    r"""The transformer that translates a source into a target, token by token.

    $$m = \mathrm{Encoder}(\sqrt d E_{s}), \qquad y^0_t = \sqrt d D_{u_t} + e_t, \quad
    y^l = \mathrm{DecoderLayer}_l(y^{l-1}, m), \qquad f(s, u)_t = D N(y^L_t),$$

    with tables $E$ of source and $D$ of target tokens, the latter also the read-out; positions $e$ as in `Positions`
    (the encoder has its own); $N$ a last `LayerNorm` for `norm="pre"`, nothing for `"post"`. $f(s, u)_t$ depends on
    $u_1, …, u_t$ alone: train it on targets shifted by a start token, read it with `greedy`.

    Shapes: $s$: (b, s) below `source_vocabulary`, $u$: (b, t) below `target_vocabulary` → (b, t, `target_vocabulary`).
    Parameters: `source`, `target`: (V, d); `encoder.…`, `layers.…`, `last.…`, and `positions.table` if learned.
    Initialisation: $E, D ∼ N(0, 1/d)$; matrices by `init` (`"glorot"`: Var $W_{ij} = 2/(n + m)$), biases 0, gains 1.

    Args:
        source_vocabulary: the number of source tokens.
        target_vocabulary: the number of target tokens.
        width: $d$.
        heads: a divisor of $d$.
        layers: of the encoder, and of the decoder.
        hidden: the width inside each layer's network; 4 d if None.
        norm: `"pre"` or `"post"`.
        activation: as in `MLP`.
        positions: `"sinusoidal"`, `"learned"`, `"rotary"` (not between target and source) or `"none"`.
        length: the longest source or target, for learned positions.
        init: a law by name or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the inputs' shapes, types or lengths, are not what they must be.

    Cost: `layers` times `EncoderLayer` and `DecoderLayer`. Left out: dropout, beam search, one table for both sides.
    Source: vaswani2017attention; xiong2020layer.

    >>> net = EncoderDecoder(7, 5, width=4, heads=2, layers=1, generator=torch.Generator().manual_seed(0))
    >>> a, b = net(torch.tensor([[1, 6]] * 2), torch.tensor([[1, 2, 3], [1, 2, 4]]))
    >>> tuple(a.shape), torch.equal(a[:2], b[:2]), torch.equal(a[2], b[2])
    ((3, 5), True, False)

    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        width: int,
        heads: int,
        layers: int,
        hidden: int | None = None,
        norm: str = "pre",
        activation: str | Activation = "gelu",
        positions: str = "sinusoidal",
        length: int | None = None,
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        make, width = Maker(dtype, device, generator), checked_size("width", width)
        self.source = make.normal((checked_size("source_vocabulary", source_vocabulary), width), 1 / width)
        self.target = make.normal((checked_size("target_vocabulary", target_vocabulary), width), 1 / width)
        stack = partial(Encoder, width, heads, layers, hidden, norm, activation, positions, length)
        self.encoder = stack(init=init, dtype=dtype, device=device, generator=generator)
        self.positions = Positions(positions, length, width, make)
        rotary = positions == "rotary"
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, hidden, norm, activation, rotary, init, dtype, device, generator)
            for _ in range(layers)
        )
        self.last = LayerNorm(width, dtype=dtype, device=device) if norm == "pre" else nn.Identity()

    def encode(self, source: Tensor, real: Tensor | None = None) -> Tensor:
        """Return the memory $m$: (b, s) → (b, s, d); `real`: Boolean (b, s), False at padding, which no one sees."""
        check_tokens("source tokens", source)
        x = math.sqrt(self.source.shape[-1]) * F.embedding(source, self.source)  # (b s d)
        return self.encoder(x, _seen(real, source))

    def decode(self, memory: Tensor, target: Tensor, real: Tensor | None = None) -> Tensor:
        """Return the logits of every next token: (b, s, d), (b, t) → (b, t, `target_vocabulary`)."""
        check_tokens("target tokens", target)
        y = self.positions(math.sqrt(self.target.shape[-1]) * F.embedding(target, self.target))  # (b t d)
        mask = _seen(real, memory[..., 0])
        for layer in self.layers:
            y = layer(y, memory, mask)
        return self.last(y) @ self.target.mT

    def forward(self, source: Tensor, target: Tensor, real: Tensor | None = None) -> Tensor:
        """Return $f(s, u)$: (b, s), (b, t) → (b, t, `target_vocabulary`); `real` as in `encode`."""
        return self.decode(self.encode(source, real), target, real)


def _seen(real: Tensor | None, source: Tensor) -> Tensor | None:
    """Return which source positions may be looked at, as a mask (b, 1, s)."""
    if real is None:
        return None
    if real.shape != source.shape or real.dtype != torch.bool:
        raise ArchitectureError(
            f"real is {real.dtype} of shape {tuple(real.shape)}, but must be Boolean of the source's shape "
            f"{tuple(source.shape)}, False at padding."
        )
    return real.unsqueeze(1)


def greedy(model: EncoderDecoder, source: Tensor, start: int, length: int, real: Tensor | None = None) -> Tensor:
    r"""Translate by taking the likeliest token again and again.

    $$u_1 = \mathrm{start}, \qquad u_{t+1} = \arg\max_v f(s, u_{1 … t})_{t, v}.$$

    Shapes: source (b, s) → (b, length) tokens $u_2, …$, the start left out. Decodes to the given length: cut at a stop
    token yourself. No gradient. Cost: one `encode` and `length` times `decode`. Left out: caches.
    Source: vaswani2017attention.

    >>> net = EncoderDecoder(7, 5, width=4, heads=2, layers=1, generator=torch.Generator().manual_seed(0))
    >>> s = torch.tensor([[1, 6], [2, 2]])
    >>> u = greedy(net, s, start=0, length=3)
    >>> shifted = torch.cat([torch.zeros(2, 1, dtype=torch.long), u[:, :2]], 1)
    >>> tuple(u.shape), torch.equal(u, net(s, shifted).argmax(-1))   # its own teacher
    ((2, 3), True)
    """
    checked_size("length", length)
    with torch.no_grad():
        memory = model.encode(source, real)
        target = torch.full((len(source), 1), start, dtype=torch.long, device=source.device)
        for _ in range(length):
            likeliest = model.decode(memory, target, real)[:, -1:].argmax(-1)  # (b 1)
            target = torch.cat([target, likeliest], 1)
    return target[:, 1:]


ENTRIES = (
    Architecture(
        name="encoder-decoder",
        family="EncoderDecoder",
        build=lambda: stirred(
            EncoderDecoder(3, 3, 3, 3, 1, 4, dtype=torch.float64, generator=seeded(59)), 59, loud=("source", "target")
        ),
        sample=sampled(lambda g: ((labels(g, 3, 3, 3), labels(g, 3, 3, 4)), labels(g, 3, 3, 4))),
        loss=cross_entropy,
        symmetry=None,
        source="vaswani2017attention",
    ),
)
