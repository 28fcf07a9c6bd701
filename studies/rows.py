"""A row: what one trial gave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from .errors import ClaimError

Value = float | int | np.ndarray
#: Bytes of one array: SQLite's limit for a blob is 1e9, headers included.
LARGEST = 999_000_000


@final
@dataclass(frozen=True)
class Row:
    """One finished trial: its values, or the error that stopped it."""

    claim: str
    arm: str
    point: Mapping[str, Any]
    k: int
    values: Mapping[str, Value]
    error: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    stale: bool = False

    @property
    def value(self) -> float:
        """The judged number."""
        return float(self.values["value"])


def as_values(returned: Any) -> dict[str, Value]:
    """A trial's return as a flat dict of finite numbers and arrays, the judged one under ``"value"``.

    Raises
    ------
    ClaimError : no ``"value"``, a number that is NaN or infinite, or an entry that is neither number nor array.

    """
    entries = returned if isinstance(returned, Mapping) else {"value": returned}
    if "value" not in entries:
        raise ClaimError(f"the trial returned a dict without the entry 'value', only {', '.join(map(repr, entries))}.")
    return {str(name): _as_value(str(name), entry) for name, entry in entries.items()}


def _as_value(name: str, entry: Any) -> Value:
    if hasattr(entry, "detach"):
        entry = entry.detach().cpu().numpy()
    array = np.asarray(entry)
    if array.dtype.kind not in "biuf":
        raise ClaimError(
            f"the trial returned {name!r} as {type(entry).__name__}; a number or a numeric array is expected."
        )
    if array.nbytes > LARGEST:
        raise ClaimError(
            f"the trial returned {name!r} with {array.nbytes:.2g} bytes; a ledger takes {LARGEST:.2g} an array."
        )
    if array.ndim and name != "value":
        return array
    if array.size != 1:
        raise ClaimError(f"the trial returned 'value' with shape {array.shape}; one number is judged.")
    number = array.reshape(()).item()
    if not math.isfinite(number):
        raise ClaimError(f"the trial returned {name} = {number}; a finite number is expected.")
    return int(number) if array.dtype.kind in "biu" else float(number)
