"""The top of the spectrum along training, against the step sizes at which it becomes unstable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..operators.base import Operator
from ..operators.hessian import Hessian
from ..operators.layout import Selection
from ..spectra.eigenpairs import eigenpairs
from ..spectra.results import _axes
from .stability import Preconditioned


@dataclass(frozen=True, repr=False)
class CurvatureRecord:
    r"""What a :class:`CurvatureTracker` has measured, n times; tensors in float64 on the CPU, steps integers.

    Attributes:
        steps: (n,), the number of calls of the tracker before each measurement.
        losses, gradient_norms: (n,).
        eigenvalues, residuals: (n, k), descending; each interval [θ − r, θ + r] holds an eigenvalue.
        overlaps: (n,), the share ‖Uᵀg‖²/‖g‖² of the gradient in the space of the k eigenvectors.
        matvecs: (n,), products spent.
        converged: (n,), whether the residuals met the tolerance.

    """

    steps: Tensor
    losses: Tensor
    gradient_norms: Tensor
    eigenvalues: Tensor
    residuals: Tensor
    overlaps: Tensor
    matvecs: Tensor
    converged: Tensor

    def __repr__(self) -> str:
        if not len(self.steps):
            return "CurvatureRecord(empty)"
        first, last = (f"{float(self.eigenvalues[i, 0]):.4g} ± {float(self.residuals[i, 0]):.2g}" for i in (0, -1))
        span = f"steps {int(self.steps[0])} – {int(self.steps[-1])}"
        lost = int((~self.converged).sum())
        state = f"; {lost} not converged" if lost else ""
        return f"CurvatureRecord({len(self.steps)} measurements, {span}, λ₁ {first} → {last}, {int(self.matvecs.sum())} products{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: tensor.tolist() for name, tensor in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CurvatureRecord:
        """The inverse of :meth:`to_dict`."""
        kinds = {"steps": torch.int64, "matvecs": torch.int64, "converged": torch.bool}
        tensors = {name: torch.tensor(item, dtype=kinds.get(name, torch.float64)) for name, item in record.items()}
        if not len(tensors["steps"]):
            tensors.update({name: torch.empty(0, 0, dtype=torch.float64) for name in ("eigenvalues", "residuals")})
        return cls(**tensors)

    def plot(self, ax: Any = None, threshold: float | None = None) -> Any:
        """The eigenvalues with their residuals, and a threshold such as 2/η, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        for index in range(self.eigenvalues.shape[1]):
            bars = self.residuals[:, index]
            ax.errorbar(
                self.steps,
                self.eigenvalues[:, index],
                yerr=bars,
                fmt="o-",
                markersize=3,
                label=f"eigenvalue {index + 1}",
            )
        if threshold is not None:
            ax.axhline(threshold, linestyle="--", color="0.3", label="threshold")
        ax.set_xlabel("step")
        ax.set_ylabel("curvature")
        ax.legend()
        return ax


