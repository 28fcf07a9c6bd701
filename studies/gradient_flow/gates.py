r"""What gates let through.

The gradient of an ordinary recurrent network is multiplied by a matrix in every step and vanishes or explodes
@pascanu2013difficulty. Gated networks carry a part of their state from step to step by a product with numbers between
zero and one, and along this path the gradient is the product of these numbers and nothing else: a bias sets how long it
lasts @hochreiter1997long @gers2000learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev

from lemmata.architectures import GRU, LSTM
from lemmata.studies.claim import AtMost, Distributed, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
PATHS = "no recurrent weights: random ones"


def lstm_step(net: LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next state and cell of an LSTM, (n,) each."""
    i, f, g, o = (net.W @ x + net.U @ h + net.b).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(net: GRU, x: Tensor, h: Tensor) -> Tensor:
    """The next state of a GRU, (n,)."""
    (a_r, a_z, a_n), (u_r, u_z, u_n) = (net.W @ x + net.b).chunk(3), (net.U @ h).chunk(3)
    r, z = (a_r + u_r).sigmoid(), (a_z + u_z).sigmoid()
    return (1 - z) * (a_n + r * (u_n + net.b_hn)).tanh() + z * h


def draw_gates(ax: Any, rows: Rows) -> Columns:
    """How much of the gradient a gate lets through: it halves every 1, 2.2 or 5.5 steps for a bias of 0, 1 or 2.

    The size of the derivative of the last cell by the first against the steps between them, on a logarithmic axis. For each
    of three biases dots lie near a straight line; crosses, of networks with recurrent weights, lie off it.
    """
    columns: dict[str, Any] = {"steps": sorted({row.point["steps"] for row in rows})}
    for place, bias in enumerate(sorted({row.point["bias"] for row in rows})):
        for arm, mark in (("", "o"), (PATHS, "x")):
            found = [
                np.median(
                    [
                        r.values["size"]
                        for r in rows
                        if (r.arm, r.point["bias"], r.point["steps"]) == (arm, bias, steps) and not r.error
                    ]
                )
                for steps in columns["steps"]
            ]
            columns[f"bias {bias:g}" + (", recurrent weights" if arm else "")] = found
            label = f"bias {bias:g}" if not arm else None if place else "with recurrent weights"
            ax.semilogy(columns["steps"], found, mark, color=f"C{place}", label=label)
        line = np.linspace(0, max(columns["steps"]), 50)
        ax.semilogy(line, (1 / (1 + np.exp(-bias))) ** line, color=f"C{place}", linewidth=1)
    ax.set(xlabel="steps", ylabel="size of the derivative")
    ax.legend()
    return columns


def transport(J: Tensor, gates: Tensor) -> dict[str, float]:
    """The distance of a Jacobian from the product of gates (T, n), relative, and its size per unit."""
    predicted = torch.diag(gates.prod(0))
    return {"value": float((J - predicted).norm() / predicted.norm()), "size": float(J.norm() / len(J) ** 0.5)}


@claim(
    source=("gers2000learning", "jozefowicz2015empirical"),
    predicts=AtMost("steps*1e-14"),
    quick=Grid(bias=[0.0, 1.0, 2.0], steps=[1, 5, 20, 40], width=[8], seeds=5),
    full=Grid(bias=[0.0, 1.0, 2.0], steps=[1, 5, 20, 100], width=[8, 32], seeds=20),
    controls={PATHS: dict(recurrent=True), "one bias: two that add up, as in torch.nn.LSTM": dict(biases=2)},
    figures=(draw_gates,),
)
def lstm_forget_transport(
    bias: float, steps: int, width: int, seed: int, recurrent: bool = False, biases: int = 1
) -> dict[str, float]:
    r"""A gradient passes the cells of an LSTM as the product of the forget gates.

    Without recurrent weights $c_t = f_t dot.o c_(t-1) + dots.c$ with gates that depend on the input alone, so that
    $ (partial c_T) / (partial c_0) = "diag"(product_t f_t), quad f_t = sigma(W_f x_t + b_f). $
    With no input a bias of $0$, $1$ or $2$ lets the gradient halve every $1$, $2.2$ or $5.5$ steps, which is why forget gates
    start open @gers2000learning @jozefowicz2015empirical. The value is the distance of the Jacobian from the product, relative, for
    random inputs. Controls: recurrent weights, which add paths through the gates; and a bias given to both of the bias
    vectors that `torch.nn.LSTM` has, where it counts twice.
    """
    draws = torch.Generator().manual_seed(seed)
    net = LSTM(3, width, generator=draws).requires_grad_(False)
    net.b[width : 2 * width] = biases * bias
    net.U.mul_(float(recurrent))
    inputs, start = gaussian(draws, steps, 3), gaussian(draws, width)

    def last(c: Tensor) -> Tensor:
        h = torch.zeros_like(c)
        for x in inputs:
            h, c = lstm_step(net, x, h, c)
        return c

    return transport(jacrev(last)(start), (inputs @ net.W[width : 2 * width].T + bias).sigmoid())


