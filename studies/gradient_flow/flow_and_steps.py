r"""Gradient flow, and the steps that follow it.

Gradient descent is Euler's method for gradient flow. Its path stays within the order of the step size of the flow, and within the
square of it of another flow, that of the loss with a penalty on the size of its gradient @barrett2021implicit @hairer2006geometric.
For a network of two linear layers the flow can be solved: each singular direction of the target is learned along a
sigmoid of its own, the strongest first @saxe2014exact @saxe2019mathematical.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.gradient_flow import integrate, mode_strength, penalised
from lemmata.architectures import ARCHITECTURES, DeepLinear
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import (
    Iterates,
    Objective,
    descent,
    flat_parameters,
    load_parameters,
    objective,
    squared_error,
)

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
SMOOTH = ["mlp", "gru", "encoder"]
DOUBLED = 2 ** np.arange(4)  # four step sizes, each half the one before


def problem(name: str, seed: int) -> tuple[Objective, Tensor, float]:
    """The loss of one of the lab's small networks, where it starts, and the time to follow it.

    It starts at its own parameters plus Gaussian ones. The time is two over the largest curvature there.
    """
    entry = next(entry for entry in ARCHITECTURES if entry.name == name)
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    model = entry.build().to(device, dtype)
    start = flat_parameters(model)
    start = start + 0.1 * gaussian(torch.Generator().manual_seed(seed), len(start))
    load_parameters(model, start)
    batch = entry.sample(seed % 2**31, dtype, device)
    sharpest = la.eigenpairs(la.Hessian(model, entry.loss, batch), k=1, tol=1e-3).values[0]
    return objective(model, entry.loss, *batch), start, 2 / float(sharpest)


def after(path: Iterates, steps: int) -> Tensor:
    """Where a path is after a number of steps."""
    return next(islice(path, steps, None))[0]


def at(loss: Objective, start: Tensor, time: float, tol: float) -> Tensor:
    """Where gradient flow is at a time, to a share of the way."""
    return integrate(loss, start, [time], tol=tol).parameters[0]


def slope_of(distances: Sequence[float]) -> float:
    """Slope of the logarithms of distances against those of the step sizes."""
    return float(-np.polyfit(np.log(DOUBLED), np.log(distances), 1)[0])


@claim(
    source="hairer2006geometric",
    predicts=Equals(1, within=0.1, of="each"),
    quick=Grid(network=SMOOTH, coarsest=[8], seeds=3),
    full=Grid(network=[*SMOOTH, "cnn", "rnn", "gpt"], coarsest=[128], seeds=10),
    controls={"a fixed time: a single step": dict(single=True)},
)
def gd_vs_gradient_flow(network: str, coarsest: int, seed: int, single: bool = False) -> dict[str, Any]:
    r"""Gradient descent stays within the order of the step size of gradient flow.

    For a smooth loss, the distance between $theta_k$ of gradient descent and $theta(k eta)$ of gradient flow, from the same
    start and at a fixed time $k eta$, is proportional to $eta$: Euler's method is of order one @hairer2006geometric. The value is the
    slope of the logarithm of the distance against $log eta$, over four step sizes, each half the one before, at the time of two over
    the largest curvature at the start. The flow is integrated to about a hundredth of the smallest distance. After a single step, the
    control, the distance is of order $eta^2$.
    """
    loss, start, time = problem(network, seed)
    counts = (coarsest * DOUBLED).tolist()
    tol = 0.01 / counts[-1]  # of the order of a hundredth of the smallest distance
    end, distances = at(loss, start, time, tol), []
    for count in counts:
        reference, steps = (at(loss, start, time / count, tol), 1) if single else (end, count)
        distances.append(float((after(descent(loss, start, time / count), steps) - reference).norm()))
    return {"value": slope_of(distances), "distances": np.array(distances)}


def draw_orders(ax: Any, rows: Rows) -> Columns:
    """Distance of gradient descent from the flow of a loss with a penalty, against the step size.

    Both axes logarithmic, one network. The line for the weight one quarter falls with slope two, those for other weights lie
    above it and fall with slope one.
    """
    chosen = [row for row in rows if row.k == 0 and row.point["network"] == SMOOTH[-1]]
    columns: dict[str, Any] = {"step size ÷ time": 1 / (chosen[0].point["coarsest"] * DOUBLED)}
    for row in chosen:
        label = row.arm.partition(": ")[2] or "a quarter of the step size"
        columns[label] = row.values["distances"]
        ax.loglog(columns["step size ÷ time"], columns[label], "o-", label=label)
    ax.set(xlabel="step size ÷ time", ylabel="distance at the end")
    ax.legend()
    return columns


@claim(
    source=("barrett2021implicit", "hairer2006geometric"),
    predicts=Equals(2, within=0.1, of="each"),
    quick=Grid(network=SMOOTH, coarsest=[8], seeds=1),
    full=Grid(network=[*SMOOTH, "cnn", "rnn", "gpt"], coarsest=[128], seeds=10),
    controls={
        "a quarter of the step size: half of it": dict(share=0.5),
        "a penalty: a reward of the same size": dict(share=-0.25),
    },
    figures=(draw_orders,),
)
def gd_vs_gradient_flow_modified(network: str, coarsest: int, seed: int, share: float = 0.25) -> dict[str, Any]:
    r"""Gradient descent follows the flow of a loss that penalises the gradient.

    At a fixed time, gradient descent is within the order of $eta^2$ of gradient flow on
    $tilde(L) = L + eta\/4 norm(nabla L)^2$ @barrett2021implicit, by backward error analysis of Euler's method @hairer2006geometric.
    Large steps prefer flat slopes. The value is the slope of the logarithm of the distance against $log eta$, at the time and over
    the step sizes of the claim above; $nabla^2 L nabla L$ is a difference of gradients. Controls: with half the step size, or with the other sign, the terms of
    order $eta$ do not cancel.
    """
    loss, start, time = problem(network, seed)
    distances = []
    for count in (coarsest * DOUBLED).tolist():
        reference = at(penalised(loss, share * time / count), start, time, 0.1 / count**2)
        distances.append(float((after(descent(loss, start, time / count), count) - reference).norm()))
    return {"value": slope_of(distances), "distances": np.array(distances)}


# Modes of a deep linear network

STRENGTHS = (3.0, 2.0, 1.0)
SIZES = (5, 3, 4)
HORIZON = 5.0


def sigmoids(times: np.ndarray, start: float) -> np.ndarray:
    """a(t) of each mode, from a(0) = start: (times, modes)."""
    return np.stack([mode_strength(times, s, start) for s in STRENGTHS], 1)


class Modes:
    """A linear network, whitened inputs, and targets that are a linear map of them with known singular directions."""

    def __init__(self, seed: int, start: float, layers: int, aligned: bool) -> None:
        draws = torch.Generator().manual_seed(seed)
        n, hidden, m = SIZES
        inputs = torch.linalg.qr(gaussian(draws, 40, n))[0] * math.sqrt(40)  # the covariance is I
        self.left, self.right, inner = (
            torch.linalg.qr(gaussian(draws, size, size))[0][:, :hidden] for size in (m, n, hidden)
        )
        strengths = torch.tensor(STRENGTHS, dtype=inputs.dtype, device=inputs.device)
        self.network = DeepLinear(list(SIZES) if layers == 2 else [n, m], generator=draws)
        weights = [inner @ self.right.T, self.left @ inner.T] if layers == 2 else [self.left @ self.right.T]
        if not aligned:
            weights = [gaussian(draws, *weight.shape) / math.sqrt(weight.shape[1]) for weight in weights]
        flat = torch.cat([(start ** (1 / layers) * weight).flatten() for weight in weights])
        load_parameters(self.network, flat)
        self.loss = objective(self.network, squared_error, inputs, inputs @ (self.left * strengths @ self.right.T).T)

    def path(self, step: float, descending: bool) -> tuple[np.ndarray, np.ndarray]:
        """Times, and Uᵀ W₂ W₁ V at each: (times, modes, modes)."""
        times, start = np.arange(round(HORIZON / step) + 1) * step, flat_parameters(self.network)
        if descending:
            path = [flat for flat, _ in islice(descent(self.loss, start, step), len(times))]
        else:
            path = list(integrate(self.loss, start, times.tolist(), tol=1e-6).parameters)
        products = [load_parameters(self.network, flat).product().detach() for flat in path]  # type: ignore[operator]
        return times, (self.left.T @ torch.stack(products) @ self.right).cpu().numpy()


def largest_error(times: np.ndarray, found: np.ndarray, start: float) -> float:
    """Largest entry of Uᵀ W₂ W₁ V − diag a(t) over time, in units of the strongest mode."""
    truth = sigmoids(times, start)[:, :, None] * np.eye(len(STRENGTHS))
    return float(np.abs(found - truth).max() / max(STRENGTHS))


def draw_modes(ax: Any, rows: Rows) -> Columns:
    """Strength of each mode of the network over time.

    Three sigmoids that rise one after the other, the highest first; dots lie on the predicted lines. Dashed, a network of
    one layer: all three modes rise at once, without delay.
    """
    start = 1e-3
    chosen = {row.arm: row.values for row in rows if row.k == 0 and row.point["start"] == start}
    times = chosen[""]["time"]
    columns: dict[str, Any] = {"time": times}
    for place, s in enumerate(STRENGTHS):
        columns |= {f"s = {s:g}, two layers": chosen[""]["modes"][:, place]}
        columns |= {f"s = {s:g}, one layer": chosen[SHALLOW]["modes"][:, place]}
        ax.plot(times, sigmoids(times, start)[:, place], color=f"C{place}", linewidth=1)
        ax.plot(times, columns[f"s = {s:g}, two layers"], ".", color=f"C{place}", label=f"s = {s:g}, two layers")
        ax.plot(
            times, columns[f"s = {s:g}, one layer"], "--", color=f"C{place}", linewidth=1, label=f"s = {s:g}, one layer"
        )
    ax.set(xlabel="time", ylabel="strength of the mode, a(t)", ylim=(0, 4))
    ax.legend(ncols=3, fontsize=7)
    return columns


SHALLOW = "two layers: one"
ANY = "balanced and aligned weights at the start: random ones"


@claim(
    source=("saxe2014exact", "saxe2019mathematical"),
    predicts=AtMost(1e-6),
    quick=Grid(start=[1e-3, 0.1], steps=[400], seeds=2),
    full=Grid(start=[1e-4, 1e-3, 0.1], steps=[2000], seeds=20),
    controls={SHALLOW: dict(layers=1), ANY: dict(aligned=False)},
    figures=(draw_modes,),
)
def saxe_mode_learning(start: float, steps: int, seed: int, layers: int = 2, aligned: bool = True) -> dict[str, Any]:
    r"""Two linear layers learn each singular direction of the target along a sigmoid.

    Let the inputs be white, the target a linear map $U S V^top$, and the weights at first $W_1 = sqrt(a_0) R V^top$ and
    $W_2 = sqrt(a_0) U R^top$ with $R$ orthogonal. Under gradient flow $W_2 W_1 = U "diag"(a) V^top$ at all times, with
    $ a(t) = (s e^(2 s t)) / (e^(2 s t) - 1 + s \/ a_0) $
    for each singular value $s$ @saxe2014exact @saxe2019mathematical. The value is the largest deviation of an entry of $U^top W_2 W_1 V$ over the
    time, over the largest $s$.

    Controls: a single layer, from the same product, learns all directions at once along $s - (s - a_0) e^(-t)$; random layers of the same size are neither
    balanced nor aligned, and the solution does not hold.
    """
    times, found = Modes(seed, start, layers, aligned).path(HORIZON / steps, descending=False)
    modes = np.einsum("tii->ti", found)
    return {
        "value": largest_error(times, found, start),
        "time": times[:: steps // 50],
        "modes": modes[:: steps // 50],
    }


@claim(
    source=("saxe2014exact", "saxe2019mathematical"),
    predicts=Equals("log(strength/start - 1)/(2*strength)", within=0.01, of="each"),
    quick=Grid(strength=list(STRENGTHS), start=[1e-3], steps=[250], seeds=1),
    full=Grid(strength=list(STRENGTHS), start=[1e-4, 1e-3], steps=[2000], seeds=20),
    controls={SHALLOW: dict(layers=1), ANY: dict(aligned=False)},
)
def saxe_mode_learning_half_times(
    strength: float, start: float, steps: int, seed: int, layers: int = 2, aligned: bool = True
) -> float:
    r"""Strong directions of the target are learned first, each at a known time.

    In the network of the claim above the direction of singular value $s$ has reached half its strength at
    $t = ln(s\/a_0 - 1) \/ (2 s)$ @saxe2014exact @saxe2019mathematical. The value is that time, between two steps by linear interpolation, or the
    whole time of observation if it does not come.
    """
    times, found = Modes(seed, start, layers, aligned).path(HORIZON / steps, descending=False)
    place = STRENGTHS.index(strength)
    mode = found[:, place, place]
    if mode.max() < strength / 2:
        return HORIZON
    reached = int(np.argmax(mode >= strength / 2))
    around = slice(reached - 1, reached + 1)
    return float(np.interp(strength / 2, mode[around], times[around]))


@claim(
    source=("saxe2014exact", "saxe2019mathematical"),
    predicts=Equals(1, within=0.05, of="each"),
    quick=Grid(start=[1e-3], coarsest=[250], seeds=2),
    full=Grid(start=[1e-4, 1e-3, 0.1], coarsest=[2000], seeds=20),
    controls={SHALLOW: dict(layers=1), ANY: dict(aligned=False)},
)
def saxe_mode_learning_steps(start: float, coarsest: int, seed: int, layers: int = 2, aligned: bool = True) -> float:
    r"""Steps of gradient descent follow the sigmoids to within the order of their size.

    The largest distance of gradient descent, with $eta$ times the number of steps as its time, from the solution of gradient flow in the claim above halves
    with the step size @saxe2014exact @saxe2019mathematical. The value is the slope of its logarithm against that of $eta$, over four step sizes.
    """
    counts = coarsest * DOUBLED
    errors = []
    for count in counts.tolist():
        times, found = Modes(seed, start, layers, aligned).path(HORIZON / count, descending=True)
        errors.append(largest_error(times, found, start))
    return slope_of(errors)


if __name__ == "__main__":
    script(__file__)
