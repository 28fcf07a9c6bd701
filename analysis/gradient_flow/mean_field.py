"""Signals in wide random networks: variances, correlations and gradients by depth, from Gaussian averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log, sqrt

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ..errors import ArgumentError
from .quadrature import average, pair_average

_NEAR = 1e-12  # a map that moves a variance by less than this share leaves it where it is
_LONGEST = 1e6  # variances beyond it, or below its inverse, count as infinite or zero


@dataclass(frozen=True)
class DepthScales:
    r"""In how many layers a difference falls by a factor e near the fixed point.

    Attributes:
        variance: ξ_q, of the difference of a variance from q*; inf where variances grow without bound.
        correlation: ξ_c, of the difference of a correlation from c*.
        gradient: ξ_∇ = 1/ln χ₁, of the gradient's second moment: positive where it grows with depth, negative where
            it vanishes.

    An infinite scale means a critical point, where the approach is a power law.
    """

    variance: float
    correlation: float
    gradient: float


@dataclass(frozen=True)
class Propagation:
    r"""Variances q_l, correlations c_l and gradient factors χ(q_l) of layers 0 … L, each (L + 1,)."""

    variance: np.ndarray
    correlation: np.ndarray
    gradient_factor: np.ndarray

    @property
    def gradient(self) -> np.ndarray:
        r"""The second moment of the gradient by z^l, for each layer: χ(q_l) … χ(q_{L−1}), that of the last being 1."""
        return np.append(np.cumprod(self.gradient_factor[-2::-1])[::-1], 1.0)


class MeanField:
    r"""A fully-connected network of infinite width with independent weights of mean zero.

    .. math:: z^{l+1} = W \phi(z^l) + b, \qquad \mathrm{Var}\,W_{ij} = \sigma_w^2 / n, \quad \mathrm{Var}\,b_i = \sigma_b^2

    As n → ∞ the entries of z^l are normal. With z standard normal, and u, v normal of variance q and correlation c,

    .. math:: q_{l+1} = \sigma_w^2 E\,\phi(\sqrt{q_l} z)^2 + \sigma_b^2, \quad
        c_{l+1} = \frac{\sigma_w^2 E\,\phi(u)\phi(v) + \sigma_b^2}{q_{l+1}}, \quad
        \chi(q) = \sigma_w^2 E\,\phi'(\sqrt q z)^2

    and the gradient's second moment grows by χ a layer on its way back.

    Args:
        activation: φ, an elementwise torch function or module, such as ``torch.tanh`` or ``nn.ReLU()``.
        weight_variance: σ_w². bias_variance: σ_b².
        kinks: where φ or its derivative jumps; φ is smooth between them.

    Cost: an average over one variable takes some hundred values of φ, over two some hundred thousand. Both are exact to
    rounding for standard deviations up to 20, for a φ that bends on the scale 1.

    Assumptions: the limit of infinite width at fixed depth; at width n moments deviate by a share of order L/n. That
    gradients use other weights than the signal holds in the limit.

    Errors: ``ArgumentError`` for a variance that is negative or not finite, or a φ that is not elementwise.

    Source: Poole et al. 2016, Exponential expressivity in deep neural networks through transient chaos; Schoenholz et
    al. 2017, Deep information propagation.

    Example:
        The network of He et al. keeps every variance, and loses no gradient:

        >>> he = MeanField(torch.relu, 2.0, 0.0)
        >>> round(he.variance(3.0), 12), round(he.gradient_factor(3.0), 12)
        (3.0, 1.0)

    """

    def __init__(
        self,
        activation: Callable[[Tensor], Tensor],
        weight_variance: float,
        bias_variance: float = 0.0,
        kinks: Sequence[float] = (0.0,),
    ) -> None:
        for name, number in (("weight_variance", weight_variance), ("bias_variance", bias_variance)):
            if not isinstance(number, int | float) or not 0 <= number < inf:
                raise ArgumentError(name, "a finite number ≥ 0", repr(number), "Pass a variance, such as 2.0.")
        self.activation, self.kinks = activation, tuple(kinks)
        self.weight_variance, self.bias_variance = float(weight_variance), float(bias_variance)
        probe = torch.tensor([-1.0, 2.0], dtype=torch.float64)
        if activation(probe).shape != probe.shape or not torch.equal(activation(probe[:1]), activation(probe)[:1]):
            remedy = "Pass a function of one number that torch applies to each entry, such as torch.tanh."
            raise ArgumentError("activation", "an elementwise function", repr(activation), remedy)

    def __repr__(self) -> str:
        name = getattr(self.activation, "__name__", repr(self.activation))
        return f"MeanField({name}, σ_w² = {self.weight_variance:g}, σ_b² = {self.bias_variance:g})"

    def variance(self, q: float) -> float:
        """The variance of the next layer."""
        second = average(lambda z: self._value(z) ** 2, sqrt(q), self.kinks)
        return self.weight_variance * second + self.bias_variance

    def gradient_factor(self, q: float) -> float:
        """χ(q): by how much a layer multiplies the gradient's second moment on its way back."""
        return self.weight_variance * average(lambda z: self._slope(z) ** 2, sqrt(q), self.kinks)

    def correlation(self, c: float, q: float) -> float:
        """The correlation, in the next layer, of two inputs of variance q and correlation c."""
        product = pair_average(self._value, self._value, sqrt(q), c, self.kinks)
        return (self.weight_variance * product + self.bias_variance) / self.variance(q)

    def correlation_slope(self, c: float, q: float) -> float:
        r"""The derivative of the correlation map at fixed variance, :math:`\sigma_w^2 E\,\phi'(u)\phi'(v)\, q / q_{l+1}`."""
        product = pair_average(self._slope, self._slope, sqrt(q), c, self.kinks)
        return self.weight_variance * product * q / self.variance(q)

    def fixed_variance(self, start: float = 1.0) -> float:
        """q*, the variance that deep layers reach from ``start``; inf where it grows without bound.

        Every variance is fixed in a critical ReLU network: there it is ``start`` itself.
        """
        step = self.variance(start) / start - 1
        if abs(step) <= _NEAR:
            return start
        factor = 2.0 if step > 0 else 0.5
        near = far = start
        while step * (self.variance(far) / far - 1) > 0:
            near, far = far, far * factor
            if not 1 / _LONGEST < far < _LONGEST:
                return inf if step > 0 else 0.0
        return float(brentq(lambda q: self.variance(q) / q - 1, *sorted((near, far)), xtol=1e-15, rtol=1e-14))

    def fixed_correlation(self, q: float) -> float:
        """c*, the correlation that deep layers reach from any c between 0 and 1 at the fixed variance q.

        It is 1 where the map's slope there is at most 1 (order: inputs become alike), else below 1 (chaos: they part).
        """
        if self.correlation_slope(1.0, q) <= 1 + 1e-9:
            return 1.0

        def gap(c: float) -> float:
            return self.correlation(c, q) - c

        if gap(0.0) <= _NEAR:  # odd φ without biases: independent inputs stay so
            return 0.0
        right = next(c for c in 1 - np.logspace(-8, 0, 17) if gap(c) < 0)
        return float(brentq(gap, 0.0, right, xtol=1e-14))

    def depth_scales(self, start: float = 1.0) -> DepthScales:
        r"""How far signals and gradients reach near the fixed point that is reached from ``start``.

        .. math:: \xi_q^{-1} = -\ln q_{l+1}'(q^*), \qquad \xi_c^{-1} = -\ln \sigma_w^2 E\,\phi'(u)\phi'(v)|_{c^*},
            \qquad \xi_\nabla^{-1} = \ln \chi(q^*)

        Schoenholz et al. find that networks train up to about six ξ_c layers.
        """
        reached = self.fixed_variance(start)
        q = min(max(reached, 1 / _LONGEST), _LONGEST)  # the maps themselves have no value at 0 and infinity
        variance = _scale(self._variance_slope(q)) if isfinite(reached) else inf
        correlation = _scale(self.correlation_slope(self.fixed_correlation(q), q))
        return DepthScales(variance, correlation, -_scale(self.gradient_factor(q)))

    def propagate(self, depth: int, variance: float = 1.0, correlation: float = 0.0) -> Propagation:
        """Variances, correlations and gradient factors of ``depth`` layers, for two inputs of this variance."""
        q, c = [float(variance)], [float(correlation)]
        for _ in range(depth):
            c.append(min(1.0, self.correlation(c[-1], q[-1])))
            q.append(self.variance(q[-1]))
        return Propagation(np.array(q), np.array(c), np.array([self.gradient_factor(one) for one in q]))

    def _variance_slope(self, q: float) -> float:
        """By Stein's identity: dE φ(√q z)²/dq = E φ φ' z / √q."""
        moment = average(lambda u: self._value(u) * self._slope(u) * u, sqrt(q), self.kinks)
        return self.weight_variance * moment / q

    def _value(self, places: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.activation(torch.from_numpy(np.asarray(places, dtype=float))).numpy()

    def _slope(self, places: np.ndarray) -> np.ndarray:
        with torch.enable_grad():
            leaf = torch.from_numpy(np.asarray(places, dtype=float)).clone().requires_grad_()
            return torch.autograd.grad(self.activation(leaf).sum(), leaf)[0].numpy()


def critical_weight_variance(
    activation: Callable[[Tensor], Tensor],
    bias_variance: float,
    kinks: Sequence[float] = (0.0,),
    between: tuple[float, float] = (1e-2, 1e2),
) -> float:
    r"""The σ_w² on the critical line χ(q*) = 1, which parts order (gradients vanish) from chaos (they explode).

    Args:
        activation, kinks: as for :class:`MeanField`. bias_variance: σ_b².
        between: where to look for it.

    Errors: ``ArgumentError`` where χ − 1 has the same sign at both ends.

    Source: Schoenholz et al. 2017, Deep information propagation.

    Example:
        >>> round(critical_weight_variance(torch.tanh, 0.05), 5)
        1.76095

    """

    def excess(weight_variance: float) -> float:
        field = MeanField(activation, weight_variance, bias_variance, kinks)
        q = field.fixed_variance()
        return field.gradient_factor(q if isfinite(q) else _LONGEST) - 1

    low, high = between
    if not excess(low) * excess(high) < 0:
        given = f"χ − 1 = {excess(low):.3g} and {excess(high):.3g} at its ends"
        raise ArgumentError("between", "an interval that holds the critical point", given, "Widen it.")
    return float(brentq(excess, low, high, xtol=1e-13))


def _scale(factor: float) -> float:
    """1 / −ln of a factor: inf at 1, 0 at 0."""
    if factor <= 0:
        return 0.0
    return inf if abs(factor - 1) <= 1e-9 else -1 / log(factor)
