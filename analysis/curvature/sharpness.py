"""One table of sharpness measures at a model's parameters, each with an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ParameterError
from ..operators.base import Operator
from ..operators.fisher import EmpiricalFisher
from ..operators.gauss_newton import GGN
from ..operators.hessian import Hessian
from ..operators.layout import Layout, Selection
from ..operators.objective import Objective, of_model
from ..spectra.eigenpairs import eigenpairs
from ..spectra.results import Eigenpairs, Estimate, _axes
from ..spectra.trace import trace
from .ball import Ball
from .congruence import Congruence
from .gradients import bound
from .text_table import text_table


@dataclass(frozen=True)
class Measure:
    """One number of the panel.

    Attributes:
        name: what is measured.
        value: the number.
        low, high: its interval; ``high`` is None where the value is a lower bound and nothing more is known.
        method: what the interval is.
        cost: operator products or gradients spent.

    """

    name: str
    value: float
    low: float
    high: float | None
    method: str
    cost: int

    @property
    def half_width(self) -> float:
        """The larger side of the interval, of the lower side alone where the upper is not known."""
        return max(self.value - self.low, 0.0 if self.high is None else self.high - self.value)


@dataclass(frozen=True, repr=False)
class SharpnessPanel:
    """Measures of the sharpness of one loss at one point, by name as ``panel["trace"]``.

    Attributes:
        measures: in the order of the table.
        loss, gradient_norm: at the parameters.
        rho, adaptive_rho: the radii of SAM and ASAM.
        layer: the weight whose relative flatness is taken; None if the model has no matrix.
        size: P, the number of parameters.
        dtype: in which it was computed.

    """

    measures: tuple[Measure, ...]
    loss: float
    gradient_norm: float
    rho: float
    adaptive_rho: float
    layer: str | None
    size: int
    dtype: str

    def __getitem__(self, name: str) -> Measure:
        for measure in self.measures:
            if measure.name == name:
                return measure
        known = [measure.name for measure in self.measures]
        raise ArgumentError("measure", f"one of {known}", repr(name), "Choose one of them.")

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """A table: measure, value, interval, what it is, cost."""
        table = []
        for m in self.measures:
            high = "∞" if m.high is None else f"{m.high:.6g}"
            table.append((m.name, f"{m.value:.6g}", f"[{m.low:.6g}, {high}]", m.method, str(m.cost)))
        return table

    def __repr__(self) -> str:
        head = f"loss {self.loss:.6g}, gradient norm {self.gradient_norm:.4g}, {self.size} parameters, {self.dtype}"
        header = ("measure", "value", "interval", "what it is", "cost")
        return f"SharpnessPanel({head})\n{text_table(header, self.rows())}"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "measures": [asdict(measure) for measure in self.measures]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SharpnessPanel:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**record, "measures": tuple(Measure(**measure) for measure in record["measures"])})

    def plot(self, ax: Any = None) -> Any:
        """The values with their intervals on a symmetric log axis; lower bounds carry an arrow. On matplotlib axes."""
        ax = _axes(ax)
        for place, m in enumerate(self.measures):
            high = m.value if m.high is None else m.high
            error = [[max(0.0, m.value - m.low)], [max(0.0, high - m.value)]]
            ax.errorbar([m.value], [place], xerr=error, fmt=">" if m.high is None else "o", capsize=3, color="C0")
        sizes = [abs(m.value) for m in self.measures if m.value]
        ax.set_xscale("symlog", linthresh=min(sizes, default=1.0))
        ax.set_yticks(range(len(self.measures)), [m.name for m in self.measures], parse_math=False)
        ax.invert_yaxis()
        return ax


def sharpness(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    rho: float = 0.05,
    adaptive_rho: float = 0.5,
    layer: str | None = None,
    params: Selection = "*",
    tol: float = 0.01,
    steps: int = 50,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    reduction: str | None = None,
) -> SharpnessPanel:
    r"""Ten measures of sharpness of the mean loss over data, each with an interval.

    .. math:: \lambda_1(H), \quad \operatorname{tr} H, \quad \lambda_1(THT), \quad
        \max_{\|\epsilon\|_2 \le \rho} L(\theta + \epsilon) - L(\theta), \quad
        \max_{\|T^{-1} \epsilon\|_2 \le \rho} L(\theta + \epsilon) - L(\theta), \quad
        \theta^\top F \theta, \quad \theta^\top E \theta, \quad
        \sum_{s, s'} \langle w_s, w_{s'} \rangle \operatorname{tr} H_{ss'}, \qquad T = \operatorname{diag}|\theta|

    - ``"largest eigenvalue"``, ``"adaptive largest eigenvalue"`` of H and THT: residual intervals.
    - ``"trace"``: by :func:`~lemmata.analysis.trace`.
    - ``"SAM one step"``: the loss's increase at ρ g/‖g‖. ``"SAM"``: the largest increase found by projected ascent from
      there and from both ends of the leading eigenvector. It is a **lower bound** of the maximum over the ball: no
      upper bound of a loss that is not convex can be had from finitely many points.
    - ``"ASAM one step"``, ``"ASAM"``: the same in coordinates relative to the parameters, ε = |θ| δ (elementwise, with
      nothing added to |θ|, so that rescalings leave it alone). A parameter that is zero stays zero.
    - ``"Fisher–Rao norm"``: θᵀGθ with G the Gauss–Newton matrix, which is the Fisher information for losses that are
      likelihoods. ``"Fisher–Rao norm, observed targets"``: θᵀEθ with E the empirical Fisher matrix, the definition of
      Liang et al.; for networks without biases of L piecewise linear layers it is :math:`L^2 E \langle \partial \ell /
      \partial f, f \rangle^2`. Both are exact to rounding.
    - ``"relative flatness"``: of one weight W with rows w_s, H_ss' the block of H between the rows s and s'.

    Args:
        model, loss, data, params, dtype, batch_stats, reduction: as for :class:`~lemmata.analysis.Hessian`. The model
            returns one tensor.
        rho, adaptive_rho: the radii of SAM and of ASAM.
        layer: the name of the weight for the relative flatness; the last parameter with two axes or more if None.
        tol: relative tolerance of the traces; the eigenvalues take a tenth of it.
        steps: the most steps of each ascent.
        seed: of the Lanczos starts and the probes.

    Cost: two sets of eigenpairs, two traces, two products, and up to 2 · 3 · (steps + 1) gradients.

    Assumptions: those of :class:`~lemmata.analysis.Hessian`, :func:`~lemmata.analysis.eigenpairs` and
    :func:`~lemmata.analysis.trace`.

    Errors: ``ArgumentError`` for an option outside its domain, ``ParameterError`` for a layer that is no matrix among
    the chosen parameters, ``NumericsError`` for a loss that is not finite within the radius; those of the Hessian.

    Source: Foret et al. 2021, Sharpness-aware minimization; Kwon et al. 2021, ASAM; Liang et al. 2019, Fisher–Rao metric,
    geometry, and complexity of neural networks; Petzka et al. 2021, Relative flatness and generalization.

    Example:
        L = w² at w = 1: λ₁ = 2, L(w + ρ) − L(w) = 2ρ + ρ², θᵀGθ = 2

        >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> data = (torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
        >>> panel = sharpness(model, torch.nn.MSELoss(), data, rho=0.1)
        >>> [round(panel[name].value, 6) for name in ("largest eigenvalue", "SAM", "Fisher–Rao norm")]
        [2.0, 0.21, 2.0]

    """
    for name, radius in (("rho", rho), ("adaptive_rho", adaptive_rho)):
        if isinstance(radius, bool) or not isinstance(radius, float | int) or not 0 < radius or not isfinite(radius):
            raise ArgumentError(name, "a finite number > 0", repr(radius), f"Pass {name}=0.05.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ArgumentError("steps", "an integer ≥ 1", repr(steps), "Pass steps=50.")
    if not 0 < tol < 1:
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), "Pass tol=0.01.")
    with torch.inference_mode(False), torch.enable_grad():
        objective = of_model(model, loss, data, params, dtype, batch_stats, reduction)
    layer = _layer(objective.layout, layer)
    theta = objective.layout.flatten(objective.leaves).detach()
    hessian = bound(Hessian, objective)
    measures = [
        *_curvatures(objective, hessian, theta, (rho, adaptive_rho), tol, steps, seed),
        _form("Fisher–Rao norm", bound(GGN, objective), theta),
        _form("Fisher–Rao norm, observed targets", bound(EmpiricalFisher, objective), theta),
    ]
    if layer is not None:
        measures.append(_relative_flatness(hessian, layer, objective.leaves[layer].detach(), tol, seed))
    kind = str(objective.dtype).removeprefix("torch.")
    norm = float(hessian.gradient.norm())
    return SharpnessPanel(tuple(measures), hessian.value, norm, rho, adaptive_rho, layer, len(theta), kind)


def _curvatures(
    objective: Objective,
    hessian: Hessian,
    theta: Tensor,
    radii: tuple[float, float],
    tol: float,
    steps: int,
    seed: int,
) -> Iterator[Measure]:
    """Eigenvalues, trace, and the increases in the two balls, which start at the eigenvectors."""
    scale = theta.abs()

    def scaled(rows: Tensor) -> Tensor:
        return scale * rows

    pairs = eigenpairs(hessian, 1, tol=tol / 10, seed=seed)
    adaptive = eigenpairs(Congruence(hessian, hessian.layout, scaled, scaled), 1, tol=tol / 10, seed=seed)
    yield _eigenvalue("largest eigenvalue", pairs)
    yield _eigenvalue("adaptive largest eigenvalue", adaptive)
    yield _estimate("trace", trace(hessian, tol=tol, seed=seed))
    cases = (("SAM", torch.ones_like(theta), pairs), ("ASAM", scale, adaptive))
    for radius, (name, unit, found) in zip(radii, cases, strict=True):
        ascent = Ball(objective, theta, unit, radius).largest([found.vectors[:, 0]], steps)
        first, best, error = ascent.one_step, ascent.refined, ascent.rounding
        yield Measure(f"{name} one step", first, first - error, first + error, "± rounding", 1)
        yield Measure(name, best, best - error, None, "lower bound of the maximum", ascent.gradients)


def _eigenvalue(name: str, pairs: Eigenpairs) -> Measure:
    (low, high), value = pairs.intervals[0], float(pairs.values[0])
    return Measure(name, value, low, high, "residual interval" + _state(pairs.converged), pairs.matvecs)


def _estimate(name: str, found: Estimate) -> Measure:
    kind = "95 % interval" if found.stderr else "exact to rounding"
    return Measure(name, found.value, *found.interval(), kind + _state(found.converged), found.matvecs)


def _state(converged: bool) -> str:
    return "" if converged else ", not converged"


def _form(name: str, operator: Operator, theta: Tensor) -> Measure:
    value = float(theta.double() @ (operator @ theta).double())
    return Measure(name, value, value, value, "exact to rounding", 1)


def _layer(layout: Layout, layer: str | None) -> str | None:
    """The weight whose relative flatness is taken."""
    matrices = [name for name, shape in zip(layout.names, layout.shapes, strict=True) if len(shape) > 1]
    if layer is None:
        return matrices[-1] if matrices else None
    if layer not in matrices:
        remedy = "Name a weight with two axes or more."
        raise ParameterError("layer", f"one of {matrices}", repr(layer), remedy)
    return layer


def _relative_flatness(hessian: Hessian, layer: str, weight: Tensor, tol: float, seed: int) -> Measure:
    r"""tr(Bᵀ H B) with B X = F X and F Fᵀ = W Wᵀ: the columns of F X vary W along its own column space."""
    rows = weight.flatten(1)
    left, values, _ = torch.linalg.svd(rows, full_matrices=False)
    factor = left * values
    height, width, rank = *rows.shape, factor.shape[1]
    layout = Layout((layer,), ((rank, width),))

    def push(vectors: Tensor) -> Tensor:
        return (factor @ vectors.reshape(-1, rank, width)).flatten(1)

    def pull(vectors: Tensor) -> Tensor:
        return (factor.T @ vectors.reshape(-1, height, width)).flatten(1)

    form = Congruence(hessian.restrict(lambda name: name == layer), layout, push, pull)
    return _estimate("relative flatness", trace(form, tol=tol, seed=seed))
