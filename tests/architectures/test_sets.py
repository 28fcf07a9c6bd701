"""Networks on sets: closed forms, PyTorch Geometric's layers given the same weights, and every order of the elements."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from lemmata.architectures._pieces import ArchitectureError, Law
from lemmata.architectures.set_transformer import ISAB, MAB, PMA, SAB, SetTransformer
from lemmata.architectures.sets import DeepSets, EquivariantDeepSets

TOLERANCE = 1e-10  # relative, float64: a thousand times the rounding, a ten-thousandth of the planted 1e-6
DRAWS = 20
LAW = Law("biased", lambda n, m: 1 / n, lambda n, m: 0.5)  # no bias is 0


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def relative(a, b):
    return ((a - b).norm() / b.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


def own(kind, seed):
    settings = {"init": LAW, "dtype": torch.float64, "generator": seeded(seed)}
    relu = {"activation": "relu", **settings}
    return {
        "DeepSets sum": lambda: DeepSets([4, 6, 5], [5, 3], "sum", **settings),
        "DeepSets mean": lambda: DeepSets([4, 6, 5], [5, 3], "mean", **settings),
        "DeepSets max": lambda: DeepSets([4, 6, 5], [5, 3], "max", **settings),
        "equivariant sum": lambda: EquivariantDeepSets([4, 6, 3], "sum", **settings),
        "equivariant mean": lambda: EquivariantDeepSets([4, 6, 3], "mean", **settings),
        "equivariant max": lambda: EquivariantDeepSets([4, 6, 3], "max", **settings),
        "SAB": lambda: SAB(4, 2, **relu),
        "ISAB": lambda: ISAB(4, 2, points=3, **relu),
        "PMA": lambda: PMA(4, 2, seeds=3, **relu),
        "SetTransformer": lambda: SetTransformer(4, 6, 3, heads=2, seeds=2, **settings),
        "SetTransformer features": lambda: Features(SetTransformer(4, 6, 3, heads=2, **settings)),
    }[kind]()


class Features(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net.features(x)


KINDS = [
    *(f"{family} {pool}" for family in ("DeepSets", "equivariant") for pool in ("sum", "mean", "max")),
    *("SAB", "ISAB", "PMA", "SetTransformer", "SetTransformer features"),
]
INVARIANT = [kind for kind in KINDS if kind.split()[0] in ("DeepSets", "PMA") or kind == "SetTransformer"]


class Pooled(nn.Module):
    """A net whose elements are pooled by PyG, all sets in one list."""

    def __init__(self, phi, rho, pool):
        super().__init__()
        aggregations = pytest.importorskip("torch_geometric.nn.aggr")
        self.phi, self.rho = phi, rho
        self.pool = {
            "sum": aggregations.SumAggregation,
            "mean": aggregations.MeanAggregation,
            "max": aggregations.MaxAggregation,
        }[pool]()

    def forward(self, x):
        which = torch.arange(x.shape[0]).repeat_interleave(x.shape[1])
        return self.rho(self.pool(self.phi(x.flatten(0, 1)), which))


def attention_names(theirs, ours):
    """PyG's block keeps the three matrices of the attention in one."""
    names = {
        f"{theirs}attn.in_proj_{kind}": [f"{ours}attention.W_{m}.{kind}" for m in "qkv"] for kind in ("weight", "bias")
    }
    names |= {f"{theirs}attn.out_proj.{kind}": [f"{ours}attention.W_o.{kind}"] for kind in ("weight", "bias")}
    return names | {f"{theirs}lin.{kind}": [f"{ours}feed.{kind}"] for kind in ("weight", "bias")}


