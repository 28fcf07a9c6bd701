"""The page around Typst's HTML: one file without network, whose policy allows exactly its own scripts and styles."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

from .mathml import settle

TEMPLATE = Path(__file__).with_name("template")
FONT = Path(__file__).with_name("fonts") / "lemmata-math.woff2"
_TAG = re.compile(r'<[a-zA-Z][^\s>/]*(?:\s+[^\s=>"]+(?:="[^"]*")?)*\s*/?>')
_STYLE = re.compile(r'\s+style="[^"]*"')


def page(
    title: str,
    body: str,
    *,
    navigation: str = "",
    links: str = "",
    styles: Sequence[str] = (),
    scripts: Sequence[str] = ("shell.js",),
) -> str:
    """A whole page. `title` is text; `body`, `navigation` and `links` are HTML; `styles` are added to the lab's own."""
    sheets = [_style_sheet(), *styles]
    code = [_asset(name) for name in scripts]
    slots = {
        "policy": policy(code, sheets),
        "title": escape(title),
        "styles": "".join(f"<style>{sheet}</style>\n" for sheet in sheets),
        "scripts": "".join(f"<script>{script}</script>\n" for script in code),
        "links": links,
        "navigation": navigation,
        "body": body,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: slots[match[1]], _asset("shell.html"))


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """The content-security policy: nothing from anywhere, inline code by its sha256."""
    allowed = {"script-src": scripts, "style-src": styles}
    rules = [f"{rule} {' '.join(map(_hash, texts)) or _NONE}" for rule, texts in allowed.items()]
    return "; ".join(
        ["default-src 'none'", "img-src data:", "font-src data:", *rules, "base-uri 'none'", "form-action 'none'"]
    )


_NONE = "'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def split(document: str) -> tuple[str, str]:
    """(body, style sheet) of Typst's HTML. Style attributes, which the policy forbids, are dropped."""
    body = document[document.index("<body>") + len("<body>") : document.rindex("</body>")]
    head = document[: document.index("<body>")]
    sheets = re.findall(r"<style>(.*?)</style>", head, flags=re.DOTALL)
    return settle(_TAG.sub(lambda tag: _STYLE.sub("", tag[0]), body)), "".join(sheets)


@cache
def _style_sheet() -> str:
    font = base64.b64encode(FONT.read_bytes()).decode()
    return _asset("shell.css").replace("{{font}}", f"data:font/woff2;base64,{font}")


@cache
def _asset(name: str) -> str:
    return (TEMPLATE / name).read_text(encoding="utf-8")
