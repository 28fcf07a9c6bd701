"""Means of quadratic forms over random probes, with as much deflation and as many probes as a tolerance needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from scipy import special
from torch import Tensor

from ..operators.base import Operator
from ..operators.memory import device_memory
from .probes import ALLOWANCE, FIRST, Probes, dots, looks, meets, moments, wide

#: A quadratic form of rows v from v and Av: vᵀAv for the trace, ‖Av‖² for the Frobenius norm.
Form = Callable[[Tensor, Tensor], Tensor]

_WORTH = 30, 80  # needed probes from which a deflation (2 × 10 products) is tried: where few eigenvalues rule, or many
_FEW = 5.0
_RANK, _SHARE = 100, 16  # most vectors in the basis, and the part of the device's memory that they may take: one in 16


def _student(dof: int) -> float:
    """Student's t of a 95 % interval."""
    return float(special.stdtrit(dof, 0.975))


@dataclass(frozen=True)
class Mean:
    """What :class:`Adaptive` found."""

    value: float
    stderr: float
    dof: int
    matvecs: int
    method: str
    converged: bool
    bias: float = 0.0


class Adaptive:
    r"""Estimates :math:`E\,\phi_A(z)` for a quadratic form φ of A: its part in a basis Q exactly, the rest from probes.

    .. math:: \mathrm{tr}\,A = \mathrm{tr}(Q^\top A Q) + E\,z^\top B z, \qquad
        \|A\|_F^2 = 2 \|AQ\|_F^2 - \|Q^\top A Q\|_F^2 + E\,\|Bz\|^2, \qquad B = (I - QQ^\top) A (I - QQ^\top)

    Q is an orthonormal basis of images A z of earlier probes (Hutch++). It grows, ten vectors at a time, while a growth
    spares more products than it costs; then the number of fresh probes grows by half until the half-width of the
    interval is at most ``tol`` times the value, or ``enough``, or what rounding leaves. Probes that shaped Q are not used
    again, so that the samples are independent of it. Where P unit vectors are cheaper than the probes that are still
    missing, they give the sum exactly.

    ``bias`` is an allowance for rounding: 4 ε of the value, or of :math:`E \|Az\|` (for a norm of :math:`2 E \|Az\|^2`) where
    that is more, beside that of the ``offset``.
    """

    def __init__(
        self,
        operator: Operator,
        form: Form,
        tol: float,
        budget: int,
        seed: int,
        block: int,
        offset: float = 0.0,
        enough: float = 0.0,
        bias: float = 0.0,
    ) -> None:
        self.operator, self.form, self.tol, self.budget, self.block = operator, form, tol, budget, block
        self.offset, self.enough, self.size = offset, enough, operator.shape[0]
        self.probes = Probes(operator, seed)
        self.basis = torch.empty(0, self.size, dtype=operator.dtype, device=operator.device)
        self.known, self.matvecs, self.rounding, self.scale, self.rank = 0.0, 0, bias, 0.0, 1.0

    def run(self) -> Mean:
        """The estimate; see the class."""
        samples, images = self._sample(min(FIRST, self.budget))
        norms = images.norm(dim=1).double()  # without a second copy of the block
        moved = 2 * norms.square().mean() if self.form is squared else norms.mean()
        self.rounding += ALLOWANCE * torch.finfo(self.operator.dtype).eps * float(moved)
        self.scale = float(norms.norm())
        self.rank = self._effective_rank(images)
        spared = inf
        while spared > 3 * FIRST and self._may_grow(self._need(samples)):
            before, share = min(self._need(samples), self.size), self._grow(images)
            del images  # ten vectors that need not be held while the next are drawn
            samples, images = self._sample(FIRST)
            self.rank = self._effective_rank(images)
            spared = before * share
        del images
        return self._finish(samples)

    def _may_grow(self, need: float) -> bool:
        fits = device_memory(self.operator.device) // _SHARE // (self.size * self.basis.element_size())
        room = min(_RANK, self.size // 4, fits) - len(self.basis)
        left = min(self.budget, self._cost_of_exact()) - self.matvecs
        return need > _WORTH[self.rank > _FEW] and room >= FIRST and left >= 3 * FIRST

    def _finish(self, samples: Tensor) -> Mean:
        for count in looks(self.budget - self.matvecs + len(samples)):
            while len(samples) < count:
                samples = torch.cat([samples, self._sample(min(self.block, count - len(samples)))[0]])
            missing = self._need(samples) - count
            if missing <= 0:
                break
            if self._cost_of_exact() <= min(missing, self.budget - self.matvecs):
                return self._exact()
        return self._found(samples, "Hutch++" if len(self.basis) else "Hutchinson")

    def _found(self, samples: Tensor, method: str) -> Mean:
        mean, stderr = moments(samples, self.rank)
        value, count = self.offset + self.known + mean, len(samples)
        met = self._met(value, _student(count - 1) * stderr)
        return Mean(value, stderr, count - 1, self.matvecs, method, met, self._bias(value))

    def _bias(self, value: float) -> float:
        return max(self.rounding, ALLOWANCE * torch.finfo(self.operator.dtype).eps * abs(value))

    def _met(self, value: float, half: float) -> bool:
        """Does the interval meet the tolerance, rounding included?"""
        bias = self._bias(value)
        return half + bias <= self.enough or meets(self.tol, value, half, bias)

    def _need(self, samples: Tensor) -> float:
        """How many probes the tolerance takes, judged from these samples."""
        mean, stderr = moments(samples, self.rank)
        half = _student(len(samples) - 1) * stderr
        aim = max(self.tol * abs(self.offset + self.known + mean) - self.rounding, self.rounding, self.enough)
        return 0.0 if half <= aim else (len(samples) * (half / aim) ** 2 if aim else inf)

    def _effective_rank(self, images: Tensor) -> float:
        """The participation ratio of the form's remaining eigenvalues, at least 1, judged from these images."""
        gram = (images.double() @ images.double().T) / images.double().square().sum().clamp(min=1e-300)
        if self.form is squared:
            gram = gram @ gram
        return max(1.0, float(gram.trace() ** 2 / gram.square().sum().clamp(min=1e-300)))

    def _sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Values of the form at fresh probes, without their parts in the basis; and the last images."""
        values, left = [], count
        images = []
        while left:
            rows = self._outside(self.probes.draw(min(self.block, left)))
            products = self._outside(self._multiply(rows))  # what leaks into the basis is known
            values.append(self.form(rows, products))
            images.append(products)
            left -= len(rows)
        return torch.cat(values), torch.cat(images)

    def _grow(self, images: Tensor) -> float:
        """Add the images to the basis; the share of the remaining ‖A‖² (both sides deflated) that they take away."""
        rest = self._outside(images)
        energy = float(rest.square().sum()) / len(rest)
        _, scales, rows = torch.linalg.svd(wide(rest), full_matrices=False)
        rows = rows[scales > 100 * torch.finfo(rest.dtype).eps * self.scale].to(rest)
        if not len(rows):
            return 0.0
        rows = torch.linalg.qr(wide(self._outside(rows).T))[0].T.to(rest).contiguous()
        products = torch.cat([self._multiply(part) for part in rows.split(self.block)])
        outside = self._outside(products)
        taken = 2 * float(outside.square().sum()) - float((rows @ outside.T).square().sum())
        self.known += taken if self.form is squared else float(self.form(rows, outside).sum())
        self.basis = torch.cat([self.basis, rows])
        return min(1.0, taken / energy)

    def _outside(self, rows: Tensor) -> Tensor:
        return torch.addmm(rows, rows @ self.basis.T, self.basis, alpha=-1) if len(self.basis) else rows

    def _cost_of_exact(self) -> float:
        """Of :meth:`_exact`, in products."""
        return self.size

    def _exact(self) -> Mean:
        total = torch.zeros((), dtype=torch.float64, device=self.operator.device)
        for start in range(0, self.size, self.block):
            stop = min(start + self.block, self.size)
            rows = self.basis.new_zeros(stop - start, self.size)
            rows[range(stop - start), range(start, stop)] = 1
            total += self.form(rows, self._multiply(rows)).sum()
        value = self.offset + float(total)
        return Mean(value, 0.0, 0, self.matvecs, "unit vectors", self._met(value, 0.0), self._bias(value))

    def _multiply(self, rows: Tensor) -> Tensor:
        self.matvecs += len(rows)
        return (self.operator @ rows.T).T


def quadratic(rows: Tensor, products: Tensor) -> Tensor:
    """vᵀAv of each row."""
    return dots(rows, products)


def squared(rows: Tensor, products: Tensor) -> Tensor:
    """‖Av‖² of each row."""
    return dots(products, products)
