"""The Hessian against closed forms, finite differences and two other libraries."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lemmata.analysis as la

FLOAT = torch.float64
MODES = pytest.mark.parametrize("cap", [2**30, 0], ids=["retained", "fresh"])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(FLOAT)


def batch(examples: int = 7) -> tuple[Tensor, Tensor]:
    return torch.randn(examples, 4, dtype=FLOAT), torch.randint(0, 3, (examples,))


def central_difference(value: partial, theta: Tensor, step: float = 1e-5) -> Tensor:
    """Rows of (∇f(θ + εe) − ∇f(θ − εe)) / 2ε: first derivatives only."""

    def slope(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(value(at), at)[0]

    rows = [slope(theta + step * e) - slope(theta - step * e) for e in torch.eye(len(theta), dtype=FLOAT)]
    return torch.stack(rows) / (2 * step)


def at_vector(
    model: nn.Module, loss: nn.Module, data: tuple[Tensor, Tensor], layout: la.Layout, theta: Tensor
) -> Tensor:
    return loss(torch.func.functional_call(model, layout.split(theta), (data[0],)), data[1])


def close(a: Tensor, b: Tensor, tol: float = 1e-10) -> bool:
    return bool((a - b).norm() <= tol * (1 + b.norm()))


@MODES
def test_linear_regression_is_two_over_n_xtx(cap: int) -> None:
    X = torch.randn(9, 4, dtype=FLOAT)
    model = nn.Linear(4, 1, bias=False).to(FLOAT)
    H = la.Hessian(model, nn.MSELoss(), (X, torch.randn(9, 1, dtype=FLOAT)), memory_cap=cap)
    truth = 2 / 9 * X.T @ X
    assert close(H.dense(), truth)
    assert not close(H.dense(), truth * (1 + 1e-6)), "the comparison must see a perturbation of 1e-6"


@MODES
def test_logistic_regression_is_xt_diag_x(cap: int) -> None:
    X, y = torch.randn(9, 4, dtype=FLOAT), torch.randint(0, 2, (9, 1)).to(FLOAT)
    model = nn.Linear(4, 1, bias=False).to(FLOAT)
    p = torch.sigmoid(X @ model.weight.detach().T)
    H = la.Hessian(model, nn.BCEWithLogitsLoss(), (X, y), memory_cap=cap)
    assert close(H.dense(), X.T @ (p * (1 - p) * X) / 9)


@MODES
def test_softmax_regression_is_a_sum_of_kronecker_products(cap: int) -> None:
    X, y = batch(9)
    model = nn.Linear(4, 3, bias=False).to(FLOAT)
    p = torch.softmax(X @ model.weight.detach().T, 1)
    truth = sum(torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(x, x)) for q, x in zip(p, X, strict=True)) / 9
    assert close(la.Hessian(model, F.cross_entropy, (X, y), memory_cap=cap).dense(), truth)


@MODES
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")], ids=["mean", "sum"])
def test_network_against_central_differences_of_the_gradient(cap: int, loss: nn.Module) -> None:
    model, data = small(), batch()
    H = la.Hessian(model, loss, data, memory_cap=cap)
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    value = partial(at_vector, model, loss, data, H.layout)
    truth = central_difference(value, theta)
    assert close(H.dense(), truth, 1e-8)
    assert not close(H.dense(), 1.001 * truth, 1e-8)
    assert H.value == pytest.approx(float(value(theta)), rel=1e-12)
    shifted = [value(theta + 1e-6 * e) - value(theta - 1e-6 * e) for e in torch.eye(len(theta), dtype=FLOAT)]
    assert close(H.gradient, torch.stack(shifted).detach() / 2e-6, 1e-8)


def test_function_of_named_tensors_against_a_closed_form() -> None:
    H = la.Hessian.of(lambda p: (p["x"] ** 2).sum() * p["y"], {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor(3.0)})
    assert torch.equal(H.dense(), torch.tensor([[6.0, 0.0, 2.0], [0.0, 6.0, 4.0], [2.0, 4.0, 0.0]]))
    assert H.value == 15.0
    assert torch.equal(H.gradient, torch.tensor([6.0, 12.0, 5.0]))
    assert list(H.split(H.gradient)) == ["x", "y"]


@MODES
def test_convolution_against_central_differences(cap: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)).to(FLOAT)
    data = torch.randn(5, 1, 6, 6, dtype=FLOAT), torch.randint(0, 2, (5,))
    H = la.Hessian(model, nn.CrossEntropyLoss(), data, memory_cap=cap)
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    truth = central_difference(partial(at_vector, model, nn.CrossEntropyLoss(), data, H.layout), theta)
    assert close(H.dense(), truth, 1e-8)


class Sequence(nn.Module):
    """A recurrent layer, weight normalisation and attention: what PyTorch cannot differentiate twice by default."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(2, 3, batch_first=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.normed(self.recurrent(x)[0])
        return self.attention(h, h, h, need_weights=False)[0].mean((1, 2))


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, FLOAT], ids=str)
def test_fused_operations_are_rerouted_named_and_right(cap: int, dtype: torch.dtype) -> None:
    model = Sequence().to(FLOAT)
    data = torch.randn(3, 4, 2, dtype=FLOAT), torch.randn(3, dtype=FLOAT)
    enabled = torch.backends.mkldnn.enabled
    cast = model.to(dtype), (data[0].to(dtype), data[1].to(dtype))
    H = la.Hessian(cast[0], nn.MSELoss(), cast[1], memory_cap=cap)
    for what in ("attention", "mse_loss", "recurrent", "weight_norm"):
        assert what in repr(H)
    model = model.to(FLOAT)
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    truth = central_difference(partial(at_vector, model, nn.MSELoss(), data, H.layout), theta)
    assert close(H.dense().to(FLOAT), truth, 1e-5 if dtype == torch.float32 else 1e-8)
    assert torch.backends.mkldnn.enabled == enabled


