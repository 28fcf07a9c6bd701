"""The benchmark's truths against closed forms, its judgement of accuracy against wrong contenders, and every part on a tiny size.

Truth: softmax regression, H = Σ_n (diag p_n − p_n p_nᵀ) ⊗ x_n x_nᵀ / N. No time is asserted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lemmata.studies.benchmarks import curvature, densities, eigen, kernels, memory, products, search, slices, traces
from lemmata.studies.benchmarks.peers import PEERS, doubling
from lemmata.studies.benchmarks.problems import (
    Problem,
    by_magnitude,
    gpt,
    true_eigenvalues,
    true_spectrum,
    true_trace,
)
from lemmata.studies.benchmarks.search import Entrant, contest, reach
from lemmata.studies.benchmarks.table import Row, Target, failed, timed_row

PLACE = ("work", "model")
NAMES = ("one product", "block of 16", "trace, 20 probes")


pytestmark = pytest.mark.usefixtures("settings_are_kept")


def regression(straight: bool = True) -> tuple[Problem, np.ndarray]:
    """Softmax regression and its Hessian in closed form."""
    x, y = torch.randn(40, 6), torch.randint(0, 4, (40,))
    model = nn.Linear(6, 4, bias=False)
    p = (x.double() @ model.weight.detach().double().T).softmax(1).numpy()
    parts = [np.kron(np.diag(q) - np.outer(q, q), np.outer(v, v)) for q, v in zip(p, x.double().numpy(), strict=True)]
    return Problem("regression", model, nn.CrossEntropyLoss(), (x, y), straight), sum(parts) / len(x)


def small(activation: nn.Module, straight: bool) -> Problem:
    model = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 4))
    batch = torch.randn(32, 6), torch.randint(0, 4, (32,))
    return Problem("small", model, nn.CrossEntropyLoss(), batch, straight)


# ---------------------------------------------------------------- truths


@pytest.mark.parametrize("straight", [True, False])
def test_true_trace_is_the_closed_form(straight: bool) -> None:
    problem, H = regression(straight)
    assert true_trace(problem) == (pytest.approx(np.trace(H), rel=1e-12), 0.0)


def test_a_sampled_trace_states_an_error_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, H = regression(straight=False)
    for name, value in (("_DENSE", 0), ("_SPAN", 4)):
        monkeypatch.setattr(f"lemmata.studies.benchmarks.problems.{name}", value)
    value, stderr = true_trace(problem)
    assert 0 < stderr < 0.05 * value and abs(value - np.trace(H)) < 4 * stderr


def test_the_trace_of_a_smooth_network_is_not_that_of_its_jacobians() -> None:
    """What `straight` claims is true of ReLU and false of tanh."""
    relu, tanh = small(nn.ReLU(), True), small(nn.Tanh(), True)
    exact = [float(true_spectrum(problem).sum()) for problem in (relu, tanh)]
    assert true_trace(relu)[0] == pytest.approx(exact[0], rel=1e-10)
    assert abs(true_trace(tanh)[0] - exact[1]) > 1e-3 * exact[1]


def test_true_eigenvalues_are_the_closed_form() -> None:
    problem, H = regression()
    values = np.linalg.eigvalsh(H)
    assert torch.allclose(true_spectrum(problem), torch.from_numpy(values), atol=1e-12)
    assert torch.allclose(true_eigenvalues(problem, 3), torch.from_numpy(values[::-1][:3].copy()), rtol=1e-10)


def test_true_products_are_the_closed_form() -> None:
    problem, H = regression()
    v = torch.randn(24, dtype=torch.float64)
    for product in (problem.double.hessian_product(v), problem.double.ggn_product(v)):
        assert torch.allclose(product, torch.from_numpy(H) @ v, rtol=1e-10)


def test_problems_on_text_train_a_network() -> None:
    problem = gpt("cpu", 8, 2, 8)
    assert problem.batch[0].shape == problem.batch[1].shape == (2, 8)
    assert float(problem.loss(problem.model(problem.batch[0]), problem.batch[1]).detach()) < np.log(27)


# ---------------------------------------------------------------- accuracy first


def constant(*values: float) -> list[tuple[str, Any]]:
    return [(f"rung {place}", lambda seed, value=value: value) for place, value in enumerate(values)]


def test_a_search_takes_the_least_budget_that_is_accurate() -> None:
    found = reach(constant(3.0, 1.1, 1.001, 1.0), lambda value: abs(value - 1), 0.01, 3, "cpu", 60.0)
    assert found.accurate and found.setting == "rung 2"


def test_a_search_asks_the_median_over_seeds() -> None:
    """One lucky seed of three is not enough."""
    lucky = [("lucky", lambda seed: 1.0 if seed == 0 else 2.0), ("good", lambda seed: 1.0 if seed else 2.0)]
    found = reach(lucky, lambda value: abs(value - 1), 0.01, 3, "cpu", 60.0)
    assert found.setting == "good" and found.errors == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("most", [60.0, 0.0])
def test_a_contender_that_never_gets_there_is_not_called_accurate(most: float) -> None:
    found = reach(constant(3.0, 2.0), lambda value: abs(value - 1), 0.01, 1, "cpu", most)
    assert not found.accurate and found.setting == ("rung 1" if most else "rung 0")


def test_a_contest_prints_every_contender_and_every_failure() -> None:
    def broken() -> Any:
        raise ValueError("sequence outputs\nare not supported")

    rows = contest(
        PLACE,
        {"lemmata": constant(1.0)},
        {"wrong": lambda: {"": constant(2.0)}, "broken": broken, "right": lambda: {"way": constant(1.0)}},
        dict.fromkeys(("wrong", "broken", "right"), Target("≥", 1e9)),
        lambda value: abs(value - 1),
        0.01,
        3,
        "cpu",
        2,
    )
    found = {row.contender: row for row in rows}
    assert set(found) == {"lemmata", "wrong", "broken", "right, way"}
    assert found["broken"].ratio is None and "ValueError: sequence outputs are not supported" in str(found["broken"])
    assert found["wrong"].met is None and "not yet accurate" in found["wrong"].note
    assert found["right, way"].met is False and "MISSED" in str(found["right, way"])


def test_a_missing_peer_says_so() -> None:
    assert failed(PLACE, "peer", ImportError("No module named 'peer'")).note.startswith("not installed: No module")


def test_a_target_is_judged_by_the_median_ratio() -> None:
    rounds = [{"ours": 1.0, "it": ratio} for ratio in (1.0, 2.0, 9.0)]
    row = timed_row(PLACE, "it", rounds, ("ours", "ours"), None, Target("≥", 2.5))
    assert (row.ratio, row.met, row.target, row.rounds) == (2.0, False, "≥ 2.5", 3)
    assert timed_row(PLACE, "it", rounds, ("ours", "ours"), None, Target("≤", 2.5)).met


# ---------------------------------------------------------------- every part, tiny


def peers_are_there() -> None:
    for name in ("pyhessian", "curvlinops", "hessian_eigenthings"):
        pytest.importorskip(name)


def test_products_are_compared_with_the_truth() -> None:
    peers_are_there()
    problem = small(nn.Tanh(), False)
    rows = products.measure(problem, {"product": Target("≤", 1e9)}, "cpu", 2)
    judged = {row.contender: row for row in rows}
    assert judged["lemmata, product"].met and judged["lemmata, GGN product"].target == "≤ 1.6"
    for peer in PEERS:
        assert judged[f"{peer.name}, product"].error < 1e-5
    wrong = problem.double.hessian_product(torch.ones(problem.size, dtype=torch.float64))
    assert products._error(1.01 * wrong, wrong) == pytest.approx(0.01)


def test_eigenvalues_of_all_contenders_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    peers_are_there()
    monkeypatch.setattr(eigen, "K", 3)
    monkeypatch.setattr("lemmata.studies.benchmarks.peers.RUNGS", 2)
    monkeypatch.setattr(search, "BUDGET", 0.0)
    rows = eigen.measure(small(nn.Tanh(), False), "cpu", 2)
    assert len(rows) == 6 and all(row.error < 5e-3 for row in rows if "given up" not in row.note)
    assert {row.target for row in rows} == {"", "≥ 5", "≥ 2"}


@pytest.mark.parametrize(("straight", "asked"), [(True, "≥ 10"), (False, "≥ 3")])
def test_traces_of_all_contenders(straight: bool, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peers_are_there()
    monkeypatch.setattr(search, "BUDGET", 0.0)
    monkeypatch.setattr("lemmata.studies.benchmarks.peers.RUNGS", 2)
    problem = small(nn.ReLU() if straight else nn.Tanh(), straight)
    rows = traces.measure(problem, "cpu", 2)
    assert len(rows) == 8 and rows[2].target == asked
    assert rows[0].error < (1e-5 if straight else 0.01)


def test_a_reference_that_is_too_rough_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "true_trace", lambda problem: (1.0, 0.1))
    with pytest.raises(RuntimeError, match="draw more probes"):
        traces.measure(small(nn.Tanh(), False), "cpu", 2)


def test_densities_are_compared_with_the_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    peers_are_there()
    monkeypatch.setattr(densities, "BUDGET", 0.0)
    rows = {row.contender: row for row in densities.measure(small(nn.Tanh(), False), "cpu", 2, steps=12, probes=2)}
    assert rows["lemmata"].error < 0.05
    assert rows["hessian-eigenthings"].error < 0.05
    assert rows["PyHessian"].ratio is None and "RuntimeError" in rows["PyHessian"].note  # torch.eig is gone


def test_the_distance_of_densities_is_wassersteins() -> None:
    says = densities.Distance(torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64))
    nodes, even = torch.tensor([4.0, 0.0, 1.0, 2.0]), torch.full((4,), 0.25)
    assert says.error((nodes, even)) == 0.0
    assert says.error((nodes + 0.5, even)) == pytest.approx(0.5 / 4)


def test_slices_are_walked_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = small(nn.Tanh(), False)
    before = [parameter.detach().clone() for parameter in problem.parameters]
    rows = slices.measure(problem, "cpu", 2, points=5)
    assert [row.target for row in rows] == ["", "≥ 1"] and max(row.error for row in rows) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(before, problem.parameters, strict=True))
    whole = [loop(0, 5) for loop in slices.Plane(problem, 5).loops().values()]
    assert torch.allclose(whole[0], whole[1]) and torch.allclose(whole[0], whole[2])
    monkeypatch.setattr(slices.Plane, "moved", lambda self, first, stop: 2 * self.called(first, stop))
    with pytest.raises(RuntimeError, match="disagree"):
        slices.measure(problem, "cpu", 2, points=5)


def test_kernels_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = small(nn.Tanh(), False)
    rows = kernels.measure(problem, problem.batch[0][:6], Target("≥", 0.0), "cpu", 2)
    assert [row.met for row in rows] == [None, True, True] and max(row.error for row in rows) < 1e-5
    monkeypatch.setattr(kernels, "by_products", lambda problem, left, right: torch.zeros(2, 6, 4, 4))
    with pytest.raises(RuntimeError, match="disagree"):
        kernels.measure(problem, problem.batch[0][:6], Target("≥", 0.0), "cpu", 2)


def test_peak_memory_is_what_is_held_at_a_time() -> None:
    def after_another() -> None:
        for _ in range(3):
            torch.empty(2**20, dtype=torch.uint8)

    def together() -> list[Tensor]:
        return [torch.empty(2**20, dtype=torch.uint8) for _ in range(3)]

    assert memory.peak(after_another, "cpu") == pytest.approx(2**20, abs=4096)
    assert memory.peak(together, "cpu") == pytest.approx(3 * 2**20, abs=4096)


def test_memory_of_a_trace_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROBES", 20)
    rows = {row.contender: row for row in memory.measure(small(nn.Tanh(), False), "cpu")}
    assert rows["one product"].ratio == 1.0
    assert [row.target for row in rows.values() if row.met is not None] == ["≤ 1.3"] * 2
    assert set(rows) == {f"{name}{cap}" for cap in ("", ", nothing kept") for name in NAMES}


# ---------------------------------------------------------------- the command


def test_main_runs_the_parts_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("trace", "model", "peer", "ours", 2.0, 3.0, 2.5, 3.5, 7, 1e-3, "≥ 2", True, "64 products")
    monkeypatch.setitem(curvature.PARTS, "trace", lambda device, repeats: iter([row]))
    curvature.main(["--only", "trace", "--repeats", "7", "--json", str(tmp_path / "rows.json")])
    said = capsys.readouterr().out
    assert "≥ 2 met" in said and "1 of 1 targets met" in said
    record = json.loads((tmp_path / "rows.json").read_text())
    assert record["threads"] == 1 and record["rows"][0]["ratio"] == 3.0 and record["rows"][0]["met"] is True


def test_main_refuses_a_part_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        curvature.main(["--only", "trace,speed"])
    said = capsys.readouterr().err
    assert "given speed" in said and "kernel" in said


def test_budgets_double() -> None:
    assert doubling(12)[:4] == [12, 24, 48, 96]
    assert by_magnitude(torch.tensor([1.0, -3.0, 2.0])).tolist() == [-3.0, 2.0, 1.0]
    assert isinstance(Entrant("", float, abs), Entrant)
