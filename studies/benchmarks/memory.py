"""The peak memory of a trace from 100 random probes, beside that of one product.

Bytes are counted, not sampled: PyTorch's own record of every allocation and release on the CPU, or its peak counter on
CUDA. What an operator keeps between products is counted on both sides, for it is built inside the measured call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import lemmata.analysis as la

from .problems import Problem, gpt, lstm, relu_mlp, wide
from .table import Row, Target, peak_row

WORK, PROBES, BLOCK = "memory", 100, 16
_TIGHT = 1e-9  # a tolerance that no number of probes meets
_TRACE = Target("≤", 1.3)


def peak(work: Callable[[], Any], device: str) -> int:
    """The most bytes that a call holds at a time beyond what was held before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events: Any = record.profiler
    held = most = 0
    for event in sorted(events.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    mlp, cnn = wide(device)
    for problem in (mlp, cnn, relu_mlp(device), gpt(device, 64, 16, 16), lstm(device, 64, 16, 8)):
        yield from measure(problem, device)


def measure(problem: Problem, device: str) -> list[Row]:
    """One network: a product, a block of them, and the trace, with the graph kept and with a cap that forbids it."""
    found = []
    for cap in (None, 0):
        name = "" if cap is None else ", nothing kept"
        sizes = {
            f"one product{name}": peak(partial(product, problem, 1, cap), device),
            f"block of {BLOCK}{name}": peak(partial(product, problem, BLOCK, cap), device),
            f"trace, {PROBES} probes{name}": peak(partial(sampled, problem, cap), device),
        }
        unit = sizes[f"one product{name}"], "one product"
        found += [
            peak_row((WORK, problem.name), key, size, unit, _TRACE if key.startswith("trace") else None)
            for key, size in sizes.items()
        ]
    return found


def _operator(problem: Problem, cap: int | None) -> la.Hessian:
    return la.Hessian(problem.model, problem.loss, problem.batch, memory_cap=cap)


def product(problem: Problem, count: int, cap: int | None) -> None:
    """Build the operator and multiply it by some vectors at once."""
    H = _operator(problem, cap)
    _ = H @ torch.ones(problem.size, count, dtype=H.dtype, device=H.device)


def sampled(problem: Problem, cap: int | None) -> None:
    """Build the operator and estimate its trace from probes: of a multiple, whose structure is not looked at."""
    la.trace(1.0 * _operator(problem, cap), tol=_TIGHT, max_matvecs=PROBES)
