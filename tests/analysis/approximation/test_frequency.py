"""Learning by frequency against closed forms of gradient descent, scipy's harmonics, and networks that break the order."""

from __future__ import annotations

import json
from functools import partial
from math import pi

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from torch import Tensor, nn

from lemmata.analysis import (
    FrequencyLearning,
    LemmataError,
    Modes,
    circle_modes,
    empirical_ntk,
    frequency_learning,
    interval_modes,
    sphere_modes,
)
from lemmata.analysis.errors import ArgumentError, DataError, ModelStateError, NumericsError, OperandError

DESCENT = partial(torch.optim.SGD, lr=1.0)


class Features(nn.Module):
    """A linear model in cosines of given amplitudes on the interval: its kernel is diagonal in the modes."""

    def __init__(self, sizes: list[float]) -> None:
        super().__init__()
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.float64))
        self.theta = nn.Parameter(torch.zeros(len(sizes)))

    def forward(self, x: Tensor) -> Tensor:
        k = torch.arange(1, len(self.sizes) + 1).to(x)
        return (self.sizes * 2**0.5 * torch.cos(2 * pi * k * x)) @ self.theta


def waves(points: Tensor, *amplitudes: float) -> Tensor:
    return sum(a * 2**0.5 * torch.cos(2 * pi * (k + 1) * points[:, 0]) for k, a in enumerate(amplitudes))


@pytest.mark.parametrize("modes", [interval_modes(16, 7), circle_modes(9, 4), sphere_modes(7, 6)])
def test_modes_are_orthonormal(modes: Modes) -> None:
    gram = (modes.basis.T * modes.weights) @ modes.basis
    assert torch.allclose(gram, torch.eye(len(gram), dtype=torch.float64), atol=1e-13)
    assert float(modes.weights.sum()) == pytest.approx(1, abs=1e-14)
    assert not torch.allclose((modes.basis.T * modes.weights.flip(0) ** 2) @ modes.basis, gram, atol=1e-3)


def test_harmonics_are_those_of_scipy() -> None:
    modes = sphere_modes(6, 4)
    x, y, z = modes.points.T.numpy()
    for degree, order in ((2, 0), (3, 2), (4, 4)):
        truth = (
            sph_harm_y(degree, order, np.arccos(z), np.arctan2(y, x)).real * (4 * pi) ** 0.5 * (2**0.5 if order else 1)
        )
        column = modes.basis[:, degree**2 + degree + order].numpy()
        assert np.allclose(column, truth, atol=1e-12)
    polynomial = modes.points[:, 0] * modes.points[:, 1] * modes.points[:, 2]  # of degree 3, harmonic
    assert modes.amplitudes(polynomial).gt(1e-12).tolist() == [False, False, False, True, False]


def test_amplitudes_add_up_what_shares_a_frequency() -> None:
    modes = circle_modes(12, 5)
    angle = torch.atan2(modes.points[:, 1], modes.points[:, 0])
    values = torch.stack([3 * torch.cos(2 * angle) + 4 * torch.sin(2 * angle), torch.ones_like(angle)])
    assert torch.allclose(modes.amplitudes(values)[:, [0, 2]], torch.tensor([[0, 5 / 2**0.5], [1, 0]]).double())


def test_a_diagonal_kernel_is_learned_by_its_closed_form() -> None:
    """c_k(t) = (1 − η s_k²)^t: features of size s_k have the kernel s_k² at frequency k."""
    modes, sizes = interval_modes(32, 8), [0.9, 0.6, 0.3]
    found = frequency_learning([Features(sizes)], modes, waves(modes.points, 1.0, -2.0, 0.5), DESCENT, 50)
    assert found.frequencies.tolist() == [1, 2, 3] and found.rate == 1.0 and found.converged
    squares = torch.tensor(sizes).double().square()
    assert torch.allclose(found.kernel, squares[None])
    curve = torch.tensor([1.0, 2.0, 0.5]).double() * (1 - squares) ** torch.arange(51)[:, None]
    assert torch.allclose(found.residuals[:, 0], curve, atol=1e-12)
    assert torch.allclose(found.times(0.3), found.predicted(0.3), rtol=1e-9) and float(found.order) == pytest.approx(1)
    backwards = frequency_learning([Features(sizes[::-1])], modes, waves(modes.points, 1, 1, 1), DESCENT, 50)
    assert float(backwards.order) == pytest.approx(-1)


