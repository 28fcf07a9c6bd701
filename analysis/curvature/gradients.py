"""The loss and its gradient at any point of parameter space, batch by batch, and operators that share an objective."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from ..operators.bound import Bound
from ..operators.engine import flat, slope
from ..operators.objective import Objective
from .evaluation import undisturbed

B = TypeVar("B", bound=Bound)


def batch_gradients(objective: Objective, point: Tensor) -> Iterator[tuple[float, float, Tensor]]:
    """For each batch its weight, its loss at a point (P,), and the gradient of that loss, (P,)."""
    leaves = {name: piece.detach().requires_grad_() for name, piece in objective.layout.split(point.detach()).items()}
    theta = list(leaves.values())
    for term in objective.terms():
        with torch.inference_mode(False), torch.enable_grad():
            loss = term.loss(leaves)
            row = flat(slope(loss, theta, False), theta, 1)[0]
        yield term.weight, float(loss.detach()), row


def loss_and_gradient(objective: Objective, point: Tensor) -> tuple[float, Tensor]:
    """The loss over all data at a point (P,), and its gradient, (P,). The global generators are left alone."""
    value, total, gradient = 0.0, 0.0, torch.zeros_like(point)
    with undisturbed(objective):
        for weight, loss, row in batch_gradients(objective, point):
            value, total = value + weight * loss, total + weight
            gradient.add_(row, alpha=weight)
    divisor = total if objective.divide else 1.0
    return value / divisor, gradient / divisor


def bound(kind: type[B], objective: Objective, memory_cap: int | None = None) -> B:
    """An operator of a kind that takes no options of its own, on an objective that others may share."""
    operator = kind.__new__(kind)
    with torch.inference_mode(False), torch.enable_grad():
        operator._bind(objective, memory_cap)
    return operator
