"""Pools over sets, against counting by hand, and controls that tell the sets apart."""

from __future__ import annotations

import itertools
from collections import Counter as Multiset
from collections.abc import Callable
from functools import cache
from math import comb
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from lemmata.studies.approximation import sets

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the steps, and once for the trial and for the encoder that judges it."""
    learned = sets.learned
    monkeypatch.setattr(sets, "learned", cache(lambda size, m, steps, seed: learned(size, m, steps // 3, seed)))


def test_collisions_are_real_and_one_more_number_prevents_them() -> None:
    for phi in ("powers", "random", "trained"):
        found = sets.deepsets_latent_dimension(size=2, phi=phi, seed=0)
        encode = sets.encoder(phi, 2, 1, 0)
        a, b = (encode(found[name][None, :, None]).item() for name in ("first", "second"))
        assert abs(a - b) < 1e-12 and abs(found["first"].max() - found["second"].max()) > 0.049
        assert sets.deepsets_latent_dimension(size=2, phi=phi, seed=0, more=1)["value"] > 1e-9


def test_power_sums_give_the_set_back() -> None:
    x = torch.tensor([[-0.7, 0.1, 0.5]])
    assert torch.allclose(sets.Lossy(3, 0).decode(sets.Lossy(3, 0)(x)), x, atol=1e-12)
    assert sets.deepsets_latent_dimension_recovery(size=5, seed=0) < 1e-10
    assert sets.deepsets_latent_dimension_recovery(size=5, seed=0, lost=1) > 0.01


def test_pools_and_their_controls() -> None:
    for pool in ("mean", "max"):
        assert sets.mean_pool_cannot_count(copies=3, pool=pool, seed=0) < 1e-12
    assert sets.mean_pool_cannot_count(copies=3, pool="sum", seed=0) > 0.01
    assert sets.mean_pool_cannot_count_repetition(repeats=2, seed=0) == 0
    for control in sets.mean_pool_cannot_count_repetition.controls.values():
        assert sets.mean_pool_cannot_count_repetition(repeats=2, seed=0, **control) > 1e-4


def test_multisets_are_counted_by_hand() -> None:
    words = [w for n in range(1, 4) for w in itertools.product("ab", repeat=n)]
    counts = {frozenset(Multiset(w).items()) for w in words}
    shares = {tuple(w.count(letter) * 60 // len(w) for letter in "ab") for w in words}
    found = sets.mean_pool_cannot_count_sum
    assert found(letters=2, most=3, seed=0)["value"] == len(counts) == comb(5, 2) - 1
    assert found(letters=2, most=3, seed=0, pool="mean")["value"] == len(shares)
    assert found(letters=2, most=3, seed=0, pool="max")["value"] == 2


def test_trained_means_stay_at_the_floor_and_sums_do_not() -> None:
    settings = dict(size=2, copies=3, steps=100, seed=0)
    assert sets.mean_pool_cannot_count_floor(pool="mean", **settings)["value"] >= 1 - 1e-12
    assert sets.mean_pool_cannot_count_floor(pool="sum", **settings)["value"] < 0.5


def test_figures(row_of: Callable[..., SimpleNamespace]) -> None:
    drawn = sets.draw_collision(Figure().subplots(), [row_of(sets.deepsets_latent_dimension, size=2, phi="trained")])
    assert len(drawn["x"]) == len(drawn["phi(x)"]) == 101
    claim, point = sets.mean_pool_cannot_count_floor, dict(size=2, copies=3, steps=2)
    rows = [row_of(claim, pool="mean", **point), row_of(claim, pool="max", **point)]
    rows.append(SimpleNamespace(**{**vars(rows[0]), "arm": sets.SUM}))
    assert list(sets.draw_counts(Figure().subplots(), rows)["elements"]) == [2, 4, 6]
