r"""Lengths: what deep networks do to curves, and how far a unit sees.

A curve of inputs becomes a curve of outputs. In a chaotic network its length grows exponentially with depth
@poole2016exponential; with rectifiers and He's initialisation it does not, though that was long believed: in the mean it shrinks
a little, by a factor that is known for every width @hanin2022deep. In a convolutional network there is another length, the
distance from which a unit's gradient comes: it grows like the root of the depth, far slower than the receptive field
@luo2016understanding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, pi, sqrt
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln
from scipy.stats import binom
from torch import Tensor

from lemmata.analysis.gradient_flow import MeanField
from lemmata.architectures import CNN
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def unit(z: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """An activation and its slope."""
    return (z.relu(), (z > 0).to(z)) if name == "relu" else (z.tanh(), 1 - z.tanh().square())


def circle(width: int, points: int, q: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places and tangents, (n, points) each, on a circle of second moment q in a random plane, at even angles."""
    first, second = torch.linalg.qr(gaussian(draws, width, 2))[0].T * sqrt(width * q)
    angle = 2 * pi * (torch.arange(points) + 0.5) / points
    cos, sin = angle.cos(), angle.sin()
    return first[:, None] * cos + second[:, None] * sin, second[:, None] * cos - first[:, None] * sin


CRITICAL, HE = "chaos: the line between order and chaos", "tanh: rectifiers with He's initialisation"


def draw_lengths(ax: Any, rows: Rows) -> Columns:
    """Length of the image of a circle by depth: it grows in chaotic tanh networks alone.

    Length relative to the circle's, on a logarithmic axis. Dots of chaotic networks rise along straight lines of the
    predicted slopes; those of rectifiers with He's initialisation stay level, and those of critical tanh networks sink.
    """
    widest = [row for row in rows if row.point["width"] == max(r.point["width"] for r in rows)]
    layers = np.arange(len(widest[0].values["lengths"]))
    columns: dict[str, Any] = {"layer": layers}
    largest = max(row.point["weights"] for row in widest)
    shown = [("", weights) for weights in sorted({row.point["weights"] for row in widest})]
    for place, (arm, weights) in enumerate([*shown, (CRITICAL, largest), (HE, largest)]):
        found = [row for row in widest if row.arm == arm and row.point["weights"] == weights]
        name = {CRITICAL: "tanh, $\\sigma_w^2$ = 1", HE: "rectifiers, He"}.get(
            arm, f"tanh, $\\sigma_w^2$ = {weights:g}"
        )
        curve = np.mean([row.values["lengths"] for row in found], 0)
        columns[name.replace("$\\sigma_w^2$", "σ_w²")] = curve
        ax.semilogy(layers, curve, "o", markersize=4, color=f"C{place}", label=name)
        if not arm:
            ax.semilogy(layers, np.exp(found[0].values["rate"] * layers), color=f"C{place}", linewidth=1)
    ax.set(xlabel="layer", ylabel="length ÷ length of the circle")
    ax.legend()
    return columns


@claim(
    source="poole2016exponential",
    predicts=Equals(1, within=0.05),
    quick=Grid(weights=[4.0, 6.25], width=[300], depth=[10], points=[32], nets=[2], seeds=18),
    full=Grid(weights=[4.0, 6.25, 9.0], width=[1000], depth=[12], points=[256], nets=[4], seeds=12),
    controls={CRITICAL: dict(drawn=1.0), HE: dict(units="relu")},
    figures=(draw_lengths,),
)
def chi_length_chaos(
    weights: float,
    width: int,
    depth: int,
    points: int,
    nets: int,
    seed: int,
    drawn: float | None = None,
    units: str = "tanh",
) -> dict[str, Any]:
    r"""In a chaotic network the image of a circle lengthens by the root of χ₁ in each layer.

    In a wide network with weights of variance $sigma_w^2\/n$ a small step on a curve at the fixed variance $q^*$ grows in
    square by $chi_1 = sigma_w^2 EE [phi'(sqrt(q^*) z)^2]$, whatever its direction: a length grows like
    $chi_1^(l\/2)$ @poole2016exponential. The circle that comes in has the second moment $q^*$. The value is the mean growth of the
    logarithm of the length a layer over $1/2 ln chi_1$, lengths being taken from tangents. Controls: weights of variance $1\/n$,
    where $chi_1$ tends to one, from a circle of second moment one; and rectifiers with weights of variance $2\/n$.
    """
    field = MeanField(torch.tanh, weights, kinks=())
    q, draws = field.fixed_variance(), torch.Generator().manual_seed(seed)
    rate = log(field.gradient_factor(q)) / 2
    variance = 2.0 if units == "relu" else drawn or weights
    curves = []
    for _ in range(nets):
        z, t = circle(width, points, q if drawn is None else 1.0, draws)
        speeds = [t.norm(dim=0).mean()]  # the mean speed times the time is the length, without the error of a polygon
        for _ in range(depth):
            W = gaussian(draws, width, width) * sqrt(variance / width)
            h, slope = unit(z, units)
            z, t = W @ h, W @ (slope * t)
            speeds.append(t.norm(dim=0).mean())
        curves.append(torch.stack(speeds) / speeds[0])
    lengths = torch.stack(curves).log().mean(0).exp()
    return {"value": float(lengths[-1].log()) / depth / rate, "lengths": lengths, "rate": rate}


