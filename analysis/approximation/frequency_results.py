"""What networks still miss of a target at each frequency as they train, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import e, inf, log
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from ..errors import ArgumentError
from ..spectra.results import _axes, _check_level, _quantile


@dataclass(frozen=True, repr=False)
class FrequencyLearning:
    r"""What K networks still miss of a target at each of its F frequencies, over T steps of training.

    Attributes:
        frequencies: (F,), those that the target has.
        residuals: root mean square of f_t − y in each, (T + 1, K, F), before each step and after the last.
        kernel: λ, (K, F), the tangent kernel at the start on the part of f_0 − y at each frequency.
        rate: η of plain gradient descent, whose steps multiply a mode's residual by 1 − ηλ if the kernel stays, and
            mixes no modes; None for another optimiser.

    All tensors are float64, on the CPU.

    Example:
        >>> halves = (0.5 ** torch.arange(4.0, dtype=torch.float64)).reshape(4, 1, 1)
        >>> found = FrequencyLearning(torch.tensor([1]), halves, torch.tensor([[5.0]]), 0.1)
        >>> found.times(0.25).item(), found.predicted(0.25).item()
        (2.0, 2.0)

    """

    frequencies: Tensor
    residuals: Tensor
    kernel: Tensor
    rate: float | None

    def times(self, share: float = 0.5) -> Tensor:
        """Steps until a residual is first down to a share of its start, (K, F), between steps on a logarithmic line.

        Infinite where it never was.
        """
        _check_share(share)
        left = (self.residuals / self.residuals[0]).nan_to_num(0.0).clamp(min=1e-300).log() - log(share)
        there = left <= 0
        after = there.to(torch.uint8).argmax(0)
        before = (after - 1).clamp(min=0)
        high, low = (left.gather(0, at[None])[0] for at in (before, after))
        between = torch.where(after > 0, before + high / (high - low).clamp(min=1e-300), 0.0)
        return torch.where(there.any(0), between, inf)

    def predicted(self, share: float = 0.5) -> Tensor:
        r"""The steps that the kernel at the start asks for, :math:`\ln(\text{share}) / \ln\lvert 1 - \eta\lambda\rvert`, (K, F).

        Infinite where the step is too long for the mode, ηλ ≥ 2, or the kernel does not see it.

        Errors: ``ArgumentError`` for an optimiser other than plain gradient descent.
        """
        _check_share(share)
        if self.rate is None:
            remedy = "Pass optimizer=functools.partial(torch.optim.SGD, lr=…)."
            raise ArgumentError("optimizer", "plain gradient descent, which the kernel is about", "another", remedy)
        steps = log(share) / (1 - self.rate * self.kernel).abs().log()
        return torch.where((self.rate * self.kernel - 1).abs() < 1, steps, inf)

    def interval(self, share: float = 0.5, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Student's interval over networks of the geometric mean of the times, (F,) and (F,); infinite where one is."""
        _check_level(level)
        logs = self.times(share).log()
        half = _quantile(level, len(logs) - 1) * logs.std(0) / len(logs) ** 0.5 if len(logs) > 1 else inf
        seen = logs.isfinite().all(0)
        ends = (torch.where(seen, logs.mean(0) + sign * half, sign * inf).exp() for sign in (-1, 1))
        return next(ends), next(ends)

    @property
    def order(self) -> Tensor:
        """Spearman's rank correlation of frequency and the time to one half, (K,): 1 where lower ones always come first.

        Frequencies that a network never learned come last, alike.
        """
        ranks = torch.from_numpy(stats.rankdata(self.times().numpy(), axis=1))
        own = torch.from_numpy(stats.rankdata(self.frequencies.numpy())) - (1 + len(self.frequencies)) / 2
        ranks = ranks - ranks.mean(1, keepdim=True)
        return (ranks @ own / (ranks.norm(dim=1) * own.norm())).nan_to_num()

    @property
    def converged(self) -> bool:
        """Whether every network learned one half of every frequency."""
        return bool(self.times().isfinite().all())

    def __repr__(self) -> str:
        low, high = self.interval()
        middle = self.times().log().mean(0).exp()
        rows = zip(self.frequencies.tolist(), middle.tolist(), low.tolist(), high.tolist(), strict=True)
        shown = ", ".join(f"{k}: {t:.3g} [{a:.3g}, {b:.3g}]" for k, t, a, b in rows)
        state = "" if self.converged else "; not all learned"
        networks, steps = self.residuals.shape[1], len(self.residuals) - 1
        order = f"rank correlation {float(self.order.mean()):.3g}"
        return f"FrequencyLearning(steps to one half by frequency: {shown}; {order}; {networks} networks, {steps} steps{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> FrequencyLearning:
        """The inverse of :meth:`to_dict`."""
        how: dict[str, Any] = dict(dtype=torch.float64, device="cpu")
        parts = {name: torch.tensor(record[name], **how) for name in ("residuals", "kernel")}
        return cls(torch.tensor(record["frequencies"], device="cpu"), **parts, rate=record["rate"])

    def plot(self, ax: Any = None) -> Any:
        """What is left of each frequency against the step, geometric means over networks, on matplotlib axes.

        Where the kernel says when one half is left, a bar marks the step.
        """
        ax = _axes(ax)
        left = (self.residuals / self.residuals[0]).clamp(min=1e-300).log().mean(1).exp()
        shades = torch.linspace(0, 1, len(self.frequencies)).tolist()
        for k, curve, shade in zip(self.frequencies.tolist(), left.T, shades, strict=True):
            ax.loglog(range(1, len(left) + 1), curve, color=(shade, 0.3, 1 - shade), label=f"frequency {k}")
        if self.rate is not None:
            half = self.predicted().log().mean(0).exp() + 1
            ax.plot(half, torch.full_like(half, 0.5), "k|", markersize=12, label="predicted")
        ax.axhline(0.5, color="0.3", linestyle="--", linewidth=1)
        ax.set(xlabel="step + 1", ylabel="residual over that at the start")
        ax.legend(fontsize="x-small")
        return ax


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ArgumentError(
            "share", "a number between 0 and 1", repr(share), f"Pass 0.5, or {1 / e:.4f} for e-folding."
        )
