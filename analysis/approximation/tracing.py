"""From a model to the affine maps and rectifiers that it is made of, or a refusal that names what is not piecewise linear."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from ..errors import ArgumentError, DataError, LemmataError, ModelStateError, NumericsError
from ..operators.snapshot import snapshot
from .written_out import Affine, Layer, PiecewiseLinear

# Sizes of the points at which the traced network is compared with the model.
_PROBES = (0.0, *(0.1, 1.0, 10.0, 100.0) * 6)
# Functions that choose the largest or smallest of several numbers: piecewise linear, but not unit by unit.
_POOLS = {f"{how}max_pool{d}d" for how in ("", "adaptive_", "fractional_") for d in (1, 2, 3)}
_ORDERS = {"max", "min", "amax", "amin", "sort", "topk", "kthvalue", "median", "cummax", "cummin"}
_REMEDY = (
    "Piecewise linear models alone have linear regions: use ReLU, LeakyReLU, PReLU, Hardtanh, ReLU6, abs, "
    "torch.maximum, linear and convolution layers, average pooling, and BatchNorm in eval mode."
)


class _Interceptor(TorchFunctionMode):
    """While active, each rectifier gives zeros that everything after it depends on: what is between two is affine."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.within: list[nn.Module] = []
        self.sources: list[Tensor] = []
        self.bent: list[tuple[str, Tensor, Tensor, Tensor]] = []  # name, input, slopes

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one torch function, a rectifier in our way."""
        rule = _RULES.get(func)
        found = None if rule is None else rule(self, *args, **(kwargs or {}))
        if found is None and func.__name__ in _POOLS | _ORDERS and getattr(args[0], "requires_grad", False):
            remedy = f"Use average pooling or torch.maximum of two tensors in place of {func.__name__}."
            raise ArgumentError(self.place(), "units that bend one by one", "a choice among several numbers", remedy)
        return func(*args, **(kwargs or {})) if found is None else found

    def place(self) -> str:
        """The module that is being called."""
        module = self.within[-1] if self.within else None
        name = self.names.get(module, "") if module is not None else ""
        return f"{name or 'model'} ({type(module).__name__})"

    def bend(self, z: Tensor, negative: Any = 0.0, positive: Any = 1.0) -> Tensor:
        """A unit that bends at zero: its input is kept, its output is a new source."""
        low, high = (torch.as_tensor(s, dtype=z.dtype).expand_as(z).flatten() for s in (negative, positive))
        if bool((low == high).all()):
            return z * low.view_as(z)
        self.bent.append((self.place(), z, low, high))
        source = torch.zeros_like(z).requires_grad_()
        self.sources.append(source)
        return source

    def __enter__(self) -> _Interceptor:
        """Watch which module is being called."""
        self.hooks = [
            register_module_forward_pre_hook(lambda module, args: self.within.append(module)),
            register_module_forward_hook(lambda module, args, output: _drop(self.within), always_call=True),
        ]
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        """Stop watching."""
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*raised)


def _drop(stack: list[nn.Module]) -> None:
    stack.pop()


def _relu(found: _Interceptor, z: Tensor, inplace: bool = False) -> Tensor:
    return found.bend(z)


def _leaky(found: _Interceptor, z: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return found.bend(z, negative_slope)


def _rrelu(
    found: _Interceptor,
    z: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor | None:
    return None if training else found.bend(z, (lower + upper) / 2)


def _prelu(found: _Interceptor, z: Tensor, weight: Tensor) -> Tensor:
    return found.bend(z, weight.detach().view(-1, *[1] * (z.ndim - 2)) if weight.numel() > 1 else weight.detach())


def _abs(found: _Interceptor, z: Tensor) -> Tensor:
    return found.bend(z, -1.0)


def _hardtanh(
    found: _Interceptor, z: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    return min_val + found.bend(z - min_val) - found.bend(z - max_val)


def _relu6(found: _Interceptor, z: Tensor, inplace: bool = False) -> Tensor:
    return _hardtanh(found, z, 0.0, 6.0)


def _clamp(found: _Interceptor, z: Tensor, min: Any = None, max: Any = None) -> Tensor | None:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    if min is not None and max is not None:
        return _hardtanh(found, z, min, max)
    return min + found.bend(z - min) if min is not None else max - found.bend(max - z)


def _maximum(found: _Interceptor, a: Tensor, b: Any = None, **others: Any) -> Tensor | None:
    return a + found.bend(b - a) if isinstance(b, Tensor) else None


def _minimum(found: _Interceptor, a: Tensor, b: Any = None, **others: Any) -> Tensor | None:
    return a - found.bend(a - b) if isinstance(b, Tensor) else None


_RULES: dict[Callable, Callable[..., Tensor | None]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _relu),
    **dict.fromkeys((F.leaky_relu, torch._C._nn.leaky_relu), _leaky),
    **dict.fromkeys((F.rrelu, torch.rrelu), _rrelu),
    **dict.fromkeys((torch.prelu, F.prelu), _prelu),
    **dict.fromkeys((torch.abs, Tensor.abs, Tensor.__abs__), _abs),
    F.hardtanh: _hardtanh,
    F.relu6: _relu6,
    **dict.fromkeys((torch.clamp, Tensor.clamp, torch.clip, Tensor.clip), _clamp),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), lambda found, z, min: _clamp(found, z, min)),
    **dict.fromkeys((torch.maximum, Tensor.maximum, torch.max, Tensor.max), _maximum),
    **dict.fromkeys((torch.minimum, Tensor.minimum, torch.min, Tensor.min), _minimum),
}


def piecewise_linear(model: nn.Module, shape: tuple[int, ...]) -> PiecewiseLinear:
    r"""The affine maps and rectifiers of a model, by running it once with every rectifier's output cut off.

    Between rectifiers a piecewise linear model is affine in their outputs: its coefficients are the derivatives there and
    the values at zero, exact for single layers and rounded to float64 where layers without a rectifier follow each other.
    Skip connections, convolutions and functions written into ``forward`` are followed. The result is compared with the
    model at random points.

    Args:
        model: maps a batch (1, *shape) to a tensor. It is copied in float64 to the CPU and not changed.
        shape: of one input.

    Cost: one backward pass for each unit; Σ_k n_k n_j numbers for the layers j that a layer k reads.

    Errors: ``ArgumentError`` that names the module which is not piecewise linear, or a layer without units;
    ``NumericsError`` for parameters that are not finite; ``ModelStateError`` for train mode that draws or averages.

    Example:
        >>> net = piecewise_linear(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), (2,))
        >>> [layer.name for layer in net.layers], net.units
        (['1 (ReLU)'], 3)

    """
    private = snapshot(model, torch.float64, None)[0].cpu()
    _check(private)
    private.requires_grad_(False)
    with torch.device("cpu"):
        network = _trace(private, shape)
        name = None if _agree(network, private, shape) else _culprit(private, shape)
    if name is not None:
        raise ArgumentError(name, "a piecewise linear function of the input", "another function", _REMEDY)
    return network


def _check(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            remedy = "Run the model once on a batch, model(inputs), before."
            raise ModelStateError(name, "parameters of known shape", "a lazy module", remedy)
        if tensor.numel() == 0:
            remedy = "Give every layer a width of at least 1."
            raise ArgumentError(name, "a layer with at least one unit", f"shape {tuple(tensor.shape)}", remedy)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            remedy = "Load the last checkpoint in which it is finite."
            raise NumericsError(name, "finite weights", "nan or infinity", remedy)


def _trace(model: nn.Module, shape: tuple[int, ...]) -> PiecewiseLinear:
    found = _Interceptor(model)
    x = torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True)
    found.sources.append(x)
    with torch.inference_mode(False), torch.enable_grad():
        with found:
            output = _run(model, x)
        layers = []
        for k, (name, z, negative, positive) in enumerate(found.bent, 1):
            layers.append(Layer(name, _affine(z, found.sources[:k]), negative.numpy(), positive.numpy()))
        head = _affine(output, found.sources)
    return PiecewiseLinear(x.numel(), tuple(layers), head)


def _run(model: nn.Module, x: Tensor) -> Tensor:
    try:
        output = model(x * 1)
    except LemmataError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        remedy = "Pass points of the shape that one example has, without the batch axis; the model maps a tensor to a tensor."
        said = " ".join(str(error).split())[:200]
        raise DataError(
            "points", f"inputs that {type(model).__name__} takes", f"{tuple(x.shape[1:])}: {said}", remedy
        ) from error
    if not isinstance(output, Tensor):
        remedy = "Wrap the model in a module that returns the tensor to be looked at."
        raise ArgumentError(type(model).__name__, "a tensor as output", type(output).__name__, remedy)
    return output


def _affine(value: Tensor, sources: list[Tensor]) -> Affine:
    """The coefficients of a value that is affine in the sources, all of which are zero now."""
    flat = value.flatten()
    slopes: tuple[Tensor | None, ...] = (None,) * len(sources)
    if value.requires_grad:
        eye = torch.eye(len(flat), dtype=torch.float64).view(-1, *value.shape)
        slopes = torch.autograd.grad(value, sources, eye, retain_graph=True, allow_unused=True, is_grads_batched=True)
    weights = {j: part.flatten(1).numpy() for j, part in enumerate(slopes) if part is not None}
    weights.setdefault(0, np.zeros((len(flat), sources[0].numel())))
    return Affine.of(weights, flat.detach().numpy().copy())


def _agree(
    network: PiecewiseLinear, model: Callable[[Tensor], Tensor], shape: tuple[int, ...], around: Any = 0.0
) -> bool:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(len(_PROBES), *shape, generator=generator, dtype=torch.float64, device="cpu")
    x = around + torch.tensor(_PROBES, dtype=torch.float64).view(-1, *[1] * len(shape)) * drawn
    with torch.no_grad():
        truth = model(x.clone()).flatten(1).numpy()
    ours = network(x.flatten(1).numpy())
    return truth.shape == ours.value.T.shape and bool(
        (np.abs(truth - ours.value.T) <= 1e3 * ours.error.T + 1e-300).all()
    )


def _culprit(model: nn.Module, shape: tuple[int, ...]) -> str:
    """The innermost module that differs from what was traced of it, else the model."""
    names = {module: name for name, module in model.named_modules()}
    calls: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            calls.append((module, args[0].detach().clone()))

    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64, device="cpu")
    with torch.no_grad(), register_module_forward_hook(keep):
        model(x)
    for module, given in calls:
        if len(given) == 1 and not _agree(
            _trace(module, tuple(given.shape[1:])), module, tuple(given.shape[1:]), given[0]
        ):
            return f"{names.get(module) or 'model'} ({type(module).__name__})"
    return f"model ({type(model).__name__})"
