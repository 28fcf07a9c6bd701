"""What a recurrent network's state can hold at most, whatever its weights, and how far it can count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import Audit, row
from ..errors import ArgumentError, DataError

_KINDS = "nn.RNN, nn.GRU or nn.LSTM, or one of their cells"


@dataclass(frozen=True, repr=False)
class StateBound:
    r"""A box that the state of a recurrent network never leaves, at any length, on any input.

    Attributes:
        kind: of network.
        state: B, with :math:`\|h_t\|_\infty \le B` for all t; inf where there is none.
        growth: how much an entry of the cell may grow in a step, :math:`|c_t| \le |c_0| + t`: 1 for an LSTM; 0 without a cell.
        argument: why, in words.

    """

    kind: str
    state: float
    growth: float
    argument: str

    def reach(self, readout: nn.Linear) -> float:
        r"""Half the width of the interval that a linear read-out of the state stays in, :math:`B \max_k \sum_j |v_{kj}|`."""
        return self.state * float(readout.weight.detach().double().abs().sum(1).max())

    def counting_floor(self, readout: nn.Linear, length: int) -> float:
        r"""The least that the largest error can be when the read-out is to be t at the steps t = 1 … T: (T − 1)/2 − reach.

        Example:
            >>> readout = nn.Linear(2, 1)
            >>> _ = nn.init.constant_(readout.weight, 3.0)
            >>> state_bound(nn.GRU(1, 2)).counting_floor(readout, 101)
            44.0

        """
        return max(0.0, (length - 1) / 2 - self.reach(readout))

    def check(self, states: Tensor, cells: Tensor | None = None) -> Audit:
        """Whether recorded states, (T, …), and the cells of an LSTM from zero, (T, …), stay inside: they must, up to rounding."""
        rounding = 8 * torch.finfo(states.dtype).eps
        largest = _largest(states, "states")
        bound = f"{largest:.6g}, bound {self.state:.6g}"
        rows = [row("state above the bound", largest - self.state, rounding * max(1.0, self.state), bound)]
        if cells is not None:
            grown = cells.detach().reshape(len(cells), -1).abs().amax(1)
            steps = torch.arange(1, len(cells) + 1, dtype=cells.dtype, device=cells.device)
            ratio = _largest(grown / steps, "cells")
            rows.append(row("cell above the bound", ratio - self.growth, rounding * len(cells), f"{ratio:.6g} a step"))
        return Audit(f"the state of a {self.kind}", tuple(rows))

    def __repr__(self) -> str:
        cell = f", cell + {self.growth:g} a step" if self.growth else ""
        return f"StateBound({self.kind}: state within ±{self.state:.4g}{cell})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> StateBound:
        """The inverse of :meth:`to_dict`."""
        return cls(**record)


def state_bound(module: nn.Module, start: float = 0.0) -> StateBound:
    r"""The invariant box of a recurrent network of torch, from its equations and not from its weights.

    .. math:: \|h_t\|_\infty \le \max(1, \|h_0\|_\infty)

    A tanh network's state is a tanh. A GRU's is a mean of the state before and of a tanh, with weights z and 1 − z. An LSTM's
    is a product of a sigmoid and a tanh, but its cell :math:`c_t = f c_{t-1} + i \tanh g` has :math:`|c_t| \le |c_{t-1}| + 1`, which
    saturated gates attain: it can count, the others cannot. With a projection W the bound is the largest row sum of |W|.

    Args:
        module: nn.RNN (tanh), nn.GRU, nn.LSTM or one of their cells; of any number of layers and directions.
        start: :math:`\|h_0\|_\infty`.

    Cost: none.

    Errors: ``ArgumentError`` for another module, a ReLU state (which has no bound), or a start that is not a finite number ≥ 0.

    Source: Weiss, Goldberg & Yahav 2018, On the practical computational power of finite precision RNNs.

    Example:
        >>> state_bound(nn.LSTM(3, 5))
        StateBound(LSTM: state within ±1, cell + 1 a step)

    """
    if not isinstance(start, int | float) or not 0 <= start < inf:
        raise ArgumentError("start", "a finite number ≥ 0", repr(start), "Pass the largest entry of |h_0|.")
    if isinstance(module, nn.GRU | nn.GRUCell):
        return StateBound("GRU", max(1.0, start), 0.0, "Each state is a mean of the one before and of a tanh.")
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        rows = [w.detach().double().abs().sum(1).max() for name, w in module.named_parameters() if "weight_hr" in name]
        bound = max(map(float, rows), default=1.0)
        return StateBound(
            "LSTM", max(bound, start), 1.0, "A state is a sigmoid times a tanh; a cell adds at most a tanh a step."
        )
    if isinstance(module, nn.RNN | nn.RNNCell) and module.nonlinearity == "tanh":
        return StateBound("RNN", max(1.0, start), 0.0, "Each state is a tanh.")
    remedy = "A ReLU state grows without bound; of a larger model pass the recurrent layer."
    raise ArgumentError("module", f"{_KINDS}, with tanh", type(module).__name__, remedy)


def _largest(values: Tensor, name: str) -> float:
    found = float(values.detach().abs().max()) if values.numel() else inf
    if not isfinite(found):
        raise DataError(name, "finite numbers, at least one", "none, or NaN or infinity", "Record the states (T, …).")
    return found
