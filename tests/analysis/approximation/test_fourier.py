"""Fourier content against series in closed form, quadrature, and functions it must tell apart."""

from __future__ import annotations

import json
from math import pi

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from lemmata.analysis import FourierContent, LemmataError, data_lines, fourier_content
from lemmata.analysis.errors import ArgumentError, DataError, ModelStateError, NumericsError


class Of(nn.Module):
    """A function of the inputs as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


SEGMENT = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)


def circle(points: int = 256) -> Tensor:
    at = torch.arange(points + 1, dtype=torch.float64) * (2 * pi / points)
    ring = torch.stack([at.cos(), at.sin()], 1)
    return torch.cat([ring[:-1], ring[:1]])[None]


def harmonics(x: Tensor) -> Tensor:
    angle = torch.atan2(x[:, 1], x[:, 0])
    return torch.stack([2 + torch.cos(3 * angle), 0.5 * torch.sin(7 * angle)], 1)


def test_a_closed_line_has_its_fourier_series() -> None:
    found = fourier_content(Of(harmonics), circle(), cut=5)
    assert found.closed and found.frequencies[:3].tolist() == [1, 2, 3]
    truth = torch.zeros_like(found.shares)
    truth[2], truth[6] = 0.8, 0.2
    assert torch.allclose(found.shares, truth, atol=1e-12) and float(found.above) == pytest.approx(0.2, abs=1e-12)
    assert float(found.energies.sum()) == pytest.approx(0.625, abs=1e-12)  # Parseval: the variance along the line


def test_an_open_line_has_the_series_of_quadrature() -> None:
    function = lambda s: (s**2 + abs(s - 0.3)) * 3  # noqa: E731
    found = fourier_content(Of(function), SEGMENT, samples=1024)
    for k in (1, 2, 5):
        half = quad(lambda s, k=k: function(s) * 2**0.5, 0, 1, weight="cos", wvar=pi * k, epsabs=1e-10, limit=200)[0]
        assert float(found.energies[0, k - 1]) == pytest.approx(half**2, abs=1e-6)
    line = fourier_content(Of(lambda s: s), SEGMENT, cut=0.5)
    assert float(line.above) == pytest.approx(1 - 96 / pi**4, abs=1e-4)


def test_the_cut_parts_slow_from_fast() -> None:
    waves = Of(lambda s: torch.cos(4 * pi * s) + torch.cos(20 * pi * s))
    shares = [float(fourier_content(waves, SEGMENT, cut=cut).above) for cut in (1.9, 2.1, 9.9, 10.1)]
    assert shares == pytest.approx([1, 0.5, 0.5, 0], abs=1e-9)


def test_speed_is_constant_whatever_the_corners() -> None:
    corners = torch.tensor([[[0.0], [0.05], [0.05], [0.9], [1.0]]], dtype=torch.float64)
    wave = Of(lambda s: torch.sin(9 * s))
    assert torch.allclose(fourier_content(wave, corners).energies, fourier_content(wave, SEGMENT).energies, atol=1e-12)


def test_the_interval_covers_the_share_of_the_population() -> None:
    """Amplitudes of a slow and a fast wave drawn at random: a share of one fifth."""

    def wave(x: Tensor) -> Tensor:
        return x[:, 1] * torch.cos(2 * pi * x[:, 0]) + x[:, 2] / 2 * torch.cos(30 * pi * x[:, 0])

    caught = 0
    for seed in range(40):
        draws = torch.Generator().manual_seed(seed)
        amplitudes = torch.randn(60, 2, generator=draws, dtype=torch.float64)
        lines = torch.stack([torch.cat([torch.full((60, 1), end), amplitudes], 1) for end in (0.0, 1.0)], 1)
        found = fourier_content(Of(wave), lines, tol=0.2)
        low, high = found.above.interval()
        caught += low < 0.2 < high
        assert found.converged == (high - low <= 0.4)
    assert caught >= 33  # of 38 expected
    strict = fourier_content(Of(wave), lines, tol=1e-3)
    assert not strict.converged and len(strict.energies) == 60
    low, high = strict.interval()
    assert bool((low <= strict.shares).all() and (strict.shares <= high).all())


def test_more_samples_are_taken_until_they_change_nothing() -> None:
    fast = Of(lambda s: torch.cos(126 * pi * s) + torch.cos(2 * pi * s))  # 64 samples take 126 half-cycles for 2
    found = fourier_content(fast, SEGMENT.expand(10, -1, -1), samples=64)
    assert found.samples == 256 and float(found.above) == pytest.approx(0.5, abs=1e-6) and found.converged
    rough = Of(lambda s: torch.frac(torch.sin(12.9898 * s) * 1e8))
    noise = fourier_content(rough, SEGMENT.expand(10, -1, -1), tol=1e-4)
    assert noise.samples == 4096 and not noise.converged  # no frequency is the last


def test_lines_join_disjoint_pairs() -> None:
    inputs = torch.arange(7.0)[:, None]
    lines = data_lines(inputs, seed=1)
    assert lines.shape == (3, 2, 1) and len(lines.unique()) == 6
    assert not torch.equal(lines, data_lines(inputs, seed=2)) and torch.equal(lines, data_lines(inputs, seed=1))


def test_the_record_comes_back_and_draws() -> None:
    found = fourier_content(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), data_lines(torch.randn(9, 3)))
    again = FourierContent.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) and torch.equal(again.energies, found.energies)
    assert len(found.plot().lines) == 6


def test_the_model_is_never_changed() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).train()
    before = {name: part.clone() for name, part in net.state_dict().items()}
    with pytest.raises(ModelStateError, match="batch_stats"):
        fourier_content(net, data_lines(torch.randn(4, 2)))
    fourier_content(net, data_lines(torch.randn(4, 2)), batch_stats="frozen")
    assert net.training and all(torch.equal(part, before[name]) for name, part in net.state_dict().items())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(lines=torch.zeros(3, 2)), DataError, "data_lines"),
        (dict(lines=torch.zeros(3, 2, 1, dtype=torch.int64)), DataError, "floating-point"),
        (dict(lines=torch.zeros(3, 2, 1)), DataError, "Leave out lines between equal inputs"),
        (dict(lines=torch.full((1, 2, 1), torch.nan)), DataError, "Leave the broken inputs out"),
        (dict(lines=torch.tensor([[[0.0], [1.0], [0.0]], [[0.0], [1.0], [2.0]]])), DataError, "each kind"),
        (dict(cut=0.0), ArgumentError, "cut"),
        (dict(cut=64.0), ArgumentError, "raise samples to 256"),
        (dict(tol=0.0), ArgumentError, "tol=0.05"),
        (dict(samples=4), ArgumentError, "samples=128"),
        (dict(model=Of(lambda x: x.sum())), ArgumentError, "row of outputs"),
        (dict(model=Of(lambda x: x * 0 + 3)), NumericsError, "ignores its inputs"),
        (dict(model=Of(lambda x: x / 0)), NumericsError, "overflow"),
        (dict(model=Of(lambda x: x + torch.randn(1))), ModelStateError, "random"),
        (dict(model=len), ArgumentError, "Module"),
    ],
)
def test_bad_input_is_named(change: dict, error: type[LemmataError], words: str) -> None:
    keywords = dict(model=Of(torch.sin), lines=torch.tensor([[[0.0], [1.0]]])) | change
    with pytest.raises(error, match=words):
        fourier_content(keywords.pop("model"), keywords.pop("lines"), **keywords)


def test_no_line_between_tokens() -> None:
    for inputs in (torch.zeros(3, 4, dtype=torch.int64), torch.zeros(1, 4)):
        with pytest.raises(DataError, match="embeddings"):
            data_lines(inputs)


def test_inference_mode_changes_nothing() -> None:
    lines = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU()).eval()
    expected = fourier_content(net, lines)
    with torch.inference_mode():
        assert torch.equal(fourier_content(net, lines.clone()).energies, expected.energies)
