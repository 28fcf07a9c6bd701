r"""Symmetries of the parameters, and what they do to curvature.

Many weights make the same function: neurons can be permuted, signs flipped @chen1993geometry, ReLU layers rescaled
@dinh2017sharp, the queries and keys of a head of attention turned against each other. A continuous symmetry ties the
gradient to the Hessian everywhere and makes minima flat in known directions @kunin2021neural; a discrete one copies each
minimum many times, with hills between the copies @brea2019weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian
from lemmata.studies.training import train

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Flow:
    """A loss and the field of one generator: theta moves along field(theta), whose transposed Jacobian maps slopes."""

    loss: Callable[[Named], Tensor]
    at: Named
    field: Named
    transposed: Callable[[Named], Named]


def rescaling(seed: int, broken: bool) -> Flow:
    """The weights into one hidden unit grow, those out of it shrink; broken by tanh."""
    draws = torch.Generator().manual_seed(seed)
    x, labels = digits(40)
    at = {"w": gaussian(draws, 6, 64) / 8, "b": gaussian(draws, 6), "a": gaussian(draws, 10, 6)}
    sign = {"w": torch.zeros(6, 1), "b": torch.zeros(6), "a": torch.zeros(1, 6)}
    sign["w"][0], sign["b"][0], sign["a"][:, 0] = 1.0, 1.0, -1.0

    def loss(p: Named) -> Tensor:
        inner = x @ p["w"].T + p["b"]
        return cross_entropy((inner.tanh() if broken else inner.relu()) @ p["a"].T, labels)

    return Flow(loss, at, {k: sign[k] * v for k, v in at.items()}, lambda g: {k: sign[k] * v for k, v in g.items()})


def normalised(seed: int, broken: bool) -> Flow:
    """All weights before a batch normalisation grow; broken by leaving it out."""
    draws = torch.Generator().manual_seed(seed)
    x, labels = digits(40)
    at = {"w": gaussian(draws, 6, 64) / 8, "a": gaussian(draws, 10, 6)}

    def loss(p: Named) -> Tensor:
        inner = x @ p["w"].T
        if not broken:
            inner = (inner - inner.mean(0)) / inner.var(0, correction=0).sqrt()
        return cross_entropy(inner.tanh() @ p["a"].T, labels)

    zero = torch.zeros_like(at["a"])
    return Flow(loss, at, {"w": at["w"], "a": zero}, lambda g: {"w": g["w"], "a": zero})


def shifted(seed: int, broken: bool) -> Flow:
    """A number is added to all logits; broken by a sigmoid for each class."""
    draws = torch.Generator().manual_seed(seed)
    x, labels = digits(40)
    targets = one_hot(labels, 10).to(x)
    at = {"w": gaussian(draws, 10, 64) / 8, "b": gaussian(draws, 10)}

    def loss(p: Named) -> Tensor:
        logits = x @ p["w"].T + p["b"]
        return binary_cross_entropy_with_logits(logits, targets) if broken else cross_entropy(logits, labels)

    still = {name: torch.zeros_like(value) for name, value in at.items()}
    return Flow(loss, at, still | {"b": torch.ones(10)}, lambda g: still)


def head(p: Named, x: Tensor, rotary: bool = False) -> Tensor:
    """One head of softmax attention: (b, t, d) to (b, t, d_o). Rotary positions turn queries and keys, pair by pair."""
    q, k = x @ p["q"], x @ p["k"]
    if rotary:
        q, k = turned(q), turned(k)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ (x @ p["v"]) @ p["o"]


def turned(x: Tensor) -> Tensor:
    """Rotate coordinates (2i, 2i + 1) by an angle in proportion to the position."""
    angles = torch.arange(x.shape[1])[:, None] / 2.0 ** torch.arange(x.shape[2] // 2)
    even, odd, cos, sin = x[..., ::2], x[..., 1::2], angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def attention(draws: torch.Generator, size: int, key: int, value: int) -> Named:
    """Random weights of a head."""
    shapes = {"q": (size, key), "k": (size, key), "v": (size, value), "o": (value, size)}
    return {name: gaussian(draws, *shape) / shape[0] ** 0.5 for name, shape in shapes.items()}


def gauge(seed: int, broken: bool) -> Flow:
    """Queries go along M, keys against its transpose; broken by rotary positions."""
    draws = torch.Generator().manual_seed(seed)
    at, x, y = attention(draws, 4, 2, 2), gaussian(draws, 30, 5, 4), gaussian(draws, 30, 5, 4)
    m = gaussian(draws, 2, 2)
    still = {name: torch.zeros_like(value) for name, value in at.items()}
    return Flow(
        lambda p: (head(p, x, rotary=broken) - y).square().mean(),
        at,
        still | {"q": at["q"] @ m, "k": -at["k"] @ m.T},
        lambda g: still | {"q": g["q"] @ m.T, "k": -g["k"] @ m},
    )


SYMMETRIES: dict[str, Callable[[int, bool], Flow]] = {
    "ReLU rescaling": rescaling,
    "batch normalisation": normalised,
    "softmax shift": shifted,
    "attention gauge": gauge,
}


@claim(
    source="kunin2021neural",
    predicts=AtMost(1e-10),
    quick=Grid(symmetry=list(SYMMETRIES), seeds=3),
    full=Grid(symmetry=list(SYMMETRIES), seeds=20),
    controls={"the symmetry: tanh, no normalisation, sigmoids, rotary positions": dict(broken=True)},
)
def continuous_symmetry_hessian(symmetry: str, seed: int, broken: bool = False) -> float:
    r"""A symmetry ties the Hessian to the gradient at every point.

    If $L$ does not change as $theta$ moves along $dot(theta) = A theta + b$, then for all $theta$
    $ nabla L dot (A theta + b) = 0, quad nabla^2 L thin (A theta + b) + A^top nabla L = 0 , $
    by differentiating once and twice @kunin2021neural. At a critical point the field is therefore a direction of zero
    curvature. Tried at random weights, on digits, for the rescaling of one ReLU unit, the scale of weights before batch
    normalisation, a shift of all logits, and a change of basis of queries and keys. The value is the norm of both left
    sides, relative to $norm(nabla L) norm(xi)$ and to $norm(nabla^2 L)_F norm(xi)$ for the field $xi$.

    The control breaks each symmetry by the change it is named after.
    """
    flow = SYMMETRIES[symmetry](seed, broken)
    H = la.Hessian.of(flow.loss, flow.at)
    flat: Callable[[Named], Tensor] = H.layout.flatten
    field = flat(flow.field)
    slope = H.gradient
    tied = H @ field + flat(flow.transposed(H.layout.split(slope)))
    first = (slope @ field).abs() / (slope.norm() * field.norm())
    return float(first + tied.norm() / (H.dense().norm() * field.norm()))


def draw_zeros(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The smallest Hessian eigenvalues of a head of attention at a minimum.

    Absolute eigenvalue over its rank from below, logarithmic. For each width of the values the curve jumps by many decades
    after the predicted number of zeros.
    """
    chosen = [row for row in rows if row.arm == "" and row.k == 0]
    shortest = min(len(row.values["spectrum"]) for row in chosen)
    columns: dict[str, Sequence[float]] = {"rank from below": list(range(1, shortest + 1))}
    for row in chosen:
        zeros = row.point["key"] ** 2 + row.point["values"] ** 2
        label = f"values of width {row.point['values']}: {zeros} zeros"
        columns[label] = row.values["spectrum"][:shortest].tolist()
        ax.semilogy(columns["rank from below"], columns[label], ".-", label=label)
    ax.set(xlabel="rank from below", ylabel="absolute eigenvalue ÷ the largest")
    ax.legend()
    return columns


