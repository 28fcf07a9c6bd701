r"""How long a wide network takes to learn a wave.

Wide networks learn like a machine with a fixed kernel, and what is to be learned falls apart into that kernel's
eigenfunctions. For a hidden layer of rectifiers with biases and uniform data on the circle these are waves, with
eigenvalues $prop k^(-2)$ @basri2019convergence; on the sphere they are spherical harmonics @bietti2019inductive. So high frequencies are learned late, by
a law without a fitted constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import exp, log
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.studies.claim import Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def here(values: Tensor) -> Tensor:
    """Where the trial computes."""
    return values.to(torch.get_default_device())


class FirstLayer(nn.Module):
    r"""$f(x) = sqrt(2 \/ n) sum_i a_i (phi(w_i dot x + b_i) - phi(w_i^0 dot x))$: it starts at zero, and a stays."""

    start: Tensor
    a: Tensor

    def __init__(self, width: int, units: str, bias: bool, seed: int, inputs: int = 2) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.phi, scale = (torch.relu, 1.0) if units == "rectifiers" else (torch.sin, 30.0 if units == "fast" else 1.0)
        start = scale * gaussian(draws, width, inputs)
        self.w, self.b = nn.Parameter(start.clone()), nn.Parameter(torch.zeros(width), requires_grad=bias)
        self.register_buffer("start", start)
        self.register_buffer("a", gaussian(draws, width).sign() * (2 / width) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The output at x (N, inputs): (N,)."""
        return (self.phi(x @ self.w.T + self.b) - self.phi(x @ self.start.T)) @ self.a


def eigenvalue(k: int, points: int) -> float:
    r"""Of the infinitely wide network's kernel at frequency k: the mean of $(1 + cos θ)(1 - θ / π) cos k θ$ over the points."""
    angle = np.abs(2 * np.pi * np.arange(points) / points - np.pi)  # from the point opposite
    return float(np.mean((1 - np.cos(angle)) * (angle / np.pi) * np.cos(k * (np.pi - angle))))


def draw_spectrum(ax: Any, rows: Rows) -> Columns:
    """Eigenvalues of the tangent kernel on the circle fall like the inverse square of the frequency.

    Eigenvalue against frequency, both logarithmic, means over networks. Rectifiers with biases follow the line of slope
    minus two and the infinitely wide network's. Without biases the odd frequencies are missing, at the lower edge; fast
    sines have nearly the same eigenvalue at all.
    """
    chosen = [row for row in rows if row.point["points"] == max(r.point["points"] for r in rows) and not row.error]
    k = np.array(sorted({row.point["k"] for row in chosen}))
    columns: dict[str, Any] = {"frequency": k}
    for arm, label, mark in (("", "rectifiers", "o"), (NO_BIAS, "without biases", "x"), (FAST, "fast sines", "s")):
        found = [[r.values["value"] for r in chosen if (r.arm, r.point["k"]) == (arm, one)] for one in k]
        columns[label] = [max(np.mean(values), 1e-5) for values in found]
        ax.loglog(k, columns[label], mark, label=label)
    points = chosen[0].point["points"]
    fine = np.arange(1, 25)
    columns["infinitely wide"] = [eigenvalue(int(one), points) for one in k]
    ax.loglog(fine, [eigenvalue(int(one), points) for one in fine], color="C0", linewidth=1, label="infinitely wide")
    ax.loglog(fine, columns["infinitely wide"][0] * (k[0] / fine) ** 2, color="0.3", linestyle="--", label="slope −2")
    ax.set(xlabel="frequency k", ylabel="eigenvalue", ylim=(5e-6, 5), xticks=k, xticklabels=k)
    ax.minorticks_off()
    ax.legend(fontsize="small", loc="lower left")
    return columns


NO_BIAS, FAST = "biases: none", "rectifiers: sines of thirty times the frequency"


