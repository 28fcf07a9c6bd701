"""Propagation through random networks against exact finite-width laws, the arc-cosine kernel and mean-field theory."""

from __future__ import annotations

import copy
import json
from math import acos, isfinite, log, pi

import numpy as np
import pytest
import torch
from scipy.special import digamma
from torch import Tensor, nn

from lemmata.analysis import LemmataError
from lemmata.analysis.errors import ArgumentError, DataError, LossError, ModelStateError, NumericsError, ParameterError
from lemmata.analysis.gradient_flow import MeanField, SignalPropagation, signal_propagation
from lemmata.analysis.gradient_flow.redraw import Redraw


def inputs(n: int, correlation: float = 0.6, pairs: int = 1, scale: float = 1.0) -> Tensor:
    """Pairs of inputs of this correlation, exactly, and of second moment scale²."""
    draws, rows = torch.Generator().manual_seed(0), []
    for _ in range(pairs):
        basis = torch.linalg.qr(torch.randn(n, 2, generator=draws, dtype=torch.float64))[0].T * n**0.5 * scale
        rows += [basis[0], correlation * basis[0] + (1 - correlation**2) ** 0.5 * basis[1]]
    return torch.stack(rows)


def network(n: int, depth: int, unit: type[nn.Module], bias: bool = False) -> nn.Sequential:
    parts = [part for _ in range(depth) for part in (nn.Linear(n, n, bias=bias), unit())]
    return nn.Sequential(*parts[:-1]).double()


def gaussian(weights: float, biases: float = 0.0):
    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, (weights / module.in_features) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, biases**0.5)

    return initialise


def test_linear_networks_follow_the_law_of_chi_squares() -> None:
    """Each layer adds ψ(n/2) + ln(2/n) to the mean of ln q, forward, and of ln g, back."""
    n, depth = 8, 9
    step = digamma(n / 2) + log(2 / n)
    found = signal_propagation(network(n, depth, nn.Identity), inputs(n), 240, gaussian(1.0), tol=0.0)
    assert found.draws == 240 and not found.converged
    for i, layer in enumerate(found.weighted):
        for part, layers in ((layer.signal, i + 1), (layer.gradient, depth - 1 - i)):
            assert abs(part.value - layers * step) <= 4 * part.stderr
        assert abs(layer.gradient_correlation.value - 1) < 1e-12  # the Jacobian is the same everywhere
    rate = found.gradient_rate
    assert abs(rate.value - step) < 4 * rate.stderr < abs(step)  # zero, which the means have, is told apart
    assert found["2"].kind == "Linear" and len(found.weighted) == depth


def test_intervals_over_draws_cover() -> None:
    """Those of the rates of linear networks hold the exact rate, to within chance; a third of their width does not."""
    step, inside, narrow = digamma(2) + log(2 / 4), 0, 0
    model, x = network(4, 3, nn.Identity), inputs(4)
    for seed in range(50):
        rate = signal_propagation(model, x, 10, gaussian(1.0), tol=0.0, seed=seed).gradient_rate
        assert rate is not None
        half = rate.interval()[1] - rate.value
        inside, narrow = inside + (abs(rate.value - step) < half), narrow + (abs(rate.value - step) < half / 3)
    assert 0.86 * 50 <= inside and narrow < 0.8 * 50


def test_gradients_of_rectifiers_decorrelate_by_the_arc_cosine_kernel() -> None:
    """The share of units active for both is 1 − arccos(c)/π: the correlation of gradients is the product of shares."""
    n, depth = 300, 6
    found = signal_propagation(network(n, depth, nn.ReLU), inputs(n, 0.2), 40, gaussian(2.0), tol=0.0)
    c, shares = 0.2, []
    for _ in range(depth - 1):
        shares.append(1 - acos(c) / pi)  # c is that of this layer's pre-activations
        c = c + ((1 - c * c) ** 0.5 - c * acos(c)) / pi
    truth = [float(np.prod(shares[i:])) for i in range(depth)]
    for layer, expected in zip(found.weighted, truth, strict=True):
        assert abs(layer.gradient_correlation.value - expected) < 0.03
    assert abs(found.weighted[0].gradient_correlation.value - 0.5 ** (depth - 1)) > 0.05


