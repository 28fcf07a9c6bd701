"""Vietoris–Rips complexes: boundary matrices by brute force, closed forms, steps along a cloud, and what is refused."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from lemmata.analysis.errors import ArgumentError, DataError
from lemmata.analysis.topology import geodesic_distances, rips_betti, rips_persistence


def between(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def circle(n: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def rank(columns: list[set[int]]) -> int:
    """Over two elements: the textbook reduction of a boundary matrix, by its lowest entries."""
    by_low: dict[int, set[int]] = {}
    for column in columns:
        while column and max(column) in by_low:
            column = column ^ by_low[max(column)]
        if column:
            by_low[max(column)] = column
    return len(by_low)


def brute(distances: np.ndarray, scale: float, dimension: int) -> tuple[int, ...]:
    simplices = [
        [s for s in combinations(range(len(distances)), k + 1) if distances[np.ix_(s, s)].max() <= scale]
        for k in range(dimension + 2)
    ]
    index = [{simplex: place for place, simplex in enumerate(one)} for one in simplices]
    ranks = [0] + [
        rank([{index[k - 1][face] for face in combinations(simplex, k)} for simplex in simplices[k]])
        for k in range(1, dimension + 2)
    ]
    return tuple(len(simplices[k]) - ranks[k] - ranks[k + 1] for k in range(dimension + 1))


@pytest.mark.parametrize("kind", ["cloud", "noisy circle", "steps"])
@pytest.mark.parametrize("dimension", [1, 2])
def test_numbers_are_those_of_the_boundary_matrices(kind: str, dimension: int) -> None:
    """Also where most distances are the same."""
    draws = np.random.default_rng(dimension)
    points = circle(13) + 0.2 * draws.normal(size=(13, 2)) if kind == "noisy circle" else draws.normal(size=(14, 3))
    distances = np.ceil(3 * between(points)) if kind == "steps" else between(points)
    found = rips_betti(distances, dimension=dimension)
    for scale in np.quantile(distances, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0]).tolist():
        assert found.at(scale) == brute(distances, scale, dimension)


def test_a_polygon_is_a_loop_until_triangles_reach_around_it() -> None:
    """Of n = 3 m points on a circle: from the side to the side of the inscribed triangle (Adamaszek & Adams 2017)."""
    found = rips_betti(between(circle(30)))
    assert found.numbers == (1, 1) and found.converged
    assert found.plateau == pytest.approx((2 * np.sin(np.pi / 30), 3**0.5), rel=1e-9)
    bars = rips_persistence(between(circle(30)), 1)
    assert len(bars.births[0]) == 30 and np.isinf(bars.deaths[0]).sum() == 1 and len(bars.births[1]) == 1
    assert rips_betti(between(circle(30)), scale=0.1).numbers == (30, 0)
    assert rips_betti(between(circle(30)), scale=1.9).numbers == (1, 0)


def test_a_sphere_has_a_cavity() -> None:
    """The eight points of a cube at scale √2: six squares' sides and diagonals, but no diagonal of the cube."""
    cube = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    found = rips_betti(between(octahedron), dimension=2, factor=1.4)
    assert found.numbers == (1, 0, 1) and found.plateau == pytest.approx((2**0.5, 2.0))
    assert rips_betti(between(cube), scale=1.0, dimension=2).numbers == (1, 5, 0)
    assert rips_betti(between(cube), scale=1.5, dimension=3).numbers == brute(between(cube), 1.5, 3)


def test_the_longest_edge_ends_the_plateau() -> None:
    whole, cut = rips_betti(between(circle(30)), 0.5), rips_betti(between(circle(30)), 0.5, longest=0.6)
    assert cut.numbers == whole.numbers and cut.plateau == pytest.approx((whole.plateau[0], 0.6))


def test_two_clouds_that_nothing_joins_stay_two() -> None:
    distances = between(np.concatenate([circle(10), circle(10) + 100]))
    distances[distances > 50] = np.inf
    assert rips_betti(distances, scale=1.0).numbers == (2, 2) and rips_betti(distances, scale=40.0).numbers == (2, 0)


@pytest.mark.parametrize(
    ("distances", "given"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros((0, 0)), "shape"),
        (np.array([[0.0, 1.0], [2.0, 0.0]]), "another half"),
        (np.array([[1.0, 1.0], [1.0, 0.0]]), "diagonal"),
        (np.array([[0.0, np.nan], [np.nan, 0.0]]), "nan"),
        (-np.ones((2, 2)) + np.eye(2), "negative"),
    ],
)
def test_matrices_of_no_distances(distances: np.ndarray, given: str) -> None:
    with pytest.raises(DataError, match=rf"distances: .*{given}.*torch\.cdist"):
        rips_betti(distances)


def test_options_outside_their_domain() -> None:
    distances = between(circle(5))
    with pytest.raises(ArgumentError, match=r"dimension: .*Pass dimension=1"):
        rips_betti(distances, dimension=4)
    with pytest.raises(ArgumentError, match=r"scale: .*Pass None"):
        rips_betti(distances, scale=-1.0)
    with pytest.raises(ArgumentError, match=r"neighbours: .*Pass neighbours"):
        geodesic_distances(torch.zeros(3, 2), neighbours=0)
    with pytest.raises(ArgumentError, match=r"landmarks: .*Pass landmarks"):
        geodesic_distances(torch.zeros(3, 2), landmarks=2.5)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"points: .*Leave these points out"):
        geodesic_distances(torch.tensor([[0.0], [torch.inf]]))


def test_steps_along_a_polygon() -> None:
    """With two neighbours each: ⌊the shorter way around⌋; with four, half of that, rounded up; at any size."""
    around = np.abs(np.arange(24)[:, None] - np.arange(24))
    around = np.minimum(around, 24 - around)
    for neighbours, reach in ((2, 1), (4, 2)):
        steps = geodesic_distances(1e-6 * circle(24), neighbours)
        order = [int(np.abs(1e-6 * circle(24) - row).sum(1).argmin()) for row in steps.landmarks.numpy()]
        truth = np.ceil(around / reach)[np.ix_(order, order)]
        assert np.array_equal(steps.distances.numpy(), truth) and steps.components == 1 and steps.cover == 0


def test_landmarks_cover_every_component() -> None:
    cloud = np.concatenate([circle(50), circle(50) + 10, circle(50) + 20])
    steps = geodesic_distances(np.concatenate([cloud, cloud]), 2, landmarks=15)
    assert steps.points == 150 and steps.components == 3 and steps.distances.shape == (15, 15)
    on_each = [int(((low < steps.landmarks[:, 0]) & (steps.landmarks[:, 0] < low + 4)).sum()) for low in (-2, 8, 18)]
    assert sum(on_each) == 15 and min(on_each) >= 4 and 5 <= steps.cover <= 12  # of 50 steps around
    assert rips_betti(steps.distances, scale=2.0 * steps.cover + 1).numbers == (3, 3)
    assert geodesic_distances(np.ones((9, 2))).points == 1
