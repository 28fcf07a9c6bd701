"""Indices of similarity: trials and controls."""

from __future__ import annotations

import pytest

from lemmata.studies.invariance import similarity

pytestmark = pytest.mark.usefixtures("double")


def test_indices_part_from_their_controls() -> None:
    for index in ("CKA", "unbiased CKA", "Procrustes"):
        same = dict(index=index, width=6, examples=30, seed=0)
        assert similarity.cka_cca_invariances(**same) < 1e-13
        assert similarity.cka_cca_invariances(**same, kind="invertible") > 1e-3
        assert similarity.cka_cca_invariances(**same, uneven=True) > 1e-3
    linear = dict(width=6, examples=30, seed=0)
    assert similarity.cka_cca_invariances_linear(**linear) < 1e-12
    assert similarity.cka_cca_invariances_linear(**linear, kind="singular") > 1e-3
    assert similarity.cka_cca_invariances_linear(**linear, index="CKA") > 1e-3
    blind = dict(width=30, examples=20, seed=0)
    assert similarity.cka_cca_invariances_blind(**blind)["value"] < 1e-12
    assert similarity.cka_cca_invariances_blind(**blind, share=1 / 3)["value"] > 0.2
    assert similarity.cka_cca_invariances_blind(**blind, index="CKA")["value"] > 0.2
    few = dict(width=30, examples=20, draws=100, seed=0)
    assert similarity.cka_cca_invariances_bias(**few) == pytest.approx(0.6, abs=0.02)
    assert similarity.cka_cca_invariances_unbiased(**few) == pytest.approx(0, abs=0.04)
    assert similarity.cka_cca_invariances_unbiased(**few, common=True) > 0.1
