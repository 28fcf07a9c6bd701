"""Quantities of many draws of a network's weights: side by side beside a plain loop, over the width."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad

from lemmata.analysis.gradient_flow import Ensemble
from lemmata.architectures import MLP

from .table import Row, Target, timed_row
from .timing import Contender, interleaved

WORK = "draws"
WIDTHS, DRAWS, DEPTH, EXAMPLES = (16, 32, 64, 128, 256, 512), 64, 10, 16
_TARGET, _JUDGED = Target("≥", 2), 64
_WITHIN = 1e-4
LOOP = "a plain loop"


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, width by width."""
    for width in WIDTHS:
        yield from measure(width, device, repeats)


def networks(width: int, device: str) -> list[nn.Module]:
    """Independent draws of a deep network at the edge of chaos."""
    return [
        MLP([width] * DEPTH + [10], activation="tanh", generator=torch.Generator().manual_seed(seed)).to(device)
        for seed in range(DRAWS)
    ]


class Sizes:
    """The mean square of the output, and with ``slopes`` the squared norm of its gradient in each parameter."""

    def __init__(self, x: Tensor, slopes: bool) -> None:
        self.x, self.slopes = x, slopes

    def each(self, call: Any, theta: dict[str, Tensor]) -> Tensor:
        """As a function of the parameters, for an ensemble."""
        if not self.slopes:
            return call(theta, self.x).square().mean()
        found = grad(lambda given: call(given, self.x).square().mean())(theta)
        return torch.stack([part.square().sum() for part in found.values()])

    def loop(self, nets: list[nn.Module]) -> Tensor:
        """As a user writes it, one network after another."""
        return torch.stack([self._one(net) for net in nets])

    def _one(self, net: nn.Module) -> Tensor:
        if not self.slopes:
            with torch.no_grad():
                return net(self.x).square().mean()
        found = torch.autograd.grad(net(self.x).square().mean(), list(net.parameters()))
        return torch.stack([part.square().sum() for part in found])


def measure(width: int, device: str, repeats: int) -> Iterator[Row]:
    """One width: a loop's time over ours, without and with gradients; the copy that construction makes, once."""
    nets = networks(width, device)
    x = torch.randn(EXAMPLES, width, generator=torch.Generator().manual_seed(0)).to(device)
    ensemble, model = Ensemble(nets), f"{DRAWS} tanh MLPs {DEPTH} × {width}"
    for name, sizes in (("outputs", Sizes(x, False)), ("gradients", Sizes(x, True))):
        contenders: dict[str, Contender] = {
            "lemmata": partial(ensemble.each, sizes.each),
            LOOP: partial(sizes.loop, nets),
            "construction": partial(Ensemble, nets),
        }
        truth = Sizes(x.double(), sizes.slopes).loop([copy.deepcopy(net).double() for net in nets])
        errors = {key: _gap(contenders[key](), truth) for key in ("lemmata", LOOP)}
        if max(errors.values()) > _WITHIN:
            raise RuntimeError(f"{name} at width {width} disagree with those in double precision: {errors}")
        route, rounds = ensemble.route, interleaved(contenders, device, repeats)
        for key in contenders:
            target = _TARGET if key == LOOP and width <= _JUDGED else None
            note = {"lemmata": route, "construction": "once for an ensemble"}.get(key, "")
            place = f"{WORK}, {name}", model
            yield timed_row(place, key, rounds, ("lemmata", "ours"), errors.get(key), target, note)


def _gap(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())
