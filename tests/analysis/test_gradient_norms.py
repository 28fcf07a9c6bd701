"""Norms of single examples' gradients against one plain backward pass for each example, in float64 to rounding.

The truth takes each example through the model by itself; no batch, no tap and no vmap is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lemmata.analysis as la
from lemmata.analysis.errors import DataError, LossError, ModelStateError, ParameterError
from lemmata.analysis.gradient_flow import GradientNorms, taps
from lemmata.architectures import ARCHITECTURES, Architecture
from lemmata.studies.benchmarks.memory import peak

FLOAT = torch.float64
MODULE = import_module("lemmata.analysis.gradient_flow.gradient_norms")  # the package's attribute is the function
CROSS_ENTROPY = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def one(item: Any, place: int, examples: int) -> Any:
    if isinstance(item, tuple):
        return tuple(one(part, place, examples) for part in item)
    return item[place : place + 1] if item.ndim and len(item) == examples else item


def truth(model: nn.Module, loss: Callable[[Any, Any], Tensor], inputs: Any, target: Any) -> Tensor:
    """‖∇ℓ_n‖² for each parameter, (N, p), one example after another."""
    parameters, rows = list(model.parameters()), []
    examples = len(target[0] if isinstance(target, tuple) else target)
    for place in range(examples):
        x = one(inputs, place, examples)
        value = loss(model(*x) if isinstance(x, tuple) else model(x), one(target, place, examples))
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        rows.append([0.0 if part is None else float(part.square().sum()) for part in found])
    return torch.tensor(rows, dtype=FLOAT)


def agree(model: nn.Module, loss: Callable[[Any, Any], Tensor], inputs: Any, target: Any) -> GradientNorms:
    found = la.gradient_norms(model, loss, [(inputs, target)])
    wanted = truth(model, loss, inputs, target)
    size = float(wanted.sum(1).max())
    assert torch.allclose(found.squares, wanted, rtol=1e-12, atol=1e-14 * size)
    assert not torch.allclose(found.squares * (1 + 1e-9), wanted, rtol=1e-12, atol=1e-14 * size)
    return found


# ---------------------------------------------------------------- the lab's architectures

#: Parameters that no tap knows, by the name of the entry; everything else has to go without a single gradient formed.
FORMED = {
    "resnet-frozen": "*norm*",
    "gru": "U",
    "gru-bidirectional": "net.*.U",
    "s4d": "ssm.*",
    "vision-transformer": "class_token",
    "message-passing-max-edges": "p*",
    "gin": "*.epsilon",
    "gin-nodes": "*.epsilon",
    "set-transformer": "pool.seeds",
    "set-transformer-induced": "points",
    "group-cnn-p4": "layers.*",
    "group-cnn-p4m": "layers.*",
    "steerable": "layers.*",
    "continuous-flow": "field.*",
    "continuous-flow-hutchinson": "field.*",
    "deep-equilibrium": "recurrent",
    "linear-vae": "*",
}


@pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)
def test_every_architecture_equals_one_example_after_another(entry: Architecture) -> None:
    model = entry.build().double()
    inputs, target = entry.sample(0, FLOAT, "cpu")
    if entry.name == "resnet-batch":
        with pytest.raises(LossError, match="together.*from each alone"):
            la.gradient_norms(model, entry.loss, [(inputs, target)])
        return
    found = agree(model, entry.loss, inputs, target)
    allowed = FORMED.get(entry.name)
    assert bool(found.formed) == (allowed is not None)
    assert all(fnmatchcase(name, allowed or "") for name in found.formed)


# ---------------------------------------------------------------- other libraries' modules


class Pooled(nn.Module):
    """A body over sequences, averaged over time, and a linear read-out."""

    def __init__(self, body: Callable[[Tensor], Any], width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        return self.head((found[0] if isinstance(found, tuple) else found).mean(1))


class TimeFirst(nn.Module):
    """A stock layer whose first axis is time: where there are as many examples, it looks like that of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class Flattened(nn.Module):
    """A linear layer on all examples' places in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 8)).tanh().reshape(x.shape)


class Inner(nn.Module):
    """Takes a gradient of its own inside the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(self.layer(x).tanh().sum(), x, create_graph=True)[0]


def stock() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


