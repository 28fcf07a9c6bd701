"""How fast an error falls: exponents and factors from errors at several sizes, with intervals, drift and equivalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, DataError
from ..spectra.results import _axes, _check_level, _quantile

Array = np.ndarray


@dataclass(frozen=True, repr=False)
class Rate:
    r"""The slope of the logarithm of an error, in log x (``law`` "power") or in x ("geometric").

    Attributes:
        law: error ∝ x^slope, or ∝ e^{slope · x}.
        slope, stderr, dof: the slope, its standard error and the degrees of freedom of that.
        height: the logarithm of the error on the line at u = 0, u being log x or x.
        drift, drift_stderr: the slope over the larger half of the points minus that over the smaller half. None where the points
            are fewer than four.
        sizes: x, (p,), in rising order. logs: the mean logarithm of the error at each, (p,). local: slopes between neighbours, (p − 1,).
        replicates: seeds at each size; 1 where there is one error each. method: where ``stderr`` is from.

    """

    law: Literal["power", "geometric"]
    slope: float
    stderr: float
    dof: int
    height: float
    drift: float | None
    drift_stderr: float | None
    sizes: tuple[float, ...]
    logs: tuple[float, ...]
    local: tuple[float, ...]
    replicates: int
    method: str

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval of the slope."""
        return _interval(self.slope, self.stderr, self.dof, level)

    def drift_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Student's interval of the drift: without zero, the sizes have not reached one rate."""
        if self.drift is None or self.drift_stderr is None:
            return None
        return _interval(self.drift, self.drift_stderr, self.dof, level)

    @property
    def drifts(self) -> bool:
        """Whether the slope over the larger sizes differs from that over the smaller ones, at 95 %."""
        found = self.drift_interval()
        return found is not None and not found[0] <= 0 <= found[1]

    @property
    def factor(self) -> float:
        """What the error is multiplied by where x doubles (power), or grows by one (geometric)."""
        return 2**self.slope if self.law == "power" else exp(self.slope)

    def __float__(self) -> float:
        return self.slope

    def __call__(self, x: float) -> float:
        """The error that the line says at x."""
        return exp(self.height + self.slope * float(_abscissae(np.array([x], float), self.law)[0]))

    def equivalent(
        self, predicted: float, within: float, level: float = 0.95
    ) -> Literal["holds", "fails", "undecided"]:
        r"""Is the slope within a band around a predicted one?

        "holds" where the interval lies in predicted ± within, "fails" where it lies outside, else "undecided": never a failure to reject.

        Errors: ``ArgumentError`` for a band without width.
        """
        if not within > 0:
            raise ArgumentError("within", "a positive number", repr(within), "Say how far off the slope may be.")
        low, high = self.interval(level)
        if predicted - within <= low and high <= predicted + within:
            return "holds"
        return "fails" if low > predicted + within or high < predicted - within else "undecided"

    def __repr__(self) -> str:
        low, high = self.interval()
        ran = "x^" if self.law == "power" else "exp of x times "
        drift = "; it drifts" if self.drifts else ""
        return f"Rate({ran}{self.slope:.4g}, [{low:.4g}, {high:.4g}] at 95 %, {len(self.sizes)} sizes{drift})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), **{name: list(vars(self)[name]) for name in ("sizes", "logs", "local")}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Rate:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**record, **{name: tuple(record[name]) for name in ("sizes", "logs", "local")}})

    def plot(self, ax: Any = None, predicted: float | None = None) -> Any:
        """The errors, the fitted line and, through the last point, the line of a predicted slope; on matplotlib axes."""
        ax = _axes(ax)
        x, errors = np.array(self.sizes), np.exp(self.logs)
        u = _abscissae(x, self.law)
        ax.plot(x, errors, "o", markersize=4)
        ax.plot(x, np.exp(self.height + self.slope * u), linewidth=1, label=f"slope {self.slope:.3g}")
        if predicted is not None:
            line = np.exp(self.logs[-1] + predicted * (u - u[-1]))
            ax.plot(x, line, "k--", linewidth=1, label=f"theory {predicted:.3g}")
        ax.set(xlabel="size", ylabel="error", yscale="log", xscale="log" if self.law == "power" else "linear")
        ax.legend()
        return ax


def rate(x: Sequence[float] | Tensor, errors: Tensor) -> Rate:
    r"""The exponent of a power law, error ∝ x^slope.

    With one error a size, the slope is that of least squares in logarithms, and its interval Student's from the residuals, p − 2
    degrees of freedom. With s ≥ 2 seeds a size, the slope is taken seed by seed, which needs no equal or Gaussian
    noise and, in logarithms, no variance of the error itself; the interval is Student's from the s slopes.

    Args:
        x: sizes, (p,), positive, p ≥ 3 different ones. errors: (p,) or (p, s), positive.

    Returns a :class:`Rate`; :meth:`Rate.equivalent` compares it with theory, ``drift`` tells whether the sizes have reached one rate.

    Assumptions: sizes and seeds are drawn independently. One law over all sizes is not assumed but shown: by ``local`` and ``drift``.

    Cost: none to speak of.

    Errors: ``DataError`` for shapes, sizes or errors outside their domain.

    Example:
        >>> found = rate([1, 2, 4, 8], torch.tensor([1.0, 0.25, 0.0625, 0.015625]))
        >>> found
        Rate(x^-2, [-2, -2] at 95 %, 4 sizes)
        >>> found.equivalent(-2, within=0.1), found.equivalent(-1, within=0.1)
        ('holds', 'fails')

    """
    return _fit(x, errors, "power")


