"""Equivariance errors against direct loops; every declared symmetry passes, known-broken variants are rejected by name."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lemmata.analysis.errors import ArgumentError, DataError, ModelStateError, NumericsError, OperandError
from lemmata.analysis.invariance import actions
from lemmata.analysis.invariance.equivariance import equivariance
from lemmata.analysis.invariance.equivariance_results import Equivariance
from lemmata.analysis.invariance.propagated_actions import Tapped
from lemmata.analysis.invariance.report import InvarianceReport, invariance_report, suggested
from lemmata.architectures import (
    ARCHITECTURES,
    CNN,
    EGNN,
    LSTM,
    MLP,
    DeepSets,
    Encoder,
    GroupCNN,
    SteerableCNN,
    arguments,
)

SYMMETRIC = [entry for entry in ARCHITECTURES if entry.symmetry is not None]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def double(**options):
    return {"dtype": torch.float64, "generator": seeded(), **options}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class Noticing(nn.Module):
    """A model that knows where the entries of its inputs are."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return self.model(*map(self.marked, inputs))

    @staticmethod
    def marked(x):
        ramp = torch.arange(x.numel(), dtype=x.dtype).view(x.shape) / x.numel()
        return x * (1.5 + ramp) + ramp if x.is_floating_point() else x


def declared(entry):
    s = entry.symmetry
    return actions.finite(entry.name, s.elements, s.act_on_inputs, s.act_on_outputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("entry", SYMMETRIC, ids=lambda entry: entry.name)
def test_every_declared_symmetry_is_exact(entry, dtype):
    """Also known of the architecture's own tests by a plain loop, which must agree."""
    inputs = entry.sample(0, torch.float64, "cpu")[0]
    found = equivariance(entry.build(), inputs, declared(entry), dtype=dtype, layers="")
    assert found.verdict == "exact" and found.culprit is None and found.tried == len(entry.symmetry.elements)
    assert found.worst < 32 * torch.finfo(dtype).eps < found.tolerance < 1e-3 and found.control > 10 * found.tolerance


@pytest.mark.parametrize("entry", SYMMETRIC, ids=lambda entry: entry.name)
def test_every_declared_symmetry_is_rejected_once_positions_are_noticed(entry):
    found = equivariance(Noticing(entry.build()), entry.sample(0, torch.float64, "cpu")[0], declared(entry), layers="")
    assert not found.exact and found.worst > 1e4 * found.tolerance


BUILT_IN = {
    "cnn": actions.translations((5, 4)),
    "group-cnn-p4": actions.rotations(4),
    "group-cnn-p4m": actions.rotations(4, reflections=True),
    "gcn": actions.relabellings(4, outputs="same"),
    "gcn-edges": actions.relabellings(4, outputs="same"),
    "gin": actions.relabellings(4),
    "encoder": actions.permutations(4, outputs="same"),
    "deep-linear": actions.signs(),
    "egnn": actions.motions(2, outputs="same").at(1),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_groups_are_those_that_architectures_declare(name):
    entry = next(entry for entry in ARCHITECTURES if entry.name == name)
    inputs = entry.sample(0, torch.float64, "cpu")[0]
    assert equivariance(entry.build(), inputs, BUILT_IN[name]).exact
    assert not equivariance(Noticing(entry.build()), inputs, BUILT_IN[name]).exact


def test_errors_are_those_of_a_loop():
    net = stack(conv(1, 3, "zeros"), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x, shifts = noise(2, 1, 5, 4), actions.translations((5, 4))
    found = equivariance(net, x, shifts)

    def loop(function, move):
        y = function(x)
        return [float((function(x.roll(g, (-2, -1))) - move(y, g)).norm() / y.norm()) for g in shifts.elements]

    with torch.no_grad():
        truth = loop(net, lambda y, g: y)
        own = loop(net[0], lambda y, g: y.roll(g, (-2, -1)))
    assert [error for _, error in found.errors] == pytest.approx(truth, rel=1e-10)
    mean = sum(truth) / 20
    assert found.mean.value == pytest.approx(mean, rel=1e-10) and found.mean.interval()[0] == found.mean.value
    assert found["0"].worst == pytest.approx(max(own), rel=1e-10) and found.worst == pytest.approx(max(truth))
    assert found["0"].mean == pytest.approx(sum(own) / 20, rel=1e-10) and found.culprit == "0 (Conv2d)"


@pytest.mark.parametrize("pattern", ["*", ""])
def test_stacked_and_single_passes_agree(pattern):
    net, x = CNN([1, 3], 2, padding="zeros", **double()), noise(2, 1, 4, 4)
    many = [x.roll(k, -1) for k in range(4)]
    with torch.no_grad():
        single, all_ = [Tapped(net, pattern).alone(x) for x in many], Tapped(net, pattern).batched(many)
    for k, one in enumerate(single):
        assert torch.allclose(one.output[0][0], all_.output[0][k], rtol=0, atol=1e-14)
        assert one.features.keys() == all_.features.keys() and bool(one.features) == (pattern == "*")
        for name, tensors in one.features.items():
            assert torch.allclose(tensors[0][0], all_.features[name][0][k], rtol=0, atol=1e-14)


def test_a_model_that_cannot_be_vmapped_is_run_one_by_one():
    def branching(x):
        return x.mean(1) if float(x.sum()) < math.inf else x[:, 0]

    found = equivariance(Function(branching), noise(2, 4, 3), actions.permutations(4))
    assert found.exact and not found.vmapped
    assert equivariance(Function(lambda x: x.mean(1)), noise(2, 4, 3), actions.permutations(4)).vmapped


# Which module


def stack(*modules):
    return nn.Sequential(*modules).double()


def conv(c_in, c_out, mode="circular", stride=1):
    torch.manual_seed(0)
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, padding_mode=mode)


CULPRITS = {
    "zero padding in the second": (
        lambda: stack(conv(1, 3), nn.Tanh(), conv(3, 3, "zeros"), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "2 (Conv2d)",
    ),
    "a stride": (
        lambda: stack(conv(1, 3), conv(3, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "1 (Conv2d)",
    ),
    "maxima of windows": (
        lambda: stack(conv(1, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "1 (MaxPool2d)",
    ),
    "flattened": (lambda: stack(conv(1, 3), nn.Flatten(), nn.Linear(3 * 36, 4)), "2 (Linear)"),
    "positions as a channel": (lambda: stack(conv(1, 3), nn.Tanh(), Noticing(nn.Identity()), nn.Flatten(2)), "2.model"),
}


class Branches(nn.Module):
    """x ↦ head(broken(stem(x)) + sound(stem(x))), the sound branch after the broken one; and a third that nothing reads."""

    def __init__(self):
        super().__init__()
        self.stem, self.unread = conv(1, 3).double(), conv(3, 3, "zeros").double()
        self.broken, self.sound = conv(3, 3, "zeros").double(), conv(3, 3).double()
        self.head = nn.Tanh()

    def forward(self, x):
        h = self.stem(x)
        self.unread(h)
        return self.head(self.broken(h) + self.sound(h)).mean((-2, -1))


def test_branches_do_not_mend_each_other():
    found = equivariance(Branches(), noise(2, 1, 6, 6), actions.translations((6, 6)))
    assert found.culprit == "broken (Conv2d)" and found["broken"].status == "broken" and found["sound"].status == "kept"
    net = Branches()
    net.broken = conv(3, 3).double()  # only what nothing reads is left
    assert equivariance(net, noise(2, 1, 6, 6), actions.translations((6, 6))).exact
    net.head = nn.Sequential(Noticing(nn.Identity()))
    assert equivariance(net, noise(2, 1, 6, 6), actions.translations((6, 6))).culprit.startswith("head.0")


def test_an_unknown_representation_that_later_modules_mend_is_not_the_culprit():
    """Channels last is no known layout; the next module undoes it and keeps the symmetry."""
    last, first = Function(lambda x: x.permute(0, 2, 3, 1)), Function(lambda x: x.permute(0, 3, 1, 2))
    net = stack(conv(1, 3), last, first, nn.Flatten(), nn.Linear(108, 2))
    found = equivariance(net, noise(2, 1, 6, 6), actions.translations((6, 6)))
    assert found.culprit == "4 (Linear)" and found["1"].status == "unknown" and found["2"].status == "kept"


class Ramp(nn.Module):
    """A module that works in place, and knows the columns."""

    def forward(self, x):
        return x.mul_(torch.linspace(1, 2, x.shape[-1], dtype=x.dtype))


@pytest.mark.parametrize("stacked", [True, False])
def test_a_module_that_works_in_place_has_its_own_row(stacked):
    def head(x):
        return x.mean((-2, -1)) if stacked or float(x.sum()) < math.inf else x

    net = stack(conv(1, 3), nn.ReLU(inplace=True), Ramp(), Function(head))
    found = equivariance(net, noise(2, 1, 6, 6), actions.translations((6, 6)))
    assert found.vmapped == stacked and found.culprit == "2 (Ramp)" and found["1"].status == "kept"
    assert (
        not equivariance(stack(conv(1, 3), nn.Identity()), noise(2, 1, 6, 6), actions.translations((6, 6)))["0"].acts
        == ""
    )


def test_a_loop_whose_length_depends_on_the_inputs():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = stack(nn.Linear(3, 3))

        def forward(self, x):
            for _ in range(1 + int(float(x[0, 0, 0]) > 0)):
                x = self.step(x)
            return x

    found = equivariance(Loop(), noise(2, 4, 3), actions.permutations(4, outputs="same"))
    assert found.tried == 24 and not found.vmapped and not found.exact
    assert found["step.0"].status == "kept"


@pytest.mark.parametrize("name", CULPRITS)
def test_culprit(name):
    build, culprit = CULPRITS[name]
    found = equivariance(build(), noise(2, 1, 6, 6), actions.translations((6, 6)))
    assert found.culprit.startswith(culprit) and found.verdict.startswith(f"broken at {culprit}")
    before = [row for row in found.layers if row.name < culprit]
    assert all(row.status == "kept" for row in before)


def test_a_strided_layer_keeps_the_multiples_of_its_stride():
    net = stack(conv(1, 2, stride=2))
    found = equivariance(net, noise(1, 1, 6, 6), actions.translations((6, 6), outputs=lambda t, y: y))
    row = found["0"]
    assert row.acts == "map, 2 times coarser" and row.status == "broken"
    even = actions.finite(
        "even", [(a, b) for a in (0, 2, 4) for b in (0, 2, 4)], lambda t, x: x.roll(t, (-2, -1)),
        lambda t, y: y.roll((t[0] // 2, t[1] // 2), (-2, -1)), actions.translations((6, 6)).features,
    )  # fmt: skip
    assert equivariance(net, noise(1, 1, 6, 6), even)["0"].status == "kept"


def test_group_channels_are_recognised():
    net, x = GroupCNN([1, 2, 2], 3, group="p4", **double()), noise(2, 1, 5, 5)
    found = equivariance(net, x, actions.rotations(4))
    assert found.exact and [row.acts for row in found.layers[:2]] == ["regular", "regular"]
    flipped = equivariance(net, x, actions.rotations(4, reflections=True))
    assert not flipped.exact and flipped.culprit == "layers.0 (LiftingConv)" and "mirrored" in flipped.worst_at
    both = GroupCNN([1, 2, 2], 3, group="p4m", **double())
    assert equivariance(both, x, actions.rotations(4, reflections=True))["layers.1"].acts == "regular"
    assert equivariance(both, x, actions.rotations(4)).exact  # a subgroup


def test_a_representation_that_shapes_cannot_tell():
    """Fields of vectors: unknown where the output is kept, kept once told."""
    from lemmata.architectures.steerable import transform_field

    fields = [{"A": 1}, {"A": 1, "E": 1}, {"A": 2}]
    net, x, turns = SteerableCNN(fields, group="C4", **double()), noise(2, 1, 5, 5), actions.rotations(4)
    found = equivariance(net, x, turns)
    assert found.exact and found["layers.0"].status == "unknown"
    told = equivariance(net, x, turns, features={"layers.0": lambda g, f: transform_field(g, f, fields[1], "C4")})
    assert told["layers.0"].status == "kept" and told["layers.0"].acts == "given"


def test_orders_of_time_and_of_sets():
    encoder = Encoder(4, 2, 1, positions="none", **double())
    assert equivariance(encoder, noise(2, 5, 4), actions.permutations(5, outputs="same")).exact
    placed = Encoder(4, 2, 1, positions="sinusoidal", length=5, **double())
    assert not equivariance(placed, noise(2, 5, 4), actions.permutations(5, outputs="same")).exact
    assert not equivariance(LSTM(3, 4, **double()), noise(2, 5, 3), actions.reversal(outputs="same")).exact


def test_a_flattened_set_is_followed_to_the_layer_that_reads_it():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 3)).double()
    found = equivariance(net, torch.randint(7, (3, 5), generator=seeded()), actions.permutations(5))
    assert found["1"].acts == "flattened, axis 1" and found.culprit == "2 (Linear)" and found.control > 0.1
    turned = equivariance(stack(nn.Flatten(), nn.Tanh()), noise(2, 3, 5), actions.permutations(5, axis=2))
    assert turned["1"].acts == "flattened, last axis" and turned["1"].status == "kept"


def test_content_that_stays_away_from_the_border_may_move_with_zero_padding():
    """A mean over positions: exact while the receptive field does not meet the border, and not if it does."""
    net = stack(conv(1, 3, "zeros"), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = nn.functional.pad(noise(1, 1, 3, 3), (3,) * 4)
    window = actions.translations((9, 9), padding="zeros", reach=2)
    assert equivariance(net, x, window).exact
    assert not equivariance(net, x, actions.translations((9, 9), padding="zeros", reach=3)).exact


def test_batch_statistics_are_the_callers_choice():
    net = stack(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    assert equivariance(net, noise(4, 3), actions.signs(), batch_stats="batch").exact


# Groups too large to walk through


def test_continuous_motions_are_drawn():
    """The catalogue checks 48 motions of the plane's grid; these are any."""
    entry = next(e for e in ARCHITECTURES if e.family == "EGNN")
    (h, x), net = entry.sample(0, torch.float64, "cpu")[0], entry.build()
    assert isinstance(net, EGNN)
    motions = actions.motions(x.shape[-1], outputs="same").at(1)
    found = equivariance(net, (h, x), motions)
    assert found.exact and found.order == math.inf and 32 <= found.tried <= 256
    assert found["layers.0"].status == "kept" and found["layers.0"].acts == "invariant; points"  # it puts out a pair
    assert found.beyond == pytest.approx(1 - 0.05 ** (1 / found.tried)) and "of ∞" in repr(found)
    wrong = motions.with_outputs("invariant")
    assert not equivariance(net, (h, x), wrong).exact


def test_the_mean_over_a_large_group_has_an_interval_that_covers():
    """f(x) = x₀ on sets of eight distinct numbers: e = |x_j − x₀| / |x₀| with j uniform."""
    x = noise(1, 8)
    truth = float((x[0] - x[0, 0]).abs().mean() / x[0, 0].abs())
    covered = 0
    for seed in range(20):
        found = equivariance(Function(lambda x: x[:, :1]), x, actions.permutations(8), seed=seed, tol=0.02, most=64)
        low, high = found.mean.interval()
        covered += low <= truth <= high
        assert found.tried == 64 and not found.mean.converged  # the tolerance asks for more
    assert covered >= 17


def test_interpolation_is_approximate():
    def blob(side):
        u = (torch.arange(side, dtype=torch.float64) * 2 + 1) / side - 1
        return torch.exp(-6 * ((u[:, None] - 0.2) ** 2 + u[None] ** 2))[None, None]

    radial = Function(lambda x: x.mean((-2, -1)))  # the mean is invariant to rotations but for interpolation
    found = equivariance(radial, blob(32), actions.rotations(8))
    assert found.verdict.startswith("approximate") and 0 < found.worst < found.interpolation < 0.1
    assert equivariance(radial, blob(32), actions.rotations(4)).verdict == "exact"


# What cannot be said


def test_a_model_that_sees_nothing_is_blind_not_exact():
    found = equivariance(Function(lambda x: x[:, :1] * 0 + 1), noise(2, 4), actions.permutations(4))
    assert found.verdict.startswith("blind") and not found.exact


def test_tokens_that_are_not_read_and_those_that_are():
    tokens = torch.randint(7, (3, 5), generator=seeded())
    constant = Function(lambda x: torch.ones(3, 2, dtype=torch.float64))
    assert equivariance(constant, tokens, actions.permutations(5)).verdict.startswith("blind")
    bag = stack(nn.EmbeddingBag(7, 4))
    assert equivariance(bag, tokens, actions.permutations(5)).verdict == "exact"


def test_a_precision_too_coarse_to_tell_is_not_called_exact():
    net = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)).bfloat16()
    found = equivariance(net, noise(4, 16).bfloat16(), actions.signs())
    assert found.tolerance > 1 and found.verdict.startswith("blind: the control") and not found.exact


def test_a_group_of_one_element_is_kept():
    assert equivariance(Function(lambda x: x.mean(1)), noise(2, 1, 3), actions.permutations(1)).verdict == "exact"


def test_single_precision_under_double_outputs():
    """Rounding is that of the coarsest part, here before the last."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.AdaptiveAvgPool2d(1))
    pooled = nn.Sequential(net, nn.Flatten(), Function(torch.Tensor.double))
    found = equivariance(pooled, noise(2, 1, 6, 6).float(), actions.translations((6, 6)))
    assert found.worst > 1e-9 and found.exact and found.dtype == "float64"


@pytest.mark.parametrize("scale", [1e-170, 1e200])
def test_errors_do_not_depend_on_the_unit(scale):
    x, orders = noise(2, 4), actions.permutations(4)
    assert equivariance(Function(lambda x: scale * x.sum(1)), x, orders).exact
    errors = [equivariance(Function(lambda x: s * x.cumsum(1)), x, orders).worst for s in (1, scale)]  # noqa: B023
    assert errors[1] == pytest.approx(errors[0], rel=1e-12)


def test_interpolation_excuses_no_error_as_large_as_the_controls():
    """White noise cannot be turned by 45°; a network without the symmetry does not become approximate by that."""
    net = stack(conv(1, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = equivariance(net, noise(2, 1, 9, 9), actions.rotations(8))
    assert 0.1 < found.worst < found.interpolation
    assert replace(found, control=0.9 * found.worst).verdict.startswith("broken at 0 (Conv2d)")


def test_homogeneity_and_its_bias():
    factors = actions.scalings(1.0)
    assert equivariance(MLP([3, 5, 2], activation="relu", bias=False, **double()), noise(4, 3), factors).exact
    found = equivariance(MLP([3, 5, 2], activation="relu", **double()), noise(4, 3), factors)
    assert found.culprit == "layers.0 (Linear)"


@pytest.mark.parametrize(
    ("model", "inputs", "action", "error", "text"),
    [
        (
            stack(nn.Linear(3, 3), nn.Dropout(0.5)),
            noise(2, 3),
            actions.signs(),
            ModelStateError,
            r"1 \(Dropout\).*eval",
        ),
        (stack(nn.BatchNorm1d(3)), noise(2, 3), actions.signs(), ModelStateError, r"0 \(BatchNorm1d\).*eval"),
        (Function(lambda x: x + torch.randn_like(x)), noise(2, 3), actions.signs(), ModelStateError, "random numbers"),
        (Function(lambda x: 0 * x), noise(2, 3), actions.signs(), NumericsError, "output.*gradient_health"),
        (Function(lambda x: x.argmax(1)), noise(2, 3), actions.signs(), ArgumentError, "floating-point.*scores"),
        (lambda x: x, noise(2, 3), actions.signs(), ArgumentError, "torch.nn.Module.*Wrap"),
        (stack(nn.Linear(3, 3)), noise(2, 3).float(), actions.signs(), DataError, "float64"),
        (stack(nn.Linear(3, 3)), noise(0, 3), actions.signs(), DataError, r"at least one example.*\(0, 3\)"),
        (stack(conv(1, 2)), noise(1, 1, 4, 5), actions.rotations(4), OperandError, "square.*[Cc]rop"),
        (
            Function(lambda x: x.mean(1)),
            noise(2, 4, 3),
            replace(actions.permutations(4), compose=lambda g, h: g),
            OperandError,
            r"S4 on inputs: expected ρ\(g\)ρ\(h\) = ρ\(gh\)",
        ),
    ],
)
def test_bad_input(model, inputs, action, error, text):
    with pytest.raises(error, match=text):
        equivariance(model, inputs, action)


def test_the_model_is_not_touched():
    net, x = CNN([1, 3], 2, **double()), noise(2, 1, 4, 4)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    state = torch.get_rng_state()
    equivariance(net, x, actions.translations((4, 4)))
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in net.named_parameters())
    assert torch.equal(state, torch.get_rng_state()) and not any(m._forward_hooks for m in net.modules())


# Reports


def test_report():
    net, x = GroupCNN([1, 2, 2], 3, group="p4", **double()), noise(2, 1, 5, 5)
    groups = [actions.translations((5, 5)), actions.rotations(4), actions.rotations(4, reflections=True)]
    report = invariance_report(net, x, groups)
    assert report.symmetries == ("translations of the 5×5 torus", "rotations C4")
    assert report.culprits == {"rotations and reflections D4": "layers.0 (LiftingConv)"}
    assert "exact under translations of the 5×5 torus, rotations C4" in repr(report)
    again = InvarianceReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert repr(again) == repr(report) and repr(again.findings) == repr(report.findings)
    assert isinstance(again.findings[0], Equivariance)
    assert len(report.plot()) == 3


@pytest.mark.parametrize(
    ("model", "inputs", "symmetries"),
    [
        (lambda: DeepSets([3, 5], [5, 2], "mean", **double()), noise(2, 4, 3), ("orders of 4 elements, S4, invariant",)),
        (lambda: GroupCNN([1, 2], 3, group="p4m", **double()), noise(2, 1, 4, 4), ("rotations and reflections D4, invariant",)),
        (lambda: MLP([3, 5, 2], activation="tanh", bias=False, **double()), noise(4, 3), ("signs ±1, odd",)),
    ],
)  # fmt: skip
def test_suggested_groups_find_the_symmetry(model, inputs, symmetries):
    assert set(symmetries) <= set(invariance_report(model(), inputs).symmetries)
    assert not invariance_report(Noticing(model()), inputs).symmetries


def test_groups_of_one_name_are_numbered():
    """Running sums along an axis commute with orders along the other."""
    orders = [actions.permutations(5, axis, outputs="same") for axis in (2, 1)]
    report = invariance_report(Function(lambda x: x.cumsum(1)), noise(2, 5, 5), orders)
    assert report["orders of 5 elements, S5"].exact and not report["orders of 5 elements, S5 (2)"].exact


@pytest.mark.parametrize(
    ("model", "inputs", "error", "text"),
    [
        (nn.Linear(3, 3), noise(2, 3), DataError, "float32.*dtype"),
        (lambda x: 1 / 0, noise(2, 3), ArgumentError, "torch.nn.Module.*Wrap"),
        (nn.Linear(3, 3).double(), (), ArgumentError, "actions.*at least one group"),
    ],
)
def test_reports_of_what_does_not_fit(model, inputs, error, text):
    with pytest.raises(error, match=text):
        invariance_report(Function(lambda: noise(2)) if inputs == () else model, inputs)


def test_suggestions_by_shape():
    assert [a.name for a in suggested(noise(2, 1, 4, 5), noise(2))] == ["translations of the 4×5 torus, invariant"]
    assert suggested((noise(1, 2, 3), torch.ones(1, 2, 2) > 0), noise(1, 2)) == []
    names = [action.name for action in suggested(torch.ones(2, 1, 4, 5), torch.ones(2, 3))]
    assert names == ["translations of the 4×5 torus, invariant"]
    graph = (torch.ones(1, 4, 2), torch.ones(1, 4, 4))
    assert [a.name for a in suggested(graph, torch.ones(1, 4, 3))] == ["names of 4 nodes, S4, axis 1"]
    with pytest.raises(ArgumentError, match="actions.*at least one group.*permutations"):
        invariance_report(Function(lambda x: (x, x)), noise(2, 3))
    assert arguments(graph) == graph