class Options(nn.Module):
    """Entrywise operations in ways that no tap knows: with options, in place, by complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.add(x, self.a, alpha=2).sin()
        y += self.b
        return ((y * (1 + 2j)) * self.c).abs()


SEQUENCES: dict[str, tuple[Callable[[], Any], int, str]] = {
    "transformer layer": (stock, 8, "body.self_attn"),
    "time first": (TimeFirst, 8, "body.layer"),
    "LSTM": (lambda: nn.LSTM(8, 6, batch_first=True), 6, "body."),
    "flattened": (Flattened, 8, "body."),
    "inner gradient": (Inner, 8, "body."),
    "options": (Options, 8, "body."),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)), 6, "body."),
}


@pytest.mark.parametrize("examples", [6, 5], ids=["6 examples", "as many examples as times"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_stock_modules(name: str, examples: int) -> None:
    make, width, formed = SEQUENCES[name]
    x = torch.randn(examples, 5, 8, dtype=FLOAT)
    found = agree(Pooled(make(), width).double(), CROSS_ENTROPY, x, torch.arange(examples) % 3)
    assert found.formed and all(part.startswith(formed) for part in found.formed)


@pytest.mark.parametrize("examples", [6, 4], ids=["6 examples", "as many examples as channels"])
def test_convolutions_with_all_their_options(examples: int) -> None:
    """In place, strided, dilated; grouped ones and padding in words are formed."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, dilation=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2, padding="same"),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, (3, 2), stride=2),
        nn.ReLU(inplace=True),
        nn.Flatten(2),
        nn.Conv1d(5, 3, 2, stride=2),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(norm.weight)
    x, y = torch.randn(examples, 2, 8, 6, dtype=FLOAT), torch.arange(examples) % 3
    assert agree(model.double().eval(), CROSS_ENTROPY, x, y).formed == ("3.weight", "3.bias")


class Tokens(nn.Module):
    """A table, two normalisations, and a read-out that may be the same table."""

    def __init__(self, tied: bool, **options: Any) -> None:
        super().__init__()
        self.table, self.scale, self.norm = nn.Embedding(7, 4, **options), nn.RMSNorm(4), nn.LayerNorm([5, 4])
        self.head = nn.Linear(4, 7, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, s: Tensor) -> Tensor:
        return self.head(self.norm(self.scale(self.table(s)))).mT


@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
@pytest.mark.parametrize("padding", [None, 2, -1])
def test_tables(tied: bool, padding: int | None) -> None:
    s = torch.randint(0, 7, (6, 5))
    assert not agree(Tokens(tied, padding_idx=padding).double(), CROSS_ENTROPY, s, s.roll(1, 1)).formed


def test_a_table_whose_gradient_is_scaled_is_no_gradient() -> None:
    s = torch.randint(0, 7, (6, 5))
    found = agree(Tokens(False, scale_grad_by_freq=True).double(), CROSS_ENTROPY, s, s.roll(1, 1))
    assert found.formed == ("table.weight",)  # as one example's backward pass has it


# ---------------------------------------------------------------- losses and data


LOSSES: dict[str, Callable[[Any, Any], Tensor]] = {
    "weights": nn.CrossEntropyLoss(torch.rand(7, dtype=FLOAT) + 0.1),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.1),
    "own": lambda output, s: F.cross_entropy(output, s),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    s = torch.randint(0, 7, (6, 5))
    agree(Tokens(True).double(), LOSSES[name], s, s.roll(1, 1))


def test_ignored_targets_weigh_nothing() -> None:
    s = torch.randint(0, 7, (6, 5))
    target, model = s.roll(1, 1), Tokens(True).double()
    target[0], target[3, :3] = -100, -100
    found = la.gradient_norms(model, CROSS_ENTROPY, (s, target))
    assert float(found.norms[0]) == 0.0
    assert torch.allclose(found.squares[1:], truth(model, CROSS_ENTROPY, s[1:], target[1:]), rtol=1e-12)
    with pytest.raises(LossError, match=r"nn\.CrossEntropyLoss\(ignore_index"):  # the same weights, untold
        la.gradient_norms(model, LOSSES["own"], (s[1:], target[1:]))


