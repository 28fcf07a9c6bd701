"""Eigenpairs against numpy.linalg.eigvalsh and planted spectra."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, NumericsError, OperandError
from lemmata.analysis.spectra import lanczos

module = sys.modules[la.eigenpairs.__module__]  # the package exports the function under the same name
SIZE = 60
RNG = np.random.default_rng(0)
SPECTRA = {
    "flat": np.ones(SIZE),
    "zero": np.zeros(SIZE),
    "geometric": 0.85 ** np.arange(SIZE),
    "linear": np.linspace(-1, 1, SIZE),
    "indefinite": np.r_[5, 5, 5, -7, -7, np.linspace(-1, 1, SIZE - 5)],
    "rank 3": np.r_[3, 2, 1, np.zeros(SIZE - 3)],
    "multiple": np.repeat([4.0, 3, 2, 1], SIZE // 4),
    "double on top": np.r_[5, 5, 4, 3, np.linspace(0, 1, SIZE - 4)],
    "one": np.array([-2.0]),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def planted(values: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    """A symmetric matrix of a given spectrum in a random basis."""
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((len(values), len(values))))[0]
    matrix = torch.from_numpy(basis * values @ basis.T)
    return ((matrix + matrix.T) / 2).to(dtype)


def wanted(values: np.ndarray, which: str, k: int) -> np.ndarray:
    ascending = np.sort(values)
    if which == "largest":
        return ascending[::-1][:k]
    if which == "smallest":
        return ascending[:k]
    if which == "magnitude":
        return np.sort(np.abs(values))[::-1][:k]
    return ascending[::-1] if 2 * k >= len(values) else np.r_[ascending[::-1][:k], ascending[:k][::-1]]


def right(pairs: la.Eigenpairs, values: np.ndarray, which: str, k: int, slack: float) -> bool:
    """Do the values, to their residuals and rounding, equal the wanted ones?"""
    found, truth = pairs.values.numpy(), wanted(values, which, k)
    found = np.abs(found) if which == "magnitude" else found
    return len(found) == len(truth) and bool(np.all(np.abs(found - truth) <= pairs.residuals.numpy() + slack))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("which", ["largest", "smallest", "both", "magnitude"])
@pytest.mark.parametrize("name", SPECTRA)
def test_planted_spectra(name: str, which: str, dtype: torch.dtype) -> None:
    values = SPECTRA[name]
    A = planted(values, dtype)
    slack = 200 * torch.finfo(dtype).eps * max(1e-30, float(np.abs(values).max()))
    for k in sorted({1, min(4, len(values)), len(values)}):
        pairs = la.eigenpairs(la.Dense(A), k, which)
        assert pairs.converged
        assert right(pairs, values, which, k, slack)
        U = pairs.vectors
        assert torch.allclose(U.T @ U, torch.eye(U.shape[1], dtype=dtype), atol=1e3 * torch.finfo(dtype).eps)
        truth = (A @ U - U * pairs.values.to(dtype)).norm(dim=0).double()
        assert torch.allclose(pairs.residuals, truth, atol=slack)


@pytest.mark.parametrize("name", SPECTRA)
def test_residual_intervals_hold_an_eigenvalue(name: str) -> None:
    A = planted(SPECTRA[name])
    truth = np.linalg.eigvalsh(A.numpy())
    pairs = la.eigenpairs(la.Dense(A), min(5, len(truth)), tol=0.05, max_steps=12)
    for low, high in pairs.intervals:
        assert np.any((truth >= low - 1e-12) & (truth <= high + 1e-12))


def test_a_perturbed_matrix_is_rejected() -> None:
    values = SPECTRA["geometric"]
    off = la.eigenpairs(la.Dense(planted(values) + 1e-3 * torch.eye(SIZE)), 3, tol=1e-6)
    assert not right(off, values, "largest", 3, 1e-9)


def test_spiked_matrix_has_its_three_outliers() -> None:
    n = 900
    Z = RNG.standard_normal((n, n))
    Y = Z @ Z.T / n
    Y[range(3), range(3)] += [5, 4, 3]
    pairs = la.eigenpairs(la.Dense(torch.from_numpy(Y)), 4)
    assert pairs.values[:3].numpy() == pytest.approx([6.25, 16 / 3, 4.5], abs=0.25)
    assert float(pairs.values[3]) == pytest.approx(4, abs=0.15)
    assert np.allclose(pairs.values, np.linalg.eigvalsh(Y)[:-5:-1], rtol=1e-3)
    assert pairs.matvecs < 250


def test_more_steps_than_dimensions_change_nothing() -> None:
    A = planted(SPECTRA["linear"])
    exact = la.eigenpairs(la.Dense(A), 3, tol=1e-12)
    assert la.eigenpairs(la.Dense(A), 3, tol=1e-12, max_steps=10**6).matvecs == exact.matvecs <= 3 * SIZE
    assert exact.values.numpy() == pytest.approx(wanted(SPECTRA["linear"], "largest", 3), abs=1e-12)


def test_too_few_steps_are_owned_up_to() -> None:
    pairs = la.eigenpairs(la.Dense(planted(SPECTRA["linear"])), 3, tol=1e-6, max_steps=5)
    assert not pairs.converged and len(pairs.values) == 3
    assert "not converged" in repr(pairs)


@pytest.mark.parametrize("name", ["double on top", "indefinite", "multiple", "rank 3"])
def test_converged_is_never_said_of_wrong_pairs_whatever_the_budget(name: str) -> None:
    H = la.Dense(planted(SPECTRA[name]))
    said = []
    for budget in range(4, 100, 3):
        pairs = la.eigenpairs(H, 4, tol=1e-4, max_steps=budget)
        said.append(pairs.converged)
        assert not pairs.converged or right(pairs, SPECTRA[name], "largest", 4, 1e-12)
    assert said[-1]


def test_same_seed_same_pairs_whatever_the_global_generator_does() -> None:
    H = la.Dense(planted(SPECTRA["linear"]))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = la.eigenpairs(H, 2, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first.vectors, la.eigenpairs(H, 2, seed=3).vectors)
    assert not torch.equal(first.vectors, la.eigenpairs(H, 2, seed=4).vectors)


def test_warm_start_is_right_and_shorter() -> None:
    values = SPECTRA["double on top"] + np.r_[1, np.zeros(SIZE - 1)]
    A = planted(values)
    cold = la.eigenpairs(la.Dense(A), tol=1e-8)
    warm = la.eigenpairs(la.Dense(A + 1e-6 * planted(SPECTRA["linear"])), tol=1e-8, start=cold.vectors[:, 0])
    assert warm.matvecs < cold.matvecs
    other = torch.linalg.eigh(A)[1][:, 0]  # an exact eigenvector, of the wrong end
    assert float(la.eigenpairs(la.Dense(A), start=other).values[0]) == pytest.approx(6, rel=1e-3)


def test_on_a_hessian_of_a_network_both_ends() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    H = la.Hessian(model, torch.nn.CrossEntropyLoss(), (torch.randn(20, 5).double(), torch.randint(0, 3, (20,))))
    truth = np.linalg.eigvalsh(H.dense().numpy())
    pairs = la.eigenpairs(H, 3, "both", tol=1e-6)
    assert pairs.values.numpy() == pytest.approx(wanted(truth, "both", 3), abs=1e-6 * truth[-1])


@pytest.mark.parametrize(
    ("options", "kind", "fragments"),
    [
        ({"k": 5}, ArgumentError, ["k", "P = 4", "5", "1 to 4"]),
        ({"k": 0}, ArgumentError, ["k", "0"]),
        ({"tol": 0}, ArgumentError, ["tol", "0", "1e-3"]),
        ({"tol": -1.0}, ArgumentError, ["tol", "-1.0"]),
        ({"tol": float("nan")}, ArgumentError, ["tol", "nan"]),
        ({"which": "LM"}, ArgumentError, ["which", "'LM'", "largest"]),
        ({"k": 3, "max_steps": 2}, ArgumentError, ["max_steps", "3", "2"]),
        ({"start": torch.ones(3)}, OperandError, ["start", "(4,) or (4, j)", "(3,)", "pairs.vectors"]),
        ({"start": torch.ones(3, 2)}, OperandError, ["start", "(4, j)", "(3, 2)"]),
        ({"start": torch.zeros(4)}, OperandError, ["start", "non-zero"]),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], kind: type[Exception], fragments: list[str]) -> None:
    with pytest.raises(kind) as caught:
        la.eigenpairs(la.Dense(torch.eye(4)), **options)
    assert [part for part in fragments if part not in str(caught.value)] == []


def test_a_bare_matrix_and_an_overflow_are_named() -> None:
    with pytest.raises(OperandError, match=r"operator.*Tensor.*la.Dense"):
        la.eigenpairs(torch.eye(3))  # type: ignore[arg-type]
    with pytest.raises(NumericsError, match=r"Scaled.*float64"):
        la.eigenpairs(1e30 * la.Dense(1e30 * torch.eye(3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [3, 4, 5, 8])
def test_more_pairs_than_the_rank_of_an_operator_that_is_zero_elsewhere(k: int, dtype: torch.dtype) -> None:
    diagonal = torch.cat([torch.tensor([3.0, 2.0, 1.0]), torch.zeros(300)]).to(dtype)
    basis = torch.linalg.qr(torch.randn(303, 303, generator=torch.Generator().manual_seed(0), dtype=dtype))[0]
    for A in (torch.diag(diagonal), basis * diagonal @ basis.T):
        found = la.eigenpairs(la.Dense((A + A.T) / 2), k)
        truth = diagonal[:k].double()
        assert found.converged
        assert bool(((found.values - truth).abs() <= found.residuals + 1000 * torch.finfo(dtype).eps).all()), found
        assert float(found.residuals.max()) < 1e-2


def clustered(size: int = 300) -> dict[str, np.ndarray]:
    """Spectra that take many more steps than vectors are held."""
    bulk = np.linspace(-1, 1, size)
    return {
        "linear": bulk,
        "geometric": (-0.98) ** np.arange(size),
        "tight": np.r_[1.05 + 1e-3 * np.arange(6), bulk[:-6]],
        "spiked": np.r_[9, 5, 5, 2, bulk[:-4]],
        "indefinite": np.r_[-1.5, 1.4, -1.4, 1.3, bulk[:-4]],
    }


class Counted(la.Operator):
    """A matrix that counts its products."""

    def __init__(self, matrix: Tensor) -> None:
        self.inner, self.count = la.Dense(matrix), 0
        self.layout, self.dtype, self.device = self.inner.layout, self.inner.dtype, self.inner.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        self.count += len(vectors)
        return self.inner._multiply(vectors)

    def plan(self, k: int = 1) -> la.operators.Plan:
        return self.inner.plan(k)


@pytest.mark.parametrize("which", ["largest", "both", "magnitude"])
@pytest.mark.parametrize("name", clustered())
def test_many_restarts_cost_few_products_more_than_none(name: str, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = clustered()[name]
    A = Counted(planted(values))
    spent = {}
    for room in (32, 300):
        monkeypatch.setattr(module, "_ROOM", room)
        pairs = la.eigenpairs(A, 4, which, tol=1e-6, max_steps=2000, keep=True)
        assert pairs.converged and right(pairs, values, which, 4, 1e-12)
        assert len(pairs.krylov.rows) <= 2 * len(pairs.values) + room + 2
        spent[room] = pairs.matvecs
    assert spent[32] <= 1.5 * spent[300]
    assert A.count == sum(spent.values())


@pytest.mark.parametrize("name", SPECTRA)
def test_rare_looks_at_the_coefficients_change_nothing_but_the_stop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = lanczos.Sweep._look
    monkeypatch.setattr(lanczos, "_PAUSE", {"cpu": 4})
    monkeypatch.setattr(lanczos.Sweep, "_look", lambda self: (looks.append(self.degree), look(self))[1])
    values = SPECTRA[name]
    for k in sorted({1, min(4, len(values)), len(values)}):
        looks.clear()
        pairs = la.eigenpairs(la.Dense(planted(values)), k)
        assert pairs.converged and right(pairs, values, "largest", k, 1e-12)
    if name == "linear":
        looks.clear()
        steps = la.eigenpairs(la.Dense(planted(values)), 1, tol=1e-6).matvecs
        assert len(looks) <= 2 + steps / 4


@pytest.mark.parametrize("copies", [1, 2, 3, 5])
def test_all_copies_are_found(copies: int) -> None:
    values = np.r_[np.repeat(3.0, copies), 2.5, 2.0, np.linspace(-1, 1, 200)]
    pairs = la.eigenpairs(la.Dense(planted(values)), copies + 2)
    assert pairs.converged and right(pairs, values, "largest", copies + 2, 1e-12)


def test_simple_eigenvalues_need_one_sweep() -> None:
    A = Counted(planted(np.r_[5, 4, 3, np.linspace(-1, 1, 200)]))
    pairs = la.eigenpairs(A, 3)
    assert pairs.converged and A.count == pairs.matvecs < 30


def test_pairs_are_continued_without_repeating_a_product() -> None:
    values = clustered()["spiked"]
    A = Counted(planted(values))
    few = la.eigenpairs(A, 3, keep=True)
    more = la.eigenpairs(A, 5, tol=1e-9, max_steps=1000, start=few, keep=True)
    assert more.converged and right(more, values, "largest", 5, 1e-12)
    assert A.count == more.matvecs + 1  # the check of the first residuals is the only one made twice
    counted = A.count
    again = la.eigenpairs(A, 5, tol=1e-9, max_steps=1000, start=more)
    assert A.count - counted <= more.matvecs / 2  # only the search for a third copy of 5 is made again
    assert torch.allclose(again.values, more.values, atol=1e-12)
    assert more.krylov is not None and again.krylov is None and "krylov" not in more.to_dict()


def test_several_guesses_of_a_nearby_operator_shorten_the_search() -> None:
    A = planted(clustered()["tight"])
    near = la.Dense(A + 1e-5 * planted(clustered()["geometric"]))
    cold = la.eigenpairs(near, 5)
    pairs = la.eigenpairs(la.Dense(A), 5)
    for start in (pairs, pairs.vectors, torch.cat([pairs.vectors, pairs.vectors[:, :1]], 1)):
        warm = la.eigenpairs(near, 5, start=start)
        assert warm.converged and warm.matvecs < cold.matvecs
        assert torch.allclose(warm.values, cold.values, atol=2e-3)


def test_an_operator_that_is_not_itself_symmetric_or_fixed_is_not_converged() -> None:
    class Drifting(Counted):
        def _multiply(self, vectors: Tensor) -> Tensor:
            return super()._multiply(vectors) * (1 + 1e-3 * self.count)

    values = SPECTRA["geometric"]
    pairs = la.eigenpairs(Drifting(planted(values)), 3, tol=1e-4)
    assert not pairs.converged and float(pairs.residuals.min()) > 1e-3
    assert la.eigenpairs(Counted(planted(values)), 3, tol=1e-4).converged
