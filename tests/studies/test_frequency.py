"""Bias-free rectifiers on the circle against NumPy's transform, and a floor that holds."""

from __future__ import annotations

import numpy as np
import pytest

from lemmata.studies.approximation import frequency

pytestmark = pytest.mark.usefixtures("double")


def test_odd_waves_are_missing_by_numpys_transform() -> None:
    found = frequency.biasfree_relu_even_harmonics(width=8, seed=0)
    net = frequency.network(8, False, 1, 0)
    first, last = (p.detach().numpy() for p in net.parameters())
    angle = 2 * np.pi * np.arange(256) / 256
    f = np.maximum(first @ np.stack([np.cos(angle), np.sin(angle)]), 0).T @ last[0]
    spectrum = np.abs(np.fft.rfft(f)) / 256 * 2**0.5
    assert np.allclose(found["amplitudes"][1:128], spectrum[1:128], atol=1e-14) and found["value"] < 1e-13
    for freed in frequency.FREED.values():
        assert frequency.biasfree_relu_even_harmonics(width=8, seed=0, **freed)["value"] > 1e-3


def test_the_floor_is_reached_and_falls_with_its_hypotheses() -> None:
    found = frequency.biasfree_relu_even_harmonics_floor(width=16, steps=30, seed=0)
    assert float(found["value"]) == pytest.approx(0.5, abs=1e-14) and float(found["losses"].min()) >= 0.5 - 1e-15
    for freed in frequency.FREED.values():
        assert frequency.biasfree_relu_even_harmonics_floor(width=16, steps=30, seed=0, **freed)["value"] < 0.45
