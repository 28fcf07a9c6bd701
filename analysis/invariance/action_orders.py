r"""Orders: permutations of sets and of the nodes of graphs, cyclic shifts and reversal of sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from itertools import permutations as all_orders
from math import factorial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..errors import ArgumentError, OperandError
from .action import Action, Move, described, drawn_from, invariant, on_every, outputs_of

Order = tuple[int, ...]


def inverted(g: Order) -> Order:
    """The inverse permutation.

    Example:
        >>> inverted((1, 2, 0))
        (2, 0, 1)

    """
    back = [0] * len(g)
    for i, j in enumerate(g):
        back[j] = i
    return tuple(back)


def reordered(g: Order, x: Tensor, *axes: int) -> Tensor:
    """Move the entry at i to g(i), along each of some axes.

    Example:
        >>> reordered((1, 2, 0), torch.tensor([5, 6, 7]), 0).tolist()
        [7, 5, 6]

    """
    source = torch.tensor(inverted(g), device=x.device)
    for axis in axes:
        x = x.index_select(axis, source)
    return x


def permutations(n: int, axis: int = 1, outputs: Any = "invariant") -> Action:
    r"""All orders of the elements of a set, S_n: :math:`(\rho(g) x)_{g(i)} = x_i` along an axis.

    Args:
        n: elements of each set. axis: that of the elements, 1 in (batch, n, d) or (batch, n).
        outputs: ``"invariant"``, ``"same"`` (the same axis of the outputs) or a callable.

    Elements g are tuples (g(0), …, g(n−1)). Beyond n = 6 there are too many to walk through: they are sampled.

    Example:
        >>> permutations(3).order, permutations(3).compose((1, 2, 0), (1, 0, 2))
        (6, (2, 1, 0))

    """
    checked_count("n", n)
    on_inputs = on_every(partial(_along, axis))
    name = f"orders of {n} elements, S{n}"
    return _symmetric(name, n, on_inputs, outputs, lambda inputs: _has_axis(f"S{n}", inputs, n, axis), first=1)


def relabellings(n: int, outputs: Any = "invariant") -> Action:
    r"""All names of the nodes of a graph, S_n, on (features, graph): :math:`(X, A) \mapsto (PX, PAP^\top)`.

    The first item of a tuple, or a tensor alone, has the nodes on its last axis but one, (…, n, d). Of the others, floats
    (…, n, n) are adjacencies or numbers of edges, integers (…, 2, E) lists of edges, whose order stays.

    Args:
        n: nodes, isolated ones too. outputs: ``"invariant"``, ``"same"`` or a callable.

    Example:
        >>> swap = relabellings(2)
        >>> x, edges = swap.on_inputs((1, 0), (torch.tensor([[5.0], [6.0]]), torch.tensor([[0], [1]])))
        >>> x.tolist(), edges.tolist()
        ([[6.0], [5.0]], [[1], [0]])

    """
    checked_count("n", n)

    def on_inputs(g: Order, item: Any) -> Any:
        if not isinstance(item, tuple | list):
            return reordered(g, item, -2)
        return (reordered(g, item[0], -2), *(_renamed(g, graph) for graph in item[1:]))

    def check(inputs: Any) -> None:
        nodes, *graphs = inputs if isinstance(inputs, tuple | list) and inputs else (inputs,)
        if not isinstance(nodes, Tensor) or nodes.ndim < 2 or nodes.shape[-2] != n:
            given, remedy = described(nodes), "Pass n=x.shape[-2], and the features as the first item."
            raise OperandError(f"relabellings of {n} nodes", f"features (…, {n}, d)", given, remedy)
        for graph in graphs:
            _check_graph(graph, n)

    return _symmetric(f"names of {n} nodes, S{n}", n, on_inputs, outputs, check, first=0)


def _symmetric(
    name: str, n: int, on_inputs: Callable[[Any, Any], Any], outputs: Any, check: Callable[[Any], None], first: int
) -> Action:
    """S_n, however it acts on the inputs; of feature maps it may move axes from ``first`` on."""
    return Action(
        name,
        factorial(n),
        tuple(range(n)),
        lambda: all_orders(range(n)),
        partial(_shuffled, n),
        lambda g, h: tuple(g[i] for i in h),
        inverted,
        on_inputs,
        outputs_of(outputs, on_inputs),
        lambda shape: _by_axes(shape, n, reordered, first),
        check,
    )


def _renamed(g: Order, graph: Tensor) -> Tensor:
    if graph.is_floating_point():
        return reordered(g, graph, -2, -1)
    return torch.tensor(g, device=graph.device, dtype=graph.dtype)[graph]


def _check_graph(graph: Any, n: int) -> None:
    name = f"relabellings of {n} nodes"
    if not isinstance(graph, Tensor) or not (graph.is_floating_point() or graph.dtype in (torch.int64, torch.int32)):
        remedy = "Give an adjacency as floating-point numbers; leave out what is no graph."
        raise OperandError(name, "adjacencies of floats or lists of edges of integers", described(graph), remedy)
    if graph.is_floating_point():
        if tuple(graph.shape[-2:]) != (n, n):
            remedy = "Pass the adjacency of all nodes, isolated ones too."
            raise OperandError(name, f"an adjacency (…, {n}, {n})", str(tuple(graph.shape)), remedy)
    elif graph.ndim < 2 or graph.shape[-2] != 2:
        remedy = "Pass a row of sources and a row of targets; an adjacency as floating-point numbers."
        raise OperandError(name, "integers (…, 2, E), a list of edges", str(tuple(graph.shape)), remedy)
    elif graph.numel() and not 0 <= int(graph.min()) <= int(graph.max()) < n:
        remedy = "Count nodes from 0, and isolated ones too."
        raise OperandError(name, f"nodes 0 … {n - 1}", f"{int(graph.min())} … {int(graph.max())}", remedy)


def cyclic_shifts(n: int, axis: int = 1, outputs: Any = "invariant") -> Action:
    """Cyclic shifts of sequences (batch, n, …), of tokens too: g moves the entry at i to i + g mod n.

    Example:
        >>> cyclic_shifts(3).on_inputs(1, torch.tensor([[1, 2, 3]])).tolist()
        [[3, 1, 2]]

    """
    checked_count("n", n)

    def roll(g: int, x: Tensor, *axes: int) -> Tensor:
        return x.roll((g,) * len(axes), axes)

    on_inputs = on_every(lambda g, x: roll(g, x, axis))
    return Action(
        f"cyclic shifts of {n} steps",
        n,
        0,
        lambda: range(n),
        drawn_from(range(n)),
        lambda g, h: (g + h) % n,
        lambda g: -g % n,
        on_inputs,
        outputs_of(outputs, on_inputs),
        lambda shape: _by_axes(shape, n, roll),
        lambda inputs: _has_axis("cyclic shifts", inputs, n, axis),
    )


def reversal(axis: int = 1, outputs: Any = "invariant") -> Action:
    """Reading a sequence (batch, n, …) backwards: two elements, False and True.

    Example:
        >>> reversal().on_inputs(True, torch.tensor([[1, 2, 3]])).tolist()
        [[3, 2, 1]]

    """
    on_inputs = on_every(lambda g, x: x.flip(axis) if g else x)
    return Action(
        "reversal",
        2,
        False,
        lambda: (False, True),
        drawn_from((False, True)),
        lambda g, h: g != h,
        lambda g: g,
        on_inputs,
        outputs_of(outputs, on_inputs),
        lambda shape: [
            ("invariant", invariant),
            *((f"axis {a}", lambda g, x, a=a: x.flip(a) if g else x) for a in range(1, len(shape))),
        ],
        lambda inputs: _has_axis("reversal", inputs, None, axis),
        show=lambda g: "backwards" if g else "forwards",
    )


def checked_count(name: str, n: Any) -> int:
    """A whole number above 0.

    Example:
        >>> checked_count("n", 3)
        3

    """
    if not isinstance(n, int) or n < 1:
        raise ArgumentError(name, "a whole number above 0", str(n), "Pass the length of the axis that is moved.")
    return n


def _along(axis: int, g: Order, x: Tensor) -> Tensor:
    return reordered(g, x, axis)


def _shuffled(n: int, generator: torch.Generator) -> Order:
    return tuple(torch.randperm(n, generator=generator, device="cpu").tolist())


def _by_axes(shape: Sequence[int], n: int, move: Callable[..., Tensor], first: int = 1) -> list[tuple[str, Move]]:
    """Invariant, or moved along one axis of length n, the ``first`` or a later one, or along some (as a matrix of pairs)."""
    axes = [a for a in range(first, len(shape)) if shape[a] == n]
    found: list[tuple[str, Move]] = [] if axes and len(shape) > 2 else [("invariant", invariant)]
    found += [(f"axis {a}", partial(_moved, move, (a,))) for a in axes]
    for count in range(2, len(axes) + 1):
        found += [
            ("pairs" if some == tuple(axes) else f"axes {some}", partial(_moved, move, some))
            for some in combinations(axes, count)
        ]
    if len(shape) == 2 and shape[1] > n and shape[1] % n == 0:
        found += [
            ("flattened, axis 1", partial(_unflattened, move, 1, n)),
            ("flattened, last axis", partial(_unflattened, move, 2, n)),
        ]
    return found


def _unflattened(move: Callable[..., Tensor], axis: int, n: int, g: Any, x: Tensor) -> Tensor:
    return move(g, x.unflatten(1, (n, -1) if axis == 1 else (-1, n)), axis).flatten(1)


def _moved(move: Callable[..., Tensor], axes: tuple[int, ...], g: Any, x: Tensor) -> Tensor:
    return move(g, x, *axes)


def _has_axis(name: str, inputs: Any, n: int | None, axis: int) -> None:
    """Raise unless all tensors have the axis, and n entries along it if n is known."""
    for x in tree_leaves(inputs):
        if isinstance(x, Tensor) and not (-x.ndim <= axis < x.ndim and x.shape[axis] == (n or x.shape[axis])):
            expected = f"{n} entries on axis {axis}" if n else f"an axis {axis}"
            remedy = f"Pass {'n=x.shape[axis] and ' * bool(n)}its axis, or .at(place) for one item of a tuple."
            raise OperandError(name, expected, str(tuple(x.shape)), remedy)
