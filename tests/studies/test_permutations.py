"""Permutations: renumbering against networkx, layers against loops over nodes, and every control at one cheap point."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

from lemmata.studies.data import gaussian
from lemmata.studies.invariance import orders
from lemmata.studies.invariance import permutations as study

pytestmark = pytest.mark.usefixtures("double")

CLAIMS = [
    study.permutation_equivariance,
    study.permutation_equivariance_attention,
    study.permutation_equivariance_sets,
]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_renumbering_is_that_of_matrices_and_of_networkx() -> None:
    draws = generator()
    x, A = gaussian(draws, 6, 2), (gaussian(draws, 6, 6) > 0).double()
    p = orders.some_orders(6, draws)
    assert p.shape == (orders.ORDERS + 1, 6) and p[0].tolist() == list(range(6))
    assert torch.equal(p.sort(-1).values, torch.arange(6).expand_as(p)) and len(p.unique(dim=0)) > 40
    moved_x, moved_A = orders.renumbered(p[:2], x, A)
    P = torch.eye(6)[p[1]]
    assert torch.equal(moved_x[1], P @ x) and torch.equal(moved_A[1], P @ A @ P.T)
    assert nx.vf2pp_is_isomorphic(*(nx.from_numpy_array(a.numpy(), create_using=nx.DiGraph) for a in moved_A))


def test_the_error_is_that_of_numpy() -> None:
    """Of a map that adds the position, in closed form; and none for one that does not."""
    x, two = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0, 1, 2], [2, 0, 1]])
    A = torch.zeros(3, 3)
    found = orders.commuting(lambda h, _: [h + torch.arange(3.0)[:, None]], x, A, two)
    here, there = np.array([1.0, 3, 6])[[2, 0, 1]], np.array([4.0, 1, 2]) + np.arange(3)
    assert found["by layer"] == pytest.approx([np.linalg.norm(there - here) / np.linalg.norm(here)])
    assert found["read-out"] == 0 and found["the same bits"] == 0
    assert np.allclose(found["here"], here) and np.allclose(found["there"], there)
    kept = orders.commuting(lambda h, _: [2 * h, h**2], x, A, two)
    assert kept["value"] == 0 and kept["the same bits"] == 1
    lost = orders.commuting(lambda h, _: [h, 0 * h, h], x, A, two)  # nothing over nothing in one layer
    assert np.isnan(lost["value"])
    summed = orders.commuting(lambda h, _: [h * torch.tensor([1.0, 1.0, 3.0])[:, None]], x, A, two)
    assert summed["read-out"] == pytest.approx(abs((4 + 1 + 6) - 15) / 15)


def test_neighbours_are_read_in_order_by_the_lstm_of_torch() -> None:
    draws = generator()
    reader = study.InOrder(4, draws).requires_grad_(False)
    theirs = nn.LSTM(4, 4, batch_first=True).requires_grad_(False)
    ours = reader.lstm
    for name, value in (
        ("weight_ih_l0", ours.W),
        ("weight_hh_l0", ours.U),
        ("bias_ih_l0", ours.b),
        ("bias_hh_l0", 0 * ours.b),
    ):
        getattr(theirs, name).copy_(value)
    h, A = gaussian(draws, 1, 5, 4), (gaussian(draws, 1, 5, 5) > 0).double()
    A[0, 2] = 0
    found = reader(h, A)
    assert not found[0, 2].any()
    for i in (0, 1, 3, 4):
        assert torch.allclose(found[0, i], theirs(h[:, A[0, i] > 0])[0][0, -1], atol=1e-14)


def test_layers_gather_over_the_edges_of_the_graph() -> None:
    """A state changes with a neighbour's features and not with another node's."""
    draws, A = generator(), torch.tensor(nx.to_numpy_array(nx.path_graph(6)))[None]
    x = gaussian(draws, 1, 6, study.WIDTH)
    other = x.clone()
    other[0, 5] += 1
    for kind in study.GRAPH_LAYERS:
        net = study.GraphStack(kind, False, generator()).requires_grad_(False)
        first, moved = net.states(x, A), net.states(other, A)
        changed = [(a - b).abs().amax(-1)[0] > 1e-12 for a, b in zip(first, moved, strict=True)]
        assert len(changed) == study.LAYERS and not changed[0][:4].any() and changed[0][5], kind
        assert not changed[2][:2].any(), kind


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_the_claim_holds_to_rounding_and_no_control_does(claim) -> None:
    for network in next(iter(claim.quick.coordinates.values())):
        rest = {name: values[0] for name, values in list(claim.quick.coordinates.items())[1:]}
        point = {next(iter(claim.quick.coordinates)): network, **rest, "seed": 1}
        found = claim(**point)
        assert found["value"] < 1e-13 and found["single precision"] < 1e-4
        assert len(found["by layer"]) in (1, 3, 4)
        for name, control in claim.controls.items():
            assert claim(**point, **control)["value"] > 1e-2, (network, name)


def test_only_maxima_keep_the_bits() -> None:
    bits = {}
    for network in ("messages, largest", "messages, summed"):
        bits[network] = float(study.permutation_equivariance(network=network, nodes=32, seed=0)["the same bits"])
    assert bits["messages, largest"] == 1 > bits["messages, summed"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_figures_return_what_they_draw(claim, row_of) -> None:
    from matplotlib.figure import Figure

    point = {name: values[0] for name, values in claim.quick.coordinates.items()}
    rows = [row_of(claim, arm, **point) for arm in ("", *claim.controls)]
    errors, *scatters = (draw(Figure().subplots(), rows) for draw in claim.figures)
    assert len(errors["network"]) == 1 and errors["double precision"][0] < 1e-13
    assert len(errors) == 3 + len(claim.controls)
    for columns in scatters:
        gaps: dict[str, float] = {}
        for arm, a, b in zip(*columns.values(), strict=True):
            gaps[arm] = max(gaps.get(arm, 0.0), abs(a - b))
        assert gaps.pop("the claim") < 1e-12
        assert len(gaps) == len(claim.controls) and all(gap > 1e-4 for gap in gaps.values())
