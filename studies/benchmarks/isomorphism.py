"""Colour refinement: all graphs of up to seven nodes at once, and two large ones, beside networkx's hashes and dictionaries.

The contenders sort the same graphs into classes, and their classes are compared before any is timed. One thread of the CPU
does the work on every device: colours are integers.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from lemmata.analysis import wl_classes
from lemmata.studies.benchmarks.table import Row, Target, failed, timed_row
from lemmata.studies.benchmarks.timing import interleaved

WORK, ROUNDS, LARGE = "wl", 7, 20_000
SECONDS = Target("≤", 10)
NETWORKX, LOOP, PAIRS = "networkx, hashes", "dictionaries, graph by graph", "lemmata, 2-WL"


def numbered(keys: Sequence[Hashable]) -> list[int]:
    """Classes in order of first appearance.

    >>> numbered(["b", "a", "b"])
    [0, 1, 0]
    """
    place = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return [place[key] for key in keys]


def hashes(graphs: Sequence[Any]) -> list[int]:
    """The classes of networkx's Weisfeiler-Lehman hashes; the empty graph has none of its own."""
    import networkx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hashes that differ between versions: only their equality counts
        return numbered([networkx.weisfeiler_lehman_graph_hash(g, iterations=ROUNDS) if len(g) else "" for g in graphs])


def dictionaries(graphs: Sequence[Any]) -> list[int]:
    """The classes by the textbook's loop: nested tuples renamed through one dictionary, seven rounds."""
    names: dict[Hashable, int] = {}
    found = []
    for graph in graphs:
        colours = dict.fromkeys(graph, 0)
        for _ in range(ROUNDS):
            seen = {i: (colours[i], tuple(sorted(colours[j] for j in graph[i]))) for i in graph}
            colours = {i: names.setdefault(key, len(names) + 1) for i, key in seen.items()}
        found.append(frozenset(Counter(colours.values()).items()))
    return numbered(found)


def measure(graphs: Sequence[Any], model: str, pairs: bool, device: str, repeats: int) -> Iterator[Row]:
    """Each contender's time, ours in seconds too; of pairs of nodes where asked for. It raises where classes differ."""
    contenders: dict[str, Callable[[], Any]] = {
        "lemmata": lambda: wl_classes(graphs).graphs.tolist(),
        LOOP: lambda: dictionaries(graphs),
        NETWORKX: lambda: hashes(graphs),
    }
    truth = contenders["lemmata"]()
    for name, call in contenders.items():
        if call() != truth:
            raise RuntimeError(f"the classes of {name} disagree with lemmata's")
    if pairs:
        contenders[PAIRS] = lambda: wl_classes(graphs, dimension=2)
    rounds = interleaved(contenders, device, repeats)
    place = WORK, model
    rows = [timed_row(place, name, rounds, ("lemmata", "ours")) for name in contenders]
    yield from rows
    seconds = (rows[0].milliseconds or 0.0) / 1e3
    note = f"{max(truth) + 1} classes"
    yield Row(
        *place,
        "lemmata",
        "1 s",
        ratio=seconds,
        rounds=repeats,
        target=str(SECONDS),
        met=SECONDS.met(seconds),
        note=note,
    )


def rows(device: str, repeats: int) -> Iterator[Row]:
    """The atlas of networkx, and two random graphs with as many nodes and edges."""
    try:
        import networkx
    except ImportError as error:
        yield failed((WORK, "atlas"), "networkx", error)
        return
    yield from measure(networkx.graph_atlas_g(), "atlas", True, device, repeats)
    large = [networkx.gnm_random_graph(LARGE, 3 * LARGE, seed=seed) for seed in range(2)]
    yield from measure(large, f"two graphs of {LARGE} nodes", False, device, repeats)
