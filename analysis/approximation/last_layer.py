"""The last layer of a network by least squares."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError


@torch.no_grad()
def refit(network: nn.Module, inputs: Tensor, target: Tensor) -> None:
    r"""Replace the last layer, f(x) = W h(x) + b, by the W and b of the least squared error, in place.

    .. math:: \min_{W, b} \sum_i \|W h(x_i) + b - y_i\|^2

    Args:
        network: its output is that of its last module, which has a weight (k, n) and perhaps a bias (k,).
        inputs: (m, …). target: (m, k), or (m,) for outputs of that shape.

    Cost: a pass, and m n² operations in float64 on the CPU; of many solutions, the smallest.

    Errors: ``ArgumentError`` for a network whose output is not that of such a layer, or that uses the layer or its weight
    elsewhere too; ``DataError`` for another number of targets.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1)).double()
        >>> x = torch.arange(4.0, dtype=torch.float64)[:, None]
        >>> refit(net, x, 3 * x - 1)
        >>> bool((net(x) - (3 * x - 1)).abs().max() < 1e-10)
        True

    """
    calls: list[tuple[str, nn.Module, Any, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, given, out, name=name: calls.append((name, module, given, out)))
        for name, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        output = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    layer, features = _last(calls or [("network", network, (), output)], output)
    _check_own(network, layer, calls)
    if len(target) != len(inputs) or target.numel() != output.numel():
        given = f"{tuple(target.shape)} beside outputs of shape {tuple(output.shape)}"
        raise DataError("target", "a target of the shape of the network's outputs", given, "Pass one for each input.")
    weight, bias = layer.weight, getattr(layer, "bias", None)
    design = features.reshape(len(inputs), -1).cpu().double()
    if bias is not None:
        design = torch.cat([design, torch.ones_like(design[:, :1])], 1)
    y = target.reshape(len(inputs), -1).cpu().double()
    if not bool(design.isfinite().all()):
        return  # a run that diverged stays what it is
    solution = torch.linalg.lstsq(design, y, driver="gelsd").solution.T
    weight.copy_(solution[:, : weight.shape[1]])
    if bias is not None:
        bias.copy_(solution[:, -1])


def _check_own(network: nn.Module, layer: Any, calls: list) -> None:
    uses = sum(module is layer for _, module, _, _ in calls)
    owners = sum(part is layer.weight for module in network.modules() for part in module._parameters.values())
    if uses > 1 or owners > 1:
        given = f"one that is used {uses} times, its weight by {owners} modules"
        remedy = 'Give the output a layer of its own, or leave last_layer="trained".'
        raise ArgumentError("last_layer", "a last layer that is used once", given, remedy)


def _last(calls: list, output: Tensor) -> tuple[Any, Tensor]:
    name, module, given, out = calls[-1]
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(weight, Tensor) and weight.ndim == 2 and len(given) == 1 and isinstance(out, Tensor):
        made = given[0] @ weight.T + (0 if bias is None else bias)
        same = made.shape == out.shape and out.numel() == output.numel()
        if (
            same
            and torch.equal(out.flatten(), output.flatten())
            and torch.allclose(made, out, rtol=1e-4, equal_nan=True)
        ):
            return module, given[0]
    expected = "a network whose output is that of a last linear layer"
    remedy = 'End it with an nn.Linear, or leave last_layer="trained".'
    raise ArgumentError("last_layer", expected, f"one that ends with {name} ({type(module).__name__})", remedy)
