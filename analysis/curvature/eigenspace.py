"""Leading eigenspaces with a bound on their angle to the exact ones, and how two of them lie to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import asin, cos, inf, pi
from typing import Any

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from ..errors import ArgumentError, OperandError
from ..operators.base import Operator, as_operator
from ..spectra.eigenpairs import eigenpairs
from ..spectra.results import _axes, _two_digits

_KEYS = {"largest": lambda values: values, "smallest": lambda values: -values, "magnitude": torch.abs}


@dataclass(frozen=True, repr=False)
class Eigenspace:
    r"""The span of the k leading eigenvectors, and how far it may be from the exact one.

    Attributes:
        values: the eigenvalues, (k,), float64 on the CPU.
        basis: (P, k), orthonormal columns, in the operator's dtype and on its device.
        gap: from the k-th eigenvalue to the (k+1)-th plus its residual; not positive if the two cannot be told apart.
        angle: a bound on the largest principal angle to the exact eigenspace, in radians; π/2 is no bound.
        which: the end of the spectrum.
        matvecs: operator products spent.
        converged: whether the eigenpairs, the (k+1)-th among them, have converged.

    """

    values: Tensor
    basis: Tensor
    gap: float
    angle: float
    which: str
    matvecs: int
    converged: bool

    def __repr__(self) -> str:
        count, size = self.basis.shape[1], self.basis.shape[0]
        state = "" if self.converged else "; not converged"
        return f"Eigenspace({count} of {size}, gap {self.gap:.3g}, angle ≤ {self.angle:.2g}, {self.matvecs} products{state})"


def eigenspace(
    operator: Operator,
    k: int,
    which: str = "largest",
    tol: float = 1e-3,
    max_steps: int | None = None,
    seed: int = 0,
) -> Eigenspace:
    r"""The span of the k leading eigenvectors, with a bound on its angle to the exact one.

    .. math:: \sin\vartheta \le \frac{\|HU - U\Theta\|_F}{\theta_k - (\theta_{k+1} + r_{k+1})}

    with θ the eigenvalues found and r their residuals: the sin Θ theorem.

    Args:
        operator, tol, max_steps, seed: as for :func:`~lemmata.analysis.eigenpairs`, which finds k + 1 pairs.
        k: dimension, from 1 to P.
        which: ``"largest"``, ``"smallest"`` or ``"magnitude"``.

    Assumptions: those of :func:`~lemmata.analysis.eigenpairs`: no eigenvalue beyond the (k+1)-th was missed. Where the
    pairs have not converged, or the gap is not larger than the residuals, the angle is π/2, which says nothing.

    Source: Davis & Kahan 1970, The rotation of eigenvectors by a perturbation III.

    Example:
        >>> from lemmata.analysis import Dense
        >>> space = eigenspace(Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0]))), k=2)
        >>> round(space.gap, 4)
        1.0

    """
    operator = as_operator(operator)
    size = operator.shape[0]
    if which not in _KEYS:
        raise ArgumentError("which", f"one of {list(_KEYS)}", repr(which), "Choose one of them.")
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= size:
        raise ArgumentError("k", f"an integer from 1 to P = {size}", repr(k), f"Ask for 1 to {size} dimensions.")
    pairs = eigenpairs(operator, min(k + 1, size), which, tol, max_steps, seed)
    residual = float(pairs.residuals[:k].norm())
    ranked = _KEYS[which](pairs.values)
    gap = inf if k == size else float(ranked[k - 1] - ranked[k] - pairs.residuals[k])
    told = pairs.converged and gap > residual
    angle = asin(residual / gap) if told else pi / 2
    return Eigenspace(pairs.values[:k], pairs.vectors[:, :k], gap, angle, which, pairs.matvecs, pairs.converged)


def squared_cosines(angle: float, by: float) -> tuple[float, float]:
    """The squared cosines of the angles within ``by`` of one from 0 to π/2, smallest and largest."""
    return cos(min(pi / 2, angle + by)) ** 2, cos(max(0.0, angle - by)) ** 2


@dataclass(frozen=True, repr=False)
class EigenspaceOverlap:
    r"""How two eigenspaces lie to each other.

    Attributes:
        angles: the principal angles, (min(k, l),), ascending, in radians, float64 on the CPU.
        error: a bound on the error of each angle: the sum of the two spaces' own.
        value: the mean of the squared cosines, from 0 (orthogonal) to 1 (the smaller space lies in the larger).
        low, high: where the value for the exact eigenspaces lies (to rounding).
        chance: the expected value for a random space.

    """

    angles: Tensor
    error: float
    value: float
    low: float
    high: float
    chance: float

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        shown = f"{self.value:.4g} in [{self.low:.4g}, {self.high:.4g}], chance {self.chance:.2g}"
        span = f"{float(self.angles[0]):.3g} … {float(self.angles[-1]):.3g}"
        return f"EigenspaceOverlap({shown}; {len(self.angles)} angles {span} ± {_two_digits(self.error)})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "angles": self.angles.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> EigenspaceOverlap:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**record, "angles": torch.tensor(record["angles"], dtype=torch.float64)})

    def plot(self, ax: Any = None) -> Any:
        """The principal angles with their error, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.errorbar(range(1, len(self.angles) + 1), self.angles, yerr=self.error, fmt="o", capsize=3)
        ax.set_xlabel("index")
        ax.set_ylabel("principal angle (rad)")
        return ax


def eigenspace_overlap(first: Eigenspace, second: Eigenspace) -> EigenspaceOverlap:
    r"""The principal angles between two eigenspaces, and the mean of their squared cosines.

    .. math:: \frac{\|U^\top V\|_F^2}{\min(k, l)} = \frac{1}{\min(k, l)} \sum_i \cos^2 \vartheta_i

    Args:
        first, second: results of :func:`eigenspace` for vectors of the same length P, for example of one network at
            two steps of training, or of its Hessian and its GGN.

    Cost: O(P (k + l)²).

    Assumptions: those of :func:`eigenspace`. By the minimax characterisation of the angles, each moves by at most the
    sum of the angles by which the two spaces are off.

    Errors: ``OperandError`` for anything else.

    Source: Björck & Golub 1973, Numerical methods for computing angles between linear subspaces.

    Example:
        >>> from lemmata.analysis import Dense
        >>> left, right = (eigenspace(Dense(torch.diag(torch.tensor(d))), 1) for d in ([3.0, 1.0], [1.0, 3.0]))
        >>> eigenspace_overlap(left, right).value < 1e-6
        True

    """
    for name, space in (("first", first), ("second", second)):
        if not isinstance(space, Eigenspace):
            raise OperandError(name, "an Eigenspace", type(space).__name__, "Pass eigenspace(operator, k).")
    if first.basis.shape[0] != second.basis.shape[0]:
        given = f"P = {second.basis.shape[0]}"
        raise OperandError("second", f"P = {first.basis.shape[0]}", given, "Compare spaces of the same parameters.")
    bases = [space.basis.detach().cpu().double().numpy() for space in (first, second)]
    angles = np.sort(subspace_angles(*bases))
    error = min(pi / 2, first.angle + second.angle)
    low, high = np.array([squared_cosines(angle, error) for angle in angles]).mean(0).tolist()
    chance = max(base.shape[1] for base in bases) / bases[0].shape[0]
    value = float((np.cos(angles) ** 2).mean())
    return EigenspaceOverlap(torch.from_numpy(angles), error, value, low, high, chance)
