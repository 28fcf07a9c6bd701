"""Gradients by layer and by lag: curves against differences, theory against matrices, bisection, trials and controls."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lemmata.architectures import MLP, ResNet
from lemmata.studies.data import digits, gaussian
from lemmata.studies.gradient_flow import depth_and_lag, keeping_gradients, kept_figures
from lemmata.studies.rows import Row

pytestmark = pytest.mark.usefixtures("double")
STEP = 1e-5


def test_gradients_by_layer_are_those_of_differences() -> None:
    """A bias moves an output of its layer and nothing else: differences in biases, for one digit."""
    net = MLP([64, 6, 5, 10], generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    places = list(net.layers[:2])
    found = depth_and_lag.by_layer(net, places, 1, torch.Generator().manual_seed(1))
    images, labels = digits()
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))[:1]
    truth = []
    for place in reversed(places):
        slopes = []
        for unit in range(len(place.bias)):
            with torch.no_grad():
                ends = []
                for sign in (1, -2):
                    place.bias[unit] += sign * STEP
                    ends.append(cross_entropy(net(images[chosen]), labels[chosen]))
                place.bias[unit] += STEP
            slopes.append(float(ends[0] - ends[1]) / (2 * STEP))
        truth.append(log(np.square(slopes).sum()))
    assert np.allclose(found, truth, atol=1e-6) and not np.allclose(found[::-1], truth, atol=0.1)


@pytest.mark.parametrize("family", ["RNN, gain 1.5", "LSTM, forget bias 2", "GRU", "transformer"])
def test_gradients_by_lag_are_those_of_differences(family: str) -> None:
    """Two characters of one window, moved along random directions, against the norms of a smaller gradient."""
    made = depth_and_lag.LONG[family].build(8, torch.Generator().manual_seed(0))
    net = depth_and_lag.Reader(made).double()
    found = np.exp(depth_and_lag.by_lag(net, 1, torch.Generator().manual_seed(1)))
    s = depth_and_lag.windows(1, torch.Generator().manual_seed(1))
    x = net.vectors(s[:, :-1]).detach()
    for lag in (0, 2):
        slopes = []
        for entry in range(x.shape[2]):
            moved = torch.zeros_like(x)
            moved[0, -1 - lag, entry] = STEP
            with torch.no_grad():
                ends = [cross_entropy(net.read(x + sign * moved)[:, -1], s[:, -1]) for sign in (1, -1)]
            slopes.append(float(ends[0] - ends[1]) / (2 * STEP))
        assert found[lag] == pytest.approx(np.square(slopes).sum(), rel=1e-5)
    assert found[1] != pytest.approx(found[2], rel=1e-3)


def test_ways_through_the_same_weights_add_up() -> None:
    """The formulas against powers and products of random matrices."""
    draws, keep, mix, width, lag = torch.Generator().manual_seed(0), 0.6, 0.3, 300, 8
    same, fresh = [], []
    for _ in range(6):
        matrices = [keep * torch.eye(width) + mix * gaussian(draws, width, width) / width**0.5 for _ in range(lag)]
        v = gaussian(draws, width)
        one = other = v / v.norm()
        for J in matrices:
            one, other = matrices[0] @ one, J @ other
        same.append(float(one.square().sum()))
        fresh.append(float(other.square().sum()))
    shared, independent = (depth_and_lag.paths(lag, keep, mix, shared) for shared in (True, False))
    assert abs(log(np.mean(same)) - shared) < 0.15 and abs(log(np.mean(fresh)) - independent) < 0.15
    assert shared - independent > 1
    assert independent == pytest.approx(lag * log(keep**2 + mix**2))
    assert depth_and_lag.paths(400, keep, mix, True) / 400 == pytest.approx(2 * log(keep + mix), abs=0.02)


def test_a_crowd_is_a_wide_residual_network() -> None:
    """Backwards through drawn matrices by hand; and without a branch half of the units stay open for good."""
    assert np.allclose(depth_and_lag.crowd(4, 0.0)[1:], log(0.5), atol=0.01)
    rng, width, blocks, curves = np.random.default_rng(0), 300, 6, []
    for _ in range(6):
        x, taken = np.maximum(rng.standard_normal(width), 0), []
        for _ in range(blocks):
            first, second = (rng.standard_normal((width, width)) * (2 / width) ** 0.5 for _ in range(2))
            inner = first @ x
            out = x + second @ np.maximum(inner, 0)
            taken.append((first, inner > 0, second, out > 0))
            x = np.maximum(out, 0)
        back = rng.standard_normal(width)
        sizes = [np.square(back).sum()]
        for first, inner, second, opened in taken[:0:-1]:
            back = opened * back
            back = back + first.T @ (inner * (second.T @ back))
            sizes.append(np.square(back).sum())
        curves.append(np.log(sizes) - log(sizes[0]))
    found = depth_and_lag.crowd(blocks, 2.0)
    assert np.allclose(np.mean(curves, 0), found, atol=0.25) and found[-1] > 3


def test_theory_by_layer() -> None:
    for family, slope in {
        "ReLU, He": 0.0,
        "ReLU, default": -log(6),
        "tanh, critical": 0.0,
        "tanh, ordered": -1 / 3.627,
    }.items():
        places, curve = depth_and_lag.theory_by_layer(family, 12, 50)
        assert depth_and_lag.rate(places, curve) == pytest.approx(slope, abs=1e-3)
    assert depth_and_lag.halves(-log(4)) == pytest.approx(0.5) and depth_and_lag.halves(0.1) == np.inf


def test_shortcuts_are_added_and_taken_away() -> None:
    draws = torch.Generator().manual_seed(0)
    images = digits(3, images=True)[0]
    for family in ("CNN, critical", "tanh, critical", "ResNet, He"):
        plain, swapped = (
            depth_and_lag.deep(family, 4, 24, torch.Generator().manual_seed(0), s)[0] for s in (False, True)
        )
        x = images.flatten(1) if "tanh" in family else images
        assert not torch.allclose(plain(x), swapped(x))
    net = swapped
    assert isinstance(net, ResNet)
    block, z = net.blocks[0], gaussian(draws, 2, 4, 8, 8)
    assert torch.allclose(block(z), (block.norm2(block.conv2(block.norm1(block.conv1(z)).relu()))).relu())


def test_bisection_finds_where_networks_stop_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    def below(limit: float) -> object:
        return lambda depth, *rest: 0.9 if depth <= limit else 0.1

    for limit, low, high in ((12, 11, 15), (100, 27, 27), (1, 3, 3)):
        monkeypatch.setattr(keeping_gradients, "learned", below(limit))
        assert low <= keeping_gradients.reach(1.0, 64, 50, 0) <= high


def test_depth_decides_what_is_learned() -> None:
    easy, hard = (keeping_gradients.learned(depth, 0.4, 32, 40, 0) for depth in (3, 20))
    assert easy > 0.7 and hard < 0.4
    assert keeping_gradients.learned(20, depth_and_lag.CRITICAL, 64, 40, 0) > 0.7


def test_the_trials_part_from_their_controls() -> None:
    deep = dict(depth=16, width=96, seed=0)
    for family in ("tanh, ordered", "ReLU, default", "ResNet, default"):
        found = keeping_gradients.keeps_gradients_depth(family=family, **deep)
        assert abs(found["value"]) < 0.1
        assert abs(keeping_gradients.keeps_gradients_depth(family=family, **deep, swapped=True)["value"]) > 0.2
    long = dict(width=96, seed=0)
    for family in ("RNN, orthogonal", "LSTM, forget bias 1"):
        assert abs(keeping_gradients.keeps_gradients_time(family=family, **long)["value"]) < 0.1
    assert keeping_gradients.keeps_gradients_time(family="LSTM, forget bias 1", **long, shared=False)["value"] > 0.2
    assert keeping_gradients.keeps_gradients_time(family="RNN, orthogonal", **long, length=10.0)["value"] < -0.5
    trained = dict(steps=10, width=48, seed=0)
    found = keeping_gradients.keeps_gradients_attention(**trained)
    assert abs(found["value"]) < 0.1 and found["losses"][-1] < found["losses"][0]
    assert keeping_gradients.keeps_gradients_attention(**trained, family="RNN, orthogonal")["value"] < -0.2


def test_figures_return_what_they_draw() -> None:
    import matplotlib.pyplot as plt

    point = dict(depth=8, width=48)
    rows = [
        Row(
            "",
            "",
            dict(family=family, **point),
            k,
            keeping_gradients.keeps_gradients_depth(family=family, seed=k, **point),
        )
        for family in ("tanh, ordered", "ReLU, default")
        for k in range(3)
    ]
    figure, ax = plt.subplots()
    curves, rates = kept_figures.draw_depth(ax, rows), kept_figures.draw_depth_rates(ax, rows)
    plt.close(figure)
    assert len({len(column) for column in curves.values()}) == len({len(column) for column in rates.values()}) == 1
    mean = np.mean([row.values["rate"] for row in rows[:3]])
    assert np.log(rates["factor"][0]) == pytest.approx(mean) and rates["low"][0] < np.exp(mean) < rates["high"][0]
    assert rates["halves in (layers)"][1] == pytest.approx(log(2) / log(6), abs=0.1)
