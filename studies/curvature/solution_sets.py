r"""How many solutions there are, and what that is worth.

A network with more parameters than constraints has many minima. Three theorems about such sets: their codimension is
the number of random directions needed to reach one @li2018measuring; the minima of a linear variational autoencoder are
known one by one, and say which latents it leaves unused @lucas2019dont; and the larger the share of a prior's volume
that fits the data, the better the fit holds on new data, with a certificate @mcallester1999model
@dziugaite2017computing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lemmata.architectures import LinearVAE, kl_divergence
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

# Intrinsic dimension

PARAMETERS = 1000
SOLVED = 1e-12  # a subspace holds a solution if the loss falls to this share of its first value


def block_sums(codimension: int, draws: torch.Generator, further: int = 0) -> tuple[Tensor, Tensor]:
    """A (m, D) and b (m,): the sum over the i-th block of parameters is i; further rows constrain random combinations."""
    size = PARAMETERS // codimension
    blocks = torch.eye(codimension).repeat_interleave(size, dim=1)
    blocks = torch.nn.functional.pad(blocks, (0, PARAMETERS - codimension * size))
    rows = torch.cat([blocks, gaussian(draws, further, PARAMETERS)])
    return rows, torch.arange(1.0, len(rows) + 1)


def random_directions(subspaces: int, dimension: int, axes: bool, draws: torch.Generator) -> Tensor:
    """Bases of random subspaces, (subspaces D dimension): Gaussian columns, or single coordinates drawn at random."""
    if not axes:
        return gaussian(draws, subspaces, PARAMETERS, dimension)
    picks = torch.rand(subspaces, PARAMETERS, generator=draws, device="cpu").argsort(1)[:, :dimension]
    return torch.eye(PARAMETERS)[picks.to(torch.get_default_device())].mT


def least_losses(rows: Tensor, residual: Tensor, directions: Tensor) -> Tensor:
    """The least loss |A P z − r|² in each subspace over that at its origin, |r|²: what training z ends with."""
    moved = rows @ directions  # (subspaces m dimension)
    z = torch.linalg.pinv(moved, rtol=1e-13) @ residual
    left = (moved @ z[..., None])[..., 0] - residual
    return left.square().sum(-1) / residual.square().sum()


def draw_least_losses(ax: Any, rows: Rows) -> Columns:
    """The least loss in random subspaces, against their dimension less the codimension of the solution set.

    Logarithmic axis. The marks of the claim stay near one while the dimension is too small and drop by more than twenty
    orders of magnitude at zero. Those of sparse subspaces stay high.
    """
    columns: dict[str, Sequence[Any]] = {}
    codimensions = sorted({row.point["codimension"] for row in rows})
    excess = sorted({row.point["excess"] for row in rows})
    columns["dimension less codimension"] = excess
    for arm, mark, name in (("", "o-", "Gaussian"), ("a generic subspace: single coordinates", "x:", "coordinates")):
        for colour, m in enumerate(codimensions):
            label = f"{name}, codimension {m}"
            columns[label] = [_median_loss(rows, arm, m, e) for e in excess]
            ax.semilogy(excess, columns[label], mark, color=f"C{colour}", label=label)
    ax.set(xlabel="dimension of the subspace less codimension", ylabel="least loss over first loss", xticks=excess)
    ax.legend()
    return columns


def _median_loss(rows: Rows, arm: str, codimension: int, excess: int) -> float:
    point = {"codimension": codimension, "excess": excess}
    own = [row.values["losses"] for row in rows if row.arm == arm and point.items() <= row.point.items()]
    return max(float(np.median(np.concatenate(own))), 1e-33)


@claim(
    source="li2018measuring",
    predicts=Equals("1.0*(excess >= 0)", within=0, of="each"),
    quick=Grid(codimension=[5, 10], excess=[-2, -1, 0, 1], subspaces=[50], seeds=2),
    full=Grid(codimension=[5, 10, 20, 40], excess=[-3, -2, -1, 0, 1, 2], subspaces=[200], seeds=5),
    controls={
        "a generic subspace: single coordinates": dict(axes=True),
        "codimension m: one more constraint": dict(further=1),
    },
    figures=(draw_least_losses,),
)
def intrinsic_dimension_objective(
    codimension: int, excess: int, subspaces: int, seed: int, axes: bool = False, further: int = 0
) -> dict[str, Any]:
    r"""Training in a random subspace succeeds if and only if its dimension reaches the codimension of the solutions.

    Train $theta = theta_0 + P z$ by its $d$ coordinates $z$ alone, with $P in RR^(D times d)$ Gaussian, on $sum_(i=1)^m
    (sum_(j in "block" i) theta_j - i)^2$. The solution set has dimension $D - m$, and with probability one a random
    affine subspace of dimension $d$ meets it if and only if $d >= m$ @li2018measuring, who call this least $d$ the
    intrinsic dimension of the objective. Here $D = 1000$. The loss is quadratic in $z$, so that its least value is
    computed and not approached. The value is the share of random subspaces in which it is zero, to $10^(-12)$ of the
    first loss: $0$ for $d < m$, $1$ for $d >= m$.

    For a nonlinear network $d >= m$ is still necessary, almost surely, but no longer sufficient: a curved set may lie
    elsewhere.

    Controls: $d$ single parameters chosen at random form a subspace too, but no generic one; at $d = m$ they nearly
    always miss a block. One more constraint raises the codimension.
    """
    draws = torch.Generator().manual_seed(seed)
    rows, sums = block_sums(codimension, draws, further)
    residual = sums - rows @ gaussian(draws, PARAMETERS)
    losses = least_losses(rows, residual, random_directions(subspaces, codimension + excess, axes, draws))
    return {"value": (losses < SOLVED).double().mean().item(), "losses": losses}


# Posterior collapse

SPECTRUM = (5.0, 3.0, 2.0, 1.0, 0.5, 0.25)  # eigenvalues of the data's covariance
SPECTRUM_CONTROLS: Mapping[str, Mapping[str, Any]] = {
    "the evidence bound: β = 2": dict(beta=2.0),
    "noise of known variance: learned": dict(learned=True),
}


class Fit(NamedTuple):
    """A trained linear VAE: its decoder's singular values and its latents' divergences, largest first."""

    singular_values: Tensor
    divergences: Tensor


def data_of_spectrum(draws: torch.Generator) -> Tensor:
    """Points ±√(d λᵢ) uᵢ with random orthonormal uᵢ: mean zero and covariance of eigenvalues λᵢ, exactly."""
    d = len(SPECTRUM)
    frame = torch.linalg.qr(gaussian(draws, d, d))[0]
    points = (d * torch.tensor(SPECTRUM, device=frame.device)).sqrt()[:, None] * frame
    return torch.cat([points, -points])


def fit(points: Tensor, latents: int, noise: float, beta: float, learned: bool, draws: torch.Generator) -> Fit:
    """Maximise the evidence bound, its expectation in closed form, by L-BFGS from a random start."""
    vae = LinearVAE(points.shape[-1], latents, generator=draws, dtype=points.dtype, device=points.device)
    vae.mu.requires_grad_(False)  # zero, the mean of the points
    vae.log_noise.data.fill_(math.log(noise))
    vae.log_noise.requires_grad_(learned)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    search = torch.optim.LBFGS(
        trained,
        max_iter=3000,
        tolerance_grad=1e-11,
        tolerance_change=1e-18,
        history_size=30,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        value = ((beta - 1) * kl_divergence(*vae.encode(points)) - vae.expected_elbo(points)).mean()
        value.backward()
        return value

    search.step(loss)
    with torch.no_grad():
        mean, log_variance = vae.encode(points)
        divergences = kl_divergence(mean[..., None], log_variance[..., None]).mean(0)
        return Fit(torch.linalg.svdvals(vae.W), divergences.sort(descending=True).values)


def draw_singular_values(ax: Any, rows: Rows) -> Columns:
    """Singular values of the decoder against the noise variance.

    Each curve, one for an eigenvalue of the data's covariance, falls like a quarter of an ellipse and meets zero where
    the noise variance equals the eigenvalue. The circles of trained decoders lie on the curves and stay at zero beyond
    them. The crosses of the bound with a doubled divergence lie lower.
    """
    noise = np.linspace(0, 5.5, 300)
    columns: dict[str, Sequence[Any]] = {}
    latents = max(row.point["latents"] for row in rows)
    for colour, eigenvalue in enumerate(SPECTRUM[:latents]):
        ax.plot(
            noise, np.sqrt(np.maximum(eigenvalue - noise, 0)), color=f"C{colour}", label=f"eigenvalue {eigenvalue:g}"
        )
    for arm, mark, name in (("", "o", "trained"), ("the evidence bound: β = 2", "x", "β = 2")):
        own = [row for row in rows if row.arm == arm and row.k == 0 and row.point["latents"] == latents]
        columns["noise variance"] = [row.point["noise"] for row in own]
        for i in range(latents):
            columns[f"{name}, {i + 1}"] = [float(row.values["singular_values"][i]) for row in own]
            ax.plot(columns["noise variance"], columns[f"{name}, {i + 1}"], mark, color=f"C{i}", markerfacecolor="none")
    ax.set(xlabel="noise variance σ²", ylabel="singular value of the decoder")
    ax.legend()
    return columns


@claim(
    source=("lucas2019dont", "tipping1999probabilistic"),
    predicts=AtMost(1e-4, of="each"),
    quick=Grid(noise=[0.7, 1.6, 2.4, 4.0], latents=[4], seeds=2),
    full=Grid(noise=[0.3, 0.7, 1.6, 2.4, 4.0, 5.5], latents=[2, 4, 5], seeds=10),
    controls=SPECTRUM_CONTROLS,
    figures=(draw_singular_values,),
)
def linear_vae_collapse(
    noise: float, latents: int, seed: int, beta: float = 1.0, learned: bool = False
) -> dict[str, Any]:
    r"""A linear VAE leaves a latent unused if and only if its eigenvalue is at most the noise variance.

    Let the data have mean zero and a covariance with eigenvalues $lambda_1 >= lambda_2 >= dots$, and let $q(z|x) = N(V
    x, D)$, $D$ diagonal, and $p(x|z) = N(W z, sigma^2 I)$ maximise the evidence lower bound for a given $sigma^2$. The
    bound is tight at its maximum, which is that of probabilistic principal component analysis @tipping1999probabilistic
    @lucas2019dont: the singular values of the decoder $W$ are
    $ sqrt(max(lambda_i - sigma^2, 0)). $
    The bound adds no local maxima of its own, so that random starts find it. The value is the largest deviation of a
    singular value after training by L-BFGS on the closed form of the bound. Eigenvalues $5, 3, 2, 1, 1\/2, 1\/4$ in a
    random frame. Near a threshold the bound is flat, and $10^(-14)$ of its value is $10^(-6)$ of a singular value.

    Controls: a divergence counted twice ($beta = 2$) moves the threshold to $lambda <= 2 sigma^2$; a learned $sigma^2$
    settles at the mean of the eigenvalues left out.
    """
    draws = torch.Generator().manual_seed(seed)
    points = data_of_spectrum(draws)
    fitted = fit(points, latents, noise, beta, learned, draws)
    expected = (torch.tensor(SPECTRUM[:latents], device=points.device) - noise).clamp(min=0).sqrt()
    return {"value": (fitted.singular_values - expected).abs().max().item(), "singular_values": fitted.singular_values}


@claim(
    source=("lucas2019dont", "dai2018connections"),
    predicts=AtMost(1e-5, of="each"),
    quick=Grid(noise=[0.7, 1.6, 2.4, 4.0], latents=[4], seeds=2),
    full=Grid(noise=[0.3, 0.7, 1.6, 2.4, 4.0, 5.5], latents=[2, 4, 5], seeds=10),
    controls=SPECTRUM_CONTROLS,
)
def linear_vae_collapse_divergence(
    noise: float, latents: int, seed: int, beta: float = 1.0, learned: bool = False
) -> float:
    r"""A latent of a linear VAE tells half the logarithm of eigenvalue over noise, or nothing.

    In the same setting every latent belongs to one eigenvector, for the diagonal $D$ rules out rotations, and its
    divergence from the prior, $"KL"(q(z_i|x) || p(z_i))$, is in the mean over the data
    $ 1/2 log max(lambda_i \/ sigma^2, 1). $
    The posterior of a latent with $lambda_i <= sigma^2$ has collapsed onto the prior, exactly @lucas2019dont
    @dai2018connections. The value is the largest deviation over the latents, both sides sorted. The controls are the
    same.
    """
    draws = torch.Generator().manual_seed(seed)
    points = data_of_spectrum(draws)
    fitted = fit(points, latents, noise, beta, learned, draws)
    expected = (torch.tensor(SPECTRUM[:latents], device=points.device) / noise).clamp(min=1).log() / 2
    return (fitted.divergences - expected).abs().max().item()


# PAC-Bayes bounds

FLIPPED = 0.1  # share of labels that are wrong
LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # of the posterior's mean; the bound chooses among them
NODES = 48  # of each quadrature rule


def label_noise_data(sets: int, n: int, dimension: int, copies: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Data sets x (sets n d), standard normal, and y (sets n), the sign of the first coordinate, flipped now and then."""
    x = gaussian(draws, sets, n // copies, dimension)
    flips = torch.rand(x.shape[:-1], generator=draws, device="cpu").to(x.device) < FLIPPED
    y = torch.where(flips, -x[..., 0].sign(), x[..., 0].sign())
    return x.repeat(1, copies, 1), y.repeat(1, copies)


def least_squares_directions(x: Tensor, y: Tensor) -> Tensor:
    """Unit vectors (sets d) along the least-squares fit of the labels, with a ridge of 10⁻³ against singular data."""
    gram = x.mT @ x + 1e-3 * torch.eye(x.shape[-1], device=x.device)
    w = torch.linalg.solve(gram, (x.mT @ y[..., None])[..., 0])
    return w / w.norm(dim=-1, keepdim=True)


def empirical_risks(x: Tensor, y: Tensor, means: Tensor) -> Tensor:
    """The Gibbs classifier's error on its data, the mean of Φ(−y μ·x/|x|): means (sets lengths d) → (sets lengths)."""
    margins = y[..., None] * (x @ means.mT) / x.norm(dim=-1, keepdim=True)
    return torch.special.ndtr(-margins).mean(1)


def true_risks(means: Tensor) -> Tensor:
    """The error of w ~ N(μ, I) on new data: (sets d) → (sets).

    With s = x/|x| uniform on the sphere only s₁ = r cos φ and s₂ = r sin φ along the rest of μ count: φ is uniform, and
    r has density (d − 2) r (1 − r²)^(d/2 − 2) for d ≥ 3. The label's sign is a symmetry: φ runs over s₁ > 0.
    """
    d = means.shape[-1]
    nodes, weights = (torch.as_tensor(part, device=means.device) for part in np.polynomial.legendre.leggauss(NODES))
    share = (nodes + 1) / 2  # r² = 1 − (1 − share)^(2/(d − 2)), the quantile of r²
    radius = (1 - (1 - share) ** (2 / (d - 2))).sqrt()
    angle = nodes * math.pi / 2
    along, across = means[:, 0, None, None], means[:, 1:].norm(dim=-1)[:, None, None]
    wrong = torch.special.ndtr(-radius[:, None] * (along * angle.cos() + across * angle.sin()))
    clean = (wrong @ weights / 2) @ weights / 2
    return FLIPPED + (1 - 2 * FLIPPED) * clean


def binary_kl(q: Tensor, p: Tensor) -> Tensor:
    """kl(q‖p), the divergence of two coins."""
    return torch.xlogy(q, q / p) + torch.xlogy(1 - q, (1 - q) / (1 - p))


def invert_kl(q: Tensor, divergence: Tensor) -> Tensor:
    """The largest p with kl(q‖p) ≤ divergence, by bisection."""
    low, high = q.clone(), torch.ones_like(q)
    for _ in range(50):
        middle = (low + high) / 2
        inside = binary_kl(q, middle) <= divergence
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return low


class Certificates(NamedTuple):
    """For each data set: the Gibbs classifier's error there, its error on new data, the bound, and whether it is broken."""

    empirical: Tensor
    true: Tensor
    bound: Tensor
    violated: Tensor


def certificates(x: Tensor, y: Tensor, delta: float, prior: str = "fixed") -> Certificates:
    """Certify on each data set the posterior N(c w, I), w of least squares and c the length with the least bound."""
    n = y.shape[-1]
    lengths = torch.tensor(LENGTHS, device=x.device)
    means = lengths[:, None] * least_squares_directions(x, y)[:, None]  # (sets lengths d)
    cost = 0 * lengths if prior == "the posterior" else lengths.square() / 2
    allowed = (cost + math.log(2 * math.sqrt(n) / delta)) / n
    empirical = empirical_risks(x, y, means)
    bound, best = invert_kl(empirical, allowed.expand_as(empirical)).min(1)
    chosen = torch.arange(len(x), device=x.device), best
    true = true_risks(means[chosen])
    return Certificates(empirical[chosen], true, bound, binary_kl(empirical[chosen], true) > allowed[best])


def draw_certificates(ax: Any, rows: Rows) -> Columns:
    """The bound against the true error, one mark for each of 100 data sets.

    All marks of the claim lie above the dashed diagonal: in five dimensions the bound is below one half and about twice
    the error, in eighty it is above one half, as is nearly the error. The crosses, for a prior that has seen the data,
    lie below the diagonal.
    """
    columns: dict[str, Sequence[Any]] = {}
    first = [row for row in rows if row.k == 0]
    largest = max(row.point["dimension"] for row in first)
    chosen = [
        row for row in first if row.arm == "" or (row.arm.startswith("a prior") and row.point["dimension"] == largest)
    ]
    for colour, row in enumerate(row for row in chosen if row.point["n"] == chosen[0].point["n"]):
        label = f"d = {row.point['dimension']}" + (", prior = posterior" if row.arm else "")
        columns[f"error, {label}"], columns[f"bound, {label}"] = row.values["true"][:100], row.values["bound"][:100]
        mark = "x" if row.arm else "."
        ax.plot(columns[f"error, {label}"], columns[f"bound, {label}"], mark, color=f"C{colour}", label=label)
    ax.plot([0, 1], [0, 1], "--", color="0.3", linewidth=1)
    ax.set(xlabel="error on new data", ylabel="bound", xlim=(0, 0.6), ylim=(0, 1))
    ax.legend()
    return columns


@claim(
    source=("mcallester1999model", "seeger2002pac", "maurer2004note"),
    predicts=AtMost("delta", of="mean"),
    quick=Grid(dimension=[5, 80], n=[100], delta=[0.05], sets=[600], seeds=5),
    full=Grid(dimension=[5, 20, 80], n=[100, 200], delta=[0.05, 0.2], sets=[1000], seeds=5),
    controls={
        "a prior fixed before the data: the posterior itself": dict(prior="the posterior"),
        "independent examples: each ten times": dict(copies=10),
    },
    figures=(draw_certificates,),
)
def pac_bayes_coverage(
    dimension: int, n: int, delta: float, sets: int, seed: int, prior: str = "fixed", copies: int = 1
) -> dict[str, Any]:
    r"""The PAC-Bayes bound fails on a share δ of the data sets at most.

    Let $P$ be a distribution over classifiers that is fixed before $n >= 8$ independent examples are drawn. With
    probability at least $1 - delta$ over the examples, for all distributions $Q$ at once,
    $ "kl"(hat(R)(Q) || R(Q)) <= ("KL"(Q || P) + ln (2 sqrt(n)\/delta))/n, $
    where $hat(R)$ and $R$ are the mean errors of a classifier drawn from $Q$ on the examples and on new ones, and kl is
    the divergence of two coins @mcallester1999model @seeger2002pac @maurer2004note. As it holds for all $Q$, the data
    may choose it.

    Here classifiers are the signs of $w dot x$, $P = N(0, I)$ and $Q = N(c hat(w), I)$ with $hat(w)$ the normalised
    least-squares fit and $c$ of eight lengths the one with the least bound; ten per cent of the labels are wrong. Then
    $hat(R)$ is a sum of normal distribution functions, and $R$ an integral in two variables: neither is estimated. The
    value is the share of data sets that break the bound.

    Controls: the posterior of each data set as its own prior makes KL zero and lets the data choose the prior, which
    breaks the bound where least squares overfits; ten copies of each example are $n$ examples, but not independent
    ones.
    """
    draws = torch.Generator().manual_seed(seed)
    x, y = label_noise_data(sets, n, dimension, copies, draws)
    found = certificates(x, y, delta, prior)
    return {"value": found.violated.double().mean().item(), "true": found.true, "bound": found.bound}


@claim(
    source=("dziugaite2017computing", "maurer2004note"),
    predicts=AtMost(0.5, of="mean"),
    quick=Grid(dimension=[5], n=[100], delta=[0.05], sets=[200], seeds=5),
    full=Grid(dimension=[5], n=[100, 200, 400], delta=[0.05], sets=[1000], seeds=5),
    controls={"a posterior near the prior: many dimensions": dict(dimension=80)},
)
def pac_bayes_coverage_nonvacuous(dimension: int, n: int, delta: float, sets: int, seed: int) -> float:
    r"""The PAC-Bayes bound says something where few bits tell the fit.

    A bound on an error is worth having if it is below one half, the error of a coin. In the same setting with five
    dimensions a posterior with a small divergence from the prior fits the data, and the mean of the bound over data
    sets is below one half; for networks such bounds need a search for such a posterior @dziugaite2017computing.

    In the control the inputs have 80 dimensions: no posterior near the prior fits, and the best certificate says
    nothing.
    """
    draws = torch.Generator().manual_seed(seed)
    return certificates(*label_noise_data(sets, n, dimension, 1, draws), delta).bound.mean().item()


if __name__ == "__main__":
    script(__file__)
