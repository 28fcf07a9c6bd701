"""Floors of models blind to order: brute force over all orders, closed forms, and what must be refused."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import permutations, product
from math import comb, log

import pytest
import torch

import lemmata.analysis as la
from lemmata.analysis.approximation import PermutationFloor, exchangeable_floor, permutation_floor


def normal(generator: torch.Generator, count: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=generator, dtype=torch.float64)


def test_enumerated_floor_is_that_of_a_dictionary_of_multisets():
    """Rows and weights at random, grouped by Python's own sorting."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.randint(3, (200, 4), generator=draws)
    y, weights = torch.randn(200, 2, generator=draws), torch.rand(200, generator=draws)
    groups = defaultdict(list)
    for row, value, weight in zip(rows.tolist(), y.double().tolist(), weights.double().tolist(), strict=True):
        groups[tuple(sorted(row))].append((value, weight))
    truth = 0.0
    for group in groups.values():
        total = sum(weight for _, weight in group)
        for column in range(2):
            mean = sum(value[column] * weight for value, weight in group) / total
            truth += sum(weight * (value[column] - mean) ** 2 for value, weight in group) / 2
    found = permutation_floor(rows, y, weights)
    assert found.value == pytest.approx(truth / float(weights.double().sum()), rel=1e-12)
    assert found.multisets == len(groups) and found.value < found.constant


def test_first_bit_has_the_binomial_floors():
    t = 6
    bits = torch.tensor(list(product([0.0, 1.0], repeat=t)))
    share = [comb(t, k) / 2**t for k in range(t + 1)]
    entropy = [-sum(p * log(p) for p in (k / t, 1 - k / t) if p) for k in range(t + 1)]
    labels = permutation_floor(bits, bits[:, 0].long())
    assert labels.loss == "cross entropy" and labels.constant == pytest.approx(log(2))
    assert labels.value == pytest.approx(sum(p * h for p, h in zip(share, entropy, strict=True)), rel=1e-12)
    assert labels.error_rate == pytest.approx(sum(p * min(k, t - k) / t for k, p in enumerate(share)), rel=1e-12)
    assert permutation_floor(bits, bits[:, 0]).value == pytest.approx((1 - 1 / t) / 4, rel=1e-12)


def test_the_best_predictor_is_invariant_and_attains_the_floor():
    rows = torch.tensor(list(product(range(3), repeat=4)))
    y = (rows[:, 0] > rows[:, 3]).double() + rows[:, 1]
    found = permutation_floor(rows, y)
    assert float((y - found.best[:, 0]).square().mean()) == pytest.approx(found.value, rel=1e-12)
    place = {tuple(row): i for i, row in enumerate(rows.tolist())}
    for row, i in place.items():
        assert all(found.best[place[order], 0] == found.best[i, 0] for order in permutations(row))


def test_symmetric_targets_cost_nothing_and_vectors_are_tokens():
    draws = torch.Generator().manual_seed(1)
    tokens = torch.randn(3, 2, generator=draws)
    orders = torch.stack([tokens[list(p)] for p in permutations(range(3))])
    assert permutation_floor(orders, orders.square().sum((1, 2)).double().round(decimals=4)).value < 1e-25
    first = permutation_floor(orders, orders[:, 0])  # its mean over orders is the mean token
    assert first.value == pytest.approx(float(tokens.double().var(0, unbiased=False).mean()), rel=1e-6)
    swapped = orders.clone()
    swapped[..., 0] = orders[:, [1, 0, 2], 0]  # other vectors of the same numbers are other tokens
    assert permutation_floor(torch.cat([orders, swapped]), torch.zeros(12)).multisets == 1 + 3
    assert permutation_floor(torch.tensor([[0.0, -0.0], [-0.0, 0.0]]), torch.tensor([0.0, 1.0])).multisets == 1


def test_sampled_floor_covers_the_closed_form():
    misses, truth = 0, truth_of_signed_product()
    for seed in range(20):
        found = exchangeable_floor(lambda x: x[:, 0] * x[:, 1].sign(), normal, tol=0.03, seed=seed)
        low, high = found.interval(0.99)
        misses += not low < truth < high
        assert found.converged and found.constant == pytest.approx(1, abs=0.1)
    assert misses <= 2


