r"""What trained networks notice of a shift, a turn and a renaming.

Symmetries that are built into an architecture survive training to rounding; those that the data merely suggest are learned in
part. Networks of several families learn handwritten digits @alpaydin1998digits and graphs @read1998atlas, with and without
augmentation, and are asked how much their outputs change, and which layer is to blame @gruver2023lie. Whether a convolutional
network is invariant to translations, as is often said, depends on its padding, its strides and its head
@azulay2019why @kayhan2020translation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import CNN, GIN, MLP, DeepSets, GroupCNN, ResNet, VisionTransformer
from lemmata.studies.claim import AtMost, Grid, claim, script
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
    return GroupCNN([1, 4, 8], 10, kernel=5, **placed)


def fitted(
    net: nn.Module, x: Tensor, y: Tensor, change: Callable[[Tensor], Tensor], steps: int, seed: int
) -> nn.Module:
    """Train by Adam with a falling rate on batches of 32 changed inputs, in single precision; in double ever after."""
    draws = torch.Generator().manual_seed(seed)
    single = x.float()

    def batch(step: int) -> tuple[Any, Tensor]:
        chosen = torch.randperm(len(x), generator=draws, device="cpu")[:32].to(x.device)
        return change(single[chosen])[None], y[chosen][None]

    def falling(rule: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LambdaLR(rule, lambda step: 1 - step / (steps + 1))

    train([net.float()], nn.functional.cross_entropy, batch, steps, partial(torch.optim.Adam, lr=0.01), falling)
    return net.double().requires_grad_(False)


@cache
def learned(kind: str, augmentation: str, steps: int, seed: int) -> nn.Module:
    """A network trained on augmented digits; arms of one trial share it."""
    draws = torch.Generator().manual_seed(seed)
    net = network(kind, draws)
    x, y = canvas(held_out=False)
    return fitted(net, x, y, lambda images: AUGMENTATIONS[augmentation](images, draws), steps, seed)


def change(f: Callable[[Any], Tensor], x: Any, moved: Any) -> float:
    """How much the outputs change, relative to how much they differ between inputs."""
    before = f(x)
    return float((f(moved) - before).norm() / (before - before.mean(0)).norm())


def error(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of inputs that get another label."""
    return float((net(x).argmax(-1) != y).double().mean())


GROUPS = {
    "convolution or linear": ("Conv2d", "Linear", "LiftingConv", "GroupConv", "Positions"),
    "normalisation": ("GroupNorm", "LayerNorm"),
    "activation": ("relu", "erf", "tanh"),
}


def shares(found: la.LieDerivative) -> dict[str, float]:
    """Root of the sum of squared contributions of each group of layers."""
    return {
        name: float(np.sqrt(sum(one.contribution.value**2 for one in found.layers if one.kind in kinds)))
        for name, kinds in GROUPS.items()
    }


