"""The function that is differentiated: a weighted mean of a loss over batches, or any scalar of named tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import ArgumentError, ParameterError
from .data import Batches, call
from .differentiable import Differentiable
from .layout import Layout, Selection
from .snapshot import choose, leaves, snapshot
from .weights import Weighting

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Term:
    """One batch: its weight in the sum, its name for messages, and its loss as a function of the parameters.

    Where that function is a model followed by a criterion, ``output`` and ``criterion`` are the two, and ``target`` is
    what the criterion compares with. ``size`` is what the mean over the batch divides by, also where the loss sums.
    """

    weight: float
    name: str
    loss: Callable[[Parameters], Any]
    output: Callable[[Parameters], Any] | None = None
    criterion: Callable[[Any], Any] | None = None
    target: Any = None
    index: int = 0
    size: float = 1.0


class Objective:
    r"""L(θ) = Σ_b w_b ℓ_b(θ) / Σ_b w_b (undivided for sums), at the leaves θ.

    ``terms()`` walks the batches; a forward pass must leave ``buffers`` and ``fixed`` parameters alone; ``switched``
    fills with the operations that had to be rerouted; ``parts`` is the number of batches where known, else 0; ``steady``
    tells that every pass is known to bring the same batches; messages call the data ``source``. ``apply`` takes
    parameters and any inputs to the model's output, where there is a model.
    """

    def __init__(self, name: str, parameters: Parameters, terms: Callable[[], Iterator[Term]]) -> None:
        self.name, self.leaves, self._terms = name, parameters, terms
        self.layout = Layout(tuple(parameters), tuple(tuple(t.shape) for t in parameters.values()))
        reference = next(iter(parameters.values()))
        self.dtype, self.device = reference.dtype, reference.device
        self.buffers: dict[str, Tensor] = {}
        self.fixed = parameters
        self.switched: set[str] = set()
        self.batch_stats: str | None = None
        self.divide, self.parts, self.source, self.steady = True, 1, "data", True
        self.weighting: Weighting | None = None
        self.apply: Callable[[Parameters, Any], Any] | None = None

    def terms(self) -> Iterator[Term]:
        """The batches in order, with their losses run on operations that can be differentiated twice."""
        for term in self._terms():
            output, criterion = (f and partial(self._run, f) for f in (term.output, term.criterion))
            yield replace(term, loss=partial(self._run, term.loss), output=output, criterion=criterion)

    def _run(self, function: Callable[[Any], Any], argument: Any) -> Any:
        with Differentiable(self.switched):
            return function(argument)


def of_function(objective: Callable[[Parameters], Tensor], parameters: Mapping[str, Tensor]) -> Objective:
    """An objective that is a function of a dictionary of tensors."""
    _check_function("objective", objective, "Pass a function of a dictionary of tensors that returns a scalar.")
    return _single(Term(1.0, "the objective", objective), objective, parameters)


def of_composition(
    output: Callable[[Parameters], Any], loss: Callable[[Any], Tensor], parameters: Mapping[str, Tensor]
) -> Objective:
    """An objective that is a loss of a function of a dictionary of tensors."""
    _check_function("output", output, "Pass a function of a dictionary of tensors that returns tensors.")
    _check_function("loss", loss, "Pass a function of that output that returns a scalar.")

    def objective(theta: Parameters) -> Any:
        return loss(output(theta))

    return _single(Term(1.0, "the objective", objective, output, loss), loss, parameters)


def _check_function(name: str, given: Any, remedy: str) -> None:
    if not callable(given):
        raise ArgumentError(name, "a callable", type(given).__name__, remedy)


def _single(term: Term, named: Callable, parameters: Mapping[str, Tensor]) -> Objective:
    if not isinstance(parameters, Mapping) or not parameters:
        given = type(parameters).__name__ if not isinstance(parameters, Mapping) else "an empty mapping"
        remedy = "Pass for example dict(model.named_parameters())."
        raise ParameterError("parameters", "a non-empty mapping from names to tensors", given, remedy)
    private = {key: tensor.clone() for key, tensor in leaves(dict(parameters)).items()}
    name = getattr(named, "__name__", type(named).__name__)
    return Objective(f"objective {name}", leaves(private), lambda: iter([term]))


def of_model(
    model: nn.Module,
    loss: Callable,
    data: Any,
    params: Selection,
    dtype: torch.dtype | None,
    batch_stats: str | None,
    reduction: str | None,
) -> Objective:
    """The loss of a private copy of the model over batches, as a function of the chosen parameters."""
    if not callable(loss):
        raise ArgumentError("loss", "a callable loss(output, target)", type(loss).__name__, "Pass nn.MSELoss().")
    if dtype is not None and not dtype.is_floating_point:
        raise ArgumentError("dtype", "a floating-point torch.dtype", str(dtype), "Pass torch.float64.")
    private, chosen_stats = snapshot(model, dtype, batch_stats)
    parameters = leaves(choose(private, params))
    reference = next(iter(parameters.values()))
    batches = Batches(data, reference.dtype, reference.device, cast=dtype is not None)
    weighting = Weighting(_private(loss, dtype), reduction)

    def apply(theta: Parameters, inputs: Any) -> Any:
        if not theta:  # swapping no parameters costs as much as a small network's pass
            return call(private, inputs)
        return call(lambda *a, **k: functional_call(private, theta, a, k), inputs)

    def terms() -> Iterator[Term]:
        for index, (size, inputs, target) in enumerate(weighting.weigh(batches)):
            weight = 1.0 if weighting.total else size
            if weight:

                def output(theta: Parameters, inputs: Any = inputs) -> Any:
                    return apply(theta, inputs)

                def criterion(outcome: Any, target: Any = target) -> Any:
                    return weighting.loss(outcome, target)

                def evaluate(theta: Parameters, output: Any = output, criterion: Any = criterion) -> Any:
                    return criterion(output(theta))

                yield Term(weight, f"batch {index}", evaluate, output, criterion, target, index, size)

    objective = Objective(weighting.name, parameters, terms)
    objective.buffers, objective.fixed = dict(private.named_buffers()), dict(private.named_parameters())
    objective.batch_stats = chosen_stats
    objective.divide, objective.parts, objective.source = not weighting.total, len(batches), batches.name
    objective.steady = batches.steady
    objective.weighting, objective.apply = weighting, apply
    return objective


def _private(loss: Callable, dtype: torch.dtype | None) -> Callable:
    """A copy of a loss module or partial, its floating-point tensors cast; any other callable as it is."""
    if isinstance(loss, nn.Module):
        private = copy.deepcopy(loss)
        return private if dtype is None else private.to(dtype)
    if isinstance(loss, partial) and dtype is not None:
        floats = {k: v.to(dtype) for k, v in loss.keywords.items() if isinstance(v, Tensor) and v.is_floating_point()}
        return partial(loss, **floats)
    return loss
