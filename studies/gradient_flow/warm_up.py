r"""Must a transformer be warmed up?

The first transformers did not learn unless the learning rate was raised slowly. Where layer normalisation stands
decides whether that is needed @xiong2020layer; why, is disputed @liu2020understanding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lemmata.architectures import GPT
from lemmata.studies.architectures.text import LETTERS, parts
from lemmata.studies.claim import AtMost, Grid, claim, script
from lemmata.studies.training import train

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def learned(norm: str, rate: float, warmup: int, seed: int, recipe: Mapping[str, int]) -> Tensor:
    """Bits per character while a transformer learns English with Adam, each batch before its update, (steps,).

    The rate rises linearly over ``warmup`` steps, or starts at its largest value, and falls linearly over the second
    half.
    """
    draws, steps, window = torch.Generator().manual_seed(seed), recipe["steps"], recipe["window"]
    text, _ = parts(shuffled=False, draws=draws)
    net = GPT(
        LETTERS,
        recipe["width"],
        heads=4,
        layers=recipe["layers"],
        length=window,
        norm=norm,
        activation="relu",
        init="glorot",
        dtype=torch.float32,
        generator=draws,
    ).to(text.device)
    reach = torch.arange(window + 1, device="cpu")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(text) - window, (1, recipe["windows"], 1), generator=draws, device="cpu")
        chosen = text[(starts + reach).to(text.device)]
        return chosen[..., :-1], chosen[..., 1:]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output.flatten(0, 1), target.flatten())

    def share(step: int) -> float:
        return min(1.0, (step + 1) / max(warmup, 1), 2 * (1 - step / steps))

    schedule = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=share)
    return train([net], loss, batch, steps, partial(torch.optim.Adam, lr=rate, fused=True), schedule)[:, 0] / log(2)


def letter_entropy() -> float:
    """Bits per character of the text to one who knows the frequencies of letters and nothing else."""
    share = parts(shuffled=False, draws=torch.Generator())[0].bincount().double()
    return float(torch.special.entr(share / share.sum()).sum()) / log(2)


def draw_warmup(ax: Any, rows: Rows) -> Columns:
    """Transformers learn English, with warm-up and without.

    Bits per character against the step, means over ten steps, one run of each kind. Three curves fall below the dashed
    line, the entropy of single letters; the one with norms after the sums and no warm-up comes down to that line and
    stays on it.
    """
    chosen = {row.point["norm"]: row.values for row in rows if row.k == 0 and not row.arm}
    columns: dict[str, Any] = {}
    for place, (norm, values) in enumerate(chosen.items()):
        for name, mark in (("without warm-up", "-"), ("with warm-up", "--")):
            curve = values[name]
            blocks = curve[: len(curve) // 10 * 10].reshape(-1, 10).mean(1)
            columns.setdefault("step", 10 * np.arange(len(blocks)) + 5)
            columns[label := f"{norm.capitalize()}-LN, {name}"] = blocks
            ax.plot(columns["step"], blocks, mark, color=f"C{place}", label=label)
    ax.axhline(next(iter(chosen.values()))["entropy"], color="0.3", linestyle=":", linewidth=1, label="single letters")
    ax.set(xlabel="step", ylabel="bits per character", ylim=(3, 5))
    ax.legend()
    return columns


@claim(
    source=("xiong2020layer", "liu2020understanding"),
    predicts=AtMost(0.25),
    quick=Grid(norm=["pre", "post"], layers=[3], width=[32], steps=[200], seeds=3),
    full=Grid(norm=["pre", "post"], layers=[3, 4], width=[32], steps=[400], seeds=10),
    controls={"a rate of one hundredth: a tenth": dict(rate=0.1)},
    expects="DEPENDS",
    switch="norm",
    figures=(draw_warmup,),
)
def layernorm_placement(
    norm: str, layers: int, width: int, steps: int, seed: int, rate: float = 0.01
) -> dict[str, Any]:
    r"""A transformer learns without warm-up what it learns with it.

    Contested. The first transformers, with norms after the sums, were found not to learn unless the learning rate was
    raised slowly. @xiong2020layer find the cause in the gradients of the last layers, which do not fall with the
    depth, and show that with norms on the branches warm-up can be left out. @liu2020understanding hold that unbalanced
    gradients are not the cause, but outputs that depend on the branches so strongly that small changes of many weights
    add up. Both agree on what happens, and that is measured here: it depends on where the norm stands.

    Small transformers predict the next letter of English, trained by Adam at a rate of $0.01$, which rises linearly
    over the first half of the steps, or is there from the first; in both runs it falls linearly over the second half,
    with the same first weights and the same batches. The statement is that the run without warm-up loses in no case
    more than a quarter of what the other learns: of the bits per character, over the last $30$ steps, below the
    entropy of single letters. The switch is the placement. In the control the rate is ten times as large, too large
    for any transformer to begin with. Training is in single precision.
    """
    recipe = dict(layers=layers, width=width, steps=steps, window=16, windows=8)
    curves = [learned(norm, rate, warmup, seed, recipe).double() for warmup in (0, steps // 2)]
    (without, warmed), entropy = (float(curve[-30:].mean()) for curve in curves), letter_entropy()
    # Where even the warmed run learns nothing, a loss relative to it says nothing: it counts as if it had learned a little.
    lost = (without - warmed) / max(entropy - warmed, 0.05)
    return {"value": lost, "without warm-up": curves[0], "with warm-up": curves[1], "entropy": entropy}


if __name__ == "__main__":
    script(__file__)
