r"""A second opinion on the curvature of trained networks.

A number from one program is an opinion. PyHessian @yao2020pyhessian finds the largest eigenvalues of a Hessian by power
iteration with deflation, and its trace as the mean of random quadratic forms @hutchinson1989stochastic. It shares no code
with this laboratory, which takes eigenvalues from a Lanczos process with residual intervals, and the trace from the exact
trace of the Gauss–Newton part. Networks of four families are trained on handwritten digits, and both programs are asked
about the same weights and the same images.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lemmata.analysis as la
from lemmata.architectures import CNN, MLP, ResNet
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits
from lemmata.studies.training import train

TOP = 3
MODELS = ("tanh MLP", "ReLU MLP", "CNN", "ResNet")


def network(model: str, draws: torch.Generator) -> nn.Module:
    """A small network for 8 × 8 images."""
    made: dict[str, Callable[[], nn.Module]] = {
        "tanh MLP": lambda: nn.Sequential(nn.Flatten(), MLP([64, 32, 10], activation="tanh", generator=draws)),
        "ReLU MLP": lambda: nn.Sequential(nn.Flatten(), MLP([64, 32, 10], activation="relu", generator=draws)),
        "CNN": lambda: CNN([1, 4, 8], 10, generator=draws),
        "ResNet": lambda: ResNet([1, 4, 8], 10, norm="none", generator=draws),
    }
    return made[model]()


def trained(model: str, images: int, steps: int, seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network after full-batch steps of Adam, its images and their labels."""
    net = network(model, torch.Generator().manual_seed(seed))
    x, y = digits(images, images=True)
    train([net], cross_entropy, lambda step: (x[None], y[None]), steps, partial(torch.optim.Adam, lr=0.01))
    return net, x, y


def asked(net: nn.Module, x: Tensor, y: Tensor, seed: int) -> Any:
    """PyHessian's estimator on a copy of a network; it draws from torch's global generator."""
    from pyhessian import hessian

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its backward(create_graph=True) warns of a reference cycle
        return hessian(copy.deepcopy(net), cross_entropy, data=(x, y), cuda=x.is_cuda)


def draw_eigenvalues(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """The three largest Hessian eigenvalues of each trained network, from both programs, one seed.

    A logarithmic axis of eigenvalues over four networks. At every network each of PyHessian's three crosses lies in the
    middle of one of our circles.
    """
    columns: dict[str, list[Any]] = {"model": [], "eigenvalue": [], "lemmata": [], "half_width": [], "pyhessian": []}
    chosen = {row.point["model"]: row for row in reversed([row for row in rows if row.arm == ""])}
    names = [name for name in MODELS if name in chosen]
    for name in names:
        values = chosen[name].values
        columns["model"] += [name] * TOP
        columns["eigenvalue"] += range(1, TOP + 1)
        for key in ("lemmata", "half_width", "pyhessian"):
            columns[key] += list(values[key])
    places = [
        names.index(name) + 0.15 * (rank - 2)
        for name, rank in zip(columns["model"], columns["eigenvalue"], strict=True)
    ]
    ax.semilogy(places, columns["lemmata"], "o", markersize=9, fillstyle="none", label="lemmata")
    ax.semilogy(places, columns["pyhessian"], "x", label="PyHessian")
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("eigenvalue of the Hessian")
    ax.legend(loc="best")
    return columns


@claim(
    source=("yao2020pyhessian",),
    predicts=AtMost(1e-3),
    quick=Grid(model=MODELS, images=[100], steps=[40], seeds=1),
    full=Grid(model=MODELS, images=[500], steps=[200], seeds=5),
    controls={
        "the same weights: one training step later": dict(later=True),
        "the same matrix: the Gauss–Newton matrix": dict(matrix="GGN"),
    },
    figures=(draw_eigenvalues,),
)
def second_opinion_eigenvalues(
    model: str, images: int, steps: int, seed: int, later: bool = False, matrix: str = "Hessian"
) -> dict[str, Any]:
    r"""Two programs find the same largest eigenvalues.

        The three largest eigenvalues of the Hessian of the cross-entropy, over the same images and weights, from our Lanczos
        process to a relative residual of $10^(-6)$, and from PyHessian's power iteration @yao2020pyhessian run until two
        iterates agree to $10^(-7)$. The value is the largest of the three relative differences. What remains, $2 dot 10^(-6)$ in
    every network, is PyHessian's: it divides vectors by their norm plus $10^(-6)$, and so its values are too small by twice
    that.

        Controls: PyHessian is asked about the weights after one more training step, and our side about the Gauss–Newton
        matrix in place of the Hessian. Both are near by, and both must be told apart.
    """
    net, x, y = trained(model, images, steps, seed)
    kind = {"Hessian": la.Hessian, "GGN": la.GGN}[matrix]
    pairs = la.eigenpairs(kind(net, cross_entropy, (x, y)), k=TOP, which="magnitude", tol=1e-6)
    other = trained(model, images, steps + 1, seed)[0] if later else net
    theirs = asked(other, x, y, seed).eigenvalues(maxIter=1000, tol=1e-7, top_n=TOP)[0]
    ours = pairs.values.cpu().numpy()
    order = np.argsort(-np.abs(ours))
    ours, half = ours[order], pairs.residuals.cpu().numpy()[order]
    peer = np.array(sorted(theirs, key=abs, reverse=True))
    return {
        "value": float(np.max(np.abs(ours - peer) / np.abs(ours))),
        "lemmata": ours,
        "half_width": half,
        "pyhessian": peer,
    }


@claim(
    source=("yao2020pyhessian", "hutchinson1989stochastic"),
    predicts=Equals(0.0, within=0.1, of="mean"),
    quick=Grid(model=MODELS[:2], images=[100], steps=[40], probes=[200], seeds=8),
    full=Grid(model=MODELS, images=[200], steps=[60], probes=[1000], seeds=8),
    controls={"the whole matrix: its largest diagonal block": dict(part=True)},
)
def second_opinion_trace(
    model: str, images: int, steps: int, probes: int, seed: int, part: bool = False
) -> dict[str, Any]:
    r"""PyHessian's random traces scatter about our exact one.

    For a sum of cross-entropies, $"tr" H = "tr" J^top nabla^2 ell thin J + "tr" R$, where the first part is found without
    random probes from one backward pass per class, and $R$ is small. PyHessian averages $v^top H v$ over random signs
    $v$ @yao2020pyhessian. The value is its mean over the probes, divided by our trace, minus one. The control compares it
    with the trace of the largest layer alone.
    """
    net, x, y = trained(model, images, steps, seed)
    largest = max(net.named_parameters(), key=lambda named: named[1].numel())[0]
    operator = la.Hessian(net, cross_entropy, (x, y), params=largest if part else "*")
    ours = la.trace(operator, tol=0.01, seed=seed)
    theirs = asked(net, x, y, seed).trace(maxIter=probes, tol=0.0)
    return {"value": float(np.mean(theirs)) / ours.value - 1, "lemmata": ours.value, "pyhessian": np.array(theirs)}


if __name__ == "__main__":
    script(__file__)
