"""Two ways to multiply by a curvature matrix: with graphs kept from one pass over the data, and afresh on every pass."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import CapacityError, DataError, DerivativeError, NumericsError, ParameterError
from .memory import graph_bytes, graph_steps, readable, within_memory
from .objective import Objective, Parameters, Term
from .snapshot import Watch

# Products at a time in one batched backward pass: at most _BLOCK. Batching saves the launching of operations, which pays
# while an operation works on few bytes; beyond, it only misses the caches. On a CPU a block works on up to _WORK bytes an
# operation, judged by what the graph keeps for each; where it keeps more than _SMALL, two or three products lose by it
# (measured on five networks: gains of 25 to 75 per cent below, losses of up to a half above). An accelerator batches
# what fits _ROOM.
_BLOCK, _ROOM, _WORK, _SMALL = 32, 2**30, 2**17, 3 * 2**12


#: Is told the first of some rows, a batch, and with a factor what that batch adds to the products with these rows.
Note = Callable[[int, int, Tensor, float], None]


class Engine(Protocol):
    """Multiplies the rows of a (k, P) tensor."""

    mode: str
    held: int  # bytes kept between products
    block: int  # products taken together

    def multiply(self, vectors: Tensor, note: Note | None = None) -> Tensor:
        """(k, P) → (k, P); a block that failed and is tried again is noted again."""
        ...


@dataclass(frozen=True)
class Start:
    """What the one pass at construction found."""

    engine: Engine
    value: float
    gradient: Tensor
    sizes: tuple[float, ...]  # of the batches
    unreached: tuple[str, ...]  # parameters that no batch's loss depends on


Parts = Sequence[Tensor | None]


class Graph(ABC):
    """What is kept of one batch so that products need no forward pass."""

    outputs: list[Tensor]  # everything that the graph keeps hangs on these

    @abstractmethod
    def multiply(self, pieces: list[Tensor], theta: list[Tensor], batched: bool) -> Parts:
        """The product with a vector, or with a stack of them, both in pieces shaped like the parameters."""


class Curvature(ABC):
    """Which matrix of second derivatives is meant: how one batch of it is recorded, and how it is multiplied afresh."""

    retained: str
    fresh: str

    @abstractmethod
    def record(self, term: Term, objective: Objective, retain: bool) -> tuple[Tensor, Parts, Graph | None]:
        """The batch's loss, its gradient, and the graph if it is to be retained."""

    @abstractmethod
    def apply(self, term: Term, theta: Parameters, vector: Parameters) -> tuple[Parameters, Parameters]:
        """The batch's gradient and its product with a vector; nothing is kept."""


def start(objective: Objective, cap: int, curvature: Curvature) -> Start:
    """One pass over the batches: value, gradient, and the graphs as long as they are expected to fit the cap.

    The rule: after each batch, the bytes held so far are scaled to all batches (where their number is known). Once that
    exceeds the cap, or memory runs out, all graphs are dropped and products are taken afresh; the mode says why.
    """
    theta = list(objective.leaves.values())
    gradient = torch.zeros(objective.layout.size, dtype=objective.dtype, device=objective.device)
    graphs: list[tuple[float, Graph]] = []
    unreached, sizes = set(range(len(theta))), list[float]()
    retain, held, value, total, batches, reason = cap > 0, 0, 0.0, 0.0, 0, ""
    for batches, term in enumerate(objective.terms(), 1):
        watch = Watch(objective.name, objective.buffers, objective.fixed, objective.device)
        loss, parts, graph = _record(curvature, term, objective, retain, graphs)
        watch.check(partial(term.loss, objective.leaves))
        unreached -= {place for place, part in enumerate(parts) if part is not None}
        value += term.weight * float(loss.detach())
        total += term.weight
        sizes.append(term.size)
        _add(gradient, parts, theta, term.weight)
        if graph is not None:
            graphs.append((term.weight, graph))
            held += graph_bytes(graph.outputs, theta)
            need = held * max(objective.parts, batches) // batches
            if need > cap:
                retain, reason = False, f", for graphs would take {readable(need)} of {readable(cap)}"
                graphs.clear()
        elif retain:
            retain, reason = False, ", for memory ran out while graphs were kept"
    if not total:
        raise DataError("data", "at least one example that counts", f"{batches} batches of weight 0", "Add examples.")
    divisor = total if objective.divide else 1.0
    gradient = _finite(gradient.div_(divisor), objective)
    engine: Engine = (
        Retained(theta, graphs, divisor, held, cap, objective, curvature.retained)
        if retain
        else Fresh(objective, gradient, divisor, curvature, reason)
    )
    names = tuple(objective.layout.names[place] for place in sorted(unreached))
    return Start(engine, value / divisor, gradient, tuple(sizes), names)


