"""The cell complex of a piecewise linear model in a convex window of a plane in input space."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DataError, NumericsError
from ..spectra.results import _axes
from .cells import Complex, Points
from .lines import finite_point
from .tracing import piecewise_linear
from .written_out import Affine, Array, PiecewiseLinear, exact

SQUARE = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
# Ottosson's matrices, from Oklab to linear sRGB
_TO_CONES = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_CHUNK = 2**21  # numbers of the units' slopes that are formed at a time


@dataclass(frozen=True, repr=False)
class PlaneRegions:
    r"""What :func:`regions_in_plane` found; coordinates are those of the plane, (s, t).

    Attributes:
        vertices: (V, 2), float64.
        edges: the two vertices of each edge, (E, 2).
        edge_layers: the layer of units, counted from 0, whose kink the edge is part of, (E,); −1 on the window's border.
        neighbours: the cells to the left and to the right of each edge, (E, 2); −1 outside of the window.
        corners, offsets: cell i has the vertices ``corners[offsets[i]:offsets[i + 1]]``, anticlockwise.
        patterns: which units are active in each cell, (F, units), bool; by a forward pass at its centre.
        slopes: the derivatives of the outputs along s and t in each cell, (F, outputs, 2).
        undecided: how many signs of units at vertices are open: hidden by rounding, or of values taken for zero. 0 proves
            the complex to be the exact one.

    """

    vertices: Tensor
    edges: Tensor
    edge_layers: Tensor
    neighbours: Tensor
    corners: Tensor
    offsets: Tensor
    patterns: Tensor
    slopes: Tensor
    undecided: int

    @property
    def regions(self) -> int:
        """F, the number of cells."""
        return len(self.offsets) - 1

    @property
    def euler(self) -> int:
        """V − E + F of the cells' own corners and sides: 1 for a complete subdivision of a convex window."""
        ahead = self._next
        sides = torch.stack([torch.minimum(self.corners, ahead), torch.maximum(self.corners, ahead)])
        return len(self.corners.unique()) - sides.unique(dim=1).shape[1] + self.regions

    @property
    def areas(self) -> Tensor:
        """Of the cells, (F,); they add up to the window's."""
        a, b = self.vertices[self.corners], self.vertices[self._next]
        first = self.vertices[self.corners[self.offsets[:-1]]].repeat_interleave(self.offsets.diff(), 0)
        a, b = a - first, b - first
        twice = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        return self.vertices.new_zeros(self.regions).index_add_(0, self._owner, twice) / 2

    @property
    def activation_patterns(self) -> int:
        """How many different patterns the cells have: as many as there are cells, for those of one pattern are convex."""
        packed = np.packbits(self.patterns.numpy(), axis=1)
        return len(np.unique(packed.view(np.dtype((np.void, packed.shape[1]))))) if packed.shape[1] else 1

    @property
    def _owner(self) -> Tensor:
        return torch.arange(self.regions, device=self.offsets.device).repeat_interleave(self.offsets.diff())

    @property
    def _next(self) -> Tensor:
        """The corner after each corner."""
        ahead = torch.arange(1, len(self.corners) + 1, device=self.corners.device)
        ahead[self.offsets[1:] - 1] = self.offsets[:-1]
        return self.corners[ahead]

    def __repr__(self) -> str:
        proof = "exact" if not self.undecided else f"{self.undecided} signs open"
        counts = f"V {len(self.vertices)} − E {len(self.edges)} + F {self.regions} = {self.euler}"
        return f"PlaneRegions({self.regions} cells; {counts}; {proof})"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PlaneRegions:
        """The inverse of :meth:`to_dict`."""
        kinds = {"vertices": torch.float64, "slopes": torch.float64, "patterns": torch.bool}
        tensors = {
            name: torch.tensor(value, dtype=kinds.get(name, torch.long))
            for name, value in record.items()
            if name != "undecided"
        }
        tensors["patterns"] = tensors["patterns"].reshape(len(record["patterns"]), -1)
        return cls(**tensors, undecided=record["undecided"])

    def plot(self, ax: Any = None, output: int = 0) -> Any:
        """The cells, coloured by the slope of an output: hue for its direction, the deeper the steeper; edges by layer.

        On matplotlib axes (new ones if None). The window's border is left out.
        """
        from matplotlib.collections import PolyCollection

        ax = _axes(ax)
        xy, offsets = self.vertices.numpy(), self.offsets.tolist()
        corners = self.corners.numpy()
        polygons = [xy[corners[a:b]] for a, b in itertools.pairwise(offsets)]
        colours = _hues(self.slopes[:, output].numpy())
        depth, fine = int(self.edge_layers.max()) + 1, min(1.0, 25 / self.regions**0.5)
        seams = "face" if fine < 0.5 else "none"  # else the edges lie over them
        ax.add_collection(PolyCollection(polygons, facecolors=colours, edgecolors=seams, linewidths=0.2))
        for layer in range(depth - 1, -1, -1):
            ends = xy[self.edges[self.edge_layers == layer].numpy()]
            ends = np.concatenate([ends, np.full_like(ends[:, :1], np.nan)], 1).reshape(-1, 2)  # the pen lifts
            shade = str(0.1 + 0.4 * layer / depth)
            ax.plot(*ends.T, color=shade, linewidth=fine * (1.2 - 0.7 * layer / depth))
        ax.set(xlim=(xy[:, 0].min(), xy[:, 0].max()), ylim=(xy[:, 1].min(), xy[:, 1].max()), xlabel="s", ylabel="t")
        ax.set_aspect("equal")
        return ax


