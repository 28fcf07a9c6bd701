"""Spectra of a classifier of ten classes: what the figures of the outliers' study show, and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.analysis.curvature import ClassStructure

RANKS = 100
COLOURS = {"class": "#D55E00", "cross": "#0072B2", "within": "#009E73", "same": "#CC79A7"}
TAIL = "above", "number above", "lowest number above", "highest number above", "true number above"


def parts_of(structure: ClassStructure) -> dict[str, np.ndarray]:
    """The leading eigenvalues of the Gauss–Newton matrix and of its parts, and what each part gives to the former."""
    whole = la.eigenpairs(structure.ggn, k=RANKS, tol=1e-2, max_steps=1000)
    found = {"whole": whole.values.numpy()}
    for name, part in structure.parts.items():
        if name in ("class", "cross"):
            exact = structure.eigenvalues(name)[:RANKS]
            values = torch.cat([exact, exact.new_zeros(RANKS - len(exact))])
        else:
            values = la.eigenpairs(part, k=RANKS, tol=1e-2, max_steps=1000).values
        given = (whole.vectors * (part @ whole.vectors)).sum(0).to("cpu", torch.float64)
        found |= {name: values.numpy(), f"share {name}": (given / whole.values).numpy()}
    return found


def share_up_to(eigenvalues: Tensor, places: Tensor) -> Tensor:
    """The share of the eigenvalues that are at most x, for each x."""
    return (eigenvalues <= places[:, None]).double().mean(1)


def curves(found: la.SpectralDensity, truth: Tensor) -> dict[str, np.ndarray]:
    """The smoothed density, and the number of eigenvalues above x, estimated and true; ``truth`` is ascending."""
    low, high, size = float(truth[0]), float(truth[-1]), len(truth)
    width = (high - low) / 100
    x = torch.linspace(low - 4 * width, high + 4 * width, 400, dtype=torch.float64, device="cpu")
    smooth = torch.exp(-(((x[:, None] - truth) / width) ** 2) / 2).mean(1) / (width * np.sqrt(2 * np.pi))
    above = high * torch.logspace(-5, 0.05, 120, dtype=torch.float64, device="cpu")
    value, least, most = found.cdf(above)
    shares = above / size, 1 - value, 1 - most, 1 - least, 1 - share_up_to(truth, above)
    smoothed = {"x": x, "density": found.evaluate(x, width), "density of all": smooth}
    tail = {name: size * share for name, share in zip(TAIL, shares, strict=True)}
    return {name: column.numpy() for name, column in {**smoothed, **tail}.items()}


def draw_parts(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """Eigenvalues of the Gauss–Newton matrix of one network and of its four parts; dashed: ranks C − 1 and C (C − 1).

    Eigenvalue against rank, both logarithmic. The class part starts just below the whole matrix, stays close for nine
    ranks and ends with the tenth. The cross-class part starts lower and falls away after some thirty ranks. The
    within-class part starts lower still, is the flattest, and follows the whole from there on. The same-class part lies
    far below.
    """
    values = next(row for row in rows if row.arm == "" and row.k == 0).values
    columns: dict[str, Sequence[float]] = {"rank": list(range(1, RANKS + 1))}
    for name in ("whole", *COLOURS):
        columns[name] = values[name].tolist()
        seen = values[name] > 1e-8 * values["whole"][0]
        colour, width = COLOURS.get(name, "#222222"), 2.4 if name == "whole" else 1.6
        label = "whole matrix" if name == "whole" else f"{name} part"
        ax.loglog(np.arange(1, RANKS + 1)[seen], values[name][seen], color=colour, linewidth=width, label=label)
    _mark_ranks(ax, "#6b6b6b")
    ax.set(xlabel="rank", ylabel="eigenvalue")
    ax.legend(loc="lower left")
    return columns


def draw_shares(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """What the parts give to each eigenvalue of the whole matrix, mean over networks; dashed: ranks C − 1 and C (C − 1).

    Stacked shares of one against the rank on a logarithmic axis. The class part gives most of the first eight, a third
    of the ninth and tenth, and little after. The cross-class part gives a quarter of the first and about half around
    the twentieth. The within-class part grows from almost nothing to four fifths at the ninetieth.
    """
    chosen = [row.values for row in rows if row.arm == ""]
    columns: dict[str, Sequence[float]] = {"rank": list(range(1, RANKS + 1))}
    for name in COLOURS:
        columns[name] = np.mean([values[f"share {name}"] for values in chosen], 0).tolist()
    stacked = [columns[name] for name in COLOURS]
    ax.stackplot(columns["rank"], stacked, colors=COLOURS.values(), labels=COLOURS, step="mid")
    _mark_ranks(ax, "white")
    ax.set(xlabel="rank of the eigenvalue", ylabel="share of it", xlim=(1, RANKS), ylim=(0, 1))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return columns


def _mark_ranks(ax: Any, colour: str) -> None:
    """A logarithmic axis of ranks; vertical lines after C − 1 and C (C − 1), for ten classes."""
    ax.set_xscale("log")
    ticks = 1, 3, 9, 30, 90
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    for place in (9.5, 90.5):
        ax.axvline(place, color=colour, linestyle="--", linewidth=1)


def draw_density(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The spectral density of one Hessian, estimated and from all eigenvalues, each a Gaussian 1 % of the range wide.

    Density against eigenvalue, on a logarithmic vertical axis: a tall peak at zero, the bulk, and separate humps far to
    its right, the outliers, where the estimate differs from the truth in the height of single humps. Ticks along the
    lower edge mark the eigenvalues.
    """
    values = next(row for row in rows if row.arm == "" and row.k == 0).values
    places, truth = values["eigenvalues"], values["density of all"]
    ax.semilogy(values["x"], truth, color="#222222", linewidth=3.5, alpha=0.35, label="all eigenvalues")
    ax.semilogy(values["x"], values["density"], color="#D55E00", linewidth=1.2, label="estimate")
    ax.plot(places, np.full(len(places), truth.max() / 3e5), "|", color="#222222", markersize=7, markeredgewidth=0.6)
    ax.set(xlabel="eigenvalue", ylabel="density", ylim=(truth.max() / 1e6, 2 * truth.max()))
    ax.legend()
    return {name: values[name].tolist() for name in ("x", "density", "density of all")}


def draw_tail(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """How many eigenvalues of that Hessian are larger than x: the estimate with its 95 % interval, and the true number.

    Number against x, both axes logarithmic, from the bulk of hundreds on the left to single outliers on the right. The
    line of the true numbers runs inside the shaded band. The band is wide where the eigenvalues of the bulk crowd and
    at the last outliers.
    """
    values = next(row for row in rows if row.arm == "" and row.k == 0).values
    x, found, low, high, truth = (values[name] for name in TAIL)
    ax.fill_between(x, low.clip(0.1), high.clip(0.1), color="#D55E00", alpha=0.25, linewidth=0, label="95 % interval")
    ax.plot(x, found, color="#D55E00", linewidth=1.2, label="estimate")
    ax.step(x, truth, color="#222222", where="mid", label="all eigenvalues")
    ax.set(xscale="log", yscale="log", xlabel="x", ylabel="eigenvalues above x", ylim=(0.5, 1.3 * high.max()))
    ax.legend(loc="upper right")
    return {name: values[name].tolist() for name in TAIL}
