r"""Networks by depth and by lag: how much gradient arrives at each layer or character, and what theory says of it.

What the study of families shares. Curves are logarithms of mean squared gradients in the order in which backpropagation meets
them: from the last layer, or the last character, to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import comb, log, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, one_hot

from lemmata.analysis.gradient_flow import MeanField, critical_weight_variance
from lemmata.architectures import CNN, GPT, GRU, LSTM, MLP, RNN, Law, ResNet
from lemmata.studies.architectures.text import LETTERS, letters
from lemmata.studies.data import digits, english, gaussian

BIAS = 0.05  # σ_b² of the tanh networks
CRITICAL = critical_weight_variance(torch.tanh, BIAS, kinks=())
SETTLED = 5  # the first layer whose variance counts as settled
READ = 40  # characters before the one to predict
UNITS: Mapping[str, tuple[Callable[[Tensor], Tensor], tuple[float, ...]]] = {
    "tanh": (torch.tanh, ()),
    "relu": (torch.relu, (0.0,)),
}


def rate(places: np.ndarray, curve: np.ndarray) -> float:
    """The slope of a curve: the logarithm of what a layer or step multiplies the squared gradient by."""
    return float(np.polyfit(places, curve, 1)[0])


def factor(units: str, weights: float, bias: float) -> float:
    """ln χ₁ at the fixed variance."""
    activation, kinks = UNITS[units]
    field = MeanField(activation, weights, bias, kinks)
    return log(field.gradient_factor(field.fixed_variance()))


# By depth


class Deep(NamedTuple):
    """A family by depth: its kind, units, σ_w² and σ_b², and whether it is torch's default, a uniform law."""

    kind: type[nn.Module]
    units: str
    weights: float
    bias: float = 0.0
    default: bool = False

    @property
    def law(self) -> str | Law:
        """The law to draw weights from."""
        return "default" if self.default else Law("mean field", lambda n, m: self.weights / n, lambda n, m: self.bias)


DEEP: Mapping[str, Deep] = {
    "tanh, ordered": Deep(MLP, "tanh", 1.0, BIAS),
    "tanh, critical": Deep(MLP, "tanh", CRITICAL, BIAS),
    "tanh, chaotic": Deep(MLP, "tanh", 3.0, BIAS),
    "ReLU, He": Deep(MLP, "relu", 2.0),
    "ReLU, default": Deep(MLP, "relu", 1 / 3, default=True),
    "CNN, critical": Deep(CNN, "tanh", CRITICAL, BIAS),
    "ResNet, He": Deep(ResNet, "relu", 2.0),
    "ResNet, default": Deep(ResNet, "relu", 1 / 3, default=True),
}


class Past(nn.Module):
    """A layer and a way past it; of a padded map only the inner part passes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return layer(x) + x."""
        return self.layer(x) + (x[..., 1:-1, 1:-1] if isinstance(self.layer, nn.Conv2d) else x)


