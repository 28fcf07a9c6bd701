"""Group convolutions, steerable convolutions and the E(n) network commute with what they say, and are what they say.

Truth: the group actions, exact on the square torus; the definitions of the layers written out position by position;
torch.nn.Conv2d; e2cnn's kernels and layers; sums over characters written here again.
"""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lemmata.architectures import CNN, ArchitectureError, Law
from lemmata.architectures.egnn import EGNN, EGNNLayer
from lemmata.architectures.egnn import ENTRIES as GRAPHS
from lemmata.architectures.group_cnn import ENTRIES as GROUPS
from lemmata.architectures.group_cnn import POINT_GROUPS, GroupCNN, GroupConv, LiftingConv, transform_map
from lemmata.architectures.point_groups import (
    IRREPS,
    compose,
    elements,
    kernel_basis,
    kernel_dimension,
    representation,
    transform,
)
from lemmata.architectures.steerable import ENTRIES as STEERABLE
from lemmata.architectures.steerable import SteerableCNN, SteerableConv, transform_field

TOLERANCE = 1e-10
EXACT = 1e-14
DRAWS = 20
BIASED = Law("lecun with biases", lambda n, m: 1 / n, lambda n, m: 0.1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def apart(a, b):
    return ((a - b).norm() / b.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


def worst_error(module, symmetry, inputs):
    """Return max over g of ‖f(g·x) − ρ(g) f(x)‖ / ‖f(x)‖, for one tensor in and out."""
    with torch.no_grad():
        y = module(inputs)
        return max(
            apart(module(symmetry.act_on_inputs(g, inputs)), symmetry.act_on_outputs(g, y)) for g in symmetry.elements
        )


# The group.


def matrix(h):
    """The 2 × 2 matrix of (s, m) on the plane, x to the right and y up, from its words."""
    flip, turn = np.array([[-1, 0], [0, 1]]), np.array([[0, -1], [1, 0]])
    return np.linalg.matrix_power(turn, h[1]) @ np.linalg.matrix_power(flip, h[0])


def moved(h, i, j, n):
    """Where the position in row i and column j of an n × n image goes: (doubled) coordinates about its centre."""
    x, y = matrix(h) @ np.array([2 * j - (n - 1), (n - 1) - 2 * i])
    return ((n - 1) - y) // 2, (x + (n - 1)) // 2


@pytest.mark.parametrize("n", [3, 4])
def test_transform_moves_positions_as_matrices_do(n):
    x = torch.arange(n * n).view(n, n)
    for h in elements("D4"):
        turned = transform(h, x)
        assert all(turned[moved(h, i, j, n)] == x[i, j] for i in range(n) for j in range(n))


def test_compose_is_the_product():
    for h, k in itertools.product(elements("D4"), repeat=2):
        assert (matrix(compose(h, k)) == matrix(h) @ matrix(k)).all()
    assert [len(elements(group)) for group in ("C2", "C4", "D2", "D4")] == [2, 4, 4, 8]


@pytest.mark.parametrize("group", POINT_GROUPS)
def test_transform_map_is_its_definition(group):
    every = POINT_GROUPS[group]
    f = randn(0, 2, len(every), 3, 3)
    for h in every:
        turned = transform_map(h, f, group)
        for place, k in enumerate(every):  # (h·f)(·, hk) = h·(f(·, k))
            assert torch.equal(turned[:, every.index(compose(h, k))], transform(h, f[:, place]))


# Group convolutions.


def poses(group, into_map):
    """Which entry of ψ (over (k,) rows, columns) stands at (h, (k,) i, j) of the expanded kernel, position by position."""
    every = POINT_GROUPS[group]
    sheets = len(every) if into_map else 1
    table = np.zeros((len(every), sheets, 3, 3), dtype=int)
    entries = np.arange(sheets * 9).reshape(sheets, 3, 3)
    for a, h in enumerate(every):
        for b, i, j in itertools.product(range(sheets), range(3), range(3)):
            # ψ(h⁻¹q, h⁻¹k) at q = h r, k = h l
            place = every.index(compose(h, every[b])) if into_map else 0
            table[a, place, *moved(h, i, j, 3)] = entries[b, i, j]
    return torch.from_numpy(table)


class Expanded(nn.Module):
    """torch's own circular convolution with the |H| poses of a kernel laid out as plain channels."""

    def __init__(self, ours, group):
        super().__init__()
        self.into_map = isinstance(ours, GroupConv)
        table = poses(group, self.into_map)
        weight = ours.weight.detach().flatten(2)[:, :, table]  # (c' c h k 3 3)
        weight = weight.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        self.order, self.table, self.c_in = len(POINT_GROUPS[group]), table, ours.c_in
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, padding_mode="circular").double()
        with torch.no_grad():
            self.conv.weight.copy_(weight)
            self.conv.bias.copy_(ours.bias.repeat_interleave(self.order))

    def forward(self, x):
        return self.conv(x.flatten(1, 2) if self.into_map else x).unflatten(1, (-1, self.order))

    def gradients(self, shape):
        """The gradients of ψ and b: each entry's is the sum over the places where it stands."""
        sheets = self.order if self.into_map else 1
        grad = self.conv.weight.grad.view(-1, self.order, self.c_in, sheets, 3, 3).numpy()
        psi = np.zeros((shape[0], shape[1], sheets * 9))
        for a, k, i, j in np.ndindex(*self.table.shape):
            psi[:, :, self.table[a, k, i, j]] += grad[:, a, :, k, i, j]
        return torch.from_numpy(psi).view(shape), self.conv.bias.grad.view(-1, self.order).sum(1)


def layer_error(ours, peer, x):
    """Return the largest relative difference of outputs and gradients of ψ and b."""
    probe = randn(7, *peer(x).shape)
    ours.zero_grad()
    peer.zero_grad()
    (ours(x) * probe).sum().backward()
    (peer(x) * probe).sum().backward()
    grads = peer.gradients(ours.weight.shape)
    return max(apart(ours(x), peer(x)), apart(ours.weight.grad, grads[0]), apart(ours.bias.grad, grads[1]))


@pytest.mark.parametrize("group", POINT_GROUPS)
@pytest.mark.parametrize("layer", [LiftingConv, GroupConv])
def test_group_convolution_is_torchs_with_turned_kernels(layer, group):
    order = len(POINT_GROUPS[group])
    for seed in range(DRAWS):
        ours = layer(2, 3, group=group, dtype=torch.float64, generator=generator(seed))
        x = randn(seed + 100, 2, 2, order, 4, 4) if layer is GroupConv else randn(seed + 100, 2, 2, 4, 4)
        peer = Expanded(ours, group)
        assert layer_error(ours, peer, x) <= TOLERANCE
        with torch.no_grad():
            ours.weight.view(-1)[seed] += 1e-6
        assert layer_error(ours, peer, x) > TOLERANCE


@pytest.mark.parametrize("group", POINT_GROUPS)
@pytest.mark.parametrize("n", [4, 5])
def test_group_layers_commute_exactly(group, n):
    """f(g·x) = g·f(x) for every element and a shift, in every layer; a plain convolution of the same map does not."""
    lift = LiftingConv(2, 3, group=group, dtype=torch.float64, generator=generator(0))
    conv = GroupConv(3, 2, 3 if n == 4 else 5, group, dtype=torch.float64, generator=generator(1))
    x = randn(2, 2, 2, n, n)
    plain = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular").double()
    with torch.no_grad():
        f, rejected = lift(x), []
        for h in POINT_GROUPS[group]:
            turned = transform(h, x).roll((1, 2), (-2, -1))
            assert apart(lift(turned), transform_map(h, f, group).roll((1, 2), (-2, -1))) <= EXACT
            assert apart(conv(transform_map(h, f, group)), transform_map(h, conv(f), group)) <= EXACT
            rejected.append(apart(plain(turned), transform(h, plain(x)).roll((1, 2), (-2, -1))))
        assert rejected[0] <= EXACT and min(rejected[1:]) > 0.1


@pytest.mark.parametrize("entry", GROUPS, ids=lambda entry: entry.name)
def test_plain_network_is_rejected(entry):
    x, _ = entry.sample(0, torch.float64, "cpu")
    assert worst_error(entry.build(), entry.symmetry, x) <= EXACT
    plain = CNN([2, 4, 4], 3, dtype=torch.float64, generator=generator(0))
    assert worst_error(plain, entry.symmetry, x) > 1e-3
    with torch.no_grad():  # one weight of one pose, once the kernels are laid out
        peer = Expanded(entry.build().layers[0], "p4" if "p4m" not in entry.name else "p4m")
        net = entry.build()
        net.layers[0] = peer
        assert worst_error(net, entry.symmetry, x) <= EXACT
        peer.conv.weight.view(-1)[0] += 1e-3
    assert worst_error(net, entry.symmetry, x) > 1e-6


def test_rotations_do_not_make_reflections():
    """A p4 network is not invariant to reflections, a p4m network is."""
    x = randn(0, 4, 1, 6, 6)
    for group, holds in (("p4", False), ("p4m", True)):
        net = GroupCNN([1, 3, 3], 2, group=group, dtype=torch.float64, generator=generator(1))
        error = apart(net(x.flip(-1)), net(x))
        assert error <= EXACT if holds else error > 1e-4


# Representations and steerable kernels.

NAMES = {group: [*irreps, "regular"] for group, irreps in IRREPS.items()}


@pytest.mark.parametrize("group", NAMES)
def test_representations(group):
    """They are homomorphisms into orthogonal matrices; irreducible characters are orthogonal, Σ d²/⟨χ, χ⟩ = |H|."""
    every = elements(group)
    for name in NAMES[group]:
        rho = {h: representation(group, name, h) for h in every}
        assert all(torch.equal(rho[h] @ rho[k], rho[compose(h, k)]) for h, k in itertools.product(every, repeat=2))
        assert all(torch.equal(r @ r.T, torch.eye(len(r), dtype=torch.float64)) for r in rho.values())
    table = torch.stack(
        [torch.stack([representation(group, name, h).trace() for h in every]) for name in IRREPS[group]]
    )
    gram = table @ table.T / len(every)
    norms = gram.diagonal()
    assert torch.equal(gram, norms.diag())
    assert norms.tolist() == [2.0 if (group, name) == ("C4", "E") else 1.0 for name in IRREPS[group]]
    assert (table[:, 0] ** 2 / norms).sum() == len(every)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("group", NAMES)
def test_basis_is_as_large_as_characters_say(group, kernel):
    """Its rank is the count by characters, it is orthonormal and steerable; other kernels are not."""
    for out, into in itertools.product(NAMES[group] if kernel < 5 else IRREPS[group], repeat=2):
        basis = kernel_basis(group, out, into, kernel)
        flat = basis.flatten(1)
        assert len(basis) == kernel_dimension(group, out, into, kernel)
        torch.testing.assert_close(flat @ flat.T, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=EXACT)
        assert (flat != 0).sum(0).max() <= 1 if len(basis) else True  # no entry in common
        units = torch.eye(flat.shape[1], dtype=torch.float64).view(-1, *basis.shape[1:])
        trace = 0.0
        for h in elements(group):
            left, right = representation(group, out, h), representation(group, into, h)

            def act(kappa, left=left, right=right, h=h):
                return torch.einsum("ab,nbcij,dc->nadij", left, transform(h, kappa), right)

            assert torch.equal(act(basis), basis)
            trace += act(units).flatten(1).trace().item()
        assert trace == len(basis) * len(elements(group))  # the trace of the projection, counted on the grid


@pytest.fixture(scope="module")
def e2cnn():
    """e2cnn's kernels; NumPy 2 refuses one of its calls, which is passed on in the way NumPy's message asks for."""

    class Numpy:
        def __getattr__(self, name):
            return getattr(np, name)

        def array(self, value, *args, copy=True, **settings):
            return np.array(value, *args, **settings) if copy else np.asarray(value, *args, **settings)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("e2cnn")
        import e2cnn.gspaces
        import e2cnn.kernels
        import e2cnn.nn

        patch = pytest.MonkeyPatch()
        patch.setattr(e2cnn.kernels.utils, "np", Numpy())
        yield package
        patch.undo()


def e2cnn_names(group, e2):
    """Return e2cnn's irreducible representations by our names, read off their characters."""
    dihedral, n = group[0] == "D", int(group[1])
    peer = e2.group.DihedralGroup(n) if dihedral else e2.group.CyclicGroup(n)
    turn = (0, 1) if dihedral else 1
    named = {}
    for rho in peer.irreps.values():
        signs = [round(float(rho(turn)[0, 0])), round(float(rho((1, 0))[0, 0])) if dihedral else 1]
        one = {(1, 1): "A1", (1, -1): "A2", (-1, 1): "B1", (-1, -1): "B2"}.get(tuple(signs), "")
        named["E" if rho.size == 2 else one if dihedral else one[0]] = rho
    return named


@pytest.mark.parametrize("group", NAMES)
def test_kernels_are_e2cnns(group, e2cnn):
    """On the 3 × 3 grid e2cnn's kernels, sampled, span our space; on a circle characters count its kernels.

    e2cnn's flip for its E is up and down. Up and down is left and right after a half turn: for D4 this changes no other
    representation, for D2 (which has no E) the axis is turned.
    """
    named, dihedral = e2cnn_names(group, e2cnn), group[0] == "D"
    assert set(named) == set(IRREPS[group])
    make = e2cnn.kernels.kernels_DN_act_R2 if dihedral else e2cnn.kernels.kernels_CN_act_R2
    axis = {"axis": 0.0 if group == "D4" else math.pi / 2} if dihedral else {}
    positions = np.array([[j - 1.0, 1.0 - i] for i in range(3) for j in range(3)]).T
    for out, into in itertools.product(IRREPS[group], repeat=2):
        rings = {"radii": [0.0, 1.0, 2**0.5], "sigma": [0.3] * 3, "max_frequency": 4}
        peer = make(named[into], named[out], **rings, **axis)
        sampled = torch.from_numpy(peer.sample(positions)).permute(2, 0, 1, 3).flatten(1)
        basis = kernel_basis(group, out, into, 3).flatten(1)
        assert (sampled - sampled @ basis.T @ basis).norm() <= 1e-12
        assert torch.linalg.matrix_rank(sampled, atol=1e-9, rtol=0) == kernel_dimension(group, out, into, 3)
        count = 0.0
        for h in elements(group):  # of the functions 1, cos μθ, sin μθ, μ ≤ 4: 1 + 2 Σ cos μα, or 1 for a reflection
            circle = 1.0 if h[0] else 1 + 2 * sum(math.cos(mu * h[1] * math.pi / 2) for mu in range(1, 5))
            count += circle * (representation(group, out, h).trace() * representation(group, into, h).trace()).item()
        assert peer.dim == 3 * round(count / len(elements(group)))


@pytest.mark.filterwarnings("ignore")  # e2cnn's own
def test_steerable_layer_is_e2cnns(e2cnn):
    """A C4 layer equals R2Conv given the coefficients of its kernel; R2Conv's dihedral layers do not run on NumPy 2."""
    ours_of = ({"A": 2, "E": 1, "regular": 1}, {"B": 1, "E": 2, "regular": 1})
    space = e2cnn.gspaces.Rot2dOnR2(N=4)
    named = {**e2cnn_names("C4", e2cnn), "regular": space.regular_repr}
    into, out = (
        e2cnn.nn.FieldType(space, [named[name] for name, copies in fields.items() for _ in range(copies)])
        for fields in ours_of
    )
    for seed in range(DRAWS):
        layer = e2cnn.nn.R2Conv(into, out, 3, padding=1, padding_mode="circular", bias=True)
        with torch.no_grad():
            layer.weights.copy_(randn(seed + 10, *layer.weights.shape))
            layer.bias.copy_(randn(seed + 20, *layer.bias.shape))
        layer.double().eval().double()  # eval lays its kernel out, in float32: both layers share this rounding
        ours = SteerableConv(*ours_of, dtype=torch.float64, generator=generator(seed))
        kappa, shift = layer.filter, layer.expanded_bias
        with torch.no_grad():
            ours.weight.zero_().index_add_(0, ours.index, ours.factor * kappa.flatten())
            ours.bias.zero_().index_add_(0, ours.bias_index, ours.bias_factor * shift).mul_(0.25)  # of 4 channels
            x = randn(seed, 2, 8, 5, 5)
            expected = layer(e2cnn.nn.GeometricTensor(x, into)).tensor
            assert apart(ours(x), expected) <= TOLERANCE
            ours.weight[seed] += 1e-6
            assert apart(ours(x), expected) > TOLERANCE


FIELDS = [
    ("C2", {"A": 1, "B": 2}, {"B": 1, "A": 1}),
    ("C4", {"A": 1, "E": 1, "regular": 1}, {"E": 1, "B": 1, "regular": 1}),
    ("D2", {"A2": 1, "B1": 1}, {"B2": 1, "A1": 1, "regular": 1}),
    ("D4", {"A1": 1, "B2": 1, "E": 1}, {"E": 1, "A2": 1, "regular": 1, "A1": 1}),
]


@pytest.mark.parametrize(("group", "into", "out"), FIELDS, ids=[case[0] for case in FIELDS])
def test_steerable_layer_is_torchs_with_its_kernel(group, into, out):
    """Outputs are those of nn.Conv2d with κ = Σ w K, and the gradient of w is ⟨K, ∂/∂κ⟩, pair by pair of fields."""

    def channels(fields):
        ends = np.cumsum([0] + [len(representation(group, name, (0, 0))) for name in single(fields)])
        return list(zip(single(fields), itertools.starmap(slice, itertools.pairwise(ends)), strict=True))

    def single(fields):
        return [name for name, copies in fields.items() for _ in range(copies)]

    for seed in range(DRAWS):
        ours = SteerableConv(into, out, 3, group, init=BIASED, dtype=torch.float64, generator=generator(seed))
        peer = nn.Conv2d(ours.c_in, ours.c_out, 3, padding=1, padding_mode="circular").double()
        pairs = list(itertools.product(channels(out), channels(into)))
        bases = [kernel_basis(group, a, b, 3) for (a, _), (b, _) in pairs]
        with torch.no_grad():
            for p in peer.parameters():
                p.zero_()
            for part, basis, ((_, rows), (_, columns)) in zip(
                ours.weight.split([len(basis) for basis in bases]), bases, pairs, strict=True
            ):
                peer.weight[rows, columns] = torch.einsum("n,nabij->abij", part, basis)
            constant = [rows for name, rows in channels(out) if name in ("A", "A1", "regular")]
            for b, rows in zip(ours.bias, constant, strict=True):
                peer.bias[rows] = b

        def error(ours=ours, peer=peer, bases=bases, pairs=pairs, constant=constant, seed=seed):
            x, probe = randn(seed, 2, ours.c_in, 5, 5), randn(seed + 50, 2, ours.c_out, 5, 5)
            for net in (ours, peer):
                net.zero_grad()
                (net(x) * probe).sum().backward()
            slopes = [
                torch.einsum("abij,nabij->n", peer.weight.grad[a[1], b[1]], basis)
                for basis, (a, b) in zip(bases, pairs, strict=True)
            ]
            shifts = torch.stack([peer.bias.grad[rows].sum() for rows in constant])
            return max(
                apart(ours(x), peer(x)), apart(ours.weight.grad, torch.cat(slopes)), apart(ours.bias.grad, shifts)
            )

        assert error() <= TOLERANCE
        with torch.no_grad():
            ours.weight[seed % len(ours.weight)] += 1e-6
        assert error() > TOLERANCE


@pytest.mark.parametrize(("group", "into", "out"), FIELDS, ids=[case[0] for case in FIELDS])
def test_steerable_network_commutes_exactly(group, into, out):
    """f(h·x) = ρ(h) f(x) on layers and networks; a kernel off the space by 1e-3 or a wrong field type is rejected."""
    layer = SteerableConv(into, out, 5, group, init=BIASED, dtype=torch.float64, generator=generator(0))
    net = SteerableCNN([into, out, into], 3, group, init=BIASED, dtype=torch.float64, generator=generator(1))
    x = randn(2, 2, layer.c_in, 6, 6)
    with torch.no_grad():
        for h in elements(group):
            turned = transform_field(h, x, into, group)
            assert apart(layer(turned.roll(2, -1)), transform_field(h, layer(x), out, group).roll(2, -1)) <= EXACT
            assert apart(net(turned), transform_field(h, net(x), into, group)) <= EXACT
        h = elements(group)[1]
        turned = transform_field(h, x, into, group)
        assert apart(net(transform(h, x)), transform_field(h, net(x), into, group)) > 1e-3
        layer.factor[layer.factor.nonzero()[0]] += 1e-3
        assert apart(layer(turned), transform_field(h, layer(x), out, group)) > 1e-6


def test_regular_fields_are_group_convolutions():
    """The kernels of a GroupConv are the steerable kernels between regular fields: as many, and in their span."""
    for group, name in (("C4", "p4"), ("D4", "p4m")):
        order = len(elements(group))
        basis = kernel_basis(group, "regular", "regular", 3)
        layer = GroupConv(1, 1, group=name, dtype=torch.float64, generator=generator(0))
        assert layer.weight.numel() == len(basis) == 9 * order
        kappa = Expanded(layer, name).conv.weight.detach()
        flat = basis.flatten(1)
        torch.testing.assert_close(kappa.flatten() @ flat.T @ flat, kappa.flatten(), rtol=0, atol=EXACT)


def test_steerable_entry_rejects_a_plain_network():
    entry = STEERABLE[0]
    x, _ = entry.sample(0, torch.float64, "cpu")
    assert worst_error(entry.build(), entry.symmetry, x) <= EXACT
    plain = CNN([3, 12], 3, dtype=torch.float64, generator=generator(0))
    assert worst_error(plain, entry.symmetry, x) > 1e-2


# The E(n)-equivariant network.


def reference(layer, h, x, edges):
    """The paper's equations (3)–(6), node by node, with torch.nn's own layers."""

    def peer(mlp, last=None):
        parts = []
        for i, own in enumerate(mlp.layers):
            linear = nn.Linear(own.in_features, own.out_features).double()
            linear.weight, linear.bias = own.weight, own.bias
            parts += [linear] + ([nn.SiLU()] if i + 1 < len(mlp.layers) else [])
        return nn.Sequential(*parts, *([last] if last else []))

    phi_e, phi_x, phi_h = peer(layer.edge, nn.SiLU()), peer(layer.position), peer(layer.feature)
    n, new_h, new_x = h.shape[0], [], []
    for i in range(n):
        message, step = torch.zeros(layer.feature.widths[0] - h.shape[1]).double(), torch.zeros(x.shape[1]).double()
        for j in range(n):
            if i != j:
                m = phi_e(torch.cat([h[i], h[j], torch.dist(x[i], x[j]).square().view(1)]))
                message = message + edges[i, j] * m
                step = step + edges[i, j] * (x[i] - x[j]) * phi_x(m) / (n - 1)
        new_h.append(phi_h(torch.cat([h[i], message])))
        new_x.append(x[i] + step)
    return torch.stack(new_h), torch.stack(new_x)


def network(layers, h, x, edges):
    pairs = []
    for one_h, one_x, one_edges in zip(h, x, edges, strict=True):
        for layer in layers:
            one_h, one_x = reference(layer, one_h, one_x, one_edges)
        pairs.append((one_h, one_x))
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])


