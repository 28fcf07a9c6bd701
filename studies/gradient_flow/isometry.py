r"""Isometry: which small changes a deep network keeps.

That gradients keep their size on average is not enough: some directions may grow while others are lost. The singular values of
the Jacobian from input to output tell how many. Orthogonal layers keep all of them at one in a linear network
@saxe2014exact, and nearly so in a tanh network with small signals; rectifiers spread them whatever the weights
@pennington2017resurrecting @pennington2018emergence. With Gaussian weights a single direction sees a product of independent
factors, whose law is known at any width @hanin2020products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from scipy.special import loggamma

from lemmata.analysis import JacobianSpectrum, jacobian_spectrum
from lemmata.architectures import MLP, DeepLinear
from lemmata.studies.claim import AtMost, Distributed, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
LAWS = {"Gaussian": "lecun", "orthogonal": "orthogonal"}


@claim(
    source="saxe2014exact",
    predicts=AtMost("50*sqrt(width*depth)*2.2e-16"),
    quick=Grid(depth=[2, 16, 64], width=[64], seeds=5),
    full=Grid(depth=[2, 16, 64, 256], width=[64, 256], seeds=5),
    controls={"orthogonal layers: Gaussian": dict(init="lecun")},
)
def dynamical_isometry(depth: int, width: int, seed: int, init: str = "orthogonal") -> float:
    r"""Deep linear networks of orthogonal layers change no length, at any depth.

    If $W_l^top W_l = I$ for all $l$, the Jacobian $J = W_L dots.c W_1$ is orthogonal: all its singular values are one
    @saxe2014exact. The value is the largest deviation from one, and must be rounding. In the control the layers are
    Gaussian, of variance $1\/n$, which keeps the mean squared singular value at one, and no single one.
    """
    draws = torch.Generator().manual_seed(seed)
    net = DeepLinear([width] * (depth + 1), init=init, generator=draws, device=torch.get_default_device())
    return float((jacobian_spectrum(net, gaussian(draws, 1, width)).values - 1).abs().max())


def spectrum(width: int, depth: int, units: str, weights: str, size: float, draws: torch.Generator) -> JacobianSpectrum:
    """Of one input's Jacobian through ``depth`` units and as many matrices; the first pre-activations have variance size²."""
    widths = [width] * (depth + 2)
    activation: Any = torch.nn.Identity() if units == "linear" else units
    device = torch.get_default_device()
    net = MLP(widths, activation, LAWS[weights], bias=False, generator=draws, device=device)
    x = gaussian(draws, 1, width)
    x *= size * sqrt(width) / x.norm()
    return jacobian_spectrum(net, x, source="layers.0", target=f"layers.{depth}")


def draw_spread(ax: Any, rows: Rows) -> Columns:
    """How unevenly rectifier networks stretch, against depth: twice as much with Gaussian as with orthogonal weights.

    The relative variance of the squared singular values. Two sets of dots lie on straight lines through the origin, the
    Gaussian one of slope two, the orthogonal one of slope one.
    """
    chosen = [row for row in rows if not row.arm]
    columns: dict[str, Any] = {"layers": sorted({row.point["depth"] for row in chosen})}
    for place, (weights, slope) in enumerate((("Gaussian", 2), ("orthogonal", 1))):
        columns[weights] = [
            np.mean([r.values["spread"] for r in chosen if (r.point["weights"], r.point["depth"]) == (weights, d)])
            for d in columns["layers"]
        ]
        ax.plot(columns["layers"], columns[weights], "o", color=f"C{place}", label=weights)
        ends = np.array([0, max(columns["layers"])])
        ax.plot(ends, slope * ends, color=f"C{place}", linewidth=1, label=("2L", "L")[place])
    ax.set(xlabel="layers L", ylabel="relative variance of σ²", xlim=(0, None), ylim=(0, None))
    ax.legend()
    return columns