def kept_length(width: int) -> float:
    r"""$EE sqrt(2 chi_K^2 \/ n)$, K binomial: by what a layer of rectifiers multiplies a length, on average.

    >>> round(kept_length(64), 4), round(1 - 5 / (8 * 64), 4)
    (0.9902, 0.9902)
    """
    counts = np.arange(1, width + 1)
    roots = np.sqrt(4 / width) * np.exp(gammaln((counts + 1) / 2) - gammaln(counts / 2))
    return float(binom.pmf(counts, width, 0.5) @ roots)


def draw_shrinking(ax: Any, rows: Rows) -> Columns:
    """Mean length of the image of a segment by depth in rectifier networks: it shrinks, the more the narrower they are.

    Length relative to the segment's. Dots for two widths lie on their falling curves, the exact formula, below a level dashed line at one.
    """
    deepest = max(row.point["depth"] for row in rows)
    chosen = [row for row in rows if not row.arm and row.point["depth"] == deepest]
    columns: dict[str, Any] = {"layer": np.arange(deepest + 1)}
    for place, width in enumerate(sorted({row.point["width"] for row in chosen})):
        columns[f"n = {width}"] = np.mean([r.values["lengths"] for r in chosen if r.point["width"] == width], 0)
        ax.plot(columns["layer"], columns[f"n = {width}"], "o", markersize=4, color=f"C{place}", label=f"n = {width}")
        ax.plot(columns["layer"], kept_length(width) ** columns["layer"], color=f"C{place}", linewidth=1)
    ax.axhline(1, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="layer", ylabel="mean length ÷ length of the segment", ylim=(0, None))
    ax.legend()
    return columns


@claim(
    source="hanin2022deep",
    predicts=Equals(1, within="0.15*depth/width"),
    quick=Grid(width=[6, 12], depth=[4, 8], points=[4], nets=[2000], seeds=12),
    full=Grid(width=[8, 16, 32], depth=[4, 8, 16], points=[8], nets=[6000], seeds=20),
    controls={
        "He's variance: twice as much": dict(variance=4.0),
        "rectifiers: tanh": dict(units="tanh"),
    },
    figures=(draw_shrinking,),
)
def expected_length_preserved(
    width: int, depth: int, points: int, nets: int, seed: int, variance: float = 2.0, units: str = "relu"
) -> dict[str, Any]:
    r"""Rectifier networks with He's initialisation shorten curves, in the mean by an exact factor a layer.

    For weights of variance $2\/n$ a small step passes a layer as $norm(delta_(l+1))^2 = 2/n chi_K^2 norm(delta_l)^2$ in law, with
    $K$ binomial, so that any curve has the expected length
    $ EE |f(gamma)| = (EE sqrt(2 chi_K^2 \/ n))^L thin |gamma| approx (1 - 5/(8 n))^L thin |gamma|: $
    it does not grow exponentially with depth @hanin2022deep. The value is the mean length of the image of a segment over networks,
    from tangents at its points, divided by this. The band is a quarter of what the formula takes off. Controls: weights of twice the variance,
    for which lengths do grow by $sqrt(2)$ a layer; and tanh.
    """
    draws = torch.Generator().manual_seed(seed)
    middle, way = torch.linalg.qr(gaussian(draws, width, 2))[0].T[..., None]
    time = 2 * (torch.arange(points) + 0.5) / points - 1
    h, t = (middle + way * time).expand(nets, -1, -1), way.expand(nets, -1, points)
    lengths = [1.0]  # of the tangent, of norm one
    for _ in range(depth):
        W = gaussian(draws, nets, width, width) * sqrt(variance / width)
        h, slope = unit(W @ h, units)
        t = slope * (W @ t)
        lengths.append(float(t.norm(dim=1).mean()))
    return {"value": lengths[-1] / kept_length(width) ** depth, "lengths": np.array(lengths)}


