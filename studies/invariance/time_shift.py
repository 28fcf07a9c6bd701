r"""Recurrent networks and the start of time.

A recurrent network applies one map at all times, but it starts from a state of zero at a time that it can tell. It does not
notice silence before its input if zero is a fixed point of the silent map, which a bias ends; it then forgets when it was
started at the rate of the largest eigenvalue at the fixed point that it has instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev

from lemmata.architectures import GRU, LSTM, RNN
from lemmata.studies.claim import AtMost, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
INPUTS, STEPS = 3, 6  # width and length of the input after the silence


def network(cell: str, width: int, bias: float, gain: float, draws: torch.Generator) -> RNN | LSTM | GRU:
    """A network of the cell named: LeCun's matrices, the recurrent ones times `gain`, Gaussian biases of size `bias`."""
    net = CELLS[cell](INPUTS, width, init="lecun", generator=draws).requires_grad_(False)
    net.U.mul_(gain)
    for name, values in net.named_parameters():
        if name.startswith("b"):
            values.copy_(bias * gaussian(draws, *values.shape))
    return net


def after_silence(net: RNN | LSTM | GRU, x: Tensor, waits: Sequence[int], level: float = 0.0) -> Tensor:
    """The states while x is read, after each number of silent steps, (len(waits), T, n), in one batch."""
    longest = max(waits)
    sequences = x.new_full((len(waits), longest + len(x), x.shape[1]), level)
    for row, wait in zip(sequences, waits, strict=True):
        row[wait : wait + len(x)] = x
    states = net.states(sequences)
    return torch.stack([row[wait : wait + len(x)] for row, wait in zip(states, waits, strict=True)])


@claim(
    source="elman1990finding",
    predicts=AtMost("rounding(width)"),
    quick=Grid(cell=list(CELLS), wait=[1, 10, 100], width=[16], seeds=3),
    full=Grid(cell=list(CELLS), wait=[1, 10, 100, 1000], width=[16, 64], seeds=10),
    controls={
        "no bias: a random one": dict(bias=0.5),
        "silence: a constant input": dict(level=1.0),
    },
)
def rnn_time_shift(
    cell: str, wait: int, width: int, seed: int, bias: float = 0.0, level: float = 0.0
) -> dict[str, float]:
    r"""A recurrent network without bias does not notice silence before its input.

    If the input starts with $k$ zeros and the state $0$ is a fixed point of the map at input zero, the state is still zero when the
    input begins, and $f(0, dots, 0, x)$ is $f(x)$ moved by $k$ steps. Elman's network with an odd activation @elman1990finding,
    the LSTM @hochreiter1997long and the GRU @cho2014learning without biases are of this kind: the candidate is $tanh 0$ whatever the
    gates are. The value is the largest difference of the two sequences of states, over the largest state. Controls: random
    biases; a constant instead of silence.
    """
    draws = torch.Generator().manual_seed(seed)
    net = network(cell, width, bias, 1.0, draws)
    x = gaussian(draws, STEPS, INPUTS)
    alone, later = net.states(x[None])[0], after_silence(net, x, [wait], level)[0]
    single = net.float().states(x.float()[None])[0] - after_silence(net, x.float(), [wait], level)[0]
    return {"value": float((later - alone).abs().max() / alone.abs().max()), "single": float(single.abs().max())}


def silent_step(net: RNN | LSTM | GRU, state: Tensor) -> Tensor:
    """The whole state after one step at input zero: (n,), or (2n,) of h and c for an LSTM."""
    n = net.n_hidden
    if isinstance(net, RNN):
        return torch.tanh(net.U @ state + net.b)
    if isinstance(net, LSTM):
        i, f, g, o = (net.U @ state[:n] + net.b).chunk(4)
        c = f.sigmoid() * state[n:] + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * c.tanh(), c])
    r, z = (net.U[: 2 * n] @ state + net.b[: 2 * n]).sigmoid().chunk(2)
    candidate = torch.tanh(net.b[2 * n :] + r * (net.U[2 * n :] @ state + net.b_hn))
    return z * state + (1 - z) * candidate


