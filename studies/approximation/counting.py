r"""Which recurrent networks can count.

The cell of an LSTM adds; the state of a GRU or of a tanh network is a mean of numbers between minus one and one. So one of them
counts as far as its precision goes and the others saturate, whatever they have learned @weiss2018practical. The counter
is written down weight by weight, the bounds are tried on random weights ten times their usual size, and networks that were
trained to count are asked to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import GRU, LSTM, RNN
from lemmata.studies.claim import AtLeast, AtMost, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
Candidate = Callable[[Tensor], Tensor]
Net = RNN | GRU | LSTM
OPEN = 40.0  # a sigmoid, and a tanh, of it rounds to 1
WIDTH, NETWORKS, LENGTH = 8, 8, 20
MEMORY = 1000  # steps that the gates' biases are drawn to remember
LIMIT = 1e6  # what is beyond it, or no number any more, counts as this


def trace(net: Net, x: Tensor, h: Tensor | None = None, candidate: Candidate = torch.tanh) -> tuple[Tensor, Tensor]:
    """States and cells of an RNN, GRU or LSTM over a word (b, T, d), both (b, T, n); where there is no cell, the states twice."""
    h = x.new_zeros(len(x), net.n_hidden) if h is None else h
    c, states, cells = h, [], []
    for now in x.unbind(1):
        a, u = now @ net.W.T + net.b, h @ net.U.T
        if isinstance(net, LSTM):
            i, f, g, o = (a + u).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * candidate(g)
            h = o.sigmoid() * c.tanh()
        elif isinstance(net, GRU):
            (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), u.chunk(3, -1)
            z = (a_z + u_z).sigmoid()
            h = c = (1 - z) * candidate(a_n + (a_r + u_r).sigmoid() * (u_n + net.b_hn)) + z * h
        else:
            h = c = candidate(a + u)
        states.append(h)
        cells.append(c)
    return torch.stack(states, 1), torch.stack(cells, 1)


def adder(forget: float) -> LSTM:
    """An LSTM of one unit whose cell adds what it reads, −1, 0 or 1, to so much of what it has."""
    net = LSTM(1, 1).requires_grad_(False)
    net.U.zero_()
    net.W.copy_(torch.tensor([[0.0], [0.0], [OPEN], [0.0]]))
    kept = OPEN if forget == 1 else float(np.log(forget / (1 - forget)))
    net.b.copy_(torch.tensor([OPEN, kept, 0.0, OPEN]))
    return net


def draw_cells(ax: Any, rows: Rows) -> Columns:
    """The cell of an LSTM goes on counting; one that forgets a tenth in each step stays below ten.

    Value of the cell against the number of ones read, up to one hundred. One line is the diagonal. The other leaves it
    after a few steps and levels out at ten.
    """
    columns: dict[str, Any] = {}
    for row in (row for row in rows if row.k == 0 and dict(row.point) == {"steps": 100, "word": "ones"}):
        label = "forgets a tenth" if row.arm else "keeps all"
        columns["ones read"] = np.arange(1, 101)
        columns[label] = row.values["cells"]
        ax.plot(columns["ones read"], columns[label], label=label)
    ax.axhline(10, color="0.3", linestyle="--", linewidth=1, label="1/(1 − 0.9)")
    ax.set(xlabel="ones read", ylabel="cell")
    ax.legend()
    return columns


@claim(
    source=("weiss2018practical", "hochreiter1997long"),
    predicts=AtMost(1e-9),
    quick=Grid(steps=[10, 100, 1000], word=["ones", "random"], seeds=3),
    full=Grid(steps=[10, 100, 1000, 10000], word=["ones", "random"], seeds=5),
    controls={"a forget gate of one: of nine tenths": dict(forget=0.9)},
    figures=(draw_cells,),
)
def lstm_counts_gru_saturates(steps: int, word: str, seed: int, forget: float = 1.0) -> dict[str, Any]:
    r"""The cell of an LSTM counts exactly.

    With its gates saturated, their biases 40, the cell of an LSTM obeys $c_t = c_(t-1) + tanh(40 x_t)$: it is the number of ones
    less the number of minus ones that were read @weiss2018practical. In float64 the gates are one to the last bit and the count
    is exact. The value is the largest $abs(c_t - sum_(s <= t) x_s) \/ t$, for the word of ones, where $c_t = t$, and for random
    words of $-1$, $0$ and $1$. The control forgets a tenth in each step and saturates at
    $1\/(1 - 0.9) = 10$.
    """
    draws = torch.Generator().manual_seed(seed)
    drawn = torch.randint(-1, 2, (1, steps, 1), generator=draws, device="cpu")
    x = (torch.ones_like(drawn) if word == "ones" else drawn).to(torch.get_default_device(), torch.get_default_dtype())
    cells = trace(adder(forget), x)[1][0, :, 0]
    error = (cells - x[0, :, 0].cumsum(0)).abs() / torch.arange(1, steps + 1)
    return {"value": error.max(), "cells": cells, "last": cells[-1]}


TORCH = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
LAB: dict[str, type[Net]] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}


def wild(kind: str, width: int, draws: torch.Generator) -> Net:
    """A network whose weights and biases are Gaussian with standard deviation ten over the root of the width."""
    net = LAB[kind](2, width).requires_grad_(False)
    for parameter in net.parameters():
        parameter.copy_(gaussian(draws, *parameter.shape) * 10 / width**0.5)
    return net


@claim(
    source="weiss2018practical",
    predicts=AtMost("1 + rounding(1)"),
    quick=Grid(kind=["RNN", "GRU", "LSTM"], start=[0.0, 3.0], width=[16], steps=[100], seeds=3),
    full=Grid(kind=["RNN", "GRU", "LSTM"], start=[0.0, 3.0], width=[4, 16, 64], steps=[1000], seeds=20),
    controls={"a bounded candidate: a rectified one": dict(candidate="relu")},
)
def lstm_counts_gru_saturates_bound(
    kind: str, start: float, width: int, steps: int, seed: int, candidate: str = "tanh"
) -> dict[str, Any]:
    r"""The state of a GRU or of a tanh network never leaves a box; an LSTM's cell grows by one a step at most.

    A state of a GRU is a mean of the one before and of a tanh, weighted by a gate, so that
    $ norm(h_t)_oo <= max(1, norm(h_0)_oo) $
    for all weights, inputs and times @weiss2018practical; a tanh network's is a tanh. Of an LSTM the state obeys the bound and the
    cell $abs(c_t) <= abs(c_0) + t$. The value is the largest ratio of a left side to its right side over three networks with
    weights ten times too large and 16 Gaussian words of size 10 each; that it comes to one says that the bounds are sharp. The
    control has a rectifier in place of the tanh, and is cut off at $10^6$.
    """
    draws = torch.Generator().manual_seed(seed)
    bound = la.state_bound(TORCH[kind](2, width), start)
    clock = start + torch.arange(1, steps + 1)[:, None]
    ratios = []
    for _ in range(3):
        net, x = wild(kind, width, draws), 10 * gaussian(draws, 16, steps, 2)
        h = start * (2 * torch.rand(16, width, generator=draws, dtype=torch.float64, device="cpu") - 1).to(x)
        h[:, 0] = start
        states, cells = trace(net, x, h, getattr(torch, candidate))
        ratios += [states / bound.state, *([cells / (bound.growth * clock)] if bound.growth else [])]
    largest = torch.stack([ratio.abs().nan_to_num(LIMIT, LIMIT).max() for ratio in ratios])
    return {"value": largest.max().clamp_max(LIMIT), "least": largest.min()}


class Counter(nn.Module):
    """A recurrent network's read-out of its state, or of its cell, at every time: (b, T, 1) → (b, T)."""

    def __init__(self, net: Net, cell: bool):
        super().__init__()
        self.net, self.cell = net, cell

    def forward(self, x: Tensor) -> Tensor:
        return self.net.readout(trace(self.net, x)[int(self.cell)])[..., 0]


