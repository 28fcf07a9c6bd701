"""Layers whose output is changed in place, as stock convolutional networks do: against the same network without that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la

FLOAT = torch.float64
X = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=FLOAT)
LOSS, CLASSES = nn.CrossEntropyLoss(), torch.tensor([0, 1, 0])


def network(inplace: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 3, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(inplace), nn.Linear(4, 2)
        return nn.Sequential(*layers).double()


def kernel(model: nn.Module) -> Tensor:
    return la.NTK(model, X).dense()


def trace(model: nn.Module) -> Tensor:
    return torch.tensor(la.trace(la.GGN(model, LOSS, (X, CLASSES)), tol=0.02).value)


def diagonal(model: nn.Module) -> Tensor:
    return la.diagonal(la.GGN(model, LOSS, (X, CLASSES)), tol=0.1).values


@pytest.mark.parametrize(("measure", "tol"), [(kernel, 1e-12), (trace, 0.1), (diagonal, 0.3)])
def test_in_place_activations_change_nothing(measure, tol) -> None:  # type: ignore[no-untyped-def]
    here, there = measure(network(True)), measure(network(False))
    assert float((here - there).norm()) <= tol * float(there.norm())


def test_the_kernel_is_that_of_the_jacobian() -> None:
    """The Jacobian's truth: central differences of the output."""
    model = network(True)
    J, h = la.Jacobian(model, X).dense(), 1e-6
    v = torch.randn(J.shape[1], generator=torch.Generator().manual_seed(1), dtype=FLOAT)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            moved = network(True)
            nn.utils.vector_to_parameters(
                nn.utils.parameters_to_vector(model.parameters()) + sign * h * v, moved.parameters()
            )
            ends.append(moved(X).reshape(-1))
    slope = (ends[0] - ends[1]) / (2 * h)
    assert float((J @ v - slope).norm()) <= 1e-7 * float(slope.norm())
    assert float((kernel(model) - J @ J.T).norm()) <= 1e-12 * float((J @ J.T).norm())


class Doubling(nn.Module):
    """Changes what it is given."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace, self.layer = inplace, nn.Linear(16, 2, dtype=FLOAT)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.layer(x.mul_(2) if self.inplace else 2 * x)


@pytest.mark.parametrize(
    "measure",
    [
        kernel,
        lambda model: la.Hessian(model, LOSS, (X, CLASSES)).dense(),
        lambda model: la.GGN(model, LOSS, (X, CLASSES), memory_cap=0).dense(),
        lambda model: la.Jacobian(model, X).dense(),
    ],
    ids=["NTK", "Hessian", "GGN without graphs", "Jacobian"],
)
def test_inputs_changed_in_place_stay_the_users(measure) -> None:  # type: ignore[no-untyped-def]
    before, model, plain = X.clone(), Doubling(True), Doubling(False)
    plain.load_state_dict(model.state_dict())
    found = measure(model)
    assert torch.equal(X, before)
    torch.testing.assert_close(found, measure(plain))
