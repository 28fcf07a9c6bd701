"""A ledger as JSON Lines, and the comparison of two runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .session import judged

#: Two machines' last digits may differ; anything beyond this is another result.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


def lines(folder: Path) -> Iterator[str]:
    """Every row of the folder's studies, newest generation, one JSON object a line."""
    for study in judged(folder):
        for result in study.results:
            for row in result.rows:
                values = {
                    name: value.tolist() if isinstance(value, np.ndarray) else value
                    for name, value in row.values.items()
                }
                fields = {
                    "study": study.study.name,
                    "claim": row.claim,
                    "arm": row.arm,
                    "point": dict(row.point),
                    "k": row.k,
                }
                rest = {"values": values, "error": row.error, "seconds": row.seconds, "stale": row.stale}
                yield json.dumps(fields | rest, ensure_ascii=False)


def compare(first: Path, second: Path) -> tuple[bool, str]:
    """Whether two runs agree, and a text that says where not."""
    one, two = _values(first), _values(second)
    shared = sorted(one.keys() & two.keys())
    differing = [key for key in shared if not _close(one[key], two[key])]
    verdicts = [_verdicts(first), _verdicts(second)]
    flipped = [id_ for id_ in sorted(verdicts[0].keys() & verdicts[1].keys()) if verdicts[0][id_] != verdicts[1][id_]]
    text = [
        f"{len(shared)} trials in both, {len(one) - len(shared)} only in {first}, {len(two) - len(shared)} only in {second}."
    ]
    text.append(
        f"{len(shared) - len(differing)} agree to {RELATIVE:g}, {len(differing)} differ; {len(flipped)} verdicts differ."
    )
    text += [f"  {' '.join(map(str, key))}: {one[key]!r} and {two[key]!r}" for key in differing[:20]]
    text += [f"  {id_}: {verdicts[0][id_]} and {verdicts[1][id_]}" for id_ in flipped]
    if not shared:
        text.append("The two folders share no trial: were they run with the same studies, profile and salt?")
    return bool(shared) and not differing and not flipped, "\n".join(text)


def _values(folder: Path) -> dict[tuple[Any, ...], float | str]:
    rows = (row for study in judged(folder) for result in study.results for row in result.rows)
    return {
        (row.claim, row.arm, json.dumps(dict(row.point), sort_keys=True), row.k): row.error or row.value for row in rows
    }


def _verdicts(folder: Path) -> dict[str, str]:
    return {result.claim.id: result.verdict.name for study in judged(folder) for result in study.results}


def _close(one: float | str, two: float | str) -> bool:
    if isinstance(one, str) or isinstance(two, str):
        return one == two
    return bool(np.isclose(one, two, rtol=RELATIVE, atol=ABSOLUTE))
