"""Lie derivatives of all layers of a network: one forward-mode pass beside one for each layer, and the published recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from lemmata.analysis import Generator, image_generator, lie_difference
from lemmata.analysis.invariance.lie_passes import push

from .table import Row, Target, timed_row
from .timing import Contender, interleaved

WORK, ALONG = "lie", "x-translation"
OURS, PASSES, RECIPE = "lemmata", "one forward-mode pass a layer", "double backward in hooks"
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


def a_pass_each(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """As one writes it with ``torch.func.jvp``: from the input up to each layer, whose own defect is what two of them leave.

    L(f ∘ h) = (L f) ∘ h + Df · L h, so that for each layer its inputs have to be carried there first.
    """
    found = []
    with torch.no_grad():
        for stop, layer in enumerate(model):
            if isinstance(layer, nn.Flatten):
                continue
            h = model[:stop](x) if stop else x
            y, moved = torch.func.jvp(layer, (h,), (generator(str(stop - 1), h),))
            found.append(moved - generator(str(stop), y))
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


def truth(model: nn.Sequential, x: Tensor, generator: Generator) -> list[Tensor]:
    """Central differences of each layer alone, in double precision."""
    found, h = [], x.double()
    model = copy.deepcopy(model).double()
    for layer in model:
        if not isinstance(layer, nn.Flatten):
            found.append(lie_difference(layer, h, generator, 1e-4))
        with torch.no_grad():
            h = layer(h)
    return found


def measure(side: int, images: int, channels: int, depth: int, device: str, repeats: int) -> Iterator[Row]:
    """One network: the time of each way to all layers' defects over ours."""
    draws = torch.Generator().manual_seed(0)
    model = network(channels, depth).to(device)
    x = torch.randn(images, 1, side, side, generator=draws).to(device)
    generator = image_generator(ALONG, (side, side), acts={str(3 * depth): "nothing"})
    ways = {OURS: one_pass, PASSES: a_pass_each, RECIPE: recipe}
    contenders: dict[str, Contender] = {name: partial(way, model, x, generator) for name, way in ways.items()}
    exact = truth(model, x, generator)
    errors = {name: gap(call(), exact) for name, call in contenders.items()}
    if max(errors.values()) > _WITHIN:
        raise RuntimeError(f"defects of {depth} layers disagree with central differences: {errors}")
    rounds = interleaved(contenders, device, repeats)
    for name in contenders:
        target = None if name == OURS else _TARGET
        place = WORK, f"{depth} × {channels} channels, {side}²"
        yield timed_row(place, name, rounds, (OURS, "ours"), errors[name], target, f"{len(exact)} layers")


def gap(found: list[Tensor], exact: list[Tensor]) -> float:
    """The distance over all layers, relative to their sizes."""
    squares = [
        [float((a.double() - b).square().sum()), float(b.square().sum())] for a, b in zip(found, exact, strict=True)
    ]
    above, below = (sum(column) for column in zip(*squares, strict=True))
    return (above / below) ** 0.5
