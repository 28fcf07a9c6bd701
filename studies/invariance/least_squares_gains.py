"""What least squares gains from averaging over the swap of two halves of the coordinates, data set by data set."""

from __future__ import annotations

import torch
from torch import Tensor

from lemmata.studies.data import gaussian


def gains(d: int, n: int, sets: int, theta: Tensor, spread: float, draws: torch.Generator) -> Tensor:
    r"""Risk of least squares less that of its average over the swap of halves, for each of many data sets of noise one.

    Inputs are normal of variance one, those of the first half of variance `spread`²; the least norm solution where n < d.
    """
    scale = torch.ones(d, device=theta.device)
    scale[: d // 2] = spread
    x = gaussian(draws, sets, n, d) * scale
    y = x @ theta + gaussian(draws, sets, n)
    if n >= d:
        fitted = torch.linalg.solve(x.mT @ x, (x.mT @ y[..., None])[..., 0])  # (sets, d)
    else:
        fitted = (x.mT @ torch.linalg.solve(x @ x.mT, y)[..., None])[..., 0]
    averaged = (fitted + fitted.roll(d // 2, 1)) / 2
    risks = [((w - theta) * scale).square().sum(1) for w in (fitted, averaged)]
    return risks[0] - risks[1]


def coefficients(d: int, kept: float, moved: float, draws: torch.Generator) -> Tensor:
    """A vector in a random direction whose part that the swap keeps has squared norm `kept`, the other part `moved`."""
    theta = gaussian(draws, d)
    even = theta + theta.roll(d // 2, 0)
    odd = theta - theta.roll(d // 2, 0)
    return even * kept**0.5 / even.norm() + odd * moved**0.5 / odd.norm()