def test_egnn_is_the_papers_loop():
    for seed in range(DRAWS):
        net = EGNN([2, 3, 2], message=4, dtype=torch.float64, generator=generator(seed))
        h, x = randn(seed + 50, 2, 4, 2), randn(seed + 100, 2, 4, 3)
        edges = None if seed % 2 else (randn(seed, 2, 4, 4) > 0).double()
        given = torch.ones(2, 4, 4).double() if edges is None else edges
        probes = randn(1, 2, 4, 2), randn(2, 2, 4, 3)

        def outputs_and_gradients(f, net=net, probes=probes):
            net.zero_grad()
            outputs = f()
            sum((o * p).sum() for o, p in zip(outputs, probes, strict=True)).backward()
            return [*outputs, *(p.grad.clone() for p in net.parameters())]

        def ours(net=net, h=h, x=x, edges=edges):
            return outputs_and_gradients(lambda: net(h, x, edges))

        theirs = outputs_and_gradients(lambda net=net, h=h, x=x, given=given: network(net.layers, h, x, given))
        assert max(map(apart, ours(), theirs)) <= TOLERANCE
        with torch.no_grad():
            net.layers[0].edge.layers[0].weight.view(-1)[seed % 20] += 1e-6
        assert max(map(apart, ours(), theirs)) > TOLERANCE


