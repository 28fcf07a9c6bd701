"""Graphs: the pieces against networkx and counting, and every control fails at one cheap point."""

from __future__ import annotations

import math

import pytest
import torch

from lemmata.studies.architectures.graphs import (
    is_regular,
    karate_gcn,
    regular_graphs,
    regular_graphs_blindness,
    regular_graphs_learned,
    rewired,
)
from lemmata.studies.data import atlas, karate

networkx = pytest.importorskip("networkx")


pytestmark = pytest.mark.usefixtures("double")


def test_rewiring_keeps_degrees_and_simplicity_and_little_else():
    A = karate().adjacency
    B = rewired(A, torch.Generator().manual_seed(0))
    assert torch.equal(B, B.T) and set(B.unique().tolist()) == {0.0, 1.0} and B.diagonal().sum() == 0
    assert torch.equal(A.sum(1), B.sum(1))
    assert 0.1 < ((A * B).sum() / A.sum()).item() < 0.6  # leaders meet whatever is drawn; most edges are new


def test_rewiring_leaves_a_complete_graph_alone():
    A = torch.ones(5, 5) - torch.eye(5)
    assert torch.equal(rewired(A, torch.Generator().manual_seed(0)), A)


def test_there_are_26_regular_graphs_of_up_to_seven_nodes():
    found = [graph for graph in atlas() if len(graph) and is_regular(graph)]
    theirs = [g for g in networkx.graph_atlas_g() if len(g) and networkx.is_regular(g)]
    assert len(found) == len(theirs) == 26


@pytest.mark.parametrize("degree", [2, 3])
def test_random_regular_graphs_are_regular_simple_and_alternate(degree):
    graphs, classes = regular_graphs(10, degree, 6, torch.Generator().manual_seed(0))
    assert classes.tolist() == [0, 1] * 3
    for A, c in zip(graphs, classes, strict=True):
        assert torch.equal(A, A.T) and A.diagonal().sum() == 0 and set(A.unique().tolist()) == {0.0, 1.0}
        assert (A.sum(1) == degree + c).all()


def test_averages_are_blind_to_regular_graphs_and_the_controls_are_not():
    eps = torch.finfo(torch.float64).eps
    assert regular_graphs_blindness.trial(layers=2, seed=0) < 100 * eps
    assert regular_graphs_blindness.trial(layers=2, seed=0, network="gin") > 0.1
    assert regular_graphs_blindness.trial(layers=2, seed=0, graphs="all") > 1e-3


def test_sums_learn_the_degree_and_averages_stay_at_ln_2():
    settings = {"degree": 2, "steps": 150, "seed": 0}
    learned = regular_graphs_learned.trial(**settings)
    assert learned["value"] < 0.1 and learned["accuracy"] == 1
    for arm in ({"averages": True}, {"network": "gcn"}):
        blind = regular_graphs_learned.trial(**settings, **arm)
        assert blind["value"] >= math.log(2) - 1e-12 and blind["accuracy"] == 0.5


def test_the_club_is_placed_by_its_friendships():
    settings = {"labels": "factions", "steps": 200, "seed": 0}
    assert karate_gcn.trial(**settings)["value"] > 0.85
    for graph in ("none", "rewired"):
        assert karate_gcn.trial(**settings, graph=graph)["value"] < 0.75
