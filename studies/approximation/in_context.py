r"""Attention without a softmax learns in context by gradient descent.

Give a head examples $(x_j, y_j)$ of a linear function and a query, all in one sequence. Without the softmax a layer of it is,
for suitable weights, exactly a step of gradient descent on the examples' squared error, and a stack of layers as many steps
@vonoswald2023transformers. Trained on random tasks, a head finds that step by itself, and the step size that is best for
the number of examples: both it and the error are known in closed form @ahn2023transformers @zhang2024trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

SOFTMAX = "linear attention: a softmax"
RATE = 0.1


class LinearHead(nn.Module):
    r"""A residual head over tokens $e = (x, y)$: $e_i <- e_i + 1/n sum_(j <= n) (e_i^top W e_j) V e_j$.

    The first n tokens are examples, which all tokens look at; the others are queries, with y = 0. A query's prediction is
    minus what has become of its y. With ``softmax`` the products are weights that sum to one.
    """

    def __init__(self, W: Tensor, V: Tensor, examples: int, softmax: bool = False):
        super().__init__()
        self.W, self.V = nn.Parameter(W.clone()), nn.Parameter(V.clone())
        self.examples, self.softmax = examples, softmax

    def forward(self, e: Tensor) -> Tensor:
        """Return the tokens after the layer: (b, n + q, d + 1) → (b, n + q, d + 1)."""
        context = e[:, : self.examples]
        products = e @ self.W @ context.mT
        weights = torch.softmax(products, -1) if self.softmax else products / self.examples
        return e + weights @ (context @ self.V.mT)


def predictions(e: Tensor, examples: int) -> Tensor:
    """What the queries say, (b, q)."""
    return -e[:, examples:, -1]


def one_step(d: int, examples: int, rate: float, softmax: bool = False) -> LinearHead:
    """The head that takes one step of gradient descent: W = diag(I, 0), V = −η at the y of y."""
    label = torch.zeros(d + 1, d + 1)
    label[-1, -1] = 1.0
    return LinearHead(torch.eye(d + 1) - label, -rate * label, examples, softmax).requires_grad_(False)


def sequences(x: Tensor, w: Tensor, examples: int, noise: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Tokens (b, n + q, d + 1) of inputs (b, n + q, d) and weights (b, d), and what the queries should say."""
    y = x @ w[..., None]
    shown = y[:, :examples] + noise
    return torch.cat([x, torch.cat([shown, torch.zeros_like(y[:, examples:])], 1)], -1), y[:, examples:, 0]


