"""The bibliography's keys, read without torch and without a BibTeX parser."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).with_name("references.bib")


@cache
def known_keys(path: Path = BIBLIOGRAPHY) -> frozenset[str]:
    """Keys of a ``.bib`` file; by default the lab's own."""
    return frozenset(re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)\s*,", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
