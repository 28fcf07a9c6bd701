"""Is an operator the matrix that it claims to be, and if not, which module is at fault?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from .checks import DIRECTIONS, FAILED, SKIPPED, Audit, Check, algebra, blame, directions, relative, row, tolerance_of
from .culprits import Recording, Suspects, record, same
from .differences import Ladder, flat_parameters, gradient, gradient_ladder, product_ladder
from .errors import LemmataError
from .operators.base import Operator, as_operator
from .operators.bound import Bound
from .operators.hessian import Hessian
from .operators.objective import Objective, of_model

__all__ = ["Audit", "Check", "audit"]

_DIFFERENCES = 1e-5  # relative; differences in float64 reach 1e-9 on smooth models


def audit(operator: Operator, seed: int = 0) -> Audit:
    r"""Check that an operator is the matrix that it claims to be; name the module at fault where it is not.

    .. math:: \frac{g(\theta + hv) - g(\theta - hv)}{2h} = Hv + O(h^2)

    Of every operator:

    - *products*: they are finite; *symmetry*: :math:`\sqrt{P}\,|u^\top Av - v^\top Au| / (\|Av\| + \|Au\|)`;
      *linearity*; *determinism*: two equal products have equal bits.

    Of the Hessian, GGN, Fisher and empirical Fisher of a model or an objective:

    - *data*: a new pass over the data gives the gradient that the operator was built with.
    - *gradient*: against central differences of the loss.
    - *definition*: products against central differences in the matrix's definition: of gradients for the Hessian, of
      outputs and slopes for the GGN, of log-likelihoods for the Fisher matrices. The note gives the order at which the
      error falls with the step: 2 where the loss is smooth. Measured is the smallest error over 15 steps.
    - *batch split*: each batch cut in two gives the same products and gradient.
    - *precision*: products in float32 and in float64 agree.

    A culprit is found by taking every module alone on its recorded inputs, in float64: its derivatives against
    differences, its outputs on a second call, on half of the examples and in lower precision. Named is the innermost
    one that fails, or the loss, or the data.

    Args:
        operator: any operator. One that is bound to a model is checked in full, others by their products.
        seed: of the random vectors, drawn on the CPU whatever the global generator does.

    Assumptions: a check that fails proves a fault; one that passes tells only of a few random directions. Where the
    loss has kinks closer to the parameters than 1e-8 of their norm, differences cannot be trusted. Data are held in
    memory once.

    Cost: about 200 gradients; some hundred more for each module where a check fails.

    Errors: ``OperandError`` for what is no operator. Faults of the model are rows of the result, never raised.

    Example:
        >>> from lemmata.analysis import Dense
        >>> audit(Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))).passed
        True

    """
    operator = as_operator(operator)
    devices = [operator.device.index or 0] if operator.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        checks = algebra(operator, seed)
        if isinstance(operator, Bound):
            checks = _BoundAudit(operator, seed, checks).run()
        else:
            checks = [blame(check, [repr(operator)]) for check in checks]
            checks.append(
                Check("definition", SKIPPED, note="known of operators that are bound to a model: audit the parts")
            )
    return Audit(repr(operator), tuple(checks))


class _BoundAudit:
    """The checks of an operator that is bound to an objective."""

    def __init__(self, operator: Bound, seed: int, checks: list[Check]) -> None:
        self.operator, self.seed, self.checks = operator, seed, checks
        engine: Any = operator._start.engine
        self.objective: Objective = engine.objective
        self.double: Bound | None = None
        self.recording: Recording | None = None

    def run(self) -> list[Check]:
        """All rows, culprits named."""
        rows: list[Callable[[], Check]] = [self._data, self._gradient, self._definition, self._split, self._precision]
        for make in rows:
            try:
                self.checks.append(make())
            except (LemmataError, RuntimeError, TypeError, ValueError) as error:
                name = make.__name__.removeprefix("_").replace("split", "batch split")
                self.checks.append(Check(name, SKIPPED, note=f"it could not be run: {str(error).splitlines()[0]}"))
        if all(check.verdict != FAILED for check in self.checks):
            return self.checks
        changed = self._source_of_change()
        return [blame(check, self._culprits(check.name, changed)) for check in self._renamed(changed)]

    def _renamed(self, changed: list[str]) -> list[Check]:
        """A product that could not be taken: the module without a second derivative, where one is found."""
        first = self.checks[0]
        if first.verdict == FAILED and first.culprit not in (None, "data"):
            found = self._suspects().derivatives
            self.checks[0] = replace(first, culprit=", ".join(found) or first.culprit)
        return self.checks

    def _data(self) -> Check:
        self.recording = record(self.objective)
        found, before = gradient(self.objective, flat_parameters(self.objective)), self.operator.gradient
        floor = torch.finfo(found.dtype).eps * (1 + float(flat_parameters(self.objective).norm()))
        measured = float((found - before).norm()) / max(float(before.norm()), floor)
        return row("data", measured, tolerance_of(self.operator.dtype))

    def _gradient(self) -> Check:
        twin = self._twin()
        ladder = gradient_ladder(_objective(twin), directions(twin, self.seed, 1)[:, 0])
        return row("gradient", ladder.best, _DIFFERENCES, _order(ladder))

    def _definition(self) -> Check:
        twin = self._twin()
        ladder = product_ladder(twin, _objective(twin), directions(twin, self.seed, DIRECTIONS))
        if ladder is None:
            return Check(
                "definition", SKIPPED, note="random targets, or a loss that cannot be taken apart into its data"
            )
        return row("definition", ladder.best, _DIFFERENCES, _order(ladder))

    def _split(self) -> Check:
        if self.operator.batch_stats == "batch":
            return Check("batch split", SKIPPED, note="batch statistics depend on the batch")
        batches = self._batches()
        if batches is None:
            return Check("batch split", SKIPPED, note="the objective's data cannot be seen")
        pieces = [piece for batch in batches for piece in _cut(batch)]
        if len(pieces) == len(batches):
            return Check("batch split", SKIPPED, note="no batch has two examples along a common first axis")
        twin, parts = self._twin(), self._rebuilt(torch.float64, pieces)
        V = directions(twin, self.seed, DIRECTIONS)
        measured = max(relative(parts @ V, twin @ V), relative(parts.gradient, twin.gradient))
        return row("batch split", measured, tolerance_of(torch.float64), f"{len(pieces)} batches for {len(batches)}")

    def _precision(self) -> Check:
        low = torch.float32 if self.operator.dtype == torch.float64 else self.operator.dtype
        batches = self._batches()
        if batches is None:
            return Check("precision", SKIPPED, note="the objective's data cannot be cast")
        single = self._rebuilt(low, batches) if low != self.operator.dtype else self.operator
        twin = self._twin()
        V = directions(single, self.seed, DIRECTIONS)
        measured = relative(single @ V, twin @ V.double())
        return row("precision", measured, tolerance_of(low), f"{str(low).removeprefix('torch.')} against float64")

    def _twin(self) -> Bound:
        """The same matrix in float64: the operator itself, or one built again."""
        if self.double is None:
            if self.operator.dtype == torch.float64:
                self.double = self.operator
            else:
                batches = self._batches()
                if batches is None:
                    raise ValueError("the objective's data cannot be cast to float64")
                self.double = self._rebuilt(torch.float64, batches)
        return self.double

    def _batches(self) -> list[tuple[Any, Any]] | None:
        self.recording = self.recording or record(self.objective)
        return self.recording.batches if self.recording.root is not None and self.objective.weighting else None

    def _rebuilt(self, dtype: torch.dtype, batches: list[tuple[Any, Any]]) -> Bound:
        recording, weighting, names = self.recording, self.objective.weighting, set(self.operator.layout.names)
        assert recording is not None and recording.root is not None and weighting is not None
        objective = of_model(
            recording.root,
            weighting.loss,
            batches,
            names.__contains__,
            dtype,
            self.operator.batch_stats,
            "sum" if weighting.total else None,
        )
        twin = copy.copy(self.operator)
        twin._bind(objective, self.operator.memory_cap)
        return twin

    def _suspects(self) -> Suspects:
        if not hasattr(self, "_found"):
            objective = _objective(self._twin())
            gauss_newton = not isinstance(self.operator, Hessian)
            self._found = Suspects(objective, gauss_newton, self.operator.memory_cap, _DIFFERENCES)
        return self._found

    def _source_of_change(self) -> list[str]:
        """Why a pass differs from another, or from the one at construction; empty where nothing moved."""
        moved = any(c.name in ("data", "determinism") and c.verdict == FAILED for c in self.checks)
        moved = moved or self.checks[0].culprit == "data"
        if not moved:
            return []
        first, second = record(self.objective), record(self.objective)
        found = self._suspects().repeats
        if not _same_batches(first.batches, second.batches):
            found = ["data (other batches on every pass)", *found]
        return found or ["data (changed since construction)"]

    def _culprits(self, name: str, changed: list[str]) -> list[str]:
        if changed and name not in ("gradient",):
            return changed
        suspects = self._suspects()
        if name == "gradient":
            found = suspects.gradients
        elif name == "batch split":
            found = suspects.splits
        elif name == "precision":
            found = suspects.roundings(self._low(), tolerance_of(self._low()))
        else:
            found = suspects.derivatives
        return found or changed or [self.objective.name]

    def _low(self) -> torch.dtype:
        return torch.float32 if self.operator.dtype == torch.float64 else self.operator.dtype


def _objective(operator: Bound) -> Objective:
    engine: Any = operator._start.engine
    return engine.objective


def _order(ladder: Ladder) -> str:
    if ladder.order is None:
        return "no order seen: exact to rounding at every step, or never better"
    return f"order {ladder.order:.2f}" + ("" if abs(ladder.order - 2) < 0.5 else ": not 2 where kinks lie between")


def _cut(batch: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """A batch in two unequal parts, or whole where its tensors have no common first axis."""
    tensors = [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in tensors}
    count = counts.pop() if len(counts) == 1 else 0
    if count < 2:
        return [batch]
    where = max(1, count // 3)

    def part(piece: slice) -> tuple[Any, Any]:
        return tree_map(lambda leaf: leaf[piece] if isinstance(leaf, Tensor) else leaf, batch)

    return [part(slice(0, where)), part(slice(where, count))]


def _same_batches(first: list[tuple[Any, Any]], second: list[tuple[Any, Any]]) -> bool:
    one, two = ([leaf for leaf in tree_flatten(batches)[0] if isinstance(leaf, Tensor)] for batches in (first, second))
    return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
