r"""When a convolutional network commutes with translations, and what subsampling does to it.

Convolution on a torus followed by an entrywise activation commutes with every cyclic shift
@lecun1989backpropagation @cohen2016group @kondor2018generalization. Two everyday choices break this: padding with zeros,
and strides @azulay2019why. A stride keeps the shifts by its multiples and folds high frequencies onto low ones for the
others; a low-pass filter before subsampling reduces the error @zhang2019making by a factor known in closed form, and only
a band-limited signal path removes it @karras2021aliasfree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.architectures import CNN
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script


def shift(x: Tensor, t: float) -> Tensor:
    """Band-limited cyclic shift by t positions along the last axis; for integer t the ordinary cyclic shift."""
    if float(t).is_integer():
        return x.roll(int(t), dims=-1)
    frequencies = torch.fft.rfftfreq(x.shape[-1], device=x.device)
    return torch.fft.irfft(torch.fft.rfft(x) * torch.exp(-2j * torch.pi * t * frequencies), n=x.shape[-1])


def relative(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    return ((a - b).norm() / b.norm()).item()


def with_position(x: Tensor) -> Tensor:
    """The image with its first channel replaced by the column's position in [−1, 1]."""
    ramp = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device).expand(x[:, :1].shape)
    return torch.cat([ramp, x[:, 1:]], dim=1)


