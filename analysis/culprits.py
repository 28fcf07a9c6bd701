"""Which module of a model is at fault: each is taken alone, on the inputs that it had in the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .differences import gradient_ladder, product_ladder
from .errors import DerivativeError, LemmataError, ModelStateError
from .operators.bound import Bound
from .operators.gauss_newton import GGN
from .operators.hessian import Hessian
from .operators.objective import Objective, Parameters

_JITTER = 1e-3  # relative; moves inputs off the kinks on which they may lie exactly


@dataclass
class Call:
    """One call of a module (or of the loss): what it was given, what it returned, and the calls made inside it."""

    name: str
    module: nn.Module | None
    function: Callable
    args: tuple
    kwargs: Mapping[str, Any]
    output: Any = None
    inner: list[Call] = field(default_factory=list)


class Recorder:
    """While active, records the calls of modules: all of them, or the outermost alone."""

    def __init__(self, everything: bool) -> None:
        self.everything, self.outermost, self.stack = everything, list[Call](), list[Call]()

    def __enter__(self) -> Recorder:
        self.handles = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, with_kwargs=True),
        )
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: tuple) -> None:
        kept = self.everything or not self.stack
        call = Call(type(module).__name__, module, module, _clone(args) if kept else (), {})
        (self.stack[-1].inner if self.stack else self.outermost).append(call)
        self.stack.append(call)

    def _leave(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        call = self.stack.pop()
        if self.everything or not self.stack:
            call.kwargs, call.output = _clone(kwargs), _clone(output)


@dataclass(frozen=True)
class Recording:
    """One pass over the data: the model if it could be seen, its batches, and the calls made on the first of them."""

    root: nn.Module | None
    batches: list[tuple[Any, Any]]
    calls: list[Call]


def record(objective: Objective) -> Recording:
    """Walk over the data once and note the calls."""
    root, batches, calls = None, list[tuple[Any, Any]](), list[Call]()
    with torch.no_grad():
        for term in objective._terms():
            with Recorder(everything=not calls) as recorder:
                output = (term.output or term.loss)(objective.leaves)
            calls = calls or recorder.outermost
            first = recorder.outermost[0] if recorder.outermost else None
            if first is not None and first.module is not None and _is_model(first.module, objective):
                root = first.module
                batches.append((first.kwargs if first.kwargs else first.args, _clone(term.target)))
            if term.criterion is not None and len(batches) <= 1:
                calls = [*calls, Call(objective.name, None, term.criterion, (_clone(output),), {})]
    for call in calls:
        if call.module is not None:
            _name(call, {id(module): name for name, module in call.module.named_modules()})
    return Recording(root, batches, calls)


def _is_model(module: nn.Module, objective: Objective) -> bool:
    own = dict(module.named_parameters())
    return own.keys() == objective.fixed.keys() and all(own[key] is objective.fixed[key] for key in own)


def _name(call: Call, names: Mapping[int, str]) -> None:
    call.name = f"{names.get(id(call.module)) or 'model'} ({type(call.module).__name__})"
    for inner in call.inner:
        _name(inner, names)


class Suspects:
    """The calls on one batch of an objective in float64, and the tests that each is put to alone.

    Each test returns the names of the innermost calls that fail it: the call fails, and none made inside it does.
    """

    def __init__(self, objective: Objective, gauss_newton: bool, memory_cap: int, tol: float) -> None:
        self.objective, self.gauss_newton, self.memory_cap, self.tol = objective, gauss_newton, memory_cap, tol

    @cached_property
    def recording(self) -> Recording:
        """The calls, recorded when first asked for."""
        return record(self.objective)

    @cached_property
    def derivatives(self) -> list[str]:
        """Second derivatives are missing, or differ from differences of the gradient, also off exact kinks."""
        found = self._innermost(lambda call: self._curved_wrong(call, 0.0))
        return self._innermost(lambda call: call.name in found and self._curved_wrong(call, _JITTER)) or found

    @cached_property
    def gradients(self) -> list[str]:
        """First derivatives differ from differences of the values, also off exact kinks."""
        found = self._innermost(lambda call: self._sloped_wrong(call, 0.0))
        return self._innermost(lambda call: call.name in found and self._sloped_wrong(call, _JITTER)) or found

    @cached_property
    def repeats(self) -> list[str]:
        """The same inputs give other bits on the second call."""
        return self._innermost(_changes)

    @cached_property
    def splits(self) -> list[str]:
        """The outputs for some of the examples depend on the others."""
        return self._innermost(lambda call: call.module is not None and _couples(call, self.tol))

    def roundings(self, dtype: torch.dtype, tol: float) -> list[str]:
        """Outputs in another dtype differ by more than ``tol``."""
        return self._innermost(lambda call: _rounds(call, dtype, tol))

    def _innermost(self, fails: Callable[[Call], bool]) -> list[str]:
        names: list[str] = []

        def visit(call: Call) -> bool:
            inside = [visit(inner) for inner in call.inner]
            if any(inside):
                return True
            failed = fails(call)
            if failed and call.name not in names:
                names.append(call.name)
            return failed

        for call in self.recording.calls:
            visit(call)
        return names

    def _curved_wrong(self, call: Call, jitter: float) -> bool:
        try:
            operator = self._alone(call, jitter)
            if operator is None:
                return False
            direction = _direction(operator)
            ladder = product_ladder(operator, operator._start.engine.objective, direction[:, None])  # type: ignore[attr-defined]
        except DerivativeError:
            return True
        except (LemmataError, RuntimeError, TypeError):
            return False
        return ladder is not None and not ladder.best <= self.tol

    def _sloped_wrong(self, call: Call, jitter: float) -> bool:
        try:
            operator = self._alone(call, jitter, memory_cap=0)
            if operator is None:
                return False
            ladder = gradient_ladder(operator._start.engine.objective, _direction(operator))  # type: ignore[attr-defined]
        except (LemmataError, RuntimeError, TypeError):
            return False
        return not ladder.best <= self.tol

    def _alone(self, call: Call, jitter: float, memory_cap: int | None = None) -> Bound | None:
        """The same kind of matrix for a call's output as a function of its inputs and its module's parameters."""
        function, variables = isolated(call, jitter)
        if not variables:
            return None
        cap = self.memory_cap if memory_cap is None else memory_cap
        if self.gauss_newton:
            return GGN.of(function, lambda parts: _combine(parts, square=True), variables, cap)
        return Hessian.of(lambda theta: _combine(function(theta), square=False), variables, cap)


def isolated(call: Call, jitter: float = 0.0) -> tuple[Callable[[Parameters], list[Tensor]], Parameters]:
    """A call as a function of named tensors, its module's parameters and its inputs, that returns its real outputs."""
    leaves, structure = tree_flatten((call.args, dict(call.kwargs)))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dtype == torch.float64]
    generator = torch.Generator().manual_seed(0)
    variables = {f"input {i}": _jittered(leaves[i], jitter, generator) for i in places}
    module = copy.deepcopy(call.module)
    names = [] if module is None else [n for n, p in module.named_parameters() if p.dtype == torch.float64]
    if module is not None:
        own = dict(module.named_parameters())
        variables.update({f"parameter {name}": own[name].detach().clone() for name in names})

    def function(theta: Parameters) -> list[Tensor]:
        given = list(leaves)
        for i in places:
            given[i] = theta[f"input {i}"].clone()  # the module may work in place
        args, kwargs = tree_unflatten(given, structure)
        if module is None:
            output = call.function(*args, **kwargs)
        else:
            output = functional_call(module, {name: theta[f"parameter {name}"] for name in names}, args, kwargs)
        return [part for part in tree_flatten(output)[0] if isinstance(part, Tensor) and part.is_floating_point()]

    return function, variables


