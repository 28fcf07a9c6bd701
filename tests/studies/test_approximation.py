"""The approximation studies against closed forms, linear programming and numpy."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import integrate, optimize

from lemmata.analysis import constructions
from lemmata.analysis.approximation import affine_pieces, arrangement, crossings
from lemmata.analysis.approximation.construction import hidden, network_of
from lemmata.architectures import MLP, Law
from lemmata.studies.approximation import depth, polynomials, regions
from lemmata.studies.approximation.folds import cuts, zigzag
from lemmata.studies.claim import Grid

UNIT = Law("unit", lambda n, m: 1.0, lambda n, m: 1.0)
AXES = [(1, 0, 0), (0, 1, 0), (1, 1, -1)]


pytestmark = pytest.mark.usefixtures("double")


def random_net(widths, seed):
    return MLP(widths, activation="relu", init=UNIT, generator=torch.Generator().manual_seed(seed))


# Pieces and crossings


def test_hand_made_pieces():
    vee = network_of(hidden(([[1.0], [-1.0]], [-0.5, 0.5]), ([[1.0, 1.0]], 0.0)))  # |x − 1/2|
    first, second = affine_pieces(vee)
    assert (first.left, first.right, first.slope, first.offset) == (0, Fraction(1, 2), -1, Fraction(1, 2))
    assert (second.right, second.slope, second.offset) == (1, 1, Fraction(-1, 2))
    assert crossings([first, second], Fraction(1, 4)) == 2
    assert crossings([first, second], Fraction(1, 2)) == 0  # touched at the ends only


def test_kinks_that_cancel_are_no_pieces():
    line = network_of(hidden(([[1.0], [-1.0]], [-0.5, 0.5]), ([[1.0, -1.0]], 0.0)))  # x − 1/2
    assert len(affine_pieces(line)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_the_network(seed):
    net = random_net([1, 5, 5, 5, 1], seed)
    pieces = affine_pieces(net, Fraction(-3), Fraction(3))
    assert pieces[0].left == -3 and pieces[-1].right == 3
    for piece, following in itertools.pairwise(pieces):
        assert piece.right == following.left and piece(piece.right) == following(piece.right)
        assert piece.slope != following.slope
    for piece in pieces:
        x = float(piece.left + piece.right) / 2
        assert net(torch.tensor([x])).item() == pytest.approx(float(piece(Fraction(x))), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_sawtooth_equals_the_iterated_tent(k):
    x = torch.arange(2**k + 1) / 2**k
    by_hand = x
    for _ in range(k):
        by_hand = 1 - (2 * by_hand - 1).abs()
    assert torch.equal(constructions.sawtooth(k).network(x[:, None])[:, 0], by_hand)
    assert len(affine_pieces(constructions.sawtooth(k).network)) == 2**k


def test_a_low_tent_is_found_out():
    low = network_of(hidden(([[1.0]] * 3, [0.0, -0.5, -1.0]), ([[0.9, -1.8, 0.9]], 0.0)))
    assert crossings(affine_pieces(low)) == 0


@pytest.mark.parametrize(("teeth", "layers"), [(4, 1), (4, 3), (3, 2)])
def test_folds_multiply(teeth, layers):
    assert crossings(affine_pieces(zigzag(teeth, layers))) == teeth**layers


# Arrangements


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        (AXES, (3, 9, 7)),
        ([(1, 0, 0), (0, 1, 0), (1, 1, 0)], (1, 6, 6)),  # concurrent
        ([(1, 0, 0), (1, 0, -1), (0, 1, 0), (0, 1, -1)], (4, 12, 9)),  # a grid
    ],
)
def test_known_arrangements(lines, counts):
    found = arrangement(lines)
    assert (found.vertices, found.edges, found.cells) == counts


def test_parallel_lines_alone_are_refused():
    with pytest.raises(ValueError, match="lines.*make n . 1 cells"):
        arrangement([(1, 0, 0), (2, 0, 1)])


def test_a_coincidence_of_one_part_in_a_billion_counts():
    assert arrangement([(10**9, 0, 0), (0, 10**9, 0), (10**9, 10**9, -1)]).cells == 7


def cells_by_linear_programming(lines):
    """Sign vectors with an interior point: maximise the margin t with s_i (w_i x + b_i) ≥ t ≤ 1."""
    count = 0
    for signs in itertools.product((-1, 1), repeat=len(lines)):
        constraints = [[-s * a, -s * b, 1.0] for s, (a, b, _) in zip(signs, lines, strict=True)]
        limits = [s * c for s, (_, _, c) in zip(signs, lines, strict=True)]
        bounds = [(None, None), (None, None), (None, 1)]
        found = optimize.linprog([0, 0, -1], A_ub=constraints, b_ub=limits, bounds=bounds)
        count += found.status == 0 and -found.fun > 1e-9
    return count


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("position", ["general", "central", "parallel"])
def test_cells_by_linear_programming(seed, position):
    found = regions.zaslavsky_shallow_regions(n=5, seed=seed, position=position)
    assert found["value"] == cells_by_linear_programming(found["lines"].tolist())
    assert found["euler"] == 1


# Folds


@pytest.mark.parametrize("margin", [0.0, 1 / 16])
def test_a_fold_with_a_margin_maps_its_cube_onto_itself(margin):
    x = torch.linspace(margin, 1 - margin, 12 * 50 + 1)
    image = zigzag(4, margin=margin)(x[:, None])[:, 0].detach()
    assert float(image.min()) == pytest.approx(margin, abs=1e-12)
    assert float(image.max()) == pytest.approx(1 - margin, abs=1e-12)
    assert int((image.diff().sign().diff() != 0).sum()) == 3


@pytest.mark.parametrize("turn", [0.0, 0.5, 0.99])
def test_the_last_cuts_meet_inside(turn):
    weight, bias = map(np.array, cuts(2, 8, turn))
    for i, j in itertools.combinations(range(8), 2):
        point = np.linalg.solve(weight[[i, j]], -bias[[i, j]])
        assert (abs(point - 0.5) < 0.5 - 1 / 16).all()


def test_folds_by_sampling():
    """A fine grid finds at most as many activation patterns as there are cells, and most of them."""
    from lemmata.studies.approximation.folds import folded_arrangement

    x = torch.linspace(1 / 16, 15 / 16, 400)
    h, seen = torch.cartesian_prod(x, x), []
    for layer in folded_arrangement(2, 4, 2, 0.3)[:-1]:
        h = layer(h).detach()
        seen += [h > 0] if isinstance(layer, torch.nn.ReLU) else []
    assert len(torch.cat(seen, 1).unique(dim=0)) == 44 == regions.montufar_deep_regions(2, 4, 2, seed=0)["value"]


# Closed forms


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6, 9])
def test_yarotsky_to_the_last_digit(m):
    assert depth.yarotsky_square(m=m, seed=0)["value"].item() == 2.0 ** (-2 * m - 2)


def test_a_perturbed_weight_is_seen():
    net = constructions.square(3).network
    with torch.no_grad():
        net[2].weight[0, 0] += 1e-12
        x = torch.arange(2**10 + 1) / 2**10
        assert (net(x[:, None])[:, 0] - x**2).abs().max().item() != 2.0**-8


@pytest.mark.parametrize("neurons", [4, 16])
def test_best_shallow_error(neurons):
    x = torch.arange(2**10 + 1) / 2**10
    error = (depth.best_shallow_square(neurons)(x[:, None])[:, 0] - x**2).abs().max().item()
    assert error == pytest.approx(1 / (8 * neurons**2), rel=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_rank_by_numpy_and_by_monomials(degree):
    x = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    units = polynomials.hidden_units(x, 80, polynomials.polynomial(degree), 1, seed=0).numpy()
    powers = [p for p in itertools.product(range(degree + 1), repeat=3) if sum(p) <= degree]
    monomials = np.stack([np.prod(x.numpy() ** p, axis=1) for p in powers], axis=1)
    together = np.concatenate([units, monomials], axis=1)
    ranks = [np.linalg.matrix_rank(matrix, rtol=1e-10) for matrix in (units, monomials, together)]
    assert ranks == [math.comb(degree + 3, 3)] * 3


def test_rank_tells_degree_three_from_two():
    assert polynomials.leshno_polynomial_rank(degree=3, width=500, seed=0)["value"] != math.comb(5, 3)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4, 6, 8])
def test_legendre_tail_is_a_catalan_number(degree):
    tail = 2 / 3
    for j in range(degree + 1):
        product = np.polynomial.Polynomial([0, 1]) * np.polynomial.Legendre.basis(j).convert(
            kind=np.polynomial.Polynomial
        )
        moment = 2 * integrate.quad(product, 0, 1)[0] if j % 2 == 0 else 0
        tail -= (2 * j + 1) / 2 * moment**2
    closed = polynomials.leshno_polynomial_rank_floor.predicts.band({"degree": degree})
    assert math.sqrt(tail) == pytest.approx(sum(closed) / 2, abs=1e-9)


# Verdicts


CLAIMS = [
    depth.yarotsky_square,
    depth.telgarsky_sawtooth_pieces,
    depth.telgarsky_sawtooth_crossings,
    depth.telgarsky_sawtooth_floor,
    polynomials.leshno_polynomial_rank,
    polynomials.leshno_polynomial_rank_floor,
    regions.zaslavsky_shallow_regions,
    regions.montufar_deep_regions,
    replace(regions.linear_region_power, quick=Grid(weights=["constructed", "random"], depth=[2, 3, 4], seeds=12)),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_verdict_and_figures(claim):
    from matplotlib.figure import Figure

    result = claim.run("quick")
    assert result.verdict.name == claim.expects, str(result)
    for draw in claim.figures:
        columns = draw(Figure().subplots(), result.rows)
        assert len({len(column) for column in columns.values()}) == 1


def test_shallow_bound_and_its_control():
    found = depth.telgarsky_sawtooth_shallow_bound(m=4, seed=0)
    assert found["value"] == 5 and found["tightness"] == 1
    assert depth.telgarsky_sawtooth_shallow_bound(m=16, seed=0, layers=2)["value"] == 66
