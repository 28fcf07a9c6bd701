"""Hopfield retrieval equals attention and obeys its theorems; the deep equilibrium is the limit of its unrolled layers.

Truth: torch's own attention, the bounds of Ramsauer et al. written out here, differences of the energy; for the
equilibrium a thousand unrolled layers, differentiated by autograd through every one, and scipy's root finder.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import optimize, stats
from torch.func import functional_call

from lemmata.architectures import ArchitectureError
from lemmata.architectures.deep_equilibrium import DeepEquilibrium
from lemmata.architectures.hopfield import Hopfield, energy, update

TOLERANCE = (
    1e-10  # relative, float64: a thousand times the rounding of these nets, a ten-thousandth of the planted 1e-6
)
DRAWS = 20


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def double(build, *arguments, seed=0, **options):
    return build(*arguments, dtype=torch.float64, generator=generator(seed), **options)


def relative(value, truth):
    return ((value - truth).norm() / truth.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


# Hopfield.
def attention(state, patterns, beta, steps):
    for _ in range(steps):
        state = F.scaled_dot_product_attention(state, patterns, patterns, scale=beta)
    return state


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("beta", [None, 2.5])
def test_update_is_attention(beta, steps):
    for seed in range(DRAWS):
        net, state = double(Hopfield, 4, 6, beta=beta, steps=steps, seed=seed), randn(seed + 1000, 7, 4)
        probe = randn(5, 7, 4)
        theirs = net.patterns.detach().clone().requires_grad_()
        truth = attention(state, theirs, 0.5 if beta is None else beta, steps)
        truth_gradient = torch.autograd.grad((truth * probe).sum(), theirs)[0]

        def error(net=net, state=state, probe=probe, truth=truth, truth_gradient=truth_gradient):
            value = net(state)
            gradient = torch.autograd.grad((value * probe).sum(), net.patterns)[0]
            return max(relative(value, truth), relative(gradient, truth_gradient))

        assert error() <= TOLERANCE
        with torch.no_grad():
            net.patterns.view(-1)[truth_gradient.abs().argmax()] += 1e-6  # a pattern that no state is near does nothing
        assert error() > TOLERANCE


def test_energy_never_increases():
    """One update minimises a majorant of E; a step three times as long need not lower it."""
    rises = 0
    for seed in range(DRAWS):
        patterns, state = randn(seed, 8, 5), 2 * randn(seed + 1000, 30, 5)
        beta = [0.1, 1.0, 4.0, 16.0][seed % 4]
        longer = state
        for _ in range(15):
            after = update(state, patterns, beta)
            assert (
                energy(after, patterns, beta) <= energy(state, patterns, beta) + 1e-13 * patterns.square().sum()
            ).all()
            state = after
            further = 3 * update(longer, patterns, beta) - 2 * longer
            rises += (energy(further, patterns, beta) > energy(longer, patterns, beta) + 1e-6).sum().item()
            longer = further
    assert rises > 100


def test_energy_is_bounded_on_the_hull_and_its_gradient_is_the_update():
    for seed in range(DRAWS):
        net = double(Hopfield, 4, 6, beta=1.3, seed=seed)
        patterns = net.patterns.detach()
        weights = torch.softmax(2 * randn(seed + 1000, 50, 6), -1)
        value = net.energy(weights @ patterns)
        assert (value >= 0).all() and (value <= 2 * patterns.square().sum(-1).max()).all()
        state, step = randn(seed + 2000, 3, 4), 1e-5
        slopes = [
            (net.energy(state + step * e) - net.energy(state - step * e)) / (2 * step)
            for e in torch.eye(4, dtype=torch.float64)
        ]
        gradient = torch.stack(slopes, dim=-1)
        torch.testing.assert_close(gradient, state - net(state), rtol=0, atol=1e-8)
        assert (gradient - (state - update(state, patterns, 1.3001))).abs().max() > 1e-8


def test_separated_patterns_are_retrieved_in_one_update():
    """‖ξ₁ − x_i‖ ≤ 2(M − 1) R exp(−β(Δ_i − 2R‖ξ₀ − x_i‖)); an update at β/4 breaks the bound of β."""
    broken = 0
    for seed in range(DRAWS):
        patterns, beta = randn(seed, 6, 16), 1.5
        net = double(Hopfield, 16, 6, beta=beta)
        net.load_state_dict({"patterns": patterns})
        start = patterns + 0.02 * randn(seed + 1000, 6, 16)
        distance = (start - patterns).norm(dim=-1)
        overlaps = patterns @ patterns.T
        gap = overlaps.diagonal() - (overlaps - torch.diag(torch.full((6,), math.inf))).amax(-1)
        radius = patterns.norm(dim=-1).max()
        bound = 10 * radius * torch.exp(-beta * (gap - 2 * radius * distance))
        assert ((net(start) - patterns).norm(dim=-1) <= bound + 1e-13).all()
        broken += ((update(start, patterns, beta / 4) - patterns).norm(dim=-1) > bound).sum().item()
        near = bound < 0.1
        assert (net(start).detach()[near] @ patterns.T).argmax(-1).tolist() == near.nonzero()[:, 0].tolist()
    assert broken > 20


def test_small_beta_gives_the_mean():
    patterns = randn(0, 6, 4)
    mean = patterns.mean(0).expand(3, 4)
    torch.testing.assert_close(update(randn(1, 3, 4), patterns, 1e-9), mean, rtol=0, atol=1e-7)


def test_hopfield_initial_law():
    patterns = double(Hopfield, 100, 200).patterns
    low, high = stats.chi2(20000).interval(1 - 1e-6)
    assert low <= patterns.square().sum().item() <= high
    assert not low <= 1.1 * patterns.square().sum().item() <= high


# Deep equilibrium.
def unrolled(net, parameters, x, layers=1000):
    """Return the read-out of `layers` repetitions from zero, W solved for and not inverted, autograd through all."""
    v = parameters["recurrent"]
    eye = torch.eye(len(v), dtype=v.dtype)
    matrix = torch.linalg.solve(eye + v.T @ v, 2 * net.contraction * v.T).T
    drive = F.linear(x, parameters["drive.weight"], parameters["drive.bias"])
    z = torch.zeros_like(drive)
    for _ in range(layers):
        z = (z @ matrix.T + drive).tanh()
    return F.linear(z, parameters["readout.weight"], parameters["readout.bias"])


def derivatives(f, parameters, x, order):
    """Return f(x), then the gradient of a scalar of it, the gradient of a scalar of that, and so on, each flat."""
    leaves = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    value = f(leaves, x)
    results, scalar = [value.detach().flatten()], (value * randn(5, *value.shape)).sum()
    for k in range(order):
        slopes = torch.autograd.grad(
            scalar, list(leaves.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        flat = torch.cat([g.flatten() for g in slopes])
        results.append(flat.detach())
        scalar = flat @ randn(6 + k, len(flat))
    return results


def errors(net, x, order=2, layers=1000):
    parameters = dict(net.named_parameters())
    mine = derivatives(lambda p, x: functional_call(net, p, (x,)), parameters, x, order)
    truth = derivatives(lambda p, x: unrolled(net, p, x, layers), parameters, x, order)
    return [relative(a, b) for a, b in zip(mine, truth, strict=True)]


def test_equilibrium_is_the_unrolled_limit():
    for seed in range(DRAWS):
        net, x = double(DeepEquilibrium, 3, 4, 2, seed=seed), randn(seed + 1000, 5, 3)
        assert max(errors(net, x, layers=400)) <= TOLERANCE
        assert errors(net, x, order=0, layers=5)[0] > TOLERANCE  # the limit is not reached in five layers


def test_one_perturbed_weight_breaks_parity():
    for seed in range(DRAWS):
        net, x = double(DeepEquilibrium, 3, 4, 2, seed=seed), randn(seed + 1000, 5, 3)
        truth = derivatives(lambda p, x, net=net: unrolled(net, p, x, 400), dict(net.named_parameters()), x, 1)
        with torch.no_grad():
            net.recurrent.view(-1)[seed % 16] += 1e-6
        mine = derivatives(lambda p, x, net=net: functional_call(net, p, (x,)), dict(net.named_parameters()), x, 1)
        assert all(relative(a, b) > TOLERANCE for a, b in zip(mine, truth, strict=True))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_says_how_many_derivatives_are_exact(order):
    for seed in range(3):
        net, x = double(DeepEquilibrium, 2, 3, 1, order=order, seed=seed), randn(seed + 1000, 4, 2)
        found = errors(net, x, order=min(order + 1, 3), layers=400)
        assert max(found[: order + 1]) <= TOLERANCE
        assert all(error > 1e-4 for error in found[order + 1 :])


def test_equilibrium_against_a_root_finder():
    for seed in range(DRAWS):
        net, x = double(DeepEquilibrium, 3, 4, 2, contraction=0.99, seed=seed), randn(seed + 1000, 1, 3)
        with torch.no_grad():
            matrix, drive, z = net.matrix(), net.drive(x)[0], net.equilibrium(x)[0]
        solve = optimize.root(
            lambda z, matrix=matrix, drive=drive: z - (matrix @ torch.from_numpy(z) + drive).tanh().numpy(),
            torch.zeros(4, dtype=torch.float64).numpy(),
            tol=1e-14,
        )
        assert relative(z, torch.from_numpy(solve.x)) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("contraction", [0.3, 0.9, 0.99])
def test_iterations_suffice_where_the_layer_contracts_least(contraction, dtype):
    """V = I gives W = κI: near z = 0 the error shrinks by κ a layer and no faster; a quarter are too few."""
    net = DeepEquilibrium(4, 4, 1, contraction=contraction, dtype=dtype)
    with torch.no_grad():
        net.recurrent.copy_(torch.eye(4))
        net.drive.weight.copy_(torch.eye(4))
        net.drive.bias.zero_()
    x = torch.tensor([1e-3, -0.05, 0.4, 2.0], dtype=dtype)
    truth = torch.tensor(
        [optimize.brentq(lambda z, d=d: z - math.tanh(contraction * z + d), -1, 1, xtol=1e-16) for d in x.tolist()],
        dtype=torch.float64,
    )
    eps = torch.finfo(dtype).eps
    assert ((net.equilibrium(x).double() - truth).abs() <= 4 * eps / (1 - contraction)).all()
    k = net.iterations(dtype)
    assert contraction**k * 2 <= eps < contraction ** (k - 1) * 2
    z = torch.zeros(4, dtype=torch.float64)
    for _ in range(k // 4):
        z = torch.tanh(contraction * z + x.double())
    assert (z - truth).abs().max() > 10 * eps


def test_the_matrix_contracts_and_every_contraction_is_reached():
    for seed in range(DRAWS):
        net = double(DeepEquilibrium, 3, 6, 2, contraction=0.8, seed=seed)
        with torch.no_grad():
            net.recurrent.mul_(10.0 ** (seed % 5 - 2))
        sigma = torch.linalg.svdvals(net.recurrent)
        mapped = (1.6 * sigma / (1 + sigma**2)).sort(descending=True).values
        torch.testing.assert_close(torch.linalg.svdvals(net.matrix()), mapped, rtol=1e-10, atol=1e-13)
        assert mapped.max() <= 0.8
        u, s, v = torch.linalg.svd(randn(seed, 6, 6))
        s = 0.8 * s / s.max()  # its norm is κ itself
        share = s / 0.8
        with torch.no_grad():
            net.recurrent.copy_(u @ torch.diag((1 - (1 - share**2).clamp_min(0).sqrt()) / share) @ v)
        torch.testing.assert_close(net.matrix(), u @ torch.diag(s) @ v, rtol=0, atol=1e-7)


def test_equilibrium_initial_laws():
    net = double(DeepEquilibrium, 300, 200, 50)
    for weight, variance, kurtosis in (
        (net.recurrent, 1 / 200, 3),
        (net.drive.weight, 1 / 900, 1.8),
        (net.readout.weight, 1 / 600, 1.8),
    ):
        total, count = (weight.square().sum() / variance).item(), weight.numel()
        low, high = stats.norm(count, math.sqrt((kurtosis - 1) * count)).interval(1 - 1e-6)
        assert low <= total <= high and not low <= 1.1 * total <= high
    sigma = torch.linalg.svdvals(net.recurrent)
    assert 1.9 < sigma.max() < 2.1 and sigma.min() < 0.1


@pytest.mark.parametrize("build", [lambda **k: Hopfield(3, 5, **k), lambda **k: DeepEquilibrium(3, 4, 2, **k)])
def test_seed_decides_the_network(build):
    state = torch.get_rng_state()
    nets = [
        build(dtype=dtype, generator=generator(seed))
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    ]
    first, again, other, single = ([p.detach() for p in net.parameters()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert not torch.equal(first[0], other[0]) and torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        assert {p.device.type for p in build().parameters()} == {"meta"}
    assert repr(nets[0])


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Hopfield(0, 5), ["n must", "0"]),
        (lambda: Hopfield(2.0, 5, beta=1.0), ["n must", "2.0"]),
        (lambda: Hopfield(3, 0), ["stored", "0"]),
        (lambda: Hopfield(3, 5, steps=0), ["steps", "at least 1"]),
        (lambda: Hopfield(3, 5, beta=0), ["beta", "positive", "0", "larger"]),
        (lambda: Hopfield(3, 5, beta=math.inf), ["beta", "finite", "inf"]),
        (lambda: Hopfield(3, 5, beta="1"), ["beta", "'1'"]),
        (lambda: Hopfield(3, 5)(torch.zeros(4, 2)), ["(4, 2)", "(..., 3)", "flatten"]),
        (lambda: Hopfield(3, 5).energy(torch.zeros(4, 2)), ["(4, 2)", "(..., 3)"]),
        (lambda: DeepEquilibrium(0, 4, 2), ["n_in", "0"]),
        (lambda: DeepEquilibrium(3, 0, 2), ["width", "0"]),
        (lambda: DeepEquilibrium(3, 4, 0), ["n_out", "0"]),
        (lambda: DeepEquilibrium(3, 4, 2, contraction=1), ["contraction", "between 0 and 1", "0.9"]),
        (lambda: DeepEquilibrium(3, 4, 2, contraction=0.0), ["contraction", "0.0"]),
        (lambda: DeepEquilibrium(3, 4, 2, order=0), ["order", "at least 1"]),
        (lambda: DeepEquilibrium(3, 4, 2, init="kaiming"), ["'kaiming'", "he"]),
        (lambda: DeepEquilibrium(3, 4, 2)(torch.zeros(5, 4)), ["(5, 4)", "n_in=3", "(..., 3)", "flatten"]),
        (lambda: DeepEquilibrium(3, 4, 2)(torch.zeros(())), ["()", "n_in=3"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
