"""Graphs told apart: the pairs against networkx, what networks see in closed form, and every control at one cheap point."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch

import lemmata.analysis as la
from lemmata.studies.invariance import graph_pairs
from lemmata.studies.invariance import isomorphism as study

pytestmark = pytest.mark.usefixtures("double")


def test_the_pairs_are_those_of_networkx() -> None:
    truths = {
        "ring of six, two triangles": (nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))),
        "prism, utility graph": (nx.circular_ladder_graph(3), nx.complete_bipartite_graph(3, 3)),
        "rings with skip links": (nx.circulant_graph(13, [1, 2]), nx.circulant_graph(13, [1, 3])),
    }
    for name, pair in graph_pairs.PAIRS.items():
        found = [nx.from_numpy_array(A) for A in pair]
        assert all(np.array_equal(A, A.T) and not A.diagonal().any() for A in pair)
        assert not nx.vf2pp_is_isomorphic(*found) and la.wl_classes(pair).count == 1, name
        for graph, truth in zip(found, truths.get(name, found), strict=True):
            assert nx.vf2pp_is_isomorphic(graph, truth), name
    rings = [
        sorted(map(len, nx.minimum_cycle_basis(nx.from_numpy_array(A))))
        for A in graph_pairs.PAIRS["decalin, bicyclopentyl"]
    ]
    assert rings == [[6, 6], [5, 5]]
    path, star = map(nx.from_numpy_array, graph_pairs.path_and_star(5))
    assert nx.vf2pp_is_isomorphic(path, nx.path_graph(5)) and nx.vf2pp_is_isomorphic(star, nx.star_graph(4))


def test_the_atlas_holds_26_pairs_and_853_connected_graphs_of_seven_nodes() -> None:
    assert sum(map(len, graph_pairs.atlas_pairs())) == 26
    assert [len(graph_pairs.connected(n)) for n in (1, 2, 5, 7)] == [1, 1, 21, 853]


def test_closed_walks_are_counted() -> None:
    """Two a triangle at each of its nodes, and four of length six around a ring of six: both ways, and there and back."""
    prism, utility = graph_pairs.PAIRS["prism, utility graph"]
    walks = study.closed_walks(torch.tensor(np.stack([prism, utility])))
    assert torch.equal(walks[0, :, 0], torch.full((6,), 2 / 3**2)) and not walks[1, :, 0].any()
    eigenvalues = np.linalg.eigvalsh(prism)
    assert walks[0, :, 3].sum().item() == pytest.approx((eigenvalues**6).sum() / 3**5)


def test_a_network_of_sums_is_its_equation() -> None:
    draws = torch.Generator().manual_seed(0)
    x, A = torch.ones(1, 3, 1), torch.tensor(graph_pairs.graph(3, "0 1 2"))[None]
    for kind, gathered in (("GIN", [1, 2, 1]), ("GIN of means", [1, 1, 1]), ("GIN of maxima", [1, 1, 1])):
        net = study.reader(kind, 1, draws, width=4).requires_grad_(False)
        (layer,) = net.network.layers
        states = [layer.mlp(torch.tensor([1 + study.EPSILON + g])).tanh() for g in gathered]
        assert torch.allclose(net(x, A), torch.cat([torch.tensor([3.0]), sum(states)])[None], atol=1e-14)


def test_a_maximum_over_no_neighbour_is_zero() -> None:
    net = study.reader("GIN of maxima", 2, torch.Generator().manual_seed(0)).requires_grad_(False)
    alone = net(torch.ones(1, 2, 1), torch.zeros(1, 2, 2))
    assert alone.isfinite().all() and torch.allclose(alone, 2 * net(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)))


def test_pairs_get_one_output_and_the_controls_two() -> None:
    point = {"network": "GIN", "pair": "ring of six, two triangles", "layers": 3, "seed": 0}
    assert study.wl_indistinguishable_pairs(**point)["value"] < 1e-14
    for control in study.wl_indistinguishable_pairs.controls.values():
        assert study.wl_indistinguishable_pairs(**point, **control)["value"] > 1e-3
    attention = {**point, "network": "GAT", "compared": "path and star"}
    assert study.wl_indistinguishable_pairs(**attention)["value"] < 1e-14


def test_training_stops_at_ln_2_only_for_pairs() -> None:
    point = {"pair": "decalin, bicyclopentyl", "steps": 60, "seed": 0}
    assert study.wl_indistinguishable_pairs_floor(**point)["value"] >= math.log(2) - 1e-14
    for control in study.wl_indistinguishable_pairs_floor.controls.values():
        assert study.wl_indistinguishable_pairs_floor(**point, **control)["value"] < 0.3


def test_sums_see_the_classes_and_the_controls_do_not() -> None:
    """A GCN takes the two regular graphs of five nodes for one and sees all else; the others take all for one."""
    point = {"nodes": 5, "activation": "tanh", "layers": 2, "seed": 0}
    found = study.gin_injectivity_random(**point)
    assert found["value"] == 0 and found["classes"] == 21 and found["within"] < 1e-14 < 1e-6 < found["between"]
    seen, pairs = {}, {}
    for name, control in study.gin_injectivity_random.controls.items():
        found, label = study.gin_injectivity_random(**{**point, **control}), name.partition(": ")[2]
        seen[label], pairs[label] = found["distinct"], found["value"]
    assert seen.pop("four rectifiers") < 21 and pairs["means"] == 21 * 20 / 2 and pairs["convolutions (GCN)"] == 1
    assert seen == {"means": 1, "maxima": 1, "attention (GAT)": 1, "convolutions (GCN)": 20}


@pytest.mark.parametrize("claim", ["wl_indistinguishable_pairs", "wl_indistinguishable_pairs_floor"])
def test_figures_return_what_they_draw(claim: str, row_of) -> None:
    from matplotlib.figure import Figure

    made = getattr(study, claim)
    point = {name: 20 if name == "steps" else values[0] for name, values in made.quick.coordinates.items()}
    rows = [row_of(made, arm, **point) for arm in ("", *made.controls)]
    for draw in made.figures:
        columns = draw(Figure().subplots(), rows)
        assert len({len(column) for column in columns.values()}) == 1
    if claim == "wl_indistinguishable_pairs":
        assert set(columns["colour"][:12]) == {0} and max(columns["colour"]) == 2


def test_the_figure_of_power_has_the_test_and_every_arm(row_of) -> None:
    from matplotlib.figure import Figure

    made, point = study.gin_injectivity_random, {"nodes": 5, "activation": "tanh"}
    rows = [row_of(made, arm, **point, layers=t) for arm in ("", "sums over neighbours: means") for t in (1, 2)]
    columns = study.draw_power(Figure().subplots(), rows)
    assert columns == {"layers": [1, 2], "the test": [19, 21], "sums (GIN)": [19, 21], "means": [1, 1]}
