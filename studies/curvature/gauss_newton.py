r"""What the Hessian of a network is made of.

By the chain rule the Hessian of a loss is the Gauss–Newton matrix, which sees the network only through its Jacobian, plus a
residual, which sees its curvature @schraudolph2002fast. For losses that are log-likelihoods the first part is the Fisher
information @martens2020new, though not what often passes for it @kunstner2019limitations. How large each part is, what rank
it has and what trace, follows from the architecture alone. All matrices here are formed in full, on small instances, and
compared with what the laboratory's matrix-free operators say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev

import lemmata.analysis as la
from lemmata.architectures import ARCHITECTURES, CNN, MLP, RNN, DeepLinear, arguments
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian
from lemmata.studies.training import flat_parameters, layout_of

EVERY = {entry.name: entry for entry in ARCHITECTURES}
CHOSEN = ["mlp", "cnn", "lstm", "gpt", "gcn", "neural-ode-rk4"]
MORE = [*CHOSEN, "resnet-none", "gru", "encoder", "gat", "deepsets", "group-cnn-p4"]


class Rows(nn.Module):
    """A network whose output, of any shape, is laid out as rows of logits along its last axis; one column gains zeros."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any) -> Tensor:
        """Rows of logits."""
        output = self.network(*inputs)
        rows = output.reshape(-1, output.shape[-1])
        return rows if rows.shape[1] > 1 else torch.cat([rows, torch.zeros_like(rows)], 1)


class Classifier:
    """A tiny architecture as a classifier of its own batch, with its derivatives in full."""

    def __init__(self, architecture: str, seed: int) -> None:
        entry = EVERY[architecture]
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        self.module = Rows(entry.build().to(device, dtype))
        self.inputs = arguments(entry.sample(seed, dtype, device)[0])
        rows, self.classes = self.module(*self.inputs).shape
        draws = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(self.classes, (rows,), generator=draws, device="cpu").to(device)

    def logits(self, flat: Tensor) -> Tensor:
        """The logits as a function of flat parameters."""
        return functional_call(self.module, layout_of(self.module).split(flat), self.inputs)

    def parts(self) -> tuple[Tensor, Tensor]:
        r"""J^T B J with B = (diag(p) - p p^T) / n, and the Hessian of <dL/df, f> with the slopes dL/df held fixed."""
        theta = flat_parameters(self.module)
        J = jacrev(self.logits)(theta).flatten(0, 1)
        logits = self.logits(theta)
        p, count = logits.softmax(1), len(logits)
        B = torch.block_diag(*[(row.diag() - row[:, None] * row) / count for row in p])
        slopes = (p - nn.functional.one_hot(self.labels, self.classes)) / count
        R = hessian(lambda flat: (slopes * self.logits(flat)).sum())(theta)
        return J.T @ B @ J, R

    def operator(self, kind: Any) -> la.Operator:
        """One of the laboratory's operators on the mean cross-entropy."""
        inputs = self.inputs if len(self.inputs) > 1 else self.inputs[0]
        return kind(self.module, nn.CrossEntropyLoss(), [(inputs, self.labels)])


@claim(
    source=("schraudolph2002fast", "martens2020new"),
    predicts=AtMost(1e-12),
    quick=Grid(architecture=CHOSEN, seeds=2),
    full=Grid(architecture=MORE, seeds=5),
    controls={"the network's own curvature: left out": dict(residual=False)},
)
def ggn_plus_residual(architecture: str, seed: int, residual: bool = True) -> float:
    r"""The Hessian is the Gauss–Newton matrix plus a residual.

    For a loss $L(theta) = ell(f(theta))$,
    $ nabla^2 L = J^top nabla^2 ell thin J + sum_k (partial ell)/(partial f_k) nabla^2 f_k , $
    with $J$ the Jacobian of all outputs @schraudolph2002fast. The left side is formed by the products of the Hessian
    operator; the right side from the Jacobian, the closed form $nabla^2 ell = "diag"(p) - p p^top$ of the cross-entropy, and
    the second derivatives of the outputs. The value is their relative distance in the Frobenius norm. The control leaves the
    sum out, as if the network were linear in its parameters.
    """
    problem = Classifier(architecture, seed)
    G, R = problem.parts()
    H = problem.operator(la.Hessian).dense()
    return float((H - G - R * residual).norm() / H.norm())


