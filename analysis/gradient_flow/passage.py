"""The map from one place inside a model to another, linearised at a batch of examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, ModelStateError, NumericsError
from ..operators.base import Operator, Plan
from ..operators.data import call, count
from ..operators.differentiable import Differentiable
from ..operators.engine import no_slow_vmap
from ..operators.layout import Layout
from ..operators.linearised import Linearised
from ..operators.memory import graph_bytes
from ..operators.snapshot import Watch
from .signals import floats

_BLOCK = 32  # products at a time


class Passage:
    r"""Products with the Jacobians :math:`J_n = \partial y_n / \partial x_n` of a target y by a source x, for all examples n.

    Args:
        model: a private copy. inputs: what it is called with; the first axis of x and y counts the examples.
        source, target: names of modules, whose outputs are x and y; None for the model's input and output.

    Shapes: x_n has n entries and y_n has m; :meth:`push` takes (k, N, n) to (k, N, m), :meth:`pull` back.
    """

    def __init__(self, model: nn.Module, inputs: Any, source: str | None, target: str | None) -> None:
        self.names = source or "the input", target or "the output"
        self.switched: set[str] = set()
        modules = dict(model.named_modules())
        ends = [_named(modules, what, name) for what, name in (("source", source), ("target", target))]
        self.x, self.y = _evaluate(model, inputs, ends, self.names, self.switched)
        self.examples = len(self.x)
        _check(self.x, self.y, self.names)
        if torch.autograd.grad(self.y.sum(), self.x, retain_graph=True, allow_unused=True)[0] is None:
            raise _unrelated(self.names)
        self._linearised: Linearised | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.y[0].numel(), self.x[0].numel()

    @property
    def linearised(self) -> Linearised:
        """The graph of Jᵀ as well, made when it is needed."""
        if self._linearised is None:
            self._linearised = Linearised([self.y], [self.x])
        return self._linearised

    def pull(self, rows: Tensor) -> Tensor:
        """Jᵀ u, (k, N, m) → (k, N, n)."""

        def grads(given: Tensor, batched: bool) -> Tensor:
            return torch.autograd.grad(self.y, self.x, given, retain_graph=True, is_grads_batched=batched)[0]

        return _in_blocks(grads, rows, self.y, self.shape[1])

    def push(self, rows: Tensor) -> Tensor:
        """J v, (k, N, n) → (k, N, m)."""
        linear = self.linearised
        return _in_blocks(lambda given, batched: linear.push([given], batched)[0], rows, self.x, self.shape[0])

    def dense(self) -> Tensor:
        """All Jacobians, (N, m, n), from min(m, n) products."""
        m, n = self.shape
        eye = torch.eye(min(m, n), dtype=self.x.dtype, device=self.x.device)
        rows = eye[:, None].expand(-1, self.examples, -1)
        return self.pull(rows).transpose(0, 1) if m <= n else self.push(rows).permute(1, 2, 0)

    def check_apart(self, seed: int) -> None:
        """Raise if the target of some examples depends on the source of others."""
        generator = torch.Generator("cpu").manual_seed(seed)
        rows = torch.randn(1, self.examples, self.shape[0], generator=generator, dtype=torch.float64, device="cpu")
        rows = rows.to(self.y.device, self.y.dtype)
        half = (torch.randperm(self.examples, generator=generator, device="cpu") % 2 == 0).to(self.y.device)
        for some in (half, ~half):  # both ways: examples may see those before them alone
            if bool(self.pull(rows * some[:, None])[:, ~some].any()):
                remedy = (
                    "Call model.eval() or choose batch_stats='frozen', put the examples first, for example with "
                    "batch_first=True, or pass one example at a time."
                )
                raise ModelStateError(self.names[1], "examples that do not see each other", "some that do", remedy)


class Gram(Operator):
    r""":math:`J J^\top` or :math:`J^\top J` of a passage with one example, the smaller of the two; a product costs two passes."""

    def __init__(self, passage: Passage) -> None:
        m, n = passage.shape
        self.passage, self.wide = passage, m <= n
        self.layout = Layout((passage.names[1 if self.wide else 0],), ((min(m, n),),))
        self.dtype, self.device = passage.x.dtype, passage.x.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        first, second = (self.passage.pull, self.passage.push) if self.wide else (self.passage.push, self.passage.pull)
        with torch.inference_mode(False), torch.enable_grad():
            return second(first(vectors[:, None]))[:, 0]

    def plan(self, k: int = 1) -> Plan:
        """Products at an assumed 10 Gflop/s over the numbers that the graph keeps, and its bytes."""
        linear = self.passage.linearised
        held = graph_bytes(linear.outputs, linear.theta)
        return Plan(repr(self), k, 1e-8 * k * held, held)


def first_float(item: Any) -> Tensor | None:
    """The first floating-point tensor in a nesting."""
    return next(floats(item), None)


def take(item: Any, examples: int, part: slice) -> Any:
    """Some of the examples of inputs in any nesting: a part of every tensor whose first axis counts them."""
    if isinstance(item, Tensor):
        return item[part] if item.ndim and len(item) == examples else item
    if isinstance(item, Mapping):
        return {key: take(value, examples, part) for key, value in item.items()}
    if isinstance(item, tuple | list):
        parts = [take(value, examples, part) for value in item]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    return item


def _swapped(item: Any, new: Tensor) -> Any:
    """The nesting with another tensor in the place of its first floating-point one."""
    if isinstance(item, Tensor):
        return new
    if isinstance(item, Mapping):
        found = next(key for key, value in item.items() if first_float(value) is not None)
        changed: Any = copy.copy(item)
        changed[found] = _swapped(item[found], new)
        return changed
    place = next(i for i, value in enumerate(item) if first_float(value) is not None)
    parts = [*item[:place], _swapped(item[place], new), *item[place + 1 :]]
    return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)


def _named(modules: Mapping[str, nn.Module], what: str, name: str | None) -> nn.Module | None:
    if name is None:
        return None
    if name not in modules or not name:
        near = get_close_matches(str(name), [one for one in modules if one], 3) or [one for one in modules if one][:3]
        remedy = f"Take a name of model.named_modules(), such as {', '.join(map(repr, near))}, or None."
        raise ArgumentError(what, "the name of a module", repr(name), remedy)
    return modules[name]


def _evaluate(
    model: nn.Module, inputs: Any, ends: list[nn.Module | None], names: tuple[str, str], switched: set[str]
) -> tuple[Tensor, Tensor]:
    """Source and target of one call: a leaf put in the source's place, and what became of it."""
    sources: list[Tensor] = []
    targets: list[Tensor | None] = []

    def swap(module: nn.Module, args: Any, output: Any) -> Any:
        value = first_float(output)
        if value is None:
            raise ArgumentError("source", "a module with a floating-point output", names[0], "Name another module.")
        sources.append(value.detach().clone().requires_grad_())
        return _swapped(output, sources[-1].clone())  # a copy: what follows may work in place

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        value = first_float(output)
        targets.append(None if value is None else value.clone())

    with _hooked(ends[0], swap), _hooked(ends[1], keep), Differentiable(switched):
        watch = Watch("model", dict(model.named_buffers()), dict(model.named_parameters()), _device(model, inputs))
        given = inputs if ends[0] is not None else swap(model, (), _only(model, inputs))
        output = call(model, given)
    watch.check(lambda: call(model, inputs))
    if ends[1] is None:
        keep(model, (), output)
    for what, calls, name in (("source", sources, names[0]), ("target", targets, names[1])):
        if len(calls) != 1:
            remedy = "Name a module that is called once, such as one around it or inside it."
            raise ArgumentError(what, "a module that is called once", f"{name}, called {len(calls)} times", remedy)
    if targets[0] is None:
        raise ArgumentError("target", "a module with a floating-point output", names[1], "Name another module.")
    if not targets[0].requires_grad:
        raise _unrelated(names)
    return sources[0], targets[0]


