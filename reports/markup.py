"""Statements in Typst markup made ready for the page: each formula carries its own source as alternative text."""

from __future__ import annotations

import json
import re

_CITATION = re.compile(r"(?<![\w\\])@([A-Za-z][\w:.-]*[\w])")
_LOOKS_LIKE_KEY = re.compile(r"[a-z]+\d{4}[a-z]*$")
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufeff]"
)
REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """Text that every format can hold: control, direction-override and non-characters become a replacement mark."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROLS.sub(REPLACEMENT, text)
    return "".join(REPLACEMENT if ord(char) & 0xFFFE == 0xFFFE else char for char in text)


def with_alternatives(markup: str) -> str:
    """Rewrite each ``$…$`` as ``#eq("…");`` so that the template can give it its source as alternative text.

    Raw text, comments and escapes are left as they are; ``$ … $`` with inner spaces is a displayed formula, as in Typst.
    A formula that is never closed is left for Typst to report.
    """
    pieces: list[str] = []
    for kind, text in _parts(markup):
        if kind == "formula":
            display = text[:1].isspace() and text[-1:].isspace()
            pieces.append(f"#eq({quoted(source_of(text))}{', block: true' if display else ''});")
        else:
            pieces.append(text)
    return "".join(pieces)


def formulas(markup: str) -> list[str]:
    """Sources of the formulas, in order, as they are read back from the page."""
    return [source_of(text) for kind, text in _parts(markup) if kind == "formula"]


def citations(markup: str) -> list[str]:
    """Keys of the ``@key`` citations in order of appearance; ``@`` in formulas, raw text or words is none."""
    return [key for kind, text in _parts(markup) if kind == "text" for key in _CITATION.findall(text)]


def looks_like_key(key: str) -> bool:
    """Whether ``@key`` can only be meant as a citation (``cohen2021edge``), not as a stray at-sign."""
    return _LOOKS_LIKE_KEY.match(key) is not None


def source_of(formula: str) -> str:
    """A formula's source on one line (Typst's maths treats all white space alike; strings and comments are kept)."""
    formula = formula.strip()
    return formula if '"' in formula or "//" in formula else re.sub(r"\s+", " ", formula)


def quoted(text: str) -> str:
    """A Typst string literal."""
    return json.dumps(text, ensure_ascii=False).replace("\\b", "\\u{8}").replace("\\f", "\\u{c}")


def _parts(markup: str) -> list[tuple[str, str]]:
    """Cut markup into ("text" | "verbatim" | "formula", content)."""
    parts: list[tuple[str, str]] = []
    at = start = 0
    while at < len(markup):
        end, kind, content = _special(markup, at)
        if kind:
            if start < at:
                parts.append(("text", markup[start:at]))
            parts.append((kind, content))
            start = end
        at = end
    if start < len(markup):
        parts.append(("text", markup[start:]))
    return parts


def _special(markup: str, at: int) -> tuple[int, str, str]:
    """What begins at a place: (where it ends, its kind or "", its content)."""
    char = markup[at]
    if char == "\\":
        return at + 2, "", ""
    if char == "`":
        return _verbatim(markup, at)
    if markup.startswith("//", at) and markup[at - 1 : at] != ":":
        end = markup.find("\n", at)
        end = len(markup) if end < 0 else end
        return end, "verbatim", markup[at:end]
    if markup.startswith("/*", at):
        end = markup.find("*/", at)
        end = len(markup) if end < 0 else end + 2
        return end, "verbatim", markup[at:end]
    if char == "$":
        end = _formula_end(markup, at + 1)
        if end > at + 1:
            return end + 1, "formula", markup[at + 1 : end]
    return at + 1, "", ""


def _verbatim(markup: str, at: int) -> tuple[int, str, str]:
    ticks = len(markup) - at - len(markup[at:].lstrip("`"))
    if ticks == 2:
        return at + 2, "verbatim", "``"
    end = markup.find("`" * ticks, at + ticks)
    end = len(markup) if end < 0 else end + ticks
    return end, "verbatim", markup[at:end]


def _formula_end(markup: str, at: int) -> int:
    """Index of the closing ``$``, or -1. A ``$`` that is escaped or inside a string does not close."""
    inside_string = False
    while at < len(markup):
        char = markup[at]
        if char == "\\":
            at += 1
        elif char == '"':
            inside_string = not inside_string
        elif char == "$" and not inside_string:
            return at
        at += 1
    return -1
