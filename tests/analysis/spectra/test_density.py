"""Spectral densities against planted spectra: the bounds on their distance hold, and mean something."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, NumericsError, OperandError
from lemmata.analysis.spectra.density import spectral_density
from lemmata.analysis.spectra.measure import SpectralDensity
from lemmata.analysis.spectra.probes import Probes
from lemmata.analysis.spectra.quadrature import christoffel, gauss, radau

SIZE = 200
SPECTRA = {
    "flat": np.ones(SIZE),
    "linear": np.linspace(0.5, 1.5, SIZE),
    "geometric": 0.9 ** np.arange(SIZE),
    "spiked": np.r_[100, 50, 30, np.linspace(0.5, 1.5, SIZE - 3)],
    "indefinite": np.r_[-3, np.linspace(-1, 2, SIZE - 1)],
    "rank 3": np.r_[3, 2, 1, np.zeros(SIZE - 3)],
    "multiple": np.repeat([4.0, 3, 2, 1], SIZE // 4),
}
BASIS = np.linalg.qr(np.random.default_rng(1).standard_normal((SIZE, SIZE)))[0]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def planted(values: np.ndarray, dtype: torch.dtype = torch.float64) -> la.Dense:
    matrix = torch.from_numpy(BASIS * values @ BASIS.T)
    return la.Dense(((matrix + matrix.T) / 2).to(dtype))


def distance(found: SpectralDensity, values: np.ndarray, shares: np.ndarray | None = None) -> float:
    return float(wasserstein_distance(values, found.nodes.flatten(), shares, found.weights.flatten()))


@pytest.mark.parametrize(("steps", "probes"), [(4, 1), (12, 10)])
@pytest.mark.parametrize("name", SPECTRA)
def test_error_bounds_the_distance_from_the_truth(name: str, steps: int, probes: int) -> None:
    A, values = planted(SPECTRA[name]), SPECTRA[name]
    found = [spectral_density(A, steps, probes, seed) for seed in range(100)]
    held = [distance(d, values) <= d.error for d in found]
    assert np.mean(held) >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 100)
    assert np.median([d.error / max(distance(d, values), d.rounding) for d in found]) < 15


def test_neither_part_of_the_bound_would_do_alone() -> None:
    values = SPECTRA["multiple"]
    found = [spectral_density(planted(values), 12, 10, seed) for seed in range(60)]
    assert np.mean([distance(d, values) <= d.sampling_error / 2 for d in found]) < 0.85
    coarse = [spectral_density(planted(SPECTRA["linear"]), 3, 50, seed) for seed in range(20)]
    assert np.mean([distance(d, SPECTRA["linear"]) <= d.sampling_error for d in coarse]) < 0.5
    far = [distance(d, values + 0.2) <= d.error for d in found]
    assert not any(far)


@pytest.mark.parametrize("steps", [1, 3, 8, 30])
@pytest.mark.parametrize("name", SPECTRA)
def test_quadrature_bound_holds_for_each_probes_own_measure(name: str, steps: int) -> None:
    A, values = planted(SPECTRA[name]), SPECTRA[name]
    for seed in range(10):
        probe = Probes(A, seed).draw(1)[0].numpy()
        shares = (BASIS.T @ probe) ** 2 / SIZE
        found = spectral_density(A, steps, 1, seed)
        away = distance(found, values, shares)
        assert away <= found.quadrature_error + found.rounding
        assert found.quadrature_error <= 100 * away + found.rounding or name == "multiple" or steps < 8


@pytest.mark.parametrize("name", SPECTRA)
def test_distribution_function_lies_in_its_intervals(name: str) -> None:
    A, values = planted(SPECTRA[name]), SPECTRA[name]
    points = np.quantile(values, [0.1, 0.5, 0.9]) + 1e-3
    truth = (values <= points[:, None]).mean(1)
    inside, halved = [], []
    for seed in range(200):
        value, low, high = (part.numpy() for part in spectral_density(A, 10, 3, seed).cdf(torch.from_numpy(points)))
        assert np.all((low <= value) & (value <= high))
        inside.append((low <= truth) & (truth <= high))
        halved.append(np.abs(value - truth) <= (high - low) / 8)
    assert np.mean(inside, 0).min() >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 200)
    assert name == "flat" or np.mean(halved) < 0.95
    value, low, high = spectral_density(A).cdf(1e6, level=0.5)
    assert value.shape == () and float(value) == pytest.approx(1) == float(high) and float(low) > 0.99


def test_gauss_and_radau_rules_integrate_powers_exactly() -> None:
    # Legendre: α = 0, β_k = k / √(4k² − 1), moments ∫ x^j dx / 2
    k = np.arange(1, 6)
    alpha, beta = np.zeros(5), k / np.sqrt(4.0 * k**2 - 1)
    nodes, weights, _ = gauss(alpha, beta)
    assert nodes == pytest.approx(np.polynomial.legendre.leggauss(5)[0])
    fixed, shares = radau(alpha, beta, -1.0)
    assert fixed[0] == pytest.approx(-1)
    for j in range(12):
        moment = 0 if j % 2 else 1 / (j + 1)
        assert (weights @ nodes**j == pytest.approx(moment, abs=1e-14)) == (j <= 9 or j % 2 == 1)
        assert (shares @ fixed**j == pytest.approx(moment, abs=1e-14)) == (j <= 10)
    x = np.array([-0.3, 0.0, 0.9, 2.0])
    kernel = sum((2 * j + 1) * np.polynomial.legendre.Legendre.basis(j)(x) ** 2 for j in range(5))
    assert christoffel(nodes, weights, x) == pytest.approx(1 / kernel)
    assert christoffel(nodes, weights, nodes) == pytest.approx(weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["rank 3", "multiple", "flat"])
def test_more_steps_than_distinct_eigenvalues_are_not_taken(name: str, dtype: torch.dtype) -> None:
    values = SPECTRA[name]
    found = spectral_density(planted(values, dtype), 64, 3)
    visible = found.nodes[found.weights > 1e-8].numpy()
    assert np.abs(visible[:, None] - np.unique(values)).min(1).max() < found.rounding
    assert found.nodes.abs().max() <= np.abs(values).max() + found.rounding
    assert found.matvecs <= 3 * 8 or dtype == torch.float32
    assert float(found.weights.sum()) == pytest.approx(1)


def test_as_many_steps_as_dimensions_give_every_eigenvalue() -> None:
    values = np.linspace(-1, 2, 12)
    A = la.Dense(torch.diag(torch.from_numpy(values)))
    found = spectral_density(A, 10**6, 2)
    assert found.nodes.shape == (2, 12) and found.exact == (True, True) and found.quadrature_error == 0
    assert found.nodes.numpy() == pytest.approx(np.stack([values] * 2), abs=1e-12)
    assert distance(found, values) < 1e-12  # random signs see every axis alike
    zero = spectral_density(la.Dense(torch.zeros(5, 5)))
    assert zero.error == 0 and zero.nodes.abs().max() == 0 and float(zero.cdf(1.0)[0]) == pytest.approx(1)


def test_spiked_matrix_has_its_edge_and_its_three_outliers() -> None:
    n = 600
    Z = np.random.default_rng(0).standard_normal((n, n))
    Y = Z @ Z.T / n
    Y[range(3), range(3)] += [5, 4, 3]
    truth = np.linalg.eigvalsh(Y)
    found = spectral_density(la.Dense(torch.from_numpy(Y)), 64, 10)
    assert distance(found, truth) <= found.error < 0.25
    heaviest = np.sort([row[-3:].numpy() for row in found.nodes], axis=0)
    assert heaviest[:, ::-1].mean(0) == pytest.approx([6.25, 16 / 3, 4.5], abs=0.3)
    assert heaviest == pytest.approx(np.stack([truth[-3:]] * 10), rel=1e-6)
    _, low, high = found.cdf(4.2)
    assert float(low) <= 1 - 3 / n <= float(high) and float(high - low) < 0.006


@pytest.mark.parametrize("name", SPECTRA)
def test_a_continued_density_is_the_uninterrupted_one_at_no_repeated_product(name: str) -> None:
    class Counted(la.Operator):
        def __init__(self, inner: la.Operator) -> None:
            self.inner, self.seen = inner, 0
            self.layout, self.dtype, self.device = inner.layout, inner.dtype, inner.device

        def _multiply(self, vectors: Tensor) -> Tensor:
            self.seen += len(vectors)
            return self.inner._multiply(vectors)

        def plan(self, k: int = 1) -> la.Plan:
            return self.inner.plan(k)

    A = Counted(planted(SPECTRA[name]))
    first = spectral_density(A, 10, 4, seed=2, keep=True)
    more = spectral_density(A, 30, 7, seed=2, start=first, keep=True)
    assert more.matvecs == A.seen
    fresh = spectral_density(A, 30, 7, seed=2)
    assert more.matvecs == fresh.matvecs
    assert torch.equal(more.exact and more.nodes, fresh.nodes) or torch.allclose(
        more.nodes, fresh.nodes, atol=1e-9, rtol=0
    )
    assert distance(more, fresh.nodes.flatten().numpy(), fresh.weights.flatten().numpy()) < 1e-12
    assert more.error == pytest.approx(fresh.error, rel=1e-6, abs=1e-14)
    seen = A.seen
    again = spectral_density(A, 10, 4, seed=2, start=first)  # fewer steps than the runs have by now
    assert A.seen == seen and torch.allclose(again.nodes, first.nodes, atol=1e-14)


@pytest.mark.parametrize("name", SPECTRA)
def test_same_seed_same_density_whatever_the_block_and_the_global_generator(name: str) -> None:
    A = planted(SPECTRA[name])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = spectral_density(A, 16, 5, seed=3)
    for block in (1, 3):
        other = spectral_density(A, 16, 5, seed=3, block=block)
        scale = float(np.abs(SPECTRA[name]).max())
        assert distance(other, first.nodes.flatten().numpy(), first.weights.flatten().numpy()) < 1e-12 * scale
        assert other.error == pytest.approx(first.error, rel=1e-6, abs=1e-14) and other.matvecs == first.matvecs
    assert torch.equal(state, torch.get_rng_state())
    assert name == "flat" or not torch.equal(first.weights, spectral_density(A, 16, 5, seed=4).weights)


@pytest.mark.parametrize("name", SPECTRA)
def test_float32(name: str) -> None:
    values = SPECTRA[name]
    found = spectral_density(planted(values, torch.float32), 40, 10)
    exact = spectral_density(planted(values), 40, 10)
    assert distance(found, values) <= found.error
    gap = distance(found, exact.nodes.flatten().numpy(), exact.weights.flatten().numpy())
    assert gap <= found.rounding + 1e-3 * exact.error


def test_on_a_hessian_of_a_network() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 12), torch.nn.Tanh(), torch.nn.Linear(12, 3)).double()
    H = la.Hessian(model, torch.nn.CrossEntropyLoss(), (torch.randn(20, 5).double(), torch.randint(0, 3, (20,))))
    truth = np.linalg.eigvalsh(H.dense().numpy())
    found = spectral_density(H, 40, 20)
    assert distance(found, truth) <= found.error < 0.1 * np.ptp(truth)
    assert found.ends[0] == pytest.approx(truth[0], rel=0.02) and found.ends[1] == pytest.approx(truth[-1], rel=1e-6)


def test_result_reads_smooths_plots_and_survives_json() -> None:
    found = spectral_density(planted(SPECTRA["indefinite"]), 20, 4, keep=True)
    assert repr(found).startswith("SpectralDensity([-3, 2.0") and repr(found).endswith("80 products)")
    back = SpectralDensity.from_dict(json.loads(json.dumps(found.to_dict())))
    assert torch.equal(back.nodes, found.nodes) and back.error == found.error and back.ends == found.ends
    assert back.krylov == () and torch.equal(back.cdf(0.3)[2], found.cdf(0.3)[2])
    grid = torch.linspace(-5, 4, 4001, dtype=torch.float64)
    assert float(torch.trapezoid(found.evaluate(grid), grid)) == pytest.approx(1, abs=1e-6)
    one = spectral_density(la.Dense(torch.eye(3)), 2, 1).evaluate(torch.tensor([1.0, 1.5]), width=0.5)
    assert one.numpy() == pytest.approx(np.exp([0, -0.5]) / (0.5 * np.sqrt(2 * np.pi)), rel=1e-6)
    values = SPECTRA["indefinite"]
    smooth = np.exp(-((grid.numpy()[:, None] - values) ** 2) / 2 / 0.5**2).mean(1) / (0.5 * np.sqrt(2 * np.pi))
    assert np.abs(found.evaluate(grid, 0.5).numpy() - smooth).max() <= 0.25 * found.error / 0.5**2
    assert found.plot().get_xlabel() == "eigenvalue" and found.plot(axes := back.plot()) is axes
    with pytest.raises(ArgumentError, match=r"width.*positive.*0\.01"):
        found.evaluate(grid, width=0.0)
    with pytest.raises(ArgumentError, match=r"level.*2"):
        found.cdf(0.0, level=2)
    with pytest.raises(FrozenInstanceError):
        found.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("options", [{"steps": 0}, {"probes": 0}, {"probes": 2.5}, {"block": 0}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    name, given = next(iter(options.items()))
    with pytest.raises(ArgumentError, match=rf"{name}.*≥ 1.*{given}.*{name}=16"):
        spectral_density(la.Dense(torch.eye(4)), **options)


def test_what_cannot_be_continued_is_named() -> None:
    A = la.Dense(torch.eye(4))
    with pytest.raises(ArgumentError, match=r"start.*without.*keep=True"):
        spectral_density(A, 2, 2, start=spectral_density(A, 2, 2))
    kept = spectral_density(A, 2, 2, keep=True)
    with pytest.raises(OperandError, match=r"start.*Dense"):
        spectral_density(la.Dense(torch.eye(4)), 2, 2, start=kept)
    with pytest.raises(ArgumentError, match=r"seed.*0.*given 1.*seed=0"):
        spectral_density(A, 2, 2, seed=1, start=kept)
    with pytest.raises(ArgumentError, match=r"probes.*at least 2.*given 1"):
        spectral_density(A, 2, 1, start=kept)


def test_a_bare_matrix_and_an_overflow_are_named() -> None:
    with pytest.raises(OperandError, match=r"operator.*Tensor.*la.Dense"):
        spectral_density(torch.eye(3))  # type: ignore[arg-type]
    with pytest.raises(NumericsError, match=r"Scaled.*inf or nan.*float64"):
        spectral_density(1e30 * la.Dense(1e30 * torch.eye(3)))
