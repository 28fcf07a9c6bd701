"""What other curvature libraries were seen to get wrong, each done right here, and each test able to see the fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

import lemmata.analysis as la
from lemmata.analysis.errors import OperandError

FLOAT = torch.float64


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch(examples: int = 12) -> tuple[Tensor, Tensor]:
    return torch.randn(examples, 4, dtype=FLOAT), torch.randint(0, 3, (examples,))


def close(a: Tensor, b: Tensor, tol: float = 1e-12) -> bool:
    return bool((a - b).norm() <= tol * (1 + b.norm()))


class Coupled(la.Operator):
    """Pairs of coordinates coupled by c: eigenvalues 1 ± c, trace P, and each probe off by a fifth of it (one σ)."""

    def __init__(self, size: int, spread: float = 0.2) -> None:
        self.layout, self.dtype, self.device = la.Layout(("x",), ((size,),)), FLOAT, torch.device("cpu")
        self.coupling, self.widest = spread * (size / 2) ** 0.5, 0

    def _multiply(self, vectors: Tensor) -> Tensor:
        self.widest = max(self.widest, len(vectors))
        return vectors + self.coupling * vectors.unflatten(1, (-1, 2)).flip(2).flatten(1)

    def plan(self, k: int = 1) -> la.Plan:
        return la.Plan("", k, 0.0, 0)


# Averages over batches. hessian-eigenthings takes the unweighted mean over batches, curvlinops weights ignored targets,
# loss-landscape adds batches up, and several take losses that are modules alone.


class Padded(nn.Module):
    """A linear map of every position: logits (n, C, t)."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x).movedim(-1, 1)


WEIGHTS = torch.tensor([0.5, 3.0, 1.0], dtype=FLOAT)
LOSSES: dict[str, tuple[Any, Tensor | None]] = {
    "module": (nn.CrossEntropyLoss(ignore_index=-1), None),
    "module with class weights": (nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=-1), WEIGHTS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_padded_sequences_in_ragged_batches_are_averaged_by_what_counts(name: str) -> None:
    """H = Σ w_y (diag p − ppᵀ) ⊗ xxᵀ / Σ w_y over all positions that are not padding."""
    loss, weights = LOSSES[name]
    model, batches = Padded().double(), []
    for examples, length, kept in ((2, 5, 2), (3, 4, 4), (1, 7, 3)):
        target = torch.randint(0, 3, (examples, length))
        target[:, kept:] = -1
        batches.append((torch.randn(examples, length, 2, dtype=FLOAT), target))
    rows = torch.cat([x.reshape(-1, 2) for x, _ in batches])
    targets = torch.cat([y.reshape(-1) for _, y in batches])
    share = (targets >= 0).double() if weights is None else torch.where(targets >= 0, weights[targets.clamp(min=0)], 0)
    p = torch.softmax(rows @ model.map.weight.detach().T, 1)
    blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    truth = torch.einsum("n,nab,ni,nj->aibj", share / share.sum(), blocks, rows, rows).reshape(6, 6)
    for operator in (la.Hessian(model, loss, batches), la.GGN(model, loss, batches)):
        assert close(operator.dense(), truth)
        assert la.trace(operator).value == pytest.approx(float(truth.trace()), rel=0.011)
        assert la.diagonal(operator, 1e-6).values.numpy() == pytest.approx(truth.diagonal().numpy(), rel=1e-10)
        assert float(la.eigenpairs(operator, tol=1e-9).values) == pytest.approx(np.linalg.eigvalsh(truth)[-1], rel=1e-9)
    unweighted = sum(la.Hessian(model, loss, b).dense() for b in batches) / 3
    assert not close(unweighted, truth, 1e-2)  # the fault would be seen


@pytest.mark.parametrize("loss", [F.mse_loss, lambda f, t: ((f - t) ** 2).mean()], ids=["functional", "lambda"])
@pytest.mark.parametrize("kind", [la.Hessian, la.GGN])
def test_a_loss_may_be_a_plain_function(kind: Any, loss: Callable) -> None:
    X, y = batch(9)[0], torch.randn(9, 1, dtype=FLOAT)
    model = nn.Linear(4, 1, bias=False).double()
    assert close(kind(model, loss, [(X[:2], y[:2]), (X[2:], y[2:])]).dense(), 2 / 9 * X.T @ X)


def test_more_batches_of_the_same_data_do_not_scale_the_curvature() -> None:
    model, data = mlp(), batch()
    one, three = (la.Hessian(model, nn.CrossEntropyLoss(), [data] * n) for n in (1, 3))
    assert la.eigenpairs(three, 2).values.numpy() == pytest.approx(la.eigenpairs(one, 2).values.numpy(), rel=1e-6)
    total = la.Hessian(model, nn.CrossEntropyLoss(reduction="sum"), [data] * 3)  # where a sum is asked for, it is one
    assert float(la.eigenpairs(total).values) == pytest.approx(36 * float(la.eigenpairs(one).values), rel=1e-6)


def test_parameters_with_one_axis_count() -> None:
    """A model that is all biases: f = b, so H = 2/C · I."""

    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(5, dtype=FLOAT))

        def forward(self, x: Tensor) -> Tensor:
            return x * 0 + self.bias

    X = torch.randn(7, 5, dtype=FLOAT)
    H = la.Hessian(Bias(), nn.MSELoss(), (X, X))
    assert H.shape == (5, 5) and close(H.dense(), 0.4 * torch.eye(5, dtype=FLOAT))
    assert la.eigenpairs(H, 5).values.numpy() == pytest.approx([0.4] * 5)
    assert la.Hessian(mlp(), nn.CrossEntropyLoss(), batch()).shape == (51, 51)  # 24 + 6 + 18 + 3


