"""Bad input to any matrix of the family: the error names the culprit and the remedy, and what is right stays right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError, LemmataError, LossError, ModelStateError, ParameterError

FLOAT = torch.float64
KINDS = pytest.mark.parametrize("kind", [la.Hessian, la.GGN, la.Fisher, la.EmpiricalFisher])
MODES = pytest.mark.parametrize("cap", [2**30, 0], ids=["retained", "fresh"])
X = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=FLOAT)
Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), dtype=FLOAT)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def product(operator: la.Operator) -> Tensor:
    return operator @ torch.ones(operator.shape[0], dtype=operator.dtype)


class Noise(nn.Module):
    """Draws random numbers in every mode, as F.dropout without ``training=self.training`` does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


class Spare(nn.Module):
    """Has parameters that the loss does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)
        self.layer = nn.Linear(4, 3, bias=False)
        self.late = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (self.late if len(x) == 6 else 1)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wave = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))
        self.shift = nn.Parameter(torch.zeros(3, dtype=FLOAT))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.wave.dtype) @ self.wave).abs() + self.shift


class Square(nn.Module):
    """y = w w x, by two layers that share w."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def linear() -> nn.Module:
    return nn.Linear(4, 3).double()


def normed() -> nn.Module:
    return nn.Sequential(linear(), nn.BatchNorm1d(3)).double()


def shuffled(**options: Any) -> DataLoader:
    return DataLoader(TensorDataset(X, Y), shuffle=True, **options)


class Augmented:
    """Other examples on every pass."""

    def __iter__(self) -> Any:
        return iter([(X + torch.randn_like(X), Y)])


CASES: dict[str, tuple[Callable[[Any], Any], type[LemmataError], list[str]]] = {
    "loss of one batch is not finite": (
        lambda kind: kind(linear(), nn.MSELoss(), [(X, Y), (X * torch.nan, Y)]),
        LossError,
        ["MSELoss", "batch 1", "finite", "drop the batch"],
    ),
    "dropout": (
        lambda kind: kind(nn.Sequential(linear(), nn.Dropout()), nn.MSELoss(), (X, Y)),
        ModelStateError,
        ["1 (Dropout)", "random", ".eval()"],
    ),
    "dropout by hand, in one of several modules": (
        lambda kind: kind(nn.Sequential(linear(), nn.Sequential(nn.Tanh(), Noise())), nn.MSELoss(), (X, Y)),
        ModelStateError,
        ["1.1 (Noise)", "random", "model.eval()"],
    ),
    "noise of the model's own": (
        lambda kind: kind(nn.Sequential(Noise(), linear())[0:2], nn.MSELoss(), (X, Y)),
        ModelStateError,
        ["0 (Noise)"],
    ),
    "batch normalisation": (
        lambda kind: kind(normed(), nn.MSELoss(), (X, Y)),
        ModelStateError,
        ["1 (BatchNorm1d)", "batch_stats='frozen'"],
    ),
    "a loader that shuffles and drops": (
        lambda kind: product(kind(linear(), nn.MSELoss(), shuffled(batch_size=4, drop_last=True), memory_cap=0)),
        DataError,
        ["DataLoader that shuffles", "drop_last", "list of batches"],
    ),
    "a loader that shuffles under batch normalisation": (
        lambda kind: product(
            kind(normed(), nn.MSELoss(), shuffled(batch_size=5), batch_stats="batch", memory_cap=0),
        ),
        DataError,
        ["DataLoader that shuffles", "BatchNorm", "list of batches"],
    ),
    "augmentation": (
        lambda kind: product(kind(linear(), nn.MSELoss(), Augmented(), memory_cap=0)),
        DataError,
        ["data:", "augmentation", "list of batches"],
    ),
    "one-shot data": (
        lambda kind: kind(linear(), nn.MSELoss(), zip([X], [Y], strict=True)),
        DataError,
        ["data", "one-shot zip", "list(data)"],
    ),
    "complex parameters": (
        lambda kind: kind(Complex(), nn.MSELoss(), (X, Y)),
        ParameterError,
        ["wave", "complex128", "no complex Hessian", "view_as_complex"],
    ),
    "complex dtype": (
        lambda kind: kind(linear(), nn.MSELoss(), (X, Y), dtype=torch.complex64),
        ArgumentError,
        ["dtype", "complex64", "float64"],
    ),
}


@KINDS
@pytest.mark.parametrize("case", CASES)
def test_the_culprit_and_the_remedy_are_named(kind: Any, case: str) -> None:
    act, error, fragments = CASES[case]
    with pytest.raises(error) as caught:
        act(kind)
    assert [part for part in fragments if part not in str(caught.value)] == []


def test_shuffling_is_no_fault_where_order_does_not_tell() -> None:
    truth = la.Hessian(linear(), nn.MSELoss(), (X, Y)).dense()  # 2/30 of ones and XᵀX: no matter which parameters
    H = la.Hessian(linear(), nn.MSELoss(), shuffled(batch_size=4), memory_cap=0)
    torch.testing.assert_close(H.dense(), truth, rtol=0, atol=1e-13)


def test_the_random_numbers_of_the_caller_are_left_alone() -> None:
    model, before = nn.Sequential(linear(), Noise()), torch.get_rng_state()
    for make in (lambda: la.GGN(model, nn.MSELoss(), (X, Y)), lambda: la.Jacobian(model, X), lambda: la.NTK(model, X)):
        with pytest.raises(ModelStateError, match=r"1 \(Noise\)"):
            make()
        assert torch.equal(before, torch.get_rng_state())


