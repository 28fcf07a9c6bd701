"""The VAE, the coupling flow and the score model against integrals, closed forms and torch's own distributions."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn

from lemmata.architectures import ArchitectureError
from lemmata.architectures.coupling_flow import AffineCoupling, CouplingFlow
from lemmata.architectures.score import ScoreModel, denoising_score_matching, perturbed
from lemmata.architectures.vae import VAE, LinearVAE, bernoulli_elbo, gaussian_elbo, kl_divergence

DRAWS = range(20)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def build(family, *args, seed=0, **options):
    return family(*args, dtype=torch.float64, generator=generator(seed), **options)


def redrawn(module, seed, size=0.5):
    """The same module with every parameter drawn anew, none of them zero."""
    g = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, dtype=torch.float64, generator=g))
    return module


def nudged(module, by=1e-6):
    """The same module with one weight moved."""
    with torch.no_grad():
        next(module.parameters()).view(-1)[0].add_(by)
    return module


def relative(value, truth):
    value, truth = torch.as_tensor(value), torch.as_tensor(truth)
    assert value.shape == truth.shape
    return ((value - truth).norm() / truth.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


def slopes(loss, module):
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(module.parameters()))])


# The variational autoencoder


def integrated_kl(mean, log_variance):
    """KL(N(m, e^v) ‖ N(0, 1)) of one coordinate, by adaptive quadrature of q log(q/p)."""
    q, p = stats.norm(mean, math.exp(log_variance / 2)), stats.norm()
    reach = 14 * q.std()
    return integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)),
        mean - reach,
        mean + reach,
        epsabs=1e-13,
        epsrel=1e-12,
        limit=200,
    )[0]


def test_kl_is_the_integral():
    for seed in DRAWS:
        mean, log_variance = 1.5 * randn(seed, 3), randn(seed + 100, 3)
        truth = sum(integrated_kl(m, v) for m, v in zip(mean.tolist(), log_variance.tolist(), strict=True))
        assert abs(kl_divergence(mean, log_variance).item() / truth - 1) < 1e-10
        assert abs(kl_divergence(mean, log_variance + 1e-6).item() / truth - 1) > 1e-10


class Torchs(nn.Module):
    """The VAE from torch's own layers and distributions."""

    def __init__(self, d, n, k):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(d, n), nn.Tanh(), nn.Linear(n, 2 * k))
        self.decoder = nn.Sequential(nn.Linear(k, n), nn.Tanh(), nn.Linear(n, d))

    def forward(self, x, eps, decoder):
        normal = torch.distributions.Normal
        mean, log_variance = self.encoder(x).chunk(2, -1)
        q = normal(mean, (log_variance / 2).exp())
        r = self.decoder(q.loc + q.scale * eps)
        p = normal(r, torch.ones_like(r)) if decoder == "gaussian" else torch.distributions.Bernoulli(logits=r)
        kl = torch.distributions.kl_divergence(q, normal(torch.zeros_like(mean), torch.ones_like(mean)))
        return r, mean, log_variance, p.log_prob(x).sum(-1) - kl.sum(-1)


@pytest.mark.parametrize("decoder", ["gaussian", "bernoulli"])
def test_vae_is_torchs_own(decoder):
    for seed in DRAWS:
        ours, theirs = redrawn(build(VAE, [5, 4, 2], decoder=decoder), seed), Torchs(5, 4, 2).double()
        named = dict(ours.named_parameters())
        places = {"layers.0": "0", "layers.1": "2"}
        state = {
            f"{part}.{there}.{kind}": named[f"{part}.{here}.{kind}"].detach().clone()
            for part in ("encoder", "decoder")
            for here, there in places.items()
            for kind in ("weight", "bias")
        }
        theirs.load_state_dict(state)
        x, eps = randn(seed + 50, 6, 5), randn(seed + 70, 6, 2)
        x = (x > 0).double() if decoder == "bernoulli" else x

        def errors(ours=ours, theirs=theirs, x=x, eps=eps):
            output, truth = ours(x, eps), theirs(x, eps, decoder)
            bound = ours.elbo(output, x)
            found = [relative(a, b) for a, b in zip((*output, bound), truth, strict=True)]
            return [*found, relative(slopes(bound.mean(), ours), slopes(truth[3].mean(), theirs))]

        assert max(errors()) < 1e-10
        nudged(ours)
        assert max(errors()) > 1e-10


