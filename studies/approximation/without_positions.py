r"""What a transformer without positions cannot tell.

Attention and networks at every position treat all tokens alike: without positions the mean over the outputs is a function of
the multiset of tokens @lee2019set, however deep or wide the network is. For a target that depends on the order the best such
function is the conditional expectation given the multiset, and its error a floor that is known exactly. With positions a
transformer approximates every continuous function of sequences @yun2020transformers. A causal mask breaks the symmetry as well,
so that a causal transformer without positions is not bound @haviv2022transformer.

That networks fail to learn something proves nothing by itself. Here the floor is a theorem; training shows that nothing
crosses it, that it is reached, and that the same network goes far below once it is told where the tokens are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lemmata.analysis import permutation_floor
from lemmata.architectures import MLP, Encoder
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

WIDTH, RATE = 16, 0.01
POSITIONS, CAUSAL = "no positions: sinusoids are added", "all tokens seen alike: a causal mask"
CONTROLS: Mapping[str, Mapping[str, Any]] = {POSITIONS: dict(positions="sinusoidal"), CAUSAL: dict(causal=True)}


class Reader(nn.Module):
    """Numbers (b, t) to width d, an encoder, the mean over positions, a linear read-out (b, outputs)."""

    def __init__(self, outputs: int, layers: int, positions: str, causal: bool, draws: torch.Generator):
        super().__init__()
        self.embed = MLP([1, WIDTH], generator=draws)
        self.encoder = Encoder(WIDTH, 2, layers, positions=positions, causal=causal, generator=draws)
        self.readout = MLP([WIDTH, outputs], generator=draws)

    def forward(self, x: Tensor) -> Tensor:
        """Return the read-out: (b, t) → (b, outputs)."""
        return self.readout(self.encoder(self.embed(x[..., None])).mean(1))


def fit(
    readers: Sequence[Reader],
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: Callable[[int], tuple[Tensor, Tensor]],
    steps: int,
) -> Tensor:
    """Adam with a rate that rises and falls once; the losses before each step, (steps, readers)."""
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=RATE, total_steps=steps)
    return train(readers, loss, batch, steps, partial(torch.optim.Adam, lr=RATE), cycle)


# Numbers: the first of n independent ones


def rotations(x: Tensor) -> Tensor:
    """Every sequence (…, m, n) in its n cyclic orders, (…, m · n, n): each token comes first once."""
    return torch.cat([x.roll(shift, -1) for shift in range(x.shape[-1])], -2)


def square(output: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of one number a sequence."""
    return (output[:, 0] - target).square().mean()


