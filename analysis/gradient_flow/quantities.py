"""What a training tracker can record: functions from a network to named numbers with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ..curvature.gradients import loss_and_gradient
from ..errors import ArgumentError
from ..operators.data import Batches, count, take
from ..operators.hessian import Hessian
from ..operators.layout import Selection
from ..operators.ntk import NTK
from ..operators.objective import of_model
from ..operators.snapshot import choose
from ..spectra.eigenpairs import eigenpairs
from .conservation import conserved
from .noise_scale import noise_scale

#: Names to (value, low, high).
Readings = dict[str, tuple[float, float, float]]
Quantity = Callable[[nn.Module], Readings]

_EXAMPLES = 64  # of the first batch, for the kernel
_SHARPNESS = 1e-2  # relative residual of the sharpness


@dataclass(frozen=True)
class Setting:
    """The problem that is trained, as for the Hessian."""

    loss: Callable[[Any, Any], Tensor]
    data: Any
    params: Selection
    batch_stats: str | None
    reduction: str | None
    seed: int

    def some_inputs(self, model: nn.Module) -> Any:
        """The inputs of at most 64 examples of the first batch."""
        like = next(model.parameters())
        inputs, target = next(iter(Batches(self.data, like.dtype, like.device, cast=False)))
        examples = count(inputs, target, "batch 0")
        return take(inputs, torch.arange(min(examples, _EXAMPLES)), examples)


def exact(value: float) -> tuple[float, float, float]:
    """A number without an error."""
    return value, value, value


def gradient(setting: Setting, model: nn.Module) -> Quantity:
    """The loss over the data, and the norm of its gradient: one gradient."""

    def read(model: nn.Module) -> Readings:
        with torch.inference_mode(False), torch.enable_grad():
            options = (setting.params, None, setting.batch_stats, setting.reduction)
            objective = of_model(model, setting.loss, setting.data, *options)
            value, slope = loss_and_gradient(objective, objective.layout.flatten(objective.leaves).detach())
        return {"loss": exact(value), "gradient norm": exact(float(slope.norm()))}

    return read


def sharpness(setting: Setting, model: nn.Module) -> Quantity:
    """The largest Hessian eigenvalue, the search started from the last eigenvector: 1.5 gradients and a few products."""
    last: Tensor | None = None

    def read(model: nn.Module) -> Readings:
        nonlocal last
        options = dict(params=setting.params, batch_stats=setting.batch_stats, reduction=setting.reduction)
        hessian = Hessian(model, setting.loss, setting.data, **options)  # type: ignore[arg-type]
        pair = eigenpairs(hessian, 1, tol=_SHARPNESS, seed=setting.seed, start=last)
        last, value, residual = pair.vectors[:, 0], float(pair.values[0]), float(pair.residuals[0])
        return {"sharpness": (value, value - residual, value + residual)}

    return read


def noise(setting: Setting, model: nn.Module) -> Quantity:
    """The gradient noise scale: two gradients, one in groups."""

    def read(model: nn.Module) -> Readings:
        options = (setting.params, None, setting.batch_stats, setting.reduction)
        found = noise_scale(model, setting.loss, setting.data, *options, seed=setting.seed)
        return {"noise scale": (found.value, found.low, found.high)}

    return read


def kernel(setting: Setting, model: nn.Module) -> Quantity:
    """‖Θ − Θ₀‖ / ‖Θ₀‖ of the tangent kernel on at most 64 examples of the first batch."""
    inputs = setting.some_inputs(model)

    def matrix(model: nn.Module) -> Tensor:
        return NTK(model, inputs, setting.params, batch_stats=setting.batch_stats).dense()

    first = matrix(model)

    def read(model: nn.Module) -> Readings:
        return {"kernel drift": exact(float((matrix(model) - first).norm() / first.norm()))}

    return read


def balance(setting: Setting, model: nn.Module) -> Quantity:
    """How far each balance of two layers is from being conserved; no gradient."""
    found = conserved(model, setting.some_inputs(model), setting.batch_stats, setting.seed)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def read(model: nn.Module) -> Readings:
        drifts = found.drift([start, model])
        named = zip(drifts.balances, drifts.values[-1].tolist(), strict=True)
        return {f"balance drift: {b.into} → {b.out}": exact(drift) for b, drift in named}

    return read


QUANTITIES: Mapping[str, Callable[[Setting, nn.Module], Quantity]] = {
    "gradient": gradient,
    "sharpness": sharpness,
    "noise": noise,
    "kernel": kernel,
    "balance": balance,
}


def own(name: str, function: Callable[[nn.Module], Any]) -> Quantity:
    """A user's function of the network: a number, or an estimate with an interval."""

    def read(model: nn.Module) -> Readings:
        value = function(model)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if hasattr(value, "interval"):
            interval = value.interval() if callable(value.interval) else value.interval
            return {name: (float(value), float(interval[0]), float(interval[1]))}
        if not isinstance(value, Real):
            remedy = "Return float(…), or an estimate that has a value and an interval."
            raise ArgumentError(f"extra[{name!r}]", "a function that returns a number", type(value).__name__, remedy)
        return {name: exact(float(value))}

    return read


class Updates:
    """‖θ(k + 1) − θ(k)‖ / ‖θ(k)‖ of each layer, for one step k: the parameters are kept until the next."""

    def __init__(self, model: nn.Module, params: Selection) -> None:
        self.names = list(choose(model, params))
        own = dict(model.named_parameters(remove_duplicate=False))
        self.before = {name: own[name].detach().clone() for name in self.names}

    def read(self, model: nn.Module) -> Readings:
        """The ratios, layer by layer, now that the step is done."""
        after = dict(model.named_parameters(remove_duplicate=False))
        layers: dict[str, list[str]] = {}
        for name in self.names:
            layers.setdefault(name.rpartition(".")[0] or "model", []).append(name)
        squares = [
            torch.stack(
                [
                    sum((after[n].detach() - self.before[n]).double().square().sum() for n in names),  # type: ignore[list-item]
                    sum(self.before[n].double().square().sum() for n in names),  # type: ignore[list-item]
                ]
            )
            for names in layers.values()
        ]
        moved, size = torch.stack(squares).sqrt().cpu().T
        return {f"update ratio: {layer}": exact(r) for layer, r in zip(layers, (moved / size).tolist(), strict=True)}
