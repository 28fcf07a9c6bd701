"""Whether a hyperplane separates labelled points, proved either way, and how near any affine function can come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_array, eye_array, hstack
from scipy.special import entr, expit
from torch import Tensor

from ..checks import Audit, row
from ..errors import DataError, NumericsError
from .halfspaces import WORK, most_right, work
from .meeting_hulls import meet, meeting, proves, shared_place


@dataclass(frozen=True, repr=False)
class Separability:
    r"""What affine functions can and cannot do with labelled points.

    Attributes:
        separable: whether some (w, b) has :math:`y_i (w \cdot x_i + b) > 0` for all i, y = ±1.
        normal, offset: w, (d,), and b of a hyperplane: one that separates, else the best found.
        margin: the least :math:`y_i (w \cdot x_i + b) / \|w\|`, negative where none separates.
        witness: λ ≥ 0, (N,), with :math:`\sum_i \lambda_i y_i (x_i, 1) = 0` and sum 2: one place in the convex hulls of both
            classes. Zero where they are separated.
        residual: the largest entry of that sum; 0.0 where it is zero in exact arithmetic.
        accuracy: bounds of the best share of points that an affine function has right; equal where it is exact.
        cross_entropy: bounds of the infimum of the mean logistic loss over affine logits, in nats.
        positive: which points have the greater label, (N,).
        converged: whether the verdict is proved (by a long witness: up to a residual of 1e-9 of the points) and the bounds of
            the loss are as close as asked.

    """

    separable: bool
    normal: Tensor
    offset: float
    margin: float
    witness: Tensor
    residual: float
    accuracy: tuple[float, float]
    cross_entropy: tuple[float, float]
    positive: Tensor
    converged: bool

    @property
    def argument(self) -> str:
        """Why, in words."""
        if self.separable:
            return f"w · x + b has the sign of the label at every point, by {self.margin:.3g} at least."
        support = int((self.witness > 0).sum())
        return (
            f"Weights on {support} points give one mean in both classes: an affine function takes the same mean value "
            f"there over either class and cannot be positive on one and negative on the other. Residual {self.residual:.1g}."
        )

    def check(self, logits: Tensor) -> Audit:
        """Whether a model's logits for the greater label, (N,), stay on this side of both bounds: an affine model's must."""
        f = _numbers(logits, "logits")
        if f.shape != (len(self.positive),):
            given = f"shape {tuple(logits.shape)}"
            raise DataError(
                "logits", f"shape ({len(self.positive)},), one for each point", given, "Pass model(points)[:, 0]."
            )
        sign = np.where(self.positive.numpy(), 1.0, -1.0)
        right, loss = float((sign * f > 0).mean()), float(np.logaddexp(0, -sign * f).mean())
        ceiling, floor = self.accuracy[1], self.cross_entropy[0]
        rows = (
            row("accuracy above the ceiling", right - ceiling, 1e-12, f"{right:.4g}, ceiling {ceiling:.4g}"),
            row("loss below the floor", floor - loss, 1e-12, f"{loss:.6g}, floor {floor:.6g}"),
        )
        return Audit("affine logits", rows)

    def __repr__(self) -> str:
        low, high = self.accuracy
        best = f"{low:.4g}" if low == high else f"between {low:.4g} and {high:.4g}"
        state = "" if self.converged else "; not converged"
        how = f"separable, margin {self.margin:.3g}" if self.separable else "not separable"
        return f"Separability({how}: best accuracy {best}, loss at least {self.cross_entropy[0]:.6g} nats{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Separability:
        """The inverse of :meth:`to_dict`."""
        kinds = {"normal": torch.float64, "witness": torch.float64, "positive": torch.bool}
        tensors = {name: torch.tensor(record[name], dtype=kind, device="cpu") for name, kind in kinds.items()}
        pairs = {name: tuple(record[name]) for name in ("accuracy", "cross_entropy")}
        return cls(**{**record, **tensors, **pairs})


def separability(points: Tensor, labels: Tensor, tol: float = 1e-9) -> Separability:
    r"""Decide whether a hyperplane separates two classes of points, with a proof, and bound what affine functions reach.

    Either some (w, b) has :math:`y_i (w \cdot x_i + b) > 0` for all i, or the convex hulls of the classes meet (Farkas, Gordan):

    .. math:: \exists\, \lambda \ge 0, \lambda \ne 0: \quad \sum_i \lambda_i y_i (x_i, 1) = 0.

    One linear program finds all points that hyperplanes can have strictly right while they have none wrong; the logistic
    loss of these can be made to vanish (Albert & Anderson), and that of the others has a minimum, which
    :math:`\sum_i H(\alpha_i) / N`, H the entropy of a coin, bounds from below for every α in [0, 1]ᴺ that solves
    :math:`\sum_i \alpha_i y_i (x_i, 1) = 0`.

    Both proofs are checked: a hyperplane's signs against a bound of their rounding, a witness of up to 40 points in exact
    arithmetic; of larger ones the residual is given. The best accuracy is exact where all half-spaces can be tried (four
    million signs, such as 200 points in the plane); else it lies between that of the best logits and the bound from
    witnesses that share no point, each of which has a point wrong.

    Args:
        points: (N, d), finite. labels: (N,), two values; the greater is the positive class.
        tol: the width of the interval of the loss, in nats.

    Cost: one linear program with N + d + 1 unknowns, a Newton iteration, and the enumeration. CPU, float64.

    Errors: ``DataError`` for points that are not finite or not of this shape, labels that do not fit or are not two;
    ``NumericsError`` where a linear program was not solved.

    Source: Minsky & Papert 1969, Perceptrons; Cover 1965, Geometrical and statistical properties of systems of linear
    inequalities; Albert & Anderson 1984, On the existence of maximum likelihood estimates in logistic regression models.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> separability(x, torch.tensor([0, 1, 1, 0]))
        Separability(not separable: best accuracy 0.75, loss at least 0.693147 nats)
        >>> separability(x, torch.tensor([0, 0, 0, 1])).separable
        True

    """
    x, positive = _points(points), _classes(labels, len(points))
    y = np.where(positive, 1.0, -1.0)
    centre = x.mean(0)
    scale = np.abs(x - centre).max() or 1.0
    lifted = np.concatenate([(x - centre) / scale, np.ones((len(x), 1))], 1)  # the same problem in better units
    direction, right = _strictly_right(lifted * y[:, None])
    low, high, best = _logistic(lifted[~right], y[~right], len(x))
    reach = 1 + float(np.abs(lifted @ best).max(initial=0))
    theta = best + reach * direction  # the direction is zero at the points that none has strictly right
    normal = theta[:-1] / scale
    offset = float(theta[-1] - normal @ centre)
    margin, sure = _margin(x, y, normal, offset)
    witness, residual = shared_place(x, y, lifted, ~right)
    proved = sure if right.all() else proves(x, witness, residual)
    return Separability(
        separable=bool(right.all()),
        normal=torch.from_numpy(normal),
        offset=offset,
        margin=margin,
        witness=torch.from_numpy(witness),
        residual=residual,
        accuracy=_accuracy(x, y, lifted, theta, bool(right.all()), sure),
        cross_entropy=(low, high),
        positive=torch.from_numpy(positive),
        converged=proved and high - low <= tol,
    )


def _numbers(values: Tensor, name: str) -> np.ndarray:
    found = values.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(found).all():
        raise DataError(
            name, "finite numbers", "NaN or infinity among them", f"Leave out the rows of {name} with them."
        )
    return found


def _points(points: Tensor) -> np.ndarray:
    if points.ndim != 2 or 0 in points.shape:
        given = f"shape {tuple(points.shape)}"
        raise DataError("points", "shape (N, d), at least one point", given, "Flatten them: points.flatten(1).")
    return _numbers(points, "points")


def _classes(labels: Tensor, count: int) -> np.ndarray:
    values = labels.detach().cpu().numpy()
    distinct = np.unique(values)
    if values.shape != (count,):
        remedy = "Pass one label for each point, for example model(points).argmax(1)."
        raise DataError("labels", f"shape ({count},)", f"shape {values.shape}", remedy)
    if len(distinct) != 2:
        remedy = "Take two classes, or one against the rest: labels == k."
        raise DataError("labels", "two distinct values", f"{len(distinct)}", remedy)
    return values == distinct[1]


def _strictly_right(signed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A direction that has no point wrong and as many as possible right by 1, and which: max Σ s, 0 ≤ s ≤ 1, s ≤ A θ."""
    n, k = signed.shape
    cost = np.concatenate([np.zeros(k), -np.ones(n)])
    constraints = hstack([csr_array(-signed), eye_array(n)], format="csr")
    bounds = np.array([(-np.inf, np.inf)] * k + [(0.0, 1.0)] * n)
    found = linprog(cost, A_ub=constraints, b_ub=np.zeros(n), bounds=bounds, method="highs-ds")
    if found.status != 0:
        remedy = "Scale the columns of points to like sizes, or leave out points that almost coincide."
        raise NumericsError("points", "a linear program that is solved", found.message, remedy)
    right = found.x[k:] > 0.5
    if not right.any():
        return np.zeros(k), right
    theta = found.x[:k]
    if not right.all():  # exactly zero at the others, whose loss it must not change
        theta = theta - np.linalg.pinv(signed[~right]) @ (signed[~right] @ theta)
    return theta / (signed[right] @ theta).min(), right


