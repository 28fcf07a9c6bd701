r"""Predicting English, letter by letter.

Shannon asked how many bits a letter of printed English carries for a reader who knows what stands before it, with an
alphabet of 26 letters and the space @shannon1951prediction. A predictor that gives the next character the probability
$p$ pays $-log_2 p$ bits for it; the mean over a held-out text is its price. The classical predictor counts: an $n$-gram
model looks at $n - 1$ characters and smooths what it counted, best by the method of Kneser and Ney
@kneser1995improved @chen1999empirical. It cannot look further, since nearly every longer context is new. A recurrent
network @hochreiter1997long @cho2014learning and a transformer @vaswani2017attention share what they learn between
contexts, and can. All of them read the same text here, the help topics of Python, in Shannon's alphabet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lemmata.architectures import GPT, GRU, LSTM, SequenceNet
from lemmata.studies.claim import AtLeast, Grid, claim, script
from lemmata.studies.data import english
from lemmata.studies.training import train

#: Shannon's alphabet.
ALPHABET = " abcdefghijklmnopqrstuvwxyz"
LETTERS = len(ALPHABET)
#: Windows in a batch; of shorter windows than the recipe's as many more as make the same number of characters.
WINDOWS = 16


class OneHot(nn.Module):
    """A recurrent network that reads characters, each as a unit vector; ten times as long, so that `W` learns faster."""

    def __init__(self, net: SequenceNet):
        super().__init__()
        self.net = net

    def forward(self, s: Tensor) -> Tensor:
        """Return the logits of every next character: (b, t) → (b, t, 27)."""
        return self.net(10 * nn.functional.one_hot(s, LETTERS).to(torch.float32))


def _lstm(width: int, draws: torch.Generator) -> nn.Module:
    return OneHot(LSTM(LETTERS, width, LETTERS, "orthogonal", "forget", dtype=torch.float32, generator=draws))


def _gru(width: int, draws: torch.Generator) -> nn.Module:
    return OneHot(GRU(LETTERS, width, LETTERS, "orthogonal", dtype=torch.float32, generator=draws))


def _gpt(width: int, draws: torch.Generator) -> nn.Module:
    return GPT(LETTERS, width, 4, 4, 64, positions="rotary", dtype=torch.float32, generator=draws)


@dataclass(frozen=True)
class Recipe:
    """How a network is built and trained: its width, its largest learning rate, its updates, and characters a window."""

    build: Callable[[int, torch.Generator], nn.Module]
    width: int
    rate: float
    steps: int
    window: int


#: By the model's name and size. All are in single precision.
RECIPES: Mapping[tuple[str, str], Recipe] = {
    ("lstm", "small"): Recipe(_lstm, 160, 3 / 160, 500, 32),
    ("lstm", "large"): Recipe(_lstm, 256, 3 / 256, 2000, 32),
    ("gru", "large"): Recipe(_gru, 256, 2 / 256, 2000, 32),
    ("gpt", "large"): Recipe(_gpt, 128, 3e-3, 3000, 64),
}


def letters(codes: Tensor, alphabet: str) -> Tensor:
    """A text in Shannon's alphabet: capitals become small, and whatever stands between two letters becomes one space.

    >>> letters(torch.tensor([2, 1, 0, 1, 1]), ".-B").tolist()
    [2, 0]
    """
    places = [max(ALPHABET.find(character.lower()), 0) for character in alphabet]
    mapped = torch.tensor(places, device=codes.device)[codes]
    again = (mapped[1:] == 0) & (mapped[:-1] == 0)
    return torch.cat([mapped[:1], mapped[1:][~again]])


def parts(shuffled: bool, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """The text to learn from and the held-out text; if shuffled, all their characters in one random order."""
    text = english()
    learned, held_out = (letters(part, text.alphabet) for part in (text.train, torch.cat([text.valid, text.test])))
    if not shuffled:
        return learned, held_out
    whole = torch.cat([learned, held_out])
    mixed = whole[torch.randperm(len(whole), generator=draws, device="cpu").to(whole.device)]
    return mixed[: len(learned)], mixed[len(learned) :]


def grams(text: Tensor, n: int, size: int) -> Tensor:
    """Every run of n characters as one number in base `size`, in the order of the text.

    >>> grams(torch.tensor([1, 2, 0]), 2, 10).tolist()
    [12, 20]
    """
    powers = torch.tensor([size**k for k in reversed(range(n))], device=text.device)
    return (text.unfold(0, n, 1) * powers).sum(-1)


def _found(keys: Tensor, values: Tensor, asked: Tensor) -> Tensor:
    """The values at the asked keys, of a sorted list of keys; 0 where there is none."""
    place = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == asked, values[place], 0)


def kneser_ney(text: Tensor, asked: Tensor, order: int, size: int) -> Tensor:
    r"""Probabilities that the $n$-gram model of a text gives to each character of another, from the n-th on.

    With $c(h w)$ the count of the string $h w$ in the text at the highest order, and at a lower one the number of different
    characters seen before it, and with one character less of context in $h'$:

    $$p(w | h) = \frac{\max(c(h w) - D, 0) + D \, |\{v : c(h v) > 0\}| \; p(w | h')}{\sum_v c(h v)},$$

    down to $p = 1 / \text{size}$; where $h$ was never seen, $p(w | h) = p(w | h')$. The discount of an order is
    $D = n_1 / (n_1 + 2 n_2)$ from the numbers of strings with count one and two, and 1/2 where there are none.
    Source: kneser1995improved, interpolated as in chen1999empirical.

    >>> kneser_ney(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1]), order=1, size=2).tolist()
    [0.5, 0.5]
    """
    p = torch.full((len(asked) - order + 1,), 1 / size, dtype=torch.float64, device=asked.device)
    for n in range(1, order + 1):
        strings = grams(text, n, size) if n == order else grams(text, n + 1, size).unique() % size**n
        seen, counts = strings.unique(return_counts=True)
        counts = counts.double()
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = once / (once + 2 * twice) if once else 0.5
        contexts, group = (seen // size).unique(return_inverse=True)
        strings = grams(asked, n, size)[order - n :]
        total = _found(contexts, group.bincount(counts), strings // size)
        kinds = _found(contexts, group.bincount().double(), strings // size)
        left = (_found(seen, counts, strings) - discount).clamp(min=0) + discount * kinds * p
        p = torch.where(total > 0, left / total.clamp(min=1), p)
    return p


def learn(recipe: Recipe, text: Tensor, window: int, draws: torch.Generator) -> tuple[Any, Tensor]:
    """Train a network on random windows; return it and its losses in bits, each before its update."""
    network, windows = recipe.build(recipe.width, draws).to(text.device), WINDOWS * recipe.window // window
    reach = torch.arange(window + 1, device="cpu")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(text) - window, (1, windows, 1), generator=draws, device="cpu")
        chosen = text[(starts + reach).to(text.device)]
        return chosen[..., :-1], chosen[..., 1:]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())

    rule = partial(torch.optim.Adam, lr=recipe.rate, betas=(0.9, 0.99), fused=True)
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=recipe.rate, pct_start=0.1)
    losses = train(
        [network], loss, batch, recipe.steps, rule, partial(cycle, total_steps=recipe.steps, cycle_momentum=False)
    )
    return network, losses[:, 0].double() / math.log(2)


@torch.no_grad()
def bits(network: Callable[[Tensor], Tensor], text: Tensor, window: int, stride: int) -> Tensor:
    r"""Bits for each character of windows of a text that start `stride` apart: (windows, window).

    In column j stands $-\log_2 p$ of the character after the first j + 1 of the window, predicted from these.

    >>> bits(lambda s: torch.zeros(*s.shape, 8), torch.arange(6), window=4, stride=1).tolist()
    [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]]
    """
    windows = text.unfold(0, window + 1, stride)
    logs = [network(some[:, :-1]).double().log_softmax(-1) for some in windows.split(256)]
    return -torch.cat(logs).gather(-1, windows[:, 1:, None])[..., 0] / math.log(2)


def compared(network: Any, text: Tensor, held_out: Tensor, order: int, window: int) -> dict[str, Any]:
    """Bits per character of the network and of the n-gram models up to an order, on the same characters.

    Windows are shifted by an eighth of their length, and only the last eighth of each is scored. By context: the mean of
    each column of `bits`, less what is due to its characters, which are those of one of the last columns.
    """
    stride = max(1, window // 8)
    paid = bits(network, held_out, window, stride)
    scored = slice(window - stride + 1, window - stride + 1 + stride * len(paid))  # places in the held-out text
    grammed = []
    for n in range(1, order + 1):
        p = kneser_ney(text, held_out[: scored.stop], n, LETTERS)
        grammed.append(-p[scored.start - n + 1 :].log2().mean())
    columns, network = paid.mean(0).unflatten(0, (-1, stride)), paid[:, -stride:].mean()
    by_context = (columns - columns[-1] + network).flatten()
    return {"network": network, "ngrams": torch.stack(grammed), "by context": by_context}


def _first(rows: Sequence[Any], arm: str) -> Mapping[str, Any]:
    """One run of each model, by the model's name, in the claim's own arm ("") or in the control that speaks of `arm`."""
    chosen = [row for row in rows if row.k == 0 and (arm in row.arm if arm else not row.arm)]
    return {row.point["model"].upper(): row for row in chosen}


def draw_learning(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Bits per character while learning, one run each; dashed lines: the n-gram models on the held-out text.

    Mean over every ten updates, each batch before the update that learns from it; a dot at the end is the network's price
    on the held-out text. The curves fall steeply through the lines of the shorter n-grams and then slowly below that of
    the longest one. Shuffled characters cost as much as a single letter does, from soon after the start until the end.
    """
    columns: dict[str, Sequence[Any]] = {}
    shuffled = {f"{name}, shuffled": row for name, row in _first(rows, "shuffled").items()}
    for place, (name, row) in enumerate({**_first(rows, ""), **shuffled}.items()):
        losses = row.values["losses"]
        blocks = losses[: len(losses) // 10 * 10].reshape(-1, 10).mean(1)
        columns[name] = list(blocks)
        ax.plot(10 * np.arange(len(blocks)) + 5, blocks, color=f"C{place}", label=name)
        ax.plot([len(losses)], [row.values["network"]], "o", color=f"C{place}", clip_on=False)
    ngrams = next(iter(_first(rows, "").values())).values["ngrams"]
    for n, price in enumerate(ngrams, 1):
        ax.axhline(price, color="0.5", linewidth=0.8, linestyle="--")
        ax.annotate(
            f"{n}-gram", (1, price), xycoords=("axes fraction", "data"), xytext=(4, -3), textcoords="offset points"
        )
    ax.set(xlabel="update", ylabel="bits per character", ylim=(1.2, 4.8))
    ax.legend()
    longest = max(len(column) for column in columns.values())
    padded = {name: [*column, *[math.nan] * (longest - len(column))] for name, column in columns.items()}
    return {"update": [10 * block + 5 for block in range(longest)], **padded}


def draw_context(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Price on the held-out text by how many characters the predictor has read.

    One run each. Squares, the n-gram models of every order up to the one compared: they fall in nearly even steps. The
    curve of a network that learned from long windows starts close to them and passes below the last square, then is flat
    after about ten characters. Crosses: a network that learned from windows as short as the n-gram's context, above.
    """
    columns: dict[str, Sequence[Any]] = {}
    own, short = _first(rows, ""), _first(rows, "as short")
    squares = next(iter(own.values())).values["ngrams"]
    ax.plot(range(len(squares)), squares, "s", color="0.4", label="n-gram, n − 1 characters")
    ax.axhline(min(squares), color="0.5", linewidth=0.8, linestyle="--")
    columns["n-gram"] = list(squares)
    for place, (name, row) in enumerate(own.items()):
        curves = {name: ("-", row), **({f"{name}, short windows": ("x", short[name])} if name in short else {})}
        for label, (style, chosen) in curves.items():
            prices = chosen.values["by context"]
            ax.plot(range(1, len(prices) + 1), prices, style, color=f"C{place}", label=label)
            columns[label] = [math.nan, *prices]
    longest = max(len(column) for column in columns.values())
    columns = {name: [*column, *[math.nan] * (longest - len(column))] for name, column in columns.items()}
    ax.set(xlabel="characters read", ylabel="bits per character")
    ax.legend()
    return {"characters read": list(range(longest)), **columns}


@claim(
    source=(
        "kneser1995improved",
        "chen1999empirical",
        "hochreiter1997long",
        "cho2014learning",
        "vaswani2017attention",
        "shannon1951prediction",
    ),
    predicts=AtLeast(0.01),
    quick=Grid(model=["lstm"], size=["small"], order=[4], seeds=3),
    full=Grid(model=["lstm", "gru", "gpt"], size=["large"], order=[5], seeds=5),
    controls={
        "structure: characters shuffled": dict(shuffled=True),
        "a longer context: windows as short as the n-gram's": dict(short=True),
    },
    figures=(draw_learning, draw_context),
    timeout=3600,
)
def text_beyond_ngrams(
    model: str, size: str, order: int, seed: int, shuffled: bool = False, short: bool = False
) -> dict[str, Any]:
    r"""Networks that see a long context predict English better than n-gram models.

    A network learns from random windows of the text, of 32 characters for the recurrent networks and of 64 for the
    transformer, and then predicts each character of the held-out tenth from at least seven eighths of as many before it.
    The interpolated Kneser–Ney $n$-gram model @kneser1995improved @chen1999empirical counts the same text and predicts the
    same characters from $n - 1$. At full size $n$ is 5 and the networks are an LSTM, a GRU and a transformer with four
    layers; at the quick size, where a tenth of the arithmetic has to do, $n$ is 4 and the network an LSTM. Models of lower
    order than $n$ are tried on the held-out text too, and the best of all counts, a choice in favour of counting. The value
    is its price minus the network's; it must be at least 0.01 bits per character in every run.

    The first control shuffles the characters of both texts by one permutation: only the frequencies of the letters are left
    to be learned, a 1-gram model is the best there is, and the network can at most equal it. In the second the network
    learns from windows of $n - 1$ characters and predicts from as many. It then has no more to go by than the $n$-gram
    model, and pays clearly more: what wins is the longer context. Training is in single precision, whose rounding
    is far below the spread between seeds; probabilities are compared in double.
    """
    draws = torch.Generator().manual_seed(seed)
    text, held_out = parts(shuffled, draws)
    recipe = RECIPES[model, size]
    window = order - 1 if short else recipe.window
    network, losses = learn(recipe, text, window, draws)
    result = compared(network, text, held_out, order, window)
    return {"value": result["ngrams"].min() - result["network"], "losses": losses, **result}


if __name__ == "__main__":
    script(__file__)
