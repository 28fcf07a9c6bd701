r"""Cross-entropy: the loss that is a likelihood.

Classification minimises the cross-entropy of softmax probabilities. Its gradient and Hessian with respect to the logits have
closed forms, the Hessian is the Fisher information of the softmax model, and that matrix is the local metric of the
Kullback–Leibler divergence @amari1998natural @cover2006elements. Each statement is a claim; exact ones are held to rounding
error, asymptotic ones to the order of their remainder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import lemmata.analysis as la
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

CLASSES = (2, 10, 100)
DIRECTIONS = 20


def softmax(z: Tensor) -> Tensor:
    """Probabilities from the definition, by exponentials: no library softmax, no derivative."""
    weights = (z - z.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def _target(draws: torch.Generator, classes: int, normalised: bool) -> Tensor:
    target = softmax(gaussian(draws, classes))
    return target if normalised else 1.1 * target


@claim(
    source="cover2006elements",
    predicts=AtMost("rounding(classes)"),
    quick=Grid(classes=CLASSES, seeds=20),
    full=Grid(classes=[2, 5, 10, 100, 1000], seeds=1000),
    controls={
        "the divergence from target to prediction: the other way round": dict(reverse=True),
        "targets that sum to one: 1.1 in all": dict(normalised=False),
    },
)
def cross_entropy_identities_decomposition(
    classes: int, seed: int, reverse: bool = False, normalised: bool = True
) -> float:
    r"""Cross-entropy is entropy plus divergence.

    For probability vectors $p$ and $q$ with $q_i > 0$ @cover2006elements,
    $ H(p, q) = - sum_i p_i log q_i = H(p) + "KL"(p || q), $
    so the $q$ that minimises the expected loss is $p$. The left side is the library's cross-entropy with soft targets, from
    logits; the right side is SciPy's entropy of $p$ and relative entropy as a mean log-ratio under $p$. The value is their
    relative difference, at most $50 sqrt(m) epsilon$ with $m$ the number of classes. For a target that does not sum to one
    SciPy normalises, and the identity fails.
    """
    from scipy.stats import entropy

    draws = torch.Generator().manual_seed(seed)
    z = gaussian(draws, classes)
    p = _target(draws, classes, normalised)
    loss = F.cross_entropy(z, p).item()
    first, second = p.cpu().numpy(), softmax(z).cpu().numpy()
    divergence = entropy(second, first) if reverse else entropy(first, second)
    return abs(loss - (entropy(first) + divergence)) / loss


@claim(
    source="cover2006elements",
    predicts=AtMost("rounding(classes)"),
    quick=Grid(classes=CLASSES, seeds=20),
    full=Grid(classes=[2, 5, 10, 100, 1000], seeds=1000),
    controls={
        "targets that sum to one: 1.1 in all": dict(normalised=False),
        "the log-loss: the squared error of probabilities": dict(loss="brier"),
    },
)
def cross_entropy_identities_gradient(classes: int, seed: int, normalised: bool = True, loss: str = "log") -> float:
    r"""The gradient of cross-entropy in the logits is prediction minus target.

    For every target $y$ with $sum_i y_i = 1$, hard or soft,
    $ nabla_z H(y, "softmax"(z)) = "softmax"(z) - y. $
    The gradient comes from automatic differentiation, the right side from exponentials; the value is the largest
    difference, relative to $norm(y)$. If $y$ sums to $s$ the gradient is $s thin "softmax"(z) - y$ instead, and
    the squared error of the probabilities has a different one.
    """
    draws = torch.Generator().manual_seed(seed)
    z = gaussian(draws, classes).requires_grad_()
    y = _target(draws, classes, normalised)
    value = F.cross_entropy(z, y) if loss == "log" else 0.5 * (z.softmax(-1) - y).square().sum()
    gradient = torch.autograd.grad(value, z)[0]
    return ((gradient - (softmax(z.detach()) - y)).abs().max() / y.norm()).item()


def fisher(z: Tensor) -> Tensor:
    """Fisher information of the softmax model in its logits, diag(p) − p pᵀ."""
    p = softmax(z)
    return torch.diag(p) - torch.outer(p, p)


@claim(
    source="amari1998natural",
    predicts=AtMost("rounding(classes)"),
    quick=Grid(classes=CLASSES, seeds=20),
    full=Grid(classes=[2, 5, 10, 100, 300], seeds=200),
    controls={
        "targets that sum to one: 1.1 in all": dict(normalised=False),
        "the log-loss: the squared error of probabilities": dict(loss="brier"),
    },
)
def cross_entropy_identities_hessian(classes: int, seed: int, normalised: bool = True, loss: str = "log") -> float:
    r"""The Hessian of cross-entropy in the logits is the Fisher information, whatever the target.

    With $p = "softmax"(z)$ and any target $y$ with $sum_i y_i = 1$,
    $ nabla_z^2 H(y, p) = "diag"(p) - p p^top = F(z), $
    the Fisher information of the softmax model @amari1998natural: positive semidefinite, with null vector
    $(1, dots, 1)$, and free of $y$. The value is $norm(nabla_z^2 H - F)_F \/ norm(F)_F$.
    """
    draws = torch.Generator().manual_seed(seed)
    z = gaussian(draws, classes)
    y = _target(draws, classes, normalised)
    log_loss: Callable[[dict[str, Tensor]], Tensor] = lambda named: F.cross_entropy(named["z"], y)  # noqa: E731
    brier: Callable[[dict[str, Tensor]], Tensor] = lambda named: 0.5 * (named["z"].softmax(-1) - y).square().sum()  # noqa: E731
    hessian = la.Hessian.of(log_loss if loss == "log" else brier, {"z": z}).dense()
    return ((hessian - fisher(z)).norm() / fisher(z).norm()).item()


def divergence(z: Tensor, w: Tensor) -> Tensor:
    """Kullback–Leibler divergence of softmax(z) from softmax(w), row by row."""
    return (softmax(z) * (z - z.logsumexp(-1, True) - w + w.logsumexp(-1, True))).sum(-1)


def remainder_slope(classes: int, seed: int, jeffreys: bool, metric: str, sizes: np.ndarray) -> dict[str, Any]:
    """Log–log slope of the mean over 20 unit directions of the divergence less its quadratic form."""
    draws = torch.Generator().manual_seed(seed)
    z = gaussian(draws, classes)
    units = gaussian(draws, DIRECTIONS, classes)
    units = units / units.norm(dim=1, keepdim=True)
    remainders = []
    for h in sizes.tolist():
        moved = z + h * units
        distance = divergence(z, moved) + divergence(moved, z) if jeffreys else divergence(z, moved)
        form = h * h * torch.stack([u @ _metric(metric, z, z + h * u) @ u for u in units])
        remainders.append((distance - (form if jeffreys else form / 2)).abs().mean().item())
    slope = np.polyfit(np.log(sizes), np.log(remainders), 1)[0]
    return {"value": slope, "h": sizes, "remainder": np.array(remainders)}


def _metric(name: str, z: Tensor, moved: Tensor) -> Tensor:
    if name == "identity":
        return torch.eye(z.numel(), dtype=z.dtype, device=z.device)
    return fisher(z if name == "fisher" else (z + moved) / 2)


def draw_remainders(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The remainder of the quadratic form falls with its predicted power of the distance.

    Mean remainder against the size of the change in the logits, ten classes, both axes logarithmic. The claim's line is
    straight and steeper than those of the controls.
    """
    chosen = [row for row in rows if row.k == 0 and row.point["classes"] == 10]
    columns: dict[str, Sequence[float]] = {"size": chosen[0].values["h"]}
    for row in chosen:
        label = f"control: {row.arm}" if row.arm else "claim"
        columns[label] = row.values["remainder"]
        ax.loglog(columns["size"], columns[label], marker=".", linestyle="--" if row.arm else "-", label=label)
    ax.set(xlabel="size of the change", ylabel="mean remainder")
    ax.legend()
    return columns


