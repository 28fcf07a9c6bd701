"""Which measures of sharpness see the rescaling symmetry of ReLU networks, though the function stays the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ModelStateError
from ..operators.snapshot import snapshot
from ..spectra.results import _axes
from .matching import chain
from .sharpness import SharpnessPanel, sharpness
from .text_table import text_table

_EQUAL = 1e-3  # relative difference that passes for none, beside the intervals


def rescaled(model: nn.Module, scale: float, hidden: str | None = None) -> nn.Module:
    r"""A copy of a network with one hidden layer multiplied by α and the next divided by it; its function is the same.

    .. math:: (W_l, b_l, W_{l+1}) \mapsto (\alpha W_l,\ \alpha b_l,\ \alpha^{-1} W_{l+1}), \qquad \alpha > 0

    Args:
        model: a chain of ``nn.Linear`` with positively homogeneous activations (ReLU, leaky ReLU, none) between them.
        scale: α.
        hidden: the name of the hidden layer; the first if None.

    Errors: ``ArgumentError`` for a scale or hidden layer outside its domain and for a model that is no chain,
    ``ModelStateError`` if the function changed, because an activation is not homogeneous.

    Source: Dinh, Pascanu, Bengio & Bengio 2017, Sharp minima can generalize for deep nets.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))
        >>> other = rescaled(model, 2.0)
        >>> bool(other[0].weight == 2 * model[0].weight), bool(other[2].weight == model[2].weight / 2)
        (True, True)

    """
    _check_scale("scale", scale)
    names = list(chain(model))[:-1]
    hidden = names[0] if hidden is None else hidden
    if hidden not in names:
        raise ArgumentError("hidden", f"one of the hidden layers {names}", repr(hidden), "Choose one of them.")
    other = copy.deepcopy(model)
    layers = chain(other)
    first, second = layers[hidden], list(layers.values())[names.index(hidden) + 1]
    with torch.no_grad():
        first.weight.mul_(scale)
        if first.bias is not None:
            first.bias.mul_(scale)
        second.weight.div_(scale)
    _check_same(model, other, next(iter(layers.values())))
    return other


def _check_scale(name: str, scale: float) -> None:
    if isinstance(scale, bool) or not isinstance(scale, float | int) or not 0 < scale or not isfinite(scale):
        raise ArgumentError(name, "a finite number > 0", repr(scale), "Pass a factor such as 2.0.")


def _check_same(model: nn.Module, other: nn.Module, first: nn.Linear) -> None:
    """Compare the two functions on random inputs, on private copies."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, first.in_features, generator=generator, dtype=torch.float64).to(first.weight)
    with torch.no_grad():
        before, after = (snapshot(side, None, None)[0](inputs) for side in (model, other))
    eps = torch.finfo(first.weight.dtype).eps
    if not bool((after - before).abs().max() <= 1e3 * eps * before.abs().max()):
        remedy = "The activations must be ReLU, leaky ReLU or none: σ(αx) = α σ(x) for α > 0."
        given = "one that changes when a hidden layer is rescaled"
        raise ModelStateError(type(model).__name__, "positively homogeneous hidden layers", given, remedy)