def motion(seed, dimension, nodes):
    """A random orthogonal matrix (either determinant), translation and order of the nodes."""
    q, r = torch.linalg.qr(randn(seed, dimension, dimension))
    q = q * r.diagonal().sign()
    order = torch.randperm(nodes, generator=generator(seed))
    return q, 3 * randn(seed + 1, dimension), order


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_egnn_commutes_with_motions(dimension):
    """For random rotations, reflections, translations and orders; positions as features are rejected."""
    determinants = set()
    for seed in range(DRAWS):
        net = EGNN([2, 3, 2], message=4, dtype=torch.float64, generator=generator(seed))
        h, x, edges = randn(seed + 50, 2, 5, 2), randn(seed + 100, 2, 5, dimension), randn(seed, 2, 5, 5).square()
        q, t, order = motion(seed, dimension, 5)
        determinants.add(round(torch.linalg.det(q).item()))
        with torch.no_grad():
            y, z = net(h, x, edges)
            new_y, new_z = net(h[:, order], x[:, order] @ q.T + t, edges[:, order][:, :, order])
            assert apart(new_y, y[:, order]) <= 1e-13 and apart(new_z, z[:, order] @ q.T + t) <= 1e-13
            absolute = EGNN([2 + dimension, 2], message=4, dtype=torch.float64, generator=generator(seed))
            y, z = absolute(torch.cat([h, x], -1), x)
            new_y, _ = absolute(torch.cat([h, x @ q.T + t], -1), x @ q.T + t)
            assert apart(new_y, y) > 1e-4
    assert determinants == {1, -1}


