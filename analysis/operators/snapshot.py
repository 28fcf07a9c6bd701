"""A private copy of a model that stands for one fixed, differentiable function of its parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ..errors import ArgumentError, LossError, ModelStateError, ParameterError
from .layout import Selection, matches

_STATS = (None, "frozen", "batch")


def snapshot(model: nn.Module, dtype: torch.dtype | None, batch_stats: str | None) -> tuple[nn.Module, str | None]:
    """A deep copy, cast to ``dtype``, its batch normalisation settled; and the choice made, if the model has any."""
    if not isinstance(model, nn.Module):
        remedy = "For any other function use la.Hessian.of(objective, parameters)."
        raise ArgumentError("model", "a torch.nn.Module", type(model).__name__, remedy)
    if batch_stats not in _STATS:
        raise ArgumentError("batch_stats", "'frozen', 'batch' or None", repr(batch_stats), "Choose one of them.")
    model = getattr(model, "_orig_mod", model)  # a compiled model has no second derivative; what it wraps does
    for name, module in model.named_modules():
        _refuse_randomness(name, module)
    duplicate = _copy(model)
    if dtype is not None:
        duplicate = duplicate.to(dtype)
    normalised = False
    for name, module in duplicate.named_modules():
        if isinstance(module, _BatchNorm):
            normalised = True
            _settle(f"{name} ({type(module).__name__})", module, batch_stats)
        elif isinstance(module, _InstanceNorm) and module.training:
            _forget(module)  # its output does not depend on the running statistics that it would update
    return duplicate, batch_stats if normalised else None


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        remedy = (
            "Use torch.nn.utils.parametrizations in place of the old weight_norm and spectral_norm hooks, "
            "or la.Hessian.of(objective, parameters)."
        )
        raise ModelStateError(type(model).__name__, "a model that can be copied", str(error), remedy) from error


def _refuse_randomness(name: str, module: nn.Module) -> None:
    rate = getattr(module, "dropout", 0.0)  # recurrent and attention layers keep the rate as a number
    random = (isinstance(module, _DropoutNd) and module.p > 0) or isinstance(module, nn.RReLU)
    if module.training and (random or (isinstance(rate, float) and rate > 0)):
        remedy = "Call model.eval(), or only this module's .eval(), before building the operator."
        raise ModelStateError(
            f"{name or 'model'} ({type(module).__name__})",
            "a deterministic forward pass",
            "a module in train mode that draws random numbers",
            remedy,
        )


def _settle(name: str, module: _BatchNorm, batch_stats: str | None) -> None:
    stored = module.running_mean is not None
    if batch_stats is None and (module.training or not stored):
        given = "train mode" if module.training else "no running statistics"
        remedy = "Call model.eval(), or choose batch_stats='frozen' (running statistics) or batch_stats='batch'."
        raise ModelStateError(name, "statistics that do not depend on the batch", given, remedy)
    if batch_stats == "frozen":
        if not stored:
            remedy = "Choose batch_stats='batch'."
            raise ModelStateError(name, "running statistics to freeze", "track_running_stats=False", remedy)
        module.eval()
    elif batch_stats == "batch":
        module.train()
        _forget(module)


def _forget(module: Any) -> None:
    module.track_running_stats = False
    module.running_mean = module.running_var = None


def choose(model: nn.Module, params: Selection) -> dict[str, Tensor]:
    """The parameters that ``params`` selects, by name: ``"*"`` means all trainable ones, any other what it says.

    A tied parameter appears once, under its first name, and is found by each of its names.
    """
    first = {id(tensor): name for name, tensor in model.named_parameters()}
    everything = isinstance(params, str) and params == "*"
    chosen = {
        first[id(tensor)]: tensor
        for name, tensor in model.named_parameters(remove_duplicate=False)
        if matches(name, params) and (tensor.requires_grad or not everything)
    }
    if not chosen:
        frozen = "; '*' leaves out those with requires_grad=False" if everything else ""
        expected = f"a pattern or predicate that matches some of {list(first.values())}"
        remedy = f"Use glob patterns such as '*weight', or name them{frozen}."
        raise ParameterError(f"params={params!r}", expected, "no match", remedy)
    return {name: chosen[name] for name in first.values() if name in chosen}


def leaves(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leaves that share the parameters' memory, checked to be real, of one dtype and on one device."""
    reference = next(iter(parameters.values()))
    for name, tensor in parameters.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            given = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            remedy = "Leave it out with params=…, or store it as a buffer."
            if isinstance(tensor, Tensor) and tensor.is_complex():
                remedy = (
                    "A real loss has no complex Hessian: store real and imaginary parts, use torch.view_as_complex."
                )
            raise ParameterError(name, "a real floating-point tensor", given, remedy)
        if tensor.dtype != reference.dtype:
            remedy = "Pass dtype=torch.float32 or torch.float64: it casts a copy."
            raise ParameterError(name, f"{reference.dtype} like the others", str(tensor.dtype), remedy)
        if tensor.device != reference.device:
            remedy = "Move the model to one device."
            raise ParameterError(name, f"{reference.device} like the others", str(tensor.device), remedy)
    return {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}