def _logistic(x: np.ndarray, y: np.ndarray, count: int) -> tuple[float, float, np.ndarray]:
    """Bounds of min Σ ln(1 + exp(−y θ·x)) / count over θ from duality, and the θ found."""
    if not len(x):
        return 0.0, 0.0, np.zeros(x.shape[1])
    u, s, v = np.linalg.svd(x, full_matrices=False)
    rank = int((s > 1e-12 * s[0]).sum())
    a = y[:, None] * u[:, :rank]

    def loss(phi: np.ndarray) -> tuple[float, np.ndarray]:
        m = a @ phi
        return float(np.logaddexp(0, -m).sum()), -a.T @ expit(-m)

    def curvature(phi: np.ndarray) -> np.ndarray:
        m = a @ phi
        return (a * (expit(m) * expit(-m))[:, None]).T @ a

    start = np.zeros(rank)
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10})
    weights = expit(-(a @ found.x))
    alpha = np.clip(weights - a @ (a.T @ weights), 0, 1)
    dual = float((entr(alpha) + entr(1 - alpha)).sum())
    high = float(found.fun) / count
    return min(dual / count, high), high, v[:rank].T @ (found.x / s[:rank])


def _margin(x: np.ndarray, y: np.ndarray, normal: np.ndarray, offset: float) -> tuple[float, bool]:
    """The least signed distance, and whether rounding leaves its sign beyond doubt."""
    f = y * (x @ normal + offset)
    rounding = (x.shape[1] + 2) * 2.0**-52 * (np.abs(x) @ np.abs(normal) + abs(offset))
    length = float(np.hypot.reduce(np.abs(normal)))  # which does not overflow
    return float(f.min()) / length if length else 0.0, bool((f > rounding).all())


def _accuracy(
    x: np.ndarray, y: np.ndarray, lifted: np.ndarray, theta: np.ndarray, separable: bool, sure: bool
) -> tuple[float, float]:
    n = len(x)
    if separable and sure:
        return 1.0, 1.0
    if not separable and work(*x.shape) <= WORK:
        exact = most_right(x, y) / n
        return exact, exact
    wrong, left = 0, np.arange(0 if separable else n)
    while len(left) and (found := meeting((lifted * y[:, None])[left])) is not None:
        among = left[found > 0]
        if not meet(x[among], y[among], found[found > 0]):  # the program takes hulls that are near for meeting
            break
        wrong, left = wrong + 1, left[found == 0]
    shares = (float((y * (lifted @ theta) > 0).mean()), float((y > 0).mean()), float((y < 0).mean()))
    return max(shares), 1 - wrong / n