def told_first(n: int, layers: int, nets: int, steps: int, seed: int, positions: str, causal: bool) -> dict[str, Any]:
    """Train readers to tell the first of n normal tokens; their errors on a test over its floor."""
    draws = torch.Generator().manual_seed(seed)
    readers = [Reader(1, layers, positions, causal, draws).to(torch.get_default_device()) for _ in range(nets)]
    floors = []

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x = gaussian(draws, nets, max(1, 64 // n), n)
        floors.append(x.var(-1, unbiased=False).mean(-1))
        turned = rotations(x)
        return turned, turned[..., 0]

    curve = fit(readers, square, batch, steps) / torch.stack(floors)
    drawn = gaussian(draws, 512, n)
    test = rotations(drawn * ((1 - 1 / n) / drawn.var(-1, unbiased=False).mean()) ** 0.5)  # of variance one
    floor = permutation_floor(test, test[:, 0]).value
    with torch.no_grad():
        errors = torch.stack([square(reader(test), test[:, 0]) for reader in readers])
    return {
        "value": float(errors.min()) / floor,
        "worst": float(errors.max()) / floor,
        "error": float(errors.min()),
        "curve": curve.reshape(-1, 10, nets).mean((1, 2)),
        "lowest": curve.min(),
    }


def draw_training(ax: Any, rows: Rows) -> Columns:
    """No training without positions crosses the floor; with positions, or a causal mask, it is far below.

    Squared error over the floor against the step, mean over every ten steps and over networks, both on logarithmic axes
    save the steps. One curve comes down to a dashed line at one and stays on it. That of the causal network crosses it and
    ends below; that of the network with positions ends lowest.
    """
    n = max(row.point["n"] for row in rows)
    columns: dict[str, Any] = {}
    for arm, label in (("", "no positions"), (CAUSAL, "no positions, causal mask"), (POSITIONS, "positions")):
        chosen = [row.values["curve"] for row in rows if row.arm == arm and row.point["n"] == n and not row.error]
        columns[label] = np.mean(chosen, 0)
        columns["step"] = 10 * np.arange(len(columns[label])) + 5
        ax.semilogy(columns["step"], columns[label], label=label)
    ax.axhline(1, color="0.3", linestyle="--", linewidth=1, label="floor")
    ax.set(xlabel="step", ylabel="squared error ÷ floor", title=f"{n} tokens")
    ax.legend()
    return columns


def draw_floors(ax: Any, rows: Rows) -> Columns:
    """The floor rises with the number of tokens, and trained networks lie on it.

    Squared error against the number of tokens. Dots lie on a rising curve, one minus one over n; crosses and triangles, of
    networks that can tell positions, lie near zero.
    """
    columns: dict[str, Any] = {"n": sorted({row.point["n"] for row in rows})}
    ns = np.array(columns["n"])
    marks = (("", "no positions", "o"), (CAUSAL, "no positions, causal mask", "^"), (POSITIONS, "positions", "x"))
    for arm, label, mark in marks:
        chosen = [[row.values["error"] for row in rows if (row.arm, row.point["n"]) == (arm, n)] for n in columns["n"]]
        columns[label] = [float(np.mean(values)) for values in chosen]
        ax.plot(ns, columns[label], mark, label=label)
    fine = np.linspace(ns[0], ns[-1], 60)
    ax.plot(fine, 1 - 1 / fine, color="0.3", linewidth=1, label="1 − 1/n")
    ax.set(xlabel="tokens n", ylabel="squared error", ylim=(0, 1), xticks=ns)
    ax.legend()
    return columns


@claim(
    source=("lee2019set", "yun2020transformers", "haviv2022transformer"),
    predicts=Equals(1.02, within=0.03, of="each"),
    quick=Grid(n=[2, 4, 8], layers=[1], nets=[3], steps=[200], seeds=1),
    full=Grid(n=[2, 4, 8, 16], layers=[1, 2], nets=[8], steps=[1000], seeds=3),
    controls=CONTROLS,
    figures=(draw_training, draw_floors),
    timeout=3600,
)
def nope_transformer_floor(
    n: int, layers: int, nets: int, steps: int, seed: int, positions: str = "none", causal: bool = False
) -> dict[str, Any]:
    r"""Without positions, a transformer's error on the first of n tokens is at least one minus one over n.

    For independent tokens $x_1, dots, x_n$ of variance $sigma^2$ and every function $f$ that no permutation of them changes,
    $ EE (f(x) - x_1)^2 >= EE "Var"(x_1 | {x_1, dots, x_n}) = sigma^2 (1 - 1\/n), $
    with equality for the mean: given the multiset, $x_1$ is any of its elements. A transformer without positions whose
    outputs are averaged is such an $f$ @lee2019set. The value is the smallest error of several trained networks, over
    the floor, on test sequences in all their cyclic orders: on these the floor holds exactly, without sampling error, and
    is computed by `permutation_floor`. It must lie between 0.99, which no network can go below, and 1.05.

    Controls: positions added to the tokens, with which the error ends below a twentieth of $sigma^2$; and a causal mask
    @haviv2022transformer, with which early tokens count more often.
    """
    return told_first(n, layers, nets, steps, seed, positions, causal)


@claim(
    source="yun2020transformers",
    predicts=AtMost(0.05, of="max"),
    quick=Grid(n=[8], layers=[1], nets=[3], steps=[200], seeds=1),
    full=Grid(n=[8, 16], layers=[1, 2], nets=[8], steps=[1000], seeds=3),
    controls={"positions: none": dict(positions="none")},
    timeout=3600,
)
def nope_transformer_floor_with_positions(
    n: int, layers: int, nets: int, steps: int, seed: int, positions: str = "sinusoidal"
) -> dict[str, Any]:
    r"""With positions, the same transformer tells the first of n tokens.

    The floor of the claim above is no lack of size: with sinusoids added to its tokens the same network, trained in the same
    way, comes below a twentieth of it. The value is the largest error among the networks, over the floor. Without a
    theorem on training this is an observation; that such weights exist is that of @yun2020transformers.
    """
    found = told_first(n, layers, nets, steps, seed, positions, causal=False)
    return {**found, "value": found["worst"], "best": found["value"]}


# Bits: all sequences, enumerated


def labels(target: str, bits: Tensor) -> Tensor:
    """The first bit, or whether it is above the last, of ±1 (N, t)."""
    return (bits[:, 0] > (0 if target == "the first bit" else bits[:, -1])).long()


@claim(
    source="lee2019set",
    predicts=Equals(1.02, within=0.03, of="each"),
    quick=Grid(target=["the first bit", "a descent from first to last"], t=[6], nets=[3], steps=[250], seeds=1),
    full=Grid(target=["the first bit", "a descent from first to last"], t=[6, 8], nets=[8], steps=[600], seeds=3),
    controls={POSITIONS: CONTROLS[POSITIONS]},
    timeout=3600,
)
def nope_transformer_floor_cross_entropy(
    target: str, t: int, nets: int, steps: int, seed: int, positions: str = "none"
) -> dict[str, Any]:
    r"""Without positions, a transformer's cross entropy is at least the conditional entropy given the multiset.

    For labels $y$ and every model $p$ that no permutation of the tokens changes,
    $ EE [-ln p(y | x)] >= H(y | {x_1, dots, x_t}). $
    All $2^t$ sequences of bits are enumerated, so that the floor is a number, and the networks are trained on all of them:
    no sampling, no generalisation, only what the architecture can say. Two targets: the first bit, and whether the
    first bit is above the last. The value is the least cross entropy of several networks, over the floor.
    """
    draws = torch.Generator().manual_seed(seed)
    readers = [Reader(2, 1, positions, False, draws).to(torch.get_default_device()) for _ in range(nets)]
    bits = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * t)
    y = labels(target, bits)
    floor = permutation_floor(bits, y)
    data = bits.expand(nets, -1, -1), y.expand(nets, -1)
    curve = fit(readers, cross_entropy, lambda step: data, steps) / floor.value
    with torch.no_grad():
        outputs = [reader(bits) for reader in readers]
    losses = torch.stack([cross_entropy(output, y) for output in outputs])
    wrong = torch.stack([(output.argmax(1) != y).double().mean() for output in outputs])
    return {
        "value": float(losses.min()) / floor.value,
        "worst": float(losses.max()) / floor.value,
        "floor": floor.value,
        "least error rate": float(wrong.min()),
        "floor of the error rate": floor.error_rate,
        "lowest": curve.min(),
    }


if __name__ == "__main__":
    script(__file__)