@claim(
    source=("martens2020new", "kunstner2019limitations"),
    predicts=AtMost(1e-12),
    quick=Grid(architecture=CHOSEN, seeds=2),
    full=Grid(architecture=MORE, seeds=5),
    controls={"labels from the model: labels from the data": dict(empirical=True)},
)
def fisher_is_ggn(architecture: str, seed: int, empirical: bool = False) -> float:
    r"""For softmax cross-entropy the Fisher information is the Gauss–Newton matrix.

    $ EE_(y tilde p_theta) nabla log p_theta (y) nabla log p_theta (y)^top = J^top ("diag"(p) - p p^top) J $
    @martens2020new. The value is the relative distance of the Fisher operator from the Gauss–Newton matrix of the claim
    above. The control takes the slopes at the labels of the data, the "empirical Fisher", which is another matrix
    @kunstner2019limitations.
    """
    problem = Classifier(architecture, seed)
    G = problem.parts()[0]
    F = problem.operator(la.EmpiricalFisher if empirical else la.Fisher).dense()
    return float((F - G).norm() / G.norm())


def piecewise(model: str, activation: str, shared: bool, seed: int) -> tuple[nn.Module, Tensor]:
    """A small network for digits: images for the convolutional ones, rows as time steps for the recurrent one."""
    draws = torch.Generator().manual_seed(seed)
    images, _ = digits(20, images=True)
    if shared:
        return RNN(8, 6, 3, activation=activation, generator=draws), images[:, 0]
    if model == "MLP":
        return MLP([64, 6, 5, 3], activation=activation, generator=draws), images.flatten(1)
    return CNN([1, 3, 3], 3, activation=activation, generator=draws), images


@claim(
    source="singh2021analytic",
    predicts=AtMost(1e-12),
    quick=Grid(model=["MLP", "CNN"], seeds=3),
    full=Grid(model=["MLP", "CNN"], seeds=20),
    controls={
        "piecewise linear units: tanh": dict(activation="tanh"),
        "a weight used once on each path: a recurrent network": dict(shared=True),
    },
)
def relu_residual_traceless(model: str, seed: int, activation: str = "relu", shared: bool = False) -> float:
    r"""For ReLU networks the residual has trace zero.

    Away from kinks the output of a ReLU network is affine in each single weight, for no path from input to output uses
    a weight twice. So the diagonal of every $nabla^2 f_k$ is zero, and with it that of the residual:
    $"tr" H = "tr" J^top nabla^2 ell thin J$ for any loss. The value is the relative difference of the two traces, from the
    full matrices, for the squared error on digits.

    Controls: tanh units bend; in a recurrent network the weight matrix is used at every time step, and paths use it many
    times.
    """
    net, x = piecewise(model, activation, shared, seed)
    target = torch.randn(net(x).shape, generator=torch.Generator().manual_seed(seed), device="cpu").to(x)
    operators = (kind(net, nn.MSELoss(), (x, target)) for kind in (la.Hessian, la.GGN))
    H, G = (operator.dense().trace() for operator in operators)
    return float((H - G).abs() / G)


@claim(
    source="singh2021analytic",
    predicts=Equals(1.0, within=0.1, of="mean"),
    quick=Grid(hidden=[100, 400], seeds=40),
    full=Grid(hidden=[100, 400, 800], seeds=100),
    controls={"the variance of each layer: the first one's doubled": dict(double=True)},
)
def relu_trace_at_initialisation(hidden: int, seed: int, double: bool = False) -> float:
    r"""The mean trace of a ReLU network's Hessian at initialisation.

    Let $f(x) = sum_j a_j (w_j dot x)_+$ with $w_(j i) tilde cal(N)(0, sigma_w^2 \/ d)$, $a_j tilde cal(N)(0, sigma_a^2 \/ h)$, and
    $L = 1/(2 n) sum_i (f(x_i) - y_i)^2$. As the residual has no trace,
    $ EE "tr" H = overline(norm(x)^2)/2 (h sigma_w^2 \/ d + sigma_a^2) , $
    whatever the targets. The value is the exact trace of the Hessian, from one pass of per-example gradients over digits,
    divided by this; here $sigma_w^2 = d$, $sigma_a^2 = h$, so that both layers count. In the control the weights of the
    first layer have twice the variance.
    """
    x, labels = digits(100)
    draws = torch.Generator().manual_seed(seed)
    first, second = nn.Linear(64, hidden, bias=False), nn.Linear(hidden, 1, bias=False)
    first.weight.data = gaussian(draws, hidden, 64) * (2**0.5 if double else 1.0)
    second.weight.data = gaussian(draws, 1, hidden)
    net = nn.Sequential(first, nn.ReLU(), second)
    H = la.Hessian(net, nn.MSELoss(), (x, labels[:, None].to(x)))
    expected = float(x.square().sum(1).mean()) / 2 * 2 * hidden
    return la.trace(H).value / 2 / expected  # nn.MSELoss lacks the half


