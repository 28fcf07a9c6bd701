"""Betti numbers of alpha complexes: known shapes, ranks of boundary matrices, and what must be refused."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch

from lemmata.analysis.errors import ArgumentError, DataError
from lemmata.analysis.topology import Betti, alpha_complex, betti


def circle(n: int, radius: float = 1.0) -> np.ndarray:
    angles = 2 * np.pi * np.arange(n) / n
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def grid(step: float = 0.1, d: int = 2) -> np.ndarray:
    line = np.arange(-1, 1 + step / 2, step)
    return np.stack(np.meshgrid(*[line] * d), -1).reshape(-1, d)


def inside(points: np.ndarray, low: float, high: float) -> np.ndarray:
    size = np.linalg.norm(points, axis=1)
    return points[(low <= size) & (size <= high)]


def sphere(n: int) -> np.ndarray:
    """Fibonacci's points."""
    height = 1 - 2 * (np.arange(n) + 0.5) / n
    turn = np.pi * (1 + 5**0.5) * np.arange(n)
    side = np.sqrt(1 - height**2)
    return np.stack([side * np.cos(turn), side * np.sin(turn), height], 1)


def torus() -> np.ndarray:
    u, v = (part.ravel() for part in np.meshgrid(2 * np.pi * np.arange(40) / 40, 2 * np.pi * np.arange(16) / 16))
    return np.stack([(2 + 0.7 * np.cos(v)) * np.cos(u), (2 + 0.7 * np.cos(v)) * np.sin(u), 0.7 * np.sin(v)], 1)


def apart(shape: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([shape + 5.0 * k * np.eye(shape.shape[1])[0] for k in range(count)])


SHAPES = {
    "circle": (circle(40), (1, 1)),
    "disc": (inside(grid(), 0, 1), (1, 0)),
    "annulus": (inside(grid(), 0.5, 1), (1, 1)),
    "nine discs": (apart(inside(grid(0.2), 0, 1), 9), (9, 0)),
    "nine annuli": (apart(inside(grid(), 0.5, 1), 9), (9, 9)),
    "figure eight": (np.concatenate([circle(40), circle(40) + np.array([2, 0])]), (1, 2)),
    "sphere": (sphere(400), (1, 0, 1)),
    "ball": (inside(grid(0.2, 3), 0, 1), (1, 0, 0)),
    "torus": (torus(), (1, 2, 1)),
    "two spheres": (apart(sphere(400), 2), (2, 0, 2)),
    "circle in space": (np.concatenate([circle(40), np.zeros((40, 1))], 1), (1, 1, 0)),
    "hollow cube, all points on spheres by the dozen": (grid(0.5, 3)[np.abs(grid(0.5, 3)).max(1) == 1], (1, 0, 1)),
    "collinear": (np.stack([np.arange(10.0), 2 * np.arange(10.0)], 1), (1, 0)),
    "on a line": (np.array([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]]), (2,)),
    "two points": (np.array([[0.0, 0.0], [1.0, 1.0]]), (1, 0)),
    "one point, thrice": (np.ones((3, 3)), (1, 0, 0)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_their_numbers(name: str) -> None:
    points, numbers = SHAPES[name]
    found = betti(points)
    assert found.numbers == numbers and found.converged and found.total == sum(numbers)
    assert found.plateau[0] <= found.scale < found.plateau[1]
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(points.shape[1],) * 2))[0]
    moved = betti(torch.from_numpy(np.concatenate([points, points[:5]]) @ turned * 3 + 1))
    assert moved.numbers == numbers and moved.plateau == pytest.approx(tuple(3 * np.array(found.plateau)), rel=1e-5)


def test_the_plateau_is_known_in_closed_form() -> None:
    """A circle's loop lives from half a chord to the radius; nine discs fall apart and together at half their gaps."""
    assert betti(circle(40)).plateau == pytest.approx((np.sin(np.pi / 40), 1.0), abs=1e-8)
    assert betti(circle(40, 7.0)).plateau == pytest.approx((7 * np.sin(np.pi / 40), 7.0), abs=1e-7)
    assert betti(SHAPES["nine discs"][0]).plateau == pytest.approx((0.1 * 2**0.5, 1.5), abs=1e-7)


