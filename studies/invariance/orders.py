"""How far a network is from commuting with permutations, in both precisions, and pictures of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Rows = Sequence[Any]
Columns = Mapping[str, Sequence[Any]]
#: The representations of a batch, (b, n, d) each, after every layer.
States = Callable[[Tensor, Tensor], list[Tensor]]


ORDERS = 50


def renumbered(orders: Tensor, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers at nodes and between them in each of several orders: (p, n), (n, d), (n, n) → (p, n, d), (p, n, n).

    >>> x, A = renumbered(torch.tensor([[1, 0]]), torch.tensor([[3.0], [5.0]]), torch.tensor([[0.0, 7.0], [0.0, 0.0]]))
    >>> x.tolist(), A.tolist()
    ([[[5.0], [3.0]]], [[[0.0, 0.0], [7.0, 0.0]]])
    """
    return x[orders], A[orders[:, :, None], orders[:, None, :]]


def some_orders(nodes: int, draws: torch.Generator) -> Tensor:
    """The order of the numbers themselves, then random ones: (ORDERS + 1, n)."""
    first = torch.arange(nodes, device="cpu")[None]
    rest = torch.rand(ORDERS, nodes, generator=draws, device="cpu").argsort(-1)
    return torch.cat([first, rest]).to(torch.get_default_device())


def farthest(found: Tensor, truth: Tensor) -> float:
    """The largest relative distance over the batch: (b, …) against (b, …)."""
    return float(((found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).max())


def commuting(states: States, x: Tensor, A: Tensor, orders: Tensor) -> dict[str, Any]:
    """How far a network is from commuting with some orders, the first the given one, after each layer and summed over nodes."""
    with torch.no_grad():
        found = states(*renumbered(orders, x, A))
    by_layer = [farthest(h, h[0][orders]) for h in found]
    read_out = farthest(found[-1].sum(1), found[-1][:1].sum(1).expand(len(orders), -1))
    here, there = found[-1][0, :, 0][orders[1]], found[-1][1, :, 0]
    return {
        "value": np.max([*by_layer, read_out]),  # nan, if one of them is
        "by layer": by_layer,
        "read-out": read_out,
        "the same bits": (found[-1] == found[-1][0][orders]).flatten(1).all(1)[1:].double().mean(),
        "here": here,
        "there": there,
    }


def in_both_precisions(net: nn.Module, through: Callable[..., list[Tensor]], *given: Tensor) -> dict[str, Any]:
    """`commuting` in double precision, and its value in single precision."""
    x, A, orders = given
    double = commuting(lambda *moved: through(net, *moved), x, A, orders)
    low = copy.deepcopy(net).float()
    single = commuting(lambda *moved: through(low, *moved), x.float(), A.float(), orders)
    return {**double, "single precision": single["value"]}


def draw_orders(ax: Any, rows: Rows) -> Columns:
    """One output number of each node or token in two orders: on the diagonal where the order does not matter.

    Scatter of the numbers computed in one order and, on the vertical axis, in another, for the network whose outputs vary
    most. The circles of the claim lie on the diagonal; the marks of the controls lie beside it.
    """
    columns: dict[str, list[Any]] = {"arm": [], "one order": [], "another": []}
    markers = iter("oxv^")
    point = max((row for row in rows if row.arm == "" and row.k == 0), key=lambda row: np.std(row.values["here"])).point
    for row in [row for row in rows if row.point == point and row.k == 0 and not row.error]:
        label = row.arm.partition(": ")[2] or "the claim"
        here, there = (np.asarray(row.values[key]) for key in ("here", "there"))
        ax.plot(here, there, next(markers), markersize=5, fillstyle="none", label=label)
        columns["arm"] += [label] * len(here)
        columns["one order"] += list(here)
        columns["another"] += list(there)
    ends = [min(columns["one order"] + columns["another"]), max(columns["one order"] + columns["another"])]
    ax.plot(ends, ends, color="0.7", linewidth=1, zorder=0)
    ax.set(xlabel="output, in one order", ylabel="in another order", aspect="equal")
    ax.legend(fontsize="small")
    return columns


def draw_errors(ax: Any, rows: Rows) -> Columns:
    """The largest error of each network: rounding in double and in single precision, and of order one in the controls.

    Logarithmic vertical axis, one place for each network. Circles between 10⁻¹⁶ and 10⁻¹⁵ for double precision, diamonds
    between 10⁻⁷ and 10⁻⁶ for single precision, and the marks of the controls between a hundredth and ten.
    """
    columns: dict[str, Any] = {"network": []}
    for row in rows:
        name = ", ".join(value for value in row.point.values() if isinstance(value, str))
        if name not in columns["network"]:
            columns["network"].append(name)
        label = row.arm.partition(": ")[2]
        series = {label: "value"} if label else {"double precision": "value", "single precision": "single precision"}
        for key, value in series.items() if not row.error else ():
            worst = columns.setdefault(key, {})
            worst[name] = max(worst.get(name, 0.0), float(row.values[value]))
    names = columns["network"]
    columns = {key: names if key == "network" else [worst[name] for name in names] for key, worst in columns.items()}
    for key, marker in zip([key for key in columns if key != "network"], "oDxv^", strict=False):
        ax.semilogy(range(len(names)), np.maximum(columns[key], 1e-17), marker, fillstyle="none", label=key)
    ax.set_xticks(range(len(names)), [name.replace(", ", ",\n").replace(" DeepSets", "\nDeepSets") for name in names])
    ax.tick_params(axis="x", labelsize="small")
    ax.set(ylabel="relative error", ylim=(5e-18, 1e3))
    ax.legend(fontsize="small", ncols=2, loc="center", bbox_to_anchor=(0.5, 0.3))
    return columns
