"""From what was seen at each place to a verdict, a culprit, and what to change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, takewhile
from math import inf, log, sqrt

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..jackknife import jackknife
from ..spectra.results import Estimate
from .signals import Site

HEALTHY = "healthy"
FLOOR, CEILING = 1e-6, 1e6  # of second moments, beside that at the output (gradient) or at the first layer (signal)
_ABRUPT = 1e-3  # a single place that changes a second moment by more than this is to blame alone
_DEAD = 0.75  # share of the units; where all examples are alike, half of them are zero without any fault
_FLAT = 0.5  # share of the values that are saturated
_SHARP = 0.05  # entropy of attention
_WANTED = {"relu": 2.0, "tanh": 1.0, "sigmoid": 16.0}  # fan_in · Var(w) that keeps second moments of gradients


@dataclass(frozen=True)
class LayerHealth:
    """One place: what passes, what comes back, and the verdict.

    Attributes:
        signal: E h², the mean over entries and examples. gradient: E‖∂ℓ_n/∂h_n‖², None where the loss does not see h.
        rank: effective rank of the outputs. dead: share of units that are zero on all data, None for what has no zeros.
        saturated: share of values where the slope is small. entropy: of attention, 0 to 1.
        verdict: "healthy", or what is wrong. advice: what to change, empty where the cause lies elsewhere.

    """

    name: str
    kind: str
    signal: Estimate | None = None
    gradient: Estimate | None = None
    rank: Estimate | None = None
    dead: float | None = None
    saturated: Estimate | None = None
    entropy: Estimate | None = None
    verdict: str = HEALTHY
    advice: str = ""


@dataclass(frozen=True)
class Place:
    """A row without a verdict, the module it belongs to, and whether its output depends on parameters."""

    row: LayerHealth
    module: nn.Module | None
    tracked: bool


@dataclass(frozen=True)
class Verdicts:
    """All rows with their verdicts, and what they say together."""

    layers: tuple[LayerHealth, ...]
    factor: Estimate | None
    dies: str | None
    explodes: str | None
    notes: tuple[str, ...]


def place_of(site: Site) -> Place:
    """A site's numbers, with intervals over examples."""
    parts = (_mean(parts) for parts in (site.signal, site.gradient, site.saturated, site.entropy))
    signal, gradient, saturated, entropy = parts
    dead = None if site.alive is None else float((~site.alive).double().mean())
    row = LayerHealth(site.name, site.kind, signal, gradient, effective_rank(site.rows), dead, saturated, entropy)
    return Place(row, site.module, site.tracked)


def _mean(parts: Sequence[Tensor]) -> Estimate | None:
    if not parts:
        return None
    values = torch.cat([part.double().cpu() for part in parts])
    error = float(values.std()) / sqrt(len(values)) if len(values) > 1 else inf
    return Estimate(float(values.mean()), error, len(values) - 1, None, 0, 0, "mean over examples")


def effective_rank(rows: Sequence[Tensor]) -> Estimate | None:
    r"""The participation ratio (tr M)² / tr M² of M = E h hᵀ, from independent rows h, each average over pairs of them.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> low, high = effective_rank([torch.randn(500, 8, generator=generator)]).interval(0.999)
        >>> low < 8 < high
        True

    """
    alike = [part for part in rows if part.shape[1] == rows[0].shape[1]]
    table = torch.cat(alike).double() if alike else torch.zeros(0, 1)
    n, scale = len(table), float(table.abs().max()) if table.numel() else 0.0
    if n < 3 or table.shape[1] < 2 or not scale:
        return None
    table = table / scale
    gram = table @ table.T
    own, squares = gram.diagonal(), gram.square()
    pairs, cross = squares.sum() - own.square().sum(), own.sum().square() - own.square().sum()
    if not float(pairs) > 0:
        return None
    left = own.sum() - own
    cross_left = left.square() - (own.square().sum() - own.square())
    pairs_left = pairs - 2 * (squares.sum(1) - own.square())
    value = float(cross / pairs)
    parts = (cross_left / pairs_left.clamp(min=1e-300)).cpu()
    error = jackknife(value, parts, torch.ones_like(parts))
    return Estimate(value, error, n - 1, None, 0, 0, "jackknife over examples")


