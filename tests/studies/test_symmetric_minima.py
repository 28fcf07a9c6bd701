"""Symmetries of parameters: the flows move nothing, hand counts, and each control at one cheap point."""

from __future__ import annotations

import math

import pytest
import torch

from lemmata.studies.curvature import symmetric_minima as study

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("symmetry", study.SYMMETRIES)
def test_each_field_keeps_the_loss_to_first_order_only_while_its_symmetry_holds(symmetry: str) -> None:
    for broken in (False, True):
        flow, h = study.SYMMETRIES[symmetry](0, broken), 1e-4
        there, back = (
            float(flow.loss({name: flow.at[name] + t * flow.field[name] for name in flow.at})) for t in (h, -h)
        )
        slope = (there - back) / (2 * h)
        assert (abs(slope) < 1e-7) != broken, (slope, broken)
    assert study.continuous_symmetry_hessian(symmetry, 0) < 1e-12
    assert study.continuous_symmetry_hessian(symmetry, 0, broken=True) > 1e-4


def test_transposed_fields_are_the_transposes() -> None:
    """<A t, g> = <t, A^T g> for fields that are linear in the weights, by differences of the field along t."""
    for make in (study.rescaling, study.gauge, study.normalised):
        one = make(0, False)
        g = {name: torch.randn_like(value) for name, value in one.at.items()}
        left = sum(float((one.field[name] * g[name]).sum()) for name in g)
        right = sum(float((one.at[name] * one.transposed(g)[name]).sum()) for name in g)
        assert left == pytest.approx(right, rel=1e-12)


def test_rotary_positions_are_rotations_that_compose() -> None:
    x = torch.randn(2, 6, 4)
    torch.testing.assert_close(study.turned(x).norm(dim=-1), x.norm(dim=-1))
    same = torch.ones(1, 6, 4)
    products = study.turned(same) @ study.turned(same).mT
    torch.testing.assert_close(products[0, 0, 1], products[0, 3, 4])  # depends on the distance alone


def test_counts_of_flat_directions() -> None:
    assert study.attention_gauge_nullity(4, 2, 2, 0)["value"] == 8
    assert study.attention_gauge_nullity(4, 2, 2, 0, rotary=True)["value"] == 6  # a + bJ commutes with rotations
    assert study.attention_gauge_nullity(4, 2, 2, 0, minimum=False)["value"] < 8


def test_copies_are_all_of_them_and_the_same_function() -> None:
    net, _, _ = study.fitted(3, 0, steps=2)
    found = study.copies(net, 3, "order, sign")
    flat = torch.cat([value.flatten(1) for value in found.values()], 1)
    assert len(flat) == 2**3 * math.factorial(3) == len({tuple(row) for row in flat.tolist()})
    assert study.functional_symmetry_orbit(3, 0) < 1e-13 < 1e-2 < study.functional_symmetry_orbit(3, 0, whole=False)


def test_barriers_and_sharpness() -> None:
    assert study.functional_symmetry_barrier(3, 0) == 1.0
    assert study.functional_symmetry_barrier(3, 0, alike=True) == 0.0
    assert study.dinh_sharpness_not_invariant(4, 0)["value"] == pytest.approx(2, abs=0.05)
    assert study.dinh_sharpness_not_invariant(4, 0, adaptive=True)["value"] == pytest.approx(0, abs=0.01)
