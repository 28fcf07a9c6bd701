"""Equivariance errors on CUDA against the same on the CPU, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.architectures import ARCHITECTURES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no CUDA device")

ENTRIES = {entry.name: entry for entry in ARCHITECTURES}
CASES: dict[str, tuple[str, la.actions.Action]] = {
    "zeros around": ("cnn-zeros", la.actions.translations((5, 4))),
    "p4": ("group-cnn-p4", la.actions.rotations(4, reflections=True)),
    "interpolated": ("group-cnn-p4", la.actions.rotations(8)),
    "nodes": ("gcn", la.actions.relabellings(4, outputs=lambda g, y: y.index_select(-2, _inverse(g, y)))),
    "motions, drawn": ("egnn", la.actions.motions(2, outputs="same").at(1)),
    "orders": ("encoder", la.actions.permutations(4, outputs="same")),
}


def _inverse(g: tuple[int, ...], y: torch.Tensor) -> torch.Tensor:
    return torch.tensor(g, device=y.device).argsort()


@pytest.mark.parametrize("name", CASES)
def test_errors_on_cuda_are_those_on_the_cpu(name: str) -> None:
    entry, action = ENTRIES[CASES[name][0]], CASES[name][1]
    model: nn.Module = entry.build()
    on_cpu: Any = entry.sample(0, torch.float64, "cpu")[0]
    on_cuda: Any = entry.sample(0, torch.float64, "cuda")[0]
    truth = la.equivariance(model, on_cpu, action, most=32)
    found = la.equivariance(copy.deepcopy(model).cuda(), on_cuda, action, most=32)
    assert found.device.startswith("cuda") and truth.device == "cpu"
    assert [e for _, e in found.errors] == pytest.approx([e for _, e in truth.errors], rel=1e-6, abs=1e-13)
    assert found.exact == truth.exact and found.culprit == truth.culprit
    assert [row.status for row in found.layers] == [row.status for row in truth.layers]
