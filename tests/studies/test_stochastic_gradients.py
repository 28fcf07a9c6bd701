"""Stochastic gradients and the catapult: against Lyapunov equations, a closed recursion and finite differences."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import linalg

from lemmata.studies.curvature import stochastic_gradients as study
from lemmata.studies.rows import as_values
from lemmata.studies.training import descent

pytestmark = pytest.mark.usefixtures("double")

CHEAP = [
    (study.sgd_stationary_covariance, dict(eta_lambda=1.0, chains=10000)),
    (study.catapult_window, dict(width=20)),
    (study.catapult_window_monotone, dict(width=200)),
    (study.catapult_window_flatness, dict(width=20)),
]


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def values(claim, point, control="", seed=1):
    return as_values(claim(**point, **claim.controls.get(control, {}), seed=seed))


def inside(claim, point, value):
    low, high = claim.predicts.band(point)
    return low <= value <= high


def rows_of(claim, points):
    return [
        SimpleNamespace(arm=arm, point=point, k=0, values=values(claim, point, arm))
        for arm in ("", *claim.controls)
        for point in points
    ]


@pytest.mark.parametrize(("claim", "point"), CHEAP, ids=[claim.id for claim, _ in CHEAP])
def test_the_claim_holds_and_its_controls_fail(claim, point):
    assert inside(claim, point, values(claim, point)["value"])
    for control in claim.controls:
        assert not inside(claim, point, values(claim, point, control)["value"]), control


# Stationary covariance


def test_stationary_covariance_solves_the_lyapunov_equations():
    problem = study.regression(draws())
    hessian, covariance = problem.hessian.numpy(), problem.covariance.numpy()
    step = 1.3 / np.linalg.eigvalsh(hessian)[-1]
    exact = study.stationary_covariance(problem.hessian, problem.covariance, step).numpy()
    theirs = linalg.solve_discrete_lyapunov(np.eye(3) - step * hessian, step**2 * covariance)
    assert np.allclose(exact, theirs, rtol=1e-10, atol=0)
    limit = study.stationary_covariance(problem.hessian, problem.covariance, step, "Ornstein–Uhlenbeck").numpy()
    assert np.allclose(limit, linalg.solve_continuous_lyapunov(hessian, step * covariance), rtol=1e-10, atol=0)


def test_stationary_covariance_of_one_parameter():
    one = torch.ones(1, 1)
    found = [study.stationary_covariance(2 * one, 3 * one, 0.25, law).item() for law in ("exact", "Ornstein–Uhlenbeck")]
    assert found == pytest.approx([0.25 * 3 / (2 * 1.5), 0.25 * 3 / 4], rel=1e-14)


def test_the_regression_is_expanded_around_its_minimum():
    problem = study.regression(draws(3))
    assert problem.noise.mean(0).abs().max() < 1e-14
    hessian, covariance = problem.hessian, problem.covariance
    assert (hessian @ covariance - covariance @ hessian).norm() > 0.01 * (hessian @ covariance).norm()
    assert torch.linalg.eigvalsh(hessian).numpy() == pytest.approx(sorted(study.SPREAD), rel=0.1)


def test_chains_with_batch_curvature_have_the_covariance_of_the_linear_recursion():
    problem = study.regression(draws(5))
    step = 1.0 / torch.linalg.eigvalsh(problem.hessian)[-1].item()
    maps = np.eye(3) - step * problem.curvatures.numpy()
    transfer = np.mean([np.kron(m, m) for m in maps], axis=0)
    exact = np.linalg.solve(np.eye(9) - transfer, step**2 * problem.covariance.numpy().ravel()).reshape(3, 3)
    theta = study.sample_chains(problem, step, 20000, "of the batch", draws(6)).numpy()
    ratios = linalg.eigvalsh(theta.T @ theta / len(theta), exact)
    assert np.abs(ratios - 1).max() < 0.07
    additive = study.stationary_covariance(problem.hessian, problem.covariance, step).numpy()
    assert linalg.eigvalsh(theta.T @ theta / len(theta), additive).max() > 1.1


def test_small_steps_do_not_tell_the_two_formulas_apart():
    claim, point = study.sgd_stationary_covariance, dict(eta_lambda=0.05, chains=4000)
    for control in ("", "discrete steps: the formula of Ornstein and Uhlenbeck"):
        assert inside(claim, point, values(claim, point, control)["value"])


def test_variances_are_drawn_for_both_arms():
    claim = study.sgd_stationary_covariance
    columns = study.draw_variances(
        Figure().subplots(), rows_of(claim, [dict(eta_lambda=a, chains=4000) for a in (0.5, 1.0)])
    )
    assert {len(column) for column in columns.values()} == {6}
    a, variance = columns["η λ, noise alone"], columns["variance, noise alone"]
    assert np.allclose(variance, 1 / (2 - a), rtol=0.15)


# Catapult


def test_the_gradient_of_the_product_is_that_of_finite_differences():
    weights = study.two_layers(draws(), 4)
    gradient = study.product_loss(weights)[1]
    for i, direction in enumerate(torch.eye(8)):
        change = study.product_loss(weights + 1e-5 * direction)[0] - study.product_loss(weights - 1e-5 * direction)[0]
        assert change.item() / 2e-5 == pytest.approx(gradient[i].item(), rel=1e-8)


def test_the_linear_model_touches_the_product_at_its_start():
    start = study.two_layers(draws(1), 4)
    linear = study.linearised_loss(start)
    for ours, theirs in zip(linear(start), study.product_loss(start), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-14)
    away = start + 1e-4 * torch.ones(8)
    gap = [
        abs((linear(start + h * (away - start))[0] - study.product_loss(start + h * (away - start))[0]).item())
        for h in (1, 2)
    ]
    assert gap[1] / gap[0] == pytest.approx(4, rel=1e-2)


def test_function_and_curvature_follow_a_closed_recursion():
    n, step = 7, 0.9
    start = study.two_layers(draws(2), n)
    f, curvature = (start[:n] @ start[n:]).item() / n**0.5, start.square().sum().item() / n
    path = descent(study.product_loss, start, step)
    for _ in range(12):
        weights, loss = next(path)
        assert loss.item() == pytest.approx(f**2 / 2, rel=1e-9, abs=1e-200)
        assert study.curvature(weights).item() == pytest.approx(curvature, rel=1e-9)
        y = step**2 * f**2 / n
        f, curvature = f * (1 - step * curvature + y), curvature + y / step * (step * curvature - 4)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_first_rises_where_the_first_step_overshoots(seed):
    n = 100
    start = study.two_layers(draws(seed), n)
    share = (start[:n] @ start[n:]).item() ** 2 / start.square().sum().item() ** 2  # η²f²/n = share (ηλ)²
    exact = (1 - (1 - 8 * share) ** 0.5) / (2 * share)  # the root of x = 2 + share x²
    assert study.catapult_window_monotone(width=n, seed=seed) == pytest.approx(exact, abs=1e-5)


def test_catapult_figures():
    rows = rows_of(study.catapult_window_flatness, [dict(width=n) for n in (5, 50)])
    columns = study.draw_flattening(Figure().subplots(), rows)
    assert {len(column) for column in columns.values()} == {len(study.GRID)}
    assert np.array_equal(columns["linear model"], study.GRID)
    assert all((columns[f"n = {n}"] <= columns["η λ at the start"] + 1e-12).all() for n in (5, 50))
    losses = study.draw_catapult(Figure().subplots(), rows)
    assert {len(column) for column in losses.values()} == {60}
    assert losses["η λ = 1.0 at the start"].max() == 1 and losses["η λ = 3.0 at the start"].max() > 1
