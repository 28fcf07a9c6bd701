"""Linear landscapes: hand-derived Hessians, and each control at one cheap point."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.curvature import linear_landscapes as study

pytestmark = pytest.mark.usefixtures("double")


def test_the_hessian_of_the_smallest_network_by_hand() -> None:
    """L = (bax − y)²/2 with x = y = 1: at a = b = 1 it is [[1, 1], [1, 1]], at 0 it is [[0, −1], [−1, 0]]."""
    x = torch.ones(1, 1)
    one = study.curvature([torch.ones(1, 1), torch.ones(1, 1)], x, x)
    zero = study.curvature([torch.zeros(1, 1), torch.zeros(1, 1)], x, x)
    torch.testing.assert_close(one, torch.tensor([0.0, 2.0]), atol=1e-15, rtol=0)
    torch.testing.assert_close(zero, torch.tensor([-1.0, 1.0]), atol=1e-15, rtol=0)


def test_counts_and_their_controls() -> None:
    assert study.deep_linear_minimum_nullity(4, 2, 3, 0) == 0 == study.deep_linear_minimum_nullity(5, 6, 3, 1)
    assert study.deep_linear_minimum_nullity(4, 2, 3, 0, span=2) > 0
    assert study.deep_linear_minimum_nullity(4, 2, 3, 0, minimum=False) < 0
    found = study.baldi_hornik_landscape(4, 2, 0)
    assert found["value"] == 0 and sorted(found["index"].tolist()) == [0, 1, 2, 2, 3, 4]
    assert study.baldi_hornik_landscape(4, 2, 0, equal=True)["value"] > 0
    assert study.baldi_hornik_landscape(4, 2, 0, rotated=True)["value"] > 0


def test_training_ends_at_the_global_minimum_unless_units_can_die() -> None:
    assert study.kawaguchi_no_bad_minima(2, 10, 3000, 0)["value"] < 1e-6
    assert study.kawaguchi_no_bad_minima(2, 10, 3000, 0, relu=True)["value"] > 1e-3


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_order_at_the_origin(depth: int) -> None:
    assert study.kawaguchi_flat_origin(depth, 0) == pytest.approx(depth, abs=0.02)
    assert study.kawaguchi_flat_origin(depth, 0, shift=1.0) == pytest.approx(1, abs=0.2)


def test_escape_takes_the_predicted_steps() -> None:
    assert 0 <= study.saddle_escape_time(1e-6, 0.1, 0) <= 1
    assert study.saddle_escape_time(1e-6, 0.1, 0, stable=True) > 100
    assert study.saddle_escape_time(1e-6, 0.1, 0, depth=3) > 100
