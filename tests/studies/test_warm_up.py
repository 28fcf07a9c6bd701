"""Warm-up: schedules and losses against a loop of torch's own Adam, the entropy by counting, the trial and its control."""

from __future__ import annotations

from collections import Counter
from math import log2

import pytest
import torch
from torch.nn.functional import cross_entropy

from lemmata.architectures import GPT
from lemmata.studies.architectures.text import LETTERS, parts
from lemmata.studies.gradient_flow import warm_up

pytestmark = pytest.mark.usefixtures("double")
TINY = dict(layers=1, width=8, steps=8, window=4, windows=2)


def test_learning_is_adam_on_random_windows() -> None:
    """The same run written out: one gradient, one update and one rate at a time."""
    draws = torch.Generator().manual_seed(3)
    text, _ = parts(False, draws)
    net = GPT(LETTERS, 8, 4, 1, 4, norm="post", activation="relu", init="glorot", dtype=torch.float32, generator=draws)
    adam, bits = torch.optim.Adam(net.parameters()), []
    for step, rate in enumerate([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.0075, 0.005, 0.0025]):
        starts = torch.randint(len(text) - 4, (1, 2, 1), generator=draws)[0, :, 0]
        chosen = torch.stack([text[int(i) : int(i) + 5] for i in starts])
        loss = cross_entropy(net(chosen[:, :-1]).reshape(-1, LETTERS), chosen[:, 1:].reshape(-1))
        bits.append(loss.item() * log2(torch.e))
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert step < 8
    assert warm_up.learned("post", 0.01, 4, 3, TINY).tolist() == pytest.approx(bits, rel=1e-5)
    assert warm_up.learned("post", 0.01, 0, 3, TINY).tolist() != pytest.approx(bits, rel=1e-3)


def test_the_entropy_is_that_of_counts() -> None:
    text = parts(False, torch.Generator())[0].tolist()
    shares = [count / len(text) for count in Counter(text).values()]
    assert warm_up.letter_entropy() == pytest.approx(-sum(p * log2(p) for p in shares))
    assert 3.9 < warm_up.letter_entropy() < log2(LETTERS)


def test_too_large_a_rate_needs_a_warm_up() -> None:
    """The control: with norms on the branches, too."""
    found = warm_up.layernorm_placement(norm="pre", layers=1, width=8, steps=60, seed=0, rate=1.0)
    assert found["without warm-up"].shape == found["with warm-up"].shape == (60,)
    assert found["value"] > 0.25