@claim(
    source="kunin2021neural",
    predicts=Equals("key**2 + values**2", within=0, of="each"),
    quick=Grid(size=[4], key=[2], values=[1, 2, 3], seeds=3),
    full=Grid(size=[5], key=[2, 4], values=[1, 2, 3], seeds=20),
    controls={
        "no positions between queries and keys: rotary ones": dict(rotary=True),
        "a minimum: targets of another head": dict(minimum=False),
    },
    figures=(draw_zeros,),
)
def attention_gauge_nullity(
    size: int, key: int, values: int, seed: int, rotary: bool = False, minimum: bool = True
) -> dict[str, Any]:
    r"""A head of attention is flat in d_h² + d_v² directions at a minimum.

    $W_Q M$ with $W_K M^(-top)$, and $W_V M'$ with $M'^(-1) W_O$, give the same head for all invertible $M$ and $M'$. At a
    minimum each of these $d_h^2 + d_v^2$ directions has curvature zero (compare @kunin2021neural); for generic data no
    other has. A head is given the outputs of a head with its own weights as targets, and the full Hessian at this loss of
    zero is formed. The value is the number of eigenvalues below $10^(-9)$ of the largest.

    Controls: rotary positions turn each query and key by its place, and only changes of basis that commute with the
    rotations are left. With targets of another head the gradient does not vanish, and what was flat bends.
    """
    draws = torch.Generator().manual_seed(seed)
    at, x = attention(draws, size, key, values), gaussian(draws, 200, 5, size)
    y = head(at if minimum else attention(draws, size, key, values), x, rotary)
    H = la.Hessian.of(lambda p: (head(p, x, rotary) - y).square().mean(), at)
    spectrum = torch.linalg.eigvalsh(H.dense()).abs().sort().values
    spectrum = spectrum / spectrum[-1]
    return {"value": int((spectrum < 1e-9).sum()), "spectrum": spectrum.clamp(min=1e-20).cpu().numpy()}


