"""Singular values of the Jacobians inside a model: how far it stretches and shrinks small changes of one place at another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, sqrt
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import relative, tolerance_of
from ..errors import ArgumentError, DataError
from ..operators.data import fit
from ..operators.snapshot import snapshot
from ..spectra.eigenpairs import eigenpairs
from ..spectra.frobenius import frobenius_norm
from ..spectra.probes import check_seed
from ..spectra.results import Estimate, _axes
from ..spectra.trace import trace
from .passage import Gram, Passage, first_float, take

_OPERATIONS = 2**32  # of one singular value decomposition, min(m, n)² max(m, n), up to which it is made
_ENTRIES = 2**26  # of the Jacobians held at a time


@dataclass(frozen=True)
class Isometry:
    """Whether all singular values of all examples lie in a band: True, False, or None where the intervals leave it open.

    ``smallest`` and ``largest`` are intervals of the extreme ones; ``share`` of all singular values inside the band, None
    where not all were computed.
    """

    holds: bool | None
    smallest: tuple[float, float]
    largest: tuple[float, float]
    band: tuple[float, float]
    share: float | None


@dataclass(frozen=True, repr=False)
class JacobianSpectrum:
    r"""Singular values of :math:`J_n = \partial y_n / \partial x_n`, (m, n), of N examples; r = min(m, n) of each.

    Attributes:
        source, target: the places of x and y. shape: (m, n).
        values: (N, r), descending; where ``complete`` is False the k largest and the k smallest, (N, 2k).
        low, high: like ``values``, intervals that hold a singular value each: of rounding, or residuals.
        mean_squares: (N,), μ₁ = Σσ²/r of each example. spreads: (N,), μ₂/μ₁² with μ₂ = Σσ⁴/r: 1 where all σ are equal.
        moment_error: relative half-width of the 95 % interval of one example's moments, of rounding or of probes; the
            largest of all.
        products: with J or Jᵀ of one example. method: ``"dense"`` or ``"Lanczos"``. seed: of the probes.
        converged: whether residuals and probes met the tolerance.
        batch_stats, switched: as for :class:`~lemmata.analysis.Hessian`.

    """

    source: str
    target: str
    shape: tuple[int, int]
    values: Tensor
    low: Tensor
    high: Tensor
    mean_squares: Tensor
    spreads: Tensor
    moment_error: float
    products: int
    method: str
    seed: int
    converged: bool
    batch_stats: str | None = None
    switched: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all singular values were computed."""
        return self.values.shape[1] == min(self.shape)

    @property
    def mean_square(self) -> Estimate:
        """The mean squared singular value, its interval over examples: infinite for a single one."""
        return self._over_examples(self.mean_squares)

    @property
    def spread(self) -> Estimate:
        """μ₂/μ₁², its interval over examples: one more than the relative variance of squared singular values."""
        return self._over_examples(self.spreads)

    def _over_examples(self, parts: Tensor) -> Estimate:
        value, n = float(parts.mean()), len(parts)
        stderr = float(parts.std()) / sqrt(n) if n > 1 else inf
        bias = (
            self.moment_error * abs(value) if self.complete else 0.0
        )  # chance in the probes shows in the examples' spread
        return Estimate(value, stderr, n - 1, None, self.products, self.seed, self.method, self.converged, bias)

    def isometry(self, low: float = 0.5, high: float = 2.0) -> Isometry:
        """Dynamical isometry, that all singular values are near one: between ``low`` and ``high``."""
        if not 0 <= low < high:
            raise ArgumentError("band", "0 ≤ low < high", f"({low}, {high})", "Pass low=0.5, high=2.0, for example.")
        smallest = float(self.low[:, -1].min()), float(self.high[:, -1].min())
        largest = float(self.low[:, 0].max()), float(self.high[:, 0].max())
        inside, outside = low <= smallest[0] and largest[1] <= high, smallest[1] < low or largest[0] > high
        holds = True if inside else (False if outside else None)
        share = float(((self.values >= low) & (self.values <= high)).double().mean()) if self.complete else None
        return Isometry(holds, smallest, largest, (low, high), share)

    def __repr__(self) -> str:
        found = self.isometry()
        told = {True: "isometric", False: "not isometric", None: "isometry open"}[found.holds]
        extremes = f"σ from {_between(found.smallest)} to {_between(found.largest)}"
        sizes = f"{self.source} → {self.target}, {self.shape[0]} × {self.shape[1]}, {len(self.values)} examples"
        state = "" if self.converged else "; not converged"
        moments = f"mean σ² {_short(self.mean_square)}, μ₂/μ₁² {_short(self.spread)}"
        return f"JacobianSpectrum({sizes}: {extremes}; {moments}; {told} to a factor of 2; {self.method}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> JacobianSpectrum:
        """The inverse of :meth:`to_dict`."""
        kept = ("values", "low", "high", "mean_squares", "spreads")
        tensors = {name: torch.tensor(record[name], dtype=torch.float64) for name in kept}
        tuples = {name: tuple(record[name]) for name in ("shape", "switched")}
        return cls(**{**record, **tensors, **tuples})

    def plot(self, ax: Any = None) -> Any:
        """The singular values of all examples on a logarithmic axis, on matplotlib axes (new ones if None).

        A histogram where they are complete, else the extremes of each example with their intervals.
        """
        ax = _axes(ax)
        if not self.complete:
            place = torch.arange(len(self.values))[:, None].expand_as(self.values)
            bars = torch.stack([self.values - self.low, self.high - self.values]).flatten(1).clamp(min=0)
            ax.errorbar(place.flatten(), self.values.flatten(), bars, fmt="o", markersize=4, capsize=3)
            ax.set(xlabel="example", ylabel="extreme singular values", yscale="log")
            return ax
        top = float(self.values.max()) or 1.0
        edges = torch.logspace(-6, 0.02, 61, dtype=torch.float64) * top
        ax.hist(self.values.flatten().clamp(min=float(edges[0])), edges)
        ax.axvline(1.0, color="0.3", linestyle="--", linewidth=1)
        ax.set(xlabel="singular value", ylabel="number", xscale="log")
        return ax


