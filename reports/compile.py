"""Write a study's report (HTML and PDF) and the index page. Same records, same bytes; same bytes, no write."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import index, shell
from .record import Study
from .typesetting import typeset
from .view import view_of


def write_study(study: Study, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``<name>.html`` and ``<name>.pdf`` into a folder and return their paths; unchanged files are not touched.

    Raises
    ------
    MissingSourceError : a claim cites a key that the bibliography does not have.
    ReportError : the record cannot be rendered; the message names the claim or figure.
    """
    view = view_of(study)
    pdf, typst_html = typeset(view, study.name)
    stem = stem_of(study.name)
    body, sheet = shell.split(typst_html)
    page = shell.page(
        f"{view.data['title']} · lemmata",
        body,
        navigation=_navigation(view.data),
        links=f'<a href="index.html">All studies</a><a href="{stem}.pdf">PDF</a>',
        styles=[sheet] if sheet else [],
        scripts=("shell.js", "surface.js") if "data-surface=" in body else ("shell.js",),
    )
    paths = Path(folder) / f"{stem}.html", Path(folder) / f"{stem}.pdf"
    write(paths[0], page.encode("utf-8"))
    write(paths[1], pdf)
    return paths


def write_index(studies: Sequence[Study], folder: str | os.PathLike[str], note: str = "") -> Path:
    """Write ``index.html``: every study and claim with its verdict, links to the reports, and `note` in plain words.

    The note is where the caller says how many false verdicts to expect by chance.
    """
    path = Path(folder) / "index.html"
    entries = [(study, stem_of(study.name)) for study in studies]
    body, navigation = index.body(entries, note), index.navigation(entries)
    write(
        path,
        shell.page("lemmata · studies", body, navigation=navigation, scripts=("shell.js", "index.js")).encode("utf-8"),
    )
    return path


def stem_of(name: str) -> str:
    """A study's file name without its ending: “curvature/edge_of_stability” → “curvature-edge_of_stability”.

    A name that is not plain gets a few digits of its hash, so that two names never share a file.
    """
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:80] or "study"
    plain = re.fullmatch(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*", name) and len(name) <= 80 and stem != "index"
    return stem if plain else f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def write(path: Path, content: bytes) -> bool:
    """Put bytes in place, whole or not at all; False where the file already holds them and nothing is written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _navigation(data: dict[str, Any]) -> str:
    claims = "".join(
        f'<li><a href="#{claim["anchor"]}"><span class="sign {claim["verdict"].lower()}" title="{claim["verdict"]}">{claim["symbol"]}</span>'
        f"<span>{escape(claim['title'])}</span></a></li>"
        for claim in data["claims"]
    )
    tables = "".join(
        f'<li><a href="#{table["anchor"]}"><span>{escape(table["title"])}</span></a></li>' for table in data["tables"]
    )
    first, last = (
        ('<li><a href="#summary">Claims at a glance</a></li>', '<li><a href="#environment">Environment</a></li>')
        if claims or not tables
        else ("", "")
    )
    end = '<li><a href="#references">References</a></li>' if data["cites"] else ""
    return f'<p class="here">{escape(data["name"])}</p><ol>{first}{claims}{tables}{last}{end}</ol>'