@pytest.mark.parametrize("weights", [1.0, 3.0], ids=["order", "chaos"])
def test_depths_are_those_of_mean_field_theory(weights: float) -> None:
    n, depth = 120, 12
    field = MeanField(torch.tanh, weights, 0.05, kinks=())
    model, x = network(n, depth, nn.Tanh, bias=True), inputs(n, 0.7 if weights == 1 else 0.35, scale=0.6)
    found = signal_propagation(model, x, 40, gaussian(weights, 0.05), field, tol=0.0)
    scales, width = field.depth_scales(), 4 / n  # by so much the logarithms of narrow networks may differ
    assert found.correlation_rate is not None and found.trainable_depth is not None and found.theory is not None
    assert abs(found.correlation_rate.value + 1 / scales.correlation) < 4 * found.correlation_rate.stderr + width
    assert abs(found.gradient_rate.value - 1 / scales.gradient) < 4 * found.gradient_rate.stderr + width
    assert (found.gradient_rate.value > 0.1) == (weights == 3.0) == (found.gradient_rate.value > -0.1)
    assert isfinite(found.trainable_depth.high) and found.trainable_depth.low < 6 * scales.correlation
    assert found.trainable_depth.value == pytest.approx(6 / abs(found.correlation_rate.value))
    assert abs(found.weighted[-1].signal.value - log(found.theory.variance[-1])) < 0.1
    assert abs(found.weighted[-1].correlation.value - found.theory.correlation[-1]) < 0.1


def test_a_reset_is_the_default_of_linear_layers() -> None:
    """Variance 1/(3n) without biases: a sixth is left in each layer of rectifiers, of signals and of gradients."""
    found = signal_propagation(network(100, 8, nn.ReLU), inputs(100), tol=0.1)
    assert found.converged and found.draws in (16, 32, 64)
    for rate in (found.signal_rate, found.gradient_rate):
        assert abs(rate.value + log(6)) < 0.1 and abs(rate.value + log(2)) > 0.5


def test_the_model_and_the_generators_are_left_alone() -> None:
    model = network(6, 4, nn.Tanh).requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first = signal_propagation(model, inputs(6), 20, tol=0.0)
    assert torch.equal(torch.get_rng_state(), state) and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert signal_propagation(model, inputs(6), 20, tol=0.0).to_dict() == first.to_dict()
    assert signal_propagation(model, inputs(6), 20, tol=0.0, seed=1).gradient_rate != first.gradient_rate


def test_silent_draws_are_left_out_and_told() -> None:
    found = signal_propagation(network(3, 6, nn.ReLU), inputs(3), 60, gaussian(2.0), tol=0.0)
    assert 0 < found.silent < 55 and f"{found.silent} draws left out" in repr(found)
    assert all(isfinite(layer.signal.value) and isfinite(layer.gradient.value) for layer in found.layers)
    with pytest.raises(NumericsError, match=r"zero in almost all draws.*[Ii]nitialisation"):
        signal_propagation(network(3, 6, nn.ReLU), inputs(3), 20, lambda m: _constant(m, -1.0))


def _constant(module: nn.Module, value: float) -> None:
    if isinstance(module, nn.Linear):
        nn.init.constant_(module.weight, value)


