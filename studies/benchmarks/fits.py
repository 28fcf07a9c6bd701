"""Fitting 64 seeds of one width: side by side, as ``fit_grid`` goes, and a plain loop of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from lemmata.analysis.approximation.fits import mean_square
from lemmata.analysis.approximation.training import train
from lemmata.analysis.gradient_flow.ensembles import _Work, stacks

from .table import Row, Target, timed_row
from .timing import affordable

WORK, SEEDS, BATCH, STEPS = "fit", 64, 32, 8
WIDTHS, SMALL = (4, 8, 16, 32, 64, 128, 192, 256, 512), 64
LOOP, SIDE, RULE = "a loop of PyTorch", "side by side", "fit_grid's choice"
_ADAM = partial(torch.optim.Adam, lr=1e-3)
_SMALL, _ELSE = Target("≥", 2), Target("≥", 0.9)
_BUDGET, _WITHIN = 60.0, 1e-9

Batches = tuple[Tensor, Tensor]


def rows(device: str, repeats: int) -> Iterator[Row]:
    """A width after the other; ratios are the loop's time to theirs."""
    for width in WIDTHS:
        yield from measure(width, device, repeats)


def networks(width: int, device: str, dtype: torch.dtype = torch.float32) -> list[nn.Module]:
    """Two hidden layers of ReLUs on two inputs."""
    made: list[nn.Module] = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        layers = (nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        made.append(nn.Sequential(*layers).to(device, dtype))
    return made


def by_hand(nets: list[nn.Module], data: Batches) -> None:
    """What one writes without this library."""
    for i, net in enumerate(nets):
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        for step in range(STEPS):
            adam.zero_grad()
            ((net(data[0][step, i]) - data[1][step, i]) ** 2).mean().backward()
            adam.step()


def together(nets: list[nn.Module], data: Batches) -> None:
    """All in one pass."""
    train(nets, mean_square, lambda step: (data[0][step], data[1][step]), STEPS, _ADAM)


def singly(nets: list[nn.Module], data: Batches) -> None:
    """One after another, with the same function."""
    for i, net in enumerate(nets):
        together([net], (data[0][:, i : i + 1], data[1][:, i : i + 1]))


def chosen(net: nn.Module, data: Batches) -> Callable[[list[nn.Module], Batches], None]:
    """What the rule of ``fit_grid`` takes for such networks."""
    net = deepcopy(net)
    with _Work() as work:
        mean_square(net(data[0][0, 0]), data[1][0, 0]).backward()
    return together if stacks(work, SEEDS, data[0].device) else singly


def measure(width: int, device: str, repeats: int, budget: float = _BUDGET) -> list[Row]:
    """Three ways at one width, once they have been seen to end at the same weights."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, SEEDS, BATCH, 2, generator=draws).to(device)
    data = x, x.sum(-1, keepdim=True).sin()
    agree(width, device, data)
    nets = networks(width, device)
    way = chosen(nets[0], data)
    ways = {LOOP: by_hand, SIDE: together, RULE: way}
    rounds = affordable({name: partial(fit, nets, data) for name, fit in ways.items()}, device, repeats, budget)
    inverse = [{name: found[LOOP] / time for name, time in found.items()} for found in rounds]
    place, note = (WORK, f"width {width}, batch {BATCH}"), {RULE: SIDE if way is together else "one by one"}
    made = [timed_row(place, LOOP, rounds, (LOOP, "loop"))]
    for name in (SIDE, RULE):
        target = (_SMALL if width <= SMALL else _ELSE) if name == RULE else None
        made.append(speed_row(place, name, rounds, inverse, target, note.get(name, "")))
    return made


def speed_row(place: tuple[str, str], name: str, rounds: list, inverse: list, target: Target | None, note: str) -> Row:
    """How many times the loop's speed."""
    row = timed_row(place, name, inverse, (LOOP, "loop's speed"), target=target, note=note)
    time = timed_row(place, name, rounds, (LOOP, ""))
    return Row(**{**vars(row), "milliseconds": time.milliseconds})


def agree(width: int, device: str, data: Batches) -> None:
    """Raise unless all ways end at the same weights, in 64 bits."""
    wide = data[0].double(), data[1].double()
    ends = []
    for fit in (by_hand, together, singly):
        nets = networks(width, device, torch.float64)
        fit(nets, wide)
        ends.append(torch.stack([torch.cat([p.detach().flatten() for p in net.parameters()]) for net in nets]))
    gap = max(float((end - ends[0]).norm() / ends[0].norm()) for end in ends[1:])
    if not gap <= _WITHIN:
        raise RuntimeError(f"width {width}: the ways end {gap:.1e} apart")