def tasks(
    draws: torch.Generator, count: int, d: int, examples: int, queries: int, noise: float = 0.0, stretch: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Random linear functions with normal weights and inputs.

    ``noise`` is the variance of what is added to the examples' y, ``stretch`` the standard deviation of the first input.
    """
    w, x = gaussian(draws, count, d), gaussian(draws, count, examples + queries, d)
    x = torch.cat([stretch * x[..., :1], x[..., 1:]], -1)
    return sequences(x, w, examples, noise**0.5 * gaussian(draws, count, examples, 1))


def framed(draws: torch.Generator, count: int, d: int, examples: int) -> tuple[Tensor, Tensor]:
    """Normal examples, (count · d) tasks: each set with d orthogonal weights and queries of length √d.

    Over a frame the squared error averages to its mean over all weights and queries of covariance I: less noise.
    """
    frames = torch.linalg.qr(gaussian(draws, 2, count, d, d))[0] * d**0.5
    x = torch.cat([gaussian(draws, count, examples, d), frames[0]], 1)
    return sequences(x.repeat_interleave(d, 0), frames[1].flatten(0, 1), examples)


def descended(e: Tensor, examples: int, rate: float, steps: int, start: Tensor) -> Tensor:
    r"""Predictions after steps of descent on $1/(2 n) sum_j (w dot x_j - y_j)^2$, its gradient by automatic differentiation."""
    x, y = e[:, :examples, :-1], e[:, :examples, -1]
    w = start
    for _ in range(steps):
        leaf = w.detach().requires_grad_()
        loss = 0.5 * ((x @ leaf[..., None])[..., 0] - y).square().mean(1).sum()
        w = w - rate * torch.autograd.grad(loss, leaf)[0]
    return (e[:, examples:, :-1] @ w[..., None])[..., 0].detach()


@claim(
    source="vonoswald2023transformers",
    predicts=AtMost("layers*rounding(n*(d + 1))", of="max"),
    quick=Grid(layers=[1, 2, 4], n=[20], d=[5], seeds=4),
    full=Grid(layers=[1, 2, 4, 8], n=[20, 100], d=[5, 20], seeds=10),
    controls={SOFTMAX: dict(softmax=True), "descent from zero: from random weights": dict(start=1.0)},
)
def linear_attention_is_gd(layers: int, n: int, d: int, seed: int, softmax: bool = False, start: float = 0.0) -> float:
    r"""A layer of linear attention is a step of gradient descent on the examples.

    Let a layer map tokens $e_i = (x_i, y_i)$ to $e_i + 1/n sum_(j = 1)^n (e_i^top W e_j) V e_j$ with $W = "diag"(I, 0)$ and
    $V = -eta "diag"(0, 1)$. After $L$ layers the last coordinate of a query $(x, 0)$ is $-w_L dot x$, where $w_L$ are the
    weights after $L$ steps of gradient descent of size $eta$ from zero on $1/(2 n) sum_j (w dot x_j - y_j)^2$
    @vonoswald2023transformers. The value is the largest difference from predictions by descent, over the largest of these.
    The same matrices serve all layers. Controls: weights by a softmax; descent that starts elsewhere.
    """
    draws = torch.Generator().manual_seed(seed)
    e, _ = tasks(draws, 50, d, n, 4)
    truth = descended(e, n, 0.5, layers, start * gaussian(draws, 50, d))
    for _ in range(layers):
        e = one_step(d, n, 0.5, softmax)(e)
    return float((predictions(e, n) - truth).abs().max() / truth.abs().max())


# The best step


def risk(rate: np.ndarray, n: int, d: int) -> np.ndarray:
    r"""$EE (w dot x - hat(y))^2 = d (1 - 2 eta + eta^2 (n + d + 1)\/n)$."""
    return d * (1 - 2 * rate + rate**2 * (n + d + 1) / n)


def draw_risk(ax: Any, rows: Rows) -> Columns:
    """The error in context against the step size: measured on the formula, least at n over n plus d plus one.

    Mean squared error against the step size, for three numbers of examples. Dots lie on parabolas; triangles at their
    lowest points mark the predicted minima, which move towards one and down as examples become more.
    """
    columns: dict[str, Any] = {}
    for n in sorted({row.point["n"] for row in rows}):
        chosen = [row for row in rows if not row.arm and row.point["n"] == n and not row.error]
        d = chosen[0].point["d"]
        columns["step size"] = rates = chosen[0].values["rates"]
        columns[f"{n} examples"] = np.mean([row.values["risks"] for row in chosen], 0)
        (dots,) = ax.plot(rates, columns[f"{n} examples"], "o", markersize=4, label=f"{n} examples")
        fine = np.linspace(rates[0], rates[-1], 100)
        ax.plot(fine, risk(fine, n, d), color=dots.get_color(), linewidth=1)
        ax.plot([n / (n + d + 1)], [d * (d + 1) / (n + d + 1)], "v", color=dots.get_color(), markersize=9)
    ax.set(xlabel="step size", ylabel="mean squared error", ylim=(0, None))
    ax.legend()
    return columns


@claim(
    source=("vonoswald2023transformers", "ahn2023transformers"),
    predicts=Equals("d*(d + 1)/(n + d + 1)", within="0.03*d*(d + 1)/(n + d + 1)"),
    quick=Grid(n=[10, 20, 40], d=[5], count=[1500], seeds=10),
    full=Grid(n=[10, 20, 40, 80], d=[5, 10], count=[5000], seeds=20),
    controls={"the best step: one": dict(best=False), SOFTMAX: dict(softmax=True)},
    figures=(draw_risk,),
)
def linear_attention_is_gd_risk(
    n: int, d: int, count: int, seed: int, best: bool = True, softmax: bool = False
) -> dict[str, Any]:
    r"""One step in context leaves an error of d times d plus one over n plus d plus one, and no less.

    For $n$ examples without noise whose inputs have the law $cal(N)(0, I_d)$, weights $w$ and a query $x$ of mean zero and
    covariance $I_d$, one step of size $eta$ leaves
    $ EE (w dot x - hat(y))^2 = d (1 - 2 eta + eta^2 (n + d + 1) / n), $
    from $EE norm(X^top X v)^2 = n (n + d + 1) norm(v)^2$. It is least at
    $ eta^* = n / (n + d + 1), quad "where it is" quad (d (d + 1)) / (n + d + 1). $
    For $n = 20$ and $d = 5$: $eta^* = 0.769$ and 1.154. That this is the best a linear head can do at all, with any
    weights, is shown by @ahn2023transformers @zhang2024trained. The value is the mean squared error of the head with step
    $eta^*$ on random tasks. Controls: the step $eta = 1$, which leaves $d (d + 1)\/n$; a softmax.
    """
    draws = torch.Generator().manual_seed(seed)
    e, truth = framed(draws, count, d, n)
    rate = n / (n + d + 1) if best else 1.0
    found = predictions(one_step(d, n, rate, softmax)(e), n)
    rates = np.linspace(0.3, 1.2, 10)
    risks = [float((truth - other / rate * found).square().mean()) for other in rates]  # predictions are linear in V
    return {"value": float((truth - found).square().mean()), "rates": rates, "risks": np.array(risks)}


# The step that training finds


def mean_square(e: Tensor, target: Tensor, examples: int) -> Tensor:
    """The queries' mean squared error."""
    return (predictions(e, examples) - target).square().mean()


def draw_matrix(ax: Any, rows: Rows) -> Columns:
    """What training makes of a head: a step of gradient descent.

    The matrix minus V at the label times W, mean over trained heads, as a coloured grid. The entries on the diagonal,
    but for the last, are equal, near the predicted step size; all others are near zero. Those of the last row meet the y of
    a query, which is zero, and stay where they began.
    """
    chosen = [row.values["matrix"] for row in rows if not row.arm and not row.error]
    d, n = rows[0].point["d"], rows[0].point["n"]
    mean = np.mean([matrix for matrix in chosen if matrix.shape == (d + 1, d + 1)], 0)
    names = [*(f"x{i + 1}" for i in range(d)), "y"]
    ax.imshow(mean, vmin=-1, vmax=1, cmap="RdBu_r")
    for (i, j), value in np.ndenumerate(mean):
        ax.text(
            j,
            i,
            f"{round(value, 2) + 0.0:.2f}",
            ha="center",
            va="center",
            fontsize="small",
            color="w" if value > 0.6 else "k",
        )
    ax.set_xticks(range(d + 1), names)
    ax.set_yticks(range(d + 1), names)
    ax.set(title=f"{n} examples: step {n / (n + d + 1):.3f} predicted", xlabel="example", ylabel="query")
    ax.grid(visible=False)
    i, j = np.indices(mean.shape)
    return {"query": [names[k] for k in i.ravel()], "example": [names[k] for k in j.ravel()], "entry": mean.ravel()}


@claim(
    source=("vonoswald2023transformers", "ahn2023transformers", "zhang2024trained"),
    predicts=Equals("n/(n + d + 1)", within="0.03*n/(n + d + 1)"),
    quick=Grid(n=[20], d=[5], nets=[2], steps=[300], seeds=5),
    full=Grid(n=[10, 20, 40], d=[5], nets=[8], steps=[2000], seeds=12),
    controls={
        "examples without noise: as much as signal": dict(noise=True),
        "inputs alike in all directions: one stretched threefold": dict(stretch=3.0),
    },
    figures=(draw_matrix,),
    timeout=3600,
)
def linear_attention_is_gd_trained(
    n: int, d: int, nets: int, steps: int, seed: int, noise: bool = False, stretch: float = 1.0
) -> dict[str, Any]:
    r"""A trained head of linear attention takes a step of gradient descent of the best size.

    Trained on random tasks, new ones at every step, a head with free $W$ and $V$ from small random weights finds
    $W prop "diag"(I, 0)$ and $V prop "diag"(0, 1)$, whose product of scales is the best step
    $eta^* = n\/(n + d + 1)$ @ahn2023transformers @zhang2024trained. The value is
    $hat(eta) = -V_(y y) thin "tr"(W_(x x))\/d$, mean over heads trained side by side. Controls: noise on the examples'
    labels of the variance $d$ of these, with which the best step is $n\/(n + 2 d + 1)$; and inputs that are longer in one
    direction, for which a step of one size in all directions is not the best.
    """
    draws = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(nets):
        W, V = 0.3 * gaussian(draws, 2, d + 1, d + 1)
        made.append(LinearHead(W, V, n).to(torch.get_default_device()))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        e, truth = tasks(draws, nets * 128, d, n, 4, d * float(noise), stretch)
        return e.unflatten(0, (nets, 128)), truth.unflatten(0, (nets, 128))

    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=RATE, total_steps=steps)
    losses = train(made, partial(mean_square, examples=n), batch, steps, partial(torch.optim.Adam, lr=RATE), cycle)
    matrices = torch.stack([-net.V[-1, -1] * net.W for net in made]).detach()
    found = matrices[:, range(d), range(d)].mean(1)
    return {"value": float(found.mean()), "matrix": matrices.mean(0), "final": float(losses[-50:].mean())}


if __name__ == "__main__":
    script(__file__)
