r"""The step sizes at which training turns unstable.

On a quadratic form each method has a sharp threshold for the product of step size and largest curvature: 2 for gradient
descent, $2 + 2 beta$ for the heavy ball @polyak1964methods @goh2017momentum, $(2 + 2 beta) \/ (1 + 2 beta)$ for Nesterov's
method @cohen2021edge. Here nobody solves for the eigenvalues of the update: the methods are run, by the code that trains the
networks of the lab, and the threshold is the step size that separates growth from decay. A network at a minimum has the same
thresholds for small perturbations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import Objective, descent, flat_parameters, objective, squared_error

DIMENSION = 5
HALF = 500  # steps to let transients die, and as many again to see growth; β^500 is below rounding for β ≤ 0.9
CANDIDATES = 64  # step sizes tried side by side in each round
EPSILON = 1e-6  # size of the perturbation of a network
PATIENCE = 1000  # steps after which a run that has neither left nor returned is judged by where it is
ROUNDS = 5  # the bracket shrinks by a factor of 63 in each


def random_quadratic(draws: torch.Generator) -> Tensor:
    """A symmetric matrix with random eigenvectors and eigenvalues spread evenly from 0.2 to 1 times a random largest one."""
    largest = gaussian(draws).exp()
    eigenvalues = largest * torch.linspace(0.2, 1, DIMENSION)
    frame, _ = torch.linalg.qr(gaussian(draws, DIMENSION, DIMENSION))
    return frame @ torch.diag(eigenvalues) @ frame.T


def quadratic(matrix: Tensor) -> Objective:
    """½ xᵀA x for each row x: every row is a run of its own."""

    def value_and_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
        gradient = x @ matrix
        return 0.5 * (x * gradient).sum(-1), gradient

    return value_and_gradient


def grows(objective: Objective, start: Tensor, step: float | Tensor, **method: Any) -> Tensor:
    """Whether the distance to the minimum at 0 is larger after twice the time."""
    path = [flat for flat, _ in islice(descent(objective, start, step, **method), HALF, 2 * HALF + 1, HALF)]
    return ~(path[1].norm(dim=-1) < path[0].norm(dim=-1))  # a run that overflows has grown


def bracket(unstable: Callable[[Tensor], Tensor], low: float, high: float) -> float:
    """The step size where growth sets in: each round keeps the one gap between candidates that holds it."""
    for _ in range(ROUNDS):
        steps = torch.linspace(low, high, CANDIDATES)
        first = int(unstable(steps).int().argmax())  # the first candidate that grows
        low, high = steps[first - 1].item(), steps[first].item()
    return (low + high) / 2


def draw_thresholds(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Measured thresholds lie on the predicted curves of the momentum.

    Threshold times largest curvature against momentum: points on a line that rises from two to four for the heavy ball,
    and on a curve that falls from two to four thirds for Nesterov's method.
    """
    beta = np.linspace(0, 1, 101)
    curves = {"heavy ball": 2 + 2 * beta, "Nesterov": (2 + 2 * beta) / (1 + 2 * beta)}
    columns: dict[str, Sequence[float]] = {}
    for nesterov, (name, curve) in enumerate(curves.items()):
        own = [row for row in rows if row.arm == "" and row.k == 0 and row.point["nesterov"] == nesterov]
        columns["β"] = [row.point["beta"] for row in own]
        columns[name] = [row.values["value"] for row in own]
        ax.plot(beta, curve, color=f"C{nesterov}")
        ax.plot(columns["β"], columns[name], "o", color=f"C{nesterov}", label=name)
    ax.set(xlabel="momentum β", ylabel="threshold of η times λ")
    ax.legend()
    return columns


