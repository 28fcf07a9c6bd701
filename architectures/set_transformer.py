r"""The Set Transformer: attention among the elements of a set, without positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._entry import Architecture, mean_square, normal, sampled, seeded
from ._pieces import Activation, Law, Maker, checked_size, resolve_activation, resolve_law
from .attention import MultiHeadAttention
from .sets import ELEMENTS, EQUIVARIANT, INVARIANT, check_set


class MAB(nn.Module):
    r"""The block of which the Set Transformer is made: attention, then the same layer for each element.

    $$H = X + \mathrm{MultiHead}(X, Y, Y), \qquad \mathrm{MAB}(X, Y) = H + φ(H W^⊤ + 1 b^⊤).$$

    Shapes: $X$: (b, t, d), $Y$: (b, s, d) → (b, t, d). Parameters of `attention` as `MultiHeadAttention` names them,
    `feed.weight` $W$: (d, d), `feed.bias` $b$: (d,). Initialisation: `init` for all, by default `"glorot"`, Var $1/d$.

    Args:
        width: $d$.
        heads: of the attention, a divisor of $d$.
        activation: $φ$, a name of `ACTIVATIONS` or a function; the paper's is relu.
        init: the law of all matrices and biases, by name or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or a shape is not what it must be.

    Cost: that of the attention and $2 t d^2$.
    Left out: the paper's optional layer norms; dropout.
    Source: lee2019set.

    >>> block, x, y = MAB(2, 1), torch.ones(1, 1, 2), torch.tensor([[[1.0, 3.0], [3.0, 1.0]]])
    >>> state = {name: torch.zeros(p.shape) for name, p in block.named_parameters()}        # equal weights for all of Y
    >>> state |= {f"attention.{name}.weight": torch.eye(2) for name in ("W_v", "W_o")}
    >>> _ = block.load_state_dict(state)
    >>> block(x, y).tolist()                                        # x + the mean of y
    [[[3.0, 3.0]]]

    """

    def __init__(
        self,
        width: int,
        heads: int,
        activation: str | Activation = "tanh",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.activation = resolve_activation(activation)
        self.attention = MultiHeadAttention(width, heads, init=init, dtype=dtype, device=device, generator=generator)
        self.feed = Maker(dtype, device, generator).linear(width, width, resolve_law(init))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return $MAB(X, Y)$: (b, t, d), (b, s, d) → (b, t, d)."""
        h = x + self.attention(x, y, y)
        return h + self.activation(self.feed(h))


