"""Curvature matrices from their definitions, by central differences: an outside truth for operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import log, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .operators.bound import Bound
from .operators.fisher import EmpiricalFisher, Fisher, _family, shares, single
from .operators.gauss_newton import GGN, _floats
from .operators.hessian import Hessian
from .operators.objective import Objective, Parameters, Term
from .operators.weights import Weighting

#: Relative steps, half a decade apart. The small ones are for kinks: differences are right once no kink lies between.
STEPS = tuple(10 ** (-1 - j / 2) for j in range(15))
_CLEAR = 30.0  # truncation is seen where an error exceeds the smallest one by this factor
_FLOOR = 1e-4  # products below this share of ‖gradient‖/‖θ‖ drown in the rounding of differences


@dataclass(frozen=True)
class Ladder:
    """Relative errors of a central difference at decreasing steps.

    Example:
        >>> ladder = Ladder((0.1, 0.01, 0.001, 0.0001), (1e-2, 1e-4, 1e-6, 1e-8))
        >>> ladder.best, round(ladder.order, 3)
        (1e-08, 2.0)

    """

    steps: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def best(self) -> float:
        """The smallest error; nan if one is."""
        return min(self.errors) if all(error == error for error in self.errors) else float("nan")

    @property
    def order(self) -> float | None:
        """The slope of the error over three steps just before it meets its floor; None if it is never seen to fall."""
        place = self.errors.index(self.best) if self.best == self.best else 0
        seen = [i for i in range(place) if self.errors[i] > _CLEAR * self.best]
        if len(seen) < 3 or not self.best:
            return None
        first, last = seen[-3], seen[-1]
        return log(self.errors[first] / self.errors[last]) / log(self.steps[first] / self.steps[last])


def gradient(objective: Objective, theta: Tensor) -> Tensor:
    """The gradient over all data at flat parameters (P,), by one backward pass a batch, nothing rerouted."""
    total, weight = torch.zeros_like(theta), 0.0
    for term, leaves in _walk(objective, theta):
        loss = term.loss(leaves)
        if loss.requires_grad:
            parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            total.add_(torch.cat([part.reshape(-1) for part in parts]), alpha=term.weight)
        weight += term.weight
    return total / weight if objective.divide else total


def value(objective: Objective, theta: Tensor) -> float:
    """The loss over all data at flat parameters (P,)."""
    total, weight = 0.0, 0.0
    with torch.no_grad():
        for term, leaves in _walk(objective, theta):
            total += term.weight * float(term.loss(leaves))
            weight += term.weight
    return total / weight if objective.divide else total


def flat_parameters(objective: Objective) -> Tensor:
    """The point at which an objective is bound, (P,)."""
    return objective.layout.flatten(objective.leaves).detach().clone()


def gradient_ladder(objective: Objective, direction: Tensor) -> Ladder:
    """The gradient along a unit direction (P,) against differences of the loss."""
    theta = flat_parameters(objective)
    slope, size, level = gradient(objective, theta), _size(theta), abs(value(objective, theta))
    given = float(slope @ direction)
    scale = max(abs(given), float(slope.norm()) / sqrt(len(theta)), _FLOOR * level / size) or 1.0

    def error(step: float) -> float:
        ahead, behind = (value(objective, theta + sign * step * size * direction) for sign in (1, -1))
        return abs((ahead - behind) / (2 * step * size) - given) / scale

    return Ladder(STEPS, tuple(error(step) for step in STEPS))


def product_ladder(operator: Bound, objective: Objective, directions: Tensor) -> Ladder | None:
    """Products with unit directions (P, k) against the definition of the matrix; None where there is none to compare.

    The Hessian: differences of the gradient. GGN: Jᵀ of differences of the loss's slope along differences of the
    output. Fisher: expectations of products of differences of log-likelihoods. Empirical Fisher: sums of products of
    differences of single data's losses. The last two compare the k × k matrix of quadratic forms.
    """
    rule = _RULES.get(type(operator))
    if rule is None or (isinstance(operator, Fisher) and operator.samples is not None):
        return None
    if isinstance(operator, EmpiricalFisher) and _single_losses(objective.weighting) is None:
        return None
    theta, products = flat_parameters(objective), operator @ directions
    given = products if isinstance(operator, Hessian | GGN) else directions.T @ products
    size = _size(theta)
    floor = _FLOOR * float(gradient(objective, theta).norm()) / size
    scale = max(float(given.norm()), floor) or 1.0

    def error(step: float) -> float:
        return float((rule(objective, theta, directions, step * size) - given).norm()) / scale

    return Ladder(STEPS, tuple(error(step) for step in STEPS))


def _walk(objective: Objective, theta: Tensor) -> Iterator[tuple[Term, Parameters]]:
    """The batches as they come, with operations that are not rerouted, and leaves at the given point."""
    for term in objective._terms():
        yield term, _leaves(objective, theta)


def _leaves(objective: Objective, theta: Tensor) -> Parameters:
    return {name: part.detach().requires_grad_() for name, part in objective.layout.split(theta).items()}


def _size(theta: Tensor) -> float:
    return float(theta.norm()) or 1.0


def _hessian(objective: Objective, theta: Tensor, directions: Tensor, step: float) -> Tensor:
    columns = [
        (gradient(objective, theta + step * v) - gradient(objective, theta - step * v)) / (2 * step)
        for v in directions.T
    ]
    return torch.stack(columns, 1)


def _places(objective: Objective, term: Term, theta: Tensor) -> tuple[list[Tensor], Callable, Parameters]:
    """The real tensors of the output, the loss as a function of them, and the leaves that they came from."""
    assert term.output is not None and term.criterion is not None
    criterion, leaves = term.criterion, _leaves(objective, theta)
    items, places, rebuild = _floats(term.output(leaves), objective.name)

    def loss(parts: list[Tensor]) -> Tensor:
        return criterion(rebuild(dict(zip(places, parts, strict=True))))

    return [items[i] for i in places], loss, leaves


def _outputs(objective: Objective, term: Term, theta: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [part.clone() for part in _places(objective, term, theta)[0]]  # an output may be a view of a parameter


def _slopes(objective: Objective, term: Term, theta: Tensor, v: Tensor, step: float) -> list[Tensor]:
    """J v for one batch."""
    ahead, behind = (_outputs(objective, term, theta + sign * step * v) for sign in (1, -1))
    return [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]


def _gauss_newton(objective: Objective, theta: Tensor, directions: Tensor, step: float) -> Tensor:
    total, weight, relative = torch.zeros_like(directions), 0.0, step / _size(theta)
    for term in objective._terms():
        outputs, loss, leaves = _places(objective, term, theta)
        centre = [part.detach().clone() for part in outputs]
        for column, v in enumerate(directions.T):
            pushed = _slopes(objective, term, theta, v, step)
            length = sqrt(sum(float(d.square().sum()) for d in pushed))
            reach = relative * (sqrt(sum(float(c.square().sum()) for c in centre)) or 1.0) / (length or 1.0)
            turned = _turned(loss, centre, pushed, reach)
            pulled = torch.autograd.grad(
                outputs, list(leaves.values()), turned, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            total[:, column].add_(torch.cat([part.reshape(-1) for part in pulled]), alpha=term.weight)
        weight += term.weight
    return total / weight if objective.divide else total


def _turned(loss: Callable, centre: list[Tensor], along: list[Tensor], reach: float) -> list[Tensor]:
    """∇²ℓ d, by differences of the loss's slope in the outputs."""

    def slope(sign: int) -> tuple[Tensor, ...]:
        parts = [(c + sign * reach * d).requires_grad_() for c, d in zip(centre, along, strict=True)]
        found = loss(parts)
        if not found.requires_grad:
            return tuple(torch.zeros_like(part) for part in parts)
        return torch.autograd.grad(found, parts, allow_unused=True, materialize_grads=True)

    return [(a - b) / (2 * reach) for a, b in zip(slope(1), slope(-1), strict=True)]


