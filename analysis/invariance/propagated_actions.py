r"""A model run on every image g·x of its inputs, with what each of its modules puts out, and how far that is from ρ(g)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from math import inf, nan, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..operators.data import call
from ..operators.engine import no_slow_vmap
from .action import Action, Move
from .nestings import floats, noise_like, over_floats

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
        self.in_place = set[str]()  # calls that change a tensor and hand it on: vmap hides the change

    def __call__(self, inputs: Any, replaced: str | None = None) -> Pass:
        """One pass; what a module puts out may be replaced by noise of its size."""
        found, last, calls = dict[str, list[Tensor]](), list[tuple[Tensor, int]](), dict[nn.Module, int]()

        def note(module: nn.Module, _: Any, output: Any) -> Any:
            tensors = floats(output)
            number = f" (call {calls[module] + 1})" if module in calls else ""
            key = f"{self.names[module]}{number} ({type(module).__name__})"
            if len(last) == len(tensors) and all(a is b for (a, _), b in zip(last, tensors, strict=True)):
                if any(version != x._version for x, version in last):
                    self.in_place.add(key)
                if key not in self.in_place:
                    return None
            if not tensors:
                return None
            if key == replaced:
                output = _noise_like(output)
                tensors = floats(output)
            last[:], calls[module] = [(x, x._version) for x in tensors], calls.get(module, 0) + 1
            # A later module may work in place on what this one put out.
            found[key] = [x.clone() for x in tensors]
            return output if key == replaced else None

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

    def alone(self, inputs: Any) -> Pass:
        """The same for one of them, with a leading axis of one."""
        seen = self(inputs)
        features = {name: [x[None] for x in tensors] for name, tensors in seen.features.items()}
        return Pass([x[None] for x in floats(seen.output)], features)


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
            for part, seen in self.images(block):
                wanted = [floats(self.action.on_outputs(g, self.base.output)) for g in part]
                self.errors += gaps(seen.output, _columns(wanted))
                for name, ways in self.layers.items():
                    for way in ways:
                        way.errors += self._gaps(part, seen, name, way)

    def _gaps(self, part: Sequence[Any], seen: Pass, name: str, way: Representation) -> list[float]:
        """Of a module's tensors; nan if it was not called, as in a loop whose length depends on the inputs."""
        if name not in seen.features:
            return [nan] * len(part)
        pairs = list(zip(way.moves, self.base.features[name], strict=True))
        return gaps(seen.features[name], _columns([[move(g, x) for move, x in pairs] for g in part]))

    def images(self, block: Sequence[Any]) -> list[tuple[Sequence[Any], Pass]]:
        """One pass over stacked inputs as long as the model can be vmapped, else one for each element."""
        many = [self.action.on_inputs(g, self.inputs) for g in block]
        if self.vmapped:
            try:
                return [(block, self.tapped.batched(many))]
            except (RuntimeError, ValueError, TypeError):  # it cannot be vmapped; another mistake comes up again below
                self.vmapped = False
        return [((g,), self.tapped.alone(one)) for g, one in zip(block, many, strict=True)]


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


def _noise_like(output: Any) -> Any:
    """A nesting whose floating-point tensors are noise of their size."""
    generator = torch.Generator().manual_seed(0)

    def drawn(x: Tensor) -> Tensor:
        return (float(x.double().square().mean().sqrt()) or 1.0) * noise_like(x, generator)

    return over_floats(drawn, output)


def gaps(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    """‖found − wanted‖ / ‖wanted‖ for each entry of the first axis, over some tensors; in float64.

    Infinite where shapes differ or only what is wanted is zero, nan where both are.

    Example:
        >>> gaps([torch.tensor([[1.0, 1.0], [1.0, 0.0]])], [torch.tensor([[1.0, 0.0], [1.0, 0.0]])])
        [1.0, 0.0]

    """
    if [x.shape for x in found] != [y.shape for y in wanted] or not wanted:
        return [inf] * len((*found, *wanted)[0])
    ours, theirs = (torch.cat([x.double().reshape(len(x), -1) for x in parts], 1) for parts in (found, wanted))
    unit = theirs.abs().amax(1, keepdim=True) if theirs.shape[1] else theirs.new_ones(len(theirs), 1)
    unit = unit.where(unit > 0, 1)  # of the largest entry, whose square neither overflows nor vanishes
    return (((ours - theirs) / unit).norm(dim=1) / (theirs / unit).norm(dim=1)).tolist()


def gap(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The same of some tensors as a whole.

    Example:
        >>> gap([torch.tensor([4.0, 4.0])], [torch.tensor([4.0, 1.0])]) == 3 / 17**0.5
        True

    """
    return gaps([x[None] for x in found], [y[None] for y in wanted])[0]
