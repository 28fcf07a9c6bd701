"""Gradient health against random-matrix factors, planted faults, parity with torch's own layers, and bad input."""

from __future__ import annotations

import copy
from math import exp, log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lemmata.analysis as la
from lemmata.analysis.errors import DataError, LossError, ModelStateError, NumericsError
from lemmata.analysis.gradient_flow import GradientHealth
from lemmata.analysis.gradient_flow.attention import attention_entropy
from lemmata.analysis.gradient_flow.gates import gates
from lemmata.analysis.gradient_flow.verdicts import effective_rank
from lemmata.architectures import ARCHITECTURES


def network(gain: float | None, depth: int = 30, width: int = 64, unit: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A deep network without biases of variance gain/width, or torch's default where no gain is given."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(width, width)
        nn.init.zeros_(linear.bias)
        if gain is not None:
            nn.init.normal_(linear.weight, std=(gain / width) ** 0.5)
        layers += [linear, unit()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def batch(inputs: int = 64, examples: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(examples, inputs, generator=generator), torch.randn(examples, 1, generator=generator)


def health(model: nn.Module, data: Any = None, loss: Any = None, **options: Any) -> GradientHealth:
    given = {"groups": 5, "rows": 32, **options}
    return la.gradient_health(model, loss or nn.MSELoss(), batch() if data is None else data, **given)


def test_default_layers_lose_a_factor_of_six() -> None:
    found = health(network(None))
    assert found.dies is not None and found.explodes is None and found.factor is not None
    low, high = found.factor.interval(0.999)
    assert low < log(1 / 6) < high and high - low < 0.6
    assert f"dies at {found.dies}" in repr(found) and "kaiming_normal_" in found[found.dies].advice
    assert found["0"].verdict == "starved" and found["60"].verdict == "healthy"
    steps = (found["0"].gradient, found["58"].gradient)
    assert steps[0] is not None and steps[1] is not None and steps[0].value / steps[1].value < 1e-18
    expected = (log(1e-6) / log(1 / 6), 30)  # layers from the end after which 10⁻⁶ is left
    assert abs(30 - int(found.dies) / 2 - expected[0]) < 3


def test_he_layers_are_healthy_and_twice_the_variance_explodes() -> None:
    assert health(network(2.0, width=200, depth=20), batch(200)).verdict == "healthy"
    found = health(network(4.0))
    assert found.explodes is not None and found.dies is None and found.factor is not None
    low, high = found.factor.interval(0.999)
    assert low < log(2) < high and "kaiming" in found[found.explodes].advice
    assert any("signal explodes" in layer.verdict for layer in found.ailing)


@pytest.mark.parametrize(("fault", "attribute"), [(1e-5, "dies"), (1e5, "explodes")])
def test_a_planted_scale_is_named(fault: float, attribute: str) -> None:
    model = network(2.0, depth=10)
    with torch.no_grad():
        model[8].weight.mul_(fault)
    assert getattr(health(model), attribute) == "8"


def test_sigmoids_that_saturate() -> None:
    found = health(network(400.0, depth=4, unit=nn.Sigmoid))
    flat = found["1"].saturated
    assert found["1"].verdict == "saturated" and "layer 0" in found["1"].advice and flat is not None
    # σ' < 0.05 · ¼ beyond |z| = 4.36; the first layer's z are normal of variance 400 |x|²/64
    x = batch()[0]
    spread = (400 * x.square().mean(1)).sqrt()
    truth = float((2 * torch.special.ndtr(-4.3575 / spread)).mean())
    assert abs(flat.value - truth) < 0.03
    assert health(network(1.0, depth=4, unit=nn.Sigmoid))["1"].verdict == "healthy"


def test_dead_units_are_counted_and_take_the_gradient_with_them() -> None:
    model = network(2.0, depth=3)
    with torch.no_grad():
        model[2].bias[:48] = -100.0
    found = health(model)
    assert found["3"].dead == 0.75 and found["3"].verdict == "dead" and found["1"].dead == 0 and found.dies is None
    with torch.no_grad():
        model[2].bias[:] = -100.0
    found = health(model)
    assert found.dies == "3" and "layer 2" in found["3"].advice and found["2"].gradient is not None
    assert found["2"].gradient.value == 0 and found["0"].verdict == "starved"
    assert not any("signal dies" in layer.verdict for layer in found.layers)
    assert found["5"].dead == 1 and found["5"].verdict == "no signal"  # without biases nothing comes after it


def test_dead_channels_of_a_convolution() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(180, 1))
    with torch.no_grad():
        model[0].bias[0] = -100.0
    found = health(model, (torch.randn(20, 1, 8, 8), torch.randn(20, 1)))
    assert found["1"].dead == 0.2 and found["0"].signal is not None and found["1"].signal is not None
    assert found["0"].signal.value > 1000 > found["1"].signal.value  # seen before it was overwritten


def test_gradient_norms_and_moments_by_differences() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(12, 3).double(), torch.randn(12, 2).double()
    found = health(model, [(x[:5], y[:5]), (x[5:], y[5:])], groups=12)

    def loss(first: Tensor, bias: Tensor) -> Tensor:
        h = (x @ first.T + model[0].bias).tanh() @ model[2].weight.T + bias
        return (h - y).square().mean(1)

    model.requires_grad_(False)
    w, b, step = model[0].weight.detach(), model[2].bias.detach(), 1e-6
    units = torch.eye(12).double().reshape(12, 4, 3) * step
    slopes = torch.stack([(loss(w + u, b) - loss(w - u, b)) / (2 * step) for u in units])
    row = {p.name: p for p in found.parameters}["0.weight"]
    assert row.gradient is not None and row.ratio is not None
    assert abs(row.gradient.value - float(slopes.mean(1).norm())) < 1e-7
    assert abs(row.ratio - row.gradient.value / float(w.norm())) < 1e-12
    units = torch.eye(2).double() * step
    slopes = torch.stack([(loss(w, b + u) - loss(w, b - u)) / (2 * step) for u in units])
    moment = found["2"].gradient
    assert moment is not None and abs(moment.value - float(slopes.square().sum(0).mean())) < 1e-7
    assert abs(found.loss - float(loss(w, b).mean())) < 1e-12
    frozen = copy.deepcopy(model).requires_grad_()
    frozen[0].requires_grad_(False)
    again = health(frozen, (x, y), groups=12)
    assert {p.name: p.gradient is None for p in again.parameters}["0.weight"]
    before, after = found["0"].gradient, again["0"].gradient
    assert before is not None and after is not None and abs(before.value - after.value) < 1e-12


@pytest.mark.parametrize("dimension", [4, 50])
def test_the_rank_of_independent_coordinates_is_their_number(dimension: int) -> None:
    draws = torch.Generator().manual_seed(0)
    estimate = effective_rank([torch.randn(300, dimension, generator=draws)])
    assert estimate is not None
    low, high = estimate.interval(0.999)
    assert low < dimension < high and high - low < dimension / 2
    alike = effective_rank([torch.randn(300, 1, generator=draws) * torch.ones(dimension)])
    assert alike is not None and abs(alike.value - 1) < 1e-5


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
def test_gates_computed_again_give_the_layer_its_outputs(kind: Any, options: dict) -> None:
    torch.manual_seed(0)
    layer, x = kind(3, 4, **options).double(), torch.randn(5, 6, 3).double()
    output = layer(x)[0]
    found = gates(layer, (x,))
    assert len(found) == (4 if kind is nn.LSTM else 3) * (4 if options else 1)
    suffix = ", layer 1" if options else ""
    outputs = output if options else output.transpose(0, 1)
    first, before = outputs[:, :, :4], torch.cat([torch.zeros(len(outputs), 1, 4).double(), outputs[:, :-1, :4]], 1)
    if kind is nn.GRU:
        z, n = found["update gate" + suffix][1], found["candidate" + suffix][1]
        assert torch.allclose((1 - z) * n + z * before, first, atol=1e-12)
    else:
        f, i, g, o = (found[f"{name}{suffix}"][1] for name in ("forget gate", "input gate", "candidate", "output gate"))
        c = torch.zeros(len(outputs), 4).double()
        for t in range(outputs.shape[1]):
            c = f[:, t] * c + i[:, t] * g[:, t]
            assert torch.allclose(o[:, t] * c.tanh(), first[:, t], atol=1e-12)
    assert not torch.allclose(before, first, atol=1e-3)  # the comparison could fail


def test_a_forget_gate_that_is_held_shut_is_seen() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cell, self.out = nn.Embedding(7, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 1)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.cell(self.embed(tokens))[1][0][-1])  # reads the last state, not the outputs

    torch.manual_seed(0)
    model = Reader()
    data = torch.randint(7, (16, 5)), torch.randn(16, 1)
    found = health(model, data)
    assert found["cell: forget gate"].verdict == "healthy" and found["cell"].verdict == "healthy"
    with torch.no_grad():
        model.cell.bias_ih_l0[6:12] = -30.0
    found = health(model, data)
    assert found["cell: forget gate"].verdict == "saturated" and found["cell: input gate"].verdict == "healthy"


def test_attention_entropy_of_even_and_of_sharp_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.zeros(2, 3, 4, 8), torch.randn(2, 3, 4, 8, generator=generator)
    args = (q, k, k, None, 0.0, True)
    even = attention_entropy(F.scaled_dot_product_attention, args, {})
    assert even is not None and even.shape == (2, 3) and torch.allclose(even, torch.ones(2, 3).double(), atol=1e-6)
    sharp = attention_entropy(F.scaled_dot_product_attention, (1e4 * k, k, k), {})
    assert sharp is not None and float(sharp.max()) < 1e-3
    scores = torch.tensor([1.0, 1.0, -torch.inf]).log_softmax(0).expand(1, 1, 3, 3)
    half = attention_entropy(F.softmax, (scores, -1), {})
    assert half is not None and abs(float(half) - 1) < 1e-6
    assert attention_entropy(F.softmax, (torch.zeros(5, 3), -1), {}) is None  # classes, not keys


@pytest.mark.parametrize("train", [True, False])
def test_heads_of_a_stock_transformer(train: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(train)
    model = nn.Sequential(nn.Embedding(7, 8), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))
    data = torch.stack([torch.randperm(7)[:5] for _ in range(12)]), torch.randn(12, 5, 8)
    name = "1.layers.0.self_attn: attention"
    with torch.no_grad():
        attend = model[1].layers[0].self_attn
        attend.in_proj_weight[:16] = 0
    found = health(model, data)[name].entropy
    assert found is not None and abs(found.value - 1) < 1e-6
    with torch.no_grad():
        attend.in_proj_weight[:16] = 300 * torch.randn(16, 8)
    assert health(model, data)[name].verdict == "attends to one key"


def test_functions_shared_layers_and_mappings() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(6, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ self.w) @ self.v

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.aside, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1)

        def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
            h = F.relu(self.fc(x))
            return {"aside": self.aside(h), "y": self.out(F.relu(self.fc(h), inplace=True) * scale)}

    torch.manual_seed(0)
    x, y = batch(5)
    found = health(Functional(), (x, y))
    assert [layer.name for layer in found.layers] == ["model: relu 1", "model"]
    found = health(Shared(), ({"x": x, "scale": 1.0}, y), lambda output, target: F.mse_loss(output["y"], target))
    names = [layer.name for layer in found.layers]
    assert names[:4] == ["fc", "relu after fc", "aside", "fc (call 2)"] and "relu after fc (call 2)" in names
    assert found["aside"].verdict == "unused" and "detach" in found["aside"].advice


