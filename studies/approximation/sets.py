r"""What a pooled sum, mean or maximum over a set keeps, and what it loses.

A network on sets may treat the elements one by one, pool them, and treat the pool @zaheer2017deep. The kind of pool decides
what the network can tell apart: a mean cannot count, a maximum cannot see repetition, a sum can do both @xu2019how. So does the
size of the pool: with fewer numbers than there are elements two sets share one pool, whatever was learned, as long as it is
continuous @wagstaff2019limitations. Such pairs of sets are found here, in trained networks as in random ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.approximation.constructions_sets import PowerSums
from lemmata.architectures import DeepSets
from lemmata.architectures.sets import POOLS
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
HIDDEN, RATE = 16, 0.01
ADAM = partial(torch.optim.Adam, lr=RATE)
ENOUGH = "fewer latent numbers than elements: as many"


def uniform(draws: torch.Generator, *shape: int) -> Tensor:
    """Numbers in [0, 1), made on the CPU in float64 and moved."""
    drawn = torch.rand(shape, generator=draws, dtype=torch.float64, device="cpu")
    return drawn.to(torch.get_default_device(), torch.get_default_dtype())


def largest(x: Tensor) -> Tensor:
    """The maximum of sets of numbers, (b, N, 1) → (b,)."""
    return x[..., 0].amax(-1)


def learned(size: int, latent: int, steps: int, seed: int) -> DeepSets:
    """A sum decomposition trained on the maximum of random sets of numbers in [0, 1]; as drawn for no steps."""
    draws = torch.Generator().manual_seed(seed)
    net = DeepSets([1, HIDDEN, latent], [latent, HIDDEN, 1], generator=draws)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x = uniform(draws, 1, 64, size, 1)
        return x, largest(x)

    if steps:
        train([net], lambda f, g: (f[..., 0] - g).square().mean(), batch, steps, ADAM)
    return net


def encoder(phi: str, size: int, latent: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Sets to sums of so many latent numbers: of powers, of a random network, or of a trained one."""
    if phi == "powers":
        return lambda x: torch.cat([x**k for k in range(1, latent + 1)], -1).sum(-2)
    net = learned(size, latent, 300 if phi == "trained" else 0, seed)
    return lambda x: POOLS["sum"](net.phi(x.to(torch.get_default_device())))


def draw_collision(ax: Any, rows: Rows) -> Columns:
    """One trained latent number over all pairs: its level curves cannot have the corners of the maximum's.

    The square of pairs of numbers, with smooth level curves of the trained latent. Two circles lie on one curve and on two
    different dashed lines; these are the level lines of the maximum, which turn by a right angle at the diagonal.
    """
    row = next(r for r in rows if not r.arm and r.k == 0 and r.point["size"] == 2 and r.point["phi"] == "trained")
    first, second, phi = (np.array(row.values[name]) for name in ("first", "second", "phi"))
    x = np.linspace(0, 1, len(phi))
    ax.contour(x, x, phi[:, None] + phi[None], levels=14, colors="0.6", linewidths=0.8, linestyles="solid")
    level = np.interp(first[:2], x, phi).sum()
    ax.contour(x, x, phi[:, None] + phi[None], levels=[level], colors="C0", linewidths=2)
    for pair in (first, second):
        top = pair.max()
        ax.plot([0, top, top], [top, top, 0], "--", color="C1", linewidth=1)
        ax.plot(*pair, "o", color="C1", markersize=8)
    ax.plot([], [], color="C0", label="one value of the latent number")
    ax.plot([], [], "--", color="C1", label="one value of the maximum")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return {"x": x.tolist(), "phi(x)": phi.tolist()}


@claim(
    source=("wagstaff2019limitations", "zaheer2017deep"),
    predicts=AtMost(1e-12),
    quick=Grid(size=[2, 3], phi=["powers", "random", "trained"], seeds=2),
    full=Grid(size=[2, 3, 4], phi=["powers", "random", "trained"], seeds=5),
    controls={ENOUGH: dict(more=1)},
    figures=(draw_collision,),
)
def deepsets_latent_dimension(size: int, phi: str, seed: int, more: int = 0) -> dict[str, Any]:
    r"""With fewer latent numbers than elements two sets with different maxima share one pool.

    Let $phi : [0, 1] -> RR^m$ be continuous and $m < N$. Then $X |-> sum_(x in X) phi (x)$ does not determine the maximum of
    sets of $N$ numbers @wagstaff2019limitations. For $N = 2$ and $m = 1$ this is the intermediate value theorem:
    $2 phi (c) = phi (a) + phi (b)$ for some $c$ between $a$ and $b$. Every function of the pool is wrong by half of the
    difference of the maxima on one of the two sets.

    The value is the least distance, relative to the spread of the pool, between the pools of two sets whose maxima differ by
    at least 0.05, found by least squares from 16 starts; $m = N - 1$, and $phi$ are powers, a random network, and one that was
    trained to give the maximum. It is zero to rounding. How much the maxima differ has no bound from below that holds for all
    $phi$: $phi (x) = e^(k x)$ brings it down like $(ln 2)\/k$. With $m = N$, the control, the search ends at pairs that are apart.
    """
    latent = size - 1 + more
    encode = encoder(phi, size, latent, seed)
    found = la.latent_collision(encode, largest, size, starts=16, seed=seed % 2**32)
    ticks = encode(torch.linspace(0, 1, 101)[:, None, None])[:, 0].detach()
    sets = {"first": found.first, "second": found.second, "targets": np.array(found.targets)}
    return {"value": found.latent_gap, "floor": found.floor, "phi": ticks, **sets}