class CurvatureTracker:
    r"""Measures the largest Hessian eigenvalues of a network while it is trained, each search starting from the last.

    Call it once for each training step; every ``every``-th call measures, the first included. Or let an optimiser call
    it, before each of its steps: ``with tracker.attached(optimizer): …``. The network, its gradients and the global
    random generators of torch are left as they are, to the bit.

    Args:
        model, loss, data, params, dtype, batch_stats, memory_cap, reduction: as for
            :class:`~lemmata.analysis.Hessian`. The network is looked at anew for each measurement.
        k: eigenvalues, from the largest.
        every: calls from one measurement to the next.
        tol: relative, of their residuals.
        seed: of the random directions.
        preconditioner: takes the tracked parameters by name to the positive diagonal P of a preconditioner, such as
            :func:`~lemmata.analysis.curvature.adam_preconditioner`; eigenvalues and overlaps are then those of :math:`P^{-1/2} H P^{-1/2}` and
            :math:`P^{-1/2} g`. While it gives None, nothing is measured.

    Cost: for each measurement about 1.5 gradients, and a product (1.5 – 2.5 gradients) for each Lanczos step: a few
    where the network has moved little.

    Errors: those of the Hessian, at the first measurement; ``ArgumentError`` for an option outside its domain.

    Source: Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of stability.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = torch.ones(1, 1), torch.zeros(1, 1)
        >>> tracker = CurvatureTracker(model, nn.MSELoss(), data, every=2)
        >>> for _ in range(3):
        ...     tracker()
        >>> tracker.record.steps.tolist(), tracker.record.eigenvalues[:, 0].tolist()
        ([0, 2], [2.0, 2.0])

    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        data: Any,
        k: int = 1,
        every: int = 50,
        tol: float = 1e-2,
        seed: int = 0,
        preconditioner: Callable[[Mapping[str, Tensor]], Tensor | None] | None = None,
        params: Selection = "*",
        dtype: torch.dtype | None = None,
        batch_stats: str | None = None,
        memory_cap: int | None = None,
        reduction: str | None = None,
    ) -> None:
        for name, number in (("k", k), ("every", every)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ArgumentError(name, "an integer ≥ 1", repr(number), f"Pass {name}=1 or more.")
        self.model, self.k, self.every, self.tol, self.seed = model, k, every, tol, seed
        self.preconditioner, self.calls = preconditioner, 0
        self._hessian = lambda: Hessian(model, loss, data, params, dtype, batch_stats, memory_cap, reduction)
        self._start: Tensor | None = None
        self._rows: list[dict[str, Any]] = []

    def __call__(self) -> None:
        """Count one training step, and measure if it is due."""
        if self.calls % self.every == 0:
            self._measure()
        self.calls += 1

    @contextmanager
    def attached(self, optimizer: torch.optim.Optimizer) -> Iterator[CurvatureTracker]:
        """While active, the optimiser calls the tracker before each of its steps."""
        handle = optimizer.register_step_pre_hook(lambda *_: self())
        try:
            yield self
        finally:
            handle.remove()

    @property
    def record(self) -> CurvatureRecord:
        """The measurements so far."""
        kinds = {"steps": torch.int64, "matvecs": torch.int64, "converged": torch.bool}
        names = CurvatureRecord.__dataclass_fields__
        if not self._rows:
            return CurvatureRecord.from_dict({name: [] for name in names})
        columns = {
            name: torch.tensor([row[name] for row in self._rows], dtype=kinds.get(name, torch.float64))
            for name in names
        }
        return CurvatureRecord(**columns)

    def _measure(self) -> None:
        first = next(iter(self.model.parameters()), None)
        devices = [first.device.index or 0] if first is not None and first.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # a DataLoader draws from the global generator when it is walked
            hessian = self._hessian()
            operator: Operator = hessian
            slope = hessian.gradient
            if self.preconditioner is not None:
                own = dict(self.model.named_parameters(remove_duplicate=False))
                diagonal = self.preconditioner({name: own[name] for name in hessian.layout.names})
                if diagonal is None:
                    return
                operator = scaled = Preconditioned(hessian, diagonal)
                slope = slope * scaled.scale
            pairs = eigenpairs(operator, self.k, tol=self.tol, seed=self.seed, start=self._start)
        self._start = pairs.vectors.sum(1)  # a Krylov space from it meets all k eigenvectors
        inside, norm = float((pairs.vectors.T @ slope).norm()), float(slope.norm())
        self._rows.append(
            {
                "steps": self.calls,
                "losses": hessian.value,
                "gradient_norms": float(hessian.gradient.norm()),
                "eigenvalues": pairs.values.tolist(),
                "residuals": pairs.residuals.tolist(),
                "overlaps": (inside / norm) ** 2 if norm else 0.0,
                "matvecs": pairs.matvecs,
                "converged": pairs.converged,
            }
        )
