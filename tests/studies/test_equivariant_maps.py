"""The study of equivariant maps against orbits counted one by one."""

import itertools

import numpy as np
import pytest
import torch

from lemmata.studies.invariance import equivariant_maps as study

pytestmark = pytest.mark.usefixtures("double")


def test_permutation_matrices_and_cycles():
    images = [1, 2, 0, 4, 3, 5]
    matrix = study.permutation_matrix(images)
    assert [int(matrix[:, i].argmax()) for i in range(6)] == images
    assert sorted(study.cycle_lengths(images)) == [1, 2, 3]
    assert int((torch.linalg.matrix_power(matrix, 6) - torch.eye(6)).abs().sum()) == 0


@pytest.mark.parametrize(("indices", "n"), [(2, 2), (3, 2), (4, 3), (4, 4), (5, 3)])
def test_patterns_by_enumeration(indices, n):
    tuples = itertools.product(range(n), repeat=indices)
    assert study.patterns(indices, n) == len({tuple(t.index(i) for i in t) for t in tuples})


def test_bell_numbers():
    for m, bell in [(2, 2), (3, 5), (4, 15), (5, 52)]:
        assert study.patterns(m, m) == bell
        predicted = study.bell_number_equivariant_maps.predicts.band({"k": m - 1, "l": 1, "spare": 0})
        assert np.mean(predicted) == pytest.approx(bell)


def test_layers_on_sets_and_graphs():
    claim = study.bell_number_equivariant_maps
    assert [claim(k=a, l=b, spare=0, seed=1) for a, b in [(1, 1), (2, 1), (2, 2)]] == [2, 5, 15]
    assert claim(k=2, l=2, spare=-1, seed=1) == 14
    assert claim(k=2, l=1, spare=0, seed=1, group="cyclic") == 9
    assert study.bell_number_equivariant_maps_invariants(k=2, spare=0, seed=1) == 2


@pytest.mark.parametrize("n", [5, 6])
def test_commutant_of_the_shift(n):
    assert study.shift_commutant(n=n, seed=2)["value"] == n
    assert study.shift_commutant(n=n, seed=2, permutation="random")["value"] > n
    assert study.shift_commutant_circulant(n=6, seed=2) < 1e-13
    assert study.shift_commutant_circulant(n=6, seed=2, step=2) > 0.1


def test_commutant_of_a_permutation():
    kept = [study.shift_commutant_cycles(n=6, seed=s)["value"] for s in range(5)]
    assert kept == [1] * 5
    assert any(study.shift_commutant_cycles(n=6, seed=s, signs=True)["value"] < 1 for s in range(5))


@pytest.mark.parametrize(("k", "flips"), [(3, 0), (5, 0), (3, 1), (5, 1)])
def test_filters_by_orbits_of_pixels(k, flips):
    pixels = list(itertools.product(range(k), repeat=2))

    def orbit(i, j):
        turned = [(i, j), (j, k - 1 - i), (k - 1 - i, k - 1 - j), (k - 1 - j, i)]
        return frozenset(turned + [(b, a) for a, b in turned] * flips)

    found = study.steerable_basis_dimension(k=k, flips=flips, seed=0)
    assert found["value"] == len({orbit(i, j) for i, j in pixels}) == len(found["filters"])
    assert found["not idempotent"] < 1e-14
    assert study.steerable_basis_dimension(k=k, flips=flips, seed=0, left_out=1)["not idempotent"] > 0.1


def test_filters_between_fields():
    found = study.steerable_basis_dimension_irreps(group="C4", k=3, seed=0)
    assert found["value"] == 0 and found["dimensions"][:2].tolist() == [3, 2]  # to a scalar: from one, from a sign
    assert study.steerable_basis_dimension_irreps(group="C4", k=3, seed=0, more=1)["value"] > 0
    assert study.steerable_basis_dimension_irreps(group="D2", k=3, seed=0, left_out=1)["value"] > 0
