"""The norms of single examples' gradients, beside the recipe of PyTorch's own tutorial: time and peak memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

import lemmata.analysis as la

from .kernels import _gap
from .memory import peak
from .problems import Problem, gpt, lstm, wide
from .table import Row, Target, peak_row, timed_row
from .timing import Contender, interleaved

WORK, MEMORY = "gradient norms", "gradient norms, peak memory"
RECIPE, GRADIENT = "torch.func, vmap(grad)", "one gradient"
EXAMPLES, CHUNK = 64, 8
THRIFTY = f"torch.func, vmap(norm), {CHUNK} at a time"
_WITHIN = 1e-4


def problems(device: str) -> Iterator[tuple[Problem, Target | None]]:
    """The networks, and how many times less memory ours is to take."""
    mlp, cnn = wide(device)
    yield mlp, None
    yield cnn, None
    yield gpt(device, 64, EXAMPLES), Target("≥", 3)
    yield lstm(device, 64, EXAMPLES), None


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for problem, target in problems(device):
        yield from measure(problem, target, device, repeats)


def _loss(problem: Problem, theta: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return problem.loss(functional_call(problem.model, theta, (x[None],)), y[None])


def recipe(problem: Problem) -> Tensor:
    """The tutorial's: the gradients of all examples by vmap over grad, then their norms."""
    theta = {name: parameter.detach() for name, parameter in problem.model.named_parameters()}
    found = vmap(grad(partial(_loss, problem)), (None, 0, 0))(theta, *problem.batch)
    return torch.stack([part.flatten(1).square().sum(1) for part in found.values()]).sum(0).sqrt()


def thrifty(problem: Problem) -> Tensor:
    """The same by someone who minds the memory: norms inside the vmap, over a few examples at a time."""
    theta = {name: parameter.detach() for name, parameter in problem.model.named_parameters()}

    def norm(x: Tensor, y: Tensor) -> Tensor:
        found = grad(partial(_loss, problem))(theta, x, y)
        return torch.stack([part.square().sum() for part in found.values()]).sum().sqrt()

    return vmap(norm, chunk_size=CHUNK)(*problem.batch)


def one_by_one(problem: Problem) -> Tensor:
    """The truth: a plain backward pass for each example."""
    norms = []
    for x, y in zip(*problem.batch, strict=True):
        loss = problem.loss(problem.model(x[None]), y[None])
        found = torch.autograd.grad(loss, problem.parameters)
        norms.append(torch.stack([part.square().sum() for part in found]).sum().sqrt())
    return torch.stack(norms)


def measure(problem: Problem, target: Target | None, device: str, repeats: int) -> list[Row]:
    """One network: the recipe's time and memory over ours; a plain gradient beside them."""
    contenders: dict[str, Contender] = {
        "lemmata": lambda: la.gradient_norms(problem.model, problem.loss, problem.batch).norms.to(device),
        RECIPE: partial(recipe, problem),
        THRIFTY: partial(thrifty, problem),
    }
    truth = one_by_one(problem.double)
    errors = {name: _gap(call(), truth) for name, call in contenders.items()}
    if max(errors.values()) > _WITHIN:
        raise RuntimeError(f"the norms of {problem.name} disagree with those in double precision: {errors}")
    contenders[GRADIENT] = problem.gradient
    rounds = interleaved(contenders, device, repeats)
    found = [
        timed_row((WORK, problem.name), name, rounds, ("lemmata", "ours"), errors.get(name)) for name in contenders
    ]
    sizes = {name: peak(call, device) for name, call in contenders.items()}
    unit = sizes["lemmata"], "ours"
    return found + [
        peak_row((MEMORY, problem.name), name, size, unit, target if name == RECIPE else None)
        for name, size in sizes.items()
    ]
