"""Neural ODEs and continuous flows equal torchdiffeq, matrix exponentials and change of variables done by hand.

Truth: for a linear field the solution is a matrix exponential and N steps of a Runge–Kutta method are a polynomial of
the matrix to the power N; for other fields torchdiffeq with the same tableau, the classical step written out, or scipy.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
import torchdiffeq
from scipy import integrate as scipy_integrate
from scipy import linalg, stats
from torch import nn

from lemmata.architectures import ArchitectureError
from lemmata.architectures.continuous_flow import ContinuousFlow, HutchinsonFlow, exact_divergence, probes
from lemmata.architectures.neural_ode import AdaptiveNeuralODE, AugmentedNeuralODE, NeuralODE
from lemmata.architectures.ode import _DORMAND_PRINCE, _ERROR, SOLVERS, adaptive, adjoint, integrate, trajectory
from lemmata.architectures.vector_field import VectorField

TOLERANCE = (
    1e-10  # relative, float64: a thousand times the rounding of these nets, a ten-thousandth of the planted 1e-6
)
DRAWS = 20
ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4, "three-eighths": 4}
THEIRS = {"euler": "euler", "midpoint": "midpoint", "three-eighths": "rk4"}  # torchdiffeq's rk4 is Kutta's 3/8 rule
STEPS = 5


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def double(build, *arguments, seed=0, **options):
    return build(*arguments, dtype=torch.float64, generator=generator(seed), **options)


def relative(value, truth):
    return ((value - truth).norm() / truth.norm()).nan_to_num(nan=torch.inf).item()  # max() would pass over a NaN


def slope_of(errors, steps):
    """Return the order p of errors that fall like steps^-p."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


class Peer(nn.Module):
    """The same field of torch's own layers, solved by torchdiffeq or by `step`, on an input padded with zeros."""

    def __init__(self, n, hidden, n_out, solver, pad=0):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n + pad + 1, hidden), nn.Tanh(), nn.Linear(hidden, n + pad)).double()
        self.readout = nn.Linear(n + pad, n_out).double()
        self.solver, self.pad = solver, pad

    def field(self, t, h):
        return self.net(torch.cat([h, torch.full_like(h[:, :1], float(t))], 1))

    def forward(self, x):
        h = torch.nn.functional.pad(x, (0, self.pad))
        if self.solver == "rk4":
            for i in range(STEPS):
                h = classical_step(self.field, i / STEPS, h, 1 / STEPS)
        else:
            grid = torch.tensor([0.0, 1.0], dtype=torch.float64)
            options = {"step_size": 1 / STEPS}
            h = torchdiffeq.odeint(self.field, h, grid, method=THEIRS[self.solver], options=options)[-1]
        return self.readout(h)


def classical_step(f, t, y, h):
    k1 = f(t, y)
    k2 = f(t + h / 2, y + h / 2 * k1)
    k3 = f(t + h / 2, y + h / 2 * k2)
    k4 = f(t + h, y + h * k3)
    return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


NAMES = {"field.layers.0": "net.0", "field.layers.1": "net.2", "readout": "readout"}


def ode_pair(solver, seed, pad=0):
    if pad:
        ours = double(AugmentedNeuralODE, 3, pad, 5, 2, solver=solver, steps=STEPS, seed=seed)
    else:
        ours = double(NeuralODE, 3, 5, 2, solver=solver, steps=STEPS, seed=seed)
    return ours, Peer(3, 5, 2, solver, pad), NAMES, randn(seed + 1000, 7, 3)


