r"""Normalisation of a vector by its own mean and variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._pieces import ArchitectureError, Maker, checked_size


class LayerNorm(nn.Module):
    r"""Layer normalisation.

    $$f(x) = g ⊙ \frac{x - μ}{\sqrt{σ^2 + ε}} + b, \qquad μ = \frac1d \sum_i x_i, \quad
    σ^2 = \frac1d \sum_i (x_i - μ)^2.$$

    Written out: PyTorch's fused form has a wrong second derivative in two of the four modes (reverse over forward,
    forward over forward).

    Shapes: (..., d) → (..., d); parameters `gain` and `bias`: (d,). Initialisation: $g = 1, b = 0$.

    Args:
        width: $d$, at least 2 to be of use: one coordinate is its own mean.
        eps: $ε$.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.

    Raises:
        ArchitectureError: a width below 1, or an input whose last dimension differs.

    Cost: about 8 operations a coordinate. Left out: normalisation over several dimensions.
    Source: ba2016layer.

    >>> y = LayerNorm(4, eps=0.0)(torch.tensor([1.0, 1.0, 3.0, 3.0]))
    >>> y.tolist()
    [-1.0, -1.0, 1.0, 1.0]

    """

    def __init__(
        self,
        width: int,
        eps: float = 1e-5,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.width, self.eps = checked_size("width", width), eps
        make = Maker(dtype, device, None)
        self.gain, self.bias = make.full((width,), 1.0), make.full((width,), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (..., d) → (..., d)."""
        if x.dim() == 0 or x.shape[-1] != self.width:
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but width={self.width} asks for (..., {self.width})."
            )
        x = x - x.mean(-1, keepdim=True)
        scale = (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()  # (... 1)
        return x * scale * self.gain + self.bias

    def extra_repr(self) -> str:
        """Name the width in the printed network."""
        return f"{self.width}, eps={self.eps}"
