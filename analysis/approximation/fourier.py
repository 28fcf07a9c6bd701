"""How fast a model's output oscillates along lines through its inputs: the spectrum, and the share above a frequency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn

from ..errors import ArgumentError, DataError, NumericsError
from ..jackknife import jackknife
from ..operators.snapshot import Watch, snapshot
from ..spectra.results import Estimate, _axes, _check_level, _quantile

_LEAST = 10  # lines before it may stop
_MOST = 4096  # samples of a line
_ROWS = 2**22  # numbers in a batch of inputs


@dataclass(frozen=True, repr=False)
class FourierContent:
    r"""Spectrum of a model's outputs along L lines, with n samples each.

    Attributes:
        frequencies: in cycles per line, (K,): 1/2, 1, 3/2, … of open lines, 1, 2, … of closed ones.
        energies: (L, K), mean square of the outputs' part at each frequency, summed over outputs; the constant is left out.
        above: the share of all lines' energy at frequencies above ``cut``. cut: in cycles per line.
        closed: whether lines end where they begin. samples: n.

    All tensors are float64, on the CPU.

    Example:
        >>> above = Estimate(0.25, 0.0, 1, None, 2, 0, "example")
        >>> FourierContent(torch.tensor([0.5, 1.0]), torch.tensor([[3.0, 1.0]] * 2), above, 0.5, False, 128)
        FourierContent(25 % [25, 25] of the energy above 0.5 cycles a line; 2 open lines, 128 samples)

    """

    frequencies: Tensor
    energies: Tensor
    above: Estimate
    cut: float
    closed: bool
    samples: int

    @property
    def converged(self) -> bool:
        """Whether the interval of the share met the tolerance that was asked for."""
        return self.above.converged

    @property
    def shares(self) -> Tensor:
        """The share of all lines' energy at each frequency, (K,)."""
        return self.energies.sum(0) / self.energies.sum()

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The two-sided interval over lines of each share (of each alone, not of all at once), by the jackknife."""
        _check_level(level)
        lines = len(self.energies)
        errors = [_error(self.energies[:, k], self.energies.sum(1)) for k in range(len(self.frequencies))]
        half = _quantile(level, lines - 1) * torch.tensor(errors, dtype=torch.float64, device="cpu")
        return (self.shares - half).clamp(min=0), (self.shares + half).clamp(max=1)

    def __repr__(self) -> str:
        low, high = (100 * min(max(end, 0.0), 1.0) for end in self.above.interval())
        kind = f"{len(self.energies)} {'closed' if self.closed else 'open'} lines, {self.samples} samples"
        state = "" if self.converged else "; not converged"
        share = f"{100 * self.above.value:.3g} % [{low:.3g}, {high:.3g}] of the energy above {self.cut:g} cycles a line"
        return f"FourierContent({share}; {kind}{state})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        parts = {name: getattr(self, name).tolist() for name in ("frequencies", "energies")}
        return {**vars(self), **parts, "above": self.above.to_dict()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> FourierContent:
        """The inverse of :meth:`to_dict`."""
        how: dict[str, Any] = dict(dtype=torch.float64, device="cpu")
        parts = {name: torch.tensor(record[name], **how) for name in ("frequencies", "energies")}
        return cls(**{**record, **parts, "above": Estimate.from_dict(record["above"])})

    def plot(self, ax: Any = None) -> Any:
        """The share of the energy above each frequency against it, one faint curve a line, on matplotlib axes."""
        ax = _axes(ax)
        parts = torch.cat([self.energies / self.energies.sum(1, keepdim=True), self.shares[None]])
        left = parts.flip(1).cumsum(1).flip(1)  # at this frequency and above
        for one in left[:-1]:
            ax.loglog(self.frequencies, one, color="C0", alpha=0.15, linewidth=0.7)
        ax.loglog(self.frequencies, left[-1], color="C0", label="all lines")
        ax.axvline(self.cut, color="0.3", linestyle="--", linewidth=1)
        ax.set(xlabel="frequency (cycles a line)", ylabel="share of the energy from there on", ylim=(1e-8, 2))
        return ax


def data_lines(inputs: Tensor, seed: int = 0) -> Tensor:
    r"""Straight lines between inputs, (N/2, 2, …): random disjoint pairs, so that lines are independent if inputs are.

    Args: ``inputs``, (N, …), at least two. ``seed`` of the pairing, on the CPU. Of an odd number one is left out.

    Errors: ``DataError`` for inputs that are no floating-point tensor of two or more.

    Example:
        >>> data_lines(torch.tensor([[0.0], [1.0]])).sum(1)
        tensor([[1.]])

    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 1 or len(inputs) < 2:
        remedy = "Pass at least two inputs (N, …); tokens have no points between them, their embeddings do."
        raise DataError("inputs", "a floating-point tensor of two inputs or more", _told(inputs), remedy)
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(inputs), generator=draws, device="cpu")[: len(inputs) // 2 * 2]
    return inputs[order.to(inputs.device)].unflatten(0, (-1, 2))


def fourier_content(
    model: nn.Module,
    lines: Tensor,
    cut: float = 4.0,
    samples: int = 128,
    tol: float = 0.05,
    dtype: torch.dtype | None = None,
    batch_stats: str | None = None,
) -> FourierContent:
    r"""Spectrum of a model's outputs along lines: how much of their variation is faster than a frequency.

    .. math:: f(\gamma(s)) = a_0 + \sqrt2 \sum_{k \ge 1} a_k \cos(\pi k s), \qquad
        \text{share} = \frac{\sum_{k / 2 > q} |a_k|^2}{\sum_{k \ge 1} |a_k|^2}, \quad s \in [0, 1]

    with γ a line at constant speed and q the ``cut``, in cycles a line; squares and sums run over outputs and lines. On an
    open line the cosine series is that of the function mirrored at its ends, which makes no jump there: a straight output
    has 98.6 % of its energy in the first half-cycle. A closed line, one that ends where it begins, has the Fourier series.

    Args:
        model: any module that treats every input by itself; it is copied.
        lines: (L, m, …), each the polygon through m inputs of the model: two for a straight line. See :func:`data_lines`.
        cut: q, at most a quarter of the samples.
        samples: n, places on a line to begin with; doubled, up to 4096, while twice as many change the share by more
            than half of ``tol``.
        tol: the half-width of the 95 % interval of the share at which it stops: after ten lines or more, in their order.
        dtype, batch_stats: as for :class:`~lemmata.analysis.Hessian`.

    The interval is a jackknife over lines, widened by what twice the samples change, which is an estimate of what they
    miss: it holds for a population of lines that these are independent draws from.

    Cost: 3 n forward passes a line; nothing is differentiated. Memory for L n frequencies.

    Errors: ``DataError`` for lines that are no floating-point tensor (L, m, …), not finite, without length, or partly open
    and partly closed; ``ArgumentError`` for an option outside its domain or a model without a row of outputs an input;
    ``NumericsError`` for outputs that are not finite, or equal on all lines; ``ModelStateError`` for a forward pass that
    draws random numbers.

    Source: Rahaman et al. 2019, On the spectral bias of neural networks; Ahmed, Natarajan & Rao 1974, Discrete cosine
    transform.

    Example:
        A cosine of three cycles on [0, 1]:

        >>> class Wave(nn.Module):
        ...     def forward(self, x):
        ...         return torch.cos(6 * torch.pi * x)
        >>> content = fourier_content(Wave(), torch.tensor([[[0.0], [1.0]]]), cut=2.9, dtype=torch.float64)
        >>> float(content.frequencies[content.shares.argmax()]), round(float(content.above), 6)
        (3.0, 1.0)

    """
    closed = _check_lines(lines)
    if not isinstance(samples, int) or not 8 <= samples <= _MOST // 2:
        raise ArgumentError("samples", f"a whole number from 8 to {_MOST // 2}", repr(samples), "Pass samples=128.")
    for name, number, most in (("cut", cut, samples / 4), ("tol", tol, 1.0)):
        if not 0 < number <= most:
            remedy = f"Lower it, or raise samples to {4 * cut:g}." if name == "cut" else "Pass tol=0.05."
            raise ArgumentError(name, f"a number above 0, at most {most:g}", repr(number), remedy)
    with torch.inference_mode(False):
        private, _ = snapshot(model, dtype, batch_stats)
    first = next(private.parameters(), lines)
    lines = lines.to(first.device, dtype or first.dtype)
    while True:
        rough, fine = [], []
        for block in lines.split(_LEAST):
            rough.append(_energies(private, block, samples, closed))
            fine.append(_energies(private, block, 2 * samples, closed))
            above = _above(torch.cat(rough), torch.cat(fine), cut, closed, samples, tol)
            if above.converged:
                break
        if above.bias <= tol / 2 or 4 * samples > _MOST:
            break
        samples *= 2
    energies = torch.cat(fine)
    return FourierContent(_frequencies(energies.shape[1], closed), energies, above, float(cut), closed, 2 * samples)


def _check_lines(lines: Tensor) -> bool:
    """Whether the lines are closed."""
    if not isinstance(lines, Tensor) or not lines.is_floating_point() or lines.ndim < 3 or lines.shape[1] < 2:
        remedy = "Pass data_lines(inputs), or points[None] for one path through them."
        raise DataError("lines", "a floating-point tensor (L, m, …) of m ≥ 2 inputs each", _told(lines), remedy)
    if not len(lines) or not bool(lines.isfinite().all()):
        given = "nan or infinity" if len(lines) else "no line"
        raise DataError("lines", "one line or more, of finite numbers", given, "Leave the broken inputs out.")
    flat = lines.flatten(2)
    still = ((flat[:, 1:] - flat[:, :-1]).norm(dim=2).sum(1) == 0).nonzero().flatten().tolist()
    if still:
        remedy = "Leave out lines between equal inputs."
        raise DataError(f"lines[{still[0]}]", "a line of positive length", "the same input at all its points", remedy)
    closed = (flat[:, 0] == flat[:, -1]).all(1)
    if bool(closed.any() != closed.all()):
        given = f"{int(closed.sum())} closed among {len(closed)}"
        raise DataError("lines", "all open or all closed", given, "Ask for the content of each kind by itself.")
    return bool(closed.all())


def _points(line: Tensor, samples: int, closed: bool) -> Tensor:
    """Places on a polygon at constant speed, (n, …): its periods j/n where it is closed, else the midpoints (j + ½)/n."""
    flat = line.flatten(1)
    ends = torch.cat([flat.new_zeros(1), (flat[1:] - flat[:-1]).norm(dim=1).cumsum(0)])
    steps = torch.arange(samples, dtype=flat.dtype, device=flat.device)
    at = (steps if closed else steps + 0.5) / samples * ends[-1]
    after = torch.searchsorted(ends, at, right=True).clamp(1, len(ends) - 1)
    length = ends[after] - ends[after - 1]
    share = torch.where(length > 0, (at - ends[after - 1]) / length, 0.0)[:, None]
    return ((1 - share) * flat[after - 1] + share * flat[after]).unflatten(1, line.shape[1:])


@torch.no_grad()
def _energies(model: nn.Module, lines: Tensor, samples: int, closed: bool) -> Tensor:
    """Energy of each line at each frequency above zero, (L, K), summed over outputs."""
    points = torch.cat([_points(line, samples, closed) for line in lines])
    buffers = dict(model.named_buffers())
    watch = Watch(type(model).__name__, buffers, dict(model.named_parameters()), points.device)
    parts = []
    for part in points.split(max(1, _ROWS // points[0].numel())):
        output = model(part)
        if not isinstance(output, Tensor) or output.ndim < 1 or len(output) != len(part):
            remedy = "Wrap the model so that it returns a tensor (N, …)."
            raise ArgumentError("model", "a row of outputs for each input", _told(output), remedy)
        parts.append(output.flatten(1) if output.ndim > 1 else output[:, None])
    watch.check(lambda: model(points[:2]))
    values = torch.cat(parts).double().cpu().unflatten(0, (len(lines), samples)).numpy()
    if not np.isfinite(values).all():
        remedy = "Look for overflow in the network between its inputs."
        raise NumericsError("outputs along the lines", "finite numbers", "nan or infinity", remedy)
    spread = np.abs(values - values.mean(1, keepdims=True)).max()
    if spread <= 10 * torch.finfo(points.dtype).eps * np.abs(values).max():
        return torch.zeros(len(lines), samples // 2 if closed else samples - 1, dtype=torch.float64, device="cpu")
    if closed:
        squares = 2 * np.abs(np.fft.rfft(values, axis=1)[:, 1:] / samples) ** 2
        if samples % 2 == 0:
            squares[:, -1] /= 2
    else:
        squares = dct(values, axis=1, norm="ortho")[:, 1:] ** 2 / samples
    return torch.from_numpy(squares.sum(2))


def _frequencies(count: int, closed: bool) -> Tensor:
    return torch.arange(1, count + 1, dtype=torch.float64, device="cpu") / (1 if closed else 2)


def _error(part: Tensor, whole: Tensor) -> float:
    """Jackknife error over lines of a ratio of sums; infinite from one line, or where one has all the energy."""
    rest = whole.sum() - whole
    if len(whole) < 2 or not bool((rest > 0).all()):
        return inf
    left_out = (part.sum() - part) / rest
    return jackknife(float(part.sum() / whole.sum()), left_out, torch.ones_like(whole))


def _above(rough: Tensor, fine: Tensor, cut: float, closed: bool, samples: int, tol: float) -> Estimate:
    """The share above the cut from twice the samples; the difference to that from the samples is its bias."""
    shares = []
    for energies in (rough, fine):
        whole = energies.sum(1)
        if not float(whole.sum()) > 0:
            remedy = (
                "Look whether the model ignores its inputs, or has dead units; lines must cross what it tells apart."
            )
            raise NumericsError("outputs along the lines", "outputs that change", "the same output everywhere", remedy)
        high = energies[:, _frequencies(energies.shape[1], closed) > cut].sum(1)
        shares.append(float(high.sum() / whole.sum()))
    lines, bias = len(fine), abs(shares[1] - shares[0])
    found = Estimate(
        shares[1], _error(high, whole), lines - 1, None, 3 * samples * lines, 0, "jackknife over lines", bias=bias
    )
    low, top = found.interval()
    met = lines >= _LEAST and top - low <= 2 * tol
    return Estimate(**{**vars(found), "converged": met})


def _told(given: Any) -> str:
    return f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
