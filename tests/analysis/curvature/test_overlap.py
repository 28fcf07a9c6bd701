"""Gradient and eigenspace overlaps against known vectors and numpy, their intervals, and the jackknife over batches."""

from __future__ import annotations

import json
from dataclasses import replace
from math import pi

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.curvature.eigenspace import Eigenspace, EigenspaceOverlap, eigenspace, eigenspace_overlap
from lemmata.analysis.curvature.overlap import GradientOverlap, gradient_overlap
from lemmata.analysis.errors import ArgumentError, NumericsError, OperandError
from lemmata.analysis.jackknife import jackknife

MSE = nn.MSELoss()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def symmetric(values: list[float], seed: int) -> tuple[la.Dense, np.ndarray]:
    """A matrix of known eigenvalues and eigenvectors (columns)."""
    vectors = ortho_group.rvs(len(values), random_state=seed)
    matrix = (vectors * np.array(values)) @ vectors.T
    return la.Dense(torch.from_numpy((matrix + matrix.T) / 2)), vectors


def test_overlap_of_known_vectors() -> None:
    A, vectors = symmetric([5.0, 4.0, 1.0, 0.5, -2.0, -6.0], 0)
    gradient = torch.from_numpy(vectors @ np.array([1.0, 2.0, 0.0, 2.0, 4.0, 0.0]))
    found = gradient_overlap(A, 2, gradient, tol=1e-8)
    assert found.value == pytest.approx(5 / 25, abs=1e-9) and found.chance == 2 / 6
    assert found.shares.tolist() == pytest.approx([1 / 25, 4 / 25], abs=1e-9)
    assert found.low <= 0.2 + 1e-12 and found.high >= 0.2 - 1e-12 and found.high - found.low < 1e-6
    assert found.value != pytest.approx(np.sqrt(5 / 25), abs=1e-2)  # a share of squares, not of norms
    assert gradient_overlap(A, 1, gradient, which="smallest", tol=1e-8).value == pytest.approx(0, abs=1e-9)
    assert gradient_overlap(A, 2, gradient, which="magnitude", tol=1e-8).value == pytest.approx(1 / 25, abs=1e-9)
    assert gradient_overlap(A, 6, gradient, which="smallest").value == pytest.approx(1)
    assert gradient_overlap(A, 1, 7 * gradient, tol=1e-8).value == pytest.approx(1 / 25, abs=1e-9)
    assert found.data_stderr is None and found.batches == 0


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_interval_holds_the_exact_share_where_the_eigenpairs_are_rough(which: str) -> None:
    values = np.concatenate([[9.0, 7.5, 6.0], np.linspace(-3, 3, 57), [-4.0, -5.0]])
    misses, told = [], 0
    for seed in range(12):
        A, vectors = symmetric(values.tolist(), seed)
        order = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which].argsort()
        gradient = np.random.default_rng(seed).normal(size=len(values)) + 8 * vectors[:, order[:2]].sum(1)
        truth = float(((vectors[:, order[:2]].T @ gradient) ** 2).sum() / (gradient**2).sum())
        found = gradient_overlap(A, 2, torch.from_numpy(gradient), which, tol=0.05)
        assert found.low - 1e-12 <= truth <= found.high + 1e-12
        misses.append(abs(found.value - truth))
        told += found.angle < pi / 2
        space = eigenspace(A, 2, which, tol=0.05)
        overlap = vectors[:, order[:2]].T @ space.basis.numpy()
        assert np.arccos(min(1, np.linalg.svd(overlap)[1].min())) <= space.angle + 1e-7
    assert max(misses) > 1e-4  # an interval of no width would fail here
    assert told >= 6  # and one of [0, 1] is not what was given


def test_a_space_that_is_not_separated_says_so() -> None:
    A, _ = symmetric([3.0, 2.0, 2.0, 1.0], 0)
    gradient = torch.ones(4, dtype=torch.float64)
    found = gradient_overlap(A, 2, gradient)
    assert (found.low, found.angle) == (pytest.approx(0, abs=1e-30), pi / 2) and found.high == 1
    assert gradient_overlap(A, 3, gradient).angle < 1e-3
    rough = gradient_overlap(symmetric(np.linspace(1, 2, 60).tolist(), 1)[0], 2, torch.ones(60).double(), max_steps=4)
    assert not rough.converged and rough.angle == pi / 2 and "not converged" in repr(rough)