def test_batches_pieces_and_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(9, 5, 8, dtype=FLOAT), torch.arange(9) % 3
    model = Pooled(stock(), 8).double()
    whole = la.gradient_norms(model, CROSS_ENTROPY, (x, y))
    ragged = la.gradient_norms(model, CROSS_ENTROPY, [(x[:7], y[:7]), (x[7:], y[7:])])
    for module, name, value in ((MODULE, "_HELD", 0), (MODULE, "_ENTRIES", 1), (taps, "_ENTRIES", 1)):
        monkeypatch.setattr(module, name, value)
    pieces = la.gradient_norms(model, CROSS_ENTROPY, (x, y))
    assert torch.allclose(whole.squares, ragged.squares, rtol=1e-12)
    assert torch.allclose(whole.squares, pieces.squares, rtol=1e-12)
    some = la.gradient_norms(model.float(), CROSS_ENTROPY, (x.float(), y), params="head.*", dtype=FLOAT)
    assert some.names == ("head.weight", "head.bias")
    assert torch.allclose(some.squares, whole.squares[:, -2:], rtol=1e-5)
    assert torch.equal(some["head.bias"], some.squares[:, 1].sqrt()) and len(some) == 9


def test_the_model_is_left_alone() -> None:
    model = Pooled(stock(), 8).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    la.gradient_norms(model, CROSS_ENTROPY, (torch.randn(4, 5, 8, dtype=FLOAT), torch.arange(4) % 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


# ---------------------------------------------------------------- what has no gradient of its own


def contrast(output: Tensor, target: Tensor) -> Tensor:
    rows = F.normalize(output, dim=1)
    return F.cross_entropy(rows @ rows.T, torch.arange(len(rows)))


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize("kind", ["loss", "model"])
def test_examples_that_depend_on_each_other_are_refused(kind: str) -> None:
    body = nn.Identity() if kind == "loss" else Centred()
    model = nn.Sequential(nn.Linear(8, 4), body, nn.Linear(4, 3)).double()
    loss = contrast if kind == "loss" else CROSS_ENTROPY
    with pytest.raises(LossError, match="depend on each other there is no gradient of one"):
        la.gradient_norms(model, loss, (torch.randn(6, 8, dtype=FLOAT), torch.arange(6) % 3))


def test_batch_statistics_are_refused() -> None:
    model, data = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)).double(), (torch.randn(6, 8, dtype=FLOAT),) * 2
    with pytest.raises(ModelStateError, match="batch_stats: .*Choose batch_stats='frozen'"):
        la.gradient_norms(model, nn.MSELoss(), (data[0], data[0][:, :4]), batch_stats="batch")
    la.gradient_norms(model, nn.MSELoss(), (data[0], data[0][:, :4]), batch_stats="frozen")


def test_no_data_is_refused() -> None:
    with pytest.raises(DataError, match="data: expected at least one example.*Pass one batch"):
        la.gradient_norms(nn.Linear(2, 2), nn.MSELoss(), [])


def test_a_loss_that_does_not_depend_on_the_parameters_is_refused() -> None:
    with pytest.raises(ParameterError, match="one detached from all of them.*Remove .detach()"):
        la.gradient_norms(nn.Linear(2, 2), lambda output, y: (output.detach() - y).mean(), (torch.ones(3, 2),) * 2)


def test_a_random_forward_pass_is_refused() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    with pytest.raises(ModelStateError, match=r"1 \(Noise\)"):
        la.gradient_norms(nn.Sequential(nn.Linear(2, 2), Noise()), nn.MSELoss(), (torch.ones(3, 2), torch.ones(3, 2)))


def test_a_tap_that_is_wrong_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of each batch's first example, not luck, keeps wrong norms out."""
    ones = torch.ones(6, dtype=FLOAT)
    monkeypatch.setattr(taps.Taps, "_finish", lambda self, pairs: self.squares.update({pairs[0][0].place: ones}))
    x, y = torch.randn(6, 5, 8, dtype=FLOAT), torch.arange(6) % 3
    model = Pooled(nn.Linear(8, 4), 4).double()
    assert agree(model, CROSS_ENTROPY, x, y).formed == tuple(name for name, _ in model.named_parameters())


