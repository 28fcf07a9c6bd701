r"""Pictures of a loss landscape, and what may be read off them.

A network has thousands of parameters, a picture two axes. The loss on a plane through the trained weights is a slice of
the landscape @goodfellow2015qualitatively. Along random directions its width says more about the scale of the weights than
about the loss, unless every direction is scaled, filter by filter, to the weights it moves @li2018visualizing. Along
eigenvectors of the Hessian its curvature is known. Here are both, for networks trained on handwritten digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lemmata.analysis as la
from lemmata.analysis.curvature import LossSlice, loss_slice, random_directions
from lemmata.studies.claim import AtMost, Grid, claim, script
from lemmata.studies.data import digits
from lemmata.studies.training import flat_parameters, train

MODELS = ("MLP", "CNN")


def network(model: str, activation: type[nn.Module]) -> nn.Sequential:
    """A perceptron or a convolutional network for 8 × 8 images, from torch's own layers."""
    if model == "MLP":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), activation(), nn.Linear(32, 10))
    convolution = nn.Conv2d(1, 8, 3, stride=2, padding=1), activation(), nn.Conv2d(8, 16, 3, stride=2, padding=1)
    return nn.Sequential(*convolution, activation(), nn.Flatten(), nn.Linear(64, 10))


def trained(model: str, steps: int, images: int, seed: int, activation: type[nn.Module]) -> tuple[Any, Tensor, Tensor]:
    """A network after full-batch steps of Adam, its images and their labels."""
    torch.manual_seed(seed)
    net = network(model, activation)
    x, y = digits(images, images=True)
    train([net], cross_entropy, lambda step: (x[None], y[None]), steps, partial(torch.optim.Adam, lr=0.01))
    return net, x, y


def rescale(net: nn.Sequential, factor: float) -> None:
    """Multiply the first layer by a factor and divide the next by it: a ReLU network computes the same function."""
    first, second = [layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)][:2]
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.mul_(factor)
        second.weight /= factor


def draw_surface(rows: Sequence[Any]) -> dict[str, Any]:
    """The loss of a trained convolutional network on a plane of two filter-normalised random directions.

    A surface over a square: a bowl whose floor is near the trained weights in the middle, and whose walls rise unevenly
    towards the corners.
    """
    row = next(row for row in rows if row.arm == "" and row.point["model"] == "CNN")
    x = row.values["x"].tolist()
    labels = {"x_label": "first direction", "y_label": "second direction", "z_label": "training loss"}
    return {"x": x, "y": x, "z": row.values["plane"].tolist(), **labels}


draw_surface.surface = True  # type: ignore[attr-defined]


