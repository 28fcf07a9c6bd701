"""Transformers without positions: the measure by another channel, trials and controls."""

from __future__ import annotations

import pytest
import torch

from lemmata.analysis import permutation_floor
from lemmata.studies.approximation import without_positions as study
from lemmata.studies.data import gaussian

pytestmark = pytest.mark.usefixtures("double")


def test_rotations_put_every_token_first_once() -> None:
    x = torch.arange(6.0).view(2, 3)
    turned = study.rotations(x)
    assert sorted(turned[:, 0].tolist()) == [0, 1, 2, 3, 4, 5]
    assert {tuple(row) for row in turned.tolist()} >= {(0, 1, 2), (1, 2, 0), (2, 0, 1)}
    assert permutation_floor(turned, turned[:, 0]).value == pytest.approx(2 / 3)  # the variance of three in a row


def test_only_a_reader_without_positions_and_mask_is_blind_to_order() -> None:
    draws = torch.Generator().manual_seed(0)
    x, order = gaussian(draws, 5, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    for positions, causal, blind in (("none", False, True), ("sinusoidal", False, False), ("none", True, False)):
        reader = study.Reader(1, 2, positions, causal, draws)
        assert torch.allclose(reader(x), reader(x[:, order]), rtol=0, atol=1e-12) == blind


def test_no_step_of_training_crosses_the_floor_unless_the_network_can_tell_positions() -> None:
    small = dict(n=4, layers=1, nets=1, steps=60, seed=0)
    found = study.nope_transformer_floor(**small)
    assert found["lowest"] >= 1 and 1 <= found["value"] < 1.1 and found["curve"].shape == (6,)
    for control in study.CONTROLS.values():
        assert study.nope_transformer_floor(**small, **control)["value"] < 0.7
    enumerated = dict(target="a descent from first to last", t=4, nets=1, steps=60, seed=0)
    found = study.nope_transformer_floor_cross_entropy(**enumerated)
    assert found["lowest"] >= 1 and 1 <= found["value"] < 1.1
    assert found["least error rate"] >= found["floor of the error rate"] - 1e-12
    assert study.nope_transformer_floor_cross_entropy(**enumerated, positions="sinusoidal")["value"] < 0.5
