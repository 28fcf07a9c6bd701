r"""Which changes of coordinates an optimiser does not notice.

Gradient descent knows the geometry of parameter space only through the inner product, so it commutes with every rotation;
momentum @polyak1964methods keeps this. Adam @kingma2015adam divides each coordinate by its own running scale: that makes
it blind to the unit in which the loss is measured, and of the rotations leaves only those that permute the coordinates and
change their signs. Symmetries of an optimiser decide which conservation laws of the loss it inherits @kunin2021neural.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.studies.claim import AtMost, Grid, claim, script

STEPS, SIZE = 50, 20
Loss = Callable[[Tensor], Tensor]


def rippled_bowl(draws: torch.Generator) -> tuple[Loss, Tensor]:
    """The loss ½ θᵀAθ + Σ_i cos(b_i · θ) in 20 dimensions, A of condition number 10, and a start."""
    device = torch.get_default_device()
    basis = orthogonal(draws)
    curvature = (basis * torch.logspace(-1, 0, SIZE, device=device)) @ basis.T
    waves = torch.randn(8, SIZE, generator=draws, device="cpu").to(device) / SIZE**0.5
    start = 2 * torch.randn(SIZE, generator=draws, device="cpu").to(device)
    return lambda theta: 0.5 * theta @ curvature @ theta + torch.cos(waves @ theta).sum(), start


def orthogonal(draws: torch.Generator) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(torch.randn(SIZE, SIZE, generator=draws, device="cpu"))[0].to(torch.get_default_device())


def _signs(draws: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (SIZE,), generator=draws, device="cpu") * 2 - 1


def iterates(loss: Loss, start: Tensor, optimizer: str, **settings: Any) -> Tensor:
    """The first 50 iterates of one of torch's optimisers, shape (51, 20)."""
    theta = start.clone().requires_grad_()
    steps = getattr(torch.optim, optimizer)([theta], **settings)
    path = [theta.detach().clone()]
    for _ in range(STEPS):
        steps.zero_grad()
        loss(theta).backward()
        steps.step()
        path.append(theta.detach().clone())
    return torch.stack(path)


def mismatch(path: Tensor, reference: Tensor) -> Tensor:
    """The distance of two paths after each step, relative to the length of the reference's largest iterate."""
    return (path - reference).norm(dim=1) / reference.norm(dim=1).max()


