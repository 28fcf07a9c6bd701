r"""Universality, written out.

Theorems of universal approximation say that a network exists. Here are the networks, weight by weight: steps of sigmoids that follow
any continuous function @cybenko1989approximation @hornik1991approximation, sums of them in many directions for functions of several
variables, products that make polynomials at an exponential rate in the depth @yarotsky2017error, a recurrence that runs a finite
automaton @siegelmann1995computational, and one attention layer that computes any equivariant function of short words
@yun2020transformers. Each comes with a bound, and the bound is measured. What such weights cost, and whether training finds
them, is another matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lemmata.analysis import Box, Target, constructions, targets
from lemmata.analysis.approximation.constructions_sequences import Automaton
from lemmata.analysis.approximation.constructions_sets import CountingAttention, words_of
from lemmata.analysis.approximation.target_spectra import Lines
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

ROUGH = {
    "root": (targets.hoelder(0.5), lambda h: h**0.5),
    "corner": (targets.absolute(), lambda h: h),
    "Weierstrass": (targets.weierstrass(0.5, 5, 3), lambda h: min(9.75 * np.pi * h, 3.5)),
}


class Bump(nn.Module):
    """exp(−z²), which is 0 at both ends."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.exp(-(z**2))


def draw_steps(ax: Any, rows: Rows) -> Columns:
    """Nineteen sigmoids climb a root step by step; with bumps in their place nothing adds up.

    The square root of the absolute value on the interval from minus one to one, in grey. A staircase of twenty steps
    follows it; a line of thin spikes, the same network with bumps, does not.
    """
    columns: dict[str, Any] = {}
    for arm, label in (("", "sigmoids"), (BUMPS, "bumps")):
        row = next(r for r in rows if r.arm == arm and r.point["target"] == "root" and r.point["cells"] == 20)
        columns["x"], columns["target"], columns[label] = (row.values[name] for name in ("x", "y", "f"))
        ax.plot(columns["x"], columns[label], linewidth=1.2, label=label)
    ax.plot(columns["x"], columns["target"], color="0.7", linewidth=4, zorder=0, label="$|x|^{1/2}$")
    ax.set(xlabel="x")
    ax.legend()
    return columns


BUMPS = "a sigmoid, from 0 to 1: a bump"
FLAT = "slopes that grow with n: an eighth of that for 20 cells"


