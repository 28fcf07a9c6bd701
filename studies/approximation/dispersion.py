r"""Softmax cannot stay sharp.

Scores within a range $Delta$ give no token a weight above $e^Delta \/ (e^Delta + n - 1)$, and an entropy of at least
$ln n - Delta$. The vocabulary is finite and the weights are trained once, so $Delta$ is a constant of the network: a head
that picks one token out of sixteen picks none out of a million @velickovic2024softmax. What helps is to let scores
grow with the length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lemmata.architectures import MLP
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

TEMPERED = "scores of a fixed range: times ln n"


def bound(spread: float, n: float) -> float:
    """The largest weight that scores within ``spread`` can give one of n tokens."""
    return float(1 / (1 + (n - 1) * np.exp(-spread)))


def scores(n: int, spread: float, draws: torch.Generator, blocks: int = 10, size: int = 100) -> Iterator[Tensor]:
    """Blocks (size, n) of scores in [0, Δ]: uniform, of two values, clipped Gaussian by turns; last, the worst."""
    for block in range(blocks):
        drawn = torch.rand(size, n, generator=draws, device="cpu").to(torch.get_default_device())
        share = torch.linspace(0, 1, size)[:, None]
        law = (drawn, (drawn < share**2).to(drawn), (gaussian(draws, size, n) / 4 + 0.5).clamp(0, 1))[block % 3]
        yield spread * law
    yield spread * one_hot(torch.tensor([0]), n).to(torch.get_default_dtype())


def sharpest(n: int, spread: float, seed: int, tempered: bool) -> tuple[float, float]:
    """The largest weight and the least entropy over a thousand random vectors of scores and the worst one."""
    draws = torch.Generator().manual_seed(seed)
    weight, entropy = 0.0, float("inf")
    for block in scores(n, spread, draws):
        logs = torch.log_softmax(block * (log(n) if tempered else 1.0), -1)
        weight = max(weight, float(logs.max().exp()))
        entropy = min(entropy, float(-(logs.exp() * logs).sum(-1).min()))
    return weight, entropy


@claim(
    source="velickovic2024softmax",
    predicts=Equals("exp(spread)/(exp(spread) + n - 1)", within=1e-12, of="each"),
    quick=Grid(n=[10, 100, 10000], spread=[1, 5], seeds=2),
    full=Grid(n=[10, 100, 10000, 100000], spread=[1, 5, 10], seeds=5),
    controls={TEMPERED: dict(tempered=True)},
)
def softmax_dispersion(n: int, spread: float, seed: int, tempered: bool = False) -> float:
    r"""Scores within a range give no token a large weight.

    If all scores lie in $[s, s + Delta]$, every weight of the softmax over $n$ tokens lies in
    $ [frac(1, 1 + (n - 1) e^Delta), frac(e^Delta, e^Delta + n - 1)], $
    and both ends are attained @velickovic2024softmax. The value is the largest weight among a thousand random vectors of
    scores of three kinds and the one that attains the bound; it must equal the bound. For $Delta = 5$: 0.943, 0.600 and
    0.0146 at $n$ = 10, 100 and 10 000. Control: scores times $ln n$, whose range grows.
    """
    return sharpest(n, spread, seed, tempered)[0]


@claim(
    source="velickovic2024softmax",
    predicts=AtLeast("log(n) - spread", of="min"),
    quick=Grid(n=[100, 10000], spread=[1, 4], seeds=2),
    full=Grid(n=[100, 10000, 100000], spread=[1, 4], seeds=5),
    controls={TEMPERED: dict(tempered=True)},
)
def softmax_dispersion_entropy(n: int, spread: float, seed: int, tempered: bool = False) -> float:
    r"""Scores within a range leave the softmax almost all of its entropy.

    The largest of $n$ weights is at most $e^Delta \/ n$, so that their entropy is at least $ln n - Delta$: it grows with
    the length however the scores are arranged @velickovic2024softmax. The value is the least entropy among the vectors of
    the claim above.
    """
    return sharpest(n, spread, seed, tempered)[1]


# A trained head

CLASSES, TRAINED_ON = 8, 16


class Finder(nn.Module):
    """A head that reads the class of the one marked token: scores by a network, values the classes."""

    def __init__(self, draws: torch.Generator):
        super().__init__()
        self.score = MLP([1 + CLASSES, 16, 1], generator=draws)

    def scores(self, mark: Tensor, label: Tensor) -> Tensor:
        """Scores of tokens (…, n) of a mark and a class."""
        return self.score(torch.cat([mark[..., None], one_hot(label, CLASSES).to(mark)], -1))[..., 0]

    def forward(self, mark: Tensor, label: Tensor) -> Tensor:
        """Return the weight of each class: (…, n), (…, n) → (…, classes)."""
        weights = torch.softmax(self.scores(mark, label), -1)
        return (weights[..., None, :] @ one_hot(label, CLASSES).to(mark))[..., 0, :]


def needles(count: tuple[int, ...], n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences of n tokens with random classes, of which the first is marked."""
    label = torch.randint(CLASSES, (*count, n), generator=draws, device="cpu").to(torch.get_default_device())
    mark = one_hot(torch.zeros_like(label[..., 0]), n).to(torch.get_default_dtype())
    return mark, label


