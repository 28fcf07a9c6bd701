"""Colourings against networkx's hashes, fractional isomorphism by linear programs, and graphs with known answers."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from lemmata.analysis.errors import ArgumentError, CapacityError, DataError
from lemmata.analysis.invariance import WLClasses, wl_classes

ATLAS = nx.graph_atlas_g()
RINGS = [nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))]


def numbered(keys: list[Any]) -> list[int]:
    place = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    return [place[key] for key in keys]


@pytest.mark.filterwarnings("ignore:The hashes produced")
@pytest.mark.parametrize("rounds", [2, 3, 7])
def test_the_atlas_is_sorted_as_by_hashes(rounds: int) -> None:
    """The partitions, not the hashes, agree."""
    hashes = [nx.weisfeiler_lehman_graph_hash(g, iterations=rounds) if len(g) else "" for g in ATLAS]
    found = wl_classes(ATLAS, rounds=rounds)
    assert found.graphs.tolist() == numbered(hashes) and found.rounds == rounds


def test_the_atlas_has_known_numbers() -> None:
    found = wl_classes(ATLAS)
    assert found.count == 1227 and found.stable and len(found.pairs) == 26
    assert all(found.equivalent(i, j) for i, j in found.pairs.tolist())
    one = [g for g in ATLAS if len(g) == 1]
    smaller = [k for k, g in enumerate(ATLAS) if len(g) < 6]
    assert len({int(found.graphs[k]) for k in smaller}) == len(smaller) and wl_classes(one).count == 1
    pairs = wl_classes(ATLAS, dimension=2)
    assert pairs.count == len(ATLAS) and not len(pairs.pairs)


def fractionally_isomorphic(A: np.ndarray, B: np.ndarray) -> bool:
    """Whether a doubly stochastic X has A X = X B: the test's classes, as Tinhofer and Ramana et al. proved."""
    n = len(A)
    eye, one = np.eye(n), np.ones((1, n))
    rows = np.concatenate([np.kron(A, eye) - np.kron(eye, B.T), np.kron(one, eye), np.kron(eye, one)])
    found = linprog(np.zeros(n * n), A_eq=rows, b_eq=np.r_[np.zeros(n * n), np.ones(2 * n)], bounds=(0, None))
    return bool(found.status == 0)


def test_classes_are_those_of_fractional_isomorphism() -> None:
    sixes = [nx.to_numpy_array(g) for g in ATLAS if len(g) == 6 and g.number_of_edges() in (6, 9)]
    same_degrees = [
        (i, j) for i, j in combinations(range(len(sixes)), 2) if sorted(sixes[i].sum(0)) == sorted(sixes[j].sum(0))
    ]
    found = wl_classes(sixes)
    truth = [pair for pair in same_degrees if fractionally_isomorphic(sixes[pair[0]], sixes[pair[1]])]
    assert truth == [tuple(pair) for pair in found.pairs.tolist()] and 0 < len(truth) < len(same_degrees)


def rook_and_shrikhande() -> list[nx.Graph]:
    shrikhande = nx.Graph()
    for i in range(4):
        for j in range(4):
            shrikhande.add_edges_from(((i, j), ((i + a) % 4, (j + b) % 4)) for a, b in ((0, 1), (1, 0), (1, 1)))
    return [nx.line_graph(nx.complete_bipartite_graph(4, 4)), shrikhande]


def test_strongly_regular_graphs_need_three_dimensions() -> None:
    graphs = rook_and_shrikhande()
    assert not nx.could_be_isomorphic(*graphs) or not nx.is_isomorphic(*graphs)
    assert [wl_classes(graphs, dimension=k).count for k in (1, 2, 3)] == [1, 1, 2]


def test_rings_and_skip_links() -> None:
    """Circulant graphs: one class for nodes, several for pairs; as many as are not isomorphic."""
    circulants = [nx.circulant_graph(13, [1, k]) for k in range(2, 7)]
    distinct: list[nx.Graph] = []
    for graph in circulants:
        if not any(nx.is_isomorphic(graph, other) for other in distinct):
            distinct.append(graph)
    assert wl_classes(circulants).count == 1 and wl_classes(circulants, dimension=2).count == len(distinct) > 1
    assert [wl_classes(RINGS, dimension=k).count for k in (1, 2)] == [1, 2]


@pytest.mark.parametrize("dimension", [1, 2])
def test_renaming_nodes_renames_colours(dimension: int) -> None:
    rng = np.random.default_rng(0)
    A, order = nx.to_numpy_array(nx.gnp_random_graph(9, 0.4, seed=1)), rng.permutation(9)
    x = rng.integers(2, size=9)
    found = wl_classes([A, A[order][:, order]], [x, x[order]], dimension)
    assert found.count == 1 and torch.equal(found.colours[0][torch.from_numpy(order)], found.colours[1])
    other = A.copy()
    other[0, 1] = other[1, 0] = 1 - other[0, 1]
    assert wl_classes([A, other], [x, x], dimension).count == 2