def draw_counts(ax: Any, rows: Rows) -> Columns:
    """Networks trained to count to twenty, asked to go on: the GRUs stop, the cells of LSTMs need not.

    Output against the number of ones read, up to two hundred. All lines follow the diagonal up to twenty, a shaded strip. The
    GRUs, one colour, are level from there on. The LSTMs, the other, go on in nearly straight lines of different slopes, up or
    down; some stay close to the diagonal.
    """
    columns: dict[str, Any] = {}
    for arm, colour, label in (("", "C0", "GRU, its state"), (CELL, "C1", "LSTM, its cell")):
        row = next(r for r in rows if r.arm == arm and r.k == 0)
        columns["ones read"] = np.arange(1, row.values["outputs"].shape[1] + 1)
        for k, output in enumerate(row.values["outputs"]):
            columns[f"{label} {k + 1}"] = output
            ax.plot(columns["ones read"], output, color=colour, linewidth=0.9, label=None if k else label)
    ax.plot(columns["ones read"], columns["ones read"], "--", color="0.3", linewidth=1, label="the count")
    ax.axvspan(0, LENGTH, color="0.9", zorder=0)
    ax.set(xlabel="ones read", ylabel="output", ylim=(-25, 225))
    ax.legend()
    return columns


CELL = "a bounded state: the cell of an LSTM"


