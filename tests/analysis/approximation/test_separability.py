"""Separability against brute force over random hyperplanes and subsets, scipy's own logistic optimum, and exact fractions."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from math import comb, log

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.approximation.exact import echelon, kernel_near, whole
from lemmata.analysis.approximation.halfspaces import most_right
from lemmata.analysis.errors import DataError, LemmataError

FLOAT = torch.float64
SQUARE = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=FLOAT)
XOR, AND = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 0, 1])


def drawn(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def cube(d: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=d)), dtype=FLOAT)


def separated_by_programming(x: np.ndarray, y: np.ndarray) -> bool:
    """Another linear program: y (w x + b) ≥ 1."""
    A = -y[:, None] * np.concatenate([x, np.ones((len(x), 1))], 1)
    return linprog(np.zeros(A.shape[1]), A_ub=A, b_ub=-np.ones(len(x)), bounds=(None, None)).status == 0


def best_by_subsets(x: np.ndarray, y: np.ndarray) -> int:
    """The largest subset that a hyperplane separates, by trying all of them, the large ones first."""
    for size in range(len(x), 0, -1):
        for chosen in map(list, itertools.combinations(range(len(x)), size)):
            if len(set(y[chosen])) == 1 or separated_by_programming(x[chosen], y[chosen]):
                return size
    return 0


# Exact arithmetic


def test_echelon_against_numpy() -> None:
    matrix = drawn(4, 4, 0).numpy()
    _, pivots, determinant = echelon(matrix.tolist())
    assert pivots == [0, 1, 2, 3] and float(determinant) == pytest.approx(np.linalg.det(matrix), rel=1e-12)
    matrix[3] = matrix[0] * 2 - matrix[1]  # in floats only nearly dependent: exact arithmetic says so
    assert abs(float(echelon(matrix.tolist())[2])) < 1e-14
    swapped = echelon([[0.0, 1.0], [1.0, 0.0]])[2]
    assert swapped == -1 and echelon([[1.0, 2.0], [2.0, 4.0]])[1:] == ([0], Fraction(0))


def test_kernel_is_exact_and_near_the_guess() -> None:
    matrix = np.array([[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]])
    found = kernel_near(matrix, np.array([1.0, -2.0, 1.0]))
    for row in matrix.tolist():
        assert sum(Fraction(a) * v for a, v in zip(row, found, strict=True)) == 0
    assert np.allclose([float(v) for v in found], [1.0, -2.0, 1.0])


def test_points_become_whole_without_loss() -> None:
    x = np.array([[0.1, 1000.0], [-3.0, 1000.0 + 2.0**-40], [2.0**-20, 999.0]])
    found = whole(x)
    for i, j, a, b in itertools.product(range(3), range(3), range(2), range(2)):
        one, other = (Fraction(x[k, c]) - Fraction(x[0, c]) for k, c in ((i, a), (j, b)))
        assert found[i, a] * other == found[j, b] * one  # all in one unit


# Half-spaces


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["general", "lattice", "collinear", "repeated"])
def test_the_best_half_space_by_all_subsets(kind: str, seed: int) -> None:
    draws = np.random.default_rng(seed)
    x = {
        "general": draws.normal(size=(8, 2)),
        "lattice": draws.integers(0, 3, (8, 2)).astype(float),
        "collinear": 1.0 + np.outer(draws.integers(0, 6, 8), [1.0, 2.0]),
        "repeated": np.repeat(draws.normal(size=(4, 2)), 2, 0),
    }[kind]
    y = np.where(draws.random(8) < 0.5, 1, -1)
    assert most_right(x, y) == best_by_subsets(x, y)


def test_points_a_hair_beside_a_line_count_as_beside_it() -> None:
    """The middle one of three is 2⁻⁵² above their line: in exact arithmetic it can be cut off, on the line it cannot."""
    x = np.array([[0.0, 0.0], [1.0, 2.0**-52], [2.0, 0.0]])
    y = np.array([1, -1, 1])
    assert most_right(x, y) == 3
    assert most_right(x * [1.0, 0.0], y) == 2


@pytest.mark.parametrize("d", [2, 3, 4])
def test_parity_has_the_known_ceiling(d: int) -> None:
    x = cube(d)
    found = la.separability(x, x.sum(1) % 2)
    known = 0.5 + comb(d - 1, (d - 1) // 2) / 2**d
    assert found.accuracy == (known, known) and found.cross_entropy[0] == pytest.approx(log(2), abs=1e-12)


def test_beyond_enumeration_the_bounds_enclose_what_others_find() -> None:
    x = drawn(400, 3, 1)
    labels = x[:, 0] + drawn(400, 1, 2)[:, 0] > 0
    low, high = la.separability(x, labels).accuracy
    directions = drawn(3, 3000, 3)
    heights = x @ directions
    cuts = torch.linspace(-1, 1, 9, dtype=FLOAT)[:, None, None]
    right = ((heights > cuts) == labels[:, None]).double().mean(1).max()
    assert right <= high < 1 and 0.5 < low <= high


# Separability


@pytest.mark.parametrize("seed", range(8))
def test_both_verdicts_by_another_program(seed: int) -> None:
    n = 6 if seed % 2 else 12
    x, labels = drawn(n, 3, seed), drawn(n, 1, seed + 50)[:, 0] > 0
    labels[0], labels[1] = True, False
    y = np.where(labels.numpy(), 1.0, -1.0)
    found = la.separability(x, labels)
    assert found.separable == separated_by_programming(x.numpy(), y) and found.converged
    if found.separable:
        f = y * (x.numpy() @ found.normal.numpy() + found.offset)
        assert f.min() / found.normal.norm().item() == pytest.approx(found.margin) and found.margin > 0
    else:
        balance = (found.witness.numpy() * y) @ np.concatenate([x.numpy(), np.ones((n, 1))], 1)
        assert np.abs(balance).max() < 1e-14 and found.residual == 0 and found.witness.sum().item() == pytest.approx(2)
        assert (found.witness >= 0).all() and (found.witness > 0).sum() <= 5


def test_xor_is_proved_and_and_is_not() -> None:
    found = la.separability(SQUARE, XOR)
    assert found.witness.tolist() == [0.5] * 4 and found.residual == 0 and found.margin <= 0
    assert "Weights on 4 points" in found.argument and "0.75" in repr(found)
    easy = la.separability(SQUARE, AND)
    assert easy.separable and easy.margin > 0.3 and easy.cross_entropy == (0.0, 0.0) and not easy.witness.any()


def test_the_verdict_does_not_depend_on_units() -> None:
    for scale, shift in ((1e-9, 1e3), (1e12, -5.0), (1e-200, 0.0), (1e200, 0.0)):
        assert not la.separability(SQUARE * scale + shift, XOR).separable
        assert la.separability(SQUARE * scale + shift, AND).separable


def test_a_long_witness_has_a_residual() -> None:
    x, labels = drawn(200, 45, 0), drawn(200, 1, 1)[:, 0] > 0
    found = la.separability(x, labels)
    y = np.where(labels.numpy(), 1.0, -1.0)
    balance = (found.witness.numpy() * y) @ np.concatenate([x.numpy(), np.ones((200, 1))], 1)
    assert not found.separable and found.converged and (found.witness > 0).sum() > 40
    assert found.residual == pytest.approx(np.abs(balance).max()) and found.residual < 1e-12
    assert found.accuracy[0] < 1 and found.accuracy[1] < 1


def test_touching_hulls_are_not_separable_and_lose_one_bit() -> None:
    """One place with both labels, and points on either side: the loss of two points stays, that of the others vanishes."""
    x = torch.tensor([[-1.0], [0.0], [0.0], [1.0], [2.0]], dtype=FLOAT)
    found = la.separability(x, torch.tensor([0, 0, 1, 1, 1]))
    assert not found.separable and found.accuracy == (0.8, 0.8) and found.residual == 0
    assert found.cross_entropy[0] == pytest.approx(2 * log(2) / 5, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_floor_of_the_loss_by_another_optimiser(seed: int) -> None:
    x, labels = drawn(60, 2, seed), drawn(60, 1, seed + 9)[:, 0] > 0
    y = np.where(labels.numpy(), 1.0, -1.0)
    A = np.concatenate([x.numpy(), np.ones((60, 1))], 1) * y[:, None]
    truth = minimize(lambda t: np.logaddexp(0, -A @ t).mean(), np.zeros(3), method="BFGS").fun
    low, high = la.separability(x, labels).cross_entropy
    assert low <= truth + 1e-9 and high == pytest.approx(truth, abs=1e-8) and high - low < 1e-9


def test_the_check_catches_what_is_not_affine() -> None:
    found = la.separability(SQUARE, XOR)
    affine = SQUARE @ torch.tensor([0.3, -0.2], dtype=FLOAT) + 0.1
    assert found.check(affine).passed
    folded = 10 * ((SQUARE[:, 0] - SQUARE[:, 1]).abs() - 0.5)
    audit = found.check(folded)
    assert not audit.passed and [row.verdict for row in audit.checks] == ["failed", "failed"]


def test_a_record_comes_back() -> None:
    found = la.separability(SQUARE, XOR)
    again = la.Separability.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) and torch.equal(again.witness, found.witness) and again.accuracy == found.accuracy


@pytest.mark.parametrize(
    ("points", "labels", "name", "remedy"),
    [
        (torch.zeros(4), XOR, "points", "points.flatten(1)"),
        (torch.zeros(0, 2), XOR[:0], "points", "points.flatten(1)"),
        (SQUARE * torch.nan, XOR, "points", "Leave out"),
        (SQUARE, XOR[:3], "labels", "one label for each point"),
        (SQUARE, torch.tensor([0, 1, 2, 0]), "labels", "labels == k"),
        (SQUARE, torch.zeros(4), "labels", "labels == k"),
    ],
)
def test_bad_input_is_refused(points: Tensor, labels: Tensor, name: str, remedy: str) -> None:
    with pytest.raises(DataError) as caught:
        la.separability(points, labels)
    assert isinstance(caught.value, LemmataError) and caught.value.name == name and remedy in str(caught.value)


def test_bad_logits_are_refused() -> None:
    found = la.separability(SQUARE, XOR)
    with pytest.raises(DataError, match="model"):
        found.check(torch.zeros(4, 1))
    with pytest.raises(DataError, match="logits"):
        found.check(torch.full((4,), torch.nan))


@pytest.mark.parametrize("gap", [1e-4, 1e-7, 1e-10])
def test_a_ceiling_is_no_lower_than_what_a_hyperplane_has_right(gap: float) -> None:
    """All points but one of a pair with both labels are on their sides, by less than a linear program can see."""
    x = drawn(250, 4, seed=0)
    y = x[:, 0].sign()
    x[:, 0] = gap * y
    pair = torch.tensor([[0.3, 0.0, 0.0, 0.0]] * 2, dtype=FLOAT)
    found = la.separability(torch.cat([x, pair]), torch.cat([y, torch.tensor([1.0, -1.0], dtype=FLOAT)]))
    assert not found.separable and found.accuracy[0] <= 251 / 252 <= found.accuracy[1]
    assert found.accuracy[1] == 251 / 252 or not found.converged
