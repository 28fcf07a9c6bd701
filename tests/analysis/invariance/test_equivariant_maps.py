"""Spaces of equivariant maps against closed forms: Bell numbers, circulants, filters by counting orbits, isotropic tensors."""

from __future__ import annotations

from itertools import permutations
from math import gcd, pi
from typing import Any

import pytest
import torch
from torch import Tensor

from lemmata.analysis.errors import ArgumentError, CapacityError, OperandError
from lemmata.analysis.invariance import actions
from lemmata.analysis.invariance.closure import closure, spelled
from lemmata.analysis.invariance.equivariant_maps import EquivariantMaps, equivariant_maps


def matrix(images: Any) -> Tensor:
    return torch.eye(len(images), dtype=torch.float64)[:, list(images)]


def power(m: Tensor, k: int) -> Tensor:
    product = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(k):
        product = torch.kron(product, m)
    return product


def symmetric(n: int) -> dict[str, Tensor]:
    return {"cycle": matrix([*range(1, n), 0]), "swap": matrix([1, 0, *range(2, n)])}


def powers(group: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    return {g: power(m, k) for g, m in group.items()}


def turn(angle: float) -> Tensor:
    a = torch.tensor(angle, dtype=torch.float64)
    return torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])])


@pytest.mark.parametrize(
    ("n", "k", "l", "count"), [(3, 1, 1, 2), (3, 2, 1, 5), (4, 2, 2, 15), (3, 2, 2, 14), (2, 2, 0, 2), (2, 2, 1, 4)]
)
def test_set_partitions(n: int, k: int, l: int, count: int) -> None:  # noqa: E741
    group = symmetric(n)
    maps = equivariant_maps(powers(group, k), powers(group, l), group=group)
    assert maps.dimension == count and maps.characters == pytest.approx(count) and maps.converged
    for p in permutations(range(n)):  # every element, though only two were told
        gap = power(matrix(p), l) @ maps.basis - maps.basis @ power(matrix(p), k)
        assert float(gap.abs().max()) < 1e-13
    gram = torch.einsum("iab,jab->ij", maps.basis, maps.basis)
    assert torch.allclose(gram, torch.eye(count, dtype=torch.float64), atol=1e-13)


@pytest.mark.parametrize("cycles", [(6,), (3, 2, 1), (4, 2, 2), (1, 1, 1)])
def test_commutant_of_a_permutation(cycles: tuple[int, ...]) -> None:
    one = {"p": torch.block_diag(*(matrix([*range(1, c), 0]) for c in cycles))}
    maps = equivariant_maps(one, one)
    assert maps.dimension == sum(gcd(a, b) for a in cycles for b in cycles)
    assert maps.converged


def test_commutant_of_a_shift_is_circulant() -> None:
    shift = {"shift": matrix([*range(1, 7), 0])}
    basis = equivariant_maps(shift, shift).basis
    assert float((basis - basis.roll((1, 1), (1, 2))).abs().max()) < 1e-13
    assert torch.linalg.matrix_rank(basis[:, 0]) == 7  # any first row


@pytest.mark.parametrize(("reflections", "side", "count"), [(False, 3, 3), (False, 5, 7), (True, 3, 3), (True, 5, 6)])
def test_filters_are_orbits_of_pixels(reflections: bool, side: int, count: int) -> None:
    action = actions.rotations(4, reflections)
    grid = {g: action.matrix(g, (side, side)) for g in action.elements}
    maps = equivariant_maps({g: torch.ones(1, 1) for g in grid}, grid, group=grid)
    labels = {frozenset(tuple(m[:, i].nonzero()[0].tolist()) for m in grid.values()) for i in range(side**2)}
    assert maps.dimension == count == len(labels) and maps.order == action.order


def test_isotropic_tensors() -> None:
    algebra = {}
    for i, (a, b) in enumerate([(1, 2), (2, 0), (0, 1)]):
        algebra[i] = torch.zeros(3, 3, dtype=torch.float64)
        algebra[i][a, b], algebra[i][b, a] = -1, 1
    one = torch.eye(3, dtype=torch.float64)
    pairs = {i: torch.kron(A, one) + torch.kron(one, A) for i, A in algebra.items()}
    cross = equivariant_maps(pairs, algebra, group=algebra, algebra=algebra)
    assert cross.dimension == 1 and cross.order is None and cross.characters is None and cross.converged
    x, y = torch.eye(3, dtype=torch.float64)[:2]
    image = cross.basis[0] @ torch.kron(x, y)
    assert float(image[:2].abs().max()) < 1e-14 and abs(abs(float(image[2])) - 6**-0.5) < 1e-14  # e1 × e2 = e3
    assert equivariant_maps(pairs, pairs, algebra=algebra).dimension == 3
    with pytest.raises(OperandError, match=r"rho_out: expected a homomorphism, .*\[0, 1\]"):
        equivariant_maps(algebra, {i: -A for i, A in algebra.items()}, group=algebra, algebra=algebra)


