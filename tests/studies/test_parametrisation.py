"""The maximal-update parametrisation: variances and rates against their definition, and a control that fails."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from lemmata.studies.data import digits
from lemmata.studies.gradient_flow import parametrisation as study

pytestmark = pytest.mark.usefixtures("double")


def test_variances_fall_as_the_parametrisation_says() -> None:
    for maximal, power in ((True, 2), (False, 1)):
        nets = [study.parametrised("MLP", n, maximal, torch.Generator().manual_seed(0))[0] for n in (64, 512)]
        inputs, hidden, outputs = (
            float(nets[0].layers[place].weight.detach().var() / nets[1].layers[place].weight.detach().var())
            for place in (0, 1, 3)
        )
        assert 0.9 < inputs < 1.1 and 7 < hidden < 9 and 0.8 < outputs / 8**power < 1.25


def test_the_change_is_that_of_adam_by_hand() -> None:
    """One step of Adam moves every entry by its rate, against the sign of its gradient."""
    net = study.parametrised("MLP", 128, True, torch.Generator().manual_seed(3))[0]
    x, y = digits(64)
    before = net.preactivations(x)
    cross_entropy(before[-1], y).backward()
    with torch.no_grad():
        for name, p in net.named_parameters():
            rate = 5e-4 * (0.5 if name.endswith("weight") and not name.startswith("layers.0") else 1)
            p -= rate * p.grad / (p.grad.abs() + 1e-8)
        change = float((net.preactivations(x)[2] - before[2]).abs().mean())
    assert study.feature_update("MLP", 128, True, 1, torch.Generator().manual_seed(3)) == pytest.approx(
        change, rel=1e-9
    )


@pytest.mark.parametrize("architecture", ["MLP", "GPT"])
def test_features_move_alike_at_every_width_and_not_in_the_standard_parametrisation(architecture: str) -> None:
    sizes = dict(architecture=architecture, units=64, steps=3, seed=1)
    for maximal, low, high in ((True, 0.7, 1.4), (False, 2.0, 8.0)):
        narrow, wide = (study.mup_coordinate_check(width=n, **sizes, maximal=maximal) for n in (32, 128))
        assert low < wide / narrow < high