def test_egnn_entry_rejects_absolute_positions():
    entry = GRAPHS[0]
    symmetry, (inputs, _) = entry.symmetry, entry.sample(0, torch.float64, "cpu")
    assert len(symmetry.elements) == 48
    absolute = EGNN([4, 2], message=3, dtype=torch.float64, generator=generator(0))

    def worst(module):
        with torch.no_grad():
            y = module(*inputs)
            return max(
                apart(
                    torch.cat(module(*symmetry.act_on_inputs(g, inputs)), -1),
                    torch.cat(symmetry.act_on_outputs(g, y), -1),
                )
                for g in symmetry.elements
            )

    assert worst(entry.build()) <= EXACT
    assert worst(lambda h, x: absolute(torch.cat([h, x], -1), x)) > 1e-3


def test_nodes_without_edges_stay():
    layer = EGNNLayer(2, 2, 3, dtype=torch.float64, generator=generator(0))
    h, x = randn(0, 1, 4, 2), randn(1, 1, 4, 3)
    _, moved_ = layer(h, x, torch.zeros(1, 4, 4).double())
    assert torch.equal(moved_, x) and not torch.equal(layer(h, x)[1], x)
    assert torch.equal(layer(h[:, :1], x[:, :1])[1], x[:, :1])  # one node alone


