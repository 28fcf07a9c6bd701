"""The adding problem: its sequences and its floor against exact truth, sensitivities against differences, both controls."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from scipy import integrate

from lemmata.studies.architectures import memory

pytestmark = pytest.mark.usefixtures("double")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("length", [4, 6, 7, 50])
def test_two_pairs_of_the_first_half_are_marked_and_sum_to_the_target(length):
    marked = torch.rand(200, 2, generator=seeded(0))
    inputs, target = memory.adding_problem(marked, length, seeded(1))
    assert inputs.shape == (200, length, 2) and inputs.dtype == torch.float64
    for sequence, pair, total in zip(inputs.tolist(), marked.tolist(), target.tolist(), strict=True):
        assert {mark for _, mark in sequence} == {0.0, 1.0}
        places = [t for t, (_, mark) in enumerate(sequence) if mark == 1]
        assert len(places) == 2 and max(places) < length // 2
        assert sorted(sequence[t][0] for t in places) == sorted(pair)
        assert total == pytest.approx(sum(pair), abs=1e-15)
        assert all(0 <= number < 1 for number, _ in sequence)


def test_every_place_of_the_first_half_is_marked_as_often():
    inputs, _ = memory.adding_problem(torch.rand(6000, 2, generator=seeded(2)), 12, seeded(3))
    share = inputs[:, :, 1].mean(0)
    assert (share[:6] - 1 / 3).abs().max() < 5 * (2 / 9 / 6000) ** 0.5 and share[6:].max() == 0


def test_the_variance_of_the_sum_is_a_sixth_and_not_the_misprint():
    second, first = (Fraction(1, n + 1) for n in (2, 1))  # moments of one number
    assert 2 * (second - first**2) == Fraction(1, 6)
    risk, _ = integrate.dblquad(lambda x, y: (x + y - 1) ** 2, 0, 1, 0, 1)
    assert risk == pytest.approx(memory.FLOOR, rel=1e-12)
    assert memory.MISPRINT - memory.FLOOR > 2 * float(Fraction(1, 200))


@pytest.mark.parametrize("divisions", [1, 2, 8, 64])
def test_on_the_midpoints_a_constant_has_its_risk_but_for_a_known_share(divisions):
    centres = [Fraction(2 * i + 1, 2 * divisions) for i in range(divisions)]
    exact = sum((x + y - 1) ** 2 for x in centres for y in centres) / divisions**2
    assert exact == Fraction(1, 6) * (1 - Fraction(1, divisions**2))
    pairs = memory.midpoints(divisions)
    assert pairs.shape == (divisions**2, 2)
    output = torch.ones(divisions**2, 3, 1)
    assert memory.squared_error(output, pairs.sum(1)).item() == pytest.approx(float(exact), abs=1e-14)


def test_only_the_last_output_is_judged():
    output = torch.tensor([[[9.0], [1.0]], [[7.0], [2.0]]])
    assert memory.squared_error(output, torch.tensor([0.0, 4.0])).item() == 2.5


@pytest.mark.parametrize("architecture", memory.NETWORKS)
def test_sensitivity_is_that_of_finite_differences(architecture, monkeypatch):
    monkeypatch.setattr(memory, "BATCH", 3)
    length, step = 6, 1e-6
    net = memory.NETWORKS[architecture][0](length, seeded(4))
    found = memory.sensitivity(net, length, seeded(5))
    again = seeded(5)
    inputs, _ = memory.adding_problem(torch.rand(3, 2, generator=again), length, again)
    squares = torch.zeros(length)
    with torch.no_grad():
        for t in range(length):
            for channel in range(2):
                bump = torch.zeros_like(inputs)
                bump[:, t, channel] = step
                slope = (net(inputs + bump)[:, -1, 0] - net(inputs - bump)[:, -1, 0]) / (2 * step)
                squares[t] += slope.square().mean()
    torch.testing.assert_close(found, squares.sqrt(), rtol=1e-6, atol=1e-10)


def test_an_untrained_elman_network_forgets_and_gated_ones_do_not():
    far = {name: memory.trained(name, 50, 2, 0)["sensitivity"][0].item() for name in memory.NETWORKS}
    assert far["rnn"] < 1e-6 and min(far["lstm"], far["gru"]) > 1e-2


def test_the_floor_holds_at_one_seed_and_its_control_fails():
    far, near = (memory.adding_problem_floor(length=length, steps=150, seed=0) for length in (50, memory.SHORT))
    assert abs(far - memory.FLOOR) < 1 / 200 < memory.FLOOR - near


def test_gates_learn_at_one_seed_and_the_control_fails():
    gated = memory.adding_problem_gates("gru", length=20, steps=200, seed=0)["value"]
    elman = memory.adding_problem_gates("rnn", length=50, steps=150, seed=0)["value"]
    assert gated <= 0.1 < elman


def test_the_same_seed_gives_the_same_error():
    first, again, other = (memory.trained("rnn", 6, 5, seed)["error"] for seed in (0, 0, 1))
    assert first == again != other