@KINDS
@MODES
def test_parameters_out_of_the_loss_s_reach_are_named_and_have_zero_rows(kind: Any, cap: int) -> None:
    model = Spare().double()
    operator = kind(model, nn.MSELoss(), [(X[:4], Y[:4]), (X[4:], Y[4:])], memory_cap=cap)
    assert operator.unreached == ("spare.weight", "spare.bias")  # ``late`` is reached by the second batch
    assert "loss independent of spare.weight, spare.bias" in repr(operator)
    names = [
        name for name, count in zip(operator.layout.names, operator.layout.sizes, strict=True) for _ in range(count)
    ]
    rows = torch.tensor([name.startswith("spare") for name in names])
    dense = operator.dense()
    assert rows.sum() == 6 and not dense[rows].any() and not dense[:, rows].any()
    assert not operator.gradient[rows].any() and bool((dense[~rows].norm(dim=1) > 0).all())
    layer = torch.tensor([name == "layer.weight" for name in names])
    if kind in (la.Hessian, la.GGN):  # linear regression: 2/N ∑ x xᵀ for each of three outputs, N = 30
        truth = torch.block_diag(*[2 / 30 * X.T @ X] * 3)
        torch.testing.assert_close(dense[layer][:, layer], truth, rtol=0, atol=1e-13)
    whole = kind(linear(), nn.MSELoss(), (X, Y), memory_cap=cap)
    assert whole.unreached == () and "independent" not in repr(whole)


def test_many_parameters_out_of_reach_are_counted() -> None:
    class Deep(Spare):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Sequential(*(nn.Linear(1, 1) for _ in range(3)))

    operator = la.GGN(Deep().double(), nn.MSELoss(), (X, Y))
    assert len(operator.unreached) == 9 and "late, spare.weight, spare.bias and 6 more" in repr(operator)


def test_inputs_that_an_output_does_not_reach_are_named_by_the_jacobian() -> None:
    J = la.Jacobian(Spare().double(), X)
    assert J.unreached == ("late", "spare.weight", "spare.bias")
    assert "output independent of late, spare.weight, spare.bias" in repr(J)
    assert la.Jacobian(linear(), X).unreached == ()


@MODES
def test_tied_weights_in_closed_form(cap: int) -> None:
    """L = mean (w² x − y)²: L″ = mean(12 w² x² − 4 x y), of which the Gauss–Newton part is 8 w² x²."""
    model, x, y = Square().double(), X[:, :1], Y[:, :1]
    w = model.first.weight.item()
    H, G = (kind(model, nn.MSELoss(), (x, y), memory_cap=cap) for kind in (la.Hessian, la.GGN))
    assert H.layout.names == ("first.weight",)
    assert float(H.dense()) == pytest.approx(float((12 * w**2 * x**2 - 4 * x * y).mean()), rel=1e-12)
    assert float(G.dense()) == pytest.approx(float((8 * w**2 * x**2).mean()), rel=1e-12)
    untied = 2 * w**2 * float((x**2).mean())  # of one of the two alone
    assert float(G.dense()) != pytest.approx(untied, rel=0.1)
    assert la.trace(G).value == pytest.approx(float(G.dense()), rel=1e-12)
    assert la.diagonal(H).values.item() == pytest.approx(float(H.dense()), rel=1e-12)


@KINDS
def test_frozen_parameters_are_left_out_unless_they_are_named(kind: Any) -> None:
    model = nn.Sequential(linear(), nn.Tanh(), nn.Linear(3, 3)).double()
    whole = kind(model, nn.MSELoss(), (X, Y)).dense()
    model[0].requires_grad_(False)
    part = kind(model, nn.MSELoss(), (X, Y))
    assert part.layout.names == ("2.weight", "2.bias")
    torch.testing.assert_close(part.dense(), whole[-12:, -12:], rtol=0, atol=1e-14)
    named = kind(model, nn.MSELoss(), (X, Y), params=["0.*", "2.*"])
    torch.testing.assert_close(named.dense(), whole, rtol=0, atol=1e-14)
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize(
    ("estimator", "extra"),
    [
        (la.trace, {}),
        (la.diagonal, {}),
        (la.frobenius_norm, {}),
        (la.eigenpairs, {}),
        (la.eigenpairs, {"which": "both"}),
    ],
)
@pytest.mark.parametrize("tol", [0, 0.0, -1e-3, float("nan"), float("inf")])
def test_no_estimator_takes_a_tolerance_that_is_none(estimator: Any, extra: dict[str, Any], tol: float) -> None:
    with pytest.raises(ArgumentError, match=f"tol: expected a number strictly between 0 and 1, given {tol}"):
        estimator(la.Hessian(linear(), nn.MSELoss(), (X, Y)), tol=tol, **extra)


@pytest.mark.parametrize("which", ["largest", "smallest", "both", "magnitude"])
def test_more_pairs_than_parameters_are_refused(which: str) -> None:
    H = la.Hessian(linear(), nn.MSELoss(), (X, Y))
    with pytest.raises(ArgumentError, match=r"k: expected an integer from 1 to P = 15, given 16\. Ask for 1 to 15"):
        la.eigenpairs(H, 16, which)
    assert len(la.eigenpairs(H, 15, which).values) == 15
