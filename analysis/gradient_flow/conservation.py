"""Quantities that gradient flow conserves because layers can be rescaled against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..curvature.text_table import text_table
from ..errors import ArgumentError, NumericsError, ParameterError
from ..operators.data import call, fit
from ..operators.snapshot import snapshot
from ..spectra.results import _axes
from .signals import floats

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SAME = 1e-9  # relative difference of outputs in float64 that passes for none
_TRIALS = 3

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Balance:
    r"""A conserved difference between what flows into the units of one layer and what flows out of them.

    With :math:`W, b` of layer ``into`` and :math:`V` of layer ``out``, a row of :math:`W` and a column of :math:`V` for
    each unit or channel:

    .. math:: W W^\top + b b^\top - V^\top V

    Attributes:
        into, out: names of the two layers.
        whole: the whole matrix is conserved; else its diagonal, one number for each unit.

    """

    into: str
    out: str
    whole: bool

    def sides(self, parameters: Named) -> tuple[Tensor, Tensor]:
        r""":math:`W W^\top + b b^\top` and :math:`V^\top V`, (n, n), or their diagonals, (n,); in float64."""
        rows, columns = _rows(parameters, self.into), _columns(parameters, self.out, self.into)
        if self.whole:
            return rows @ rows.T, columns @ columns.T
        return rows.square().sum(1), columns.square().sum(1)


@dataclass(frozen=True, repr=False)
class Drift:
    r"""How far a training run is from conserving what gradient flow conserves.

    .. math:: \frac{\|\Delta(A - B)\|}{\|\Delta A\| + \|\Delta B\|}, \qquad A = W W^\top + b b^\top, \quad B = V^\top V

    between the start and each point of the run: 0 for a conserved difference, at most 1; 0 where nothing has moved.

    Attributes:
        balances: the quantities.
        values: (points of the run, quantities).

    """

    balances: tuple[Balance, ...]
    values: np.ndarray

    def __repr__(self) -> str:
        header = ("into → out of", "conserved", "at the end", "largest")
        rows = [
            (f"{b.into} → {b.out}", "matrix" if b.whole else "each unit", f"{column[-1]:.2e}", f"{column.max():.2e}")
            for b, column in zip(self.balances, self.values.T, strict=True)
        ]
        return f"Drift over {len(self.values)} points\n{text_table(header, rows)}"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {"balances": [vars(b) for b in self.balances], "values": self.values.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Drift:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(Balance(**b) for b in record["balances"]), np.array(record["values"]))

    def plot(self, ax: Any = None) -> Any:
        """Each drift over the points of the run, logarithmic, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        for balance, column in zip(self.balances, self.values.T, strict=True):
            ax.semilogy(np.where(column > 0, column, np.nan), label=f"{balance.into} → {balance.out}")
        ax.set_xlabel("point of the run")
        ax.set_ylabel("change of the difference ÷ of its sides")
        ax.legend(fontsize="x-small")
        return ax


@dataclass(frozen=True, repr=False)
class Conserved:
    """The balances of a model, in the order of its layers.

    Attributes:
        balances: those that were found.
        alone: linear and convolution layers that are in none of them.

    """

    balances: tuple[Balance, ...]
    alone: tuple[str, ...]

    def __repr__(self) -> str:
        rows = [
            (f"{b.into} → {b.out}", "W Wᵀ + b bᵀ − Vᵀ V" + ("" if b.whole else ", its diagonal")) for b in self.balances
        ]
        rows += [(name, "nothing") for name in self.alone]
        return "Conserved by gradient flow\n" + text_table(("into → out of", "quantity"), rows)

    def drift(self, run: Iterable[nn.Module | Named]) -> Drift:
        """The change of every balance along a run: models, or mappings of parameters by name, the start first.

        Each point is used as it comes, so that a generator may train one model in place.

        Errors: ``ArgumentError`` for an empty run or if nothing is conserved, ``ParameterError`` for a point that lacks a
        parameter.
        """
        if not self.balances:
            raise ArgumentError(
                "drift", "a conserved quantity", "none", "No two layers can be rescaled; nothing to follow."
            )
        points = [[b.sides(_parameters(point)) for b in self.balances] for point in run]
        if not points:
            raise ArgumentError("run", "at least one point", "none", "Pass the parameters at the start and later.")
        return Drift(
            self.balances, np.array([[_change(a, b) for a, b in zip(points[0], p, strict=True)] for p in points])
        )


