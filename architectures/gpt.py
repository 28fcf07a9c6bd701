r"""A transformer that predicts the next token: GPT."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, cross_entropy, seeded, tokens
from ._pieces import Activation, ArchitectureError, Law, Maker, checked_size, resolve_law
from .transformer import Encoder, stirred

#: GPT-2's law: every matrix and table $N(0, 0.02^2)$, biases zero.
GPT2 = Law("gpt2", lambda n, m: 0.02**2)


def residual(law: Law, layers: int) -> Law:
    r"""Return the law of the 2L matrices whose outputs are added to the stream: the variance divided by $2L$.

    >>> residual(GPT2, layers=2).weight_variance(8, 8) == 0.02**2 / 4
    True
    """
    if law.shape == "orthogonal":
        raise ArchitectureError(
            "GPT divides the variance of some matrices by 2 layers, which orthogonal ones cannot have; take a Gaussian "
            "or uniform law."
        )
    return replace(
        law,
        name=f"{law.name}, residual",
        weight_variance=lambda n, m: law.weight_variance(n, m) / (2 * checked_size("layers", layers)),
    )


def check_tokens(name: str, s: Tensor) -> None:
    """Raise unless `s` is (batch, length) integers.

    >>> check_tokens("tokens", torch.zeros(1, 2, dtype=torch.long))
    """
    if s.dim() != 2 or s.dtype not in (torch.int64, torch.int32):
        raise ArchitectureError(
            f"{name} are {s.dtype} of shape {tuple(s.shape)}, but must be integers (int64 or int32) of shape "
            "(batch, length): s.long() converts."
        )


class GPT(nn.Module):
    r"""A causal transformer from tokens to the logits of each next token.

    $$x^0_t = E_{s_t} + e_t, \qquad x = \mathrm{Encoder}_{\text{causal}}(x^0), \qquad f(s)_t = E x_t,$$

    with $e$ as in `Positions` and one table $E$ for tokens and read-out. $f(s)_t$ depends on $s_1, …, s_t$ alone, to
    the last bit.

    Shapes: $s$: (b, t) integers below V → (b, t, V); `embedding`: (V, d). Parameters: `embedding`, `body.…`.
    Initialisation: every matrix, $E$ and learned positions $N(0, 0.02^2)$, divided by $\sqrt{2L}$ for $W_o$ and $W_2$;
    biases 0, gains 1 [radford2019language]. With another `init`: $E$ Gaussian with the variance of a (V, d) matrix of
    that law; learned positions stay at $0.02^2$.

    Args:
        vocabulary: V.
        width: $d$.
        heads: a divisor of $d$.
        layers: $L$.
        length: the longest sequence, needed for learned positions only.
        hidden: the width inside each layer's network; 4 d if None.
        norm: `"pre"` or `"post"`.
        activation: as in `MLP`.
        positions: `"learned"`, `"rotary"`, `"sinusoidal"` or `"none"`.
        attention: `"softmax"` or `"linear"`.
        init: a law by name or a `Law`, not orthogonal.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's shape, type or length, is not what it must be.

    Cost: $L$ times `EncoderLayer` and 2 t d V operations an example.
    Left out: dropout, a read-out of its own, caches of keys and values.
    Source: radford2019language; su2024roformer for rotary positions.

    >>> net = GPT(5, width=4, heads=2, layers=1, length=3, generator=torch.Generator().manual_seed(0))
    >>> a, b = net(torch.tensor([[1, 2, 3], [1, 2, 4]]))
    >>> torch.equal(a[:2], b[:2]), torch.equal(a[2], b[2])          # the past does not see the future
    (True, False)

    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        heads: int,
        layers: int,
        length: int | None = None,
        hidden: int | None = None,
        norm: str = "pre",
        activation: str | Activation = "gelu",
        positions: str = "learned",
        attention: str = "softmax",
        init: str | Law = GPT2,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        law, make = resolve_law(init), Maker(dtype, device, generator)
        shape = (checked_size("vocabulary", vocabulary), checked_size("width", width))
        self.embedding = make.normal(shape, law.weight_variance(width, vocabulary))
        self.body = Encoder(
            width,
            heads,
            layers,
            hidden,
            norm,
            activation,
            positions,
            length,
            attention,
            causal=True,
            init=law,
            out_init=residual(law, layers),
            dtype=dtype,
            device=device,
            generator=generator,
        )

    def forward(self, s: Tensor) -> Tensor:
        """Return the logits $f(s)$: (b, t) → (b, t, V)."""
        check_tokens("tokens", s)
        return self.body(F.embedding(s, self.embedding)) @ self.embedding.mT  # (b t V)


def _entry(name: str, seed: int, norm: str, positions: str, source: str) -> Architecture:
    return Architecture(
        name=name,
        family="GPT",
        build=lambda: stirred(
            GPT(
                5,
                4,
                2,
                1,
                4 if positions == "learned" else None,
                8,
                norm,
                positions=positions,
                init="lecun",
                dtype=torch.float64,
                generator=seeded(seed),
            ),
            seed,
            loud=("embedding", "body.positions.table"),
        ),
        sample=tokens(4, 5),
        loss=cross_entropy,
        symmetry=None,
        source=source,
    )


ENTRIES = (
    _entry("gpt", 57, "pre", "learned", "radford2019language"),
    _entry("gpt-rotary", 58, "pre", "rotary", "su2024roformer"),
)
