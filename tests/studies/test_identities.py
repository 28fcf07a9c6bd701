"""Identities and maxima from rectifiers: the certificate by hand, trials and controls."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.approximation import identities

pytestmark = pytest.mark.usefixtures("double")


def test_bends_are_the_jumps_of_the_slope() -> None:
    """3 |2 x₁ − x₂| bends across its line by 6 √5; x₁² does not bend."""

    def vee(x):
        return 3 * (2 * x[:, 0] - x[:, 1]).abs()

    normal = torch.tensor([2.0, -1.0])
    points = identities.along_line(normal, torch.tensor(0.0), 5)
    assert torch.allclose(points @ normal, torch.zeros(5), atol=1e-14)
    assert torch.allclose(identities.bends(vee, points, normal), torch.full((5,), 6 * 5**0.5), rtol=1e-9)
    assert identities.bends(lambda x: x[:, 0] ** 2, points, normal).abs().max() < 3e-3


def test_the_largest_of_three_bends_along_half_lines() -> None:
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(identities.largest_of_three(x), x.amax(1).clamp(min=0), rtol=0, atol=1e-15)
    points = torch.tensor([[0.0, -1.0], [0.0, 1.0]])
    found = identities.bends(identities.largest_of_three, points, torch.tensor([1.0, 0.0]))
    assert found.tolist() == [1.0, 0.0]


def test_the_certificate_rejects_two_layers_and_a_perturbed_line() -> None:
    trial = identities.two_relu_identity_depth
    assert trial(n=5, seed=1)["value"] < 1e-8
    assert trial(n=5, seed=1, layers=2)["value"] == pytest.approx(2**0.5)
    weight, bias = torch.tensor([1.0, 1.0]), torch.tensor(0.0)
    line = identities.along_line(weight, bias, 9)

    def unit(x):
        return torch.relu(x @ torch.tensor([1.0, 1.001]))  # a line that turns away from it

    jumps = identities.bends(unit, line, weight)
    assert jumps.max() - jumps.min() > 0.1


def test_identity_and_its_control() -> None:
    assert identities.two_relu_identity(layers=7, d=3, seed=0) == 0.0
    assert identities.two_relu_identity(layers=7, d=3, seed=0, rectifiers=1) == 1.0


def test_maximum_and_its_control() -> None:
    found = identities.two_relu_identity_max(d=5, seed=0)
    assert found["value"] == 0 and found["layers"] == 3
    assert identities.two_relu_identity_max(d=5, seed=0, layers="one")["value"] > 1


def test_one_layer_can_do_two_numbers() -> None:
    """The fit is able: max(a, b) has one hidden layer, and is found."""
    x = torch.randint(-20, 21, (1000, 2), generator=torch.Generator().manual_seed(0)).double()
    fitted = identities.one_layer_maximum(2, x[:700], seed=0)
    assert (fitted(x[700:]) - x[700:].amax(1)).abs().max() < 1e-8


@pytest.mark.parametrize("claim", [identities.two_relu_identity_depth], ids=lambda claim: claim.id)
def test_verdicts_and_figures(claim) -> None:
    from matplotlib.figure import Figure

    result = claim.run("quick")
    assert result.verdict.name == claim.expects, str(result)
    for draw in claim.figures:
        columns = draw(Figure().subplots(), result.rows)
        assert len({len(column) for column in columns.values()}) == 1