def test_a_branch_that_starts_at_zero_is_blocked_but_kills_nothing() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
            nn.init.zeros_(self.last.weight)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.last(F.relu(self.first(x)))

    torch.manual_seed(0)
    found = health(nn.Sequential(nn.Linear(6, 6), Block(), nn.Linear(6, 1)), batch(6))
    assert found.dies is None and found["1.first"].verdict == "blocked" and found["0"].verdict == "healthy"
    assert found["1"].kind == "Block" and found["1.last"].verdict == "healthy"


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


@pytest.mark.parametrize("where", ["forward", "backward", "inputs", "parameter", "lazy", "detached", "batchnorm"])
def test_bad_input_is_named_and_the_model_left_as_it_was(where: str) -> None:
    torch.manual_seed(0)
    x, y = batch(5)
    model, error, name, remedy = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1)), NumericsError, "", ""
    if where == "forward":
        model[1], name, remedy = Root(), "1 (Root)", "look at its inputs"
    elif where == "backward":
        model.insert(2, Root())
        name, remedy = "1 (ReLU)", "add a small number"
    elif where == "inputs":
        x[3, 2], name, remedy = torch.nan, "inputs of batch 0", "Clean the data"
    elif where == "parameter":
        model[2].bias.data.fill_(torch.inf)
        name, remedy = "2.bias", "checkpoint"
    elif where == "lazy":
        model[2], error, name, remedy = nn.LazyLinear(1), ModelStateError, "2 (LazyLinear)", "Run the model once"
    elif where == "batchnorm":
        model[1], error, name, remedy = nn.BatchNorm1d(5), ModelStateError, "1 (BatchNorm1d)", "batch_stats"
    loss: Any = nn.MSELoss()
    if where == "detached":
        loss, error, name, remedy = (
            (lambda o, t: (o.detach() - t).square().mean()),
            LossError,
            "loss <lambda>",
            "detach",
        )
    before = {} if where == "lazy" else copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=remedy) as caught:
        la.gradient_health(model, loss, (x, y))
    assert caught.value.name == name
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules() if where != "lazy")
    assert all(p.grad is None for p in model.parameters()) and model.training
    assert all(torch.equal(value.nan_to_num(), model.state_dict()[key].nan_to_num()) for key, value in before.items())


