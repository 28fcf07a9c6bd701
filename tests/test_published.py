"""The committed reports are what their ledger says: judged and rendered again, they come out the same."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

from lemmata.studies import STUDIES
from lemmata.studies.publish import exit_status, publish
from lemmata.studies.session import Judged, judged

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "reports" / "published"
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


@pytest.fixture(scope="module")
def studies() -> list[Judged]:
    return judged(PUBLISHED, current=False)


def test_every_study_is_published_and_as_expected(studies: list[Judged]) -> None:
    assert {study.study.name for study in studies} == set(STUDIES)
    assert exit_status(studies) == 0
    assert {id_: found["verdict"] for id_, found in json.loads((PUBLISHED / "verdicts.json").read_text()).items()} == {
        result.claim.id: result.verdict.name for study in studies for result in study.results
    }


def test_no_claim_is_published_without_its_power(studies: list[Judged]) -> None:
    from lemmata.studies.verdict import samples_of

    for study in studies:
        for result in study.results:
            if result.claim.predicts.sampled:
                assert (
                    result.claim.predicts.chance_to_refute(samples_of(result.claim, result.rows, result.profile)) >= 0.9
                ), result.claim.id


@pytest.mark.skipif(
    any(importlib.metadata.version(name) != PINNED[name] for name in ("matplotlib", "typst")),
    reason="other versions of matplotlib or typst draw other bytes; install with -c constraints.txt",
)
def test_the_same_ledger_gives_the_same_bytes(studies: list[Judged], tmp_path: Path) -> None:
    publish(studies, tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(made) == 2 * len(STUDIES) + 2
    differing = [str(path) for path, content in made.items() if (PUBLISHED / path).read_bytes() != content]
    assert not differing, "render again with: lemmata report reports/published --as-published"


def test_alt_text_of_every_formula_in_the_pdf_is_its_source(studies: list[Judged]) -> None:
    """The sources are cut from the docstrings here, by another rule than the report's."""
    pikepdf = pytest.importorskip("pikepdf")
    for judged_study in studies:
        study = judged_study.study
        prose = [study.abstract, *(claim.statement for claim in study.claims)]
        sources = [
            formula for text in prose for formula in re.findall(r"(?<!\\)\$(.+?)(?<!\\)\$", text, flags=re.DOTALL)
        ]
        with pikepdf.open(PUBLISHED / f"{study.name.replace('/', '-')}.pdf") as pdf:
            nodes = [node for node in pdf.objects if isinstance(node, pikepdf.Dictionary)]
            found = [str(node.Alt) for node in nodes if node.get("/S") == "/Formula" and "/Alt" in node]
        assert len(sources) > 5
        assert sorted(" ".join(text.split()) for text in found) == sorted(" ".join(text.split()) for text in sources)