def _change(start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> float:
    into, out = (b - a for a, b in zip(start, end, strict=True))
    moved = float(into.norm() + out.norm())
    return float((into - out).norm()) / moved if moved else 0.0


def _parameters(point: nn.Module | Named) -> Named:
    return dict(point.named_parameters()) if isinstance(point, nn.Module) else point


def _of(parameters: Named, name: str) -> Tensor:
    if name not in parameters:
        remedy = "Pass models of the kind that was examined, or all of its parameters by name."
        raise ParameterError(name, "a parameter of every point of the run", "none of that name", remedy)
    return parameters[name].detach().to(torch.float64)


def _rows(parameters: Named, layer: str) -> Tensor:
    """[W b], a row for each unit."""
    weight = _of(parameters, f"{layer}.weight").flatten(1)
    bias = f"{layer}.bias"
    return torch.column_stack([weight, _of(parameters, bias)]) if bias in parameters else weight


def _columns(parameters: Named, layer: str, before: str) -> Tensor:
    """V, a row for each unit of the layer before: a linear layer after an image takes the positions of each channel."""
    weight, units = _of(parameters, f"{layer}.weight"), len(_of(parameters, f"{before}.weight"))
    return weight.unflatten(1, (units, -1)).transpose(0, 1).flatten(1)


def _turned(parameters: Named, into: str, out: str, turn: Tensor) -> dict[str, Tensor]:
    """M [W b] for [W b], and V M⁻¹ for V unless ``out`` is empty."""
    changed = dict(parameters)
    for name in (f"{into}.weight", f"{into}.bias"):
        if name in parameters:
            changed[name] = torch.tensordot(turn, parameters[name], dims=1)
    if out:
        weight = parameters[f"{out}.weight"]
        grouped = weight.unflatten(1, (len(turn), -1))  # (m units positions …)
        changed[f"{out}.weight"] = torch.einsum("mu...,uv->mv...", grouped, turn.inverse()).reshape(weight.shape)
    return changed


def _turns(units: int, whole: bool, like: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Random M near I: any, or diagonal and positive."""
    for _ in range(_TRIALS):
        drawn = torch.randn(units, units if whole else 1, generator=generator, dtype=torch.float64).to(like.device)
        yield torch.matrix_exp(drawn / units**0.5) if whole else drawn.exp().flatten().diag()


def _balance(
    pair: tuple[str, str], parameters: Named, run: Callable[[Named], Tensor], generator: torch.Generator
) -> Balance | None:
    """What the two layers conserve, if anything."""
    into, out = pair
    weight = parameters[f"{into}.weight"]
    units, reference = len(weight), run(parameters)
    if parameters[f"{out}.weight"].shape[1] % units:
        return None

    def same(turned: Named) -> bool:
        return bool((run(turned) - reference).norm() <= _SAME * reference.norm())

    def holds(whole: bool) -> bool:
        return all(same(_turned(parameters, into, out, turn)) for turn in _turns(units, whole, weight, generator))

    if not holds(False) or same(_turned(parameters, into, "", 2 * torch.eye(units).to(weight))):
        return None  # the last: the outputs do not depend on the layer
    return Balance(into, out, holds(True))


def conserved(model: nn.Module, inputs: Any, batch_stats: str | None = None, seed: int = 0) -> Conserved:
    r"""Find the balances of a model: differences of layers that gradient flow conserves, whatever the loss.

    .. math:: f(M [W\,b], V M^{-1}) = f([W\,b], V) \implies \frac{d}{dt} \left(W W^\top + b b^\top - V^\top V\right) = 0

    entry by entry for all invertible M, as between linear layers, and on the diagonal for diagonal M > 0, as around ReLU.
    For each ordered pair of ``nn.Linear`` and ``nn.Conv`` layers whose sizes fit, the outputs are computed again with random
    M, three times. A linear layer may follow a flattened image.

    Args:
        model: any module; it is copied, cast to float64, and not changed.
        inputs: one batch, a tensor, tuple or mapping, passed as ``model(inputs)``, ``model(*inputs)``, ``model(**inputs)``.
        batch_stats: as for :class:`~lemmata.analysis.Hessian`.
        seed: of M.

    Cost: at most eight forward passes for each ordered pair of layers that fit.

    Assumptions: the loss is a function of the outputs, without weight decay; all parameters follow its gradient at one rate.
    The invariance is tested at the model's parameters and inputs: a hard tanh that never clips passes for linear.

    Errors: those of the Hessian for a model with dropout or unsettled batch statistics; ``ParameterError`` for a model
    without parameters; ``NumericsError`` for outputs that are not finite.

    Source: Arora, Cohen & Hazan 2018, On the optimization of deep networks; Du, Hu & Lee 2018, Algorithmic regularization in
    learning deep homogeneous models; Kunin et al. 2021, Neural mechanics.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.Linear(5, 2), nn.Tanh(), nn.Linear(2, 1))
        >>> conserved(net, torch.randn(10, 3))
        Conserved by gradient flow
          into → out of                         quantity
          0 → 2          W Wᵀ + b bᵀ − Vᵀ V, its diagonal
          2 → 3                        W Wᵀ + b bᵀ − Vᵀ V
          5                                        nothing

    """
    private = snapshot(model, torch.float64, batch_stats)[0]
    parameters = {name: parameter.detach() for name, parameter in private.named_parameters()}
    if not parameters:
        raise ParameterError("model", "a module with parameters", "none", "Pass the module that is trained.")
    given = fit(inputs, "inputs", torch.float64, next(iter(parameters.values())).device, True)

    @torch.no_grad()
    def run(values: Named) -> Tensor:
        output = call(lambda *args, **kwargs: functional_call(private, dict(values), args, kwargs), given)
        return torch.cat([part.flatten() for part in floats(output)])

    if not bool(run(parameters).isfinite().all()):
        raise NumericsError(
            type(model).__name__, "finite outputs", "inf or nan", "Find the layer by la.gradient_health."
        )
    layers = [name for name, module in private.named_modules() if _is_layer(name, module, parameters)]
    generator = torch.Generator().manual_seed(seed)
    found = [b for pair in permutations(layers, 2) if (b := _balance(pair, parameters, run, generator))]
    paired = {name for b in found for name in (b.into, b.out)}
    return Conserved(tuple(found), tuple(name for name in layers if name not in paired))


def _is_layer(name: str, module: nn.Module, parameters: Named) -> bool:
    return isinstance(module, _LAYERS) and getattr(module, "groups", 1) == 1 and f"{name}.weight" in parameters
