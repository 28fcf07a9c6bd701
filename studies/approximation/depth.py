r"""What depth buys on an interval.

Two explicit networks show that composition multiplies what width only adds. A tent map of three rectifiers, composed $k$
times, is a sawtooth with $2^k$ edges; weighted by $4^(-s)$ and summed, the sawteeth build $x^2$ to an error that
halves twice with every layer @yarotsky2017error. One hidden layer of $m$ rectifiers makes at most $m + 1$ affine pieces,
so it needs exponentially many neurons to follow @telgarsky2015representation @telgarsky2016benefits. The
networks are written down weight by weight and their pieces counted in exact integer arithmetic, not on a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from lemmata.analysis import constructions
from lemmata.analysis.approximation import UNBOUNDED, affine_pieces, crossings
from lemmata.analysis.approximation.construction import hidden, network_of
from lemmata.architectures import MLP, Law
from lemmata.studies.approximation.folds import zigzag
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script

BIASED_HE = Law("He weights, unit biases", lambda n, m: 2 / n, lambda n, m: 1.0)
UNIT = Law("unit weights and biases", lambda n, m: 1.0, lambda n, m: 1.0)


def best_shallow_square(neurons: int) -> nn.Module:
    """One hidden layer: the chords of x² between k/N, lowered by half their height, error 1/(8N²) with N = neurons."""
    knots = [-j / neurons for j in range(neurons)]
    slopes = [1 / neurons] + [2 / neurons] * (neurons - 1)
    return network_of(hidden(([[1.0]] * neurons, knots), ([slopes], -1 / (8 * neurons**2))))


def draw_construction(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Each layer of the construction halves the mesh and quarters the error.

    The parabola x squared on the unit interval with the piecewise affine functions of the one-layer and the two-layer
    network, which meet it at the multiples of one half and of one quarter.
    """
    shown = [row for row in rows if row.arm == "" and row.k == 0 and row.point["m"] <= 2]
    x = shown[0].values["x"]
    columns = {"x": x, "x^2": x**2}
    ax.plot(x, x**2, color="0.6", linewidth=4, label="$x^2$")
    for row in shown:
        columns[f"f_{row.point['m']}"] = row.values["f"]
        ax.plot(x, row.values["f"], label=f"$f_{row.point['m']}$")
    ax.set(xlabel="x", ylabel="value")
    ax.legend()
    return columns