def hermite(nodes):
    """Nodes and weights of the mean over a standard normal number, exact for polynomials below degree 2·nodes."""
    at, weight = special.roots_hermitenorm(nodes)
    return torch.as_tensor(at), torch.as_tensor(weight / weight.sum())


@pytest.mark.parametrize("decoder", ["gaussian", "bernoulli"])
def test_the_gap_to_the_evidence_is_the_posterior_s_divergence(decoder):
    """log p(x) − E_ε ELBO = KL(q(z|x) ‖ p(z|x)) ≥ 0, with a code of one number: every term by quadrature."""
    eps = np.linspace(-12, 12, 4001)
    weight = torch.as_tensor(stats.norm.pdf(eps) * (eps[1] - eps[0]))
    for seed in range(5):
        vae = redrawn(build(VAE, [3, 4, 1], decoder=decoder), seed)
        x = randn(seed + 30, 3)
        x = (x > 0).double() if decoder == "bernoulli" else x
        with torch.no_grad():
            bound = (weight * vae.elbo(vae(x.expand(4001, 3), torch.as_tensor(eps)[:, None]), x)).sum().item()
            mean, log_variance = (part.item() for part in vae.encode(x))
            reach = 12 * (1 + abs(mean) + math.exp(log_variance / 2))
            z = np.linspace(-reach, reach, 20001)
            r = vae.decoder(torch.as_tensor(z)[:, None]).numpy()
        if decoder == "gaussian":
            likelihood = stats.norm.logpdf(x.numpy(), loc=r).sum(1)
        else:
            likelihood = stats.bernoulli.logpmf(x.numpy().astype(int), special.expit(r)).sum(1)
        joint = likelihood + stats.norm.logpdf(z)
        evidence = math.log(integrate.simpson(np.exp(joint), x=z))
        q = stats.norm(mean, math.exp(log_variance / 2))
        gap = integrate.simpson(q.pdf(z) * (q.logpdf(z) - joint + evidence), x=z)
        assert gap > 1e-4 and bound < evidence
        assert abs(evidence - bound - gap) < 1e-8
        wrong = bound + kl_divergence(torch.tensor([mean]), torch.tensor([log_variance])).item()  # without the KL
        assert abs(evidence - wrong - gap) > 1e-3


# The linear VAE


def marginal(vae):
    """The law of x by scipy, from the dense covariance."""
    W, noise = vae.W.detach().numpy(), vae.log_noise.exp().item()
    return stats.multivariate_normal(vae.mu.detach().numpy(), W @ W.T + noise * np.eye(len(W)))


def posterior_gap(vae, x):
    """KL(q(z|x) ‖ p(z|x)) of each row, by the closed form for two Gaussians in NumPy."""
    W, V, mu = (part.detach().numpy() for part in (vae.W, vae.V, vae.mu))
    noise, D = vae.log_noise.exp().item(), np.diag(vae.delta.detach().exp().numpy())
    M = W.T @ W + noise * np.eye(W.shape[1])
    apart = (x.numpy() - mu) @ (np.linalg.solve(M, W.T) - V).T
    precision = M / noise
    constant = np.trace(precision @ D) - len(M) - np.linalg.slogdet(precision @ D)[1]
    return 0.5 * (constant + np.einsum("bi,ij,bj->b", apart, precision, apart))


