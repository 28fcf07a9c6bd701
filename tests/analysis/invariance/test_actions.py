"""Group actions against permutation matrices, closed forms and the group axioms; what is no action is refused by name."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lemmata.analysis.errors import ArgumentError, CapacityError, OperandError
from lemmata.analysis.invariance import actions


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def framed(side, border):
    """An image with zeros around."""
    x = torch.zeros(1, 1, side, side, dtype=torch.float64)
    x[..., border:-border, border:-border] = noise(side - 2 * border, side - 2 * border)
    return x


def graph():
    edges = torch.tensor([[[0, 1, 1, 3], [1, 0, 1, 0]]])  # node 2 is isolated, node 1 has a loop
    return noise(1, 4, 2), edges


CASES = {
    "torus": (actions.translations((4, 3), outputs="same"), noise(2, 1, 4, 3)),
    "signals": (actions.translations((6,)), noise(2, 1, 6)),
    "zeros": (actions.translations((7, 7), padding="zeros", reach=2, outputs="same"), framed(7, 2)),
    "C4": (actions.rotations(4, outputs="same"), noise(2, 1, 5, 5)),
    "D4": (actions.rotations(4, reflections=True, outputs="same"), noise(2, 1, 4, 4)),
    "C8, its exact part": (actions.rotations(8), noise(2, 1, 4, 4)),
    "SO(3)": (actions.motions(3, reflections=False, shifts=0.0, outputs="same"), noise(2, 5, 3)),
    "E(3), vectors": (actions.motions(3, outputs="vectors"), noise(2, 5, 3)),
    "E(2) on the second": (actions.motions(2, outputs="same").at(1), (noise(2, 5, 3), noise(2, 5, 2))),
    "S4": (actions.permutations(4, outputs="same"), noise(2, 4, 3)),
    "S9": (actions.permutations(9), noise(2, 9, 3)),
    "graph, edges": (actions.relabellings(4), graph()),
    "graph, adjacency": (actions.relabellings(4, outputs="same"), (noise(1, 4, 2), noise(1, 4, 4))),
    "cyclic": (actions.cyclic_shifts(5, outputs="same"), noise(2, 5, 3)),
    "tokens": (actions.cyclic_shifts(5), torch.arange(10).view(2, 5)),
    "reversal": (actions.reversal(outputs="same"), noise(2, 5, 3)),
    "scale": (actions.scalings(2.0), noise(2, 5)),
    "signs": (actions.signs(), noise(2, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_group_axioms(name):
    """ρ(g)ρ(h) = ρ(gh) on inputs and on outputs; inverses undo; the identity does nothing; compose is associative."""
    action, x = CASES[name]
    assert actions.homomorphism(action, x, x if name != "graph, edges" else None) < 1e-14
    some = action.elements[:20] if action.enumerable and name != "zeros" else action.sample(6)
    for g in filter(action.exact, some):
        back = action.on_inputs(action.inverse(g), action.on_inputs(g, x))
        assert actions.distance(back, x) < 1e-14
        assert actions.distance(action.on_inputs(action.identity, x), x) == 0
    g, h, k = action.sample(3)
    left, right = action.compose(action.compose(g, h), k), action.compose(g, action.compose(h, k))
    if name != "zeros":  # a window: three shifts may leave it
        assert actions.distance(action.on_inputs(left, x), action.on_inputs(right, x)) < 1e-14


@pytest.mark.parametrize("name", [n for n, (a, _) in CASES.items() if a.enumerable])
def test_elements_are_as_many_as_the_order_says_and_differ(name):
    action, x = CASES[name]
    exact = [g for g in action.elements if action.exact(g)]
    images = [action.on_inputs(g, x) for g in exact]
    assert len(action.elements) == action.order and action.elements[0] == action.identity
    assert all(actions.distance(a, b) > 1e-3 for i, a in enumerate(images) for b in images[:i])


def test_matrices_are_those_of_permutations():
    shift = actions.translations((4,)).matrix((1,), (4,))
    assert torch.equal(shift, torch.eye(4, dtype=torch.float64).roll(1, 0))
    turn = actions.rotations(4).matrix((0, 1), (2, 2))  # a b / c d → b d / a c
    assert torch.equal(turn @ torch.arange(4.0, dtype=torch.float64), torch.tensor([1.0, 3, 0, 2], dtype=torch.float64))
    g = (2, 0, 1)
    P = actions.permutations(3).matrix(g, (3, 1))
    assert all(P[g[i], i] == 1 for i in range(3)) and P.sum() == 3


def test_relabelled_graph_has_the_same_edges():
    """The list of edges and the adjacency, renamed apart, describe the same graph."""
    x, edges = graph()
    A = torch.zeros(1, 4, 4, dtype=torch.float64)
    A[0, edges[0, 1], edges[0, 0]] = 1
    g = (2, 0, 3, 1)
    action = actions.relabellings(4)
    (_, B), (_, renamed) = action.on_inputs(g, (x, A)), action.on_inputs(g, (x, edges))
    C = torch.zeros_like(A)
    C[0, renamed[0, 1], renamed[0, 0]] = 1
    assert torch.equal(B, C) and not torch.equal(B, A)


def test_quarter_turns_by_interpolation_are_exact():
    """grid_sample at 90° is rot90: the two channels agree on direction and centre."""
    from lemmata.analysis.invariance.action_grids import _turned

    x = noise(1, 2, 6, 6)
    for m in range(1, 4):
        found = _turned((0, m * 1_000_000 + 1), x, 4_000_000)  # a millionth of a quarter turn off: interpolated
        assert actions.distance(found, x.rot90(m, (-2, -1))) < 1e-4


def test_interpolation_error_falls_with_resolution_and_is_zero_at_quarter_turns():
    def blob(side):
        u = (torch.arange(side, dtype=torch.float64) * 2 + 1) / side - 1
        return torch.exp(-8 * ((u[:, None] - 0.2) ** 2 + u[None] ** 2))[None, None]

    errors = [actions.interpolation(actions.rotations(8), blob(n)) for n in (16, 32, 64)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2) and errors[1] / errors[2] == pytest.approx(4, rel=0.2)
    assert actions.interpolation(actions.rotations(4), blob(16)) == 0


def test_haar_measure():
    """Of SO(3): tr Q = 1 + 2 cos θ where θ has density (1 − cos θ)/π; of O(2): half of the determinants are −1."""
    turns = actions.motions(3, reflections=False, shifts=0.0).sample(2000)
    traces = torch.stack([Q.trace() for Q, _ in turns])
    angles = ((traces - 1) / 2).clamp(-1, 1).arccos().numpy()
    assert stats.kstest(angles, lambda t: (t - np.sin(t)) / math.pi).pvalue > 1e-3
    flips = sum(float(torch.linalg.det(Q)) < 0 for Q, _ in actions.motions(2).sample(2000))
    assert stats.binomtest(flips, 2000).pvalue > 1e-3


def test_orders_are_drawn_uniformly():
    counts = torch.zeros(6)
    for g in actions.permutations(3).sample(3000):
        counts[actions.permutations(3).elements.index(g)] += 1
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


# What is no action


def test_not_a_homomorphism_is_named():
    from dataclasses import replace

    wrong = replace(actions.rotations(4), compose=lambda g, h: (0, (g[1] - h[1]) % 4))
    with pytest.raises(OperandError, match=r"rotations C4 on inputs.*ρ\(g\)ρ\(h\) = ρ\(gh\).*g = .*Correct"):
        actions.homomorphism(wrong, noise(1, 1, 3, 3))
    outputs = actions.signs(outputs=lambda g, y: y if g == 1 else 2 * y)
    with pytest.raises(OperandError, match="on outputs"):
        actions.homomorphism(outputs, noise(1, 2), noise(1, 2))


def test_a_known_symmetry_of_elements_alone():
    half = actions.finite("half", (0, 1), lambda g, x: x.rot90(g, (-2, -1)))  # 90° twice is no element
    with pytest.raises(OperandError, match="half on inputs.*complete the group"):
        actions.homomorphism(half, noise(1, 1, 3, 3))
    whole = actions.finite("all", range(4), lambda g, x: x.rot90(g, (-2, -1)))
    assert actions.homomorphism(whole, noise(1, 1, 3, 3)) == 0


def test_a_projection_is_no_group():
    """It satisfies ρ(g)ρ(h) = ρ(gh) with its only element."""
    blur = actions.finite("blur", (0,), lambda g, x: x.mean(-1, keepdim=True).expand_as(x))
    with pytest.raises(OperandError, match=r"blur on inputs: expected ρ\(e\) = 1.*identity first"):
        actions.homomorphism(blur, noise(2, 4))
    backwards = actions.finite("mirror", (True, False), lambda g, x: x.flip(-1) if g else x)
    with pytest.raises(OperandError, match="identity first"):
        actions.homomorphism(backwards, noise(2, 4))


def test_symmetric_inputs_leave_the_product_to_the_outputs():
    """On a palindrome both elements do the same, on the outputs they do not."""
    mirror = actions.finite("mirror", (False, True), lambda g, x: x.flip(-1) if g else x, "same")
    palindrome = torch.tensor([[1.0, 2, 2, 1]], dtype=torch.float64)
    assert actions.homomorphism(mirror, palindrome, noise(1, 4)) == 0
    thrice = actions.finite("mirror", (False, True), lambda g, x: x.flip(-1) if g else x, lambda g, y: (1 + g) * y)
    with pytest.raises(OperandError, match="mirror on outputs"):
        actions.homomorphism(thrice, palindrome, noise(1, 4))


def test_the_exact_part_of_a_fine_group_is_checked_whole():
    """Four of 240 rotations are exact: random pairs would meet none of them."""
    from dataclasses import replace

    wrong = replace(
        actions.rotations(240), compose=lambda g, h: (0, 60) if g == h == (0, 180) else (0, (g[1] + h[1]) % 240)
    )
    with pytest.raises(OperandError, match="g = 270°, h = 270°"):
        actions.homomorphism(wrong, noise(1, 1, 3, 3))


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e200])
def test_distances_do_not_depend_on_the_unit(scale):
    a, b = noise(5), noise(5, seed=1)
    assert actions.distance(scale * a, scale * b) == pytest.approx(float((a - b).norm() / b.norm()), rel=1e-12)


def test_motions_that_shift_have_no_matrix():
    g = actions.motions(2).sample(1)[0]
    with pytest.raises(OperandError, match=r"E\(2\): expected a linear action.*shifts=0"):
        actions.motions(2).matrix(g, (3, 2))
    Q = actions.motions(2, shifts=0.0).matrix((g[0], 0 * g[1]), (2,))
    assert torch.equal(Q, g[0])


def test_grids_among_three_axes_and_two():
    """Tokens whose width divides the image's side are no map; channels whose number divides it are no signal."""
    ways = dict(actions.translations((8, 8)).features((1, 16, 8)))
    x = noise(1, 8, 4, 4)  # 16 patches of 2 × 2 pixels
    moved = ways["tokens, 2 times coarser"]((2, 4), x.flatten(2).mT)
    assert torch.equal(moved, x.roll((1, 2), (-2, -1)).flatten(2).mT)
    assert [name for name, _ in actions.translations((12,)).features((2, 4))][:2] == [
        "map, 3 times coarser",
        "invariant",
    ]
    for action in (actions.translations((4, 4)), actions.rotations(4), actions.motions(3)):
        assert [name for name, _ in action.features((2,))] == ["invariant"] == [name for name, _ in action.features(())]
    flat = dict(actions.rotations(4).features((1, 18)))["flattened map of 3×3"]
    image = noise(1, 2, 3, 3)
    assert torch.equal(flat((0, 1), image.flatten(1)), image.rot90(1, (-2, -1)).flatten(1))


