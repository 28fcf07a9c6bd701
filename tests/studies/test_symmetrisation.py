"""The study of symmetrisation against least squares and averages written out with numpy."""

import numpy as np
import pytest
import torch

from lemmata.analysis import actions
from lemmata.studies.invariance import symmetrisation as study

pytestmark = pytest.mark.usefixtures("double")


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("d", "n", "spread"), [(4, 9, 1.0), (6, 3, 1.0), (4, 9, 2.0)])
def test_gains_by_numpy(d, n, spread):
    theta = study.coefficients(d, 2.0, 0.5, draws(1))
    found = study.gains(d, n, 3, theta, spread, draws(2))
    again, scale = draws(2), np.array([spread] * (d // 2) + [1.0] * (d // 2))
    x = torch.randn(3, n, d, generator=again).numpy() * scale
    y = x @ theta.numpy() + torch.randn(3, n, generator=again).numpy()
    for i in range(3):
        w = np.linalg.lstsq(x[i], y[i], rcond=None)[0]
        mean = (w + np.roll(w, d // 2)) / 2
        gain = ((w - theta.numpy()) ** 2 * scale**2).sum()
        gain -= ((mean - theta.numpy()) ** 2 * scale**2).sum()
        assert float(found[i]) == pytest.approx(gain, rel=1e-9)


def test_coefficients_have_the_parts_asked_for():
    theta = study.coefficients(10, 3.0, 0.7, draws(3))
    moved = theta - theta.roll(5, 0)
    assert float(moved.square().sum() / 4) == pytest.approx(0.7)
    assert float((theta + theta.roll(5, 0)).square().sum() / 4) == pytest.approx(3.0)


def test_random_subspaces_tilt_a_vector_as_predicted():
    """E (aᵀPθ)² = n(d − n)/(d(d − 1)(d + 2)) for orthogonal unit vectors and the projector on a random subspace."""
    d, n, sets = 6, 2, 20000
    basis = torch.linalg.qr(torch.randn(sets, d, n, generator=draws(4)))[0]
    tilt = (basis[:, 0] * basis[:, 1]).sum(1).square()
    error = float(tilt.std()) / sets**0.5
    assert abs(float(tilt.mean()) - n * (d - n) / (d * (d - 1) * (d + 2))) < 4 * error
    claim = study.elesedy_zaidi_gap_interpolation.predicts
    low, high = claim.band({"d": 20, "n": 5, "strength": 10.678})
    assert (low + high) / 2 == pytest.approx(1.1365, abs=2e-4)


@pytest.mark.parametrize("setting", ["turned digits", "sets of numbers"])
def test_pythagoras_holds_and_its_controls_fail(setting):
    kept = study.reynolds_pythagoras(setting=setting, seed=5)
    assert kept["value"] < 1e-13 and kept["not invariant"] > 0.05 * kept["error"]
    for control in study.reynolds_pythagoras.controls.values():
        assert study.reynolds_pythagoras(setting=setting, seed=5, **control)["value"] > 1e-6


@pytest.mark.parametrize(("group", "n"), [("shifts", 3), ("turns", 40), ("orders", 3)])
def test_augmented_least_squares(group, n):
    assert study.augmentation_equals_averaging(group=group, n=n, seed=6) < 1e-12
    assert study.augmentation_equals_averaging(group=group, n=n, seed=6, share=0.5) > 1e-3


def test_augmented_least_squares_of_shifts_by_numpy():
    """All shifts of the inputs: the one invariant weight vector is constant, fitted to the sums of the inputs."""
    x, y = torch.randn(5, 8, generator=draws(7)).numpy(), torch.randn(5, generator=draws(8)).numpy()
    rows = np.concatenate([np.roll(x, s, 1) for s in range(8)])
    w = np.linalg.lstsq(rows, np.tile(y, 8), rcond=None)[0]
    assert np.allclose(w, (x.sum(1) @ y) / (x.sum(1) @ x.sum(1)), atol=1e-12)


def test_tied_perceptrons_are_invariant_and_stay_so():
    x = torch.randn(4, 4, 4, generator=draws(9))
    assert study.defect(study.tied("turns", 2, draws(10), True), x, actions.rotations(4)) < 1e-14
    assert study.defect(study.tied("turns", 2, draws(10), False), x, actions.rotations(4)) > 0.01
    path = study.augmentation_equals_averaging_path
    assert path(group="turns", steps=10, seed=11)["value"] < 1e-13
    assert path(group="turns", steps=10, seed=11, sampled=True)["value"] > 1e-4
    assert path(group="turns", steps=10, seed=11, tie=False)["value"] > 0.01