def test_linear_evidence_is_a_multivariate_normal():
    for seed in DRAWS:
        vae, x = redrawn(build(LinearVAE, 5, 2), seed), randn(seed + 40, 7, 5)
        truth = torch.as_tensor(marginal(vae).logpdf(x.numpy()))
        assert relative(vae.log_evidence(x), truth) < 1e-12
        assert relative(nudged(vae, by=1e-6).log_evidence(x), truth) > 1e-12


def test_linear_bound_is_below_the_evidence_by_the_posterior_s_divergence():
    for seed in DRAWS:
        vae, x = redrawn(build(LinearVAE, 5, 2), seed), randn(seed + 40, 7, 5)
        evidence, gap = marginal(vae).logpdf(x.numpy()), posterior_gap(vae, x)
        bound = vae.expected_elbo(x).detach().numpy()
        assert (bound < evidence).all() and gap.min() > 1e-3
        assert np.abs(evidence - gap - bound).max() < 1e-11 * np.abs(evidence).max()


def test_linear_bound_is_the_mean_over_the_noise():
    """The bound is quadratic in ε: three nodes a latent integrate it exactly."""
    at, weight = hermite(3)
    eps = torch.cartesian_prod(at, at)  # (9 2)
    weights = torch.cartesian_prod(weight, weight).prod(1)
    for seed in DRAWS:
        vae, x = redrawn(build(LinearVAE, 4, 2), seed), randn(seed + 40, 6, 4)
        sampled = torch.stack([gaussian_elbo(vae(x, e.expand(6, 2)), x) for e in eps])
        assert relative(vae.expected_elbo(x), weights @ sampled) < 1e-12
        assert relative(vae.expected_elbo(x), sampled[4]) > 1e-3  # at the mean of the code alone


def principal(x, k):
    """Probabilistic PCA of the rows by eigh: (W, μ, σ², V, D) of the greatest evidence, and that evidence a row."""
    d, covariance = x.shape[1], np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[k:].mean()
    W = vectors[:, :k] * np.sqrt(values[:k] - noise)
    M = W.T @ W + noise * np.eye(k)
    evidence = -0.5 * (d * math.log(2 * math.pi) + np.log(values[:k]).sum() + (d - k) * math.log(noise) + d)
    return {
        "W": W,
        "mu": x.mean(0),
        "log_noise": np.log(noise),
        "V": np.linalg.solve(M, W.T),
        "delta": np.log(noise / np.diag(M)),
    }, evidence


def test_probabilistic_pca_is_the_maximum_of_bound_and_evidence():
    for seed in DRAWS:
        x = randn(seed, 40, 5) @ randn(seed + 100, 5, 5)
        best, evidence = principal(x.numpy(), 2)
        vae = build(LinearVAE, 5, 2)
        vae.load_state_dict({name: torch.as_tensor(value) for name, value in best.items()})
        at_best = vae.expected_elbo(x)
        assert relative(at_best, vae.log_evidence(x)) < 1e-12  # the bound is tight
        assert abs(at_best.mean().item() / evidence - 1) < 1e-12
        for other in range(5):
            moved = copy.deepcopy(vae)
            with torch.no_grad():
                for number, parameter in enumerate(moved.parameters()):
                    parameter.add_(1e-2 * randn(100 * seed + 10 * other + number, *parameter.shape))
            assert moved.expected_elbo(x).mean() < at_best.mean() - 1e-7
        rotated = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
        with torch.no_grad():
            vae.W.copy_(vae.W @ rotated)
            vae.V.copy_(rotated.T @ vae.V)
        # The same evidence, but WᵀW is no longer diagonal: a diagonal posterior must lose.
        assert abs(vae.log_evidence(x).mean().item() / evidence - 1) < 1e-12
        assert vae.expected_elbo(x).mean() < evidence - 1e-4


# The coupling flow


def difference_jacobian(f, x, step=1e-3):
    """Dense Jacobian at one point, by central differences extrapolated twice."""

    def central(h):
        shifts = h * torch.eye(len(x), dtype=torch.float64)
        return ((f(x + shifts) - f(x - shifts)) / (2 * h)).T

    first = [central(step * 2**i) for i in range(3)]
    second = [(4 * a - b) / 3 for a, b in itertools.pairwise(first)]
    return ((16 * second[0] - second[1]) / 15).detach().numpy()