def deep(
    family: str, depth: int, width: int, draws: torch.Generator, swapped: bool
) -> tuple[nn.Module, list[nn.Module]]:
    """A network on digits, and the modules whose outputs count as places; ``swapped`` adds or takes away the shortcuts.

    A convolution has a sixth of the width in channels; a place of a ResNet is a block, of two layers.
    """
    made = DEEP[family]
    if made.kind is ResNet:
        net: Any = ResNet([1, width // 6], 10, depth // 2, "none", init=made.law, generator=draws)
        for block in net.blocks if swapped else ():
            block.shortcut = torch.zeros_like
        return net, [*net.blocks]
    if made.kind is CNN:
        net = CNN([1, *[width // 6] * depth], 10, activation=made.units, init=made.law, generator=draws)
    else:
        net = MLP([64, *[width] * depth, 10], made.units, made.law, generator=draws)
    for place in range(1, depth) if swapped else ():
        net.layers[place] = Past(net.layers[place])
    return net, [*net.layers[:depth]]


def numerals(n: int | None = None) -> tuple[Tensor, Tensor]:
    """The digits to learn from as images, read once a process."""
    return _numerals(n, str(torch.get_default_device()), torch.get_default_dtype())


@cache
def _numerals(n: int | None, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return digits(n, images=True)


def by_layer(net: nn.Module, places: list[nn.Module], examples: int, draws: torch.Generator) -> np.ndarray:
    """ln of the mean over digits of ‖∂ℓ/∂z‖², ℓ an example's cross-entropy and z the output of each place."""
    images, labels = numerals()
    chosen = torch.randperm(len(labels), generator=draws, device="cpu")[:examples].to(labels.device)
    inputs = images[chosen].flatten(1) if isinstance(net, MLP) else images[chosen]
    seen: list[Tensor] = []
    hooks = [place.register_forward_hook(lambda module, args, output: seen.append(output)) for place in places]
    loss = cross_entropy(net(inputs), labels[chosen], reduction="sum")
    for hook in hooks:
        hook.remove()
    found = torch.autograd.grad(loss, seen[::-1])
    return torch.stack([one.flatten(1).square().sum(1).mean().log() for one in found]).cpu().numpy()


@cache
def crowd(blocks: int, weights: float, units: int = 100_000) -> np.ndarray:
    r"""The curve of a wide ResNet without normalisation: independent units, :math:`x' = (x + \sqrt{v} z)_+`, and back.

    With σ_w² = w and m the mean of x², a branch has the variance v = w² m/2. On its way back a unit's squared gradient passes
    its own rectifier, and each unit receives w²/2 times the mean of what passed all: the branch.
    """
    draws = np.random.default_rng(0)
    x = np.maximum(draws.standard_normal(units), 0)
    open_ = []
    for _ in range(blocks):
        moved = x + weights * sqrt(np.mean(x * x) / 2) * draws.standard_normal(units)
        open_.append(moved > 0)
        x = np.maximum(moved, 0)
    back, curve = np.ones(units), [0.0]
    for passed in open_[:0:-1]:
        back = back * passed
        back = back + weights**2 / 2 * back.mean()
        curve.append(log(back.mean()))
    return np.array(curve)


def theory_by_layer(family: str, depth: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """How many layers before the last the places are, and the curve that wide networks have."""
    made = DEEP[family]
    if made.kind is ResNet:
        return np.arange(0, depth, 2), crowd(depth // 2, made.weights)
    back = np.arange(depth)
    return back, back * factor(made.units, made.weights, 1 / (3 * width) if made.default else made.bias)


# By lag


def _rnn(gain: float, orthogonal: bool, width: int, draws: torch.Generator) -> nn.Module:
    net = RNN(LETTERS, width, LETTERS, init="lecun", dtype=torch.float32, generator=draws)
    with torch.no_grad():
        net.U.copy_(gain * (torch.linalg.qr(gaussian(draws, width, width))[0] if orthogonal else net.U))
    return net


def _gated(kind: type[LSTM] | type[GRU], bias: float, width: int, draws: torch.Generator) -> nn.Module:
    """Default weights; biases zero but for that of the gate that keeps, the second of both kinds."""
    net = kind(LETTERS, width, LETTERS, dtype=torch.float32, generator=draws)
    with torch.no_grad():
        net.b.zero_()
        net.b[width : 2 * width] = bias
    return net


def _gpt(width: int, draws: torch.Generator) -> nn.Module:
    return GPT(LETTERS, width // 2, 4, 2, READ, dtype=torch.float32, generator=draws)


class Long(NamedTuple):
    """A family by lag: how it is built, the rate at which Adam trains it, and the theory's parameters.

    ``gain`` is σ_w of an ordinary network; ``keep`` the gate that keeps and ``mix`` the spectral radius of what the other
    gates return of it, through recurrent weights of variance 1/(3n).
    """

    build: Callable[[int, torch.Generator], nn.Module]
    step: float
    gain: float = 0.0
    keep: float = 0.0
    mix: float = 0.0


def _ordinary(gain: float, orthogonal: bool = False) -> Long:
    return Long(lambda width, draws: _rnn(gain, orthogonal, width, draws), 3e-3, gain=gain)


def _gates(kind: type[LSTM] | type[GRU], bias: float) -> Long:
    keep = 1 / (1 + np.exp(-bias))
    other = 0.25 if kind is LSTM else (1 - keep) / 2  # input times output gate; candidate times reset gate
    return Long(lambda width, draws: _gated(kind, bias, width, draws), 1e-2, keep=keep, mix=other / sqrt(3))


LONG: Mapping[str, Long] = {
    "RNN, gain 0.8": _ordinary(0.8),
    "RNN, orthogonal": _ordinary(1.0, orthogonal=True),
    "RNN, gain 1.5": _ordinary(1.5),
    "LSTM, forget bias 0": _gates(LSTM, 0.0),
    "LSTM, forget bias 1": _gates(LSTM, 1.0),
    "LSTM, forget bias 2": _gates(LSTM, 2.0),
    "GRU": _gates(GRU, 0.0),
    "transformer": Long(_gpt, 3e-3),
}


def windows(count: int, draws: torch.Generator) -> Tensor:
    """Random windows of the text, one character longer than what is read, (count, READ + 1)."""
    text = _text(str(torch.get_default_device()))
    starts = torch.randint(len(text) - READ, (count, 1), generator=draws, device="cpu")
    return text[(starts + torch.arange(READ + 1, device="cpu")).to(text.device)]


@cache
def _text(device: str) -> Tensor:
    text = english()
    return letters(text.train, text.alphabet)


class Reader(nn.Module):
    """A network that reads characters: as unit vectors, times ``length``, or as the vectors of a transformer's table."""

    def __init__(self, net: nn.Module, length: float = 1.0) -> None:
        super().__init__()
        self.net, self.length = net, length

    def vectors(self, s: Tensor) -> Tensor:
        """What stands for the characters, (b, t) → (b, t, d)."""
        if isinstance(self.net, GPT):
            return self.length * embedding(s, self.net.embedding)
        return self.length * one_hot(s, LETTERS).to(next(self.net.parameters()))

    def read(self, x: Tensor) -> Tensor:
        """Return the logits of every next character, (b, t, d) → (b, t, 27)."""
        return self.net.body(x) @ self.net.embedding.mT if isinstance(self.net, GPT) else self.net(x)

    def forward(self, s: Tensor) -> Tensor:
        """(b, t) → (b, t, 27)."""
        return self.read(self.vectors(s))


def by_lag(net: Reader, count: int, draws: torch.Generator) -> np.ndarray:
    """ln of the mean over windows of ‖∂ℓ/∂x‖², ℓ the price of the last character and x what stands for each before it.

    In the order of lags: 0 is the last character read.
    """
    s = windows(count, draws)
    x = net.vectors(s[:, :-1]).detach().requires_grad_()
    loss = cross_entropy(net.read(x)[:, -1], s[:, -1], reduction="sum")
    sizes = torch.autograd.grad(loss, x)[0].square().sum(-1).mean(0)
    return sizes.log().flip(0).cpu().numpy()


def paths(lag: int, keep: float, mix: float, shared: bool) -> float:
    r"""ln of the mean squared gradient after so many steps with the Jacobian :math:`f I + r G`, G Gaussian of radius one.

    The same G at every step: :math:`\sum_j \binom{k}{j}^2 f^{2 (k - j)} r^{2 j}`, for the :math:`\binom{k}{j}` ways through G
    j times are one and the same. A new G at every step: :math:`(f^2 + r^2)^k`.
    """
    ways = [comb(lag, j) ** (2 if shared else 1) * keep ** (2 * (lag - j)) * mix ** (2 * j) for j in range(lag + 1)]
    return log(sum(ways))


def theory_by_lag(family: str, shared: bool = True) -> np.ndarray:
    """The curve that wide networks have, by lag."""
    made, lags = LONG[family], range(READ)
    if made.gain:
        return np.array(lags) * factor("tanh", made.gain**2, 1 / LETTERS)
    return np.array([paths(lag, made.keep, made.mix, shared) if made.keep else 0.0 for lag in lags])


def halves(found: float) -> float:
    """In how many layers or steps a squared gradient of this rate halves; infinite where it does not."""
    return -log(2) / found if found < 0 else np.inf
