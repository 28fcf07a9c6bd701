"""An entry of the catalogue: a tiny instance of a family, a batch for it, and what it promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Sample(Protocol):
    """Draw a batch `(inputs, target)`: the same seed gives the same batch, up to rounding, in every dtype and place."""

    def __call__(self, seed: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Any, Any]:
        """Return `(inputs, target)` for `loss(module(*arguments(inputs)), target)`; examples lie along the first axis."""
        ...


@dataclass(frozen=True)
class Symmetry:
    """A group $G$ under which a network claims $f(g·x) = ρ(g) f(x)$ for every $g$ and every value of its parameters.

    Attributes:
        elements: every $g ∈ G$, the identity among them; a finite subgroup stands for an infinite group.
        act_on_inputs: $(g, x) ↦ g·x$ on a batch of inputs.
        act_on_outputs: $(g, y) ↦ ρ(g) y$ on a batch of outputs; the identity for an invariant network.

    """

    elements: tuple[Any, ...]
    act_on_inputs: Callable[[Any, Any], Any]
    act_on_outputs: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Exemption:
    """Checks of the Schwarz contract that an architecture fails by its nature, tested to fail exactly so.

    Attributes:
        checks: the names of the checks, as the contract test prints them.
        error: text that each failure must show.
        reason: why, in a sentence for a reader of the table.

    """

    checks: tuple[str, ...]
    error: str
    reason: str


@dataclass(frozen=True)
class Architecture:
    """One entry of the catalogue: a tiny instance of a family, with what a test needs to run it.

    Attributes:
        name: unique in the catalogue.
        family: the class's name in `lemmata.architectures`.
        build: make the module, in float64 on the CPU, with the same parameters at every call (no parameter is zero).
        sample: draw a batch, `sample(seed, dtype, device)` → `(inputs, target)`.
        loss: `(output, target)` → the mean over the batch, a scalar.
        symmetry: the group of inputs under which the module claims to be equivariant, or None.
        source: the key of the defining paper in the lab's bibliography.
        exempt: checks of the contract that the architecture fails by its nature.
        smooth: False if its loss has kinks as a function of the parameters (rectifiers, maxima).

    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    sample: Sample
    loss: Callable[[Any, Any], Tensor]
    symmetry: Symmetry | None
    source: str
    exempt: tuple[Exemption, ...] = ()
    smooth: bool = True


def arguments(inputs: Any) -> tuple[Any, ...]:
    """Return what a module is called with: a tuple of inputs is spread, anything else is the one argument.

    >>> arguments(3), arguments((3, 4))
    ((3,), (3, 4))
    """
    return tuple(inputs) if isinstance(inputs, tuple) else (inputs,)


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error, by hand: `F.mse_loss` has no forward mode over its gradient.

    >>> mean_square(torch.tensor([1.0, 3.0]), torch.zeros(2)).item()
    5.0
    """
    return ((output - target) ** 2).mean()


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of $-log softmax(y)_t$ over all leading axes: logits (..., C), labels (...).

    >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp().item(), 6)
    4.0
    """
    return (output.logsumexp(-1) - output.gather(-1, target.unsqueeze(-1)).squeeze(-1)).mean()


def seeded(seed: int) -> torch.Generator:
    """Return a CPU generator.

    >>> seeded(3).initial_seed()
    3
    """
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Draw standard normal numbers on the CPU in float64.

    >>> normal(seeded(0), 2, 3).dtype
    torch.float64
    """
    return torch.randn(*shape, dtype=torch.float64, device="cpu", generator=generator)


def labels(generator: torch.Generator, classes: int, *shape: int) -> Tensor:
    """Draw integers below `classes` on the CPU.

    >>> labels(seeded(0), 1, 2).tolist()
    [0, 0]
    """
    return torch.randint(classes, shape, device="cpu", generator=generator)


def placed(item: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    """Move tensors, alone or in nested tuples, to a device; floating-point ones also to a dtype.

    >>> [t.dtype for t in placed((torch.zeros(1), torch.arange(2)), torch.float64, "cpu")]
    [torch.float64, torch.int64]
    """
    if isinstance(item, tuple):
        return tuple(placed(part, dtype, device) for part in item)
    return item.to(device, dtype) if item.is_floating_point() else item.to(device)


def sampled(draw: Callable[[torch.Generator], tuple[Any, Any]]) -> Sample:
    """Make a `Sample` of a function that draws `(inputs, target)` from a generator, in float64 on the CPU.

    >>> inputs, target = sampled(lambda g: (normal(g, 3, 2), labels(g, 4, 3)))(0, torch.float32, "cpu")
    >>> inputs.dtype, target.dtype
    (torch.float32, torch.int64)
    """

    def sample(seed: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Any, Any]:
        return placed(draw(seeded(seed)), dtype, device)

    return sample


def regression(n_in: int, n_out: int) -> Sample:
    """Five vectors with vector targets.

    >>> [tuple(t.shape) for t in regression(3, 2)(0, torch.float64, "cpu")]
    [(5, 3), (5, 2)]
    """
    return sampled(lambda g: (normal(g, 5, n_in), normal(g, 5, n_out)))


def images(channels: int, height: int, width: int, classes: int) -> Sample:
    """Three images with labels.

    >>> [tuple(t.shape) for t in images(2, 5, 4, 3)(0, torch.float64, "cpu")]
    [(3, 2, 5, 4), (3,)]
    """
    return sampled(lambda g: (normal(g, 3, channels, height, width), labels(g, classes, 3)))


def sequences(length: int, width: int, n_out: int) -> Sample:
    """Three sequences of vectors, with a target vector at every time.

    >>> [tuple(t.shape) for t in sequences(4, 2, 3)(0, torch.float64, "cpu")]
    [(3, 4, 2), (3, 4, 3)]
    """
    return sampled(lambda g: (normal(g, 3, length, width), normal(g, 3, length, n_out)))


def tokens(length: int, vocabulary: int) -> Sample:
    """Three sequences of tokens, with the token to predict at every time.

    >>> [tuple(t.shape) for t in tokens(4, 5)(0, torch.float64, "cpu")]
    [(3, 4), (3, 4)]
    """
    return sampled(lambda g: (labels(g, vocabulary, 3, length), labels(g, vocabulary, 3, length)))


def trivially(g: Any, y: Any) -> Any:
    """The trivial action, $ρ(g) y = y$: what an invariant network does to its outputs.

    >>> trivially("any element", 7)
    7
    """
    return y
