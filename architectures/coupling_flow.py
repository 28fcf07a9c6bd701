r"""A normalising flow of affine couplings (real NVP): an invertible network whose Jacobian determinant is a sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle, islice
from typing import cast

import torch
from torch import Tensor, nn

from ._entry import Architecture, normal, sampled, seeded
from ._pieces import Activation, ArchitectureError, Law, Maker, checked_size, checked_sizes
from .mlp import MLP


class AffineCoupling(nn.Module):
    r"""One affine coupling: a half of the coordinates is scaled and shifted by functions of the other half.

    $$u' = u, \qquad v' = v ⊙ e^{s(u)} + t(u), \qquad s = α ⊙ \tanh(\hat s), \quad (\hat s, t) = \mathrm{MLP}(u),$$
    $$\log|\det J| = \sum_i s_i(u), \qquad v = (v' - t(u')) ⊙ e^{-s(u')}.$$

    Shapes: $u$: (..., $d_u$), $v$: (..., $d_v$). Parameters: `net` is `MLP([d_u, *hidden, 2 d_v])`, whose output is
    $\hat s$, then $t$; `alpha` ($d_v$,), so that no scale leaves $e^{±|α|}$.
    Initialisation: the table of `MLP`; $α = 1$.

    Args:
        given: $d_u$.
        changed: $d_v$.
        hidden: the widths between.
        activation: as in `MLP`.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the shape of $u$ or $v$, is not what it must be.

    Cost: that of the MLP, forward and inverse alike.
    Source: dinh2017density.

    >>> layer = AffineCoupling(2, 3, [4], dtype=torch.float64, generator=seeded(0))
    >>> u, v = normal(seeded(1), 5, 2), normal(seeded(2), 5, 3)
    >>> moved, log_det = layer(u, v)
    >>> torch.allclose(layer.inverse(u, moved), v, rtol=0, atol=1e-14), bool(log_det.abs().max() < 3)
    (True, True)

    """

    def __init__(
        self,
        given: int,
        changed: int,
        hidden: Sequence[int],
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        d_u, d_v = checked_size("given", given), checked_size("changed", changed)
        self.net = MLP(
            [d_u, *checked_sizes("hidden", hidden, 0), 2 * d_v], activation, init, True, dtype, device, generator
        )
        self.alpha = Maker(dtype, device, generator).full((d_v,), 1.0)

    def scale_and_shift(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return $s(u)$ and $t(u)$: (..., $d_u$) → (..., $d_v$), (..., $d_v$).

        >>> [tuple(part.shape) for part in AffineCoupling(2, 3, []).scale_and_shift(torch.zeros(5, 2))]
        [(5, 3), (5, 3)]
        """
        raw, shift = self.net(u).chunk(2, dim=-1)
        return self.alpha * raw.tanh(), shift

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $v'$ and $\log|\det J|$, (...,)."""
        self._check("v", u, v)
        s, t = self.scale_and_shift(u)
        return v * s.exp() + t, s.sum(-1)

    def inverse(self, u: Tensor, moved: Tensor) -> Tensor:
        """Return $v$ from $u' = u$ and $v'$.

        >>> layer = AffineCoupling(1, 1, [], init=Law("none", lambda n, m: 0.0))  # s = t = 0
        >>> layer.inverse(torch.ones(1), torch.tensor([2.0])).tolist()
        [2.0]
        """
        self._check("moved", u, moved)
        s, t = self.scale_and_shift(u)
        return (moved - t) * (-s).exp()

    def _check(self, name: str, u: Tensor, v: Tensor) -> None:
        expected = (*u.shape[:-1], len(self.alpha))
        if tuple(v.shape) != expected:
            raise ArchitectureError(
                f"{name} has shape {tuple(v.shape)}, but u of shape {tuple(u.shape)} and changed={len(self.alpha)} ask for "
                f"{expected}: give each example's two halves."
            )


class CouplingFlow(nn.Module):
    r"""A normalising flow of $L$ affine couplings that change the two halves of the coordinates in turn.

    $$z = f_L ∘ ⋯ ∘ f_1(x), \qquad p(x) = N(z; 0, I) \, |\det J(x)|, \qquad
    \log|\det J(x)| = \sum_{l=1}^{L} \sum_i s^{(l)}_i,$$

    where $f_1, f_3, …$ (`AffineCoupling`) change the last $⌊d/2⌋$ coordinates given the first $⌈d/2⌉$, and $f_2, f_4, …$
    the first given the last: the binary masks of the source, alternating.

    Shapes: $x$: (..., d) → $(z, \log|\det J|)$: (..., d), (...). Parameters are named `couplings.0.alpha`,
    `couplings.0.net.layers.0.weight`, …. Initialisation: that of `AffineCoupling`.

    Args:
        inputs: $d$, at least 2.
        couplings: $L$; at least 2 change every coordinate.
        hidden: the widths inside each coupling's MLP.
        activation: as in `MLP`; a smooth one makes the density smooth.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's last dimension, is not what it must be.

    Cost: that of the $L$ MLPs, to evaluate a density and to draw from it alike.
    Left out: convolutions, multiple scales, batch normalisation, 1 × 1 convolutions.
    Source: dinh2017density.

    >>> flow = CouplingFlow(3, 4, [8], dtype=torch.float64, generator=seeded(0))
    >>> x = normal(seeded(1), 5, 3)
    >>> z, log_det = flow(x)
    >>> torch.allclose(flow.inverse(z), x, rtol=0, atol=1e-13)
    True
    >>> torch.allclose(flow.log_density(x), log_det - z.square().sum(1) / 2 - 1.5 * math.log(2 * math.pi))
    True

    """

    def __init__(
        self,
        inputs: int,
        couplings: int,
        hidden: Sequence[int],
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if checked_size("inputs", inputs) < 2:
            raise ArchitectureError(
                "inputs=1 has no half to change given the other: a coupling needs inputs=2 or more."
            )
        first, last = (inputs + 1) // 2, inputs // 2
        self.halves = [first, last]
        self.couplings = nn.ModuleList(
            AffineCoupling(*roles, hidden, activation, init, dtype, device, generator)
            for roles in islice(cycle([(first, last), (last, first)]), checked_size("couplings", couplings))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $z$ and $\log|\det J(x)|$: (..., d) → (..., d), (...)."""
        self._check("x", x)
        given, changed = x.split(self.halves, dim=-1)
        log_det = x.new_zeros(x.shape[:-1])
        for coupling in self.couplings:
            changed, gained = coupling(given, changed)
            log_det = log_det + gained
            given, changed = changed, given
        return self._joined(given, changed), log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Return the $x$ that `forward` maps to $z$; standard normal $z$ are draws from the model.

        >>> tuple(CouplingFlow(4, 2, [3]).inverse(torch.zeros(5, 4)).shape)
        (5, 4)
        """
        self._check("z", z)
        first, last = z.split(self.halves, dim=-1)
        given, changed = (last, first) if len(self.couplings) % 2 else (first, last)
        for coupling in reversed(self.couplings):
            given, changed = changed, given
            changed = cast(AffineCoupling, coupling).inverse(given, changed)
        return torch.cat([given, changed], dim=-1)

    def log_density(self, x: Tensor) -> Tensor:
        r"""Return $\log p(x)$: (..., d) → (...).

        >>> flow = CouplingFlow(2, 2, [], init=Law("none", lambda n, m: 0.0))  # the identity
        >>> round(flow.log_density(torch.zeros(2)).exp().item() * 2 * math.pi, 6)
        1.0
        """
        return log_density(self(x))

    def _joined(self, given: Tensor, changed: Tensor) -> Tensor:
        """Put the halves where they belong: after an odd number of couplings they have changed roles."""
        swapped = len(self.couplings) % 2
        return torch.cat([changed, given] if swapped else [given, changed], dim=-1)

    def _check(self, name: str, x: Tensor) -> None:
        if x.dim() == 0 or x.shape[-1] != sum(self.halves):
            raise ArchitectureError(
                f"{name} has shape {tuple(x.shape)}, but inputs={sum(self.halves)} asks for (..., {sum(self.halves)})."
            )


def log_density(output: tuple[Tensor, Tensor]) -> Tensor:
    r"""Return $\log N(z; 0, I) + \log|\det J|$ from what a flow returns: (..., d), (...) → (...).

    >>> round(log_density((torch.zeros(2), torch.tensor(1.0))).item() + math.log(2 * math.pi), 6)
    1.0
    """
    z, log_det = output
    return log_det - 0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


def _negative_log_likelihood(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """The mean over examples of −log p(x); the target, x itself, is not needed again."""
    return -log_density(output).mean()


def _itself(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = normal(g, 4, 3)
    return x, x


ENTRIES = (
    Architecture(
        name="coupling-flow",
        family="CouplingFlow",
        build=lambda: CouplingFlow(3, 3, [4], dtype=torch.float64, generator=seeded(43)),
        sample=sampled(_itself),
        loss=_negative_log_likelihood,
        symmetry=None,
        source="dinh2017density",
    ),
)
