"""Positions: rotations and shifts by another channel, and controls that fail."""

from __future__ import annotations

import pytest
import torch

from lemmata.architectures.positions import rotate, sinusoidal
from lemmata.studies.data import gaussian
from lemmata.studies.invariance import positions

pytestmark = pytest.mark.usefixtures("double")


def test_rotations_at_any_position_are_those_of_the_transformer() -> None:
    x = gaussian(torch.Generator().manual_seed(0), 8)
    at = torch.tensor([0, 3, 17, 40])
    truth = rotate(x.expand(41, -1))[at]
    found = positions.turned(x.float(), at, torch.float64)
    assert torch.allclose(found.double(), truth, atol=1e-6) and not torch.allclose(found.double()[1:], truth[:-1])


def test_the_shift_of_a_sinusoid_by_complex_numbers() -> None:
    e = sinusoidal(50, 12, torch.zeros(1))
    waves = torch.complex(e[:, 1::2], e[:, 0::2]) * torch.exp(1j * 7 * positions.BASE ** (-torch.arange(0, 12, 2) / 12))
    moved = e @ positions.shift_map(7, 12, e).T
    assert torch.allclose(torch.complex(moved[:, 1::2], moved[:, 0::2]), waves, atol=1e-12)
    assert torch.allclose(moved[:-7], e[7:], atol=1e-12) and not torch.allclose(moved[:-7], e[6:-1], atol=0.1)


def test_positions_part_from_their_controls() -> None:
    rope = dict(width=16, shift=1000, seed=0)
    assert positions.rope_relative(**rope)["value"] < 1e-12
    assert positions.rope_relative(**rope, added=True)["value"] > 0.05
    assert positions.rope_relative(**rope, both=False)["value"] > 0.05
    near, far = (
        positions.rope_relative_single_precision(position=p, width=16, pairs=200, seed=0) for p in (1000, 9000)
    )
    assert 4 < far["value"] / near["value"] < 20
    assert (
        positions.rope_relative_single_precision(position=9000, width=16, pairs=200, seed=0, double=True)["value"]
        < 1e-6
    )
    pe = dict(shift=5, width=8, seed=0)
    assert positions.sinusoidal_pe_shift(**pe) < 1e-12
    assert min(positions.sinusoidal_pe_shift(**pe, kind=kind) for kind in ("table", "sines")) > 0.05
    products = dict(width=8, length=40, seed=0)
    assert positions.sinusoidal_pe_shift_products(**products)["value"] < 1e-12
    for control in (dict(content=1.0), dict(mapped=True), dict(kind="table")):
        assert positions.sinusoidal_pe_shift_products(**products, **control)["value"] > 0.1
