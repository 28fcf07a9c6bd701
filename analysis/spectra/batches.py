"""What each batch adds to a trace, and the standard error that a jackknife over batches reads from it."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from ..jackknife import jackknife
from ..operators.base import Derived
from ..operators.bound import Bound
from ..operators.engine import Retained
from .adaptive import Adaptive, Mean, quadratic
from .probes import wide
from .structured import _objective

Spread = tuple[float | None, int]


class Noting(Derived):
    r"""An operator A = Σ_b A_b over batches whose products note every :math:`v^\top A_b v` on the way."""

    def __init__(self, operator: Bound) -> None:
        self.operator = self.bound = operator
        self.sizes = operator._start.sizes
        self.layout, self.dtype, self.device = operator.layout, operator.dtype, operator.device
        self.noted: list[Tensor] = []

    def _multiply(self, vectors: Tensor) -> Tensor:
        with torch.inference_mode(False):  # it is filled outside that mode
            forms = torch.zeros(len(vectors), len(self.sizes), dtype=torch.float64, device=self.device)

        def note(first: int, batch: int, products: Tensor, factor: float) -> None:
            rows = slice(first, first + len(products))
            pairs = zip(vectors[rows], products, strict=True)  # not in float64: an error bar needs no more
            forms[rows, batch] = torch.stack([wide(v) @ wide(product) for v, product in pairs]).double() * factor

        products = self.bound._multiply(vectors, note)
        self.noted.append(forms)
        return products

    def taken(self) -> Tensor:
        """The forms of all vectors since the last call, (k, B)."""
        forms, self.noted = torch.cat(self.noted), []
        return forms


class BatchTraces(Adaptive):
    """:class:`Adaptive` for the trace of A, with each batch's part of the same quadratic forms."""

    def __init__(self, noting: Noting, *options: Any) -> None:
        super().__init__(noting, quadratic, *options)
        self.noting, width = noting, len(noting.sizes)
        self.parts = torch.zeros(width, dtype=torch.float64, device="cpu")  # by unit and basis vectors
        self.forms = torch.zeros(0, width, dtype=torch.float64, device="cpu")  # of the probes that count

    def _taken(self) -> Tensor:
        return self.noting.taken().cpu()

    def _sample(self, count: int) -> tuple[Tensor, Tensor]:
        found = super()._sample(count)
        self.forms = torch.cat([self.forms, self._taken()])
        return found

    def _grow(self, images: Tensor) -> float:
        self.forms = self.forms[:0]
        before = self.matvecs
        share = super()._grow(images)
        if self.matvecs > before:
            self.parts = self.parts + self._taken().sum(0)
        return share

    def _exact(self) -> Mean:
        found = super()._exact()
        self.forms, self.parts = self.forms[:0], self._taken().sum(0)
        return found


def steady(operator: Bound, alone: bool) -> bool:
    """Do products see the same batches every time? Where graphs are kept they do; else the data must say so."""
    return _objective(operator).steady or (alone and isinstance(operator._start.engine, Retained))


def spread(parts: Tensor, sizes: Sequence[float], forms: Tensor | None = None) -> Spread:
    r"""The standard error of a trace over draws of the batches, cleared of the noise of its probes.

    .. math:: \widehat{\operatorname{se}}^2 = \max\left(J(\bar c) - N,\ J(\bar c) / 2\right), \quad
        N = \frac{1}{n (n-1)} \sum_i J(c_i - \bar c), \quad
        J(c) = \frac1B \sum_b \frac{(c_b / s_b - \sum_a c_a)^2}{1/s_b - 1}

    with c_i the parts of the batches by probe i (the same probe for all of them, so that its noise cancels but for what
    the batches' matrices differ by), s their shares of the data, and J the square of
    :func:`~lemmata.analysis.jackknife.jackknife`, a quadratic form. N has the mean of what the noise adds to J; where it
    is more than half of J, the error comes out too large rather than by chance too small.

    Args:
        parts: (B,), what is known of each batch's part of the trace without probes.
        sizes: of the batches; those of size 0 are left out.
        forms: (n, B), what each probe finds for the rest, if anything is left.

    Returns the error and the number of batches; None and 0 for fewer than two.
    """
    share = torch.tensor(sizes, dtype=torch.float64, device=parts.device)
    kept = share > 0
    if int(kept.sum()) < 2:
        return None, 0
    share = share[kept] / share.sum()

    def square(row: Tensor) -> float:
        whole = float(row.sum())
        return jackknife(whole, (whole - row) / (1 - share), share) ** 2

    if forms is None or not len(forms):
        return sqrt(square(parts[kept])), len(share)
    mean, count = forms[:, kept].mean(0), len(forms)
    noise = sum(square(row) for row in forms[:, kept] - mean) / (count * (count - 1))
    whole = square(parts[kept] + mean)
    return sqrt(max(whole - noise, whole / 2)), len(share)