@pytest.mark.parametrize(("d", "couplings"), [(2, 1), (2, 4), (3, 3), (5, 4)])
def test_flow_inverts_and_counts_its_volume(d, couplings):
    for seed in DRAWS:
        flow = redrawn(build(CouplingFlow, d, couplings, [6]), seed)
        x = randn(seed + 20, 8, d)
        with torch.no_grad():
            z, log_det = flow(x)
            assert relative(flow.inverse(z), x) < 1e-12
            assert relative(flow(flow.inverse(x))[0], x) < 1e-12
            truth = np.array(
                [np.linalg.slogdet(difference_jacobian(lambda y, flow=flow: flow(y)[0], point))[1] for point in x]
            )
            assert np.abs(log_det.numpy() - truth).max() < 1e-10
            assert relative(nudged(flow).inverse(z), x) > 1e-12
            flow.couplings[0].alpha.mul_(1.001)
            assert np.abs(flow(x)[1].numpy() - truth).max() > 1e-9


def test_flow_is_a_density():
    """∫ p = 1 on the plane by the trapezium rule, which converges exponentially; without |det J| it is not."""
    grid = torch.linspace(-16, 16, 641, dtype=torch.float64)
    cell = (grid[1] - grid[0]).item() ** 2
    points = torch.cartesian_prod(grid, grid)
    for seed in range(4):
        flow = redrawn(build(CouplingFlow, 2, 3, [5]), seed, size=0.4)
        with torch.no_grad():
            assert abs(flow.log_density(points).exp().sum().item() * cell - 1) < 1e-9
            z, _ = flow(points)
            assert abs((-z.square().sum(1) / 2).exp().sum().item() * cell / (2 * math.pi) - 1) > 1e-3


def masked(flow, x):
    """The source's own form, y = b x + (1 − b)(x e^s + t), with binary masks; one loop over examples' coordinates."""
    d, log_det = x.shape[1], 0
    first = (d + 1) // 2
    for number, layer in enumerate(flow.couplings):
        mask = torch.tensor([float((i < first) == (number % 2 == 0)) for i in range(d)], dtype=torch.float64)
        kept = mask.bool()
        hidden, last = layer.net.layers
        out = torch.tanh(x[:, kept] @ hidden.weight.T + hidden.bias) @ last.weight.T + last.bias
        half = out.shape[1] // 2
        s, t = torch.zeros_like(x), torch.zeros_like(x)
        s[:, ~kept], t[:, ~kept] = layer.alpha * torch.tanh(out[:, :half]), out[:, half:]
        x, log_det = mask * x + (1 - mask) * (x * s.exp() + t), log_det + ((1 - mask) * s).sum(1)
    return x, log_det


def test_flow_is_the_masked_form():
    for seed in DRAWS:
        flow, x = redrawn(build(CouplingFlow, 5, 3, [4]), seed), randn(seed + 20, 6, 5)
        z, log_det = masked(flow, x)
        density = stats.norm.logpdf(z.detach().numpy()).sum(1) + log_det.detach().numpy()
        truth = slopes((log_det - z.square().sum(1) / 2).mean(), flow)
        assert relative(flow(x)[0], z) < 1e-12 and relative(flow(x)[1], log_det) < 1e-12
        assert relative(flow.log_density(x), torch.as_tensor(density)) < 1e-12
        assert relative(slopes(flow.log_density(x).mean(), flow), truth) < 1e-10
        nudged(flow)
        assert relative(slopes(flow.log_density(x).mean(), flow), truth) > 1e-10


def test_scales_are_bounded():
    layer = redrawn(build(AffineCoupling, 2, 3, [4]), 0, size=30.0)
    s, _ = layer.scale_and_shift(randn(1, 500, 2))
    assert (s.abs() <= layer.alpha.abs()).all() and (s.abs() > 0.9 * layer.alpha.abs()).any()


