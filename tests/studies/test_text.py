"""Predicting letters: the counting model is Kneser and Ney's, bits are bits, and the controls take the advantage away."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lemmata.studies.architectures import text as study
from lemmata.studies.claim import numerics

TOY = "abracadabra abracad bad cab bar crab"
SYMBOLS = sorted(set(TOY + "z"))  # z never occurs in the text


def coded(string: str) -> torch.Tensor:
    return torch.tensor([SYMBOLS.index(character) for character in string])


def by_hand(string: str, context: str, character: str, top: bool = True) -> Fraction:
    """The model in exact fractions from sets and dictionaries of strings: p(character | context)."""
    n = len(context) + 1
    found = Counter(string[i : i + n] for i in range(len(string) - n + 1))
    if not top:
        longer = {string[i : i + n + 1] for i in range(len(string) - n)}
        found = Counter(string[1:] for string in longer)
    once, twice = (sum(count == k for count in found.values()) for k in (1, 2))
    discount = Fraction(once, once + 2 * twice) if once else Fraction(1, 2)
    lower = by_hand(string, context[1:], character, top=False) if context else Fraction(1, len(SYMBOLS))
    after = {s: count for s, count in found.items() if s[:-1] == context}
    if not after:
        return lower
    kept = max(after.get(context + character, 0) - discount, 0)
    return (kept + discount * len(after) * lower) / sum(after.values())


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_equals_exact_fractions_and_sums_to_one(order):
    contexts = {TOY[i : i + order - 1] for i in range(len(TOY))} | {"z" * (order - 1), "ra "[: order - 1]}
    for context in [c for c in contexts if len(c) == order - 1]:
        p = [
            study.kneser_ney(coded(TOY), coded(context + character), order, len(SYMBOLS)).item()
            for character in SYMBOLS
        ]
        assert p == pytest.approx([float(by_hand(TOY, context, character)) for character in SYMBOLS], rel=1e-13)
        assert sum(p) == pytest.approx(1, rel=1e-13)
        assert min(p) > 0


def test_kneser_ney_of_a_bigram_by_hand():
    """Of "aab": counts aa 1, ab 1, D = 1; predecessors of a: {a}, of b: {a}, D = 1; so all falls back to uniform."""
    p = study.kneser_ney(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), order=2, size=2)
    assert p.tolist() == [0.5, 0.5]


def test_every_character_of_a_text_is_predicted_once_in_order():
    p = study.kneser_ney(coded(TOY), coded("bad crab"), 3, len(SYMBOLS))
    wanted = [float(by_hand(TOY, "bad crab"[i : i + 2], "bad crab"[i + 2])) for i in range(6)]
    assert p.tolist() == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize(("window", "stride"), [(4, 1), (32, 4)])
def test_a_uniform_network_pays_log2_of_the_alphabet(window, stride):
    paid = study.bits(lambda s: torch.zeros(*s.shape, 27), torch.zeros(100, dtype=torch.long), window, stride)
    assert paid.shape == ((99 - window) // stride + 1, window)
    torch.testing.assert_close(paid, torch.full_like(paid, math.log2(27)))


@pytest.mark.parametrize("window", [3, 4, 32])
def test_network_and_ngrams_are_compared_on_the_same_characters(window):
    """A "network" that is the 2-gram model itself pays exactly what the 2-gram model pays."""
    with numerics():
        learned, held_out = study.parts(False, torch.Generator())
        learned, held_out = learned[:5000], held_out[:1000]
        pairs = torch.cartesian_prod(torch.arange(27), torch.arange(27))
        table = torch.stack([study.kneser_ney(learned, pair, 2, 27)[0] for pair in pairs]).reshape(27, 27)
        result = study.compared(lambda s: table[s].log(), learned, held_out, 2, window)
    torch.testing.assert_close(result["network"], result["ngrams"][1], rtol=1e-12, atol=0)


def test_a_text_in_shannons_alphabet():
    learned, held_out = study.parts(False, torch.Generator())
    assert "".join(study.ALPHABET[code] for code in learned[:33]) == "the assert statement assert state"
    both = (learned[1:] == 0) & (learned[:-1] == 0)
    assert not both.any()
    mixed, rest = study.parts(True, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        torch.cat([mixed, rest]).bincount(minlength=27), torch.cat([learned, held_out]).bincount(minlength=27)
    )


@pytest.mark.parametrize("removed", [dict(shuffled=True), dict(short=True)])
def test_controls_fail(removed, monkeypatch):
    """At a tiny size, against 2-grams: the network wins, and without the hypothesis it does not."""
    tiny = replace(study.RECIPES["gru", "large"], width=32, rate=2 / 32, steps=150)
    monkeypatch.setattr(study, "RECIPES", {("gru", "tiny"): tiny})
    with numerics():
        own, control = (
            study.text_beyond_ngrams("gru", "tiny", order=2, seed=0, **keywords)["value"] for keywords in ({}, removed)
        )
    assert control < study.text_beyond_ngrams.predicts.bound < own


def test_curves_of_unequal_length_share_one_table():
    """The figure of networks that learned for different times: one column of updates, the shorter curve filled up."""
    rows = [
        SimpleNamespace(
            k=0,
            arm="",
            point={"model": model},
            values={"losses": np.full(steps, 2.0), "network": 2.0, "ngrams": [4.0, 3.0]},
        )
        for model, steps in (("lstm", 20), ("gpt", 30))
    ]
    columns = study.draw_learning(Figure().subplots(), rows)
    assert {name: len(column) for name, column in columns.items()} == {"update": 3, "LSTM": 3, "GPT": 3}
    assert math.isnan(columns["LSTM"][2])
    assert columns["update"] == [5, 15, 25]
