r"""What every family shares: activations, initialisation laws, checked arguments.

Nothing here is a layer. An activation is a plain function $φ: ℝ → ℝ$ applied entry by entry; a law says how one layer's
weights and biases are distributed. All draws are made on the CPU in float64, from the generator the caller gives, and
then rounded and moved: the same seed means the same network on every device, and float32 is the rounding of float64.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class ArchitectureError(ValueError):
    """An architecture was asked for that cannot be built or fed; the message names the argument and the remedy."""


def softplus(z: Tensor) -> Tensor:
    """Return $log(1 + e^z)$, smooth everywhere (`F.softplus` jumps by 2e-9 where it turns linear at 20).

    >>> round(softplus(torch.tensor(0.0, dtype=torch.float64)).item() - math.log(2), 15)
    0.0
    """
    return torch.logaddexp(z, torch.zeros_like(z))


def gelu(z: Tensor) -> Tensor:
    r"""Return $z Φ(z) = z (1 + erf(z/\sqrt 2))/2$, the exact form, not the tanh approximation.

    >>> round(gelu(torch.tensor(1.0, dtype=torch.float64)).item(), 12)
    0.841344746069
    """
    return 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))


def silu(z: Tensor) -> Tensor:
    """Return $z σ(z)$.

    >>> silu(torch.tensor([0.0, 1.0])).tolist()[0]
    0.0
    """
    return z * torch.sigmoid(z)


#: The activations known by name. All are smooth except `relu`, whose derivative at 0 is taken as 0.
ACTIVATIONS: MappingProxyType[str, Activation] = MappingProxyType(
    {
        "tanh": torch.tanh,
        "erf": torch.erf,
        "sigmoid": torch.sigmoid,
        "softplus": softplus,
        "gelu": gelu,
        "silu": silu,
        "sin": torch.sin,
        "relu": torch.relu,
    }
)


@dataclass(frozen=True)
class Law:
    r"""The law of one layer's initial weights and biases, by its variances.

    Attributes:
        name: what the law is called.
        weight_variance: `(fan_in, fan_out) -> Var W_{ij}`.
        bias_variance: `(fan_in, fan_out) -> Var b_i`.
        shape: `"normal"` (independent Gaussian entries), `"uniform"` (independent, on $±\sqrt{3 Var}$), or
            `"orthogonal"` (uniform on the matrices with orthonormal rows or columns, whichever fit; its entries have
            variance 1/max(rows, columns), and `weight_variance` must say the same).

    The mean-field family $W_{ij} ∼ N(0, σ_w^2/n), b_i ∼ N(0, σ_b^2)$ [poole2016exponential] is

    >>> law = Law("mean field", lambda n, m: 1.5**2 / n, lambda n, m: 0.1**2)
    >>> law.weight_variance(9, 4)
    0.25

    """

    name: str
    weight_variance: Callable[[int, int], float]
    bias_variance: Callable[[int, int], float] = lambda fan_in, fan_out: 0.0
    shape: Literal["normal", "uniform", "orthogonal"] = "normal"


#: The laws known by name: He, Glorot, LeCun (Gaussian; zero biases), orthogonal, and torch's own for linear layers.
LAWS: MappingProxyType[str, Law] = MappingProxyType(
    {
        law.name: law
        for law in (
            Law("he", lambda n, m: 2 / n),
            Law("glorot", lambda n, m: 2 / (n + m)),
            Law("lecun", lambda n, m: 1 / n),
            Law("orthogonal", lambda n, m: 1 / max(n, m), shape="orthogonal"),
            Law("default", lambda n, m: 1 / (3 * n), lambda n, m: 1 / (3 * n), shape="uniform"),
        )
    }
)


def resolve_activation(activation: str | Activation) -> Activation:
    """Return the function that `activation` names, or the caller's own function as it is.

    >>> resolve_activation("sin") is torch.sin
    True
    """
    if isinstance(activation, str):
        checked_name("activation", activation, ACTIVATIONS, "your own function from a tensor to one of the same shape")
        return ACTIVATIONS[activation]
    if not callable(activation):
        raise ArchitectureError(
            f"activation must be a name ({', '.join(ACTIVATIONS)}) or a function, got {type(activation).__name__}."
        )
    return activation


def resolve_law(init: str | Law) -> Law:
    """Return the law that `init` names, or the caller's own `Law` as it is.

    >>> resolve_law("he").weight_variance(50, 10)
    0.04
    """
    if isinstance(init, Law):
        return init
    return LAWS[checked_name("init", init, LAWS, "a Law")]


def checked_name(argument: str, given: object, known: Iterable[str], instead: str = "") -> str:
    """Return `given` if it is one of the `known` names; else say which are nearest.

    >>> checked_name("positions", "rotary", ["none", "rotary"])
    'rotary'
    """
    names = list(known)
    if isinstance(given, str) and given in names:
        return given
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    own = f", or pass {instead}" if instead else ""
    raise ArchitectureError(f"{argument}={given!r} is not known{hint}; choose one of {', '.join(names)}{own}.")


def checked_sizes(name: str, sizes: Sequence[int], least: int) -> tuple[int, ...]:
    """Return `sizes` as a tuple of positive integers, at least `least` of them.

    >>> checked_sizes("widths", [2, 3], least=2)
    (2, 3)
    """
    if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Iterable):
        raise ArchitectureError(f"{name} must be a list of positive integers, got {sizes!r}.")
    checked = tuple(sizes)
    for position, size in enumerate(checked):
        checked_size(f"{name}[{position}]", size)
    if len(checked) < least:
        raise ArchitectureError(
            f"{name}={list(checked)!r} has {len(checked)} entries, at least {least} are needed: the input's size, "
            "then one for each layer."
        )
    return checked


def checked_size(name: str, size: int) -> int:
    """Return `size` if it is an integer of at least one.

    >>> checked_size("classes", 10)
    10
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArchitectureError(f"{name} must be an integer of at least 1, got {size!r}.")
    return size


