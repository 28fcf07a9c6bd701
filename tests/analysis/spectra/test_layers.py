"""Probes on the outputs of layers against dense Hessians, and models that they must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.spectra import layers
from lemmata.analysis.spectra.layers import Signs

CE, MSE = nn.CrossEntropyLoss(), nn.MSELoss()
PROBES, UNITS, CONTROLLED = "layer probes", "layer units", "control variate, layer probes"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def mlp(width: int = 6) -> nn.Module:
    middle = nn.Linear(width, width, bias=False)
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), middle, nn.GELU(), nn.Linear(width, 3))


class Mean(nn.Module):
    """A network at each place of a sequence, whose outputs are averaged."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean(1)


class Apart(nn.Module):
    """One parameter a weight alone, another a bias alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(3))
        self.register_buffer("fixed", torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(nn.functional.linear(x, self.weight))
        return torch.tanh(nn.functional.linear(hidden, self.fixed, self.bias))


def convolution() -> nn.Module:
    first, second = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 4, (2, 1), bias=False)
    return nn.Sequential(first, nn.Tanh(), second, nn.Softplus(), nn.Flatten(), nn.Linear(24, 3))


DRAWS = torch.Generator().manual_seed(0)
X, TARGETS, SEQUENCES, IMAGES = (
    torch.randn(9, *shape, generator=DRAWS).double() for shape in ((5,), (3,), (4, 5), (2, 5, 5))
)
LABELS = torch.randint(0, 3, (9,), generator=DRAWS)
CASES: dict[str, tuple[Callable[[], nn.Module], Any, Tensor, Tensor]] = {
    "perceptron": (mlp, CE, X, LABELS),
    "sum of squares": (mlp, nn.MSELoss(reduction="sum"), X, 5 * TARGETS),
    "weights": (mlp, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]).double()), X, LABELS),
    "not convex": (mlp, lambda f, t: torch.cos(f).sum(1).mean(), X, LABELS),
    "short sequence": (lambda: Mean(mlp()), CE, SEQUENCES, LABELS),
    "long sequence": (lambda: Mean(mlp(2)), CE, SEQUENCES, LABELS),
    "convolution": (convolution, CE, IMAGES, LABELS),
    "weight and bias apart": (Apart, CE, X, LABELS),
}


@pytest.mark.parametrize("name", CASES)
def test_unit_vectors_give_the_trace_of_the_dense_matrix(name: str) -> None:
    build, loss, x, y = CASES[name]
    model = build().double()
    batches = (x, y) if name == "sum of squares" else [(x[:4], y[:4]), (x[4:], y[4:])]
    H = la.Hessian(model, loss, batches)
    truth = float(np.trace(H.dense().numpy()))
    found = la.trace(H, 1e-12)
    assert found.method == UNITS and found.stderr == 0 and found.converged
    assert found.value == pytest.approx(truth, rel=1e-9)
    gauss = float(np.trace(la.GGN(model, loss, batches).dense().numpy()))
    assert found.value != pytest.approx(gauss, rel=1e-4)  # what is left out of it counts


def test_some_parameters_alone() -> None:
    model = mlp().double()
    for params in ("*bias", "0.*", "2.weight"):
        H = la.Hessian(model, CE, (X, LABELS), params)
        assert la.trace(H, 1e-12).value == pytest.approx(np.trace(H.dense().numpy()), rel=1e-9)


@pytest.mark.parametrize("name", ["perceptron", "short sequence"])
def test_probes_are_right_in_the_mean_and_their_intervals_cover(name: str) -> None:
    build, loss, x, y = CASES[name]
    H = la.Hessian(build().double(), loss, (x, y))
    truth = float(np.trace(H.dense().numpy()))
    found = [la.trace(H, 0.9, max_matvecs=10, seed=seed) for seed in range(100)]
    values = np.array([e.value for e in found])
    assert abs(values.mean() - truth) < 4 * values.std() / 10
    assert abs(values.mean() - 1.2 * truth) > 4 * values.std() / 10
    assert 0.95 - 0.06 <= np.mean([e.interval()[0] <= truth <= e.interval()[1] for e in found])
    assert np.mean([abs(e.value - truth) <= e.stderr for e in found]) < 0.85


def test_examples_cancel_each_other() -> None:
    x = torch.randn(100, 5).double()
    H = la.Hessian(mlp(20).double(), CE, (x, torch.randint(0, 3, (100,))))
    ours = np.std([la.trace(H, 0.9, max_matvecs=10, seed=seed).value for seed in range(60)])
    same = np.std([la.trace(H.shift(0.0), 0.9, max_matvecs=10, seed=seed).value for seed in range(60)])
    assert ours < same / 3  # a tenth of the variance at most


def test_the_part_that_is_known_exactly_leaves_less_to_probe() -> None:
    model = mlp(40).double()
    fitted = model(X).detach() + 0.01 * torch.randn(9, 3).double()
    H = la.Hessian(model, MSE, (X, fitted))
    truth = float(np.trace(H.dense().numpy()))
    found = [la.trace(H, 0.01, seed=seed) for seed in range(100)]
    assert all(e.method == CONTROLLED and e.converged and e.matvecs <= 30 for e in found)
    assert 0.9 <= np.mean([e.interval()[0] <= truth <= e.interval()[1] for e in found])
    wrong = truth - la.trace(la.GGN(model, MSE, (X, fitted))).value  # without the exact part
    assert not any(e.interval()[0] <= wrong <= e.interval()[1] for e in found)
    far = la.Hessian(model, MSE, (X, 100 * torch.randn(9, 3).double()))
    assert la.trace(far, 0.3, max_matvecs=100).method != CONTROLLED
    short = la.trace(far, 1e-9, max_matvecs=60)
    assert short.matvecs <= 60 and not short.converged


def test_same_seed_same_probes_whatever_the_block_the_memory_and_the_global_generator() -> None:
    model, data = mlp().double(), [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])]
    first = la.trace(la.Hessian(model, CE, data), 0.6, seed=3)
    torch.manual_seed(5)
    for block, cap in ((1, None), (3, None), (64, 0)):
        other = la.trace(la.Hessian(model, CE, data, memory_cap=cap), 0.6, seed=3, block=block)
        assert other.method == first.method == PROBES and other.matvecs == first.matvecs
        assert other.value == pytest.approx(first.value, rel=1e-12)
        assert other.stderr == pytest.approx(first.stderr, rel=1e-9)
    assert la.trace(la.Hessian(model, CE, data), 0.6, seed=4).value != first.value


def test_signs_are_fair_and_each_is_drawn_once() -> None:
    shapes = [(3, 2, 7), (3, 1, 1)]
    found = Signs(1).draw(400, shapes, torch.zeros(1))
    assert [tuple(part.shape) for part in found] == [(400, *shape) for shape in shapes]
    flat = torch.cat([part.flatten(1) for part in found], 1).double()
    assert torch.equal(flat.abs(), torch.ones_like(flat))
    gram = flat.T @ flat / 400 - torch.eye(45)
    assert float(gram.abs().max()) < 5 / 20 and abs(float(flat.mean())) < 5 / np.sqrt(flat.numel())
    drawn = Signs(1)
    again = [torch.cat(pair) for pair in zip(*(drawn.draw(k, shapes, torch.zeros(1)) for k in (150, 250)), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_an_operation_without_a_batched_derivative_takes_one_probe_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    H = la.Hessian(mlp().double(), CE, (X, LABELS))
    truth = la.trace(H, 0.2, seed=3)
    plain = layers.Forms._multiply

    def alone(self: Any, directions: list[Tensor], several: bool) -> Tensor:
        if several:
            raise RuntimeError("no batching rule")
        return plain(self, directions, several)

    monkeypatch.setattr(layers.Forms, "_multiply", alone)
    found = la.trace(H, 0.2, seed=3)
    assert found.method == truth.method and found.value == pytest.approx(truth.value, rel=1e-12)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


class Centred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(x))
        return self.out(hidden - hidden.mean(0))


LEFT_ALONE: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "a layer used twice": (Tied, CE),
    "examples that see each other": (Centred, CE),
    "another layer": (lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)), CE),
    "a loss that couples examples": (mlp, lambda f, t: (f @ f.T).square().mean()),
    "a layer of two factors": (lambda: nn.Bilinear(5, 5, 3), CE),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_not_proved_takes_probes_of_the_parameters(name: str) -> None:
    build, loss = LEFT_ALONE[name]
    model = build().double()
    x = (X, X) if name == "a layer of two factors" else X
    H = la.Hessian(model, loss, [(x, LABELS)])
    found = la.trace(H, 0.3)
    assert "layer" not in found.method and found.method != "per-example gradients"
    low, high = found.interval(0.9999)
    assert low - 1e-10 <= np.trace(H.dense().numpy()) <= high + 1e-10
