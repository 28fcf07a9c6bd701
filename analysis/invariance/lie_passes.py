"""Defects of equivariance at the places inside a model, all of them in one forward-mode pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ..errors import ArgumentError, DataError, DerivativeError
from ..operators.data import call
from .generators import Generator

_SHAPING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.modules.dropout._DropoutNd)  # they compute nothing
_NAMED = "relu relu6 leaky_relu elu selu celu gelu silu softplus tanh sigmoid erf sin max_pool2d avg_pool2d".split()
#: Functions whose output is a place: entrywise ones and pooling.
FUNCTIONS = {
    function: name for name in _NAMED for owner in (F, torch, Tensor) if (function := getattr(owner, name, None))
} | {torch.max_pool2d: "max_pool2d", F.max_pool2d: "max_pool2d"}


@dataclass(frozen=True)
class Place:
    """The output h of one module or function: the defect r = ḣ − V h, and per example ‖h‖² and what rounding comes from."""

    name: str
    kind: str
    words: str
    defect: Tensor
    sizes: Tensor
    moved: Tensor


class Walk(TorchFunctionMode):
    """While active, shows the outputs of a model's innermost modules and of its activation functions to ``seen``.

    What ``seen(name, kind, h)`` returns goes on in place of h.
    """

    def __init__(self, model: nn.Module, seen: Callable[[str, str, Tensor], Tensor]) -> None:
        super().__init__()
        self.seen = seen
        own = {module: name for name, module in model.named_modules() if name and not any(module.children())}
        self.names = {module: name for module, name in own.items() if not isinstance(module, _SHAPING)}

    def __enter__(self) -> Walk:
        self.calls: dict[str, int] = {}
        self.inside, self.last = 0, "the input"
        self.handles = [
            handle
            for module in self.names
            for handle in (module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave))
        ]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()
        super().__exit__(*error)

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.inside += 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        self.inside -= 1
        self.last = self.names[module]
        with torch._C.DisableTorchFunction():
            return self._show(self.last, type(module).__name__, output)

    def _show(self, name: str, kind: str, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        self.calls[name] = self.calls.get(name, 0) + 1
        return self.seen(name if self.calls[name] == 1 else f"{name} (call {self.calls[name]})", kind, output)

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function, and show what an activation or pooling between modules returns."""
        output = func(*args, **(kwargs or {}))
        named = func.__hash__ is not None and FUNCTIONS.get(func)
        return self._show(f"{named} after {self.last}", named, output) if named and not self.inside else output


def per_example(h: Tensor, examples: int, place: str) -> Tensor:
    """(N, d): what belongs to each example."""
    if h.ndim and len(h) and len(h) % examples == 0:
        return h.reshape(examples, -1)
    remedy = f"Leave it out: let the generator's act({place!r}, h) return None."
    raise DataError(place, f"a first axis that counts {examples} examples", f"shape {tuple(h.shape)}", remedy)


def squares(h: Tensor, examples: int, place: str) -> Tensor:
    """‖h‖² of each example in double precision, (N,), without a copy of h."""
    return torch.linalg.vector_norm(per_example(h, examples, place), dim=1, dtype=torch.float64).square()


