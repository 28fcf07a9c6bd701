"""The cells of a deep network in growing windows of the plane: enumerated exactly, and patterns that a grid of points finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median, quantiles

import numpy as np
import torch
from torch import nn

from lemmata.analysis import PlaneRegions, regions_in_plane

from .table import Rounds, Row, Target, timed_row
from .timing import Contender, affordable

WORK, OURS, SAMPLED = "cells", "exact cells", "patterns on a grid"
WIDTHS, WINDOWS, POINTS = [2, 160, 160, 160, 1], (1 / 8, 1 / 4, 1, 4), 2  # half sides of squares; points for each cell
_BUDGET, _SECONDS, _FLAT = 115.0, Target("≤", 60.0), Target("≤", 2.0)
_BLOCK = 2**14  # points that the network sees at a time


def network(widths: list[int], seed: int = 0) -> nn.Sequential:
    """He weights, biases of a third, in float64 on the CPU, where cells are enumerated."""
    generator, layers = torch.Generator().manual_seed(seed), list[nn.Module]()
    for n, m in itertools.pairwise(widths):
        linear = nn.utils.skip_init(nn.Linear, n, m, dtype=torch.float64, device="cpu")
        for part, scale in ((linear.weight, (2 / n) ** 0.5), (linear.bias, 1 / 3)):
            drawn = torch.randn(part.shape, generator=generator, dtype=torch.float64, device="cpu")
            part.data.copy_(scale * drawn)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def exactly(model: nn.Module, reach: float) -> PlaneRegions:
    """All cells in the square [−reach, reach]²."""
    u, v = torch.eye(2, dtype=torch.float64, device="cpu")
    window = [[-reach, -reach], [reach, -reach], [reach, reach], [-reach, reach]]
    return regions_in_plane(model, torch.zeros_like(u), u, v, window)


@torch.no_grad()
def on_a_grid(model: nn.Sequential, reach: float, points: int) -> int:
    """How many patterns some points of the square have: what one writes without enumerating."""
    line = torch.linspace(-reach, reach, int(points**0.5), dtype=torch.float64, device="cpu")
    packed = []
    for h in torch.cartesian_prod(line, line).split(_BLOCK):
        signs = []
        for layer in list(model)[:-1]:
            h = layer(h)
            signs += [h > 0] if isinstance(layer, nn.ReLU) else []
        packed.append(np.packbits(torch.cat(signs, 1).numpy(), axis=1))
    rows = np.concatenate(packed)
    return len(np.unique(rows.view(np.dtype((np.void, rows.shape[1])))))


def rows(device: str, repeats: int) -> Iterator[Row]:
    """One network, a window after the other, all timed in the same rounds; targets on the growth of a cell's cost and 10⁵ cells."""
    model = network(WIDTHS)
    counts = {reach: count(model, reach) for reach in WINDOWS}
    calls: dict[str, Contender] = {}
    for reach, (cells, _) in counts.items():
        calls[f"{OURS} {reach}"] = partial(exactly, model, reach)
        calls[f"{SAMPLED} {reach}"] = partial(on_a_grid, model, reach, POINTS * cells)
    rounds = affordable(calls, "cpu", repeats, _BUDGET)
    for reach, (cells, seen) in counts.items():
        own = [{name: one[f"{name} {reach}"] for name in (OURS, SAMPLED)} for one in rounds]
        notes = {OURS: f"{cells} cells", SAMPLED: f"{seen} of them seen by {POINTS * cells} points"}
        for name, note in notes.items():
            row = timed_row((WORK, place(reach)), name, own, (OURS, "exact"), note=note)
            yield replace(row, error=0.0 if name == OURS else 1 - seen / cells)
    yield _growth(rounds, {reach: cells for reach, (cells, _) in counts.items()})
    most = max(WINDOWS)
    seconds = median(one[f"{OURS} {most}"] for one in rounds) * max(1.0, 1e5 / counts[most][0])
    what, note = "10⁵ cells", f"seconds for {counts[most][0]} cells, or as many more as make 10⁵"
    last = Row(WORK, place(most), what, "a second", ratio=seconds, rounds=len(rounds), note=note)
    yield replace(last, target=str(_SECONDS), met=_SECONDS.met(seconds))


def count(model: nn.Sequential, reach: float) -> tuple[int, int]:
    """The cells, by an enumeration that checks and proves itself, and how many of them a grid sees."""
    truth = exactly(model, reach)
    if truth.euler != 1 or truth.activation_patterns != truth.regions or truth.undecided:
        raise ValueError(f"{reach}: {truth}, {truth.activation_patterns} patterns")
    return truth.regions, on_a_grid(model, reach, POINTS * truth.regions)


def _growth(rounds: Rounds, cells: dict[float, int]) -> Row:
    """The largest cost of a cell over the least, whichever windows they belong to."""
    costs = [[one[f"{OURS} {reach}"] / count for reach, count in cells.items()] for one in rounds]
    ratios = [max(of) / min(of) for of in costs]
    low, high = quantiles(ratios, n=4)[::2] if len(ratios) > 1 else (ratios[0], ratios[0])
    middle = [median(of) for of in zip(*costs, strict=True)]
    told = ", ".join(f"{1e6 * cost:.0f} at {count}" for cost, count in zip(middle, cells.values(), strict=True))
    ratio = median(ratios)
    row = Row(WORK, "all windows", "a cell at most", "at least", ratio=ratio, low=low, high=high, rounds=len(rounds))
    return replace(row, target=str(_FLAT), met=_FLAT.met(ratio), note=f"microseconds a cell: {told}")


def place(reach: float) -> str:
    """A window in words.

    >>> place(0.25)
    'square of side 0.5'
    """
    return f"square of side {2 * reach:g}"
