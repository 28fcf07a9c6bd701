"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first aligned left and the others right.

    Example:
        >>> print(text_table(("measure", "value"), [("trace", "6")]))
          measure  value
          trace        6

    """
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: list[str]) -> str:
        first, *others = cells
        padded = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        return "  " + "  ".join(padded).rstrip()

    return "\n".join(map(line, lines))
