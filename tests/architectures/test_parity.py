"""The architectures equal torch's own layers given the same weights, and their initial weights follow the stated laws.

Truth: torch.nn's Linear, Conv2d (with its own padding) and Sequential; for the laws, the variances written here again
and the χ² distribution of a Gaussian sample variance (exact), or its normal limit with the uniform's kurtosis.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scipy import stats
from torch import nn

from lemmata.architectures import CNN, MLP, ArchitectureError, DeepLinear, Law, SignalCNN

TOLERANCE = (
    1e-10  # relative, float64: a thousand times the rounding of these nets, a ten-thousandth of the planted 1e-6
)
DRAWS = 20
ACTIVATIONS = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


class Means(nn.Module):
    def forward(self, x):
        return x.mean((-2, -1))


def mlp_pair(activation, seed):
    ours = MLP([4, 6, 5, 3], activation=activation, dtype=torch.float64, generator=generator(seed))
    phi = ACTIVATIONS[activation]
    peer = nn.Sequential(nn.Linear(4, 6), phi(), nn.Linear(6, 5), phi(), nn.Linear(5, 3)).double()
    names = {f"layers.{i}.{kind}": f"{2 * i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    return ours, peer, names, randn(seed + 1000, 7, 4)


def deep_linear_pair(seed):
    ours = DeepLinear([4, 6, 5, 3], dtype=torch.float64, generator=generator(seed))
    peer = nn.Sequential(*(nn.Linear(n, m, bias=False) for n, m in ((4, 6), (6, 5), (5, 3)))).double()
    names = {f"layers.{i}.weight": f"{i}.weight" for i in range(3)}
    return ours, peer, names, randn(seed + 1000, 7, 4)


def cnn_pair(padding, seed, stride=1, kernel=3):
    settings = {"padding": padding, "stride": stride, "kernel": kernel}
    ours = CNN([2, 4, 3], 5, dtype=torch.float64, generator=generator(seed), **settings)
    own = {"padding": kernel // 2, "padding_mode": padding, "stride": stride}
    peer = nn.Sequential(
        nn.Conv2d(2, 4, kernel, **own), nn.Tanh(), nn.Conv2d(4, 3, kernel, **own), nn.Tanh(), Means(), nn.Linear(3, 5)
    ).double()
    names = {f"layers.{i}.{kind}": f"{2 * i}.{kind}" for i in range(2) for kind in ("weight", "bias")}
    names |= {f"readout.{kind}": f"5.{kind}" for kind in ("weight", "bias")}
    return ours, peer, names, randn(seed + 1000, 3, 2, 8, 6)


def signal_cnn_pair(seed):
    """The network of Greydanus & Kobak, as torch.nn builds it."""
    ours = SignalCNN([1, 4, 4, 4], 40, 10, kernels=(5, 3, 3), stride=2, dtype=torch.float64, generator=generator(seed))
    sizes = ((1, 5), (4, 3), (4, 3))
    layers = [one for c, k in sizes for one in (nn.Conv1d(c, 4, k, stride=2, padding=1), nn.ReLU())]
    peer = nn.Sequential(*layers, nn.Flatten(), nn.Linear(20, 10)).double()
    names = {f"layers.{i}.{kind}": f"{2 * i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    names |= {f"readout.{kind}": f"7.{kind}" for kind in ("weight", "bias")}
    return ours, peer, names, randn(seed + 1000, 3, 1, 40)


PAIRS = {
    **{f"MLP {phi}": (lambda seed, phi=phi: mlp_pair(phi, seed)) for phi in ACTIVATIONS},
    "DeepLinear": deep_linear_pair,
    "SignalCNN": signal_cnn_pair,
    "CNN circular": lambda seed: cnn_pair("circular", seed),
    "CNN zeros": lambda seed: cnn_pair("zeros", seed),
    "CNN circular, stride 2, kernel 5": lambda seed: cnn_pair("circular", seed, stride=2, kernel=5),
    "CNN zeros, stride 2, kernel 5": lambda seed: cnn_pair("zeros", seed, stride=2, kernel=5),
}


def copy_by_name(ours, peer, names):
    named, theirs = dict(ours.named_parameters()), dict(peer.named_parameters())
    assert set(names) == set(named) and set(names.values()) == set(theirs)
    with torch.no_grad():
        for mine, their in names.items():
            assert named[mine].abs().min() > 0
            theirs[their].copy_(named[mine])


def parity_error(ours, peer, names, inputs):
    """Return the largest relative difference of the output and of every parameter's gradient."""
    probe = randn(5, *ours(inputs).shape)
    for net in (ours, peer):
        net.zero_grad()
        (net(inputs) * probe).sum().backward()
    theirs = dict(peer.named_parameters())
    pairs = [(ours(inputs), peer(inputs))]
    pairs += [(p.grad, theirs[names[name]].grad) for name, p in ours.named_parameters()]
    errors = [(a - b).norm() / b.norm() for a, b in pairs]
    return torch.stack(errors).max().item()  # NaN if one is, which Python's max would pass over