def test_agrees_with_curvlinops() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    model, loss = small(), nn.CrossEntropyLoss()
    data = [batch(3), batch(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = curvlinops.HessianLinearOperator(model, loss, list(model.parameters()), data)
        truth = peer @ torch.eye(peer.shape[0], dtype=FLOAT)
    assert close(la.Hessian(model, loss, data).dense(), truth)


def test_agrees_with_pyhessian() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyhessian = pytest.importorskip("pyhessian")
        from pyhessian.utils import hessian_vector_product

        model, data = small(), batch()
        H = la.Hessian(model, nn.CrossEntropyLoss(), data)
        peer = pyhessian.hessian(model, nn.CrossEntropyLoss(), data=data, cuda=False)
    v = torch.randn(H.shape[0], dtype=FLOAT)
    pieces = list(H.split(v).values())
    truth = torch.cat([h.reshape(-1) for h in hessian_vector_product(peer.gradsH, peer.params, pieces)])
    assert close(H @ v, truth)
    model.zero_grad(set_to_none=True)


@MODES
def test_block_equals_loop_equals_matrix(cap: int) -> None:
    H = la.Hessian(small(), nn.CrossEntropyLoss(), batch(), memory_cap=cap)
    V = torch.randn(H.shape[0], 40, dtype=FLOAT)
    loop = torch.stack([H @ v for v in V.T], 1)
    assert close(H @ V, loop, 1e-13)
    assert close(H @ V, H.dense() @ V, 1e-13)
    assert (H @ V[:, :0]).shape == (H.shape[0], 0)


def test_a_block_falls_back_to_a_loop_where_an_operation_cannot_be_batched() -> None:
    def objective(p: dict[str, Tensor]) -> Tensor:
        return F.kl_div(F.log_softmax(p["x"], 0), torch.full((4,), 0.25, dtype=FLOAT), reduction="sum") ** 2

    H = la.Hessian.of(objective, {"x": torch.randn(4, dtype=FLOAT)})
    V = torch.randn(4, 6, dtype=FLOAT)
    assert close(H @ V, torch.stack([H @ v for v in V.T], 1), 1e-13)
