r"""Indices of similarity: what they ignore, and when they cannot see.

To compare layers of two networks one must say which differences do not count @kornblith2019similarity. Linear CKA and
Procrustes' cosine @schonemann1966generalized ignore rotations and scale; canonical correlations @hotelling1936relations ignore all
invertible linear maps, and pay for it: with fewer examples than units they are one, whatever the data. With few examples the usual
CKA of unrelated data is not near zero either, by a formula; the one with unbiased estimates of dependence is @song2012feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.analysis.invariance.similarity import cka, cka_unbiased, mean_correlation, procrustes
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
INDICES = {"CKA": cka, "unbiased CKA": cka_unbiased, "Procrustes": procrustes, "CCA": mean_correlation}


def related(n: int, width: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two representations of n examples, (n, width): half of the variance of the second is the first's, turned."""
    X, noise = gaussian(draws, 2, n, width)
    turn = torch.linalg.qr(gaussian(draws, width, width))[0]
    return X, 0.5**0.5 * (X @ turn + noise)


def linear_map(kind: str, width: int, draws: torch.Generator) -> Tensor:
    """A rotation times a number; or a matrix of condition number ten; or such a matrix with a direction left out."""
    left, right = torch.linalg.qr(gaussian(draws, 2, width, width))[0]
    if kind == "orthogonal":
        return 3.0 * left
    values = torch.linspace(1, 10, width, device=left.device, dtype=left.dtype)
    values[0] *= kind == "invertible"
    return left * values @ right


