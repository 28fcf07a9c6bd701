"""Diagonal state-space models: their two forms agree, and both are the continuous system under a held input.

Truth: scipy.signal, on the real system of 2N dimensions written here again: `cont2discrete` and `dlsim`, and `lsim`, which
integrates the continuous system; gradients against central differences of scipy's output, not autograd.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal, special, stats

from lemmata.architectures import ArchitectureError
from lemmata.architectures.state_space import S4D, DiagonalSSM

DRAWS = 20
TOLERANCE = 1e-10


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def drawn(seed, features=1, n_state=3):
    """A model with every parameter away from its special initial value."""
    ssm = DiagonalSSM(features, n_state, step=(0.05, 0.5), dtype=torch.float64, generator=generator(seed))
    with torch.no_grad():
        ssm.log_decay += 0.3 * randn(seed + 1, features, n_state)
        ssm.frequency += 0.3 * randn(seed + 2, features, n_state)
    return ssm


def values(ssm, feature=0):
    """One feature's parameters as a flat array: log Δ, log α, ω, Re C, Im C, D."""
    parts = (ssm.log_step, ssm.log_decay, ssm.frequency, ssm.C_re, ssm.C_im, ssm.D)
    return np.concatenate([np.atleast_1d(part.detach()[feature].numpy()) for part in parts])


def system(flat):
    """Return Δ and the real (A, B, C, D) of 2N dimensions: z' = A z + B u is x' = (−α + iω) x + u in (Re x, Im x)."""
    n = (len(flat) - 2) // 4
    alpha, omega, re, im = np.exp(flat[1 : n + 1]), *flat[n + 1 : -1].reshape(3, n)
    a = np.block([[-np.diag(alpha), -np.diag(omega)], [np.diag(omega), -np.diag(alpha)]])
    b = np.concatenate([np.ones(n), np.zeros(n)])[:, None]
    c = 2 * np.concatenate([re, -im])[None]  # 2 Re (C x)
    return math.exp(flat[0]), a, b, c, flat[-1:, None]


def discrete(flat, u, method="zoh"):
    """Simulate by scipy: dlsim's state is the one before the input of its step, ours the one after it."""
    dt, a, b, c, d = system(flat)
    discretised = signal.cont2discrete((a, b, c, 0 * d), dt, method=method)
    _, y, _ = signal.dlsim(discretised, np.append(u, 0.0))
    return y[1:, 0] + d[0, 0] * u


def continuous(flat, u):
    """Integrate the continuous system by scipy, the input held for a step; the output at each step's end."""
    dt, a, b, c, d = system(flat)
    times = dt * np.arange(len(u) + 1)
    _, y, _ = signal.lsim((a, b, c, 0 * d), np.append(u, 0.0), times, interp=False)
    return y[1:] + d[0, 0] * u


def error(value, truth):
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("form", ["convolution", "recurrence"])
@pytest.mark.parametrize("simulate", [discrete, continuous])
def test_equals_scipy(form, simulate):
    for seed in range(DRAWS):
        ssm, u = drawn(seed), randn(seed + 100, 1, 30, 1)
        truth = simulate(values(ssm), u.flatten().numpy())
        assert error(getattr(ssm, form)(u).flatten(), truth) <= TOLERANCE
        with torch.no_grad():
            list(ssm.parameters())[seed % 6].view(-1)[0] += 1e-6
        assert error(getattr(ssm, form)(u).flatten(), truth) > TOLERANCE


def test_another_discretisation_is_rejected():
    ssm, u = drawn(0), randn(1, 1, 30, 1)
    for method in ("bilinear", "euler", "backward_diff"):
        assert error(ssm(u).flatten(), discrete(values(ssm), u.flatten().numpy(), method)) > 1e-3


