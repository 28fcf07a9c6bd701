"""Date translation: the ceiling counted by brute force, the attention shown is the network's, the control is blind to order."""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from fractions import Fraction

import pytest
import torch

from lemmata.architectures import EncoderDecoder, greedy
from lemmata.studies.architectures import dates as study

MONTHS = "January February March April May June July August September October November December".split()


@pytest.fixture(autouse=True)
def fixed(double):
    torch.manual_seed(0)


def network(seed, positions="sinusoidal", layers=1):
    generator = torch.Generator().manual_seed(seed)
    return EncoderDecoder(66, 12, 8, study.HEADS, layers, 16, positions=positions, generator=generator)


def written(year, month, day):
    name, two = MONTHS[month - 1], str(year)[2:]
    return (
        f"{day} {name} {year}",
        f"{name} {day}, {year}",
        f"{name[:3]} {day}, {year}",
        f"{day} {name[:3]} {two}",
        "/".join([str(day).zfill(2), str(month).zfill(2), two]),
        ".".join(map(str, [day, month, year])),
        str(10000 * year + 100 * month + day),
    )


def brute_force(every):
    answers, total = defaultdict(Counter), 0
    for year in range(1950, 2050):
        for month in range(1, 13):
            for day in range(1, 32):
                try:
                    number = datetime.date(year, month, day).toordinal()
                except ValueError:
                    continue
                if number % every == 0:
                    for text in written(year, month, day):
                        answers[frozenset(Counter(text).items())][year, month, day] += 1
                        total += 1
    return sum(max(counts.values()) for counts in answers.values()), total, len(answers)


@pytest.mark.parametrize(
    ("held_out", "every", "counted"), [(False, 1, (54373, 255675, 53343)), (True, 10, (18332, 25571, 18051))]
)
def test_the_best_answers_to_bags_are_counted(held_out, every, counted):
    assert brute_force(every) == counted
    assert study.best_of_bags(held_out) == Fraction(*counted[:2])
    assert round(float(Fraction(*counted[:2])), 3) == (0.717 if held_out else 0.213)


def test_the_three_dates_of_the_statement_are_one_bag():
    texts = [written(2045, 3, 12)[4], written(1954, 3, 21)[4], written(2045, 10, 23)[4]]
    assert texts == ["12/03/45", "21/03/54", "23/10/45"] and len({"".join(sorted(text)) for text in texts}) == 1
    for text in texts:
        assert text in study.date_translation.statement


def test_without_positions_the_order_of_the_source_is_lost_and_with_them_it_is_not():
    source, target = torch.randint(66, (4, 18)), torch.randint(12, (4, 10))
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    for positions, lost in [("none", True), ("sinusoidal", False)]:
        net = network(0, positions)
        gap = (net(source, target) - net(source[:, order], target)).abs().max()
        assert (gap < 1e-12) == lost


def test_shifted_targets():
    assert study.shifted(torch.tensor([[3, 4, 5], [6, 7, 8]])).tolist() == [[0, 3, 4], [0, 6, 7]]


def test_the_rate_rises_for_a_tenth_and_falls_to_zero():
    rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule, rates = study.rise_and_fall(rule, 100), []
    for _ in range(100):
        rates.append(rule.param_groups[0]["lr"])
        rule.step()
        schedule.step()
    cosine = [1 + float(torch.cos(torch.tensor(torch.pi * n / 90))) for n in range(90)]
    assert rates[0] == pytest.approx(0.02) and rates[5] == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert rates[10:] == pytest.approx(cosine)
    assert rule.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_looks_are_the_weights_the_attention_uses():
    net = network(2, layers=2)
    source, target = torch.randint(66, (3, 7)), torch.randint(12, (3, 5))
    weights, last, seen = study.looks(net, source, target), net.layers[-1].cross, {}
    assert weights.shape == (3, study.HEADS, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, study.HEADS, 5))
    hook = last.register_forward_hook(lambda module, inputs, output: seen.update(values=inputs[2], output=output))
    net(source, study.shifted(target))
    hook.remove()
    values = last.W_v(seen["values"]).unflatten(-1, (study.HEADS, -1))
    mixed = last.W_o(torch.einsum("bhts,bshd->bthd", weights, values).flatten(2))
    torch.testing.assert_close(mixed, seen["output"])


def test_greedy_is_its_own_teacher_token_by_token():
    net, source = network(3), torch.randint(66, (3, 18))
    translation = greedy(net, source, study.START, 10)
    for row, tokens in zip(source, translation, strict=True):
        so_far = [study.START]
        for token in tokens.tolist():
            assert net(row[None], torch.tensor([so_far]))[0, -1].argmax().item() == token
            so_far.append(token)


def test_a_trial_shows_its_longest_date_and_what_is_right():
    result = study.date_translation(steps=20, seed=0)
    text = "".join(map(chr, result["written"])).rstrip("_")
    assert len(text) == 18 and text[:9] == "September"
    assert text in written(*map(int, "".join(map(chr, result["translated"])).split("-")))
    assert 0 <= result["value"] <= result["by place"].min() <= result["by place"].max() <= 1
    again, other = (study.date_translation(steps=20, seed=seed)["by place"] for seed in (0, 1))
    assert torch.equal(result["by place"], again) and not torch.equal(again, other)


@pytest.mark.slow
def test_the_claim_holds_and_its_control_fails_at_one_seed():
    assert study.date_translation(steps=1200, seed=0)["value"] >= 0.99
    assert study.date_translation(steps=1200, seed=0, positions="none")["value"] < float(study.best_of_bags())


def test_the_control_fails_after_few_steps():
    assert study.date_translation(steps=100, seed=0, positions="none")["value"] < float(study.best_of_bags())
