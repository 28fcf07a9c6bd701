"""Results of estimators: frozen, with error bars, readable, and convertible to plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from ..errors import ArgumentError
from .lanczos import Sweep


@dataclass(frozen=True, repr=False)
class Estimate:
    r"""An estimated number with its error bars.

    Attributes:
        value: the estimate.
        stderr: standard error from the random probes (0 where the method is exact).
        dof: degrees of freedom of ``stderr``.
        data_stderr: standard error over draws of the data, from a jackknife over batches, kept apart; None if unknown.
        matvecs: operator products spent.
        seed: the seed of the probes.
        method: the estimator's name.
        converged: whether the error bars met the tolerance that was asked for.
        bias: bound on the error that is not random, of a quadrature or of rounding; it widens the interval on each side.
        batches: behind ``data_stderr``; its interval takes Student's t with one degree of freedom less.

    Example:
        >>> Estimate(638.3, 3.0, 211, 7.1, 212, 0, "hutchinson")
        638.3 ± 5.9 (95 %, 212 products; data ± 14)

    """

    value: float
    stderr: float
    dof: int
    data_stderr: float | None
    matvecs: int
    seed: int
    method: str
    converged: bool = True
    bias: float = 0.0
    batches: int = 0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        r"""The two-sided interval, value ± (t·stderr + bias), that covers the truth with probability ``level``.

        Example:
            >>> low, high = Estimate(0.0, 1.0, 1, None, 2, 0, "example").interval(0.5)  # t = 1 for one dof
            >>> round(high, 6)
            1.0

        """
        _check_level(level)
        half = self._half(level)
        return self.value - half, self.value + half

    def _half(self, level: float) -> float:
        return self.bias + (_quantile(level, self.dof) * self.stderr if self.stderr else 0.0)

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else repr(self)

    def __repr__(self) -> str:
        half, data = self._half(0.95), ""
        if self.data_stderr is not None:
            t = _quantile(0.95, self.batches - 1) if self.batches else 1.96
            data = f"; data ± {_two_digits(t * self.data_stderr)}"
        state = "" if self.converged else "; not converged"
        return f"{_to_error(self.value, half)} ± {_two_digits(half)} (95 %, {self.matvecs} products{data}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Estimate:
        """The inverse of :meth:`to_dict`."""
        return cls(**record)

    def plot(self, ax: Any = None) -> Any:
        """The value with its 95 % interval, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        half = self._half(0.95)
        ax.errorbar([0], [self.value], yerr=[half], fmt="o", capsize=4)
        ax.set_xticks([0], [self.method], parse_math=False)
        ax.set_ylabel("estimate")
        return ax


@dataclass(frozen=True, repr=False)
class Eigenpairs:
    r"""Eigenvalues and eigenvectors, each with a rigorous residual interval.

    For every pair some eigenvalue λ of the (symmetric) operator has :math:`|\lambda - \theta| \le \|Hu - \theta u\|`.

    Attributes:
        values: θ, (k,), float64 on the CPU.
        vectors: u, (P, k), orthonormal columns, in the operator's dtype and on its device.
        residuals: ‖Hu − θu‖, (k,), what the iteration implies and the defect that one product has shown.
        matvecs: operator products spent, that one included.
        converged: whether every residual meets the tolerance and the search for missed copies was finished.
        krylov: the iteration, if it was kept to be continued.

    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    matvecs: int
    converged: bool
    krylov: Sweep | None = field(default=None, compare=False)

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """[θ − r, θ + r] of each pair: it holds an eigenvalue, to rounding."""
        pairs = zip(self.values.tolist(), self.residuals.tolist(), strict=True)
        return [(value - residual, value + residual) for value, residual in pairs]

    def __repr__(self) -> str:
        pairs = zip(self.values.tolist(), self.residuals.tolist(), strict=True)
        shown = ", ".join(f"{_to_error(value, residual)} ± {_two_digits(residual)}" for value, residual in pairs)
        state = "converged" if self.converged else "not converged"
        return f"Eigenpairs({shown}; {state}, {self.matvecs} products)"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {
            "values": self.values.tolist(),
            "vectors": self.vectors.tolist(),
            "residuals": self.residuals.tolist(),
            "matvecs": self.matvecs,
            "converged": self.converged,
            "dtype": str(self.vectors.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Eigenpairs:
        """The inverse of :meth:`to_dict`, on the CPU."""
        return cls(
            torch.tensor(record["values"], dtype=torch.float64),
            torch.tensor(record["vectors"], dtype=getattr(torch, record["dtype"])),
            torch.tensor(record["residuals"], dtype=torch.float64),
            record["matvecs"],
            record["converged"],
        )

    def plot(self, ax: Any = None) -> Any:
        """The eigenvalues in order with their residual intervals, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.errorbar(range(1, len(self.values) + 1), self.values, yerr=self.residuals, fmt="o", capsize=3)
        ax.set_xlabel("index")
        ax.set_ylabel("eigenvalue")
        return ax


