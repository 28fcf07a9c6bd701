"""Claim files written on the fly: what a user's own file looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lemmata.studies.claim import numerics

HEAD = '''"""Claims of a test.

Nothing here is a theorem.
"""
import os, time
import numpy as np
from lemmata.studies.claim import AtLeast, AtMost, Distributed, Equals, Grid, Scales, claim

SMALL = dict(quick=Grid(n=[1, 2], seeds=5), full=Grid(n=[1, 2], seeds=6), source="me2026")
'''
BIB = "@article{me2026, title = {A title}, author = {Me, M.}, journal = {A journal}, year = {2026}}\n"


@pytest.fixture
def claims_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of claims (and its bibliography) and return its path."""

    def write(body: str, name: str = "my_claims") -> Path:
        (tmp_path / "references.bib").write_text(BIB)
        path = tmp_path / f"{name}.py"
        path.write_text(HEAD + body)
        return path

    return write


@pytest.fixture
def double() -> Iterator[None]:
    """float64 by default, as the engine has it."""
    with numerics():
        yield


@pytest.fixture
def settings_are_kept() -> Iterator[None]:
    """A benchmark's `main` sets the threads, the seed and the handling of tiny numbers; peers draw from the global generator."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def row_of() -> Callable[..., SimpleNamespace]:
    """A trial of a claim, or of one of its controls, as a figure sees it."""

    def run(claim: Any, arm: str = "", /, **point: Any) -> SimpleNamespace:
        found = claim(**point, **claim.controls.get(arm, {}), seed=0)
        values = {k: v.detach().numpy() if isinstance(v, torch.Tensor) else v for k, v in found.items()}
        return SimpleNamespace(arm=arm, point=point, k=0, values=values, error="")

    return run
