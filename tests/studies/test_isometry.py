"""Isometry and lengths: measuring code against polygons, closed forms and products by hand; trials and controls."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from lemmata.studies.data import gaussian
from lemmata.studies.gradient_flow import isometry, lengths

pytestmark = pytest.mark.usefixtures("double")


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("units", ["relu", "tanh", "linear"])
def test_the_spectrum_is_of_the_product_of_weights_and_slopes(units: str) -> None:
    """The same network built again in NumPy from the same draws, the product decomposed there."""
    width, depth, size = 12, 3, 0.7
    found = isometry.spectrum(width, depth, units, "Gaussian", size, draws())
    again = draws()
    matrices = [gaussian(again, width, width).numpy() / sqrt(width) for _ in range(depth + 1)]
    x = gaussian(again, 1, width).numpy()[0]
    z, J = matrices[0] @ x * size * sqrt(width) / np.linalg.norm(x), np.eye(width)
    act = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "linear": lambda z: z}[units]
    for W in matrices[1:]:
        slope = (act(z + 1e-6) - act(z - 1e-6)) / 2e-6
        z, J = W @ act(z), W @ np.diag(slope) @ J
    assert np.allclose(found.values[0], np.linalg.svd(J, compute_uv=False), atol=1e-8)


def test_lengths_from_tangents_are_those_of_fine_polygons() -> None:
    width, depth = 40, 3
    matrices = [gaussian(draws(i), width, width) * 2.5 / sqrt(width) for i in range(depth)]
    for units, tolerance in (("tanh", 1e-3), ("relu", 1e-2)):
        z, t = lengths.circle(width, 4000, 1.0, draws(9))
        start = float(t.norm(dim=0).mean())
        for W in matrices:
            h, slope = lengths.unit(z, units)
            z, t = W @ h, W @ (slope * t)
        closed = torch.cat([z, z[:, :1]], 1)
        polygon = float(closed.diff(dim=1).norm(dim=0).sum()) / (2 * np.pi)
        assert polygon == pytest.approx(float(t.norm(dim=0).mean()), rel=tolerance)
        assert polygon != pytest.approx(start, rel=0.1)


def test_the_circle_has_its_moment_and_tangents() -> None:
    z, t = lengths.circle(30, 500, 2.0, draws())
    assert torch.allclose(z.square().mean(0), torch.tensor(2.0)) and float((z * t).sum(0).abs().max()) < 1e-12
    step = (z[:, 1] - z[:, 0]) / (2 * np.pi / 500)
    assert torch.allclose(step, (t[:, 0] + t[:, 1]) / 2, rtol=1e-4)


def test_the_kept_length_is_a_mean_of_roots() -> None:
    """Against a simulation of its definition, and against the root of the mean, which is one."""
    sampler = np.random.default_rng(0)
    counts = sampler.binomial(6, 0.5, 400_000)
    roots = np.sqrt(2 / 6 * chi2.rvs(np.maximum(counts, 1), random_state=sampler) * (counts > 0))
    assert abs(lengths.kept_length(6) - roots.mean()) < 4 * roots.std() / sqrt(len(roots)) < 0.01
    assert lengths.kept_length(6) < 0.91 and abs((roots**2).mean() - 1) < 0.01


def test_the_law_of_logarithms_is_that_of_simulated_products() -> None:
    sampler = np.random.default_rng(1)
    logs = np.log(chi2.rvs(5, size=(3000, 4), random_state=sampler) / 5).sum(1)
    assert kstest(logs, lambda y: isometry.log_norm_law(y, 5, 4)).statistic < 0.035
    assert kstest(logs, lambda y: isometry.log_norm_law(y, 5, 3)).statistic > 0.05
    assert isometry.log_norm_law(np.array([-40.0, 40.0]), 5, 4) == pytest.approx([0, 1], abs=1e-8)


def test_isometry_parts_from_its_controls() -> None:
    assert isometry.dynamical_isometry(20, 24, 0) < 1e-13
    assert isometry.dynamical_isometry(20, 24, 0, init="lecun") > 0.5
    for weights, plain in (("Gaussian", 0.5), ("orthogonal", 0.0)):
        rectified = [isometry.dynamical_isometry_rectifiers(weights, 4, 120, seed)["value"] for seed in range(6)]
        assert abs(np.mean(rectified) - 1) < 0.15
        linear = isometry.dynamical_isometry_rectifiers(weights, 4, 120, 0, units="linear")["value"]
        assert abs(linear - plain) < 0.06
    tanh = dict(depth=8, width=60, seed=0)
    assert isometry.dynamical_isometry_tanh(**tanh)["value"] < 0.02
    for control in (dict(weights="Gaussian"), dict(size=2.0), dict(units="relu")):
        assert isometry.dynamical_isometry_tanh(**tanh, **control)["value"] > 0.2


def test_norms_of_single_networks_part_from_their_controls() -> None:
    def gap(**control: object) -> float:
        values = [isometry.deep_linear_norm_law(16, 24, seed, **control)["value"] for seed in range(200)]
        return float(kstest(values, "uniform").statistic)

    assert gap() < 0.12
    assert gap(weights="orthogonal") > 0.4 and gap(tied=True) > 0.17


def test_lengths_part_from_their_controls() -> None:
    chaos = dict(weights=6.25, width=200, depth=8, points=24, nets=2, seed=0)
    found = lengths.chi_length_chaos(**chaos)
    assert abs(found["value"] - 1) < 0.08 and abs(found["rate"] - 0.2372) < 1e-4
    assert float(found["lengths"][-1]) == pytest.approx(float(np.exp(found["value"] * found["rate"] * 8)))
    assert lengths.chi_length_chaos(**chaos, drawn=1.0)["value"] < -0.3
    assert abs(lengths.chi_length_chaos(**chaos, units="relu")["value"]) < 0.15
    kept = dict(width=8, depth=6, points=4, nets=3000, seed=0)
    found = lengths.expected_length_preserved(**kept)
    assert abs(found["value"] - 1) < 0.06 and found["lengths"].shape == (7,) and found["lengths"][-1] < 0.75
    assert lengths.expected_length_preserved(**kept, variance=4.0)["value"] == pytest.approx(8, rel=0.1)
    assert lengths.expected_length_preserved(**kept, units="tanh")["value"] > 1.4


@pytest.mark.parametrize("units", ["linear", "relu"])
def test_receptive_fields_part_from_their_controls(units: str) -> None:
    field = dict(kernel=3, depth=4, units=units, channels=10, nets=6, seed=0)
    found = lengths.erf_sqrt_depth(**field)
    assert abs(found["value"] - 1) < 0.1 and found["profile"].shape == (9,) and float(found["profile"].sum()) > 1 - 1e-9
    equal = lengths.erf_sqrt_depth(**field, equal=True)
    row = np.array([1.0])
    for _ in range(4):
        row = np.convolve(row, np.ones(3))
    assert np.allclose(equal["profile"], row**2 / (row**2).sum())  # the square of the convolution
    assert lengths.erf_sqrt_depth(**field, middle=3.0)["value"] < 0.85
    assert log(equal["value"]) == pytest.approx(-log(2) / 2, abs=0.1)
