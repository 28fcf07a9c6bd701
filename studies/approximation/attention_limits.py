r"""What softmax attention does whatever its weights: it averages, and it is not Lipschitz.

A softmax over $n$ bounded scores gives every token a weight of order $1\/n$. So one token changes what is read out by $O(1\/n)$,
and a property that hangs on every single token, like parity, loses its margin with the length @hahn2020theoretical. On
unbounded inputs the same softmax is not Lipschitz: its derivative grows with the square of the tokens; scores that are
distances instead of products cure it @kim2021lipschitz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from typing import Any

import numpy as np
import torch
from scipy.special import lambertw
from torch import Tensor
from torch.func import jacrev, vmap

from lemmata.architectures import RNN, Encoder
from lemmata.studies.claim import AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]

# One token among n

SHORTEST, WIDTH = 16, 16
LOG, MACHINE = "bounded scores: times ln n", "attention: a recurrent network"


def parity_machine() -> RNN:
    """The recurrent network that counts modulo two: h = ((s − x)₊, (x − s)₊) with s the sum of h before."""
    net = RNN(1, 2, 1, activation="relu").requires_grad_(False)
    for name, value in (("W", [[-1.0], [1.0]]), ("U", [[1.0, 1.0], [-1.0, -1.0]]), ("b", [0.0, 0.0])):
        net.get_parameter(name).copy_(torch.tensor(value))
    net.get_parameter("readout.weight").fill_(1.0)
    net.get_parameter("readout.bias").zero_()
    return net


def transformer(layers: int, draws: torch.Generator) -> tuple[Encoder, Tensor, Tensor]:
    """A random encoder, the vectors of the bits 0 and 1, and what is added to the first token."""
    net = Encoder(WIDTH, 4, layers, hidden=2 * WIDTH, generator=draws).requires_grad_(False)
    return net, gaussian(draws, 2, WIDTH), gaussian(draws, WIDTH)


def read_last(net: Encoder, vectors: Tensor, first: Tensor, bits: Tensor, scale: float) -> Tensor:
    """The encoder's output at the last token, (b, d), its scores multiplied by ``scale``."""
    queries = [p for name, p in net.named_parameters() if ".W_q." in name]
    for query in queries:
        query.mul_(scale)
    x = vectors[bits]
    x = torch.cat([x[:, :1] + first, x[:, 1:]], 1)
    out = net(x)[:, -1]
    for query in queries:
        query.div_(scale)
    return out


def flipped(bits: Tensor) -> Tensor:
    """The sequence (n,) and, below it, that with one token flipped: the first, a zero, a one; not the last."""
    inner = bits[1:-1]
    places = [0, *(1 + int((inner == bit).nonzero()[0]) for bit in (0, 1))]
    return torch.stack(
        [bits, *(bits.index_fill(0, torch.tensor([i], device=bits.device), 1 - int(bits[i])) for i in places)]
    )


def influences(
    lengths: Sequence[int], layers: int, recurrent: bool, logarithmic: bool, draws: torch.Generator
) -> np.ndarray:
    """By how much one flipped token moves the output at the last one, the most over all tokens, at each length."""
    net, vectors, first = transformer(layers, draws)
    sequence = torch.randint(2, (max(lengths),), generator=draws, device="cpu")
    sequence[1:3] = torch.tensor([0, 1])
    machine, found = parity_machine(), []
    for n in lengths:
        rows = flipped(sequence[:n].to(vectors.device))
        if recurrent:
            out = machine(rows[..., None].to(vectors))[:, -1]
        else:
            out = read_last(net, vectors, first, rows, log(n) if logarithmic else 1.0)
        found.append(float((out[1:] - out[0]).norm(dim=1).max()))
    return np.array(found)


def draw_influence(ax: Any, rows: Rows) -> Columns:
    """One flipped token moves the output of a transformer by one over the length, that of a recurrent network as ever.

    Largest change of the last output against the length, both axes logarithmic, geometric mean over networks. Dots fall
    along a line of slope minus one; triangles, with scores that grow like the logarithm, fall much slower; crosses, of the
    network that computes parity, stay at one.
    """
    columns: dict[str, Any] = {}
    for arm, label, mark in (("", "attention", "o"), (LOG, "scores times ln n", "^"), (MACHINE, "parity machine", "x")):
        chosen = [row.values["influence"] for row in rows if row.arm == arm and not row.error]
        columns[label] = np.exp(np.mean(np.log(chosen), 0))
        columns["length"] = SHORTEST * 2 ** np.arange(len(columns[label]))
        ax.loglog(columns["length"], columns[label], mark, label=label)
    line = columns["attention"][0] * SHORTEST / columns["length"]
    ax.plot(columns["length"], line, color="C0", linewidth=1, label="slope −1")
    ax.set_xticks(columns["length"], columns["length"])
    ax.minorticks_off()
    ax.set(xlabel="length n", ylabel="largest influence of a token")
    ax.legend()
    return {"length": columns.pop("length"), **columns}