def spectral_radius(net: RNN | LSTM | GRU, at_zero: bool = False, norm: bool = False) -> float:
    """ρ(J*) of the silent step at its fixed point, found by iteration; or at zero; or the norm of J* in its place."""
    state = net.U.new_zeros(net.n_hidden * (2 if isinstance(net, LSTM) else 1))
    for _ in range(0 if at_zero else 3000):
        state = silent_step(net, state)
    J = jacrev(lambda s: silent_step(net, s))(state)
    return float(torch.linalg.matrix_norm(J, 2) if norm else torch.linalg.eigvals(J).abs().max())


def draw_forgetting(ax: Any, rows: Rows) -> Columns:
    """How fast three networks forget when they were started: along a line whose slope is the spectral radius.

    Distance of the states from those after endless silence, against the length of the silence, on a logarithmic axis. Each
    cell's curve falls, with ripples, along a straight line of the predicted slope down to rounding.
    """
    chosen = [row for row in rows if not row.arm and row.k == 0 and not row.error]
    shown = max(int(np.flatnonzero(np.asarray(row.values["curve"]) > 1e-13)[-1]) for row in chosen) + 10
    columns: dict[str, Any] = {"silent steps": np.arange(min(shown, len(chosen[0].values["curve"])))}
    for row in chosen:
        name, curve = row.point["cell"], row.values["curve"][: len(columns["silent steps"])]
        (line,) = ax.semilogy(columns["silent steps"], curve, label=name.upper())
        middle = int(np.argmax(np.asarray(curve) < 1e-6))
        slope = curve[middle] * row.values["radius"] ** (columns["silent steps"] - float(middle))
        kept = (slope > 1e-13) & (slope < 10)
        ax.plot(columns["silent steps"][kept], slope[kept], "--", color=line.get_color(), linewidth=1)
        columns[name], columns[f"{name}, predicted"] = curve, slope
    ax.set(xlabel="silent steps before the input", ylabel="distance from the limit")
    ax.legend()
    return columns


@claim(
    source="elman1990finding",
    predicts=AtMost(0.05),
    quick=Grid(cell=list(CELLS), width=[16], seeds=10),
    full=Grid(cell=list(CELLS), width=[16, 64], seeds=40),
    controls={
        "the fixed point: zero": dict(at_zero=True),
        "the spectral radius: the norm": dict(norm=True),
    },
    figures=(draw_forgetting,),
)
def rnn_time_shift_rate(cell: str, width: int, seed: int, at_zero: bool = False, norm: bool = False) -> dict[str, Any]:
    r"""With a bias a recurrent network forgets its start at the rate of its spectral radius.

    If the silent map $s |-> F(s)$ has a fixed point $s^*$ that attracts the state zero, and $rho < 1$ is the spectral radius of
    $J^* = F'(s^*)$, the state after $k$ silent steps, and all that is read after it, differ from their limits by
    $rho^(k + o(k))$: shift invariance holds in the limit of a long silence, with the slope $ln rho$. (For an
    LSTM the state is $h$ and $c$ together.) The value is the distance from $ln rho$ of the slope of the logarithm, fitted
    between $10^(-4)$ and $10^(-12)$, where complex eigenvalues still make ripples. Controls: the Jacobian at zero, where the network starts; the norm of $J^*$, which bounds one
    step and not the rate.
    """
    draws = torch.Generator().manual_seed(seed)
    net = network(cell, width, 0.5, 0.8, draws)
    x = gaussian(draws, STEPS, INPUTS)
    waits = [*range(300), 700]
    states = after_silence(net, x, waits).flatten(1)
    curve = (states[:-1] - states[-1]).norm(dim=1).cpu().numpy()
    inside = np.flatnonzero((curve < 1e-4) & (curve > 1e-12))
    slope = np.polyfit(inside, np.log(curve[inside]), 1)[0] if len(inside) > 3 else np.nan
    radius = spectral_radius(net, at_zero, norm)
    return {"value": abs(float(slope) - float(np.log(radius))), "radius": radius, "curve": np.maximum(curve, 1e-17)}


if __name__ == "__main__":
    script(__file__)