# Products. curvlinops runs a second forward pass in its GGN; PyHessian leaves .grad behind; a mode of hessian-eigenthings
# makes the GGN approximate by default.


@pytest.mark.parametrize(("cap", "passes"), [(2**30, 0), (0, 3)], ids=["retained", "fresh"])
def test_a_product_repeats_no_forward_pass(cap: int, passes: int) -> None:
    model, seen = mlp(), []
    G = la.GGN(model, nn.CrossEntropyLoss(), batch(), memory_cap=cap)
    with register_module_forward_hook(lambda module, *_: seen.append(module)):
        G @ torch.ones(51, dtype=FLOAT)
    assert sum(isinstance(module, nn.Tanh) for module in seen) <= passes
    assert all(p.grad is None for p in model.parameters())


# Stopping. PyHessian stops when a running mean moves by less than the tolerance, whatever the mean's own error.


def running_mean_rule(operator: la.Operator, tol: float, seed: int) -> tuple[float, int]:
    """PyHessian's ``trace``: stop when the mean of vᵀHv, v = ±1, moves by less than ``tol`` of itself."""
    generator, samples, last = torch.Generator().manual_seed(seed), list[float](), 0.0
    while True:
        v = torch.randint(0, 2, operator.shape[:1], generator=generator).mul(2).sub(1).to(operator.dtype)
        samples.append(float(v @ (operator @ v)))
        mean = float(np.mean(samples))
        if abs(mean - last) / (abs(last) + 1e-6) < tol:
            return mean, len(samples)
        last = mean


def test_a_tolerance_is_kept_where_the_rule_of_the_running_mean_breaks_it() -> None:
    size, tol = 2000, 0.02
    theirs = [running_mean_rule(Coupled(size), 1e-3, seed) for seed in range(200)]
    error = np.sqrt(np.mean([(value / size - 1) ** 2 for value, _ in theirs]))
    assert np.median([count for _, count in theirs]) < 30 and error > 30 * 1e-3
    ours = [la.trace(Coupled(size), tol, seed=seed) for seed in range(25)]
    assert all(e.converged and e.interval()[1] - e.value <= tol * e.value for e in ours)
    misses = sum(abs(e.value / size - 1) > tol for e in ours)
    assert misses <= 5  # of 25, where more have a chance of 0.2 %
    assert all(300 < e.matvecs < 900 for e in ours)  # (1.96 · 0.2 / 0.02)² = 384, times at most 1.5 between looks
    short = la.trace(Coupled(size), 1e-3, max_matvecs=19)
    assert not short.converged and short.interval()[1] - short.interval()[0] > 0.1 * size


