"""Exact routes by gradients of single examples against dense matrices, and models they must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import OperandError
from lemmata.analysis.spectra.diagonal import diagonal
from lemmata.analysis.spectra.structured import gram_spectrum
from lemmata.analysis.spectra.trace import trace

EXACT = "per-example gradients"
CE, MSE = nn.CrossEntropyLoss(), nn.MSELoss()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Wrapped(nn.Module):
    """A model given as a function of its layers."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.run = nn.ModuleDict(layers), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, **self.layers)


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), activation, nn.Linear(6, 6, bias=False), activation, nn.Linear(6, 3))


def residual(x: Tensor, first: nn.Module, second: nn.Module, third: nn.Module) -> Tensor:
    hidden = torch.relu(first(x))
    return third(hidden + torch.relu(second(hidden)))


def convolution() -> nn.Module:
    layers = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, (2, 1), bias=False), nn.ReLU()
    return nn.Sequential(*layers, nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(8, 3))


LINES = {"first": nn.Linear(5, 6), "second": nn.Linear(6, 6), "third": nn.Linear(6, 3)}
X, LABELS = torch.randn(9, 5).double(), torch.randint(0, 3, (9,))
SEQUENCES, IMAGES = torch.randn(9, 4, 5).double(), torch.randn(9, 2, 5, 5).double()
CASES: dict[str, tuple[Callable[[], nn.Module], Any, Tensor, Tensor, bool]] = {
    "relu": (lambda: mlp(nn.ReLU()), CE, X, LABELS, True),
    "leaky": (lambda: mlp(nn.LeakyReLU()), nn.CrossEntropyLoss(label_smoothing=0.1), X, LABELS, True),
    "tanh": (lambda: mlp(nn.Tanh()), CE, X, LABELS, False),
    "mse sum": (lambda: mlp(nn.ReLU()), nn.MSELoss(reduction="sum"), X, torch.randn(9, 3).double(), True),
    "residual": (lambda: Wrapped(residual, **LINES), CE, X, LABELS, True),
    "sequence": (lambda: Wrapped(lambda x, net: net(x).mean(1), net=mlp(nn.ReLU())), CE, SEQUENCES, LABELS, True),
    "long narrow sequence": (
        lambda: Wrapped(lambda x, net: net(x).sum(1), net=nn.Linear(5, 3)),
        CE,
        SEQUENCES,
        LABELS,
        True,
    ),
    "convolution": (convolution, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]).double()), IMAGES, LABELS, True),
    "not convex": (lambda: mlp(nn.Tanh()), lambda f, t: torch.cos(f).sum(1).mean(), X, LABELS, False),
}


@pytest.mark.parametrize("name", CASES)
def test_gauss_newton_trace_and_diagonal_are_those_of_the_dense_matrix(name: str) -> None:
    build, loss, inputs, target, affine = CASES[name]
    model = build().double()
    batches = [(inputs[:4], target[:4]), (inputs[4:], target[4:])] if name != "mse sum" else (inputs, target)
    G = la.GGN(model, loss, batches)
    truth = np.diag(G.dense().numpy())
    found = trace(G)
    assert found.method == EXACT and found.stderr == 0
    assert found.value == pytest.approx(truth.sum(), rel=1e-10)
    assert found.value != pytest.approx(truth.sum() * 1.001, rel=1e-10)
    exact = diagonal(G)
    assert exact.method == EXACT and np.allclose(exact.values.numpy(), truth, rtol=1e-9, atol=1e-13)
    H = la.Hessian(model, loss, batches)
    dense = np.diag(H.dense().numpy())
    whole = trace(H, 0.05)
    assert (whole.method == EXACT) == affine
    low, high = whole.interval(0.9999)
    assert low - 1e-10 <= dense.sum() <= high + 1e-10
    if affine:
        assert np.allclose(diagonal(H).values.numpy(), dense, rtol=1e-9, atol=1e-13)
    else:
        assert abs(truth.sum() - dense.sum()) > 1e-3 * abs(dense.sum())
        assert diagonal(H, 0.3).method != EXACT


