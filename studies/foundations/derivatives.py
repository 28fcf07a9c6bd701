r"""Derivatives that can be trusted.

Everything the lab measures is made of gradients and Hessian products, so they are tried first, against truths that do not
come from automatic differentiation. Taylor's theorem fixes the power of $h$ at which a function leaves its linear and its
quadratic model; Schwarz's theorem makes the Hessian symmetric; forward and reverse mode compute a linear map and its adjoint
@griewank2008evaluating. Every architecture in the catalogue of the lab is tried; those with kinks are left out where
smoothness is a hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp
from torch.utils._pytree import tree_leaves

import lemmata.analysis as la
from lemmata.architectures import ARCHITECTURES, Architecture, arguments
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import flat_parameters, layout_of

EVERY = {entry.name: entry for entry in ARCHITECTURES}
#: A piecewise affine network has a zero remainder inside a cell and a kink outside: Taylor's theorem asks for neither.
SMOOTH = [entry.name for entry in ARCHITECTURES if entry.smooth]
#: One of each way of sharing weights, for the quick profile; the full one tries the whole catalogue.
CHOSEN = ["mlp", "deep-linear", "cnn", "lstm", "encoder", "gcn", "neural-ode-rk4", "group-cnn-p4", "coupling-flow"]
STEPS = np.logspace(-1, -3, 5)
DIRECTIONS = 20
PAIRS = 100


class Problem:
    """One architecture on one batch: its output and its loss as functions of named parameters."""

    def __init__(self, architecture: str, seed: int) -> None:
        self.entry: Architecture = EVERY[architecture]
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        self.module = self.entry.build().to(device, dtype)
        self.inputs, self.target = self.entry.sample(seed, dtype, device)
        self.parameters = dict(self.module.named_parameters())
        self.flat = flat_parameters(self.module)
        self.layout = layout_of(self.module)

    def output(self, flat: Tensor, detached: bool = False) -> Tensor:
        """The network's output as a function of its flat parameters."""
        named = _cut(self.layout.split(flat), detached)
        outputs = tree_leaves(functional_call(self.module, named, arguments(self.inputs)))
        return torch.cat([part.flatten() for part in outputs])

    def loss(self, named: Mapping[str, Tensor], detached: bool = False) -> Tensor:
        """The mean loss; ``detached`` hides the first parameter from differentiation."""
        output = functional_call(self.module, _cut(named, detached), arguments(self.inputs))
        return self.entry.loss(output, self.target)


def _cut(named: Mapping[str, Tensor], detached: bool) -> dict[str, Tensor]:
    first = next(iter(named))
    return {name: value.detach() if detached and name == first else value for name, value in named.items()}


def taylor_slope(architecture: str, seed: int, order: int, factor: float, detached: bool) -> dict[str, Any]:
    """Log–log slope of the mean remainder over 20 unit directions, after Taylor's polynomial of degree 1 or 2."""
    problem = Problem(architecture, seed)
    hessian = la.Hessian.of(lambda named: problem.loss(named, detached), problem.parameters)
    directions = gaussian(torch.Generator().manual_seed(seed), hessian.shape[0], DIRECTIONS)
    directions = directions / directions.norm(dim=0)
    first = hessian.gradient @ directions
    second = (directions * (hessian @ directions)).sum(0)
    remainders = []
    for h in STEPS.tolist():
        moved = (problem.flat[:, None] + h * directions).T
        change = torch.stack([problem.loss(problem.layout.split(row)) for row in moved]).detach() - hessian.value
        polynomial = factor * h * first if order == 1 else h * first + factor * h**2 / 2 * second
        remainders.append((change - polynomial).abs().mean().item())
    slope = np.polyfit(np.log(STEPS), np.log(remainders), 1)[0]
    return {"value": slope, "h": STEPS, "remainder": np.array(remainders)}


def _draw_remainders(ax: Any, rows: Sequence[Any], order: int) -> Mapping[str, Sequence[float]]:
    chosen = [row for row in rows if row.k == 0 and (row.arm == "" or row.point["architecture"] == SMOOTH[0])]
    columns: dict[str, Sequence[float]] = {"h": chosen[0].values["h"]}
    for row in chosen:
        label = f"control: {row.arm}" if row.arm else row.point["architecture"]
        columns[label] = row.values["remainder"]
        ax.loglog(columns["h"], columns[label], marker=".", linestyle="--" if row.arm else "-", label=label)
    ax.set(xlabel="step h", ylabel=f"mean remainder after degree {order}")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small")
    return columns