def peer_of(kind):
    """Return PyG's net and, for each of its parameters, the names of ours that fill it one after the other."""
    blocks = pytest.importorskip("torch_geometric.nn.aggr.utils")
    kinds = ("weight", "bias")
    if kind.startswith("DeepSets"):
        phi = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        names = {f"phi.{2 * i}.{k}": [f"phi.layers.{i}.{k}"] for i in range(2) for k in kinds}
        return Pooled(phi, nn.Linear(5, 3), kind.split()[1]), names | {f"rho.{k}": [f"rho.layers.0.{k}"] for k in kinds}
    if kind == "SAB":
        return blocks.SetAttentionBlock(4, 2, layer_norm=False), attention_names("mab.", "mab.")
    if kind == "ISAB":
        names = {"ind": ["points"], **attention_names("mab1.", "mab_1."), **attention_names("mab2.", "mab_2.")}
        return blocks.InducedSetAttentionBlock(4, 3, 2, layer_norm=False), names
    names = {"seed": ["seeds"], **attention_names("mab.", "mab."), **{f"lin.{k}": [f"feed.{k}"] for k in kinds}}
    return blocks.PoolingByMultiheadAttention(4, 3, 2, layer_norm=False), names


def copied(ours, kind):
    peer, names = peer_of(kind)
    peer = peer.double()
    mine, theirs = dict(ours.named_parameters()), dict(peer.named_parameters())
    assert set(names) == set(theirs) and sorted(name for group in names.values() for name in group) == sorted(mine)
    with torch.no_grad():
        for their, my in names.items():
            assert all(mine[name].abs().min() > 0 for name in my)
            theirs[their].copy_(torch.cat([mine[name] for name in my]).reshape(theirs[their].shape))
    return peer, names


def parts(net, groups, x):
    """Return the output and the gradients of a random linear function of it, each group's joined."""
    x = x.clone().requires_grad_()
    out, named = net(x), dict(net.named_parameters())
    (out * randn(5, *out.shape)).sum().backward()
    return [out, x.grad, *(torch.cat([named[name].grad for name in group]) for group in groups)]


def parity_error(ours, peer):
    """A key's bias has no gradient (a softmax does not see it) and is compared as part of the three."""
    return max(relative(p.flatten(), q.flatten()) for p, q in zip(ours, peer, strict=True))


@pytest.mark.parametrize("kind", ["DeepSets sum", "DeepSets mean", "DeepSets max", "SAB", "ISAB", "PMA"])
def test_parity(kind):
    for seed in range(DRAWS):
        ours, x = own(kind, seed), randn(seed + 1000, 3, 5, 4)
        peer, names = copied(ours, kind)
        truth = parts(peer, [[name] for name in names], x)
        found = parts(ours, names.values(), x)
        assert parity_error(found, truth) <= TOLERANCE
        parameter = list(ours.parameters())[0 if seed % 2 else -2]
        entry = parameter.grad.abs().argmax()
        ours.zero_grad()
        with torch.no_grad():
            parameter.view(-1)[entry] += 1e-6
        assert parity_error(parts(ours, names.values(), x), truth) > TOLERANCE


def linear_sets(pool, a, b):
    """φ(x) = a x, ρ(z) = b z, on numbers."""
    net = DeepSets([1, 1], [1, 1], pool, dtype=torch.float64)
    values = {"phi.layers.0.weight": a, "phi.layers.0.bias": 0, "rho.layers.0.weight": b, "rho.layers.0.bias": 0}
    net.load_state_dict({name: torch.full(p.shape, float(values[name])) for name, p in net.named_parameters()})
    return net


def test_pools_in_closed_form():
    for seed in range(DRAWS):
        x = randn(seed, 3, 6, 1)
        for pool, truth in (("sum", x.sum(1)), ("mean", x.sum(1) / 6), ("max", x.sort(1).values[:, -1])):
            torch.testing.assert_close(linear_sets(pool, 2, 3)(x), 6 * truth, rtol=0, atol=1e-13)
            torch.testing.assert_close(linear_sets(pool, 2, -3)(x), -6 * truth, rtol=0, atol=1e-13)
        assert (linear_sets("max", -1, -1)(x) - x.sort(1).values[:, 0]).abs().max() == 0  # − max(−x) = min x


def test_product_of_numbers():
    """exp Σ log x is the product: a sum of one latent number suffices."""
    for seed in range(DRAWS):
        x = randn(seed, 4, 5, 1).abs() + 0.1
        net = linear_sets("sum", 1, 1)
        torch.testing.assert_close(net(x.log()).exp()[:, 0], x[..., 0].prod(1), rtol=1e-12, atol=0)


