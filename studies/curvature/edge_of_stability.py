r"""The edge of stability.

Classical analysis asks for a step size below $2\/lambda_max$ and promises a loss that falls at every step. Neural networks
trained with full-batch gradient descent do otherwise @cohen2021edge: the largest Hessian eigenvalue $lambda_max$, the
*sharpness*, grows until it reaches $2\/eta$, and stays there, while the loss rises and falls from step to step and falls over
longer spans. With heavy-ball momentum the place is $(2 + 2 beta) \/ eta$. Here a network with one hidden layer of 100 tanh
units learns scikit-learn's handwritten digits @alpaydin1998digits. The loss is half the squared distance to the one-hot
label, summed over the ten outputs and averaged over examples; every step uses all examples; nothing is drawn at random
after initialisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.curvature import loss_slice
from lemmata.architectures import MLP
from lemmata.studies.claim import AtLeast, Equals, Grid, claim, script
from lemmata.studies.data import digits, one_hot
from lemmata.studies.training import (
    Iterates,
    descent,
    flat_parameters,
    flow,
    load_parameters,
    objective,
    squared_error,
)

HIDDEN = 100
EVERY = 21  # steps between two measurements of the sharpness; odd, for at the edge the iterates alternate
FLOW_STEP = 0.7  # time step of the Runge–Kutta method over η: stable while λ_max < 2.78 / (0.7 η), twice the edge


class Setting:
    """The network, its data and its loss: everything but the way of training."""

    def __init__(self, examples: int, seed: int) -> None:
        inputs, labels = digits(examples)
        self.batch = inputs, one_hot(labels)
        draws = torch.Generator().manual_seed(seed)
        self.model = MLP([inputs.shape[1], HIDDEN, 10], generator=draws, device=inputs.device)
        self.objective = objective(self.model, squared_error, *self.batch)
        self.start = flat_parameters(self.model)

    def hessian(self, flat: Tensor) -> la.Hessian:
        """The Hessian of the training loss at given parameters."""
        return la.Hessian(load_parameters(self.model, flat), squared_error, self.batch)

    def follow(self, iterates: Iterates, steps: int, eta: float) -> dict[str, Any]:
        """Loss and sharpness along training, each eigenvector search starting from the last one's result."""
        losses, sharpness, vector = [], [], None
        for step, (flat, loss) in enumerate(islice(iterates, steps)):
            losses.append(loss)
            if step % EVERY == 0:
                top = la.eigenpairs(self.hessian(flat), k=1, tol=1e-2, start=vector)
                vector = top.vectors[:, 0]
                sharpness.append(float(top.values[0]))
        measured = np.array(sharpness)
        return {
            "value": eta * float(np.median(measured[2 * len(measured) // 3 :])),
            "step": EVERY * np.arange(len(measured)),
            "sharpness": measured,
            "loss": torch.stack(losses)[::EVERY],
        }


def draw_sharpness(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Sharpness rises past the threshold 2/η (dashed) of its step size, falls back and stays; gradient flow passes it.

    Largest Hessian eigenvalue against the training step. Each solid line, one for a step size, rises past the dashed
    horizontal line of the same colour, which marks two over the step size, falls back to it and levels off. The dotted
    line of gradient flow, on the same time scale, keeps rising.
    """
    columns: dict[str, Sequence[float]] = {}
    first = [row for row in rows if row.k == 0]
    for colour, row in enumerate(row for row in first if row.arm == ""):
        eta, label = row.point["eta"], f"η = {row.point['eta']}"
        _curve(ax, columns, row, label, f"C{colour}", 2 / eta)
    for row in [row for row in first if row.arm.endswith("gradient flow")][:1]:
        columns["step of gradient flow"] = FLOW_STEP * row.values["step"]
        columns["gradient flow"] = row.values["sharpness"]
        ax.plot(columns["step of gradient flow"], columns["gradient flow"], ":", color="0.3", label="gradient flow")
    return _finish(ax, columns)


def draw_heavy_ball(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """With momentum β the sharpness levels off at (2 + 2β)/η.

    Largest Hessian eigenvalue against the training step. Each solid line, one for a momentum, rises and then stays about
    the dashed horizontal line of the same colour. The dotted lines, the same with dampened momentum, pass it.
    """
    columns: dict[str, Sequence[float]] = {}
    first = [row for row in rows if row.k == 0]
    betas = sorted({row.point["beta"] for row in first})
    for row in first:
        beta, eta = row.point["beta"], row.point["eta"]
        label, colour = f"β = {beta}, η = {eta}", f"C{betas.index(beta)}"
        if row.arm == "":
            _curve(ax, columns, row, label, colour, 2 * (1 + beta) / eta)
        elif "dampening" in row.arm:
            columns[f"{label}, dampened"] = row.values["sharpness"]
            ax.plot(row.values["step"], row.values["sharpness"], ":", color=colour, label=f"{label}, dampened")
    return _finish(ax, columns)


def _curve(ax: Any, columns: dict[str, Any], row: Any, label: str, colour: str, threshold: float) -> None:
    columns["step"] = row.values["step"]
    columns[label] = row.values["sharpness"]
    columns[f"threshold, {label}"] = np.full(len(columns["step"]), threshold)
    ax.plot(columns["step"], columns[label], color=colour, label=label)
    ax.axhline(threshold, color=colour, linestyle="--", linewidth=1)


def _finish(ax: Any, columns: dict[str, Any]) -> dict[str, Any]:
    ax.set(xlabel="step", ylabel="sharpness (largest Hessian eigenvalue)", ylim=(0, None))
    ax.legend()
    return columns


def draw_loss(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """At the edge the loss rises and falls and yet gets lower; below it the loss falls at every step.

    Training loss against step on a logarithmic axis. The line of the claim spikes when the sharpness first passes its
    threshold and keeps rising and falling from then on, lower and lower; the line of the run with a tenth of the step size
    is smooth and ends higher.
    """
    columns: dict[str, Sequence[float]] = {}
    for row in [row for row in rows if row.k == 0]:
        label = f"η = {row.point['eta'] * (0.1 if row.arm else 1):g}"
        columns["step"] = list(range(len(row.values["loss"])))
        columns[label] = row.values["loss"]
        ax.semilogy(columns["step"], columns[label], linewidth=0.8, label=label)
    ax.set(xlabel="step", ylabel="training loss")
    ax.legend()
    return columns


def draw_surface(rows: Sequence[Any]) -> dict[str, Any]:
    """The loss around the last iterate, in the plane of the two sharpest directions.

    A surface over a square: a valley that is steep in both directions, its floor near the middle.
    """
    row = next(row for row in rows if row.arm == "" and row.k == 0)
    x, y = (row.values[name] for name in ("x", "y"))
    labels = {"x_label": "along the sharpest direction", "y_label": "along the second", "z_label": "training loss"}
    return {"x": x.tolist(), "y": y.tolist(), "z": row.values["surface"].tolist(), **labels}


draw_surface.surface = True  # type: ignore[attr-defined]


def slice_of(setting: Setting, flat: Tensor) -> dict[str, np.ndarray]:
    """The loss on a 31 × 31 grid in the plane of the top two eigenvectors, each axis in units of its own curvature."""
    hessian = setting.hessian(flat)
    top = la.eigenpairs(hessian, k=2, tol=1e-2)
    reach = (20 * hessian.value / top.values).sqrt()
    plane = loss_slice(
        load_parameters(setting.model, flat),
        squared_error,
        setting.batch,
        top.vectors * reach.to(top.vectors),
        points=31,
    )
    x, y = (plane.coordinates * length for length in reach.tolist())
    return {"x": x.numpy(), "y": y.numpy(), "surface": plane.losses.T.numpy()}


@claim(
    source="cohen2021edge",
    predicts=Equals(2, within=0.2, of="each"),
    quick=Grid(eta=[0.24, 0.28], steps=[420], examples=[300], seeds=2),
    full=Grid(eta=[0.2, 0.24, 0.28], steps=[2000], examples=[1797], seeds=5),
    controls={
        "a step large enough: a tenth of it": dict(fraction=0.1),
        "discrete steps: gradient flow": dict(method="gradient flow"),
    },
    figures=(draw_sharpness,),
    timeout=3600,
)
def edge_of_stability(
    eta: float, steps: int, examples: int, seed: int, fraction: float = 1.0, method: str = "gradient descent"
) -> dict[str, Any]:
    r"""Gradient descent trains at the edge of stability.

    Train a network by full-batch gradient descent with step size $eta$ on the squared error. If training lasts long enough
    for gradient flow to reach a sharpness above $2\/eta$, then the sharpness $lambda_max$ of the iterates rises to $2\/eta$
    and stays near it @cohen2021edge. This is an observation, not a theorem about all networks. The value is $eta$ times the
    median of $lambda_max$ over the last third of training; it must be $2$ to within ten per cent in every run.

    Controls: with a tenth of the step size, training ends long before the sharpness reaches the threshold. Gradient flow,
    followed by a Runge–Kutta method, has no threshold: its sharpness rises past the $2\/eta$ of the run that it is
    compared with.
    """
    setting = Setting(examples, seed)
    if method == "gradient flow":
        return setting.follow(flow(setting.objective, setting.start, FLOW_STEP * eta), steps, eta)
    eta = fraction * eta
    return setting.follow(descent(setting.objective, setting.start, eta), steps, eta)


@claim(
    source="cohen2021edge",
    predicts=AtLeast(0.2),
    quick=Grid(eta=[0.28], steps=[420], examples=[300], seeds=2),
    full=Grid(eta=[0.2, 0.24, 0.28], steps=[2000], examples=[1797], seeds=5),
    controls={"a step large enough: a tenth of it": dict(fraction=0.1)},
    figures=(draw_loss, draw_surface),
    timeout=3600,
)
def edge_of_stability_loss(eta: float, steps: int, examples: int, seed: int, fraction: float = 1.0) -> dict[str, Any]:
    r"""At the edge the loss falls, but not step by step.

    While $eta lambda_max < 2$ along the path, every step of gradient descent lowers the loss. At the edge of stability it
    does not, and yet the loss goes on falling over longer spans @cohen2021edge. The value is the share of the steps in the
    last third of training that raise the loss, counted as zero unless the mean loss of that third lies below the mean loss
    of the third before. With a tenth of the step size no step raises the loss.
    """
    setting = Setting(examples, seed)
    losses, flat = [], setting.start
    for iterate, loss in islice(descent(setting.objective, setting.start, fraction * eta), steps):
        losses.append(loss.item())
        flat = iterate
    middle, last = np.split(np.array(losses[-2 * (steps // 3) :]), 2)
    rising = float(np.mean(np.diff(last) > 0))
    return {"value": rising * (last.mean() < middle.mean()), "loss": np.array(losses), **slice_of(setting, flat)}


@claim(
    source=("cohen2021edge", "polyak1964methods"),
    predicts=Equals("2*(1 + beta)", within="0.2*(1 + beta)", of="each"),
    quick=Grid(beta=[0.5, 0.7], eta=[0.36], steps=[450], examples=[300], seeds=2),
    full=Grid(beta=[0.4, 0.5, 0.6, 0.7], eta=[0.36], steps=[2000], examples=[1797], seeds=5),
    controls={"momentum without dampening: dampening by β": dict(dampened=True)},
    figures=(draw_heavy_ball,),
    timeout=3600,
)
def edge_of_stability_heavy_ball(
    beta: float, eta: float, steps: int, examples: int, seed: int, dampened: bool = False
) -> dict[str, Any]:
    r"""With momentum the edge of stability lies at (2 + 2β)/η.

    Train as before, by the heavy-ball method @polyak1964methods $v <- beta v + nabla L$, $theta <- theta - eta v$. A
    quadratic form of curvature $lambda$ is stable under it if and only if $lambda < (2 + 2 beta) \/ eta$, and the sharpness
    rises to that value and stays near it @cohen2021edge. The value is $eta$ times the median of $lambda_max$ over the last
    third of training; it must be $2 + 2 beta$ to within ten per cent in every run.

    The control dampens the gradient, $v <- beta v + (1 - beta) nabla L$. That moves the threshold up by $1\/(1 - beta)$,
    and the sharpness grows past the first one.
    """
    setting = Setting(examples, seed)
    dampening = beta if dampened else 0.0
    path = descent(setting.objective, setting.start, eta, momentum=beta, dampening=dampening)
    return setting.follow(path, steps, eta)


if __name__ == "__main__":
    script(__file__)