def _record(
    curvature: Curvature, term: Term, objective: Objective, retain: bool, graphs: list[tuple[float, Graph]]
) -> tuple[Tensor, Parts, Graph | None]:
    """Record a batch; where there is no memory for its graph, drop all graphs and record it without."""
    try:
        with within_memory(term.name):
            return curvature.record(term, objective, retain)
    except CapacityError:
        if not retain:
            raise
    graphs.clear()  # and not above, where the exception still holds what was allocated
    with within_memory(term.name):
        return curvature.record(term, objective, False)


def slope(loss: Tensor, theta: list[Tensor], retain: bool) -> Parts:
    """The gradient of a loss, as a differentiable graph if it is to be retained."""
    if not loss.requires_grad:
        raise ParameterError(
            "loss",
            "a loss that depends on the chosen parameters",
            "one detached from all of them",
            "Remove .detach(), .item() or no_grad from the forward pass, or choose other params.",
        )
    return torch.autograd.grad(loss, theta, create_graph=retain, allow_unused=True)


def flat(parts: Parts, theta: list[Tensor], k: int) -> Tensor:
    """Pieces of k products as rows (k, P); zeros for None."""
    rows = [
        p.detach().reshape(k, -1) if p is not None else t.new_zeros(k, t.numel())
        for p, t in zip(parts, theta, strict=True)
    ]
    return torch.cat(rows, 1)


def _add(total: Tensor, parts: Parts, theta: list[Tensor], weight: float) -> None:
    """Add pieces shaped like the parameters, of one product or of several, to their places in flat (…, P) vectors."""
    for place, part in zip(total.split([leaf.numel() for leaf in theta], -1), parts, strict=True):
        if part is not None:
            place.add_(part.detach().reshape(place.shape), alpha=weight)


def _finite(gradient: Tensor, objective: Objective) -> Tensor:
    # A sum is cheaper than a look at every entry, and finite only if all are.
    if not bool(gradient.sum().isfinite()) and not bool(gradient.isfinite().all()):
        names = [name for name, part in objective.layout.split(gradient).items() if not part.isfinite().all()]
        remedy = "Look for sqrt(0), log(0) or 0/0 in the forward pass."
        raise NumericsError(
            f"gradient of {names[0]}", "finite entries", "inf or nan, though the loss is finite", remedy
        )
    return gradient


@contextmanager
def explained(objective: Objective) -> Iterator[None]:
    """Turn PyTorch's complaint about memory, a missing derivative or altered data into a typed error."""
    try:
        with within_memory(objective.name):
            yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        if "inplace operation" in reason:
            remedy = "Build the operator again after changing its data in place."
            raise DataError("data", "tensors as they were at construction", reason, remedy) from error
        remedy = (
            "Write that operation from others that have one; if only the fresh mode fails, raise memory_cap so that "
            "the graph is retained."
        )
        raise DerivativeError(objective.name, "operations with a second derivative", reason, remedy) from error