def truth_of_signed_product() -> float:
    """E Var(x_1 sign(x_2) | multiset) for five normal tokens, by enumeration of ordered pairs on many draws."""
    x = torch.randn(100_000, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    pairs = torch.stack([x[:, i] * x[:, j].sign() for i, j in permutations(range(5), 2)])
    return float(pairs.var(0, unbiased=False).mean())


def test_an_estimate_says_that_it_did_not_converge_and_symmetry_gives_zero():
    short = exchangeable_floor(lambda x: x[:, 0], normal, tol=1e-4, budget=6000)
    assert not short.converged and short.sequences <= 6000 and "not converged" in repr(short)
    assert exchangeable_floor(lambda x: x.square().sum(1), normal).value < 1e-25


def test_what_positions_do_a_floor_does_not_bind():
    """The floor must fail where its hypothesis does: least squares on the ordered tokens goes to zero."""
    x = normal(torch.Generator().manual_seed(3), 400)
    rolled = torch.cat([x.roll(k, 1) for k in range(5)])
    floor = permutation_floor(rolled, rolled[:, 0]).value
    ordered = torch.linalg.lstsq(rolled, rolled[:, :1]).solution
    blind = torch.linalg.lstsq(rolled.sort(1).values, rolled[:, :1]).solution
    assert float((rolled @ ordered - rolled[:, :1]).square().mean()) < 1e-20
    assert float((rolled.sort(1).values @ blind - rolled[:, :1]).square().mean()) >= floor > 0.5


@pytest.mark.parametrize(
    ("call", "name", "remedy"),
    [
        (lambda: permutation_floor(torch.zeros(0, 3), torch.zeros(0)), "sequences", "Stack"),
        (lambda: permutation_floor(torch.zeros(2, 3), torch.zeros(3)), "sequences", "Stack"),
        (lambda: permutation_floor(torch.full((2, 3), float("nan")), torch.zeros(2)), "sequences", "Take the rows"),
        (lambda: permutation_floor(torch.zeros(2, 3), torch.tensor([0.0, float("inf")])), "targets", "Take the rows"),
        (lambda: permutation_floor(torch.zeros(2, 3), torch.tensor([-1, 0])), "targets", "Count labels from 0"),
        (lambda: permutation_floor(torch.zeros(2, 3), torch.zeros(2), torch.tensor([1.0, -1.0])), "weights", "Pass a"),
        (lambda: exchangeable_floor(lambda x: x.sum(), normal), "target", "Return one value"),
        (lambda: exchangeable_floor(lambda x: x[:, 0], normal, tol=0.0), "tol", "Leave the default"),
        (lambda: exchangeable_floor(lambda x: x[:, 0], normal, orders=1), "orders", "Leave the default"),
        (lambda: exchangeable_floor(lambda x: x[:, 0], lambda g, n: normal(g, n).sort(1).values), "sample", "Shuffle"),
        (
            lambda: exchangeable_floor(lambda x: x[:, 0], lambda g, n: normal(g, n) * torch.arange(1, 6)),
            "sample",
            "enumerate",
        ),
    ],
)
def test_bad_input_is_named_with_its_remedy(call, name, remedy):
    with pytest.raises(la.LemmataError) as caught:
        call()
    assert caught.value.name == name and remedy in caught.value.remedy


def test_records_and_plots():
    found = permutation_floor(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]))
    again = PermutationFloor.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.value == found.value == pytest.approx(log(2)) and torch.equal(again.best, found.best)
    assert [bar.get_height() for bar in found.plot().patches] == [found.constant, found.value]
    assert float(found) == found.value and found.interval() == (found.value, found.value)


def test_a_change_that_is_too_rare_to_be_seen_is_not_excluded() -> None:
    """A token of a normal law is above 6 in one of 10⁹: the floor is positive, and the sample saw nothing of it."""
    found = exchangeable_floor(lambda x: (x[:, 0] > 6).double() + (x > 0).any(1), normal)
    low, high = found.interval()
    assert found.stderr == 0 and low == 0 < 1e-9 < high == 3 / found.sequences * found.constant
    assert "exact" not in repr(found) and "exact" in repr(permutation_floor(torch.eye(2), torch.ones(2)))


@pytest.mark.parametrize(
    ("call", "name", "remedy"),
    [
        (lambda: permutation_floor([[0, 1]], torch.ones(1)), "sequences", "torch.tensor"),
        (lambda: permutation_floor(torch.eye(2), torch.tensor([0, 10**9])), "targets", "unique"),
        (lambda: permutation_floor(torch.eye(2), torch.tensor([0, 1e200], dtype=torch.float64)), "targets", "Scale"),
        (lambda: exchangeable_floor(lambda x: 1e200 * x[:, 0], normal), "targets", "Scale"),
        (lambda: exchangeable_floor(lambda x: x[:, 0], normal, orders=2.5), "orders", "Leave the default"),
    ],
)
def test_more_that_is_refused(call, name: str, remedy: str) -> None:
    with pytest.raises(la.LemmataError, match=name) as raised:
        call()
    assert remedy in str(raised.value)