def draw_profile(ax: Any, rows: Rows) -> Columns:
    """Where the gradient of a unit in the middle comes from: a bell that is narrow beside the receptive field.

    Share of the squared gradient against the distance along one axis, for the deepest rectifier networks. The measured
    bars lie under a normal curve of the predicted width; the axis spans the receptive field.
    """
    chosen = [row for row in rows if not row.arm and row.point["units"] == "relu"]
    kernel = min(row.point["kernel"] for row in chosen)
    depth = max(row.point["depth"] for row in chosen)
    profiles = [r.values["profile"] for r in chosen if (r.point["kernel"], r.point["depth"]) == (kernel, depth)]
    profile = np.mean(profiles, 0)
    distance = np.arange(len(profile)) - len(profile) // 2
    sigma = sqrt(depth * (kernel**2 - 1) / 12)
    fine = np.linspace(distance[0] - 0.5, distance[-1] + 0.5, 201)
    normal, curve = (np.exp(-(x**2) / (2 * sigma**2)) / (sigma * sqrt(2 * pi)) for x in (distance, fine))
    ax.bar(distance, profile, alpha=0.5, label=f"measured, L = {depth}, k = {kernel}")
    ax.plot(fine, curve, color="C1", label="normal law")
    ax.set(xlabel="distance from the middle", ylabel="share of the squared gradient")
    ax.legend()
    return {"distance": distance, "measured": profile, "normal law": normal}


@claim(
    source="luo2016understanding",
    predicts=Equals(1, within=0.1),
    quick=Grid(kernel=[3, 5], depth=[2, 5], units=["linear", "relu"], channels=[12], nets=[6], seeds=10),
    full=Grid(kernel=[3, 5], depth=[4, 8, 16], units=["linear", "relu"], channels=[24], nets=[8], seeds=12),
    controls={
        "weights of mean zero: all equal": dict(equal=True),
        "one variance at all positions: nine times as much in the middle": dict(middle=3.0),
    },
    figures=(draw_profile,),
)
def erf_sqrt_depth(
    kernel: int,
    depth: int,
    units: str,
    channels: int,
    nets: int,
    seed: int,
    equal: bool = False,
    middle: float = 1.0,
) -> dict[str, Any]:
    r"""The effective receptive field of a random convolutional network grows like the root of its depth.

    With independent weights of mean zero and one variance, the expected squared gradient of a unit of layer $L$ by the input is the
    $L$-fold convolution of the uniform law on the $k$ places of the kernel: close to normal, with the standard deviation
    $sqrt(L (k^2 - 1) \/ 12)$ along each axis, while the field that could be seen is $L (k - 1) + 1$ places wide @luo2016understanding.
    The value is the standard deviation of the squared gradient, summed over networks, over this. For rectifiers it holds where masks
    are independent of positions. Controls: equal weights, where the gradient itself is the convolution, and its
    square narrower by $sqrt(2)$; and kernels that weigh their middle more.
    """
    draws = torch.Generator().manual_seed(seed)
    side = depth * (kernel - 1) + 1
    profile = torch.zeros(side)
    for _ in range(nets):
        sizes = [channels] * (depth + 1)
        activation: Any = torch.nn.Identity() if units == "linear" else units
        device = torch.get_default_device()
        net = CNN(sizes, 1, kernel, "circular", 1, activation, "he", False, generator=draws, device=device)
        net.requires_grad_(False)
        for weight in net.layers.parameters():
            if equal:
                weight.fill_(1 / (channels * kernel**2))
            weight[..., kernel // 2, kernel // 2] *= middle
        x = gaussian(draws, 1, channels, side, side)
        x = (x.abs() if equal else x).requires_grad_()
        unit_sum = (net.features(x)[0, :, side // 2, side // 2] * gaussian(draws, channels)).sum()
        squares = torch.autograd.grad(unit_sum, x)[0].square().sum((0, 1))
        profile += (squares.sum(0) + squares.sum(1)) / 2
    profile /= profile.sum()
    distance = torch.arange(side) - side // 2
    deviation = float((profile @ distance.to(profile).square()).sqrt())
    return {"value": deviation / sqrt(depth * (kernel**2 - 1) / 12), "profile": profile}


if __name__ == "__main__":
    script(__file__)
