r"""Frequencies that a hidden layer of rectifiers does not have.

On a circle, functions are sums of waves. Without biases, a hidden layer of rectifiers has none of the odd ones above the
first, whatever its weights @basri2019convergence @bietti2019inductive: a target made of them is missed by all of its variance. One bias a unit,
or a second hidden layer, is enough to have them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def network(width: int, bias: bool, layers: int, seed: int) -> MLP:
    """Rectifiers on the plane, PyTorch's default weights."""
    widths = [2, *[width] * layers, 1]
    return MLP(widths, activation="relu", bias=bias, generator=torch.Generator().manual_seed(seed))


FREED: dict[str, dict[str, Any]] = {
    "no biases: with biases": dict(bias=True),
    "one hidden layer: two": dict(layers=2),
}
LABELS = {"": "no biases", "no biases: with biases": "biases", "one hidden layer: two": "two hidden layers"}


def draw_harmonics(ax: Any, rows: Rows) -> Columns:
    """Which waves random networks are made of.

    Amplitude on the circle against frequency, logarithmic vertical axis, one network of each kind. Without biases the dots of
    the odd frequencies from three on lie at rounding, fifteen orders of magnitude below the even ones. With biases, or
    with a second hidden layer, odd and even ones lie on one falling curve.
    """
    width = max(row.point["width"] for row in rows)
    columns: dict[str, Any] = {}
    for row in rows:
        if row.point["width"] == width and row.k == 0 and not row.error:
            columns["frequency"] = np.arange(21)
            columns[LABELS[row.arm]] = np.maximum(row.values["amplitudes"][:21], 1e-19)
            ax.semilogy(columns["frequency"], columns[LABELS[row.arm]], "o", markersize=5, label=LABELS[row.arm])
    ax.set(xlabel="frequency", ylabel="amplitude", title=f"{width} rectifiers", xticks=range(0, 21, 2))
    ax.legend()
    return columns


@claim(
    source=("basri2019convergence", "bietti2019inductive"),
    predicts=AtMost("rounding(width)"),
    quick=Grid(width=[4, 64, 1024], seeds=5),
    full=Grid(width=[4, 64, 1024, 16384], seeds=50),
    controls=FREED,
    figures=(draw_harmonics,),
)
def biasfree_relu_even_harmonics(width: int, seed: int, bias: bool = False, layers: int = 1) -> dict[str, Any]:
    r"""Without biases a hidden layer of rectifiers has no odd frequency above the first.

    As $"relu"(z) = (z + abs(z)) \/ 2$, the odd part of $f(x) = sum_i a_i "relu"(w_i dot x)$ is linear. On the circle
    $x = (cos theta, sin theta)$ its Fourier coefficients at $k = 3, 5, 7, dots$ vanish for all weights
    @basri2019convergence @bietti2019inductive. The value is the largest amplitude at an odd frequency
    from $3$ to $127$, by the discrete Fourier transform at $256$ points, over the root mean square of $f$. Controls: biases;
    a second hidden layer, to which the argument does not extend.
    """
    modes = la.circle_modes(256, 127)
    with torch.no_grad():
        f = network(width, bias, layers, seed)(modes.points.to(torch.get_default_device()))[:, 0]
    amplitudes = modes.amplitudes(f)
    return {"value": amplitudes[3::2].max() / f.square().mean().sqrt(), "amplitudes": amplitudes}


def draw_floor(ax: Any, rows: Rows) -> Columns:
    """Networks learn the wave cos 3θ, or cannot.

    Mean square error against the step of training, three networks of each kind, logarithmic vertical axis. Without biases
    all stop at the dashed line at one half; with biases, or with a second hidden layer, all fall through it, by orders of
    magnitude.
    """
    columns: dict[str, Any] = {}
    for place, (arm, label) in enumerate(LABELS.items()):
        chosen = [row for row in rows if row.arm == arm and row.k < 3 and not row.error]
        for row in chosen:
            columns["step"] = np.arange(len(row.values["losses"]))
            columns[f"{label}, network {row.k + 1}"] = row.values["losses"]
            ax.semilogy(row.values["losses"], color=f"C{place}", label=label if row is chosen[0] else None)
    ax.axhline(0.5, color="0.3", linestyle="--", linewidth=1, label="variance of the target")
    ax.set(xlabel="step", ylabel="mean square error")
    ax.legend(fontsize="small", loc="lower left")
    return columns


@claim(
    source="basri2019convergence",
    predicts=Equals(0.5, within="rounding(64, 10)", of="each"),
    quick=Grid(width=[64], steps=[300], seeds=5),
    full=Grid(width=[16, 64, 256], steps=[2000], seeds=20),
    controls=FREED,
    figures=(draw_floor,),
)
def biasfree_relu_even_harmonics_floor(
    width: int, steps: int, seed: int, bias: bool = False, layers: int = 1
) -> dict[str, Any]:
    r"""No training teaches a bias-free hidden layer of rectifiers the third wave.

    As $cos 3 theta$ is orthogonal on the circle to all functions $f(x) = sum_i a_i "relu"(w_i dot x)$,
    $ EE (f - cos 3 theta)^2 = 1/2 + EE f^2 >= 1/2, $
    the variance of the target: the best that can be done is $f = 0$ @basri2019convergence. The value is the smallest mean
    square error, at $64$ points, over all steps of training by Adam, and after that with the read-out that fits
    best by least squares. That it equals one half says that nothing gets below, and that the floor is reached. Controls:
    biases; a second hidden layer.
    """
    modes = la.circle_modes(64, 3)
    x, target = (part.to(torch.get_default_device()) for part in (modes.points, modes.basis[:, 5:6] / 2**0.5))
    net = network(width, bias, layers, seed)
    optimizer = partial(torch.optim.Adam, lr=0.01)
    losses = train([net], nn.functional.mse_loss, lambda step: (x[None], target[None]), steps, optimizer)[:, 0]
    with torch.no_grad():
        features = net.activation(net.preactivations(x)[-2])  # (64 width)
        best = features @ (torch.linalg.pinv(features, rtol=1e-10) @ target)
    fitted = (best - target).square().mean()
    return {"value": torch.minimum(losses.min(), fitted), "losses": losses, "trained": losses.min(), "fitted": fitted}


if __name__ == "__main__":
    script(__file__)