@claim(
    source="tallec2018can",
    predicts=Distributed("stats.uniform(2, t_max - 2)", within=0.2),
    quick=Grid(t_max=[200], seeds=500),
    full=Grid(t_max=[20, 200, 2000], seeds=4000),
    controls={"chrono initialisation: a bias of one": dict(bias_init="forget")},
)
def lstm_forget_transport_chrono(t_max: int, seed: int, bias_init: str = "chrono") -> float:
    r"""Forget biases can be drawn so that memory times are spread evenly.

    A cell with forget gate $f$ remembers for about $1\/(1 - f)$ steps. With $b_f = ln u$ and $u$ uniform between $1$ and
    $T_max - 1$ this is $u + 1$: uniform between $2$ and $T_max$, the longest time to remember @tallec2018can. The value is the
    memory time of one cell at rest, from the derivative of its next state by its present one. With all biases one, the
    control, every cell remembers for $3.7$ steps.
    """
    draws = torch.Generator().manual_seed(seed)
    net = LSTM(
        1, 1, bias_init=bias_init, t_max=t_max if bias_init == "chrono" else None, generator=draws
    ).requires_grad_(False)
    rest = torch.zeros(1)
    kept = float(jacrev(lambda c: lstm_step(net, rest, rest, c)[1])(torch.ones(1)))
    return 1 / (1 - kept)


@claim(
    source="cho2014learning",
    predicts=AtMost("steps*1e-14"),
    quick=Grid(bias=[0.0, 1.0, 2.0], steps=[1, 5, 20, 40], width=[8], seeds=5),
    full=Grid(bias=[0.0, 1.0, 2.0], steps=[1, 5, 20, 100], width=[8, 32], seeds=20),
    controls={PATHS: dict(recurrent=True), "z keeps the old state: 1 − z does": dict(swapped=True)},
)
def gru_update_transport(
    bias: float, steps: int, width: int, seed: int, recurrent: bool = False, swapped: bool = False
) -> dict[str, float]:
    r"""A gradient passes the state of a GRU as the product of the update gates.

    In $h_t = (1 - z_t) dot.o n_t + z_t dot.o h_(t-1)$, the convention of @cho2014learning and of torch, the candidate $n_t$ and the
    gate see the old state through recurrent weights alone. Without them
    $ (partial h_T) / (partial h_0) = "diag"(product_t z_t), quad z_t = sigma(W_z x_t + b_z). $
    The value is the distance of the Jacobian from the product, relative, for random inputs. Controls: recurrent weights;
    and the other convention that is in use, in which $1 - z$ keeps the old state.
    """
    draws = torch.Generator().manual_seed(seed)
    net = GRU(3, width, generator=draws).requires_grad_(False)
    net.b[width : 2 * width] = bias
    net.U.mul_(float(recurrent))
    inputs, start = gaussian(draws, steps, 3), gaussian(draws, width)

    def last(h: Tensor) -> Tensor:
        for x in inputs:
            h = gru_step(net, x, h)
        return h

    gates = (inputs @ net.W[width : 2 * width].T + bias).sigmoid()
    return transport(jacrev(last)(start), 1 - gates if swapped else gates)


if __name__ == "__main__":
    script(__file__)
