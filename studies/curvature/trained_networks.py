r"""The curvature of trained networks of seven families: what their Hessians are made of, and what products tell of them.

The theorems on the Hessian of a network are proved for any architecture or for some, and are mostly shown on perceptrons.
Here they meet a perceptron, a convolutional and a residual network, an LSTM, a transformer, a graph network and a neural
ODE, each of a few hundred parameters and trained on real data until it fits them: digits @alpaydin1998digits, the karate
club @zachary1977information, wines @aeberhard1991wine. Matrices in full are those of the loss over twenty-five of the
training examples. Which theorems were not put to which family, and why, is part of
the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.func import functional_call

import lemmata.analysis as la
from lemmata.studies.claim import AtMost, Equals, Grid, Table, claim, script
from lemmata.studies.curvature import coverage
from lemmata.studies.curvature.hutchinson_variance import predicted_variance, quadratic_forms
from lemmata.studies.curvature.quadrature import TRACE_CONTROLS, error_slope, lanczos
from lemmata.studies.curvature.zoo import MODELS, Trained, matrices, network
from lemmata.studies.data import gaussian, one_hot
from lemmata.studies.training import flat_parameters, layout_of

STEP = 1e-5  # of differences along a direction of length one
Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def logit_hessians(logits: Tensor) -> Tensor:
    """The second derivatives diag(p) − p pᵀ of the cross-entropy in the logits, (n, classes, classes)."""
    p = logits.softmax(-1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


class Around:
    """A trained network as a function of its flat parameters; only first derivatives are taken by autograd."""

    def __init__(self, trained: Trained) -> None:
        self.trained, self.layout, self.start = trained, layout_of(trained.net), flat_parameters(trained.net)

    def logits(self, flat: Tensor) -> Tensor:
        """(P,) to (n, classes)."""
        found: Tensor = functional_call(self.trained.net, self.layout.split(flat), self.trained.inputs)
        return found

    def pulled(self, flat: Tensor, slopes: Tensor) -> Tensor:
        """The gradient of ⟨slopes, f⟩ with the slopes held fixed."""
        leaf = flat.detach().requires_grad_()
        return torch.autograd.grad((slopes * self.logits(leaf)).sum(), leaf)[0]

    def difference(self, function: Any, direction: Tensor) -> Tensor:
        """The derivative of a function of the parameters along a direction, by a central difference."""
        ahead, behind = (function(self.start + sign * STEP * direction).detach() for sign in (1, -1))
        return (ahead - behind) / (2 * STEP)


def tables() -> tuple[Table, ...]:
    """What was run on which network."""
    return (coverage.as_table(),)


@claim(
    source=("schraudolph2002fast", "martens2020new"),
    predicts=AtMost(1e-7),
    quick=Grid(model=MODELS, seeds=3),
    full=Grid(model=MODELS, seeds=20),
    controls={"the network's own curvature: left out": dict(residual=False)},
)
def ggn_plus_residual_trained(model: str, seed: int, residual: bool = True) -> dict[str, Any]:
    r"""At a trained network of every family the Hessian is the Gauss–Newton matrix plus a residual.

    As for small untrained networks, $ nabla^2 L thin v = J^top nabla^2 ell thin J v + nabla_v (J^top r), quad r = nabla ell $
    held fixed in the last term @schraudolph2002fast. The left side is a product of the Hessian operator. On the right no
    second derivative is taken by a program: $J v$ and the derivative of $J^top r$ along $v$ are central differences with a
    step of $10^(-5)$, $nabla^2 ell = "diag"(p) - p p^top$ is in closed form. The value is the norm of the difference of the two
    sides, relative to the left, for a random unit vector $v$. The control leaves the last term out; it is small where the
    slopes $r$ are, at the end of training, but far above the tolerance.
    """
    trained = network(model, seed)
    around = Around(trained)
    v = gaussian(torch.Generator().manual_seed(seed), len(around.start))
    v = v / v.norm()
    count, logits = len(trained.labels), around.logits(around.start).detach()
    bent = (logit_hessians(logits) @ around.difference(around.logits, v)[..., None])[..., 0] / count
    r = (logits.softmax(-1) - one_hot(trained.labels, logits.shape[1])) / count
    R = around.difference(lambda flat: around.pulled(flat, r), v)
    left = trained.operator(la.Hessian) @ v
    gap = left - around.pulled(around.start, bent) - R * residual
    return {"value": gap.norm() / left.norm(), "share of the residual": R.norm() / left.norm()}


@claim(
    source=("martens2020new", "kunstner2019limitations"),
    predicts=AtMost(1e-11),
    quick=Grid(model=MODELS, seeds=2),
    full=Grid(model=MODELS, seeds=10),
    controls={"labels from the model: labels from the data": dict(empirical=True)},
)
def fisher_is_ggn_trained(model: str, seed: int, empirical: bool = False) -> float:
    r"""At a trained network of every family the Fisher information of softmax cross-entropy is the Gauss–Newton matrix.

    $ EE_(y tilde p_theta) nabla log p_theta (y) nabla log p_theta (y)^top = J^top ("diag"(p) - p p^top) J $ @martens2020new.
    The value is the relative distance, in the Frobenius norm, of the products of the Fisher operator with twenty random
    vectors from those of the right side, put together from the Jacobian and the closed form. Training makes the model sure
    of its labels, and yet the "empirical" Fisher matrix at the labels of the data remains another matrix
    @kunstner2019limitations: the control.
    """
    trained = network(model, seed)
    J = trained.jacobian()
    B = logit_hessians(trained.net(*trained.inputs).detach()) / len(J)
    V = gaussian(torch.Generator().manual_seed(seed), J.shape[2], 20)
    G = torch.einsum("ncp,ncd,ndv->pv", J, B, J @ V)
    F = trained.operator(la.EmpiricalFisher if empirical else la.Fisher) @ V
    return float((F - G).norm() / G.norm())


@claim(
    source=("sagun2017empirical", "papyan2019measurements"),
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(model=MODELS, examples=[3, 6], seeds=2),
    full=Grid(model=MODELS, examples=[2, 3, 5, 6], seeds=10),
    controls={
        "examples that differ: one of them twice": dict(twice=True),
        "softmax: the squared error": dict(squared=True),
    },
)
def ggn_rank_count_trained(
    model: str, examples: int, seed: int, twice: bool = False, squared: bool = False
) -> dict[str, Any]:
    r"""At a trained network of every family the Gauss–Newton matrix of N examples and C classes has rank N(C − 1).

    For generic examples, as long as that is below the number of parameters @sagun2017empirical @papyan2019measurements, and
    as long as the last layer is no bottleneck: with $d$ features, $C > d$ classes and $N > d + 1$ examples
    $(N - d - 1)(C - d)$ combinations of logits do not depend on the weights to first order. Here $N <= d + 1$. The
    value is the rank less $N (C - 1)$, for examples drawn from the training data. Trained networks are sure of these: probabilities of
    $10^(-20)$ make eigenvalues that are not zero and that no eigenvalue routine tells from zero. So the rank is counted in
    $S^top J$, with $S S^top = "diag"(p) - p p^top$: whether $sqrt(p)^top S^top J$ vanishes, to $10^(-10)$, for each example, and then how many of the other
    rows are independent once they are scaled to length one, to $10^(-12)$. Where the laboratory's Gram matrix of
    examples applies, its spectrum must agree with the squared singular values of $S^top J$ to
    $10^(-9)$ of the largest, or the trial fails. Controls: an example that
    occurs twice adds no rank; the squared error has the full rank $N C$.
    """
    trained = network(model, seed).some(examples, torch.Generator().manual_seed(seed))
    J = trained.jacobian()
    p = trained.net(*trained.inputs).detach().softmax(-1)
    if twice:
        J, p = torch.cat([J[:1], J[:-1]]), torch.cat([p[:1], p[:-1]])
    # diag(p) − p pᵀ = S Sᵀ with S = diag(√p) (I − √p √pᵀ), and √pᵀ Sᵀ = 0
    root = p.sqrt()
    S = torch.diag_embed(root) - p[:, :, None] * root[:, None, :]
    rows = J if squared else S.mT @ J
    tied = (root[:, None, :] @ rows)[:, 0].norm(dim=1) < 1e-10 * rows.norm(
        dim=(1, 2)
    )  # a class follows from the others
    kept = torch.ones_like(p, dtype=torch.bool).scatter(1, p.argmax(1, keepdim=True), ~tied[:, None])
    scaled = rows[kept] / rows[kept].norm(dim=1, keepdim=True)
    values = torch.linalg.svdvals(scaled)
    rank = int((values > 1e-12 * values[0]).sum())
    expected = examples * (J.shape[1] - 1)
    if model in ("MLP", "CNN", "ResNet") and not (twice or squared):
        gram, full = la.gram_spectrum(trained.operator(la.GGN)), torch.linalg.svdvals(rows.flatten(0, 1)).square()
        if not bool((gram - full[: len(gram)] / examples).abs().max() < 1e-9 * gram[0]):
            raise ArithmeticError("the spectrum of the Gram matrix is not that of the singular values")
    return {"value": rank - expected, "least": values[rank - 1] / values[0]}


@claim(
    source="singh2021analytic",
    predicts=AtMost(1e-11),
    quick=Grid(model=MODELS, seeds=1),
    full=Grid(model=MODELS, seeds=10),
    controls={"a residual of curvature: its size, without signs": dict(size=True)},
    expects="DEPENDS",
    switch="model",
)
def relu_residual_traceless_trained(model: str, seed: int, size: bool = False) -> float:
    r"""The residual of a trained network has trace zero if each path uses a weight once and units are piecewise linear.

    Then the output is affine in each single weight and the diagonal of the residual is zero, for any loss
    @singh2021analytic. That is so for the perceptron, for the convolutional network, whose weights are shared over positions
    and used once on each path, for the residual network without normalisation, whose shortcuts have no weights, and for
    the graph convolution with rectifiers. It is not so for an LSTM, a transformer and a neural ODE: they use weights again
    and again, or bend. The switch is the family. The value is $abs("tr" H - "tr" G) \/ "tr" G$ from the matrices in full. The
    control takes the Frobenius norm of $H - G$ in place of the trace: the residual itself is not zero.
    """
    H, G = matrices(model, seed)
    R = H - G
    return float((R.norm() if size else R.trace().abs()) / G.trace())


@claim(
    source=("hutchinson1989stochastic", "avron2011randomized"),
    predicts=Equals(1, within=0.2),
    quick=Grid(model=MODELS, law=["signs", "gaussian"], probes=[5000], seeds=8),
    full=Grid(model=MODELS, law=["signs", "gaussian"], probes=[50_000], seeds=10),
    controls={"a symmetric matrix: half of it moved across the diagonal": dict(symmetric=False)},
)
def hutchinson_variance_trained(model: str, law: str, probes: int, seed: int, symmetric: bool = True) -> float:
    r"""On the Hessian of every trained network a stochastic trace has the variance of the formula.

    $"Var" v^top H v = 2 norm(H)_F^2$ for Gaussian entries, less $2 sum_i h_(i i)^2$ for random signs @hutchinson1989stochastic
    @avron2011randomized. The value is the sample variance over the probes divided by the formula, averaged over trials. The
    control applies the formula to a matrix with the same quadratic form that is not symmetric, of which only the symmetric part
    may enter.
    """
    H = matrices(model, seed)[0]
    forms = quadratic_forms(H, law, probes, torch.Generator().manual_seed(seed))
    moved = H if symmetric else H + torch.triu(H, 1) - torch.tril(H, -1)
    return float(forms.var() / predicted_variance(moved, law))


@claim(
    source="meyer2021hutchpp",
    predicts=AtMost(-0.85, of="mean"),
    quick=Grid(model=MODELS, repetitions=[40], seeds=10),
    full=Grid(model=MODELS, repetitions=[400], seeds=10),
    controls={name: TRACE_CONTROLS[name] for name in TRACE_CONTROLS if "sketch" in name},
)
def hutchpp_rate_trained(model: str, repetitions: int, seed: int, estimator: str = "Hutch++") -> dict[str, Any]:
    r"""On the Gauss–Newton matrix of every trained network the error of Hutch++ falls at least like one over the products.

    The matrix is positive semidefinite, as the theorem asks @meyer2021hutchpp, and after training a few eigenvalues hold most
    of its trace. The value is the log–log slope of the root-mean-square error of the trace over $m = 12, dots, 96$ products;
    its mean must be at most $-1$, to within $0.15$. Without the sketch it is $-1\/2$.
    """
    return error_slope(matrices(model, seed)[1], repetitions, seed, estimator)


@claim(
    source=("golub2009matrices", "ubaru2017fast"),
    predicts=AtMost("rounding(1000)"),
    quick=Grid(model=MODELS, m=[2, 4, 6], seeds=2),
    full=Grid(model=MODELS, m=[1, 2, 3, 4, 5, 6], seeds=10),
    controls={"powers up to 2m − 1: one more": dict(beyond=1)},
)
def slq_gauss_exactness_trained(model: str, m: int, seed: int, beyond: int = 0) -> float:
    r"""On the Hessian of every trained network Lanczos with m products integrates all powers up to 2m − 1 exactly.

    The nodes $theta_j$ and weights $tau_j^2$ of $m$ steps from $v$ give $sum_j tau_j^2 theta_j^k = v^top H^k v$ for $k <= 2 m - 1$
    @golub2009matrices. Nothing is formed in full: both sides come from products with the Hessian operator, the right one
    as the inner product of $H^(floor(k\/2)) v$ and $H^(ceil(k\/2)) v$. The value is the largest error over these $k$, relative to the
    product of the two norms. The control asks for $k = 2 m$ as well.
    """
    H = network(model, seed).operator(la.Hessian)
    v = gaussian(torch.Generator().manual_seed(seed), H.shape[0])
    powers = [v / v.norm()]
    for _ in range(m):
        powers.append(H @ powers[-1])
    nodes, vectors = torch.linalg.eigh(lanczos(H, v, m))  # type: ignore[arg-type]  # it only multiplies
    errors = []
    for k in range(2 * m + beyond):
        low, high = powers[k // 2], powers[k - k // 2]
        errors.append(abs(nodes**k @ vectors[0].square() - low @ high) / (low.norm() * high.norm()))
    return float(torch.stack(errors).max())


def draw_densities(ax: Any, rows: Rows) -> Columns:
    """The spectra of seven trained Hessians: the share of eigenvalues that are larger, in units of the largest.

    A line for each family on doubly logarithmic axes, from stochastic Lanczos quadrature of ten probes, with the trained
    network of the first seed. All fall steeply from one half or less near zero to one over the number of parameters at the
    right end, where the outliers make steps. Bands are 95 % intervals at each point.
    """
    columns: dict[str, Sequence[float]] = {}
    for colour, row in enumerate(row for row in rows if row.arm == "" and row.k == 0):
        name = row.point["model"]
        columns["eigenvalue over the largest"] = row.values["grid"]
        columns[name], low, high = (row.values[key] for key in ("share", "low", "high"))
        columns |= {f"{name}, low": low, f"{name}, high": high}
        ax.loglog(row.values["grid"], np.maximum(columns[name], 1e-5), color=f"C{colour}", label=name)
        ax.fill_between(row.values["grid"], np.maximum(low, 1e-5), high, color=f"C{colour}", alpha=0.05, linewidth=0)
    ax.set(xlabel="x, in units of the largest eigenvalue", ylabel="share of eigenvalues above x", ylim=(5e-4, 1))
    ax.legend(ncols=2, fontsize="small")
    return columns


def draw_sizes(ax: Any, rows: Rows) -> Columns:
    """Largest eigenvalue and trace of the trained Hessians, and the size of the lowest eigenvalue, which is negative.

    A group of three marks for each family on a logarithmic axis, one network: trace above largest eigenvalue above the size
    of the lowest eigenvalue, which is one to three decades below the largest.
    """
    chosen = [row for row in rows if row.arm == "" and row.k == 0]
    columns: dict[str, Sequence[Any]] = {"model": [row.point["model"] for row in chosen]}
    for key, mark in (("trace", "s"), ("largest", "o"), ("lowest", "v")):
        columns[key] = [float(row.values[key]) for row in chosen]
        shown = "size of the lowest" if key == "lowest" else key
        ax.semilogy(range(len(chosen)), np.abs(columns[key]), mark, label=shown)
    ax.set_xticks(range(len(chosen)), columns["model"])
    ax.set(ylabel="eigenvalue")
    ax.legend()
    return columns


@claim(
    source=("ubaru2017fast", "chen2021analysis"),
    predicts=AtMost(1.0),
    quick=Grid(model=MODELS, steps=[24], seeds=2),
    full=Grid(model=MODELS, steps=[24, 48], seeds=10),
    controls={"the density's own matrix: its negative": dict(negative=True)},
    figures=(draw_densities, draw_sizes),
)
def spectral_density_trained(model: str, steps: int, seed: int, negative: bool = False) -> dict[str, Any]:
    r"""The estimated spectral density of every trained Hessian lies within its bound of the truth.

    Stochastic Lanczos quadrature @ubaru2017fast @chen2021analysis with ten probes, and a bound on its
    Wasserstein-1 distance from the density of the eigenvalues, of which the laboratory says that it holds in 95 % of draws. The
    value is the distance from the eigenvalues of the matrix in full, divided by the bound; below one means kept. Two
    trials of seven families are few enough to ask it of each. The control compares with the mirrored spectrum.
    """
    H = matrices(model, seed)[0]
    found = la.spectral_density(la.Dense(H), steps=steps, seed=seed % 2**31)
    values = torch.linalg.eigvalsh(H).cpu().numpy()
    nodes, weights = (part.numpy().ravel() for part in (found.nodes, found.weights))
    truth = np.sort(-values) if negative else values
    grid = np.geomspace(1e-4, 1, 60)
    share, low, high = found.cdf(torch.from_numpy(grid * values[-1]))
    return {
        "value": float(wasserstein_distance(nodes, truth, weights)) / found.error,
        "grid": grid,
        "share": 1 - share.numpy(),
        "low": 1 - high.numpy(),
        "high": 1 - low.numpy(),
        "trace": values.sum(),
        "largest": values[-1],
        "lowest": values[0],
    }


if __name__ == "__main__":
    script(__file__)
