r"""A model run on every image g·x of its inputs, with what each of its modules puts out, and how far that is from ρ(g)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from math import inf, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..operators.data import call
from ..operators.engine import no_slow_vmap
from .action import Action, Move

_ENTRIES = 2**22  # numbers of the inputs that are stacked at a time
_STACK = 64  # elements in one pass, at most
_CHOICES = 64  # representations of a module that puts out several tensors, at most


@dataclass(frozen=True)
class Pass:
    """What a pass puts out: the output, and by name (and number of the call) the tensors of each module.

    Where several inputs are stacked, the output is a list of its tensors, and all have a leading axis for them.
    """

    output: Any
    features: dict[str, list[Tensor]]


@dataclass
class Representation:
    """One way in which the group may act on a module's tensors, and its error at each element so far."""

    name: str
    moves: list[Move]
    errors: list[float] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """Over all elements; nan where one is."""
        return max(self.errors, key=lambda e: inf if e != e else e)


class Tapped:
    """A model that also returns what its modules put out, those whose names match a pattern.

    A module that only hands on what the last one inside it put out has no place of its own; nor has the model itself.
    """

    def __init__(self, model: nn.Module, pattern: str) -> None:
        self.model = model
        self.names = {m: n for n, m in model.named_modules() if n and fnmatchcase(n, pattern)}

    def __call__(self, inputs: Any) -> Pass:
        """One pass."""
        found, last, calls = dict[str, list[Tensor]](), list[Any](), dict[nn.Module, int]()

        def note(module: nn.Module, _: Any, output: Any) -> None:
            tensors = floats(output)
            if not tensors or (len(last) == len(tensors) and all(a is b for a, b in zip(last, tensors, strict=True))):
                return
            last[:], calls[module] = tensors, calls.get(module, 0) + 1
            number = f" (call {calls[module]})" if calls[module] > 1 else ""
            # A later module may work in place on what this one put out.
            found[f"{self.names[module]}{number} ({type(module).__name__})"] = [x.clone() for x in tensors]

        handles = [module.register_forward_hook(note) for module in self.names]
        try:
            output = call(self.model, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return Pass(output, found)

    def batched(self, many: Sequence[Any]) -> Pass:
        """The same for many inputs of one shape, stacked, in one pass by vmap: each as if alone."""
        leaves, structure = tree_flatten(many[0])
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        rows = [[tree_leaves(one)[i] for i in places] for one in many]
        stacked = [torch.stack(column) for column in zip(*rows, strict=True)]

        def run(parts: list[Tensor]) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
            given = list(leaves)
            for i, part in zip(places, parts, strict=True):
                given[i] = part
            seen = self(tree_unflatten(given, structure))
            return floats(seen.output), seen.features

        with no_slow_vmap():
            return Pass(*vmap(run)(stacked))

    def one_by_one(self, many: Sequence[Any]) -> Pass:
        """The same in a loop."""
        seen = [self(one) for one in many]
        outputs = [torch.stack(column) for column in zip(*(floats(one.output) for one in seen), strict=True)]
        features = {
            name: [torch.stack(column) for column in zip(*(one.features[name] for one in seen), strict=True)]
            for name in seen[0].features
        }
        return Pass(outputs, features)


class Walk:
    """Elements one block after the other: errors of the output, and of each module under each representation."""

    def __init__(self, tapped: Tapped, action: Action, inputs: Any, given: Mapping[str, Move]) -> None:
        self.tapped, self.action, self.inputs = tapped, action, inputs
        self.base = tapped(inputs)
        self.errors = list[float]()
        self.vmapped = True
        self.layers = {
            name: _representations(action, name, tensors, given) for name, tensors in self.base.features.items()
        }

    def take(self, elements: Sequence[Any]) -> None:
        """Add the errors at some elements."""
        size = max(1, sum(t.numel() for t in tree_leaves(self.inputs) if isinstance(t, Tensor)))
        step = max(1, min(_STACK, _ENTRIES // size))
        for start in range(0, len(elements), step):
            block = elements[start : start + step]
            seen = self.images([self.action.on_inputs(g, self.inputs) for g in block])
            wanted = [floats(self.action.on_outputs(g, self.base.output)) for g in block]
            self.errors += gaps(seen.output, _columns(wanted))
            for name, ways in self.layers.items():
                for way in ways:
                    moved = [
                        [move(g, x) for move, x in zip(way.moves, self.base.features[name], strict=True)] for g in block
                    ]
                    way.errors += gaps(seen.features[name], _columns(moved))

    def images(self, many: Sequence[Any]) -> Pass:
        """One pass over stacked inputs as long as the model can be vmapped, else one by one."""
        if self.vmapped:
            try:
                return self.tapped.batched(many)
            except (RuntimeError, ValueError):  # it cannot be vmapped; another mistake comes up again below
                self.vmapped = False
        return self.tapped.one_by_one(many)


def _columns(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _representations(
    action: Action, name: str, tensors: Sequence[Tensor], given: Mapping[str, Move]
) -> list[Representation]:
    """Those that the tensors' shapes allow, or the one that is given."""
    own = next((move for pattern, move in given.items() if fnmatchcase(name.split(" (")[0], pattern)), None)
    if own is not None:
        return [Representation("given", [own] * len(tensors))]
    options = [action.features(tuple(x.shape)) for x in tensors]
    if prod(map(len, options)) > _CHOICES:  # too many tensors: all move alike
        shared = set.intersection(*({n for n, _ in ways} for ways in options))
        return [Representation(n, [dict(ways)[n] for ways in options]) for n in sorted(shared)]
    return [
        Representation("; ".join(dict.fromkeys(n for n, _ in choice)), [move for _, move in choice])
        for choice in product(*options)
    ]


def floats(item: Any) -> list[Tensor]:
    """The floating-point tensors of a nesting.

    Example:
        >>> len(floats((torch.ones(1), [torch.arange(2), 3])))
        1

    """
    return [x for x in tree_leaves(item) if isinstance(x, Tensor) and x.is_floating_point()]


def gaps(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    """‖found − wanted‖ / ‖wanted‖ for each entry of the first axis, over some tensors; in float64.

    Infinite where shapes differ, nan where all that is wanted is zero.

    Example:
        >>> gaps([torch.tensor([[1.0, 1.0], [1.0, 0.0]])], [torch.tensor([[1.0, 0.0], [1.0, 0.0]])])
        [1.0, 0.0]

    """
    if [x.shape for x in found] != [y.shape for y in wanted] or not wanted:
        return [inf] * len((*found, *wanted)[0])
    apart = sum(_squares(x.double() - y.double()) for x, y in zip(found, wanted, strict=True))
    size = sum(_squares(y.double()) for y in wanted)
    assert isinstance(apart, Tensor) and isinstance(size, Tensor)
    return (apart / size).sqrt().tolist()


def _squares(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1) if x.ndim > 1 else x.square()