@claim(
    source=("pennington2017resurrecting", "pennington2018emergence"),
    predicts=Equals(1, within=0.15),
    quick=Grid(weights=["Gaussian", "orthogonal"], depth=[4, 8], width=[200], seeds=24),
    full=Grid(weights=["Gaussian", "orthogonal"], depth=[4, 8, 16], width=[800], seeds=12),
    controls={"rectifiers: linear units": dict(units="linear")},
    figures=(draw_spread,),
)
def dynamical_isometry_rectifiers(
    weights: str, depth: int, width: int, seed: int, units: str = "relu"
) -> dict[str, float]:
    r"""Rectifier networks cannot be isometric: every layer adds to the spread of the singular values.

    Let $mu_k$ be the moments of the squared singular values of $J = W_L D_L dots.c W_1 D_1$, with $D_l$ the slopes of the units, for
    rectifiers zero or one with equal chance. In wide networks the layers are free, and @pennington2017resurrecting
    $ mu_2/mu_1^2 - 1 = L (EE phi'^4/(EE phi'^2)^2 - 1 - s_1) = L (1 - s_1), $
    where $s_1 = -1$ for Gaussian and $0$ for orthogonal weights: $2 L$ and $L$. No scale of the weights
    changes it. The value is the relative variance of the squared singular values over this, of one input to one network; finite width
    moves it by $O(L\/n)$. Without rectifiers it is $L$ and $0$: of Gaussian matrices alone, or of none.
    """
    draws = torch.Generator().manual_seed(seed)
    found = spectrum(width, depth, units, weights, 0.1, draws)
    spread = found.spread.value - 1
    return {"value": spread / (depth * (2 if weights == "Gaussian" else 1)), "spread": spread}


def draw_spectra(ax: Any, rows: Rows) -> Columns:
    """Singular values of deep tanh networks with small signals: orthogonal weights keep them together.

    Two histograms on a logarithmic axis, whose first bin holds all that is smaller. That of orthogonal weights is one narrow
    peak below one; that of Gaussian weights reaches from above one over many powers of ten towards zero.
    """
    deepest = max(row.point["depth"] for row in rows)
    edges = np.linspace(-6, 1, 71)
    columns: dict[str, Any] = {"log10 of the singular value": (edges[1:] + edges[:-1]) / 2}
    for place, (name, arm) in enumerate((("orthogonal", ""), ("Gaussian", "orthogonal weights: Gaussian"))):
        pooled = np.concatenate(
            [row.values["singular"] for row in rows if row.arm == arm and row.point["depth"] == deepest]
        )
        columns[name] = np.histogram(np.log10(np.clip(pooled, 1e-6, None)), edges)[0] / len(pooled)
        ax.stairs(columns[name], edges, fill=True, alpha=0.5, color=f"C{place}", label=f"{name}, L = {deepest}")
    ticks = range(-6, 2)
    ax.set_xticks(ticks, ["1" if not tick else f"$10^{{{tick}}}$" for tick in ticks])
    ax.set(xlabel="singular value σ of the Jacobian", ylabel="share", yscale="log", ylim=(1e-4, 1.5))
    ax.legend(loc="upper left")
    return columns


@claim(
    source=("pennington2017resurrecting", "pennington2018emergence"),
    predicts=AtMost(0.05),
    quick=Grid(depth=[8, 32], width=[128], seeds=5),
    full=Grid(depth=[8, 32, 128], width=[400], seeds=8),
    controls={
        "orthogonal weights: Gaussian": dict(weights="Gaussian"),
        "small signals: of size two": dict(size=2.0),
        "tanh: rectifiers": dict(units="relu"),
    },
    figures=(draw_spectra,),
)
def dynamical_isometry_tanh(
    depth: int, width: int, seed: int, weights: str = "orthogonal", size: float = 0.2, units: str = "tanh"
) -> dict[str, Any]:
    r"""Tanh networks with orthogonal weights and small signals are nearly isometric.

    In the formula of the last claim $s_1 = 0$ for orthogonal weights, and $EE phi'^4 \/ (EE phi'^2)^2 - 1 approx 8 q^2$ for tanh
    of signals of a small variance $q$: the spread of the squared singular values vanishes with $q$, at any depth
    @pennington2017resurrecting. The value is their relative variance over the number of layers, for signals that start at
    $q = 0.04$ and shrink on their way; it is one, or two, where nothing is gained. Controls: Gaussian weights, signals of
    size two, which saturate the units; and rectifiers.
    """
    draws = torch.Generator().manual_seed(seed)
    found = spectrum(width, depth, units, weights, size, draws)
    return {"value": (found.spread.value - 1) / depth, "singular": found.values[0]}


