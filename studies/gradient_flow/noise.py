r"""How noisy a gradient is, and where it is lost.

The gradient of a batch deviates from that of all examples by an amount that survey sampling knows exactly
@cochran1977sampling: nothing here is asymptotic. The batch at which the deviation is as large as the gradient itself, the
noise scale @mccandlish2018empirical, has to be estimated, and an estimate is worth what its interval is worth. Before a
gradient can be noisy it has to arrive: the last claims plant a fault in a deep network and ask the lab's physical for its
place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from math import factorial, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lemmata.analysis import GradientHealth, gradient_health, noise_scale
from lemmata.architectures import CNN, MLP
from lemmata.studies.claim import AtLeast, AtMost, Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian
from lemmata.studies.training import flat_parameters, objective, squared_error

Rows = Sequence[Any]
KINDS = ["MLP", "CNN"]


def network(kind: str, draws: torch.Generator) -> nn.Module:
    """A small network for digits."""
    return MLP([64, 6, 10], "relu", generator=draws) if kind == "MLP" else CNN([1, 3], 10, generator=draws)


def images(kind: str, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random digits."""
    inputs, labels = digits(images=kind == "CNN")
    chosen = torch.randperm(len(labels), generator=draws)[:count].to(labels.device)
    return inputs[chosen], labels[chosen]


def gradient(model: nn.Module, inputs: Tensor, labels: Tensor, chosen: Sequence[int] | Tensor) -> Tensor:
    """The gradient of the mean loss of some examples, which may be repeated, (P,)."""
    places = torch.as_tensor(chosen, device=labels.device)
    return objective(model, cross_entropy, inputs[places], labels[places])(flat_parameters(model))[1]


def orderings(chosen: Sequence[int]) -> float:
    """In how many orders a batch can be drawn."""
    return factorial(len(chosen)) / prod(factorial(chosen.count(one)) for one in set(chosen))


