"""Rows of an audit, and the checks that take an operator's products alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from .errors import LemmataError
from .operators.base import Operator

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
DIRECTIONS = 3  # random vectors that a check takes


@dataclass(frozen=True)
class Check:
    """One row of an audit: the largest deviation found, the one allowed, who is at fault, and a remark."""

    name: str
    verdict: str
    measured: float | None = None
    tolerance: float | None = None
    culprit: str | None = None
    note: str = ""


@dataclass(frozen=True, repr=False)
class Audit:
    """What :func:`~lemmata.analysis.audit` found: a row for each check.

    Example:
        >>> Audit("A", (Check("symmetry", "failed", 0.5, 1e-8, "fc1 (Wrong)"),)).culprits
        ('fc1 (Wrong)',)

    """

    operator: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed (some may have been skipped; their notes say why)."""
        return all(check.verdict != FAILED for check in self.checks)

    @property
    def culprits(self) -> tuple[str, ...]:
        """The names of all that is at fault, each once."""
        return tuple(dict.fromkeys(check.culprit for check in self.checks if check.culprit))

    def __getitem__(self, name: str) -> Check:
        return {check.name: check for check in self.checks}[name]

    def __repr__(self) -> str:
        rows: list[tuple[str, ...]] = [("check", "verdict", "measured", "tolerance", "culprit or remark")]
        for check in self.checks:
            numbers = ("" if x is None else f"{x:.1e}" for x in (check.measured, check.tolerance))
            remark = "; ".join(part for part in (check.culprit, check.note) if part)
            rows.append((check.name, check.verdict, *numbers, remark))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
        return "\n".join(
            [f"Audit of {self.operator}: {'passed' if self.passed else 'failed'}", *map(str.rstrip, lines)]
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {"operator": self.operator, "checks": [asdict(check) for check in self.checks]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Audit:
        """The inverse of :meth:`to_dict`."""
        return cls(record["operator"], tuple(Check(**check) for check in record["checks"]))


def directions(operator: Operator, seed: int, count: int) -> Tensor:
    """Random unit vectors, (P, count)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(operator.shape[0], count, generator=generator, dtype=torch.float64)
    return (drawn / drawn.norm(dim=0)).to(operator.device, operator.dtype)


def tolerance_of(dtype: torch.dtype) -> float:
    """What is taken for rounding: three times the root of the precision."""
    return 3 * sqrt(torch.finfo(dtype).eps)


def row(name: str, measured: float, tolerance: float, note: str = "") -> Check:
    """A check that compares a number with a tolerance; nan fails."""
    return Check(name, PASSED if measured <= tolerance else FAILED, measured, tolerance, None, note)


def blame(check: Check, names: list[str]) -> Check:
    """A failed check with its culprits."""
    return replace(check, culprit=", ".join(names)) if check.verdict == FAILED and check.culprit is None else check


def relative(found: Tensor, truth: Tensor) -> float:
    """The norm of a difference over that of the truth, in float64."""
    gap, scale = float((found.double() - truth.double()).norm()), float(truth.double().norm())
    return gap / scale if scale else gap


def algebra(operator: Operator, seed: int) -> list[Check]:
    """The checks that need products only."""
    U, V = directions(operator, seed, 2 * DIRECTIONS).split(DIRECTIONS, 1)
    names = ("symmetry", "linearity", "determinism")
    try:
        AU, AV = operator @ U, operator @ V
        mixed = operator @ (0.7 * U - 1.3 * V)
        again = operator @ U
    except (LemmataError, RuntimeError) as error:
        culprit = error.name if isinstance(error, LemmataError) else None
        first = Check("products", FAILED, culprit=culprit, note=str(error).splitlines()[0])
        return [first, *(Check(name, SKIPPED, note="there are no products") for name in names)]
    tolerance = tolerance_of(operator.dtype)
    broken = float((~torch.cat([AU, AV]).isfinite()).sum())
    gap = (torch.linalg.vecdot(U, AV, dim=0) - torch.linalg.vecdot(V, AU, dim=0)).abs()
    skew = gap * sqrt(operator.shape[0]) / (AU.norm(dim=0) + AV.norm(dim=0)).clamp(min=1e-30)
    return [
        row("products", broken, 0.0),
        row("symmetry", float(skew.max()), tolerance),
        row("linearity", relative(mixed, 0.7 * AU - 1.3 * AV), tolerance),
        row("determinism", float((again - AU).abs().max()), 0.0),
    ]
