r"""Batch and group normalisation of images, as layers of their own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._pieces import ArchitectureError, Maker, checked_name, checked_size

STATISTICS = ("batch", "frozen")


class BatchNorm(nn.Module):
    r"""Batch normalisation whose statistics are said: those of the batch, or frozen ones.

    $$y = γ \frac{x - μ}{\sqrt{σ^2 + ε}} + β,$$

    channel by channel, with $μ, σ^2$ the mean and the (biased) variance over the batch and the positions
    (`statistics="batch"`, torch's training mode) or the buffers `mean`, `variance` (`"frozen"`, torch's evaluation
    mode). `forward` never changes the buffers and does not ask whether the module is training: `calibrate` sets them.

    Shapes: $x$: (b, c, H, W) → $y$: (b, c, H, W); $γ$, $β$, μ, σ²: (c,), named `weight`, `bias`, `mean`, `variance`.
    Initialisation: $γ = 1$, $β ∼ N(0, \mathrm{bias\_variance})$, by default 0; μ = 0, σ² = 1.

    Args:
        channels: c.
        statistics: `"batch"` or `"frozen"`; also an attribute that may be set later.
        eps: ε.
        bias_variance: of β's initial entries.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Batch statistics are taken with `F.group_norm`, each channel of the whole batch a group: torch's own batch
    normalisation is wrong in some second derivatives, its group normalisation is right in all.

    Cost: three passes over $x$. With `"batch"` the examples of a batch are not independent of one another.
    Left out: the moving average over training steps (calibrate on a batch at the end instead).
    Source: ioffe2015batch.

    >>> x = torch.tensor([-2.0, 2.0]).view(2, 1, 1, 1)
    >>> norm = BatchNorm(1, eps=0.0)
    >>> norm(x).flatten().tolist()
    [-1.0, 1.0]
    >>> norm.statistics = "frozen"
    >>> norm(x).flatten().tolist()
    [-2.0, 2.0]

    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        channels: int,
        statistics: str = "batch",
        eps: float = 1e-5,
        bias_variance: float = 0.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        make = Maker(dtype, device, generator)
        shape = (checked_size("channels", channels),)
        self.statistics = checked_name("statistics", statistics, STATISTICS)
        self.eps = eps
        self.weight = make.full(shape, 1.0)
        self.bias = make.normal(shape, bias_variance)
        self.register_buffer("mean", torch.zeros_like(self.weight.detach()))
        self.register_buffer("variance", torch.ones_like(self.weight.detach()))

    def forward(self, x: Tensor) -> Tensor:
        """Return $y$: (b, c, H, W) → (b, c, H, W)."""
        check_map(x, self.weight.numel())
        if checked_name("statistics", self.statistics, STATISTICS) == "batch":
            _check_count(x, x.shape[1])
            rows = x.transpose(0, 1).flatten(1)  # (c bhw): statistics by row are those of c groups of one channel
            y = F.group_norm(rows.unsqueeze(0), len(rows), self.weight, self.bias, self.eps)
            return y.view(-1, len(x), *x.shape[2:]).transpose(0, 1).contiguous()
        scale = self.weight * (self.variance + self.eps).rsqrt()  # (c)
        return torch.addcmul(_wide(self.bias), x - _wide(self.mean), _wide(scale))  # (b c h w)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set `mean` and `variance` to the batch's mean and unbiased variance, as torch does with momentum 1.

        >>> norm = BatchNorm(1)
        >>> norm.calibrate(torch.tensor([-2.0, 2.0]).view(2, 1, 1, 1))
        >>> norm.mean.item(), norm.variance.item()
        (0.0, 8.0)
        """
        check_map(x, self.weight.numel())
        _check_count(x, x.shape[1])
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=1)
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    def extra_repr(self) -> str:
        """Name the size and the statistics in the printed network."""
        return f"{self.weight.numel()}, statistics={self.statistics}"


class GroupNorm(nn.Module):
    r"""Group normalisation: each example's channels are normalised in groups, over channels and positions.

    $$y = γ \frac{x - μ_g}{\sqrt{σ_g^2 + ε}} + β,$$

    with $μ_g, σ_g^2$ the mean and the biased variance of one example over group $g$ of c/groups consecutive channels
    and all positions. No example sees another. torch's own `F.group_norm` is right in every derivative mode, unlike
    its layer, batch and instance norms.

    Shapes: $x$: (b, c, H, W) → $y$: (b, c, H, W); $γ$, $β$: (c,), named `weight`, `bias`.
    Initialisation: $γ = 1$, $β ∼ N(0, \mathrm{bias\_variance})$, by default 0.

    Args:
        channels: c.
        groups: how many groups; it divides c.
        eps: ε.
        bias_variance: of β's initial entries.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: three passes over $x$.
    Left out: nothing.
    Source: wu2018group.

    >>> GroupNorm(2, groups=1, eps=0.0)(torch.tensor([-2.0, 2.0]).view(1, 2, 1, 1)).flatten().tolist()
    [-1.0, 1.0]

    """

    def __init__(
        self,
        channels: int,
        groups: int = 1,
        eps: float = 1e-5,
        bias_variance: float = 0.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        make = Maker(dtype, device, generator)
        if checked_size("channels", channels) % checked_size("groups", groups):
            raise ArchitectureError(f"groups={groups} does not divide channels={channels}; take a divisor, such as 1.")
        self.groups, self.eps = groups, eps
        self.weight = make.full((channels,), 1.0)
        self.bias = make.normal((channels,), bias_variance)

    def forward(self, x: Tensor) -> Tensor:
        """Return $y$: (b, c, H, W) → (b, c, H, W)."""
        check_map(x, self.weight.numel())
        _check_count(x, len(x) * self.groups)
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Name the sizes in the printed network."""
        return f"{self.weight.numel()}, groups={self.groups}"


def check_map(x: Tensor, channels: int) -> None:
    """Raise unless $x$ has shape (b, channels, H, W).

    >>> check_map(torch.zeros(2, 3, 5, 5), 3)
    """
    if x.dim() != 4 or x.shape[1] != channels:
        raise ArchitectureError(
            f"the input has shape {tuple(x.shape)}, but channels={channels} asks for (batch, {channels}, height, width)."
        )


def _check_count(x: Tensor, statistics: int) -> None:
    if x.numel() <= statistics:
        raise ArchitectureError(
            f"the input has shape {tuple(x.shape)}: one value has no variance, and {statistics} are to be taken; "
            "give more examples, larger images or fewer groups."
        )


def _wide(v: Tensor) -> Tensor:
    """(c) → (c 1 1)."""
    return v[:, None, None]
