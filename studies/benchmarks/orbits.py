"""Equivariance errors over groups of 64 elements, all images in shared passes, beside a loop over the elements."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.invariance.propagated_actions import Tapped, Walk
from lemmata.architectures import CNN, DeepSets, Encoder, GroupCNN

from .table import Row, Target, timed_row
from .timing import Contender, timed

WORK = "64 elements"
_GOAL = Target("≥", 2)
_WITHIN = 1e-10  # between the errors of the two, in double precision

Case = tuple[str, nn.Module, Tensor, la.actions.Action]


def cases(device: str) -> Iterator[Case]:
    """Small networks, inputs, and groups of 64 elements; every second network breaks its group."""
    draws = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"device": device, "generator": draws}

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws).to(device)

    torus = la.actions.translations((8, 8))
    yield "CNN on the torus", CNN([1, 8, 8], 10, **options), noise(4, 1, 8, 8), torus
    yield "CNN with zeros around", CNN([1, 8, 8], 10, padding="zeros", **options), noise(4, 1, 8, 8), torus
    yield "p4 network", GroupCNN([1, 4, 4], 10, **options), noise(4, 1, 8, 8), torus
    steps = la.actions.cyclic_shifts(64, outputs="same")
    yield "encoder", Encoder(8, 2, 1, **options), noise(1, 64, 8), steps
    yield "DeepSets", DeepSets([3, 16, 16], [16, 16, 5], **options), noise(4, 64, 3), la.actions.cyclic_shifts(64)


@torch.no_grad()
def by_loop(model: nn.Module, x: Tensor, action: la.actions.Action) -> list[float]:
    """The errors as they are usually computed, one element after the other."""
    y, errors = model(x), []
    for g in action.elements:
        wanted = action.on_outputs(g, y)
        errors.append((model(action.on_inputs(g, x)) - wanted).norm() / wanted.norm())
    return torch.stack(errors).tolist()


@torch.no_grad()
def by_passes(model: nn.Module, x: Tensor, action: la.actions.Action) -> list[float]:
    """The errors as :func:`~lemmata.analysis.equivariance` computes them."""
    walk = Walk(Tapped(model, ""), action, x, {})
    walk.take(action.elements)
    return walk.errors


def rows(device: str, repeats: int) -> Iterator[Row]:
    """Each network's loop against the shared passes."""
    for name, model, x, action in cases(device):
        gap = disagreement(model, x, action)
        if not gap < _WITHIN:
            raise ArithmeticError(f"{name}: the errors differ by {gap:.1e}")
        model.float()
        ways: dict[str, Contender] = {
            "loop": partial(by_loop, model, x, action),
            "lemmata": partial(by_passes, model, x, action),
        }
        for way in ways.values():
            timed(way, device)
        rounds = [{label: timed(way, device) for label, way in ways.items()} for _ in range(repeats)]
        yield timed_row((WORK, name), "loop", rounds, ("lemmata", "ours"), gap, _GOAL)


def disagreement(model: nn.Module, x: Tensor, action: la.actions.Action) -> float:
    """The largest difference between the errors of the two ways, in double precision."""
    model.double()
    found, truth = (way(model, x.double(), action) for way in (by_passes, by_loop))
    return max(abs(a - b) for a, b in zip(found, truth, strict=True))