@pytest.mark.parametrize("form", ["convolution", "recurrence"])
def test_gradients_equal_differences_of_scipy(form):
    def slopes(flat, u, probe, step=1e-3):
        def central(size):
            rows = size * np.eye(len(flat))
            return np.array([probe @ (discrete(flat + e, u) - discrete(flat - e, u)) / (2 * size) for e in rows])

        return (4 * central(step) - central(2 * step)) / 3

    for seed in range(DRAWS):
        ssm, u, probe = drawn(seed, n_state=2), randn(seed + 100, 1, 12, 1), randn(seed + 200, 12)
        (getattr(ssm, form)(u).flatten() @ probe).backward()
        ours = torch.cat([p.grad.flatten() for p in ssm.parameters()])
        truth = slopes(values(ssm), u.flatten().numpy(), probe.numpy())
        assert error(ours, truth) <= 1e-8
        ours[seed % len(ours)] += 1e-6 * ours.norm()
        assert error(ours, truth) > 1e-8


def test_features_are_separate_systems():
    ssm, u = drawn(0, features=4), randn(1, 5, 30, 4)
    for example in range(5):
        for feature in range(4):
            truth = discrete(values(ssm, feature), u[example, :, feature].numpy())
            assert error(ssm(u)[example, :, feature], truth) <= TOLERANCE


def test_whole_network_equals_numpy_and_scipy():
    for seed in range(3):
        net = S4D(2, 4, 3, n_state=3, step=(0.05, 0.5), dtype=torch.float64, generator=generator(seed))
        x = randn(seed + 100, 1, 20, 2)
        u = x[0].numpy() @ net.encoder.weight.detach().numpy().T + net.encoder.bias.detach().numpy()
        y = np.stack([discrete(values(net.ssm, j), u[:, j]) for j in range(4)], axis=1)
        states = y * special.ndtr(y)  # gelu
        truth = states @ net.readout.weight.detach().numpy().T + net.readout.bias.detach().numpy()
        assert error(net.states(x)[0], states) <= TOLERANCE and error(net(x)[0], truth) <= TOLERANCE


@pytest.mark.parametrize(("n_state", "length"), [(1, 1), (2, 2), (3, 17), (16, 512)])
def test_two_forms_agree(n_state, length):
    """Outputs and gradients, at the paper's own initial values; a convolution that wraps around does not."""
    ssm = DiagonalSSM(3, n_state, dtype=torch.float64, generator=generator(0))
    u, probe = randn(1, 2, length, 3), randn(2, 2, length, 3)
    results = []
    for form in (ssm.convolution, ssm.recurrence):
        ssm.zero_grad()
        y = form(u)
        (y * probe).sum().backward()
        results.append([y.detach(), *(p.grad for p in ssm.parameters())])
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 1e-12 * b.norm()
    wrapped = torch.fft.irfft(torch.fft.rfft(u, dim=1) * torch.fft.rfft(ssm.kernel(length)).T, n=length, dim=1)
    assert length == 1 or (wrapped + ssm.D * u - ssm(u)).norm() > 1e-2 * ssm(u).norm()


def test_kernel_is_the_response_to_an_impulse():
    ssm = drawn(0, features=2)
    impulse = torch.zeros(1, 9, 2, dtype=torch.float64)
    impulse[:, 0] = 1
    without_skip = ssm(impulse)[0] - ssm.D * impulse[0]
    torch.testing.assert_close(without_skip, ssm.kernel(9).T, rtol=0, atol=1e-14)


def test_linear_and_invariant_to_delays():
    ssm, u, w = drawn(0, features=2), randn(1, 3, 20, 2), randn(2, 3, 20, 2)
    delayed = torch.cat([u.new_zeros(3, 4, 2), u[:, :16]], dim=1)
    torch.testing.assert_close(ssm(2 * u - w), 2 * ssm(u) - ssm(w), rtol=0, atol=1e-13)
    torch.testing.assert_close(ssm(delayed)[:, 4:], ssm(u)[:, :16], rtol=0, atol=1e-13)
    assert ssm(delayed)[:, :4].abs().max() <= 1e-13
    net = S4D(2, 3, dtype=torch.float64, generator=generator(0))  # the activation ends linearity
    assert (net(2 * u - w) - 2 * net(u) + net(w)).norm() > 1e-2


