r"""How many eigenvalues of a classifier's Hessian stand out, and what they belong to.

The spectrum of a classifier's Hessian has a bulk near zero and a few large outliers, about as many as there are classes
@sagun2017empirical. They come from the Gauss–Newton part, and there from the averages of the logit gradients over each class
@papyan2019measurements @papyan2020traces. How sharply they stand out depends on how well the data separate: here are wide
and tight Gaussian clusters, and handwritten digits. For the digits the Gauss–Newton matrix is taken apart by classes, and
the whole spectrum of the Hessian is estimated and compared with its eigenvalues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lemmata.analysis as la
from lemmata.analysis.curvature import class_structure
from lemmata.architectures import MLP
from lemmata.studies.claim import AtLeast, Equals, Grid, claim, script
from lemmata.studies.curvature.spectrum_figures import (
    curves,
    draw_density,
    draw_parts,
    draw_shares,
    draw_tail,
    parts_of,
    share_up_to,
)
from lemmata.studies.data import digits, gaussian
from lemmata.studies.training import train

#: Standard deviation of a coordinate within a class; the class means have length 3 and are orthogonal.
NOISE = {"wide clusters": 0.7, "tight clusters": 0.1}


def trained(
    data: str,
    classes: int,
    each: int,
    seed: int,
    shuffled: bool = False,
    clustered: bool = True,
    hidden: Sequence[int] = (24,),
    activation: str = "tanh",
    steps: int = 100,
) -> tuple[nn.Module, Tensor, Tensor]:
    """A perceptron after full-batch steps of Adam, which fit its data, with inputs and labels."""
    draws = torch.Generator().manual_seed(seed)
    if data == "digits":
        x, y = digits()
        places = torch.cat([(y == label).nonzero()[:each, 0] for label in range(classes)])
        x, y = x[places], y[places]
    else:
        means = 3 * torch.linalg.qr(gaussian(draws, 20, 20))[0][:classes]
        y = torch.arange(classes).repeat(each)
        noise = gaussian(draws, len(y), 20)
        x = means[y] + NOISE[data] * noise if clustered else noise
    if shuffled:
        y = y[torch.randperm(len(y), generator=draws, device="cpu").to(y.device)]
    net = MLP([x.shape[1], *hidden, classes], activation=activation, generator=draws)
    train([net], cross_entropy, lambda step: (x[None], y[None]), steps, partial(torch.optim.Adam, lr=0.01))
    return net, x, y


def draw_spectra(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The leading Hessian eigenvalues of classifiers of the most classes, from three kinds of data.

    Eigenvalue, divided by the largest, against its rank on a logarithmic axis; a vertical line after the number of classes
    less one. For wide clusters the curve steps down at the line, for tight ones a place later, for digits it falls evenly.
    """
    most = max(row.point["classes"] for row in rows)
    chosen = {row.point["data"]: row for row in rows if row.arm == "" and row.point["classes"] == most and row.k == 0}
    columns: dict[str, Sequence[float]] = {"rank": list(range(1, 2 * most + 2))}
    for name, row in chosen.items():
        columns[name] = (row.values["eigenvalues"] / row.values["eigenvalues"][0]).tolist()
        ax.semilogy(columns["rank"], columns[name], ".-", label=name)
    ax.axvline(most - 0.5, color="#6b6b6b", linestyle="--", linewidth=1)
    ax.set(xlabel="rank", ylabel="eigenvalue ÷ the largest", xticks=range(1, 2 * most + 2, 2))
    ax.legend()
    return columns


