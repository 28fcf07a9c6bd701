"""The committed reports are what their ledger says: judged and rendered again, they come out the same."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from pathlib import Path

import pytest

from lemmata.studies import STUDIES
from lemmata.studies.publish import exit_status, publish
from lemmata.studies.session import Judged, judged

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "reports" / "published"
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


#: The reference run of every study, and the studies whose full profile was run.
FOLDERS = {"quick": PUBLISHED, "full": PUBLISHED / "full"}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    return FOLDERS[request.param]


@pytest.fixture(scope="module")
def studies(folder: Path) -> list[Judged]:
    return judged(folder, current=False)


def test_every_study_is_published_and_as_expected(studies: list[Judged], folder: Path) -> None:
    names = {study.study.name for study in studies}
    assert names == set(STUDIES) if folder == PUBLISHED else {"architectures/mnist1d"} <= names <= set(STUDIES)
    assert {result.profile for study in studies for result in study.results} == {
        "quick" if folder == PUBLISHED else "full"
    }
    assert exit_status(studies) == 0
    assert {id_: found["verdict"] for id_, found in json.loads((folder / "verdicts.json").read_text()).items()} == {
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


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.metadata.version(name) != PINNED[name] for name in ("matplotlib", "typst")),
    reason="other versions of matplotlib or typst draw other bytes; install with -c constraints.txt",
)
def test_the_same_ledger_gives_the_same_bytes(studies: list[Judged], folder: Path, tmp_path: Path) -> None:
    benchmarks = sorted((folder / "measurements").glob("*.json"))
    (tmp_path / "measurements").mkdir()
    for file in benchmarks:
        shutil.copy(file, tmp_path / "measurements")
    publish(studies, tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert len(made) == 2 * len(studies) + 2 + 2 * bool(benchmarks)
    differing = [str(path) for path, content in made.items() if (folder / path).read_bytes() != content]
    assert not differing, "render again with: lemmata report reports/published --as-published"


def test_alt_text_of_every_formula_in_the_pdf_is_its_source(studies: list[Judged], folder: Path) -> None:
    """The sources are cut from the docstrings here, by another rule than the report's."""
    pikepdf, count = pytest.importorskip("pikepdf"), 0
    for judged_study in studies:
        study = judged_study.study
        prose = [study.abstract, *(claim.statement for claim in study.claims)]
        sources = [
            formula for text in prose for formula in re.findall(r"(?<!\\)\$(.+?)(?<!\\)\$", text, flags=re.DOTALL)
        ]
        with pikepdf.open(folder / f"{study.name.replace('/', '-')}.pdf") as pdf:
            nodes = [node for node in pdf.objects if isinstance(node, pikepdf.Dictionary)]
            found = [str(node.Alt) for node in nodes if node.get("/S") == "/Formula" and "/Alt" in node]
        count += len(sources)
        assert sorted(" ".join(text.split()) for text in found) == sorted(" ".join(text.split()) for text in sources)
    assert count > 0


def test_no_page_holds_an_address_of_this_process(folder: Path) -> None:
    """Such as the repr of a function: it would change from run to run."""
    assert [page.name for page in folder.glob("*.html") if re.search(r" at 0x[0-9a-f]+", page.read_text())] == []
