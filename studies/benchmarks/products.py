"""The cost of a Hessian or Gauss–Newton product, and of getting ready for it, in gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import matmul
from typing import Any

import torch
from torch import Tensor

import lemmata.analysis as la

from .peers import PEERS
from .problems import Problem, gpt, lstm, wide
from .table import Row, Target, failed, timed_row
from .timing import Contender, interleaved

WORK = "product"
GRADIENT = "gradient"
_BLOCK = 16
_GGN, _SETUP = Target("≤", 1.6), Target("≤", 1.5)


def problems(device: str) -> list[tuple[Problem, dict[str, Target]]]:
    """The networks, each with the bounds on what its products may cost."""
    mlp, cnn = wide(device)
    bounds = {"product": 1.6}, {"product": 2.4}, {"product": 2.4}, {f"block of {_BLOCK}": 1.5}
    networks = mlp, cnn, gpt(device, 64, 16), lstm(device, 64, 16)
    return [
        (network, {name: Target("≤", most) for name, most in bound.items()})
        for network, bound in zip(networks, bounds, strict=True)
    ]


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for problem, bounds in problems(device):
        yield from measure(problem, bounds, device, repeats)


def ours(problem: Problem, vector: Tensor) -> dict[str, Contender]:
    """Products with the graph kept, a block of them, and products with nothing kept; their set-ups."""
    found: dict[str, Contender] = {}
    kinds: dict[str, Callable[..., Any]] = {"": la.Hessian, "GGN ": la.GGN}
    block = vector[:, None].repeat(1, _BLOCK)
    for kind, build in kinds.items():
        given = problem.model, problem.loss, problem.batch
        kept, fresh = build(*given), build(*given, memory_cap=0)
        found |= {
            f"{kind}product": partial(matmul, kept, vector),
            f"{kind}block of {_BLOCK}": partial(matmul, kept, block),
            f"{kind}product, nothing kept": partial(matmul, fresh, vector),
            f"{kind}set-up": partial(build, *given),
        }
    return found


def measure(problem: Problem, bounds: dict[str, Target], device: str, repeats: int) -> list[Row]:
    """One network: every product is compared with the true one before anything is timed."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(problem.size, generator=generator).to(device)
    place, lost = (WORK, problem.name), []
    contenders: dict[str, Contender] = {GRADIENT: problem.gradient}
    contenders |= {f"lemmata, {name}": call for name, call in ours(problem, vector).items()}
    for peer in PEERS:
        try:
            made = {f"{peer.name}, {name}": call for name, call in peer.products(problem, vector).items()}
            _ = [call() for call in made.values()]
            contenders |= made
        except Exception as fault:  # a peer's failure is a finding, not ours to repair
            lost.append(failed(place, peer.name, fault))
    truths = problem.double.hessian_product(vector.double()), problem.double.ggn_product(vector.double())
    errors = {name: _error(call(), truths["GGN" in name]) for name, call in contenders.items() if _multiplies(name)}
    rounds = interleaved(contenders, device, repeats)
    targets = {f"lemmata, {name}": target for name, target in bounds.items()}
    targets |= {"lemmata, GGN product": _GGN, "lemmata, set-up": _SETUP, "lemmata, GGN set-up": _SETUP}
    found = []
    for name in contenders:
        share = _BLOCK if "block" in name else 1
        figures = rounds, (GRADIENT, "gradient"), errors.get(name), targets.get(name)
        found.append(timed_row(place, name, *figures, share=share))
    return found + lost


def _multiplies(name: str) -> bool:
    return "product" in name or "block" in name


def _error(found: Tensor, truth: Tensor) -> float:
    """The relative distance of a product, or of the worst in a block, from the truth."""
    gap = found.detach().double().reshape(len(truth), -1) - truth[:, None]
    return float(gap.norm(dim=0).max() / truth.norm())
