"""Connectivity of trained networks at one cheap point, with its controls."""

from __future__ import annotations

import pytest

from lemmata.studies.curvature import mode_connectivity as study

pytestmark = pytest.mark.usefixtures("double")


def test_two_networks_differ_and_fit() -> None:
    a, b, x, y = study.pair(32, 60, 80, 0)
    assert bool((a(x).argmax(1) == y).all()) and bool((b(x).argmax(1) == y).all())
    assert float((next(a.parameters()) - next(b.parameters())).detach().norm()) > 1


def test_a_curve_connects_what_the_line_does_not() -> None:
    sizes = dict(width=32, images=60, steps=100, curve=300, seed=0)
    curve, line = (study.mode_connectivity(**sizes, straight=straight)["value"] for straight in (False, True))
    assert curve < 0.02 < line
    assert study.mode_connectivity(**sizes, units=3)["value"] > 0.02


def test_matching_removes_a_wide_networks_barrier() -> None:
    sizes = dict(width=256, images=100, steps=80, seed=0)
    matched, shuffled = (
        study.linear_connectivity_modulo_permutation(**sizes, matched=matched)["value"] for matched in (True, False)
    )
    assert matched < 0.2 < 0.5 < shuffled
