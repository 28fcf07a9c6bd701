"""The benchmark of Lie derivatives on tiny sizes: every contender is compared with central differences before it is timed."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.benchmarks import lie

pytestmark = pytest.mark.usefixtures("settings_are_kept")


def test_lie_derivatives_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(lie.measure(7, 3, 4, 2, device="cpu", repeats=2))
    assert [row.contender for row in rows[::2]] == [lie.OURS] * 3 and all(row.error < 1e-3 for row in rows[::2])
    assert [row.target for row in rows[1::2]] == ["≥ 3"] * 3
    ours = lie.WAYS["own"]
    wrong = (lambda *given: [torch.zeros_like(part) for part in lie.one_pass(*given)], *ours[1:])
    monkeypatch.setitem(lie.WAYS, "own", wrong)
    with pytest.raises(RuntimeError, match="own of 2 layers disagree"):
        list(lie.measure(7, 3, 4, 2, device="cpu", repeats=2))
