"""What passes through a model, place by place: hooks on a private copy and a look at its activation functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from ..errors import NumericsError
from .attention import attention_entropy
from .gates import gates

_ENTRIES = 2**22  # numbers of the examples kept for the rank, at each place
_FLAT = 0.05  # a slope below this share of the largest counts as saturated

RECTIFIERS = {F.relu, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
SIGMOIDS = {torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_}
TANHS = {torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_}


def kind_of(function: Callable) -> str | None:
    """What an activation function is called here, None for any other function."""
    named = {"relu": RECTIFIERS, "sigmoid": SIGMOIDS, "tanh": TANHS}
    return next((name for name, functions in named.items() if function in functions), None)


def flat(value: Tensor, kind: str) -> Tensor:
    """Whether the slope at these values of σ or tanh is below a twentieth of its largest."""
    slope = 4 * value * (1 - value) if kind == "sigmoid" else 1 - value.square()
    return slope < _FLAT


@dataclass
class Site:
    """What was seen at one place: per example in ``signal``, ``gradient``, ``saturated`` (shares) and ``entropy``.

    ``rows`` are the outputs for some examples, ``alive`` tells which units were ever other than zero, ``tracked`` whether
    the outputs depend on parameters.
    """

    name: str
    kind: str
    module: nn.Module | None = None
    signal: list[Tensor] = field(default_factory=list)
    gradient: list[Tensor] = field(default_factory=list)
    saturated: list[Tensor] = field(default_factory=list)
    entropy: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    alive: Tensor | None = None
    tracked: bool = False

    def close(self, marks: Mapping[str, int]) -> None:
        """Average what several calls in one batch have left since the marks: examples are what counts."""
        for name in ("signal", "gradient", "saturated", "entropy"):
            kept: list[Tensor] = getattr(self, name)
            new = kept[marks.get(name, 0) :]
            if len(new) > 1 and len({part.shape for part in new}) == 1:
                kept[marks.get(name, 0) :] = [torch.stack(new).mean(0)]

    @property
    def marks(self) -> dict[str, int]:
        """How much there is so far."""
        return {name: len(getattr(self, name)) for name in ("signal", "gradient", "saturated", "entropy")}


@dataclass
class Frame:
    """A call of a module that is under way: the calls inside it so far, and the last of them."""

    module: nn.Module
    name: str
    inner: int = 0
    last: str = ""
    functions: int = 0


class Recorder(TorchFunctionMode):
    """While active, notes the outputs of a model's modules and activation functions, and the slopes that come back.

    ``batch`` opens a batch. Hooks are removed at the end, also after an error.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.names = model, {module: name or "model" for name, module in model.named_modules()}
        self.sites: dict[str, Site] = {}

    def __enter__(self) -> Recorder:
        self.handles = [
            handle
            for module in self.names
            for handle in (
                module.register_forward_pre_hook(self._enter),
                module.register_forward_hook(self._leave, with_kwargs=True),
            )
        ]
        self.stack: list[Frame] = []
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()
        super().__exit__(*error)

    def batch(self, examples: int, chosen: Tensor, scale: float) -> None:
        """Begin a batch: its number of examples, those kept for the rank, and what turns its loss into a sum."""
        self.examples, self.chosen, self.scale = examples, chosen, scale
        self.calls: dict[str, int] = {}
        self.seen: tuple[Tensor | None, int] = (None, 0)
        self.last, self.channels, self.broken = "the input", False, ""
        self.before = {name: site.marks for name, site in self.sites.items()}
        self.slopes: dict[tuple[str, int], Tensor] = {}

    def close(self) -> None:
        """End a batch."""
        for (name, _), slope in self.slopes.items():
            self.sites[name].gradient.append(slope)
        for name, site in self.sites.items():
            site.close(self.before.get(name, {}))
        self.seen = (None, 0)
        if self.broken:
            given = f"gradients that are nan or infinite at the output of {self.broken}, finite ones after it"
            remedy = "Look for sqrt, norm, log or division at 0 in what follows it: add a small number inside."
            raise NumericsError(self.broken, "finite gradients", given, remedy)

    def _enter(self, module: nn.Module, args: tuple) -> None:
        name = self.names[module]
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.stack:
            self.stack[-1].inner += 1
        self.stack.append(Frame(module, name if self.calls[name] == 1 else f"{name} (call {self.calls[name]})"))
        with torch._C.DisableTorchFunction():
            if any(bool(part.isnan().any()) for part in floats(args)):
                where = self.last if len(self.stack) == 1 else f"what the model makes of the output of {self.last}"
                remedy = f"It is nan before {name} is called: look at the operations between the two."
                raise NumericsError(where, "finite activations", f"nan in the input of {name}", remedy)

    def _leave(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        frame = self.stack.pop()
        with torch._C.DisableTorchFunction():
            values = list(floats(output))
            if values:
                self._see(frame, module, values)
                self._check(f"{frame.name} ({type(module).__name__})", [v for v in values[1:] if bool(v.isnan().any())])
            for gate, (kind, parts) in gates(module, args).items():
                site = self._site(f"{frame.name}: {gate}", kind, None)
                self._units(site, kind, self.by_example(parts, None))
                site.signal.append(self.by_example(parts, None).square().mean(1))
        if not frame.inner:
            self.last = frame.name
        if self.stack:
            self.stack[-1].last = frame.name if not frame.inner else frame.last

    def _see(self, frame: Frame, module: nn.Module, values: list[Tensor]) -> None:
        if frame.inner == 0 and any(True for _ in module.parameters(recurse=False)):
            self.channels = isinstance(module, _ConvNd | _NormBase | nn.GroupNorm)
        seen, version = self.seen
        if values[0] is not seen or seen._version != version:
            self._note(self._site(frame.name, type(module).__name__, module), values)

    def _site(self, name: str, kind: str, module: nn.Module | None) -> Site:
        return self.sites.setdefault(name, Site(name, kind, module))

    def _note(self, site: Site, values: list[Tensor]) -> None:
        """Signal and rank of the first of several outputs and, later, the gradient at all of them."""
        value, held = values[0], values[0].detach()
        self._check(f"{site.name} ({site.kind})", [held])
        table = self.by_example(held, site.module)
        site.signal.append(table.double().square().mean(1))
        if len(table) == self.examples:
            kept = max(2, _ENTRIES // table.shape[1])
            site.rows.append(table[self.chosen[:kept].to(table.device)])
        key = site.name, len(site.signal)  # the parts of one call's output are added up
        for part in values:
            if part.requires_grad:
                site.tracked = True
                part.register_hook(lambda slope: self._slope(site, key, slope))
        self.seen = (value, value._version)

    def _check(self, name: str, values: Iterable[Tensor]) -> None:
        """The first place with numbers that are not finite is at fault; of several outputs, all but the first may be masks."""
        for value in values:
            lost = int((~value.isfinite()).sum())
            if lost:
                given = f"nan or infinity in {lost} of {value.numel()} of its outputs"
                remedy = (
                    f"It is the first to make one, after {self.last}: look at its inputs' size, and its parameters'."
                )
                raise NumericsError(name, "finite activations", given, remedy)

    def _slope(self, site: Site, key: tuple[str, int], slope: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            table = self.by_example(slope.detach(), site.module) * self.scale
            if not self.broken and not bool(table.isfinite().all()):
                self.broken = f"{site.name} ({site.kind})"
            squares = table.double().square().sum(1)
            own = self.slopes.get(key)
            self.slopes[key] = squares if own is None or own.shape != squares.shape else own + squares

    def _units(self, site: Site, kind: str, value: Tensor) -> None:
        """Dead and saturated units of an activation's values."""
        if kind != "relu":
            site.saturated.append(flat(value, kind).double().mean(1))
            return
        axis = 1 if self.channels and value.ndim > 2 else -1
        axes = [i for i in range(value.ndim) if i != axis % value.ndim]
        alive = (value != 0).any(axes) if axes else value != 0
        same = site.alive is not None and site.alive.shape == alive.shape
        site.alive = alive | site.alive if same and site.alive is not None else alive

    def by_example(self, value: Tensor, module: nn.Module | None) -> Tensor:
        """A row for each example, (N, …) → (N, d); one row of all where no axis counts the examples."""
        n, second = self.examples, getattr(module, "batch_first", True) is False and value.ndim == 3
        if value.ndim and value.shape[0] == n and not second:
            return value.reshape(n, -1)
        if value.ndim > 1 and value.shape[1] == n:
            return value.transpose(0, 1).reshape(n, -1)
        folded = value.ndim > 0 and value.shape[0] > 0 and value.shape[0] % n == 0
        return value.reshape(n if folded else 1, -1)

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function, and note it if it is an activation or attention."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not self.stack:
            return output
        frame, kind = self.stack[-1], kind_of(func)
        if kind and isinstance(output, Tensor):
            self._activation(frame, kind, output)
        with torch.no_grad():
            entropy = attention_entropy(func, args, kwargs)
        if entropy is not None:
            site = self._site(f"{frame.name}: attention", "attention", None)
            site.entropy.append(self.by_example(entropy, None).mean(1))
        return output

    def _activation(self, frame: Frame, kind: str, output: Tensor) -> None:
        own = isinstance(frame.module, nn.ReLU | nn.ReLU6 | nn.Sigmoid | nn.Tanh)
        frame.functions += 1
        if own:
            name = frame.name
        elif frame.inner:
            name = f"{kind} after {frame.last}"
        else:  # a model without modules has its functions numbered; a cell's, called step by step, are taken together
            name = f"{frame.name}: {kind}" + (f" {frame.functions}" if len(self.stack) == 1 else "")
        site = self._site(name, type(frame.module).__name__ if own else kind, frame.module if own else None)
        self._units(site, kind, output.detach() if kind == "relu" else self.by_example(output.detach(), None))
        self._note(site, [output])


def floats(item: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a nesting, in order."""
    if isinstance(item, Tensor):
        if item.is_floating_point():
            yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from floats(value)
    elif isinstance(item, tuple | list):
        for value in item:
            yield from floats(value)
