"""The curve of a training run as it was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..spectra.results import _axes


@dataclass(frozen=True, repr=False)
class TrainingCurve:
    r"""Outputs of the linearised model as training goes on.

    Attributes:
        times: t, (T,): times of gradient flow, or numbers of steps.
        outputs: f(t) on the training inputs, (T, N, …); losses: their loss, (T,).
        held_out: f(t) on the held-out inputs, (T, m, …); None without them.
        travel: ‖θ(t) − θ_0‖, (T,), of the linearised model's parameters.
        method: how it was computed. error: of the outputs, numerical, relative to their largest movement.
        converged: whether the error met the tolerance.

    All numbers are float64, on the CPU.
    """

    times: Tensor
    outputs: Tensor
    losses: Tensor
    held_out: Tensor | None
    travel: Tensor
    method: str
    error: float
    converged: bool

    def __repr__(self) -> str:
        span = f"from {float(self.times[0]):.4g} to {float(self.times[-1]):.4g}"
        fall = f"loss {float(self.losses[0]):.4g} → {float(self.losses[-1]):.4g}"
        state = "" if self.converged else "; not converged"
        return f"TrainingCurve({len(self.times)} times {span}: {fall}; {self.method}, error {self.error:.1g}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> TrainingCurve:
        """The inverse of :meth:`to_dict`."""
        names = ("times", "outputs", "losses", "held_out", "travel")
        how: dict[str, Any] = dict(dtype=torch.float64, device="cpu")
        parts = {n: None if record[n] is None else torch.tensor(record[n], **how) for n in names}
        return cls(**{**record, **parts})

    def plot(self, ax: Any = None) -> Any:
        """The training loss against time, on matplotlib axes."""
        ax = _axes(ax)
        ax.loglog(self.times, self.losses, ".-")
        ax.set_xlabel("steps" if "steps" in self.method else "time")
        ax.set_ylabel("loss of the linearised model")
        return ax
