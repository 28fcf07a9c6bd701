"""Numbers and columns as text: one rounding rule for the page, the exact digits for the downloads."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "−"


def number(value: float, digits: int = 4) -> str:
    """A number for reading: `digits` significant digits, a true minus sign, powers of ten for the very large and small.

    >>> number(0.001234567), number(-12.0), number(3.2e-9), number(float("inf"))
    ('0.001235', '−12', '3.2 × 10⁻⁹', '∞')
    """
    value = float(value)
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if power < -4 or power > 6:
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        times = "" if mantissa == "1" else f"{MINUS}" if mantissa == "-1" else f"{mantissa} × "
        return f"{times}10{str(power).translate(_SUPERSCRIPT)}".replace("-", MINUS)
    text = f"{value:.{max(digits - 1 - power, 0)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """An interval for reading; one-sided ones as an inequality, "" where both ends are missing or unbounded."""
    if (math.isnan(low) and math.isnan(high)) or (low == -math.inf and high == math.inf):
        return ""
    if low == -math.inf:
        return f"≤ {number(high)}"
    if high == math.inf:
        return f"≥ {number(low)}"
    return number(low) if low == high else f"[{number(low)}, {number(high)}]"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if not math.isfinite(seconds) or seconds < 0:
        return ""
    if seconds < 120:
        return f"{number(seconds, 2)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def to_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Columns as CSV (RFC 4180, UTF-8); floats keep every digit."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(_exact, column) for column in columns.values()), strict=True))
    return stream.getvalue().encode("utf-8", "backslashreplace")


def digest(data: bytes) -> str:
    """Sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _exact(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return repr(value) if isinstance(value, float) else str(value)
