"""Nine discs and the rest of a square: two classes whose topology is known."""

from __future__ import annotations

from math import pi

import numpy as np
import torch
from torch import Tensor

from ._checked import DataError, integers, reals

RADIUS, AROUND, SIDE, JITTER = 1.3, 7.0, 10.0, 0.02


def nine_discs(
    generator: torch.Generator, step: float = 0.19, discs: int = 9, margin: float = 0.5
) -> tuple[Tensor, Tensor]:
    r"""Data set D-I: discs of radius 1.3, one in the middle and the others on a circle of radius 7, in a square.

    Points lie on a grid over [−10, 10]², moved by Gaussian noise of standard deviation 0.02 in each coordinate. Class 1 is
    inside a disc, class 0 further than `margin` from all; what lies between is left out. Nine discs have the Betti numbers
    (9, 0), the rest of the square (1, 9).

    Parameters
    ----------
    generator : a CPU generator; the same seed gives the same points on every device.
    step : of the grid; 0.19 gives about 1350 points in the discs and 8700 around them.
    discs : how many, the middle one among them.
    margin : between the classes.

    Returns
    -------
    ``(inputs, labels)`` of shapes ``(n, 2)`` and ``(n,)``, on torch's default device.

    Raises
    ------
    DataError : a number outside its domain, or a generator that is not on the CPU.

    Licence: none needed, made here by rule. Source: naitzat2020topology.

    >>> inputs, labels = nine_discs(torch.Generator().manual_seed(0))
    >>> tuple(inputs.shape), torch.bincount(labels).tolist()
    ((10044, 2), [8701, 1343])

    """
    if not (step > 0 and margin >= 0 and discs >= 1):
        raise DataError(
            f"step={step!r}, discs={discs!r}, margin={margin!r}: take a step above 0, at least 1 disc and a margin of at "
            "least 0, such as step=0.19, discs=9, margin=0.5."
        )
    if generator.device.type != "cpu":
        raise DataError(
            f"generator lives on {generator.device}: pass torch.Generator().manual_seed(seed), so that a seed means the "
            "same points on every device."
        )
    line = np.arange(-SIDE, SIDE, step)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    grid = grid + JITTER * torch.randn(grid.shape, generator=generator, dtype=torch.float64, device="cpu").numpy()
    angles = 2 * pi * np.arange(discs - 1) / max(1, discs - 1)
    centres = np.concatenate([np.zeros((1, 2)), AROUND * np.stack([np.cos(angles), np.sin(angles)], 1)])
    nearest = np.linalg.norm(grid[:, None] - centres, axis=-1).min(1)
    kept = (nearest < RADIUS) | (nearest >= RADIUS + margin)
    return reals(grid[kept]), integers(nearest[kept] < RADIUS)