# The score model


def test_score_is_a_scaled_network():
    for seed in DRAWS:
        model = redrawn(build(ScoreModel, 3, [4]), seed)
        theirs = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        state = dict(zip(theirs.state_dict(), (p.detach().clone() for p in model.parameters()), strict=True))
        theirs.load_state_dict(state)
        x, sigma, eps = randn(seed + 20, 6, 3), randn(seed + 30, 6).exp(), randn(seed + 40, 6, 3)
        inputs, target = perturbed(x, sigma, eps)
        x, level = (part.numpy() for part in (x, sigma[:, None]))
        seen = np.column_stack([(x + level * eps.numpy()) / np.sqrt(1 + level**2), np.log(level)])
        raw = theirs(torch.as_tensor(seen))
        loss = ((raw + eps) ** 2).sum() / (2 * len(x))
        assert relative(model(*inputs), raw / sigma[:, None]) < 1e-12
        assert relative(denoising_score_matching(model(*inputs), target), loss) < 1e-12
        truth = slopes(loss, theirs)
        assert relative(slopes(denoising_score_matching(model(*inputs), target), model), truth) < 1e-10
        nudged(model)
        assert relative(slopes(denoising_score_matching(model(*inputs), target), model), truth) > 1e-10


def signs(d):
    """All 4^d pairs of sign vectors: as uncorrelated and of the same second moments as two standard normals."""
    both = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2 * d)), dtype=torch.float64)
    return both[:, :d], both[:, d:]


def test_the_best_linear_score_of_gaussian_data_is_its_score():
    """The loss of s(x) = A x is quadratic: its least value ½ Σ λ/(λ + σ²) is at A = −(Σ + σ² I)⁻¹, its curvature known."""
    unit, eps = signs(3)
    for seed in DRAWS:
        factor = randn(seed, 3, 3)
        sigma = randn(seed + 20, 1).exp().expand(len(unit))
        noisy = factor @ factor.T + sigma[0] ** 2 * torch.eye(3, dtype=torch.float64)
        best = -torch.as_tensor(np.linalg.inv(noisy.numpy()))
        (seen, _), target = perturbed(unit @ factor.T, sigma, eps)

        def loss(A, seen=seen, target=target):
            return denoising_score_matching(seen @ A.T, target).item()

        eigenvalues = np.linalg.eigvalsh((factor @ factor.T).numpy())
        least = 0.5 * (eigenvalues / (eigenvalues + sigma[0].item() ** 2)).sum()
        assert abs(loss(best) / least - 1) < 1e-11
        step = randn(seed + 40, 3, 3)
        rise = 0.5 * sigma[0] ** 2 * torch.trace(step @ noisy @ step.T)
        assert abs((loss(best + step) - least) / rise - 1) < 1e-10
        assert loss(1.01 * best) > least * (1 + 1e-6)


def test_unit_gaussian_data_has_the_textbook_score():
    """For x ~ N(0, I), −x̃/(1 + σ²) is the best multiple of x̃, at the loss d/(2 (1 + σ²))."""
    unit, eps = signs(2)
    for sigma in (0.1, 0.7, 3.0):
        (seen, _), target = perturbed(unit, torch.full((len(unit),), sigma, dtype=torch.float64), eps)
        at = {c: denoising_score_matching(c * seen, target).item() for c in (-0.99, -1.0, -1.01)}
        scaled = {c: denoising_score_matching(c * seen / (1 + sigma**2), target).item() for c in at}
        assert abs(scaled[-1.0] - 1 / (1 + sigma**2)) < 1e-12
        assert min(scaled, key=scaled.get) == -1.0