def draw_error(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Error of the deep construction and of the best one-hidden-layer network with as many neurons.

    Largest error on the unit interval against the number of neurons, logarithmic vertical axis: the deep network falls on
    a straight line, a factor of four for every four neurons; the shallow one flattens out and is overtaken.
    """
    columns: dict[str, Sequence[float]] = {}
    for arm, label in (("", "depth m"), ("composition: one hidden layer", "one hidden layer")):
        shown = sorted((row.point["m"], row.values["value"]) for row in rows if row.arm == arm and row.k == 0)
        columns["neurons"] = [4 * m for m, _ in shown]
        columns[label] = [value for _, value in shown]
        ax.semilogy(columns["neurons"], columns[label], marker="o", label=label)
    ax.set(xlabel="neurons", ylabel="largest error on [0, 1]", xticks=columns["neurons"])
    ax.legend()
    return columns


@claim(
    source="yarotsky2017error",
    predicts=Equals("2.0**(-2*m - 2)", within=0, of="each"),
    quick=Grid(m=[1, 2, 4, 6], seeds=1),
    full=Grid(m=list(range(1, 13)), seeds=1),
    controls={"composition: one hidden layer": dict(layers="one")},
    figures=(draw_construction, draw_error),
)
def yarotsky_square(m: int, seed: int, layers: str = "m") -> dict[str, Any]:
    r"""Depth m approximates the square to exactly one part in four to the m plus one.

    Let $ T(x) = 2 "relu"(x) - 4 "relu"(x - 1/2) + 2 "relu"(x - 1) $ be the tent map, $g_s = T compose dots.c compose T$
    ($s$ times) and $ f_m (x) = x - sum_(s=1)^m frac(g_s (x), 4^s), $ a network of $m$ hidden layers with four rectifiers
    each. On $[0, 1]$, $f_m$ interpolates $x^2$ at the multiples of $2^(-m)$ and
    $ norm(f_m - x^2)_oo = 2^(-2 m - 2), $ so that $O(log 1 \/ epsilon)$ neurons reach the error $epsilon$
    @yarotsky2017error. All numbers involved are dyadic: on the grid $k 2^(-16)$, which holds every maximiser for
    $m < 16$, float64 makes no rounding error and the equality is tested to the last bit.

    The control removes composition: one hidden layer with the same $4 m$ rectifiers. A function with $N$ affine pieces
    errs on $x^2$ by at least $1\/(8 N^2)$, and the control's network attains that with $N = 4 m$. It is the better one
    for $m <= 4$ and falls behind from there on, polynomially against exponentially.
    """
    net = constructions.square(m).network if layers == "m" else best_shallow_square(4 * m)
    x = torch.arange(2**16 + 1) / 2**16
    with torch.no_grad():
        f = net(x[:, None])[:, 0]
    error = (f - x**2).abs().max()
    return {"value": error, "x": x[::256], "f": f[::256], "neurons": 4 * m}


def _folded(k: int, seed: int, network: str) -> dict[str, Any]:
    net: nn.Module
    if network == "random":
        draws = torch.Generator().manual_seed(seed)
        net = MLP([1, *[3] * k, 1], activation="relu", init=BIASED_HE, generator=draws)
    else:
        net = constructions.sawtooth(k).network if network == "tents" else zigzag(3 * k)
    pieces = affine_pieces(net)
    knots = [piece.left for piece in pieces] + [Fraction(1)]
    heights = [pieces[0](knots[0]), *(piece(piece.right) for piece in pieces)]
    return {
        "pieces": len(pieces),
        "crossings": crossings(pieces),
        "x": [float(x) for x in knots],
        "f": [float(y) for y in heights],
    }


def draw_sawtooth(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """Three compositions of the tent map, against as many rectifiers in one hidden layer and with random weights.

    Three functions on the unit interval: the tent composed three times zigzags eight times between zero and one; nine
    rectifiers in one layer zigzag nine times; the network with random weights bends once or twice, or not at all.
    """
    columns: dict[str, list[Any]] = {"network": [], "x": [], "f": []}
    for row in rows:
        if row.point["k"] == 3 and row.k == 0:
            label = row.arm.partition(": ")[2] or "tent composed three times"
            low, high = min(row.values["f"]), max(row.values["f"])
            height = [(y - low) / (high - low or 1.0) for y in row.values["f"]]
            ax.plot(row.values["x"], height, label=label, linewidth=2.5 if row.arm == "" else 1)
            columns["network"] += [label] * len(height)
            columns["x"] += list(row.values["x"])
            columns["f"] += height
    ax.set(xlabel="x", ylabel="f(x), scaled to [0, 1]", ylim=(-0.05, 1.45))
    ax.legend(fontsize="small", loc="upper right")
    return columns


FOLDING_CONTROLS = {
    "composition: the same 3k rectifiers in one hidden layer": dict(network="one layer"),
    "folding weights: He weights, random biases": dict(network="random"),
}


@claim(
    source=("telgarsky2015representation", "telgarsky2016benefits"),
    predicts=Equals("2**k", within=0, of="each"),
    quick=Grid(k=[3, 6, 10], seeds=3),
    full=Grid(k=[1, 2, 3, 4, 6, 8, 10, 12], seeds=10),
    controls=FOLDING_CONTROLS,
    figures=(draw_sawtooth,),
)
def telgarsky_sawtooth_pieces(k: int, seed: int, network: str = "tents") -> dict[str, Any]:
    r"""A tent of three rectifiers, composed k times, has two to the k affine pieces.

    Let $ T(x) = 2 "relu"(x) - 4 "relu"(x - 1/2) + 2 "relu"(x - 1). $ On $[0, 1]$ the $k$-fold composition
    $f^((k)) = T compose dots.c compose T$, a network of $k$ hidden layers with three neurons each, has exactly $2^k$ maximal
    affine pieces @telgarsky2015representation. The pieces are counted by propagating breakpoints through the layers in
    exact integer arithmetic. The controls keep the $3 k$ rectifiers: in one hidden layer that zigzags as often as it can
    ($3 k$ pieces), and in $k$ layers with random weights.
    """
    found = _folded(k, seed, network)
    return {"value": found["pieces"], **found}


@claim(
    source=("telgarsky2015representation", "telgarsky2016benefits"),
    predicts=Equals("2**k", within=0, of="each"),
    quick=Grid(k=[3, 6, 10], seeds=3),
    full=Grid(k=[1, 2, 3, 4, 6, 8, 10, 12], seeds=10),
    controls=FOLDING_CONTROLS,
)
def telgarsky_sawtooth_crossings(k: int, seed: int, network: str = "tents") -> dict[str, Any]:
    r"""A tent of three rectifiers, composed k times, crosses one half two to the k times.

    With $T$ the tent map of three rectifiers and $f^((k))$ its $k$-fold composition, $f^((k)) - 1\/2$ changes sign exactly
    $2^k$ times on $[0, 1]$: as a classifier, the network separates $2^k$ alternating points @telgarsky2016benefits.
    """
    found = _folded(k, seed, network)
    return {"value": found["crossings"], **found}


@claim(
    source="telgarsky2016benefits",
    predicts=AtMost("m + 1", of="max"),
    quick=Grid(m=[4, 8, 16], seeds=3),
    full=Grid(m=[4, 8, 16, 32, 64], seeds=10),
    controls={"one hidden layer: the same m neurons in two": dict(layers=2)},
)
def telgarsky_sawtooth_shallow_bound(m: int, seed: int, layers: int = 1) -> dict[str, Any]:
    r"""One hidden layer of m rectifiers makes at most m plus one affine pieces on the line.

    A function $f(x) = c + sum_(i=1)^m a_i "relu"(w_i x + b_i)$ of one real variable bends only where some
    $w_i x + b_i = 0$, so it has at most $m + 1$ maximal affine pieces on $RR$, whatever its weights
    @telgarsky2016benefits. Each trial takes the most pieces over 200 networks with standard Gaussian weights and biases,
    counted on all of $RR$; the bound is attained. The control splits the $m$ neurons over two layers of $m\/2$, each a
    zigzag of $m\/2$ pieces on $[0, 1]$: their composition has $m^2\/4$ pieces there and two outside.
    """
    if layers == 2:
        most = least = len(affine_pieces(zigzag(m // 2, layers=2), *UNBOUNDED))
    else:
        draws = torch.Generator().manual_seed(seed)
        nets = (MLP([1, m, 1], activation="relu", init=UNIT, generator=draws) for _ in range(200))
        counts = [len(affine_pieces(net, *UNBOUNDED)) for net in nets]
        most, least = max(counts), min(counts)
    return {"value": most, "least": least, "tightness": most / (m + 1)}


@claim(
    source=("telgarsky2015representation", "telgarsky2016benefits"),
    predicts=AtLeast("1/6", of="min"),
    quick=Grid(k=[6, 7, 8], seeds=5),
    full=Grid(k=[6, 7, 8, 9, 10, 11], seeds=10),
    controls={
        "one hidden layer: the tent composed k times": dict(network="tents"),
        "few neurons: one for each point": dict(network="wide"),
    },
)
def telgarsky_sawtooth_floor(k: int, seed: int, network: str = "shallow") -> dict[str, Any]:
    r"""A shallow network misclassifies at least one in six alternating points.

    Give the $n = 2^k$ points $x_i = i 2^(-k)$ the labels $y_i = i mod 2$. Every ReLU network with $L$ hidden layers of at
    most $m <= 2^((k-3)\/L - 1)$ neurons errs on at least $n\/6$ of them as the classifier $bb(1)[f(x) >= 1\/2]$
    @telgarsky2015representation. Here $L = 1$ and $m = 2^(k - 4)$. The theorem is a counting argument; what is measured is
    that the best of 51 fits per trial obeys it: 50 layers of random rectifiers with least-squares output weights, and one
    network that is right on the first $m + 1$ points. The controls reach zero error: $k$ layers of three rectifiers, or one
    layer with a rectifier for each point.
    """
    n, m = 2**k, 2 ** (k - 4)
    x = torch.arange(n) / n
    labels = (torch.arange(n) % 2).to(x)
    if network == "tents":
        with torch.no_grad():
            return {"value": _wrong(constructions.sawtooth(k).network(x[:, None])[:, 0], labels), "fits": 1}
    if network == "wide":
        return {"value": _wrong(_fit(x, labels, x, torch.ones_like(x), n), labels), "fits": 1}
    draws = torch.Generator().manual_seed(seed)
    errors = [_wrong(_fit(x, labels, x[:m], torch.ones_like(x[:m]), m + 1), labels)]
    for _ in range(50):
        knots = torch.rand(m, generator=draws, device="cpu").to(x)
        signs = torch.randint(0, 2, (m,), generator=draws, device="cpu").to(x) * 2 - 1
        errors.append(_wrong(_fit(x, labels, knots, signs, n), labels))
    return {"value": min(errors), "fits": len(errors)}


def _fit(x: torch.Tensor, y: torch.Tensor, knots: torch.Tensor, signs: torch.Tensor, first: int) -> torch.Tensor:
    """One hidden layer relu(± (x − knot)), output weights fitted to the first points, evaluated at all."""
    features = torch.cat([torch.relu(signs * (x[:, None] - knots)), torch.ones_like(x)[:, None]], dim=1)
    return features @ (torch.linalg.pinv(features[:first]) @ y[:first])


def _wrong(f: torch.Tensor, labels: torch.Tensor) -> float:
    return ((f >= 0.5).to(labels) != labels).double().mean().item()


if __name__ == "__main__":
    script(__file__)
