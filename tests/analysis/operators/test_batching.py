"""When products are taken together in one batched pass: where launching operations is what costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.analysis.operators.memory import graph_steps


def network(width: int, examples: int) -> tuple[nn.Module, nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 3)).double()
    return net, nn.CrossEntropyLoss(), (torch.randn(examples, 8).double(), torch.randint(0, 3, (examples,)))


@pytest.mark.parametrize("kind", [la.Hessian, la.GGN])
@pytest.mark.parametrize(("width", "examples", "together"), [(4, 8, True), (256, 1024, False)])
def test_small_operations_are_batched_and_large_ones_are_not(
    kind: type, width: int, examples: int, together: bool
) -> None:
    H = kind(*network(width, examples))
    assert (H._start.engine.block > 1) is together
    V = torch.randn(H.shape[0], 5, dtype=torch.float64)
    singly = torch.stack([H @ v for v in V.T], 1)
    assert torch.allclose(H @ V, singly, atol=1e-12 * float(singly.norm()))
    assert not torch.allclose(H @ V.flip(1), singly)


def test_operations_of_a_graph_are_counted_once() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x * x
    assert graph_steps([(y + y).sum()]) == 4  # the sum, +, ×, and the leaf, each reached twice
