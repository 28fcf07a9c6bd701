r"""What is found of a model's equivariance: errors over the group and by module, the verdict, a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isnan
from typing import Any

from ..curvature.text_table import text_table
from ..spectra.results import Estimate, _axes

KEPT, BROKEN, UNKNOWN = "kept", "broken", "unknown"


@dataclass(frozen=True)
class LayerEquivariance:
    """One module: how the group acts on what it puts out, and how far that is from what it does.

    Attributes:
        name: with the number of the call and the type. acts: the representation with the smallest error of those that the
            shape allows; empty where it allows none.
        worst, mean: of the relative error over the elements; nan where no representation is known.
        tolerance: what rounding explains.
        status: "kept", "broken", or "unknown": no representation that is known fits, though modules that depend on this one
            keep the symmetry; or the output is zero, or the module is not called for all elements.

    """

    name: str
    acts: str
    worst: float
    mean: float
    tolerance: float
    status: str


@dataclass(frozen=True, repr=False)
class Equivariance:
    r"""What :func:`equivariance` found; its repr is one screen.

    Attributes:
        action: the group. order: its number of elements. tried: how many were tried; all, if as many.
        worst: the largest relative error ‖f(g·x) − ρ(g) f(x)‖ / ‖ρ(g) f(x)‖ over the elements tried. worst_at: where.
        mean: over the group, with an interval if elements were drawn.
        tolerance: τ = 50 √m ε κ, what rounding explains. terms: m. condition: κ.
        near: the largest error that is called approximate, as a share of the control's.
        control: the error once fixed patterns as large as the inputs are laid on all of them, which no symmetry survives;
            None where that cannot be: for a group of one element, and where such inputs give no finite output.
        interpolation: how far the group itself is from acting on these inputs, 0 for an exact action.
        layers: a row for each module, in the order of the forward pass.
        culprit: the module that breaks the symmetry; None if it is kept.
        errors: at each element tried, by its name.
        dtype, device: of the model. vmapped: whether the elements shared passes.

    """

    action: str
    order: float
    tried: int
    worst: float
    worst_at: str
    mean: Estimate
    tolerance: float
    terms: int
    condition: float
    near: float
    control: float | None
    interpolation: float
    layers: tuple[LayerEquivariance, ...]
    culprit: str | None
    errors: tuple[tuple[str, float], ...]
    dtype: str
    device: str
    vmapped: bool

    @property
    def exact(self) -> bool:
        """Whether every error is explained by rounding, of a model that would have shown another."""
        return self.worst <= self.tolerance and not self.blind

    @property
    def blind(self) -> bool:
        """Whether the control passes too: the output hardly depends on the inputs, or rounding costs as much as that."""
        return max(self.worst, inf if self.control is None else self.control) <= self.tolerance

    @property
    def verdict(self) -> str:
        """``exact``, ``approximate (error e)`` or ``broken at module X (error e)``; ``blind`` if the control passes too."""
        if self.blind:
            return "blind: the control, on inputs without the symmetry, passes too"
        if self.exact:
            return "exact"
        scale = 1.0 if self.control is None else min(1.0, self.control)
        if self.worst <= max(self.near * scale, min(self.interpolation, scale)):
            return f"approximate (error {self.worst:.2g})"
        return f"broken at {self.culprit} (error {self.worst:.2g})"

    @property
    def beyond(self) -> float:
        """The share of the group that may be worse than ``worst``, at 95 %: 0 if all elements were tried."""
        return 0.0 if self.tried == self.order else 1 - 0.05 ** (1 / self.tried)

    def __getitem__(self, name: str) -> LayerEquivariance:
        return {key: layer for layer in self.layers for key in (layer.name, layer.name.split(" (")[0])}[name]

    def __repr__(self) -> str:
        size = f"all {self.tried}" if not self.beyond else f"{self.tried} of {'∞' if self.order == inf else self.order}"
        share = f" (at 95 %, of {1 - self.beyond:.1%} of the group)" if self.beyond else ""
        low, high = self.mean.interval()
        spread = f" [{low:.1e}, {high:.1e}]" if self.beyond else ""
        parts = [
            f"Equivariance under {self.action}: {self.verdict}",
            f"worst {self.worst:.1e} at {self.worst_at}{share}, mean {self.mean.value:.1e}{spread}; {size} elements",
            f"rounding explains {self.tolerance:.1e} = 50 √{self.terms} ε κ, κ = {self.condition:.2g}, {self.dtype}",
        ]
        if self.control is not None:
            parts.append(f"control, fixed patterns laid on the inputs: {self.control:.1e}")
        if self.interpolation:
            parts.append(f"the action interpolates: off by {self.interpolation:.1e} itself")
        rows = [_cells(layer) for layer in self.layers]
        return "\n".join(
            [*parts, text_table(("module", "acts as", "worst", "mean", "status"), rows)] if rows else parts
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold, if infinities and nan are let through."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Equivariance:
        """The inverse of :meth:`to_dict`."""
        layers = tuple(LayerEquivariance(**row) for row in record["layers"])
        errors = tuple((name, error) for name, error in record["errors"])
        return cls(**{**record, "layers": layers, "errors": errors, "mean": Estimate.from_dict(record["mean"])})

    def plot(self, ax: Any = None) -> Any:
        """The worst error of each module against rounding, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        floor, known = 1e-17, [(i, row) for i, row in enumerate(self.layers) if row.acts and not isnan(row.worst)]
        colours = {KEPT: "C0", BROKEN: "C3", UNKNOWN: "0.6"}
        for status, colour in colours.items():
            chosen = [(i, max(row.worst, floor)) for i, row in known if row.status == status]
            if chosen:
                ax.plot(*zip(*chosen, strict=True), "o", color=colour, label=status)
        end = len(self.layers)
        if self.culprit is not None:
            first = next((i for i, row in enumerate(self.layers) if self.culprit.startswith(row.name)), end)
            ax.axvline(first - 0.5, color="C3", ls="--", lw=1, label="broken here")
        ax.plot([end], [max(self.worst, floor)], "s", color="C0" if self.exact else "C3", label="output")
        ticks = [*range(end), end]
        ax.plot(ticks, [row.tolerance for row in self.layers] + [self.tolerance], color="0.5", lw=1, label="rounding")
        ax.set_yscale("log")
        ax.set_ylabel("worst relative error")
        ax.set_title(self.action, parse_math=False)
        ax.set_xticks(ticks, [*(row.name for row in self.layers), "output"], rotation=90, parse_math=False)
        ax.legend(fontsize="small")
        return ax


def _cells(layer: LayerEquivariance) -> list[str]:
    numbers = ["" if isnan(x) else f"{x:.1e}" for x in (layer.worst, layer.mean)]
    return [layer.name, layer.acts or "?", *numbers, layer.status]
