"""The function that is differentiated: a weighted mean of a loss over batches, or any scalar of named tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
    """One batch: its weight in the sum, its name for messages, and its loss as a function of the parameters."""

    weight: float
    name: str
    loss: Callable[[Parameters], Any]


class Objective:
    r"""L(θ) = Σ_b w_b ℓ_b(θ) / Σ_b w_b (undivided for sums), at the leaves θ.

    ``terms()`` walks the batches; a forward pass must leave ``buffers`` and ``fixed`` parameters alone; ``switched``
    fills with the operations that had to be rerouted; ``parts`` is the number of batches where known, else 0.
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
        self.divide, self.parts = True, 1

    def terms(self) -> Iterator[Term]:
        """The batches in order, with their losses run on operations that can be differentiated twice."""
        for term in self._terms():
            yield Term(term.weight, term.name, partial(self._run, term.loss))

    def _run(self, loss: Callable[[Parameters], Any], parameters: Parameters) -> Any:
        with Differentiable(self.switched):
            return loss(parameters)


def of_function(objective: Callable[[Parameters], Tensor], parameters: Mapping[str, Tensor]) -> Objective:
    """An objective that is a function of a dictionary of tensors."""
    if not callable(objective):
        remedy = "Pass a function of a dictionary of tensors that returns a scalar."
        raise ArgumentError("objective", "a callable", type(objective).__name__, remedy)
    if not isinstance(parameters, Mapping) or not parameters:
        given = type(parameters).__name__ if not isinstance(parameters, Mapping) else "an empty mapping"
        remedy = "Pass for example dict(model.named_parameters())."
        raise ParameterError("parameters", "a non-empty mapping from names to tensors", given, remedy)
    name = getattr(objective, "__name__", type(objective).__name__)
    term = Term(1.0, "the objective", objective)
    private = {key: tensor.clone() for key, tensor in leaves(dict(parameters)).items()}
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

    def terms() -> Iterator[Term]:
        for index, (weight, inputs, target) in enumerate(weighting.weigh(batches)):
            if weight:

                def evaluate(theta: Parameters, inputs: Any = inputs, target: Any = target) -> Any:
                    output = call(lambda *a, **k: functional_call(private, theta, a, k), inputs)
                    return weighting.loss(output, target)

                yield Term(weight, f"batch {index}", evaluate)

    objective = Objective(weighting.name, parameters, terms)
    objective.buffers, objective.fixed = dict(private.named_buffers()), dict(private.named_parameters())
    objective.batch_stats = chosen_stats
    objective.divide, objective.parts = not weighting.total, len(batches)
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