def test_fisher_matrices() -> None:
    model = mlp(nn.Tanh()).double()
    for F, columns in ((la.Fisher(model, CE, (X, LABELS)), 2), (la.EmpiricalFisher(model, CE, (X, LABELS)), 1)):
        found = trace(F)
        assert found.method == EXACT and found.matvecs == columns
        assert found.value == pytest.approx(np.trace(F.dense().numpy()), rel=1e-10)


def test_some_parameters_alone() -> None:
    model = mlp(nn.ReLU()).double()
    for params in ("*bias", "0.*", "2.weight"):
        G = la.GGN(model, CE, (X, LABELS), params)
        assert trace(G).method == EXACT
        assert trace(G).value == pytest.approx(np.trace(G.dense().numpy()), rel=1e-10)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.inner(torch.relu(self.inner(x)))))


LEFT_ALONE: dict[str, Callable[[], nn.Module]] = {
    "a layer used twice": Tied,
    "examples that see each other": lambda: Wrapped(lambda x, net: net(x - x.mean(0)) @ net(x).T, net=nn.Linear(5, 3)),
    "centred activations": lambda: Wrapped(
        lambda x, a, b: b((h := a(x)) - h.mean(0)), a=nn.Linear(5, 5), b=nn.Linear(5, 3)
    ),
    "another layer": lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)),
    "grouped convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (5, 1, 1)), nn.Conv2d(5, 5, 1, groups=5), nn.Flatten()
    ),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_not_proved_is_estimated(name: str) -> None:
    model = LEFT_ALONE[name]().double()
    G = la.GGN(model, CE, (X, LABELS))
    found = trace(G, 0.05)
    assert found.method != EXACT
    low, high = found.interval(0.9999)
    assert low - 1e-10 <= np.trace(G.dense().numpy()) <= high + 1e-10
    assert trace(la.Hessian(model, CE, (X, LABELS)), 0.3).method != EXACT


def test_bilinear_model_is_not_called_piecewise_affine() -> None:
    model = Wrapped(lambda x, a, b: a(x) * b(x), a=nn.Linear(5, 3), b=nn.Linear(5, 3)).double()
    found = trace(la.Hessian(model, CE, (X, LABELS)), 0.3)
    assert found.method != EXACT


def test_loss_that_couples_examples_is_left_alone() -> None:
    def contrast(f: Tensor, t: Tensor) -> Tensor:
        return (f @ f.T).square().mean()

    G = la.GGN(mlp(nn.ReLU()).double(), contrast, (X, LABELS))
    assert trace(G, 0.1).method != EXACT


@pytest.mark.parametrize("name", ["relu", "sequence", "convolution", "tanh"])
def test_gram_spectrum_is_the_non_zero_spectrum(name: str) -> None:
    build, loss, inputs, target, _ = CASES[name]
    G = la.GGN(build().double(), loss, (inputs, target))
    truth = np.sort(np.linalg.eigvalsh(G.dense().numpy()))[::-1]
    found = gram_spectrum(G).numpy()
    count = min(len(found), len(truth))
    assert len(found) == 9 * 2
    assert np.allclose(found[:count], truth[:count], rtol=0, atol=1e-12 * truth[0])
    assert abs(truth[count:]).max(initial=0) < 1e-10 * truth[0]
    assert not np.allclose(found[:count], truth[:count] * (1 + 1e-6), rtol=0, atol=1e-12 * truth[0])


def test_gram_spectrum_says_what_it_cannot_take() -> None:
    model = mlp(nn.Tanh()).double()
    with pytest.raises(OperandError, match=r"Gauss–Newton.*Dense.*la.eigenpairs"):
        gram_spectrum(la.Dense(torch.eye(3)))
    with pytest.raises(OperandError, match=r"Gauss–Newton.*Hessian"):
        gram_spectrum(la.Hessian(model, CE, (X, LABELS)))
    with pytest.raises(OperandError, match=r"one batch.*2 batches"):
        gram_spectrum(la.GGN(model, CE, [(X, LABELS), (X, LABELS)]))
    with pytest.raises(OperandError, match=r"convex.*negative"):
        gram_spectrum(la.GGN(model, CASES["not convex"][1], (X, LABELS)))


