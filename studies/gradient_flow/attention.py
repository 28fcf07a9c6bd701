r"""Attention and normalisation in deep transformers.

Where layer normalisation stands decides how the gradients of the last layers depend on the depth @xiong2020layer. And
attention by itself, without the skip connections around it, makes all tokens alike faster than exponentially
@dong2021attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lemmata.architectures import Encoder, MultiHeadAttention
from lemmata.studies.claim import Equals, Grid, Scales, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


# Gradients at initialisation


def without_norms(net: Encoder, all_of_them: bool) -> Encoder:
    """Leave out the normalisation after the last layer, or every one."""
    net.last = nn.Identity()
    for layer in net.layers if all_of_them else ():
        layer.norm_1 = layer.norm_2 = nn.Identity()
    return net


def sizes(net: Encoder, read: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    r"""$sqrt(EE norm(partial cal(L)_i \/ partial W_2)_F^2)$ of every layer, (L,), over positions i of tokens x, (b, t, d).

    A position adds $delta_i h_i^top$ to the gradient by a layer's second matrix; in the last layer this is the
    gradient of its own loss. The loss is the cross entropy of labels (b, t) with outputs times ``read``, (d, classes).
    """
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        layer.get_submodule("feed_forward.W_2").register_forward_hook(
            lambda module, given, made: seen.append((given[0], made))
        )
        for layer in net.layers
    ]
    loss = cross_entropy((net(x) @ read).flatten(0, 1), labels.flatten(), reduction="sum")
    for hook in hooks:
        hook.remove()
    deltas = torch.autograd.grad(loss, [made for _, made in seen])
    squares = [(h * h).sum(-1) * (delta * delta).sum(-1) for (h, _), delta in zip(seen, deltas, strict=True)]
    return torch.stack([square.mean().sqrt() for square in squares]).detach()


def initialised(
    norm: str, layers: int, width: int, sequences: int, tokens: int, seed: int, last: bool, normed: bool
) -> dict[str, Any]:
    """Gradients of an encoder in the setting of xiong2020layer: no queries and keys, Glorot's law, ReLU, one head."""
    draws = torch.Generator().manual_seed(seed)
    net = Encoder(width, 1, layers, hidden=width, norm=norm, activation="relu", generator=draws)
    with torch.no_grad():
        for layer in net.layers:
            layer.get_parameter("attention.W_q.weight").zero_()
            layer.get_parameter("attention.W_k.weight").zero_()
    if not (last and normed):
        without_norms(net, all_of_them=not normed)
    x = gaussian(draws, sequences, tokens, width)
    labels = torch.randint(width, (sequences, tokens), generator=draws, device="cpu").to(x.device)
    found = sizes(net, gaussian(draws, width, width) / width**0.5, x, labels)
    return {"value": float(found[-1]), "layers": found}


def draw_depths(ax: Any, rows: Rows) -> Columns:
    """The gradient in the last layer of a transformer with norms on the branches, against the depth.

    Both axes logarithmic. Dots fall along a line of slope minus one half; crosses, without the norm after the last
    layer, lie above and rise slowly.
    """
    rows = [row for row in rows if all(row.point[key] == rows[0].point[key] for key in ("width", "tokens"))]
    columns: dict[str, Any] = {"layers": sorted({row.point["layers"] for row in rows})}
    for part, name, mark in (("", "Pre-LN", "o"), ("last", "without the last norm", "x")):
        arm = [row for row in rows if (part in row.arm if part else not row.arm)]
        at = [[row.values["value"] for row in arm if row.point["layers"] == layers] for layers in columns["layers"]]
        columns[name] = [float(np.mean(values)) for values in at]
        ax.plot(columns["layers"], columns[name], mark, label=name)
    columns["slope −1/2"] = columns["Pre-LN"][0] * (np.array(columns["layers"]) / columns["layers"][0]) ** -0.5
    ax.plot(columns["layers"], columns["slope −1/2"], color="C0", linewidth=1, label="slope −1/2")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(columns["layers"], columns["layers"])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="layers L", ylabel="size of the gradient")
    ax.legend()
    return columns