@claim(
    source=("cybenko1989approximation", "hornik1991approximation"),
    predicts=AtMost("1 + 2**-10", of="max"),
    quick=Grid(target=list(ROUGH), cells=[20, 80, 320], seeds=1),
    full=Grid(target=list(ROUGH), cells=[20, 80, 320, 1280], seeds=1),
    controls={BUMPS: dict(activation="bump"), FLAT: dict(steep=False)},
    figures=(draw_steps,),
)
def sigmoid_density(
    target: str, cells: int, seed: int, activation: str = "sigmoid", steep: bool = True
) -> dict[str, Any]:
    r"""Sigmoids follow any continuous function as closely as its values on a grid do.

    Let $omega(h) = max_(abs(x - y) <= h) abs(f(x) - f(y))$ be the modulus of continuity of $f$ on an interval, cut into $n$ cells of width
    $h$ with centres $t_k$ and ends $s_k$, and $sigma(z) = 1\/(1 + e^(-z))$. With $lambda = (2\/h) ln(2^10 n)$,
    $ g(x) = f(t_1) + sum_(k=1)^(n-1) (f(t_(k+1)) - f(t_k)) sigma(lambda (x - s_k)) $
    satisfies $norm(f - g)_oo <= (1 + 2^(-10)) omega(h)$: near $s_k$ it is a mean of two values from at most $h$ away, and the other
    steps have been made or not begun. One hidden layer of sigmoids is therefore dense in the continuous functions
    @cybenko1989approximation @hornik1991approximation. The value is the largest error over $omega(h)$, for $abs(x)^(1\/2)$, $abs(x)$ and
    three terms of Weierstrass's function on $[-1, 1]$. Controls: a bump in place of the sigmoid, which leaves no step behind;
    and an eighth of the slope that 20 cells take, at every $n$.
    """
    f, modulus = ROUGH[target]
    construction = constructions.sigmoid_steps(f, modulus, cells, -1.0, 1.0)
    net = construction.network
    assert isinstance(net, nn.Sequential)
    if activation == "bump":
        net[1] = Bump()
    if not steep:
        with torch.no_grad():
            for parameter in net[0].parameters():
                parameter.mul_(20 * log(20 * 2**10) / (cells * log(cells * 2**10)) / 8)
    x = construction.domain.grid(16 * cells + 1)
    y, found = f(x), construction(x)
    shown = slice(None, None, max(1, cells // 20))
    error = (found - y).abs().max()
    return {"value": error / modulus(2 / cells), "x": x[shown, 0], "y": y[shown], "f": found[shown]}


@claim(
    source="cybenko1989approximation",
    predicts=AtMost("1", of="max"),
    quick=Grid(cells=[50, 200], d=[2, 3], seeds=5),
    full=Grid(cells=[50, 200, 800], d=[2, 3, 5], seeds=10),
    controls={"a direction for each wave: the axes": dict(directions="axes")},
)
def ridge_density(cells: int, d: int, seed: int, directions: str = "waves") -> dict[str, Any]:
    r"""Functions of several variables are sums of functions of one, each in its own direction.

    A wave $cos(omega dot x)$ varies in one direction alone, and along it sigmoids climb it. For $f = sum_k a_k cos(omega_k dot x)$ on
    $[-1, 1]^d$, $n$ cells for each wave give an error of at most $ (1 + 2^(-10)) sum_k abs(a_k) 2 norm(omega_k)_1 \/ n, $
    and sums of waves are dense in the continuous functions, so networks are too @cybenko1989approximation. The value is the largest
    error over the bound, for four waves with Gaussian frequencies. The control lets every sigmoid look along one axis:
    a sum of functions of single variables, which is as far from $f$ as its mixed terms are large.
    """
    draws = torch.Generator().manual_seed(seed)
    lines = Lines(2 * gaussian(draws, 4, d), gaussian(draws, 4))
    construction = constructions.ridge_sum(Target("waves", lines, Box.cube(d), spectrum=lines), cells)
    first = next(iter(construction.network.parameters()))
    if directions == "axes":
        with torch.no_grad():  # the largest component has to do for all, over the same range
            kept = first.abs() == first.abs().amax(1, keepdim=True)
            first.copy_(torch.where(kept, first.abs().sum(1, keepdim=True) * first.sign(), 0.0))
    x = construction.domain.sample(20_000, seed=seed)
    error = construction.errors(x).max()
    return {"value": error / construction.error_bound, "error": error, "units": len(first)}


def draw_polynomial(ax: Any, rows: Rows) -> Columns:
    """Each layer of a product divides the error by four; width does it with a power.

    Largest error on Chebyshev's polynomial against the number of rectifiers, both logarithmic: products fall steeply, below
    their dashed bound; one hidden layer of as many falls along a line and is overtaken.
    """
    columns: dict[str, Any] = {}
    for arm, label in (("", "products"), (SHALLOW, "one hidden layer")):
        shown = sorted((r.values["neurons"], r.values["error"], r.values["bound"]) for r in rows if r.arm == arm)
        columns["neurons"], columns[label], columns["bound"] = (list(part) for part in zip(*shown, strict=True))
        ax.loglog(columns["neurons"], columns[label], marker="o", label=label)
    ax.loglog(columns["neurons"], columns["bound"], "--", color="0.4", label="bound")
    ax.set(xlabel="rectifiers", ylabel="largest error")
    ax.legend()
    return columns


SHALLOW = "depth: as many rectifiers in one hidden layer"


@claim(
    source="yarotsky2017error",
    predicts=AtMost("1", of="max"),
    quick=Grid(m=[2, 4, 6, 8, 12], degree=[5], seeds=1),
    full=Grid(m=[2, 4, 6, 8, 12, 16], degree=[3, 5, 9], seeds=1),
    controls={SHALLOW: dict(layers="one")},
    figures=(draw_polynomial,),
)
def polynomial_by_products(m: int, degree: int, seed: int, layers: str = "products") -> dict[str, Any]:
    r"""Deep networks make polynomials to an error that falls fourfold with every layer of a product.

    From squares of depth $m$, $x y = ((x + y)\/2)^2 - ((x - y)\/2)^2$ to $2^(-2 m - 2)$, and from products a polynomial
    $sum_k c_k x^k$ by Horner's rule, with $m + 1$ layers for each of its products. Step $k$ multiplies $x in [-1, 1]$ by a number of at most
    $Y_k$, a power of two; the errors add up to $ epsilon <= 2^(-2 m - 2) sum_k Y_k $ @yarotsky2017error. The depth is
    logarithmic in $1\/epsilon$, for every polynomial and hence for all analytic functions. The value is the largest error over the bound,
    for Chebyshev's polynomial, whose coefficients are large. The control is the interpolating polygon with as many rectifiers
    in one hidden layer.
    """
    coefficients = np.polynomial.chebyshev.cheb2poly([0] * degree + [1]).tolist()
    construction = constructions.polynomial(coefficients, m)
    x = torch.linspace(-1, 1, 20_001)
    y = torch.cos(degree * x.acos())
    linear = [module for module in construction.network.modules() if isinstance(module, nn.Linear)]
    neurons = sum(module.out_features for module in linear[:-1])
    if layers == "one":
        knots = np.linspace(-1, 1, neurons + 1)
        found = torch.tensor(np.interp(x.cpu(), knots, np.cos(degree * np.arccos(knots)))).to(x)
    else:
        found = construction(x[:, None])
    error = (found - y).abs().max()
    bound = construction.error_bound + construction.rounding
    return {"value": error / bound, "error": error, "bound": bound, "neurons": neurons, "layers": len(linear) - 1}


def draw_states(ax: Any, rows: Rows) -> Columns:
    """One neuron at a time is on: that of the state the automaton was in and the letter it has just read.

    Neurons against time, for the first forty letters of a word. In every column one square is dark, the others are
    white; in the first it is that of the last neuron, which marks the beginning.
    """
    held = next(r.values["held"] for r in rows if not r.arm and r.point["states"] == 5 and r.point["length"] > 40)
    neurons = held.shape[1]
    ax.imshow(held.T, cmap="Greys", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    labels = [f"state {n // 2}, letter {n % 2}" for n in range(neurons - 1)] + ["beginning"]
    ax.set_yticks(range(neurons), labels)
    ax.set(xlabel="letters read")
    ax.grid(False)
    at, neuron = np.nonzero(held)
    return {"letters read": at, "neuron": neuron, "value": held[at, neuron]}


@claim(
    source="siegelmann1995computational",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(states=[2, 5], length=[10, 1000], seeds=5),
    full=Grid(states=[2, 5, 20], length=[10, 1000, 10_000], seeds=10),
    controls={
        "rectifiers: tanh": dict(activation="tanh"),
        "finitely many states: a count of brackets": dict(language="brackets"),
    },
    figures=(draw_states,),
)
def automaton_by_recurrence(
    states: int, length: int, seed: int, activation: str = "relu", language: str = "random"
) -> dict[str, Any]:
    r"""A recurrence of rectifiers runs any finite automaton, on words of any length, without an error.

    Let an automaton have $S$ states and $A$ letters. Give each pair of them a neuron that is 1 if the automaton, in that state, has
    just read that letter: $ h_t = "relu"(W h_(t-1) + U x_t - 1), $ where $W h_(t-1)$ is the unit vector of the present state, once for
    each letter, and $U x_t$ that of the letter; a sum is 2 where both agree. All numbers are 0, 1 and 2. $S A + 1$ neurons suffice, the last one
    for the beginning; with numbers of unbounded precision recurrences can do all that computers can
    @siegelmann1995computational. The value is the share of 200 random words of two letters on which network and automaton
    differ, for a random automaton whose letters permute its states, so that it never forgets; a word is accepted where the network says more than one half. Controls: tanh with the same weights; and a language that no finite automaton knows,
    words with as many opening as closing letters, for which the network counts up to $S$.
    """
    draws = torch.Generator().manual_seed(seed)
    moves = torch.stack([torch.randperm(states, generator=draws, device="cpu") for _ in range(2)], 1).tolist()
    accepting = [s for s in range(states) if s % 2 == 0]
    letters = torch.randint(0, 2, (200, length), generator=draws, device="cpu")
    if language == "brackets":  # the state is the balance, from −S/2 up, and stops at both ends
        start = states // 2
        moves = [[max(s - 1, 0), min(s + 1, states - 1)] for s in range(states)]
        accepting = [start]
        truth = (2 * letters - 1).sum(1) == 0
    else:
        start, table = 0, torch.tensor(moves, device="cpu")
        state = torch.zeros(200, dtype=torch.long, device="cpu")
        for letter in letters.T:
            state = table[state, letter]
        truth = state % 2 == 0
    net = Automaton(moves, start, accepting, torch.tanh if activation == "tanh" else torch.relu)
    words = torch.eye(2)[letters.to(torch.get_default_device())]
    with torch.no_grad():
        wrong = (net(words).cpu() > 0.5) != truth
        held = net.states(words[:1, :40])[:, 0]
    return {"value": wrong.double().mean(), "held": held}


@claim(
    source="yun2020transformers",
    predicts=Equals(0, within="rounding(length, 10**6)", of="each"),
    quick=Grid(symbols=[2, 3], length=[3, 4], seeds=5),
    full=Grid(symbols=[2, 3, 4], length=[3, 4, 6], seeds=10),
    controls={
        "every token is seen: all but the last": dict(seen="all but the last"),
        "equivariance: a value for each place": dict(equivariant=False),
    },
)
def equivariant_by_attention(
    symbols: int, length: int, seed: int, seen: str = "all", equivariant: bool = True
) -> dict[str, Any]:
    r"""One averaging head and one hidden layer compute any equivariant function of short words.

    A map from words of $n$ tokens to $n$ values is permutation equivariant if reordering the tokens reorders the values; then the value at
    a token depends on its letter and on how often each letter occurs, $m binom(n + m - 2, m - 1)$ cases for $m$ letters. A
    softmax head whose logits are all equal gives every token the mean of the others' letters, hence their counts; letter
    and counts make one integer $z$, and the hidden layer reads a table,
    $ sum_i v_i ("relu"(z - z_i + 1) - 2 "relu"(z - z_i) + "relu"(z - z_i - 1)). $
    On a finite alphabet this is what makes Transformers universal among equivariant maps @yun2020transformers, without
    a limit. The value is the largest error on all words, for a table drawn at random. Controls: a head that does not see the
    last token; and a function that is not equivariant, for which the table holds the mean of each case.
    """
    draws = torch.Generator().manual_seed(seed)
    words = words_of(symbols, length)
    cases = torch.cat([words, words.sum(1, keepdim=True).expand_as(words)], -1)
    _, place = cases.reshape(-1, 2 * symbols).unique(dim=0, return_inverse=True)
    drawn = gaussian(draws, int(place.max()) + 1)
    values = drawn[place].reshape(len(words), length, 1)
    construction = constructions.equivariant_table(lambda x: values, symbols, length)
    if not equivariant:
        values = values + gaussian(draws, length)[:, None]
    net = construction.network
    assert isinstance(net, CountingAttention)
    with torch.no_grad():
        if seen != "all":  # a token that is seen by none but itself
            blind = words.clone()
            blind[:, -1] = words[:, 0]
            found = torch.cat([net(blind)[:, :-1], net(words)[:, -1:]], 1)
        else:
            found = net(words)
    return {"value": (found - values).abs().max(), "cases": len(drawn)}


if __name__ == "__main__":
    script(__file__)