def draw_shifts(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Relative equivariance error against the shift: circular padding, zero padding, and a positional channel.

    Logarithmic vertical axis. With circular padding the error is at rounding for every shift; with zero padding and with a
    positional channel it is of order one tenth to one for every shift but zero.
    """
    columns: dict[str, Sequence[float]] = {}
    first = rows[0].point
    for row in rows:
        if row.point == first and row.k == 0:
            errors = np.maximum(row.values["by shift"], 1e-17)
            columns["shift"] = list(range(len(errors)))
            label = row.arm.partition(": ")[2] or "circular padding"
            columns[label] = list(errors)
            ax.semilogy(columns["shift"], errors, marker="o", label=label)
    ax.set(xlabel="horizontal shift", ylabel="relative error")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("lecun1989backpropagation", "cohen2016group", "kondor2018generalization"),
    predicts=AtMost("rounding(72*depth)", of="max"),
    quick=Grid(depth=[1, 3], activation=["relu", "tanh"], seeds=5),
    full=Grid(depth=[1, 2, 4, 8], activation=["relu", "tanh", "gelu"], seeds=20),
    controls={
        "the torus: zero padding": dict(padding="zeros"),
        "weights shared over positions: a positional channel": dict(positional=True),
    },
    figures=(draw_shifts,),
)
def conv_translation_equivariance(
    depth: int, activation: str, seed: int, padding: str = "circular", positional: bool = False
) -> dict[str, Any]:
    r"""Circular convolution commutes with every shift.

    Let $S_t$, $t in ZZ_n times ZZ_n$, shift an image cyclically, and let $F$ be a composition of convolutions with stride
    one on the torus $ZZ_n times ZZ_n$ and entrywise activations. Then $F S_t = S_t F$ for all $t$
    @cohen2016group @kondor2018generalization.

    Measured is the largest relative error $norm(F S_t x - S_t F x) \/ norm(F x)$ over all shifts of an image of
    $9 times 9$ pixels and 8 channels, $3 times 3$ kernels, 72 terms a sum. The controls keep the weights: zeros instead of
    the torus around the image, or one input channel that tells the column and does not move with the image.
    """
    draws = torch.Generator().manual_seed(seed)
    device = torch.get_default_device()
    net = CNN([8] * (depth + 1), 1, padding=padding, activation=activation, device=device, generator=draws)
    x = torch.randn(1, 8, 9, 9, generator=draws, device="cpu").to(device)

    def features(image: Tensor) -> Tensor:
        return net.features(with_position(image) if positional else image)

    with torch.no_grad():
        reference = features(x)
        errors = [
            [relative(features(x.roll((i, j), (-2, -1))), reference.roll((i, j), (-2, -1))) for j in range(9)]
            for i in range(9)
        ]
        single = relative(net.float().features(x.float().roll(1, -1)), net.features(x.float()).roll(1, -1))
    return {"value": np.max(errors), "by shift": errors[0], "single precision": single}


@claim(
    source=("azulay2019why", "zhang2019making"),
    predicts=AtMost("rounding(72*depth)", of="max"),
    quick=Grid(stride=[2, 3], depth=[1, 2], seeds=5),
    full=Grid(stride=[2, 3, 4], depth=[1, 2], seeds=20),
    controls={
        "shifts by multiples of the stride: one pixel more": dict(more=1),
        "the torus: zero padding": dict(padding="zeros"),
    },
)
def stride_aliasing_multiples(
    stride: int, depth: int, seed: int, more: int = 0, padding: str = "circular"
) -> dict[str, Any]:
    r"""A strided network commutes with the shifts by multiples of its total stride.

    Let $F$ be $L$ circular convolutions of stride $s$ with entrywise activations, on images whose sides $s^L$ divides.
    Then $F S_(s^L j) = S_j F$ for every integer $j$. For other shifts the output would have to move by a fraction of a
    position, and no such law holds @azulay2019why.

    Measured is the largest relative error $norm(F S_t x - S_(t \/ s^L) F x) \/ norm(F x)$ over $t = s^L j$ along the
    columns. The control takes $t = s^L j + 1$ and moves the output by $t\/s^L$ positions as a band-limited signal.
    """
    draws = torch.Generator().manual_seed(seed)
    device = torch.get_default_device()
    net = CNN([8] * (depth + 1), 1, padding=padding, stride=stride, activation="relu", device=device, generator=draws)
    total, side = stride**depth, 5 if depth == 1 else 3
    x = torch.randn(2, 8, side * total, side * total, generator=draws, device="cpu").to(device)
    with torch.no_grad():
        reference = net.features(x)
        shifts = [total * j + more for j in range(side)]
        errors = [relative(net.features(shift(x, t)), shift(reference, t / total)) for t in shifts]
    return {"value": max(errors), "mean": sum(errors) / len(errors)}


def ideal_low_pass(x: Tensor, stride: int) -> Tensor:
    """Keep the column frequencies that a grid coarser by `stride` can carry."""
    spectrum = torch.fft.rfft(x)
    spectrum[..., (x.shape[-1] // stride - 1) // 2 + 1 :] = 0
    return torch.fft.irfft(spectrum, n=x.shape[-1])


def binomial_low_pass(x: Tensor, taps: int) -> Tensor:
    """Cyclic filter of the binomial coefficients [1], [1 2 1]/4, [1 4 6 4 1]/16, … along the columns."""
    for _ in range((taps - 1) // 2):
        x = (x.roll(1, -1) + 2 * x + x.roll(-1, -1)) / 4
    return x


def blur(x: Tensor, low_pass: str, stride: int) -> Tensor:
    """The named low-pass filter: "ideal", "none", or the number of binomial taps."""
    if low_pass == "ideal":
        return ideal_low_pass(x, stride)
    return x if low_pass == "none" else binomial_low_pass(x, int(low_pass))


def draw_aliasing(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Relative error against the shift for a stride of four: longer filters help, only the ideal one cures.

    Every curve is zero at the multiples of four. In between the error is about one and a half without a filter, smaller
    with three and five taps, near one half for the ideal filter followed by a rectifier, and zero for the ideal filter.
    """
    columns: dict[str, Sequence[float]] = {}
    for row in rows:
        if row.point["stride"] == 4 and row.k == 0:
            label = row.arm.partition(": ")[2] or "ideal filter"
            errors = row.values["by shift"]
            columns["shift"], columns[label] = list(range(len(errors))), list(errors)
            ax.plot(columns["shift"], errors, marker="o", markersize=4, label=label)
    ax.set(xlabel="horizontal shift", ylabel="relative error", ylim=(-0.05, 2.1))
    ax.legend(fontsize="small", ncols=2, loc="upper center")
    return columns


@claim(
    source=("karras2021aliasfree", "zhang2019making"),
    predicts=AtMost("rounding(72*stride)", of="max"),
    quick=Grid(stride=[2, 4], seeds=5),
    full=Grid(stride=[2, 3, 4, 8], seeds=20),
    controls={
        "band limit: no filter": dict(low_pass="none"),
        "band limit: three taps": dict(low_pass="3"),
        "band limit: five taps": dict(low_pass="5"),
        "linearity: a rectifier after the ideal filter": dict(rectify=True),
    },
    figures=(draw_aliasing,),
)
def stride_aliasing_ideal(stride: int, seed: int, low_pass: str = "ideal", rectify: bool = False) -> dict[str, Any]:
    r"""An ideal low-pass filter makes a linear strided convolution commute with every shift.

    Let $F = D_s P C$: a circular convolution $C$ on $n = s m$ columns, $m$ odd, the projection $P$ on the frequencies
    $abs(omega) < pi\/s$, and subsampling $D_s$ to every $s$-th column. Then $F S_t = S_(t \/ s) F$ for every integer $t$, where
    $S_(t \/ s)$ moves a band-limited signal by $t\/s$ positions (a phase $e^(-i omega t\/s)$ in Fourier space): the sampling
    theorem @karras2021aliasfree.

    Measured is the largest relative error over the shifts $0, dots, 2 s$. Finite filters only attenuate what is folded, and
    a rectifier between filter and subsampling makes new high frequencies.
    """
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 8, 6, 9 * stride, generator=draws, device="cpu").to(torch.get_default_device())
    kernel = torch.randn(8, 8, 3, 3, generator=draws, device="cpu").to(x) / 72**0.5

    def layer(image: Tensor) -> Tensor:
        convolved = torch.nn.functional.conv2d(torch.nn.functional.pad(image, (1, 1, 1, 1), "circular"), kernel)
        low = blur(convolved, low_pass, stride)
        return (torch.relu(low) if rectify else low)[..., ::stride]

    errors = [relative(layer(shift(x, t)), shift(layer(x), t / stride)) for t in range(2 * stride + 1)]
    return {"value": max(errors), "by shift": errors}


