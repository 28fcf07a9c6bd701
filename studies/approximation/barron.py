r"""A rate that does not know the dimension.

A function that is an average of units, $f = EE_w phi_w$, is met by $n$ units drawn at random to a squared error of their variance
over $n$, in any dimension: the law of large numbers in a space of functions, due to Maurey. Barron found the functions that
are such averages: those whose Fourier transform has a finite first moment @barron1993universal. No basis fixed beforehand does
as well. Errors are exact integrals or averages over many points; the units are drawn, not trained
@rahimi2008uniform.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.analysis.approximation.target_spectra import Bell
from lemmata.studies.claim import AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
SPREAD = 0.25  # variance of each coordinate of the Gaussian inputs
MOST_FITTED = 256  # units whose output weights are fitted: a quarter of the points
NODES, WEIGHTS = (torch.tensor(part, device="cpu") for part in np.polynomial.legendre.leggauss(48))


class Gaussians:
    """The bump exp(−|x|²/2), a mean of cos(ω·x) over ω ~ N(0, I), for x ~ N(0, I/4): inner products in closed form."""

    @staticmethod
    def bump(d: int, power: float = 1.0) -> float:
        """E exp(−power |x|²/2)."""
        return (1 + power * SPREAD) ** (-d / 2)

    @staticmethod
    def pairs(w: Tensor) -> Tensor:
        """E cos(ω_i·x) cos(ω_j·x), (…, n, n) from (…, n, d)."""
        inner = w @ w.mT
        size = inner.diagonal(dim1=-2, dim2=-1)
        both = size[..., :, None] + size[..., None, :]
        return (torch.exp(-SPREAD / 2 * (both - 2 * inner)) + torch.exp(-SPREAD / 2 * (both + 2 * inner))) / 2

    @staticmethod
    def with_bump(w: Tensor) -> Tensor:
        """E exp(−|x|²/2) cos(ω_i·x), (…, n)."""
        shrunk = SPREAD / (2 * (1 + SPREAD)) * w.square().sum(-1)
        return (1 + SPREAD) ** (-w.shape[-1] / 2) * torch.exp(-shrunk)


class Box:
    """The same for x uniform on [−1, 1]^d: products over coordinates."""

    @staticmethod
    def bump(d: int, power: float = 1.0) -> float:
        """E exp(−power |x|²/2)."""
        return float((WEIGHTS * torch.exp(-power * NODES**2 / 2)).sum() / 2) ** d

    @staticmethod
    def pairs(w: Tensor) -> Tensor:
        """E cos(ω_i·x) cos(ω_j·x), (…, n, n) from (…, n, d)."""
        u, v = w[..., :, None, :], w[..., None, :, :]
        return (torch.sinc((u - v) / torch.pi).prod(-1) + torch.sinc((u + v) / torch.pi).prod(-1)) / 2

    @staticmethod
    def with_bump(w: Tensor) -> Tensor:
        """E exp(−|x|²/2) cos(ω_i·x), (…, n)."""
        nodes, weights = NODES.to(w), WEIGHTS.to(w)
        return (torch.cos(w[..., None] * nodes) @ (weights * torch.exp(-(nodes**2) / 2)) / 2).prod(-1)


def sampled_error(w: Tensor, inputs: type[Gaussians] | type[Box]) -> Tensor:
    """‖f − n⁻¹ Σ cos(ω_i·x)‖² for frequencies (…, n, d)."""
    n, d = w.shape[-2:]
    return inputs.bump(d, 2.0) - 2 * inputs.with_bump(w).mean(-1) + inputs.pairs(w).sum((-2, -1)) / n**2


def variance(d: int, inputs: type[Gaussians] | type[Box]) -> float:
    """E‖φ‖² − ‖f‖², with E cos² = (1 + E cos 2ω·x)/2 = (1 + E exp(−2|x|²))/2."""
    return (1 + inputs.bump(d, 4.0)) / 2 - inputs.bump(d, 2.0)


@claim(
    source=("barron1993universal", "rahimi2008uniform"),
    predicts=Equals(1, within=0.05),
    quick=Grid(d=[2, 8, 32], n=[4, 16], nets=[3000], seeds=12),
    full=Grid(d=[2, 8, 32, 128], n=[4, 16, 64], nets=[3000], seeds=20),
    controls={
        "independent units: each drawn twice": dict(copies=2),
        "units of the target's spectrum: frequencies twice as large": dict(stretch=2.0),
    },
)
def maurey_barron_rate(d: int, n: int, nets: int, seed: int, copies: int = 1, stretch: float = 1.0) -> dict[str, float]:
    r"""The squared error of n random units is their variance over n, in every dimension.

    Let $f = EE_w phi_w$ and $f_n = 1/n sum_(i=1)^n phi_(w_i)$ with independent $w_i$. Then
    $ EE norm(f - f_n)^2 = 1/n (EE norm(phi_w)^2 - norm(f)^2), $
    with no word of the dimension @barron1993universal @rahimi2008uniform. Here $phi_w (x) = cos(w dot x)$ with
    $w tilde cal(N)(0, I)$, so that $f(x) = e^(-abs(x)^2\/2)$, and the norm is that of $L^2$ under $cal(N)(0, I\/4)$: the variance is
    $(1 + 2^(-d\/2))\/2 - (3\/2)^(-d\/2)$, for $d = 8$ it is $0.3337$. The value is $n norm(f - f_n)^2$, averaged over networks, over the
    variance; every norm is in closed form. Controls: units in pairs of equals, which are half as many; and units drawn without
    regard to the spectrum of $f$.
    """
    draws = torch.Generator().manual_seed(seed)
    w = stretch * gaussian(draws, nets, n // copies, d).repeat(1, copies, 1)
    error = float(sampled_error(w, Gaussians).mean())
    return {"value": n * error / variance(d, Gaussians), "n·error": n * error}


def first_modes(d: int, n: int) -> list[dict[int, int]]:
    """The n multi-indices k ≥ 0 in d coordinates of least |k|², each as its non-zero entries."""
    heap: list[tuple[int, tuple[tuple[int, int], ...]]] = [(0, ())]
    found: list[dict[int, int]] = []
    while len(found) < n:
        size, k = heapq.heappop(heap)
        found.append(dict(k))
        last, value = k[-1] if k else (-1, 0)
        if k:  # raise the last entry
            heapq.heappush(heap, (size + 2 * value + 1, (*k[:-1], (last, value + 1))))
        for place in range(last + 1, d):  # or begin a later one
            heapq.heappush(heap, (size + 1, (*k, (place, 1))))
    return found


@cache
def cosine_error(d: int, n: int) -> float:
    """The squared distance of the bump from the span of the first n even tensor cosines on the box."""
    cosines = torch.cos(torch.pi * torch.arange(n, device="cpu")[:, None] * NODES)
    one = cosines @ (WEIGHTS * torch.exp(-(NODES**2) / 2)) / 2
    share = (2 * (one / one[0]) ** 2).tolist()  # of an entry k > 0, beside the constant
    constant = float(one[0]) ** (2 * d)
    caught = sum(float(np.prod([share[value] for value in k.values()])) for k in first_modes(d, n))
    return Box.bump(d, 2.0) - constant * caught


def draw_rates(ax: Any, rows: Rows) -> Columns:
    """Errors of units drawn for the target fall alike in all dimensions; those of fixed cosines fall ever more slowly.

    Squared error against the number of units, each curve divided by its first point, both axes logarithmic. Three solid lines lie on each
    other with slope minus one; three dashed lines fan out, the one of two dimensions steeper, the others flatter.
    """
    columns: dict[str, Any] = {}
    control = "units drawn for the target: fixed tensor cosines"
    for place, d in enumerate((2, 8, 32)):
        for arm, style, name in (("", "o-", "drawn"), (control, "s--", "fixed")):
            chosen = [row for row in rows if row.arm == arm and row.point["d"] == d]
            n = sorted({row.point["n"] for row in chosen})
            mean = np.array([np.mean([row.values["value"] for row in chosen if row.point["n"] == m]) for m in n])
            columns["n"], columns[f"{name}, d = {d}"] = n, mean / mean[0]
            ax.loglog(n, mean / mean[0], style, color=f"C{place}", markersize=4, label=f"{name}, d = {d}")
    ax.set(xlabel="units n", ylabel="squared error ÷ that of the fewest units")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("barron1993universal", "rahimi2008uniform"),
    predicts=Scales("n", power=-1, within=0.1),
    quick=Grid(d=[2, 8, 32], n=[8, 16, 32, 64, 128], seeds=16),
    full=Grid(d=[2, 8, 32], n=[8, 16, 32, 64, 128, 256], seeds=40),
    controls={"units drawn for the target: fixed tensor cosines": dict(units="fixed")},
    figures=(draw_rates,),
)
def maurey_barron_rate_slope(d: int, n: int, seed: int, units: str = "drawn") -> float:
    r"""Random units err like one over n in 2, 8 and 32 dimensions; a fixed basis does not.

    For $f(x) = e^(-abs(x)^2\/2)$ and $f_n (x) = 1/n sum_i cos(w_i dot x)$, $w_i tilde cal(N)(0, I)$, the squared error on $[-1, 1]^d$ falls
    with slope $-1$ in $n$, whatever $d$ is. No fixed span of $n$ functions does that for all functions of the class: for some,
    the error is at least of order $n^(-1\/d)$ (its square: $n^(-2\/d)$) @barron1993universal. The control has the $n$ even cosines
    $product_j cos(pi k_j x_j)$ of least $abs(k)$ with the best coefficients there are: at $d = 2$ they win, and with the dimension their
    slope dies. All norms are exact.
    """
    if units == "fixed":
        return cosine_error(d, n)
    draws = torch.Generator().manual_seed(seed)
    return float(sampled_error(gaussian(draws, max(8, 256 // d), n, d), Box).mean())


def first_moment(d: int) -> float:
    """C_f = E|ω| of the bump, ω ~ N(0, I)."""
    return Bell(d, 1.0).barron


def ball(draws: torch.Generator, count: int, d: int) -> Tensor:
    """Uniform on the unit ball."""
    x = gaussian(draws, count, d)
    radius = torch.rand(count, 1, generator=draws, device="cpu").to(x) ** (1 / d)
    return radius * x / x.norm(dim=1, keepdim=True)


def steps(x: Tensor, n: int, draws: torch.Generator, stretch: float = 1.0) -> Tensor:
    r"""Barron's units at x, (points, n): −2 C sin(|ω|t) 1[α·x ≥ t], with |ω| ~ χ of d + 1 degrees, α uniform, t ~ U[0, 1]."""
    d = x.shape[1]
    size = stretch * gaussian(draws, n, d + 1).norm(dim=1)
    direction = gaussian(draws, n, d)
    t = torch.rand(n, generator=draws, device="cpu").to(x)
    on = x @ (direction / direction.norm(dim=1, keepdim=True)).T >= t
    return -2 * first_moment(d) * torch.sin(size * t) * on