def draw_layers(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Which layers break the invariance to shifts: contributions to the Lie derivative, for five trained networks.

    A group of bars for each network on a logarithmic axis, pale for training without and full for training with shifted
    images: convolutions and linear maps, normalisations, activations. The perceptron's are all in its linear maps; those of
    the network on the torus are all in its activations.
    """
    kinds = list(dict.fromkeys(row.point["model"] for row in rows))
    columns: dict[str, list[Any]] = {"network": kinds}
    places, width = np.arange(len(kinds)), 0.13
    for at, name in enumerate(GROUPS):
        for late, part in enumerate(("plain", "augmented")):
            values = [
                float(np.mean([r.values[f"{part}: {name}"] for r in rows if not r.arm and r.point["model"] == kind]))
                for kind in kinds
            ]
            columns[f"{name}, {part}"] = values
            label = name if late else None
            x = places + (2 * at + late - 2.5) * width
            shown = [max(value, 1e-4) for value in values]
            ax.bar(x, shown, width, bottom=0, color=f"C{at}", alpha=1.0 if late else 0.4, label=label)
    ax.set(yscale="log", ylim=(1e-3, 10), ylabel="relative change of the outputs per pixel")
    ax.set_xticks(places, kinds)
    ax.legend(fontsize="small", title="pale: without, full: with shifted images", title_fontsize="small", ncols=3)
    return columns


def draw_depth(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """The error of equivariance that has gathered at each place from the input to the output, of one network of each family.

    Lines against the share of the way through the network, interpolated between its places, on a logarithmic axis. All are of
    order one at the end; the line of the network on the torus begins at rounding, drawn at the bottom, with its first convolution.
    """
    way = np.linspace(0, 1, 21)
    columns: dict[str, Any] = {"way": way}
    for row in rows:
        kind = row.point["model"]
        if not row.arm and kind not in columns:
            gathered = np.asarray(row.values["gathered"])
            columns[kind] = np.interp(way, np.linspace(0, 1, len(gathered)), gathered)
            ax.semilogy(way, np.maximum(columns[kind], 1e-4), marker=".", label=kind)
    ax.set(xlabel="way from the first layer to the output", ylabel="relative Lie derivative per pixel")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("gruver2023lie", "alpaydin1998digits"),
    predicts=AtMost(0.8),
    quick=Grid(model=KINDS, steps=[250], seeds=2),
    full=Grid(model=KINDS, steps=[2000], seeds=10),
    controls={"the images are shifted: noise is added to them": dict(augmentation="noise")},
    expects="DEPENDS",
    switch="model",
    figures=(draw_layers, draw_depth),
)
def trained_shift_augmentation(model: str, steps: int, seed: int, augmentation: str = "shifts") -> dict[str, Any]:
    r"""Training on shifted images makes a network less sensitive to shifts.

    The change of the class scores when held-out digits move by one pixel, relative to how much the scores differ between
    images, for a network trained on digits moved by up to a pixel, divided by the same for one trained on the digits as they
    are; changes below $10^(-12)$ are rounding and count as that. The statement is that a fifth or more is gained. The switch
    is the architecture: where the invariance is built in, as in the network of group convolutions on the torus, shifted
    images teach nothing.

    Recorded as well is the Lie derivative of the scores along horizontal translations @gruver2023lie, and how much of it
    each kind of layer contributes; it sees shifts by fractions of a pixel, to which no network here is invariant. In the
    control noise is added in place of the shifts.
    """
    x, y = canvas(held_out=True)
    some, found = x[:64], []
    values: dict[str, Any] = {}
    for part, kind in (("plain", "none"), ("augmented", augmentation)):
        net = learned(model, kind, steps, seed)
        lie = la.lie_derivative(net, some, "x-translation", steps=())
        spread = float((net(some) - net(some).mean(0)).norm() / net(some).norm())
        values |= {f"{part}: {name}": size / spread for name, size in shares(lie).items()}
        values |= {f"{part}: error": error(net, x, y), f"{part}: Lie derivative": lie.output.value / spread}
        found.append(change(net, some, some.roll(1, -1)))
        if part == "plain":
            values["gathered"] = np.array([*(layer.gathered.value for layer in lie.layers), lie.output.value])
    ratio = max(found[1], 1e-12) / max(found[0], 1e-12)
    return {"value": ratio, "plain: one pixel": found[0], "augmented: one pixel": found[1], **values}


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


def draw_designs(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Change of the class scores against the shift, for five designs of a convolutional network.

    Logarithmic vertical axis. On the torus the change is at rounding for every shift. Strides and pooling in twos are exact
    for shifts that their stride divides and not in between; zero padding and a flattened map change for all.
    """
    columns: dict[str, Any] = {}
    for design in dict.fromkeys(row.point["design"] for row in rows):
        own = [row.values["by shift"] for row in rows if not row.arm and row.point["design"] == design]
        columns["shift"] = list(range(len(own[0])))
        columns[design] = [max(value, 1e-17) for value in np.mean(own, 0)]
        ax.semilogy(columns["shift"][1:], columns[design][1:], marker=".", label=design)
    ax.set(xlabel="horizontal shift in pixels", ylabel="change of the scores ÷ their spread")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("azulay2019why", "kayhan2020translation", "zhang2019making"),
    predicts=AtMost(0.02),
    quick=Grid(design=DESIGNS, steps=[150], seeds=2),
    full=Grid(design=DESIGNS, steps=[2000], seeds=10),
    controls={"weights shared over positions: a channel that tells the column": dict(positional=True)},
    expects="DEPENDS",
    switch="design",
    figures=(draw_designs,),
)
def cnn_translation_invariance(design: str, steps: int, seed: int, positional: bool = False) -> dict[str, Any]:
    r"""Convolutional networks are invariant to translations.

    Contested. A stack of convolutions with shared weights and a mean over positions is invariant on the torus, to rounding. As
    built, networks pad with zeros, so that filters can tell the border @kayhan2020translation; they take every second position or
    the maximum of two, and are invariant to some shifts at most @azulay2019why @zhang2019making; or they read a flattened map,
    with other weights at every position.

    Networks of two convolutions learn the digits on a blank canvas on which they can move by a pixel and stay whole. The value
    is the larger change of the class scores under the horizontal shifts by one pixel, relative to how much the scores differ between images; the statement is that it is at most 2 %. The switch is the design. With a channel that
    tells the column, none is invariant.
    """
    draws = torch.Generator().manual_seed(seed)
    x, y = canvas(held_out=False)
    net = fitted(designed(design, positional, draws), x, y, lambda images: images, steps, seed)
    x, y = canvas(held_out=True)
    errors = [change(net, x[:200], x[:200].roll(t, -1)) for t in range(SIDE)]
    return {"value": max(errors[1], errors[-1]), "by shift": errors, "error": error(net, x, y)}


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


