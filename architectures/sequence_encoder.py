r"""A transformer that classifies sequences of vectors, such as one-dimensional signals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._entry import Architecture, cross_entropy, labels, normal, sampled, seeded
from ._pieces import Activation, ArchitectureError, Law, Maker, checked_size, resolve_law
from .transformer import Encoder, stirred


class SequenceEncoder(nn.Module):
    r"""Classify a sequence of vectors: to width $d$, an `Encoder`, the mean over positions, a linear read-out.

    $$f(x) = V \, \frac1t \sum_p \mathrm{Encoder}(U x + a)_p + c.$$

    Shapes: (b, t, `n_in`) → (b, classes); $t ≤$ `length` for learned positions. Parameters: `embed`, `encoder`, `readout`.
    Initialisation: `init` for every matrix (`"glorot"`: Var $W_{ij} = 2/(n + m)$, zero biases); positions
    $N(0, 0.02^2)$ if learned.

    Args:
        n_in: the size of one vector; 1 for a signal.
        length: the longest sequence.
        width: $d$.
        heads: a divisor of $d$.
        layers: of the encoder.
        classes: the size of the output.
        hidden: as in `Encoder`.
        norm: as in `Encoder`.
        activation: as in `MLP`.
        positions: as in `Encoder`; `"none"` makes $f$ invariant to permutations of the sequence.
        attention: as in `Encoder`.
        init: as in `Encoder`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's shape or length, is not what it must be.

    Cost: as `Encoder`. Left out: masks, dropout.
    Source: vaswani2017attention.

    >>> net = SequenceEncoder(1, length=40, width=8, heads=2, layers=1, classes=10)
    >>> tuple(net(torch.zeros(5, 40, 1)).shape)
    (5, 10)

    """

    def __init__(
        self,
        n_in: int,
        length: int,
        width: int,
        heads: int,
        layers: int,
        classes: int,
        hidden: int | None = None,
        norm: str = "pre",
        activation: str | Activation = "gelu",
        positions: str = "learned",
        attention: str = "softmax",
        init: str | Law = "glorot",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_in = checked_size("n_in", n_in)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        self.embed = make.linear(self.n_in, checked_size("width", width), law)
        self.encoder = Encoder(
            width,
            heads,
            layers,
            hidden,
            norm,
            activation,
            positions,
            length,
            attention,
            init=init,
            dtype=dtype,
            device=device,
            generator=generator,
        )
        self.readout = make.linear(width, checked_size("classes", classes), law)

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (b, t, `n_in`) → (b, classes)."""
        if x.dim() != 3 or x.shape[-1] != self.n_in:
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but n_in={self.n_in} asks for (batch, length, {self.n_in}); "
                "a batch of signals (batch, length) must be unsqueezed first: x.unsqueeze(-1)."
            )
        return self.readout(self.encoder(self.embed(x)).mean(1))


ENTRIES = (
    Architecture(
        name="sequence-encoder",
        family="SequenceEncoder",
        build=lambda: stirred(
            SequenceEncoder(2, 5, 4, 2, 1, classes=3, hidden=6, dtype=torch.float64, generator=seeded(55)),
            56,
            loud=("embed.weight", "embed.bias", "encoder.positions.table"),
        ),
        sample=sampled(lambda g: (3 * normal(g, 3, 5, 2), labels(g, 3, 3))),
        loss=cross_entropy,
        symmetry=None,
        source="vaswani2017attention",
    ),
)