def test_convolutions_and_several_pairs() -> None:
    """He's variance counts the kernel's positions: on a torus nothing is lost in the mean."""
    convolutions = [nn.Conv2d(24, 24, 3, padding=1, padding_mode="circular", bias=False) for _ in range(4)]
    parts = [part for one in convolutions for part in (one, nn.ReLU())]
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(24 * 36, 5)).double()
    x = torch.randn(4, 24, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def he(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)

    found = signal_propagation(model, x, 24, he, tol=0.0)
    assert [layer.kind for layer in found.weighted] == ["Conv2d"] * 4 + ["Linear"]
    assert abs(found["6"].signal.value - log(2)) < 0.15  # 2 E x², the outputs before the rectifier


class Memory(nn.Module):
    """c ← σ(f) c + tanh(u), from c = 0, with weights of its own or a layer's."""

    def __init__(self, layer: bool) -> None:
        super().__init__()
        self.gates = nn.Linear(5, 8, bias=False)
        if not layer:
            self.W, self.gates = nn.Parameter(torch.zeros(8, 5)), None

    def forward(self, x: Tensor) -> Tensor:
        c = x.new_zeros(len(x), 4)
        for now in x.unbind(1):
            f, u = (now @ self.W.T if self.gates is None else self.gates(now)).chunk(2, -1)
            c = f.sigmoid() * c + u.tanh()
        return c


def test_recurrent_cells_and_shallow_networks_have_rows() -> None:
    """The first step's forget gate meets a state of zero: no gradient, and no row where it has one of its own."""
    x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    found = signal_propagation(Memory(False), x, 16, lambda m: nn.init.normal_(m.W))
    assert found.gradient_rate is None and found.trainable_depth is None and found.converged
    assert "model: sigmoid 1: no signal or gradient" in found.notes and "no rates" in found.notes[-1]
    assert all(note in repr(found) for note in found.notes) and found.plot().containers
    for shown in (found, signal_propagation(Memory(True), x, 16)):  # there all calls of a function are taken together
        assert len(shown.layers) >= 4
        assert all(abs(layer.gradient_correlation.value) <= 1 + 1e-9 for layer in shown.layers)
    shallow = signal_propagation(network(4, 2, nn.Tanh), inputs(4), 16)
    assert shallow.signal_rate is None and len(shallow.weighted) == 2


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


def odd() -> Tensor:
    return inputs(4, pairs=2)[:3]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: signal_propagation(nn.Sequential(nn.Linear(4, 4), Gain()), inputs(4)), ArgumentError, r"1 \(Gain\).*f\("),
        (lambda: signal_propagation(network(4, 4, nn.Tanh), inputs(4), initialise=lambda m: m), ArgumentError, "initial"),
        (lambda: signal_propagation(network(4, 4, nn.Tanh), odd()), DataError, r"inputs.*even.*Pass two"),
        (lambda: signal_propagation(nn.Sequential(nn.LazyLinear(3)), inputs(4)), ModelStateError, r"0 \(LazyLinear\).*once"),
        (lambda: signal_propagation(nn.Tanh(), inputs(4)), ParameterError, "model.*weights"),
        (lambda: signal_propagation(network(4, 4, nn.Tanh), inputs(4), draws=3), ArgumentError, r"draws.*64"),
        (lambda: signal_propagation(network(4, 4, nn.Tanh), inputs(4), tol=-1), ArgumentError, r"tol.*0\.05"),
        (lambda: signal_propagation(network(4, 4, nn.Tanh), inputs(4).float()), DataError, r"inputs.*Cast"),
        (
            lambda: signal_propagation(network(4, 9, nn.Identity), inputs(4), initialise=gaussian(1e80)),
            NumericsError,
            r"Linear.*finite",
        ),
        (
            lambda: signal_propagation(nn.Sequential(network(4, 4, nn.Tanh), nn.Flatten(0)), inputs(4)),
            LossError,
            r"output.*Wrap",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_culprit_and_the_remedy(call, error: type[LemmataError], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_records_tables_and_plots() -> None:
    field = MeanField(torch.tanh, 1.0)
    found = signal_propagation(network(30, 5, nn.Tanh), inputs(30), 16, gaussian(1.0), field)
    again = SignalPropagation.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) and again.theory is not None and found.theory is not None
    assert np.array_equal(again.theory.variance, found.theory.variance)
    assert "0 (Linear)" in repr(found) and "layers [" in repr(found)
    ax = found.plot()
    assert len(ax.containers) == 3 and len([line for line in ax.lines if line.get_marker() == "None"]) >= 3


def test_inputs_changed_in_place_stay_the_users() -> None:
    """Doubled in each draw, they would grow by 2¹⁶."""

    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    body, x = network(6, 3, nn.Tanh), inputs(6)
    before = x.clone()
    found = signal_propagation(nn.Sequential(Doubling(), body), x, 16, tol=0.0)
    assert torch.equal(x, before)
    plain = signal_propagation(nn.Sequential(nn.Identity(), body), 2 * x, 16, tol=0.0)
    assert found["1.0"].signal.value == pytest.approx(plain["1.0"].signal.value, rel=1e-12)


def test_a_weight_that_is_not_drawn_is_named() -> None:
    model = network(4, 4, nn.Tanh)

    def some(module: nn.Module) -> None:
        if module is not copied[0] and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)

    copied: list[nn.Module] = []

    def first(module: nn.Module) -> None:
        if isinstance(module, nn.Linear) and not copied:
            copied.append(module)
        some(module)

    with pytest.raises(ArgumentError, match=r"initialise: .*leaves 0\.weight.*in place"):
        signal_propagation(model, inputs(4), 16, first)
    zeros = network(4, 4, nn.Tanh)
    nn.init.zeros_(zeros[2].weight)
    redraw = Redraw(zeros, lambda m: isinstance(m, nn.Linear) and nn.init.zeros_(m.weight))
    redraw(0)
    redraw.check()  # written, though nothing changed


def test_draws_touch_no_accelerator_that_they_do_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    Redraw(layer, None)(5)
    assert not seeds
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        other.reset_parameters()
    assert torch.equal(layer.weight, other.weight)


def test_the_default_device_plays_no_part() -> None:
    model, x = network(5, 4, nn.Tanh), inputs(5)
    truth = signal_propagation(model, x, 16)
    with torch.device("meta"):
        found = signal_propagation(model, x, 16)
    assert found.to_dict() == truth.to_dict()