def draw_bound(ax: Any, rows: Rows) -> Columns:
    """Networks of n steps below Barron's bound: as drawn, and with their output weights fitted.

    Squared error in eight dimensions against the number of units, both axes logarithmic. The bound and, below it, the networks as drawn
    fall with slope minus one; the same units with fitted weights lie lower still.
    """
    chosen = [row for row in rows if not row.arm and row.point["d"] == 8]
    n = sorted({row.point["n"] for row in chosen})
    bound = [(2 * first_moment(8)) ** 2 / m for m in n]
    columns: dict[str, Any] = {"n": n, "bound": bound}
    ax.loglog(n, bound, "k--", label="Barron's bound")
    for place, name in enumerate(("drawn", "fitted")):
        means = [np.mean([row.values.get(name, np.nan) for row in chosen if row.point["n"] == m]) for m in n]
        columns[name] = ["" if np.isnan(mean) else float(mean) for mean in means]
        ax.loglog(n, means, "o-", color=f"C{place}", label=f"steps, {name}")
    ax.set(xlabel="units n", ylabel="squared error, d = 8")
    ax.legend()
    return columns


@claim(
    source="barron1993universal",
    predicts=AtMost(1, of="mean"),
    quick=Grid(d=[2, 8], n=[16, 64, 256, 1024, 4096], seeds=10),
    full=Grid(d=[2, 8, 32], n=[16, 64, 256, 1024, 4096], seeds=20),
    controls={"units of the target's spectrum: frequencies three times as large": dict(stretch=3.0)},
    figures=(draw_bound,),
)
def maurey_barron_rate_bound(d: int, n: int, seed: int, stretch: float = 1.0) -> dict[str, float]:
    r"""A network of n steps is within Barron's bound of any function whose spectrum has a first moment.

    Let $C_f = integral abs(omega) abs(hat(f)(omega)) dif omega$ be finite. On a ball of radius $r$ some network of $n$ sigmoidal units has
    $ norm(f - f(0) - f_n)^2 <= (2 r C_f)^2 \/ n $ under every probability measure @barron1993universal. The proof draws the units:
    $f - f(0)$ is the mean of $-2 r C_f sin(abs(omega) t) bb(1)[alpha dot x >= t]$ over $omega = abs(omega) alpha$ with density proportional to
    $abs(omega) abs(hat(f)(omega))$ and $t$ uniform on $[0, r]$. For $f(x) = e^(-abs(x)^2\/2)$,
    $C_f = sqrt(2) Gamma((d + 1)\/2) \/ Gamma(d\/2)$. Here $r = 1$ and the measure is uniform on the ball (1000 points drawn). The value is the
    error of a network so drawn over the bound, in the mean over networks; its distance from one says how loose the bound is. The control
    draws frequencies from another law.
    """
    draws = torch.Generator().manual_seed(seed)
    x = ball(draws, 1000, d)
    target = torch.exp(-x.square().sum(1) / 2) - 1
    made = [steps(x, n, draws, stretch) for _ in range(2)]
    error = float(torch.stack([(target - units.mean(1)).square().mean() for units in made]).mean())
    found = {"value": n * error / (2 * first_moment(d)) ** 2, "drawn": error}
    if n <= MOST_FITTED and stretch == 1:
        units, y = made[0].cpu(), target[:, None].cpu()
        fit = units @ torch.linalg.lstsq(units, y, driver="gelsd").solution
        found["fitted"] = float((fit - y).square().mean())
    return found


if __name__ == "__main__":
    script(__file__)