def test_the_model_and_the_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 1))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = health(model, [(*batch(5),)] * 3, batch_stats="batch")
    assert found.noise is not None and found.noise.unit == "batches"
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert all(p.grad is None for p in model.parameters()) and not any(m._forward_hooks for m in model.modules())
    few = health(model, [(*batch(5),)] * 2, batch_stats="batch")
    assert few.noise is None and "at least 3 groups" in few.notes[0]
    assert all(p.gradient is not None and not p.gradient.converged for p in few.parameters)
    with pytest.raises(DataError, match="list"):
        health(model, iter([batch(5)]), batch_stats="batch")


def test_records_and_plots() -> None:
    found = health(network(None, depth=12))
    again = GradientHealth.from_dict(found.to_dict())
    assert again == found and repr(again) == repr(found)
    assert len(repr(health(network(None))).splitlines()) < 32
    axes = found.plot()
    assert axes.get_yscale() == "log" and len(axes.get_lines()) >= 2
    assert 1e-30 < exp(found.factor.value if found.factor else 0.0) < 1


NAMES = ["lstm", "gru-bidirectional", "resnet-group", "gpt", "vision-transformer", "gcn", "neural-ode-midpoint", "egnn"]


@pytest.mark.parametrize("name", NAMES)
def test_networks_as_they_start_are_no_false_alarm(name: str) -> None:
    """Gates with nothing to forget, branches that start at zero, layers called many times."""
    entry = next(entry for entry in ARCHITECTURES if entry.name == name)
    torch.manual_seed(0)
    model = entry.build()
    like = next(model.parameters())
    data = [entry.sample(seed, like.dtype, like.device) for seed in range(3)]
    found = health(model, data, entry.loss)
    assert found.verdict == "healthy" and len(found.parameters) == len(list(model.parameters()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-9)
    assert health(model, data, entry.loss).verdict != "healthy"


def test_loaders_inference_mode_and_single_examples() -> None:
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)), batch(5)
    plain = health(model, (x, y))
    shuffled = health(model, DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True))
    assert shuffled["0"].gradient is not None and plain["0"].gradient is not None
    assert shuffled["0"].gradient.value == pytest.approx(plain["0"].gradient.value, rel=1e-5)
    with torch.inference_mode():
        assert health(model, (x, y)) == plain
    alone = health(model, (x[:1], y[:1]))
    assert alone["0"].signal is not None and alone["0"].signal.interval()[1] == float("inf")
    assert alone.noise is None and alone["0"].rank is None


def test_random_forward_passes_are_refused() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(F.dropout(x))

    with pytest.raises(ModelStateError, match=r"model\.eval\(\)") as caught:
        health(Noisy(), batch(5))
    assert caught.value.name == "model (Noisy)"
