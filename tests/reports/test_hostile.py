"""Strings that try to be code, in every place that is data: they come out as themselves and do nothing."""

from __future__ import annotations

from dataclasses import replace

import html5lib
import pypdf
import pytest

from lemmata.reports import Arm, MissingSourceError, ReportError, write_index, write_study
from lemmata.reports.markup import clean

NS = "{http://www.w3.org/1999/xhtml}"
NASTY = [
    "</script><script>alert(1)</script>",
    '#read("/etc/passwd")',
    "$x$ and $",
    '" onload="x',
    "back\\slash \\u{41}",
    "@cohen2021edge @cite",
    "<label>",
    "]]> <!-- -->",
    "{{body}} {{title}}",
    "*bold* _it_ `raw` = h #set text(red)",
    "../../etc/passwd",
    "&amp; <b>",
    "=HYPERLINK(1)",
]
STRANGE = [
    "NUL \0 end",
    "emoji \U0001f600",
    "rtl \u05e9\u05dc\u05d5\u05dd \u202eevil",
    "\u4e2d\u6587 title",
    "\ufffe \ud800 \x07",
]


def hostile_study(samples, nasty: str):
    base = samples.claim()
    points = tuple(replace(one, label=nasty, predicted=nasty) for one in base.arm.points[:2])
    figure = replace(base.figures[0], name=nasty, caption=nasty, alt=nasty, data={nasty: [nasty, "1"]})
    surface = replace(
        samples.bowl(5), name=nasty, caption=nasty, alt=nasty, x_label=nasty, y_label=nasty, z_label=nasty
    )
    arm = Arm(nasty, nasty, "fails", nasty, points)
    claim = replace(
        base, id=nasty, title=nasty, prediction=nasty, reason=nasty, headline=nasty, expected=nasty, power=nasty, command=nasty, switch=nasty,
        failed=(nasty,), arm=replace(base.arm, points=points, reason=nasty), controls=(arm,), figures=(figure, surface),
    )  # fmt: skip
    study = samples.study()
    return replace(
        study,
        name=nasty,
        title=nasty,
        profile=nasty,
        environment=((nasty, nasty),),
        claims=(claim, replace(claim, figures=())),
    )


def texts(page: str) -> tuple[str, int, int]:
    tree = html5lib.HTMLParser(strict=True).parse(page)
    return "".join(tree.itertext()), len(list(tree.iter(f"{NS}script"))), len(list(tree.iter(f"{NS}img")))


def test_hostile_strings_are_inert(samples, tmp_path):
    """One report holds them all: each string in turn is the data of a claim."""
    ordinary = samples.study()
    studies = [hostile_study(samples, nasty) for nasty in NASTY]
    study = replace(
        studies[0],
        claims=tuple(claim for one in studies for claim in one.claims[:1]),
        environment=tuple((nasty, nasty) for nasty in NASTY),
    )
    html, pdf = write_study(study, tmp_path)
    text, scripts, images = texts(html.read_text())
    assert scripts == 2 and images == 2 * len(NASTY)
    for nasty in NASTY:
        assert clean(nasty) in text
    seen = "".join("".join(page.extract_text() for page in pypdf.PdfReader(pdf).pages).split())
    for nasty in NASTY:
        assert "".join(nasty.split()) in seen
    index = write_index([study, ordinary], tmp_path).read_text()
    text, scripts, _ = texts(index)
    assert scripts == 2
    assert all(clean(nasty) in text for nasty in NASTY)
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".pdf"}
    with pytest.raises(html5lib.html5parser.ParseError):
        texts(index.replace("<h1>", "<h1></script>", 1))


def test_characters_that_no_font_or_format_has(samples, tmp_path):
    studies = [hostile_study(samples, strange) for strange in STRANGE]
    study = replace(
        studies[0], name="\n".join(STRANGE), claims=tuple(claim for one in studies for claim in one.claims[:1])
    )
    html, pdf = write_study(study, tmp_path)
    text, _, _ = texts(html.read_text(encoding="utf-8"))
    for strange in STRANGE:
        assert " ".join(clean(strange).split()) in text
    seen = "".join(page.extract_text() for page in pypdf.PdfReader(pdf).pages)
    assert "\u202e" not in seen and "\0" not in seen
    assert "(U+4E2D)(U+6587) title" in seen and "\u05e9" in seen


BROKEN = [
    "It costs $5.",
    "see @home and @nobody",
    'a #read("/etc/passwd") b',
    '#import "@preview/cetz:0.3.0"',
    "$ x^ $",
    "`open",
    '#image("fig.svg")',
]


def test_a_statement_that_does_not_compile_is_shown_as_plain_text(samples, tmp_path):
    """The broken ones say so, the sound one beside them keeps its formulas, and the report is not lost."""
    figures = (samples.line(),)
    claims = tuple(samples.claim(statement=statement, figures=figures) for statement in BROKEN)
    study = replace(samples.study(), claims=(*claims, samples.claim(id="sound", figures=figures)))
    html, pdf = write_study(study, tmp_path)
    text, _, _ = texts(html.read_text())
    assert all(statement in text for statement in BROKEN)
    assert text.count("Shown as plain text") == len(BROKEN)
    assert html.read_text().count("<math") > 3
    seen = " ".join("".join(page.extract_text() for page in pypdf.PdfReader(pdf).pages).split())
    assert seen.count("Shown as plain text") == len(BROKEN)
    assert "root:x:" not in text + seen


def test_a_missing_source_is_an_error_that_names_claim_and_key(samples, tmp_path):
    for changes in ({"sources": ("nobody2031nothing",)}, {"statement": "See @nobody2031nothing."}):
        study = replace(samples.study(), claims=(samples.claim(**changes),))
        with pytest.raises(MissingSourceError, match=r"edge_of_stability.*nobody2031nothing.*references\.bib"):
            write_study(study, tmp_path)
    own = "@misc{nobody2031nothing, title = {Nothing}, author = {Nobody, A.}, year = {2031}}"
    html, _ = write_study(replace(study, bibliography=own), tmp_path)
    assert "Nobody" in html.read_text()


def test_records_that_cannot_be_rendered(samples, tmp_path):
    study = samples.study()
    bad_figure = replace(samples.line(), svg=b"no picture", name="the bad one")
    cases = [
        (replace(study, date="yesterday"), "yesterday"),
        (replace(study, claims=(samples.claim(verdict="MAYBE"),)), "MAYBE"),
        (replace(study, claims=(samples.claim(figures=(replace(samples.line(), alt=" "),)),)), "alternative text"),
        (
            replace(study, claims=(samples.claim(figures=(replace(samples.line(), data={"a": [1], "b": [1, 2]}),)),)),
            "one length",
        ),
        (replace(study, claims=(samples.claim(figures=(replace(samples.bowl(), x=[1.0]),)),)), "len"),
        (replace(study, claims=(samples.claim(figures=(bad_figure,)),)), "the bad one"),
    ]
    for case, message in cases:
        with pytest.raises(ReportError, match=message):
            write_study(case, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_claims_or_words(samples, tmp_path):
    html, _ = write_study(replace(samples.study(), claims=(), abstract="", environment=(), title=""), tmp_path)
    assert "This study holds no claim." in html.read_text()
    write_index([], tmp_path)
