"""Training networks of one architecture side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


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
        networks: networks that differ in their parameters alone; they are trained in place.
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
    stacked = {name: value.detach().requires_grad_() for name, value in _stack(networks).items()}
    single = len(networks) == 1

    def alone(parameters: dict[str, Tensor], inputs: Any, target: Any) -> Tensor:
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        return loss(functional_call(networks[0], parameters, arguments), target)

    def every(inputs: Any, target: Any) -> Tensor:
        if not single:
            return vmap(alone, randomness="error")(stacked, inputs, target)
        first = torch.utils._pytree.tree_map(lambda t: t[0], (stacked, inputs, target))
        return alone(*first).unsqueeze(0)

    rule = optimizer(list(stacked.values()))
    rate = schedule(rule) if schedule else None
    losses = []
    for step in range(steps):
        values = every(*batch(step))
        rule.zero_grad()
        values.sum().backward()
        rule.step()
        if rate is not None:
            rate.step()
        losses.append(values.detach())
    _unstack(stacked, networks)
    return torch.stack(losses)


def _stack(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    return stack_module_state(list(networks))[0]


@torch.no_grad()
def _unstack(stacked: dict[str, Tensor], networks: Sequence[nn.Module]) -> None:
    for i, network in enumerate(networks):
        for name, parameter in network.named_parameters():
            parameter.copy_(stacked[name][i])