class FlowPeer(nn.Module):
    """A continuous flow by torchdiffeq, its divergence by reverse mode, a row of the Jacobian at a time."""

    def __init__(self, n, hidden):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n + 1, hidden), nn.Tanh(), nn.Linear(hidden, n)).double()

    def rate(self, t, state):
        z = state[0].detach().requires_grad_() if not state[0].requires_grad else state[0]
        with torch.enable_grad():
            slope = self.net(torch.cat([z, torch.full_like(z[:, :1], float(t))], 1))
            rows = [torch.autograd.grad(slope[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(z.shape[1])]
        return slope, torch.stack(rows).sum(0)

    def forward(self, x):
        grid = torch.tensor([1.0, 0.0], dtype=torch.float64)
        start = (x.requires_grad_(), x.new_zeros(len(x)))
        z, change = torchdiffeq.odeint(self.rate, start, grid, method="rk4", options={"step_size": 1 / STEPS})
        base = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        return base.log_prob(z[-1]).sum(1) + change[-1]


def flow_pair(seed):
    ours = double(ContinuousFlow, 3, 5, solver="three-eighths", steps=STEPS, seed=seed)
    names = {name: their for name, their in NAMES.items() if name != "readout"}
    return ours, FlowPeer(3, 5), names, randn(seed + 1000, 7, 3)


PAIRS = {
    **{f"NeuralODE {solver}": functools.partial(ode_pair, solver) for solver in ORDERS},
    "AugmentedNeuralODE": lambda seed: ode_pair("three-eighths", seed, pad=2),
    "ContinuousFlow": flow_pair,
}


def copy_by_name(ours, peer, names):
    named, theirs = dict(ours.named_parameters()), dict(peer.named_parameters())
    renamed = {f"{a}.{kind}": f"{b}.{kind}" for a, b in names.items() for kind in ("weight", "bias")}
    assert set(renamed) == set(named) and set(renamed.values()) == set(theirs)
    with torch.no_grad():
        for mine, their in renamed.items():
            assert named[mine].abs().min() > 0
            theirs[their].copy_(named[mine])
    return renamed


def parity_error(ours, peer, names, inputs):
    """Return the largest relative difference of the output and of every parameter's gradient."""
    mine, their = ours(inputs), peer(inputs)
    probe = randn(5, *mine.shape)
    gradients = torch.autograd.grad((mine * probe).sum(), list(ours.parameters()), allow_unused=True)
    theirs = dict(peer.named_parameters())
    expected = torch.autograd.grad((their * probe).sum(), [theirs[names[n]] for n, _ in ours.named_parameters()])
    return max(relative(a, b) for a, b in [(mine, their), *zip(gradients, expected, strict=True)])


@pytest.mark.parametrize("name", PAIRS)
def test_parity(name):
    for seed in range(DRAWS):
        ours, peer, names, inputs = PAIRS[name](seed)
        names = copy_by_name(ours, peer, names)
        assert parity_error(ours, peer, names, inputs) <= TOLERANCE
        weight = ours.field.layers[0].weight
        with torch.no_grad():
            weight.view(-1)[seed % weight.numel()] += 1e-6
        assert parity_error(ours, peer, names, inputs) > TOLERANCE


def test_classical_and_three_eighths_differ():
    ours, peer, names, inputs = ode_pair("rk4", 0)
    names = copy_by_name(ours, peer, names)
    peer.solver = "three-eighths"
    assert parity_error(ours, peer, names, inputs) > 1e-8


# Closed forms. With φ(z) = z the field is affine in (h, t), and (h, t, 1) obeys a linear equation with the matrix M.
def affine(build, *sizes, seed, **options):
    net = double(build, *sizes, activation=lambda z: z, seed=seed, **options)
    first, second = net.field.layers
    with torch.no_grad():
        slope, bias = second.weight @ first.weight, second.weight @ first.bias + second.bias
    n = len(bias)
    matrix = np.zeros((n + 2, n + 2))
    matrix[:n, :n], matrix[:n, n], matrix[:n, n + 1] = slope[:, :n], slope[:, n], bias
    matrix[n, n + 1] = 1
    return net, matrix


def carried(propagator, x, time):
    """Apply a propagator of (h, t, 1) to the rows of `x` at `time`."""
    lifted = np.concatenate([x.numpy(), np.full((len(x), 1), time), np.ones((len(x), 1))], axis=1)
    return torch.from_numpy((lifted @ propagator.T)[:, : x.shape[1]].copy())


def polynomial(matrix, order):
    """Return the Taylor polynomial of the exponential: what one step of a method of that order does, up to order 4."""
    return sum(np.linalg.matrix_power(matrix, k) / math.factorial(k) for k in range(order + 1))


@pytest.mark.parametrize("solver", ORDERS)
def test_linear_field_is_a_power_of_the_stability_polynomial(solver):
    for seed in range(DRAWS):
        net, matrix = affine(NeuralODE, 3, 4, solver=solver, steps=STEPS, seed=seed)
        x = randn(seed + 1000, 6, 3)
        truth = {p: carried(np.linalg.matrix_power(polynomial(matrix / STEPS, p), STEPS), x, 0.0) for p in (1, 2, 3, 4)}
        p = ORDERS[solver]
        assert relative(net(x), truth[p]) <= 1e-14
        assert all(relative(net(x), other) > 1e-7 for q, other in truth.items() if q != p)


@pytest.mark.parametrize("solver", ORDERS)
def test_order_of_convergence(solver):
    """To the matrix exponential; and to the logistic curve and to y' = t y, which see nonlinearity and the nodes."""
    steps = [16, 32, 64]
    x = randn(0, 6, 3)
    pairs = [affine(NeuralODE, 3, 4, solver=solver, steps=n, time=2.0, seed=3) for n in steps]
    truth = carried(linalg.expm(2.0 * pairs[0][1]), x, 0.0)
    errors = {"affine": [relative(net(x), truth) for net, _ in pairs]}
    start = torch.tensor(0.2, dtype=torch.float64)
    for name, f, exact in (
        ("logistic", lambda t, y: y * (1 - y), 1 / (1 + 4 * math.exp(-2))),
        ("time", lambda t, y: t * y, 0.2 * math.exp(2)),
    ):
        errors[name] = [abs(integrate(f, start, end=2.0, solver=solver, steps=n).item() - exact) for n in steps]
    for name, error in errors.items():
        assert slope_of(error, steps) == pytest.approx(ORDERS[solver], abs=0.25), name


def test_nonlinear_field_against_scipy():
    field = double(VectorField, 3, [6, 5], seed=2)
    x = randn(1, 3)
    with torch.no_grad():
        truth = scipy_integrate.solve_ivp(
            lambda t, y: field(t, torch.from_numpy(y)).numpy(), (0, 2), x.numpy(), rtol=1e-13, atol=1e-13
        ).y[:, -1]
        for value in (
            integrate(field, x, end=2.0, steps=400),
            adaptive(field, x, end=2.0, rtol=1e-12, atol=1e-13),
            integrate(field, x, end=2.0, solver="three-eighths", steps=400),
        ):
            assert relative(value, torch.from_numpy(truth)) <= 1e-11
        assert relative(integrate(field, x, end=2.0, steps=20), torch.from_numpy(truth)) > 1e-11


def test_tableaux():
    """Order conditions up to the fourth, c_i = Σ_j a_ij, and Dormand and Prince's numbers as scipy has them."""
    for name, tableau in {**SOLVERS, "dormand-prince": _DORMAND_PRINCE}.items():
        b, c = np.array(tableau.weights), np.array(tableau.nodes)
        a = np.array([[*row, *[0.0] * (len(b) - len(row))] for row in tableau.stages])
        np.testing.assert_allclose(a.sum(1), c, rtol=0, atol=1e-15)
        conditions = [
            [b.sum() - 1],
            [b @ c - 1 / 2],
            [b @ c**2 - 1 / 3, b @ a @ c - 1 / 6],
            [b @ c**3 - 1 / 4, (b * c) @ a @ c - 1 / 8, b @ a @ c**2 - 1 / 12, b @ a @ a @ c - 1 / 24],
        ]
        met = [max(map(abs, one)) < 1e-15 for one in conditions]
        assert met == [p <= tableau.order for p in range(1, 5)], name
    peer = scipy_integrate.RK45
    stages = [[*row, *[0.0] * (5 - len(row))] for row in _DORMAND_PRINCE.stages]
    np.testing.assert_allclose(stages, peer.A, rtol=1e-15)
    np.testing.assert_allclose(_DORMAND_PRINCE.weights, peer.B, rtol=1e-15)
    np.testing.assert_allclose(_DORMAND_PRINCE.nodes, peer.C, rtol=1e-15)
    np.testing.assert_allclose(_ERROR, -np.asarray(peer.E), rtol=1e-14)


def test_trajectory():
    net = double(NeuralODE, 3, 5, steps=8, time=-0.5)
    x = randn(0, 2, 4, 3)
    path = net.trajectory(x)
    assert path.shape == (9, 2, 4, 3) and torch.equal(path[0], x) and torch.equal(path[-1], net(x))
    half = integrate(net.field, x, 0.0, -0.25, steps=4)
    torch.testing.assert_close(path[4], half, rtol=0, atol=1e-15)
    assert len(trajectory(net.field, x, steps=3)) == 4
    readout = double(NeuralODE, 3, 5, 2)
    torch.testing.assert_close(readout(x), readout.readout(readout.trajectory(x)[-1]), rtol=0, atol=0)


def test_one_dimensional_flows_keep_order_and_augmented_ones_need_not():
    """Trajectories on a line cannot pass one another; with one more dimension a half turn maps x to −x."""
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    for seed in range(DRAWS):
        assert (double(NeuralODE, 1, 8, seed=seed)(x).diff(dim=0) > 0).all()
    net = double(AugmentedNeuralODE, 1, 1, 2, steps=100, activation=lambda z: z)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]) * math.pi
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.field.layers[0].weight[:, :2] = torch.eye(2)
        net.field.layers[1].weight.copy_(turn)
    torch.testing.assert_close(net(x), torch.cat([-x, 0 * x], dim=1), rtol=0, atol=1e-6)


