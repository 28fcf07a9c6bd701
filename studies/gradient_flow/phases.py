r"""Order, chaos and the line between.

In a wide random network two inputs either become alike, layer by layer, or part; gradients vanish in the first phase and
explode in the second @poole2016exponential @schoenholz2017deep. Where the line lies, and how many layers a difference or a
gradient survives, follows from Gaussian averages of the activation and its derivative. They are taken here by quadrature,
exact to rounding, and compared with networks of a few hundred units. ReLU networks with He's initialisation stand on the
line: there everything is a power law, and what has been called the shattering of gradients @balduzzi2017shattered depends
on an assumption that networks do not fulfil.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, log2, pi, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.analysis.gradient_flow import MeanField, critical_weight_variance
from lemmata.studies.claim import Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
BIAS = 0.05
UNITS = {"tanh": (torch.tanh, lambda z: 1 - z.tanh() ** 2), "relu": (torch.relu, lambda z: (z > 0).to(z))}


class Sample:
    """A random network of equal layers, two inputs at the fixed variance, and the gradients that come back from its end."""

    def __init__(self, width: int, weights: float, bias: float, q: float, c: float, draws: torch.Generator) -> None:
        self.width, self.weights, self.bias, self.draws = width, weights, bias, draws
        first, second = gaussian(draws, 2, width)
        self.start = sqrt(q) * torch.stack([first, c * first + sqrt(1 - c * c) * second])

    def run(self, depth: int, units: str) -> tuple[list[Tensor], list[Tensor]]:
        """Pre-activations of layers 0 … depth, (2, width) each, and the matrices between them."""
        z, matrices = [self.start], []
        for _ in range(depth):
            matrices.append(gaussian(self.draws, self.width, self.width) * sqrt(self.weights / self.width))
            shift = gaussian(self.draws, self.width) * sqrt(self.bias)
            z.append(UNITS[units][0](z[-1]) @ matrices[-1].T + shift)
        return z, matrices


def gradients(
    z: Sequence[Tensor], matrices: Sequence[Tensor], masks: Sequence[Tensor], draws: torch.Generator
) -> Tensor:
    """Gradients of a random linear read-out by the pre-activations of each layer, (layers, 2, width), the input first."""
    found = [gaussian(draws, z[0].shape[1]).expand(2, -1)]
    for mask, matrix in zip(masks[-2::-1], matrices[::-1], strict=True):
        found.append(mask * (found[-1] @ matrix))
    return torch.stack(found[::-1])


def draw_phases(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """How gradients change from layer to layer in tanh networks, and the line between order and chaos.

    The plane of the variances of weights and biases. A curve rises from the left below to the right above; dots left of
    it carry factors below one, dots right of it factors above one, each beside its prediction.
    """
    biases = np.linspace(0.0, 0.12, 25)[1:]
    line = [critical_weight_variance(torch.tanh, float(bias), kinks=()) for bias in biases]
    ax.plot(line, biases, color="C3", label="χ = 1")
    columns: dict[str, list[Any]] = {"weight variance": [], "bias variance": [], "measured": [], "predicted": []}
    points = {(row.point["weights"], row.point["bias"]) for row in rows if not row.arm}
    for weights, bias in sorted(points):
        chosen = [r for r in rows if not r.arm and (r.point["weights"], r.point["bias"]) == (weights, bias)]
        measured, predicted = (float(np.mean([r.values[key] for r in chosen])) for key in ("measured", "predicted"))
        for column, cell in zip(columns.values(), (weights, bias, measured, predicted), strict=True):
            column.append(cell)
        ax.plot([weights], [bias], "o", color="C0" if predicted < 1 else "C1")
        ax.annotate(
            f"{measured:.3f} ({predicted:.3f})", (weights, bias), (4, 6), textcoords="offset points", fontsize=7
        )
    ax.text(0.8, 0.105, "order: gradients vanish", fontsize=8)
    ax.text(2.35, 0.105, "chaos: they explode", fontsize=8)
    ax.set(xlabel="variance of the weights × width", ylabel="variance of the biases", xlim=(0.7, 3.6), ylim=(0, 0.12))
    ax.legend(loc="lower left")
    return {**columns}


@claim(
    source=("poole2016exponential", "schoenholz2017deep"),
    predicts=Equals(0, within=0.03),
    quick=Grid(weights=[1.0, 1.4, 1.76095, 2.4, 3.0], bias=[0.05], width=[120], depth=[16], nets=[20], seeds=12),
    full=Grid(
        weights=[1.0, 1.4, 1.76095, 2.4, 3.0], bias=[0.02, 0.05, 0.1], width=[1000], depth=[30], nets=[10], seeds=12
    ),
    controls={"the network's own activation: the theory of ReLU": dict(theory="relu")},
    figures=(draw_phases,),
)
def edge_of_chaos_tanh(
    weights: float, bias: float, width: int, depth: int, nets: int, seed: int, theory: str = "tanh"
) -> dict[str, float]:
    r"""Gradients grow or shrink by a factor per layer that Gaussian averages predict.

    In a network with weights of variance $sigma_w^2\/n$ and biases of variance $sigma_b^2$, the variance of the
    pre-activations settles at $q^* = sigma_w^2 EE tanh(sqrt(q^*) z)^2 + sigma_b^2$, and the squared gradient
    is multiplied by $ chi_1 = sigma_w^2 EE [tanh'(sqrt(q^*) z)^2] $ on its way through a layer. It vanishes for
    $chi_1 < 1$, the phase of order, and explodes for $chi_1 > 1$, chaos @schoenholz2017deep. The value is the
    logarithm of the mean measured factor minus $ln chi_1$; finite width shifts it by $O(1\/n)$. The control predicts
    by the $chi_1 = sigma_w^2\/2$ of ReLU networks.
    """
    field = MeanField(torch.tanh, weights, bias, kinks=())
    q, draws = field.fixed_variance(), torch.Generator().manual_seed(seed)
    predicted = weights / 2 if theory == "relu" else field.gradient_factor(q)
    factors = []
    for _ in range(nets):
        z, matrices = Sample(width, weights, bias, q, 0.0, draws).run(depth, "tanh")
        sizes = gradients(z, matrices, [UNITS["tanh"][1](one) for one in z], draws).square().sum(2)
        factors.append(sizes[:-2] / sizes[1:-1])
    measured = float(torch.stack(factors).mean())
    return {"value": log(measured / predicted), "measured": measured, "predicted": predicted}


def draw_scales(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """In the ordered phase correlations approach one exponentially, at the predicted rate.

    One minus the correlation against the layer, on a logarithmic axis, for three variances of the weights. Dots, means over
    networks, lie on straight dashed lines of the predicted slopes after the first few layers.
    """
    chosen = [row for row in rows if not row.arm]
    columns: dict[str, Any] = {"layer": list(range(len(chosen[0].values["gaps"])))}
    for place, weights in enumerate(sorted({row.point["weights"] for row in chosen})):
        gaps = np.mean([row.values["gaps"] for row in chosen if row.point["weights"] == weights], 0)
        scale = next(row.values["scale"] for row in chosen if row.point["weights"] == weights)
        columns[f"σ_w² = {weights:g}"] = gaps
        layers = np.arange(3, len(gaps))
        ax.semilogy(columns["layer"], gaps, "o", markersize=3, color=f"C{place}", label=f"$\\sigma_w^2$ = {weights:g}")
        ax.semilogy(layers, gaps[3] * np.exp(-(layers - 3) / scale), "--", color=f"C{place}", linewidth=1)
    ax.set(xlabel="layer", ylabel="1 − correlation")
    ax.legend()
    return columns


@claim(
    source="schoenholz2017deep",
    predicts=Equals(0, within=0.1),
    quick=Grid(weights=[0.8, 1.0, 1.2], width=[100], depth=[10], nets=[80], seeds=12),
    full=Grid(weights=[0.8, 1.0, 1.3, 1.5], width=[1000], depth=[12], nets=[20], seeds=12),
    controls={"order: chaos, by weights of three times the variance": dict(more=3.0)},
    figures=(draw_scales,),
)
def correlation_depth_scale(
    weights: float, width: int, depth: int, nets: int, seed: int, more: float = 1.0
) -> dict[str, Any]:
    r"""In the ordered phase inputs become alike within a depth that Gaussian averages predict.

    Where $chi_1 < 1$, the correlation of two inputs tends to one as $1 - c_l tilde e^(-l\/xi)$ with
    $xi = -1\/ln chi_1$: deeper than a few $xi$ a network no longer tells its inputs apart, and it trains only up to about
    six of them @schoenholz2017deep. The value is the measured scale, from the slope of $ln (1 - c_l)$ after three layers,
    over $xi$, minus one, for tanh networks with biases of variance $0.05$. In the control the weights are chaotic: inputs
    part and stay apart.
    """
    theory = MeanField(torch.tanh, weights, BIAS, kinks=())
    scale = theory.depth_scales().correlation
    q, draws = (
        MeanField(torch.tanh, weights * more, BIAS, kinks=()).fixed_variance(),
        torch.Generator().manual_seed(seed),
    )
    products, squares = torch.zeros(depth + 1), torch.zeros(depth + 1)
    for _ in range(nets):
        z = torch.stack(Sample(width, weights * more, BIAS, q, 0.98, draws).run(depth, "tanh")[0])
        products += (z[:, 0] * z[:, 1]).sum(1)
        squares += z.square().sum((1, 2)) / 2
    gaps = (1 - products / squares).cpu().numpy()
    slope = np.polyfit(np.arange(3, depth + 1), np.log(gaps[3:]), 1)[0]
    return {"value": -1 / slope / scale - 1, "gaps": gaps, "scale": scale}


def leaky_map(c: Any, slope: float) -> Any:
    """The correlation after a layer of leaky rectifiers that preserves the variance; entrywise for arrays."""
    k = (1 - slope) ** 2 / (pi * (1 + slope**2))
    return c + k * (np.sqrt(np.maximum(0.0, 1 - c * c)) - c * np.arccos(np.minimum(1.0, c)))


@claim(
    source=("cho2009kernel", "hayou2019impact"),
    predicts=Equals(1, within=0.01, of="each"),
    quick=Grid(slope=[0.0, 0.3], depth=[20000], seeds=5),
    full=Grid(slope=[0.0, 0.1, 0.3], depth=[200000], seeds=5),
    controls={"no biases: a hundredth of the variance from them": dict(share=0.01)},
)
def arccos_and_leaky_c_map(slope: float, depth: int, seed: int, share: float = 0.0) -> float:
    r"""In ReLU networks correlations approach one like the inverse square of the depth.

    A wide layer of leaky rectifiers of slope $alpha$ that preserves the variance maps a correlation $c$ to
    $ C(c) = c + k (sqrt(1 - c^2) - c arccos c), quad k = (1 - alpha)^2 / (pi (1 + alpha^2)), $
    the arc-cosine kernel of Cho and Saul for $alpha = 0$ @cho2009kernel. Near one it moves by less and less:
    $1 - c_l tilde 9 \/ (2 k^2 l^2)$, which is $9 pi^2\/(2 l^2)$ for ReLU @hayou2019impact. The value is $(1 - c_l) l^2$ after the
    layers, from a random start below a half, over $9\/(2 k^2)$. The control gives biases a hundredth of the variance: the approach is
    exponential.
    """
    c = float(torch.rand((), generator=torch.Generator().manual_seed(seed), device="cpu")) / 2
    for _ in range(depth):
        c = (1 - share) * leaky_map(c, slope) + share
    k = (1 - slope) ** 2 / (pi * (1 + slope**2))
    return (1 - c) * depth**2 * 2 * k * k / 9


@claim(
    source="cho2009kernel",
    predicts=Equals(0, within=0.01),
    quick=Grid(slope=[0.0, 0.3], correlation=[0.0, 0.6, 0.95], width=[16000], seeds=40),
    full=Grid(slope=[0.0, 0.3], correlation=[0.0, 0.3, 0.6, 0.95], width=[20000], seeds=100),
    controls={"a Gaussian law, the same in all directions: random signs": dict(signs=True)},
)
def arccos_and_leaky_c_map_sampled(
    slope: float, correlation: float, width: int, seed: int, signs: bool = False
) -> float:
    r"""A random layer of leaky rectifiers maps correlations as the arc-cosine kernel says.

    The value is the correlation of a layer's outputs for two inputs of correlation $c$, minus the $C(c)$ of the last
    claim; the layer has independent Gaussian weights, and the inputs two entries, so that only the mean over units counts.
    In the control the weights are random signs, for which the direction of the inputs matters.
    """
    draws = torch.Generator().manual_seed(seed)
    first, second = gaussian(draws, 2, width)
    if signs:
        first, second = first.sign(), second.sign()
    u, v = first, correlation * first + sqrt(1 - correlation**2) * second
    a, b = (torch.nn.functional.leaky_relu(one, slope) for one in (u, v))
    return float((a @ b) / (a.norm() * b.norm())) - leaky_map(correlation, slope)


def kernel(depth: int, start: Any) -> Any:
    """The correlation of two inputs' gradients at the input of a wide ReLU network: the product of C'(c_l)."""
    c, product = start, 1.0
    for _ in range(depth):
        product = product * (1 - np.arccos(np.minimum(1.0, c)) / pi)
        c = leaky_map(c, 0.0)
    return product


@claim(
    source=("hayou2019impact", "balduzzi2017shattered"),
    predicts=Scales("depth", power=-3, within=0.15),
    quick=Grid(depth=[400, 800, 1600, 3200, 6400], pairs=[2000], seeds=5),
    full=Grid(depth=[400, 1600, 6400, 25600, 102400], pairs=[2000], seeds=5),
    controls={"the network's own masks: independent ones": dict(independent=True)},
)
def gradient_kernel_l_minus_3(depth: int, pairs: int, seed: int, independent: bool = False) -> float:
    r"""Gradients of two inputs decorrelate like the inverse cube of the depth.

    In a wide ReLU network with He's initialisation the gradients of two inputs keep, at each layer, the share
    $C'(c_l) = 1 - arccos(c_l)\/pi$ of units that are active for both, of those active for one. As
    $1 - c_l tilde 9 pi^2\/(2 l^2)$, this is $1 - 3\/l + dots.c$, and the product over $L$ layers decays like $L^(-3)$. The value is the
    mean product over random pairs of inputs. The control makes masks of the two inputs independent, the assumption
    under which gradients are said to shatter @balduzzi2017shattered: every share is a half.
    """
    draws = torch.Generator().manual_seed(seed)
    starts = torch.rand(pairs, generator=draws, dtype=torch.float64, device="cpu").numpy() / 2
    return 2.0 ** -min(depth, 900) if independent else float(kernel(depth, starts).mean())


def shared(width: int, depth: int, nets: int, masks: str, linear: bool, seed: int) -> float:
    """⟨δ, δ'⟩ / ‖δ‖² at the input of random ReLU networks, for two orthogonal inputs, the sums over networks."""
    draws = torch.Generator().manual_seed(seed)
    product = square = 0.0
    for _ in range(nets):
        z, matrices = Sample(width, 2.0, 0.0, 1.0, 0.0, draws).run(depth, "relu")
        own = [UNITS["relu"][1](one) for one in z]
        if masks == "independent":
            own = [(gaussian(draws, *one.shape) > 0).to(one) for one in own]
        if linear:
            own = [torch.ones_like(one) / sqrt(2) for one in own]
        first, second = gradients(z, matrices, own, draws)[0]
        product, square = product + float(first @ second), square + float(first @ first + second @ second) / 2
    return product / square


def draw_shattering(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """Correlation of two inputs' gradients by depth: networks, and networks with independent masks.

    Both axes logarithmic. The dots of networks lie on a curve that bends towards slope minus three; those with independent
    masks fall off exponentially, far below.
    """
    chosen = [row for row in rows if not row.arm]
    columns: dict[str, Any] = {"depth": sorted({row.point["depth"] for row in chosen})}
    for place, masks in enumerate(dict.fromkeys(row.point["masks"] for row in chosen)):
        columns[masks] = [
            np.mean([r.values["shared"] for r in chosen if (r.point["masks"], r.point["depth"]) == (masks, d)])
            for d in columns["depth"]
        ]
        ax.loglog(columns["depth"], np.maximum(columns[masks], 1e-6), "o", color=f"C{place}", label=f"masks: {masks}")
    depths = np.arange(1, 31)
    ax.loglog(depths, [kernel(int(d), 0.0) for d in depths], color="C1", linewidth=1, label="Gaussian averages")
    ax.loglog(depths, 0.5**depths, color="C0", linewidth=1, label="$2^{-L}$")
    ax.set(xlabel="layers L", ylabel="correlation of the gradients", ylim=(1e-4, 1.2))
    ax.legend()
    return columns


@claim(
    source="balduzzi2017shattered",
    predicts=Equals(1, within=0.2),
    quick=Grid(masks=["independent", "the network's own"], depth=[4, 5], width=[120], nets=[160], seeds=12),
    full=Grid(masks=["independent", "the network's own"], depth=[4, 5, 6], width=[400], nets=[100], seeds=12),
    controls={"rectifiers: linear units": dict(linear=True)},
    expects="DEPENDS",
    switch="masks",
    figures=(draw_shattering,),
)
def shattered_gradients(
    masks: str, depth: int, width: int, nets: int, seed: int, linear: bool = False
) -> dict[str, float]:
    r"""Gradients of two inputs decorrelate by a half in each layer.

    Contested. If the active units of two inputs were independent, the correlation of the inputs' gradients would be $2^(-L)$:
    gradients shatter into white noise @balduzzi2017shattered. They are not: deep layers see inputs ever more alike, their
    masks agree, and the decay is a power law, as in the claim above. The statement is that $-log_2$ of the measured
    correlation, over $L$, is one. The switch is whose masks the gradients pass: independent draws, or the network's own. With
    linear units, the control, nothing decorrelates.
    """
    found = shared(width, depth, nets, masks, linear, seed)
    return {"value": -log2(max(found, 1e-12)) / depth, "shared": found}


if __name__ == "__main__":
    script(__file__)
