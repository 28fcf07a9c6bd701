r"""Diagonal linear state-space models, S4D: a recurrence in time that is also a convolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ._entry import Architecture, mean_square, seeded, sequences
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_generator,
    checked_name,
    checked_size,
    resolve_activation,
    resolve_law,
)
from .recurrent import SequenceNet, checked_sequence, readout

MODES = ("lin", "inv")


class DiagonalSSM(nn.Module):
    r"""One linear state-space model per feature, with a diagonal state matrix, discretised by zero-order hold.

    $$x'(t) = A x(t) + u(t) \mathbf 1, \qquad y(t) = 2 \, \mathrm{Re} \, C x(t) + D u(t), \qquad A_n = -α_n + i ω_n,$$

    for $N$ complex modes, each standing for itself and its conjugate. An input that is held at $u_k$ for $kΔ ≤ t <
    (k+1)Δ$ gives, at the end of each step and so exactly,

    $$x_k = \bar A x_{k-1} + \bar B u_k, \quad x_{-1} = 0, \quad y_k = 2 \, \mathrm{Re} \, C x_k + D u_k, \qquad
    \bar A = e^{ΔA}, \quad \bar B = A^{-1} (\bar A - 1),$$

    which is the causal convolution $y = K ⋆ u + D u$ with $K_l = 2 \, \mathrm{Re} \sum_n C_n \bar A_n^l \bar B_n$.
    `forward` computes the convolution, by fast Fourier transforms of twice the length; `recurrence` the same step by
    step. The paper's $B$ is 1 here: only the products $B_n C_n$ matter.

    Shapes: $u$: (b, T, H) → $y$: (b, T, H) with $H$ = `features`; `log_step`, $\log Δ$: (H,); `log_decay`, $\log α$,
    `frequency`, $ω$, `C_re` and `C_im`: (H, N) with $N$ = `n_state`; `D`: (H,). All are real; $α > 0$ makes it stable.

    Initialisation: $\log Δ$ uniform between the logarithms of `step`; $C$ complex normal with $E|C|^2 = 1$, so that
    Var `C_re` = Var `C_im` = 1/2; $D ∼ N(0, 1)$; $α = 1/2$, and $ω_n$ for $n = 0, …, N-1$ by `modes`:
    `"lin"` $πn$ (S4D-Lin), `"inv"` $\frac{2N}{π} (\frac{2N}{2n+1} - 1)$ (S4D-Inv).

    Args:
        features: $H$, the number of models, each with one input and one output.
        n_state: $N$, the number of complex modes of each: the real state has $2N$ dimensions.
        modes: `"lin"` or `"inv"`.
        step: the least and the largest initial $Δ$: the times that the kernels last are about $2/Δ$ steps.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: `convolution` is $O(H T (N + b \log T))$ operations for $b$ examples and memory $O(H T (N + b))$;
    `recurrence` $O(b H N T)$, $T$ steps one after the other.
    Left out: a trained $B$, bilinear discretisation, S4D-LegS, the low-rank correction of S4.
    Source: gu2022s4d.

    >>> ssm = DiagonalSSM(1, 1, dtype=torch.float64)                 # x' = −x + u, y = x: a step tends to 1 − e^(−t)
    >>> values = {"log_step": [0.0], "log_decay": [[0.0]], "frequency": [[0.0]], "C_re": [[0.5]], "C_im": [[0.0]],
    ...           "D": [0.0]}
    >>> _ = ssm.load_state_dict({name: torch.tensor(value).double() for name, value in values.items()})
    >>> [round(v, 6) for v in ssm(torch.ones(1, 3, 1).double()).flatten().tolist()]
    [0.632121, 0.864665, 0.950213]
    >>> [round(1 - math.exp(-t), 6) for t in (1, 2, 3)]
    [0.632121, 0.864665, 0.950213]

    """

    def __init__(
        self,
        features: int,
        n_state: int = 32,
        modes: str = "lin",
        step: tuple[float, float] = (1e-3, 1e-1),
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.features, self.n_state = checked_size("features", features), checked_size("n_state", n_state)
        low, high = (math.log(end) for end in _checked_step(step))
        omega = _frequencies(checked_name("modes", modes, MODES), n_state)
        make = Maker(dtype, device, generator)
        size = (features, n_state)
        unit = torch.rand(features, dtype=torch.float64, device="cpu", generator=checked_generator(generator))
        self.log_step = make.parameter(low + (high - low) * unit)
        self.log_decay = make.full(size, math.log(0.5))
        self.frequency = make.parameter(omega.repeat(features, 1))
        self.C_re, self.C_im = make.normal(size, 0.5), make.normal(size, 0.5)
        self.D = make.normal((features,), 1.0)

    def discretised(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Return the real and imaginary parts of $ΔA$ and of $C \bar B$, each (H, N).

        $\bar A - 1$ is $e^{-a} \cos θ - 1 = \mathrm{expm1}(-a) \cos θ - 2 \sin^2(θ/2)$ and $e^{-a} \sin θ$: no digits
        cancel, however small $Δ$ is.

        >>> [tuple(part.shape) for part in DiagonalSSM(3, 2).discretised()]
        [(3, 2), (3, 2), (3, 2), (3, 2)]
        """
        step, alpha = self.log_step.exp().unsqueeze(-1), self.log_decay.exp()  # (H 1), (H N)
        decay, theta = -step * alpha, step * self.frequency
        p = torch.expm1(decay) * theta.cos() - 2 * (theta / 2).sin() ** 2  # Re, Im of Ā − 1
        q = decay.exp() * theta.sin()
        square = alpha**2 + self.frequency**2  # 1/A = (−α − iω)/|A|²
        b_re, b_im = (self.frequency * q - alpha * p) / square, -(alpha * q + self.frequency * p) / square
        return decay, theta, self.C_re * b_re - self.C_im * b_im, self.C_re * b_im + self.C_im * b_re

    def kernel(self, length: int) -> Tensor:
        r"""Return $K_0, …, K_{T-1}$: (H, T).

        >>> tuple(DiagonalSSM(3, 2).kernel(5).shape)
        (3, 5)
        """
        decay, theta, g_re, g_im = (part.unsqueeze(-1) for part in self.discretised())  # (H N 1)
        times = torch.arange(length, dtype=decay.dtype, device=decay.device)
        wave = g_re * (theta * times).cos() - g_im * (theta * times).sin()  # Re C B̄ e^(iθl): (H N T)
        return 2 * ((decay * times).exp() * wave).sum(1)

    def convolution(self, u: Tensor) -> Tensor:
        r"""Return $y = K ⋆ u + D u$: (b, T, H) → (b, T, H).

        >>> tuple(DiagonalSSM(3, 2).convolution(torch.zeros(4, 5, 3)).shape)
        (4, 5, 3)
        """
        checked_sequence(u, self.features)
        length = u.shape[1]
        spectrum = torch.fft.rfft(self.kernel(length), n=2 * length).T  # (T+1 H)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * length, dim=1) * spectrum, n=2 * length, dim=1)
        return y[:, :length] + self.D * u

    def recurrence(self, u: Tensor) -> Tensor:
        r"""Return the same $y$ step by step: (b, T, H) → (b, T, H).

        >>> ssm, u = DiagonalSSM(3, 2, dtype=torch.float64), torch.ones(4, 5, 3, dtype=torch.float64)
        >>> torch.allclose(ssm.recurrence(u), ssm.convolution(u), rtol=0, atol=1e-12)
        True
        """
        checked_sequence(u, self.features)
        decay, theta, g_re, g_im = self.discretised()  # (H N)
        a_re, a_im = decay.exp() * theta.cos(), decay.exp() * theta.sin()
        re = im = u.new_zeros(len(u), self.features, self.n_state)  # the state times C: (b H N)
        past = []
        for u_k in u.unbind(1):
            re, im = a_re * re - a_im * im + g_re * u_k[..., None], a_re * im + a_im * re + g_im * u_k[..., None]
            past.append(2 * re.sum(-1))
        return torch.stack(past, dim=1) + self.D * u

    def forward(self, u: Tensor) -> Tensor:
        """Return $y$, by `convolution`: (b, T, H) → (b, T, H)."""
        return self.convolution(u)


