"""Tables beside the claims, and pages that hold nothing else."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import html5lib
import pytest
from pypdf import PdfReader

from lemmata.reports import ReportError, Study, Table, write_index, write_study

TABLE = Table(
    "Products", "On a fast machine.", ("model", "ms", "note"), (("MLP", 1.23456, "a <b>"), ("CNN, deep", None, "$5$"))
)
PAGE = Study("measurements", "How fast", "Side by side.", (), (), "2026-11-28", "", tables=(TABLE,))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    html, pdf = write_study(PAGE, tmp_path_factory.mktemp("tables"))
    return html, pdf


def test_cells_heads_and_note_are_in_both_formats(written: tuple[Path, Path]) -> None:
    page = html5lib.parse(written[0].read_text(), namespaceHTMLElements=False)
    cells = [[" ".join(cell.itertext()) for cell in row] for row in page.iter("tr")]
    assert cells == [["model", "ms", "note"], ["MLP", "1.23", "a <b>"], ["CNN, deep", "", "$5$"]]
    assert [cell.get("class") for cell in next(page.iter("tr"))] == ["key", "number", "text"]
    text = "".join(page_.extract_text() for page_ in PdfReader(written[1]).pages)
    for word in ("Products", "On a fast machine.", "1.23", "a <b>", "$5$"):
        assert word in text and word in "".join(page.itertext())


def test_the_download_holds_every_digit(written: tuple[Path, Path]) -> None:
    found = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', written[0].read_text())
    assert found
    rows = list(csv.reader(io.StringIO(base64.b64decode(found[1]).decode(), newline="")))
    assert rows == [["model", "ms", "note"], ["MLP", "1.23456", "a <b>"], ["CNN, deep", "None", "$5$"]]
    assert PdfReader(written[1]).attachments["table-1.csv"]


def test_a_page_without_claims_says_nothing_of_claims(written: tuple[Path, Path]) -> None:
    page = written[0].read_text()
    assert "Claims at a glance" not in page and "Environment" not in page and "profile" not in page
    assert 'href="#table-1"' in page and 'id="table-1"' in page


def test_tables_follow_the_claims_and_the_index_lists_the_page(samples, tmp_path: Path) -> None:
    study = replace(samples.study(), tables=(TABLE,))
    page = write_study(study, tmp_path)[0].read_text()
    assert page.index('class="claim"') < page.index('id="table-1"') < page.index('id="environment"')
    index = write_index([study, PAGE], tmp_path).read_text()
    assert "1 study · 4 claims" in index and 'href="measurements.html"' in index
    # the filter hides what has no claim that matches: the page is none of its sections
    assert len(re.findall('<section class="study"', index)) == 1 and '<section class="measured"' in index


def test_a_ragged_table_is_refused(tmp_path: Path) -> None:
    ragged = replace(PAGE, tables=(replace(TABLE, rows=(("MLP", 1.0),)),))
    with pytest.raises(ReportError, match="'Products': every row needs 3 cells"):
        write_study(ragged, tmp_path)
