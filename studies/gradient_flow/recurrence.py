r"""Gradients through time.

A recurrent network applies one map again and again, and the gradient of a late state by an early one is a product of its
Jacobians @pascanu2013difficulty. How large it can be follows from singular values, how large it becomes in the long run
from eigenvalues @gelfand1941normierte. And what a linear network remembers of its input is a number that depends on nothing
but its size @jaeger2001short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev

from lemmata.architectures import RNN
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
Activation = Callable[[Tensor], Tensor]
UNITS: dict[str, Activation] = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "identity": lambda z: z}
SLOPES = {"tanh": 1.0, "sigmoid": 0.25, "identity": 1.0}  # γ, the largest slope of a unit


def rnn_step(net: RNN, x: Tensor, h: Tensor) -> Tensor:
    """The next state of an Elman network, (n,), from the input (d,) and the state (n,)."""
    return net.activation(net.W @ x + net.U @ h + net.b)


# What singular values say


def driven(
    units: str, steps: int, width: int, U: Callable[[Tensor], Tensor], steep: float, seed: int
) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """The map of the first state to the last of a random network with random inputs, a start, and the recurrent weights."""
    draws = torch.Generator().manual_seed(seed)
    net = RNN(2, width, activation=lambda z: UNITS[units](steep * z), generator=draws).requires_grad_(False)
    net.U.copy_(U(gaussian(draws, width, width)))
    inputs, start = gaussian(draws, steps, 2), gaussian(draws, width).tanh()

    def last(h: Tensor) -> Tensor:
        for x in inputs:
            h = rnn_step(net, x, h)
        return h

    return last, start, net.U


@claim(
    source="pascanu2013difficulty",
    predicts=AtMost(1e-12),
    quick=Grid(units=["tanh", "sigmoid"], size=[0.8, 1.0, 1.2], steps=[1, 10, 40], width=[10], seeds=12),
    full=Grid(units=["tanh", "sigmoid"], size=[0.8, 1.0, 1.2], steps=[1, 10, 100], width=[10, 40], seeds=100),
    controls={
        "the largest singular value: the spectral radius": dict(radius=True),
        "a bound on the slope of the units: units of three times the slope": dict(steep=3.0),
    },
)
def rnn_gradient_bound(
    units: str, size: float, steps: int, width: int, seed: int, radius: bool = False, steep: float = 1.0
) -> dict[str, float]:
    r"""The gradient through time is at most a power of the largest singular value.

    Let $h_t = phi(U h_(t-1) + W x_t + b)$ with $abs(phi') <= gamma$: $1$ for tanh and $1\/4$ for the logistic function. Then
    $ norm((partial h_T) / (partial h_t)) <= (gamma sigma_max (U))^(T-t), $
    so that $sigma_max < 1\/gamma$ suffices for gradients to vanish @pascanu2013difficulty. The value is the logarithm of the
    norm minus that of the bound, per step, for random networks with $gamma sigma_max$ below, at and above one; it may exceed
    zero by rounding. How far it lies below is what saturated units take away: above one the bound grows and gradients need
    not. Controls: the spectral radius in place of $sigma_max$, which bounds no single step; units steeper than $gamma$.
    """

    def scaled(draw: Tensor) -> Tensor:
        return draw * size / SLOPES[units] / torch.linalg.matrix_norm(draw, 2)

    last, start, U = driven(units, steps, width, scaled, steep, seed)
    bound = torch.linalg.eigvals(U).abs().max() if radius else torch.linalg.matrix_norm(U, 2)
    found = float(torch.linalg.matrix_norm(jacrev(last)(start), 2).log()) / steps
    return {"value": found - log(SLOPES[units] * float(bound)), "growth": found}


@claim(
    source="pascanu2013difficulty",
    predicts=AtMost(1e-12),
    quick=Grid(steps=[1, 10, 100], width=[10], seeds=5),
    full=Grid(steps=[1, 10, 100, 1000], width=[10, 40], seeds=20),
    controls={
        "orthogonal weights: Gaussian ones of the same mean square": dict(orthogonal=False),
        "linear units: tanh": dict(units="tanh"),
    },
)
def rnn_gradient_bound_orthogonal(
    steps: int, width: int, seed: int, orthogonal: bool = True, units: str = "identity"
) -> float:
    r"""A linear network with orthogonal recurrent weights keeps every gradient as it is.

    Where the bound above is met with equality in every direction: $partial h_T \/ partial h_0 = U^T$ is orthogonal. The
    value is the largest $abs(sigma_i - 1)$ over its singular values. Controls: Gaussian weights of variance $1\/n$, which
    agree with orthogonal ones only on average; tanh.
    """

    def turned(draw: Tensor) -> Tensor:
        return torch.linalg.qr(draw)[0] if orthogonal else draw / width**0.5

    last, start, _ = driven(units, steps, width, turned, 1.0, seed)
    return float((torch.linalg.svdvals(jacrev(last)(start)) - 1).abs().max())


def log_norms(U: Tensor, most: int) -> np.ndarray:
    """ln ‖U^k‖₂ for k = 0 … ``most``."""
    power, scale, found = U, 0.0, [0.0]
    for _ in range(most):
        size = torch.linalg.matrix_norm(power, 2)
        scale += float(size.log())
        power = U @ (power / size)
        found.append(scale)
    return np.array(found)


def draw_transient(ax: Any, rows: Rows) -> Columns:
    """Gradients of a linear network first grow as its norm would have it, then vanish at the rate of its eigenvalues.

    Logarithm of the norm of the k-th power against k, for one random matrix. The curve jumps up in the first step and later
    falls along a straight line; a steep line, the power of the norm, leaves it at once.
    """
    chosen = next(row for row in rows if not row.arm and row.point["gain"] == 0.9)
    curve, radius = chosen.values["curve"], chosen.values["radius"]
    k = np.arange(len(curve))
    ax.plot(k, curve, color="C0", label="$\\ln \\|U^k\\|$")
    ax.plot(k, k * radius, "--", color="C1", label="$k \\ln \\rho$")
    ax.plot(k[:4], k[:4] * curve[1], "--", color="C3", label="$k \\ln \\|U\\|$")
    ax.set(xlabel="steps k", ylabel="logarithm")
    ax.legend()
    return {"k": k, "log of the norm": curve, "k log of the radius": k * radius}


@claim(
    source="gelfand1941normierte",
    predicts=Equals(0, within=0.005, of="each"),
    quick=Grid(gain=[0.9, 1.1], width=[50], steps=[300], seeds=8),
    full=Grid(gain=[0.9, 1.1], width=[50, 200], steps=[1000], seeds=20),
    controls={
        "the long run: one step": dict(long=False),
        "the spectral radius: the largest singular value": dict(radius=False),
    },
    figures=(draw_transient,),
)
def gelfand_vs_norm(
    gain: float, width: int, steps: int, seed: int, long: bool = True, radius: bool = True
) -> dict[str, Any]:
    r"""In the long run gradients grow like the spectral radius, not like the norm.

    $lim norm(U^k)^(1\/k) = rho(U) <= norm(U)$ for every square matrix @gelfand1941normierte. Independent Gaussian entries of
    variance $g^2\/n$ have $rho -> g$ but $norm(U) -> 2 g$: with $g = 0.9$ the gradients of a linear recurrent network grow
    over a few steps and then vanish, though the norm predicts that they explode. The value is the growth of
    $ln norm(U^k)$ per step from $k$ to $2 k$ steps, minus $ln rho$. In the first control it is that of a single step; the
    second subtracts $ln norm(U)$.
    """
    U = gaussian(torch.Generator().manual_seed(seed), width, width) * gain / width**0.5
    curve = log_norms(U, 2 * steps if long else 1)
    slope = (curve[-1] - curve[steps]) / steps if long else curve[1]
    rho = float(torch.linalg.eigvals(U).abs().max().log())
    return {"value": slope - (rho if radius else curve[1]), "curve": curve[:60], "radius": rho}


# What a linear network remembers


def draw_memory(ax: Any, rows: Rows) -> Columns:
    """A linear network remembers as many inputs as it has units; with tanh it remembers fewer.

    The share of an input's variance that the state explains, against how long ago it was, for networks of one size. The
    line of the linear network stays near one and then falls; that of the tanh network falls from the start.
    """
    width = max(row.point["width"] for row in rows)
    columns: dict[str, Any] = {}
    for arm, label in (("", "linear"), ("linear units: tanh", "tanh")):
        curves = [r.values["shares"] for r in rows if (r.arm, r.point["width"]) == (arm, width) and not r.error]
        columns[label] = np.mean(curves, 0)
        ax.plot(np.arange(len(columns[label])), columns[label], label=label)
    ax.axvline(width, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="steps ago", ylabel="share of variance explained", title=f"{width} units")
    ax.legend()
    return {"steps ago": np.arange(len(columns["linear"])), **columns}


@claim(
    source="jaeger2001short",
    predicts=Equals("width", within="0.03*width"),
    quick=Grid(width=[10, 20], steps=[4000], seeds=12),
    full=Grid(width=[10, 20, 30], steps=[20000], seeds=20),
    controls={
        "linear units: tanh": dict(units="tanh"),
        "weights that mix all directions: a multiple of the identity": dict(mixing=False),
    },
    figures=(draw_memory,),
)
def rnn_memory_capacity(
    width: int, steps: int, seed: int, units: str = "identity", mixing: bool = True
) -> dict[str, Any]:
    r"""A linear network of n units remembers n inputs, neither more nor fewer.

    Drive $h_t = U h_(t-1) + w u_t$ with independent $u_t$ and let $r_k^2$ be the share of the variance of $u_(t-k)$ that a linear
    read-out of $h_t$ explains. With $a_k = U^k w$ and $C = sum_k a_k a_k^top$ it is $a_k^top C^(-1) a_k$, and
    $ sum_k r_k^2 = tr(C^(-1) C) = n $ as soon as the $a_k$ span the space; no network remembers more @jaeger2001short. The value
    is the sum over the last 200 inputs, from least squares on a simulated run, less what chance explains, $n\/T$ each. $U$
    is Gaussian, of spectral radius $0.9$. Controls: tanh; and $U = 0.9 I$, where all the $a_k$ are one direction.
    """
    draws, delays = torch.Generator().manual_seed(seed), 200
    net = RNN(1, width, activation=UNITS[units], generator=draws).requires_grad_(False)
    U = gaussian(draws, width, width) if mixing else torch.eye(width)
    net.U.copy_(0.9 * U / torch.linalg.eigvals(U).abs().max())
    net.W.copy_(gaussian(draws, width, 1))
    net.b.zero_()
    inputs = gaussian(draws, steps + delays)
    states = net.states(inputs[None, :, None])[0, delays:]
    # C is ill-conditioned: an orthonormal basis of the states' columns, not the normal equations.
    left, sizes, _ = torch.linalg.svd(states, full_matrices=False)
    basis = left[:, sizes > 1e-13 * sizes[0]]
    past = torch.stack([inputs[delays - k : delays - k + steps] for k in range(delays)], 1)
    explained = (basis.T @ past).square().sum(0) / past.square().sum(0)
    chance = basis.shape[1] / steps
    shares = (explained - chance) / (1 - chance)
    return {"value": float(shares.sum()), "shares": shares[:60]}


if __name__ == "__main__":
    script(__file__)
