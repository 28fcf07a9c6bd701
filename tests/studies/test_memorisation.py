"""Memorising: interpolation by another channel, trials and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemmata.analysis import constructions
from lemmata.studies.approximation import memorisation

pytestmark = pytest.mark.usefixtures("double")


def test_between_the_points_it_is_a_polygon() -> None:
    """Along its direction the network bends at its thresholds alone, so that numpy interpolates it from the values there."""
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    y = torch.rand(30, generator=torch.Generator().manual_seed(2))
    network = constructions.memoriser(x, y).network
    with torch.no_grad():
        a, b = network.direction, network.thresholds
        places = (x @ a).sort().values
        knots = torch.cat([b, places[-1:] + 1])

        def at(t):
            return network(t[:, None] * a / (a @ a)).numpy()

        t = torch.linspace(float(b[0]), float(places[-1]), 500)
        assert np.allclose(at(t), np.interp(t, knots, at(knots)), atol=1e-8)
        assert bool((b[1:] < places[1:]).all() and (b[1:] > places[:-1]).all())


def test_the_trial_and_its_controls() -> None:
    trial = memorisation.finite_sample_memorisation
    found = trial(n=25, d=3, seed=0)
    assert found["value"] < 1e-9 and found["condition"] > 100
    assert np.allclose(np.interp(found["places"], found["along"], found["between"]), found["labels"], atol=0.5)
    assert trial(n=25, d=3, seed=0, missing=1)["value"] > 1e-3
    assert trial(n=25, d=3, seed=0, repeated=True)["value"] == pytest.approx(0.5, abs=1e-8)


def test_least_squares_weights_are_the_exact_ones_where_they_exist() -> None:
    x = torch.randn(10, 2, generator=torch.Generator().manual_seed(3))
    y = torch.randn(10, generator=torch.Generator().manual_seed(4))
    network = constructions.memoriser(x, y).network
    fitted = memorisation.best_weights(network, x, y, 10)
    assert torch.allclose(fitted.weights, network.weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("claim", [memorisation.finite_sample_memorisation], ids=lambda claim: claim.id)
def test_verdicts_and_figures(claim) -> None:
    from matplotlib.figure import Figure

    result = claim.run("quick")
    assert result.verdict.name == claim.expects, str(result)
    for draw in claim.figures:
        columns = draw(Figure().subplots(), result.rows)
        assert len({len(column) for column in columns.values()}) == 1