def judge(places: Sequence[Place]) -> Verdicts:
    """The verdict of every place."""
    chain = [i for i, place in enumerate(places) if place.row.gradient is not None]
    dies, explodes = _crossing(places, chain, dies=True), _crossing(places, chain, dies=False)
    if dies is not None:
        dies = _source(places, dies) if _starves(places, chain[: chain.index(dies)]) else None
    fades, bursts = _signal(places)
    turns = {"gradient dies": dies, "gradient explodes": explodes, "signal dies": fades, "signal explodes": bursts}
    crowded = _crowded(places)
    starved = set(chain[: chain.index(dies)]) if dies in chain else set()
    blocked = {i for i in chain if i not in starved and _blocked(places, chain, i)}
    unused = {i for i, place in enumerate(places) if place.tracked and place.row.gradient is None}
    blocked, unused = _in_all_calls(places, blocked), _in_all_calls(places, unused)
    layers = []
    for i, place in enumerate(places):
        units = _units(places, i)
        words = [units] if units else [word for word, mark in turns.items() if mark == i]
        words += ["examples alike"] if crowded == i else []
        rest = {"starved": starved, "blocked": blocked, "unused": unused}
        words = words or [word for word, members in rest.items() if i in members]
        verdict = ", ".join(words) or HEALTHY
        layers.append(replace(place.row, verdict=verdict, advice=_advice(verdict, places, i)))
    ends = [None if i is None else places[i].row.name for i in (dies, explodes)]
    flat = chain and not _gradient(places[chain[-1]]).value
    notes = ("the loss has no slope at the output: nothing can be said of gradients",) if flat else ()
    return Verdicts(tuple(layers), _factor(places, chain), ends[0], ends[1], notes)


def _units(places: Sequence[Place], i: int) -> str:
    """What is wrong with the units of a place themselves."""
    row = places[i].row
    if _source(places, i) != i:
        return "no signal"
    if row.dead is not None and row.dead >= _DEAD:
        return "dead"
    if row.saturated is not None and row.saturated.value >= _FLAT:
        return "saturated"
    return "attends to one key" if row.entropy is not None and row.entropy.interval()[1] < _SHARP else ""


def _in_all_calls(places: Sequence[Place], marked: set[int]) -> set[int]:
    """The marked places of which all calls are marked: the last steps of a recurrence need not matter."""
    bases = [re.sub(r" \(call \d+\)", "", place.row.name) for place in places]
    spared = {base for i, base in enumerate(bases) if i not in marked}
    return {i for i in marked if bases[i] not in spared}


def _crossing(places: Sequence[Place], chain: Sequence[int], dies: bool) -> int | None:
    """The place at which the gradient, on its way back, falls below the floor for good, or passes the ceiling."""
    if not chain or not _gradient(places[chain[-1]]).value:
        return None
    estimates = [_gradient(places[i]) for i in chain]
    end = estimates[-1].value
    if dies:  # as long as one place nearer to the input has its gradient, this is a branch that has none
        most = list(accumulate((min(e.interval()[1], 10 * e.value) for e in estimates), max))
        below = [k for k, value in enumerate(most) if value < FLOOR * end]
    else:
        below = [k for k, e in enumerate(estimates) if max(e.interval()[0], e.value / 10) > CEILING * end]
    if not below or below[-1] + 1 == len(chain):
        return None
    k = below[-1] + 1
    step = estimates[k - 1].value / estimates[k].value if estimates[k].value else 1.0
    if step < _ABRUPT or step > 1 / _ABRUPT:
        return chain[k]
    return next((i for i in chain[k:] if _gain(places[i].module) is not None), chain[k])


def _starves(places: Sequence[Place], before: Sequence[int]) -> bool:
    """Whether these places leave some module with parameters without a gradient in all its calls.

    In a model without such modules, at least two places: the first gate of a recurrence may have nothing to forget.
    """
    owners = [(i, p.module) for i, p in enumerate(places) if _owns(p.module)]
    if any(i + 1 < len(places) for i, _ in owners):
        alive = {id(module) for i, module in owners if i not in before}
        return any(i in before and id(module) not in alive for i, module in owners)
    return len(before) > 1


def _owns(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters(recurse=False))


def _source(places: Sequence[Place], i: int) -> int:
    """The first of the places up to this one, without a gap, whose output is zero on all data; else the place itself."""
    silent = takewhile(lambda j: not places[j].tracked or not _size(places[j]), range(i, -1, -1))
    return min((j for j in silent if places[j].tracked), default=i)


def _size(place: Place) -> float:
    return place.row.signal.value if place.row.signal is not None else 0.0


def _gradient(place: Place) -> Estimate:
    assert place.row.gradient is not None
    return place.row.gradient


