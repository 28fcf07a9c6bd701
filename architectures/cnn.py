"""Plain convolutional networks on images, a torus or a rectangle, and on one-dimensional signals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, Symmetry, cross_entropy, images, labels, normal, sampled, seeded, trivially
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    checked_name,
    checked_size,
    checked_sizes,
    initialise_,
    linear,
    resolve_activation,
    resolve_law,
)

PADDINGS = ("circular", "zeros")


class CNN(nn.Module):
    r"""Convolutions with an entrywise activation $φ$, a global mean over positions, and a linear read-out.

    $$h_l = φ(W_l ⋆ P h_{l-1} + b_l), \quad h_0 = x, \qquad f(x) = V \, \frac1{|Ω|}\sum_{p ∈ Ω} h_L(p) + c,$$
    $$(W ⋆ h)_i(p) = \sum_{j, q} W_{ij}(q) \, h_j(s p + q),$$

    where $Ω$ are the positions of the last map and $P$ pads $⌊(k-1)/2⌋$ positions before and $⌊k/2⌋$ after each side of
    the image: with those of the other end (`"circular"`: the image is a torus) or with zeros (`"zeros"`).

    Circular padding with $s = 1$ makes $h_L$ commute with every cyclic shift of the image and $f$ invariant to it
    (with stride $s$: to the shifts by multiples of $s^L$ of an image whose sides $s^L$ divides). Zero padding does not.

    Shapes: $x$: (b, $c_0$, H, W) → `features(x)`: (b, $c_L$, ⌈H/s^L⌉, ⌈W/s^L⌉) → $f(x)$: (b, classes);
    $W_l$: ($c_l$, $c_{l-1}$, k, k), $b_l$: ($c_l$,), $V$: (classes, $c_L$), $c$: (classes,); `channels` is
    $[c_0, …, c_L]$. Parameters are named `layers.0.weight`, `layers.0.bias`, …, `readout.weight`, `readout.bias`.
    Initialisation: the table of `MLP` with $n = c_{l-1} k^2$ and $m = c_l k^2$; `"orthogonal"` makes the matrix
    ($c_l$, $c_{l-1} k^2$) of the weights orthogonal, which does not make the convolution an isometry.

    Args:
        channels: $c_0, …, c_L$, at least two positive integers.
        classes: the size of the output.
        kernel: $k$, the side of the square kernel, odd or even.
        padding: `"circular"` or `"zeros"`.
        stride: $s$, of every layer.
        activation: as in `MLP`.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"` or a `Law`.
        bias: False leaves $b_l$ and $c$ out.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: a layer is $2 k^2 c_l c_{l-1} |Ω_l|$ operations an example; memory $\sum_l c_l |Ω_l|$ for a gradient.
    Left out: normalisation, skip connections, local pooling, dilation, groups.
    Source: lecun1998gradient; cohen2016group for the symmetry.

    >>> net = CNN([1, 4, 4], classes=3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(2, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> shifted = x.roll((2, 1), dims=(-2, -1))
    >>> torch.allclose(net.features(shifted), net.features(x).roll((2, 1), dims=(-2, -1)), rtol=0, atol=1e-14)
    True
    >>> torch.allclose(net(shifted), net(x), rtol=0, atol=1e-14)
    True

    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        kernel: int = 3,
        padding: str = "circular",
        stride: int = 1,
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        bias: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.channels = checked_sizes("channels", channels, least=2)
        self.kernel = checked_size("kernel", kernel)
        self.stride = checked_size("stride", stride)
        self.padding = checked_name("padding", padding, PADDINGS)
        self.activation = resolve_activation(activation)
        law = resolve_law(init)
        self.layers = nn.ModuleList()
        for c_in, c_out in zip(self.channels[:-1], self.channels[1:], strict=True):
            layer = nn.utils.skip_init(
                nn.Conv2d,
                c_in,
                c_out,
                kernel,
                stride=stride,
                bias=bias,
                dtype=dtype,
                device=device or torch.get_default_device(),
            )
            initialise_(layer, law, generator)
            self.layers.append(layer)
        classes = checked_size("classes", classes)
        self.readout = linear(self.channels[-1], classes, bias, law, dtype, device, generator)

    def features(self, x: Tensor) -> Tensor:
        """Return $h_L$, the map before pooling: (b, $c_0$, H, W) → (b, $c_L$, ⌈H/s^L⌉, ⌈W/s^L⌉).

        >>> tuple(CNN([3, 8, 8], classes=2, stride=2).features(torch.zeros(1, 3, 16, 12)).shape)
        (1, 8, 4, 3)
        """
        if x.dim() != 4 or x.shape[1] != self.channels[0]:
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but channels[0]={self.channels[0]} asks for "
                f"(batch, {self.channels[0]}, height, width)."
            )
        for layer in self.layers:
            x = self.activation(layer(self._pad(x)))  # (b c h w)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (b, $c_0$, H, W) → (b, classes)."""
        return self.readout(self.features(x).mean((-2, -1)))

    def extra_repr(self) -> str:
        """Name the padding and the activation in the printed network."""
        return f"padding={self.padding}, activation={getattr(self.activation, '__name__', self.activation)}"

    def _pad(self, x: Tensor) -> Tensor:
        before, after = (self.kernel - 1) // 2, self.kernel // 2
        if self.padding == "zeros":
            return F.pad(x, (before, after, before, after))
        if after > min(x.shape[-2:]):
            raise ArchitectureError(
                f"kernel={self.kernel} wraps more than once around a map of {x.shape[-2]}×{x.shape[-1]} positions; "
                "take a larger image, a smaller kernel or fewer strides."
            )
        return F.pad(x, (before, after, before, after), mode="circular")


class SignalCNN(nn.Module):
    r"""A convolutional network on one-dimensional signals, with strides and a read-out of all positions.

    $$h_l = φ(W_l ⋆ h_{l-1} + b_l), \quad h_0 = x, \qquad f(x) = V \, \mathrm{vec}(h_L) + c,$$
    $$(W ⋆ h)_i(p) = \sum_{j, q} W_{ij}(q) \, h_j(s p + q - 1),$$

    with a zero before and after each map and stride $s$. The read-out sees where a feature is, so that the network is
    not invariant to shifts; what it shares over positions is the kernel.

    Shapes: $x$: (b, $c_0$, T) → $f(x)$: (b, classes); $W_l$: ($c_l$, $c_{l-1}$, $k_l$), $b_l$: ($c_l$,), $V$: (classes,
    $c_L T_L$) with $T_l = ⌊(T_{l-1} + 2 - k_l)/s⌋ + 1$. Parameters are named `layers.0.weight`, …, `readout.weight`, ….
    Initialisation: the table of `MLP` with $n = c_{l-1} k_l$ and $m = c_l k_l$.

    Args:
        channels: $c_0, …, c_L$, at least two positive integers.
        length: $T$, of the signal.
        classes: the size of the output.
        kernels: $k_1, …, k_L$; with stride 2 and 25 channels, (5, 3, 3) is the network of MNIST-1D.
        stride: $s$, of every layer.
        activation: as in `MLP`.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: a layer is $2 k_l c_l c_{l-1} T_l$ operations an example.
    Left out: normalisation, pooling.
    Source: greydanus2024scaling; lecun1998gradient.

    >>> net = SignalCNN([1, 25, 25, 25], length=40, classes=10, kernels=(5, 3, 3), stride=2)
    >>> sum(p.numel() for p in net.parameters()), tuple(net(torch.zeros(7, 1, 40)).shape)
    (5210, (7, 10))

    """

    def __init__(
        self,
        channels: Sequence[int],
        length: int,
        classes: int,
        kernels: Sequence[int],
        stride: int = 1,
        activation: str | Activation = "relu",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.channels = checked_sizes("channels", channels, least=2)
        kernels = checked_sizes("kernels", kernels, least=1)
        if len(kernels) != len(self.channels) - 1:
            raise ArchitectureError(
                f"kernels={list(kernels)} has {len(kernels)} entries for {len(self.channels) - 1} layers; "
                "give one kernel for each entry of channels but the first."
            )
        self.length, stride = checked_size("length", length), checked_size("stride", stride)
        self.activation = resolve_activation(activation)
        law = resolve_law(init)
        self.layers = nn.ModuleList()
        place = device or torch.get_default_device()
        for c_in, c_out, k in zip(self.channels[:-1], self.channels[1:], kernels, strict=True):
            layer = nn.utils.skip_init(nn.Conv1d, c_in, c_out, k, stride=stride, padding=1, dtype=dtype, device=place)
            initialise_(layer, law, generator)
            self.layers.append(layer)
            length = (length + 2 - k) // stride + 1
            if length < 1:
                raise ArchitectureError(
                    f"kernel {k} does not fit the map before it; take a longer signal than length={self.length}, "
                    "smaller kernels or fewer layers."
                )
        flat = self.channels[-1] * length
        self.readout = linear(flat, checked_size("classes", classes), True, law, dtype, device, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (b, $c_0$, T) → (b, classes)."""
        if x.dim() != 3 or x.shape[1:] != (self.channels[0], self.length):
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but (batch, {self.channels[0]}, {self.length}) is asked for; "
                "a plain signal needs a channel: x.unsqueeze(1)."
            )
        for layer in self.layers:
            x = self.activation(layer(x))  # (b c t)
        return self.readout(x.flatten(1))


#: The 20 cyclic shifts of a 5 × 4 image.
_TORUS_SHIFTS = Symmetry(
    elements=tuple((down, right) for down in range(5) for right in range(4)),
    act_on_inputs=lambda g, x: x.roll(g, dims=(-2, -1)),
    act_on_outputs=trivially,
)

ENTRIES = (
    Architecture(
        name="cnn",
        family="CNN",
        build=lambda: CNN([2, 3, 3], classes=3, dtype=torch.float64, generator=seeded(4)),
        sample=images(2, 5, 4, 3),
        loss=cross_entropy,
        symmetry=_TORUS_SHIFTS,
        source="lecun1998gradient",
    ),
    Architecture(
        name="cnn-zeros",
        family="CNN",
        build=lambda: CNN([2, 3, 3], classes=3, padding="zeros", dtype=torch.float64, generator=seeded(5)),
        sample=images(2, 5, 4, 3),
        loss=cross_entropy,
        symmetry=None,
        source="lecun1998gradient",
    ),
    Architecture(
        name="signal-cnn",
        family="SignalCNN",
        build=lambda: SignalCNN(
            [1, 3, 3], 8, 3, kernels=(5, 3), stride=2, activation="tanh", dtype=torch.float64, generator=seeded(6)
        ),
        sample=sampled(lambda g: (normal(g, 3, 1, 8), labels(g, 3, 3))),
        loss=cross_entropy,
        symmetry=None,
        source="greydanus2024scaling",
    ),
)
