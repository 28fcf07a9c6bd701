r"""Continuous normalising flows, with the exact divergence and with Hutchinson's estimate of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from ._entry import Architecture, Sample, labels, normal, sampled, seeded
from ._pieces import Activation, ArchitectureError, Law, checked_name, checked_size
from .ode import SOLVERS, integrate
from .vector_field import VectorField, checked_state

Velocity = Callable[[Tensor], Tensor]  # z ↦ f(t, z) at one time
Divergence = Callable[[Velocity, Tensor], tuple[Tensor, Tensor]]  # (f, z) ↦ f(z), its divergence


class _Flow(nn.Module):
    """The field, the solver and both directions of the flow; a subclass says how the divergence is taken."""

    def __init__(
        self,
        n: int,
        hidden: int | Sequence[int],
        solver: str = "rk4",
        steps: int = 10,
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.solver, self.steps = checked_name("solver", solver, SOLVERS), checked_size("steps", steps)
        self.field = VectorField(n, hidden, activation, init, dtype, device, generator)

    def generate(self, z: Tensor) -> Tensor:
        """Return $x = z(1)$ of $z(0)$, a draw from the base: (..., n) → (..., n)."""
        return integrate(self.field, checked_state(z, self.field.n), 0.0, 1.0, self.solver, self.steps)

    def extra_repr(self) -> str:
        """Name the solver in the printed network."""
        return f"solver={self.solver}, steps={self.steps}"

    def _encode(self, x: Tensor, divergence: Divergence) -> tuple[Tensor, Tensor]:
        def rate(t: float, state: Tensor) -> Tensor:
            slope, trace = divergence(lambda z: self.field(t, z), state[..., :-1])
            return torch.cat([slope, trace.unsqueeze(-1)], dim=-1)  # (... n+1)

        start = torch.cat([checked_state(x, self.field.n), torch.zeros_like(x[..., :1])], dim=-1)
        end = integrate(rate, start, 1.0, 0.0, self.solver, self.steps)
        return end[..., :-1], end[..., -1]


class ContinuousFlow(_Flow):
    r"""A density on ℝⁿ: a standard normal one carried by the flow of a learned vector field, with the exact divergence.

    $$z(0) ∼ N(0, I), \qquad \dot z = f_θ(t, z), \qquad x = z(1),$$
    $$\log p(x) = \log N(z(0); 0, I) - \int_0^1 \operatorname{tr} \frac{∂f_θ}{∂z}(t, z(t)) \, dt.$$

    $f_θ$ is a `VectorField`; $\log p$ is found by solving for $z$ and the integral together, from 1 back to 0 with fixed
    steps. Forth and back differ by the solver's error, so $\log p$ is that of the exact flow up to $O(h^p)$.

    Shapes: $x$: (..., n) → $\log p(x)$: (...). Parameters are named `field.layers.0.weight`, …, as in `VectorField`.
    Initialisation: the table of `MLP`.

    Args:
        n: the dimension.
        hidden: the width of the field's hidden layer, or a list of several.
        solver: `"euler"`, `"midpoint"`, `"rk4"` (classical) or `"three-eighths"`.
        steps: how many, at least 1.
        activation: as in `MLP`; a smooth one.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's width, is not what it must be.

    Cost: $n$ Jacobian–vector products of the field for each of the solver's evaluations.
    Left out: other bases, adaptive steps, conditioning.
    Source: chen2018neural; grathwohl2019ffjord.

    >>> flow = ContinuousFlow(2, hidden=8, dtype=torch.float64)
    >>> x = torch.zeros(5, 2, dtype=torch.float64)
    >>> z, change = flow.encode(x)
    >>> flow(x).shape, torch.allclose(flow.generate(z), x, rtol=0, atol=1e-4)
    (torch.Size([5]), True)

    """

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $z(0)$ and $\log |\det ∂z(0)/∂x| = -\int_0^1 \operatorname{tr} ∂f/∂z \, dt$: (..., n) → (..., n), (...).

        >>> [tuple(t.shape) for t in ContinuousFlow(3, hidden=4).encode(torch.zeros(7, 3))]
        [(7, 3), (7,)]
        """
        return self._encode(x, exact_divergence)

    def forward(self, x: Tensor) -> Tensor:
        r"""Return $\log p(x)$: (..., n) → (...)."""
        z, change = self.encode(x)
        return standard_normal(z) + change


