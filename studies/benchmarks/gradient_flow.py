"""Tangent kernels, norms of single gradients, and draws of weights beside PyTorch's own recipes, measured in one run.

Run: ``python -m lemmata.studies.benchmarks.gradient_flow [--only PART,…] [--device cpu|cuda] [--threads N] [--repeats N]
[--json FILE]``; the parts are those of ``PARTS`` below.

Each contender gets the same model, batch and threads, and is compared with a reference in double precision before it is
timed. One round times each of them once, in turn; ratios are theirs to ours within a round, so that a slow spell of the
machine hits both sides. Rows state the median over rounds with the range of the middle half. Bytes of memory are counted,
not sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp, log

from lemmata.studies.benchmarks import draws, gradients, kernels
from lemmata.studies.benchmarks.table import Row, Target
from lemmata.studies.benchmarks.timing import options, run

_BUDGET = 60.0  # seconds of interleaved rounds for a kernel: seven rounds of each
_ROW, _MEAN = Target("≥", 0.9), Target("≥", 5)


def tangent_kernels(device: str, repeats: int) -> Iterator[Row]:
    """Each network's kernel, and the geometric mean over networks of the better recipe's time over ours."""
    best = []
    for problem, _ in kernels.problems(device):
        x = problem.batch[0][: kernels.INPUTS]
        found = kernels.measure(problem, x, _ROW, device, repeats, _BUDGET)
        yield from found
        best.append(min(row.ratio for row in found if row.ratio is not None and row.contender != "lemmata"))
    yield mean(best)


def mean(ratios: list[float]) -> Row:
    """The geometric mean.

    >>> mean([1.0, 4.0, 54.0]).ratio, mean([1.0, 4.0, 54.0]).met  # the cube root of 216
    (6.0, True)
    """
    ratio = round(exp(sum(map(log, ratios)) / len(ratios)), 6)
    note = f"geometric mean of {', '.join(f'{one:.3g}' for one in ratios)}"
    every = f"all {len(ratios)} networks"
    return Row(
        kernels.WORK, every, "better recipe", "ours", ratio=ratio, target=str(_MEAN), met=_MEAN.met(ratio), note=note
    )


#: Device and most rounds to the rows of one piece of work.
PARTS: dict[str, Callable[[str, int], Iterator[Row]]] = {
    "kernel": tangent_kernels,
    "norms": gradients.rows,
    "draws": draws.rows,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print; write JSON where asked."""
    run(options(__doc__.splitlines()[0], arguments, tuple(PARTS)), PARTS)


if __name__ == "__main__":
    main()