@claim(
    source=("sagun2017empirical", "papyan2020traces"),
    predicts=Equals(0, within=0.5, of="each"),
    quick=Grid(data=["wide clusters", "tight clusters", "digits"], classes=[10], each=[100], seeds=3),
    full=Grid(data=["wide clusters", "tight clusters", "digits"], classes=[8, 10], each=[100, 150], seeds=20),
    controls={"labels that follow from inputs: shuffled among them": dict(shuffled=True)},
    expects="DEPENDS",
    switch="data",
    figures=(draw_spectra,),
)
def hessian_outliers_classes(data: str, classes: int, each: int, seed: int, shuffled: bool = False) -> dict[str, Any]:
    r"""The Hessian of a trained classifier has as many outliers as classes, less one.

    Contested. After training, about as many eigenvalues stand clear of the bulk as there are classes
    @sagun2017empirical @papyan2020traces; whether they are $C - 1$ or $C$, and whether they stand clear at all, differs
    between reports. The outliers end where the gap between the logarithms of neighbouring eigenvalues is largest, among
    the first $2 C$; the gap after the very first, which any positive matrix may have, is passed over. The value is their number minus $C - 1$, for a perceptron that fits its data; the switch is the data.
    With wide clusters it is $0$. Tight ones add an outlier: the average of all examples is as sharp a direction as the
    differences between classes. Among small nets on digits no gap stands out.

    The control shuffles the labels among the inputs: the network still fits them, and the number of classes no longer shows.
    """
    net, x, y = trained(data, classes, each, seed, shuffled)
    H = la.Hessian(net, nn.CrossEntropyLoss(), (x, y))
    values = la.eigenpairs(H, k=2 * classes + 1, tol=1e-3, max_steps=600).values.clamp(min=1e-300)
    count = int((-values.log().diff())[1:].argmax()) + 2
    return {"value": count - (classes - 1), "eigenvalues": values.cpu().numpy()}


@claim(
    source=("papyan2019measurements", "papyan2020traces"),
    predicts=AtLeast(0.9, of="each"),
    quick=Grid(data=["wide clusters", "tight clusters"], classes=[5, 10], each=[30], seeds=3),
    full=Grid(data=["wide clusters", "tight clusters"], classes=[5, 10], each=[30, 100], seeds=10),
    controls={"classes that cluster: standard normal inputs": dict(clustered=False)},
)
def outliers_lie_in_class_means(data: str, classes: int, each: int, seed: int, clustered: bool = True) -> float:
    r"""The outliers of the Hessian lie in the span of the class means.

    For cross-entropy the Gauss–Newton matrix is a sum over data and classes of outer products of logit gradients. Averages
    of these gradients over the data of one class, for each class of logit, are the cross-class means
    @papyan2019measurements. The value is the mean share of the squared length of the $C - 1$ leading eigenvectors of the
    whole Hessian that lies in the span of these $C (C - 1)$ vectors; a random vector would have a share of
    $C (C - 1) \/ P$. In the control inputs are standard normal whatever their label; the network fits the labels, but the
    gradients of a class have little in common.
    """
    net, x, y = trained(data, classes, each, seed, clustered=clustered)
    H = la.Hessian(net, nn.CrossEntropyLoss(), (x, y))
    leading = la.eigenpairs(H, k=classes - 1, tol=1e-4, max_steps=600).vectors
    means = class_structure(net, nn.CrossEntropyLoss(), (x, y)).means.reshape(-1, H.shape[0])
    basis, sizes, _ = torch.linalg.svd(means.T, full_matrices=False)
    return float((basis[:, sizes > 1e-8 * sizes[0]].T @ leading).square().sum(0).mean())


def digits_classifier(
    each: int, seed: int, shuffled: bool = False, steps: int = 100
) -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    """A ReLU network with two hidden layers of 16 units, 1482 parameters, trained on ten digits; its loss and its data."""
    net, *data = trained("digits", 10, each, seed, shuffled, hidden=(16, 16), activation="relu", steps=steps)
    return net, nn.CrossEntropyLoss(), (data[0], data[1])