def draw_paths(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Distance between the rotated path and the path in rotated coordinates, step by step.

    Logarithmic vertical axis over fifty steps. Gradient descent with momentum stays at rounding; Adam, and gradient
    descent after a change of coordinates that is not a rotation, leave at the first step and stay apart.
    """
    columns: dict[str, Sequence[float]] = {"step": list(range(STEPS + 1))}
    for row in rows:
        if row.point["momentum"] == 0.9 and row.k == 0:
            label = row.arm.partition(": ")[2] or "gradient descent with momentum"
            columns[label] = list(np.maximum(row.values["by step"], 1e-18))
            ax.semilogy(columns["step"], columns[label], label=label)
    ax.set(xlabel="step", ylabel="relative distance")
    ax.legend(fontsize="small")
    return columns


@claim(
    source=("kunin2021neural", "polyak1964methods"),
    predicts=AtMost("rounding(50*20)", of="max"),
    quick=Grid(momentum=[0.0, 0.9], seeds=5),
    full=Grid(momentum=[0.0, 0.5, 0.9, 0.99], seeds=20),
    controls={
        "one step size for all directions: Adam": dict(optimizer="Adam"),
        "one step size for all directions: RMSprop": dict(optimizer="RMSprop"),
        "orthogonality: a general change of coordinates": dict(coordinates="general"),
    },
    figures=(draw_paths,),
)
def optimizer_equivariance_rotations(
    momentum: float, seed: int, optimizer: str = "SGD", coordinates: str = "orthogonal"
) -> dict[str, Any]:
    r"""Gradient descent with momentum commutes with rotations of parameter space.

    Let $Q$ be orthogonal and $tilde(L) (theta) = L(Q^top theta)$. Then $nabla tilde(L) (theta) = Q nabla L(Q^top theta)$, so
    gradient descent with momentum @polyak1964methods, started at $Q theta_0$ on $tilde(L)$, passes through
    $tilde(theta)_t = Q theta_t$ for all $t$: updates that are linear in past gradients, with the same scalars for every
    coordinate, cannot tell the axes.

    Measured is $max_t norm(tilde(theta)_t - Q theta_t) \/ max_t norm(theta_t)$ over 50 steps of torch's optimiser on
    $L(theta) = 1/2 theta^top A theta + sum_i cos(b_i dot theta)$ in 20 dimensions. Adam and RMSprop divide every coordinate
    by its own running scale and notice the rotation; gradient descent notices a change of coordinates that does not
    preserve the inner product.
    """
    draws = torch.Generator().manual_seed(seed)
    loss, start = rippled_bowl(draws)
    q = orthogonal(draws)
    if coordinates == "general":
        q = q * torch.linspace(0.7, 1.3, SIZE, device=q.device)
    inverse = torch.linalg.inv(q) if coordinates == "general" else q.T
    settings = {"lr": 0.05, "momentum": momentum} if optimizer == "SGD" else {"lr": 0.05}
    path = iterates(loss, start, optimizer, **settings)
    turned = iterates(lambda theta: loss(inverse @ theta), q @ start, optimizer, **settings)
    errors = mismatch(turned, path @ q.T)
    return {"value": errors.max(), "by step": errors, "distance gone": (path[-1] - start).norm()}


@claim(
    source="kingma2015adam",
    predicts=AtMost("rounding(50*20)", of="max"),
    quick=Grid(optimizer=["Adam", "AdamW", "RMSprop"], seeds=5),
    full=Grid(optimizer=["Adam", "AdamW", "RMSprop", "Adamax", "NAdam", "Adagrad"], seeds=20),
    controls={"signed permutations: a rotation": dict(coordinates="rotation")},
)
def optimizer_equivariance_permutations(
    optimizer: str, seed: int, coordinates: str = "signed permutation"
) -> dict[str, Any]:
    r"""Coordinatewise optimisers commute with signed permutations.

    Let $Q$ be a signed permutation matrix and $tilde(L) (theta) = L(Q^top theta)$. An optimiser that treats every coordinate
    by the same odd function of that coordinate's past gradients, such as Adam @kingma2015adam, passes on $tilde(L)$
    through $Q theta_t$. The $2^d d!$ signed permutations are the rotations it does commute with; a generic rotation is
    none of them.
    """
    draws = torch.Generator().manual_seed(seed)
    loss, start = rippled_bowl(draws)
    order, signs = torch.randperm(SIZE, generator=draws, device="cpu"), _signs(draws)
    q = (torch.eye(SIZE, device="cpu")[order] * signs[:, None]).to(start)
    if coordinates == "rotation":
        q = orthogonal(draws)
    path = iterates(loss, start, optimizer, lr=0.05)
    turned = iterates(lambda theta: loss(q.T @ theta), q @ start, optimizer, lr=0.05)
    return {"value": mismatch(turned, path @ q.T).max()}


@claim(
    source="kingma2015adam",
    predicts=AtMost("rounding(50*20)", of="max"),
    quick=Grid(factor=[1e-6, 1e6], seeds=5),
    full=Grid(factor=[1e-9, 1e-6, 1e-3, 1e3, 1e6, 1e9], seeds=20),
    controls={
        "steps in units of past gradients: gradient descent": dict(optimizer="SGD"),
        "no ε beside the gradient: ε = 1e-8, gradients near 1e-9": dict(eps=1e-8, unit=1e-9),
    },
)
def optimizer_equivariance_scale(
    factor: float, seed: int, optimizer: str = "Adam", eps: float = 0.0, unit: float = 1.0
) -> dict[str, Any]:
    r"""Adam does not notice the unit of the loss.

    Adam's step is $eta hat(m)_t \/ (sqrt(hat(v)_t) + epsilon)$, where $hat(m)_t$ is linear and $hat(v)_t$ quadratic in the past
    gradients @kingma2015adam. For $epsilon = 0$ and every $c > 0$ its iterates on $c L$ are those on $L$.

    Measured is the largest relative distance of the two paths over 50 steps for $c = 10^(plus.minus 6)$. Gradient descent
    takes steps proportional to $c$ (its control starts from a step size that is stable for the larger loss). With the usual
    $epsilon = 10^(-8)$ and gradients of size $10^(-9)$, $epsilon$ is the larger term and Adam becomes momentum with a
    fixed step size.
    """
    draws = torch.Generator().manual_seed(seed)
    loss, start = rippled_bowl(draws)
    settings = {"lr": 0.05, "eps": eps} if optimizer == "Adam" else {"lr": 0.05 / max(factor, 1.0)}
    path = iterates(lambda theta: unit * loss(theta), start, optimizer, **settings)
    scaled = iterates(lambda theta: factor * unit * loss(theta), start, optimizer, **settings)
    return {"value": mismatch(scaled, path).max()}


if __name__ == "__main__":
    script(__file__)
