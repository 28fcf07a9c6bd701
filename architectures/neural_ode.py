r"""Neural ordinary differential equations: with fixed steps, with zero padding, and with steps chosen by the solver."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._entry import Architecture, Exemption, mean_square, regression, seeded
from ._pieces import Activation, ArchitectureError, Law, Maker, checked_name, checked_size, resolve_law
from .ode import SOLVERS, adaptive, integrate, trajectory
from .vector_field import VectorField, checked_state


class NeuralODE(nn.Module):
    r"""The flow of a learned vector field over a time $T$, solved with fixed steps, and a linear read-out.

    $$h(0) = x, \qquad \dot h(t) = f_θ(t, h(t)), \qquad y = V h(T) + c.$$

    $f_θ$ is a `VectorField`. The steps are unrolled, so what is differentiated is what was computed, to every order and
    in every mode; Euler's steps of size 1 are a residual network. Flows are homeomorphisms: trajectories do not cross,
    and no flow of ℝⁿ separates a ball from a shell around it linearly (`AugmentedNeuralODE` does).

    Shapes: $x$: (..., n) → $y$: (..., n_out), or (..., n) without read-out. Parameters are named
    `field.layers.0.weight`, …, `readout.weight`, `readout.bias`. Initialisation: the table of `MLP`.

    Args:
        n: the size of the state.
        hidden: the width of the field's hidden layer, or a list of several.
        n_out: the size of the output; None leaves the read-out out and returns $h(T)$.
        solver: `"euler"`, `"midpoint"`, `"rk4"` (classical) or `"three-eighths"`.
        steps: how many, at least 1.
        time: $T$, finite and not 0; negative runs backwards.
        activation: as in `MLP`.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's width, is not what it must be.

    Cost: steps × (1, 2, 4, 4) evaluations of the field by solver; all are kept for a gradient (`ode.adjoint` keeps one).
    Left out: event times, continuous-time observations, regularised fields.
    Source: chen2018neural.

    >>> net = NeuralODE(2, hidden=8, n_out=3)
    >>> tuple(net(torch.zeros(5, 2)).shape), tuple(net.trajectory(torch.zeros(5, 2)).shape)
    ((5, 3), (11, 5, 2))
    >>> step = NeuralODE(2, hidden=8, solver="euler", steps=1)
    >>> x = torch.tensor([[0.3, -0.2]])
    >>> torch.equal(step(x), x + step.field(0.0, x))                   # a residual block
    True

    """

    def __init__(
        self,
        n: int,
        hidden: int | Sequence[int],
        n_out: int | None = None,
        solver: str = "rk4",
        steps: int = 10,
        time: float = 1.0,
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.solver, self.steps = checked_name("solver", solver, SOLVERS), checked_size("steps", steps)
        self.time = _checked_time(time)
        self.field = VectorField(n, hidden, activation, init, dtype, device, generator)
        self.readout = _readout(n, n_out, init, dtype, device, generator)

    def trajectory(self, x: Tensor) -> Tensor:
        """Return $h$ at the start and after every step: (..., n) → (steps + 1, ..., n)."""
        h = self._initial(x)
        return torch.stack(trajectory(self.field, h, 0.0, self.time, self.solver, self.steps))

    def forward(self, x: Tensor) -> Tensor:
        """Return $y$: (..., n) → (..., n_out)."""
        return self.readout(integrate(self.field, self._initial(x), 0.0, self.time, self.solver, self.steps))

    def extra_repr(self) -> str:
        """Name the solver in the printed network."""
        return f"solver={self.solver}, steps={self.steps}, time={self.time:g}"

    def _initial(self, x: Tensor) -> Tensor:
        return checked_state(x, self.field.n)


class AugmentedNeuralODE(NeuralODE):
    r"""A neural ODE on the input padded with zeros: room for trajectories to pass around one another.

    $$h(0) = [x; 0] ∈ ℝ^{n+p}, \qquad \dot h(t) = f_θ(t, h(t)), \qquad y = V h(T) + c.$$

    Shapes: $x$: (..., n) → $y$: (..., n_out), or $h(T)$: (..., n + p) without read-out. Parameters are those of a
    `NeuralODE` of $n + p$ dimensions.

    Args:
        n: the size of the input.
        augment: $p$, the number of zeros, at least 1.
        hidden: as in `NeuralODE`, like all that follow.
        n_out: the size of the output; None returns $h(T)$.
        solver: the Runge–Kutta method.
        steps: how many.
        time: $T$.
        activation: of the field.
        init: of every layer.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's width, is not what it must be.

    Cost: that of a `NeuralODE` of $n + p$ dimensions.
    Left out: learned padding.
    Source: dupont2019augmented.

    >>> net = AugmentedNeuralODE(2, augment=3, hidden=8)
    >>> net.trajectory(torch.ones(2)).shape, net.trajectory(torch.ones(2))[0].tolist()
    (torch.Size([11, 5]), [1.0, 1.0, 0.0, 0.0, 0.0])

    """

    def __init__(
        self,
        n: int,
        augment: int,
        hidden: int | Sequence[int],
        n_out: int | None = None,
        solver: str = "rk4",
        steps: int = 10,
        time: float = 1.0,
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        self.n, self.augment = checked_size("n", n), checked_size("augment", augment)
        super().__init__(n + augment, hidden, n_out, solver, steps, time, activation, init, dtype, device, generator)

    def _initial(self, x: Tensor) -> Tensor:
        x = checked_state(x, self.n)
        return torch.cat([x, x.new_zeros((*x.shape[:-1], self.augment))], dim=-1)  # (... n+p)


class AdaptiveNeuralODE(nn.Module):
    r"""A neural ODE whose solver chooses its steps: Dormand–Prince 5(4) to a tolerance (`ode.adaptive`).

    $$h(0) = x, \qquad \dot h(t) = f_θ(t, h(t)), \qquad y = V h(T) + c.$$

    The steps depend on the data and are held when differentiating: derivatives are those of the exact flow up to the
    tolerance, an example's output depends on its batch up to the tolerance, and vmap cannot run it. For training many
    seeds at once and for second derivatives to rounding use `NeuralODE`, which this one checks.

    Shapes and parameters: those of `NeuralODE`.

    Args:
        n: the size of the state.
        hidden: the width of the field's hidden layer, or a list of several.
        n_out: the size of the output; None returns $h(T)$.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        max_steps: tried steps before giving up.
        time: $T$.
        activation: as in `MLP`.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument or the input's width is not what it must be, or the tolerance is not reached.

    Cost: six evaluations of the field a tried step, how many the data decide.
    Left out: dense output.
    Source: chen2018neural; dormand1980family.

    >>> generator = lambda: torch.Generator().manual_seed(0)
    >>> exact = AdaptiveNeuralODE(2, 4, rtol=1e-12, atol=1e-12, dtype=torch.float64, generator=generator())
    >>> steps = NeuralODE(2, 4, steps=100, dtype=torch.float64, generator=generator())
    >>> x = torch.ones(1, 2, dtype=torch.float64)
    >>> torch.allclose(exact(x), steps(x), rtol=0, atol=1e-9)
    True

    """

    def __init__(
        self,
        n: int,
        hidden: int | Sequence[int],
        n_out: int | None = None,
        rtol: float = 1e-6,
        atol: float = 1e-9,
        max_steps: int = 1000,
        time: float = 1.0,
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.rtol, self.atol, self.max_steps, self.time = rtol, atol, max_steps, _checked_time(time)
        self.field = VectorField(n, hidden, activation, init, dtype, device, generator)
        self.readout = _readout(n, n_out, init, dtype, device, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return $y$: (..., n) → (..., n_out)."""
        h = checked_state(x, self.field.n)
        return self.readout(adaptive(self.field, h, 0.0, self.time, self.rtol, self.atol, self.max_steps))


