"""ResNet equals torchvision's basic blocks, its norms equal torch's, and its statistics change only when they are told to.

Truth: torch.nn.BatchNorm2d (training and evaluation), torch.nn.GroupNorm, torchvision's BasicBlock with torch.nn's
convolutions, given the same weights; closed forms for the normalised moments and for the initial variances.
"""

from __future__ import annotations

import copy
import functools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lemmata.architectures import ArchitectureError, Law
from lemmata.architectures.normalisation import BatchNorm, GroupNorm
from lemmata.architectures.resnet import ENTRIES, BasicBlock, ResNet

TOLERANCE = 1e-10
DRAWS = 20
BIASED = Law("he with biases", lambda n, m: 2 / n, lambda n, m: 0.1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


@functools.cache
def torchvision_block():
    """torchvision's BasicBlock; its wheel built for another torch has no compiled operators, which are declared first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchvision.models.resnet import BasicBlock as Peer
        except ImportError:
            pytest.skip("torchvision is not installed")
        except RuntimeError as missing:
            assert "torchvision::" in str(missing)
            for name in ("nms", "qnms"):
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float t) -> Tensor")
            from torchvision.models.resnet import BasicBlock as Peer
    return Peer


class Bias(nn.Module):
    """What stands in a normalisation's place where there is none."""

    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return x + self.bias[:, None, None]


class OptionA(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class Peer(nn.Module):
    def __init__(self, channels, classes, blocks, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(channels[0], channels[1], 3, padding=1, bias=False)
        self.bn1 = norm(channels[1])
        layers, width = [], channels[1]
        for stage, planes in enumerate(channels[1:]):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                shortcut = OptionA(planes, stride) if stride > 1 or planes != width else None
                layers.append(torchvision_block()(width, planes, stride, shortcut, norm_layer=norm))
                width = planes
        self.layers, self.fc = nn.Sequential(*layers), nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.layers(self.bn1(self.conv1(x)).relu()).mean((-2, -1)))


def peer_name(name):
    """Our parameter's name in the peer: a bias of a convolution is one of the module in the norm's place."""
    name = name.replace("blocks.", "layers.").replace("readout", "fc")
    for i in ("1", "2"):
        name = name.replace(f"conv{i}.bias", f"bn{i}.bias").replace(f"norm{i}.", f"bn{i}.")
    heads = {
        "conv.weight": "conv1.weight",
        "conv.bias": "bn1.bias",
        "norm.weight": "bn1.weight",
        "norm.bias": "bn1.bias",
    }
    return heads.get(name, name)


NORMS = {
    "none": ({"norm": "none"}, Bias),
    "group": ({"norm": "group", "groups": 2}, lambda c: nn.GroupNorm(2, c)),
    "batch": ({"norm": "batch"}, nn.BatchNorm2d),
    "frozen": ({"norm": "batch", "statistics": "frozen"}, nn.BatchNorm2d),
}


def pair(kind, seed):
    settings, norm = NORMS[kind]
    channels = [3, 2, 4, 6]
    ours = ResNet(channels, 5, blocks=2, init=BIASED, dtype=torch.float64, generator=generator(seed), **settings)
    peer = Peer(channels, 5, 2, norm).double()
    theirs = dict(peer.named_parameters())
    assert {peer_name(name) for name, _ in ours.named_parameters()} == set(theirs)
    with torch.no_grad():
        for name, p in ours.named_parameters():
            if name.endswith("weight") and p.dim() == 1:
                p.mul_(1 + 0.3 * randn(seed + 2000, len(p)).tanh())  # γ that differ from 1
            assert p.abs().min() > 0
            theirs[peer_name(name)].copy_(p)
    if kind == "frozen":
        batch = randn(seed + 3000, 9, 3, 8, 8)
        for module in peer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            peer.train()(batch)
        ours.calibrate(batch)
        peer.eval()
    return ours, peer, randn(seed + 1000, 4, 3, 8, 8)


def parity_error(ours, peer, inputs, rename=peer_name):
    """Return the largest relative difference of the output and of every gradient, that of the input too."""
    probe = randn(5, *ours(inputs).shape)
    outputs, slopes = [], []
    for net in (ours, peer):
        net.zero_grad()
        x = inputs.clone().requires_grad_()
        outputs.append(net(x))
        (outputs[-1] * probe).sum().backward()
        slopes.append(x.grad)
    theirs = dict(peer.named_parameters())
    pairs = [outputs, slopes] + [(p.grad, theirs[rename(name)].grad) for name, p in ours.named_parameters()]
    errors = [(a - b).norm() / b.norm() for a, b in pairs]
    return torch.stack(errors).max().item()  # NaN if one is, which Python's max would pass over


@pytest.mark.parametrize("kind", NORMS)
def test_parity_with_torchvision(kind):
    for seed in range(DRAWS):
        ours, peer, inputs = pair(kind, seed)
        assert parity_error(ours, peer, inputs) <= TOLERANCE
        weight = ours.blocks[seed % 6].conv2.weight
        with torch.no_grad():
            weight.view(-1)[weight.grad.view(-1).abs().argmax()] += 1e-6
        assert parity_error(ours, peer, inputs) > TOLERANCE


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_batch_norm_is_torchs(training):
    for seed in range(DRAWS):
        ours = BatchNorm(4, "batch" if training else "frozen", bias_variance=1.0, generator=generator(seed)).double()
        peer = nn.BatchNorm2d(4, momentum=1.0).double()
        with torch.no_grad():
            peer.weight.copy_(ours.weight.mul_(2 + randn(seed, 4).tanh()))
            peer.bias.copy_(ours.bias)
        batch = 3 + 2 * randn(seed + 50, 6, 4, 5, 3)
        peer(batch)
        ours.calibrate(batch)
        torch.testing.assert_close(ours.mean, peer.running_mean, rtol=1e-13, atol=0)
        torch.testing.assert_close(ours.variance, peer.running_var, rtol=1e-13, atol=0)
        x = 1 + randn(seed + 100, 6, 4, 5, 3)
        assert parity_error(ours, peer.train(training), x, rename=str) <= TOLERANCE
        with torch.no_grad():
            ours.weight[seed % 4] += 1e-6
        assert parity_error(ours, peer, x, rename=str) > TOLERANCE
        other = BatchNorm(4, "frozen" if training else "batch").double()  # the other statistics are another function
        other.load_state_dict(ours.state_dict())
        assert parity_error(other, peer, x, rename=str) > 1e-3


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_is_torchs_and_normalises(groups):
    ours, peer = GroupNorm(4, groups, eps=0.0).double(), nn.GroupNorm(groups, 4, eps=0.0).double()
    x = 3 + 2 * randn(0, 6, 4, 5, 3)
    assert parity_error(ours, peer, x, rename=str) <= TOLERANCE
    y = ours(x).unflatten(1, (groups, -1)).flatten(2)  # each row has mean 0 and mean square 1
    torch.testing.assert_close(y.mean(-1), torch.zeros(6, groups).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(y.square().mean(-1), torch.ones(6, groups).double(), rtol=0, atol=1e-13)


def test_statistics_are_explicit():
    """forward changes no buffer in any mode; training and evaluation mode make no difference; calibrate is the one door."""
    net = ResNet([3, 4, 4], 2, dtype=torch.float64, generator=generator(0))
    x, y = randn(1, 6, 3, 8, 8), randn(2, 6, 3, 8, 8)
    before = copy.deepcopy(net.state_dict())
    outputs = [net.train(mode).use_statistics(kind)(x) for mode in (True, False) for kind in ("batch", "frozen")]
    assert torch.equal(outputs[0], outputs[2]) and torch.equal(outputs[1], outputs[3])
    assert not torch.allclose(outputs[0], outputs[1])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.use_statistics("frozen").calibrate(x)
    assert all(m.statistics == "frozen" and not m._forward_pre_hooks for m in net.modules() if isinstance(m, BatchNorm))
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith((".mean", ".variance"))}
    assert torch.equal(net(torch.cat([x, y]))[:6], net(torch.cat([x, 2 * y]))[:6])  # examples are on their own
    net.use_statistics("batch")
    assert not torch.allclose(net(torch.cat([x, y]))[:6], net(torch.cat([x, 2 * y]))[:6])
    saved = ResNet([3, 4, 4], 2, dtype=torch.float64, statistics="frozen")
    saved.load_state_dict(net.state_dict())
    assert torch.equal(saved(x), net.use_statistics("frozen")(x))


def test_calibration_leaves_no_hook_after_an_error():
    net = ResNet([3, 4], 2, statistics="frozen")
    with pytest.raises(ArchitectureError):
        net.calibrate(torch.zeros(2, 1, 8, 8))
    assert net.norm.statistics == "frozen" and not net.norm._forward_pre_hooks


def test_resnet_sizes_of_the_paper():
    """Table 6 of the paper: 20, 32, 44, 56 and 110 layers have 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters."""
    for n, millions in ((3, "0.27"), (5, "0.46"), (7, "0.66"), (9, "0.85"), (18, "1.7")):
        with torch.device("meta"):
            net = ResNet([3, 16, 32, 64], 10, blocks=n)
        layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules())
        count = sum(p.numel() for p in net.parameters()) / 1e6
        assert layers == 6 * n + 2 and float(millions) == round(count, len(millions) - 2)


def follows(sample, variance):
    low, high = stats.chi2(sample.numel()).interval(1 - 1e-6)
    return low <= (sample.double().square().sum() / variance).item() <= high


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_initial_law(norm):
    net = ResNet([3, 20, 40], 5, norm=norm, init=BIASED, dtype=torch.float64, generator=generator(0))
    for weight, fan in ((net.conv.weight, 27), (net.blocks[1].conv1.weight, 180), (net.blocks[1].conv2.weight, 360)):
        assert follows(weight, 2 / fan) and not follows(weight, 4 / fan) and not follows(weight, 1 / fan)
    shifts = [p for name, p in net.named_parameters() if name.endswith("bias") and "readout" not in name]
    assert len(shifts) == 5 and follows(torch.cat(shifts), 0.1) and not follows(torch.cat(shifts), 0.4)
    assert all((p == 1).all() for name, p in net.named_parameters() if name.endswith("weight") and "norm" in name)
    plain = ResNet([3, 4], 5, norm=norm)
    assert all((p == 0).all() for name, p in plain.named_parameters() if name.endswith("bias"))


def test_growth_without_norm():
    """As said: a branch has variance 2 E x², and relu(x + branch) keeps more than half of the 3 E x² where x ≥ 0."""
    g, ratios, branches = generator(0), [], []
    for _ in range(100):
        block = BasicBlock(8, 8, norm="none", dtype=torch.float64, generator=g)
        x = torch.randn(1, 8, 12, 12, dtype=torch.float64, generator=g).relu()
        inner = block.conv2(block.conv1(x).relu())[..., 2:-2, 2:-2]  # away from the zeros
        branches.append((inner.square().mean() / x.square().mean()).item())
        ratios.append((block(x)[..., 2:-2, 2:-2].square().mean() / x.square().mean()).item())
    assert abs(math.fsum(branches) / 100 - 2) < 0.2 and 1.5 < math.fsum(ratios) / 100 < 3


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_seed_decides_the_network(norm):
    state = torch.get_rng_state()
    nets = [
        ResNet([2, 3, 3], 4, norm=norm, init=BIASED, dtype=dtype, generator=generator(seed))
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    ]
    first, again, other, single = ([p.detach() for p in net.parameters()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_only_batch_statistics_are_exempt():
    exempt = {entry.name: [e.checks for e in entry.exempt] for entry in ENTRIES}
    assert exempt == {
        "resnet-none": [],
        "resnet-group": [],
        "resnet-batch": [("batch of one",)],
        "resnet-frozen": [],
    }


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: ResNet([3, 4], 2, norm="bacth"), ["norm='bacth'", "did you mean 'batch'", "group"]),
        (lambda: ResNet([3, 4], 2, statistics="running"), ["statistics='running'", "batch, frozen"]),
        (lambda: ResNet([3, 4], 2, norm="group", statistics="frozn"), ["'frozn'", "did you mean 'frozen'"]),
        (lambda: ResNet([3, 4], 2, norm="none", groups=0), ["groups", "0"]),
        (lambda: ResNet([3, 4], 2).use_statistics("frozn"), ["'frozn'", "did you mean 'frozen'"]),
        (lambda: ResNet([3], 2), ["channels=[3]", "at least 2"]),
        (lambda: ResNet([3, 4], 0), ["classes", "0"]),
        (lambda: ResNet([3, 4], 2, blocks=0), ["blocks", "0"]),
        (lambda: ResNet([3, 4, 2], 2), ["c_out=2", "c_in=4", "grow"]),
        (lambda: ResNet([3, 4], 2, norm="group", groups=3), ["groups=3", "channels=4", "divisor"]),
        (lambda: ResNet([3, 4], 2, activation="rely"), ["'rely'", "relu"]),
        (lambda: ResNet([3, 4], 2, init="kaiming"), ["'kaiming'", "he"]),
        (lambda: ResNet([3, 4], 2)(torch.zeros(2, 1, 8, 8)), ["(2, 1, 8, 8)", "channels=3", "height"]),
        (lambda: ResNet([3, 4], 2)(torch.zeros(3, 8, 8)), ["(3, 8, 8)", "channels=3", "batch"]),
        (lambda: BasicBlock(3, 4)(torch.zeros(2, 4, 8, 8)), ["(2, 4, 8, 8)", "channels=3"]),
        (lambda: BasicBlock(3, 4, stride=0), ["stride", "0"]),
        (lambda: BasicBlock(0, 4), ["c_in", "0"]),
        (lambda: BatchNorm(0), ["channels", "0"]),
        (lambda: BatchNorm(3)(torch.zeros(2, 3)), ["(2, 3)", "channels=3", "height"]),
        (lambda: BatchNorm(3).calibrate(torch.zeros(1, 3, 1, 1)), ["(1, 3, 1, 1)", "no variance", "more examples"]),
        (lambda: BatchNorm(3)(torch.zeros(1, 3, 1, 1)), ["(1, 3, 1, 1)", "no variance", "more examples"]),
        (lambda: GroupNorm(3, groups=3)(torch.zeros(2, 3, 1, 1)), ["(2, 3, 1, 1)", "no variance", "fewer groups"]),
        (lambda: GroupNorm(4, groups=0), ["groups", "0"]),
        (lambda: GroupNorm(4)(torch.zeros(2, 3, 5, 5)), ["(2, 3, 5, 5)", "channels=4"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