def test_stable_colours_are_equitable() -> None:
    """Nodes of a colour have equally many neighbours of each colour, and a path's end is not its middle."""
    A = nx.to_numpy_array(nx.gnp_random_graph(40, 0.06, seed=3))
    colours = wl_classes([A]).colours[0].numpy()
    members = np.eye(colours.max() + 1)[colours]
    for k in range(members.shape[1]):
        assert len(np.unique((A @ members)[colours == k], axis=0)) == 1
    path = wl_classes([nx.path_graph(7)])
    assert numbered(path.colours[0].tolist()) == [0, 1, 2, 3, 2, 1, 0] and path.rounds == 3


def test_loops_repeated_edges_directions_and_isolated_nodes_count() -> None:
    edge, double = np.array([[0, 1], [1, 0]]), np.array([[0, 2], [2, 0]])
    looped, alone = np.array([[1, 1], [1, 0]]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    out, into = np.triu(np.ones((3, 3)), 1) * [[1], [0], [0]], np.tril(np.ones((3, 3)), -1) * [1, 0, 0]
    for dimension in (1, 2):
        assert wl_classes([edge, double, looped, alone, out, into], dimension=dimension).count == 6
    forms = [
        double,
        (torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]]), 2),
        nx.MultiGraph([(0, 1), (0, 1)]),
        double.astype(float),
    ]
    assert wl_classes(forms).count == 1
    assert wl_classes([alone, (torch.tensor([[0, 1], [1, 0]]), 3)]).count == 1
    directed = [into, nx.DiGraph([(0, 1), (0, 2)]), (torch.tensor([[0, 0], [1, 2]]), 3)]
    assert wl_classes(directed).count == 1 and wl_classes([out, directed[1]]).count == 2
    assert wl_classes([nx.Graph(), np.zeros((0, 0)), (torch.zeros(2, 0, dtype=torch.int64), 0)]).count == 1


def test_features_tell_apart_what_edges_do_not() -> None:
    x = [np.eye(6)[:, :2], np.eye(6)[:, :2]]
    assert wl_classes(RINGS, x).count == 2 and wl_classes(RINGS, [np.ones(6), np.ones(6)]).count == 1
    assert wl_classes(RINGS, [np.ones(6), np.full(6, 1 + 1e-15)]).count == 2


def test_a_result_keeps_its_numbers_and_can_be_drawn() -> None:
    found = wl_classes([nx.path_graph(4), nx.star_graph(3), nx.cycle_graph(4)])
    again = WLClasses.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) == "WLClasses(3 classes of 3 graphs by 1-WL in 2 rounds)"
    assert torch.equal(again.graphs, found.graphs) and torch.equal(again.colours[1], found.colours[1])
    assert found.counts == (1, 3, 3) and list(found.plot().lines[0].get_ydata()) == [1, 3, 3]


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (np.array([[0, 1, 2], [1, 2, 0]]), r"a list of edges.*alone.*Pass \(edges, n\)"),
        (np.ones((3, 2)), r"square.*\(3, 2\).*Pass \(edges, n\)"),
        (np.array([[0, 0.5], [0.5, 0]]), r"0\.5 at \(0, 1\).*round them or threshold them"),
        (-np.eye(2), r"-1\.0 at \(0, 0\).*Weights are no counts"),
        (np.full((2, 2), np.nan), r"nan at \(0, 0\).*Weights are no counts"),
        ((np.array([[0, 5], [1, 0]]), 3), r"nodes 0 … 2.*nodes 0 to 5.*isolated ones too"),
        ((np.array([[0.0], [1.0]]), 2), r"integers.*float64.*List sources"),
        (np.full((2, 2), 1e9), r"edges.*4e\+09.*smaller"),
        (np.zeros(4), r"shape \(4,\).*Pass its adjacency"),
        ("graph", r"str of shape.*Pass its adjacency"),
    ],
)
def test_graphs_that_are_none(graph: Any, words: str) -> None:
    with pytest.raises(DataError, match=rf"graphs\[1\]: .*{words}"):
        wl_classes([np.zeros((1, 1)), graph])


def test_lists_features_and_options_that_do_not_fit() -> None:
    for graphs in ([], np.zeros((2, 3, 3))):
        with pytest.raises(DataError, match=r"graphs: .*Pass \[graph\]"):
            wl_classes(graphs)
    for features, words in (
        ([np.ones(6)], "features: .*Pass None"),
        ([np.ones(6), np.ones(5)], r"features\[1\]: .*n = 6.*row"),
        ([np.ones(6), np.full(6, np.nan)], r"features\[1\]: .*not all finite"),
        ([np.ones(6), np.ones((6, 2))], "features: .*one width"),
    ):
        with pytest.raises(DataError, match=words):
            wl_classes(RINGS, features)
    for options in ({"dimension": 0}, {"dimension": 1.5}, {"rounds": -1}, {"rounds": True}):
        with pytest.raises(ArgumentError, match=f"{next(iter(options))}: .*for its default"):
            wl_classes(RINGS, **options)
    with pytest.raises(CapacityError, match=r"dimension: .*smaller dimension"):
        wl_classes([np.zeros((200, 200))], dimension=3)
