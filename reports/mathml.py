"""Typst's MathML made to sit well in browsers: brackets around low content are told not to stretch.

A stretchy bracket reserves the width of its widest variant (MathML Core, “stretchy operators”), which tears ``f(x)`` apart.
"""

from __future__ import annotations

import re

_MATH = re.compile(r"<math\b.*?</math>", flags=re.DOTALL)
_TOKEN = re.compile(r"<(/?)(\w+)([^>]*)>")
_TALL = frozenset({"mfrac", "mtable", "munder", "mover", "munderover", "mroot", "msqrt", "mpadded"})
_BIG = re.compile(r"[∑∏∐∫-∳⋀⋁⋂⋃⨀-⨆⨌]")
_FENCE = re.compile(r"<mo>[^<]</mo>")


def settle(html: str) -> str:
    """The page with each fence in its formulas stretched only where its content is tall."""
    return _MATH.sub(lambda math: _settle_formula(math[0]), html)


def _settle_formula(math: str) -> str:
    """Mark the first and last operator of each group of low content."""
    marks: list[int] = []
    opened: list[tuple[str, int]] = []
    for tag in _TOKEN.finditer(math):
        if not tag[1] and not tag[3].endswith("/"):
            opened.append((tag[2], tag.end()))
        elif tag[1] and opened:
            name, start = opened.pop()
            if name == "mrow":
                marks += _low_fences(math, start, tag.start())
    for place in sorted(marks, reverse=True):
        math = math[:place] + ' stretchy="false"' + math[place:]
    return math


def _low_fences(math: str, start: int, end: int) -> list[int]:
    """Where to write the mark for the fences that begin and end a group, if nothing in it is tall."""
    content = math[start:end]
    tags = {tag[2] for tag in _TOKEN.finditer(content)}
    first = _FENCE.match(content)
    if not first or tags & _TALL or _BIG.search(content):
        return []
    last = content.rfind("<mo>")
    places = [start + len("<mo")]
    return [*places, start + last + len("<mo")] if last > 0 and _FENCE.fullmatch(content[last:]) else places
