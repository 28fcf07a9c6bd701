"""Waves on the circle: kernels against quadrature and NumPy's transform, trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import lemmata.analysis as la
from lemmata.studies.approximation import frequency

pytestmark = pytest.mark.usefixtures("double")


def test_eigenvalues_are_the_fourier_coefficients_of_the_arc_cosine_kernel() -> None:
    for k in (1, 2, 5):
        kernel = lambda t, k=k: (1 + np.cos(t)) * (np.pi - t) / np.pi * np.cos(k * t)  # noqa: E731
        truth = quad(kernel, 0, np.pi)[0] / np.pi
        assert frequency.eigenvalue(k, 512) == pytest.approx(truth, rel=1e-3)


def test_a_wide_network_has_the_infinite_ones_eigenvalue() -> None:
    found = [frequency.ntk_circle_spectrum(k=5, points=64, width=5000, seed=seed) for seed in range(8)]
    assert np.mean(found) == pytest.approx(frequency.eigenvalue(5, 64), rel=0.02)
    assert frequency.ntk_circle_spectrum(k=5, points=64, width=2000, seed=0, bias=False) < 1e-10
    fast = [frequency.ntk_circle_spectrum(k=k, points=64, width=2000, seed=0, units="fast") for k in (4, 16)]
    assert 0.7 < fast[1] / fast[0] < 1.4


def test_the_kernel_is_that_of_differences() -> None:
    """‖Jᵀb/N‖² with the derivatives from central differences."""
    net = frequency.FirstLayer(3, "rectifiers", True, 0)
    modes = la.circle_modes(16, 2)
    wave, total = modes.basis[:, -1] / 16, 0.0
    for parameter in (net.w, net.b):
        for entry in parameter.data.view(-1):
            before, sides = entry.clone(), []
            for step in (1e-7, -1e-7):
                entry.copy_(before + step)
                sides.append(wave @ net(modes.points).detach())
            entry.copy_(before)
            total += float((sides[0] - sides[1]) / 2e-7) ** 2
    assert frequency.ntk_circle_spectrum(k=2, points=16, width=3, seed=0) == pytest.approx(total, rel=1e-5)


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


def test_uneven_points_have_their_density() -> None:
    modes = frequency.uneven(la.circle_modes(512, 3))
    assert float(modes.points[:, 0].mean()) == pytest.approx(0.4, abs=1e-12)  # E cos θ
    assert float(modes.points[:, 0].square().mean()) == pytest.approx(0.5, abs=1e-12)  # E cos² θ
    assert torch.allclose(modes.points[:, 0] * 2**0.5, modes.basis[:, 1], atol=1e-14)


def test_a_wave_takes_its_time_and_no_other_does() -> None:
    trial = dict(k=3, width=2048, seed=0)
    assert frequency.ntk_circle_spectrum_times(**trial)["value"] == pytest.approx(1, abs=0.1)
    for change in (dict(even=False), dict(units="sines"), dict(width=8)):
        assert abs(frequency.ntk_circle_spectrum_times(**trial | change)["value"] - 1) > 0.1