def test_what_pools_cannot_see():
    """{a, b} and {a, a, b, b} differ for the sum only, {a, b} and {a, a, b} for the mean too, not for the maximum."""
    pair = randn(0, 2, 4)
    doubled, uneven = pair[[0, 0, 1, 1]], pair[[0, 0, 1]]
    for pool, tells_doubled, tells_uneven in (("sum", True, True), ("mean", False, True), ("max", False, False)):
        for kind in (f"DeepSets {pool}", f"equivariant {pool}"):
            net = own(kind, 0)
            at = (lambda y: y) if kind in INVARIANT else (lambda y: y[0])
            assert (relative(at(net(doubled)), at(net(pair))) > 1e-3) == tells_doubled
            assert (relative(at(net(uneven)), at(net(pair))) > 1e-3) == tells_uneven


def test_equivariant_layer_is_the_matrix_of_its_orbits():
    """On one channel it is w I + u 11ᵀ (a sum) and w I + u 11ᵀ/n (a mean)."""
    for pool, divisor in (("sum", 1), ("mean", 5)):
        for seed in range(DRAWS):
            net = EquivariantDeepSets([1, 1], pool, init=LAW, dtype=torch.float64, generator=seeded(seed))
            w, b, u = (p.detach().item() for p in net.parameters())
            matrix = w * torch.eye(5, dtype=torch.float64) + u / divisor
            x = randn(seed, 5, 1)
            torch.testing.assert_close(net(x), matrix @ x + b, rtol=0, atol=1e-13)


def test_one_element_attends_to_itself():
    """A set of one: the softmax is 1, and SAB(x) = h + φ(W h + c) with h = x + W_o (W_v x + b_v) + b_o."""
    for seed in range(DRAWS):
        block, x = own("SAB", seed), randn(seed, 3, 1, 4)
        attention, feed = block.mab.attention, block.mab.feed
        value = x @ attention.W_v.weight.T + attention.W_v.bias
        h = x + value @ attention.W_o.weight.T + attention.W_o.bias
        torch.testing.assert_close(block(x), h + (h @ feed.weight.T + feed.bias).relu(), rtol=0, atol=1e-13)


class Placed(nn.Module):
    """Weights that belong to a position in the list: not a function of the set."""

    def __init__(self, net):
        super().__init__()
        self.net, self.place = net, randn(9, 5, 4)

    def forward(self, x):
        return self.net(x * self.place)


@pytest.mark.parametrize("kind", KINDS)
def test_order_does_not_matter(kind):
    """f(Px) = f(x) or P f(x); weights that belong to places break it."""
    for seed in range(DRAWS):
        net, x = own(kind, seed), randn(seed, 2, 5, 4)
        p = torch.randperm(5, generator=seeded(seed))
        p = p.roll(1) if torch.equal(p, torch.arange(5)) else p
        for f, keeps in ((net, True), (Placed(net), False)):
            expected = f(x) if kind in INVARIANT else f(x)[:, p]
            assert (relative(f(x[:, p]), expected) <= 1e-13) == keeps
            assert keeps or relative(f(x[:, p]), expected) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_sets_of_any_size(kind):
    net = own(kind, 0)
    for n in (1, 2, 9):
        out = net(randn(0, 2, n, 4))
        assert torch.isfinite(out).all() and (kind in INVARIANT or out.shape[1] == n)


def test_shapes():
    x = torch.zeros(2, 3, 5, 4)  # Deep Sets take any leading axes
    assert DeepSets([4, 6], [6, 3])(x).shape == (2, 3, 3)
    assert EquivariantDeepSets([4, 6])(x).shape == (2, 3, 5, 6)
    assert SetTransformer(4, 6, 3, seeds=7)(x[0]).shape == (3, 7, 3)
    assert MAB(4, 2)(x[0, :, :2], x[0]).shape == (3, 2, 4)


def follows(sample, variance):
    """Return whether Σx²/variance lies in the central 1 − 1e-6 interval of its χ² law."""
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], sample.numel())
    return low <= sample.double().square().sum().item() / variance <= high