class Lossy(PowerSums):
    """Power sums of which the last are lost."""

    def __init__(self, size: int, lost: int) -> None:
        super().__init__(size)
        self.lost = lost

    def latent(self, x: Tensor) -> Tensor:
        """The power sums, the lost ones zero."""
        sums = super().latent(x)
        return torch.cat([sums[..., : self.size - self.lost], torch.zeros_like(sums[..., : self.lost])], -1)


@claim(
    source=("zaheer2017deep", "wagstaff2019limitations"),
    predicts=AtMost(1e-6),
    quick=Grid(size=[2, 4, 6, 8], seeds=3),
    full=Grid(size=[2, 3, 4, 5, 6, 7, 8], seeds=20),
    controls={"as many power sums as elements: one less": dict(lost=1)},
)
def deepsets_latent_dimension_recovery(size: int, seed: int, lost: int = 0) -> Tensor:
    r"""As many power sums as there are elements determine a set.

    From $p_k = sum_i x_i^k$, $k = 1, dots, N$, Newton's identities give the elementary symmetric polynomials, the coefficients of
    the polynomial whose zeros are the elements: the pool with $phi (x) = (x, x^2, dots, x^N)$ loses nothing
    @zaheer2017deep. The value is the largest error of an element, over 100 sets of one number from the middle four fifths of
    each of $N$ equal parts of $[-1, 1]$. (Where $n$ elements come together, all but one in $n$ of their digits are lost.) The
    control lacks the last sum.
    """
    draws = torch.Generator().manual_seed(seed)
    x = 2 * (torch.arange(size) + 0.1 + 0.8 * uniform(draws, 100, size)) / size - 1
    sums = Lossy(size, lost)
    return (sums.decode(sums(x)) - x).abs().max()


def networks(pool: str, count: int, draws: torch.Generator) -> list[DeepSets]:
    """Random networks on sets of numbers."""
    return [DeepSets([1, HIDDEN, HIDDEN], [HIDDEN, HIDDEN, 1], pool, generator=draws) for _ in range(count)]


@claim(
    source="xu2019how",
    predicts=AtMost(1e-12),
    quick=Grid(copies=[2, 3, 7], pool=["mean", "max"], seeds=3),
    full=Grid(copies=[2, 3, 7, 20], pool=["mean", "max"], seeds=20),
    controls={"a mean or a maximum: the sum": dict(pool="sum")},
)
def mean_pool_cannot_count(copies: int, pool: str, seed: int) -> Tensor:
    r"""A mean or a maximum cannot tell a set from several copies of it.

    With $X union.plus X$ the multiset in which every element occurs twice as often, and $f (X) = rho ("pool"_(x in X) phi (x))$,
    $ f (X) = f (X union.plus dots.c union.plus X) $
    for the mean and for the maximum, whatever $phi$ and $rho$ are @xu2019how. The value is the largest difference over ten
    random networks and 50 sets of five. The sum, the control, tells them apart.
    """
    draws = torch.Generator().manual_seed(seed)
    x = uniform(draws, 50, 5, 1)
    with torch.no_grad():
        return torch.stack([net(x) - net(x.repeat(1, copies, 1)) for net in networks(pool, 10, draws)]).abs().max()


@claim(
    source="xu2019how",
    predicts=AtMost(1e-12),
    quick=Grid(repeats=[1, 3], seeds=3),
    full=Grid(repeats=[1, 3, 10], seeds=20),
    controls={"a maximum: the mean": dict(pool="mean"), "a maximum: the sum": dict(pool="sum")},
)
def mean_pool_cannot_count_repetition(repeats: int, seed: int, pool: str = "max") -> Tensor:
    r"""A maximum cannot see how often an element occurs.

    Under an entrywise maximum $f (X)$ depends on which elements occur in $X$ alone @xu2019how. The value is the largest change
    over ten random networks and 50 sets of five when one element is repeated. A mean, which keeps the shares of the elements,
    and a sum change.
    """
    draws = torch.Generator().manual_seed(seed)
    x = uniform(draws, 50, 5, 1)
    more = torch.cat([x, x[:, :1].expand(-1, repeats, -1)], 1)
    with torch.no_grad():
        return torch.stack([net(x) - net(more) for net in networks(pool, 10, draws)]).abs().max()