# The adaptive solver.
@pytest.mark.parametrize("rtol", [1e-4, 1e-7, 1e-10])
def test_adaptive_meets_its_tolerance(rtol):
    for seed in range(DRAWS):
        net, matrix = affine(AdaptiveNeuralODE, 3, 4, rtol=rtol, atol=rtol, time=3.0, seed=seed, init="glorot")
        x = randn(seed + 1000, 6, 3)
        truth = carried(linalg.expm(3.0 * matrix), x, 0.0)
        assert ((net(x) - truth).abs().max() / truth.abs().max()).item() <= 30 * rtol
    assert relative(net(x), truth) > 1e-15  # the last draw is not solved to rounding


def test_adaptive_against_dopri5():
    for seed in range(DRAWS):
        net = double(AdaptiveNeuralODE, 3, 8, rtol=1e-9, atol=1e-9, seed=seed)
        x = randn(seed + 1000, 6, 3).requires_grad_()
        field = net.field
        grid = torch.tensor([0.0, 1.0], dtype=torch.float64)
        peer = torchdiffeq.odeint(field, x, grid, method="dopri5", rtol=1e-12, atol=1e-12)[-1]
        probe = randn(5, 6, 3)
        inputs = [x, *field.parameters()]
        mine = torch.autograd.grad((net(x) * probe).sum(), inputs)
        theirs = torch.autograd.grad((peer * probe).sum(), inputs)
        assert relative(net(x), peer) <= 1e-9
        assert all(relative(a, b) <= 3e-8 for a, b in zip(mine, theirs, strict=True))
        with torch.no_grad():
            field.layers[0].weight[0, 0] += 1e-5
        assert relative(net(x), peer) > 1e-9