def test_a_frequency_that_is_never_learned_is_infinite_and_last() -> None:
    modes = interval_modes(32, 8)
    found = frequency_learning([Features([0.9, 0.3])], modes, waves(modes.points, 1, 1, 0, 1), DESCENT, 20)
    assert found.times().isinf().tolist() == [[False, False, True]] and float(found.order) == pytest.approx(1)
    assert not found.converged and "not all learned" in repr(found)
    assert found.interval()[1].isinf().tolist() == [True, True, True]  # one network has no interval


def test_on_the_sphere_odd_degrees_need_biases() -> None:
    """Degree 3 is none of |w·x|: without biases the kernel is zero there; Parseval over degrees gives the others."""
    modes = sphere_modes(8, 4)
    x, y, z = modes.points.T
    goal = 3 * x * y + 5 * x * y * z
    for bias in (False, True):
        net = nn.Sequential(nn.Linear(3, 200, bias=bias), nn.ReLU(), nn.Linear(200, 1, bias=False))
        for parameter in net.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(net[2].weight)
        found = frequency_learning([net], modes, goal, partial(torch.optim.SGD, lr=0.02), 40)
        assert found.frequencies.tolist() == [2, 3] and float(found.times()[0, 0]) < 40
        assert (float(found.kernel[0, 1]) > 1e-3) is bias
        if not bias:
            assert float((found.residuals[-1, 0, 1] / found.residuals[0, 0, 1] - 1).abs()) < 1e-12


def test_what_is_there_from_the_start_takes_no_time() -> None:
    residuals = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.25]], dtype=torch.float64)[:, None]
    found = FrequencyLearning(torch.tensor([1, 2]), residuals, torch.ones(1, 2), None)
    assert found.times().tolist() == [[0.0, 1.5]]


def networks(count: int, width: int = 48) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1)).double() for _ in range(count)]


def test_networks_side_by_side_are_those_one_by_one_and_of_a_plain_loop() -> None:
    nets, modes = networks(3), circle_modes(16, 3)
    goal = modes.points[:, 0] - modes.points[:, 1] ** 2
    before = [p.clone() for p in nets[0].parameters()]
    adam = partial(torch.optim.Adam, lr=0.01)
    found = frequency_learning(nets, modes, goal, adam, 30)
    assert all(torch.equal(p, q) for p, q in zip(before, nets[0].parameters(), strict=True))
    alone = frequency_learning(nets[1:2], modes, goal, adam, 30)
    assert torch.allclose(found.residuals[:, 1:2], alone.residuals, atol=1e-10) and found.rate is None
    rule = adam(nets[1].parameters())
    for _ in range(30):
        rule.zero_grad()
        (0.5 * (nets[1](modes.points)[:, 0] - goal).square().mean()).backward()
        rule.step()
    left = modes.amplitudes(nets[1](modes.points).detach()[:, 0] - goal)[[0, 1, 2]]
    assert torch.allclose(alone.residuals[-1, 0], left, atol=1e-10)


def test_the_kernel_is_the_empirical_one_and_foretells_the_first_steps() -> None:
    nets, modes = networks(1, 400), circle_modes(16, 3)
    goal = modes.points[:, 0].clone()
    theta = empirical_ntk(lambda: nets[0], modes.points, max_draws=10).values
    start = modes.weights * (nets[0](modes.points).detach()[:, 0] - goal)
    part = modes.basis[:, 1:3] @ (modes.basis[:, 1:3].T @ start)
    found = frequency_learning(nets, modes, goal, partial(torch.optim.SGD, lr=1e-3), 1)
    form = modes.weights * part @ theta @ (modes.weights * part) / (modes.weights * part.square()).sum()
    assert float(found.kernel[0, 0]) == pytest.approx(float(form), rel=1e-9)
    drop = float((found.residuals[0] - found.residuals[1]) / found.residuals[0]) / 1e-3
    assert drop == pytest.approx(float(form), rel=0.25)  # the rest comes from the coupling to other frequencies


def test_the_interval_covers_the_geometric_mean() -> None:
    """Kernels of log-normal size: the geometric mean of the times is ln 2 over that of the kernels."""
    caught, t = 0, torch.arange(400.0, dtype=torch.float64)
    for seed in range(200):
        draws = torch.Generator().manual_seed(seed)
        kernel = (0.5 * torch.randn(6, 1, generator=draws, dtype=torch.float64)).exp() * 0.02
        found = FrequencyLearning(torch.tensor([1]), torch.exp(-kernel * t[:, None, None]), kernel, 0.01)
        low, high = found.interval(level=0.9)
        caught += bool(low < np.log(2) / 0.02 < high)
    assert 165 <= caught <= 195  # 180 expected