def test_default_steps_reach_the_leading_eigenvalue_or_say_that_they_do_not() -> None:
    """hessian-eigenthings takes 2k Lanczos steps by default: two for the largest eigenvalue."""
    for seed in range(5):
        torch.manual_seed(seed)
        H = la.Hessian(mlp(), nn.CrossEntropyLoss(), batch(), dtype=FLOAT)
        truth = np.linalg.eigvalsh(H.dense().numpy())
        pairs = la.eigenpairs(H)
        assert pairs.converged and float(pairs.values) == pytest.approx(truth[-1], rel=1e-3)
    short = la.eigenpairs(H, max_steps=2)
    assert not short.converged and float(short.values) < truth[-1] * (1 - 1e-3)


def test_the_largest_is_not_the_largest_in_magnitude() -> None:
    H = la.Hessian.of(lambda p: (p["x"] ** 2).sum() - 5 * (p["y"] ** 2).sum(), {"x": torch.ones(3), "y": torch.ones(2)})
    found = {which: float(la.eigenpairs(H, 1, which).values[0]) for which in ("largest", "smallest", "magnitude")}
    assert found == pytest.approx({"largest": 2, "smallest": -10, "magnitude": -10}, rel=1e-6)


# Krylov spaces that end. hessian-eigenthings returned eigenvalues 16 × too large from 80 steps where 40 sufficed;
# curvlinops divides by a β of zero on a GGN of low rank.


def low_rank() -> tuple[la.GGN, np.ndarray]:
    """A GGN of rank at most 5 · 2 on 171 parameters, and its spectrum from Jacobians by differences of outputs."""
    model = nn.Sequential(nn.Linear(4, 21), nn.Tanh(), nn.Linear(21, 3)).double()
    X, y = batch(5)
    theta, columns = nn.utils.parameters_to_vector(model.parameters()).detach(), []
    with torch.no_grad():
        for unit in torch.eye(len(theta), dtype=FLOAT):
            ends = []
            for step in (1e-5, -1e-5):
                nn.utils.vector_to_parameters(theta + step * unit, model.parameters())
                ends.append(model(X))
            columns.append((ends[0] - ends[1]) / 2e-5)
        nn.utils.vector_to_parameters(theta, model.parameters())
        J, p = torch.stack(columns, -1), model(X).softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    dense = torch.einsum("nap,nab,nbq->pq", J, middle, J) / 5
    return la.GGN(model, nn.CrossEntropyLoss(), (X, y)), np.linalg.eigvalsh(dense.numpy())[::-1]


def test_more_steps_than_a_gauss_newton_matrix_has_rank() -> None:
    G, truth = low_rank()
    assert G.shape == (171, 171) and truth[9] > 1e-6 > 1e-7 > abs(truth[10])
    pairs = la.eigenpairs(G, 40, tol=1e-8, max_steps=400)
    assert pairs.converged and bool(pairs.values.isfinite().all())
    assert pairs.values.numpy() == pytest.approx(truth[:40], abs=1e-8 * truth[0])
    for steps in (5, 40, 80, 171):
        density = la.spectral_density(G, steps=steps, probes=5)
        nodes, weights = density.nodes.numpy(), density.weights.numpy()
        assert np.isfinite(nodes).all() and np.isfinite(weights).all() and weights.min() >= 0
        assert weights.sum() == pytest.approx(1, rel=1e-12)
        assert nodes.max() <= truth[0] * (1 + 1e-7) and nodes.min() >= -1e-9 * truth[0]
        if steps >= 40:
            assert nodes.max() == pytest.approx(truth[0], rel=1e-6) and density.matvecs <= 16 * 5
    assert la.trace(G).value == pytest.approx(truth.sum(), rel=1e-7)
    assert la.frobenius_norm(G, 1e-6).value == pytest.approx(np.linalg.norm(truth), rel=1e-6)


def test_a_density_is_one_curve_whatever_holds_it() -> None:
    """In curvlinops the function and the cached class smooth the same nodes by other widths."""
    density = la.spectral_density(low_rank()[0], 20, 3)
    grid = torch.linspace(-0.1, 1, 50, dtype=FLOAT)
    assert torch.equal(la.SpectralDensity.from_dict(density.to_dict()).evaluate(grid), density.evaluate(grid))
    continued = la.spectral_density(low := low_rank()[0], 20, 3, start=la.spectral_density(low, 5, 3, keep=True))
    assert close(continued.evaluate(grid), la.spectral_density(low, 20, 3).evaluate(grid), 1e-9)


