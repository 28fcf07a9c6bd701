"""The work of curvature analysis beside PyHessian, curvlinops, hessian-eigenthings and torch.func, measured in one run.

Run: ``python -m lemmata.studies.benchmarks.curvature [--only PART,…] [--device cpu|cuda] [--threads N] [--repeats N]
[--json FILE]``; the parts are those of ``PARTS`` below.

Every contender gets the same model, batch and threads, and the settings that its documentation shows or that suit it
best, which the row states. One round times each of them once, in turn; ratios are taken within a round, so that a slow
spell of the machine hits both sides. Rows state the median over rounds with the range of the middle half. Before it is
timed, each contender is compared with a reference in double precision that shares no code with it; where the work has an
accuracy, each gets the least budget that reaches it, over several seeds. Set-up is counted except in the part on products.
A search is given up where a contender has taken longer than its target asks for: the ratio is then a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lemmata.studies.benchmarks import densities, eigen, kernels, memory, products, slices, traces
from lemmata.studies.benchmarks.table import Row
from lemmata.studies.benchmarks.timing import options, run

#: Device and most rounds to the rows of one piece of work.
PARTS: dict[str, Callable[[str, int], Iterator[Row]]] = {
    "products": products.rows,
    "eigen": eigen.rows,
    "trace": traces.rows,
    "density": densities.rows,
    "slice": slices.rows,
    "kernel": kernels.rows,
    "memory": memory.rows,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    run(options(__doc__.splitlines()[0], arguments, tuple(PARTS)), PARTS)


if __name__ == "__main__":
    main()
