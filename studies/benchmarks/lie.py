"""Lie derivatives of all layers of a network: one forward-mode pass beside one for each layer, and the published recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from lemmata.analysis import Generator, image_generator, lie_difference
from lemmata.analysis.invariance.lie_passes import pull, push

from .table import Row, Target, timed_row
from .timing import Contender, affordable

WORK, ALONG = "lie", "x-translation"
OURS, PROBES = "lemmata", 100
SECONDS = 12.0  # for all rounds of one comparison
_TARGET, _WITHIN = Target("≥", 3), 1e-3
#: Side and number of the images, channels and number of the convolutions.
SIZES = ((15, 16, 16, 4), (15, 16, 16, 8), (31, 4, 32, 6))


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for size in SIZES:
        yield from measure(*size, device=device, repeats=repeats)


def network(channels: int, depth: int) -> nn.Sequential:
    """Convolutions on the torus with a normalisation and an activation each, a mean over positions, a linear read-out."""
    layers: list[nn.Module] = []
    for place in range(depth):
        layers += [
            nn.Conv2d(channels if place else 1, channels, 3, padding=1, padding_mode="circular"),
            nn.GroupNorm(4, channels),
            nn.Tanh(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def one_pass(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """Every layer's own defect, as the laboratory computes it."""
    return [place.defect for place in push(model, x, generator, len(x), reset=True)[:-1]]


def gathered(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """The Lie derivative of the network up to each layer, as the laboratory computes it."""
    return [place.defect for place in push(model, x, generator, len(x), reset=False)[:-1]]


def a_pass_each(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """The same by ``torch.func.jvp`` of the network up to each layer."""
    found, moved = [], generator("input", x)
    with torch.no_grad():
        for stop, layer in enumerate(model):
            if not isinstance(layer, nn.Flatten):
                y, slope = torch.func.jvp(model[: stop + 1], (x,), (moved,))[:2]
                found.append(slope - generator(str(stop), y))
    return found


def recipe(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """As published: a hook on each layer differentiates g_{-t} f(g_t h) at t = 0 by two backward passes.

    Images are moved by h ↦ h + t V h in place of a bilinear sampler, which has the same derivative and costs less.
    """
    found: list[Tensor] = []
    busy = False

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        with torch.enable_grad():
            t = torch.zeros(1, requires_grad=True, device=x.device)
            before = _moved(inputs[0].detach(), t, generator)
            y = _moved(layer(before), -t, generator)
            v = torch.ones_like(y, requires_grad=True)
            pulled = torch.autograd.grad(y, t, v, create_graph=True)[0]
            found.append(torch.autograd.grad(pulled, v, torch.ones_like(pulled))[0])
        busy = False

    handles = [layer.register_forward_hook(hook) for layer in model if not isinstance(layer, nn.Flatten)]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def _moved(h: Tensor, t: Tensor, generator: Generator) -> Tensor:
    velocity = generator("any", h)
    return h if velocity is None else h + t * velocity


def attribution(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """What each layer's defect does to the outputs, Σ (z · J r)² over examples and outputs z, as the laboratory computes it."""
    places = push(model, x, generator, len(x), reset=True)
    eye = torch.eye(10, dtype=x.dtype, device=x.device)[:, None].expand(-1, len(x), -1)
    return [row.square().sum() for row in pull(model, x, places[:-1], eye, len(x))[0]]


def published(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """The same as published: the defects by hooks, then 100 probes of a forward and a backward pass each."""
    defects, outputs = recipe(model, x, generator), []
    total = [x.new_zeros(()) for _ in defects]
    handles = [
        layer.register_forward_hook(lambda layer, given, output: outputs.append(output))
        for layer in model
        if not isinstance(layer, nn.Flatten)
    ]
    for _ in range(PROBES):
        outputs.clear()
        y = model(x)
        slopes = torch.autograd.grad((torch.randn_like(y) * y).sum(), outputs)
        total = [
            sum_ + (slope * defect).flatten(1).sum(1).square().sum() / PROBES
            for sum_, slope, defect in zip(total, slopes, defects, strict=True)
        ]
    for handle in handles:
        handle.remove()
    return total


def truth(model: nn.Sequential, x: Tensor, generator: Generator) -> dict[str, list[Tensor]]:
    """Central differences in double precision: of each layer alone, of all up to it, and of what follows."""
    found: dict[str, list[Tensor]] = {"own": [], "gathered": [], "attribution": []}
    model, x = copy.deepcopy(model).double(), x.double()
    h = x
    for stop, layer in enumerate(model):
        before = h
        with torch.no_grad():
            h = layer(before)
        if isinstance(layer, nn.Flatten):
            continue
        r, rest = lie_difference(layer, before, generator, 1e-4), model[stop + 1 :]
        found["own"].append(r)
        found["gathered"].append(lie_difference(model[: stop + 1], x, generator, 1e-4))
        with torch.no_grad():
            found["attribution"].append(((rest(h + 1e-4 * r) - rest(h - 1e-4 * r)) / 2e-4).square().sum())
    return found


def measure(side: int, images: int, channels: int, depth: int, device: str, repeats: int) -> Iterator[Row]:
    """One network: the time of each way to the same numbers of all layers over ours."""
    draws = torch.Generator().manual_seed(0)
    model = network(channels, depth).to(device)
    x = torch.randn(images, 1, side, side, generator=draws).to(device)
    generator = image_generator(ALONG, (side, side), acts={str(3 * depth): "nothing"})
    exact, name = truth(model, x, generator), f"{depth} × {channels} channels, {side}²"
    for work, (ours, other, label, within, target) in WAYS.items():
        contenders: dict[str, Contender] = {
            OURS: partial(ours, model, x, generator),
            label: partial(other, model, x, generator),
        }
        errors = {key: gap(call(), exact[work]) for key, call in contenders.items()}
        if errors[OURS] > _WITHIN or errors[label] > within:
            raise RuntimeError(f"{work} of {depth} layers disagree with central differences: {errors}")
        rounds = affordable(contenders, device, repeats, SECONDS)
        for key in contenders:
            judged = target if key == label else None
            note = f"{len(exact[work])} layers"
            yield timed_row((f"{WORK}, {work}", name), key, rounds, (OURS, "ours"), errors[key], judged, note)


def gap(found: list[Tensor], exact: list[Tensor]) -> float:
    """The distance over all layers, relative to their sizes."""
    squares = [
        [float((a.double() - b).square().sum()), float(b.square().sum())] for a, b in zip(found, exact, strict=True)
    ]
    above, below = (sum(column) for column in zip(*squares, strict=True))
    return (above / below) ** 0.5


#: Work to our way, another, its name, how near it has to come to the truth, and the target.
WAYS = {
    "gathered": (gathered, a_pass_each, "one forward-mode pass a layer", _WITHIN, _TARGET),
    "own": (one_pass, recipe, "double backward in hooks", _WITHIN, _TARGET),
    "attribution": (attribution, published, f"hooks and {PROBES} probes", 0.5, _TARGET),
}
