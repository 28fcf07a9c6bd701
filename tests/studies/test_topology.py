"""Topology of data: the sampled discs against their geometry, what parts trials from controls, and the reading of layers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure as Canvas
from scipy import ndimage
from scipy.stats import mannwhitneyu

from lemmata.analysis.errors import NumericsError
from lemmata.analysis.topology import betti, betti_through_layers
from lemmata.reports.figures import to_svg
from lemmata.studies.approximation import topology, topology_networks
from lemmata.studies.approximation.topology_figures import draw_classes
from lemmata.studies.data import DataError, nine_discs

pytestmark = pytest.mark.usefixtures("double")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("discs", "margin"), [(9, 0.5), (6, 0.5), (1, 0.3)])
def test_the_data_are_discs_and_what_is_around_them(discs: int, margin: float) -> None:
    """The balls of radius 0.3 drawn as pixels, their components counted by scipy: discs, surroundings, and holes in these."""
    x, label = nine_discs(draws(), discs=discs, margin=margin)
    for part, components, holes in ((1, discs, 0), (0, 1, discs)):
        chosen = x[label == part]
        pixels = np.zeros((440, 440), dtype=bool)
        pixels[tuple(np.rint((chosen.numpy() + 11) * 20).astype(int).T)] = True
        near = ndimage.distance_transform_edt(~pixels) <= 0.3 * 20
        found = betti(chosen, scale=0.3)
        assert ndimage.label(near)[1] == components == found.numbers[0]
        assert ndimage.label(~near, np.ones((3, 3)))[1] - 1 == holes == found.numbers[1]
    centre = x[(label == 1) & (x.norm(dim=1) < 3)]
    assert 1.2 < float(centre.norm(dim=1).max()) <= 1.3 + 1e-9
    size = x[label == 0].norm(dim=1).min()
    assert float(size) >= 1.3 + margin and abs(len(x[label == 1]) * 0.19**2 / (discs * np.pi * 1.3**2) - 1) < 0.05


def test_a_seed_means_the_same_discs_and_bad_numbers_are_refused() -> None:
    first, again, other = (nine_discs(draws(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first[:50], other[:50])
    for wrong in (dict(step=0.0), dict(discs=0), dict(margin=-1.0)):
        with pytest.raises(DataError, match=r"such as step=0\.19"):
            nine_discs(draws(), **wrong)


def test_pictures_of_the_data_show_every_point_they_carry(row_of: Callable[..., SimpleNamespace]) -> None:
    """The strokes read back from the axes, and as many dots in the picture."""
    canvas = Canvas()
    columns = draw_classes(canvas.subplots(), [row_of(topology.naitzat_d1_betti_discs, order=0)])
    strokes = [patch.get_path().vertices[::2] for patch in canvas.axes[0].patches]
    drawn = np.concatenate(strokes)[:, 0]
    assert np.allclose(np.sort(drawn), np.sort(columns["x1"]), atol=1e-2)
    assert len(strokes[1]) == sum(columns["disc"]) and 1500 < len(drawn) == len(columns["x1"])
    assert to_svg(canvas).count(b"\nM ") > len(drawn) - 10


def test_counts_part_from_their_controls() -> None:
    for trial, numbers in ((topology.naitzat_d1_betti_discs, (9, 0)), (topology.naitzat_d1_betti_around, (1, 9))):
        found = [trial(order=order, seed=0) for order in (0, 1)]
        assert tuple(one["value"] for one in found) == numbers and found[0]["holds over"] > 7
        for control in topology.CONTROLS.values():
            assert tuple(trial(order=order, seed=0, **control)["value"] for order in (0, 1)) != numbers


def test_random_layers_are_what_they_are_said_to_be() -> None:
    """Invertible with the condition number asked for, to differences; a projection's image is a line."""
    x = torch.randn(200, 2, generator=draws(1))
    y = topology.random_layers(x, 1, draws(2), 1.2, 1.0, 0.0, 1.0)
    centred = x - x.mean(0)
    W = torch.linalg.lstsq(centred, y).solution
    assert torch.allclose(centred @ W, y, atol=1e-10) and float(torch.linalg.cond(W)) == pytest.approx(1.2)
    line = topology.random_layers(x, 1, draws(2), 1.2, 1.0, 0.0, 0.0)
    sizes = torch.linalg.svdvals(line)
    assert float(sizes[0]) > 1 and float(sizes[1]) < 1e-10


def test_homeomorphic_layers_part_from_their_controls() -> None:
    point = dict(layers=1, step=0.19, seed=3)
    found = topology.homeomorphic_layers_preserve_betti(**point)
    assert found["value"] == 0 and list(found["numbers"]) == [9, 0, 1, 9]
    for control in topology.homeomorphic_layers_preserve_betti.controls.values():
        assert topology.homeomorphic_layers_preserve_betti(**point, **control)["value"] > 2


def test_pairs_that_are_fewer() -> None:
    """The statistic of Mann and Whitney, by scipy."""
    these, those = (np.random.default_rng(k).integers(0, 6, 7 + k) for k in (1, 2))
    expected = mannwhitneyu(those, these).statistic / (len(these) * len(those))
    assert topology.fewer(these, those) == pytest.approx(expected) and 0.2 < expected < 0.8
    assert topology.fewer(np.array([1, 2]), np.array([3])) == 1 and topology.fewer(these, these) == 0.5


def test_networks_that_learnt_nothing_are_named() -> None:
    with pytest.raises(NumericsError, match=r"steps=1\b.*Raise steps or nets"):
        topology.learnt("relu", 2, 1, draws())


def test_two_scales_are_compared_and_the_less_clear_counts() -> None:
    """Networks as drawn, against the same ones: one half at each scale; and each kind of features by itself."""
    ones = topology.learnt("relu", 2, 0, draws(3))
    found = topology.compared(ones, ones)
    assert found["value"] == found["14 neighbours"] == found["28 neighbours"] == 0.5


def test_networks_are_trained_or_left_as_drawn() -> None:
    drawn, discs, chance = topology_networks.classifiers("relu", 2, 0, draws(5))
    learnt, same, accuracy = topology_networks.classifiers("relu", 2, 60, draws(5))
    assert torch.equal(discs, same) and all(float(row.abs().max()) < 2 for row in discs)
    assert float(accuracy.min()) > 0.85 and float(chance.min()) < 0.85 and drawn[0].widths == (2, *[15] * 10, 1)
    totals = topology.features(drawn[:1], discs, 14, [1, 10])
    through = betti_through_layers(drawn[0], discs, None, "layers.[09]", 14, landmarks=150)
    assert totals.tolist() == through.totals[1:].T.tolist() and 9 <= totals[0, 0] <= 11
    assert learnt[0] is not learnt[1]
