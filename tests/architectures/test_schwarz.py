"""Every architecture, in each dtype: all derivatives agree with differences, vmap needs no loop, nothing is changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from lemmata.architectures import ACTIVATIONS, ARCHITECTURES, MLP

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)
def test_schwarz(schwarz, entry, dtype):
    module = entry.build().to(dtype)
    findings = schwarz.check_module(module, entry.loss, *entry.sample(0, dtype, "cpu"))
    schwarz.expect(entry, findings)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"tanh", "relu"}))
def test_activations(schwarz, activation, dtype):
    module = MLP([3, 4, 2], activation=activation, dtype=dtype, generator=torch.Generator().manual_seed(0))
    entry = ARCHITECTURES[0]
    findings = schwarz.check_module(module, entry.loss, *entry.sample(0, dtype, "cpu"))
    assert not findings, "\n".join(map(str, findings))


@pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)
def test_catalogue(entry):
    """build and sample are deterministic, tiny, double by default, and blind to torch's global generator."""
    state = torch.get_rng_state()
    first, second = entry.build(), entry.build()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(p.dtype == torch.float64 for p in first.parameters())
    assert sum(p.numel() for p in first.parameters()) <= 300
    assert all(p.abs().min() > 0 for p in first.parameters())
    a, b, c = (entry.sample(seed, torch.float64, "cpu") for seed in (3, 3, 4))
    a, b, c = tree_leaves(a), tree_leaves(b), tree_leaves(c)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a, c, strict=True))
    assert len({len(t) for t in a}) == 1, "examples lie along the first axis of every tensor"
    for single, double in zip(tree_leaves(entry.sample(3, torch.float32, "cpu")), a, strict=True):
        assert torch.equal(single, double.float() if double.is_floating_point() else double)
    assert torch.equal(state, torch.get_rng_state())


def test_names_are_unique():
    names = [entry.name for entry in ARCHITECTURES]
    assert len(set(names)) == len(names)


class Faulty(nn.Module):
    """An MLP with one fault planted in its output."""

    def __init__(self, fault):
        super().__init__()
        entry = ARCHITECTURES[0]
        self.net = entry.build()
        self.fault = fault
        inputs, _ = entry.sample(0, torch.float64, "cpu")
        self.register_buffer("here", self.net(inputs[:1]).detach())
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        return self.fault(self, self.net(x))


def count(net, y):
    net.calls.add_(1)
    return y


FAULTS = {
    "none": (lambda net, y: y, set()),
    # All modes agree with one another, and all are wrong: only the differences can tell.
    "a detached term": (lambda net, y: y + (y**2).detach(), {"jvp", "grad", "RR", "FR", "RF", "JJ"}),
    "a kink at the sample": (lambda net, y: (y - net.here).abs(), {"jvp", "grad", "RR", "FR", "RF", "JJ"}),
    "examples that mix": (lambda net, y: y - y.mean(0), {"batch of one"}),
    "a branch on values": (lambda net, y: y * 2 if y.sum() > 0 else y, {"vmap f over parameters", "vmap f over data"}),
    "state": (count, {"state"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(schwarz, fault):
    entry = ARCHITECTURES[0]
    planted, rejected = FAULTS[fault]
    findings = schwarz.check_module(Faulty(planted), entry.loss, *entry.sample(0, torch.float64, "cpu"))
    found = {finding.check for finding in findings}
    assert found >= rejected and bool(found) == bool(rejected), findings


def test_rounding_limit_is_not_idle(schwarz):
    """A Hessian product wrong by 1e-6 in one direction is rejected in float64, one wrong by 1e-3 in float32."""
    for dtype, error in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        truth = torch.ones(4, dtype=torch.float64)
        value = (truth + error).to(dtype)
        assert schwarz.judge("off", schwarz.limit(dtype, "difference"), lambda v=value, t=truth: schwarz.relative(v, t))
    assert schwarz.judge("nan", 1.0, lambda: float("nan"))


def test_vmap_switch_is_restored(schwarz):
    before = torch._C._functorch._is_vmap_fallback_enabled()
    with pytest.raises(RuntimeError, match="stop"), schwarz.no_slow_vmap():
        raise RuntimeError("stop")
    assert torch._C._functorch._is_vmap_fallback_enabled() == before