def batches(sizes: list[int], width: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(n, width).double(), torch.randn(n, 1).double()) for n in sizes]


@pytest.mark.parametrize("total", [False, True])
def test_jackknife_is_that_of_leaving_each_batch_out(total: bool) -> None:
    model, data = nn.Linear(6, 1, bias=False).double(), batches([4, 4, 4, 4, 4], 6)
    H = la.Hessian(model, nn.MSELoss(reduction="sum") if total else MSE, data)
    found = gradient_overlap(H, 2, tol=1e-8)
    w = model.weight.detach().numpy()[0]
    X, y = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*data, strict=True))
    top = np.linalg.eigh(X.T @ X)[1][:, -2:]

    def share(kept: np.ndarray) -> float:
        g = X[kept].T @ (X[kept] @ w - y[kept, 0])
        return float(((top.T @ g) ** 2).sum() / (g @ g))

    left = np.array([share(np.arange(20) // 4 != b) for b in range(5)])
    assert found.value == pytest.approx(share(np.arange(20) >= 0), abs=1e-8)
    assert found.data_stderr == pytest.approx(np.sqrt(4 / 5 * ((left - left.mean()) ** 2).sum()), rel=1e-6)
    assert found.batches == 5
    one = gradient_overlap(la.Hessian(model, MSE, data[0]), 2)
    assert one.data_stderr is None and one.batches == 1


def test_ragged_batches_weigh_by_their_size() -> None:
    model, data = nn.Linear(6, 1, bias=False).double(), batches([3, 9, 5], 6)
    found = gradient_overlap(la.GGN(model, MSE, data), 2, tol=1e-8)
    w = model.weight.detach().numpy()[0]
    X, y = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*data, strict=True))
    group, sizes = np.repeat([0, 1, 2], [3, 9, 5]), np.array([3.0, 9.0, 5.0])
    top = np.linalg.eigh(X.T @ X)[1][:, -2:]
    values = []
    for b in (0, 1, 2, None):
        g = X[group != b].T @ (X[group != b] @ w - y[group != b, 0])
        values.append(((top.T @ g) ** 2).sum() / (g @ g))
    whole, left, h = values.pop(), np.array(values), 17 / sizes
    centre = 3 * whole - ((1 - 1 / h) * left).sum()
    truth = np.sqrt((((h * whole - (h - 1) * left - centre) ** 2) / (h - 1)).mean())
    assert found.data_stderr == pytest.approx(truth, rel=1e-6)
    equal = np.sqrt(2 / 3 * ((left - left.mean()) ** 2).sum())
    assert found.data_stderr != pytest.approx(equal, rel=1e-2)


def test_jackknife_finds_the_spread_of_a_ratio_over_fresh_draws() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([10, 10, 20, 20, 30, 30, 40, 40])
    values, errors = [], []
    for _ in range(400):
        sums = rng.normal(size=(8, 3)) * np.sqrt(sizes)[:, None] + sizes[:, None] * np.array([1.0, 0.5, 0.2])

        def share(g: np.ndarray) -> float:
            return g[0] ** 2 / (g @ g)

        whole = share(sums.sum(0))
        left = torch.tensor([share(sums.sum(0) - row) for row in sums])
        values.append(whole)
        errors.append(jackknife(whole, left, torch.from_numpy(sizes).double()))
    ratio = np.sqrt(np.mean(np.square(errors))) / np.std(values)
    assert 0.85 < ratio < 1.25


def test_principal_angles_between_known_spaces() -> None:
    first, vectors = symmetric([5.0, 4.0, 1.0, 0.5, 0.2], 0)
    turn = np.eye(5)
    for (i, j), angle in (((0, 2), 0.3), ((1, 3), 1.1)):
        turn[np.ix_([i, j], [i, j])] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = vectors @ turn
    matrix = (turned * np.array([5.0, 4.0, 1.0, 0.5, 0.2])) @ turned.T
    second = la.Dense(torch.from_numpy((matrix + matrix.T) / 2))
    left, right = (eigenspace(A, 2, tol=1e-9) for A in (first, second))
    found = eigenspace_overlap(left, right)
    assert found.angles.tolist() == pytest.approx([0.3, 1.1], abs=1e-7) and found.error < 1e-6
    assert found.value == pytest.approx((np.cos(0.3) ** 2 + np.cos(1.1) ** 2) / 2, abs=1e-7)
    assert found.low <= found.value <= found.high and found.chance == 2 / 5
    assert eigenspace_overlap(left, left).value == pytest.approx(1)
    larger = eigenspace_overlap(left, eigenspace(first, 3, tol=1e-9))
    assert larger.value == pytest.approx(1) and len(larger.angles) == 2
    rough = eigenspace_overlap(replace(left, angle=0.1), replace(right, angle=0.05))
    assert rough.error == pytest.approx(0.15)
    assert rough.low == pytest.approx((np.cos(0.45) ** 2 + np.cos(1.25) ** 2) / 2, abs=1e-6)
    assert rough.high == pytest.approx((np.cos(0.15) ** 2 + np.cos(0.95) ** 2) / 2, abs=1e-6)


def test_interval_of_the_angles_holds_those_of_the_exact_spaces() -> None:
    values = np.concatenate([[4.2, 4.0], np.linspace(-3, 3, 148)])
    worst = 0.0
    for seed in range(6):
        pair = [symmetric(values.tolist(), 2 * seed + i) for i in (0, 1)]
        exact = np.sort(np.arccos(np.linalg.svd(pair[0][1][:, :2].T @ pair[1][1][:, :2])[1]))
        found = eigenspace_overlap(*(eigenspace(A, 2, tol=0.3) for A, _ in pair))
        gap = np.abs(found.angles.numpy() - exact).max()
        assert gap <= found.error + 1e-9
        assert found.low <= (np.cos(exact) ** 2).mean() <= found.high
        worst = max(worst, gap * (found.error < pi / 2))
    assert worst > 1e-4


def test_records_pictures_and_words() -> None:
    H = la.Hessian(nn.Linear(6, 1, bias=False).double(), MSE, batches([4, 5], 6))
    overlap, space = gradient_overlap(H, 2), eigenspace(H, 2)
    again = GradientOverlap.from_dict(json.loads(json.dumps(overlap.to_dict())))
    assert again.to_dict() == overlap.to_dict() and torch.equal(again.shares, overlap.shares)
    assert "chance 0.33" in repr(overlap) and "data ±" in repr(overlap) and float(overlap) == overlap.value
    assert overlap.plot().get_xlabel() == "eigenvectors"
    angles = eigenspace_overlap(space, eigenspace(H, 1))
    assert EigenspaceOverlap.from_dict(json.loads(json.dumps(angles.to_dict()))).to_dict() == angles.to_dict()
    assert angles.plot().get_xlabel() == "index" and "1 angles" in repr(angles) and float(angles) == angles.value
    assert isinstance(space, Eigenspace) and "angle ≤" in repr(space)


def test_bad_input_is_named() -> None:
    A, _ = symmetric([3.0, 2.0, 1.0], 0)
    g = torch.ones(3, dtype=torch.float64)
    with pytest.raises(OperandError, match=r"gradient: expected shape \(3,\), given NoneType.*H.gradient"):
        gradient_overlap(A, 1)
    with pytest.raises(OperandError, match=r"given shape \(4,\)"):
        gradient_overlap(A, 1, torch.ones(4))
    for bad in (0 * g, torch.tensor([1.0, float("nan"), 0.0])):
        with pytest.raises(NumericsError, match="finite non-zero gradient"):
            gradient_overlap(A, 1, bad)
    for k in (0, 4, 1.0, True):
        with pytest.raises(ArgumentError, match="k: expected an integer from 1 to P = 3"):
            gradient_overlap(A, k, g)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="which: expected one of"):
        eigenspace(A, 1, "both")
    with pytest.raises(OperandError, match="operator: expected a lemmata operator"):
        gradient_overlap(g, 1, g)  # type: ignore[arg-type]
    with pytest.raises(OperandError, match="second: expected an Eigenspace"):
        eigenspace_overlap(eigenspace(A, 1), g)  # type: ignore[arg-type]
    with pytest.raises(OperandError, match="second: expected P = 3, given P = 2"):
        eigenspace_overlap(eigenspace(A, 1), eigenspace(la.Dense(torch.eye(2).double()), 1))