def test_the_record_comes_back_and_draws() -> None:
    modes = interval_modes(16, 4)
    found = frequency_learning([Features([0.9, 0.5])] * 2, modes, waves(modes.points, 1, 1), DESCENT, 5)
    again = FrequencyLearning.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) and torch.equal(again.residuals, found.residuals)
    assert len(found.plot().lines) == 4


FLAT = interval_modes(8, 2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(steps=0), ArgumentError, "steps"),
        (dict(target=torch.ones(7)), DataError, "modes.points"),
        (dict(target=torch.full((8,), torch.nan)), DataError, "finite"),
        (dict(target=torch.tensor([1.0, -1.0] * 4)), DataError, "higher frequency"),
        (dict(networks=[nn.Linear(1, 2)]), ArgumentError, "one output"),
        (dict(networks=[]), ArgumentError, "networks"),
        (dict(networks=[nn.Linear(1, 1), nn.Linear(1, 1, bias=False)]), ArgumentError, "networks"),
        (dict(networks=[nn.Sequential(nn.Linear(1, 1), nn.Dropout())]), ModelStateError, "eval"),
        (dict(optimizer=partial(torch.optim.SGD, lr=1e9), steps=60), NumericsError, "Lower the learning rate"),
    ],
)
def test_bad_input_is_named(change: dict, error: type[LemmataError], words: str) -> None:
    keywords = dict(networks=[nn.Linear(1, 1)], modes=FLAT, target=waves(FLAT.points, 1.0), optimizer=DESCENT, steps=2)
    with pytest.raises(error, match=words):
        frequency_learning(**keywords | change)


def test_bad_grids_and_shares_are_named() -> None:
    for call, words in (
        (lambda: interval_modes(8, 4), "Take more points"),
        (lambda: circle_modes(8, -1), "highest"),
        (lambda: sphere_modes(4, 4), "Take more rings"),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()
    with pytest.raises(OperandError, match="modes.points"):
        FLAT.amplitudes(torch.ones(5))
    found = frequency_learning([Features([0.5])], FLAT, waves(FLAT.points, 1.0), partial(torch.optim.Adam, lr=0.1), 2)
    with pytest.raises(ArgumentError, match="SGD"):
        found.predicted()
    with pytest.raises(ArgumentError, match="e-folding"):
        found.times(1.0)


def test_a_step_too_long_for_a_mode_never_halves_it() -> None:
    modes = interval_modes(8, 2)
    slow, fast, blind = 0.5, 5**0.5, 0.0
    rule = partial(torch.optim.SGD, lr=0.5)
    found = frequency_learning([Features([slow, fast])], modes, waves(modes.points, 1, 1), rule, 3)
    predicted = found.predicted()[0]
    assert predicted[0] == pytest.approx(np.log(0.5) / np.log(1 - 0.5 * slow**2)) and torch.isinf(predicted[1])
    assert found.times()[0, 1] == float("inf") and predicted[1] > 0
    unseen = frequency_learning([Features([slow, blind])], modes, waves(modes.points, 1, 1), rule, 3)
    assert unseen.predicted()[0, 1] == float("inf")


def test_a_target_keeps_its_gradient() -> None:
    modes = interval_modes(8, 1)
    target = waves(modes.points, 1.0).requires_grad_()
    found = frequency_learning([Features([0.5])], modes, target, DESCENT, 2)
    assert target.grad is None and not found.residuals.requires_grad


@pytest.mark.parametrize("rings", [5, 1.5, 0])
def test_rings_are_refused_by_their_own_name(rings: float) -> None:
    with pytest.raises(ArgumentError, match=r"^rings: expected more than 5.*given .*Take more rings"):
        sphere_modes(rings, 5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_does_not_ask_how_gradients_are_set(mode: type) -> None:
    modes = circle_modes(16, 2)
    nets = [nn.Linear(2, 1, bias=False)]
    optimizer = partial(torch.optim.SGD, lr=1.0)
    expected = frequency_learning(nets, modes, modes.points[:, 0], optimizer, 3)
    with mode():
        found = frequency_learning(nets, modes, modes.points[:, 0].clone(), optimizer, 3)
        assert not torch.is_grad_enabled()
    assert torch.equal(found.residuals, expected.residuals) and nets[0].weight.grad is None
