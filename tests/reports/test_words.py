"""The small parts: markup, numbers, bibliography, index, font."""

from __future__ import annotations

import doctest
import importlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

import lemmata.reports
from lemmata.reports import known_keys, to_json, write_index
from lemmata.reports.bibliography import entries
from lemmata.reports.markup import citations, clean, formulas, looks_like_key, with_alternatives
from lemmata.reports.numerals import interval, number, to_csv

PACKAGE = Path(lemmata.reports.__file__).parent


@pytest.mark.parametrize(
    ("markup", "rewritten"),
    [
        ("a $x$ b", 'a #eq("x"); b'),
        ("$ x $", '#eq("x", block: true);'),
        ("$\n  x\n  + y\n$", '#eq("x + y", block: true);'),
        (r"costs \$5 and $n$-th", r'costs \$5 and #eq("n");-th'),
        ("$f$(x) $g$[1]", '#eq("f");(x) #eq("g");[1]'),
        (r'$"cost in $" x$', r'#eq("\"cost in $\" x");'),
        (r"$a \$ b$", r'#eq("a \\$ b");'),
        ("`$x$` and ```$y$```", "`$x$` and ```$y$```"),
        ("// $x$\n$y$ https://a.b/$z$", '// $x$\n#eq("y"); https://a.b/#eq("z");'),
        ("/* $x$ */ $y$", '/* $x$ */ #eq("y");'),
        ("never $closed", "never $closed"),
        ("$$", "$$"),
        ("``$x$", '``#eq("x");'),
    ],
)
def test_formulas_get_their_source(markup, rewritten):
    assert with_alternatives(markup) == rewritten


def test_sources_and_citations():
    assert formulas("$a$ `$b$` $ c\n d $") == ["a", "c d"]
    assert citations("@cohen2021edge, a@b.c \\@no $@x$ `@y` @goh2017momentum.") == ["cohen2021edge", "goh2017momentum"]
    assert looks_like_key("cohen2021edge") and not looks_like_key("home")


def test_clean_keeps_words_and_drops_traps():
    assert clean("a\0b\x1b\u202ec\ud800\uffff\U0010ffff") == "a\ufffdb\ufffd\ufffdc\ufffd\ufffd\ufffd"
    assert clean("naïve λ שלום 中 😀\n\tx") == "naïve λ שלום 中 😀\n\tx"


def test_numbers():
    for value, said in (
        (0.0, "0"),
        (-12.0, "−12"),
        (1234567.0, "1234567"),
        (12345678.0, "1.235 × 10⁷"),
        (1e-13, "10⁻¹³"),
        (-1e-13, "−10⁻¹³"),
        (math.nan, "not a number"),
        (-math.inf, "−∞"),
        (9999.96, "10000"),
        (5e-324, "4.941 × 10⁻³²⁴"),
    ):
        assert number(value) == said
    assert (
        interval(-math.inf, 2) == "≤ 2"
        and interval(-math.inf, math.inf) == ""
        and interval(1, 1) == "1"
        and interval(0, math.inf) == "≥ 0"
    )
    assert to_csv({"a": [0.1, math.inf], "b,": ['x"y', 2]}) == b'a,"b,"\r\n0.1,"x""y"\r\ninf,2\r\n'


def test_examples_in_docstrings():
    for name in ("numerals", "figures"):
        result = doctest.testmod(importlib.import_module(f"lemmata.reports.{name}"))
        assert result.attempted and not result.failed


def test_bibliography_is_complete_and_each_entry_can_be_found():
    found = entries((PACKAGE / "references.bib").read_text(encoding="utf-8"))
    assert known_keys() == frozenset(found) and len(found) >= 40
    for key, entry in found.items():
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, flags=re.MULTILINE))
        assert {"author", "title", "year"} <= set(fields), key
        assert fields.keys() & {"doi", "eprint", "url"}, key
        assert fields["year"] in key, key
    assert entries("no entries") == {}
    assert "nobody2031nothing" not in known_keys()


def test_records_become_json(samples):
    plain = to_json(samples.study())
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["claims"][1]["arm"]["points"][0]["band_low"] == "-inf"


def test_index_lists_every_claim_and_links_to_it(built):
    for claim in built.study.claims:
        assert f"<code>{claim.id}</code>" in built.index
    assert (
        "0.2 false verdicts are expected by chance." in built.index
        and 'href="curvature-edge_of_stability.pdf"' in built.index
    )
    linked = re.findall(r'href="curvature-edge_of_stability\.html#([^"]+)"', built.index)
    assert len(linked) == 4 and all(f'id="{anchor}"' in built.html for anchor in linked)


def test_index_without_script_shows_everything(built):
    assert built.index.count('<tr data-verdict="') == 4
    assert not re.search(r"<tr[^>]*hidden", built.index)
    assert '<form id="filter" class="filter" role="search" hidden>' in built.index


def test_claims_with_one_id_have_their_own_anchors(samples, tmp_path):
    study = replace(samples.study(), claims=(samples.claim(id="a b"), samples.claim(id="a-b")))
    page = write_index([study], tmp_path).read_text()
    assert "#claim-a-b" in page and "#claim-a-b-2" in page


def test_the_font_has_the_maths_and_its_licence():
    pytest.importorskip("brotli", reason="reading the compressed font needs brotli")
    from fontTools.ttLib import TTFont

    font = TTFont(PACKAGE / "fonts" / "lemmata-math.woff2")
    assert "MATH" in font and font["name"].getDebugName(1) == "Lemmata Math"
    characters = set(font.getBestCmap())
    assert {ord(c) for c in "αωΓ∑∫∞→⇒≤≽∈ℝ𝔼𝒩𝑥𝜃𝚺⟨⟩‖⌊⌋√∇∂⊗⊤′"} <= characters
    assert ord("字") not in characters
    assert "GUST Font License" in (PACKAGE / "fonts" / "LICENSE-lemmata-math.txt").read_text()