def test_denoising_score_matching_is_score_matching_up_to_a_constant():
    """Vincent's theorem for six data points: E ½‖σ s + ε‖² − E ½ σ² (s − ∇ log p_σ)² is the same for every model."""
    at, weight = hermite(120)
    data, sigma = randn(0, 6, 1), 0.8
    x, eps = data.repeat_interleave(len(at), 0), at.repeat(6)[:, None]
    weights = weight.repeat(6) / 6
    levels = torch.full((len(x),), sigma, dtype=torch.float64)
    (seen, _), _ = perturbed(x, levels, eps)
    kernel = stats.norm.pdf(seen.numpy(), loc=data.numpy().T, scale=sigma)  # (n 6)
    pull = (data.T - seen).numpy() / sigma**2
    score = torch.as_tensor((kernel * pull).sum(1, keepdims=True) / kernel.sum(1, keepdims=True))

    def mean(per_example):
        return (weights * per_example).sum().item()

    def denoising(values):
        one = [
            denoising_score_matching(v[None], (e[None], s[None])) for v, e, s in zip(values, eps, levels, strict=True)
        ]
        return mean(torch.stack(one))

    constant = 0.5 * (1 - sigma**2 * mean(score.square().sum(1)))
    for seed in DRAWS:
        model = redrawn(build(ScoreModel, 1, [4]), seed)
        with torch.no_grad():
            values = model(seen, levels)
        explicit = 0.5 * sigma**2 * mean((values - score).square().sum(1))
        assert abs(denoising(values) - explicit - constant) < 1e-9
        assert abs(denoising(values + 1e-3) - explicit - constant) > 1e-6


# Initial laws, seeds, vmap, errors

FAMILIES = {
    "VAE": lambda **k: VAE([30, 40, 8], **k),
    "LinearVAE": lambda **k: LinearVAE(300, 200, **k),
    "CouplingFlow": lambda **k: CouplingFlow(60, 2, [80], **k),
    "ScoreModel": lambda **k: ScoreModel(60, [80], **k),
}


def follows(sample, variance, kurtosis):
    """Whether Σx²/variance lies in the normal limit of its central 1 − 1e-6 interval."""
    total, count = (sample.double().square().sum() / variance).item(), sample.numel()
    low, high = stats.norm(count, math.sqrt((kurtosis - 1) * count)).interval(1 - 1e-6)
    return low <= total <= high


def test_initial_variance():
    made = {name: make(dtype=torch.float64, generator=generator(0)) for name, make in FAMILIES.items()}
    for name in ("VAE", "CouplingFlow", "ScoreModel"):
        for key, value in made[name].named_parameters():
            if key.endswith("weight"):
                assert follows(value, 1 / (3 * value.shape[1]), 1.8) and not follows(
                    value, 2 / (3 * value.shape[1]), 1.8
                )
            assert not key.endswith("alpha") or (value == 1).all()
    vae = made["LinearVAE"]
    assert follows(vae.W, 1 / 200, 3) and follows(vae.V, 1 / 300, 3) and not follows(vae.W, 1 / 300, 3)
    assert not any(torch.count_nonzero(p) for p in (vae.mu, vae.delta, vae.log_noise))


