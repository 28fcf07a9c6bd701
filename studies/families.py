"""The table of architectures: each family with its contract and the claims that run on it, as README shows it.

Run: ``python -m lemmata.studies.families`` prints it in Markdown. A test compares README's copy.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from lemmata.architectures import ARCHITECTURES, Exemption

from .claim import Claim
from .code import mentioned_by
from .study import everything

EVERY = "ARCHITECTURES"


def used_by(claim: Claim) -> set[str]:
    """The names of ``lemmata.architectures`` that a claim's trial reaches; ``"ARCHITECTURES"`` stands for all.

    >>> from lemmata.studies.invariance.translation import conv_translation_equivariance
    >>> used_by(conv_translation_equivariance)
    {'CNN'}
    """
    return {EVERY, *(entry.family for entry in ARCHITECTURES)} & _reached(Path(claim.file), claim.id, set())


def _reached(file: Path, name: str, seen: set[tuple[Path, str]]) -> set[str]:
    """What a name of a file mentions of the architectures, also by way of other studies that it imports from."""
    if (file, name) in seen:
        return set()
    seen.add((file, name))
    mentioned, found = set(mentioned_by(file, name)), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if (alias.asname or alias.name) not in mentioned:
                continue
            if module.startswith("lemmata.architectures"):
                found.add(alias.name)
            elif module.startswith("lemmata.studies."):
                other = Path(__file__).parent.joinpath(*module.split(".")[2:]).with_suffix(".py")
                found |= _reached(other, alias.name, seen) if other.is_file() else set()
    return found


def markdown() -> str:
    """The table, one row for each family in the order of the catalogue, the exemptions in words, and the rest."""
    used = [(claim.study, used_by(claim)) for study in everything() for claim in study.claims]
    lines = ["| family | instances tested | symmetry | contract | claims | source |", "| --- " * 6 + "|"]
    for family in dict.fromkeys(entry.family for entry in ARCHITECTURES):
        entries = [entry for entry in ARCHITECTURES if entry.family == family]
        exempt = [entry.name for entry in entries if entry.exempt]
        claims = Counter(study for study, names in used if family in names)
        cells = [
            f"`{family}`",
            ", ".join(entry.name for entry in entries),
            "exact" if any(entry.symmetry for entry in entries) else "–",
            f"all, but see {', '.join(exempt)} below" if exempt else "all",
            ", ".join(f"{study} ({count})" for study, count in claims.items()) or "–",
            ", ".join(dict.fromkeys(entry.source for entry in entries)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    exemptions = [f"- {entry.name} fails {_told(x)}" for entry in ARCHITECTURES for x in entry.exempt]
    whole = Counter(study for study, names in used if EVERY in names)
    every = ", ".join(f"{study} ({count})" for study, count in whole.items())
    return "\n".join([*lines, "", *exemptions, "", f"Claims over the whole catalogue: {every}."])


def _told(exemption: Exemption) -> str:
    return f"*{'*, *'.join(exemption.checks)}*: {exemption.reason.rstrip('.')}."


if __name__ == "__main__":
    print(markdown())
