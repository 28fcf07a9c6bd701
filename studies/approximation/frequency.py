r"""What a network with one hidden layer knows of frequencies.

On a circle, functions are sums of waves, and a hidden layer of rectifiers treats each by its number. Without biases
it has none of the odd waves above the first, whatever its weights: a target made of them is missed by all of its
variance @basri2019convergence. With biases, a wide network learns the wave of frequency $k$ in a time that grows like $k^2$, because
the tangent kernel has an eigenvalue $prop k^(-2)$ there @basri2019convergence @bietti2019inductive.
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
from lemmata.analysis.gradient_flow.duals import dual
from lemmata.architectures import MLP
from lemmata.studies.claim import AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def here(values: Tensor) -> Tensor:
    """Where the trial computes."""
    return values.to(torch.get_default_device())


# Without biases


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
        f = network(width, bias, layers, seed)(here(modes.points))[:, 0]
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
    x, target = (here(part) for part in (modes.points, modes.basis[:, 5:6] / 2**0.5))
    net = network(width, bias, layers, seed)
    optimizer = partial(torch.optim.Adam, lr=0.01)
    losses = train([net], nn.functional.mse_loss, lambda step: (x[None], target[None]), steps, optimizer)[:, 0]
    with torch.no_grad():
        features = net.activation(net.preactivations(x)[-2])  # (64 width)
        best = features @ (torch.linalg.pinv(features, rtol=1e-10) @ target)
    fitted = (best - target).square().mean()
    return {"value": torch.minimum(losses.min(), fitted), "losses": losses, "trained": losses.min(), "fitted": fitted}


# With biases: the tangent kernel


class FirstLayer(nn.Module):
    r"""$f(x) = sqrt(2 \/ n) sum_i a_i (phi(w_i dot x + b_i) - phi(w_i^0 dot x))$: it starts at zero, and a stays."""

    start: Tensor
    a: Tensor

    def __init__(self, width: int, units: str, bias: bool, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.phi, scale = (torch.relu, 1.0) if units == "rectifiers" else (torch.sin, 30.0 if units == "fast" else 1.0)
        start = scale * gaussian(draws, width, 2)
        self.w, self.b = nn.Parameter(start.clone()), nn.Parameter(torch.zeros(width), requires_grad=bias)
        self.register_buffer("start", start)
        self.register_buffer("a", gaussian(draws, width).sign() * (2 / width) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The output at x (N, 2): (N,)."""
        return (self.phi(x @ self.w.T + self.b) - self.phi(x @ self.start.T)) @ self.a


def eigenvalue(k: int, points: int) -> float:
    r"""Of the infinitely wide network's kernel $2 (1 + x dot x') EE phi' phi'$ at frequency k, on the points."""
    modes = la.circle_modes(points, k)
    one, cross = torch.ones(1, dtype=torch.float64, device="cpu"), modes.points @ modes.points.T
    wave = modes.basis[:, -1] / points
    return float(wave @ (2 * (1 + cross) * dual(torch.relu, (0.0,)).slope(one, one, cross)) @ wave)


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
    quick=Grid(k=[4, 5, 6, 8, 11, 16], points=[64, 128], width=[4000], seeds=5),
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
    the last claim and starts at zero; the target is a single wave at $32$ points, of root mean square $0.1$: small, so that the
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
