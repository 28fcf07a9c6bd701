"""The benchmark of gradient flow on tiny sizes: every contender is compared with the truth before it is timed.

Truth: plain backward passes, one example or one network after another, in double precision. No time is asserted.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lemmata.studies.benchmarks import draws, gradient_flow, gradients, kernels
from lemmata.studies.benchmarks.problems import Problem
from lemmata.studies.benchmarks.table import Row, Target
from lemmata.studies.measurements import measured

pytestmark = pytest.mark.usefixtures("settings_are_kept")


def small() -> Problem:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    return Problem("small", model, nn.CrossEntropyLoss(), (torch.randn(12, 6), torch.randint(0, 4, (12,))))


def test_norms_are_compared_and_their_memory_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = gradients.measure(small(), Target("≥", 1e9), "cpu", 2)
    times, sizes = rows[:4], rows[4:]
    contenders = ["lemmata", gradients.RECIPE, gradients.THRIFTY, gradients.GRADIENT]
    assert [row.contender for row in times] == [row.contender for row in sizes] == contenders
    assert all(row.error < 1e-5 for row in times[:3]) and [row.met for row in sizes] == [None, False, None, None]
    monkeypatch.setattr(gradients, "recipe", lambda problem: torch.ones(12))
    with pytest.raises(RuntimeError, match="norms of small disagree"):
        gradients.measure(small(), None, "cpu", 2)


def test_the_truth_of_the_norms_is_the_closed_form() -> None:
    """Squared error of a linear model: 2 |w·x − y| ‖x‖."""
    x, y = torch.randn(5, 3), torch.randn(5, 1)
    model = nn.Linear(3, 1, bias=False)
    problem = Problem("line", model, nn.MSELoss(), (x, y))
    closed = 2 * (model(x) - y).detach().abs()[:, 0] * x.norm(dim=1)
    assert torch.allclose(gradients.one_by_one(problem), closed, rtol=1e-5)


def test_draws_are_compared_over_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DRAWS", 3), ("DEPTH", 2), ("WIDTHS", (4, 80))):
        monkeypatch.setattr(draws, name, value)
    rows = list(draws.rows("cpu", 2))
    assert [row.target for row in rows if row.contender == draws.LOOP] == ["≥ 2", "≥ 2", "", ""]
    assert {row.note for row in rows if row.contender == "lemmata"} == {"side by side"}
    assert all(row.error < 1e-5 for row in rows if row.contender != "construction")
    monkeypatch.setattr(draws.Sizes, "each", lambda self, call, theta: call(theta, self.x).sum())
    with pytest.raises(RuntimeError, match="outputs at width 4 disagree"):
        list(draws.rows("cpu", 2))


def test_kernels_are_judged_by_their_geometric_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "problems", lambda device: iter([(small(), Target("≥", 3))] * 2))
    *rows, last = gradient_flow.tangent_kernels("cpu", 2)
    assert [row.target for row in rows] == ["", "≥ 0.9", "≥ 0.9"] * 2
    best = [min(row.ratio for row in found if row.target) for found in (rows[:3], rows[3:])]
    assert last.ratio == pytest.approx((best[0] * best[1]) ** 0.5, rel=1e-5)
    assert last.target == "≥ 5" and last.model == "all 2 networks"
    assert gradient_flow.mean([1.0, 1.0, 124.0]).met is False and gradient_flow.mean([1.0, 1.0, 126.0]).met


def test_main_writes_what_the_report_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("draws", "model", "a plain loop", "ours", 2.0, 3.0, 2.5, 3.5, 7, 1e-7, "≥ 2", True)
    monkeypatch.setitem(gradient_flow.PARTS, "draws", lambda device, repeats: iter([row]))
    gradient_flow.main(["--only", "draws", "--repeats", "7", "--json", str(tmp_path / "gradient-flow-cpu.json")])
    record = json.loads((tmp_path / "gradient-flow-cpu.json").read_text())
    assert record["rounds"] == 7 and record["rows"][0]["ratio"] == 3.0
    (page,) = measured(tmp_path)
    assert page.tables[0].title == "draws (gradient flow cpu)" and "met" in page.tables[0].rows[0]
