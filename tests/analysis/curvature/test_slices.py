"""Loss slices against closed forms and plain loops of forward passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.curvature import LossSlice, loss_slice, random_directions
from lemmata.analysis.curvature import evaluation as engine
from lemmata.analysis.errors import ArgumentError, LossError, OperandError

X = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(12) % 3


def dense() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def convolutional() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(*layers).double().eval()


def by_hand(model: nn.Module, directions: Tensor, x: Tensor, batch: Any = (X, Y)) -> Tensor:
    """A plain double loop over the grid with parameters written into a copy."""
    moved = copy.deepcopy(model)
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    losses = torch.empty(len(x), len(x), dtype=torch.float64)
    for i, a in enumerate(x.tolist()):
        for j, b in enumerate(x.tolist()):
            nn.utils.vector_to_parameters(start + a * directions[:, 0] + b * directions[:, 1], moved.parameters())
            losses[i, j] = nn.functional.cross_entropy(moved(batch[0]), batch[1]).detach()
    return losses


@pytest.mark.parametrize("make", [dense, convolutional])
def test_a_plane_equals_a_loop_of_forward_passes(make: Any) -> None:
    model = make()
    directions = random_directions(model, 2)
    found = loss_slice(model, nn.CrossEntropyLoss(), (X, Y), directions, extent=0.7, points=7)
    truth = by_hand(model, directions, found.coordinates)
    torch.testing.assert_close(found.losses, truth, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found.losses, truth.T)
    assert found.centre == pytest.approx(float(truth[3, 3]), rel=1e-13)


def test_a_quadratic_is_a_parabola_with_its_curvature_and_standard_error() -> None:
    """L(w) = mean (w x_n − y_n)²: along 1, L'' = 2 mean x² and the error is that of a mean of squares."""
    model = nn.Linear(1, 1, bias=False).double()
    x, y = torch.linspace(-1, 2, 9).double()[:, None], torch.linspace(0, 1, 9).double()[:, None] ** 2
    found = loss_slice(model, nn.MSELoss(), (x, y), torch.ones(1).double(), extent=2.0, points=9)
    squares = (x * (model.weight.detach() + found.coordinates) - y) ** 2  # (9 examples, 9 points)
    torch.testing.assert_close(found.losses, squares.mean(0))
    torch.testing.assert_close(found.stderr, squares.std(0) / 3)
    matrix, error = found.curvature()
    truth = 2 * float(x.square().mean())
    assert abs(float(matrix) - truth) <= float(error) < 1e-10
    assert matrix.item() == pytest.approx(la.Hessian(model, nn.MSELoss(), (x, y)).dense().item(), rel=1e-10)


def test_curvature_holds_the_mixed_derivative_and_doubts_a_coarse_slice() -> None:
    model = dense()
    H = la.Hessian(model, nn.CrossEntropyLoss(), (X, Y))
    directions = random_directions(model, 2)
    truth = directions.T @ H.dense() @ directions
    fine = loss_slice(model, nn.CrossEntropyLoss(), (X, Y), directions, extent=0.02, points=5).curvature()
    assert bool(((fine[0] - truth).abs() <= fine[1]).all()) and float(fine[1].max()) < 1e-3 * float(truth.abs().max())
    coarse = loss_slice(model, nn.CrossEntropyLoss(), (X, Y), directions, extent=4.0, points=5).curvature()
    assert float(coarse[1].max()) > 100 * float(fine[1].max())
    three = loss_slice(model, nn.CrossEntropyLoss(), (X, Y), directions, extent=0.02, points=3).curvature()
    assert bool(three[1].isinf().all())


def test_the_model_is_untouched_to_the_bit_in_every_mode() -> None:
    model = convolutional().train()
    before = copy.deepcopy(model.state_dict())
    model[0].weight.grad = torch.ones_like(model[0].weight)
    for statistics in ("frozen", "batch"):
        loss_slice(model, nn.CrossEntropyLoss(), (X, Y), random_directions(model), points=3, batch_stats=statistics)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[3] is not None and model[4].weight.grad is None


def test_batch_statistics_follow_the_parameters() -> None:
    model = convolutional()
    directions = random_directions(model)
    options: Any = {"extent": 1.0, "points": 3}
    found = loss_slice(model.train(), nn.CrossEntropyLoss(), (X, Y), directions, batch_stats="batch", **options)
    torch.testing.assert_close(found.losses, by_hand(model, directions, found.coordinates))
    assert found.stderr is None and found.unit == "batches"


def test_ragged_batches_and_stacks_of_any_size_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss = dense(), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 5]).double(), ignore_index=1)
    directions = random_directions(model)
    whole = loss_slice(model, loss, (X, Y), directions, points=9)
    ragged = loss_slice(model, loss, [(X[:5], Y[:5]), (X[5:], Y[5:])], directions, points=9)
    torch.testing.assert_close(whole.losses, ragged.losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.stderr, ragged.stderr, rtol=1e-10, atol=0)
    for name, value in (("_MOST", 7), ("_SMALL", 0)):
        monkeypatch.setattr(engine, name, value)
        other = loss_slice(model, loss, (X, Y), directions, points=9)
        torch.testing.assert_close(whole.losses, other.losses, rtol=1e-12, atol=0)


def test_what_overflows_away_from_the_centre_stays_and_is_counted() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    data = torch.ones(2, 1), torch.zeros(2, 1)
    found = loss_slice(model, lambda o, t: torch.log(o).mean(), data, torch.ones(1), extent=2.0, points=5)
    assert found.losses.isfinite().tolist() == [False, False, True, True, True]
    assert "2" in repr(found) and "finite" in repr(found)


def test_a_record_gives_the_slice_back_and_a_plot_shows_it() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib.figure import Figure

    model = dense()
    for directions in (random_directions(model, 1), random_directions(model, 2)):
        found = loss_slice(model, nn.CrossEntropyLoss(), (X, Y), directions, points=5)
        again = LossSlice.from_dict(found.to_dict())
        assert torch.equal(again.losses, found.losses) and torch.equal(again.stderr, found.stderr)
        ax = found.plot(Figure().add_subplot())
        assert ax.get_xlabel() and ax.get_ylabel()


CASES: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "even points": (dict(points=4), ArgumentError, ["points", "odd", "4"]),
    "no points": (dict(points=True), ArgumentError, ["points"]),
    "extent": (dict(extent=0.0), ArgumentError, ["extent", "> 0"]),
    "infinite extent": (dict(extent=float("inf")), ArgumentError, ["extent"]),
    "three directions": (dict(directions=torch.ones(103, 3)), OperandError, ["one direction or two", "3"]),
    "length": (dict(directions=torch.ones(7)), OperandError, ["(103,)", "(7,)"]),
    "zero": (dict(directions=[torch.ones(103), torch.zeros(103)]), OperandError, ["directions[1]", "non-zero"]),
    "nan": (dict(directions=torch.full((103,), torch.nan)), OperandError, ["finite"]),
    "a word": (dict(directions="filter"), OperandError, ["one direction or two", "str"]),
    "loss at the model": (dict(loss=lambda o, t: (o / 0.0).mean()), LossError, ["finite"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_with_a_remedy(case: str) -> None:
    change, kind, fragments = CASES[case]
    options = dict(loss=nn.CrossEntropyLoss(), directions=torch.ones(103)) | change
    with pytest.raises(kind) as caught:
        loss_slice(dense(), options.pop("loss"), (X, Y), **options)
    assert [part for part in fragments if part not in str(caught.value)] == []
