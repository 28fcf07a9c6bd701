"""The tangent kernel of 64 inputs × 10 outputs, beside the recipes of PyTorch's own tutorial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

import lemmata.analysis as la

from .problems import Problem, gpt, wide
from .search import BUDGET
from .table import Row, Target, timed_row
from .timing import Contender, affordable, timed

WORK, INPUTS, OUTPUTS = "kernel", 64, 10
_SAMPLE = 2  # rows of pairs on which the way by products is timed, and its time scaled: all of them take minutes
_WITHIN = 1e-3


class Last(nn.Module):
    """The logits of ten letters after the last one of a sequence."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, 10)."""
        return self.net(x)[:, :OUTPUTS, -1]


def problems(device: str) -> Iterator[tuple[Problem, Target]]:
    """The networks and how many times faster ours is to be."""
    mlp, cnn = wide(device)
    text = gpt(device, 64, INPUTS)
    last = Problem(text.name, Last(text.model), text.loss, text.batch)
    yield from ((mlp, Target("≥", 20)), (cnn, Target("≥", 3)), (last, Target("≥", 3)))


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for problem, target in problems(device):
        yield from measure(problem, problem.batch[0][:INPUTS], target, device, repeats)


def measure(
    problem: Problem, x: Tensor, target: Target, device: str, repeats: int, budget: float = BUDGET
) -> list[Row]:
    """One network; ``budget`` in seconds of interleaved rounds."""
    place, truth = (WORK, problem.name), by_jacobians(problem.double, x.to(_wide(x)))
    size = truth.shape[0] * truth.shape[2]
    whole = truth.transpose(1, 2).reshape(size, size)  # (n, m, c, d) → (n c, m d)
    contenders: dict[str, Contender] = {
        "lemmata": lambda: la.NTK(problem.model, x).dense(),
        "torch.func, Jacobians": lambda: by_jacobians(problem, x),
        "torch.func, products": lambda: by_products(problem, x[:_SAMPLE], x),
    }
    errors = {
        "lemmata": _gap(contenders["lemmata"](), whole),
        "torch.func, Jacobians": _gap(contenders["torch.func, Jacobians"](), truth),
        "torch.func, products": _gap(contenders["torch.func, products"](), truth[:_SAMPLE]),
    }
    if max(errors.values()) > _WITHIN:
        raise RuntimeError(f"the kernels of {problem.name} disagree with the one in double precision: {errors}")
    slow = contenders.pop("torch.func, products")
    rounds = affordable(contenders, device, repeats, budget)
    scale = len(x) / _SAMPLE
    found = [timed_row(place, "lemmata", rounds, ("lemmata", "ours"), errors["lemmata"])]
    name = "torch.func, Jacobians"
    found.append(timed_row(place, name, rounds, ("lemmata", "ours"), errors[name], target, "vmap(jacrev), contracted"))
    once = [{"lemmata": timed(contenders["lemmata"], device), "torch.func, products": scale * timed(slow, device)}]
    note = f"vjp, then jvp, pair by pair; timed on {_SAMPLE} of {len(x)} rows of pairs and scaled"
    name = "torch.func, products"
    return [*found, timed_row(place, name, once, ("lemmata", "ours"), errors[name], target, note)]


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.is_floating_point() else x.dtype


def _gap(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())


def _one(problem: Problem) -> tuple[Callable[[Any, Tensor], Tensor], dict[str, Tensor]]:
    """The output of one example as a function of the parameters, and the parameters."""
    theta = {name: parameter.detach() for name, parameter in problem.model.named_parameters()}

    def output(chosen: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(problem.model, chosen, (x[None],))[0]

    return output, theta


def by_jacobians(problem: Problem, x: Tensor) -> Tensor:
    """The tutorial's first recipe: the Jacobians of all examples, contracted, (n, m, c, d)."""
    output, theta = _one(problem)
    rows = [part.flatten(2) for part in vmap(jacrev(output), (None, 0))(theta, x).values()]
    return torch.stack([torch.einsum("ncp,mdp->nmcd", part, part) for part in rows]).sum(0)


def by_products(problem: Problem, left: Tensor, right: Tensor) -> Tensor:
    """The tutorial's second recipe: for every pair, Jᵀ and J applied to each unit vector; a row of pairs at a time."""
    output, theta = _one(problem)

    def pair(one: Tensor, other: Tensor) -> Tensor:
        pulled: Any = vjp(lambda chosen: output(chosen, other), theta)
        value, pull = pulled[0], pulled[1]
        eye = torch.eye(len(value), dtype=value.dtype, device=value.device)
        return vmap(lambda unit: jvp(lambda chosen: output(chosen, one), (theta,), pull(unit))[1])(eye).T

    return torch.stack([vmap(partial(pair, one), chunk_size=8)(right) for one in left])