class HutchinsonFlow(_Flow):
    r"""A `ContinuousFlow` whose divergence is estimated along one probe an example, held through the solve.

    $$\log p(x) ≈ \log N(z(0); 0, I) - \int_0^1 ε^⊤ \frac{∂f_θ}{∂z}(t, z(t)) \, ε \, dt, \qquad E \, ε ε^⊤ = I.$$

    Unbiased for the `ContinuousFlow` of the same field, solver and steps, since $z$ does not depend on $ε$. The probe
    is an input: nothing is drawn here. Signs (`probes`) have the least variance among probes of independent entries.

    Shapes: $x$: (..., n), $ε$: (..., n) → the estimate of $\log p(x)$: (...). Parameters and their initialisation are
    those of `ContinuousFlow`.

    Args:
        n: the dimension.
        hidden: as in `ContinuousFlow`, like all that follow.
        solver: the Runge–Kutta method.
        steps: how many.
        activation: of the field.
        init: of every layer.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or an input's shape, is not what it must be.

    Cost: one Jacobian–vector product of the field for each of the solver's evaluations, whatever $n$.
    Left out: as in `ContinuousFlow`.
    Source: grathwohl2019ffjord; hutchinson1989stochastic.

    >>> flow = HutchinsonFlow(1, hidden=4, generator=torch.Generator().manual_seed(0))
    >>> x = torch.zeros(3, 1)                                           # in one dimension signs are exact
    >>> exact = ContinuousFlow(1, hidden=4, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(flow(x, probes(x)), exact(x))
    True

    """

    def encode(self, x: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $z(0)$ and the estimate of $\log |\det ∂z(0)/∂x|$: (..., n), (..., n) → (..., n), (...).

        >>> [tuple(t.shape) for t in HutchinsonFlow(3, hidden=4).encode(torch.zeros(7, 3), torch.ones(7, 3))]
        [(7, 3), (7,)]
        """
        if probe.shape != x.shape:
            raise ArchitectureError(
                f"the probe has shape {tuple(probe.shape)} and the input {tuple(x.shape)}; an example needs a probe of "
                "its own shape: draw it with probes(x, generator)."
            )

        def estimate(f: Velocity, z: Tensor) -> tuple[Tensor, Tensor]:
            slope, along = jvp(f, (z,), (probe,))[:2]
            return slope, (probe * along).sum(-1)

        return self._encode(x, estimate)

    def forward(self, x: Tensor, probe: Tensor) -> Tensor:
        r"""Return the estimate of $\log p(x)$: (..., n), (..., n) → (...)."""
        z, change = self.encode(x, probe)
        return standard_normal(z) + change


def exact_divergence(f: Velocity, z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $f(z)$ and $\operatorname{tr} ∂f/∂z$ of every row, by a Jacobian–vector product along each basis vector.

    >>> slope, trace = exact_divergence(lambda z: z**2, torch.tensor([[1.0, 2.0]]))
    >>> slope.tolist(), trace.tolist()
    ([[1.0, 4.0]], [6.0])
    """
    basis = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    slopes, columns = vmap(lambda e: jvp(f, (z,), (e.expand_as(z),))[:2])(basis)  # (n ... n), the slopes all one
    return slopes[0], columns.movedim(0, -1).diagonal(dim1=-2, dim2=-1).sum(-1)


def probes(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw independent signs of `x`'s shape, dtype and device, on the CPU from `generator`.

    >>> probes(torch.zeros(2, 3), torch.Generator().manual_seed(0)).abs().sum().item()
    6.0
    """
    return (2 * torch.randint(2, x.shape, device="cpu", generator=generator) - 1).to(x)


def standard_normal(z: Tensor) -> Tensor:
    r"""Return $\log N(z; 0, I)$ of every row.

    >>> round(standard_normal(torch.zeros(2)).exp().item() * 2 * math.pi, 6)
    1.0
    """
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


def _mean_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return minus the mean log-density: maximum likelihood has no target."""
    return -output.mean()


def _points(probed: bool) -> Sample:
    def draw(g: torch.Generator) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
        x = normal(g, 5, 2)
        return ((x, probes(x, g)) if probed else x), labels(g, 1, 5)

    return sampled(draw)


ENTRIES = (
    Architecture(
        name="continuous-flow",
        family="ContinuousFlow",
        build=lambda: ContinuousFlow(2, 5, steps=3, dtype=torch.float64, generator=seeded(6)),
        sample=_points(probed=False),
        loss=_mean_loss,
        symmetry=None,
        source="chen2018neural",
    ),
    Architecture(
        name="continuous-flow-hutchinson",
        family="HutchinsonFlow",
        build=lambda: HutchinsonFlow(2, 5, steps=3, dtype=torch.float64, generator=seeded(7)),
        sample=_points(probed=True),
        loss=_mean_loss,
        symmetry=None,
        source="grathwohl2019ffjord",
    ),
)