def test_small_steps_lose_no_digits_in_float32():
    """Ā − 1 is computed without cancellation: the difference of exponentials would lose three digits at Δ = 1e-4."""
    exact = DiagonalSSM(2, 4, step=(1e-4, 1e-4), dtype=torch.float64, generator=generator(0))
    single = DiagonalSSM(2, 4, step=(1e-4, 1e-4), dtype=torch.float32, generator=generator(0))
    exact.load_state_dict(single.state_dict())
    truth = exact.kernel(8)
    assert (single.kernel(8) - truth).norm() <= 1e-6 * truth.norm()
    a = torch.complex(-single.log_decay.exp(), single.frequency)
    bar = (single.log_step.exp()[:, None] * a).exp()
    naive = 2 * (torch.complex(single.C_re, single.C_im) * (bar - 1) / a).sum(1).real
    assert (naive - truth[:, 0]).norm() > 1e-5 * truth[:, 0].norm()


# Initialisation.
def test_initial_values():
    H, N = 400, 5
    ssm = DiagonalSSM(H, N, dtype=torch.float64, generator=generator(0))
    assert torch.allclose(ssm.log_decay.exp(), torch.full((H, N), 0.5).double(), rtol=1e-15)
    assert ssm.frequency[7].tolist() == pytest.approx([0, math.pi, 2 * math.pi, 3 * math.pi, 4 * math.pi])
    log_step = ssm.log_step.detach().numpy()
    uniform = stats.uniform(math.log(1e-3), math.log(100))
    assert stats.kstest(log_step, uniform.cdf).pvalue > 1e-6
    assert stats.kstest(np.exp(log_step), stats.uniform(1e-3, 0.1 - 1e-3).cdf).pvalue < 1e-6
    for parameter, variance in ((ssm.C_re, 0.5), (ssm.C_im, 0.5), (ssm.D, 1.0)):
        low, high = stats.chi2(parameter.numel()).interval(1 - 1e-6)
        total = parameter.square().sum().item()
        assert low <= total / variance <= high
        assert not low <= total / (2 * variance) <= high and not low <= 2 * total / variance <= high
    inverse = DiagonalSSM(1, N, modes="inv", dtype=torch.float64, generator=generator(0))
    size = 2 * N  # the paper counts the real dimensions
    assert inverse.frequency[0].tolist() == pytest.approx([size / math.pi * (size / (2 * n + 1) - 1) for n in range(N)])


def test_seed_decides_the_network():
    state = torch.get_rng_state()
    first, again, other, single = (
        [p.detach() for p in S4D(2, 3, 4, dtype=dtype, generator=generator(seed)).parameters()]
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        assert {p.device.type for p in S4D(2, 3, 4).parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: DiagonalSSM(0), ["features", "at least 1"]),
        (lambda: DiagonalSSM(2, 0), ["n_state", "at least 1"]),
        (lambda: DiagonalSSM(2, modes="line"), ["modes='line'", "did you mean 'lin'", "inv"]),
        (lambda: DiagonalSSM(2, step=(0.1, 0.01)), ["step=(0.1, 0.01)", "two positive numbers", "(0.001, 0.1)"]),
        (lambda: DiagonalSSM(2, step=(0.0, 0.1)), ["step=(0.0, 0.1)", "positive"]),
        (lambda: DiagonalSSM(2, step=0.1), ["step=0.1", "two positive numbers"]),
        (lambda: DiagonalSSM(2)(torch.zeros(5, 2)), ["(5, 2)", "(batch, time, 2)"]),
        (lambda: DiagonalSSM(2).recurrence(torch.zeros(5, 4, 3)), ["(5, 4, 3)", "(batch, time, 2)"]),
        (lambda: S4D(0, 2), ["n_in", "at least 1"]),
        (lambda: S4D(2, 0), ["n_hidden", "at least 1"]),
        (lambda: S4D(2, 3, 0), ["n_out", "at least 1"]),
        (lambda: S4D(2, 3, activation="glu"), ["'glu'", "did you mean 'gelu'"]),
        (lambda: S4D(2, 3, init="kaiming"), ["'kaiming'", "lecun"]),
        (lambda: S4D(2, 3)(torch.zeros(5, 0, 2)), ["(5, 0, 2)", "at least one time"]),
        (lambda: S4D(1, 3)(torch.zeros(5, 40)), ["(5, 40)", "unsqueeze(-1)"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