@pytest.mark.parametrize("name", PAIRS)
def test_parity(name):
    for seed in range(DRAWS):
        ours, peer, names, inputs = PAIRS[name](seed)
        copy_by_name(ours, peer, names)
        assert parity_error(ours, peer, names, inputs) <= TOLERANCE


@pytest.mark.parametrize("name", PAIRS)
def test_one_perturbed_weight_breaks_parity(name):
    for seed in range(DRAWS):
        ours, peer, names, inputs = PAIRS[name](seed)
        copy_by_name(ours, peer, names)
        assert parity_error(ours, peer, names, inputs) <= TOLERANCE  # leaves the gradients behind
        weight = ours.layers[0].weight
        seen = weight.grad.view(-1).nonzero().view(-1)  # a dead ReLU unit's weights do nothing
        with torch.no_grad():
            weight.view(-1)[seen[seed % len(seen)]] += 1e-6
        assert parity_error(ours, peer, names, inputs) > TOLERANCE


def test_even_kernel_pads_like_torch_same():
    ours = CNN([2, 4], 3, kernel=4, padding="zeros", dtype=torch.float64, generator=generator(0))
    peer = nn.Conv2d(2, 4, 4, padding="same").double()
    peer.load_state_dict(ours.layers[0].state_dict())
    x = randn(1, 3, 2, 8, 6)
    with pytest.warns(UserWarning, match="even kernel"):
        expected = peer(x).tanh()
    torch.testing.assert_close(ours.features(x), expected, rtol=0, atol=1e-14)


# Initialisation: `MLP([300, 200])` and `CNN([12, 20], kernel=5)`, whose fan-ins are both 300.
BIG = {
    "MLP": (lambda **k: MLP([300, 200], dtype=torch.float64, **k).layers[0], 300, 200),
    "CNN": (lambda **k: CNN([12, 20], 2, kernel=5, dtype=torch.float64, **k).layers[0], 300, 500),
}
VARIANCES = {
    "he": lambda n, m: 2 / n,
    "lecun": lambda n, m: 1 / n,
    "glorot": lambda n, m: 2 / (n + m),
    "default": lambda n, m: 1 / (3 * n),
}


def follows(sample, variance, kurtosis):
    """Return whether Σx²/variance lies in its central 1 − 1e-6 interval: χ² if Gaussian, else its normal limit."""
    total, count = (sample.double().square().sum() / variance).item(), sample.numel()
    if kurtosis == 3:
        low, high = stats.chi2(count).interval(1 - 1e-6)
    else:
        low, high = stats.norm(count, math.sqrt((kurtosis - 1) * count)).interval(1 - 1e-6)
    return low <= total <= high


@pytest.mark.parametrize("init", VARIANCES)
@pytest.mark.parametrize("family", BIG)
def test_initial_variance(family, init):
    build, n, m = BIG[family]
    kurtosis = 1.8 if init == "default" else 3
    layer = build(init=init, generator=generator(0))
    variance = VARIANCES[init](n, m)
    assert follows(layer.weight, variance, kurtosis)
    assert not follows(layer.weight, 1.2 * variance, kurtosis) and not follows(layer.weight, variance / 1.2, kurtosis)
    if init == "default":
        assert layer.weight.abs().max() <= 1 / math.sqrt(n)
        assert layer.bias.abs().max() <= 1 / math.sqrt(n) and layer.bias.abs().min() > 0
    else:
        assert torch.count_nonzero(layer.bias) == 0


def test_default_is_torchs_own_law():
    """The stated law of `"default"` also holds for nn.Linear as torch itself initialises it."""
    layer = nn.Linear(300, 200, dtype=torch.float64)
    assert follows(layer.weight, VARIANCES["default"](300, 200), 1.8)


@pytest.mark.parametrize("widths", [[6, 6], [9, 4], [4, 9]])
def test_orthogonal(widths):
    weight = MLP(widths, init="orthogonal", dtype=torch.float64, generator=generator(0)).layers[0].weight.detach()
    gram = weight @ weight.T if widths[0] >= widths[1] else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(min(widths), dtype=torch.float64), rtol=0, atol=1e-14)
    gaussian = MLP(widths, init="lecun", dtype=torch.float64, generator=generator(0)).layers[0].weight.detach()
    assert (gaussian @ gaussian.T - torch.eye(widths[1])).abs().max() > 0.1


