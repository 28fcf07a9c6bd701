"""Architectures written from their defining equations, and the catalogue that every generic test runs on.

>>> [entry.name for entry in ARCHITECTURES]
['mlp', 'mlp-relu', 'deep-linear', 'cnn', 'cnn-zeros']
>>> entry = ARCHITECTURES[0]
>>> inputs, target = entry.sample(seed=0, dtype=torch.float64, device="cpu")
>>> loss = entry.loss(entry.build()(inputs), target)
>>> loss.shape, loss.dtype
(torch.Size([]), torch.float64)

To add an architecture: one file with its equation, one entry in `ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ._pieces import ACTIVATIONS, LAWS, ArchitectureError, Law
from .cnn import CNN
from .mlp import MLP, DeepLinear

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "CNN",
    "LAWS",
    "MLP",
    "Architecture",
    "ArchitectureError",
    "DeepLinear",
    "Law",
    "Symmetry",
]


class Sample(Protocol):
    """Draw a batch `(inputs, target)`: the same seed gives the same batch, up to rounding, in every dtype and place."""

    def __call__(self, seed: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Return `(inputs, target)` for `loss(module(inputs), target)`."""
        ...


@dataclass(frozen=True)
class Symmetry:
    """A group $G$ under which a network claims $f(g·x) = ρ(g) f(x)$ for every $g$ and every value of its parameters.

    Attributes:
        elements: every $g ∈ G$, the identity among them.
        act_on_inputs: $(g, x) ↦ g·x$ on a batch of inputs.
        act_on_outputs: $(g, y) ↦ ρ(g) y$ on a batch of outputs; the identity for an invariant network.

    """

    elements: tuple[Any, ...]
    act_on_inputs: Callable[[Any, Tensor], Tensor]
    act_on_outputs: Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Architecture:
    """One entry of the catalogue: a tiny instance of a family, with what a test needs to run it.

    Attributes:
        name: unique in the catalogue.
        family: the class's name in `lemmata.architectures`.
        build: make the module, in float64 on the CPU, with the same parameters at every call (biases are non-zero).
        sample: draw a batch, `sample(seed, dtype, device)` → `(inputs, target)`.
        loss: `(output, target)` → the mean over the batch, a scalar.
        symmetry: the group of inputs under which the module claims to be equivariant, or None.
        source: the key of the defining paper in the lab's bibliography.

    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    sample: Sample
    loss: Callable[[Tensor, Tensor], Tensor]
    symmetry: Symmetry | None
    source: str


def _mean_square(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).mean()  # F.mse_loss has no forward mode over its gradient


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return (output.logsumexp(-1) - output.gather(-1, target.unsqueeze(-1)).squeeze(-1)).mean()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _regression(n_in: int, n_out: int) -> Sample:
    def sample(seed: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
        g = _generator(seed)
        inputs = torch.randn(5, n_in, dtype=torch.float64, device="cpu", generator=g)
        target = torch.randn(5, n_out, dtype=torch.float64, device="cpu", generator=g)
        return inputs.to(device, dtype), target.to(device, dtype)

    return sample


def _images(channels: int, height: int, width: int, classes: int) -> Sample:
    def sample(seed: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
        g = _generator(seed)
        inputs = torch.randn(3, channels, height, width, dtype=torch.float64, device="cpu", generator=g)
        target = torch.randint(classes, (3,), device="cpu", generator=g)
        return inputs.to(device, dtype), target.to(device)

    return sample


def _mlp() -> MLP:
    return MLP([3, 5, 4, 2], activation="tanh", dtype=torch.float64, generator=_generator(1))


def _mlp_relu() -> MLP:
    return MLP([3, 5, 4, 2], activation="relu", dtype=torch.float64, generator=_generator(2))


def _deep_linear() -> DeepLinear:
    return DeepLinear([3, 4, 4, 2], dtype=torch.float64, generator=_generator(3))


def _cnn() -> CNN:
    return CNN([2, 3, 3], classes=3, dtype=torch.float64, generator=_generator(4))


def _cnn_zeros() -> CNN:
    return CNN([2, 3, 3], classes=3, padding="zeros", dtype=torch.float64, generator=_generator(5))


def _away_from_kinks(seed: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Keep inputs at which every hidden |z| > 0.05: a ReLU network is then smooth in a ball around its parameters."""
    g = _generator(seed)
    candidates = torch.randn(400, 3, dtype=torch.float64, device="cpu", generator=g)
    target = torch.randn(5, 2, dtype=torch.float64, device="cpu", generator=g)
    with torch.no_grad():
        hidden = torch.cat(_mlp_relu().preactivations(candidates)[:-1], dim=-1)  # (400 9)
    inputs = candidates[hidden.abs().amin(-1) > 0.05][:5]
    return inputs.to(device, dtype), target.to(device, dtype)


def _trivially(g: Any, y: Tensor) -> Tensor:
    return y


#: The two signs: every linear map is odd.
_SIGNS = Symmetry(elements=(1, -1), act_on_inputs=lambda g, x: g * x, act_on_outputs=lambda g, y: g * y)

#: The 20 cyclic shifts of a 5 × 4 image.
_TORUS_SHIFTS = Symmetry(
    elements=tuple((down, right) for down in range(5) for right in range(4)),
    act_on_inputs=lambda g, x: x.roll(g, dims=(-2, -1)),
    act_on_outputs=_trivially,
)

#: Every architecture of the lab, once for each variant whose derivatives or symmetries differ.
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("mlp", "MLP", _mlp, _regression(3, 2), _mean_square, None, "rumelhart1986learning"),
    Architecture("mlp-relu", "MLP", _mlp_relu, _away_from_kinks, _mean_square, None, "rumelhart1986learning"),
    Architecture("deep-linear", "DeepLinear", _deep_linear, _regression(3, 2), _mean_square, _SIGNS, "saxe2014exact"),
    Architecture("cnn", "CNN", _cnn, _images(2, 5, 4, 3), _cross_entropy, _TORUS_SHIFTS, "lecun1998gradient"),
    Architecture("cnn-zeros", "CNN", _cnn_zeros, _images(2, 5, 4, 3), _cross_entropy, None, "lecun1998gradient"),
)
