r"""What training keeps.

A symmetry of the network ties its gradient down, and gradient flow then keeps a quantity for ever @kunin2021neural.
Layers that can be rescaled against each other keep the difference between what flows in and what flows out
@arora2018optimization @du2018algorithmic; units that can be exchanged, once alike, stay alike @simsek2021geometry. Steps of
finite size, weight decay and adaptive step sizes break the first law, each in a way that can be computed. The networks are
those of the lab, on handwritten digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lemmata.analysis as la
from lemmata.architectures import CNN, MLP, DeepLinear
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian
from lemmata.studies.training import Iterates, Objective, descent, flat_parameters, flow, layout_of, objective

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
Rule = Callable[[list[Tensor]], torch.optim.Optimizer]
KINDS = ["deep linear", "ReLU MLP", "ReLU CNN"]
IMAGES = 60
TIME = 1.0


def network(kind: str, seed: int, units: str = "", bias: bool = True) -> nn.Module:
    """One of the lab's networks for digits, with its own units or others."""
    draws = torch.Generator().manual_seed(seed)
    if kind == "deep linear":
        sizes = [64, 8, 8, 10]
        if units:
            return MLP(sizes, units, init="lecun", bias=False, generator=draws)
        return DeepLinear(sizes, generator=draws)
    if kind == "ReLU MLP":
        return MLP([64, 8, 8, 10], units or "relu", bias=bias, generator=draws)
    return CNN([1, 4, 4], 10, activation=units or "relu", bias=bias, generator=draws)