def _only(model: nn.Module, inputs: Any) -> Any:
    """The inputs, if one floating-point tensor is among them."""
    found = sum(1 for _ in floats(inputs))
    if found == 1:
        return inputs
    if found:
        remedy = "Name a module as source, or wrap the model in one that takes a single floating-point tensor."
        raise ArgumentError("source", "one floating-point tensor among the inputs", f"{found} of them", remedy)
    names, seen = {module: name for name, module in model.named_modules()}, list[str]()
    examples = count(inputs, None, "inputs")

    def note(module: nn.Module, args: Any, output: Any) -> None:
        value = first_float(output)
        if value is not None and value.ndim and len(value) == examples and names[module]:
            seen.append(names[module])

    with torch.no_grad():
        handles = [module.register_forward_hook(note) for module in names]
        try:
            call(model, inputs)
        finally:
            for handle in handles:
                handle.remove()
    remedy = f"Pass source={seen[0]!r}, the first module that makes one." if seen else "Pass floating-point inputs."
    raise ArgumentError("source", "a floating-point tensor among the inputs", "integers alone", remedy)


@contextmanager
def _hooked(module: nn.Module | None, hook: Callable) -> Iterator[None]:
    handle = None if module is None else module.register_forward_hook(hook)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _device(model: nn.Module, inputs: Any) -> torch.device:
    tensor = next(model.parameters(), first_float(inputs))
    return torch.device("cpu") if tensor is None else tensor.device


def _check(x: Tensor, y: Tensor, names: tuple[str, str]) -> None:
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        given = f"{tuple(x.shape)} at {names[0]}, {tuple(y.shape)} at {names[1]}"
        remedy = "Put the examples first, for example with batch_first=True, or name other modules."
        raise DataError("inputs", "a first axis that counts the examples at both places", given, remedy)
    for value, name in ((x, names[0]), (y, names[1])):
        if not bool(value.isfinite().all()):
            raise NumericsError(name, "finite numbers", "inf or nan", "Look at the inputs and the parameters.")


def _unrelated(names: tuple[str, str]) -> ArgumentError:
    remedy = "Name a source that comes before the target, and no detach() between them."
    return ArgumentError("target", f"one that is computed from {names[0]}", names[1], remedy)


def _in_blocks(product: Callable[[Tensor, bool], Tensor], rows: Tensor, like: Tensor, size: int) -> Tensor:
    """(k, N, ·) → (k, N, size), some rows at a time, one by one where an operation has no batched backward pass."""
    parts = []
    for block in rows.to(like.dtype).split(_BLOCK):
        given = block.reshape(-1, *like.shape)
        try:
            with no_slow_vmap():
                found = product(given, True)
        except RuntimeError:
            found = torch.stack([product(one, False) for one in given])
        parts.append(found.reshape(len(block), len(like), size))
    return torch.cat(parts)
