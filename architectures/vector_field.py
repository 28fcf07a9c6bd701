r"""The vector field of neural ordinary differential equations and continuous flows: a perceptron of time and state."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_size,
    checked_sizes,
    resolve_activation,
    resolve_law,
)


class VectorField(nn.Module):
    r"""A multilayer perceptron of time and state, the velocity of a neural ODE.

    $$z_1 = W_1 [h; t] + b_1, \qquad z_l = W_l φ(z_{l-1}) + b_l, \qquad f(t, h) = z_L ∈ ℝ^n.$$

    Shapes: $h$: (..., n) → $f(t, h)$: (..., n); $W_1$: ($m_1$, n + 1), its last column for $t$. Parameters are named
    `layers.0.weight`, `layers.0.bias`, … Initialisation: the table of `MLP`, with $n + 1$ inputs of the first layer.

    Args:
        n: the size of the state.
        hidden: the width of the hidden layer, or a list of several.
        activation: as in `MLP`; a smooth one where derivatives or the order of a solver matter.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the state's width, is not what it must be.

    Cost: $2 \sum_l n_l n_{l-1}$ operations an example.
    Left out: convolutions, other ways to read the time.
    Source: chen2018neural.

    >>> field = VectorField(3, hidden=5)
    >>> tuple(field(0.5, torch.zeros(2, 3)).shape), tuple(field.layers[0].weight.shape)
    ((2, 3), (5, 4))

    """

    def __init__(
        self,
        n: int,
        hidden: int | Sequence[int],
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n = checked_size("n", n)
        self.hidden = checked_sizes("hidden", hidden if isinstance(hidden, Sequence) else [hidden], least=1)
        self.activation = resolve_activation(activation)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        widths = [n + 1, *self.hidden, n]
        self.layers = nn.ModuleList(make.linear(i, o, law) for i, o in itertools.pairwise(widths))

    def forward(self, t: float | Tensor, h: Tensor) -> Tensor:
        """Return $f(t, h)$: a number and (..., n) → (..., n)."""
        time = torch.zeros_like(h[..., :1]) + t  # (... 1)
        z = self.layers[0](torch.cat([h, time], dim=-1))
        for layer in self.layers[1:]:
            z = layer(self.activation(z))
        return z


def checked_state(x: Tensor, n: int) -> Tensor:
    """Return `x` if its last dimension is `n`.

    >>> tuple(checked_state(torch.zeros(4, 2), 2).shape)
    (4, 2)
    """
    if x.dim() == 0 or x.shape[-1] != n:
        raise ArchitectureError(
            f"the input has shape {tuple(x.shape)}, but n={n} asks for (..., {n}); images and sequences must be "
            "flattened first: x.flatten(1)."
        )
    return x
