r"""Do features move? Parametrisations under Adam.

How far a step of training moves the signals inside a network depends on its width, unless initial weights and rates are scaled
with it. There is one way to scale them in which all layers keep learning as the width grows @yang2021feature @yang2022tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lemmata.architectures import GPT, MLP, Law
from lemmata.studies.claim import Grid, Scales, claim, script
from lemmata.studies.data import digits

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
WORDS, BASE = (
    103,
    64,
)  # characters that the transformer reads; the width at which both parametrisations train at the same rates


class Readout(nn.Module):
    """A network with a number before its output."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        """The output times the factor."""
        return self.factor * self.net(x)


def parametrised(
    architecture: str, width: int, maximal: bool, draws: torch.Generator
) -> tuple[nn.Module, nn.Module, str]:
    """A network, the module whose output is its last hidden signal, and the names of the parameters fed by the inputs."""
    if architecture == "MLP":
        law = Law("maximal", lambda n, m: BASE / n**2 if maximal and m == 10 else 1 / n)
        net = MLP([64, width, width, width, 10], activation="tanh", init=law, generator=draws)
        return net, net.layers[2], "layers.0"
    law = Law("maximal", lambda n, m: 1.0 if m == WORDS else 1 / n)
    options: dict[str, Any] = dict(init=law) if maximal else {}
    gpt = GPT(WORDS, width, width // 16, 2, length=8, generator=draws, **options)
    return Readout(gpt, 16 / width if maximal else 1.0), gpt.body.layers[-1], "net.embedding net.body.positions"


def feature_update(architecture: str, width: int, maximal: bool, steps: int, draws: torch.Generator) -> float:
    """The mean change of an entry of the last hidden signal over some steps of Adam."""
    net, last, near = parametrised(architecture, width, maximal, draws)
    if architecture == "MLP":
        x, y = digits(64)
    else:
        text = torch.randint(WORDS, (4, 9), generator=torch.Generator().manual_seed(9), device="cpu")
        text = text.to(torch.get_default_device())
        x, y = text[:, :-1], text[:, 1:]
    seen: list[Tensor] = []
    last.register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    groups = []
    for name, p in net.named_parameters():
        hidden = p.ndim == 2 and not name.startswith(tuple(near.split()))
        groups.append({"params": [p], "lr": 5e-4 * (BASE / width if maximal and hidden else 1)})
    optimizer = torch.optim.Adam(groups)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(net(x).flatten(0, -2), y.flatten()).backward()
        optimizer.step()
    with torch.no_grad():
        net(x)
    return float((seen[-1] - seen[0]).abs().mean())


def draw_features(ax: Any, rows: Rows) -> Columns:
    """How far features move in three steps of Adam, against width, in the maximal-update and the standard parametrisation.

    Both axes logarithmic, a perceptron and a transformer. Solid lines, maximal update, are level; dashed ones, standard, rise
    by nearly the factor by which the width does.
    """
    columns: dict[str, Any] = {"width": sorted({row.point["width"] for row in rows})}
    for place, net in enumerate(sorted({row.point["architecture"] for row in rows})):
        for arm, style in ((False, "o-"), (True, "o--")):
            name = f"{net}, {'standard' if arm else 'maximal update'}"
            chosen = [r for r in rows if bool(r.arm) == arm and r.point["architecture"] == net]
            columns[name] = [
                np.mean([r.values["value"] for r in chosen if r.point["width"] == n]) for n in columns["width"]
            ]
            ax.loglog(columns["width"], columns[name], style, color=f"C{place}", label=name)
    ax.set(xlabel="width n", ylabel="mean change of a feature")
    ax.legend()
    return columns


@claim(
    source=("yang2021feature", "yang2022tensor"),
    predicts=Scales("width", power=0, within=0.1),
    quick=Grid(architecture=["MLP", "GPT"], width=[32, 64, 128, 256], units=[128], steps=[3], seeds=7),
    full=Grid(architecture=["MLP", "GPT"], width=[64, 128, 256, 512, 1024], units=[256], steps=[3], seeds=20),
    controls={"rates and read-out scaled with the width: standard parametrisation": dict(maximal=False)},
    figures=(draw_features,),
)
def mup_coordinate_check(
    architecture: str, width: int, units: int, steps: int, seed: int, maximal: bool = True
) -> float:
    r"""In the maximal-update parametrisation features move by the same amount at every width.

    With hidden weights of variance $1\/n$ trained by Adam at rates $eta\/n$, inputs' weights at $eta$, and outputs smaller by another
    $n^(-1\/2)$, every feature moves by $Theta(1)$ in a step, at any width, so that all layers keep learning
    @yang2021feature @yang2022tensor. The value is the mean absolute change of the last hidden signal after three steps: of a
    perceptron with three hidden layers on handwritten digits; and of GPT, with heads of one size and the factor $1\/n$ before its
    logits, on random tokens that are the same in all trials. A trial takes the mean over as many networks as give the stated
    number of units in a layer, at least one.

    Control: the standard parametrisation with one rate. Adam's entries are all of one size whatever the gradient's, they add up
    over $n$ inputs, and features move by $Theta(n)$.
    """
    draws = torch.Generator().manual_seed(seed)
    nets = max(1, units // width)
    return sum(feature_update(architecture, width, maximal, steps, draws) for _ in range(nets)) / nets


if __name__ == "__main__":
    script(__file__)