def surprise(output: Tensor, label: Tensor) -> Tensor:
    """Minus the logarithm of the right class's weight, the mean over sequences."""
    return -output.gather(-1, label[..., :1]).log().mean()


def finders(nets: int, steps: int, seed: int) -> list[Finder]:
    """Heads trained side by side on sequences of sixteen tokens."""
    draws = torch.Generator().manual_seed(seed)
    made = [Finder(draws).to(torch.get_default_device()) for _ in range(nets)]

    def batch(step: int) -> tuple[Any, Any]:
        mark, label = needles((nets, 64), TRAINED_ON, draws)
        return (mark, label), label

    train(made, surprise, batch, steps, partial(torch.optim.Adam, lr=0.02))
    return [net.requires_grad_(False) for net in made]


def draw_weights(ax: Any, rows: Rows) -> Columns:
    """A head trained on sixteen tokens loses the marked one among many; with scores times the logarithm it does not.

    Weight of the marked token against the number of tokens, on a logarithmic axis. Dots stay at one, then fall to zero,
    close below a line, the bound; crosses, of the same heads with scores that grow with the logarithm of the length,
    stay near one.
    """
    columns: dict[str, Any] = {"n": sorted({row.point["n"] for row in rows})}
    for arm, label, mark in (("", "trained on 16", "o"), (TEMPERED, "scores times ln n", "x")):
        chosen = [[r.values["weight"] for r in rows if (r.arm, r.point["n"]) == (arm, n)] for n in columns["n"]]
        columns[label] = [float(np.mean(values)) for values in chosen]
        ax.semilogx(columns["n"], columns[label], mark, label=label)
    spread = float(np.mean([row.values["range"] for row in rows if not row.arm]))
    columns["bound"] = [bound(spread, n) for n in columns["n"]]
    fine = np.geomspace(columns["n"][0], columns["n"][-1], 100)
    ax.plot(fine, [bound(spread, n) for n in fine], color="0.3", linewidth=1, label="bound")
    ax.set(xlabel="tokens n", ylabel="weight of the marked token", ylim=(0, 1.05))
    ax.legend()
    return columns


@claim(
    source="velickovic2024softmax",
    predicts=AtMost(1 + 1e-9, of="max"),
    quick=Grid(n=[16, 1024, 16384, 131072, 1048576], nets=[4], steps=[300], seeds=1),
    full=Grid(n=[16, 256, 4096, 16384, 65536, 262144, 1048576], nets=[8], steps=[1000], seeds=5),
    controls={TEMPERED: dict(tempered=True)},
    figures=(draw_weights,),
)
def softmax_dispersion_trained(n: int, nets: int, steps: int, seed: int, tempered: bool = False) -> dict[str, float]:
    r"""A trained head disperses on sequences longer than it has seen.

    A head learns to read the class of the one marked token among sixteen, by the logarithm of the right class's weight. Its
    tokens are of sixteen kinds, a mark or none and one of eight classes, so that the range $Delta$ of its scores is a
    number. On $n$ tokens it can give the marked one at most $e^Delta \/ (e^Delta + n - 1)$ @velickovic2024softmax. The value is
    the largest weight, over the bound, on random sequences and on the one that attains it, the most over several heads.

    Control: the same heads with scores times $ln n \/ ln 16$, an inverse temperature that grows with the length.
    """
    draws = torch.Generator().manual_seed(seed)
    ratios, weights, bounds, spreads = [], [], [], []
    kinds = torch.arange(2 * CLASSES)
    for net in finders(nets, steps, seed):
        table = net.scores((kinds // CLASSES).to(torch.get_default_dtype()), kinds % CLASSES)
        spread = float(table.max() - table.min())
        mark, label = needles((2,), n, draws)
        rows = table[mark.long() * CLASSES + label]  # (2 n)
        worst = torch.where(one_hot(torch.tensor([0]), n) > 0, table.max(), table.min())
        scale = log(n) / log(TRAINED_ON) if tempered else 1.0
        found = torch.softmax(scale * torch.cat([rows, worst]), -1)
        ratios.append(float(found.max()) / bound(spread, n))
        weights.append(float(found[:-1, 0].mean()))
        bounds.append(bound(spread, n))
        spreads.append(spread)
    averages = {name: float(np.mean(of)) for name, of in (("weight", weights), ("bound", bounds), ("range", spreads))}
    return {"value": max(ratios), **averages}


if __name__ == "__main__":
    script(__file__)
