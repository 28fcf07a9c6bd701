"""The alpha complex of points on a line, in a plane or in space, from their Delaunay triangulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay

from ..errors import NumericsError

Array = np.ndarray

_SHAKE = 1e-9  # of the cloud's extent: what brings points into general position, and all that it can change in a scale
_FLAT = 1e-7  # a cloud thinner than this share of its extent lies in a space of fewer dimensions


@dataclass(frozen=True)
class Filtration:
    """Simplices of dimension k as rows of ``simplices[k]``, (m_k, k + 1), and the scale at which each enters, (m_k,)."""

    simplices: tuple[Array, ...]
    enters: tuple[Array, ...]

    @property
    def dimension(self) -> int:
        """The highest dimension of a simplex."""
        return len(self.simplices) - 1


def alpha_complex(points: Array) -> Filtration:
    r"""The alpha filtration of distinct points in at most three dimensions.

    At scale α the complex has the shape (homotopy type) of the union of balls of radius α around the points. A simplex
    enters at the radius of its smallest circumscribed sphere where no neighbour lies inside (Gabriel), else with the
    first simplex it is a face of.

    Points are moved by 10⁻⁹ of their extent, in a fixed way: then no four lie on a circle, and no scale moves by more. A
    cloud that lies on a line or in a plane is triangulated there.

    Cost: a Delaunay triangulation, O(n log n) in the plane.

    Source: Edelsbrunner & Mücke 1994, Three-dimensional alpha shapes.

    Example:
        The two triangles of a square of side 2 are there when α reaches half its diagonal, its edges at 1:

        >>> square = alpha_complex(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]))
        >>> [len(simplices) for simplices in square.simplices], square.enters[1].round(6).tolist()
        ([4, 5, 2], [1.0, 1.0, 1.414214, 1.0, 1.0])

    """
    cloud = _general(points)
    cells = _cells(cloud)
    simplices, enters = [cells], [_spheres(cloud, cells)[1]]
    for _ in range(cells.shape[1] - 1):
        faces, value = _faces(cloud, simplices[0], enters[0])
        simplices.insert(0, faces)
        enters.insert(0, value)
    return Filtration(tuple(simplices), tuple(enters))


def _general(points: Array) -> Array:
    """Coordinates in the flat that the points span, (n, r), shaken into general position."""
    centred = points - points.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[sizes > _FLAT * max(sizes[0], 1e-300)].T if sizes[0] else centred[:, :0]
    extent = np.ptp(flat, axis=0).max(initial=0.0)
    return flat + _SHAKE * extent * np.random.default_rng(0).uniform(-1, 1, flat.shape)


def _cells(cloud: Array) -> Array:
    """The Delaunay cells, each with its vertices in order, (m, r + 1)."""
    r = cloud.shape[1]
    if r == 0:
        return np.zeros((1, 1), dtype=np.int64)
    if r == 1:
        order = np.argsort(cloud[:, 0])
        return np.sort(np.stack([order[:-1], order[1:]], 1), 1)
    made = Delaunay(cloud)
    if len(made.coplanar):
        given = f"{len(made.coplanar)} points that rounding cannot tell from others"
        raise NumericsError("points", "points apart from each other", given, "Round them and keep each once.")
    return np.sort(made.simplices.astype(np.int64), 1)


def _spheres(cloud: Array, simplices: Array) -> tuple[Array, Array]:
    """Centre and radius of the smallest sphere through the vertices of each simplex: E c = diag(E Eᵀ)/2 with least ‖c‖."""
    edges = cloud[simplices[:, 1:]] - cloud[simplices[:, :1]]  # (m, k, r)
    offset = (np.linalg.pinv(edges, rcond=1e-14) @ (0.5 * np.square(edges).sum(2, keepdims=True)))[..., 0]
    return cloud[simplices[:, 0]] + offset, np.linalg.norm(offset, axis=1)


def _faces(cloud: Array, cofaces: Array, enters: Array) -> tuple[Array, Array]:
    """The facets of simplices, each once, and the scale at which it enters."""
    size = cofaces.shape[1]
    every = np.concatenate([np.delete(cofaces, left_out, 1) for left_out in range(size)])
    opposite = np.concatenate([cofaces[:, left_out] for left_out in range(size)])
    keys = np.ravel_multi_index(tuple(every.T), (len(cloud),) * (size - 1))
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    faces = every[first]
    if size == 2:
        return faces, np.zeros(len(faces))
    earliest = np.full(len(faces), np.inf)
    np.minimum.at(earliest, which, np.tile(enters, size))
    centre, radius = _spheres(cloud, faces)
    inside = np.linalg.norm(cloud[opposite] - centre[which], axis=1) < radius[which]
    attached = np.zeros(len(faces), dtype=bool)
    np.logical_or.at(attached, which, inside)
    return faces, np.where(attached, earliest, np.minimum(radius, earliest))