class Retained:
    """Products with kept graphs: no forward pass."""

    def __init__(
        self,
        theta: list[Tensor],
        graphs: list[tuple[float, Graph]],
        divisor: float,
        held: int,
        cap: int,
        objective: Objective,
        mode: str,
    ) -> None:
        self.theta, self.graphs, self.divisor, self.held, self.objective = theta, graphs, divisor, held, objective
        self.mode = self.kind = mode
        own = held + sum(leaf.nbytes for leaf in theta)
        self.block, self.least = max(1, min(_BLOCK, cap // own)), 2
        if objective.device.type == "cpu":
            work = held // max(1, sum(graph_steps(graph.outputs) for _, graph in graphs))
            self.block = max(1, min(self.block, _WORK // max(1, work)))
            self.least = 2 if work <= _SMALL else 4
        else:
            self.block = max(1, min(self.block, _ROOM // own))

    def multiply(self, vectors: Tensor, note: Note | None = None) -> Tensor:
        """Blocks by one batched backward pass, halved where memory runs out; else one row at a time."""
        result, begin = vectors.new_empty(vectors.shape), 0
        while begin < len(vectors):
            rows = vectors[begin : begin + self.block]
            rows = rows if len(rows) >= self.least else rows[:1]
            try:
                self._block(rows, result[begin : begin + len(rows)], note and partial(note, begin))
                begin += len(rows)
            except (DerivativeError, CapacityError) as error:
                if len(rows) == 1:
                    raise
                self.block = 1
                if isinstance(error, CapacityError):
                    self.block = len(rows) // 2
                    self.mode = f"{self.kind}, at most {self.block} products at a time since memory ran out"
        return result

    def _block(self, rows: Tensor, total: Tensor, note: Callable[[int, Tensor, float], None] | None) -> None:
        """The products with some rows, written to ``total``."""
        k = len(rows)
        pieces = self.objective.layout.pieces(rows[0] if k == 1 else rows)
        total.zero_()
        for batch, (weight, graph) in enumerate(self.graphs):
            if not graph.outputs:
                continue
            with explained(self.objective), no_slow_vmap():
                parts = graph.multiply(pieces, self.theta, k > 1)
            scale = weight / self.divisor
            if note:
                note(batch, flat(parts, self.theta, k), scale)
            _add(total, parts, self.theta, scale)


@contextmanager
def no_slow_vmap() -> Iterator[None]:
    """Have vmap raise where it would silently loop, so that the engine loops by its own rule."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)


class Fresh:
    """Products that keep nothing: every one passes over the data, and checks that they are fixed."""

    held, block = 0, 4  # so many share a walk over the data

    def __init__(
        self, objective: Objective, gradient: Tensor, divisor: float, curvature: Curvature, reason: str
    ) -> None:
        self.objective, self.gradient, self.divisor = objective, gradient, divisor
        self.curvature, self.mode = curvature, curvature.fresh + reason
        self.theta = {name: leaf.detach() for name, leaf in objective.leaves.items()}
        _load_forward_mode()

    def multiply(self, vectors: Tensor, note: Note | None = None) -> Tensor:
        """One pass over the data, every batch multiplied by each row in turn."""
        result, gradient = torch.zeros_like(vectors), torch.zeros_like(self.gradient)
        layout, theta = self.objective.layout, list(self.theta.values())
        for batch, term in enumerate(self.objective.terms()):
            weight = term.weight / self.divisor
            for row, vector in enumerate(vectors):
                with explained(self.objective):
                    first, second = self.curvature.apply(term, self.theta, layout.split(vector))
                product = flat(list(second.values()), theta, 1)
                result[row].add_(product[0], alpha=weight)
                if note:
                    note(row, batch, product, weight)
            gradient.add_(flat(list(first.values()), theta, 1)[0], alpha=weight)
        self._same(gradient)
        return result

    def _same(self, gradient: Tensor) -> None:
        gap, scale, eps = (gradient - self.gradient).norm(), self.gradient.norm(), torch.finfo(gradient.dtype).eps
        if bool(gap > max(eps**0.5, 1e-6) * scale + eps):  # a model that computes in float32 inside rounds at 1e-7
            raise DataError(
                self.objective.source,
                "the same batches on every pass",
                f"a gradient that moved by {float(gap / scale):.2g} of its norm since construction",
                "Pass a list of batches. Else fix the augmentation, and do not shuffle where the order of the examples "
                "tells: with drop_last, or with BatchNorm and batch_stats='batch'.",
            )


@cache
def _load_forward_mode() -> None:
    """Have PyTorch load its forward-mode rules, whose deprecation warnings are not the user's concern."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
