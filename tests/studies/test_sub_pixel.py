"""What the study of sub-pixel shifts measures with, against closed forms; and its controls fail at small sizes."""

from __future__ import annotations

from math import pi

import pytest
import torch

from lemmata.studies.claim import numerics
from lemmata.studies.invariance import sub_pixel


def test_resampling_is_the_band_limited_function() -> None:
    """Of a wave the samples on any grid are known."""
    with numerics():
        t = torch.arange(33) / 33
        fine = torch.arange(99) / 99
        wave = torch.cos(2 * pi * 7 * t + 0.3)
        assert torch.allclose(sub_pixel.resampled(wave, 99), torch.cos(2 * pi * 7 * fine + 0.3), atol=1e-13)
        beyond = torch.cos(2 * pi * 20 * fine)  # 33 columns cannot carry it
        assert float(sub_pixel.resampled(beyond, 33).abs().max()) < 1e-13
        assert float((beyond[::3] - sub_pixel.resampled(beyond, 33)).abs().max()) > 0.5


def test_fractional_shifts_and_their_controls() -> None:
    with numerics():
        found = sub_pixel.fractional_shift_relu(columns=9, seed=1)
        rectified = sub_pixel.fractional_shift_relu(columns=33, seed=1, rectify=True)
        assert found["value"] < 1e-14 and 0.3 < rectified["half a pixel"] < 0.7
        assert max(rectified["by shift"][::8]) < 1e-14  # whole pixels
        assert sub_pixel.fractional_shift_relu(columns=9, seed=1, padding="zeros")["value"] > 0.1
        assert sub_pixel.fractional_shift_relu_pixels(activation="tanh", seed=1)["value"] == 0
        assert sub_pixel.fractional_shift_relu_pixels(activation="tanh", seed=1, more=0.5)["value"] > 0.1


def test_oversampling_by_an_even_factor_makes_half_a_pixel_exact() -> None:
    """Half a pixel is then a whole one of the fine grid, which is why the study takes powers of three."""
    with numerics():
        assert sub_pixel.fractional_shift_relu_oversampling(oversampling=2, seed=0)["value"] < 1e-14
        errors = [sub_pixel.fractional_shift_relu_oversampling(oversampling=m, seed=0)["value"] for m in (9, 27)]
        assert errors[0] / errors[1] == pytest.approx(9, rel=0.1)
        unfiltered = sub_pixel.fractional_shift_relu_oversampling(oversampling=27, seed=0, low_pass=False)["value"]
        assert unfiltered > 100 * errors[1]


def test_lie_derivatives_and_their_controls() -> None:
    with numerics():
        point = dict(generator="x-translation", depth=1, seed=0)
        assert sub_pixel.lie_derivative_lee(**point)["value"] < 1e-14
        for control in sub_pixel.lie_derivative_lee.controls.values():
            assert sub_pixel.lie_derivative_lee(**point, **control)["value"] > 0.3
        layers = dict(generator="rotation", activation="tanh", seed=0)
        assert sub_pixel.lie_derivative_lee_layers(**layers)["value"] < 1e-13
        assert sub_pixel.lie_derivative_lee_layers(**layers, norm="batch")["value"] > 0.1


def test_orders_of_differences() -> None:
    with numerics():

        def ratio(**change: object) -> float:
            values = [
                sub_pixel.lie_derivative_lee_differences(step=h, generator="scale", seed=0, **change)["value"]
                for h in (0.008, 0.004)
            ]
            return values[0] / values[1]

        assert ratio() == pytest.approx(4, rel=0.05) and ratio(sides=1) == pytest.approx(2, rel=0.1)


def test_quarter_turns_are_exact_and_do_not_show() -> None:
    with numerics():
        found = sub_pixel.lie_derivative_lee_discrete(depth=1, seed=0)
        assert found["quarter turn"] < 1e-14 and found["group convolutions"] > 1e-3
        assert sub_pixel.lie_derivative_lee_discrete(depth=1, seed=0, every=True)["value"] < 1e-10  # ε / step