def test_a_later_batch_without_structure_sends_all_to_the_probes() -> None:
    def run(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        hidden = a(x)
        return b(hidden if len(x) == 4 else hidden - hidden.mean(0))

    bent = Wrapped(run, a=nn.Linear(5, 4), b=nn.Linear(4, 3))
    G = la.GGN(bent.double(), CE, [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])])
    assert trace(G, 0.2).method != EXACT


def test_no_small_curvature_of_the_loss_is_taken_for_rounding() -> None:
    """Two classes of 128 are likely, the rest as rare as 10⁻⁴: E‖(x, 1)‖² (1 − Σp²) has a part from each."""
    p = torch.full((128,), 7e-5)
    p[0], p[1] = 0.5, 0.5 - 126 * 7e-5
    model, X, labels = nn.Linear(3, 128), torch.randn(8, 3), torch.zeros(8, dtype=torch.long)
    nn.init.zeros_(model.weight)
    model.bias.data = p.log()
    exact = p.double() / p.double().sum()
    squares = X.double().square().mean(0)
    truth = float((squares.sum() + 1) * (1 - exact.square().sum()))
    for kind in (la.GGN, la.Hessian):
        found = trace(kind(model, CE, (X, labels)))
        assert found.method == EXACT and found.value == pytest.approx(truth, rel=1e-5)
    G = la.GGN(model, CE, (X, labels))
    rows = torch.cat([(exact * (1 - exact))[:, None] * squares, (exact * (1 - exact))[:, None]], 1)
    entries = torch.cat([rows[:, :3].reshape(-1), rows[:, 3]])
    assert torch.allclose(diagonal(G).values.double(), entries, rtol=1e-4)
    features = torch.cat([X.double(), torch.ones(8, 1).double()], 1)
    middle = torch.linalg.eigvalsh(exact.diag() - exact.outer(exact))[1:]
    values = (
        torch.outer(middle, torch.linalg.eigvalsh(features.T @ features / 8)).reshape(-1).sort(descending=True).values
    )
    assert torch.allclose(gram_spectrum(G)[: 127 * 4], values, rtol=5e-3, atol=0)  # the last is 10⁻⁵ of the first


class Growing:
    """Data that every pass finds changed, as random augmentations do."""

    passes = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.passes += 1
        yield X * self.passes, LABELS


@pytest.mark.parametrize("kind", [la.GGN, la.Hessian])
def test_other_data_than_the_operator_has_is_no_exact_trace(kind: Any) -> None:
    H = kind(mlp(nn.ReLU()).double(), CE, Growing())  # its graphs are kept
    found, truth = trace(H, 0.02), np.trace(H.dense().numpy())
    low, high = found.interval(0.9999)
    assert found.method != EXACT and low <= truth <= high


@pytest.mark.parametrize("examples", [2, 9])
def test_examples_that_see_those_before_them_are_not_taken_apart(examples: int) -> None:
    model = Wrapped(lambda x, net: torch.tanh(net(x)).cumsum(0), net=nn.Linear(5, 3)).double()
    G = la.GGN(model, MSE, (X[:examples], torch.zeros(examples, 3).double()))
    found = trace(G, 0.02)
    low, high = found.interval(0.9999)
    assert found.method != EXACT and low <= np.trace(G.dense().numpy()) <= high


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_the_default_device_plays_no_part(name: str) -> None:
    build, loss, inputs, target, _ = CASES[name]
    H = la.Hessian(build().double(), loss, [(inputs[:4], target[:4]), (inputs[4:], target[4:])])
    truth = trace(H, 0.1)
    with torch.device("meta"):
        found = trace(H, 0.1)
    assert found == truth
