"""The PDF: what a reader, a screen reader and an archive find in it."""

from __future__ import annotations

import pikepdf
import pypdf
import pytest

from lemmata.reports.markup import formulas
from lemmata.reports.numerals import to_csv


def alternatives(pdf: pikepdf.Pdf, kind: str) -> list[str]:
    """Alternative texts of the structure tree's elements of one kind, in reading order."""
    found: list[str] = []

    def walk(node) -> None:
        if isinstance(node, pikepdf.Array):
            for child in node:
                walk(child)
        elif isinstance(node, pikepdf.Dictionary):
            if node.get("/S") == pikepdf.Name(kind):
                found.append(str(node.get("/Alt", "")))
            if "/K" in node and node.get("/Type") != pikepdf.Name("/MCR"):
                walk(node["/K"])

    walk(pdf.Root.StructTreeRoot["/K"])
    return found


def standards(pdf: pikepdf.Pdf) -> tuple[str | None, str | None, str | None]:
    with pdf.open_metadata() as meta:
        return meta.get("pdfaid:part"), meta.get("pdfaid:conformance"), meta.get("pdfuaid:part")


def rasters(pdf: pikepdf.Pdf) -> int:
    return sum(isinstance(o, pikepdf.Stream) and o.get("/Subtype") == "/Image" for o in pdf.objects)


def test_text_title_language_tags_outline(built):
    reader = pypdf.PdfReader(built.pdf)
    text = " ".join("".join(page.extract_text() for page in reader.pages).split())
    for part in (
        "Claim 1",
        "SUPPORTED",
        "INCONCLUSIVE",
        "DEPENDS",
        "REFUTED",
        "1.010 ± 0.020",
        "Figure 1",
        "hutchinson_variance",
        "Shown as plain text",
    ):
        assert part in text
    assert reader.metadata.title == built.study.title
    root = reader.trailer["/Root"]
    assert root["/Lang"] == "en" and root["/MarkInfo"]["/Marked"]
    titles = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert titles[0] == "Claims at a glance" and titles[-1] == "References" and len(titles) == 7
    assert reader.metadata.creation_date.date().isoformat() == built.study.date


def test_archive_and_accessibility_standards(built, tmp_path):
    with pikepdf.open(built.pdf) as pdf:
        assert standards(pdf) == ("3", "A", "1")
        assert rasters(pdf) == 0
    plain = pikepdf.new()
    plain.add_blank_page()
    assert standards(plain) == (None, None, None)
    plain.Root.Picture = plain.make_stream(
        b"\0", Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Image, Width=1, Height=1
    )
    assert rasters(plain) == 1


def test_each_formula_reads_as_its_source(built):
    expected = formulas(built.study.abstract)
    for claim in built.study.claims[:3]:
        expected += formulas(claim.statement)
    with pikepdf.open(built.pdf) as pdf:
        found = alternatives(pdf, "/Formula")
    assert len(expected) > 15
    assert found == expected
    assert found != [*expected[:-1], "x"]


def test_figures_have_alternative_text(built):
    with pikepdf.open(built.pdf) as pdf:
        found = alternatives(pdf, "/Figure")
    assert built.study.claims[0].figures[0].alt in found
    assert built.study.claims[2].figures[0].alt in found
    assert all(found)


def test_data_is_attached(built):
    with pikepdf.open(built.pdf) as pdf:
        attached = {name: bytes(spec.get_file().read_bytes()) for name, spec in pdf.attachments.items()}
    figures = {name: content for name, content in attached.items() if name.startswith("fig-")}
    assert len(figures) == 6 and len(attached) == 10
    assert figures["fig-claim-edge_of_stability-1.csv"] == to_csv(built.study.claims[0].figures[0].data)
    with pytest.raises(KeyError):
        attached["absent.csv"]


def test_long_tables_are_cut_with_a_note(built):
    text = " ".join("".join(page.extract_text() for page in pypdf.PdfReader(built.pdf).pages).split())
    assert "The first 12 of 20 points" in text and "depth = 20" not in text
