"""Networks written out: what the studies measure by another channel, trials and controls."""

from __future__ import annotations

import itertools

import pytest
import torch

from lemmata.analysis.approximation.constructions_sequences import Automaton
from lemmata.studies.approximation import explicit

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("name", list(explicit.ROUGH))
def test_moduli_are_those_of_the_functions(name: str) -> None:
    """No difference over a distance of h is larger than ω(h), and some is at least a third of it."""
    f, modulus = explicit.ROUGH[name]
    x = f.domain.grid(4097)
    y = f(x)
    for step in (1, 8, 64):
        largest = float((y[step:] - y[:-step]).abs().max())
        assert modulus(2 * step / 4096) / 3 <= largest <= modulus(2 * step / 4096) * (1 + 1e-9)


def test_steps_and_their_controls() -> None:
    trial = explicit.sigmoid_density
    found = trial(target="corner", cells=80, seed=0)
    assert found["value"] <= 1 + 2**-10
    assert (found["f"] - found["y"]).abs().max() <= found["value"] * 2 / 80 + 1e-12
    assert trial(target="corner", cells=80, seed=0, activation="bump")["value"] > 10
    assert trial(target="corner", cells=320, seed=0, steep=False)["value"] > 2


def test_ridges_and_their_control() -> None:
    assert explicit.ridge_density(cells=60, d=2, seed=1)["value"] <= 1
    assert explicit.ridge_density(cells=200, d=2, seed=1, directions="axes")["value"] > 2


def test_products_and_their_control() -> None:
    found = explicit.polynomial_by_products(m=12, degree=5, seed=0)
    assert found["value"] <= 1 and found["layers"] == 4 * 13 and found["error"] < 1e-5
    shallow = explicit.polynomial_by_products(m=12, degree=5, seed=0, layers="one")
    assert shallow["value"] > 10 and shallow["neurons"] == found["neurons"]


def test_neurons_hold_the_state_of_the_automaton() -> None:
    moves = [[1, 2], [0, 2], [2, 1]]
    net = Automaton(moves, 0, [2])
    for word in itertools.product((0, 1), repeat=6):
        held = net.states(torch.eye(2)[list(word)][None])[:, 0]
        state = 0
        for letter, h in zip(word, held[1:], strict=True):
            assert h.tolist() == [float(n == 2 * state + letter) for n in range(7)]
            state = moves[state][letter]


def test_automata_and_their_controls() -> None:
    trial = explicit.automaton_by_recurrence
    assert trial(states=5, length=200, seed=0)["value"] == 0
    assert trial(states=5, length=200, seed=0, activation="tanh")["value"] > 0.1
    assert trial(states=5, length=200, seed=0, language="brackets")["value"] > 0.05
    assert trial(states=21, length=10, seed=0, language="brackets")["value"] == 0  # enough states for short words


def test_tables_and_their_controls() -> None:
    trial = explicit.equivariant_by_attention
    found = trial(symbols=3, length=4, seed=0)
    assert found["value"] < 1e-9 and found["cases"] == 3 * 10
    assert trial(symbols=3, length=4, seed=0, seen="all but the last")["value"] > 0.1
    assert trial(symbols=3, length=4, seed=0, equivariant=False)["value"] > 0.1


@pytest.mark.parametrize(
    "claim",
    [explicit.sigmoid_density, explicit.polynomial_by_products],
    ids=lambda claim: claim.id,
)
def test_verdicts_and_figures(claim) -> None:
    from matplotlib.figure import Figure

    result = claim.run("quick")
    assert result.verdict.name == claim.expects, str(result)
    for draw in claim.figures:
        columns = draw(Figure().subplots(), result.rows)
        assert len({len(column) for column in columns.values()}) == 1
