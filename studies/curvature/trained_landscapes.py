r"""The loss around trained networks of seven families, and along their training.

Step sizes beyond which gradient descent leaves a minimum, the time that it takes to leave a saddle, the edge at which it
trains @cohen2021edge, the noise that keeps it moving, the outliers that training puts into the spectra of Hessians and of layers,
the curves that join two solutions, and the subspaces that reach them: each measured on a perceptron, a convolutional and a
residual network, an LSTM, a transformer, a graph network and a neural ODE, trained on real data. Minima and saddles are
exact: a trained network is given its own outputs as targets.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import lemmata.analysis as la
from lemmata.analysis.curvature import bezier_curve, linear_barrier
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.curvature.stochastic_gradients import Regression, sample_chains, stationary_covariance
from lemmata.studies.curvature.zoo import MODELS, Trained, network
from lemmata.studies.data import gaussian, one_hot
from lemmata.studies.training import Objective, descent, flat_parameters, layout_of, load_parameters, squared_error

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
WARM, EVERY = (
    60,
    21,
)  # steps before the edge's step size is set; steps between two measurements, odd as the iterates alternate
EPSILON = 1e-6  # size of a perturbation, and of the region where a network is its linearisation


def own_outputs(trained: Trained, signs: Tensor | float = 1.0) -> tuple[Objective, Tensor, Tensor]:
    """The loss of a network taught its own outputs, its parameters, and the Hessian there, which is J^T S J / n.

    The loss is half the squared distance, the classes weighed by signs and the mean taken over examples: at the network's own
    parameters its gradient is exactly zero, and with signs of both kinds they are a saddle.
    """
    layout, start = layout_of(trained.net), flat_parameters(trained.net)
    with torch.no_grad():
        target = trained.net(*trained.inputs)

    def value_and_gradient(flat: Tensor) -> tuple[Tensor, Tensor]:
        leaf = flat.detach().requires_grad_()
        output = torch.func.functional_call(trained.net, layout.split(leaf), trained.inputs)
        value = 0.5 * (signs * (output - target).square()).sum(-1).mean()
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    J = trained.jacobian()
    weighed = J * (signs[:, None] if isinstance(signs, Tensor) else signs)
    return value_and_gradient, start, J.flatten(0, 1).T @ weighed.flatten(0, 1) / len(J)


@claim(
    source=("cohen2021edge", "goh2017momentum"),
    predicts=Equals("2 + 2*beta", within="0.02*(1 + beta)", of="each"),
    quick=Grid(model=MODELS, beta=[0.0, 0.5], seeds=1),
    full=Grid(model=MODELS, beta=[0.0, 0.5, 0.9], seeds=5),
    controls={"gradients at full strength: dampening by β": dict(dampened=True)},
)
def stability_thresholds_trained(model: str, beta: float, seed: int, dampened: bool = False) -> float:
    r"""A trained network of every family leaves its minimum if and only if the step passes (2 + 2β)/λ.

    A trained network is taught its own outputs: it is at a minimum of the squared error, with $lambda_max$ that of $J^top J \/ n$.
    Gradient descent or the heavy ball starts at a distance of $10^(-6)$ along the sharpest direction and follows the true
    gradient of the network. The run leaves if the distance grows fivefold before it has shrunk to a fifth. The
    value is the step size, bisected to one part in a hundred, at which runs turn from coming back to leaving, times $lambda_max$:
    $2 + 2 beta$ @cohen2021edge @goh2017momentum. The control dampens the gradient by $beta$.
    """
    trained = network(model, seed).some(10, torch.Generator().manual_seed(seed))
    loss, start, H = own_outputs(trained)
    values, vectors = torch.linalg.eigh(H)
    largest, u = float(values[-1]), vectors[:, -1]

    def leaves(eta: float) -> bool:
        path = descent(loss, start + EPSILON * u, eta, momentum=beta, dampening=beta if dampened else 0.0)
        distance = EPSILON
        for flat, _ in islice(path, 1000):
            distance = abs(float(u @ (flat - start)))
            if not EPSILON / 5 < distance < 5 * EPSILON:
                break
        return distance > EPSILON

    low, high = 1 / largest, 10 / largest
    while high - low > 1e-2 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if leaves(middle) else (middle, high)
    return (low + high) / 2 * largest


@claim(
    source=("lee2016gradient", "du2017gradient"),
    predicts=Equals(0.5, within=0.6, of="each"),
    quick=Grid(model=MODELS, seeds=2),
    full=Grid(model=MODELS, seeds=10),
    controls={"off the stable manifold: along the direction of largest curvature": dict(stable=True)},
)
def saddle_escape_time_trained(model: str, seed: int, stable: bool = False) -> dict[str, float]:
    r"""At a saddle of a trained network of every family gradient descent escapes after the number of steps of the formula.

    From a distance $epsilon$ along the eigenvector of the most negative eigenvalue $-mu$ gradient descent reaches $delta$ after
    $ln(delta\/epsilon) \/ ln(1 + eta mu)$ steps, rounded up @lee2016gradient @du2017gradient. A trained network is a critical point of the squared distance from its own
    outputs, and a strict saddle if every other class counts negatively; $mu$ comes from $J^top S J \/ n$. The true gradient
    is followed from $epsilon = 10^(-8)$ to $delta = 10^(-5)$ with $eta = 1\/(2 norm(H))$. The value is the number of steps less
    the formula: between 0 and 1, and a tenth more on either side for the cubic terms of the loss. The control starts along the direction of
    largest curvature: it comes closer to the saddle first, and leaves, by rounding, much later.
    """
    trained = network(model, seed)
    signs = (-1.0) ** torch.arange(trained.classes)
    loss, start, H = own_outputs(trained, signs)
    values, vectors = torch.linalg.eigh(H)
    eta = 0.5 / float(values.abs().max())
    expected = math.log(1e3) / math.log1p(-eta * float(values[0]))
    path = descent(loss, start + 1e-8 * vectors[:, -1 if stable else 0], eta)
    taken = next((k for k, (flat, _) in enumerate(path) if k > 5 * expected or float((flat - start).norm()) >= 1e-5))
    return {"value": taken - expected, "expected": expected}


def draw_edge(ax: Any, rows: Rows) -> Columns:
    """Step size times sharpness along training, for each family.

    Lines start at 1.6. Some rise to a dashed horizontal line at two and swing about it, the others stay below.
    """
    columns: dict[str, Sequence[float]] = {}
    for colour, row in enumerate(row for row in rows if row.arm == "" and row.k == 0):
        columns["step"], columns[row.point["model"]] = row.values["step"], row.values["product"]
        ax.plot(columns["step"], columns[row.point["model"]], color=f"C{colour}", label=row.point["model"])
    ax.axhline(2, color="0.4", linestyle="--", linewidth=1)
    ax.set(xlabel="step", ylabel="η times largest eigenvalue", ylim=(0, None))
    ax.legend(ncols=2, fontsize="small")
    return columns


@claim(
    source="cohen2021edge",
    predicts=Equals(2, within=0.2, of="each"),
    quick=Grid(model=MODELS, steps=[400], seeds=1),
    full=Grid(model=MODELS, steps=[4000], seeds=2),
    controls={"a step large enough: a tenth of it": dict(fraction=0.1)},
    expects="DEPENDS",
    switch="model",
    figures=(draw_edge,),
)
def edge_of_stability_trained(model: str, steps: int, seed: int, fraction: float = 1.0) -> dict[str, Any]:
    r"""Trained by gradient descent, networks of some families come to the edge of stability within four hundred steps.

    On the squared error the sharpness of a network trained by full-batch gradient descent rises until $eta lambda_max = 2$ and stays about
    there, if training lasts long enough for it to rise so far @cohen2021edge: an observation, and a condition on the length of training that no
    theorem settles. After 60 small steps, in which the large curvature of the initialisation goes, each family is
    given the step size at which $eta lambda_max = 1.6$, and 400 steps. The value is $eta$ times the median of $lambda_max$ over the last
    third. It is $2$ to within ten per cent where the network came to the edge and stays; the switch is the family. It is less where
    curvature had stopped rising before, and more where steps across kinks throw the network about. With a tenth of the step size no family comes near.
    """
    trained = network(model, seed, steps=0)
    target = one_hot(trained.labels, trained.classes)
    loss, flat, vector = supervised(trained, target), flat_parameters(trained.net), None
    net = copy.deepcopy(trained.net)

    def sharpest(flat: Tensor) -> float:
        nonlocal vector
        H = la.Hessian(load_parameters(net, flat), squared_error, (trained.data[0], target))
        top = la.eigenpairs(H, k=1, tol=2e-2, start=vector)
        vector = top.vectors[:, 0]
        return float(top.values[0])

    flat = next(islice(descent(loss, flat, 0.5 / sharpest(flat)), WARM, None))[0]
    eta = fraction * 1.6 / sharpest(flat)
    sharpness, losses = [], []
    for step, (iterate, value) in enumerate(islice(descent(loss, flat, eta), steps)):
        losses.append(float(value))
        if step % EVERY == 0:
            sharpness.append(sharpest(iterate))
    measured = np.array(sharpness)
    judged = eta * float(np.median(measured[2 * len(measured) // 3 :]))
    return {
        "value": judged,
        "step": EVERY * np.arange(len(measured)),
        "product": eta * measured,
        "loss": np.array(losses),
    }


def supervised(trained: Trained, target: Tensor) -> Objective:
    """Half the squared distance from targets, summed over classes, as a function of flat parameters."""
    layout = layout_of(trained.net)

    def value_and_gradient(flat: Tensor) -> tuple[Tensor, Tensor]:
        leaf = flat.detach().requires_grad_()
        output = torch.func.functional_call(trained.net, layout.split(leaf), trained.inputs)
        value = squared_error(output, target)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    return value_and_gradient


def draw_outliers(ax: Any, rows: Rows) -> Columns:
    """The leading Hessian eigenvalues of each family's trained network, and where its classes end.

    Eigenvalue over the largest against rank divided by the number of classes less one, logarithmic, one network each. A
    vertical dashed line at one. The graph network and the neural ODE step down there; the lines of most networks of digits fall evenly.
    """
    columns: dict[str, Sequence[float]] = {}
    chosen = [row for row in rows if row.arm == "" and row.k == 0]
    longest = max(len(row.values["eigenvalues"]) for row in chosen)
    for colour, row in enumerate(chosen):
        values = np.asarray(row.values["eigenvalues"])
        rank = np.arange(1, len(values) + 1) / ((len(values) - 1) // 2 - 1)
        for name, column in ((f"{row.point['model']}, rank", rank), (row.point["model"], values)):
            columns[name] = [*column.tolist(), *[math.nan] * (longest - len(column))]
        ax.semilogy(rank, values, ".-", color=f"C{colour}", label=row.point["model"])
    ax.axvline(1, color="0.4", linestyle="--", linewidth=1)
    ax.set(xlabel="rank ÷ (C − 1)", ylabel="eigenvalue ÷ the largest")
    ax.legend(ncols=2, fontsize="small")
    return columns


@claim(
    source=("sagun2017empirical", "papyan2020traces"),
    predicts=Equals(0.5, within=0.5, of="each"),
    quick=Grid(model=MODELS, seeds=2),
    full=Grid(model=MODELS, seeds=2),
    controls={"labels that follow from inputs: shuffled among them": dict(shuffled=True)},
    expects="DEPENDS",
    switch="model",
    figures=(draw_outliers,),
)
def hessian_outliers_classes_trained(model: str, seed: int, shuffled: bool = False) -> dict[str, Any]:
    r"""A trained classifier has C − 1 or C outliers where its classes are few and lie apart.

    Contested, as for perceptrons. The outliers of the Hessian end where the gap between the logarithms of neighbouring eigenvalues is
    largest among the first $2 C$, the gap after the very first passed over; the literature says that they are $C - 1$ or $C$
    @sagun2017empirical @papyan2020traces. The value is their number less $C - 1$, so $0$ or $1$. The switch is the family, and
    with it the data: communities of a club and sorts of wine, of four and three classes that separate well, show it, and so does the
    residual network on digits. The others, from six images of each of ten digits, have no such gap: their eigenvalues fall evenly. The
    control shuffles the labels among the inputs.
    """
    trained = network(model, seed, shuffled=shuffled)
    leading = la.eigenpairs(trained.operator(la.Hessian), k=2 * trained.classes + 1, tol=1e-3, max_steps=600)
    values = leading.values.clamp(min=1e-300)
    count = int((-values.log().diff())[1:].argmax()) + 2
    return {"value": count - (trained.classes - 1), "eigenvalues": values / values[0]}


@claim(
    source=("garipov2018loss", "draxler2018essentially"),
    predicts=AtMost(0.1),
    quick=Grid(model=MODELS, width=[2], steps=[400], seeds=1),
    full=Grid(model=MODELS, width=[2, 4], steps=[2000], seeds=2),
    controls={"a trained curve: the straight line": dict(straight=True)},
)
def mode_connectivity_trained(model: str, width: int, steps: int, seed: int, straight: bool = False) -> dict[str, Any]:
    r"""Two trained networks of every family are joined by a curve of low loss.

    Networks from two starts, with hidden sizes twice those of the rest of this study, trained alike. A quadratic Bézier curve gets its control point by
    minimising the mean loss along it @garipov2018loss @draxler2018essentially. The value is the barrier: the largest excess
    of the training loss on the path over the straight interpolation between the losses of its ends. At single size the LSTM of seven units
    and the residual network keep a barrier of a few tenths: the curve needs more units than the task. The control is the straight line.
    """
    a, b = (network(model, k, width=width) for k in range(2))
    if straight:
        path = linear_barrier(a.net, b.net, cross_entropy, a.data, reduction="mean")
    else:
        path = bezier_curve(a.net, b.net, cross_entropy, a.data, steps=steps, seed=seed % 2**31, reduction="mean")
    return {"value": path.barrier, "position": path.positions.numpy(), "loss": path.losses.numpy()}


#: The largest matrix of each family that is not the first or the last of its network where there is another.
LAYERS = {
    "MLP": "layers.0.weight",
    "CNN": "layers.1.weight",
    "ResNet": "blocks.1.conv2.weight",
    "LSTM": "network.U",
    "transformer": "encoder.layers.0.feed_forward.W_1.weight",
    "GNN": "layers.0.weight",
    "neural ODE": "field.layers.0.weight",
}


@claim(
    source=("marchenko1967distribution", "johnstone2001distribution"),
    predicts=AtMost(4),
    quick=Grid(model=MODELS, width=[6], seeds=2),
    full=Grid(model=MODELS, width=[6, 12], seeds=2),
    controls={"random weights: trained ones": dict(learned=True)},
)
def marchenko_pastur_random_layer_trained(model: str, width: int, seed: int, learned: bool = False) -> float:
    r"""The largest singular value of a layer of every family lies at the edge of the Marchenko–Pastur law, until training moves it out.

    An $n times p$ matrix of independent entries of variance one has its largest squared singular value near $mu = (sqrt(n - 1) + sqrt(p))^2$,
    the edge of the law @marchenko1967distribution, and its distance from there, divided by
    $sigma = (sqrt(n - 1) + sqrt(p)) (1\/sqrt(n - 1) + 1\/sqrt(p))^(1\/3)$, follows the law of Tracy and Widom @johnstone2001distribution,
    which exceeds $4$ with a probability below $10^(-4)$. The value is this distance for one layer of an untrained network with hidden sizes
    six times those of the others in this study, kernels of convolutions laid out as rows, the four gates of the LSTM under each other; entries are divided by the
    standard deviation that they had at the start. After training, the control, a direction that the data have written stands out in most families.
    """
    start = network(model, seed, width=width, steps=0).parameters[LAYERS[model]].flatten(1)
    weight = network(model, seed, width=width).parameters[LAYERS[model]].flatten(1) if learned else start
    p, n = sorted(weight.shape)
    largest = float(torch.linalg.matrix_norm(weight / start.std(), 2)) ** 2
    a, b = math.sqrt(n - 1), math.sqrt(p)
    return (largest - (a + b) ** 2) / ((a + b) * (1 / a + 1 / b) ** (1 / 3))


#: The weights and biases of the last layer; readout.weight and readout.bias elsewhere.
LAST = {"MLP": "layers.1", "LSTM": "network.readout", "GNN": "layers.1"}
DIRECTIONS, BATCHES = 3, 256  # as the chains of the study of stochastic gradients have them


def last_layer(trained: Trained, draws: torch.Generator) -> Regression:
    """Least squares for the first class on the three directions in which the last layer's inputs vary most, in batches."""
    J = trained.jacobian([f"{LAST.get(trained.model, 'readout')}.weight"])[:, 0]
    features = J[:, J.abs().sum(0) > 0]
    features = features - features.mean(0)
    frame = torch.linalg.svd(features, full_matrices=False)[2][:DIRECTIONS]
    inputs = features @ frame.T
    target = (trained.labels == 0).to(inputs)
    places = torch.randint(len(inputs), (BATCHES, 5), generator=draws, device="cpu").to(inputs.device)
    x, y = inputs[places], (target - target.mean())[places]
    curvatures, pull = x.mT @ x / 5, (x * y[..., None]).mean(1)
    minimum = torch.linalg.solve(curvatures.mean(0), pull.mean(0))
    return Regression(curvatures, curvatures @ minimum - pull)


