"""The least loss of models that are blind to the order of their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..spectra.results import _axes, _quantile


@dataclass(frozen=True, repr=False)
class PermutationFloor:
    r"""The least loss of any model that gives all orders of a sequence one output.

    Attributes:
        loss: "squared error", as ``nn.MSELoss``, or "cross entropy" in nats.
        value: the floor.
        stderr, dof: its standard error, 0 where all sequences are enumerated, and the degrees of freedom.
        constant: the loss of the best constant, the floor of a model blind to everything.
        error_rate: the least share of wrong labels, None for a squared error; its predictor need not be that of ``value``.
        sequences, multisets: how many were given or drawn, and how many differ by more than the order.
        best: (N, m) means or (N, classes) probabilities, for each sequence given, that attain the floor, float64 on the CPU;
            None where they were drawn.
        converged: whether the interval met the tolerance.

    """

    loss: str
    value: float
    stderr: float
    dof: int
    constant: float
    error_rate: float | None
    sequences: int
    multisets: int
    best: Tensor | None
    converged: bool

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval that covers the floor with probability ``level``; a point where it is exact.

        Where no drawn sequence changed with its order, it allows for 3 in N that change as much as the target varies.
        """
        if not self.dof:
            return self.value, self.value
        if not self.stderr:
            return self.value, self.value + 3 / self.sequences * self.constant
        half = _quantile(level, self.dof) * self.stderr
        return self.value - half, self.value + half

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        low, high = self.interval()
        number = f"{self.value:.6g}" + (f" [{low:.6g}, {high:.6g}] (95 %)" if self.dof else " (exact)")
        rate = "" if self.error_rate is None else f", error rate {self.error_rate:.4g}"
        state = "" if self.converged else "; not converged"
        return (
            f"PermutationFloor({self.loss} {number}{rate}; best constant {self.constant:.6g}; "
            f"{self.sequences} sequences, {self.multisets} multisets{state})"
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {**vars(self), "best": None if self.best is None else self.best.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PermutationFloor:
        """The inverse of :meth:`to_dict`."""
        best = record["best"]
        return cls(**{**record, "best": None if best is None else torch.tensor(best, dtype=torch.float64)})

    def plot(self, ax: Any = None) -> Any:
        """The floor with its interval beside the best constant's loss, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        low, high = self.interval()
        ax.bar(
            [0, 1],
            [self.constant, self.value],
            yerr=[[0, self.value - low], [0, high - self.value]],
            color=["0.7", "C0"],
            capsize=4,
        )
        ax.set_xticks([0, 1], ["best constant", "best blind to order"])
        ax.set(ylabel=self.loss, ylim=(0, None))
        return ax
