"""What there is: lists of studies and claims, and the table of verdicts, for the terminal."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from .errors import UnknownName
from .study import STUDIES, everything, nearest

if TYPE_CHECKING:
    from .claim import Claim
    from .session import Judged

STYLES = {
    "SUPPORTED": "green",
    "REFUTED": "red",
    "INCONCLUSIVE": "yellow",
    "DEPENDS": "magenta",
    "INVALID": "red reverse",
}


def table(console: Console) -> None:
    """Print every study with its title, read from the files without importing them."""
    listing = Table("Study", "About", box=None, pad_edge=False)
    for study in STUDIES:
        tree = ast.parse((Path(__file__).parent / f"{study}.py").read_text(encoding="utf-8"))
        listing.add_row(Text(study), Text((ast.get_docstring(tree) or "").partition("\n")[0].removesuffix(".")))
    console.print(listing)
    console.print(
        "\nRun one with `lemmata run NAME`, an area with `lemmata run AREA`; `lemmata list --json` prints every claim."
    )


def as_json() -> str:
    """Every claim of the lab as JSON."""
    return json.dumps(
        [_describe(claim) for study in everything() for claim in study.claims], indent=1, ensure_ascii=False
    )


def _describe(claim: Claim) -> dict[str, Any]:
    from .families import used_by

    grids = {"quick": claim.quick, "full": claim.full}
    return {
        "id": claim.id,
        "study": claim.study,
        "title": claim.title,
        "source": list(claim.sources),
        "architectures": sorted(used_by(claim)),
        "predicts": claim.predicts.words(),
        "expects": claim.expects,
        "controls": {name: {k: repr(v) for k, v in override.items()} for name, override in claim.controls.items()},
        "sizes": {
            name: {**{k: list(v) for k, v in grid.coordinates.items()}, "seeds": grid.seeds}
            for name, grid in grids.items()
        },
    }


def show(name: str, console: Console) -> None:
    """Print one claim.

    Raises
    ------
    UnknownName : with the nearest ids.

    """
    claims = {claim.id: claim for study in everything() for claim in study.claims}
    claim = claims.get(name.replace("-", "_"))
    if claim is None:
        raise UnknownName(f"no claim {name!r}. {nearest(name.replace('-', '_'), list(claims))}")
    console.print(Text(claim.title, style="bold"))
    console.print(Text(f"{claim.id} · {claim.study} · source: {', '.join(claim.sources)}\n", style="dim"))
    console.print(Text(claim.statement + "\n"))
    facts = Table.grid(padding=(0, 2))
    facts.add_row("predicts", Text(claim.predicts.words()))
    facts.add_row("expects", Text(claim.expects))
    for profile in ("quick", "full"):
        facts.add_row(profile, Text(repr(claim.grid(profile))))
    for control, override in claim.controls.items():
        facts.add_row("control", Text(f"{control}: {', '.join(f'{k}={v!r}' for k, v in override.items())}"))
    console.print(facts)
    console.print(Text(f"\nlemmata run {claim.study} --claim {claim.id}"))


def verdict_table(studies: Sequence[Judged], console: Console) -> None:
    """Print every claim's verdict."""
    from .verdict import headline

    whole = [Column(name, no_wrap=True) for name in ("Claim", "Verdict", "Controls")]
    listing = Table(*whole[:2], "Measured", whole[2], box=None, pad_edge=False)
    for judged in studies:
        for result in judged.results:
            name = result.verdict.name
            shown = name if name == result.claim.expects else f"{name} (expected {result.claim.expects})"
            fail = sum(judgement.outcome == "fails" for judgement in result.verdict.controls.values())
            controls = f"{fail}/{len(result.verdict.controls)} fail"
            listing.add_row(
                Text(result.claim.id), Text(shown, style=STYLES[name]), Text(headline(result.verdict.claim)), controls
            )
    console.print(listing)
    for judged in studies:
        for result in judged.results:
            if result.verdict.name != result.claim.expects:
                console.print(Text(f"{result.claim.id}: {result.verdict.reason}", style="yellow"))