def test_adaptive_chooses_its_steps():
    """Fewer evaluations for looser tolerances, small steps only where the solution turns, both ways in time."""
    for field, end, exact in (
        (lambda t, y: -50 * (t - 1) * y, 2.0, 1.0),  # a peak of e^25 at t = 1
        (lambda t, y: torch.ones_like(y), 1e6, 1e6 + 1),
        (lambda t, y: -y, -2.0, math.exp(2)),
        (lambda t, y: 0 * y, 3.0, 1.0),
    ):
        counts = []
        for rtol in (1e-3, 1e-10):
            times = []
            value = adaptive(
                lambda t, y, field=field, times=times: (times.append(t), field(t, y))[1],
                torch.ones(2, dtype=torch.float64),
                end=end,
                rtol=rtol,
                atol=1e-12,
                max_steps=2000,
            )
            counts.append(len(times))
            assert value.tolist() == pytest.approx([exact] * 2, rel=100 * rtol)
        assert counts[0] <= counts[1] < 8000
    y = torch.ones(2)
    assert adaptive(lambda t, y: -y, y, 1.0, 1.0) is y
    assert adaptive(lambda t, y: -y, y, rtol=1e-30).tolist() == pytest.approx([math.exp(-1)] * 2, rel=1e-5)  # float32


def test_why_the_adaptive_solver_is_exempt(schwarz):
    """Two truths told of it: at a loose tolerance its derivatives and its batches are right to the tolerance only."""
    rtol = 1e-5
    net = double(AdaptiveNeuralODE, 3, 5, 2, rtol=rtol, atol=rtol, time=5.0, init="glorot", seed=6)
    found = {
        finding.check: finding.error
        for finding in schwarz.check_module(net, lambda y, t: ((y - t) ** 2).mean(), randn(0, 5, 3), randn(1, 5, 2))
        if not finding.raised
    }
    assert set(found) >= {"RR", "FR", "RF", "batch of one"}
    assert not any("=" in check or "symmetric" in check for check in found)  # the modes agree with one another
    assert max(found.values()) < 1000 * rtol
    fine = double(NeuralODE, 3, 5, 2, steps=400, time=5.0, init="glorot", seed=6)
    x = randn(0, 5, 3)
    pairs = [torch.autograd.grad(n(x).square().sum(), list(n.parameters())) for n in (net, fine)]
    assert all(relative(a, b) < 100 * rtol for a, b in zip(*pairs, strict=True))


