"""How a deep linear network learns a singular direction of its target: the exact strength over time."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np
from scipy.integrate import quad, solve_ivp
from scipy.special import expit

from ..errors import ArgumentError


def mode_strength(times: Sequence[float] | np.ndarray, strength: float, start: float, depth: int = 2) -> np.ndarray:
    r"""The strength of one mode of a deep linear network at some times.

    .. math:: \dot a = L\, a^{2 - 2/L} (s - a), \qquad a(0) = a_0; \qquad
        a(t) = \frac{s\, e^{2st}}{e^{2st} - 1 + s/a_0} \quad (L = 2)

    Gradient flow on half the squared error, inputs of covariance I, and balanced factors whose singular vectors are those of
    the target: each of the L factors has the singular value :math:`a^{1/L}` in the mode, the target has s.

    Args:
        times: of any shape and order, none negative, in units in which a single layer learns as :math:`e^{-t}`.
        strength: s > 0. start: a₀ in (0, s). depth: L ≥ 1, the number of factors.

    Cost: none for one and two layers; for more, an integration of ln a/(s − a), right to about 10⁻¹⁰.

    Errors: ``ArgumentError`` for a number outside its domain.

    Source: Saxe, McClelland & Ganguli 2014, Exact solutions to the nonlinear dynamics of learning in deep linear networks.

    Example:
        >>> mode_strength([0.0, 1.0], strength=1.0, start=0.5, depth=1).round(4).tolist()  # 1 − e⁻¹/2
        [0.5, 0.8161]

    """
    _check(strength, start, start, depth)
    t = np.asarray(times, dtype=np.float64)
    if (t < 0).any():
        raise ArgumentError("times", "none negative", repr(float(t.min())), "Measure time from the start.")
    if depth == 1:
        return strength - (strength - start) * np.exp(-t)
    if depth == 2:
        return strength / (1 + (strength / start - 1) * np.exp(-2 * strength * t))
    distinct, place = np.unique(t, return_inverse=True)
    rate = depth * strength ** (2 - 2 / depth)
    span = float(t.max(initial=0.0)) or 1.0
    path = solve_ivp(  # in z = ln a/(s − a), for which it has no stiff part
        lambda _, z: rate * expit(z) ** (1 - 2 / depth),
        (0.0, span),
        [np.log(start / (strength - start))],
        "DOP853",
        t_eval=distinct,
        rtol=1e-12,
        atol=1e-12,
    )
    return np.asarray(strength * expit(path.y[0]))[place].reshape(t.shape)


def mode_time(strength: float, start: float, end: float, depth: int = 2) -> float:
    r"""The time in which one mode of a deep linear network goes from one strength to another.

    .. math:: t = \int_{a_0}^{a_1} \frac{da}{L\, a^{2 - 2/L} (s - a)}, \qquad
        t_{1/2} = \frac{1}{2s} \ln\!\left(\frac{s}{a_0} - 1\right) \quad (L = 2)

    From a small start two layers take a time of order ln(1/a₀), more of order :math:`a_0^{-(1 - 2/L)}`, one layer no longer
    than from zero. Assumptions, arguments and units as for :func:`mode_strength`; ``end`` is in [start, s).

    Errors: ``ArgumentError`` for a number outside its domain.

    Source: Saxe, McClelland & Ganguli 2014, Exact solutions to the nonlinear dynamics of learning in deep linear networks.

    Example:
        >>> round(mode_time(strength=2.0, start=1e-3, end=1.0), 4)  # ln(1999)/4
        1.9001

    """
    _check(strength, start, end, depth)
    if depth == 1:
        return float(np.log((strength - start) / (strength - end)))
    if depth == 2:
        return float(np.log(end / start * (strength - start) / (strength - end)) / (2 * strength))
    logits = [float(np.log(a / (strength - a))) for a in (start, end)]
    slowness = quad(lambda z: expit(z) ** (2 / depth - 1), *logits, limit=200, epsabs=0, epsrel=1e-10)[0]
    return float(slowness / (depth * strength ** (2 - 2 / depth)))


def _check(strength: float, start: float, end: float, depth: int) -> None:
    if not isinstance(strength, Real) or not 0 < strength < np.inf:
        raise ArgumentError("strength", "a positive number", repr(strength), "Pass a singular value of the target.")
    if not isinstance(start, Real) or not 0 < start < strength:
        remedy = "Pass the product's singular value at the start; from zero, or past the target, it is another problem."
        raise ArgumentError("start", f"a number strictly between 0 and {strength:g}", repr(start), remedy)
    if not isinstance(end, Real) or not start <= end < strength:
        remedy = "Pass for example end=strength / 2."
        raise ArgumentError("end", f"a number from {start:g} to below {strength:g}", repr(end), remedy)
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ArgumentError("depth", "an integer ≥ 1", repr(depth), "Pass the number of layers.")