@claim(
    source="hahn2020theoretical",
    predicts=Equals(-1, within=0.1),
    quick=Grid(longest=[256], layers=[2], nets=[6], seeds=12),
    full=Grid(longest=[512], layers=[1, 2, 4], nets=[10], seeds=20),
    controls={LOG: dict(logarithmic=True), MACHINE: dict(recurrent=True)},
    figures=(draw_influence,),
)
def hahn_influence_1_over_n(
    longest: int, layers: int, nets: int, seed: int, logarithmic: bool = False, recurrent: bool = False
) -> dict[str, Any]:
    r"""One token changes what a soft-attention transformer puts out by one over the length.

    Let scores be bounded, as they are behind a normalisation, and all parts Lipschitz. Every weight of a softmax over $n$
    tokens is then $O(1\/n)$, layer after layer, and for $x$ and $x'$ that differ in one token other than the last,
    $ norm(f(x)_n - f(x')_n) = O(1\/n) $
    @hahn2020theoretical (Lemma 5). For a fixed transformer parity, which every token decides, loses its margin as the
    length grows. The networks have random weights, tokens are random bits, the first of them marked. As no other
    position is known, all flips are one of three: of the first token, of a zero, of a one; the influence is the largest. The
    value is the slope of its logarithm over that of $n = 16, 32, dots$, mean over networks.

    Controls: scores times $ln n$, which can single out a token at any length; and a recurrent network of two
    rectifiers that computes parity exactly, whose influence is one.
    """
    draws = torch.Generator().manual_seed(seed)
    lengths = [SHORTEST * 2**k for k in range(int(log(longest / SHORTEST, 2)) + 1)]
    found = np.array([influences(lengths, layers, recurrent, logarithmic, draws) for _ in range(nets)])
    slopes = np.polyfit(np.log(lengths), np.log(found).T, 1)[0]
    return {"value": float(slopes.mean()), "influence": np.exp(np.log(found).mean(0))}


# The derivative of one head

TOKENS, DIMENSION = 6, 4
DISTANCES = "scores that are products: distances, queries and keys tied"


def products(X: Tensor, Q: Tensor, K: Tensor) -> Tensor:
    r"""Scores $x_i Q K^top x_j^top \/ sqrt(d)$ of tokens in the rows of X."""
    return X @ Q @ (X @ K).mT / X.shape[-1] ** 0.5


def distances(X: Tensor, Q: Tensor, K: Tensor) -> Tensor:
    r"""Scores $-norm(x_i Q - x_j K)^2 \/ sqrt(d)$."""
    return -((X @ Q)[:, None] - (X @ K)[None]).square().sum(-1) / X.shape[-1] ** 0.5


