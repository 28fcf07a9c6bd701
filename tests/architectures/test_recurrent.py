"""RNN, LSTM and GRU equal torch's own layers given the same weights, also in two directions and in two layers.

Truth: torch.nn's RNN, LSTM and GRU, whose redundant second bias takes a random share of ours; for the initial laws, the
variances and the distribution written here again.
"""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn

from lemmata.architectures import ArchitectureError, Law
from lemmata.architectures.gru import GRU
from lemmata.architectures.lstm import LSTM
from lemmata.architectures.recurrent import RNN, Bidirectional, FlatReadout, SequenceNet
from lemmata.architectures.state_space import S4D

TOLERANCE = 1e-10  # relative, float64; the planted error is 1e-6
DRAWS = 20
OURS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


class Peer(nn.Module):
    """torch's layer, and a linear read-out of its states at every time or of all of them, if there is one."""

    def __init__(self, layer, readout=None, flat=False):
        super().__init__()
        self.layer, self.readout, self.flat = layer.double(), readout and readout.double(), flat

    def forward(self, x):
        states = self.layer(x)[0]
        states = states.flatten(1) if self.flat else states
        return states if self.readout is None else self.readout(states)


def pairs_of(cell, layer, suffix):
    """Give one direction of one of torch's layers our weights; return the pairs (ours, theirs, their rows)."""
    theirs = {kind: getattr(layer, f"{kind}_{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    n = cell.n_hidden
    share = randn(n, *cell.b.shape)
    with torch.no_grad():
        theirs["weight_ih"].copy_(cell.W)
        theirs["weight_hh"].copy_(cell.U)
        theirs["bias_ih"].copy_(cell.b * share)
        theirs["bias_hh"].copy_(cell.b * (1 - share))
        if isinstance(cell, GRU):
            theirs["bias_ih"][2 * n :] = cell.b[2 * n :]
            theirs["bias_hh"][2 * n :] = cell.b_hn
    everything = slice(None)
    pairs = [(cell.W, theirs["weight_ih"], everything), (cell.U, theirs["weight_hh"], everything)]
    pairs += [(cell.b, theirs["bias_ih"], everything)]
    if isinstance(cell, GRU):
        return [*pairs, (cell.b_hn, theirs["bias_hh"], slice(2 * n, 3 * n))]
    return [*pairs, (cell.b, theirs["bias_hh"], everything)]


def readout_pairs(ours, theirs):
    theirs.load_state_dict(ours.state_dict())
    return [(ours.weight, theirs.weight, slice(None)), (ours.bias, theirs.bias, slice(None))]


def one_direction(family, seed, **keywords):
    ours = OURS[family](3, 4, 2, dtype=torch.float64, generator=generator(seed), **keywords)
    own = {"nonlinearity": keywords["activation"]} if keywords else {}
    peer = Peer(getattr(nn, family)(3, 4, batch_first=True, **own), nn.Linear(4, 2))
    pairs = pairs_of(ours, peer.layer, "l0") + readout_pairs(ours.readout, peer.readout)
    return ours, peer, pairs, randn(seed + 1000, 5, 7, 3)


def two_layers(family, seed):
    g = generator(seed)
    ours = nn.Sequential(
        OURS[family](3, 4, dtype=torch.float64, generator=g), OURS[family](4, 4, 2, dtype=torch.float64, generator=g)
    )
    peer = Peer(getattr(nn, family)(3, 4, num_layers=2, batch_first=True), nn.Linear(4, 2))
    pairs = pairs_of(ours[0], peer.layer, "l0") + pairs_of(ours[1], peer.layer, "l1")
    return ours, peer, pairs + readout_pairs(ours[1].readout, peer.readout), randn(seed + 1000, 5, 7, 3)


def two_directions(family, seed, n_in=3, n_hidden=4):
    g = generator(seed)
    ours = Bidirectional(*(OURS[family](n_in, n_hidden, dtype=torch.float64, generator=g) for _ in range(2)))
    peer = Peer(getattr(nn, family)(n_in, n_hidden, bidirectional=True, batch_first=True))
    pairs = pairs_of(ours.forward_net, peer.layer, "l0") + pairs_of(ours.backward_net, peer.layer, "l0_reverse")
    return ours, peer, pairs, randn(seed + 1000, 5, 7, n_in)


def mnist1d_classifier(seed):
    """The GRU of MNIST-1D's authors: nn.GRU(1, 6, bidirectional=True), flattened over 40 times, nn.Linear(480, 10)."""
    both, peer, pairs, _ = two_directions("GRU", seed, n_in=1, n_hidden=6)
    ours = FlatReadout(both, length=40, n_out=10, dtype=torch.float64, generator=generator(seed))
    peer = Peer(peer.layer, nn.Linear(480, 10), flat=True)
    return ours, peer, pairs + readout_pairs(ours.readout, peer.readout), randn(seed + 1000, 5, 40, 1)


PAIRS = {
    "RNN tanh": lambda seed: one_direction("RNN", seed, activation="tanh"),
    "RNN relu": lambda seed: one_direction("RNN", seed, activation="relu"),
    "LSTM": lambda seed: one_direction("LSTM", seed),
    "GRU": lambda seed: one_direction("GRU", seed),
    **{f"two layers of {family}": (lambda seed, family=family: two_layers(family, seed)) for family in OURS},
    **{f"bidirectional {family}": (lambda seed, family=family: two_directions(family, seed)) for family in OURS},
    "MNIST-1D classifier": mnist1d_classifier,
}


def parity_error(ours, peer, pairs, inputs):
    """Return the largest relative difference of the output and of every parameter's gradient."""
    probe = randn(5, *ours(inputs).shape)
    for net in (ours, peer):
        net.zero_grad()
        (net(inputs) * probe).sum().backward()
    compared = [(ours(inputs), peer(inputs))]
    compared += [(mine.grad, theirs.grad[rows]) for mine, theirs, rows in pairs]
    errors = [(a - b).norm() / b.norm() for a, b in compared]
    return torch.stack(errors).max().item()  # NaN if one is, which Python's max would pass over


@pytest.mark.parametrize("name", PAIRS)
def test_parity_and_one_perturbed_weight(name):
    for seed in range(DRAWS):
        ours, peer, pairs, inputs = PAIRS[name](seed)
        assert {id(mine) for mine, _, _ in pairs} == {id(p) for p in ours.parameters()}
        assert {id(their) for _, their, _ in pairs} >= {id(p) for p in peer.parameters()}
        assert all(p.abs().min() > 0 for p in ours.parameters())
        assert parity_error(ours, peer, pairs, inputs) <= TOLERANCE  # leaves the gradients behind
        weight = pairs[seed % 2][0]
        seen = weight.grad.view(-1).nonzero().view(-1)  # a dead ReLU unit's weights do nothing
        with torch.no_grad():
            weight.view(-1)[seen[seed % len(seen)]] += 1e-6
        assert parity_error(ours, peer, pairs, inputs) > TOLERANCE


def test_only_the_sum_of_torchs_biases_matters():
    """The redundancy that one bias removes: except in the candidate of a GRU, a shift between the two does nothing."""
    for family, ours in OURS.items():
        layer = getattr(nn, family)(3, 4, batch_first=True).double()
        x = randn(0, 5, 7, 3)
        before = layer(x)[0].detach()
        shift = randn(1, *layer.bias_ih_l0.shape)
        shift[8:12] = 0 if ours is GRU else shift[8:12]
        with torch.no_grad():
            layer.bias_ih_l0 += shift
            layer.bias_hh_l0 -= shift
        assert (layer(x)[0] - before).norm() <= 1e-14 * before.norm()
        if ours is GRU:
            with torch.no_grad():
                layer.bias_ih_l0[8:] += 1
                layer.bias_hh_l0[8:] -= 1
            assert (layer(x)[0] - before).norm() > 1e-2 * before.norm()


# Time.
EXCHANGEABLE = [RNN, LSTM, GRU, S4D]


@pytest.mark.parametrize("family", EXCHANGEABLE, ids=lambda family: family.__name__)
def test_zeros_after_the_end_change_nothing_before_unless_read_backwards(family):
    g = generator(0)
    net = family(2, 4, 3, dtype=torch.float64, generator=g)
    both = Bidirectional(
        *(family(2, 4, dtype=torch.float64, generator=g) for _ in range(2)), n_out=3, dtype=torch.float64
    )
    x = randn(1, 5, 7, 2)
    for after in (torch.zeros(5, 4, 2, dtype=torch.float64), randn(2, 5, 4, 2)):
        longer = torch.cat([x, after], dim=1)
        assert (net(longer)[:, :7] - net(x)).norm() <= 1e-13 * net(x).norm()
        assert (both(longer)[:, :7] - both(x)).norm() > 1e-3 * both(x).norm()


@pytest.mark.parametrize("family", EXCHANGEABLE, ids=lambda family: family.__name__)
def test_families_are_exchangeable(family):
    """One call builds each; without a read-out the network is its states, and every one can be wrapped."""
    make = {"dtype": torch.float64, "device": "cpu", "generator": generator(0)}
    net, bare = family(2, 4, 3, **make), family(2, 4, **make)
    x = randn(1, 5, 7, 2)
    assert net(x).shape == (5, 7, 3) and torch.equal(net(x), net.readout(net.states(x)))
    assert bare(x).shape == (5, 7, 4) and torch.equal(bare(x), bare.states(x))
    assert FlatReadout(bare, 7, 3, **make)(x).shape == (5, 3)
    assert FlatReadout(Bidirectional(bare, family(2, 3, **make)), 7, 3, **make)(x).shape == (5, 3)


def test_reversed_time_exchanges_the_two_directions():
    a, b = (GRU(2, 3, dtype=torch.float64, generator=generator(seed)) for seed in (0, 1))
    x = randn(2, 5, 7, 2)
    exchanged = Bidirectional(b, a).states(x.flip(1)).flip(1)
    torch.testing.assert_close(exchanged.roll(3, -1), Bidirectional(a, b).states(x), rtol=0, atol=1e-14)
    assert (Bidirectional(a, b).states(x.flip(1)).flip(1).roll(3, -1) - Bidirectional(a, b).states(x)).norm() > 1e-2


def test_flat_readout_runs_through_the_states_of_each_time_in_turn():
    net = FlatReadout(LSTM(2, 3, dtype=torch.float64), length=4, n_out=12, dtype=torch.float64)
    with torch.no_grad():
        net.readout.weight.copy_(torch.eye(12))
        net.readout.bias.zero_()
    x = randn(0, 5, 4, 2)
    for time, unit in itertools.product(range(4), range(3)):
        torch.testing.assert_close(net(x)[:, 3 * time + unit], net.net.states(x)[:, time, unit], rtol=0, atol=1e-15)


# Initialisation.
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def follows(sample, variance, kurtosis):
    """Return whether Σx²/variance lies in its central 1 − 1e-6 interval: χ² if Gaussian, else its normal limit."""
    total, count = (sample.detach().double().square().sum() / variance).item(), sample.numel()
    if kurtosis == 3:
        low, high = stats.chi2(count).interval(1 - 1e-6)
    else:
        low, high = stats.norm(count, math.sqrt((kurtosis - 1) * count)).interval(1 - 1e-6)
    return low <= total <= high


def only(sample, variance, kurtosis):
    """Return whether the sample has this variance, and neither half nor twice as much."""
    return follows(sample, variance, kurtosis) and not any(
        follows(sample, factor * variance, kurtosis) for factor in (0.5, 2)
    )


@pytest.mark.parametrize("family", OURS)
def test_default_law_is_torchs(family):
    n, d = 200, 40
    net = OURS[family](d, n, 200, dtype=torch.float64, generator=generator(0))
    assert net.W.shape == (GATES[family] * n, d) and net.U.shape == (GATES[family] * n, n)
    for parameter in net.parameters():
        assert only(parameter, 1 / (3 * n), 1.8) and parameter.abs().max() <= 1 / math.sqrt(n)
    torch.manual_seed(0)
    layer = getattr(nn, family)(d, n)
    for weight in (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0):
        assert follows(weight, 1 / (3 * n), 1.8)
    assert follows(layer.bias_ih_l0 + layer.bias_hh_l0, 2 / (3 * n), 2.4)  # two uniforms


@pytest.mark.parametrize("family", OURS)
def test_named_laws_and_own_ones(family):
    n, d = 200, 40
    net = OURS[family](d, n, 200, init="lecun", dtype=torch.float64, generator=generator(0))
    assert only(net.W, 1 / d, 3) and only(net.U, 1 / n, 3) and only(net.readout.weight, 1 / n, 3)
    assert net.b.count_nonzero() == 0 and net.readout.bias.count_nonzero() == 0
    own = Law("mean field", lambda n, m: 1.5**2 / n, lambda n, m: 0.3**2)
    net = OURS[family](d, n, init=own, dtype=torch.float64, generator=generator(0))
    assert only(net.W, 2.25 / d, 3) and only(net.U, 2.25 / n, 3) and only(net.b, 0.09, 3)
    net = OURS[family](d, n, init="orthogonal", dtype=torch.float64, generator=generator(0))
    for gate in net.U.detach().chunk(GATES[family]):
        torch.testing.assert_close(gate @ gate.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-13)
    if GATES[family] > 1:
        assert (net.U[:n] - net.U[n : 2 * n]).norm() > 1  # each gate has its own draw


@pytest.mark.parametrize("family", ["LSTM", "GRU"])
def test_chrono_initialisation(family):
    """The memory 1/(1 − σ(b)) of a gate that keeps is uniform on [2, T]; a T smaller by a tenth is rejected."""
    n, t_max = 2000, 500
    net = OURS[family](1, n, bias_init="chrono", t_max=t_max, dtype=torch.float64, generator=generator(0))
    gates = net.b.detach().chunk(GATES[family])
    keep = gates[1]
    memory = 1 / (1 - keep.sigmoid())
    assert 2 <= memory.min() and memory.max() <= t_max
    assert stats.kstest(memory.numpy(), stats.uniform(2, t_max - 2).cdf).pvalue > 1e-6
    assert stats.kstest(memory.numpy(), stats.uniform(2, 0.9 * t_max - 2).cdf).pvalue < 1e-6
    others = [gates[0], gates[2], net.b_hn] if family == "GRU" else [gates[0] + keep, gates[2], gates[3]]
    assert all(other.count_nonzero() == 0 for other in others)


def test_forget_bias_of_one():
    gates = LSTM(2, 3, bias_init="forget", dtype=torch.float64).b.detach().chunk(4)
    assert [gate.tolist() for gate in gates] == [[0.0] * 3, [1.0] * 3, [0.0] * 3, [0.0] * 3]


def chrono(family):
    return lambda **make: family(2, 3, 1, bias_init="chrono", t_max=9, **make)


BUILDS = {
    **{name: (lambda family=family, **make: family(2, 3, 1, **make)) for name, family in OURS.items()},
    "LSTM chrono": chrono(LSTM),
    "GRU chrono": chrono(GRU),
    "flat": lambda **make: FlatReadout(Bidirectional(RNN(1, 2, **make), RNN(1, 2, **make), **make), 4, 3, **make),
}


@pytest.mark.parametrize("name", BUILDS)
def test_seed_decides_the_network(name):
    build, state = BUILDS[name], torch.get_rng_state()
    first, again, other, single = (
        [p.detach() for p in build(dtype=dtype, generator=generator(seed)).parameters()]
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        assert {p.device.type for p in build().parameters()} == {"meta"}


def test_own_activation_own_net_and_copies():
    net = RNN(1, 1, activation=lambda z: z**2, dtype=torch.float64, generator=generator(0))
    W, U, b = (p.item() for p in (net.W, net.U, net.b))
    h, expected, x = 0.0, [], [0.3, -1.2, 0.7]
    for value in x:
        h = (W * value + U * h + b) ** 2
        expected.append(h)
    assert net(torch.tensor(x, dtype=torch.float64).view(1, 3, 1)).flatten().tolist() == pytest.approx(
        expected, rel=1e-14
    )
    both = Bidirectional(net, copy.deepcopy(net))
    assert torch.equal(copy.deepcopy(both)(torch.ones(1, 3, 1).double()), both(torch.ones(1, 3, 1).double()))
    with pytest.raises(NotImplementedError, match="define states"):
        SequenceNet().states(torch.zeros(1, 1, 1))


SMALL = GRU(2, 3)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: RNN(0, 3), ["n_in", "at least 1", "0"]),
        (lambda: LSTM(2, 0), ["n_hidden", "at least 1"]),
        (lambda: GRU(2, 3, 0), ["n_out", "at least 1"]),
        (lambda: GRU(2, 3, 1.0), ["n_out", "1.0"]),
        (lambda: RNN(2, 3, activation="tahn"), ["'tahn'", "did you mean 'tanh'"]),
        (lambda: LSTM(2, 3, init="orthogonl"), ["'orthogonl'", "did you mean 'orthogonal'", "Law"]),
        (lambda: LSTM(2, 3, bias_init="chronos", t_max=9), ["bias_init", "did you mean 'chrono'", "forget"]),
        (lambda: GRU(2, 3, bias_init="forget"), ["bias_init", "'forget'", "default", "chrono"]),
        (lambda: LSTM(2, 3, bias_init="chrono"), ["t_max", "None", "length of the sequences"]),
        (lambda: GRU(2, 3, bias_init="chrono", t_max=1), ["t_max", "at least 2", "1"]),
        (lambda: LSTM(2, 3, bias_init="forget", t_max=9), ["t_max=9", "'chrono' alone", "leave"]),
        (lambda: RNN(2, 3)(torch.zeros(5, 2)), ["(5, 2)", "(batch, time, 2)", "x[None]"]),
        (lambda: LSTM(1, 3)(torch.zeros(5, 40)), ["(5, 40)", "n_in=1", "unsqueeze(-1)"]),
        (lambda: GRU(2, 3)(torch.zeros(5, 4, 3)), ["(5, 4, 3)", "n_in=2"]),
        (lambda: GRU(2, 3)(torch.zeros(5, 0, 2)), ["(5, 0, 2)", "at least one time"]),
        (lambda: Bidirectional(SMALL, GRU(2, 3, 1)), ["backward_net", "n_out=None"]),
        (lambda: Bidirectional(SMALL, LSTM(2, 3)), ["GRU", "LSTM", "same class"]),
        (lambda: Bidirectional(SMALL, GRU(3, 3)), ["n_in=2", "n_in=3"]),
        (lambda: Bidirectional(SMALL, SMALL), ["one module", "build two"]),
        (lambda: Bidirectional(nn.GRU(2, 3), SMALL), ["forward_net", "SequenceNet", "derive"]),
        (lambda: Bidirectional(SMALL, GRU(2, 3))(torch.zeros(5, 2)), ["(5, 2)", "(batch, time, 2)"]),
        (lambda: FlatReadout(GRU(2, 3, 1), 4, 5), ["net has a read-out", "n_out=None"]),
        (lambda: FlatReadout(SMALL, 0, 5), ["length", "at least 1"]),
        (lambda: FlatReadout(SMALL, 4, None), ["n_out", "None"]),
        (lambda: FlatReadout(SMALL, 4, 5)(torch.zeros(5, 7, 2)), ["7 times", "length=4", "cut"]),
        (lambda: FlatReadout(SMALL, 4, 5)(torch.zeros(5, 7)), ["(5, 7)", "n_in=2"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
