"""Lazy or rich, against kernels from central differences."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError, LemmataError, ParameterError
from lemmata.analysis.gradient_flow import LazyRich

FLOAT = torch.float64


def network(width: int = 4, outputs: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, outputs)).to(FLOAT)


def drawn(n: int, columns: int, seed: int) -> Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def moved(model: nn.Module, size: float, seed: int = 7) -> nn.Module:
    other, flat = deepcopy(model), parameters_to_vector(model.parameters()).detach()
    step = torch.randn(len(flat), generator=torch.Generator().manual_seed(seed), dtype=FLOAT)
    vector_to_parameters(flat + size * step.to(flat.dtype), other.parameters())
    return other


def differences(model: nn.Module, x: Tensor, h: float = 1e-5) -> Tensor:
    """J by central differences of the outputs, (M, P)."""
    probe, flat = deepcopy(model), parameters_to_vector(model.parameters()).detach()
    columns = []
    for unit in torch.eye(len(flat), dtype=FLOAT):
        ends = []
        for sign in (1, -1):
            vector_to_parameters(flat + sign * h * unit, probe.parameters())
            ends.append(probe(x).detach().flatten())
        columns.append((ends[0] - ends[1]) / (2 * h))
    return torch.stack(columns, 1)


def by_hand(before: nn.Module, after: nn.Module, x: Tensor) -> tuple[float, float, float]:
    """The three numbers from differences, without a jackknife."""
    (A, B), (f, g) = (differences(m, x) for m in (before, after)), (m(x).detach().flatten() for m in (before, after))
    start, end = (parameters_to_vector(m.parameters()).detach() for m in (before, after))
    K, L = A @ A.T, B @ B.T
    gap = (g - f - A @ (end - start)).norm() / (g - f).norm()
    return float((L - K).norm() / K.norm()), 1 - float((K * L).sum() / K.norm() / L.norm()), float(gap)


def test_numbers_and_jackknife_are_those_of_differences() -> None:
    before, x = network(), drawn(6, 3, 1)
    after = moved(before, 0.3)
    found = la.lazy_rich(before, after, x)
    values = [found.kernel_change, found.kernel_distance, found.linear_gap]
    truth = np.array(by_hand(before, after, x))
    assert np.allclose([float(v) for v in values], truth, rtol=1e-6)
    left = np.array([by_hand(before, after, torch.cat([x[:i], x[i + 1 :]])) for i in range(6)])
    stderr = np.sqrt(5 / 6 * ((left - left.mean(0)) ** 2).sum(0))
    assert np.allclose([v.stderr for v in values], stderr, rtol=1e-5)
    start, end = (parameters_to_vector(m.parameters()).detach() for m in (before, after))
    assert found.parameter_change == pytest.approx(float((end - start).norm() / start.norm()))
    assert not np.allclose(np.array(by_hand(before, moved(before, 0.31), x)), truth, rtol=1e-2)


def test_a_linear_model_is_lazy_and_a_trained_narrow_network_is_not() -> None:
    line = nn.Linear(3, 2).to(FLOAT)
    found = la.lazy_rich(line, moved(line, 5.0), drawn(20, 3, 2))
    assert float(found.kernel_change) == float(found.kernel_distance) == 0
    assert float(found.linear_gap) < 1e-14 and found.verdict == "lazy" and found.converged
    before, x = network(), drawn(40, 3, 3)
    found = la.lazy_rich(before, moved(before, 1.0), x)
    assert found.verdict == "rich" and float(found.linear_gap) > 0.3
    few = la.lazy_rich(before, moved(before, 0.12), x[:3], tol=0.01)
    assert few.verdict == "undecided" and not few.converged and "not converged" in repr(few)
    slight = [la.lazy_rich(before, moved(before, size), x) for size in (1e-4, 1e-5)]
    for name, power in (
        ("kernel_change", 1),
        ("kernel_distance", 2),
        ("linear_gap", 1),
    ):  # also where digits are scarce
        ratio = float(getattr(slight[0], name)) / float(getattr(slight[1], name))
        assert ratio == pytest.approx(10**power, rel=0.01)


def test_the_scale_of_a_kernel_is_no_distance() -> None:
    before = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).to(FLOAT)
    vector_to_parameters(torch.tensor([1.0, 1.0], dtype=FLOAT), before.parameters())
    after = deepcopy(before)
    vector_to_parameters(torch.tensor([3.0, 3.0], dtype=FLOAT), after.parameters())
    found = la.lazy_rich(before, after, drawn(5, 1, 4))
    assert float(found.kernel_change) == pytest.approx(8) and float(found.kernel_distance) < 1e-15
    assert float(found.linear_gap) == pytest.approx(1 / 2)  # 9 − 1 of which J Δθ makes 4
    assert found.linear_gap.stderr < 1e-12


def test_intervals_cover_other_inputs_of_the_same_source() -> None:
    before = network()
    after = moved(before, 0.3)
    runs = [la.lazy_rich(before, after, drawn(30, 3, 100 + k)) for k in range(60)]
    for name in ("kernel_change", "linear_gap"):
        mean = np.mean([float(getattr(run, name)) for run in runs])
        inside = [low <= mean <= high for low, high in (getattr(run, name).interval() for run in runs)]
        assert sum(inside) >= 50  # 95 % of 60 is 57
        beside = [low <= 1.6 * mean <= high for low, high in (getattr(run, name).interval() for run in runs)]
        assert sum(beside) < 20


def test_what_it_refuses_and_what_it_leaves_alone() -> None:
    before, x = network(), drawn(5, 3, 5)
    after = moved(before, 0.2)
    kept = [deepcopy(m.state_dict()) for m in (before, after)]
    found = la.lazy_rich(before, after, x)
    for model, state in zip((before, after), kept, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
    again = LazyRich.from_dict(found.to_dict())
    assert again.linear_gap == found.linear_gap and torch.equal(again.gaps, found.gaps)
    assert len(found.plot().lines) == 2
    cases: list[tuple[Callable[[], Any], type[LemmataError], str, str]] = [
        (lambda: la.lazy_rich(before, before, x), ParameterError, "after", "copy.deepcopy"),
        (lambda: la.lazy_rich(before, network(5), x), ParameterError, "0.weight", "same network"),
        (lambda: la.lazy_rich(before, after, x, params="2.*"), ParameterError, "after", "choose every parameter"),
        (lambda: la.lazy_rich(before, after, x[:2]), DataError, "inputs", "more inputs"),
        (lambda: la.lazy_rich(before, after, x, tol=0), ArgumentError, "tol", "default"),
        (lambda: la.lazy_rich(before, after, x, level=2), ArgumentError, "level", "default"),
    ]
    for run, kind, name, remedy in cases:
        with pytest.raises(kind, match=remedy) as caught:
            run()
        assert name in str(caught.value)


def test_batch_statistics_leave_no_error_over_inputs() -> None:
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).to(FLOAT)
    after = moved(before, 0.1)
    after[1].running_mean.add_(1.0)
    found = la.lazy_rich(before, after, drawn(8, 3, 6), batch_stats="batch")
    assert found.linear_gap.stderr == inf and found.verdict == "undecided" and not found.converged
    with pytest.raises(ParameterError, match="batch_stats='batch'"):
        la.lazy_rich(before, after, drawn(8, 3, 6), batch_stats="frozen")


def test_rounding_makes_no_lazy_network_rich() -> None:
    torch.manual_seed(0)
    before, x = nn.Linear(20, 1), torch.randn(50, 20)
    nn.init.constant_(before.weight, 100.0)
    after = deepcopy(before)
    with torch.no_grad():
        after.weight.mul_(1 + 2e-7 * torch.randn(1, 20))
    found = la.lazy_rich(before, after, x)
    assert float(found.linear_gap) > 0.1 and found.verdict == "undecided" and not found.converged
    exact = la.lazy_rich(before, after, x, dtype=FLOAT)
    assert exact.verdict == "lazy" and exact.converged
    assert all(e.bias > 0 for e in (found.kernel_change, found.kernel_distance))
