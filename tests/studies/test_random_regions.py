"""Regions of random networks: closed forms at one layer, another count of cells, and controls that fail."""

from __future__ import annotations

from math import atan, pi

import numpy as np
import pytest
import torch

from lemmata.analysis import regions_in_plane
from lemmata.studies.approximation import random_regions as study

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("bias", [0.1, 1.0])
def test_kinks_of_one_layer_have_a_cauchy_law(bias):
    """2/π arctan(√2/σ) of the kinks −b/w lie in [−1, 1]: here counted from the weights."""
    inside = []
    for seed in range(20):
        layer = study.random_network(1, 200, 1, seed, bias).layers[0]
        kinks = (layer.bias / layer.weight[:, 0]).detach().abs()
        inside.append(int((kinks < 1).sum()))
        assert study.breakpoints(200, 1, seed, bias, "random") * 200 * 2 / pi * atan(2**0.5 / bias) == pytest.approx(
            inside[-1]
        )
    assert np.mean(inside) / 200 == pytest.approx(2 / pi * atan(2**0.5 / bias), abs=0.03)


def test_depth_changes_nothing_for_random_weights_and_much_for_others():
    found = {w: [study.breakpoints(64, 4, s, 0.1, w) for s in range(12)] for w in ("random", "sawtooth", "chaotic")}
    assert 0.75 < np.mean(found["random"]) < 1.25
    assert np.mean(found["sawtooth"]) > 10 and np.mean(found["chaotic"]) > 1.1


def test_the_sawtooth_has_a_power_of_pieces():
    assert study.breakpoints(16, 2, 0, 0.1, "sawtooth") * 16 * 2 / pi * atan(2**0.5 / 0.1) >= 8**2 - 1


def test_cells_against_patterns_of_a_fine_grid():
    net = study.random_network(2, 8, 2, 0)
    cells = regions_in_plane(net, torch.zeros(2), *torch.eye(2)).regions
    coarse, fine = study.sampled_patterns(net, 40), study.sampled_patterns(net, 500)
    assert coarse < fine <= cells < 1.1 * fine


def test_the_plane_control_has_more_cells_than_one_layer_can():
    assert study.hanin_rolnick_plane_count(neurons=32, depth=2, seed=0)["value"] < 1.25
    assert study.hanin_rolnick_plane_count(neurons=32, depth=2, seed=0, weights="folds")["value"] > 10


def test_euler_and_its_control():
    found = study.euler_characteristic_cells(weights="random", depth=2, width=12, seed=1)
    assert found["value"] == 1 and found["undecided"] == 0
    missed = study.euler_characteristic_cells(weights="random", depth=2, width=12, seed=1, side=40)
    assert missed["value"] < 1 and missed["cells"] == found["cells"]


def test_training_learns_the_ring():
    net = study.trained(study.random_network(2, 24, 2, 0, bias=0.3), 0)
    x = 2 * torch.rand(2000, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64) - 1
    assert float((net(x) - study.ring(x)).square().mean().detach()) < 0.5 * float(study.ring(x).var())


def test_figures_draw_what_they_return():
    from matplotlib.figure import Figure

    result = study.euler_characteristic_cells
    rows = []
    for weights in ("random", "trained"):
        values = {k: np.asarray(v) for k, v in result(weights=weights, depth=1, width=12, seed=0).items()}
        rows.append(type("Row", (), dict(arm="", k=0, point=dict(weights=weights, depth=1), values=values)))
    for draw in (study.draw_random, study.draw_trained):
        columns = draw(Figure().subplots(), rows)
        assert len({len(column) for column in columns.values()}) == 1 and set(columns["layer"]) == {1}