def test_nodes_of_one_graph_without_a_batch():
    ways = dict(actions.relabellings(3).features((3, 5)))
    x, g = noise(3, 5), (1, 2, 0)
    assert torch.equal(ways["axis 0"](g, x), x[[2, 0, 1]])
    assert "axis 0" not in dict(actions.permutations(3).features((3, 5)))  # examples come first
    assert "axes (1, 2)" in dict(actions.relabellings(3).features((3, 3, 3)))  # as many graphs as nodes


def test_half_precision_shifts_by_fractions():
    map_ = dict(actions.translations((6, 6)).features((1, 2, 3, 3)))["map, 2 times coarser"]
    x = noise(1, 2, 3, 3)
    assert actions.distance(map_((1, 0), x.bfloat16()), map_((1, 0), x)) < 0.02


@pytest.mark.parametrize(
    ("action", "inputs", "text"),
    [
        (actions.rotations(4), noise(1, 1, 4, 5), r"square images.*\(1, 1, 4, 5\).*[Cc]rop"),
        (actions.translations((4, 4)), noise(1, 1, 4, 5), r"translations.*Pass sides=\(4, 5\)"),
        (actions.translations((5, 5), padding="zeros", reach=1), noise(1, 1, 5, 5), "border of 1 zeros.*Pad"),
        (actions.motions(3), noise(1, 4, 2), r"E\(3\).*coordinates.*Pass dim"),
        (actions.permutations(4), noise(1, 5, 2), "S4.*4 entries on axis 1"),
        (actions.relabellings(4), (noise(1, 4, 2), torch.tensor([[[0], [4]]])), "nodes 0 … 3.*isolated"),
        (actions.relabellings(4), (noise(1, 4, 2), noise(1, 3, 3)), "an adjacency.*isolated"),
        (actions.relabellings(4), (noise(1, 4, 2), torch.tensor([[0, 1, 2]])), "list of edges.*sources"),
        (actions.motions(2).at(1), noise(1, 2), "a tuple of more than 1.*Leave"),
        (
            actions.relabellings(2),
            (noise(1, 2, 2), torch.eye(2) > 0),
            r"adjacencies of floats.*torch\.bool.*floating-point",
        ),
        (actions.relabellings(4), (noise(1, 4, 2), None), "lists of edges.*NoneType"),
        (actions.relabellings(4), (), r"features \(…, 4, d\), given tuple"),
        (actions.reversal(), noise(4), r"reversal: expected an axis 1.*\(4,\).*\.at"),
        (actions.signs(), torch.arange(3), r"signs: expected floating-point.*int64.*\.float\(\)"),
        (actions.scalings(), torch.arange(3), r"scalings: expected floating-point.*\.at\(place\)"),
        (actions.rotations(8), torch.ones(1, 1, 3, 3, dtype=torch.uint8), "between quarter turns.*uint8"),
    ],
)
def test_inputs_that_do_not_fit(action, inputs, text):
    with pytest.raises(OperandError, match=text):
        actions.homomorphism(action, inputs)


