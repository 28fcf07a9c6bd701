"""The HTML pages: well formed, closed to the network, complete; each check is tried on a page that must fail it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re

import html5lib
import pytest
from html5lib.html5parser import ParseError

NS = "{http://www.w3.org/1999/xhtml}"
LOADING = {"src", "srcset", "poster", "data", "action", "formaction", "background", "ping"}


def parse(page: str):
    return html5lib.HTMLParser(strict=True).parse(page)


def external_loads(page: str) -> list[str]:
    """Whatever a browser would fetch when it opens the page: attributes, style sheets, imports."""
    found = []
    for element in parse(page).iter():
        if not isinstance(element.tag, str):
            continue
        tag = element.tag.removeprefix(NS)
        for name, value in element.attrib.items():
            if (name in LOADING and not value.startswith("data:")) or (
                name == "href" and tag in {"link", "base", "image", "use"}
            ):
                found.append(f"{tag} {name}={value}")
            if name.startswith("on") or (name == "href" and value.strip().lower().startswith("javascript:")):
                found.append(f"{tag} {name}={value}")
        if tag == "style":
            found += [
                url
                for url in re.findall(r"url\(\s*[\"']?([^\"')]+)", element.text or "")
                if not url.startswith("data:")
            ]
            found += re.findall(r"@import[^;]*", element.text or "")
    return found


def policy_faults(page: str) -> list[str]:
    """Inline code whose hash the policy lacks, hashes without code, and style attributes, which it forbids."""
    tree = parse(page)
    policy = next(e.get("content") for e in tree.iter(f"{NS}meta") if e.get("http-equiv") == "Content-Security-Policy")
    if "default-src 'none'" not in policy or "unsafe" in policy or "*" in policy:
        return [policy]
    faults = [
        f"style attribute on {e.tag}" for e in tree.iter() if isinstance(e.tag, str) and e.get("style") is not None
    ]
    for rule, tag in (("script-src", "script"), ("style-src", "style")):
        allowed = set(re.findall(rf"{rule} ([^;]*)", policy)[0].replace("'none'", "").split())
        used = {
            f"'sha256-{base64.b64encode(hashlib.sha256((e.text or '').encode()).digest()).decode()}'"
            for e in tree.iter(f"{NS}{tag}")
        }
        faults += [f"{rule} {one}" for one in allowed ^ used]
    return faults


def test_strict_parse(built):
    parse(built.html)
    parse(built.index)
    with pytest.raises(ParseError):
        parse(built.html.replace("</main>", "</section></main>"))


def test_nothing_is_loaded(built):
    assert external_loads(built.html) == external_loads(built.index) == []
    for bad in (
        '<img src="https://example.org/a.png" alt="">',
        "<style>@import 'a.css'</style>",
        '<p onclick="a()">x</p>',
    ):
        assert external_loads(built.html.replace('<p class="byline">', f"{bad}<p>", 1))


def test_policy_covers_exactly_the_inline_code(built):
    assert policy_faults(built.html) == policy_faults(built.index) == []
    assert policy_faults(built.html.replace('"use strict";', '"use strict"; ', 1))
    assert policy_faults(built.html.replace("<main ", '<main style="color:red" ', 1))


def test_shape_of_the_body(built):
    """The structure that readers, style sheet and scripts rely on; a new Typst that changes it is noticed here."""
    tree = parse(built.html)
    main = next(tree.iter(f"{NS}main"))
    shape = [child.tag.removeprefix(NS) + (f".{child.get('class')}" if child.get("class") else "") for child in main]
    assert shape == ["h1", "p.byline", "div.abstract", "section", *["section.claim"] * 4, "section", "section"]
    assert [child.get("id") for child in main if child.tag == f"{NS}section"] == [
        "summary",
        None,
        None,
        None,
        None,
        "environment",
        "references",
    ]
    claim = next(e for e in main if e.get("class") == "claim")
    inside = [child.tag.removeprefix(NS) + (f".{child.get('class')}" if child.get("class") else "") for child in claim]
    figure = ["figure", "details"]
    assert inside == [
        "h2",
        "div.theorem",
        "dl.facts",
        "h3",
        *figure,
        *figure,
        "div.scroll",
        "h3",
        "div.control",
        "h3",
        "dl.facts",
        "pre.command",
        "p.muted",
    ]


def test_every_link_inside_the_page_has_its_target(built):
    for page in (built.html, built.index):
        tree = parse(page)
        ids = [e.get("id") for e in tree.iter() if isinstance(e.tag, str) and e.get("id")]
        assert len(ids) == len(set(ids))
        missing = {e.get("href")[1:] for e in tree.iter(f"{NS}a") if (e.get("href") or "").startswith("#")} - set(ids)
        assert missing == set()


def test_images_have_alternative_text_and_verdicts_are_words(built):
    tree = parse(built.html)
    images = list(tree.iter(f"{NS}img"))
    assert len(images) == 6
    assert all(len(image.get("alt")) > 10 for image in images)
    text = "".join(tree.itertext())
    for claim in built.study.claims:
        assert claim.verdict in text and claim.headline in text


def test_downloads_hold_the_data(built):
    figure = built.study.claims[0].figures[0]
    tree = parse(built.html)
    found = {
        e.get("download"): base64.b64decode(e.get("href").partition("base64,")[2])
        for e in tree.iter(f"{NS}a")
        if e.get("download")
    }
    content = found["fig-claim-edge_of_stability-1.csv"]
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert rows[0] == ["step", "sharpness"]
    assert [float(row[1]) for row in rows[1:]] == list(figure.data["sharpness"])
    assert hashlib.sha256(content).hexdigest() in built.html


def test_long_tables_are_folded_and_all_points_are_there(built):
    assert "All 20 points" in built.html
    assert "width = 1048576, depth = 20" in built.html


def test_brackets_around_low_content_do_not_stretch(built):
    from lemmata.reports.mathml import settle

    low = "<math><mi>f</mi><mrow><mo>(</mo><msub><mi>x</mi><mn>1</mn></msub><mo>)</mo></mrow></math>"
    tall = low.replace("<mi>x</mi>", "<mfrac><mn>1</mn><mn>2</mn></mfrac>")
    assert settle(low).count('stretchy="false"') == 2
    assert settle(tall) == tall
    assert settle("<p><mrow><mo>(</mo></mrow></p>") == "<p><mrow><mo>(</mo></mrow></p>"
    assert 'stretchy="false"' in built.html
