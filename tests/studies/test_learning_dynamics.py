"""Learning dynamics: rates by eigenvalues of the iteration matrix, a game by powers of a matrix, saddles by their spectra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemmata.studies.gradient_flow import learning_dynamics

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("method", learning_dynamics.METHODS)
@pytest.mark.parametrize("condition", [4.0, 50.0])
def test_rates_are_spectral_radii_and_no_other_tuning_is_better(method: str, condition: float) -> None:
    """Of the matrix that takes two neighbouring iterates to the next two, for each curvature."""

    def radius(step: float, momentum: float) -> float:
        ahead = momentum if method == "Nesterov" else 0.0
        found = []
        for curvature in np.linspace(1, condition, 101):
            trace = 1 + momentum - step * curvature * (1 + ahead)
            determinant = momentum * (1 - step * curvature) if ahead else momentum
            found.append(np.abs(np.roots([1, -trace, determinant])).max())
        return max(found)

    tuned = learning_dynamics.Tuning.of(method, condition)
    assert radius(tuned.step, tuned.momentum) == pytest.approx(tuned.rate, abs=1e-6)
    if method != "Nesterov":  # its usual tuning is not its best
        for step, momentum in ((0.95, 1.0), (1.05, 1.0), (1.0, 0.9), (1.0, 1.1)):
            if momentum == 1.0 or tuned.momentum:
                assert radius(step * tuned.step, momentum * tuned.momentum) > tuned.rate + 1e-3


def test_errors_are_powers_of_the_curvatures() -> None:
    found = learning_dynamics.errors_of("gradient descent", 5.0, 7, 3, step=0.1, momentum=0.0)
    start = torch.randn(20, generator=torch.Generator().manual_seed(3)).numpy()
    shrinks = 1 - 0.1 * np.linspace(1, 5, 20)
    path = start * shrinks[None] ** np.arange(8)[:, None]
    assert np.allclose(found, np.sqrt((path[1:] ** 2).sum(1) + (path[:-1] ** 2).sum(1)), rtol=1e-12)


@pytest.mark.parametrize("update", learning_dynamics.UPDATES)
def test_the_players_move_by_powers_of_a_matrix(update: str) -> None:
    """min over x, max over y of x·y: rotation by a matrix for each update."""
    eta = 0.3
    step = np.array([[1, -eta], [eta, 1]])
    matrix = {
        "simultaneous": step,
        "extragradient": np.eye(2) + (step - np.eye(2)) @ step,
        "alternating": np.array([[1, -eta], [eta, 1 - eta**2]]),
    }[update]
    path = learning_dynamics.play(update, lambda x, y: (y, x), torch.tensor([1.0, 2.0]), eta, 5).numpy()
    assert np.allclose(path[5], np.linalg.matrix_power(matrix, 5) @ [1, 2], rtol=1e-12)
    other = step.T if update == "alternating" else matrix.T
    assert not np.allclose(path[5], np.linalg.matrix_power(other, 5) @ [1, 2], rtol=1e-2)


def test_the_regularised_game_has_its_own_factor() -> None:
    """((1 − ημ)² + η²) per step, which falls exactly for η below 2μ/(1 + μ²)."""
    for eta, falls in ((0.7, True), (0.9, False)):  # the threshold is 0.8 at μ = 1/2
        found = learning_dynamics.bilinear_game("simultaneous", eta, 40, seed=0, cost=0.5)
        factor = ((1 - 0.5 * eta) ** 2 + eta**2) / (1 + eta**2)
        assert (
            found["value"] == pytest.approx(factor**20, rel=1e-10)
            and bool(found["sizes"][-1] < found["sizes"][0]) == falls
        )


@pytest.mark.parametrize("kind", learning_dynamics.SADDLES)
def test_saddles_have_the_spectrum_of_the_data(kind: str) -> None:
    """At zero the Hessian pairs the layers through E[y xᵀ]: eigenvalues ± its singular values, each as often as hidden units."""
    place = learning_dynamics.Saddle(kind, 3)
    h, (layer, _) = 1e-5, place.model.parameters()  # (hidden, inputs) first
    eye = torch.eye(len(place.point))
    hessian = torch.stack([(place.loss(h * e)[1] - place.loss(-h * e)[1]) / (2 * h) for e in eye])
    values = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    assert torch.allclose(values, place.values, atol=1e-7) and float(place.loss(place.point)[1].norm()) < 1e-15
    assert place.space.shape == (len(place.point), layer.shape[0]) and place.next_curvature() > 1.01 * place.curvature
    start = place.start(1e-3, stable=True)
    assert float(place.inside(start)) < 1e-17 and float(place.inside(place.start(1e-3, stable=False))) > 1e-5


def test_the_trials_part_from_their_controls() -> None:
    rates = dict(method="heavy ball", condition=10.0, seed=0)
    assert abs(learning_dynamics.gd_quadratic_rates(**rates)["value"] - 1) < 1e-3
    for control in (dict(power=0.5), dict(step=0.5)):
        assert learning_dynamics.gd_quadratic_rates(**rates, **control)["value"] < 0.6
    for update in learning_dynamics.UPDATES:
        game = dict(update=update, eta=0.5, steps=50, seed=0)
        assert abs(learning_dynamics.bilinear_game(**game)["value"] - 1) < 1e-12
        assert learning_dynamics.bilinear_game(**game, cost=0.5)["value"] < 0.1
    assert abs(learning_dynamics.bilinear_game("simultaneous", 0.5, 50, seed=0, orthogonal=False)["value"] - 1) > 0.1
    leave = dict(saddle="tanh network", distance=1e-6, eta=0.05, seed=0)
    assert learning_dynamics.saddle_escape_time_steps(**leave) < 1
    for control in (dict(stable=True), dict(continuous=True)):
        assert learning_dynamics.saddle_escape_time_steps(**leave, **control) > 3
    slopes = dict(saddle="two linear layers", seed=0)
    assert abs(learning_dynamics.saddle_escape_time_flow(**slopes)["value"] - 1) < 0.01
    assert learning_dynamics.saddle_escape_time_flow(**slopes, second=True)["value"] < 0.9
    assert learning_dynamics.saddle_escape_time_flow(**slopes, stable=True)["value"] > 1.2