@claim(
    source=("basri2019convergence", "bietti2019inductive"),
    predicts=Scales("k", power=-2, within=0.15),
    quick=Grid(k=[4, 5, 8, 11, 16], points=[64, 128], width=[4000], seeds=5),
    full=Grid(k=[4, 5, 6, 8, 11, 16], points=[64, 128, 512], width=[4000, 16000], seeds=20),
    controls={NO_BIAS: dict(bias=False), FAST: dict(units="fast")},
    figures=(draw_spectrum,),
)
def ntk_circle_spectrum(
    k: int, points: int, width: int, seed: int, bias: bool = True, units: str = "rectifiers"
) -> float:
    r"""The tangent kernel of rectifiers has an eigenvalue like the inverse square of the frequency.

    Let $f(x) = sqrt(2\/n) sum_i a_i "relu"(w_i dot x + b_i)$ with signs $a_i$, and let the first layer be trained, from Gaussian $w_i$ and
    $b_i = 0$. Uniform points on the circle see a kernel that is circulant as $n -> oo$: its eigenvectors are the waves
    $cos k theta$, $sin k theta$, with eigenvalues $lambda_k prop k^(-2)$ @basri2019convergence @bietti2019inductive; $k^(-d)$ on the sphere
    in $RR^d$. The value is the quadratic form of a network's kernel on $sin k theta$. On $64$ points high
    frequencies gain what belongs to the waves that look the same there, and the slope is a little flatter than on
    $128$. Controls: without biases every other eigenvalue vanishes; fast sines have a flat spectrum.
    """
    modes = la.circle_modes(points, k)
    kernel = la.NTK(FirstLayer(width, units, bias, seed), here(modes.points))
    wave = here(modes.basis[:, -1] / points)
    return max(float(wave @ (kernel @ wave)), 1e-12)


@claim(
    source=("basri2019convergence", "bietti2019inductive"),
    predicts=Scales("degree", power=-3, within=0.15),
    quick=Grid(degree=[4, 5, 8, 16], rings=[48], width=[500], seeds=5),
    full=Grid(degree=[4, 5, 6, 8, 11, 16], rings=[48, 64], width=[2000], seeds=20),
    controls={NO_BIAS: dict(bias=False), FAST: dict(units="fast")},
)
def ntk_circle_spectrum_sphere(
    degree: int, rings: int, width: int, seed: int, bias: bool = True, units: str = "rectifiers"
) -> float:
    r"""On the sphere the tangent kernel's eigenvalues fall like the inverse cube of the degree.

    For the network of the last claim, with uniform inputs on the sphere in $RR^d$, the eigenfunctions are spherical harmonics, and
    the eigenvalues of degree $l$ fall like $l^(-d)$ @basri2019convergence @bietti2019inductive; here $d = 3$. The value is the quadratic form of a
    network's kernel on a random harmonic of degree $l$ and mean square one, with weights that integrate polynomials
    on the sphere exactly. Controls as on the circle.
    """
    modes = la.sphere_modes(rings, degree)
    own = modes.basis[:, modes.frequencies == degree]
    mixture = gaussian(torch.Generator().manual_seed(seed + 1), own.shape[1])
    wave = here(modes.weights[:, None] * own) @ (mixture / mixture.norm())
    kernel = la.NTK(FirstLayer(width, units, bias, seed, inputs=3), here(modes.points))
    return max(float(wave @ (kernel @ wave)), 1e-12)


def uneven(modes: la.Modes) -> la.Modes:
    r"""The same waves at points of density $(1 + 0.8 cos theta) \/ 2 pi$, by Kepler's equation."""
    level = torch.arange(len(modes.points), dtype=torch.float64, device="cpu") * (2 * np.pi / len(modes.points))
    angle = level.clone()
    for _ in range(200):
        angle = level - 0.8 * angle.sin()
    turns = modes.frequencies[1::2] * angle[:, None]
    waves = torch.stack([turns.cos(), turns.sin()], 2).flatten(1) * 2**0.5
    points = torch.stack([angle.cos(), angle.sin()], 1)
    return la.Modes(points, modes.weights, torch.cat([modes.basis[:, :1], waves], 1), modes.frequencies)


