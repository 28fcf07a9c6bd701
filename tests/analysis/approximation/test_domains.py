"""Boxes, balls, spheres and finite sets: quadratures against closed forms and random averages, bad input."""

from __future__ import annotations

from math import gamma, inf, nan, pi

import numpy as np
import pytest
import torch

import lemmata.analysis as la
from lemmata.analysis.approximation.domains import domain_of
from lemmata.analysis.errors import ArgumentError, CapacityError, DataError

f64 = torch.float64


def sphere_moment(powers: list[int]) -> float:
    """E ∏ x_i^p_i on the sphere by the gamma function; 0 where a power is odd."""
    if any(p % 2 for p in powers):
        return 0.0
    halves = [(p + 1) / 2 for p in powers]
    return (
        gamma(len(powers) / 2)
        / gamma(sum(halves))
        * float(np.prod([gamma(h) for h in halves]))
        / pi ** (len(powers) / 2)
    )


@pytest.mark.parametrize(
    "powers", [[2, 0], [4, 2], [2, 0, 0], [2, 2, 2], [4, 0, 2], [3, 1, 0], [2, 0, 2, 0], [2, 2, 2, 2]]
)
def test_spheres_and_balls_by_their_moments(powers: list[int]) -> None:
    d, order = len(powers), sum(powers) // 2 + 1
    for domain in (la.Sphere(d), la.Ball(d)):
        x, w = domain.quadrature(order)
        truth = sphere_moment(powers) * (d / (d + sum(powers)) if isinstance(domain, la.Ball) else 1)
        assert float(w.sum()) == pytest.approx(1) and bool(domain.contains(x).all())
        assert float(w @ (x ** torch.tensor(powers)).prod(1)) == pytest.approx(truth, abs=1e-13)


def test_an_order_too_low_misses() -> None:
    x, w = la.Sphere(3).quadrature(2)  # exact below degree 4
    assert float(w @ x[:, 0] ** 4) != pytest.approx(1 / 5, rel=1e-3)


@pytest.mark.parametrize("domain", [la.Box((0.0, -2.0), (1.0, 3.0)), la.Ball(3), la.Sphere(3), la.Ball(1)], ids=repr)
def test_samples_are_uniform_and_of_the_domain(domain) -> None:
    x = domain.sample(20_000, seed=3)
    nodes, w = domain.quadrature(4)
    assert x.dtype == f64 and bool(domain.contains(x).all()) and bool(domain.contains(domain.grid(8)).all())
    for f in (lambda z: z[:, -1], lambda z: z[:, 0] ** 2, lambda z: z[:, 0] ** 3 * z[:, -1]):
        drawn = f(x)
        assert abs(float(drawn.mean() - w @ f(nodes))) < 4.5 * float(drawn.std()) / 20_000**0.5
    squeezed = x[:, 0] ** 3  # another law has another average
    assert abs(float((squeezed**2).mean() - w @ nodes[:, 0] ** 2)) > 0.02
    assert torch.equal(x, domain.sample(20_000, seed=3)) and not torch.equal(x, domain.sample(20_000, seed=4))


def test_grids_hold_dyadic_numbers_and_the_boundary() -> None:
    grid = la.Box.cube(1, 0.0).grid(2**10 + 1)[:, 0]
    assert bool((grid * 2**10 == torch.arange(2**10 + 1)).all())
    assert float(la.Ball(2).grid(16).norm(dim=1).max()) == pytest.approx(1)


def test_a_finite_set_is_its_own_quadrature() -> None:
    cube = la.Finite.hypercube(4)
    x, w = cube.quadrature(1)
    assert float(w @ x.sum(1)) == 2.0 and len(x.unique(dim=0)) == 16
    assert cube.contains(torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.5, 0.0, 0.0, 0.0]], dtype=f64)).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("make", "name", "remedy"),
    [
        (lambda: la.Box((0.0,), (0.0,)), "low, high", "in order"),
        (lambda: la.Box((0.0,), (inf,)), "low, high", "finite"),
        (lambda: la.Box((), ()), "low, high", "as many"),
        (lambda: la.Box.cube(0), "dimension", "dimension=1"),
        (lambda: la.Sphere(1), "dimension", "dimension=2"),
        (lambda: la.Ball(2).quadrature(0), "order", "order=1"),
        (lambda: domain_of("the cube"), "domain", "Box(low, high), Ball(d), Sphere(d) or Finite(points)"),
    ],
)
def test_domains_that_are_none(make, name: str, remedy: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        make()
    assert caught.value.name == name and remedy in str(caught.value)


def test_rules_that_are_too_large() -> None:
    for call in (lambda: la.Box.cube(12).grid(17), lambda: la.Sphere(12).quadrature(9), lambda: la.Sphere(9).grid(20)):
        with pytest.raises(CapacityError, match=r"domain\.sample"):
            call()
    with pytest.raises(CapacityError, match="smaller cube"):
        la.Finite.hypercube(30)


@pytest.mark.parametrize(
    "points",
    [
        [[0.5]],
        torch.zeros(3, dtype=torch.long),
        torch.zeros(4, 2, dtype=f64),
        torch.tensor([[nan]], dtype=f64),
        torch.tensor([[0.5], [1.5]], dtype=f64),
    ],
)
def test_points_that_are_not_of_the_domain(points) -> None:
    with pytest.raises(DataError, match=r"points.*domain\.sample"):
        la.Box.cube(1, 0.0).checked(points)


def test_finite_sets_of_nothing_or_nan() -> None:
    for points in (torch.zeros(0, 2), torch.tensor([[nan]]), torch.zeros(3), None):
        with pytest.raises(DataError, match="float tensor"):
            la.Finite(points)


def test_many_points_are_found_in_a_finite_set() -> None:
    """The distances of all pairs would take 16 GB."""
    corners = la.Finite.hypercube(15)
    assert bool(corners.contains(-0.0 * corners.points + corners.points.flip(0)).all())
    assert not bool(corners.contains(corners.points[:3] + 0.5).any())


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_membership_has_no_scale(size: float) -> None:
    domain = la.Finite(size * torch.tensor([[1.0, 0.3], [0.0, 0.7]], dtype=torch.float64))
    assert domain.contains(domain.points.float()).tolist() == domain.contains(domain.points).tolist() == [True, True]
    assert not bool(domain.contains(domain.points * (1 + 1e-3)).any())


@pytest.mark.parametrize("make", [lambda: la.Ball(3).grid(2000), lambda: la.Ball(3).quadrature(1000)])
def test_more_shells_than_memory_holds_are_refused(make) -> None:
    with pytest.raises(CapacityError, match=r"shells.*sample"):
        make()
