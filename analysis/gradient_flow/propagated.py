"""What is known of signals in a network at random weights: rows of layers, rates and depths, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, inf
from typing import Any

import numpy as np

from ..curvature.text_table import text_table
from ..spectra.results import Estimate, _axes
from .mean_field import Propagation

_REACH = 6  # correlation depths that train, by Schoenholz et al.
_PARTS = ("signal", "gradient", "correlation", "gradient_correlation")


@dataclass(frozen=True)
class LayerPropagation:
    r"""What passes one place, means over draws of the weights with their intervals.

    ``signal`` and ``gradient`` are means of the logarithms of q and g; ``gradient`` is relative to the output's.
    ``weighted`` tells whether the place is the output of a module with weights of its own.
    """

    name: str
    kind: str
    weighted: bool
    signal: Estimate
    gradient: Estimate
    correlation: Estimate
    gradient_correlation: Estimate


@dataclass(frozen=True)
class Depth:
    """A number of layers with its 95 % interval; infinite where the interval of the rate behind it holds zero."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, repr=False)
class SignalPropagation:
    r"""What :func:`signal_propagation` found.

    Attributes:
        layers: a row for each place, in the order of the forward pass.
        signal_rate, gradient_rate: mean change of ln q a layer on its way forward, and of ln g on its way back, ln χ₁;
            None where fewer than three modules have weights.
        correlation_rate: the logarithm of the slope of the correlation map, ln σ_w² E φ'(u)φ'(v); None where the gradients of
            the two inputs have lost all correlation.
        draws: of the weights. silent: how many of them were left out, for their signal or gradient was zero somewhere.
        theory: what infinite width predicts of the layers with weights, from the first one on; None if it was not given.
        seed, converged: see there. notes: what was not measured, and why.

    """

    layers: tuple[LayerPropagation, ...]
    signal_rate: Estimate | None
    gradient_rate: Estimate | None
    correlation_rate: Estimate | None
    draws: int
    silent: int
    theory: Propagation | None
    seed: int
    converged: bool
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> LayerPropagation:
        return {layer.name: layer for layer in self.layers}[name]

    @property
    def weighted(self) -> tuple[LayerPropagation, ...]:
        """The layers that the rates are taken from: the outputs of modules with weights."""
        return tuple(layer for layer in self.layers if layer.weighted)

    @property
    def gradient_depth(self) -> Depth | None:
        """In how many layers the gradient's second moment changes by a factor e, |ξ_∇|."""
        return _depth(self.gradient_rate, 1)

    @property
    def correlation_depth(self) -> Depth | None:
        """In how many layers a difference of correlations falls by a factor e, ξ_c."""
        return _depth(self.correlation_rate, 1)

    @property
    def trainable_depth(self) -> Depth | None:
        """Six ξ_c: the depth up to which Schoenholz et al. found that networks train."""
        return _depth(self.correlation_rate, _REACH)

    def __repr__(self) -> str:
        state = "" if self.converged else "; not converged"
        head = f"SignalPropagation: {self.draws} draws{state}"
        rates = []
        if self.signal_rate is not None and self.gradient_rate is not None:
            factors = _factor(self.signal_rate), _factor(self.gradient_rate)
            rates.append("a layer multiplies q by {} forward, g by {} back".format(*factors))
        if self.trainable_depth is not None:
            depth = self.trainable_depth
            rates.append(f"trainable up to {depth.value:.3g} layers [{depth.low:.3g}, {depth.high:.3g}] (6 ξ_c)")
        rows = [_cells(layer) for layer in self.layers]
        shown = rows if len(rows) <= 24 else [*rows[:6], ["…"] + [""] * 4, *rows[-6:]]
        header = ("layer", "signal q", "gradient g", "correlation", "of gradients")
        silent = [f"{self.silent} draws left out: zero signal or gradient"] * bool(self.silent)
        return "\n".join([head, *rates, text_table(header, shown), *silent, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        theory = self.theory and {key: value.tolist() for key, value in vars(self.theory).items()}
        return {**asdict(self), "theory": theory}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SignalPropagation:
        """The inverse of :meth:`to_dict`."""
        layers = tuple(
            LayerPropagation(**{**row, **{name: Estimate.from_dict(row[name]) for name in _PARTS}})
            for row in record["layers"]
        )
        rates = ("signal_rate", "gradient_rate", "correlation_rate")
        estimates = {name: record[name] and Estimate.from_dict(record[name]) for name in rates}
        theory = record["theory"] and Propagation(**{key: np.array(value) for key, value in record["theory"].items()})
        rest = {"layers": layers, "theory": theory, "notes": tuple(record["notes"])}
        return cls(**{**record, **estimates, **rest})

    def plot(self, ax: Any = None) -> Any:
        """Signal, gradient and 1 − correlation by layer with weights (by place where there is none), theory as lines.

        On matplotlib axes (new ones if None).
        """
        ax = _axes(ax)
        layers, theory = self.weighted or self.layers, self.theory
        places = np.arange(1, len(layers) + 1)
        lines: Sequence[Any] = [None] * 3
        if theory is not None:
            lines = theory.variance, theory.gradient, 1 - theory.correlation
        rows = (("o", "signal", exp), ("s", "gradient", exp), ("^", "correlation", lambda c: 1 - c))
        for colour, ((mark, part, shown), line) in enumerate(zip(rows, lines, strict=True)):
            ends = np.array([[shown(e) for e in getattr(one, part).interval()] for one in layers])
            middle = np.array([shown(getattr(one, part).value) for one in layers])
            bars = np.clip(np.abs(np.sort(ends, 1).T - middle), None, 0.9 * middle)
            label = {"signal": "signal", "gradient": "gradient ÷ the output's", "correlation": "1 − correlation"}[part]
            ax.errorbar(places, middle, bars, fmt=mark, markersize=4, color=f"C{colour}", label=label)
            if line is not None:
                ax.plot(places, np.maximum(line, 1e-16), color=f"C{colour}", linewidth=1)
        ax.set(xlabel="layer", ylabel="second moment, or 1 − correlation", yscale="log")
        ax.legend()
        return ax


def _depth(rate: Estimate | None, times: int) -> Depth | None:
    if rate is None:
        return None
    low, high = rate.interval()
    sizes = sorted((abs(low), abs(high)))
    farthest = inf if low <= 0 <= high else times / sizes[0]
    return Depth(times / abs(rate.value) if rate.value else inf, times / sizes[1] if sizes[1] else inf, farthest)


def _factor(rate: Estimate) -> str:
    low, high = (exp(min(end, 700)) for end in rate.interval())
    return f"{exp(min(rate.value, 700)):.4g} [{low:.4g}, {high:.4g}]"


def _cells(layer: LayerPropagation) -> list[str]:
    sizes = [f"{exp(min(one.value, 700)):.2e}" for one in (layer.signal, layer.gradient)]
    shares = [
        f"{one.value:.3f} ± {one.interval()[1] - one.value:.1g}"
        for one in (layer.correlation, layer.gradient_correlation)
    ]
    name = f"{layer.name} ({layer.kind})" if layer.kind not in layer.name else layer.name
    return [name, *sizes, *shares]