def _fisher(objective: Objective, theta: Tensor, directions: Tensor, step: float) -> Tensor:
    weighting, total, weight = objective.weighting, directions.new_zeros(directions.shape[1], directions.shape[1]), 0.0
    assert weighting is not None
    family = _family(weighting)
    for term in objective._terms():
        output = single(_outputs(objective, term, theta), objective.name)
        if family == "categorical":
            share = shares(weighting, term, output)
        else:
            share = output.new_tensor(1.0 if weighting.total else 1 / output.numel())
        pushed = [single(_slopes(objective, term, theta, v, step), objective.name) for v in directions.T]
        for chance, log_likelihood in _outcomes(family, output):
            scores = [
                (log_likelihood(output + step * d) - log_likelihood(output - step * d)) / (2 * step) for d in pushed
            ]
            rows = torch.stack([score.reshape(-1) for score in scores])
            total += term.weight * (rows * (share * chance).expand_as(output).reshape(-1)) @ rows.T
        weight += term.weight
    return total / weight if objective.divide else total


def _outcomes(family: str, output: Tensor) -> list[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Chances of outcomes and their log-likelihoods, entry by entry; of a Gaussian, the nodes y = f ± σ, exact here."""
    if family == "categorical":
        axis = 1 if output.ndim > 1 else 0
        return [(output.softmax(axis), lambda f: f.log_softmax(axis))]
    if family == "bernoulli":
        return [(output.sigmoid(), F.logsigmoid), ((-output).sigmoid(), lambda f: F.logsigmoid(-f))]
    half = torch.full_like(output, 0.5)
    return [(half, partial(_gaussian, output + sign * sqrt(0.5))) for sign in (1, -1)]


def _gaussian(y: Tensor, f: Tensor) -> Tensor:
    return -((y - f) ** 2)


def _empirical(objective: Objective, theta: Tensor, directions: Tensor, step: float) -> Tensor:
    weighting, total, weight = objective.weighting, directions.new_zeros(directions.shape[1], directions.shape[1]), 0.0
    assert weighting is not None
    apart = _single_losses(weighting)
    assert apart is not None
    for term in objective._terms():
        output = single(_outputs(objective, term, theta), objective.name)
        share = shares(weighting, term, output).reshape(-1)

        def losses(point: Tensor, term: Term = term) -> Tensor:
            found = apart(single(_outputs(objective, term, point), objective.name), term.target)
            found = found.reshape(-1) if weighting.per_class else found.flatten(1).sum(1)
            return found if weighting.total else found / term.weight

        rows = torch.stack([(losses(theta + step * v) - losses(theta - step * v)) / (2 * step) for v in directions.T])
        total += term.weight * (rows / share.where(share > 0, 1)) @ rows.T
        weight += term.weight
    return total / weight if objective.divide else total


def _single_losses(weighting: Weighting | None) -> Callable[[Tensor, Any], Tensor] | None:
    from .curvature.evaluation import _apart

    return _apart(weighting)


_RULES: dict[type, Callable[[Objective, Tensor, Tensor, float], Tensor]] = {
    Hessian: _hessian,
    GGN: _gauss_newton,
    Fisher: _fisher,
    EmpiricalFisher: _empirical,
}
