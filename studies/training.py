"""Training, one way to do it for each need: full-batch paths as streams, and mini-batch training of networks side by side.

`train` fits networks with an optimiser of ``torch.optim``. For theory about the path itself: an *objective* maps a flat parameter vector to its loss and gradient; a *method* turns an objective and a start into an
endless iterator of ``(parameters, loss)``, the start first. The same methods run on a network and on a quadratic form.

>>> from itertools import islice
>>> quadratic = lambda x: (0.5 * x @ x, x)
>>> [round(loss.item(), 4) for _, loss in islice(descent(quadratic, torch.ones(1), step=0.5), 3)]
[0.5, 0.125, 0.0312]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lemmata.analysis import Layout
from lemmata.analysis.approximation.training import train

__all__ = [
    "Iterates",
    "Objective",
    "batches",
    "descent",
    "flat_parameters",
    "flow",
    "layout_of",
    "load_parameters",
    "objective",
    "squared_error",
    "train",
]

#: Flat parameters ``(P,)`` to their loss ``()`` and gradient ``(P,)``.
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
Iterates = Iterator[tuple[Tensor, Tensor]]


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    r"""Half the squared distance, summed over outputs and averaged over examples: $\frac1{2n} \sum_i \|f(x_i) - y_i\|^2$.

    >>> squared_error(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2)).item()
    6.25
    """
    return 0.5 * (output - target).square().sum(-1).mean()


def flat_parameters(model: nn.Module) -> Tensor:
    """A copy of a model's parameters as one vector, in their order of registration."""
    return parameters_to_vector(model.parameters()).detach().clone()


def load_parameters(model: nn.Module, flat: Tensor) -> nn.Module:
    """Write a flat vector into a model's parameters and return the model."""
    vector_to_parameters(flat.detach().clone(), model.parameters())
    return model


def layout_of(model: nn.Module) -> Layout:
    """How a model's parameters lie in one vector: ``layout_of(model).split(flat)`` gives them back by name."""
    named = dict(model.named_parameters())
    return Layout(tuple(named), tuple(tuple(parameter.shape) for parameter in named.values()))


def objective(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, target: Tensor) -> Objective:
    """The loss of a model on one batch, as a function of its flat parameters; the model itself is never changed."""
    layout = layout_of(model)

    def value_and_gradient(flat: Tensor) -> tuple[Tensor, Tensor]:
        leaf = flat.detach().requires_grad_()
        value = loss(functional_call(model, layout.split(leaf), (inputs,)), target)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    return value_and_gradient


def descent(
    objective: Objective,
    start: Tensor,
    step: float | Tensor,
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
) -> Iterates:
    r"""Gradient descent, heavy ball or Nesterov's method, with the conventions of ``torch.optim.SGD``.

    $$v \leftarrow \beta v + (1 - d)\, g, \qquad \theta \leftarrow \theta - \eta v
    \quad\text{or, for Nesterov,}\quad \theta \leftarrow \theta - \eta (g + \beta v),$$

    with $g = \nabla L(\theta)$, step size $\eta$, momentum $\beta$ and dampening $d$; the first step takes $v = g$.
    One gradient a step. A tensor of step sizes runs them side by side where the objective takes a batch of parameters.
    Source: polyak1964methods.
    """
    flat, velocity = start, None
    while True:
        value, gradient = objective(flat)
        yield flat, value
        velocity = gradient if velocity is None else momentum * velocity + (1 - dampening) * gradient
        flat = flat - step * (gradient + momentum * velocity if nesterov else velocity)


def flow(objective: Objective, start: Tensor, step: float) -> Iterates:
    r"""Gradient flow $\dot\theta = -\nabla L(\theta)$ by the classical Runge–Kutta method of order 4 with time step ``step``.

    Accurate, and stable, only while ``step`` times the largest curvature stays below 2.78. Four gradients a step.
    """
    flat = start
    while True:
        value, k1 = objective(flat)
        yield flat, value
        k2 = objective(flat - 0.5 * step * k1)[1]
        k3 = objective(flat - 0.5 * step * k2)[1]
        k4 = objective(flat - step * k3)[1]
        flat = flat - step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def batches(
    data: tuple[Any, Any], size: int, generators: Sequence[torch.Generator]
) -> Callable[[int], tuple[Any, Any]]:
    """Random mini-batches with replacement between steps and none within, drawn for each network by its own generator.

    ``data`` is ``(inputs, target)``, tensors or tuples of tensors with examples along the first axis; the result is what
    ``train`` takes. Indices are drawn on the CPU.

    >>> inputs, target = batches((torch.arange(10), torch.arange(10)), 4, [torch.Generator().manual_seed(0)] * 2)(0)
    >>> tuple(inputs.shape), bool((inputs == target).all())
    ((2, 4), True)
    """
    tree_map, leaves = torch.utils._pytree.tree_map, torch.utils._pytree.tree_leaves(data)
    count = len(leaves[0])

    def draw(step: int) -> tuple[Any, Any]:
        chosen = torch.stack([torch.randperm(count, generator=g, device="cpu")[:size] for g in generators])
        chosen = chosen.to(leaves[0].device)
        return tree_map(lambda t: t[chosen], data)

    return draw
