"""Deep graph networks: graphs against networkx, distances by least squares, Jacobians by differences, trials and controls."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch

from lemmata.architectures import GCN, GCNLayer
from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow import oversmoothing

pytestmark = pytest.mark.usefixtures("double")


def test_the_graphs_are_those_of_networkx() -> None:
    barbell = nx.barbell_graph(6, 2)
    truths = {
        "karate club": nx.karate_club_graph(),
        "binary tree": nx.balanced_tree(2, 4),
        "grid": nx.grid_2d_graph(4, 7),
        "barbell": barbell,
        "lollipop": nx.lollipop_graph(6, 6),
    }
    assert truths.keys() == oversmoothing.GRAPHS.keys()
    for name, truth in truths.items():
        found = nx.from_numpy_array(oversmoothing.GRAPHS[name]().numpy())
        assert nx.vf2pp_is_isomorphic(found, truth), name
    barbell.remove_edge(0, 1)
    assert not nx.vf2pp_is_isomorphic(nx.from_numpy_array(oversmoothing.GRAPHS["barbell"]().numpy()), barbell)


def test_the_walk_is_what_a_layer_does() -> None:
    A = oversmoothing.GRAPHS["lollipop"]()
    layer = GCNLayer(1, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(1.0)
    columns = torch.stack([layer(e[:, None], A)[:, 0] for e in torch.eye(len(A))], 1)
    found, root = oversmoothing.walk(A)
    assert torch.allclose(found, columns, atol=1e-15)
    assert torch.allclose(found @ root, root, atol=1e-14)
    degrees = dict(nx.lollipop_graph(6, 6).degree()).values()
    assert sorted(root.square().tolist()) == pytest.approx(sorted(1 + d for d in degrees))
    eigenvalues = sorted(np.abs(np.linalg.eigvals(found.numpy())))
    assert [float(oversmoothing.modulus(A, k)) for k in (0, 1, 2)] == pytest.approx(eigenvalues[:-4:-1])


def test_the_distance_is_that_of_least_squares() -> None:
    draws = torch.Generator().manual_seed(0)
    h, direction = gaussian(draws, 2, 5, 3), gaussian(draws, 2, 5)
    found = oversmoothing.off(h, direction)
    for k in range(2):
        residual = np.linalg.lstsq(direction[k, :, None].numpy(), h[k].numpy())[1]
        assert float(found[k]) == pytest.approx(np.sqrt(residual.sum()))
    assert float(oversmoothing.off(direction[..., None] * h[:, :1], direction).max()) < 1e-14


def test_the_ratio_is_that_of_differences() -> None:
    """The same network, its Jacobian by central differences, its bound by powers of a dense matrix."""
    graph, depth, width, seed, step = "lollipop", 3, 2, 5, 1e-6
    trial = oversmoothing.oversquashing_jacobian(graph=graph, depth=depth, width=width, seed=seed)
    draws, A = torch.Generator().manual_seed(seed), oversmoothing.GRAPHS[graph]()
    net = GCN([width] * (depth + 1), "tanh", "lecun", bias=False, generator=draws).requires_grad_(False)
    x = 0.1 * gaussian(draws, len(A), width)
    steps = step * torch.eye(x.numel()).view(-1, *x.shape)
    J = ((net(x + steps, A) - net(x - steps, A)) / (2 * step)).view(len(A), width, len(A), width)  # (s d i d)
    norms = np.prod([np.linalg.norm(layer.weight.numpy(), 2) for layer in net.layers])
    walks = np.linalg.matrix_power(oversmoothing.walk(A)[0].numpy(), depth)
    found = np.linalg.norm(J.permute(2, 0, 3, 1).numpy(), 2, axis=(2, 3))
    reached = walks > 0
    assert trial["value"] == pytest.approx((found[reached] / (norms * walks[reached])).max(), rel=1e-6)
    assert trial["unreached"] == pytest.approx(1 - reached.mean()) and found[~reached].max() == 0
    assert trial["value"] < 1


def test_the_trials_part_from_their_controls() -> None:
    rate = dict(graph="karate club", walk="symmetric", depth=100, width=4, seed=0)
    assert abs(oversmoothing.gcn_oversmoothing_rate(**rate)["value"]) < 1e-4
    assert oversmoothing.gcn_oversmoothing_rate(**rate, initial=0.1)["value"] > 0.1
    assert oversmoothing.gcn_oversmoothing_rate(**rate, swapped=True)["value"] > 0.1
    assert oversmoothing.gcn_oversmoothing_rate(**rate, size=2.0)["value"] == pytest.approx(np.log(2), abs=1e-4)
    assert abs(oversmoothing.gcn_oversmoothing_rate(**rate | dict(walk="random walk"))["value"]) < 1e-4
    bound = dict(common=3.0, width=4, layers=2, seed=0)
    found = oversmoothing.gcn_oversmoothing_rate_bound(**bound)
    assert 0.3 < found["value"] < 1 and found["graphs"] == 852  # 853 are connected
    for control in (dict(activation="tanh"), dict(bias=1.0), dict(place=2)):
        assert oversmoothing.gcn_oversmoothing_rate_bound(**bound, **control)["value"] > 1.1
    jacobian = dict(graph="karate club", depth=4, width=4, seed=0)
    assert oversmoothing.oversquashing_jacobian(**jacobian, steep=2.0)["value"] > 1
    assert oversmoothing.oversquashing_jacobian(**jacobian, typical=True)["value"] > 1
    leaf = dict(depth=4, seed=0)
    assert oversmoothing.oversquashing_jacobian_tree(**leaf)["value"] == pytest.approx(4 / 6**0.5, rel=1e-13)
    assert oversmoothing.oversquashing_jacobian_tree(**leaf, shortcut=True)["value"] > 2
    assert oversmoothing.oversquashing_jacobian_tree(**leaf, activation="tanh")["value"] < 1.6
