"""Weight decay and normalisation: gradients by differences, angles by the law of cosines, trials and controls."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lemmata.studies.data import digits
from lemmata.studies.gradient_flow import weight_decay

pytestmark = pytest.mark.usefixtures("double")
QUICK = dict(eta=0.2, decay=0.1, seed=1)


@pytest.mark.parametrize("invariant", [True, False])
def test_slopes_are_those_of_differences(invariant: bool) -> None:
    """The same noise twice: the derivative along the gradient, and the size of the vectors, to which the loss is blind or not."""

    def at(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return weight_decay.random_slopes(invariant, torch.Generator().manual_seed(0))[0](flat)

    flat = torch.randn(2000, generator=torch.Generator().manual_seed(1))
    g, step = at(flat)[1], 1e-5
    w, slopes = flat.view(20, 100), g.view(20, 100)
    radial = (w * slopes).sum(1).abs().max()
    assert (float(radial) < 1e-12) == invariant
    if invariant:
        moved = (at(flat + step * g)[0] - at(flat - step * g)[0]) / (2 * step)
        assert float(moved) == pytest.approx(float(g @ g), rel=1e-6)
        assert torch.allclose(at(3 * flat)[1], g / 3) and float(at(3 * flat)[0]) == pytest.approx(float(at(flat)[0]))
    else:
        assert torch.equal(at(3 * flat)[1], g)


@pytest.mark.parametrize("invariant", [True, False])
def test_the_network_sees_directions_alone(invariant: bool) -> None:
    def at(scale: float) -> float:
        loss, start, watched = weight_decay.network(invariant, torch.Generator().manual_seed(0))
        assert [tuple(w.shape) for w in watched(start)] == [(1, 2048), (1, 1024)]
        return float(loss(torch.cat([scale * start[:2048], start[2048:]]))[0])

    assert (at(3.0) == pytest.approx(at(1.0), rel=1e-12)) == invariant


def test_the_loss_is_that_of_a_batch() -> None:
    loss, start, _ = weight_decay.network(True, torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(0)
    torch.randn(64 * 32 + 32 * 32 + 32 * 10, generator=draws)  # the weights
    x, labels = digits(600)
    W = [
        part.view(shape)
        for part, shape in zip(start.split([2048, 1024, 320]), [(32, 64), (32, 32), (10, 32)], strict=True)
    ]
    found = []
    for chosen in (torch.arange(600), torch.arange(300)):
        h = x[chosen]
        for weight in W[:-1]:
            z = (h @ weight.T).numpy()
            h = torch.tensor(np.maximum((z - z.mean(0)) / z.std(0), 0))
        found.append(float(cross_entropy(h @ W[-1].T, labels[chosen])))
    values = [float(loss(start)[0]) for _ in range(20)]
    assert abs(np.mean(values) - found[0]) < 0.1 * found[0] and np.std(values) > 0


def test_angles_are_those_of_the_steps() -> None:
    """Without momentum a step is w(1 − ηλ) − ηg with g ⊥ w: the tangent of its angle is η‖g‖ over (1 − ηλ)‖w‖."""
    angles, fourth, predicted = weight_decay.equilibrium("random slopes", 0.2, 0.2, 0.0, True, 0)
    draws = torch.Generator().manual_seed(0)
    path = weight_decay.decayed(weight_decay.random_slopes(True, draws), 0.2, 0.2, 0.0)
    w, g = next(islice(path, 75, None))
    tangents = 0.2 * g[0].norm(dim=1) / (0.96 * w[0].norm(dim=1))
    assert angles.shape == (1, 149) and fourth.shape == predicted.shape == (1, 150)
    assert angles[0, 0] == pytest.approx(float(tangents.arctan().square().mean()), rel=1e-9)
    assert fourth[0, 0] == pytest.approx(float(w[0].norm(dim=1).pow(4).mean()))
    squares = (w[0].norm(dim=1) * g[0].norm(dim=1)).square()
    assert predicted[0, 0] == pytest.approx(float(squares.mean()) / 2)


def test_the_ratio_furthest_from_one() -> None:
    assert weight_decay.furthest(np.array([1.1, 0.5, 1.9])) == 0.5
    assert weight_decay.furthest(np.array([1.1, 0.9, 3.0])) == 3.0


def test_the_trials_part_from_their_controls() -> None:
    for system, momentum in (("random slopes", 0.0), ("random slopes", 0.9), ("network", 0.0)):
        angle = dict(system=system, momentum=momentum, **QUICK)
        assert abs(weight_decay.wd_equilibrium_angle(**angle)["value"] - 1) < 0.05
        assert weight_decay.wd_equilibrium_angle(**angle, invariant=False)["value"] < 0.9
    for system in weight_decay.SYSTEMS:
        length = dict(system=system, **QUICK)
        assert abs(weight_decay.wd_equilibrium_angle_length(**length) - 1) < 0.1
        assert weight_decay.wd_equilibrium_angle_length(**length, invariant=False) > 1.3
        assert weight_decay.wd_equilibrium_angle_length(**length, momentum=0.9) > 2