def _jittered(tensor: Tensor, jitter: float, generator: torch.Generator) -> Tensor:
    if not jitter:
        return tensor.clone()
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
    return tensor + jitter * noise * (tensor.square().mean().sqrt() + jitter)


def _combine(parts: list[Tensor], square: bool) -> Tensor:
    """A scalar of some outputs: a random linear form of them, or a random positive quadratic one."""
    generator, total = torch.Generator().manual_seed(1), torch.zeros((), dtype=torch.float64)
    for part in parts:
        weights = torch.rand(part.shape, generator=generator, dtype=torch.float64).to(part) + 0.5
        total = total.to(part.device) + ((weights * part.square()).sum() if square else (weights * part).sum())
    return total


def _direction(operator: Bound) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64)
    return (direction / direction.norm()).to(operator.device)


def _clone(item: Any) -> Any:
    return tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, item)


def _run(call: Call, args: Any, kwargs: Any) -> list[Tensor]:
    with torch.no_grad():
        output = (copy.deepcopy(call.module) or call.function)(*_clone(args), **_clone(kwargs))
    return [part for part in tree_flatten(output)[0] if isinstance(part, Tensor)]


def _changes(call: Call) -> bool:
    before = torch.get_rng_state()
    try:
        with torch.no_grad():  # the module itself: a copy would restart a generator of its own
            one, two = (
                [
                    t.clone()
                    for t in tree_flatten(call.function(*_clone(call.args), **_clone(call.kwargs)))[0]
                    if isinstance(t, Tensor)
                ]
                for _ in range(2)
            )
    except ModelStateError:
        return True
    drew = not torch.equal(before, torch.get_rng_state())
    return drew or len(one) != len(two) or not all(same(a, b) for a, b in zip(one, two, strict=True))


def same(a: Tensor, b: Tensor) -> bool:
    """Equal bits, nan included."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _couples(call: Call, tol: float) -> bool:
    tensors = [leaf for leaf in tree_flatten((call.args, dict(call.kwargs)))[0] if isinstance(leaf, Tensor)]
    outputs = [leaf for leaf in tree_flatten(call.output)[0] if isinstance(leaf, Tensor)]
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in (*tensors, *outputs)}
    count = counts.pop() if len(counts) == 1 else 0
    if count < 2 or not tensors:
        return False
    half = count // 2
    args, kwargs = tree_map(lambda leaf: leaf[:half] if isinstance(leaf, Tensor) else leaf, (call.args, call.kwargs))
    try:
        found = _run(call, args, kwargs)
        return any(not _near(part, whole[:half], tol) for part, whole in zip(found, outputs, strict=True))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False


def _rounds(call: Call, dtype: torch.dtype, tol: float) -> bool:
    def cast(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = tree_map(cast, (call.args, dict(call.kwargs)))
    module = None if call.module is None else copy.deepcopy(call.module).to(dtype)
    try:
        with torch.no_grad():
            output = (module or call.function)(*args, **kwargs)
            exact = _run(call, call.args, call.kwargs)
        found = [part for part in tree_flatten(output)[0] if isinstance(part, Tensor)]
        return any(not _near(part.double(), whole.double(), tol) for part, whole in zip(found, exact, strict=True))
    except (RuntimeError, TypeError, ValueError):
        return False


def _near(found: Tensor, truth: Tensor, tol: float) -> bool:
    if found.shape != truth.shape:
        return False
    finite = truth.isfinite()
    return bool((found - truth)[finite].norm() <= tol * truth[finite].norm().clamp(min=1e-300))
