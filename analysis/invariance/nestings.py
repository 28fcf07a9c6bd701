"""The floating-point tensors of a nesting: which they are, how precise, and the same nesting with others in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


def _real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def floats(item: Any) -> list[Tensor]:
    """The floating-point tensors of a nesting.

    Example:
        >>> len(floats((torch.ones(1), [torch.arange(2), 3])))
        1

    """
    return [x for x in tree_leaves(item) if _real(x)]


def over_floats(change: Callable[[Tensor], Tensor], item: Any) -> Any:
    """The nesting with every floating-point tensor changed.

    Example:
        >>> over_floats(torch.neg, (torch.ones(1), torch.arange(2), 3))
        (tensor([-1.]), tensor([0, 1]), 3)

    """
    return tree_map(lambda x: change(x) if _real(x) else x, item)


def coarsest(item: Any) -> float:
    """The rounding error ε of the least precise floating-point tensor of a nesting; 0 without any.

    Example:
        >>> coarsest((torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float32))) == 2**-23
        True

    """
    return max((torch.finfo(x.dtype).eps for x in floats(item)), default=0.0)


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, the same on every device.

    Example:
        >>> noise_like(torch.ones(3, 2), torch.Generator()).shape
        torch.Size([3, 2])

    """
    return torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(x)
