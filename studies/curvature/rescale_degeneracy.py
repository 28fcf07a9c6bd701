r"""Flat directions that rectifiers cannot avoid.

A rectifier passes positive factors, so a hidden neuron can trade scale between its incoming and its outgoing weights without
changing the network @dinh2017sharp. At a minimum of loss zero each such symmetry is an eigenvalue zero of the Hessian. For
generic data there are no others, so the nullity can be predicted as an integer and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import gaussian
from lemmata.studies.training import squared_error

INPUTS, OUTPUTS = 4, 2


def draw_spectrum(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The Hessian of the rectifier network has as many zero eigenvalues as hidden neurons; that of the tanh network none.

    Eigenvalues relative to the largest, on a logarithmic axis, by rank, for five hidden neurons. The last five of the
    rectifier network lie more than ten orders of magnitude below the others; those of the tanh network do not.
    """
    columns: dict[str, Sequence[float]] = {}
    for row in rows:
        if row.k == 0 and row.point["hidden"] == 5 and not row.arm.startswith("more"):
            label = row.arm.partition(": ")[2] or "rectifier"
            columns["rank"] = list(range(1, len(row.values["relative"]) + 1))
            columns[label] = row.values["relative"]
            ax.semilogy(columns["rank"], columns[label], ".", label=label)
    ax.axhline(1e-9, color="0.6", linestyle="--", linewidth=1)
    ax.set(xlabel="rank", ylabel=r"$|\lambda|$ ÷ $\lambda_{\max}$", ylim=(1e-20, 3))
    ax.legend(loc="lower left")
    return columns


@claim(
    source="dinh2017sharp",
    predicts=Equals("hidden", within=0, of="each"),
    quick=Grid(hidden=[2, 3, 5, 8], examples=[500], seeds=3),
    full=Grid(hidden=[2, 3, 5, 8, 12, 20], examples=[2000], seeds=20),
    controls={
        "a positively homogeneous activation: tanh": dict(activation="tanh"),
        "more data than parameters: three examples": dict(few=3),
    },
    figures=(draw_spectrum,),
)
def rescale_degeneracy_count(
    hidden: int, examples: int, seed: int, activation: str = "relu", few: int = 0
) -> dict[str, Any]:
    r"""At a zero-loss minimum, a rectifier network has exactly one zero eigenvalue for each hidden neuron.

    Let $f(x) = sum_(j=1)^h a_j "relu"(w_j dot x)$ with $a_j in RR^c$ and no biases, at parameters that fit all data. For
    every $j$ and $s > 0$ the change $(w_j, a_j) -> (s w_j, a_j \/ s)$ leaves $f$ unchanged @dinh2017sharp; hence
    $(w_j, -a_j)$ is a null vector of the Hessian. For generic parameters and generic data, many more than parameters, these
    are all: the nullity is $h$. Here the network is its own teacher on standard normal inputs in four dimensions, with
    two outputs; eigenvalues below $10^(-9) lambda_max$ count as zero.

    The tanh network has no such symmetry and no zero eigenvalue. With $n$ examples the Hessian has rank at most $n c$,
    and three leave it with more zeros than neurons.
    """
    draws = torch.Generator().manual_seed(seed)
    widths = [INPUTS, hidden, OUTPUTS]
    model = MLP(
        widths, activation=activation, init="he", bias=False, generator=draws, device=torch.get_default_device()
    )
    inputs = gaussian(draws, few or examples, INPUTS)
    with torch.no_grad():
        target = model(inputs)
    eigenvalues = torch.linalg.eigvalsh(la.Hessian(model, squared_error, (inputs, target)).dense()).abs()
    relative = eigenvalues.sort(descending=True).values / eigenvalues.max()
    zeros = int((relative < 1e-9).sum())
    return {"value": zeros, "relative": relative, "next": relative[len(relative) - zeros - 1].item()}


if __name__ == "__main__":
    script(__file__)