def head(X: Tensor, scores: Any, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """One head of attention: (N, d) → (N, d)."""
    return torch.softmax(scores(X, Q, K), -1) @ X @ V


def derivative(function: Any, X: Tensor) -> Tensor:
    """The spectral norm of the Jacobian of a function of tokens at X, (N, d)."""
    return torch.linalg.matrix_norm(jacrev(function)(X).reshape(X.numel(), X.numel()), 2)


def draw_derivative(ax: Any, rows: Rows) -> Columns:
    """The derivative of dot-product attention grows with the square of the tokens, that of attention by distances stays.

    Norm of the Jacobian against the size of the tokens, both axes logarithmic. Dots lie on a line of slope two over four
    decades; crosses stay level.
    """
    columns: dict[str, Any] = {"R": sorted({row.point["R"] for row in rows})}
    for arm, label, mark in (("", "products", "o"), (DISTANCES, "distances", "x")):
        chosen = [[row.values["norm"] for row in rows if (row.arm, row.point["R"]) == (arm, R)] for R in columns["R"]]
        columns[label] = [float(np.mean(values)) for values in chosen]
        ax.loglog(columns["R"], columns[label], mark, label=label)
    line = columns["products"][-1] * (np.array(columns["R"]) / columns["R"][-1]) ** 2
    ax.plot(columns["R"], line, color="C0", linewidth=1, label="slope 2")
    ax.set(xlabel="size of the tokens R", ylabel="norm of the Jacobian")
    ax.legend()
    return columns


@claim(
    source="kim2021lipschitz",
    predicts=Scales("R", power=2, within=0.01, of="each"),
    quick=Grid(R=[10, 32, 100, 316, 1000], seeds=6),
    full=Grid(R=[10, 32, 100, 316, 1000, 3162], seeds=30),
    controls={DISTANCES: dict(scores="distances")},
    figures=(draw_derivative,),
)
def dot_attention_not_lipschitz(R: float, seed: int, scores: str = "products") -> dict[str, float]:
    r"""The derivative of dot-product attention grows with the square of its tokens.

    Let $f(X) = "softmax"(X A X^top) X V$ with tokens in the rows of $X$, the first of them zero. It looks at all tokens alike,
    and $ (partial f_1) / (partial x_1) = A C V + V \/ N, quad C = 1/N sum_j x_j^top x_j $
    for centred tokens: their covariance. Scaled by $R$, tokens make $norm(J) >= R^2 norm(A C V) - O(1)$, so that no constant
    bounds it @kim2021lipschitz (Theorem 3.1). The value is the spectral norm of the whole Jacobian, by automatic
    differentiation, over $norm(A C V)$ at $R = 1$: $R^2$ to leading order, with random weights and tokens. Control: scores
    $-norm(x_i Q - x_j Q)^2 \/ sqrt(d)$, with which attention is Lipschitz.
    """
    draws = torch.Generator().manual_seed(seed)
    Q, K, V = (gaussian(draws, DIMENSION, DIMENSION) / DIMENSION**0.5 for _ in range(3))
    others = gaussian(draws, TOKENS - 1, DIMENSION)
    X = torch.cat([torch.zeros(1, DIMENSION), others - others.mean(0)])
    tied = scores == "distances"
    function = partial(head, scores=distances if tied else products, Q=Q, K=Q if tied else K, V=V)
    unit = torch.linalg.matrix_norm(Q @ K.mT / DIMENSION**0.5 @ (X.mT @ X / TOKENS) @ V, 2)
    norm = float(derivative(function, R * X))
    return {"value": norm / float(unit), "norm": norm}


def lipschitz_bound(tokens: int, Q: Tensor, V: Tensor) -> float:
    r"""$sqrt(N\/d) (4 phi^(-1)(N - 1) + 1) norm(Q)^2 norm(V)$, $phi(x) = x e^(x + 1)$."""
    inverse = float(lambertw((tokens - 1) / np.e).real)
    norms = torch.linalg.matrix_norm(Q, 2) ** 2 * torch.linalg.matrix_norm(V, 2)
    return float((tokens / len(Q)) ** 0.5 * (4 * inverse + 1) * norms)


def steepest(function: Any, tokens: int, draws: torch.Generator, starts: int, steps: int) -> float:
    """The largest derivative found: over random tokens of sizes 0.1 … 1000, and by ascent from the best of them."""
    sizes = 10 ** (4 * torch.rand(starts, generator=draws, device="cpu") - 1)
    X = gaussian(draws, starts, tokens, DIMENSION) * sizes.to(torch.get_default_device())[:, None, None]
    norms = vmap(partial(derivative, function))(X)
    best, X = norms.max(), X[norms.argmax()].clone().requires_grad_()
    rule = torch.optim.Adam([X], lr=0.03 * float(X.detach().abs().mean()))
    for _ in range(steps):
        norm = derivative(function, X)
        best = torch.maximum(best, norm.detach())
        rule.zero_grad()
        (-norm).backward()
        rule.step()
    return float(best)


@claim(
    source="kim2021lipschitz",
    predicts=AtMost(1, of="max"),
    quick=Grid(tokens=[2, 4, 8], starts=[300], steps=[60], seeds=4),
    full=Grid(tokens=[2, 4, 8, 16], starts=[1000], steps=[300], seeds=10),
    controls={"queries and keys tied: two matrices": dict(tied=False)},
)
def dot_attention_not_lipschitz_distances(
    tokens: int, starts: int, steps: int, seed: int, tied: bool = True
) -> dict[str, float]:
    r"""Attention by distances is Lipschitz, if its queries and keys are the same.

    Let $P_(i j) prop exp(-norm(x_i Q - x_j Q)^2 \/ sqrt(d))$ and $f(X) = P X A V$ with $A = Q Q^top \/ sqrt(d)$. Then for $N$
    tokens and every $X$
    $ norm(J_f (X))_2 <= sqrt(N\/d) thin (4 phi^(-1) (N - 1) + 1) norm(Q)_2^2 norm(V)_2, quad phi(x) = x e^(x + 1) $
    @kim2021lipschitz (Theorem 3.2). The value is the largest derivative that a search finds, over the bound: random tokens
    of sizes from 0.1 to 1000, then ascent. Control: keys by another matrix than queries.
    """
    draws = torch.Generator().manual_seed(seed)
    Q, K, V = (gaussian(draws, DIMENSION, DIMENSION) / DIMENSION**0.5 for _ in range(3))
    function = partial(head, scores=distances, Q=Q, K=Q if tied else K, V=Q @ Q.mT / DIMENSION**0.5 @ V)
    return {"value": steepest(function, tokens, draws, starts, steps) / lipschitz_bound(tokens, Q, V)}


if __name__ == "__main__":
    script(__file__)
