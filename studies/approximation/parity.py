r"""Gradients hardly know which parity they are to learn.

The $2^d$ parities of $d$ bits are orthogonal. For squared error, the target enters the gradient through its correlation with the
derivatives of the network, and a function has only so much correlation to share among orthogonal ones: averaged over
parities, the part of the gradient that tells the target is a fraction $2^(-d)$ of what the network could show
@shalevshwartz2017failures. All inputs and all parities are enumerated: nothing here is sampled but the network's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def bits(d: int) -> Tensor:
    """All words of d bits, (2^d, d)."""
    return (torch.arange(2**d)[:, None] >> torch.arange(d)) % 2


def signals(d: int, width: int, share: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""$EE_x chi_v nabla f$ for every parity v, $(2^d, P)$; $EE_x norm(nabla f)^2$; and the number of bits of each v.

    ``share`` is the chance that a bit of the input is one.
    """
    words = bits(d)
    x = words.to(torch.get_default_dtype())
    net = MLP([d, width, 1], activation="tanh", generator=torch.Generator().manual_seed(seed))
    gradients = la.Jacobian(net, x).dense()  # (2^d, P)
    chance = torch.where(words == 1, share, 1 - share).prod(1).to(x)
    parities = 1 - 2 * ((x @ x.T) % 2)  # (v, x)
    return parities @ (chance[:, None] * gradients), chance @ gradients.square().sum(1), words.sum(1)


def draw_orders(ax: Any, rows: Rows) -> Columns:
    """How well a random network's gradient tells a parity, by the number of bits that it looks at.

    Squared length of the gradient's part that depends on the target, over the mean square of the gradient, logarithmic: one dot a
    parity of eight bits, against the number of bits in it. The cloud falls by orders of magnitude from parities of one bit to
    that of all eight. The mean over all is two to the minus eight, the dashed line.
    """
    row = next(r for r in rows if not r.arm and r.k == 0 and r.point["d"] == 8 and not r.error)
    columns = {"bits of the parity": row.values["orders"], "share of the gradient": row.values["shares"]}
    jitter = np.linspace(-0.25, 0.25, len(row.values["orders"]))
    ax.semilogy(
        row.values["orders"] + np.random.default_rng(0).permutation(jitter), row.values["shares"], ".", markersize=4
    )
    ax.axhline(2.0**-8, color="0.3", linestyle="--", linewidth=1, label="mean over all parities, $2^{-8}$")
    ax.set(xlabel="bits that the parity looks at", ylabel="share of the gradient that tells it")
    ax.legend()
    return columns


@claim(
    source="shalevshwartz2017failures",
    predicts=Equals(1, within=1e-12, of="each"),
    quick=Grid(d=[4, 6, 8], width=[32], seeds=3),
    full=Grid(d=[4, 6, 8, 10], width=[32, 256], seeds=20),
    controls={
        "all parities: those of a single bit": dict(dictators=True),
        "uniform inputs: three ones to a zero": dict(share=0.75),
    },
    figures=(draw_orders,),
)
def parity_gradient_parseval(
    d: int, width: int, seed: int, dictators: bool = False, share: float = 0.5
) -> dict[str, Any]:
    r"""Averaged over all parities, a gradient carries two to the minus d of its square as signal.

    Let $x$ be uniform on ${0, 1}^d$ and $chi_v (x) = (-1)^(v dot x)$ for $v in {0, 1}^d$. Under squared error the gradient for the
    target $chi_v$ is a part that does not depend on $v$, minus $2 thin EE_x chi_v nabla f$. For every network $f$, by Parseval's identity in each
    entry of $nabla f$ @shalevshwartz2017failures,
    $ 1/2^d sum_v norm(EE_x chi_v (x) nabla f(x))^2 = 1/2^d EE_x norm(nabla f(x))^2. $
    The value is the left side over the right one, from all $2^d$ inputs and parities. Controls: the $d$
    parities of one bit alone; inputs that are not uniform, on which parities are not orthogonal.
    """
    found, square, orders = signals(d, width, share, seed)
    shares = found.square().sum(1) / square
    chosen = shares[orders == 1] if dictators else shares
    return {"value": chosen.mean() * 2.0**d, "shares": shares, "orders": orders}


def draw_dimension(ax: Any, rows: Rows) -> Columns:
    """How much of a gradient depends on the target, by the number of bits.

    Variance of the gradient over targets, over its mean square, against the number of bits, logarithmic vertical axis. Over all
    parities it lies on the bound, which halves with every bit; over the parities of single bits it falls slowly, and is
    dozens of times as large at ten bits.
    """
    columns: dict[str, Any] = {"bits": sorted({row.point["d"] for row in rows})}
    for arm, label in (("", "all parities"), (DICTATORS, "single bits")):
        found = [[r.values["value"] for r in rows if (r.arm, r.point["d"]) == (arm, d)] for d in columns["bits"]]
        columns[label] = [float(np.mean(values)) for values in found]
        ax.semilogy(columns["bits"], columns[label], "o", label=label)
    ax.semilogy(columns["bits"], [2.0**-d for d in columns["bits"]], color="0.3", linewidth=1, label="$2^{-d}$")
    ax.set(xlabel="bits d", ylabel="variance over targets / mean square", xticks=columns["bits"])
    ax.legend()
    return columns


DICTATORS = "all parities: those of a single bit, with either sign"


@claim(
    source="shalevshwartz2017failures",
    predicts=AtMost("2.0**-d"),
    quick=Grid(d=[4, 6, 8, 10], width=[32], seeds=2),
    full=Grid(d=[4, 6, 8, 10, 12], width=[32, 128], seeds=10),
    controls={DICTATORS: dict(dictators=True)},
    figures=(draw_dimension,),
)
def parity_gradient_parseval_variance(d: int, width: int, seed: int, dictators: bool = False) -> dict[str, Any]:
    r"""The gradient's variance over parities halves with every bit, for every network.

    The variance over $v$ of the gradient's part $EE_x chi_v nabla f$ is the mean square of the last claim less the square of its mean, which
    is $2^(-d) nabla f(0)$, so that @shalevshwartz2017failures
    $ "Var"_v = 2^(-d) EE norm(nabla f)^2 - 4^(-d) norm(nabla f(0))^2 <= 2^(-d) EE norm(nabla f)^2. $
    To tell one of $2^d$ parities, gradients must be known to a precision of $2^(-d\/2)$. The value is the variance
    over $EE norm(nabla f)^2$; the equation before the bound holds to rounding (recorded as `gap`). The control takes the $2 d$
    functions $plus.minus chi_v$ of one bit: they, too, are hidden in the labels, but gradients see them.
    """
    found, square, orders = signals(d, width, 0.5, seed)
    if dictators:
        found = torch.cat([found[orders == 1], -found[orders == 1]])
    variance = (found - found.mean(0)).square().sum(1).mean() / square
    origin = found.sum(0).square().sum() / 4.0**d / square  # ‖Σ_v E χ_v ∇f‖² = ‖∇f(0)‖²
    return {"value": variance, "gap": variance - 2.0**-d + origin, "times the bound": variance * 2.0**d}


if __name__ == "__main__":
    script(__file__)
