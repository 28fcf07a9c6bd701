"""The spectral density of an operator as a discrete measure with error bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..errors import ArgumentError
from .krylov import Krylov
from .quadrature import christoffel, christoffel_integral
from .results import _axes, _check_level


@dataclass(frozen=True, repr=False)
class SpectralDensity:
    r"""The density of eigenvalues, :math:`\frac1P \sum_i \delta_{\lambda_i} \approx \sum_j \omega_j \delta_{\theta_j}`.

    Attributes:
        nodes: θ, (probes, steps), float64 on the CPU, ascending in each row (the last is repeated with weight 0 where a
            probe needed fewer steps).
        weights: ω, (probes, steps), of sum 1.
        ends: the interval from the lowest to the highest node, each widened by its residual.
        exact: for each probe, whether its own part is free of quadrature error (its Krylov space is exhausted).
        size: P.
        rounding: the size of a rounding error in a node.
        quadrature_error: bound on the Wasserstein-1 distance that the finite number of steps leaves.
        sampling_error: 95 % bound on the one that the finite number of probes leaves.
        matvecs: operator products spent, those of the densities that this one continues included.
        seed: the seed of the probes.
        krylov: the Lanczos runs, if they were kept to be continued.

    """

    nodes: Tensor
    weights: Tensor
    ends: tuple[float, float]
    exact: tuple[bool, ...]
    size: int
    rounding: float
    quadrature_error: float
    sampling_error: float
    matvecs: int
    seed: int
    krylov: tuple[Krylov, ...] = field(default=(), compare=False)

    @property
    def error(self) -> float:
        """95 % bound on the Wasserstein-1 distance to the true density, in units of the eigenvalues."""
        return self.quadrature_error + self.sampling_error + self.rounding

    def cdf(self, x: Tensor | float, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
        r"""The share of eigenvalues up to x, and the interval that holds the true share with probability ``level``.

        The probes' own distribution functions lie within their Christoffel functions of the quadrature; the true one
        within a Wilson score interval of their mean, for the variance of each is at most 2F(1 − F)/P. Each interval
        holds at its own x, at least the rounding error away from an eigenvalue.
        """
        _check_level(level)
        places = torch.as_tensor(x, dtype=torch.float64).cpu()
        flat = places.reshape(-1).numpy()
        value, gap = np.zeros(len(flat)), np.zeros(len(flat))
        for nodes, weights, exact in self._rows():
            value += (weights * (nodes <= flat[:, None])).sum(1)
            gap += 0.0 if exact else christoffel(nodes, weights / weights.sum(), flat) * weights.sum()
        gap += 1e-12  # sums of weights round
        low, high = np.clip(value - gap, 0, 1), np.clip(value + gap, 0, 1)
        score = float(stats.norm.ppf((1 + level) / 2))
        low, high = wilson(low, self._count, score)[0], wilson(high, self._count, score)[1]
        value = np.minimum(value, 1.0)
        parts = value, np.minimum(low, value), np.maximum(high, value)  # rounding must not part them
        value_, low_, high_ = (torch.from_numpy(part).reshape(places.shape) for part in parts)
        return value_, low_, high_

    def evaluate(self, grid: Tensor, width: float | None = None) -> Tensor:
        r"""The density smoothed by a Gaussian, at the points of ``grid``.

        .. math:: \phi(x) = \sum_j \omega_j\, N(x;\, \theta_j, \sigma^2)

        Args:
            grid: any shape. width: σ, by default a hundredth of the spectrum's length. A feature narrower than it is
                lost; the smoothed truth is within 0.25 ``error`` / σ² of the result.

        """
        sigma = self._width() if width is None else width
        if not 0 < sigma < float("inf"):
            remedy = "Pass a length on the axis of the eigenvalues, such as 0.01."
            raise ArgumentError("width", "a positive number", repr(width), remedy)
        points = torch.as_tensor(grid, dtype=torch.float64).cpu()
        scaled = (points[..., None] - self.nodes.reshape(-1)) / sigma
        return torch.exp(-(scaled**2) / 2) @ self.weights.reshape(-1) / (sigma * np.sqrt(2 * np.pi))

    def __repr__(self) -> str:
        low, high = self.ends
        parts = f"quadrature {self.quadrature_error:.2g}, sampling {self.sampling_error:.2g}"
        return f"SpectralDensity([{low:.4g}, {high:.4g}], W₁ error {self.error:.2g} (95 %; {parts}), {self.matvecs} products)"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold; the Lanczos runs are left out."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "krylov"}
        lists = {name: getattr(self, name).tolist() for name in ("nodes", "weights")}
        return {**record, **lists, "ends": list(self.ends), "exact": list(self.exact)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SpectralDensity:
        """The inverse of :meth:`to_dict`, without the Lanczos runs."""
        tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in ("nodes", "weights")}
        return cls(**{**record, **tensors, "ends": tuple(record["ends"]), "exact": tuple(record["exact"])})

    def plot(self, ax: Any = None) -> Any:
        """The smoothed density on a logarithmic axis, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        (low, high), margin = self.ends, 4 * self._width()
        grid = torch.linspace(low - margin, high + margin, 1000, dtype=torch.float64)
        ax.semilogy(grid, self.evaluate(grid).clamp(min=0.01 / self.size / (high - low + 2 * margin)))
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("density")
        return ax

    @property
    def _count(self) -> float:
        """The number of coin flips whose share varies as much as the probes' mean share of eigenvalues up to x."""
        return len(self.nodes) * self.size / 2

    def _width(self) -> float:
        return max((self.ends[1] - self.ends[0]) / 100, 4 * self.rounding, 1e-12)

    def _rows(self) -> list[tuple[np.ndarray, np.ndarray, bool]]:
        """Nodes and weights of each probe, without the repeated ones."""
        rows = []
        for nodes, weights, exact in zip(self.nodes.numpy(), self.weights.numpy(), self.exact, strict=True):
            used = np.append(np.diff(nodes) != 0, True)
            last = int(np.flatnonzero(used)[-1]) if not exact else len(nodes) - 1
            kept = np.arange(len(nodes)) <= last
            rows.append((nodes[kept], weights[kept], exact))
        return rows


