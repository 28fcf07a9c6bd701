"""Hessian and eigenpairs on CUDA against the same on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no CUDA device")


class Sequence(nn.Module):
    """A recurrent layer and attention, whose fused CUDA kernels have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(2, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.recurrent(x)[0]
        return self.attention(h, h, h, need_weights=False)[0].mean(1)


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), (9, 6)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(48, 3)), (9, 1, 6, 6)),
    "sequence": (Sequence, (9, 5, 2)),
}


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["float64", "float32"])
@pytest.mark.parametrize("cap", [2**30, 0], ids=["retained", "fresh"])
@pytest.mark.parametrize("name", MODELS)
def test_cuda_equals_cpu(name: str, cap: int, dtype: torch.dtype, tol: float) -> None:
    if name == "sequence" and cap == 0:
        pytest.skip("PyTorch has no forward mode for fused recurrent cells on CUDA (pytorch/pytorch#174355)")
    torch.manual_seed(0)
    build, shape = MODELS[name]
    model, X, y = build().to(dtype), torch.randn(shape, dtype=dtype), torch.randint(0, 3, shape[:1])
    on_cpu = la.Hessian(model, nn.CrossEntropyLoss(), [(X[:4], y[:4]), (X[4:], y[4:])], memory_cap=cap)
    X, y = X.cuda(), y.cuda()
    moved = copy.deepcopy(model).cuda()
    on_gpu = la.Hessian(moved, nn.CrossEntropyLoss(), [(X[:4], y[:4]), (X[4:], y[4:])], memory_cap=cap)
    truth = on_cpu.dense()
    assert on_gpu.device.type == "cuda" and on_gpu.mode == on_cpu.mode
    assert (on_gpu.dense().cpu() - truth).norm() <= tol * truth.norm()
    first, second = (la.eigenpairs(H, 2, "both", tol=1e-3) for H in (on_cpu, on_gpu))
    gap = (first.values - second.values).abs()
    assert bool((gap <= first.residuals + second.residuals + tol * first.values.abs().max()).all())
    assert second.vectors.device.type == "cuda" and second.values.device.type == "cpu"


@pytest.mark.parametrize("cap", [2**30, 0], ids=["retained", "fresh"])
@pytest.mark.parametrize("name", MODELS)
def test_the_gauss_newton_family_on_cuda(name: str, cap: int) -> None:
    if name == "sequence" and cap == 0:
        pytest.skip("PyTorch has no forward mode for fused recurrent cells on CUDA (pytorch/pytorch#174355)")
    torch.manual_seed(0)
    build, shape = MODELS[name]
    model, X, y = build().double(), torch.randn(shape, dtype=torch.float64), torch.randint(0, 3, shape[:1])
    moved, loss = copy.deepcopy(model).cuda(), nn.CrossEntropyLoss()
    for kind, options in ((la.GGN, {}), (la.Fisher, {"samples": 2}), (la.EmpiricalFisher, {})):
        truth = kind(model, loss, [(X[:4], y[:4]), (X[4:], y[4:])], memory_cap=cap, **options).dense()
        there = kind(
            moved, loss, [(X[:4].cuda(), y[:4].cuda()), (X[4:].cuda(), y[4:].cuda())], memory_cap=cap, **options
        )
        assert there.device.type == "cuda"
        assert (there.dense().cpu() - truth).norm() <= 1e-10 * truth.norm()
    kernel = la.NTK(model, X).dense()
    assert (la.NTK(moved, X.cuda()).dense().cpu() - kernel).norm() <= 1e-10 * kernel.norm()