@claim(
    source="weiss2018practical",
    predicts=AtLeast(1),
    quick=Grid(length=[200], steps=[300], seeds=2),
    full=Grid(length=[200, 1000], steps=[1000], seeds=10),
    controls={CELL: dict(state="cell")},
    figures=(draw_counts,),
)
def lstm_counts_gru_saturates_floor(length: int, steps: int, seed: int, state: str = "GRU") -> dict[str, Any]:
    r"""No read-out of a GRU counts beyond the size of its weights.

    A linear read-out $v dot h_t + c$ of a state with $norm(h_t)_oo <= 1$ stays within an interval of width $2 norm(v)_1$, so
    that on the word of ones it errs somewhere by
    $ max_(t <= T) abs(v dot h_t + c - t) >= (T - 1)/2 - norm(v)_1, $
    whatever the other weights @weiss2018practical. Eight GRUs of eight units with slow gates @tallec2018can are trained by Adam
    to say, after every letter of random words of length 20, how many ones they have read; then they read $T$ ones. The value is
    the least ratio of the error to the floor. The control reads the cells of LSTMs, trained the same way: most go wrong beyond what they have seen, as a cell
    may grow at any rate, but the best comes far below the floor.
    """
    draws = torch.Generator().manual_seed(seed)
    kind: type[GRU | LSTM] = GRU if state == "GRU" else LSTM
    made = [kind(1, WIDTH, 1, bias_init="chrono", t_max=MEMORY, generator=draws) for _ in range(NETWORKS)]
    nets = [Counter(net, state == "cell") for net in made]
    device = torch.get_default_device()

    def batch(step: int) -> tuple[Tensor, Tensor]:
        share = torch.rand(NETWORKS, 32, 1, 1, generator=draws, dtype=torch.float64, device="cpu")
        x = torch.rand(NETWORKS, 32, LENGTH, 1, generator=draws, dtype=torch.float64, device="cpu") < share
        x = x.to(device, torch.get_default_dtype())
        return x, x[..., 0].cumsum(-1)

    losses = train(nets, lambda f, g: (f - g).square().mean(), batch, steps, partial(torch.optim.Adam, lr=0.03))
    with torch.no_grad():
        outputs = torch.stack([net(torch.ones(1, length, 1))[0] for net in nets])
    errors = (outputs - torch.arange(1, length + 1)).abs().amax(1)
    bound = la.state_bound(nn.GRU(1, WIDTH))
    floors = torch.tensor([bound.counting_floor(cast(nn.Linear, net.readout), length) for net in made])
    return {"value": (errors.cpu() / floors.cpu()).min(), "outputs": outputs, "floors": floors, "losses": losses[-1]}


if __name__ == "__main__":
    script(__file__)