# Initial laws, seeds, errors.


def follows(sample, variance, kurtosis=3.0):
    """Whether Σx²/variance lies in the central 1 − 1e-6 of its law: χ² if Gaussian, else its normal limit."""
    total, count = (sample.double().square().sum() / variance).item(), sample.numel()
    law = stats.chi2(count) if kurtosis == 3 else stats.norm(count, math.sqrt((kurtosis - 1) * count))
    low, high = law.interval(1 - 1e-6)
    return low <= total <= high


def test_initial_variances():
    lift = LiftingConv(9, 20, group="p4m", init="he", dtype=torch.float64, generator=generator(0))
    conv = GroupConv(5, 12, group="p4", init="he", dtype=torch.float64, generator=generator(0))
    for weight, fan in ((lift.weight, 81), (conv.weight, 180)):
        assert follows(weight, 2 / fan) and not follows(weight, 1 / fan) and not follows(weight, 4 / fan)
    net = EGNNLayer(30, 20, 40, dtype=torch.float64, generator=generator(0))
    for layer, fan in ((net.edge.layers[0], 61), (net.feature.layers[0], 70)):
        assert follows(layer.weight, 1 / (3 * fan), 1.8) and not follows(layer.weight, 2 / (3 * fan), 1.8)


@pytest.mark.parametrize("init", ["he", "default"])
def test_initial_variance_of_steerable_kernels(init):
    """The mean variance of κ's entries between two types of fields is the law's, whatever the types."""
    into, out = {"A1": 24, "E": 12, "regular": 3}, {"A1": 24, "E": 12, "A2": 24}
    g, squares = generator(0), 0.0
    for _ in range(8):
        layer = SteerableConv(into, out, 3, "D4", init=init, dtype=torch.float64, generator=g)
        squares = squares + layer.kernel_of_weights().detach().square() / 8
    variance = 2 / (72 * 9) if init == "he" else 1 / (3 * 72 * 9)
    blocks = [
        squares[a, b]
        for a in (slice(24), slice(24, 48), slice(48, 72))
        for b in (slice(24), slice(24, 48), slice(48, 72))
    ]
    expected = [0.0 if (i, j) == (2, 0) else variance for i in range(3) for j in range(3)]  # no A1 → A2 on 3 × 3
    for block, value in zip(blocks, expected, strict=True):
        assert abs(block.mean().item() - value) <= 0.1 * value
    assert follows(layer.weight / layer.weight.square().mean().sqrt(), 1.0, 9.0)
    if init == "he":
        assert torch.count_nonzero(layer.bias) == 0
    biased = SteerableConv({"A1": 1}, {"regular": 500, "B1": 3}, 1, "D4", init=BIASED, dtype=torch.float64, generator=g)
    assert len(biased.bias) == 500 and follows(biased.bias, 0.1) and not follows(biased.bias, 0.2)