def test_initial_variances():
    pma, isab = PMA(100, 2, seeds=200, generator=seeded(0)), ISAB(100, 2, points=200, generator=seeded(1))
    net = EquivariantDeepSets([100, 200], init="he", generator=seeded(2))
    for weight, variance in (
        (pma.seeds, 1 / 100),
        (isab.points, 1 / 100),
        (pma.feed.weight, 1 / 100),
        (isab.mab_1.feed.weight, 1 / 100),
        (net.own[0].weight, 2 / 100),
        (net.pooled[0].weight, 2 / 100),
        (SetTransformer(100, 200, 2, generator=seeded(3)).embed.weight, 2 / 300),
        (DeepSets([100, 200], [200, 1], init="lecun", generator=seeded(4)).phi.layers[0].weight, 1 / 100),
    ):
        assert follows(weight, variance) and not follows(weight, 1.3 * variance)
    assert (pma.feed.bias == 0).all() and (net.own[0].bias == 0).all()


BUILDERS = [
    lambda **k: DeepSets([4, 6], [6, 3], **k),
    lambda **k: EquivariantDeepSets([4, 6], **k),
    lambda **k: SetTransformer(4, 6, 3, **k),
    lambda **k: ISAB(4, 2, 3, **k),
]


@pytest.mark.parametrize("build", BUILDERS)
def test_seed_decides_the_network(build):
    state = torch.get_rng_state()
    runs = ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    first, again, other, single = (
        list(build(dtype=dtype, generator=seeded(seed)).parameters()) for dtype, seed in runs
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        assert {p.device.type for p in build().parameters()} == {"meta"}


def test_printed_networks_name_their_pool():
    assert "pool=max" in repr(own("DeepSets max", 0)) and "activation=tanh" in repr(own("equivariant mean", 0))


ERRORS = [
    (lambda: DeepSets([4, 6], [5, 3]), ["phi=[4, 6]", "rho=[5, 3]", "equal"]),
    (lambda: DeepSets([4], [4, 3]), ["phi=[4]", "at least 2"]),
    (lambda: DeepSets([4, 6], [6, 0]), ["rho[1]", "0"]),
    (lambda: DeepSets([4, 6], [6, 3], "average"), ["pool='average'", "sum", "mean", "max"]),
    (lambda: EquivariantDeepSets([4, 6], "summ"), ["'summ'", "did you mean 'sum'"]),
    (lambda: EquivariantDeepSets([4]), ["widths=[4]", "at least 2"]),
    (lambda: DeepSets([4, 6], [6, 3])(torch.zeros(5, 3)), ["(5, 3)", "phi[0]=4", "(..., elements, 4)"]),
    (lambda: DeepSets([4, 6], [6, 3])(torch.zeros(4)), ["(4,)", "elements"]),
    (lambda: DeepSets([4, 6], [6, 3], "max")(torch.zeros(2, 0, 4)), ["(2, 0, 4)", "at least one element"]),
    (lambda: EquivariantDeepSets([4, 6])(torch.zeros(5, 3)), ["(5, 3)", "widths[0]=4"]),
    (lambda: SetTransformer(4, 6, 3)(torch.zeros(2, 5, 3)), ["(2, 5, 3)", "n_in=4"]),
    (lambda: PMA(4, 2)(torch.zeros(2, 5, 3)), ["(2, 5, 3)", "width=4"]),
    (lambda: SetTransformer(4, 6, 3)(torch.zeros(5, 4)), ["(5, 4)", "(batch, elements, 4)"]),
    (lambda: SetTransformer(4, 6, 3, heads=4), ["heads=4", "width=6"]),
    (lambda: SetTransformer(4, 6, 3, layers=0), ["layers", "0"]),
    (lambda: SetTransformer(4, 6, 3, seeds=0), ["seeds", "0"]),
    (lambda: SetTransformer(0, 6, 3), ["n_in", "0"]),
    (lambda: ISAB(4, 2, 0), ["points", "0"]),
    (lambda: MAB(4, 2, activation="rleu"), ["'rleu'", "relu"]),
    (lambda: SAB(4, 2)(torch.zeros(2, 5, 3)), ["(2, 5, 3)", "width=4"]),
]


@pytest.mark.parametrize(("build", "told"), ERRORS)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
