"""How much of the gradient lies in the leading eigenspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import acos, inf, sqrt
from typing import Any

import torch
from torch import Tensor

from ..errors import NumericsError, OperandError
from ..jackknife import jackknife
from ..operators.base import Operator, as_operator
from ..operators.bound import Bound
from ..operators.objective import Objective
from ..spectra.results import _axes, _to_error, _two_digits
from ..spectra.structured import _objective
from .eigenspace import eigenspace, squared_cosines
from .evaluation import undisturbed
from .gradients import batch_gradients


@dataclass(frozen=True, repr=False)
class GradientOverlap:
    r"""The share :math:`\|U^\top g\|^2 / \|g\|^2` of the gradient in an eigenspace.

    Attributes:
        value: the share, from 0 to 1.
        low, high: where the share in the exact eigenspace lies, by residuals and gap (to rounding).
        shares: of each eigenvector, (k,); they add up to ``value``.
        data_stderr: standard error from a jackknife over batches, the eigenspace held fixed; None for a single batch,
            or a gradient that was passed in.
        batches: their number, 0 for a gradient that was passed in.
        chance: k/P, the expected share of a random direction.
        angle: the bound on the angle to the exact eigenspace.
        matvecs: operator products spent.
        converged: whether the eigenpairs have converged.

    """

    value: float
    low: float
    high: float
    shares: Tensor
    data_stderr: float | None
    batches: int
    chance: float
    angle: float
    matvecs: int
    converged: bool

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        half = max(self.high - self.value, self.value - self.low)
        data = "" if self.data_stderr is None else f"; data ± {_two_digits(1.96 * self.data_stderr)}"
        state = "" if self.converged else "; not converged"
        shown = f"{_to_error(self.value, half)} in [{self.low:.4g}, {self.high:.4g}], k = {len(self.shares)}"
        return f"GradientOverlap({shown}, chance {self.chance:.2g}{data}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "shares": self.shares.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> GradientOverlap:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**record, "shares": torch.tensor(record["shares"], dtype=torch.float64)})

    def plot(self, ax: Any = None) -> Any:
        """The share of the first eigenvectors, and its interval at the last, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        count = len(self.shares)
        ax.step(range(count + 1), [0.0, *self.shares.cumsum(0).tolist()], where="post")
        ax.errorbar([count], [self.value], yerr=[[self.value - self.low], [self.high - self.value]], fmt="o", capsize=4)
        ax.set_ylim(0, 1)
        ax.set_xlabel("eigenvectors")
        ax.set_ylabel("share of the gradient's squared norm")
        return ax


def gradient_overlap(
    operator: Operator,
    k: int,
    gradient: Tensor | None = None,
    which: str = "largest",
    tol: float = 1e-3,
    max_steps: int | None = None,
    seed: int = 0,
) -> GradientOverlap:
    r"""The share of the gradient's squared norm in the eigenspace of the k leading eigenvalues.

    .. math:: f = \frac{\|U^\top g\|^2}{\|g\|^2} = \cos^2\varphi, \qquad
        \cos^2(\varphi + \vartheta) \le f_{\text{exact}} \le \cos^2(\varphi - \vartheta)

    with U the eigenvectors found and ϑ the bound of :func:`eigenspace` on their angle to the exact space: the angle of
    a vector to a space moves by at most the angle of the spaces.

    Args:
        operator: symmetric, P × P. A Hessian, GGN or Fisher brings its gradient and batches.
        k: dimension of the eigenspace, 1 ≤ k ≤ P; the number of classes in the source.
        gradient: (P,), needed for any other operator.
        which, tol, max_steps, seed: as for :func:`eigenspace`.

    Cost: the eigenpairs, and a gradient for each batch.

    Assumptions: the interval is rigorous for the data at hand, if no eigenvalue was missed. ``data_stderr`` takes the
    batches for independent draws and leaves out that the eigenspace itself is estimated from them.

    Errors: ``ArgumentError`` for an option outside its domain, ``OperandError`` for a gradient that is missing or does
    not fit, ``NumericsError`` for one that is zero or not finite.

    Source: Gur-Ari, Roberts & Dyer 2018, Gradient descent happens in a tiny subspace.

    Example:
        >>> from lemmata.analysis import Dense
        >>> A = Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)))
        >>> overlap = gradient_overlap(A, 1, torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64))
        >>> round(overlap.value, 6)
        0.36

    """
    operator = as_operator(operator)
    objective = _objective(operator) if isinstance(operator, Bound) and gradient is None else None
    whole = _gradient(operator, gradient)
    space = eigenspace(operator, k, which, tol, max_steps, seed)
    coordinates = (space.basis.double().T @ whole).cpu()
    shares = coordinates.square() / float(whole.square().sum())
    value = min(1.0, float(shares.sum()))
    low, high = squared_cosines(acos(sqrt(value)), space.angle)
    data_stderr, batches = (None, 0) if objective is None else _over_batches(objective, space.basis, whole, value)
    chance = k / operator.shape[0]
    return GradientOverlap(
        value, low, high, shares, data_stderr, batches, chance, space.angle, space.matvecs, space.converged
    )


def _gradient(operator: Operator, gradient: Tensor | None) -> Tensor:
    """The gradient in float64, checked."""
    if gradient is None and isinstance(operator, Bound):
        gradient = operator.gradient
    remedy = "Pass gradient=H.gradient, a tensor of shape (P,); an la.Hessian or la.GGN brings its own."
    if not isinstance(gradient, Tensor) or gradient.shape != operator.shape[:1]:
        given = f"shape {tuple(gradient.shape)}" if isinstance(gradient, Tensor) else type(gradient).__name__
        raise OperandError("gradient", f"shape ({operator.shape[0]},)", given, remedy)
    row = gradient.detach().to(operator.device, torch.float64)
    if not 0 < float(row.norm()) < inf:
        remedy = "At a stationary point the gradient has no direction: look earlier in training."
        raise NumericsError("gradient", "a finite non-zero gradient", f"one of norm {float(row.norm())}", remedy)
    return row


def _over_batches(objective: Objective, basis: Tensor, whole: Tensor, value: float) -> tuple[float | None, int]:
    """The jackknife over batches, from their inner products alone: no batch's gradient is kept."""
    point = objective.layout.flatten(objective.leaves).detach()
    rows, weights, basis = [], [], basis.double()
    with undisturbed(objective):
        for weight, _, gradient in batch_gradients(objective, point):
            row = gradient.double()
            rows.append(torch.cat([basis.T @ row, torch.stack([row @ whole, row @ row])]).cpu())
            weights.append(weight)
    if len(rows) < 2:
        return None, len(rows)
    parts, share = torch.stack(rows), torch.tensor(weights, dtype=torch.float64)
    share = (share / share.sum())[:, None]
    if not objective.divide:  # the whole is a sum: compare means, which have the same directions
        whole = whole / len(rows)
        parts[:, -2] /= len(rows)
    inside, along, square = parts[:, :-2], parts[:, -2:-1], parts[:, -1:]
    left = (basis.T @ whole).cpu() - share * inside  # times 1 − share, which drops out of the ratio
    norm = float(whole.square().sum()) - 2 * share * along + share.square() * square
    left_out = left.square().sum(1, keepdim=True) / norm
    return jackknife(value, left_out[:, 0], share[:, 0]), len(rows)