@pytest.mark.parametrize("name", FAMILIES)
def test_seed_decides_the_network(name):
    make, state = FAMILIES[name], torch.get_rng_state()
    nets = [
        make(dtype=dtype, generator=generator(seed))
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    ]
    first, again, other, single = ([p.detach() for p in net.parameters()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_bounds_are_one_number_an_example():
    x, eps = (randn(0, 3, 4, 5) > 0).double(), randn(1, 3, 4, 2)
    vae = build(VAE, [5, 2], decoder="bernoulli")
    whole = bernoulli_elbo(vae(x, eps), x)
    assert whole.shape == (3, 4)
    torch.testing.assert_close(whole[1, 2], vae.elbo(vae(x[1, 2], eps[1, 2]), x[1, 2]), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: VAE([3]), ["widths=[3]", "at least 2"]),
        (lambda: VAE([3, 0]), ["widths[1]", "0"]),
        (lambda: VAE([3, 2], decoder="normal"), ["'normal'", "gaussian", "bernoulli"]),
        (lambda: VAE([3, 2], activation="tahn"), ["'tahn'", "tanh"]),
        (lambda: VAE([3, 2])(torch.zeros(4, 5), torch.zeros(4, 2)), ["x has shape (4, 5)", "(..., 3)", "flatten"]),
        (lambda: VAE([3, 2])(torch.zeros(4, 3), torch.zeros(4, 3)), ["eps", "(4, 3)", "(4, 2)", "torch.randn(4, 2)"]),
        (lambda: VAE([3, 2])(torch.zeros(4, 3), torch.zeros(1, 2)), ["eps", "(1, 2)", "(4, 2)"]),
        (lambda: LinearVAE(0, 2), ["inputs", "0"]),
        (lambda: LinearVAE(3, -1), ["latents", "-1"]),
        (lambda: LinearVAE(3, 1, init="pca"), ["'pca'", "lecun", "Law"]),
        (lambda: LinearVAE(3, 1)(torch.zeros(4, 2), torch.zeros(4, 1)), ["x has shape (4, 2)", "(..., 3)"]),
        (lambda: LinearVAE(3, 1)(torch.zeros(4, 3), torch.zeros(4)), ["eps", "(4,)", "(4, 1)"]),
        (lambda: LinearVAE(3, 1).log_evidence(torch.zeros(2)), ["(2,)", "(..., 3)"]),
        (lambda: CouplingFlow(1, 2, [3]), ["inputs=1", "inputs=2"]),
        (lambda: CouplingFlow(2, 0, [3]), ["couplings", "0"]),
        (lambda: CouplingFlow(2, 2, [0]), ["hidden[0]", "0"]),
        (lambda: CouplingFlow(2, 2, 3), ["hidden", "list", "3"]),
        (lambda: CouplingFlow(2, 2, [3])(torch.zeros(4, 3)), ["x has shape (4, 3)", "inputs=2", "(..., 2)"]),
        (lambda: CouplingFlow(2, 2, [3]).inverse(torch.zeros(())), ["z has shape ()", "inputs=2"]),
        (lambda: AffineCoupling(0, 2, [3]), ["given", "0"]),
        (lambda: AffineCoupling(1, 2, [3])(torch.zeros(4, 1), torch.zeros(4, 1)), ["v has shape (4, 1)", "(4, 2)"]),
        (
            lambda: AffineCoupling(1, 2, [3]).inverse(torch.zeros(4, 1), torch.zeros(2)),
            ["moved has shape (2,)", "(4, 2)"],
        ),
        (lambda: ScoreModel(2, [3])(torch.zeros(4, 2), 0.5), ["sigma is 0.5", "tensor", "new_full"]),
        (
            lambda: denoising_score_matching(torch.zeros(4, 2), (torch.zeros(4, 1), torch.ones(4))),
            ["(4, 2)", "(4, 1)", "perturbed"],
        ),
        (lambda: ScoreModel(0, [3]), ["inputs", "0"]),
        (lambda: ScoreModel(2, ["3"]), ["hidden[0]", "'3'"]),
        (lambda: ScoreModel(2, [3])(torch.zeros(4, 3), torch.ones(4)), ["x has shape (4, 3)", "inputs=2"]),
        (lambda: ScoreModel(2, [3])(torch.zeros(4, 2), torch.ones(4, 1)), ["sigma", "(4, 1)", "(4,)", "expand"]),
        (lambda: ScoreModel(2, [3])(torch.zeros(4, 2), torch.tensor(1.0)), ["sigma", "()", "(4,)", "expand"]),
        (lambda: perturbed(torch.zeros(4, 2), torch.ones(4), torch.zeros(4, 1)), ["eps", "(4, 1)", "randn_like"]),
    ],
)
def test_errors_teach(make, told):
    with pytest.raises(ArchitectureError) as caught:
        make()
    for words in told:
        assert words in str(caught.value)