@pytest.mark.parametrize("action", [actions.permutations(9), actions.motions(3)])
def test_too_many_to_walk_through(action):
    with pytest.raises(CapacityError, match="at most 4096 elements.*Sample it"):
        _ = action.elements
    assert len(action.sample(3)) == 3


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: actions.translations((4, 0)), "sides.*whole numbers"),
        (lambda: actions.translations((4, 4), padding="reflect"), "padding.*circular"),
        (lambda: actions.translations((4, 4), padding="zeros"), "reach.*half a side"),
        (lambda: actions.translations((4, 4), reach=1), "reach.*torus"),
        (lambda: actions.translations((9, 9), padding="zeros", reach=1.5), "reach.*whole number"),
        (lambda: actions.signs().at(-1), r"places.*from 0 on.*\(-1,\).*Count"),
        (lambda: actions.signs().at(), "places.*at least one"),
        (lambda: actions.motions(3, shifts=math.inf), "shifts.*finite"),
        (lambda: actions.rotations(0), "order.*above 0"),
        (lambda: actions.rotations(4, outputs="equal"), "outputs.*'invariant'"),
        (lambda: actions.permutations(0), "n.*above 0"),
        (lambda: actions.scalings(span=0.5), "span.*above 1"),
        (lambda: actions.motions(0), "dim.*above 0"),
        (lambda: actions.finite("none", (), lambda g, x: x), "elements.*identity"),
    ],
)
def test_options_outside_their_domain(make, text):
    with pytest.raises(ArgumentError, match=text):
        make()
