r"""Is flatness a property of the function a network computes?

Flat minima are said to generalise better @hochreiter1997flat @keskar2017largebatch, and training can be made to seek them
@foret2021sam. But a ReLU network computes the same function at many parameters, and the Hessian differs among them without
bound @dinh2017sharp: for the usual measures the question of whether *this function* is flat has no answer. Measured
relative to the size of each parameter, sharpness is the same at all rescalings of a network @kwon2021asam. So the verdict
depends on the measure, and this study lets the measure be the switch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import Equals, Grid, claim, script

MEASURES = ("largest eigenvalue", "trace", "adaptive largest eigenvalue", "adaptive trace")
Parameters = dict[str, Tensor]


def minimum(activation: str, seed: int) -> tuple[MLP, Tensor, Tensor]:
    """A network of 12 hidden units trained on 64 points of a smooth target, and the points."""
    draws = torch.Generator().manual_seed(seed)
    device = torch.get_default_device()
    x = torch.randn(64, 6, generator=draws, device="cpu").to(device)
    y = torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    net = MLP([6, 12, 1], activation=activation, bias=False, generator=draws, device=device)
    adam = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(300):
        adam.zero_grad()
        mean_square(net(x), y).backward()
        adam.step()
    return net, x, y


def mean_square(output: Tensor, target: Tensor) -> Tensor:
    """The mean squared error."""
    return ((output - target) ** 2).mean()


def sharpness(net: MLP, parameters: Parameters, x: Tensor, y: Tensor, measure: str) -> float:
    """One of MEASURES at the given parameters: of H, or of diag|θ| H diag|θ|, the Hessian in units of each parameter."""
    adaptive = measure.startswith("adaptive")
    unit = {name: theta.abs() if adaptive else torch.ones_like(theta) for name, theta in parameters.items()}

    def loss(step: Parameters) -> Tensor:
        moved = {name: theta + unit[name] * step[name] for name, theta in parameters.items()}
        return mean_square(functional_call(net, moved, (x,)), y)

    hessian = la.Hessian.of(loss, {name: torch.zeros_like(theta) for name, theta in parameters.items()})
    if measure.endswith("trace"):
        return hessian.dense().trace().item()
    return la.eigenpairs(hessian, k=1, tol=1e-8).values[0].item()


def draw_ratios(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Sharpness after ÷ before multiplying one layer by α and dividing the next by α: the function has not changed.

    Doubly logarithmic axes. The largest eigenvalue and the trace of the Hessian grow like the square of α; both measures in
    units of the parameters stay at one.
    """
    columns: dict[str, Sequence[float]] = {}
    own = [row for row in rows if row.arm == ""]
    alphas = sorted({row.point["alpha"] for row in own})
    columns["alpha"] = alphas
    for measure, style in zip(MEASURES, ("o-", "s-", "o--", "x--"), strict=True):
        values = [
            [math.log(r.values["value"]) for r in own if (r.point["measure"], r.point["alpha"]) == (measure, a)]
            for a in alphas
        ]
        columns[measure] = [math.exp(sum(v) / len(v)) for v in values]
        ax.loglog(alphas, columns[measure], style, label=measure)
    ax.set(xlabel="α", ylabel="sharpness after ÷ before")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("dinh2017sharp", "kwon2021asam"),
    predicts=Equals(1.0, within="rounding(64*84, 100)", of="each"),
    quick=Grid(measure=MEASURES, alpha=[10.0, 100.0], seeds=3),
    full=Grid(measure=MEASURES, alpha=[3.0, 10.0, 30.0, 100.0, 300.0], seeds=20),
    controls={
        "the function stays the same: only the first layer is multiplied": dict(compensated=False),
        "positive homogeneity of the activation: tanh": dict(activation="tanh"),
    },
    expects="DEPENDS",
    switch="measure",
    figures=(draw_ratios,),
)
def flat_minima(
    measure: str, alpha: float, seed: int, compensated: bool = True, activation: str = "relu"
) -> dict[str, Any]:
    r"""Sharpness is a property of the function that the network computes.

    Contested. For $f(x) = W_2 "relu"(W_1 x)$ and $alpha > 0$ the parameters $(alpha W_1, W_2 \/ alpha)$ compute the same
    function, with the same loss everywhere. With $T = "diag"(alpha, alpha^(-1))$ acting on the two layers, the Hessian
    changes from $H$ to $T^(-1) H T^(-1)$: its largest eigenvalue and its trace grow like $alpha^2$ @dinh2017sharp. The matrix
    $"diag" abs(theta) thin H thin "diag" abs(theta)$, the Hessian in units of the parameters, does not change, because
    $abs(theta)$ becomes $T abs(theta)$; where the gradient vanishes, its largest eigenvalue times half the squared radius is,
    to second order, the adaptive sharpness of @kwon2021asam.

    Measured at a trained network is the ratio of a measure after to before the rescaling. The statement is that it equals
    one; the switch is the measure. In the controls the parameters change the function: only the first layer is
    multiplied, or the activation is tanh, which is not positively homogeneous.
    """
    net, x, y = minimum(activation, seed)
    before = {name: value.detach() for name, value in net.named_parameters()}
    first, second = before
    after = {first: alpha * before[first], second: before[second] / alpha if compensated else before[second]}
    with torch.no_grad():
        outputs = [functional_call(net, parameters, (x,)) for parameters in (before, after)]
    was, now = (sharpness(net, parameters, x, y, measure) for parameters in (before, after))
    return {
        "value": now / was,
        "before": was,
        "after": now,
        "loss": mean_square(outputs[0], y),
        "function moved": (outputs[1] - outputs[0]).abs().max() / outputs[0].abs().max(),
    }


if __name__ == "__main__":
    script(__file__)