def wilson(share: np.ndarray, count: float, score: float) -> tuple[np.ndarray, np.ndarray]:
    """The score interval of a share whose variance is that of ``count`` coin flips (Wilson 1927)."""
    middle = (share + score**2 / (2 * count)) / (1 + score**2 / count)
    half = score * np.sqrt(share * (1 - share) / count + (score / (2 * count)) ** 2) / (1 + score**2 / count)
    # at the ends the two terms are equal but for rounding
    return np.where(share <= 0, 0.0, middle - half), np.where(share >= 1, 1.0, middle + half)


def quadrature_error(rules: list[tuple[np.ndarray, np.ndarray]], exact: list[bool], ends: tuple[float, float]) -> float:
    """The mean over the probes of the bound on the distance between a probe's measure and its quadrature."""
    bounds = [0.0 if done else christoffel_integral(*rule, *ends) for rule, done in zip(rules, exact, strict=True)]
    return float(np.mean(bounds))


def sampling_error(nodes: np.ndarray, weights: np.ndarray, ends: tuple[float, float], count: float) -> float:
    """The integral of the half-width of the pointwise 95 % interval of the distribution function."""
    order = np.argsort(nodes)
    places = np.clip(np.concatenate([[ends[0]], nodes[order], [ends[1]]]), *ends)
    share = np.clip(np.concatenate([[0.0], np.cumsum(weights[order])]), 0, 1)
    low, high = wilson(share, count, float(stats.norm.ppf(0.975)))
    return float(np.sum(np.diff(places) * np.maximum(share - low, high - share)))
