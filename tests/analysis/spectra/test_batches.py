"""The error bar of the data: the jackknife over batches against closed forms and fresh draws, and where it is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lemmata.analysis as la
from lemmata.analysis.spectra.batches import BatchTraces, Noting, spread

MSE = nn.MSELoss()
Data = list[tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Plain(nn.Module):
    """A linear map that no structure is seen in, so that its trace takes products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(width, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def linear(width: int) -> nn.Module:
    return nn.Linear(width, 1, bias=False).double()


def batches(sizes: list[int], width: int, scales: Any = 1.0) -> Data:
    return [(torch.randn(n, width).double() * scales, torch.randn(n, 1).double()) for n in sizes]


def left_out(data: Data) -> float:
    """The jackknife by its definition: every T_(b) from the data without batch b, tr H = (2/N) Σ ‖x‖²."""
    squares = [(x.numpy() ** 2).sum() for x, _ in data]
    sizes = np.array([len(x) for x, _ in data], dtype=float)
    total, count, number = sum(squares), sizes.sum(), len(data)
    whole = 2 * total / count
    left = np.array([2 * (total - s) / (count - n) for s, n in zip(squares, sizes, strict=True)])
    h = count / sizes
    centre = number * whole - ((1 - 1 / h) * left).sum()
    return float(np.sqrt((((h * whole - (h - 1) * left - centre) ** 2) / (h - 1)).mean()))


@pytest.mark.parametrize("kind", [la.Hessian, la.GGN])
@pytest.mark.parametrize("sizes", [[4, 4, 4, 4, 4], [3, 9, 5], [6, 2]])
def test_the_exact_route_is_the_jackknife_by_its_definition(kind: Any, sizes: list[int]) -> None:
    data = batches(sizes, 6)
    found = la.trace(kind(linear(6), MSE, data))
    assert found.method == "per-example gradients" and found.batches == len(sizes)
    assert found.data_stderr == pytest.approx(left_out(data), rel=1e-10)
    means = np.array([2 * float((x**2).sum()) / len(x) for x, _ in data])
    if len(set(sizes)) > 1:  # weights that are ignored tell
        assert found.data_stderr != pytest.approx(means.std(ddof=1) / np.sqrt(len(means)), rel=0.02)


def test_a_sum_over_as_many_examples() -> None:
    data = batches([3, 9, 5], 6)
    mean, total = (la.trace(la.GGN(linear(6), nn.MSELoss(reduction=r), data)) for r in ("mean", "sum"))
    assert mean.data_stderr and total.data_stderr
    assert total.data_stderr == pytest.approx(17 * mean.data_stderr, rel=1e-10)
    assert total.data_stderr != pytest.approx(3 * mean.data_stderr, rel=1e-2)


def test_batches_whose_targets_are_all_ignored_are_no_data() -> None:
    loss = nn.CrossEntropyLoss(reduction="sum")
    data = [(torch.randn(n, 4).double(), torch.randint(0, 3, (n,))) for n in (3, 5, 4)]
    model = nn.Linear(4, 3).double()
    truth = la.trace(la.GGN(model, loss, data))
    ignored = [*data, (torch.randn(6, 4).double(), torch.full((6,), -100))]
    found = la.trace(la.GGN(model, loss, ignored))
    assert found.batches == 3 and found.data_stderr == pytest.approx(truth.data_stderr, rel=1e-12)


@pytest.mark.parametrize("cap", [None, 0])
def test_unit_vectors_and_probes_see_each_batch(cap: int | None) -> None:
    data = batches([3, 9, 5], 30)
    H = la.Hessian(Plain(30), MSE, data, memory_cap=cap)
    exact = la.trace(H, tol=1e-6)
    assert exact.method == "unit vectors" and exact.data_stderr == pytest.approx(left_out(data), rel=1e-10)
    found = la.trace(H, tol=0.9, seed=5)
    assert found.method == "Hutchinson" and found.matvecs == 10
    signs = torch.empty(10, 30, dtype=torch.int8)
    generator = torch.Generator().manual_seed(5)
    for row in signs:
        row.random_(0, 2, generator=generator)
    z = signs.double().numpy() * 2 - 1
    forms = np.stack([2 * ((z @ x.numpy().T) ** 2).mean(1) for x, _ in data], 1)  # zᵀ H_b z
    share = np.array([3, 9, 5]) / 17

    def square(means: np.ndarray) -> float:
        return float(((means - means @ share) ** 2 / (1 / share - 1)).mean())

    noise = sum(square(row) for row in forms - forms.mean(0)) / 90
    whole = square(forms.mean(0))
    assert found.value == pytest.approx(forms.mean(0) @ share, rel=1e-12)
    assert found.data_stderr == pytest.approx(np.sqrt(max(whole - noise, whole / 2)), rel=1e-10)


def test_deflation_keeps_the_parts() -> None:
    scales = torch.tensor([30.0, 20, 10] + [0.3] * 197).double()
    data = batches([20, 30, 40], 200, scales)
    H = la.Hessian(Plain(200), MSE, data)
    alone = BatchTraces(Noting(H), 0.002, 2000, 0, 16)
    found = alone.run()
    assert found.method == "Hutch++" and len(alone.forms) == found.dof + 1
    parts = alone.parts + alone.forms.mean(0)
    assert float(parts.sum()) == pytest.approx(found.value, rel=1e-12)
    plain = la.trace(H.shift(0.0), 0.002)  # the same matrix, whose batches are not seen
    assert plain.data_stderr is None and plain.value == pytest.approx(found.value, rel=1e-12)
    truth = [float((x**2).sum()) / 45 for x, _ in data]
    assert parts.tolist() == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize(
    ("tol", "method", "within"), [(1e-9, "layer units", 1e-8), (0.01, "control variate, layer probes", 0.02)]
)
def test_layers_keep_the_parts(tol: float, method: str, within: float) -> None:
    model = nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 1)).double()
    data = batches([7, 4, 9], 5)
    with torch.no_grad():
        data = [(x, model(x) + 0.05 * y) for x, y in data]
    found = la.trace(la.Hessian(model, MSE, data), tol=tol)
    assert found.method == method and found.batches == 3
    share = torch.tensor([7.0, 4, 9]).double() / 20
    dense = torch.tensor([float(la.Hessian(model, MSE, batch).dense().trace()) for batch in data], dtype=torch.float64)
    assert found.data_stderr == pytest.approx(spread(dense * share, [7, 4, 9])[0], rel=within)
    assert found.data_stderr != pytest.approx(spread(dense, [7, 4, 9])[0], rel=within)  # batches weigh by their sizes