def draw_filters(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Aliasing error of a stride of two against the length of the binomial filter; the curve is the closed form.

    Squared relative error for a shift by one pixel, logarithmic axis, falling from two without a filter to a few per cent
    with seven taps. The measured means lie on the theoretical curve.
    """
    from scipy import stats

    taps = sorted({row.point["taps"] for row in rows})
    own = [[row.values["value"] for row in rows if row.arm == "" and row.point["taps"] == t] for t in taps]
    columns = {
        "taps": taps,
        "measured": [float(np.mean(values)) for values in own],
        "theory": [float(4 * stats.beta(t - 0.5, 0.5).cdf(0.5)) for t in taps],
    }
    ax.semilogy(taps, columns["theory"], color="0.6", label="theory")
    ax.semilogy(taps, columns["measured"], "o", label="measured")
    ax.set(xlabel="taps of the filter", ylabel="squared relative error", xticks=taps)
    ax.legend()
    return columns


@claim(
    source=("zhang2019making", "azulay2019why"),
    predicts=Equals(
        "4 * stats.beta(taps - 0.5, 0.5).cdf(0.5)", within="0.2 * stats.beta(taps - 0.5, 0.5).cdf(0.5)", of="mean"
    ),
    quick=Grid(taps=[1, 3, 5, 7], seeds=10),
    full=Grid(taps=[1, 3, 5, 7, 9], seeds=40),
    controls={
        "white noise: a band-limited image": dict(image="band-limited"),
        "the filter comes before the subsampling: it comes after": dict(order="after"),
    },
    figures=(draw_filters,),
)
def stride_aliasing_blur(taps: int, seed: int, image: str = "white", order: str = "before") -> dict[str, Any]:
    r"""A binomial filter before a stride of two reduces the aliasing by a factor from the beta distribution.

    Filter a white image along its columns with the binomial coefficients $[1]$, $[1 thin 2 thin 1]\/4$,
    $[1 thin 4 thin 6 thin 4 thin 1]\/16$, …, of $T$ taps, and keep every second column: $F = D_2 H$. For a shift by one
    pixel, as the number of columns grows,
    $ frac(norm(F S_1 x - S_(1\/2) F x)^2, norm(F x)^2) --> 4 thin I_(1\/2) (T - 1/2, 1/2), $
    $I$ the regularised incomplete beta function. For $abs(hat(H) (omega))^2 = cos^(2 T - 2) (omega\/2)$ makes
    $cos^2 (omega\/2)$ a beta variable under the spectrum of $H x$, the part with $cos^2 < 1\/2$ is folded, and a folded
    component comes out with the opposite sign. The squared error is 2, 0.302, 0.060, 0.013 for $T = 1, 3, 5, 7$: it falls
    with every tap @zhang2019making and is never zero @azulay2019why.
    """
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(512, 2 * 255, generator=draws, device="cpu").to(torch.get_default_device())
    if image == "band-limited":
        x = ideal_low_pass(x, 2)

    def layer(signal: Tensor) -> Tensor:
        return binomial_low_pass(signal, taps)[:, ::2] if order == "before" else binomial_low_pass(signal[:, ::2], taps)

    return {"value": relative(layer(shift(x, 1)), shift(layer(x), 0.5)) ** 2}


if __name__ == "__main__":
    script(__file__)
