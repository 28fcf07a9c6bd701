"""Findings and judgements: an interval against a band; and the formulas a band may be written in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scipy import stats

from .errors import ClaimError
from .intervals import Array

Outcome = Literal["holds", "fails", "undecided"]
Formula = float | int | str
Point = Mapping[str, Any]


def rounding(terms: float, condition: float = 1.0, eps: float = 2.0**-52) -> float:
    r"""Tolerance of an exact identity in floating point, $50 \sqrt m\,\epsilon\,\kappa$.

    >>> f"{rounding(100):.1e}"
    '1.1e-13'
    """
    return 50.0 * math.sqrt(terms) * eps * condition


_NAMES = {name: getattr(math, name) for name in ("comb", "sqrt", "log", "log2", "exp", "pi", "floor", "factorial")}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SIGNS = (
    (r"rounding\(([^(),]+)\)", r"50·ε·√(\1)"),
    (r"rounding\(([^(),]+), ?([^(),]+)\)", r"50·\2·ε·√(\1)"),
    (r"(\w+) ?// ?(\w+)", r"⌊\1/\2⌋"),
    (r" ?\*\* ?", "^"),
    (r" ?\* ?", "·"),
    (r"(\d)\.0\b", r"\1"),
    ("-", "−"),
)
_NAMES |= {"rounding": rounding, "stats": stats, "min": min, "max": max, "abs": abs}


def evaluate(formula: Formula, point: Point) -> Any:
    """Value of a formula (a number, or an expression in the point's coordinates).

    >>> evaluate("comb(n, 2) + n + 1", {"n": 12})
    79
    """
    if not isinstance(formula, str):
        return formula
    try:
        return eval(formula, {"__builtins__": {}}, {**_NAMES, **point})
    except Exception as error:
        known = ", ".join(sorted([*point, *_NAMES]))
        raise ClaimError(
            f"the formula {formula!r} cannot be evaluated at {dict(point)}: {error}. It may use: {known}."
        ) from error


@dataclass(frozen=True)
class Sample:
    """The judged values of one grid point, shape ``(n,)``: one per seed."""

    point: Point
    values: Array


@dataclass(frozen=True)
class Finding:
    """One judged quantity: its interval, its band and what follows."""

    point: Point
    n: int
    predicted: str
    measured: float
    low: float
    high: float
    band: tuple[float, float]

    @property
    def outcome(self) -> Outcome:
        """Inside the band: holds; outside: fails; across an edge: undecided."""
        return "holds" if self.low >= self.band[0] and self.high <= self.band[1] else self._not_inside()

    def _not_inside(self) -> Outcome:
        return "fails" if self.low > self.band[1] or self.high < self.band[0] else "undecided"


@dataclass(frozen=True)
class Judgement:
    """The findings of one arm of a claim."""

    findings: tuple[Finding, ...]
    reason: str = ""

    @property
    def outcome(self) -> Outcome:
        """All hold: holds. Any fails: fails. Else undecided."""
        outcomes = {finding.outcome for finding in self.findings}
        if "fails" in outcomes:
            return "fails"
        return "holds" if outcomes == {"holds"} and not self.reason else "undecided"


def number(value: float) -> str:
    """A number as a person writes it: 4 significant digits, integers whole, powers of ten for the very large and small.

    >>> number(79.0), number(0.000123), number(float("inf")), number(2.5e-16), number(1e-06)
    ('79', '0.000123', '∞', '2.5 × 10⁻¹⁶', '10⁻⁶')
    """
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
    text = f"{value:.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.4g}"
    mantissa, _, power = text.partition("e")
    if power:
        raised = f"10{str(int(power)).translate(_RAISED)}"
        text = raised if mantissa == "1" else f"{mantissa} × {raised}"
    return text.replace("-", "−")


def text(formula: Formula) -> str:
    """A formula in the signs of mathematics, a number as a person writes it.

    >>> text("2*(1 + beta)"), text("2**(-2*m - 2)"), text("comb(n//2, 2)"), text("rounding(72*depth)")
    ('2·(1 + beta)', '2^(−2·m − 2)', 'comb(⌊n/2⌋, 2)', '50·ε·√(72·depth)')
    """
    if not isinstance(formula, str):
        return number(formula)
    for pattern, sign in _SIGNS:
        formula = re.sub(pattern, sign, formula)
    return formula
