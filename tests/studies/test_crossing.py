"""Flows of the line against closed forms, and controls that cross."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from lemmata.studies.approximation import crossing

pytestmark = pytest.mark.usefixtures("double")


def test_flows_stay_above_the_isotonic_floor_and_controls_do_not() -> None:
    x, y = crossing.data("turned", 5, 0)
    assert torch.equal(y, -x)
    settings = dict(target="turned", points=5, steps=30, seed=0)
    found = crossing.node_1d_no_crossing_isotonic(**settings)
    assert found["value"] >= 1 and found["floor"] == pytest.approx(x.square().mean().item())
    assert (found["outputs"].diff() > 0).all()
    for control in crossing.CONTROLS.values():
        assert crossing.node_1d_no_crossing_isotonic(**settings, **control)["value"] < 0.9


def test_a_chain_leaves_the_order_at_slope_one_over_the_step() -> None:
    for chain in (1, 4):
        found = crossing.node_1d_no_crossing_euler(chain=chain, updates=100, seed=0)
        assert 0.5 < found["value"] <= 1.01 and found["update"] > 0
    assert crossing.node_1d_no_crossing_euler(chain=8, updates=50, seed=0, augment=1)["value"] > 1.2


def test_figures(row_of: Callable[..., SimpleNamespace]) -> None:
    point = dict(target="arch", points=5, steps=3)
    rows = [row_of(crossing.node_1d_no_crossing_isotonic, arm, **point) for arm in ("", crossing.AUGMENTED)]
    columns = crossing.draw_fits(Figure().subplots(), rows)
    assert {len(column) for column in columns.values()} == {201} and len(columns) == 3
    euler = crossing.node_1d_no_crossing_euler
    left = [row_of(euler, arm, chain=2, updates=60) for arm in ("", crossing.AUGMENTED)]
    drawn = crossing.draw_steps(Figure().subplots(), left)
    assert drawn["Euler steps"] == [2, 2] and drawn["network"] == ["the line", "one dimension more"]