def test_neither_the_length_of_a_derivative_nor_single_precision_adds_or_loses_maps() -> None:
    J, none = turn(pi / 2), torch.zeros(2, 2, dtype=torch.float64)
    both = {"a": torch.block_diag(J, none), "b": torch.block_diag(none, J)}
    short = {"a": both["a"], "b": 1e-16 * both["b"]}
    assert (
        equivariant_maps(short, short, algebra=both).dimension
        == 4
        == equivariant_maps(both, both, algebra=both).dimension
    )
    Q = actions.haar(3, torch.Generator().manual_seed(0), reflections=True)
    plane = {"spin": torch.block_diag(J, torch.zeros(1, 1, dtype=torch.float64))}
    single = {"spin": (Q @ plane["spin"] @ Q.T).float()}
    found = equivariant_maps(single, plane, algebra=plane)
    assert found.dimension == 3 and found.converged and found.tolerance > 1e-6
    nearly = {"spin": (Q @ plane["spin"] @ Q.T + 1e-8 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))}
    assert equivariant_maps(nearly, plane, algebra=plane).dimension < 3  # in double precision that is no rounding


def test_any_basis_will_do() -> None:
    skew = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    group = symmetric(4)
    moved = {g: skew @ m @ skew.inverse() for g, m in group.items()}
    maps = equivariant_maps(moved, group, group=group)
    assert maps.dimension == 2 and maps.characters == pytest.approx(2) and maps.order == 24
    assert float((group["cycle"] @ maps.basis - maps.basis @ moved["cycle"]).abs().max()) < 1e-12


def test_projection_is_the_average_over_the_group() -> None:
    group, W = symmetric(4), torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    average = torch.stack([matrix(p) @ W @ matrix(p).T for p in permutations(range(4))]).mean(0)
    assert torch.allclose(equivariant_maps(group, group).project(W), average, atol=1e-14)


def test_what_is_no_homomorphism_is_named() -> None:
    quarter = {"turn": turn(pi / 2)}
    with pytest.raises(OperandError, match=r"rho_out: expected a homomorphism.*turn⁴ = 1") as caught:
        equivariant_maps(quarter, {"turn": turn(2 * pi / 3)}, group=quarter)
    assert "leave `group` out" in caught.value.remedy
    assert equivariant_maps(quarter, {"turn": turn(2 * pi / 3)}).order == 12  # as it stands, the group of twelve
    broken = {"cycle": torch.eye(1), "swap": torch.full((1, 1), -1.0)}  # the sign of S_4, but for the cycle
    with pytest.raises(OperandError, match="rho_in"):
        equivariant_maps(broken, symmetric(4), group=symmetric(4))


def test_doubt_is_said() -> None:
    quarter, near = {"turn": turn(pi / 2)}, {"turn": turn(pi / 2 + 1e-12)}
    doubtful = equivariant_maps(quarter, near)
    assert not doubtful.converged and doubtful.interval == (0, 2) and "not converged" in repr(doubtful)
    far = equivariant_maps(quarter, {"turn": turn(pi / 2 + 1e-3)})
    assert far.interval == (0, 0) and far.order is None  # or more than are walked through
    wide = equivariant_maps({"grow": torch.tensor([[2.0]])}, {"grow": torch.tensor([[2.0]])})
    assert wide.dimension == 1 and wide.order is None


@pytest.mark.parametrize(
    ("rho_in", "rho_out", "error", "message"),
    [
        ({"a": torch.eye(2)}, {"b": torch.eye(2)}, ArgumentError, "generators: .*Give each generator a matrix"),
        ({}, {}, ArgumentError, "at least one"),
        ({"a": torch.ones(2, 3)}, {"a": torch.eye(2)}, OperandError, r"rho_in\['a'\].*Pass action.matrix"),
        ({"a": torch.eye(2)}, {"a": torch.ones(2, 2)}, OperandError, r"rho_out\['a'\].*name derivatives in `algebra`"),
        ({"a": torch.eye(2)}, {"a": torch.tensor([[torch.nan]])}, OperandError, r"rho_out\['a'\]: expected finite"),
        ({"a": torch.eye(2), "b": torch.eye(3)}, {"a": torch.eye(1), "b": torch.eye(1)}, OperandError, "one size"),
        ({"a": torch.eye(1) * 1j}, {"a": torch.eye(1)}, OperandError, r"rho_in\['a'\]: expected a real.*real form"),
        ({"a": torch.eye(100)}, {"a": torch.eye(100)}, CapacityError, "Split the representations"),
    ],
)
def test_bad_input(rho_in: Any, rho_out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        equivariant_maps(rho_in, rho_out)


def test_records_and_refusals() -> None:
    shift = {"shift": matrix([1, 2, 0])}
    maps = equivariant_maps(shift, shift)
    again = EquivariantMaps.from_dict(maps.to_dict())
    assert torch.equal(again.basis, maps.basis) and repr(again) == repr(maps)
    none = equivariant_maps({"a": torch.eye(1)}, {"a": -torch.eye(2)})
    assert none.dimension == 0 and EquivariantMaps.from_dict(none.to_dict()).basis.shape == (0, 2, 1)
    assert none.gap[0] == 0 and none.converged
    whole = torch.eye(3, dtype=torch.int64).roll(1, 0)
    assert torch.allclose(maps.project(whole), whole.double(), atol=1e-14)  # a circulant stays
    with pytest.raises(OperandError, match=r"weight: .*\(3, 3\)"):
        maps.project(torch.ones(2, 3))
    assert len(maps.plot().lines) == 3


def test_words() -> None:
    assert spelled(("a", "b", "b", "b")) == "a·b³"
    walked = closure({"s": symmetric(4)}, ["s"], 24)
    assert walked is not None and walked.order == 24
    assert sorted(walked.traces["s"].tolist()) == [0.0] * 9 + [1.0] * 8 + [2.0] * 6 + [4.0]  # the classes of S_4
    assert closure({"s": symmetric(4)}, ["s"], 23) is None