def jacobian_spectrum(
    model: nn.Module,
    inputs: Any,
    source: str | None = None,
    target: str | None = None,
    k: int = 1,
    tol: float = 1e-3,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
    seed: int = 0,
) -> JacobianSpectrum:
    r"""The singular values of the Jacobian from one place of a model to another, for each example.

    .. math:: J_n = \frac{\partial y_n}{\partial x_n} = U \,\mathrm{diag}(\sigma)\, V^\top, \qquad
        \mu_k = \frac1r \sum_i \sigma_i^{2k}, \quad r = \min(m, n)

    Dynamical isometry means that all σ are near one: no change grows, none is lost. The mean square μ₁ says how gradients
    grow on average, the spread μ₂/μ₁² how unevenly; it is 1 only where all σ are equal.

    Args:
        model: any ``nn.Module``. It is copied and never changed.
        inputs: what it is called with: a tensor, a tuple of arguments, or a mapping of keywords. The first axis counts
            the examples, which must not see each other.
        source, target: names of modules, whose outputs (of several tensors the first floating one) are x and y; None for
            the model's input and output. All else in the network is held fixed: a path around the source is no part of J.
        k: how many of the largest and of the smallest to compute where all are too many. tol: relative, of their squares,
            as for :func:`eigenpairs`; and of the moments there, at most 1 %.
        dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`. seed: of probes and first vectors.

    Shapes: x_n of n entries, y_n of m, flattened.

    Cost: where min(m, n)² max(m, n) ≤ 2³², min(m, n) products, forward or back, whichever are fewer, and a decomposition
    for each example. Else Lanczos iteration on J Jᵀ or Jᵀ J, two products a step, and probes for the moments.

    Assumptions: intervals of the dense way are the rounding of a backward stable decomposition, √max(m, n) · 8 ε σ_max;
    those of Lanczos hold a singular value each, to the rounding of the square: σ below √ε σ_max are bounded, not resolved.
    Intervals of the moments are over examples, taken for independent draws.

    Errors: ``ArgumentError`` for inputs of integers (with the module to name), a place that does not exist, is called
    more than once or does not depend on the source; ``DataError`` where the first axis does not count examples;
    ``ModelStateError`` where examples see each other, and as for the Hessian.

    Source: Pennington, Schoenholz & Ganguli 2017, Resurrecting the sigmoid in deep learning through dynamical isometry;
    Saxe, McClelland & Ganguli 2014, Exact solutions to the nonlinear dynamics of learning in deep linear neural networks.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> model.weight.data = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> found = jacobian_spectrum(model, torch.ones(4, 2))
        >>> found.values[0].tolist(), round(found.mean_square.value, 6), round(found.spread.value, 6)
        ([3.0, 1.0], 5.0, 1.64)
        >>> found.isometry().holds
        False

    """
    if not isinstance(k, int) or k < 1:
        raise ArgumentError("k", "an integer ≥ 1", repr(k), "Pass k=1 for the largest and the smallest.")
    if not isinstance(tol, Real) or not 0 < tol < 1:
        remedy = "Pass a relative tolerance such as tol=1e-3."
        raise ArgumentError("tol", "a number strictly between 0 and 1", repr(tol), remedy)
    check_seed(seed)
    with torch.inference_mode(False), torch.enable_grad():
        private, stats = snapshot(model, dtype, batch_stats)
        private.requires_grad_(False)
        given = _fitted(private, inputs, dtype)
        whole = Passage(private, given, source, target)
        whole.check_apart(seed)
        (m, n), count = whole.shape, whole.examples
        dense = min(m, n) ** 2 * max(m, n) <= _OPERATIONS and m * n <= _ENTRIES
        group = min(count, max(1, _ENTRIES // (m * n))) if dense else 1
        parts = []
        for start in range(0, count, group):
            passage = whole
            if group < count:
                passage = Passage(private, take(given, count, slice(start, start + group)), source, target)
                _check_cut(passage.y, whole.y[start : start + group])
            parts.append(_dense(passage) if dense else _lanczos(passage, k, tol, seed + start))
    tensors = [torch.cat([part[i] for part in parts]).double().cpu() for i in range(5)]
    products, error = sum(part[5] for part in parts), max(part[6] for part in parts)
    converged, method = all(part[7] for part in parts), "dense" if dense else "Lanczos"
    head, switched = (*whole.names, (m, n)), tuple(sorted(whole.switched))
    return JacobianSpectrum(*head, *tensors, error, products, method, seed, converged, stats, switched)


def _fitted(private: nn.Module, inputs: Any, dtype: torch.dtype | None) -> Any:
    reference = next((p for p in private.parameters() if p.is_floating_point()), first_float(inputs))
    if reference is None:
        return inputs  # integers without parameters: refused where the source is looked for
    return fit(inputs, "inputs", dtype or reference.dtype, reference.device, cast=dtype is not None)


def _check_cut(found: Tensor, wanted: Tensor) -> None:
    """Some of the examples, called by themselves, must give what they gave among all."""
    if found.shape != wanted.shape or relative(found.detach(), wanted.detach()) > tolerance_of(wanted.dtype):
        expected = "tensors whose first axis counts the examples, if it is as long as they are many"
        given = f"outputs {tuple(found.shape)} other than among all, {tuple(wanted.shape)}"
        remedy = (
            "Wrap the model in one that takes the examples first (batch_first=True) and holds the rest, such as a mask."
        )
        raise DataError("inputs", expected, given, remedy)


Part = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, float, bool]


def _dense(passage: Passage) -> Part:
    """Values, intervals, μ₁, μ₂/μ₁², products, relative error of the moments and convergence of some examples."""
    jacobians = passage.dense()
    values = torch.linalg.svdvals(jacobians.double())
    rounding = 8 * max(passage.shape) ** 0.5 * torch.finfo(jacobians.dtype).eps
    error = rounding * values[:, :1]
    squares = values.square()
    first = squares.mean(1)
    spread = squares.square().mean(1) / torch.where(first > 0, first.square(), 1.0)
    products = passage.examples * min(passage.shape)
    return values, (values - error).clamp(min=0), values + error, first, spread, products, 4 * rounding, True


def _lanczos(passage: Passage, k: int, tol: float, seed: int) -> Part:
    """The same for one example, from products alone."""
    gram, size = Gram(passage), min(passage.shape)
    pairs = eigenpairs(gram, min(k, size // 2 or 1), "both", tol, seed=seed)
    rounding = 8 * torch.finfo(gram.dtype).eps * float(pairs.values[0])
    error = pairs.residuals + rounding
    low, high = ((pairs.values + sign * error).clamp(min=0).sqrt() for sign in (-1, 1))
    first = trace(gram, max(tol, 0.01), seed=seed)
    second = frobenius_norm(gram, max(tol, 0.01), seed=seed)
    spread = size * second.value**2 / first.value**2 if first.value else 0.0
    moments = torch.tensor([[first.value / size], [spread]], dtype=torch.float64, device="cpu")
    products = 2 * (pairs.matvecs + first.matvecs + second.matvecs)
    met = pairs.converged and first.converged and second.converged
    relative = 2 * sum((e.interval()[1] - e.value) / abs(e.value) for e in (first, second)) if first.value else 0.0
    values = pairs.values.clamp(min=0).sqrt()
    return values[None], low[None], high[None], moments[0], moments[1], products, relative, met


def _short(estimate: Estimate) -> str:
    half = estimate.interval()[1] - estimate.value
    return f"{estimate.value:.3g}" + (f" ± {half:.1g}" if half < inf else "")


def _between(ends: tuple[float, float]) -> str:
    low, high = (f"{end:.4g}" for end in ends)
    return low if low == high else f"[{low}, {high}]"
