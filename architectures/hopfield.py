r"""The modern Hopfield network: patterns retrieved by descending an energy, one step of which is attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ._entry import Architecture, mean_square, regression, seeded
from ._pieces import ArchitectureError, Maker, checked_size


class Hopfield(nn.Module):
    r"""A modern Hopfield network with continuous states: $M$ stored patterns, the rows $x_i$ of $X$, and $T$ updates.

    $$ξ_0 = ξ, \qquad ξ_{t+1} = X^⊤ \operatorname{softmax}(β X ξ_t), \qquad f(ξ) = ξ_T.$$

    Every update lowers, or keeps, the energy

    $$E(ξ) = -\frac1β \log \sum_{i=1}^M e^{β x_i^⊤ ξ} + \frac12 ξ^⊤ξ + \frac{\log M}{β} + \frac12 \max_i ‖x_i‖^2,$$

    which lies between 0 and $2 \max_i ‖x_i‖^2$ for every $ξ$ in the patterns' convex hull. A separated pattern is found
    in one update: with $Δ_i = \min_{j≠i} x_i^⊤(x_i - x_j)$ and $R = \max_j ‖x_j‖$,

    $$‖ξ_1 - x_i‖ ≤ 2 (M-1) R \, e^{-β(Δ_i - 2R‖ξ_0 - x_i‖)}.$$

    One update of states $Q$ is $\operatorname{softmax}(β Q X^⊤) X$: attention with keys and values $X$.

    Shapes: $ξ$: (..., n) → $f(ξ)$: (..., n); $X$: (M, n), the parameter `patterns`.
    Initialisation: $X_{ij} ∼ N(0, 1)$; store your own by copying them into `patterns`.

    Args:
        n: the dimension of a pattern.
        stored: $M$, the number of patterns.
        beta: $β > 0$, the inverse temperature; $1/\sqrt n$ if None, as in attention.
        steps: $T$, at least 1.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the state's width, is not what it must be.

    Cost: 4 T M n operations an example.
    Left out: projections of states and patterns, several heads, updates until convergence.
    Source: ramsauer2021hopfield.

    >>> net = Hopfield(2, stored=2, beta=8.0)
    >>> _ = net.load_state_dict({"patterns": torch.tensor([[1.0, 1.0], [1.0, -1.0]])})
    >>> [round(value, 4) for value in net(torch.tensor([0.2, 0.7])).tolist()]
    [1.0, 1.0]

    """

    def __init__(
        self,
        n: int,
        stored: int,
        beta: float | None = None,
        steps: int = 1,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        n = checked_size("n", n)
        self.beta = _checked_beta(1 / math.sqrt(n) if beta is None else beta)
        self.steps = checked_size("steps", steps)
        make = Maker(dtype, device, generator)
        self.patterns = make.normal((checked_size("stored", stored), n), variance=1.0)

    def forward(self, state: Tensor) -> Tensor:
        """Return $ξ_T$: (..., n) → (..., n)."""
        for _ in range(self.steps):
            state = update(state, self.patterns, self.beta)
        return state

    def energy(self, state: Tensor) -> Tensor:
        """Return $E(ξ)$: (..., n) → (...).

        >>> net = Hopfield(3, stored=1)
        >>> net.energy(net.patterns[0]).abs().item() < 1e-6          # the one pattern is the minimum
        True
        """
        return energy(state, self.patterns, self.beta)

    def extra_repr(self) -> str:
        """Name the sizes in the printed network."""
        stored, n = self.patterns.shape
        return f"n={n}, stored={stored}, beta={self.beta:.4g}, steps={self.steps}"


def update(state: Tensor, patterns: Tensor, beta: float) -> Tensor:
    r"""Return $X^⊤ \operatorname{softmax}(β X ξ)$ for each state: (..., n), (M, n) → (..., n).

    >>> update(torch.zeros(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), beta=1.0).tolist()
    [0.5, 0.5]
    """
    _check_state(state, patterns)
    return torch.softmax(beta * (state @ patterns.mT), dim=-1) @ patterns


def energy(state: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """Return $E(ξ)$ of `Hopfield` for each state: (..., n), (M, n) → (...).

    >>> energy(torch.zeros(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), beta=1.0).item()
    0.5
    """
    _check_state(state, patterns)
    overlaps = beta * (state @ patterns.mT)  # (... M)
    radius = patterns.square().sum(-1).amax()
    return (math.log(len(patterns)) - overlaps.logsumexp(-1)) / beta + (state.square().sum(-1) + radius) / 2


def _check_state(state: Tensor, patterns: Tensor) -> None:
    n = patterns.shape[-1]
    if state.dim() == 0 or state.shape[-1] != n:
        raise ArchitectureError(
            f"the state has shape {tuple(state.shape)}, but patterns of {n} entries ask for (..., {n}); "
            "flatten images first: x.flatten(1)."
        )


def _checked_beta(beta: float) -> float:
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 < beta < math.inf:
        raise ArchitectureError(
            f"beta must be a positive finite number, got {beta!r}; a larger one retrieves a single pattern, a smaller "
            "one a mean of several."
        )
    return float(beta)


ENTRIES = (
    Architecture(
        name="hopfield",
        family="Hopfield",
        build=lambda: Hopfield(3, stored=5, beta=0.7, steps=2, dtype=torch.float64, generator=seeded(8)),
        sample=regression(3, 3),
        loss=mean_square,
        symmetry=None,
        source="ramsauer2021hopfield",
    ),
)