@dataclass(frozen=True, repr=False)
class Diagonal:
    r"""The diagonal of an operator, every entry with its error bar.

    Attributes:
        values: (P,), float64, on the operator's device.
        stderr: (P,), standard errors from the random probes (0 where the method is exact).
        dof: degrees of freedom of ``stderr``.
        matvecs: operator products spent.
        seed: the seed of the probes.
        method: the estimator's name.
        converged: whether ``error`` met the tolerance that was asked for.

    Example:
        >>> Diagonal(torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), 9, 10, 0, "example")
        Diagonal(2 entries, relative error 0.1, 10 products)

    """

    values: Tensor
    stderr: Tensor
    dof: int
    matvecs: int
    seed: int
    method: str
    converged: bool = True

    @property
    def error(self) -> float:
        """The norm of the standard errors over the norm of the values: the expected relative error of the vector."""
        error, norm = float(self.stderr.norm()), float(self.values.norm())
        return error / norm if norm else (inf if error else 0.0)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The two-sided Student t interval of each entry (of each alone, not of all at once)."""
        _check_level(level)
        half = torch.where(self.stderr > 0, self.stderr * _quantile(level, self.dof), 0)
        return self.values - half, self.values + half

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged"
        return f"Diagonal({len(self.values)} entries, relative error {self.error:.2g}, {self.matvecs} products{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "values": self.values.tolist(), "stderr": self.stderr.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Diagonal:
        """The inverse of :meth:`to_dict`, on the CPU."""
        tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in ("values", "stderr")}
        return cls(**{**record, **tensors})

    def plot(self, ax: Any = None) -> Any:
        """The sorted entries with their 95 % intervals, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        order = self.values.argsort(descending=True)
        half = (self.interval()[1] - self.values)[order].cpu()
        ax.errorbar(range(1, len(order) + 1), self.values[order].cpu(), yerr=half, fmt=".", capsize=0)
        ax.set_xlabel("rank")
        ax.set_ylabel("diagonal entry")
        return ax


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ArgumentError("level", "a probability strictly between 0 and 1", str(level), "Pass level=0.95.")


def _quantile(level: float, dof: int) -> float:
    """Student's t of a two-sided interval."""
    return float(stats.t.ppf((1 + level) / 2, dof)) if dof > 0 else inf


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure().subplots()


def _two_digits(error: float) -> str:
    """An error bar to two significant digits, without an exponent where that is short."""
    if error == 0 or not isfinite(error):
        return "0" if error == 0 else "∞"
    return f"{float(f'{error:.2g}'):.{_decimals(error)}f}" if 1e-4 <= error < 1e6 else f"{error:.1e}"


def _to_error(value: float, error: float) -> str:
    """A value to the last digit of its error bar."""
    if not 1e-4 <= error < 1e6 or not isfinite(value):
        return f"{value:.9g}"
    return f"{value:.{_decimals(error)}f}"


def _decimals(error: float) -> int:
    exponent = int(f"{error:.1e}".split("e")[1])
    return max(0, 1 - exponent)