def draw_lines(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Two perceptrons that compute the same function, seen along the same random directions.

    The loss over the step along a direction. With filter normalisation the curves of the network and of its rescaled copy
    coincide; without it the copy's curve is much steeper and narrower.
    """
    columns: dict[str, Sequence[float]] = {}
    for row in [row for row in rows if row.point["model"] == "MLP" and row.k == 0]:
        kind = "as drawn" if row.arm else "filter-normalised"
        columns["step"] = row.values["x"].tolist()
        for name, style in (("network", "-"), ("rescaled copy", "--")):
            key = f"{name}, {kind}"
            columns[key] = row.values[name.split()[0]].tolist()
            ax.semilogy(columns["step"], columns[key], style, color="#D55E00" if row.arm else "#0072B2", label=key)
    ax.set(xlabel="step along the direction, in units of its length", ylabel="training loss")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return columns


@claim(
    source=("li2018visualizing", "dinh2017sharp"),
    predicts=AtMost(1e-9),
    quick=Grid(model=MODELS, factor=[10.0], steps=[60], images=[300], points=[31], seeds=2),
    full=Grid(model=MODELS, factor=[10.0, 100.0], steps=[300], images=[1797], points=[51], seeds=5),
    controls={"filter normalisation: directions as drawn": dict(normalised=False)},
    figures=(draw_surface, draw_lines),
)
def filter_normalised_slices(
    model: str, factor: float, steps: int, images: int, points: int, seed: int, normalised: bool = True
) -> dict[str, Any]:
    r"""Networks that are rescalings of each other have the same filter-normalised slices.

    Multiply a layer of a ReLU network and its bias by $alpha > 0$ and divide the next layer's weights by $alpha$: the
    network computes the same function @dinh2017sharp. Draw a Gaussian direction and scale the part of each filter to the
    norm of that filter, $d_f <- d_f norm(theta_f) \/ norm(d_f)$ @li2018visualizing. Then
    $L(theta + s d) = L(theta' + s d')$ for all $s$, where $theta'$ is the rescaled network and $d'$ comes from the same
    draw. The value is the largest relative difference of the losses on a plane.

    The control leaves the directions as they were drawn, scaled to the length of all the weights. The rescaled copy then
    looks sharper or flatter, though it is the same function.
    """
    net, x, y = trained(model, steps, images, seed, nn.ReLU)

    def seen(count: int) -> LossSlice:
        directions = random_directions(net, count, seed)
        if not normalised:
            draws = torch.randn(directions.shape, generator=torch.Generator().manual_seed(seed), device="cpu")
            length = flat_parameters(net).norm()
            directions = (draws / draws.norm(dim=0)).to(directions) * length
        return loss_slice(net, cross_entropy, (x, y), directions, extent=1.0, points=points)

    plane, line = seen(2), seen(1)
    rescale(net, factor)
    other, copy = seen(2), seen(1)
    gap = ((plane.losses - other.losses).abs() / plane.losses).max()
    return {
        "value": float(gap),
        "x": plane.coordinates.numpy(),
        "plane": plane.losses.T.numpy(),
        "network": line.losses.numpy(),
        "rescaled": copy.losses.numpy(),
    }


def draw_axes(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The loss of a trained perceptron along its sharpest directions and along a random one of the same length.

    Three curves through the same point: along both eigenvectors the loss rises to several times its value, along the
    random direction it hardly changes.
    """
    row = next(row for row in rows if row.arm == "" and row.point["model"] == "MLP")
    columns = {"step": row.values["x"].tolist()}
    for key, label in (
        ("first", "first eigenvector"),
        ("second", "second eigenvector"),
        ("random", "random direction"),
    ):
        columns[label] = row.values[key].tolist()
        ax.plot(columns["step"], columns[label], label=label)
    ax.set(xlabel="distance from the trained weights", ylabel="training loss")
    ax.legend()
    return columns


@claim(
    source=("li2018visualizing", "goodfellow2015qualitatively"),
    predicts=AtMost(1e-4),
    quick=Grid(model=MODELS, steps=[60], images=[300], seeds=2),
    full=Grid(model=MODELS, steps=[300], images=[1797], seeds=5),
    controls={
        "eigenvectors: random directions": dict(random=True),
        "a smooth activation: ReLU": dict(smooth=False),
    },
    figures=(draw_axes,),
)
def slice_curvature(
    model: str, steps: int, images: int, seed: int, random: bool = False, smooth: bool = True
) -> dict[str, Any]:
    r"""Along eigenvectors of the Hessian a slice bends by the eigenvalues.

    On the plane of two unit eigenvectors, $L(theta + a v_1 + b v_2) = L + g^top (a v_1 + b v_2) + 1/2 (lambda_1 a^2 +
    lambda_2 b^2) + O(norm((a, b))^3)$, with no mixed term. The second derivatives of the picture, taken from
    its own numbers by extrapolated differences, must equal $"diag"(lambda_1, lambda_2)$ from the Lanczos process: forward
    passes alone against derivatives. The value is the largest entry of the difference over $lambda_1$.

    Controls: a plane of random directions, which bends by a small part of $lambda_1$; and a ReLU network, whose loss has
    kinks that differences see and derivatives do not.
    """
    net, x, y = trained(model, steps, images, seed, nn.Tanh if smooth else nn.ReLU)
    pairs = la.eigenpairs(la.Hessian(net, cross_entropy, (x, y)), k=2, tol=1e-8)
    draws = torch.randn(pairs.vectors.shape, generator=torch.Generator().manual_seed(seed), device="cpu")
    chance = torch.linalg.qr(draws.to(pairs.vectors))[0]
    plane = chance if random else pairs.vectors
    bends = loss_slice(net, cross_entropy, (x, y), plane, extent=0.02, points=5).curvature()[0]
    gap = (bends - torch.diag(pairs.values.double().cpu())).abs().max() / pairs.values[0].item()
    lines = {
        name: loss_slice(net, cross_entropy, (x, y), direction, extent=1.0).losses.numpy()
        for name, direction in (("first", plane[:, 0]), ("second", plane[:, 1]), ("random", chance[:, 0]))
    }
    coordinates = torch.linspace(-1, 1, 51).numpy()
    return {"value": float(gap), "x": coordinates, **lines}


if __name__ == "__main__":
    script(__file__)
