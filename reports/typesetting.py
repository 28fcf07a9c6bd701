"""One view, two compilations: PDF (A-3a and UA-1) and HTML, in a temporary folder that holds only what they need."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from .record import ReportError
from .view import View

TEMPLATE = Path(__file__).with_name("template")
STANDARDS: Any = ("a-3a", "ua-1")
_SAFE = re.compile(
    r"[\x20-\x7e\n\t\u00a0-\u017f\u0391-\u03c9\u0410-\u044f\u2013\u2014\u2018-\u201e\u2026\u2212\u2264\u2265]+"
)


def typeset(view: View, name: str) -> tuple[bytes, str]:
    """The PDF and Typst's HTML of a view.

    A snippet that does not compile as markup is shown as plain text, with the reason; a character that no embedded font
    has is written in the PDF as its code point.

    Raises
    ------
    ReportError : what is left cannot be compiled, with Typst's message; a picture that is no SVG, for example.
    """
    import typst

    with tempfile.TemporaryDirectory(prefix="lemmata-report-") as folder:
        root = Path(folder)
        shutil.copyfile(TEMPLATE / "lab.typ", root / "main.typ")
        for path, content in view.files.items():
            (root / path).write_bytes(content)
        try:
            html, pdf = (_compile(root, view.data, kind) for kind in ("html", "pdf"))
        except typst.TypstError:
            _settle_prose(root, view, name)
            html, pdf = _compile(root, view.data, "html"), _pdf_of_the_displayable(root, view.data, name)
    return pdf, html.decode("utf-8")


def displayable(char: str) -> bool:
    """Whether the fonts that Typst embeds have a character, in text and so in the PDF."""
    return _SAFE.fullmatch(char) is not None or _tried(char)


@cache
def _tried(char: str) -> bool:
    import typst

    source = f'#set document(title: "t", date: datetime(year: 2000, month: 1, day: 1))\n#set text(font: ("Libertinus Serif", "New Computer Modern", "DejaVu Sans Mono"))\n= #{json.dumps(char, ensure_ascii=False)}'
    with tempfile.TemporaryDirectory(prefix="lemmata-report-") as folder:
        (Path(folder) / "main.typ").write_text(source, encoding="utf-8")
        try:
            typst.Compiler(Path(folder) / "main.typ", root=folder, ignore_system_fonts=True).compile_with_warnings(
                format="pdf", pdf_standards=list(STANDARDS), timestamp=0
            )
        except typst.TypstError:
            return False
    return True


def _compile(root: Path, data: dict[str, Any], kind: str) -> bytes:
    """One compilation. Typst's warning that its HTML export is young is expected: the minor version is pinned."""
    import typst

    (root / "data.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    day = datetime.datetime.combine(datetime.date(*data["date"]), datetime.time(), datetime.UTC)
    compiler = typst.Compiler(root / "main.typ", root=root, ignore_system_fonts=True, sys_inputs={"format": kind})
    standards: Any = list(STANDARDS) if kind == "pdf" else []
    result, _ = compiler.compile_with_warnings(format=kind, pdf_standards=standards, timestamp=int(day.timestamp()))  # type: ignore[arg-type]
    assert isinstance(result, bytes)
    return result


def _settle_prose(root: Path, view: View, name: str) -> None:
    """Turn each snippet that does not compile as markup into plain text that says why; the others stay."""
    kept = [snippet.pop("markup") for snippet in view.prose]
    for snippet in view.prose:
        snippet["why"] = ""
    complaint = _complaint(root, view.data)
    if complaint is not None:
        raise ReportError(f"the report of {name!r} cannot be typeset, even with its prose as plain text: {complaint}")
    for snippet, markup in zip(view.prose, kept, strict=True):
        snippet["markup"] = markup
        complaint = _complaint(root, view.data)
        if complaint is not None:
            del snippet["markup"]
            snippet["why"] = complaint


def _complaint(root: Path, data: dict[str, Any]) -> str | None:
    """What stops the compilation, in one line, or None. Characters without a glyph are not the prose's fault."""
    import typst

    for kind in ("html", "pdf"):
        try:
            _compile(root, data, kind)
        except typst.TypstError as error:
            if "could not be displayed" not in error.message:
                return " ".join(error.message.split())
    return None


def _pdf_of_the_displayable(root: Path, data: dict[str, Any], name: str) -> bytes:
    """The PDF, in which a character without a glyph is its code point."""
    import typst

    try:
        return _compile(root, data, "pdf")
    except typst.TypstError:
        pass
    try:
        return _compile(root, _map_strings(data, _spell_out), "pdf")
    except typst.TypstError as error:
        raise ReportError(f"the report of {name!r} cannot be typeset: {error.message}") from error


def _spell_out(text: str) -> str:
    if text.startswith("data:") or _SAFE.fullmatch(text):
        return text
    return "".join(char if displayable(char) else f"(U+{ord(char):04X})" for char in text)


def _map_strings(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: item if key in ("uri", "path", "anchor", "sources", "surface") else _map_strings(item, change)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