# Wide operators and exports. curvlinops has no .T, and its inverses no adjoint and no export.


def test_a_wide_operator_has_a_transpose_a_norm_and_an_export() -> None:
    model, X = mlp(), batch(5)[0]
    J = la.Jacobian(model, X)
    dense = J.dense()
    assert J.shape == (15, 51) and J.T.shape == (51, 15) and J.T.T is J
    u, v = torch.randn(15, 2, dtype=FLOAT), torch.randn(51, 2, dtype=FLOAT)
    assert close(J.T @ u, dense.T @ u) and close(J @ v, dense @ v)
    assert (J.T.dtype, J.T.device) == (J.dtype, J.device) and list(J.split(v[:, 0])) == list(J.layout.names)
    for exported, matrix in ((J.to_scipy(), dense.numpy()), (J.T.to_scipy(), dense.numpy().T)):
        assert exported.shape == matrix.shape and exported.dtype == np.float64
        assert np.allclose(exported @ np.eye(matrix.shape[1]), matrix, atol=1e-13)
        assert np.allclose(exported.adjoint() @ np.eye(matrix.shape[0]), matrix.T, atol=1e-13)
        assert np.allclose(np.ones(matrix.shape[0]) @ exported, matrix.sum(0), atol=1e-13)
        largest = scipy.sparse.linalg.svds(exported, 1, return_singular_vectors=False, random_state=0)[0]
        assert largest == pytest.approx(np.linalg.svd(matrix)[1][0], rel=1e-9)
    K = la.NTK(model, X)  # ‖J‖² = tr JJᵀ, λmax = σmax²
    assert la.trace(K, 1e-6).value == pytest.approx(float(dense.square().sum()), rel=1e-9)
    assert float(la.eigenpairs(K, tol=1e-9).values) == pytest.approx(np.linalg.svd(dense.numpy())[1][0] ** 2, rel=1e-8)
    with pytest.raises(OperandError, match=r"given Jacobian.*la\.NTK"):
        la.frobenius_norm(J)  # type: ignore[arg-type]


def everything() -> dict[str, la.Operator]:
    model, data, loss = mlp(), batch(), nn.CrossEntropyLoss()
    H, G = la.Hessian(model, loss, data), la.GGN(model, loss, data)
    return {
        "Hessian": H,
        "fresh": la.Hessian(model, loss, data, memory_cap=0),
        "GGN": G,
        "Fisher": la.Fisher(model, loss, data, samples=2),
        "empirical": la.EmpiricalFisher(model, loss, data),
        "NTK": la.NTK(model, data[0]),
        "sum": H - 2 * G,
        "shifted": G.shift(0.1),
        "restricted": H.restrict("*weight"),
        "blocks": H.block_diagonal(),
        "float32": la.GGN(model, loss, data, dtype=torch.float32),
    }


def test_every_operator_goes_to_scipy_with_its_adjoint() -> None:
    for name, operator in everything().items():
        matrix, exported = operator.dense().numpy(), operator.to_scipy()
        tol = 1e-4 if name == "float32" else 1e-11
        array = np.random.default_rng(0).standard_normal((len(matrix), 3)).astype(matrix.dtype)
        assert exported.dtype == matrix.dtype and exported.shape == matrix.shape
        assert np.allclose(exported @ array, matrix @ array, atol=tol), name
        assert np.allclose(exported.adjoint() @ array, matrix @ array, atol=tol), name
        assert np.allclose(array[:, 0] @ exported, matrix @ array[:, 0], atol=tol), name
        assert operator.T is operator


def test_scipy_solves_a_damped_system_through_the_export() -> None:
    G = everything()["shifted"]
    b = np.random.default_rng(0).standard_normal(51)
    x, info = scipy.sparse.linalg.cg(G.to_scipy(), b, rtol=1e-10)
    assert info == 0 and np.allclose(x, np.linalg.solve(G.dense().numpy(), b), atol=1e-7)