def on_digits(model: nn.Module, decay: Tensor | float = 0.0) -> Objective:
    """Cross-entropy on digits, plus half the decay times the squared parameters."""
    loss = objective(model, cross_entropy, *digits(IMAGES, images=isinstance(model, CNN)))

    def decayed(flat: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = loss(flat)
        return value + 0.5 * (decay * flat.square()).sum(), gradient + decay * flat

    return decayed


def optimised(objective: Objective, start: Tensor, rule: Rule) -> Iterates:
    """The path of an optimiser of torch."""
    flat = start.clone()
    optimiser = rule([flat])
    while True:
        value, flat.grad = objective(flat)
        yield flat.clone(), value
        optimiser.step()


def after(path: Iterates, steps: int) -> Tensor:
    """Where a path is after a number of steps."""
    return next(islice(path, steps, None))[0]


def differences(kind: str, seed: int) -> la.gradient_flow.Conserved:
    """What flows into hidden layers minus what flows out of them, where the network can be rescaled."""
    model = network(kind, seed)
    return la.conserved(model, digits(IMAGES, images=isinstance(model, CNN))[0])


def drift(kind: str, seed: int, model: nn.Module, end: Tensor) -> float:
    """Change of the differences, in units of the changes of their sides: the largest of all layers."""
    split = layout_of(model).split
    return float(differences(kind, seed).drift([split(flat_parameters(model)), split(end)]).values[-1].max())


@claim(
    source=("arora2018optimization", "du2018algorithmic"),
    predicts=AtMost(1e-4),
    quick=Grid(kind=KINDS, steps=[50], seeds=2),
    full=Grid(kind=KINDS, steps=[1000], seeds=10),
    controls={"units that can be rescaled: tanh": dict(units="tanh")},
)
def balancedness_conservation(kind: str, steps: int, seed: int, units: str = "") -> float:
    r"""Gradient flow keeps the difference between what flows into a layer and what flows out of it.

    In a deep linear network gradient flow leaves $W_(l+1)^top W_(l+1) - W_l W_l^top$ as it was, whatever the loss
    @arora2018optimization. With rectifiers, and biases, the diagonal is left: for each unit, or each channel of a
    convolution, the squared weights into it and its bias, minus the squared weights out of it @du2018algorithmic. The value
    is the change of the difference along the flow, relative to the changes of its two sides, which are not small. The flow
    is integrated by the Runge–Kutta method of order four; where a rectifier switches, its error is of a lower order, hence the bound.

    The control has tanh units: no rescaling of weights leaves the function as it was.
    """
    model = network(kind, seed, units)
    return drift(kind, seed, model, after(flow(on_digits(model), flat_parameters(model), TIME / steps), steps))


ADAPTIVE = "one step size for all entries: Adam"


def draw_drift(ax: Any, rows: Rows) -> Columns:
    """How far steps of finite size are from keeping the difference, against their size.

    Both axes logarithmic. The lines of gradient descent, one for each network, rise with slope one; those of Adam lie far
    above and are nearly flat.
    """
    chosen = [row for row in rows if row.k == 0]
    columns: dict[str, Any] = {"η": chosen[0].values["eta"]}
    for row in chosen:
        label = f"{row.point['kind']}, {'Adam' if row.arm else 'gradient descent'}"
        columns[label] = row.values["drift"]
        style, colour = ("x--" if row.arm else "o-"), f"C{KINDS.index(row.point['kind'])}"
        ax.loglog(columns["η"], columns[label], style, color=colour, label=label)
    ax.set(xlabel="step size η (Adam: η/20)", ylabel="change of the difference ÷ of its sides", ylim=(1e-5, 1))
    ax.legend(loc="lower right", ncols=2, fontsize=7)
    return columns


@claim(
    source=("arora2018optimization", "kunin2021neural"),
    predicts=Equals(1, within=0.1, of="each"),
    quick=Grid(kind=KINDS, coarsest=[20], seeds=3),
    full=Grid(kind=KINDS, coarsest=[20, 100, 500], seeds=10),
    controls={ADAPTIVE: dict(adaptive=True)},
    figures=(draw_drift,),
)
def balancedness_conservation_steps(kind: str, coarsest: int, seed: int, adaptive: bool = False) -> dict[str, Any]:
    r"""Gradient descent breaks the balance in proportion to the step size.

    One step changes $W_(l+1)^top W_(l+1) - W_l W_l^top$ by $eta^2 (G_(l+1)^top G_(l+1) - G_l G_l^top)$, with $G_l$ the gradient:
    the terms of first order cancel @arora2018optimization. Over a fixed time, $eta$ times the number of steps, the change is
    proportional to $eta$. The value is the slope of its logarithm against $log eta$, over four step sizes, each half the one before.

    Adam, the control, divides each entry's step by its own size; its path does not follow the gradient at any step size,
    and the balance is lost at once. It runs at a twentieth of the step size, for as many steps.
    """
    model = network(kind, seed)
    loss, start = on_digits(model), flat_parameters(model)
    counts = coarsest * 2 ** np.arange(4)
    eta, found = TIME / counts, []
    for step, count in zip(eta.tolist(), counts.tolist(), strict=True):
        path = (
            optimised(loss, start, partial(torch.optim.Adam, lr=step / 20)) if adaptive else descent(loss, start, step)
        )
        found.append(drift(kind, seed, model, after(path, count)))
    slope = float(np.polyfit(np.log(eta), np.log(found), 1)[0])
    return {"value": slope, "eta": eta, "drift": np.array(found)}


def draw_decay(ax: Any, rows: Rows) -> Columns:
    """How the imbalance shrinks under weight decay.

    Norm of what is left, logarithmic, over time. The lines of all networks lie on one straight line, the prediction; dashed
    lines, with decay on the first layer alone, end far above it.
    """
    chosen = [row for row in rows if row.k == 0]
    columns: dict[str, Any] = {"2 λ t": chosen[0].values["decayed"]}
    for row in chosen:
        name = row.point["kind"] + (", decay on one layer" if row.arm else "")
        columns[name] = row.values["left"]
        style, colour = ("--" if row.arm else "-"), f"C{KINDS.index(row.point['kind'])}"
        ax.semilogy(columns["2 λ t"], columns[name], style, color=colour, label=name)
    ax.semilogy(columns["2 λ t"], np.exp(-columns["2 λ t"]), "k.", label="prediction")
    ax.set(xlabel="2 λ t", ylabel="imbalance ÷ that at the start")
    ax.legend(fontsize=7)
    return columns


@claim(
    source="kunin2021neural",
    predicts=AtMost(1e-4),
    quick=Grid(kind=KINDS, decay=[0.5], steps=[50], seeds=2),
    full=Grid(kind=KINDS, decay=[0.1, 0.5, 1.0], steps=[1000], seeds=5),
    controls={"the same decay for all layers: the first alone": dict(everywhere=False)},
    figures=(draw_decay,),
)
def balancedness_weight_decay(
    kind: str, decay: float, steps: int, seed: int, everywhere: bool = True
) -> dict[str, Any]:
    r"""Weight decay balances the layers at a known rate.

    Gradient flow on $L + lambda\/2 norm(theta)^2$ changes the difference $B = W_(l+1)^top W_(l+1) - W_l W_l^top$, or its diagonal
    between rectifiers, by $dot(B) = -2 lambda B$, whatever the loss @kunin2021neural: $B(t) = e^(-2 lambda t) B(0)$. The value is the
    largest distance from that over the time, relative to $B(0)$. In the control the first layer alone decays.
    """
    model = network(kind, seed)
    start = flat_parameters(model)
    first = sum(p.numel() for name, p in model.named_parameters() if name.startswith("layers.0."))
    rates = torch.full_like(start, decay)
    if not everywhere:
        rates[first:] = 0.0
    path = islice(flow(on_digits(model, rates), start, TIME / steps), 0, steps + 1, steps // 10)
    points = [layout_of(model).split(flat) for flat, _ in path]
    sides = [[balance.sides(point) for balance in differences(kind, seed).balances] for point in points]
    found = torch.stack([torch.cat([(into - out).flatten() for into, out in point]) for point in sides])
    decayed = 2 * decay * torch.linspace(0, TIME, len(found), dtype=found.dtype, device=found.device)
    size = found[0].norm()
    off = (found - torch.exp(-decayed)[:, None] * found[0]).norm(dim=1).max() / size
    return {"value": float(off), "decayed": decayed, "left": found.norm(dim=1) / size}


@claim(
    source=("du2018algorithmic", "lyu2020gradient"),
    predicts=AtMost(1e-13),
    quick=Grid(kind=["ReLU MLP", "ReLU CNN"], seeds=5),
    full=Grid(kind=["ReLU MLP", "ReLU CNN"], seeds=50),
    controls={
        "units that can be rescaled: tanh": dict(units="tanh"),
        "no biases: random ones": dict(bias=True),
    },
)
def homogeneous_euler_identity(kind: str, seed: int, units: str = "", bias: bool = False) -> float:
    r"""In a rectifier network without biases every layer has the same product with its gradient.

    Multiply one layer by $alpha > 0$, and the output is multiplied by $alpha$. Differentiated at $alpha = 1$ this is Euler's
    identity, $chevron.l W_l, nabla_(W_l) L chevron.r = EE[f dot partial_f ell]$, the same number for every layer $l$ and every loss
    @du2018algorithmic @lyu2020gradient. The value is the largest difference among these products and the right side, relative to the
    largest $norm(W_l) norm(nabla_(W_l) L)$. With biases, or with tanh units, the products differ.
    """
    model = network(kind, seed, units, bias)
    x, labels = digits(IMAGES, images=isinstance(model, CNN))
    output = model(x).detach()
    slope = (output.softmax(1) - torch.eye(10, dtype=output.dtype, device=output.device)[labels]) / len(x)
    flat = flat_parameters(model)
    weights, gradients = (layout_of(model).split(v) for v in (flat, on_digits(model)(flat)[1]))
    pairs = [(w, gradients[name]) for name, w in weights.items() if name.endswith("weight")]
    products = torch.stack([(output * slope).sum(), *((w * g).sum() for w, g in pairs)])
    return float((products.max() - products.min()) / max(w.norm() * g.norm() for w, g in pairs))


RULES: dict[str, Rule] = {
    "gradient descent": partial(torch.optim.SGD, lr=1.0),
    "heavy ball": partial(torch.optim.SGD, lr=0.2, momentum=0.9),
    "Adam": partial(torch.optim.Adam, lr=0.01),
}


def draw_separation(ax: Any, rows: Rows) -> Columns:
    """Units that start nearly alike, and how they part.

    Largest difference of the weights into two units, logarithmic, over the steps. All lines start at a few ten-billionths.
    Those of the MLP rise exponentially until the units differ by as much as they weigh; those of the CNN rise later.
    """
    chosen = [row for row in rows if row.arm and row.k == 0]
    columns: dict[str, Any] = {"step": np.arange(len(chosen[0].values["apart"])) * EVERY}
    for row in chosen:
        label = f"{row.point['kind']}, {row.point['rule']}"
        columns[label] = row.values["apart"]
        ax.semilogy(columns["step"], columns[label], label=label)
    ax.set(xlabel="step", ylabel="largest difference of two units", ylim=(1e-14, 10))
    ax.legend(loc="lower right", ncols=2, fontsize=7)
    return columns


EVERY = 10


@claim(
    source="simsek2021geometry",
    predicts=AtMost(1e-9),
    quick=Grid(kind=["MLP", "CNN"], rule=list(RULES), steps=[500], seeds=2),
    full=Grid(kind=["MLP", "CNN"], rule=list(RULES), steps=[2000], seeds=10),
    controls={"units exactly alike: apart by 10⁻¹⁰": dict(apart=1e-10)},
    figures=(draw_separation,),
)
def symmetry_trap(kind: str, rule: str, steps: int, seed: int, apart: float = 0.0) -> dict[str, Any]:
    r"""Units that start alike stay alike.

    If two units have equal weights in and equal weights out, so do their gradients, and every update that treats all entries
    by one rule keeps them equal: the set of such points is invariant under gradient descent, with momentum or with Adam
    @simsek2021geometry. A network whose hidden units all start alike trains as a network with one. Here all hidden units, or channels,
    are copies of the first; the value is the largest difference between weights into them that training has brought about.

    The set is not attracting: in the control independent noise of $10^(-10)$ on the weights grows exponentially.
    """
    draws = torch.Generator().manual_seed(seed)
    model = MLP([64, 6, 10], generator=draws) if kind == "MLP" else CNN([1, 6], 10, generator=draws)
    parameters = dict(model.named_parameters())
    first, *_, last = (name for name in parameters if name.endswith("weight"))
    into, bias, out = parameters[first], parameters[first.replace("weight", "bias")], parameters[last]
    with torch.no_grad():
        into.copy_(into[:1] + apart * gaussian(draws, *into.shape))
        bias.copy_(bias[:1].expand_as(bias))
        out.copy_(out[:, :1].expand_as(out))
    path = islice(optimised(on_digits(model), flat_parameters(model), RULES[rule]), 0, steps + 1, EVERY)
    units = torch.stack([layout_of(model).split(flat)[first].flatten(1) for flat, _ in path])
    parted = (units - units[:, :1]).abs().amax((1, 2))
    return {"value": float(parted.max()), "apart": parted}


if __name__ == "__main__":
    script(__file__)
