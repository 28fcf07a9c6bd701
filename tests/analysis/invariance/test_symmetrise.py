"""Averages over groups, frames and energy splits against sums written out by hand and closed forms."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lemmata.analysis.errors import ArgumentError, CapacityError, ModelStateError, NumericsError, OperandError
from lemmata.analysis.invariance import actions
from lemmata.analysis.invariance.frames import canonicalise, principal_axes, sorting
from lemmata.analysis.invariance.invariance_split import InvarianceSplit, invariance_split
from lemmata.analysis.invariance.symmetrise import inverse, orbit, symmetrise


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def net(seed: int, n: int, m: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(n, 16), nn.Tanh(), nn.Linear(16, m)).double()


# Averages


def test_average_over_all_orders() -> None:
    model, x = net(0, 3, 2), draw(1, 5, 3)
    by_hand = torch.stack([model(x[:, list(p)]) for p in permutations(range(3))]).mean(0)
    mean = symmetrise(model, actions.permutations(3))
    assert torch.allclose(mean(x), by_hand, atol=1e-15)
    assert torch.allclose(mean(x[:, [2, 0, 1]]), mean(x), atol=1e-15)
    assert not torch.allclose(model(x[:, [2, 0, 1]]), model(x), atol=1e-3)
    twice = symmetrise(mean, actions.permutations(3))
    assert torch.allclose(twice(x), mean(x), atol=1e-15)  # a projection


@pytest.mark.parametrize("known", [True, False])
def test_equivariant_average_of_a_linear_map(known: bool) -> None:
    """Its matrix is averaged along the diagonals of the torus."""
    W, n = draw(2, 5, 5), 5
    shifts = actions.cyclic_shifts(n, outputs="same")
    if not known:
        shifts = actions.finite("shifts", range(n), lambda g, x: x.roll(g, 1), outputs="same")
    mean = symmetrise(lambda x: x @ W.T, shifts)
    diagonals = torch.stack([W.roll((-j, -j), (0, 1)) for j in range(n)]).mean(0)
    x = draw(3, 4, n)
    assert torch.allclose(mean(x), x @ diagonals.T, atol=1e-14)
    assert torch.allclose(mean(x.roll(2, 1)), mean(x).roll(2, 1), atol=1e-14)


def test_sampled_average_has_an_interval() -> None:
    """E f(Qx) for f = (first coordinate)² over rotations of the plane: |x|²/2."""
    x = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    covered = 0
    for seed in range(30):
        mean = symmetrise(lambda x: x[:, 0, :1] ** 2, actions.motions(2, shifts=0.0), draws=16, seed=seed)
        found = mean.average(x, tol=0.1)
        low, high = found.interval()
        covered += bool(low <= 12.5 <= high)
        assert found.converged and not found.exact and float(high - low) < 0.2 * 12.5 * 1.1
    assert covered >= 25  # of 30; with 95 % coverage fewer have a chance of 0.3 %
    short = mean.average(x, tol=1e-4, most=32)
    assert not short.converged and short.elements == 32
    exact = symmetrise(lambda x: x[:, 0], actions.permutations(2)).average(torch.tensor([[1.0, 3.0]]))
    assert exact.exact and exact.interval()[0].tolist() == exact.interval()[1].tolist() == [2.0]


def test_average_of_a_model_with_gradients_and_of_a_constant_image() -> None:
    """Parameters that require gradients do no harm; on a blank image the average over turns is still that over turns."""
    model, x = net(20, 2, 1), torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)
    found = symmetrise(lambda x: model(x[:, 0]), actions.motions(2, shifts=0.0), draws=16).average(x)
    assert not found.value.requires_grad and torch.isfinite(found.stderr).all()
    turns = actions.finite("turns", (0, 1, 2, 3), lambda g, x: x.rot90(g, (-2, -1)), outputs="same")
    ramp, blank = torch.arange(9.0).view(1, 3, 3), torch.ones(1, 3, 3)
    mean = symmetrise(lambda x: x * ramp, turns)(blank)
    assert torch.allclose(mean, torch.stack([ramp.rot90(g, (-2, -1)) for g in range(4)]).mean(0))
    assert [inverse(turns, g, blank) for g in range(4)] == [0, 3, 2, 1]


def test_training_the_average_trains_the_model() -> None:
    model = net(4, 3, 1)
    symmetrise(model, actions.permutations(3))(draw(5, 2, 3)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


# Orbits


def test_orbit_of_images_and_targets() -> None:
    x, y = draw(6, 2, 1, 3, 3), draw(7, 2, 1, 3, 3)
    turned, moved = orbit(x, actions.rotations(4, outputs="same"), y)
    assert turned.shape == (8, 1, 3, 3)
    assert torch.equal(turned[2:4], x.rot90(1, (-2, -1))) and torch.equal(moved[4:6], y.rot90(2, (-2, -1)))
    few, none = orbit(x, actions.rotations(4), draws=3)
    assert len(few) == 6 and none is None


# Frames


def test_sorted_sets_do_not_mind_the_order() -> None:
    x = torch.randint(2, (4, 6, 2), generator=torch.Generator().manual_seed(8)).double()  # six of four kinds: with ties
    flat = net(9, 12, 3)
    whole = canonicalise(lambda s: flat(s.flatten(1)), sorting())
    order = [3, 5, 0, 1, 4, 2]
    assert torch.equal(whole(x[:, order]), whole(x))
    assert not torch.allclose(flat(x[:, order].flatten(1)), flat(x.flatten(1)), atol=1e-3)
    rows = canonicalise(lambda s: flat(s.flatten(1))[:, :1, None] * s.cumsum(1), sorting(), outputs="same")
    assert torch.allclose(rows(x[:, order]), rows(x)[:, order], atol=1e-14)  # equal elements share what they get
    twins = [[i for i in range(6) if torch.equal(x[0, i], x[0, j])] for j in range(6)]
    found = rows(x)[0]
    assert all(torch.allclose(found[i], found[j], atol=1e-15) for j in range(6) for i in twins[j])
    assert max(map(len, twins)) > 1
    x = draw(10, 4, 6, 2)
    assert torch.allclose(rows(x[:, order]), rows(x)[:, order], atol=1e-14)
    listed = [sorted(map(tuple, s.tolist())) for s in x]
    assert sorting().views(x)[0][0].tolist() == [[list(e) for e in s] for s in listed]


def test_principal_axes_do_not_mind_motions() -> None:
    x, flat = draw(11, 3, 7, 3), net(12, 21, 21)
    turn, shift = torch.linalg.qr(draw(13, 3, 3))[0], draw(14, 3)
    moved = x @ turn.T + shift
    number = canonicalise(lambda c: flat(c.flatten(1)), principal_axes())
    assert torch.allclose(number(moved), number(x), atol=1e-12)
    points = canonicalise(lambda c: flat(c.flatten(1)).view_as(c), principal_axes(), outputs="same")
    assert torch.allclose(points(moved), points(x) @ turn.T + shift, atol=1e-12)
    one = canonicalise(lambda c: c, principal_axes(), outputs="same")
    assert torch.allclose(one(x), x, atol=1e-13)  # what is symmetric already stays
    view = principal_axes().views(x)[0][0]  # a single sign is no frame
    assert not torch.allclose(view, principal_axes().views(moved)[-1][0], atol=1e-3)


# Energies


def test_split_of_a_linear_function() -> None:
    """w·x under all orders: the mean weight times the sum, and the rest; orbit by orbit, by hand."""
    w, x = draw(15, 4), draw(16, 30, 4)
    found = invariance_split(lambda x: x @ w, x, actions.permutations(4))
    orbit = torch.stack([x[:, list(p)] @ w for p in permutations(range(4))])
    assert float(found.symmetric) == pytest.approx(float((w.mean() * x.sum(1)).square().mean()), rel=1e-13)
    assert float(found.rest) == pytest.approx(float(orbit.var(0, correction=0).mean()), rel=1e-12)
    assert float(found.symmetric) + float(found.rest) == pytest.approx(float(orbit.square().mean()), rel=1e-13)
    assert found.exact and found.elements == 24 and found.examples == 30
    again = InvarianceSplit.from_dict(found.to_dict())
    assert again == found and repr(again) == repr(found) and "not symmetric" in repr(found)
    assert len(found.plot().patches) == 2


def test_split_covers_the_truth_over_examples() -> None:
    """Normal inputs: ‖Qf‖² is Σ (mean w)² = 3 · mean², ‖f‖² is |w|²."""
    w = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    truth = 1 - 3 * (2 / 3) ** 2 / 6
    runs = [invariance_split(lambda x: x @ w, draw(s, 60, 3), actions.permutations(3)) for s in range(40)]
    assert sum(r.share.interval()[0] <= truth <= r.share.interval()[1] for r in runs) >= 33
    assert all(0.01 < r.share.interval()[1] - r.share.interval()[0] < 0.4 for r in runs)


def test_split_of_a_sampled_group() -> None:
    """f = 1 + x₁² on the unit circle turned at random: mean 3/2, variance 1/8."""
    x = torch.nn.functional.normalize(draw(17, 100, 1, 2), dim=-1)
    rotations = actions.motions(2, shifts=0.0)
    runs = [invariance_split(lambda x: 1 + x[:, 0, 0] ** 2, x, rotations, tol=0.02, seed=s) for s in range(20)]
    truth = 0.125 / (2.25 + 0.125)
    assert sum(r.share.interval()[0] <= truth <= r.share.interval()[1] for r in runs) >= 15
    assert all(r.converged and not r.exact and r.elements % 16 == 0 for r in runs)
    hard = invariance_split(lambda x: 1 + x[:, 0, 0] ** 2, x, rotations, tol=1e-6, most=32)
    assert not hard.converged and hard.elements == 32 and "not converged" in repr(hard)
    assert not hard.share.converged and runs[3].share.converged and runs[3].share.seed == 3


def test_split_leaves_the_model_alone_and_takes_complex_outputs() -> None:
    x, signs = draw(21, 40, 3), actions.signs("invariant")
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelStateError, match=r"BatchNorm1d.*eval\(\)"):
        invariance_split(model, x, signs)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    half = invariance_split(lambda x: torch.complex(x.abs(), x), x, signs)  # even in its real part, odd in the other
    assert float(half) == pytest.approx(0.5)


def test_symmetric_and_odd_functions() -> None:
    x, signs = draw(18, 12, 3), actions.signs("invariant")
    assert float(invariance_split(lambda x: x.square(), x, signs)) == 0
    assert float(invariance_split(lambda x: x**3, x, signs)) == pytest.approx(1)
    assert float(invariance_split(lambda x: x**3, x, actions.signs("same"))) == pytest.approx(0, abs=1e-15)
    assert float(invariance_split(lambda x: 0 * x, x, signs)) == 0
    single = invariance_split(lambda x: x[:, 0] + 1, x[:1], signs)
    assert not single.converged and single.share.interval()[1] == float("inf")


# Bad input


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: symmetrise(lambda x: x, actions.permutations(9)), CapacityError, "Pass draws=64"),
        (lambda: symmetrise(lambda x: x, actions.motions(2)), CapacityError, "canonicalise the inputs"),
        (lambda: symmetrise(lambda x: x, actions.motions(2), draws=1), ArgumentError, "draws: .*Pass draws=64"),
        (lambda: symmetrise(lambda x: x, actions.cyclic_shifts(5))(torch.ones(1, 8)), OperandError, "5 entries"),
        (
            lambda: symmetrise(lambda x: x.argmax(1), actions.permutations(3))(draw(0, 2, 3)),
            OperandError,
            "model: .*scores or probabilities",
        ),
        (
            lambda: symmetrise(lambda x: x[:, 0], actions.motions(2), draws=2).average(draw(0, 1, 1, 2), tol=-1),
            ArgumentError,
            "tol, most: .*most=1024",
        ),
        (
            lambda: symmetrise(lambda x: x[:, 0] * 1j, actions.motions(2), draws=2).average(draw(0, 1, 1, 2)),
            OperandError,
            "model: .*view_as_real",
        ),
        (lambda: orbit(torch.ones(1, 3), actions.permutations(3), draws=0), ArgumentError, "draws: .*Pass draws=64"),
        (lambda: symmetrise(nn.Dropout(), actions.signs()), ModelStateError, r"Dropout.*eval\(\)"),
        (lambda: orbit(torch.ones(1, 9), actions.permutations(9)), CapacityError, "4096"),
        (lambda: orbit(torch.ones(1, 1, 2, 3), actions.rotations(4)), OperandError, "square"),
        (lambda: canonicalise(lambda x: x, sorting(), "turned"), ArgumentError, "outputs: .*'same'"),
        (lambda: canonicalise(nn.Dropout(), sorting()), ModelStateError, "Dropout"),
        (lambda: sorting().views(torch.ones(3, 2)), OperandError, r"sorting: .*x\[None\]"),
        (lambda: principal_axes().views(torch.eye(3)[None]), NumericsError, r"symmetrise\(model, actions.motions"),
        (lambda: principal_axes().views(torch.ones(1, 4, 2).long()), OperandError, r"principal_axes: .*x.float\(\)"),
        (lambda: principal_axes().views(torch.full((1, 4, 2), torch.nan)), NumericsError, "finite coordinates.*Leave"),
        (
            lambda: canonicalise(lambda x: x.sum((1, 2))[:, None], sorting(), "same")(draw(0, 2, 3, 1)),
            OperandError,
            r"model: .*\(2, 1\).*outputs='invariant'",
        ),
        (
            lambda: invariance_split(lambda x: x[:, 0] * torch.nan, draw(0, 9, 3), actions.permutations(3)),
            NumericsError,
            "model: .*nan or infinity.*Look for overflow",
        ),
        (
            lambda: invariance_split(lambda x: x[:, 0] * 1e200, draw(0, 9, 3), actions.permutations(3)),
            NumericsError,
            "model: .*divide its outputs",
        ),
        (lambda: invariance_split(lambda x: x.mean(), draw(0, 9, 3), actions.signs()), OperandError, "row for each"),
        (lambda: invariance_split(lambda x: (x, x), draw(0, 9, 3), actions.signs()), OperandError, "model: .*tuple"),
        (lambda: invariance_split(lambda x: x, torch.ones(2, 3), actions.signs(), tol=0), ArgumentError, "tol=0.05"),
        (
            lambda: invariance_split(lambda x: x, draw(0, 2, 3, 2), actions.motions(2, outputs="same")),
            OperandError,
            "keeps norms.*shifts=0",
        ),
        (
            lambda: inverse(actions.finite("half", (0, 1), lambda g, x: x.roll(g, 1)), 1, draw(0, 1, 3)),
            OperandError,
            "half: .*Complete the group",
        ),
        (
            lambda: inverse(actions.finite("twice", range(6), lambda g, x: x.roll(g, 1)), 1, draw(0, 1, 3)),
            OperandError,
            "twice: .*undone by 2 and 5.*inverse=lambda",
        ),
    ],
)
def test_bad_input(run: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run()