def fitted(hidden: int, seed: int, steps: int = 2000) -> tuple[MLP, Tensor, Tensor]:
    """A tanh network fitted to a sine, its inputs and targets."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.linspace(-2, 2, 64)[:, None]
    y = torch.sin(2 * x)
    net = MLP([1, hidden, 1], activation="tanh", generator=draws)
    square = nn.functional.mse_loss
    train([net], square, lambda step: (x[None], y[None]), steps, partial(torch.optim.Adam, lr=0.02))
    return net, x, y


def copies(net: MLP, hidden: int, kinds: str, whole: bool = True) -> Named:
    """The network's parameters under each permutation ("order") or sign change ("sign") of its units, stacked.

    With ``whole`` false only what goes into the units moves.
    """
    names = [name for name, _ in net.named_parameters()]
    w, b, a, c = (p.detach() for p in net.parameters())
    orders = list(permutations(range(hidden))) if "order" in kinds else [tuple(range(hidden))]
    signs = list(product((1.0, -1.0), repeat=hidden)) if "sign" in kinds else [(1.0,) * hidden]
    order = torch.tensor([o for o in orders for _ in signs])
    sign = torch.tensor([s for _ in orders for s in signs])
    outward = a[:, order].transpose(0, 1) * sign[:, None] if whole else a.expand(len(order), *a.shape)
    parts = (w[order] * sign[..., None], b[order] * sign, outward, c.expand(len(order), *c.shape))
    return dict(zip(names, parts, strict=True))


@claim(
    source=("hechtnielsen1990algebraic", "chen1993geometry"),
    predicts=AtMost(1e-13),
    quick=Grid(hidden=[3, 4], seeds=3),
    full=Grid(hidden=[3, 4, 5], seeds=20),
    controls={"both sides of each unit: what goes in, alone": dict(whole=False)},
)
def functional_symmetry_orbit(hidden: int, seed: int, whole: bool = True) -> float:
    r"""A tanh network with h hidden units has 2^h h! copies of itself.

    Permuting the hidden units, or changing the sign of all weights into and out of a unit, changes the weights but not the
    function @hechtnielsen1990algebraic @chen1993geometry. The value is the largest difference of outputs over all
    $2^h h!$ copies of a network, relative to its largest output. The control moves the weights into the units alone.
    """
    draws = torch.Generator().manual_seed(seed)
    net, x = MLP([5, hidden, 2], activation="tanh", generator=draws), gaussian(draws, 50, 5)
    found = vmap(lambda p: functional_call(net, p, (x,)))(copies(net, hidden, "order, sign", whole))
    truth = net(x).detach()
    return float((found - truth).abs().max() / truth.abs().max())


@claim(
    source="brea2019weight",
    predicts=AtLeast(0.99, of="each"),
    quick=Grid(hidden=[3, 4], seeds=2),
    full=Grid(hidden=[3, 4, 5], seeds=20),
    controls={"units that differ: all alike": dict(alike=True)},
)
def functional_symmetry_barrier(hidden: int, seed: int, alike: bool = False) -> float:
    r"""The straight line between two copies of a minimum crosses a hill.

    The copies of a minimum under permutations and sign changes of its units are as good as the minimum; points between them
    are not @brea2019weight. A tanh network is fitted to a sine. The value is the share of its $2^h h! - 1$ other copies for
    which the loss half way to the copy lies above the loss of both ends by more than rounding. Where all units are alike,
    permutations give the same point and there is no hill; the control counts permutations alone.
    """
    net, x, y = fitted(hidden, seed)
    if alike:
        with torch.no_grad():
            w, b, a, _ = net.parameters()
            for part in (w, b):
                part.copy_(part[:1].expand_as(part))
            a.copy_(a[:, :1].expand_as(a))
    other = {name: value[1:] for name, value in copies(net, hidden, "order" if alike else "order, sign").items()}
    middle = {name: (value + dict(net.named_parameters())[name].detach()) / 2 for name, value in other.items()}
    losses = vmap(lambda p: (functional_call(net, p, (x,)) - y).square().mean())(middle)
    end = (net(x) - y).square().mean().detach()
    return float((losses > end * (1 + 1e-9)).to(torch.float64).mean())


@claim(
    source=("dinh2017sharp", "kwon2021asam"),
    predicts=Equals(2.0, within=0.05, of="each"),
    quick=Grid(hidden=[8], seeds=3),
    full=Grid(hidden=[8, 32], seeds=10),
    controls={"in units of the loss: in units of each weight": dict(adaptive=True)},
)
def dinh_sharpness_not_invariant(hidden: int, seed: int, adaptive: bool = False) -> dict[str, Any]:
    r"""The largest Hessian eigenvalue of one function can be made as large as one likes.

    Multiply the first layer of a ReLU network by $alpha$ and divide the second by $alpha$: the function stays, while the blocks
    of the Hessian scale as $alpha^(-2)$ and $alpha^2$, so that $lambda_max$ grows as $alpha^2$ @dinh2017sharp. The value is the
    slope of $log lambda_max$ against $log alpha$ between $alpha = 10$ and $1000$, for a network trained on digits. The control
    measures each parameter in units of its own size, $"diag"(theta) nabla^2 L thin "diag"(theta)$ @kwon2021asam, which does not change.
    """
    x, labels = digits(100)
    net = MLP([64, hidden, 10], activation="relu", bias=False, generator=torch.Generator().manual_seed(seed))
    train([net], cross_entropy, lambda step: (x[None], labels[None]), 100, partial(torch.optim.Adam, lr=0.01))
    first, second = (parameter.detach() for parameter in net.parameters())
    alphas = np.array([10.0, 100.0, 1000.0])
    sharpest = []
    for alpha in alphas.tolist():
        at = {"first": alpha * first, "second": second / alpha}
        unit = {name: value if adaptive else torch.ones_like(value) for name, value in at.items()}

        def loss(step: Named, at: Named = at, unit: Named = unit) -> Tensor:
            moved = {name: at[name] + unit[name] * step[name] for name in at}
            return cross_entropy((x @ moved["first"].T).relu() @ moved["second"].T, labels)

        H = la.Hessian.of(loss, {name: torch.zeros_like(value) for name, value in at.items()})
        sharpest.append(float(la.eigenpairs(H, k=1, tol=1e-6).values[0]))
    slope = float(np.polyfit(np.log(alphas), np.log(sharpest), 1)[0])
    return {"value": slope, "alpha": alphas, "sharpness": np.array(sharpest)}


if __name__ == "__main__":
    script(__file__)
