"""The foundations studies: their parts against closed forms, each claim and each control on one small point."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import special

from lemmata.architectures import ARCHITECTURES
from lemmata.studies.foundations import backpropagation, cross_entropy, derivatives
from lemmata.studies.rows import as_values

SMALL = [
    (derivatives.autodiff_taylor_order_gradient, dict(architecture="mlp")),
    (derivatives.autodiff_taylor_order_gradient, dict(architecture="cnn")),
    (derivatives.autodiff_taylor_order_hessian, dict(architecture="deep-linear")),
    (derivatives.hvp_symmetry_and_duality_hessian, dict(architecture="mlp-relu")),
    (derivatives.hvp_symmetry_and_duality_jacobian, dict(architecture="cnn-zeros")),
    (backpropagation.cheap_gradient_principle, dict(depth=5, inputs=0)),
    (backpropagation.cheap_gradient_principle, dict(depth=5, inputs=1)),
    (backpropagation.cheap_gradient_principle_bound, dict(architecture="cnn")),
    (backpropagation.minibatch_gradient_rank, dict(batch=4)),
    (cross_entropy.cross_entropy_identities_decomposition, dict(classes=10)),
    (cross_entropy.cross_entropy_identities_gradient, dict(classes=10)),
    (cross_entropy.cross_entropy_identities_hessian, dict(classes=10)),
    (cross_entropy.cross_entropy_identities_divergence, dict(classes=10)),
    (cross_entropy.cross_entropy_identities_jeffreys, dict(classes=10)),
]
CONTROLS = [(claim, point, control) for claim, point in SMALL for control in claim.controls]


pytestmark = pytest.mark.usefixtures("double")


def value(claim, point, control="", seed=1):
    return as_values(claim(**point, **claim.controls.get(control, {}), seed=seed))["value"]


@pytest.mark.parametrize(("claim", "point"), SMALL, ids=lambda x: getattr(x, "id", ""))
def test_claim_holds_at_a_point(claim, point):
    low, high = claim.predicts.band(point)
    assert low <= value(claim, point) <= high


@pytest.mark.parametrize(("claim", "point", "control"), CONTROLS, ids=lambda x: getattr(x, "id", ""))
def test_control_fails_at_a_point(claim, point, control):
    low, high = claim.predicts.band(point)
    measured = value(claim, point, control)
    assert not low <= measured <= high
    if "rounding" in str(getattr(claim.predicts, "bound", "")):
        assert measured > 1e6 * high


# Derivatives


def test_taylor_is_asked_of_smooth_networks_alone():
    names = {entry.name for entry in ARCHITECTURES}
    assert set(derivatives.CHOSEN) <= set(derivatives.SMOOTH) < names
    assert {"mlp-relu"} <= names - set(derivatives.SMOOTH)


def test_peano_differences_are_minus_one_and_one():
    f_xy, f_yx = derivatives.peano_differences().fliplr().diagonal().tolist()
    assert f_xy == pytest.approx(-1, abs=1e-4) and f_yx == pytest.approx(1, abs=1e-4)


def test_a_game_is_the_gradient_with_one_sign_changed():
    size, game = derivatives.second_derivative("mlp", 0, "game")
    _, gradient = derivatives.second_derivative("mlp", 0, "gradient")
    eye = torch.eye(size)
    assert torch.equal(game(eye)[: size // 2], gradient(eye)[: size // 2])
    assert torch.equal(game(eye)[size // 2 :], -gradient(eye)[size // 2 :])


# Backpropagation


def test_operations_of_a_product_are_counted_by_hand():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert backpropagation.operations(lambda: a @ b) == 2 * 3 * 5 * 7


def test_fraction_of_five_layers():
    assert value(backpropagation.cheap_gradient_principle, dict(depth=5, inputs=0)) == pytest.approx(2.8, abs=1e-14)


def test_the_rank_is_counted_across_a_wide_gap():
    singular = as_values(backpropagation.minibatch_gradient_rank(batch=4, seed=0))["singular_values"]
    assert singular[3] > 1e-4 and singular[4] < 1e-14


# Cross-entropy


def test_softmax_and_divergence_are_scipys():
    z, w = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).unbind()
    p, q = special.softmax(z.numpy()), special.softmax(w.numpy())
    assert cross_entropy.softmax(z).numpy() == pytest.approx(p, rel=1e-14)
    assert cross_entropy.divergence(z, w).item() == pytest.approx(special.rel_entr(p, q).sum(), rel=1e-13)


def test_fisher_is_the_covariance_of_the_one_hot_label():
    z = torch.randn(5, generator=torch.Generator().manual_seed(0))
    p, eye = cross_entropy.softmax(z), torch.eye(5)
    covariance = sum(p[i] * torch.outer(eye[i] - p, eye[i] - p) for i in range(5))
    assert torch.allclose(cross_entropy.fisher(z), covariance, rtol=0, atol=1e-15)


# Figures


@pytest.mark.parametrize(
    ("claim", "points"),
    [
        (derivatives.autodiff_taylor_order_gradient, [dict(architecture="mlp"), dict(architecture="cnn")]),
        (derivatives.autodiff_taylor_order_hessian, [dict(architecture="mlp")]),
        (backpropagation.minibatch_gradient_rank, [dict(batch=1), dict(batch=8)]),
        (cross_entropy.cross_entropy_identities_divergence, [dict(classes=10)]),
        (cross_entropy.cross_entropy_identities_jeffreys, [dict(classes=10)]),
    ],
    ids=lambda x: getattr(x, "id", ""),
)
def test_figures_return_the_numbers_they_draw(claim, points):
    from matplotlib.figure import Figure

    arms = ["", *claim.controls]
    rows = [
        SimpleNamespace(arm=arm, point=p, k=0, values=as_values(claim(**p, **claim.controls.get(arm, {}), seed=0)))
        for arm in arms
        for p in points
    ]
    for draw in claim.figures:
        ax = Figure().subplots()
        columns = draw(ax, rows)
        assert len({len(column) for column in columns.values()}) == 1
        drawn = [np.asarray(line.get_ydata()) for line in ax.lines]
        assert any(np.array_equal(list(columns.values())[-1], y) for y in drawn)
        assert ax.get_xlabel() and ax.get_ylabel()