def draw_times(ax: Any, rows: Rows) -> Columns:
    """Wide networks take the time that the kernel's eigenvalue says to learn a wave.

    Steps until a wave's residual has fallen by a factor of e against its frequency, both logarithmic. The dots of networks
    lie on the line of the infinitely wide network, two orders of magnitude up from frequency one to frequency eight.
    Crosses, of unevenly distributed points, and squares, of sines, lie off it.
    """
    columns: dict[str, Any] = {"frequency": sorted({row.point["k"] for row in rows})}
    for arm, label, mark in (("", "rectifiers", "o"), (UNEVEN, "uneven points", "x"), (SINES, "sines", "s")):
        found = [[r for r in rows if (r.arm, r.point["k"]) == (arm, k) and not r.error] for k in columns["frequency"]]
        steps = [float(np.mean([r.values["steps"] for r in group])) for group in found]
        columns[label] = [value if value < NEVER else np.nan for value in steps]
        ax.loglog(columns["frequency"], columns[label], mark, label=label)
    own = [r for r in rows if not r.arm]
    columns["predicted"] = [next(r.values["predicted"] for r in own if r.point["k"] == k) for k in columns["frequency"]]
    ax.loglog(columns["frequency"], columns["predicted"], color="C0", linewidth=1, label="predicted")
    ax.set(xlabel="frequency k", ylabel="steps to 1/e", xticks=columns["frequency"], xticklabels=columns["frequency"])
    ax.minorticks_off()
    ax.legend()
    return columns


NEVER = 1e6
UNEVEN, SINES = "uniform points: of density 1 + 0.8 cos θ", "rectifiers: sines"


@claim(
    source=("basri2019convergence", "basri2020frequency"),
    predicts=Equals(1, within=0.1, of="each"),
    quick=Grid(k=[1, 3, 5, 8], width=[2048], seeds=2),
    full=Grid(k=[1, 2, 3, 4, 5, 6, 7, 8], width=[2048, 8192], seeds=10),
    controls={
        UNEVEN: dict(even=False),
        SINES: dict(units="sines"),
        "lazy training: a target ten times as large": dict(amplitude=1.0),
    },
    figures=(draw_times,),
)
def ntk_circle_spectrum_times(
    k: int, width: int, seed: int, even: bool = True, units: str = "rectifiers", amplitude: float = 0.1
) -> dict[str, float]:
    r"""Wide networks learn a wave in the time that the kernel's eigenvalue says.

    Under gradient descent with rate $eta$, as long as the kernel stays what it was, the residual at frequency $k$ falls like
    $(1 - eta lambda_k)^t$, by a factor of $e$ in $-1\/ln(1 - eta lambda_k)$ steps, $prop k^2$ @basri2019convergence. The network is that of
    the first claim and starts at zero; the target is a single wave at $32$ points, of root mean square $0.1$: small, so that the
    network need not move far. The value is the predicted number of steps over that which it took, with
    $lambda_k$ of the infinitely wide network: no fitted constant. Controls: points with a density, where no wave is an
    eigenvector @basri2020frequency; sines in place of rectifiers; a larger target, for which the first layer has to move.
    """
    modes, rate = la.circle_modes(32, 15), 1.5
    predicted = -1 / log(1 - rate * eigenvalue(k, 32))
    modes = modes if even else uneven(modes)
    wave = amplitude * modes.basis[:, 2 * k - 1]
    net = FirstLayer(width, units, True, seed)
    found = la.frequency_learning([net], modes, wave, partial(torch.optim.SGD, lr=rate), steps=int(1.4 * predicted) + 2)
    place = found.frequencies.tolist().index(k)
    steps = min(float(found.times(exp(-1))[0, place]), NEVER)
    return {"value": predicted / steps, "steps": steps, "predicted": predicted}


if __name__ == "__main__":
    script(__file__)
