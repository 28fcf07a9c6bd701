"""Digits, graphs and small networks for the study of trained symmetries, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from lemmata.architectures import CNN, GIN, MLP, DeepSets, GroupCNN, ResNet, VisionTransformer
from lemmata.studies.data import atlas, digits
from lemmata.studies.training import train

SIDE, MARGIN = 10, 1  # digits of 8 × 8 pixels on a blank canvas
KINDS = ("MLP", "CNN", "ResNet", "ViT", "p4-CNN")
DESIGNS = ("torus", "zero padding", "stride 2", "pooling in twos", "flattened")
IMAGES = 1000  # for training


def canvas(held_out: bool) -> tuple[Tensor, Tensor]:
    """The digits with blank pixels at zero, on a blank canvas of 10 × 10 pixels: (b, 1, 10, 10), and labels.

    The collection's pixels are centred; every pixel is blank in some image, where it is smallest.
    """
    both = [digits(IMAGES, held_out=part, images=True) for part in (False, True)]
    blank = torch.cat([images for images, _ in both]).amin(0)
    images, labels = both[held_out]
    return nn.functional.pad(images - blank, (MARGIN,) * 4), labels


def shifted(x: Tensor, draws: torch.Generator) -> Tensor:
    """Every image moved by up to one pixel each way, on the torus; no digit crosses the edge."""
    moves = torch.randint(-MARGIN, MARGIN + 1, (2, len(x)), generator=draws, device="cpu").to(x.device)
    rows, columns = ((torch.arange(SIDE, device=x.device) - move[:, None]) % SIDE for move in moves)
    return x[torch.arange(len(x), device=x.device)[:, None, None], 0, rows[:, :, None], columns[:, None]][:, None]


def noisy(x: Tensor, draws: torch.Generator) -> Tensor:
    """Every image with noise added, of a fifth of the images' size."""
    return x + 0.2 * x.square().mean().sqrt() * torch.randn(x.shape, generator=draws, device="cpu").to(x)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda x, draws: x,
    "shifts": shifted,
    "noise": noisy,
}


def network(kind: str, draws: torch.Generator) -> nn.Module:
    """A network of one of KINDS, untrained."""
    placed: dict[str, Any] = {"generator": draws, "device": torch.get_default_device()}
    if kind == "MLP":
        return nn.Sequential(nn.Flatten(), MLP([SIDE**2, 64, 10], activation="relu", init="he", **placed))
    if kind == "CNN":
        return CNN([1, 8, 16, 16], 10, padding="zeros", stride=2, activation="relu", init="he", **placed)
    if kind == "ResNet":
        return ResNet([1, 4, 8, 16], 10, norm="group", groups=2, **placed)
    if kind == "ViT":
        return VisionTransformer(SIDE, 5, 1, 16, 2, 1, 10, pool="mean", **placed)
    return GroupCNN([1, 4, 8], 10, kernel=5, init="he", **placed)


