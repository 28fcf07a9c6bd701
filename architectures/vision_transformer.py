r"""A transformer that classifies images cut into patches."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ._entry import Architecture, cross_entropy, labels, normal, sampled, seeded
from ._pieces import Activation, ArchitectureError, Law, Maker, checked_name, checked_size, resolve_law
from .transformer import Encoder, stirred

POOLS = ("class", "mean")


def patches(x: Tensor, side: int) -> Tensor:
    """Cut images into squares, row by row: (b, c, H, W) → (b, H/p · W/p, c p p), p = `side`.

    >>> patches(torch.arange(16.0).view(1, 1, 4, 4), 2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
    """
    x = x.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))  # (b c H/p p W/p p)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class VisionTransformer(nn.Module):
    r"""An encoder of patches, read out at a class token or at the mean of the patches.

    $$x_i = U \, \mathrm{patch}_i + a, \qquad y = \mathrm{Encoder}([x_{\text{class}}, x_1, …, x_n] + e), \qquad
    f = V y_0 + c \;\text{ or }\; V \, \frac1n \sum_i y_i + c,$$

    without $x_{\text{class}}$ for `pool="mean"`; $e$ as in `Positions`.

    Shapes: (b, channels, size, size) → (b, classes); $n = (\mathrm{size}/\mathrm{patch})^2$; `embed.weight`:
    (d, channels patch²). Parameters: `embed`, `class_token` (d,), `encoder` (with `encoder.positions.table`),
    `readout`. Initialisation: matrices by `init` (`"glorot"`: Var $W_{ij} = 2/(n + m)$), biases 0; learned positions
    and class token $N(0, 0.02^2)$.

    Args:
        size: the side of the square image.
        patch: the side of a patch, a divisor of `size`.
        channels: of the image.
        width: $d$.
        heads: a divisor of $d$.
        layers: of the encoder.
        classes: the size of the output.
        hidden: as in `Encoder`.
        pool: `"class"` or `"mean"`.
        norm: as in `Encoder`.
        activation: as in `MLP`.
        positions: `"learned"`, `"sinusoidal"`, `"rotary"` (both along the rows of patches) or `"none"`.
        init: as in `Encoder`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's shape, is not what it must be.

    Cost: $2 n d \, \mathrm{channels} \, \mathrm{patch}^2$ operations an image and those of `Encoder` at length $n + 1$.
    Left out: dropout, a hidden layer in the read-out, interpolation to other sizes.
    Source: dosovitskiy2021image.

    >>> net = VisionTransformer(8, 4, channels=1, width=8, heads=2, layers=1, classes=10)
    >>> tuple(net(torch.zeros(3, 1, 8, 8)).shape), tuple(net.encoder.positions.table.shape)
    ((3, 10), (5, 8))

    """

    def __init__(
        self,
        size: int,
        patch: int,
        channels: int,
        width: int,
        heads: int,
        layers: int,
        classes: int,
        hidden: int | None = None,
        pool: str = "class",
        norm: str = "pre",
        activation: str | Activation = "gelu",
        positions: str = "learned",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.size, self.patch = checked_size("size", size), checked_size("patch", patch)
        if size % patch:
            raise ArchitectureError(f"patch={patch} does not divide size={size}: the image cannot be cut into squares.")
        self.channels, self.pool = checked_size("channels", channels), checked_name("pool", pool, POOLS)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        self.embed = make.linear(channels * patch**2, checked_size("width", width), law)
        if pool == "class":
            self.class_token = make.normal((width,), 0.02**2)
        length = (size // patch) ** 2 + (pool == "class")
        stack = partial(Encoder, width, heads, layers, hidden, norm, activation, positions, length)
        self.encoder = stack(init=init, dtype=dtype, device=device, generator=generator)
        self.readout = make.linear(width, checked_size("classes", classes), law)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (b, channels, size, size) → (b, classes)."""
        shape = (self.channels, self.size, self.size)
        if x.dim() != 4 or tuple(x.shape[1:]) != shape:
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but channels={self.channels} and size={self.size} ask for "
                f"(batch, {', '.join(map(str, shape))})."
            )
        x = self.embed(patches(x, self.patch))  # (b n d)
        if self.pool == "mean":
            return self.readout(self.encoder(x).mean(1))
        first = self.class_token.expand(x.shape[0], 1, -1)  # (b 1 d)
        return self.readout(self.encoder(torch.cat([first, x], 1))[:, 0])

    def extra_repr(self) -> str:
        """Name the patch and the pooling in the printed network."""
        return f"patch={self.patch}, pool={self.pool}"


#: What makes the vectors that the first layer sees.
_FIRST = ("embed.weight", "embed.bias", "class_token", "encoder.positions.table")


def _entry(name: str, seed: int, pool: str) -> Architecture:
    return Architecture(
        name=name,
        family="VisionTransformer",
        build=lambda: stirred(
            VisionTransformer(4, 2, 1, 4, 2, 1, 3, 8, pool, dtype=torch.float64, generator=seeded(seed)), seed, _FIRST
        ),
        sample=sampled(lambda g: (3 * normal(g, 3, 1, 4, 4), labels(g, 3, 3))),
        loss=cross_entropy,
        symmetry=None,
        source="dosovitskiy2021image",
    )


ENTRIES = (_entry("vision-transformer", 61, "class"), _entry("vision-transformer-mean", 62, "mean"))
