"""Sharpness measures against closed forms, and which of them a rescaling of ReLU layers leaves alone."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from lemmata.analysis.curvature.rescaling import RescalingTable, rescaled, rescaling_behaviour
from lemmata.analysis.curvature.sharpness import SharpnessPanel, sharpness
from lemmata.analysis.errors import ArgumentError, LossError, ModelStateError, NumericsError, ParameterError

MSE, CE = nn.MSELoss(), nn.CrossEntropyLoss()
INVARIANT = {
    "adaptive largest eigenvalue",
    "ASAM one step",
    "ASAM",
    "Fisher–Rao norm",
    "Fisher–Rao norm, observed targets",
    "relative flatness",
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def ball_maximum(H: np.ndarray, g: np.ndarray, radius: float) -> float:
    """max gᵀε + εᵀHε/2 over ‖ε‖ ≤ radius, H positive semidefinite, by the secular equation."""
    values, vectors = np.linalg.eigh(H)
    slope = vectors.T @ g

    def length(mu: float) -> float:
        return float(np.linalg.norm(slope / (mu - values)) - radius)

    top = values[-1]
    mu = brentq(length, top + 1e-12 * top, top + np.linalg.norm(g) / radius + top, xtol=1e-15)
    point = slope / (mu - values)
    return float(slope @ point + (values * point**2).sum() / 2)


def regression() -> tuple[nn.Module, Tensor, Tensor, np.ndarray, np.ndarray, np.ndarray]:
    model = nn.Linear(4, 1, bias=False).double()
    X, y = torch.randn(12, 4).double(), torch.randn(12, 1).double()
    w = model.weight.detach().numpy()[0]
    H = 2 / 12 * X.numpy().T @ X.numpy()
    g = 2 / 12 * X.numpy().T @ (X.numpy() @ w - y.numpy()[:, 0])
    return model, X, y, w, H, g


@pytest.mark.parametrize("radius", [0.05, 3.0])
def test_every_measure_of_a_quadratic_loss(radius: float) -> None:
    model, X, y, w, H, g = regression()
    panel = sharpness(model, MSE, [(X[:5], y[:5]), (X[5:], y[5:])], rho=radius, adaptive_rho=2 * radius, tol=1e-6)
    T = np.diag(np.abs(w))
    one = radius * g / np.linalg.norm(g)
    scaled = 2 * radius * T @ T @ g / np.linalg.norm(T @ g)
    f = X.numpy() @ w
    truth = {
        "largest eigenvalue": np.linalg.eigvalsh(H)[-1],
        "adaptive largest eigenvalue": np.linalg.eigvalsh(T @ H @ T)[-1],
        "trace": np.trace(H),
        "SAM one step": g @ one + one @ H @ one / 2,
        "SAM": ball_maximum(H, g, radius),
        "ASAM one step": g @ scaled + scaled @ H @ scaled / 2,
        "ASAM": ball_maximum(T @ H @ T, T @ g, 2 * radius),
        "Fisher–Rao norm": w @ H @ w,
        "Fisher–Rao norm, observed targets": ((2 * (f - y.numpy()[:, 0]) * f) ** 2).mean(),
        "relative flatness": w @ w * np.trace(H),
    }
    assert [measure.name for measure in panel.measures] == list(truth)
    for name, value in truth.items():
        found = panel[name]
        assert found.value == pytest.approx(value, rel=1e-6), name
        assert found.value != pytest.approx(1.0001 * value, rel=1e-6)
        slack = 1e-12 * abs(value)
        assert found.low - slack <= value and (found.high is None or value <= found.high + slack), name
    assert panel["SAM"].high is None and panel["ASAM"].high is None
    assert panel["SAM"].value <= truth["SAM"] * (1 + 1e-12)  # a lower bound
    assert panel["SAM one step"].value < panel["SAM"].value * (1 - 1e-6)
    assert panel.loss == pytest.approx(((f - y.numpy()[:, 0]) ** 2).mean())
    assert panel.gradient_norm == pytest.approx(np.linalg.norm(g))


def test_at_a_minimum_the_eigenvector_leads_the_ascent() -> None:
    model, X, _, _, H, _ = regression()
    y = model(X).detach()
    panel = sharpness(model, MSE, (X, y), rho=0.3)
    assert panel["SAM"].value == pytest.approx(0.3**2 / 2 * np.linalg.eigvalsh(H)[-1], rel=1e-4)


class Plane(nn.Module):
    """A loss of two parameters."""

    def __init__(self, at: tuple[float, float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(at, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.w
        return x * (torch.sin(2 * a) + torch.cos(3 * b) * a - 0.3 * b**2 + 0.1 * (a * b) ** 2)


@pytest.mark.parametrize("at", [(0.1, 0.2), (0.8, -0.4), (-1.2, 0.9)])
def test_sam_is_at_most_and_nearly_the_maximum_on_a_grid(at: tuple[float, float]) -> None:
    def mean(f: Tensor, t: Tensor) -> Tensor:
        return (f - t).mean()

    data = (torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    for name, scale in (("SAM", np.ones(2)), ("ASAM", np.abs(np.array(at)))):
        panel = sharpness(Plane(at), mean, data, rho=0.4, adaptive_rho=0.4)
        r, phi = np.meshgrid(0.4 * np.linspace(0, 1, 201), np.linspace(0, 2 * np.pi, 1441))
        a, b = at[0] + scale[0] * r * np.cos(phi), at[1] + scale[1] * r * np.sin(phi)
        values = np.sin(2 * a) + np.cos(3 * b) * a - 0.3 * b**2 + 0.1 * (a * b) ** 2
        largest = (values - values[0, 0]).max()
        assert largest * 0.999 <= panel[name].value <= largest * 1.001 + 1e-9
        other = {"SAM": "ASAM", "ASAM": "SAM"}[name]
        assert not largest * 0.999 <= panel[other].value <= largest * 1.001


def softmax_regression(height: int, width: int) -> tuple[nn.Module, Tensor, Tensor, float]:
    """A model, data, and the relative flatness of its weight by four loops."""
    model = nn.Linear(width, height).double()
    X, labels = torch.randn(15, width).double(), torch.arange(15) % height
    W, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    kappa = 0.0
    for x in X.numpy():
        f = np.exp(W @ x + b)
        p = f / f.sum()
        for s in range(height):
            for other in range(height):
                kappa += W[s] @ W[other] * (p[s] * (s == other) - p[s] * p[other]) * (x @ x) / 15
    return model, X, labels, kappa


@pytest.mark.parametrize(("height", "width"), [(3, 5), (5, 3), (4, 30)])
def test_relative_flatness_of_softmax_regression(height: int, width: int) -> None:
    model, X, labels, kappa = softmax_regression(height, width)
    found = sharpness(model, CE, (X, labels), tol=0.02)["relative flatness"]
    assert found.high is not None
    assert abs(found.value - kappa) <= 2 * found.half_width + 1e-12 * abs(kappa)
    norm = float((model.weight.detach() ** 2).sum()) * sharpness(model, CE, (X, labels), params="weight")["trace"].value
    assert abs(found.value - norm) > 2 * found.half_width  # ‖W‖² tr H is another number
    assert (found.method == "exact to rounding") or 0 < found.half_width < 0.03 * kappa


def network(bias: bool, activation: nn.Module, widths: tuple[int, ...] = (5, 7, 6, 3)) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, second in pairwise(widths):
        layers += [nn.Linear(first, second, bias=bias), activation]
    return nn.Sequential(*layers[:-1]).double()


def labelled(count: int = 18) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 5).double(), torch.arange(count) % 3


def test_fisher_rao_norm_without_biases_is_that_of_the_logits() -> None:
    model, (X, labels) = network(False, nn.ReLU()), labelled()
    panel = sharpness(model, CE, (X, labels))
    h = X.numpy()
    for layer in (0, 2, 4):
        h = h @ model[layer].weight.detach().numpy().T
        h = np.maximum(h, 0) if layer < 4 else h
    p = np.exp(h) / np.exp(h).sum(1, keepdims=True)
    inner = ((p - np.eye(3)[labels.numpy()]) * h).sum(1)
    assert panel["Fisher–Rao norm, observed targets"].value == pytest.approx(9 * (inner**2).mean(), rel=1e-10)
    spread = (p * h**2).sum(1) - (p * h).sum(1) ** 2  # the expectation under the model
    assert panel["Fisher–Rao norm"].value == pytest.approx(9 * spread.mean(), rel=1e-10)
    with_biases = sharpness(network(True, nn.ReLU()), CE, (X, labels))
    assert with_biases["Fisher–Rao norm"].value > 0


def test_rescaling_of_two_linear_layers_has_the_known_hessian() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(0.7)
        model[1].weight.fill_(1.3)
    data = (torch.full((1, 1), 2.0).double(), torch.full((1, 1), 0.5).double())
    scales = (0.01, 0.1, 10.0, 100.0, 1000.0)
    table = rescaling_behaviour(model, MSE, data, scales, tol=1e-6)
    assert table.scales == (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    for scale, panel in zip(table.scales, table.panels, strict=True):
        a, b, x, y = 0.7 * scale, 1.3 / scale, 2.0, 0.5
        mixed = 2 * x * (2 * a * b * x - y)
        H = np.array([[2 * b**2 * x**2, mixed], [mixed, 2 * a**2 * x**2]])
        T = np.diag([a, b])
        assert panel["largest eigenvalue"].value == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-6)
        assert panel["trace"].value == pytest.approx(np.trace(H), rel=1e-6)
        assert panel["adaptive largest eigenvalue"].value == pytest.approx(np.linalg.eigvalsh(T @ H @ T)[-1], rel=1e-6)
        assert panel["relative flatness"].value == pytest.approx(b**2 * H[1, 1], rel=1e-6)
        assert panel["Fisher–Rao norm"].value == pytest.approx(8 * (a * b * x) ** 2, rel=1e-9)
    small, large = table.exponents("largest eigenvalue")
    assert large == pytest.approx(2, abs=1e-3) and small == pytest.approx(-2, abs=1e-2)
    assert table.exponents("trace")[1] == pytest.approx(2, abs=1e-3)
    assert {name for name in table.names if table.invariant(name)} == INVARIANT


@pytest.mark.parametrize("hidden", [None, "2"])
def test_which_measures_a_relu_network_with_biases_keeps(hidden: str | None) -> None:
    model, data = network(True, nn.ReLU()), labelled()
    table = rescaling_behaviour(model, CE, data, (0.1, 10.0), hidden)
    assert {name for name in table.names if table.invariant(name)} == INVARIANT
    losses = [panel.loss for panel in table.panels]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)
    assert table.hidden == (hidden or "0")


def test_invariance_is_refused_where_one_value_moves() -> None:
    table = rescaling_behaviour(network(True, nn.LeakyReLU()), CE, labelled(), (5.0,))
    panel = table.panels[1]
    for index, measure in enumerate(panel.measures):
        if measure.name in INVARIANT:
            moved = [*panel.measures]
            shift = 0.005 * abs(measure.value) + 3 * measure.half_width
            high = None if measure.high is None else measure.high + shift
            moved[index] = replace(measure, value=measure.value + shift, low=measure.low + shift, high=high)
            other = replace(table, panels=(table.panels[0], replace(panel, measures=tuple(moved))))
            assert table.invariant(measure.name) and not other.invariant(measure.name)


def test_float32_and_ragged_batches_agree_with_one_batch_in_float64() -> None:
    model, (X, labels) = network(True, nn.ReLU()), labelled()
    whole = sharpness(model, CE, (X, labels))
    parts = sharpness(model, CE, [(X[:7], labels[:7]), (X[7:9], labels[7:9]), (X[9:], labels[9:])])
    single = sharpness(model.float(), CE, (X.float(), labels))
    assert single.dtype == "float32"
    for measure in whole.measures:
        assert parts[measure.name].value == pytest.approx(measure.value, rel=1e-6)
        other = single[measure.name]
        assert abs(other.value - measure.value) <= 2 * other.half_width + 1e-3 * abs(measure.value)


def test_layers_parameters_and_models_without_matrices() -> None:
    model, data = network(True, nn.Tanh()), labelled()
    assert sharpness(model, CE, data).layer == "4.weight"
    first = sharpness(model, CE, data, layer="0.weight")
    assert (
        first.layer == "0.weight"
        and first["relative flatness"].value != sharpness(model, CE, data)["relative flatness"].value
    )
    assert sharpness(model, CE, data, params="0.*").size == 42
    panel = sharpness(Plane((0.1, 0.2)), MSE, (torch.ones(2, 1).double(), torch.zeros(2, 1).double()))
    assert panel.layer is None and len(panel.measures) == 9


def test_the_model_is_left_alone() -> None:
    model, data = network(True, nn.ReLU()), labelled()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = sharpness(model, CE, data), sharpness(model, CE, data)
    assert first == second
    rescaling_behaviour(model, CE, data, (2.0,))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and torch.equal(state, torch.get_rng_state())


def test_records_pictures_and_words() -> None:
    table = rescaling_behaviour(network(True, nn.ReLU()), CE, labelled(), (0.5, 2.0), steps=3)
    panel = table.panels[0]
    assert SharpnessPanel.from_dict(json.loads(json.dumps(panel.to_dict(), allow_nan=False))) == panel
    assert RescalingTable.from_dict(json.loads(json.dumps(table.to_dict(), allow_nan=False))) == table
    assert len(panel.rows()) == len(repr(panel).splitlines()) - 2 == 10
    assert "lower bound of the maximum" in repr(panel) and "∞" in repr(panel)
    assert [row[-1] for row in table.rows()].count("invariant") == 6 and "α^" in repr(table)
    assert len(panel.plot().get_yticks()) == 10
    assert table.plot().get_xscale() == "log"


def test_a_kink_in_the_rescaling_is_refused() -> None:
    for activation in (nn.Tanh(), nn.GELU(), nn.Softplus()):
        with pytest.raises(ModelStateError, match=r"positively homogeneous hidden layers.*σ\(αx\) = α σ\(x\)"):
            rescaled(network(True, activation), 3.0)
    other = rescaled(network(True, nn.ReLU()), 3.0, "2")
    assert isinstance(other, nn.Sequential)


def test_rescaled_layers_are_those_asked_for() -> None:
    model = network(True, nn.ReLU())
    other = rescaled(model, 4.0, "2")
    assert torch.equal(other[0].weight, model[0].weight) and torch.equal(other[4].bias, model[4].bias)
    assert torch.equal(other[2].weight, 4 * model[2].weight) and torch.equal(other[2].bias, 4 * model[2].bias)
    assert torch.equal(other[4].weight, model[4].weight / 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rho": 0}, "rho: expected a finite number > 0, given 0"),
        ({"rho": float("inf")}, "rho: expected a finite"),
        ({"adaptive_rho": "a"}, "adaptive_rho: expected"),
        ({"steps": 0}, "steps: expected an integer ≥ 1"),
        ({"tol": 1.0}, "tol: expected a number strictly between 0 and 1"),
    ],
)
def test_options_outside_their_domain(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        sharpness(network(True, nn.ReLU()), CE, labelled(), **options)


def test_bad_input_is_named() -> None:
    model, data = network(True, nn.ReLU()), labelled()
    for layer in ("7.weight", "0.bias"):
        with pytest.raises(ParameterError, match=rf"layer: expected one of \['0.weight'.*{layer}"):
            sharpness(model, CE, data, layer=layer)
    with pytest.raises(ArgumentError, match=r"measure: expected one of.*given 'flatness'"):
        _ = sharpness(model, CE, data)["flatness"]
    with pytest.raises(LossError):
        sharpness(model, lambda f, t: F_nan(f), data)
    exploding = nn.Linear(1, 1, bias=False).double()
    point = (torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    with pytest.raises(NumericsError, match="finite losses.*smaller rho"):
        sharpness(exploding, lambda f, t: torch.exp(f).mean(), point, rho=1e4)
    for scales, words in (
        ((), "a sequence"),
        ((1.0,), "a scale other than 1"),
        ((-1.0,), "finite number > 0"),
        (3.0, "a sequence"),
    ):
        with pytest.raises(ArgumentError, match=f"scales: expected {words}|scales: expected a {words}"):
            rescaling_behaviour(model, CE, data, scales)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"hidden: expected one of the hidden layers \['0', '2'\], given '4'"):
        rescaled(model, 2.0, "4")
    with pytest.raises(ArgumentError, match="scale: expected a finite number > 0"):
        rescaled(model, 0.0)
    with pytest.raises(ArgumentError, match="nn.Linear or a module without parameters"):
        rescaled(nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.Linear(2, 1)), 2.0)


def F_nan(f: Tensor) -> Tensor:
    return f.sum() * float("nan")
