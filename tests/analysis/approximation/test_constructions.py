"""Explicit networks against what they must compute, found another way; broken ones are told; bad input."""

from __future__ import annotations

import itertools
import math
from math import cos, exp, inf, nan, pi

import numpy as np
import pytest
import torch
from torch import nn

import lemmata.analysis as la
from lemmata.analysis.approximation import construction as parts
from lemmata.analysis.approximation.constructions_narrow import string
from lemmata.analysis.approximation.target_spectra import Lines
from lemmata.analysis.errors import ArgumentError, CapacityError, DataError, NumericsError

C, T = la.constructions, la.targets
f64 = torch.float64


def waves(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(9 * x[:, 0]) / 3


def alike(x: torch.Tensor) -> torch.Tensor:
    return (x * x.sum(1, keepdim=True)).sum(2, keepdim=True)


EVERY = [
    C.sawtooth(5),
    C.square(6),
    C.square(14),
    C.product(5, 3.0),
    C.polynomial([0.5, -1.0, 0.0, 2.0, -0.7], 5),
    C.identity(3, 4),
    C.max_tree(5),
    C.max_tree(11),
    C.narrow_cone(7),
    C.narrow_line(waves, 3.0, 10),
    C.memoriser(la.Box.cube(4).sample(50), torch.arange(50, dtype=f64).cos()),
    C.sigmoid_steps(waves, lambda h: 3 * h, 40),
    C.ridge_sum(T.weierstrass(0.5, 3, 3), 60),
    C.maurey_barron(T.radial_bump(2), 50),
    C.maurey_barron(T.parity(5), 50),
    C.power_sums(4),
    C.equivariant_table(alike, 3, 4),
    C.automaton([[1, 0, 2], [2, 0, 1], [1, 1, 0]], 0, [0, 1], length=6),
    C.copy_head(6, 2, 4.0),
    C.average_head(5),
    C.reflection_flow(20),
]


@pytest.mark.parametrize("construction", EVERY, ids=lambda c: c.statement)
def test_every_construction_holds_and_a_broken_one_does_not(construction: la.Construction) -> None:
    """With one layer's weights tilted the bound is broken, or the check is blind."""
    witness = construction.check()
    assert witness.holds, witness
    assert witness.interval[0] == witness.error <= witness.interval[1] < inf
    state = {name: value.clone() for name, value in construction.network.state_dict().items()}
    broken = not state  # power sums have no weights
    for parameter in construction.network.parameters():
        if not broken:
            with torch.no_grad():
                tilt = torch.linspace(-1, 1, parameter.numel(), dtype=f64).reshape(parameter.shape)
                parameter += (1 + parameter.abs().max()) * tilt
            broken = not construction.check().holds
            construction.network.load_state_dict(state)
    assert broken and construction.check() == witness


def test_a_failed_check_says_so() -> None:
    lie = la.Construction(nn.Identity(), lambda x: 2 * x[:, 0], 0.5, la.Box.cube(1), "A lie.", 5)
    witness = lie.check()
    assert not witness.holds and witness.error == 1 and witness.interval == (1.0, inf) and witness.tightness == 2
    assert "FAILS" in repr(witness) and la.Witness.from_dict(witness.to_dict()) == witness
    assert lie.check(torch.tensor([[0.25]], dtype=f64)).holds


def test_errors_in_the_mean_are_those_of_quadrature() -> None:
    """‖x − 0‖ is 1/√3 on [−1, 1], and √(1/2) on two points at 0 and 1."""
    line = la.Construction(nn.Identity(), lambda x: 0 * x[:, 0], 0.6, la.Box.cube(1), "Zero.", 4, 0.0, "l2")
    assert line.check().error == pytest.approx(1 / math.sqrt(3))
    assert line.check(torch.tensor([[0.0], [1.0]], dtype=f64)).error == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("m", [1, 2, 4, 6, 9, 12])
def test_the_square_to_the_last_bit(m: int) -> None:
    x = la.Box.cube(1, 0.0).grid(2**16 + 1)
    witness = C.square(m).check(x)
    assert witness.error == 2.0 ** (-2 * m - 2) == witness.bound and witness.rounding == 0
    knots = torch.arange(2**m + 1, dtype=f64)[:, None] / 2**m
    assert torch.equal(C.square(m)(knots), knots[:, 0] ** 2)


def test_the_square_is_not_so_good_as_the_next() -> None:
    x = la.Box.cube(1, 0.0).grid(2**12 + 1)
    assert float(C.square(3).errors(x).max()) > C.square(4).error_bound


@pytest.mark.parametrize("k", [1, 4, 10, 40])
def test_the_sawtooth_to_the_last_bit(k: int) -> None:
    """Against the distance to the nearest even multiple, in integers."""
    steps = torch.randint(0, 2**40, (500,), generator=torch.Generator().manual_seed(k))
    x = steps.to(f64) / 2**40
    half = 2 ** (41 - k)  # a full tooth, in units of 2^-40
    inside = steps % half
    truth = torch.minimum(inside, half - inside).to(f64) / (half // 2)
    assert torch.equal(C.sawtooth(k)(x[:, None]), truth)


def test_products_are_zero_where_a_factor_is() -> None:
    x = torch.tensor([[0.3, 0.0], [0.0, -0.7], [0.0, 0.0]], dtype=f64)
    assert C.product(4)(x).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("degree", [2, 3, 5, 8])
def test_polynomials_by_numpy(degree: int) -> None:
    c = np.polynomial.chebyshev.cheb2poly([0] * degree + [1]).tolist()
    construction = C.polynomial(c, 10)
    x = torch.linspace(-1, 1, 301, dtype=f64)
    truth = np.cos(degree * np.arccos(x.numpy()))
    gap = np.abs(construction(x[:, None]).numpy() - truth).max()
    assert gap <= construction.error_bound + construction.rounding
    assert gap > construction.error_bound / 1000  # the bound is of its order, not a formality
    depth = sum(isinstance(module, nn.ReLU) for module in construction.network)
    assert depth == (degree - 1) * 11
    assert max(module.out_features for module in construction.network if isinstance(module, nn.Linear)) <= 10


@pytest.mark.parametrize("d", [2, 3, 4, 5, 7, 9, 33])
def test_trees(d: int) -> None:
    tree = C.max_tree(d)
    x = torch.randint(-1000, 1000, (300, d), generator=torch.Generator().manual_seed(d)).to(f64)
    with torch.no_grad():
        assert torch.equal(tree.network(x)[:, 0], x.amax(1))
    assert sum(isinstance(module, nn.ReLU) for module in tree.network) == math.ceil(math.log2(d))


def test_identity_of_all_numbers_there_are() -> None:
    x = torch.tensor([[5e-324, -1e308, 0.1], [nan, inf, -0.0]], dtype=f64)[:1]
    with torch.no_grad():
        assert torch.equal(C.identity(3, 9).network(x), x)


@pytest.mark.parametrize("K", [3, 4, 12, 37])
def test_the_cone_by_its_directions(K: int) -> None:
    cone = C.narrow_cone(K)
    x = la.Ball(2).sample(4000)
    angles = 2 * pi * torch.arange(K, dtype=f64) / K
    truth = 1 - (x @ torch.stack([angles.cos(), angles.sin()])).amax(1)
    assert torch.allclose(cone(x), truth, rtol=0, atol=1e-12)
    assert cone.check().error == pytest.approx(1 - cos(pi / K), rel=1e-9)
    assert {module.out_features for module in list(cone.network)[:-1] if isinstance(module, nn.Linear)} == {3}


@pytest.mark.parametrize("seed", range(4))
def test_strings_of_maxima_and_minima(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    slopes, offsets = torch.randn(7, 3, generator=draws, dtype=f64), torch.randn(7, generator=draws, dtype=f64)
    kinds = ["max" if bit else "min" for bit in torch.randint(0, 2, (6,), generator=draws).tolist()]
    x = 4 * torch.rand(200, 3, generator=draws, dtype=f64) - 2
    truth = x @ slopes[0] + offsets[0]
    for k, kind in enumerate(kinds, 1):
        truth = (torch.maximum if kind == "max" else torch.minimum)(truth, x @ slopes[k] + offsets[k])
    net = parts.network_of(string(slopes.tolist(), offsets.tolist(), kinds, reach=2.0))
    with torch.no_grad():
        assert torch.allclose(net(x)[:, 0], truth, rtol=0, atol=1e-12)
        assert not torch.allclose(net(x - 3)[:, 0], truth, rtol=0, atol=1e-3)  # out of reach


def test_zigzags_meet_the_function_and_have_one_slope() -> None:
    zigzag = C.narrow_line(waves, 3.0, 16)
    x = la.Box.cube(1, 0.0).grid(16 * 64 + 1)
    values = zigzag(x)
    assert torch.allclose(values[::64], waves(x[::64]), rtol=0, atol=1e-13)
    slopes = (values.diff() * 1024).abs()
    assert float(((slopes - 3).abs() < 1e-9).double().mean()) > 0.95 and float(slopes.max()) < 3 + 1e-9


def test_memorised_labels_by_numpy() -> None:
    x, y = la.Box.cube(6).sample(40), torch.randn(40, dtype=f64, generator=torch.Generator().manual_seed(0))
    net = C.memoriser(x, y).network
    hinges = np.maximum((x @ net.direction).detach().numpy()[:, None] - net.thresholds.detach().numpy(), 0)
    assert np.linalg.matrix_rank(hinges) == 40
    assert np.allclose(hinges @ net.weights.detach().numpy(), y.numpy(), atol=1e-9)
    assert sum(p.numel() for p in net.parameters()) == 2 * 40 + 6
    assert C.memoriser(x[:1], y[:1]).check().error < 1e-12


def test_steps_follow_a_rough_function_at_its_rate() -> None:
    f = T.hoelder(0.5)
    for n in (10, 40, 160):
        witness = C.sigmoid_steps(f, lambda h: h**0.5, n, low=-1.0, high=1.0).check()
        assert witness.holds and witness.tightness > 0.3
    with pytest.raises(AssertionError):
        assert C.sigmoid_steps(f, lambda h: h, 160, low=-1.0, high=1.0).check().holds  # not its modulus


def test_ridges_in_the_plane_by_a_scaling_of_cells() -> None:
    lines = Lines(
        torch.tensor([[3.0, 1.0], [1.0, -2.0], [0.0, 0.0]], dtype=f64), torch.tensor([0.5, 0.25, 0.1], dtype=f64)
    )
    target = la.Target("waves", lines, la.Box((-1.0, 0.0), (1.0, 2.0)), spectrum=lines)
    coarse, fine = (C.ridge_sum(target, n).check() for n in (30, 120))
    assert coarse.holds and fine.holds and 3 < coarse.error / fine.error < 5


def test_sampled_waves_err_as_the_variance_says() -> None:
    """The mean square error over seeds against (m² E cos² − ‖f‖²)/n with E cos² by quadrature in ω."""
    target, n = T.radial_bump(1), 40
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x, w = target.domain.quadrature(60)
    second = (np.cos(np.outer(x[:, 0], nodes)) ** 2 @ weights) / weights.sum()
    truth = (w.numpy() @ second - target.norms.l2**2) / n
    draws, errors = torch.Generator().manual_seed(0), []
    for _ in range(400):
        omega, signs = target.spectrum.draw(n, draws)
        gap = torch.cos(x @ omega.T) @ signs / n - target(x)
        errors.append(float(w @ gap**2))
    assert np.mean(errors) == pytest.approx(truth, abs=4.5 * np.std(errors) / 20)
    assert C.maurey_barron(target, n).check().error ** 2 < 20 * truth


def test_sampling_another_spectrum_is_refused() -> None:
    wrong = la.Target("mine", lambda x: 3 + x[:, 0], la.Box.cube(1), spectrum=Lines(torch.ones(1, 1), torch.ones(1)))
    with pytest.raises(NumericsError, match="spectrum is that of the target"):
        C.maurey_barron(wrong, 10)


def test_sets_by_roots_of_polynomials() -> None:
    sums = C.power_sums(5)
    sets = torch.tensor([[0.0, 1.0, 3.0, 4.0, 7.0], [1.0, 2.0, 4.0, 5.0, 6.0]], dtype=f64)
    e = sums(sets)
    for row, truth in zip(e.numpy(), sets.numpy(), strict=True):
        signed = [1, *(row * (-1.0) ** np.arange(1, 6))]
        assert np.allclose(signed, np.poly(truth)) and np.allclose(np.sort(np.roots(signed).real), truth)
    assert torch.allclose(sums.network.decode(e), sets, atol=1e-9)
    assert torch.equal(sums.network.latent(sets[0]), torch.stack([(sets[0] ** k).sum() for k in range(1, 6)]))
    every = sums.network(sums.domain.points)
    assert len(every.unique(dim=0)) == len(sums.domain.points)  # no two sets alike
    assert len(every[:, :1].unique(dim=0)) < len(sums.domain.points)  # one number is not enough


def test_every_equivariant_function_of_three_letters() -> None:
    """A random table of cases: nothing but equivariance is used."""
    numbers = torch.randint(-9, 9, (3, 5, 5, 5), generator=torch.Generator().manual_seed(0)).to(f64)

    def tabled(x: torch.Tensor) -> torch.Tensor:
        counts = x.sum(1).long()
        return numbers[x.argmax(-1), counts[:, None, 0], counts[:, None, 1], counts[:, None, 2]][..., None]

    table = C.equivariant_table(tabled, 3, 4)
    assert table.check().error == 0
    x = table.domain.points
    for order in ([1, 0, 2, 3], [3, 1, 0, 2]):
        assert torch.equal(table(x[:, order]), table(x)[:, order])


@pytest.mark.parametrize("length", [1, 7, 200, 3000])
def test_parity_at_any_length(length: int) -> None:
    bits = torch.randint(0, 2, (20, length), generator=torch.Generator().manual_seed(length))
    odd = C.automaton([[0, 1], [1, 0]], 0, [1])
    with torch.no_grad():
        assert torch.equal(odd.network(torch.eye(2, dtype=f64)[bits]), (bits.sum(1) % 2).to(f64))


def test_an_automaton_that_divides_by_three() -> None:
    """Binary numbers, highest digit first: the state is the remainder."""
    thirds = C.automaton([[2 * r % 3, (2 * r + 1) % 3] for r in range(3)], 0, [0], length=7)
    words = thirds.domain.points
    numbers = words.argmax(-1) @ (2 ** torch.arange(6, -1, -1))
    assert torch.equal(thirds(words), (numbers % 3 == 0).to(f64))


def test_heads() -> None:
    values = torch.tensor([[0.5, -1.0, 0.25, 1.0]], dtype=f64)
    assert torch.allclose(C.copy_head(4, 1, 40.0).network(values), values.roll(1, -1), rtol=0, atol=1e-15)
    assert torch.allclose(C.copy_head(4, -2, 40.0).network(values), values.roll(-2, -1), rtol=0, atol=1e-15)
    weight = exp(3.0) / (exp(3.0) + 3)
    assert C.copy_head(4, 1, 3.0).error_bound == pytest.approx(2 * (1 - weight))
    assert torch.allclose(C.average_head(4).network(values), values.mean(-1, keepdim=True).expand(1, 4))


def test_the_flow_turns_and_does_not_cross() -> None:
    flow = C.reflection_flow(40)
    path = flow.network.path(torch.tensor([[-1.0], [0.0], [1.0]], dtype=f64)).detach()
    assert torch.allclose(path.norm(dim=-1)[:, [0, 2]], torch.ones(41, 2, dtype=f64), atol=1e-5)
    assert float((path[:, 0] - path[:, 2]).norm(dim=-1).min()) > 1.9
    exact = torch.linalg.matrix_exp(flow.network.field.detach())
    assert torch.allclose(path[-1], path[0] @ exact.T, atol=flow.error_bound)


def test_networks_are_joined_as_functions() -> None:
    draws = torch.Generator().manual_seed(0)
    shapes = [(4, 2), (3, 4)], [(5, 3), (2, 5), (1, 2)]
    f, g = (
        parts.hidden(
            *[(torch.randn(s, generator=draws, dtype=f64), torch.randn(s[0], generator=draws, dtype=f64)) for s in one]
        )
        for one in shapes
    )
    x, y = torch.randn(9, 2, generator=draws, dtype=f64), torch.randn(9, 3, generator=draws, dtype=f64)
    F, G = parts.network_of(f), parts.network_of(g)
    with torch.no_grad():
        assert torch.allclose(parts.network_of(parts.then(f, g))(x), G(F(x)), atol=1e-13)
        both = parts.network_of(parts.beside(f, g))(torch.cat([x, y], 1))
        assert torch.allclose(both, torch.cat([F(x), G(y)], 1), atol=1e-13)


def test_building_draws_nothing() -> None:
    before = torch.get_rng_state()
    C.square(3), C.automaton([[0, 1], [1, 0]], 0, [1]), C.maurey_barron(T.radial_bump(2), 10), C.reflection_flow()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: C.square(3),
        lambda: C.product(3),
        lambda: C.polynomial([0.0, 1.0, -2.0, 1.0], 3),
        lambda: C.identity(2, 3),
        lambda: C.max_tree(5),
        lambda: C.reflection_flow(),
    ],
)
def test_the_default_device_is_where_networks_are(make) -> None:
    """No step of these constructions mixes devices, nor looks at a number on another."""
    with torch.device("meta"):
        construction = make()
    assert {parameter.device.type for parameter in construction.network.parameters()} == {"meta"}


def test_pictures() -> None:
    from matplotlib.figure import Figure

    for construction in (C.square(2), C.narrow_cone(5)):
        ax = Figure().subplots()
        assert construction.plot(ax) is ax and (ax.lines or ax.collections)
    with pytest.raises(ArgumentError, match="one or two dimensions"):
        C.max_tree(3).plot(Figure().subplots())


X, Y = la.Box.cube(2).sample(5), torch.zeros(5, dtype=f64)


@pytest.mark.parametrize(
    ("make", "error", "name", "remedy"),
    [
        (lambda: C.square(0), ArgumentError, "m", "m=1"),
        (lambda: C.square(2.0), ArgumentError, "m", "m=1"),
        (lambda: C.sawtooth(41), ArgumentError, "k", "k=1"),
        (lambda: C.product(3, -1.0), ArgumentError, "radius", "radius=1.0"),
        (lambda: C.polynomial([1.0], 3), ArgumentError, "coefficients", "last one not zero"),
        (lambda: C.polynomial([1.0, nan], 3), ArgumentError, "coefficients", "finite"),
        (lambda: C.identity(0), ArgumentError, "dimension", "dimension=1"),
        (lambda: C.max_tree(1), ArgumentError, "dimension", "dimension=2"),
        (lambda: C.narrow_cone(2), ArgumentError, "directions", "directions=3"),
        (lambda: C.narrow_line(waves, 0.0, 4), ArgumentError, "lipschitz", "lipschitz=1.0"),
        (lambda: C.narrow_line(waves, 0.5, 8), DataError, "function", "larger constant"),
        (lambda: C.narrow_line(lambda x: x[:, 0] * nan, 0.5, 8), DataError, "function", "target is finite"),
        (lambda: C.memoriser(X, Y[:4]), DataError, "inputs, labels", "one label each"),
        (lambda: C.memoriser(X * nan, Y), DataError, "inputs, labels", "nan"),
        (
            lambda: C.memoriser(torch.cat([X, X[2:3]]), torch.zeros(6, dtype=f64)),
            DataError,
            "inputs",
            "Remove the repetition",
        ),
        (lambda: C.sigmoid_steps(waves, lambda h: -h, 5), ArgumentError, "modulus", "lambda h: L * h"),
        (lambda: C.sigmoid_steps(waves, lambda h: h, 1), ArgumentError, "cells", "cells=2"),
        (lambda: C.ridge_sum(T.radial_bump(2), 5), ArgumentError, "target", "spectrum=Lines"),
        (lambda: C.maurey_barron(T.square(), 5), ArgumentError, "target", "spectrum"),
        (lambda: C.maurey_barron(T.radial_bump(2), 0), ArgumentError, "units", "units=1"),
        (lambda: C.power_sums(9), ArgumentError, "size", "size=1"),
        (lambda: C.equivariant_table(lambda x: x, 2, 3), DataError, "function", "(N, n, m)"),
        (lambda: C.equivariant_table(lambda x: x[..., :1].cumsum(1), 2, 3), DataError, "function", "positions"),
        (lambda: C.equivariant_table(alike, 10, 9), CapacityError, "symbols, length", "shorter words"),
        (lambda: C.automaton([[0, 2], [1, 0]], 0, [1]), ArgumentError, "transitions", "from 0 to S − 1"),
        (lambda: C.automaton([], 0, []), ArgumentError, "transitions", "one row a state"),
        (lambda: C.copy_head(4, 1, nan), ArgumentError, "sharpness", "sharpness=20.0"),
        (lambda: C.reflection_flow(1), ArgumentError, "steps", "steps=2"),
        (lambda: C.square(2)(torch.tensor([[1.5]], dtype=f64)), DataError, "points", "domain.sample"),
    ],
)
def test_bad_input(make, error: type, name: str, remedy: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert caught.value.name == name and remedy in str(caught.value)


def test_targets_that_do_not_fit_their_network() -> None:
    odd = la.Construction(nn.Identity(), lambda x: x[:2], 0.0, la.Box.cube(2), "Odd.", 3)
    with pytest.raises(ArgumentError, match="network's outputs"):
        odd.check()
    broken = la.Construction(nn.Identity(), lambda x: x[:, 0].log(), 0.0, la.Box.cube(1), "Broken.", 3)
    with pytest.raises(NumericsError, match="errors: expected finite values"):
        broken.check()


def test_words_by_hand() -> None:
    words = C.automaton([[0, 1], [1, 0]], 0, [1], length=3).domain.points
    letters = {tuple(word) for word in words.argmax(-1).tolist()}
    assert letters == set(itertools.product((0, 1), repeat=3))


@pytest.mark.parametrize("make", [lambda: C.sawtooth(20), lambda: C.square(6), lambda: C.max_tree(3)])
def test_rounding_away_from_dyadic_points_is_no_failure(make) -> None:
    built = make()
    d = built.domain.dimension
    x = torch.linspace(0, 1, 999 * d, dtype=f64).reshape(-1, d)
    assert built.check().rounding == 0 < built.check(x).rounding
    assert built.check(x).holds
    with torch.no_grad():
        next(built.network.parameters()).mul_(1 + 1e-8)
    assert not built.check(x).holds


def test_points_in_single_precision_and_no_points() -> None:
    x = torch.tensor([[0.25], [0.75]])
    assert C.square(3)(x).dtype == f64 and C.square(3).check(x).holds
    assert C.maurey_barron(la.targets.radial_bump(2), 50).check(torch.rand(20, 2)).points == 20
    with pytest.raises(DataError, match=r"points.*sample\(100\)"):
        C.square(3).check(x[:0])


def test_functions_of_another_shape_are_refused() -> None:
    for make in (lambda: C.sigmoid_steps(lambda x: x, lambda h: h, 5), lambda: C.narrow_line(lambda x: x, 1.0, 5)):
        with pytest.raises(DataError, match=r"function.*\(n,\)"):
            make()


def test_more_words_than_memory_holds_are_refused() -> None:
    with pytest.raises(CapacityError, match=r"words.*shorter"):
        C.automaton([[0, 1, 0], [1, 0, 1]], 0, [1], length=16)
    assert C.automaton([[0, 1], [1, 0]], 0, [1], length=14).check().points == 2**14


def test_points_that_remember_their_gradient_are_memorised() -> None:
    assert C.memoriser(torch.rand(5, 2, requires_grad=True), torch.rand(5, requires_grad=True)).check().holds
