"""The digits against scikit-learn's own arrays, and the draws."""

import sys

import numpy as np
import pytest
import torch

from lemmata.studies.data import DIGITS, DataError, digits, gaussian, one_hot


@pytest.fixture
def pixels():
    return pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)


def test_every_digit_is_scikit_learns_own(pixels):
    inputs, labels = digits()
    raw, named = pixels
    scale = (raw - raw.mean(0)).std()
    theirs = {tuple(np.round((row - raw.mean(0)) / scale, 4)): label for row, label in zip(raw, named, strict=True)}
    ours = [tuple(np.round(row, 4)) for row in inputs.double().numpy()]
    near = sum(theirs.get(row) == label for row, label in zip(ours, labels.tolist(), strict=True))
    assert len(ours) == DIGITS and near > 0.9 * DIGITS  # the rest differ in the last digit kept, by float32
    assert np.bincount(labels.numpy()).tolist() == np.bincount(named).tolist()


def test_training_images_are_standardised_and_the_rest_by_the_same_numbers():
    torch.set_default_dtype(torch.float64)
    try:
        inputs, labels = digits(500)
        rest, others = digits(500, held_out=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert inputs.dtype == torch.float64 and labels.dtype == torch.int64
    assert inputs.mean(0).abs().max() < 1e-12 and abs(inputs.square().sum(1).mean() - 64) < 1e-10
    assert len(rest) == len(others) == DIGITS - 500
    assert 0.01 < rest.mean(0).abs().max() < 1 and abs(rest.square().sum(1).mean() - 64) < 3


def test_a_smaller_set_is_part_of_a_larger_one():
    assert torch.equal(digits(100)[1], digits(500)[1][:100])
    assert torch.equal(digits(100, held_out=True)[1], digits()[1][100:])
    assert torch.equal(digits(100)[0], digits(100)[0])
    assert set(digits(100)[1].tolist()) == set(range(10))


def test_images_are_the_same_pixels():
    images, _ = digits(10, images=True)
    assert images.shape == (10, 1, 8, 8)
    assert torch.equal(images.flatten(1), digits(10)[0])


@pytest.mark.parametrize("n", [0, -1, DIGITS + 1, 2.0, True, "500"])
def test_impossible_sizes(n):
    with pytest.raises(DataError, match=rf"n={n!r} .*from 1 to 1797"):
        digits(n)


def test_nothing_held_out():
    with pytest.raises(DataError, match=r"no image held out: .* n=1297"):
        digits(held_out=True)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r'pip install "lemmata\[studies\]"'):
        digits(10)


def test_one_hot():
    assert one_hot(torch.tensor([3, 0]), classes=4).tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


def test_a_seed_means_the_same_draws_in_every_dtype():
    single = gaussian(torch.Generator().manual_seed(5), 1000)
    torch.set_default_dtype(torch.float64)
    try:
        double = gaussian(torch.Generator().manual_seed(5), 1000)
    finally:
        torch.set_default_dtype(torch.float32)
    assert single.dtype == torch.float32 and torch.equal(double.float(), single)
    assert abs(double.mean()) < 0.15 and abs(double.std() - 1) < 0.1