@claim(
    source="xu2019how",
    predicts=Equals("comb(letters + most, letters) - 1", within=0, of="each"),
    quick=Grid(letters=[2, 3], most=[3, 6], seeds=1),
    full=Grid(letters=[2, 3, 4], most=[3, 6, 8], seeds=1),
    controls={"the sum: the mean": dict(pool="mean"), "the sum: the maximum": dict(pool="max")},
)
def mean_pool_cannot_count_sum(letters: int, most: int, seed: int, pool: str = "sum") -> dict[str, Any]:
    r"""A sum tells all multisets over finitely many letters apart, by a single number.

    Let $phi$ of the letter $a = 0, 1, dots, m - 1$ be $(N + 1)^a$. The sum over a multiset of at most $N$ letters has its
    counts for digits, so that the $binom(N + m, m) - 1$ multisets that are not empty have as many sums @xu2019how. That one
    number is enough here does not contradict the first claim: letters are isolated points, and no continuous $phi$ does it on an
    interval. The value is the number of different pools, in whole numbers that float64 holds exactly.
    """
    pools = set()
    for n in range(1, most + 1):
        words = torch.tensor(list(itertools.combinations_with_replacement(range(letters), n)))
        phi = (most + 1.0) ** words[..., None]
        pools |= set(POOLS[pool](phi)[:, 0].tolist())
    return {"value": len(pools)}


class OnCopies(nn.Module):
    """A network's outputs on one to K copies of a set: (b, n, 1) → (b, K)."""

    def __init__(self, net: DeepSets, most: int) -> None:
        super().__init__()
        self.net, self.most = net, most

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(x.repeat(1, k, 1)) for k in range(1, self.most + 1)], -1)


def draw_counts(ax: Any, rows: Rows) -> Columns:
    """Networks trained to count: those with a mean or a maximum say the same for one copy and for four.

    Output against the number of elements. Circles of the sum lie on the diagonal; those of the mean and of the maximum
    lie on a level line half-way between the least and the largest count.
    """
    columns: dict[str, Any] = {}
    shown = [("", "mean", "mean", "o"), ("", "max", "maximum", "x"), (SUM, "mean", "sum", "s")]
    for arm, pool, label, mark in shown:
        row = next(r for r in rows if r.arm == arm and r.k == 0 and r.point["pool"] == pool)
        outputs, size = row.values["outputs"], row.point["size"]
        columns["elements"] = size * np.arange(1, len(outputs) + 1)
        columns[label] = outputs
        ax.plot(columns["elements"], outputs, mark, label=label, fillstyle="none", markersize=9)
    ax.plot(columns["elements"], columns["elements"], "--", color="0.3", linewidth=1, label="the count")
    ax.set(xlabel="elements", ylabel="output", xticks=columns["elements"])
    ax.legend()
    return columns


SUM = "a mean or a maximum: the sum"


@claim(
    source="xu2019how",
    predicts=AtLeast("1 - rounding(64)"),
    quick=Grid(pool=["mean", "max"], size=[3], copies=[4], steps=[300], seeds=2),
    full=Grid(pool=["mean", "max"], size=[3, 6], copies=[4, 8], steps=[2000], seeds=10),
    controls={SUM: dict(pool="sum")},
    figures=(draw_counts,),
)
def mean_pool_cannot_count_floor(pool: str, size: int, copies: int, steps: int, seed: int) -> dict[str, Any]:
    r"""No network with a mean or a maximum counts the elements of copied sets better than one number does.

    Take sets of $n$ random elements in one to $K$ copies, each as likely as the others, and the number of elements $n k$ as
    target. A network that cannot tell the copies apart has one output for all, and its mean squared error is at least the
    variance of the target,
    $ n^2 (K^2 - 1) / 12. $
    Four networks with each pool are trained by Adam on fresh sets; the value is the least error of any, at any step, over the
    floor. The sum, trained the same way, goes below a hundredth of it.
    """
    draws = torch.Generator().manual_seed(seed)
    nets = [OnCopies(net, copies) for net in networks(pool, 4, draws)]
    target = size * torch.arange(1.0, copies + 1).expand(len(nets), 32, -1)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return uniform(draws, len(nets), 32, size, 1), target

    losses = train(nets, lambda f, g: (f - g).square().mean(), batch, steps, ADAM)
    with torch.no_grad():
        outputs = nets[int(losses[-1].argmin())](uniform(draws, 32, size, 1)).mean(0)
    return {"value": losses.min() / (size**2 * (copies**2 - 1) / 12), "outputs": outputs, "losses": losses[-1]}


if __name__ == "__main__":
    script(__file__)
