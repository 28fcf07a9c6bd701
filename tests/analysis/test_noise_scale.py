"""The gradient noise scale against closed forms for linear regression, and its interval against repeated data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.analysis.errors import ArgumentError, DataError
from lemmata.analysis.gradient_flow.noise_scale import NoiseScale, fieller

P, DISTANCE, NOISE = 3, 5.0, 1.0


def regression(seed: int, examples: int = 200) -> tuple[Tensor, Tensor]:
    """Normal inputs; labels of pure noise, so that the weights are the distance from the minimum."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, P, generator=draws, dtype=torch.float64)
    return x, NOISE * torch.randn(examples, 1, generator=draws, dtype=torch.float64)


def linear() -> nn.Module:
    model = nn.Linear(P, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 0.0]]))
    return model


def truth() -> float:
    r"""g = 2x(x·d − ε) has mean 2d and E|g|² = 4 ((p + 2)|d|² + p σ²) for normal inputs."""
    return (4 * ((P + 2) * DISTANCE + P * NOISE**2) - 4 * DISTANCE) / (4 * DISTANCE)


def test_intervals_cover_the_closed_form() -> None:
    runs = [la.noise_scale(linear(), nn.MSELoss(), regression(seed), groups=40) for seed in range(40)]
    covered = sum(run.low <= truth() <= run.high for run in runs)
    assert covered >= 33  # 95 % of 40 is 38; fewer than 33 has a chance below 10⁻³
    mean = sum(run.trace.value for run in runs) / 40, sum(run.square.value for run in runs) / 40
    assert abs(mean[1] / (4 * DISTANCE) - 1) < 0.1 and abs(mean[0] / (4 * DISTANCE * truth()) - 1) < 0.1
    assert (
        all(run.high < 1.5 * truth() + 10 for run in runs)
        and sum(run.low <= 3 * truth() <= run.high for run in runs) < 4
    )


def test_single_examples_by_hand() -> None:
    x, y = regression(0, 30)
    d = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    g = 2 * x * (x @ d - y[:, 0])[:, None]
    trace = float((g - g.mean(0)).square().sum() / 29)
    square = float(g.mean(0).square().sum()) - trace / 30
    for loss in (nn.MSELoss(), nn.MSELoss(reduction="sum")):
        run = la.noise_scale(linear(), loss, (x, y), groups=30)
        assert abs(run.trace.value / trace - 1) < 1e-12 and abs(run.square.value / square - 1) < 1e-12
        assert float(run) == pytest.approx(trace / square) and run.groups == 30
    ragged = la.noise_scale(linear(), nn.MSELoss(), [(x[:7], y[:7]), (x[7:], y[7:])], groups=60)
    assert float(ragged) == pytest.approx(trace / square)


def test_at_the_minimum_the_interval_says_that_nothing_is_known() -> None:
    model = linear()
    nn.init.zeros_(model.weight)
    run = la.noise_scale(model, nn.MSELoss(), regression(0))
    assert run.high == float("inf") and not run.converged and "not converged" in repr(run)
    x, y = regression(0, 4000)
    done = la.noise_scale(linear(), nn.MSELoss(), (x, y), tol=0.3)
    assert done.converged and done.high - done.low < 0.6 * float(done)
    assert NoiseScale.from_dict(done.to_dict()) == done


def test_fieller_by_hand() -> None:
    low, high = fieller(4.0, 2.0, 0.04, 0.0, 0.0, 2.0)  # b known: a ± 2 · 0.2 over 2
    assert (low, high) == pytest.approx((1.8, 2.2))
    low, high = fieller(4.0, 1.0, 0.0, 1.0, 0.0, 2.0)  # b between −1 and 3: a/b from 4/3 on
    assert low == pytest.approx(4 / 3) and high == float("inf")


def test_examples_that_depend_on_each_other_are_seen() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x - x.mean(0))

    x, y = regression(0)
    with pytest.raises(DataError, match="Pass more batches"):
        la.noise_scale(Centred(), nn.MSELoss(), (x, y))
    run = la.noise_scale(Centred(), nn.MSELoss(), [(x[i::5], y[i::5]) for i in range(5)])
    assert run.unit == "batches" and run.groups == 5


@pytest.mark.parametrize(
    ("options", "name"), [({"groups": 2}, "groups"), ({"tol": -1}, "tol"), ({"level": 1}, "level")]
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=r"default|level=0\.95") as caught:
        la.noise_scale(linear(), nn.MSELoss(), regression(0), **options)
    assert caught.value.name == name
