"""Morse indices of the linear autoencoder, in closed form, and critical points found from nearby."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.curvature.saddles import MorseIndex, critical_point, morse_index
from lemmata.analysis.errors import ArgumentError, NumericsError

SPREAD = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0], dtype=torch.float64)  # variances along the axes
SUBSETS = {(0, 1): 0, (0, 2): 1, (1, 2): 2, (0, 4): 3, (3, 4): 6}


def data() -> tuple[Tensor, Tensor]:
    """Five points whose second moment is diag(SPREAD)."""
    x = torch.diag((5 * SPREAD).sqrt())
    return x, x


def half_square(output: Tensor, target: Tensor) -> Tensor:
    """½ E‖y − x‖²."""
    return (output - target).square().sum(1).mean() / 2


def autoencoder(subset: tuple[int, ...], seed: int = 0) -> nn.Module:
    """The critical point of a subset of principal axes, in a random basis of the code."""
    model = nn.Sequential(nn.Linear(5, 2, bias=False), nn.Linear(2, 5, bias=False)).double()
    axes = torch.eye(5, dtype=torch.float64)[:, list(subset)]
    mix = torch.eye(2).double() + 0.3 * torch.randn(2, 2, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        model[1].weight.copy_(axes @ mix)
        model[0].weight.copy_(torch.linalg.inv(mix) @ axes.T)
    return model


def downhill(subset: tuple[int, ...]) -> int:
    """Baldi & Hornik's index: pairs of a chosen axis and a larger one that was not."""
    return sum(SPREAD[j] > SPREAD[i] for i in subset for j in range(5) if j not in subset)


@pytest.mark.parametrize("subset", SUBSETS)
def test_indices_of_the_linear_autoencoder(subset: tuple[int, ...]) -> None:
    H = la.Hessian(autoencoder(subset), half_square, data())
    assert float(H.gradient.norm()) < 1e-12
    assert H.value == pytest.approx(float(SPREAD.sum() - SPREAD[list(subset)].sum()) / 2)
    index = morse_index(H)
    assert index.negative == SUBSETS[subset] == downhill(subset)
    assert index.zero == 4  # the changes of basis of the code
    assert index.certified and index.positive == 16 - index.negative and index.bound < 1e-10


@pytest.mark.parametrize("subset", SUBSETS)
def test_critical_points_are_found_from_nearby(subset: tuple[int, ...]) -> None:
    start = autoencoder(subset)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in start.parameters():
            part += 0.05 * torch.randn(part.shape, generator=generator, dtype=torch.float64)
    before = [part.clone() for part in start.parameters()]
    assert float(la.Hessian(start, half_square, data()).gradient.norm()) > 1e-2
    point = critical_point(start, half_square, data())
    assert point.converged and point.gradient_norm <= point.tolerance < 1e-9, point
    assert point.loss == pytest.approx(float(SPREAD.sum() - SPREAD[list(subset)].sum()) / 2, rel=1e-9)
    assert point.newton_step < 1e-9
    assert all(torch.equal(a, b) for a, b in zip(before, start.parameters(), strict=True))
    H = la.Hessian(point.model, half_square, data())
    assert float(H.gradient.norm()) == pytest.approx(point.gradient_norm, rel=0.5, abs=1e-14)
    assert morse_index(H).negative == SUBSETS[subset]


def test_a_tanh_network_reaches_a_critical_point() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1))
    x = torch.linspace(-1, 1, 9)[:, None]
    point = critical_point(model, nn.MSELoss(), (x, x.square()), tol=1e-9, max_steps=400)
    assert point.converged and next(point.model.parameters()).dtype == torch.float64
    H = la.Hessian(point.model, nn.MSELoss(), (x.double(), x.double().square()))
    truth = np.linalg.eigvalsh(H.dense().numpy())
    index = morse_index(H, zero=1e-6)
    cut = 1e-6 * np.abs(truth).max()
    assert (index.negative, index.positive) == (int((truth < -cut).sum()), int((truth > cut).sum()))


