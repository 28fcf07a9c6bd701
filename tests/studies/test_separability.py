"""The exclusive or against closed forms, and controls that do better."""

from __future__ import annotations

from collections.abc import Callable
from math import comb, log
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from lemmata.studies.approximation import separability

pytestmark = pytest.mark.usefixtures("double")


def test_corners_and_the_counter_by_hand() -> None:
    x, y = separability.corners(2, "parity")
    assert {(*a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)} == {
        (0, 0, 0),
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 0),
    }
    assert torch.equal(separability.counter(2)(x)[:, 0], (x[:, 0] - x[:, 1]).abs())
    whole = torch.arange(4.0)[:, None] * torch.eye(3)[:1]  # the sum runs over 0 … 3
    assert separability.counter(3)(whole)[:, 0].tolist() == [0, 1, 0, 1]


def test_the_ceiling_and_its_controls() -> None:
    for d in (2, 3):
        found = separability.hyperplane_xor(d=d, seed=0)
        assert found["value"] == found["least"] == 0.5 + comb(d - 1, (d - 1) // 2) / 2**d and found["proved"]
        assert found["residual"] == 0 and found["floor"] == pytest.approx(log(2))
        for control in separability.hyperplane_xor.controls.values():
            assert separability.hyperplane_xor(d=d, seed=0, **control)["value"] == 1


def test_training_stays_at_the_floor_and_its_controls_do_not() -> None:
    settings = dict(d=2, steps=150, seed=0)
    assert separability.hyperplane_xor_training(**settings)["value"] == 0.75
    assert separability.hyperplane_xor_logistic(**settings)["value"].item() == pytest.approx(log(2), abs=1e-6)
    for control in separability.hyperplane_xor_logistic.controls.values():
        assert separability.hyperplane_xor_training(**settings, **control)["value"] == 1
        assert separability.hyperplane_xor_logistic(**settings, **control)["value"] < 0.1
    assert separability.hyperplane_xor_rectifiers(d=5, seed=0) == 0
    assert separability.hyperplane_xor_rectifiers(d=5, seed=0, less=1) >= 1


def test_figures(row_of: Callable[..., SimpleNamespace]) -> None:
    claim = separability.hyperplane_xor_training
    drawn = separability.draw_corners(Figure().subplots(), [row_of(claim, d=2, steps=20)])
    assert drawn["parity"] == [0, 1, 1, 0]
    logistic = separability.hyperplane_xor_logistic
    rows = [row_of(logistic, arm, d=2, steps=20) for arm in ("", separability.HIDDEN)]
    columns = separability.draw_floor(Figure().subplots(), rows)
    assert {len(column) for column in columns.values()} == {5} and len(columns) == 1 + 2 * separability.NETWORKS
