r"""The loss surface of linear networks, known in full.

A linear network computes a matrix, yet its loss is not convex in its weights. Its critical points can be listed: each is
made of some of the principal components of the data, all but the best are saddles, and the number of directions in which a
saddle falls can be counted @baldi1989neural. There are no bad minima at any depth @kawaguchi2016deep, though there are flat
saddles, and gradient descent leaves the steep ones in a time that is known @lee2016gradient. Integers, here, not estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil, log
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

ZERO = 1e-9  # of the largest eigenvalue: below it an eigenvalue counts as zero


def half_square(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Half the mean squared error of a product of matrices, the first applied first."""
    output = x
    for weight in weights:
        output = output @ weight.T
    return (output - y).square().sum(1).mean() / 2


def curvature(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Eigenvalues, ascending, of the full Hessian with respect to all the matrices."""
    named = {f"W{place}": weight for place, weight in enumerate(weights, 1)}
    return torch.linalg.eigvalsh(la.Hessian.of(lambda p: half_square(list(p.values()), x, y), named).dense())


@claim(
    source="singh2021analytic",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(inputs=[4, 6], hidden=[2, 4, 7], outputs=[3], seeds=3),
    full=Grid(inputs=[4, 6, 9], hidden=[1, 2, 4, 7], outputs=[3, 5], seeds=20),
    controls={
        "inputs that span the space: two dimensions of them": dict(span=2),
        "a global minimum: random weights": dict(minimum=False),
    },
)
def deep_linear_minimum_nullity(
    inputs: int, hidden: int, outputs: int, seed: int, span: int = 0, minimum: bool = True
) -> int:
    r"""How flat a two-layer linear network is at a global minimum.

    At a minimum of $1/2 EE norm(W_2 W_1 x - y)^2$ with zero loss and inputs that span $RR^(d_i)$, the Hessian has rank
    $ d_i d_o - (d_o - "rank" W_2)(d_i - "rank" W_1) $
    @singh2021analytic, so that $h (d_i + d_o)$ less that many of its eigenvalues are zero. For the targets of a
    network with random weights, the value is the number of eigenvalues below $10^(-9)$ of the largest, minus the formula's.

    Controls: inputs from a plane leave more directions flat; at other weights the residual lifts the zeros.
    """
    draws = torch.Generator().manual_seed(seed)
    first, second = gaussian(draws, hidden, inputs), gaussian(draws, outputs, hidden)
    x = gaussian(draws, 200, inputs)
    if span:
        x[:, span:] = 0
    y = x @ first.T @ second.T
    if not minimum:
        first = gaussian(draws, hidden, inputs)
    values = curvature([first, second], x, y)
    zeros = int((values.abs() < ZERO * values.abs().max()).sum())
    r1, r2 = min(hidden, inputs), min(hidden, outputs)
    return zeros - (hidden * (inputs + outputs) - inputs * outputs + (outputs - r2) * (inputs - r1))


def draw_levels(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The critical levels of a linear autoencoder, and in how many directions each of them falls.

    Number of negative eigenvalues against loss: one point for each pair of principal components. The lowest level alone
    has none; the highest has the most.
    """
    row = next(row for row in rows if row.arm == "" and row.k == 0)
    columns = {"loss": row.values["loss"].tolist(), "index": row.values["index"].tolist()}
    ax.plot(columns["loss"], columns["index"], "o", label="measured")
    ax.plot(row.values["level"], row.values["predicted"], "x", label="predicted")
    ax.set(xlabel="loss at the critical point", ylabel="negative eigenvalues of the Hessian")
    ax.legend()
    return columns


@claim(
    source="baldi1989neural",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(size=[5], code=[2], seeds=3),
    full=Grid(size=[5, 7], code=[2, 3], seeds=10),
    controls={
        "eigenvalues that differ: two are equal": dict(equal=True),
        "components of the data: of another data set": dict(rotated=True),
    },
    figures=(draw_levels,),
)
def baldi_hornik_landscape(
    size: int, code: int, seed: int, equal: bool = False, rotated: bool = False
) -> dict[str, Any]:
    r"""Every critical point of a linear autoencoder: its loss, its index, and its flat directions.

    Let the data's covariance have eigenvalues $lambda_1 > dots > lambda_d$ and eigenvectors $u_i$. For each set $I$ of $p$
    of them, encoding by $U_I^top$ and decoding by $U_I$ is a critical point of $1/2 EE norm(x - W_2 W_1 x)^2$ with loss
    $1/2 sum_(i in.not I) lambda_i$. Its Hessian has as many negative eigenvalues as there are pairs $i in I$, $j in.not I$
    with $lambda_j > lambda_i$, and $p^2$ zero ones, from changes of basis of the code @baldi1989neural. So the first $p$
    components are the only minimum. The value is the number of sets $I$ at which the loss, the index or the number of zeros
    differs.

    Controls: with two equal eigenvalues the critical points that part them are flat in more directions; the components of
    other data are no critical points.
    """
    draws = torch.Generator().manual_seed(seed)
    spectrum = torch.linspace(size, 1, size)
    if equal:
        spectrum[code] = spectrum[code - 1]
    basis = torch.linalg.qr(gaussian(draws, size, size))[0]
    x = torch.linalg.qr(gaussian(draws, 20, size))[0] * 20**0.5 @ (spectrum.sqrt()[:, None] * basis.T)
    vectors = torch.linalg.qr(gaussian(draws, size, size))[0] if rotated else basis
    found: dict[str, list[float]] = {"loss": [], "index": [], "level": [], "predicted": []}
    wrong = 0
    for chosen in combinations(range(size), code):
        left = [j for j in range(size) if j not in chosen]
        kept = vectors[:, list(chosen)]
        values = curvature([kept.T, kept], x, x)
        tiny = ZERO * float(values.abs().max())
        index, zeros = int((values < -tiny).sum()), int((values.abs() <= tiny).sum())
        loss, level = float(half_square([kept.T, kept], x, x)), float(spectrum[left].sum()) / 2
        predicted = sum(bool(spectrum[j] > spectrum[i]) for i in chosen for j in left)
        wrong += (index, zeros) != (predicted, code**2) or abs(loss - level) > 1e-10 * level
        for name, number in zip(found, (loss, index, level, predicted), strict=True):
            found[name].append(number)
    return {"value": wrong, **{name: np.array(numbers) for name, numbers in found.items()}}


@claim(
    source=("kawaguchi2016deep", "laurent2018deep"),
    predicts=AtMost(1e-6),
    quick=Grid(depth=[2, 3], runs=[50], steps=[5000], seeds=1),
    full=Grid(depth=[2, 3, 4], runs=[200], steps=[60000], seeds=5),
    controls={"linear units: ReLU": dict(relu=True)},
)
def kawaguchi_no_bad_minima(depth: int, runs: int, steps: int, seed: int, relu: bool = False) -> dict[str, Any]:
    r"""Gradient descent on deep linear networks ends at the global minimum.

    Every local minimum of the squared error of a deep linear network is global, whatever its depth
    @kawaguchi2016deep, if no layer is narrower than input and output @laurent2018deep. Networks with layers of width 3 are
    trained from many random starts on targets that such a network can represent, so that the lowest loss is 0. The value is
    the largest final loss over all runs, divided by the loss of the zero network. A run that is slow would count as a
    failure as well.

    The control puts ReLU between the layers, of the networks and of the one that makes the targets: 0 is still the lowest
    loss, and many runs end above it.
    """
    draws = torch.Generator().manual_seed(seed)
    x, width = gaussian(draws, 40, 3), 3
    teacher = [gaussian(draws, width, width) / width**0.5 + torch.eye(width) for _ in range(depth)]
    nets = [gaussian(draws, runs * width, width).reshape(runs, width, width) * 0.6 for _ in range(depth)]

    def output(weights: Sequence[Tensor]) -> Tensor:
        state = x
        for place, weight in enumerate(weights):
            state = state @ weight.mT
            state = state.relu() if relu and place < depth - 1 else state
        return state

    y = output(teacher)
    y = y / y.square().sum(1).mean().sqrt()
    leaves = [net.requires_grad_() for net in nets]
    adam = torch.optim.Adam(leaves, lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, eta_min=1e-5)
    for _ in range(steps):
        adam.zero_grad()
        losses = (output(leaves) - y).square().sum(-1).mean(-1)
        losses.sum().backward()
        adam.step()
        schedule.step()
    return {"value": float(losses.max().detach()), "losses": losses.detach().sort().values.cpu().numpy()}


@claim(
    source="kawaguchi2016deep",
    predicts=Equals("depth", within=0.02, of="each"),
    quick=Grid(depth=[2, 3, 4], seeds=5),
    full=Grid(depth=[2, 3, 4, 5, 6], seeds=20),
    controls={"the origin: a random point": dict(shift=1.0)},
)
def kawaguchi_flat_origin(depth: int, seed: int, shift: float = 0.0) -> float:
    r"""From the origin the loss of a deep linear network changes with the power of its depth.

    With all weights zero the output is zero, and it stays zero to order $N - 1$ along any line: $L(t v) - L(0) = O(t^N)$ for
    depth $N$. So the origin is a saddle whose Hessian has negative eigenvalues for $N = 2$ and vanishes for $N >= 3$
    @kawaguchi2016deep. The value is the slope of $log abs(L(t v) - L(0))$ against $log t$ for $t = 10^(-3) ... 10^(-1.5)$, in a
    random direction. About a random point the slope is 1.
    """
    draws = torch.Generator().manual_seed(seed)
    x, y = gaussian(draws, 40, 4), gaussian(draws, 40, 4)
    base = [shift * gaussian(draws, 4, 4) for _ in range(depth)]
    line = [gaussian(draws, 4, 4) / 4 for _ in range(depth)]
    sizes = np.logspace(-3, -1.5, 7)
    output, start = torch.stack([torch.eye(4)] * len(sizes)), torch.eye(4)
    for origin, direction in zip(base, line, strict=True):
        output = (origin + torch.from_numpy(sizes)[:, None, None] * direction) @ output
        start = origin @ start
    # the loss's change, without subtracting nearly equal losses
    moved = x @ (output - start).mT
    change = ((moved / 2 + x @ start.T - y) * moved).sum(-1).mean(-1)
    return float(np.polyfit(np.log(sizes), np.log(change.abs().numpy()), 1)[0])


@claim(
    source=("lee2016gradient", "du2017gradient"),
    predicts=Equals(0.5, within=0.5, of="each"),
    quick=Grid(distance=[1e-9, 1e-6], rate=[0.02, 0.1], seeds=2),
    full=Grid(distance=[1e-12, 1e-9, 1e-6], rate=[0.005, 0.02, 0.1], seeds=20),
    controls={
        "off the stable manifold: on it": dict(stable=True),
        "a strict saddle: depth three": dict(depth=3),
    },
)
def saddle_escape_time(distance: float, rate: float, seed: int, stable: bool = False, depth: int = 2) -> float:
    r"""Gradient descent leaves a strict saddle in a time logarithmic in its distance.

    Near a saddle with an eigenvalue $-mu < 0$, gradient descent with step size $eta$ multiplies the part along its
    eigenvector by $1 + eta mu$. From a distance $epsilon$ it reaches $delta$ after $ln(delta \/ epsilon) \/ ln(1 + eta mu)$ steps,
    rounded up @lee2016gradient; chains of saddles add such times up @du2017gradient. Here the saddle is the origin of a
    two-layer linear network, $mu$ the largest singular value of $EE y x^top$, and $delta = 10^(-3)$, so that cubic terms
    change nothing. The value is the number of steps of the run minus the formula: between 0 and 1.

    Controls: from the eigenvector of $+mu$ the run falls into the saddle. With three layers the origin is a saddle
    without negative eigenvalues, and within ten times the formula's number of steps the run does not leave.
    """
    draws = torch.Generator().manual_seed(seed)
    x = gaussian(draws, 50, 4)
    y = x @ gaussian(draws, 4, 3) + gaussian(draws, 50, 3)
    u, s, vt = torch.linalg.svd(y.T @ x / 50)
    y = y / s[0]  # mu = 1
    middle = torch.full((1, 1), distance / 2**0.5)
    weights = [vt[:1] * distance / 2**0.5, *[middle] * (depth - 2), u[:, :1] * distance / 2**0.5]
    weights[-1] = -weights[-1] if stable else weights[-1]
    expected = log(1e-3 / distance) / log(1 + rate)
    longest = ceil(10 * expected)
    for step in range(1, longest):
        leaves = [weight.clone().requires_grad_() for weight in weights]
        slopes = torch.autograd.grad(half_square(leaves, x, y), leaves)
        weights = [weight - rate * slope for weight, slope in zip(weights, slopes, strict=True)]
        if sum(float(weight.square().sum()) for weight in weights) ** 0.5 >= 1e-3:
            return step - expected
    return longest - expected  # it has not left


if __name__ == "__main__":
    script(__file__)
