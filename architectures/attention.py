r"""Attention: softmax, linear, and with several heads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._entry import Architecture, Sample, Symmetry, mean_square, normal, sampled, seeded
from ._pieces import ArchitectureError, Law, Maker, checked_name, checked_size, resolve_law
from .positions import rotate

KINDS = ("softmax", "linear")


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Average values with weights that say how well queries and keys agree.

    $$\mathrm{attend}(Q, K, V) = \mathrm{softmax}\bigl(Q K^⊤ / \sqrt{d}\bigr) V,$$

    the softmax over the keys that `mask` allows. Shapes: q (..., t, d), k (..., s, d), v (..., s, e) → (..., t, e);
    mask: Boolean, broadcastable to (..., t, s), True where a query may look; a query that may look nowhere gets NaN.
    Cost: 2 t s (d + e) operations, t s numbers in memory. Source: vaswani2017attention.

    >>> q, k = torch.zeros(1, 2), torch.ones(2, 2)                 # no key is better than another: the mean
    >>> attend(q, k, torch.tensor([[1.0], [3.0]])).item()
    2.0
    >>> attend(q, k, torch.tensor([[1.0], [3.0]]), torch.tensor([[True, False]])).item()
    1.0
    """
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT  # (... t s)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, -1) @ v


def features(x: Tensor) -> Tensor:
    r"""Return $φ(x) = \mathrm{elu}(x) + 1$: $1 + x$ where $x > 0$, else $e^x$; positive, with one continuous derivative.

    >>> features(torch.tensor([-1.0, 0.0, 2.0])).tolist() == [torch.tensor(-1.0).exp().item(), 1.0, 3.0]
    True
    """
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def linear_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    r"""Average values with weights $φ(q)^⊤ φ(k)$, in time linear in the length.

    $$y_t = \frac{\bigl(\sum_s v_s φ(k_s)^⊤\bigr) φ(q_t)}{\sum_s φ(k_s)^⊤ φ(q_t)}, \qquad φ(x) = \mathrm{elu}(x) + 1,$$

    the sums over all $s$, or over $s ≤ t$ if `causal`. Shapes: q (..., t, d), k (..., s, d), v (..., s, e) →
    (..., t, e). Cost: 2 d e (t + s) operations; causal keeps its running sums, t d e numbers in memory.
    Raises: ArchitectureError if causal and t ≠ s. Source: katharopoulos2020transformers.

    >>> q = k = torch.zeros(2, 3)                                  # φ = 1: plain means
    >>> linear_attention(q, k, torch.tensor([[1.0], [3.0]]), causal=False).tolist()
    [[2.0], [2.0]]
    >>> linear_attention(q, k, torch.tensor([[1.0], [3.0]]), causal=True).tolist()
    [[1.0], [2.0]]
    """
    q, k = features(q), features(k)
    if not causal:
        return (q @ (k.mT @ v)) / (q @ k.sum(-2).unsqueeze(-1))
    if q.shape[-2] != k.shape[-2]:
        raise ArchitectureError(
            f"causal attention pairs query t with key t, but there are {q.shape[-2]} queries and {k.shape[-2]} keys."
        )
    sums = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(-3)  # (... t d e)
    weight = (q * k.cumsum(-2)).sum(-1, keepdim=True)  # (... t 1)
    return (q.unsqueeze(-2) @ sums).squeeze(-2) / weight