def draw_layers(ax: Any, rows: Rows) -> Columns:
    """Gradients in a deep transformer at initialisation, layer by layer: norms after the sums, and on the branches.

    Size of the gradient by the second matrix of each layer's network, against the layer. With norms after the sums it
    is nearly level, and largest in the last layers; with norms on the branches it falls from the first layer to the
    last, to about a quarter.
    """
    rows = [row for row in rows if all(row.point[key] == rows[0].point[key] for key in ("width", "tokens"))]
    depth = max(row.point["layers"] for row in rows)
    columns: dict[str, Any] = {"layer": np.arange(1, depth + 1)}
    for part, name in (("", "Post-LN"), ("branches", "Pre-LN")):
        arm = [row for row in rows if (part in row.arm if part else not row.arm)]
        columns[name] = np.mean([row.values["layers"] for row in arm if row.point["layers"] == depth], 0)
        ax.plot(columns["layer"], columns[name], ".-", label=name)
    ax.set(xlabel="layer", ylabel="size of the gradient", ylim=(0, None), title=f"{depth} layers")
    ax.legend()
    return columns


DEPTHS = [4, 8, 16, 32]
SMALL = Grid(layers=DEPTHS, width=[128], sequences=[8], tokens=[4], seeds=6)
LARGE = Grid(layers=[*DEPTHS, 64], width=[128, 256], sequences=[8], tokens=[4, 32], seeds=20)


@claim(
    source="xiong2020layer",
    predicts=Scales("layers", power=-0.5, within=0.15),
    quick=SMALL,
    full=LARGE,
    controls={
        "a norm after the last layer: none": dict(last=False),
        "norms on the branches: none at all": dict(normed=False),
    },
    figures=(draw_depths,),
)
def preln_postln_gradients(
    layers: int, width: int, sequences: int, tokens: int, seed: int, last: bool = True, normed: bool = True
) -> dict[str, Any]:
    r"""With norms on the branches, the last layer's gradient falls like the inverse root of the depth.

    A Pre-LN transformer normalises what enters a branch, $x + F(N x)$, and what leaves the last layer. At
    initialisation every branch adds about as much as any other, so that $EE norm(x^l)^2 = Theta(l)$, and the last norm
    divides the gradient by $norm(x^L) tilde sqrt(L)$:
    $ norm((partial cal(L)) / (partial W_2^L))_F = O(d sqrt(ln d \/ L)) $
    @xiong2020layer. The setting is theirs: one head, no queries and keys, so that attention averages over all tokens,
    Gaussian weights of Glorot's variance, ReLU, cross entropy. The value is the root mean square of the norm over
    positions.

    Controls: without the norm after the last layer nothing divides by $sqrt(L)$; without any norm the stream, and with
    it the gradient, grows exponentially.
    """
    return initialised("pre", layers, width, sequences, tokens, seed, last, normed)


@claim(
    source="xiong2020layer",
    predicts=Scales("layers", power=0, within=0.15),
    quick=SMALL,
    full=LARGE,
    controls={"norms after the sums: on the branches": dict(norm="pre")},
    figures=(draw_layers,),
)
def preln_postln_gradients_post(
    layers: int, width: int, sequences: int, tokens: int, seed: int, norm: str = "post"
) -> dict[str, Any]:
    r"""With norms after the sums, the last layer's gradient does not depend on the depth.

    A Post-LN transformer, $N(x + F(x))$, hands on vectors of the same size at every layer. In its last layer the
    gradient is as large as in a network of a single layer, $O(d sqrt(ln d))$, whatever the depth: where the network is
    deep, that is $sqrt(L)$ times as much as with norms on the branches @xiong2020layer. The value is that of the claim
    above, in the same setting. Control: the norms on the branches.
    """
    return initialised(norm, layers, width, sequences, tokens, seed, last=True, normed=True)


# What attention does alone


def spread(x: Tensor) -> Tensor:
    """The distance of tokens (b, t, d) from their mean, the nearest matrix with equal rows."""
    return torch.linalg.matrix_norm(x - x.mean(-2, keepdim=True))


def plainly(net: MultiHeadAttention, x: Tensor) -> Tensor:
    """One head without a softmax: values summed with the scores as they are."""
    return net.W_o((net.W_q(x) @ net.W_k(x).mT / net.width**0.5) @ net.W_v(x))