@claim(
    source=("polyak1964methods", "goh2017momentum", "cohen2021edge"),
    predicts=Equals("(2 + 2*beta)/(1 + 2*beta*nesterov)", within=1e-6, of="each"),
    quick=Grid(beta=[0.0, 0.5, 0.9], nesterov=[0, 1], seeds=2),
    full=Grid(beta=[0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9], nesterov=[0, 1], seeds=10),
    controls={"gradients at full strength: dampening by β": dict(dampened=True)},
    figures=(draw_thresholds,),
)
def stability_thresholds(beta: float, nesterov: int, seed: int, dampened: bool = False) -> float:
    r"""Momentum moves the threshold of stability.

    Minimise $1/2 x^top A x$ with $A$ symmetric positive definite by
    $ v <- beta v + g, quad x <- x - eta v quad "(heavy ball)," quad x <- x - eta (g + beta v) quad "(Nesterov)," $
    with $g = A x$ and $0 <= beta < 1$. From almost every start the iterates converge to zero if and only if
    $ eta thin lambda_max (A) < 2 + 2 beta, quad "respectively" quad
      eta thin lambda_max (A) < frac(2 + 2 beta, 1 + 2 beta), $
    and both are $2$ for gradient descent, $beta = 0$ @polyak1964methods @goh2017momentum @cohen2021edge. At $beta = 0.9$:
    $3.8$ and $1.357142857$. Random $A$ in five dimensions; the threshold is bracketed by simulated runs to $10^(-6)$.

    The control dampens the gradient, $v <- beta v + (1 - beta) g$, and the threshold of the heavy ball grows by
    $1\/(1 - beta)$.
    """
    draws = torch.Generator().manual_seed(seed)
    matrix, start = random_quadratic(draws), gaussian(draws, DIMENSION)
    form, starts = quadratic(matrix), start.expand(CANDIDATES, -1)
    method: dict[str, Any] = dict(momentum=beta, nesterov=bool(nesterov), dampening=beta if dampened else 0.0)
    largest = torch.linalg.eigvalsh(matrix)[-1].item()
    threshold = bracket(lambda steps: grows(form, starts, steps[:, None], **method), 0.5 / largest, 50 / largest)
    return threshold * largest


def student_at_its_teacher(draws: torch.Generator) -> tuple[MLP, Tensor, Tensor]:
    """A network with data that it fits exactly: its parameters are a minimum of loss zero."""
    device = torch.get_default_device()
    model = MLP([3, 4, 2], generator=draws, device=device)
    inputs = gaussian(draws, 100, 3)
    with torch.no_grad():
        return model, inputs, model(inputs)


@claim(
    source=("cohen2021edge", "goh2017momentum"),
    predicts=Equals("(2 + 2*beta)/(1 + 2*beta*nesterov)", within=0.01, of="each"),
    quick=Grid(beta=[0.0, 0.9], nesterov=[0, 1], seeds=1),
    full=Grid(beta=[0.0, 0.5, 0.9], nesterov=[0, 1], seeds=10),
    controls={"gradients at full strength: dampening by β": dict(dampened=True)},
)
def stability_thresholds_network(beta: float, nesterov: int, seed: int, dampened: bool = False) -> float:
    r"""A network at a minimum has the thresholds of its Hessian.

    Let $theta^*$ be a minimum of the loss with Hessian $H$, and start a method at $theta^* + epsilon u$, where $u$ is the
    eigenvector of the largest eigenvalue. For small $epsilon$ the iterates follow the linearised update: they return if
    and only if $eta thin lambda_max (H)$ lies below the threshold of the quadratic form @cohen2021edge @goh2017momentum.

    A tanh network is placed at its own teacher, where the loss is zero; $lambda_max$ and $u$ come from Lanczos iteration,
    $epsilon = 10^(-6)$. A run leaves if its distance along $u$ becomes $100 epsilon$ before $epsilon\/100$; the step size is
    bisected to two parts in a thousand. The control dampens the gradient.
    """
    model, inputs, target = student_at_its_teacher(torch.Generator().manual_seed(seed))
    top = la.eigenpairs(la.Hessian(model, squared_error, (inputs, target)), k=1, tol=1e-9)
    largest, direction = float(top.values[0]), top.vectors[:, 0]
    minimum, loss = flat_parameters(model), objective(model, squared_error, inputs, target)
    method: dict[str, Any] = dict(momentum=beta, nesterov=bool(nesterov), dampening=beta if dampened else 0.0)

    def leaves(eta: float) -> bool:
        distance = EPSILON
        for flat, _ in islice(descent(loss, minimum + EPSILON * direction, eta, **method), PATIENCE):
            distance = abs(direction @ (flat - minimum)).item()
            if not EPSILON / 100 < distance < 100 * EPSILON:
                break
        return distance > EPSILON

    low, high = 0.5 / largest, 50 / largest
    while high - low > 2e-3 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if leaves(middle) else (middle, high)
    return (low + high) / 2 * largest


if __name__ == "__main__":
    script(__file__)