class MultiHeadAttention(nn.Module):
    r"""Attention in $h$ subspaces at once.

    $$\mathrm{head}_i = \mathrm{attend}(X_q W_q^i, X_k W_k^i, X_v W_v^i), \qquad
    f(X_q, X_k, X_v) = [\mathrm{head}_1, …, \mathrm{head}_h] W_o + b_o.$$

    Shapes: query (b, t, d), key and value (b, s, d) → (b, t, d); each head has $d/h$ coordinates. Parameters
    `W_q.weight`, `W_q.bias`, then `W_k`, `W_v`, `W_o`: (d, d) and (d,), head $i$ in rows $i d/h … (i+1) d/h - 1$.
    Initialisation: `"glorot"`, Var $W_{ij} = 1/d$ [glorot2010understanding], zero biases; or a `Law`.

    Args:
        width: $d$.
        heads: $h$, a divisor of $d$.
        kind: `"softmax"` (`attend`) or `"linear"` (`linear_attention`).
        causal: query $t$ sees keys $s ≤ t$ only.
        rotary: rotate every head's queries and keys by their positions (`positions.rotate`); softmax only.
        init: the law of all four matrices, by name or a `Law`.
        out_init: the law of $W_o$, if it differs.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, a shape or a mask is not what it must be.

    Cost: $4 (t + s) d^2 + 4 t s d$ operations an example (softmax), h t s numbers in memory.
    Left out: dropout of weights, key and value widths other than $d$, caches.
    Source: vaswani2017attention; katharopoulos2020transformers; su2024roformer.

    >>> net = MultiHeadAttention(4, 2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.ones(1, 3, 4)                                    # equal tokens: attention changes nothing
    >>> torch.allclose(net(x, x, x), net.W_o(net.W_v(x)), atol=1e-6)
    True

    """

    def __init__(
        self,
        width: int,
        heads: int,
        kind: str = "softmax",
        causal: bool = False,
        rotary: bool = False,
        init: str | Law = "glorot",
        out_init: str | Law | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.width, self.heads = checked_size("width", width), checked_size("heads", heads)
        if width % heads:
            raise ArchitectureError(f"heads={heads} does not divide width={width}: every head takes width/heads.")
        if rotary and (width // heads) % 2:
            raise ArchitectureError(
                f"rotary positions turn pairs of coordinates, but width={width} and heads={heads} give each head "
                f"{width // heads}: make width/heads even."
            )
        self.kind, self.causal, self.rotary = checked_name("kind", kind, KINDS), causal, rotary
        if rotary and kind == "linear":
            raise ArchitectureError(
                "rotary positions make softmax scores depend on distances; φ(R_t q)·φ(R_s k) does not. Take "
                "kind='softmax', or positions that are added."
            )
        make, law = Maker(dtype, device, generator), resolve_law(init)
        self.W_q, self.W_k, self.W_v = (make.linear(width, width, law) for _ in range(3))
        self.W_o = make.linear(width, width, law if out_init is None else resolve_law(out_init))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return $f$: (b, t, d), (b, s, d), (b, s, d) → (b, t, d); `mask`: Boolean (t, s) or (b, t, s), True = look."""
        self._check(query, key, value, mask)
        q, k, v = self._split(self.W_q(query)), self._split(self.W_k(key)), self._split(self.W_v(value))  # (b h t d/h)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        if self.kind == "linear":
            heads = linear_attention(q, k, v, self.causal)
        else:
            heads = attend(q, k, v, self._allowed(q, k, mask))
        return self.W_o(heads.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        """Name the heads, the kind and the mask in the printed network."""
        return f"heads={self.heads}, kind={self.kind}, causal={self.causal}, rotary={self.rotary}"

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b t d) → (b h t d/h)

    def _allowed(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
        if mask is not None:
            mask = mask.unsqueeze(-3)  # the same for every head
        if not self.causal:
            return mask
        past = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        return past if mask is None else mask & past

    def _check(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x.dim() != 3 or x.shape[-1] != self.width:
                raise ArchitectureError(
                    f"{name} has shape {tuple(x.shape)}, but width={self.width} asks for (batch, length, {self.width})."
                )
        if not (query.shape[0] == key.shape[0] == value.shape[0]) or key.shape[1] != value.shape[1]:
            raise ArchitectureError(
                f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} must have the same "
                "batch, and key and value the same length."
            )
        if self.causal and query.shape[1] != key.shape[1]:
            raise ArchitectureError(
                f"causal attention pairs query t with key t, but there are {query.shape[1]} queries and "
                f"{key.shape[1]} keys."
            )
        if mask is not None:
            self._check_mask(mask, (query.shape[0], query.shape[1], key.shape[1]))

    def _check_mask(self, mask: Tensor, shape: tuple[int, int, int]) -> None:
        if self.kind == "linear":
            raise ArchitectureError(
                "kind='linear' never forms the weights a mask acts on; take causal=True or softmax."
            )
        b, t, s = shape
        fits = mask.dim() in (2, 3) and all(m in (1, n) for m, n in zip(mask.shape[::-1], shape[::-1], strict=False))
        if mask.dtype != torch.bool or not fits:
            raise ArchitectureError(
                f"mask is {mask.dtype} of shape {tuple(mask.shape)}, but must be Boolean (True = may look) of shape "
                f"({t}, {s}) or ({b}, {t}, {s})."
            )


def _away_from_kinks(build: Callable[[], MultiHeadAttention]) -> Sample:
    """Three examples of three tokens at which every coordinate of queries and keys is 0.05 away from elu's kink."""

    def draw(g: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        (query, key, value), target = (normal(g, 99, 3, 4) for _ in range(3)), normal(g, 3, 3, 4)
        net = build()
        with torch.no_grad():
            far = torch.cat([net.W_q(query), net.W_k(key)], 1).abs().amin((1, 2)) > 0.05  # (99,)
        return (query[far][:3], key[far][:3], value[far][:3]), target

    return sampled(draw)


#: The orders of three tokens.
_ORDERS = Symmetry(
    elements=tuple(itertools.permutations(range(3))),
    act_on_inputs=lambda g, x: tuple(part[:, g] for part in x),
    act_on_outputs=lambda g, y: y[:, g],
)
#: Weights of variance 1/d, biases of variance 1/4: none is zero.
_LIVELY = Law("lively", lambda n, m: 1 / n, lambda n, m: 0.25)


def _entry(name: str, seed: int, kind: str, causal: bool, source: str) -> Architecture:
    def build() -> MultiHeadAttention:
        return MultiHeadAttention(
            4, 2, kind=kind, causal=causal, init=_LIVELY, dtype=torch.float64, generator=seeded(seed)
        )

    return Architecture(
        name=name,
        family="MultiHeadAttention",
        build=build,
        sample=_away_from_kinks(build),
        loss=mean_square,
        symmetry=None if causal else _ORDERS,
        source=source,
        smooth=kind == "softmax",
    )


ENTRIES = (
    _entry("attention", 50, "softmax", False, "vaswani2017attention"),
    _entry("attention-linear", 51, "linear", False, "katharopoulos2020transformers"),
    _entry("attention-linear-causal", 52, "linear", True, "katharopoulos2020transformers"),
)
