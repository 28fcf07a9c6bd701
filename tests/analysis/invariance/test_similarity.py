"""Indices of similarity: closed forms, invariances, coverage, blindness and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.spatial import procrustes as scipy_procrustes
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError, OperandError
from lemmata.analysis.invariance.similarity import Similarity, cka, cka_unbiased, mean_correlation, procrustes

NAMES = ("CKA", "CKA, unbiased", "CCA", "SVCCA", "Procrustes")


def pair(n: int, p: int, q: int, seed: int, common: float = 0.0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    X, noise = (torch.randn(n, width, generator=draws, dtype=torch.float64) for width in (p, q))
    k = min(p, q)
    Y = (1 - common**2) ** 0.5 * noise
    Y[:, :k] += common * X[:, :k]
    return X, Y


def test_against_gram_matrices_scipy_and_the_sum_over_quadruples() -> None:
    """CKA from centred Gram matrices, angles and Procrustes from scipy, HSIC from its definition as a U-statistic."""
    X, Y = pair(9, 3, 4, 0, common=0.6)
    H = torch.eye(9, dtype=torch.float64) - 1 / 9
    K, L = H @ X @ X.T @ H, H @ Y @ Y.T @ H
    assert cka(X, Y) == pytest.approx(float((K * L).sum() / (K.norm() * L.norm())), rel=1e-12)
    Xc, Yc = (Z - Z.mean(0) for Z in (X, Y))
    assert mean_correlation(X, Y) == pytest.approx(np.cos(subspace_angles(Xc.numpy(), Yc.numpy())).mean(), rel=1e-12)
    disparity = scipy_procrustes(np.pad(X.numpy(), ((0, 0), (0, 1))), Y.numpy())[2]
    assert 1 - procrustes(X, Y) ** 2 == pytest.approx(disparity, rel=1e-10)

    def quadruples(A: Tensor, B: Tensor) -> float:
        K, L, total = (A @ A.T).numpy(), (B @ B.T).numpy(), 0.0
        n = range(len(A))
        for i in n:
            for j in n:
                for q in n:
                    for r in n:
                        if len({i, j, q, r}) == 4:
                            total += K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q])
        return total

    truth = quadruples(X, Y) / (quadruples(X, X) * quadruples(Y, Y)) ** 0.5
    assert cka_unbiased(X, Y) == pytest.approx(truth, rel=1e-10)
    assert abs(cka(X, Y) - truth) > 0.05  # the biased one is another number


def test_the_maps_that_an_index_ignores_and_those_it_does_not() -> None:
    X, Y = pair(30, 5, 7, 1, common=0.7)
    draws = torch.Generator().manual_seed(2)
    Q = torch.linalg.qr(torch.randn(5, 5, generator=draws, dtype=torch.float64))[0]
    A = Q * torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    found = la.similarity(X, Y)
    moved = {"orthogonal maps": 3 * X @ Q + 1, "invertible linear maps": X @ A, "translations": X + 100.0}
    for name in NAMES:
        for kind, mapped in moved.items():
            change = abs(la.similarity(mapped, Y)[name].value - found[name].value)
            assert (change < 1e-11) == (kind in found[name].ignores), (name, kind, change)


def test_intervals_cover_and_unrelated_data_are_rejected() -> None:
    """For Y = aX + √(1 − a²)·noise the CKA of the population is a²; unrelated data are rarely called related."""
    for common in (0.0, 0.6):
        found = [la.similarity(*pair(30, 4, 4, 100 + s, common)) for s in range(20)]
        unbiased = [one["CKA, unbiased"] for one in found]
        low, high = np.array([one.interval() for one in unbiased]).T
        # With 95 % coverage fewer than 17 of 20 have a chance of 2 %, 17 or more with half the width one of 7 %.
        assert np.sum((low <= common**2) & (common**2 <= high)) >= 17
        assert np.mean([one.related for one in found]) == pytest.approx(1.0 if common else 0.0, abs=0.1)
        spread = np.std([one.value for one in unbiased], ddof=1)
        assert 0.7 < np.mean([one.stderr for one in unbiased]) / spread < 2
    biased = [one["CKA"] for one in (la.similarity(*pair(30, 4, 4, s)) for s in range(10))]
    assert np.mean([one.value - one.bias for one in biased]) == pytest.approx(0, abs=0.03)
    assert np.mean([one.value for one in biased]) == pytest.approx(4 / 34, abs=0.03)


def test_too_wide_is_said() -> None:
    wide = la.similarity(*pair(20, 30, 30, 3))
    assert wide["CCA"].blind and wide["CCA"].interval() == (0.0, 1.0) and wide["CCA"].value == pytest.approx(1)
    assert wide.widths == (30, 30) and wide.ranks == (19, 19) and not wide["CKA"].blind
    assert not wide.related and "blind" in repr(wide)
    half = la.similarity(*pair(20, 12, 12, 3))["CCA"]  # 12 + 12 − 19 = 5 of 12 are forced
    assert half.forced == pytest.approx(5 / 12) and not half.blind and "42%" in repr(half)
    assert la.similarity(*pair(60, 12, 12, 3))["CCA"].forced == 0


def test_a_share_of_one_keeps_all_and_the_record_comes_back() -> None:
    X, Y = pair(40, 4, 6, 4, common=0.5)
    found = la.similarity(X.float(), Y.float(), share=1.0)
    assert found["SVCCA"].value == pytest.approx(found["CCA"].value, abs=1e-12)
    assert la.similarity(X, Y, share=0.5)["SVCCA"].value != pytest.approx(found["CCA"].value, abs=1e-3)
    assert Similarity.from_dict(found.to_dict()) == found
    assert [text.get_text() for text in found.plot().get_yticklabels()] == list(NAMES)


@pytest.mark.parametrize(
    ("X", "Y", "share", "error", "words"),
    [
        (torch.ones(9, 2, 2), torch.ones(9, 2), 0.9, OperandError, ("X", "flatten(1)")),
        (torch.randn(9, 2), torch.randn(10, 2), 0.9, OperandError, ("Y", "one batch")),
        (torch.randn(5, 2), torch.randn(5, 2), 0.9, OperandError, ("X", "n ≥ 8")),
        (torch.randn(9, 2), torch.full((9, 2), torch.nan), 0.9, DataError, ("Y", "overflow")),
        (torch.ones(9, 2), torch.randn(9, 2), 0.9, DataError, ("X", "another layer")),
        (torch.randn(9, 2), torch.randn(9, 2), 1.5, ArgumentError, ("share", "share=0.99")),
    ],
)
def test_bad_input(X: Tensor, Y: Tensor, share: float, error: type[Exception], words: tuple[str, ...]) -> None:
    with pytest.raises(error) as caught:
        la.similarity(X, Y, share)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(ArgumentError, match="unbiased"):
        la.similarity(*pair(20, 2, 2, 0))["cosine"]
