r"""Signals along residual paths.

A block $x |-> x + f(x)$ adds what its branch makes to what comes in. At random weights of mean zero the two are orthogonal on
average, at every width, so that squared sizes add: depth multiplies the signal by a power @hanin2018start @zhang2019fixup. The same
sum, multiplied out, runs over all ways through the network, those through many branches and those past them
@veit2016residual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def draw_signals(ax: Any, rows: Rows) -> Columns:
    """Plain residual blocks double the squared signal; branches over the root of the depth keep it below e.

    Mean squared signal against the layer, on a logarithmic axis. One set of dots rises along the powers of two, the other
    stays almost level, below a dashed line at e.
    """
    chosen = [row for row in rows if not row.arm]
    columns: dict[str, Any] = {"layer": np.arange(len(chosen[0].values["curve"]))}
    depth = len(columns["layer"]) - 1
    for branch, base in (("whole", 2.0), ("over the root of the depth", 1 + 1 / depth)):
        columns[branch] = np.mean([r.values["curve"] for r in chosen if r.point["branch"] == branch], 0)
        (dots,) = ax.semilogy(columns["layer"], columns[branch], "o", markersize=4, label=f"branch: {branch}")
        ax.semilogy(columns["layer"], base ** columns["layer"], color=dots.get_color(), linewidth=1)
    ax.axhline(np.e, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="layer", ylabel="mean squared signal")
    ax.legend()
    return columns


@claim(
    source=("hanin2018start", "zhang2019fixup"),
    predicts=Equals(1, within=0.02),
    quick=Grid(branch=["whole", "over the root of the depth"], width=[8], depth=[10], nets=[1500], seeds=12),
    full=Grid(branch=["whole", "over the root of the depth"], width=[8, 32, 128], depth=[10], nets=[1500], seeds=20),
    controls={
        "a drawn last layer: zero": dict(last=0.0),
        "last weights of mean zero: a mean of one standard deviation": dict(shift=1.0),
    },
    figures=(draw_signals,),
)
def residual_variance_doubling(
    branch: str, width: int, depth: int, nets: int, seed: int, last: float = 1.0, shift: float = 0.0
) -> dict[str, Any]:
    r"""Plain residual blocks double the squared signal in each layer, at any width.

    Let $x_(l+1) = x_l + s V_l (U_l x_l)_+$ with He's initialisation for $U_l$ and independent weights of mean zero and variance
    $1\/n$ in $V_l$. The branch keeps the mean square and is uncorrelated with $x_l$, so that
    $ EE norm(x_(l+1))^2 = (1 + s^2) norm(x_l)^2 $
    for every $x_l$: after $L$ layers $2^L$ for $s = 1$, and $(1 + 1\/L)^L < e$ for $s = 1\/sqrt(L)$
    @hanin2018start @zhang2019fixup. The value is the mean factor over layers and networks, divided by $1 + s^2$. Controls: a last layer
    of zeros, with which a block starts as the identity; and one whose mean is not zero, so that the branch points somewhere.
    """
    draws = torch.Generator().manual_seed(seed)
    scale = 1.0 if branch == "whole" else depth**-0.5
    x, factors, curve = torch.ones(nets, width) / width**0.5, [], [1.0]
    for _ in range(depth):
        U = gaussian(draws, nets, width, width) * (2 / width) ** 0.5
        V = (gaussian(draws, nets, width, width) + shift) * last / width**0.5
        following = x + scale * (V @ (U @ x[..., None]).relu())[..., 0]
        factors.append(following.square().sum(1) / x.square().sum(1))
        x = following
        curve.append(float(x.square().sum(1).mean()))
    return {"value": float(torch.stack(factors).mean()) / (1 + scale**2), "curve": np.array(curve)}


def path_energies(branches: Sequence[Tensor]) -> Tensor:
    r"""‖P_k‖²/n for k = 0 … L, (L + 1, nets), where $\prod_l (I + t W_l) = \sum_k t^k P_k$: all paths of k branches together."""
    nets, width, _ = branches[0].shape
    sums = [torch.eye(width).expand(nets, -1, -1)]
    for W in branches:
        longer = [W @ one for one in sums]
        sums = [sums[0], *(a + b for a, b in zip(sums[1:], longer[:-1], strict=True)), longer[-1]]
    return torch.stack([one.square().sum((1, 2)) / width for one in sums])


def draw_paths(ax: Any, rows: Rows) -> Columns:
    """How much of a residual network's gradient comes along paths of each length.

    Energy against the number of branches on the path. Bars, measured, end at dots, the binomial formula; they rise to the
    mean length of two and fall again.
    """
    chosen = [row for row in rows if not row.arm]
    depth, share = chosen[0].point["depth"], chosen[0].point["share"]
    lengths = np.arange(depth + 1)
    measured = np.mean([row.values["energies"] for row in chosen], 0)
    formula = [comb(depth, k) * share**k for k in lengths]
    ax.bar(lengths, measured, color="C0", alpha=0.5, label="measured")
    ax.plot(lengths, formula, "o", color="C1", label="binomial")
    ax.set(xlabel="branches on the path", ylabel="mean squared share of the Jacobian")
    ax.legend()
    return {"branches": lengths, "measured": measured, "formula": formula}


@claim(
    source="veit2016residual",
    predicts=Equals(1, within=0.05),
    quick=Grid(length=[1, 2, 3], share=[0.5], depth=[6], width=[16], nets=[100], seeds=12),
    full=Grid(length=[1, 2, 3, 5], share=[0.5], depth=[10], width=[32], nets=[100], seeds=20),
    controls={
        "independent branches: one for all layers": dict(tied=True),
        "branches of mean zero: a mean of half a standard deviation": dict(shift=0.5),
    },
    figures=(draw_paths,),
)
def residual_path_binomial(
    length: int, share: float, depth: int, width: int, nets: int, seed: int, tied: bool = False, shift: float = 0.0
) -> dict[str, Any]:
    r"""A residual network's gradient comes along paths whose lengths are binomial.

    The Jacobian of $x_(l+1) = (I + W_l) x_l$ is a sum over $2^L$ paths, each through some of the branches and past the others
    @veit2016residual. If the branches are independent, of mean zero and $EE norm(W_l v)^2 = a norm(v)^2$, paths are
    uncorrelated, and those of $k$ branches carry
    $ EE norm(P_k)_F^2 \/ n = binom(L, k) a^k, quad sum_k binom(L, k) a^k = (1 + a)^L: $
    the mean path passes $L a\/(1 + a)$ branches, though the longest has $L$. The value is the measured energy of one length over
    the formula, from the products themselves. Controls: one matrix for all layers, whose paths add up; a mean that is not
    zero.
    """
    draws = torch.Generator().manual_seed(seed)
    drawn = [(gaussian(draws, nets, width, width) + shift) * (share / width) ** 0.5 for _ in range(depth)]
    energies = path_energies([drawn[0]] * depth if tied else drawn).mean(1)
    return {"value": float(energies[length]) / (comb(depth, length) * share**length), "energies": energies}


if __name__ == "__main__":
    script(__file__)
