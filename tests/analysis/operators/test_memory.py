"""Where memory runs out: blocks are halved, graphs dropped, and the operator says so. Truth: the dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import CapacityError
from lemmata.analysis.operators.engine import Fresh, Retained
from lemmata.analysis.operators.gauss_newton import GaussNewtonGraph, GaussNewtonProducts
from lemmata.analysis.operators.hessian import GradientGraph, SecondDerivatives

KINDS = pytest.mark.parametrize(
    ("kind", "graph", "curvature"),
    [(la.Hessian, GradientGraph, SecondDerivatives), (la.GGN, GaussNewtonGraph, GaussNewtonProducts)],
    ids=["Hessian", "GGN"],
)
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.\nSecond line.")


def build(kind: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    X, y = torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 3, (9,))
    return kind(model, nn.CrossEntropyLoss(), [(X[:2], y[:2]), (X[2:], y[2:])], **options)


def limited(method: Callable, most: int, seen: list[int]) -> Callable:
    """The method, on a device that has room for ``most`` products at a time."""

    def multiply(self: Any, pieces: list[Tensor], theta: list[Tensor], batched: bool) -> Any:
        seen.append(len(pieces[0]) if batched else 1)
        if seen[-1] > most:
            raise FULL
        return method(self, pieces, theta, batched)

    return multiply


@KINDS
@pytest.mark.parametrize("most", [5, 1])
def test_blocks_are_halved_until_they_fit(monkeypatch: Any, kind: Any, graph: Any, curvature: Any, most: int) -> None:
    truth, operator, seen = build(kind).dense(), build(kind), list[int]()
    assert "memory ran out" not in repr(operator)
    monkeypatch.setattr(graph, "multiply", limited(graph.multiply, most, seen))
    V = torch.randn(len(truth), 21, dtype=torch.float64)
    torch.testing.assert_close(operator @ V, truth @ V, rtol=0, atol=1e-13)
    tried = [size for size in dict.fromkeys(seen) if size > most]
    assert tried == [21, 10] + [5, 2] * (most == 1)  # halved, not dropped to one at once
    assert max(seen[-6:]) == (5 if most == 5 else 1)
    for shown in (repr(operator), repr(operator.plan()), operator.mode):
        assert f"at most {most} products at a time since memory ran out" in shown
    before = len(seen)
    operator @ V
    assert max(seen[before:]) == most  # what did not fit is not tried again


@KINDS
def test_one_product_too_large_is_named(monkeypatch: Any, kind: Any, graph: Any, curvature: Any) -> None:
    operator = build(kind)
    monkeypatch.setattr(graph, "multiply", limited(graph.multiply, 0, []))
    with pytest.raises(CapacityError, match=r"CrossEntropyLoss.*one product.*3\.00 GiB\. Cut the data.*memory_cap=0"):
        operator @ torch.ones(len(operator.gradient), dtype=torch.float64)


@KINDS
def test_graphs_that_do_not_fit_are_dropped(monkeypatch: Any, kind: Any, graph: Any, curvature: Any) -> None:
    truth, record = build(kind).dense(), curvature.record

    def full(self: Any, term: Any, objective: Any, retain: bool) -> Any:
        if retain and term.index == 1:
            raise FULL
        return record(self, term, objective, retain)

    monkeypatch.setattr(curvature, "record", full)
    operator = build(kind)
    assert isinstance(operator._start.engine, Fresh) and "fresh" in operator.mode
    assert "memory ran out while graphs were kept" in repr(operator)
    torch.testing.assert_close(operator.dense(), truth, rtol=0, atol=1e-13)

    def too_full(self: Any, term: Any, objective: Any, retain: bool) -> Any:
        raise FULL

    monkeypatch.setattr(curvature, "record", too_full)
    with pytest.raises(CapacityError, match=r"batch 0.*smaller batches"):
        build(kind)


@KINDS
def test_memory_on_the_way_of_a_fresh_product(monkeypatch: Any, kind: Any, graph: Any, curvature: Any) -> None:
    def full(self: Any, term: Any, theta: Any, vector: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried")

    operator = build(kind, memory_cap=0)
    monkeypatch.setattr(curvature, "apply", full)
    with pytest.raises(CapacityError, match="DefaultCPUAllocator.*smaller batches"):
        operator @ torch.ones(len(operator.gradient), dtype=torch.float64)


@KINDS
def test_a_cap_below_the_graphs_says_what_they_need(kind: Any, graph: Any, curvature: Any) -> None:
    roomy = build(kind)
    held = roomy._start.engine.held
    assert isinstance(roomy._start.engine, Retained) and "MiB" not in repr(roomy)
    tight = build(kind, memory_cap=held - 1)
    needed, cap = (f"{size / 2**20:.3g} MiB" for size in (held, held - 1))
    for shown in (repr(tight), repr(tight.plan())):
        assert f"graphs would take {needed} of {cap}" in shown
    assert "graphs" not in repr(build(kind, memory_cap=0))  # nothing was to be kept, so nothing was measured
    torch.testing.assert_close(tight.dense(), roomy.dense(), rtol=0, atol=1e-13)