@claim(
    source=("liu2021noise", "mandt2017stochastic"),
    predicts=Equals(1, within="(1 + (sqrt(3) + 5)/sqrt(chains))**2 - 1", of="each"),
    quick=Grid(model=MODELS, eta_lambda=[1.0], chains=[20000], seeds=1),
    full=Grid(model=MODELS, eta_lambda=[0.5, 1.0, 1.5], chains=[100000], seeds=2),
    controls={"discrete steps: the formula of Ornstein and Uhlenbeck": dict(formula="Ornstein–Uhlenbeck")},
)
def sgd_stationary_covariance_trained(
    model: str, eta_lambda: float, chains: int, seed: int, formula: str = "exact"
) -> float:
    r"""The last layer of every family, trained on by noisy steps, has the stationary covariance of the formula.

    On the squared error the last layer is a quadratic form, with $H$ the covariance of its inputs, which the trained network makes.
    Steps $theta <- theta - eta (H theta + xi)$, with $xi$ the deviation of the gradient of a random batch of five examples at the minimum, lead to
    $Sigma H + H Sigma - eta H Sigma H = eta C$ @liu2021noise; the formula of small steps leaves out the last term
    @mandt2017stochastic. Taken are the output of the first class and the three directions in which the features vary most. The
    value is the eigenvalue of $Sigma^(-1) S$ furthest from one, $S$ from independent runs; sampling alone passes the band with a
    probability below $10^(-5)$.
    """
    draws = torch.Generator().manual_seed(seed)
    problem = last_layer(network(model, seed), draws)
    step = eta_lambda / float(torch.linalg.eigvalsh(problem.hessian)[-1])
    theta = sample_chains(problem, step, chains, "mean", draws)
    predicted = stationary_covariance(problem.hessian, problem.covariance, step, formula)
    ratios = torch.linalg.eigvals(torch.linalg.solve(predicted, theta.T @ theta / chains)).real
    return float(ratios[(ratios - 1).abs().argmax()])


