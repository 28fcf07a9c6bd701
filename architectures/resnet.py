r"""The residual network of basic blocks, with no normalisation, group normalisation or batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, Exemption, cross_entropy, images, normal, seeded
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_size,
    checked_sizes,
    initialise_,
    resolve_activation,
    resolve_law,
)
from .normalisation import STATISTICS, BatchNorm, GroupNorm, check_map

NORMS = ("none", "group", "batch")


class BasicBlock(nn.Module):
    r"""Two 3 × 3 convolutions and a shortcut.

    $$y = φ(S x + N_2 W_2 ⋆ φ(N_1 W_1 ⋆_s x)),$$

    where $⋆_s$ is a convolution of stride $s$ with one zero around the image, $N_i$ a normalisation (without one:
    $N_i z = z + b_i$), and the shortcut $S$ has no parameters (option A): every $s$-th position, and zeros for the new
    channels.

    Shapes: $x$: (b, c, H, W) → $y$: (b, c', ⌈H/s⌉, ⌈W/s⌉), c' ≥ c; $W_1$: (c', c, 3, 3), $W_2$: (c', c', 3, 3).
    Parameters are named `conv1.weight`, `norm1.weight`, `norm1.bias`, `conv2.weight`, …, without a normalisation
    `conv1.weight`, `conv1.bias`, ….
    Initialisation: `init` for $W_i$ (by default He's, 2/(9c)) and, as their bias, for β or $b_i$; $γ = 1$.

    Args:
        c_in: c.
        c_out: c'.
        stride: $s$.
        norm: `"none"`, `"group"` or `"batch"`.
        groups: of a group normalisation.
        statistics: `"batch"` or `"frozen"`, of a batch normalisation.
        activation: $φ$, as in `MLP`; the paper's is relu.
        init: `"he"`, `"default"`, `"lecun"`, `"glorot"`, `"orthogonal"` or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: $18 c' (c + c')$ operations a position of $y$ and example.
    Left out: the shortcut with a projection (option B), bottlenecks, pre-activation.
    Source: he2016deep.

    >>> block = BasicBlock(1, 2, stride=2, norm="none")
    >>> _ = [p.data.zero_() for p in block.parameters()]
    >>> block(torch.arange(16.0).view(1, 1, 4, 4)).tolist()
    [[[[0.0, 2.0], [8.0, 10.0]], [[0.0, 0.0], [0.0, 0.0]]]]

    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int = 1,
        norm: str = "batch",
        groups: int = 1,
        statistics: str = "batch",
        activation: str | Activation = "relu",
        init: str | Law = "he",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if checked_size("c_in", c_in) > checked_size("c_out", c_out):
            raise ArchitectureError(
                f"c_out={c_out} is less than c_in={c_in}: the shortcut adds channels, it cannot drop any; "
                "let the widths grow."
            )
        self.stride, self.c_in, self.c_out = checked_size("stride", stride), c_in, c_out
        self.activation = resolve_activation(activation)
        make = Maker(dtype, device, generator)
        settings: dict[str, Any] = {
            "norm": norm,
            "groups": groups,
            "statistics": statistics,
            "law": resolve_law(init),
            "make": make,
        }
        self.conv1, self.norm1 = _convolution(c_in, c_out, stride, **settings)
        self.conv2, self.norm2 = _convolution(c_out, c_out, 1, **settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return $y$: (b, c, H, W) → (b, c', ⌈H/s⌉, ⌈W/s⌉)."""
        check_map(x, self.c_in)
        inner = self.activation(self.norm1(self.conv1(x)))  # (b c' h/s w/s)
        return self.activation(self.shortcut(x) + self.norm2(self.conv2(inner)))

    def shortcut(self, x: Tensor) -> Tensor:
        """Return $S x$: (b, c, H, W) → (b, c', ⌈H/s⌉, ⌈W/s⌉).

        >>> BasicBlock(1, 2).shortcut(torch.ones(1, 1, 1, 1)).flatten().tolist()
        [1.0, 0.0]
        """
        x = x if self.stride == 1 else x[..., :: self.stride, :: self.stride]
        return x if self.c_in == self.c_out else F.pad(x, (0, 0, 0, 0, 0, self.c_out - self.c_in))


class ResNet(nn.Module):
    r"""The residual network for small images: a convolution, stages of basic blocks, a mean, a linear read-out.

    $$h_0 = φ(N W ⋆ x), \quad h_l = B_l(h_{l-1}), \qquad f(x) = V \, \frac1{|Ω|}\sum_{p ∈ Ω} h_L(p) + c,$$

    where $B_l$ is a `BasicBlock` and $Ω$ are the positions of the last map. Stage $i$ has `blocks` blocks of $c_i$
    channels; the first of every stage but the first has stride 2. With three stages of $n$ blocks the depth is $6n + 2$.

    Shapes: $x$: (b, $c_0$, H, W) → `features(x)`: (b, $c_S$, ⌈H/2^{S-1}⌉, ⌈W/2^{S-1}⌉) → $f(x)$: (b, classes);
    `channels` is $[c_0, …, c_S]$, $S$ the number of stages. Parameters are named `conv.weight`, `norm.weight`,
    `norm.bias` (or `conv.bias`), `blocks.0.conv1.weight`, …, `readout.weight`, `readout.bias`.
    Initialisation: `init` for every weight, by default He's, 2/fan_in; $γ = 1$; β and biases zero unless `init` gives
    them a variance. Without a normalisation, He's law with relu multiplies $E h^2$ by 1.5 to 3 with every block.

    Args:
        channels: $c_0, …, c_S$, not decreasing from $c_1$ on.
        classes: the size of the output.
        blocks: in each stage.
        norm: `"none"`, `"group"` or `"batch"`.
        groups: of a group normalisation; divides every $c_i$, $i ≥ 1$.
        statistics: `"batch"` (those of the batch, as in training) or `"frozen"` (what `calibrate` has set).
        activation: $φ$, as in `MLP`; the paper's is relu.
        init: `"he"`, `"default"`, `"lecun"`, `"glorot"`, `"orthogonal"` or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of its blocks; $h_l$ and the maps inside each block are kept for a gradient.
    Left out: the stem and the bottlenecks for large images, projections in shortcuts, weight decay.
    Source: he2016deep; ioffe2015batch and wu2018group for the normalisations.

    >>> sum(p.numel() for p in ResNet([3, 16, 32, 64], classes=10, blocks=3).parameters())  # ResNet-20: 0.27 million
    269722

    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        blocks: int = 1,
        norm: str = "batch",
        groups: int = 1,
        statistics: str = "batch",
        activation: str | Activation = "relu",
        init: str | Law = "he",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.channels = checked_sizes("channels", channels, least=2)
        self.activation = resolve_activation(activation)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        settings: dict[str, Any] = {"norm": norm, "groups": groups, "statistics": statistics}
        width = self.channels[1]
        self.conv, self.norm = _convolution(self.channels[0], width, 1, law=law, make=make, **settings)
        placed: dict[str, Any] = {
            "activation": activation,
            "init": law,
            "dtype": dtype,
            "device": device,
            "generator": generator,
        }
        self.blocks = nn.ModuleList()
        for stage, c_out in enumerate(self.channels[1:]):
            for block in range(checked_size("blocks", blocks)):
                stride = 2 if stage > 0 and block == 0 else 1
                self.blocks.append(BasicBlock(width, c_out, stride, **settings, **placed))
                width = c_out
        self.readout = make.linear(width, checked_size("classes", classes), law)

    def features(self, x: Tensor) -> Tensor:
        """Return $h_L$, the map before pooling.

        >>> tuple(ResNet([3, 4, 8], classes=2).features(torch.zeros(1, 3, 9, 8)).shape)
        (1, 8, 5, 4)
        """
        check_map(x, self.channels[0])
        x = self.activation(self.norm(self.conv(x)))  # (b c1 h w)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (b, $c_0$, H, W) → (b, classes)."""
        return self.readout(self.features(x).mean((-2, -1)))

    def use_statistics(self, statistics: str) -> ResNet:
        """Make every batch normalisation use `"batch"` or `"frozen"` statistics; return the network.

        >>> ResNet([1, 2], classes=2).use_statistics("frozen").norm.statistics
        'frozen'
        """
        checked_name("statistics", statistics, STATISTICS)
        for norm in self._batch_norms():
            norm.statistics = statistics
        return self

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> ResNet:
        """Set every layer's frozen statistics to those of one pass of the batch $x$ with batch statistics.

        >>> net = ResNet([1, 2], classes=2).calibrate(torch.randn(4, 1, 5, 5))
        >>> bool((net.norm.mean != 0).all())
        True
        """
        norms = self._batch_norms()
        before = [norm.statistics for norm in norms]
        hooks = [norm.register_forward_pre_hook(lambda norm, args: norm.calibrate(*args)) for norm in norms]
        try:
            self.use_statistics("batch").features(x)
        finally:
            for norm, statistics, hook in zip(norms, before, hooks, strict=True):
                norm.statistics = statistics
                hook.remove()
        return self

    def _batch_norms(self) -> list[BatchNorm]:
        return [module for module in self.modules() if isinstance(module, BatchNorm)]


def _convolution(
    c_in: int, c_out: int, stride: int, norm: str, groups: int, statistics: str, law: Law, make: Maker
) -> tuple[nn.Conv2d, nn.Module]:
    """Make a 3 × 3 convolution and what normalises it; the law's bias variance is that of the bias or of β."""
    checked_name("norm", norm, NORMS)
    checked_name("statistics", statistics, STATISTICS)
    checked_size("groups", groups)
    device = make.device or torch.get_default_device()
    conv = nn.utils.skip_init(
        nn.Conv2d, c_in, c_out, 3, stride=stride, padding=1, bias=norm == "none", dtype=make.dtype, device=device
    )
    initialise_(conv, law, make.generator)
    placed: dict[str, Any] = {"dtype": make.dtype, "device": make.device, "generator": make.generator}
    shift: dict[str, Any] = {"bias_variance": law.bias_variance(9 * c_in, 9 * c_out), **placed}
    made: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "group": lambda: GroupNorm(c_out, groups, **shift),
        "batch": lambda: BatchNorm(c_out, statistics, **shift),
    }
    return conv, made[norm]()


def _tiny(norm: str, seed: int, statistics: str = "batch") -> ResNet:
    """Draw wide weights: a normalised network depends on their directions, which a step of fixed size turns less."""
    law = Law("wide", lambda n, m: 8 / n, lambda n, m: 0.1)
    generator = seeded(seed)
    settings: dict[str, Any] = {"norm": norm, "statistics": statistics, "activation": "tanh", "init": law}
    net = ResNet([2, 1, 2, 3], 3, **settings, dtype=torch.float64, generator=generator)
    return net.calibrate(normal(generator, 8, 2, 8, 6))


_BATCH_MIXES = Exemption(
    checks=("batch of one",),
    error="relative error",
    reason="batch statistics: an example's output depends on the others of its batch",
)

ENTRIES = tuple(
    Architecture(
        name=f"resnet-{name}",
        family="ResNet",
        build=build,
        sample=images(2, 8, 6, 3),
        loss=cross_entropy,
        symmetry=None,
        source="he2016deep",
        exempt=exempt,
    )
    for name, build, exempt in (
        ("none", lambda: _tiny("none", 35), ()),
        ("group", lambda: _tiny("group", 38), ()),
        ("batch", lambda: _tiny("batch", 33), (_BATCH_MIXES,)),
        ("frozen", lambda: _tiny("batch", 31, "frozen"), ()),
    )
)