class Turned(nn.Module):
    """Its layer's first axis is time, of as many steps as there are examples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.transpose(0, 1)).tanh().transpose(0, 1).mean(1))


def test_a_first_example_of_zeros_hides_nothing() -> None:
    x, y = torch.randn(5, 5, 4, dtype=FLOAT), torch.arange(5) % 3
    x[0], x[:, 0] = 0, 0  # an example, and a step that all examples share
    assert agree(Turned().double(), CROSS_ENTROPY, x, y).formed == ("layer.weight",)


def test_examples_that_see_those_before_them_are_refused() -> None:
    """The first one's own gradient is right."""

    class Running(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.cumsum(0))

    with pytest.raises(LossError, match="depend on each other there is no gradient of one"):
        la.gradient_norms(Running(4, 3).double(), CROSS_ENTROPY, (torch.randn(9, 4, dtype=FLOAT), torch.arange(9) % 3))


class Differences(nn.Module):
    """Only differences of keys between places count: where places are alike, no gradient is left but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.head = nn.Linear(64, 64, bias=False), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.k(x)
        h = h - h.mean(1, keepdim=True)
        weights = torch.arange(1.0, 1 + x.shape[1], dtype=x.dtype)
        return self.head((h * x).sum(1) + x.mean(1) + (h * weights[:, None]).sum(1))


def test_norms_that_cancel_are_numbers() -> None:
    x, y = torch.randn(32, 1, 64).repeat(1, 8, 1), torch.randn(32, 1)
    x[0] += torch.randn(8, 64)
    model = Differences()
    found = la.gradient_norms(model, nn.MSELoss(), (x, y))
    wanted = truth(model.double(), nn.MSELoss(), x.double(), y.double()).sqrt()
    size = float(wanted[0, 0])
    assert not bool(found.squares.isnan().any() or (found.squares < 0).any())
    assert torch.allclose(found.squares.sqrt(), wanted, rtol=1e-3, atol=3e-3 * size)


@pytest.mark.parametrize("params", ["*", "last.*"])
def test_checkpoints_are_formed(params: str) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(checkpoint(lambda z: self.first(z).tanh(), x, use_reentrant=False))

    model, x, y = Checkpointed().double(), torch.randn(5, 4, dtype=FLOAT), torch.arange(5) % 3
    found = la.gradient_norms(model, CROSS_ENTROPY, (x, y), params)
    wanted = truth(model, CROSS_ENTROPY, x, y)
    assert torch.allclose(found.squares, wanted if params == "*" else wanted[:, 2:], rtol=1e-12)


def test_the_default_device_plays_no_part() -> None:
    model, x, y = Pooled(stock(), 8).double(), torch.randn(5, 4, 8, dtype=FLOAT), torch.arange(5) % 3
    wanted = la.gradient_norms(model, CROSS_ENTROPY, (x, y))
    with torch.device("meta"):
        found = la.gradient_norms(model, CROSS_ENTROPY, (x, y))
    assert torch.equal(found.squares, wanted.squares)


# ---------------------------------------------------------------- the result


def test_the_result() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    x, y = torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([[6.0], [1.0], [0.0]])
    found = la.gradient_norms(model, nn.MSELoss(), (x, y))  # 2 |w·x − y| ‖x‖
    assert found.norms.tolist() == pytest.approx([10.0, 0.0, 2.0])
    assert found.mean.value == pytest.approx(4.0)
    assert found.mean.stderr == pytest.approx(float(torch.tensor([10.0, 0.0, 2.0]).std()) / 3**0.5)
    assert "3 examples, 0 to 10, median 2" in repr(found)
    again = GradientNorms.from_dict(found.to_dict())
    assert torch.equal(again.squares, found.squares) and again.names == found.names


def test_the_plot_shows_the_shares() -> None:
    import matplotlib.pyplot as plt

    found = la.gradient_norms(nn.Linear(2, 1), nn.MSELoss(), (torch.randn(5, 2), torch.randn(5, 1)))
    ax = found.plot()
    assert sorted(found.norms.tolist()) == pytest.approx(sorted(set(ax.lines[0].get_xdata()[1:].tolist())))
    plt.close(ax.figure)


def test_memory_does_not_hold_all_gradients() -> None:
    """A wide layer on many examples: the sum of all graphs and factors stays far below N gradients."""
    model, x = nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 2)), torch.randn(64, 256)
    held = peak(lambda: la.gradient_norms(model, nn.MSELoss(), (x, torch.zeros(64, 2))), "cpu")
    assert held < 64 * 256 * 256 * 4 / 8