class Watch:
    """Checks that a forward pass drew no random number and changed no state of the private copy.

    Buffers are compared by value, for batch normalisation changes them behind PyTorch's version counters; parameters
    by version.
    """

    def __init__(self, name: str, buffers: dict[str, Tensor], fixed: dict[str, Tensor], device: torch.device) -> None:
        self.name, self.device = name, device
        self.buffers = {key: (tensor, tensor.clone()) for key, tensor in buffers.items()}
        self.versions = {key: (tensor, tensor._version) for key, tensor in fixed.items()}
        self.random = self._generators()

    def _generators(self) -> list[Tensor]:
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *cuda]

    def _moved(self, before: list[Tensor]) -> bool:
        return not all(torch.equal(a, b) for a, b in zip(before, self._generators(), strict=True))

    def check(self, run: Callable[[], Any]) -> None:
        """Raise if the state has moved, naming what moved it in a second ``run``; the global generators are put back."""
        if self._moved(self.random):
            name = self._drawing(run) or self.name
            torch.set_rng_state(self.random[0])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(self.random[1], self.device)
            remedy = "Call model.eval(), or draw the noise beforehand and pass it as an input."
            raise ModelStateError(name, "a deterministic forward pass", "one that draws random numbers", remedy)
        changed = [k for k, (now, old) in self.buffers.items() if not torch.equal(now.nan_to_num(), old.nan_to_num())]
        changed += [key for key, (tensor, version) in self.versions.items() if tensor._version != version]
        if changed:
            remedy = "Call model.eval(), and drop options such as max_norm that change tensors in the forward pass."
            raise ModelStateError(changed[0], "a forward pass that changes no state", "one that changes it", remedy)

    def _drawing(self, run: Callable[[], Any]) -> str | None:
        """The innermost module that moves a global generator in its forward pass, if one does."""
        names, before, found = dict[nn.Module, str](), list[list[Tensor]](), list[str]()

        def enter(module: nn.Module, args: Any) -> None:
            if not names:  # the model itself comes first
                names.update({part: name for name, part in module.named_modules()})
            before.append(self._generators())

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if self._moved(before.pop()):
                found.append(f"{names.get(module) or 'model'} ({type(module).__name__})")

        with register_module_forward_pre_hook(enter), register_module_forward_hook(leave):
            run()
        return found[0] if found else None


def scalar(loss: Any, name: str, culprit: str) -> Tensor:
    """The loss, if it is one finite real number."""
    remedy = "Return the mean over the batch, for example with reduction='mean' or .mean()."
    if not isinstance(loss, Tensor):
        raise LossError(culprit, "a scalar tensor", type(loss).__name__, remedy)
    if loss.ndim != 0 or not loss.is_floating_point():
        raise LossError(culprit, "a real scalar tensor", f"{loss.dtype}, shape {tuple(loss.shape)} on {name}", remedy)
    if not bool(torch.isfinite(loss)):
        remedy = "Look for overflow, division by zero or log(0) there, or drop the batch."
        raise LossError(f"{culprit} on {name}", "a finite value", str(float(loss.detach())), remedy)
    return loss
