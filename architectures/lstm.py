r"""The long short-term memory with forget gates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._entry import Architecture, mean_square, seeded, sequences
from ._pieces import Law, Maker, checked_size
from .recurrent import (
    SequenceNet,
    checked_bias_init,
    checked_sequence,
    chrono,
    readout,
    recurrent_bias,
    recurrent_weight,
)

BIAS_INITS = ("default", "forget", "chrono")


class LSTM(SequenceNet):
    r"""Long short-term memory: gates decide what a cell $c_t$ takes in, keeps and shows; a read-out at every time.

    $$(i, f, g, o) = W x_t + U h_{t-1} + b,$$
    $$c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ \tanh(g), \qquad h_t = σ(o) ⊙ \tanh(c_t), \qquad h_0 = c_0 = 0,$$
    $$y_t = V h_t + v, \qquad t = 1, …, T.$$

    Causal: $y_t$ depends on $x_1, …, x_t$ alone.

    Shapes: $x$: (b, T, d) → `states(x)`: $h$, (b, T, n) → $y$: (b, T, m), with $d, n, m$ = `n_in`, `n_hidden`, `n_out`;
    $W$: (4n, d), $U$: (4n, n), $b$: (4n,), named `W`, `U`, `b`, their rows in the order i, f, g, o; $V$: (m, n), $v$:
    (m,), named `readout.weight`, `readout.bias`. As torch.nn.LSTM's `weight_ih_l0`, `weight_hh_l0` and `bias_ih_l0` +
    `bias_hh_l0`: its two biases only occur as a sum, so one is kept.

    Initialisation: `init` as in `RNN`, each gate by itself; then the biases of the gates:

    =========== ========================================= ==================== ==========================
    `bias_init` $b_f$                                     $b_i$, $b_g$, $b_o$  source
    =========== ========================================= ==================== ==========================
    `"default"` as `init` says                            as `init` says       torch.nn.LSTM
    `"forget"`  1                                         0                    [gers2000learning]
    `"chrono"`  log u, u uniform on [1, $T_{max}$ − 1]    $b_i = -b_f$, 0, 0   [tallec2018can]
    =========== ========================================= ==================== ==========================

    With `"chrono"` a cell forgets by $1 - σ(b_f) = 1/(u + 1)$ a step: its memory lasts between 2 and $T_{max}$ steps.

    Args:
        n_in: $d$, the width of the input.
        n_hidden: $n$, the width of the state and of the cell.
        n_out: $m$, the width of the output; None leaves the read-out away, and $y$ is `states(x)`.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"` or a `Law`.
        bias_init: `"default"`, `"forget"` or `"chrono"`.
        t_max: $T_{max}$, the longest time to remember, at least 2; for `"chrono"` alone, which needs it.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: $2 T n (4 d + 4 n + m)$ operations an example, $T$ steps one after the other; memory $7 T n$ for a gradient.
    Left out: peepholes (gates that see the cell), projections, several layers (`nn.Sequential(LSTM(d, n),
    LSTM(n, n, m))`), an initial state, dropout, packed lengths.
    Source: hochreiter1997long; gers2000learning for the forget gate.

    >>> net = LSTM(1, 1)                                       # i and o open, f half open, tanh(g) = 1
    >>> _ = net.load_state_dict({"W": torch.zeros(4, 1), "U": torch.zeros(4, 1), "b": torch.tensor([50.0, 0, 50, 50])})
    >>> [round(c, 5) for c in net(torch.zeros(1, 3, 1)).atanh().flatten().tolist()]   # c_t = c_{t−1}/2 + 1
    [1.0, 1.5, 1.75]

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
        self.W = recurrent_weight(make, init, 4, n_hidden, n_in)
        self.U = recurrent_weight(make, init, 4, n_hidden, n_hidden)
        self.b = recurrent_bias(make, init, 4, n_hidden)
        if bias_init != "default":
            self.b = make.parameter(_gate_bias(n_hidden, t_max, generator))
        self.readout = readout(make, init, n_hidden, n_out)

    def states(self, x: Tensor) -> Tensor:
        """Return $h_1, …, h_T$: (b, T, d) → (b, T, n).

        >>> tuple(LSTM(2, 4, 1).states(torch.zeros(3, 5, 2)).shape)
        (3, 5, 4)
        """
        checked_sequence(x, self.n_in)
        h = c = x.new_zeros(len(x), self.n_hidden)  # (b n)
        transposed, past = self.U.T, []
        for a in F.linear(x, self.W, self.b).unbind(1):  # W x_t + b: (b 4n), of all times in one product
            i, f, g, o = torch.addmm(a, h, transposed).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            past.append(h)
        return torch.stack(past, dim=1)


def _gate_bias(n_hidden: int, t_max: int | None, generator: torch.Generator | None) -> Tensor:
    """Return $b$: (4n,) of `"forget"` (without `t_max`) or `"chrono"`."""
    bias = torch.zeros(4, n_hidden, dtype=torch.float64, device="cpu")  # i, f, g, o
    if t_max is None:
        bias[1] = 1
    else:
        bias[1] = chrono(n_hidden, t_max, generator)
        bias[0] = -bias[1]
    return bias.flatten()


ENTRIES = (
    Architecture(
        name="lstm",
        family="LSTM",
        build=lambda: LSTM(2, 3, 2, dtype=torch.float64, generator=seeded(21)),
        sample=sequences(4, 2, 2),
        loss=mean_square,
        symmetry=None,
        source="hochreiter1997long",
    ),
)
