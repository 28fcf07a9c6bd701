r"""Elman's recurrent network, the bidirectional one, and a flat read-out of all times; pieces that `lstm` and `gru` share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._entry import Architecture, mean_square, seeded, sequences
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_size,
    draw,
    resolve_activation,
    resolve_law,
)


class SequenceNet(nn.Module):
    """A network with a state at every time of a sequence: what `RNN`, `LSTM`, `GRU`, `S4D` and `Bidirectional` are.

    All but the last are built by `(n_in, n_hidden, n_out, …)`, so that one can stand for another. A class of your own
    sets the attributes below and defines `states`; `Bidirectional` and `FlatReadout` then take it too.

    Attributes:
        n_in: the width $d$ of the input.
        n_hidden: the width $n$ of the states.
        readout: a map of the last axis of the states; the identity if there is no read-out.

    >>> class Differences(SequenceNet):
    ...     n_in, n_hidden = 1, 1
    ...     def states(self, x):
    ...         return x.diff(dim=1, prepend=torch.zeros_like(x[:, :1]))
    >>> FlatReadout(Differences(), length=3, n_out=2).readout
    Linear(in_features=3, out_features=2, bias=True)

    """

    n_in: int
    n_hidden: int

    def __init__(self) -> None:
        super().__init__()
        self.readout: nn.Module = nn.Identity()

    def states(self, x: Tensor) -> Tensor:
        """Return the states: (b, T, d) → (b, T, n)."""
        raise NotImplementedError(f"{type(self).__name__} must define states: (batch, time, n_in) → (…, n_hidden).")

    def forward(self, x: Tensor) -> Tensor:
        """Return the read-out at every time: (b, T, d) → (b, T, m)."""
        return self.readout(self.states(x))


class RNN(SequenceNet):
    r"""Elman's network: a state $h_t$ that sees the input and the state before, and a linear read-out at every time.

    $$h_t = φ(W x_t + U h_{t-1} + b), \quad h_0 = 0, \qquad f(x)_t = V h_t + v, \qquad t = 1, …, T.$$

    Causal: $f(x)_t$ depends on $x_1, …, x_t$ alone.

    Shapes: $x$: (b, T, d) → `states(x)`: (b, T, n) → $f(x)$: (b, T, m), with $d, n, m$ = `n_in`, `n_hidden`, `n_out`;
    $W$: (n, d), $U$: (n, n), $b$: (n,), named `W`, `U`, `b`; $V$: (m, n), $v$: (m,), named `readout.weight`,
    `readout.bias`. As torch.nn.RNN's `weight_ih_l0`, `weight_hh_l0` and `bias_ih_l0` + `bias_hh_l0`: its two biases
    only occur as a sum, so one is kept.

    Initialisation, independent entries of mean zero:

    =============== ================================ ================================= ====================
    `init`          $W$, $U$                         $b$                               $V$, $v$
    =============== ================================ ================================= ====================
    `"default"`     Var 1/(3n), uniform on ±1/√n     Var 1/(3n), uniform on ±1/√n      `"default"` of `MLP`
    any of `MLP`    the table of `MLP`, the fan-in   0                                 as `MLP`
                    of $W$ being $d$, of $U$ $n$
    a `Law`         as above                         `bias_variance(n, n)`             its own
    =============== ================================ ================================= ====================

    `"default"` is torch.nn.RNN's, but for its second bias, which makes Var $b$ = 2/(3n) there.

    Args:
        n_in: $d$, the width of the input.
        n_hidden: $n$, the width of the state.
        n_out: $m$, the width of the output; None leaves the read-out away, and $f(x)$ is `states(x)`.
        activation: $φ$, as in `MLP`.
        init: `"default"`, `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"` or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: $2 T n (d + n + m)$ operations an example, $T$ steps one after the other; memory $T n$ for a gradient.
    Left out: several layers (`nn.Sequential(RNN(d, n), RNN(n, n, m))`), an initial state, dropout, packed lengths.
    Source: elman1990finding.

    >>> net = RNN(1, 1, 1, activation=lambda z: z)                      # h_t = x_t + h_{t−1}: the running sum
    >>> _ = net.load_state_dict({"W": torch.ones(1, 1), "U": torch.ones(1, 1), "b": torch.zeros(1),
    ...                          "readout.weight": torch.full((1, 1), 2.0), "readout.bias": torch.ones(1)})
    >>> net(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten().tolist()
    [3.0, 7.0, 13.0]

    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_out: int | None = None,
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_in, self.n_hidden = checked_size("n_in", n_in), checked_size("n_hidden", n_hidden)
        self.activation = resolve_activation(activation)
        make = Maker(dtype, device, generator)
        self.W = recurrent_weight(make, init, 1, n_hidden, n_in)
        self.U = recurrent_weight(make, init, 1, n_hidden, n_hidden)
        self.b = recurrent_bias(make, init, 1, n_hidden)
        self.readout = readout(make, init, n_hidden, n_out)

    def states(self, x: Tensor) -> Tensor:
        """Return $h_1, …, h_T$: (b, T, d) → (b, T, n).

        >>> tuple(RNN(2, 4, 1).states(torch.zeros(3, 5, 2)).shape)
        (3, 5, 4)
        """
        checked_sequence(x, self.n_in)
        h, transposed, past = x.new_zeros(len(x), self.n_hidden), self.U.T, []
        for a in F.linear(x, self.W, self.b).unbind(1):  # W x_t + b: (b n), of all times in one product
            h = self.activation(torch.addmm(a, h, transposed))
            past.append(h)
        return torch.stack(past, dim=1)


class Bidirectional(SequenceNet):
    r"""Two networks over the same sequence, one forward and one backward in time, their states side by side.

    $$s_t = [\overrightarrow{h}(x)_t, \; \overleftarrow{h}(Rx)_{T+1-t}], \qquad f(x)_t = V s_t + v,$$

    where $(Rx)_t = x_{T+1-t}$ reverses time. Not causal: every $f(x)_t$ depends on the whole of $x$. Two networks of
    the same size with the same parameters would be equivariant to $R$ up to the order of the halves; these are not.

    Shapes: $x$: (b, T, d) → `states(x)`: (b, T, $n_1 + n_2$) → $f(x)$: (b, T, m); the parameters are those of
    `forward_net` and `backward_net`, with $V$: (m, $n_1 + n_2$), $v$: (m,), named `readout.weight`, `readout.bias`.
    Initialisation: $V$, $v$ as in `MLP`.

    Args:
        forward_net: `RNN`, `LSTM`, `GRU`, `S4D` or another `SequenceNet`.
        backward_net: another of the same class and `n_in`. Neither may have a read-out: it would never be used.
        n_out: $m$, the width of the output; None leaves the read-out away, and $f(x)$ is `states(x)`.
        init: of the read-out: a name of `MLP`'s table or a `Law`.
        dtype: of the read-out; torch's default if None.
        device: of the read-out; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of the two networks.
    Left out: sharing parameters between the directions.
    Source: schuster1997bidirectional.

    >>> net = Bidirectional(RNN(1, 1, activation=lambda z: z), RNN(1, 1, activation=lambda z: z))
    >>> one, zero = torch.ones(1, 1), torch.zeros(1)
    >>> _ = net.load_state_dict({f"{way}_net.{name}": value for way in ("forward", "backward")
    ...                          for name, value in (("W", one), ("U", one), ("b", zero))})
    >>> net(torch.tensor([[[1.0], [2.0], [3.0]]])).tolist()             # sums up to t, and from t on
    [[[1.0, 6.0], [3.0, 5.0], [6.0, 3.0]]]

    """

    def __init__(
        self,
        forward_net: SequenceNet,
        backward_net: SequenceNet,
        n_out: int | None = None,
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _check_states_only("forward_net", forward_net)
        _check_states_only("backward_net", backward_net)
        if type(forward_net) is not type(backward_net) or forward_net.n_in != backward_net.n_in:
            raise ArchitectureError(
                f"forward_net is a {type(forward_net).__name__} of n_in={forward_net.n_in} and backward_net a "
                f"{type(backward_net).__name__} of n_in={backward_net.n_in}; build both of the same class and n_in."
            )
        if forward_net is backward_net:
            raise ArchitectureError(
                "forward_net and backward_net are one module, so their parameters would be shared; build two."
            )
        self.forward_net, self.backward_net = forward_net, backward_net
        self.n_in = forward_net.n_in
        self.n_hidden = forward_net.n_hidden + backward_net.n_hidden
        self.readout = readout(Maker(dtype, device, generator), init, self.n_hidden, n_out)

    def states(self, x: Tensor) -> Tensor:
        """Return $s_1, …, s_T$: (b, T, d) → (b, T, $n_1 + n_2$).

        >>> tuple(Bidirectional(RNN(2, 4), RNN(2, 3)).states(torch.zeros(3, 5, 2)).shape)
        (3, 5, 7)
        """
        checked_sequence(x, self.n_in)
        return torch.cat([self.forward_net.states(x), self.backward_net.states(x.flip(1)).flip(1)], dim=-1)


class FlatReadout(nn.Module):
    r"""One linear read-out of the states of all times at once: a classifier of sequences of a fixed length.

    $$f(x) = V \, (s_1, …, s_T) + v.$$

    Shapes: $x$: (b, T, d) → $f(x)$: (b, m); $V$: (m, T n), whose columns run through the n states of the first time,
    then of the second, …; $v$: (m,), named `readout.weight`, `readout.bias`; the other parameters are those of `net`.
    Initialisation: $V$, $v$ as in `MLP`, with the fan-in $T n$.

    Args:
        net: `RNN`, `LSTM`, `GRU`, `S4D`, `Bidirectional` or another `SequenceNet`, without a read-out: that would never
            be used.
        length: $T$, the number of times of every input.
        n_out: $m$, the width of the output, as the number of classes.
        init: of the read-out: a name of `MLP`'s table or a `Law`.
        dtype: of the read-out; torch's default if None.
        device: of the read-out; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above or the input's shape is not what it must be.

    Cost: that of `net` and $2 T n m$ operations an example.
    Left out: inputs of different lengths (read the last state instead: `net(x)[:, -1]`).
    Source: greydanus2024scaling.

    The classifier of MNIST-1D's authors is two GRUs of six states, read at 40 times: 5110 parameters, where
    torch.nn.GRU's twelve redundant biases a direction make 5134.

    >>> from lemmata.architectures.gru import GRU
    >>> net = FlatReadout(Bidirectional(GRU(1, 6), GRU(1, 6)), length=40, n_out=10)
    >>> tuple(net(torch.zeros(2, 40, 1)).shape)
    (2, 10)
    >>> sum(p.numel() for p in net.parameters()) == 2 * (3 * 6 * (1 + 6 + 1) + 6) + (40 * 12 * 10 + 10)
    True

    """

    def __init__(
        self,
        net: SequenceNet,
        length: int,
        n_out: int,
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _check_states_only("net", net)
        self.net = net
        self.length = checked_size("length", length)
        fan_in = self.length * net.n_hidden
        self.readout = readout(Maker(dtype, device, generator), init, fan_in, checked_size("n_out", n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (b, T, d) → (b, m)."""
        checked_sequence(x, self.net.n_in)
        if x.shape[1] != self.length:
            raise ArchitectureError(
                f"the input has {x.shape[1]} times, but length={self.length}; cut or resample it to that many, or build "
                f"FlatReadout(net, length={x.shape[1]}, …)."
            )
        return self.readout(self.net.states(x).flatten(1))  # (b T n) → (b Tn)


def recurrent_weight(make: Maker, init: str | Law, gates: int, n_hidden: int, fan_in: int) -> nn.Parameter:
    """Draw a weight of shape (gates·n, fan_in), each gate by itself; the table is in `RNN`.

    >>> W = recurrent_weight(Maker(None, None, None), "orthogonal", gates=4, n_hidden=2, fan_in=2)
    >>> torch.allclose(W[2:4] @ W[2:4].T, torch.eye(2), atol=1e-6)
    True
    """
    if init == "default":
        return make.uniform((gates * n_hidden, fan_in), n_hidden**-0.5)
    law = resolve_law(init)
    return make.parameter(torch.cat([draw(law, (n_hidden, fan_in), make.generator)[0] for _ in range(gates)]))


def recurrent_bias(make: Maker, init: str | Law, gates: int, n_hidden: int) -> nn.Parameter:
    """Draw a bias of shape (gates·n,); the table is in `RNN`.

    >>> recurrent_bias(Maker(None, None, None), "he", gates=1, n_hidden=2).tolist()
    [0.0, 0.0]
    """
    law = resolve_law(init)
    variance = law.bias_variance(n_hidden, n_hidden)
    if law.shape == "uniform":
        return make.uniform((gates * n_hidden,), math.sqrt(3 * variance))
    return make.normal((gates * n_hidden,), variance)


def readout(make: Maker, init: str | Law, n_hidden: int, n_out: int | None) -> nn.Module:
    """Make the linear read-out, or the identity if `n_out` is None.

    >>> readout(Maker(None, None, None), "lecun", 3, None)
    Identity()
    """
    law = resolve_law(init)
    return nn.Identity() if n_out is None else make.linear(n_hidden, checked_size("n_out", n_out), law)


def checked_bias_init(bias_init: str, t_max: int | None, known: tuple[str, ...]) -> str:
    """Return `bias_init` if it is one of the `known` names and has the `t_max` that it needs, and no other.

    >>> checked_bias_init("chrono", 784, ("default", "chrono"))
    'chrono'
    """
    checked_name("bias_init", bias_init, known)
    if bias_init == "chrono" and (isinstance(t_max, bool) or not isinstance(t_max, int) or t_max < 2):
        raise ArchitectureError(
            f"bias_init='chrono' needs t_max, the longest time to remember, an integer of at least 2; got {t_max!r}. "
            "Pass the length of the sequences."
        )
    if bias_init != "chrono" and t_max is not None:
        raise ArchitectureError(
            f"t_max={t_max!r} is used by bias_init='chrono' alone, not by {bias_init!r}; leave one of the two away."
        )
    return bias_init


def chrono(n_hidden: int, t_max: int, generator: torch.Generator | None) -> Tensor:
    r"""Draw $\log u$ with $u$ uniform on $[1, T_{max} - 1]$ [tallec2018can]: a gate $σ(\log u)$ forgets in $u + 1$ steps.

    >>> times = 1 + chrono(4, 100, torch.Generator().manual_seed(0)).exp()
    >>> bool((times >= 2).all() and (times <= 100).all())
    True
    """
    unit = torch.rand(n_hidden, dtype=torch.float64, device="cpu", generator=generator)
    return torch.log1p((t_max - 2) * unit)


def checked_sequence(x: Tensor, n_in: int) -> None:
    """Raise unless $x$ is a batch of sequences of vectors of width `n_in`.

    >>> checked_sequence(torch.zeros(3, 5, 2), n_in=2)
    """
    if x.dim() != 3 or x.shape[-1] != n_in or x.shape[1] == 0:
        raise ArchitectureError(
            f"the input has shape {tuple(x.shape)}, but n_in={n_in} asks for (batch, time, {n_in}) with at least one "
            "time; a sequence of numbers needs its last axis, x.unsqueeze(-1), and one sequence its first, x[None]."
        )


def _check_states_only(argument: str, net: SequenceNet) -> None:
    if not isinstance(net, SequenceNet):
        raise ArchitectureError(
            f"{argument} is a {type(net).__name__}, which is no SequenceNet; pass an RNN, LSTM, GRU, S4D or "
            "Bidirectional, or derive your class from SequenceNet."
        )
    if not isinstance(net.readout, nn.Identity):
        raise ArchitectureError(f"{argument} has a read-out that would never be used; build it with n_out=None.")


ENTRIES = (
    Architecture(
        name="rnn",
        family="RNN",
        build=lambda: RNN(2, 3, 2, dtype=torch.float64, generator=seeded(20)),
        sample=sequences(4, 2, 2),
        loss=mean_square,
        symmetry=None,
        source="elman1990finding",
    ),
)
