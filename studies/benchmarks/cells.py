"""The cells of deep networks in the plane: enumerated exactly, and activation patterns that a grid of points finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from lemmata.analysis import PlaneRegions, regions_in_plane

from .table import Row, Target, timed_row
from .timing import affordable

WORK, OURS, SAMPLED = "cells", "exact cells", "patterns on a grid"
WIDTH, DEPTHS, WIDE = 32, (2, 4, 8, 16), 160
_BUDGET, _SECONDS, _FLAT = 60.0, Target("≤", 60.0), Target("≤", 2.0)


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


def exactly(model: nn.Module) -> PlaneRegions:
    """All cells in a square of side 6."""
    u, v = torch.eye(2, dtype=torch.float64, device="cpu")
    window = [[-3.0, -3.0], [3.0, -3.0], [3.0, 3.0], [-3.0, 3.0]]
    return regions_in_plane(model, torch.zeros_like(u), u, v, window)


@torch.no_grad()
def on_a_grid(model: nn.Sequential, points: int) -> int:
    """How many patterns some points of the square have: what one writes without enumerating."""
    line = torch.linspace(-3, 3, int(points**0.5), dtype=torch.float64, device="cpu")
    h, signs = torch.cartesian_prod(line, line), []
    for layer in list(model)[:-1]:
        h = layer(h)
        signs += [h > 0] if isinstance(layer, nn.ReLU) else []
    return len(torch.cat(signs, 1).unique(dim=0))


def rows(device: str, repeats: int) -> Iterator[Row]:
    """A depth after the other, then a wide network; the targets are on 10⁵ cells and on the cost of one as they grow."""
    costs = {}
    for depth in DEPTHS:
        found, cells = measure([2, *[WIDTH] * depth, 1], repeats)
        yield from found
        costs[cells] = _milliseconds(found) / cells
    least, most = min(costs), max(costs)
    ratio = costs[most] / costs[least]
    note = "microseconds a cell: " + ", ".join(f"{1e3 * cost:.0f} at {cells}" for cells, cost in sorted(costs.items()))
    fewest = f"at {least} cells"
    yield Row(
        WORK, "all depths", f"a cell at {most}", fewest, ratio=ratio, target=str(_FLAT), met=_FLAT.met(ratio), note=note
    )
    found, cells = measure([2, *[WIDE] * 3, 1], repeats)
    yield from found
    seconds = _milliseconds(found) / 1e3 * 1e5 / cells
    note = "seconds for 10⁵ cells, at this cost a cell"
    yield Row(
        WORK,
        place([WIDE] * 3),
        "10⁵ cells",
        "a second",
        ratio=seconds,
        target=str(_SECONDS),
        met=_SECONDS.met(seconds),
        note=note,
    )


def measure(widths: list[int], repeats: int) -> tuple[list[Row], int]:
    """Both contenders on one network, with ten points of the grid for each cell; and the number of cells."""
    model = network(widths)
    truth = exactly(model)
    if not truth.euler == 1 or truth.activation_patterns != truth.regions:
        raise ValueError(f"{widths}: {truth}, {truth.activation_patterns} patterns")
    seen = on_a_grid(model, 10 * truth.regions)
    rounds = affordable(
        {OURS: lambda: exactly(model), SAMPLED: lambda: on_a_grid(model, 10 * truth.regions)}, "cpu", repeats, _BUDGET
    )
    where, state = (WORK, place(widths[1:-1])), "exact" if not truth.undecided else f"{truth.undecided} signs open"
    notes = {OURS: f"{truth.regions} cells, {state}", SAMPLED: f"{seen} of them seen by {10 * truth.regions} points"}
    found = [timed_row(where, name, rounds, (OURS, "exact"), note=note) for name, note in notes.items()]
    return [
        replace(row, error=1 - count / truth.regions) for row, count in zip(found, (truth.regions, seen), strict=True)
    ], truth.regions


def _milliseconds(found: list[Row]) -> float:
    """Of the exact enumeration, the first row."""
    assert found[0].milliseconds is not None
    return found[0].milliseconds


def place(widths: list[int]) -> str:
    """A network in words.

    >>> place([32, 32])
    'MLP 2 × 32'
    """
    return f"MLP {len(widths)} × {widths[0]}"