def test_where_the_gradient_is_flat_but_not_zero_no_critical_point_is_claimed() -> None:
    class Sloped(nn.Module):
        """L = x + x³/3, which has no critical point; |L′| = 1 + x² has its minimum at 0."""

        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.tensor([0.7]))

        def forward(self, scale: Tensor) -> Tensor:
            return scale * (self.x + self.x**3 / 3)

    point = critical_point(Sloped(), lambda output, target: output.mean(), (torch.ones(1), torch.ones(1)))
    assert not point.converged and "not converged" in repr(point)
    assert point.gradient_norm == pytest.approx(1, abs=1e-3)


def planted(values: list[float], seed: int = 0) -> la.Dense:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    matrix = basis * np.array(values) @ basis.T
    return la.Dense(torch.from_numpy((matrix + matrix.T) / 2))


def test_dense_bound_holds_and_is_small() -> None:
    values = sorted([-3.0, -1e-3, 0, 0, 1e-12, 1e-3, 2, 2, 5, 100])
    index = morse_index(planted(values))
    assert (index.negative, index.zero, index.positive, index.undecided) == (2, 3, 5, 0)
    assert np.abs(index.values.numpy() - values).max() <= index.bound < 1e-10


def test_an_eigenvalue_on_the_threshold_is_undecided() -> None:
    index = morse_index(planted([1e-3, -1.0, 1.0]), zero=1e-3)
    assert (index.negative, index.zero, index.positive, index.undecided) == (1, 0, 1, 1) and not index.certified


def test_asymmetric_products_widen_the_bound() -> None:
    class Skew(la.Dense):
        def _multiply(self, vectors: Tensor) -> Tensor:
            return vectors @ (self.matrix + 1e-2 * torch.ones_like(self.matrix).triu(1))

    index = morse_index(Skew(torch.diag(torch.tensor([5e-3, -1.0, 1.0]).double())))
    assert index.bound > 1e-2 and index.undecided == 1


def test_large_operators_give_lower_bounds_and_say_what_is_open() -> None:
    diagonal = torch.cat([-torch.linspace(5, 10, 6), torch.linspace(20, 30, 8), torch.linspace(-1, 1, 2500)]).double()

    class Diagonal(la.Operator):
        layout, dtype, device = la.Layout(("x",), ((len(diagonal),),)), torch.float64, torch.device("cpu")

        def _multiply(self, vectors: Tensor) -> Tensor:
            return vectors * diagonal

        def plan(self, k: int = 1) -> la.Plan:
            return la.Plan("", k, 0.0, 0)

    index = morse_index(Diagonal(), k=6)
    assert (index.negative, index.zero, index.positive) == (6, 0, 6) and index.undecided == 2502
    assert index.method == "Lanczos" and not index.certified
    rough = morse_index(Diagonal(), k=3, max_steps=6)  # pairs with wide intervals decide nothing
    assert rough.negative + rough.positive < 6 and rough.negative + rough.positive + rough.undecided == len(diagonal)


def test_float32_threshold_is_coarser() -> None:
    H = la.Hessian(autoencoder((1, 2)), half_square, data(), dtype=torch.float32)
    index = morse_index(H)
    assert index.negative == 2 and index.zero == 4 and index.threshold > 1e-4


def test_record_plot_and_errors() -> None:
    index = morse_index(planted([1.0, -1.0, 0.0]))
    again = MorseIndex.from_dict(index.to_dict())
    assert repr(again) == repr(index) and "1 negative, 1 zero, 1 positive" in repr(index)
    assert index.plot().get_ylabel() == "eigenvalue"
    with pytest.raises(ArgumentError, match="zero"):
        morse_index(planted([1.0]), zero=2)
    big = nn.Linear(50, 50)
    with pytest.raises(ArgumentError, match="params=…"):
        critical_point(big, nn.MSELoss(), (torch.zeros(2, 50), torch.zeros(2, 50)))
    with pytest.raises(ArgumentError, match="tol"):
        critical_point(big, nn.MSELoss(), (torch.zeros(2, 50), torch.zeros(2, 50)), tol=0)
    with pytest.raises(ArgumentError, match="max_steps"):
        critical_point(big, nn.MSELoss(), (torch.zeros(2, 50), torch.zeros(2, 50)), max_steps=0)

    class Nan(la.Dense):
        def _multiply(self, vectors: Tensor) -> Tensor:
            return vectors * float("nan")

    with pytest.raises(NumericsError, match="float64"):
        morse_index(Nan(torch.eye(3)))