@claim(
    source=("papyan2019measurements", "papyan2020traces"),
    predicts=AtLeast(0.5, of="mean"),
    quick=Grid(each=[20], seeds=5),
    full=Grid(each=[20, 100], seeds=10),
    controls={
        "labels that follow from inputs: shuffled among them": dict(shuffled=True),
        "the class part: the within-class part": dict(part="within"),
    },
    figures=(draw_parts, draw_shares),
)
def class_structure_digits(each: int, seed: int, shuffled: bool = False, part: str = "class") -> dict[str, Any]:
    r"""Without its class part the Gauss–Newton matrix of a digits classifier loses half of its outliers.

    For cross-entropy $G = sum_(n, c) w_(n c) g_(n c) g_(n c)^top$, with $g_(n c)$ the gradient that example $n$ would have
    if its label were $c$, and $w_(n c)$ the model's chance of $c$ over the number of examples. These gradients have a
    mean for every pair of a true class and another, and the means have a mean for every true class. So $G$ is the sum of
    a class part of rank $C$, a cross-class part of rank $C (C - 2)$, the scatter within the pairs, and the outer products
    of the true gradients @papyan2019measurements. To the first three belong three levels of eigenvalues: outliers, a
    smaller group, and the bulk @papyan2020traces.

    The network fits its digits. The value is the part of $sum_(i < C) lambda_i (G)$ that is missing in
    $sum_(i < C) lambda_i (G - G_"class")$; it counts as zero unless the four parts add up to $G$, which comes from the
    second derivatives of the loss, to rounding. Half is a threshold of ours. The second level is weak in so small a
    network: the cross-class part gives most to some twenty eigenvalues after the outliers, not to $C (C - 1)$.

    Controls: labels shuffled among the inputs, which the network fits too; and the scatter within the pairs knocked out in
    place of the class part: its trace is larger, but the outliers stay.
    """
    structure = class_structure(*digits_classifier(each, seed, shuffled))
    found = parts_of(structure)
    draws = torch.Generator().manual_seed(seed)
    probe = torch.randn(structure.ggn.shape[0], generator=draws, device="cpu").to(structure.means)
    product = structure.ggn @ probe
    summed = torch.stack([operator @ probe for operator in structure.parts.values()]).sum(0)
    error = float((summed - product).norm() / product.norm())
    left = la.eigenpairs(structure.without(part), k=9, tol=1e-3).values.sum()
    gone = 1 - float(left) / float(found["whole"][:9].sum())
    return {"value": gone * (error < 1e-12), "error": error, **found}


@claim(
    source=("chen2021analysis", "ghorbani2019investigation"),
    predicts=AtLeast(0.95, of="mean"),
    quick=Grid(each=[20], runs=[4], seeds=5),
    full=Grid(each=[20, 100], runs=[20], seeds=10),
    controls={
        "the network that is measured: itself, fifty steps before": dict(behind=50),
        "the whole interval: a fifth of it": dict(shrink=5.0),
    },
    figures=(draw_density, draw_tail),
)
def density_interval_digits(each: int, runs: int, seed: int, behind: int = 0, shrink: float = 1.0) -> dict[str, Any]:
    r"""The estimated spectral density of a digits classifier holds its eigenvalues within the printed errors.

    The Hessians of networks are too large for all of their eigenvalues; their density is estimated by stochastic Lanczos
    quadrature @ghorbani2019investigation, whose error has a bound @chen2021analysis. This network has 1482 parameters, and
    all eigenvalues can be had. Forty steps from each of eight random vectors, 320 products, give for any $x$ an interval
    that holds the share of eigenvalues up to $x$ with a chance of 95 %, and a bound on the distance
    $integral abs(F - hat(F)) dif x$ of the distribution functions. The value is the share of intervals that hold the
    true share, at 48 places from $10^(-4)$ times either end of the spectrum to half of it; a run whose distance exceeds
    its bound counts as zero.

    Controls: the density of the same network fifty steps before the end of training, held against the eigenvalues at the
    end; and a fifth of every interval and bound.
    """
    H = la.Hessian(*digits_classifier(each, seed))
    truth = torch.linalg.eigvalsh(H.dense()).cpu()
    measured = la.Hessian(*digits_classifier(each, seed, steps=100 - behind)) if behind else H
    parts = torch.logspace(-4, -0.3, 24, dtype=truth.dtype, device="cpu")
    places = torch.cat([truth[0] * parts, truth[-1] * parts])
    held = []
    for run in range(runs):
        found = la.spectral_density(measured, steps=40, probes=8, seed=seed % 10**9 + run)
        value, low, high = found.cdf(places)
        away = shrink * (share_up_to(truth, places) - value)
        distance = wasserstein_distance(truth, found.nodes.flatten(), None, found.weights.flatten())
        inside = (low - value <= away) & (away <= high - value)
        held.append(float(inside.double().mean()) * (shrink * distance <= found.error))
    return {"value": float(np.mean(held)), "eigenvalues": truth.numpy(), **curves(found, truth)}


if __name__ == "__main__":
    script(__file__)
