"""Attention, positions and layer normalisation equal torch's own and their closed forms.

Truth: `nn.MultiheadAttention`, `scaled_dot_product_attention` and `nn.LayerNorm` (values and first derivatives, which
are right); for linear attention the sum over keys and the recurrence over time, written out; for positions the sines of
the paper in Python's own arithmetic, and complex multiplication.
"""

from __future__ import annotations

import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lemmata.architectures import ArchitectureError, Law
from lemmata.architectures.attention import MultiHeadAttention, attend, linear_attention
from lemmata.architectures.norms import LayerNorm
from lemmata.architectures.positions import Positions, rotate, sinusoidal

TOLERANCE = 1e-10
DRAWS = 20
LIVELY = Law("lively", lambda n, m: 1 / n, lambda n, m: 0.25)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def relative(a, b):
    return ((a - b).norm() / b.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


def masks(seed):
    """Draw a random mask (t, s) = (5, 7) in which every query sees a key."""
    mask = torch.rand(5, 7, generator=generator(seed)) < 0.5
    mask[torch.arange(5), torch.arange(5)] = True
    return mask


# Softmax attention


@pytest.mark.parametrize("masked", [False, True])
def test_attend_is_scaled_dot_product_attention(masked):
    for seed in range(DRAWS):
        mask = masks(seed) if masked else None
        inputs = [randn(3 * seed + i, 2, 3, n, d) for i, (n, d) in enumerate(((5, 4), (7, 4), (7, 6)))]
        results = []
        for f in (attend, F.scaled_dot_product_attention):
            leaves = [x.clone().requires_grad_() for x in inputs]
            y = f(*leaves, mask)
            (y * randn(5, *y.shape)).sum().backward()
            results.append([y.detach(), *(x.grad for x in leaves)])
        assert max(relative(a, b) for a, b in zip(*results, strict=True)) <= TOLERANCE
        inputs[1][0, 0, 0, 0] += 1e-6
        assert relative(attend(*inputs, mask), results[1][0]) > TOLERANCE


def pair(seed):
    """Make our attention and torch's, with its stacked in_proj, of the same weights."""
    ours = MultiHeadAttention(6, 3, init=LIVELY, dtype=torch.float64, generator=generator(seed))
    peer = nn.MultiheadAttention(6, 3, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([ours.W_q.weight, ours.W_k.weight, ours.W_v.weight]))
        peer.in_proj_bias.copy_(torch.cat([ours.W_q.bias, ours.W_k.bias, ours.W_v.bias]))
        peer.out_proj.load_state_dict(ours.W_o.state_dict())
    assert all(p.abs().min() > 0 for p in peer.parameters())
    return ours, peer


def multihead_error(ours, peer, inputs, mask):
    """Compare outputs and all gradients; W_k's bias has none (it adds the same to all scores of a query)."""
    for net in (ours, peer):
        net.zero_grad()
    y = ours(*inputs, mask)
    z, _ = peer(*inputs, attn_mask=None if mask is None else ~mask)
    probe = randn(5, *y.shape)
    (y * probe).sum().backward()
    (z * probe).sum().backward()
    weights, biases = peer.in_proj_weight.grad.chunk(3), peer.in_proj_bias.grad.chunk(3)
    pairs = [(y, z), (ours.W_o.weight.grad, peer.out_proj.weight.grad), (ours.W_o.bias.grad, peer.out_proj.bias.grad)]
    pairs += [(ours.get_submodule(name).weight.grad, w) for name, w in zip(("W_q", "W_k", "W_v"), weights, strict=True)]
    pairs += [(ours.W_q.bias.grad, biases[0]), (ours.W_v.bias.grad, biases[2])]
    vanishing = (ours.W_k.bias.grad - biases[1]).norm().item() / weights[1].norm().item()
    return max(vanishing, *(relative(a, b) for a, b in pairs))


@pytest.mark.parametrize("masked", [False, True])
def test_multihead_is_torchs(masked):
    for seed in range(DRAWS):
        ours, peer = pair(seed)
        inputs = (randn(seed, 2, 5, 6), randn(seed + 100, 2, 7, 6), randn(seed + 200, 2, 7, 6))
        mask = masks(seed) if masked else None
        assert multihead_error(ours, peer, inputs, mask) <= TOLERANCE
        with torch.no_grad():
            list(ours.children())[seed % 4].weight[seed % 6, 0] += 1e-6
        assert multihead_error(ours, peer, inputs, mask) > TOLERANCE


def test_causal_and_batched_masks():
    ours, _ = pair(0)
    causal = MultiHeadAttention(6, 3, causal=True, init=LIVELY, dtype=torch.float64, generator=generator(0))
    x, past = randn(1, 2, 5, 6), torch.ones(5, 5, dtype=torch.bool).tril()
    assert torch.equal(causal(x, x, x), ours(x, x, x, past))
    assert not torch.allclose(causal(x, x, x), ours(x, x, x))
    real = torch.tensor([[True] * 5, [True, True, True, False, False]])
    padded = ours(x, x, x, real.unsqueeze(1))  # (b 1 s)
    short = x[1:, :3]
    torch.testing.assert_close(padded[:1], ours(x[:1], x[:1], x[:1]), rtol=0, atol=1e-14)
    torch.testing.assert_close(padded[1:, :3], ours(short, short, short), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        causal(x, x, x, real.unsqueeze(1))[1:, :3], causal(short, short, short), rtol=0, atol=1e-14
    )


# Linear attention


def phi(x):
    return F.elu(x) + 1


def kernel_sum(q, k, v, causal):
    """Write the two sums out, key by key."""
    rows = []
    for t in range(q.shape[-2]):
        top, bottom = 0, 0
        for s in range(t + 1 if causal else k.shape[-2]):
            weight = (phi(q[..., t, :]) * phi(k[..., s, :])).sum(-1, keepdim=True)
            top, bottom = top + weight * v[..., s, :], bottom + weight
        rows.append(top / bottom)
    return torch.stack(rows, -2)


def recurrence(q, k, v, causal):
    """Walk through time with a state (S, z), as a recurrent network."""
    assert causal
    S, z, rows = 0, 0, []
    for q_t, k_t, v_t in zip(q.unbind(-2), k.unbind(-2), v.unbind(-2), strict=True):
        S = S + torch.einsum("...e,...d->...ed", v_t, phi(k_t))
        z = z + phi(k_t)
        rows.append(torch.einsum("...ed,...d->...e", S, phi(q_t)) / (z * phi(q_t)).sum(-1, keepdim=True))
    return torch.stack(rows, -2)


@pytest.mark.parametrize(("truth", "causal"), [(kernel_sum, False), (kernel_sum, True), (recurrence, True)])
def test_linear_attention(truth, causal):
    for seed in range(DRAWS):
        s = 5 if causal else 7
        inputs = [randn(3 * seed + i, 2, n, d) for i, (n, d) in enumerate(((5, 4), (s, 4), (s, 6)))]
        results = []
        for f in (linear_attention, truth):
            leaves = [x.clone().requires_grad_() for x in inputs]
            y = f(*leaves, causal)
            (y * randn(5, *y.shape)).sum().backward()
            results.append([y.detach(), *(x.grad for x in leaves)])
        assert max(relative(a, b) for a, b in zip(*results, strict=True)) <= TOLERANCE
        inputs[1][0, 0, 0] += 1e-6
        assert relative(linear_attention(*inputs, causal), results[1][0]) > TOLERANCE


def test_linear_multihead_is_linear_attention_of_each_head():
    for causal in (False, True):
        net = MultiHeadAttention(6, 3, "linear", causal, init=LIVELY, dtype=torch.float64, generator=generator(0))
        x = randn(1, 2, 5, 6)
        heads = [
            kernel_sum(*(part(x)[..., 2 * i : 2 * i + 2] for part in (net.W_q, net.W_k, net.W_v)), causal)
            for i in range(3)
        ]
        torch.testing.assert_close(net(x, x, x), net.W_o(torch.cat(heads, -1)), rtol=0, atol=1e-13)
        softmax = MultiHeadAttention(6, 3, "softmax", causal, init=LIVELY, dtype=torch.float64, generator=generator(0))
        assert relative(softmax(x, x, x), net(x, x, x)) > 1e-3


# Positions


def test_sinusoidal_is_the_papers():
    for width in (6, 7):
        table = sinusoidal(50, width, torch.zeros(1, dtype=torch.float64))
        for p in (0, 1, 7, 49):
            for j in range(width):
                angle = p / 10000 ** (2 * (j // 2) / width)
                assert table[p, j].item() == pytest.approx((math.cos if j % 2 else math.sin)(angle), abs=1e-13)
    near = sinusoidal(50, 6, torch.zeros(1, dtype=torch.float32))
    assert torch.equal(near, sinusoidal(50, 6, torch.zeros(1, dtype=torch.float64)).float())


def test_rotation_is_complex_multiplication():
    x = randn(0, 3, 9, 6)
    y = rotate(x)
    for p in range(9):
        for i in range(3):
            turned = complex(*x[1, p, 2 * i : 2 * i + 2].tolist()) * cmath.exp(1j * p * 10000 ** (-2 * i / 6))
            assert complex(*y[1, p, 2 * i : 2 * i + 2].tolist()) == pytest.approx(turned, abs=1e-14)


def test_rotary_products_depend_on_distance_alone():
    """⟨R_m q, R_n k⟩ is constant along diagonals m − n; for vectors that are added it is not."""
    for seed in range(DRAWS):
        q, k = randn(seed, 1, 6).expand(8, 6), randn(seed + 100, 1, 6).expand(8, 6)
        turned, added = rotate(q) @ rotate(k).T, (q + sinusoidal(8, 6, q)) @ (k + sinusoidal(8, 6, k)).T

        def spread(products):
            return max((products.diagonal(i) - products.diagonal(i)[0]).abs().max().item() for i in range(-7, 8))

        assert spread(turned) <= 1e-13 * q.norm() * k.norm() and spread(added) > 1e-3
        assert turned[0, 0].item() == pytest.approx((q[0] @ k[0]).item(), abs=1e-13)


def test_rotary_attention_does_not_see_a_common_shift():
    """Prepending tokens no query may look at shifts all positions: rotary attention stays, learned positions do not."""
    net = MultiHeadAttention(8, 2, rotary=True, init=LIVELY, dtype=torch.float64, generator=generator(0))
    plain = MultiHeadAttention(8, 2, init=LIVELY, dtype=torch.float64, generator=generator(0))
    x = randn(1, 2, 8, 8)
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[3:, :3] = False
    tail = x[:, 3:]
    torch.testing.assert_close(net(x, x, x, mask)[:, 3:], net(tail, tail, tail), rtol=0, atol=1e-13)
    assert relative(net(tail, tail, tail), plain(tail, tail, tail)) > 1e-3
    reversed_ = tail.flip(1)
    assert relative(net(reversed_, reversed_, reversed_), net(tail, tail, tail).flip(1)) > 1e-3


# Layer normalisation


def test_layer_norm_is_torchs():
    for seed in range(DRAWS):
        ours, peer = LayerNorm(6, dtype=torch.float64), nn.LayerNorm(6, dtype=torch.float64)
        with torch.no_grad():
            ours.gain.copy_(randn(seed, 6))
            ours.bias.copy_(randn(seed + 100, 6))
            peer.weight.copy_(ours.gain)
            peer.bias.copy_(ours.bias)
        x, results = randn(seed + 200, 4, 5, 6), []
        for net in (ours, peer):
            leaf = x.clone().requires_grad_()
            y = net(leaf)
            (y * randn(5, *y.shape)).sum().backward()
            results.append([y.detach(), leaf.grad, *(p.grad for p in net.parameters())])
        assert max(relative(a, b) for a, b in zip(*results, strict=True)) <= TOLERANCE
        with torch.no_grad():
            ours.gain[0] += 1e-6
        assert relative(ours(x), results[1][0]) > TOLERANCE


# Initialisation, seeds and errors


def test_initial_variances():
    net = MultiHeadAttention(80, 4, dtype=torch.float64, generator=generator(0))
    for layer in (net.W_q, net.W_k, net.W_v, net.W_o):
        low, high = (bound / 80 / 6400 for bound in stats.chi2(6400).interval(1 - 1e-6))
        assert low <= layer.weight.square().mean() <= high < 1.2 / 80
        assert torch.count_nonzero(layer.bias) == 0
    quiet = MultiHeadAttention(80, 4, out_init=Law("", lambda n, m: 1e-4), dtype=torch.float64, generator=generator(0))
    assert torch.equal(quiet.W_v.weight, net.W_v.weight)
    assert quiet.W_o.weight.square().mean().item() == pytest.approx(1e-4, rel=0.1)
    table = Positions("learned", 80, 80, Maker64(1)).table
    assert table.square().mean().item() == pytest.approx(0.02**2, rel=0.1)


def Maker64(seed):
    from lemmata.architectures._pieces import Maker

    return Maker(torch.float64, None, generator(seed))


def test_seed_decides_the_network():
    state = torch.get_rng_state()
    first, again, other = (MultiHeadAttention(6, 3, dtype=torch.float64, generator=generator(s)) for s in (1, 1, 2))
    single = MultiHeadAttention(6, 3, dtype=torch.float32, generator=generator(1))
    assert torch.equal(first.W_o.weight, again.W_o.weight) and not torch.equal(first.W_o.weight, other.W_o.weight)
    assert torch.equal(first.W_o.weight.float(), single.W_o.weight)
    assert torch.equal(state, torch.get_rng_state())


def fed(*shapes, mask=None, **settings):
    return MultiHeadAttention(4, 2, **settings)(*(torch.zeros(shape) for shape in shapes), mask)


Q, K = (2, 3, 4), (2, 5, 4)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: MultiHeadAttention(5, 2), ["heads=2", "width=5", "divide"]),
        (lambda: MultiHeadAttention(0, 2), ["width", "at least 1"]),
        (lambda: MultiHeadAttention(4, 0), ["heads", "at least 1"]),
        (lambda: MultiHeadAttention(4, 2, kind="sofmax"), ["'sofmax'", "did you mean 'softmax'"]),
        (lambda: MultiHeadAttention(6, 2, rotary=True), ["width=6", "heads=2", "even"]),
        (lambda: MultiHeadAttention(4, 2, kind="linear", rotary=True), ["rotary", "softmax"]),
        (lambda: MultiHeadAttention(4, 2, init="xavier"), ["'xavier'", "glorot"]),
        (lambda: fed((3, 4), (3, 4), (3, 4)), ["query", "(3, 4)", "(batch, length, 4)"]),
        (lambda: fed(Q, (2, 5, 6), K), ["key", "(2, 5, 6)", "width=4"]),
        (lambda: fed(Q, K, (2, 6, 4)), ["(2, 5, 4)", "(2, 6, 4)", "same length"]),
        (lambda: fed(Q, (1, 5, 4), (1, 5, 4)), ["(2, 3, 4)", "(1, 5, 4)", "batch"]),
        (lambda: fed(Q, K, K, causal=True), ["causal", "3 queries", "5 keys"]),
        (lambda: fed(Q, K, K, mask=torch.ones(3, 4, dtype=torch.bool)), ["(3, 4)", "(3, 5)", "(2, 3, 5)"]),
        (lambda: fed(Q, K, K, mask=torch.ones(5, dtype=torch.bool)), ["(5,)", "(3, 5)"]),
        (lambda: fed(Q, K, K, mask=torch.ones(3, 5)), ["float32", "Boolean", "True = may look"]),
        (lambda: fed(Q, K, K, mask=torch.ones(3, 5, dtype=torch.bool), kind="linear"), ["linear", "softmax"]),
        (lambda: linear_attention(torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(4, 2), True), ["3 queries", "4"]),
        (lambda: rotate(torch.zeros(3, 5)), ["5", "even"]),
        (lambda: Positions("rotery", None, 4, Maker64(0)), ["'rotery'", "rotary"]),
        (lambda: Positions("learned", None, 4, Maker64(0)), ["learned", "length="]),
        (lambda: Positions("learned", 0, 4, Maker64(0)), ["length", "at least 1"]),
        (lambda: Positions("learned", 3, 4, Maker64(0))(torch.zeros(1, 4, 4)), ["4 positions", "length=3", "rotary"]),
        (lambda: LayerNorm(0), ["width", "at least 1"]),
        (lambda: LayerNorm(3)(torch.zeros(2, 4)), ["(2, 4)", "width=3"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
