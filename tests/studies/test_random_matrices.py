"""Limit laws and the studies of random matrices: against quadrature, exact moments and brute force."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import integrate

from lemmata.studies.curvature import matrix_products as products
from lemmata.studies.curvature import quadrature, random_matrices
from lemmata.studies.curvature import spectral_laws as laws
from lemmata.studies.rows import as_values

pytestmark = pytest.mark.usefixtures("double")

CHEAP = [
    (random_matrices.marchenko_pastur_random_layer, dict(init="he", gamma=0.5, inputs=200)),
    (products.fuss_catalan_spectrum_law, dict(depth=3, width=100)),
    (quadrature.slq_gauss_exactness, dict(operator="Hessian", m=3)),
    (quadrature.slq_gauss_exactness_ghosts, dict(operator="Hessian", steps=60)),
]
SPIKE = dict(gamma=0.5, theta=2.0, inputs=200)


def values(claim, point, control="", seed=1):
    return as_values(claim(**point, **claim.controls.get(control, {}), seed=seed))


def mean(claim, point, control="", seeds=8):
    return float(np.mean([values(claim, point, control, seed)["value"] for seed in range(seeds)]))


def inside(claim, point, value):
    low, high = claim.predicts.band(point)
    return low <= value <= high


def rows_of(claim, points):
    return [
        SimpleNamespace(arm=arm, point=point, k=0, values=values(claim, point, arm))
        for arm in ("", *claim.controls)
        for point in points
    ]


def drawn(draw, rows):
    columns = draw(Figure().subplots(), rows)
    assert len({len(column) for column in columns.values()}) == 1
    return columns


# Laws


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_marchenko_pastur_is_a_law_with_the_moments_of_narayana(gamma):
    a, b = laws.marchenko_pastur_edges(gamma)

    def integral(f, end=b):
        def in_angle(t):  # x = (a + b)/2 − (b − a)/2 cos t takes the square roots out of the ends
            x = np.array((a + b) / 2 - (b - a) / 2 * math.cos(t))
            return f(x) * laws.marchenko_pastur_density(x, gamma) * (b - a) / 2 * math.sin(t)

        last = math.acos(min(max((a + b - 2 * end) / (b - a), -1), 1))
        return integrate.quad(in_angle, 0, last, epsabs=1e-12)[0]

    assert integral(lambda x: 1) == pytest.approx(1, abs=1e-10)
    for k in range(1, 5):
        narayana = [math.comb(k, r) * math.comb(k - 1, r) // (r + 1) * gamma**r for r in range(k)]
        assert integral(lambda x, k=k: x**k) == pytest.approx(sum(narayana), rel=1e-10)
    for end in np.linspace(a, b, 7):
        assert laws.marchenko_pastur_cdf(np.array(end), gamma) == pytest.approx(integral(lambda x: 1, end), abs=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_fuss_catalan_is_a_law_with_its_numbers_as_moments(depth):
    # In t with x = edge · t^(L + 1), the density's pole at zero is gone.
    edge, power = laws.fuss_catalan_edge(depth), depth + 1

    def integral(k, end=1.0):
        def in_root(t):
            return (edge * t**power) ** k * laws.fuss_catalan_density(edge * t**power, depth) * edge * power * t**depth

        return integrate.quad(in_root, 0, end, epsabs=1e-10, limit=200)[0]

    for k, number in enumerate([1, 1, depth + 1, (depth + 1) * (3 * depth + 2) // 2]):
        assert laws.fuss_catalan_number(depth, k) == number
        assert integral(k) == pytest.approx(number, rel=1e-7)
    for end in (0.1, 0.4, 0.7, 0.95):
        below = laws.fuss_catalan_cdf(np.array(edge * end**power), depth)
        assert below == pytest.approx(integral(0, end), abs=1e-7)
    assert laws.fuss_catalan_cdf(np.array([-1.0, edge + 1]), depth).tolist() == [0, 1]
    assert laws.fuss_catalan_density(np.array([-1.0, edge + 1]), depth).tolist() == [0, 0]


def test_one_layer_of_a_deep_network_is_marchenko_pastur_at_one():
    x = np.linspace(0.1, 3.9, 9)
    assert np.allclose(laws.fuss_catalan_density(x, 1), laws.marchenko_pastur_density(x, 1.0), rtol=1e-10)
    assert np.allclose(laws.fuss_catalan_cdf(x, 1), laws.marchenko_pastur_cdf(x, 1.0), atol=1e-12)


def test_spikes_below_the_threshold_are_at_the_edge_and_unseen():
    assert laws.spike_location(0.3, 0.5) == pytest.approx(laws.marchenko_pastur_edges(0.5)[1])
    assert laws.spike_overlap(0.3, 0.5) == pytest.approx(0, abs=1e-15)
    assert (laws.spike_location(2.0, 0.5), laws.spike_overlap(2.0, 0.5)) == pytest.approx((3.75, 0.7))
    for claim, law in (
        (random_matrices.bbp_transition_location, laws.spike_location),
        (random_matrices.bbp_transition_overlap, laws.spike_overlap),
    ):
        for theta in (0.3, 1.2):
            assert np.mean(claim.predicts.band(SPIKE | {"theta": theta})) == pytest.approx(law(theta, 0.5), abs=1e-14)


def test_three_spikes_of_a_square_layer_are_where_the_law_says():
    assert laws.marchenko_pastur_edges(1.0) == (0, 4)
    expected = laws.spike_location(np.array([4.0, 3.0, 2.0]), 1.0)
    assert expected.round(3).tolist() == [6.25, 5.333, 4.5]
    n, draws = 300, np.random.default_rng(0)
    scale = np.sqrt([5, 4, 3, *[1] * (n - 3)])  # of the inputs: spikes θ = 4, 3, 2
    tops = [np.linalg.svd(draws.normal(size=(n, n)) * scale, compute_uv=False)[:4] ** 2 / n for _ in range(20)]
    assert np.mean(tops, 0) == pytest.approx([*expected, 4], abs=0.25)


def test_kolmogorov_distance_is_scipy_s():
    from scipy import stats

    points = np.random.default_rng(0).normal(size=50)
    assert laws.kolmogorov_distance(points, stats.norm.cdf) == pytest.approx(stats.kstest(points, "norm").statistic)


# Layers


@pytest.mark.parametrize("init", ["he", "default", "orthogonal"])
def test_layers_have_entries_of_variance_one(init):
    draws = torch.Generator().manual_seed(0)
    weight = random_matrices.layer(60, 90, init, draws)
    assert weight.shape == (90, 60)
    assert weight.square().mean().item() == pytest.approx(1, abs=0.06)
    singular = np.linalg.svd(weight.numpy(), compute_uv=False)
    assert np.allclose(random_matrices.eigenvalues(weight)[::-1], singular**2 / 90, rtol=1e-10)


def test_heavy_tails_have_their_exponent():
    entries = random_matrices.heavy_layer(400, 500, 2.5, torch.Generator().manual_seed(0))
    scale = entries.abs().min()
    for ratio in (2, 4):
        assert (entries.abs() > ratio * scale).double().mean().item() == pytest.approx(ratio**-2.5, rel=0.05)
    assert entries.square().mean().item() == pytest.approx(1, rel=1e-12)


def test_the_gradient_step_is_that_of_finite_differences():
    inputs, outputs = 5, 6
    stepped = random_matrices.stepped_layer(inputs, outputs, "he", torch.Generator().manual_seed(3))
    draws = torch.Generator().manual_seed(3)
    net = random_matrices.MLP([inputs, outputs, 1], "relu", "he", bias=False, generator=draws)
    first, last = (layer.weight.detach().numpy() for layer in net.layers)
    x = torch.randn(2 * inputs, inputs, generator=draws, dtype=torch.float64).numpy()
    y = x @ torch.randn(inputs, 1, generator=draws, dtype=torch.float64).numpy() / inputs**0.5

    def loss(weight):
        return 0.5 * np.mean((np.maximum(x @ weight.T, 0) @ last.T - y) ** 2)

    moved = first.copy()
    for index in np.ndindex(first.shape):
        h = np.zeros_like(first)
        h[index] = 1e-6
        moved[index] -= random_matrices.STEP * (loss(first + h) - loss(first - h)) / 2e-6
    assert np.allclose(stepped.numpy(), moved / (2 / inputs) ** 0.5, rtol=1e-6, atol=1e-7)


def test_points_of_the_law_are_independent_draws_from_it():
    points = random_matrices.law_sample(4000, 0.5, torch.Generator().manual_seed(0))
    distance = laws.kolmogorov_distance(points, lambda x: laws.marchenko_pastur_cdf(x, 0.5))
    assert 0.3 / 4000**0.5 < distance < 1.63 / 4000**0.5


def test_a_jacobian_is_that_of_the_network_and_its_second_moment_the_exact_one():
    made = products.jacobian(6, 3, "narrow", torch.Generator().manual_seed(0))
    assert made.shape == (6, 6) and torch.linalg.matrix_rank(made) == 3
    net = products.DeepLinear([6, 3, 3, 6], generator=torch.Generator().manual_seed(0))
    assert torch.allclose(made, torch.func.jacrev(net)(torch.ones(6)), rtol=0, atol=1e-14)
    assert np.allclose(products.squared_singular_values(made)[:3], np.linalg.eigvalsh(made @ made.T)[:-4:-1])
    # E tr (JJᵀ)² of real Gaussian matrices of any width, by Wick's theorem, layer by layer.
    width, depth = 20, 2
    square, traces = float(width), float(width**2)
    for _ in range(depth):
        square, traces = traces / width + (1 + 1 / width) * square, traces + 2 * square / width
    measured = mean(products.fuss_catalan_spectrum, dict(depth=depth, k=2, width=width), seeds=400)
    assert measured == pytest.approx(square / width, rel=0.06)


# Quadrature


def test_lanczos_tridiagonalises():
    draws = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, generator=draws)
    matrix = matrix + matrix.T
    full = quadrature.lanczos(matrix, torch.randn(12, generator=draws), 12)
    assert np.allclose(np.linalg.eigvalsh(full), np.linalg.eigvalsh(matrix), atol=1e-12)
    start = torch.randn(12, generator=draws)
    with_and_without = [quadrature.lanczos(matrix, start, 5, orthogonal) for orthogonal in (True, False)]
    assert torch.allclose(*with_and_without, rtol=0, atol=1e-12)
    one = quadrature.lanczos(matrix, start, 1)
    assert one.shape == (1, 1) and one.item() == pytest.approx((start @ matrix @ start / (start @ start)).item())


def test_the_error_at_twice_the_nodes_is_the_product_of_the_off_diagonal():
    matrix = quadrature.matrix_of("layer", 0)
    start, m = torch.randn(quadrature.SIZE, generator=torch.Generator().manual_seed(1)), 3
    error = quadrature.moment_errors(matrix, start, m, 2 * m, "start")[-1].item()
    off = quadrature.lanczos(matrix, start, m + 1).diagonal(1)
    power = np.linalg.matrix_power(matrix.numpy(), 2 * m)
    moment = (start.numpy() @ power @ start.numpy()) / (start @ start).item()
    assert error == pytest.approx((off.square().prod() / moment).item(), rel=1e-8)


def test_trace_estimators_are_unbiased_and_the_sketch_is_exact_on_low_rank():
    draws = torch.Generator().manual_seed(0)
    factor = torch.randn(30, 4, generator=draws)
    low = factor @ factor.T
    assert torch.allclose(quadrature.hutchpp(low, 12, 5, draws), low.trace().expand(5), rtol=1e-12)
    matrix = torch.diag(torch.arange(1.0, 31.0) ** -1)
    for estimate in (quadrature.hutchpp, quadrature.hutchinson):
        drawn = estimate(matrix, 12, 4000, draws)
        assert abs(drawn.mean() - matrix.trace()) < 4 * drawn.std() / 4000**0.5
    variance = 2 * matrix.square().sum() / 12  # of Gaussian probes
    assert (drawn.var() / variance).item() == pytest.approx(1, abs=0.15)


def test_the_gauss_newton_matrix_has_no_negative_eigenvalue_and_the_hessian_has():
    kinds = (quadrature.la.GGN, quadrature.la.Hessian)
    gauss, hessian = (np.linalg.eigvalsh(quadrature.network_matrix(kind, 0)) for kind in kinds)
    assert gauss[0] > -1e-12 * gauss[-1] and hessian[0] < -1e-5 * hessian[-1]


# Claims


@pytest.mark.parametrize(("claim", "point"), CHEAP, ids=lambda value: getattr(value, "id", ""))
def test_claims_hold_and_controls_fail(claim, point):
    assert inside(claim, point, values(claim, point)["value"])
    assert all(not inside(claim, point, values(claim, point, control)["value"]) for control in claim.controls)


def test_edges_come_nearer_and_outliers_do_not():
    claim = random_matrices.marchenko_pastur_random_layer_edges
    sizes = [dict(init="he", gamma=0.5, inputs=inputs, layers=10) for inputs in (32, 128)]
    own, *controls = ([mean(claim, size, arm, 3) for size in sizes] for arm in ("", *claim.controls))
    assert own[1] < 0.6 * own[0]
    assert all(control[1] > 0.8 * control[0] and control[1] > 3 * own[1] for control in controls)


def test_the_edge_of_products_comes_nearer_and_controls_do_not():
    claim = products.fuss_catalan_spectrum_edge
    sizes = [dict(depth=2, width=width, networks=10) for width in (32, 128)]
    own, *controls = ([mean(claim, size, arm, 3) for size in sizes] for arm in ("", *claim.controls))
    assert own[1] < 0.6 * own[0]
    assert all(control[1] > 0.8 * control[0] for control in controls)


@pytest.mark.parametrize(
    "claim", [random_matrices.bbp_transition_location, random_matrices.bbp_transition_overlap], ids=lambda c: c.id
)
def test_spikes(claim):
    assert inside(claim, SPIKE, mean(claim, SPIKE))
    assert all(not inside(claim, SPIKE, mean(claim, SPIKE, control)) for control in claim.controls)


def test_moments_of_products():
    claim, point = products.fuss_catalan_spectrum, dict(depth=2, k=2, width=128)
    assert inside(claim, point, mean(claim, point))
    assert all(not inside(claim, point, mean(claim, point, control)) for control in claim.controls)


@pytest.mark.parametrize(
    ("claim", "point"),
    [
        (quadrature.hutchpp_rate, dict(decay=1.5, repetitions=40)),
        (quadrature.hutchpp_rate_network, dict(repetitions=100)),
    ],
    ids=lambda value: getattr(value, "id", ""),
)
def test_rates_of_the_trace(claim, point):
    assert inside(claim, point, mean(claim, point, seeds=4))
    assert all(not inside(claim, point, mean(claim, point, control, seeds=2)) for control in claim.controls)


# Figures


def test_figures():
    claim = random_matrices.marchenko_pastur_random_layer
    bulk = drawn(claim.figures[0], rows_of(claim, [dict(init="he", gamma=g, inputs=50) for g in (0.25, 0.5)]))
    assert sum(bulk["γ = 0.5"]) * 3.1 / 62 == pytest.approx(1, abs=0.03)
    claim = random_matrices.marchenko_pastur_random_layer_edges
    points = [dict(init="he", gamma=0.5, inputs=inputs, layers=2) for inputs in (16, 32)]
    assert "one gradient step" in drawn(claim.figures[0], rows_of(claim, points))
    spikes = [dict(gamma=0.5, theta=theta, inputs=50) for theta in (0.2, 2.0)]
    assert drawn(random_matrices.draw_location, rows_of(random_matrices.bbp_transition_location, spikes))
    assert drawn(random_matrices.draw_overlap, rows_of(random_matrices.bbp_transition_overlap, spikes))
    moments = [dict(depth=depth, k=2, width=16) for depth in (1, 2)]
    columns = drawn(products.draw_moments, rows_of(products.fuss_catalan_spectrum, moments))
    assert columns["Fuss–Catalan, k = 2"] == [2, 3]
    edge = [dict(depth=2, width=width, networks=2) for width in (8, 16)]
    assert "orthogonal" in drawn(products.draw_edge, rows_of(products.fuss_catalan_spectrum_edge, edge))
    law = [dict(depth=depth, width=32) for depth in (1, 2)]
    assert drawn(products.draw_law, rows_of(products.fuss_catalan_spectrum_law, law))
    nodes = [dict(operator="Hessian", m=m) for m in (1, 2)]
    assert len(drawn(quadrature.draw_moments, rows_of(quadrature.slq_gauss_exactness, nodes))["power"]) == 5
    ghosts = [dict(operator="Hessian", steps=40)]
    assert drawn(quadrature.draw_ghosts, rows_of(quadrature.slq_gauss_exactness_ghosts, ghosts))
    rates = [dict(decay=1.0, repetitions=4)]
    assert "Hutchinson, i^−1" in drawn(quadrature.draw_errors, rows_of(quadrature.hutchpp_rate, rates))