@claim(
    source="amari1998natural",
    predicts=Equals(3, within=0.05),
    quick=Grid(classes=[3, 10, 100], seeds=10),
    full=Grid(classes=[3, 10, 100], seeds=200),
    controls={"the Fisher metric: the identity": dict(metric="identity")},
    figures=(draw_remainders,),
)
def cross_entropy_identities_divergence(classes: int, seed: int, metric: str = "fisher") -> dict[str, Any]:
    r"""Divergence is half the Fisher form, up to third order.

    For $p_z = "softmax"(z)$ and $F(z) = "diag"(p_z) - p_z p_z^top$ @amari1998natural,
    $ "KL"(p_z || p_(z + delta)) = 1/2 delta^top F(z) delta + O(norm(delta)^3), $
    and the third-order term vanishes for no generic direction. The value is the slope of the mean remainder over twenty
    directions, $norm(delta) = 10^(-1), dots, 10^(-3)$, in logarithmic axes. With the Euclidean metric in place of $F$
    the remainder is of order two.
    """
    return remainder_slope(classes, seed, False, metric, np.logspace(-1, -3, 5))


@claim(
    source="amari1998natural",
    predicts=Equals(4, within=0.05),
    quick=Grid(classes=[3, 10, 100], seeds=40),
    full=Grid(classes=[3, 10, 100], seeds=200),
    controls={
        "the metric at the midpoint: at one end": dict(metric="fisher"),
        "the Fisher metric: the identity": dict(metric="identity"),
    },
    figures=(draw_remainders,),
)
def cross_entropy_identities_jeffreys(classes: int, seed: int, metric: str = "midpoint") -> dict[str, Any]:
    r"""The symmetric divergence is the Fisher form at the midpoint, up to fourth order.

    Jeffreys' divergence $J(z, w) = "KL"(p_z || p_w) + "KL"(p_w || p_z)$ is symmetric, so around the midpoint of $z$ and
    $w = z + delta$ its expansion has even orders only:
    $ J(z, z + delta) = delta^top F(z + delta\/2) thin delta + O(norm(delta)^4). $
    With $F$ taken at one end @amari1998natural the remainder is of order three, with the Euclidean metric of order two. The
    value is the slope for $norm(delta) = 10^(-1\/2), dots, 10^(-2)$.
    """
    return remainder_slope(classes, seed, True, metric, np.logspace(-0.5, -2, 5))


if __name__ == "__main__":
    script(__file__)
