"""Training and the curvature studies: against torch.optim, closed forms and finite differences."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from lemmata.architectures import MLP
from lemmata.studies import training
from lemmata.studies.curvature import edge_of_stability as edge
from lemmata.studies.curvature import hutchinson_variance as hutchinson
from lemmata.studies.curvature import rescale_degeneracy, stability_thresholds
from lemmata.studies.rows import as_values

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def problem():
    draws = torch.Generator().manual_seed(0)
    model = MLP([3, 4, 2], generator=draws)
    return model, torch.randn(20, 3, generator=draws), torch.randn(20, 2, generator=draws)


def values(claim, point, control="", seed=1):
    return as_values(claim(**point, **claim.controls.get(control, {}), seed=seed))


def inside(claim, point, value):
    low, high = claim.predicts.band(point)
    return low <= value <= high


# Training


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "dampening": 0.5}],
    ids=["gradient descent", "heavy ball", "Nesterov", "dampened"],
)
def test_descent_takes_the_steps_of_the_optimizer(problem, options):
    model, inputs, target = problem
    start = training.flat_parameters(model)
    path = training.descent(training.objective(model, training.squared_error, inputs, target), start, 0.1, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    for flat, loss in islice(path, 20):
        assert torch.allclose(flat, training.flat_parameters(model), rtol=0, atol=1e-14)
        theirs = 0.5 * ((model(inputs) - target) ** 2).sum() / len(inputs)
        assert loss.item() == pytest.approx(theirs.item(), rel=1e-13)
        optimizer.zero_grad()
        theirs.backward()
        optimizer.step()
    assert not torch.equal(flat, start)


def test_an_objective_leaves_its_model_alone(problem):
    model, inputs, target = problem
    before = training.flat_parameters(model)
    loss = training.objective(model, training.squared_error, inputs, target)
    list(islice(training.descent(loss, before, 0.1), 3))
    assert torch.equal(training.flat_parameters(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(training.flat_parameters(training.load_parameters(model, before + 1)), before + 1)


def test_flow_has_order_four():
    def run(steps):
        path = training.flow(lambda x: (0.5 * x @ x, x), torch.ones(1), 1 / steps)
        return abs(next(islice(path, steps, None))[0].item() - np.exp(-1))

    assert np.log2(run(10) / run(20)) == pytest.approx(4, abs=0.2)


def test_squared_error_is_half_the_mean_over_examples_of_the_sum():
    output, target = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)).unbind()
    theirs = nn.MSELoss(reduction="sum")(output, target) / 12
    assert training.squared_error(output, target).item() == pytest.approx(theirs.item(), rel=1e-14)


# Edge of stability

GD = dict(eta=0.3, steps=240, examples=100)
HB = dict(beta=0.5, eta=0.36, steps=400, examples=100)


def test_sharpness_is_the_curvature_of_the_gradient_along_its_direction():
    setting = edge.Setting(50, seed=0)
    top = edge.la.eigenpairs(setting.hessian(setting.start), tol=1e-4)
    u, h = top.vectors[:, 0], 1e-4
    change = setting.objective(setting.start + h * u)[1] - setting.objective(setting.start - h * u)[1]
    assert (change @ u / (2 * h)).item() == pytest.approx(float(top.values[0]), rel=1e-5)
    measured = setting.follow(training.descent(setting.objective, setting.start, 0.1), 1, eta=1.0)
    assert measured["value"] == pytest.approx(float(top.values[0]), rel=1e-3)


def test_edge_of_stability_and_its_controls():
    claim = edge.edge_of_stability
    assert inside(claim, GD, values(claim, GD)["value"])
    assert all(not inside(claim, GD, values(claim, GD, control)["value"]) for control in claim.controls)


def test_edge_of_stability_heavy_ball_and_its_control():
    claim = edge.edge_of_stability_heavy_ball
    assert inside(claim, HB, values(claim, HB)["value"])
    assert all(not inside(claim, HB, values(claim, HB, control)["value"]) for control in claim.controls)


def test_loss_at_the_edge_and_its_surface():
    claim = edge.edge_of_stability_loss
    own = values(claim, GD)
    assert inside(claim, GD, own["value"])
    assert not inside(claim, GD, values(claim, GD, *claim.controls)["value"])
    middle = own["surface"][15, 15]  # the last iterate itself
    assert own["surface"].shape == (31, 31) and middle == pytest.approx(own["loss"][-1], rel=1e-12)
    assert own["surface"].max() > 3 * middle
    row = SimpleNamespace(arm="", point=GD, k=0, values=own)
    drawn = edge.draw_surface([row])
    assert edge.draw_surface.surface and len(drawn["x"]) == len(drawn["y"]) == len(drawn["z"]) == 31
    columns = edge.draw_loss(Figure().subplots(), [row])
    assert {len(column) for column in columns.values()} == {GD["steps"]}


def test_sharpness_figures():
    curve = dict(step=21 * np.arange(10), sharpness=np.linspace(3, 9, 10))
    rows = [
        SimpleNamespace(arm=arm, point={"eta": eta, "beta": 0.5}, k=0, values=curve)
        for arm in ("", *edge.edge_of_stability.controls, *edge.edge_of_stability_heavy_ball.controls)
        for eta in (0.2, 0.4)
    ]
    first = edge.draw_sharpness(Figure().subplots(), rows)
    assert first["threshold, η = 0.2"][0] == 10 and "gradient flow" in first
    second = edge.draw_heavy_ball(Figure().subplots(), rows)
    assert second["threshold, β = 0.5, η = 0.4"][0] == 7.5 and "β = 0.5, η = 0.4, dampened" in second
    for columns in (first, second):
        assert {len(column) for column in columns.values()} == {10}


# Thresholds


@pytest.mark.parametrize(("beta", "nesterov", "exact"), [(0.0, 0, 2), (0.9, 0, 3.8), (0.9, 1, 1.357142857)])
def test_thresholds(beta, nesterov, exact):
    point = dict(beta=beta, nesterov=nesterov)
    value = values(stability_thresholds.stability_thresholds, point)["value"]
    assert value == pytest.approx(exact, abs=1e-6)
    assert inside(stability_thresholds.stability_thresholds, point, value)


def test_dampening_multiplies_the_threshold():
    claim = stability_thresholds.stability_thresholds
    value = values(claim, dict(beta=0.5, nesterov=0), *claim.controls)["value"]
    assert value == pytest.approx(3 / (1 - 0.5), abs=1e-6)


@pytest.mark.parametrize("nesterov", [0, 1])
def test_threshold_of_a_network(nesterov):
    claim, point = stability_thresholds.stability_thresholds_network, dict(beta=0.5, nesterov=nesterov)
    assert inside(claim, point, values(claim, point)["value"])
    assert not inside(claim, point, values(claim, point, *claim.controls)["value"])


def test_threshold_figure():
    claim = stability_thresholds.stability_thresholds
    rows = [
        SimpleNamespace(arm="", point=dict(beta=beta, nesterov=n), k=0, values={"value": 2.0})
        for beta in (0.0, 0.5)
        for n in (0, 1)
    ]
    columns = claim.figures[0](Figure().subplots(), rows)
    assert {len(column) for column in columns.values()} == {2}


# Hutchinson


def test_variance_formulas_by_enumeration():
    matrix = torch.tensor([[2.0, 1.0, 0.0], [1.0, -1.0, 3.0], [0.0, 3.0, 0.5]])
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    forms = ((signs @ matrix) * signs).sum(-1)
    assert hutchinson.predicted_variance(matrix, "signs").item() == pytest.approx(forms.var(correction=0).item())
    eigenvalues = torch.linalg.eigvalsh(matrix)  # v'Av is a sum of λ χ²₁, of variance 2 λ² each
    gaussian = (2 * eigenvalues**2).sum().item()
    assert hutchinson.predicted_variance(matrix, "gaussian").item() == pytest.approx(gaussian)
    assert hutchinson.predicted_variance(torch.eye(3), "signs").item() == 0


@pytest.mark.parametrize("law", hutchinson.LAWS)
def test_hutchinson_variance_and_its_controls(law):
    claim, point = hutchinson.hutchinson_variance, dict(law=law, probes=20_000)
    own = values(claim, point)
    assert abs(own["value"] - 1) < 0.1 and abs(own["z_of_mean"]) < 5
    for control in claim.controls:
        assert abs(values(claim, point, control)["value"] - 1) > 0.15


# Degeneracy


def test_rescale_degeneracy_and_its_controls():
    claim, point = rescale_degeneracy.rescale_degeneracy_count, dict(hidden=5, examples=200)
    own = values(claim, point)
    assert own["value"] == 5 and own["next"] > 1e-5 and own["relative"][-5] < 1e-14
    tanh, few = (values(claim, point, control)["value"] for control in claim.controls)
    assert tanh == 0 and few >= 30 - 3 * 2
    rows = [
        SimpleNamespace(arm=arm, point=point, k=0, values=values(claim, point, arm)) for arm in ("", *claim.controls)
    ]
    columns = claim.figures[0](Figure().subplots(), rows)
    assert {len(column) for column in columns.values()} == {30}
