"""Pooling and group convolutions: the measuring code against loops and rotated kernels written out; controls that fail."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lemmata.studies.invariance import group_convolutions, pooling

pytestmark = pytest.mark.usefixtures("double")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_errors_by_shift_are_those_of_a_loop():
    found = pooling.shifted_errors(2, 3, "dense")
    draws = seeded(3)
    net = pooling.CNN([4, 8, 8], 1, activation="relu", generator=draws)
    x = torch.randn(1, 4, 6, 6, generator=draws)
    weight = torch.randn(8, 8 * 36, generator=draws) / (8 * 36) ** 0.5
    with torch.no_grad():
        y = weight @ net.features(x).flatten()
        truth = [
            [float((weight @ net.features(x.roll((i, j), (-2, -1))).flatten() - y).norm() / y.norm()) for j in range(6)]
            for i in range(6)
        ]
    assert np.allclose(pooling.by_shift(found), truth, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("head", ["mean", "max", "rms"])
def test_pooling_and_its_controls(head):
    kept = pooling.pooling_invariance(head=head, depth=1, seed=1)
    thinned = pooling.pooling_invariance(head=head, depth=1, seed=1, every=2)
    dense = pooling.pooling_invariance(head=head, depth=1, seed=1, dense=True)
    assert kept["value"] < 1e-15 and thinned["value"] > 1e-2 and dense["value"] > 0.5
    even = np.asarray(thinned["by shift"])[::2, ::2]
    assert even.max() < 1e-15 and np.asarray(thinned["by shift"])[1, 1] > 1e-3


def test_windows_keep_their_multiples_alone():
    kept = pooling.pooling_invariance_windows(windows=3, depth=1, seed=0)
    assert kept["value"] < 1e-15
    assert pooling.pooling_invariance_windows(windows=3, depth=1, seed=0, more=1)["value"] > 1e-3


def test_the_lifting_layer_is_four_convolutions_with_a_turned_kernel():
    """The group network that is measured, by torch's own circular convolution."""
    features = group_convolutions.network("p4", 1, 1, seeded())
    layer, x = features.net.layers[0], torch.randn(1, 2, 5, 5, generator=seeded(1))
    with torch.no_grad():
        found = features(x)
        padded = F.pad(x, (1, 1, 1, 1), mode="circular")
        for m in range(4):
            truth = F.conv2d(padded, layer.weight.rot90(m, (-2, -1)), layer.bias).relu()
            assert torch.allclose(found[:, :, m], truth, rtol=0, atol=1e-14)


def test_the_image_is_smooth_enough_to_be_turned():
    import lemmata.analysis as la

    errors = [
        la.actions.interpolation(la.actions.rotations(8), group_convolutions.smooth_image(n, seeded())) for n in (9, 36)
    ]
    assert errors[1] < errors[0] / 4 and errors[1] < 0.05


def test_quarter_turns_hold_and_controls_fail():
    point = {"group": "p4", "depth": 2, "side": 6, "seed": 0}
    kept = group_convolutions.p4_group_conv(**point)
    assert kept["value"] < 1e-14 and 0 < kept["single precision"] < 1e-4
    assert max(kept["by angle"][::6]) < 1e-14 < min(kept["by angle"][1:6])
    assert group_convolutions.p4_group_conv(**point, order=8)["value"] > 1e-3
    assert group_convolutions.p4_group_conv(**point, tied=False)["maps"] > 0.5


def test_mirrors_and_strides():
    assert group_convolutions.p4_group_conv_mirror(depth=1, seed=0)["value"] < 1e-14
    p4 = group_convolutions.p4_group_conv_mirror(depth=1, seed=0, group="p4")
    assert p4["rotations"] < 1e-14 < 1e-3 < p4["value"]
    point = {"group": "p4m", "depth": 1, "seed": 0, "side": 5}
    assert group_convolutions.p4_group_conv_stride(**point)["value"] < 1e-14
    assert group_convolutions.p4_group_conv_stride(**point, more=1)["value"] > 0.1


@pytest.mark.parametrize("claim", [pooling.pooling_invariance, group_convolutions.p4_group_conv], ids=lambda c: c.id)
def test_figures_hold_what_was_measured(claim):
    from types import SimpleNamespace

    from matplotlib.figure import Figure

    point = {name: values[0] for name, values in claim.quick.coordinates.items()}
    arms = {"": {}, **claim.controls}
    rows = [SimpleNamespace(point=point, k=0, arm=arm, values=claim(**point, seed=0, **kw)) for arm, kw in arms.items()]
    for draw in claim.figures:
        columns = draw(Figure().subplots(), rows)
        assert len({len(column) for column in columns.values()}) == 1 and len(columns) >= 3
