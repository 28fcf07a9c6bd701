r"""A network of affine maps and rectifiers, written out: what a piecewise linear model computes, with bounds of rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
UNIT = np.finfo(np.float64).eps / 2  # unit roundoff
_BLOCK = 2**14


@dataclass(frozen=True)
class Track:
    """Values of some units at points, (units, points), and bounds of how far each may be from the exact one."""

    value: Array
    error: Array

    @property
    def signs(self) -> NDArray[np.int8]:
        """−1, 0 or 1; 0 where rounding hides the sign."""
        return (np.sign(self.value) * (np.abs(self.value) > self.error)).astype(np.int8)

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """Where rounding hides the sign; an exact zero is known."""
        return (np.abs(self.value) <= self.error) & (self.error > 0)


@dataclass(frozen=True)
class Affine:
    r"""b + Σ_j W_j h_j over the sources j: 0 is the input, j ≥ 1 the output of layer j.

    ``sizes`` bounds Σ |·| over the products that made W_0 and b up, where a change of coordinates rounded them; ``terms``
    is the number of terms added in a row.
    """

    weights: Mapping[int, Array]
    bias: Array
    sizes: tuple[Array, Array]
    terms: int

    @staticmethod
    def of(weights: Mapping[int, Array], bias: Array) -> Affine:
        """From exact coefficients."""
        whole = {j: w for j, w in weights.items() if j == 0 or w.any()}
        terms = sum(w.shape[1] for w in whole.values() if w.any()) + 1
        return Affine(whole, bias, (np.abs(whole[0]), np.abs(bias)), terms)

    def __call__(self, sources: Mapping[int, Track]) -> Track:
        """The values, with a bound of all rounding errors: those of the sources and those made here."""
        gamma = (self.terms + 3) * UNIT * 1.01
        value = np.repeat(self.bias[:, None], sources[0].value.shape[1], axis=1)
        error = np.repeat(gamma * self.sizes[1][:, None], value.shape[1], axis=1)
        for j, W in self.weights.items():
            source = sources[j]
            value += W @ source.value
            size = self.sizes[0] if j == 0 else np.abs(W)
            error += size @ (source.error + gamma * np.abs(source.value))
        return Track(value, error)

    def along(self, origin: Array, directions: Array) -> Affine:
        """In the coordinates t of x = origin + t · directions; origin (n,), directions (d, n)."""
        W, rest = self.weights[0], {j: w for j, w in self.weights.items() if j}
        sizes = self.sizes[0] @ np.abs(directions).T, self.sizes[0] @ np.abs(origin) + self.sizes[1]
        terms = self.terms + (W.shape[1] if W.any() else 0)
        return Affine({0: W @ directions.T, **rest}, W @ origin + self.bias, sizes, terms)


@dataclass(frozen=True)
class Layer:
    """One layer of units z ↦ (positive z for z > 0, negative z otherwise), entrywise."""

    name: str
    affine: Affine
    negative: Array
    positive: Array

    def bend(self, z: Track) -> Track:
        """The output of the units, for the values z before them."""
        out = Track(np.empty_like(z.value), np.empty_like(z.error))
        step = max(1, _BLOCK // max(z.value.shape[1], 1))  # some units at a time, to stay in the processor's cache
        for i in range(0, len(z.value), step):
            rows = slice(i, i + step)
            low, high = self.negative[rows, None], self.positive[rows, None]
            value, error = z.value[rows], z.error[rows]
            slope = np.where(value > 0, high, low)
            np.multiply(slope, value, out=out.value[rows])
            hidden = np.abs(value) <= error
            steep = np.where(hidden, np.maximum(np.abs(high), np.abs(low)), np.abs(slope))
            np.multiply(steep, error, out=out.error[rows])
            out.error[rows] += np.where((slope == 0) | (np.abs(slope) == 1), 0.0, UNIT) * np.abs(out.value[rows])
        return out


@dataclass(frozen=True)
class PiecewiseLinear:
    r"""A piecewise linear network, :math:`h_k = \phi_k(b_k + \sum_{j<k} W_{kj} h_j)`, h_0 the input, f = b + Σ_j W_j h_j.

    Attributes:
        inputs: n_0. layers: the layers of units, first to last. head: the affine map to the output.

    Example:
        >>> affine = Affine.of({0: np.array([[1.0], [-1.0]])}, np.array([-1.0, 1.0]))
        >>> relu = Layer("relu", affine, np.zeros(2), np.ones(2))
        >>> head = Affine.of({0: np.zeros((1, 1)), 1: np.array([[1.0, 1.0]])}, np.zeros(1))
        >>> PiecewiseLinear(1, (relu,), head)(np.array([[3.0], [0.0]])).value  # |x − 1|
        array([[2., 1.]])

    """

    inputs: int
    layers: tuple[Layer, ...]
    head: Affine

    def __call__(self, points: Array) -> Track:
        """The output, (outputs, points), at the points, (points, n_0)."""
        sources = {0: exact(points.T)}
        for k, layer in enumerate(self.layers, 1):
            sources[k] = layer.bend(layer.affine(sources))
        return self.head(sources)

    @property
    def units(self) -> int:
        """How many units can bend."""
        return sum(len(layer.negative) for layer in self.layers)

    def last_uses(self) -> dict[int, int]:
        """For each source the last layer that reads it; one past the last layer stands for the head."""
        readers = [*(layer.affine for layer in self.layers), self.head]
        return {j: k for k, affine in enumerate(readers, 1) for j in affine.weights}

    def along(self, origin: Array, directions: Array) -> PiecewiseLinear:
        """The network on the line or plane x = origin + t · directions, as a network of t."""
        layers = tuple(
            Layer(layer.name, layer.affine.along(origin, directions), layer.negative, layer.positive)
            for layer in self.layers
        )
        return PiecewiseLinear(len(directions), layers, self.head.along(origin, directions))


def exact(values: Array) -> Track:
    """Values without error."""
    return Track(np.array(values, dtype=np.float64), np.zeros(np.shape(values)))


@dataclass(frozen=True)
class Cut:
    """Where units vanish on segments between two points: a share λ of the way, and a bound of its error."""

    share: Array
    error: Array

    @staticmethod
    def of(start: tuple[Array, Array], end: tuple[Array, Array]) -> Cut:
        """From value and error at both ends, the values of opposite and certain sign."""
        (a, a_error), (b, b_error) = start, end
        height = np.abs(a) + np.abs(b)
        share = np.abs(a) / height
        there = (1 - share) * a_error + share * b_error + 4 * UNIT * np.minimum(np.abs(a), np.abs(b))
        least = height - a_error - b_error
        return Cut(share, np.divide(there * 1.01, least, out=np.ones_like(share), where=least > there))

    def between(self, start: tuple[Array, Array], end: tuple[Array, Array]) -> tuple[Array, Array]:
        """Value and error of other units, affine on the segments, at the cuts: the last axis runs over them."""
        (a, a_error), (b, b_error) = start, end
        value = (1 - self.share) * a + self.share * b
        slope = np.abs(b - a) + a_error + b_error
        error = (1 - self.share) * a_error + self.share * b_error + self.error * slope
        return value, error + 4 * UNIT * (np.abs(a) + np.abs(b))


def columns(track: Track, chosen: NDArray[np.intp]) -> tuple[Array, Array]:
    """Values and errors at some of the points."""
    return track.value[:, chosen], track.error[:, chosen]


def joined(tracks: Sequence[tuple[Array, Array]]) -> Track:
    """Points beside each other."""
    return Track(np.concatenate([v for v, _ in tracks], axis=1), np.concatenate([e for _, e in tracks], axis=1))
