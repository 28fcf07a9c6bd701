"""Kernels on the circle and the sphere against quadrature and differences, trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import eval_legendre

import lemmata.analysis as la
from lemmata.studies.approximation import kernel_frequencies

pytestmark = pytest.mark.usefixtures("double")


def test_eigenvalues_are_the_fourier_coefficients_of_the_arc_cosine_kernel() -> None:
    for k in (1, 2, 5):
        kernel = lambda t, k=k: (1 + np.cos(t)) * (np.pi - t) / np.pi * np.cos(k * t)  # noqa: E731
        truth = quad(kernel, 0, np.pi)[0] / np.pi
        assert kernel_frequencies.eigenvalue(k, 512) == pytest.approx(truth, rel=1e-3)


def test_a_wide_network_has_the_infinite_ones_eigenvalue() -> None:
    found = [kernel_frequencies.ntk_circle_spectrum(k=5, points=64, width=5000, seed=seed) for seed in range(8)]
    assert np.mean(found) == pytest.approx(kernel_frequencies.eigenvalue(5, 64), rel=0.02)
    assert kernel_frequencies.ntk_circle_spectrum(k=5, points=64, width=2000, seed=0, bias=False) < 1e-10
    fast = [kernel_frequencies.ntk_circle_spectrum(k=k, points=64, width=2000, seed=0, units="fast") for k in (4, 16)]
    assert 0.7 < fast[1] / fast[0] < 1.4


def test_the_kernel_is_that_of_differences() -> None:
    """‖Jᵀb/N‖² with the derivatives from central differences."""
    net = kernel_frequencies.FirstLayer(3, "rectifiers", True, 0)
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
    assert kernel_frequencies.ntk_circle_spectrum(k=2, points=16, width=3, seed=0) == pytest.approx(total, rel=1e-5)


def test_uneven_points_have_their_density() -> None:
    modes = kernel_frequencies.uneven(la.circle_modes(512, 3))
    assert float(modes.points[:, 0].mean()) == pytest.approx(0.4, abs=1e-12)  # E cos θ
    assert float(modes.points[:, 0].square().mean()) == pytest.approx(0.5, abs=1e-12)  # E cos² θ
    assert torch.allclose(modes.points[:, 0] * 2**0.5, modes.basis[:, 1], atol=1e-14)


def test_a_wave_takes_its_time_and_no_other_does() -> None:
    trial = dict(k=3, width=2048, seed=0)
    assert kernel_frequencies.ntk_circle_spectrum_times(**trial)["value"] == pytest.approx(1, abs=0.1)
    for change in (dict(even=False), dict(units="sines"), dict(width=8)):
        assert abs(kernel_frequencies.ntk_circle_spectrum_times(**trial | change)["value"] - 1) > 0.1


def test_on_the_sphere_by_funk_and_hecke() -> None:
    for degree in (5, 8):
        kernel = lambda t, n=degree: (1 + np.cos(t)) * (np.pi - t) / np.pi * eval_legendre(n, np.cos(t)) * np.sin(t)  # noqa: E731
        trial = dict(degree=degree, rings=24, width=1000)
        found = [kernel_frequencies.ntk_circle_spectrum_sphere(**trial, seed=seed) for seed in range(6)]
        assert np.mean(found) == pytest.approx(quad(kernel, 0, np.pi)[0] / 2, rel=0.08)
    assert kernel_frequencies.ntk_circle_spectrum_sphere(degree=5, rings=16, width=300, seed=0, bias=False) < 1e-10
