r"""A group that acts on inputs and outputs: elements, composition, inverses, exact draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from ..errors import ArgumentError, CapacityError, OperandError

#: Groups with more elements are not walked through, but sampled.
LIMIT = 4096
#: ``(g, tensor) → tensor``: one way in which an element may act on a tensor of a given shape.
Move = Callable[[Any, Tensor], Tensor]


def invariant(g: Any, y: Any) -> Any:
    """The trivial action, ρ(g) y = y.

    Example:
        >>> invariant("any", 7)
        7

    """
    return y


def nowhere(shape: Sequence[int]) -> list[tuple[str, Move]]:
    """No representation is known for features of any shape.

    Example:
        >>> nowhere((2, 3))
        []

    """
    return []


@dataclass(frozen=True, repr=False)
class Action:
    r"""A group G, or a window of one, that acts on the inputs and outputs of a model.

    .. math:: \rho(g)\,\rho(h) = \rho(gh), \qquad \rho(g^{-1}) = \rho(g)^{-1}.

    Attributes:
        name: of the group and of what it does.
        order: the number of elements, infinite for a continuous group.
        identity: e.
        listed: an iterator over all elements, None for an infinite group.
        draw: ``draw(generator)`` → one element, uniformly (by Haar measure where the group is compact).
        compose: (g, h) ↦ gh, None where only the elements' actions are known. inverse: g ↦ g⁻¹, likewise.
        on_inputs: (g, x) ↦ ρ(g) x, on a batch of inputs in any nesting; examples are the first axis.
        on_outputs: the same for outputs. Builders take ``outputs="invariant"``, ``"same"`` or a callable.
        features: shape of a feature map → the ways in which the group may act on it, each with its name.
        check: raises an error for inputs that the group cannot act on.
        exact: g ↦ does g act without interpolation? Where it is false, the action is one only up to :func:`interpolation`.
        show: g ↦ its name in tables.

    Example:
        >>> from lemmata.analysis.invariance import actions
        >>> turn = actions.rotations(4)
        >>> turn.order, turn.compose((0, 3), (0, 2)), turn.inverse((0, 1))
        (4, (0, 1), (0, 3))
        >>> turn.on_inputs((0, 1), torch.tensor([[1, 2], [3, 4]])).tolist()
        [[2, 4], [1, 3]]

    """

    name: str
    order: float
    identity: Any
    listed: Callable[[], Iterable[Any]] | None
    draw: Callable[[torch.Generator], Any]
    compose: Callable[[Any, Any], Any] | None
    inverse: Callable[[Any], Any] | None
    on_inputs: Callable[[Any, Any], Any]
    on_outputs: Callable[[Any, Any], Any]
    features: Callable[[Sequence[int]], list[tuple[str, Move]]] = nowhere
    check: Callable[[Any], None] = lambda inputs: None
    exact: Callable[[Any], bool] = lambda g: True
    show: Callable[[Any], str] = str

    def __repr__(self) -> str:
        size = f"{int(self.order)} elements" if isfinite(self.order) else "infinitely many elements"
        return f"Action({self.name}, {size})"

    @property
    def enumerable(self) -> bool:
        """Whether the elements can all be walked through."""
        return self.listed is not None and self.order <= LIMIT

    @property
    def elements(self) -> tuple[Any, ...]:
        """All elements, the identity first; ``CapacityError`` for a group of more than 4096."""
        if not self.enumerable:
            given = f"{int(self.order)} elements" if isfinite(self.order) else "infinitely many"
            remedy = "Sample it: action.sample(count, seed)."
            raise CapacityError(self.name, f"at most {LIMIT} elements to walk through", given, remedy)
        assert self.listed is not None
        return tuple(self.listed())

    def sample(self, count: int, seed: int = 0) -> tuple[Any, ...]:
        """Independent uniform elements, the same for the same seed.

        Example:
            >>> from lemmata.analysis.invariance import actions
            >>> actions.permutations(9).sample(2) == actions.permutations(9).sample(2)
            True

        """
        generator = torch.Generator().manual_seed(seed)
        return tuple(self.draw(generator) for _ in range(count))

    def with_outputs(self, outputs: Any) -> Action:
        """The same group with another action on outputs: ``"invariant"``, ``"same"`` or a callable (g, y) ↦ ρ(g) y."""
        return replace(self, on_outputs=outputs_of(outputs, self.on_inputs))

    def at(self, *places: int) -> Action:
        """The same group, acting on these items of a tuple only, of inputs and (if it is a tuple) of outputs.

        Example:
            >>> from lemmata.analysis.invariance import actions
            >>> actions.signs().at(1).on_inputs(-1, (torch.ones(1), torch.ones(1)))
            (tensor([1.]), tensor([-1.]))

        """
        if not places or not all(isinstance(i, int) and i >= 0 for i in places):
            remedy = "Count the items of the tuple from 0, as in .at(1)."
            raise ArgumentError("places", "whole numbers from 0 on, at least one", str(places), remedy)

        def part(move: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
            def moved(g: Any, item: Any) -> Any:
                if not isinstance(item, tuple | list):
                    return move(g, item)
                return tuple(move(g, x) if i in places else x for i, x in enumerate(item))

            return moved

        def check(inputs: Any) -> None:
            if not isinstance(inputs, tuple | list) or len(inputs) <= max(places):
                remedy = "Leave .at() out, or name places that are there."
                given = f"{len(inputs)} items" if isinstance(inputs, tuple | list) else type(inputs).__name__
                raise OperandError(f"{self.name} at {places}", f"a tuple of more than {max(places)}", given, remedy)
            for i in places:
                self.check(inputs[i])

        return replace(self, on_inputs=part(self.on_inputs), on_outputs=part(self.on_outputs), check=check)

    def matrix(self, g: Any, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
        """ρ(g) on single tensors of a shape, as a matrix (d, d) with d their number of entries: column i is ρ(g) eᵢ.

        Errors: ``OperandError`` for an action that moves zero, such as a translation of points: it has no matrix.

        Example:
            >>> from lemmata.analysis.invariance import actions
            >>> actions.permutations(2).matrix((1, 0), (2, 1)).tolist()
            [[0.0, 1.0], [1.0, 0.0]]

        """
        units = torch.eye(torch.Size(shape).numel(), dtype=dtype, device="cpu").unflatten(1, tuple(shape))
        if bool(self.on_inputs(g, torch.zeros_like(units)).any()):
            given, remedy = f"one that moves zero, at {self.show(g)}", "Leave out translations: motions(…, shifts=0.0)."
            raise OperandError(self.name, "a linear action", given, remedy)
        return self.on_inputs(g, units).flatten(1).T


def outputs_of(outputs: Any, on_inputs: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The action on outputs that ``"invariant"``, ``"same"`` or a callable stands for.

    Example:
        >>> outputs_of("invariant", lambda g, x: g * x)(2, 3), outputs_of("same", lambda g, x: g * x)(2, 3)
        (3, 6)

    """
    if callable(outputs):
        return outputs
    if outputs not in ("invariant", "same"):
        remedy = "Choose 'invariant' if ρ(g) y = y, 'same' if outputs move as inputs do."
        raise ArgumentError("outputs", "'invariant', 'same' or a callable (g, y) -> ρ(g) y", repr(outputs), remedy)
    return invariant if outputs == "invariant" else on_inputs