def fitted(
    net: nn.Module, x: Tensor, y: Tensor, change: Callable[[Tensor], Tensor], steps: int, seed: int, rate: float = 0.01
) -> nn.Module:
    """Train by Adam with a falling rate on batches of 32 changed inputs, in single precision; in double ever after."""
    draws = torch.Generator().manual_seed(seed)
    single = x.float()

    def batch(step: int) -> tuple[Any, Tensor]:
        chosen = torch.randperm(len(x), generator=draws, device="cpu")[:32].to(x.device)
        return change(single[chosen])[None], y[chosen][None]

    def falling(rule: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(rule, lambda step: 1 - step / (steps + 1))

    train([net.float()], nn.functional.cross_entropy, batch, steps, partial(torch.optim.Adam, lr=rate), falling)
    return net.double().requires_grad_(False)


@cache
def learned(kind: str, augmentation: str, steps: int, seed: int) -> nn.Module:
    """A network trained on augmented digits; arms of one trial share it."""
    draws = torch.Generator().manual_seed(seed)
    net = network(kind, draws)
    x, y = canvas(held_out=False)
    rate = 0.02 if kind == "p4-CNN" else 0.01
    return fitted(net, x, y, lambda images: AUGMENTATIONS[augmentation](images, draws), steps, seed, rate)


def change(f: Callable[[Any], Tensor], x: Any, moved: Any) -> float:
    """How much the outputs change, relative to how much they differ between inputs."""
    before = f(x)
    return float((f(moved) - before).norm() / (before - before.mean(0)).norm())


def error(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of inputs that get another label."""
    return float((net(x).argmax(-1) != y).double().mean())


def designed(design: str, positional: bool, draws: torch.Generator) -> nn.Module:
    """Two convolutions with rectifiers and a head, in one of DESIGNS."""
    padding = "zeros" if design == "zero padding" else "circular"
    stride = 2 if design == "stride 2" else 1
    size: dict[str, Any] = {"kernel_size": 3, "stride": stride, "padding": 1, "padding_mode": padding}
    first, second = nn.Conv2d(1 + positional, 8, **size), nn.Conv2d(8, 16, **size)
    pool = [nn.MaxPool2d(2)] if design == "pooling in twos" else []
    head = [nn.Flatten(), nn.Linear(16 * SIDE**2, 10)] if design == "flattened" else [Mean(), nn.Linear(16, 10)]
    net = nn.Sequential(*[Column()] * positional, first, nn.ReLU(), *pool, second, nn.ReLU(), *pool, *head)
    with torch.no_grad():
        for parameter in net.parameters():
            bound = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.0
            noise = torch.rand(parameter.shape, generator=draws, device="cpu") * 2 - 1
            parameter.copy_(noise * bound * 3**0.5)
    return net


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, h: Tensor) -> Tensor:
        """(b, c, h, w) → (b, c)."""
        return h.mean((-2, -1))


class Column(nn.Module):
    """One more channel, which tells the column."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, 1, h, w) → (b, 2, h, w)."""
        ramp = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device).expand_as(x)
        return torch.cat([x, ramp], 1)


class Rows(nn.Module):
    """A perceptron that reads a set, or a graph's features and adjacency, as one row of numbers."""

    def __init__(self, size: int, draws: torch.Generator) -> None:
        super().__init__()
        self.net = MLP([size, 32, 10], activation="relu", init="he", generator=draws, device=torch.get_default_device())

    def forward(self, x: Tensor) -> Tensor:
        """(b, …) → (b, 10)."""
        return self.net(x.flatten(1))


class OnGraphs(nn.Module):
    """A graph isomorphism network on adjacencies alone; every node's feature is 1."""

    def __init__(self, draws: torch.Generator) -> None:
        super().__init__()
        self.net = GIN([1, 8, 8], 10, activation="relu", generator=draws, device=torch.get_default_device())

    def forward(self, adjacency: Tensor) -> Tensor:
        """(b, n, n) → (b, 10)."""
        return self.net(torch.ones_like(adjacency[..., :1]), adjacency)


def renamed(adjacency: Tensor, draws: torch.Generator) -> Tensor:
    """The nodes of every graph in another order."""
    orders = torch.rand(adjacency.shape[:2], generator=draws, device="cpu").argsort(-1).to(adjacency.device)
    rows = adjacency.gather(1, orders[:, :, None].expand_as(adjacency))
    return rows.gather(2, orders[:, None].expand_as(adjacency))


def pixels(images: Tensor) -> Tensor:
    """Images as sets of triples of value, row and column: (b, 1, n, n) → (b, n², 3)."""
    place = torch.linspace(-1, 1, images.shape[-1], dtype=images.dtype, device=images.device)
    parts = images[:, 0], place[:, None].expand_as(images[:, 0]), place.expand_as(images[:, 0])
    return torch.stack(parts, -1).flatten(1, 2)


def reordered(sets: Tensor, draws: torch.Generator) -> Tensor:
    """The elements of every set in another order."""
    orders = torch.rand(sets.shape[:2], generator=draws, device="cpu").argsort(-1).to(sets.device)
    return sets.gather(1, orders[..., None].expand_as(sets))


def turned(x: Tensor, draws: torch.Generator) -> Tensor:
    """Every image turned by zero to three quarters."""
    quarters = torch.randint(4, (len(x),), generator=draws, device="cpu").tolist()
    return torch.stack([image.rot90(k, (-2, -1)) for image, k in zip(x, quarters, strict=True)])


Task = tuple[Tensor, Tensor, Callable[[Tensor, torch.Generator], Tensor], Callable[[torch.Generator], nn.Module]]
RATES = {"shifts": 0.03, "turns": 0.02, "pixels": 0.03, "nodes": 0.01}  # of the networks that have the symmetry


def task(symmetry: str) -> Task:
    """Inputs, labels, a random element of the group, and the network that has the symmetry."""
    where: dict[str, Any] = {"device": torch.get_default_device()}
    if symmetry == "nodes":
        graphs = torch.stack(atlas(6))
        triangles = torch.einsum("nij,njk,nki->n", graphs, graphs, graphs) > 0
        return graphs, triangles.long(), renamed, OnGraphs
    x, y = canvas(held_out=False)
    if symmetry == "pixels":
        sets = pixels(x[..., MARGIN:-MARGIN, MARGIN:-MARGIN])
        make = partial(DeepSets, [3, 32, 32], [32, 10], pool="mean", activation="relu", init="he", **where)
        return sets, y, reordered, lambda draws: make(generator=draws)
    if symmetry == "turns":
        return x, y, turned, partial(network, "p4-CNN")
    torus = partial(CNN, [1, 8, 16], 10, activation="relu", init="he", **where)
    return x, y, shifted, lambda draws: torus(generator=draws)