def draw_gradient_remainders(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """With the right gradient the remainder falls as the square of the step.

    Mean remainder against step, both axes logarithmic. One solid line of slope two for each architecture; the dashed
    lines of the controls bend to slope one as the step shrinks.
    """
    return _draw_remainders(ax, rows, order=1)


def draw_hessian_remainders(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """With the right Hessian the remainder falls as the cube of the step.

    Mean remainder against step, both axes logarithmic. One solid line of slope three for each architecture; the dashed
    lines of the controls have slope two or less.
    """
    return _draw_remainders(ax, rows, order=2)


@claim(
    source="farrell2013automated",
    predicts=Equals(2, within=0.05),
    quick=Grid(architecture=CHOSEN, seeds=5),
    full=Grid(architecture=SMOOTH, seeds=40),
    controls={
        "the exact gradient: off by one per cent": dict(factor=1.01),
        "every branch: one detached": dict(detached=True),
    },
    figures=(draw_gradient_remainders,),
)
def autodiff_taylor_order_gradient(
    architecture: str, seed: int, factor: float = 1.0, detached: bool = False
) -> dict[str, Any]:
    r"""With the exact gradient, Taylor remainders are of order two.

    Let $L$ be the loss of a network as a function of its parameters $theta$, three times continuously differentiable near
    $theta$, and $v$ a unit direction with $v^top nabla^2 L(theta) v != 0$. Then
    $ abs(L(theta + h v) - L(theta) - h g dot v) = Theta(h^2) quad "as" h -> 0 $
    if and only if $g dot v = nabla L(theta) dot v$.
    The test of @farrell2013automated: twenty random directions, $h = 10^(-1), dots, 10^(-3)$, the slope of the mean
    remainder in logarithmic axes. It knows nothing of automatic differentiation: only values of $L$ enter. Networks with
    rectifiers are left out, for between kinks their remainder has other orders.
    """
    return taylor_slope(architecture, seed, 1, factor, detached)


@claim(
    source=("farrell2013automated", "pearlmutter1994fast"),
    predicts=Equals(3, within=0.05),
    quick=Grid(architecture=CHOSEN, seeds=5),
    full=Grid(architecture=SMOOTH, seeds=40),
    controls={
        "the exact Hessian: off by one per cent": dict(factor=1.01),
        "every branch: one detached": dict(detached=True),
    },
    figures=(draw_hessian_remainders,),
)
def autodiff_taylor_order_hessian(
    architecture: str, seed: int, factor: float = 1.0, detached: bool = False
) -> dict[str, Any]:
    r"""With the exact Hessian product, Taylor remainders are of order three.

    Let $L$ be four times continuously differentiable near $theta$, and $v$ a unit direction along which its third derivative
    does not vanish. With $g = nabla L(theta)$ and the product $H v$ of @pearlmutter1994fast,
    $ abs(L(theta + h v) - L(theta) - h g dot v - h^2/2 v^top H v) = Theta(h^3) quad "as" h -> 0 $
    if and only if $v^top H v = v^top nabla^2 L(theta) v$. Measured as for the gradient @farrell2013automated.
    """
    return taylor_slope(architecture, seed, 2, factor, detached)


def _peano(x: float, y: float) -> float:
    return x * y * (x * x - y * y) / (x * x + y * y) if x or y else 0.0


def peano_differences(inner: float = 1e-6, outer: float = 1e-3) -> Tensor:
    """Nested central differences of Peano's function at 0: entry (i, j) differentiates by i first, then by j."""

    def first(i: int, x: float, y: float) -> float:
        dx, dy = (inner, 0.0) if i == 0 else (0.0, inner)
        return (_peano(x + dx, y + dy) - _peano(x - dx, y - dy)) / (2 * inner)

    ends = ((outer, 0.0), (0.0, outer))
    return torch.tensor([[(first(i, *e) - first(i, -e[0], -e[1])) / (2 * outer) for e in ends] for i in range(2)])


def second_derivative(architecture: str, seed: int, field: str) -> tuple[int, Callable[[Tensor], Tensor]]:
    """Size and product of the matrix whose symmetry is tested."""
    if field == "peano":
        matrix = peano_differences()
        return 2, lambda vectors: matrix @ vectors
    problem = Problem(architecture, seed)
    hessian = la.Hessian.of(problem.loss, problem.parameters)
    size = hessian.shape[0]
    if field == "gradient":
        return size, lambda vectors: hessian @ vectors
    sign = torch.where(torch.arange(size) < size // 2, 1.0, -1.0)[:, None]  # the second player ascends
    return size, lambda vectors: sign * (hessian @ vectors)


@claim(
    source="pearlmutter1994fast",
    predicts=AtMost("rounding(100)"),
    quick=Grid(architecture=[*CHOSEN, "mlp-relu"], seeds=3),
    full=Grid(architecture=list(EVERY), seeds=60),
    controls={
        "a gradient field: two players descend and ascend": dict(field="game"),
        "two continuous derivatives: Peano's function": dict(field="peano"),
    },
)
def hvp_symmetry_and_duality_hessian(architecture: str, seed: int, field: str = "gradient") -> float:
    r"""Hessians are symmetric.

    If $L$ is twice continuously differentiable at $theta$, its Hessian $H$ satisfies $u^top H v = v^top H u$ for all
    $u, v$ (Schwarz). The products $H v$ come from automatic differentiation @pearlmutter1994fast, which never forms $H$ and
    does not know that it is symmetric. The value is the largest of
    $abs(u^top H v - v^top H u) \/ (norm(u) norm(H v))$ over a hundred random pairs; it may reach
    $50 sqrt(m) epsilon$ with $m = 100$ terms in a scalar product.

    Two hypotheses are removed. The field $(nabla_x L, -nabla_y L)$ of a two-player game is no gradient, and the
    off-diagonal blocks of its Jacobian are antisymmetric. The function $x y (x^2 - y^2) \/ (x^2 + y^2)$ is once, but not
    twice continuously differentiable at $0$: nested differences give $-1$ in one order and $+1$ in the other.
    """
    size, product = second_derivative(architecture, seed, field)
    u, v = gaussian(torch.Generator().manual_seed(seed), 2, size, PAIRS).unbind()
    hu, hv = product(u), product(v)
    return (((u * hv).sum(0) - (v * hu).sum(0)).abs() / (u.norm(dim=0) * hv.norm(dim=0))).max().item()


@claim(
    source="griewank2008evaluating",
    predicts=AtMost("rounding(100)"),
    quick=Grid(architecture=[*CHOSEN, "cnn-zeros"], seeds=2),
    full=Grid(architecture=list(EVERY), seeds=40),
    controls={
        "the same point: a neighbouring one": dict(apart=1e-3),
        "every branch: one detached": dict(detached=True),
    },
)
def hvp_symmetry_and_duality_jacobian(
    architecture: str, seed: int, apart: float = 0.0, detached: bool = False
) -> float:
    r"""Forward and reverse mode are adjoint.

    Let $J$ be the Jacobian of a network's outputs with respect to its parameters. Forward mode computes $J v$ and reverse
    mode $J^top u$, by different rules for every operation, and for all $u, v$
    $ chevron.l u, J v chevron.r = chevron.l J^top u, v chevron.r $ @griewank2008evaluating. The value is the largest defect
    relative to $norm(u) norm(J v)$ over a hundred random pairs; it may reach $50 sqrt(m) epsilon$ with $m = 100$. The
    controls take reverse mode at a point $10^(-3)$ away, and with one branch of the network detached.
    """
    problem = Problem(architecture, seed)
    draws = torch.Generator().manual_seed(seed)
    away = gaussian(draws, problem.flat.numel())
    pull = vjp(lambda flat: problem.output(flat, detached), problem.flat + apart * away / away.norm())[1]
    defects = []
    for _ in range(PAIRS):
        v = gaussian(draws, problem.flat.numel())
        pushed = jvp(problem.output, (problem.flat,), (v,))[1]
        u = gaussian(draws, pushed.numel())
        defects.append((u @ pushed - pull(u)[0] @ v).abs() / (u.norm() * pushed.norm()))
    return torch.stack(defects).max().item()


if __name__ == "__main__":
    script(__file__)
