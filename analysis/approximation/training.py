"""Training networks of one architecture side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._pytree import tree_map


def train(
    networks: Sequence[nn.Module],
    loss: Callable[[Any, Any], Tensor],
    batch: Callable[[int], tuple[Any, Any]],
    steps: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
) -> Tensor:
    r"""Train networks of one architecture side by side, each on its own batches, and return their losses.

    The parameters are stacked, so that one vmapped pass and one update of an entrywise optimiser (SGD, Adam, …) serve all;
    the numbers are those of training one by one, to rounding. A single network is trained without vmap.

    Args:
        networks: networks that differ in their parameters and buffers alone; they are trained in place. Buffers are
            constants: batch statistics are not updated.
        loss: ``(output, target)`` of one network to the mean over its batch.
        batch: step to ``(inputs, target)``, tensors or tuples of tensors, each with a leading axis over the networks.
        steps: number of updates.
        optimizer: parameters to an optimiser that treats every entry by itself, such as ``partial(torch.optim.Adam, lr=1e-3)``.
        schedule: optimiser to a learning-rate schedule, stepped after every update.

    Returns losses before each update, (steps, networks).

    Cost: a gradient of every network a step. Small networks gain from being stacked, wide ones do not:
    :func:`~lemmata.analysis.gradient_flow.ensembles.stacks` is the rule.

    Example:
        >>> from functools import partial
        >>> nets = [nn.Linear(1, 1) for _ in range(2)]
        >>> x, mean_square = torch.ones(2, 4, 1), nn.MSELoss()
        >>> losses = train(nets, mean_square, lambda step: (x, x), 200, partial(torch.optim.SGD, lr=0.1))
        >>> tuple(losses.shape), bool(losses[-1].max() < 1e-6)
        ((200, 2), True)

    """
    if len(networks) == 1:
        net = networks[0]
        parameters: list[Tensor] = list(net.parameters())

        def losses_of(inputs: Any, target: Any) -> Tensor:
            inputs, target = tree_map(lambda part: part[0], (inputs, target))
            return loss(net(*_arguments(inputs)), target)[None]
    else:
        stacked, buffers = stack_module_state(list(networks))
        for name, own in networks[0].named_parameters():
            stacked[name] = stacked[name].detach().requires_grad_(own.requires_grad)
        parameters = list(stacked.values())

        def one(theta: dict[str, Tensor], kept: dict[str, Tensor], inputs: Any, target: Any) -> Tensor:
            return loss(functional_call(networks[0], (theta, kept), _arguments(inputs)), target)

        def losses_of(inputs: Any, target: Any) -> Tensor:
            return vmap(one, randomness="error")(stacked, buffers, inputs, target)

    losses = _descend(losses_of, batch, steps, optimizer(parameters), schedule)
    if len(networks) > 1:
        _write_back(stacked, networks)
    return losses


def _arguments(inputs: Any) -> tuple:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _descend(
    losses_of: Callable[[Any, Any], Tensor],
    batch: Callable[[int], tuple[Any, Any]],
    steps: int,
    rule: torch.optim.Optimizer,
    schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None,
) -> Tensor:
    rate, losses = schedule(rule) if schedule else None, []
    for step in range(steps):
        values = losses_of(*batch(step))
        rule.zero_grad()
        values.sum().backward()
        rule.step()
        if rate is not None:
            rate.step()
        losses.append(values.detach())
    rule.zero_grad()
    return torch.stack(losses)


@torch.no_grad()
def _write_back(stacked: dict[str, Tensor], networks: Sequence[nn.Module]) -> None:
    for i, network in enumerate(networks):
        for name, parameter in network.named_parameters():
            parameter.copy_(stacked[name][i])