def drawn_from(elements: Sequence[Any]) -> Callable[[torch.Generator], Any]:
    """A uniform draw from a list.

    Example:
        >>> drawn_from([5])(torch.Generator())
        5

    """
    return lambda generator: elements[int(torch.randint(len(elements), (), generator=generator, device="cpu"))]


def finite(
    name: str,
    elements: Sequence[Any],
    on_inputs: Callable[[Any, Any], Any],
    outputs: Any = "invariant",
    features: Callable[[Sequence[int]], list[tuple[str, Move]]] = nowhere,
) -> Action:
    """A finite group of which only the elements and what they do are known, the identity first.

    That it is first, and that products of elements are elements, :func:`~lemmata.analysis.invariance.actions.homomorphism`
    checks by what they do.

    Example:
        >>> flip = finite("mirror", (False, True), lambda g, x: x.flip(-1) if g else x)
        >>> flip.elements, flip.on_inputs(True, torch.tensor([1, 2, 3])).tolist()
        ((False, True), [3, 2, 1])

    """
    if not len(elements):
        raise ArgumentError("elements", "at least one element", "none", "Pass the identity, at least.")
    act, listed = outputs_of(outputs, on_inputs), tuple(elements)
    return Action(
        name, len(listed), listed[0], lambda: listed, drawn_from(listed), None, None, on_inputs, act, features
    )


def distance(a: Any, b: Any) -> float:
    """‖a − b‖ / ‖b‖ over all tensors of two nestings, in float64; infinite if their shapes differ, ‖a‖ if b is zero.

    Example:
        >>> distance((torch.tensor([3.0]), torch.tensor([4.0])), (torch.tensor([3.0]), torch.tensor([0.0])))
        1.3333333333333333

    """
    ours, theirs = ([t for t in tree_flatten(item)[0] if isinstance(t, Tensor)] for item in (a, b))
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return inf
    unit = max((float(y.double().abs().max()) for y in theirs if y.numel()), default=0.0) or 1.0
    # In units of the largest entry, whose square neither overflows nor vanishes.
    apart = sum(float(((x.double() - y.double()) / unit).square().sum()) for x, y in zip(ours, theirs, strict=True))
    size = sum(float((y.double() / unit).square().sum()) for y in theirs)
    return sqrt(apart / size) if size else sqrt(apart)


def described(item: Any) -> str:
    """The shape and dtype of a tensor, else the type, for messages.

    Example:
        >>> described(torch.ones(2, dtype=torch.bool)), described(None)
        ('(2,), torch.bool', 'NoneType')

    """
    return f"{tuple(item.shape)}, {item.dtype}" if isinstance(item, Tensor) else type(item).__name__


def check_real(name: str, inputs: Any) -> None:
    """Raise unless all tensors are floating-point numbers.

    Example:
        >>> check_real("signs", torch.ones(2))

    """
    for x in tree_leaves(inputs):
        if isinstance(x, Tensor) and not x.is_floating_point():
            remedy = "Cast them with .float(), or .at(place) for one item of a tuple."
            raise OperandError(name, "floating-point inputs", described(x), remedy)


def on_every(move: Move) -> Callable[[Any, Any], Any]:
    """The same move of every tensor in a nesting.

    Example:
        >>> on_every(lambda g, x: g * x)(2, (torch.ones(1), torch.ones(1)))
        (tensor([2.]), tensor([2.]))

    """
    return lambda g, item: tree_map(lambda x: move(g, x) if isinstance(x, Tensor) else x, item)
