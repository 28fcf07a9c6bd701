"""Labels as unit vectors, and Gaussian draws that mean the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(labels: Tensor, classes: int = 10) -> Tensor:
    """Labels ``(b,)`` as unit vectors ``(b, classes)`` in torch's default dtype.

    >>> one_hot(torch.tensor([2, 0]), classes=3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return torch.eye(classes, dtype=torch.get_default_dtype(), device=labels.device)[labels]


def gaussian(generator: torch.Generator, *shape: int) -> Tensor:
    """Independent standard normal draws: made on the CPU in float64, then rounded and moved to the default device.

    A seed means the same numbers on every device, up to rounding.

    >>> tuple(gaussian(torch.Generator().manual_seed(0), 2, 3).shape)
    (2, 3)
    """
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(torch.get_default_device(), torch.get_default_dtype())