def test_orthogonal_is_uniform_on_the_group():
    """On O(3) E (tr Q)² = 1; QR without the signs of R's diagonal is far from it (its trace leans to one side)."""
    g = generator(0)
    traces = torch.tensor(
        [DeepLinear([3, 3], init="orthogonal", generator=g).layers[0].weight.trace().item() for _ in range(2000)]
    )
    assert abs(traces.mean()) < 5 / math.sqrt(2000)
    assert abs(traces.square().mean() - 1) < 5 * math.sqrt(2 / 2000)  # Var (tr Q)² = 3 − 1
    plain = torch.stack([torch.linalg.qr(torch.randn(3, 3, generator=g))[0].trace() for _ in range(2000)])
    assert abs(plain.mean()) > 5 / math.sqrt(2000)


def test_own_law():
    law = Law("mean field", lambda n, m: 1.5**2 / n, lambda n, m: 0.3**2)
    layer = BIG["MLP"][0](init=law, generator=generator(0))
    assert follows(layer.weight, 2.25 / 300, 3) and follows(layer.bias, 0.09, 3)
    assert not follows(layer.bias, 4 * 0.09, 3) and not follows(layer.bias, 0.09 / 4, 3)


@pytest.mark.parametrize("init", [*VARIANCES, "orthogonal"])
def test_seed_decides_the_network(init):
    state = torch.get_rng_state()
    nets = [
        CNN([2, 3, 3], 4, init=init, dtype=dtype, generator=generator(seed))
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    ]
    first, again, other, single = ([p.detach() for p in net.parameters()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(3)
    a = MLP([2, 2]).layers[0].weight
    torch.manual_seed(3)
    assert torch.equal(a, MLP([2, 2]).layers[0].weight) and a.dtype == torch.get_default_dtype()
    torch.set_rng_state(state)


def test_own_activation_and_copies():
    net = MLP([2, 3, 1], activation=lambda z: z**2, dtype=torch.float64, generator=generator(0))
    x = randn(1, 4, 2)
    by_hand = (net.layers[0].weight @ x.T + net.layers[0].bias[:, None]) ** 2
    expected = (net.layers[1].weight @ by_hand + net.layers[1].bias[:, None]).T
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(copy.deepcopy(net)(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: MLP([3, 2], activation="tahn"), ["'tahn'", "tanh", "relu", "own function"]),
        (lambda: MLP([3, 2], activation=3), ["activation", "int"]),
        (lambda: MLP([3, 2], init="kaiming"), ["'kaiming'", "he", "orthogonal", "Law"]),
        (lambda: MLP([3]), ["widths=[3]", "at least 2"]),
        (lambda: MLP(3), ["widths", "list", "3"]),
        (lambda: MLP([3, 0, 2]), ["widths[1]", "at least 1", "0"]),
        (lambda: MLP([3, 2.0]), ["widths[1]", "integer", "2.0"]),
        (lambda: DeepLinear([4]), ["widths=[4]", "at least 2"]),
        (lambda: DeepLinear([4, -1]), ["widths[1]", "-1"]),
        (lambda: CNN([1, 2], 3, padding="reflect"), ["'reflect'", "circular", "zeros"]),
        (lambda: CNN([1], 3), ["channels=[1]", "at least 2"]),
        (lambda: CNN([1, 2], 0), ["classes", "0"]),
        (lambda: CNN([1, 2], 3, kernel=0), ["kernel", "0"]),
        (lambda: CNN([1, 2], 3, stride=0), ["stride", "0"]),
        (lambda: SignalCNN([1, 2], 8, 3, kernels=(3, 3)), ["kernels=[3, 3]", "1 layers"]),
        (lambda: SignalCNN([1, 2, 2], 4, 3, kernels=(5, 5), stride=2), ["kernel 5", "length=4"]),
        (lambda: SignalCNN([1, 2], 8, 3, kernels=(3,))(torch.zeros(5, 8)), ["(5, 8)", "unsqueeze"]),
        (lambda: MLP([3, 2])(torch.zeros(5, 4)), ["(5, 4)", "widths[0]=3", "flatten"]),
        (lambda: DeepLinear([3, 2])(torch.zeros(5, 4)), ["(5, 4)", "widths[0]=3"]),
        (lambda: CNN([1, 2], 3)(torch.zeros(1, 8, 8)), ["(1, 8, 8)", "channels[0]=1", "height"]),
        (lambda: CNN([1, 2], 3, kernel=9)(torch.zeros(1, 1, 3, 3)), ["kernel=9", "3×3"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    assert isinstance(caught.value, ValueError)
    for words in told:
        assert words in str(caught.value)
