"""The least squared error of any increasing function: what a flow of the line, or a chain of increasing maps, cannot go below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from ..checks import Audit, row
from ..errors import DataError
from ..spectra.results import _axes


@dataclass(frozen=True, repr=False)
class MonotoneFloor:
    r"""The infimum of the weighted mean squared error over increasing functions, from below and from above.

    Attributes:
        lower, upper: bounds of the infimum, equal up to rounding; ``upper`` is the error of ``fit``.
        x, y: the data in the order of x, (N,). weights: their shares, (N,), of sum 1.
        fit: the best increasing function at x, (N,); flat where the data fall.
        pressure: :math:`S_i = \sum_{j \le i} w_j (y_j - \text{fit}_j)`, (N,), at the last of equal x: never negative, zero
            at the end. It proves the bound.

    All float64, on the CPU.
    """

    lower: float
    upper: float
    x: Tensor
    y: Tensor
    weights: Tensor
    fit: Tensor
    pressure: Tensor

    def __float__(self) -> float:
        return self.lower

    @property
    def argument(self) -> str:
        """Why, in words."""
        flat = int((self.fit.diff() == 0).sum())
        return (
            f"Where the data fall, an increasing function does best to be flat, which the best one is at {flat} of "
            f"{max(len(self.x) - 1, 0)} steps; the sums of its residuals from the left are nowhere negative, so that any other "
            "increasing function has a larger error."
        )

    def check(self, predictions: Tensor) -> Audit:
        """Whether a model's outputs at x, in the order of ``x``, increase and stay above the floor: a flow's must, to rounding."""
        f = _vector(predictions, "predictions", len(self.x))
        loss = float(self.weights.numpy() @ (f - self.y.numpy()) ** 2)
        eps = torch.finfo(predictions.dtype).eps if predictions.is_floating_point() else 0.0
        slip = 8 * eps * float(np.abs(f).max())  # where the best is flat, flows all but meet
        falls = int((np.diff(f) < -slip).sum())
        rounding = 1e-12 * float(self.y.square().max()) + 2 * slip * float(np.abs(f - self.y.numpy()).max())
        rows = (
            row("steps that fall", float(falls), 0.0, f"{falls} of {max(len(f) - 1, 0)}"),
            row("error below the floor", self.lower - loss, rounding, f"{loss:.6g}, floor {self.lower:.6g}"),
        )
        return Audit("an increasing function", rows)

    def __repr__(self) -> str:
        return f"MonotoneFloor(mean squared error in [{self.lower:.9g}, {self.upper:.9g}], {len(self.x)} points)"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> MonotoneFloor:
        """The inverse of :meth:`to_dict`."""
        names = ("x", "y", "weights", "fit", "pressure")
        how: dict[str, Any] = dict(dtype=torch.float64, device="cpu")
        return cls(**{**record, **{name: torch.tensor(record[name], **how) for name in names}})

    def plot(self, ax: Any = None) -> Any:
        """The data and the best increasing function, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.plot(self.x, self.y, "o", color="0.6", markersize=4, label="data")
        ax.step(self.x, self.fit, where="mid", label=f"best increasing function, error {self.upper:.3g}")
        ax.set(xlabel="x", ylabel="y")
        ax.legend()
        return ax


def monotone_floor(x: Tensor, y: Tensor, weights: Tensor | None = None) -> MonotoneFloor:
    r"""The exact floor of the squared error of increasing functions on data, by isotonic regression.

    .. math:: \inf_{f \uparrow} \sum_i w_i (y_i - f(x_i))^2
        = \max \Big\{ \sum_i 2 r_i y_i - r_i^2 / w_i : \sum_{j \le i} r_j \ge 0,\ \sum_j r_j = 0 \Big\}

    The right-hand side, at :math:`r_i = w_i (y_i - f_i)`, is below the left for every increasing f by Abel's summation. The flow of
    a Lipschitz vector field on the line is increasing, whatever was learned: a neural ODE of one dimension errs by at least
    this much on the training data. For functions that may increase or decrease, such as a flow with a linear read-out, take
    the lesser of the floors of y and −y. With equal x the spread of their y is part of the floor.

    Args:
        x, y: (N,), finite. weights: (N,), positive; equal ones if None. They are divided by their sum.

    Cost: a sort. CPU, float64.

    Errors: ``DataError`` for another shape, numbers that are not finite, or a weight that is not positive.

    Source: de Leeuw, Hornik & Mair 2009, Isotone optimization in R; Dupont, Doucet & Teh 2019, Augmented neural ODEs.

    Example:
        >>> monotone_floor(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0]))
        MonotoneFloor(mean squared error in [1, 1], 2 points)

    """
    a = _vector(x, "x", len(x) if x.ndim else 0)
    b = _vector(y, "y", len(a))
    w = np.ones(len(a)) if weights is None else _vector(weights, "weights", len(a))
    if not len(a) or not (w > 0).all():
        given = "no points" if not len(a) else f"a weight of {w.min():g}"
        raise DataError("weights" if len(a) else "x", "at least one point, of positive weight", given, "Leave it out.")
    order = np.argsort(a, kind="stable")
    a, b, w = a[order], b[order], w[order] / w.sum()
    place = np.unique(a, return_inverse=True)[1]
    mass = np.bincount(place, w)
    mean = np.bincount(place, w * b) / mass
    spread = float(w @ (b - mean[place]) ** 2)
    fit = isotonic_regression(mean, weights=mass).x
    sums = np.maximum(np.cumsum(mass * (mean - fit)), 0.0)
    sums[-1] = 0.0  # rounding taken back: what is left is a certificate in any case
    r = np.diff(sums, prepend=0.0)
    upper = spread + float(mass @ (mean - fit) ** 2)
    lower = max(0.0, min(upper, spread + float(2 * r @ mean - r**2 @ (1 / mass))))
    parts = (torch.from_numpy(v) for v in (a, b, w, fit[place], sums[place]))
    return MonotoneFloor(lower, upper, *parts)


def _vector(values: Tensor, name: str, count: int) -> np.ndarray:
    if values.shape != (count,):
        remedy = "Pass one number for each point; squeeze a last axis of one: x[:, 0]."
        raise DataError(name, "shape (N,), the same for all", f"shape {tuple(values.shape)}", remedy)
    found = values.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(found).all():
        raise DataError(name, "finite numbers", "NaN or infinity among them", "Leave out these points.")
    return found