def collapsing(kind: str, heads: int, width: int, tokens: int, layers: int, skip: float, draws: Any) -> Tensor:
    """Relative distances of random tokens from equal ones after 0 … ``layers`` layers of attention."""
    x = gaussian(draws, 1, tokens, width)
    found = [spread(x) / x.norm()]
    for _ in range(layers):
        net = MultiHeadAttention(width, heads, kind, init="lecun", generator=draws).requires_grad_(False)
        x = skip * x + net(x, x, x)
        x = x * (tokens * width) ** 0.5 / x.norm()  # a matter of units: distances are relative
        found.append(spread(x) / x.norm())
    return torch.cat(found)


def draw_collapse(ax: Any, rows: Rows) -> Columns:
    """Tokens become equal in a few layers of attention; a skip connection prevents it.

    Distance of the tokens from equal ones, over their size, against the layer, on a logarithmic axis. Two curves bend
    downwards ever more steeply and reach the rounding error, 10⁻¹⁶, within a few layers, where they stay. A
    third, with a skip connection, stays near one.
    """
    columns: dict[str, Any] = {}
    for kind in dict.fromkeys(row.point["kind"] for row in rows):
        for name in ("alone", "with a skip connection"):
            if name != "alone" and kind != "softmax":
                continue
            wanted = [
                r for r in rows if r.k == 0 and r.point["kind"] == kind and ("skip" in r.arm) == (name != "alone")
            ]
            columns[f"{kind}, {name}"] = curve = wanted[0].values["curve"]
            ax.semilogy(np.arange(len(curve)), curve, ".-", label=f"{kind}, {name}")
    ax.axhline(2.0**-52, color="0.3", linestyle="--", linewidth=1, label="rounding")
    ax.set(xlabel="layer", ylabel="distance from equal tokens ÷ size")
    ax.legend(loc="center left")
    return {"layer": np.arange(len(curve)), **columns}


EPSILONS, KINDS = [0.1, 0.05, 0.02, 0.01, 0.005], ["softmax", "linear"]


@claim(
    source=("dong2021attention", "katharopoulos2020transformers"),
    predicts=Equals(3, within=0.1, of="each"),
    quick=Grid(epsilon=EPSILONS, kind=KINDS, heads=[1, 4], width=[16], tokens=[16], seeds=3),
    full=Grid(epsilon=EPSILONS, kind=KINDS, heads=[1, 4], width=[16, 64], tokens=[16, 64], seeds=20),
    controls={
        "attention alone: a skip connection": dict(skip=1.0),
        "weights that sum to one: scores as they are": dict(normalised=False),
    },
    figures=(draw_collapse,),
)
def rank_collapse_cubic(
    epsilon: float,
    kind: str,
    heads: int,
    width: int,
    tokens: int,
    seed: int,
    skip: float = 0.0,
    normalised: bool = True,
) -> dict[str, Any]:
    r"""A layer of attention cubes the distance of tokens from equal ones.

    Let $X = 1 x^top + epsilon R$. The parts of the scores that are of order one or $epsilon$ and differ between
    queries are the same for every key, and cancel where weights are divided by their sum; what is left of the scores
    is of order $epsilon^2$, and it weighs values that differ by $epsilon$. Hence $"res"("SA"(X)) = Theta(epsilon^3)$,
    and over $L$ layers the exponent is $3^L$: tokens become equal at a doubly exponential rate @dong2021attention. The
    argument needs weights that sum to one but no exponential function, and so holds for the linear attention of
    @katharopoulos2020transformers too. The value is the exponent, $log_2$ of the ratio of $norm(Y - 1
    overline(y)^top)_F$ for outputs $Y$ at $epsilon$ and at $epsilon\/2$.

    Controls: a skip connection hands the distance on as it is, to first order; without the division, scores of
    different queries differ by order $epsilon$, and so do the outputs.
    """
    draws = torch.Generator().manual_seed(seed)
    net = MultiHeadAttention(width, heads, kind, init="lecun", generator=draws).requires_grad_(False)
    mean, noise = gaussian(draws, 1, 1, width), gaussian(draws, 1, tokens, width)
    inputs = [mean + size * noise for size in (epsilon, epsilon / 2)]
    outputs = [skip * x + (net(x, x, x) if normalised else plainly(net, x)) for x in inputs]
    curve = collapsing(kind, heads, width, tokens, 6, skip, draws)
    return {"value": float((spread(outputs[0]) / spread(outputs[1])).log2()), "curve": curve}


if __name__ == "__main__":
    script(__file__)
