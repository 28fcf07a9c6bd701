"""Results: intervals against tabulated Student t, readable forms, records that survive JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest
import torch

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError

ESTIMATE = la.Estimate(638.3, 3.0, 211, 7.1, 212, 0, "hutchinson")


@pytest.mark.parametrize(("dof", "level", "t"), [(1, 0.95, 12.706), (4, 0.95, 2.776), (10, 0.99, 3.169), (1, 0.5, 1.0)])
def test_interval_is_student_t(dof: int, level: float, t: float) -> None:
    low, high = la.Estimate(1.0, 2.0, dof, None, dof + 1, 0, "m").interval(level)
    assert (high - 1) / 2 == pytest.approx(t, abs=5e-4)
    assert low + high == pytest.approx(2)
    assert (high - 1) / 2 != pytest.approx(1.96, abs=5e-4)


def test_an_exact_value_has_a_point_interval_and_one_probe_an_infinite_one() -> None:
    assert la.Estimate(2.0, 0.0, 0, None, 1, 0, "m").interval() == (2.0, 2.0)
    assert la.Estimate(2.0, 1.0, 0, None, 1, 0, "m").interval() == (-float("inf"), float("inf"))
    assert "∞" in repr(la.Estimate(2.0, 1.0, 0, None, 1, 0, "m"))


@pytest.mark.parametrize(
    ("value", "stderr", "shown"),
    [
        (638.3, 3.0, "638.3 ± 5.9"),
        (0.012345, 0.0001, "0.01235 ± 0.00020"),
        (123456.0, 900.0, "123456 ± 1800"),
        (1.0, 0.5, "1.00 ± 0.99"),
    ],
)
def test_repr_rounds_to_the_error(value: float, stderr: float, shown: str) -> None:
    assert repr(la.Estimate(value, stderr, 211, None, 212, 0, "m")) == f"{shown} (95 %, 212 products)"


def test_estimate_reads_converts_and_refuses() -> None:
    assert repr(ESTIMATE) == str(ESTIMATE) == f"{ESTIMATE}" == "638.3 ± 5.9 (95 %, 212 products; data ± 14)"
    assert float(ESTIMATE) == 638.3 and f"{ESTIMATE:.0f}" == "638"
    assert la.Estimate.from_dict(json.loads(json.dumps(ESTIMATE.to_dict()))) == ESTIMATE
    with pytest.raises(ArgumentError, match=r"level.*1.0.*0.95"):
        ESTIMATE.interval(1.0)
    with pytest.raises(FrozenInstanceError):
        ESTIMATE.value = 1.0  # type: ignore[misc]


def test_eigenpairs_record_and_plots() -> None:
    pairs = la.eigenpairs(la.Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0]))), 2)
    back = la.Eigenpairs.from_dict(json.loads(json.dumps(pairs.to_dict())))
    assert torch.equal(back.values, pairs.values) and torch.equal(back.vectors, pairs.vectors)
    assert back.vectors.dtype == torch.float32 and back.converged and back.matvecs == pairs.matvecs
    assert pairs.intervals[0][0] <= 3 + 1e-6 and pairs.intervals[0][1] >= 3 - 1e-6
    axes = pairs.plot()
    assert axes.get_ylabel() == "eigenvalue"
    assert ESTIMATE.plot() is not axes
    assert ESTIMATE.plot(axes) is axes