def test_a_scale_that_is_too_small_or_too_large_shows() -> None:
    """And is said not to be converged, where the numbers hold over a short range."""
    points = SHAPES["nine annuli"][0]
    assert betti(points, scale=0.02).numbers == (len(points), 0)
    assert betti(points, scale=0.7).numbers == (9, 0)
    assert betti(points, scale=100.0).numbers == (1, 0)
    short = betti(points, scale=0.06)
    assert short.numbers != (9, 9) and not short.converged and "not converged" in repr(short)


def rank(matrix: np.ndarray) -> int:
    """Over two elements, by elimination."""
    rows, found = [int("".join(map(str, row)), 2) for row in matrix.tolist()], 0
    while rows:
        pivot = rows.pop()
        if pivot:
            found += 1
            low = pivot & -pivot
            rows = [row ^ pivot if row & low else row for row in rows]
    return found


@pytest.mark.parametrize(("n", "d"), [(30, 2), (25, 3)])
def test_random_clouds_have_the_numbers_of_their_boundary_matrices(n: int, d: int) -> None:
    """At every tenth of the scales; and each complex holds the faces of its simplices."""
    points = np.random.default_rng(n).normal(size=(n, d))
    filtration, found = alpha_complex(points), betti(points)
    for scale in found.scales[:: max(1, len(found.scales) // 10)].tolist():
        scale += 1e-7  # betti sorts points, so shakes them otherwise
        here = [s[e <= scale] for s, e in zip(filtration.simplices, filtration.enters, strict=True)]
        index = [{tuple(row): place for place, row in enumerate(one.tolist())} for one in here]
        ranks = [0]
        for k in range(1, d + 1):
            boundary = np.zeros((len(here[k]), len(here[k - 1])), dtype=int)
            for row, simplex in enumerate(here[k].tolist()):
                for face in combinations(simplex, k):
                    boundary[row, index[k - 1][face]] = 1
            ranks.append(rank(boundary) if boundary.size else 0)
        ranks.append(0)
        truth = tuple(len(here[k]) - ranks[k] - ranks[k + 1] for k in range(d))
        assert found.at(scale) == truth


def test_simplices_enter_with_their_smallest_empty_sphere() -> None:
    """An obtuse triangle's long side waits for the triangle (Gabriel); an acute one's sides do not."""
    obtuse = alpha_complex(np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 0.5]]))
    sides = dict(zip(map(tuple, obtuse.simplices[1].tolist()), obtuse.enters[1], strict=True))
    radius = (2**2 + 0.5**2) / (2 * 0.5)  # of a chord of length 4 and height 1/2
    assert obtuse.enters[2] == pytest.approx([radius], rel=1e-7) and sides[0, 1] == pytest.approx(radius, rel=1e-7)
    assert sides[0, 2] == pytest.approx(4.25**0.5 / 2, rel=1e-7)
    acute = alpha_complex(np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.8]]))
    assert acute.enters[1].max() == pytest.approx(3.24 + 1, rel=1) and acute.enters[1].max() < acute.enters[2][0]


def test_a_result_keeps_its_numbers_and_can_be_drawn() -> None:
    found = betti(circle(12))
    again = Betti.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.numbers == found.numbers and again.plateau == found.plateau and repr(again) == repr(found)
    assert torch.equal(again.curves, found.curves) and again.at(0.5) == (1, 1) and again.at(0.0) == (12, 0)
    ax = found.plot()
    assert ax.get_xlabel() == "scale" and len(ax.get_legend().get_texts()) == 2


@pytest.mark.parametrize(
    ("points", "given", "remedy"),
    [
        (np.full((5, 2), np.nan), "5 points with nan", "Leave these points out"),
        (np.zeros((0, 2)), r"shape \(0, 2\)", "Flatten"),
        (np.zeros(5), r"shape \(5,\)", "Flatten"),
        (np.zeros((5, 2), dtype=complex), "complex128", "Flatten"),
        (np.random.default_rng(0).normal(size=(9, 4)), "4 dimensions", "rips_betti"),
    ],
)
def test_points_that_are_none(points: np.ndarray, given: str, remedy: str) -> None:
    with pytest.raises(DataError, match=rf"points: .*{given}.*{remedy}"):
        betti(points)


def test_options_outside_their_domain() -> None:
    for scale in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ArgumentError, match=r"scale: .*Pass None"):
            betti(circle(5), scale=scale)
    for factor in (1.0, float("nan")):
        with pytest.raises(ArgumentError, match=r"factor: .*Pass factor=2"):
            betti(circle(5), factor=factor)