class S4D(SequenceNet):
    r"""A diagonal state-space model per feature between linear maps, and an entrywise activation $φ$.

    $$u_t = E x_t + e, \qquad s_t = φ(y_t), \quad y^{(j)} = K^{(j)} ⋆ u^{(j)} + D_j u^{(j)} \ \ (j = 1, …, n), \qquad
    f(x)_t = V s_t + v,$$

    with the kernels $K^{(j)}$ of `DiagonalSSM`. Linear in time, nonlinear only across it: $f(x)_t$ depends on
    $x_1, …, x_t$ alone, through linear recurrences.

    Shapes: $x$: (b, T, d) → `states(x)`: $s$, (b, T, n) → $f(x)$: (b, T, m), with $d, n, m$ = `n_in`, `n_hidden`,
    `n_out`; $E$: (n, d), $e$: (n,), $V$: (m, n), $v$: (m,), named `encoder.weight`, `encoder.bias`, `readout.weight`,
    `readout.bias`; the parameters of `ssm` are those of `DiagonalSSM(n, n_state)`.
    Initialisation: $E$, $e$, $V$, $v$ by the table of `MLP`, the rest as in `DiagonalSSM`.

    Args:
        n_in: $d$, the width of the input.
        n_hidden: $n$, the number of features.
        n_out: $m$, the width of the output; None leaves the read-out away, and $f(x)$ is `states(x)`.
        n_state: $N$, the number of complex modes of each feature.
        modes: `"lin"` or `"inv"`, the initial frequencies.
        step: the least and the largest initial $Δ$.
        activation: $φ$, as in `MLP`.
        init: of $E$, $e$, $V$, $v$: a name of `MLP`'s table or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of `DiagonalSSM.convolution` and $2 T n (d + m)$ operations an example.
    Left out: the map that mixes features after the activation (it and the next layer's $E$, or $V$, are one: layers
    are stacked by `nn.Sequential(S4D(d, n), S4D(n, n, m))`), gates, skip connections, normalisation, dropout.
    Source: gu2022s4d.

    >>> net = S4D(2, 4, 1, n_state=3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(5, 9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> tuple(net(x).shape)
    (5, 9, 1)
    >>> torch.allclose(net(x[:, :6]), net(x)[:, :6], rtol=0, atol=1e-13)                                  # causal
    True

    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_out: int | None = None,
        n_state: int = 32,
        modes: str = "lin",
        step: tuple[float, float] = (1e-3, 1e-1),
        activation: str | Activation = "gelu",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_in, self.n_hidden = checked_size("n_in", n_in), checked_size("n_hidden", n_hidden)
        self.activation = resolve_activation(activation)
        make = Maker(dtype, device, generator)
        self.encoder = make.linear(n_in, n_hidden, resolve_law(init))
        self.ssm = DiagonalSSM(n_hidden, n_state, modes, step, dtype, device, generator)
        self.readout = readout(make, init, n_hidden, n_out)

    def states(self, x: Tensor) -> Tensor:
        """Return $s_1, …, s_T$: (b, T, d) → (b, T, n).

        >>> tuple(S4D(2, 4, 1).states(torch.zeros(3, 5, 2)).shape)
        (3, 5, 4)
        """
        checked_sequence(x, self.n_in)
        return self.activation(self.ssm(self.encoder(x)))


def _checked_step(step: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in step)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0 < low <= high < math.inf:
        raise ArchitectureError(
            f"step={step!r} must be two positive numbers, the least and the largest initial Δ, as step=(0.001, 0.1)."
        )
    return low, high


def _frequencies(modes: str, n_state: int) -> Tensor:
    n = torch.arange(n_state, dtype=torch.float64, device="cpu")
    if modes == "lin":
        return math.pi * n
    return 2 * n_state / math.pi * (2 * n_state / (2 * n + 1) - 1)


ENTRIES = (
    Architecture(
        name="s4d",
        family="S4D",
        build=lambda: S4D(2, 3, 2, n_state=2, modes="inv", step=(0.1, 1.0), dtype=torch.float64, generator=seeded(24)),
        sample=sequences(5, 2, 2),
        loss=mean_square,
        symmetry=None,
        source="gu2022s4d",
    ),
)
