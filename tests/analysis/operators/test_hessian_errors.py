"""Every bad input gets a typed error whose message holds the offending name and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis import errors

X, Y = torch.linspace(-1, 1, 12).reshape(3, 4), torch.tensor([0, 1, 2])


def net(*extra: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), *extra)


class Counter(nn.Module):
    """Changes a buffer in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x


class Integer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(1), requires_grad=False)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.shift)


def hessian(
    model: nn.Module | None = None, loss: Any = F.cross_entropy, data: Any = (X, Y), **options: Any
) -> la.Hessian:
    return la.Hessian(model or net(), loss, data, **options)


def meta(x: Tensor) -> Tensor:
    return x.to("meta")


def mixed() -> nn.Module:
    model = net(nn.Linear(3, 3))
    model[1].double()
    return model


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * slope


CASES: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "dropout": (lambda: hessian(net(nn.Dropout())), errors.ModelStateError, ["1 (Dropout)", ".eval()"]),
    "recurrent dropout": (
        lambda: hessian(nn.LSTM(4, 3, 2, dropout=0.5)),
        errors.ModelStateError,
        ["LSTM", ".eval()"],
    ),
    "random loss": (
        lambda: hessian(loss=lambda o, t: (o + torch.randn(3, 3)).square().mean()),
        errors.ModelStateError,
        ["<lambda>", "draws random numbers", "pass it as an input"],
    ),
    "batch norm": (
        lambda: hessian(net(nn.BatchNorm1d(3))),
        errors.ModelStateError,
        ["1 (BatchNorm1d)", "train mode", "batch_stats='frozen'"],
    ),
    "batch norm without statistics": (
        lambda: hessian(net(nn.BatchNorm1d(3, track_running_stats=False)).eval(), batch_stats="frozen"),
        errors.ModelStateError,
        ["1 (BatchNorm1d)", "batch_stats='batch'"],
    ),
    "changing buffer": (lambda: hessian(net(Counter())), errors.ModelStateError, ["1.seen", "model.eval()"]),
    "changing weight": (
        lambda: hessian(nn.Embedding(4, 3, max_norm=0.1), data=(Y, Y)),
        errors.ModelStateError,
        ["weight", "changes no state", "max_norm"],
    ),
    "hand-made hooks": (
        lambda: hessian(nn.utils.spectral_norm(nn.Linear(4, 3)), nn.MSELoss(), (X, X[:, :3])),
        errors.ModelStateError,
        ["weight_u", "model.eval()"],
    ),
    "batch_stats": (
        lambda: hessian(batch_stats="running"),
        errors.ArgumentError,
        ["batch_stats", "'frozen'", "running"],
    ),
    "generator": (
        lambda: hessian(data=((X, Y) for _ in range(2))),
        errors.DataError,
        ["data", "one-shot", "list(data)"],
    ),
    "iterator": (lambda: hessian(data=iter([(X, Y)])), errors.DataError, ["one-shot", "DataLoader"]),
    "no batch": (lambda: hessian(data=[]), errors.DataError, ["data", "at least one example"]),
    "empty batch": (
        lambda: hessian(data=[(X, Y), (X[:0], Y[:0])]),
        errors.DataError,
        ["batch 1", "at least one example", "Drop"],
    ),
    "bare tensor": (lambda: hessian(data=X), errors.DataError, ["data", "Tensor", "(inputs, target)"]),
    "triple": (lambda: hessian(data=[(X, Y, Y)]), errors.DataError, ["batch 0", "tuple of 3", "(inputs, target)"]),
    "integer parameter": (
        lambda: hessian(Integer(), params=["shift", "layer.*"]),
        errors.ParameterError,
        ["shift", "int64", "params="],
    ),
    "no match": (
        lambda: hessian(params="*wieght"),
        errors.ParameterError,
        ["*wieght", "0.weight", "glob"],
    ),
    "all frozen": (lambda: hessian(net().requires_grad_(False)), errors.ParameterError, ["'*'", "requires_grad=False"]),
    "mixed dtypes": (lambda: hessian(mixed()), errors.ParameterError, ["1.weight", "float64", "dtype="]),
    "dtype of inputs": (
        lambda: hessian(data=(X.double(), Y)),
        errors.DataError,
        ["inputs of batch 0", "float64", "float32", "dtype="],
    ),
    "dtype of target": (
        lambda: hessian(loss=nn.MSELoss(), data=(X, torch.zeros(3, 3).double())),
        errors.DataError,
        ["target of batch 0", "float64"],
    ),
    "device": (lambda: hessian(data=(meta(X), Y)), errors.DataError, ["inputs of batch 0", "cpu", "meta", ".to("]),
    "vector loss": (
        lambda: hessian(loss=lambda o, t: ((o - 1) ** 2).mean(1)),
        errors.LossError,
        ["<lambda>", "scalar", "shape (3,)", ".mean()"],
    ),
    "reduction none": (
        lambda: hessian(loss=nn.CrossEntropyLoss(reduction="none")),
        errors.LossError,
        ["CrossEntropyLoss", "'none'", "reduction='mean'"],
    ),
    "reduction contradicts": (
        lambda: hessian(loss=nn.CrossEntropyLoss(), reduction="sum"),
        errors.LossError,
        ["CrossEntropyLoss", "'mean'", "'sum'"],
    ),
    "reduction unknown": (lambda: hessian(reduction="max"), errors.ArgumentError, ["reduction", "'max'", "mean"]),
    "number loss": (lambda: hessian(loss=lambda o, t: 1.0), errors.LossError, ["<lambda>", "scalar tensor", "float"]),
    "non-finite loss": (
        lambda: hessian(loss=nn.MSELoss(), data=[(X, X[:, :3]), (X * torch.inf, X[:, :3])]),
        errors.LossError,
        ["MSELoss", "batch 1", "finite", "drop the batch"],
    ),
    "non-finite gradient": (
        lambda: la.Hessian.of(lambda p: p["x"].sqrt().sum(), {"x": torch.zeros(2)}),
        errors.NumericsError,
        ["gradient of x", "sqrt(0)"],
    ),
    "detached": (
        lambda: hessian(loss=lambda o, t: o.detach().mean()),
        errors.ParameterError,
        ["depends on the chosen parameters", ".detach()"],
    ),
    "not a module": (lambda: la.Hessian(len, F.mse_loss, (X, Y)), errors.ArgumentError, ["model", "la.Hessian.of"]),
    "not a loss": (lambda: hessian(loss="mse"), errors.ArgumentError, ["loss", "callable", "str"]),
    "integer dtype": (lambda: hessian(dtype=torch.int64), errors.ArgumentError, ["dtype", "int64", "float64"]),
    "memory cap": (lambda: hessian(memory_cap=-1), errors.ArgumentError, ["memory_cap", "-1", "2**30"]),
    "objective": (lambda: la.Hessian.of(3, {"x": X}), errors.ArgumentError, ["objective", "int"]),
    "no parameters": (
        lambda: la.Hessian.of(lambda p: p, {}),
        errors.ParameterError,
        ["parameters", "named_parameters"],
    ),
    "integers in a function": (
        lambda: la.Hessian.of(lambda p: p["n"].sum(), {"n": torch.tensor([1])}),
        errors.ParameterError,
        ["n", "int64"],
    ),
    "no second derivative": (
        lambda: hessian(loss=lambda o, t: F.pdist(o).mean()) @ torch.ones(15),
        errors.DerivativeError,
        ["<lambda>", "second derivative", "Write that operation"],
    ),
    "backward marked once_differentiable": (
        lambda: hessian(loss=lambda o, t: Cube.apply(o).mean()),
        errors.DerivativeError,
        ["Cube", "once_differentiable", "remove the mark"],
    ),
    "no forward mode": (
        lambda: hessian(loss=nn.HuberLoss(), data=(X, X[:, :3]), memory_cap=0) @ torch.ones(15),
        errors.DerivativeError,
        ["HuberLoss", "memory_cap"],
    ),
    "vector shape": (lambda: hessian() @ torch.ones(3), errors.OperandError, ["P = 15", "shape (3,)"]),
    "vector dtype": (lambda: hessian() @ torch.ones(15).double(), errors.OperandError, ["float32", "float64"]),
    "vector type": (lambda: hessian() @ [1.0], errors.OperandError, ["torch.Tensor", "list"]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_names_the_culprit_and_the_remedy(case: str) -> None:
    act, kind, fragments = CASES[case]
    with pytest.raises(kind) as caught:
        act()
    assert isinstance(caught.value, la.LemmataError)
    assert [part for part in fragments if part not in str(caught.value)] == []


def test_the_global_generator_is_put_back_after_a_random_loss() -> None:
    model, before = net(), torch.get_rng_state()
    with pytest.raises(errors.ModelStateError):
        hessian(model, loss=lambda o, t: (o + torch.randn(3, 3)).square().mean())
    assert torch.equal(before, torch.get_rng_state())
