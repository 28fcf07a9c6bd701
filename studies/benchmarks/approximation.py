"""Cells in growing windows of the plane, exact and sampled, and networks fitted side by side and in a loop, measured in one run.

Run: ``python -m lemmata.studies.benchmarks.approximation [--only PART,…] [--device cpu|cuda] [--threads N] [--repeats N]
[--json FILE]``; the parts are those of ``PARTS`` below. Contenders are timed in interleaved rounds; rows state the median
over rounds with the range of the middle half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lemmata.studies.benchmarks import cells, fits
from lemmata.studies.benchmarks.table import Row
from lemmata.studies.benchmarks.timing import options, run

#: Device and most rounds to the rows of one piece of work.
PARTS: dict[str, Callable[[str, int], Iterator[Row]]] = {"cells": cells.rows, "fits": fits.rows}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    run(options(__doc__.splitlines()[0], arguments, tuple(PARTS)), PARTS)


if __name__ == "__main__":
    main()
