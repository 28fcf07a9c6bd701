r"""Where a token stands: sinusoidal and learned vectors to add, and rotations of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._pieces import ArchitectureError, Maker, checked_name, checked_size

#: The ways, by name, in which a transformer may tell positions apart.
POSITIONS = ("none", "sinusoidal", "learned", "rotary")

#: Wavelengths run from 2π to 2π · BASE [vaswani2017attention; su2024roformer].
BASE = 10_000.0


def angles(length: int, width: int, like: Tensor) -> Tensor:
    r"""Return $p \, 10000^{-2i/d}$ for positions $p <$ `length` and $i < ⌈d/2⌉$, on `like`'s device, in float64.

    >>> angles(3, 4, torch.zeros(1))[2].tolist() == [2.0, 2.0 / 100]
    True
    """
    i = torch.arange(0, width, 2, dtype=torch.float64, device=like.device)  # 2i
    p = torch.arange(length, dtype=torch.float64, device=like.device)
    return p[:, None] * BASE ** (-i / width)  # (t ⌈d/2⌉)


def sinusoidal(length: int, width: int, like: Tensor) -> Tensor:
    r"""Return the table (length, d) of $\sin(p\,10000^{-2i/d})$ at $2i$ and $\cos(p\,10000^{-2i/d})$ at $2i + 1$.

    In `like`'s dtype (rounded from float64) and on its device. Source: vaswani2017attention.

    >>> sinusoidal(2, 3, torch.zeros(1))[0].tolist()
    [0.0, 1.0, 0.0]
    """
    angle = angles(length, width, like)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width].to(like.dtype)  # (t d)


def rotate(x: Tensor) -> Tensor:
    r"""Turn the pair $(x_{2i}, x_{2i+1})$ of the vector at position $p$ by the angle $p\,10000^{-2i/d}$.

    $$R_p = \bigoplus_i \begin{pmatrix} \cos pθ_i & -\sin pθ_i \\ \sin pθ_i & \cos pθ_i \end{pmatrix}, \quad
    θ_i = 10000^{-2i/d}, \qquad ⟨R_p q, R_s k⟩ = ⟨q, R_{s-p} k⟩.$$

    Shapes: (..., t, d) → (..., t, d), $d$ even. Orthogonal, and the identity at $p = 0$.
    Raises: ArchitectureError if $d$ is odd. Cost: 3 d operations a position. Source: su2024roformer.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    >>> torch.allclose(rotate(x)[1], torch.tensor([1.0, 1.0], dtype=torch.float64).cos() * x[0]
    ...                + torch.tensor([0.0, 1.0], dtype=torch.float64).sin())
    True
    """
    if x.shape[-1] % 2:
        raise ArchitectureError(
            f"rotary positions turn pairs of coordinates, but a head has {x.shape[-1]}: make width/heads even."
        )
    angle = angles(x.shape[-2], x.shape[-1], x)
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)  # (t d/2)
    even, odd = x[..., 0::2], x[..., 1::2]  # (... t d/2)
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2)


class Positions(nn.Module):
    r"""Add to the vector at position $p$ what tells positions apart: nothing, a sinusoid or a learned vector.

    $$f(x)_p = x_p + e_p, \qquad e_p = 0 \text{ (none, rotary)}, \quad e_p = \mathrm{sinusoidal}(p), \quad
    e_p ∈ ℝ^d \text{ a parameter}.$$

    With `"rotary"` nothing is added: attention itself rotates its queries and keys.

    Shapes: (..., t, d) → (..., t, d); `table`: (length, d), only for `"learned"`.
    Initialisation: $N(0, 0.02^2)$ entries [radford2019language], or `variance`.

    Args:
        kind: `"none"`, `"sinusoidal"`, `"learned"` or `"rotary"`.
        length: the longest sequence, needed by `"learned"` only.
        width: $d$.
        make: the maker of parameters.
        variance: of the learned entries.

    Raises:
        ArchitectureError: an unknown kind, no length for learned positions, or a sequence longer than that.

    Cost: t d operations. Left out: relative biases, interpolation of a learned table to longer sequences.
    Source: vaswani2017attention; su2024roformer.

    >>> add = Positions("sinusoidal", None, 4, Maker(None, None, None))
    >>> add(torch.zeros(1, 2, 4))[0, 0].tolist()
    [0.0, 1.0, 0.0, 1.0]

    """

    def __init__(self, kind: str, length: int | None, width: int, make: Maker, variance: float = 0.02**2):
        super().__init__()
        self.kind = checked_name("positions", kind, POSITIONS)
        self.length = None if length is None else checked_size("length", length)
        if kind == "learned":
            if self.length is None:
                raise ArchitectureError("positions='learned' needs length=, the longest sequence it will be given.")
            self.table = make.normal((self.length, checked_size("width", width)), variance)

    def forward(self, x: Tensor) -> Tensor:
        """Return $x_p + e_p$: (..., t, d) → (..., t, d)."""
        t = x.shape[-2]
        if self.kind == "sinusoidal":
            return x + sinusoidal(t, x.shape[-1], x)
        if self.kind != "learned":
            return x
        if self.length is not None and t > self.length:
            raise ArchitectureError(
                f"the sequence has {t} positions, but only length={self.length} are learned; cut it, or take a larger "
                "length or positions='rotary' or 'sinusoidal', which know every position."
            )
        return x + self.table[:t]

    def extra_repr(self) -> str:
        """Name the kind in the printed network."""
        return f"{self.kind}, length={self.length}"
