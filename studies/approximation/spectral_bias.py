r"""Which frequencies trained networks learn first.

Plain networks fit the low frequencies of a target before the high ones: the spectral bias @rahaman2019spectral, or frequency
principle @xu2020frequency. It is no property of networks as such: with sines for units, of a high enough frequency, it is gone
@sitzmann2020implicit, and so it is with waves for inputs @tancik2020fourier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lemmata.analysis as la
from lemmata.architectures import MLP, Law
from lemmata.studies.claim import AtLeast, Grid, claim, script

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

WAVES = "the position as input: waves of every frequency"
OMEGA = 30.0
#: Uniform on ±1/n in the first layer, of one input, then on ±√(6/n)/ω; the biases as PyTorch has them.
SIREN = Law("SIREN", lambda n, m: 1 / 3 if n == 1 else 2 / n / OMEGA**2, lambda n, m: 1 / (3 * n), "uniform")


def fast_sine(z: Tensor) -> Tensor:
    """The units of a SIREN."""
    return torch.sin(OMEGA * z)


class Centred(nn.Module):
    """A network on [−1, 1], asked on [0, 1)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """The output at x (N, 1): (N, 1)."""
        return self.net(2 * x - 1)


class Waves(nn.Module):
    """A network that is given waves up to a frequency in place of the position."""

    def __init__(self, net: nn.Module, highest: int) -> None:
        super().__init__()
        self.net, self.highest = net, highest

    def forward(self, x: Tensor) -> Tensor:
        """The output at x (N, 1): (N, 1)."""
        angle = 2 * pi * x * torch.arange(1, self.highest + 1, device=x.device)
        return self.net(torch.cat([angle.cos(), angle.sin()], 1))


def network(units: str, width: int, draws: torch.Generator, highest: int = 0) -> nn.Module:
    """Two hidden layers, in single precision; with waves up to the highest frequency as inputs, if one is given."""
    sines = units.startswith("sin")
    how: dict[str, Any] = dict(dtype=torch.float32, generator=draws)
    how |= dict(activation=fast_sine, init=SIREN) if sines else dict(activation=units)
    net = MLP([2 * highest or 1, width, width, 1], **how)
    return Waves(net, highest) if highest else Centred(net)


def shown(rows: Rows) -> Rows:
    """The trials with the fewest frequencies, and among them the narrowest networks."""
    good = [row for row in rows if not row.error]
    least = min((row.point["highest"], row.point["width"]) for row in good)
    return [row for row in good if (row.point["highest"], row.point["width"]) == least]


def draw_learning(ax: Any, rows: Rows) -> Columns:
    """What is left of each frequency as networks of rectifiers learn the target.

    Residual over that at the start against the step of training, geometric means over networks, one curve a frequency,
    logarithmic vertical axis. From blue, the lowest frequency, to red, the highest, the curves fall one after the other.
    """
    chosen = [r.values["left"] for r in shown(rows) if not r.arm and r.point["units"] == "relu"]
    curves = np.exp(np.log(np.maximum(chosen, 1e-6)).mean(0)).T  # (frequencies, times)
    columns: dict[str, Any] = {"step": STRIDE * np.arange(curves.shape[1])}
    for k, curve in enumerate(curves, 1):
        shade = (k - 1) / (len(curves) - 1)
        columns[f"frequency {k}"] = curve
        ax.semilogy(columns["step"], curve, color=(shade, 0.3, 1 - shade), label=f"k = {k}")
    ax.axhline(0.5, color="0.3", linestyle="--", linewidth=1)
    ax.set(xlabel="step", ylabel="residual over that at the start")
    ax.legend(fontsize="small")
    return columns


def draw_order(ax: Any, rows: Rows) -> Columns:
    """Time to learn half of a frequency, for three kinds of units.

    Steps over those for frequency one against frequency, medians over networks, logarithmic vertical axis. Rectifiers and
    tanh rise from frequency to frequency, to tenfold and more; fast sines take about as long for each. So do crosses, for
    rectifiers with waves as inputs.
    """
    columns: dict[str, Any] = {}
    for arm, units, mark in (
        ("", "relu", "o-"),
        ("", "tanh", "o-"),
        ("", "sine, ω = 30", "s-"),
        (WAVES, "relu", "x:"),
    ):
        found = [r.values["times"] for r in shown(rows) if (r.arm, r.point["units"]) == (arm, units)]
        times = np.median(found, 0)
        columns["frequency"] = np.arange(1, len(times) + 1)
        label = units + (", waves as inputs" if arm else "")
        columns[label] = times / times[0]
        ax.semilogy(columns["frequency"], columns[label], mark, label=label)
    ax.set(xlabel="frequency k", ylabel="steps to one half, over those for k = 1")
    ax.legend(fontsize="small")
    return columns


STRIDE = 5


@claim(
    source=("rahaman2019spectral", "xu2020frequency", "sitzmann2020implicit", "tancik2020fourier"),
    predicts=AtLeast(0.9, of="mean"),
    quick=Grid(units=["relu", "tanh", "sine, ω = 30"], highest=[8], width=[256], steps=[500], seeds=14),
    full=Grid(units=["relu", "tanh", "sine, ω = 30"], highest=[8, 10], width=[256, 512], steps=[2000], seeds=20),
    controls={WAVES: dict(waves=True)},
    expects="DEPENDS",
    switch="units",
    figures=(draw_learning, draw_order),
)
def spectral_bias_frequency_order(
    units: str, highest: int, width: int, steps: int, seed: int, waves: bool = False
) -> dict[str, Any]:
    r"""Networks learn low frequencies before high ones.

    Contested. For targets $sum_(k=1)^K sin(2 pi k x + phi_k)$ on an interval, networks of rectifiers and of tanh units were found to fit
    frequencies in ascending order @rahaman2019spectral @xu2020frequency; networks of sines $sin(30 (W x + b))$ were made to fit
    all at once @sitzmann2020implicit. The switch is the units. Networks with two wide hidden layers, inputs in $[-1, 1]$ and
    their usual initial weights are trained on $24$ points by Adam at its usual rate, $0.001$, with random phases. The value is
    Spearman's rank correlation of $k$ with the number of steps until half of what was missing at frequency $k$ is there; those
    never learned come last. In the control the inputs are $cos 2 pi k x$, $sin 2 pi k x$, $k <= K$, in place of $x$: all frequencies are
    then learned at once, in few steps @tancik2020fourier. Training is in single precision; the sines and the control, which
    are quick, take a tenth of the steps.
    """
    draws = torch.Generator().manual_seed(seed)
    net = network(units, width, draws, highest if waves else 0)
    modes = la.interval_modes(24, 11)
    phases = 2 * pi * torch.rand(highest, generator=draws, dtype=torch.float64, device="cpu")
    k = torch.arange(1, highest + 1, dtype=torch.float64, device="cpu")
    target = torch.sin(2 * pi * k * modes.points + phases).sum(1)
    optimizer = partial(torch.optim.Adam, lr=0.001, fused=True)
    steps = steps // 10 if waves or units.startswith("sin") else steps  # they have learned all by then
    found = la.frequency_learning([net], modes, target, optimizer, steps, dtype=torch.float32)
    left = (found.residuals / found.residuals[0])[::STRIDE, 0]
    return {"value": found.order[0], "times": found.times()[0].clamp(max=steps), "left": left}


if __name__ == "__main__":
    script(__file__)
