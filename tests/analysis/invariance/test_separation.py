"""Separation against graph invariants whose power is known, and networks against the test."""

from __future__ import annotations

import json

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lemmata.analysis.errors import ArgumentError, DataError, ModelStateError, NumericsError
from lemmata.analysis.invariance import Separation, separation

RINGS = [nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))]
FOURS = [g for g in nx.graph_atlas_g() if len(g) == 4]
SIXES = [g for g in nx.graph_atlas_g() if len(g) == 6]


class Summing(nn.Module):
    """Three rounds of a random map of own state and the neighbours' sum, then a sum: as strong as three rounds of the test."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        weights = [torch.randn(2 * n, 8, generator=draws, dtype=torch.float64) for n in (1, 8, 8)]
        self.maps = nn.ParameterList(weights)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        for weight in self.maps:
            x = torch.sin(torch.cat([x, A @ x], -1) @ weight)
        return x.sum(1)


def edges(x: Tensor, A: Tensor) -> Tensor:
    return A.sum((1, 2))[:, None]


def triangles(x: Tensor, A: Tensor) -> Tensor:
    return torch.einsum("bij,bjk,bki->b", A, A, A)[:, None]


def test_counting_edges_is_weaker_and_known() -> None:
    found = separation(edges, FOURS)
    assert found.distinct == len({g.number_of_edges() for g in FOURS}) == 7 and found.classes == len(FOURS) == 11
    assert found.verdict == "weaker" and found.between == 0 == found.within and found.split == 0
    counts = [g.number_of_edges() for g in FOURS]
    assert found.merged == sum(a == b for k, a in enumerate(counts) for b in counts[:k])
    assert found.closest is not None and counts[found.closest[0]] == counts[found.closest[1]]
    assert found.plateau == pytest.approx((0, 1 / 6)) and found.converged


def test_triangles_tell_apart_what_the_test_cannot() -> None:
    found = separation(triangles, RINGS)
    assert found.verdict == "stronger" and (found.distinct, found.classes) == (2, 1)
    assert found.within == 1 and found.farthest == (0, 1) and found.closest is None and np.isinf(found.between)
    mixed = separation(triangles, [*RINGS, nx.path_graph(6), nx.star_graph(5)])
    assert mixed.verdict == "other" and mixed.merged and mixed.split == 1


def test_a_network_of_sums_is_as_strong_as_its_rounds() -> None:
    found = separation(Summing(), SIXES, rounds=3)
    assert found.verdict == "as the test" and found.distinct == found.classes == 152 and found.converged
    assert found.within < 1e-14 and found.between > 1e-6 and len(found.heights) == len(SIXES) - 1
    assert separation(Summing(), SIXES, dimension=2, rounds=1).verdict == "weaker"
    assert separation(Summing().float(), SIXES, rounds=3, tol=1e-5).within > 1e-9


def test_a_threshold_among_the_distances_is_not_converged() -> None:
    sure = separation(Summing(), SIXES)
    unsure = separation(Summing(), SIXES, tol=3 * sure.between)
    assert sure.converged and not unsure.converged and "not converged" in repr(unsure)
    assert unsure.distinct < sure.distinct and unsure.plateau[0] > sure.plateau[0]


def test_features_reach_the_network() -> None:
    x = [np.arange(6.0)[:, None], np.arange(6.0)[:, None]]
    found = separation(Summing(), RINGS, x)
    assert found.verdict == "as the test" and found.classes == 2


def test_a_result_keeps_its_numbers_and_can_be_drawn() -> None:
    for found in (separation(edges, FOURS), separation(triangles, RINGS)):
        again = Separation.from_dict(json.loads(json.dumps(found.to_dict())))
        assert repr(again) == repr(found) and again.closest == found.closest and again.plateau == found.plateau
        ax = found.plot()
        assert ax.get_xscale() == "log" and len(ax.get_legend().get_texts()) == 3


def test_models_and_graphs_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"model: .*\(2, m\).*\(2, 6, 6\).*Sum or average over nodes"):
        separation(lambda x, A: A, RINGS)
    with pytest.raises(DataError, match=r"graphs: .*Leave empty graphs out"):
        separation(edges, RINGS[:1])
    with pytest.raises(DataError, match=r"graphs: .*graphs\[1\] without a node.*Leave empty graphs out"):
        separation(edges, [RINGS[0], nx.Graph()])
    with pytest.raises(NumericsError, match=r"model: finite embeddings|model: expected finite"):
        separation(lambda x, A: edges(x, A) / 0, RINGS)
    with pytest.raises(ArgumentError, match=r"tol: .*for its default"):
        separation(edges, RINGS, tol=0.0)
    dropping = nn.Sequential(nn.Dropout(0.5))
    with pytest.raises(ModelStateError, match=r"0 \(Dropout\).*eval"):
        separation(dropping, RINGS)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_the_size_of_embeddings_does_not_matter(size: float) -> None:
    found = separation(lambda x, A: edges(x, A).double() * size, FOURS)
    assert (found.distinct, found.between) == (7, 0) and found.plateau == pytest.approx((0, 1 / 6))


def test_features_may_carry_a_gradient() -> None:
    x = [torch.arange(6.0, requires_grad=True)] * 2
    assert repr(separation(Summing(), RINGS, x)) == repr(separation(Summing(), RINGS, [part.detach() for part in x]))