# The continuous adjoint.
def backprop(field, x, cotangent, solver, steps):
    x = x.detach().requires_grad_()
    y = integrate(field, x, solver=solver, steps=steps)
    return y.detach(), torch.autograd.grad((y * cotangent).sum(), [x, *field.parameters()])


@pytest.mark.parametrize("solver", THEIRS)
def test_adjoint_equals_torchdiffeq(solver):
    for seed in range(DRAWS):
        field, x, cotangent = double(VectorField, 3, 5, seed=seed), randn(seed + 1000, 7, 3), randn(seed + 2000, 7, 3)
        grid, options = torch.tensor([0.0, 1.0], dtype=torch.float64), {"step_size": 1 / STEPS}
        start = x.clone().requires_grad_()
        end = torchdiffeq.odeint_adjoint(field, start, grid, method=THEIRS[solver], options=options)[-1]
        truth = torch.autograd.grad((end * cotangent).sum(), [start, *field.parameters()])

        def error(field=field, end=end, cotangent=cotangent, truth=truth):
            solve = functools.partial(integrate, solver=solver, steps=STEPS)
            _, a, gradients = adjoint(field, end.detach(), cotangent, solve=solve)
            return max(relative(m, t) for m, t in zip([a, *gradients.values()], truth, strict=True))

        assert error() <= TOLERANCE
        with torch.no_grad():
            field.layers[0].weight[0, 0] += 1e-6
        assert error() > TOLERANCE


@pytest.mark.parametrize("solver", ORDERS)
def test_adjoint_approaches_backpropagation(solver):
    field, x, cotangent = double(VectorField, 3, 5, init="glorot", seed=1), randn(0, 7, 3), randn(1, 7, 3)
    steps, errors, starts = [8, 16, 32], [], []
    for n in steps:
        y, truth = backprop(field, x, cotangent, solver, n)
        before, a, gradients = adjoint(field, y, cotangent, solve=functools.partial(integrate, solver=solver, steps=n))
        assert list(gradients) == [name for name, _ in field.named_parameters()]
        errors.append(max(relative(m, t) for m, t in zip([a, *gradients.values()], truth, strict=True)))
        starts.append(relative(before, x))
    assert errors[-1] > 1e-12  # they are two different gradients
    assert slope_of(errors, steps) == pytest.approx(ORDERS[solver], abs=0.4)
    assert slope_of(starts, steps) > ORDERS[solver] - 0.4


def test_adaptive_adjoint_and_linear_closed_form():
    net, matrix = affine(NeuralODE, 3, 4, seed=5)
    x, cotangent = randn(0, 7, 3), randn(1, 7, 3)
    y = carried(linalg.expm(matrix), x, 0.0)
    before, a, _ = adjoint(net.field, y, cotangent, solve=functools.partial(adaptive, rtol=1e-11, atol=1e-12))
    propagator = torch.from_numpy(linalg.expm(matrix[:3, :3]))
    assert relative(a, cotangent @ propagator) <= 1e-10 and relative(before, x) <= 1e-10
    assert relative(a, cotangent @ propagator.T) > 1e-2


