r"""The gated recurrent unit, with the reset gate behind the recurrent product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._entry import Architecture, cross_entropy, labels, mean_square, normal, sampled, seeded, sequences
from ._pieces import Law, Maker, checked_size
from .recurrent import (
    Bidirectional,
    FlatReadout,
    SequenceNet,
    checked_bias_init,
    checked_sequence,
    chrono,
    readout,
    recurrent_bias,
    recurrent_weight,
)

BIAS_INITS = ("default", "chrono")


class GRU(SequenceNet):
    r"""A gated recurrent unit: the state moves from its old value towards a candidate; a read-out at every time.

    $$r_t = σ(W_r x_t + b_r + U_r h_{t-1}), \qquad z_t = σ(W_z x_t + b_z + U_z h_{t-1}),$$
    $$n_t = \tanh(W_n x_t + b_n + r_t ⊙ (U_n h_{t-1} + b_{hn})),$$
    $$h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}, \qquad h_0 = 0, \qquad y_t = V h_t + v, \qquad t = 1, …, T.$$

    Causal: $y_t$ depends on $x_1, …, x_t$ alone. The paper resets before the product, $U_n (r_t ⊙ h_{t-1})$, has no
    biases in it, and $z_t$ means the same; this is the form of cuDNN and torch, whose products need not wait for the gate.

    Shapes: $x$: (b, T, d) → `states(x)`: $h$, (b, T, n) → $y$: (b, T, m), with $d, n, m$ = `n_in`, `n_hidden`, `n_out`;
    $W$: (3n, d), $U$: (3n, n), $b$: (3n,), $b_{hn}$: (n,), named `W`, `U`, `b`, `b_hn`, the rows in the order r, z, n;
    $V$: (m, n), $v$: (m,), named `readout.weight`, `readout.bias`. As torch.nn.GRU's `weight_ih_l0` and `weight_hh_l0`;
    of its two biases those of r and z only occur as sums, so one is kept: `b` is `bias_ih_l0` + `bias_hh_l0` in the
    rows of r and z, and `bias_ih_l0` in those of n; `b_hn` is `bias_hh_l0` in those of n.

    Initialisation: `init` as in `RNN`, each gate by itself, with $b_{hn}$ like $b$; then the biases of the gates:

    =========== ========================================= ============================ =====================
    `bias_init` $b_z$                                     $b_r$, $b_n$, $b_{hn}$       source
    =========== ========================================= ============================ =====================
    `"default"` as `init` says                            as `init` says               torch.nn.GRU
    `"chrono"`  log u, u uniform on [1, $T_{max}$ − 1]    0                            after [tallec2018can]
    =========== ========================================= ============================ =====================

    With `"chrono"` a unit forgets by $1 - σ(b_z) = 1/(u + 1)$ a step: its memory lasts between 2 and $T_{max}$ steps.

    Args:
        n_in: $d$, the width of the input.
        n_hidden: $n$, the width of the state.
        n_out: $m$, the width of the output; None leaves the read-out away, and $y$ is `states(x)`.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"` or a `Law`.
        bias_init: `"default"` or `"chrono"`.
        t_max: $T_{max}$, the longest time to remember, at least 2; for `"chrono"` alone, which needs it.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: $2 T n (3 d + 3 n + m)$ operations an example, $T$ steps one after the other; memory $6 T n$ for a gradient.
    Left out: the paper's own reset, several layers (`nn.Sequential(GRU(d, n), GRU(n, n, m))`), an initial state,
    dropout, packed lengths.
    Source: cho2014learning.

    >>> net = GRU(1, 1)                                             # z = 1/2, n = tanh(1): half way at each step
    >>> _ = net.load_state_dict({"W": torch.zeros(3, 1), "U": torch.zeros(3, 1), "b": torch.tensor([0.0, 0, 1]),
    ...                          "b_hn": torch.zeros(1)})
    >>> [round(v, 5) for v in (net(torch.zeros(1, 3, 1)) / torch.tensor(1.0).tanh()).flatten().tolist()]
    [0.5, 0.75, 0.875]

    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_out: int | None = None,
        init: str | Law = "default",
        bias_init: str = "default",
        t_max: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_in, self.n_hidden = checked_size("n_in", n_in), checked_size("n_hidden", n_hidden)
        checked_bias_init(bias_init, t_max, BIAS_INITS)
        make = Maker(dtype, device, generator)
        self.W = recurrent_weight(make, init, 3, n_hidden, n_in)
        self.U = recurrent_weight(make, init, 3, n_hidden, n_hidden)
        self.b = recurrent_bias(make, init, 3, n_hidden)
        self.b_hn = recurrent_bias(make, init, 1, n_hidden)
        if t_max is not None:
            bias = torch.zeros(3, n_hidden, dtype=torch.float64, device="cpu")  # r, z, n
            bias[1] = chrono(n_hidden, t_max, generator)
            self.b, self.b_hn = make.parameter(bias.flatten()), make.full((n_hidden,), 0.0)
        self.readout = readout(make, init, n_hidden, n_out)

    def states(self, x: Tensor) -> Tensor:
        """Return $h_1, …, h_T$: (b, T, d) → (b, T, n).

        >>> tuple(GRU(2, 4, 1).states(torch.zeros(3, 5, 2)).shape)
        (3, 5, 4)
        """
        checked_sequence(x, self.n_in)
        n, past = self.n_hidden, []
        h = x.new_zeros(len(x), n)  # (b n)
        to_gates, to_candidate = self.U[: 2 * n].T, self.U[2 * n :].T  # (n 2n), (n n)
        for a in F.linear(x, self.W, self.b).unbind(1):  # W x_t + b: (b 3n), of all times in one product
            r, z = torch.addmm(a[:, : 2 * n], h, to_gates).sigmoid().chunk(2, dim=-1)
            candidate = (a[:, 2 * n :] + r * torch.addmm(self.b_hn, h, to_candidate)).tanh()
            h = candidate + z * (h - candidate)
            past.append(h)
        return torch.stack(past, dim=1)


def _classifier() -> FlatReadout:
    g = seeded(23)
    both = Bidirectional(GRU(1, 2, dtype=torch.float64, generator=g), GRU(1, 2, dtype=torch.float64, generator=g))
    return FlatReadout(both, length=4, n_out=3, dtype=torch.float64, generator=g)


ENTRIES = (
    Architecture(
        name="gru",
        family="GRU",
        build=lambda: GRU(2, 3, 2, dtype=torch.float64, generator=seeded(22)),
        sample=sequences(4, 2, 2),
        loss=mean_square,
        symmetry=None,
        source="cho2014learning",
    ),
    Architecture(
        name="gru-bidirectional",
        family="FlatReadout",
        build=_classifier,
        sample=sampled(lambda g: (normal(g, 3, 4, 1), labels(g, 3, 3))),
        loss=cross_entropy,
        symmetry=None,
        source="greydanus2024scaling",
    ),
)
