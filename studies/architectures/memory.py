r"""What gates are for: carrying a number across a long sequence.

In the adding problem of the paper that introduced the LSTM @hochreiter1997long a network reads $T$ pairs of a number and a
mark, two of the pairs are marked, and at the end it must tell the sum of their numbers. Everything it needs lies in the
first half of the sequence, so half of it has to be bridged. A network without memory can only name the mean, and its risk is
then known exactly: with numbers uniform on $[0, 1]$ it is the variance of their sum, $1\/6$. Elman's network
@elman1990finding, whose gradient fades by a factor at every step, stays on that floor; the LSTM @hochreiter1997long
@gers2000learning and the GRU @cho2014learning, whose gates can be open for as long as the sequence lasts @tallec2018can,
end at a few hundredths of it or less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.architectures import GRU, LSTM, RNN, SequenceNet
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.training import train

#: Risk of the best constant: the variance of the sum of two independent numbers, uniform on [0, 1].
FLOOR = 1 / 6
#: What is often printed in its place.
MISPRINT = 0.1767
#: Pairs in a sequence so short that Elman's network bridges it.
SHORT = 6
#: Width of every state, sequences in a batch, and how finely each marked number is divided in the test.
WIDTH, BATCH, DIVISIONS = 32, 64, 64
#: The architecture's name to the network for sequences of a length, and its largest learning rate.
NETWORKS: Mapping[str, tuple[Callable[[int, torch.Generator], SequenceNet], float]] = {
    "rnn": (lambda length, g: RNN(2, WIDTH, 1, generator=g), 0.02),
    "lstm": (lambda length, g: LSTM(2, WIDTH, 1, bias_init="chrono", t_max=length, generator=g), 0.06),
    "gru": (lambda length, g: GRU(2, WIDTH, 1, bias_init="chrono", t_max=length, generator=g), 0.06),
}


def adding_problem(marked: Tensor, length: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences (n, length, 2) that hold the pairs of numbers `marked` (n, 2) in their first halves, and the sums (n,)."""
    numbers = torch.rand(len(marked), length, generator=draws, device="cpu")
    places = torch.rand(len(marked), length // 2, generator=draws, device="cpu").topk(2, dim=1).indices
    numbers.scatter_(1, places, marked)
    marks = torch.zeros(len(marked), length, device="cpu").scatter_(1, places, 1.0)
    device = torch.get_default_device()
    return torch.stack([numbers, marks], dim=-1).to(device), marked.sum(1).to(device)


def midpoints(divisions: int) -> Tensor:
    """Pairs on a square grid: (divisions², 2). A constant's error on them is its risk, but for a share of 1/divisions²."""
    centres = (torch.arange(divisions, device="cpu") + 0.5) / divisions
    return torch.cartesian_prod(centres, centres).to(torch.get_default_dtype())


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of what is read out at the last time."""
    return (output[:, -1, 0] - target).square().mean()


def learn(net: SequenceNet, length: int, steps: int, rate: float, draws: torch.Generator) -> Tensor:
    """Train on new sequences at every step, the rate rising and falling once; return the losses before each step."""

    def batch(step: int) -> tuple[Tensor, Tensor]:
        marked = torch.rand(BATCH, 2, generator=draws, device="cpu")
        inputs, target = adding_problem(marked, length, draws)
        return inputs[None], target[None]

    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=rate, total_steps=steps)
    return train([net], squared_error, batch, steps, partial(torch.optim.Adam, lr=rate), cycle)[:, 0]


def sensitivity(net: SequenceNet, length: int, draws: torch.Generator) -> Tensor:
    r"""Root mean square over sequences of $\|∂f(x)_T / ∂x_t\|$, for $t = 1, …, T$."""
    inputs, _ = adding_problem(torch.rand(BATCH, 2, generator=draws, device="cpu"), length, draws)
    inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(net(inputs)[:, -1].sum(), inputs)  # (n T 2): sequences do not mix
    return gradient.square().sum(-1).mean(0).sqrt()


def trained(architecture: str, length: int, steps: int, seed: int) -> dict[str, Any]:
    """Train one network and test it: its error, its losses, and how sensitive it was to every time before training."""
    draws = torch.Generator().manual_seed(seed)
    build, rate = NETWORKS[architecture]
    net = build(length, draws).to(torch.get_default_device())
    first = sensitivity(net, length, draws)
    losses = learn(net, length, steps, rate, draws)
    inputs, target = adding_problem(midpoints(DIVISIONS), length, draws)
    with torch.no_grad():
        error = squared_error(net(inputs), target).item()
    return {"error": error, "losses": losses, "sensitivity": first / first[-1]}


def _longest(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """The rows of each architecture at the longest sequences; Elman's network stands in the control's rows."""
    longest = max(row.point["length"] for row in rows)
    chosen: dict[str, list[Any]] = {}
    for row in [row for row in rows if row.point["length"] == longest]:
        chosen.setdefault("Elman" if row.arm else row.point["architecture"].upper(), []).append(row)
    return chosen


def draw_learning(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Error while training, as a share of the floor, for the longest sequences: the gated networks fall off a plateau.

    Mean over every ten updates of one run each, logarithmic vertical axis. All three curves first come down to one, a
    dashed line, and stay there for a while. Then that of the GRU and, later, that of the LSTM drop to a few hundredths and
    below; that of Elman's network stays at one until the end.
    """
    columns: dict[str, Sequence[float]] = {}
    for name, group in _longest(rows).items():
        losses = group[0].values["losses"]
        blocks = losses[: len(losses) // 10 * 10].reshape(-1, 10).mean(1) / FLOOR
        columns["update"] = list(10 * np.arange(len(blocks)) + 5)
        columns[name] = list(blocks)
        ax.semilogy(columns["update"], columns[name], label=name)
    ax.axhline(1, color="0.6", linewidth=0.8, linestyle="--")
    ax.set(xlabel="update", ylabel="squared error ÷ (1/6)")
    ax.legend()
    return columns


def draw_sensitivity(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Before training: how much the last output moves with the input so many steps before, relative to the last input.

    Geometric mean over the runs on the longest sequences, logarithmic vertical axis. The curve of Elman's network is
    nearly a straight line down through ten orders of magnitude and more. Those of the LSTM and the GRU fall by about one.
    """
    columns: dict[str, Sequence[float]] = {}
    for name, group in _longest(rows).items():
        curve = np.exp(np.mean([np.log(row.values["sensitivity"]) for row in group], axis=0))[::-1]
        columns["steps before the last"] = list(range(len(curve)))
        columns[name] = list(curve)
        ax.semilogy(columns["steps before the last"], columns[name], label=name)
    ax.set(xlabel="steps before the last", ylabel="relative sensitivity")
    ax.legend()
    return columns


@claim(
    source=("hochreiter1997long", "gers2000learning", "cho2014learning", "tallec2018can"),
    predicts=AtMost(0.1, of="max"),
    quick=Grid(architecture=["lstm", "gru"], length=[50], steps=[350], seeds=3),
    full=Grid(architecture=["lstm", "gru"], length=[50, 100], steps=[800], seeds=5),
    controls={"gates: Elman's network": dict(architecture="rnn")},
    figures=(draw_learning, draw_sensitivity),
    timeout=3600,
)
def adding_problem_gates(architecture: str, length: int, steps: int, seed: int) -> dict[str, Any]:
    r"""Gated networks solve the adding problem.

    Numbers $u_1, dots, u_T$, uniform on $[0, 1]$, come with marks: 1 at two random places of the first half, 0 elsewhere.
    After the last pair a network must tell the sum of the two marked numbers @hochreiter1997long. An LSTM and a GRU learn
    to, from new sequences at every update. The value is the squared error on the test divided by that of the best constant,
    $1\/6$; it must be at most one tenth in every run. Forget gates start with memories of all lengths up to $T$
    @tallec2018can.

    The control is Elman's network of the same width. Before training, the effect of an input on the last output falls by a
    constant factor with every step between them; so does the gradient that would have to teach it.
    """
    result = trained(architecture, length, steps, seed)
    return {"value": result["error"] / FLOOR, **result}


def draw_errors(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Squared error of Elman's network on the test, one dot a run; the line is 1/6, the dots on it cannot remember.

    For long sequences all dots lie on the solid horizontal line at one sixth, clearly below the dashed one at 0.1767. For
    sequences of six pairs they lie near zero.
    """
    columns: dict[str, list[Any]] = {"length": [], "squared error": []}
    for row in rows:
        columns["length"].append(SHORT if row.arm else row.point["length"])
        columns["squared error"].append(row.values["value"])
    lengths = sorted(set(columns["length"]))
    for place, length in enumerate(lengths):
        errors = [e for n, e in zip(columns["length"], columns["squared error"], strict=True) if n == length]
        ax.plot(place + np.linspace(-0.2, 0.2, len(errors)), errors, "o", color="C0", markersize=4, zorder=3)
    ax.axhline(FLOOR, color="C1", label="1/6")
    ax.axhline(MISPRINT, color="0.5", linestyle="--", label="0.1767")
    ax.set_xticks(range(len(lengths)), [f"T = {length}" for length in lengths])
    ax.set(ylabel="squared error", ylim=(0, 0.2), xlim=(-0.5, len(lengths) - 0.5))
    ax.legend(loc="center right")
    return columns


@claim(
    source=("hochreiter1997long", "elman1990finding", "le2015simple"),
    predicts=Equals("1/6", within="1/200", of="each"),
    quick=Grid(length=[50], steps=[300], seeds=5),
    full=Grid(length=[50, 100, 200], steps=[2000], seeds=5),
    controls={"a long way to remember: six pairs": dict(length=SHORT)},
    figures=(draw_errors,),
    timeout=3600,
)
def adding_problem_floor(length: int, steps: int, seed: int) -> float:
    r"""Without memory the risk of the adding problem is one sixth, and there Elman's network stays.

    The marked numbers $X_1, X_2$ are independent and uniform on $[0, 1]$, and stand in the first half of the sequence. Let a
    predictor depend on the second half alone. It is then independent of $X_1 + X_2$, and its risk is at least
    $ "Var"(X_1 + X_2) = 1/12 + 1/12 = 1/6 approx 0.1667, $
    with equality for the constant $1$. (The value 0.1767 that is often printed for this baseline @le2015simple is wrong.)

    An Elman network *can* remember: the bound does not speak of it. That it ends where a network without memory would is an
    observation about training from the usual initial weights, with the gradient that is left after $T\/2$ steps. Measured is
    its squared error on sequences whose marked pairs run through the midpoints of a grid of $64 times 64$ cells, on which
    the constant has its risk to 0.025 %. It must lie within 3 % of $1\/6$ in every run, which leaves 0.1767 outside. The same
    network with the same training learns to add over six pairs.
    """
    return trained("rnn", length, steps, seed)["error"]


if __name__ == "__main__":
    script(__file__)
