r"""A score model at many noise levels, trained by denoising score matching."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._entry import Architecture, normal, sampled, seeded
from ._pieces import Activation, ArchitectureError, Law, checked_size, checked_sizes
from .mlp import MLP


class ScoreModel(nn.Module):
    r"""A model of the score $∇_{\tilde x} \log p_σ(\tilde x)$ of data seen through Gaussian noise of size $σ$.

    $$s_θ(\tilde x, σ) = \frac1σ \mathrm{MLP}\Big(\frac{\tilde x}{\sqrt{1 + σ^2}}, \, \log σ\Big), \qquad
    p_σ = p ∗ N(0, σ^2 I).$$

    The division keeps the network's inputs and outputs of order one for data of variance one at every $σ$: noisy data has
    variance $1 + σ^2$, and the best output is $-E[ε|\tilde x]$, where $\tilde x = x + σ ε$. For data $N(0, Σ)$ the score
    is $-(Σ + σ^2 I)^{-1} \tilde x$; no model of any size has a smaller mean
    `denoising_score_matching` loss.

    Shapes: $\tilde x$: (..., d), $σ$: (...) positive → (..., d). Parameters are those of `net`,
    `MLP([d + 1, *hidden, d])`: `net.layers.0.weight`, …. Initialisation: the table of `MLP`.

    Args:
        inputs: $d$.
        hidden: the widths between.
        activation: as in `MLP`.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the shape of $\tilde x$ or $σ$, is not what it must be.

    Cost: that of the MLP.
    Left out: annealed Langevin sampling, convolutions; no symmetry of $∇ s_θ$ is imposed: $s_θ$ need not be a gradient.
    Source: song2019generative; vincent2011connection for the loss.

    >>> model = ScoreModel(2, [8], dtype=torch.float64, generator=seeded(0))
    >>> x, sigma, eps = normal(seeded(1), 5, 2), torch.full((5,), 0.5, dtype=torch.float64), normal(seeded(2), 5, 2)
    >>> inputs, target = perturbed(x, sigma, eps)
    >>> tuple(model(*inputs).shape), denoising_score_matching(model(*inputs), target).shape
    ((5, 2), torch.Size([]))

    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.inputs = checked_size("inputs", inputs)
        widths = [inputs + 1, *checked_sizes("hidden", hidden, 0), inputs]
        self.net = MLP(widths, activation, init, True, dtype, device, generator)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Return $s_θ(\tilde x, σ)$: (..., d), (...) → (..., d)."""
        if x.dim() == 0 or x.shape[-1] != self.inputs:
            raise ArchitectureError(
                f"x has shape {tuple(x.shape)}, but inputs={self.inputs} asks for (..., {self.inputs})."
            )
        _check_levels(x, sigma)
        level = sigma.unsqueeze(-1)  # (... 1)
        seen = torch.cat([x / (1 + level.square()).sqrt(), level.log()], dim=-1)  # (... d+1)
        return self.net(seen) / level


def perturbed(x: Tensor, sigma: Tensor, eps: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    r"""Return the inputs $(\tilde x, σ)$ with $\tilde x = x + σ ε$ and the target $(ε, σ)$ of denoising score matching.

    Shapes: $x$, $ε$: (..., d); $σ$: (...). The noise is an input: draw $ε ∼ N(0, I)$, and $σ$ from your own levels.

    >>> (noisy, _), _ = perturbed(torch.ones(1, 2), torch.tensor([2.0]), torch.tensor([[0.0, 1.0]]))
    >>> noisy.tolist()
    [[1.0, 3.0]]
    """
    _check_levels(x, sigma)
    if eps.shape != x.shape:
        raise ArchitectureError(
            f"eps has shape {tuple(eps.shape)}, expected that of x, {tuple(x.shape)}: pass torch.randn_like(x)."
        )
    return (x + sigma.unsqueeze(-1) * eps, sigma), (eps, sigma)


def denoising_score_matching(output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    r"""Return the mean over examples of $½ \|σ s_θ(x + σ ε, σ) + ε\|^2$.

    This is the loss of the source with weight $λ(σ) = σ^2$. Its mean over $ε$ and $x$ is that of
    $½ σ^2 \|s_θ - ∇ \log p_σ\|^2$ plus a number that does not depend on $θ$ [vincent2011connection].

    >>> denoising_score_matching(torch.zeros(1, 2), (torch.tensor([[3.0, 4.0]]), torch.ones(1))).item()
    12.5
    """
    eps, sigma = target
    _check_levels(output, sigma)
    if eps.shape != output.shape:
        raise ArchitectureError(
            f"the model's output has shape {tuple(output.shape)} and the target's eps {tuple(eps.shape)}: they must be "
            "equal; make both with perturbed(x, sigma, eps)."
        )
    return 0.5 * (sigma.unsqueeze(-1) * output + eps).square().sum(-1).mean()


def _check_levels(x: Tensor, sigma: Tensor) -> None:
    if not isinstance(sigma, Tensor):
        raise ArchitectureError(
            f"sigma is {sigma!r}, but must be a tensor, one noise level for each example: x.new_full(x.shape[:-1], level)."
        )
    if sigma.shape != x.shape[:-1]:
        raise ArchitectureError(
            f"sigma has shape {tuple(sigma.shape)}, expected {tuple(x.shape[:-1])}: one noise level for each example of x "
            f"{tuple(x.shape)}; sigma.expand(x.shape[:-1]) repeats one for all."
        )


def _noisy(g: torch.Generator) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return perturbed(normal(g, 4, 2), (0.5 * normal(g, 4)).exp(), normal(g, 4, 2))


ENTRIES = (
    Architecture(
        name="score",
        family="ScoreModel",
        build=lambda: ScoreModel(2, [5], dtype=torch.float64, generator=seeded(44)),
        sample=sampled(_noisy),
        loss=denoising_score_matching,
        symmetry=None,
        source="song2019generative",
    ),
)