def log_norm_law(y: Any, width: int, depth: int) -> Any:
    r"""The distribution function of $ln product_(l=1)^L chi_n^2\/n$, from its characteristic function, to 1e-10.

    >>> from scipy.stats import chi2
    >>> bool(abs(log_norm_law(np.log(0.7), 5, 1) - chi2.cdf(3.5, 5)) < 1e-10)
    True
    """
    spread = sqrt(2 * depth / width)
    t = (np.arange(1200) + 0.5) * 0.02 / spread  # beyond the last one the characteristic function is below 1e-12
    phi = np.exp(depth * (loggamma(width / 2 + 1j * t) - loggamma(width / 2) + 1j * t * np.log(2 / width)))
    y = np.asarray(y, dtype=float)
    return 0.5 - (np.exp(-1j * y[..., None] * t) * phi).imag @ (1 / t) * (t[1] - t[0]) / pi


def draw_law(ax: Any, rows: Rows) -> Columns:
    """Logarithms of the squared signal of deep linear networks, and their exact density.

    A histogram that follows a smooth curve, slightly skewed, with its peak left of a dashed line at zero, the logarithm of the mean.
    """
    chosen = [row for row in rows if not row.arm]
    width, depth = chosen[0].point["width"], chosen[0].point["depth"]
    edges = np.linspace(-6, 4, 51)
    shares = np.diff(log_norm_law(edges, width, depth)) / np.diff(edges)
    heights = np.histogram([row.values["log"] for row in chosen], edges)[0] / (len(chosen) * np.diff(edges))
    centres = (edges[1:] + edges[:-1]) / 2
    ax.stairs(heights, edges, fill=True, alpha=0.4, label=f"{len(chosen)} networks")
    ax.plot(centres, shares, color="C1", label="law")
    ax.axvline(0, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="logarithm of the squared signal", ylabel="density")
    ax.legend()
    return {"logarithm of the squared signal": centres, "networks": heights, "law": shares}


@claim(
    source="hanin2020products",
    predicts=Distributed("stats.uniform()", within=0.15),
    quick=Grid(width=[32], depth=[20], seeds=800),
    full=Grid(width=[32, 128], depth=[20, 50], seeds=2000),
    controls={
        "Gaussian weights: orthogonal": dict(weights="orthogonal"),
        "independent layers: one for all": dict(tied=True),
    },
    figures=(draw_law,),
)
def deep_linear_norm_law(
    width: int, depth: int, seed: int, weights: str = "Gaussian", tied: bool = False
) -> dict[str, float]:
    r"""The signal of a deep linear network is a product of independent chi-squares, at any width.

    With independent Gaussian weights of variance $1\/n$, whatever the input,
    $ norm(x_L)^2 / norm(x_0)^2 = product_(l=1)^L chi_n^2/n quad "in law": $
    the logarithm has the mean $L (psi(n\/2) + ln (2\/n)) approx -L\/n$ and the variance $L psi'(n\/2) approx 2 L\/n$, though
    $EE norm(x_L)^2 = norm(x_0)^2$ @hanin2020products. The value is the distribution function of this law at the logarithm that one network
    shows, computed from the characteristic function; it must be uniform. Controls: orthogonal layers, which change
    no norm, and one matrix for all layers.
    """
    draws = torch.Generator().manual_seed(seed)
    x = torch.ones(width)
    for place in range(depth):
        if not tied or not place:
            W = gaussian(draws, width, width) / sqrt(width)
            W = torch.linalg.qr(W)[0] if weights == "orthogonal" else W
        x = W @ x
    found = float(x.square().mean().log())
    return {"value": float(log_norm_law(found, width, depth)), "log": found}


if __name__ == "__main__":
    script(__file__)
