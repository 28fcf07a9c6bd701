r"""Group convolutions commute with rotations and reflections, exactly, for those that map the grid to itself.

A lifting convolution correlates an image with its kernel in every pose, group convolutions do the same with maps on the
group, and the whole commutes with the group for every value of the weights @cohen2016group. Three everyday steps break
this without a sign: a reflection where the group has rotations only, an angle that the grid does not have, and a stride on
an even number of positions, which moves the centre of rotation between positions @edixhoven2023using.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import CNN, GroupCNN
from lemmata.architectures.group_cnn import transform_map
from lemmata.studies.claim import AtMost, Grid, claim, script

ORDER = {"p4": 4, "p4m": 8}


class Features(nn.Module):
    """Maps on the group, (b, c, |H|, m, m): those of a group network, every ``stride``-th position of them."""

    def __init__(self, net: nn.Module, order: int, stride: int) -> None:
        super().__init__()
        self.net, self.order, self.stride = net, order, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps; a plain network's channels are read as poses."""
        map_ = self.net.features(x)  # type: ignore[operator]
        if map_.dim() == 4:
            map_ = map_.unflatten(1, (-1, self.order))
        return map_[..., :: self.stride, :: self.stride]


class Means(nn.Module):
    """The mean of features over the group and all positions, (b, c)."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, c)."""
        return self.features(x).mean((-3, -2, -1))


def network(group: str, depth: int, stride: int, generator: torch.Generator, tied: bool = True) -> Features:
    """A random group network, or a plain one of the same size."""
    options: dict[str, Any] = {"activation": "relu", "device": torch.get_default_device(), "generator": generator}
    order = ORDER[group]
    if tied:
        return Features(GroupCNN([2] + [3] * depth, 1, group=group, **options), order, stride)
    return Features(CNN([2] + [3 * order] * depth, 1, **options), order, stride)


def smooth_image(side: int, generator: torch.Generator) -> Tensor:
    """A few random waves that fade out towards the border, (1, 2, side, side): an image that can be interpolated."""
    u = (torch.arange(side, device="cpu", dtype=torch.float64) * 2 + 1) / side - 1
    a, b, phase = torch.randn(3, 2, 4, 1, 1, generator=generator, device="cpu", dtype=torch.float64)
    waves = torch.cos(3 * (a * u[:, None] + b * u[None]) + 3 * phase)
    image = waves.mean(1) * torch.exp(-4 * (u[:, None] ** 2 + u[None] ** 2))
    return image[None].to(torch.get_default_device(), torch.get_default_dtype())