def draw_spectra(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Eigenvalues of Gauss–Newton matrices fall to rounding after exactly N(C − 1) of them.

    Eigenvalue against rank on a logarithmic axis, for several N and C. Each curve drops by more than six decades at its
    own count.
    """
    chosen = [row for row in rows if row.arm == "" and row.k == 0]
    longest = max(len(row.values["spectrum"]) for row in chosen)
    columns: dict[str, Sequence[float]] = {"rank": list(range(1, longest + 1))}
    for row in chosen:
        n, c = row.point["examples"], row.point["classes"]
        spectrum = np.maximum(row.values["spectrum"], 1e-20)
        label = f"N = {n}, C = {c}: {n * (c - 1)}"
        columns[label] = [*spectrum.tolist(), *[float("nan")] * (longest - len(spectrum))]
        ax.semilogy(range(1, len(spectrum) + 1), spectrum, ".-", label=label)
    ax.set(xlabel="rank of the eigenvalue", ylabel="eigenvalue")
    ax.legend()
    return columns


@claim(
    source=("sagun2017empirical", "papyan2019measurements"),
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(classes=[3, 5], examples=[2, 5], seeds=3),
    full=Grid(classes=[3, 5, 10], examples=[2, 5, 9], seeds=20),
    controls={
        "examples that differ: one of them twice": dict(twice=True),
        "softmax: the squared error": dict(squared=True),
    },
    figures=(draw_spectra,),
)
def ggn_rank_count(
    classes: int, examples: int, seed: int, twice: bool = False, squared: bool = False
) -> dict[str, Any]:
    r"""The Gauss–Newton matrix of N examples and C classes has rank N(C − 1).

    The logit Hessian $"diag"(p) - p p^top$ of softmax cross-entropy has exactly one null vector, the vector of ones, so
    that $"rank" G <= N (C - 1)$; for generic data and weights it is equal, as long as that is below the number of
    parameters @sagun2017empirical @papyan2019measurements. The value is the number of eigenvalues above $10^(-10)$ of the
    largest, minus $N (C - 1)$, counted once in the full matrix and once in the spectrum of the Gram matrix of the examples;
    it is the one of the two that is further from 0.

    Controls: an example that occurs twice adds no rank. The squared error has the full rank $N C$.
    """
    x, labels = digits(500)
    draws = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(x), generator=draws, device="cpu")[:examples].tolist()
    places = places[:1] + places[:-1] if twice else places
    chosen, target = x[places], labels[places] % classes
    net = MLP([64, 12, classes], activation="tanh", generator=draws)
    loss: nn.Module = nn.MSELoss() if squared else nn.CrossEntropyLoss()
    G = la.GGN(net, loss, (chosen, nn.functional.one_hot(target, classes).to(x) if squared else target))
    values = torch.linalg.eigvalsh(G.dense()).flip(0)
    gram = la.gram_spectrum(G)
    counts = [int((found > 1e-10 * found[0]).sum()) - examples * (classes - 1) for found in (values, gram)]
    shown = values[: examples * classes + 10].clamp(min=1e-300).cpu().numpy()
    return {"value": max(counts, key=abs), "spectrum": shown}


@claim(
    source="singh2021analytic",
    predicts=AtMost(1e-12),
    quick=Grid(hidden=[3, 8], seeds=3),
    full=Grid(hidden=[3, 8, 20], seeds=20),
    controls={"linear units: tanh": dict(bent=True)},
)
def linear_hessian_trace(hidden: int, seed: int, bent: bool = False) -> float:
    r"""The trace of the Hessian of a two-layer linear network.

    For $L = 1/2 EE norm(W_2 W_1 x - y)^2$ with $Sigma = EE x x^top$ and $d_o$ outputs,
    $ "tr" H = norm(W_2)_F^2 "tr" Sigma + d_o "tr"(W_1 Sigma W_1^top) $
    at every $W_1, W_2$ and for every target. The value is the relative difference from the trace of the full Hessian, on
    digits and their labels. With tanh between the layers the formula fails.
    """
    x, labels = digits(100)
    y = nn.functional.one_hot(labels, 10).to(x)
    draws = torch.Generator().manual_seed(seed)
    net = (
        MLP([64, hidden, 10], activation="tanh", bias=False, generator=draws)
        if bent
        else DeepLinear([64, hidden, 10], generator=draws)
    )
    H = la.Hessian(net, lambda output, target: (output - target).square().sum(1).mean() / 2, (x, y), reduction="mean")
    first, second = (parameter.detach() for parameter in net.parameters())
    sigma = x.T @ x / len(x)
    formula = second.square().sum() * sigma.trace() + 10 * (first @ sigma @ first.T).trace()
    return float((H.dense().trace() - formula).abs() / formula)


if __name__ == "__main__":
    script(__file__)