@claim(
    source="li2018measuring",
    predicts=Equals("1.0*(excess >= 0)", within=0, of="each"),
    quick=Grid(model=MODELS, excess=[-1, 0], subspaces=[5], seeds=2),
    full=Grid(model=MODELS, excess=[-2, -1, 0, 1], subspaces=[50], seeds=10),
    controls={"codimension m: one more example": dict(further=1)},
)
def intrinsic_dimension_objective_trained(
    model: str, excess: int, subspaces: int, seed: int, further: int = 0
) -> dict[str, Any]:
    r"""Near a trained network of every family a random subspace meets the solutions if and only if it has as many dimensions as there are constraints.

    The logits of three examples are to take values that a network near by has: $m = 3 C$ equations, generically a solution set of
    codimension $m$. A random affine subspace of dimension $d$ through the trained parameters meets it if $d >= m$ and, almost surely, does not if $d < m$
    @li2018measuring. For a network, whose solution set is curved, that is a statement about a neighbourhood: the target is
    the network at a distance of $10^(-5)$. In the subspace Newton's method with the first Jacobian is run until it moves no more. The
    value is the share of subspaces in which the squared error falls below $10^(-12)$ of the first: $0$ for $d < m$, $1$
    for $d >= m$. One more example, the control, raises the codimension by $C$.
    """
    draws = torch.Generator().manual_seed(seed)
    trained = network(model, seed).some(3 + further, draws)
    J = trained.jacobian().flatten(0, 1)
    start, layout = flat_parameters(trained.net), layout_of(trained.net)

    def logits(flat: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(trained.net, layout.split(flat), trained.inputs)
        return found.detach().flatten()

    nudge = gaussian(draws, len(start))
    target = logits(start + 1e-5 * nudge / nudge.norm())
    first = float((target - logits(start)).square().sum())
    dimension = len(J) * 3 // (3 + further) + excess
    losses = []
    for _ in range(subspaces):
        P = gaussian(draws, len(start), dimension) / len(start) ** 0.5
        inverse, z = torch.linalg.pinv(J @ P, rtol=1e-13), torch.zeros(dimension)
        for _ in range(40):
            z = z + inverse @ (target - logits(start + P @ z))
        losses.append(float((target - logits(start + P @ z)).square().sum()) / first)
    return {"value": np.mean(np.array(losses) < 1e-12), "losses": np.array(losses)}


if __name__ == "__main__":
    script(__file__)
