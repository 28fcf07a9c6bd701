"""The bibliography's keys and entries, read without torch and without a BibTeX parser."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).with_name("references.bib")
_ENTRY = re.compile(r"^\s*@\w+\s*\{\s*([^,\s]+)\s*,", flags=re.MULTILINE)


@cache
def known_keys(path: Path = BIBLIOGRAPHY) -> frozenset[str]:
    """Keys of a ``.bib`` file; by default the lab's own."""
    return frozenset(entries(path.read_text(encoding="utf-8")))


def entries(text: str) -> dict[str, str]:
    """BibTeX text cut into its entries, by key. Each entry's ``@kind{key,`` begins its own line."""
    starts = list(_ENTRY.finditer(text))
    ends = [*(start.start() for start in starts[1:]), len(text)]
    return {start[1]: text[start.start() : end].strip() for start, end in zip(starts, ends, strict=False)}


def merged(extra: str = "") -> dict[str, str]:
    """The lab's entries and a study's own; where both have a key, the study's own entry is taken."""
    return entries(BIBLIOGRAPHY.read_text(encoding="utf-8")) | entries(extra)