@dataclass(frozen=True, repr=False)
class RescalingTable:
    """Panels of one function at several rescalings.

    Attributes:
        scales: α, ascending, 1 among them.
        panels: one for each.
        hidden: the layer that was multiplied.

    """

    scales: tuple[float, ...]
    panels: tuple[SharpnessPanel, ...]
    hidden: str

    @property
    def names(self) -> list[str]:
        """The measures."""
        return [measure.name for measure in self.panels[0].measures]

    def values(self, name: str) -> list[float]:
        """One measure at every scale."""
        return [panel[name].value for panel in self.panels]

    def invariant(self, name: str) -> bool:
        """Does a measure at every scale agree with that at 1, within the two intervals and one part in a thousand?

        A lower bound counts by its value. Agreement is no proof of invariance; disagreement disproves it.
        """
        reference = self.panels[self.scales.index(1.0)][name]
        for panel in self.panels:
            found = panel[name]
            room = reference.half_width + found.half_width + _EQUAL * abs(reference.value)
            if not abs(found.value - reference.value) <= room:
                return False
        return True

    def exponents(self, name: str) -> tuple[float, float]:
        r"""The slopes :math:`d \log |m| / d \log \alpha` between the two smallest and the two largest scales.

        nan where a value is zero.
        """
        values = self.values(name)

        def slope(i: int, j: int) -> float:
            if not values[i] or not values[j]:
                return float("nan")
            return log(abs(values[j] / values[i])) / log(self.scales[j] / self.scales[i])

        return slope(0, 1), slope(-2, -1)

    def rows(self) -> list[tuple[str, ...]]:
        """A table: measure, its value at every scale, and how it behaves."""
        table = []
        for name in self.names:
            small, large = self.exponents(name)
            verdict = "invariant" if self.invariant(name) else f"α^{small:.2f} … α^{large:.2f}"
            table.append((name, *(f"{value:.4g}" for value in self.values(name)), verdict))
        return table

    def __repr__(self) -> str:
        header = ("measure", *(f"α = {scale:g}" for scale in self.scales), "behaviour")
        return f"RescalingTable({self.hidden!r} times α, the next layer over α)\n{text_table(header, self.rows())}"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        panels = [panel.to_dict() for panel in self.panels]
        return {"scales": list(self.scales), "panels": panels, "hidden": self.hidden}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RescalingTable:
        """The inverse of :meth:`to_dict`."""
        panels = tuple(SharpnessPanel.from_dict(panel) for panel in record["panels"])
        return cls(tuple(record["scales"]), panels, record["hidden"])

    def plot(self, ax: Any = None) -> Any:
        """Each measure over its value at α = 1, on logarithmic matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        for name in self.names:
            values = self.values(name)
            reference = values[self.scales.index(1.0)]
            if reference:
                style = "o-" if self.invariant(name) else "s--"
                ax.plot(self.scales, [abs(value / reference) for value in values], style, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("scale α of the hidden layer")
        ax.set_ylabel("measure over its value at α = 1")
        ax.legend(fontsize="x-small")
        return ax


def rescaling_behaviour(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    data: Any,
    scales: Sequence[float] = (0.1, 0.3, 3.0, 10.0),
    hidden: str | None = None,
    **options: Any,
) -> RescalingTable:
    r"""The measures of :func:`sharpness` for rescaled copies of a ReLU network, all of the same function.

    Args:
        model, hidden: as for :func:`rescaled`; all copies have its function, and this is checked.
        loss, data: as for :func:`sharpness`.
        scales: factors α > 0; 1 is always added.
        options: the others of :func:`sharpness` by name.

    Cost: that of :func:`sharpness` for each scale.

    Assumptions: no ReLU is at its kink on the data: there the Hessian is not defined.

    Errors: those of :func:`rescaled` and :func:`sharpness`.

    Source: Dinh, Pascanu, Bengio & Bengio 2017, Sharp minima can generalize for deep nets.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)).double()
        >>> data = (torch.ones(1, 1).double(), torch.ones(1, 1).double())
        >>> table = rescaling_behaviour(model, torch.nn.MSELoss(), data, (100.0, 1000.0))
        >>> [f"{table.exponents(name)[1]:z.2f}" for name in ("trace", "Fisher–Rao norm")]
        ['2.00', '0.00']
        >>> table.invariant("trace"), table.invariant("Fisher–Rao norm")
        (False, True)

    """
    if isinstance(scales, str) or not isinstance(scales, Sequence) or not len(scales):
        raise ArgumentError("scales", "a sequence of numbers > 0", repr(scales), "Pass scales=(0.1, 10.0).")
    for scale in scales:
        _check_scale("scales", scale)
    chosen = tuple(sorted({1.0, *map(float, scales)}))
    if len(chosen) < 2:
        raise ArgumentError("scales", "a scale other than 1", repr(scales), "Pass scales=(0.1, 10.0).")
    copies = [rescaled(model, scale, hidden) for scale in chosen]
    panels = tuple(sharpness(other, loss, data, **options) for other in copies)
    return RescalingTable(chosen, panels, hidden or next(iter(chain(model))))