class SAB(nn.Module):
    r"""Attention of a set to itself: $\mathrm{SAB}(X) = \mathrm{MAB}(X, X)$, equivariant under reordering.

    Shapes: (b, n, d) → (b, n, d). Parameters `mab.…`; arguments, initialisation and errors as `MAB`.
    Cost: $8 n d^2 + 4 n^2 d$ operations for the attention. Source: lee2019set.

    >>> tuple(SAB(4, 2)(torch.zeros(2, 5, 4)).shape)
    (2, 5, 4)
    """

    def __init__(
        self,
        width: int,
        heads: int,
        activation: str | Activation = "tanh",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.mab = MAB(width, heads, activation, init, dtype, device, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return $SAB(X)$: (b, n, d) → (b, n, d)."""
        return self.mab(x, x)


class ISAB(nn.Module):
    r"""Attention of a set to itself by way of $m$ learnt points, in time linear in its size.

    $$\mathrm{ISAB}(X) = \mathrm{MAB}_2(X, \mathrm{MAB}_1(I, X)), \qquad I ∈ ℝ^{m × d}.$$

    Shapes: (b, n, d) → (b, n, d). Parameters `points` $I$, `mab_1.…`, `mab_2.…`; $I$ has independent
    $N(0, 1/d)$ entries, the rest as `MAB`. Args: `points`: $m$; the others and the errors as `MAB`.
    Cost: $8 n m d$ operations besides the linear maps. Source: lee2019set.

    >>> tuple(ISAB(4, 2, points=3)(torch.zeros(2, 5, 4)).shape)
    (2, 5, 4)
    """

    def __init__(
        self,
        width: int,
        heads: int,
        points: int,
        activation: str | Activation = "tanh",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        make = Maker(dtype, device, generator)
        self.points = make.normal((checked_size("points", points), checked_size("width", width)), 1 / width)  # (m d)
        self.mab_1 = MAB(width, heads, activation, init, dtype, device, generator)
        self.mab_2 = MAB(width, heads, activation, init, dtype, device, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return $ISAB(X)$: (b, n, d) → (b, n, d)."""
        return self.mab_2(x, self.mab_1(self.points.expand(x.shape[0], -1, -1), x))


class PMA(nn.Module):
    r"""Pooling by attention: $k$ learnt seeds look at the set.

    $$\mathrm{PMA}_k(Z) = \mathrm{MAB}(S, φ(Z W^⊤ + 1 b^⊤)), \qquad S ∈ ℝ^{k × d}.$$

    Shapes: (b, n, d) → (b, k, d). Parameters `seeds` $S$, `feed.weight` $W$, `feed.bias` $b$, `mab.…`; $S$ has
    independent $N(0, 1/d)$ entries, the rest as `MAB`. Args: `seeds`: $k$; the others and the errors as `MAB`.
    Cost: $4 n k d$ operations besides the linear maps. Source: lee2019set.

    >>> tuple(PMA(4, 2, seeds=3)(torch.zeros(2, 5, 4)).shape)
    (2, 3, 4)
    """

    def __init__(
        self,
        width: int,
        heads: int,
        seeds: int = 1,
        activation: str | Activation = "tanh",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        make = Maker(dtype, device, generator)
        self.activation = resolve_activation(activation)
        self.seeds = make.normal((checked_size("seeds", seeds), checked_size("width", width)), 1 / width)  # (k d)
        self.feed = make.linear(width, width, resolve_law(init))
        self.mab = MAB(width, heads, activation, init, dtype, device, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Return $PMA_k(Z)$: (b, n, d) → (b, k, d)."""
        check_set(z, self.seeds.shape[1], "width", leading="batch")
        return self.mab(self.seeds.expand(z.shape[0], -1, -1), self.activation(self.feed(z)))


class SetTransformer(nn.Module):
    r"""Attention among the elements, pooling by attention, attention among the pools.

    $$Z = \mathrm{SAB}_L(⋯ \mathrm{SAB}_1(X E^⊤ + 1 e^⊤)), \qquad f(X) = \mathrm{SAB}(\mathrm{PMA}_k(Z)) \, V^⊤ + 1 c^⊤.$$

    Shapes: $X$: (b, n, n_in) → (b, k, n_out); reordering the elements changes nothing. Parameters `embed.weight` $E$:
    (d, n_in), `embed.bias`, `encoder.0.mab.…`, `pool.…`, `decoder.mab.…`, `readout.weight` $V$: (n_out, d),
    `readout.bias`. Initialisation: as `MAB`, `PMA`; $E$ and $V$ by `init`.

    Args:
        n_in: the size of an element.
        width: $d$.
        n_out: the size of an output.
        heads: of every attention, a divisor of $d$.
        layers: $L$.
        seeds: $k$.
        activation: as `MAB`.
        init: the law of all matrices and biases, by name or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: $L$ times a `SAB`, a `PMA` and a `SAB` of $k$ elements.
    Left out: `ISAB` in place of `SAB` (put it in `encoder`), layer norms, dropout, sets of different sizes in a batch.
    Source: lee2019set.

    >>> net, x = SetTransformer(2, 4, 3, heads=2, seeds=2), torch.randn(1, 5, 2)
    >>> tuple(net(x).shape), torch.allclose(net(x), net(x.flip(1)), atol=1e-5)
    ((1, 2, 3), True)

    """

    def __init__(
        self,
        n_in: int,
        width: int,
        n_out: int,
        heads: int = 1,
        layers: int = 2,
        seeds: int = 1,
        activation: str | Activation = "tanh",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_in = checked_size("n_in", n_in)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        rest = (activation, init, dtype, device, generator)
        self.embed = make.linear(n_in, checked_size("width", width), law)
        self.encoder = nn.ModuleList(SAB(width, heads, *rest) for _ in range(checked_size("layers", layers)))
        self.pool = PMA(width, heads, seeds, *rest)
        self.decoder = SAB(width, heads, *rest)
        self.readout = make.linear(width, checked_size("n_out", n_out), law)

    def features(self, x: Tensor) -> Tensor:
        """Return $Z$, which reordering the elements reorders: (b, n, n_in) → (b, n, d).

        >>> tuple(SetTransformer(2, 4, 3).features(torch.zeros(1, 5, 2)).shape)
        (1, 5, 4)
        """
        check_set(x, self.n_in, "n_in", leading="batch")
        z = self.embed(x)  # (b n d)
        for block in self.encoder:
            z = block(z)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(X)$: (b, n, n_in) → (b, k, n_out)."""
        return self.readout(self.decoder(self.pool(self.features(x))))


ENTRIES = (
    Architecture(
        name="set-transformer",
        family="SetTransformer",
        build=lambda: SetTransformer(
            2, 3, 2, heads=3, layers=1, seeds=2, init="default", dtype=torch.float64, generator=seeded(74)
        ),
        sample=sampled(lambda g: (normal(g, 3, ELEMENTS, 2), normal(g, 3, 2, 2))),
        loss=mean_square,
        symmetry=INVARIANT,
        source="lee2019set",
    ),
    Architecture(
        name="set-transformer-induced",
        family="ISAB",
        build=lambda: ISAB(4, 2, points=2, init="default", dtype=torch.float64, generator=seeded(75)),
        sample=sampled(lambda g: (normal(g, 3, ELEMENTS, 4), normal(g, 3, ELEMENTS, 4))),
        loss=mean_square,
        symmetry=EQUIVARIANT,
        source="lee2019set",
    ),
)
