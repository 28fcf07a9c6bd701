"""Residual paths: energies against a sum over all paths, trials and controls."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow import residual

pytestmark = pytest.mark.usefixtures("double")


def test_energies_are_those_of_all_paths() -> None:
    """Every one of the 2^4 products by itself, added up by length."""
    draws = torch.Generator().manual_seed(0)
    branches = [gaussian(draws, 3, 5, 5) for _ in range(4)]
    sums = [torch.zeros(3, 5, 5) for _ in range(5)]
    for path in product((False, True), repeat=4):
        J = torch.eye(5).expand(3, -1, -1)
        for taken, W in zip(path, branches, strict=True):
            J = W @ J if taken else J
        sums[sum(path)] = sums[sum(path)] + J
    truth = torch.stack([one.square().sum((1, 2)) / 5 for one in sums])
    found = residual.path_energies(branches)
    assert torch.allclose(found, truth, rtol=1e-12) and not torch.allclose(found.flip(0), truth, rtol=0.1)


def test_the_trials_part_from_their_controls() -> None:
    doubling = dict(branch="whole", width=8, depth=6, nets=1500, seed=0)
    found = residual.residual_variance_doubling(**doubling)
    assert abs(found["value"] - 1) < 0.05 and found["curve"].shape == (7,)
    assert residual.residual_variance_doubling(**doubling, last=0.0)["value"] == pytest.approx(0.5)
    assert residual.residual_variance_doubling(**doubling, shift=1.0)["value"] > 1.1
    scaled = residual.residual_variance_doubling(**doubling | dict(branch="over the root of the depth"))
    assert abs(scaled["value"] - 1) < 0.05 and scaled["curve"][-1] < np.e + 0.3
    paths = dict(length=2, share=0.5, depth=5, width=12, nets=100, seed=0)
    assert abs(residual.residual_path_binomial(**paths)["value"] - 1) < 0.15
    assert residual.residual_path_binomial(**paths, tied=True)["value"] > 3
    assert residual.residual_path_binomial(**paths, shift=0.5)["value"] > 1.3