def over_inputs(inputs: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    """The inputs with every floating-point tensor changed: of one tensor, a tuple, list or mapping."""
    if isinstance(inputs, Tensor):
        return change("input", inputs) if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        keys = {key: _one(f"input[{key!r}]", part, change) for key, part in inputs.items()}
        return keys
    if isinstance(inputs, tuple | list):
        return type(inputs)(_one(f"input[{i}]", part, change) for i, part in enumerate(inputs))
    remedy = "Pass a tensor, or a tuple, list or dict of them."
    raise DataError("inputs", "floating-point tensors", type(inputs).__name__, remedy)


def _one(place: str, part: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    return change(place, part) if isinstance(part, Tensor) and part.is_floating_point() else part


class _Forward:
    """What a forward-mode pass along V x does at the inputs and at every place."""

    def __init__(self, generator: Generator, examples: int, reset: bool) -> None:
        self.generator, self.examples, self.reset = generator, examples, reset
        self.places: list[Place] = []
        self.rates: list[float] = []  # ‖V x‖² / ‖x‖² of the inputs that move

    def dual(self, place: str, x: Tensor) -> Tensor:
        """The input with its tangent."""
        moved = self.generator(place, x)
        if moved is None:
            return x
        size = float(x.double().square().sum())
        self.rates.append(float(moved.double().square().sum()) / size if size else 0.0)
        return forward_ad.make_dual(x.clone(), moved)

    def seen(self, name: str, kind: str, output: Tensor) -> Tensor:
        """Note a place, and pass its output on."""
        h, tangent = forward_ad.unpack_dual(output)
        moved = self.generator(name, h)
        if moved is None:
            return output
        tangent = torch.zeros_like(h) if tangent is None else tangent
        size, own, other = (squares(part, self.examples, name) for part in (h, moved, tangent))
        moving = own + other + max(self.rates) * size  # rounding of V x is there though V h may vanish
        self.places.append(Place(name, kind, self.generator.words(name, h), tangent - moved, size, moving))
        return forward_ad.make_dual(h.contiguous(), moved) if self.reset else output  # h may be expanded


def push(model: nn.Module, inputs: Any, generator: Generator, examples: int, reset: bool) -> list[Place]:
    """One forward-mode pass along V x; the last place is the output.

    With ``reset`` the tangent of every place is set to V h before it goes on: what comes next starts without a defect, and
    its own is all that it shows.
    """
    forward = _Forward(generator, examples, reset)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        given = over_inputs(inputs, forward.dual)
        if not forward.rates:
            remedy = "Let act('input', x) return V x; for several inputs the places are 'input[0]', 'input[1]', …."
            raise ArgumentError(generator.name, "an action on the inputs", "None at every input", remedy)
        try:
            with Walk(model, forward.seen):
                output = model(**given) if isinstance(given, Mapping) else _spread(model, given)
        except NotImplementedError as error:
            remedy = "Write that operation with elementary ones, or take la.lie_difference."
            raise DerivativeError(type(model).__name__, "operations with a forward mode", str(error), remedy) from error
        forward.seen("output", "", checked(output))
    if not forward.places or forward.places[-1].name != "output":
        remedy = "Say how the group acts on the output: let act('output', y) return V y."
        raise ArgumentError(generator.name, "an action on the output", f"None at shape {tuple(output.shape)}", remedy)
    return forward.places


def _spread(model: nn.Module, given: Any) -> Any:
    return model(*given) if isinstance(given, tuple | list) else model(given)


def checked(output: Any) -> Tensor:
    """The model's output, which has to be one floating-point tensor."""
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    remedy = "Wrap the model in a module that returns the tensor you mean."
    raise DataError("output", "one floating-point tensor", type(output).__name__, remedy)


def pull(
    model: nn.Module, inputs: Any, places: list[Place], probes: Tensor, examples: int
) -> tuple[list[Tensor], Tensor]:
    """The products z · J r, (K, N), for each place; and the output. One forward pass, and one backward a probe."""
    wanted, found = {place.name for place in places}, {}

    def seen(name: str, kind: str, output: Tensor) -> Tensor:
        if name not in wanted:
            return output
        found[name] = output if output.requires_grad else output.detach().requires_grad_()
        return found[name].clone()  # what follows may work in place

    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        given = over_inputs(inputs, lambda place, x: x.detach().clone().requires_grad_())
        with Walk(model, seen):
            output = call(model, given)
    found["output"] = output
    rows: list[list[Tensor]] = [[] for _ in places]
    for z in probes:
        nodes = [found[place.name] for place in places]
        slopes = torch.autograd.grad(output, nodes, z.reshape(output.shape), retain_graph=True, allow_unused=True)
        for row, place, slope in zip(rows, places, slopes, strict=True):
            share = torch.zeros_like(place.defect) if slope is None else slope * place.defect
            row.append(per_example(share, examples, place.name).double().sum(1))
    return [torch.stack(row) for row in rows], output.detach()
