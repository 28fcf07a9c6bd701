r"""Symmetries of trained networks of seven families, and what they do to curvature.

Every family has units that can be trained apart and exchanged without anyone noticing, and a number that can be added to all
logits; those with rectifiers can trade scale between what enters a unit and what leaves it @dinh2017sharp, and attention can
turn queries and keys against each other. Each continuous symmetry ties the Hessian to the gradient @kunin2021neural, and at
a minimum makes directions flat, a number of them that can be predicted. A network that is given its own outputs as targets is at
such a minimum, exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import lemmata.analysis as la
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.curvature.zoo import MODELS, PIECEWISE_LINEAR, UNITS, Named, Trained, network, permuted, rescaled
from lemmata.studies.data import digits, gaussian, one_hot

BIASES = {
    "MLP": "layers.1.bias",
    "LSTM": "network.readout.bias",
    "GNN": "layers.1.bias",
}  # those of the outputs; readout.bias elsewhere
ATTENTION = "encoder.layers.0.attention."
HEADS = 2  # of the transformer, each of width 4
ZERO = 1e-11  # singular values of the Jacobian, relative to the largest, below which they count as zero


def outputs(trained: Trained, parameters: Named) -> Tensor:
    """The logits with other parameters."""
    found: Tensor = functional_call(trained.net, parameters, trained.inputs).detach()
    return found


def tied(trained: Trained, field: Named, slopes_of: Any, loss: Any = cross_entropy) -> float:
    """How far grad L . A theta and H A theta + A^T grad L are from zero, relative to what they are sums of."""
    H = trained.operator(la.Hessian, loss)
    assert isinstance(H, la.Hessian)
    slope, xi = H.gradient, H.layout.flatten(field)
    pulled = H.layout.flatten(slopes_of(H.layout.split(slope)))
    moved = H @ xi
    first = (slope @ xi).abs() / (slope.norm() * xi.norm())
    second = (moved + pulled).norm() / (moved.norm() + pulled.norm() + slope.norm())
    return float(first + second)


def summed_sigmoids(output: Tensor, target: Tensor) -> Tensor:
    """The mean over examples of independent logistic losses of the classes, which a shift of all logits changes."""
    return binary_cross_entropy_with_logits(output, one_hot(target, output.shape[1])) * output.shape[1]


@claim(
    source="kunin2021neural",
    predicts=AtMost(1e-12),
    quick=Grid(model=MODELS, seeds=2),
    full=Grid(model=MODELS, seeds=10),
    controls={"a softmax: a sigmoid for each class": dict(sigmoids=True)},
)
def continuous_symmetry_hessian_shift(model: str, seed: int, sigmoids: bool = False) -> float:
    r"""In a trained network of every family the Hessian is flat along a shift of all logits, and the gradient has no part in it.

    The softmax does not change when a number is added to all logits; with $xi$ one at the biases of the outputs and
    zero elsewhere, $nabla L dot xi = 0$ and $nabla^2 L thin xi = 0$ at every point, not only at minima @kunin2021neural. The value is
    the sum of the size of the first, relative to $norm(nabla L) norm(xi)$, and of the second, relative to itself plus
    $norm(nabla L)$. With a sigmoid for each class both fail.
    """
    trained = network(model, seed)
    bias = BIASES.get(model, "readout.bias")
    still = {name: torch.zeros_like(value) for name, value in trained.parameters.items()}
    field = still | {bias: torch.ones_like(still[bias])}
    return tied(trained, field, lambda slopes: still, summed_sigmoids if sigmoids else cross_entropy)


def traded(trained: Trained, signs: tuple[float, float], draws: torch.Generator) -> tuple[Named, Any]:
    """A generator that scales one unit's inward and outward weights (turns queries and keys), and its transpose."""
    at, still = trained.parameters, {name: torch.zeros_like(v) for name, v in trained.parameters.items()}
    if trained.model == "transformer":
        half = slice(0, at[ATTENTION + "W_q.weight"].shape[0] // HEADS)
        M = gaussian(draws, half.stop, half.stop)

        def turn(values: Named, matrix: Tensor) -> Named:
            moved = {name: value.clone() for name, value in still.items()}
            for letter, by in (("q", signs[0] * matrix), ("k", signs[1] * matrix.T)):
                for kind in ("weight", "bias"):
                    name = f"{ATTENTION}W_{letter}.{kind}"
                    moved[name][half] = by @ values[name][half]
            return moved

        return turn(at, M), lambda slopes: turn(slopes, M.T)
    units = UNITS[trained.model]

    def scale(values: Named) -> Named:
        moved = {name: value.clone() for name, value in still.items()}
        for name in units.inward:
            moved[name][0] = signs[0] * values[name][0]
        for name in units.outward:
            moved[name][:, 0] = signs[1] * values[name][:, 0]
        return moved

    return scale(at), scale


@claim(
    source=("kunin2021neural", "dinh2017sharp"),
    predicts=AtMost(1e-11),
    quick=Grid(model=[*PIECEWISE_LINEAR, "transformer"], seeds=2),
    full=Grid(model=[*PIECEWISE_LINEAR, "transformer"], seeds=10),
    controls={"what one side gains the other loses: both gain": dict(both=True)},
)
def continuous_symmetry_hessian_units(model: str, seed: int, both: bool = False) -> float:
    r"""In trained networks a trade between two layers ties the Hessian to the gradient.

    One rectifier's inward weights grow and its outward ones shrink at the same rate, $A theta = (w, -a)$, in a perceptron, between
    two convolutions, within a residual block, and between two graph convolutions @dinh2017sharp. In the transformer queries go along $M$ and
    keys along $-M^top$, for a random matrix $M$ on one head. Then $nabla L dot A theta = 0$ and
    $nabla^2 L thin A theta + A^top nabla L = 0$ @kunin2021neural at the trained parameters, where the gradient is small but not
    zero. The value is the sum of the first, relative to $norm(nabla L) norm(A theta)$, and the norm of the second,
    relative to those of its terms. In the control both sides grow.
    """
    trained = network(model, seed)
    field, transposed = traded(trained, (1.0, 1.0 if both else -1.0), torch.Generator().manual_seed(seed))
    return tied(trained, field, transposed)


@claim(
    source=("hechtnielsen1990algebraic", "chen1993geometry"),
    predicts=AtMost(1e-12),
    quick=Grid(model=MODELS, orders=[20], seeds=2),
    full=Grid(model=MODELS, orders=[200], seeds=10),
    controls={"both sides of each unit: what goes in, alone": dict(whole=False)},
)
def functional_symmetry_orbit_trained(model: str, orders: int, seed: int, whole: bool = True) -> float:
    r"""Trained networks of every family do not notice when hidden units change places.

    A layer of $h$ hidden units gives $h!$ weight vectors with one function @hechtnielsen1990algebraic @chen1993geometry: neurons,
    channels between two convolutions, cells of an LSTM with the rows of their four gates, hidden units of the transformer's feed-forward
    part, of the graph convolution and of the ODE's vector field. The value is the largest change of a logit over random orders,
    relative to the largest logit. The control moves what enters the units alone.
    """
    trained = network(model, seed)
    before, draws = outputs(trained, trained.parameters), torch.Generator().manual_seed(seed)
    changes = []
    for _ in range(orders):
        after = outputs(trained, permuted(trained.parameters, UNITS[model], order_of(trained, draws), whole))
        changes.append((after - before).abs().max() / before.abs().max())
    return float(torch.stack(changes).max() if whole else torch.stack(changes).min())


def order_of(trained: Trained, draws: torch.Generator) -> Tensor:
    """A random order of the units that leaves none at its place."""
    count = trained.parameters[UNITS[trained.model].outward[0]].shape[1]
    cycle = torch.randperm(count, generator=draws, device="cpu")
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


@claim(
    source="brea2019weight",
    predicts=AtLeast(0.99, of="each"),
    quick=Grid(model=MODELS, orders=[20], seeds=2),
    full=Grid(model=MODELS, orders=[200], seeds=10),
    controls={"units that change places: all stay": dict(stay=True)},
)
def functional_symmetry_barrier_trained(model: str, orders: int, seed: int, stay: bool = False) -> float:
    r"""Between a trained network and its copy with units exchanged there is a hill, in every family.

    The straight line between two copies of one function leads through other functions @brea2019weight. The value is the share
    of random orders, none of which leaves a unit at its place, for which the training loss half way is larger than at the ends by more
    than rounding. In the control the units stay.
    """
    trained = network(model, seed)
    at, draws, higher = trained.parameters, torch.Generator().manual_seed(seed), 0
    end = float(cross_entropy(outputs(trained, at), trained.labels))
    for _ in range(orders):
        order = order_of(trained, draws)
        copy = permuted(at, UNITS[model], order.sort().values if stay else order)
        middle = {name: (value + copy[name]) / 2 for name, value in at.items()}
        higher += float(cross_entropy(outputs(trained, middle), trained.labels)) > end * (1 + 1e-9)
    return higher / orders


@claim(
    source=("dinh2017sharp", "kwon2021asam"),
    predicts=Equals(2.0, within=0.05, of="each"),
    quick=Grid(model=PIECEWISE_LINEAR, seeds=2),
    full=Grid(model=PIECEWISE_LINEAR, seeds=10),
    controls={"in units of the loss: in units of each weight": dict(adaptive=True)},
)
def dinh_sharpness_not_invariant_trained(model: str, seed: int, adaptive: bool = False) -> dict[str, Any]:
    r"""Trained networks of four families with rectifiers can be made as sharp as one likes, and stay the same function.

    Multiply what enters all units of one layer by $alpha$ and divide what leaves them: $lambda_max$ grows as $alpha^2$
    @dinh2017sharp, in a perceptron, between two convolutions, inside a residual block, and between two graph
    convolutions. The value is the slope of $log lambda_max$ against $log alpha$ for $alpha = 30, 100, 1000$; every
    rescaled network has the same logits, to $10^(-10)$, or the trial fails. The control measures each parameter in units of its own size
    @kwon2021asam, which does not change.
    """
    trained, units = network(model, seed), UNITS[model]
    alphas = np.array([30.0, 100.0, 1000.0])
    before, sharpest = outputs(trained, trained.parameters), []
    for alpha in alphas.tolist():
        count = trained.parameters[units.outward[0]].shape[1]
        at = rescaled(trained.parameters, units, torch.full((count,), alpha))
        if not bool((outputs(trained, at) - before).abs().max() <= 1e-10 * before.abs().max()):
            raise ArithmeticError("the rescaled network is another function")
        unit = {name: value.abs() if adaptive else torch.ones_like(value) for name, value in at.items()}

        def loss(step: Named, at: Named = at, unit: Named = unit) -> Tensor:
            moved = {name: value + unit[name] * step[name] for name, value in at.items()}
            return cross_entropy(functional_call(trained.net, moved, trained.inputs), trained.labels)

        H = la.Hessian.of(loss, {name: torch.zeros_like(value) for name, value in at.items()})
        sharpest.append(float(la.eigenpairs(H, k=1, tol=1e-3).values[0]))
    slope = float(np.polyfit(np.log(alphas), np.log(sharpest), 1)[0])
    return {"value": slope, "alpha": alphas, "sharpness": np.array(sharpest)}


def nullity(J: Tensor) -> dict[str, Any]:
    """How many directions of parameter space the outputs do not see; at a minimum of loss zero the Hessian is JᵀJ / n."""
    values = torch.linalg.svdvals(torch.linalg.qr(J.flatten(0, 1), mode="r")[1])  # the triangle is smaller
    seen = int((values > ZERO * values[0]).sum())
    return {"zeros": J.shape[2] - seen, "last": values[seen - 1] / values[0]}


def leaky(x: Tensor) -> Tensor:
    """A rectifier that lets a tenth of negative values through: positively homogeneous, and no unit is ever blind."""
    return torch.maximum(x, 0.1 * x)


def taught(model: str, seed: int, count: int, activation: Any = "relu") -> Trained:
    """A trained network with so many digits, in place of those that it learned, to be taught its own outputs."""
    images, labels = digits(count, images=True)
    inputs = {"MLP": images.flatten(1), "transformer": images[:, 0]}.get(model, images)
    return network(model, seed, activation)._replace(inputs=(inputs,), labels=labels)


@claim(
    source="dinh2017sharp",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(model=["MLP", "CNN", "ResNet"], examples=[150], seeds=2),
    full=Grid(model=["MLP", "CNN", "ResNet"], examples=[150, 500], seeds=10),
    controls={
        "a positively homogeneous activation: tanh": dict(activation=torch.tanh),
        "more data than parameters: five examples": dict(few=5),
    },
)
def rescale_degeneracy_count_trained(
    model: str, examples: int, seed: int, activation: Any = leaky, few: int = 0
) -> dict[str, Any]:
    r"""At a zero-loss minimum a trained rectifier network is flat in one direction for each unit, and in no other.

    Each hidden unit or channel can trade scale between what enters it and what leaves it @dinh2017sharp. Rectifiers are
    leaky here: a unit of the plain kind that is active on few inputs has weights that these do not determine, and the
    count would be larger for want of data. A trained
    network is given its own outputs at more digits than it has parameters as targets; there the loss is zero and the Hessian of the squared
    error is $J^top J \/ n$. The perceptron is predicted to have 10 zeros for its units, the convolutional
    network $6 + 8$ for its channels, the residual network $3 + 5$ for those inside its blocks and $5$ for those of the stream
    that the shortcuts carry, scaled in all layers at once. The perceptron has more, known from the data: a pixel that is
    constant over all images can be traded with a bias, once for each unit. The value is the number of zeros less the
    prediction; singular values of $J$ below $10^(-11)$ of the largest count as zero. Tanh has none of the trades, and five
    examples leave more zeros.
    """
    trained = taught(model, seed, few or examples, activation)
    found = nullity(trained.jacobian())
    blank = 0
    if model == "MLP":
        every = digits(examples)[0]
        blank = every.shape[1] + 1 - int(torch.linalg.matrix_rank(torch.cat([every, torch.ones(len(every), 1)], 1)))
    predicted = {"MLP": 10 + 10 * blank, "CNN": 6 + 8, "ResNet": 3 + 5 + 5}[model]
    return {"value": found["zeros"] - predicted, **found, "predicted": predicted}


@claim(
    source="kunin2021neural",
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(model=["transformer"], examples=[80], seeds=2),
    full=Grid(model=["transformer"], examples=[80, 400], seeds=10),
    controls={
        "queries and keys that move together: keys held fixed": dict(fixed="W_k"),
        "more data than parameters: two examples": dict(few=2),
    },
)
def attention_gauge_nullity_trained(
    model: str, examples: int, seed: int, fixed: str = "", few: int = 0
) -> dict[str, Any]:
    r"""At a zero-loss minimum a trained transformer is flat in the directions that its gauge and its norms predict.

    In each head, $W_Q M$ with $W_K M^(-top)$, and $W_V M'$ with $M'^(-1) W_O$, make the same function @kunin2021neural: $d_h^2 + d_v^2$
    directions for each of two heads of width 4. Layer normalisation adds some. Its output, centred, lies in a hyperplane, so that a
    multiple of one vector can be added to each row of $W_K$ and adds the same key to all, which the softmax does not notice:
    $d_h$ for each head. And a constant vector added to the stream is removed by every later norm, so that
    $W_O$ has one free direction for each of its inputs, $d_v$ for each head; and one constant vector that $W_V$ adds to all values comes out as such a vector. In all
    $2 (16 + 16) + 8 + 8 + 1 = 81$ zeros among the 256 weights of the four matrices. The value is the number of zeros, as above, less 81, for the trained transformer
    taught its own outputs. Controls: with the keys held fixed queries have no partner; two examples leave more zeros.
    """
    trained = taught(model, seed, few or examples)
    chosen = [f"{ATTENTION}W_{letter}.weight" for letter in "qkvo" if not fixed.endswith(letter)]
    found = nullity(trained.jacobian(chosen))
    return {"value": found["zeros"] - 81, **found}


if __name__ == "__main__":
    script(__file__)