def test_mean_square_is_the_variance_over_data_sets() -> None:
    sizes, width, squares, copies = [3, 5, 4, 8, 2, 6], 3, [], []
    for _ in range(150):
        squares.append(la.trace(la.GGN(linear(width), MSE, batches(sizes, width))).data_stderr)
    for _ in range(10):
        copies.append(la.trace(la.GGN(linear(width), MSE, batches(sizes[:1], width) * 10)).data_stderr)
    truth = 4 * 2 * width / sum(sizes)  # of (2/N) Σ ‖x‖², x standard normal
    assert np.mean(np.square(squares)) == pytest.approx(truth, rel=0.2)  # 4 standard errors of the mean
    assert np.mean(np.square(copies)) < 1e-20 * 8 * width / sizes[0]  # copies are no draws: their spread tells nothing


def test_mean_square_is_cleared_of_the_probes() -> None:
    width, sizes, cleared, raw = 4, [10] * 8, [], []
    for seed in range(250):
        H = la.Hessian(Plain(width), MSE, batches(sizes, width))
        estimate = BatchTraces(Noting(H), 0.9, 10, seed, 16)
        assert estimate.run().matvecs == 10
        cleared.append(spread(estimate.parts, sizes, estimate.forms)[0])
        raw.append(spread(estimate.parts + estimate.forms.mean(0), sizes)[0])
    truth = 4 * 2 * width / 80
    assert np.mean(np.square(cleared)) == pytest.approx(truth, rel=0.15)
    assert np.mean(np.square(raw)) > 1.2 * truth


def test_what_has_no_batches_has_no_error_of_the_data() -> None:
    data = batches([4, 4, 4], 6)
    G = la.GGN(linear(6), MSE, data)
    one = la.trace(la.GGN(linear(6), MSE, data[0]))
    assert one.data_stderr is None and one.batches == 0 and "data" not in repr(one)
    for operator in (la.Dense(torch.eye(4)), 2 * G, G + G, G.shift(1.0), G.restrict("*")):
        assert la.trace(operator).data_stderr is None
    assert la.frobenius_norm(G).data_stderr is None


def test_batches_that_may_change_between_products_are_not_compared() -> None:
    x, y = torch.randn(24, 6).double(), torch.randn(24, 1).double()
    loaders = {shuffle: DataLoader(TensorDataset(x, y), 8, shuffle=shuffle) for shuffle in (False, True)}
    truth = left_out([(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)])
    for cap in (None, 0):
        found = la.trace(la.Hessian(Plain(6), MSE, loaders[False], memory_cap=cap), 1e-6)
        assert found.data_stderr == pytest.approx(truth, rel=1e-10)
    assert la.trace(la.Hessian(Plain(6), MSE, loaders[True], memory_cap=0), 1e-6).data_stderr is None
    kept = la.trace(la.Hessian(Plain(6), MSE, loaders[True]), 1e-6).data_stderr
    assert kept is not None and 0 < kept < 10 * truth


def test_few_batches_take_a_wide_interval() -> None:
    found = la.trace(la.GGN(linear(6), MSE, batches([5, 5], 6)))
    assert found.data_stderr
    stated = float(repr(found).split("data ± ")[1].rstrip(")"))
    assert stated == pytest.approx(12.706 * found.data_stderr, rel=0.05)  # Student's t with one degree of freedom
    record = found.to_dict()
    assert la.Estimate.from_dict(record) == found and record["batches"] == 2
