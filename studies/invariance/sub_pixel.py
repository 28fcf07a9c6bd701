r"""Shifts by a fraction of a pixel, and derivatives along a group.

A periodic signal with an odd number of samples can be shifted by any amount, as the band-limited function that it samples.
A linear convolution on the torus commutes with such shifts to rounding. An activation does not: it makes frequencies that the
grid cannot carry, and they come back as others @karras2021aliasfree. What is left of equivariance at the smallest shifts is the
Lie derivative of the network @gruver2023lie: it vanishes exactly where a network commutes with a whole one-parameter group, it
can be split among the layers by the chain rule, and it does not see symmetries that are discrete.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import CNN, GroupCNN, ResNet
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.invariance.sub_pixel_figures import draw_fractions, draw_layers, draw_oversampling
from lemmata.studies.invariance.translation import relative, shift

COLUMNS = 33  # odd: the alternating wave of an even grid has no shift by half a pixel
WIDEST = 0.02  # step of the differences that the others are compared with


def drawn(draws: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=draws, device="cpu").to(torch.get_default_device())


def convolved(x: Tensor, kernel: Tensor, padding: str) -> Tensor:
    """A 3 × 3 correlation on the torus, or with zeros around the image."""
    mode = "circular" if padding == "circular" else "constant"
    return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode), kernel)


@claim(
    source=("karras2021aliasfree", "gruver2023lie"),
    predicts=AtMost("rounding(72)", of="max"),
    quick=Grid(columns=[COLUMNS, 65], seeds=5),
    full=Grid(columns=[9, COLUMNS, 65, 129], seeds=40),
    controls={
        "linearity: with a rectifier": dict(rectify=True),
        "the torus: zero padding": dict(padding="zeros"),
    },
    figures=(draw_fractions,),
)
def fractional_shift_relu(columns: int, seed: int, rectify: bool = False, padding: str = "circular") -> dict[str, Any]:
    r"""A linear circular convolution commutes with shifts by fractions of a pixel.

    Let $S_t$ multiply the Fourier coefficient of frequency $omega$ by $e^(-i omega t)$, on an odd number of columns: the
    shift by $t in RR$ pixels of the band-limited function through the samples. A circular convolution $C$ is diagonal in
    the same basis, so $C S_t = S_t C$ for every $t$. A rectifier has kinks: $"relu"(S_t x)$ and $S_t "relu"(x)$ sample
    functions with different harmonics beyond the grid's, which fold back differently @karras2021aliasfree.

    Measured is the largest relative error $norm(C S_t x - S_t C x) \/ norm(C x)$ over 25 shifts from 0 to 3 pixels, white
    images of 8 channels, $3 times 3$ kernels. With a rectifier the error is about one half between the pixels.
    """
    draws = torch.Generator().manual_seed(seed)
    x, kernel = drawn(draws, 1, 8, 9, columns), drawn(draws, 8, 8, 3, 3) / sqrt(72)

    def layer(image: Tensor) -> Tensor:
        h = convolved(image, kernel, padding)
        return torch.relu(h) if rectify else h

    reference, shifts = layer(x), [t / 8 for t in range(25)]
    errors = [relative(layer(shift(x, t)), shift(reference, t)) for t in shifts]
    return {"value": max(errors), "half a pixel": errors[4], "by shift": errors, "shifts": shifts}


@claim(
    source=("karras2021aliasfree",),
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(activation=["relu", "tanh"], seeds=5),
    full=Grid(activation=["relu", "tanh", "gelu", "sin"], seeds=40),
    controls={"whole pixels: half a pixel more": dict(more=0.5)},
)
def fractional_shift_relu_pixels(activation: str, seed: int, more: float = 0.0) -> dict[str, Any]:
    r"""An entrywise activation commutes with every shift by whole pixels, without any rounding.

    For an integer $t$ the shift $S_t$ only renames the positions, so $phi(S_t x) = S_t phi(x)$ bit for bit. Measured is the
    largest difference over all shifts of a white signal; the control shifts by half a pixel more.
    """
    x = drawn(torch.Generator().manual_seed(seed), 4, COLUMNS)
    phi = {"gelu": nn.functional.gelu}.get(activation) or getattr(torch, activation)
    gaps = [(phi(shift(x, t + more)) - shift(phi(x), t + more)).abs().max() for t in range(COLUMNS)]
    return {"value": float(torch.stack(gaps).max())}


def resampled(x: Tensor, n: int) -> Tensor:
    """The band-limited function through odd columns on n columns; of frequencies that n cannot carry, none is kept."""
    return torch.fft.irfft(torch.fft.rfft(x)[..., : n // 2 + 1], n=n) * (n / x.shape[-1])


@claim(
    source=("karras2021aliasfree",),
    predicts=Scales("oversampling", power=-2, within=0.15, of="mean"),
    quick=Grid(oversampling=[3, 9, 27, 81], seeds=8),
    full=Grid(oversampling=[3, 9, 27, 81, 243], seeds=40),
    controls={
        "the low-pass filter: left out": dict(low_pass=False),
        "kinks: a smooth activation, sine": dict(activation="sin"),
    },
    figures=(draw_oversampling,),
)
def fractional_shift_relu_oversampling(
    oversampling: int, seed: int, activation: str = "relu", low_pass: bool = True
) -> dict[str, Any]:
    r"""Oversampling reduces what a rectifier does to fractional shifts, with the square of the factor.

    Interpolate the signal to $m n$ columns, $m$ the oversampling, rectify, remove the frequencies that $n$ columns cannot carry, and take $n$
    columns again @karras2021aliasfree. A function with kinks has Fourier coefficients $O(omega^(-2))$; those that fold into
    the band are near $2 pi m k$, $k != 0$, so that the error falls like $m^(-2)$. It never vanishes, but for shifts by whole
    pixels of the fine grid.

    Measured is the relative error of a shift by half a pixel, for $m$ a power of 3 ($m\/2$ is never whole), $n = 33$, white
    signals. Controls: without the filter before the subsampling, nothing is gained; the coefficients of a smooth
    function of the band-limited signal fall faster than any power.
    """
    x, n = drawn(torch.Generator().manual_seed(seed), 64, COLUMNS), COLUMNS * oversampling

    def layer(signal: Tensor) -> Tensor:
        h = getattr(torch, activation)(resampled(signal, n))
        return resampled(h, COLUMNS) if low_pass else h[..., ::oversampling]

    return {"value": relative(layer(shift(x, 0.5)), shift(layer(x), 0.5))}


@claim(
    source=("gruver2023lie",),
    predicts=AtMost("rounding(72*depth, 4)", of="max"),
    quick=Grid(generator=["x-translation", "y-translation"], depth=[1, 3], seeds=3),
    full=Grid(generator=["x-translation", "y-translation"], depth=[1, 2, 4, 8], seeds=40),
    controls={
        "linearity: with a rectifier": dict(rectify=True),
        "the torus: zero padding": dict(padding="zeros"),
        "every position is kept: stride 2": dict(stride=2),
        "translations: rotations": dict(along="rotation"),
    },
    figures=(draw_layers,),
)
def lie_derivative_lee(
    generator: str,
    depth: int,
    seed: int,
    rectify: bool = False,
    padding: str = "circular",
    stride: int = 1,
    along: str = "",
) -> dict[str, Any]:
    r"""The Lie derivative vanishes where a network commutes with a group of transformations.

    Let $V$ be the generator of $g_t = e^(t V)$ on inputs and outputs. The Lie derivative
    $ cal(L)_V f (x) = lr(d / (d t) |)_(t=0) g_(-t) f(g_t x) = D f(x) V x - V f(x) $
    vanishes at every $x$ if and only if $f g_t = g_t f$ for all $t$ @gruver2023lie. Linear convolutions on the torus commute
    with band-limited translations.

    Measured is its size relative to the output, for one pixel, on white images of $9 times 9$ pixels, with a stride of 2 doubled for
    each layer.
    In the controls it is of order one: activations make frequencies that fold, padding and strides prefer positions, and
    a convolution does not commute with rotations.
    """
    draws = torch.Generator().manual_seed(seed)
    side = 9 * stride**depth
    net = CNN(
        [4] * (depth + 1),
        1,
        padding=padding,
        stride=stride,
        activation="relu" if rectify else nn.Identity(),
        device=torch.get_default_device(),
        generator=draws,
    )
    found = la.lie_derivative(Features(net), drawn(draws, 4, 4, side, side), along or generator, probes=10, steps=())
    return {"value": found.output.value}


class Features(nn.Module):
    """A convolutional network up to its last map."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """The last map."""
        return self.net.features(x)


@claim(
    source=("gruver2023lie",),
    predicts=Scales("step", power=2, within=0.1, of="mean"),
    quick=Grid(step=[0.001, 0.002, 0.004, 0.008], generator=["rotation", "scale"], seeds=5),
    full=Grid(
        step=[0.0005, 0.001, 0.002, 0.004, 0.008], generator=["x-translation", "rotation", "scale", "x-shear"], seeds=40
    ),
    controls={
        "differences on both sides: on one side": dict(sides=1),
        "a smooth network: rectifiers": dict(activation="relu"),
    },
)
def lie_derivative_lee_differences(
    step: float, generator: str, seed: int, sides: int = 2, activation: str = "tanh"
) -> dict[str, Any]:
    r"""Forward-mode Lie derivatives are the limit of finite transformations, with an error of second order.

    For a smooth network $(g_(-h) f(g_h x) - g_h f(g_(-h) x)) \/ 2 h = cal(L)_V f(x) + O(h^2)$. The left side uses the
    network and transformed images alone; the right side one pass of forward-mode differentiation. The value is the distance
    of the two for a convolutional classifier, divided by that at $h = 0.02$. One-sided differences have an error of first
    order, and rectifiers have kinks that some units cross within any step.
    """
    draws = torch.Generator().manual_seed(seed)
    net = CNN([1, 4, 4], 3, padding="zeros", activation=activation, device=torch.get_default_device(), generator=draws)
    x = drawn(draws, 4, 1, 9, 9)
    if sides == 2:
        (_, error), (_, widest) = la.lie_derivative(net, x, generator, steps=(step, WIDEST)).differences
        return {"value": error / widest, "relative to the output": error}
    limit = la.lie_difference(net, x, generator, 1e-4)
    errors = []
    with torch.no_grad():
        for h in (step, WIDEST):
            moved = net(la.image_generator(generator, (9, 9)).flow("input", x, h))
            errors.append(float(((moved - net(x)) / h - limit).norm() / net(x).norm()))
    return {"value": errors[0] / errors[1], "relative to the output": errors[0]}


@claim(
    source=("gruver2023lie",),
    predicts=AtMost("rounding(576, 10)", of="max"),
    quick=Grid(generator=["x-translation", "rotation"], activation=["tanh", "relu"], seeds=1),
    full=Grid(generator=["x-translation", "rotation", "scale", "x-shear"], activation=["tanh", "relu"], seeds=20),
    controls={"examples that do not see each other: batch statistics": dict(norm="batch")},
)
def lie_derivative_lee_layers(generator: str, activation: str, seed: int, norm: str = "group") -> dict[str, Any]:
    r"""The Lie derivative is a sum over the layers.

    By the chain rule, for $f = f_L compose dots compose f_1$ with inner maps $h_l$,
    $ cal(L)_V f (x) = sum_l D (f_L compose dots compose f_(l+1)) (h_l) thin cal(L)_V f_l (h_(l-1)), $
    whatever the action of the group on the inner maps is taken to be @gruver2023lie. So each layer has a share of the
    error, also in networks with branches.

    Measured is the relative distance between the two sides for a residual network: the left from one forward-mode pass, the
    right from another in which the tangent of every inner map is set to $V h_l$ before it goes on, and backward passes from
    there to the output. With statistics of the batch a layer's defect in one image reaches the outputs of the others.
    """
    draws = torch.Generator().manual_seed(seed)
    net = ResNet(
        [1, 4, 8], 3, norm=norm, groups=2, activation=activation, device=torch.get_default_device(), generator=draws
    )
    return {"value": la.lie_derivative(net, drawn(draws, 4, 1, 9, 9), generator, steps=()).chain}


@claim(
    source=("gruver2023lie", "cohen2016group"),
    predicts=AtLeast(0.25, of="mean"),
    quick=Grid(depth=[1, 2], seeds=90),
    full=Grid(depth=[1, 2, 4], seeds=200),
    controls={"quarter turns alone: invariant to every turn": dict(every=True)},
)
def lie_derivative_lee_discrete(depth: int, seed: int, every: bool = False) -> dict[str, Any]:
    r"""Discrete symmetries are invisible to the Lie derivative.

    The Lie derivative belongs to the connected component of a group. A network of group convolutions is invariant to quarter
    turns to rounding @cohen2016group; along rotations its Lie derivative need not be small.

    Measured is the size of that derivative, relative to how much the output varies over white images, divided by the same
    for an ordinary convolutional network of the same widths. If quarter turns showed, the ratio would be at rounding; the
    statement is that its mean over draws of both networks is at least a quarter. Both are central differences of finite
    rotations, which cost two passes. The control reads the means of the images alone, which no rotation changes.
    """
    draws = torch.Generator().manual_seed(seed)
    where = torch.get_default_device()
    net = GroupCNN([1] + [12] * depth, 32, device=where, generator=draws)
    plain = CNN([1] + [12] * depth, 32, device=where, generator=draws)
    x = drawn(draws, 24, 1, 9, 9)
    model = nn.Sequential(Mean(), net) if every else net
    with torch.no_grad():
        sizes = [float(la.lie_difference(one, x, "rotation", 1e-4).norm()) for one in (model, plain)]
        outputs = [net(x), plain(x)]
        turned = relative(net(x.rot90(1, (-2, -1))), outputs[0])
    spread = [float((y - y.mean(0)).norm()) for y in outputs]
    own, others = (size / width for size, width in zip(sizes, spread, strict=True))
    return {"value": own / others, "quarter turn": turned, "group convolutions": own, "ordinary ones": others}


class Mean(nn.Module):
    """Every pixel replaced by the image's mean."""

    def forward(self, x: Tensor) -> Tensor:
        """Constant images."""
        return x.mean((-2, -1), keepdim=True).expand_as(x)


if __name__ == "__main__":
    script(__file__)
