"""Dual activations: averages of an activation, and of its derivative, over two correlated normal signals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import pi, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .mean_field import MeanField
from .quadrature import Function, nodes, pair_average

Elementwise = Callable[[Tensor], Tensor]

#: Correlations nearer to ±1 than this count as ±1: rounding has left nothing of the angle between the signals.
_SAME = 64 * 2.0**-52
_TOLERANCE = 1e-12  # what a series may leave out, relative to the root mean squares of its two factors
_ROUNDING = 16 * 2.0**-52  # of a sum of squares over its value: what is left over is not known better
_FIRST, _MOST = 32, 1024  # terms of a series


def correlation(first: Tensor, second: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """The correlation of two signals, 0 where one of them vanishes, and the product of their standard deviations."""
    scale = (first * second).sqrt()
    rho = torch.where(scale > 0, cross / scale, 0).clamp(-1, 1)
    return torch.where(1 - rho.abs() <= _SAME, rho.sign(), rho), scale


class Dual(ABC):
    r"""The averages of φ over normal u, v of mean zero, variances ``first``, ``second`` and covariance ``cross``.

    Shapes: any that broadcast; float64. By Price's theorem ``slope`` is the derivative of ``value`` by ``cross``.
    """

    @abstractmethod
    def value(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:
        r""":math:`E\,\phi(u)\phi(v)`."""

    @abstractmethod
    def slope(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:
        r""":math:`E\,\phi'(u)\phi'(v)`."""


class Rectifier(Dual):
    r"""φ(z) = a z for z < 0 and b z for z > 0: the rectifier, the leaky one, the absolute value, the identity.

    With ρ the correlation, :math:`m = (a + b)/2` and :math:`d = (b - a)/2`

    .. math:: E\,\phi\phi = m^2 c + d^2 \tfrac2\pi s s' (\sqrt{1 - \rho^2} + \rho \arcsin \rho), \qquad
        E\,\phi'\phi' = m^2 + d^2 \tfrac2\pi \arcsin \rho,

    the arc-cosine kernels of order 1 and 0. Covariances that are right to ε know the angle of nearly equal inputs to
    √ε: there, and nowhere else, ``slope`` is right to 1e-7 only. Equal inputs have the angle 0 exactly.

    Source: Cho & Saul 2009, Kernel methods for deep learning.
    """

    def __init__(self, negative: float, positive: float) -> None:
        self.mean, self.half = (negative + positive) / 2, (positive - negative) / 2

    def value(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:  # noqa: D102
        rho, scale = correlation(first, second, cross)
        bent = ((1 - rho) * (1 + rho)).sqrt() + rho * rho.asin()
        return self.mean**2 * scale * rho + self.half**2 * (2 / pi) * scale * bent

    def slope(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:  # noqa: D102
        rho, _ = correlation(first, second, cross)
        return self.mean**2 + self.half**2 * (2 / pi) * rho.asin()


class ErrorFunction(Dual):
    r"""φ = erf, with the arcsine kernel :math:`\tfrac2\pi \arcsin 2c / \sqrt{(1 + 2 s^2)(1 + 2 s'^2)}`.

    Source: Williams 1997, Computing with infinite networks.
    """

    def value(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:  # noqa: D102
        return (2 / pi) * (2 * cross / ((1 + 2 * first) * (1 + 2 * second)).sqrt()).asin()

    def slope(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:  # noqa: D102
        rho, scale = correlation(first, second, cross)
        # (1 + 2 s²)(1 + 2 s'²) − 4 c², without the difference of two large numbers
        rest = 1 + 2 * first + 2 * second + 4 * scale**2 * (1 - rho) * (1 + rho)
        return (4 / pi) / rest.sqrt()


class Series(Dual):
    r"""Any elementwise φ, by Hermite series whose remainder is known.

    .. math:: E\,f(s z) f(s' z') = \sum_k a_k(s)\, a_k(s')\, \rho^k, \qquad a_k(s) = E\,f(s z)\, h_k(z)

    for f = φ or φ', with h_k the normalised Hermite polynomials. What K terms leave out is at most
    :math:`|\rho|^K` times the geometric mean of :math:`E f(sz)^2 - \sum_{k<K} a_k(s)^2` and its like (Parseval). Terms
    are added, up to 1024, until that is below 1e-12 of the root mean squares; where it is not, near ρ = ±1 and for a φ
    with kinks, panels that end at the kinks take the average itself.

    Cost: an average over one variable for each variance and term, and a sum over terms for each covariance; panels
    take some hundred thousand values of φ for each covariance.

    Assumptions: φ is continuous, and smooth between the ``kinks`` on the scale 1 or coarser, for standard deviations
    up to 20. Then averages are right to 1e-11 of the root mean squares.

    Errors: ``ArgumentError`` where two rules differ on E f(sz)²: a kink was not named, or φ bends too sharply; and for a
    φ that jumps, whose derivative has no second moment.
    """

    def __init__(self, activation: Elementwise, kinks: Sequence[float]) -> None:
        self.field = MeanField(activation, 1.0, kinks=kinks)  # checks φ, and evaluates it and its derivative
        ends = np.array([[kink - 1e-9 * max(1, abs(kink)), kink + 1e-9 * max(1, abs(kink))] for kink in kinks])
        if kinks and np.abs(np.diff(self.field._value(ends))).max() > 1e-4:
            remedy = "A network of such units has no tangent kernel; take a steep continuous function instead."
            raise ArgumentError("activation", "a continuous function", f"{activation!r}, which jumps", remedy)

    def value(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:  # noqa: D102
        return self._average(self.field._value, first, second, cross)

    def slope(self, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:  # noqa: D102
        return self._average(self.field._slope, first, second, cross)

    def _average(self, f: Function, first: Tensor, second: Tensor, cross: Tensor) -> Tensor:
        rho, _ = correlation(first, second, cross)
        scales, places = torch.unique(
            torch.cat([x.sqrt().flatten() for x in (first, second)]).cpu(), return_inverse=True
        )
        a, b = (
            place.to(rho.device).reshape(x.shape)
            for place, x in zip(places.split([first.numel(), second.numel()]), (first, second), strict=True)
        )
        power = self._power(f, scales.numpy())
        total, squares = torch.zeros_like(rho), torch.from_numpy(power).to(rho)
        alike = (rho == 1) & (a == b)  # one variable is enough
        beyond = ~alike
        if beyond.any():
            total, beyond = self._series(f, scales.numpy(), power, (a, b, rho), beyond)
        total = torch.where(alike, squares[a], total)
        for index in beyond.nonzero().tolist():
            one = tuple(index)
            pair = sorted((float(x.expand(rho.shape)[one].sqrt()) for x in (first, second)), reverse=True)
            total[one] = self._panels(f, pair[0], pair[1], float(rho[one]))
        return total

    def _series(
        self, f: Function, scales: np.ndarray, power: np.ndarray, at: tuple[Tensor, Tensor, Tensor], asked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sums, and which of those asked for leave out too much."""
        (a, b, rho), terms = at, _FIRST
        while True:
            table = self._coefficients(f, scales, terms)
            rest = np.sqrt(np.clip(1 - (table**2).sum(1) / power, 0, None) + _ROUNDING)
            left = torch.from_numpy(rest).to(rho)
            beyond = asked & (left[a] * left[b] * rho.abs() ** terms > _TOLERANCE)
            if terms == _MOST or not beyond.any():
                break
            terms *= 2
        total, factors = torch.zeros_like(rho), torch.from_numpy(table).to(rho)
        for k in reversed(range(terms)):
            total = total * rho + factors[a, k] * factors[b, k]
        return total, beyond

    def _coefficients(self, f: Function, scales: np.ndarray, terms: int) -> np.ndarray:
        """a_k(s), (scales, terms). Scales share their nodes unless a kink, at another place for each, parts them."""
        groups = [[scale] for scale in scales] if any(self.field.kinks) else [scales]
        rows = []
        for group in groups:
            places, weights = nodes(self._cuts(max(group)), max(sqrt(terms) / 2, max(group)))
            weighted = weights * f(np.multiply.outer(group, places))
            before, polynomial, columns = np.zeros_like(places), np.ones_like(places), []
            for k in range(terms):
                columns.append(weighted @ polynomial)
                before, polynomial = polynomial, (places * polynomial - sqrt(k) * before) / sqrt(k + 1)
            rows.append(np.stack(columns, 1))
        return np.concatenate(rows)

    def _cuts(self, scale: float) -> np.ndarray:
        return np.asarray(self.field.kinks, dtype=float) / scale if scale else np.zeros(0)

    def _power(self, f: Function, scales: np.ndarray) -> np.ndarray:
        """E f(sz)² (1 where it vanishes), by two rules that share no panel."""
        found = []
        for more in (np.zeros(0), np.linspace(-3.1, 3.3, 9)):
            rules = [nodes([*self._cuts(scale), *more], scale) for scale in scales]
            found.append([w @ f(s * z) ** 2 for s, (z, w) in zip(scales, rules, strict=True)])
        one, two = np.array(found)
        gap = float(np.max(np.abs(one - two) / np.where(one > 0, one, 1)))
        if not gap <= 1e-10:
            remedy = (
                "Name every place where it or its slope bends; at standard deviations above 20 it must be smoother."
            )
            given = f"{self.field.kinks}, with which two rules differ by a share of {gap:.1g}"
            raise ArgumentError("kinks", "all kinks of the activation", given, remedy)
        return np.where(one > 0, one, 1.0)

    def _panels(self, f: Function, large: float, small: float, rho: float) -> float:
        share = small / large
        kinks = [cut for kink in self.field.kinks for cut in ((kink, kink / share) if share else (kink,))]
        return pair_average(f, lambda v: f(v * share), large, rho, sorted(set(kinks)))


def dual(activation: Elementwise, kinks: Sequence[float] = (0.0,)) -> Dual:
    r"""The dual of an activation: in closed form for rectifiers, absolute value, identity and error function.

    Args:
        activation: φ, an elementwise torch function or module.
        kinks: where φ or its derivative bends; φ is smooth between them. Not used for closed forms.

    Errors: ``ArgumentError`` for a φ that is not elementwise, that jumps, that has kinks which are not named, or that has
    parameters: the tangent kernel would lack their part.

    Source: Daniely, Frostig & Singer 2016, Toward deeper understanding of neural networks.

    Example:
        Half the mean square of a rectified signal is left, and a π-th of it between independent signals:

        >>> one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        >>> relu = dual(torch.relu)
        >>> relu.value(one, one, one).item(), relu.value(one, one, none).item() * 2 * torch.pi
        (0.5, 1.0)

    """
    if isinstance(activation, nn.Module) and (own := [name for name, _ in activation.named_parameters()]):
        remedy = "Take one with fixed numbers, such as nn.LeakyReLU(0.25) for nn.PReLU()."
        raise ArgumentError("activation", "a function without parameters", f"{activation!r} with {own}", remedy)
    if isinstance(activation, nn.LeakyReLU):
        return Rectifier(activation.negative_slope, 1.0)
    for known, closed in (
        ((torch.relu, F.relu, Tensor.relu, nn.ReLU), Rectifier(0.0, 1.0)),
        ((torch.abs, Tensor.abs), Rectifier(-1.0, 1.0)),
        ((nn.Identity,), Rectifier(1.0, 1.0)),
        ((torch.erf, Tensor.erf), ErrorFunction()),
    ):
        if activation in known or type(activation) in known:
            return closed
    return Series(activation, kinks)
