"""The algebra of operators. Truth: the same algebra on matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, OperandError, ParameterError

FLOAT = torch.float64


def symmetric(size: int, seed: int = 0) -> Tensor:
    A = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)
    return A + A.T


A, B = symmetric(6), symmetric(6, 1)
LAYOUT = la.Layout(("w", "b"), ((2, 2), (2,)))


def test_products_sums_multiples_and_transpose() -> None:
    H, G = la.Dense(A), la.Dense(B)
    V = torch.randn(6, 3, dtype=FLOAT)
    for operator, matrix in [(H + G, A + B), (H - G, A - B), (2 * H, 2 * A), (H * 0.5, A / 2), (-H, -A), (H.T, A)]:
        assert torch.allclose(operator.dense(), matrix)
        assert torch.allclose(operator @ V, matrix @ V)
        assert torch.allclose(operator @ V[:, 0], matrix @ V[:, 0])
        assert (operator.shape, operator.dtype, operator.device.type) == ((6, 6), FLOAT, "cpu")
    assert not torch.allclose((H - G).dense(), A + B)
    assert (H + 2 * G).plan(4).products == 8


def test_shift_is_a_multiple_of_the_identity() -> None:
    H, eye = la.Dense(A, LAYOUT), torch.eye(6, dtype=FLOAT)
    V = torch.randn(6, 3, dtype=FLOAT)
    assert torch.allclose(H.shift(0.5).dense(), A + 0.5 * eye)
    assert not torch.allclose(H.shift(0.5).dense(), A + 0.5)
    assert torch.allclose(H.shift(-2) @ V, A @ V - 2 * V)
    assert torch.allclose((2 * H.shift(1)).shift(3).dense(), 2 * A + 5 * eye)
    assert torch.allclose(H.shift(1).restrict("w").dense(), H.restrict("w").shift(1).dense())
    assert torch.allclose(H.block_diagonal().shift(1).dense(), H.shift(1).block_diagonal().dense())
    assert H.shift(1).plan(4).products == 4 and H.shift(1).layout == LAYOUT


def test_restriction_split_and_flatten() -> None:
    H = la.Dense(A, LAYOUT)
    assert torch.equal(H.restrict("w").dense(), A[:4, :4])
    assert torch.equal(H.restrict(lambda name: name == "b").dense(), A[4:, 4:])
    assert torch.equal((2 * H).restrict(["b", "w"]).dense(), 2 * A)
    parts = H.split(torch.arange(6, dtype=FLOAT))
    assert parts["w"].tolist() == [[0, 1], [2, 3]] and parts["b"].tolist() == [4, 5]
    assert torch.equal(H.flatten(parts), torch.arange(6, dtype=FLOAT))
    assert list(H.restrict("b").split(torch.ones(2, dtype=FLOAT))) == ["b"]


def test_scipy_sees_the_same_operator() -> None:
    exported = la.Dense(A).to_scipy()
    assert exported.dtype == np.float64
    largest = scipy.sparse.linalg.eigsh(exported, k=1, which="LA", return_eigenvectors=False)
    assert largest[0] == pytest.approx(float(torch.linalg.eigvalsh(A)[-1]))
    assert np.allclose(exported @ np.eye(6), A.numpy())
    assert np.allclose(exported.rmatvec(np.ones(6)), A.numpy().sum(0))


def test_a_matrix_is_copied() -> None:
    M = A.clone()
    H = la.Dense(M)
    M.zero_()
    assert torch.equal(H.dense(), A)


@pytest.mark.parametrize(
    ("act", "kind", "fragments"),
    [
        (lambda: la.Dense(A + torch.triu(A)), OperandError, ["matrix", "symmetric", "(A + A.T) / 2"]),
        (lambda: la.Dense(A[:3]), OperandError, ["matrix", "square", "(3, 6)"]),
        (lambda: la.Dense(A.long()), OperandError, ["matrix", "int64"]),
        (lambda: la.Dense(A * torch.nan), OperandError, ["matrix", "finite"]),
        (lambda: la.Dense(A, la.Layout(("x",), ((3,),))), OperandError, ["layout", "6", "3"]),
        (
            lambda: la.Dense(A) + la.Dense(B[:2, :2]),
            OperandError,
            ["Dense(2 × 2", "(6, 6)", "(2, 2)", "same parameters"],
        ),
        (lambda: la.Dense(A) + la.Dense(B.float()), OperandError, ["float64", "float32"]),
        (lambda: la.Dense(A) * float("nan"), ArgumentError, ["factor", "nan", "finite"]),
        (lambda: la.Dense(A).shift(float("inf")), ArgumentError, ["by", "inf", "finite", "1e-3"]),
        (lambda: la.Dense(A).shift("1"), ArgumentError, ["by", "'1'", "finite"]),  # type: ignore[arg-type]
        (lambda: la.Dense(A, LAYOUT).restrict("weight"), ParameterError, ["'weight'", "['w', 'b']", "glob"]),
        (lambda: la.Dense(A, LAYOUT).split(torch.ones(4)), OperandError, ["vector", "(6,)", "(4,)"]),
        (lambda: la.Dense(A, LAYOUT).flatten({"w": torch.ones(2, 2)}), OperandError, ["b", "(2,)", "nothing"]),
    ],
)
def test_misfits_are_named(act: Any, kind: type[Exception], fragments: list[str]) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert [part for part in fragments if part not in str(caught.value)] == []


def test_a_matrix_is_not_added_silently() -> None:
    with pytest.raises(TypeError):
        la.Dense(A) + 1  # type: ignore[operator]


def test_block_diagonal() -> None:
    """The couplings between blocks are gone, the blocks stand in the order asked for."""
    layout = la.Layout(("a", "b", "c"), ((2,), (1, 2), (1,)))
    matrix = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = matrix + matrix.T
    whole = la.Dense(matrix, layout)
    truth = torch.block_diag(matrix[:2, :2], matrix[2:4, 2:4], matrix[4:, 4:])
    torch.testing.assert_close(whole.block_diagonal().dense(), truth)
    pair = whole.block_diagonal([["a", "c"], "b"])
    assert pair.layout.names == ("a", "c", "b")
    both = [0, 1, 4]
    torch.testing.assert_close(pair.dense(), torch.block_diag(matrix[both][:, both], matrix[2:4, 2:4]))
    assert pair.plan(3).products == 6
    with pytest.raises(OperandError, match="'a' in two of"):
        whole.block_diagonal(["a", "*"])
    with pytest.raises(OperandError, match="no block"):
        whole.block_diagonal([])
