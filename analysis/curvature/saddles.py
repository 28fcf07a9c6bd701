"""Critical points of a loss, and how many directions go down, up and nowhere from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, LossError, NumericsError
from ..operators.base import Operator, as_operator
from ..operators.hessian import Hessian
from ..operators.layout import Selection
from ..operators.snapshot import choose, snapshot
from ..spectra.eigenpairs import eigenpairs
from ..spectra.results import _axes

_DENSE = 2000  # entries up to which the matrix is formed
_DAMPING = 1e-3, 10.0, 1e14  # relative to ‖H‖²: at the start, its change from step to step, and where to give up


@dataclass(frozen=True, repr=False)
class CriticalPoint:
    r"""Where :func:`critical_point` arrived, and what shows that it is critical.

    Attributes:
        model: a float64 copy of the network, at the point.
        loss: L there.
        gradient_norm: ‖∇L‖ there.
        tolerance: the gradient norm that was asked for, tol · ‖H‖ ‖θ‖.
        newton_step: ‖H⁺ ∇L‖, to first order the distance to the critical points, flat directions left out.
        steps: accepted steps.
        converged: whether ``gradient_norm`` is at most ``tolerance``.

    """

    model: nn.Module
    loss: float
    gradient_norm: float
    tolerance: float
    newton_step: float
    steps: int
    converged: bool

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged: where ‖∇L‖ has a minimum of its own, start elsewhere"
        sizes = f"‖∇L‖ = {self.gradient_norm:.2g} (asked for {self.tolerance:.2g}), Newton step {self.newton_step:.2g}"
        return f"CriticalPoint(L = {self.loss:.9g}, {sizes}, {self.steps} steps{state})"


def critical_point(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    tol: float = 1e-12,
    max_steps: int = 200,
    params: Selection = "*",
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> CriticalPoint:
    r"""A critical point of the loss near a network, be it minimum, saddle or maximum, by damped Newton steps.

    .. math:: d = -(H^2 + \mu I)^{-1} H \nabla L

    These are Levenberg–Marquardt steps for the equations ∇L = 0: each lowers ‖∇L‖, μ falls after a success and grows
    after a failure, and at the end the steps are Newton's, flat directions left out.

    Args:
        model: a small network, at the start; it is copied to float64 and never changed.
        loss, data, params, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`.
        tol: stop where ‖∇L‖ ≤ tol · ‖H‖ ‖θ‖.
        max_steps: the most steps tried.

    Assumptions: the loss is smooth on the way. ‖∇L‖ may also have minima that are no critical points of L (there
    H∇L = 0); ``converged`` is False there.

    Cost: a Hessian (P products) and P³ operations for each accepted step, a gradient for each other one.

    Errors: ``ArgumentError`` for more than 2000 parameters or an option outside its domain; those of the Hessian.

    Source: Levenberg 1944; Marquardt 1963; for losses: Frye et al. 2021, Critical point-finding methods reveal
    gradient-flat regions of deep network losses.

    Example:
        L = (ab − 1)² has minima, and a saddle at 0:

        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> for layer, weight in zip(model, (0.1, -0.2)):
        ...     _ = layer.weight.data.fill_(weight)
        >>> point = critical_point(model, nn.MSELoss(), (torch.ones(1, 1), torch.ones(1, 1)), tol=1e-15)
        >>> point.converged, round(point.loss, 9)
        (True, 1.0)

    """
    if not 0 < tol < 1:
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), "Pass tol=1e-12.")
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ArgumentError("max_steps", "an integer ≥ 1", repr(max_steps), "Pass max_steps=200.")
    private, stats = snapshot(model, torch.float64, batch_stats)
    chosen = choose(private, params)
    size = sum(tensor.numel() for tensor in chosen.values())
    if size > _DENSE:
        remedy = "Choose fewer with params=…, or take a smaller network."
        raise ArgumentError("params", f"at most {_DENSE} entries, for the Hessian is formed", str(size), remedy)

    def bound(theta: Tensor) -> Hessian:
        with torch.no_grad():
            for tensor, part in zip(chosen.values(), theta.split([t.numel() for t in chosen.values()]), strict=True):
                tensor.copy_(part.reshape(tensor.shape))
        return Hessian(private, loss, data, tuple(chosen), torch.float64, stats, reduction=reduction)

    start = torch.cat([tensor.detach().reshape(-1) for tensor in chosen.values()])
    return _descend(bound, start, tol, max_steps, private)


def _descend(
    bound: Callable[[Tensor], Hessian], theta: Tensor, tol: float, max_steps: int, private: nn.Module
) -> CriticalPoint:
    damping, factor, limit = _DAMPING
    here, steps = bound(theta), 0
    values, vectors = torch.linalg.eigh(_symmetric(here.dense()))
    for _ in range(max_steps):
        scale = float(values.abs().max())
        aim = tol * scale * float(theta.norm())
        if float(here.gradient.norm()) <= aim or damping > limit or not scale:
            break
        slope = vectors.T @ here.gradient
        step = -vectors @ (values * slope / (values.square() + damping * scale**2))
        try:
            there = bound(theta + step)
            better = float(there.gradient.norm()) < float(here.gradient.norm())
        except (LossError, NumericsError):
            better = False
        if not better:
            damping *= factor
            continue
        here, theta, steps, damping = there, theta + step, steps + 1, max(damping / factor, 1e-30)
        values, vectors = torch.linalg.eigh(_symmetric(here.dense()))
    bound(theta)  # the copy may stand at a step that was refused
    scale = float(values.abs().max())
    slope, aim = vectors.T @ here.gradient, tol * scale * float(theta.norm())
    curved = values.abs() > 1e-8 * scale
    newton = float((slope[curved] / values[curved]).norm())
    norm = float(here.gradient.norm())
    return CriticalPoint(private, here.value, norm, aim, newton, steps, norm <= aim)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


@dataclass(frozen=True, repr=False)
class MorseIndex:
    r"""Numbers of negative, zero and positive eigenvalues, and of those that could not be told.

    Attributes:
        negative, zero, positive: certified counts: eigenvalues below −threshold, within it, above it. The number of
            negative ones is the Morse index of a critical point.
        undecided: the others: closer to ±threshold than ``bound``, or not searched for.
        threshold: the absolute size up to which an eigenvalue counts as zero.
        bound: no computed eigenvalue is further than this from the one it stands for.
        values: the computed eigenvalues, ascending, float64 on the CPU.
        method: ``"dense"`` or ``"Lanczos"``.
        matvecs: operator products spent.

    """

    negative: int
    zero: int
    positive: int
    undecided: int
    threshold: float
    bound: float
    values: Tensor
    method: str
    matvecs: int

    @property
    def certified(self) -> bool:
        """Whether every eigenvalue is decided."""
        return self.undecided == 0

    def __repr__(self) -> str:
        counts = f"{self.negative} negative, {self.zero} zero, {self.positive} positive, {self.undecided} undecided"
        return f"MorseIndex({counts}; zero is |λ| ≤ {self.threshold:.2g}, error ≤ {self.bound:.2g}; {self.method})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "values": self.values.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> MorseIndex:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**record, "values": torch.tensor(record["values"], dtype=torch.float64)})

    def plot(self, ax: Any = None) -> Any:
        """The computed eigenvalues in order, with the band of zero, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.errorbar(range(1, len(self.values) + 1), self.values, yerr=self.bound, fmt="o", capsize=2)
        ax.axhspan(-self.threshold, self.threshold, alpha=0.3)
        ax.set_yscale("symlog", linthresh=max(self.threshold, 1e-300))
        ax.set_xlabel("index")
        ax.set_ylabel("eigenvalue")
        return ax


def morse_index(
    operator: Operator, zero: float | None = None, k: int = 20, max_steps: int | None = None, seed: int = 0
) -> MorseIndex:
    r"""How many eigenvalues are negative, zero and positive; for the Hessian at a critical point, its Morse index.

    Up to P = 2000 the matrix is formed. With computed eigenvalues Λ and vectors V, R = SV − VΛ and
    δ = ‖VᵀV − I‖, every eigenvalue of the symmetric part S is within

    .. math:: \frac{\|R\| + 2\delta\|\Lambda\|}{\sqrt{1 - \delta}}

    of its computed one (the rounding of R and δ is added), and those of the operator within ‖A − Aᵀ‖ + ε‖A‖ more, which
    stands for the rounding of the products. Beyond P = 2000, k pairs at each end by Lanczos iteration. Those that lie
    beyond the threshold by more than their residual bound the counts from below, by Cauchy's interlacing for orthonormal
    vectors (what they lack of it is added); all other eigenvalues are undecided.

    Args:
        operator: symmetric, P × P.
        zero: relative to the largest absolute eigenvalue: what is no larger counts as zero. By default the root of the
            precision, 1.5e-8 in float64.
        k, max_steps, seed: of the Lanczos iteration.

    Cost: P products and P³ operations, or those of :func:`~lemmata.analysis.eigenpairs`.

    Assumptions: the asymmetry of the products is no smaller than their error. At a critical point whose Hessian has an
    eigenvalue below the threshold that is not zero, the count is of the threshold's making: look at ``values``.

    Errors: ``ArgumentError`` for an option outside its domain, ``NumericsError`` for products that are not finite.

    Source: Parlett 1998, The symmetric eigenvalue problem, ch. 10 and 11.

    Example:
        >>> from lemmata.analysis import Dense
        >>> index = morse_index(Dense(torch.diag(torch.tensor([2.0, 0.0, -1.0, -3.0], dtype=torch.float64))))
        >>> index.negative, index.zero, index.positive, index.certified
        (2, 1, 1, True)

    """
    operator = as_operator(operator)
    eps = torch.finfo(operator.dtype).eps
    relative = sqrt(eps) if zero is None else zero
    if not 0 < relative < 1:
        raise ArgumentError("zero", "a number strictly between 0 and 1", repr(zero), "Pass zero=1e-8.")
    size = operator.shape[0]
    if size <= _DENSE:
        values, bound = _dense(operator, eps)
        return _count(values, torch.full_like(values, bound), relative, size, "dense", size)
    pairs = eigenpairs(operator, k, "both", max_steps=max_steps, seed=seed)
    order = pairs.values.argsort()
    values, errors = pairs.values[order], pairs.residuals[order]
    vectors = pairs.vectors.double()
    skew = float((vectors.T @ vectors - torch.eye(vectors.shape[1]).to(vectors)).norm())
    errors = errors + (eps * sqrt(size) + 2 * skew) * float(values.abs().max())
    return _count(values, errors, relative, size, "Lanczos", pairs.matvecs)


def _count(values: Tensor, errors: Tensor, relative: float, size: int, method: str, matvecs: int) -> MorseIndex:
    threshold = relative * float(values.abs().max())
    negative = int((values + errors < -threshold).sum())
    positive = int((values - errors > threshold).sum())
    inside = int((values.abs() + errors <= threshold).sum()) if method == "dense" else 0
    rest = size - negative - positive - inside
    return MorseIndex(negative, inside, positive, rest, threshold, float(errors.max()), values, method, matvecs)


def _dense(operator: Operator, eps: float) -> tuple[Tensor, float]:
    """Eigenvalues, ascending, and a bound on the error of each."""
    matrix = operator.dense().to("cpu", torch.float64)
    if not bool(matrix.isfinite().all()):
        remedy = "Look for overflow in the model, or take dtype=torch.float64."
        raise NumericsError(repr(operator), "finite products", "inf or nan", remedy)
    symmetric, size = _symmetric(matrix), len(matrix)
    values, vectors = torch.linalg.eigh(symmetric)
    unit = 2 * size * torch.finfo(torch.float64).eps  # of an inner product of that length, generously
    whole = float(symmetric.norm())
    rest = float((symmetric @ vectors - vectors * values).norm()) + unit * whole * sqrt(size)
    skew = float((vectors.T @ vectors - torch.eye(size, dtype=torch.float64)).norm()) + unit * sqrt(size)
    bound = (rest + 2 * skew * float(values.abs().max())) / sqrt(max(1 - skew, 0.1))
    return values, bound + float((matrix - matrix.T).norm()) + eps * whole
