"""The Jacobian and the kernel against central differences and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.analysis.errors import DataError, LossError, OperandError

from .test_gauss_newton import inputs, network, slopes


def test_products_with_the_jacobian_and_its_transpose():
    model, x = network(), inputs()
    truth = torch.from_numpy(slopes(model, x)).reshape(28, -1)
    J = la.Jacobian(model, x)
    assert J.shape == tuple(truth.shape) and J.T.shape == tuple(truth.T.shape)
    torch.testing.assert_close(J.dense(block=5), truth, rtol=0, atol=1e-9)
    torch.testing.assert_close(J.T.dense(), truth.T, rtol=0, atol=1e-9)
    v, u = (torch.randn(n, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) for n in J.shape[::-1])
    torch.testing.assert_close(J @ v, truth @ v, rtol=0, atol=1e-8)
    torch.testing.assert_close(J.T @ u, truth.T @ u, rtol=0, atol=1e-9)
    torch.testing.assert_close(J @ v[:, 0], (truth @ v)[:, 0], rtol=0, atol=1e-9)
    torch.testing.assert_close(J.T @ u[:, 0], (truth.T @ u)[:, 0], rtol=0, atol=1e-9)
    assert (J @ v[:, :0]).shape == (28, 0)
    torch.testing.assert_close(J.output, model(x))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(J @ v, (truth * (1 + 1e-6)) @ v, rtol=0, atol=1e-8)


def test_the_kernel():
    model, x = network(), inputs()
    truth = torch.from_numpy(slopes(model, x)).reshape(28, -1)
    K = la.NTK(model, x)
    torch.testing.assert_close(K.dense(), truth @ truth.T, rtol=0, atol=1e-8)
    pairs = la.eigenpairs(K, k=2, tol=1e-9)
    torch.testing.assert_close(pairs.values, torch.linalg.svdvals(truth)[:2] ** 2, rtol=1e-8, atol=0)
    assert K.split(pairs.vectors[:, 0])["output"].shape == (7, 4)
    assert K.plan(3).products == 3


def test_the_plan_counts_products_and_what_is_held():
    model = network()

    def planned(count, k=1):
        return la.Jacobian(model, inputs(count)).plan(k)

    held, numbers = planned(1000).bytes, sum(p.numel() for p in model.parameters())
    least = 1000 * (3 + 5 + 4) * 8  # inputs, hidden layer and outputs in float64
    grown = planned(2000).bytes - held
    assert least <= grown <= 8 * least
    J = la.Jacobian(model, inputs())
    for side, name in ((J, "Jacobian"), (J.T, "Jacobian.T")):
        one, many = side.plan(), side.plan(7)
        assert many.products == 7 and many.seconds > 0 and f"{name}: 7 products" in repr(many)
        assert many.bytes - one.bytes == 6 * (numbers + J.shape[0]) * 8  # graph once, vectors for each
        assert side.plan(1000).bytes == side.plan(32).bytes  # which is how many are held at a time
        assert side.plan(1000).bytes > side.plan(31).bytes


def test_bound_to_the_parameters_it_was_built_on():
    model, x = network(), inputs()
    J = la.Jacobian(model, x)
    before = J.dense()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert torch.equal(J.dense(), before)
    assert all(p.grad is None for p in model.parameters())


def test_parameters_out_of_reach_have_zero_columns():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(3, 1), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    J = la.Jacobian(Spare(), inputs().float())
    assert not J.dense()[:, 4:].any() and J.dense()[:, :4].any()
    assert not (la.Jacobian(Spare(), inputs().float(), params=["used*", "spare*"]) @ torch.eye(10)[:, 4:]).any()


def test_bad_input():
    J = la.Jacobian(network(), inputs())
    with pytest.raises(OperandError, match=r"a tensor with 44 rows, given \(3,\)"):
        J @ torch.zeros(3, dtype=torch.float64)
    with pytest.raises(OperandError, match="float64"):
        J @ torch.zeros(44)
    with pytest.raises(OperandError, match="28 rows"):
        J.T @ [1.0]
    with pytest.raises(DataError, match="dtype=torch.float64"):
        la.Jacobian(network(), inputs().float())
    with pytest.raises(LossError, match="one tensor"):
        la.Jacobian(nn.LSTM(3, 2).double(), inputs())
    with pytest.raises(LossError, match="finite"):
        la.Jacobian(network(), inputs() * float("inf"))
