"""Quantities of many networks that differ in their weights alone: side by side, or one by one where that is faster."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from ..checks import relative, tolerance_of
from ..curvature.evaluation import _Count
from ..errors import ArgumentError
from ..operators.engine import no_slow_vmap

# On the CPU networks are measured side by side where an operation makes at most _SMALL numbers on average and none
# convolves: there the launching of operations is what costs. One pass makes about _BLOCK numbers.
_SMALL, _BLOCK = 2**13, 2**24

Parameters = dict[str, Tensor]
#: ``call(theta, *inputs, **options)``: a network's output at parameters.
Call = Callable[..., Any]
Measure = Callable[[Call, Parameters], Any]


class _Work(_Count):
    operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.operations += 1
        return super().__torch_dispatch__(func, types, args, kwargs)


def stacks(work: _Work, count: int, device: torch.device) -> bool:
    """Whether many networks are faster side by side than one by one, from the sizes of what one of them computes."""
    return count > 1 and not work.convolves and (device.type != "cpu" or work.numbers <= _SMALL * work.operations)


class Ensemble:
    r"""K networks of one architecture, as draws of random weights are, bound at construction.

    Args:
        networks: modules that differ in parameters and buffers alone.

    ``ensemble.each(measure)`` calls ``measure(call, theta)`` for each network, with ``call(theta, *inputs)`` its output at
    parameters ``theta``, by name; it returns tensors in any nesting, and may differentiate by :mod:`torch.func`.

    Shapes: (K, …) for a measure of shape (…).

    Cost: construction copies the networks' parameters. ``each`` takes one measure more than there are networks. Where an
    operation makes at most 8192 numbers on average and none convolves (on an accelerator: where none convolves), one
    vmapped pass serves many networks; else, or where vmap cannot take the measure, they go one by one. The first network
    is measured by itself, which tells the sizes and checks the numbers of the pass.

    Errors: ``ArgumentError`` for no network, for one whose parameters and buffers are not those of the first, and for a
    measure that returns anything but tensors.

    Example:
        The mean square of the output at x = 1 is w²:

        >>> def draw(w: float) -> nn.Module:
        ...     net = nn.Linear(1, 1, bias=False)
        ...     _ = nn.init.constant_(net.weight, w)
        ...     return net
        >>> x = torch.ones(1, 1)
        >>> Ensemble([draw(1.0), draw(2.0)]).each(lambda call, theta: call(theta, x).square().mean())
        tensor([1., 4.])

    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        states = [_state(net, f"networks[{place}]") for place, net in enumerate(networks)]
        _check(networks, states)
        self.network, self.names = copy.deepcopy(networks[0]), [name for name, _ in networks[0].named_parameters()]
        self.stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        self.route = ""

    def __len__(self) -> int:
        return len(next(iter(self.stacked.values())))

    def each(self, measure: Measure) -> Any:
        """The measure of every network, along a new first axis; ``route`` says how the last one was taken."""
        with _Work() as work:
            first = self._of(measure, {name: part[0] for name, part in self.stacked.items()})
        if self._small(work):
            try:
                with no_slow_vmap():
                    found = vmap(lambda state: self._of(measure, state), chunk_size=max(1, _BLOCK // work.numbers))(
                        self.stacked
                    )
            except (RuntimeError, TypeError, ValueError):  # vmap cannot take it; a plain pass can, or says why
                found = None
            if found is not None and _same(tree_map(lambda part: part[0], found), first):
                self.route = "side by side"
                return found
        self.route = "one by one"
        states = ({name: part[place] for name, part in self.stacked.items()} for place in range(1, len(self)))
        return tree_map(lambda *parts: torch.stack(parts), first, *(self._of(measure, state) for state in states))

    def _of(self, measure: Measure, state: Parameters) -> Any:
        theta = {name: state[name] for name in self.names}
        kept = {name: part.clone() for name, part in state.items() if name not in theta}  # a call may change them

        def call(theta: Parameters, *inputs: Any, **options: Any) -> Any:
            return functional_call(self.network, (theta, kept), inputs, options)

        found = measure(call, theta)
        for part in tree_leaves(found):
            if not isinstance(part, Tensor):
                remedy = "Keep it a tensor: drop float(…) and .item(), or wrap it in torch.as_tensor."
                raise ArgumentError("measure", "a function that returns tensors", type(part).__name__, remedy)
        return tree_map(Tensor.detach, found)

    def _small(self, work: _Work) -> bool:
        """The rule: it looks at sizes, never at a clock."""
        return stacks(work, len(self), next(iter(self.stacked.values())).device)


def _state(network: Any, name: str) -> Parameters:
    if not isinstance(network, nn.Module):
        raise ArgumentError(name, "a torch.nn.Module", type(network).__name__, "Pass a list of networks.")
    return {key: part.detach() for key, part in (*network.named_parameters(), *network.named_buffers())}


def _check(networks: Sequence[nn.Module], states: list[Parameters]) -> None:
    remedy = "Build every network with the same arguments, each with a generator of its own."
    if not states or not states[0]:
        raise ArgumentError("networks", "one network with parameters, or more", f"{len(states)} without", remedy)
    shapes = [{name: (part.shape, part.dtype, part.device) for name, part in state.items()} for state in states]
    for place, (net, found) in enumerate(zip(networks, shapes, strict=True)):
        if found != shapes[0] or type(net) is not type(networks[0]):
            expected = f"a {type(networks[0]).__name__} with the parameters and buffers of networks[0]"
            other = next((name for name in {**found, **shapes[0]} if found.get(name) != shapes[0].get(name)), "")
            given = f"a {type(net).__name__}" + (f" that differs in {other}" if other else "")
            raise ArgumentError(f"networks[{place}]", expected, given, remedy)


def _same(found: Any, first: Any) -> bool:
    """Do two nestings hold the same numbers, to rounding? Not a number is the same as itself."""
    (left, tree), (right, other) = tree_flatten(found), tree_flatten(first)
    return tree == other and all(
        a.shape == b.shape
        and bool((a.isnan() == b.isnan()).all())
        and relative(a.nan_to_num(), b.nan_to_num()) <= (tolerance_of(a.dtype) if a.is_floating_point() else 0.0)
        for a, b in zip(left, right, strict=True)
    )