def draw_batches(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """Variance of the batch's gradient against its size, in units of the variance of one example's.

    Dots of batches without replacement fall away from the dashed line 1/B the more, the larger the share
    of the data that they hold; crosses of batches with replacement stay on it.
    """
    sizes = np.array(sorted({row.point["batch"] for row in rows}))
    examples = rows[0].point["examples"]
    columns: dict[str, Any] = {"batch": sizes}
    for name, mark, replaced in (("without replacement", "o", False), ("with replacement", "x", True)):
        own = [row for row in rows if bool(row.arm) == replaced]
        columns[name] = [np.mean([r.values["variance"] for r in own if r.point["batch"] == b]) for b in sizes]
        ax.plot(sizes, columns[name], mark, label=name)
    line = np.linspace(sizes[0], sizes[-1], 50)
    ax.plot(line, 1 / line, "--", color="0.3", label="1/B")
    ax.set(xlabel=f"batch size B, of {examples} examples", ylabel="variance of the gradient")
    ax.set_xticks(sizes)
    ax.set_ylim(0)
    ax.legend()
    return columns


@claim(
    source=("cochran1977sampling", "mccandlish2018empirical"),
    predicts=Equals(1, within=1e-10, of="each"),
    quick=Grid(kind=KINDS, batch=[2, 4, 6], examples=[8], seeds=2),
    full=Grid(kind=KINDS, batch=[2, 4, 6, 8], examples=[10], seeds=5),
    controls={"batches without replacement: with replacement": dict(replacement=True)},
    figures=(draw_batches,),
)
def gradient_noise_scale(kind: str, batch: int, examples: int, seed: int, replacement: bool = False) -> dict[str, Any]:
    r"""The variance of a batch's gradient is known exactly, down to the last example.

    Let $g_n$ be the gradients of $N$ examples, $G$ their mean and $tr Sigma = 1/N sum_n |g_n - G|^2$. For a batch of $B$
    different examples at random
    $ EE |G_B - G|^2 = (tr Sigma) / B dot (N - B) / (N - 1) , $
    the law of sampling from a finite population @cochran1977sampling. Beside $|G|^2$ it gives the noise scale
    $tr Sigma \/ |G|^2$ @mccandlish2018empirical, with a factor that large-data accounts leave out. All batches of a network
    on digits are enumerated, each with its own backward pass; the value is the mean squared deviation over the right-hand
    side, whose $g_n$ are those of single examples.

    The control draws with replacement: all batches in which examples may repeat, each weighted by its number of orderings.
    The last factor is then missing, and the value is $(N - 1) \/ (N - B)$.
    """
    draws = torch.Generator().manual_seed(seed)
    model = network(kind, draws)
    inputs, labels = images(kind, examples, draws)
    single = torch.stack([gradient(model, inputs, labels, [n]) for n in range(examples)])
    mean = single.mean(0)
    spread = float((single - mean).square().sum(1).mean())
    choose = combinations_with_replacement if replacement else combinations
    batches = list(choose(range(examples), batch))
    weights = np.array([orderings(chosen) for chosen in batches])
    gaps = [float((gradient(model, inputs, labels, chosen) - mean).square().sum()) for chosen in batches]
    variance = float(weights @ np.array(gaps) / weights.sum()) / spread
    return {"value": variance / ((examples - batch) / (examples - 1) / batch), "variance": variance}


@claim(
    source="cochran1977sampling",
    predicts=AtMost(1e-12),
    quick=Grid(kind=KINDS, batch=[10, 50], seeds=3),
    full=Grid(kind=KINDS, batch=[10, 50, 250], seeds=10),
    controls={"batches that share no example: each drawn afresh": dict(fresh=True)},
)
def gradient_noise_scale_epoch(kind: str, batch: int, seed: int, fresh: bool = False) -> float:
    r"""Within an epoch the errors of the batches cancel exactly.

    Shuffle $N$ examples and cut them into batches of equal size. However noisy the gradients $G_b$ of the batches at given
    parameters, $sum_b (G_b - G) = 0$: the errors are not independent, as accounts by stochastic differential equations
    take them to be. The value is $|sum_b (G_b - G)|$ in units of $sum_b |G_b - G|$; the sum of independent errors would
    fall like the root of the number of batches only. In the control each batch is drawn afresh, without replacement in
    itself.
    """
    draws = torch.Generator().manual_seed(seed)
    model, count = network(kind, draws), 500
    inputs, labels = images(kind, count, draws)
    mean = gradient(model, inputs, labels, range(count))
    order = torch.randperm(count, generator=draws)
    parts = [torch.randperm(count, generator=draws)[:batch] if fresh else part for part in order.split(batch)]
    gaps = torch.stack([gradient(model, inputs, labels, part) - mean for part in parts])
    return float(gaps.sum(0).norm() / gaps.norm(dim=1).sum())


PREDICTORS = 4


@claim(
    source=("mccandlish2018empirical", "fieller1954problems"),
    predicts=AtLeast(0.88, of="mean"),
    quick=Grid(noise=[1.0, 3.0], examples=[400], sets=[40], seeds=12),
    full=Grid(noise=[0.5, 1.0, 3.0], examples=[400, 2000], sets=[100], seeds=20),
    controls={"examples drawn independently: each of them eight times": dict(copies=8)},
)
def gradient_noise_scale_interval(
    noise: float, examples: int, sets: int, seed: int, copies: int = 1
) -> dict[str, float]:
    r"""The interval of an estimated noise scale covers the true one as often as it says.

    For $f(x) = w dot x$ with normal $x in RR^p$, labels that are noise of variance $sigma^2$, half the squared error and
    weights at the distance $|w|$ from the minimum, the mean gradient is $w$, and
    $ (tr Sigma) / (|G|^2) = p + 1 + (p sigma^2) / (|w|^2) . $
    The lab estimates both parts without bias from the gradients of 20 random groups of examples @mccandlish2018empirical
    and takes Fieller's interval of a ratio @fieller1954problems, unbounded where the data do not tell $|G|$ from zero, with
    jackknife errors. The value is the share of data sets whose 95 % interval holds the number above; as the gradients are
    far from normal, at least 88 % are asked for. In the control the same number of rows consists of copies.
    """
    draws = torch.Generator().manual_seed(seed)
    model = MLP([PREDICTORS, 1], bias=False, generator=draws)
    weights = flat_parameters(model)
    truth = PREDICTORS + 1 + PREDICTORS * noise**2 * float(1 / weights.square().sum())
    held, widths = 0, []
    for _ in range(sets):
        x = gaussian(draws, examples // copies, PREDICTORS).repeat_interleave(copies, 0)
        y = noise * gaussian(draws, examples // copies, 1).repeat_interleave(copies, 0)
        found = noise_scale(model, squared_error, (x, y), groups=20)
        held += found.low <= truth <= found.high
        widths.append((min(found.high, 1e6) - found.low) / truth)
    return {"value": held / sets, "width": float(np.median(widths))}


DEPTH, WIDTH = 12, 64
FAULTS = ["weights 10000 times too small", "weights 10000 times too large", "biases that silence every unit"]


def deep(depth: int, law: str, draws: torch.Generator) -> MLP:
    """A deep ReLU network for digits."""
    return MLP([64, *[WIDTH] * depth, 10], "relu", init=law, generator=draws)


def physical(model: nn.Module, draws: torch.Generator) -> GradientHealth:
    """The health of a network's gradient on a few digits."""
    inputs, labels = images("MLP", 100, draws)
    return gradient_health(model, nn.CrossEntropyLoss(), (inputs, labels), groups=10, rows=64)


def draw_faults(ax: Any, rows: Rows) -> Mapping[str, Sequence[Any]]:
    """Second moment of the gradient by layer, in one network for each fault, and in one without.

    Logarithmic axis. The line of the network without a fault is level. From the right, each of the others is level up to
    the layer of its fault, where a dotted line stands, and makes one step of eight decades there. Where a layer is silent
    its line lies further down, or is missing: no gradient is left to draw.
    """
    columns: dict[str, Any] = {"layer": list(range(DEPTH + 1))}
    healthy = [row for row in rows if row.arm][:1]
    for colour, row in enumerate([row for row in rows if not row.arm and row.k == 0] + healthy):
        name, moments = "no fault" if row.arm else row.point["fault"], np.asarray(row.values["gradient"])
        columns[name] = moments
        shown = np.where(moments > 0, moments, np.nan)
        ax.semilogy(columns["layer"], shown, ".-", color=f"C{colour}", label=name)
        if not row.arm:
            place = int(row.values["place"])
            ax.axvline(place, color=f"C{colour}", linestyle=":", linewidth=1)
    ax.set(xlabel="layer", ylabel="second moment of the gradient")
    ax.legend(fontsize=7)
    return columns


@claim(
    source=("glorot2010understanding", "he2015delving"),
    predicts=Equals(1, within=0, of="each"),
    quick=Grid(fault=FAULTS, seeds=10),
    full=Grid(fault=FAULTS, seeds=40),
    controls={"a fault: none": dict(planted=False)},
    figures=(draw_faults,),
)
def gradient_health_culprit(fault: str, seed: int, planted: bool = True) -> dict[str, Any]:
    r"""The layer that loses the gradient is named.

    In a ReLU network of 12 hidden layers with He's initialisation @he2015delving, second moments of signals and
    gradients stay of order one @glorot2010understanding. One hidden layer, at random, is given a fault: weights $10^4$
    times too small, or too large, or biases of $-10^3$. The lab's physical sees the network and a hundred digits. It names
    the first layer, from the loss, at which the gradient's second moment falls below $10^(-6)$ of that at the output, or
    passes $10^6$. The value is 1 if that is the layer with the fault (or its units), else 0. In the control there is no
    fault, and no layer must be named.
    """
    draws = torch.Generator().manual_seed(seed)
    model = deep(DEPTH, "he", draws)
    place = int(torch.randint(1, DEPTH, (), generator=draws))
    layer = model.layers[place]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        if planted and fault == FAULTS[2]:
            layer.bias.fill_(-1e3)
        elif planted:
            layer.weight.mul_(1e-4 if fault == FAULTS[0] else 1e4)
    found = physical(model, draws)
    named = found.explodes if fault == FAULTS[1] else found.dies
    moments = [layer.gradient.value for layer in found.layers if layer.gradient and layer.kind == "Linear"]
    value = float(named is not None and named.split()[-1] == f"layers.{place}")
    return {"value": value, "place": place, "gradient": np.array(moments)}


@claim(
    source=("he2015delving", "glorot2010understanding"),
    predicts=Equals(0, within=0, of="each"),
    quick=Grid(depth=[4, 12], seeds=10),
    full=Grid(depth=[4, 12, 24], seeds=40),
    controls={"He's initialisation: weights of variance 1/(3n), biases too": dict(law="default")},
)
def gradient_health_healthy(depth: int, seed: int, law: str = "he") -> float:
    r"""A network with He's initialisation has a clean bill.

    The value is the number of layers that the lab's physical finds ailing in a ReLU network with weights of variance
    $2\/n$ @he2015delving: gradients that die or explode, signals that do, dead or saturated units, examples that become
    alike. The control takes the default initialisation of torch, $1\/(3n)$, at which a layer leaves a sixth of the
    gradient's second moment: not yet a fault at depth 4, but $6^(-12) < 10^(-9)$ at depth 12.
    """
    draws = torch.Generator().manual_seed(seed)
    return float(len(physical(deep(depth, law, draws), draws).ailing))


if __name__ == "__main__":
    script(__file__)