def _hues(slopes: Array) -> Array:
    """Colours of (cells, 2) slopes, in the space Oklch: the angle is the hue, and steep cells are darker and less grey."""
    size = np.linalg.norm(slopes, axis=1)
    deep = np.argsort(np.argsort(size)) / max(len(size) - 1, 1)  # by rank: slopes have heavy tails
    light, chroma = 0.95 - 0.3 * deep, np.where(size > 0, 0.03 + 0.1 * deep, 0.0)
    a, b = chroma * slopes.T / np.where(size > 0, size, 1.0)
    cones = np.stack([light, a, b], 1) @ _TO_CONES.T
    linear = np.clip(cones**3 @ _TO_RGB.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def regions_in_plane(
    model: nn.Module,
    origin: Tensor,
    u: Tensor,
    v: Tensor,
    window: Tensor | Sequence[Sequence[float]] = SQUARE,
) -> PlaneRegions:
    r"""All linear regions of a piecewise linear model in a convex window of the plane x = origin + s u + t v.

    The kinks of the units of one layer are straight within each cell of the layers before, so that the window is cut unit by
    unit: every unit is continuous and affine on each cell, and its signs at the vertices tell which edges and cells it cuts.
    A region is a cell of all units' kinks, also where the output does not show them.

    Args:
        model: maps a batch (n, \*shape) to tensors; skip connections and convolutions are allowed.
        origin, u, v: inputs, without the batch axis; u and v not parallel.
        window: the corners of a convex polygon in (s, t), in order, (m, 2); the square ±1 by default.

    Every sign comes with a bound of the rounding errors, those of the vertices' places among them. Where none is left open the
    complex is that of the traced network (:func:`piecewise_linear`) in exact arithmetic. Kinks that differ by less than
    10⁻¹¹ of a unit's largest value are one, which counts coincident, parallel and concurrent ones right; their signs are open.

    Cost: the values of a layer's units at all vertices; some 70 µs a cell for three layers of 160 units, in float64 on the CPU.
    Memory: 16 bytes for each vertex and unit of the widest layer.

    Errors: ``ArgumentError`` that names a module which is not piecewise linear; ``DataError`` for a window that is no convex
    polygon, or a plane that is none; ``NumericsError`` for weights or points that are not finite.

    Source: Grigsby & Lindsey 2022, On transversality of bent hyperplane arrangements and the topological expressiveness of
    ReLU neural networks.

    Example:
        Three lines in general position make seven cells:

        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
        >>> for p, value in zip(model.parameters(), ([[1, 0], [0, 1], [1, 1]], [0, 0, -0.5])):
        ...     _ = p.data.copy_(torch.tensor(value))
        >>> regions_in_plane(model, torch.zeros(2), *torch.eye(2))
        PlaneRegions(7 cells; V 13 − E 19 + F 7 = 1; exact)

    """
    corners = _polygon(window)
    points = [finite_point(name, x) for name, x in (("origin", origin), ("u", u), ("v", v))]
    for name, x in zip("uv", points[1:], strict=True):
        if x.shape != points[0].shape:
            remedy = "Pass origin, u and v as inputs of one shape, without the batch axis."
            raise DataError(name, f"the shape of origin, {tuple(origin.shape)}", str(tuple(x.shape)), remedy)
    flat = torch.stack(points).reshape(3, -1).numpy()
    if np.linalg.matrix_rank(flat[1:]) < 2:
        remedy = "Pass two directions that are not parallel, such as torch.eye(2)."
        raise DataError("u, v", "two directions that span a plane", "parallel or zero ones", remedy)
    net = piecewise_linear(model, tuple(origin.shape)).along(flat[0], flat[1:])
    found, places, undecided = _enumerate(net, corners)
    return _collect(net, found, places, undecided)


def _polygon(window: Any) -> Array:
    corners = np.array(window.tolist() if isinstance(window, Tensor) else window, dtype=np.float64)
    remedy = "Pass the corners of a convex polygon in (s, t) in order, such as [[-1, -1], [1, -1], [1, 1], [-1, 1]]."
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise DataError("window", "at least three corners, shape (m, 2)", f"shape {corners.shape}", remedy)
    if not np.isfinite(corners).all():
        raise NumericsError("window", "finite corners", "nan or infinity", remedy)
    sides = np.roll(corners, -1, axis=0) - corners
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    angles = np.arctan2(turns, (sides * following).sum(axis=1))
    if not ((turns > 0).all() or (turns < 0).all()) or abs(abs(angles.sum()) - 2 * np.pi) > 1:
        raise DataError("window", "a strictly convex polygon", "one that is not", remedy)
    return corners if turns[0] > 0 else corners[::-1].copy()


def _enumerate(net: PiecewiseLinear, corners: Array) -> tuple[Complex, Array, int]:
    found, tracks, undecided = Complex(len(corners)), {0: exact(corners.T)}, 0
    last = net.last_uses()
    for k, layer in enumerate(net.layers, 1):
        z = layer.affine(tracks)
        points = Points({**{j: t for j, t in tracks.items() if j == 0 or last.get(j, 0) > k}, k: z})
        found.begin(z)
        undecided += sum(found.cut(unit, k, points) for unit in range(len(layer.negative)))
        tracks = {j: points.track(j) for j in points.tables}
        tracks[k] = layer.bend(tracks[k])
    return found, tracks[0].value.T.copy(), undecided


def _collect(net: PiecewiseLinear, found: Complex, vertices: Array, undecided: int) -> PlaneRegions:
    loops = found.loops()
    half, (side, layers) = found.half.rows, found.edges.rows[:2]
    ends, cells = half[0][np.stack([side, half[1, side]])], half[4][np.stack([side, half[1, side]])]
    sizes = np.diff(loops.offsets)
    sums = np.add.reduceat(vertices[loops.corners], loops.offsets[:-1])
    patterns, slopes = _at(net, sums / sizes[:, None])
    arrays = {
        **{"vertices": vertices, "edges": ends.T, "edge_layers": layers, "neighbours": cells.T - 1},
        **{"corners": loops.corners, "offsets": loops.offsets, "patterns": patterns, "slopes": slopes},
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return PlaneRegions(**tensors, undecided=undecided)


def _at(net: PiecewiseLinear, centres: Array) -> tuple[NDArray[np.bool_], Array]:
    """Active units and the slopes of the outputs at some points inside cells."""
    step = max(1, _CHUNK // max(net.units, 1))
    parts = [_slopes(net, centres[i : i + step]) for i in range(0, len(centres), step)]
    patterns, slopes = zip(*parts, strict=True)
    return np.concatenate(patterns), np.concatenate(slopes)


def _slopes(net: PiecewiseLinear, centres: Array) -> tuple[NDArray[np.bool_], Array]:
    """By carrying value and derivatives through the layers."""
    count = len(centres)
    line = np.zeros((2, count, 3))
    line[..., 0] = centres.T
    line[0, :, 1] = line[1, :, 2] = 1.0
    sources, active = {0: line.reshape(2, -1)}, list[NDArray[np.bool_]]()

    def forms(affine: Affine) -> Array:
        flat = np.zeros((len(affine.bias), 3 * count))
        for j, W in affine.weights.items():
            flat += W @ sources[j]
        z = flat.reshape(-1, count, 3)
        z[..., 0] += affine.bias[:, None]
        return z

    for k, layer in enumerate(net.layers, 1):
        z = forms(layer.affine)
        active.append(z[..., 0] > 0)
        steep = np.where(active[-1], layer.positive[:, None], layer.negative[:, None])
        sources[k] = (z * steep[..., None]).reshape(len(z), -1)
    patterns = np.concatenate(active).T if active else np.zeros((count, 0), dtype=bool)
    return patterns, forms(net.head)[..., 1:].transpose(1, 0, 2)