def draw_angles(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Relative error of the pooled features against the angle by which the image is turned, logarithmic axis.

    For the group network the points at 0, 90, 180 and 270 degrees lie at rounding, many orders of magnitude below all
    other angles, for which the image is interpolated. For a plain network of the same size only 0 degrees lies there.
    """
    columns: dict[str, Sequence[float]] = {}
    first = next(row.point for row in rows if row.point["depth"] == max(r.point["depth"] for r in rows))
    for row in rows:
        label = {"": f"{first['group']} network", "weights shared over poses: a plain convolution": "plain network"}
        if row.point == first and row.k == 0 and row.arm in label:
            errors = row.values["by angle"]
            columns["angle"] = [360 * m / len(errors) for m in range(len(errors))]
            columns[label[row.arm]] = [max(float(e), 1e-17) for e in errors]
            ax.semilogy(columns["angle"], columns[label[row.arm]], "o-", lw=0.7, markersize=4, label=label[row.arm])
    ax.set(xlabel="angle in degrees", ylabel="relative error of the pooled features", xticks=range(0, 361, 90))
    ax.legend()
    return columns


@claim(
    source=("cohen2016group", "weiler2019general"),
    predicts=AtMost("rounding(216*depth)", of="max"),
    quick=Grid(group=["p4", "p4m"], depth=[1, 3], side=[9, 10], seeds=5),
    full=Grid(group=["p4", "p4m"], depth=[1, 2, 4], side=[9, 10, 15], seeds=20),
    controls={
        "angles of the grid: 45° too": dict(order=8),
        "weights shared over poses: a plain convolution": dict(tied=False),
    },
    figures=(draw_angles,),
)
def p4_group_conv(group: str, depth: int, side: int, seed: int, order: int = 4, tied: bool = True) -> dict[str, Any]:
    r"""Group convolutions commute exactly with quarter turns, and their means over the group do not notice them.

    Let $F$ be a lifting convolution and group convolutions of p4 (or p4m) with entrywise activations, on a torus of
    $n times n$ positions. For every $h$ of the group, $F(h x) = h F(x)$ where $(h f)(p, k) = f(h^(-1) p, h^(-1) k)$: the map
    turns, and its axis of poses is permuted @cohen2016group. So $"mean"_(p, k) F(h x) = "mean"_(p, k) F(x)$.

    Measured is the larger of the two relative errors, over all elements of the group. Between quarter turns the grid has no
    rotation: the image is interpolated (bilinear), and the law holds only approximately @weiler2019general.
    """
    draws = torch.Generator().manual_seed(seed)
    features = network(group, depth, 1, draws, tied)
    x, mirrored = smooth_image(side, draws), group == "p4m"
    moves = la.actions.rotations(4, mirrored, outputs=lambda h, f: transform_map(h, f, group))
    maps = la.equivariance(features, x, moves, layers="")
    means = la.equivariance(Means(features), x, la.actions.rotations(order, mirrored), layers="")
    single = la.equivariance(features, x, moves, layers="", dtype=torch.float32)
    angles = la.equivariance(Means(features), x, la.actions.rotations(24), layers="")
    return {
        "value": max(maps.worst, means.worst),
        "maps": maps.worst,
        "means": means.worst,
        "single precision": single.worst,
        "by angle": [error for _, error in angles.errors],
    }


@claim(
    source=("cohen2016group",),
    predicts=AtMost("rounding(216*depth)", of="max"),
    quick=Grid(depth=[1, 3], seeds=5),
    full=Grid(depth=[1, 2, 4], seeds=20),
    controls={"the group has reflections: p4": dict(group="p4")},
)
def p4_group_conv_mirror(depth: int, seed: int, group: str = "p4m") -> dict[str, Any]:
    r"""A network of p4m does not notice a mirror; one of p4 does.

    p4m holds the reflections, p4 the rotations alone: a kernel and its mirror image stand in two poses of p4m, and only one
    of them in p4. So $F(h x) = h F(x)$ for the four reflections $h$ and every $F$ of p4m, and the means over the group stay
    @cohen2016group; for generic weights both fail for p4.

    Measured is the larger of the relative errors of maps and means over the elements of $D_4$, on images of white noise.
    """
    draws = torch.Generator().manual_seed(seed)
    features = network(group, depth, 1, draws)
    x = torch.randn(1, 2, 9, 9, generator=draws, device="cpu").to(torch.get_default_device())
    moves = la.actions.rotations(4, reflections=True)
    means = la.equivariance(Means(features), x, moves, layers="")
    maps = la.equivariance(features, x, moves.with_outputs(lambda h, f: transform_map(h, f, group)), layers="")
    turned = max(error for name, error in maps.errors if not name.startswith("mirrored"))
    return {"value": max(maps.worst, means.worst), "maps": maps.worst, "means": means.worst, "rotations": turned}


@claim(
    source=("edixhoven2023using", "cohen2016group"),
    predicts=AtMost("rounding(216*depth)", of="max"),
    quick=Grid(group=["p4", "p4m"], depth=[1, 2], side=[9], seeds=5),
    full=Grid(group=["p4", "p4m"], depth=[1, 2, 4], side=[9, 13, 17], seeds=20),
    controls={"an odd number of positions: one more": dict(more=1)},
)
def p4_group_conv_stride(group: str, depth: int, side: int, seed: int, more: int = 0) -> dict[str, Any]:
    r"""A stride of two keeps quarter turns on an odd number of positions and loses them on an even one.

    Keep every second position $0, 2, 4, dots$ of each row and column of $F(x)$. Of $n$ odd these lie alike on both sides of
    the centre, a rotation maps them to themselves, and $D_2 F(h x) = h D_2 F(x)$. Of $n$ even the last position is lost, the
    rotated grid holds the odd positions instead, and a network that says it commutes with rotations does not
    @edixhoven2023using.

    Measured is the largest relative error of the maps over the group; the control has one row and one column more.
    """
    draws = torch.Generator().manual_seed(seed)
    features = network(group, depth, 2, draws)
    n = side + more
    x = torch.randn(1, 2, n, n, generator=draws, device="cpu").to(torch.get_default_device())
    moves = la.actions.rotations(4, group == "p4m", outputs=lambda h, f: transform_map(h, f, group))
    found = la.equivariance(features, x, moves, layers="")
    return {"value": found.worst, "mean": found.mean.value}


if __name__ == "__main__":
    script(__file__)
