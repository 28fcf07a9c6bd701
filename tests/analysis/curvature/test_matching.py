"""Weight matching against planted permutations and brute force."""

from __future__ import annotations

import copy
from itertools import pairwise, permutations

import pytest
import torch
from torch import nn

from lemmata.analysis.curvature import Matching, match_weights
from lemmata.analysis.errors import LemmataError


def net(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def shuffled(model: nn.Sequential) -> tuple[nn.Sequential, list[torch.Tensor]]:
    """A copy with the units of every hidden layer in another order, and the orders."""
    other, orders = copy.deepcopy(model), []
    linear = [layer for layer in other if isinstance(layer, nn.Linear)]
    for before, after in pairwise(linear):
        order = torch.randperm(before.out_features)
        before.weight.data, before.bias.data = before.weight.data[order], before.bias.data[order]
        after.weight.data = after.weight.data[:, order]
        orders.append(order)
    return other, orders


@pytest.mark.parametrize("widths", [(4, 9, 3), (5, 16, 12, 8, 2)])
def test_a_shuffled_copy_is_put_back_exactly(widths: tuple[int, ...]) -> None:
    model = net(*widths)
    other, orders = shuffled(model)
    found = match_weights(model, other)
    assert found.converged and float(found.distances[-1]) < 1e-12 < float(found.distances[0])
    for order, index in zip(orders, found.permutations.values(), strict=True):
        assert torch.equal(order[index], torch.arange(len(order)))
    back = found.apply(other)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), back.parameters(), strict=True))
    again = Matching.from_dict(found.to_dict())
    assert torch.equal(again.distances, found.distances)


def test_one_hidden_layer_is_matched_as_well_as_by_brute_force() -> None:
    a, b = net(3, 5, 2, seed=1), net(3, 5, 2, seed=2)
    found = match_weights(a, b)
    closest = min(
        sum(
            float((x - y).square().sum().detach())
            for x, y in (
                (a[0].weight, b[0].weight[list(p)]),
                (a[0].bias, b[0].bias[list(p)]),
                (a[2].weight, b[2].weight[:, list(p)]),
                (a[2].bias, b[2].bias),
            )
        )
        for p in permutations(range(5))
    )
    assert float(found.distances[-1]) == pytest.approx(closest**0.5, rel=1e-12)
    x = torch.randn(7, 3).double()
    torch.testing.assert_close(found.apply(b)(x), b(x))
    assert bool((found.distances[1:] <= found.distances[:-1]).all())


def test_networks_of_other_shapes_are_refused() -> None:
    with pytest.raises(LemmataError, match="shape|layers|width"):
        match_weights(net(3, 5, 2), net(3, 6, 2))
    with pytest.raises(LemmataError):
        match_weights(net(3, 5, 2), net(3, 5, 5, 2))