def draw_built_in(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Change of the outputs of trained networks under a symmetry that is built in, and under one that is learned.

    Two bars for each of four symmetries, on a logarithmic axis: at rounding where it is built in, and about one, fifteen orders of
    magnitude above, for a perceptron that has seen transformed data.
    """
    names = list(dict.fromkeys(row.point["symmetry"] for row in rows))
    columns: dict[str, Any] = {"symmetry": names}
    for at, (arm, label) in enumerate((("", "built in"), ("learned", "learned from transformed data"))):
        values = [
            float(
                np.mean([r.values["value"] for r in rows if bool(r.arm) == bool(arm) and r.point["symmetry"] == name])
            )
            for name in names
        ]
        columns[label] = values
        ax.bar(np.arange(len(names)) + 0.4 * at - 0.2, np.maximum(values, 1e-17), 0.4, bottom=0, label=label)
    ax.set(yscale="log", ylim=(1e-17, 1e2), ylabel="change of the outputs ÷ their spread")
    ax.set_xticks(range(len(names)), names)
    ax.legend(fontsize="small", loc="upper center", ncols=2)
    return columns


@claim(
    source=("cohen2016group", "zaheer2017deep", "xu2019how"),
    predicts=AtMost("rounding(10000, 10)"),
    quick=Grid(symmetry=["shifts", "turns", "pixels", "nodes"], steps=[100], seeds=3),
    full=Grid(symmetry=["shifts", "turns", "pixels", "nodes"], steps=[2000], seeds=10),
    controls={"the symmetry is built in: a perceptron learns it from transformed data": dict(learned=True)},
    figures=(draw_built_in,),
)
def trained_symmetry_built_in(symmetry: str, steps: int, seed: int, learned: bool = False) -> dict[str, Any]:
    r"""A symmetry of the architecture survives training; augmentation does not replace it.

    A network that commutes with a group at every value of its parameters does so at trained ones. Four are trained: a convolutional
    network on the torus (shifts of digits), one with group convolutions (quarter turns) @cohen2016group, DeepSets on digits
    as sets of pixels (their order) @zaheer2017deep, a graph isomorphism network that tells which of the 156 graphs of six nodes
    have triangles (names of nodes) @xu2019how. The value is the change of the outputs under a random element for each
    input, relative to how much they differ between inputs; 10 000 terms bound what a sum holds.

    The control trains a perceptron as long, on data that are transformed anew in every batch.
    """
    draws = torch.Generator().manual_seed(seed)
    x, y, moved, make = task(symmetry)
    net = Rows(x[0].numel(), draws) if learned else make(draws)
    fitted(net, x, y, (lambda batch: moved(batch, draws)) if learned else (lambda batch: batch), steps, seed)
    some = x[:100]
    return {"value": change(net, some, moved(some, draws)), "error": error(net, x, y)}


if __name__ == "__main__":
    script(__file__)
