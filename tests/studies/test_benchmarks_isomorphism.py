"""The benchmark of colour refinement at a small size: contenders agree before they are timed. No time is asserted."""

from __future__ import annotations

import networkx as nx
import pytest

from lemmata.studies.benchmarks import isomorphism
from lemmata.studies.benchmarks.table import Target

GRAPHS = [graph for graph in nx.graph_atlas_g() if len(graph) < 6]


def test_contenders_agree_and_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    *rows, absolute = isomorphism.measure(GRAPHS, "small", True, "cpu", 2)
    names = ["lemmata", isomorphism.LOOP, isomorphism.NETWORKX, isomorphism.PAIRS]
    assert [row.contender for row in rows] == names and rows[0].ratio == 1 and rows[1].unit == "ours"
    assert absolute.target == "≤ 10" and absolute.met and absolute.note == "53 classes" and absolute.unit == "1 s"
    monkeypatch.setattr(isomorphism, "SECONDS", Target("≤", 0))
    assert [*isomorphism.measure(GRAPHS[:9], "small", False, "cpu", 2)][-1].met is False


def test_classes_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isomorphism, "ROUNDS", 0)
    with pytest.raises(RuntimeError, match="dictionaries, graph by graph disagree"):
        list(isomorphism.measure(GRAPHS, "small", True, "cpu", 2))


def test_dictionaries_see_what_is_known() -> None:
    rings = [nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), nx.path_graph(6)]
    assert isomorphism.dictionaries(rings) == [0, 0, 1] == isomorphism.hashes(rings)
