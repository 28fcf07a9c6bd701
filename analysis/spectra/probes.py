"""Random probes, and when enough of them have been drawn."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt
from numbers import Real

import torch
from torch import Tensor

from ..errors import ArgumentError, NumericsError
from ..operators.base import Operator

#: Probes before an estimator may look at its error for the first time, and then growth of their number between looks.
FIRST, GROWTH = 10, 1.5
#: Allowed for rounding: multiples of a dtype's ε in a sum over many products or gradients (measured on networks: below 1).
ALLOWANCE = 4.0


class Probes:
    """Vectors of independent random signs, drawn one after another on the CPU: probe i depends on the seed alone."""

    def __init__(self, operator: Operator, seed: int) -> None:
        self.size, self.dtype, self.device = operator.shape[0], operator.dtype, operator.device
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> Tensor:
        """The next ``count`` probes, as rows."""
        signs = torch.empty(count, self.size, dtype=torch.int8, device="cpu")
        for row in signs:
            row.random_(0, 2, generator=self.generator)
        return signs.to(self.device).mul_(2).sub_(1).to(self.dtype)


def widening(count: int, rank: float) -> float:
    r"""A factor on the standard error, :math:`1 + (0.7 + 8/r)/n`, for the two faults of an early interval.

    Looking at n = 10, 15, 23, … and stopping at the first small error stops too early more often than too late: for
    normal samples a 95 % interval then covers 93 % near n = 25. And where r equal eigenvalues rule, the samples are
    χ² with r degrees of freedom, of squared skewness 8/r: few of them have a small mean and a small error together.
    Both faults vanish as n grows; the constants were fitted by simulation.
    """
    return 1 + (0.7 + 8 / rank) / count


def looks(budget: int) -> Iterator[int]:
    """Numbers of probes at which to look: 10, 15, 23, … and at last the budget."""
    count = FIRST
    while count < budget:
        yield count
        count = ceil(count * GROWTH)
    yield budget


def moments(samples: Tensor, rank: float) -> tuple[float, float]:
    """The mean of n samples and its widened standard error, by one transfer to the host; refuses nan."""
    mean, spread = torch.stack([samples.mean(), samples.std()]).tolist()
    if not (abs(mean) < float("inf") and spread < float("inf")):
        raise overflow("a product of the operator")
    return mean, spread / sqrt(len(samples)) * widening(len(samples), rank)


def overflow(what: str) -> NumericsError:
    """The error for a number that is not finite."""
    return NumericsError(what, "finite entries", "inf or nan", "Use dtype=torch.float64, or scale the operator down.")


def dots(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of rows in float64, a row at a time so that no second copy of a block is held."""
    return torch.stack([a.double() @ b.double() for a, b in zip(left, right, strict=True)])


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least, for what half precision has no algorithm, or no range."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def meets(tol: float, value: float, half: float, bias: float) -> bool:
    """Does value ± (half + bias) meet a relative tolerance? What is zero to rounding is as near as may be."""
    return half + bias <= tol * abs(value) or max(half, abs(value) / 2) <= bias


def check_options(tol: float, max_matvecs: int, block: int | None, seed: int) -> None:
    """The options that every estimator with probes has."""
    if not isinstance(tol, Real) or not 0 < tol < 1:
        remedy = "Pass a relative tolerance such as tol=0.01."
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), remedy)
    if not isinstance(max_matvecs, int) or max_matvecs < FIRST:
        remedy = f"Allow at least {FIRST} products."
        raise ArgumentError("max_matvecs", f"an integer ≥ {FIRST}", repr(max_matvecs), remedy)
    if block is not None and (not isinstance(block, int) or block < 1):
        remedy = "Pass block=16, the number of vectors held at a time, or leave it to the operator."
        raise ArgumentError("block", "an integer ≥ 1", repr(block), remedy)
    check_seed(seed)


def check_seed(seed: int) -> None:
    """An integer that a generator takes."""
    if not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise ArgumentError("seed", "an integer of 64 bits", repr(seed), "Pass seed=0, or another integer.")
