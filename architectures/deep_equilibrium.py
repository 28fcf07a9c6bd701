r"""A deep equilibrium network: the fixed point of one layer, differentiated by the implicit function theorem."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ._entry import Architecture, mean_square, regression, seeded
from ._pieces import ArchitectureError, Law, Maker, checked_size, resolve_law


class DeepEquilibrium(nn.Module):
    r"""A network of one layer repeated until nothing changes, and a linear read-out of the fixed point.

    $$z^* = \tanh(W z^* + U x + b), \qquad y = C z^* + c, \qquad W = 2κ V (I + V^⊤V)^{-1}.$$

    **One fixed point.** A singular value $σ$ of $V$ becomes $2κσ/(1+σ^2) ≤ κ$ of $W$, and every matrix with
    $‖W‖_2 ≤ κ$ is reached. With $κ < 1$ and $|\tanh'| ≤ 1$ the layer contracts: $z^*$ exists, is unique, and
    $z_{k+1} = \tanh(W z_k + U x + b)$ from $z_0 = 0$ errs by at most $κ^k ‖z^*‖ ≤ κ^k \sqrt m$ (Banach).

    **Forward.** So the number of iterations that brings this below the machine precision, $k = ⌈\log(ε/\sqrt m)/\log κ⌉$,
    is known beforehand: no residual is read, nothing can fail to converge, and vmap runs it. Nothing is recorded.

    **Derivatives.** Let $g(z, θ) = z - \tanh(W z + U x + b)$ and $P = (∂g/∂z)^{-1}$ at the fixed point, held. Then $z ←
    z - P g(z, θ)$ keeps $z^*$, and its derivative in $z$ vanishes there: one step from the held $z^*$ has the
    derivative $-P \, ∂g/∂θ$ of the implicit function theorem, and $j$ steps have the exact derivatives up to order $j$,
    in every mode. `order` says how many are taken.

    Shapes: $x$: (..., n_in) → `equilibrium(x)`: (..., m) → $y$: (..., n_out). Parameters: `recurrent` $V$: (m, m),
    `drive.weight` $U$: (m, n_in), `drive.bias` $b$, `readout.weight` $C$: (n_out, m), `readout.bias` $c$.
    Initialisation: $V_{ij} ∼ N(0, 1/m)$, whose singular values fill [0, 2]; $U, b, C, c$ by the table of `MLP`.

    Args:
        n_in: the size of the input.
        width: $m$, the size of the state.
        n_out: the size of the output.
        contraction: $κ$, between 0 and 1.
        order: how many derivatives are exact; the state's derivatives above it are not.
        init: of $U, b, C, c$, as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's width, is not what it must be.

    Cost: an example takes $2 m^2 k$ operations (κ = 0.9, float32, m = 64: k = 172; float64: 362) and an inverse of
    $m × m$; memory for a gradient is $m^2$ an example, whatever $k$.
    Left out: Anderson and Broyden iterations, layers that need not contract, several scales.
    Source: bai2019deep.

    >>> net = DeepEquilibrium(2, width=4, n_out=1, dtype=torch.float64)
    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> z = net.equilibrium(x)
    >>> torch.allclose(z, torch.tanh(z @ net.matrix().T + net.drive(x)), rtol=0, atol=1e-14), tuple(net(x).shape)
    (True, (3, 1))

    """

    def __init__(
        self,
        n_in: int,
        width: int,
        n_out: int,
        contraction: float = 0.9,
        order: int = 2,
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_in, self.width = checked_size("n_in", n_in), checked_size("width", width)
        self.contraction, self.order = _checked_contraction(contraction), checked_size("order", order)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        self.recurrent = make.normal((width, width), variance=1 / width)
        self.drive = make.linear(n_in, width, law)
        self.readout = make.linear(width, checked_size("n_out", n_out), law)

    def matrix(self) -> Tensor:
        r"""Return $W$: (m, m), of spectral norm at most $κ$.

        >>> bool(torch.linalg.matrix_norm(DeepEquilibrium(2, 5, 1, contraction=0.5).matrix(), 2) <= 0.5 + 1e-6)
        True
        """
        gram = self.recurrent.mT @ self.recurrent
        eye = torch.eye(self.width, dtype=gram.dtype, device=gram.device)
        return 2 * self.contraction * self.recurrent @ torch.linalg.inv(eye + gram)

    def iterations(self, dtype: torch.dtype) -> int:
        r"""Return $k$, after which the error is below the precision of `dtype` by Banach's bound.

        >>> DeepEquilibrium(2, 64, 1).iterations(torch.float32)
        172
        """
        return math.ceil(math.log(torch.finfo(dtype).eps / math.sqrt(self.width)) / math.log(self.contraction))

    def equilibrium(self, x: Tensor) -> Tensor:
        """Return $z^*$: (..., n_in) → (..., m)."""
        if x.dim() == 0 or x.shape[-1] != self.n_in:
            raise ArchitectureError(
                f"the input has shape {tuple(x.shape)}, but n_in={self.n_in} asks for (..., {self.n_in}); "
                "flatten images first: x.flatten(1)."
            )
        matrix, drive = self.matrix(), self.drive(x)
        z, preconditioner = self._solve(matrix.detach(), drive.detach())
        for _ in range(self.order):
            residual = z - torch.tanh(z @ matrix.mT + drive)
            z = z - (preconditioner @ residual.unsqueeze(-1)).squeeze(-1)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Return $y$: (..., n_in) → (..., n_out)."""
        return self.readout(self.equilibrium(x))

    def extra_repr(self) -> str:
        """Name the contraction in the printed network."""
        return f"contraction={self.contraction:g}, order={self.order}"

    def _solve(self, matrix: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Return $z^*$ (... m) and $P = (I - diag(1 - z^{*2}) W)^{-1}$ (... m m), of tensors that carry no derivative."""
        z = torch.zeros_like(drive)
        for _ in range(self.iterations(drive.dtype)):
            z = torch.tanh(z @ matrix.mT + drive)
        eye = torch.eye(self.width, dtype=z.dtype, device=z.device)
        return z, torch.linalg.inv(eye - (1 - z.square()).unsqueeze(-1) * matrix)


def _checked_contraction(contraction: float) -> float:
    if isinstance(contraction, bool) or not isinstance(contraction, (int, float)) or not 0 < contraction < 1:
        raise ArchitectureError(
            f"contraction must lie strictly between 0 and 1, got {contraction!r}: at 1 the fixed point need not be "
            "unique, and iterations grow like 1/(1 − contraction); 0.9 is usual."
        )
    return float(contraction)


ENTRIES = (
    Architecture(
        name="deep-equilibrium",
        family="DeepEquilibrium",
        build=lambda: DeepEquilibrium(3, 4, 2, dtype=torch.float64, generator=seeded(9)),
        sample=regression(3, 2),
        loss=mean_square,
        symmetry=None,
        source="bai2019deep",
    ),
)