@claim(
    source="kornblith2019similarity",
    predicts=AtMost("rounding(width)"),
    quick=Grid(index=["CKA", "unbiased CKA", "Procrustes"], width=[10, 30], examples=[40], seeds=3),
    full=Grid(index=["CKA", "unbiased CKA", "Procrustes"], width=[10, 30, 100], examples=[40, 400], seeds=10),
    controls={
        "orthogonal maps: invertible ones": dict(kind="invertible"),
        "the same map of all examples: another scale of half of them": dict(uneven=True),
    },
)
def cka_cca_invariances(
    index: str, width: int, examples: int, seed: int, kind: str = "orthogonal", uneven: bool = False
) -> float:
    r"""CKA and Procrustes' cosine do not notice rotations and scale.

    For matrices $X, Y$ with columns about their means let $"CKA" = norm(Y^top X)_F^2 \/ (norm(X^top X)_F norm(Y^top Y)_F)$. For
    orthogonal $Q, R$ and numbers $a, b != 0$ it is the same for $a X Q$ and $b Y R$ @kornblith2019similarity, as are its version with
    unbiased estimates @song2012feature and the cosine after the best rotation @schonemann1966generalized. The value is the change of the
    index. Controls: matrices of condition number ten; a scale that is not the same for all examples.
    """
    draws = torch.Generator().manual_seed(seed)
    X, Y = related(examples, width, draws)
    mapped = X @ linear_map(kind, width, draws)
    if uneven:
        mapped[: examples // 2] *= 3
    statistic = INDICES[index]
    return abs(statistic(mapped, Y @ linear_map(kind, width, draws)) - statistic(X, Y))


@claim(
    source=("hotelling1936relations", "kornblith2019similarity"),
    predicts=AtMost("rounding(width, 10)"),
    quick=Grid(width=[5, 15], examples=[40], seeds=3),
    full=Grid(width=[5, 15, 50], examples=[400], seeds=10),
    controls={
        "invertible maps: one direction left out": dict(kind="singular"),
        "canonical correlations: CKA": dict(index="CKA"),
    },
)
def cka_cca_invariances_linear(
    width: int, examples: int, seed: int, kind: str = "invertible", index: str = "CCA"
) -> float:
    r"""Canonical correlations do not notice any invertible linear map.

    They are the cosines of the principal angles between the spaces that the columns of $X$ and of $Y$ span
    @hotelling1936relations, and $X A$ spans the same space as $X$ for every invertible $A$. The value is the change of their mean under
    two matrices of condition number ten. Controls: matrices that leave one direction out; CKA, which weighs directions by their
    variance @kornblith2019similarity.
    """
    draws = torch.Generator().manual_seed(seed)
    X, Y = related(examples, width, draws)
    A, B = linear_map(kind, width, draws), linear_map(kind, width, draws)
    return abs(INDICES[index](X @ A, Y @ B) - INDICES[index](X, Y))


def draw_blindness(ax: Any, rows: Rows) -> Columns:
    """Four indices of unrelated random data against the width, for twenty examples: two say that all is alike.

    Mean index against width. The mean canonical correlation rises to one at a width of 19 and stays; CKA and Procrustes'
    cosine rise slowly; unbiased CKA stays at zero.
    """
    chosen = next(row for row in rows if not row.arm and not row.error)
    columns: dict[str, Any] = {"width": WIDTHS}
    for name, values in zip(INDICES, np.asarray(chosen.values["curves"]), strict=True):
        columns[name] = values
        ax.plot(WIDTHS, values, "o-", markersize=4, label=name)
    ax.axhline(0, color="0.6", linewidth=1)
    ax.set(xlabel="units in each network", ylabel="index of unrelated data, 20 examples")
    ax.legend(fontsize="small")
    return columns


WIDTHS = [2, 5, 8, 11, 14, 17, 19, 22, 26, 30]


@claim(
    source="kornblith2019similarity",
    predicts=AtMost(1e-12),
    quick=Grid(width=[19, 30], examples=[20], seeds=3),
    full=Grid(width=[19, 30, 100], examples=[20], seeds=10),
    controls={
        "no fewer units than examples less one: a third": dict(share=1 / 3),
        "canonical correlations: CKA": dict(index="CKA"),
    },
    figures=(draw_blindness,),
)
def cka_cca_invariances_blind(
    width: int, examples: int, seed: int, share: float = 1.0, index: str = "CCA"
) -> dict[str, Any]:
    r"""With as many units as examples, less one, every canonical correlation of anything with anything is one.

    About their means the columns of $X$ and $Y$ lie in $n - 1$ dimensions. If $p >= n - 1$, generic ones span all of them, the two
    spaces are the same and every canonical correlation is one; so is every index that ignores invertible maps a constant
    @kornblith2019similarity. The value is the distance of the mean canonical correlation of unrelated Gaussian data from one.
    Controls: a third of the units; CKA.
    """
    draws = torch.Generator().manual_seed(seed)
    X, Y = gaussian(draws, 2, examples, width)
    kept = max(1, int(share * width))
    pairs = [gaussian(draws, 12, 2, examples, w) for w in WIDTHS]
    curves = [[np.mean([f(*pair) for pair in drawn]) for drawn in pairs] for f in INDICES.values()]
    return {"value": abs(INDICES[index](X[:, :kept], Y[:, :kept]) - 1), "curves": np.array(curves)}


def mean_index(index: str, width: int, examples: int, draws: int, seed: int, common: bool) -> float:
    """Mean over draws of an index of Gaussian data, independent or with half of the variance in common."""
    random = torch.Generator().manual_seed(seed)
    pairs = [related(examples, width, random) if common else gaussian(random, 2, examples, width) for _ in range(draws)]
    return float(np.mean([INDICES[index](X, Y) for X, Y in pairs]))


@claim(
    source=("kornblith2019similarity", "song2012feature"),
    predicts=Equals("width / (width + examples)", within=0.02),
    quick=Grid(width=[10, 30, 60], examples=[20], draws=[200], seeds=10),
    full=Grid(width=[10, 30, 60, 200], examples=[20, 100], draws=[200], seeds=20),
    controls={
        "the usual estimate: the unbiased one": dict(index="unbiased CKA"),
        "unrelated data: half of the variance in common": dict(common=True),
    },
)
def cka_cca_invariances_bias(
    width: int, examples: int, draws: int, seed: int, index: str = "CKA", common: bool = False
) -> float:
    r"""The usual CKA of unrelated data is about p over n + p.

    Let $X, Y$ be independent Gaussian, of $n$ examples and $p$ units. About the means, with $m = n - 1$ degrees of freedom,
    $EE norm(Y^top X)_F^2 = m p^2$ and, by the second moment of Wishart's law, $EE norm(X^top X)_F^2 = m p (m + p + 1)$, so that
    $ "CKA" approx p / (n + p): $
    $0.6$ for 30 units and 20 examples, not $0$. The value is the mean index over draws. Controls: unbiased estimates of the
    dependence @song2012feature, with which it is zero on average; data that are related.
    """
    return mean_index(index, width, examples, draws, seed, common)


@claim(
    source="song2012feature",
    predicts=Equals(0, within=0.03),
    quick=Grid(width=[10, 30, 60], examples=[20], draws=[300], seeds=12),
    full=Grid(width=[10, 30, 60, 200], examples=[20, 100], draws=[200], seeds=20),
    controls={
        "unbiased estimates: the usual ones": dict(index="CKA"),
        "unrelated data: half of the variance in common": dict(common=True),
    },
)
def cka_cca_invariances_unbiased(
    width: int, examples: int, draws: int, seed: int, index: str = "unbiased CKA", common: bool = False
) -> float:
    r"""With unbiased estimates of dependence, the CKA of unrelated data is zero on average at every width.

    CKA is $"HSIC"(X, Y) \/ sqrt("HSIC"(X, X) "HSIC"(Y, Y))$. The estimate of HSIC that leaves out the diagonals of the Gram matrices
    has no bias at any number of examples @song2012feature: the numerator has mean zero for independent data, and the ratio nearly so.
    The value is the mean index over draws. Controls: the usual estimates, which are
    up to $3\/4$; related data.
    """
    return mean_index(index, width, examples, draws, seed, common)


if __name__ == "__main__":
    script(__file__)