def geometric_rate(x: Sequence[float] | Tensor, errors: Tensor) -> Rate:
    r"""The rate of a geometric law, error ∝ e^{slope · x} = factor^x, as the error of a depth.

    As :func:`rate`, with x in place of its logarithm.

    Args:
        x: sizes, (p,), p ≥ 3 different ones. errors: (p,) or (p, s), positive.

    Errors: ``DataError`` for shapes, sizes or errors outside their domain.

    Example:
        >>> found = geometric_rate([1, 2, 3, 4], torch.tensor([1.0, 0.25, 0.0625, 0.015625]))
        >>> round(found.factor, 6)
        0.25

    """
    return _fit(x, errors, "geometric")


def _fit(x: Sequence[float] | Tensor, errors: Tensor, law: Literal["power", "geometric"]) -> Rate:
    sizes, logs = _checked(x, errors, law)
    u, means, seeds = _abscissae(sizes, law), logs.mean(1), logs.shape[1]
    rounding = (
        8 * float(np.finfo(float).eps) * (1 + float(np.abs(logs).max()))
    )  # of a logarithm: no law is known better
    slope = float(_slope(u, means))
    height = float(means.mean() - slope * u.mean())
    halves = _halves(u) if len(u) >= 4 else None
    drift = float(halves @ means) if halves is not None else None
    drift_stderr = None
    if seeds > 1:
        dof, method = seeds - 1, "slopes of seeds"
        stderr = float(_slope(u, logs).std(ddof=1)) / sqrt(seeds)
        if halves is not None:
            drift_stderr = max(float((halves @ logs).std(ddof=1)) / sqrt(seeds), rounding * sqrt(halves @ halves))
    else:
        dof, method = len(u) - 2, "residuals"
        variance = max(float(((means - height - slope * u) ** 2).sum()) / dof, rounding**2)
        stderr = sqrt(variance / float(((u - u.mean()) ** 2).sum()))
        if halves is not None:
            drift_stderr = sqrt(variance * float(halves @ halves))
    local = np.diff(means) / np.diff(u)
    columns = [tuple(map(float, part)) for part in (sizes, means, local)]
    line = (law, slope, stderr, dof, height, drift, drift_stderr)
    return Rate(*line, columns[0], columns[1], columns[2], seeds, method)


def _checked(x: Any, errors: Any, law: str) -> tuple[Array, Array]:
    sizes = torch.as_tensor(x).detach().cpu().double().numpy()
    remedy = "Pass x of shape (p,) with p ≥ 3, and errors of shape (p,) or (p, seeds)."
    if sizes.ndim != 1 or len(set(sizes.tolist())) < max(3, len(sizes)):
        raise DataError("x", "three different sizes or more, each once", str(sizes.tolist()), remedy)
    if not np.isfinite(sizes).all() or (law == "power" and (sizes <= 0).any()):
        expected = "finite positive sizes" if law == "power" else "finite sizes"
        raise DataError("x", expected, str(sizes.tolist()), "Take geometric_rate for a law in x itself, zero included.")
    if not isinstance(errors, Tensor) or errors.ndim not in (1, 2) or len(errors) != len(sizes) or 0 in errors.shape:
        given = f"shape {tuple(errors.shape)}" if isinstance(errors, Tensor) else type(errors).__name__
        raise DataError("errors", f"a tensor of shape ({len(sizes)},) or ({len(sizes)}, seeds)", given, remedy)
    values = errors.detach().cpu().double().numpy().reshape(len(sizes), -1)
    if not (np.isfinite(values).all() and (values > 0).all()):
        worst = float(values[~(np.isfinite(values) & (values > 0))][0])
        remedy = "Logarithms are taken: leave out sizes at which an error is zero, rounding, or a run that diverged."
        raise DataError("errors", "finite positive numbers", f"{worst:g} among them", remedy)
    order = np.argsort(sizes)
    return sizes[order], np.log(values[order])


def _abscissae(x: Array, law: str) -> Array:
    return np.log(x) if law == "power" else x


def _weights(u: Array) -> Array:
    centred = u - u.mean()
    return centred / (centred @ centred)


def _slope(u: Array, logs: Array) -> Array:
    return _weights(u) @ logs


def _halves(u: Array) -> Array:
    """The weights of the slope over the larger half minus that over the smaller; they share the middle of an odd number."""
    half = (len(u) + 1) // 2
    weights = np.zeros(len(u))
    weights[-half:] += _weights(u[-half:])
    weights[:half] -= _weights(u[:half])
    return weights


def _interval(value: float, stderr: float, dof: int, level: float) -> tuple[float, float]:
    _check_level(level)
    half = _quantile(level, dof) * stderr if stderr else 0.0
    return value - half, value + half
