"""Probes come in chunks: memory does not grow with their number, and the chunk changes a result by rounding alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lemmata.analysis as la
from lemmata.analysis.operators import engine


class Live(TorchDispatchMode):
    """The most bytes of tensors that were alive at once, of those made while active."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.sizes = 0, 0, dict[int, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage.nbytes() and storage.data_ptr() not in self.sizes:
                self.sizes[storage.data_ptr()] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.data_ptr())
        return out

    def _gone(self, place: int) -> None:
        self.now -= self.sizes.pop(place)


class Pairs(la.Operator):
    """Pairs of coordinates coupled by c: eigenvalues 1 ± c, none of which leads."""

    def __init__(self, size: int, coupling: float) -> None:
        self.layout, self.dtype, self.device = la.Layout(("x",), ((size,),)), torch.float64, torch.device("cpu")
        self.coupling, self.products, self.widest = coupling, 0, 0

    def _multiply(self, vectors: Tensor) -> Tensor:
        self.products, self.widest = self.products + len(vectors), max(self.widest, len(vectors))
        return vectors + self.coupling * vectors.unflatten(1, (-1, 2)).flip(2).flatten(1)

    def plan(self, k: int = 1) -> la.Plan:
        return la.Plan("", k, 0.0, 0)


ESTIMATORS: dict[str, Callable[..., Any]] = {
    "trace": lambda A, probes, **o: la.trace(A, 1e-9, max_matvecs=probes, **o),
    "norm": lambda A, probes, **o: la.frobenius_norm(A, 1e-9, max_matvecs=probes, **o),
    "diagonal": lambda A, probes, **o: la.diagonal(A, 1e-9, max_matvecs=probes, **o),
    "density": lambda A, probes, **o: la.spectral_density(A, 4, probes, **o),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_memory_does_not_grow_with_the_number_of_probes(name: str) -> None:
    peaks = {}
    for probes, block in ((40, 8), (160, 8), (160, 32)):
        A = Pairs(4000, 20.0)
        with Live() as live:
            ESTIMATORS[name](A, probes, block=block)
        assert A.products >= probes and A.widest == block
        peaks[probes, block] = live.peak
    assert peaks[160, 8] <= 1.05 * peaks[40, 8]
    assert peaks[160, 32] > 1.3 * peaks[160, 8]  # the count of bytes sees what a chunk takes


# The same numbers from other chunks, other blocks of the engine and other ways of taking products.


def network(dtype: torch.dtype, cap: int | None) -> la.Hessian:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.LayerNorm(12), nn.Linear(12, 4)).to(dtype)
    X, y = torch.randn(30, 6).to(dtype), torch.randint(0, 4, (30,))
    return la.Hessian(model, nn.CrossEntropyLoss(), [(X[:11], y[:11]), (X[11:], y[11:])], memory_cap=cap)


def numbers(found: Any) -> Tensor:
    """What an estimator returns, as one vector of numbers that a rotation of eigenvectors does not change."""
    if isinstance(found, la.Estimate):
        return torch.tensor([found.value, found.interval()[0], found.interval()[1]], dtype=torch.float64)
    if isinstance(found, la.Diagonal):
        return torch.cat([found.values, found.stderr]).double()
    if isinstance(found, la.SpectralDensity):
        return torch.cat([found.evaluate(torch.linspace(-1, 2, 40), 0.1), torch.tensor([found.error])])
    return found.values


RUNS: dict[str, Callable[..., Any]] = {
    "trace": lambda A, seed, **o: la.trace(A, 0.2, seed=seed, **o),
    "norm": lambda A, seed, **o: la.frobenius_norm(A, 0.05, seed=seed, **o),
    "diagonal": lambda A, seed, **o: la.diagonal(A, 0.4, seed=seed, **o),
    "density": lambda A, seed, **o: la.spectral_density(A, 8, 6, seed=seed, **o),
    "eigenpairs": lambda A, seed, block=0: la.eigenpairs(
        A, 3, tol=1e-6 if A.dtype == torch.float64 else 1e-4, seed=seed
    ),
}
DTYPES = pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)


@DTYPES
@pytest.mark.parametrize("name", RUNS)
def test_other_chunks_and_modes_change_a_result_by_rounding(
    name: str, dtype: torch.dtype, tol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, truth = RUNS[name], numbers(RUNS[name](network(dtype, None), 3))
    norm = float(truth.norm())
    for block, most, cap in ((1, 5, None), (7, 1, None), (64, 32, 0)):
        monkeypatch.setattr(engine, "_BLOCK", most)
        operator = network(dtype, cap)
        torch.manual_seed(block)
        state = torch.get_rng_state()
        found = numbers(run(operator, 3, block=block))
        assert torch.equal(state, torch.get_rng_state())
        assert len(found) == len(truth) and float((found - truth).norm()) <= tol * norm, (block, most, cap)


@pytest.mark.parametrize("name", RUNS)
def test_another_seed_means_other_probes_and_the_same_seed_the_same(name: str) -> None:
    operator = network(torch.float64, None)
    first, again, other = (numbers(RUNS[name](operator, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    if name != "eigenpairs":
        assert not torch.allclose(first, other, rtol=1e-9, atol=0)
    else:  # the values agree to their tolerance, the steps towards them do not
        vectors = [la.eigenpairs(operator, 3, seed=seed).vectors for seed in (0, 0, 1)]
        assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


@pytest.mark.parametrize("name", [name for name in RUNS if name != "eigenpairs"])
def test_repeated_estimates_vary_as_their_error_bars_say(name: str) -> None:
    """hessian-eigenthings draws the same probes in every call without a seed: repeats look free of error."""
    operator = network(torch.float64, None)
    found = torch.stack([numbers(RUNS[name](operator, seed)) for seed in range(6)])
    assert float(found.std(0).max()) > 1e-3 * float(found.abs().max())
