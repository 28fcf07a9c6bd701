"""Symmetries: what the analyzers of invariance cost beside the ways that others compute the same, measured in one run.

Run: ``python -m lemmata.studies.benchmarks.invariance [--only PART,…] [--device cpu|cuda] [--threads N] [--repeats N]
[--json FILE]``; the parts are those of ``PARTS`` below.

Each contender gets the same model, batch and threads, and is compared with a reference in double precision before it is
timed. One round times each of them once, in turn; ratios are theirs to ours within a round, so that a slow spell of the
machine hits both sides. Rows state the median over rounds with the range of the middle half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lemmata.studies.benchmarks import isomorphism, lie, orbits
from lemmata.studies.benchmarks.table import Row
from lemmata.studies.benchmarks.timing import options, run

#: Device and most rounds to the rows of one piece of work.
PARTS: dict[str, Callable[[str, int], Iterator[Row]]] = {
    "lie": lie.rows,
    "orbits": orbits.rows,
    "wl": isomorphism.rows,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    run(options(__doc__.splitlines()[0], arguments, tuple(PARTS)), PARTS)


if __name__ == "__main__":
    main()
