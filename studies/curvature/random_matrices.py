r"""The spectra of random layers.

A network is made of large random matrices before it has seen an example, and the eigenvalues of a large random matrix are
almost certain. One layer follows the law of Marchenko and Pastur @marchenko1967distribution. A single direction in which the
layer is stronger shows in its spectrum if and only if it is strong enough @baik2005phase. A product of $L$ layers, the
Jacobian of a deep linear network, follows the Fuss–Catalan law of order $L$ @penson2011product. Whoever looks for what
training has written into the weights must first know these laws. The layers are those of the lab's own networks with
their usual initialisations, scaled to entries of variance one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.architectures import LAWS, MLP
from lemmata.studies.claim import AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.curvature import spectral_laws as laws
from lemmata.studies.data import gaussian
from lemmata.studies.training import squared_error

STEP = 10.0  # of the one gradient step: its singular value is then 1.7 to 5 times the edge of the bulk
Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def layer(inputs: int, outputs: int, init: str, draws: torch.Generator) -> Tensor:
    """The weight (outputs, inputs) of a layer of a network, divided by the standard deviation of its entries."""
    net = MLP([inputs, outputs], init=init, bias=False, generator=draws, device=torch.get_default_device())
    return next(net.parameters()).detach() / LAWS[init].weight_variance(inputs, outputs) ** 0.5


def stepped_layer(inputs: int, outputs: int, init: str, draws: torch.Generator) -> Tensor:
    """The same after one step of gradient descent on a linear function of Gaussian inputs."""
    net = MLP([inputs, outputs, 1], "relu", init, bias=False, generator=draws, device=torch.get_default_device())
    examples = gaussian(draws, 2 * inputs, inputs)
    target = examples @ gaussian(draws, inputs, 1) / inputs**0.5
    first = next(net.parameters())
    (gradient,) = torch.autograd.grad(squared_error(net(examples), target), [first])
    return (first - STEP * gradient).detach() / LAWS[init].weight_variance(inputs, outputs) ** 0.5


def heavy_layer(inputs: int, outputs: int, tail: float, draws: torch.Generator) -> Tensor:
    """Symmetric entries with P(|w| > t) proportional to t^−tail, divided by their root mean square."""
    uniform = 2 * torch.rand(outputs, inputs, generator=draws, dtype=torch.float64, device="cpu") - 1
    entries = (uniform.sign() * uniform.abs() ** (-1 / tail)).to(torch.get_default_device())
    return entries / entries.square().mean().sqrt()


def eigenvalues(weight: Tensor) -> np.ndarray:
    """Those of WᵀW/n for W with n rows, in ascending order."""
    return torch.linalg.eigvalsh(weight.T @ weight / len(weight)).cpu().numpy()


def law_sample(inputs: int, gamma: float, draws: torch.Generator) -> np.ndarray:
    """Independent points drawn from the Marchenko–Pastur law."""
    x = np.linspace(*laws.marchenko_pastur_edges(gamma), 10_001)
    return np.interp(torch.rand(inputs, generator=draws, device="cpu").numpy(), laws.marchenko_pastur_cdf(x, gamma), x)


def own(rows: Rows, size: str) -> list[Any]:
    """The rows of the claim itself at its largest size."""
    largest = max(row.point[size] for row in rows)
    return [row for row in rows if row.arm == "" and row.point[size] == largest]


def histogram(chosen: Rows, bins: np.ndarray) -> np.ndarray:
    """Density of the eigenvalues of several rows together."""
    pooled = np.concatenate([row.values["eigenvalues"] for row in chosen])
    return np.histogram(pooled, bins)[0] / (len(pooled) * np.diff(bins))


def draw_bulk(ax: Any, rows: Rows) -> Columns:
    """Eigenvalues of random layers, and the density of the Marchenko–Pastur law.

    Two histograms, one for each ratio of inputs to outputs, with a smooth curve over each that they follow up to the ends.
    The larger ratio spreads the eigenvalues more and pushes its peak towards zero.
    """
    bins = np.linspace(0, 3.1, 63)
    centres = (bins[1:] + bins[:-1]) / 2
    columns: dict[str, Any] = {"eigenvalue": centres}
    shown = [row for row in own(rows, "inputs") if row.point["init"] == "he"]
    x = np.linspace(0, 3.1, 1500)
    for colour, gamma in enumerate(sorted({row.point["gamma"] for row in shown})):
        heights = histogram([row for row in shown if row.point["gamma"] == gamma], bins)
        columns |= {f"γ = {gamma}": heights, f"law, γ = {gamma}": laws.marchenko_pastur_density(centres, gamma)}
        ax.stairs(heights, bins, fill=True, color=f"C{colour}", alpha=0.35, label=f"layers, γ = {gamma}")
        ax.plot(x, laws.marchenko_pastur_density(x, gamma), color=f"C{colour}", label=f"law, γ = {gamma}")
    ax.set(xlabel="eigenvalue", ylabel="density", xlim=(0, 3.1), ylim=(0, None))
    ax.legend()
    return columns


@claim(
    source=("marchenko1967distribution", "pillai2014universality"),
    predicts=AtMost("6/inputs", of="max"),
    quick=Grid(init=["he", "default"], gamma=[0.25, 0.5], inputs=[100, 200, 400], seeds=5),
    full=Grid(init=["he", "default"], gamma=[0.25, 0.5], inputs=[100, 200, 400, 800], seeds=20),
    controls={
        "independent weights: orthogonal rows": dict(weights="orthogonal"),
        "finite variance: tails of exponent 1.5": dict(weights="heavy"),
        "eigenvalues of a matrix: independent points of the law": dict(weights="points"),
    },
    figures=(draw_bulk,),
)
def marchenko_pastur_random_layer(
    init: str, gamma: float, inputs: int, seed: int, weights: str = "initial"
) -> dict[str, Any]:
    r"""The eigenvalues of a random layer follow the Marchenko–Pastur law, closer than independent points would.

    Let $W in RR^(n times p)$ have independent, identically distributed entries of mean zero and variance one, and
    $gamma = p\/n < 1$. As $n -> oo$ at fixed $gamma$, the distribution of the eigenvalues of $W^top W \/ n$ converges to the law with the density
    $ rho(x) = sqrt((b - x)(x - a)) / (2 pi gamma x), quad a = (1 - sqrt(gamma))^2, quad b = (1 + sqrt(gamma))^2 $
    on $[a, b]$, whatever the law of the entries @marchenko1967distribution: here they are Gaussian (He) or uniform (the
    default of linear layers). If the entries have light tails, the eigenvalues repel each other: with high probability the
    number of them below any point is within a power of $log p$ of what the law says @pillai2014universality. The value is the Kolmogorov distance of the $p$ eigenvalues from the law; it must not
    exceed $6\/p$ in any layer. The constant is the lab's.

    Controls: an orthogonal layer has all its eigenvalues at one; entries with $PP(|w| > t) tilde t^(-3\/2)$ have no
    variance, and after division by their root mean square the spectrum follows another law. Points drawn independently
    from the very law are as far from it as $1\/sqrt(p)$.
    """
    draws, outputs = torch.Generator().manual_seed(seed), round(inputs / gamma)
    if weights == "points":
        measured = law_sample(inputs, gamma, draws)
    elif weights == "heavy":
        measured = eigenvalues(heavy_layer(inputs, outputs, 1.5, draws))
    else:
        measured = eigenvalues(layer(inputs, outputs, init if weights == "initial" else weights, draws))
    distance = laws.kolmogorov_distance(measured, partial(laws.marchenko_pastur_cdf, gamma=gamma))
    return {"value": distance, "eigenvalues": measured}


def draw_distances(ax: Any, rows: Rows, size: str, label: str, claimed: str) -> Columns:
    """Mean value against a size, a line for each arm, and a line of slope −2/3 below that of the claim."""
    sizes = sorted({row.point[size] for row in rows})
    columns: dict[str, Sequence[float]] = {size: sizes}
    for arm in dict.fromkeys(row.arm for row in rows):
        name = arm.partition(": ")[2] or claimed
        groups = [[row.values["value"] for row in rows if row.arm == arm and row.point[size] == n] for n in sizes]
        columns[name] = [float(np.mean(group)) for group in groups]
        ax.loglog(sizes, columns[name], "s:" if arm else "o-", label=name)
    columns["slope −2/3"] = [0.7 * columns[claimed][0] * (n / sizes[0]) ** (-2 / 3) for n in sizes]
    ax.loglog(sizes, columns["slope −2/3"], "--", color="0.4", linewidth=1, label="slope −2/3")
    ax.set(xlabel=label, ylabel="distance from the edge", xticks=sizes, xticklabels=sizes)
    ax.minorticks_off()
    ax.legend()
    return columns


def draw_edges(ax: Any, rows: Rows) -> Columns:
    """The ends of the spectrum approach those of the law; one gradient step or heavy tails put an outlier beyond them.

    Distance of the extreme singular values from the ends of the law against the number of inputs, both axes logarithmic.
    The points of the claim fall parallel to the dashed line of slope minus two thirds, the controls stay up.
    """
    gamma = max(row.point["gamma"] for row in rows)
    shown = [row for row in rows if row.point["init"] == "he" and row.point["gamma"] == gamma]
    return draw_distances(ax, shown, "inputs", "inputs p", "at initialisation")


@claim(
    source=("yin1988limit", "bai1993limit", "johnstone2001distribution", "pillai2014universality"),
    predicts=Scales("inputs", power=-2 / 3, within=0.15),
    quick=Grid(init=["he", "default"], gamma=[0.5], inputs=[32, 64, 128, 256], layers=[30], seeds=10),
    full=Grid(init=["he", "default"], gamma=[0.25, 0.5], inputs=[32, 64, 128, 256, 512], layers=[30], seeds=10),
    controls={
        "finite fourth moment: tails of exponent 2.5": dict(weights="heavy"),
        "random weights: one gradient step": dict(weights="stepped"),
    },
    figures=(draw_edges,),
)
def marchenko_pastur_random_layer_edges(
    init: str, gamma: float, inputs: int, layers: int, seed: int, weights: str = "initial"
) -> float:
    r"""The extreme singular values of a random layer are within p to the minus two thirds of the edges of the law.

    Let $W$ be as before, with finite fourth moment. Then no eigenvalue stays outside: the extreme singular values of
    $W\/sqrt(n)$ converge to $1 plus.minus sqrt(gamma)$ @yin1988limit @bai1993limit. They fluctuate about them by
    $O(p^(-2\/3))$ if the entries are Gaussian @johnstone2001distribution or have light tails @pillai2014universality. The value is the larger of the two distances,
    averaged over several layers; the slope of its mean must be $-2\/3$.

    The fourth moment is needed: with $PP(|w| > t) tilde t^(-5\/2)$ the variance is finite and the law of the bulk the same,
    but a few large weights make large singular values. And the weights must not have learned: one step of gradient descent
    adds a matrix of almost rank one @ba2022highdimensional, a singular value beyond the edge that does not go away.
    """
    draws, outputs = torch.Generator().manual_seed(seed), round(inputs / gamma)
    make = {
        "initial": partial(layer, init=init),
        "heavy": partial(heavy_layer, tail=2.5),
        "stepped": partial(stepped_layer, init=init),
    }[weights]
    edges = np.sqrt(laws.marchenko_pastur_edges(gamma))
    extremes = [np.sqrt(eigenvalues(make(inputs, outputs, draws=draws))[[0, -1]]) for _ in range(layers)]
    return float(np.abs(np.stack(extremes) - edges).max(-1).mean())


def spiked(theta: float, gamma: float, inputs: int, seed: int, covariance: str, weights: str) -> tuple[Tensor, Tensor]:
    """The sample covariance of rows of covariance I + θvvᵀ, and v, uniform on the sphere."""
    draws, outputs = torch.Generator().manual_seed(seed), round(inputs / gamma)
    v = gaussian(draws, inputs)
    v = v / v.norm()
    if weights == "heavy":
        weight = heavy_layer(inputs, outputs, 2.5, draws)
    else:
        weight = layer(inputs, outputs, "he", draws)
    if covariance == "spread":
        weight = weight * (1 + theta / inputs) ** 0.5
    else:
        weight = weight + ((1 + theta) ** 0.5 - 1) * torch.outer(weight @ v, v)
    return weight.T @ weight / outputs, v


def _against_theta(ax: Any, rows: Rows, law: Any, label: str) -> dict[str, Sequence[float]]:
    chosen = own(rows, "inputs")
    gamma = max(row.point["gamma"] for row in chosen)
    thetas = sorted({row.point["theta"] for row in chosen})
    groups = [
        [row.values["value"] for row in chosen if row.point["theta"] == theta and row.point["gamma"] == gamma]
        for theta in thetas
    ]
    centre = np.array([np.mean(group) for group in groups])
    spread = np.array([np.std(group) for group in groups])
    x = np.linspace(0, 1.08 * thetas[-1], 300)
    ax.plot(x, law(x, gamma), color="C0", label="limit")
    ax.errorbar(thetas, centre, spread, fmt="o", color="C1", capsize=3, label="layers, mean ± standard deviation")
    ax.axvline(gamma**0.5, color="0.5", linestyle=":", linewidth=1, label="threshold √γ")
    ax.set(xlabel="strength θ of the spike", ylabel=label, xlim=(0, x[-1]))
    return {"θ": thetas, "limit": law(np.array(thetas), gamma), "mean": centre, "standard deviation": spread}


def draw_location(ax: Any, rows: Rows) -> Columns:
    """The top eigenvalue leaves the bulk where the spike passes its threshold.

    Top eigenvalue against the strength of the spike. The curve of the limit is flat up to the dotted vertical line of the
    threshold and rises beyond; the measured points lie on it. The dashed line of the population's top eigenvalue stays
    below.
    """
    columns = _against_theta(ax, rows, laws.spike_location, "top eigenvalue")
    columns["population"] = [1 + theta for theta in columns["θ"]]
    ends = np.array(ax.get_xlim())
    ax.plot(ends, 1 + ends, "--", color="0.5", linewidth=1, label="population: 1 + θ")
    ax.legend()
    return columns


def draw_overlap(ax: Any, rows: Rows) -> Columns:
    """Below the threshold the top eigenvector knows nothing of the spike's direction.

    Squared inner product of the top eigenvector and the spike against its strength. The curve of the limit is zero up to
    the dotted vertical line of the threshold, then rises steeply towards one; the measured points lie on it.
    """
    columns = _against_theta(ax, rows, laws.spike_overlap, "squared overlap")
    ax.set(ylim=(-0.03, 1))
    ax.legend(loc="lower right")
    return columns


SPIKES: dict[str, Any] = dict(
    quick=Grid(gamma=[0.5], theta=[0.15, 0.3, 1.2, 1.8, 2.4], inputs=[300], seeds=60),
    full=Grid(gamma=[0.25, 0.5], theta=[0.1, 0.2, 0.3, 1.2, 1.6, 2.0, 2.4], inputs=[600], seeds=60),
    controls={
        "one direction: the same variance in all": dict(covariance="spread"),
        "finite fourth moment: tails of exponent 2.5": dict(weights="heavy"),
    },
)


@claim(
    source=("baik2005phase", "baik2006eigenvalues"),
    predicts=Equals("(1 + max(theta, sqrt(gamma)))*(1 + gamma/max(theta, sqrt(gamma)))", within=0.2),
    figures=(draw_location,),
    **SPIKES,
)
def bbp_transition_location(
    gamma: float, theta: float, inputs: int, seed: int, covariance: str = "spike", weights: str = "gaussian"
) -> float:
    r"""A spike of strength θ shows as an outlier if and only if θ exceeds √γ.

    Let the rows of $W in RR^(n times p)$ be independent with covariance $I + theta v v^top$, $norm(v) = 1$, and
    $gamma = p\/n$. The largest eigenvalue of $W^top W\/n$ converges to
    $ (1 + s)(1 + gamma\/s), quad s = max(theta, sqrt(gamma)): $
    below the threshold $sqrt(gamma)$ it stays at the edge $(1 + sqrt(gamma))^2$ of the bulk as if there were no spike, and
    above it lies beyond both the edge and the population's $1 + theta$ @baik2005phase @baik2006eigenvalues. Here $W$ is a
    layer with Gaussian entries, stretched along a random direction $v$.

    Controls: the variance $theta$ spread evenly over all directions makes no outlier, and without a fourth moment there
    are outliers that no spike has made.
    """
    found, _ = spiked(theta, gamma, inputs, seed, covariance, weights)
    return torch.linalg.eigvalsh(found)[-1].item()


@claim(
    source=("paul2007asymptotics", "baik2005phase"),
    predicts=Equals("(1 - gamma/max(theta, sqrt(gamma))**2)/(1 + gamma/max(theta, sqrt(gamma)))", within=0.1),
    figures=(draw_overlap,),
    **SPIKES,
)
def bbp_transition_overlap(
    gamma: float, theta: float, inputs: int, seed: int, covariance: str = "spike", weights: str = "gaussian"
) -> float:
    r"""Below the threshold the top eigenvector is orthogonal to the spike, above it the overlap is known.

    In the setting before, let $hat(v)$ be the top eigenvector of $W^top W\/n$ and $s = max(theta, sqrt(gamma))$. Then
    $ chevron.l hat(v), v chevron.r^2 -> (1 - gamma\/s^2) / (1 + gamma\/s), $
    which is zero for $theta <= sqrt(gamma)$ @paul2007asymptotics: such a direction cannot be found by principal
    components however many examples there are, as long as their number is in proportion to the dimension.
    """
    found, v = spiked(theta, gamma, inputs, seed, covariance, weights)
    return (torch.linalg.eigh(found)[1][:, -1] @ v).square().item()


if __name__ == "__main__":
    script(__file__)