def _checked_time(time: float) -> float:
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not math.isfinite(time) or time == 0:
        raise ArchitectureError(f"time must be a finite number other than 0, got {time!r}.")
    return float(time)


def _readout(
    n: int,
    n_out: int | None,
    init: str | Law,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    generator: torch.Generator | None,
) -> nn.Module:
    if n_out is None:
        return nn.Identity()
    return Maker(dtype, device, generator).linear(n, checked_size("n_out", n_out), resolve_law(init))


def _fixed(solver: str, seed: int) -> Architecture:
    return Architecture(
        name=f"neural-ode-{solver}",
        family="NeuralODE",
        build=lambda: NeuralODE(3, 5, 2, solver=solver, steps=4, dtype=torch.float64, generator=seeded(seed)),
        sample=regression(3, 2),
        loss=mean_square,
        symmetry=None,
        source="chen2018neural",
    )


ENTRIES = (
    _fixed("euler", 1),
    _fixed("midpoint", 2),
    _fixed("rk4", 3),
    Architecture(
        name="augmented-neural-ode",
        family="AugmentedNeuralODE",
        build=lambda: AugmentedNeuralODE(3, 2, 4, 2, steps=3, dtype=torch.float64, generator=seeded(4)),
        sample=regression(3, 2),
        loss=mean_square,
        symmetry=None,
        source="dupont2019augmented",
    ),
    Architecture(
        name="neural-ode-adaptive",
        family="AdaptiveNeuralODE",
        build=lambda: AdaptiveNeuralODE(3, 5, 2, rtol=2e-14, atol=2e-14, dtype=torch.float64, generator=seeded(5)),
        sample=regression(3, 2),
        loss=mean_square,
        symmetry=None,
        source="dormand1980family",
        exempt=(
            Exemption(
                checks=tuple(
                    f"vmap {what} over {over}"
                    for what in ("f", "grad", "RR", "FR", "RF")
                    for over in ("parameters", "data")
                ),
                error="calling .item() on a Tensor",
                reason="the adaptive solver reads errors to choose its steps, which vmap cannot follow",
            ),
        ),
    ),
)
