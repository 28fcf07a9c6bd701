r"""The spectra of products of random layers.

The Jacobian of a deep linear network at initialisation is a product of $L$ independent random matrices. Each keeps the mean
square of a signal, and still the product does not: the squared singular values spread further with every layer, most of them
towards zero, the largest ones ever higher. For wide layers their law is known, the Fuss–Catalan law of order $L$
@penson2011product, named after its moments. Orthogonal layers do not spread them at all, which is why they train faster
@saxe2014exact @pennington2017resurrecting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lemmata.architectures import DeepLinear
from lemmata.studies.claim import AtMost, Equals, Grid, Scales, claim, script
from lemmata.studies.curvature import spectral_laws as laws
from lemmata.studies.curvature.random_matrices import draw_distances

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]


def jacobian(width: int, depth: int, layers: str, draws: torch.Generator) -> Tensor:
    """The end-to-end matrix of a deep linear network: Gaussian and square, orthogonal, or with narrow hidden layers."""
    hidden = width // 2 if layers == "narrow" else width
    init = "orthogonal" if layers == "orthogonal" else "lecun"
    widths = [width, *[hidden] * (depth - 1), width]
    return DeepLinear(widths, init=init, generator=draws, device=torch.get_default_device()).product().detach()


def squared_singular_values(matrix: Tensor) -> np.ndarray:
    """From the singular values: the eigenvalues of JJᵀ would lose the small ones to rounding."""
    return torch.linalg.svdvals(matrix).square().cpu().numpy()


CONTROLS = {
    "Gaussian layers: orthogonal": dict(layers="orthogonal"),
    "layers of one width: hidden layers of half": dict(layers="narrow"),
}


def draw_moments(ax: Any, rows: Rows) -> Columns:
    """Moments of the squared singular values against depth.

    Second and third moment on a logarithmic axis: the measured points lie on the rising lines of the Fuss–Catalan numbers.
    The moments of orthogonal networks stay at one.
    """
    depths = sorted({row.point["depth"] for row in rows})
    columns: dict[str, Sequence[float]] = {"depth": depths}
    for colour, k in enumerate(sorted({row.point["k"] for row in rows})):
        columns[f"Fuss–Catalan, k = {k}"] = [laws.fuss_catalan_number(depth, k) for depth in depths]
        ax.semilogy(depths, columns[f"Fuss–Catalan, k = {k}"], color=f"C{colour}", label=f"Fuss–Catalan, k = {k}")
        for arm, mark in (("", "o"), ("Gaussian layers: orthogonal", "s")):
            label = f"{'orthogonal' if arm else 'Gaussian'}, k = {k}"
            columns[label] = [
                float(
                    np.mean([r.values["value"] for r in rows if (r.arm, r.point["k"], r.point["depth"]) == (arm, k, d)])
                )
                for d in depths
            ]
            face = "none" if arm else f"C{colour}"
            ax.semilogy(depths, columns[label], mark, color=f"C{colour}", markerfacecolor=face, label=label)
    ax.set(xlabel="layers L", ylabel="moment of order k", xticks=depths)
    ax.legend(ncols=2)
    return columns


@claim(
    source="penson2011product",
    predicts=Equals("comb((depth + 1)*k, k)/(depth*k + 1)", within="0.1*comb((depth + 1)*k, k)/(depth*k + 1)"),
    quick=Grid(depth=[1, 2, 3, 5], k=[2, 3], width=[256], seeds=60),
    full=Grid(depth=[1, 2, 3, 5, 8], k=[2, 3], width=[768], seeds=60),
    controls=CONTROLS,
    figures=(draw_moments,),
)
def fuss_catalan_spectrum(depth: int, k: int, width: int, seed: int, layers: str = "gaussian") -> float:
    r"""The moments of a deep linear Jacobian are Fuss–Catalan numbers.

    Let $J = W_L dots.c W_1$ with independent $n times n$ matrices of independent Gaussian entries of variance $1\/n$. As
    $n -> oo$ @penson2011product,
    $ 1/n "tr" (J J^top)^k -> 1/(L k + 1) binom((L + 1) k, k). $
    The first moment is one at
    every depth; the second is $L + 1$, so the variance of the squared singular values grows by one with every layer. The
    value is the moment of one network. Of finite width, it exceeds the limit in the mean by $O(L^2\/n)$.

    Controls: products of orthogonal matrices are orthogonal and all moments one; a deep network with hidden layers of half
    the width has rank $n\/2$ at most and follows another law. A single layer has no hidden one: at depth one the second
    control is the claim itself.
    """
    product = jacobian(width, depth, layers, torch.Generator().manual_seed(seed))
    return (torch.linalg.matrix_power(product @ product.T, k).trace() / width).item()


def draw_law(ax: Any, rows: Rows) -> Columns:
    """Squared singular values of products of random layers, and the density of the Fuss–Catalan law.

    Histograms on a logarithmic axis, one for each depth, and over each a smooth curve that it follows. With every layer the
    law reaches further to the right and much further to the left.
    """
    bins = np.linspace(-6, 1.25, 88)
    centres = (bins[1:] + bins[:-1]) / 2
    columns: dict[str, Any] = {"log10 of the squared singular value": centres}
    x = np.linspace(-6, 1.25, 1500)
    largest = max(row.point["width"] for row in rows)
    chosen = [row for row in rows if row.arm == "" and row.point["width"] == largest]
    for colour, depth in enumerate(sorted({row.point["depth"] for row in chosen})):
        pooled = np.concatenate([row.values["squared"] for row in chosen if row.point["depth"] == depth])
        heights = np.histogram(np.log10(pooled), bins)[0] / (len(pooled) * np.diff(bins))
        density = [10**at * np.log(10) * laws.fuss_catalan_density(10**at, depth) for at in (centres, x)]
        columns |= {f"L = {depth}": heights, f"law, L = {depth}": density[0]}
        ax.stairs(heights, bins, fill=True, color=f"C{colour}", alpha=0.3)
        ax.plot(x, density[1], color=f"C{colour}", label=f"L = {depth}")
    ax.set(xlabel="squared singular value", ylabel="density of its logarithm", xlim=(-6, 1.25), ylim=(0, None))
    ticks = [-6, -4, -2, 0]
    ax.set_xticks(ticks, [f"$10^{{{tick}}}$" if tick else "1" for tick in ticks])
    ax.legend(loc="upper left")
    return columns


@claim(
    source=("penson2011product", "forrester2015raney"),
    predicts=AtMost("6/width", of="max"),
    quick=Grid(depth=[1, 2, 4], width=[64, 128, 256], seeds=8),
    full=Grid(depth=[1, 2, 4, 8], width=[64, 128, 256, 512], seeds=20),
    controls=CONTROLS,
    figures=(draw_law,),
)
def fuss_catalan_spectrum_law(depth: int, width: int, seed: int, layers: str = "gaussian") -> dict[str, Any]:
    r"""The squared singular values of a deep linear Jacobian follow the Fuss–Catalan law.

    The law with the moments of the last theorem has a density on $(0, (L + 1)^(L + 1)\/L^L)$ that is elementary in an
    angle @forrester2015raney: at $ x = (sin^(L + 1) (L + 1) phi) / (sin phi thin sin^L L phi) quad "it is" quad
    rho = (sin^2 phi thin sin^(L - 1) L phi) / (pi sin^L (L + 1) phi), quad 0 < phi < pi/(L + 1). $
    Its distribution function is $1 - ((L + 1) phi - L sin phi sin (L + 1) phi \/ sin L phi)\/pi$. The value is the
    Kolmogorov distance of the $n$ squared singular values from the law. It must not exceed $6\/n$ in any network, as
    for a single layer; the constant is the lab's.
    """
    squared = squared_singular_values(jacobian(width, depth, layers, torch.Generator().manual_seed(seed)))
    distance = laws.kolmogorov_distance(squared, partial(laws.fuss_catalan_cdf, depth=depth))
    return {"value": distance, "squared": squared}


def draw_edge(ax: Any, rows: Rows) -> Columns:
    """The largest squared singular value approaches the edge of the law; under the controls it stays away from it.

    Relative distance from the edge for products of two layers against their width, both axes logarithmic. The points of
    the claim fall parallel to the dashed line of slope minus two thirds, those of the controls do not fall.
    """
    shown = [row for row in rows if row.point["depth"] == 2]
    return draw_distances(ax, shown, "width", "width n", "Gaussian, of one width")


@claim(
    source=("penson2011product", "liu2016bulk"),
    predicts=Scales("width", power=-2 / 3, within=0.15),
    quick=Grid(depth=[2], width=[32, 64, 128, 256], networks=[50], seeds=10),
    full=Grid(depth=[1, 2, 3], width=[32, 64, 128, 256, 512], networks=[25], seeds=20),
    controls=CONTROLS,
    figures=(draw_edge,),
)
def fuss_catalan_spectrum_edge(depth: int, width: int, networks: int, seed: int, layers: str = "gaussian") -> float:
    r"""The largest squared singular value of a deep linear Jacobian is within n to the minus two thirds of the edge.

    The law's upper end is $(L + 1)^(L + 1)\/L^L$: it grows like $upright(e) L$, the mean staying one. The largest squared singular
    value converges to it, and for complex Gaussian layers it is known to fluctuate by $O(n^(-2\/3))$ @liu2016bulk; the same
    is expected, and tested here, for real ones. The value is the mean over several networks of the relative distance of the
    largest squared singular value from the edge. At the widths of real layers that is ten per cent and more, so that a
    comparison with the edge itself would mislead.
    """
    draws = torch.Generator().manual_seed(seed)
    products = (jacobian(width, depth, layers, draws) for _ in range(networks))
    top = [torch.linalg.eigvalsh(product @ product.T)[-1].item() for product in products]
    return float(np.abs(1 - np.array(top) / laws.fuss_catalan_edge(depth)).mean())


if __name__ == "__main__":
    script(__file__)