# Continuous flows.
def test_flow_of_a_linear_field_is_a_gaussian():
    for seed in range(DRAWS):
        flow, matrix = affine(ContinuousFlow, 3, 4, steps=STEPS, seed=seed)
        x = randn(seed + 1000, 6, 3)
        back = np.linalg.matrix_power(polynomial(-matrix / STEPS, 4), STEPS)
        trace = np.trace(matrix[:3, :3])
        truth = torch.from_numpy(stats.norm.logpdf(carried(back, x, 1.0)).sum(1)) - trace
        assert relative(flow(x), truth) <= 1e-13
        assert relative(flow(x), truth + trace) > 1e-5
        change = flow.encode(x)[1]
        torch.testing.assert_close(change, torch.full_like(change, -trace), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("solver", ORDERS)
def test_flow_converges_to_the_exact_density(solver):
    steps, errors, returns = [8, 16, 32], [], []
    x = randn(0, 6, 3)
    for n in steps:
        flow, matrix = affine(ContinuousFlow, 3, 4, solver=solver, steps=n, init="glorot", seed=2)
        propagator = linalg.expm(matrix)
        mean, spread = carried(propagator, torch.zeros(1, 3), 0.0)[0].numpy(), propagator[:3, :3]
        truth = stats.multivariate_normal(mean, spread @ spread.T).logpdf(x.numpy())
        errors.append(relative(flow(x), torch.from_numpy(truth)))
        returns.append(relative(flow.generate(flow.encode(x)[0]), x))
    assert slope_of(errors, steps) == pytest.approx(ORDERS[solver], abs=0.25)
    assert slope_of(returns, steps) > ORDERS[solver] - 0.25


def test_flow_is_a_change_of_variables():
    """log p(x) = log N(z) + log |det ∂z/∂x|, with the Jacobian by differences of the encoding."""
    flow = double(ContinuousFlow, 3, 8, steps=32, init="glorot", seed=1)
    x, step = randn(0, 5, 3), 1e-5
    with torch.no_grad():
        shifts = step * torch.eye(3)[:, None]  # every direction at once
        columns = (flow.encode(x + shifts)[0] - flow.encode(x - shifts)[0]) / (2 * step)
        change = flow.encode(x)[1]
    volume = columns.movedim(0, -1).det().abs().log()
    torch.testing.assert_close(change, volume, rtol=0, atol=1e-5)
    assert (change + volume).abs().max() > 1e-2 and change.std() > 1e-3


def test_density_integrates_to_one():
    flow = double(ContinuousFlow, 1, 8, steps=20, init="glorot", seed=3)
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        z, _ = flow.encode(x)
        mass = torch.trapezoid(flow(x).exp(), x[:, 0]).item()
        without = torch.trapezoid((-(z[:, 0] ** 2) / 2).exp() / math.sqrt(2 * math.pi), x[:, 0]).item()
    assert mass == pytest.approx(1, abs=1e-6) and abs(without - 1) > 1e-2


def test_hutchinson_is_unbiased():
    """The mean over all 2^n signs is the exact density to rounding; one probe is not."""
    for seed in range(DRAWS):
        exact, estimate = (double(build, 3, 5, steps=2, seed=seed) for build in (ContinuousFlow, HutchinsonFlow))
        x = randn(seed + 1000, 4, 3)
        signs = [torch.tensor(s, dtype=torch.float64).expand_as(x) for s in itertools.product((1, -1), repeat=3)]
        values = [estimate(x, sign) for sign in signs]
        assert relative(torch.stack(values).mean(0), exact(x)) <= 1e-14
        assert relative(values[0], exact(x)) > 1e-4
        assert torch.equal(estimate.generate(x), exact.generate(x))


def test_exact_divergence_and_probes():
    x = randn(0, 2, 5, 3)
    matrix = randn(1, 3, 3)
    slope, trace = exact_divergence(lambda z: torch.sin(z) @ matrix.T, x)
    torch.testing.assert_close(slope, torch.sin(x) @ matrix.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(trace, torch.cos(x) @ matrix.diagonal(), rtol=0, atol=1e-14)
    state = torch.get_rng_state()
    sign = probes(x, generator(3))
    assert torch.equal(sign, probes(x, generator(3))) and set(sign.unique().tolist()) == {-1.0, 1.0}
    assert sign.dtype == torch.float64 and torch.equal(state, torch.get_rng_state())


# Initialisation and errors.
@pytest.mark.parametrize(("init", "variance"), [("lecun", 1 / 201), ("default", 1 / (3 * 201))])
def test_initial_variance(init, variance):
    weight = double(VectorField, 200, 150, init=init).layers[0].weight
    assert weight.shape == (150, 201)
    total, count, kurtosis = (weight.square().sum() / variance).item(), weight.numel(), 3 if init == "lecun" else 1.8
    low, high = stats.norm(count, math.sqrt((kurtosis - 1) * count)).interval(1 - 1e-6)
    assert low <= total <= high and not low <= 1.1 * total <= high


@pytest.mark.parametrize(
    "build",
    [
        lambda **k: NeuralODE(3, 5, 2, **k),
        lambda **k: AugmentedNeuralODE(3, 1, [5, 4], 2, **k),
        lambda **k: AdaptiveNeuralODE(3, 5, 2, **k),
        lambda **k: ContinuousFlow(3, 5, **k),
        lambda **k: HutchinsonFlow(3, 5, **k),
    ],
)
def test_seed_decides_the_network(build):
    state = torch.get_rng_state()
    nets = [
        build(dtype=dtype, generator=generator(seed))
        for dtype, seed in ((torch.float64, 1), (torch.float64, 1), (torch.float64, 2), (torch.float32, 1))
    ]
    first, again, other, single = ([p.detach() for p in net.parameters()] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a.float(), b) for a, b in zip(first, single, strict=True))
    assert not torch.equal(first[0], other[0]) and torch.equal(state, torch.get_rng_state())
    with torch.device("meta"):
        assert {p.device.type for p in build().parameters()} == {"meta"}
    assert repr(nets[0])


def blow_up(**options):
    return adaptive(lambda t, y: y**2, torch.ones(1, dtype=torch.float64), end=2.0, **options)  # y = 1/(1 − t)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: NeuralODE(3, 5, solver="rk5"), ["solver='rk5'", "did you mean 'rk4'", "midpoint"]),
        (lambda: integrate(lambda t, y: y, torch.ones(1), solver="eulr"), ["'eulr'", "'euler'"]),
        (lambda: NeuralODE(3, 5, steps=0), ["steps", "at least 1", "0"]),
        (lambda: integrate(lambda t, y: y, torch.ones(1), steps=1.5), ["steps", "integer", "1.5"]),
        (lambda: NeuralODE(0, 5), ["n must", "0"]),
        (lambda: NeuralODE(3, 0), ["hidden[0]", "0"]),
        (lambda: NeuralODE(3, []), ["hidden=[]", "at least 1"]),
        (lambda: NeuralODE(3, 5, 0), ["n_out", "0"]),
        (lambda: NeuralODE(3, 5, time=0), ["time", "other than 0"]),
        (lambda: NeuralODE(3, 5, time=math.inf), ["time", "finite", "inf"]),
        (lambda: NeuralODE(3, 5, activation="tahn"), ["'tahn'", "tanh"]),
        (lambda: NeuralODE(3, 5, init="kaiming"), ["'kaiming'", "he"]),
        (lambda: NeuralODE(3, 5)(torch.zeros(4, 2)), ["(4, 2)", "n=3", "(..., 3)", "flatten"]),
        (lambda: NeuralODE(3, 5)(torch.zeros(())), ["()", "n=3"]),
        (lambda: AugmentedNeuralODE(3, 0, 5), ["augment", "at least 1"]),
        (lambda: AugmentedNeuralODE(3, 2, 5)(torch.zeros(4, 5)), ["(4, 5)", "n=3"]),
        (lambda: AdaptiveNeuralODE(3, 5)(torch.zeros(4, 2)), ["(4, 2)", "n=3"]),
        (lambda: AdaptiveNeuralODE(3, 5, rtol=0)(torch.zeros(4, 3)), ["rtol", "positive", "0"]),
        (lambda: AdaptiveNeuralODE(3, 5, atol=math.nan)(torch.zeros(4, 3)), ["atol", "positive", "nan"]),
        (lambda: AdaptiveNeuralODE(3, 5, max_steps=0)(torch.zeros(4, 3)), ["max_steps", "0"]),
        (blow_up, ["stopped at t=", "of 2", "step of", "Loosen", "bound"]),
        (lambda: blow_up(max_steps=3), ["max_steps=3", "raise max_steps"]),
        (
            lambda: adaptive(lambda t, y: y * math.nan, torch.ones(1)),
            ["stopped at t=0", "not smooth"],
        ),
        (lambda: ContinuousFlow(3, 5, solver="rk3"), ["'rk3'", "rk4"]),
        (lambda: ContinuousFlow(3, 5, steps=-1), ["steps", "-1"]),
        (lambda: ContinuousFlow(3, 5)(torch.zeros(4, 2)), ["(4, 2)", "n=3"]),
        (lambda: ContinuousFlow(3, 5).generate(torch.zeros(4, 2)), ["(4, 2)", "n=3"]),
        (lambda: HutchinsonFlow(3, 5)(torch.zeros(4, 3), torch.zeros(3)), ["(3,)", "(4, 3)", "probes(x"]),
    ],
)
def test_errors_teach(build, told):
    with pytest.raises(ArchitectureError) as caught:
        build()
    for words in told:
        assert words in str(caught.value)