def checked_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """Return `generator` if it lives on the CPU, or None.

    >>> checked_generator(None) is None
    True
    """
    if generator is not None and generator.device.type != "cpu":
        raise ArchitectureError(
            f"generator lives on {generator.device}; initial weights are drawn on the CPU and then moved, so that a "
            "seed means the same network on every device: pass torch.Generator().manual_seed(seed)."
        )
    return generator


def draw(law: Law, shape: Sequence[int], generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    r"""Draw a weight of `shape` = (out, in, *kernel) and a bias of shape (out,) from `law`, on the CPU in float64.

    With $k$ = the product of the kernel's sides, fan_in = in·k and fan_out = out·k. Weight first, then bias.

    >>> weight, bias = draw(LAWS["orthogonal"], (2, 5), torch.Generator().manual_seed(0))
    >>> torch.allclose(weight @ weight.T, torch.eye(2, dtype=torch.float64), atol=1e-14), bias.tolist()
    (True, [0.0, 0.0])
    """
    generator = checked_generator(generator)
    kernel = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * kernel, shape[0] * kernel
    if law.shape == "orthogonal":
        weight = _orthogonal(shape[0], fan_in, generator).reshape(tuple(shape))
    else:
        weight = _scaled(law, tuple(shape), law.weight_variance(fan_in, fan_out), generator)
    return weight, _scaled(law, (shape[0],), law.bias_variance(fan_in, fan_out), generator)


def _scaled(law: Law, shape: tuple[int, ...], variance: float, generator: torch.Generator | None) -> Tensor:
    if variance == 0:
        return torch.zeros(shape, dtype=torch.float64, device="cpu")
    if law.shape == "uniform":
        unit = 2 * torch.rand(shape, dtype=torch.float64, device="cpu", generator=generator) - 1
        return math.sqrt(3 * variance) * unit
    return math.sqrt(variance) * torch.randn(shape, dtype=torch.float64, device="cpu", generator=generator)


def _orthogonal(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """Uniform (Haar) by QR of a Gaussian matrix with the signs of R's diagonal taken out [mezzadri2007generate]."""
    gaussian = torch.randn(
        max(rows, columns), min(rows, columns), dtype=torch.float64, device="cpu", generator=generator
    )
    q, r = torch.linalg.qr(gaussian)
    q = q * r.diagonal().sign()
    return q if rows >= columns else q.T


def initialise_(layer: nn.Linear | nn.Conv1d | nn.Conv2d, law: Law, generator: torch.Generator | None) -> None:
    """Fill a layer's weight and bias in place with a draw from `law`."""
    weight, bias = draw(law, layer.weight.shape, generator)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)


def linear(
    fan_in: int,
    fan_out: int,
    bias: bool,
    law: Law,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    generator: torch.Generator | None,
) -> nn.Linear:
    """Make an `nn.Linear` whose entries come from `law` and `generator` alone: torch's global generator is not used."""
    layer = nn.utils.skip_init(
        nn.Linear, fan_in, fan_out, bias=bias, dtype=dtype, device=device or torch.get_default_device()
    )
    initialise_(layer, law, generator)
    return layer


class Maker:
    """Makes the parameters of one module: drawn on the CPU in float64 from one generator, then rounded and moved.

    Args:
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator; torch's global one if None.

    >>> make = Maker(torch.float64, None, torch.Generator().manual_seed(0))
    >>> make.uniform((2, 3), bound=0.1).abs().max() < 0.1
    tensor(True)

    """

    def __init__(
        self, dtype: torch.dtype | None, device: torch.device | str | None, generator: torch.Generator | None
    ) -> None:
        self.dtype, self.device, self.generator = dtype, device, generator

    def parameter(self, value: Tensor) -> nn.Parameter:
        """Make a parameter of a value given in float64."""
        device = self.device or torch.get_default_device()
        return nn.Parameter(value.to(device, self.dtype or torch.get_default_dtype()))

    def normal(self, shape: Sequence[int], variance: float) -> nn.Parameter:
        """Draw independent $N(0, variance)$ entries."""
        law = Law("", lambda n, m: variance)
        return self.parameter(_scaled(law, tuple(shape), variance, checked_generator(self.generator)))

    def uniform(self, shape: Sequence[int], bound: float) -> nn.Parameter:
        """Draw independent entries, uniform on ±bound: variance bound²/3."""
        law = Law("", lambda n, m: 0.0, shape="uniform")
        return self.parameter(_scaled(law, tuple(shape), bound**2 / 3, checked_generator(self.generator)))

    def full(self, shape: Sequence[int], value: float) -> nn.Parameter:
        """Fill with one value."""
        return self.parameter(torch.full(tuple(shape), value, dtype=torch.float64, device="cpu"))

    def linear(self, fan_in: int, fan_out: int, law: Law, bias: bool = True) -> nn.Linear:
        """Make an `nn.Linear` drawn from `law`."""
        return linear(fan_in, fan_out, bias, law, self.dtype, self.device, self.generator)