BUILD = {
    "GroupCNN": lambda **k: GroupCNN([2, 2, 2], 3, group="p4m", **k),
    "SteerableCNN": lambda **k: SteerableCNN([{"A1": 1}, {"E": 2, "regular": 1}, {"A1": 2}], group="D4", **k),
    "EGNN": lambda **k: EGNN([2, 3, 2], 4, **k),
}


@pytest.mark.parametrize("name", BUILD)
def test_seed_decides_the_network(name):
    state = torch.get_rng_state()
    nets = [
        BUILD[name](dtype=dtype, generator=generator(seed))
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    ]
    first, again, other, single = ([p.detach() for p in net.parameters()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        net = BUILD[name]()
    assert {t.device.type for t in [*net.parameters(), *net.buffers()]} == {"meta"}
    assert set(nets[0].state_dict()) == {key for key, _ in nets[0].named_parameters()}


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: GroupCNN([1, 2], 3, group="p6"), ["group='p6'", "p4, p4m"]),
        (lambda: GroupCNN([1, 2], 3, kernel=4), ["kernel=4", "odd", "3 or 5"]),
        (lambda: GroupCNN([1], 3), ["channels=[1]", "at least 2"]),
        (lambda: GroupCNN([1, 2], 0), ["classes", "0"]),
        (lambda: GroupCNN([1, 2], 3, activation="tahn"), ["'tahn'", "tanh"]),
        (lambda: GroupCNN([1, 2], 3, init="kaiming"), ["'kaiming'", "he"]),
        (lambda: GroupCNN([1, 2], 3)(torch.zeros(1, 1, 4, 5)), ["(1, 1, 4, 5)", "square", "crop or pad"]),
        (lambda: GroupCNN([1, 2], 3)(torch.zeros(1, 2, 4, 4)), ["(1, 2, 4, 4)", "1 channels"]),
        (lambda: GroupCNN([1, 2], 3, kernel=9)(torch.zeros(1, 1, 3, 3)), ["kernel=9", "3×3", "larger image"]),
        (lambda: LiftingConv(0, 1), ["c_in", "0"]),
        (lambda: GroupConv(1, 0), ["c_out", "0"]),
        (lambda: GroupConv(1, 2)(torch.zeros(1, 1, 8, 4, 4)), ["(1, 1, 8, 4, 4)", "1 × 4 channels"]),
        (lambda: transform_map((0, 1), torch.zeros(4, 3, 3), "p5"), ["'p5'", "p4"]),
        (lambda: SteerableConv({"A": 1}, {"A": 1}, group="C3"), ["group='C3'", "C4"]),
        (lambda: SteerableConv({"A": 1}, {"A": 1}, kernel=2), ["kernel=2", "odd"]),
        (lambda: SteerableConv({"A1": 1}, {"A": 1}), ["fields_in of C4='A1'", "did you mean 'A'", "regular"]),
        (lambda: SteerableConv({"A": 1}, {"A": 0}), ["fields_out['A']", "0"]),
        (lambda: SteerableConv({}, {"A": 1}), ["fields_in", "mapping", "A, B, E, regular"]),
        (lambda: SteerableConv({"A": 1}, 3), ["fields_out", "mapping", "3"]),
        (lambda: SteerableConv({"A": 1}, {"B": 1}, kernel=1), ["no 1×1 kernel", "{'A': 1}", "larger kernel"]),
        (lambda: SteerableConv({"A": 1}, {"A": 1}, init="orthogonal"), ["'orthogonal'", "independent", "he"]),
        (lambda: SteerableConv({"A": 1, "E": 1}, {"A": 1})(torch.zeros(1, 2, 4, 4)), ["(1, 2, 4, 4)", "(batch, 3, n, n)"]),
        (lambda: SteerableConv({"A": 1}, {"A": 1})(torch.zeros(1, 1, 4, 5)), ["(1, 1, 4, 5)", "crop or pad"]),
        (lambda: SteerableCNN([{"A": 1}]), ["at least two", "{'A': 1}"]),
        (lambda: SteerableCNN({"A": 1, "B": 1}), ["list of at least two"]),
        (lambda: SteerableCNN([{"A": 1}, {"A": 1}], activation="rely"), ["'rely'", "relu"]),
        (lambda: representation("C4", "A2", (0, 1)), ["field='A2'", "A, B, E, regular"]),
        (lambda: elements("O2"), ["group='O2'", "C4"]),
        (lambda: kernel_dimension("C4", "A", "A", 2), ["kernel=2", "1 or 3"]),
        (lambda: kernel_basis("C4", "A", "A", 4), ["kernel=4", "3 or 5"]),
        (lambda: EGNN([2], 3), ["widths=[2]", "at least 2"]),
        (lambda: EGNN([2, 2], 0), ["message", "0"]),
        (lambda: EGNN([2, 2], 3, activation="sliu"), ["'sliu'", "silu"]),
        (lambda: EGNNLayer(0, 2, 3), ["c_in", "0"]),
        (lambda: EGNN([2, 2], 3)(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)), ["h has shape (1, 4, 3)", "(batch, nodes, 2)"]),
        (lambda: EGNN([2, 2], 3)(torch.zeros(1, 4, 2), torch.zeros(1, 5, 3)), ["x has shape (1, 5, 3)", "(1, 4, dimension)"]),
        (
            lambda: EGNN([2, 2], 3)(torch.zeros(1, 4, 2), torch.zeros(1, 4, 3), torch.zeros(4, 4)),
            ["edges have shape (4, 4)", "(1, 4, 4)", "0 where"],
        ),
    ],
)  # fmt: skip
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