def _signal(places: Sequence[Place]) -> tuple[int | None, int | None]:
    """The first places at which the signal is 10⁻⁶ or 10⁶ of that at the first one."""
    sizes = [(i, p.row.signal) for i, p in enumerate(places) if p.row.signal is not None and p.tracked]
    first = sizes[0][1].value if sizes else 0.0
    fades = next((i for i, e in sizes if min(e.interval()[1], 10 * e.value) < FLOOR * first), None)
    bursts = next((i for i, e in sizes if max(e.interval()[0], e.value / 10) > CEILING * first), None)
    return fades, bursts


def _crowded(places: Sequence[Place]) -> int | None:
    """The place from which on all examples point the same way, though they did not at the first one."""
    ranks = [(i, p.row.rank) for i, p in enumerate(places[:-1]) if p.row.rank is not None]  # an output may be like that
    if not ranks or ranks[0][1].interval()[0] < 1.5:
        return None
    alike = list(takewhile(lambda pair: pair[1].interval()[1] < 1.001, reversed(ranks)))
    return alike[-1][0] if alike else None


def _blocked(places: Sequence[Place], chain: Sequence[int], i: int) -> bool:
    if i not in chain or not _gradient(places[chain[-1]]).value:
        return False
    before = max((_gradient(places[j]).value for j in chain if j < i), default=0.0)
    return _gradient(places[i]).value < FLOOR * min(before, _gradient(places[chain[-1]]).value)


def _factor(places: Sequence[Place], chain: Sequence[int]) -> Estimate | None:
    """The mean logarithm of the factor on the gradient's second moment from one layer with weights to the one before."""
    sizes = [_gradient(places[i]).value for i in chain if _gain(places[i].module) is not None]
    logs = [log(a / b) for a, b in pairwise(sizes) if a > 0 and b > 0]
    if len(logs) < 2:
        return None
    steps = torch.tensor(logs, dtype=torch.float64)
    error = float(steps.std()) / sqrt(len(logs))
    return Estimate(float(steps.mean()), error, len(logs) - 1, None, 0, 0, "mean over layers")


def _gain(module: nn.Module | None) -> float | None:
    """fan_in · Var(w) of a linear or convolutional layer."""
    if not isinstance(module, nn.Linear | _ConvNd):
        return None
    weight = module.weight.detach()
    return float(weight.double().square().mean()) * weight[0].numel()


def _advice(verdict: str, places: Sequence[Place], i: int) -> str:
    """What to change, for a place that is at fault itself."""
    before = next((p.row.name for p in reversed(places[:i]) if _owns(p.module)), None)
    source = f"layer {before}" if before else "the layer before"
    if verdict.startswith("dead"):
        return (
            f"units are zero on all data: set the biases of {source} to 0, lower the learning rate, or use a leaky ReLU"
        )
    if verdict.startswith("saturated"):
        return f"slopes are near 0: shrink weights and biases of {source}, or normalise its outputs"
    if verdict.startswith("attends"):
        return "each query sees one key: shrink the query and key weights, or scale the scores by 1/√d"
    if verdict.startswith("examples"):
        return "all examples point the same way from here on: add skip connections or normalisation, or fewer layers"
    if verdict.startswith("blocked"):
        return "no gradient enters this branch: expected of a zero-initialised branch at the start, else look after it"
    if verdict.startswith("unused"):
        return "the loss does not depend on this output: remove the layer, or look for detach() after it"
    if verdict.startswith(("gradient", "signal")):
        return _scale_advice(verdict, places, i, source)
    return ""


def _scale_advice(verdict: str, places: Sequence[Place], i: int, source: str) -> str:
    gain = _gain(places[i].module)
    kinds = [p.row.kind.lower() for p in places[i + 1 : i + 3]]
    wanted = next((value for kind, value in _WANTED.items() for k in kinds if kind in k), 1.0)
    if gain is None:
        return f"see {source}: rescale its weights, add a normalisation layer or a skip connection"
    if wanted == 16.0:
        return "the slope of a sigmoid is at most 1/4: use tanh or ReLU in hidden layers"
    if abs(log(max(gain, 1e-300) / wanted)) < log(1.5):
        return "its weights have the right size, many layers lose a little: add skip connections or normalisation"
    remedy = "nn.init.kaiming_normal_" if wanted == 2.0 else "nn.init.xavier_normal_"
    return f"fan_in·Var(w) is {gain:.3g} where {wanted:g} keeps second moments: {remedy}(layer.weight), biases 0"
